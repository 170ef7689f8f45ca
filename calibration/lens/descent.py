"""Levenberg-Marquardt with the poses eliminated by their 6 x 6 blocks: the Schur complement.

What the corners say is summed up in ``kernels``; its derivatives are the lens's own business
(``LensModel.derivatives``).
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, lapack
from scipy.spatial.transform import Rotation

from calibration.geometry import Float
from calibration.lens.unknowns import Corners, Free, Index, Layout, Prior, State, layout_of, placed
from calibration.provenance import FitError

_TAIL_SIGMA = 2.0  # where the robust weights begin to fall
_FAR_PX = 1e6  # residual of a corner that the model cannot image
_STEPS = 80
_CREEP = 0.1  # gain in the second half of the steps, in units of chi-squared, that is no progress
_ROUNDING = 1e-13  # of a sum of squares
_UNTOLD = 1e-13  # part of the information on an unknown left by all others, below which there is none
_MANY = 100  # unknowns from which a factorisation is worth it
_SAFE = 1e-11  # reciprocal condition, far above what is untold


class Problem(NamedTuple):
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


class Equations(NamedTuple):
    """Weighted sum of squares of a state, and the normal equations of the step from it.

    Unknowns (f, f), unknowns with poses (v, f, 6), poses (v, 6, 6), and the right-hand sides.
    """

    cost: float
    a: Float
    b: Float
    c: Float
    ga: Float
    gc: Float


def problem_of(state: State, corners: Corners, free: Free, priors: tuple[Prior | None, ...]) -> Problem:
    """The unknowns sorted out."""
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
    return Problem(corners, layout, chosen, rank, seen_by, precision, mean)


def _values(state: State) -> Float:
    """Global unknowns (g,); a camera's are the small steps still to come."""
    lenses = [lens.parameters for lens in state.lenses]
    return np.concatenate([*lenses, np.zeros(6 * len(state.lenses)), state.board.values])


def residuals(problem: Problem, state: State, pixels: Float) -> Float:
    """Pixels minus model (n, 2), px; far off where the lens images nothing."""
    _, seen = placed(state, problem.corners)
    model = np.empty_like(pixels)
    for lens, mine in zip(state.lenses, problem.seen_by, strict=True):
        model[mine] = lens.project(seen[mine])
    return _far_where_lost(pixels - model)


def _far_where_lost(residual: Float) -> Float:
    residual[~np.isfinite(residual[:, 0] + residual[:, 1])] = _FAR_PX
    return residual


def equations(problem: Problem, state: State, pixels: Float, weight: Float, heavy: bool = False) -> Equations:
    """Normal equations of the step from a state; ``heavy`` lowers the weight of long residuals."""
    from calibration.lens.kernels import normal_equations

    corners, layout, rank = problem.corners, problem.layout, problem.rank
    turned, seen = placed(state, corners)
    parts = [lens.derivatives(seen[mine]) for lens, mine in zip(state.lenses, problem.seen_by, strict=True)]
    n, most = len(seen), max(part.by_parameters.shape[2] for part in parts)
    if len(parts) == 1:
        model, by_points, by_parameters, _ = parts[0]
    else:
        model, by_points, by_parameters = np.empty((n, 2)), np.empty((n, 2, 3)), np.zeros((n, 2, most))
    unknown = np.full((n, most), -1)
    for part, mine, at in zip(parts, problem.seen_by, layout.lens, strict=True):
        m = part.by_parameters.shape[2]
        unknown[mine, :m] = rank[at.start + (np.arange(m) if part.columns is None else part.columns)]
        if len(parts) > 1:
            model[mine], by_points[mine] = part.pixels, part.by_points
            by_parameters[mine, :, :m] = part.by_parameters
    shape = rank[layout.board]
    by_board = state.board.by_values(corners.points) if np.any(shape >= 0) else np.empty((0, 3, 4))
    residual = _far_where_lost(pixels - model)
    squares = weight * np.sum(residual**2, axis=1)
    cost = float(np.sum(squares))
    if heavy:
        cost = _TAIL_SIGMA**2 * float(np.sum(np.log1p(squares / _TAIL_SIGMA**2)))
        weight = weight / (1 + squares / _TAIL_SIGMA**2)
    a, b, c, ga, gc = normal_equations(
        residual, np.where(residual[:, 0] == _FAR_PX, 0.0, weight), by_points, by_parameters,
        unknown, turned, seen, by_board, corners.view, corners.camera,
        state.rotations, state.camera_rotations, state.camera_translations,
        rank[[at.start for at in layout.cameras]], shape, len(problem.free),
    )  # fmt: skip
    if len(problem.mean):
        away = _values(state)[problem.free] - problem.mean
        cost += float(away @ problem.precision @ away)
        a += problem.precision
        ga -= problem.precision @ away
    return Equations(cost, a, b, c, ga, gc)


def minimize(
    problem: Problem, state: State, pixels: Float, weight: Float, enough: float, heavy: bool = False
) -> State:
    """Levenberg-Marquardt until a step gains less than ``enough`` of the weighted sum of squares."""
    now = equations(problem, state, pixels, weight, heavy)
    damping, halfway = 1e-4, np.inf
    for number in range(_STEPS):
        if number == _STEPS // 2:
            halfway = now.cost
        trial = _moved(problem, state, *_step(now, damping))
        after = None if trial is None else equations(problem, trial, pixels, weight, heavy)
        gain = -np.inf if after is None else now.cost - after.cost
        if trial is not None and after is not None and gain >= 0:
            state, now, damping = trial, after, max(damping / 10, 1e-12)
        else:
            damping *= 10
        # At the bottom rounding decides whether a step is better.
        if abs(gain) <= _ROUNDING * now.cost or 0 <= gain <= enough or damping > 1e8:
            return state
    # Along a valley of hardly any slope, where a parameter is all but unknown, steps zigzag; they also do
    # beside the end of what the lens images, which a corner at the rim must not cross.
    if heavy or halfway - now.cost < _CREEP:
        return state
    raise FitError(
        "the fit does not converge: check the board's columns, rows and squares, or try another kind of lens"
    )


def _moved(problem: Problem, state: State, by: Float, poses: Float) -> State | None:
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


def _step(system: Equations, damping: float) -> tuple[Float, Float]:
    _, a, b, c, ga, gc = system
    c = c + _diagonal(c) * damping + _nothing_seen(c)
    solved = np.linalg.solve(c, np.concatenate([np.swapaxes(b, 1, 2), gc[..., None]], axis=2))
    if not len(a):
        return ga, solved[..., -1]
    schur = a + _diagonal(a) * damping - _summed(b, solved[..., :-1])
    right = ga - np.einsum("vij,vj->i", b, solved[..., -1])
    # Focal lengths and distortion differ by ten orders of magnitude in their curvature.
    scale = 1 / np.sqrt(np.maximum(np.diag(a), 1e-300))
    schur = schur * scale * scale[:, None]
    try:
        by = cho_solve(cho_factor(schur, lower=True), right * scale) * scale
    except LinAlgError:
        by = np.linalg.lstsq(schur, right * scale, rcond=1e-15)[0] * scale
    return by, solved[..., -1] - solved[..., :-1] @ by


def _summed(b: Float, reach: Float) -> Float:
    """Sum over the views of b (v, f, 6) @ reach (v, 6, f)."""
    return np.asarray(np.swapaxes(b, 0, 1).reshape(b.shape[1], -1) @ reach.reshape(-1, reach.shape[2]))


def _diagonal(matrix: Float) -> Float:
    return np.asarray(matrix * np.eye(matrix.shape[-1]))


def _nothing_seen(c: Float) -> Float:
    """Identity for the poses of views without a corner in use, which would be singular."""
    return np.asarray((np.trace(c, axis1=1, axis2=2) <= 0)[:, None, None] * np.eye(6))


def covariances(problem: Problem, system: Equations) -> tuple[Float, Float]:
    """Inverse of the normal equations: global unknowns (g, g), poses (v, 6, 6).

    Raises
    ------
    FitError
        An unknown on which the corners have nothing to say.
    """
    _, a, b, c, _, _ = system
    inverse = np.linalg.inv(c + _nothing_seen(c))
    reach = inverse @ np.swapaxes(b, 1, 2)
    size = problem.layout.board.stop
    covariance, free = np.zeros((size, size)), problem.free
    if len(free):
        inner = _known(problem, a, a - _summed(b, reach))
        covariance[np.ix_(free, free)] = inner
        inverse = inverse + reach @ inner @ np.swapaxes(reach, 1, 2)
    return covariance, np.asarray(inverse)


def _known(problem: Problem, a: Float, left: Float) -> Float:
    """Inverse (f, f) of what is ``left`` of the information ``a`` on the unknowns when the poses are free."""
    scale = 1 / np.sqrt(np.maximum(np.diag(a), 1e-300))
    schur = left * scale * scale[:, None]
    schur = (schur + schur.T) / 2
    inverse = inverse_of_many(schur)
    if inverse is None:
        values, axes = np.linalg.eigh(schur)
        if values[0] < _UNTOLD:
            raise FitError(
                f"{_name(problem, int(np.argmax(np.abs(axes[:, 0]))))} cannot be told from these views"
            )
        inverse = (axes / values) @ axes.T
    return np.asarray(inverse * scale * scale[:, None])


def inverse_of_many(matrix: Float) -> Float | None:
    """Inverse of a large symmetric matrix of unit scale by Cholesky; None where small, or near singular.

    A tenth of the time that the eigenvalues take, which are what tells a direction that has no information.
    """
    if len(matrix) < _MANY:
        return None
    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        return None
    condition, _ = lapack.dpocon(factor, float(np.abs(matrix).sum(axis=0).max()), uplo="L")
    if condition < _SAFE:
        return None
    lower = np.tril(lapack.dpotri(factor, lower=1)[0])
    return np.asarray(lower + np.tril(lower, -1).T)


def _name(problem: Problem, number: int) -> str:
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
