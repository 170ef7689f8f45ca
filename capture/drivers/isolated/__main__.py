"""The process of an isolated camera: opens it, answers one request after the other, and leaves it."""

import faulthandler
import importlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import IO, Any

from capture.devices import Camera, DeviceError, Identified
from capture.drivers.isolated.process import CLOSE_S, Message, read_message, write_message
from capture.frame import Frame

_GRACE_S = 5.0
"""How long after a deadline the process ends by itself, should the one that asked be gone."""


class _Server:
    """Answers requests that a thread of its own takes in, so that the end of the asking is always noticed."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests = requests
        self._replies = replies
        self._inbox: queue.Queue[Message | None] = queue.Queue()
        self._close_s = CLOSE_S
        self._alone = threading.Event()
        threading.Thread(target=self._receive, daemon=True).start()

    def serve(self) -> None:
        """Open the camera asked for, answer until told to close or nobody asks any more."""
        opening = self._inbox.get()
        if opening is None:
            return
        self._close_s = opening.head["close_s"]
        with ExitStack() as stack:
            camera: Camera | None = None
            with self._answering(opening.head, opening.head["limit_s"]):
                camera = stack.enter_context(_open(opening.head))
                self._reply(opening.head, "opened", identity=_identity(camera))
            if camera is None:
                return
            while (message := self._inbox.get()) is not None:
                head = message.head
                if head["ask"] == "close":
                    with self._answering(head, self._close_s):
                        stack.close()
                        self._reply(head, "closed")
                    return
                if head["ask"] == "expose":
                    frame: Frame | None = None
                    with self._answering(head, head["deadline_s"]):
                        frame = camera.expose(head["exposure_s"], head["gain_db"], head["deadline_s"])
                    if frame is not None:  # however long the one that asked is suspended, and reads nothing
                        self._send(head, frame)
                elif head["ask"] == "burst":
                    self._burst(camera, head)

    def _burst(self, camera: Any, head: dict[str, Any]) -> None:
        settings = [(exposure_s, gain_db) for exposure_s, gain_db in head["settings"]]
        limit_s = head["deadline_s"] * (len(settings) + 1)
        with self._answering(head, limit_s):
            with closing(camera.burst(settings, head["deadline_s"])) as frames:
                for frame in frames:
                    self._send(head, frame)
                    if not self._inbox.empty():  # a "stop", or nobody asks any more
                        break
            self._reply(head, "done")

    def _send(self, head: dict[str, Any], frame: Frame) -> None:
        told = {
            "dtype": frame.dn.dtype.name,
            "shape": frame.dn.shape,
            "pixel_format": frame.pixel_format,
            "exposure_s": float(frame.exposure_s),
            "gain_db": float(frame.gain_db),
            "frame_id": int(frame.frame_id),
            "timestamp_ns": int(frame.timestamp_ns),
            "black_level_dn": None if frame.black_level_dn is None else float(frame.black_level_dn),
            "temperature_c": None if frame.temperature_c is None else float(frame.temperature_c),
        }
        write_message(self._replies, {"number": head["number"], "frame": told}, frame.dn)

    def _reply(self, head: dict[str, Any], what: str, **more: Any) -> None:
        write_message(self._replies, {"number": head["number"], what: True, **more})

    @contextmanager
    def _answering(self, head: dict[str, Any], limit_s: float) -> Iterator[None]:
        """Send what a driver may raise as the answer; end the process where it hangs in native code."""
        faulthandler.dump_traceback_later(limit_s + _GRACE_S, exit=True)
        try:
            yield
        except DeviceError as error:
            text = str(error).removeprefix(f"{error.device}: ")
            told = {"error": type(error).__name__, "device": error.device, "message": text}
            write_message(self._replies, {"number": head["number"], **told})
        except ValueError as error:
            told = {"error": "ValueError", "message": str(error)}
            write_message(self._replies, {"number": head["number"], **told})
        finally:
            if not self._alone.is_set():
                faulthandler.cancel_dump_traceback_later()

    def _receive(self) -> None:
        while True:
            try:
                message = read_message(self._requests)
            except (OSError, ValueError):
                message = None
            if message is None:
                # whoever asked is gone, and so is any use of the frame: the camera has this long to be left
                self._alone.set()
                faulthandler.dump_traceback_later(self._close_s, exit=True)
                self._inbox.put(None)
                return
            self._inbox.put(message)


def _identity(camera: Camera) -> dict[str, str]:
    with suppress(DeviceError):
        if isinstance(camera, Identified):
            return dict(camera.identity)
    return {}


def _open(head: dict[str, Any]) -> Camera:
    kind: Any = importlib.import_module(head["module"])
    for part in head["kind"].split("."):
        kind = getattr(kind, part)
    camera: Camera = kind.model_validate(head["config"]).open(head["name"])
    return camera


def main() -> None:
    """Serve over standard input and output, which nothing else may then use."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    # Ctrl-C reaches every process of a terminal; when to end is for the one that asks to say
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr
    with suppress(BrokenPipeError):  # nobody asks any more
        _Server(requests, replies).serve()


if __name__ == "__main__":
    main()
