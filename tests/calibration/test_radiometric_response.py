"""fit_response and fit_debevec on known curves and noise, on Debevec's own photographs, and on bad input."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.provenance import FitError
from calibration.radiometric import fit_debevec, fit_response, merge
from calibration.radiometric.response import exposures as stacks
from calibration.radiometric.response.fit import _departures
from calibration.radiometric.response.kernels import (
    count_pairs,
    differences,
    extents,
    gram,
    quantiles,
    residuals,
)
from calibration.radiometric.response.reference import differences_reference, residuals_reference

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
EXPOSURE = 2.0 ** np.arange(9)
FULL_E = 10_000.0


def film(x):
    """Toe, straight part and shoulder, of no closed inverse."""
    return (1 - np.exp(-2.5 * x**0.7)) / (1 - np.exp(-2.5))


def power(x):
    return x ** (1 / 2.2)


def scene(shape, decades, seed):
    """Smooth picture whose radiances fill the decades evenly."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape[:2]), (0, 0), 3)
    rank = noise.ravel().argsort().argsort().reshape(noise.shape) / (noise.size - 1)
    value = 10 ** (decades * (rank - 0.5))
    return value if len(shape) == 2 else np.stack([value, value**0.95, value[::-1]], axis=-1)


def stack(
    curve=power, bits=8, shape=(200, 260), read_e=5.0, jitter=0.0, seed=4, decades=4.0, exposure=EXPOSURE,
    black=0.0,
):  # fmt: skip
    """Pictures through a curve, with shot and read noise before it, and the radiance in e-/s behind them."""
    rng = np.random.default_rng(seed)
    real = exposure * (1 + jitter * rng.standard_normal(len(exposure)))
    radiance = 0.15 * FULL_E / np.sqrt(exposure[0] * exposure[-1]) * scene(shape, decades, seed + 1)
    top = 2**bits - 1
    frames = []
    for t in real:
        electrons = rng.poisson(np.minimum(radiance * t, 5 * FULL_E)) + read_e * rng.standard_normal(shape)
        x = np.minimum(electrons / FULL_E, 1)
        dn = black + (top - black) * np.sign(x) * curve(np.abs(x))
        frames.append(np.clip(np.rint(dn), 0, top).astype(np.uint8 if bits == 8 else np.uint16))
    return radiance, frames


def inverse(curve, bits=8):
    x = np.linspace(0, 1, 200_001)
    return np.interp(np.arange(2**bits) / (2**bits - 1), curve(x), x)


def error(table, truth):
    """RMSE in percent of full scale over the codes that do not clip, at the best common scale."""
    inner = slice(1, len(table) - 1)
    scale = (table[inner] @ truth[inner]) / (table[inner] @ table[inner])
    return 100 * np.sqrt(np.mean((scale * table[inner] - truth[inner]) ** 2))


@pytest.mark.parametrize("curve", [power, film])
def test_known_curve_comes_back(curve):
    _, frames = stack(curve)
    model = fit_response(frames, EXPOSURE, exposure_sigma=1e-4)
    table = model.response[:, 0]
    # 52 000 pixels in 9 frames of at most 1 % noise: some hundredths of a percent.
    assert error(table, inverse(curve)) < 0.15
    assert error(table, inverse(curve)) < error(fit_debevec(frames, EXPOSURE).response[:, 0], inverse(curve))
    # Electrons by their scatter: 5 % is some sigma.
    assert table[255] == pytest.approx(FULL_E, rel=0.05)
    assert model.read_noise_e == pytest.approx(5, abs=2)
    assert model.curve_noise_dn < 0.3
    assert model.quality.verdict == "good"


def test_jittered_exposures_are_found():
    rng = np.random.default_rng(9)
    real = EXPOSURE * (1 + 0.03 * rng.standard_normal(9))
    _, frames = stack(film, jitter=0.0, exposure=real)
    model = fit_response(frames, EXPOSURE)
    nominal, fitted, sigma = model.exposures.T
    assert np.array_equal(nominal, EXPOSURE)
    off = np.log(fitted / real)
    off -= off.mean()
    assert np.sqrt(np.mean((off / sigma) ** 2)) < 2
    # Scale and power are the report's; what is left of the jitter is found to a part of a thousand.
    plane = np.stack([np.ones(9), np.log(EXPOSURE)], axis=1)
    rest = off - plane @ np.linalg.lstsq(plane, off, rcond=None)[0]
    assert np.abs(rest).max() < 0.003
    # The power is off by the slope of the jitter, 0.03 / |log t| = 0.6 %, which bends the curve by 0.15 %.
    assert error(model.response[:, 0], inverse(film)) < 3 * 0.15
    # Exposures that are wrong pass for noise, or hide it, where they are taken for exact.
    assert model.response[255, 0] == pytest.approx(FULL_E, rel=0.06)


def test_colour_and_deep_samples():
    shape = (160, 200, 3)
    _, frames = stack(film, bits=12, shape=shape)
    model = fit_response(frames, EXPOSURE, pixel_format="RGB12")
    assert model.response.shape == model.response_sigma.shape == (4096, 3)
    assert np.all(np.diff(model.response, axis=0) > 0)
    for channel in range(3):
        assert error(model.response[:, channel], inverse(film, 12)) < 0.3
    assert model.response[4095] == pytest.approx(np.full(3, FULL_E), rel=0.06)
    coarse = fit_debevec(frames, EXPOSURE, pixel_format="RGB12")
    assert error(coarse.response[:, 1], inverse(film, 12)) < 2


def test_sixteen_bits():
    _, frames = stack(power, bits=16)
    model = fit_response(frames, EXPOSURE)
    assert model.pixel_format == "Mono16"
    assert error(model.response[:, 0], inverse(power, 16)) < 0.2


@pytest.mark.parametrize(
    ("bits", "black", "read_e", "shape"),
    [(8, 0, 5, (200, 260)), (8, 10, 20, (200, 260)), (12, 100, 5, (120, 160, 3)), (16, 400, 5, (200, 260))],
)
def test_linear_camera_is_recognised_and_its_sigmas_hold(bits, black, read_e, shape):
    top, seen = 2**bits - 1, []
    gain = (top - black) / FULL_E
    for seed in (4, 5, 6):
        _, frames = stack(
            lambda x: x, bits=bits, black=black, read_e=read_e, jitter=0.02, shape=shape, seed=seed
        )
        name = "RGB" if len(shape) == 3 else "Mono"
        model = fit_response(frames, EXPOSURE, pixel_format=f"{name}{bits}")
        assert model.response is None
        assert "linear" in model.quality.warnings[-1]
        assert model.saturation_dn == top
        assert model.linearity_error_percent < 0.3
        # Half an electron of black, or what rounding leaves of it.
        assert model.black_sigma_dn < max(0.5 * gain, 0.02)
        assert model.gain_sigma_dn_per_e < 0.015 * gain
        assert model.read_noise_sigma_e < 0.1 * read_e
        seen.append(
            [
                (model.black_dn - black) / model.black_sigma_dn,
                (model.gain_dn_per_e - gain) / model.gain_sigma_dn_per_e,
                (model.read_noise_e - read_e) / model.read_noise_sigma_e,
            ]
        )
    # Three draws of three numbers each, all within some sigma.
    assert np.abs(seen).max() < 3.5
    assert np.sqrt(np.mean(np.square(seen), axis=0)).max() < 2


def test_bent_camera_is_not_called_linear():
    _, frames = stack(lambda x: x + 0.08 * np.sin(np.pi * x))
    assert fit_response(frames, EXPOSURE).response is not None


def test_sigma_is_the_scatter():
    """Curves of stacks that differ in noise and jitter scatter as they claim, at their common scale."""
    tables, sigmas = [], []
    for seed in range(16):
        _, frames = stack(film, shape=(100, 130), jitter=0.02, seed=100 + seed)
        model = fit_response(frames, EXPOSURE, exposure_sigma=0.02)
        tables.append(model.response[:, 0])
        sigmas.append(model.response_sigma[:, 0])
    truth = inverse(film)
    codes = np.arange(40, 250)
    scaled = np.array([t * (t[codes] @ truth[codes]) / (t[codes] @ t[codes]) for t in tables])
    z = (scaled[:, codes] / truth[codes] - 1) / np.array(sigmas)[:, codes]
    # The errors of one stack hang together, mostly by one number, the power: 16 draws are sure to 18 %.
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.45


def test_what_the_scene_does_not_show_is_said():
    _, frames = stack(power, decades=0.4, exposure=2.0 ** np.arange(-1, 2))
    model = fit_response(frames, 2.0 ** np.arange(-1, 2))
    assert np.isinf(model.response_sigma[:, 0]).mean() > 0.1
    assert any("does not constrain DN" in warning for warning in model.quality.warnings)
    assert model.quality.verdict == "doubtful"


def test_moving_object_is_left_out():
    _, frames = stack(power)
    still = fit_response(frames, EXPOSURE)
    moved = [frame.copy() for frame in frames]
    for index, frame in enumerate(moved):
        frame[40:100, 20 * index : 20 * index + 40] = 20 * index + 15
    model = fit_response(moved, EXPOSURE)
    assert error(model.response[:, 0], inverse(power)) < error(still.response[:, 0], inverse(power)) + 0.15
    assert model.quality.rejected > 1000


def test_merged_sigma_is_honest():
    """Radiance merged with the fitted model scatters about the truth as its variance says."""
    radiance, frames = stack(film)
    model = fit_response(frames, EXPOSURE, exposure_sigma=1e-4)
    merged = merge(frames, EXPOSURE, model)
    sigma = np.sqrt(merged.variance)
    mid = (radiance * EXPOSURE[4] > 0.05 * FULL_E) & (radiance * EXPOSURE[4] < 0.5 * FULL_E)
    ratio = merged.value[mid] / radiance[mid]
    z = (merged.value[mid] / np.median(ratio) - radiance[mid]) / sigma[mid]
    # The electrons are known to some percent, their root to half of it.
    assert np.std(z) == pytest.approx(1, abs=0.08)


def test_dark_pixels_are_right_on_average_though_black_clips():
    """Clipped samples count with what was cut off: the dark is not merged too bright."""
    radiance, frames = stack(film, read_e=20.0)
    model = fit_response(frames, EXPOSURE, exposure_sigma=1e-4)
    merged = merge(frames, EXPOSURE, model)
    longest = radiance * EXPOSURE[-1]
    scale = np.median((merged.value / radiance)[longest > 1e4])
    dark = longest < 10**2.5
    off = EXPOSURE[-1] * (merged.value[dark] / scale - radiance[dark])
    # The pixels' noise leaves 0.7 e-, the range of light that is guessed a few; a DN 0 of no light leaves 14.
    assert abs(np.mean(off)) < 4
    assert model.response[0, 0] < 0


def test_opencv_agrees_on_an_easy_case():
    _, frames = stack(power)
    theirs = cv2.createCalibrateDebevec(300, 10, False).process(frames, EXPOSURE.astype(np.float32))
    inner = np.arange(30, 240)
    for model in (fit_response(frames, EXPOSURE), fit_debevec(frames, EXPOSURE)):
        ratio = np.log(model.response[inner, 0] / theirs.reshape(256)[inner])
        assert np.std(ratio) < 0.03


@settings(max_examples=4, deadline=None)
@given(order=st.permutations(range(6)), factor=st.floats(1e-3, 1e3))
def test_order_and_unit_of_the_exposures_do_not_matter(order, factor):
    exposure = 2.0 ** np.arange(6)
    _, frames = stack(film, shape=(80, 100), exposure=exposure)
    first = fit_response(frames, exposure)
    second = fit_response([frames[i] for i in order], factor * exposure[list(order)])
    assert second.response == pytest.approx(first.response, rel=1e-4)
    assert second.exposures[:, 1] == pytest.approx(factor * first.exposures[list(order), 1], rel=1e-4)


def test_same_input_same_model():
    _, frames = stack(shape=(60, 80))
    assert fit_response(frames, EXPOSURE) == fit_response(frames, EXPOSURE)


def test_kernels_against_numpy():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 1001, 3), dtype=np.uint8)
    assert np.array_equal(count_pairs(a, b, 256, 3), stacks.count_reference(a, b, 256))
    for count in (50, 3):
        rows, weight = rng.standard_normal((count, 7)), rng.random(count)
        assert gram(rows, weight) == pytest.approx(rows.T @ (weight[:, None] * rows))
    ratio, short, long = 1 + rng.random(30), rng.uniform(0, 49, 30), np.append(rng.uniform(0, 49, 29), 49.0)
    rows = rng.standard_normal((50, 7))
    assert differences(rows, ratio, short, long) == pytest.approx(
        differences_reference(rows, ratio, short, long)
    )
    table = np.zeros((20, 20), np.int64)
    table[3, 5:16] = 10
    table[4, 19] = 1
    assert extents(table[None])[0, 2:6].tolist() == [[0, 0], [5, 16], [19, 20], [0, 0]]
    total, low, middle, high = quantiles(table)
    assert (total[3], low[3], middle[3], high[3]) == (110, 6, 10, 14)


def test_sums_along_equal_signal_have_no_bias_and_are_those_of_numpy():
    """At the truth they vanish on a scene whose histogram is steep, where binning by one frame would not."""
    rng = np.random.default_rng(3)
    radiance = 0.05 * rng.pareto(4, 400_000) + 0.02
    full = 300.0
    frames = []
    for t in (1.0, 2.0):
        x = np.minimum(rng.poisson(radiance * t * full) / full, 1)
        frames.append(np.rint(255 * x).astype(np.uint8)[:, None])
    counts = count_pairs(*frames, 256, 2)[0]
    exposure, step, width = np.arange(256) / 255, np.full(256, 1 / 255), np.ones(256)
    noise, limits = np.array([1 / full, 0.0, 0.0]), (0, 255, 2.5)
    told = (counts[None], extents(counts[None]), exposure, step, width, np.array([2.0]), noise)
    sums = residuals(*told, *limits)[0]
    plain = residuals_reference(counts, exposure, step, width, 2.0, noise, *limits)
    assert sums.sum(axis=0) == pytest.approx(plain.sum(axis=0), rel=1e-9)
    assert np.abs(sums - plain).max() < 1e-6 * np.abs(plain).max()
    # Without a dark end that clips, the darkest samples count too.
    whole = residuals(*told, -1, *limits[1:])[0]
    plain = residuals_reference(counts, exposure, step, width, 2.0, noise, -1, *limits[1:])
    assert whole.sum(axis=0) == pytest.approx(plain.sum(axis=0), rel=1e-9)
    assert whole[:, 3].sum() > sums[:, 3].sum()
    lit = slice(30, 200)
    information, _, gradient = sums[lit, :3].sum(axis=0)
    shift = gradient / information
    # Binned by the shorter frame alone, a code's partners are darker by several percent here.
    assert abs(shift) < 5 / np.sqrt(information) + 0.3 / full


def test_pairs_are_about_one_ev_apart_and_leave_nobody_out():
    assert stacks.partners(2.0 ** np.arange(4)) == ((0, 1), (1, 2), (2, 3))
    thirds = stacks.partners(2.0 ** (np.arange(9) / 3))
    assert (0, 3) in thirds
    assert {i for pair in thirds for i in pair} == set(range(9))
    assert stacks.partners(8.0 ** np.arange(3)) == ((0, 1), (1, 2))


def test_memorial_church():
    root = DATA / "memorial"
    if not root.exists():
        pytest.skip(f"no reference data at {root}")
    rows = [r.split() for r in (root / "image_list.txt").read_text().splitlines() if r.startswith("memorial")]
    frames = [cv2.imread(str(root / row[0]), cv2.IMREAD_COLOR) for row in rows]
    exposure = np.array([float(row[1]) for row in rows])
    theirs = cv2.imread(str(root / "memorial.hdr"), cv2.IMREAD_UNCHANGED)
    for model in (fit_response(frames, exposure), fit_debevec(frames, exposure)):
        ours = merge(frames, exposure, model)
        assert np.all(np.isfinite(ours.value))
        assert np.all(np.isfinite(ours.variance))
        for channel in range(3):
            a, b = ours.value[..., channel], theirs[..., channel]
            lit = (a > 0) & (b > 0)
            assert lit.mean() > 0.999
            difference = np.log(a[lit]) - np.log(b[lit])
            difference -= np.median(difference)
            assert np.corrcoef(np.log(a[lit]), np.log(b[lit]))[0, 1] > 0.98
            # OpenCV's own response and merge have 0.16 to 0.20.
            assert 1.4826 * np.median(np.abs(difference)) < 0.1


def _frames():
    return [np.full((8, 8, 3), v, np.uint8) for v in (40, 80, 160)]


@pytest.mark.parametrize("fit", [fit_response, fit_debevec])
@pytest.mark.parametrize(
    ("frames", "exposure", "says"),
    [
        (_frames()[:2], [1, 2], "2 frames"),
        (_frames(), [1, 2], "3 frames but exposures"),
        (_frames(), [1, 2, 0], r"frame 2 has exposure 0\.0 s"),
        (_frames(), [1, np.nan, 2], r"frame 1 has exposure nan s"),
        (_frames(), [1, 1, 1], "frames 0 to 2 are all alike"),
        (_frames(), [2, 1, 2], "frames 0 and 2 are both exposed 2 s"),
        ([*_frames()[:2], np.zeros((8, 8, 3), np.uint16)], [1, 2, 4], "frame 2 has dtype uint16"),
        ([*_frames()[:2], np.zeros((8, 8, 3), np.float32)], [1, 2, 4], "frame 2 has floating"),
        ([*_frames()[:2], np.full((8, 8, 3), np.nan)], [1, 2, 4], "frame 2 has NaN"),
        ([*_frames()[:2], np.zeros((8, 9, 3), np.uint8)], [1, 2, 4], r"frame 2 has shape \(8, 9, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8)] * 3, [1, 2, 4], "black or saturated.*frames 0, 1, 2"),
        ([np.full((8, 8, 3), 255, np.uint8)] * 3, [1, 2, 4], "black or saturated.*frames 0, 1, 2"),
    ],
)
def test_bad_input_is_one_clear_line(fit, frames, exposure, says):
    with pytest.raises(FitError, match=says) as caught:
        fit(frames, exposure)
    assert "\n" not in str(caught.value)


def test_wrong_exposure_is_named():
    _, frames = stack(power)
    told = EXPOSURE.copy()
    told[3] *= 4
    with pytest.raises(FitError, match="frame 3 fits an exposure of"):
        fit_response(frames, told)


@pytest.mark.parametrize("curve", [np.abs, power])
@pytest.mark.parametrize(("frame", "factor"), [(0, 2.0), (1, 2.0), (1, 1.3), (4, 0.5)])
def test_one_wrong_exposure_of_five_is_named(curve, frame, factor):
    """The fit takes the power that meets the reports best; a wrong one must not put the blame on another."""
    real = 4.0 ** np.arange(5)
    _, frames = stack(curve, bits=12, shape=(120, 160), exposure=real, black=64.0)
    told = real.copy()
    told[frame] /= factor
    with pytest.raises(FitError, match=f"frame {frame} fits an exposure of"):
        fit_response(frames, told, pixel_format="Mono12")
    warnings = fit_response(frames, real, pixel_format="Mono12").quality.warnings
    assert not any("fits an exposure" in warning for warning in warnings)


def test_black_clipped_above_zero_leaves_an_increasing_curve():
    _, frames = stack(power, bits=12, shape=(120, 160), exposure=4.0 ** np.arange(5), black=64.0)
    frames = [np.maximum(frame, 64) for frame in frames]
    model = fit_response(frames, 4.0 ** np.arange(5), pixel_format="Mono12")
    assert np.all(np.diff(model.response[:, 0]) > 0)


def test_doubtful_where_an_exposure_is_off_but_not_surely_wrong():
    _, frames = stack(power, exposure=np.array([1.0, 2.0, 4.0, 8.0]))
    model = fit_response(frames, np.array([1.0, 2.0, 3.0, 8.0]))
    assert any("frame 2 fits an exposure of" in warning for warning in model.quality.warnings)
    assert model.quality.verdict == "doubtful"


def test_scattered_exposures_are_not_taken_for_a_wrong_one():
    """Independent errors of 5 % are as large as they come: of 400 stacks of five some two at most."""
    rng = np.random.default_rng(5)
    reported = np.log(2.0) * np.arange(5)
    named = [_departures(0.05 * rng.standard_normal(5), reported)[1] for _ in range(400)]
    assert named.count(None) >= 396


def test_blind_frame_is_named():
    _, frames = stack(power)
    model = fit_response([*frames, np.full_like(frames[0], 255)], [*EXPOSURE, 4096.0])
    assert any("frame 9 (4096 s) is saturated" in warning for warning in model.quality.warnings)
