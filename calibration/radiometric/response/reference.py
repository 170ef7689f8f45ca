"""The compiled sums of the response fit in plain numpy; what they are tested against."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Float = NDArray[np.float64]


def residuals_reference(
    counts: NDArray[np.int64], exposure: Float, step: Float, width: Float, ratio: float, noise: Float,
    first: int, last: int, reach: float,
) -> Float:  # fmt: skip
    """Sums of one pair of frames as ``kernels.residuals`` gives them, (bins, 8), for increasing exposures."""
    i, j = np.nonzero(counts)
    inside = (i > first) & (i < last) & (j > first) & (j < last)
    i, j = i[inside], j[inside]
    count = counts[i, j].astype(np.float64)
    low = 0.5 * (exposure[first] + exposure[first + 1]) if first >= 0 else -np.inf
    high = 0.5 * (exposure[last] + exposure[last - 1])
    floor = noise[1] + step**2 * (noise[2] / width**2 + 1 / 12)
    short, long = ratio * exposure[i], exposure[j]
    pooled = (short + ratio * long) / (1 + ratio)
    shot = noise[0] * np.maximum(pooled, 0)
    of_long = shot + floor[_bin(exposure, pooled, last)]
    variance = ratio * shot + ratio**2 * floor[_bin(exposure, pooled / ratio, last)] + of_long
    share = of_long / variance
    signal = share * short + (1 - share) * long
    open_to = np.min(
        [
            (high - signal) / (1 - share),
            (signal - ratio * low) / share,
            (signal - low) / (1 - share),
            (ratio * high - signal) / share,
        ],
        axis=0,
    )
    bound = np.clip(open_to / np.sqrt(variance), 1e-9, reach)
    z = (short - long) / np.sqrt(variance)
    used = (np.abs(z) < bound) & (bound >= 1)
    kept = 1 - 2 * bound * np.exp(-0.5 * bound**2) / np.sqrt(2 * np.pi) / erf(bound / np.sqrt(2))
    information = used * count / variance * kept
    whole = used * (bound == reach) * count
    rows = (
        information,
        information * signal,
        used * count * (short - long) / variance,
        used * count,
        whole,
        whole * (short - long) ** 2 / kept,
        (np.abs(z) >= 4) * count,
        whole * signal,
    )
    at = _bin(exposure, signal, last)
    return np.stack([np.bincount(at, row, len(exposure)) for row in rows], axis=1)


def differences_reference(values: Float, ratio: Float, at_short: Float, at_long: Float) -> Float:
    """As ``kernels.differences``."""
    rows = []
    for at in (at_short, at_long):
        left = np.minimum(at.astype(np.intp), len(values) - 2)
        share = (at - left)[:, None]
        rows.append((1 - share) * values[left] + share * values[left + 1])
    return np.asarray(ratio[:, None] * rows[0] - rows[1])


def _bin(exposure: Float, value: Float, last: int) -> NDArray[np.intp]:
    return np.clip(np.searchsorted(exposure, value, side="right") - 1, 0, last - 1)
