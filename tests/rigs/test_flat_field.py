"""``gnomon calibrate flat`` on the twin: an even panel, a turned one, and a textured plane moved about."""

import numpy as np
import pytest
from simulated_small import camera

from calibration import files
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from capture.plan import CapturePlan
from capture.session import Session
from rigs import workflows
from rigs.config import ConfigError, RigConfig, validate
from rigs.report.flat import flat_sections
from rigs.simulated import Twin
from rigs.simulated.truth import parse_truth

WIDTH, HEIGHT = 240, 150
OPTICS = {"cos4": True, "vignetting": 0.2}


def rig(pixel_format="Mono12"):
    eye = {"driver": "simulated", "width": WIDTH, "height": HEIGHT, "pixel_format": pixel_format}
    eye |= {"exposure_min_s": 1e-6, "exposure_max_s": 10.0, "readout_s": 0.0}
    lamps = {name: {"driver": "simulated", "settle_s": 0.0} for name in ("panel", "sun")}
    return validate({"name": "small", "cameras": {"cam": eye}, "lights": lamps}, RigConfig, "rig")


def moved(x, y, turn):
    relief = {
        "kind": "heightfield",
        "translation_mm": [x, y, 400],
        "rotvec_deg": [0, 0, turn],
        "cell_mm": 2.0,
    }
    relief |= {"width_mm": 500, "height_mm": 500, "albedo": {"low": 0.1, "high": 0.9, "scale_mm": [4, 30]}}
    relief["features"] = [{"kind": "bump", "at_mm": [0, 0], "height_mm": 1e-4, "radius_mm": [5, 5]}]
    return [relief]


def truth(colour="mono", **more):
    eye = camera(WIDTH, HEIGHT, 300.0, optics=OPTICS, sensor={"colour": colour, "prnu": 0.01})
    poses = {"panel": [{"kind": "panel"}], "cap": [{"kind": "cap"}]}
    for number, place in enumerate(((0, 0, 0), (50, 30, 90), (-50, 25, 180), (40, -30, 240), (-45, -30, 30))):
        poses[f"view-{number}"] = moved(*place)
    lights = {
        "panel": {"kind": "panel", "intensity": 8e5},
        "sun": {"kind": "distant", "direction": [0, 0, -1], "intensity": 3e6},
    }
    return parse_truth({"seed": 4, "cameras": {"cam": eye}, "lights": lights, "poses": poses} | more)


def sensor_of(known):
    """What a calibration without a flat would know."""
    sensor = known.cameras["cam"].sensor
    shape = (HEIGHT, WIDTH, 3) if sensor.colour == "rgb" else (HEIGHT, WIDTH)
    pattern = Twin(known).fixed_pattern("cam")
    offset = (pattern.offset_e * sensor.gain_dn_per_e).astype(np.float32)
    return RadiometricModel(
        width=WIDTH,
        height=HEIGHT,
        pixel_format=sensor.pixel_format,
        black_dn=sensor.black_dn,
        gain_dn_per_e=sensor.gain_dn_per_e,
        read_noise_e=sensor.read_noise_e,
        dark_current_e_s=sensor.dark_rate_e_s,
        saturation_dn=4095,
        dark_map=offset if len(shape) == 2 else np.repeat(offset[..., None], 3, axis=-1),
    )


def capture(path, known, blocks):
    plan = CapturePlan.model_validate({"name": "flat", "blocks": blocks})
    return workflows.capture_session(
        rig(known.cameras["cam"].sensor.pixel_format), plan, path, simulate=known
    )


def flats(pose="panel", repeats=8, exposure=0.025):
    return {
        "kinds": "flat",
        "pose": pose,
        "cameras": "cam",
        "lights": {"names": "panel"},
        "bracket": {"exposures_s": [exposure]},
        "repeats": repeats,
    }


VIEWS = {
    "kinds": "object",
    "pose": "view-0..view-4",
    "cameras": "cam",
    "lights": {"names": "sun"},
    "bracket": {"exposures_s": [0.01, 0.04]},
}


@pytest.mark.parametrize("colour", ["mono", "RGGB", "rgb"])
def test_the_panel_comes_out_flat(colour, tmp_path):
    known = truth(colour)
    session = capture(tmp_path / "s", known, [flats(), flats(repeats=1, exposure=0.02) | {"kinds": "object"}])
    model = workflows.calibrate_flat(session, sensor_of(known))
    held = session.stack("cam").select(kind="object")
    radiance = model.linearize(held[0], float(held.exposure_s[0]))
    level = np.mean(radiance.value)
    z = (radiance.value - level) / np.sqrt(radiance.variance)
    assert np.std(z) == pytest.approx(1, abs=0.03)
    # Each corner as bright as the middle, to the noise of its mean.
    corner = radiance.value[:30, :30]
    assert corner.mean() == pytest.approx(level, rel=5 * 0.02 / 30)
    smooth = Twin(known).flat_map("cam") / Twin(known).fixed_pattern("cam").response
    found = model.vignetting.at()
    ratio = found / (smooth if found.ndim == 2 else smooth[..., None])
    assert np.std(ratio) < 1.5e-3
    assert model.prnu_percent == pytest.approx(1, abs=0.05)
    assert model.provenance.session == session.digest


def test_a_scene_moved_about_gives_the_vignetting(tmp_path):
    known = truth()
    session = capture(tmp_path / "s", known, [VIEWS])
    model = workflows.calibrate_flat(session, sensor_of(known))
    smooth = Twin(known).flat_map("cam") / Twin(known).fixed_pattern("cam").response
    ratio = model.vignetting.at() / smooth
    assert np.std(ratio) / np.mean(ratio) < 5e-3
    assert not model.quality.warnings


def test_the_command_writes_a_model_that_linearises(tmp_path, gnomon):
    known = truth()
    capture(tmp_path / "s", known, [flats(repeats=4)])
    sensor = sensor_of(known)
    files.save_model(tmp_path / "sensor.json", sensor)
    done = gnomon(
        "calibrate",
        "flat",
        tmp_path / "s",
        "--sensor",
        tmp_path / "sensor.json",
        "--out",
        tmp_path / "flat.json",
    )
    assert done.code == 0, done.err
    assert "one pose" in done.out
    model = files.load_model(tmp_path / "flat.json", RadiometricModel)
    assert model.vignetting is not None
    assert model.gain_dn_per_e == sensor.gain_dn_per_e


def test_turns_come_from_the_names_of_the_poses(tmp_path):
    known = truth(poses={f"panel-{turn}deg": [{"kind": "panel"}] for turn in (0, 90, 180)})
    session = capture(tmp_path / "s", known, [flats(f"panel-{turn}deg", 3) for turn in (0, 90, 180)])
    model = workflows.calibrate_flat(session, sensor_of(known))
    assert not any("averaged" in text or "one pose" in text for text in model.quality.warnings)


def test_mistakes_are_one_line(tmp_path, gnomon):
    known = truth()
    flat = capture(tmp_path / "flat", known, [flats(repeats=1)])
    single = capture(tmp_path / "single", known, [VIEWS | {"pose": "view-0"}])
    dark = capture(
        tmp_path / "dark",
        known,
        [{"kinds": "dark", "pose": "cap", "cameras": "cam", "bracket": {"exposures_s": [0.1]}}],
    )
    sensor = sensor_of(known)
    for session, options, kind, said in (
        (flat, {"turns_deg": {"elsewhere": 90.0}}, ConfigError, "turn of pose 'elsewhere'"),
        (single, {}, FitError, "one view only"),
        (dark, {}, FitError, "no 'flat' frames"),
    ):
        with pytest.raises(kind, match=said) as error:
            workflows.calibrate_flat(session, sensor, **options)
        assert "\n" not in str(error.value)
    for text in ("panel", "=90", "panel=left"):
        with pytest.raises(ConfigError, match="POSE=DEGREES"):
            workflows.parse_turn(text)
    assert workflows.parse_turn("panel-b=90") == ("panel-b", 90.0)
    answer = gnomon("calibrate", "flat", flat.path, "--out", tmp_path / "x.json")
    assert answer.code == 2
    assert "no sensor model" in answer.err
    assert not (tmp_path / "x.json").exists()


def test_a_session_of_another_format_is_refused(tmp_path):
    session = capture(tmp_path / "s", truth("RGGB"), [flats(repeats=1)])
    assert isinstance(session, Session)
    with pytest.raises(FitError, match="Mono12"):
        workflows.calibrate_flat(session, sensor_of(truth()))


@pytest.mark.parametrize("colour", ["mono", "GBRG", "rgb"])
def test_the_report_shows_the_flat(colour, tmp_path):
    known = truth(colour)
    session = capture(tmp_path / "s", known, [flats(repeats=2)])
    model = workflows.calibrate_flat(session, sensor_of(known))
    (section,) = flat_sections(model)
    assert [figure.title.split(",")[0] for figure in section.figures] == [
        "Fall-off",
        "Smooth part",
        "Map over smooth part",
    ]
    corners = [text for label, text in section.rows if label.startswith("Corners")]
    assert len(corners) == {"mono": 1, "GBRG": 4, "rgb": 3}[colour]
    eye = Twin(known).flat_map("cam") / Twin(known).fixed_pattern("cam").response
    lowest = 100 * min(eye[0, 0], eye[0, -1], eye[-1, 0], eye[-1, -1]) / eye.max()
    assert float(corners[0].split()[0]) == pytest.approx(lowest, abs=1.5)
    assert list(flat_sections(sensor_of(known))) == []
