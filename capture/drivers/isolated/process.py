"""The process an isolated camera lives in, seen from outside: messages to and fro, deadlines, its end.

A message is JSON and the bytes that belong to it, each with its length before it.
"""

import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import IO, Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from capture.devices import (
    Camera,
    CameraLimits,
    DeviceError,
    DeviceLost,
    FrameLost,
    NotReady,
    SettingRefused,
)

CLOSE_S = 5.0
"""What closing the camera may take."""

_KILL_S = 0.5
"""What a process may take to end once it has been killed, or has fallen silent."""

_SLICE_S = 0.2
_SLEPT_S = 1.0
"""A wait of `_SLICE_S` that took this long was none."""

_HEAD = struct.Struct("<IQ")
_QUEUED_FRAMES = 4
_KINDS: dict[str, type[DeviceError]] = {
    kind.__name__: kind for kind in (DeviceError, FrameLost, NotReady, SettingRefused, DeviceLost)
}


class CameraConfiguration(Protocol):
    """What a configuration needs to be sent to another process."""

    @property
    def limits(self) -> CameraLimits:
        """What the camera can do."""
        ...

    def open(self, name: str) -> Camera:
        """Return the camera, to be entered at once."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Plain data of which ``model_validate`` makes the configuration again."""
        ...


class Message(NamedTuple):
    """One request or reply, and the bytes that follow it."""

    head: dict[str, Any]
    data: NDArray[np.uint8]


def read_message(stream: IO[bytes]) -> Message | None:
    """Read the next message of an unbuffered stream; None where the stream has ended."""
    head = _read(stream, _HEAD.size)
    if head is None:
        return None
    length, size = _HEAD.unpack(head.data)
    text, data = _read(stream, length), _read(stream, size)
    if text is None or data is None:
        return None
    return Message(json.loads(text.tobytes()), data)


def write_message(stream: IO[bytes], head: dict[str, Any], data: NDArray[np.generic] | None = None) -> None:
    """Write a message to an unbuffered stream."""
    text = json.dumps(head).encode()
    pixels = np.empty(0, np.uint8) if data is None else np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    _write(stream, memoryview(_HEAD.pack(len(text), len(pixels)) + text))
    _write(stream, pixels.data)


def _read(stream: IO[bytes], size: int) -> NDArray[np.uint8] | None:
    buffer = np.empty(size, dtype=np.uint8)
    left = buffer.data
    while left:
        count = stream.readinto(left)  # type: ignore[attr-defined]
        if not count:
            return None
        left = left[count:]
    return buffer


def _write(stream: IO[bytes], left: memoryview) -> None:
    while left:
        left = left[stream.write(left) :]


class Ended(Exception):
    """The process has ended, or was ended for not answering; the text says how."""


class Process:
    """One process with an open camera, or on its way to one."""

    def __init__(self, name: str, config: CameraConfiguration, limit_s: float) -> None:
        kind = type(config)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "capture.drivers.isolated"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._replies: queue.Queue[Message | None] = queue.Queue(_QUEUED_FRAMES)
        self._said: deque[str] = deque(maxlen=20)
        self._number = 0
        self._started = time.monotonic()
        self._limit_s = limit_s
        self._threads = [
            threading.Thread(target=work, daemon=True, name=f"{name}: {work.__name__.strip('_')}")
            for work in (self._receive, self._listen)
        ]
        for thread in self._threads:
            thread.start()
        self._ask(
            "open",
            name=name,
            module=kind.__module__,
            kind=kind.__qualname__,
            config={**config.model_dump(mode="json"), "isolate": False},
            limit_s=limit_s,
            close_s=CLOSE_S,
        )
        self._open = False

    def wait_open(self, until: float) -> bool:
        """Whether the camera is open by then; raises what opening it raised, or Ended."""
        if not self._open:
            latest = self._started + self._limit_s
            reply = self._reply(min(until, latest))
            if reply is None:
                if time.monotonic() < latest:
                    return False
                self._give_up(f"had not opened the camera after {self._limit_s:.2g} s")
            self._open = True
            self.identity: dict[str, str] = reply.head.get("identity", {})
        return True

    def wait_answer(self, until: float) -> None:
        """Wait until the camera is open or has failed to be, but no longer than until then."""
        until = min(until, self._started + self._limit_s)
        while self._replies.empty() and time.monotonic() < until:
            time.sleep(0.005)

    def ask(self, what: str, until: float, **values: Any) -> Message:
        """Send a request and return its first reply; Ended where none comes in time."""
        self._ask(what, **values)
        return self.next(until)

    def next(self, until: float) -> Message:
        """Return the next reply to the last request; Ended where none comes in time."""
        start = time.monotonic()
        reply = self._reply(until)
        if reply is None:
            self._give_up(f"did not answer within {max(0.0, until - start):.2g} s")
        return reply

    def send(self, what: str) -> None:
        """Send a word about the request that is being answered."""
        with suppress(OSError):  # the end of the replies says why
            write_message(self._stdin, {"ask": what, "number": self._number})

    def kill(self) -> None:
        """End the process and what waits for it, as far as the system lets it end."""
        self._popen.kill()
        end = time.monotonic() + _KILL_S
        with suppress(subprocess.TimeoutExpired):  # one that waits for the kernel is left behind
            self._popen.wait(_KILL_S)
        receiving, listening = self._threads
        while receiving.is_alive() and time.monotonic() < end:
            with suppress(queue.Empty):
                self._replies.get(timeout=0.02)
        # a process that the SDK has started may keep standard error open
        listening.join(_KILL_S)
        for stream, reader in ((self._popen.stdout, receiving), (self._popen.stderr, listening)):
            if stream is not None and not reader.is_alive():
                stream.close()
        self._stdin.close()

    def close(self) -> None:
        """Let it leave the camera and end, raising what that raises; kill it when it takes too long."""
        until = time.monotonic() + CLOSE_S
        opened = False
        try:
            with suppress(Ended, DeviceError, ValueError):
                opened = self.wait_open(until)
            if opened:
                with suppress(Ended):
                    self.ask("close", until)
        finally:
            self.kill()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._popen.stdin is not None
        return self._popen.stdin

    def _ask(self, what: str, **values: Any) -> None:
        self._number += 1
        with suppress(OSError):  # the end of the replies says why
            write_message(self._stdin, {"ask": what, "number": self._number, **values})

    def _reply(self, until: float) -> Message | None:
        """Return the next reply to the last request, None where none comes by then; raises what it tells."""
        looked = time.monotonic()
        while True:
            now = time.monotonic()
            if now - looked > _SLEPT_S:
                # this program was suspended: an answer may be there, and nobody has taken it in
                until += now - looked
            looked, left = now, until - now
            try:
                # in slices, since a long wait cannot be interrupted by Ctrl-C on Windows
                message = self._replies.get(timeout=min(max(left, 0.0), _SLICE_S))
            except queue.Empty:
                if left > 0:
                    continue
                return None
            if message is None:
                self._give_up(None)
            if message.head["number"] != self._number:
                continue
            if "error" in message.head:
                raise _error(message.head)
            return message

    def _give_up(self, reason: str | None) -> NoReturn:
        """Raise Ended with how the process came to its end, or with the reason for ending it."""
        if reason is None:
            try:
                self._popen.wait(_KILL_S)
            except subprocess.TimeoutExpired:
                reason = "closed its output"
        status = self._popen.poll()
        self.kill()
        text = _ending(status) if reason is None and status is not None else f"{reason} and was ended"
        raise Ended(f"the driver's process {text}" + (f": {self._said[-1]}" if self._said else ""))

    def _receive(self) -> None:
        assert self._popen.stdout is not None
        message: Message | None = None
        while True:
            try:
                message = read_message(self._popen.stdout)
            except (OSError, ValueError):
                message = None
            self._replies.put(message)
            if message is None:
                return

    def _listen(self) -> None:
        assert self._popen.stderr is not None
        partial = b""
        while chunk := self._popen.stderr.read(4096):
            *lines, partial = (partial + chunk).splitlines(keepends=True)
            if partial.endswith((b"\n", b"\r")):
                lines, partial = [*lines, partial], b""
            texts = (line.decode(errors="replace").strip() for line in lines)
            self._said.extend(text for text in texts if text)
        if text := partial.decode(errors="replace").strip():
            self._said.append(text)


def _ending(status: int) -> str:
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended with status {status if status < 256 else hex(status)}"


def _error(head: dict[str, Any]) -> Exception:
    kind = _KINDS.get(head["error"])
    return ValueError(head["message"]) if kind is None else kind(head["device"], head["message"])
