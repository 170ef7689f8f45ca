"""Sub-pixel centroid of dark discs, as a least-squares fit of a blurred ellipse to the pixels."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from calibration.geometry import Float

_REACH = 1.55  # of the longer half axis: how much round an ellipse is looked at
_RADIUS_PX = 12.0  # larger ones are fitted on a picture reduced to it: little is gained beyond
_STEPS = 25
_LEAST_CONTRAST = 2.0
_LARGEST_WINDOW = 31
_DELTAS = np.array([1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4])


class Discs(NamedTuple):
    """Ellipses after the fit.

    Attributes
    ----------
    pixels : ndarray (n, 2)
        Centroids of their areas.
    sigma_px : ndarray (n,)
        Standard deviation of a coordinate, from the scatter of the grey values about the fit.
    good : ndarray (n,) bool
        Which fits are to be believed.
    shape : ndarray (n, 2, 2)
        Lower triangle L with L L^T the ellipse's covariance times 4: the unit circle's image.
    blur_px : ndarray (n,)
        Standard deviation of the blur.
    """

    pixels: Float
    sigma_px: Float
    good: NDArray[np.bool_]
    shape: Float
    blur_px: Float


def refine_discs(image: NDArray[np.float32], pixels: Float, shape: Float) -> Discs:
    """Fit a blurred ellipse on shaded ground to each disc.

    The image of a disc under perspective is an ellipse whose centre is the centroid of its area (not the
    image of the disc's centre). Blur that is symmetric does not move it; a saturated white does, where the
    blur is wider than a pixel or so: use linear images that are not clipped.

    Parameters
    ----------
    image : ndarray (h, w), float32
        Grey values, linear; NaN is left out.
    pixels : ndarray (n, 2)
        First guess, within about a quarter of the radius.
    shape : ndarray (n, 2, 2)
        First guess of the unit circle's image, any square root of its ellipse.

    Returns
    -------
    Discs
    """
    radius = float(np.median(np.sqrt(np.abs(np.linalg.det(shape)))))
    factor = max(1, int(np.ceil(radius / _RADIUS_PX)))
    if factor > 1:
        height, width = (n // factor * factor for n in image.shape)
        size = (width // factor, height // factor)
        image = np.asarray(cv2.resize(image[:height, :width], size, interpolation=cv2.INTER_AREA), np.float32)
    start = (pixels + 0.5) / factor - 0.5
    found = _fit(image, start, shape / factor)
    off = np.linalg.norm(found.pixels - start, axis=1)
    size_px = np.sqrt(np.abs(np.linalg.det(found.shape)))
    return Discs(
        (found.pixels + 0.5) * factor - 0.5,
        found.sigma_px * factor,
        found.good & (off < 0.5 * size_px + 1),
        found.shape * factor,
        found.blur_px * factor,
    )


def _fit(image: NDArray[np.float32], pixels: Float, shape: Float) -> Discs:
    ellipse = np.linalg.cholesky(shape @ np.swapaxes(shape, 1, 2) + 1e-9 * np.eye(2))
    half = np.sqrt(np.linalg.eigvalsh(ellipse @ np.swapaxes(ellipse, 1, 2))[:, -1])
    reach = int(np.clip(np.ceil(_REACH * np.median(half) + 2), 4, _LARGEST_WINDOW))
    steps = np.arange(-reach, reach + 1)
    offset = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2).astype(np.float64)
    base = np.rint(pixels)
    at = (base[:, None] + offset).astype(np.int64)
    height, width = image.shape
    inside = np.all((at >= 0) & (at < (width, height)), axis=2)
    grey = image[np.clip(at[..., 1], 0, height - 1), np.clip(at[..., 0], 0, width - 1)].astype(np.float64)
    away = base[:, None] + offset - pixels[:, None]
    round_ = np.einsum("nab,nkb->nka", np.linalg.inv(ellipse), away)
    wide = 1 + np.maximum(_REACH - 1, 3.0 / np.maximum(half, 1.0))
    weight = (inside & np.isfinite(grey) & (np.linalg.norm(round_, axis=2) < wide[:, None])).astype(
        np.float64
    )
    grey = np.where(weight > 0, grey, 0.0)
    count = weight.sum(axis=1)
    scale = np.sqrt(np.maximum((weight * grey**2).sum(axis=1), 1e-30) / np.maximum(count, 1))
    grey = grey / scale[:, None]
    p = np.zeros((len(grey), 10))
    p[:, :2] = pixels - base
    p[:, 2], p[:, 3], p[:, 4] = np.log(ellipse[:, 0, 0]), ellipse[:, 1, 0], np.log(ellipse[:, 1, 1])
    p[:, 5] = np.log(0.8)
    within = weight * (np.linalg.norm(round_, axis=2) < 0.7)
    outside = weight * (np.linalg.norm(round_, axis=2) > 1.2)
    dark = (within * grey).sum(axis=1) / np.maximum(within.sum(axis=1), 1)
    light = (outside * grey).sum(axis=1) / np.maximum(outside.sum(axis=1), 1)
    p[:, 6], p[:, 7] = light, light - dark
    model = _model(p, offset, reach)
    cost = (weight * (grey - model) ** 2).sum(axis=1)
    damping = np.full(len(p), 1e-3)
    diagonal = np.arange(p.shape[1])
    for _ in range(_STEPS):
        jacobian = _derivatives(p, model, offset, reach)
        normal, gradient = _normal(jacobian, weight, grey - model)
        normal[:, diagonal, diagonal] *= 1 + damping[:, None]
        step = np.linalg.solve(normal, gradient[..., None])[..., 0]
        trial = p + np.clip(step, -1.0, 1.0)
        trial[:, 5] = np.clip(trial[:, 5], np.log(0.25), np.log(4.0))
        trial_model = _model(trial, offset, reach)
        trial_cost = (weight * (grey - trial_model) ** 2).sum(axis=1)
        better = (trial_cost <= cost)[:, None]
        p, model = np.where(better, trial, p), np.where(better, trial_model, model)
        cost = np.minimum(cost, trial_cost)
        damping = np.clip(np.where(better[:, 0], damping / 10, damping * 10), 1e-9, 1e6)
        if np.abs(step[:, :2]).max() < 1e-5:
            break
    normal, _ = _normal(_derivatives(p, model, offset, reach), weight, grey - model)
    freedom = np.maximum(count - p.shape[1], 1)
    covariance = np.linalg.inv(normal)[:, :2, :2] * (cost / freedom)[:, None, None]
    sigma = np.sqrt(np.maximum(np.trace(covariance, axis1=1, axis2=2) / 2, 0))
    good = (
        (count > 4 * p.shape[1])
        & (p[:, 5] < np.log(3.9))
        & (sigma < 0.5)
        & (p[:, 7] > _LEAST_CONTRAST * np.sqrt(cost / freedom))
        & (p[:, 7] > 0.1 * p[:, 6])
    )
    fitted = np.zeros((len(p), 2, 2))
    fitted[:, 0, 0], fitted[:, 1, 0], fitted[:, 1, 1] = np.exp(p[:, 2]), p[:, 3], np.exp(p[:, 4])
    return Discs(base + p[:, :2], sigma, np.asarray(good), fitted, np.exp(p[:, 5]))


def _normal(jacobian: Float, weight: Float, residual: Float) -> tuple[Float, Float]:
    weighted = jacobian * weight[..., None]
    normal = np.swapaxes(weighted, 1, 2) @ jacobian
    index = np.arange(normal.shape[1])
    normal[:, index, index] += 1e-12
    return normal, np.einsum("nka,nk->na", weighted, residual)


def _derivatives(p: Float, model: Float, offset: Float, reach: int) -> Float:
    columns = []
    for k, delta in enumerate(_DELTAS):
        ahead = p.copy()
        ahead[:, k] += delta
        columns.append((_model(ahead, offset, reach) - model) / delta)
    return np.stack(columns, axis=-1)


def _model(p: Float, offset: Float, reach: int) -> Float:
    """Grey values (n, k): light minus contrast within the ellipse, its border blurred, on linear shading."""
    dx, dy = offset[:, 0] - p[:, 0, None], offset[:, 1] - p[:, 1, None]
    a, b, c = np.exp(p[:, 2, None]), p[:, 3, None], np.exp(p[:, 4, None])
    u = dx / a
    v = (dy - b * u) / c
    r = np.sqrt(u * u + v * v) + 1e-9
    # First-order distance to the ellipse: (1 - r) over the gradient of r.
    gx, gy = (u / a - v * b / (a * c)) / r, (v / c) / r
    distance = (1 - r) / np.sqrt(gx * gx + gy * gy + 1e-18)
    blur = np.exp(p[:, 5, None])
    inside = 0.5 * (1 + erf(distance / (np.sqrt(2) * blur)))
    shading = 1 + (p[:, 8, None] * dx + p[:, 9, None] * dy) / reach
    return np.asarray((p[:, 6, None] - p[:, 7, None] * inside) * shading)
