"""fit_sensor against a small EMVA 1288 simulator, the published results of a real sensor, and bad input."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.provenance import FitError
from calibration.radiometric import fit_sensor

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))


class Sensor:
    """A sensor of EMVA 1288: Poisson electrons, full well, DSNU, read noise, gain, ADC."""

    def __init__(
        self,
        rng,
        shape=(240, 320),
        *,
        gain=0.125,
        bits=12,
        read=7.0,
        black=64.0,
        dark=50.0,
        full_well=32_500.0,
        prnu=0.01,
        dsnu=3.0,
        vignetting=0.4,
        hot=5,
        flicker=0.0,
        colours=None,
    ):
        h, w = shape
        y, x = np.mgrid[:h, :w]
        self.rng, self.gain, self.bits, self.read, self.black = rng, gain, bits, read, black
        self.full_well, self.flicker = full_well, flicker
        self.falloff = 1 - vignetting * ((2 * x / (w - 1) - 1) ** 2 + (2 * y / (h - 1) - 1) ** 2) / 2
        self.flat = self.falloff * (1 + prnu * rng.standard_normal(shape))
        if colours is not None:
            self.flat *= np.tile(np.reshape(colours, (2, 2)), (h // 2, w // 2))
        self.offset = dsnu * rng.standard_normal(shape)
        self.rate = np.full(shape, dark)
        self.hot = rng.choice(h * w, hot, replace=False)
        self.rate.flat[self.hot] = 100_000.0
        self.capacity = min(full_well, (2**bits - 1 - black) / gain)

    def frame(self, exposure_s, radiance):
        light = radiance * self.flat * (1 + self.flicker * self.rng.standard_normal())
        electrons = np.minimum(self.rng.poisson((light + self.rate) * exposure_s), self.full_well)
        noisy = electrons + self.offset + self.read * self.rng.standard_normal(self.offset.shape)
        dn = np.clip(np.rint(noisy * self.gain + self.black), 0, 2**self.bits - 1)
        return dn.astype(np.uint8 if self.bits == 8 else np.uint16)

    def series(self, *, levels=10, repeats=2, top=1.3, radiance=2e6, dark_s=(0.001, 0.01, 0.05, 0.1)):
        flat_s = np.repeat(np.linspace(0.03, top, levels) * self.capacity / radiance, repeats)
        dark_s = np.repeat(dark_s, 4)
        flats = [self.frame(t, radiance) for t in flat_s]
        darks = [self.frame(t, 0.0) for t in dark_s]
        return flats, flat_s, darks, dark_s


SENSORS = {
    "dome": {},
    "low gain, 8 bit": {
        "gain": 0.02,
        "bits": 8,
        "black": 4.0,
        "full_well": 12_000.0,
        "dsnu": 20.0,
        "read": 30.0,
    },
    "high gain, 16 bit": {"gain": 5.0, "bits": 16, "full_well": 10_000.0, "read": 2.0, "dark": 20.0},
    "unit gain, 16 bit": {"gain": 1.0, "bits": 16, "full_well": 50_000.0, "read": 3.0},
    "clips at full scale": {"gain": 0.4, "bits": 10, "black": 32.0, "full_well": 20_000.0, "read": 5.0},
    "full well below full scale": {"full_well": 20_000.0},
    "strong vignetting": {"vignetting": 0.7},
    "flickering lamp": {"flicker": 0.02},
}


@pytest.mark.parametrize("name", SENSORS)
def test_recovers_the_sensor(name):
    sensor = Sensor(np.random.default_rng(11), **SENSORS[name])
    model = fit_sensor(*sensor.series(), pixel_format=f"Mono{sensor.bits}")
    flicker = sensor.flicker > 0

    # The bounds of the project, and the model's own sigmas at 4.
    assert abs(model.gain_dn_per_e / sensor.gain - 1) <= 0.01
    assert abs(model.gain_dn_per_e - sensor.gain) <= 4 * model.gain_sigma_dn_per_e
    assert abs(model.read_noise_e / sensor.read - 1) <= 0.03
    assert abs(model.read_noise_e - sensor.read) <= 4 * model.read_noise_sigma_e
    # The mean of this sensor's own offsets belongs to its black level.
    good = ~model.defects
    black = sensor.black + sensor.gain * sensor.offset[good].mean()
    assert abs(model.black_dn - black) <= 4 * model.black_sigma_dn + 1e-3 * sensor.gain
    assert abs(model.dark_current_e_s - sensor.rate[good].mean()) <= 4 * model.dark_current_sigma_e_s
    # A plateau by clipping is exact; one by the full well has the read noise around it.
    top = sensor.black + sensor.gain * sensor.full_well
    if top > 2**sensor.bits:
        assert model.saturation_dn == 2**sensor.bits - 1
    else:
        spread = sensor.gain * np.hypot(sensor.read, sensor.offset.std()) + 1
        assert top - 5 * spread < model.saturation_dn < top
    assert model.sheet.linearity_error_percent < (3 if flicker else 0.3)
    # The skewed tail of few dark electrons may take a healthy pixel along.
    found = set(np.flatnonzero(model.defects))
    assert set(sensor.hot) <= found
    assert len(found) <= len(sensor.hot) + 2
    assert model.quality.verdict == "good"

    # Maps: their error is the one that the model states.
    middle = (slice(60, 180), slice(80, 240))
    truth = sensor.flat / sensor.flat[middle][good[middle]].mean()
    error = (model.flat_map - truth)[good]
    expected = model.flat_sigma * np.sqrt(truth[good])
    assert np.std(error / expected) == pytest.approx(1, abs=0.05)
    offset = sensor.offset - sensor.offset[good].mean()
    error = (model.dark_map / model.gain_dn_per_e - offset)[good]
    assert np.std(error) == pytest.approx(np.sqrt(model.dark_covariance[0, 0]), rel=0.05)
    assert model.sheet.dsnu_e.total == pytest.approx(sensor.offset[good].std(), rel=0.05)
    assert model.sheet.prnu_percent.total == pytest.approx(
        100 * (sensor.flat / sensor.falloff)[good].std(), rel=0.05
    )


def test_sigma_of_gain_and_read_noise_are_their_scatter():
    scores = []
    for seed in range(60):
        sensor = Sensor(np.random.default_rng(seed), (48, 64), hot=0)
        model = fit_sensor(*sensor.series(levels=6, dark_s=(0.001, 0.02)), pixel_format="Mono12")
        scores.append(
            (
                (model.gain_dn_per_e - sensor.gain) / model.gain_sigma_dn_per_e,
                (model.read_noise_e - sensor.read) / model.read_noise_sigma_e,
            )
        )
    spread = np.std(scores, axis=0)
    # 60 draws know a standard deviation to 9 %; the excess-scatter factor may only widen the sigma of the
    # gain.
    assert np.all(spread < 1 + 3 * 0.09)
    assert np.all(spread > 1 - 4 * 0.09)
    assert np.all(np.abs(np.mean(scores, axis=0)) < 4 / np.sqrt(60))


def test_more_than_two_frames_a_level():
    sensor = Sensor(np.random.default_rng(4), (120, 160))
    two = fit_sensor(*sensor.series(levels=6, repeats=2), pixel_format="Mono12")
    five = fit_sensor(*sensor.series(levels=6, repeats=5), pixel_format="Mono12")
    # Four times the degrees of freedom.
    assert five.gain_sigma_dn_per_e == pytest.approx(two.gain_sigma_dn_per_e / 2, rel=0.35)
    assert abs(five.gain_dn_per_e - sensor.gain) < 4 * five.gain_sigma_dn_per_e


def test_order_of_frames_does_not_matter():
    sensor = Sensor(np.random.default_rng(5), (60, 80))
    flats, flat_s, darks, dark_s = sensor.series(levels=5)
    model = fit_sensor(flats, flat_s, darks, dark_s, pixel_format="Mono12")
    # Pairs stay in their order: which frame is the first of a pair decides rounding only.
    order = np.argsort(np.random.default_rng(0).permutation(5).repeat(2), kind="stable")
    again = fit_sensor([flats[i] for i in order], flat_s[order], darks, dark_s, pixel_format="Mono12")
    assert again == model


def test_bayer_colours_share_the_gain_and_have_flats_of_mean_one():
    sensor = Sensor(np.random.default_rng(6), colours=[0.5, 1.0, 1.0, 0.35])
    model = fit_sensor(*sensor.series(top=1.6, levels=12), pixel_format="BayerRG12")
    assert abs(model.gain_dn_per_e / sensor.gain - 1) < 0.01
    for i in range(2):
        for j in range(2):
            plane = model.flat_map[i::2, j::2]
            assert plane[30:90, 40:120].mean() == pytest.approx(1, abs=1e-5)
    assert set(sensor.hot) == set(np.flatnonzero(model.defects))


def test_rgb_frames():
    sensor = Sensor(np.random.default_rng(7), (60, 80), vignetting=0.2, hot=0)
    _, flat_s, _, dark_s = sensor.series(levels=6)
    colour = [np.stack([sensor.frame(t, r) for r in (2e6, 1e6, 5e5)], -1) for t in flat_s]
    dark = [np.stack([sensor.frame(t, 0.0) for _ in range(3)], -1) for t in dark_s]
    model = fit_sensor(colour, flat_s, dark, dark_s, pixel_format="RGB12")
    assert model.flat_map.shape == (60, 80, 3)
    assert abs(model.gain_dn_per_e - sensor.gain) < 4 * model.gain_sigma_dn_per_e


def test_dead_noisy_and_leaking_pixels_are_defects():
    sensor = Sensor(np.random.default_rng(8), (60, 80), hot=0)
    flats, flat_s, darks, dark_s = sensor.series(levels=6)
    for frame in flats:
        frame[10, 20] = 66
    for k, frame in enumerate([*flats, *darks]):
        # Swings about the right level, so that only its variance gives it away.
        frame[30, 40] = np.clip(int(frame[30, 40]) + 6 * (-1) ** k, 0, 4095)
    for frame, t in zip(darks, dark_s, strict=True):
        # Right on the average of the exposures, so that only its slope gives it away.
        frame[50, 7] = int(frame[50, 7]) + round(200 * (t - dark_s.mean()))
    model = fit_sensor(flats, flat_s, darks, dark_s, pixel_format="Mono12")
    assert set(zip(*np.nonzero(model.defects), strict=True)) == {(10, 20), (30, 40), (50, 7)}


def test_linearity_error_of_a_bent_response():
    sensor = Sensor(np.random.default_rng(9), (120, 160), vignetting=0.0, prnu=0.0, hot=0)
    flats, flat_s, darks, dark_s = sensor.series(levels=14, top=1.3)
    straight = flat_s * 2e6 * sensor.gain
    bend = 1 + 0.02 * np.sin(np.pi * straight / 4000)
    bent = [
        np.clip(np.rint((f - 64.0) * b + 64), 0, 4095).astype(np.uint16)
        for f, b in zip(flats, bend, strict=True)
    ]
    model = fit_sensor(bent, flat_s, darks, dark_s, pixel_format="Mono12")
    # The standard's recipe on the noiseless curve: relative least squares over 5..95 % of the level whose
    # variance is greatest.
    t, y = flat_s[::2], (straight * bend)[::2]
    top = model.sheet.saturation_dn - 64
    inside = (y >= 0.05 * top) & (y <= 0.95 * top)
    slope, offset = np.polyfit(t[inside], y[inside], 1, w=1 / y[inside])
    expected = 100 * np.mean(np.abs(y[inside] / (offset + slope * t[inside]) - 1))
    assert expected > 0.2
    assert model.sheet.linearity_error_percent == pytest.approx(expected, abs=0.02)


def test_series_that_ends_below_saturation_says_so():
    sensor = Sensor(np.random.default_rng(10), (60, 80))
    model = fit_sensor(*sensor.series(top=0.6), pixel_format="Mono12")
    assert model.saturation_dn == 4095
    assert model.quality.verdict == "doubtful"
    assert any("saturation" in w for w in model.quality.warnings)


def test_read_noise_below_the_quantisation_comes_from_the_flats():
    sensor = Sensor(np.random.default_rng(12), gain=0.05, bits=10, read=6.0, black=20.0, full_well=18_000.0)
    model = fit_sensor(*sensor.series(levels=16), pixel_format="Mono10")
    assert abs(model.gain_dn_per_e / sensor.gain - 1) < 0.01
    assert abs(model.read_noise_e - sensor.read) < 4 * model.read_noise_sigma_e
    assert any("quantisation" in w for w in model.quality.warnings)


class Lazy(Sequence):
    """Frames made on demand; remembers how many lived at once."""

    def __init__(self, make, count):
        self.make, self.count, self.alive, self.most = make, count, weakref.WeakSet(), 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        frame = self.make(index).view(_Tracked)
        self.alive.add(frame)
        self.most = max(self.most, len(self.alive))
        return frame


class _Tracked(np.ndarray):
    """An array that can be weakly referenced and hashed by identity."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


def test_frames_are_read_a_few_at_a_time():
    sensor = Sensor(np.random.default_rng(13), (48, 64))
    flats, flat_s, darks, dark_s = sensor.series(levels=8, repeats=4)
    light, cover = Lazy(lambda i: flats[i].copy(), len(flats)), Lazy(lambda i: darks[i].copy(), len(darks))
    fit_sensor(light, flat_s, cover, dark_s, pixel_format="Mono12")
    assert 1 <= light.most <= 3
    assert 1 <= cover.most <= 3


def _small():
    return Sensor(np.random.default_rng(1), (48, 64), hot=0).series(levels=5)


def _bad(name):
    flats, flat_s, darks, dark_s = _small()
    pixel_format = "Mono12"
    if name == "no flats":
        flats, flat_s = [], []
    elif name == "no darks":
        darks, dark_s = [], []
    elif name == "no pairs":
        flats, flat_s = flats[::2], flat_s[::2]
    elif name == "two levels":
        flats, flat_s = flats[:4], flat_s[:4]
    elif name == "zero exposure":
        flat_s = flat_s.copy()
        flat_s[3] = 0
    elif name == "exposure missing":
        dark_s = dark_s.copy()
        dark_s[2] = np.nan
    elif name == "too few exposures":
        flat_s = flat_s[:-1]
    elif name == "size":
        flats[7] = flats[7][:-1]
    elif name == "dark size":
        darks[5] = darks[5][:-1]
    elif name == "black":
        flats = [darks[i % len(darks)] for i in range(len(flats))]
    elif name == "saturated":
        flats = [np.full_like(f, 4095) for f in flats]
    elif name == "copies":
        flats = [flats[i // 2 * 2] for i in range(len(flats))]
    elif name == "depth":
        flats = [f << 4 for f in flats]
    elif name == "float":
        pixel_format = "Mono32f"
    return flats, flat_s, darks, dark_s, pixel_format


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no flats", "no flat frames"),
        ("no darks", "no dark frames"),
        ("no pairs", "no flat pairs"),
        ("two levels", "2 exposure levels"),
        ("zero exposure", r"flat frame 3 has exposure 0\.0 s"),
        ("exposure missing", "dark frame 2 has exposure nan s"),
        ("too few exposures", "10 flat frames but exposures of shape"),
        ("size", r"flat frame 7 has shape \(47, 64\)"),
        ("dark size", r"dark frame 5 has shape \(47, 64\)"),
        ("black", "all flats are black"),
        ("saturated", "all flats are saturated"),
        ("copies", "the variance does not grow|show shot noise"),
        ("depth", "right-aligned"),
        ("float", "hold no DN"),
    ],
)
def test_bad_input_is_one_clear_line(name, says):
    flats, flat_s, darks, dark_s, pixel_format = _bad(name)
    with pytest.raises(FitError, match=says) as caught:
        fit_sensor(flats, flat_s, darks, dark_s, pixel_format=pixel_format)
    assert "\n" not in str(caught.value)


class _Files(Sequence):
    """Pictures read when they are asked for."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return cv2.imread(str(self.paths[index]), cv2.IMREAD_UNCHANGED)


def _reference_set():
    root = DATA / "emva1288" / "set001"
    if not root.exists():
        pytest.skip(f"no reference data at {root}")
    series = {"b": [], "d": []}
    for line in (root / "EMVA1288_Data_posix.txt").read_text().splitlines():
        word = line.split()
        if word and word[0] in series:
            kind, exposure, photons = word[0], float(word[1]) * 1e-9, float((*word, 0, 0)[2])
        elif word and word[0] == "i":
            series[kind].append((root / word[1], exposure, photons))
    return series["b"], series["d"]


def test_emva_reference_set_001():
    """Every number that the makers of the set published (Release 3.0), from the frames they published."""
    bright, dark = _reference_set()
    assert len(bright) == len(dark) == 150
    model = fit_sensor(
        _Files([path for path, _, _ in bright]),
        [exposure for _, exposure, _ in bright],
        _Files([path for path, _, _ in dark]),
        [exposure for _, exposure, _ in dark],
        pixel_format="Mono12",
        photons=[photons for _, _, photons in bright],
    )
    sheet = model.sheet
    found = {
        "K": model.gain_dn_per_e,
        "QE": sheet.quantum_efficiency_percent,
        "responsivity": sheet.responsivity_dn_per_photon,
        "dark noise, DN": sheet.dark_noise_dn,
        "dark noise, e-": model.read_noise_e,
        "threshold": sheet.threshold_photons,
        "saturation, photons": sheet.saturation_photons,
        "saturation, e-": sheet.saturation_e,
        "SNR": sheet.snr_max,
        "DR": sheet.dynamic_range,
        "DSNU": sheet.dsnu_e.raw,
        "PRNU": sheet.prnu_percent.raw,
        "dark current": sheet.dark_current_e_s,
    }
    published = {
        "K": 0.280769,
        "QE": 45.1356,
        "responsivity": 0.126727,
        "dark noise, DN": 3.07342,
        "dark noise, e-": 10.8980,
        "threshold": 25.3601,
        "saturation, photons": 30957,
        "saturation, e-": 13972.6,
        "SNR": 118.206,
        "DR": 1220.70,
        "DSNU": 0.551788,
        "PRNU": 0.432704,
        "dark current": 28.4074,
    }
    assert found == pytest.approx(published, rel=0.01)
    assert sheet.linearity_error_max_percent == pytest.approx(0.480448, abs=0.02)
    assert sheet.linearity_error_min_percent == pytest.approx(-0.615798, abs=0.02)
    assert sheet.saturation_reached
    assert len(sheet.levels) == 51
    assert model.saturation_dn == 4095
    assert model.quality.verdict == "good"
