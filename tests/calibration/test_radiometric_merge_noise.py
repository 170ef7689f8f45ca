"""Bias, variance and claimed variance of the merge by Monte Carlo: Poisson light, read noise, quantisation.

The bound on the variance is that of any estimate that is linear in the samples and unbiased: the inverse of
the sum of t^2 / (r t + floor). Where the read noise is below some 3 e- the full Cramer-Rao bound, of single
electrons seen through the noise, is lower in the dark; above that the two agree, which is tested too.
"""

from math import lgamma

import numpy as np
import pytest

from calibration.radiometric import RadiometricModel, merge

ROWS = 64  # of 1024 pixels, for each signal
CASES = {
    "ccd": (0.125, 7.0, 4095, (1, 4, 16)),
    "stops": (1.0, 2.0, 4095, tuple(2.0 ** np.arange(6))),
    "high gain": (5.0, 1.0, 4095, (1, 4, 16, 64)),
    "large well": (0.05, 15.0, 4095, (1, 8, 64)),
    "16 bit, repeats": (0.9, 3.0, 65535, (2, 2, 2, 9, 30, 30)),
    "8 bit": (0.0255, 40.0, 255, (1, 3, 9)),
}
# e- in the longest exposure, then shares of its saturation, then sigmas of a sample above saturation
DARK = (0.1, 1.0, 10.0, 100.0)
FILLED = (0.2, 0.5, 0.8, 2.0, 2.7)
BRINK = (-6.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 6.0)


def camera(gain, read, top, rows):
    black = np.ceil(max(0.03 * top, 6 * gain * read))
    return RadiometricModel(
        width=1024,
        height=rows,
        pixel_format="Mono8" if top < 256 else "Mono12" if top < 4096 else "Mono16",
        black_dn=black,
        gain_dn_per_e=gain,
        read_noise_e=read,
        saturation_dn=float(top),
    )


def shoot(model, rate, exposure, rng):
    frames = []
    for t in exposure:
        electrons = rng.poisson(np.broadcast_to(rate * t, model.shape)).astype(np.float32)
        electrons += np.float32(model.read_noise_e) * rng.standard_normal(model.shape, np.float32)
        dn = np.rint(model.black_dn + model.gain_dn_per_e * electrons)
        frames.append(
            np.clip(dn, 0, model.saturation_dn).astype(np.uint8 if model.saturation_dn < 256 else np.uint16)
        )
    return frames


@pytest.mark.parametrize("name", CASES)
def test_bias_variance_and_sigma_from_the_dark_to_saturation(name):
    gain, read, top, exposure = CASES[name]
    exposure = np.array(exposure, float)
    model = camera(gain, read, top, ROWS * len((*DARK, *FILLED, *BRINK)))
    full = (top - model.black_dn) / gain
    floor = model.noise_dn2 / gain**2
    brink = [full + away * np.sqrt(full + floor) for away in BRINK]
    rates = np.array([*DARK, *(share * full for share in FILLED), *brink]) / exposure[-1]
    image = np.repeat(rates, ROWS)[:, None]
    result = merge(shoot(model, image, exposure, np.random.default_rng(4)), exposure, model)
    value = result.value.astype(np.float64).reshape(len(rates), -1)
    claimed = result.variance.astype(np.float64).reshape(len(rates), -1)
    draws = value.shape[1]

    noise = rates[:, None] * exposure + floor
    below = (full - rates[:, None] * exposure) / np.sqrt(noise)  # saturation, in sigmas of each sample
    assert np.all(below[:, 0] > 5), "the shortest frame must hold every signal"
    clear = np.all(np.abs(below) > 4, axis=1)
    assert clear.sum() >= 8
    assert (~clear).sum() >= 3

    scatter = value.var(axis=1, ddof=1)
    off = np.abs(value.mean(axis=1) - rates)
    # Rounding to whole DN is unbiased but for exp(-2 pi^2 sigma^2) / pi of a DN (first term of its series).
    rounding = np.exp(-2 * np.pi**2 * (gain * read) ** 2) / np.pi / gain / exposure[-1]
    np.testing.assert_array_less(off, 1e-3 * rates + 4 * np.sqrt(scatter / draws) + rounding)

    bound = 1 / np.where(below > 0, exposure**2 / noise, 0).sum(axis=1)
    spread = 4 * np.sqrt(2 / draws)
    np.testing.assert_array_less(scatter[clear] / bound[clear], 1.05 + spread)
    np.testing.assert_array_less(1 - spread, scatter[clear] / bound[clear])

    sigma = np.sqrt(claimed.mean(axis=1) / scatter)
    np.testing.assert_array_less(np.abs(sigma - 1), 0.05 + spread / 2)


def test_a_sharp_cut_at_saturation_would_be_biased():
    """What the ramp and its correction are for: without them the mean is low by a large part of a sigma."""
    gain, read, top, exposure = CASES["ccd"]
    model = camera(gain, read, top, 256)
    full = (top - model.black_dn) / gain
    rate = full / exposure[-1]
    frames = shoot(model, rate, exposure, np.random.default_rng(1))
    time = sum(np.where(frame < top, t, 0) for frame, t in zip(frames, exposure, strict=True))
    cut = (
        sum(np.where(frame < top, frame - model.black_dn, 0.0) for frame in frames) / gain / time
    )  # shot noise alone: every electron counts the same
    error = np.std(cut) / np.sqrt(cut.size)
    assert np.mean(cut) < rate * (1 - 1e-3) - 4 * error
    ours = merge(frames, exposure, model).value.astype(np.float64)
    assert abs(ours.mean() - rate) < 2e-4 * rate + 4 * ours.std() / np.sqrt(ours.size)


def fisher_information(mean, read):
    """Of one sample about the mean number of electrons: Poisson seen through Gaussian noise, in full."""
    x = np.linspace(mean - 8 * np.sqrt(mean + read**2) - 4, mean + 9 * np.sqrt(mean + read**2) + 9, 6000)
    count = np.arange(int(mean + 12 * np.sqrt(mean + 4)) + 12)
    chance = np.exp(count * np.log(mean) - mean - np.array([lgamma(k + 1) for k in count]))
    slope = chance * (count / mean - 1)
    kernel = np.exp(-0.5 * ((x[:, None] - count) / read) ** 2) / (read * np.sqrt(2 * np.pi))
    density, change = kernel @ chance, kernel @ slope
    seen = density > 1e-280
    return np.sum(change[seen] ** 2 / density[seen]) * (x[1] - x[0])


@pytest.mark.parametrize("signal", [0.1, 3.0, 30.0, 300.0])
def test_variance_is_near_the_full_cramer_rao_bound(signal):
    gain, read, top, exposure = CASES["ccd"]
    exposure = np.array(exposure, float)
    model = camera(gain, read, top, 256)
    rate = signal / exposure[-1]
    value = merge(shoot(model, rate, exposure, np.random.default_rng(7)), exposure, model).value
    # quantisation widens the read noise
    read = np.sqrt(model.noise_dn2) / gain
    bound = 1 / sum(t**2 * fisher_information(rate * t, read) for t in exposure)
    ratio = value.var(dtype=np.float64) / bound
    assert 1 - 4 * np.sqrt(2 / value.size) < ratio < 1.05 + 4 * np.sqrt(2 / value.size)


def test_equal_exposures_are_averaged():
    model = camera(0.5, 3.0, 4095, 256)
    frames = shoot(model, 900.0, np.ones(7), np.random.default_rng(2))
    result = merge(frames, np.ones(7), model)
    mean = (np.mean(frames, axis=0) - model.black_dn) / 0.5
    np.testing.assert_allclose(result.value, mean, rtol=2e-6)
    expected = (900 + 9 + 1 / 12 / 0.25) / 7
    assert np.mean(result.variance) == pytest.approx(expected, rel=1e-3)


def test_black_frames_give_nothing_with_its_sigma():
    model = camera(0.5, 3.0, 4095, 64)
    frames = shoot(model, 0.0, (1.0, 4.0), np.random.default_rng(3))
    result = merge(frames, [1.0, 4.0], model)
    draws, scatter = result.value.size, result.value.var(dtype=np.float64)
    assert abs(result.value.mean(dtype=np.float64)) < 4 * np.sqrt(scatter / draws)
    assert np.mean(result.variance) == pytest.approx(scatter, rel=4 * np.sqrt(2 / draws) + 0.02)
