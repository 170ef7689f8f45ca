"""The numbers of an EMVA 1288 data sheet from the mean values of the levels.

EMVA Standard 1288, Release 4.0 Linear (2021): chapters 2, 6 and 7. Means are over the whole good area.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric.sensor.dark import DarkLevels

Float = NDArray[np.float64]

_FIT_RANGE = 0.7
_LINEAR_RANGE = (0.05, 0.95)
_CLEAR_SIGMAS = 3.0
_FALLEN = 0.8  # of the greatest variance: it does not fall that low by noise


@dataclass(frozen=True, eq=False)
class Transfer:
    """One row a level by rising light; all arrays (n,).

    Attributes
    ----------
    exposure_s, photons : ndarray
        Photons are NaN where not told.
    mean, dark : ndarray, DN
    variance, dark_variance : ndarray, DN^2
        Temporal.
    freedom : ndarray
        Degrees of freedom of ``variance``.
    temporal : ndarray of bool
        False for the spatial series, which is no part of the curves.
    """

    exposure_s: Float
    photons: Float
    mean: Float
    dark: Float
    variance: Float
    dark_variance: Float
    freedom: Float
    temporal: NDArray[np.bool_]

    @property
    def light(self) -> Float:
        """Photons where they were told, else seconds."""
        return self.exposure_s if np.any(np.isnan(self.photons)) else self.photons

    @property
    def signal(self) -> Float:
        """Mean above the dark mean of the same exposure."""
        return self.mean - self.dark


@dataclass(frozen=True)
class Saturation:
    """The saturation point: number of its level, and whether the variance falls beyond it."""

    level: int
    reached: bool


@dataclass(frozen=True)
class Slope:
    """Slope of a line with its sigma."""

    value: float
    sigma: float


@dataclass(frozen=True, eq=False)
class Linearity:
    """Deviations from the line in percent (n, 2: light, deviation), and what the releases make of them."""

    deviations: Float
    mean_percent: float
    sigma_percent: float
    least_percent: float
    most_percent: float


def saturation_point(transfer: Transfer) -> Saturation:
    """Level of the greatest temporal variance.

    It is the first maximum that the two levels above it stay clearly below (6.6 of the standard): beyond
    saturation a camera may show noise of its own that is greater still.
    """
    index = np.flatnonzero(transfer.temporal)
    v = transfer.variance[index]
    own = v * np.sqrt(2 / np.maximum(transfer.freedom[index], 1))
    # The noise of few levels may go down anywhere: the first half of the range is no saturation.
    high = transfer.signal[index] > 0.5 * np.max(transfer.signal[index])
    for i in np.flatnonzero(high & (v >= np.maximum.accumulate(v)))[:-1]:
        after = v[i + 1 : i + 3]
        if len(after) == 2 and np.all(v[i] - after > _CLEAR_SIGMAS * np.hypot(own[i], own[i + 1 : i + 3])):
            return Saturation(int(index[i]), True)
    best = int(np.argmax(v))
    fell = bool(np.any(v[best + 1 :] < _FALLEN * v[best]))
    return Saturation(int(index[best]), fell)


def responsivity(transfer: Transfer, saturation: Saturation) -> Slope:
    """Slope through zero of the signal with light, up to 70 % of saturation (6.5)."""
    used = transfer.temporal & (transfer.signal <= _FIT_RANGE * transfer.signal[saturation.level])
    x, y = transfer.light[used], transfer.signal[used]
    if len(x) == 0:
        x, y = transfer.light[[saturation.level]], transfer.signal[[saturation.level]]
    value = float(x @ y / (x @ x))
    sigma = float(np.sqrt(np.sum((y - value * x) ** 2) / max(len(x) - 1, 1) / (x @ x)))
    return Slope(value, sigma)


def linearity(transfer: Transfer, saturation: Saturation, pixels: float) -> Linearity | None:
    """Deviation from the line of least relative squares through 5..95 % of saturation (6.7).

    Release 4.0 states the mean of their sizes, Release 3.1 the greatest to either side. None with fewer than
    three levels.
    """
    top = transfer.signal[saturation.level]
    used = (
        transfer.temporal
        & (transfer.signal >= _LINEAR_RANGE[0] * top)
        & (transfer.signal <= _LINEAR_RANGE[1] * top)
    )
    # Beyond saturation nothing counts, even where a camera rolls over.
    used &= transfer.light <= transfer.light[saturation.level]
    x, y = transfer.light[used], transfer.signal[used]
    if len(x) < 3:
        return None
    slope, offset = np.polyfit(x, y, 1, w=1 / y)
    line = offset + slope * x
    deviation = 100 * (y - line) / line
    noise = 100 * np.sqrt(transfer.variance[used] / (2 * pixels)) / y
    return Linearity(
        deviations=np.stack([x, deviation], 1),
        mean_percent=float(np.mean(np.abs(deviation))),
        sigma_percent=float(np.sqrt(np.sum(noise**2)) / len(x)),
        least_percent=float(deviation.min()),
        most_percent=float(deviation.max()),
    )


def dark_slopes(levels: DarkLevels, gain: float) -> tuple[Slope | None, Slope | None]:
    """Dark current in e-/s from mean and from variance of the darks (7.1); None with fewer than 3 levels.

    The sigma is from the scatter about the line.
    """
    mean = _slope(levels.exposure_s, levels.mean, levels.temporal)
    known = levels.temporal & np.isfinite(levels.variance)
    variance = _slope(levels.exposure_s, levels.variance, known)
    return (
        None if mean is None else Slope(mean.value / gain, mean.sigma / gain),
        None if variance is None else Slope(variance.value / gain**2, variance.sigma / gain**2),
    )


def _slope(t: Float, y: Float, used: NDArray[np.bool_]) -> Slope | None:
    t, y = t[used], y[used]
    if len(t) < 3:
        return None
    slope, offset = np.polyfit(t, y, 1)
    lever = np.sum((t - t.mean()) ** 2)
    return Slope(float(slope), float(np.sqrt(np.sum((y - offset - slope * t) ** 2) / (len(t) - 2) / lever)))


def doubling_interval(temperature_c: Float, current: Float, sigma: Float) -> Slope | None:
    """Kelvin in which the dark current doubles, from its logarithm against temperature (7.2).

    None with fewer than two temperatures that show a current above its noise, or one that falls.
    """
    seen = (current > 0) & (current > 2 * sigma)
    if np.count_nonzero(seen) < 2:
        return None
    x, y = temperature_c[seen], np.log2(current[seen])
    own = np.maximum(sigma[seen] / current[seen] / np.log(2), 1e-9)
    weight = 1 / own**2
    centre = np.average(x, weights=weight)
    lever = np.sum(weight * (x - centre) ** 2)
    slope = float(np.sum(weight * (x - centre) * (y - np.average(y, weights=weight))) / lever)
    if slope <= 0:
        return None
    residual = y - np.average(y, weights=weight) - slope * (x - centre)
    excess = max(1.0, float(np.sum(weight * residual**2)) / max(len(x) - 2, 1)) if len(x) > 2 else 1.0
    return Slope(1 / slope, float(np.sqrt(excess / lever)) / slope**2)
