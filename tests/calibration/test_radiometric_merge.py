"""merge: kernel against the numpy reference, bias and variance by Monte Carlo, invariances, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.provenance import FitError
from calibration.radiometric import Radiance, RadiometricModel, merge
from calibration.radiometric.merge import merge_reference

EXPOSURE = np.array([0.001, 0.004, 0.016])
SHAPE = (40, 50)


def sensor(**changes):
    rng = np.random.default_rng(3)
    fields = {
        "width": SHAPE[1],
        "height": SHAPE[0],
        "pixel_format": "Mono12",
        "black_dn": 64.0,
        "gain_dn_per_e": 0.125,
        "read_noise_e": 7.0,
        "dark_current_e_s": 200.0,
        "saturation_dn": 4095.0,
        "dark_map": rng.normal(0, 0.4, SHAPE).astype(np.float32),
        "dark_rate_map": rng.normal(0, 20, SHAPE).astype(np.float32),
        "flat_map": rng.normal(0.9, 0.02, SHAPE).astype(np.float32),
        "defects": rng.random(SHAPE) < 0.01,
    }
    return RadiometricModel(**{**fields, **changes})


def shoot(model, radiance, exposure, rng):
    frames = []
    for t in exposure:
        rate = radiance * model.flat_map + model.dark_current_e_s + model.dark_rate_map
        electrons = rng.poisson(rate * t) + model.read_noise_e * rng.standard_normal(SHAPE)
        dn = np.rint(electrons * model.gain_dn_per_e + model.black_dn + model.dark_map)
        frames.append(np.clip(dn, 0, 4095).astype(np.uint16))
    return frames


@pytest.mark.parametrize("maps", ["all maps", "no maps"])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_kernel_is_the_reference(maps, n):
    rng = np.random.default_rng(n)
    model = sensor(dark_covariance=np.array([[4.0, -6.0], [-6.0, 25.0]]), flat_sigma=0.01)
    exposure = np.geomspace(0.0005, 0.02, n)
    scene = np.exp(rng.uniform(np.log(10), np.log(1e8), SHAPE))
    frames = shoot(model, scene, exposure, rng)
    if maps == "no maps":
        model = sensor(dark_map=None, dark_rate_map=None, flat_map=None, defects=None)
    fused, plain = merge(frames, exposure, model), merge_reference(frames, exposure, model)
    assert np.isnan(plain.value).any()
    assert np.isfinite(plain.value).any()
    # float32 sums of n terms against float64 ones; the dark current taken off a dark pixel costs digits.
    scale = np.nan_to_num(np.abs(plain.value)) + 64 / 0.125 / exposure.min()
    np.testing.assert_array_less(np.nan_to_num(np.abs(fused.value - plain.value)), 16 * 1.2e-7 * scale)
    np.testing.assert_array_equal(np.isnan(fused.value), np.isnan(plain.value))
    np.testing.assert_allclose(fused.variance, plain.variance, rtol=2e-5)


def test_8_bit_frames_take_the_kernel_too():
    model = RadiometricModel.nominal("RGB8", (5, 6, 3))
    frames = list(np.random.default_rng(1).integers(0, 256, (3, 5, 6, 3), dtype=np.uint8))
    fused, plain = merge(frames, EXPOSURE, model), merge_reference(frames, EXPOSURE, model)
    np.testing.assert_allclose(fused.value, plain.value, rtol=1e-5, atol=1)
    np.testing.assert_allclose(fused.variance, plain.variance, rtol=2e-5)


@pytest.mark.parametrize("radiance", [300.0, 2e4, 4e5, 3e6, 1.5e7])
def test_bias_and_variance_by_monte_carlo(radiance):
    model, rng, n = sensor(), np.random.default_rng(17), 120
    values, variances = [], []
    for _ in range(n):
        result = merge(shoot(model, radiance, EXPOSURE, rng), EXPOSURE, model)
        values.append(result.value.astype(np.float64)[~model.defects])
        variances.append(result.variance[~model.defects])
    values = np.array(values)
    draws = values.size
    scatter = values.var(axis=0, ddof=1).mean()
    assert abs(values.mean() - radiance) <= 1e-3 * radiance + 4 * np.sqrt(scatter / draws)
    # Four sigmas of the scatter's own uncertainty, and what the noise of the pooled signal may add.
    assert np.mean(variances) == pytest.approx(scatter, rel=4 * np.sqrt(2 / draws) + 0.01)

    # No unbiased estimate does better (Cramer-Rao), with the unsaturated exposures known beforehand.
    rate = radiance * model.flat_map + model.dark_current_e_s + model.dark_rate_map
    noise = rate * EXPOSURE[:, None, None] + 7.0**2 + 64 / 12
    seen = rate * EXPOSURE[:, None, None] * 0.125 + 64 < 3950
    information = (seen * (EXPOSURE[:, None, None] * model.flat_map) ** 2 / noise).sum(axis=0)
    assert scatter == pytest.approx(
        (1 / information)[~model.defects].mean(), rel=4 * np.sqrt(2 / draws) + 0.01
    )


def test_weighting_each_sample_by_its_own_noise_would_be_biased():
    """What the pooled weights are for: the naive merge is low by percents where ours is not."""
    model, rng, radiance = sensor(defects=None), np.random.default_rng(18), 5e3
    exposure = np.full(6, 0.004)
    naive, ours = [], []
    for _ in range(20):
        frames = shoot(model, radiance, exposure, rng)
        each = [model.linearize(f, t) for f, t in zip(frames, exposure, strict=True)]
        weight = np.array([1 / e.variance for e in each])
        naive.append(np.sum(weight * [e.value for e in each], axis=0) / weight.sum(axis=0))
        ours.append(merge(frames, exposure, model).value)
    assert np.mean(naive) < 0.97 * radiance
    assert np.mean(ours, dtype=np.float64) == pytest.approx(radiance, rel=5e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(5)))
def test_order_of_frames_does_not_matter(seed, order):
    rng, model = np.random.default_rng(seed), sensor()
    exposure = rng.uniform(0.0005, 0.02, 5)
    frames = [rng.integers(40, 4096, SHAPE, dtype=np.uint16) for _ in exposure]
    first = merge(frames, exposure, model)
    second = merge([frames[i] for i in order], exposure[list(order)], model)
    scale = 4096 / 0.125 / exposure.min()
    np.testing.assert_allclose(second.value, first.value, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(second.variance, first.variance, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.05, 20))
def test_longer_exposures_mean_less_radiance(seed, factor):
    rng, model = np.random.default_rng(seed), sensor(dark_current_e_s=0.0, dark_rate_map=None)
    frames = [rng.integers(70, 4096, SHAPE, dtype=np.uint16) for _ in EXPOSURE]
    one, other = merge(frames, EXPOSURE, model), merge(frames, factor * EXPOSURE, model)
    np.testing.assert_allclose(other.value * np.float32(factor), one.value, rtol=1e-5, atol=1)
    np.testing.assert_allclose(other.variance * np.float32(factor) ** 2, one.variance, rtol=2e-5)


def test_pixels_without_a_valid_sample_are_nan():
    model = sensor(defects=None)
    frames = [np.full(SHAPE, 2000, np.uint16) for _ in EXPOSURE]
    for frame in frames:
        frame[3, 4] = 4095
    frames[2][5, 5] = 4095
    result = merge(frames, EXPOSURE, model)
    expected = np.zeros(SHAPE, bool)
    expected[3, 4] = True
    np.testing.assert_array_equal(np.isnan(result.value), expected)
    np.testing.assert_array_equal(np.isnan(result.variance), expected)
    assert result.variance[5, 5] > 2 * np.median(result.variance[:, 6:])


def test_background_is_subtracted_with_its_variance():
    model, rng = sensor(), np.random.default_rng(2)
    frames, dim = shoot(model, 2e5, EXPOSURE, rng), shoot(model, 3e4, EXPOSURE, rng)
    ambient = merge(dim, EXPOSURE, model)
    alone = merge(frames, EXPOSURE, model)
    both = merge(frames, EXPOSURE, model, background=ambient)
    np.testing.assert_array_equal(both.value, alone.value - ambient.value)
    np.testing.assert_array_equal(both.variance, alone.variance + ambient.variance)


def test_float_frames_merge():
    model = RadiometricModel.nominal("Mono32f", (2, 2))
    truth = np.array([[1.0, 2.0], [0.5, np.nan]], np.float32)
    result = merge([truth * np.float32(t) for t in EXPOSURE], EXPOSURE, model)
    np.testing.assert_allclose(result.value, truth, rtol=1e-6)
    assert np.isnan(result.variance[1, 1])


@pytest.mark.parametrize(
    ("frames", "exposure", "says"),
    [
        ([], [], "no frames"),
        ([np.zeros(SHAPE, np.uint16)], [0.1, 0.2], "1 frames but exposures"),
        ([np.zeros(SHAPE, np.uint16)] * 2, [0.1, 0.0], r"frame 1 has exposure 0\.0 s"),
        ([np.zeros(SHAPE, np.uint16)] * 2, [np.nan, 1.0], "frame 0 has exposure nan s"),
        (
            [np.zeros(SHAPE, np.uint16), np.zeros((40, 51), np.uint16)],
            [0.1, 0.2],
            r"frame 1 has shape \(40, 51\)",
        ),
        ([np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.int64)], [0.1, 0.2], "frame 1 has dtype int64"),
        ([np.zeros((40, 51), np.float32)], [0.1], r"frame 0 has shape \(40, 51\)"),
    ],
)
def test_bad_input_names_the_frame(frames, exposure, says):
    with pytest.raises(FitError, match=says):
        merge(frames, exposure, sensor())


def test_background_of_another_size_is_refused():
    ambient = Radiance(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))
    with pytest.raises(FitError, match=r"background has shape \(2, 2\)"):
        merge([np.zeros(SHAPE, np.uint16)], [0.1], sensor(), background=ambient)


def test_rejected_samples_are_left_out():
    model, rng = sensor(), np.random.default_rng(5)
    frames = shoot(model, 2e5, EXPOSURE, rng)
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 7:20] = True
    spoilt = [frames[0], frames[1], np.where(mask, 900, frames[2]).astype(np.uint16)]
    result = merge(spoilt, EXPOSURE, model, reject=[None, None, mask])
    for got, reference in zip(
        result, merge_reference(spoilt, EXPOSURE, model, reject=[None, None, mask]), strict=True
    ):
        np.testing.assert_allclose(got, reference, rtol=1e-5)
    without = merge(frames[:2], EXPOSURE[:2], model)
    # Rejected pixels are weighted pixel by pixel, the others by fixed weights: both of least variance.
    far = np.abs(result.value - without.value) / np.sqrt(without.variance)
    assert np.nanmax(far[mask]) < 0.5
    np.testing.assert_allclose(result.variance[mask], without.variance[mask], rtol=0.03)
    with pytest.raises(FitError, match="3 frames but 2 reject masks"):
        merge(frames, EXPOSURE, model, reject=[None, mask])
    with pytest.raises(FitError, match="reject mask of frame 1"):
        merge(frames, EXPOSURE, model, reject=[None, mask.astype(np.uint8), None])


def test_neighbours_of_saturated_samples_are_distrusted():
    model = sensor(defects=None, dark_map=None, dark_rate_map=None, flat_map=None)
    frames = [np.full(SHAPE, dn, np.uint16) for dn in (400, 1400, 1800)]
    frames[2][10, 10] = 4095
    near = np.zeros(SHAPE, bool)
    near[8:13, 8:13] = True
    near[10, 10] = False  # saturated itself, and left out for that
    result = merge(frames, EXPOSURE, model, saturation_margin_px=2)
    masks = [None, None, near]
    np.testing.assert_array_equal(result.value, merge(frames, EXPOSURE, model, reject=masks).value)
    assert np.all(result.value[near] > 1.5 * merge(frames, EXPOSURE, model).value[0, 0])
    np.testing.assert_allclose(result.value[~near], merge(frames, EXPOSURE, model).value[~near], rtol=1e-5)
    with pytest.raises(FitError, match="saturation_margin_px is -1"):
        merge(frames, EXPOSURE, model, saturation_margin_px=-1)
