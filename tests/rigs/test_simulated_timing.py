"""The twin in time: rows that start late, pulses, rise and fall; held against sums over instants."""

import hashlib

import numpy as np
import pytest
import simulated_small as small

from capture.devices import CameraLimits, LightLimits, SettingRefused
from capture.plan import Shot, Strobe
from rigs.simulated import Twin
from rigs.simulated.emission import Drive, given
from rigs.simulated.truth import DistantTruth, PanelTruth

WALL = [{"kind": "plane", "translation_mm": [0, 0, 400], "albedo": 0.7}]
ROWS = 60
QUIET = {"read_noise_e": 0, "prnu": 0, "dsnu_e": 0, "dark_current_e_s": 0, "full_well_e": 1e6, "black_dn": 0}
LINE_S, LATENCY_S, EXPOSURE_S = 2e-5, 3e-4, 1e-3


def camera(width=40, **sensor):
    return small.camera(width, ROWS, 400.0, sensor=QUIET | {"gain_dn_per_e": 0.06, "bits": 16} | sensor)


def light(kind, **more):
    if kind == "panel":
        return {"kind": "panel", "intensity": 5e8, **more}
    if kind == "distant":
        return {"kind": "distant", "direction": [0, 0, -1], "intensity": 7e8, **more}
    return small.near(0, 0, 0, 1.1e14, **more)


def told(pulse, delay_s, rise_s, fall_s, at_s):
    """Relative output of a pulse at any time, from the differential equation, step by step."""
    start, end = pulse.delay_s + delay_s, pulse.delay_s + pulse.duration_s + delay_s
    out = np.where((at_s >= start) & (at_s < end), 1 - np.exp(-(at_s - start) / rise_s), 0.0)
    peak = 1 - np.exp(-(end - start) / rise_s)
    return np.where(at_s >= end, peak * np.exp(-np.maximum(at_s - end, 0) / fall_s), out)


@pytest.mark.parametrize("kind", ["near", "distant", "panel"])
@pytest.mark.parametrize("bottom_up", [False, True])
@pytest.mark.parametrize("pulse", [(8e-4, 4e-4), (8e-4, 2.5e-3)], ids=["short", "long"])
def test_each_row_gets_the_light_of_its_own_window(kind, bottom_up, pulse):
    switched = {"delay_s": 5e-5, "rise_s": 1e-4, "fall_s": 2e-4}
    eye = camera(line_time_s=LINE_S, start_latency_s=LATENCY_S, bottom_up=bottom_up, exposure_offset_s=2e-5)
    truth = small.truth(WALL, lights={"lamp": light(kind, **switched)}, eye=eye)
    twin = Twin(truth)
    pose = "panel" if kind == "panel" else "scene"
    twin.show(pose)
    strobe = Strobe(delay_s=pulse[0], duration_s=pulse[1])
    twin.strobe_light("lamp", 1.0, *pulse)
    frame = twin.expose("cam", EXPOSURE_S, 0.0)
    assert frame.exposure_s == EXPOSURE_S
    rate = twin.clean_radiance(pose, {"lamp": 1.0}, "cam").mean(axis=1)
    order = np.arange(ROWS)[::-1] if bottom_up else np.arange(ROWS)
    instants = LATENCY_S + order[:, None] * LINE_S + (np.arange(20000) + 0.5) / 20000 * (EXPOSURE_S + 2e-5)
    share = told(strobe, **switched, at_s=instants).mean(axis=1)
    expected = 0.06 * rate * share * (EXPOSURE_S + 2e-5)
    assert expected.max() > 1.5 * expected.min()
    # photons are counted: 40 columns of some 3e5 of them
    sigma = 0.06 * np.sqrt(np.maximum(expected / 0.06, 1) / 40) + 0.05
    assert np.all(np.abs(frame.dn.mean(axis=1) - expected) < 5 * sigma)


def test_after_its_pulse_a_light_is_dark_and_a_pulse_comes_but_once():
    twin = Twin(small.truth(WALL, lights={"lamp": light("near")}, eye=camera()))
    twin.show("scene")
    twin.set_light("lamp", 1.0)
    assert twin.expose("cam", EXPOSURE_S, 0.0).dn.min() > 1000
    twin.strobe_light("lamp", 1.0, 0.0, EXPOSURE_S)
    assert twin.expose("cam", EXPOSURE_S, 0.0).dn.min() > 1000
    assert twin.expose("cam", EXPOSURE_S, 0.0).dn.max() == 0
    twin.strobe_light("lamp", 1.0, 0.0, EXPOSURE_S)
    twin.set_light("lamp", 0.0)
    assert twin.expose("cam", EXPOSURE_S, 0.0).dn.max() == 0, "set disarms"


def test_a_light_that_is_slow_shows_a_settle_time_that_is_too_short():
    lights = {"lamp": light("panel", rise_s=0.01, fall_s=0.02)}
    limits = {
        "cam": CameraLimits(exposure_min_s=1e-6, exposure_max_s=1, width=40, height=ROWS, readout_s=0.004)
    }
    limits["cam"] = limits["cam"].replace(pixel_format="Mono16")
    twin = Twin(
        small.truth(WALL, lights=lights, eye=camera()), limits, lights={"lamp": LightLimits(settle_s=0.005)}
    )
    twin.show("panel")
    full = 0.06 * 5e8 * EXPOSURE_S

    def taken(level=None):
        if level is not None:
            twin.set_light("lamp", level)
        return twin.expose("cam", EXPOSURE_S, 0.0).dn.mean() / full

    def mean(begin, tau):
        return tau * (np.exp(-begin / tau) - np.exp(-(begin + EXPOSURE_S) / tau)) / EXPOSURE_S

    assert taken(1.0) == pytest.approx(1 - mean(0.005, 0.01), abs=2e-3)
    assert taken() == pytest.approx(1 - mean(0.010, 0.01), abs=2e-3)
    reached = 1 - np.exp(-0.015 / 0.01)
    assert taken(0.0) == pytest.approx(reached * mean(0.005, 0.02), abs=2e-3)


def test_drift_and_flicker_go_on_during_rise_and_fall():
    flicker = {"frequency_hz": 700.0, "depth": 0.4}
    lamp = PanelTruth(kind="panel", intensity=1, rise_s=3e-4, fall_s=5e-4, drift_per_s=20.0, flicker=flicker)
    drive = Drive(0.3, ((1e-3, 0.9), (2.5e-3, 0.1)))
    t = (np.arange(400000) + 0.5) * 1e-8
    level = np.where(t < 1e-3, 0.3, 0.9 - 0.6 * np.exp(-(t - 1e-3) / 3e-4))
    top = 0.9 - 0.6 * np.exp(-1.5e-3 / 3e-4)
    level = np.where(t > 2.5e-3, 0.1 + (top - 0.1) * np.exp(-(t - 2.5e-3) / 5e-4), level)
    level *= 1 + 20.0 * t + 0.4 * np.cos(2 * np.pi * 700 * t + 0.7)
    low, high = np.array([0.0, 5e-4, 1.2e-3, 2e-3]), np.array([4e-3, 1.5e-3, 1.3e-3, 3e-3])
    expected = [level[(t > a) & (t < b)].sum() * 1e-8 for a, b in zip(low, high, strict=True)]
    np.testing.assert_allclose(given(lamp, drive, low, high, 0.7), expected, rtol=1e-4)
    forgotten = drive.since(lamp, 1.0)
    assert forgotten == Drive(0.1)
    assert drive.since(lamp, 3e-3) == drive


def test_jitter_moves_whole_frames_and_belongs_to_the_request():
    eye = camera(line_time_s=LINE_S, start_latency_s=2e-3, start_jitter_s=5e-5)
    truth = small.truth(WALL, lights={"lamp": light("panel")}, eye=eye)

    def starts(count, noted=0):
        twin = Twin(truth)
        shot = Shot(
            index=0, kinds="timing", pose="panel", camera="cam", lights={"lamp": 1.0}, exposure_s=EXPOSURE_S,
            strobe=Strobe(delay_s=0, duration_s=2.5e-3),
        )  # fmt: skip
        for _ in range(noted):
            twin.note_taken(shot)
        twin.show("panel")
        frames = []
        for _ in range(count):
            twin.strobe_light("lamp", 1.0, 0.0, 2.5e-3)
            frames.append(twin.expose("cam", EXPOSURE_S, 0.0).dn[0].mean() / (0.06 * 5e8))
        return 2.5e-3 - np.array(frames)

    found = starts(40)
    assert abs(found.mean() - 2e-3) < 4 * 5e-5 / np.sqrt(40)
    assert 0.6 < found.std() / 5e-5 < 1.4
    assert starts(2, noted=3).tolist() == found[3:5].tolist(), "a resumed run goes on with the same noise"


def test_what_a_camera_cannot_do_is_refused():
    twin = Twin(small.truth(WALL, eye=camera(exposure_offset_s=-2e-5)))
    twin.show("scene")
    with pytest.raises(SettingRefused, match="own offset"):
        twin.expose("cam", 1e-5, 0.0)


def test_truths_without_timing_keep_their_text():
    """The digest of a truth is a fact of its sessions."""
    text = DistantTruth(kind="distant", direction=(0, 0, -1), intensity=1).model_dump_json()
    assert (
        hashlib.sha256(text.encode()).hexdigest()[:8]
        == hashlib.sha256(
            b'{"kind":"distant","direction":[0.0,0.0,-1.0],"intensity":1.0,"colour":[1.0,1.0,1.0],'
            b'"flicker":null,"drift_per_s":0.0}'
        ).hexdigest()[:8]
    )
