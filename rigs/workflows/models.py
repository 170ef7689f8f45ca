"""What rig files, options and model files give a workflow."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from calibration import files
from calibration.cameras import CameraSet
from calibration.colour import ColourModel
from calibration.lens import LensModel
from calibration.lights.model import LightSet
from calibration.provenance import Model
from calibration.radiometric import RadiometricModel
from calibration.timing import TimingModel
from rigs.config import ConfigError, RigConfig, SphereTarget, Targets, validate
from rigs.simulated import Truth, load_truth

M = TypeVar("M", bound=Model)


def sphere_target(
    config: RigConfig | None, diameter_mm: float | None, count: int | None
) -> SphereTarget | None:
    """Spheres from the options, else from the rig file; None where neither says anything."""
    known = SphereTarget() if config is None else config.targets.spheres or SphereTarget()
    given = {"count": count, "diameter_mm": diameter_mm}
    told = dict(known) | {name: value for name, value in given.items() if value is not None}
    target = validate(told, SphereTarget, "spheres")
    return None if target == SphereTarget() else target


def targets(config: RigConfig | None) -> Targets:
    """Targets of the rig file, or what is taken for granted without one."""
    return Targets() if config is None else config.targets


@contextmanager
def file_faults() -> Iterator[None]:
    """Whatever is wrong with a file that a user named becomes one ConfigError."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename}: no such file" if error.filename else str(error)) from None
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None


def read_truth(path: Path) -> Truth:
    """Truth file of a simulation."""
    with file_faults():
        return load_truth(path)


def read_colour(path: Path) -> ColourModel:
    """Colour model."""
    with file_faults():
        return files.load_model(path, ColourModel)


def read_sensor(path: Path) -> RadiometricModel:
    """Sensor or response model."""
    with file_faults():
        return files.load_model(path, RadiometricModel)


def pinned(config: RigConfig, root: Path, camera: str, name: str, kind: type[M]) -> M | None:
    """Model that rig.yaml pins for a camera as the ``name`` of ``Calibrations``; its digest is checked."""
    entry = config.calibrations.get(camera)
    pin = None if entry is None else getattr(entry, name)
    if pin is None:
        return None
    with file_faults():
        return files.load_model(root / pin.path, kind, digest=pin.digest)


def pinned_geometry(config: RigConfig, root: Path) -> CameraSet | None:
    """Cameras of the rig in one frame, as rig.yaml pins them; the digest is checked."""
    if config.geometry is None:
        return None
    with file_faults():
        return files.load_model(root / config.geometry.path, CameraSet, digest=config.geometry.digest)


def check_pins(config: RigConfig, root: Path) -> list[str]:
    """One line for each pinned calibration that is missing, damaged or not the one pinned."""
    problems = []
    kinds: dict[str, type[Model]] = {
        "sensor": RadiometricModel,
        "lens": LensModel,
        "colour": ColourModel,
        "lights": LightSet,
        "timing": TimingModel,
    }
    for camera in config.calibrations:
        if camera not in config.cameras:
            problems.append(f"calibrations.{camera}: no camera of that name")
        for name, kind in kinds.items():
            try:
                pinned(config, root, camera, name, kind)
            except ConfigError as error:
                problems.append(f"calibrations.{camera}.{name}: {error}")
    try:
        geometry = pinned_geometry(config, root)
    except ConfigError as error:
        problems.append(f"geometry: {error}")
    else:
        strange = sorted(set(geometry.cameras if geometry else ()) - set(config.cameras))
        problems += [f"geometry: camera {name} is none of the rig's" for name in strange]
    return problems


def save(path: Path, model: Model, say: Callable[[str], None]) -> None:
    """Write a model and say its path, its digest (for the pin in rig.yaml), its verdict and its warnings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = files.save_model(path, model)
    say(f"{path}: digest {digest}")
    quality = getattr(model, "quality", None)
    if quality is not None:
        fit = f"residual {quality.residual_rms:.4g} {quality.unit} over {quality.observations}"
        if math.isnan(quality.residual_rms):
            fit = f"no residual, {quality.observations} observations are no more than the unknowns"
        say(f"{quality.verdict}: {fit}")
        for warning in quality.warnings:
            say(f"warning: {warning}")
