"""Normals, albedo, depth and mesh from a session under known lights."""

from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.lens import LensModel
from calibration.lights.model import LightSet, NearLight
from calibration.photometric import Method, NormalMap, object_mask, solve
from calibration.provenance import FitError, Provenance
from calibration.radiometric import RadiometricModel
from calibration.surface import Reconstruction, mesh, write_ply
from calibration.surface import reconstruct as surface_of
from capture.session import Session
from rigs.config import ConfigError
from rigs.workflows.encoding import Doubt, doubted, doubts_of
from rigs.workflows.frames import (
    LightImages,
    check_lens,
    light_images,
    of_kind,
    provenance_of,
    stack_of,
)
from rigs.workflows.intensities import Intensities, settle_intensities
from rigs.workflows.progress import Track, silent

_LEAST_SOLVED = 0.02


class Result(NamedTuple):
    """One reconstructed object: what it rests on and what came out.

    ``lights`` are those it was solved with; ``remarks`` say how their intensities came about.
    """

    reconstruction: Reconstruction
    images: LightImages
    mask: NDArray[np.bool_]
    name: str
    provenance: Provenance
    depth_unit: Literal["mm", "px", "relative"]
    lights: LightSet
    remarks: tuple[str, ...] = ()


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mask image, any format OpenCV reads: True where any colour is not 0, or a cut-out is opaque."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ConfigError(f"{path}: is no image that can be read")
    cut_out = image.ndim == 3 and image.shape[2] == 4 and np.ptp(image[..., 3]) > 0
    if cut_out:
        image = image[..., 3]
    mask = np.asarray(image > 0 if image.ndim == 2 else (image[..., :3] > 0).any(axis=-1))
    if mask.shape != shape:
        raise ConfigError(
            f"{path}: mask is {mask.shape[1]} x {mask.shape[0]} px, the frames {shape[1]} x {shape[0]}"
        )
    if not mask.any():
        raise ConfigError(f"{path}: mask is empty")
    return mask


def reconstruct(
    session: Session,
    lights: LightSet,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    mask: Path | NDArray[np.bool_] | None = None,
    pose: str | None = None,
    method: Method = "auto",
    camera: str | None = None,
    depth_mm: float | None = None,
    intensities: Intensities = "auto",
    track: Track = silent,
) -> Result:
    """Normals, albedo, depth and mesh of the session's ``object`` frames.

    Parameters
    ----------
    lens : LensModel, optional
        Without, the view is taken as orthographic and depth is in pixels.
    mask : path or ndarray (h, w) of bool, optional
        Where the object is; found from the brightness without.
    method : 'auto', 'mixture', 'robust' or 'least-squares'
        As for ``photometric.solve``; auto lets the images choose.
    depth_mm : float, optional
        Rough depth of the object; that of the calibration spheres without.
    intensities : 'auto', 'given' or 'estimated'
        Of the lights: of the light file, or from the object itself; see ``settle_intensities``.

    Raises
    ------
    FitError
        Frames, lights and models do not fit together; the message names what.
    """
    images = light_images(session, "object", sensor=sensor, camera=camera, pose=pose, track=track)
    used = [lights.lights.get(name) for name in images.names]
    unknown = [name for name, light in zip(images.names, used, strict=True) if light is None]
    if unknown:
        raise FitError(
            f"the light model has no {', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}; "
            f"it has {', '.join(list(lights.lights)[:5])} ..."
        )
    if len(used) < 3:
        raise FitError(f"{session.path}: images under {len(used)} lights: photometric stereo needs 3 or more")
    coloured = [
        name
        for name, light in zip(images.names, used, strict=True)
        if light is not None and len(light.intensity) > 1
    ]
    if coloured and images.value.ndim == 3:
        raise FitError(f"light {coloured[0]} has intensities in R G B, the frames are gray: give it one")
    shape = images.value.shape[1:3]
    check_lens(lens, shape)
    if lens is None and any(isinstance(light, NearLight) for light in used):
        raise FitError("the lights are near: where each pixel is seen needs a lens model: give --lens")
    depth_mm = depth_mm or lights.scene_depth_mm
    if depth_mm is None and any(isinstance(light, NearLight) for light in used):
        raise FitError("near lights, and nothing tells how far the object is: give --depth in mm, roughly")
    if mask is None:
        mask = object_mask(images.value, images.variance)
        if not mask.any():
            raise FitError(
                f"{session.path}: nothing is bright enough to be the object: give --mask or longer exposures"
            )
    elif isinstance(mask, Path):
        mask = read_mask(mask, shape)
    lights, remarks, contradictions = settle_intensities(
        lights, images, intensities, lens=lens, depth_mm=depth_mm, mask=mask, method=method
    )
    provenance = provenance_of(session, method=method, lights=len(used), intensities=intensities)
    reconstruction = surface_of(
        images.value,
        images.variance,
        [lights.lights[name] for name in images.names],
        lens=lens,
        mask=mask,
        depth_mm=depth_mm,
        method=method,
        provenance=provenance,
    )
    name = stack_of(session, camera).records[0].shot.camera
    doubts = (
        *doubts_of(session, name, sensor, linear="normals"),
        *map(Doubt, (*images.warnings, *contradictions)),
    )
    if lights.quality is not None and lights.quality.verdict != "good":
        why = f": {lights.quality.warnings[0]}" if lights.quality.warnings else ""
        doubts = (*doubts, Doubt(f"the light model is {lights.quality.verdict}{why}"))
    reconstruction = reconstruction._replace(normals=doubted(reconstruction.normals, doubts))
    if reconstruction.normals.valid[mask].mean() < _LEAST_SOLVED:
        raise FitError(
            "hardly a pixel has a normal facing the camera: do the light directions point from the object "
            "to the lights, in the camera's frame? A list with y up, z to the camera says so with frame yup"
        )
    name = pose or of_kind(session, camera, "object", pose).poses[0]
    unit: Literal["mm", "px", "relative"] = "px" if lens is None else "relative" if depth_mm is None else "mm"
    return Result(reconstruction, images, mask, name, provenance, unit, lights, remarks)


def solve_again(result: Result, lights: LightSet, lens: LensModel | None, method: Method) -> NormalMap:
    """Normals of the same images at the same depth by another method."""
    return solve(
        result.images.value,
        result.images.variance,
        [lights.lights[name] for name in result.images.names],
        lens=lens,
        depth_mm=result.reconstruction.depth_mm,
        mask=result.mask,
        method=method,
    )


def write_reconstruction(
    out: Path,
    result: Result,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    lights: LightSet | None = None,
) -> list[Path]:
    """Write normals, albedo, depth, mesh and the models used into ``out``; return the paths.

    ``normals.exr`` (``N.X N.Y N.Z``, ``sigma`` in degrees, ``lights``; the header says the method and why it
    was taken), ``albedo.exr`` (``albedo.R G B`` or
    ``albedo.Y``), ``depth.exr`` (``Z`` in mm), ``mesh.ply``, ``normals.png`` to look at, ``models/*.json``.
    """
    normals, depth, _, _ = result.reconstruction
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "session": result.provenance.session,
        "code_version": result.provenance.code_version,
        "frame": "camera: x right, y down, z forward; normals point to the camera",
    }
    channels = {f"N.{axis}": normals.normals[..., i] for i, axis in enumerate("XYZ")}
    channels |= {"sigma": normals.sigma_deg, "lights": normals.lights_used.astype(np.float32)}
    solved = {"method": normals.method or "", "reason": normals.reason or ""}
    files.write_exr(
        out / "normals.exr", channels, about | solved | {"units": "N: unit vector; sigma: degrees"}
    )
    planes = [normals.albedo] if normals.albedo.ndim == 2 else list(np.moveaxis(normals.albedo, -1, 0))
    letters = "Y" if len(planes) == 1 else "RGB"
    files.write_exr(
        out / "albedo.exr",
        {f"albedo.{letter}": plane for letter, plane in zip(letters, planes, strict=True)},
        about
        | {
            "units": "reflectance relative to the lights' intensity",
            "colourSpace": "monochrome" if len(planes) == 1 else "camera RGB: no chromaticities",
        },
    )
    files.write_exr(out / "depth.exr", {"Z": depth}, about | {"units": result.depth_unit})
    write_ply(out / "mesh.ply", mesh(depth, lens, normals.albedo, normals=normals.normals))
    files.write_normals_png(out / "normals.png", normals.normals)
    written = [out / name for name in ("normals.exr", "albedo.exr", "depth.exr", "mesh.ply", "normals.png")]
    models = {"sensor": sensor, "lens": lens, "lights": lights}
    (out / "models").mkdir(exist_ok=True)
    (out / "report.html").unlink(missing_ok=True)
    for name, model in models.items():
        if model is None:
            # One left from an earlier run had no part in this result.
            for suffix in (".json", ".npz"):
                (out / "models" / f"{name}{suffix}").unlink(missing_ok=True)
        else:
            files.save_model(out / "models" / f"{name}.json", model)
            written.append(out / "models" / f"{name}.json")
    return written
