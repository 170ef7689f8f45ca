"""Checks from block means: honest sigmas, black levels that do not fool them, culprits named.

Not tested here: that the blocks of real scenes stand still, which `fit_ratio` takes from their scatter.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.radiometric import checks
from calibration.radiometric.checks import Linearity, Pair, Ratio

READ_E, SAMPLES = 5.0, 25


def noise(electrons):
    return (np.maximum(electrons, 0) + READ_E**2) / SAMPLES


def two_frames(rng, ratio, electrons, *, offset=0.0, power=1.0):
    """Block means of a frame and of one exposed ``ratio`` times as long, as a camera of that power gives."""
    x, y = electrons**power + offset, (ratio * electrons) ** power + offset
    return tuple(signal + rng.normal(size=len(signal)) * np.sqrt(noise(signal)) for signal in (x, y))


def fitted(x, y, offset_sigma):
    return checks.fit_ratio(x, y, noise(x), noise(y), offset_sigma)


@pytest.mark.parametrize(
    ("ratio", "range_e", "offset_sigma", "told_sigma", "moved"),
    [
        (2.0, (10, 5000), 0.5, 0.5, 0.0),
        (2.0, (4000, 4100), 3.0, 3.0, 0.0),
        (2.0, (1000, 5000), 50.0, np.inf, 0.0),
        (1.0, (1000, 5000), 3.0, 3.0, 0.0),
        (8.0, (1, 60), 0.5, 0.5, 0.0),
        (2.0, (10, 5000), 0.5, 0.5, 0.25),
        (2.0, (1000, 5000), 3.0, np.inf, 0.25),
    ],
)
def test_ratio_is_unbiased_and_its_sigma_is_the_scatter(ratio, range_e, offset_sigma, told_sigma, moved):
    rng = np.random.default_rng(3)
    values, sigmas = [], []
    for _ in range(150):
        x, y = two_frames(rng, ratio, rng.uniform(*range_e, 400), offset=rng.normal(0, offset_sigma))
        y = np.where(rng.random(400) < moved, y * rng.uniform(0.3, 3, 400), y)
        found = fitted(x, y, told_sigma)
        assert found is not None
        values.append(found.value)
        sigmas.append(found.sigma)
    scatter = np.std(values, ddof=1)
    assert abs(np.mean(values) - ratio) < 4 * scatter / np.sqrt(150)
    # The scatter of 150 values is known to 1 / sqrt(300) = 5.8 %.
    assert np.mean(sigmas) / scatter == pytest.approx(1, abs=4 * 0.058)


def test_line_is_that_of_pearsons_data_with_yorks_weights():
    """Outside reference: the values published by York et al. (2004), doi:10.1119/1.1632486."""
    x = np.array([0.0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4])
    y = np.array([5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5])
    weight_x = np.array([1000, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1])
    weight_y = np.array([1, 1.8, 4, 8, 20, 20, 70, 70, 100, 500])
    slope, intercept, sigma = checks._line(x, y, 1 / weight_x, 1 / weight_y, -0.5, np.inf)
    assert slope == pytest.approx(-0.480533, abs=1e-6)
    assert intercept == pytest.approx(5.479910, abs=1e-6)
    assert sigma == pytest.approx(0.057985, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(-500, 500), st.floats(1.2, 50), st.integers(0, 2**31))
def test_a_black_level_that_nobody_knows_does_not_matter(offset, ratio, seed):
    rng = np.random.default_rng(seed)
    x, y = two_frames(rng, ratio, rng.uniform(500, 4000, 200))
    variances = noise(x), noise(y)
    plain = checks.fit_ratio(x, y, *variances, np.inf)
    shifted = checks.fit_ratio(x + offset, y + offset, *variances, np.inf)
    assert shifted.value == pytest.approx(plain.value, rel=1e-6)


@pytest.mark.parametrize("told_sigma", [0.5, np.inf])
@pytest.mark.parametrize("power", [1 / 2.2, 1 / 1.8, 1.0])
def test_the_exponent_of_a_tone_curve_is_found_with_and_without_the_black_level(power, told_sigma):
    rng = np.random.default_rng(7)
    offset = 64.0 if np.isinf(told_sigma) else 0.0
    light = rng.uniform(2e5, 4e6, 400)
    pairs = []
    for _ in range(4):
        x, y = two_frames(rng, 2.0, light, power=power, offset=offset)
        pairs.append(Pair(1.0, 2.0, fitted(x, y, told_sigma)))
    found = checks.linearity(pairs)
    assert found.exponent == pytest.approx(power, abs=4 * found.exponent_sigma + 1e-3)
    assert found.is_linear == (power == 1.0)
    check = checks.judge_linearity(found)
    assert check.verdict == ("ok" if power == 1.0 else "fail")
    assert ("tone curve" in check.text) == (power != 1.0)


@pytest.mark.parametrize("told_sigma", [0.5, np.inf])
def test_blocks_that_cannot_tell_give_none(told_sigma):
    rng = np.random.default_rng(11)
    even = two_frames(rng, 2.0, np.full(200, 3000.0))
    assert (fitted(*even, told_sigma) is None) == np.isinf(told_sigma)
    nothing = np.full(200, np.nan)
    assert fitted(nothing, nothing, told_sigma) is None
    dark = two_frames(rng, 2.0, np.zeros(200))
    assert fitted(*dark, told_sigma) is None


def pair(short, long, factor=1.0, sigma=1e-3):
    value = long / short * factor
    return Pair(short, long, Ratio(value, value * sigma, 1.0, 100, 0.0))


def test_the_exposure_that_is_wrong_is_named():
    # 4 ms came out 12 % too bright: the ratio before it is too large, the one after it too small.
    told = [pair(0.001, 0.002), pair(0.002, 0.004, 1.12), pair(0.004, 0.008, 1 / 1.12), pair(0.008, 0.016)]
    found = checks.linearity(told)
    assert found.exposure_s[found.worst] == 0.004
    assert found.deviation[found.worst] == pytest.approx(0.12)
    assert found.is_linear
    check = checks.judge_linearity(found)
    assert check.verdict == "fail"
    assert "at 0.004 s" in check.text


def test_an_image_that_does_not_follow_the_exposure_is_called_so():
    found = checks.linearity([pair(1, 2, 0.5), pair(2, 4, 0.5)])
    assert found.exponent == pytest.approx(0)
    assert "does not follow the exposure" in checks.judge_linearity(found).text


def test_sigmas_of_exponent_and_deviations_are_the_scatter():
    rng = np.random.default_rng(13)
    times = 0.001 * 2.0 ** np.arange(6)
    exponents, z = [], []
    for _ in range(400):
        wrong = rng.normal(0, 0.005, 6)
        told = [
            pair(a, b, np.exp(wrong[i + 1] - wrong[i] + rng.normal(0, 0.01)), 0.01)
            for i, (a, b) in enumerate(pairwise(times))
        ]
        found = checks.linearity(told)
        exponents.append((found.exponent - 1) / found.exponent_sigma)
        z += [d / s for d, s in zip(found.deviation, found.sigma, strict=True) if s > 0]
    assert np.std(exponents) == pytest.approx(1, abs=0.3)
    assert np.std(z) < 1.3
    assert np.mean(np.abs(exponents) > 5) == 0


def test_nothing_to_compare_is_a_warning_and_not_a_pass():
    assert checks.linearity([]) is None
    assert checks.judge_linearity(None).verdict == "warning"


@pytest.mark.parametrize(("deviation", "verdict"), [(0.01, "ok"), (0.05, "warning"), (0.2, "fail")])
def test_verdicts_by_size(deviation, verdict):
    found = Linearity(
        exposure_s=(1.0, 2.0), deviation=(deviation, 0.0), sigma=(1e-3, 0.0), chi2=1.0,
        exponent=1 + 0.1 * deviation, exponent_sigma=1e-3, pairs=1,
    )  # fmt: skip
    assert checks.judge_linearity(found).verdict == verdict
    vague = found.replace(sigma=(deviation, 0.0))
    assert checks.judge_linearity(vague).verdict == "ok"


def test_block_means_are_means_of_one_colour_each():
    rng = np.random.default_rng(17)
    image = rng.random((25, 31)).astype(np.float32)
    image[3, 4] = np.nan
    mono = checks.block_means(image, 4)
    want = image[:24, :28].reshape(6, 4, 7, 4).mean(axis=(1, 3), dtype=np.float64).ravel()
    np.testing.assert_allclose(mono.mean, want, rtol=1e-6)
    assert mono.samples == 16
    assert np.isnan(mono.mean).sum() == 1
    mosaic = checks.block_means(image[:24, :30], 4, mosaic=True)
    greens = image[0:24:2, 1:30:2][:12, :12].reshape(3, 4, 3, 4).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(mosaic.mean[9:18], greens, rtol=1e-6)
    rgb = checks.block_means(np.stack([image, 2 * image, 3 * image], axis=-1), 4)
    np.testing.assert_allclose(rgb.mean, np.concatenate([want, 2 * want, 3 * want]), rtol=1e-6)


@pytest.mark.parametrize("shape", [(12, 16), (3000, 4000), (1, 1)])
@pytest.mark.parametrize("mosaic", [False, True])
def test_blocks_fit_their_frame(shape, mosaic):
    size = checks.block_size(shape, mosaic=mosaic)
    assert size >= 1
    count = shape[0] * shape[1] / size**2 / (4 if mosaic else 1)
    assert count < 4 * 2048 + 1


def test_clipped_shares_by_channel_and_alone():
    clipped = np.zeros((10, 10, 3), bool)
    clipped[:2, :, 0] = clipped[0, :, 1] = clipped[0, :, 2] = True
    shares, alone = checks.clipped_shares(clipped)
    assert shares == {"R": 0.2, "G": 0.1, "B": 0.1}
    assert alone == pytest.approx(0.1)
    mosaic = np.zeros((10, 10), bool)
    mosaic[0, 1::2] = True  # the greens of the first row of RGGB cells
    shares, alone = checks.clipped_shares(mosaic, "RGGB")
    assert shares == {"R": 0.0, "G": 0.2, "B": 0.0}
    assert alone == pytest.approx(0.2)
    assert checks.clipped_shares(mosaic) == ({"Y": 0.05}, 0.0)
