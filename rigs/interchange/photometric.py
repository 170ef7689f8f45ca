"""Pictures with the list of their lights become a session: DiLiGenT, ``.lp``, Harvard's two spheres."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.files import LightList, ListedLight
from calibration.geometry import normalize
from calibration.lights.model import LightSet
from capture.plan import Block, CapturePlan, ExposureBracket, Kind, LightSequence
from capture.session import Session
from rigs.interchange.folder import Source, make_session, refuse_used, shown
from rigs.interchange.images import SUFFIXES, ImageError, read_image
from rigs.interchange.manifest import ManifestError, natural, suggest, want_folder

GIVEN = "given"
"""Folder within a session that holds what came with its pictures: lights, mask, true normals."""

_Y_UP = np.array([1.0, -1.0, -1.0])
_PROBES = ("LightProbe-1", "LightProbe-2")


class _Lit(NamedTuple):
    """A picture under one light."""

    source: Source
    light: str
    kind: Kind = "object"
    camera: str = "main"


def import_diligent(directory: Path, session_path: Path) -> Session:
    """Make a session of a DiLiGenT object.

    Parameters
    ----------
    directory : Path
        Holds ``filenames.txt``, ``light_directions.txt``, ``light_intensities.txt`` and the pictures;
        ``mask.png``, ``Normal_gt.mat`` and ``crop.txt`` (what a cropped copy says of its place) if there.
    session_path : Path
        New or empty folder; it appears when all is well, whole.

    Returns
    -------
    Session
        ``object`` frames, one light each, named by the picture's stem. The folder ``given`` in it holds
        ``lights.json``, and ``mask.png`` and ``normals.exr`` (the truth, camera frame) where they came with
        the pictures; ``facts`` names them under ``given``.

    Raises
    ------
    ManifestError
        One line that names file, row or picture: lists of different lengths, a picture that is missing or of
        another size, a vector that is zero or no number, a mask or normals of another size.
    """
    directory, session_path = Path(directory), Path(session_path)
    refuse_used(session_path)
    want_folder(directory)
    with _faults():
        lights = files.read_diligent_lights(directory)
    facts: dict[str, object] = {"note": "exposures are not told (1 s each); taken_at is when it was imported"}
    if (directory / "crop.txt").is_file():
        facts["crop"] = " ".join((directory / "crop.txt").read_text("utf-8", errors="replace").split())
    extras: dict[str, Callable[[Path, tuple[int, ...]], None]] = {}
    if (directory / "mask.png").is_file():
        extras["mask.png"] = lambda to, shape: _copy_mask(directory / "mask.png", to, shape)
    if (directory / "Normal_gt.mat").is_file():
        extras["normals.exr"] = lambda to, shape: _copy_normals(directory / "Normal_gt.mat", to, shape)
    return _lit_session(
        directory,
        session_path,
        [_Lit(_source(entry, [directory]), entry.name) for entry in lights.lights],
        lights,
        facts,
        linear="DiLiGenT's pictures are linear",
        extras=extras,
    )


def import_lp(
    path: Path, session_path: Path, *, images: Path | None = None, assume_linear: bool = False
) -> Session:
    """Make a session of an ``.lp`` list and its pictures.

    Parameters
    ----------
    path : Path
        The list; see `calibration.files.read_lp`. A picture is looked for where its path says, relative to
        the list, then by its name in ``images`` and beside the list; the same name with another ending is
        taken where it is the only one, with a note.
    session_path : Path
        New or empty folder; it appears when all is well, whole.
    images : Path, optional
        Folder of the pictures.
    assume_linear : bool
        The numbers are known to be proportional to light, whatever the files' tags say.

    Returns
    -------
    Session
        As of `import_diligent`; all lights have the intensity 1, as the list tells none.

    Raises
    ------
    ManifestError
        One line that names list and row, or picture.
    """
    path, session_path = Path(path), Path(session_path)
    refuse_used(session_path)
    if images is not None and not images.is_dir():
        raise ManifestError(f"{images}: no such folder of pictures")
    with _faults():
        lights = files.read_lp(path)
    folders = [path.parent] if images is None else [images, path.parent]
    return _lit_session(
        path,
        session_path,
        [_Lit(_source(entry, folders), entry.name) for entry in lights.lights],
        lights,
        {"note": "exposures are not told (1 s each), nor intensities (1 each); taken_at is the import"},
        linear="told so at the import" if assume_linear else "",
    )


def import_two_spheres(directory: Path, session_path: Path) -> Session:
    """Make a session of a capture with two mirror balls as Harvard's sets have it.

    Parameters
    ----------
    directory : Path
        Holds ``Objects`` with one picture a light, ``refined_light.txt`` (direction times strength) or
        ``light_directions.txt``, three rows each; ``LightProbe-1`` and ``LightProbe-2`` with the balls'
        pictures in the same order and ``circle_data.txt``, if there. ``ref`` pictures are left out.
    session_path : Path
        New or empty folder; it appears when all is well, whole.

    Returns
    -------
    Session
        ``object`` frames of the camera ``main``; ``sphere`` frames of ``probe-1`` and ``probe-2``, cut-outs
        of the same photographs. ``given/lights.json`` holds the told lights; ``facts`` under ``circles`` the
        marked x, y and radius of each ball, in the file's own counting of pixels.

    Raises
    ------
    ManifestError
        One line that names file or picture; another number of pictures than lights.
    """
    directory, session_path = Path(directory), Path(session_path)
    refuse_used(session_path)
    want_folder(directory)
    pictures = _pictures(directory / "Objects")
    told = next(
        (directory / name for name in ("refined_light.txt", "light_directions.txt")
         if (directory / name).is_file()),
        directory / "light_directions.txt",
    )  # fmt: skip
    with _faults():
        lights = files.read_light_matrix(told, [picture.name for picture in pictures])
    lit = [
        _Lit(Source(picture, told.name, f"column {column}", picture.name), entry.name)
        for column, (picture, entry) in enumerate(zip(pictures, lights.lights, strict=True), 1)
    ]
    circles: dict[str, list[float]] = {}
    for probe in _PROBES:
        folder = directory / probe
        if not folder.is_dir():
            continue
        balls = _pictures(folder)
        if len(balls) != len(pictures):
            raise ManifestError(
                f"{folder}: {len(balls)} pictures, but Objects has {len(pictures)}: want one a light"
            )
        camera = f"probe-{probe[-1]}"
        lit += [
            _Lit(Source(ball, probe, "", ball.name), entry.name, "sphere", camera)
            for ball, entry in zip(balls, lights.lights, strict=True)
        ]
        if (folder / "circle_data.txt").is_file():
            with _faults():
                rows = files.read_matrix(folder / "circle_data.txt", columns=None)
            circles[camera] = [value for _, row in rows for value in row]
    return _lit_session(
        directory,
        session_path,
        lit,
        lights,
        {
            "note": f"lights are those of {told.name}; exposures are not told (1 s each)",
            "circles": circles,
        },
    )


def _lit_session(
    origin: Path,
    session_path: Path,
    lit: Sequence[_Lit],
    lights: LightList,
    facts: Mapping[str, object],
    *,
    linear: str = "",
    extras: Mapping[str, Callable[[Path, tuple[int, ...]], None]] | None = None,
) -> Session:
    folder = origin if origin.is_dir() else origin.parent
    with _faults():
        light_set = LightSet(lights=lights.models(), provenance=lights.provenance(origin.name))
    if not lit:
        raise ManifestError(f"{origin}: holds no light")
    for one in lit:
        if ".." in one.light or not one.light.isprintable():
            raise ManifestError(f"{one.source.table}, {one.source.cell}: {one.light!r} is not a light's name")
    others = {} if extras is None else extras

    def beside(session: Session) -> None:
        gray = session.frames[0].pixel_format.startswith("Mono")
        if gray and any(len(entry.light.intensity) > 1 for entry in lights.lights):
            raise ManifestError(f"{origin}: intensities in R G B, but the pictures are gray: give one column")
        (session.path / GIVEN).mkdir()
        files.save_model(session.path / GIVEN / "lights.json", light_set)
        for name, write in others.items():
            write(session.path / GIVEN / name, session.frames[0].shape[:2])

    return make_session(
        session_path,
        CapturePlan(name=origin.resolve().stem, blocks=tuple(_block(one) for one in lit)),
        [one.source for one in lit],
        {
            "source": str(origin),
            "files": [shown(one.source.file, folder) for one in lit],
            "given": [f"{GIVEN}/{name}" for name in ("lights.json", *others)],
            "notes": [*lights.remarks, *_renamed(lit, lights)],
            **facts,
        },
        read=lambda source: read_image(source.file),
        linear=linear,
        beside=beside,
    )


def _renamed(lit: Sequence[_Lit], lights: LightList) -> list[str]:
    """A note on pictures that have another ending than their list says."""
    pairs = [
        (PureWindowsPath(entry.image).name, one.source.file.name)
        for one, entry in zip(lit, lights.lights, strict=False)
    ]
    odd = [pair for pair in pairs if pair[0].casefold() != pair[1].casefold()]
    more = "" if len(odd) < 2 else f", and {len(odd) - 1} more"
    return [f"the list names {odd[0][0]}, {odd[0][1]} was taken{more}"] if odd else []


def _block(one: _Lit) -> Block:
    return Block(
        kinds=(one.kind,),
        pose=(one.kind,),
        cameras=(one.camera,),
        lights=LightSequence(names=(one.light,)),
        bracket=ExposureBracket(exposures_s=(1.0,)),
    )


def _source(entry: ListedLight, folders: Sequence[Path]) -> Source:
    """The picture of a listed light, found in one of the folders."""
    written = PureWindowsPath(entry.image)
    as_told = Path(*written.parts) if not written.drive else Path(written.name)
    table, _, cell = entry.place.rpartition(": ")
    source = Source(Path(), Path(table).name, cell, cell)
    for path in (*(folder / as_told for folder in folders), *(folder / written.name for folder in folders)):
        if path.is_file():
            return source._replace(file=path)
    there = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
    alike = [
        path
        for path in there
        if path.suffix.lower() in SUFFIXES and path.stem.casefold() == written.stem.casefold()
    ]
    if len(alike) == 1:
        return source._replace(file=alike[0])
    searched = " or ".join(str(folder) for folder in folders)
    hint = suggest(written.name, [path.name for path in there])
    raise ManifestError(f"{entry.place}: {entry.image} not found in {searched}{hint}")


def _pictures(folder: Path) -> list[Path]:
    """Pictures of a folder by name, numbers counted as numbers, but for references."""
    found = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith((".", "ref"))
    ]
    if not found:
        raise ManifestError(f"{folder}: no picture in it ({' '.join(SUFFIXES)})")
    return sorted(found, key=lambda path: natural(path.name))


def _copy_mask(path: Path, to: Path, shape: tuple[int, ...]) -> None:
    try:
        picture: NDArray[Any] = read_image(path).dn
    except ImageError as error:
        raise ManifestError(f"{path}: {error}") from None
    mask = picture > 0 if picture.ndim == 2 else (picture > 0).any(axis=-1)
    _check_size(path, mask.shape, shape)
    if not mask.any():
        raise ManifestError(f"{path}: the mask is empty")
    files.write_image(to, np.where(mask, 255, 0).astype(np.uint8))


def _copy_normals(path: Path, to: Path, shape: tuple[int, ...]) -> None:
    """True normals, y up in the file, in the camera frame; NaN where the file has zeros."""
    from scipy.io import loadmat

    try:
        stored = np.asarray(loadmat(path)["Normal_gt"], np.float64)
    except Exception as error:  # scipy raises many kinds on a damaged file
        reason = " ".join(str(error).split())
        raise ManifestError(f"{path}: has no Normal_gt that can be read ({reason})") from None
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise ManifestError(f"{path}: Normal_gt has shape {stored.shape}, want (h, w, 3)")
    _check_size(path, stored.shape[:2], shape)
    normals = normalize(stored * _Y_UP)
    about = {"frame": "camera: x right, y down, z forward; normals point to the camera", "source": path.name}
    files.write_exr(to, {f"N.{axis}": normals[..., i] for i, axis in enumerate("XYZ")}, about)


def _check_size(path: Path, found: tuple[int, ...], frames: tuple[int, ...]) -> None:
    if found != frames:
        raise ManifestError(
            f"{path}: is {found[1]} x {found[0]} px, the pictures are {frames[1]} x {frames[0]}"
        )


@contextmanager
def _faults() -> Iterator[None]:
    """What is wrong with a list becomes one ManifestError."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise ManifestError(str(error)) from None
