"""What is settled of a run, and what is left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from capture.devices import Devices
from capture.plan import Shot
from capture.runner.check import shot_seconds
from capture.session import FrameRecord, SkipRecord, Writer


@dataclass(frozen=True)
class RunEvent:
    """A shot that is settled: its frame, or its being skipped, is in the journal.

    Attributes
    ----------
    shot : Shot
        Which.
    record : FrameRecord or SkipRecord
        What the journal says of it.
    done, total : int
        Shots of the plan settled so far, earlier runs included, and all.
    seconds_left : float
        Estimate from the pace so far, prompts and pauses not counted.
    """

    shot: Shot
    record: FrameRecord | SkipRecord
    done: int
    total: int
    seconds_left: float


class Progress:
    """Counts what is settled and guesses what is left."""

    def __init__(self, pending: tuple[Shot, ...], devices: Devices, total: int) -> None:
        seconds = shot_seconds(
            pending,
            {name: camera.limits for name, camera in devices.cameras.items()},
            {name: light.limits for name, light in devices.lights.items()},
        )
        self._seconds = {shot.index: value for shot, value in zip(pending, seconds, strict=True)}
        self._planned = sum(seconds)
        self._left = self._planned
        self._done = total - len(pending)
        self._total = total
        self._idle_s = 0.0
        self._start = time.monotonic()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Do not count this time as pace."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._idle_s += time.monotonic() - start

    def events(self, writer: Writer) -> Iterator[RunEvent]:
        """Yield an event for each shot settled since the last call."""
        for record in writer.written():
            self._done += 1
            self._left = max(0.0, self._left - self._seconds[record.shot.index])
            spent = time.monotonic() - self._start - self._idle_s
            pace = spent / (self._planned - self._left)
            left = self._left * pace if self._done < self._total else 0.0
            yield RunEvent(record.shot, record, self._done, self._total, left)
