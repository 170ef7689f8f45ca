"""Pinhole views of what a lens sees: its own focal length, all pixels valid, or everything that it sees."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float
from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.model import LensModel

ViewChoice = Literal["same", "crop", "keep-all"]

_WIDEST = float(np.tan(np.radians(75.0)))
_DIRECTIONS = 1440
_STEPS = 200
_ON_A_SIDE = 200


def pinhole_view(
    lens: LensModel,
    view: ViewChoice = "same",
    *,
    size: tuple[int, int] | None = None,
    rotation: ArrayLike | None = None,
) -> BrownConrady:
    """Lens without distortion for a new picture of what a camera saw.

    Parameters
    ----------
    lens : LensModel
        Of the camera that took the picture.
    view : 'same', 'crop' or 'keep-all'
        Focal length and principal point as the lens has them; or the widest view of which the camera has seen
        every pixel; or the longest focal length that leaves nothing out. The last two keep the ratio of the
        focal lengths and put the principal point where it serves best.
    size : (width, height), optional
        Of the new picture, px; that of the lens if not given. 'same' then keeps the middle.
    rotation : ndarray (3, 3), optional
        Rt_view_camera: turns directions of the camera into the new view, as for rectification.

    Returns
    -------
    BrownConrady
        All distortion 0; no covariance, since it was chosen and not measured.

    Raises
    ------
    ValueError
        The view does not look at what the camera saw, or it is to hold everything that a lens of more than
        150 degrees sees: a flat picture has no place for it.

    Notes
    -----
    A flat picture stretches its rim by 1 / cos^2 of the angle to the axis, 15 times at 75 degrees, where
    views end. What the camera sees is taken to be in one piece without holes around the image's centre.
    """
    width, height = size or (lens.width, lens.height)
    if min(width, height) < 2:
        raise ValueError(f"a view of {width} x {height} px: want 2 x 2 px or more")
    turn = np.eye(3) if rotation is None else np.asarray(rotation, np.float64)
    if view == "same":
        cx, cy = lens.cx + (width - lens.width) / 2, lens.cy + (height - lens.height) / 2
        return _pinhole(lens, (width, height), lens.fx, lens.fy, cx, cy)
    centre, outline, whole = _outline(lens, turn)
    half = np.array([(width - 1) / lens.fx, (height - 1) / lens.fy]) / 2
    if view == "keep-all":
        if not whole:
            raise ValueError("the lens sees more than the 150 degrees of a flat picture: choose crop or same")
        low, high = outline.min(axis=0), outline.max(axis=0)
        scale = float(np.max((high - low) / 2 / half))
        centre = (low + high) / 2
    else:
        centre, scale = _inscribed(centre, outline, half)
        scale = _filled(lens, turn, centre, half, scale)
    fx, fy = lens.fx / scale, lens.fy / scale
    cx, cy = (width - 1) / 2 - fx * centre[0], (height - 1) / 2 - fy * centre[1]
    return _pinhole(lens, (width, height), fx, fy, float(cx), float(cy))


def seen(lens: LensModel, pixels: Float) -> NDArray[np.bool_]:
    """Whether places (..., 2) lie between the centres of pixels of the image; False for NaN."""
    inside = (pixels >= 0) & (pixels <= (lens.width - 1, lens.height - 1))
    return np.asarray(inside.all(axis=-1))


def _pinhole(
    lens: LensModel, size: tuple[int, int], fx: float, fy: float, cx: float, cy: float
) -> BrownConrady:
    return BrownConrady(width=size[0], height=size[1], fx=fx, fy=fy, cx=cx, cy=cy, provenance=lens.provenance)


def _places(lens: LensModel, turn: Float, tangents: Float) -> Float:
    """Pixels (..., 2) of points (..., 2) of the new view's plane at distance 1."""
    return lens.project(np.concatenate([tangents, np.ones_like(tangents[..., :1])], axis=-1) @ turn)


def _outline(lens: LensModel, turn: Float) -> tuple[Float, Float, bool]:
    """A place inside, and the rim (n, 2) of what is seen, in the plane at distance 1; whether that is all."""
    right, bottom = lens.width - 1.0, lens.height - 1.0
    axis = lens.unproject([right / 2, bottom / 2]) @ turn.T
    centre = axis[:2] / axis[2]
    if not (axis[2] > 0 and np.hypot(*centre) < _WIDEST):
        raise ValueError("the view does not look where the middle of the camera's image does")
    angle = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    ways = np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    def inside(reach: Float) -> NDArray[np.bool_]:
        at = centre + reach[..., None] * ways
        ahead = np.hypot(at[..., 0], at[..., 1]) <= _WIDEST
        return np.asarray(seen(lens, _places(lens, turn, at)) & ahead)

    reach = np.linspace(0, 2 * _WIDEST, _STEPS + 1)[:, None]
    first = np.argmin(inside(np.broadcast_to(reach, (_STEPS + 1, _DIRECTIONS))), axis=0)
    high, low = reach[first, 0], reach[np.maximum(first - 1, 0), 0]
    for _ in range(40):
        middle = (low + high) / 2
        good = inside(middle)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    rim = centre + low[:, None] * ways
    whole = bool(np.hypot(rim[:, 0], rim[:, 1]).max() < 0.9999 * _WIDEST)
    # The corners of the image fall between the ways.
    along = np.linspace(0, 1, _ON_A_SIDE)
    sides = [(along, 0 * along), (along, 0 * along + 1), (0 * along, along), (0 * along + 1, along)]
    border = np.concatenate([np.stack([x * right, y * bottom], axis=-1) for x, y in sides])
    rays = lens.unproject(border) @ turn.T
    rays = rays[np.isfinite(rays).all(axis=-1)]
    ahead = rays[:, 2] > np.hypot(rays[:, 0], rays[:, 1]) / _WIDEST
    tangents = rays[ahead, :2] / rays[ahead, 2:]
    return centre, np.concatenate([rim, tangents]), whole and bool(ahead.all())


def _inscribed(centre: Float, outline: Float, half: Float) -> tuple[Float, float]:
    """Middle and scale of the largest rectangle of sides 2 half that holds no point of the outline."""

    def free(at: Float) -> Float:
        return np.asarray((np.abs(outline - at[:, None]) / half).max(axis=-1).min(axis=-1))

    around = np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)], np.float64)
    scale = float(free(centre[None])[0])
    step = 0.5 * scale
    for _ in range(200):
        tried = centre + step * half * around
        reached = free(tried)
        best = int(np.argmax(reached))
        if reached[best] > scale * (1 + 1e-12):
            centre, scale = tried[best], float(reached[best])
        else:
            step /= 2
            if step < 1e-7 * scale:
                break
    return centre, scale


def _filled(lens: LensModel, turn: Float, centre: Float, half: Float, scale: float) -> float:
    """Largest scale, near the one given, at which all of a rectangle's rim is seen."""
    along = np.linspace(-1, 1, 2001)
    one = np.ones_like(along)
    rim = half * np.concatenate(
        [np.stack(pair, axis=-1) for pair in ((along, one), (along, -one), (one, along), (-one, along))]
    )
    low, high = 0.0, 1.02 * scale
    for _ in range(50):
        middle = (low + high) / 2
        at = centre + middle * rim
        good = seen(lens, _places(lens, turn, at)) & (np.hypot(at[:, 0], at[:, 1]) <= _WIDEST)
        low, high = (middle, high) if good.all() else (low, middle)
    if low < 0.01 * scale:
        raise ValueError("no view of which every pixel was seen: the lens model images too little")
    # What float32 coordinates and the pixels between the places tried can be off by.
    return low * (1 - 1e-6)
