"""Lens, camera and light models, our own or other people's, told apart by the file's name and its content."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from calibration import files
from calibration.cameras import CameraSet, RigCamera
from calibration.lens import LensModel
from calibration.lights.model import LightSet
from rigs.config import ConfigError

M = TypeVar("M")
Format = Literal["gnomon", "opencv", "ros", "kalibr", "mrcal", "colmap"]

_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "gnomon": (".json",),
    "opencv": (".yml", ".yaml"),
    "ros": (".yaml", ".yml"),
    "kalibr": (".yaml", ".yml"),
    "mrcal": (".cameramodel",),
    "colmap": (".txt",),
}

_OPENCV_SIGNS = ("%YAML:1.0", "!!opencv-matrix")
_ROS_SIGNS = ("\ncamera_name:", "\ndistortion_model:", "\nK:", "\nk:")


def read_lens(path: Path) -> LensModel:
    """Read our own model (``.json``), or a camera file of another program.

    OpenCV (``.yml``, ``.yaml``, ``.xml``), ROS camera_info and Kalibr camchain (``.yaml``, ``.yml``), mrcal
    (``.cameramodel``), COLMAP (``cameras.txt``). Of a file with several cameras one is named after a hash:
    ``camchain.yaml#cam1``.

    Raises
    ------
    ConfigError
        No such file, or not a lens; the line names the file.
    """
    path, name = _chosen(path)
    lenses = _lenses(path)
    if name is None and len(lenses) == 1:
        return next(iter(lenses.values()))
    listed = ", ".join(lenses)
    if name is None:
        raise ConfigError(f"{path}: holds cameras {listed}: name one, as {path.name}#{next(iter(lenses))}")
    if name not in lenses:
        raise ConfigError(f"{path}: no camera {name!r}; it has {listed or 'one without a name'}")
    return lenses[name]


def read_cameras(path: Path) -> CameraSet:
    """Read cameras with their poses: our own (``.json``) or a Kalibr camchain (``.yaml``, ``.yml``).

    Raises
    ------
    ConfigError
        No such file, or no cameras; the line names the file.
    """
    return _read(
        path,
        {
            ".json": lambda path: files.load_model(path, CameraSet),
            ".yaml": files.read_kalibr,
            ".yml": files.read_kalibr,
        },
    )


def read_light_set(path: Path) -> LightSet:
    """Read our own model or AliceVision's lights (``.json``), or a list (``.lp``, ``.csv``).

    Axes are those of `calibration.files.read_lights`.

    Raises
    ------
    ConfigError
        No such file, or not lights; the line names the file.
    """
    return _read(
        path,
        {
            ".json": _own_lights,
            ".lp": files.read_lights,
            ".csv": files.read_lights,
        },
    )


def write_lens(path: Path, lens: LensModel, form: Format, name: str = "camera") -> None:
    """Write a lens in another program's format; ConfigError where the format cannot hold it.

    The file's name must end as `read_lens` wants it of the format.
    """
    _ends_in(path, form)
    match form:
        case "gnomon":
            _write(path, lambda: files.save_model(path, lens))
        case "opencv":
            _write(path, lambda: files.write_opencv_camera(path, lens))
        case "ros":
            _write(path, lambda: files.write_ros_camera(path, lens, name))
        case "kalibr" | "mrcal" | "colmap":
            write_cameras(path, {name: RigCamera.model_validate({"lens": lens})}, form)


def write_cameras(path: Path, cameras: Mapping[str, RigCamera], form: Format) -> None:
    """Write cameras with their poses: a Kalibr camchain, mrcal's file of one camera, COLMAP (no poses).

    Raises
    ------
    ConfigError
        The format cannot hold them, or not several; the file's name ends in what is not the format's.
    """
    _ends_in(path, form)
    lenses = {name: camera.lens for name, camera in cameras.items()}
    match form:
        case "kalibr":
            _write(path, lambda: files.write_kalibr(path, cameras))
        case "colmap":
            _write(path, lambda: files.write_colmap(path, lenses))
        case "mrcal" if len(cameras) == 1:
            _write(path, lambda: files.write_mrcal(path, next(iter(cameras.values()))))
        case _:
            raise ConfigError(f"{form}: a file of this format holds one camera: export each alone")


def _ends_in(path: Path, form: Format) -> None:
    """Refuse a file that would not be read again: its name tells the format."""
    if path.suffix.lower() not in _SUFFIXES[form]:
        raise ConfigError(f"{path}: {form}: want a file that ends in {' or '.join(_SUFFIXES[form])}")


def _chosen(path: Path) -> tuple[Path, str | None]:
    """Path and, after a hash, the name of one camera; a hash may be part of a file's name."""
    if "#" not in path.name or path.exists():
        return path, None
    stem, _, name = path.name.rpartition("#")
    return path.with_name(stem), name


def _lenses(path: Path) -> dict[str, LensModel]:
    def one(read: Callable[[Path], LensModel]) -> Callable[[Path], dict[str, LensModel]]:
        return lambda path: {"": read(path)}

    def yaml(path: Path) -> dict[str, LensModel]:
        # Whether it is text at all is for the reader to say.
        text = "\n" + path.read_bytes().decode(errors="replace").replace("\r", "")
        if "\ncam0:" in text:
            return _of(files.read_kalibr(path))
        if any(sign in text for sign in _ROS_SIGNS) and not any(sign in text for sign in _OPENCV_SIGNS):
            return {"": files.read_ros_camera(path)}
        return {"": files.read_opencv_camera(path)}

    return _read(
        path,
        {
            ".json": _own,
            ".yml": yaml,
            ".yaml": yaml,
            ".xml": one(files.read_opencv_camera),
            ".cameramodel": one(lambda path: files.read_mrcal(path).lens),
            ".txt": files.read_colmap,
        },
    )


def _of(cameras: CameraSet) -> dict[str, LensModel]:
    return {name: camera.lens for name, camera in cameras.cameras.items()}


def _own(path: Path) -> dict[str, LensModel]:
    try:
        several = json.loads(path.read_bytes()).get("kind") == "cameras"
    except (ValueError, AttributeError):
        several = False  # the reader says what is wrong
    if several:
        return _of(files.load_model(path, CameraSet))
    return {"": files.load_model(path, LensModel)}


def _own_lights(path: Path) -> LightSet:
    try:
        foreign = "lights" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        foreign = False  # the reader says what is wrong
    lights = files.read_lights(path) if foreign else files.load_model(path, LightSet)
    if not lights.lights:
        raise ValueError(f"{path}: holds no light")
    return lights


def _read(path: Path, readers: Mapping[str, Callable[[Path], M]]) -> M:
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise ConfigError(f"{path}: want a file that ends in {', '.join(readers)}")
    try:
        return readers[suffix](path)
    except FileNotFoundError as error:
        # the file may be there and its sidecar of arrays not
        raise ConfigError(str(error) if path.exists() else f"{path}: no such file") from None
    except ValueError as error:
        text = str(error)
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from None


def _write(path: Path, write: Callable[[], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write()
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
