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
LONGEST_US = 600_000_000
COMMANDS = ("ID", "SET", "OFF", "FIRE", "SEQ", "ARM", "STOP", "HB", "WDT", "STAT", "CLR")


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

    def __init__(self, number: int, word: str) -> None:
        self.reply = f"ERR {number} {word}"


BAD = Refused(3, "argument")


class Emulator:
    """A controller. Attributes tell what it did: ``executed``, ``burning``, ``history``, ``pulses``.

    ``history`` holds what burns from when on, ``pulses`` the shots that came to their end, ``trigger`` when
    the trigger rose and fell.
    """

    def __init__(self, board: Board | None = None) -> None:
        self.board = board or Board()
        self.executed: list[str] = []
        self.history: list[tuple[float, dict[int, int]]] = []
        self.pulses = 0
        self.trigger: list[float] = []
        self.temperature = 253
        self.too_hot = False
        self.interlock_open = False
        self.silent = False
        self._lock = threading.RLock()
        self._out = bytearray()
        # of the line that is coming in; None between lines, and where the rest of one is passed over
        self._line: bytearray | None = None
        self._noise = self._skipping = False
        self._now = 0.0
        self._boot()

    def _boot(self) -> None:
        self.burning: dict[int, int] = {}
        self.watchdog_s = self.board.watchdog_ms / 1000
        self.trip = "-"
        self.exposures = 0
        self._counting = False
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
            self._line, self._noise, self._skipping = bytearray(), False, False
        elif byte == ord("\n"):
            line, self._line = self._line, None
            if line is not None:
                self._request(bytes(line).removesuffix(b"\r"))
            elif self._noise:
                self._send("<", "?? ERR 7 frame")
            self._noise = self._skipping = False
        elif self._line is None:
            # an empty line is no line
            self._noise |= byte != ord("\r") and not self._skipping
        elif len(self._line) >= LINE_BYTES - 2 + (byte == ord("\r")):
            self._line, self._skipping = None, True
            self._overflows += 1
            self._send("<", "?? ERR 6 overflow")
        else:
            self._line.append(byte)

    def _request(self, line: bytes) -> None:
        found = re.fullmatch(rb"(.*)\*([0-9A-F]{4})", line, re.DOTALL)
        if found is None:
            self._send("<", "?? ERR 7 frame")
            return
        body, digits = found.groups()
        if digits != b"%04X" % crc_hqx(body, 0xFFFF):
            self._crc_errors += 1
            self._send("<", "?? ERR 1 crc")
            return
        if b"\0" in body or not re.match(rb"[0-9A-F]{2}", body):
            self._send("<", "?? ERR 7 frame")
            return
        self._heard = self._now
        mark = body[:2] + digits
        if mark == self._last[0]:
            self._out += self._last[1]
            return
        text = body.decode("ascii", "replace")
        try:
            answer = " ".join(["OK", *map(str, self._execute(text[:2], text[2:]))])
            self.executed.append(text[3:])
        except Refused as refused:
            answer = refused.reply
        before = len(self._out)
        self._send("<", f"{text[:2]} {answer}")
        self._last = (mark, bytes(self._out[before:]))

    def _send(self, first: str, body: str) -> None:
        data = body.encode()
        self._out += b"%b%b*%04X\n" % (first.encode(), data, crc_hqx(data, 0xFFFF))

    def take(self) -> bytes:
        """Return the bytes for the host since the last call."""
        with self._lock:
            out, self._out = bytes(self._out), bytearray()
            return b"" if self.silent else out

    # ---------------------------------------------------------------- commands

    def _execute(self, sequence: str, text: str) -> tuple[object, ...]:
        blank, command, *words = text.split(" ") if text.startswith(" ") else ("", "")
        if blank or command not in COMMANDS:
            raise Refused(2, "command")
        if command == "OFF":
            words = []
        if not all(word.isdecimal() for word in words):
            raise BAD
        numbers = [int(word) for word in words]
        if command == "FIRE":
            return self._fire(numbers, sequence)
        execute: Callable[[list[int]], tuple[object, ...]] = getattr(self, f"_{command.lower()}")
        return execute(numbers)

    def _within(self, numbers: list[int], *limits: tuple[int, int]) -> None:
        """Refuse other than as many numbers, each within its limits."""
        if len(numbers) != len(limits) or not all(
            low <= number <= high for number, (low, high) in zip(numbers, limits, strict=True)
        ):
            raise BAD

    @property
    def _light(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, self.board.channels - 1), (0, self.board.max_level)

    def _free(self) -> None:
        if self.trip != "-":
            raise Refused(5, self.trip)
        if self._firing is not None or self._armed is not None:
            raise Refused(4, "armed" if self._firing is None else "firing")

    def _safe(self) -> None:
        if self.interlock_open:
            raise Refused(8, "interlock")
        if self.too_hot:
            raise Refused(8, "hot")

    def _id(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers)
        b = self.board
        first = (b.name, b.firmware, b.protocol, b.channels, b.max_level, b.uid)
        return (*first, b.max_on_ms, b.max_lit, round(self.watchdog_s * 1000), b.steps, b.duty_percent)

    def _set(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers, *self._light)
        self._free()
        if numbers[1]:
            self._safe()
        self._burn(self._with(*numbers))
        return ()

    def _with(self, channel: int, level: int) -> dict[int, int]:
        burning = {**self.burning, channel: level}
        burning = {name: value for name, value in burning.items() if value}
        if len(burning) > self.board.max_lit:
            raise Refused(9, "maxlit")
        return burning

    def _fire(self, numbers: list[int], sequence: str) -> tuple[object, ...]:
        self._within(numbers, *self._light, (0, LONGEST_US), (1, LONGEST_US))
        channel, level, settle_us, exposure_us = numbers
        self._free()
        if level:
            self._safe()
            burnt_s = self._now - self._since.get(channel, self._now)
            if (settle_us + exposure_us + 999) // 1000 + int(1000 * burnt_s) > self.board.max_on_ms:
                raise Refused(9, "maxon")
        burning = self._with(channel, level)
        start = self._now + settle_us * 1e-6
        self._firing = (sequence, start, start + exposure_us * 1e-6, channel)
        self._burn(burning)
        return ()

    def _off(self, _: list[int]) -> tuple[object, ...]:
        self._dark()
        return ()

    def _seq(self, numbers: list[int]) -> tuple[object, ...]:
        pairs = len(numbers) // 2 - 1
        self._within(numbers, (0, 255), (1, 255), *self._light * pairs)
        index, count = numbers[:2]
        levels: dict[int, int] = {}
        for channel, level in zip(numbers[2::2], numbers[3::2], strict=True):
            if channel in levels:
                raise BAD
            if level:
                levels[channel] = level
        self._free()
        if index > len(self._steps) or index >= self.board.steps:
            raise Refused(3, "step")
        if len(levels) > self.board.max_lit:
            raise Refused(9, "maxlit")
        self._steps[index : index + 1 if index else None] = [(levels, count)]
        return ()

    def _arm(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers, (0, 255))
        self._free()
        if not self._steps or numbers[0] != len(self._steps):
            raise Refused(3, "steps")
        self._safe()
        self.exposures = 0
        self._counting = True
        self._armed = [0, self._steps[0][1]]
        self._burn(self._steps[0][0])
        return ()

    def _stop(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers)
        self._dark()
        return (self.exposures,)

    def _hb(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers)
        return ()

    def _wdt(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers, (100, 60000))
        self.watchdog_s = numbers[0] / 1000
        return ()

    def _stat(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers)
        state = "T" if self.trip != "-" else "F" if self._firing else "I"
        if state == "I":
            state = "A" if self._armed is not None else "L" if self.burning else "I"
        counts = (self.exposures, self._crc_errors, self._overflows)
        return (state, len(self.burning), self.temperature, *counts, self.trip)

    def _clr(self, numbers: list[int]) -> tuple[object, ...]:
        self._within(numbers)
        self.trip = "-"
        return ()

    # ---------------------------------------------------------------- time and accidents

    @property
    def _lights(self) -> bool:
        return bool(self.burning) or self._armed is not None

    def _burn(self, levels: dict[int, int]) -> None:
        self._since = {channel: self._since.get(channel, self._now) for channel in levels}
        self.burning = dict(levels)
        self.history.append((self._now, dict(levels)))

    def _end_shot(self) -> None:
        if self._firing is not None and self._now >= self._firing[1]:
            self.trigger += [self._firing[1], min(self._now, self._firing[2])]
        self._firing = None

    def _dark(self) -> None:
        self._end_shot()
        self._armed = None
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
            if self._lights or self._firing is not None:
                times.append(self._heard + self.watchdog_s)
            return min(times, default=None)

    def _happen(self) -> None:
        if self._awake_at:
            self._awake_at = 0.0
            self._send("!", "BOOT E")
        elif self._firing is not None and self._now >= self._firing[2]:
            sequence, _, _, channel = self._firing
            self.pulses += 1
            self._end_shot()
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
            self.exposures += self._counting and self.exposures < 65535
            if self._armed is None:
                return
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
            self._end_shot()
            self._boot()
            self._line, self._noise, self._skipping = None, False, False
            self._out.clear()
            self.history.append((self._now, {}))
            if boot_s:
                self._awake_at = time.monotonic() + boot_s
            else:
                self._send("!", f"BOOT {cause}")

    def heat(self, tenths: int = 715) -> None:
        """Become too hot, until ``too_hot`` is taken back; trips what burns."""
        with self._lock:
            self.temperature = tenths
            self.too_hot = True
            if self._lights:
                self._tripped("temp", f"TEMP {tenths}")

    def open_interlock(self) -> None:
        """Open the door, until ``interlock_open`` is taken back; trips what burns."""
        with self._lock:
            self.interlock_open = True
            if self._lights:
                self._tripped("interlock", "LOCK")
