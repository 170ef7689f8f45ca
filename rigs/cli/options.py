"""What several commands share: their options, the models these name, progress and messages."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, overload

import typer

if TYPE_CHECKING:
    from calibration.cameras import CameraSet
    from calibration.colour import ColourModel
    from calibration.lens import LensModel
    from calibration.lights.model import LightSet
    from calibration.radiometric import RadiometricModel
    from calibration.targets.boards import Board
    from rigs.config import RigConfig, SphereTarget
    from rigs.simulated import Truth
    from rigs.workflows import MatteTarget

T = TypeVar("T")


def model_name(path: Path) -> Path:
    """Refuse at once what could not be written after a long fit."""
    from rigs.config import ConfigError

    if path.suffix != ".json":
        raise ConfigError(f"{path}: want a file that ends in .json")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, want a file")
    _writable(path.parent)
    return path


def plan_name(path: Path) -> Path:
    """Refuse at once what could not be written after a long search."""
    from rigs.config import ConfigError

    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: want a file that ends in .yaml")
    return path


def folder(path: Path) -> Path:
    """Refuse at once what could not be written after a long run, and a session."""
    from capture.session import Session
    from rigs.config import ConfigError

    _writable(path)
    if Session.stands_in(path):
        raise ConfigError(f"{path}: is a session, which stays as it is: give another folder")
    return path


def _writable(path: Path) -> None:
    """ConfigError where a folder is none, could not be made or not be written to."""
    from rigs.config import ConfigError

    there = next((place for place in (path, *path.parents) if place.exists()), path)
    if not there.is_dir():
        raise ConfigError(f"{there}: is a file, want a folder")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{there}: no permission to write into this folder")


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
BoardOption = Annotated[
    str | None,
    typer.Option(
        "--board",
        help="Target file (configs/targets/*.yaml, or Kalibr's), or words: "
        "'checkerboard COLSxROWS SQUARE_MM [marker]' (inner corners), "
        "'charuco COLSxROWS SQUARE_MM MARKER_MM [DICTIONARY] [legacy]' (squares), "
        "'aprilgrid COLSxROWS TAG_MM GAP_MM', 'circles COLSxROWS SPACING_MM [DIAMETER_MM] [asymmetric]'; "
        "else that of the rig file.",
    ),
]
GeometryOption = Annotated[
    Path | None,
    typer.Option(
        "--cameras", help="Cameras of the rig (.json, or Kalibr's .yaml), else those that rig.yaml pins."
    ),
]
SphereDiameterOption = Annotated[
    float | None, typer.Option("--sphere-diameter", help="Diameter of the spheres, mm.")
]
MatteDiameterOption = Annotated[
    float | None,
    typer.Option("--matte-diameter", help="Of the matte spheres, mm; that of the mirrors if not given."),
]
MatteMaskOption = Annotated[
    list[Path] | None,
    typer.Option("--matte-mask", help="Mask image of one matte sphere (repeat for several)."),
]
AlbedoOption = Annotated[float, typer.Option("--albedo", help="Diffuse reflectance of the matte spheres.")]
RigOption = Annotated[Path | None, typer.Option("--rig", help="rig.yaml: targets and pinned calibrations.")]
ModelOut = Annotated[Path, typer.Option(help="Model file to write; ends in .json.", callback=model_name)]
CameraOption = Annotated[
    str | None, typer.Option("--camera", help="Which camera, where a session has several.")
]


def track(items: Iterable[T], what: str) -> Iterable[T]:
    """Progress bar with the time left on a terminal, and why the first run waits; nothing elsewhere."""
    if not sys.stderr.isatty():
        return items
    from rigs.cli.compiling import tell_of_compiling

    tell_of_compiling(_note)
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(items, description=what, console=Console(stderr=True), transient=True)


def _note(text: str) -> None:
    print(text, file=sys.stderr)  # as it is now: a progress bar steps aside for it


def say(text: str) -> None:
    """Print one line on stdout; nowhere once nobody reads it any more: `| head` ends no capture."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        # what is left in its buffer goes there too
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def counted(number: int, what: str) -> str:
    """Such as ``1 frame`` and ``2 frames``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def rig_config(path: Path | None) -> "RigConfig | None":
    """Rig file of an option that may be left out."""
    from rigs.config import load_rig

    return None if path is None else load_rig(path)


@overload
def board_of(text: str | None, config: "RigConfig | None", needed: Literal[True] = True) -> "Board": ...


@overload
def board_of(text: str | None, config: "RigConfig | None", needed: bool) -> "Board | None": ...


def board_of(text: str | None, config: "RigConfig | None", needed: bool = True) -> "Board | None":
    """Board of the option's text, else of the rig file; a size that is hardly in mm is asked about."""
    from rigs import workflows

    board = workflows.choose_board(text, config, needed)
    if board is not None and (doubt := workflows.doubtful_size(board)) is not None:
        typer.echo(f"warning: board: {doubt}", err=True)
    return board


def truth_of(path: Path | None) -> "Truth | None":
    """Truth file of an option that may be left out."""
    if path is None:
        return None
    from rigs.workflows import read_truth

    return read_truth(path)


def camera_of(config: "RigConfig", camera: str | None, session: Path | None) -> str:
    """The camera whose pins are meant: the one that is named, else the session's or the rig's only one."""
    from capture.session import Session
    from rigs.config import ConfigError

    if camera is not None:
        return camera
    names = sorted(config.cameras)
    if session is not None and len(names) > 1:
        names = sorted({record.shot.camera for record in Session.open(session).frames}) or names
    if len(names) > 1:
        raise ConfigError(f"there are cameras {', '.join(names)}: say which with --camera")
    return names[0]


def camera_models(
    rig: Path | None, cameras: Iterable[str], lenses: Iterable[str]
) -> "tuple[dict[str, LensModel], dict[str, RadiometricModel]]":
    """Lens and sensor of each camera: of options ``CAMERA=FILE``, else those that the rig file pins."""
    from calibration.lens import LensModel
    from calibration.radiometric import RadiometricModel
    from rigs.config import ConfigError
    from rigs.interchange import read_lens
    from rigs.workflows import pinned

    names = list(cameras)
    found: dict[str, LensModel] = {}
    sensors: dict[str, RadiometricModel] = {}
    for text in lenses:
        name, equals, path = text.partition("=")
        if not equals or name not in names:
            raise ConfigError(f"--lens {text!r}: want CAMERA=FILE; the cameras are {', '.join(names)}")
        found[name] = read_lens(Path(path))
    config = rig_config(rig)
    for name in names if config is not None and rig is not None else ():
        assert config is not None
        assert rig is not None
        lens = None if name in found else pinned(config, rig.parent, name, "lens", LensModel)
        sensor = pinned(config, rig.parent, name, "sensor", RadiometricModel)
        found |= {} if lens is None else {name: lens}
        sensors |= {} if sensor is None else {name: sensor}
    return found, sensors


def models_of(
    rig: Path | None,
    camera: str | None,
    sensor: Path | None,
    lens: Path | None,
    session: Path | None = None,
) -> "tuple[RadiometricModel | None, LensModel | None]":
    """Models that the options name, else those that the rig file pins for the session's camera."""
    from calibration.lens import LensModel
    from calibration.radiometric import RadiometricModel
    from rigs.interchange import read_lens
    from rigs.workflows import pinned, read_sensor

    config = rig_config(rig)
    found_sensor = None if sensor is None else read_sensor(sensor)
    found_lens = None if lens is None else read_lens(lens)
    if config is not None and rig is not None and config.calibrations:
        name = camera_of(config, camera, session)
        found_sensor = found_sensor or pinned(config, rig.parent, name, "sensor", RadiometricModel)
        found_lens = found_lens or pinned(config, rig.parent, name, "lens", LensModel)
    return found_sensor, found_lens


def colour_of(
    rig: Path | None, camera: str | None, path: Path | None, session: Path | None = None
) -> "ColourModel | None":
    """Colour model that the option names, else the one that the rig file pins."""
    from calibration.colour import ColourModel
    from rigs.workflows import pinned, read_colour

    if path is not None:
        return read_colour(path)
    config = rig_config(rig)
    if config is None or rig is None or not config.calibrations:
        return None
    return pinned(config, rig.parent, camera_of(config, camera, session), "colour", ColourModel)


def sensor_digest(
    rig: Path | None, camera: str | None, sensor: Path | None, session: Path | None = None
) -> str:
    """SHA-256 of the sensor model's file that ``models_of`` takes; empty where there is none."""
    import hashlib

    config = rig_config(rig)
    if sensor is None and config is not None and rig is not None and config.calibrations:
        pins = config.calibrations.get(camera_of(config, camera, session))
        sensor = None if pins is None or pins.sensor is None else rig.parent / pins.sensor.path
    return "" if sensor is None else hashlib.sha256(sensor.read_bytes()).hexdigest()


def lights_of(
    rig: Path | None, camera: str | None, path: Path | None, session: Path | None = None
) -> "LightSet":
    """Lights that the option names, else those that the rig file pins, else those that an import gave."""
    from calibration.lights.model import LightSet
    from rigs.config import ConfigError
    from rigs.interchange import read_light_set
    from rigs.workflows import pinned

    if path is not None:
        lights = read_light_set(path)
        _, _, remarks = lights.provenance.note.partition("; ")
        if remarks and lights.quality is None:
            say(remarks)
        return lights
    config = rig_config(rig)
    if config is not None and rig is not None and config.calibrations:
        found = pinned(config, rig.parent, camera_of(config, camera, session), "lights", LightSet)
        if found is not None:
            return found
    given = given_with(session, "lights.json")
    if given is not None:
        return read_light_set(given)
    raise ConfigError("no lights: give --lights, or --rig with pinned lights")


def given_with(session: Path | None, name: str) -> Path | None:
    """A file that an import laid beside the frames, said in one line; None where there is none."""
    from rigs.interchange import GIVEN

    path = None if session is None else session / GIVEN / name
    if path is None or not path.is_file():
        return None
    say(f"{path}: taken as given")
    return path


def matte_of(
    finish: str,
    balls: "SphereTarget | None",
    masks: list[Path],
    matte_mm: float | None,
    matte_masks: list[Path],
    albedo: float,
) -> "MatteTarget | None":
    """The matte balls in view: the only ones, told as mirrors are, or those beside the mirrors."""
    from rigs.config import SphereTarget
    from rigs.workflows import MatteTarget

    if finish == "matte":
        return MatteTarget(balls or SphereTarget(), masks, albedo)
    if finish == "both":
        size = matte_mm or (None if balls is None else balls.diameter_mm)
        return MatteTarget(SphereTarget(diameter_mm=size), matte_masks, albedo)
    return None


def geometry_of(rig: Path | None, path: Path | None) -> "CameraSet":
    """Cameras that the option names, else those that the rig file pins."""
    from rigs.config import ConfigError
    from rigs.interchange import read_cameras
    from rigs.workflows import pinned_geometry

    if path is not None:
        return read_cameras(path)
    config = rig_config(rig)
    found = None if config is None or rig is None else pinned_geometry(config, rig.parent)
    if found is None:
        raise ConfigError("no cameras: give --cameras, or --rig with a pinned geometry")
    return found


def fail(message: str, code: int) -> int:
    """Say what is wrong in one line on stderr; give back the exit code."""
    with suppress(OSError):  # the terminal may be gone
        typer.echo(f"gnomon: {message}", err=True)
    return code
