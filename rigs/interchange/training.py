"""A capture and its reconstruction as a training set: pictures, maps, noise model, new lights, new noise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.geometry import Float
from calibration.lights.model import LightModel, LightSet
from calibration.radiometric import Radiance, RadiometricModel
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.interchange.augment import directions, generator, relight, retake
from rigs.interchange.folder import appearing, refuse_used
from rigs.interchange.photometric import GIVEN
from rigs.interchange.results import Maps, read_maps
from rigs.simulated import Truth, Twin
from rigs.workflows import LightImages, Track, light_images, silent, truth_digest
from rigs.workflows.frames import of_kind, sensor_for

PictureFormat = Literal["exr", "png"]

_FRAME = "camera: x right, y down, z forward; normals point to the camera (n_z < 0 on the axis)"
_PEDESTAL = 1024
_SHORTEST = 0.1
_RELIT = (
    "Lambertian part only: albedo * irradiance * max(0, n.l), attached shadows; no highlights, no cast "
    "shadows, no light from surface to surface. The maps in this folder are its exact truth"
)
_NOISE = (
    "electrons ~ Poisson((radiance * flat + dark_current_e_s) * exposure_s) + Normal(0, read_noise_e); "
    "DN = round(black_dn + gain_dn_per_e * electrons), saturated from saturation_dn; pictures hold the "
    "radiance again, e-/s"
)


def write_training(
    out: Path,
    session: Session,
    result: Path,
    *,
    camera: str | None = None,
    pose: str | None = None,
    form: PictureFormat = "exr",
    relit: int = 0,
    noisy: int = 0,
    most_deg: float = 70.0,
    seed: int = 0,
    truth: Truth | None = None,
    track: Track = silent,
) -> dict[str, Any]:
    """Write a training set into a new folder, whole or not at all; its files are in `docs/interchange.md`.

    Parameters
    ----------
    out : Path
        New or empty folder.
    session : Session
        With ``object`` frames.
    result : Path
        What ``gnomon reconstruct`` wrote of this session: maps, and the models it used.
    form : 'exr' or 'png'
        Of the pictures: 32-bit floats with sigma, or 16 bits with a step and a pedestal.
    relit : int
        New pictures under as many new distant lights, within ``most_deg`` of the camera's axis, of the median
        irradiance of the session's lights.
    noisy : int
        Noisy versions of each picture, of the session's and of the relit ones, at exposures between a tenth
        and the whole of the session's.
    seed : int
        The same seed gives the same bytes.
    truth : Truth, optional
        The session is simulated by it: true maps, lights and noise-free pictures go along.

    Returns
    -------
    dict
        The content of ``training.json``.

    Raises
    ------
    ConfigError
        The result is of another session or has no albedo or lights; the truth is not the session's; a float
        camera without a noise model; the folder is used.
    FitError
        No such frames.
    """
    refuse_used(out, "training set")
    maps, lights, told_sensor = _result_of(result, session)
    if truth is not None and session.facts.get("truth") != truth_digest(truth):
        raise ConfigError(f"{session.path}: was not simulated by this truth, or it has changed since")
    stack = of_kind(session, camera, "object", pose)
    name, pose = stack.records[0].shot.camera, pose or stack.poses[0]
    sensor = sensor_for(session, stack, told_sensor)
    if noisy and not sensor.counts_electrons:
        raise ConfigError(
            f"camera {name!r} gives {sensor.pixel_format}: no noise model, so no noisy pictures"
        )
    images = light_images(session, "object", sensor=told_sensor, camera=name, pose=pose, track=track)
    missing = [light for light in images.names if light not in lights.lights]
    if missing:
        raise ConfigError(f"{result / 'models' / 'lights.json'}: has no light {missing[0]!r} of the session")
    if images.value.shape[1:3] != maps.normals.shape[:2]:
        raise ConfigError(f"{result}: its maps are of another size than the frames of {session.path}")
    with appearing(out) as folder:
        writer = _Pictures(folder, form)
        document = {
            "format": 1,
            "kind": "training set",
            "session": session.digest,
            "camera": name,
            "pose": pose,
            "width": maps.normals.shape[1],
            "height": maps.normals.shape[0],
            "channels": ["Y"] if images.value.ndim == 3 else ["R", "G", "B"],
            "frame": _FRAME,
            "pictures": writer.about(),
            "lights": {light: _plain(lights.lights[light]) for light in images.names},
            "sensor": _sensor(folder, sensor, calibrated=told_sensor is not None),
            "maps": _maps(folder, "", maps) | {"from": "reconstruction"},
            "images": [
                writer.write(f"images/{light}", radiance)
                | {"light": light, "exposures_s": stack.select(light=light).exposure_s.tolist()}
                for light, radiance in _radiances(images)
            ],
            "truth": _truth(folder, writer, session, stack, images, truth, track),
        }
        longest = float(np.median(stack.exposure_s))
        document["noisy"] = [
            entry | {"of": f"images/{light}", "light": light}
            for light, radiance in track(list(_radiances(images)), "adding noise")
            for entry in _noisy(writer, f"noisy/{light}", radiance, sensor, longest, noisy, seed)
        ]
        shine = _median_irradiance(images, lights, maps)
        document["relit"] = {"model": _RELIT, "within_deg": most_deg, "images": []}
        new = list(directions(relit, most_deg, generator(seed, "directions")))
        for number, direction in enumerate(track(new, "relighting")):
            assert maps.albedo is not None
            value = relight(maps.normals, maps.albedo, direction, shine)
            clean = Radiance(value, np.zeros_like(value))
            at = f"relit/{number:04d}"
            entry = writer.write(at, clean) | {"direction": direction.tolist(), "irradiance": shine.tolist()}
            entry["noisy"] = list(_noisy(writer, at, clean, sensor, longest, noisy, seed))
            document["relit"]["images"].append(entry)
        document["seed"] = seed
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        files.write_bytes(folder / "training.json", text.encode())
    return document


def _plain(light: LightModel) -> dict[str, Any]:
    """A light as JSON values."""
    return {
        name: np.asarray(value).tolist() if isinstance(value, np.ndarray | tuple) else value
        for name, value in light.model_dump().items()
    }


class _Pictures:
    """Writes the pictures of a set in its one form."""

    def __init__(self, folder: Path, form: PictureFormat) -> None:
        self._folder, self._form = folder, form

    def about(self) -> dict[str, Any]:
        """What the set says of its pictures."""
        if self._form == "exr":
            return {
                "form": "exr",
                "units": "e-/s, linear, dark subtracted, camera RGB; NaN where invalid; sigma.*: one sigma",
            }
        return {
            "form": "png16",
            "units": "e-/s = (value - pedestal) * step, step of each picture; linear, dark subtracted, "
            "camera RGB; 0 where invalid",
            "pedestal": _PEDESTAL,
        }

    def write(self, name: str, radiance: Radiance) -> dict[str, Any]:
        """Write one picture; the entry that names it."""
        path = self._folder / f"{name}.{self._form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._form == "exr":
            channels = _planes("", radiance.value)
            if np.any(radiance.variance > 0):
                channels |= _planes("sigma.", np.sqrt(radiance.variance))
            files.write_exr(path, channels, {"units": "e-/s"})
            return {"file": f"{name}.exr"}
        value = radiance.value.astype(np.float64)
        valid = np.isfinite(value)
        if value.ndim == 3:
            valid = np.broadcast_to(valid.all(axis=-1, keepdims=True), value.shape)
        top = float(value[valid].max()) if valid.any() else 0.0
        step = top / (65535 - _PEDESTAL) if top > 0 else 1.0
        stored = np.where(valid, np.clip(np.rint(np.where(valid, value, 0) / step) + _PEDESTAL, 1, 65535), 0)
        texts = {"Description": f"radiance in e-/s = (value - {_PEDESTAL}) * {step!r}; 0 is invalid"}
        files.write_image(path, stored.astype(np.uint16), texts)
        return {"file": f"{name}.png", "step": step}


def _planes(prefix: str, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    if image.ndim == 2:
        return {f"{prefix}Y": image}
    return {f"{prefix}{letter}": image[..., i] for i, letter in enumerate("RGB")}


def _radiances(images: LightImages) -> Iterator[tuple[str, Radiance]]:
    for name, value, variance in zip(images.names, images.value, images.variance, strict=True):
        yield name, Radiance(value, variance)


def _noisy(
    writer: _Pictures,
    name: str,
    radiance: Radiance,
    sensor: RadiometricModel,
    longest_s: float,
    count: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Write noisy versions of a picture at random exposures; the entries that name them."""
    for number in range(count):
        at = f"{name}-noisy-{number}"
        rng = generator(seed, at)
        exposure_s = longest_s * float(np.exp(rng.uniform(np.log(_SHORTEST), 0.0)))
        taken = retake(radiance, exposure_s, sensor, rng)
        yield writer.write(at, taken) | {"exposure_s": exposure_s}


def _median_irradiance(images: LightImages, lights: LightSet, maps: Maps) -> Float:
    """Of the session's lights where the object is, so that a relit picture is as bright as a taken one."""
    depth = lights.scene_depth_mm or 0.0
    if maps.depth is not None and maps.depth_unit == "mm":
        depth = float(np.nanmedian(maps.depth))
    seen = [lights.lights[name].at([0.0, 0.0, depth])[1] for name in images.names]
    channels = max(len(one) for one in seen)
    return np.median([np.broadcast_to(one, channels) for one in seen], axis=0)


def _maps(folder: Path, place: str, maps: Maps) -> dict[str, str]:
    """Write maps below ``place``; their names."""
    (folder / place).mkdir(parents=True, exist_ok=True)
    channels = {f"N.{axis}": maps.normals[..., i] for i, axis in enumerate("XYZ")}
    if maps.sigma_deg is not None:
        channels["sigma"] = maps.sigma_deg
    names = {"normals": f"{place}normals.exr", "mask": f"{place}mask.png"}
    files.write_exr(folder / names["normals"], channels, {"frame": _FRAME, "units": "sigma: degrees"})
    files.write_image(folder / names["mask"], np.where(maps.mask, 255, 0).astype(np.uint8))
    if maps.albedo is not None:
        names["albedo"] = f"{place}albedo.exr"
        files.write_exr(
            folder / names["albedo"],
            _planes("albedo.", maps.albedo),
            {"units": "radiance over irradiance of the lights"},
        )
    if maps.depth is not None:
        names["depth"] = f"{place}depth.exr"
        files.write_exr(folder / names["depth"], {"Z": maps.depth}, {"units": maps.depth_unit})
    return names


def _sensor(folder: Path, sensor: RadiometricModel, *, calibrated: bool) -> dict[str, Any]:
    """The noise model in words and numbers; the whole model, with its maps, goes beside."""
    digest = files.save_model(folder / "sensor.json", sensor)
    numbers = (
        "gain_dn_per_e", "read_noise_e", "black_dn", "saturation_dn", "dark_current_e_s", "flat_sigma",
    )  # fmt: skip
    top = sensor.saturation_dn
    values: dict[str, Any] = {name: getattr(sensor, name) for name in numbers}
    values["saturation_dn"] = top if np.isfinite(top) else None
    return {
        "calibrated": calibrated,
        "pixel_format": sensor.pixel_format,
        "counts_electrons": sensor.counts_electrons,
        **values,
        "noise": _NOISE if sensor.counts_electrons else "none known: a float format",
        "model": "sensor.json",
        "sha256": digest,
    }


def _truth(
    folder: Path,
    writer: _Pictures,
    session: Session,
    stack: Stack,
    images: LightImages,
    truth: Truth | None,
    track: Track,
) -> dict[str, Any] | None:
    """What is known better than by reconstruction: the simulation, or what came with imported pictures."""
    given = session.path / GIVEN / "normals.exr"
    if truth is None:
        if not given.is_file():
            return None
        return _maps(folder, "truth/", read_maps(given)) | {"from": "given with the pictures"}
    twin, camera, pose = Twin(truth), stack.records[0].shot.camera, stack.poses[0]
    known = twin.maps(pose, camera)
    if known.depth_mm.shape != images.value.shape[1:3]:
        raise ConfigError(f"{session.path}: frames are not of the size of the truth's camera {camera!r}")
    maps = Maps(known.normals, None, known.albedo, known.depth_mm, "mm", session.digest)
    names: dict[str, Any] = _maps(folder, "truth/", maps) | {"things": "truth/things.png"}
    files.write_image(folder / names["things"], (known.thing + 1).astype(np.uint8))
    lights = twin.lights(camera)
    # Room light is taken off the session's pictures where it was taken alone.
    ambient = len(session.stack(camera).select(kind="ambient", pose=pose)) > 0
    entries = []
    for name in track(images.names, "rendering the truth"):
        levels = stack.select(light=name).records[0].shot.lights
        clean = twin.clean_radiance(pose, levels, camera)
        if ambient:
            clean = clean - twin.clean_radiance(pose, {}, camera)
        path = f"truth/clean/{name}"
        entries.append(writer.write(path, Radiance(clean, np.zeros_like(clean))) | {"light": name})
    return names | {
        "from": "simulation",
        "lights": {name: _plain(lights[name]) for name in images.names if name in lights},
        "clean": entries,
    }


def _result_of(result: Path, session: Session) -> tuple[Maps, LightSet, RadiometricModel | None]:
    """Maps of a reconstruction of this session, and the models it rests on."""
    if not result.is_dir():
        raise ConfigError(f"{result}: want the folder that `gnomon reconstruct` wrote")
    maps = read_maps(result)
    if maps.session and maps.session != session.digest:
        raise ConfigError(f"{result}: was reconstructed of another session than {session.path}")
    if maps.albedo is None:
        raise ConfigError(f"{result}: has no albedo.exr")
    models = result / "models"
    try:
        lights = files.load_model(models / "lights.json", LightSet)
        sensor = (
            files.load_model(models / "sensor.json", RadiometricModel)
            if (models / "sensor.json").is_file()
            else None
        )
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from None
    return maps, lights, sensor
