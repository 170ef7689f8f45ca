"""The last will of a program: what is sent for it when it dies without having turned its lights dark.

Run as a script this is the executor, a process of its own that imports nothing but the standard library.
"""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_TIMES = 3
"""Of a message the dead may have left one half, and a datagram may get lost."""

_GAP_S = 0.02


class Will:
    """Messages that go to an open port or socket if this process dies, by whatever signal.

    Another process has the port open as well, and waits for the end of this one. It sends nothing once the
    will is revoked, and cannot where the computer loses power, the cable is pulled, or it is killed as well.
    There is none on Windows, nor for a port without a file of its own (``rfc2217://``), nor where the system
    starts no more processes: nothing is sent then.

    Parameters
    ----------
    handle : int or None
        File descriptor of the port or socket.
    messages : sequence of bytes
        Sent one after the other, all of it three times.
    """

    def __init__(self, handle: int | None, messages: Sequence[bytes]) -> None:
        self._executor: Any = None
        if handle is None or os.name != "posix":
            return
        import subprocess

        try:
            self._executor = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(handle)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(handle,),
                # Ctrl-C is for this process alone
                start_new_session=True,
            )
        except OSError:
            return
        self._say(b"%d\n" % len(messages) + b"".join(b"%d\n%b" % (len(text), text) for text in messages))

    def _say(self, data: bytes) -> None:
        # where somebody has killed it
        with suppress(BrokenPipeError):
            self._executor.stdin.write(data)
            self._executor.stdin.flush()

    def revoke(self) -> None:
        """Let nothing be sent; return once the other process has ended, and has the port open no more."""
        if self._executor is None:
            return
        self._say(b".")
        with suppress(BrokenPipeError):
            self._executor.stdin.close()
        self._executor.wait()
        self._executor = None


def _execute(handle: int) -> None:
    source = sys.stdin.buffer
    messages = [source.read(int(source.readline())) for _ in range(int(source.readline()))]
    if source.read(1):
        return
    os.set_blocking(handle, True)
    for _ in range(_TIMES):
        for message in messages:
            # that of an earlier datagram
            with suppress(OSError):
                os.write(handle, message)
        time.sleep(_GAP_S)


if __name__ == "__main__":
    _execute(int(sys.argv[1]))
