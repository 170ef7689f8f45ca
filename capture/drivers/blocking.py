"""Pictures by calls of native code that nothing can interrupt, waited for no longer than their caller may."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from capture.devices import DeviceLost, FrameLost

T = TypeVar("T")

FAILURES = 5
"""Where an SDK has no word for a camera that is gone, so many lost frames in a row are taken for it."""

CLOSE_S = 2.0
"""How long leaving a camera waits for a picture that was given up: one that hangs cannot be closed."""

_SLICE_S = 0.2
"""A longer wait cannot be interrupted by Ctrl-C on Windows."""


class Taken(NamedTuple):
    """A picture, and the settings the SDK tells after it."""

    image: NDArray[np.generic]
    exposure_s: float
    gain_db: float


class Blocking(Generic[T]):
    """Takes one picture at a time, each in a thread of its own, and counts them.

    A call that was given up goes on, and its result is dropped; until it returns, no other is made. Where it
    never returns, neither do these calls ever again: such a driver belongs in a process of its own.

    Parameters
    ----------
    name : str
        Of the camera.

    Attributes
    ----------
    frames : int
        How many pictures were taken.
    """

    def __init__(self, name: str) -> None:
        self.frames = 0
        self._name = name
        self._failures = 0
        self._last: Future[T] | None = None

    def over(self) -> bool:
        """Whether no call runs any more; one that was given up has `CLOSE_S` to end."""
        return self._wait(time.monotonic() + CLOSE_S)

    def begin(self) -> None:
        """Know that the camera was opened anew."""
        self._failures = 0

    def take(self, work: Callable[[], T], deadline_s: float) -> T:
        """Return what ``work()`` returns, or raise what it raises.

        Raises
        ------
        FrameLost
            It has not returned by the deadline, or could not be called since an earlier one has not.
        DeviceLost
            It has raised FrameLost, or there was one, `FAILURES` times in a row.
        """
        try:
            taken = self._call(work, deadline_s)
        except FrameLost as error:
            self._failures += 1
            if self._failures < FAILURES:
                raise
            text = str(error).removeprefix(f"{self._name}: ")
            raise DeviceLost(self._name, f"failed {self._failures} times in a row: {text}") from error
        self._failures = 0
        self.frames += 1
        return taken

    def _call(self, work: Callable[[], T], deadline_s: float) -> T:
        until = time.monotonic() + deadline_s
        late = f"no picture within {deadline_s:g} s"
        if not self._wait(until):
            raise FrameLost(self._name, f"{late}: still busy with what was given up before")
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        self._last = result
        # a daemon: the program may end although the call does not
        threading.Thread(target=run, daemon=True).start()
        if not self._wait(until):
            raise FrameLost(self._name, f"{late}: took too long")
        return result.result()

    def _wait(self, until: float) -> bool:
        while self._last is not None and not self._last.done():
            left = until - time.monotonic()
            if left <= 0:
                return False
            wait([self._last], min(left, _SLICE_S))
        return True
