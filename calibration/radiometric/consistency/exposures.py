"""Exposure times as the pictures have them: ratios of an exposure stack, solved jointly, with sigma."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from calibration.radiometric.consistency.sampling import Sample

Vector = NDArray[np.float64]

_ROUNDS = 12
# Weight of a sample 1 up to so many sigma, falling to 0.
_FULLY, _NEVER = 4.0, 8.0
# A frame with fewer clear samples in common with the others is not judged.
_FEWEST = 50
_SIGNIFICANT = 4.0
# Chance that a frame is called off: four sigma, of Student's t where few frames say how far times scatter. Of
# three frames the two that agree can say it only roughly.
_CHANCE, _CHANCE_OF_THREE = 6.3e-5, 0.006


class Exposures(NamedTuple):
    """Exposure times told and found, (n,) each.

    Attributes
    ----------
    told_s : ndarray, s
    found_s : ndarray, s
        On the scale of the told times: the mean of log(found / told) is 0 over the frames that overlap and
        are not ``off``. The told time where a frame overlaps with no other.
    sigma : ndarray
        Relative one-sigma of ``found_s`` from the noise; NaN where nothing could be found.
    systematic : ndarray
        Relative: half of what dim and bright pixels, which say equally much, disagree by beyond their noise.
        Not zero where the response is not quite linear, the black level off, or stray light differs between
        the frames.
    off : ndarray of bool
        Frames, fewer than half, whose told time contradicts the others far beyond the scatter of those. They
        have no say in the common scale.
    scale_sigma : float
        Relative one-sigma of the common scale, from the scatter of the told times that hold it; NaN where
        fewer than two do. Not in ``sigma``.
    """

    told_s: Vector
    found_s: Vector
    sigma: Vector
    systematic: Vector
    off: NDArray[np.bool_]
    scale_sigma: float

    @property
    def deviation(self) -> Vector:
        """Relative, found against told."""
        return np.asarray(self.found_s / self.told_s - 1)

    @property
    def significant(self) -> bool:
        """Whether a frame deviates by more than four times what noise and systematics explain."""
        total = np.hypot(self.sigma, self.systematic)
        return bool(np.any(np.abs(self.deviation) > _SIGNIFICANT * np.nan_to_num(total, nan=np.inf)))


def find_exposures(sample: Sample, exposure_s: ArrayLike) -> Exposures:
    """Exposure ratios of all frames from the data, jointly.

    Every clear sample is a measurement of (radiance of its pixel) x (time of its frame). The radiances are
    eliminated pixel by pixel, so that what remains are n log times, known but for their mean, which is that
    of the told times; a minority of frames that the others contradict has no say in it. The variances
    are the model's, at the joint estimate and not at each noisy sample, so that no ratio leans to the dark
    side; samples beyond four sigma lose weight, to none at eight.

    Parameters
    ----------
    sample : Sample
        Of ``sample_stack``.
    exposure_s : array_like (n,)
        Told times.

    Returns
    -------
    Exposures

    Notes
    -----
    Assumes a static scene under constant light: a lamp that drifts looks like another exposure. Assumes that
    dark current grows with the exposure and that black level and response of the model are right; what they
    leave wrong shows in ``systematic`` where it depends on the signal. The elimination is that of bundle
    adjustment: the Schur complement of the pixels' unknowns.
    """
    told = np.asarray(exposure_s, np.float64)
    count = len(told)
    electrons = sample.electrons.reshape(count, -1)
    if sample.floor.size > count:
        flat = sample._replace(electrons=electrons, floor=sample.floor.reshape(count, -1))
    else:
        flat = sample._replace(electrons=electrons, floor=sample.floor.reshape(-1, 1))
    keep = np.isfinite(electrons).sum(axis=0) > 1
    electrons = np.ascontiguousarray(electrons[:, keep])
    floor = flat.floor if flat.floor.shape[1] == 1 else flat.floor[:, keep]
    flat = flat._replace(electrons=electrons, floor=floor)
    log_time = np.log(told) + _start(flat, told)
    agreeing = _agreeing(flat, np.exp(log_time))
    everything = np.ones(flat.electrons.shape[1], bool)
    nobody = np.zeros(count, bool)
    found, sigma = _solve(flat, log_time, np.log(told), agreeing, everything, nobody)
    if not np.isfinite(sigma).any():
        return Exposures(told, told.copy(), sigma, np.full(count, np.nan), nobody, np.nan)
    found[~np.isfinite(sigma)] = np.log(told[~np.isfinite(sigma)])
    rate, split = _half_way(flat, np.exp(found))
    dim, bright = (
        _solve(flat, found, np.log(told), agreeing, part, nobody) for part in (rate < split, rate >= split)
    )
    apart, noise = dim[0] - bright[0], np.hypot(dim[1], bright[1])
    both = np.isfinite(noise)
    with np.errstate(invalid="ignore"):
        # Each half has a scale of its own.
        apart -= apart[both].mean() if both.any() else 0
        systematic = 0.5 * np.sqrt(np.maximum(apart**2 - noise**2, 0))
    # A frame that only one half sees cannot be compared; it is as bad as the worst that can.
    systematic[~both] = systematic[both].max() if both.any() else np.nan
    systematic[~np.isfinite(sigma)] = np.nan
    off = _off(found - np.log(told), np.hypot(sigma, systematic))
    if off.any():
        found, sigma = _solve(flat, found, np.log(told), agreeing, everything, off)
        found[~np.isfinite(sigma)] = np.log(told[~np.isfinite(sigma)])
    holding = (found - np.log(told))[np.isfinite(sigma) & ~off]
    scale_sigma = float(holding.std(ddof=1) / np.sqrt(len(holding))) if len(holding) > 1 else np.nan
    return Exposures(told, np.exp(found), sigma, systematic, off, scale_sigma)


def _off(deviation: Vector, sigma: Vector) -> NDArray[np.bool_]:
    """Frames, a minority, that lie far beyond the scatter of all the others: the most that do."""
    off = np.zeros(len(deviation), bool)
    known = np.flatnonzero(np.isfinite(sigma))
    if len(known) < 3:
        return off
    values, noise = deviation[known], sigma[known]
    order = np.argsort(np.abs(values - np.median(values)), kind="stable")
    for fewest in range(len(known) // 2 + 1, len(known)):
        rest, others = order[:fewest], order[fewest:]
        # No smaller than the noise: two may agree by luck.
        scatter = max(float(values[rest].var(ddof=1)), float(np.mean(noise[rest] ** 2)))
        limit = -stdtrit(fewest - 1, (_CHANCE if fewest > 2 else _CHANCE_OF_THREE) / 2)
        distance = np.abs(values[others] - values[rest].mean())
        if np.all(distance > limit * np.sqrt(scatter * (1 + 1 / fewest))) and np.all(
            distance > _SIGNIFICANT * noise[others]
        ):
            off[known[others]] = True
            break
    return off


def _half_way(sample: Sample, time: Vector) -> tuple[NDArray[np.float32], float]:
    """Rate of each pixel, and the one below which half of the information on the times lies."""
    rate, expected, weight = _rates(sample, time, None)
    information = np.nan_to_num(weight * expected * expected)
    total = information.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        information = np.nan_to_num(total - (information**2).sum(axis=0) / total)
    order = np.argsort(rate)
    upto = np.cumsum(information[order], dtype=np.float64)
    return rate, float(rate[order[np.searchsorted(upto, 0.5 * upto[-1])]])


def _start(sample: Sample, told: Vector) -> Vector:
    """Log corrections from medians of the ratios of neighbours: no more than half of the scene may move."""
    order = np.argsort(told, kind="stable")
    correction = np.zeros(len(told))
    for one, two in pairwise(order):
        a, b = sample.electrons[one], sample.electrons[two]
        both = np.isfinite(a) & np.isfinite(b)
        ratio = told[two] / told[one]
        pooled = (a[both] + b[both]) / (1 + ratio)
        # Two decades below what the pair can see, ratios are noise.
        bright = pooled > 0.1 * np.percentile(pooled, 99) if pooled.size else pooled > 0
        step = 0.0
        if bright.sum() >= _FEWEST:
            quotient = b[both][bright] / np.maximum(a[both][bright], 1e-30)
            step = float(np.log(max(np.median(quotient), 1e-30) / ratio))
        correction[two] = correction[one] + (step if abs(step) < 2 else 0.0)
    return np.asarray(correction - correction.mean())


def _rates(
    sample: Sample, time: Vector, robust: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Electrons per second of each pixel, expectations of the samples, and their weights (0: not used)."""
    electrons = sample.electrons
    t = time.astype(np.float32)[:, None]
    valid = np.isfinite(electrons)
    value = np.where(valid, electrons, np.float32(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = value.sum(axis=0) / (valid * t).sum(axis=0)
        for turn in range(2):
            expected = rate * t
            weight = sample.weight(expected)
            if robust is not None:
                weight *= robust
            if turn == 0:
                rate = (weight * value * t).sum(axis=0) / (weight * t * t).sum(axis=0)
    return rate.astype(np.float32), expected.astype(np.float32), weight.astype(np.float32)


def _solve(
    sample: Sample,
    log_time: Vector,
    log_told: Vector,
    robust: NDArray[np.float32],
    part: NDArray[np.bool_],
    aside: NDArray[np.bool_],
) -> tuple[Vector, Vector]:
    """Log times and their sigma, from the pixels of ``part``; ``robust`` are the samples' first weights.

    All frames but those ``aside`` hold the common scale.
    """
    if not part.all():
        floor = sample.floor if sample.floor.shape[1] == 1 else sample.floor[:, part]
        sample = sample._replace(electrons=sample.electrons[:, part], floor=floor)
        robust = robust[:, part]
    count = len(log_time)
    found = log_time.copy()
    sigma = np.full(count, np.nan)
    if sample.electrons.shape[1] < _FEWEST:
        return found, sigma
    value = np.nan_to_num(sample.electrons)
    for _ in range(_ROUNDS):
        time = np.exp(found)
        rate, expected, weight = _rates(sample, time, robust)
        t = time.astype(np.float32)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            # The rate once more, with the weights in hand, so that the elimination is exact.
            rate = np.nan_to_num((weight * value * t).sum(axis=0) / (weight * t * t).sum(axis=0))
            expected = rate * t
            off = np.where(weight > 0, value - expected, np.float32(0))
            information = weight * expected * expected
            total = information.sum(axis=0)
            share = np.nan_to_num(information / total)
            left = np.sqrt(np.maximum(1 - share, 1e-6))
            z = off * np.sqrt(weight / robust) / left
        double = information.astype(np.float64)
        matrix = np.diag(double.sum(axis=1)) - double @ share.T.astype(np.float64)
        gradient = (weight * off * expected).sum(axis=1, dtype=np.float64)
        enough = ((weight > 0) & (share < 1)).sum(axis=1) >= _FEWEST
        matrix = 0.5 * (matrix + matrix.T)
        step, sigma, scale = np.zeros(count), np.full(count, np.nan), np.ones(count)
        for group in _connected(matrix, enough):
            inverse = _without_scale(matrix[np.ix_(group, group)])
            step[group] = inverse @ gradient[group]
            holds = ~aside[group] if not aside[group].all() else np.ones(len(group), bool)
            # Covariance on the scale of those that hold it, in place of the mean of all.
            centre = np.eye(len(group)) - holds / holds.sum()
            sigma[group] = np.sqrt(np.maximum(np.diag(centre @ inverse @ centre.T), 0))
            moved = found[group] + step[group]
            step[group] -= np.mean((moved - log_told[group])[holds])
        used = weight > 0
        for i in range(count):
            if used[i].sum() >= _FEWEST:
                scale[i] = max(1.0, float(np.median(np.abs(z[i][used[i]]))) / 0.6745)
        robust = _weight(z, scale.astype(np.float32)[:, None])
        found = found + step
        # Where the model's noise is too small, the scatter tells.
        sigma = sigma * scale
        if np.all(np.abs(step) < 0.02 * np.nan_to_num(sigma, nan=np.inf)):
            break
    return found, sigma


def _weight(z: NDArray[np.float32], scale: NDArray[np.float32] | float) -> NDArray[np.float32]:
    # Flat in the middle: a weight that falls from 0 on would bias the mean of Poisson noise, which is skew.
    # Not quite 0 outside, so that a sample may come back.
    return np.clip((_NEVER - np.abs(z) / scale) / (_NEVER - _FULLY), 1e-9, 1).astype(np.float32)


def _agreeing(sample: Sample, time: Vector) -> NDArray[np.float32]:
    """First weights of the samples: how near each is to the median of its pixel.

    The mean of a pixel leans to what moved, and all its samples would seem wrong; the median does not, as
    long as most frames show the same.
    """
    if len(time) < 3:
        return np.ones(sample.electrons.shape, np.float32)
    t = time.astype(np.float32)[:, None]
    # Pixels without any sample were left out before.
    rate = np.nanmedian(sample.electrons / t, axis=0)
    variance = sample.variance(rate * t)
    typical = np.median(variance / (t * t), axis=0)
    z = np.nan_to_num((sample.electrons - rate * t) / np.sqrt(variance + t * t * typical))
    return _weight(z, 1.0)


def _without_scale(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of the information of log times of which the common scale is not known: their mean is 0."""
    count = len(matrix)
    mean = np.full((count, count), 1 / count)
    weight = np.trace(matrix) / count
    centre = np.eye(count) - mean
    return np.asarray(centre @ np.linalg.inv(centre @ matrix @ centre + weight * mean) @ centre)


def _connected(matrix: NDArray[np.float64], enough: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Groups of frames that see pixels in common, each of two or more."""
    left = set(np.flatnonzero(enough).tolist())
    groups = []
    while left:
        group, front = set(), {left.pop()}
        while front:
            one = front.pop()
            group.add(one)
            linked = {k for k in left if -matrix[one, k] > 1e-6 * min(matrix[one, one], matrix[k, k])}
            left -= linked
            front |= linked
        if len(group) > 1:
            groups.append(np.array(sorted(group)))
    return groups
