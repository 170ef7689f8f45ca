"""The dome's protocol in Python, after its table; and a wire that damages, loses, delays and cuts.

`Emulator` has no input or output and no clock: it is given bytes and the time. `Wire` is a pseudo terminal
between a driver and an emulator, or between a driver and another serial port. Duty is not emulated.

    python tests/capture/dome_emulator.py        an emulated dome, until Ctrl-C; prints its port
"""

import os
import pty
import random
import re
import select
import threading
import time
import tty
from binascii import crc_hqx
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

LINE_BYTES = 64


@dataclass
class Board:
    """What the emulated controller says it is."""

    name: str = "emulated"
    firmware: str = "1.0"
    protocol: int = 1
    channels: int = 24
    max_level: int = 255
    uid: str = "EM0001"
    max_on_ms: int = 60000
    max_lit: int = 8
    watchdog_ms: int = 2000
    steps: int = 64
    duty_percent: int = 100


class Refused(Exception):
    """An ``ERR`` reply."""

    def __init__(self, number: int, text: str) -> None:
        self.reply = f"ERR {number} {text}"


class Emulator:
    """A controller. Attributes tell what it did: ``executed``, ``burning``, ``history``, ``pulses``."""

    def __init__(self, board: Board | None = None) -> None:
        self.board = board or Board()
        self.executed: list[str] = []
        self.history: list[tuple[float, dict[int, int]]] = []
        self.pulses = 0
        self.temperature = 253
        self.too_hot = False
        self.silent = False
        self._lock = threading.RLock()
        self._out = bytearray()
        self._line: bytearray | None = None
        self._noise = False
        self._now = 0.0
        self._boot()

    def _boot(self) -> None:
        self.burning: dict[int, int] = {}
        self.watchdog_s = self.board.watchdog_ms / 1000
        self.trip = "-"
        self.exposures = 0
        self._since: dict[int, float] = {}
        self._steps: list[tuple[dict[int, int], int]] = []
        self._armed: list[int] | None = None
        self._firing: tuple[str, float, float] | None = None
        self._heard = self._now
        self._last: tuple[bytes, bytes] = (b"", b"")
        self._crc_errors = self._overflows = 0
        self._awake_at = 0.0

    # ---------------------------------------------------------------- bytes

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the host."""
        with self._lock:
            self.advance(now)
            if self.silent or now < self._awake_at:
                return
            for byte in data:
                self._receive(byte)

    def _receive(self, byte: int) -> None:
        if byte == ord(">"):
            if self._line:
                self._send("<", "?? ERR 7 frame")
            self._line, self._noise = bytearray(), False
        elif self._line is None:
            if byte == ord("\n") and self._noise:
                self._send("<", "?? ERR 7 frame")
            # an empty line is no line
            self._noise = byte not in b"\r\n"
        elif byte == ord("\n"):
            line, self._line = bytes(self._line).removesuffix(b"\r"), None
            self._request(line)
        else:
            self._line.append(byte)
            if len(self._line) > LINE_BYTES - 2:
                self._line = None
                self._overflows += 1
                self._send("<", "?? ERR 6 overflow")

    def _request(self, line: bytes) -> None:
        body, _, digits = line.rpartition(b"*")
        parts = body.split(b" ")
        if digits != b"%04X" % crc_hqx(body, 0xFFFF) or not re.fullmatch(rb"[0-9A-F]{2}", parts[0]):
            self._crc_errors += 1
            self._send("<", "?? ERR 1 crc")
            return
        self._heard = self._now
        if line == self._last[0]:
            self._out += self._last[1]
            return
        sequence, *words = body.decode("ascii", "replace").split(" ")
        try:
            answer = " ".join(["OK", *map(str, self._execute(sequence, words))])
            self.executed.append(" ".join(words))
        except Refused as refused:
            answer = refused.reply
        before = len(self._out)
        self._send("<", f"{sequence} {answer}")
        self._last = (line, bytes(self._out[before:]))

    def _send(self, first: str, body: str) -> None:
        data = body.encode()
        self._out += b"%b%b*%04X\n" % (first.encode(), data, crc_hqx(data, 0xFFFF))

    def take(self) -> bytes:
        """Return the bytes for the host since the last call."""
        with self._lock:
            out, self._out = bytes(self._out), bytearray()
            return b"" if self.silent else out

    # ---------------------------------------------------------------- commands

    def _execute(self, sequence: str, words: list[str]) -> tuple[object, ...]:
        command, arguments = words[0] if words else "", words[1:]
        counts = {"ID": 0, "SET": 2, "OFF": 0, "FIRE": 4, "ARM": 1, "STOP": 0, "HB": 0, "WDT": 1, "STAT": 0}
        counts["CLR"] = 0
        if command not in (*counts, "SEQ"):
            raise Refused(2, "command")
        if not all(word.isdecimal() for word in arguments) or len(arguments) != counts.get(
            command, len(arguments)
        ):
            raise Refused(3, "argument")
        if command in ("SET", "FIRE", "SEQ", "ARM"):
            if self.trip != "-":
                raise Refused(5, "tripped")
            if self._armed is not None or self._firing is not None:
                raise Refused(4, "busy")
        numbers = [int(word) for word in arguments]
        if command == "FIRE":
            channel, level, settle_us, exposure_us = numbers
            self._may(channel, level)
            start = self._now + settle_us * 1e-6
            self._firing = (sequence, start, start + exposure_us * 1e-6)
            self._burn({channel: level} if level else {})
            return ()
        execute: Callable[[list[int]], tuple[object, ...]] = getattr(self, f"_{command.lower()}")
        return execute(numbers)

    def _id(self, _: list[int]) -> tuple[object, ...]:
        b = self.board
        first = (b.name, b.firmware, b.protocol, b.channels, b.max_level, b.uid)
        return (*first, b.max_on_ms, b.max_lit, b.watchdog_ms, b.steps, b.duty_percent)

    def _set(self, numbers: list[int]) -> tuple[object, ...]:
        channel, level = numbers
        self._may(channel, level)
        burning = {**self.burning, channel: level}
        burning = {name: value for name, value in burning.items() if value}
        if len(burning) > self.board.max_lit:
            raise Refused(9, "lit")
        self._burn(burning)
        return ()

    def _off(self, _: list[int]) -> tuple[object, ...]:
        self._dark()
        return ()

    def _seq(self, numbers: list[int]) -> tuple[object, ...]:
        if len(numbers) < 2 or len(numbers) % 2:
            raise Refused(3, "argument")
        index, count = numbers[:2]
        levels = dict(zip(numbers[2::2], numbers[3::2], strict=True))
        if index > len(self._steps) or index >= self.board.steps or not 1 <= count <= 255:
            raise Refused(3, "argument")
        for channel, level in levels.items():
            self._may(channel, level)
        if sum(level > 0 for level in levels.values()) > self.board.max_lit:
            raise Refused(9, "lit")
        self._steps[index:] = [({c: v for c, v in levels.items() if v}, count)]
        return ()

    def _arm(self, numbers: list[int]) -> tuple[object, ...]:
        if not self._steps or numbers[0] != len(self._steps):
            raise Refused(3, "argument")
        self.exposures = 0
        self._armed = [0, self._steps[0][1]]
        self._burn(self._steps[0][0])
        return ()

    def _stop(self, _: list[int]) -> tuple[object, ...]:
        self._dark()
        return (self.exposures,)

    def _hb(self, _: list[int]) -> tuple[object, ...]:
        return ()

    def _wdt(self, numbers: list[int]) -> tuple[object, ...]:
        if not 100 <= numbers[0] <= 60000:
            raise Refused(3, "argument")
        self.watchdog_s = numbers[0] / 1000
        return ()

    def _stat(self, _: list[int]) -> tuple[object, ...]:
        state = "T" if self.trip != "-" else "F" if self._firing else "I"
        if state == "I":
            state = "A" if self._armed is not None else "L" if self.burning else "I"
        counts = (self.exposures, self._crc_errors, self._overflows)
        return (state, len(self.burning), self.temperature, *counts, self.trip)

    def _clr(self, _: list[int]) -> tuple[object, ...]:
        if self.too_hot:
            raise Refused(8, "hot")
        self.trip = "-"
        return ()

    def _may(self, channel: int, level: int) -> None:
        if channel >= self.board.channels or level > self.board.max_level:
            raise Refused(3, "argument")

    # ---------------------------------------------------------------- time and accidents

    def _burn(self, levels: dict[int, int]) -> None:
        self._since = {channel: self._since.get(channel, self._now) for channel in levels}
        self.burning = dict(levels)
        self.history.append((self._now, dict(levels)))

    def _dark(self) -> None:
        self._armed = self._firing = None
        self._burn({})

    def _tripped(self, cause: str, event: str) -> None:
        self._dark()
        self.trip = cause
        self._send("!", event)

    def advance(self, now: float) -> None:
        """Let the time go on to ``now``."""
        with self._lock:
            while (due := self.due()) is not None and due <= now:
                self._now = max(self._now, due)
                self._happen()
            self._now = max(self._now, now)

    def due(self) -> float | None:
        """When something happens next by itself."""
        with self._lock:
            if self._awake_at:
                return self._awake_at
            times = [since + self.board.max_on_ms / 1000 for since in self._since.values()]
            if self._firing is not None:
                times.append(self._firing[2])
            if self.burning or self._armed is not None or self._firing is not None:
                times.append(self._heard + self.watchdog_s)
            return min(times, default=None)

    def _happen(self) -> None:
        if self._awake_at:
            self._awake_at = 0.0
            self._send("!", "BOOT E")
        elif self._firing is not None and self._now >= self._firing[2]:
            sequence = self._firing[0]
            self.pulses += 1
            self._dark()
            self._send("!", f"DONE {sequence}")
        elif self._now >= self._heard + self.watchdog_s:
            self._tripped("wdt", "WDT")
        else:
            for channel, since in self._since.items():
                if self._now >= since + self.board.max_on_ms / 1000:
                    self._tripped("maxon", f"MAXON {channel}")
                    return

    def edge(self, now: float | None = None) -> None:
        """End one exposure of the camera."""
        with self._lock:
            self.advance(time.monotonic() if now is None else now)
            if self._armed is None:
                return
            self.exposures += 1
            self._armed[1] -= 1
            if self._armed[1]:
                return
            step = self._armed[0] + 1
            if step == len(self._steps):
                self._dark()
                self._send("!", f"END {self.exposures}")
            else:
                self._armed = [step, self._steps[step][1]]
                self._burn(self._steps[step][0])

    def reset(self, cause: str = "E", boot_s: float = 0.0) -> None:
        """Reset; it answers nothing for ``boot_s``, then tells that it has booted."""
        with self._lock:
            self._boot()
            self._line = None
            self._out.clear()
            self.history.append((self._now, {}))
            if boot_s:
                self._awake_at = time.monotonic() + boot_s
            else:
                self._send("!", f"BOOT {cause}")

    def heat(self, tenths: int = 715) -> None:
        """Trip by temperature; cannot be cleared while ``too_hot``."""
        with self._lock:
            self.temperature = tenths
            self.too_hot = True
            self._tripped("temp", f"TEMP {tenths}")


# -------------------------------------------------------------------- the wire


@dataclass
class Faults:
    """What befalls the lines; the same seed, the same fate.

    ``damage`` and ``loss`` are shares of lines, either way. ``fate`` decides of single requests: it is given
    the text of each, and returns "" or one of "lose", "lose reply", "damage", "damage reply", "unplug",
    "reset" (before it is done), "reset after", or a reply such as "ERR 9 lit".
    """

    damage: float = 0.0
    loss: float = 0.0
    delay_s: float = 0.0
    seed: int = 0
    fate: Callable[[str], str] | None = None
    damaged: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def pass_on(self, line: bytes) -> bytes:
        """Return what arrives of a line."""
        chance = self._random.random()
        if chance < self.loss:
            return b""
        return self.spoil(line) if chance < self.loss + self.damage else line

    def spoil(self, line: bytes) -> bytes:
        """Change, drop or insert one byte."""
        self.damaged += 1
        place = self._random.randrange(len(line))
        other = bytes([(line[place] + self._random.randrange(1, 256)) % 256])
        arriving = self._random.choice((other, b"", line[place : place + 1] + other))
        return line[:place] + arriving + line[place + 1 :]


class Wire(threading.Thread):
    """A pseudo terminal ``port`` for the driver; at its other end an emulator, or a serial port.

    Parameters
    ----------
    far : Emulator or str
        The controller, or the path of its port.
    faults : Faults, optional
        What befalls the lines.
    """

    def __init__(self, far: Emulator | str, faults: Faults | None = None) -> None:
        super().__init__(daemon=True)
        self.faults = faults or Faults()
        self.requests: list[str] = []
        self._emulator = far if isinstance(far, Emulator) else None
        self._far = os.open(far, os.O_RDWR | os.O_NOCTTY) if isinstance(far, str) else -1
        if self._far >= 0:
            tty.setraw(self._far)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._wake = os.pipe()
        self._partial = {True: b"", False: b""}
        self._late: list[tuple[float, bytes]] = []
        self._spoil_reply = ""
        self._cut = False

    def run(self) -> None:
        """Carry lines until the wire is cut."""
        readable = [self._master, self._wake[0], *([self._far] if self._far >= 0 else [])]
        while not self._cut:
            now = time.monotonic()
            due = [when for when, _ in self._late]
            if self._emulator is not None and (when := self._emulator.due()) is not None:
                due.append(when)
            ready, _, _ = select.select(readable, [], [], max(0.0, min(due) - now) if due else None)
            if self._wake[0] in ready:
                os.read(self._wake[0], 100)
            try:
                if self._master in ready:
                    for line in self._lines(os.read(self._master, 4096), to_far=True):
                        self._to_far(line)
                if self._far in ready:
                    self._from_far(os.read(self._far, 4096))
                if self._emulator is not None:
                    self._emulator.advance(time.monotonic())
                    self._from_far(self._emulator.take())
                while self._late and self._late[0][0] <= time.monotonic():
                    os.write(self._master, self._late.pop(0)[1])
            except OSError:
                self._cut = True
        for handle in (self._master, self._slave, *([self._far] if self._far >= 0 else [])):
            with suppress(OSError):
                os.close(handle)

    def _lines(self, data: bytes, to_far: bool) -> list[bytes]:
        *lines, rest = (self._partial[to_far] + data).split(b"\n")
        if len(rest) > 2 * LINE_BYTES:
            lines, rest = [*lines, rest], b""
        self._partial[to_far] = rest
        return [line + b"\n" for line in lines]

    def _to_far(self, line: bytes) -> None:
        text = line[1:].partition(b"*")[0].decode("ascii", "replace")
        self.requests.append(text)
        fate = self.faults.fate(text[3:]) if self.faults.fate is not None else ""
        arriving = self.faults.spoil(line) if fate == "damage" else self.faults.pass_on(line)
        if fate == "unplug":
            self._cut = True
        elif fate == "reset":
            self.reset()
        elif fate.startswith("ERR"):
            body = f"{text[:2]} {fate}".encode()
            self._back(b"<%b*%04X\n" % (body, crc_hqx(body, 0xFFFF)))
        elif fate != "lose" and arriving:
            self._spoil_reply = fate if fate.endswith("reply") else ""
            if self._emulator is not None:
                self._emulator.receive(arriving, time.monotonic())
                self._from_far(self._emulator.take())
            else:
                os.write(self._far, arriving)
            if fate == "reset after":
                self.reset()

    def reset(self) -> None:
        """Reset the emulator."""
        assert self._emulator is not None
        self._emulator.reset()
        self.poke()

    def _from_far(self, data: bytes) -> None:
        for line in self._lines(data, to_far=False):
            fate = ""
            if line.startswith(b"<"):
                fate, self._spoil_reply = self._spoil_reply, ""
            arriving = self.faults.spoil(line) if fate == "damage reply" else self.faults.pass_on(line)
            if arriving and fate != "lose reply":
                self._back(arriving)

    def _back(self, data: bytes) -> None:
        if self.faults.delay_s:
            self._late.append((time.monotonic() + self.faults.delay_s, data))
        else:
            os.write(self._master, data)

    def inject(self, data: bytes) -> None:
        """Let bytes arrive at the driver that nobody has sent."""
        os.write(self._master, data)

    def poke(self) -> None:
        """Make it look at once at what its emulator was told from another thread."""
        os.write(self._wake[1], b"x")

    def unplug(self) -> None:
        """Pull the cable, for ever."""
        self._cut = True
        self.poke()
        self.join()

    def __enter__(self) -> "Wire":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        for handle in self._wake:
            os.close(handle)


if __name__ == "__main__":
    with Wire(Emulator()) as wire:
        print(wire.port, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
