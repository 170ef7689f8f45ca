"""Bundle adjustment of one lens and the poses of its targets: Levenberg-Marquardt on the Schur complement."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.geometry import Float
from calibration.lens.model import LensModel
from calibration.provenance import FitError

_OUTLIER_SIGMA = 4.5  # of the length of a residual: one good corner in 25 000 is lost
_FLOOR_PX = 1e-7  # exact data: rounding is no outlier
FEW = 8  # points for which a robust scale means nothing
_NEVER_PX = 1e6


class State(NamedTuple):
    """What is fitted: the lens, rotations (v, 3, 3) and translations (v, 3), camera_from_target."""

    lens: LensModel
    rotations: Float
    translations: Float


class Corners(NamedTuple):
    """What is seen: points (n, 3) mm, pixels (n, 2), and the view (n,) of each, ascending."""

    points: Float
    pixels: Float
    view: NDArray[np.int64]


class Solution(NamedTuple):
    """State, residuals (n, 2) measured minus model in px, corners in use (n,), variance, covariances."""

    state: State
    residual: Float
    used: NDArray[np.bool_]
    variance: float
    covariance: Float
    pose_covariance: Float


class _Blocks(NamedTuple):
    """Normal equations: parameters (p, p), with poses (v, p, 6), poses (v, 6, 6), right-hand sides."""

    a: Float
    b: Float
    c: Float
    ga: Float
    gc: Float


def solve(start: State, corners: Corners, free: NDArray[np.bool_], min_points: int) -> Solution:
    """Least squares with outliers thrown out.

    Heavy-tailed weights first, so that a gross error does not pull the others out with it; then plain
    least squares over the corners within 4.5 robust sigmas, until they stay the same.

    Parameters
    ----------
    start : State
        First guess.
    corners : Corners
        What is seen.
    free : ndarray (9,) bool
        Lens parameters to fit; the others stay.
    min_points : int
        A view left with fewer corners is left out whole.

    Returns
    -------
    Solution
        Covariances scaled by the variance of the residuals.

    Raises
    ------
    FitError
        No convergence.
    """
    state = start
    n, views = len(corners.points), len(start.rotations)
    used = np.ones(n, dtype=bool)
    if n >= FEW:
        weight = np.ones(n)
        for _ in range(4):
            state = _minimize(state, corners, free, weight)
            length = np.linalg.norm(_residual(state, corners), axis=1)
            weight = 1 / (1 + (length / (2 * _scale(length))) ** 2)
        scale = _scale(np.linalg.norm(_residual(state, corners), axis=1))
        for _ in range(10):
            now = np.linalg.norm(_residual(state, corners), axis=1) < _OUTLIER_SIGMA * scale
            now &= (np.bincount(corners.view[now], minlength=views) >= min_points)[corners.view]
            if np.array_equal(now, used):
                break
            used = now
            state = _minimize(state, corners, free, used.astype(np.float64))
            # The median of a few dozen lengths is off by 10 %; the corners in use know better.
            squares = float(np.sum(_residual(state, corners)[used] ** 2))
            scale = max(np.sqrt(squares / max(_freedom(corners, used, free), 1)), _FLOOR_PX)
    state = _minimize(state, corners, free, used.astype(np.float64))
    residual = _residual(state, corners)
    alive = np.bincount(corners.view[used], minlength=views) > 0
    freedom = _freedom(corners, used, free)
    if freedom < 1:
        raise FitError(f"{int(used.sum())} corners agree: too few for a fit")
    variance = float(np.sum(residual[used] ** 2)) / freedom
    covariance, pose_covariance = _covariance(_blocks(state, corners, free, used.astype(np.float64)), free)
    pose_covariance[~alive] = np.nan
    return Solution(state, residual, used, variance, covariance * variance, pose_covariance * variance)


def _freedom(corners: Corners, used: NDArray[np.bool_], free: NDArray[np.bool_]) -> int:
    return 2 * int(used.sum()) - 6 * len(np.unique(corners.view[used])) - int(free.sum())


def _scale(length: Float) -> float:
    """Robust sigma of a coordinate: the median of a Rayleigh variable is 1.1774 sigma."""
    return max(float(np.median(length)) / 1.1774, _FLOOR_PX)


def _camera_points(state: State, corners: Corners) -> Float:
    rotated = np.einsum("nij,nj->ni", state.rotations[corners.view], corners.points)
    return np.asarray(rotated + state.translations[corners.view])


def _residual(state: State, corners: Corners) -> Float:
    points = _camera_points(state, corners)
    behind = points[:, 2] <= 0
    residual = corners.pixels - state.lens.project(points)
    residual[behind | ~np.isfinite(residual).all(axis=1)] = _NEVER_PX
    return residual


def _blocks(state: State, corners: Corners, free: NDArray[np.bool_], weight: Float) -> _Blocks:
    points = _camera_points(state, corners)
    moved = points - state.translations[corners.view]
    model, by_points, by_parameters, _ = state.lens.derivatives(points)
    residual = corners.pixels - model
    lost = ~np.isfinite(residual).all(axis=1)
    residual[lost], by_points[lost], by_parameters[lost] = 0, 0, 0
    # A turn about the camera's axes moves the point by turn x moved.
    zero = np.zeros(len(moved))
    x, y, z = moved.T
    cross = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], axis=-1).reshape(-1, 3, 3)
    by_pose = np.concatenate([by_points @ cross, by_points], axis=2)
    by_free = by_parameters * free
    root = np.sqrt(weight)[:, None, None]
    by_pose, by_free, residual = by_pose * root, by_free * root, residual * root[:, 0]
    first = np.searchsorted(corners.view, np.arange(len(state.rotations) + 1))
    b, c, gc = [], [], []
    for start, stop in pairwise(first):
        pose = by_pose[start:stop].reshape(-1, 6)
        b.append(by_free[start:stop].reshape(-1, by_free.shape[2]).T @ pose)
        c.append(pose.T @ pose)
        gc.append(pose.T @ residual[start:stop].ravel())
    flat = by_free.reshape(-1, by_free.shape[2])
    return _Blocks(flat.T @ flat, np.array(b), np.array(c), flat.T @ residual.ravel(), np.array(gc))


def _minimize(state: State, corners: Corners, free: NDArray[np.bool_], weight: Float) -> State:
    cost = float(np.sum(weight[:, None] * _residual(state, corners) ** 2))
    damping = 1e-4
    blocks = _blocks(state, corners, free, weight)
    for _ in range(200):
        da, dc = _step(blocks, free, damping)
        turned = Rotation.from_rotvec(dc[:, :3]).as_matrix() @ state.rotations
        values = state.lens.parameters + da
        if values[:2].min() <= 0:
            damping *= 10
            continue
        trial = State(state.lens.with_parameters(values), turned, state.translations + dc[:, 3:])
        trial_cost = float(np.sum(weight[:, None] * _residual(trial, corners) ** 2))
        if trial_cost <= cost:
            gain = cost - trial_cost
            state, cost, damping = trial, trial_cost, max(damping / 10, 1e-12)
            if gain <= 1e-14 * cost or cost <= 1e-20 * len(weight):
                return state
            blocks = _blocks(state, corners, free, weight)
        else:
            damping *= 10
            # At the bottom rounding decides whether a step is better.
            if damping > 1e8:
                return state
    raise FitError("the fit does not converge: check the board's size and the corners' numbers")


def _step(blocks: _Blocks, free: NDArray[np.bool_], damping: float) -> tuple[Float, Float]:
    a, b, c, ga, gc = blocks
    c = c + _diagonal(c) * damping + _diagonal((c[:, [0], :1] <= 0) * np.ones_like(c))
    solved = np.linalg.solve(c, np.concatenate([np.swapaxes(b, 1, 2), gc[..., None]], axis=2))
    schur = a + _diagonal(a) * damping - np.einsum("vij,vjk->ik", b, solved[..., :-1])
    right = ga - np.einsum("vij,vj->i", b, solved[..., -1])
    da = np.zeros(len(a))
    if free.any():
        da[free] = _solve_scaled(schur[np.ix_(free, free)], right[free])
    return da, solved[..., -1] - solved[..., :-1] @ da


def _diagonal(matrix: Float) -> Float:
    return np.asarray(matrix * np.eye(matrix.shape[-1]))


def _solve_scaled(matrix: Float, right: Float) -> Float:
    # Focal lengths and distortion differ by ten orders of magnitude in their curvature.
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    return np.asarray(np.linalg.lstsq(matrix * scale * scale[:, None], right * scale, rcond=1e-15)[0] * scale)


def _covariance(blocks: _Blocks, free: NDArray[np.bool_]) -> tuple[Float, Float]:
    a, b, c, _, _ = blocks
    c = c + _diagonal((c[:, [0], :1] <= 0) * np.ones_like(c))
    inverse = np.linalg.inv(c)
    covariance = np.zeros_like(a)
    if free.any():
        schur = (a - np.einsum("vij,vjk,vlk->il", b, inverse, b))[np.ix_(free, free)]
        scale = 1 / np.sqrt(np.maximum(np.diag(schur), 1e-300))
        inner = np.linalg.pinv(schur * scale * scale[:, None], rcond=1e-13, hermitian=True)
        covariance[np.ix_(free, free)] = inner * scale * scale[:, None]
    reach = np.einsum("vij,vkj->vik", inverse, b)
    return covariance, inverse + reach @ covariance @ np.swapaxes(reach, 1, 2)
