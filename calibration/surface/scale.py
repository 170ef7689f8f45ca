"""How far a surface is, piece by piece: near lights triangulate what normals leave open."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calibration.geometry import Float, normalize
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Gloss, NormalMap

_PRIOR_SIGMA = 0.1
_GLOSS_ERROR = 0.3
_SCALE_PIXELS = 4000
_LEAST_PIXELS = 200
_LONGEST_STEP = 0.05
_MODEL_ERROR = 0.01
# A jump may be where a step between neighbours is this far (px) from what their normals say, or these differ
# by so much, or slant by more (cosine): optics smear the rim of what stands before the rest over some pixels.
_MISFIT = 0.5
_BEND = 1.0
_SLANT = 0.55
# Sigmas by which the lights contradict where a piece is joined to the surface before it is moved.
_CONTRADICTED = 3.0


class Placed(NamedTuple):
    """Depth (h, w) at the factor of its largest piece, one sigma of that factor's logarithm, and anchors.

    ``anchors_mm`` (h, w) is the depth that all pieces should have, NaN between them; None where they have it.
    ``influence`` (n,) is how each light's error moves the logarithm of the factor.
    """

    depth_mm: Float
    sigma: float
    anchors_mm: Float | None
    influence: Float


def place(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    rays: NDArray[np.float32],
    depth: NDArray[np.floating],
    before: Float,
    normals: NormalMap,
    prior: Float,
) -> Placed:
    """The distance of each piece of a surface that explains the samples best.

    Parameters
    ----------
    radiance, variance : ndarray (n, h, w) or (n, h, w, 3), float32
    rays : ndarray (h, w, 3)
        Lines of sight, z = 1.
    depth : ndarray (h, w)
        From integration, NaN where unknown; the factor of each piece may be anything.
    before : ndarray (h, w)
        Where the surface was taken to be so far: the normals were solved there.
    normals : NormalMap
    prior : ndarray (h, w)
        What is known of the depth without the lights, to 10 %.

    Notes
    -----
    A piece ends where a step contradicts the normals on both of its sides, or where these tell little of the
    step. It stays where the integration joined it, unless the lights contradict by three sigmas; what touches
    no other piece has its own distance anyway, and a piece of few pixels goes with its surroundings. One
    Gauss-Newton step on the residual of a Lambertian surface with the normals solved for.
    """
    labels = pieces(normals.normals, depth, rays)
    at = _sample(labels)
    if not len(at):
        return Placed(np.asarray(depth, np.float64), _PRIOR_SIGMA, None, np.zeros(len(lights)))
    held = _medians(np.log(before / depth), labels)
    moved = np.asarray(depth * np.exp(held[labels]))
    gradient, curvature, ok = _scale_terms(radiance, variance, lights, rays, moved, normals, at)
    part, away = labels.ravel()[at[ok]], np.log(moved / prior).ravel()[at[ok]]
    counts = np.bincount(part, minlength=len(held))
    judged = np.flatnonzero(counts >= _LEAST_PIXELS)
    if not len(judged):
        # All in crumbs: one factor for all.
        held[:] = np.median(held[part]) if len(part) else 0.0
        judged, part, labels = np.array([1]), np.ones_like(part), (labels > 0).astype(np.int32)
        if not len(part):
            return Placed(np.asarray(depth, np.float64), _PRIOR_SIGMA, None, np.zeros(len(lights)))
    judged = judged[np.argsort(-np.bincount(labels.ravel())[judged], kind="stable")]
    # The largest piece of what touches leads; the others are compared with it.
    body = cv2.connectedComponents(np.isfinite(depth).astype(np.uint8), connectivity=4)[1]
    leaders: dict[int, tuple[float, Float]] = {}
    factor = np.full(len(held), np.nan)
    largest: tuple[float, Float] | None = None
    contradicted = False
    for piece in judged:
        mine = part == piece
        step, sigma, influence = _posterior(gradient[mine], curvature[mine], float(np.median(away[mine])))
        largest = largest or (sigma, influence)
        own = held[piece] + step
        factor[piece], other = leaders.setdefault(int(body[labels == piece][0]), (own, influence))
        spread = np.sum((influence - other) ** 2) * len(other) / max(len(other) - 4, 1)
        if abs(own - factor[piece]) > _CONTRADICTED * np.sqrt(spread):
            factor[piece], contradicted = own, True
    common = np.full(int(body.max()) + 1, factor[judged[0]])
    for number, (leading, _) in leaders.items():
        common[number] = leading
    anchors = np.asarray(depth * np.exp(factor[labels])) if contradicted else None
    assert largest is not None
    return Placed(np.asarray(depth * np.exp(common[body])), largest[0], anchors, largest[1])


def _medians(values: Float, labels: NDArray[np.int32]) -> Float:
    """Median of the finite values of each label from 1; 0 where there is none."""
    out = np.zeros(int(labels.max()) + 1)
    known = (labels > 0) & np.isfinite(values)
    if known.any():
        there = np.unique(labels[known])
        out[there] = ndimage.median(values[known], labels[known], there)
    return out


def pieces(
    normals: NDArray[np.floating], depth: NDArray[np.floating], rays: NDArray[np.floating]
) -> NDArray[np.int32]:
    """Labels from 1 of the pieces of a surface between its possible jumps of depth; 0 where it is unknown."""
    h, w = depth.shape
    facing = -np.einsum("yxi,yxi->yx", normals, rays)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(depth) & (facing > _SLANT * np.linalg.norm(rays, axis=2))
    # Pixels on even rows and columns, the edges between them on the odd ones.
    grid = np.zeros((2 * h - 1, 2 * w - 1), np.uint8)
    grid[::2, ::2] = known
    grid[::2, 1::2] = _joined(normals, depth, rays, known, np.s_[:, :-1], np.s_[:, 1:])
    grid[1::2, ::2] = _joined(normals, depth, rays, known, np.s_[:-1], np.s_[1:])
    labels = cv2.connectedComponents(grid, connectivity=4)[1][::2, ::2]
    return np.asarray(np.where(known, labels, 0), np.int32)


def _joined(
    normals: NDArray[np.floating],
    depth: NDArray[np.floating],
    rays: NDArray[np.floating],
    known: NDArray[np.bool_],
    a: Any,
    b: Any,
) -> NDArray[np.bool_]:
    def dot(n: NDArray[np.floating], r: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.asarray(np.einsum("yxi,yxi->yx", n, r))

    with np.errstate(invalid="ignore", divide="ignore"):
        step = np.log(depth[b] / depth[a])
        one, other = (np.log(dot(normals[k], rays[a]) / dot(normals[k], rays[b])) for k in (a, b))
        pitch = np.linalg.norm(rays[b] - rays[a], axis=2)
        low, high = np.minimum(one, other), np.maximum(one, other)
        near = (step > low - _MISFIT * pitch) & (step < high + _MISFIT * pitch)
        return np.asarray(known[a] & known[b] & near & (high - low < _BEND * pitch))


def _sample(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Pixels to judge by: of each piece evenly drawn, of large ones fewer."""
    flat = labels.ravel()
    order = np.flatnonzero(flat)
    order = order[np.argsort(flat[order], kind="stable")]
    ends = np.searchsorted(flat[order], np.arange(1, flat.max() + 2))
    out = [
        order[i:j][:: max(1, (j - i) // _SCALE_PIXELS)] for i, j in pairwise(ends) if j - i >= _LEAST_PIXELS
    ]
    return np.concatenate(out) if out else order[:: max(1, len(order) // _SCALE_PIXELS)]


def _posterior(gradient: Float, curvature: Float, away: float) -> tuple[float, float, Float]:
    """Gauss-Newton step from terms (pixels, lights), its sigma, and how each light's error moves it.

    ``away`` is how far off the prior we are. The lights are the independent observations: the sums over
    pixels of each say how far they disagree.
    """
    g, c = gradient.sum(axis=0), curvature.sum(axis=0)
    lights, total = len(g), c.sum()
    wanted = -g.sum() / total
    influence = -(g + wanted * c) / total
    spread = np.sum(influence**2) * lights / max(lights - 4, 1)
    information = 1 / max(float(spread), 1e-12)
    posterior = information + 1 / _PRIOR_SIGMA**2
    step = (information * wanted - away / _PRIOR_SIGMA**2) / posterior
    return float(np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)), float(posterior**-0.5), influence


def _scale_terms(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    rays: NDArray[np.float32],
    depth: Float,
    normals: NormalMap,
    at: NDArray[np.intp],
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Gradient and curvature (pixels, lights) of the residual's square along the logarithm of the scale.

    Of the pixels ``at`` those where the third return is True.
    """
    points = (rays * depth[..., None]).reshape(-1, 3)[at]
    signal, noise = _gray(radiance, variance, lights, at)
    albedo = normals.albedo if normals.albedo.ndim == 2 else normals.albedo.mean(axis=2)
    guess = (normals.normals * albedo[..., None]).reshape(-1, 3)[at]

    shading = _shading(lights, points, 1.0)
    shine = _shine(normals, points, shading, at)
    signal = signal - shine
    fit = np.einsum("knc,kc->kn", shading, guess)
    usable = np.isfinite(signal) & np.isfinite(noise) & (fit > 0)
    signal, noise = np.where(usable, signal, 0.0), np.where(usable, noise, 1.0)
    s = np.sqrt(noise + (_MODEL_ERROR * fit.max(axis=1, keepdims=True)) ** 2 + (_GLOSS_ERROR * shine) ** 2)
    u = np.where(usable, np.abs(signal - fit) / s, np.inf)
    wide = np.maximum(1.0, 1.4826 * np.median(np.where(usable, u, 0.0), axis=1, keepdims=True))
    weight = np.clip(1 - (u / (4.685 * wide)) ** 2, 0, None) ** 2 / s**2
    ok = np.isfinite(guess).all(axis=1) & ((weight > 0).sum(axis=1) >= 5)
    signal, weight, points = signal[ok], weight[ok], points[ok]

    delta = 1e-3
    r = [_projected(signal, weight, _shading(lights, points, np.exp(e))) for e in (-delta, 0.0, delta)]
    slope = (r[2] - r[0]) / (2 * delta)
    return weight * slope * r[1], weight * slope**2, ok


def _gray(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    at: NDArray[np.intp],
) -> tuple[Float, Float]:
    """Samples (pixels, lights) and their variance for lights of unit intensity, channels averaged."""
    intensity = np.array(
        [np.broadcast_to(light.intensity, (1 if radiance.ndim == 3 else 3,)) for light in lights]
    )
    n = len(lights)
    value = radiance.reshape(n, -1, intensity.shape[1])[:, at] / intensity[:, None]
    noise = variance.reshape(n, -1, intensity.shape[1])[:, at] / intensity[:, None] ** 2
    return value.mean(axis=2).T.astype(np.float64), (noise.mean(axis=2) / intensity.shape[1]).T.astype(
        np.float64
    )


def _shading(lights: Sequence[DistantLight | NearLight], points: Float, factor: float) -> Float:
    """Direction times irradiance of unit lights at scaled points, (pixels, lights, 3)."""
    out = np.empty((len(points), len(lights), 3))
    for k, light in enumerate(lights):
        direction, irradiance = light.replace(intensity=(1.0,), intensity_sigma=None).at(points * factor)
        out[:, k] = direction * irradiance
    return out


def _shine(normals: NormalMap, points: Float, shading: Float, at: NDArray[np.intp]) -> Float:
    """Gloss (pixels, lights) that the solution has in its samples under lights of unit intensity."""
    if normals.roughness is None or normals.gloss is None:
        return np.zeros(shading.shape[:2])
    irradiance = np.linalg.norm(shading, axis=2)
    lobe = Gloss(normals.roughness, 1.0).reflect(
        normals.normals.reshape(-1, 3)[at][:, None], normalize(shading), normalize(-points)[:, None]
    )
    return np.asarray(lobe * irradiance * normals.gloss.ravel()[at][:, None])


def _projected(signal: Float, weight: Float, shading: Float) -> Float:
    """Residuals after the best normal times albedo of each pixel."""
    normal = np.einsum("kn,kni,knj->kij", weight, shading, shading)
    right = np.einsum("kn,kni,kn->ki", weight, shading, signal)
    best = np.linalg.solve(normal, right[..., None])[..., 0]
    return np.asarray(signal - np.einsum("kni,ki->kn", shading, best))
