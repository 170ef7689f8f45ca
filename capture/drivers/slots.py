"""Lights that are bytes of one frame, which is sent whole and again and again: DMX universes, LED strips."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import Any, Literal, Self

from capture.devices import DeviceError, LightLimits
from capture.drivers.link import Link
from capture.drivers.shared import KeepAlive, Shared, SharedLight, check_level, named, tell_burning
from capture.drivers.will import Will

_FAREWELLS = 3
"""How often the dark frame is sent on closing: nobody acknowledges frames, and one may get lost."""

_FAREWELL_GAP_S = 0.01

_ECHO_S = 0.03


class Line(ABC):
    """Where frames go. Lines of one address are one line, of which one is opened.

    A subclass says by `link` where that is, and by `messages` what a frame is there.
    """

    repeat_s = 1.0
    """For how long the receiver may be left without a frame."""

    shown_s = 0.0
    """How long after `send` a frame may take to have reached the lights; known once open."""

    _link: Link
    _number = 0

    @property
    @abstractmethod
    def name(self) -> str:
        """For its errors."""

    @property
    @abstractmethod
    def address(self) -> str:
        """What only one run may hold at a time."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Bytes of a frame."""

    @abstractmethod
    def slot(self, number: int) -> str:
        """What people call a slot, from 0."""

    @abstractmethod
    def link(self) -> Link:
        """Return the way there, not open."""

    @abstractmethod
    def messages(self, frame: bytes, number: int) -> Sequence[bytes]:
        """Return what is sent for a frame, the ``number``-th from 1 since the line was opened."""

    def last_messages(self) -> Sequence[bytes]:
        """Return what darkness is for a receiver that may have heard any number before."""
        return self.messages(bytes(self.slots), 1)

    def send(self, frame: bytes) -> None:
        """Send one frame; DeviceLost where it cannot be sent."""
        self._number += 1
        for message in self.messages(frame, self._number):
            self._link.write(message)

    def confirm(self) -> None:
        """Raise DeviceLost where it is known that frames do not arrive; silence confirms nothing."""
        self._link.confirm()

    def will(self) -> Will:
        """Return what is sent when this process dies: darkness; the line is open."""
        return Will(self._link.fileno(), self.last_messages())

    def _opened(self, link: Any) -> None:
        """Do over the open link what the receiver wants first, and find out what it is."""
        link.confirm()

    def __enter__(self) -> Self:
        self._number = 0
        with ExitStack() as stack:
            self._link = stack.enter_context(self.link())
            self._opened(self._link)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.__exit__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Line) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)


class Slots:
    """The slots of an open line, and which light has which.

    Opening and closing make all of them dark, and so does this process's `Will` when it dies. While it is
    open a thread repeats the frame: receivers count a sender as gone that is silent. A program that hangs is
    bounded by `shared.UNATTENDED_S`.

    What fails while frames are repeated fails the next `confirm`, once.

    Parameters
    ----------
    line : Line
        Where it goes; entered and left with the slots.

    Raises
    ------
    capture.devices.DeviceLost
        From every method: the line is gone.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self._frame = bytearray(line.slots)
        # of each light, with the constant value of those that have one
        self._taken: dict[str, dict[int, int | None]] = {}
        self._lock = threading.Lock()
        self._sent_s = 0.0
        self._will: Will | None = None
        self._alive = KeepAlive(line.name, line.repeat_s / 4, self._repeat)

    def claim(self, light: str, own: Iterable[int], constants: Mapping[int, int]) -> None:
        """Give slots, from 0, to a light, some with a constant value that others may want there too.

        Raises
        ------
        ValueError
            Another light has one of the slots, or wants another value there.
        """
        wanted = dict.fromkeys(own) | dict(constants)
        with self._lock:
            for other, taken in self._taken.items():
                for slot in sorted(wanted.keys() & taken.keys()):
                    if wanted[slot] is None or wanted[slot] != taken[slot]:
                        where = f"{self.line.slot(slot)} of {self.line.name}"
                        raise ValueError(f"light {light}: {where} is that of light {other}")
            self._taken[light] = wanted

    def release(self, light: str) -> None:
        """Make a light dark and forget it."""
        with self._lock:
            slots = set(self._taken.pop(light, {})).difference(*self._taken.values())
            lit = any(self._frame[slot] for slot in slots)
            for slot in slots:
                self._frame[slot] = 0
            if lit:
                self._send()

    def put(self, values: Mapping[int, int]) -> None:
        """Send a frame with these slots changed; what cannot be sent is not lit later."""
        with self._lock:
            self._alive.attend()
            if self._will is None and any(values.values()):
                self._will = self.line.will()
            try:
                for slot, value in values.items():
                    self._frame[slot] = value
                self._send()
            except DeviceError:
                for slot in values:
                    self._frame[slot] = 0
                raise

    def confirm(self) -> None:
        """Raise DeviceError where frames are known not to have arrived; takes no time."""
        with self._lock:
            self._alive.attend()
            self._alive.tell()
            self.line.confirm()

    def _send(self) -> None:
        self._sent_s = time.monotonic()
        self.line.send(bytes(self._frame))

    def _repeat(self, abandoned: str | None) -> None:
        with self._lock:
            told = abandoned if any(self._frame) else None
            if told is not None:
                self._frame[:] = bytes(self.line.slots)
            if told is not None or time.monotonic() - self._sent_s >= self.line.repeat_s * 0.75:
                self._send()
                self.line.confirm()
        if told is not None:
            raise DeviceError(self.line.name, told)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.line)
            self._send()
            # who is there and listens not says so at once
            time.sleep(_ECHO_S)
            self.line.confirm()
            stack.pop_all()
        self._alive.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alive.__exit__()
        try:
            with self._lock:
                self._frame[:] = bytes(self.line.slots)
                for _ in range(_FAREWELLS):
                    self._send()
                    time.sleep(_FAREWELL_GAP_S)
                self.line.confirm()
        except DeviceError as failure:
            tell_burning(self.line.name, failure, error)
        finally:
            if self._will is not None:
                self._will.revoke()
            self.line.__exit__(kind, error, trace)


class SlotLightConfig(LightLimits, ABC):
    """A light that has some of a line's slots."""

    strobe: Literal[False] = False
    sequence: Literal[False] = False

    @property
    def address(self) -> str:
        """The line."""
        return self.line().address

    def open(self, name: str) -> "SlotLight":
        """Return the light, to be entered at once."""
        return SlotLight(name, self)

    @abstractmethod
    def line(self) -> Line:
        """Where the light is, not open."""

    @abstractmethod
    def values(self, level: float) -> dict[int, int]:
        """Return the bytes of the light's own slots, from 0, at a level from 0 to 1."""

    @property
    def constants(self) -> dict[int, int]:
        """Slots that have a value of their own from the first `set` to the closing, for other lights too."""
        return {}

    @property
    def places(self) -> tuple[str, ...]:
        """The light's own slots of its line."""
        line = self.line()
        return tuple(f"{line.slot(number)} of {line.name}" for number in self.values(1.0))


class SlotLight(SharedLight[SlotLightConfig, Slots]):
    """One light of a line."""

    def set(self, level: float) -> None:
        """Burn at ``level`` (0 dark, 1 full); return once the frame has gone out and settled.

        That is after ``settle_s``, and no sooner than the line takes to carry a frame to the lights.

        Raises
        ------
        DeviceError
            The line is gone, or was for a while since the last call.
        """
        check_level(self.name, level)
        with named(self.name):
            slots = self._open()
            slots.put(self.config.values(level) | self.config.constants)
            time.sleep(max(self.limits.settle_s, slots.line.shown_s))
            slots.confirm()

    def confirm(self) -> None:
        """Raise DeviceError where frames are known not to have arrived; takes no time."""
        with named(self.name):
            self._open().confirm()

    def _shared(self) -> AbstractContextManager[Slots]:
        return _OPEN(self.config.line())

    def _join(self, slots: Slots) -> None:
        line = self.config.line()
        if repr(line) != repr(slots.line):
            raise ValueError(f"light {self.name}: {line} here, and {slots.line} in a light before")
        slots.claim(self.name, self.config.values(1.0), self.config.constants)

    def _leave(self, slots: Slots) -> None:
        # what cannot be told to go dark is told by the line's closing
        with suppress(DeviceError):
            slots.release(self.name)


_OPEN = Shared(Slots)
