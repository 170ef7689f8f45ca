"""Photon transfer: the line of temporal variance over signal, through what the darks say."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.radiometric.model import QUANTISATION_DN2
from calibration.radiometric.sensor.dark import DarkSeries
from calibration.radiometric.sensor.flats import FlatSeries, Points
from calibration.radiometric.sensor.quantised import SMOOTH_DN2, TrueDark, true_dark

_FIT_RANGE = 0.7  # of saturation: EMVA 1288, fit of the photon transfer
_DITHERED_DN2 = 0.5  # variance from which quantisation adds 1/12 DN^2 within a tenth of a percent
_COLLAPSED = 0.5  # of the variance that the line predicts: the class has saturated
_CLIPPED = 0.005  # EMVA 1288, 6.5: the most samples of a dark frame that may lie at 0 DN


@dataclass(frozen=True, eq=False)
class Line:
    """Photon transfer: variance = noise + gain * signal.

    Attributes
    ----------
    gain, gain_sigma : float, DN/e-
    noise_dn2, noise_sigma_dn2 : float
        Temporal, without light and at exposure zero, 1/12 DN^2 of the quantisation within.
    used : ndarray of bool
        Of the points.
    scatter_percent : float
        Of the used points about the line.
    hidden : TrueDark or None
        The sensor before rounding, where the dark noise hides in the quantisation or is cut at 0 DN.
    """

    gain: float
    gain_sigma: float
    noise_dn2: float
    noise_sigma_dn2: float
    used: NDArray[np.bool_]
    scatter_percent: float
    hidden: TrueDark | None


def ceiling_of(series: FlatSeries, full_scale: float) -> tuple[float, bool]:
    """Lowest DN of the samples of saturated pixels, and whether the series goes into saturation."""
    low, high = series.levels[0], series.levels[-1]
    first, last = series.measure(low), series.measure(high)
    noise = np.nan_to_num(series.dark.noise_dn2)
    # Shot noise a DN as the longest exposure has it if unsaturated, from the shortest one that shows any.
    slope = np.median((first.variance - noise) / np.maximum(first.signal, 1e-6))
    expected = noise + slope * last.signal
    ratio = np.where(expected > 0, last.variance / expected, 1.0)
    frame = series.reader(high.frames[0])
    if slope <= 0 or np.min(ratio) > _COLLAPSED:
        return full_scale, bool(np.count_nonzero(frame >= full_scale) > 1e-3 * frame.size)
    samples = series.samples(frame, int(last.members[np.argmin(ratio)]))
    return min(float(np.quantile(samples, 1e-3, method="lower")), full_scale), True


def knee(points: Points, dark: DarkSeries, ceiling: float) -> float:
    """Saturation: the ceiling, or less where the variance collapses well before the samples reach it."""
    noise = np.nan_to_num(dark.noise_dn2)
    below = points.signal < 0.5 * (ceiling - points.black)
    if not np.any(below):
        return ceiling
    weight = points.freedom * points.signal
    slope = np.sum((weight * (points.variance - noise))[below]) / np.sum((weight * points.signal)[below])
    expected = np.maximum(noise + slope * points.signal, QUANTISATION_DN2)
    collapsed = points.variance < _COLLAPSED * expected
    soft = (
        collapsed
        & (points.mean + 4 * np.sqrt(expected) < ceiling)
        & (points.signal > 0.1 * (ceiling - points.black))
    )
    return float(np.min((points.mean - np.sqrt(expected))[soft])) if np.any(soft) else ceiling


def photon_transfer(points: Points, dark: DarkSeries, saturation: float, full_scale: float) -> Line:
    """Slope up to 70 % of saturation, through the dark point.

    Every exposure counts the same however often it was repeated: a long series at one exposure would pin the
    line there, and real sensors are not linear to the last digit. Where the dark noise hides in the
    quantisation (or is cut at 0 DN), level and noise of the darks come from ``true_dark`` instead, and line
    and darks are combined by their sigmas.

    Raises
    ------
    FitError
        Fewer than three usable exposures, or a variance that does not grow with the signal.
    """
    x, y = points.signal, points.variance
    inside = (x > 0) & (x <= _FIT_RANGE * (saturation - points.black))
    plain = bool(dark.noise_dn2 >= SMOOTH_DN2) and dark.clipped <= _CLIPPED
    # Quantisation adds its 1/12 DN^2 only where the noise spreads over more than a step.
    used = inside & (y > (0 if plain else _DITHERED_DN2))
    levels = len(np.unique(points.level[used]))
    if levels < 3:
        raise FitError(
            f"sensor: {levels} exposure levels of flats show shot noise between black and "
            f"{100 * _FIT_RANGE:.0f} % of saturation ({saturation:.0f} DN): want three or more"
        )
    chosen = points.where(used)
    return _pinned(chosen, dark, used) if plain else _hidden(chosen, dark, used, full_scale)


def _pinned(points: Points, dark: DarkSeries, used: NDArray[np.bool_]) -> Line:
    x, y, weight = points.signal, points.variance, points.pixels
    # Dark shot noise lies on the same line, so the darks stand at their own signal, not at zero.
    x0, y0 = max(dark.mean_rate(), 0.0) * dark.noise_exposure_s, dark.noise_dn2
    pull = weight * (x - x0) / np.sum(weight * (x - x0) ** 2)
    gain = float(np.sum(pull * (y - y0)))
    _check_gain(gain)
    fitted = y0 + gain * (x - x0)
    own = 2 * fitted**2 / points.freedom
    excess = max(1.0, float(np.mean((y - fitted) ** 2 / own)))
    own_sigma = float(np.sqrt(np.sum(pull**2 * own) * excess))
    return Line(
        gain=gain,
        gain_sigma=float(np.hypot(own_sigma, np.sum(pull) * dark.noise_sigma_dn2)),
        noise_dn2=y0 - gain * x0,
        noise_sigma_dn2=float(np.hypot(dark.noise_sigma_dn2, own_sigma * x0)),
        used=used,
        scatter_percent=100 * float(np.sqrt(np.mean((y / fitted - 1) ** 2))),
        hidden=None,
    )


def _hidden(points: Points, dark: DarkSeries, used: NDArray[np.bool_], full_scale: float) -> Line:
    seen = dark.moments()
    zero = _zero_light(points)
    shown = float(np.average(points.black, weights=points.pixels))
    shift = 0.0
    for _ in range(3):
        x, y = points.signal - shift, points.variance
        slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(points.freedom) / y)
        fitted = np.maximum(intercept + slope * x, _DITHERED_DN2)
        weight = points.freedom / (2 * fitted**2)
        design = np.stack([x, np.ones_like(x)], 1)
        covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
        gain, floor = covariance @ (design.T @ (weight * y))
        _check_gain(gain)
        residual = y - gain * x - floor
        covariance = covariance * max(1.0, float(np.sum(weight * residual**2)) / max(len(x) - 2, 1))
        truth = true_dark(
            seen,
            gain=float(gain),
            top=full_scale,
            black=zero,
            noise_dn2=(float(floor) - QUANTISATION_DN2, float(np.sqrt(covariance[1, 1]))),
        )
        shift = truth.black - shown
    # What the darks add to the intercept moves the slope along their covariance.
    share = covariance[0, 1] / covariance[1, 1]
    better = truth.noise_dn2 + QUANTISATION_DN2
    gain = float(gain + share * (better - floor))
    _check_gain(gain)
    left = min(truth.noise_sigma_dn2**2 / covariance[1, 1], 1.0)
    return Line(
        gain=gain,
        gain_sigma=float(np.sqrt(covariance[0, 0] - share * covariance[0, 1] * (1 - left))),
        noise_dn2=better,
        noise_sigma_dn2=truth.noise_sigma_dn2,
        used=used,
        scatter_percent=100 * float(np.sqrt(np.mean((residual / fitted) ** 2))),
        hidden=truth,
    )


def _zero_light(points: Points) -> tuple[float, float] | None:
    """Mean DN at exposure zero from the line of the flats with light, and its sigma."""
    varied = np.any(np.isnan(points.photons))
    light = points.exposure_s if varied else points.photons
    values, weights = [], []
    for member in np.unique(points.members):
        one = points.where(points.members == member)
        t = light[points.members == member]
        # Noise of a mean of two frames; dark current of the exposure belongs to the line where it is varied.
        own = np.sqrt(one.variance / one.pixels)
        if len(t) < 4:
            continue
        mean = one.mean if varied else one.mean - (one.dark - one.black)
        design = np.stack([np.ones_like(t), t / t.max()], 1) / own[:, None]
        inverse = np.linalg.inv(design.T @ design)
        solution = inverse @ (design.T @ (mean / own))
        residual = mean / own - design @ solution
        excess = max(1.0, float(residual @ residual) / (len(t) - 2))
        values.append(float(solution[0]))
        weights.append(1 / (inverse[0, 0] * excess))
    if not values:
        return None
    return float(np.average(values, weights=weights)), float(1 / np.sqrt(np.sum(weights)))


def _check_gain(gain: float) -> None:
    if not gain > 0:
        raise FitError(
            f"sensor: photon transfer gives a gain of {gain:.3g} DN/e-: the variance does not grow with the "
            "signal (frames averaged, denoised, or copies of one another)"
        )
