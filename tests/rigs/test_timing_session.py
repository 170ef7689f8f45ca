"""Timing on the twin: planned, captured, fitted, pinned, waited for and shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest
import numpy as np
import pytest
import yaml
from conftest import Answer

from calibration.files import load_model, save_model
from calibration.provenance import FitError, Quality
from calibration.timing import LightTiming, TimingModel
from capture.session import Session
from rigs import workflows
from rigs.config import ConfigError, RigConfig, load_rig, validate
from rigs.simulated.truth import parse_truth

Gnomon = Callable[..., Answer]
WIDTH, HEIGHT = 96, 120
TRIED = [
    # line time, bottom up, exposure, latency; the long line times take lights that are dark in between
    (2e-6, False, 1e-3, 2e-4),
    (2e-6, True, 4e-3, 1.2e-3),
    (1.5e-5, True, 1e-3, 5e-5),
    (1.5e-5, False, 6e-3, 8e-4),
    (5e-5, False, 2e-3, 3e-4),
    (5e-5, True, 8e-3, 3e-4),
]


def bench(
    line_s: float = 1.5e-5, bottom_up: bool = False, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rig and truth: the shipped bench, shrunk; a board gives every row another brightness."""
    rig, truth = conftest.shipped("rigs/strobe-bench.yaml"), conftest.shipped("truths/strobe-bench.yaml")
    rig["cameras"]["top"] |= {"width": WIDTH, "height": HEIGHT, "readout_s": line_s * HEIGHT + 2e-3}
    rig["lights"] = {"lamp": rig["lights"]["lamp"]}
    camera = truth["cameras"]["top"]
    lens = camera["lens"]
    scale = HEIGHT / lens["height"]
    camera["lens"] = lens | {"width": WIDTH, "height": HEIGHT, "fx": 900 * scale, "fy": 900 * scale}
    camera["lens"] |= {"cx": WIDTH / 2, "cy": HEIGHT / 2}
    camera["sensor"] |= {
        "line_time_s": line_s,
        "bottom_up": bottom_up,
        "full_well_e": 40000,
        "gain_dn_per_e": 0.1,
    }
    camera["sensor"] |= changes
    truth["lights"] = {"lamp": truth["lights"]["lamp"]}
    return rig, truth


def capture(
    folder: Path, exposure_s: float, rig: dict[str, Any], truth: dict[str, Any], **plan: Any
) -> Session:
    config = validate(rig, RigConfig, "rig")
    # the light as strong as the exposure is short
    for light in truth["lights"].values():
        light["intensity"] *= 8e-3 / exposure_s * 0.5
    made = workflows.plan_timing(config, exposure_s, **plan)
    return workflows.capture_session(config, made, folder / "session", simulate=parse_truth(truth))


@pytest.mark.parametrize(("line_s", "bottom_up", "exposure_s", "latency_s"), TRIED)
def test_line_time_within_a_percent_and_latency_within_50_us(
    line_s: float, bottom_up: bool, exposure_s: float, latency_s: float, tmp_path: Path
) -> None:
    rig, truth = bench(line_s, bottom_up, start_latency_s=latency_s)
    model = workflows.calibrate_timing(capture(tmp_path, exposure_s, rig, truth))
    true = truth["cameras"]["top"]["sensor"]
    assert abs(model.line_time_s) == pytest.approx(line_s, rel=0.01)
    assert model.direction == ("bottom-up" if bottom_up else "top-down")
    assert model.latency_s == pytest.approx(latency_s, abs=5e-5)
    lamp, light = truth["lights"]["lamp"], model.lights["lamp"]
    for found, sigma, known in (
        (abs(model.line_time_s), model.line_time_sigma_s, line_s),
        (model.latency_s, model.latency_sigma_s, latency_s),
        (model.exposure_offset_s, model.exposure_offset_sigma_s, true["exposure_offset_s"]),
        (light.rise_s, light.rise_sigma_s, lamp["rise_s"]),
        (light.fall_s, light.fall_sigma_s, lamp["fall_s"]),
    ):
        assert abs(found - known) < 5 * sigma
    assert model.quality is not None
    assert model.quality.residual_rms == pytest.approx(1.0, abs=0.1)


def test_a_global_shutter_is_found_so(tmp_path: Path) -> None:
    rig, truth = bench(0.0, start_latency_s=6e-4)
    model = workflows.calibrate_timing(capture(tmp_path, 2e-3, rig, truth))
    assert model.shutter == "global"
    assert abs(model.line_time_s) * HEIGHT < 1e-6
    assert model.latency_s == pytest.approx(6e-4, abs=5e-5)
    assert "global shutter: line time" in workflows.describe_timing(model)[0]


def test_jitter_is_measured_and_counted(tmp_path: Path) -> None:
    rig, truth = bench(start_jitter_s=4e-5)
    model = workflows.calibrate_timing(capture(tmp_path, 2e-3, rig, truth, steps=40))
    assert model.jitter_s == pytest.approx(4e-5, rel=0.5)
    assert abs(model.latency_s - 4.2e-4) < 5 * model.latency_sigma_s
    assert model.latency_sigma_s > 3e-6
    assert model.line_time_s == pytest.approx(1.5e-5, rel=0.01)


def test_colour_and_steps_of_the_shutter(tmp_path: Path) -> None:
    rig, truth = bench(colour="RGGB")
    rig["cameras"]["top"]["pixel_format"] = "BayerRG12"
    model = workflows.calibrate_timing(capture(tmp_path, 2e-3, rig, truth))
    assert model.line_time_s == pytest.approx(1.5e-5, rel=0.01)
    assert model.latency_s == pytest.approx(4.2e-4, abs=5e-5)


def test_an_interrupted_session_of_pulses_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    rig, truth = bench()
    truth["lights"]["lamp"] |= {"rise_s": 0.0, "fall_s": 0.0}
    whole = capture(tmp_path / "whole", 2e-3, rig, json.loads(json.dumps(truth)))
    broken = json.loads(json.dumps(truth)) | {"faults": [{"kind": "vanish", "camera": "top", "first": 17}]}
    with pytest.raises(Exception, match="resume"):
        capture(tmp_path / "broken", 2e-3, rig, broken)
    path = tmp_path / "broken" / "session"
    part = Session.open(path)
    assert 0 < len(part.frames) < len(whole.frames)
    truth["lights"]["lamp"]["intensity"] *= 8e-3 / 2e-3 * 0.5
    config = validate(rig, RigConfig, "rig")
    again = workflows.capture_session(config, part.plan, path, simulate=parse_truth(truth), resume=True)
    assert [record.sha256 for record in again.frames] == [record.sha256 for record in whole.frames]


# ---------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bench with both its lights, at a quarter of the size."""
    folder = tmp_path_factory.mktemp("bench")
    rig, truth = bench()
    lights = conftest.shipped("rigs/strobe-bench.yaml")["lights"]
    conftest.dump(folder / "rig.yaml", rig | {"lights": lights})
    truth["lights"] = conftest.shipped("truths/strobe-bench.yaml")["lights"]
    conftest.dump(folder / "truth.yaml", truth)
    return folder


def test_plan_capture_calibrate_pin_and_report(shipped: Path, gnomon: Gnomon, tmp_path: Path) -> None:
    rig, truth = shipped / "rig.yaml", shipped / "truth.yaml"
    plan, session, out = tmp_path / "plan.yaml", tmp_path / "session", tmp_path / "models" / "timing.json"
    for words in (
        ("plan", "timing", rig, "--exposure", "0.004", "--out", plan),
        ("rig", "check", rig, plan),
        ("capture", rig, plan, session, "--simulate", truth),
    ):
        told = gnomon(*words)
        assert told.code == 0, told.err
    for delay in ("nan", "inf", "-1"):
        told = gnomon("calibrate", "timing", session, "--out", out, "--light-delay", delay)
        assert told.code == 2
        assert told.err == f"gnomon: --light-delay {delay}: want seconds, 0 or more\n"
        assert not out.exists()
    told = gnomon("calibrate", "timing", session, "--out", out, "--light-delay", "5")
    assert told.code == 2
    assert "--light-delay 5: want seconds; the session's pulses end 0.0" in told.err
    assert not out.exists()
    told = gnomon("calibrate", "timing", session, "--rig", rig, "--out", out, "--light-delay", "0.0001")
    assert told.code == 0, told.err
    assert "rolling shutter, top-down: line time 1" in told.out
    model = load_model(out, TimingModel)
    assert model.quality is not None
    assert model.quality.verdict == "good", model.quality.warnings
    assert model.latency_s == pytest.approx(4.2e-4 + 1e-4, abs=1e-5)
    ring = model.lights["ring"]
    assert ring.delay_s == pytest.approx(2.5e-4, abs=5 * ring.delay_sigma_s)
    assert ring.rise_s == pytest.approx(9e-4, abs=5 * ring.rise_sigma_s)
    told = gnomon("session", "check", session)
    assert told.code == 0, told.out
    told = gnomon("report", tmp_path / "models", "--out", tmp_path / "report.html")
    assert told.code == 0, told.err
    page = (tmp_path / "report.html").read_text("utf-8")
    for text in ("Timing", "top-down", "Bands", "Rise and fall", "True less reported exposure"):
        assert text in page


def test_a_session_with_too_short_a_settle_time_says_so(shipped: Path, tmp_path: Path) -> None:
    data = yaml.safe_load((shipped / "rig.yaml").read_text())
    data["lights"]["ring"]["settle_s"] = 0.002
    truth = yaml.safe_load((shipped / "truth.yaml").read_text())
    model = workflows.calibrate_timing(capture(tmp_path, 4e-3, data, truth))
    assert model.quality is not None
    assert model.quality.verdict == "doubtful"
    told = " ".join(model.quality.warnings)
    assert "'ring' had not settled" in told
    assert "ring settles in 6" in told
    assert "had 2 ms: set settle_s" in told
    # and what it is needed for comes out all the same
    assert model.lights["ring"].rise_s == pytest.approx(9e-4, rel=0.05)
    assert model.line_time_s == pytest.approx(1.5e-5, rel=0.01)


def slow_timing() -> TimingModel:
    light = LightTiming(
        delay_s=0.0, delay_sigma_s=0.0, rise_s=0.003, rise_sigma_s=0.0, fall_s=0.001, fall_sigma_s=0.0,
        level=1.0, level_sigma=0.0,
    )  # fmt: skip
    quick = light.replace(rise_s=1e-5, fall_s=1e-5)
    return TimingModel(
        rows=HEIGHT, line_time_s=0.0, line_time_sigma_s=1e-9, latency_s=0.0, latency_sigma_s=1e-6,
        lights={"ring": light, "lamp": quick, "gone": light},
        quality=Quality(residual_rms=1.0, unit="sigma", observations=10),
    )  # fmt: skip


def test_captures_wait_as_long_as_a_pinned_timing_says(shipped: Path, gnomon: Gnomon, tmp_path: Path) -> None:
    digest = save_model(tmp_path / "timing.json", slow_timing())
    data = yaml.safe_load((shipped / "rig.yaml").read_text())
    data["calibrations"] = {"top": {"timing": {"path": "timing.json", "digest": digest}}}
    rig = conftest.dump(tmp_path / "rig.yaml", data)
    told = gnomon("rig", "check", rig)
    assert told.code == 0
    assert "light 'ring' settles in 20.7 ms as measured, the rig file waits 8 ms" in told.err
    assert "'lamp'" not in told.err
    waiting = workflows.settled(load_rig(rig), tmp_path)
    assert waiting.lights["ring"].settle_s == pytest.approx(0.003 * np.log(1000), rel=1e-4)
    assert waiting.lights["lamp"].settle_s == 0.002
    plan = conftest.dump(
        tmp_path / "plan.yaml",
        {
            "name": "one",
            "blocks": [
                {"kinds": "object", "pose": "timing", "cameras": "top", "lights": {"names": ["ring"]},
                 "bracket": {"exposures_s": [0.002]}}
            ],
        },
    )  # fmt: skip
    told = gnomon("capture", rig, plan, tmp_path / "s", "--simulate", shipped / "truth.yaml")
    assert told.code == 0, told.err
    assert Session.open(tmp_path / "s").rig["lights"]["ring"]["settle_s"] > 0.02
    (tmp_path / "timing.json").write_text("{}")
    told = gnomon("rig", "check", rig)
    assert told.code == 2
    assert "calibrations.top.timing" in told.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "want seconds above 0"),
        (("--light", "lamb"), "light 'lamb' is not in the rig: did you mean 'lamp'?"),
        (("--camera", "left"), "no camera 'left': the rig has top"),
        (("--last", "3"), "delays from 0 to 3 s leave gaps"),
        (("--first", "0.1", "--last", "0.05"), "want the last after the first"),
        (("--level", "2"), "--level 2: want above 0, and 1 at most"),
        (("--level", "-1"), "--level -1: want above 0"),
        (("--level", "nan"), "--level nan: want above 0"),
        (("--duration", "nan"), "--duration nan: want seconds above 0"),
        (("--duration", "-1"), "--duration -1: want seconds above 0"),
        (("--duration", "0"), "--duration 0: want seconds above 0"),
        (("--steps", "-1"), "--steps -1: want 2 to 10000"),
        (("--steps", "0"), "--steps 0: want 2 to 10000"),
        (("--first", "nan"), "--first nan: want seconds, 0 or more"),
        (("--first", "-1"), "--first -1: want seconds, 0 or more"),
        (("--last", "inf"), "--last inf: want seconds above 0"),
        (("--gain", "nan"), "--gain nan: want a number of dB"),
        (("--exposure", "nan"), "--exposure nan: want seconds above 0"),
        (("--exposure", "1e-12"), "leave gaps wider than exposure or pulse"),
        (("--light", "lamp", "--light", "lamp"), "--light lamp: is named twice"),
        (("--light", "led3..led1"), "--light led3..led1: runs backwards"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(
    words: tuple[str, ...], reason: str, shipped: Path, gnomon: Gnomon, tmp_path: Path
) -> None:
    exposure = "0.004" if words else "0"
    out = tmp_path / "plan.yaml"
    told = gnomon("plan", "timing", shipped / "rig.yaml", "--exposure", exposure, "--out", out, *words)
    assert told.code == 2
    assert reason in told.err
    assert len(told.err.splitlines()) == 1
    assert not out.exists()


def test_a_rig_whose_lights_cannot_strobe_has_no_plan() -> None:
    config = validate(conftest.shipped("rigs/dome.yaml"), RigConfig, "rig")
    with pytest.raises(ConfigError, match="no light of the rig can strobe"):
        workflows.plan_timing(config, 0.01)
    with pytest.raises(ConfigError, match="light 'led01' cannot strobe"):
        workflows.plan_timing(config, 0.01, lights=("led01",))


def test_a_session_without_pulses_is_refused(tmp_path: Path) -> None:
    rig, truth = bench()
    config = validate(rig, RigConfig, "rig")
    made = workflows.plan_timing(config, 2e-3)
    still = made.replace(blocks=tuple(b for b in made.blocks if b.lights is None or not b.lights.strobes))
    session = workflows.capture_session(config, still, tmp_path / "s", simulate=parse_truth(truth))
    with pytest.raises(FitError, match="no strobed frame"):
        workflows.calibrate_timing(session)
    dome = conftest.shipped("plans/dome-lights.yaml")
    assert "timing" not in str(dome)
