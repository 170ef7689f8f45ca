"""Assembles the data sheet of a sensor from its photon transfer and its two averaged images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric.model import QUANTISATION_DN2
from calibration.radiometric.sensor.datasheet import (
    Transfer,
    dark_slopes,
    doubling_interval,
    linearity,
    responsivity,
    saturation_point,
)
from calibration.radiometric.sensor.flats import FlatSeries, Points, Sum
from calibration.radiometric.sensor.nonuniformity import root_sigma, summary
from calibration.radiometric.sensor.spatial import Spatial, bright_image
from calibration.radiometric.sensor.transfer import Line
from calibration.radiometric.sheet import NonUniformity, SensorSheet

Float = NDArray[np.float64]
Measured = Spatial


def measured_bright(series: FlatSeries, total: Sum, points: Points) -> Spatial:
    """Examine the bright image; ``total``'s is changed. ``points`` are those of its levels, or of all."""
    noise = float(np.nan_to_num(series.dark.noise_dn2, nan=QUANTISATION_DN2))
    below = (
        points.signal < 0.8 * points.signal.max() if len(np.unique(points.level)) > 1 else points.signal > 0
    )
    weight = points.pixels[below]
    # The dark current of the flats has shot noise of its own, and that of the darks is within their noise.
    own = float(np.average((points.dark - points.black)[below], weights=weight))
    rate = max(series.dark.mean_rate(), 0.0) * series.dark.noise_exposure_s
    rise = float(np.average((points.variance - noise)[below], weights=weight))
    gain = max(rise / max(float(np.average(points.signal[below], weights=weight)) - rate, 1e-9), 0.0)
    return bright_image(
        total.image,
        series.good,
        series.planes,
        frames=total.frames,
        gain=gain,
        dark_noise_dn2=noise + gain * (own - rate),
        map_noise_dn2=series.dark.noise_of(total.exposure_s, noise),
    )


def data_sheet(
    series: FlatSeries,
    points: Points,
    line: Line,
    *,
    of_dark: Spatial,
    of_bright: Spatial,
    warmth: list[tuple[float, float, float]],
    **conditions: float | None,
) -> SensorSheet:
    """EMVA 1288 data sheet, as far as the series tell.

    Parameters
    ----------
    series : FlatSeries
    points, line :
        Photon transfer by classes, and its line.
    of_dark, of_bright : Spatial
    warmth : list of (temperature, dark current, sigma), in C and DN/s
        Of each temperature of the darks; empty where not told.
    **conditions :
        Fields of the sheet, as told.
    """
    dark, gain = series.dark, line.gain
    transfer = _transfer(series, points)
    saturation = saturation_point(transfer)
    slope = responsivity(transfer, saturation)
    pixels = float(np.sum(points.pixels[points.level == points.level[0]]))
    straight = linearity(transfer, saturation, pixels)
    told = not np.any(np.isnan(transfer.photons))
    noise_dn2 = line.noise_dn2
    read_dn2 = noise_dn2 - QUANTISATION_DN2
    dark_noise = float(np.sqrt(max(read_dn2, 0.0))) / gain
    own = root_sigma(dark_noise, line.noise_sigma_dn2 / gain**2)
    # The line through zero, not the level's own mean: the standard's capacity is linear in the photons.
    capacity = slope.value * float(transfer.light[saturation.level]) / gain
    threshold = float(np.sqrt(noise_dn2 / gain**2 + 0.25)) + 0.5
    efficiency = slope.value / gain if told else None
    of_mean, of_variance = dark_slopes(dark.levels, gain)
    doubling = doubling_interval(*(np.array(v) for v in zip(*warmth, strict=True))) if warmth else None
    fitted = np.zeros(len(transfer.mean))
    np.maximum.at(fitted, points.level, line.used.astype(np.float64))
    return SensorSheet(
        quantum_efficiency_percent=None if efficiency is None else 100 * efficiency,
        quantum_efficiency_sigma_percent=(
            None
            if efficiency is None
            else 100 * efficiency * float(np.hypot(slope.sigma / slope.value, line.gain_sigma / gain))
        ),
        responsivity_dn_per_photon=slope.value if told else None,
        responsivity_sigma_dn_per_photon=slope.sigma if told else None,
        dark_noise_dn=float(np.sqrt(noise_dn2)),
        dark_noise_e=dark_noise,
        dark_noise_sigma_e=float(np.hypot(own, dark_noise * line.gain_sigma / gain)),
        threshold_e=threshold,
        threshold_photons=None if efficiency is None else threshold / efficiency,
        saturation_dn=float(transfer.mean[saturation.level]),
        saturation_e=capacity,
        saturation_photons=float(transfer.light[saturation.level]) if told else None,
        saturation_reached=saturation.reached,
        snr_max=float(np.sqrt(capacity)),
        dynamic_range=capacity / threshold,
        linearity_error_percent=None if straight is None else straight.mean_percent,
        linearity_error_sigma_percent=None if straight is None else straight.sigma_percent,
        linearity_error_min_percent=None if straight is None else straight.least_percent,
        linearity_error_max_percent=None if straight is None else straight.most_percent,
        dark_current_e_s=None if of_mean is None else of_mean.value,
        dark_current_sigma_e_s=None if of_mean is None else of_mean.sigma,
        dark_current_from_variance_e_s=None if of_variance is None else of_variance.value,
        dark_current_from_variance_sigma_e_s=None if of_variance is None else of_variance.sigma,
        dark_doubling_c=None if doubling is None else doubling.value,
        dark_doubling_sigma_c=None if doubling is None else doubling.sigma,
        dsnu_e=_dark_spread(of_dark, line),
        prnu_percent=summary(of_bright.parts, 100.0),
        levels=np.stack(
            [
                transfer.exposure_s,
                transfer.photons,
                transfer.mean,
                transfer.dark,
                transfer.variance,
                transfer.dark_variance,
                fitted,
            ],
            axis=1,
        ),
        linearity=None if straight is None else straight.deviations,
        spectrogram=_spectrogram(of_dark, of_bright, gain),
        profile_rows=_profile(of_dark, of_bright, 0),
        profile_columns=_profile(of_dark, of_bright, 1),
        histograms=_histograms(of_dark, of_bright),
        dark_defects=of_dark.outstanding,
        bright_defects=_percent(of_bright.outstanding),
        **conditions,
    )


def _transfer(series: FlatSeries, points: Points) -> Transfer:
    number = points.level
    weight = np.bincount(number, points.pixels)

    def mean(values: Float) -> Float:
        return np.asarray(np.bincount(number, points.pixels * values) / weight)

    levels = series.levels
    exposure = np.array([level.exposure_s for level in levels])
    temporal = np.array([level is not series.stack for level in levels])
    if np.count_nonzero(temporal) < 3:
        temporal[:] = True
    return Transfer(
        exposure_s=exposure,
        photons=np.array([level.photons for level in levels]),
        mean=mean(points.mean),
        dark=series.dark.levels.mean_at(exposure),
        variance=mean(points.variance),
        dark_variance=series.dark.levels.variance_at(exposure),
        freedom=np.asarray(np.bincount(number, points.freedom), np.float64),
        temporal=temporal,
    )


def _dark_spread(of_dark: Spatial, line: Line) -> NonUniformity:
    """DSNU in e-; where it hides in the quantisation, that of the sensor before rounding."""
    seen = summary(of_dark.parts, 1 / line.gain)
    if line.hidden is None:
        return seen
    total, sigma = line.hidden.spread_dn / line.gain, line.hidden.spread_sigma_dn / line.gain
    # Rounding spoils the share of rows and columns no less than that of pixels.
    scale = total / seen.total if seen.total > 0 else 0.0
    pixel = seen.pixel * scale if seen.total > 0 else total
    return seen.replace(
        total=total, row=seen.row * scale, column=seen.column * scale, pixel=pixel, sigma=sigma
    )


def _spectrogram(of_dark: Spatial, of_bright: Spatial, gain: float) -> Float:
    frequency = max((s[0] for s in of_dark.spectra), key=len)
    columns = [frequency]
    for spatial, scale in ((of_dark, 1 / gain), (of_bright, 100.0)):
        columns += [scale * np.interp(frequency, x, y) for x, y in spatial.spectra]
    return np.stack(columns, axis=1)


def _profile(of_dark: Spatial, of_bright: Spatial, which: int) -> Float:
    return np.concatenate([100 * of_bright.profiles[which], of_dark.profiles[which][:, :1]], axis=1)


def _histograms(of_dark: Spatial, of_bright: Spatial) -> Float:
    bright = of_bright.histogram * np.array([100.0, 1.0])
    return np.concatenate([of_dark.histogram, bright], axis=1)


def _percent(listed: Float) -> Any:
    return listed * np.array([1.0, 1.0, 100.0])
