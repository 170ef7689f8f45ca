"""What a reconstruction found, as other programs want it: normals, depth, mask, lights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.files import NormalAxes
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, LightModel, LightSet
from calibration.surface import mesh
from rigs.config import ConfigError

LightFormat = Literal["csv", "lp", "alicevision", "diligent"]
Axes = NormalAxes | Literal["camera"]

_CAMERA = "camera: x right, y down, z forward; normals point to the camera"


class Maps(NamedTuple):
    """What ``gnomon reconstruct`` wrote, camera frame; NaN where there is nothing.

    Attributes
    ----------
    normals : ndarray (h, w, 3), float32
    sigma_deg, sigma_lights_deg : ndarray (h, w), float32, or None
        As in ``NormalMap``.
    albedo : ndarray (h, w) or (h, w, 3), float32, or None
    depth : ndarray (h, w), float32, or None
    depth_unit : str
        ``mm``, ``px`` or ``relative``.
    session : str
        Digest of the session it was made of; empty where the file does not say.
    """

    normals: NDArray[np.float32]
    sigma_deg: NDArray[np.float32] | None
    albedo: NDArray[np.float32] | None
    depth: NDArray[np.float32] | None
    depth_unit: str
    session: str
    sigma_lights_deg: NDArray[np.float32] | None = None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where there is a normal, (h, w)."""
        return np.asarray(np.isfinite(self.normals).all(axis=-1))


def read_maps(path: Path) -> Maps:
    """Maps of a folder that ``gnomon reconstruct`` wrote, or of one EXR with ``N.X N.Y N.Z``.

    Raises
    ------
    ConfigError
        No such file, no normals in it, or maps of different sizes; the line names the file.
    """
    file = path / "normals.exr" if path.is_dir() else path
    channels, about = _exr(file)
    names = ["N.X", "N.Y", "N.Z"]
    if not set(names) <= set(channels):
        raise ConfigError(f"{file}: has no channels N.X N.Y N.Z, it has {', '.join(channels)}")
    normals = np.stack([channels[name] for name in names], axis=-1)
    albedo, depth, unit = None, None, "mm"
    if path.is_dir() and (path / "albedo.exr").is_file():
        planes, _ = _exr(path / "albedo.exr")
        colours = [planes[name] for name in ("albedo.R", "albedo.G", "albedo.B") if name in planes]
        albedo = np.stack(colours, axis=-1) if len(colours) == 3 else planes.get("albedo.Y")
    if path.is_dir() and (path / "depth.exr").is_file():
        planes, told = _exr(path / "depth.exr")
        depth, unit = planes.get("Z"), str(told.get("units", "mm"))
    for name, plane in (("albedo.exr", albedo), ("depth.exr", depth)):
        if plane is not None and plane.shape[:2] != normals.shape[:2]:
            raise ConfigError(f"{path / name}: is of another size than normals.exr")
    session = str(about.get("session", ""))
    sigma, by_lights = channels.get("sigma"), channels.get("sigma.lights")
    return Maps(normals, sigma, albedo, depth, unit, session, by_lights)


def write_normals(path: Path, maps: Maps, axes: Axes) -> None:
    """Write normals as a 16-bit PNG (``opengl``, ``directx``) or an EXR; the file says its axes.

    An EXR in the camera frame has the channels ``N.X N.Y N.Z``, ``sigma`` and ``sigma.lights``; in other axes
    ``R G B``, as other programs read pictures, from -1 to 1.

    Raises
    ------
    ConfigError
        Another ending; a PNG in the camera frame, which nobody would expect.
    """
    _make_room(path, ".png", ".exr")
    if path.suffix.lower() == ".png":
        if axes == "camera":
            raise ConfigError(f"{path}: a PNG has opengl or directx axes; the camera's own go to .exr")
        files.write_normals_png(path, maps.normals, axes)
        return
    if axes == "camera":
        channels = {f"N.{axis}": maps.normals[..., i] for i, axis in enumerate("XYZ")}
        channels |= {} if maps.sigma_deg is None else {"sigma": maps.sigma_deg}
        channels |= {} if maps.sigma_lights_deg is None else {"sigma.lights": maps.sigma_lights_deg}
        files.write_exr(path, channels, {"frame": _CAMERA, "units": "N: unit vector; sigma: degrees"})
        return
    turned = maps.normals * files.NORMAL_AXES[axes]
    up = "up" if axes == "opengl" else "down"
    about = {"normalAxes": axes, "frame": f"x right, y {up}, z towards the camera; from -1 to 1"}
    files.write_exr(path, {letter: turned[..., i] for i, letter in enumerate("RGB")}, about)


def write_depth(path: Path, maps: Maps) -> None:
    """Write depth as a 16-bit PNG that says offset and step, or as an EXR (``Z``).

    Raises
    ------
    ConfigError
        There is no depth, or another ending.
    """
    _make_room(path, ".png", ".exr")
    if maps.depth is None or not np.isfinite(maps.depth).any():
        raise ConfigError(f"{path}: not written, the result holds no depth.exr")
    if path.suffix.lower() == ".png":
        files.write_depth_png(path, maps.depth, maps.depth_unit)
    else:
        files.write_exr(path, {"Z": maps.depth}, {"units": maps.depth_unit, "frame": "z of the camera frame"})


def write_mesh(path: Path, maps: Maps, lens: LensModel | None) -> None:
    """Write the surface with its albedo: ``.ply`` and ``.obj`` in mm, camera frame; ``.glb`` in metres, y up.

    Raises
    ------
    ConfigError
        There is no depth, another ending, or no lens: without one depth is in pixels, which is no place in
        mm; only PLY and OBJ, which have no unit, take that.
    """
    _make_room(path, ".ply", ".obj", ".glb")
    if maps.depth is None or not np.isfinite(maps.depth).any():
        raise ConfigError(f"{path}: not written, the result holds no depth.exr")
    suffix = path.suffix.lower()
    if suffix == ".glb" and maps.depth_unit != "mm":
        raise ConfigError(
            f"{path}: glTF is in metres, depth is in units of {maps.depth_unit}: reconstruct with --lens and "
            "--depth, or take .ply or .obj"
        )
    write = {".ply": files.write_ply, ".obj": files.write_obj, ".glb": files.write_gltf}[suffix]
    write(path, mesh(maps.depth, lens, maps.albedo, normals=maps.normals))


def write_mask(path: Path, maps: Maps) -> None:
    """Write where there is a normal: PNG, 255 there and 0 elsewhere; ConfigError for another ending."""
    _make_room(path, ".png")
    files.write_image(path, np.where(maps.mask, 255, 0).astype(np.uint8))


def write_lights(
    path: Path,
    lights: LightSet,
    form: LightFormat,
    *,
    at_mm: tuple[float, float, float] | None = None,
    suffix: str = ".png",
) -> None:
    """Write lights for another program: a direction and, but for ``lp``, an intensity each.

    A ``csv`` holds near lights as they are too, with their lobes.

    Parameters
    ----------
    path : Path
        A file that ends in ``.csv``, ``.lp`` or ``.json``; a folder for ``diligent``.
    at_mm : 3 floats, optional
        Point of the camera frame from which near lights are seen; their irradiance there is the intensity.
        Without, a ``csv`` has their positions.
    suffix : str
        Ending of the pictures that the list names after the lights.

    Raises
    ------
    ConfigError
        A near light and no point, near and distant lights for a ``csv``, or another ending.
    """
    if not suffix.startswith("."):
        raise ConfigError(f"--suffix {suffix!r}: want the ending of the pictures with its point, as .png")
    if form == "csv" and at_mm is None:
        _make_room(path, ".csv")
        _write_csv(path, lights.lights)
        return
    distant = {name: _distant(name, light, form, at_mm) for name, light in lights.lights.items()}
    if form == "diligent":
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path}: is a file, want a folder")
        path.mkdir(parents=True, exist_ok=True)
        files.write_diligent_lights(path, distant, suffix)
        return
    _make_room(path, {"csv": ".csv", "lp": ".lp", "alicevision": ".json"}[form])
    if form == "csv":
        _write_csv(path, distant)
    elif form == "lp":
        files.write_lp(path, distant, suffix)
    else:
        files.write_alicevision(path, distant)


def _write_csv(path: Path, lights: Mapping[str, LightModel]) -> None:
    try:
        files.write_light_csv(path, lights)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _distant(
    name: str, light: Any, form: LightFormat, at_mm: tuple[float, float, float] | None
) -> DistantLight:
    if isinstance(light, DistantLight):
        return light
    if at_mm is None:
        raise ConfigError(
            f"light {name!r} is near, not for {form}: say by --at X,Y,Z (mm) where it is seen from"
        )
    if np.allclose(light.position_mm, at_mm):
        raise ConfigError(f"light {name!r} stands at the point of --at: take one on the object")
    direction, irradiance = light.at(np.asarray(at_mm))
    if not np.all(irradiance > 0):
        raise ConfigError(f"light {name!r} does not reach the point of --at")
    return DistantLight(direction=tuple(direction.tolist()), intensity=tuple(irradiance.tolist()))


def _exr(path: Path) -> tuple[dict[str, NDArray[np.float32]], Mapping[str, Any]]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file: want a folder of `gnomon reconstruct`, or its normals.exr")
    try:
        return files.read_exr(path), files.read_exr_attributes(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _make_room(path: Path, *suffixes: str) -> None:
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: want a file that ends in {' or '.join(suffixes)}")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, want a file")
    path.parent.mkdir(parents=True, exist_ok=True)
