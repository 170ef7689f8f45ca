"""Sub-pixel position of checkerboard corners: where the edges are steepest, by a fit to the grey values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from calibration.geometry import Float

_REACH_PX = 9  # beyond it lens distortion bends the edges, and little is gained
_STEPS = 12
_CENTRING = 12
_STILL_PX = 1e-5  # a step this short is the last
_SETTLED_PX = 0.01
MAX_SHIFT_PX = 2.5
_BLUR_PX = (0.2, 4.0)
_LEAST_CONTRAST = 2.0  # half the step from black to white over the scatter about the fit
_FLAT = 1e-3  # half the step from black to white over the level, below which there is none
_BLURS = [4, 9]  # their logarithms' places among the parameters
_MOST_SHARED = 6.0  # variance over that of independent noise
_LAGS = 3  # px over which noise is taken to be shared


class Refined(NamedTuple):
    """Corners after the fit.

    Attributes
    ----------
    pixels : ndarray (n, 2)
        Their positions.
    sigma_px : ndarray (n,)
        Standard deviation of a coordinate, from the scatter of the grey values about the fit.
    good : ndarray (n,) bool
        Which fits are to be believed.
    bright_diagonal : ndarray (n,) bool
        Whether the quadrants between +x and +y and between -x and -y of the board are the bright ones.
    normals : ndarray (n, 2, 2)
        Unit normals of the two edges, the first along the board's y.
    blur_px : ndarray (n, 2)
        Standard deviation of the blur along them.
    """

    pixels: Float
    sigma_px: Float
    good: NDArray[np.bool_]
    bright_diagonal: NDArray[np.bool_]
    normals: Float
    blur_px: Float


def refine_corners(
    image: NDArray[np.float32],
    pixels: Float,
    axes_px: Float,
    clear: float,
    bend_px: Float | None = None,
) -> Refined:
    """Fit the blurred crossing of two edges around each corner.

    The model is ``(m + b erf(n1.d / s1) erf(n2.d / s2)) (1 + g.d)``: two edges under free angles, straight or
    bent as told, a Gaussian blur across each, and a shading that is linear over the window. Unbent it is
    symmetric about the corner, so what it leaves out (the exact blur of a skew crossing, a clipped white)
    does not move the centre. The sigma counts noise that neighbouring pixels share (demosaicing, JPEG) by
    the correlation of the residuals over all windows.

    A lens with coma blurs to one side more than to the other, and each way to fit a symmetric edge to such
    a one has its own idea of the middle. The corner here is where the gradient's energy has its centre, as
    for every finder that works on gradients (Förstner and Gülch 1987; ``cv2.cornerSubPix``), whose
    corners published calibrations rest on. So the place does not solve the normal equations but
    those with the instrument ``(1 - 2 t^2) exp(-t^2)`` in place of the slope ``exp(-t^2)``, t being the
    distance from an edge over its blur: its integral is nought, a veil over one side does not draw it.
    The price is a sigma 1.3 times that of least squares under a symmetric blur.

    Parameters
    ----------
    image : ndarray (h, w), float32
        Grey values, preferably linear; NaN is left out.
    pixels : ndarray (n, 2)
        First guess, within about 2 px.
    axes_px : ndarray (n, 2, 2)
        Image of a square's sides: ``axes_px[i, :, 0]`` along the board's x, ``[i, :, 1]`` along y, px.
    clear : float
        What lies further than this part of a side from BOTH edges is left out (ArUco markers); 1 keeps all.
    bend_px : ndarray (n, 2, 2), optional
        Second derivatives of the image along the board's x, ``[i, :, 0]``, and y, px per square of a side:
        distortion and perspective. Unbent without it.

    Returns
    -------
    Refined
    """
    # Twice, so that the windows follow from the corner and not from the first guess.
    sides = np.sum(axes_px**2, axis=1, keepdims=True)
    # Along the edges: the first runs along the board's y.
    bend = np.zeros_like(axes_px) if bend_px is None else (bend_px / sides)[:, :, ::-1]
    first = _fit(image, pixels, axes_px, clear, bend)
    start = np.where(first.good[:, None], first.pixels, pixels)
    second = _fit(image, start, axes_px, clear, bend)
    near = np.linalg.norm(second.pixels - pixels, axis=1) < MAX_SHIFT_PX
    return second._replace(good=second.good & near)


def _fit(image: NDArray[np.float32], pixels: Float, axes_px: Float, clear: float, bend: Float) -> Refined:
    grey, weight, base, offset = _windows(image, pixels, axes_px, clear)
    count = weight.sum(axis=1)
    scale = np.sqrt(np.maximum((weight * grey**2).sum(axis=1), 1e-30) / np.maximum(count, 1))
    grey = grey / scale[:, None]
    p = _first_guess(grey, weight, offset, pixels - base, axes_px, bend)
    damping = np.full(len(p), 1e-3)
    model, jacobian, _ = _model(p, offset, bend)
    cost = (weight * (grey - model) ** 2).sum(axis=1)
    diagonal = np.arange(p.shape[1])
    moving = np.arange(len(p))
    for _ in range(_STEPS):
        slopes = jacobian[moving]
        weighted = slopes * weight[moving, None]
        normal = weighted @ slopes.mT
        normal[:, diagonal, diagonal] *= 1 + damping[moving, None]
        normal[:, diagonal, diagonal] += 1e-12
        step = np.linalg.solve(normal, weighted @ (grey - model)[moving, :, None])[..., 0]
        trial = p[moving] + np.clip(step, -1.0, 1.0)
        # An edge that falls between two pixels has no measurable blur.
        trial[:, _BLURS] = np.clip(trial[:, _BLURS], *np.log(_BLUR_PX))
        trial_model, trial_jacobian, _ = _model(trial, offset, bend[moving])
        trial_cost = (weight[moving] * (grey[moving] - trial_model) ** 2).sum(axis=1)
        better = trial_cost <= cost[moving]
        taken = moving[better]
        p[taken], cost[taken] = trial[better], trial_cost[better]
        model[taken], jacobian[taken] = trial_model[better], trial_jacobian[better]
        damping[moving] = np.clip(damping[moving] * np.where(better, 0.1, 10), 1e-9, 1e6)
        moving = moving[np.abs(step[:, :2]).max(axis=1) >= _STILL_PX]
        if not len(moving):
            break
    last = np.zeros(len(p))
    moving = np.arange(len(p))
    for _ in range(_CENTRING):
        model, instruments, normal = _centring(p[moving], weight[moving], offset, bend[moving])
        step = np.linalg.solve(normal, instruments @ (grey[moving] - model)[..., None])[..., 0]
        last[moving] = np.abs(step[:, :2]).max(axis=1)
        p[moving] += np.clip(step, -0.5, 0.5)
        p[:, _BLURS] = np.clip(p[:, _BLURS], *np.log(_BLUR_PX))
        moving = moving[last[moving] >= _STILL_PX]
        if not len(moving):
            break
    model, instruments, normal = _centring(p, weight, offset, bend)
    cost = (weight * (grey - model) ** 2).sum(axis=1)
    freedom = np.maximum(count - p.shape[1], 1)
    position = np.linalg.inv(normal)[:, :2] @ instruments
    gain = _shared_noise(np.where(weight > 0, grey - model, 0.0), weight, position)
    sigma = np.sqrt(np.sum(position**2, axis=(1, 2)) / 2 * gain * cost / freedom)
    refined = base + p[:, :2]
    blur = np.exp(p[:, _BLURS])
    normals = np.stack([np.cos(p[:, 2:4]), np.sin(p[:, 2:4])], axis=2)
    good = (
        (np.linalg.norm(refined - pixels, axis=1) < MAX_SHIFT_PX)
        & (count > 4 * p.shape[1])
        & np.all(blur < 0.99 * _BLUR_PX[1], axis=1)
        & (sigma < 0.5)
        & (last < _SETTLED_PX)
        # A plane without noise has neither contrast nor scatter.
        & (p[:, 6] ** 2 > np.maximum((_LEAST_CONTRAST**2) * cost / freedom, _FLAT**2))
    )
    # The guess at the edges' normals points to -x and +y, so a positive contrast is a dark diagonal.
    return Refined(refined, sigma, np.asarray(good), p[:, 6] < 0, normals, blur)


def _centring(p: Float, weight: Float, offset: Float, bend: Float) -> tuple[Float, Float, Float]:
    """Grey values (n, k), the parameters' instruments (n, 10, k) and the matrix of their equations."""
    model, jacobian, by_place = _model(p, offset, bend)
    instruments = np.concatenate([by_place, jacobian[:, 2:]], axis=1) * weight[:, None]
    normal = instruments @ jacobian.mT
    diagonal = np.arange(p.shape[1])
    normal[:, diagonal, diagonal] += 1e-12
    return model, instruments, normal


def _shared_noise(residual: Float, weight: Float, position: Float) -> Float:
    """Variance of the positions over that under independent noise, (n,).

    ``position`` (n, 2, k): what a unit of each pixel's noise moves. The correlation is the mean over all
    windows; what a single one shows is mostly chance.
    """
    side = 2 * _REACH_PX + 1
    r, w = residual.reshape(-1, side, side), weight.reshape(-1, side, side)
    lines = position.reshape(len(position), 2, side, side)
    power = max(float(np.sum(r * r) / max(float(np.sum(w)), 1.0)), 1e-30)
    total = np.sum(lines**2, axis=(1, 2, 3))
    gain = np.ones(len(r))
    for dy in range(_LAGS + 1):
        for dx in range(-_LAGS if dy else 1, _LAGS + 1):
            a = np.s_[..., : side - dy, max(-dx, 0) : side - max(dx, 0)]
            b = np.s_[..., dy:, max(dx, 0) : side + min(dx, 0)]
            pairs = float(np.sum(w[a] * w[b]))
            correlation = float(np.sum(r[a] * r[b])) / max(pairs, 1.0) / power
            gain += 2 * correlation * np.sum(lines[a] * lines[b], axis=(1, 2, 3)) / np.maximum(total, 1e-30)
    # Of a picture without blur the model leaves a pattern that is no noise.
    return np.clip(gain, 1.0, _MOST_SHARED)


def _windows(
    image: NDArray[np.float32], pixels: Float, axes_px: Float, clear: float
) -> tuple[Float, Float, Float, Float]:
    """Grey values (n, k), weights (n, k), integer centres (n, 2) and offsets (k, 2) of square windows."""
    steps = np.arange(-_REACH_PX, _REACH_PX + 1)
    offset = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    base = np.rint(pixels)
    at = base[:, None, :].astype(np.int64) + offset
    height, width = image.shape
    inside = (at[..., 0] >= 0) & (at[..., 0] < width) & (at[..., 1] >= 0) & (at[..., 1] < height)
    grey = image[np.clip(at[..., 1], 0, height - 1), np.clip(at[..., 0], 0, width - 1)].astype(np.float64)
    usable = inside & np.isfinite(grey)
    # In units of the square's sides: the next edges must stay out, and so must the markers. Both
    # limits shrink by two pixels of blur.
    relative = np.abs(
        np.einsum("nab,nkb->nka", np.linalg.inv(axes_px), base[:, None] + offset - pixels[:, None])
    )
    blur = 2.0 / np.linalg.norm(axes_px, axis=1)[:, None, :]
    usable &= np.all(relative < np.maximum(1.0 - blur, 0.5), axis=2)
    usable &= ~np.all(relative > np.maximum(clear - blur, 0.3 * clear), axis=2)
    return np.where(usable, grey, 0.0), usable.astype(np.float64), base, offset.astype(np.float64)


def _first_guess(
    grey: Float, weight: Float, offset: Float, centre: Float, axes_px: Float, bend: Float
) -> Float:
    # Edge 1 runs along the board's y (its normal is across it), edge 2 along x.
    angles = [np.arctan2(axes_px[:, 0, k], -axes_px[:, 1, k]) for k in (1, 0)]
    p = np.zeros((len(grey), 10))
    p[:, :2], p[:, 2], p[:, 3], p[:, 4], p[:, 9], p[:, 6] = (
        centre, angles[0], angles[1], np.log(0.8), np.log(0.8), 1.0,
    )  # fmt: skip
    shape, _, _ = _model(p, offset, bend)
    total = np.maximum(weight.sum(axis=1), 1)
    mean_shape, mean_grey = (weight * shape).sum(axis=1) / total, (weight * grey).sum(axis=1) / total
    d = weight * (shape - mean_shape[:, None])
    p[:, 6] = (d * grey).sum(axis=1) / np.maximum((d * shape).sum(axis=1), 1e-9)
    p[:, 5] = mean_grey - p[:, 6] * mean_shape
    return p


def _model(p: Float, offset: Float, bend: Float) -> tuple[Float, Float, Float]:
    """Grey values (n, k), derivatives (n, 10, k), and the place's instruments (n, 2, k).

    ``bend`` (n, 2, 2): curvature vector of each edge, 1/px.
    """
    dx, dy = offset[:, 0] - p[:, 0, None], offset[:, 1] - p[:, 1, None]
    edges, slopes, turns, normals, hats = [], [], [], [], []
    for k, at in zip((2, 3), _BLURS, strict=True):
        blur = np.sqrt(2) * np.exp(p[:, at])[:, None]
        c, s = np.cos(p[:, k])[:, None], np.sin(p[:, k])[:, None]
        across, along = c * dx + s * dy, c * dy - s * dx
        curve = c * bend[:, 0, k - 2, None] + s * bend[:, 1, k - 2, None]
        lean = curve * along
        t = (across - lean * along / 2) / blur
        edges.append(erf(t))
        slopes.append(2 / np.sqrt(np.pi) * np.exp(-t * t))
        hats.append(1 - 2 * t * t)
        turns.append(along * (1 + curve * across) / blur)
        normals.append(((c + lean * s) / blur, (s - lean * c) / blur, t))
    crossing = edges[0] * edges[1]
    shading = 1 + (p[:, 7, None] * dx + p[:, 8, None] * dy) / _REACH_PX
    level = p[:, 5, None] + p[:, 6, None] * crossing
    contrast = p[:, 6, None] * shading
    d0, d1 = contrast * slopes[0] * edges[1], contrast * slopes[1] * edges[0]
    jacobian = np.stack(
        [
            -d0 * normals[0][0] - d1 * normals[1][0] - level * p[:, 7, None] / _REACH_PX,
            -d0 * normals[0][1] - d1 * normals[1][1] - level * p[:, 8, None] / _REACH_PX,
            d0 * turns[0],
            d1 * turns[1],
            -d0 * normals[0][2],
            shading,
            shading * crossing,
            level * dx / _REACH_PX,
            level * dy / _REACH_PX,
            -d1 * normals[1][2],
        ],
        axis=1,
    )
    h0, h1 = d0 * hats[0], d1 * hats[1]
    by_place = np.stack([-h0 * normals[0][axis] - h1 * normals[1][axis] for axis in (0, 1)], axis=1)
    return level * shading, jacobian, by_place
