"""Pictures, masks, normal maps and merged radiance in views without distortion, as files."""

import re
from collections.abc import Iterable, Iterator, Mapping
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
from capture.session import Session
from rigs.config import ConfigError
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


def session_pictures(session: Session, camera: str | None, prefix: str = "") -> Iterator[Source]:
    """Frames of a session, of one camera, named as in the session.

    Raises
    ------
    FitError
        The frames are raw mosaics; or what `stack_of` refuses.
    """
    stack = stack_of(session, camera)
    if format_cfa(stack.pixel_format) is not None:
        raise FitError(
            f"{session.path}: its frames are raw mosaics ({stack.pixel_format}), whose neighbours are of "
            "different colours: merge them first with `gnomon merge`, and undistort that"
        )
    for index, record in enumerate(stack.records):
        path = session.path / record.file
        yield Source(path, prefix + path.stem, ".tif", np.asarray(stack[index]))


def undistort_pictures(
    pictures: Iterable[Source],
    by: Undistorter,
    out: Path,
    *,
    name: str = "view",
    lens: Path | None = None,
) -> Iterator[Path]:
    """Write pictures as the view of ``by`` shows them, its lens and the mask of what it shows.

    Parameters
    ----------
    pictures : iterable of Source
        Read one by one. Of an EXR's channels ``N.X N.Y N.Z`` are normals (turned with the view, of length 1),
        ``Z`` depth, ``sigma`` and ``sigma.*`` standard deviations, ``motion`` and ``lights`` counts; all
        others are values.
    by : Undistorter
    out : Path
        Folder: ``NAME.json`` is the lens of the view, ``NAME-valid.png`` white where the camera saw
        something, and each picture under its own name: PNG, TIFF or EXR as it came.
    name : str
        Of the lens and the mask.
    lens : Path, optional
        File of the lens model, for the provenance.

    Yields
    ------
    Path
        As each is written.

    Raises
    ------
    FitError
        A picture of another size than the lens model's, two of one name, or one that would be written over.
        Pictures before the faulty one have been written, each whole.
    """
    target = out / f"{name}.json"
    if lens is not None and lens.resolve() == target.resolve():
        raise FitError(f"{lens}: would be written over: choose another folder for --out")
    provenance = Provenance(
        session=by.lens.provenance.session,
        code_version=version("gnomon"),
        options={"turned_deg": _turned_deg(by)},
        note=f"view without distortion of {by.lens.MODEL if lens is None else lens.name}",
    )
    mask = out / f"{name}-valid.png"
    written = {mask: mask}
    for picture in pictures:
        path = out / f"{picture.name}{picture.suffix}"
        if path in written:
            raise FitError(f"{picture.path}: {path} is that of {written[path]} already: rename one")
        if path.resolve() == picture.path.resolve():
            raise FitError(f"{picture.path}: would be written over: choose another folder for --out")
        _check_size(picture, by.lens)
        if len(written) == 1:
            # The lens first: who sees a picture finds its lens.
            out.mkdir(parents=True, exist_ok=True)
            files.save_model(target, by.view.replace(provenance=provenance))
            yield target
            files.write_image(mask, by.valid.astype(np.uint8) * 255)
            yield mask
        if isinstance(picture.image, Mapping):
            attributes = dict(picture.attributes) | _attributes(by, provenance)
            if "frame" in picture.attributes and _turned_deg(by) > 0:
                attributes["frame"] = "view: x right, y down, z forward; viewFromCamera turns to it"
            files.write_exr(path, _channels(picture, by), attributes)
        else:
            files.write_image(path, _image(picture, picture.image, by))
        written[path] = picture.path
        yield path


def _check_size(picture: Source, lens: LensModel) -> None:
    image = next(iter(picture.image.values())) if isinstance(picture.image, Mapping) else picture.image
    height, width = image.shape[:2]
    if (width, height) != (lens.width, lens.height):
        raise FitError(
            f"{picture.path}: is {width} x {height} px, the lens model is of {lens.width} x {lens.height}: "
            "undistort the picture as the camera took it"
        )


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
        if not all(axis in given for axis in axes):
            raise FitError(f"{picture.path}: has some of the channels N.X, N.Y, N.Z, want all or none")
        turned = by.normals(np.stack([given[axis] for axis in axes], axis=-1))
        out |= {axis: turned[..., number] for number, axis in enumerate(axes)}
    for name, plane in given.items():
        if name in axes:
            continue
        if name == "Z":
            if picture.attributes.get("units") == "px":
                raise FitError(
                    f"{picture.path}: depth in px, made without a lens model: no view to turn it to"
                )
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
