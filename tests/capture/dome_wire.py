"""A pseudo terminal between the dome's driver and a controller, that damages, loses, delays and cuts.

python tests/capture/dome_wire.py        an emulated dome, until Ctrl-C; prints its port
"""

import os
import pty
import random
import select
import termios
import threading
import time
import tty
from binascii import crc_hqx
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dome_emulator import LINE_BYTES, Emulator


@dataclass
class Faults:
    """What befalls the lines; the same seed, the same fate.

    ``damage`` and ``loss`` are shares of lines, either way. ``fate`` decides of single requests: it is given
    the text of each, and returns "" or one of "lose", "lose reply", "damage", "damage reply", "unplug",
    "reset" (before it is done), "boot and do", "reset after", or a reply such as "ERR 9 lit".
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


def fates(command, *wanted):
    """What befalls the next requests of a command; those after it fare well."""
    left = list(wanted)

    def fate(request):
        return left.pop(0) if left and request.startswith(command) else ""

    return fate


def _smudged(line: bytes) -> bytes:
    return line[:-2] + (b"0" if line[-2:-1] != b"0" else b"1") + line[-1:]


_MISREAD = bytes((byte * 37 + 128) % 256 for byte in range(256))


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
                    for line in self._lines(self._sampled(os.read(self._master, 4096)), to_far=True):
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

    def _sampled(self, data: bytes) -> bytes:
        """What bytes look like where the driver has opened the port with another rate than 115200."""
        if termios.tcgetattr(self._master)[5] == termios.B115200:
            return data
        return data.translate(_MISREAD)

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
        arriving = _smudged(line) if fate == "damage" else self.faults.pass_on(line)
        if fate == "unplug":
            self._cut = True
        elif fate == "reset":
            self.reset()
        elif fate == "boot and do" and self._emulator is not None:
            self._emulator.reset()
            self._emulator.receive(arriving, time.monotonic())
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
            arriving = _smudged(line) if fate == "damage reply" else self.faults.pass_on(line)
            if arriving and fate != "lose reply":
                self._back(arriving)

    def _back(self, data: bytes) -> None:
        if self.faults.delay_s:
            self._late.append((time.monotonic() + self.faults.delay_s, data))
        else:
            os.write(self._master, self._sampled(data))

    def inject(self, data: bytes) -> None:
        """Let bytes arrive at the driver that nobody has sent; lost where it does not read."""
        if select.select([], [self._master], [], 0)[1]:
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
