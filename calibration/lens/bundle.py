"""Bundle adjustment of lenses, cameras, board poses and the board's shape: robust least squares with covariance.

Levenberg-Marquardt with the poses eliminated by their 6 x 6 blocks (the Schur complement). What the corners say is
summed up in ``kernels``; which derivatives a lens has is its own business (``LensModel.derivatives``).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.geometry import Float
from calibration.lens.discs import disc_bias
from calibration.lens.model import BoardShape, LensModel
from calibration.provenance import FitError

_OUTLIER_SIGMA = 4.5  # of the length of a residual: one good corner in 25 000 is lost
_MOST_LOST = 0.5  # a view that has lost more of its corners is not the board it says it is
_TAIL_SIGMA = 2.0  # where the robust weights begin to fall
_FLOOR_PX = 1e-7  # exact data: rounding is no outlier
_FAR_PX = 1e6  # residual of a corner that the model cannot image
_ROUGH, _FINE = 1e-2, 1e-9  # gain, in units of chi-squared, at which a minimum is taken as reached
_UNTOLD = 1e-13  # part of the information on an unknown left by all others, below which there is none
FEW = 8  # corners for which a robust scale means nothing

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


class State(NamedTuple):
    """What is fitted, of c cameras and v board poses.

    Attributes
    ----------
    lenses : tuple of LensModel
        One a camera.
    camera_rotations, camera_translations : ndarray (c, 3, 3), (c, 3)
        camera_from_rig, mm. Identity for a camera alone.
    rotations, translations : ndarray (v, 3, 3), (v, 3)
        rig_from_board, mm.
    board : BoardShape
    """

    lenses: tuple[LensModel, ...]
    camera_rotations: Float
    camera_translations: Float
    rotations: Float
    translations: Float
    board: BoardShape = BoardShape()


class Corners(NamedTuple):
    """What is seen.

    Attributes
    ----------
    points : ndarray (n, 3)
        As the board is described, mm.
    pixels : ndarray (n, 2)
    sigma : ndarray (n,)
        Of a coordinate as the detection tells it, px; 0 where it tells nothing.
    view : ndarray (n,)
        Number of the pose; ascending.
    camera : ndarray (n,)
    disc_mm : float
        Radius of the discs whose centroids the pixels are; 0 for corners.
    """

    points: Float
    pixels: Float
    sigma: Float
    view: Index
    camera: Index
    disc_mm: float = 0.0


class Free(NamedTuple):
    """What is unknown besides the poses: a mask of parameters a lens, cameras (c,), and the board's shape.

    One camera, or the rig's frame is nowhere. ``scale`` only where the distance of two cameras is held.
    """

    lens: tuple[Mask, ...]
    cameras: Mask
    warp: bool = False
    aspect: bool = False
    scale: bool = False


class Prior(NamedTuple):
    """Gaussian prior on a lens's parameters: precision (p, p), dense or scipy.sparse, about a mean (p,)."""

    precision: Float
    mean: Float


class Layout(NamedTuple):
    """Where the global unknowns stand in ``Solution.covariance``.

    Attributes
    ----------
    lens : tuple of slice
        Parameters of each lens.
    cameras : tuple of slice
        Of each camera: a small turn about its own axes (rad; true rotation = turn after the fitted one), and
        the translation of camera_from_rig (mm).
    board : slice
        Warp along x and y (mm), aspect, scale.
    """

    lens: tuple[slice, ...]
    cameras: tuple[slice, ...]
    board: slice


class Solution(NamedTuple):
    """What came out.

    Attributes
    ----------
    state : State
    residual : ndarray (n, 2)
        Measured minus model, px; centroids of discs are corrected first.
    used : ndarray (n,) bool
        Corners not thrown out.
    sigma : ndarray (n,)
        Of a coordinate, px: the detection's, enlarged to what the residuals show.
    variance : float
        Mean square of a coordinate's residual per degree of freedom, px^2.
    covariance : ndarray (g, g)
        Of all global unknowns; zero rows for those held.
    layout : Layout
    pose_covariance : ndarray (v, 6, 6)
        Of a small turn about the rig's axes (rad) and of the translation (mm), the global unknowns' part
        included; NaN for a view without corners in use.
    """

    state: State
    residual: Float
    used: Mask
    sigma: Float
    variance: float
    covariance: Float
    layout: Layout
    pose_covariance: Float


def layout_of(state: State) -> Layout:
    """Where each global unknown of a state stands."""
    lens, at = [], 0
    for model in state.lenses:
        lens.append(slice(at, at + len(model.parameters)))
        at = lens[-1].stop
    cameras = tuple(slice(at + 6 * k, at + 6 * k + 6) for k in range(len(state.lenses)))
    at += 6 * len(state.lenses)
    return Layout(tuple(lens), cameras, slice(at, at + 4))


def solve(
    start: State, corners: Corners, free: Free, *, min_points: int = 6, priors: tuple[Prior | None, ...] = ()
) -> Solution:
    """Least squares with outliers thrown out.

    Heavy-tailed weights first (``approach``), so that a gross error does not pull the others out with it; then
    plain least squares over the corners within 4.5 sigmas, until they stay the same. A corner's variance is
    that of its detection plus one of the fit, at which the residuals are as large as they should be.

    Parameters
    ----------
    start : State
        First guess.
    corners : Corners
        What is seen.
    free : Free
        What is fitted besides the poses; all else stays.
    min_points : int
        What a camera sees of a view is left out whole when fewer corners, or less than half, remain.
    priors : tuple of Prior or None
        One a lens.

    Returns
    -------
    Solution

    Raises
    ------
    FitError
        No convergence, or an unknown that the corners do not tell.
    """
    problem = _problem(start, corners, free, priors)
    state, used = start, np.ones(len(corners.points), dtype=bool)
    if len(used) >= FEW:
        state, sigma = approach(start, corners, free, priors=priors)
        for _ in range(10):
            length = np.linalg.norm(_residual(problem, state, _corrected(state, corners)), axis=1)
            now = _agreeing(problem, length < _OUTLIER_SIGMA * sigma, min_points)
            settled = np.array_equal(now, used)
            used = now
            state, sigma = _refined(problem, state, used, sigma)
            if settled:
                break
    else:
        state, sigma = _refined(problem, state, used, np.ones(len(used)))
    freedom = _freedom(problem, used)
    if freedom < 1:
        raise FitError(f"{int(used.sum())} corners agree: too few for a fit")
    pixels = _corrected(state, corners)
    residual = _residual(problem, state, pixels)
    variance = float(np.sum(residual[used] ** 2)) / freedom
    covariance, poses = _covariance(problem, _sums(problem, state, pixels, used / sigma**2))
    poses[np.bincount(corners.view[used], minlength=len(poses)) == 0] = np.nan
    return Solution(state, residual, used, sigma, variance, covariance, problem.layout, poses)


def approach(
    start: State, corners: Corners, free: Free, *, priors: tuple[Prior | None, ...] = (), rounds: int = 12
) -> tuple[State, Float]:
    """Robust minimum near a first guess, and the sigma (n,) of a coordinate of each corner, px.

    Cauchy weights at the median's scale; a corner that the model cannot image weighs next to nothing.
    """
    problem = _problem(start, corners, free, priors)
    state, last = start, np.inf
    pixels = _corrected(state, corners)
    sigma = _robust_sigma(_residual(problem, state, pixels), corners.sigma)
    for _ in range(rounds):
        state = _minimize(problem, state, pixels, 1 / sigma**2, _ROUGH, heavy=True)
        pixels = _corrected(state, corners)
        last, sigma = float(np.median(sigma)), _robust_sigma(_residual(problem, state, pixels), corners.sigma)
        if np.median(sigma) > 0.8 * last:
            break
    return state, sigma


class _Problem(NamedTuple):
    """What stays the same from step to step."""

    corners: Corners
    layout: Layout
    free: Index
    """Of the g global unknowns, those to be fitted (f,)."""
    rank: Index
    """Of each global unknown, its number among the free ones; -1 where held."""
    seen_by: tuple[Index | slice, ...]
    """Corners of each camera."""
    precision: Float
    """Of the priors, on the free unknowns (f, f); (0, 0) without."""
    mean: Float


class _Sums(NamedTuple):
    """Normal equations: unknowns (f, f), with poses (v, f, 6), poses (v, 6, 6), right-hand sides."""

    a: Float
    b: Float
    c: Float
    ga: Float
    gc: Float


def _problem(state: State, corners: Corners, free: Free, priors: tuple[Prior | None, ...]) -> _Problem:
    layout = layout_of(state)
    board = np.array([free.warp, free.warp, free.aspect, free.scale])
    mask = np.concatenate([*free.lens, np.repeat(free.cameras, 6), board])
    chosen = np.flatnonzero(mask)
    seen_by: tuple[Index | slice, ...] = (slice(None),)
    if len(state.lenses) > 1:
        seen_by = tuple(np.flatnonzero(corners.camera == k) for k in range(len(state.lenses)))
    precision, mean = np.zeros((0, 0)), np.zeros(0)
    if any(prior is not None for prior in priors):
        precision, mean = np.zeros((len(mask), len(mask))), np.zeros(len(mask))
        for at, prior in zip(layout.lens, priors, strict=True):
            if prior is not None:
                dense = prior.precision.toarray() if hasattr(prior.precision, "toarray") else prior.precision
                precision[at, at], mean[at] = dense, prior.mean
        precision, mean = precision[np.ix_(chosen, chosen)], mean[chosen]
    rank = np.where(mask, np.cumsum(mask) - 1, -1)
    return _Problem(corners, layout, chosen, rank, seen_by, precision, mean)


def _values(state: State) -> Float:
    """Global unknowns (g,); a camera's are the small steps still to come."""
    lenses = [lens.parameters for lens in state.lenses]
    return np.concatenate([*lenses, np.zeros(6 * len(state.lenses)), state.board.values])


def _corrected(state: State, corners: Corners) -> Float:
    """Pixels of the discs' centres, where centroids were measured."""
    if corners.disc_mm == 0:
        return corners.pixels
    return corners.pixels - disc_bias(state, corners)


def _placed(state: State, corners: Corners) -> tuple[Float, Float]:
    from calibration.lens.kernels import place

    return place(
        state.board.shaped(corners.points), corners.view, corners.camera,
        state.rotations, state.translations, state.camera_rotations, state.camera_translations,
    )  # fmt: skip


def _residual(problem: _Problem, state: State, pixels: Float) -> Float:
    _, seen = _placed(state, problem.corners)
    model = np.empty_like(pixels)
    for lens, mine in zip(state.lenses, problem.seen_by, strict=True):
        model[mine] = lens.project(seen[mine])
    residual = pixels - model
    residual[~np.isfinite(residual).all(axis=1)] = _FAR_PX
    return residual


def _cost(problem: _Problem, state: State, residual: Float, weight: Float, heavy: bool) -> float:
    squares = weight * np.sum(residual**2, axis=1)
    if heavy:
        squares = _TAIL_SIGMA**2 * np.log1p(squares / _TAIL_SIGMA**2)
    cost = float(np.sum(squares))
    if len(problem.mean):
        away = _values(state)[problem.free] - problem.mean
        cost += float(away @ problem.precision @ away)
    return cost


def _sums(problem: _Problem, state: State, pixels: Float, weight: Float, heavy: bool = False) -> _Sums:
    from calibration.lens.kernels import normal_equations

    corners, layout, rank = problem.corners, problem.layout, problem.rank
    turned, seen = _placed(state, corners)
    parts = [lens.derivatives(seen[mine]) for lens, mine in zip(state.lenses, problem.seen_by, strict=True)]
    n, most = len(seen), max(part.by_parameters.shape[2] for part in parts)
    if len(parts) == 1:
        model, by_points, by_parameters, columns = parts[0]
        columns = np.broadcast_to(np.arange(most), (n, most)) if columns is None else columns
    else:
        model, by_points = np.empty((n, 2)), np.empty((n, 2, 3))
        by_parameters, columns = np.zeros((n, 2, most)), np.full((n, most), -1)
        for part, mine, at in zip(parts, problem.seen_by, layout.lens, strict=True):
            m = part.by_parameters.shape[2]
            model[mine], by_points[mine], by_parameters[mine, :, :m] = (
                part.pixels,
                part.by_points,
                part.by_parameters,
            )
            columns[mine, :m] = at.start + (np.arange(m) if part.columns is None else part.columns)
    residual = pixels - model
    lost = ~np.isfinite(residual).all(axis=1)
    if heavy:
        weight = weight / (1 + weight * np.sum(residual**2, axis=1) / _TAIL_SIGMA**2)
    a, b, c, ga, gc = normal_equations(
        residual, np.where(lost, 0.0, weight), by_points, by_parameters,
        np.where(columns < 0, -1, rank[columns]), turned, seen, state.board.by_values(corners.points),
        corners.view, corners.camera, state.rotations, state.camera_rotations, state.camera_translations,
        rank[[at.start for at in layout.cameras]], rank[layout.board], len(problem.free),
    )  # fmt: skip
    if len(problem.mean):
        a += problem.precision
        ga -= problem.precision @ (_values(state)[problem.free] - problem.mean)
    return _Sums(a, b, c, ga, gc)


def _minimize(
    problem: _Problem, state: State, pixels: Float, weight: Float, enough: float, heavy: bool = False
) -> State:
    """Levenberg-Marquardt until a step gains less than ``enough`` of the weighted sum of squares."""
    cost = _cost(problem, state, _residual(problem, state, pixels), weight, heavy)
    sums = _sums(problem, state, pixels, weight, heavy)
    damping = 1e-4
    for _ in range(200):
        trial = _moved(problem, state, *_step(sums, damping))
        after = np.inf
        if trial is not None:
            after = _cost(problem, trial, _residual(problem, trial, pixels), weight, heavy)
        if trial is not None and after <= cost:
            gain = cost - after
            state, cost, damping = trial, after, max(damping / 10, 1e-12)
            if gain <= enough + 1e-14 * cost:
                return state
            sums = _sums(problem, state, pixels, weight, heavy)
        else:
            damping *= 10
            # At the bottom rounding decides whether a step is better.
            if damping > 1e8:
                return state
    if heavy:
        return state
    raise FitError("the fit does not converge: check the board's size and the corners' numbers")


def _moved(problem: _Problem, state: State, by: Float, poses: Float) -> State | None:
    """State after a step of the free unknowns (f,) and of the poses (v, 6); None where no lens is left."""
    values = _values(state)
    values[problem.free] += by
    lenses = []
    for lens, at in zip(state.lenses, problem.layout.lens, strict=True):
        if values[at][:2].min() <= 0:
            return None
        lenses.append(lens.with_parameters(values[at]) if np.any(problem.rank[at] >= 0) else lens)
    cameras = values[problem.layout.cameras[0].start : problem.layout.board.start].reshape(-1, 6)
    turns = state.camera_rotations
    if cameras.any():
        turns = Rotation.from_rotvec(cameras[:, :3]).as_matrix() @ turns
    board = state.board
    if np.any(problem.rank[problem.layout.board] >= 0):
        if values[problem.layout.board][2:].min() <= 0:
            return None
        board = board.with_values(values[problem.layout.board])
    return State(
        tuple(lenses),
        turns,
        state.camera_translations + cameras[:, 3:],
        Rotation.from_rotvec(poses[:, :3]).as_matrix() @ state.rotations,
        state.translations + poses[:, 3:],
        board,
    )


def _step(sums: _Sums, damping: float) -> tuple[Float, Float]:
    a, b, c, ga, gc = sums
    c = c + _diagonal(c) * damping + _nothing_seen(c)
    solved = np.linalg.solve(c, np.concatenate([np.swapaxes(b, 1, 2), gc[..., None]], axis=2))
    if not len(a):
        return ga, solved[..., -1]
    schur = a + _diagonal(a) * damping - _summed(b, solved[..., :-1])
    right = ga - np.einsum("vij,vj->i", b, solved[..., -1])
    # Focal lengths and distortion differ by ten orders of magnitude in their curvature.
    scale = 1 / np.sqrt(np.maximum(np.diag(a), 1e-300))
    by = np.linalg.lstsq(schur * scale * scale[:, None], right * scale, rcond=1e-15)[0] * scale
    return by, solved[..., -1] - solved[..., :-1] @ by


def _summed(b: Float, reach: Float) -> Float:
    """Sum over the views of b (v, f, 6) @ reach (v, 6, f)."""
    return np.asarray(np.swapaxes(b, 0, 1).reshape(b.shape[1], -1) @ reach.reshape(-1, reach.shape[2]))


def _diagonal(matrix: Float) -> Float:
    return np.asarray(matrix * np.eye(matrix.shape[-1]))


def _nothing_seen(c: Float) -> Float:
    """Identity for the poses of views without a corner in use, which would be singular."""
    return np.asarray((np.trace(c, axis1=1, axis2=2) <= 0)[:, None, None] * np.eye(6))


def _refined(problem: _Problem, state: State, used: Mask, sigma: Float) -> tuple[State, Float]:
    """Minimum of plain least squares, and the sigmas at which its residuals are as they should be."""
    corners = problem.corners
    for _ in range(8):
        pixels = _corrected(state, corners)
        state = _minimize(problem, state, pixels, used / sigma**2, _FINE)
        before, sigma = (
            sigma,
            _fitted_sigma(_residual(problem, state, pixels), corners.sigma, used, _freedom(problem, used)),
        )
        moved = np.abs(sigma / before - sigma[0] / before[0]).max() if len(sigma) else 0.0
        if moved < 1e-3 and corners.disc_mm == 0:
            break
    return state, sigma


def _freedom(problem: _Problem, used: Mask) -> int:
    return 2 * int(used.sum()) - 6 * len(np.unique(problem.corners.view[used])) - len(problem.free)


def _agreeing(problem: _Problem, near: Mask, min_points: int) -> Mask:
    """Corners that are near the model, without what cameras saw of views that have lost too many."""
    corners = problem.corners
    cameras = len(problem.seen_by)
    sight = corners.view * cameras + corners.camera
    total = np.bincount(sight)
    left = np.bincount(sight[near], minlength=len(total))
    whole = (left >= min_points) & (left >= (1 - _MOST_LOST) * total)
    return np.asarray(near & whole[sight])


def _robust_sigma(residual: Float, told: Float) -> Float:
    """Sigma of a coordinate (n,), px: the detection's, enlarged so that the median length is as it should be."""
    # The median of a Rayleigh variable is 1.1774 sigma.
    usual = float(np.median(np.sum(residual**2, axis=1))) / 1.1774**2
    variance = np.maximum(told, _FLOOR_PX) ** 2
    claimed = float(np.median(variance))
    return np.asarray(np.sqrt(variance * min(usual / claimed, 1.0) + max(usual - claimed, 0.0)))


def _fitted_sigma(residual: Float, told: Float, used: Mask, freedom: int) -> Float:
    """Sigma of a coordinate (n,), px: with it, the squares of the corners in use sum up to the freedom.

    After R. C. Paule and J. Mandel, J. Res. NBS 87 (1982), doi:10.6028/jres.087.022.
    """
    squares, variance = np.sum(residual[used] ** 2, axis=1), np.maximum(told[used], _FLOOR_PX) ** 2
    claimed = float(np.sum(squares / variance)) / max(freedom, 1)
    if claimed <= 1:
        # The detection claims more scatter than there is.
        return np.maximum(told * np.sqrt(claimed), _FLOOR_PX)
    # The sum falls and is convex in the added variance: Newton from below does not overshoot.
    added = max(float(np.sum(squares)) / max(freedom, 1) - float(np.max(variance)), 0.0)
    for _ in range(50):
        terms = squares / (variance + added)
        step = (float(np.sum(terms)) - freedom) / float(np.sum(terms / (variance + added)))
        added += step
        if step <= 1e-9 * added:
            break
    return np.asarray(np.sqrt(np.maximum(told, _FLOOR_PX) ** 2 + added))


def _covariance(problem: _Problem, sums: _Sums) -> tuple[Float, Float]:
    a, b, c, _, _ = sums
    inverse = np.linalg.inv(c + _nothing_seen(c))
    reach = inverse @ np.swapaxes(b, 1, 2)
    size = problem.layout.board.stop
    covariance, free = np.zeros((size, size)), problem.free
    if len(free):
        scale = 1 / np.sqrt(np.maximum(np.diag(a), 1e-300))
        schur = (a - _summed(b, reach)) * scale * scale[:, None]
        left, axes = np.linalg.eigh((schur + schur.T) / 2)
        if left[0] < _UNTOLD:
            raise FitError(
                f"{_name(problem, int(np.argmax(np.abs(axes[:, 0]))))} cannot be told from these views"
            )
        inner = (axes / left) @ axes.T * scale * scale[:, None]
        covariance[np.ix_(free, free)] = inner
        inverse = inverse + reach @ inner @ np.swapaxes(reach, 1, 2)
    return covariance, np.asarray(inverse)


def _name(problem: _Problem, number: int) -> str:
    """What the free unknown of that number is called in messages."""
    at = int(problem.free[number])
    board = at - problem.layout.board.start
    if board >= 0:
        return ("the warp of the board along x", "the warp of the board along y", "the aspect of the board",
                "the scale of the board")[board]  # fmt: skip
    for k, place in enumerate(problem.layout.cameras):
        if place.start <= at < place.stop:
            return f"the place of camera {k + 1}"
    return "the lens"
