"""Lens and light models, our own or other people's, told apart by the ending of the file's name."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from calibration.files import load_model, read_lights, read_opencv_camera
from calibration.lens import LensModel
from calibration.lights.model import LightSet
from calibration.provenance import Model
from rigs.config import ConfigError

M = TypeVar("M", bound=Model)


def read_lens(path: Path) -> LensModel:
    """Read our own model (``.json``), or a camera file of OpenCV or ROS (``.yml``, ``.yaml``, ``.xml``).

    Raises
    ------
    ConfigError
        No such file, or not a lens; the line names the file.
    """
    return _read(
        path, LensModel, {".yml": read_opencv_camera, ".yaml": read_opencv_camera, ".xml": read_opencv_camera}
    )


def read_light_set(path: Path) -> LightSet:
    """Read our own model (``.json``), or a light list (``.lp``, ``.csv``; axes in `read_lights`).

    Raises
    ------
    ConfigError
        No such file, or not lights; the line names the file.
    """
    return _read(path, LightSet, {".lp": read_lights, ".csv": read_lights})


def _read(path: Path, kind: type[M], foreign: dict[str, Callable[[Path], M]]) -> M:
    suffix = path.suffix.lower()
    if suffix != ".json" and suffix not in foreign:
        raise ConfigError(f"{path}: want a file that ends in .json, {', '.join(foreign)}")
    try:
        return load_model(path, kind) if suffix == ".json" else foreign[suffix](path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except ValueError as error:
        text = str(error)
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from None
