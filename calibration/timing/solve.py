"""Least squares of the timing: rows' brightness eliminated, frames' jitter and flicker as random effects."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.timing.problem import CAMERA_UNKNOWNS, LIGHT_UNKNOWNS, Group, Problem, reach
from calibration.timing.pulse import AT_ONCE_S, pulse_share

_STEPS, _ROUNDS = 60, 30
_CONVERGED = 1e-10
_OTHER_LAGS = ((6.0, 6.0), (1.0, 6.0), (6.0, 1.0), (0.15, 0.15))
# Weak knowledge that keeps what the frames do not tell finite.
_LEVEL_SIGMA = 0.5
_OFFSET_SHARE = 0.3
# Random effects are fitted where the frames' own estimates of them scatter this much beyond their sigmas.
_EFFECT_SIGMA = 4.0
_EXPLAINED = 4.0


class Solution(NamedTuple):
    """Unknowns with their covariance.

    ``effects``: (strobed, 2) of each group, shift s and relative brightness; ``scatter`` their standard
    deviations; ``misfit`` is chi square over ``freedom``, and the covariance is widened by it;
    ``unexplained`` is the root mean square residual of the strobed frames as a share of steady burning.
    """

    theta: Float
    covariance: Float
    effects: tuple[Float, ...]
    scatter: tuple[float, float]
    misfit: float
    freedom: int
    unexplained: float


class _Normal(NamedTuple):
    """Chi square, priors included, its half gradient and the normal matrix; effects follow the unknowns."""

    cost: float
    misfit: float
    gradient: Float
    matrix: Float


def solve(problem: Problem, starts: Sequence[Float]) -> Solution:
    """Minimise from the most promising start; then let frames jitter and flicker where they do."""
    prior = _prior(problem)
    none = _no_effects(problem)
    tried = [_descend(problem, start, none, (0.0, 0.0), prior, steps=6) for start in starts]
    theta = min(tried, key=lambda found: found[2].cost)[0]
    theta, effects, normal = _descend(problem, theta, none, (0.0, 0.0), prior)
    # quick lights may have a second, shallower minimum where rise or fall trades against the exposure's ends
    for factors in _OTHER_LAGS:
        start = theta.copy()
        for number in range(problem.lights):
            at = problem.of_light(number).start
            start[at + 1 : at + 3] = np.maximum(start[at + 1 : at + 3], 10 * AT_ONCE_S) * factors
        other = _descend(problem, start, none, (0.0, 0.0), prior)
        if other[2].cost < normal.cost:
            theta, effects, normal = other
    scatter = _seen_scatter(problem, theta, prior)
    count = len(theta)
    frames = [group.dark / group.sharing + group.steady + len(group.delay_s) - 2 for group in problem.groups]
    used = int(sum(frames) * len(problem.row)) - count
    if any(scatter):
        moving = _with_effects(problem, theta, scatter, prior)
        # where frames that jitter and flicker do not explain the misfit, they only hide it
        scatter = (0.0, 0.0)
        if moving[2].misfit < _EXPLAINED * used:
            theta, effects, normal, scatter = moving
    misfit = normal.misfit / max(used, 1)
    covariance = _inverse(normal.matrix)[:count, :count] * max(misfit, 1.0)
    covariance[CAMERA_UNKNOWNS, :] = covariance[:, CAMERA_UNKNOWNS] = 0.0
    off = [
        (group.shares()[0] - _slopes(problem, group, theta, values).share[group.dark + group.steady :]) ** 2
        for group, values in zip(problem.groups, effects, strict=True)
    ]
    unexplained = float(np.sqrt(np.mean(np.concatenate([part.ravel() for part in off]))))
    return Solution(theta, covariance, effects, scatter, misfit, used, unexplained)


def _prior(problem: Problem) -> tuple[Float, Float]:
    """Value and precision that are taken for granted of each unknown, much wider than any answer."""
    count = CAMERA_UNKNOWNS + LIGHT_UNKNOWNS * problem.lights
    value, sigma = np.zeros(count), np.full(count, np.inf)
    low, high = reach(problem.groups)
    value[0], sigma[0] = 0.5 * (low + high), high - low
    sigma[1] = (high - low) / problem.height
    sigma[2] = _OFFSET_SHARE * max(group.exposure_s for group in problem.groups)
    for number in range(problem.lights):
        at = problem.of_light(number).start
        longest = max(float(g.duration_s.max()) for g in problem.groups if g.light == number)
        sigma[at + 1 : at + 3] = longest
        value[at + 3], sigma[at + 3] = 1.0, _LEVEL_SIGMA
        sigma[at] = longest + high - low
    # the first light's delay is the reference
    sigma[CAMERA_UNKNOWNS] = AT_ONCE_S
    return value, 1 / sigma**2


def _no_effects(problem: Problem) -> tuple[Float, ...]:
    return tuple(np.zeros((len(group.delay_s), 2)) for group in problem.groups)


def _descend(
    problem: Problem,
    theta: Float,
    effects: tuple[Float, ...],
    scatter: tuple[float, float],
    prior: tuple[Float, Float],
    steps: int = _STEPS,
) -> tuple[Float, tuple[Float, ...], _Normal]:
    """Levenberg and Marquardt's descent; rise and fall stay at or above 0."""
    damping = 1e-3
    normal = _assemble(problem, theta, effects, scatter, prior)
    floor = np.full(len(theta), -np.inf)
    for number in range(problem.lights):
        at = problem.of_light(number).start
        floor[at + 1 : at + 3] = AT_ONCE_S
        floor[at + 3] = 1e-3
    for _ in range(steps):
        free = np.ones(len(normal.gradient), bool)
        # an unknown at its floor that wants to go below is held there
        free[: len(theta)] = ~((theta <= floor) & (normal.gradient[: len(theta)] <= 0))
        step = np.zeros(len(normal.gradient))
        matrix = normal.matrix[np.ix_(free, free)]
        step[free] = _solve(matrix, normal.gradient[free], damping)
        trial = np.maximum(theta + step[: len(theta)], floor)
        moved = _moved(effects, step[len(theta) :], scatter)
        after = _assemble(problem, trial, moved, scatter, prior)
        gain = normal.cost - after.cost
        if gain < 0:
            damping *= 8
            if damping > 1e9:
                break
            continue
        theta, effects, normal, damping = trial, moved, after, max(damping / 6, 1e-9)
        if gain <= _CONVERGED * max(normal.cost, 1.0):
            break
    return theta, effects, normal


def _moved(effects: tuple[Float, ...], step: Float, scatter: tuple[float, float]) -> tuple[Float, ...]:
    if not any(scatter):
        return effects
    ends = np.cumsum([values.size for values in effects])[:-1]
    parts = np.split(step, ends)
    return tuple(values + part.reshape(values.shape) for values, part in zip(effects, parts, strict=True))


def _solve(matrix: Float, gradient: Float, damping: float) -> Float:
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), np.finfo(np.float64).tiny))
    scaled = matrix * scale[:, None] * scale
    scaled[np.diag_indices_from(scaled)] += damping
    try:
        return np.asarray(scale * np.linalg.solve(scaled, scale * gradient))
    except np.linalg.LinAlgError:
        return np.asarray(scale * np.linalg.lstsq(scaled, scale * gradient, rcond=None)[0])


def _inverse(matrix: Float) -> Float:
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), np.finfo(np.float64).tiny))
    return np.asarray(
        np.linalg.pinv(matrix * scale[:, None] * scale, hermitian=True) * scale[:, None] * scale
    )


class _Slopes(NamedTuple):
    """Share of each frame (all, rows), its derivatives by a group's unknowns, and by a frame's effects."""

    share: Float
    by_unknown: Float
    by_effect: Float
    columns: NDArray[np.intp]


def _slopes(problem: Problem, group: Group, theta: Float, effects: Float) -> _Slopes:
    still = group.dark + group.steady
    at = problem.of_light(group.light).start
    delay, rise, fall, level = theta[at : at + LIGHT_UNKNOWNS]
    start = theta[0] + theta[1] * problem.row - delay
    pulse = pulse_share(
        start + (effects[:, 0] - group.delay_s)[:, None],
        np.asarray(group.exposure_s + theta[2]),
        group.duration_s[:, None],
        rise,
        fall,
    )
    height = (level * (1 + effects[:, 1]))[:, None]
    share = np.zeros((len(group.signal), len(problem.row)))
    share[group.dark : still] = 1.0
    share[still:] = height * pulse.value
    by_start = height * pulse.by_start
    slopes = np.zeros((CAMERA_UNKNOWNS + LIGHT_UNKNOWNS, *share.shape))
    for index, values in enumerate(
        (
            by_start,
            by_start * problem.row,
            height * pulse.by_exposure,
            -by_start,
            height * pulse.by_rise,
            height * pulse.by_fall,
            share[still:] / level,
        )
    ):
        slopes[index, still:] = values
    columns = np.array([*range(CAMERA_UNKNOWNS), *range(at, at + LIGHT_UNKNOWNS)])
    return _Slopes(share, slopes, np.stack([by_start, level * pulse.value]), columns)


def _assemble(
    problem: Problem,
    theta: Float,
    effects: tuple[Float, ...],
    scatter: tuple[float, float],
    prior: tuple[Float, Float],
) -> _Normal:
    """Sum the normal equations; dark and bright of every row, which enter linearly, are eliminated."""
    count = len(theta)
    random = any(scatter)
    size = count + (sum(values.size for values in effects) if random else 0)
    matrix, gradient = np.zeros((size, size)), np.zeros(size)
    off = prior[0] - theta
    matrix[np.arange(count), np.arange(count)] += prior[1]
    gradient[:count] += prior[1] * off
    misfit, penalty = 0.0, float(prior[1] @ off**2)
    first = count
    for group, values in zip(problem.groups, effects, strict=True):
        told = _slopes(problem, group, theta, values)
        weight, share = group.weight, told.share
        # an orthonormal basis of what dark and bright of a row can do
        total = weight.sum(axis=0)
        centred = share - (weight * share).sum(axis=0) / total
        power = (weight * centred**2).sum(axis=0)
        plain, slope = 1 / np.sqrt(total), centred / np.sqrt(power)
        black = (weight * group.signal).sum(axis=0) / total
        bright = (weight * centred * group.signal).sum(axis=0) / power
        residual = group.signal - black - bright * centred
        misfit += float((weight * residual**2).sum())
        by_unknown = (bright * told.by_unknown).reshape(len(told.columns), -1)
        weighted = by_unknown * weight.ravel()
        seen = np.stack(
            [
                (weighted.reshape(-1, *share.shape) * basis).sum(axis=1)
                for basis in (np.broadcast_to(plain, share.shape), slope)
            ],
            axis=1,
        ).reshape(len(told.columns), -1)
        at = np.ix_(told.columns, told.columns)
        matrix[at] += _inner(weighted, by_unknown) - _inner(seen, seen)
        gradient[told.columns] += _inner(weighted, residual.reshape(1, -1))[:, 0]
        if not random:
            continue
        still = group.dark + group.steady
        strobed = len(group.delay_s)
        own = (bright * told.by_effect).swapaxes(0, 1)  # (strobed, 2, rows)
        heavy = own * weight[still:, None]
        own_seen = np.concatenate([heavy * plain, heavy * slope[still:, None]], axis=-1).reshape(
            2 * strobed, -1
        )
        block = -_inner(own_seen, own_seen)
        inner = np.einsum("fkr,flr->fkl", heavy, own)
        for index in range(strobed):
            block[2 * index : 2 * index + 2, 2 * index : 2 * index + 2] += inner[index]
        here = np.arange(first, first + 2 * strobed)
        precision = np.tile([1 / s**2 if s > 0 else 1e30 for s in scatter], strobed)
        flat = values.ravel()
        block[np.diag_indices_from(block)] += precision
        matrix[np.ix_(here, here)] += block
        cross = by_unknown.reshape(-1, *share.shape)[:, still:]
        mixed = np.einsum("ufr,fkr->ufk", cross, heavy).reshape(len(told.columns), -1) - _inner(
            seen, own_seen
        )
        matrix[np.ix_(told.columns, here)] += mixed
        matrix[np.ix_(here, told.columns)] += mixed.T
        gradient[here] += np.einsum("fkr,fr->fk", heavy, residual[still:]).ravel() - precision * flat
        penalty += float(precision @ flat**2)
        first += 2 * strobed
    return _Normal(misfit + penalty, misfit, gradient, matrix)


def _inner(one: Float, two: Float) -> Float:
    """Products of rows (n, k) and (m, k): summed in one order, whatever the number of threads."""
    return np.asarray(np.einsum("ik,jk->ij", one, two))


# ------------------------------------------------------------------------------------------ random effects


def _seen_scatter(problem: Problem, theta: Float, prior: tuple[Float, Float]) -> tuple[float, float]:
    """First guess of jitter and flicker, 0 where the frames scatter no more than their noise lets them."""
    excess, found = [], []
    for effect in range(2):
        value, information = [], []
        for group, values in zip(problem.groups, _no_effects(problem), strict=True):
            told = _slopes(problem, group, theta, values)
            total = group.weight.sum(axis=0)
            centred = told.share - (group.weight * told.share).sum(axis=0) / total
            power = (group.weight * centred**2).sum(axis=0)
            bright = (group.weight * centred * group.signal).sum(axis=0) / power
            black = (group.weight * group.signal).sum(axis=0) / total
            still = group.dark + group.steady
            residual = (group.signal - black - bright * centred)[still:]
            own = bright * told.by_effect[effect]
            weight = group.weight[still:]
            value += (weight * own * residual).sum(axis=1).tolist()
            information += (weight * own**2).sum(axis=1).tolist()
        gain, known = np.array(value), np.array(information)
        told_by = known > 1e-6 * known.max()
        if not told_by.any():
            return 0.0, 0.0
        score = gain[told_by] ** 2 / known[told_by]
        count = len(score)
        excess.append(score.sum() > count + _EFFECT_SIGMA * np.sqrt(2 * count))
        estimate = gain[told_by] / known[told_by]
        found.append(float(np.sqrt(np.average(estimate**2, weights=known[told_by]))))
    # one can look like the other: where one is seen, both are fitted
    return (found[0], found[1]) if any(excess) else (0.0, 0.0)


def _with_effects(
    problem: Problem, theta: Float, scatter: tuple[float, float], prior: tuple[Float, Float]
) -> tuple[Float, tuple[Float, ...], _Normal, tuple[float, float]]:
    """Alternate the unknowns and the variances of the effects (MacKay's fixed point of the evidence)."""
    effects = _no_effects(problem)
    count = len(theta)
    told = [np.inf, np.inf]
    for _ in range(_ROUNDS):
        theta, effects, normal = _descend(problem, theta, effects, scatter, prior, steps=4)
        spread = np.diag(_inverse(normal.matrix))[count:].reshape(-1, 2)
        value = np.concatenate(effects)
        new = []
        for effect in range(2):
            if scatter[effect] == 0:
                new.append(0.0)
                continue
            told[effect] = float(np.clip(1 - spread[:, effect] / scatter[effect] ** 2, 1e-6, 1).sum())
            sigma = float(np.sqrt((value[:, effect] ** 2).sum() / told[effect]))
            # below a hundredth of what a frame can tell it is nothing
            least = 0.01 * float(np.sqrt(np.median(spread[:, effect])))
            new.append(sigma if sigma > max(least, 1e-12) else 0.0)
        change = max(abs(a - b) / b if b > 0 else 0.0 for a, b in zip(new, scatter, strict=True))
        scatter = (new[0], new[1])
        if change < 0.01:
            break
        if not any(scatter):
            effects = _no_effects(problem)
            break
    theta, effects, normal = _descend(problem, theta, effects, scatter, prior)
    # a scatter that so few frames tell is itself uncertain: the variance of Student's t
    few = [max(count, 3.0) for count in told]
    wide = [s * float(np.sqrt(1 + 2 / (n - 2))) if s > 0 else 0.0 for s, n in zip(scatter, few, strict=True)]
    if any(scatter):
        normal = _assemble(problem, theta, effects, (wide[0], wide[1]), prior)
    return theta, effects, normal, scatter
