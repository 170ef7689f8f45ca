"""What the journal says of each shot, and the journal itself."""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from capture.frame import Frame
from capture.plan import Record, Shot


class SessionError(Exception):
    """A session cannot be created, read or written; the message is one line that says why and what to do."""


class Busy(SessionError):
    """Another process has what is wanted: a session being written, a device in use."""


class DiskFailed(SessionError):
    """The disk does not take what was captured; what it took before is safe."""


def refusal_of(error: OSError) -> type[SessionError]:
    """`DiskFailed` where the disk is full or broken, `SessionError` where the path is at fault."""
    full = (errno.ENOSPC, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))
    return DiskFailed if error.errno in full else SessionError


class Timing(Record):
    """Who timed an exposure, and when.

    Attributes
    ----------
    by : 'computer' or 'camera'
        What changed the lights: the computer before it asked for the exposure, or in a hardware-timed
        sequence the camera's exposure signal.
    asked_at : str
        Wall clock of the computer at which the camera was asked, UTC, ISO 8601. Exposures that were asked for
        in one go share it.
    lit_s : float, optional
        How long before that a light was last told to change: what it had to settle. None where the camera
        changes them, and in a rig without lights.
    place, count : int
        Which of how many exposures that were asked for in one go, from 0.
    """

    by: Literal["computer", "camera"] = "computer"
    asked_at: str
    lit_s: float | None = None
    place: int = Field(default=0, ge=0)
    count: int = Field(default=1, ge=1)


class FrameRecord(Record):
    """A frame that is safe on disk: the shot asked for, what the camera reports, and the hash of the file.

    Attributes
    ----------
    shot : Shot
        What was asked, the requested settings among it.
    file : str
        Path of the TIFF below the session folder.
    sha256 : str
        Hash of the file's bytes, hexadecimal.
    pixel_format : str
        GenICam PFNC name, as in `capture.frame.Frame`.
    shape : tuple of int
        ``(h, w)`` or ``(h, w, 3)``.
    exposure_s, gain_db, black_level_dn, temperature_c, frame_id, timestamp_ns
        What the camera reports.
    taken_at : str
        Wall clock of the computer at which the frame was received, UTC, ISO 8601.
    attempts : int
        How many times the camera was asked, this run.
    reasons : tuple of str
        Why each attempt before the last was not taken.
    timing : Timing, optional
        Who timed the exposure, and when; None in imported sessions.
    checks : dict of str to float
        What the plan's quality gate measured (see `capture.runner.quality`); empty without one.
    """

    LATER = frozenset({"reasons", "timing", "checks"})
    UNSTEADY: ClassVar[frozenset[str]] = frozenset({"taken_at", "timing", "checks"})
    """What differs between two runs that gave the same frames."""

    event: Literal["frame"] = "frame"
    shot: Shot
    file: str = Field(pattern=r"^frames/\d{6,}\.tif$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    pixel_format: str
    shape: tuple[int, ...] = Field(min_length=2, max_length=3)
    exposure_s: float
    gain_db: float
    black_level_dn: float | None = None
    temperature_c: float | None = None
    frame_id: int
    timestamp_ns: int
    taken_at: str
    attempts: int = Field(ge=1)
    reasons: tuple[str, ...] = ()
    timing: Timing | None = None
    checks: dict[str, float] = {}

    def frame(self, dn: NDArray[np.generic]) -> Frame:
        """The frame as it left the camera; ``dn`` are its samples."""
        return Frame(
            dn=dn,
            pixel_format=self.pixel_format,
            exposure_s=self.exposure_s,
            gain_db=self.gain_db,
            frame_id=self.frame_id,
            timestamp_ns=self.timestamp_ns,
            black_level_dn=self.black_level_dn,
            temperature_c=self.temperature_c,
        )


class SkipRecord(Record):
    """A shot that could not be had. It keeps its index; a later run tries it again.

    ``reason`` is that of the last attempt, ``reasons`` are those of the attempts before it.
    """

    LATER = frozenset({"reasons"})

    event: Literal["skip"] = "skip"
    shot: Shot
    reason: str
    attempts: int = Field(ge=1)
    reasons: tuple[str, ...] = ()


class RunRecord(Record):
    """A run of the program begins: the lines from here to the next one are its own.

    Attributes
    ----------
    at : str
        Wall clock of the computer, UTC, ISO 8601.
    version : str
        Of gnomon.
    shots : int
        How many there are to take.
    settings : dict
        How the run behaves: `capture.runner.RunSettings`.
    devices : dict of str to dict
        What each device says of itself: model, serial number, firmware. Those that say nothing are left out.
    facts : dict
        Whatever else is known of the run.
    """

    event: Literal["run"] = "run"
    at: str
    version: str
    shots: int
    settings: dict[str, Any] = {}
    devices: dict[str, dict[str, str]] = {}
    facts: dict[str, Any] = {}


class Note(Record):
    """What happened between the frames.

    Attributes
    ----------
    kind : str
        'pose': ``text`` was brought in view. 'wait', 'pause': the lights were turned dark, because of
        ``text``; the next line tells when it went on. 'lost': a frame, or a line, of an earlier run is
        missing or damaged, and its shot is taken again. 'end': the run ends, as ``text`` says; a run without
        one was killed, or its disk took nothing more.
    at : str
        Wall clock of the computer, UTC, ISO 8601.
    shot : int, optional
        Index of the shot that is concerned.
    """

    event: Literal["note"] = "note"
    kind: Literal["pose", "wait", "pause", "lost", "end"]
    at: str
    text: str
    shot: int | None = None


def now() -> str:
    """Wall clock, UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Problem(Record):
    """Something wrong with a session on disk."""

    kind: Literal["missing", "damaged", "extra", "not done", "being written"]
    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}: {self.message}"


Line = FrameRecord | SkipRecord | RunRecord | Note
"""What a line of the journal may be."""

_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="event")])


class Journal:
    """The append-only journal of one session.

    A line counts once it ends in a newline and parses. The last line may be torn: it was being written when
    the process died. A line before it that does not parse is damage. Neither counts. Of two records of one
    shot the later holds; only a skip, or a frame that a note says is lost, may be followed by another record,
    so no frame is taken twice.

    Attributes
    ----------
    records : dict of int to FrameRecord or SkipRecord
        The latest record of each shot, by shot index.
    torn : bool
        The file ends in a torn line.
    damaged : dict of int to str
        What is wrong with the lines before the last that do not parse, by line number from 1.
    """

    def __init__(self, path: Path, shots: tuple[Shot, ...]) -> None:
        self.path = path
        self.records: dict[int, FrameRecord | SkipRecord] = {}
        self.damaged: dict[int, str] = {}
        self._shots = shots
        self._good_bytes = 0
        self._file: BinaryIO | None = None
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SessionError(f"{path} cannot be read: {error.strerror or error}") from None
        self._load(data)
        self.torn = self._good_bytes < len(data)

    def _load(self, data: bytes) -> None:
        lines = [line + b"\n" for line in data.split(b"\n")]
        lines[-1] = lines[-1][:-1]
        if not lines[-1]:
            lines.pop()
        for number, line in enumerate(lines, start=1):
            last = number == len(lines)
            if last and not line.endswith(b"\n"):
                return
            try:
                record = _LINE.validate_json(line)
            except ValidationError as error:
                if last:
                    return
                self.damaged[number] = one_line(error)
                self._good_bytes += len(line)
                continue
            problem = self._objection(record)
            if problem:
                raise SessionError(f"{self.path}: line {number}: {problem}")
            self._hold(record)
            self._good_bytes += len(line)

    def _hold(self, record: Line) -> None:
        if isinstance(record, FrameRecord | SkipRecord):
            self.records[record.shot.index] = record
        elif isinstance(record, Note) and record.kind == "lost" and record.shot is not None:
            self.records.pop(record.shot, None)

    def _objection(self, record: Line) -> str | None:
        if not isinstance(record, FrameRecord | SkipRecord):
            return None
        index = record.shot.index
        if index >= len(self._shots) or record.shot != self._shots[index]:
            return f"shot {index} is not the plan's shot of that number"
        if isinstance(self.records.get(index), FrameRecord):
            return f"shot {index} has been taken already"
        return None

    def refuse_unfit(self, shot: Shot, taken: set[int]) -> None:
        """Raise SessionError unless ``shot`` is the plan's and not taken, here or in ``taken``."""
        if shot.index >= len(self._shots) or shot != self._shots[shot.index]:
            raise SessionError(f"shot {shot.index} is not the plan's shot of that number")
        if shot.index in taken or isinstance(self.records.get(shot.index), FrameRecord):
            raise SessionError(f"shot {shot.index} has been taken already")

    def mended(self, lost: Iterable[FrameRecord]) -> bytes:
        """Return the file without torn or damaged lines, with notes of these and of frames that are lost."""
        kept = []
        for line in self.path.read_bytes()[: self._good_bytes].splitlines(keepends=True):
            try:
                _LINE.validate_json(line)
            except ValidationError:
                continue
            kept.append(line)
        texts = [(f"line {number} was damaged: {what}", None) for number, what in self.damaged.items()]
        gone = [(f"{record.file} is missing or damaged", record.shot.index) for record in lost]
        for text, shot in texts + gone:
            kept.append(_bytes_of(Note(kind="lost", at=now(), text=text, shot=shot)))
        return b"".join(kept)

    def repair(self) -> None:
        """Cut a torn last line off; OSError where the system cannot."""
        with open(self.path, "r+b", buffering=0) as file:
            file.truncate(self._good_bytes)
            os.fsync(file.fileno())
        self.torn = False

    def __enter__(self) -> Self:
        """Open for appending, after `repair`."""
        self._file = open(self.path, "ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    def append(self, record: Line) -> None:
        """Write one line and bring it to the disk; on failure the file is as it was.

        Raises
        ------
        OSError
            The system could not write.
        """
        assert self._file is not None
        line = _bytes_of(record)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._good_bytes)
            raise
        self._good_bytes += len(line)
        self._hold(record)


def _bytes_of(record: Line) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def one_line(error: ValidationError) -> str:
    """First complaint of a validation, with its place, in one line."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def as_json(value: object) -> Any:
    """Return ``value`` as it comes back from a JSON file; ValueError where it cannot be one."""
    return json.loads(json.dumps(value, allow_nan=False))


def differences(ours: object, theirs: object, place: str) -> Iterator[str]:
    """Yield where two JSON values differ, one line each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys([*ours, *theirs]):
            if key not in theirs:
                yield f"{place}.{key} is only in the session"
            elif key not in ours:
                yield f"{place}.{key} is not in the session"
            else:
                yield from differences(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{place}.{number}")
    elif ours != theirs:
        yield f"{place} was {_short(ours)}, is now {_short(theirs)}"


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
