import numba
import numpy as np
import pytest
from scipy import stats

from rigs.simulated import kernels, sensor
from rigs.simulated.truth import Optics, Response, Sensor

PLAIN = Sensor(
    full_well_e=60000,
    read_noise_e=0,
    gain_dn_per_e=1,
    bits=16,
    black_dn=0,
    dark_current_e_s=0,
    prnu=0,
    dsnu_e=0,
)


def flat(mean_e: float, shape: tuple[int, int] = (400, 500), of: Sensor = PLAIN, key: int = 1) -> np.ndarray:
    pattern = sensor.fixed_pattern(of, shape, 5)
    return sensor.expose(np.full(shape, mean_e, np.float32), 1.0, 0.0, of, pattern, sensor.noise_key(key))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, expected):
    assert kernels.philox(np.array(counter, np.uint64), np.array(key, np.uint64)) == expected


@pytest.mark.parametrize("mean", [0.02, 0.7, 3.0, 9.99, 10.01, 33.0, 400.0, 3000.0, 30000.0])
def test_photons_have_poisson_mean_and_variance(mean):
    mean = float(np.float32(mean))
    dn = flat(mean).astype(np.float64)
    # the sample variance of n Poisson numbers varies by (mean + 2 mean^2) / n
    assert abs(dn.mean() - mean) < 5 * np.sqrt(mean / dn.size)
    assert abs(dn.var() - mean) < 5 * np.sqrt((mean + 2 * mean**2) / dn.size)


@pytest.mark.parametrize("mean", [3.0, 10.5, 40.0, 900.0])
def test_photons_follow_the_poisson_distribution(mean):
    dn = flat(mean).ravel()
    edges = np.unique(stats.poisson.ppf(np.linspace(0.005, 0.995, 40), mean).astype(int))
    expected = np.diff(np.concatenate([[0.0], stats.poisson.cdf(edges, mean), [1.0]])) * dn.size
    counted = np.bincount(np.searchsorted(edges, dn), minlength=expected.size)
    chi2 = np.sum((counted - expected) ** 2 / expected)
    assert chi2 < stats.chi2.ppf(1 - 1e-6, expected.size - 1)


def test_temporal_variance_is_that_of_emva_1288():
    of = Sensor(full_well_e=30000, read_noise_e=7, gain_dn_per_e=0.125, bits=12, dark_current_e_s=50)
    for mean in (20.0, 5000.0):
        first, second = (flat(mean, of=of, key=key).astype(np.float64) for key in (1, 2))
        variance = 0.5 * np.var(first - second)
        expected = 0.125**2 * (7**2 + mean + 50) + 1 / 12
        # the fixed pattern spreads the mean by PRNU, which changes nothing to first order
        assert abs(variance / expected - 1) < 5 * np.sqrt(2 / first.size)
        level = 64 + 0.125 * (mean + 50)
        assert abs(first.mean() - level) < 5 * np.hypot(0.01 * mean * 0.125, 0.125 * 3 + 1) / np.sqrt(
            first.size
        )


def test_fixed_pattern_has_the_asked_spread_and_depends_on_its_seed_alone():
    of = Sensor(prnu=0.012, dsnu_e=4, hot_pixels=0.01, hot_pixel_e_s=1000, temperature_c=33)
    pattern, again = (sensor.fixed_pattern(of, (300, 300), 3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(pattern, again, strict=True))
    assert not np.array_equal(pattern.response, sensor.fixed_pattern(of, (300, 300), 4).response)
    n = 300 * 300
    assert pattern.response.std() == pytest.approx(0.012, rel=5 / np.sqrt(2 * n))
    assert pattern.offset_e.std() == pytest.approx(4, rel=5 / np.sqrt(2 * n))
    # 33 C is one doubling above the 25 C of reference
    assert pattern.dark_e_s.min() == pytest.approx(10)
    hot = pattern.dark_e_s > 10
    assert abs(hot.sum() - 0.01 * n) < 5 * np.sqrt(0.01 * n)
    assert pattern.dark_e_s[hot].mean() - 10 == pytest.approx(2000, rel=5 / np.sqrt(hot.sum()))


def test_bytes_do_not_depend_on_the_number_of_threads():
    threads = numba.get_num_threads()
    of = Sensor(hot_pixels=0.001)
    two = flat(40.0, of=of)
    try:
        numba.set_num_threads(1)
        one = flat(40.0, of=of)
    finally:
        numba.set_num_threads(threads)
    assert np.array_equal(one, two)


def test_a_window_has_the_noise_of_its_place():
    of = Sensor()
    whole = flat(500.0, shape=(60, 80), of=of)
    pattern = sensor.fixed_pattern(of, (60, 80), 5)
    part = sensor.Pattern(*(np.ascontiguousarray(a[10:30, 20:50]) for a in pattern))
    rate = np.full((20, 30), 500, np.float32)
    window = sensor.expose(rate, 1.0, 0.0, of, part, sensor.noise_key(1), corner=(10, 20), stride=80)
    assert np.array_equal(window, whole[10:30, 20:50])


def test_noise_of_neighbours_and_of_keys_is_independent():
    first, second = (flat(1000.0, key=key).astype(np.float64) - 1000 for key in (1, 2))
    bound = 5 * 1000 / np.sqrt(first.size)
    assert abs(np.mean(first * second)) < bound
    assert abs(np.mean(first[:, 1:] * first[:, :-1])) < bound
    assert abs(np.mean(first[1:] * first[:-1])) < bound


def test_full_well_gain_black_and_converter_limit_the_numbers():
    well = PLAIN.replace(full_well_e=1000)
    assert set(np.unique(flat(5000.0, of=well))) == {1000}
    assert flat(5000.0, of=PLAIN.replace(bits=8)).max() == 255
    assert set(np.unique(flat(0.0, of=PLAIN.replace(black_dn=37)))) == {37}
    pattern = sensor.fixed_pattern(PLAIN, (50, 50), 1)
    rate = np.full((50, 50), 4000, np.float32)
    loud = sensor.expose(rate, 1.0, 20.0, PLAIN, pattern, sensor.noise_key(1))
    assert loud.mean() == pytest.approx(40000, abs=5 * 10 * np.sqrt(4000 / 2500))


def test_a_response_bends_the_numbers():
    of = PLAIN.replace(response=Response(gamma=2.0), bits=8, gain_dn_per_e=0.01)
    # 0.01 DN/e- on 8 bits: 6375 e- are a quarter of the range, whose square root is a half
    assert flat(6375.0, of=of).mean() == pytest.approx(127.5, abs=0.1)
    straight = of.replace(response=Response(table=(0.0, 1.0)))
    assert flat(6375.0, of=straight).mean() == pytest.approx(63.75, abs=0.05)


def test_vignetting_is_cos4_times_the_polynomial():
    u, v = np.meshgrid(np.arange(41) - 20.0, np.arange(31) - 15.0)
    rays = np.stack([u / 50, v / 50, np.ones_like(u)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    share = sensor.vignetting(Optics(vignetting=0.2), rays, (20.0, 15.0))
    angle = np.arctan(np.hypot(20, 15) / 50)
    assert share[15, 20] == 1
    assert share[0, 0] == pytest.approx(np.cos(angle) ** 4 * 0.8, rel=1e-6)


def test_a_mosaic_takes_each_colour_from_its_place():
    rate = np.zeros((4, 6, 3), np.float32) + np.array([1, 2, 3], np.float32)
    (plane,) = sensor.mosaic(rate, "GBRG")
    assert plane[:2, :2].tolist() == [[2, 3], [1, 2]]
    assert [p[0, 0] for p in sensor.mosaic(rate, "rgb")] == [1, 2, 3]
