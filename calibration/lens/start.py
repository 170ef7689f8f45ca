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
_SPOILT = 0.02  # of the width of a view's rays: with such a median miss, wrong corners hold it
_FOURS = 40  # with three wrong corners in ten, one in 10^5 times all of them have a wrong one
_ROUNDS = 5
_AMBIGUOUS = 40.0  # times the residual: a mirrored tilt that fits worse cannot become the better one
_AMISS = 6.0  # sigmas: a view with such a median residual may just have a wrong pose


class _Views(NamedTuple):
    """Corners by view, filled up to the longest: points (v, m, 3), pixels (v, m, 2), 1 where there is one."""

    points: Float
    pixels: Float
    there: Float

    @property
    def middles(self) -> Float:
        """Mean of the points of each view (v, 3)."""
        return np.asarray(self.points.sum(axis=1) / self.there.sum(axis=1)[:, None])

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
    alone, linearly. From the best ones a robust fit frees focal lengths, then the rest. Last, with this lens,
    the residuals decide where a pose has an alternative: the mirrored tilt, which a distant view hardly
    tells apart, and what the rays now say.

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
    number = np.arange(len(free))
    quick, gently = [free & (number < 2), free], [free & (number < 2), free & (number < 4), free]
    best: tuple[float, State] | None = None
    guesses = list(islice(_guesses(views, ideal), _GUESSES))
    for guess, stages in [(guesses[0], quick), *((guess, gently) for guess in guesses)]:
        now = guess
        for freed in stages:
            now, sigma = approach(now, corners, _only(freed), rounds=1 if freed is stages[0] else _ROUNDS)
        miss = float(np.median(sigma))
        if best is None or miss < best[0]:
            best = miss, now
        if best[0] < _WELL * ideal.width:
            break
    assert best is not None
    return _reposed(best[1], corners, views, _only(free), best[0])


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
        seen = np.isfinite(lens.unproject(views.pixels)).all(axis=-1)
        if np.sum(views.there * seen) < 0.7 * np.sum(views.there):
            continue
        rotations, translations = _resected(lens, views)
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
    q: Float = np.concatenate([away / size[:, None, None], np.ones((*weight.shape, 1))], axis=2)
    across = np.eye(3) - rays[..., :, None] * rays[..., None, :]
    v, m = weight.shape
    # Of M, row by row: sum of w (across x q q').
    flat = (
        across[..., :, None, :, None] * (q[..., :, None] * q[..., None, :])[..., None, :, None, :]
    ).reshape(v, m, 81)
    now = weight
    for number in range(_REWEIGHTINGS):
        matrix = _least(now, flat)
        miss2, length2, ahead = _off_rays(matrix, q, rays)
        if number == 0:
            spread2 = 1 - np.sum((np.sum(rays * weight[..., None], axis=1) / count) ** 2, axis=1)
            for i in np.flatnonzero(_usual(miss2, weight) > _SPOILT**2 * spread2):
                matrix[i] = _of_fours(flat[i], q[i], rays[i], weight[i])
            miss2, length2, ahead = _off_rays(matrix, q, rays)
        now = weight / length2 / (1 + miss2 / (4 * _usual(miss2, weight)[:, None] + 1e-24))
    behind = np.sum(np.where(ahead > 0, weight, -weight), axis=1) < 0
    return np.where(behind[:, None, None], -matrix, matrix), (middle, size)


def _least(weight: Float, flat: Float) -> Float:
    """Matrices (v, 3, 3) of least squares with weights (v, m) of the products (v, m, 81)."""
    normal = (weight[..., None, :] @ flat).reshape(*weight.shape[:-1], 9, 9)
    return np.asarray(np.linalg.eigh(normal)[1][..., 0].reshape(*weight.shape[:-1], 3, 3))


def _off_rays(matrix: Float, q: Float, rays: Float) -> tuple[Float, Float, Float]:
    """Squared sines between M q and the rays, squared lengths of M q, its parts along the rays: (v, m)."""
    along = q @ np.swapaxes(matrix, -1, -2)
    length2 = np.maximum(np.sum(along**2, axis=-1), 1e-24)
    ahead = np.sum(along * rays, axis=-1)
    return np.maximum(1 - ahead**2 / length2, 0), length2, ahead


def _usual(miss2: Float, weight: Float) -> Float:
    """Median along the corners; a little low in a view that is filled up."""
    return np.asarray(np.median(np.where(weight > 0, miss2, 0), axis=-1))


def _of_fours(flat: Float, q: Float, rays: Float, weight: Float) -> Float:
    """Of the matrices that some fours of a view's corners give, that with the least median miss.

    Many wrong corners hold least squares in their middle; some four are free of them.
    """
    there = np.flatnonzero(weight)
    rng = np.random.default_rng(0)
    fours = np.array([rng.choice(there, min(4, len(there)), replace=False) for _ in range(_FOURS)])
    matrices = _least(np.ones(fours.shape), flat[fours])
    miss2, _, _ = _off_rays(matrices, q, rays)
    return np.asarray(matrices[np.argmin(np.median(miss2[:, there], axis=1))])


def _poses(matrices: Float, middle: Float, size: Float) -> tuple[Float, Float]:
    """The nearest rotations, and the translations, of what ``_planes`` found."""
    left, stretch, right = np.linalg.svd(matrices[:, :, :2], full_matrices=False)
    axes = left @ right
    rotations = np.concatenate([axes, np.cross(axes[..., 0], axes[..., 1])[..., None]], axis=2)
    translations = matrices[:, :, 2] * (size / np.maximum(np.mean(stretch, axis=1), 1e-12))[:, None]
    return rotations, translations - np.einsum("vij,vj->vi", axes, middle)


def mirrored(rotations: Float, translations: Float, middles: Float) -> tuple[Float, Float]:
    """The other tilt under which distant boards look alike, about their middles (v, 3), board frame."""
    centre = np.einsum("vij,vj->vi", rotations, middles) + translations
    along = normalize(centre)
    flip = np.eye(3) - 2 * along[:, :, None] * along[:, None, :]
    turned = flip @ rotations * [1, 1, -1]
    return turned, centre - np.einsum("vij,vj->vi", turned, middles)


def _reposed(state: State, corners: Corners, views: _Views, free: Free, sigma: float) -> State:
    """The same with other poses where these fit better: mirrored tilts, poses from this lens's rays."""
    for _ in range(3):
        miss = _miss(state, corners)
        lost = miss > _AMISS * sigma
        turned = mirrored(state.rotations, state.translations, views.middles)
        unsure = _miss(_at(state, *turned), corners) < _AMBIGUOUS * np.maximum(miss, sigma)
        better = state
        if unsure.any():
            better = _with_better(better, corners, turned, unsure)
        if lost.any():
            better = _with_better(better, corners, _resected(state.lenses[0], views), lost)
        if better is state:
            return state
        state, found = approach(better, corners, free, rounds=_ROUNDS)
        sigma = float(np.median(found))
    return state


def _at(state: State, rotations: Float, translations: Float) -> State:
    return state._replace(rotations=rotations, translations=translations)


def _with_better(state: State, corners: Corners, poses: tuple[Float, Float], tried: Mask) -> State:
    """Other poses for the views where, the lens held, they come to fit better."""
    some = tried[corners.view]
    number = (np.cumsum(tried) - 1)[corners.view[some]]
    theirs = corners._replace(
        points=corners.points[some], pixels=corners.pixels[some], sigma=corners.sigma[some],
        view=number, camera=corners.camera[some],
    )  # fmt: skip
    held = _only(np.zeros(len(state.lenses[0].parameters), dtype=bool))
    fitted, _ = approach(_at(state, poses[0][tried], poses[1][tried]), theirs, held)
    rotations, translations = state.rotations.copy(), state.translations.copy()
    rotations[tried], translations[tried] = fitted.rotations, fitted.translations
    better = np.asarray(_miss(_at(state, rotations, translations), corners) < 0.99 * _miss(state, corners))
    if not better.any():
        return state
    return _at(
        state,
        np.where(better[:, None, None], rotations, state.rotations),
        np.where(better[:, None], translations, state.translations),
    )


def _resected(lens: LensModel, views: _Views) -> tuple[Float, Float]:
    rays = lens.unproject(views.pixels)
    seen = np.asarray(np.isfinite(rays).all(axis=-1))
    return plane_poses(views.points, np.where(seen[..., None], rays, 1.0), views.there * seen)


def _miss(state: State, corners: Corners) -> Float:
    """Median length of a residual, by view, px."""
    length = np.linalg.norm(corners.pixels - state.lenses[0].project(placed(state, corners)[1]), axis=1)
    length[np.isnan(length)] = np.inf
    first: Index = np.searchsorted(corners.view, np.arange(1, len(state.rotations)))
    return np.array([np.median(part) for part in np.split(length, first)])
