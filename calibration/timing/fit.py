"""Timing from pulses: where each row's exposure lies against the light's pulse, by weighted least squares."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.provenance import FitError, Provenance, Quality
from calibration.timing.model import LightTiming, TimingModel
from calibration.timing.problem import Group, Problem
from calibration.timing.pulse import AT_ONCE_S
from calibration.timing.solve import Solution, solve
from calibration.timing.starts import find_starts

# A strobed frame shows its light where some rows reach this many sigma and this share of steady burning.
_SEEN_SIGMA, _SEEN_SHARE = 5.0, 0.01
# Frames this far from all others, as a share of steady burning, had no pulse or a wrong one.
_STRAY = 0.25
_MOST_STRAYS = 0.2
# Noise above this many times its own scatter means that the model does not hold.
_MISFIT = 5.0
_UNKNOWN = 0.5
# Residuals this large, as a share of steady burning, are no measurement.
_UNEXPLAINED = 0.1
# Steady frames this many times as far off as most of their likes were taken before the light had settled.
_UNSETTLED, _PARTS = 9.0, 6


def fit_timing(
    signal: Float,
    exposure_s: Float,
    lights: Sequence[str],
    strobes: Float,
    *,
    variance: Float,
    light_delay_s: float = 0.0,
    provenance: Provenance | None = None,
) -> TimingModel:
    """Fit line time, start latency and exposure of a camera, and delay, rise and fall of its lights.

    Parameters
    ----------
    signal : ndarray (n, rows)
        Row means of frames of one still view, linear in the light, black level included; rows that are NaN
        are left out.
    exposure_s : ndarray (n,)
        Reported exposures.
    lights : sequence of str
        Light of each frame; empty for a dark frame.
    strobes : ndarray (n, 2)
        Delay after the trigger and duration of the pulse, s; NaN where the light burns steadily, or is dark.
    variance : ndarray (n, rows)
        Of ``signal``, from noise.
    light_delay_s : float
        Known delay of the first light's controller, as of its data sheet; the first is so by its name.
    provenance : Provenance, optional

    Returns
    -------
    TimingModel

    Raises
    ------
    FitError
        No strobed, steady or dark frames of an exposure; no pulse is seen, or all of them are seen whole; the
        pulses do not bracket the rows' exposures.

    Notes
    -----
    Every row of a frame is exposed for the same time, from ``middle + (r - (rows - 1) / 2) * line_time`` on.
    Its signal is ``dark + bright * share``, with dark and bright unknowns of the row (of which the dark and
    the steady frames tell most) and the share that the pulse fills (`pulse_share`). Scene, vignetting and
    black level so drop out, and their noise is counted. Start jitter and flicker of the pulses, where seen,
    are unknowns of each frame whose variance is fitted with them.

    Only the difference of the camera's and the lights' delays shows. Not told apart either: a trigger that is
    late for both. The true exposure is told by pulses that its end cuts, rise and fall only where rows or
    delays are closer together than they last.
    """
    signal, variance = np.asarray(signal, np.float64), np.asarray(variance, np.float64)
    exposure_s, strobes = np.asarray(exposure_s, np.float64), np.asarray(strobes, np.float64)
    told = np.isfinite(strobes[:, 0])
    names = tuple(sorted({name for name, pulsed in zip(lights, told, strict=True) if name and pulsed}))
    if not names:
        raise FitError("no strobed frame: nothing tells the timing")
    rows = np.flatnonzero(np.isfinite(signal).all(axis=0) & (variance > 0).all(axis=0))
    if len(rows) < 2:
        raise FitError("fewer than two rows have a signal in all frames")
    groups, unsettled = _groups(signal[:, rows], variance[:, rows], exposure_s, lights, strobes, names)
    problem = Problem(groups, rows - 0.5 * (signal.shape[1] - 1), signal.shape[1], len(names))
    _refuse_blind(problem)
    starts, strays = find_starts(problem, _STRAY)
    total = sum(len(group.delay_s) for group in groups)
    if len(strays) > _MOST_STRAYS * total:
        raise FitError(
            f"{len(strays)} of {total} strobed frames fit no common timing: are all pulses on the camera's "
            "own trigger, and was the view still?"
        )
    if strays:
        problem = problem.without(strays)
    solution = solve(problem, starts)
    if solution.unexplained > _UNEXPLAINED and solution.misfit > _MISFIT:
        raise FitError(
            f"the strobed frames fit no common timing: they miss it by {solution.unexplained:.0%} of steady "
            "burning; are all pulses on the camera's own trigger, and was the view still?"
        )
    warnings = [
        f"frame {index} was left out: {lights[index]!r} had not settled, or another light was not dark yet: "
        "set a longer settle_s"
        for index in unsettled
    ]
    warnings += [
        f"frame {index} does not show its pulse as the others do and was left out" for index in strays
    ]
    rejected = len(strays) + len(unsettled)
    return _model(problem, solution, names, rejected, warnings, light_delay_s, provenance)


def _groups(
    signal: Float,
    variance: Float,
    exposure_s: Float,
    lights: Sequence[str],
    strobes: Float,
    names: tuple[str, ...],
) -> tuple[tuple[Group, ...], list[int]]:
    """Frames of one exposure under one light, with their steady and dark ones; steady ones left out."""
    named, pulsed = np.array(lights), np.isfinite(strobes[:, 0])
    groups: list[Group] = []
    unsettled: list[int] = []
    for exposure in np.unique(exposure_s[pulsed]):
        same = exposure_s == exposure
        dark = _in_order(np.flatnonzero(same & (named == "")), signal, strobes)
        sharing = sum(bool(np.any(same & pulsed & (named == name))) for name in names)
        for number, name in enumerate(names):
            mine = same & (named == name)
            steady, taken = (
                _in_order(np.flatnonzero(mine & which), signal, strobes) for which in (~pulsed, pulsed)
            )
            if not len(taken):
                continue
            for what, found in (("steady", steady), ("dark", dark)):
                if not len(found):
                    where = f" under {name!r}" if what == "steady" else ""
                    raise FitError(
                        f"no {what} frame{where} at {exposure:g} s: every exposure that is strobed wants one"
                    )
            settled = _settled(signal[steady] - signal[dark].mean(axis=0), variance[steady])
            unsettled += steady[~settled].tolist()
            steady = steady[settled]
            frames = np.concatenate([dark, steady, taken])
            # several lights share the dark frames: each has its part of what they tell
            part = np.where(np.arange(len(frames)) < len(dark), sharing, 1.0)[:, None]
            groups.append(
                Group(
                    light=number,
                    exposure_s=float(exposure),
                    frame=taken,
                    delay_s=strobes[taken, 0],
                    duration_s=strobes[taken, 1],
                    dark=len(dark),
                    steady=len(steady),
                    sharing=sharing,
                    signal=signal[frames],
                    weight=1 / (variance[frames] * part),
                )
            )
    return tuple(groups), unsettled


def _in_order(frames: NDArray[np.intp], signal: Float, strobes: Float) -> NDArray[np.intp]:
    """Frames by delay, duration and brightness: sums then do not hang on the order they were given in."""
    keys = (signal[frames].mean(axis=1), strobes[frames, 1], strobes[frames, 0])
    return np.asarray(frames[np.lexsort(keys)])


def _settled(excess: Float, variance: Float) -> NDArray[np.bool_]:
    """Which steady frames (n, rows) are as bright as most of them, at the top, in the middle and below."""
    parts = np.array_split(np.arange(excess.shape[1]), min(_PARTS, excess.shape[1]))
    level = np.stack([excess[:, part].mean(axis=1) for part in parts])
    sigma = np.stack([np.sqrt(variance[:, part].sum(axis=1)) / len(part) for part in parts])
    off = np.abs(level - np.median(level, axis=1, keepdims=True))
    # a lamp that flickers is no reason to leave frames out
    usual = np.median(off, axis=1, keepdims=True)
    return np.asarray((off <= np.maximum(_SEEN_SIGMA * sigma, _UNSETTLED * usual)).all(axis=0))


def _refuse_blind(problem: Problem) -> None:
    """Raise FitError where the pulses are nowhere, or everywhere, or the light is too weak."""
    lit, whole = [], []
    for group in problem.groups:
        share, sigma = group.shares()
        if np.median(sigma) > 0.2:
            raise FitError(
                f"the steady light at {group.exposure_s:g} s is {1 / np.median(sigma):.1f} times the noise "
                "of a row: more light, or longer exposures"
            )
        lit.append(((share > _SEEN_SIGMA * sigma) & (share > _SEEN_SHARE)).mean(axis=1) > 0.001)
        # whether a row differs from steady burning by more than the supply's overdrive
        level = np.quantile(share, 0.95)
        whole.append((np.abs(share - level) < np.maximum(_SEEN_SIGMA * sigma, 0.02 * level)).all(axis=1))
    delays = np.concatenate([group.delay_s for group in problem.groups])
    reach = f"delays of {delays.min():g} to {delays.max():g} s were tried"
    if not np.concatenate(lit).any():
        raise FitError(
            f"no strobed frame shows its light ({reach}): the pulses fall outside the exposures, or the "
            "light is not wired to the camera's trigger; try other delays or longer pulses"
        )
    if np.concatenate(whole).all():
        raise FitError(
            f"every strobed frame is evenly bright ({reach}): the light burns steadily, or all pulses cover "
            "the whole exposure; let them begin later and be shorter"
        )


def _model(
    problem: Problem,
    solution: Solution,
    names: tuple[str, ...],
    rejected: int,
    warnings: list[str],
    light_delay_s: float,
    provenance: Provenance | None,
) -> TimingModel:
    theta, covariance = solution.theta, solution.covariance
    sigma = np.sqrt(np.diag(covariance))
    half = 0.5 * (problem.height - 1)
    slope = np.zeros(len(theta))
    slope[:2] = 1.0, -np.sign(theta[1]) * half
    lights = {}
    for number, name in enumerate(names):
        at = problem.of_light(number)
        value, spread = theta[at], sigma[at]
        delay, delay_sigma = (value[0], spread[0]) if number else (0.0, 0.0)
        lights[name] = LightTiming(
            delay_s=delay, delay_sigma_s=delay_sigma,
            rise_s=_zero(value[1]), rise_sigma_s=spread[1], fall_s=_zero(value[2]), fall_sigma_s=spread[2],
            level=value[3], level_sigma=spread[3],
        )  # fmt: skip
    warnings += _doubts(problem, solution, names)
    strobes: list[tuple[float, ...]] = []
    signal: list[Float] = []
    noise: list[Float] = []
    full = np.full((1, problem.height), np.nan)
    for group, effects in zip(problem.groups, solution.effects, strict=True):
        share, spread = group.shares()
        for index in range(len(group.delay_s)):
            strobes.append(
                (
                    group.light,
                    group.exposure_s,
                    group.delay_s[index],
                    group.duration_s[index],
                    *effects[index],
                )
            )
            for kept, values in ((signal, share), (noise, spread)):
                row = full.copy()
                row[0, problem.row_index] = values[index]
                kept.append(row)
    count = sum(group.signal.size for group in problem.groups)
    return TimingModel(
        rows=problem.height,
        line_time_s=theta[1],
        line_time_sigma_s=sigma[1],
        latency_s=float(slope @ theta) + light_delay_s,
        latency_sigma_s=float(np.sqrt(slope @ covariance @ slope)),
        light_delay_s=light_delay_s,
        exposure_offset_s=theta[2],
        exposure_offset_sigma_s=sigma[2],
        jitter_s=solution.scatter[0],
        flicker=solution.scatter[1],
        lights=lights,
        parameters=problem.names(names),
        covariance=covariance,
        strobes=np.array(strobes),
        signal=np.concatenate(signal).astype(np.float32),
        signal_sigma=np.concatenate(noise).astype(np.float32),
        quality=Quality(
            residual_rms=float(np.sqrt(solution.misfit)),
            unit="sigma",
            observations=count,
            rejected=rejected,
            verdict="doubtful" if warnings else "good",
            warnings=tuple(warnings),
        ),
        provenance=provenance or Provenance(),
    )


def _zero(value: float) -> float:
    """A light that follows at once."""
    return 0.0 if value <= AT_ONCE_S else float(value)


def _doubts(problem: Problem, solution: Solution, names: tuple[str, ...]) -> list[str]:
    """Sentences on what the frames do not tell, or contradict."""
    theta, sigma = solution.theta, np.sqrt(np.diag(solution.covariance))
    out = []
    shortest = min(group.exposure_s for group in problem.groups)
    # what the plan could tell, whether or not the light is as the model has it
    known, line = sigma[:2] / np.sqrt(max(solution.misfit, 1.0))
    span = line * (problem.height - 1)
    if span > 0.1 * shortest or known > 0.1 * shortest:
        raise FitError(
            f"the pulses do not bracket the exposures: the rows' starts are known to {1e6 * known:.0f} µs "
            f"only, and to {1e6 * span:.0f} µs over the picture: take pulses whose delays go from before the "
            "first row's start to after the last row's end, no farther apart than the exposure"
        )
    if sigma[2] > 0.1 * shortest:
        out.append("the pulses do not tell the true exposure: none is cut by the end of an exposure")
    for number, name in enumerate(names):
        at = problem.of_light(number)
        for what, value, spread in zip(("rise", "fall"), theta[at][1:3], sigma[at][1:3], strict=True):
            if spread > _UNKNOWN * max(value, 0.02 * shortest):
                out.append(
                    f"{name}: the {what}, {1e6 * _zero(value):.3g} ± {1e6 * spread:.2g} µs, is not "
                    "resolved: take delays closer together about the edges of the exposures"
                )
    reduced = solution.misfit
    if reduced > 1 + _MISFIT * max(np.sqrt(2 / solution.freedom), 0.02):
        out.append(
            f"the residuals are {np.sqrt(reduced):.2f} times their noise, and all sigmas are widened by "
            "that: the light does not rise or fall exponentially, or something changed between the frames"
        )
    return out
