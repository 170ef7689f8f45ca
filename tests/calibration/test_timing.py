"""Timing from row means: exact shares, honest sigmas, all shutters, and refusals with their reasons."""

import numpy as np
import pytest

from calibration.files import load_model, save_model
from calibration.provenance import FitError
from calibration.timing import TimingModel, fit_timing, reduce_rows
from calibration.timing.pulse import pulse_share

NAN = (np.nan, np.nan)
CAMERA = {"line_s": 2e-5, "latency_s": 3e-4, "offset_s": 0.0, "exposure_s": 4e-3, "rows": 200}
LIGHT = {"rise_s": 1e-4, "fall_s": 2e-4, "delay_s": 0.0, "level": 1.0}


def rows_of(
    seed,
    *,
    lights=None,
    delays=14,
    duration_s=2e-3,
    noise=1e-3,
    repeats=4,
    jitter_s=0.0,
    flicker=0.0,
    last_s=None,
    **camera,
):
    """Row means of a textured view, with ``noise`` of the mean signal: keywords of ``fit_timing``."""
    rng = np.random.default_rng(seed)
    eye = CAMERA | camera
    row = np.arange(eye["rows"])
    order = row if eye["line_s"] >= 0 else row[::-1]
    start = eye["latency_s"] + abs(eye["line_s"]) * order
    bright = 1000 * (1 + 0.4 * np.sin(row / 17) + 0.1 * rng.standard_normal(len(row)))
    true_s = np.array(eye["exposure_s"] + eye["offset_s"])
    if last_s is None:
        last_s = start.max() + eye["exposure_s"] + duration_s
    frames = []

    def take(share, name, strobe):
        sigma = noise * 1000 * np.sqrt(0.02 + share * bright / 1000)
        frames.append((64 + share * bright + sigma * rng.standard_normal(len(row)), sigma**2, name, strobe))

    for _ in range(repeats):
        take(np.zeros(len(row)), "", NAN)
    for name, light in (lights or {"led": LIGHT}).items():
        for _ in range(repeats):
            take(np.ones(len(row)), name, NAN)
        for delay in np.linspace(0, last_s, delays):
            late = start + jitter_s * rng.standard_normal() - delay - light["delay_s"]
            share = pulse_share(late, true_s, np.array(duration_s), light["rise_s"], light["fall_s"]).value
            level = light["level"] * (1 + flicker * rng.standard_normal())
            take(level * share, name, (delay, duration_s))
    signal, variance, names, strobes = (list(part) for part in zip(*frames, strict=True))
    return {
        "signal": np.array(signal),
        "variance": np.array(variance),
        "lights": names,
        "strobes": np.array(strobes),
        "exposure_s": np.full(len(names), eye["exposure_s"]),
    }


def off(model, **camera):
    """Errors in sigmas of what the frames were made with."""
    eye = CAMERA | camera
    light = model.lights["led"]
    pairs = [
        (model.line_time_s - eye["line_s"], model.line_time_sigma_s),
        (model.latency_s - eye["latency_s"], model.latency_sigma_s),
        (model.exposure_offset_s - eye["offset_s"], model.exposure_offset_sigma_s),
        (light.rise_s - LIGHT["rise_s"], light.rise_sigma_s),
        (light.fall_s - LIGHT["fall_s"], light.fall_sigma_s),
        (light.level - LIGHT["level"], light.level_sigma),
    ]
    return np.array([error / sigma for error, sigma in pairs])


# ---------------------------------------------------------------- the forward model


@pytest.mark.parametrize(("exposure", "duration"), [(1e-3, 3e-4), (3e-4, 1e-3), (1e-3, 1e-3)])
def test_the_share_of_a_pulse_is_the_mean_of_its_output(exposure, duration):
    rise, fall = 1.2e-4, 2.5e-4
    start = np.linspace(-1.6e-3, 1.5e-3, 40)
    t = start[:, None] + (np.arange(20000) + 0.5) / 20000 * exposure
    output = np.where(t < 0, 0.0, -np.expm1(-np.maximum(t, 0) / rise))
    end = -np.expm1(-duration / rise)
    output = np.where(t > duration, end * np.exp(-np.maximum(t - duration, 0) / fall), output)
    share = pulse_share(start, np.array(exposure), np.array(duration), rise, fall)
    np.testing.assert_allclose(share.value, output.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("which", ["start", "exposure", "rise", "fall"])
def test_derivatives_are_the_quotients_of_differences(which):
    start = np.linspace(-1.5e-3, 2e-3, 37)
    at = {"start": start, "exposure": np.array(1e-3), "rise": 1e-4, "fall": 3e-4}

    def share(**moved):
        v = at | moved
        return pulse_share(v["start"], v["exposure"], np.array(6e-4), v["rise"], v["fall"])

    step = 1e-9
    quotient = (share(**{which: at[which] + step}).value - share(**{which: at[which] - step}).value) / (
        2 * step
    )
    np.testing.assert_allclose(getattr(share(), f"by_{which}"), quotient, atol=1e-4 / 1e-3)


def test_a_light_that_follows_at_once_fills_what_overlaps():
    share = pulse_share(np.array([-2e-3, -5e-4, 0.0, 5e-4, 2e-3]), np.array(1e-3), np.array(1e-3), 0.0, 0.0)
    np.testing.assert_allclose(share.value, [0, 0.5, 1, 0.5, 0], atol=3e-6)
    assert np.isfinite(share.by_rise).all()
    assert np.isfinite(share.by_fall).all()


# ---------------------------------------------------------------- the fit


@pytest.mark.parametrize("line_us", [2, 10, 50, -2, -10, -50])
@pytest.mark.parametrize("exposure_s", [1e-3, 8e-3])
def test_line_time_and_latency_within_the_bounds(line_us, exposure_s):
    camera = {"line_s": line_us * 1e-6, "exposure_s": exposure_s, "latency_s": 7e-4, "offset_s": 2e-5}
    model = fit_timing(**rows_of(1, duration_s=exposure_s, delays=24, noise=3e-3, **camera))
    assert model.line_time_s == pytest.approx(camera["line_s"], rel=0.01)
    assert model.latency_s == pytest.approx(7e-4, abs=5e-5)
    assert np.abs(off(model, **camera)).max() < 5
    assert model.direction == ("top-down" if line_us > 0 else "bottom-up")
    assert model.quality.verdict == "good"
    first = 0 if line_us > 0 else CAMERA["rows"] - 1
    assert model.row_start_s(first) == model.latency_s
    assert model.row_start_s(CAMERA["rows"] - 1 - first) == pytest.approx(
        model.latency_s + model.frame_span_s
    )


def test_a_global_shutter_is_recognised():
    model = fit_timing(**rows_of(2, line_s=0.0, delays=30))
    assert model.shutter == "global"
    assert model.direction == "none"
    assert abs(model.line_time_s) < 3 * model.line_time_sigma_s < 1e-8
    assert np.abs(off(model, line_s=0.0)).max() < 5


@pytest.mark.parametrize("scatter", [{}, {"jitter_s": 3e-5, "flicker": 0.005, "delays": 20}])
def test_sigmas_are_honest(scatter):
    """Over seeds the errors scatter as the model says: 40 seeds tell a standard deviation to 11 %."""
    models = [fit_timing(**rows_of(seed, rows=70, line_s=6e-5, **scatter)) for seed in range(40)]
    errors = np.array([off(model, line_s=6e-5) for model in models])
    assert np.sqrt((errors**2).mean(axis=0)) == pytest.approx(1.0, abs=0.34)
    # three sigma of the six together, of which some four are independent
    assert np.sqrt((errors**2).mean()) == pytest.approx(1.0, abs=0.17)
    if scatter:
        assert np.mean([model.jitter_s for model in models]) == pytest.approx(3e-5, rel=0.15)
        assert np.mean([model.flicker for model in models]) == pytest.approx(0.005, rel=0.15)
    else:
        # neither is seen where there is none, but for a rare chance
        assert np.mean([model.jitter_s > 0 for model in models]) < 0.08


def test_overdrive_exposure_and_several_lights_are_told_apart():
    lights = {
        "led": LIGHT | {"level": 1.4},
        "ring": LIGHT | {"delay_s": -2e-4, "rise_s": 5e-4},
        "spot": LIGHT | {"delay_s": 3e-3},
    }
    model = fit_timing(**rows_of(3, lights=lights, offset_s=5e-5, last_s=0.013, delays=24))
    assert model.exposure_offset_s == pytest.approx(5e-5, abs=5 * model.exposure_offset_sigma_s)
    for name, light in lights.items():
        found = model.lights[name]
        assert found.level == pytest.approx(light["level"], abs=5 * found.level_sigma)
        assert found.rise_s == pytest.approx(light["rise_s"], abs=5 * found.rise_sigma_s)
        assert found.delay_s == pytest.approx(light["delay_s"], abs=5 * found.delay_sigma_s + 1e-15)
        assert found.level_sigma < 0.01
    slow = model.lights["ring"].settle_s(0.001)
    assert slow == pytest.approx(5e-4 * np.log(1000), rel=0.02)
    assert model.lights["ring"].settle_s(0.01) < slow


def test_a_known_delay_of_the_light_is_taken_off_the_latency():
    told = rows_of(4)
    assert fit_timing(**told, light_delay_s=1e-4).latency_s == pytest.approx(
        fit_timing(**told).latency_s + 1e-4, abs=1e-12
    )


def test_the_answer_does_not_hang_on_order_or_scale_or_black():
    told = rows_of(5)
    model = fit_timing(**told)
    order = np.random.default_rng(0).permutation(len(told["lights"]))
    shuffled = {name: np.asarray(values)[order] for name, values in told.items()}
    shuffled["lights"] = [told["lights"][i] for i in order]
    scaled = told | {"signal": 7 * told["signal"] - 300, "variance": 49 * told["variance"]}
    mixed = fit_timing(**shuffled)
    assert mixed.covariance.tolist() == model.covariance.tolist()
    assert mixed.latency_s == model.latency_s, "to the last digit"
    for other in (mixed, fit_timing(**scaled)):
        assert other.line_time_s == pytest.approx(model.line_time_s, rel=1e-7)
        assert other.latency_s == pytest.approx(model.latency_s, rel=1e-5)
        assert other.latency_sigma_s == pytest.approx(model.latency_sigma_s, rel=1e-4)
    below = told["signal"].copy()
    fit_timing(**told)
    assert np.array_equal(below, told["signal"]), "the caller's array is not changed"


def test_frames_without_their_pulse_are_named_and_left_out():
    told = rows_of(6)
    dead = told["signal"][:4].mean(axis=0)
    told["signal"][[11, 13]] = dead
    model = fit_timing(**told)
    assert np.abs(off(model)).max() < 5
    assert model.quality.verdict == "doubtful"
    assert [text.split()[1] for text in model.quality.warnings] == ["11", "13"]
    told["signal"][8:18] = dead
    with pytest.raises(FitError, match=r"frames fit no common timing|do not bracket"):
        fit_timing(**told)


def test_steady_frames_before_the_light_has_settled_are_left_out():
    told = rows_of(7)
    told["signal"][4] = 64 + 0.98 * (told["signal"][4] - 64)
    model = fit_timing(**told)
    assert "frame 4 was left out: 'led' had not settled" in model.quality.warnings[0]
    assert np.abs(off(model)).max() < 5


def test_a_light_that_rises_otherwise_is_doubted():
    """A linear ramp of the supply's current, on which no exponential fits."""
    told = rows_of(8, noise=3e-4)
    still, strobes = 8, told["strobes"]
    row = np.arange(CAMERA["rows"])
    bright = told["signal"][4:8].mean(axis=0) - 64
    start = CAMERA["latency_s"] + CAMERA["line_s"] * row
    ramps = np.linspace(0, 1e-3, 400)
    for index in range(still, len(strobes)):
        delay, duration = strobes[index]
        shares = [
            pulse_share(start - delay - late, np.array(4e-3), np.array(duration), 0, 0).value
            for late in ramps
        ]
        told["signal"][index] = 64 + np.mean(shares, axis=0) * bright
    model = fit_timing(**told)
    assert model.quality.verdict == "doubtful"
    assert any("does not rise or fall exponentially" in text for text in model.quality.warnings)
    assert model.line_time_s == pytest.approx(CAMERA["line_s"], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"last_s": 2e-4, "duration_s": 5e-5, "latency_s": 3e-3}, "no strobed frame shows its light"),
        ({"noise": 3.0}, "times the noise of a row"),
        ({"delays": 1, "duration_s": 0.03}, "evenly bright"),
        ({"last_s": 1e-3, "duration_s": 4e-3, "rows": 2, "delays": 2}, "do not bracket|evenly bright"),
        ({"line_s": 0.0, "delays": 2, "exposure_s": 1e-3, "last_s": 2.3e-3}, "do not bracket|evenly bright"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_the_reason(changes, reason):
    with pytest.raises(FitError, match=reason):
        fit_timing(**rows_of(9, **changes))


@pytest.mark.parametrize(
    ("gone", "reason"), [("dark", "no dark frame at 0.004 s"), ("steady", "no steady frame")]
)
def test_missing_frames_are_named(gone, reason):
    told = rows_of(10)
    keep = [
        i
        for i, (name, strobe) in enumerate(zip(told["lights"], told["strobes"], strict=True))
        if np.isfinite(strobe[0]) or bool(name) == (gone == "dark")
    ]
    less = {name: np.asarray(values)[keep] for name, values in told.items() if name != "lights"}
    with pytest.raises(FitError, match=reason):
        fit_timing(**less, lights=[told["lights"][i] for i in keep])
    with pytest.raises(FitError, match="no strobed frame: nothing"):
        fit_timing(**(told | {"strobes": np.full((len(told["lights"]), 2), np.nan)}))


def test_rows_without_a_signal_are_left_out():
    told = rows_of(11)
    told["signal"][:, 40:60] = np.nan
    model = fit_timing(**told)
    assert np.abs(off(model)).max() < 5
    assert np.isnan(model.signal[:, 40:60]).all()
    assert np.isfinite(model.signal[:, 60:]).all()


def test_the_model_keeps_its_evidence_in_files(tmp_path):
    model = fit_timing(**rows_of(12))
    save_model(tmp_path / "timing.json", model)
    again = load_model(tmp_path / "timing.json", TimingModel)
    assert again == model
    share = (again.signal - again.expected()) / again.signal_sigma
    assert np.sqrt(np.mean(share**2)) == pytest.approx(1.0, abs=0.1)
    assert again.parameters[:3] == ("middle", "line_time", "exposure_offset")
    assert again.covariance.shape == (7, 7)


# ---------------------------------------------------------------- frames to rows


def frames_of(rng, gain=0.5, read=4.0, count=3):
    rows, columns = 60, 300
    bright = 2000 * (0.3 + rng.random((rows, columns)))
    levels = [0.0] * count + [1.0] * count + [0.4]
    frames = []
    for level in levels:
        electrons = rng.poisson(level * bright) + read * rng.standard_normal(bright.shape)
        frames.append(np.round(100 + gain * electrons).astype(np.uint16))
    names = [""] * count + ["led"] * (count + 1)
    return frames, np.full(len(frames), 0.01), names, [False] * 2 * count + [True], bright


def test_the_noise_of_rows_is_that_of_their_pixels():
    frames, exposure, names, strobed, bright = frames_of(np.random.default_rng(0))
    rows = reduce_rows(frames, exposure, names, strobed)
    expected = [np.asarray(frame, float).mean(axis=1) for frame in frames]
    np.testing.assert_allclose(rows.mean, expected, rtol=1e-5)
    for index, level in ((0, 0.0), (4, 1.0), (6, 0.4)):
        variance = (0.25 * (16 + level * bright.mean(axis=1)) + 1 / 12) / 300
        np.testing.assert_allclose(rows.variance[index].mean(), variance.mean(), rtol=0.03)


def test_saturated_and_defective_pixels_are_left_out_of_all_frames():
    frames, exposure, names, strobed, _ = frames_of(np.random.default_rng(1))
    bad = np.zeros(frames[0].shape, bool)
    bad[7, 5] = True
    frames = [frame.copy() for frame in frames]
    frames[6][3, 10:20] = 4095
    frames[2][7, 5] = 4000
    rows = reduce_rows(frames, exposure, names, strobed, saturation=4095, defects=bad)
    keep = np.ones(300, bool)
    keep[10:20] = False
    assert rows.mean[4][3] == pytest.approx(frames[4][3, keep].mean(), rel=1e-5)
    assert rows.mean[2][7] == pytest.approx(np.delete(frames[2][7], 5).mean(), rel=1e-5)
    with pytest.raises(FitError, match="most rows are saturated"):
        reduce_rows(frames, exposure, names, strobed, saturation=101)


def test_single_frames_do_not_tell_the_noise():
    frames, exposure, names, strobed, _ = frames_of(np.random.default_rng(2), count=1)
    with pytest.raises(FitError, match=r"one frame in the dark at 0\.01 s: take two"):
        reduce_rows(frames, exposure, names, strobed)


@pytest.mark.parametrize(
    ("lacking", "reason"), [("dark", "no frame in the dark"), ("steady", "no frame under")]
)
def test_frames_that_are_not_there_are_named(lacking, reason):
    frames, exposure, names, strobed, _ = frames_of(np.random.default_rng(2))
    kept = [
        i
        for i, (name, pulsed) in enumerate(zip(names, strobed, strict=True))
        if (name != "" if lacking == "dark" else name == "" or pulsed)
    ]
    with pytest.raises(FitError, match=reason):
        reduce_rows(
            [frames[i] for i in kept],
            exposure[kept],
            [names[i] for i in kept],
            [strobed[i] for i in kept],
        )
