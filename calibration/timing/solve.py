"""Least squares of the timing: rows' brightness eliminated, frames' jitter and flicker as random effects."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.timing.pulse import AT_ONCE_S, pulse_share

Float = NDArray[np.float64]

# Unknowns of the camera: start of the middle row, line time, exposure offset; then four of each light.
_CAMERA, _LIGHT = 3, 4
_ROWS, _STARTS, _ENDS, _CANDIDATES = 24, 3000, 320, 6
_STEPS, _ROUNDS = 60, 30
_CONVERGED = 1e-10
_OTHER_LAGS = ((6.0, 6.0), (1.0, 6.0), (6.0, 1.0), (0.15, 0.15))
# Weak knowledge that keeps what the frames do not tell finite.
_LEVEL_SIGMA = 0.5
_OFFSET_SHARE = 0.3
# Random effects are fitted where the frames' own estimates of them scatter this much beyond their sigmas.
_EFFECT_SIGMA = 4.0
_EXPLAINED = 4.0


class Group(NamedTuple):
    """Frames of one exposure under one light: ``dark`` dark ones, ``steady`` steady ones, then the strobed.

    ``signal`` and ``weight`` (one over the variance) are (all frames, rows kept); ``frame``, ``delay_s`` and
    ``duration_s`` are of the strobed ones, ``frame`` their numbers among what was given. The dark frames are
    those of ``sharing`` groups, each of which has that part of their weight.
    """

    light: int
    exposure_s: float
    frame: NDArray[np.intp]
    delay_s: Float
    duration_s: Float
    dark: int
    steady: int
    sharing: int
    signal: Float
    weight: Float

    def shares(self) -> tuple[Float, Float]:
        """Strobed frames as shares of steady burning, (strobed, rows), with their sigma."""
        pulsed = self.dark + self.steady
        bright, black = slice(self.dark, pulsed), slice(0, self.dark)
        mean, noise = [], []
        for part in (bright, black):
            whole = self.weight[part].sum(axis=0)
            mean.append((self.signal[part] * self.weight[part]).sum(axis=0) / whole)
            noise.append(1 / whole)
        height = mean[0] - mean[1]
        # a row without light is not brighter than its noise
        height = np.maximum(height, 1e-3 * np.sqrt(noise[0] + noise[1]))
        share = (self.signal[pulsed:] - mean[1]) / height
        variance = 1 / self.weight[pulsed:] + noise[1] * (1 - share) ** 2 + noise[0] * share**2
        return share, np.sqrt(variance) / height


class Problem(NamedTuple):
    """All groups, and the rows kept as distances from the middle row of ``height``."""

    groups: tuple[Group, ...]
    row: Float
    height: int
    lights: int

    @property
    def row_index(self) -> NDArray[np.intp]:
        """Numbers of the rows kept, from 0 at the top."""
        return np.asarray(np.round(self.row + 0.5 * (self.height - 1)), np.intp)

    def of_light(self, number: int) -> slice:
        """Where a light's delay, rise, fall and level stand among the unknowns."""
        return slice(_CAMERA + _LIGHT * number, _CAMERA + _LIGHT * (number + 1))

    def names(self, lights: Sequence[str]) -> tuple[str, ...]:
        """Names of the unknowns."""
        own = ("delay", "rise", "fall", "level")
        camera = ("middle", "line_time", "exposure_offset")
        return (*camera, *(f"{name} {what}" for name in lights for what in own))

    def without(self, strays: Sequence[int]) -> Self:
        """The problem less some strobed frames."""
        groups = []
        for group in self.groups:
            keep = ~np.isin(group.frame, strays)
            every = np.concatenate([np.ones(group.dark + group.steady, bool), keep])
            if keep.any():
                groups.append(
                    group._replace(
                        frame=group.frame[keep],
                        delay_s=group.delay_s[keep],
                        duration_s=group.duration_s[keep],
                        signal=group.signal[every],
                        weight=group.weight[every],
                    )
                )
        if {group.light for group in groups} != set(range(self.lights)):
            raise FitError("no strobed frame of a light agrees with those of the others")
        return self._replace(groups=tuple(groups))


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


# ------------------------------------------------------------------------------------------ where to begin


def find_starts(problem: Problem, stray: float) -> tuple[list[Float], list[int]]:
    """Unknowns to begin from, best first, and the numbers of the frames that fit none of them.

    The starts of the first and the last row are searched over everything that the delays reach, for lights
    that follow at once: for each row and start the misfit of all frames is summed once, and a line of starts
    is then a walk through that table.
    """
    pick = np.unique(np.linspace(0, len(problem.row) - 1, _ROWS).round().astype(int))
    first = [group for group in problem.groups if group.light == 0]
    low, high = _reach(first)
    starts = np.linspace(low, high, _STARTS)
    table = np.zeros((len(pick), _STARTS))
    for group in first:
        share = np.clip(group.shares()[0][:, pick], -1, 2)
        for index in range(len(group.delay_s)):
            model = _at_once(starts - group.delay_s[index], group.exposure_s, group.duration_s[index])
            # what is far off says no more than that it is off
            table += np.minimum((share[index][:, None] - model) ** 2, stray**2)
    ends = np.linspace(0, _STARTS - 1, _ENDS)
    half = 0.5 * (problem.height - 1)
    place = (problem.row[pick] + half) / (2 * half)
    at = ends[:, None, None] + (ends[None, :, None] - ends[:, None, None]) * place
    cost = table[np.arange(len(pick)), np.round(at).astype(np.intp)].sum(axis=-1)
    found = []
    reach = max(2, _ENDS // 40)
    for _ in range(_CANDIDATES):
        i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
        if not np.isfinite(cost[i, j]):
            break
        cost[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1] = np.inf
        top, bottom = np.interp([ends[i], ends[j]], np.arange(_STARTS), starts)
        found.append(_begin(problem, 0.5 * (top + bottom), (bottom - top) / (2 * half)))
    best = found[0]
    strays = []
    for group in problem.groups:
        start = best[0] + best[1] * problem.row[pick] - best[problem.of_light(group.light)][0]
        share = group.shares()[0][:, pick]
        for index, number in enumerate(group.frame.tolist()):
            model = _at_once(start - group.delay_s[index], group.exposure_s, group.duration_s[index])
            if np.sqrt(np.mean((share[index] - model) ** 2)) > stray:
                strays.append(number)
    return found, strays


def _reach(groups: Sequence[Group]) -> tuple[float, float]:
    """Between which starts of a row some pulse falls into its exposure."""
    low = min(float(group.delay_s.min()) - group.exposure_s for group in groups)
    return low, max(float((group.delay_s + group.duration_s).max()) for group in groups)


def _at_once(start_s: Float, exposure_s: float, duration_s: float) -> Float:
    """Share of the exposure that a pulse without rise and fall fills."""
    overlap = np.minimum(start_s + exposure_s, duration_s) - np.maximum(start_s, 0.0)
    return np.asarray(np.maximum(overlap, 0.0) / exposure_s)


def _begin(problem: Problem, middle_s: float, line_s: float) -> Float:
    theta = np.zeros(_CAMERA + _LIGHT * problem.lights)
    theta[:2] = middle_s, line_s
    start = middle_s + line_s * problem.row
    for number in range(problem.lights):
        groups = [group for group in problem.groups if group.light == number]
        tau = 0.02 * min(group.exposure_s for group in groups)
        delay = 0.0
        if number:
            span = max(float((group.delay_s + group.duration_s).max()) for group in groups)
            trial = np.linspace(-0.5 * span, 0.5 * span, 401)
            pick = np.linspace(0, len(start) - 1, _ROWS).astype(int)
            cost = np.zeros(len(trial))
            for group in groups:
                share = group.shares()[0][:, pick]
                for index in range(len(group.delay_s)):
                    at = start[pick] - group.delay_s[index] - trial[:, None]
                    model = _at_once(at, group.exposure_s, group.duration_s[index])
                    cost += np.minimum((share[index] - model) ** 2, 0.06).sum(axis=1)
            delay = float(trial[np.argmin(cost)])
        theta[problem.of_light(number)] = delay, tau, tau, 1.0
    return theta


# ------------------------------------------------------------------------------------------- least squares


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
    covariance[_CAMERA, :] = covariance[:, _CAMERA] = 0.0
    off = [
        (group.shares()[0] - _slopes(problem, group, theta, values).share[group.dark + group.steady :]) ** 2
        for group, values in zip(problem.groups, effects, strict=True)
    ]
    unexplained = float(np.sqrt(np.mean(np.concatenate([part.ravel() for part in off]))))
    return Solution(theta, covariance, effects, scatter, misfit, used, unexplained)


def _prior(problem: Problem) -> tuple[Float, Float]:
    """Value and precision that are taken for granted of each unknown, much wider than any answer."""
    count = _CAMERA + _LIGHT * problem.lights
    value, sigma = np.zeros(count), np.full(count, np.inf)
    low, high = _reach(problem.groups)
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
    sigma[_CAMERA] = AT_ONCE_S
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
    delay, rise, fall, level = theta[at : at + _LIGHT]
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
    slopes = np.zeros((_CAMERA + _LIGHT, *share.shape))
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
    columns = np.array([*range(_CAMERA), *range(at, at + _LIGHT)])
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
        matrix[at] += weighted @ by_unknown.T - seen @ seen.T
        gradient[told.columns] += weighted @ residual.ravel()
        if not random:
            continue
        still = group.dark + group.steady
        strobed = len(group.delay_s)
        own = (bright * told.by_effect).swapaxes(0, 1)  # (strobed, 2, rows)
        heavy = own * weight[still:, None]
        own_seen = np.concatenate([heavy * plain, heavy * slope[still:, None]], axis=-1).reshape(
            2 * strobed, -1
        )
        block = -own_seen @ own_seen.T
        inner = np.einsum("fkr,flr->fkl", heavy, own)
        for index in range(strobed):
            block[2 * index : 2 * index + 2, 2 * index : 2 * index + 2] += inner[index]
        here = np.arange(first, first + 2 * strobed)
        precision = np.tile([1 / s**2 if s > 0 else 1e30 for s in scatter], strobed)
        flat = values.ravel()
        block[np.diag_indices_from(block)] += precision
        matrix[np.ix_(here, here)] += block
        cross = by_unknown.reshape(-1, *share.shape)[:, still:]
        mixed = np.einsum("ufr,fkr->ufk", cross, heavy).reshape(len(told.columns), -1) - seen @ own_seen.T
        matrix[np.ix_(told.columns, here)] += mixed
        matrix[np.ix_(here, told.columns)] += mixed.T
        gradient[here] += np.einsum("fkr,fr->fk", heavy, residual[still:]).ravel() - precision * flat
        penalty += float(precision @ flat**2)
        first += 2 * strobed
    return _Normal(misfit + penalty, misfit, gradient, matrix)


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
