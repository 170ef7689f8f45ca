"""A camera whose driver runs in a process of its own: native code that crashes or hangs costs one frame.

A configuration whose SDK is native code has ``isolate: bool = False`` and ends its ``open`` so::

    def open(self, name: str) -> Camera:
        if self.isolate:
            return Isolated(name, self)      # IsolatedTriggered where the camera has `burst`
        ...

``Isolated`` is a camera like any other. The configuration must be importable by its module and name and must
survive ``model_dump(mode="json")``; nothing else of the driver knows that it may run elsewhere.

- Entering starts the process, which imports the SDK and enters the camera. What ``open`` and ``__enter__``
  raise there (`ValueError`, `DeviceError` and its kinds) is raised here, with the same words.
- A process that ends in the middle of a frame, or does not answer within the deadline and is killed for it,
  is a `FrameLost` that says how it ended and the last line it wrote to standard error. The next process
  starts at once; a request whose deadline passes before it is open is a `NotReady`: no frame was asked for.
- `FAILURES` such ends in a row, a start that fails counted, are a `DeviceLost`.
- The process ends when the context is left, and when this process dies, however it dies.

`process` is that process seen from here, ``__main__`` what runs in it. They talk over its standard input and
output: what the SDK itself prints goes to standard error.
"""

import math
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import NoReturn, Self

from capture.devices import DeviceError, DeviceLost, FrameLost, NotReady
from capture.drivers.isolated.process import CameraConfiguration, Ended, Message, Process
from capture.frame import Frame

FAILURES = 3
"""How many processes may end in a row before the camera counts as lost."""

START_S = 30.0
"""What importing the SDK and opening the camera may take the first time."""

RESTART_S = 4.0
"""What it may take after that, or four times as long as the first time where that is longer."""


class Isolated:
    """A camera whose driver runs in a process of its own.

    Parameters
    ----------
    name : str
        Name in the rig file.
    config : CameraConfiguration
        Of the camera; its ``isolate`` is switched off in the process.
    """

    def __init__(self, name: str, config: CameraConfiguration) -> None:
        self.name = name
        self.limits = config.limits
        self._config = config
        self._process: Process | None = None
        self._restart_s = START_S
        self._failures = 0
        self._last_id: int | None = None
        self._shift: int | None = 0
        self._entered = False

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Take one frame; raises what the driver raises.

        Raises
        ------
        FrameLost
            The process ended, or hung and was killed.
        NotReady
            The next one is not yet open.
        DeviceLost
            That happened three times in a row.
        """
        until = time.monotonic() + deadline_s
        process = self._ready(until)
        try:
            reply = process.ask(
                "expose", until, exposure_s=exposure_s, gain_db=gain_db, deadline_s=_theirs(deadline_s)
            )
        except Ended as error:
            self._failed(error, until)
        return self._frame(reply)

    @property
    def identity(self) -> dict[str, str]:
        """What the camera told of itself when its process opened it; empty where its driver tells nothing."""
        if self._process is None:
            raise DeviceError(self.name, "is not open")
        return self._process.identity

    def __enter__(self) -> Self:
        self._entered, self._failures = True, 0
        start = time.monotonic()
        self._process = Process(self.name, self._config, START_S)
        try:
            self._process.wait_open(math.inf)
        except BaseException as error:
            self._process.kill()
            self._process, self._entered = None, False
            if isinstance(error, Ended):
                raise DeviceLost(self.name, f"could not be opened: {error}") from None
            raise
        self._restart_s = min(START_S, max(RESTART_S, 4 * (time.monotonic() - start)))
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process, self._entered = self._process, None, False
        if process is not None:
            process.close()

    def _ready(self, until: float) -> Process:
        if not self._entered:
            raise DeviceError(self.name, "is not open")
        if self._process is None:
            raise DeviceLost(self.name, f"its driver's process has ended {FAILURES} times in a row")
        try:
            if self._process.wait_open(until):
                return self._process
        except Ended as error:
            self._failed(error, until)
        except (DeviceError, ValueError) as error:
            self._process.kill()
            self._failed(error, until)
        raise NotReady(self.name, "its driver's process has ended and is starting again")

    def _failed(self, error: Exception, until: float) -> NoReturn:
        """Count the end of a process, start the next, and tell.

        What is left of the deadline is given to the start, so that the next request finds the camera open.
        """
        self._failures += 1
        self._process, self._shift = None, None
        text = str(error).removeprefix(f"{self.name}: ")
        if self._failures >= FAILURES:
            raise DeviceLost(self.name, f"failed {self._failures} times in a row: {text}") from None
        self._process = Process(self.name, self._config, self._restart_s)
        self._process.wait_answer(until)
        raise FrameLost(self.name, f"{text}; it is started again") from None

    def _frame(self, reply: Message) -> Frame:
        """Return the frame of a reply; its number goes on from those of a process before."""
        told = reply.head["frame"]
        if self._shift is None:
            # one number is left out, for the frame that was lost
            self._shift = 0 if self._last_id is None else self._last_id + 2 - told["frame_id"]
        told["frame_id"] += self._shift
        self._last_id = told["frame_id"]
        self._failures = 0
        dn = reply.data.view(told.pop("dtype")).reshape(told.pop("shape"))
        return Frame(dn=dn, **told)


class IsolatedTriggered(Isolated):
    """As `Isolated`, for a camera that takes hardware-timed sequences."""

    def burst(self, settings: Sequence[tuple[float, float]], deadline_s: float) -> Generator[Frame]:
        """Yield one frame for each ``(exposure_s, gain_db)``; raises as `expose`."""
        until = time.monotonic() + deadline_s
        process = self._ready(until)
        over = False
        try:
            reply = process.ask(
                "burst",
                until,
                settings=[list(setting) for setting in settings],
                deadline_s=_theirs(deadline_s),
            )
            while "frame" in reply.head:
                yield self._frame(reply)
                until = time.monotonic() + deadline_s
                reply = process.next(until)
            over = True
        except Ended as error:
            over = True
            self._failed(error, until)
        except DeviceError:
            over = True
            raise
        finally:
            if not over and self._process is process:
                self._stop(process, deadline_s)

    def _stop(self, process: Process, deadline_s: float) -> None:
        """Let the driver leave a burst whose frames are not wanted any more."""
        until = time.monotonic() + deadline_s
        process.send("stop")
        try:
            while "frame" in process.next(until).head:
                pass
        except Ended as error:
            with suppress(DeviceError):  # the next request tells
                self._failed(error, until)
        except (DeviceError, ValueError):
            pass  # of a frame that nobody wants


def _theirs(deadline_s: float) -> float:
    """The deadline the driver is given: its own word that a frame is lost is to come before ours."""
    return deadline_s - min(0.1 * deadline_s, 0.2)
