"""What only the dome's firmware has, on an emulated chip in virtual time: clock, limits, sensors."""

import pytest
from firmware_client import Dome, line


@pytest.fixture
def dome(domes) -> Dome:
    return domes("uno")


@pytest.fixture
def short(domes) -> Dome:
    """With limits that are reached soon."""
    return domes("uno", "MAX_ON_MS=1500", "MAX_LIT=2")


def test_a_command_waits_for_no_tick_of_the_clock(dome):
    for turn in range(20):
        dome.run(turn * 0.137)
        begun_us, text = dome.now_us, line(f"{turn:02X} SET 0 {turn + 1}") + "\n"
        dome.raw(text)
        took_us = dome.events[-2]["t_us"] - begun_us
        assert took_us - len(text) * 1e6 / 11520 < 500


@pytest.mark.parametrize(
    ("settle_us", "exposure_us"),
    [
        *((0, 1), (0, 20), (30, 40), (60, 100), (100, 30), (1000, 500), (8192, 8192), (12300, 12345)),
        *((24600, 32768), (65536, 70000), (5, 1_000_000), (1_234_567, 98_765)),
    ],
)
def test_fire_keeps_its_times(dome, settle_us, exposure_us):
    assert dome.ask("WDT 60000") == "OK"
    assert dome.ask(f"FIRE 3 255 {settle_us} {exposure_us}") == "OK"
    dome.run((settle_us + exposure_us) / 1000 + 20)
    on_us, off_us = (e["t_us"] for e in dome.events if e.get("light") == 3)
    up_us, down_us = dome.edges()
    assert settle_us + 32 <= up_us - on_us <= settle_us + 60
    assert abs(down_us - up_us - max(3, exposure_us)) <= 1
    assert 0 < off_us - down_us <= 10
    assert len(dome.sent("DONE")) == 1
    assert dome.ask("STAT").startswith("OK I 0")


def test_fire_lasts_a_minute_while_the_host_lives(dome):
    assert dome.ask("FIRE 0 255 1000 60000000") == "OK"
    dome.stay(59_000)
    assert dome.ask("STAT").startswith("OK F 1")
    dome.stay(1500)
    up_us, down_us = dome.edges()
    assert abs(down_us - up_us - 60e6) <= 3
    assert len(dome.sent("DONE")) == 1


def test_no_light_burns_more_often_than_it_may(short):
    """1.5 s at full level fill the bucket, which leaks by half."""
    assert short.ask("FIRE 1 255 0 1400000") == "OK"
    short.stay(1450)
    assert short.sent("DONE")
    assert short.ask("FIRE 1 255 0 1400000").startswith("ERR 9 ")
    assert short.ask("SET 1 255").startswith("ERR 9 ")
    assert short.ask("SET 2 255") == "OK", "each light has its own"
    short.ask("OFF")
    assert short.ask("FIRE 1 60 0 500000").startswith("ERR 9 "), "too hot still"
    short.stay(1000)
    assert short.ask("FIRE 1 255 0 900000") == "OK"
    short.stay(1000)
    short.stay(1600)
    short.events.clear()
    burnt_us, begun_us = 0.0, short.now_us
    for _ in range(40):
        if short.ask("FIRE 1 255 0 100000") == "OK":
            short.run(110)
            burnt_us += 100_000
        else:
            short.run(20)
        short.ask("HB")
    # what the bucket holds, and half of the time
    assert burnt_us <= 750_000 + 0.5 * (short.now_us - begun_us) + 100_000
    assert burnt_us >= 0.4 * (short.now_us - begun_us)


def test_a_shot_that_is_allowed_comes_to_its_end(short):
    """Of just the longest time, from cold, and on a light that burns already."""
    for turn in range(12):
        short.run(turn * 5.3)
        assert short.ask(f"FIRE {turn % 4} 255 0 1500000") == "OK"
        short.run(1510)
        assert short.ask("STAT").split()[-1] == "-"
        if turn % 4 == 3:
            short.run(3000)
    assert len(short.sent("DONE")) == 12
    short.ask("SET 0 9")
    short.run(1000)
    assert short.ask("FIRE 0 9 0 600000") == "ERR 9 maxon"
    assert short.lit() == {0: 9}
    assert short.ask("FIRE 0 9 0 400000") == "OK"
    short.run(450)
    assert short.sent("MAXON") == []


def test_a_warm_light_may_burn_less_long(short):
    short.ask("FIRE 1 255 0 1000000")
    short.stay(1050)
    assert short.ask("FIRE 1 255 0 600000") == "ERR 9 duty"
    short.ask("SET 1 255")
    short.stay(700)
    assert short.sent("MAXON") == ["!MAXON 1"]
    assert short.ask("STAT").split()[-1] == "duty"
    assert short.lit() == {}


def test_many_short_flashes_count_as_well(domes):
    """Flashes of 0.1 ms are 2 % of the time here: counted so, or not at all, none would be refused."""
    dome = domes("uno", "MAX_ON_MS=50", "DUTY_PCT=5")
    answers = [dome.ask("FIRE 1 255 0 100") for _ in range(100)]
    assert answers[:30] == ["OK"] * 30
    assert answers[-1] == "ERR 9 duty"


def test_an_open_interlock(dome):
    dome.tell("interlock open")
    dome.run(20)
    for command in ("SET 1 1", "FIRE 1 1 1 1"):
        assert dome.ask(command) == "ERR 8 interlock"
    assert dome.ask("SET 1 0") == "OK"
    dome.tell("interlock closed")
    dome.run(20)
    assert dome.ask("SET 1 1") == "OK"
    dome.tell("interlock open")
    dome.run(2)
    dome.tell("interlock closed")
    dome.run(20)
    assert dome.lit() == {1: 1}, "a spark"
    dome.tell("interlock open")
    dome.run(10)
    assert dome.lit() == {}
    assert dome.ask("STAT").split()[-1] == "interlock"
    assert dome.sent("LOCK") == ["!LOCK"]
    assert dome.ask("CLR") == "OK"
    assert dome.ask("SET 1 1").startswith("ERR 8 ")


@pytest.mark.parametrize("celsius", [-15, 0, 10, 25, 33, 48, 69])
def test_temperature(dome, celsius):
    ohm = 10e3 * 2.718281828 ** (3950 * (1 / (celsius + 273.15) - 1 / 298.15))
    dome.tell(f"adc 0 {round(5000 * ohm / (ohm + 10e3))}")
    dome.run(50)
    assert abs(int(dome.ask("STAT").split()[3]) - 10 * celsius) <= 6


def test_heat_turns_the_lights_dark(dome):
    dome.ask("SET 1 100")
    dome.tell("adc 0 640")  # 75 degrees
    dome.run(60)
    assert dome.lit() == {}
    (event,) = dome.sent("TEMP")
    assert 700 <= int(event.split()[1]) <= 800
    assert dome.ask("SET 1 1").startswith("ERR 5 ")
    assert dome.ask("CLR") == "OK"
    assert dome.ask("SET 1 1") == "ERR 8 hot"
    dome.tell("adc 0 820")  # 67 degrees: hot until it is below 65
    dome.run(60)
    assert dome.ask("SET 1 1") == "ERR 8 hot"
    assert dome.ask("FIRE 1 0 10 10") == "OK", "a dark frame"
    dome.tell("adc 0 2500")
    dome.run(60)
    assert dome.ask("SET 1 1") == "OK"


@pytest.mark.parametrize("millivolts", [0, 5000])
def test_a_cut_or_shorted_sensor_is_no_cold_one(dome, millivolts):
    dome.tell(f"adc 0 {millivolts}")
    dome.run(60)
    assert dome.ask("SET 1 1") == "ERR 8 sensor"
    assert dome.ask("STAT").split()[3] == "-"


def test_a_program_that_hangs_is_ended_by_the_hardware(dome):
    dome.ask("SET 1 100")
    hung_us = dome.now_us
    dome.tell("jam")
    dome.run(300)
    dark_us = next(e["t_us"] for e in dome.events if e.get("level") == 0)
    assert dark_us - hung_us < 200_000
    assert dome.sent("BOOT") == ["!BOOT W"]
    assert dome.ask("STAT").startswith("OK I 0")
    dome.run(1000)
    assert dome.sent("BOOT") == ["!BOOT W"], "once"
    dome.tell("reset E")
    dome.run(10)
    assert dome.sent("BOOT")[1:] == ["!BOOT E"]


def test_lines_without_a_pause_and_an_interrupt_at_work(dome):
    """The chip stores two characters: its interrupts must not take longer than these."""
    for step in range(4):
        dome.ask(f"SEQ {step} 255 {step} 9")
    dome.ask("ARM 4")
    dome.tell("pulse 50 400 137")
    answers = dome.raw("".join(line(f"{n:02X} HB") + "\n" for n in range(64)), 120)
    assert [answer for answer in answers if answer[0] == "<"] == [f"<{n:02X} OK" for n in range(64)]
    dome.ask("OFF")
    for settle_us, exposure_us in ((25, 25), (44, 30), (200, 44), (90, 45)):
        text = line(f"A0 FIRE 0 255 {settle_us} {exposure_us}") + "\n"
        text += "".join(line(f"{n:02X} HB") + "\n" for n in range(6))
        answers = dome.raw(text, 60)
        assert sum(answer.endswith(" OK") for answer in answers) == 7
    assert not [e for e in dome.events if "overrun" in e]
    assert dome.ask("STAT").split()[5:7] == ["0", "0"]


def test_too_much_at_once_is_lost_and_told(dome):
    dome.raw("".join(line(f"{n:02X} ID") + "\n" for n in range(40)), 400)
    dome.raw("\n")
    assert dome.ask("HB") == "OK"
    assert int(dome.ask("STAT").split()[6]) > 0
