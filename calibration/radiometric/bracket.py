"""The fewest exposures that reach a wanted signal-to-noise ratio over a scene, by the noise model."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration.provenance import Array, FitError, Model
from calibration.radiometric.metering import PER_OCTAVE, Distribution, Well, predict_snr
from calibration.radiometric.model import RadiometricModel

Float = NDArray[np.float64]

_STEADY = 0.97  # of what is clear of saturation: the light may be brighter than it was metered
_MOST_FRAMES = 10_000
_SLACK = 1e-3


class Limits(NamedTuple):
    """What the camera and the patience allow.

    ``shortest_s``, ``longest_s`` of one exposure; ``readout_s`` after each; ``total_s`` of all with their
    readout; ``frames`` at most; ``allowed_s`` lists the exposures where the camera has steps.
    """

    shortest_s: float
    longest_s: float
    readout_s: float = 0.0
    total_s: float = np.inf
    frames: int = _MOST_FRAMES
    allowed_s: tuple[float, ...] = ()


class Bracket(Model):
    """Exposures to take, and what they will give.

    Attributes
    ----------
    exposures_s, repeats : tuple
        Rising, and how often each is taken.
    rate, share : ndarray (n,), float64
        Light of the scene, e-/s at the pixel, and the share of samples there; those above the ceiling of the
        metering at the assumed headroom.
    snr : ndarray (n,), float64
        Predicted signal-to-noise ratio of the merged radiance; 0 where every exposure saturates.
    wanted : float
    total_s : float
        With the readouts.
    reached : bool
        ``snr`` is at least ``wanted`` wherever it was asked.
    warnings : tuple of str
        What cannot be had and for which part of the scene.
    """

    exposures_s: tuple[float, ...]
    repeats: tuple[int, ...]
    rate: Array
    share: Array
    snr: Array
    wanted: float = Field(gt=0)
    total_s: float
    reached: bool
    warnings: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """How many exposures in all."""
        return sum(self.repeats)

    def snr_at(self, quantile: float) -> float:
        """Ratio that all but this share of the samples reach."""
        order = np.argsort(self.snr, kind="stable")
        reached = np.cumsum(self.share[order])
        return float(
            self.snr[order][np.searchsorted(reached, quantile, side="right").clip(0, len(order) - 1)]
        )


def plan_bracket(
    scene: Distribution,
    model: RadiometricModel,
    snr: float,
    limits: Limits,
    *,
    quantile: float = 0.0,
    headroom_stops: float = 2.0,
) -> Bracket:
    """Fewest exposures that give every part of a scene the wanted signal-to-noise ratio.

    Parameters
    ----------
    scene : Distribution
        From one or more metering frames.
    model : RadiometricModel
        Of the camera.
    snr : float
        Wanted of the merged radiance.
    limits : Limits
    quantile : float
        Share of the samples, the darkest, that need not reach it.
    headroom_stops : float
        How far above the metering's ceiling, in factors of 2, the samples lie that saturated in all of its
        frames; the plan holds light up to there.

    Returns
    -------
    Bracket
        Where the limits forbid the wanted ratio everywhere, as much of the scene as possible has it, from the
        bright end, and ``warnings`` says what has not.

    Raises
    ------
    FitError
        Nothing measured, or limits and wishes that make no sense.

    Notes
    -----
    From the brightest light down: what is still short of its ratio gets exposures as long as it bears without
    saturating, and as many as it needs; all darker light gains from them too. A frame that may serve a light
    serves it, and all darker lights, best at that length, hence no other choice has fewer frames. Then the
    exposures are shortened, longest first, as far as the ratios allow. After Hasinoff, Durand and Freeman,
    CVPR 2010, doi:10.1109/CVPR.2010.5540167, who minimise the worst ratio for a given time by integer
    programming over given exposures; here every sample has the lights of its own pixel, and the sensor's gain
    is given.
    """
    _check(snr, limits, quantile, headroom_stops)
    if not scene.counts:
        raise FitError("bracket: no sample of the metering frames shows light: expose them longer")
    well = Well(model)
    rate, share = scene.rate, scene.share
    warnings = []
    if scene.above:
        measured = sum(scene.counts.values())
        part = scene.above / (scene.above + measured)
        stops = np.arange(1, max(round(headroom_stops * PER_OCTAVE), 1) + 1) / PER_OCTAVE
        rate = np.append(rate, max(scene.ceiling_e_s, rate[-1]) * 2.0**stops)
        share = np.append(share * (1 - part), np.full(len(stops), part / len(stops)))
        warnings.append(
            f"{part:.2%} of the samples saturated in every metering frame: taken to lie up to "
            f"{headroom_stops:g} stops above; meter shorter to be sure"
        )
    asked = np.cumsum(share) > quantile * (1 - 1e-9)
    if scene.dark:
        part = scene.dark / (scene.dark + sum(scene.counts.values()) + scene.above)
        warnings.append(
            f"{part:.2%} of the samples show no light in the metering frames: nothing is asked of them"
        )
    need = np.flatnonzero(asked)
    # Metering classes are a sixteenth of an octave wide; their dark edge has the ratio too.
    search = _Search(well, rate * 2.0 ** (-0.5 / PER_OCTAVE), snr * (1 + _SLACK), limits)
    best = search.plan(int(need[0]))
    low, high = int(need[0]), len(rate)
    if best is None:
        # The more of the dark end is let go, the less time it takes: bisection over where to stop.
        while high - low > 1:
            middle = (low + high) // 2
            trial = search.plan(middle)
            if trial is None:
                low = middle
            else:
                high, best = middle, trial
    if best is None:
        best = search.most()
    return _bracket(best, model, rate, share, asked, snr, limits, warnings)


def spend_time(plan: Bracket, model: RadiometricModel, limits: Limits) -> Bracket:
    """Use what is left of the time to raise the ratio over the whole scene, darkest and median alike.

    Parameters
    ----------
    plan : Bracket
        From ``plan_bracket`` with these limits, ``total_s`` among them.
    model : RadiometricModel
    limits : Limits

    Returns
    -------
    Bracket
        Of greatest mean logarithm of the ratio among those found that nowhere fall below the smaller of the
        wanted ratio and that of ``plan``; in all ``total_s``, or less where nothing helps. More frames than
        ``plan`` if that pays.

    Raises
    ------
    FitError
        ``limits`` have no total time.

    Notes
    -----
    Frames are added one by one, each the best of its round; then time is moved between pairs of frames. A
    local optimum, from several beginnings.
    """
    if not np.isfinite(limits.total_s):
        raise FitError("bracket: say how much time there is to spend")
    spent = _Spending(plan, Well(model), limits).best()
    search = _Search(Well(model), plan.rate, plan.wanted, limits)
    tidy = search.tidy(spent, np.ones(len(spent), np.int_))
    short = plan.snr < plan.wanted * (1 - _SLACK)
    asked = ~short if plan.reached else np.ones(len(plan.rate), np.bool_)
    notes = [note for note in plan.warnings if "SNR" not in note]
    return _bracket(tidy, model, plan.rate, plan.share, asked, plan.wanted, limits, notes)


class _Spending:
    """Search for the best use of a given time."""

    def __init__(self, plan: Bracket, well: Well, limits: Limits) -> None:
        self.well, self.limits, self.rate, self.share = well, limits, plan.rate, plan.share
        self.least = np.minimum(plan.snr, plan.wanted) * (1 - _SLACK)
        self.start = np.repeat(np.array(plan.exposures_s), plan.repeats)
        low, high = limits.shortest_s, min(limits.longest_s, limits.total_s)
        steps = max(int(2 * np.log2(high / low)), 1)
        self.choices = np.array(limits.allowed_s or np.geomspace(low, high, steps + 1))

    def score(self, exposures: Float) -> float:
        """Mean logarithm of the ratio; minus infinity where a plan is not allowed."""
        room = self.limits.total_s * (1 + 1e-9) - float(np.sum(exposures + self.limits.readout_s))
        if room < 0 or exposures.min() < self.limits.shortest_s or exposures.max() > self.limits.longest_s:
            return -np.inf
        ratio = self.well.snr(exposures, np.ones(len(exposures), np.int_), self.rate)
        if np.any(ratio < self.least):
            return -np.inf
        return float(np.sum(self.share * np.log(np.maximum(ratio, 1e-3))))

    def best(self) -> Float:
        """Exposure of each frame."""
        plan = self.start
        found, score = plan, self.score(plan)
        for _ in range(min(self.limits.frames - len(self.start), 24) + 1):
            polished = plan if self.limits.allowed_s or len(plan) > 12 else self.moved(plan)
            if (better := self.score(polished)) > score + 1e-6:
                found, score = polished, better
            trials = [np.append(polished, t) for t in self.choices]
            scores = [self.score(trial) for trial in trials]
            if max(scores) > -np.inf and len(polished) < self.limits.frames:
                plan = trials[int(np.argmax(scores))]
            elif self.limits.allowed_s or len(polished) >= min(len(self.start) + 3, self.limits.frames, 12):
                break
            else:
                # The time is spent: the longest frame gives half of its own to a new one.
                longest = int(np.argmax(polished))
                half = (polished[longest] - self.limits.readout_s) / 2
                if half < self.limits.shortest_s:
                    break
                plan = np.append(polished, half)
                plan[longest] = half
        return found

    def moved(self, plan: Float) -> Float:
        """Time moved between pairs of frames, in ever smaller steps."""
        plan, score = plan.copy(), self.score(plan)
        for factor in (2.0, 1.4, 1.2, 1.1, 1.04):
            better = True
            while better:
                better = False
                for i in range(len(plan)):
                    for j in range(len(plan)):
                        for scale in (factor, 1 / factor):
                            trial = plan.copy()
                            trial[i] *= scale
                            if i != j:
                                # The other takes what time is left.
                                others = float(np.sum(trial + self.limits.readout_s)) - trial[j]
                                trial[j] = min(self.limits.total_s - others, self.limits.longest_s)
                            new = self.score(trial)
                            # A start that is not allowed may move to one that is.
                            if new > score + 1e-5:
                                plan, score, better = trial, new, True
        return plan


def _bracket(
    plan: "Plan",
    model: RadiometricModel,
    rate: Float,
    share: Float,
    asked: NDArray[np.bool_],
    snr: float,
    limits: Limits,
    warnings: list[str],
) -> Bracket:
    exposures, repeats = plan
    found = predict_snr(model, exposures, repeats, rate)
    # Exposures are written with four digits.
    short = asked & (found < snr * (1 - 3 * _SLACK))
    if np.any(short):
        warnings.append(_shortfall(rate, share, found, short, snr, Well(model), limits))
    return Bracket(
        exposures_s=tuple(map(float, exposures)),
        repeats=tuple(map(int, repeats)),
        rate=rate,
        share=share,
        snr=found,
        wanted=snr,
        total_s=_duration(exposures, repeats, limits),
        reached=not np.any(short),
        warnings=tuple(warnings),
    )


Plan = tuple[Float, NDArray[np.int_]]


class _Search:
    """Plans for the lights from some class upwards."""

    def __init__(self, well: Well, rate: Float, snr: float, limits: Limits) -> None:
        self.well, self.rate, self.wanted, self.limits = well, rate, snr, limits

    def longest(self, rate: float) -> float | None:
        """Longest exposure that this light bears; None where even the shortest saturates."""
        bears = _STEADY * self.well.clear_e / (rate * 2.0 ** (1 / PER_OCTAVE) + self.well.dark_e_s)
        if self.limits.allowed_s:
            fitting = [t for t in self.limits.allowed_s if t <= bears]
            return max(fitting) if fitting else None
        return min(bears, self.limits.longest_s) if bears >= self.limits.shortest_s else None

    def plan(self, first: int) -> Plan | None:
        """Fewest frames for all lights from class ``first`` on, shortened; None: against the limits."""
        found = self.fewest(first)
        if found is None:
            return None
        exposures, repeats = self.shortened(*found, first)
        if _duration(exposures, repeats, self.limits) > self.limits.total_s:
            return None
        return exposures, repeats

    def fewest(self, first: int) -> Plan | None:
        """From the brightest light down."""
        plan: dict[float, int] = {}
        for index in range(len(self.rate) - 1, first - 1, -1):
            level = self.rate[index : index + 1]
            t = self.longest(float(level[0]))
            if t is None:
                continue  # lost whatever is done
            while self.ratio(plan, level) < self.wanted:
                # What the frames so far give, and what one more of this length adds, without the maps.
                have = sum(n * float(self.well.information(e, level)[0]) for e, n in plan.items())
                room = float((level[0] / self.wanted) ** 2 - self.well.maps(np.array([1 / t]), level)[0])
                if room <= 0:
                    return None
                more = int(np.ceil((1 / room - have) / float(self.well.information(t, level)[0])))
                plan[t] = plan.get(t, 0) + max(more, 1)
                if sum(plan.values()) > self.limits.frames:
                    return None
        exposures = np.array(sorted(plan), np.float64)
        return exposures, np.array([plan[t] for t in exposures])

    def ratio(self, plan: dict[float, int], level: Float) -> float:
        """What a plan gives one light."""
        return float(self.well.snr(np.array(list(plan)), np.array(list(plan.values()), np.int_), level)[0])

    def shortened(self, exposures: Float, repeats: NDArray[np.int_], first: int) -> Plan:
        """Least time at this number of frames: each group in turn as short as the others allow."""
        rate = self.rate[first:]
        exposures = exposures.copy()

        def fits() -> bool:
            return bool(np.all(self.well.snr(exposures, repeats, rate) >= self.wanted))

        steps = sorted(self.limits.allowed_s)
        for _ in range(3):
            before = exposures.copy()
            for group in range(len(exposures) - 1, -1, -1):
                least, most = self.limits.shortest_s, float(exposures[group])
                if steps:
                    for t in steps:
                        exposures[group] = t
                        if t >= most or fits():
                            break
                    continue
                for _ in range(30):
                    middle = float(np.sqrt(least * most))
                    exposures[group] = middle
                    if fits():
                        most = middle
                    else:
                        least = middle
                exposures[group] = most
            if np.allclose(before, exposures, rtol=1e-4):
                break
        return self.tidy(exposures, repeats)

    def tidy(self, exposures: Float, repeats: NDArray[np.int_]) -> Plan:
        """Rising, each once, to four digits (downwards: what was clear of saturation stays so)."""
        merged: dict[float, int] = {}
        for t, n in zip(exposures, repeats, strict=True):
            if not self.limits.allowed_s:
                step = 10.0 ** (np.floor(np.log10(t)) - 3)
                t = max(float(f"{np.floor(t / step * (1 + 1e-12)) * step:.4g}"), self.limits.shortest_s)
            merged[float(t)] = merged.get(float(t), 0) + int(n)
        order = sorted(merged)
        return np.array(order), np.array([merged[t] for t in order])

    def most(self) -> Plan:
        """Where not even the brightest light can have its ratio: as much time on it as there is."""
        light = next((r for r in self.rate[::-1] if self.longest(float(r)) is not None), None)
        t = self.limits.shortest_s if light is None else self.longest(float(light))
        assert t is not None
        frames = min((self.limits.total_s) / (t + self.limits.readout_s), self.limits.frames, 100)
        if frames < 1:
            t, frames = max(self.limits.total_s - self.limits.readout_s, self.limits.shortest_s), 1
        return np.array([t]), np.array([int(frames)])


def _duration(exposures: Float, repeats: NDArray[np.int_], limits: Limits) -> float:
    return float(np.sum(repeats * (exposures + limits.readout_s)))


def _shortfall(
    rate: Float, share: Float, found: Float, short: NDArray[np.bool_], snr: float, well: Well, limits: Limits
) -> str:
    """One sentence: which part of the scene falls short, how far, and why."""
    held = short & (found > 0)
    lost = short & (found == 0)
    parts = []
    if np.any(lost):
        parts.append(
            f"{share[lost].sum():.2%} of the samples, above {rate[lost].min():.3g} e-/s, saturate even "
            "in the shortest exposure"
        )
    if np.any(held):
        ceiling = 1 / well.model.flat_sigma if well.model.flat_sigma > 0 else np.inf
        if ceiling <= snr:
            why = f"the flat map allows no more than {ceiling:.0f}"
        elif np.isfinite(limits.total_s):
            why = f"{limits.total_s:g} s do not suffice"
        else:
            why = "the limits of exposure and frames, or the dark map, do not allow it"
        parts.append(
            f"{share[held].sum():.2%} of the samples, up to {rate[held].max():.3g} e-/s, stay below SNR "
            f"{snr:g} and reach {found[held].min():.3g} at least: {why}"
        )
    return "; ".join(parts)


def _check(snr: float, limits: Limits, quantile: float, headroom_stops: float) -> None:
    if not (np.isfinite(snr) and snr > 0):
        raise FitError(f"bracket: a wanted SNR of {snr:g}: want a positive number")
    if not 0 <= quantile < 1:
        raise FitError(f"bracket: a quantile of {quantile:g}: want 0 or more and less than 1")
    if not (0 < limits.shortest_s <= limits.longest_s):
        raise FitError(
            f"bracket: exposures from {limits.shortest_s:g} to {limits.longest_s:g} s: no such range"
        )
    if any(not limits.shortest_s <= t <= limits.longest_s for t in limits.allowed_s):
        raise FitError(
            f"bracket: an allowed exposure lies outside {limits.shortest_s:g} to {limits.longest_s:g} s"
        )
    if not limits.total_s >= limits.shortest_s + limits.readout_s:
        raise FitError(
            f"bracket: {limits.total_s:g} s in all do not hold one exposure of {limits.shortest_s:g} s "
            f"and its readout of {limits.readout_s:g} s"
        )
    if limits.frames < 1 or headroom_stops < 0:
        raise FitError("bracket: want one frame or more and a headroom that is not negative")
