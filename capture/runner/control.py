"""How a run is steered from outside: pause, cancel, and the signals a process is ended with."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal


class RunControl:
    """Pauses, resumes and cancels a run from any thread. It takes effect before the next exposure."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state: Literal["running", "paused", "cancelled"] = "running"

    @property
    def state(self) -> Literal["running", "paused", "cancelled"]:
        """What has been asked last; cancelled is final."""
        return self._state

    def pause(self) -> None:
        """Ask the run to go dark and wait."""
        self._ask("paused")

    def resume(self) -> None:
        """Let a paused run go on."""
        self._ask("running")

    def cancel(self) -> None:
        """Ask the run to end; its session can be resumed."""
        self._ask("cancelled")

    def wait(self) -> bool:
        """Wait while paused; False when cancelled."""
        with self._changed:
            while self._state == "paused":
                # a wait without end cannot be interrupted by Ctrl-C on Windows
                self._changed.wait(0.5)
            return self._state != "cancelled"

    def _ask(self, state: Literal["running", "paused", "cancelled"]) -> None:
        with self._changed:
            if self._state != "cancelled":
                self._state = state
            self._changed.notify_all()


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143), so that contexts are left and lights go dark.

    The former handler is restored on leaving. Does nothing outside the main thread, which alone may handle
    signals, nor where the program handles SIGTERM itself.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold back the first Ctrl-C, SIGTERM or SIGHUP until leaving; a second one gets through at once."""
    if not _in_main_thread():
        yield
        return
    former: dict[int, Any] = {}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        handler = former[number]
        if len(held) > 1 and callable(handler):
            handler(number, frame)

    for kind in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        handler = signal.getsignal(kind)
        if callable(handler):  # the default action of SIGTERM and an ignored signal stay as they are
            former[kind] = handler
    for number in former:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if held:
        former[held[0]](held[0], None)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
