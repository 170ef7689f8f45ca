"""Sums of joint histograms as weighted equations, and the noise that their squares tell."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

_MEDIAN_CHI2 = 0.4549  # of one degree of freedom
_POOL = 8.0  # sigma of merged signal over which squared differences are taken together
# What no noise explains, as one sigma of a row: rounding that noise does not dither, skew of the noise (half
# an electron, where that is Poisson's), and the rest in DN and relative.
_BENT = 0.5  # of a first-order correction for noise after the curve
_ROUNDING = 1.4
_SKEW = 0.5
REST_DN = 0.05
_REST = 2e-4


class Equations(NamedTuple):
    """Weighted differences that should be zero, one a row."""

    pair: NDArray[np.intp]
    signal: Float  # derivative of the difference by the logarithm of the exposures' ratio
    information: Float
    gradient: Float  # information * difference


class Rows(NamedTuple):
    """Mean differences along lines of equal signal, of all pairs of one channel."""

    pair: NDArray[np.intp]
    ratio: Float
    signal: Float
    at_short: Float
    at_long: Float
    equation: Equations
    spread: Float  # (rows, 3): design of the noise
    squared: Float
    quantised: Float
    undithered: Float
    unclipped: Float
    samples: float
    outliers: float
    residual_dn: Float


def rows_of(
    sums: Float,
    groups: NDArray[np.intp],
    exposure: Float,
    step: Float,
    width: Float,
    ratio: Float,
    noise: Float,
) -> Rows:
    """Equations and squares from the sums of ``kernels.residuals``, the lines of each group together."""
    wide = np.diff(np.append(groups, len(exposure)))
    sums = np.add.reduceat(sums, groups, axis=1)
    pair, bin_ = np.nonzero(sums[..., 0] > 0)
    information, weighted, gradient, count, whole, squared, _, brightness = sums[pair, bin_].T
    signal, r = weighted / information, ratio[pair]
    index = np.arange(len(exposure), dtype=np.float64)
    at_long, at_short = np.interp(signal, exposure, index), np.interp(signal / r, exposure, index)
    dn = step / width
    of_long, of_short = np.interp(at_long, index, step), r * np.interp(at_short, index, step)
    dn_long, dn_short = np.interp(at_long, index, dn), r * np.interp(at_short, index, dn)
    quantised = (of_long**2 + of_short**2) / 12
    dither = np.maximum(noise[0] * np.maximum(signal, 0) + noise[1], 0) / of_long**2
    undithered = np.exp(-4 * np.pi**2 * dither) * quantised
    spread = np.stack([(1 + r) * signal, 1 + r * r, dn_long**2 + dn_short**2], axis=1)
    variance = np.maximum(spread @ noise, 0) + quantised
    # The squares are not weighted by information: their mean signal is another.
    spread[:, 0] = (1 + r) * np.where(whole > 0, brightness / np.maximum(whole, 1), signal)
    # Noise added after the curve is bent with it: the mean of the exposure lies off the exposure of the mean.
    bend = np.gradient(dn) / width
    bias = 0.5 * noise[2] * (r * np.interp(at_short, index, bend) - np.interp(at_long, index, bend))
    gradient = gradient - information * bias
    systematic = (
        (_SKEW * variance / np.maximum(np.abs(signal), np.sqrt(variance))) ** 2
        + (_BENT * bias) ** 2
        + _ROUNDING**2 * undithered / wide[bin_]
        + REST_DN**2 * 12 * quantised
        + (_REST * signal) ** 2
    )
    share = 1 / (1 + information * systematic)
    mean = gradient / information
    beyond = np.sign(mean) * np.sqrt(np.maximum(mean**2 - 1 / information, 0)) / of_long
    return Rows(
        pair=pair,
        ratio=r,
        signal=signal,
        at_short=at_short,
        at_long=at_long,
        equation=calmed(Equations(pair, signal, information * share, gradient * share)),
        spread=spread,
        squared=squared / np.maximum(whole, 1),
        quantised=quantised,
        undithered=undithered,
        unclipped=whole,
        samples=float(count.sum()),
        outliers=float(sums[..., 6].sum()),
        residual_dn=beyond,
    )


def calmed(rows: Equations) -> Equations:
    """Believe the rows no more than they agree: soft saturation or misalignment scatter more than noise."""
    squared = rows.gradient**2 / np.maximum(rows.information, 1e-300)
    known = squared[rows.information > 0]
    excess = max(float(np.median(known)) / _MEDIAN_CHI2, 1.0) if len(known) else 1.0
    return rows._replace(information=rows.information / excess, gradient=rows.gradient / excess)


def add_to(
    matrix: Float, vector: Float, rows: Equations, design: Float, pairs: NDArray[np.intp], part: slice,
    offset: int,
) -> None:  # fmt: skip
    """Add rows to the normal equations; by the exposures' logarithms they have plus and minus ``signal``."""
    from calibration.radiometric.response.kernels import gram

    exposures = np.zeros((len(design), len(matrix) - offset))
    every = np.arange(len(design))
    exposures[every, pairs[rows.pair, 1]] = rows.signal
    exposures[every, pairs[rows.pair, 0]] = -rows.signal
    both = np.concatenate([design, exposures], axis=1)
    square, pull = gram(both, rows.information), np.einsum("i,ij->j", rows.gradient, both)
    size, tail = design.shape[1], slice(offset, None)
    matrix[part, part] += square[:size, :size]
    matrix[part, tail] += square[:size, size:]
    matrix[tail, part] += square[size:, :size]
    matrix[tail, tail] += square[size:, size:]
    vector[part] -= pull[:size]
    vector[tail] -= pull[size:]


def noise_of(rows: Rows, before: Float) -> tuple[Float, Float]:
    """Non-negative parts of the variance, and their sigma, from the squared differences."""
    from scipy.optimize import nnls  # slow to import

    spread, quantised, undithered, squared, count = _pooled(rows, before)
    expected = spread @ before + quantised
    # A row of very many samples is as sure as the model of the noise and of the rounding, not as its count.
    sure = 1 / np.sqrt((2 / count + 0.02**2) * expected**2 + undithered**2)
    design = spread * sure[:, None]
    scale = np.sqrt(np.sum(design**2, axis=0)) + 1e-300
    found, _ = nnls(design / scale, (squared - quantised) * sure)
    active = found > 0
    sigma = np.full(len(before), np.inf)
    if active.any():
        sigma[active] = np.sqrt(
            np.diag(np.linalg.pinv((design / scale)[:, active].T @ (design / scale)[:, active]))
        )
    noise = found / scale
    # Never quite without noise, or no sample would be believed.
    noise[0] = max(noise[0], 1e-7)
    return noise, sigma / scale


def _pooled(rows: Rows, noise: Float) -> tuple[Float, Float, Float, Float, Float]:
    """Rows of one pair taken together until they span some sigma of the merged signal.

    Samples whose merged signal is s hold s electrons on average only where the scene's histogram is level.
    Over a stretch that is wide beside the noise, those that left make good those that came in.
    """
    good = np.flatnonzero(rows.unclipped > 0)
    spread, count, pair = rows.spread[good][:, : len(noise)], rows.unclipped[good], rows.pair[good]
    r, signal = rows.ratio[good], rows.signal[good]
    variance = np.maximum(spread @ noise, 0) + rows.quantised[good]
    sigma = np.sqrt(variance * r) / (1 + r)
    same = pair[1:] == pair[:-1]
    across = np.where(same, 2 * np.maximum(np.diff(signal), 0) / (sigma[1:] + sigma[:-1]), 0.0)
    place = np.concatenate([[0.0], np.cumsum(across)])
    begin = np.concatenate([[True], ~same])
    place -= place[begin][np.cumsum(begin) - 1]
    cell = np.floor(place / _POOL)
    new = begin | np.concatenate([[True], np.diff(cell) != 0])
    starts = np.flatnonzero(new)
    total = np.add.reduceat(count, starts)

    def mean(values: Float) -> Float:
        weight = count if values.ndim == 1 else count[:, None]
        return np.asarray(
            np.add.reduceat(weight * values, starts, axis=0) / (total if values.ndim == 1 else total[:, None])
        )

    return (
        mean(spread),
        mean(rows.quantised[good]),
        mean(rows.undithered[good]),
        mean(rows.squared[good]),
        total,
    )
