"""Highlights of lights in mirror spheres, located at sub-pixel accuracy with their flux."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.spheres import SphereView


class Highlights(NamedTuple):
    """What is seen in every sphere under every light: up to k bright spots, strongest first.

    Attributes
    ----------
    pixels : ndarray, (n lights, s spheres, k, 2)
        Positions, px; NaN where there is none.
    sigma_px : ndarray, (n, s, k)
        Standard deviation along each axis.
    flux : ndarray, (n, s, k)
        Sum of radiance over the spot above its surroundings, radiance times px^2.
    flux_sigma : ndarray, (n, s, k)
    saturated : ndarray, (n, s, k), bool
        Some of the spot's pixels were missing; its flux is then extrapolated.
    """

    pixels: Float
    sigma_px: Float
    flux: Float
    flux_sigma: Float
    saturated: NDArray[np.bool_]

    def select(self, lights: NDArray[np.bool_]) -> "Highlights":
        """Those of some lights (n,)."""
        return Highlights(
            self.pixels[lights],
            self.sigma_px[lights],
            self.flux[lights],
            self.flux_sigma[lights],
            self.saturated[lights],
        )


class _Spot(NamedTuple):
    x: float
    y: float
    sigma: float
    flux: float
    flux_sigma: float
    saturated: bool


_GAUSS_LIMIT_PX = 5.0
"""Spots with a larger half-maximum radius are no image of a point source: their centroid is taken."""


def locate_highlights(
    images: Sequence[NDArray[np.floating]], spheres: Sequence[SphereView], *, candidates: int = 3
) -> Highlights:
    """Find the bright compact spots inside each sphere in each image.

    A point-like spot is fitted with a tilted Gaussian on a sloping background, saturated pixels left out; a
    large one (a lamp with glare) by the middle of its body, streaks cut off. What does not change from light
    to light (the room, a board) is subtracted first as the median over the other lights.

    Parameters
    ----------
    images : sequence of ndarray, (h, w)
        Radiance, one image a light; NaN where saturated. At least one.
    spheres : sequence of SphereView
        Where to look.
    candidates : int
        Spots kept per light and sphere; the fit of the lights tells which one is the light.

    Returns
    -------
    Highlights
    """
    n, s = len(images), len(spheres)
    shape = (n, s, candidates)
    result = Highlights(
        np.full((*shape, 2), np.nan),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.zeros(shape, bool),
    )
    h, w = images[0].shape
    boxes = []
    for sphere in spheres:
        low = np.maximum(np.floor(sphere.centre_px - sphere.radius_px), 0).astype(int)
        high = np.minimum(np.ceil(sphere.centre_px + sphere.radius_px) + 1, [w, h]).astype(int)
        boxes.append((*low, *high))
    crops: list[list[NDArray[np.float32]]] = [[] for _ in boxes]
    for image in images:
        for crop, (x0, y0, x1, y1) in zip(crops, boxes, strict=True):
            crop.append(np.array(image[y0:y1, x0:x1], np.float32))
    for j, (sphere, crop, (x0, y0, _, _)) in enumerate(zip(spheres, crops, boxes, strict=True)):
        stack = np.stack(crop)
        rows, columns = np.mgrid[: stack.shape[1], : stack.shape[2]]
        away = np.hypot(columns + x0 - sphere.centre_px[0], rows + y0 - sphere.centre_px[1])
        # Close to the outline the mirror compresses half the room into a few pixels.
        disc = away < 0.97 * sphere.radius_px - 1
        filled = np.array(stack)
        for layer in filled:
            top = float(np.nanmax(layer)) if np.isfinite(layer).any() else 1.0
            layer[~np.isfinite(layer)] = top
        ordered = np.sort(filled, axis=0) if n >= 5 else None
        for i in range(n):
            steady = _median_of_others(ordered, filled[i]) if ordered is not None else np.float32(0)
            spots = _spots(stack[i] - steady, filled[i] - steady, disc, 0.01 * sphere.radius_px, candidates)
            for k, spot in enumerate(spots):
                result.pixels[i, j, k] = spot.x + x0, spot.y + y0
                result.sigma_px[i, j, k] = spot.sigma
                result.flux[i, j, k], result.flux_sigma[i, j, k] = spot.flux, spot.flux_sigma
                result.saturated[i, j, k] = spot.saturated
    return result


def _median_of_others(ordered: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median over the lights but one; with that one it would be too high where its highlight is."""
    m, odd = divmod(len(ordered), 2)
    if not odd:
        return np.asarray(np.where(own <= ordered[m - 1], ordered[m], ordered[m - 1]))
    low = np.where(own > ordered[m], ordered[m - 1], ordered[m])
    high = np.where(own < ordered[m], ordered[m + 1], ordered[m])
    pair = np.where(own == ordered[m], ordered[m - 1] + ordered[m + 1], low + high)
    return np.asarray(pair / 2, np.float32)


def _spots(
    raw: NDArray[np.float32], filled: NDArray[np.float32], disc: NDArray[np.bool_], scale: float, wanted: int
) -> list[_Spot]:
    sigma = max(scale, 0.8)
    smooth = cv2.GaussianBlur(filled, (0, 0), sigma)
    inside = smooth[disc]
    if inside.size == 0:
        return []
    middle = float(np.median(inside))
    noise = 1.4826 * float(np.median(np.abs(inside - middle))) + 1e-12
    width = 2 * int(np.ceil(3 * sigma)) + 1
    peaks = (smooth >= cv2.dilate(smooth, np.ones((width, width), np.uint8))) & disc
    y, x = np.nonzero(peaks)
    height = smooth[y, x] - middle
    # A lamp's mirror image outshines what else the ball reflects: a spot a twentieth as bright is no rival.
    good = (height > 8 * noise) & (height > 0.05 * height.max(initial=0.0))
    order = np.argsort(-height[good], kind="stable")[: 2 * wanted]
    spots: list[_Spot] = []
    for k in order:
        spot = _measure(raw, filled, disc, int(x[good][k]), int(y[good][k]), middle)
        if spot is None or any(np.hypot(spot.x - o.x, spot.y - o.y) < 2 * sigma for o in spots):
            continue
        spots.append(spot)
        if len(spots) == wanted:
            break
    return spots


def _measure(
    raw: NDArray[np.float32],
    filled: NDArray[np.float32],
    disc: NDArray[np.bool_],
    x: int,
    y: int,
    background: float,
) -> _Spot | None:
    h, w = raw.shape
    reach = 10
    while True:
        y0, y1, x0, x1 = max(y - reach, 0), min(y + reach + 1, h), max(x - reach, 0), min(x + reach + 1, w)
        patch = filled[y0:y1, x0:x1] - background
        top = float(patch[max(y - y0 - 1, 0) : y - y0 + 2, max(x - x0 - 1, 0) : x - x0 + 2].max())
        _, labels = cv2.connectedComponents((patch > 0.5 * top).astype(np.uint8), connectivity=4)
        label = labels[y - y0, x - x0]
        blob = (labels == label) & (labels > 0) & disc[y0:y1, x0:x1]
        touches = blob[0].any() or blob[-1].any() or blob[:, 0].any() or blob[:, -1].any()
        if not touches or reach > max(h, w) / 2:
            break
        reach *= 2
    if not blob.any():
        return None
    radius = float(np.sqrt(blob.sum() / np.pi))
    if radius <= _GAUSS_LIMIT_PX:
        return _gaussian(raw, disc, x, y, radius, background)
    hidden = ~np.isfinite(raw[y0:y1, x0:x1]) & disc[y0:y1, x0:x1]
    around = patch[~blob & disc[y0:y1, x0:x1]]
    floor = float(np.median(around)) if around.size else 0.0
    return _lamp(patch / top, blob, hidden, (x0, y0), float(np.sum(patch[blob] - floor)))


def _lamp(
    patch: NDArray[np.float32],
    blob: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
    corner: tuple[int, int],
    flux: float,
) -> _Spot:
    """A spot of some size: the middle of its body, without the streaks that scratches draw from it.

    Glare reaches further to one side than to the other, so of a saturated spot the saturated part counts,
    else the brighter half, weighted; of both what a disc of half the largest inscribed radius can sweep.
    """
    saturated = bool((hidden & blob).any())
    core = blob
    if saturated:
        _, labels = cv2.connectedComponents(hidden.astype(np.uint8), connectivity=4)
        core = labels == int(np.bincount(labels[hidden & blob]).argmax())
    # Beyond the window there is no lamp: its border is the lamp's too.
    depth = _distance(np.pad(core, 1))[1:-1, 1:-1]
    inscribed = float(depth.max())
    kept = depth > 0.5 * inscribed
    # A pixel more, lest the grid cuts corners off a round lamp.
    body = core & (_distance(~kept) <= 0.5 * inscribed + 1)
    # Pixels at the border are covered in part.
    rim = cv2.dilate(body.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~core
    level = np.clip(np.where(hidden, 1.0, patch) - 0.5, 0.0, 0.5)
    weight = np.where(body | rim, level, 0.0)
    weight /= weight.sum()
    rows, columns = np.indices(weight.shape)
    # Of a disc nothing; what glare, shadow or streaks add to the shape is not known better than that.
    radius = float(np.sqrt(core.sum() / np.pi))
    ragged = 1 - min(inscribed / radius, 1.0) ** 2
    return _Spot(
        float(np.sum(weight * columns)) + corner[0],
        float(np.sum(weight * rows)) + corner[1],
        float(np.hypot(0.04, 0.25 * ragged * radius)),
        flux,
        0.3 * abs(flux),
        saturated,
    )


def _distance(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of each pixel inside to the nearest one that is not."""
    return np.asarray(
        cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32
    )


_SMALL_PX = 2.5
"""Spots with a smaller half-maximum radius change within a pixel."""
_GRID = 5
_SHARPEST_PX, _SHARPEST_SAMPLED_PX = 0.15, 0.38
"""Below, a spot's width says nothing more: the grid would show, and samples would miss the spot."""


def _gaussian(
    raw: NDArray[np.float32], disc: NDArray[np.bool_], x: int, y: int, radius: float, background: float
) -> _Spot | None:
    """Fit of a tilted Gaussian on a plane; NaN pixels carry no weight.

    A pixel of a camera integrates: a sharp highlight fills one or two, and the Gaussian is summed over a grid
    of points in each. A renderer's filter may sample instead: this is taken where it clearly fits better.
    """
    h, w = raw.shape
    reach = int(np.ceil(2.5 * radius)) + 3
    y0, y1, x0, x1 = max(y - reach, 0), min(y + reach + 1, h), max(x - reach, 0), min(x + reach + 1, w)
    patch = raw[y0:y1, x0:x1].astype(np.float64)
    use = np.isfinite(patch) & disc[y0:y1, x0:x1]
    saturated = bool((~np.isfinite(patch) & disc[y0:y1, x0:x1]).any())
    if use.sum() < 20:
        return None
    rows, columns = np.nonzero(use)
    places = np.stack([columns + (x0 - x), rows + (y0 - y)], axis=-1).astype(np.float64)
    spread = max(radius / 1.18, 0.6)
    fit = _fit_bump(places, patch[use], spread, reach, 1)
    if radius < _SMALL_PX:
        whole = _fit_bump(places, patch[use], spread, reach, _GRID)
        # Odds of e^5 for equal parameters and unknown noise.
        if whole is not None and (fit is None or len(places) * np.log(whole.cost / fit.cost) < 10):
            fit = whole
    if fit is None:
        return None
    determinant = fit.sharpness[0] * fit.sharpness[2] - fit.sharpness[1] ** 2
    top = float(patch[use].max()) - background
    if determinant <= 0 or np.hypot(*fit.place) > radius + 2 or not fit.height > 0.3 * top:
        return None
    variance = fit.cost / max(len(places) - 9, 1)
    covariance = np.linalg.pinv(fit.hessian) * variance
    sigma = float(np.sqrt(0.5 * (covariance[0, 0] + covariance[1, 1])))
    # Much smaller than a pixel, a spot looks alike wherever in the pixel it is (renderings without blur).
    width = determinant**-0.25
    sigma = float(np.hypot(sigma, 0.2 * (max(0.25 - width, 0.0) / 0.1) ** 2))
    # The model's volume: the sum of the pixels themselves would collect the noise of the whole window.
    flux = float(fit.height * 2 * np.pi / np.sqrt(determinant))
    area = 4 * np.pi / np.sqrt(determinant)
    flux_sigma = float(np.sqrt(variance * area)) + (0.2 * flux if saturated else 0.0)
    return _Spot(x + fit.place[0], y + fit.place[1], max(sigma, 0.01), flux, flux_sigma, saturated)


class _Bump(NamedTuple):
    place: tuple[float, float]
    sharpness: tuple[float, float, float]
    """Inverse covariance xx, xy, yy."""
    height: float
    cost: float
    hessian: Float


def _fit_bump(places: Float, data: Float, spread: float, reach: int, points: int) -> _Bump | None:
    """Gauss-Newton on place and inverse covariance; height and plane are linear in the data."""
    grid = (np.arange(points) + 0.5) / points - 0.5
    sharpest = (_SHARPEST_PX if points > 1 else _SHARPEST_SAMPLED_PX) ** -2
    u, v = places.T
    fine_u = u[:, None] + np.repeat(grid, points)
    fine_v = v[:, None] + np.tile(grid, points)
    p = np.array([0.0, 0.0, 1 / spread**2, 0.0, 1 / spread**2])
    damping, previous = 1e-3, np.inf
    keep = p
    for _ in range(40):
        cost = np.inf
        # Only an ellipse is a spot: beyond, the exponential overflows.
        ellipse = min(p[2], p[4]) > 1e-3 and p[2] * p[4] - p[3] ** 2 > 1e-6
        if ellipse and max(p[2], p[4]) < sharpest and np.hypot(p[0], p[1]) <= reach:
            dx, dy = fine_u - p[0], fine_v - p[1]
            fine = np.exp(-0.5 * (p[2] * dx * dx + 2 * p[3] * dx * dy + p[4] * dy * dy)) / points**2
            linear = np.stack([fine.sum(axis=1), np.ones_like(u), u, v], axis=-1)
            coefficients = np.linalg.lstsq(linear, data, rcond=None)[0]
            if coefficients[0] > 0:
                residual = data - linear @ coefficients
                cost = float(residual @ residual)
        if not np.isfinite(min(cost, previous)):
            return None
        if cost > previous * (1 + 1e-12):
            damping *= 10
            if damping > 1e6:
                break
        else:
            improved = previous - cost
            keep, previous, damping = p, cost, max(damping / 10, 1e-9)
            bump = coefficients[0] * fine
            motion = (p[2] * dx + p[3] * dy, p[3] * dx + p[4] * dy, -0.5 * dx * dx, -dx * dy, -0.5 * dy * dy)
            by = np.stack([np.sum(bump * m, axis=1) for m in motion], axis=-1)
            jacobian = np.concatenate([by, linear], axis=-1)
            hessian, gradient = jacobian.T @ jacobian, jacobian.T @ residual
            height = float(coefficients[0])
            if improved < 1e-10 * cost:
                break
        p = keep + np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)[:5]
    x, y, xx, xy, yy = (float(k) for k in keep)
    return _Bump((x, y), (xx, xy, yy), height, previous, hessian)
