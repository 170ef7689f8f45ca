"""The sensor's data sheet on the page: each number with sigma and unit, each figure, what is missing."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from calibration.files import save_model
from calibration.radiometric import RadiometricModel
from calibration.radiometric.sheet import NonUniformity, SensorSheet
from rigs.report import Report, report_directory, sheet_plots, write_report

K, QE, DARK_NOISE_E, PHOTONS_PER_S = 0.28, 0.45, 10.9, 3e6
H, W = 24, 32


def sheet(*, photons: bool = True, **changes: object) -> SensorSheet:
    """A camera by the standard's equations, 30 exposures, saturated in the last three."""
    rng = np.random.default_rng(3)
    exposure = np.linspace(4e-5, 1.4e-2, 30)
    light = PHOTONS_PER_S * exposure
    electrons = np.minimum(QE * light, 14_000)
    dark = 40 + K * 30 * exposure
    variance_dark = np.full(30, K**2 * DARK_NOISE_E**2 + 1 / 12)
    variance = np.where(electrons < 14_000, variance_dark + K**2 * electrons, 2.0)
    levels = np.stack(
        [
            exposure,
            light if photons else np.full(30, np.nan),
            dark + K * electrons,
            dark,
            variance,
            variance_dark,
            electrons < 9_800,
        ],
        axis=1,
    )
    inside = (electrons > 700) & (electrons < 13_300)
    off = rng.normal(0, 0.2, 30)
    frequency = np.arange(1, 17) / 32
    spectrum = 0.5 + rng.random((16, 4)) * 0.1
    profile = np.stack([np.full(W, 100.0), np.full(W, 98.5), np.full(W, 101.5), 40 + rng.random(W)], axis=1)
    deviation = np.linspace(-5, 5, 101)
    counts = np.round(1e4 * np.exp(-(deviation**2)))
    told: dict[str, float | None] = {
        "quantum_efficiency_percent": 45.14,
        "quantum_efficiency_sigma_percent": 0.05,
        "responsivity_dn_per_photon": K * QE,
        "threshold_photons": 25.36,
        "saturation_photons": 30957.0,
    }
    values: dict[str, object] = {
        "temperature_c": 31.5,
        "wavelength_nm": 525.0,
        "pixel_pitch_um": 5.5,
        "dark_noise_dn": 3.066,
        "dark_noise_e": DARK_NOISE_E,
        "dark_noise_sigma_e": 0.02,
        "threshold_e": 11.45,
        "saturation_dn": 3950.0,
        "saturation_e": 13973.0,
        "snr_max": 118.2,
        "dynamic_range": 1220.7,
        "linearity_error_percent": 0.234,
        "linearity_error_min_percent": -0.616,
        "linearity_error_max_percent": 0.480,
        "dark_current_e_s": 30.0,
        "dark_current_sigma_e_s": 1.0,
        "dark_current_from_variance_e_s": 27.0,
        "dsnu_e": NonUniformity(total=0.552, row=0.1, column=0.2, pixel=0.5, sigma=0.004, raw=0.6),
        "prnu_percent": NonUniformity(total=0.4327, row=0.05, column=0.06, pixel=0.42, sigma=0.001, raw=0.5),
        "levels": levels,
        "linearity": np.stack([levels[inside, 1 if photons else 0], off[inside]], axis=1),
        "spectrogram": np.concatenate([frequency[:, None], spectrum], axis=1),
        "profile_rows": profile[:H],
        "profile_columns": profile,
        "histograms": np.stack([deviation, counts, deviation * 2, counts], axis=1),
        "dark_defects": np.array([[3.0, 7.0, 812.5], [1.0, 2.0, 90.0]]),
        "bright_defects": np.array([[5.0, 6.0, -41.0]] * 12),
        **(told if photons else {}),
    }
    return SensorSheet(**{**values, **changes})


def model(data_sheet: SensorSheet | None) -> RadiometricModel:
    return RadiometricModel(
        width=W,
        height=H,
        pixel_format="Mono12",
        black_dn=40,
        gain_dn_per_e=K,
        gain_sigma_dn_per_e=0.0004,
        read_noise_e=DARK_NOISE_E,
        saturation_dn=4000,
        sheet=data_sheet,
    )


class Page(HTMLParser):
    """Cells of the tables, titles of the figures, lines on what is missing."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.titles: list[str] = []
        self.missing: list[str] = []
        self._into: list[str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._into = self.rows[-1]
        elif tag == "h3":
            self.titles.append("")
            self._into = self.titles
        elif tag == "p" and "missing" in (dict(attrs).get("class") or ""):
            self.missing.append("")
            self._into = self.missing

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "h3", "p"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def page(folder: Path, data_sheet: SensorSheet | None) -> Page:
    path = write_report(folder / "report.html", Report(title="sensor", sensor=model(data_sheet)))
    return Page(path.read_text("utf-8"))


FIGURES = [
    "Photon transfer",
    "Sensitivity",
    "Deviation from linearity",
    "Signal to noise",
    "Dark current",
    "Spectrogram of the DSNU",
    "Spectrogram of the PRNU",
    "Logarithmic histogram of the DSNU",
    "Logarithmic histogram of the PRNU",
    "Horizontal and vertical profiles",
]


def test_the_sheet_of_a_folder_shows_every_number_of_the_standard_with_its_unit(tmp_path: Path) -> None:
    save_model(tmp_path / "sensor.json", model(sheet()))
    text = report_directory(tmp_path, tmp_path / "report.html").read_text("utf-8")
    assert "No object" not in text
    found = Page(text)
    cells = {(row[1], row[4]): row[2:4] for row in found.rows if len(row) == 5}
    for (symbol, unit), (value, sigma) in {
        ("η", "%"): ("45.140", "0.050"),
        ("K", "DN/e⁻"): ("0.28000", "0.00040"),
        ("1/K", "e⁻/DN"): ("3.5714", "0.0051"),
        ("R", "DN/photon"): ("0.126", ""),
        ("σd", "e⁻"): ("10.900", "0.020"),
        ("σy.dark", "DN"): ("3.066", ""),
        ("μp.min", "photons"): ("25.36", ""),
        ("μp.min.area", "photons/µm²"): ("0.8383", ""),
        ("μe.min", "e⁻"): ("11.45", ""),
        ("μp.sat", "photons"): ("30957", ""),
        ("μe.sat", "e⁻"): ("13973", ""),
        ("SNRmax", ""): ("118.2", ""),
        ("SNRmax", "dB"): ("41.45", ""),
        ("SNRmax", "bit"): ("6.885", ""),
        ("1/SNRmax", "%"): ("0.846", ""),
        ("DR", ""): ("1221", ""),
        ("DR", "dB"): ("61.73", ""),
        ("DR", "bit"): ("10.25", ""),
        ("DSNU1288.row", "e⁻"): ("0.1", ""),
        ("DSNU1288.col", "e⁻"): ("0.2", ""),
        ("DSNU1288.pixel", "e⁻"): ("0.5", ""),
        ("DSNU1288", "DN"): ("0.1546", "0.0011"),
        ("PRNU1288.pixel", "%"): ("0.42", ""),
        ("LE", "%"): ("0.234", ""),
        ("LEmin", "%"): ("−0.616", ""),
        ("LEmax", "%"): ("0.48", ""),
        ("μI.mean", "e⁻/(pixel s)"): ("30.0", "1.0"),
        ("μI.var", "e⁻/(pixel s)"): ("27", ""),
    }.items():
        assert cells[symbol, unit] == [value, sigma], symbol
    totals = [row[2:] for row in found.rows if len(row) == 5 and row[1] == "PRNU1288"]
    assert totals == [["0.4327", "0.0010", "%"], ["0.5", "", "%"]]
    assert ["3", "7", "812.5"] in found.rows
    assert found.rows.count(["5", "6", "−41"]) == 10
    assert "The worst 10 of 12 in the model file." in found.missing
    assert [title for title in found.titles if title] == FIGURES


def test_what_was_not_measured_is_left_out_and_said(tmp_path: Path) -> None:
    bare = sheet(
        photons=False,
        saturation_reached=False,
        pixel_pitch_um=None,
        **dict.fromkeys(
            (
                "linearity",
                "linearity_error_percent",
                "linearity_error_min_percent",
                "linearity_error_max_percent",
                "dark_current_e_s",
                "dark_current_sigma_e_s",
                "dark_current_from_variance_e_s",
                "dsnu_e",
                "prnu_percent",
                "spectrogram",
                "profile_rows",
                "profile_columns",
                "histograms",
                "dark_defects",
                "bright_defects",
            )
        ),
    )
    found = page(tmp_path, bare)
    assert found.titles == ["Photon transfer", "Sensitivity", "Signal to noise"]
    symbols = {row[1] for row in found.rows if len(row) == 5}
    assert not symbols & {"η", "R", "μp.min", "μp.sat", "μp.min.area", "μe.sat.area", "LE", "DSNU1288"}
    assert {"K", "σd", "μe.min", "μe.sat", "SNRmax", "DR"} <= symbols
    assert ["Saturation capacity", "μe.sat", "≥ 13973", "", "e⁻"] in found.rows
    said = " ".join(found.missing)
    for word in ("Quantum efficiency", "Saturation: not reached", "Dark current:", "Linearity:", "DSNU:",
                 "PRNU:", "Spectrograms:", "Profiles:", "Histograms:"):  # fmt: skip
        assert word in said


def test_a_model_without_a_sheet_shows_what_it_has(tmp_path: Path) -> None:
    found = page(tmp_path, None)
    assert not any("1288" in cell for row in found.rows for cell in row)
    assert any("Photon transfer" in line for line in found.missing)


@pytest.mark.parametrize("photons", [True, False])
def test_the_columns_of_the_levels_are_taken_as_they_are_documented(photons: bool) -> None:
    levels = sheet_plots.Levels(sheet(photons=photons))
    np.testing.assert_allclose(levels.signal[:5], K * QE * PHOTONS_PER_S * levels.exposure_s[:5], rtol=1e-12)
    np.testing.assert_allclose(levels.variance[levels.used], K * levels.signal[levels.used], rtol=1e-9)
    light, label = levels.abscissa
    assert ("photons" in label) == photons
    np.testing.assert_allclose(light, (PHOTONS_PER_S if photons else 1e3) * levels.exposure_s, rtol=1e-12)
