"""Edges of spheres in images under several lights: the outline found and fitted at sub-pixel accuracy."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.outline import SphereView, circle, curve, frame, moved_by, settled, solve, turns


class Edges(NamedTuple):
    """How well the images support an outline."""

    view: SphereView
    support: float
    """Share of the outline along which the strongest edge nearby lies on it; some 0.2 by chance."""
    rms_px: float
    blur_px: float


def refine(images: NDArray[np.float32], start: SphereView, lens: LensModel | None, slack_px: float) -> Edges:
    """Fit the outline to the edges across it in every image, from coarse to fine.

    Each radial profile of each image is modelled as two straight lines joined by a blurred step; its
    linearised offset from the present outline comes from one matrix product for all profiles. Offsets are
    weighted by their own noise, so that an image without contrast at a place says nothing there, and outvoted
    robustly where a shadow's or a holder's edge lies nearer.

    Parameters
    ----------
    images : ndarray, (n, h, w), float32
        Under different lights; NaN is ignored. Work in this pixel frame.
    lens : LensModel or None
        Of the given pixel frame.
    start : SphereView
        Within ``slack_px`` of the truth.
    slack_px : float
        Reach of the first pass.

    Raises
    ------
    FitError
        No outline there.
    """
    view, blur = start, max(slack_px / 2.5, 0.8)
    while True:
        factor = max(1, 2 ** int(np.floor(np.log2(blur / 1.6))))
        reduced = images if factor == 1 else _reduced(images, factor)
        for _ in range(10):
            edges, moved = _refine_once(reduced, factor, view, lens, blur)
            view = edges.view
            if not _still_at(start, view):
                raise FitError("no outline of a sphere at this place")
            if moved < 0.002 * blur:
                break
        sharp = _edge_width(reduced, factor, view, lens, blur)
        if sharp > 0.75 * blur or blur <= 0.6:
            break
        blur = max(blur / 2, sharp, 0.6)
    return edges._replace(support=_support(reduced, factor, view, lens, blur))


def _still_at(start: SphereView, view: SphereView) -> bool:
    """Whether the fit has not run away to other edges, or to no circle at all."""
    away = np.hypot(*(view.centre_px - start.centre_px))
    return bool(away < 0.5 * start.radius_px and 0.5 < view.radius_px / start.radius_px < 2.0)


def _reduced(images: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    h, w = images.shape[1] // factor * factor, images.shape[2] // factor * factor
    return np.stack(
        [cv2.resize(i[:h, :w], (w // factor, h // factor), interpolation=cv2.INTER_AREA) for i in images]
    )


def profiles(
    images: NDArray[np.float32], factor: int, points: Float, normal: Float, offsets: Float
) -> NDArray[np.float32]:
    """Samples (n, k, m) along the normals, NaN outside the images."""
    at = points[:, None, :] + offsets[None, :, None] * normal[:, None, :]
    at = ((at + 0.5) / factor - 0.5).astype(np.float32)
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    border = (float("nan"),)
    return np.stack(
        [
            cv2.remap(i, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
            for i in images
        ]
    )


def profiles_around(
    images: NDArray[np.float32], view: SphereView, lens: LensModel | None, offsets: Float, count: int
) -> NDArray[np.float32]:
    """Samples (n, count, m) across the outline, at equal steps round it."""
    angles = turns(count)
    points, normal, _ = frame(view, lens, angles)
    return profiles(images, 1, points, normal, offsets)


class _Steps(NamedTuple):
    offset: Float
    sigma: Float
    significance: Float


def _basis(x: Float, blur: float) -> Float:
    """Level, slope, step and its motion: safest to find an edge with; ``rim`` has what is exact."""
    bell = np.exp(-0.5 * (x / blur) ** 2) / (blur * np.sqrt(2 * np.pi))
    return np.stack([np.ones_like(x), x, ndtr(x / blur) - 0.5, bell], axis=-1)


def _steps(profiles: NDArray[np.float32], x: Float, blur: float) -> _Steps:
    """Offset of the step in every profile (n, k), its noise, and the step's size over its noise."""
    basis = _basis(x, blur)
    inverse = np.linalg.pinv(basis)
    spread = inverse @ inverse.T
    p = profiles.astype(np.float64)
    coefficients = p @ inverse.T
    residual = p - coefficients @ basis.T
    variance = np.sum(residual**2, axis=-1) / max(len(x) - basis.shape[1], 1) + 1e-30
    with np.errstate(invalid="ignore", divide="ignore"):
        height, shift = coefficients[..., 2], coefficients[..., 3]
        offset = -shift / height
        significance = np.abs(height) / np.sqrt(variance * spread[2, 2])
        sigma = np.sqrt(variance * (spread[3, 3] + offset**2 * spread[2, 2])) / np.abs(height)
    return _Steps(offset, sigma, significance)


def _count(view: SphereView, blur: float) -> int:
    return int(np.clip(2 * np.pi * view.radius_px / (1.5 * blur), 72, 720))


def _edge_width(
    images: NDArray[np.float32], factor: int, view: SphereView, lens: LensModel | None, blur: float
) -> float:
    """Blur of the edge at the outline, px, roughly and not above ``blur``.

    The derivative's response, times the square root of its scale, is largest at the scale of the edge itself
    (T. Lindeberg, "Edge detection and ridge detection with automatic scale selection", 1998,
    doi:10.1023/A:1008097225773).
    """
    angles = turns(180)
    points, normal, _ = frame(view, lens, angles)
    widths = blur * 2.0 ** np.arange(-2.0, 0.3, 0.25)
    x = np.arange(-3 * blur, 3 * blur + 1e-9, min(0.5 * factor, blur / 4))
    across = profiles(images, factor, points, normal, x)
    filters = -x * np.exp(-0.5 * (x / widths[:, None]) ** 2)
    # Normal to the response to a slope; with the root of the scale a step's response peaks at its own width.
    filters *= np.sqrt(widths[:, None]) / np.abs(filters * x).sum(axis=-1, keepdims=True)
    strength = np.nan_to_num(np.abs(across @ filters.T.astype(np.float32))).max(axis=0)
    # Where the outline is faint the response is texture: the clearer half decides.
    clear = strength[strength[:, -1] >= np.median(strength[:, -1])]
    return float(widths[int(np.argmax(clear.mean(axis=0)))])


def _slopes(across: NDArray[np.float32], x: Float, blur: float) -> NDArray[np.float32]:
    """Squared slope of profiles (n, k, m) at the scale ``blur``, summed over lights that weigh alike."""
    across = np.nan_to_num(across)
    step = x[1] - x[0]
    half = int(np.ceil(3 * blur / step))
    u = np.arange(-half, half + 1) * step
    kernel = (-u * np.exp(-0.5 * (u / blur) ** 2)).astype(np.float32)
    slope = cv2.filter2D(across.reshape(-1, len(x)), -1, kernel[None], borderType=cv2.BORDER_REPLICATE)
    energy = slope.reshape(across.shape) ** 2
    energy = energy / (np.mean(energy, axis=(1, 2), keepdims=True) + 1e-30)
    return np.asarray(energy.sum(axis=0), np.float32)


def _support(
    images: NDArray[np.float32], factor: int, view: SphereView, lens: LensModel | None, blur: float
) -> float:
    k = min(_count(view, blur), 240)
    angles = turns(k)
    points, normal, _ = frame(view, lens, angles)
    h, w = np.array(images.shape[1:]) * factor
    seen = (points[:, 0] > -0.5) & (points[:, 1] > -0.5) & (points[:, 0] < w - 0.5) & (points[:, 1] < h - 0.5)
    most = 0
    # Widely, for outlines that are blurred unevenly, but nearer than the horizon that a ball mirrors, which
    # can be the stronger edge; and narrowly, for a faint outline with shadows close by.
    for reach in {max(min(8 * blur, 0.15 * view.radius_px), 3.5 * blur), 3.5 * blur}:
        x = np.arange(-reach, reach + 1e-9, min(0.5 * factor, blur / 2))
        across = profiles(images, factor, points, normal, x)
        # Shadows move from light to light, a bright mirror's outline is faint: the median shows what stays.
        stays = np.median(np.nan_to_num(across), axis=0, keepdims=True)
        for a in (across, stays):
            hit = np.abs(x[np.argmax(_slopes(a, x, blur), axis=-1)]) < 0.2 * reach
            most = max(most, int(np.sum(hit & seen)))
    # What the border cuts off is neither for nor against it, up to half of the outline.
    return float(most / max(seen.sum(), 0.5 * k))


def align(
    images: NDArray[np.float32], start: SphereView, lens: LensModel | None, slack_px: float
) -> SphereView:
    """The outline within ``slack_px`` (in centre and radius) that most of its directions see an edge on.

    Parameters
    ----------
    images : ndarray, (n, h, w), float32
        Statistics or lights.
    start : SphereView
        Where to look.
    lens : LensModel or None
        Of the given pixel frame.
    slack_px : float
        How far to look.

    Returns
    -------
    SphereView
        To about a sixth of the slack.
    """
    k = int(np.clip(2 * np.pi * start.radius_px / 2, 48, 240))
    angles = turns(k)
    points, normal, jacobian = frame(start, lens, angles)
    blur = max(slack_px / 6, 0.8)
    reach = 2.5 * slack_px + 2 * blur
    x = np.arange(-reach, reach + 1e-9, blur / 2)
    vote = _ridges(profiles(images, 1, points, normal, x), x, blur)
    per_px = 1 / (np.sqrt(np.mean(jacobian**2, axis=0)) * np.array([np.sqrt(2), np.sqrt(2), 1.0]))
    shift = np.linspace(-1, 1, 13) * slack_px
    steps = np.stack(np.meshgrid(shift, shift, shift, indexing="ij"), axis=-1).reshape(-1, 3) * per_px
    at = np.clip(np.rint((steps @ jacobian.T + reach) / (blur / 2)).astype(int), 0, len(x) - 1)
    score = vote[np.arange(k), at].mean(axis=1)
    return settled(moved_by(start, steps[int(np.argmax(score))], lens), lens)


def rings_about(
    images: NDArray[np.float32], core: SphereView, lens: LensModel | None, widest: float, count: int
) -> list[SphereView]:
    """Outlines round another that most of their directions see an edge on.

    The centre is the freer, the wider the ring: what a ball mirrors can lie anywhere inside its outline.

    Parameters
    ----------
    images : ndarray, (n, h, w), float32
        Statistics or lights.
    core : SphereView
        What lies inside.
    lens : LensModel or None
        Of the given pixel frame.
    widest : float
        Largest radius, in radii of ``core``.
    count : int
        How many at most.

    Returns
    -------
    list of SphereView
        Best first, to about a fortieth of the core's radius.
    """
    radius = core.radius_px
    k = int(np.clip(2 * np.pi * radius / 2, 72, 180))
    angles = turns(k)
    ray = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    # In the plane where the outlines of spheres here are circles.
    flat = np.linalg.lstsq(ray, curve(core, lens, angles) - core.centre_px, rcond=None)[0].T / radius
    pitch = max(radius / 40, 0.7)
    blur = max(pitch, 0.8)
    x = np.arange((1 + _NEXT) * radius - 2 * blur, (2 * widest - 1) * radius + 2 * blur, blur / 2)
    across = profiles(images, 1, np.broadcast_to(core.centre_px, (k, 2)), ray @ flat.T, x)
    seen = np.asarray(np.isfinite(across).all(axis=0))
    # The picture's border is no edge: what is last seen goes on.
    last = np.maximum.accumulate(np.where(seen, np.arange(len(x)), 0), axis=1)
    vote = _ridges(np.take_along_axis(across, last[None], axis=2), x, blur)
    found = []
    for r in np.arange((1 + _NEXT) * radius, widest * radius, pitch):
        most = _FREE * (r - radius)
        steps = np.arange(-np.floor(most / pitch), np.floor(most / pitch) + 1) * pitch
        away = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        away = np.compress(np.linalg.norm(away, axis=1) <= most + 1e-9, away, axis=0)
        along, aside = away @ ray.T, away @ np.stack([-ray[:, 1], ray[:, 0]])
        reach = along + np.sqrt(r**2 - aside**2)
        at = np.clip(np.rint((reach - x[0]) / (blur / 2)).astype(int), 0, len(x) - 1)
        there = seen[np.arange(k), at]
        score = np.sum(vote[np.arange(k), at] * there, axis=1) / np.maximum(there.sum(axis=1), 0.4 * k)
        found.append(np.column_stack([away, np.full(len(away), r), score]))
    circles = np.concatenate(found)
    best: list[Float] = []
    for c in circles[np.argsort(-circles[:, 3], kind="stable")]:
        if all(np.hypot(*(c[:2] - b[:2])) + abs(c[2] - b[2]) > 2 * _NEXT * radius for b in best):
            best.append(c)
        if len(best) == count:
            break
    grown = np.sqrt(abs(np.linalg.det(flat)))
    return [circle(core.centre_px + flat @ b[:2], b[2] * grown, lens) for b in best]


_NEXT = 0.04
"""Least difference between two rings, in radii of the inner one."""
_FREE = 0.8
"""How far a ring's centre may lie off, in what it is wider than the one inside: 1 where they touch."""


def _ridges(across: NDArray[np.float32], x: Float, blur: float) -> NDArray[np.float32]:
    """Votes (k, m) of each direction for its edges alone, faint ones too: an edge is not alike all round."""
    energy = _slopes(across, x, blur)
    ridge = (energy >= np.roll(energy, 1, axis=1)) & (energy >= np.roll(energy, -1, axis=1))
    relative = energy / (energy.max(axis=1, keepdims=True) + 1e-30)
    vote = np.where(ridge, np.sqrt(np.sqrt(relative)), 0.0)
    return np.asarray(cv2.GaussianBlur(vote.astype(np.float32), (0, 0), sigmaX=1.5, sigmaY=1e-3), np.float32)


def _refine_once(
    images: NDArray[np.float32],
    factor: int,
    view: SphereView,
    lens: LensModel | None,
    blur: float,
) -> tuple[Edges, float]:
    k = _count(view, blur)
    angles = turns(k)
    points, normal, jacobian = frame(view, lens, angles)
    reach = min(5 * blur, 0.45 * view.radius_px)
    x = np.arange(-reach, reach + 1e-9, min(0.5 * max(factor, 1), blur / 1.5))
    steps = _steps(profiles(images, factor, points, normal, x), x, blur)
    with np.errstate(invalid="ignore"):
        good = (steps.significance > 8) & (np.abs(steps.offset) < 2.0 * blur) & (steps.sigma < blur)
    if good.any(axis=0).sum() < 12:
        raise FitError("no outline of a sphere at this place")
    light, where = np.nonzero(good)
    offset, sigma = steps.offset[light, where], steps.sigma[light, where]
    j = jacobian[where]
    base = 1 / (sigma**2 + (0.03 * blur) ** 2)
    step = np.zeros(3)
    scale = blur
    sector = where * 36 // k
    for _ in range(12):
        residual = offset - j @ step
        weight = base / (1 + (residual / scale) ** 2) ** 2
        step = solve(j, offset, weight, sector, light)[0]
        residual = offset - j @ step
        spread = np.sqrt(np.sum(weight * residual**2) / np.sum(weight))
        scale = float(np.clip(3 * spread, 0.15 * blur, blur))
    near = np.abs(residual) < scale
    # Soft weights make the sandwich too thin: it wants those that stay as they are when an edge moves.
    covariance = solve(j, residual, base * near, sector, light)[1]
    rms = float(np.sqrt(np.mean(residual[near] ** 2))) if near.any() else np.inf
    moved = float(np.max(np.abs(jacobian @ step)))
    view = settled(moved_by(view, step, lens), lens)._replace(covariance=covariance)
    return Edges(view, 0.0, rms, blur), moved
