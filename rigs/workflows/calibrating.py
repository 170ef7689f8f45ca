"""Response and light models from sessions."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from calibration.lens import LensModel, fit_pose
from calibration.lights.fit import fit_lights
from calibration.lights.highlights import Highlights, locate_highlights
from calibration.lights.intensity import fit_intensities
from calibration.lights.model import LightSet
from calibration.lights.samples import MatteSamples, sample_plane, white_spots
from calibration.provenance import FitError, Quality
from calibration.radiometric import RadiometricModel, fit_debevec, fit_response
from calibration.targets.boards import Board, NoBoard, detect_board
from calibration.targets.spheres import SphereView, detect_spheres, sphere_from_mask
from capture.session import Session
from rigs.config import SphereTarget
from rigs.workflows.encoding import Doubt, doubted, doubts_of
from rigs.workflows.frames import (
    Image,
    LightImages,
    check_lens,
    gray,
    light_images,
    provenance_of,
    stack_of,
)
from rigs.workflows.progress import Track, silent
from rigs.workflows.reconstructing import read_mask

# Relative sigma of exposures that are taken for exact.
_EXACT = 1e-4


def calibrate_response(
    session: Session,
    *,
    method: Literal["likelihood", "debevec"] = "likelihood",
    exact_times: bool = False,
    camera: str | None = None,
) -> RadiometricModel:
    """Response curve from the session's one exposure stack; its frames are read one after the other.

    ``exact_times``: the reported exposures have no error. Otherwise they are fitted with the curve.
    """
    stack = stack_of(session, camera)
    stack = (
        stack.select(kind="object") if "object" in {k for r in stack.records for k in r.shot.kinds} else stack
    )
    views = dict.fromkeys(zip(stack.poses, stack.lights, strict=True))
    if len(views) > 1:
        raise FitError(
            f"{session.path}: has frames of {len(views)} poses and lights: the response wants one exposure "
            "stack of one still view"
        )
    told: dict[str, Any] = {
        "pixel_format": stack.pixel_format,
        "gain_db": float(stack.gain_db[0]),
        "provenance": provenance_of(session, exact_times=exact_times),
    }
    if method == "debevec":
        model = fit_debevec(stack, stack.exposure_s, **told)
    else:
        sigma = _EXACT if exact_times else None
        model = fit_response(stack, stack.exposure_s, exposure_sigma=sigma, **told)
    return doubted(model, doubts_of(session, stack.records[0].shot.camera, model))


def _warned(quality: Quality | None, warning: str) -> Quality | None:
    return None if quality is None else quality.replace(warnings=(*quality.warnings, warning))


class LightsResult(NamedTuple):
    """Calibrated lights and what they were seen by: spheres, highlights, the mean picture over the lights."""

    lights: LightSet
    spheres: tuple[SphereView, ...]
    highlights: Highlights
    picture: Image


def calibrate_lights(
    session: Session,
    target: SphereTarget | None,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    board: Board | None = None,
    board_reflectance: float = 0.9,
    board_margin_mm: float = 0.0,
    masks: Sequence[Path] = (),
    model: Literal["auto", "near", "distant"] = "auto",
    camera: str | None = None,
    track: Track = silent,
) -> LightsResult:
    """Lights from the session's ``sphere`` frames.

    Positions or directions come from the highlights in the mirror spheres. Intensities come from the white of
    a board in the same frames when ``board`` and ``lens`` are given, else from the highlights' flux.

    Parameters
    ----------
    target : SphereTarget or None
        Number and diameter; None: whatever spheres are found, of unknown size (distant lights only).
    masks : sequence of paths
        Mask images, one a sphere, in place of detection.
    model : 'auto', 'near' or 'distant'

    Raises
    ------
    FitError
        No sphere, or a light without consistent highlights; the message names it.
    """
    images = light_images(session, "sphere", sensor=sensor, camera=camera, track=track)
    values = list(gray(images.value))
    check_lens(lens, values[0].shape)
    target = target or SphereTarget()
    if masks:
        views = tuple(sphere_from_mask(read_mask(path, values[0].shape), lens) for path in masks)
    else:
        views = detect_spheres(values, lens, count=target.count)
    if not views:
        raise FitError(f"{session.path}: no mirror sphere found in the {len(values)} images: give --mask")
    if target.count is not None and not masks and len(views) < target.count:
        raise FitError(f"{session.path}: {len(views)} mirror spheres found, the rig has {target.count}")
    highlights = locate_highlights(values, views)
    lights = fit_lights(
        images.names,
        highlights,
        views,
        lens,
        sphere_radius_mm=None if target.diameter_mm is None else target.diameter_mm / 2,
        model=model,
        size_px=(values[0].shape[1], values[0].shape[0]),
        provenance=provenance_of(session, spheres=len(views), model=model),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel may be saturated under every light
        picture = np.asarray(np.nanmean(values, axis=0), np.float32)
    if board is not None and lens is not None:
        try:
            samples = _white_samples(images, picture, board, lens, board_reflectance, board_margin_mm)
        except FitError as error:
            note = f"intensities come from the highlights: {error}"
            lights = lights.replace(quality=_warned(lights.quality, note))
        else:
            lights = fit_intensities(lights, samples)
    name = stack_of(session, camera).records[0].shot.camera
    doubts = (*doubts_of(session, name, sensor, linear="intensities"), *map(Doubt, images.warnings))
    return LightsResult(doubted(lights, doubts), views, highlights, picture)


def _white_samples(
    images: LightImages, picture: Image, board: Board, lens: LensModel, reflectance: float, margin_mm: float
) -> MatteSamples:
    found = detect_board(picture, board)
    if isinstance(found, NoBoard):
        raise FitError(f"the board is not found beside the spheres: {found.reason}")
    pose = fit_pose(lens, found.points_mm, found.pixels, sigma_px=found.sigma_px, disc_mm=found.disc_mm)
    spots = white_spots(board, margin_mm=margin_mm)
    return sample_plane(images.value, images.variance, lens, (pose.rotvec, pose.t_mm), spots, reflectance)
