"""Colour models from pictures of a ColorChecker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.colour import CLASSIC_2005, CLASSIC_2014, ColourModel, Reference, fit_colour
from calibration.colour.spaces import illuminant as illuminant_of
from calibration.files.patches import read_patches
from calibration.provenance import FitError
from calibration.radiometric import Radiance, RadiometricModel
from calibration.targets.chart import ChartView, find_charts, read_chart
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.encoding import doubted, doubts_of, refuse_encoded
from rigs.workflows.frames import background_of, merged_of, of_kind, provenance_of, sensor_for

_PICTURE_PX = 480
_EDITIONS = {"2005": CLASSIC_2005, "2014": CLASSIC_2014}


def calibrate_colour(
    session: Session,
    *,
    reference: Reference = CLASSIC_2014,
    method: Literal["auto", "matrix", "root-polynomial"] = "auto",
    keep_white: bool = False,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    pose: str | None = None,
    light: str | None = None,
    corners: Sequence[Sequence[float]] | None = None,
    white: str | None = None,
) -> ColourModel:
    """Colour model from the session's ``chart`` frames; its ``ambient`` frames of that pose are taken off.

    Parameters
    ----------
    reference : Reference
        What the patches are.
    method, keep_white :
        Of ``fit_colour``.
    pose, light : str, optional
        Which, where the session has several.
    corners : four (x, y), optional, px
        Outer corners of the chart, in place of detection.
    white : str, optional
        Pose of frames of kind ``flat`` that show a white board in the chart's place, under its light: the
        light's unevenness is divided out.

    Raises
    ------
    FitError
        No chart, several, no colours, clipped patches, gamma-encoded frames; see ``fit_colour``.
    """
    stack = _one_light(session, _one_pose(session, of_kind(session, camera, "chart", pose)), light)
    name = stack.records[0].shot.camera
    refuse_encoded(session, name, sensor, "a colour model")
    model = sensor_for(session, stack, sensor)
    radiance = _merged(session, stack, model)
    if radiance.value.ndim != 3:
        raise FitError(
            f"{session.path}: camera {name!r} has one channel: a colour model wants RGB or Bayer frames"
        )
    if white is not None:
        flat = _one_light(session, of_kind(session, name, "flat", white), stack.lights[0] or None)
        radiance = _evened(radiance, _merged(session, flat, model))
    view = _chart(session, radiance.value, corners)
    try:
        colour = fit_colour(
            view,
            reference,
            method=method,
            keep_white=keep_white,
            provenance=provenance_of(session, method=method, keep_white=keep_white, white=white or ""),
        )
    except FitError as error:
        raise FitError(f"{session.path}: {error}") from None
    picture, outlines = _picture(radiance.value, view, colour.white_level)
    colour = colour.replace(picture=picture, outlines=outlines)
    return doubted(colour, doubts_of(session, name, sensor, linear="colours"))


def chart_reference(table: Path | None, edition: str, illuminant: str | None) -> Reference:
    """Reference of the options: a table of the user's own chart, or a published edition.

    Raises
    ------
    ConfigError
        The table cannot be used, or the illuminant is unknown or told of published values.
    """
    try:
        if table is not None:
            return read_patches(table, illuminant_of(illuminant or "D50"))
        if illuminant is not None:
            raise ConfigError(
                "--illuminant is the white of the values in --reference; the published ones are for D50"
            )
        return _EDITIONS[edition]
    except KeyError:
        raise ConfigError(f"edition {edition!r}: want {' or '.join(_EDITIONS)}") from None
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None


def parse_corners(text: str | None) -> tuple[tuple[float, float], ...] | None:
    """Four points of the option's text, ``x,y x,y x,y x,y``; None where there is none."""
    if text is None:
        return None
    try:
        points = tuple((float(x), float(y)) for x, y in (word.split(",") for word in text.split()))
    except ValueError:
        points = ()
    if len(points) != 4 or not np.isfinite(points).all():
        raise ConfigError(f"corners {text!r}: want four points in pixels, 'x,y x,y x,y x,y'")
    return points


def _one_pose(session: Session, stack: Stack) -> Stack:
    poses = tuple(dict.fromkeys(stack.poses))
    if len(poses) > 1:
        raise FitError(f"{session.path}: 'chart' frames of poses {', '.join(poses)}: say which with --pose")
    return stack


def _one_light(session: Session, stack: Stack, light: str | None) -> Stack:
    lights = tuple(dict.fromkeys(stack.lights))
    if light is not None:
        if light not in lights:
            raise FitError(f"{session.path}: no frame under {light!r}; there is {', '.join(lights)}")
        return stack.select(light=light)
    if len(lights) > 1:
        names = ", ".join(name or "none" for name in lights)
        raise FitError(f"{session.path}: the frames have lights {names}: say which with --light")
    return stack


def _merged(session: Session, stack: Stack, model: RadiometricModel) -> Radiance:
    record = stack.records[0]
    background = background_of(session, record.shot.camera, record.shot.pose, model)
    return merged_of(stack, model, background)


def _evened(radiance: Radiance, flat: Radiance) -> Radiance:
    """Radiance under even light: divided by the smoothed green of a white board, 1 in the middle."""
    green = np.asarray(flat.value[..., 1], np.float32)
    valid = np.isfinite(green) & (green > 0)
    if valid.mean() < 0.5:
        raise FitError(
            "white board: more than half of its picture is clipped or black: expose shorter or longer"
        )
    sigma = max(max(green.shape) / 100, 1.0)
    total = cv2.GaussianBlur(np.where(valid, green, np.float32(0)), (0, 0), sigma)
    share = cv2.GaussianBlur(valid.astype(np.float32), (0, 0), sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        field = total / share
    field[share < 0.1] = np.nan
    h, w = field.shape
    middle = np.nanmedian(field[h // 4 : -(h // 4) or None, w // 4 : -(w // 4) or None])
    scale = np.asarray(middle / field, np.float32)[..., None]
    return Radiance(
        np.asarray(radiance.value * scale, np.float32), np.asarray(radiance.variance * scale**2, np.float32)
    )


def _chart(
    session: Session, image: NDArray[np.float32], corners: Sequence[Sequence[float]] | None
) -> ChartView:
    if corners is not None:
        try:
            return read_chart(image, corners)
        except FitError as error:
            raise FitError(f"{session.path}: {error}") from None
    charts = find_charts(image)
    if not charts:
        raise FitError(
            f"{session.path}: no ColorChecker found in the 'chart' frames: give its outer corners with "
            "--corners 'x,y x,y x,y x,y'"
        )
    if len(charts) > 1:
        places = "; ".join(" ".join(f"{x:.0f},{y:.0f}" for x, y in view.corners) for view in charts)
        raise FitError(f"{session.path}: {len(charts)} charts found: choose one with --corners: {places}")
    return charts[0]


def _picture(
    image: NDArray[np.float32], view: ChartView, white_level: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Part of the view about the chart, small, and the outlines of what was read in it."""
    margin = 0.15 * np.ptp(view.corners, axis=0).max()
    low = np.maximum(np.floor(view.corners.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(view.corners.max(axis=0) + margin) + 1, image.shape[1::-1]).astype(int)
    part = np.asarray(image[low[1] : high[1], low[0] : high[0]], np.float32) / np.float32(white_level)
    scale = min(_PICTURE_PX / max(part.shape[:2]), 1.0)
    if scale < 1:
        size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.float32)
    return part, (view.quads - low + 0.5) * scale - 0.5
