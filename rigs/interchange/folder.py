"""A folder of pictures becomes a session: one picture in memory at a time, nothing half done left behind."""

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.frame import Frame, format_bits
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.session import Session
from capture.session.disk import sync_folder, write_json
from rigs.interchange.encoding import Tally
from rigs.interchange.images import ImageError, Picture, read_image
from rigs.interchange.manifest import (
    ManifestError,
    ManifestRow,
    list_pictures,
    read_manifest,
    want_folder,
)


def import_folder(
    directory: Path,
    session_path: Path,
    *,
    kind: str | None = None,
    bayer: str | None = None,
    assume_linear: bool = False,
) -> Session:
    """Make a session of the pictures that ``manifest.csv`` in ``directory`` lists, or of all in it.

    Parameters
    ----------
    directory : Path
        Holds ``manifest.csv`` (see `read_manifest`). Paths in it are relative to this folder; absolute ones
        and ``..`` are followed.
    session_path : Path
        New or empty folder. It appears when all is well, whole; until then the session grows beside it under
        a hidden name, which is removed on any error.
    kind : str, optional
        There is no table: all pictures are of this kind, such as ``board`` (see `list_pictures`).
    bayer : 'RGGB', 'GRBG', 'GBRG' or 'BGGR', optional
        All pictures are raw mosaics with this order of the top-left 2 x 2 pixels.
    assume_linear : bool
        The numbers are known to be proportional to light, whatever the files' tags say.

    Returns
    -------
    Session
        Done; one block of the plan and one frame for each row, in the table's order. The numbers are those
        in the files, neither scaled nor shifted. ``facts`` names the source, the file of each frame, under
        ``warnings`` and ``notes`` what speaks against the data, under ``saturation_dn`` for each camera whose
        samples pile up below full scale, where, under ``sample_bits`` for each camera of 16-bit files that
        use fewer bits, how many, under ``photons`` those of the table, if any, and under
        ``encoding`` for each camera what the files' tags say of a tone curve: ``kind`` (gamma, suspected,
        unknown, linear) and ``why``.

    Raises
    ------
    ManifestError
        The table, a picture or the target folder cannot be used; each line names row and column.

    Notes
    -----
    Exposure and gain are what the table says. The black level is taken to be known to nobody: calibrate it
    from dark frames. Samples of 16-bit files stay 16-bit (``Mono16``), even where fewer bits are in use; the
    notes say how many.
    """
    directory, session_path = Path(directory), Path(session_path)
    refuse_used(session_path)
    want_folder(directory)
    manifest = directory / "manifest.csv"
    facts: dict[str, object] = {"source": str(directory)}
    if kind is None:
        rows = read_manifest(manifest)
        facts["manifest_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
        facts["note"] = "exposures, gains and names are the manifest's; taken_at is when it was imported"
        places = [(f"{manifest.name} row {row.row}", "column file", f"row {row.row}") for row in rows]
    elif manifest.exists():
        raise ManifestError(f"{manifest}: says what the pictures are: leave --kind away, or move it")
    else:
        rows = list_pictures(directory, kind)
        facts["note"] = "all pictures of a folder; exposures are not known (1 s each); taken_at is the import"
        places = [(str(directory), "", shown(row.file, directory)) for row in rows]
    facts["files"] = [shown(row.file, directory) for row in rows]
    if any(row.photons is not None for row in rows):
        facts["photons"] = [row.photons for row in rows]
    return make_session(
        session_path,
        _plan(directory.resolve().name, rows),
        [Source(row.file, *place) for row, place in zip(rows, places, strict=True)],
        facts,
        read=lambda source: read_image(source.file, bayer=bayer),
        linear="told so at the import" if assume_linear else "",
    )


class Source(NamedTuple):
    """A picture to take in, and where a table or list names it.

    Attributes
    ----------
    file : Path
    table, cell : str
        For messages: ``manifest.csv row 3`` and ``column file``.
    place : str
        ``table`` within the list, for messages on another entry: ``row 3``.
    """

    file: Path
    table: str
    cell: str
    place: str


def refuse_used(path: Path, what: str = "session") -> None:
    """Raise ManifestError where a new folder cannot come to be."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ManifestError(f"{path}: not empty; choose another folder for the {what}")


def make_session(
    session_path: Path,
    plan: CapturePlan,
    sources: Sequence[Source],
    facts: Mapping[str, Any],
    *,
    read: Callable[[Source], Picture],
    linear: str = "",
    beside: Callable[[Session], None] | None = None,
) -> Session:
    """Make a session of pictures, one in memory at a time; it appears whole or not at all.

    Parameters
    ----------
    session_path : Path
        New or empty folder.
    plan : CapturePlan
        As many shots as ``sources``; exposure and gain of each frame are its shot's.
    sources : sequence of Source
        In the order of the shots.
    facts : mapping
        What is known beforehand; what is seen in the pictures is added, to its ``notes`` too.
    read : callable
        Gives the picture of a source, or raises ImageError.
    linear : str
        How it is known that the numbers are proportional to light, whatever the tags say; empty: it is not.
    beside : callable, optional
        Puts what came with the pictures into the session's folder, once all frames are in it.

    Raises
    ------
    ManifestError
        A picture cannot be used, or differs from the first of its camera; the message says where it is
        named.
    """
    with appearing(session_path) as workplace:
        session = Session.create(workplace, plan, _rig(plan))
        seen = _Seen()
        with session.writer() as writer:
            for shot, source in zip(session.plan.shots(), sources, strict=True):
                try:
                    picture = read(source)
                    seen.add(shot.camera, source.place, picture)
                except ImageError as error:
                    at = f"{source.table}, {source.cell}" if source.cell else source.table
                    name = source.place if source.place.endswith(source.file.name) else source.file.name
                    raise ManifestError(f"{at}: {name}: {error}") from None
                writer.put(
                    shot,
                    Frame(
                        dn=picture.dn,
                        pixel_format=picture.pixel_format,
                        exposure_s=shot.exposure_s,
                        gain_db=shot.gain_db,
                        frame_id=shot.index,
                        timestamp_ns=0,
                    ),
                )
        # What speaks against the pictures is known only once all are read.
        told = seen.facts(linear)
        notes = [*facts.get("notes", ()), *told["notes"]]
        write_json(session.path / "facts.json", {**facts, **told, "notes": notes})
        if beside is not None:
            beside(session)
        session.finish()
    return Session.open(session_path)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Folder to fill beside ``path`` under a hidden name; it becomes ``path``, whole, or is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        folder = workplace / "folder"
        folder.mkdir()
        yield folder
        if path.exists():
            path.rmdir()
        folder.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _plan(name: str, rows: Sequence[ManifestRow]) -> CapturePlan:
    return CapturePlan(
        name=name,
        blocks=tuple(
            Block(
                kinds=row.kinds,
                pose=(row.pose,),
                cameras=(row.camera,),
                lights=LightSequence(names=(row.light,)) if row.light else None,
                bracket=ExposureBracket(exposures_s=(row.exposure_s,), gain_db=row.gain_db),
                first_repeat=row.repeat,
            )
            for row in rows
        ),
    )


def _rig(plan: CapturePlan) -> dict[str, object]:
    shots = plan.shots()
    return {
        "name": "imported",
        "cameras": list(dict.fromkeys(shot.camera for shot in shots)),
        "lights": list(dict.fromkeys(shot.light for shot in shots if shot.light)),
    }


def shown(file: Path, directory: Path) -> str:
    """Path below the folder where it is, else whole."""
    return file.relative_to(directory).as_posix() if file.is_relative_to(directory) else str(file)


class _Seen:
    """What the pictures so far have in common, and what was remarked on them."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, tuple[int, ...], str]] = {}
        self._bits: dict[str, int] = {}
        self._tops: dict[str, _Top] = {}
        self._encodings: dict[str, Tally] = {}
        self._notes: Counter[str] = Counter()
        self._warnings: Counter[tuple[str, str]] = Counter()

    def add(self, camera: str, place: str, picture: Picture) -> None:
        first, shape, pixel_format = self._first.setdefault(
            camera, (place, picture.dn.shape, picture.pixel_format)
        )
        if picture.dn.shape != shape or picture.pixel_format != pixel_format:
            raise ImageError(
                f"{_size(picture.dn.shape)} {picture.pixel_format}, but camera {camera!r} gave "
                f"{_size(shape)} {pixel_format} in {first}; name another camera, or save them alike"
            )
        self._notes.update(picture.notes)
        self._warnings.update((camera, warning) for warning in picture.warnings)
        self._encodings.setdefault(camera, Tally()).add(picture.encoding)
        bits = format_bits(picture.pixel_format)
        if bits == 16:
            self._bits[camera] = self._bits.get(camera, 0) | _bits_in_use(picture.dn)
        if bits is not None:
            top = _top_of(picture.dn, 2**bits - 1)
            known = self._tops.get(camera, top._replace(at=0, below=0))
            if top.dn == known.dn:
                top = top._replace(at=top.at + known.at, below=top.below + known.below)
            self._tops[camera] = max(top, known, key=lambda t: t.dn)

    def facts(self, linear: str) -> dict[str, Any]:
        notes = [_counted(note, count) for note, count in self._notes.items()]
        sample_bits = {}
        for camera, bits in self._bits.items():
            low = (bits & -bits).bit_length() - 1
            if 0 < bits < 1 << 14:
                sample_bits[camera] = bits.bit_length()
                notes.append(
                    f"camera {camera}: 16-bit samples that use {bits.bit_length()} bits; kept as 16-bit"
                )
            elif low > 0:
                notes.append(
                    f"camera {camera}: 16-bit samples whose lowest {low} bits are 0; kept as they are"
                )
        saturation = {camera: top.dn for camera, top in self._tops.items() if top.is_ceiling}
        notes += [
            f"camera {camera}: samples pile up at {dn} DN, below full scale: saturated there, it seems"
            for camera, dn in saturation.items()
        ]
        several = len(self._first) > 1
        warnings = [
            (f"camera {camera}: " if several else "") + _counted(warning, count)
            for (camera, warning), count in self._warnings.items()
        ]
        encoding = {camera: tally.sum(linear) for camera, tally in self._encodings.items()}
        for camera, told in encoding.items():
            if told["kind"] == "gamma" and not told["why"].endswith("JPEG"):
                warnings.append(f"camera {camera}: gamma-encoded, as its files say ({told['why']})")
            elif told["kind"] == "suspected":
                notes.append(f"camera {camera}: perhaps gamma-encoded ({told['why']}): check with a bracket")
        return {
            "saturation_dn": saturation,
            "sample_bits": sample_bits,
            "encoding": encoding,
            "notes": notes,
            "warnings": warnings,
        }


class _Top(NamedTuple):
    """The largest sample of some pictures, how many have it, and how many lie in the 2 % below."""

    dn: int
    at: int
    below: int
    full_scale: int

    @property
    def is_ceiling(self) -> bool:
        """Whether samples were cut off there: many more than the levels next to it hold."""
        levels = max(0.02 * self.dn, 1.0)
        return 0 < self.dn < self.full_scale and self.at >= 16 and self.at > 10 * (self.below / levels + 1)


def _top_of(dn: NDArray[Any], full_scale: int) -> _Top:
    top = int(dn.max())
    at = int(np.count_nonzero(dn == top))
    return _Top(top, at, int(np.count_nonzero(dn >= 0.98 * top)) - at, full_scale)


def _bits_in_use(dn: NDArray[np.generic]) -> int:
    return int(np.bitwise_or.reduce(dn, axis=None))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _counted(text: str, count: int) -> str:
    return f"{count} file{'s' if count > 1 else ''}: {text}"
