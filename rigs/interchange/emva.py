"""EMVA 1288 image sets: a descriptor text and its pictures become a session like any other."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.frame import format_bits
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.session import Session
from rigs.interchange.folder import Source, make_session, refuse_used, shown
from rigs.interchange.images import ImageError, Picture, read_image
from rigs.interchange.manifest import ManifestError

_FORMAT_BITS = (8, 10, 12, 14, 16)
_KNOWN = "b, d, i, l, n or v"


class Series(NamedTuple):
    """Pictures of one exposure under one light.

    Attributes
    ----------
    line : int
        Where the descriptor opens it.
    exposure_s : float
    photons : float or None
        Mean number a pixel in that time; None is darkness.
    files : tuple of (int, Path)
        Line and place of each picture.
    """

    line: int
    exposure_s: float
    photons: float | None
    files: tuple[tuple[int, Path], ...]


class Descriptor(NamedTuple):
    """What a descriptor text says.

    Attributes
    ----------
    path : Path
    version : str
        Release of the standard; empty where it is not said.
    bits, width, height : int
    series : tuple of Series
        In the order of the text.
    about : dict of str to str
        Its ``l`` lines: variables of a data sheet.
    """

    path: Path
    version: str
    bits: int
    width: int
    height: int
    series: tuple[Series, ...]
    about: dict[str, str]


def import_emva(source: Path, session_path: Path, *, bayer: str | None = None) -> Session:
    """Make a session of an EMVA 1288 image set.

    Parameters
    ----------
    source : Path
        The descriptor text, or the folder it lies in. Of several descriptors in a folder the one whose
        pictures are there is taken.
    session_path : Path
        New or empty folder. It appears when all is well, whole.
    bayer : 'RGGB', 'GRBG', 'GBRG' or 'BGGR', optional
        All pictures are raw mosaics with this order of the top-left 2 x 2 pixels.

    Returns
    -------
    Session
        Done, with ``flat`` and ``dark`` frames: one block of the plan for each ``b`` and ``d`` line, in the
        order of the text. The pixel format has the descriptor's bits. ``facts`` holds under ``photons`` one
        number for each shot (None: dark), and what `import_folder` says of the pictures.

    Raises
    ------
    ManifestError
        Names file and line: not a descriptor, a picture that is missing, of another size or beyond the
        stated bits.

    Notes
    -----
    Samples that stand at the upper end of 16 bits (a 12-bit camera's full scale is 65520) are shifted down;
    the brightest series decides, since the dark ones cannot tell, and a note says so.
    """
    source, session_path = Path(source), Path(session_path)
    refuse_used(session_path)
    descriptor = find_descriptor(source) if source.is_dir() else read_descriptor(source)
    _check_pictures(descriptor)
    folder = descriptor.path.parent
    name = descriptor.path.name
    sources = [
        Source(file, f"{name} line {line}", "", f"line {line}")
        for series in descriptor.series
        for line, file in series.files
    ]
    shift = _shift(descriptor, bayer)
    facts: dict[str, object] = {
        "source": str(source),
        "descriptor": name,
        "descriptor_sha256": hashlib.sha256(descriptor.path.read_bytes()).hexdigest(),
        "emva1288_release": descriptor.version,
        "emva1288_about": descriptor.about,
        "photons": [series.photons for series in descriptor.series for _ in series.files],
        "files": [shown(file.file, folder) for file in sources],
        "note": "exposures and photons are the descriptor's; taken_at is when it was imported",
    }
    return make_session(
        session_path,
        _plan(folder.resolve().name, descriptor.series),
        sources,
        facts,
        read=lambda one: _picture(one.file, descriptor, bayer, shift),
        linear="a set after EMVA 1288 is raw data",
    )


def find_descriptor(folder: Path) -> Descriptor:
    """Read the one descriptor of a folder whose pictures are there.

    Raises
    ------
    ManifestError
        There is none, or there are several that say different things.
    """
    found: list[Descriptor] = []
    wrong: list[str] = []
    for path in sorted(folder.glob("*.txt")):
        if not _may_be_descriptor(path):
            continue
        try:
            descriptor = read_descriptor(path)
            _check_pictures(descriptor)
        except ManifestError as error:
            wrong.append(str(error))
        else:
            found.append(descriptor)
    if not found:
        raise ManifestError(
            wrong[0] if wrong else f"{folder}: no EMVA 1288 descriptor (*.txt with 'n bits width height')"
        )
    if any(_said(other) != _said(found[0]) for other in found[1:]):
        names = ", ".join(descriptor.path.name for descriptor in found)
        raise ManifestError(f"{folder}: several descriptors ({names}): name the one to take")
    return found[0]


def read_descriptor(path: Path) -> Descriptor:
    """Read an EMVA 1288 descriptor text.

    Parameters
    ----------
    path : Path
        Lines of a letter and its values, apart by blanks or tabs: ``v release``, ``n bits width height``,
        ``b exposure_ns photons`` and ``d exposure_ns`` (bright and dark series), each followed by ``i path``
        lines; ``l name value`` passes words on; ``#`` opens a comment. Paths start at the descriptor's folder
        and may have backslashes, blanks, and capitals in other places than the files. A decimal comma is
        understood.

    Raises
    ------
    ManifestError
        Names the line and what is wrong with it.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    if "\0" in text:
        raise ManifestError(f"{path}: not a descriptor text; name the text file, or its folder")
    reader = _Reader(path)
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        try:
            reader.take(number, words[0], words[1].strip() if len(words) > 1 else "")
        except ValueError as error:
            raise ManifestError(f"{path.name} line {number}: {error}") from None
    return reader.finish()


class _Reader:
    """Takes a descriptor line by line; ValueError says what is wrong with one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._format: tuple[int, int, int] | None = None
        self._version = ""
        self._about: dict[str, str] = {}
        self._series: list[Series] = []
        self._seen: dict[Path, int] = {}
        self._names: dict[Path, dict[str, str]] = {}

    def take(self, number: int, letter: str, rest: str) -> None:
        if letter == "i":
            self._picture(number, rest)
            return
        if letter not in ("b", "d", "l", "n", "v"):
            raise ValueError(f"unknown letter {letter!r}; want {_KNOWN}, or # before a comment")
        if letter in "bdn":
            self._close()
        values = rest.partition("#")[0].split() if letter in "bdn" else rest.split(maxsplit=1)
        if letter == "v":
            self._version = rest
        elif letter == "l":
            if values:
                self._about[values[0]] = values[1] if len(values) > 1 else ""
        elif letter == "n":
            if self._format is not None:
                raise ValueError("a second line 'n': a set has one format")
            bits, width, height = (_whole(text) for text in _exactly(values, "n bits width height"))
            if bits > _FORMAT_BITS[-1]:
                raise ValueError(f"{bits} bits a sample; at most {_FORMAT_BITS[-1]} are read")
            self._format = bits, width, height
        else:
            want = "b exposure_ns photons" if letter == "b" else "d exposure_ns"
            numbers = [_positive(text) for text in _exactly(values, want)]
            if numbers[0] == 0:
                raise ValueError("exposure 0: write that of the camera, in ns")
            # No photons are darkness, whatever the letter.
            photons = numbers[1] if letter == "b" and numbers[1] > 0 else None
            self._series.append(Series(number, numbers[0] / 1e9, photons, ()))

    def _picture(self, number: int, rest: str) -> None:
        if not rest:
            raise ValueError("'i' without a picture; want i path")
        if not self._series:
            raise ValueError("a picture before any line 'b' or 'd'")
        file = self._find(rest)
        if file in self._seen:
            raise ValueError(f"{rest} stands in line {self._seen[file]} already")
        self._seen[file] = number
        last = self._series[-1]
        self._series[-1] = last._replace(files=(*last.files, (number, file)))

    def _find(self, text: str) -> Path:
        """Place of a picture; a path of Windows may have backslashes and capitals that the file has not."""
        file = self.path.parent / text
        if not file.is_file() and "\\" in text:
            file = self.path.parent / text.replace("\\", "/")
        there = self.path.parent
        if file.is_file() or not file.is_relative_to(there):
            return file
        for part in file.relative_to(there).parts:
            if there not in self._names:
                names = [entry.name for entry in there.iterdir()] if there.is_dir() else []
                self._names[there] = {name.casefold(): name for name in names}
            if part.casefold() not in self._names[there]:
                return file
            there = there / self._names[there][part.casefold()]
        return there

    def _close(self) -> None:
        if self._series and not self._series[-1].files:
            raise ValueError(f"no 'i path' lines follow line {self._series[-1].line}")

    def finish(self) -> Descriptor:
        try:
            self._close()
        except ValueError as error:
            raise ManifestError(f"{self.path.name}: {error}") from None
        if self._format is None:
            raise ManifestError(f"{self.path.name}: no line 'n bits width height'")
        if not self._series:
            raise ManifestError(f"{self.path.name}: no series: no line 'b' or 'd'")
        return Descriptor(self.path, self._version, *self._format, tuple(self._series), self._about)


def _exactly(values: Sequence[str], want: str) -> Sequence[str]:
    if len(values) != len(want.split()) - 1:
        raise ValueError(f"{len(values)} value{'s' * (len(values) != 1)} after {want[0]!r}; want {want}")
    return values


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"{text!r} is not a whole number above 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    if value < 0:
        raise ValueError(f"{text} is negative")
    return value


def _may_be_descriptor(path: Path) -> bool:
    """Whether some line opens as ``n 12`` does: other texts lie beside a descriptor."""
    try:
        lines = path.read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.split()[:1] == ["n"] and len(line.split()) > 1 for line in lines)


def _said(descriptor: Descriptor) -> Descriptor:
    """What a descriptor says, wherever in whichever text."""
    series = tuple(
        one._replace(line=0, files=tuple((0, file) for _, file in one.files)) for one in descriptor.series
    )
    return descriptor._replace(path=Path(), series=series)


def _check_pictures(descriptor: Descriptor) -> None:
    missing = [
        (line, file) for series in descriptor.series for line, file in series.files if not file.is_file()
    ]
    if missing:
        line, file = missing[0]
        total = sum(len(series.files) for series in descriptor.series)
        more = f" ({len(missing)} of {total} pictures are missing)" if len(missing) > 1 else ""
        name = shown(file, descriptor.path.parent)
        raise ManifestError(f"{descriptor.path.name} line {line}: {name} not found{more}")


def _shift(descriptor: Descriptor, bayer: str | None) -> int:
    """How many bits too high the samples stand: told by the brightest series."""
    brightest = max(descriptor.series, key=lambda series: (series.photons or 0.0, series.exposure_s))
    line, file = brightest.files[0]
    try:
        picture = read_image(file, bayer=bayer)
    except ImageError as error:
        raise ManifestError(f"{descriptor.path.name} line {line}: {file.name}: {error}") from None
    spare = 16 - descriptor.bits
    if picture.dn.dtype != np.uint16 or spare == 0 or int(picture.dn.max()) < 1 << descriptor.bits:
        return 0
    low = int(np.bitwise_or.reduce(picture.dn, axis=None)) & ((1 << spare) - 1)
    return 0 if low else spare


def _picture(path: Path, descriptor: Descriptor, bayer: str | None, shift: int) -> Picture:
    """Read a picture and give it the descriptor's bits; ImageError where it cannot have them."""
    picture = read_image(path, bayer=bayer)
    bits = descriptor.bits
    dn: NDArray[Any] = picture.dn
    if dn.dtype.kind != "u":
        raise ImageError(f"holds {dn.dtype} samples, want the camera's integers")
    size = dn.shape[1], dn.shape[0]
    if size != (descriptor.width, descriptor.height):
        raise ImageError(f"{size[0]} x {size[1]}, but line 'n' says {descriptor.width} x {descriptor.height}")
    if dn.dtype == np.uint8 and bits > 8:
        raise ImageError(f"has 8-bit samples, but line 'n' says {bits} bits")
    notes = picture.notes
    if shift:
        if int(np.bitwise_or.reduce(dn, axis=None)) & ((1 << shift) - 1):
            raise ImageError(
                f"uses all 16 bits, while the brightest pictures of this {bits}-bit set leave the lowest "
                f"{shift} empty"
            )
        dn = dn >> shift
        notes = (*notes, f"samples stood at the upper end of 16 bits: shifted down by {shift} bits")
    top = int(dn.max())
    if top >= 1 << bits:
        raise ImageError(f"holds {top} DN, but line 'n' says {bits} bits: at most {(1 << bits) - 1}")
    fitting = next(known for known in _FORMAT_BITS if known >= bits)
    if fitting != bits:
        notes = (*notes, f"{bits}-bit samples are kept as {fitting}-bit")
    stored = format_bits(picture.pixel_format)
    family = picture.pixel_format.removesuffix(str(stored))
    dn = dn.astype(np.uint8 if fitting == 8 else np.uint16, copy=False)
    return Picture(np.ascontiguousarray(dn), f"{family}{fitting}", notes, picture.warnings)


def _plan(name: str, series: Sequence[Series]) -> CapturePlan:
    taken: dict[tuple[bool, float], int] = {}
    blocks = []
    for one in series:
        dark = one.photons is None
        first = taken.get((dark, one.exposure_s), 0)
        taken[dark, one.exposure_s] = first + len(one.files)
        blocks.append(
            Block(
                kinds=("dark" if dark else "flat",),
                pose=("dark" if dark else "flat",),
                cameras=("main",),
                lights=None if dark else LightSequence(names=("light",)),
                bracket=ExposureBracket(exposures_s=(one.exposure_s,)),
                repeats=len(one.files),
                first_repeat=first,
            )
        )
    return CapturePlan(name=name, blocks=tuple(blocks))
