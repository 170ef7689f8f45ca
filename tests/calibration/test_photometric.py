"""Photometric stereo against numpy references, a rendered relief, its own error bars, and bad input."""

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relief_scene import DEPTH_MM, Scene, dome, lens, render

from calibration.geometry import angle_deg, normalize, rotation
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Gloss, NormalMap, object_mask, solve
from calibration.photometric.kernels import BIWEIGHT, MODEL_ERROR
from calibration.photometric.solver import solve_at
from calibration.provenance import FitError


def _solve(scene: Scene, method: Any = "robust", **options: Any) -> NormalMap:
    height, width = scene.mask.shape
    return solve(
        scene.radiance, scene.variance, scene.lights, lens=lens(width, height),
        depth_mm=scene.depth_mm, mask=scene.mask, method=method, **options,
    )  # fmt: skip


def _errors(scene: Scene, found: NormalMap) -> Any:
    at = scene.judged
    assert found.valid[at].all()
    return angle_deg(found.normals[at], scene.normals[at])


@pytest.fixture(scope="module")
def matt() -> Scene:
    return render(lens(), dome())


@pytest.fixture(scope="module")
def glossy() -> Scene:
    return render(lens(), dome(), gloss=(0.25, 0.05))


def _sphere_normals(size: int = 9) -> Any:
    """Normals of a cap facing the camera, up to 45 degrees off."""
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    return normalize(np.stack([x, y, -np.sqrt(1 - x**2 - y**2)], axis=-1))


def _distant(count: int = 8, *, seed: int = 0, slant: float = 0.7) -> list[DistantLight]:
    rng = np.random.default_rng(seed)
    turn = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
    tilt = slant * rng.uniform(0.6, 1.0, count)
    return [
        DistantLight(
            direction=(np.sin(t) * np.cos(a), np.sin(t) * np.sin(a), -np.cos(t)),
            intensity=(1000 * (1 + 0.2 * i % 1),),
        )
        for i, (a, t) in enumerate(zip(turn, tilt, strict=True))
    ]


def _shade(normals: Any, lights: Any, albedo: float = 0.5) -> Any:
    return np.array(
        [
            albedo * light.intensity[0] * np.clip(normals @ normalize(light.direction), 0, None)
            for light in lights
        ],
        np.float32,
    )


# The compiled solvers against numpy


def _system(scene: Scene, y: int, x: int) -> tuple[Any, Any, Any]:
    """Light vectors, samples and variances of a pixel in units of albedo."""
    ray = lens().unproject([x, y])
    point = ray / ray[2] * scene.depth_mm[y, x]
    aimed = [light.at(point) for light in scene.lights]
    irradiance = np.array([e[0] for _, e in aimed])
    vectors = np.array([d for d, _ in aimed])
    return vectors, scene.radiance[:, y, x] / irradiance, scene.variance[:, y, x] / irradiance**2


def test_least_squares_is_numpy_lstsq(matt: Scene) -> None:
    found = _solve(matt, "least-squares")
    for y, x in ((20, 30), (50, 60), (80, 40)):
        vectors, sample, _ = _system(matt, y, x)
        b = np.linalg.lstsq(vectors, sample)[0]
        # Samples are float32, and the points too (3e-5 mm at 450 mm).
        assert angle_deg(found.normals[y, x], b) < 1e-4
        assert found.albedo[y, x] == pytest.approx(np.linalg.norm(b), rel=1e-5)
        assert found.lights_used[y, x] == 24


def test_robust_solution_is_a_fixed_point_of_the_biweight(matt: Scene) -> None:
    found = _solve(matt)
    for y, x in ((20, 30), (50, 60), (80, 40), (60, 25)):
        vectors, sample, variance = _system(matt, y, x)
        b = found.normals[y, x].astype(float) * found.albedo[y, x]
        shading = vectors @ b
        scale = np.sqrt(variance + MODEL_ERROR**2 * np.mean(sample**2))
        u = (sample - shading) / scale
        assert np.median(np.abs(u)) * 1.4826 < 1  # so that the scale is not widened
        weight = np.where(shading > 0, np.clip(1 - (u / BIWEIGHT) ** 2, 0, None), 0) / scale
        again = np.linalg.lstsq(vectors * weight[:, None], sample * weight)[0]
        assert angle_deg(again, b) < 0.002
        assert found.lights_used[y, x] == np.sum((weight * scale) ** 2 > 0.1)


def test_compiled_lobe_is_the_documented_one() -> None:
    normals, lights, gloss = _sphere_normals(), _distant(24, slant=1.0), Gloss(0.3, 0.06)
    directions = np.array([normalize(light.direction) for light in lights])
    lobe = gloss.reflect(normals, directions[:, None, None], np.array([0.0, 0.0, -1.0]))
    images = _shade(normals, lights) + np.array([x.intensity[0] for x in lights])[:, None, None] * lobe
    images = images.astype(np.float32)
    at = np.array([[[0, 0, 1]]], np.float32)
    variance = np.full_like(images, 1e-4)
    found = solve_at(images, variance, lights, at, np.ones((9, 9), bool), gloss=gloss)
    # Without noise only the samples' rounding is left (6e-8 relative).
    assert angle_deg(found.normals, normals).max() < 1e-3
    assert np.abs(found.albedo - 0.5).max() < 1e-5
    assert (found.gloss == np.float32(gloss.strength)).all()
    matt = solve_at(
        images, variance, lights, at, np.ones((9, 9), bool), method="robust", gloss=Gloss(0.3, 0.0)
    )
    assert angle_deg(matt.normals, normals).mean() > 0.3


def test_lobe_straight_on_is_the_textbook_value() -> None:
    # n = l = v: D = 1 / (pi a^2), G = 1, f = F D / 4.
    z = np.array([0.0, 0.0, -1.0])
    assert Gloss(0.25, 0.05).reflect(z, z, z) == pytest.approx(0.05 / (4 * 0.25**2))


# A rendered relief with cast shadows


def test_lambertian_relief(matt: Scene) -> None:
    found = _solve(matt)
    errors = _errors(matt, found)
    assert errors.mean() < 0.3
    assert np.quantile(errors, 0.99) < 1.0
    assert np.median(found.albedo[matt.judged] / matt.albedo[matt.judged]) == pytest.approx(1, abs=0.002)
    assert found.roughness is None
    assert found.quality is not None
    assert found.quality.verdict == "good"
    assert errors.mean() < 0.5 * _errors(matt, _solve(matt, "least-squares")).mean()


def test_glossy_relief_and_its_lobe(glossy: Scene) -> None:
    found = _solve(glossy)
    errors = _errors(glossy, found)
    assert errors.mean() < 0.5
    assert errors.mean() < 0.2 * _errors(glossy, _solve(glossy, "least-squares")).mean()
    assert found.roughness == pytest.approx(0.25, rel=0.05)
    assert np.nanmedian(found.gloss[glossy.judged]) == pytest.approx(0.05, rel=0.05)
    assert np.median(found.albedo[glossy.judged] / glossy.albedo[glossy.judged]) == pytest.approx(
        1, abs=0.005
    )


@pytest.mark.parametrize(
    ("lights", "options"),
    [
        (dome(24, seed=7), {"gloss": (0.25, 0.05), "albedo": (0.1, 0.3)}),
        (dome(24, seed=8), {"gloss": (0.25, 0.05), "amplitude": 1.6}),
        (dome(12, seed=9), {"gloss": (0.25, 0.05)}),
        (dome(24, seed=3), {"gloss": (0.4, 0.05), "albedo": (0.15, 0.4)}),
        (dome(24, seed=4), {"gloss": (0.1, 0.04)}),
    ],
    ids=["dark", "steep", "twelve lights", "rough", "sharp"],
)
def test_glossy_reliefs_of_other_kinds(lights: list[NearLight], options: dict[str, Any]) -> None:
    scene = render(lens(84, 72), lights, **options)
    errors = _errors(scene, _solve(scene))
    assert errors.mean() < 0.6
    assert errors.mean() < 0.5 * _errors(scene, _solve(scene, "least-squares")).mean()


def test_gloss_is_not_invented() -> None:
    # Few lights and much noise: a free lobe always explains a little more.
    scene = render(lens(84, 72), dome(8, seed=3), noise=0.02)
    assert _solve(scene).roughness is None


# Error bars


@pytest.mark.parametrize("method", ["least-squares", "robust"])
@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_sigma_is_the_scatter_over_seeds(method: Any, noise: float) -> None:
    runs = 24
    camera, lights = lens(36, 32), dome()
    clean = render(camera, lights, noise=noise, amplitude=0.6)
    rng = np.random.default_rng(5)
    normals, sigmas = [], []
    truth = render(camera, lights, noise=1e-9, amplitude=0.6).radiance
    for _ in range(runs):
        noisy = truth + rng.normal(size=truth.shape) * np.sqrt(clean.variance)
        found = _solve(clean._replace(radiance=noisy.astype(np.float32)), method, gloss=Gloss(1.0, 0.0))
        normals.append(found.normals)
        sigmas.append(found.sigma_deg)
    # Shadows raise the sigma of least squares on purpose: they are no scatter.
    at = clean.judged if method == "robust" else clean.mask & clean.lit.all(axis=0)
    stack = np.array(normals, float)[:, at]
    scatter = np.sum(angle_deg(stack, stack.mean(axis=0)) ** 2, axis=0) / (runs - 1)
    predicted = np.mean(np.array(sigmas)[:, at] ** 2, axis=0)
    # All pixels together: 800 pixels x 23 x 2 degrees of freedom leave 0.5 % of chance.
    assert np.sqrt(predicted.mean() / scatter.mean()) == pytest.approx(1, abs=0.08)
    # Bright and dark halves apart, so that no average hides a trend.
    bright = clean.albedo[at] > np.median(clean.albedo[at])
    for half in (bright, ~bright):
        assert np.sqrt(predicted[half].mean() / scatter[half].mean()) == pytest.approx(1, abs=0.1)


def test_sigma_grows_where_the_model_fails(glossy: Scene) -> None:
    as_matt = _solve(glossy, "least-squares")
    errors = _errors(glossy, as_matt)
    rank = np.corrcoef(
        np.argsort(np.argsort(errors)), np.argsort(np.argsort(as_matt.sigma_deg[glossy.judged]))
    )
    assert rank[0, 1] > 0.3


# Invariances


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(8)))
def test_order_of_lights_changes_no_bit(order: list[int]) -> None:
    lights = _distant()
    rng = np.random.default_rng(1)
    images = _shade(_sphere_normals(), lights) + rng.normal(size=(8, 9, 9)).astype(np.float32)
    # Outliers enough for the start, which triplets of lights vote on, to matter.
    images = np.where(rng.random(images.shape) < 0.35, np.float32(1.7) * images, images)
    variance = np.ones_like(images)
    mask = np.ones((9, 9), bool)
    for method in ("robust", "least-squares"):
        straight = solve(images, variance, lights, mask=mask, method=method)
        shuffled = solve(images[order], variance[order], [lights[i] for i in order], mask=mask, method=method)
        assert straight == shuffled


@settings(max_examples=8, deadline=None)
@given(st.integers(-6, 6))
def test_brighter_images_scale_the_albedo_only(power: int) -> None:
    lights = _distant()
    images = _shade(_sphere_normals(), lights) + np.random.default_rng(1).normal(size=(8, 9, 9)).astype(
        np.float32
    )
    mask = np.ones((9, 9), bool)
    one = solve(images, np.ones_like(images), lights, mask=mask, method="robust")
    factor = np.float32(2.0**power)  # exact in float32
    two = solve(images * factor, np.full_like(images, factor**2), lights, mask=mask, method="robust")
    assert np.array_equal(one.normals, two.normals)
    assert np.array_equal(one.sigma_deg, two.sigma_deg)
    assert np.array_equal(one.albedo * factor, two.albedo)


@settings(max_examples=8, deadline=None)
@given(st.floats(-3, 3))
def test_turning_the_rig_turns_the_normals(angle: float) -> None:
    # About the line of sight, as the view is part of the problem.
    turn = rotation([0, 0, angle])
    lights = _distant()
    turned = [x.replace(direction=tuple(turn @ np.array(x.direction))) for x in lights]
    normals = _sphere_normals()
    images = _shade(normals, lights)
    variance, mask = np.ones_like(images), np.ones((9, 9), bool)
    one = solve(images, variance, lights, mask=mask, method="robust")
    two = solve(images, variance, turned, mask=mask, method="robust")
    assert angle_deg(one.normals @ turn.T, two.normals).max() < 1e-3


def test_same_bytes_on_one_thread_and_twice(glossy: Scene) -> None:
    before = glossy.radiance.copy()
    threads = numba.get_num_threads()
    first = _solve(glossy)
    try:
        numba.set_num_threads(1)
        assert _solve(glossy) == first
    finally:
        numba.set_num_threads(threads)
    assert np.array_equal(glossy.radiance, before)


# Colour, missing samples, mixed lights


def test_colour_gives_an_albedo_per_channel() -> None:
    normals = _sphere_normals()
    rho, power = np.array([0.7, 0.3, 0.1]), (900.0, 1000.0, 400.0)
    lights = [light.replace(intensity=power) for light in _distant(12)]
    shading = np.clip(np.einsum("hwc,nc->nhw", normals, [x.direction for x in lights]), 0, None)
    images = shading[..., None] * rho * power
    rng = np.random.default_rng(2)
    noisy = (images + rng.normal(size=images.shape)).astype(np.float32)
    found = solve(noisy, np.ones_like(noisy), lights, mask=np.ones((9, 9), bool), method="robust")
    assert found.albedo.shape == (9, 9, 3)
    # Noise of 1 in signals of 630, 300, 40, twelve lights: 0.05, 0.1, 0.8 % per pixel, 9 times less over 81.
    assert np.allclose(found.albedo.mean(axis=(0, 1)), rho, rtol=0.003)
    # Red alone: sigma of a sample 1/630 of albedo; the matched filter is never worse.
    red = solve(
        noisy[..., 0], np.ones_like(noisy[..., 0]),
        [x.replace(intensity=power[:1]) for x in lights], mask=np.ones((9, 9), bool), method="robust",
    )  # fmt: skip
    assert np.mean(angle_deg(found.normals, normals)) < np.mean(angle_deg(red.normals, normals))
    assert np.median(found.sigma_deg) < np.median(red.sigma_deg)


def test_missing_samples_are_left_out() -> None:
    normals, lights = _sphere_normals(), _distant(8)
    images = _shade(normals, lights)
    images[:5, 2, 2] = np.nan
    images[:6, 4, 4] = np.nan
    images[2, 6, 6] = np.nan
    variance = np.full_like(images, 1e-4)
    for method in ("robust", "least-squares"):
        found = solve(images, variance, lights, mask=np.ones((9, 9), bool), method=method)
        assert not found.valid[4, 4]
        assert np.isnan(found.normals[4, 4]).all()
        assert np.isnan(found.sigma_deg[4, 4])
        assert found.lights_used[4, 4] == 0
        assert found.valid.sum() == 80
        assert found.lights_used[2, 2] == 3
        assert found.lights_used[6, 6] == 7
        assert np.nanmax(angle_deg(found.normals, normals)) < 0.01


def test_distant_and_near_lights_mix(matt: Scene) -> None:
    # A near light moved far away on its ray is a distant one.
    camera = lens(36, 32)
    lights = dome()
    far = []
    for light in lights[:12]:
        away = -np.array(light.axis)
        far.append(NearLight(position_mm=tuple(np.array([0, 0, DEPTH_MM]) + 1e7 * away), intensity=(2e18,)))
    scene = render(camera, [*far, *lights[12:]])
    as_distant = [DistantLight(direction=tuple(-np.array(x.axis)), intensity=(2e4,)) for x in lights[:12]]
    one = _solve(scene)
    two = _solve(scene._replace(lights=[*as_distant, *lights[12:]]))
    # The ray to the far light turns by 60 mm / 1e7 mm over the object.
    assert angle_deg(one.normals[scene.judged], two.normals[scene.judged]).max() < 0.01


# Mask


def test_mask_finds_the_object_on_a_dim_backdrop() -> None:
    scene = render(lens(), dome(), albedo=(0.2, 0.9), backdrop=0.03)
    found = object_mask(scene.radiance, scene.variance)
    inner = np.zeros_like(scene.mask)
    inner[1:-1, 1:-1] = (
        scene.mask[1:-1, 1:-1]
        & scene.mask[2:, 1:-1]
        & scene.mask[:-2, 1:-1]
        & scene.mask[1:-1, 2:]
        & scene.mask[1:-1, :-2]
    )
    assert (found & ~scene.mask).sum() == 0
    assert (inner & ~found).sum() <= 0.01 * inner.sum()


def test_mask_of_a_picture_full_of_object_is_full() -> None:
    scene = render(lens(), dome(), albedo=(0.2, 0.9))
    assert object_mask(scene.radiance, scene.variance).mean() > 0.97


def test_mask_keeps_holes_and_drops_specks_and_darkness() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 60), bool)
    truth[10:50, 10:50] = True
    truth[25:30, 25:30] = False
    images = np.where(truth, 500.0, 0.0) * np.ones((6, 1, 1))
    images[:, 2:5, 2:5] = 500  # a speck of nine pixels
    images[2, 20, 20] = np.nan
    noisy = (images + rng.normal(size=images.shape) * 5).astype(np.float32)
    assert np.array_equal(object_mask(noisy, np.full_like(noisy, 25)), truth)
    dark = rng.normal(size=(6, 60, 60)).astype(np.float32)
    assert not object_mask(dark, np.ones_like(dark)).any()


# Bad input


def _call(**changes: Any) -> NormalMap:
    images = np.ones((8, 9, 9), np.float32)
    arguments = {"lights": _distant(), "mask": np.ones((9, 9), bool), **changes}
    radiance = arguments.pop("radiance", images)
    variance = arguments.pop("variance", np.ones_like(radiance))
    return solve(radiance, variance, arguments.pop("lights"), **arguments)


_FLAT = [DistantLight(direction=(np.sin(a), 0, -np.cos(a))) for a in np.linspace(-0.8, 0.8, 8)]
_COLOURED = [x.replace(intensity=(1.0, 1.0, 1.0)) for x in _distant()]
_ONES = np.ones((8, 9, 9), np.float32)
_NEAR = [NearLight(position_mm=(0, 0, 0))] * 8


@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (FitError, "2 lights: photometric stereo needs 3", {"radiance": _ONES[:2], "lights": _distant(2)}),
        (FitError, "one plane", {"lights": _FLAT}),
        (FitError, "mask holds no pixel", {"mask": np.zeros((9, 9), bool)}),
        (FitError, "mask holds no pixel", {"mask": None, "radiance": np.zeros((8, 9, 9), np.float32)}),
        (FitError, "no pixel has three usable samples", {"radiance": np.full((8, 9, 9), np.nan, np.float32)}),
        (ValueError, "8 images but 7 lights", {"lights": _distant(7)}),
        (ValueError, r"mask is \(3, 3\)", {"mask": np.ones((3, 3), bool)}),
        (ValueError, "variance is", {"variance": np.ones((7, 9, 9), np.float32)}),
        (ValueError, "radiance is", {"radiance": np.ones((8, 9, 9, 2), np.float32)}),
        (ValueError, "light 0 is near", {"lights": _NEAR}),
        (ValueError, "lens is for 104 rows", {"lens": lens(), "depth_mm": 450.0}),
        (ValueError, "light 0 has 3 intensities", {"lights": _COLOURED}),
        (ValueError, "method", {"method": "magic"}),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(error: type[Exception], message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(error, match=message) as caught:
        _call(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [3, 4])
def test_three_lights_are_said_to_leave_nothing_to_check(count):
    lights = _distant(count)
    images = _shade(_sphere_normals(), lights)
    quality = solve(images, np.full_like(images, 1.0), lights, method="robust").quality
    assert any("no residual checks the normals" in line for line in quality.warnings) == (count == 3)
    assert (quality.verdict == "good") == (count > 3)


@pytest.mark.parametrize("slant", [0.25, 0.6])
def test_lights_that_hardly_differ_are_told_with_their_numbers(slant):
    # Four lights at an angle t around the view have singular values 2 cos t, and sqrt(2) sin t twice.
    turn = np.pi / 2 * np.arange(4)
    directions = np.stack(
        [np.sin(slant) * np.cos(turn), np.sin(slant) * np.sin(turn), -np.cos(slant) + 0 * turn], axis=-1
    )
    lights = [DistantLight(direction=tuple(d.tolist()), intensity=(1000.0,)) for d in directions]
    images = _shade(_sphere_normals(), lights)
    warnings = solve(images, np.full_like(images, 1.0), lights, method="robust").quality.warnings
    least = np.sqrt(2) * np.sin(slant)
    told = [line for line in warnings if f"{2 * np.cos(slant):.2f}, {least:.2f}, {least:.2f}" in line]
    assert len(told) == (least < 0.5)
    assert all(f"{1 / least:.1f} times as much" in line for line in told)
