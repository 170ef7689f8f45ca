"""The sensor's chapter of the page, in the layout of an EMVA 1288 data sheet."""

import numpy as np

from calibration.radiometric import RadiometricModel
from rigs.report import maps, plots
from rigs.report.layout import MAP_PX, Section, figure, number, quality_rows, scalar, with_sigma


def sensor_section(model: RadiometricModel | None) -> Section:
    """Chapter of the sensor."""
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
    for name, value, unit in (
        ("DSNU", model.dsnu_e, "e⁻"),
        ("PRNU", model.prnu_percent, "%"),
        ("Linearity error", model.linearity_error_percent, "%"),
    ):
        if value is not None:
            rows.append((name, f"{number(value)} {unit}"))
    if model.defects is not None:
        rows.append(("Defect pixels", f"{int(model.defects.sum())}"))
    figures = []
    missing = []
    if model.photon_transfer is not None:
        exposure, mean, variance, used = np.asarray(model.photon_transfer, float).T
        figures.append(
            figure(
                plots.photon_transfer(
                    mean - model.black_dn, variance, model.gain_dn_per_e, model.read_noise_e, used > 0
                ),
                "Photon transfer",
                "Temporal variance over signal, with the fitted line of slope "
                f"{number(model.gain_dn_per_e)} DN per electron",
                "The slope is the gain; the floor is the read noise.",
            )
        )
        figures.append(
            figure(
                plots.linearity(exposure, mean - model.black_dn, used > 0),
                "Linearity",
                "Deviation of the signal from a straight line over the exposures, in percent",
                "Signal against exposure time, as deviation from a straight line.",
            )
        )
    elif model.response is None:
        missing.append("Photon transfer: the model carries no measurement.")
    if model.response is not None:
        figures.append(
            figure(
                plots.response(model.response),
                "Response",
                "Relative exposure over digital number for each channel",
                "The exposure that a digital number stands for.",
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
    return Section("Sensor", tuple(figures), (*rows, *quality_rows(model.quality)), tuple(missing))
