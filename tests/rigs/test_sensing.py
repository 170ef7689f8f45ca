"""The sensor's data sheet by the commands: twin and image set in, numbers of the truth and a page out."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import conftest
import cv2
import numpy as np
import pytest
from conftest import Answer, MiniRig

from calibration.files import load_model
from calibration.radiometric import RadiometricModel
from calibration.radiometric.irradiance import photons_per_s
from capture.session import Session
from rigs import verify
from rigs.simulated import Twin

Gnomon = Callable[..., Answer]
CAMERA = "top"
BOUNDS = {
    "gain_percent": 1,
    "read_noise_percent": 2,
    "dark_current_percent": 2,
    "saturation_percent": 0.1,
    "dsnu_percent": 5,
    "prnu_percent": 5,
    "linearity_percent": 0.1,
}


def emva_plan(folder: Path) -> Path:
    """The shipped EMVA plan, thinned: every third exposure, twelve frames in place of fifty."""
    data = conftest.shipped("plans/dome-emva.yaml")
    for block in data["blocks"]:
        ladder = block["bracket"]["exposures_s"]
        if len(ladder) == 50:
            block["bracket"] = {"exposures_s": ladder[1::3]}
        if block.get("repeats") == 50:
            block["repeats"] = 12
    return conftest.dump(folder / "emva.yaml", data)


def test_an_emva_plan_on_the_twin_gives_the_truth_and_a_data_sheet(
    mini: MiniRig, twin: Twin, gnomon: Gnomon, tmp_path: Path
) -> None:
    session, out = tmp_path / "session", tmp_path / "sensor" / "sensor.json"
    told = gnomon("capture", mini.rig, emva_plan(tmp_path), session, "--simulate", mini.truth)
    assert told.code == 0, told.err
    # The twin counts electrons: with twice as many photons the efficiency is one half.
    rate = float((twin.clean_radiance("panel", {"panel": 1.0}, CAMERA) * twin.flat_map(CAMERA)).mean())
    told = gnomon(
        "calibrate", "sensor", session, "--photons-per-s", 2 * rate, "--wavelength-nm", 525,
        "--pixel-pitch-um", 5.86, "--out", out,
    )  # fmt: skip
    assert told.code == 0, told.err
    model = load_model(out, RadiometricModel)
    assert model.quality is not None
    assert model.quality.verdict == "good"
    metrics = verify.sensor(model, mini.known.replace(bounds=BOUNDS), CAMERA)
    assert len([metric for metric in metrics if metric.bound is not None]) == len(BOUNDS)
    assert [metric.quantity for metric in metrics if metric.passed is False] == []
    sheet, sensor = model.sheet, mini.known.cameras[CAMERA].sensor
    assert sheet is not None
    assert (sheet.temperature_c, sheet.wavelength_nm, sheet.pixel_pitch_um) == (27, 525, 5.86)
    assert sheet.quantum_efficiency_percent is not None
    assert sheet.quantum_efficiency_sigma_percent is not None
    # 0.02 % of it: the means are over the good pixels, the rate's over all.
    tolerance = 4 * sheet.quantum_efficiency_sigma_percent + 0.01
    assert sheet.quantum_efficiency_percent == pytest.approx(50, abs=tolerance)
    assert sheet.saturation_reached
    dark_e2 = sensor.read_noise_e**2 + 1 / 12 / sensor.gain_dn_per_e**2
    assert sheet.threshold_e == pytest.approx(np.sqrt(dark_e2 + 0.25) + 0.5, rel=0.03)
    assert model.provenance.options["photons_per_s"] == pytest.approx(2 * rate)
    told = gnomon("report", out.parent)
    assert told.code == 0, told.err
    page = (out.parent / "report.html").read_text("utf-8")
    assert "Data sheet" in page
    assert len(re.findall("<figure", page)) == 11  # ten of the standard and the flat field
    assert "photons were not told" not in page


WIDTH, HEIGHT, BITS = 96, 64, 12
K, QE, BLACK, READ_E, FULL_DN = 0.4, 0.35, 30.0, 6.0, 4095


def write_set(folder: Path, *, vary_light: bool, spatial: int = 16) -> None:
    """An EMVA set of a sensor by the standard's equations; light varied by its strength or by the time."""
    rng = np.random.default_rng(9)
    response = 1 + 0.008 * rng.normal(size=(HEIGHT, WIDTH))
    offset = 2.0 * rng.normal(size=(HEIGHT, WIDTH))
    folder.mkdir()
    lines = ["v 4.0", f"n {BITS} {WIDTH} {HEIGHT}"]

    def take(head: str, photons: float, count: int) -> None:
        lines.append(head)
        for _ in range(count):
            electrons = rng.poisson(QE * photons * response) + rng.normal(offset, READ_E)
            dn = np.clip(np.round(BLACK + K * electrons), 0, FULL_DN).astype(np.uint16)
            name = f"{len(lines):04d}.png"
            assert cv2.imwrite(str(folder / name), dn)
            lines.append(f"i {name}")

    exposures = np.linspace(0.02, 1.12, 24) * 1e6
    top = FULL_DN / K / QE / 1e6  # photons a nanosecond that fill the range in a millisecond
    half = 5.05e5
    # Darks first: what is told of a flat must be found by the number of its shot.
    for exposure in (1e6,) if vary_light else exposures:
        take(f"d {exposure:.3f}", 0.0, 2)
    take(f"d {1e6 if vary_light else half:.3f}", 0.0, spatial)
    for exposure in exposures:
        take(f"b {1e6 if vary_light else exposure:.3f} {top * exposure:.3f}", top * exposure, 2)
    take(f"b {1e6 if vary_light else half:.3f} {top * half:.3f}", top * half, spatial)
    (folder / "set.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("vary_light", [False, True], ids=["time varied", "light varied"])
def test_an_image_set_gives_the_sensor_that_made_it(gnomon: Gnomon, tmp_path: Path, vary_light: bool) -> None:
    write_set(tmp_path / "set", vary_light=vary_light)
    assert gnomon("import", "emva", tmp_path / "set", tmp_path / "session").code == 0
    told = gnomon("calibrate", "sensor", tmp_path / "session", "--out", tmp_path / "sensor.json")
    assert told.code == 0, told.err
    model = load_model(tmp_path / "sensor.json", RadiometricModel)
    sheet = model.sheet
    assert sheet is not None
    assert sheet.quantum_efficiency_percent is not None
    assert sheet.quantum_efficiency_sigma_percent is not None
    assert sheet.dsnu_e is not None
    assert sheet.prnu_percent is not None
    pixels = WIDTH * HEIGHT
    for value, sigma, truth in (
        (model.gain_dn_per_e, model.gain_sigma_dn_per_e, K),
        (sheet.quantum_efficiency_percent, sheet.quantum_efficiency_sigma_percent, 100 * QE),
        (sheet.dark_noise_e, sheet.dark_noise_sigma_e, READ_E),
        # The pattern is a sample itself.
        (sheet.dsnu_e.total, np.hypot(sheet.dsnu_e.sigma, 2.0 / np.sqrt(2 * pixels)), 2.0),
        (sheet.prnu_percent.total, np.hypot(sheet.prnu_percent.sigma, 0.8 / np.sqrt(2 * pixels)), 0.8),
    ):
        assert sigma < 0.05 * truth
        assert abs(value - truth) < 4 * sigma


def test_photons_of_a_session_give_way_to_those_told(gnomon: Gnomon, tmp_path: Path) -> None:
    write_set(tmp_path / "set", vary_light=False, spatial=4)
    assert gnomon("import", "emva", tmp_path / "set", tmp_path / "session").code == 0
    per_s = 2 * FULL_DN / K / QE * 1000
    pitch, wavelength = 3.45, 550.0
    irradiance = per_s / photons_per_s(1.0, wavelength, pitch)
    found = []
    for words in (
        (),
        ("--photons-per-s", per_s),
        ("--irradiance-uW-cm2", irradiance, "--wavelength-nm", wavelength, "--pixel-pitch-um", pitch),
    ):
        told = gnomon("calibrate", "sensor", tmp_path / "session", *words, "--out", tmp_path / "sensor.json")
        assert told.code == 0, told.err
        sheet = load_model(tmp_path / "sensor.json", RadiometricModel).sheet
        assert sheet is not None
        found.append(sheet.quantum_efficiency_percent)
    # The set's photons are written to three digits behind the point.
    assert found[1] == pytest.approx(found[0] / 2, rel=1e-5)
    assert found[2] == pytest.approx(found[1], rel=1e-9)
    assert Session.open(tmp_path / "session").facts["photons"][-5] == pytest.approx(
        per_s / 2 * 1.12e-3, rel=1e-4
    )


def test_facts_that_somebody_spoilt_are_named(gnomon: Gnomon, tmp_path: Path) -> None:
    write_set(tmp_path / "set", vary_light=True, spatial=2)
    assert gnomon("import", "emva", tmp_path / "set", tmp_path / "session").code == 0
    path = tmp_path / "session" / "facts.json"
    facts = json.loads(path.read_text())
    for photons in (
        facts["photons"][1:],
        ["many"] * len(facts["photons"]),
        [-1.0] * len(facts["photons"]),
        7,
    ):
        path.write_text(json.dumps({**facts, "photons": photons}))
        told = gnomon("calibrate", "sensor", tmp_path / "session", "--out", tmp_path / "sensor.json")
        assert told.code == 2, told.err
        assert f"facts.json: photons: want {len(facts['photons'])} entries" in told.err
        assert len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "sensor.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--photons-per-s", "0"), "--photons-per-s 0: want a number above 0"),
        (("--photons-per-s", "nan"), "--photons-per-s nan: want a number above 0"),
        (("--pixel-pitch-um", "-3"), "--pixel-pitch-um -3: want a number above 0"),
        (("--irradiance-uW-cm2", "1"), "wants --wavelength-nm and --pixel-pitch-um"),
        (("--irradiance-uW-cm2", "1", "--photons-per-s", "9"), "say the same: give one"),
    ],
)
def test_light_that_was_told_wrongly_is_refused_at_once(
    gnomon: Gnomon, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    told = gnomon("calibrate", "sensor", tmp_path / "none", *words)
    assert told.code == 2
    assert says in told.err
    assert len(told.err.strip().splitlines()) == 1


def test_one_rate_cannot_hold_for_flats_under_two_lights(gnomon: Gnomon, tmp_path: Path) -> None:
    for index in range(4):
        dn = np.full((4, 5), 100 + index, np.uint16)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), dn)
    (tmp_path / "manifest.csv").write_text(
        "file,kind,light\n0.png,flat,a\n1.png,flat,b\n2.png,dark,\n3.png,dark,\n"
    )
    assert gnomon("import", "folder", tmp_path, tmp_path / "session").code == 0
    told = gnomon("calibrate", "sensor", tmp_path / "session", "--photons-per-s", 5)
    assert told.code == 2
    assert "several lights" in told.err


def test_photons_of_a_meter_are_those_of_the_standard() -> None:
    """EMVA 1288: 50.34 A[um^2] t[ms] lambda[um] E[uW/cm^2]; the constant is given to four digits."""
    area, time_ms, wavelength_um, irradiance = 3.45**2, 20.0, 0.525, 0.8
    standard = 50.34 * area * time_ms * wavelength_um * irradiance
    assert photons_per_s(irradiance, 525, 3.45) * time_ms / 1000 == pytest.approx(standard, rel=1e-4)
