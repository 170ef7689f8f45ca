"""Writing beside capture: a thread, a bounded queue, and the order in which things reach the disk."""

import hashlib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from capture.frame import Frame
from capture.plan import Shot
from capture.session.disk import encode, put_in_place, write_part
from capture.session.records import (
    DiskFailed,
    FrameRecord,
    Journal,
    Line,
    Note,
    RunRecord,
    SessionError,
    SkipRecord,
    Timing,
    now,
)

_QUEUE_FRAMES = 8
"""More would not make capture faster, only events later."""

_HANDS = 2
"""One hashes a frame while the disk takes that of the other: both cost about the same."""


@dataclass(frozen=True, eq=False)
class _Item:
    shot: Shot
    frame: Frame
    taken_at: str
    reasons: tuple[str, ...]
    timing: Timing | None
    checks: dict[str, float]
    stored: Future[tuple[Path, str]]


class Writer:
    """Brings frames to the disk while the next are taken. Made by `Session.writer`.

    Frames are written two at a time under temporary names, and get their own and their line in the journal
    one by one, skips among them, in the order they were given. The queue holds at most eight frames
    and ``queue_bytes`` of pixels (at least one frame): a slower disk makes `put` wait, never the memory grow.
    When the disk fails, nothing half written stays, later frames are let go, and the next call says so.
    """

    def __init__(self, folder: Path, journal: Journal, queue_bytes: int, compress: bool = False) -> None:
        self._folder = folder
        self._journal = journal
        self._queue_bytes = queue_bytes
        self._compress = compress
        self._changed = threading.Condition()
        self._queue: deque[_Item | Line] = deque()
        self._held_bytes = 0
        self._busy = False
        self._closed = False
        self._given: set[int] = set()
        self._written: deque[FrameRecord | SkipRecord] = deque()
        self._error: SessionError | None = None
        self._hands = ThreadPoolExecutor(_HANDS, "session-writer")
        self._thread = threading.Thread(target=self._work, name="session-journal", daemon=True)

    def put(
        self,
        shot: Shot,
        frame: Frame,
        reasons: Sequence[str] = (),
        timing: Timing | None = None,
        checks: Mapping[str, float] | None = None,
    ) -> None:
        """Hand over a frame, and what else is to be told of it; wait while the queue is full.

        Parameters
        ----------
        reasons : sequence of str
            Why each attempt before it was not taken.
        timing : Timing, optional
            Who timed it, and when.
        checks : mapping of str to float, optional
            What was measured in it.

        Raises
        ------
        SessionError
            An earlier frame could not be written, or the shot is not the plan's or has been taken already.
        """
        taken_at = now()
        size = frame.dn.nbytes
        with self._changed:
            self._refuse(shot)
            while self._full(size) and self._error is None:
                self._changed.wait(0.5)
            self._raise_error()
            self._given.add(shot.index)
            self._held_bytes += size
            stored = self._hands.submit(_store, self._folder / _file(shot), frame, self._compress)
            item = _Item(shot, frame, taken_at, tuple(reasons), timing, dict(checks or {}), stored)
            self._queue.append(item)
            self._changed.notify_all()

    def skip(self, shot: Shot, reason: str, attempts: int = 1, reasons: Sequence[str] = ()) -> None:
        """Journal that a shot could not be had; it keeps its place. Raises as `put` does.

        ``reason`` is why the last attempt failed, ``reasons`` are why those before it did.
        """
        record = SkipRecord(shot=shot, reason=reason, attempts=attempts, reasons=tuple(reasons))
        with self._changed:
            self._refuse(shot)
            self._queue.append(record)
            self._changed.notify_all()

    def note(self, record: RunRecord | Note) -> None:
        """Journal what happens between the frames; SessionError where an earlier one could not be written."""
        with self._changed:
            self._raise_error()
            self._queue.append(record)
            self._changed.notify_all()

    def written(self) -> tuple[FrameRecord | SkipRecord, ...]:
        """Return the records that have reached the disk since the last call, in order; never waits."""
        with self._changed:
            records = tuple(self._written)
            self._written.clear()
            return records

    def flush(self) -> None:
        """Wait until everything handed over is on disk; SessionError where it cannot be."""
        with self._changed:
            while self._queue or self._busy:
                self._changed.wait(0.5)
            self._raise_error()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._hands.shutdown()
        if self._error is not None:
            # a line may still fit where a frame did not
            with suppress(OSError):
                self._journal.append(Note(kind="end", at=now(), text=str(self._error)))
        if self._error is not None and error is not self._error:
            raise self._error from error

    def _full(self, size: int) -> bool:
        return self._held_bytes > 0 and (
            len(self._queue) >= _QUEUE_FRAMES or self._held_bytes + size > self._queue_bytes
        )

    def _refuse(self, shot: Shot) -> None:
        self._raise_error()
        if self._closed:
            raise SessionError(f"{self._folder}: the writer is closed")
        self._journal.refuse_unfit(shot, self._given)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                item = self._queue.popleft()
                self._busy = True
                failed = self._error is not None
            record: Line | None = None
            failure: SessionError | None = None
            if failed:
                _let_go(item)
            else:
                try:
                    record = self._enter(item)
                except Exception as error:
                    disk = isinstance(error, OSError)
                    mend = "make room on the disk or mend it" if disk else "mend that"
                    what = "the journal" if isinstance(item, RunRecord | Note) else f"shot {item.shot.index}"
                    failure = (DiskFailed if disk else SessionError)(
                        f"{self._folder}: {what} cannot be written: {error}; "
                        f"the shots before it are safe: {mend}, then resume"
                    )
            with self._changed:
                self._busy = False
                if isinstance(item, _Item):
                    self._held_bytes -= item.frame.dn.nbytes
                if isinstance(record, FrameRecord | SkipRecord):
                    self._written.append(record)
                if failure is not None:
                    self._error = failure
                self._changed.notify_all()

    def _enter(self, item: _Item | Line) -> Line:
        """Give a frame its name and its line in the journal, or what has no file its line."""
        if not isinstance(item, _Item):
            self._journal.append(item)
            return item
        part, sha256 = item.stored.result()
        frame, file = item.frame, _file(item.shot)
        record = FrameRecord(
            shot=item.shot,
            file=file,
            sha256=sha256,
            pixel_format=frame.pixel_format,
            shape=frame.dn.shape,
            exposure_s=frame.exposure_s,
            gain_db=frame.gain_db,
            black_level_dn=frame.black_level_dn,
            temperature_c=frame.temperature_c,
            frame_id=frame.frame_id,
            timestamp_ns=frame.timestamp_ns,
            taken_at=item.taken_at,
            attempts=1 + len(item.reasons),
            reasons=item.reasons,
            timing=item.timing,
            checks=item.checks,
        )
        put_in_place(part, self._folder / file)
        try:
            self._journal.append(record)
        except OSError:
            (self._folder / file).unlink(missing_ok=True)
            raise
        return record


def _file(shot: Shot) -> str:
    return f"frames/{shot.index:06d}.tif"


def _store(path: Path, frame: Frame, compress: bool) -> tuple[Path, str]:
    """Write a frame under the temporary name of ``path``; return that and the hash of the bytes."""
    pieces = encode(frame, compress)
    part = write_part(path, *pieces)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return part, digest.hexdigest()


def _let_go(item: _Item | Line) -> None:
    """Leave no temporary file of a frame that comes after one that the disk did not take."""
    if isinstance(item, _Item) and not item.stored.cancel():
        with suppress(OSError):
            item.stored.result()[0].unlink(missing_ok=True)
