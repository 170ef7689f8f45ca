"""The data sheet of fit_sensor, the noise below the quantisation, and the compiled loops, on known truth."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import norm

from calibration.provenance import FitError
from calibration.radiometric import fit_sensor
from calibration.radiometric.sensor import kernels, nonuniformity
from calibration.radiometric.sensor.datasheet import Transfer, saturation_point
from calibration.radiometric.sensor.pages import Rates
from calibration.radiometric.sensor.quantised import counted_moments, rounded_moments

EFFICIENCY = 0.6


class Chip:
    """EMVA 1288's chain with known truth; photons come Poisson, patterns of rows, columns and pixels."""

    def __init__(
        self, seed, gain, bits, *, black=None, read=7.0, dsnu=3.0, prnu=0.01, rows=0.0, columns=0.0,
        dark=50.0, shape=(240, 320), falloff=0.2,
    ):  # fmt: skip
        self.rng = rng = np.random.default_rng(seed)
        h, w = shape
        y, x = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)
        self.top, self.gain, self.bits, self.read, self.dark = 2**bits - 1, gain, bits, read, dark
        least = 8 if bits == 8 else 64
        self.black = max(least, int(np.ceil(5 * gain * np.hypot(read, dsnu)))) if black is None else black
        self.pattern = 1 + prnu * rng.standard_normal(shape)
        self.response = (1 - falloff * (x * x + y * y) / 2) * self.pattern
        self.offset = (
            dsnu * rng.standard_normal(shape)
            + rows * rng.standard_normal((h, 1))
            + columns * rng.standard_normal((1, w))
        )
        # No sensor holds more than this, however deep its numbers.
        self.capacity = min((self.top - self.black) / gain, 100_000.0)
        self.full_well = self.capacity if self.capacity == 100_000.0 else np.inf

    def frame(self, photons, exposure_s):
        mean = EFFICIENCY * photons * self.response + self.dark * exposure_s
        electrons = np.minimum(self.rng.poisson(mean), self.full_well) + self.offset
        electrons = electrons + self.read * self.rng.standard_normal(self.offset.shape)
        dn = np.clip(np.rint(self.gain * electrons + self.black), 0, self.top)
        return dn.astype(np.uint8 if self.bits == 8 else np.uint16)

    def fit(self, *, levels=16, spatial=24, dark_s=(0.001, 0.02), vary="exposure", **options):
        share = np.repeat(np.linspace(0.03, 1.25, levels), 2)
        share = np.concatenate([share, np.full(spatial, 0.5077)])
        photons = share * self.capacity / EFFICIENCY
        exposure = 0.02 * share if vary == "exposure" else np.full(len(share), 0.02)
        flats = [self.frame(p, t) for p, t in zip(photons, exposure, strict=True)]
        dark_s = np.repeat(dark_s, max(spatial // 2, 4))
        darks = [self.frame(0.0, t) for t in dark_s]
        if options.pop("tell", True):
            options["photons"] = photons
        return fit_sensor(flats, exposure, darks, dark_s, pixel_format=f"Mono{self.bits}", **options)


GRID = [(gain, bits) for gain in (0.02, 0.1, 0.5, 2.0, 5.0) for bits in (8, 10, 12, 16)]


@pytest.mark.parametrize(("gain", "bits"), GRID)
def test_gain_noise_and_nonuniformity_over_the_grid(gain, bits):
    # A gain that makes 8 bits of a few dozen electrons goes with little noise.
    chip = Chip(3, gain, bits) if gain < 2 else Chip(3, gain, bits, read=2.0, dsnu=1.0)
    model = chip.fit()
    sheet, good = model.sheet, ~model.defects
    truth = {
        "K": (model.gain_dn_per_e, model.gain_sigma_dn_per_e, gain, 0.01),
        "read": (model.read_noise_e, model.read_noise_sigma_e, chip.read, 0.02),
        "DSNU": (sheet.dsnu_e.total, sheet.dsnu_e.sigma, chip.offset[good].std(), 0.05),
        "PRNU": (sheet.prnu_percent.total, sheet.prnu_percent.sigma, 100 * chip.pattern[good].std(), 0.05),
    }
    for name, (value, sigma, true, bound) in truth.items():
        assert np.isfinite(value), name
        assert abs(value - true) <= 4.5 * sigma, name
        # The project's bound, where frames of this size hold the number that well.
        assert abs(value / true - 1) <= max(bound, 4.5 * sigma / true), name
        if name == "K":
            assert sigma / true < bound
    assert model.defects.sum() <= 3


def test_claimed_sigmas_are_the_scatter():
    """Of dark noise, DSNU and PRNU, above the quantisation and below."""
    for gain, bits, read in ((0.5, 12, 7.0), (0.05, 8, 7.0)):
        scores = []
        for seed in range(24):
            chip = Chip(seed, gain, bits, shape=(80, 96), read=read)
            model = chip.fit(levels=8, spatial=8)
            sheet, good = model.sheet, ~model.defects
            prnu = 100 * chip.pattern[good].std()
            scores.append(
                (
                    (model.gain_dn_per_e - gain) / model.gain_sigma_dn_per_e,
                    (sheet.dark_noise_e - read) / sheet.dark_noise_sigma_e,
                    (sheet.dsnu_e.total - 3.0) / sheet.dsnu_e.sigma,
                    (sheet.prnu_percent.total - prnu) / sheet.prnu_percent.sigma,
                    (sheet.quantum_efficiency_percent / 100 / EFFICIENCY / chip.response.mean() - 1)
                    / (sheet.quantum_efficiency_sigma_percent / sheet.quantum_efficiency_percent),
                )
            )
        spread = np.sqrt(np.mean(np.square(scores), axis=0))
        # 24 draws know a standard deviation to 14 %; the pattern's own sample is known here and so PRNU's
        # scatter is the smaller, and excess scatter may only widen what a line gives.
        assert np.all(spread < 1 + 4 * 0.14), (gain, spread)
        assert np.all(spread[:3] > 0.4), (gain, spread)


def test_rounded_moments_against_samples():
    rng = np.random.default_rng(0)
    for mean, sigma in ((3.3, 0.2), (5.5, 0.1), (0.4, 0.8), (1.0, 3.0), (7.9, 0.5)):
        shown = np.clip(np.rint(rng.normal(mean, sigma, 400_000)), 0, 255)
        value, variance, fourth = rounded_moments(np.array([mean]), np.array([sigma]), 255.0)
        assert value[0] == pytest.approx(shown.mean(), abs=4 * shown.std() / 632)
        spread = np.sqrt((fourth[0] - variance[0] ** 2) / 400_000)
        # Above 2 DN the numbers are taken as continuous, and what lies between -1/2 and 1/2 falls to 0.
        assert variance[0] == pytest.approx(shown.var(), abs=4 * spread + (0.02 if sigma > 2 else 1e-5))


def test_noise_that_no_sample_shows_is_given_as_unknown():
    """At 0.05 DN on a whole number 1e-23 of the samples stray: the flats alone bound the noise."""
    chip = Chip(5, 0.02, 8, read=2.5, dsnu=0.0, shape=(120, 160))
    assert norm.sf(0.5 / (0.02 * 2.5)) < 1e-22
    model = chip.fit()
    assert abs(model.gain_dn_per_e / 0.02 - 1) < 0.01
    assert abs(model.read_noise_e - 2.5) < 3 * model.read_noise_sigma_e
    assert model.read_noise_sigma_e > 0.5
    assert model.quality.verdict == "doubtful"
    assert any("lost in the quantisation" in w for w in model.quality.warnings)


def test_photons_give_efficiency_threshold_and_saturation():
    chip = Chip(7, 0.25, 12, falloff=0.0, dark=0.0)
    model = chip.fit(temperature_c=21.0, wavelength_nm=525.0, pixel_pitch_um=3.45)
    sheet = model.sheet
    assert sheet.quantum_efficiency_percent == pytest.approx(100 * EFFICIENCY, rel=0.01)
    assert sheet.responsivity_dn_per_photon == pytest.approx(0.25 * EFFICIENCY, rel=0.005)
    # SNR 1 under shot noise, dark noise and quantisation.
    noise = chip.read**2 + 1 / 12 / 0.25**2
    signal = sheet.threshold_photons * sheet.quantum_efficiency_percent / 100
    assert signal / np.sqrt(noise + signal) == pytest.approx(1, rel=0.01)
    assert sheet.saturation_reached
    # To one level of the series.
    assert chip.capacity * 0.9 < sheet.saturation_e < chip.capacity * 1.01
    assert sheet.snr_max == pytest.approx(np.sqrt(sheet.saturation_e))
    assert sheet.dynamic_range == pytest.approx(sheet.saturation_photons / sheet.threshold_photons)
    assert (sheet.temperature_c, sheet.wavelength_nm, sheet.pixel_pitch_um) == (21.0, 525.0, 3.45)
    untold = Chip(7, 0.25, 12, falloff=0.0, dark=0.0).fit(tell=False).sheet
    assert untold.quantum_efficiency_percent is None
    assert untold.saturation_e == pytest.approx(sheet.saturation_e, rel=1e-9)


def test_light_may_be_varied_instead_of_the_exposure():
    model = Chip(8, 0.25, 12).fit(vary="light")
    assert abs(model.gain_dn_per_e - 0.25) <= 4 * model.gain_sigma_dn_per_e
    assert model.sheet.linearity_error_percent < 0.2


def test_rows_and_columns_are_told_apart():
    chip = Chip(9, 0.5, 12, rows=2.0, columns=4.0)
    dsnu = chip.fit(spatial=40).sheet.dsnu_e
    assert dsnu.row == pytest.approx(2.0, rel=0.2)
    assert dsnu.column == pytest.approx(4.0, rel=0.2)
    assert dsnu.pixel == pytest.approx(3.0, rel=0.05)
    assert dsnu.total**2 == pytest.approx(dsnu.row**2 + dsnu.column**2 + dsnu.pixel**2)
    assert dsnu.raw == pytest.approx(chip.offset.std(), rel=0.05)


def test_high_pass_leaves_white_patterns_and_takes_shading():
    rng = np.random.default_rng(1)
    shape = (200, 260)
    shading = 5 * np.sin(np.arange(260) / 40)[None, :] + np.linspace(-3, 3, 200)[:, None]
    image = (shading + rng.standard_normal(shape)).astype(np.float32)
    good = rng.random(shape) > 0.01
    image[~good] = 1000
    nonuniformity.high_pass(image, good, relative=False)
    found = nonuniformity.spread(image, good, 0.0, 0.0, 0.0)
    assert found.pixel == pytest.approx(1, abs=4 * np.sqrt(2 / good.sum()) + 0.002)
    assert abs(found.row) < 0.005
    assert abs(found.column) < 0.005


def test_spectrogram_profiles_and_defects():
    chip = Chip(10, 0.5, 12, falloff=0.0)
    chip.response[33, 44] = 0.7
    sheet = chip.fit(spatial=40).sheet
    frequency, dark_rows, _, bright_rows, bright_columns = sheet.spectrogram.T
    assert 0 < frequency[0] < frequency[-1] <= 0.5
    # White: the same at every frequency, with what is left of the temporal noise within.
    assert np.median(bright_rows) == pytest.approx(np.median(bright_columns), rel=0.02)
    assert np.median(dark_rows) == pytest.approx(np.hypot(3, chip.read / np.sqrt(40)), rel=0.05)
    assert sheet.profile_rows.shape == (240, 4)
    assert sheet.profile_columns.shape == (320, 4)
    assert sheet.profile_rows[33, 1] < 75
    assert tuple(sheet.bright_defects[0, :2]) == (33, 44)
    assert sheet.bright_defects[0, 2] == pytest.approx(-30, abs=3)
    assert sheet.histograms[:, 1].sum() == sheet.histograms[:, 3].sum() == 240 * 320


@pytest.mark.parametrize("length", [20, 96, 97, 480, 600, 1023])
def test_spectrum_of_white_noise_is_level_in_every_band(length):
    """Frequencies that lie on the edge of a band once left others empty: notches."""
    image = np.random.default_rng(length).normal(5.0, 2.0, (400, length)).astype(np.float32)
    good = np.ones(image.shape, np.bool_)
    for axis, view in ((1, image), (0, np.ascontiguousarray(image.T))):
        frequency, value = nonuniformity.spectrum(view, good.reshape(view.shape), axis)
        assert len(frequency) == min(length // 2, 256)
        assert np.all(np.diff(frequency) > 0)
        assert 0 < frequency[0] <= frequency[-1] <= 0.5
        # Each is the root of a mean of at least 400 squares, of which Nyquist's are of real numbers.
        np.testing.assert_allclose(value, 2.0, atol=6 * 2.0 / np.sqrt(2 * 400))


_THREADS = """
import hashlib, numpy as np
from calibration.radiometric import fit_sensor
from calibration.radiometric.sensor.fit import _shrunk
rng = np.random.default_rng(4)
shape, times = (300, 400), np.repeat(np.linspace(0.02, 1.2, 12), 2)
hot = rng.exponential(4.0, shape)
def frames(light):
    for t in times:
        e = rng.poisson((light + hot) * t) + rng.normal(0, NOISE, shape)
        yield np.clip(np.rint(64 + 0.25 * e), 0, 4095).astype(np.uint16)
model = fit_sensor(list(frames(16000.0)), times, list(frames(0.0)), times, pixel_format="Mono12")
assert model.dark_rate_map is not None
digest = hashlib.sha256()
def add(value):
    if isinstance(value, dict):
        for one in value.values():
            add(one)
    else:
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
add(model.model_dump())
# The last digit of a sum often drowns in what follows: many sums of long rows.
for _ in range(20):
    add(_shrunk(rng.standard_normal((512, 700)).astype(np.float32), np.ones((512, 700), bool), 0.5)[1])
print(digest.hexdigest())
"""


@pytest.mark.parametrize("noise", ["8.0"])
def test_the_same_bytes_whatever_the_number_of_threads(noise):
    def run(threads):
        names = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
        code = _THREADS.replace("NOISE", noise)
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | dict.fromkeys(names, threads),
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("1") == run("4")


def test_moments_of_counted_electrons_are_those_of_drawn_ones():
    rng, n = np.random.default_rng(31), 400_000
    level, electrons = np.array([20.0, 20.3]), np.array([0.2, 1.5])
    value, variance, fourth = counted_moments(level, electrons, 1.0, 0.2, 255.0)
    for i, mean in enumerate(electrons):
        for j, of in enumerate(level):
            dn = np.rint(of + rng.poisson(mean, n) + rng.normal(0, 0.2, n))
            assert value[i, j] == pytest.approx(dn.mean(), abs=5 * np.sqrt(dn.var() / n))
            spread = np.sqrt((np.mean((dn - dn.mean()) ** 4) - dn.var() ** 2) / n)
            assert variance[i, j] == pytest.approx(dn.var(), abs=5 * spread)
            assert fourth[i, j] == pytest.approx(np.mean((dn - dn.mean()) ** 4), rel=0.15)


def test_read_noise_below_the_step_of_an_electron():
    """Dark electrons are steps of a DN here: taken as Gaussian noise they cost 8 % of the read noise."""
    model = Chip(7, 1.0, 8, black=20, read=0.2, dsnu=1.5, dark=20.0).fit(
        spatial=60, dark_s=(0.0005, 0.006, 0.011, 0.016, 0.022)
    )
    assert model.read_noise_sigma_e < 0.01 * 0.2
    assert model.read_noise_e == pytest.approx(0.2, abs=4 * model.read_noise_sigma_e)
    assert model.quality.verdict == "doubtful"
    assert "below the quantisation" in model.quality.warnings[0]


def test_packed_rates_are_themselves_within_a_two_thousandth():
    rng = np.random.default_rng(8)
    image = (40 + 12 * rng.standard_normal((600, 900))).astype(np.float32)
    image[5, 5] = 90_000
    good = rng.random(image.shape) > 0.01
    rates = Rates(image.copy())
    mean = rates.mean(good)
    assert mean == pytest.approx(float(image[good].mean(dtype=np.float64)), rel=1e-6)
    rates.pack(good)
    assert rates[10:12].dtype == np.float32
    np.testing.assert_allclose(rates[100:300], image[100:300], atol=6 * 12 / 2000)
    np.testing.assert_allclose(rates.image() - mean, image - mean, rtol=2**-11, atol=1e-3)


def test_dark_current_and_its_doubling():
    flats_chip = Chip(11, 0.5, 12)
    share = np.repeat(np.linspace(0.05, 1.2, 8), 2)
    flats = [flats_chip.frame(s * flats_chip.capacity / EFFICIENCY, 0.02 * s) for s in share]
    darks, dark_s, warm = [], [], []
    for temperature in (20.0, 30.0, 40.0):
        flats_chip.dark = 200.0 * 2 ** ((temperature - 20) / 7.0)
        for t in np.repeat(np.linspace(0.01, 2.0, 5), 2):
            darks.append(flats_chip.frame(0.0, t))
            dark_s.append(t)
            warm.append(temperature)
    model = fit_sensor(
        flats, 0.02 * share, darks, dark_s, pixel_format="Mono12", dark_temperature_c=warm, temperature_c=20.0
    )
    sheet = model.sheet
    assert sheet.dark_current_e_s == pytest.approx(200, abs=4 * sheet.dark_current_sigma_e_s + 0.2)
    error = abs(sheet.dark_current_from_variance_e_s - 200)
    assert error < 5 * sheet.dark_current_from_variance_sigma_e_s
    assert sheet.dark_doubling_c == pytest.approx(7.0, abs=4 * sheet.dark_doubling_sigma_c + 0.01)
    assert model.dark_current_e_s == pytest.approx(200, rel=0.01)


def test_saturation_is_the_first_maximum_that_two_levels_stay_below():
    def transfer(variance):
        n = len(variance)
        light = np.arange(1.0, n + 1)
        return Transfer(
            light, light, np.minimum(light, 12) * 100, np.zeros(n), np.asarray(variance, float), np.zeros(n),
            np.full(n, 1e5), np.ones(n, bool),
        )  # fmt: skip

    rise = list(np.arange(1, 11) * 10.0)
    assert saturation_point(transfer([*rise, 60, 20, 5])).level == 9
    # Noise of the clipped converter beyond saturation, greater than all before.
    assert saturation_point(transfer([*rise, 60, 20, 300])).level == 9
    # One level that falls out is no saturation.
    assert saturation_point(transfer([*rise[:7], 60, 90, 100, 110, 40, 5])).level == 10
    assert not saturation_point(transfer(rise)).reached


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"photons": [1.0, 2.0]}, "photons of shape"),
        ({"photons": np.full(40, -1.0)}, "flat frame 0 has photons -1.0"),
        ({"dark_temperature_c": [20.0]}, "as many temperatures"),
    ],
)
def test_bad_photons_and_temperatures(options, says):
    with pytest.raises(FitError, match=says):
        Chip(1, 0.5, 12, shape=(48, 64)).fit(levels=8, tell=False, **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_kernels_are_their_plain_selves(dtype):
    rng = np.random.default_rng(2)
    shape, blocks_shape = (53, 70), (4, 5)
    top = np.iinfo(dtype).max
    a, b = (rng.integers(0, top, shape, endpoint=True).astype(dtype) for _ in range(2))
    good = rng.random(shape) > 0.1
    blocks = rng.integers(0, 3, blocks_shape).astype(np.uint8)

    def flat(function, frames):
        total = np.full(shape, 7, np.uint32)
        sums = np.empty((4, 4, 3))
        function(*frames, good, blocks, np.array([1, 1], np.uint32), total, sums)
        return total, sums[:, :3].sum(0), sums[:, 3, :2].max(0)

    strided = np.repeat(a, 2, axis=1)[:, ::2]
    for frames in ((a, b), (strided, b)):
        for ours, plain in zip(
            flat(kernels.flat_sums, frames), flat(kernels.flat_sums_plain, frames), strict=True
        ):
            np.testing.assert_allclose(ours, plain, rtol=1e-6)

    def dark(function):
        total, moment = np.full(shape, 3, np.uint32), np.ones(shape, np.float32)
        noise, sums = np.full(shape, 5, np.uint16), np.empty((4, 4), np.int64)
        function(a, b, good, np.array([0.25, 1, 0.5], np.float32), total, moment, noise, sums)
        return total, moment, noise, sums[:, :2].sum(0), sums[:, 2].max(), sums[:, 3].sum()

    for ours, plain in zip(dark(kernels.dark_sums), dark(kernels.dark_sums_plain), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1)

    image, ours, plain = rng.random(shape, np.float32), np.empty((4, 3)), np.empty((4, 3))
    kernels.class_sums(image, good, blocks, ours)
    kernels.class_sums_plain(image, good, blocks, plain)
    np.testing.assert_allclose(ours.sum(0), plain.sum(0))
