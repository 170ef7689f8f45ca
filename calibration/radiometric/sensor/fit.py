"""Sensor calibration after EMVA 1288: photon transfer, maps, and the data sheet beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError, Provenance, Quality
from calibration.radiometric.model import QUANTISATION_DN2, RadiometricModel, sample_bits
from calibration.radiometric.sensor.dark import DarkSeries, fit_dark
from calibration.radiometric.sensor.flats import FlatSeries, Points, Sum
from calibration.radiometric.sensor.report import Measured, data_sheet, measured_bright
from calibration.radiometric.sensor.series import Level, Reader, group
from calibration.radiometric.sensor.spatial import dark_image
from calibration.radiometric.sensor.transfer import Line, ceiling_of, knee, photon_transfer
from calibration.radiometric.vignetting import colour_planes

Float = NDArray[np.float64]
Image = NDArray[np.float32]

_SAME_TEMPERATURE_C = 1.0
_MARKED_LINEARITY = 3.0
_CLIPPED = 0.005
_STRIP = 256


def fit_sensor(
    flats: Sequence[NDArray[Any]],
    flat_exposure_s: ArrayLike,
    darks: Sequence[NDArray[Any]],
    dark_exposure_s: ArrayLike,
    *,
    pixel_format: str,
    photons: ArrayLike | None = None,
    dark_temperature_c: ArrayLike | None = None,
    temperature_c: float | None = None,
    wavelength_nm: float | None = None,
    pixel_pitch_um: float | None = None,
    gain_db: float = 0.0,
    provenance: Provenance = Provenance(),  # noqa: B008 - frozen value
) -> RadiometricModel:
    """Radiometric model and data sheet of a linear sensor from series of a flat target and of darkness.

    Parameters
    ----------
    flats, darks : sequence of ndarray (h, w) or (h, w, 3), uint8 or uint16
        Frames in any order, two or more at a level; lazy sequences are read one frame at a time, in a thread
        while the last is worked on (a few of the flats twice), and memory does not grow with their number.
        The flat target is smooth and steady; vignetting is fine. The flats should reach from near black into
        saturation. A level repeated four times as often as the others and at least eight times is the spatial
        series of the standard: PRNU comes from it and it is no part of the curves.
    flat_exposure_s, dark_exposure_s : array_like (n,)
        Exposures within 0.1 % count as equal. Without ``photons`` the light must not change between flats.
    pixel_format : str
        PFNC name such as ``Mono12``. Each colour is treated apart; the gain is common to all.
    photons : array_like (n,), optional
        Mean photons on a pixel in the exposure of each flat. With them come quantum efficiency, responsivity
        and the threshold in photons, and the light may be varied instead of the exposure.
    dark_temperature_c : array_like (n,), optional
        Of each dark frame. Those of the temperature of the flats (``temperature_c``; if not told, the one
        with the most darks) make the model, the others only the doubling interval of the dark current.
    temperature_c, wavelength_nm, pixel_pitch_um : float, optional
        Conditions, for the sheet.
    gain_db : float
        Recorded with the model.
    provenance : Provenance
        Recorded with the model.

    Returns
    -------
    RadiometricModel
        With maps, defects, evidence, uncertainties, quality, and ``sheet``.

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
    Standard 1288, Release 4.0 Linear (2021). A dark variance below 1 DN^2 is biased by the quantisation, and
    below 0.24 DN^2 the standard gives the dark noise up; here the moments of a rounded Gaussian are inverted
    (``true_dark``) and joined with the flats' own intercept. The sheet's curves use means over the whole
    area, as the standard does: under strong vignetting its saturation is that of the field's mean.
    """
    bits = sample_bits(pixel_format)
    if bits is None:
        raise FitError(f"sensor: {pixel_format} frames hold no DN: photon transfer needs integer raw frames")
    full_scale = 2.0**bits - 1
    light = group("flat", flats, flat_exposure_s, photons)
    cover = group("dark", darks, dark_exposure_s)
    pairs = [level for level in light if len(level.frames) > 1]
    if not pairs:
        raise FitError("sensor: no flat pairs: take two frames or more at each exposure")
    if len(pairs) < 3:
        raise FitError(f"sensor: {len(pairs)} exposure levels with pairs of flats: want three or more")
    shape = np.shape(flats[pairs[0].frames[0]])
    if (len(shape) == 3) != pixel_format.startswith("RGB") or shape[2:] not in ((), (3,)):
        raise FitError(f"sensor: {pixel_format} frames cannot have shape {shape}")
    planes = colour_planes(pixel_format)
    cover_reader = Reader("dark", darks, shape, full_scale)
    cover, warmth = _at_temperature(cover_reader, cover, dark_temperature_c, temperature_c)
    dark, of_dark = fit_dark(
        cover_reader, cover, lambda image, good, noise: dark_image(image, good, noise, planes)
    )
    series = FlatSeries(Reader("flat", flats, shape, full_scale), pairs, dark, planes)
    ceiling, reached = ceiling_of(series, full_scale)

    def examine(total: Sum, points: Points) -> Measured:
        return measured_bright(series, total, points)

    points, total, of_bright = series.sweep(ceiling if reached else np.inf, examine)
    saturation = knee(points, dark, ceiling) if reached else full_scale
    line = photon_transfer(points, dark, saturation, full_scale)
    if of_bright is None:
        copy = Sum(total.image.copy(), total.frames, total.exposure_s)
        of_bright = measured_bright(series, copy, points)
        del copy
    sheet = data_sheet(
        series,
        points,
        line,
        of_dark=of_dark,
        of_bright=of_bright,
        warmth=warmth,
        temperature_c=temperature_c,
        wavelength_nm=wavelength_nm,
        pixel_pitch_um=pixel_pitch_um,
    )
    maps = _maps(series, total, line)
    warnings = _warnings(points, line, dark, saturation, reached, len(light) - len(pairs))
    linearity = sheet.linearity_error_percent
    if linearity is not None and linearity > _MARKED_LINEARITY:
        warnings.append(
            f"linearity error {linearity:.1f} %: light or exposure varied, or the camera is not linear"
        )
    used = line.used
    return RadiometricModel(
        width=shape[1],
        height=shape[0],
        pixel_format=pixel_format,
        gain_dn_per_e=line.gain,
        gain_sigma_dn_per_e=line.gain_sigma,
        read_noise_e=sheet.dark_noise_e,
        read_noise_sigma_e=sheet.dark_noise_sigma_e,
        saturation_dn=saturation,
        gain_db=gain_db,
        photon_transfer=np.stack([points.exposure_s, points.mean, points.variance, used], axis=1),
        sheet=sheet,
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


def _at_temperature(
    reader: Reader, levels: list[Level], given: ArrayLike | None, wanted: float | None
) -> tuple[list[Level], list[tuple[float, float, float]]]:
    """Darks of the model's temperature; temperature, dark current and sigma (DN/s) of every temperature."""
    if given is None:
        return levels, []
    count = len(reader.frames)
    values = np.asarray(given, np.float64)
    if values.shape != (count,) or not np.all(np.isfinite(values)):
        raise FitError(f"sensor: {count} dark frames want as many temperatures, each a number")
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order]) > _SAME_TEMPERATURE_C) + 1
    groups = np.split(order, starts)
    means = np.array([values[g].mean() for g in groups])
    if wanted is None:
        chosen = int(np.argmax([len(g) for g in groups]))
    else:
        chosen = int(np.argmin(np.abs(means - wanted)))
    warmth, kept = [], levels
    for number, (mean, members) in enumerate(zip(means, groups, strict=True)):
        inside = set(members.tolist())
        some = [
            Level(level.exposure_s, frames)
            for level in levels
            if (frames := tuple(i for i in level.frames if i in inside))
        ]
        if number == chosen:
            kept = some
        if len(groups) > 1 and len(some) > 1:
            dark, _ = fit_dark(reader, some, lambda image, good, noise: None)
            warmth.append(
                (float(mean), dark.mean_rate(), rate_sigma(dark, float(np.nan_to_num(dark.noise_dn2))))
            )
    return kept, warmth


def rate_sigma(dark: DarkSeries, noise_dn2: float) -> float:
    """Sigma of the mean dark current, DN/s: drift of the black level from frame to frame, at least noise."""
    if not dark.spread_s2:
        return 0.0
    pixels = np.count_nonzero(dark.good)
    return float(max(dark.drift_dn, np.sqrt(noise_dn2 / pixels)) / np.sqrt(dark.spread_s2))


def _warnings(
    points: Points, line: Line, dark: DarkSeries, saturation: float, reached: bool, single: int
) -> list[str]:
    warnings = []
    if single:
        warnings.append(f"{single} exposures of flats have one frame only and were left out")
    if not reached:
        warnings.append(f"the flats do not reach saturation: it is taken at full scale, {saturation:.0f} DN")
    if dark.rate_dn_s is None:
        warnings.append("darks at one exposure only: the dark current is not known")
    if dark.clipped > _CLIPPED:
        warnings.append(
            f"{100 * dark.clipped:.1f} % of the dark samples lie at 0 DN, where the dark map is biased: "
            "raise the black level"
        )
    if np.isnan(dark.noise_dn2):
        warnings.append("no dark pairs: the read noise is that of the flats' line")
    read_dn2 = line.noise_dn2 - QUANTISATION_DN2
    if read_dn2 < 2 * line.noise_sigma_dn2:
        warnings.append("the read noise is lost in the quantisation: only its upper limit is known")
    elif line.hidden is not None and min(dark.noise_dn2, line.noise_dn2) < 0.24:
        warnings.append(
            "dark noise is below the quantisation: the read noise is inferred from how the numbers round"
        )
    slopes = []
    for plane in np.unique(points.plane):
        one = points.where(line.used & (points.plane == plane))
        noise = line.noise_dn2
        slopes.append(
            np.sum((one.variance - noise) * one.freedom) / max(np.sum(one.signal * one.freedom), 1e-9)
        )
    if max(slopes) > 1.1 * min(slopes):
        warnings.append("the gain differs between the colours by more than 10 %: one gain stands for all")
    return warnings


def _maps(series: FlatSeries, total: Sum, line: Line) -> dict[str, Any]:
    """Dark and flat maps, their means and their uncertainties, as fields of the model."""
    dark, good, gain = series.dark, series.good, line.gain
    noise_dn2 = line.noise_dn2
    noise_e2 = noise_dn2 / gain**2
    centre = float(np.mean(dark.mean_dn, where=good, dtype=np.float64))
    pixels = np.count_nonzero(good)
    mean_rate, rate_map, rate_variance = 0.0, None, 0.0
    t = dark.mean_exposure_s
    # The series' own images become the maps: large sensors have no room for both.
    dark_map = dark.mean_dn
    dark_map -= np.float32(centre)
    if dark.rate_dn_s is not None:
        mean_rate = max(dark.mean_rate() / gain, 0.0)
        deviation = dark.rate_dn_s.image()
        deviation /= np.float32(gain)
        deviation -= np.float32(mean_rate)
        rate_map, rate_variance = _shrunk(deviation, good, noise_e2 / dark.spread_s2)
        if rate_map is not None:
            for top in range(0, len(dark_map), _STRIP):
                dark_map[top : top + _STRIP] -= np.float32(gain * t) * rate_map[top : top + _STRIP]
    offset_variance = noise_e2 / dark.frames
    drift = max(dark.drift_dn / np.sqrt(dark.frames), np.sqrt(noise_dn2 / (dark.frames * pixels)))
    black, black_sigma = (
        centre - gain * mean_rate * t,
        float(np.hypot(drift, rate_sigma(dark, noise_dn2) * t)),
    )
    if line.hidden is not None:
        black, black_sigma = line.hidden.black, line.hidden.black_sigma
    covariance = np.array(
        [[offset_variance + rate_variance * t**2, -rate_variance * t], [-rate_variance * t, rate_variance]]
    )
    flat, flat_sigma = _flat_map(series, total, line)
    for array in (dark_map, rate_map, flat):
        if array is not None:
            # Locked, so that the model need not copy.
            array.flags.writeable = False
    defects = ~series.good
    defects.flags.writeable = False
    return {
        "black_dn": black,
        "black_sigma_dn": black_sigma,
        "dark_current_e_s": mean_rate,
        "dark_current_sigma_e_s": rate_sigma(dark, noise_dn2) / gain,
        "dark_map": dark_map,
        "dark_rate_map": rate_map,
        "dark_covariance": covariance,
        "flat_map": flat,
        "flat_sigma": flat_sigma,
        "defects": defects,
    }


def _shrunk(deviation: Image, good: NDArray[np.bool_], noise: float) -> tuple[Image | None, float]:
    """Per-pixel rates drawn to their mean as far as they are noise, and the variance that is left.

    Short dark series measure the rate of one pixel badly; extrapolated to longer exposures its noise would do
    harm. Rates that stand out of the noise are kept as measured. ``deviation`` is changed.
    """
    total, distinct = 0.0, False
    count = np.count_nonzero(good)
    strips = [slice(top, top + _STRIP) for top in range(0, len(good), _STRIP)]
    mean = float(np.mean(deviation, where=good, dtype=np.float64))
    for rows in strips:
        part = deviation[rows][good[rows]].astype(np.float64) - mean
        # Not a product of vectors: a library cuts the long ones by the number of threads.
        total += float(np.sum(part * part)) / count
        distinct |= bool(np.any(np.abs(deviation[rows]) > 5 * np.sqrt(noise)))
    true = max(total - noise, 0.0)
    share = true / (true + noise) if true > 0 else 0.0
    if share < 0.01 and not distinct:
        return None, true
    for rows in strips:
        shrunk = deviation[rows]
        np.multiply(shrunk, np.float32(share), out=shrunk, where=np.abs(shrunk) <= 5 * np.sqrt(noise))
    return deviation, share * noise


def _flat_map(series: FlatSeries, total: Sum, line: Line) -> tuple[Image, float]:
    """Relative response and its relative sigma where it is 1; takes the place of ``total``'s image."""
    flat = total.image
    variances = []
    of_dark = series.dark.noise_of(total.exposure_s, line.noise_dn2)
    for plane in series.planes:
        image, bad = flat[plane], ~series.good[plane]
        h, w = image.shape
        middle = (slice(h // 4, h - h // 4), slice(w // 4, w - w // 4))
        mean = 0.0
        if not np.all(bad[middle]):
            mean = float(np.mean(image[middle], where=~bad[middle], dtype=np.float64))
        if mean <= 0:
            raise FitError("sensor: the middle of the flats is dark or defective: light the whole field")
        image /= np.float32(mean)
        image[bad] = 1
        np.maximum(image, np.float32(1e-3), out=image)
        variances.append((line.gain * mean + line.noise_dn2) / (total.frames * mean**2) + of_dark / mean**2)
    return flat, float(np.sqrt(np.mean(variances)))
