"""Controllers that several lights share: opened with the first, kept awake, closed with the last."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from sys import exc_info
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import Field

from capture.devices import DeviceError, DeviceLost, LightLimits
from capture.drivers.link import Port, port_itself

C = TypeVar("C", bound=LightLimits)
K = TypeVar("K")
T = TypeVar("T")

UNATTENDED_S = 3600.0
"""For how long lights are kept burning while the program asks nothing of them."""


class Shared(Generic[K, T]):
    """One open resource for all who ask for the same key; opened with the first and closed with the last.

    Opening and closing are done one at a time, so that who comes meanwhile waits. What fails to open is not
    kept: the next to ask tries again.

    Parameters
    ----------
    make : callable
        Makes the resource of a key, not yet entered.
    """

    def __init__(self, make: Callable[[K], AbstractContextManager[T]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._used: dict[K, _Use[T]] = {}

    @contextmanager
    def __call__(self, key: K) -> Iterator[T]:
        """Give the open resource of ``key``; on closing it learns of its last user's exception."""
        with self._lock:
            use = self._used.get(key)
            if use is None:
                manager = self._make(key)
                use = self._used[key] = _Use(manager, manager.__enter__())
            use.count += 1
        try:
            yield use.resource
        finally:
            with self._lock:
                use.count -= 1
                if use.count == 0:
                    del self._used[key]
                    use.manager.__exit__(*exc_info())


@dataclass(eq=False)
class _Use(Generic[T]):
    manager: AbstractContextManager[T]
    resource: T
    count: int = 0


class ChannelConfig(LightLimits):
    """A light that is one channel of a controller on a port.

    Attributes
    ----------
    port : str
        Serial port of the controller, or a URL that pyserial knows (``socket://``, ``rfc2217://``).
    baud : int
        Bits a second of a serial port.
    channel : int
        Which of the controller's channels.
    """

    port: Port
    baud: int = Field(default=115200, gt=0)
    channel: int

    @property
    def address(self) -> str:
        """The port, whatever link in ``/dev/serial`` names it."""
        return port_itself(self.port)

    @property
    def places(self) -> tuple[str, ...]:
        """The channel of its port."""
        return (f"channel {self.channel} of {self.address}",)


class SharedLight(ABC, Generic[C, T]):
    """A light of a controller that has others.

    The controller is opened with the first of its lights and closed, wholly dark, with the last.

    Parameters
    ----------
    name : str
        Name in the rig file.
    config : LightLimits
        What the rig file says of it.
    """

    def __init__(self, name: str, config: C) -> None:
        self.name = name
        self.limits = config.limits
        self.config = config
        self._controller: T | None = None
        self._leaving = ExitStack()

    @abstractmethod
    def _shared(self) -> AbstractContextManager[T]:
        """Return the controller, to be entered."""

    @abstractmethod
    def _join(self, controller: T) -> None:
        """Become one of its lights, dark; ValueError where it has no such light, or has it already."""

    @abstractmethod
    def _leave(self, controller: T) -> None:
        """Go dark and be forgotten; DeviceError where this light may burn on."""

    def _open(self) -> T:
        if self._controller is None:
            raise DeviceError(self.name, "is not open")
        return self._controller

    def __enter__(self) -> Self:
        with named(self.name), ExitStack() as stack:
            controller = stack.enter_context(self._shared())
            self._join(controller)
            self._leaving = stack.pop_all()
        self._controller = controller
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        controller, self._controller = self._controller, None
        if controller is None:
            return
        with named(self.name):
            try:
                self._leave(controller)
            except DeviceError as failure:
                tell_burning(self.name, failure, error)
            finally:
                self._leaving.__exit__(kind, error, trace)


class KeepAlive:
    """A thread that speaks to a controller for as long as it is open.

    A program that hangs lets no light burn for ever: its lights are made dark once it has asked nothing for
    `UNATTENDED_S`.

    Parameters
    ----------
    name : str
        Of the controller.
    period_s : float
        Time between two calls.
    beat : callable
        Called in the thread: with None, or with why lights are to be made dark. What it raises is noted.
    """

    def __init__(self, name: str, period_s: float, beat: Callable[[str | None], None]) -> None:
        self._period_s = period_s
        self._beat = beat
        self._attended_s = 0.0
        self._fault: DeviceError | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keeps {name} awake", daemon=True)

    def attend(self) -> None:
        """Note that the program asks something."""
        self._attended_s = time.monotonic()

    def note(self, fault: DeviceError) -> None:
        """Keep what has failed for `tell`, unless something else has failed before."""
        self._fault = self._fault or fault

    def tell(self) -> None:
        """Raise, once, what has failed since the last time."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _run(self) -> None:
        while not self._closing.wait(self._period_s):
            hangs = time.monotonic() - self._attended_s > UNATTENDED_S
            told = f"nothing was asked of its lights for {UNATTENDED_S:g} s: made them dark"
            try:
                self._beat(told if hangs else None)
            except DeviceError as error:
                self.note(error)

    def __enter__(self) -> Self:
        self.attend()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()


def check_level(name: str, level: float) -> None:
    """Raise ValueError where the level asked of a light is outside 0 to 1."""
    if not 0 <= level <= 1:
        raise ValueError(f"{name}: level {level} is outside 0 to 1")


def steps_of(level: float, full: float) -> int:
    """Return a level from 0 to 1 in steps of which ``full`` are 1: none but level 0 is dark."""
    return max(round(level * full), 1) if level > 0 else 0


def tell_burning(name: str, failure: DeviceError, error: BaseException | None, how_long: str = "") -> None:
    """Raise DeviceLost: ``failure`` keeps a light from being made dark.

    Not where the program ends for another DeviceError: that has told already, and is why this failed.
    """
    if not isinstance(error, DeviceError):
        raise DeviceLost(name, f"MAY STILL BURN{how_long}: {reason_of(failure)}") from failure


@contextmanager
def named(name: str) -> Iterator[None]:
    """Let the errors of a shared controller go under the name of the light that asked."""
    try:
        yield
    except DeviceError as error:
        if error.device == name:
            raise
        raise type(error)(name, reason_of(error)) from error


def reason_of(error: DeviceError) -> str:
    """What an error says, without the name of its device."""
    return str(error).removeprefix(f"{error.device}: ")
