"""Normals and depth together: a near light's direction depends on where the surface is."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calibration.geometry import Float, normalize
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Gloss, Method, NormalMap, object_mask, sight, solve
from calibration.photometric.gloss import find_gloss
from calibration.photometric.pixels import Pixels
from calibration.photometric.solver import check, solve_at
from calibration.provenance import FitError, Provenance
from calibration.surface.integration import components, integrate, integrate_grid

_COARSE_PIXELS = 15000
_ROUNDS = 12
_CONVERGED = 2e-5
_PRIOR_SIGMA = 0.1
_GLOSS_ERROR = 0.3
_SCALE_PIXELS = 4000
_LEAST_PIXELS = 200
_LONGEST_STEP = 0.05
_MODEL_ERROR = 0.01


class Reconstruction(NamedTuple):
    """Normals and depth of one view.

    Attributes
    ----------
    normals : NormalMap
        Solved at the final depth.
    depth_mm : ndarray (h, w), float32
        Depth z, camera frame, NaN where unknown; px for an orthographic view.
    scale_sigma : float
        One sigma of the common factor of all depths, relative; NaN where it was given and not measured
        (distant lights).
    rounds : int
        Alternations until the depth stood still.
    """

    normals: NormalMap
    depth_mm: NDArray[np.float32]
    scale_sigma: float
    rounds: int


def reconstruct(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    *,
    lens: LensModel | None = None,
    mask: NDArray[np.bool_] | None = None,
    depth_mm: NDArray[np.floating] | float | None = None,
    method: Method = "auto",
    gloss: Gloss | None = None,
    provenance: Provenance | None = None,
) -> Reconstruction:
    """Normals, albedo and depth from images under known lights.

    Parameters
    ----------
    radiance, variance, lights, lens, mask, method, gloss, provenance
        As for ``photometric.solve``.
    depth_mm : float or ndarray (h, w), optional
        Where the surface is, roughly (10 %). Near lights then find the scale by themselves; with distant
        lights it is the scale (median depth; without it 1 mm, or 0 px in an orthographic view).

    Returns
    -------
    Reconstruction

    Raises
    ------
    ValueError, FitError
        As ``photometric.solve``.

    Notes
    -----
    Near lights: normals at the current depth, depth from the normals, and so on, on a coarser grid of the
    same lines of sight until the depth stands still, then once at full resolution. Integration leaves one
    factor: it is the one at which a Lambertian surface explains the trusted samples best (Gauss-Newton on the
    residual with the normals solved for), under a prior of 10 % around ``depth_mm``. Its sigma takes the
    lights, not the pixels, as the independent observations, as errors of a light's position and intensity are
    common to all pixels.
    """
    near = any(light.kind == "near" for light in lights)
    if mask is None:
        mask = object_mask(radiance, variance)
    if not near or lens is None or depth_mm is None:
        normals = solve(
            radiance,
            variance,
            lights,
            lens=lens,
            depth_mm=depth_mm,
            mask=mask,
            method=method,
            provenance=provenance,
        )
        return Reconstruction(normals, integrate(normals, lens, depth_mm=depth_mm), float("nan"), 1)

    check(radiance, variance, lights, lens, depth_mm, mask)
    h, w = mask.shape
    step = max(1, round(float(np.sqrt(mask.sum() / _COARSE_PIXELS))))
    depth, sigma, found, rounds = _coarse(
        radiance[:, ::step, ::step],
        variance[:, ::step, ::step],
        lights,
        sight(lens, np.arange(0, h, step), np.arange(0, w, step)),
        mask[::step, ::step],
        np.broadcast_to(np.asarray(depth_mm, np.float64), (h, w))[::step, ::step],
        method,
        gloss,
    )
    start = _enlarge(depth, step, (h, w))
    points = sight(lens, np.arange(h), np.arange(w)) * start[..., None].astype(np.float32)
    normals = solve_at(
        radiance, variance, lights, points, mask, method=method, gloss=found, provenance=provenance
    )
    return Reconstruction(normals, integrate(normals, lens, depth_mm=start), sigma, rounds)


def _coarse(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    rays: NDArray[np.float32],
    mask: NDArray[np.bool_],
    prior: Float,
    method: Method,
    known: Gloss | None,
) -> tuple[Float, float, Gloss, int]:
    depth, sigma, rounds = prior, float("nan"), 0
    matt = Gloss(1.0, 0.0)
    gloss = known or matt
    # A richer model of the surface hardly moves the depth at which light and sight are computed.
    plain: Method = "least-squares" if method == "least-squares" else "robust"
    while rounds < _ROUNDS:
        rounds += 1
        before = depth
        points = np.asarray(rays * depth[..., None], np.float32)
        # The shape of the first round is too rough to tell gloss; after the third it no longer changes.
        if plain == "robust" and known is None and (rounds == 2 or (rounds == 3 and gloss is not matt)):
            pixels = Pixels.prepare(radiance, variance, lights, points, mask)
            gloss = find_gloss(pixels, None if gloss is matt else gloss) or matt
        normals = solve_at(radiance, variance, lights, points, mask, method=plain, gloss=gloss)
        depth = integrate_grid(normals.normals, normals.sigma_deg, rays, depth_mm=depth, tolerance=1e-5)
        steps, sigma = _scale_steps(radiance, variance, lights, rays, depth, normals, prior)
        depth = depth * np.exp(steps)
        both = np.isfinite(depth) & np.isfinite(before)
        if not both.any():
            raise FitError("the surface fell apart while alternating: check lights and depth_mm")
        change = np.abs(np.log(depth[both] / before[both]))
        # Pixels that drop out of one round may come back in the next.
        depth = _fill(depth)
        if rounds > 2 and np.quantile(change, 0.9) < _CONVERGED:
            break
    return depth, sigma, gloss, rounds


def _scale_steps(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    rays: NDArray[np.float32],
    depth: Float,
    normals: NormalMap,
    prior: Float,
) -> tuple[Float, float]:
    """Step of the logarithm of depth per pixel, one per component, and the largest component's sigma."""
    labels = components(normals.valid & np.isfinite(depth))[1].ravel()
    at = np.flatnonzero(labels)
    at = at[:: max(1, len(at) // _SCALE_PIXELS)]
    gradient, curvature, ok = _scale_terms(radiance, variance, lights, rays, depth, normals, at)
    part, away = labels[at[ok]], np.log(depth / prior).ravel()[at[ok]]
    counts = np.bincount(part, minlength=labels.max() + 1)
    if not counts.any():
        return np.zeros_like(depth), _PRIOR_SIGMA
    common, sigma = _posterior(gradient, curvature, float(np.median(away)))
    # A component of few pixels goes with the others.
    steps = np.full(len(counts), common)
    for component in np.flatnonzero(counts >= _LEAST_PIXELS):
        mine = part == component
        steps[component], own = _posterior(gradient[mine], curvature[mine], float(np.median(away[mine])))
        sigma = own if counts[component] == counts.max() else sigma
    return np.asarray(steps[labels].reshape(depth.shape)), sigma


def _posterior(gradient: Float, curvature: Float, away: float) -> tuple[float, float]:
    """Gauss-Newton step from terms (pixels, lights) and its sigma; ``away`` is how far off the prior we are.

    The lights are the independent observations: the sums over pixels of each say how far they disagree.
    """
    g, c = gradient.sum(axis=0), curvature.sum(axis=0)
    lights, total = len(g), c.sum()
    wanted = -g.sum() / total
    spread = np.sum((g + wanted * c) ** 2) / total**2 * lights / max(lights - 4, 1)
    information = 1 / max(float(spread), 1e-12)
    posterior = information + 1 / _PRIOR_SIGMA**2
    step = (information * wanted - away / _PRIOR_SIGMA**2) / posterior
    return float(np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)), float(posterior**-0.5)


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


def _fill(depth: Float) -> Float:
    """Unknown depths from the nearest known one."""
    index = ndimage.distance_transform_edt(~np.isfinite(depth), return_distances=False, return_indices=True)
    return np.asarray(depth[tuple(index)])


def _enlarge(depth: Float, step: int, shape: tuple[int, int]) -> Float:
    """Depth of the coarse grid (every ``step``-th pixel from 0) on the full one, bilinear, filled outside."""
    if step == 1:
        return _fill(depth)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / step
    full = cv2.remap(_fill(depth).astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(full, np.float64)
