"""First guess of a lens and of the poses of its boards, from any focal length and any angle of view."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from calibration.geometry import Float, normalize
from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.bundle import approach
from calibration.lens.model import LensModel
from calibration.lens.unknowns import Corners, Free, Index, Mask, State, alone, placed

_FOCAL_LENGTHS = np.geomspace(0.12, 50.0, 19)  # in widths of the image: fisheye of 200 degrees to telecentric
_WELL = 5e-4  # of the image's width: with such residuals no other guess is tried
_GUESSES = 4
_REWEIGHTINGS = 5
_ROUNDS = 5
_AMBIGUOUS = (
    40.0  # times the residual: a mirrored tilt that fits worse than that cannot become the better one
)


class _Views(NamedTuple):
    """Corners by view, filled up to the longest: points (v, m, 3), pixels (v, m, 2), 1 where there is one."""

    points: Float
    pixels: Float
    there: Float

    @classmethod
    def of(cls, corners: Corners) -> "_Views":
        size = np.bincount(corners.view)
        at = (corners.view, np.arange(len(corners.view)) - (np.cumsum(size) - size)[corners.view])
        shape = (len(size), int(size.max()))
        points, pixels, there = np.zeros((*shape, 3)), np.zeros((*shape, 2)), np.zeros(shape)
        points[at], pixels[at], there[at] = corners.points, corners.pixels, 1
        return cls(points, pixels, there)


def first_guess(corners: Corners, ideal: LensModel, free: Mask) -> State:
    """Lens and poses near those that the corners of flat boards tell.

    Lenses without distortion of many focal lengths are tried: a board's pose follows from its corners' rays
    alone, linearly. From the best ones a robust fit frees focal lengths, then the rest. Last, the tilt
    that cannot be told from its mirror image by a distant view is decided by the residuals.

    Parameters
    ----------
    corners : Corners
        Of one camera; z of the points is 0.
    ideal : LensModel
        Kind and image size; its values but the principal point's do not matter.
    free : ndarray (p,) bool
        Parameters that are fitted.

    Returns
    -------
    State

    Notes
    -----
    Pinhole or fisheye, a flat board's point x, y lies on the ray along M (x, y, 1), M = [r1 r2 t]: eight
    unknowns a view, as for the homography of Z. Zhang, PAMI 22 (2000), doi:10.1109/34.888718.
    """
    views = _Views.of(corners)
    focal = free & (np.arange(len(free)) < 2)
    best: tuple[float, State] | None = None
    for state in islice(_guesses(views, ideal), _GUESSES):
        now, _ = approach(state, corners, _only(focal), rounds=1)
        now, sigma = approach(now, corners, _only(free), rounds=_ROUNDS)
        miss = float(np.median(sigma))
        if best is None or miss < best[0]:
            best = miss, now
        if best[0] < _WELL * ideal.width:
            break
    assert best is not None
    return _untwisted(best[1], corners, _only(free), best[0])


def _only(free: Mask) -> Free:
    return Free((free,), np.zeros(1, dtype=bool))


def _guesses(views: _Views, ideal: LensModel) -> Iterator[State]:
    """Lenses without distortion with the poses they lead to, the likeliest first."""
    if not isinstance(ideal, BrownConrady):
        yield from _fisheye_guesses(views, ideal)
        return
    # Rays of another focal length are a stretch of these, and so are the planes.
    width = float(ideal.width)
    matrices, frame = _planes(views.points, _undistorted(ideal, width).unproject(views.pixels), views.there)
    focal = ideal.width * np.geomspace(0.2, 60.0, 100)
    columns = (
        matrices[None, :, :, :2]
        * np.stack([width / focal, width / focal, np.ones(100)], axis=1)[:, None, :, None]
    )
    gram = np.swapaxes(columns, -1, -2) @ columns
    # Two perpendicular columns of one length, or nothing.
    skew = np.hypot(gram[..., 0, 0] - gram[..., 1, 1], 2 * gram[..., 0, 1]) / np.trace(
        gram, axis1=-2, axis2=-1
    )
    likely = float(focal[np.argmin(np.mean(skew, axis=1))])
    for factor in (1.0, 1.6, 0.6, 3.0, 0.35, 8.0):
        f = factor * likely
        stretched = matrices * np.array([width / f, width / f, 1.0])[:, None]
        yield alone(_undistorted(ideal, f), *_poses(stretched, *frame))


def _fisheye_guesses(views: _Views, ideal: LensModel) -> Iterator[State]:
    found = []
    for focal in _FOCAL_LENGTHS * ideal.width:
        lens = _undistorted(ideal, focal)
        rays = lens.unproject(views.pixels)
        seen = views.there * np.isfinite(rays).all(axis=-1)
        if np.sum(seen) < 0.7 * np.sum(views.there):
            continue
        matrices, frame = _planes(views.points, np.where(seen[..., None] > 0, rays, 1.0), seen)
        rotations, translations = _poses(matrices, *frame)
        model = lens.project(views.points @ np.swapaxes(rotations, 1, 2) + translations[:, None])
        miss = np.linalg.norm(views.pixels - model, axis=-1)
        miss[np.isnan(miss)] = ideal.width
        miss[views.there == 0] = np.nan
        found.append((float(np.median(np.nanmedian(miss, axis=1))), alone(lens, rotations, translations)))
    yield from (state for _, state in sorted(found, key=lambda one: one[0]))


def _undistorted(ideal: LensModel, focal: float) -> LensModel:
    values = np.zeros(len(ideal.parameters))
    values[:4] = focal, focal, ideal.cx, ideal.cy
    return ideal.with_parameters(values)


def plane_poses(points: Float, rays: Float, weight: Float) -> tuple[Float, Float]:
    """Poses of flat boards from the rays to their corners, robust.

    Parameters
    ----------
    points : ndarray (v, m, 3)
        z = 0.
    rays : ndarray (v, m, 3)
        Unit vectors, in any direction.
    weight : ndarray (v, m)
        0 where there is no corner.

    Returns
    -------
    rotations, translations : ndarray (v, 3, 3), (v, 3)
        camera_from_board.
    """
    matrices, frame = _planes(points, rays, weight)
    return _poses(matrices, *frame)


def _planes(points: Float, rays: Float, weight: Float) -> tuple[Float, tuple[Float, Float]]:
    """Matrices (v, 3, 3), M (q - middle, size) / size along the rays; middles (v, 2) and sizes (v,)."""
    count = np.maximum(weight.sum(axis=1), 1)[:, None]
    middle = np.sum(points[..., :2] * weight[..., None], axis=1) / count
    away = points[..., :2] - middle[:, None]
    size = np.sqrt(np.sum(away**2 * weight[..., None], axis=(1, 2)) / count[:, 0])
    size = np.where(size > 0, size, 1.0)
    q = np.concatenate([away / size[:, None, None], np.ones((*weight.shape, 1))], axis=2)
    across = np.eye(3) - rays[..., :, None] * rays[..., None, :]
    v, m = weight.shape
    # Of M, row by row: sum of w (across x q q').
    flat = (
        across[..., :, None, :, None] * (q[..., :, None] * q[..., None, :])[..., None, :, None, :]
    ).reshape(v, m, 81)
    now = weight
    for _ in range(_REWEIGHTINGS):
        matrix = np.linalg.eigh((now[:, None] @ flat).reshape(v, 9, 9))[1][:, :, 0].reshape(v, 3, 3)
        along = q @ np.swapaxes(matrix, 1, 2)
        length2 = np.maximum(np.sum(along**2, axis=-1), 1e-24)
        on_ray = np.sum(along * rays, axis=-1)
        miss2 = np.maximum(1 - on_ray**2 / length2, 0)
        # Of a view that is filled up the median is a little low.
        usual = np.median(np.where(weight > 0, miss2, 0), axis=1)[:, None]
        now = weight / length2 / (1 + miss2 / (4 * usual + 1e-24))
    behind = np.sum(np.where(on_ray > 0, weight, -weight), axis=1) < 0
    return np.where(behind[:, None, None], -matrix, matrix), (middle, size)


def _poses(matrices: Float, middle: Float, size: Float) -> tuple[Float, Float]:
    """The nearest rotations, and the translations, of what ``_planes`` found."""
    left, stretch, right = np.linalg.svd(matrices[:, :, :2], full_matrices=False)
    axes = left @ right
    rotations = np.concatenate([axes, np.cross(axes[..., 0], axes[..., 1])[..., None]], axis=2)
    translations = matrices[:, :, 2] * (size / np.mean(stretch, axis=1))[:, None]
    return rotations, translations - np.einsum("vij,vj->vi", axes, middle)


def mirrored(rotations: Float, translations: Float, middles: Float) -> tuple[Float, Float]:
    """The other tilt under which distant boards look alike, about their middles (v, 3), board frame."""
    centre = np.einsum("vij,vj->vi", rotations, middles) + translations
    along = normalize(centre)
    flip = np.eye(3) - 2 * along[:, :, None] * along[:, None, :]
    turned = flip @ rotations * [1, 1, -1]
    return turned, centre - np.einsum("vij,vj->vi", turned, middles)


def _untwisted(state: State, corners: Corners, free: Free, sigma: float) -> State:
    """The same with mirrored tilts where these fit better."""
    views = len(state.rotations)
    for _ in range(3):
        size = np.bincount(corners.view, minlength=views)[:, None]
        middles = np.stack([np.bincount(corners.view, p, views) for p in corners.points.T], axis=1) / size
        turned, moved = mirrored(state.rotations, state.translations, middles)
        other = state._replace(rotations=turned, translations=moved)
        unsure = _miss(other, corners) < _AMBIGUOUS * np.maximum(_miss(state, corners), sigma)
        if not unsure.any():
            return state
        tried = np.isin(corners.view, np.flatnonzero(unsure))
        number = (np.cumsum(unsure) - 1)[corners.view[tried]]
        some = corners._replace(
            points=corners.points[tried], pixels=corners.pixels[tried], sigma=corners.sigma[tried],
            view=number, camera=corners.camera[tried],
        )  # fmt: skip
        held = _only(np.zeros_like(free.lens[0]))
        fitted, _ = approach(other._replace(rotations=turned[unsure], translations=moved[unsure]), some, held)
        rotations, translations = state.rotations.copy(), state.translations.copy()
        rotations[unsure], translations[unsure] = fitted.rotations, fitted.translations
        fitted = state._replace(rotations=rotations, translations=translations)
        better = _miss(fitted, corners) < 0.99 * _miss(state, corners)
        if not better.any():
            return state
        state, found = approach(
            state._replace(
                rotations=np.where(better[:, None, None], rotations, state.rotations),
                translations=np.where(better[:, None], translations, state.translations),
            ), corners, free, rounds=_ROUNDS,
        )  # fmt: skip
        sigma = float(np.median(found))
    return state


def _miss(state: State, corners: Corners) -> Float:
    """Median length of a residual, by view, px."""
    length = np.linalg.norm(corners.pixels - state.lenses[0].project(placed(state, corners)[1]), axis=1)
    length[np.isnan(length)] = np.inf
    first: Index = np.searchsorted(corners.view, np.arange(1, len(state.rotations)))
    return np.array([np.median(part) for part in np.split(length, first)])
