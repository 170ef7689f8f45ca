"""The boards of the dome's firmware: pins, wires to shift registers, and a terminal beside the wall clock."""

import json
import os
import select
import statistics
import subprocess
import time
from contextlib import suppress

import pytest
from firmware_client import Dome, emulator, firmware, line

termios = pytest.importorskip("termios", reason="pseudo-terminals are POSIX's")


def test_all_pins_of_the_larger_chip(domes):
    dome = domes("mega")
    dome.tell("adc 0 321")
    assert dome.ask("ID").split()[4] == "12"
    for channel in range(12):
        assert dome.ask(f"SET {channel} {channel + 1}") == "OK"
        assert dome.lit() == {channel: channel + 1}
        assert dome.ask(f"SET {channel} 0") == "OK"
    assert abs(int(dome.ask("STAT").split()[3]) - 321) <= 2
    for step in range(128):
        assert dome.ask(f"SEQ {step} 1 {step % 12} 255") == "OK"
    assert dome.ask("ARM 128") == "OK"
    dome.tell("pulse 100 128 1000")
    dome.run(140)
    assert dome.sent("END") == ["!END 128"]
    assert dome.ask("FIRE 11 255 1000 1000") == "OK"
    dome.run(10)
    up_us, down_us = dome.edges()
    assert abs(down_us - up_us - 1000) <= 3
    dome.ask("SET 4 1")
    dome.run(2100)
    assert dome.lit() == {}
    assert dome.sent("WDT") == ["!WDT"]


def wire_writes(dome: Dome) -> list[list[int]]:
    """The bits that were shifted in before each rise of the latch, first bit first."""
    level = {"B3": 0, "B5": 0, "B2": 0}
    writes: list[list[int]] = []
    bits: list[int] = []
    for event in dome.events:
        if "pin" not in event:
            continue
        level[event["pin"]] = event["value"]
        if event["pin"] == "B5" and event["value"]:
            bits.append(level["B3"])
        if event["pin"] == "B2" and event["value"]:
            writes.append(bits)
            bits = []
    return writes


@pytest.mark.parametrize(("board", "depth"), [("hc595", 1), ("tlc5947", 12)])
def test_the_wire_to_shift_registers(domes, board, depth):
    dome = domes(board)
    assert dome.ask("ID").split()[4] == "24"
    for command in ("SET 0 77", "SET 23 77", "SET 5 77", "SET 23 0", "SET 0 0"):
        assert dome.ask(command) == "OK"
    assert dome.lit() == {5: 77}
    assert dome.ask("SET 6 78") == "ERR 9 level"
    assert dome.ask("SEQ 0 1 6 78 7 79") == "ERR 9 level"
    assert dome.ask("SET 5 200") == "OK"
    assert dome.lit() == {5: 200}
    assert dome.ask("OFF") == "OK"
    expected = [{0}, {0, 23}, {0, 5, 23}, {0, 5}, {5}, {5}, set()]
    writes = wire_writes(dome)
    assert [len(bits) for bits in writes] == [24 * depth] * len(expected)
    for bits, channels in zip(writes, expected, strict=True):
        # the last channel goes first, to the far end of the chain
        values = [bits[i * depth : (i + 1) * depth] for i in range(24)][::-1]
        assert {i for i, value in enumerate(values) if value == [1] * depth} == channels
        assert all(value in ([0] * depth, [1] * depth) for value in values)


@pytest.mark.parametrize("board", ["hc595", "tlc5947"])
def test_shift_registers_are_dark_before_they_hold_anything(domes, board):
    dome = domes(board)
    dome.ask("SET 3 255")
    dome.tell("reset P")
    mark = len(dome.events)
    dome.run(20)
    assert dome.lit() == {}
    assert not [e for e in dome.events[mark:] if e.get("level")]
    dome.ask("FIRE 3 128 500 500")
    dome.run(20)
    (on, off) = [e for e in dome.events if e.get("light") == 3][-2:]
    up_us, down_us = dome.edges()
    assert on["level"] == 128
    assert up_us - on["t_us"] >= 500
    assert 0 < off["t_us"] - down_us < 10


@pytest.fixture(scope="module")
def real_time():
    """The emulator beside the wall clock, with a pseudo-terminal."""
    process = subprocess.Popen(
        [emulator(), firmware("uno")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        first = next(e for text in process.stdout if "port" in (e := json.loads(text)))
        yield process, first["port"]
        with suppress(BrokenPipeError):
            process.stdin.write("quit\n")
            process.stdin.flush()
        process.stdout.read()


def read_line(port: int, deadline_s: float = 5.0) -> str:
    end_s = time.monotonic() + deadline_s
    data = b""
    while not data.endswith(b"\n"):
        assert select.select([port], [], [], max(0.0, end_s - time.monotonic()))[0], f"no line: {data!r}"
        data += os.read(port, 1)
    return data.decode().strip()


def test_a_terminal_that_is_opened_resets_and_answers(real_time):
    process, path = real_time
    port = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        settings = termios.tcgetattr(port)
        settings[4] = settings[5] = termios.B115200
        termios.tcsetattr(port, termios.TCSANOW, settings)
        assert read_line(port).startswith("!BOOT E*")
        took_s = []
        for number in range(60):
            begun_s = time.perf_counter()
            os.write(port, (line(f"{number:02X} SET 1 {number}") + "\n").encode())
            assert read_line(port).startswith(f"<{number:02X} OK*")
            took_s.append(time.perf_counter() - begun_s)
        assert statistics.median(took_s) < 0.1
        os.write(port, (line("70 WDT 300") + "\n").encode())
        assert read_line(port).startswith("<70 OK*")
        settings[4] = settings[5] = termios.B9600
        termios.tcsetattr(port, termios.TCSADRAIN, settings)
        os.write(port, (line("77 SET 1 255") + "\n").encode())
        assert select.select([port], [], [], 5)[0], "a wrong rate is answered by what cannot be read"
        time.sleep(0.02)
        assert b"<77" not in os.read(port, 100)
    finally:
        os.close(port)
    process.stdin.write("unplug\n")
    process.stdin.flush()
    levels = []
    for text in process.stdout:
        event = json.loads(text)
        if "level" in event:
            levels.append(event["level"])
            if event["level"] == 0 and len(levels) > 1:
                break
    assert 255 not in levels
    assert levels[-2:] == [59, 0], "left alone, the dome goes dark"


def test_a_board_of_shift_registers_for_the_larger_chip():
    with Dome(firmware("hc595", chip="atmega2560")) as dome:
        dome.ask("SET 17 3")
        assert dome.lit() == {17: 3}
