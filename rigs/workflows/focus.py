"""Sharpness of a camera over field and depth, from views of a board."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from calibration.focus import (
    Depth,
    FocusModel,
    ViewSharpness,
    blur_for_share,
    board_edges,
    depth_of_field,
    fit_focus,
    measure_edges,
)
from calibration.geometry import Float
from calibration.lens import LensModel, fit_pose
from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.targets.boards import Board, NoBoard, detect_board
from capture.frame import format_bits
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.encoding import Doubt, doubted, doubts_of, refuse_encoded
from rigs.workflows.frames import check_lens, gray, merged_of, of_kind, provenance_of, sensor_for
from rigs.workflows.lens import board_views

_CLIPPED_BLACK = 0.01


def measure_focus(
    session: Session,
    board: Board,
    lens: LensModel,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    track: Track = silent,
) -> FocusModel:
    """Sharpness, sharp surface and pupil from the session's ``board`` frames.

    Parameters
    ----------
    board : Board
        As printed, with straight edges: no circle grid.
    lens : LensModel
        Of this camera at this focus.
    sensor : RadiometricModel, optional
        Makes the frames linear where the camera is not.

    Raises
    ------
    FitError
        Gamma-encoded frames without a response; no board in any view; a lens model of other frames; too few
        edges that can be measured.
    """
    if not len(board_edges(board).start):
        raise FitError(
            f"a board of kind {board.kind!r} has no straight edges to measure: take a checkerboard"
        )
    stack = of_kind(session, camera, "board")
    name = stack.records[0].shot.camera
    refuse_encoded(session, name, sensor, "sharpness")
    check_lens(lens, stack.shape[1:3])
    radiometric = sensor_for(session, stack, sensor)
    views, names, missed, black = [], [], [], []
    for view, frames in track(board_views(session, stack), "measuring edges"):
        image = gray(merged_of(frames, radiometric).value)
        found = detect_board(image, board)
        if isinstance(found, NoBoard):
            missed.append(ViewSharpness(name=view, remark=f"no board: {found.reason}"))
            continue
        try:
            pose = fit_pose(
                lens, found.points_mm, found.pixels, sigma_px=found.sigma_px, disc_mm=found.disc_mm
            )
        except FitError as error:
            missed.append(ViewSharpness(name=view, remark=f"no pose: {error}"))
            continue
        if _black_share(frames) > _CLIPPED_BLACK:
            black.append(view)
        views.append(measure_edges(image, board, found, lens, (pose.rotvec, pose.t_mm)))
        names.append(view)
    if not views:
        raise FitError(
            f"{session.path}: the board was found in none of {len(missed)} views: {missed[0].name} "
            f"({missed[0].remark})"
        )
    model = fit_focus(views, lens, names=names, provenance=provenance_of(session, board=board.kind))
    doubts = [Doubt(f"{view.name}: {view.remark}") for view in missed]
    if black:
        doubts.append(
            Doubt(
                f"samples of 0 DN in {', '.join(black)}: if the camera cuts off black there, edges look "
                "sharper than they are"
            )
        )
    doubts += doubts_of(session, name, sensor, linear="edge profiles")
    return doubted(model.replace(views=(*model.views, *missed)), doubts)


def _black_share(frames: Stack) -> float:
    """Share of samples of 0 DN in the longest exposure; 0 of a float format."""
    if format_bits(frames.pixel_format) is None:
        return 0.0
    return float(np.mean(np.asarray(frames[int(np.argmax(frames.exposure_s))]) == 0))


def parse_volume(text: str) -> tuple[float, float]:
    """``'450,600'``: nearest and farthest distance in mm."""
    try:
        near, far = (float(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"volume {text!r}: want NEAR,FAR in mm, such as 450,600") from None
    if not 0 < near < far < np.inf:
        raise ConfigError(f"volume {text!r}: want 0 < NEAR < FAR")
    return near, far


class Criterion(NamedTuple):
    """What is sharp enough: a circle of confusion, px, or the share of the best MTF50 that must be left."""

    value: float
    is_share: bool = False

    def circle_px(self, model: FocusModel) -> float:
        """Largest circle of confusion."""
        return blur_for_share(model, self.value) if self.is_share else self.value


def parse_criterion(text: str) -> Criterion:
    """``'2'``: largest circle of confusion, px; ``'70%'``: the circle that leaves this share of MTF50."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", text.strip())
    value = float(found[1]) if found else 0.0
    if found is None or not 0 < value < np.inf or (found[2] and value >= 100):
        raise ConfigError(
            f"criterion {text!r}: want a circle of confusion in px, such as 2, or a share of the best MTF50, "
            "such as 70%"
        )
    return Criterion(value / 100, True) if found[2] else Criterion(value)


def working_depth(
    model: FocusModel, lens: LensModel, volume_mm: tuple[float, float] | None, limit_px: float
) -> Depth:
    """Depth of field over the whole picture; the volume is that of the views where none is given."""
    depths = model.edges[:, 7]
    volume = volume_mm or (float(depths.min()), float(depths.max()))
    return depth_of_field(model, volume, limit_px, _field(lens))


def _field(lens: LensModel) -> Float:
    """X / Z, Y / Z of the centre, corners and middles of the sides that the lens model can tell."""
    u, v = np.meshgrid(
        [0, 0.5 * (lens.width - 1), lens.width - 1], [0, 0.5 * (lens.height - 1), lens.height - 1]
    )
    rays = lens.unproject(np.stack([u.ravel(), v.ravel()], axis=-1))
    rays = rays[np.isfinite(rays).all(axis=-1)]
    rays = rays[rays[:, 2] > 0]
    return np.asarray(rays[:, :2] / rays[:, 2:])


def describe_focus(
    model: FocusModel,
    lens: LensModel,
    *,
    volume_mm: tuple[float, float] | None = None,
    criterion: Criterion = Criterion(2.0),  # noqa: B008
) -> Iterator[str]:
    """What was found, in a few lines; then the views."""
    surface = model.surface
    if surface is not None:
        yield (
            f"sharp at {surface.distance_mm:.1f} +- {surface.distance_sigma_mm:.1g} mm on the axis; tilt "
            f"{_signed(surface.tilt_deg[0], surface.tilt_sigma_deg[0])} deg to the right, "
            f"{_signed(surface.tilt_deg[1], surface.tilt_sigma_deg[1])} deg below (positive: nearer there)"
        )
        if abs(surface.curvature_per_mm) > 3 * surface.curvature_sigma_per_mm:
            side = "towards" if surface.curvature_per_mm > 0 else "away from"
            yield (
                f"the sharp surface bends {side} the camera with a radius of "
                f"{1 / abs(surface.curvature_per_mm):.0f} mm"
            )
        best = surface.best_mtf50()
        yield (
            f"entrance pupil {surface.pupil_mm:.2f} +- {surface.pupil_sigma_mm:.1g} mm; in focus, at the "
            f"centre, sigma of the blur {surface.floor_px:.2f} px, MTF50 {best:.3f} cycles/px"
        )
        limit = criterion.circle_px(model)
        depth = working_depth(model, lens, None, limit)
        yield (
            f"circle of confusion up to {limit:.2g} px: sharp from {depth.near_mm:.0f} to "
            f"{depth.far_mm:.0f} mm on the axis"
        )
        if volume_mm is not None:
            yield from _budget(working_depth(model, lens, volume_mm, limit), volume_mm, limit)
    for view in sorted(model.views, key=lambda view: view.name):
        yield _line(view)


def _budget(depth: Depth, volume_mm: tuple[float, float], limit_px: float) -> Iterator[str]:
    near, far = volume_mm
    yield (
        f"volume {near:.0f} to {far:.0f} mm, whole picture: circles up to {depth.blur_px:.2g} px as focused "
        f"now: {_advice(depth.stops)} for {limit_px:.2g} px"
    )
    yield (
        f"focused at {depth.best_mm:.0f} mm: circles up to {depth.best_blur_px:.2g} px: "
        f"{_advice(depth.best_stops)} for {limit_px:.2g} px"
    )


def _advice(stops: float) -> str:
    factor = 2 ** (stops / 2)
    if stops <= 0:
        return f"sharp enough, the f-number may be {factor:.2f} of what it is"
    return f"close the aperture by {stops:.1f} stops (f-number times {factor:.2f})"


def _line(view: ViewSharpness) -> str:
    if not view.edges:
        return f"{view.name}: {view.remark}"
    text = f"{view.name}: {view.near_mm:.0f} to {view.far_mm:.0f} mm, MTF50 {view.mtf50:.3f} cycles/px"
    parts = [
        f"{word} {value:.3f}"
        for word, value in (("tangential", view.tangential), ("sagittal", view.sagittal))
        if np.isfinite(value)
    ]
    text += f" ({', '.join(parts)})" if parts else ""
    return text + (f": {view.remark}" if view.remark else "")


def _signed(value: float, sigma: float) -> str:
    return f"{value:+.2f} +- {sigma:.1g}"
