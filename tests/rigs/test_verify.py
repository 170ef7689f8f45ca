"""The judge is judged: errors of known size are reported as that size."""

import conftest
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from calibration.lights.model import DistantLight, LightSet
from calibration.photometric import NormalMap
from calibration.radiometric import NonUniformity, RadiometricModel, SensorSheet
from rigs import verify

CAMERA = "top"
SHAPE = (40, 60)


def value_of(metrics, words):
    (metric,) = (metric for metric in metrics if words in metric.quantity)
    return metric.value


@pytest.fixture(scope="module")
def true_lights(twin):
    return {name: light for name, light in twin.lights(CAMERA).items() if name in conftest.LIGHTS}


def test_sensor_errors_are_percent_of_the_truth(mini):
    names = ("gain", "read_noise", "dark_current", "saturation", "dsnu", "prnu", "linearity")
    truth = mini.known.replace(bounds={f"{name}_percent": 0.1 for name in names})
    true = truth.cameras[CAMERA].sensor

    def spread(total):
        return NonUniformity(total=total, row=0, column=0, pixel=total, raw=9 * total)

    sheet = SensorSheet(
        dark_noise_dn=1, dark_noise_e=7, threshold_e=8, saturation_e=3e4, snr_max=170, dynamic_range=3600,
        linearity_error_percent=0.2, dsnu_e=spread(1.06 * true.dsnu_e),
        prnu_percent=spread(94 * true.prnu), levels=np.zeros((0, 7)),
    )  # fmt: skip
    model = RadiometricModel.nominal("Mono12", SHAPE, saturation_dn=4095 * 0.99).replace(
        gain_dn_per_e=true.gain_dn_per_e * 1.02,
        read_noise_e=true.read_noise_e * 0.95,
        dark_current_e_s=true.dark_rate_e_s * 1.03,
        sheet=sheet,
    )
    wrong = {
        "gain K: error": 2.0,
        "read noise: error": 5.0,
        "dark current: error": 3.0,
        "saturation: error": 1.0,
        "DSNU: error": 6.0,
        "PRNU: error": 6.0,
        "linearity error": 0.2,
    }
    metrics = verify.sensor(model, truth, CAMERA)
    for words, expected in wrong.items():
        assert value_of(metrics, words) == pytest.approx(expected), words
    assert [metric.passed for metric in metrics if metric.bound is not None] == [False] * len(wrong)
    # What was to be measured and was not, misses too; and one of no bound and no number is left out.
    bare = verify.sensor(model.replace(sheet=None), truth, CAMERA)
    assert [m.quantity for m in bare if m.bound is not None and np.isnan(m.value)] == [
        "DSNU: error",
        "PRNU: error",
    ]
    unbounded = truth.replace(bounds={})
    assert not any("NU" in m.quantity for m in verify.sensor(model.replace(sheet=None), unbounded, CAMERA))


def test_lens_errors_in_percent_and_pixels(twin):
    true = twin.lens(CAMERA)
    model = true.replace(fx=true.fx * 0.999, fy=true.fy * 1.003, cx=true.cx + 3, cy=true.cy - 4)
    metrics = verify.lens(model, twin, CAMERA)
    assert value_of(metrics, "focal length: error") == pytest.approx(0.3)
    assert value_of(metrics, "principal point: error") == pytest.approx(5.0)
    exact = verify.lens(true, twin, CAMERA)
    assert value_of(exact, "focal length: error") == 0
    assert value_of(exact, "principal point: error") == 0


def test_light_errors_in_mm_and_percent(twin, true_lights):
    """Light k is (k + 1) mm off; the third is 5 % too bright; all are 7 % too bright together."""
    moved = {}
    for k, (name, light) in enumerate(true_lights.items()):
        direction = Rotation.random(rng=k).apply([0, 0, 1.0])
        bright = 1.07 * (1.05 if k == 2 else 1)
        moved[name] = light.replace(
            position_mm=tuple(np.add(light.position_mm, (k + 1) * direction)),
            intensity=tuple(bright * value for value in light.intensity),
            covariance=np.eye(3) * (k + 1) ** 2 / 3,
        )
    metrics = verify.lights(LightSet(lights=moved), twin, CAMERA)
    assert value_of(metrics, "median") == pytest.approx(6.5)
    assert value_of(metrics, "positions: max") == pytest.approx(12.0)
    assert value_of(metrics, "over claimed sigma") == pytest.approx(1.0)
    assert value_of(metrics, "intensity ratios") == pytest.approx(5.0)


def test_directions_of_distant_lights(twin, true_lights):
    depth = 450.0
    found = {}
    for name, light in true_lights.items():
        direction = light.at(np.array([0.0, 0.0, depth]))[0]
        axis = np.cross(direction, [0, 1, 0])
        turned = Rotation.from_rotvec(np.radians(2.0) * axis / np.linalg.norm(axis)).apply(direction)
        found[name] = DistantLight(direction=tuple(turned), intensity=light.intensity)
    metrics = verify.lights(LightSet(lights=found, scene_depth_mm=depth), twin, CAMERA)
    assert value_of(metrics, "directions: mean error") == pytest.approx(2.0)


def test_a_bound_on_nothing_is_missed(twin, true_lights):
    """The dome's bounds are on positions: distant lights do not meet them by having none."""
    found = {name: DistantLight(direction=(0, 0, -1), intensity=(1.0,)) for name in true_lights}
    metrics = verify.lights(LightSet(lights=found), twin, CAMERA)
    missed = [metric.quantity for metric in metrics if metric.passed is False]
    assert "light positions: median error" in missed
    assert "light positions: max error" in missed


def normal_map(normals):
    valid = np.isfinite(normals).all(axis=-1)
    blank = np.full(valid.shape, np.nan, np.float32)
    return NormalMap(
        normals=np.asarray(normals, np.float32),
        albedo=blank,
        valid=valid,
        sigma_deg=blank,
        lights_used=np.zeros(valid.shape, np.uint8),
    )


def test_normals_turned_by_a_known_angle():
    rng = np.random.default_rng(5)
    true = np.concatenate([rng.normal(0, 0.3, (*SHAPE, 2)), -np.ones((*SHAPE, 1))], axis=-1)
    true /= np.linalg.norm(true, axis=-1, keepdims=True)
    axis = np.cross(true, [1.0, 0, 0])
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    turned = Rotation.from_rotvec((np.radians(3.0) * axis).reshape(-1, 3)).apply(true.reshape(-1, 3))
    found = turned.reshape(*SHAPE, 3)
    found[:10] = np.nan
    where = np.ones(SHAPE, bool)
    where[:, :30] = False
    error = verify.normal_errors(normal_map(found), true.astype(np.float32), where)
    assert np.isfinite(error).sum() == 30 * 30
    metrics = verify.normals(error, where, "thing", 2.9)
    # float32 unit vectors resolve an angle to 1e-7 / sin(angle)
    assert value_of(metrics, "mean error") == pytest.approx(3.0, abs=1e-3)
    assert value_of(metrics, "95th") == pytest.approx(3.0, abs=1e-3)
    assert value_of(metrics, "share") == pytest.approx(75.0)
    assert metrics[0].passed is False
    nothing = verify.normals(np.full(SHAPE, np.nan), where, "thing", 90.0)
    assert nothing[0].passed is False


def test_depth_is_aligned_by_one_factor_only():
    rng = np.random.default_rng(6)
    true = rng.uniform(440, 460, SHAPE).astype(np.float32)
    where = np.ones(SHAPE, bool)
    where[0] = False
    scaled = verify.aligned_depth_error(true * np.float32(1.03), true, where)
    # float32 resolves 450 mm to 3e-5 mm
    assert np.nanmax(np.abs(scaled)) < 3e-4
    assert np.isnan(scaled[0]).all()
    metrics = verify.depth(scaled, true * np.float32(1.03), true, "thing", 0.3)
    assert value_of(metrics, "scale") == pytest.approx(3.0, abs=1e-3)
    checker = np.where(np.indices(SHAPE).sum(axis=0) % 2, 0.5, -0.5).astype(np.float32)
    bumpy = verify.aligned_depth_error(true + checker, true, where)
    metrics = verify.depth(bumpy, true + checker, true, "thing", 0.3)
    # the factor is the median's, which moves by up to half a mm over depth at most
    assert value_of(metrics, "alignment, mean error") == pytest.approx(0.5, abs=0.05)
    assert metrics[0].passed is False


@pytest.mark.parametrize("claimed", [1.0, 1.3])
def test_claimed_variance_against_scatter(mini, claimed):
    rng = np.random.default_rng(7)
    n, pixels = 12, (3, 48, 48)
    sigma = rng.uniform(1, 20, pixels)
    value = rng.normal(100, sigma, (n, *pixels)).astype(np.float32)
    variance = np.broadcast_to(claimed * sigma**2, value.shape).astype(np.float32)
    metric = verify.merge_variance(verify.MonteCarlo(value, variance), mini.known)
    # 1 / s^2 of n samples: relative standard deviation of the mean over the pixels
    spread = 100 * np.sqrt(2 / (n - 5) / np.prod(pixels))
    assert metric.value == pytest.approx(100 * (claimed - 1), abs=4 * spread)


def test_crop_cuts_every_map():
    rng = np.random.default_rng(9)
    maps = {
        "dark_map": rng.normal(0, 1, SHAPE).astype(np.float32),
        "dark_rate_map": rng.normal(0, 1, SHAPE).astype(np.float32),
        "flat_map": rng.normal(1, 0.01, SHAPE).astype(np.float32),
        "defects": rng.random(SHAPE) < 0.1,
    }
    model = RadiometricModel.nominal("Mono12", SHAPE).replace(**maps)
    window = slice(10, 30), slice(5, 45)
    part = verify.crop(model, window)
    assert part.shape == (20, 40)
    for name, values in maps.items():
        assert np.array_equal(getattr(part, name), values[window])
    dn = np.full(SHAPE, 1000, np.uint16)
    whole = model.linearize(dn, 0.02)
    cut = part.linearize(dn[window], 0.02)
    assert np.array_equal(cut.value, whole.value[window], equal_nan=True)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_claimed_sigma_of_normals_against_scatter(mini, twin, true_lights, scale):
    """Variances halved make claimed sigmas 1 / sqrt(2) of the scatter: the number says so."""
    maps = twin.maps("relief", CAMERA)
    window = slice(140, 164), slice(220, 244)
    names = list(true_lights)
    lit = [twin.clean_radiance("relief", {name: 1.0}, CAMERA)[window] for name in names]
    ambient = twin.clean_radiance("relief", {}, CAMERA)
    rng = np.random.default_rng(8)
    clean = np.array(lit, np.float64)
    sigma = 0.005 * clean
    n = 8
    value = rng.normal(clean, sigma, (n, *clean.shape)).astype(np.float32)
    variance = np.broadcast_to(scale * sigma**2, value.shape).astype(np.float32)
    metric = verify.normal_sigma(
        verify.MonteCarlo(value, variance),
        ambient,
        list(true_lights.values()),
        twin.lens(CAMERA),
        maps.depth_mm,
        window,
        np.ones(maps.depth_mm.shape, bool),
        "relief",
        mini.known,
    )
    freedom = 2 * (n - 1) * 24 * 24
    spread = 100 * np.sqrt(scale) * stats.norm.ppf(0.9999) / np.sqrt(2 * freedom)
    assert metric.value == pytest.approx(100 * (1 - np.sqrt(scale)), abs=spread)
