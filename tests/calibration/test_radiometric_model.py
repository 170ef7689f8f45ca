"""linearize, expose, nominal models and demosaicing: inverses, Monte Carlo of the variances, bad input."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from calibration.radiometric import Radiance, RadiometricModel, demosaic

EPS = float(np.finfo(np.float32).eps)


def sensor(shape=(40, 50), **changes):
    """A calibrated model with every map, whose truth is known."""
    rng = np.random.default_rng(3)
    defects = np.zeros(shape, bool)
    defects[5, 6] = True
    fields = {
        "width": shape[1],
        "height": shape[0],
        "pixel_format": "Mono12",
        "black_dn": 64.0,
        "gain_dn_per_e": 0.125,
        "read_noise_e": 7.0,
        "dark_current_e_s": 20.0,
        "saturation_dn": 4090.0,
        "dark_map": rng.normal(0, 0.4, shape).astype(np.float32),
        "dark_rate_map": rng.normal(0, 2, shape).astype(np.float32),
        "flat_map": rng.normal(0.9, 0.02, shape).astype(np.float32),
        "defects": defects,
    }
    return RadiometricModel(**{**fields, **changes})


def shoot(model, radiance, exposure_s, rng):
    """Integer frame of a linear model, by the sensor's physics rather than by the model's own code."""
    rate = radiance * model.flat_map + model.dark_current_e_s + model.dark_rate_map
    electrons = rng.poisson(rate * exposure_s) + model.read_noise_e * rng.standard_normal(model.shape)
    dn = np.rint(electrons * model.gain_dn_per_e + model.black_dn + model.dark_map)
    return np.clip(dn, 0, 4095).astype(np.uint16)


@settings(max_examples=40, deadline=None)
@given(
    radiance=st.floats(1.0, 1e6),
    exposure_s=st.floats(1e-4, 1.0),
    curve=st.sampled_from([None, 0.5, 2.2]),
)
def test_linearize_inverts_expose(radiance, exposure_s, curve):
    if curve is None:
        model = sensor()
    else:
        table = 1e4 * (np.arange(256)[:, None] / 255 + 1e-3) ** curve
        maps = {"gain_dn_per_e": 0.0255, "pixel_format": "Mono8", "black_dn": 0.0, "saturation_dn": 255.0}
        model = sensor(response=table, **maps)
    dn = model.expose(radiance, exposure_s)
    result = model.linearize(dn, exposure_s)
    in_range = (dn < model.saturation_dn) & ~model.defects
    if curve is not None:
        in_range &= dn > 0
    np.testing.assert_array_equal(np.isfinite(result.value), (dn < model.saturation_dn) & ~model.defects)
    # float32: rounding of DN near full scale, seen from the radiance.
    slope = 1 / model.gain_dn_per_e if curve is None else np.gradient(model.response[:, 0]).max()
    tolerance = 8 * EPS * (4096 * slope / exposure_s / 0.8 + radiance)
    np.testing.assert_allclose(result.value[in_range], radiance, rtol=0, atol=tolerance)
    assert result.value.dtype == result.variance.dtype == np.float32


@pytest.mark.parametrize("electrons", [0.0, 40.0, 1000.0, 20_000.0])
def test_variance_of_linearize_is_the_scatter(electrons):
    model, exposure_s, n = sensor(), 0.02, 200
    rng = np.random.default_rng(7)
    values, variances = [], []
    for _ in range(n):
        result = model.linearize(shoot(model, electrons / exposure_s, exposure_s, rng), exposure_s)
        values.append(result.value.astype(np.float64))
        variances.append(result.variance)
    good = ~model.defects
    values = np.array(values)[:, good]
    scatter = values.var(axis=0, ddof=1).mean()
    # The scatter of so many draws is known to sqrt(2 / draws); the mean to sigma / sqrt(draws).
    draws = values.size
    assert np.mean(np.array(variances)[:, good]) == pytest.approx(scatter, rel=5 * np.sqrt(2 / draws) + 0.002)
    assert values.mean() == pytest.approx(
        electrons / exposure_s, abs=5 * np.sqrt(scatter / draws) + 1e-4 * electrons
    )


def test_variance_counts_the_uncertainty_of_the_maps():
    exact = sensor(dark_map=None, dark_rate_map=None)
    covariance = np.array([[4.0, -6.0], [-6.0, 25.0]])
    rough = exact.replace(dark_covariance=covariance, flat_sigma=0.03)
    rng = np.random.default_rng(2)
    radiance, exposure_s, errors, stated = 4e4, 0.25, [], []
    dn = exact.expose(radiance, exposure_s)
    for _ in range(300):
        offset, rate = np.moveaxis(rng.multivariate_normal([0, 0], covariance, exact.shape), -1, 0)
        wrong = rough.replace(
            dark_map=offset * exact.gain_dn_per_e,
            dark_rate_map=rate,
            flat_map=exact.flat_map + 0.03 * np.sqrt(exact.flat_map) * rng.standard_normal(exact.shape),
        )
        result = wrong.linearize(dn, exposure_s)
        errors.append(result.value - radiance)
        stated.append(
            result.variance
            - wrong.replace(dark_covariance=None, flat_sigma=0).linearize(dn, exposure_s).variance
        )
    scatter = np.nanvar(errors)
    # First-order propagation of a 3 % flat: the second order is 3 * 0.03^2 of it.
    assert np.nanmean(stated) == pytest.approx(scatter, rel=5 * np.sqrt(2 / np.size(errors)) + 0.01)


def test_invalid_samples_are_nan():
    model = sensor()
    dn = np.full(model.shape, 4089, np.uint16)
    dn[0, 0], dn[0, 1] = 4090, 4095
    before = dn.copy()
    result = model.linearize(dn, 0.01)
    expected = np.zeros(model.shape, bool)
    expected[0, :2] = expected[5, 6] = True
    np.testing.assert_array_equal(np.isnan(result.value), expected)
    np.testing.assert_array_equal(np.isnan(result.variance), expected)
    np.testing.assert_array_equal(dn, before)


def test_float_frames_pass_through():
    model = RadiometricModel.nominal("RGB32f", (2, 3, 3))
    image = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    image[0, 0] = [np.nan, np.inf, -1]
    result = model.linearize(image, 0.5)
    expected = image / 0.5
    expected[0, 0, 1] = np.nan
    np.testing.assert_array_equal(result.value, expected)
    # 1 % of the value beside a thousandth, both over the exposure.
    np.testing.assert_allclose(result.variance[1], (0.01 * expected[1]) ** 2 + (1e-3 / 0.5) ** 2, rtol=1e-5)
    assert np.isnan(result.variance[0, 0, 1])


def test_nominal_model_of_an_8_bit_image():
    model = RadiometricModel.nominal("RGB8", (4, 5, 3), black_dn=5.0)
    assert model.quality.verdict == "doubtful"
    assert "sigmas are nominal" in model.quality.warnings[0]
    image = np.full((4, 5, 3), 130, np.uint8)
    image[0, 0, 0] = 255
    result = model.linearize(image, 0.1)
    electrons = (130 - 5) / 250 * 10_000
    assert np.isnan(result.value[0, 0, 0])
    np.testing.assert_allclose(result.value[1:], electrons / 0.1, rtol=1e-6)
    noise = electrons + (1 + 1 / 12) * 40.0**2
    np.testing.assert_allclose(result.variance[1:], noise / 0.01, rtol=1e-5)


def test_nominal_full_well_is_where_samples_end():
    cut = RadiometricModel.nominal("Mono16", (2, 2), black_dn=95.0, saturation_dn=4095)
    assert cut.gain_dn_per_e == pytest.approx(0.4)
    known = RadiometricModel.nominal("Mono16", (2, 2), full_scale_dn=4095)
    assert known.gain_dn_per_e == pytest.approx(0.4095)
    assert known.saturation_dn == 65535


def test_linear_response_table_is_the_linear_model():
    linear = RadiometricModel.nominal("Mono8", (16, 16), black_dn=0.0)
    table = (np.arange(256) / 255 * 10_000)[:, None]
    tabled = linear.replace(response=table)
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for a, b in zip(linear.linearize(image, 0.3), tabled.linearize(image, 0.3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("exposure_s", [0.0, -1.0, float("nan"), float("inf")])
def test_exposure_must_be_positive(exposure_s):
    with pytest.raises(ValueError, match="exposure_s"):
        sensor().linearize(np.zeros((40, 50), np.uint16), exposure_s)
    with pytest.raises(ValueError, match="exposure_s"):
        sensor().expose(1.0, exposure_s)


def test_frame_of_another_size_is_refused():
    with pytest.raises(
        ValueError, match=r"frame has shape \(40, 51\), the radiometric model is for \(40, 50\)"
    ):
        sensor().linearize(np.zeros((40, 51), np.uint16), 0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"flat_map": np.ones((40, 51))},
        {"defects": np.zeros((40, 50), np.uint8)},
        {"response": np.arange(256.0)[:, None]},
        {"pixel_format": "Mono8", "response": np.zeros((256, 1))},
        {"pixel_format": "Mono8", "response": np.full((256, 1), np.nan)},
        {"saturation_dn": 60.0},
        {"gain_dn_per_e": 0.0},
        {"pixel_format": "Mono11"},
        {"dark_covariance": np.ones(2)},
        {"gain": 1.0},
    ],
)
def test_inconsistent_models_are_refused(changes):
    with pytest.raises(ValidationError):
        sensor(**changes)


@pytest.mark.parametrize(
    ("pixel_format", "shape"), [("Mono8", (4, 5, 3)), ("RGB8", (4, 5)), ("RGB8", (4, 5, 4))]
)
def test_nominal_model_needs_a_fitting_shape(pixel_format, shape):
    with pytest.raises(ValueError, match="cannot have shape"):
        RadiometricModel.nominal(pixel_format, shape)


# OpenCV names a pattern by the 2 x 2 block that starts at pixel (1, 1).
OPENCV = {
    "RGGB": cv2.COLOR_BayerBG2RGB,
    "BGGR": cv2.COLOR_BayerRG2RGB,
    "GRBG": cv2.COLOR_BayerGB2RGB,
    "GBRG": cv2.COLOR_BayerGR2RGB,
}


@pytest.mark.parametrize("cfa", OPENCV)
def test_demosaic_agrees_with_opencv_inside(cfa):
    mosaic = np.random.default_rng(1).integers(0, 60_000, (12, 14), dtype=np.uint16)
    ours = demosaic(Radiance(mosaic.astype(np.float32), np.ones((12, 14), np.float32)), cfa).value
    theirs = cv2.cvtColor(mosaic, OPENCV[cfa])
    # OpenCV rounds to integers and copies its border from within.
    np.testing.assert_allclose(ours[1:-1, 1:-1], theirs[1:-1, 1:-1], rtol=0, atol=1)


@pytest.mark.parametrize("cfa", OPENCV)
def test_demosaic_reproduces_planes_and_constants(cfa):
    y, x = np.mgrid[:9, :11].astype(np.float32)
    level = {"R": 1000.0, "G": 2000.0, "B": 300.0}
    mosaic = np.zeros((9, 11), np.float32)
    for k, colour in enumerate(cfa):
        mosaic[k // 2 :: 2, k % 2 :: 2] = level[colour]
    flat = demosaic(Radiance(mosaic, np.ones_like(mosaic)), cfa).value
    np.testing.assert_allclose(flat, np.broadcast_to([1000, 2000, 300], flat.shape), rtol=4 * EPS)
    ramp = demosaic(Radiance(3 * x + 7 * y, np.ones_like(x)), cfa).value
    expected = np.repeat((3 * x + 7 * y)[..., None], 3, -1)
    np.testing.assert_allclose(ramp[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=0, atol=1e-4)


def test_demosaic_variance_is_the_scatter():
    rng = np.random.default_rng(5)
    variance = rng.uniform(1, 9, (8, 10)).astype(np.float32)
    draws = np.array(
        [
            demosaic(
                Radiance(
                    (100 + np.sqrt(variance) * rng.standard_normal((8, 10))).astype(np.float32), variance
                ),
                "GBRG",
            ).value
            for _ in range(4000)
        ]
    )
    stated = demosaic(Radiance(np.full((8, 10), 100, np.float32), variance), "GBRG").variance
    ratio = draws.var(axis=0, dtype=np.float64) / stated
    # 240 ratios, each known to sqrt(2 / 4000).
    assert np.max(np.abs(ratio - 1)) < 4.5 * np.sqrt(2 / 4000)


def test_demosaic_keeps_nan_where_a_sample_is_missing():
    value = np.full((6, 6), 5, np.float32)
    value[2, 2] = np.nan
    result = demosaic(Radiance(value, np.ones_like(value)), "RGGB")
    red = np.zeros((6, 6), bool)
    red[1:4, 1:4] = True
    np.testing.assert_array_equal(np.isnan(result.value[..., 0]), red)
    np.testing.assert_array_equal(np.isnan(result.variance[..., 0]), red)
    assert np.all(np.isfinite(result.value[..., 1:]))


@pytest.mark.parametrize("cfa", ["RGB", "RRGB", "GGRB", "RGBG", ""])
def test_demosaic_refuses_unknown_filters(cfa):
    with pytest.raises(ValueError, match="colour filter"):
        demosaic(Radiance(np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)), cfa)
