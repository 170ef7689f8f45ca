"""Sensor calibration by photon transfer after EMVA 1288: gain, noise, saturation, linearity, maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError, Provenance, Quality
from calibration.radiometric.model import QUANTISATION_DN2, RadiometricModel, sample_bits
from calibration.radiometric.sensor.dark import DarkSeries, fit_dark
from calibration.radiometric.sensor.flats import FlatSeries, Points, colour_planes, join
from calibration.radiometric.sensor.series import Reader, group

Float = NDArray[np.float64]

_FIT_RANGE = 0.7  # of saturation: EMVA 1288, fit of the photon transfer
_LINEAR_RANGE = (0.05, 0.95)  # of saturation: EMVA 1288, fit of the linearity
_FLAT_RANGE = 0.8  # of saturation, so that no pixel of the flat map was clipped
_QUANTISED_DN2 = 0.24  # dark variance below which EMVA 1288 calls the read noise undetermined
_DITHERED_DN2 = 0.35  # variance from which quantisation adds 1/12 DN^2 within a percent of it
_COLLAPSED = 0.5  # of the variance that the line predicts: the class has saturated


def fit_sensor(
    flats: Sequence[NDArray[Any]],
    flat_exposure_s: ArrayLike,
    darks: Sequence[NDArray[Any]],
    dark_exposure_s: ArrayLike,
    *,
    pixel_format: str,
    gain_db: float = 0.0,
    provenance: Provenance = Provenance(),  # noqa: B008 - frozen value
) -> RadiometricModel:
    """Radiometric model of a linear sensor from exposure series of a flat target and of darkness.

    Parameters
    ----------
    flats, darks : sequence of ndarray (h, w) or (h, w, 3), unsigned integer
        Frames in any order, two or more at an exposure; lazy sequences are read one frame at a time (a few of
        the flats twice) and memory does not grow with their number. The flat target is smooth and steady;
        vignetting is fine. The flats should reach from near black into saturation.
    flat_exposure_s, dark_exposure_s : array_like (n,)
        Exposures within 0.1 % count as equal. The light must not change between flats.
    pixel_format : str
        PFNC name such as ``Mono12``. Each colour is treated apart; the gain is common to all.
    gain_db : float
        Recorded with the model.
    provenance : Provenance
        Recorded with the model.

    Returns
    -------
    RadiometricModel
        With maps, defects, evidence, uncertainties and quality.

    Raises
    ------
    FitError
        Exposures missing or not positive, sizes differ, no pairs, fewer than three usable exposures, all
        saturated, all black, or a gain that is not positive.

    Notes
    -----
    On every class of pixels of like brightness the temporal variance is ``noise + gain * (mean - black)``,
    with black at exposure zero, since dark electrons have shot noise too. Both sides are means over the
    pixels of a class, so neither vignetting nor PRNU biases the slope; brightness changes common to a frame
    are taken out. The slope is the unweighted fit through the dark point up to 70 % of saturation. EMVA
    Standard 1288, Release 4.0 Linear (2021). A dark variance below 0.24 DN^2 hides in the quantisation: then
    the line's own intercept, fitted with weights, stands in and the verdict is 'doubtful'.
    """
    bits = sample_bits(pixel_format)
    if bits is None:
        raise FitError(f"sensor: {pixel_format} frames hold no DN: photon transfer needs integer raw frames")
    full_scale = 2.0**bits - 1
    light, cover = group("flat", flats, flat_exposure_s), group("dark", darks, dark_exposure_s)
    pairs = [level for level in light if len(level.frames) > 1]
    if not pairs:
        raise FitError("sensor: no flat pairs: take two frames or more at each exposure")
    if len(pairs) < 3:
        raise FitError(f"sensor: {len(pairs)} exposure levels with pairs of flats: want three or more")
    shape = np.shape(flats[pairs[0].frames[0]])
    if (len(shape) == 3) != pixel_format.startswith("RGB") or shape[2:] not in ((), (3,)):
        raise FitError(f"sensor: {pixel_format} frames cannot have shape {shape}")
    dark = fit_dark(Reader("dark", darks, shape, full_scale), cover)
    reader = Reader("flat", flats, shape, full_scale)
    series = FlatSeries(reader, pairs, dark, colour_planes(pixel_format))
    ceiling, reached = _ceiling(series, full_scale)
    points, totals = _stream(series, ceiling if reached else np.inf)
    saturation = _knee(points, dark, ceiling) if reached else full_scale
    line = _photon_transfer(points, dark, saturation)
    gain, used = line.gain, line.used
    warnings = _warnings(points, line, dark, saturation, reached, len(light) - len(pairs))
    linearity = _linearity(points, saturation)
    if linearity is not None and linearity > 3:
        warnings.append(
            f"linearity error {linearity:.1f} %: light or exposure varied, or the camera is not linear"
        )
    read_dn2 = line.noise_dn2 - QUANTISATION_DN2
    if read_dn2 < 2 * line.noise_sigma_dn2:
        warnings.append("the read noise is lost in the quantisation: only its upper limit is known")
    read_noise = float(np.sqrt(max(read_dn2, 0.0))) / gain
    # Of a root near zero the linear sigma diverges; the step from zero to one sigma stands in.
    read_sigma = line.noise_sigma_dn2 / gain**2 / max(2 * read_noise, np.sqrt(line.noise_sigma_dn2) / gain)
    maps = _maps(series, totals, gain, (read_noise * gain) ** 2 + QUANTISATION_DN2)
    return RadiometricModel(
        width=shape[1],
        height=shape[0],
        pixel_format=pixel_format,
        gain_dn_per_e=gain,
        gain_sigma_dn_per_e=line.gain_sigma,
        read_noise_e=read_noise,
        read_noise_sigma_e=float(np.hypot(read_sigma, read_noise * line.gain_sigma / gain)),
        saturation_dn=saturation,
        gain_db=gain_db,
        photon_transfer=np.stack([points.exposure_s, points.mean, points.variance, used], axis=1),
        linearity_error_percent=linearity,
        quality=Quality(
            residual_rms=line.scatter_percent,
            unit="% of variance",
            observations=int(np.count_nonzero(used)),
            rejected=int(np.count_nonzero(~used)),
            verdict="doubtful" if warnings else "good",
            warnings=tuple(warnings),
        ),
        provenance=provenance,
        **maps,
    )


def _stream(series: FlatSeries, ceiling: float) -> tuple[Points, tuple[Float, int, float]]:
    """One pass over the flats: the points of all levels, and the sum of the frames below the ceiling.

    With the sum come the number of its frames and the sum of their exposures.
    """
    points = []
    total, frames, exposure = np.zeros(series.reader.shape), 0, 0.0
    for level in series.levels:
        statistics = series.reader.statistics(level)
        of_level = series.points(level, statistics)
        points.append(of_level)
        if np.all(of_level.signal < _FLAT_RANGE * (ceiling - of_level.black)):
            n = len(level.frames)
            total += statistics.mean * np.float32(n)
            frames += n
            exposure += n * level.exposure_s
    if frames == 0:
        raise FitError("sensor: all flats are close to saturation: shorten the exposures or dim the light")
    return join(points), (total, frames, exposure)


def _ceiling(series: FlatSeries, full_scale: float) -> tuple[float, bool]:
    """Lowest DN of the samples of saturated pixels, and whether the series goes into saturation."""
    low, high = series.levels[0], series.levels[-1]
    first = series.points(low, series.reader.statistics(low))
    last = series.points(high, series.reader.statistics(high))
    noise = np.nan_to_num(series.dark.noise_dn2)
    # Shot noise a DN as the longest exposure has it if unsaturated, from the shortest one that shows any.
    slope = np.median((first.variance - noise) / np.maximum(first.signal, 1e-6))
    expected = noise + slope * last.signal
    ratio = np.where(expected > 0, last.variance / expected, 1.0)
    if slope <= 0 or np.min(ratio) > _COLLAPSED:
        clipped = np.mean(series.reader(high.frames[0]) >= full_scale)
        return full_scale, bool(clipped > 1e-3)
    deepest = last.members[np.argmin(ratio)] + 1
    samples = series.reader(high.frames[0])[series.classes == deepest]
    return min(float(np.quantile(samples, 1e-3, method="lower")), full_scale), True


def _knee(points: Points, dark: DarkSeries, ceiling: float) -> float:
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


@dataclass(frozen=True, eq=False)
class _Line:
    """Photon transfer: variance = noise + gain * signal."""

    gain: float
    gain_sigma: float
    noise_dn2: float
    noise_sigma_dn2: float
    used: NDArray[np.bool_]
    scatter_percent: float


def _photon_transfer(points: Points, dark: DarkSeries, saturation: float) -> _Line:
    x, y = points.signal, points.variance
    pinned = bool(dark.noise_dn2 >= _QUANTISED_DN2)
    # Quantisation adds its 1/12 DN^2 only where the noise spreads over more than a step.
    used = (x > 0) & (x <= _FIT_RANGE * (saturation - points.black)) & (y > (0 if pinned else _DITHERED_DN2))
    levels = len(np.unique(points.exposure_s[used]))
    if levels < 3:
        raise FitError(
            f"sensor: {levels} exposure levels of flats show shot noise between black and "
            f"{100 * _FIT_RANGE:.0f} % of saturation ({saturation:.0f} DN): want three or more"
        )
    x, y, freedom = x[used], y[used], points.freedom[used]
    if pinned:
        # Dark shot noise lies on the same line, so the darks stand at their own signal, not at zero.
        rate = float(np.mean(dark.rate_dn_s[~dark.defects]))
        x0, y0 = max(rate, 0.0) * dark.noise_exposure_s, dark.noise_dn2
        # Each exposure counts the same however often it was repeated: a long series at one exposure would pin
        # the line there, and real sensors are not linear to the last digit.
        weight = points.pixels[used]
    else:
        # Without usable darks the intercept counts too: weigh each point by its own uncertainty.
        weight = freedom / y**2
        slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(weight))
        weight = freedom / np.maximum(intercept + slope * x, _DITHERED_DN2) ** 2
        x0, y0 = float(np.average(x, weights=weight)), float(np.average(y, weights=weight))
    pull = weight * (x - x0) / np.sum(weight * (x - x0) ** 2)
    gain = float(np.sum(pull * (y - y0)))
    if not gain > 0:
        raise FitError(
            f"sensor: photon transfer gives a gain of {gain:.3g} DN/e-: the variance does not grow with the "
            "signal (frames averaged, denoised, or copies of one another)"
        )
    fitted = y0 + gain * (x - x0)
    own = 2 * fitted**2 / freedom
    excess = max(1.0, float(np.mean((y - fitted) ** 2 / own)))
    own_sigma = float(np.sqrt(np.sum(pull**2 * own) * excess))
    origin = (
        dark.noise_sigma_dn2 if pinned else float(np.sqrt(excess * np.sum(weight**2 * own)) / np.sum(weight))
    )
    return _Line(
        gain=gain,
        gain_sigma=float(np.hypot(own_sigma, np.sum(pull) * origin)),
        noise_dn2=y0 - gain * x0,
        noise_sigma_dn2=float(np.hypot(origin, own_sigma * x0)),
        used=used,
        scatter_percent=100 * float(np.sqrt(np.mean((y / fitted - 1) ** 2))),
    )


def _linearity(points: Points, saturation: float) -> float | None:
    """Mean absolute deviation from the relative least-squares line of every class, in percent."""
    light = points.mean - points.dark
    span = saturation - points.dark
    inside = (light >= _LINEAR_RANGE[0] * span) & (light <= _LINEAR_RANGE[1] * span)
    errors = []
    for member in np.unique(points.members):
        chosen = inside & (points.members == member)
        if np.count_nonzero(chosen) < 3:
            continue
        t, y = points.exposure_s[chosen], light[chosen]
        slope, offset = np.polyfit(t, y, 1, w=1 / y)
        errors.append(np.abs(y / (offset + slope * t) - 1))
    return 100 * float(np.mean(np.concatenate(errors))) if errors else None


def _warnings(
    points: Points, line: _Line, dark: DarkSeries, saturation: float, reached: bool, single: int
) -> list[str]:
    warnings = []
    if single:
        warnings.append(f"{single} exposures of flats have one frame only and were left out")
    if not reached:
        warnings.append(f"the flats do not reach saturation: it is taken at full scale, {saturation:.0f} DN")
    if dark.levels == 1:
        warnings.append("darks at one exposure only: the dark current is not known")
    if np.isnan(dark.noise_dn2):
        warnings.append("no dark pairs: the read noise is that of the flats' line")
    elif dark.noise_dn2 < _QUANTISED_DN2:
        warnings.append("dark noise is below the quantisation: the read noise is that of the flats' line")
    slopes = []
    for plane in np.unique(points.plane):
        one = points.where(line.used & (points.plane == plane))
        noise = np.nan_to_num(dark.noise_dn2)
        slopes.append(
            np.sum((one.variance - noise) * one.freedom) / max(np.sum(one.signal * one.freedom), 1e-9)
        )
    if max(slopes) > 1.1 * min(slopes):
        warnings.append("the gain differs between the colours by more than 10 %: one gain stands for all")
    return warnings


def _maps(
    series: FlatSeries, totals: tuple[Float, int, float], gain: float, noise_dn2: float
) -> dict[str, Any]:
    """Dark and flat maps, their means and their uncertainties, as fields of the model."""
    dark, good = series.dark, ~series.defects
    noise_e2 = noise_dn2 / gain**2
    centre = float(dark.mean_dn[good].mean())
    pixels = np.count_nonzero(good)
    rate = dark.rate_dn_s / gain
    mean_rate = max(float(rate[good].mean()), 0.0)
    rate_map, rate_variance = None, 0.0
    if dark.spread_s2 > 0:
        rate_map, rate_variance = _shrunk(rate - mean_rate, good, noise_e2 / dark.spread_s2)
    t = dark.mean_exposure_s
    own_rate = 0.0 if rate_map is None else rate_map
    dark_map = dark.mean_dn - centre - gain * t * own_rate
    offset_variance = noise_e2 / dark.frames
    drift = max(dark.drift_dn / np.sqrt(dark.frames), np.sqrt(noise_dn2 / (dark.frames * pixels)))
    rate_sigma = (
        max(dark.drift_dn, np.sqrt(noise_dn2 / pixels)) / np.sqrt(dark.spread_s2) if dark.spread_s2 else 0.0
    )
    covariance = np.array(
        [[offset_variance + rate_variance * t**2, -rate_variance * t], [-rate_variance * t, rate_variance]]
    )

    total, frames, exposure = totals
    light = (
        total
        - frames * (centre + dark_map + gain * mean_rate * (-t))
        - gain * exposure * (mean_rate + own_rate)
    )
    mean_t = exposure / frames
    of_dark = offset_variance + rate_variance * (mean_t - t) ** 2
    flat, flat_sigma = _flat_map(series, light / gain, frames * noise_e2 + frames**2 * of_dark)
    dsnu2 = float(np.var(dark.mean_dn[good])) / gain**2 - offset_variance
    return {
        "black_dn": centre - gain * mean_rate * t,
        "black_sigma_dn": float(np.hypot(drift, rate_sigma * t)),
        "dark_current_e_s": mean_rate,
        "dark_current_sigma_e_s": float(rate_sigma) / gain,
        "dark_map": dark_map.astype(np.float32),
        "dark_rate_map": None if rate_map is None else rate_map.astype(np.float32),
        "dark_covariance": covariance,
        "flat_map": flat,
        "flat_sigma": flat_sigma,
        "defects": series.defects,
        "dsnu_e": float(np.sqrt(max(dsnu2, 0.0))),
        "prnu_percent": _prnu_percent(series, flat, flat_sigma),
    }


def _shrunk(deviation: Float, good: NDArray[np.bool_], noise: float) -> tuple[Float | None, float]:
    """Per-pixel rates drawn to their mean as far as they are noise, and the variance that is left.

    Short dark series measure the rate of one pixel badly; extrapolated to longer exposures its noise would do
    harm. Rates that stand out of the noise are kept as measured.
    """
    true = max(float(np.var(deviation[good])) - noise, 0.0)
    share = true / (true + noise) if true > 0 else 0.0
    distinct = np.abs(deviation) > 5 * np.sqrt(noise)
    if share < 0.01 and not np.any(distinct):
        return None, true
    return np.where(distinct, deviation, share * deviation), share * noise


def _flat_map(series: FlatSeries, light_e: Float, noise_e2: float) -> tuple[NDArray[np.float32], float]:
    """Relative response and its relative sigma where it is 1, from electrons collected over all flats."""
    flat = np.empty(light_e.shape, np.float32)
    variances = []
    for plane in series.planes:
        image, good = light_e[plane], ~series.defects[plane]
        h, w = image.shape
        middle = (slice(h // 4, h - h // 4), slice(w // 4, w - w // 4))
        mean = float(image[middle][good[middle]].mean()) if np.any(good[middle]) else 0.0
        if mean <= 0:
            raise FitError("sensor: the middle of the flats is dark or defective: light the whole field")
        flat[plane] = np.where(good, image / mean, 1)
        variances.append((mean + noise_e2) / mean**2)
    return np.maximum(flat, np.float32(1e-3)), float(np.sqrt(np.mean(variances)))


def _prnu_percent(series: FlatSeries, flat: NDArray[np.float32], flat_sigma: float) -> float:
    """Spatial scatter of the flat map about its 5 x 5 mean, without the temporal noise of the map."""
    variances = []
    for plane in series.planes:
        image, good = np.ascontiguousarray(flat[plane]), ~series.defects[plane]
        ratio = (image / cv2.blur(image, (5, 5)))[good]
        noise = flat_sigma**2 * float(np.mean(1 / image[good]))
        # A pixel is a 25th of its own mean.
        variances.append(float(np.var(ratio, dtype=np.float64)) * 25 / 24 - noise)
    return 100 * float(np.sqrt(max(float(np.mean(variances)), 0.0)))
