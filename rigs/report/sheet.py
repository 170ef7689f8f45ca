"""The sensor's chapter of the page, in the layout of an EMVA 1288 data sheet."""

import math
from collections.abc import Iterator

import numpy as np

from calibration.provenance import Array
from calibration.radiometric import RadiometricModel
from calibration.radiometric.sheet import NonUniformity, SensorSheet
from rigs.report import maps, plots, sheet_plots
from rigs.report.layout import (
    MAP_PX,
    Figure,
    Section,
    Table,
    counted,
    figure,
    number,
    quality_rows,
    scalar,
    with_sigma,
)

_WORST = 10  # defect pixels listed
_HEAD = ("Quantity", "Symbol", "Value", "± σ", "Unit")

Row = tuple[str, ...]


def sensor_section(model: RadiometricModel | None) -> Section:
    """Chapter of the sensor: its data sheet where the model carries one, else what the model uses."""
    if model is None:
        return Section("Sensor", missing=("No sensor calibration.",))
    rows = [
        ("Format", f"{model.pixel_format}, {model.width} × {model.height}, gain {number(model.gain_db)} dB")
    ]
    if model.response is None:
        rows += [
            ("Black", with_sigma(model.black_dn, model.black_sigma_dn, "DN")),
            ("Gain K", with_sigma(model.gain_dn_per_e, model.gain_sigma_dn_per_e, "DN/e⁻")),
            ("Read noise", with_sigma(model.read_noise_e, model.read_noise_sigma_e, "e⁻")),
            ("Dark current", with_sigma(model.dark_current_e_s, model.dark_current_sigma_e_s, "e⁻/s")),
            ("Saturation", f"{number(model.saturation_dn)} DN"),
        ]
    if model.sheet is None:
        for name, value, unit in (
            ("DSNU", model.dsnu_e, "e⁻"),
            ("PRNU", model.prnu_percent, "%"),
            ("Linearity error", model.linearity_error_percent, "%"),
        ):
            if value is not None:
                rows.append((name, f"{number(value)} {unit}"))
    if model.defects is not None:
        rows.append(("Defect pixels", f"{int(model.defects.sum())}"))
    figures: list[Figure] = []
    missing: list[str] = []
    tables: tuple[Table, ...] = ()
    if model.sheet is not None:
        rows += _conditions(model.sheet)
        tables = (_summary(model.sheet, model), *_defects(model.sheet))
        figures += _figures(model.sheet, model.gain_dn_per_e)
        missing += _missing(model.sheet)
    elif model.photon_transfer is not None:
        figures += _evidence(model.photon_transfer, model)
    elif model.response is None:
        missing.append("Photon transfer: the model carries no measurement.")
    if model.response is not None:
        figures.append(
            figure(
                plots.response(model.response, model.response_sigma),
                "Response",
                "Relative exposure over digital number for each channel",
                "The exposure that a digital number stands for; band: two sigma; dotted: not constrained.",
            )
        )
    if model.flat_map is not None:
        flat = np.asarray(model.flat_map, float)
        figures.append(
            scalar(
                maps.shrink(flat if flat.ndim == 2 else flat.mean(axis=-1), MAP_PX),
                "Flat field",
                "Relative response over the picture",
                "",
                "Relative response: vignetting and pixel gains.",
            )
        )
    return Section("Sensor", tuple(figures), (*rows, *quality_rows(model.quality)), tuple(missing), tables)


def _evidence(photon_transfer: Array, model: RadiometricModel) -> Iterator[Figure]:
    exposure, mean, variance, used = np.asarray(photon_transfer, float).T
    yield figure(
        plots.photon_transfer(
            mean - model.black_dn, variance, model.gain_dn_per_e, model.read_noise_e, used > 0
        ),
        "Photon transfer",
        "Temporal variance over signal, with the fitted line of slope "
        f"{number(model.gain_dn_per_e)} DN per electron",
        "The slope is the gain; the floor is the read noise.",
    )
    yield figure(
        plots.linearity(exposure, mean - model.black_dn, used > 0),
        "Linearity",
        "Deviation of the signal from a straight line over the exposures, in percent",
        "Signal against exposure time, as deviation from a straight line.",
    )


def _conditions(sheet: SensorSheet) -> Iterator[tuple[str, str]]:
    yield "Standard", "EMVA 1288, Release 4.0 Linear"
    for name, value, unit in (
        ("Sensor temperature", sheet.temperature_c, "°C"),
        ("Wavelength", sheet.wavelength_nm, "nm"),
        ("Pixel pitch", sheet.pixel_pitch_um, "µm"),
    ):
        if value is not None:
            yield name, f"{number(value)} {unit}"


def _summary(sheet: SensorSheet, model: RadiometricModel) -> Table:
    """The table of the standard's summary sheet; rows without a number are left out."""
    gain, gain_sigma = model.gain_dn_per_e, model.gain_sigma_dn_per_e
    snr, span = sheet.snr_max, sheet.dynamic_range
    area = None if sheet.pixel_pitch_um is None else sheet.pixel_pitch_um**2
    at_least = "" if sheet.saturation_reached else "≥ "
    photons, least = sheet.saturation_photons, sheet.threshold_photons
    groups: tuple[tuple[str, tuple[Row | None, ...]], ...] = (
        (
            "Gain and quantum efficiency",
            (
                _row("Quantum efficiency", "η", sheet.quantum_efficiency_percent,
                     sheet.quantum_efficiency_sigma_percent, "%"),
                _row("Responsivity", "R", sheet.responsivity_dn_per_photon,
                     sheet.responsivity_sigma_dn_per_photon, "DN/photon"),
                _row("System gain", "K", gain, gain_sigma, "DN/e⁻"),
                _row("Inverse of the system gain", "1/K", 1 / gain, gain_sigma / gain**2, "e⁻/DN"),
            ),
        ),
        (
            "Temporal dark noise and sensitivity",
            (
                _row("Temporal dark noise", "σ_d", sheet.dark_noise_e, sheet.dark_noise_sigma_e, "e⁻"),
                _row("Temporal dark noise", "σ_y.dark", sheet.dark_noise_dn, None, "DN"),
                _row("Absolute sensitivity threshold", "μ_p.min", least, None, "photons"),
                _row("Absolute sensitivity threshold", "μ_p.min.area", _over(least, area), None,
                     "photons/µm²"),
                _row("Absolute sensitivity threshold", "μ_e.min", sheet.threshold_e, None, "e⁻"),
                _row("Absolute sensitivity threshold", "μ_e.min.area", _over(sheet.threshold_e, area), None,
                     "e⁻/µm²"),
            ),
        ),
        (
            "Saturation, signal to noise and range",
            (
                _row("Saturation capacity", "μ_p.sat", photons, None, "photons", at_least),
                _row("Saturation capacity", "μ_p.sat.area", _over(photons, area), None, "photons/µm²",
                     at_least),
                _row("Saturation capacity", "μ_e.sat", sheet.saturation_e, None, "e⁻", at_least),
                _row("Saturation capacity", "μ_e.sat.area", _over(sheet.saturation_e, area), None, "e⁻/µm²",
                     at_least),
                _row("Greatest signal to noise", "SNR_max", snr, None, "", at_least),
                _row("Greatest signal to noise", "SNR_max", 20 * math.log10(snr), None, "dB", at_least),
                _row("Greatest signal to noise", "SNR_max", math.log2(snr), None, "bit", at_least),
                _row("Inverse of it", "1/SNR_max", 100 / snr, None, "%", "≤ " if at_least else ""),
                _row("Dynamic range", "DR", span, None, "", at_least),
                _row("Dynamic range", "DR", 20 * math.log10(span), None, "dB", at_least),
                _row("Dynamic range", "DR", math.log2(span), None, "bit", at_least),
            ),
        ),
        ("Dark signal nonuniformity", tuple(_spatial("DSNU", sheet.dsnu_e, "e⁻", gain))),
        ("Photo response nonuniformity", tuple(_spatial("PRNU", sheet.prnu_percent, "%"))),
        (
            "Linearity",
            (
                _row("Linearity error, mean", "LE", sheet.linearity_error_percent,
                     sheet.linearity_error_sigma_percent, "%"),
                _row("Linearity error, least (Release 3)", "LE_min", sheet.linearity_error_min_percent, None,
                     "%"),
                _row("Linearity error, greatest (Release 3)", "LE_max", sheet.linearity_error_max_percent,
                     None, "%"),
            ),
        ),
        (
            "Dark current",
            (
                _row("From the mean", "μ_I.mean", sheet.dark_current_e_s, sheet.dark_current_sigma_e_s,
                     "e⁻/(pixel s)"),
                _row("From the variance", "μ_I.var", sheet.dark_current_from_variance_e_s,
                     sheet.dark_current_from_variance_sigma_e_s, "e⁻/(pixel s)"),
                _row("Temperature to double it", "T_d", sheet.dark_doubling_c, sheet.dark_doubling_sigma_c,
                     "°C"),
            ),
        ),
    )  # fmt: skip
    rows: list[Row] = []
    for title, group in groups:
        known = [row for row in group if row is not None]
        rows += [(title,), *known] if known else []
    return Table(
        "Data sheet",
        _HEAD,
        tuple(rows),
        words=2,
        note="σ is that of the frames' noise; the uncertainty of the photons told comes on top.",
    )


def _row(
    name: str, symbol: str, value: float | None, sigma: float | None, unit: str, bound: str = ""
) -> Row | None:
    if value is None or not math.isfinite(value):
        return None
    spread = number(sigma, sigma) if sigma is not None and sigma > 0 else ""
    return name, symbol, bound + number(value, sigma), spread, unit


def _over(value: float | None, area: float | None) -> float | None:
    return None if value is None or area is None else value / area


def _spatial(
    name: str, value: NonUniformity | None, unit: str, dn_per_unit: float | None = None
) -> Iterator[Row | None]:
    if value is None:
        return
    yield _row("Total", f"{name}_1288", value.total, value.sigma, unit)
    if dn_per_unit is not None:
        yield _row("Total", f"{name}_1288", value.total * dn_per_unit, value.sigma * dn_per_unit, "DN")
    yield _row("Rows", f"{name}_1288.row", value.row, None, unit)
    yield _row("Columns", f"{name}_1288.col", value.column, None, unit)
    yield _row("Pixels", f"{name}_1288.pixel", value.pixel, None, unit)
    yield _row("Low frequencies counted (Release 3)", f"{name}_1288", value.raw, value.raw_sigma, unit)


def _defects(sheet: SensorSheet) -> Iterator[Table]:
    for title, unit, table in (
        ("Pixels that stand out in the dark", "DN", sheet.dark_defects),
        ("Pixels that stand out in the light", "%", sheet.bright_defects),
    ):
        if table is None or not len(table):
            continue
        worst = np.asarray(table, float)[:_WORST]
        yield Table(
            title,
            ("Row", "Column", f"Deviation / {unit}"),
            tuple((f"{row:.0f}", f"{column:.0f}", number(off)) for row, column, off in worst),
            words=0,
            note=f"The worst {len(worst)} of {counted(len(table))} in the model file."
            if len(table) > len(worst)
            else "",
        )


def _figures(sheet: SensorSheet, gain: float) -> Iterator[Figure]:
    yield figure(
        sheet_plots.photon_transfer(sheet, gain),
        "Photon transfer",
        f"Photo-induced variance over photo-induced mean, with the fitted line of slope {number(gain)}",
        "The slope of the line is the gain K.",
    )
    yield figure(
        sheet_plots.sensitivity(sheet, gain),
        "Sensitivity",
        "Mean above dark over the light, with a straight line",
        "A straight line up to saturation."
        if sheet.responsivity_dn_per_photon is None
        else "The slope is the responsivity R, the product of K and η.",
    )
    if sheet.linearity is not None:
        yield figure(
            sheet_plots.linearity(sheet),
            "Deviation from linearity",
            "Relative deviation of the mean from a straight line, in percent",
            "Within 5 to 95 % of saturation.",
        )
    yield figure(
        sheet_plots.signal_to_noise(sheet, gain),
        "Signal to noise",
        "Signal-to-noise ratio over the light, measured and theoretical, both axes logarithmic",
        "Dashed: the sensitivity threshold and the saturation capacity.",
    )
    if sheet.dark_current_e_s is not None:
        yield figure(
            sheet_plots.dark_current(sheet, gain),
            "Dark current",
            "Mean of the dark frames over the exposure",
            f"Slope {number(sheet.dark_current_e_s)} e⁻/s.",
        )
    if sheet.spectrogram is not None:
        frequency, *power = np.asarray(sheet.spectrogram, float).T
        for name, pair, part, unit in (
            ("DSNU", power[:2], sheet.dsnu_e, "e⁻"),
            ("PRNU", power[2:], sheet.prnu_percent, "%"),
        ):
            if np.any(np.nan_to_num(pair) > 0):
                yield figure(
                    sheet_plots.spectrogram(frequency, pair[0], pair[1], part, unit),
                    f"Spectrogram of the {name}",
                    f"Root of the mean power spectrum of the {name} along rows and columns",
                    "Peaks are stripes or a pattern; the rise at the left is shading.",
                )
    if sheet.histograms is not None:
        counts = np.asarray(sheet.histograms, float).T
        for name, deviation, count, unit in (
            ("DSNU", counts[0], counts[1], "DN"),
            ("PRNU", counts[2], counts[3], "%"),
        ):
            if np.isfinite(deviation).any():
                yield figure(
                    sheet_plots.histogram(deviation, count, unit),
                    f"Logarithmic histogram of the {name}",
                    f"How many pixels deviate how far from their neighbourhood, {name}",
                    "What stands outside the dashed curve are single pixels.",
                )
    if sheet.profile_rows is not None and sheet.profile_columns is not None:
        yield figure(
            sheet_plots.profiles(sheet.profile_rows, sheet.profile_columns),
            "Horizontal and vertical profiles",
            "Mean, least and greatest value of the bright image along columns and rows, with the dark means",
            "Of the averaged bright and dark images.",
            wide=True,
        )


def _missing(sheet: SensorSheet) -> Iterator[str]:
    if sheet.quantum_efficiency_percent is None:
        yield "Quantum efficiency, photons: the light was not measured (photons were not told)."
    if not sheet.saturation_reached:
        yield "Saturation: not reached by the flats; capacity, SNR and range are lower limits."
    if sheet.dark_current_e_s is None:
        yield "Dark current: wants darks at several exposures."
    if sheet.dark_doubling_c is None:
        yield "Doubling temperature of the dark current: wants darks at several temperatures."
    if sheet.linearity is None:
        yield "Linearity: too few exposures within 5 to 95 % of saturation."
    for name, part in (
        ("DSNU", sheet.dsnu_e),
        ("PRNU", sheet.prnu_percent),
        ("Spectrograms", sheet.spectrogram),
        ("Profiles", sheet.profile_rows),
        ("Histograms", sheet.histograms),
    ):
        if part is None:
            yield f"{name}: not measured."
