"""Calls of native code that nothing can interrupt, waited for no longer than their caller may."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")


class Late(Exception):
    """The call has not returned in time; it still runs."""


class Blocking(Generic[T]):
    """Makes one call at a time, each in a thread of its own.

    A call that was given up goes on, and its result is dropped; until it returns, no other is made. Where it
    never returns, neither do these calls ever again: such a driver belongs in a process of its own.
    """

    def __init__(self) -> None:
        self._last: Future[T] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call that was given up still runs."""
        return self._last is not None and not self._last.done()

    def call(self, work: Callable[[], T], until: float) -> T:
        """Return what ``work()`` returns, or raise what it raises.

        Parameters
        ----------
        work : callable
        until : float
            Of ``time.monotonic()``.

        Raises
        ------
        Late
            It has not returned by then, or could not be made since an earlier one has not.
        """
        if self._last is not None:
            wait([self._last], max(0.0, until - time.monotonic()))
            if self.busy:
                raise Late("still busy with what was given up before")
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        self._last = result
        # a daemon: the program may end although the call does not
        threading.Thread(target=run, daemon=True).start()
        wait([result], max(0.0, until - time.monotonic()))
        if self.busy:
            raise Late("took too long")
        return result.result()
