"""EMVA 1288 set 001: each number its makers published, beside that of ``calibrate sensor``."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from commands import gnomon

from calibration.files import load_model
from calibration.radiometric import RadiometricModel
from rigs.report import Metric

COMMANDS = (
    "import emva {data} {work}/session",
    "calibrate sensor {work}/session --out {work}/sensor.json",
)
PERCENT = 1.0
"""Greatest deviation from a published number, percent of it."""
POINTS = 0.02
"""Greatest deviation of a linearity error, percentage points."""


def published(path: Path) -> dict[str, float]:
    """Numbers of a file of results, by name."""
    values = {}
    for entry in ElementTree.parse(path).getroot().iterfind("./*/*"):
        text = entry.findtext("Value")
        if text:
            values[entry.tag] = float(text)
    return values


def ours(model: RadiometricModel) -> Iterator[tuple[str, str, float | None, float | None, str]]:
    """Name of the published number, what it is, our value, its sigma and its unit."""
    sheet, gain = model.sheet, model.gain_dn_per_e
    assert sheet is not None
    dsnu, prnu = sheet.dsnu_e, sheet.prnu_percent
    yield "K", "gain K", gain, model.gain_sigma_dn_per_e, "DN/e-"
    yield "inverse_K", "1/K", 1 / gain, model.gain_sigma_dn_per_e / gain**2, "e-/DN"
    yield (
        "QE",
        "quantum efficiency",
        sheet.quantum_efficiency_percent,
        sheet.quantum_efficiency_sigma_percent,
        "%",
    )
    yield "R", "responsivity", sheet.responsivity_dn_per_photon, None, "DN/photon"
    yield "sigma_y_dark", "dark noise", sheet.dark_noise_dn, None, "DN"
    yield "sigma_d", "dark noise", sheet.dark_noise_e, sheet.dark_noise_sigma_e, "e-"
    yield "u_p_min", "sensitivity threshold", sheet.threshold_photons, None, "photons"
    yield "u_p_sat", "saturation capacity", sheet.saturation_photons, None, "photons"
    yield "u_e_sat", "saturation capacity", sheet.saturation_e, None, "e-"
    yield "SNR_max", "SNR max", sheet.snr_max, None, ""
    yield "SNR_max_bit", "SNR max", math.log2(sheet.snr_max), None, "bit"
    yield "inverse_SNR_max", "1/SNR max", 100 / sheet.snr_max, None, "%"
    yield "DR", "dynamic range", sheet.dynamic_range, None, ""
    if dsnu is not None and prnu is not None:
        # The set was published under Release 3.0, which counts the low frequencies and every pixel.
        yield "DSNU1288", "DSNU, Release 3", dsnu.raw, dsnu.raw_sigma, "e-"
        yield "DSNU1288_DN", "DSNU, Release 3", dsnu.raw * gain, dsnu.raw_sigma * gain, "DN"
        yield "PRNU1288", "PRNU, Release 3", prnu.raw, prnu.raw_sigma, "%"
    yield "LE_min", "linearity error, least", sheet.linearity_error_min_percent, None, "%"
    yield "LE_max", "linearity error, greatest", sheet.linearity_error_max_percent, None, "%"
    yield (
        "u_I_mean",
        "dark current, mean",
        sheet.dark_current_e_s,
        sheet.dark_current_sigma_e_s,
        "e-/s",
    )
    yield (
        "u_I_var",
        "dark current, variance",
        sheet.dark_current_from_variance_e_s,
        sheet.dark_current_from_variance_sigma_e_s,
        "e-/s",
    )


def compare(
    name: str, what: str, value: float | None, sigma: float | None, unit: str, truth: float
) -> Metric:
    """One line of the table; no bound on the dark current, whose fit the makers do not describe."""
    value = math.nan if value is None else value
    passed = None
    if name.startswith("LE"):
        off = abs(value - truth)
        passed, note = off <= POINTS, f"off {off:.4f} points, bound {POINTS}"
    else:
        off = 100 * abs(value / truth - 1)
        note = f"off {off:.2f} %"
        if not name.startswith("u_I"):
            passed, note = off <= PERCENT, f"{note}, bound {PERCENT:g} %"
    return Metric(
        quantity=what, value=value, truth=truth, sigma=sigma or None, unit=unit, passed=passed, note=note
    )


def emva(data: Path, work: Path) -> Iterator[Metric]:
    """Import, calibrate and compare."""
    work.mkdir(parents=True)
    for command in COMMANDS:
        gnomon(command, data=data, work=work)
    model = load_model(work / "sensor.json", RadiometricModel)
    known = published(data.parent / f"published_{data.name}_results.xml")
    for name, what, value, sigma, unit in ours(model):
        yield compare(name, what, value, sigma, unit, known[name])
    sheet = model.sheet
    assert sheet is not None
    for what, value, unit in (
        ("DSNU, Release 4", None if sheet.dsnu_e is None else sheet.dsnu_e.total, "e-"),
        ("PRNU, Release 4", None if sheet.prnu_percent is None else sheet.prnu_percent.total, "%"),
        ("linearity error, Release 4", sheet.linearity_error_percent, "%"),
    ):
        yield Metric(quantity=what, value=math.nan if value is None else value, unit=unit)
