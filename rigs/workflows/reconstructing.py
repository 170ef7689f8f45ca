"""Normals, albedo, depth and mesh from a session under known lights."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.lens import LensModel
from calibration.lights.model import LightSet, NearLight
from calibration.photometric import Method, Multiplex, NormalMap, object_mask, pair, solve
from calibration.progress import Track, silent
from calibration.provenance import FitError, Provenance
from calibration.radiometric import RadiometricModel
from calibration.surface import Reconstruction, integrate, mesh
from calibration.surface import reconstruct as surface_of
from capture.session import Session
from rigs.config import ConfigError
from rigs.workflows.anchors import contradicted, read_anchors
from rigs.workflows.contradictions import (
    OTHER_FRAME,
    inverted,
    listed,
    lit,
    other_axes,
    refuse_lights_behind,
    too_near,
)
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
from rigs.workflows.multiplexing import Unmixed, lit_at_once, unmix, with_whole_noise

_LEAST_SOLVED = 0.02


class Result(NamedTuple):
    """One reconstructed object: what it rests on and what came out.

    ``lights`` are those it was solved with; ``remarks`` say how these and the images came about.
    ``multiplex`` is what one frame under three lamps was unmixed by, and then ``images`` are what came of it.
    """

    reconstruction: Reconstruction
    images: LightImages
    mask: NDArray[np.bool_]
    name: str
    provenance: Provenance
    depth_unit: Literal["mm", "px", "relative"]
    lights: LightSet
    remarks: tuple[str, ...] = ()
    multiplex: Multiplex | None = None


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mask image, any format OpenCV reads: True from half of its brightest on, in any colour, or of opacity.

    Soft edges are cut in their middle, and what a lossy file rings around them is left out.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, want a mask image")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ConfigError(f"{path}: is no image that can be read")
    cut_out = image.ndim == 3 and image.shape[2] == 4 and np.ptp(image[..., 3]) > 0
    if cut_out:
        image = image[..., 3]
    level = np.nan_to_num(image if image.ndim == 2 else image[..., :3].max(axis=-1))
    mask = np.asarray((level > 0) & (level >= 0.5 * float(level.max())))
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
    anchors: Path | None = None,
    anchor_sigma_mm: float = 1.0,
    intensities: Intensities = "auto",
    track: Track = silent,
) -> Result:
    """Normals, albedo, depth and mesh of the session's ``object`` frames.

    One RGB frame under three lamps at once is unmixed first (``unmix``), and solved by least squares.

    Parameters
    ----------
    lens : LensModel, optional
        Without, the view is taken as orthographic and depth is in pixels.
    mask : path or ndarray (h, w) of bool, optional
        Where the object is; found from the brightness without.
    method : 'auto', 'mixture', 'robust' or 'least-squares'
        As for ``photometric.solve``; auto lets the images choose.
    depth_mm : float, optional
        Rough depth of the object; that of the calibration spheres without, or the anchors' median. Wants a
        lens model.
    anchors : path, optional
        Table of depths known at some pixels (``read_anchors``): they pull the final surface, each with
        ``anchor_sigma_mm``. Normals stay as they are.
    intensities : 'auto', 'given' or 'estimated'
        Of the lights: of the light file, or from the object itself; see ``settle_intensities``.

    Raises
    ------
    FitError
        Frames, lights and models do not fit together; the message names what.
    """
    images = light_images(session, "object", sensor=sensor, camera=camera, pose=pose, track=track)
    if isinstance(mask, Path):
        mask = read_mask(mask, images.value.shape[1:3])
    unmixed: Unmixed | None = None
    state = lit_at_once(images.names, lights)
    if state is not None:
        unmixed = unmix(images, state, lights, mask, provenance_of(session))
        images, lights = unmixed.images, unmixed.lights
        method = "least-squares" if method == "auto" else method
    used = [lights.lights.get(name) for name in images.names]
    unknown = [name for name, light in zip(images.names, used, strict=True) if light is None]
    if unknown:
        raise FitError(
            f"the light model has no {listed(unknown)}; it has {listed(list(lights.lights))}: "
            "name its lights as the pictures do"
        )
    if len(used) < 3:
        raise FitError(
            f"{session.path}: photometric stereo wants images under 3 lights or more, there are {len(used)}"
        )
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
    inside_out = () if mask is None else inverted(images, mask)
    if mask is None:
        mask = object_mask(images.value, images.variance)
        if not mask.any():
            raise FitError(
                f"{session.path}: nothing is bright enough to be the object: give --mask or longer exposures"
            )
    known = None
    if anchors is not None:
        if lens is None:
            raise FitError(f"{anchors}: without a lens model the surface is in px, not in mm: give --lens")
        known = read_anchors(anchors, shape, mask)
    if lens is None and depth_mm is not None:
        raise ConfigError(
            f"a depth of {depth_mm:g} mm: without a lens model the surface is in px, not in mm: give --lens"
        )
    # Without a lens model the view is orthographic: no depth has a place in it.
    depth_mm = depth_mm or (None if lens is None else lights.scene_depth_mm)
    if depth_mm is None and known is not None:
        depth_mm = float(np.nanmedian(known))
    refuse_lights_behind(images.names, lights, depth_mm)
    if depth_mm is None and any(isinstance(light, NearLight) for light in used):
        raise FitError("near lights, and nothing tells how far the object is: give --depth in mm, roughly")
    images, unlit = (images, ()) if unmixed is not None else lit(session, images, mask)
    lights, remarks, contradictions = settle_intensities(
        lights, images, intensities, lens=lens, depth_mm=depth_mm, mask=mask, method=method, track=track
    )
    provenance = provenance_of(session, method=method, lights=len(images.names), intensities=intensities)
    reconstruction = surface_of(
        images.value,
        images.variance,
        [lights.lights[name] for name in images.names],
        lens=lens,
        mask=mask,
        depth_mm=depth_mm,
        method=method,
        provenance=provenance,
        track=track,
    )
    if reconstruction.normals.valid[mask].mean() < _LEAST_SOLVED:
        raise FitError(
            "hardly a pixel has a normal facing the camera: do the light directions point from the object "
            f"to the lights, in the camera's frame? {OTHER_FRAME}"
        )
    if known is not None:
        held = integrate(
            reconstruction.normals,
            lens,
            depth_mm=reconstruction.depth_mm,
            anchors_mm=known,
            anchor_sigma_mm=anchor_sigma_mm,
            track=track,
        )
        contradictions = (
            *contradictions,
            *contradicted(known, held, reconstruction.depth_mm, anchor_sigma_mm, reconstruction.scale_sigma),
        )
        reconstruction = reconstruction._replace(depth_mm=held)
    paired = pair(
        images.value,
        images.variance,
        [lights.lights[name] for name in images.names],
        lens=lens,
        depth_mm=reconstruction.depth_mm,
        mask=mask,
    )
    name = stack_of(session, camera).records[0].shot.camera
    doubts = (
        *doubts_of(session, name, sensor, linear="normals"),
        *images.doubts,
        *(Doubt(text, wrong=True) for text in paired.contradictions(images.names)),
        *map(
            Doubt,
            (*inside_out, *unlit, *too_near(depth_mm), *contradictions, *other_axes(reconstruction.normals)),
        ),
    )
    if lights.quality is not None and lights.quality.verdict != "good":
        why = f": {'; '.join(lights.quality.warnings)}" if lights.quality.warnings else ""
        doubts = (*doubts, Doubt(f"the light model is {lights.quality.verdict}{why}", wrong=True))
    normals = reconstruction.normals
    if unmixed is not None:
        normals = with_whole_noise(normals, unmixed, lens, reconstruction.depth_mm)
        remarks = (unmixed.remark, *remarks)
    reconstruction = reconstruction._replace(normals=doubted(normals, doubts))
    name = pose or of_kind(session, camera, "object", pose).poses[0]
    unit: Literal["mm", "px", "relative"] = "px" if lens is None else "relative" if depth_mm is None else "mm"
    multiplex = None if unmixed is None else unmixed.multiplex
    remarks = (*images.remarks, *remarks)
    return Result(reconstruction, images, mask, name, provenance, unit, lights, remarks, multiplex)


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

    ``normals.exr`` (``N.X N.Y N.Z``, ``sigma`` and, where the lights have a covariance, ``sigma.lights`` in
    degrees, ``lights``; the header says the method and why it
    was taken, the session, and what the fit says of itself), ``albedo.exr`` (``albedo.R G B`` or
    ``albedo.Y``), ``depth.exr`` (``Z`` in mm), ``mesh.ply``, ``normals.png`` to look at, ``models/*.json``.
    All of them appear, or none, and an earlier result then stays.

    Raises
    ------
    OSError
        The folder cannot be written to; it is named.
    FitError
        The surface is too narrow for a mesh.
    """
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=out) as name:
            part = Path(name)
            written = _write_maps(part, result, lens)
            (part / "models").mkdir()
            models = {"sensor": sensor, "lens": lens, "lights": lights, "multiplex": result.multiplex}
            for kind, model in models.items():
                if model is not None:
                    files.save_model(part / "models" / f"{kind}.json", model)
                    written.append(part / "models" / f"{kind}.json")
            (out / "models").mkdir(exist_ok=True)
            for kind in models:
                # One left from an earlier run had no part in this result.
                for suffix in (".json", ".npz"):
                    (out / "models" / f"{kind}{suffix}").unlink(missing_ok=True)
            for name in ("report.html", "metrics.json"):
                (out / name).unlink(missing_ok=True)
            for path in sorted(path for path in part.rglob("*") if path.is_file()):
                os.replace(path, out / path.relative_to(part))
            return [out / path.relative_to(part) for path in written]
    except OSError as error:
        raise OSError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        if new:
            with suppress(OSError):  # not empty: all is well
                out.rmdir()


def _write_maps(out: Path, result: Result, lens: LensModel | None) -> list[Path]:
    normals, depth, _, _ = result.reconstruction
    surface = mesh(depth, lens, normals.albedo, normals=normals.normals)
    about = {
        "session": result.provenance.session,
        "code_version": result.provenance.code_version,
        "frame": "camera: x right, y down, z forward; normals point to the camera",
    }
    channels = {f"N.{axis}": normals.normals[..., i] for i, axis in enumerate("XYZ")}
    channels |= {"sigma": normals.sigma_deg, "lights": normals.lights_used.astype(np.float32)}
    if normals.sigma_lights_deg is not None:
        channels["sigma.lights"] = normals.sigma_lights_deg
    solved = {
        "method": normals.method or "",
        "reason": normals.reason or "",
        "provenance": result.provenance.model_dump_json(),
        "quality": "" if normals.quality is None else json.dumps(normals.quality.model_dump()),
    }
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
    files.write_ply(out / "mesh.ply", surface)
    files.write_normals_png(out / "normals.png", normals.normals)
    return [out / name for name in ("normals.exr", "albedo.exr", "depth.exr", "mesh.ply", "normals.png")]
