"""Where to begin: starts of the first and last row searched over all that the delays reach."""

import numpy as np

from calibration.geometry import Float
from calibration.timing.problem import CAMERA_UNKNOWNS, LIGHT_UNKNOWNS, Problem, reach

_ROWS, _STARTS, _ENDS, _CANDIDATES = 24, 3000, 320, 6


def find_starts(problem: Problem, stray: float) -> tuple[list[Float], list[int]]:
    """Unknowns to begin from, best first, and the numbers of the frames that fit none of them.

    The starts of the first and the last row are searched over everything that the delays reach, for lights
    that follow at once: for each row and start the misfit of all frames is summed once, and a line of starts
    is then a walk through that table.
    """
    pick = np.unique(np.linspace(0, len(problem.row) - 1, _ROWS).round().astype(int))
    first = [group for group in problem.groups if group.light == 0]
    low, high = reach(first)
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
    near = max(2, _ENDS // 40)
    for _ in range(_CANDIDATES):
        i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
        if not np.isfinite(cost[i, j]):
            break
        cost[max(i - near, 0) : i + near + 1, max(j - near, 0) : j + near + 1] = np.inf
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


def _at_once(start_s: Float, exposure_s: float, duration_s: float) -> Float:
    """Share of the exposure that a pulse without rise and fall fills."""
    overlap = np.minimum(start_s + exposure_s, duration_s) - np.maximum(start_s, 0.0)
    return np.asarray(np.maximum(overlap, 0.0) / exposure_s)


def _begin(problem: Problem, middle_s: float, line_s: float) -> Float:
    theta = np.zeros(CAMERA_UNKNOWNS + LIGHT_UNKNOWNS * problem.lights)
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
