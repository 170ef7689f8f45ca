"""Mixtures of reflectances against numpy and scipy, on materials in no bank of theirs, and their choice."""

from typing import Any

import numba
import numpy as np
import pytest
from relief_scene import dome, lens, render
from scipy.optimize import nnls

from calibration.geometry import angle_deg, normalize
from calibration.lights.model import DistantLight
from calibration.photometric import NormalMap, solve
from calibration.photometric.bank import BANKS, Mixture, Reflectance
from calibration.photometric.kernels import BIWEIGHT, reflectances
from calibration.photometric.kernels import nnls as compiled_nnls
from calibration.photometric.kernels.mixture import BANK_ERROR
from calibration.photometric.kernels.samples import HX, LX, ROWS
from calibration.photometric.mixture import common, fit, learn
from calibration.photometric.pixels import Pixels, rms

BANK = BANKS["whole bank"]
EYE = np.array([0.0, 0.0, -1.0])
NOISE = 0.002  # of a white wall facing a lamp


def ring(count: int, widest_deg: float = 50.0) -> Any:
    """Directions spread evenly over a cap around the camera."""
    k = np.arange(count) + 0.5
    z = 1 - (1 - np.cos(np.radians(widest_deg))) * k / count
    turn = k * np.pi * (3 - 5**0.5)
    return np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), -z], axis=-1)


def cap(size: int = 18, widest: float = 0.8) -> Any:
    """Normals of a sphere about the line of sight."""
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    x, y = widest * x / np.sqrt(2), widest * y / np.sqrt(2)
    return np.stack([x, y, -np.sqrt(1 - x**2 - y**2)], axis=-1)


def coated_plastic(n: Any, light: Any, eye: Any) -> Any:
    """Ashikhmin and Shirley's: a body under a coat and a sharp highlight. In no bank of ours."""
    nl, nv = np.maximum(np.sum(n * light, axis=-1), 0), np.maximum(np.sum(n * eye, axis=-1), 0.02)
    half = normalize(light + eye)
    nh, vh = np.maximum(np.sum(n * half, axis=-1), 0), np.sum(half * eye, axis=-1)
    body = 28 / 23 * 0.95 * (1 - (1 - nl / 2) ** 5) * (1 - (1 - nv / 2) ** 5) * nl
    fresnel = 0.05 + 0.95 * (1 - vh) ** 5
    lobe = 301 / 8 * nh**300 * fresnel / (np.maximum(vh, 0.05) * np.maximum(nl, nv)) * nl
    return body[..., None] * [0.5, 0.15, 0.1] + lobe[..., None]


def rough(n: Any, light: Any, eye: Any) -> Any:
    """Oren and Nayar's with both signs of their second term, which the bank leaves out."""
    nl, nv = np.maximum(np.sum(n * light, axis=-1), 0), np.sum(n * eye, axis=-1)
    s = np.sum(light * eye, axis=-1) - nl * nv
    t = np.where(s > 0, s / np.maximum(np.maximum(nl, nv), 0.02), s)
    return (nl * (1 - 0.5 * 0.36 / 0.69 + 0.45 * 0.36 / 0.45 * t))[..., None] * [0.7, 0.6, 0.5]


def matt(n: Any, light: Any, eye: Any) -> Any:
    return np.maximum(np.sum(n * light, axis=-1), 0)[..., None] * [0.6, 0.4, 0.2]


def shoot(material: Any, count: int, normals: Any = None, *, seed: int = 0, noise: float = NOISE) -> Any:
    """Images, variance and lights of a cap of a material."""
    normals = cap() if normals is None else normals
    directions = ring(count)
    images = np.array([material(normals, d, EYE) for d in directions])
    images = images + noise * np.random.default_rng(seed).normal(size=images.shape)
    lights = [DistantLight(direction=tuple(d), intensity=(1.0, 1.0, 1.0)) for d in directions]
    return images.astype(np.float32), np.full(images.shape, noise**2, np.float32), lights


def run(shot: Any, method: Any = "mixture") -> NormalMap:
    images, variance, lights = shot
    return solve(images, variance, lights, mask=np.ones(images.shape[1:3], bool), method=method)


# The compiled parts against numpy and scipy


def test_compiled_reflectances_are_the_documented_ones() -> None:
    rng = np.random.default_rng(0)
    mixture = Mixture(BANK, np.eye(len(BANK)))
    for _ in range(20):
        light = normalize(rng.normal(size=(24, 3)) - [0, 0, 1.5])
        n, eye = normalize(rng.normal(size=3) * [0.5, 0.5, 0.1] - [0, 0, 1]), normalize([0.1, -0.2, -1.0])
        work = np.zeros((ROWS, 24))
        work[LX : LX + 3], work[HX : HX + 3] = light.T, normalize(light + eye).T
        out = np.zeros((len(BANK), 24))
        reflectances.respond(n, eye, mixture.kinds, mixture.widths, np.ones(len(BANK)), work, out)
        wanted = np.array([part.respond(n, light, eye) for part in BANK])
        assert np.allclose(out, wanted, rtol=1e-9, atol=1e-12)


def test_textbook_values_of_the_bank() -> None:
    slant = normalize([0.0, np.sin(1.0), -np.cos(1.0)])
    assert Reflectance("lambert").respond(EYE, slant, EYE) == pytest.approx(np.cos(1.0))
    # Straight on a lobe's D is 1 / (pi a^2) and the rest 1/4, times pi a^4 / 2.
    assert Reflectance("lobe", 0.3).respond(EYE, EYE, EYE) == pytest.approx(1 / 8 * 0.3**2 / 0.3**4 / 2)
    assert Reflectance("coated", 5).respond(EYE, slant, EYE) == pytest.approx(
        np.cos(1.0) * (1 - (1 - np.cos(1.0)) ** 5)
    )
    assert Reflectance("ambient").respond(EYE, -EYE, EYE) == pytest.approx(0)
    # Both lobes have the same peak; at a slope of two alphas Beckmann's is exp(-4) of it, order 16 near that.
    half = normalize([0.0, 0.6, -1.0])
    shape = [Reflectance(kind, 0.3).respond(half, EYE, EYE) for kind in ("lobe", "compact")]
    assert Reflectance("compact", 0.3).respond(EYE, EYE, EYE) == pytest.approx(1 / 16 / 0.3**2)
    assert shape[0] / shape[1] == pytest.approx((1 + 4) ** -2 / (1 + 4 / 15) ** -16)


def test_compiled_shares_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        light = normalize(rng.normal(size=(24, 3)) - [0, 0, 1.5])
        n = normalize(rng.normal(size=3) * [0.4, 0.4, 0.1] - [0, 0, 1])
        rows = np.array([part.respond(n, light, EYE) for part in BANK])
        sample = (rng.uniform(0, 1, len(BANK)) * (rng.random(len(BANK)) < 0.3)) @ rows
        sample = sample + 0.02 * rng.normal(size=24)
        weight, prior = rng.uniform(100, 1000, 24), 0.5 * np.eye(len(BANK))
        g, rhs, size = (rows * weight) @ rows.T + prior, (rows * weight) @ sample, len(BANK)
        shares = np.zeros(size)
        room = np.empty(size, np.int64), np.empty((size, size)), np.empty(size)
        compiled_nnls.nonnegative(g, rhs, shares, *room)
        stacked = np.vstack([np.sqrt(weight)[:, None] * rows.T, np.sqrt(prior)])
        wanted = nnls(stacked, np.concatenate([np.sqrt(weight) * sample, np.zeros(size)]))[0]
        assert (shares >= 0).all()
        cost = shares @ g @ shares - 2 * rhs @ shares
        least = wanted @ g @ wanted - 2 * rhs @ wanted
        assert cost == pytest.approx(least, rel=1e-6)


def test_solution_is_a_minimum_of_the_reference() -> None:
    """Tukey's weights and shares by numpy and scipy: no turn of a solved normal costs less."""
    images, variance, lights = shoot(coated_plastic, 32, cap(12))
    pixels = Pixels.prepare(
        images, variance, lights, np.array([[[0, 0, 1]]], np.float32), np.ones((12, 12), bool)
    )
    starts = np.stack([pixels.solve(robust=True).normals, pixels.solve(robust=False).normals])
    mixture = learn(pixels, starts, BANK)
    found = fit(pixels, starts, mixture, shares=True)
    samples, noise = pixels.packed()
    scale = rms(samples)
    samples, noise = samples / scale, noise / scale**2
    root = np.linalg.cholesky(mixture.precision).T
    for at in (20, 77, 130):
        gain = 1 / (BANK_ERROR**2 + noise[:, at].mean(axis=0))
        gain *= 3 / gain.sum()
        spread = BANK_ERROR**2 + (noise[:, at] * gain).mean(axis=1)
        normal = found.normals.reshape(-1, 3)[at].astype(float)
        shares = found.shares.reshape(-1, 3, len(mixture.bank))[at] / scale[at][:, None]

        def residual(n: Any, shares: Any, at: int = at) -> Any:
            rows = np.array([part.respond(n, pixels.directions, EYE) for part in mixture.bank])
            return samples[:, at] - rows.T @ shares.T, rows

        r, _ = residual(normal, shares)
        square = (r**2 * gain).mean(axis=1) / spread
        wide = np.clip(1.4826 * np.sqrt(np.median(square)), 1, 2)
        weight = np.clip(1 - square / (BIWEIGHT * wide) ** 2, 0, None) ** 2 / (spread * wide**2)

        def cost(n: Any, at: int = at, weight: Any = weight, gain: Any = gain, shares: Any = shares) -> float:
            _, rows = residual(n, shares)
            total = 0.0
            for c in range(3):
                w = np.sqrt(weight * gain[c])
                stacked = np.vstack([w[:, None] * rows.T, root])
                wanted = np.concatenate([w * samples[:, at, c], np.zeros(len(root))])
                total += nnls(stacked, wanted)[1] ** 2
            return total

        here = cost(normal)
        for turn in ([1e-2, 0, 0], [-1e-2, 0, 0], [0, 1e-2, 0], [0, -1e-2, 0]):
            assert cost(normalize(normal + turn)) > here


# Materials that are in no bank


# Of normals within 50 degrees of the camera a rough surface's cannot be told from those of one less steep.
@pytest.mark.parametrize(("material", "widest", "bound"), [(coated_plastic, 0.8, 0.9), (rough, 0.97, 1.6)])
def test_materials_that_are_not_lambertian(material: Any, widest: float, bound: float) -> None:
    normals = cap(widest=widest)
    shot = shoot(material, 48, normals)
    found = run(shot, "auto")
    errors = angle_deg(found.normals, normals)
    assert found.method == "mixture"
    assert found.reason is not None
    assert found.reason.startswith("whole bank: foretells best")
    assert errors.mean() < bound
    assert errors.mean() < 0.25 * angle_deg(run(shot, "robust").normals, normals).mean()
    assert 0.6 < np.sqrt(np.mean(errors**2) / np.mean(found.sigma_deg**2)) < 1.6
    assert found.valid.all()
    assert np.median(found.lights_used) >= 40


def test_albedo_is_that_of_the_body() -> None:
    images, variance, lights = shoot(matt, 32)
    found = run((images, variance, lights))
    # Noise of 0.2 % over 32 lamps and 324 pixels is nothing; the shares of rough and coated bodies are.
    assert np.allclose(found.albedo.mean(axis=(0, 1)), [0.6, 0.4, 0.2], rtol=0.03)


def test_a_matt_object_and_few_lights_keep_the_robust_solver() -> None:
    plain = run(shoot(matt, 24), "auto")
    assert plain.method == "robust"
    assert plain.reason is not None
    assert plain.reason.startswith("matt or one lobe")
    few = run(shoot(coated_plastic, 7, cap(6)), "auto")
    assert few.method == "robust"
    assert "fewer than 8 lights" in (few.reason or "")
    assert run(shoot(matt, 8, cap(6)), "robust").reason is None
    three = run(shoot(matt, 3, cap(6)), "mixture")
    assert three.method == "robust"
    assert three.reason == "3 lights tell no mixture, which wants 4, better 8"


@pytest.mark.parametrize(("material", "bound"), [(matt, 1.2), (rough, 5.0)])
def test_half_of_the_lights_hidden(material: Any, bound: float) -> None:
    """A dark sample is a cast shadow more readily than an error: a normal that turns from it loses."""
    normals = cap(16, 0.9)
    images, variance, lights = shoot(material, 48, normals)
    hidden = np.array([light.direction[0] for light in lights]) > 0
    noise = NOISE * np.random.default_rng(1).normal(size=images[hidden, 3:13, 3:13].shape)
    images[hidden, 3:13, 3:13] = noise
    errors = angle_deg(run((images, variance, lights)).normals, normals)
    assert hidden.mean() > 0.5
    assert errors[3:13, 3:13].mean() < bound


def test_near_lights_and_shadows() -> None:
    camera = lens(42, 36)
    scene = render(camera, dome(), gloss=(0.25, 0.05))
    found = solve(
        scene.radiance, scene.variance, scene.lights, lens=camera, depth_mm=scene.depth_mm, mask=scene.mask,
        method="mixture",
    )  # fmt: skip
    errors = angle_deg(found.normals[scene.judged], scene.normals[scene.judged])
    assert errors.mean() < 0.3
    assert np.median(found.albedo[scene.judged] / scene.albedo[scene.judged]) == pytest.approx(1, abs=0.03)
    # One lobe is what this object has: auto sees it.
    auto = solve(
        scene.radiance, scene.variance, scene.lights, lens=camera, depth_mm=scene.depth_mm, mask=scene.mask
    )
    assert auto.method == "robust"
    assert auto.roughness == pytest.approx(0.25, rel=0.05)


# Error bars


@pytest.mark.parametrize(("count", "noise"), [(24, 0.02), (10, 0.01)])
def test_sigma_is_the_scatter_on_a_matt_twin(count: int, noise: float) -> None:
    normals = cap(28, 0.7)
    found = run(shoot(matt, count, normals, noise=noise))
    errors = angle_deg(found.normals, normals)
    # 784 pixels of two degrees of freedom leave 3 % of chance.
    assert np.sqrt(np.mean(errors**2) / np.mean(found.sigma_deg**2)) == pytest.approx(1, abs=0.15)


def test_neighbours_share_errors_of_the_model_and_no_noise() -> None:
    parts = []
    for material, noise in ((matt, 0.01), (coated_plastic, 0.001)):
        images, variance, lights = shoot(material, 24, noise=noise)
        at = np.array([[[0, 0, 1]]], np.float32)
        # The noise that is told is ten times too large, and plays no part.
        pixels = Pixels.prepare(images, 100 * variance, lights, at, np.ones(images.shape[1:3], bool))
        starts = pixels.solve(robust=True).normals[None]
        mixture = Mixture(BANK, 0.01 * np.eye(len(BANK)))
        parts.append(common(pixels, fit(pixels, starts, mixture), mixture))
    # 306 pairs of 24 samples in three channels leave 0.7 % of chance.
    assert parts[0] < 0.03
    assert parts[1] > 0.15


# Invariances, missing samples


def test_order_of_lights_and_threads_change_no_bit() -> None:
    images, variance, lights = shoot(coated_plastic, 16, cap(12))
    one = run((images, variance, lights), "auto")
    order = np.random.default_rng(3).permutation(16)
    assert run((images[order], variance[order], [lights[i] for i in order]), "auto") == one
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert run((images, variance, lights), "auto") == one
    finally:
        numba.set_num_threads(threads)


def test_missing_samples_and_a_dark_channel() -> None:
    images, variance, lights = shoot(coated_plastic, 16, cap(12))
    images[..., 2] = 0.0
    images[:13, 2, 2, 0] = np.nan
    images[:14, 4, 4] = np.nan
    variance[3, 6, 6, 1] = np.nan
    before = images.copy()
    found = run((images, variance, lights))
    assert np.array_equal(images, before, equal_nan=True)
    assert found.lights_used[2, 2] == 3
    assert np.isfinite(found.sigma_deg[2, 2])
    assert not found.valid[4, 4]
    assert found.lights_used[4, 4] == 0
    assert found.valid.sum() == 143
    assert found.lights_used[6, 6] <= 15
    assert np.nanmedian(angle_deg(found.normals, cap(12))) < 2
    assert np.abs(found.albedo[..., 2][found.valid]).max() < 1e-6
