"""Exposures chosen from the noise model: fewest, honest about limits, and as good as predicted.

Measured ratios come from merging simulated frames, whose noise is drawn here, over many pixels of one light.
Not tested here: scenes that move, lamps that flicker.
"""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.provenance import FitError
from calibration.radiometric import Radiance, RadiometricModel, merge
from calibration.radiometric.bracket import Limits, plan_bracket, spend_time
from calibration.radiometric.metering import Distribution, predict_snr

GAIN, READ, BLACK, DARK, WELL = 0.125, 7.0, 64.0, 5.0, 32500.0


def sensor(shape=(40, 50), **more):
    return RadiometricModel(
        width=shape[1],
        height=shape[0],
        pixel_format="Mono12",
        black_dn=BLACK,
        gain_dn_per_e=GAIN,
        read_noise_e=READ,
        dark_current_e_s=DARK,
        saturation_dn=4095,
        **more,
    )


def shoot(rate, exposure_s, rng):
    electrons = np.minimum(rng.poisson((rate + DARK) * exposure_s), WELL)
    electrons = electrons + READ * rng.standard_normal(electrons.shape)
    return np.clip(np.round(BLACK + GAIN * electrons), 0, 4095).astype(np.uint16)


def measured_snr(exposures, repeats, rate, pixels, rng):
    """Mean over scatter of the merged radiance of many pixels at each light; NaN where one is lost."""
    scene = np.broadcast_to(np.asarray(rate)[:, None], (len(rate), pixels))
    times = np.repeat(exposures, repeats)
    merged = merge([shoot(scene, t, rng) for t in times], times, sensor(scene.shape)).value
    return merged.mean(axis=1) / merged.std(axis=1, ddof=1)


def ladder(low, high, count=50):
    return np.geomspace(low, high, count)


def test_the_wanted_ratio_is_reached_and_measured():
    rng = np.random.default_rng(1)
    scene = Distribution.of(ladder(300, 1e6))
    plan = plan_bracket(scene, sensor(), 40, Limits(1e-5, 10))
    assert plan.reached
    assert not plan.warnings
    assert plan.snr.min() >= 40 * 0.997
    lights = plan.rate[::8]
    pixels = 4000
    found = measured_snr(plan.exposures_s, plan.repeats, lights, pixels, rng)
    # The scatter of a scatter: 1 / sqrt(2 n).
    assert found / plan.snr[::8] == pytest.approx(1, abs=5 / np.sqrt(2 * pixels))


def test_what_is_predicted_is_what_repeated_captures_scatter():
    rng = np.random.default_rng(2)
    rate = ladder(50, 1e6, 30)
    exposures, repeats = [0.002, 0.02, 0.3], [1, 3, 2]
    predicted = predict_snr(sensor(), exposures, repeats, rate)
    found = measured_snr(exposures, repeats, rate, 4000, rng)
    # Near the end of an exposure's range a merge has more than is promised, or less of a sample that clips.
    clear = np.ones(len(rate), bool)
    for t in exposures:
        full = (rate + DARK) * t / WELL
        clear &= ~((full > 0.95) & (full < 1.05))
    assert np.all(predicted > 0)
    assert (found / predicted)[clear] == pytest.approx(1, abs=0.06)
    assert np.mean((found / predicted)[clear]) == pytest.approx(1, abs=0.015)


def test_errors_of_the_maps_count():
    rate = np.array([100.0, 1e4])
    spread = sensor(flat_sigma=0.02, dark_covariance=np.diag([4.0, 9.0]))
    total = predict_snr(spread, [0.1], [50], rate)
    temporal = predict_snr(sensor(), [0.1], [50], rate)
    maps = 0.02**2 * rate**2 + 4.0 / 0.1**2 + 9.0
    assert total == pytest.approx(rate / np.sqrt((rate / temporal) ** 2 + maps), rel=1e-9)
    plan = plan_bracket(Distribution.of([1e4]), spread, 60, Limits(1e-5, 10))
    assert not plan.reached
    assert "flat map allows no more than 50" in plan.warnings[0]


@pytest.mark.parametrize("seed", range(6))
def test_no_plan_has_fewer_frames(seed):
    """Against all plans of a short list of exposures, by exhaustion."""
    rng = np.random.default_rng(seed)
    allowed = tuple(np.sort(rng.choice(2.0 ** np.arange(-10, 2), 5, replace=False)))
    rate = np.exp(rng.uniform(np.log(300), np.log(2e5), 4))
    scene = Distribution.of(rate)
    snr = rng.uniform(20, 120)
    limits = Limits(allowed[0], allowed[-1], allowed_s=allowed)
    plan = plan_bracket(scene, sensor(), snr, limits)
    least = next(
        (
            count
            for count in range(1, 5)
            if any(
                np.all(predict_snr(sensor(), np.array(trial), np.ones(count, int), scene.rate) >= snr)
                for trial in combinations_with_replacement(allowed, count)
            )
        ),
        None,
    )
    if least is None:
        assert plan.frames > 4 or not plan.reached
    else:
        # The search keeps clear of saturation and of the width of its classes, which may cost a frame.
        assert least <= plan.frames <= least + 1
    assert set(plan.exposures_s) <= set(allowed)


def test_repeats_are_taken_where_the_well_is_too_small():
    plan = plan_bracket(Distribution.of([1e5, 1.5e5]), sensor(), 500, Limits(1e-5, 10))
    assert plan.reached
    assert max(plan.repeats) > 4
    assert plan.frames >= 500**2 / WELL


def test_a_limit_of_time_keeps_the_bright_part_and_says_what_is_lost():
    scene = Distribution.of(ladder(100, 1e5))
    free = plan_bracket(scene, sensor(), 40, Limits(1e-5, 100))
    tight = plan_bracket(scene, sensor(), 40, Limits(1e-5, 100, total_s=free.total_s / 5))
    assert free.reached
    assert not tight.reached
    assert tight.total_s <= free.total_s / 5
    good = tight.snr >= 40 * 0.997
    assert np.all(np.diff(good.astype(int)) >= 0)  # the dark end alone falls short
    lost = tight.share[~good].sum()
    assert any(f"{lost:.2%}" in warning for warning in tight.warnings)
    # The same asked of the bright rest alone is within reach.
    assert plan_bracket(
        scene, sensor(), 40, Limits(1e-5, 100, total_s=free.total_s / 5), quantile=lost + 1e-6
    ).reached


def test_limits_of_frames_and_of_the_shortest_exposure():
    scene = Distribution.of(ladder(1e3, 1e6))
    few = plan_bracket(scene, sensor(), 300, Limits(1e-5, 10, frames=3))
    assert few.frames <= 3
    assert not few.reached
    slow = plan_bracket(scene, sensor(), 40, Limits(0.1, 10))
    assert not slow.reached
    assert any("saturate" in warning for warning in slow.warnings)
    assert slow.snr[scene.rate < 1e5].min() >= 40 * 0.997


@pytest.mark.parametrize("metered", ["grey", "highlights"])
def test_the_bracket_beats_a_fixed_one_in_the_same_time(metered):
    """Worst and median ratio, measured by merging, against -2, 0 and +2 EV.

    A scene of three decades metered for middle grey, and one of 1.7 decades metered so that the shortest of
    the fixed exposures just holds the brightest light.
    """
    rng = np.random.default_rng(3)
    pixels = 2000
    scene = Distribution.of(ladder(1e3 if metered == "grey" else 2e4, 1e6, 200))
    middle = 0.18 * WELL / np.exp(np.mean(np.log(scene.rate)))
    if metered == "highlights":
        middle = 4 * 0.9 * WELL / 1e6
    fixed = np.array([middle / 4, middle, 4 * middle])
    limits = Limits(1e-5, 10, total_s=float(fixed.sum()))
    # A light that some pixels lost has no ratio.
    of_fixed = np.nan_to_num(measured_snr(fixed, [1, 1, 1], scene.rate, pixels, rng))
    wanted = max(1.1 * of_fixed.min(), 25)
    plan = spend_time(plan_bracket(scene, sensor(), wanted, limits), sensor(), limits)
    assert plan.total_s <= limits.total_s
    found = measured_snr(plan.exposures_s, plan.repeats, scene.rate, pixels, rng)
    assert found.min() > 1.05 * of_fixed.min()
    assert np.median(found) > 1.2 * np.median(of_fixed)
    assert found / plan.snr == pytest.approx(1, abs=0.15)
    assert np.median(found / plan.snr) == pytest.approx(1, abs=0.02)


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.01, 100))
def test_brighter_light_asks_for_shorter_exposures(scale):
    model = sensor().replace(dark_current_e_s=0.0)
    rate = 2.0 ** np.arange(8, 16)
    factor = 2.0 ** (np.round(np.log2(scale) * 16) / 16)
    one = plan_bracket(Distribution.of(rate), model, 50, Limits(1e-9, 1e6))
    other = plan_bracket(Distribution.of(rate * factor), model, 50, Limits(1e-9, 1e6))
    assert one.repeats == other.repeats
    assert np.array(other.exposures_s) * factor == pytest.approx(np.array(one.exposures_s), rel=3e-3)


def test_metering_counts_light_clipping_and_darkness():
    rng = np.random.default_rng(4)
    rate = np.full((40, 50), 2e4)
    rate[:, :10] = 1e6  # saturates
    rate[:, 40:] = 0.0
    model = sensor()
    exposure = 0.1
    scene = Distribution()
    scene.add(model.linearize(shoot(rate, exposure, rng), exposure), model, exposure)
    assert scene.above == 40 * 10
    assert scene.ceiling_e_s == pytest.approx(WELL / exposure, rel=0.06)
    # The edge of a 5 x 5 neighbourhood sees the light beside it.
    assert 40 * 6 <= scene.dark <= 40 * 10
    near = np.abs(np.log2(scene.rate / 2e4)) < 0.2
    assert scene.share[near].sum() > 0.9
    plan = plan_bracket(scene, model, 20, Limits(1e-5, 10), headroom_stops=3)
    assert any("saturated in every metering frame" in warning for warning in plan.warnings)
    assert any("no light" in warning for warning in plan.warnings)
    held = predict_snr(model, plan.exposures_s, plan.repeats, [8 * 0.9 * scene.ceiling_e_s])
    assert held[0] > 20


def test_vignetting_is_in_the_light_that_a_pixel_meets():
    model = sensor(flat_map=np.full((40, 50), 0.5, np.float32))
    scene = Distribution()
    radiance = Radiance(np.full((40, 50), 1e4, np.float32), np.full((40, 50), 1e2, np.float32))
    scene.add(radiance, model, 0.01)
    assert scene.rate == pytest.approx([5e3], rel=0.05)


def test_every_colour_of_a_mosaic_counts():
    model = RadiometricModel.nominal("BayerRG12", (20, 20), full_well_e=2e4)
    value = np.full((20, 20), 1e4, np.float32)
    value[::2, ::2] = 1e3
    scene = Distribution()
    scene.add(Radiance(value, value), model, 0.01)
    assert scene.rate[0] == pytest.approx(1e3, rel=0.05)
    assert scene.share[0] == pytest.approx(0.25)


def test_a_camera_with_a_response_can_be_planned():
    codes = np.arange(256.0)
    table = (2e4 * (np.maximum(codes, 0.5) / 255) ** 2.2)[:, None]
    model = RadiometricModel.nominal("Mono8", (1, 9), read_noise_dn=0.0)
    model = model.replace(response=table, read_noise_e=15.0)
    # One frame of known light: what the model itself says of its noise.
    dn = np.linspace(40, 200, 9).round()[None].astype(np.uint8)
    one = model.linearize(dn, 0.1)
    predicted = predict_snr(model, [0.1], [1], one.value[0])
    assert predicted == pytest.approx(one.value[0] / np.sqrt(one.variance[0]), rel=0.01)
    plan = plan_bracket(Distribution.of(ladder(1e3, 1e5)), model, 30, Limits(1e-5, 10))
    assert plan.reached
    assert min(plan.exposures_s) * 1e5 < 2e4


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (lambda s, m: plan_bracket(s, m, -1, Limits(1e-5, 10)), "wanted SNR of -1"),
        (lambda s, m: plan_bracket(s, m, 10, Limits(1e-5, 10), quantile=1.0), "quantile of 1"),
        (lambda s, m: plan_bracket(s, m, 10, Limits(1, 0.1)), "no such range"),
        (lambda s, m: plan_bracket(s, m, 10, Limits(0.1, 1, total_s=0.05)), "do not hold one exposure"),
        (lambda s, m: plan_bracket(s, m, 10, Limits(0.1, 1, allowed_s=(2.0,))), "allowed exposure"),
        (lambda s, m: plan_bracket(Distribution(), m, 10, Limits(0.1, 1)), "shows light"),
        (
            lambda s, m: spend_time(plan_bracket(s, m, 10, Limits(1e-5, 10)), m, Limits(1e-5, 10)),
            "how much time",
        ),
        (
            lambda s, m: plan_bracket(s, RadiometricModel.nominal("Mono32f", (4, 4)), 10, Limits(0.1, 1)),
            "hold no electrons",
        ),
    ],
)
def test_bad_wishes_are_one_line(wish, said):
    with pytest.raises(FitError, match=said) as error:
        wish(Distribution.of([1e4]), sensor())
    assert "\n" not in str(error.value)
