"""The dome's protocol in virtual time: firmware on an emulated chip, emulator in Python; by one client."""

import random

import pytest
from firmware_client import Client, Model, line

WATCHDOG_MS = 2000


@pytest.fixture(params=["firmware", "emulator"])
def counterpart(request, domes):
    """A controller with these settings, as after switching on."""

    def boot(**limits: int) -> Client:
        if request.param == "firmware":
            return domes("uno", *(f"{name.upper()}={value}" for name, value in limits.items()))
        return Model(**limits)

    return boot


@pytest.fixture
def dome(counterpart) -> Client:
    return counterpart()


@pytest.fixture
def short(counterpart) -> Client:
    """With limits that are reached soon."""
    return counterpart(max_on_ms=1500, max_lit=2)


def test_id(dome):
    assert dome.ask("ID") == "OK gnomon 1.0 1 4 255 000000 65000 3 2000 32 50"


def test_stat_of_a_dome_at_rest(dome):
    state, lit, temperature_dc, *rest = dome.ask("STAT").split()[1:]
    assert (state, lit, rest) == ("I", "0", ["0", "0", "0", "-"])
    assert abs(int(temperature_dc) - 250) <= 5


def test_set_lights_and_darkens(dome):
    assert dome.ask("SET 2 255") == "OK"
    assert dome.ask("SET 0 1") == "OK"
    assert dome.lit() == {2: 255, 0: 1}
    assert dome.ask("STAT").split()[1:3] == ["L", "2"]
    assert dome.ask("SET 2 128") == "OK"
    assert dome.lit() == {2: 128, 0: 1}
    assert dome.ask("SET 2 0") == "OK"
    assert dome.ask("OFF") == "OK"
    assert dome.lit() == {}
    assert dome.ask("STAT").split()[1:3] == ["I", "0"]


@pytest.mark.parametrize(
    "commands",
    [
        ("", "set 1 1", "SETT 1 1", "SE 1 1", "NO", "ID\t", "  ID"),
        ("SET", "SET 1", "SET 4 1", "SET 1 256", "SET 1 -1", "SET 1 1 1", "SET 1  1", "SET 1 1 ", "SET a 1"),
        ("SET 4294967297 1", "SET 1 4294967295", "SET 99999999999 1", "SET 0x1 1", "SET 1 1.0"),
        ("FIRE 1 1 1", "FIRE 1 1 1 0", "FIRE 4 1 1 1", "FIRE 1 256 1 1", "FIRE 1 1 1 600000001"),
        ("SEQ 1 1 1 1", "SEQ 0 0 1 1", "SEQ 0 256 1 1", "SEQ 0 1 1", "SEQ 0 1 1 1 1 2", "SEQ 0 1 4 1"),
        ("SEQ 255 1", "SEQ 256 1", "ARM", "ARM 0", "ARM 1", "ARM x", "STOP 1", "HB 1", "STAT 1", "CLR 1"),
        ("ID 1", "WDT", "WDT 99", "WDT 60001", "WDT 1000 1"),
    ],
)
def test_what_is_not_understood_is_refused_and_does_nothing(dome, commands):
    known = {"SET", "FIRE", "SEQ", "ARM", "STOP", "HB", "STAT", "CLR", "ID", "WDT"}
    for command in commands:
        number = 3 if command.split(" ")[0] in known else 2
        assert dome.ask(command).startswith(f"ERR {number} "), command
    assert dome.lit() == {}
    assert dome.edges() == []
    assert dome.ask("STAT").startswith("OK I 0")


def test_a_line_that_is_not_whole_is_answered_to_nobody(dome):
    good = line("11 SET 1 9")
    assert dome.raw(good[:-1] + "x\n") == ["<?? ERR 7 frame"]
    assert dome.raw(good.replace("9*", "8*") + "\n") == ["<?? ERR 1 crc"]
    assert dome.raw(good.lower() + "\n")[0].startswith("<?? ERR")
    assert dome.raw(">" + "A" * 63 + "\n") == ["<?? ERR 6 overflow"]
    assert dome.raw(">" + "A" * 500 + "\n") == ["<?? ERR 6 overflow"]
    assert dome.raw(">" + "A" * 70 + line("12 HB") + "\n") == ["<?? ERR 6 overflow", "<12 OK"]
    assert dome.raw(good[:-1] + "G\n") == ["<?? ERR 7 frame"]
    assert dome.raw("11 SET 1 9*AAAA\n") == ["<?? ERR 7 frame"]
    assert dome.raw(">\n") == ["<?? ERR 7 frame"]
    assert dome.raw(line("1x SET 1 9") + "\n") == ["<?? ERR 7 frame"]
    assert dome.raw("\n\r\n") == []
    assert dome.lit() == {}
    _, _, _, _, crc_errors, overflows, _ = dome.ask("STAT").split()[1:]
    assert (crc_errors, overflows) == ("1", "3")


def test_a_new_line_begins_at_every_mark(dome):
    answers = dome.raw(">11 SET 0 9*" + line("12 SET 1 9") + "\r\n" + "noise" + line("13 SET 2 9") + "\n")
    assert answers == ["<?? ERR 7 frame", "<12 OK", "<13 OK"]
    assert dome.lit() == {1: 9, 2: 9}


def test_a_line_of_64_bytes_is_taken(dome):
    body = "11 SEQ 0 001" + " " + "0" * 37 + "1 00009"
    assert len(line(body)) + 1 == 64
    assert dome.frame(body) == "11 OK"
    assert dome.ask("ARM 1") == "OK"
    assert dome.lit() == {1: 9}


def test_a_repeated_line_is_answered_again_and_not_done_again(dome):
    assert dome.frame("21 FIRE 1 200 1000 500") == "21 OK"
    assert dome.frame("21 FIRE 1 200 1000 500") == "21 OK"
    dome.run(20)
    assert dome.frame("21 FIRE 1 200 1000 500") == "21 OK"
    dome.raw(">22 broken\n")
    assert dome.frame("21 FIRE 1 200 1000 500") == "21 OK"
    assert len(dome.edges()) == 2
    assert dome.sent("DONE") == ["!DONE 21"]
    assert dome.frame("21 FIRE 1 200 1000 501") == "21 OK"
    dome.run(20)
    assert dome.frame("22 FIRE 1 200 1000 501") == "22 OK"
    dome.run(20)
    assert len(dome.edges()) == 6


def test_a_refusal_is_repeated_too(dome):
    assert dome.frame("21 ARM 7").startswith("21 ERR 3")
    assert dome.frame("21 ARM 7").startswith("21 ERR 3")


def test_a_dark_frame_lights_nothing(dome):
    assert dome.ask("FIRE 0 0 100 2000") == "OK"
    dome.run(20)
    assert not [e for e in dome.events if "light" in e]
    up_us, down_us = dome.edges()
    assert abs(down_us - up_us - 2000) <= 3


def test_what_burns_beside_a_shot_goes_on_burning(dome):
    dome.ask("SET 0 40")
    dome.ask("FIRE 1 255 100 100")
    dome.run(20)
    assert dome.lit() == {0: 40}


def test_busy_while_firing(dome):
    dome.ask("FIRE 0 255 1000 500000")
    for command in ("SET 1 1", "SET 0 0", "FIRE 1 1 1 1", "SEQ 0 1 0 1", "ARM 1"):
        assert dome.ask(command).startswith("ERR 4 "), command
    assert dome.ask("STAT").startswith("OK F 1")
    assert dome.ask("HB") == "OK"
    dome.run(600)
    assert dome.lit() == {}


@pytest.mark.parametrize("end", ["OFF", "STOP"])
@pytest.mark.parametrize("settle_us", [1000, 300_000])
def test_a_shot_can_be_ended(dome, end, settle_us):
    dome.ask(f"FIRE 0 255 {settle_us} 900000")
    dome.run(100)
    before_us = dome.now_us
    assert dome.ask(end).startswith("OK")
    dome.run(2500)
    assert dome.lit() == {}
    edges = dome.edges()
    assert len(edges) == (2 if settle_us == 1000 else 0)
    assert all(edge < before_us + 5000 for edge in edges)
    assert dome.sent("DONE") == []
    assert dome.ask("FIRE 0 255 10 10") == "OK"


def test_silence_turns_the_lights_dark_and_stays(dome):
    dome.run(5000)
    assert dome.sent("WDT") == []
    dome.ask("SET 1 100")
    dome.run(1000)
    dome.ask("HB")
    last_us = dome.now_us
    dome.run(1900)
    assert dome.lit() == {1: 100}
    dome.run(200)
    dark_us = next(e["t_us"] for e in dome.events if e.get("level") == 0)
    assert -3000 <= dark_us - last_us - WATCHDOG_MS * 1000 <= 2000
    assert dome.sent("WDT") == ["!WDT"]
    assert dome.ask("STAT").split()[1] == "T"
    assert dome.ask("STAT").split()[-1] == "wdt"
    for command in ("SET 1 1", "FIRE 0 0 1 1", "SEQ 0 1 0 1", "ARM 1"):
        assert dome.ask(command).startswith("ERR 5 "), command
    assert dome.ask("OFF") == "OK"
    assert dome.ask("STOP") == "OK 0"
    assert dome.ask("STAT").split()[1] == "T"
    assert dome.ask("CLR") == "OK"
    assert dome.ask("STAT").split()[-1] == "-"
    assert dome.ask("SET 1 1") == "OK"


def test_the_host_says_how_long_a_silence_may_be(dome):
    assert dome.ask("WDT 100") == "OK"
    assert dome.ask("ID").split()[9] == "100"
    dome.ask("SET 1 100")
    dome.run(90)
    assert dome.lit()
    dome.run(15)
    assert not dome.lit()
    dome.ask("CLR")
    dome.ask("WDT 60000")
    dome.ask("SET 1 100")
    dome.run(59_900)
    assert dome.lit()
    dome.run(110)
    assert not dome.lit()


@pytest.mark.parametrize(
    "commands", [("FIRE 0 255 10 5000000",), ("SEQ 0 9 0 7", "ARM 1"), ("FIRE 0 0 10 5000000",)]
)
def test_silence_ends_shots_and_sequences_too(dome, commands):
    for command in commands:
        assert dome.ask(command) == "OK"
    dome.run(2100)
    assert dome.lit() == {}
    assert len(dome.edges()) in (0, 2)
    assert dome.ask("STAT").split()[1] == "T"
    assert dome.sent("DONE") == []
    dome.tell("pulse 100 20 1000")
    dome.run(5000)
    assert len(dome.edges()) in (0, 2)
    assert dome.lit() == {}


def test_a_repeated_line_is_a_sign_of_life_and_a_broken_one_is_none(dome):
    dome.frame("31 SET 1 5")
    for _ in range(3):
        dome.run(1500)
        assert dome.frame("31 SET 1 5") == "31 OK"
    assert dome.lit() == {1: 5}
    dome.run(1500)
    dome.raw(">32 HB*0000\n")
    dome.run(600)
    assert dome.lit() == {}


def test_a_sequence_steps_at_the_end_of_each_exposure(dome):
    for step in ("SEQ 0 2 0 10 3 20", "SEQ 1 1", "SEQ 2 3 1 30"):
        assert dome.ask(step) == "OK"
    for count in (1, 2, 4):
        assert dome.ask(f"ARM {count}").startswith("ERR 3 ")
    dome.ask("SET 2 99")
    assert dome.ask("ARM 3") == "OK"
    assert dome.ask("STAT").split()[1:3] == ["A", "2"]
    for command in ("SET 0 1", "FIRE 0 1 1 1", "SEQ 0 1", "ARM 3"):
        assert dome.ask(command).startswith("ERR 4 "), command
    seen = [dome.lit()]
    for _ in range(6):
        dome.tell("sync 1")
        dome.run(5)
        assert dome.lit() == seen[-1], "the beginning of an exposure changes nothing"
        dome.tell("sync 0")
        dome.run(5)
        seen.append(dome.lit())
    first, third = {0: 10, 3: 20}, {1: 30}
    assert seen == [first, first, {}, third, third, third, {}]
    assert dome.sent("END") == ["!END 6"]
    assert dome.ask("STAT").split()[1] == "I"
    assert dome.ask("STOP") == "OK 6"
    dome.tell("pulse 100 2 1000")
    dome.run(5)
    assert dome.ask("STOP") == "OK 8"
    assert dome.ask("ARM 3") == "OK"
    assert dome.lit() == first
    assert dome.ask("STAT").split()[4] == "0"
    dome.tell("pulse 100 1 1000")
    dome.run(5)
    assert dome.ask("STOP") == "OK 1"
    assert dome.lit() == {}
    dome.tell("pulse 100 3 1000")
    dome.run(5)
    assert dome.lit() == {}


def test_a_sequence_follows_fast_exposures(dome):
    for step in range(32):
        assert dome.ask(f"SEQ {step} 1 {step % 4} {step + 1}") == "OK"
    assert dome.ask("SEQ 32 1 0 1").startswith("ERR 3 ")
    dome.ask("ARM 32")
    mark = len(dome.events)
    dome.tell("pulse 300 32 600")
    dome.run(30)
    lights = [(e["light"], e["level"]) for e in dome.events[mark:] if e.get("level")]
    assert lights == [(step % 4, step + 1) for step in range(1, 32)]
    assert dome.sent("END") == ["!END 32"]


def test_a_step_can_be_written_again(dome):
    for step in ("SEQ 0 1 0 1", "SEQ 1 1 1 1", "SEQ 2 1 2 1", "SEQ 1 1 3 7"):
        assert dome.ask(step) == "OK"
    assert dome.ask("ARM 3") == "OK"
    dome.tell("pulse 100 1 1000")
    dome.run(5)
    assert dome.lit() == {3: 7}
    dome.ask("OFF")
    assert dome.ask("SEQ 0 1 0 1") == "OK"
    assert dome.ask("SEQ 2 1 0 1").startswith("ERR 3 ")
    assert dome.ask("ARM 1") == "OK"


def test_no_more_lights_than_the_supply_carries(short):
    assert short.ask("SET 0 1") == "OK"
    assert short.ask("SET 1 1") == "OK"
    assert short.ask("SET 2 1").startswith("ERR 9 ")
    assert short.ask("FIRE 2 1 1 1").startswith("ERR 9 ")
    assert short.ask("SET 1 255") == "OK"
    assert short.ask("SEQ 0 1 0 1 1 1 2 1").startswith("ERR 9 ")
    assert short.ask("SEQ 0 1 0 1 1 0 2 1") == "OK"
    assert short.lit() == {0: 1, 1: 255}


def test_no_light_burns_longer_than_it_may(short):
    assert short.ask("FIRE 1 9 100000 1400001").startswith("ERR 9 ")
    assert short.ask("FIRE 1 0 100000 1400001") == "OK"
    short.ask("OFF")
    short.ask("SET 1 9")
    short.ask("SET 1 10")
    short.stay(1000)
    assert short.lit() == {1: 10}
    short.stay(600)
    on_us, _, off_us = (e["t_us"] for e in short.events if e.get("light") == 1)
    assert 1_500_000 <= off_us - on_us <= 1_503_000
    assert short.sent("MAXON") == ["!MAXON 1"]
    assert short.ask("STAT").split()[-1] == "maxon"
    assert short.ask("SET 0 1").startswith("ERR 5 ")
    short.ask("CLR")
    assert short.ask("SET 0 1") == "OK"


def test_what_arrives_while_it_boots_deafens_nobody(dome):
    """A host that knows nothing of the reset goes on talking, to a receiver that is still off."""
    for cause in "PEB":
        dome.tell(f"reset {cause}")
        dome.tell("hex " + b"00 SET 1".hex(" "))
        dome.run(30)
        assert dome.ask("HB") == "OK"


@pytest.mark.parametrize("cause", ["E", "B", "P"])
def test_a_reset_darkens_and_tells_its_cause(dome, cause):
    dome.ask("FIRE 1 100 10 1900000")
    dome.run(10)
    assert dome.lit()
    dome.tell(f"reset {cause}")
    dome.run(10)
    assert dome.lit() == {}
    assert len(dome.edges()) == 2
    assert dome.sent("BOOT") == [f"!BOOT {cause}"]
    dome.run(2500)
    assert dome.ask("STAT").startswith("OK I 0")
    assert len(dome.edges()) == 2


def test_every_command_is_done_once_on_a_bad_wire(dome):
    """2000 commands, 12 % of the lines spoilt either way: levels and shots are those asked for, in order."""
    rng = random.Random(6)
    dome.ask("WDT 60000")

    def spoil(data: bytearray) -> bytes:
        where = rng.randrange(len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data[where] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[where]
        elif kind == 2:
            data.insert(where, rng.randrange(256))
        elif kind == 3:
            del data[where:]
        else:
            data[where:where] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 80)))
        return bytes(data)

    def ask(number: int, command: str) -> str:
        text = (line(f"{number:02X} {command}") + "\n").encode()
        for _ in range(20):
            sent = spoil(bytearray(text)) if rng.random() < 0.08 else text
            dome.tell("hex " + sent.hex(" "))
            for _ in range(3):
                heard = [e["serial"] for e in dome.pass_time("listen 8000") if "serial" in e]
                mine = [answer for answer in heard if answer.startswith(f"<{number:02X} ")]
                if mine and rng.random() > 0.04:
                    return mine[0][4:]
                if mine or any(answer.startswith("<?? ") for answer in heard):
                    break
        raise AssertionError(command)

    number, level, asked, shots = 0x10, 0, [], 0
    for turn in range(2000):
        number = (number + 1) % 256
        if turn % 10 == 9:
            assert ask(number, f"FIRE {turn // 10 % 3} 200 0 20") == "OK"
            shots += 1
            dome.run(1)
        else:
            level = rng.choice([v for v in (5, 50, 100, 150, 200, 250) if v != level])
            assert ask(number, f"SET 3 {level}") == "OK", turn
            asked.append(level)
        if turn % 100 == 0:
            dome.tell("adc 0 2500")
    assert [e["level"] for e in dome.events if e.get("light") == 3] == asked
    assert len(dome.edges()) == 2 * shots
    assert int(dome.ask("STAT").split()[5]) > 20, "the wire was bad enough"
