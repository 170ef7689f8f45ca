"""The dome's protocol in Python, after its table.

It has no input or output and no clock: it is given bytes and the time. Duty is not emulated.
"""

import re
import threading
import time
from binascii import crc_hqx
from collections.abc import Callable
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
        self._firing: tuple[str, float, float, int] | None = None
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
            burning = self._with(channel, level)
            self._firing = (sequence, start, start + exposure_us * 1e-6, channel)
            self._burn(burning)
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
        self._burn(self._with(channel, level))
        return ()

    def _with(self, channel: int, level: int) -> dict[int, int]:
        burning = {**self.burning, channel: level}
        burning = {name: value for name, value in burning.items() if value}
        if len(burning) > self.board.max_lit:
            raise Refused(9, "lit")
        return burning

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
            sequence, _, _, channel = self._firing
            self.pulses += 1
            self._firing = None
            self._burn(self._with(channel, 0))
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
