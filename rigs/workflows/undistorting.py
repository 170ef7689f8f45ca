"""Pictures, masks, normal maps and merged radiance in views without distortion, as files."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.cameras import CameraSet, rectify
from calibration.lens import LensModel, Undistorter, undistorter
from calibration.lens.undistortion import ViewChoice
from calibration.provenance import FitError, Provenance
from capture.frame import format_cfa
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.cameras import paired
from rigs.workflows.frames import stack_of

_COUNTS = ("motion", "lights")


class Source(NamedTuple):
    """One picture to undistort.

    Attributes
    ----------
    path : Path
        Where it is from, for messages.
    name, suffix : str
        Name of the new file.
    image : ndarray (h, w) or (h, w, 3), or mapping of name to ndarray (h, w)
        Picture, or channels of an EXR.
    attributes : mapping
        Header of the EXR.
    is_mask : bool
        The picture says by 0 where something is not.
    """

    path: Path
    name: str
    suffix: str
    image: NDArray[Any] | Mapping[str, NDArray[Any]]
    attributes: Mapping[str, Any] = {}
    is_mask: bool = False


Sources = Callable[[str], Iterable[Source]]
"""Gives the pictures, one by one, each time it is called; the text says what is done with them."""


class Series(NamedTuple):
    """Pictures of one camera, and what takes them to their view.

    Attributes
    ----------
    sources : Sources
    by : Undistorter
    prefix : str
        Of all new names: the lens of the view is ``PREFIXview.json``, the mask ``PREFIXview-valid.png``.
    """

    sources: Sources
    by: Undistorter
    prefix: str = ""


class Pair(NamedTuple):
    """What takes the pictures of two cameras to views with common rows (or columns)."""

    names: tuple[str, str]
    by: tuple[Undistorter, Undistorter]
    baseline_mm: float
    along: str


def view_of(lens: LensModel, view: ViewChoice, size: tuple[int, int] | None = None) -> Undistorter:
    """What takes a lens's pictures to a view as `pinhole_view` chooses it; FitError where there is none."""
    try:
        return undistorter(lens, view, size=size)
    except ValueError as error:
        raise FitError(str(error)) from None


def rectified_pair(cameras: CameraSet, text: str, view: ViewChoice) -> Pair:
    """Rectified views of the two cameras that ``'LEFT,RIGHT'`` names.

    Raises
    ------
    ConfigError
        Not two names, or no such camera.
    FitError
        They cannot be rectified.
    """
    left, _, right = (word.strip() for word in text.partition(","))
    for name in (left, right):
        if name not in cameras.cameras or left == right:
            listed = ", ".join(cameras.cameras)
            raise ConfigError(f"pair {text!r}: want two of {listed}, as LEFT,RIGHT")
    try:
        pair = rectify(cameras, left, right, view=view)
        one, other = (undistorter(s.lens, s.view, rotation=s.rotation) for s in (pair.left, pair.right))
    except ValueError as error:
        raise FitError(f"pair {text}: {error}") from None
    return Pair((left, right), (one, other), pair.baseline_mm, pair.along)


def parse_size(text: str) -> tuple[int, int]:
    """``'WIDTHxHEIGHT'``, px."""
    width, _, height = text.lower().partition("x")
    if not all(re.fullmatch(r"[0-9]{1,5}", side) and int(side) > 1 for side in (width, height)):
        shown = text if len(text) < 40 else text[:40] + "…"
        raise ConfigError(f"size {shown!r}: want WIDTHxHEIGHT in px, such as 1600x1200")
    return int(width), int(height)


def session_pictures(session: Session, camera: str | None) -> Iterator[Source]:
    """Frames of a session, of one camera, named as in the session.

    Raises
    ------
    FitError
        The frames are raw mosaics; or what `stack_of` refuses.
    """
    stack = _developed(session, camera)
    for index, record in enumerate(stack.records):
        path = session.path / record.file
        yield Source(path, path.stem, ".tif", np.asarray(stack[index]))


def paired_pictures(session: Session, cameras: Sequence[str], camera: str) -> Iterator[Source]:
    """Frames of one of several cameras, numbered alike where the cameras took them at once.

    What belongs together has one pose (as in ``board_frames``: or one number in its pose's name), one light
    and one place among the exposures of these. A shot that could not be had leaves its number out.

    Raises
    ------
    FitError
        As of ``session_pictures``.
    """
    shots = [shot for shot in session.plan.shots() if shot.camera in cameras]
    pose = paired({(shot.pose, shot.camera) for shot in shots}, len(cameras))
    numbers: dict[tuple[str, str, int], int] = {}
    taken: Counter[tuple[str, str, str]] = Counter()
    number = {}
    for shot in shots:
        place = (pose[shot.pose, shot.camera], shot.light)
        nth = taken[shot.camera, *place]
        taken[shot.camera, *place] += 1
        number[shot.index] = numbers.setdefault((*place, nth), len(numbers))
    digits = max(2, len(str(len(numbers) - 1)))
    stack = _developed(session, camera)
    for index, record in enumerate(stack.records):
        name = f"{number[record.shot.index]:0{digits}}"
        yield Source(session.path / record.file, name, ".tif", np.asarray(stack[index]))


def _developed(session: Session, camera: str | None) -> Stack:
    stack = stack_of(session, camera)
    if format_cfa(stack.pixel_format) is not None:
        raise FitError(
            f"{session.path}: its frames are raw mosaics ({stack.pixel_format}), whose neighbours are of "
            "different colours: merge them first with `gnomon merge`, and undistort that"
        )
    return stack


def undistort_pictures(
    all_series: Sequence[Series], out: Path, *, lens: Path | None = None
) -> Iterator[Path]:
    """Write pictures as their views show them, and the lens and the mask of each view.

    Parameters
    ----------
    all_series : sequence of Series
        Every picture is read twice: to find out whether all can be written, then to write it. Of an EXR's
        channels ``N.X N.Y N.Z`` are normals (turned with the view, of length 1), ``Z`` depth, ``sigma`` and
        ``sigma.*`` standard deviations, ``motion`` and ``lights`` counts; all others are values.
    out : Path
        Folder: ``view.json`` is the lens of the view, ``view-valid.png`` white where the camera saw
        something, and each picture under its own name: PNG, TIFF or EXR as it came.
    lens : Path, optional
        File of the lens model or of the cameras, for the provenance.

    Yields
    ------
    Path
        As each is written.

    Raises
    ------
    FitError
        A picture of another size than the lens model's, two of one name, or one that would be written over.
        Nothing has been written then.
    """
    _check_names(all_series, out, lens)
    out.mkdir(parents=True, exist_ok=True)
    for series in all_series:
        yield from _written(series, out, lens)


def _check_names(all_series: Sequence[Series], out: Path, lens: Path | None) -> None:
    """Refuse what cannot be written, or would be written over something, before the first file is."""
    taken: dict[Path, Path] = {}
    for series in all_series:
        for path in _view_files(series, out):
            if lens is not None and lens.resolve() == path.resolve():
                raise FitError(f"{lens}: would be written over: choose another folder for --out")
            taken[path] = path
    # A later picture may have the name that an earlier one's result would take.
    given: dict[Path, Path] = {}
    for series in all_series:
        for picture in series.sources("checking"):
            path = out / f"{series.prefix}{picture.name}{picture.suffix}"
            if path in taken:
                raise FitError(f"{picture.path}: {path} is that of {taken[path]} already: rename one")
            taken[path] = given[picture.path.resolve()] = picture.path
            _check_size(picture, series.by.lens)
            _check_channels(picture)
    for path in taken:
        if (source := given.get(path.resolve())) is not None:
            raise FitError(f"{source}: would be written over: choose another folder for --out")


def _view_files(series: Series, out: Path) -> tuple[Path, Path]:
    return out / f"{series.prefix}view.json", out / f"{series.prefix}view-valid.png"


def _written(series: Series, out: Path, lens: Path | None) -> Iterator[Path]:
    by = series.by
    provenance = Provenance(
        session=by.lens.provenance.session,
        code_version=version("gnomon"),
        options={"turned_deg": _turned_deg(by)},
        note=f"view without distortion of {by.lens.MODEL if lens is None else lens.name}",
    )
    # The lens first: who sees a picture finds its lens.
    view, mask = _view_files(series, out)
    files.save_model(view, by.view.replace(provenance=provenance))
    yield view
    files.write_image(mask, by.valid.astype(np.uint8) * 255)
    yield mask
    for picture in series.sources("undistorting"):
        path = out / f"{series.prefix}{picture.name}{picture.suffix}"
        if isinstance(picture.image, Mapping):
            attributes = dict(picture.attributes) | _attributes(by, provenance)
            if "frame" in picture.attributes and _turned_deg(by) > 0:
                attributes["frame"] = "view: x right, y down, z forward; viewFromCamera turns to it"
            files.write_exr(path, _channels(picture, by), attributes)
        else:
            files.write_image(path, _image(picture, picture.image, by))
        yield path


def _check_size(picture: Source, lens: LensModel) -> None:
    image = next(iter(picture.image.values())) if isinstance(picture.image, Mapping) else picture.image
    height, width = image.shape[:2]
    if (width, height) != (lens.width, lens.height):
        raise FitError(
            f"{picture.path}: is {width} x {height} px, the lens model is of {lens.width} x {lens.height}: "
            "undistort the picture as the camera took it"
        )


def _check_channels(picture: Source) -> None:
    if not isinstance(picture.image, Mapping):
        return
    given = [f"N.{axis}" in picture.image for axis in "XYZ"]
    if any(given) and not all(given):
        raise FitError(f"{picture.path}: has some of the channels N.X, N.Y, N.Z, want all or none")
    if "Z" in picture.image and picture.attributes.get("units") == "px":
        raise FitError(f"{picture.path}: depth in px, made without a lens model: no view to turn it to")


def _image(picture: Source, image: NDArray[Any], by: Undistorter) -> NDArray[Any]:
    if not picture.is_mask:
        return by.image(image)
    return np.where(by.mask(image > 0), image.max(), 0).astype(image.dtype)


def _channels(picture: Source, by: Undistorter) -> dict[str, NDArray[np.float32]]:
    assert isinstance(picture.image, Mapping)
    given = picture.image
    out: dict[str, NDArray[np.float32]] = {}
    axes = [f"N.{axis}" for axis in "XYZ"]
    if any(axis in given for axis in axes):
        turned = by.normals(np.stack([given[axis] for axis in axes], axis=-1))
        out |= {axis: turned[..., number] for number, axis in enumerate(axes)}
    for name, plane in given.items():
        if name in axes:
            continue
        if name == "Z":
            out[name] = by.depth(plane)
        elif name == "sigma" or name.startswith("sigma."):
            out[name] = np.sqrt(by.variance(np.square(plane)))
        elif name in _COUNTS:
            out[name] = by.nearest(plane)
        else:
            out[name] = by.image(plane)
    return out


def _attributes(by: Undistorter, provenance: Provenance) -> dict[str, files.Attribute]:
    view = by.view
    return {
        "undistorted": provenance.note,
        "intrinsics": [view.fx, view.fy, view.cx, view.cy],
        "viewFromCamera": [float(x) for x in by.rotation.ravel()],
    }


def _turned_deg(by: Undistorter) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(by.rotation) - 1) / 2, -1, 1))))
