"""Consistency of exposure stacks: Monte Carlo of each claim, invariances, kernels, real frames."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import norm

from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel, merge
from calibration.radiometric.consistency import (
    counted_by,
    find_bend,
    find_exposures,
    find_motion,
    find_shifts,
    motion,
    noise_of_stack,
    one_half,
    reference_of,
    residuals_of,
    sample_stack,
    with_noise,
)

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data")) / "raw_stack"
SHAPE = (120, 160)
TOLD = 0.002 * 2.0 ** np.arange(6)


def sensor(shape=SHAPE, *, gain=0.125, read=7.0, black=64.0, bits=12, **changes):
    model = RadiometricModel.nominal(f"Mono{bits}", shape)
    return model.replace(
        black_dn=black, gain_dn_per_e=gain, read_noise_e=read, saturation_dn=2.0**bits - 1, **changes
    )


def scene(shape=SHAPE, brightest=2e6):
    """Three decades of radiance with texture."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    grain = np.random.default_rng(1).uniform(0.7, 1.3, shape)
    return brightest * 1e-3 ** (0.5 + 0.5 * np.sin(x / 17) * np.cos(y / 23)) * grain


def shoot(model, radiance, exposure_s, rng):
    """Frames of a scene, or of one scene a frame."""
    scenes = radiance if isinstance(radiance, list) else [radiance] * len(exposure_s)
    frames = []
    for light, t in zip(scenes, exposure_s, strict=True):
        electrons = rng.poisson(light * t) + model.read_noise_e * rng.standard_normal(light.shape)
        dn = np.rint(electrons * model.gain_dn_per_e + model.black_dn)
        frames.append(np.clip(dn, 0, model.saturation_dn).astype(np.uint16))
    return frames


# --- exposures


def test_jittered_exposures_are_found_to_their_sigma():
    model, rng, runs = sensor(), np.random.default_rng(7), 40
    pulls = []
    for _ in range(runs):
        jitter = rng.normal(0, 0.03, len(TOLD))
        true = TOLD * np.exp(jitter - jitter.mean())
        found = find_exposures(sample_stack(shoot(model, scene(), true, rng), model), TOLD)
        assert found.significant
        assert np.all(found.sigma < 1e-3)
        assert not found.off.any()
        assert np.mean(np.log(found.found_s / TOLD)) == pytest.approx(0, abs=1e-9)
        pulls.append(np.log(found.found_s / true) / found.sigma)
    pulls = np.array(pulls)
    # Five of the six pulls of a run are independent.
    draws = pulls.size * 5 / 6
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * draws))
    assert np.abs(pulls.mean(axis=0)).max() < 4.5 / np.sqrt(runs)


@pytest.mark.parametrize(("factors", "jitter"), [({2: 1.12}, 0.0), ({1: 2.0}, 0.003), ({0: 1.05, 4: 0.5}, 0)])
def test_frames_that_are_off_do_not_hold_the_scale(factors, jitter):
    model, rng, runs = sensor(), np.random.default_rng(27), 15
    wrong = np.array([factors.get(k, 1.0) for k in range(len(TOLD))])
    right = wrong == 1
    pulls, scales, claimed = [], [], []
    for _ in range(runs):
        true = TOLD * wrong * np.exp(rng.normal(0, jitter, len(TOLD)))
        found = find_exposures(sample_stack(shoot(model, scene(), true, rng), model), TOLD)
        assert found.off.tolist() == (~right).tolist()
        # The scale apart, which the jitter of the others moves.
        off = np.log(found.found_s / true)
        scale = -np.mean(np.log(true / TOLD)[right])
        pulls.append((off - scale) / found.sigma)
        scales.append(scale if jitter else off[right].mean())
        claimed.append(found.scale_sigma)
    draws = runs * (len(TOLD) - 1)
    assert np.std(pulls) == pytest.approx(1, abs=4.5 / np.sqrt(2 * draws))
    assert np.all(np.abs(scales) < 5 * np.mean(claimed))
    if jitter:
        assert np.sqrt(np.mean(np.square(claimed))) == pytest.approx(
            jitter / np.sqrt(right.sum()), abs=4 * jitter / np.sqrt(2 * runs * right.sum() * 4)
        )


def test_told_exposures_that_are_right_are_not_called_wrong():
    model, rng = sensor(), np.random.default_rng(8)
    called = sum(
        find_exposures(sample_stack(shoot(model, scene(), TOLD, rng), model), TOLD).significant
        for _ in range(20)
    )
    assert called == 0


def test_a_wrong_black_level_is_seen_as_systematic():
    model, rng = sensor(), np.random.default_rng(9)
    frames = shoot(model, scene(), TOLD, rng)
    off = find_exposures(sample_stack(frames, model.replace(black_dn=60.0)), TOLD)
    right = find_exposures(sample_stack(frames, model), TOLD)
    assert off.systematic.max() > 10 * off.sigma.max()
    assert right.systematic.max() < 5 * right.sigma.max()


def test_a_quarter_of_the_scene_may_move_in_one_frame():
    model, rng = sensor(), np.random.default_rng(10)
    true = TOLD * np.array([1.03, 0.98, 1, 1.01, 0.99, 1])
    scenes = [scene().copy() for _ in true]
    scenes[3][:30] *= 1.6
    found = find_exposures(sample_stack(shoot(model, scenes, true, rng), model), TOLD)
    off = np.log(found.found_s / true)
    # The mean would be off by 10 %. Where it is dim, what moved is within the noise and pulls a little.
    assert np.abs(off - off.mean()).max() < 3e-3


def test_a_frame_that_overlaps_with_no_other_keeps_its_told_time():
    model, rng = sensor(), np.random.default_rng(11)
    times = np.array([0.002, 0.004, 4.0])
    frames = shoot(model, scene() * 0 + 1e6, times, rng)
    found = find_exposures(sample_stack(frames, model), times)
    assert np.isnan(found.sigma[2])
    assert found.found_s[2] == 4.0
    assert np.isfinite(found.sigma[:2]).all()
    assert np.isnan(find_exposures(sample_stack(frames[:1], model), times[:1]).sigma).all()


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)), factor=st.floats(1e-3, 1e3))
def test_order_and_unit_of_time_do_not_matter(order, factor):
    model, rng = sensor((48, 64)), np.random.default_rng(12)
    told = TOLD[:4]
    frames = shoot(model, scene((48, 64)), told * np.array([1, 1.02, 0.99, 1]), rng)
    first = find_exposures(sample_stack(frames, model), told)
    second = find_exposures(sample_stack([frames[i] for i in order], model), told[list(order)] * factor)
    np.testing.assert_allclose(second.deviation, first.deviation[list(order)], atol=2e-6)
    np.testing.assert_allclose(second.sigma, first.sigma[list(order)], rtol=1e-2)


def test_tiles_of_a_large_image_with_maps_are_the_image():
    rng = np.random.default_rng(13)
    shape = (300, 420)
    maps = {
        "dark_map": rng.normal(0, 1, shape).astype(np.float32),
        "flat_map": rng.uniform(0.9, 1.1, shape).astype(np.float32),
        "defects": rng.random(shape) < 0.01,
    }
    model = sensor(shape, **maps)
    frame = rng.integers(60, 4096, shape).astype(np.uint16)
    tiles = sample_stack([frame], model, most=20_000)
    assert 2 <= len(tiles.corners) <= 5
    np.testing.assert_array_equal(tiles.electrons[0], tiles.cut(model.electrons(frame)[0]))
    assert np.isnan(tiles.electrons).any()


def test_margin_takes_the_neighbours_of_saturated_samples():
    model = sensor()
    frame = np.full(SHAPE, 1000, np.uint16)
    frame[50, 60] = 4095
    lost = np.isnan(sample_stack([frame], model, margin=2).electrons[0, 0])
    assert lost.sum() == 25
    assert lost[48:53, 58:63].all()


# --- residuals


def test_reduced_chi2_is_one_where_the_noise_is_right_and_tells_where_it_is_not():
    model, rng = sensor(), np.random.default_rng(14)
    frames = shoot(model, scene(), TOLD, rng)
    result = residuals_of(sample_stack(frames, model), TOLD)
    assert result.total == pytest.approx(1, abs=4 * np.sqrt(2 / (0.6 * result.samples)) + 0.003)
    assert result.robust == pytest.approx(1, abs=0.03)
    assert np.abs(result.by_frame - 1).max() < 0.04
    assert np.abs(result.by_signal[:, 1] - 1).max() < 0.06
    assert result.by_signal[:, 3].sum() == pytest.approx(result.samples, rel=0.02)
    # Half the gain claims half the variance where shot noise rules.
    halved = model.replace(gain_dn_per_e=0.0625, read_noise_e=14.0)
    bright = residuals_of(sample_stack(frames, halved), TOLD).by_signal[-1, 1]
    assert bright == pytest.approx(2, abs=0.1)
    longer = TOLD * np.array([1, 1, 1.02, 1, 1, 1])
    assert residuals_of(sample_stack(frames, model), longer).by_frame[2] > 1.5


def test_chi2_by_colour_names_the_one_that_is_off():
    model, rng = sensor(), np.random.default_rng(15)
    frames = shoot(model, scene(), TOLD, rng)
    frames[2][1::2, 0::2] += 6
    result = residuals_of(sample_stack(frames, model), TOLD, cfa="GBRG")
    assert list(result.by_colour) == ["G1", "B", "R", "G2"]
    assert result.by_colour.pop("R") > 1.5
    assert all(value == pytest.approx(1, abs=0.05) for value in result.by_colour.values())


def test_response_table_of_a_linear_camera_changes_nothing():
    codes = np.arange(4096.0)
    model, rng = sensor(black=0.0), np.random.default_rng(16)
    curved = model.replace(response=((codes + 1e-6) / 0.125)[:, None])
    frames = shoot(model, scene() + 2e5, TOLD, rng)
    plain, table = (sample_stack(frames, m) for m in (model, curved))
    assert residuals_of(table, TOLD).total == pytest.approx(residuals_of(plain, TOLD).total, rel=5e-3)
    np.testing.assert_allclose(
        find_exposures(table, TOLD).found_s, find_exposures(plain, TOLD).found_s, rtol=1e-5
    )


# --- motion


def test_motion_kernels_are_the_numpy_reference():
    model, rng = sensor(), np.random.default_rng(17)
    scenes = [scene().copy() for _ in TOLD]
    for k, light in enumerate(scenes):
        light[30 : 30 + 5 * k, 40:60] *= 1.7
    frames = shoot(model, scenes, TOLD, rng)
    compiled, plain = (find_motion(frames, TOLD, model, margin=1, compiled=c) for c in (True, False))
    assert compiled.reference == plain.reference
    np.testing.assert_allclose(compiled.share, plain.share, atol=2e-4)
    assert compiled.share.max() > 0.005


def test_windows_marked_by_chance_are_as_many_as_computed(monkeypatch):
    """At 3 in place of 5 deviates, where chance can be counted."""
    monkeypatch.setattr(motion, "_DEVIATE", 3.0)
    monkeypatch.setattr(cv2, "dilate", lambda image, kernel: image)
    model, rng = sensor(), np.random.default_rng(18)
    marked, windows = 0.0, 0
    for _ in range(6):
        result = find_motion(shoot(model, scene(), TOLD, rng), TOLD, model, tolerance=0.0)
        marked += result.share.sum()
        windows += len(TOLD) - 1
    # The tolerance of one DN makes it rarer; Wilson and Hilferty are good to some percent at three sigma.
    assert 0.2 * norm.sf(3) < marked / windows < 1.2 * norm.sf(3)


def test_still_scene_loses_nothing():
    model, rng = sensor(), np.random.default_rng(19)
    for _ in range(8):
        result = find_motion(shoot(model, scene(), TOLD, rng), TOLD, model)
        assert all(mask is None for mask in result.masks)


@pytest.mark.parametrize(("contrast", "found"), [(1.25, 0.7), (1.6, 0.9), (3.0, 0.93)])
def test_moved_object_is_marked_and_little_else(contrast, found):
    model, rng = sensor(), np.random.default_rng(20)
    light = scene() + 2e5
    # Saturated nowhere, so that every frame can see it.
    light *= 2.8e4 / TOLD[-1] / light.max() / max(contrast, 1)
    moved = [np.zeros(SHAPE, bool) for _ in TOLD]
    for k, place in enumerate(moved):
        place[20 + 8 * k : 50 + 8 * k, 60:90] = True
    frames = shoot(model, [np.where(m, light * contrast, light) for m in moved], TOLD, rng)
    result = find_motion(frames, TOLD, model)
    assert result.reference == reference_of(sample_stack(frames, model), TOLD)
    for k, (mask, place) in enumerate(zip(result.masks, moved, strict=True)):
        changed = place ^ moved[result.reference]
        if k == result.reference:
            assert mask is None
        else:
            assert mask is not None
            electrons = light * TOLD[k]
            difference = (contrast - 1) * electrons
            noise = electrons * contrast + 7.0**2 + (0.03 * electrons) ** 2 + 2 / 0.125**2
            seen = changed & (difference > 2 * np.sqrt(noise))
            assert mask[seen].mean() > found or not seen.any()
            # A window's width around it goes too.
            assert not mask[~ndimage.binary_dilation(changed, np.ones((9, 9)))].any()
    clean = merge(frames, TOLD, model, reject=result.masks)
    truth = np.where(moved[result.reference], light * contrast, light)
    off = (clean.value - truth) / np.sqrt(clean.variance)
    naive = merge(frames, TOLD, model)
    ghost = (naive.value - truth) / np.sqrt(naive.variance)
    assert np.mean(np.abs(off) > 5) < 0.1 * np.mean(np.abs(ghost) > 5)


def test_motion_of_rgb_counts_all_colours():
    model = RadiometricModel.nominal("RGB12", (*SHAPE, 3)).replace(gain_dn_per_e=0.125, black_dn=64.0)
    rng = np.random.default_rng(21)
    light = np.repeat((scene() + 5e4)[..., None], 3, axis=-1)
    other = light.copy()
    other[40:60, 40:60, 2] *= 1.5
    frames = shoot(model, [other, light, light], TOLD[1:4], rng)
    result = find_motion(frames, TOLD[1:4], model)
    assert result.reference > 0
    assert result.masks[1] is None
    assert result.masks[2] is None
    assert result.masks[0] is not None
    assert result.masks[0].shape == SHAPE
    assert result.masks[0][42:58, 42:58].mean() > 0.9
    assert result.left_out(model.shape).max() == 1


# --- shifts


@pytest.mark.parametrize("shift", [(0.0, 0.1), (0.4, -0.2), (1.5, 0.0)])
def test_shifted_frame_is_noticed(shift):
    model, rng = sensor(), np.random.default_rng(22)
    still = ndimage.gaussian_filter(scene(), 1.0)
    away = ndimage.shift(still, shift[::-1], order=3, mode="nearest")
    frames = shoot(model, [still, still, away, still, still], TOLD[:5], rng)
    result = find_shifts(sample_stack(frames, model), TOLD[:5])
    # Cubic interpolation of the truth is good to some hundredths of a pixel at this grain.
    np.testing.assert_allclose(result.shift_px[2], shift, atol=0.03 + 0.02 * np.hypot(*shift))
    assert result.significant().tolist() == [False, False, np.hypot(*shift) > 0.3, False, False]


def test_sigma_of_a_shift_is_its_scatter():
    model, rng, runs = sensor((64, 64)), np.random.default_rng(23), 60
    pulls = []
    for _ in range(runs):
        frames = shoot(model, scene((64, 64)), TOLD[1:4], rng)
        result = find_shifts(sample_stack(frames, model), TOLD[1:4])
        pulls.append((result.shift_px[2] - result.shift_px[1]) / result.sigma_px[2])
    # Every third pixel of a smoothed image is still a little like its neighbour.
    assert 0.8 < np.std(pulls) < 1.6


# --- noise from the stack


@pytest.mark.parametrize(
    ("gain", "read", "bits", "black"),
    [(0.125, 7, 12, 64), (0.5, 4, 12, 100), (0.02, 10, 8, 5), (2, 2, 16, 200), (0.05, 5, 10, 20)],
)
def test_gain_from_the_stack_and_chi2_on_the_other_half(gain, read, bits, black):
    shape, rng = (240, 320), np.random.default_rng(24)
    true = sensor(shape, gain=gain, read=read, bits=bits, black=black)
    frames = shoot(true, scene(shape, brightest=2.0**bits / gain / 0.008), TOLD[:5], rng)
    nominal = RadiometricModel.nominal(f"Mono{bits}", shape, black_dn=black)
    sample = sample_stack(frames, nominal)
    found = find_exposures(sample, TOLD[:5])
    half = sample._replace(electrons=np.where(one_half(sample, 0), sample.electrons, np.nan))
    noise = noise_of_stack(half, found.found_s, nominal)
    assert noise is not None
    assert abs(noise.gain_dn_per_e - gain) < 4 * noise.gain_sigma
    assert noise.gain_sigma < 0.15 * gain
    model = with_noise(nominal, noise)
    assert model.quality.verdict == "doubtful"
    other = counted_by(sample, nominal, model)
    np.testing.assert_allclose(other.electrons, sample_stack(frames, model).electrons, rtol=2e-5, atol=1)
    chi2 = residuals_of(other, TOLD[:5], one_half(other, 1)).total
    assert chi2 == pytest.approx(1, abs=0.02 + 2 * noise.gain_sigma / gain)


def test_darks_give_the_read_noise_unless_cut_off():
    shape, rng = (240, 320), np.random.default_rng(25)
    true = sensor(shape)
    frames = shoot(true, scene(shape), TOLD[:4], rng)
    darks = shoot(true, np.zeros(shape), [0.01, 0.01], rng)
    sample = sample_stack(frames, true)
    noise = noise_of_stack(sample, TOLD[:4], true, darks=darks, dark_exposure_s=[0.01, 0.01])
    assert noise.from_darks
    variance = (7 * 0.125) ** 2 + 1 / 12
    assert noise.noise_dn2 == pytest.approx(variance, rel=4 * np.sqrt(2 / 76_800) + 0.002)
    clipped = [np.maximum(dark, 64) - 64 for dark in darks]
    cut = noise_of_stack(sample, TOLD[:4], true, darks=clipped, dark_exposure_s=[0.01, 0.01])
    assert not cut.from_darks


def test_no_gain_where_the_stack_cannot_tell():
    rng = np.random.default_rng(26)
    floats = RadiometricModel.nominal("Mono32f", SHAPE)
    images = [rng.random(SHAPE, np.float32) for _ in range(3)]
    assert noise_of_stack(sample_stack(images, floats), TOLD[:3], floats) is None
    model = sensor()
    clean = [np.full(SHAPE, 1000 * 2**k, np.uint16) for k in range(2)]
    assert noise_of_stack(sample_stack(clean, model), TOLD[:2], model) is None


def test_a_frame_of_another_size_is_named():
    frames = [np.zeros(SHAPE, np.uint16), np.zeros((9, 9), np.uint16)]
    for call in (lambda: sample_stack(frames, sensor()), lambda: find_motion(frames, TOLD[:2], sensor())):
        with pytest.raises(FitError, match=r"frame 1 has shape \(9, 9\)"):
            call()


# --- photographs


@pytest.mark.skipif(not DATA.is_dir(), reason="no raw_stack data at GNOMON_DATA")
def test_real_stack_is_consistent_with_noise_from_its_other_half():
    """Flea3, 550 nm: green carries the light. Red and blue sit at a few DN of a black level cut off at 0."""
    told = np.array([25, 50, 100, 250, 500]) / 1e3
    frames = [
        cv2.imread(str(next(DATA.glob(f"d1_disks*_{1e3 * t:.0f}ms_*"))), cv2.IMREAD_UNCHANGED) for t in told
    ]
    nominal = RadiometricModel.nominal("BayerGB8", frames[0].shape)
    sample = sample_stack(frames, nominal, margin=2)
    half = sample._replace(electrons=np.where(one_half(sample, 0), sample.electrons, np.nan))
    noise = noise_of_stack(half, find_exposures(sample, told).found_s, nominal)
    sample = counted_by(sample, nominal, with_noise(nominal, noise))
    found = find_exposures(sample, told)
    assert np.abs(found.deviation).max() < 0.02
    by_colour = residuals_of(sample, found.found_s, one_half(sample, 1), cfa="GBRG").by_colour
    assert 0.9 < by_colour["G1"] < 1.1
    assert 0.9 < by_colour["G2"] < 1.1
    assert by_colour["R"] > 2
    # The told exposures do as well, and two numbers in place of four: the response bends, black is cut off.
    green = sample.electrons.copy()
    green[..., 0::2, 1::2] = green[..., 1::2, 0::2] = np.nan
    bend = find_bend(sample._replace(electrons=green), told, nominal)
    assert 3 < bend.full_scale_percent < 5
    assert -0.5 < bend.black_dn < 0
    assert 0.9 < bend.chi2 < 1.1


# --- linearity


@pytest.mark.parametrize(("bend", "black"), [(0.0, 0.0), (4.0, 0.0), (-1.0, 1.5), (2.0, -0.8)])
def test_bend_and_black_level_are_found_under_told_exposures(bend, black):
    model, rng = sensor((240, 320)), np.random.default_rng(27)
    full = (4095 - 64) / 0.125
    frames = []
    for t in TOLD:
        x = scene((240, 320)) * t
        electrons = rng.poisson(np.clip(x - 0.01 * bend * x * x / full, 0, None)) + 7 * rng.standard_normal(
            x.shape
        )
        frames.append(np.clip(np.rint(electrons * 0.125 + 64 + black), 0, 4095).astype(np.uint16))
    sample = sample_stack(frames, model)
    found = find_bend(sample, TOLD, model)
    assert abs(found.full_scale_percent - bend) < 4 * found.sigma_percent
    assert abs(found.black_dn - black) < 4 * found.black_sigma_dn
    assert found.sigma_percent < 0.1
    assert found.black_sigma_dn < 0.02
    assert found.chi2 == pytest.approx(1, abs=0.02)
    if bend or black:
        assert residuals_of(sample, TOLD).total > 1.02


def test_no_bend_where_nothing_overlaps():
    model = sensor()
    frames = [np.full(SHAPE, 1000, np.uint16), np.full(SHAPE, 4095, np.uint16)]
    assert find_bend(sample_stack(frames, model), TOLD[:2], model) is None
