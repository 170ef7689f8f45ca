"""Session: one run's folder, from the first file to the last."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from capture.plan import CapturePlan, Shot
from capture.session.disk import PART, is_locked, locked, read_json, sync_folder, write_file, write_json
from capture.session.records import (
    FrameRecord,
    Journal,
    Problem,
    SessionError,
    SkipRecord,
    as_json,
    differences,
    now,
    one_line,
    refusal_of,
)
from capture.session.stack import Stack
from capture.session.writer import Writer

_LOCK = "session.lock"
_OURS = re.compile(r"\d{6,}\.tif(\.part)?")


class Session:
    """A folder that holds what one run took; see `capture.session` for its files.

    Made by `create`, `open` or `resume`. Reading needs no lock and changes nothing on disk.

    Attributes
    ----------
    path : Path
        The folder.
    plan : CapturePlan
        What was asked.
    rig : dict
        The rig as it was, as JSON values.
    facts : dict
        Whatever else is known of the run, as JSON values.
    """

    def __init__(self, path: Path, plan: CapturePlan, rig: dict[str, Any], facts: dict[str, Any]) -> None:
        self.path = path
        self.plan = plan
        self.rig = rig
        self.facts = facts
        self._shots = plan.shots()
        self._journal = Journal(path / "journal.jsonl", self._shots)
        self._writing = False
        self._sound: set[tuple[str, str]] = set()

    @classmethod
    def create(
        cls, path: Path | str, plan: CapturePlan, rig: dict[str, Any], facts: dict[str, Any] | None = None
    ) -> Self:
        """Make a new session in ``path``, which must be absent or empty.

        A folder in which an earlier ``create`` was killed counts as empty.

        Raises
        ------
        SessionError
            The folder holds something, or another process is creating there.
        ValueError
            ``rig`` or ``facts`` is not JSON.
        """
        path = Path(path)
        rig, facts = as_json(rig), as_json(facts or {})
        try:
            _refuse_used(path)
            path.mkdir(parents=True, exist_ok=True)
            with locked(path / _LOCK):
                _refuse_used(path)
                (path / "frames").mkdir(exist_ok=True)
                write_file(path / "journal.jsonl", b"")
                write_json(path / "rig.json", rig)
                write_json(path / "facts.json", facts)
                write_json(path / "plan.json", plan.model_dump(mode="json"))
            sync_folder(path.parent)
        except OSError as error:
            why = error.strerror or error
            raise refusal_of(error)(f"{path}: a session cannot be made here: {why}") from None
        return cls(path, plan, rig, facts)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read the session in ``path``.

        Raises
        ------
        SessionError
            There is none, its plan is damaged, or its journal is unreadable or of another plan. Journal lines
            that do not parse are left to `verify` to tell and to `resume` to mend.
        """
        path = Path(path)
        try:
            plan = CapturePlan.model_validate(read_json(path / "plan.json"))
        except ValidationError as error:
            raise SessionError(f"{path / 'plan.json'} is damaged: {one_line(error)}") from None
        return cls(path, plan, read_json(path / "rig.json"), read_json(path / "facts.json"))

    @staticmethod
    def stands_in(path: Path) -> bool:
        """Whether a folder is that of a session, complete or not, damaged or not."""
        return (path / "plan.json").is_file() and (path / "journal.jsonl").is_file()

    @classmethod
    def resume(
        cls, path: Path | str, plan: CapturePlan, rig: dict[str, Any], facts: dict[str, Any] | None = None
    ) -> Self:
        """Open the session of an interrupted run, or create it where none came to be.

        What is damaged is mended as by `writer`, so that `pending` names every shot to take again.

        Raises
        ------
        SessionError
            The session is of another plan or rig (the message says what differs), or is being written.
        """
        path = Path(path)
        if not (path / "plan.json").exists():
            return cls.create(path, plan, rig, facts)
        session = cls.open(path)
        session.refuse_other(plan, rig)
        with locked(path / _LOCK):
            session._mend()
        return session

    def refuse_other(self, plan: CapturePlan, rig: dict[str, Any] | None = None) -> None:
        """Raise SessionError, saying what differs, unless this session is of ``plan`` (and ``rig``)."""
        found = list(differences(self.plan.model_dump(mode="json"), plan.model_dump(mode="json"), "plan"))
        if rig is not None:
            found += differences(self.rig, as_json(rig), "rig")
        if found:
            more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
            raise SessionError(
                f"{self.path} is of another plan or rig: {'; '.join(islice(found, 3))}{more}; "
                "use what it was begun with, or another folder"
            )

    @property
    def frames(self) -> tuple[FrameRecord, ...]:
        """Frames that are safe on disk, in the order of their shots."""
        return tuple(record for record in self._records() if isinstance(record, FrameRecord))

    @property
    def skipped(self) -> tuple[SkipRecord, ...]:
        """Shots that could not be had, in order; a later run tries them again."""
        return tuple(record for record in self._records() if isinstance(record, SkipRecord))

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras of the plan, in the order they come."""
        return tuple(dict.fromkeys(shot.camera for shot in self._shots))

    @property
    def done(self) -> bool:
        """Every shot was taken or skipped, and `finish` has said so."""
        return (self.path / "done.json").exists()

    @property
    def digest(self) -> str:
        """SHA-256 over the plan and the records in order of shots, without what the wall clock tells.

        Two runs that gave the same frames with the same reports have the same digest.
        """
        hasher = hashlib.sha256(self.plan.digest.encode())
        for record in self._records():
            unsteady = set(record.UNSTEADY) if isinstance(record, FrameRecord) else None
            fields = record.model_dump(mode="json", exclude=unsteady)
            hasher.update(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return hasher.hexdigest()

    def pending(self) -> tuple[Shot, ...]:
        """Shots without a frame, in order: those never reached, and those skipped before."""
        records = self._journal.records
        return tuple(shot for shot in self._shots if not isinstance(records.get(shot.index), FrameRecord))

    @contextmanager
    def writer(self, *, queue_bytes: int = 128 * 2**20, compress: bool = False) -> Iterator[Writer]:
        """Hold the session for writing: repair what a killed run left, then accept frames.

        A torn last journal line is cut off; temporary files and frames without a line are removed, as their
        shots are pending. So are the shots of damaged journal lines and of frames that are missing or whose
        hash is not the journal's: these files are removed, and the journal has a note of each. A session that
        is done, but with shots to take, is no longer done. On leaving, all that was handed over is on disk,
        or the error is raised.

        Parameters
        ----------
        queue_bytes : int
            Most pixels waiting to be written, in at most eight frames; a single larger frame passes alone.
        compress : bool
            Write frames compressed, without loss.

        Raises
        ------
        SessionError
            Another process is writing, or this one already is.
        """
        if self._writing:
            raise SessionError(f"{self.path}: a writer is open already")
        with locked(self.path / _LOCK):
            self._mend()
            self._writing = True
            try:
                with self._journal as journal, Writer(self.path, journal, queue_bytes, compress) as writer:
                    yield writer
            finally:
                self._writing = False

    def finish(self) -> None:
        """Write ``done.json``. Calling again changes nothing.

        Raises
        ------
        SessionError
            A writer is open, or shots were neither taken nor skipped; or the disk fails: call again.
        """
        if self._writing:
            raise SessionError(f"{self.path}: leave the writer before finish()")
        if self.done:
            return
        with locked(self.path / _LOCK):
            self._journal = Journal(self.path / "journal.jsonl", self._shots)
            left = len(self._shots) - len(self._journal.records)
            if left:
                raise SessionError(
                    f"{self.path}: {left} of {len(self._shots)} shots have not been taken: resume"
                )
            done = {
                "finished_at": now(),
                "frames": len(self.frames),
                "skipped": [record.shot.index for record in self.skipped],
                "digest": self.digest,
            }
            try:
                write_json(self.path / "done.json", done)
            except OSError as error:
                raise refusal_of(error)(
                    f"{self.path}: done.json cannot be written: {error.strerror or error}; the frames are "
                    "safe: make room on the disk or mend it, then resume"
                ) from None

    def stack(self, camera: str | None = None) -> Stack:
        """Return the frames of one camera, which need not be named when the plan has one only.

        Raises
        ------
        SessionError
            The plan has no such camera, or several and none was named; or the journal has damaged lines.
        """
        for number, what in self._journal.damaged.items():
            raise SessionError(
                f"{self._journal.path}: line {number} is damaged: {what}: resume takes its shot again"
            )
        if camera is None:
            if len(self.cameras) > 1:
                raise SessionError(f"{self.path} has cameras {', '.join(self.cameras)}: name one")
            camera = self.cameras[0]
        elif camera not in self.cameras:
            raise SessionError(f"{self.path} has no camera {camera!r}: it has {', '.join(self.cameras)}")
        return Stack(self.path, (record for record in self.frames if record.shot.camera == camera))

    def verify(self) -> tuple[Problem, ...]:
        """Compare the folder with its journal: every hash, every name, and whether it is done.

        While a writer is open, here or in another process, that is the one problem told: the folder changes.
        """
        if is_locked(self.path / _LOCK):
            message = "a run is writing the session: verify it when that has ended"
            return (Problem(kind="being written", file=_LOCK, message=message),)
        problems: list[Problem] = []
        frames = self.frames
        for record in frames:
            try:
                sha256 = self._sha256(record)
            except FileNotFoundError:
                problems.append(Problem(kind="missing", file=record.file, message="the journal names it"))
            except OSError as error:
                problems.append(Problem(kind="damaged", file=record.file, message=str(error)))
            else:
                if sha256 != record.sha256:
                    message = "its hash is not the journal's"
                    problems.append(Problem(kind="damaged", file=record.file, message=message))
        known = {record.file for record in frames}
        for path in sorted((self.path / "frames").glob("*")):
            name = f"frames/{path.name}"
            if name not in known:
                problems.append(Problem(kind="extra", file=name, message="the journal does not name it"))
        for number, what in self._journal.damaged.items():
            message = f"line {number} is damaged: {what}: resuming takes its shot again"
            problems.append(Problem(kind="damaged", file="journal.jsonl", message=message))
        if self._journal.torn:
            message = "its last line is torn: resuming takes that shot again"
            problems.append(Problem(kind="damaged", file="journal.jsonl", message=message))
        if not self.done:
            left = len(self.pending())
            message = f"{left} of {len(self._shots)} shots have no frame" if left else "all frames are there"
            problems.append(Problem(kind="not done", file="done.json", message=message + ": resume"))
        elif read_json(self.path / "done.json").get("digest") != self.digest:
            message = "plan or journal changed after the session was done"
            problems.append(Problem(kind="damaged", file="journal.jsonl", message=message))
        return tuple(problems)

    def _records(self) -> list[FrameRecord | SkipRecord]:
        return sorted(list(self._journal.records.values()), key=lambda record: record.shot.index)

    def _sha256(self, record: FrameRecord) -> str:
        with open(self.path / record.file, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _is_sound(self, record: FrameRecord) -> bool:
        key = (record.file, record.sha256)
        if key in self._sound:  # hashed by `resume` a moment ago
            return (self.path / record.file).is_file()
        try:
            sound = self._sha256(record) == record.sha256
        except FileNotFoundError:
            return False
        if sound:
            self._sound.add(key)
        return sound

    def _mend(self) -> None:
        """Read the journal again and make it and the folder agree; the lock must be held."""
        # another process may have written since this session was opened
        self._journal = Journal(self.path / "journal.jsonl", self._shots)
        try:
            self._sweep()
            lost = [record for record in self.frames if not self._is_sound(record)]
            # files go before their lines: killed in between, they are missing frames to the next mend, where
            # frames without lines would be kept as the only copies
            for record in lost:
                (self.path / record.file).unlink(missing_ok=True)
            if lost or self._journal.damaged:
                write_file(self._journal.path, self._journal.mended(lost))
                self._journal = Journal(self._journal.path, self._shots)
            else:
                self._journal.repair()
            if self.done and self.pending():
                (self.path / "done.json").unlink()
                sync_folder(self.path)
        except OSError as error:
            raise refusal_of(error)(f"{self.path} cannot be written: {error}") from None

    def _sweep(self) -> None:
        known = {record.file for record in self.frames}
        stray = [
            path
            for path in (self.path / "frames").glob("*")
            if _OURS.fullmatch(path.name) and f"frames/{path.name}" not in known
        ]
        # frames are written one at a time: more than one without a line, besides those of damaged lines,
        # means that lines were lost, and these may be the only copies of what was taken
        if sum(path.suffix != PART for path in stray) > 1 + len(self._journal.damaged):
            raise SessionError(
                f"{self.path / 'frames'} has {len(stray)} frames that the journal does not name, more than a "
                "killed run leaves: move them elsewhere, then resume"
            )
        for path in stray:
            path.unlink()
        (self.path / "frames").mkdir(exist_ok=True)
        for path in self.path.glob(f"*.json*{PART}"):
            path.unlink()


def _refuse_used(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise SessionError(f"{path} is a file: choose another name for the session")
    names = {entry.name for entry in path.iterdir()}
    if "plan.json" in names:
        raise SessionError(f"{path} holds a session already: resume it, or choose another folder")
    files = ("journal.jsonl", "rig.json", "facts.json", "plan.json")
    begun = {
        _LOCK,
        "frames",
        *files,
        *(name + PART for name in files),
    }
    if not names <= begun or (names and _LOCK not in names):
        raise SessionError(f"{path} is not empty: choose another folder")
