"""Spheres from what somebody marked: a circle or a mask."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.outline import SphereView, circle, fit_points

# How far, in radii, a pixel is clearly outside or, divided by it, inside, whatever the perspective; the share
# of the mask that may be outside, and the one inside below which it marks all but the sphere.
_AROUND = 1.15
_MOST_OUTSIDE, _INVERTED = 0.3, 0.1


def sphere_from_circle(
    centre_px: ArrayLike, radius_px: float, lens: LensModel | None, *, sigma_px: float = 0.5
) -> SphereView:
    """A sphere from a circle drawn by hand.

    Parameters
    ----------
    centre_px : array_like, (2,)
        Centre of the outline, px.
    radius_px : float
        Its radius.
    lens : LensModel or None
        None: orthographic.
    sigma_px : float
        How well the circle's centre and radius are known; becomes the covariance.
    """
    view = circle(np.asarray(centre_px, np.float64), radius_px, lens)
    scale = 1.0 if lens is None else view.angular_radius_rad / view.radius_px
    return view._replace(covariance=np.eye(3) * (sigma_px * scale) ** 2)


def sphere_from_mask(mask: NDArray[np.bool_], lens: LensModel | None) -> SphereView:
    """A sphere from the mask of its pixels: the outline is fitted to the mask's border.

    Parameters
    ----------
    mask : ndarray, (h, w)
        Non-zero on the sphere. Parts may be missing (a holder, the frame's border): the fit is robust.
    lens : LensModel or None
        None: orthographic.

    Raises
    ------
    FitError
        The mask is empty, fills the image, marks what is around the sphere or more than one, or its border is
        no sphere's outline.
    """
    marked = np.ascontiguousarray(np.asarray(mask) != 0)
    if not marked.any() or marked.all():
        raise FitError("the sphere's mask is empty or covers the whole image: mark the sphere's pixels")
    count, labels, stats, _ = cv2.connectedComponentsWithStats(marked.astype(np.uint8))
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 1 else 1
    inside = labels == largest
    borders = []
    for axis in (0, 1):
        # The border lies half-way between an inner and an outer pixel; the frame's own border is none.
        change = np.argwhere(np.diff(inside.astype(np.int8), axis=axis) != 0).astype(np.float64)
        change[:, axis] += 0.5
        borders.append(change[:, ::-1])
    pixels = np.concatenate(borders)
    start = circle(*_three_point_circle(pixels), lens)
    view = fit_points(pixels, start, lens)
    apart = np.linalg.norm(np.argwhere(marked)[:, ::-1] - np.asarray(view.centre_px), axis=1)
    if np.mean(apart < view.radius_px / _AROUND) < _INVERTED:
        raise FitError("the mask marks what is around the sphere, not the sphere: invert it")
    outside = float(np.mean(apart > _AROUND * view.radius_px))
    if outside > _MOST_OUTSIDE:
        raise FitError(
            f"{100 * outside:.0f} % of what the mask marks lies outside the outline of its largest part: "
            "mark one sphere a mask, and nothing else"
        )
    return view


def _three_point_circle(pixels: Float) -> tuple[Float, float]:
    """Circle with the most points on it, from random triples (fixed seed)."""
    rng = np.random.default_rng(0)
    if len(pixels) < 8:
        raise FitError("the sphere's mask has almost no border inside the image")
    a, b, c = pixels[rng.integers(len(pixels), size=(3, 400))]
    u, v = b - a, c - a
    det = 2 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        uu, vv = np.sum(u * u, axis=-1), np.sum(v * v, axis=-1)
        x = (v[:, 1] * uu - u[:, 1] * vv) / det
        y = (u[:, 0] * vv - v[:, 0] * uu) / det
    radius, centre = np.hypot(x, y), a + np.stack([x, y], axis=-1)
    sample = pixels[rng.permutation(len(pixels))[:2000]]
    with np.errstate(invalid="ignore"):
        off = np.abs(np.linalg.norm(sample[None] - centre[:, None], axis=-1) - radius[:, None])
        votes = np.sum(off < 1.0, axis=1)
    best = int(np.argmax(votes))
    return centre[best], float(radius[best])
