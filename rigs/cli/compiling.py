"""What the first run waits for: kernels that no earlier run has left compiled."""

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

_PATIENCE_S = 2.0


@cache
def tell_of_compiling(say: Callable[[str], object]) -> None:
    """Say one line once compiling has taken two seconds, in this process.

    Numba broadcasts each kernel that it compiles, with those within, and none that it reads from its cache.
    """
    from numba.core import event

    class Compiling(event.Listener):
        def __init__(self) -> None:
            self._depth, self._since, self._spent = 0, 0.0, 0.0
            self._told = False
            self._timer = threading.Timer(0, self._tell)

        def on_start(self, event: Any) -> None:
            self._depth += 1
            if self._depth == 1 and not self._told:
                self._since = time.monotonic()
                self._timer = threading.Timer(max(_PATIENCE_S - self._spent, 0), self._tell)
                self._timer.daemon = True
                self._timer.start()

        def on_end(self, event: Any) -> None:
            self._depth -= 1
            if self._depth == 0:
                self._timer.cancel()
                self._spent += time.monotonic() - self._since

        def _tell(self) -> None:
            self._told = True
            say("the first run compiles its kernels: a minute or so, once")

    event.register("numba:compile", Compiling())  # type: ignore[no-untyped-call]
