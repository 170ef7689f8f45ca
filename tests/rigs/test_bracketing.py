"""``gnomon plan bracket``: from a metering session on the twin to a plan that keeps its word there."""

from itertools import pairwise

import numpy as np
import pytest
import yaml
from simulated_small import camera

from calibration import files
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel, merge
from capture.plan import CapturePlan
from rigs import workflows
from rigs.config import ConfigError, RigConfig, load_plan, validate
from rigs.simulated import Twin
from rigs.simulated.truth import parse_truth

WIDTH, HEIGHT = 120, 80
SHORTEST = 1e-5


def rig_data():
    eye = {"driver": "simulated", "width": WIDTH, "height": HEIGHT, "pixel_format": "Mono12"}
    eye |= {"exposure_min_s": SHORTEST, "exposure_max_s": 10.0, "readout_s": 0.001}
    lamps = {name: {"driver": "simulated", "settle_s": 0.0} for name in ("sun", "low")}
    return {"name": "small", "cameras": {"cam": eye}, "lights": lamps}


def rig():
    return validate(rig_data(), RigConfig, "rig")


def truth():
    """Two planes: one bright, one a hundred times darker, and a lamp that is a tenth of the other."""
    eye = camera(WIDTH, HEIGHT, 200.0, optics={"cos4": True, "vignetting": 0.1}, sensor={"prnu": 0.01})
    relief = {"kind": "heightfield", "translation_mm": [0, 0, 400], "cell_mm": 4.0, "width_mm": 120}
    relief |= {"height_mm": 300, "albedo": {"low": 0.2, "high": 0.9, "scale_mm": [10, 60]}}
    relief["features"] = [{"kind": "bump", "at_mm": [0, 0], "height_mm": 1e-4, "radius_mm": [5, 5]}]
    back = {"kind": "plane", "translation_mm": [0, 0, 420], "albedo": 0.004}
    lights = {
        "sun": {"kind": "distant", "direction": [0, 0, -1], "intensity": 3e6},
        "low": {"kind": "distant", "direction": [0, 0, -1], "intensity": 3e5},
    }
    poses = {"scene": [relief, back], "other": [relief, back], "cap": [{"kind": "cap"}]}
    return parse_truth({"seed": 4, "cameras": {"cam": eye}, "lights": lights, "poses": poses})


def sensor_of(known):
    """The truth as a calibration would give it, errors of the maps aside."""
    sensor, pattern = known.cameras["cam"].sensor, Twin(known).fixed_pattern("cam")
    flat = Twin(known).flat_map("cam")
    return RadiometricModel(
        width=WIDTH,
        height=HEIGHT,
        pixel_format="Mono12",
        black_dn=sensor.black_dn,
        gain_dn_per_e=sensor.gain_dn_per_e,
        read_noise_e=sensor.read_noise_e,
        dark_current_e_s=sensor.dark_rate_e_s,
        saturation_dn=4095,
        dark_map=(pattern.offset_e * sensor.gain_dn_per_e).astype(np.float32),
        flat_map=flat / flat[20:60, 30:90].mean(),
    )


def view(**more):
    block = {"kinds": "object", "pose": "scene", "cameras": "cam", "lights": {"names": "sun"}}
    return block | {"bracket": {"exposures_s": [0.0005, 0.02]}} | more


def capture(path, *blocks):
    plan = CapturePlan.model_validate({"name": "metering", "blocks": blocks})
    return workflows.capture_session(rig(), plan, path, simulate=truth())


def measured(twin, sensor, exposures, repeats, draws=48):
    """Signal-to-noise ratio of every pixel over repeated captures, merged."""
    everything = (slice(None), slice(None))
    times, frames = [], []
    for t, n in zip(exposures, repeats, strict=True):
        for k in range(n):
            times.append(t)
            seeds = range(1000 * k, 1000 * k + draws)
            frames.append(twin.resample("scene", {"sun": 1.0}, "cam", t, seeds, everything))
    merged = np.stack([merge([frame[d] for frame in frames], times, sensor).value for d in range(draws)])
    with np.errstate(invalid="ignore"):
        return merged.mean(axis=0) / merged.std(axis=0, ddof=1)


def test_the_plan_runs_and_keeps_its_word(tmp_path, gnomon):
    known = truth()
    session = capture(tmp_path / "s", view())
    sensor = sensor_of(known)
    files.save_model(tmp_path / "sensor.json", sensor)
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(rig_data()))
    out = tmp_path / "plan.yaml"
    done = gnomon(
        "plan", "bracket", session.path, "--sensor", tmp_path / "sensor.json", "--snr", 40, "--out", out
    )
    assert done.code == 0, done.err
    assert done.err == ""
    assert "SNR at least 4" in done.out
    checked = gnomon("rig", "check", tmp_path / "rig.yaml", out)
    assert checked.code == 0, checked.err
    plan = load_plan(out)
    made = workflows.plan_brackets(session, sensor, 40)
    assert plan == made.plan
    bracket = made.brackets[0][1]
    taken = workflows.capture_session(rig(), plan, tmp_path / "t", simulate=known)
    assert len(taken.stack("cam")) == bracket.frames
    assert set(taken.stack("cam").lights) == {"sun"}
    twin = Twin(known)
    ratio = measured(twin, sensor, bracket.exposures_s, bracket.repeats)
    assert np.all(np.isfinite(ratio))
    # Each pixel's own ratio scatters by 1 / sqrt(2 * 47) = 10 %: compared in classes of equal light.
    light = twin.clean_radiance("scene", {"sun": 1.0}, "cam") * twin.flat_map("cam")
    edges = np.quantile(light, np.linspace(0, 1, 9))
    for low, high in pairwise(edges):
        inside = (light >= low) & (light <= high)
        # Mean of 1 / ratio^2 is the mean relative variance, which is not biased by the scatter.
        found = 1 / np.sqrt(np.mean(1 / ratio[inside] ** 2))
        said = 1 / np.sqrt(np.mean(1 / np.interp(light[inside], bracket.rate, bracket.snr) ** 2))
        assert found == pytest.approx(said, rel=0.04)
        assert found > 39


@pytest.mark.parametrize(("metered", "wanted", "median"), [("log-average", 44, 2.0), ("mean", 16, 1.05)])
def test_it_beats_a_fixed_bracket_in_the_same_time(metered, wanted, median, tmp_path):
    """Worst and median ratio over repeated captures; the fixed one has the average on middle grey."""
    known = truth()
    session = capture(tmp_path / "s", view())
    sensor, twin = sensor_of(known), Twin(known)
    light = twin.clean_radiance("scene", {"sun": 1.0}, "cam") * twin.flat_map("cam")
    average = np.exp(np.mean(np.log(light))) if metered == "log-average" else np.mean(light)
    middle = 0.18 * 32500 / float(average)
    fixed = (middle / 4, middle, 4 * middle)
    time = sum(fixed) + 3 * 0.001  # with the readouts
    made = workflows.plan_brackets(session, sensor, wanted, max_time_s=time, spend=True)
    bracket = made.brackets[0][1]
    assert bracket.total_s <= time
    of_fixed = np.nan_to_num(measured(twin, sensor, fixed, (1, 1, 1)))
    of_plan = measured(twin, sensor, bracket.exposures_s, bracket.repeats)
    # The worst single pixel is an accident of its draws: classes of equal light say more.
    edges = np.quantile(light, np.linspace(0, 1, 17))
    worst = [
        min(
            1 / np.sqrt(np.mean(1 / np.maximum(r[(light >= low) & (light <= high)], 1e-3) ** 2))
            for low, high in pairwise(edges)
        )
        for r in (of_plan, of_fixed)
    ]
    assert worst[0] > 1.01 * worst[1]
    assert np.median(of_plan) > median * np.median(of_fixed)


def test_repeats_dark_ambient_and_several_lights(tmp_path):
    session = capture(
        tmp_path / "s",
        {"kinds": "dark", "pose": "cap", "cameras": "cam", "bracket": {"exposures_s": [0.01]}, "repeats": 2},
        view(pose=["scene", "other"], lights={"names": ["sun", "low"]}, prompt="put {pose} in"),
        view(kinds="ambient", lights=None),
    )
    made = workflows.plan_brackets(session, sensor_of(truth()), 200)
    plan = made.plan
    dark, *lit, ambient = plan.blocks
    assert dark == session.plan.blocks[0]
    bracket = made.brackets[0][1]
    assert max(bracket.repeats) > 1  # the well does not hold an SNR of 200
    assert ambient.bracket.exposures_s == bracket.exposures_s
    # Pose by pose, each seen once by the operator.
    poses = [pose for block in lit for pose in block.pose]
    assert poses == sorted(poses, reverse=True)
    assert {block.lights.names for block in lit} == {("sun", "low")}
    shots = [shot for shot in plan.shots() if shot.pose == "other"]
    assert len(shots) == 2 * bracket.frames
    assert len(made.brackets) == 1
    assert workflows.check_plan(rig(), plan, tmp_path).problems == ()


def test_what_cannot_be_had_is_said(tmp_path, gnomon):
    session = capture(tmp_path / "s", view(bracket={"exposures_s": [0.1]}))
    files.save_model(tmp_path / "sensor.json", sensor_of(truth()))
    words = [
        "plan",
        "bracket",
        session.path,
        "--sensor",
        tmp_path / "sensor.json",
        "--out",
        tmp_path / "p.yaml",
    ]
    done = gnomon(*words, "--snr", 100, "--max-time", 0.02)
    assert done.code == 0
    assert "saturated in every metering frame" in done.err
    assert "stay below SNR 100" in done.err
    assert "0.02 s do not suffice" in done.err
    assert "# warning" in (tmp_path / "p.yaml").read_text()
    load_plan(tmp_path / "p.yaml")


def test_mistakes_are_one_line(tmp_path, gnomon):
    sensor = sensor_of(truth())
    dark = {"kinds": "dark", "pose": "cap", "cameras": "cam", "bracket": {"exposures_s": [0.01]}}
    covered = capture(tmp_path / "dark", dark)
    session = capture(tmp_path / "s", view(bracket={"exposures_s": [0.01]}))
    for of, options, kind, said in (
        (covered, {}, FitError, "no frame with light"),
        (session, {"spend": True}, ConfigError, "--max-time"),
        (session, {"quantile": 2.0}, FitError, "quantile"),
        (session, {"shortest_s": 1.0, "longest_s": 0.1}, FitError, "no such range"),
        (session, {"camera": "elsewhere"}, FitError, "elsewhere"),
    ):
        with pytest.raises(kind, match=said) as error:
            workflows.plan_brackets(of, sensor, 40, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(FitError, match="0 dB, the sensor model is for 6 dB"):
        workflows.plan_brackets(session, sensor.replace(gain_db=6.0), 40)
    files.save_model(tmp_path / "sensor.json", sensor)
    given = ["plan", "bracket", session.path, "--snr", 40]
    for words, said in (
        (["--out", tmp_path / "p.yaml"], "no sensor model"),
        (["--out", tmp_path / "p.txt", "--sensor", tmp_path / "sensor.json"], "ends in .yaml"),
    ):
        answer = gnomon(*given, *words)
        assert answer.code == 2
        assert said in answer.err
        assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "p.yaml").exists()


def test_pictures_without_a_rig_want_the_cameras_limits(tmp_path):
    session = capture(tmp_path / "s", view(bracket={"exposures_s": [0.01]}))
    session.rig.clear()
    with pytest.raises(ConfigError, match="--min-exposure"):
        workflows.plan_brackets(session, sensor_of(truth()), 40)
    steps = tuple(2.0 ** np.arange(-14, 0))
    made = workflows.plan_brackets(session, sensor_of(truth()), 40, allowed_s=steps)
    assert set(made.brackets[0][1].exposures_s) <= set(steps)
