"""Lights from sessions: calibrated by balls, and checked on another day."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration import photometric
from calibration.lens import BrownConrady, LensModel, fit_pose
from calibration.lights.afar import seen_from_afar
from calibration.lights.agreement import LightChange, find_changes, join_lights
from calibration.lights.fit import fit_lights
from calibration.lights.highlights import Highlights, locate_highlights
from calibration.lights.intensity import are_known, fit_intensities
from calibration.lights.model import LightSet, NearLight
from calibration.lights.samples import MatteSamples, sample_plane, sample_spheres, white_spots
from calibration.lights.shading import fit_shading
from calibration.lights.watch import watch_lights
from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.targets.boards import Board, NoBoard, detect_board
from calibration.targets.spheres import SphereView, detect_spheres, sphere_from_mask
from capture.session import Session
from rigs.config import ConfigError, SphereTarget
from rigs.workflows.encoding import doubted, doubts_of
from rigs.workflows.frames import (
    Image,
    LightImages,
    check_lens,
    gray,
    light_images,
    provenance_of,
    stack_of,
)
from rigs.workflows.reconstructing import read_mask

Finish = Literal["mirror", "matte"]

_LEAST_BALL_MM, _MOST_BALL_MM = 0.5, 1000.0
"""Beyond, a diameter is more likely in another unit."""


class LightsResult(NamedTuple):
    """Calibrated lights and what they were seen by: balls, highlights, the mean picture over the lights.

    ``spheres`` are the mirror balls that ``highlights`` belong to (n lights, s of them), then the matte ones.
    ``remarks`` say what was done with the frames.
    """

    lights: LightSet
    spheres: tuple[SphereView, ...]
    highlights: Highlights
    picture: Image
    remarks: tuple[str, ...] = ()


class MatteTarget(NamedTuple):
    """Matte balls in view: number and diameter as of ``SphereTarget``, their masks, the paint's albedo."""

    balls: SphereTarget
    masks: Sequence[Path] = ()
    albedo: float = 0.9


def calibrate_lights(
    session: Session,
    target: SphereTarget | None,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    focal_35mm: float | None = None,
    board: Board | None = None,
    board_reflectance: float = 0.9,
    board_margin_mm: float = 0.0,
    masks: Sequence[Path] = (),
    mirror: bool = True,
    matte: MatteTarget | None = None,
    model: Literal["auto", "near", "distant"] = "auto",
    all_lit: bool = True,
    camera: str | None = None,
    track: Track = silent,
) -> LightsResult:
    """Lights from the session's ``sphere`` frames.

    Places come from the highlights in mirror balls, from the shading of matte ones, or from both together.
    Intensities come from the white of a board in the same frames when ``board`` and a lens are given, else
    from the matte balls, else from the highlights' flux.

    Parameters
    ----------
    target : SphereTarget or None
        Number and diameter of the mirror balls; None: whatever is found, of unknown size (distant lights
        only).
    focal_35mm : float, optional
        Focal length on 36 mm film, in place of a lens model: distortion is left out.
    masks : sequence of paths
        Mask images, one a mirror ball, in place of detection.
    mirror : bool
        Whether there are mirror balls; without, ``matte`` is needed.
    matte : MatteTarget, optional
        Matte balls.
    model : 'auto', 'near' or 'distant'
    all_lit : bool
        Whether a light that no ball answers is an error; else it is left out.

    Raises
    ------
    FitError
        No ball, or a light without consistent highlights; the message names it.
    """
    if not mirror and matte is None:
        raise ConfigError("neither mirror nor matte balls: nothing tells where the lights are")
    if lens is not None and focal_35mm is not None:
        raise ConfigError("a lens model and a focal length: give --lens or --focal-35mm, not both")
    sizes = [balls.diameter_mm for balls in (target, matte and matte.balls) if balls]
    if model == "near" and ((lens is None and focal_35mm is None) or not any(sizes)):
        wanted = [] if lens is not None or focal_35mm is not None else ["a lens model (--lens)"]
        wanted += [] if any(sizes) else ["the spheres' diameter (--sphere-diameter)"]
        raise ConfigError(f"near lights want {' and '.join(wanted)}")
    images = light_images(session, "sphere", sensor=sensor, camera=camera, track=track)
    values = list(gray(images.value))
    shape = values[0].shape
    check_lens(lens, shape)
    if focal_35mm is not None:
        lens = _plain_lens(focal_35mm, shape)
    by_mirror = by_matte = None
    views: tuple[SphereView, ...] = ()
    samples = None
    base = provenance_of(session, model=model, **({} if focal_35mm is None else {"focal_35mm": focal_35mm}))
    if mirror:
        target = target or SphereTarget()
        views = _balls(session, values, lens, target, masks, "mirror")
    highlights = locate_highlights(values, views)
    white = () if matte is None else _balls(session, values, lens, matte.balls, matte.masks, "matte")
    if not all_lit:
        kept = _lit(values, highlights, white)
        if not kept.any():
            raise FitError(f"{session.path}: no light shows on any of the spheres")
        images = images._replace(
            names=tuple(np.array(images.names)[kept].tolist()),
            value=images.value[kept],
            variance=images.variance[kept],
        )
        highlights = highlights.select(kept)
    if mirror:
        by_mirror = fit_lights(
            images.names,
            highlights,
            views,
            lens,
            sphere_radius_mm=None if target is None else _radius(target),
            model=model,
            size_px=(shape[1], shape[0]),
            provenance=base.replace(options={**base.options, "spheres": len(views)}),
        )
    if matte is not None:
        views = (*views, *white)
        samples = sample_spheres(
            images.value,
            images.variance,
            white,
            lens,
            radius_mm=_radius(matte.balls),
            reflectance=matte.albedo,
        )
        kind = model
        if by_mirror is not None and samples.centres_mm is not None and len(white) > 1:
            near = any(isinstance(light, NearLight) for light in by_mirror.lights.values())
            kind = "near" if near else "distant"
        by_matte = fit_shading(
            images.names,
            samples,
            model=kind,
            provenance=base.replace(options={**base.options, "matte_spheres": len(white)}),
        )
        if lens is None:
            by_matte = seen_from_afar(by_matte, white, (shape[1], shape[0]))
    lights = _together(by_mirror, by_matte, samples.matte if samples is not None else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel may be saturated under every light
        picture = np.asarray(np.nanmean(values, axis=0), np.float32)
    remarks = images.remarks
    if board is not None and lens is not None:
        try:
            white_plane = _white_samples(images, picture, board, lens, board_reflectance, board_margin_mm)
        except FitError as error:
            if by_matte is not None:  # which tell them as well as the board
                remarks = (*remarks, f"intensities come from the matte balls: {error}")
            else:
                source = "come from the highlights" if are_known(lights) else "stay equal"
                lights = _warned(lights, f"intensities {source}: {error}")
        else:
            lights = fit_intensities(lights, white_plane)
    for j, view in enumerate(views):
        for remark in view.remarks:
            lights = _warned(lights, f"sphere {j}: {remark}")
    for size in sizes:
        if size is not None and not _LEAST_BALL_MM < size < _MOST_BALL_MM:
            lights = _warned(lights, f"spheres of {size:g} mm: is their diameter in mm? It scales all places")
    name = stack_of(session, camera).records[0].shot.camera
    rests = "intensities" if are_known(lights) else ""
    doubts = (*doubts_of(session, name, sensor, linear=rests), *images.doubts)
    return LightsResult(doubted(lights, doubts), views, highlights, picture, remarks)


def _radius(target: SphereTarget) -> float | None:
    return None if target.diameter_mm is None else target.diameter_mm / 2


def _plain_lens(focal_35mm: float, shape: tuple[int, ...]) -> LensModel:
    """A lens without distortion, its axis in the picture's middle."""
    if not focal_35mm > 0:
        raise ConfigError(f"a focal length of {focal_35mm:g} mm: want more than 0")
    height, width = shape
    focal = focal_35mm / 36 * max(shape)
    return BrownConrady(
        width=width, height=height, fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2
    )


def _balls(
    session: Session,
    values: Sequence[Image],
    lens: LensModel | None,
    target: SphereTarget,
    masks: Sequence[Path],
    finish: Finish,
) -> tuple[SphereView, ...]:
    if masks:
        found = tuple(_marked(path, values[0].shape, lens) for path in masks)
        for i, j in combinations(range(len(found)), 2):
            apart = np.linalg.norm(np.subtract(found[i].centre_px, found[j].centre_px))
            if apart < 0.5 * max(found[i].radius_px, found[j].radius_px):
                raise ConfigError(f"{masks[i]} and {masks[j]}: two masks of one sphere")
        return found
    try:
        return detect_spheres(values, lens, count=target.count, finish=finish)
    except FitError as error:
        raise FitError(f"{session.path}: {error}") from None


def _marked(path: Path, shape: tuple[int, ...], lens: LensModel | None) -> SphereView:
    try:
        return sphere_from_mask(read_mask(path, shape), lens)
    except FitError as error:
        raise FitError(f"{path}: {error}") from None


_DARK = 0.02


def _lit(values: Sequence[Image], highlights: Highlights, white: Sequence[SphereView]) -> NDArray[np.bool_]:
    """Which lights (n,) a mirror ball answers by a highlight; without one, a matte ball by its brightness."""
    lit = np.isfinite(highlights.sigma_px).any(axis=(1, 2))
    if highlights.sigma_px.shape[1]:
        return np.asarray(lit)
    rows, columns = np.indices(values[0].shape)
    for ball in white:
        inside = np.hypot(columns - ball.centre_px[0], rows - ball.centre_px[1]) < ball.radius_px
        # Saturated is bright.
        top = max(float(np.nanmax(image[inside], initial=0.0)) for image in values)
        level = np.array([np.mean(np.where(np.isnan(v), top, v)[inside]) for v in values])
        lit |= level > _DARK * np.median(level)
    return np.asarray(lit)


def _together(mirror: LightSet | None, matte: LightSet | None, samples: MatteSamples | None) -> LightSet:
    if mirror is None or matte is None:
        lights = mirror or matte
        assert lights is not None
        return lights
    joined = join_lights(mirror, matte)
    if all(joined.lights[name].kind == light.kind for name, light in matte.lights.items()):
        return joined
    # One matte ball tells no distance, but with the mirror balls' places it tells how strong a lamp is.
    assert samples is not None
    return fit_intensities(joined, samples)


def _warned(lights: LightSet, warning: str) -> LightSet:
    quality = lights.quality
    if quality is None:
        return lights
    return lights.replace(quality=quality.replace(warnings=(*quality.warnings, warning), verdict="doubtful"))


def _white_samples(
    images: LightImages, picture: Image, board: Board, lens: LensModel, reflectance: float, margin_mm: float
) -> MatteSamples:
    found = detect_board(picture, board)
    if isinstance(found, NoBoard):
        raise FitError(f"the board is not found beside the spheres: {found.reason}")
    pose = fit_pose(lens, found.points_mm, found.pixels, sigma_px=found.sigma_px, disc_mm=found.disc_mm)
    spots = white_spots(board, margin_mm=margin_mm)
    return sample_plane(images.value, images.variance, lens, (pose.rotvec, pose.t_mm), spots, reflectance)


def describe_lights(lights: LightSet) -> Iterator[str]:
    """What was decided and why, where each light is and how sure that is, in one line each."""
    yield lights.provenance.note
    for name, light in lights.lights.items():
        spread = (
            np.nan if light.covariance is None else float(np.sqrt(np.trace(np.asarray(light.covariance))))
        )
        if isinstance(light, NearLight):
            x, y, z = light.position_mm
            yield f"{name}: at ({x:.1f}, {y:.1f}, {z:.1f}) mm, sigma {spread:.2f} mm"
        else:
            x, y, z = light.direction
            yield f"{name}: towards ({x:.4f}, {y:.4f}, {z:.4f}), sigma {np.degrees(spread):.2f} deg"


def lights_changed(
    session: Session,
    lights: LightSet,
    target: SphereTarget | None = None,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    camera: str | None = None,
    track: Track = silent,
) -> tuple[str, ...]:
    """A line for each light that balls beside the object show otherwise than it was calibrated.

    Empty where no ball is in view, where the lights were calibrated from this very session, and where nothing
    says from which. Balls by which nothing can be told are one line too.
    """
    if lights.provenance.session in ("", session.digest):
        return ()
    if not len(stack_of(session, camera).select(kind="sphere")):
        return ()
    try:
        changes = check_lights(session, lights, target, sensor=sensor, lens=lens, camera=camera, track=track)
    except FitError as error:
        return (f"the spheres in view do not tell whether the lights are as calibrated: {error}",)
    return tuple(change.text for change in changes if change.kind not in ("still", "missing", "unknown"))


def check_lights(
    session: Session,
    lights: LightSet,
    target: SphereTarget | None = None,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    masks: Sequence[Path] = (),
    mirror: bool = True,
    matte: MatteTarget | None = None,
    object_mask: Path | None = None,
    camera: str | None = None,
    track: Track = silent,
) -> tuple[LightChange, ...]:
    """What has become of each calibrated light, by the frames of a later session.

    With ``sphere`` frames the lights are calibrated anew and compared. Without, each light's picture of the
    object is foretold from the others': coarser, but it needs no ball.

    Parameters
    ----------
    lights : LightSet
        As pinned.
    target, masks, mirror, matte
        The balls in view, as of ``calibrate_lights``.
    object_mask : path, optional
        Where the object is, where no ball is in view; found from the brightness without.
    """
    stack = stack_of(session, camera)
    if len(stack.select(kind="sphere")):
        today = calibrate_lights(
            session,
            target,
            sensor=sensor,
            lens=lens,
            masks=masks,
            mirror=mirror,
            matte=matte,
            all_lit=False,
            camera=camera,
            track=track,
        ).lights
        failed = {name for name in stack.select(kind="sphere").lights if name} - set(today.lights)
        return tuple(
            change._replace(text=f"{change.name}: no sphere shows its light: does it burn?")
            if change.kind == "missing" and change.name in failed
            else change
            for change in find_changes(lights, today)
        )
    if not len(stack.select(kind="object")):
        raise FitError(f"{session.path}: has neither 'sphere' nor 'object' frames to check the lights by")
    images = light_images(
        session,
        "object",
        sensor=sensor,
        camera=camera,
        pose=stack.select(kind="object").poses[0],
        track=track,
    )
    shape = images.value.shape[1:3]
    check_lens(lens, shape)
    used = [lights.lights[name] for name in images.names if name in lights.lights]
    if any(isinstance(light, NearLight) for light in used) and (
        lens is None or lights.scene_depth_mm is None
    ):
        raise FitError(
            "the lights are near: checking them by an object wants a lens model and the scene's depth"
        )
    if object_mask is None:
        inside = photometric.object_mask(images.value, images.variance)
    else:
        inside = read_mask(object_mask, shape)
    values = list(gray(images.value))
    return watch_lights(
        images.names,
        values,
        lights.lights,
        inside,
        lens,
        depth_mm=lights.scene_depth_mm,
        strengths=are_known(lights),
    )
