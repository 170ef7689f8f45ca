"""What several commands share: their options, the models these name, progress and messages."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from calibration.colour import ColourModel
    from calibration.lens import LensModel
    from calibration.lights.model import LightSet
    from calibration.radiometric import RadiometricModel
    from rigs.config import RigConfig
    from rigs.simulated import Truth

T = TypeVar("T")


def model_name(path: Path) -> Path:
    """Refuse at once what could not be written after a long fit."""
    from rigs.config import ConfigError

    if path.suffix != ".json":
        raise ConfigError(f"{path}: want a file that ends in .json")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, want a file")
    return path


def plan_name(path: Path) -> Path:
    """Refuse at once what could not be written after a long search."""
    from rigs.config import ConfigError

    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: want a file that ends in .yaml")
    return path


def folder(path: Path) -> Path:
    """Refuse at once what could not be written after a long run."""
    from rigs.config import ConfigError

    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path}: is a file, want a folder")
    return path


Simulate = Annotated[
    Path | None, typer.Option(help="Truth file: play the rig by its simulated twin.", show_default=False)
]
SensorOption = Annotated[
    Path | None, typer.Option("--sensor", help="Sensor or response model; nominal and linear without.")
]
ColourOption = Annotated[
    Path | None, typer.Option("--colour", help="Colour model: pictures come in linear Rec.709.")
]
LensOption = Annotated[
    Path | None,
    typer.Option(
        "--lens",
        help="Lens model (.json), or a camera file of OpenCV, ROS, Kalibr (.yaml, .xml), mrcal "
        "(.cameramodel) or COLMAP (.txt); of several cameras one as FILE#NAME.",
    ),
]
RigOption = Annotated[Path | None, typer.Option("--rig", help="rig.yaml: targets and pinned calibrations.")]
ModelOut = Annotated[Path, typer.Option(help="Model file to write; ends in .json.", callback=model_name)]
CameraOption = Annotated[
    str | None, typer.Option("--camera", help="Which camera, where a session has several.")
]


def track(items: Iterable[T], what: str) -> Iterable[T]:
    """Progress bar with the time left on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(items, description=what, console=Console(stderr=True), transient=True)


def say(text: str) -> None:
    """Print one line on stdout."""
    typer.echo(text)


def rig_config(path: Path | None) -> "RigConfig | None":
    """Rig file of an option that may be left out."""
    from rigs.config import load_rig

    return None if path is None else load_rig(path)


def truth_of(path: Path | None) -> "Truth | None":
    """Truth file of an option that may be left out."""
    if path is None:
        return None
    from rigs.workflows import read_truth

    return read_truth(path)


def models_of(
    rig: Path | None, camera: str | None, sensor: Path | None, lens: Path | None
) -> "tuple[RadiometricModel | None, LensModel | None]":
    """Models that the options name, else those that the rig file pins."""
    from calibration.lens import LensModel
    from calibration.radiometric import RadiometricModel
    from rigs.interchange import read_lens
    from rigs.workflows import pinned, read_sensor

    config = rig_config(rig)
    found_sensor = None if sensor is None else read_sensor(sensor)
    found_lens = None if lens is None else read_lens(lens)
    if config is not None and rig is not None:
        name = camera or next(iter(config.cameras))
        found_sensor = found_sensor or pinned(config, rig.parent, name, "sensor", RadiometricModel)
        found_lens = found_lens or pinned(config, rig.parent, name, "lens", LensModel)
    return found_sensor, found_lens


def colour_of(rig: Path | None, camera: str | None, path: Path | None) -> "ColourModel | None":
    """Colour model that the option names, else the one that the rig file pins."""
    from calibration.colour import ColourModel
    from rigs.workflows import pinned, read_colour

    if path is not None:
        return read_colour(path)
    config = rig_config(rig)
    if config is None or rig is None:
        return None
    return pinned(config, rig.parent, camera or next(iter(config.cameras)), "colour", ColourModel)


def sensor_digest(rig: Path | None, camera: str | None, sensor: Path | None) -> str:
    """SHA-256 of the sensor model's file that ``models_of`` takes; empty where there is none."""
    import hashlib

    config = rig_config(rig)
    if sensor is None and config is not None and rig is not None:
        pins = config.calibrations.get(camera or next(iter(config.cameras)))
        sensor = None if pins is None or pins.sensor is None else rig.parent / pins.sensor.path
    return "" if sensor is None else hashlib.sha256(sensor.read_bytes()).hexdigest()


def lights_of(rig: Path | None, camera: str | None, path: Path | None) -> "LightSet":
    """Lights that the option names, else those that the rig file pins."""
    from calibration.lights.model import LightSet
    from rigs.config import ConfigError
    from rigs.interchange import read_light_set
    from rigs.workflows import pinned

    if path is not None:
        return read_light_set(path)
    config = rig_config(rig)
    if config is not None and rig is not None:
        found = pinned(config, rig.parent, camera or next(iter(config.cameras)), "lights", LightSet)
        if found is not None:
            return found
    raise ConfigError("no lights: give --lights, or --rig with pinned lights")


def fail(message: str, code: int) -> int:
    """Say what is wrong in one line on stderr; give back the exit code."""
    typer.echo(f"gnomon: {message}", err=True)
    return code
