"""Intensities of lights from the object itself: against plain least squares, the truth, and bad input."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from relief_scene import dome, lens, render

from calibration.geometry import angle_deg, normalize
from calibration.lights.model import DistantLight
from calibration.photometric import estimate_intensities, solve
from calibration.provenance import FitError

SHARED = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
DATA = SHARED / "diligent" / "ballPNG"


class _Cap(NamedTuple):
    images: Any
    variance: Any
    lights: list[DistantLight]
    factor: Any
    normals: Any


def _cap(lights: int = 8, *, seed: int = 0, reach: float = 0.6, noise: float = 0.01, size: int = 40) -> _Cap:
    """A matt cap under distant lights whose intensities differ by 40 %; ``reach`` is the sine of its rim."""
    rng = np.random.default_rng(seed)
    y, x = reach * (2 * np.mgrid[:size, :size] / (size - 1) - 1)
    normals = normalize(np.stack([x, y, -np.sqrt(1 - np.minimum(x**2 + y**2, 0.96))], axis=-1))
    turn = 2 * np.pi * (np.arange(lights) + rng.uniform(-0.3, 0.3, lights)) / lights
    tilt = np.radians(rng.uniform(20, 50, lights))
    towards = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), -np.cos(tilt)], axis=1)
    factor = rng.uniform(0.6, 1.4, lights)
    albedo = rng.uniform(0.3, 0.9, normals.shape[:2])
    clean = factor[:, None, None] * albedo * np.clip(np.einsum("yxi,ni->nyx", normals, towards), 0, None)
    variance = noise**2 * (0.5 * clean + 0.0025)
    images = clean + np.sqrt(variance) * rng.normal(size=clean.shape)
    return _Cap(
        images.astype(np.float32),
        variance.astype(np.float32),
        [DistantLight(direction=tuple(d)) for d in towards],
        factor / factor.mean(),
        normals,
    )


def _estimate(cap: _Cap, **options: Any) -> Any:
    return estimate_intensities(
        cap.images, cap.variance, cap.lights, mask=np.ones(cap.images.shape[1:], bool), **options
    )


def test_it_is_alternating_least_squares() -> None:
    cap = _cap(noise=1e-3, seed=3, size=20)
    found = _estimate(cap)
    directions = np.array([light.direction for light in cap.lights])
    samples = cap.images.reshape(8, -1).astype(float)
    samples = samples[:, (directions @ cap.normals.reshape(-1, 3).T > 0.15).all(axis=0)]
    factor = np.ones(8)
    for _ in range(600):
        b = np.linalg.lstsq(factor[:, None] * directions, samples)[0]
        shading = directions @ b
        factor = (samples * shading).sum(axis=1) / (shading**2).sum(axis=1)
        factor /= factor.mean()
    # The weights of the two differ, so noise moves them differently: by about a sigma.
    assert np.abs(found.factor[:, 0] - factor).max() < 4 * found.sigma.max()
    assert np.abs(found.factor[:, 0] - cap.factor).max() < 5e-4


def test_sigma_is_the_scatter() -> None:
    # 12 draws of 7 freedoms: one standard deviation is told to 8 %, with what lights of a draw share to 15 %.
    misses = []
    for seed in range(12):
        cap = _cap(seed=seed)
        found = _estimate(cap)
        misses.append((found.factor[:, 0] - cap.factor) / found.sigma[:, 0])
        assert found.quality.verdict == "good"
    assert 0.65 < np.sqrt(np.mean(np.square(misses))) < 1.35


def test_relief_with_shadows_under_near_lights() -> None:
    lights = dome()
    true = np.random.default_rng(5).uniform(0.6, 1.4, len(lights))
    true /= true.mean()
    camera = lens(60, 52)
    scene = render(
        camera, [x.replace(intensity=(x.intensity[0] * t,)) for x, t in zip(lights, true, strict=True)]
    )
    at: Any = {"lens": camera, "depth_mm": scene.depth_mm, "mask": scene.mask}
    found = estimate_intensities(scene.radiance, scene.variance, lights, **at)
    assert np.abs(found.factor[:, 0] - true).max() < 2e-3
    errors = [
        angle_deg(solve(scene.radiance, scene.variance, given, method="robust", **at).normals, scene.normals)[
            scene.judged
        ].mean()
        for given in (scene.lights, found.applied(lights))
    ]
    assert errors[1] < errors[0] + 0.02


def test_gloss_moves_them_by_little_more_than_it_says() -> None:
    camera, lights = lens(60, 52), dome()
    scene = render(camera, lights, gloss=(0.25, 0.05))
    found = estimate_intensities(
        scene.radiance, scene.variance, lights, lens=camera, depth_mm=scene.depth_mm, mask=scene.mask
    )
    assert np.sqrt(np.mean((found.factor - 1) ** 2)) < 0.02
    assert np.sqrt(np.mean(((found.factor - 1) / found.sigma) ** 2)) < 2


def test_order_of_the_lights_and_scale_do_not_matter() -> None:
    cap = _cap(seed=1)
    found = _estimate(cap)
    other = _estimate(
        cap._replace(images=4 * cap.images[::-1], variance=16 * cap.variance[::-1], lights=cap.lights[::-1])
    )
    assert np.allclose(other.factor[::-1], found.factor, rtol=1e-6)
    # What they are given as is only where the search starts.
    given = [light.replace(intensity=(f,)) for light, f in zip(cap.lights, cap.factor, strict=True)]
    again = _estimate(cap._replace(lights=given))
    ratio = again.factor[:, 0] * cap.factor / found.factor[:, 0]
    assert np.allclose(ratio / ratio.mean(), 1, atol=1e-3)


def test_colours_are_each_for_themselves() -> None:
    caps = [_cap(seed=2)._replace(factor=None) for _ in range(3)]
    tint = np.array([[1.0, 1.2, 0.8], *([[1.0] * 3] * 7)])
    images = np.stack([cap.images * tint[:, c, None, None] for c, cap in enumerate(caps)], axis=-1)
    variance = np.stack([cap.variance for cap in caps], axis=-1)
    mask = np.ones(images.shape[1:3], bool)
    found = estimate_intensities(images.astype(np.float32), variance, caps[0].lights, mask=mask)
    assert found.factor.shape == (8, 3)
    assert np.allclose(found.factor.mean(axis=0), 1)
    share = found.factor[0] / found.factor[1:].mean(axis=0)
    assert np.allclose(share / share[0], tint[0], rtol=0.01)
    relit = found.applied(caps[0].lights)
    assert len(relit[0].intensity) == 3
    assert relit[0].intensity_sigma == pytest.approx(found.sigma[0])


def test_a_dimmed_lamp_is_named_and_no_other() -> None:
    cap = _cap(12, seed=4)
    given = [light.replace(intensity=(f,)) for light, f in zip(cap.lights, cap.factor, strict=True)]
    images = cap.images.copy()
    images[7] *= 0.88
    found = _estimate(cap._replace(lights=given, images=images))
    told = found.contradicted([f"lamp{i:02d}" for i in range(12)])
    assert len(told) == 1
    assert told[0].startswith("lamp07 is 12 % dimmer than the light file says")
    assert not _estimate(cap._replace(lights=given)).contradicted([str(i) for i in range(12)])


def test_directions_that_all_err_alike_accuse_no_lamp() -> None:
    cap = _cap(16, seed=6)
    true = [light.replace(intensity=(f,)) for light, f in zip(cap.lights, cap.factor, strict=True)]
    flatter = np.diag([1.1, 1.0, 1.0])  # up to 3 degrees
    given = [x.replace(direction=tuple(normalize(flatter @ np.array(x.direction)))) for x in true]
    found = _estimate(cap._replace(lights=given))
    assert np.abs(found.factor - 1).max() > 0.02
    assert not found.contradicted([str(i) for i in range(16)])


def test_a_lamp_of_a_fiftieth_is_found() -> None:
    cap = _cap(seed=8)
    images, variance = cap.images.copy(), cap.variance.copy()
    images[3] *= 0.02
    variance[3] *= 0.02
    factor = np.where(np.arange(8) == 3, 0.02, 1.0) * cap.factor
    found = _estimate(cap._replace(images=images, variance=variance))
    assert np.allclose(found.factor[:, 0], factor / factor.mean(), rtol=0.01)


@pytest.mark.skipif(not DATA.is_dir(), reason="no diligent data at GNOMON_DATA")
def test_intensities_of_the_diligent_ball() -> None:
    files = (DATA / "filenames.txt").read_text().split()
    images = np.array([cv2.imread(str(DATA / f), cv2.IMREAD_UNCHANGED)[::2, ::2, 1] for f in files])
    images = np.where(images >= 65535, np.nan, images).astype(np.float32)
    directions = np.loadtxt(DATA / "light_directions.txt") * [1, -1, -1]
    told = np.loadtxt(DATA / "light_intensities.txt")[:, 1]
    mask = cv2.imread(str(DATA / "mask.png"), cv2.IMREAD_GRAYSCALE)[::2, ::2] > 0
    lights = [DistantLight(direction=tuple(d)) for d in directions]
    found = estimate_intensities(images, np.maximum(images, 0) + 400, lights, mask=mask)
    ratio = np.log(found.factor[:, 0] / told)
    # They vary by 47 %; what is left goes smoothly with the direction.
    assert np.std(ratio) < 0.025
    assert found.given_rms > 8 * found.quality.residual_rms


def test_what_does_not_tell_is_refused() -> None:
    with pytest.raises(FitError, match=r"normals are too much alike"):
        _estimate(_cap(reach=1e-6))
    with pytest.raises(FitError, match=r"3 lights: three samples a pixel"):
        _estimate(_cap(3))
    cap = _cap(seed=2)
    mask = np.zeros(cap.images.shape[1:], bool)
    mask[:2, :2] = True
    with pytest.raises(FitError, match=r"4 pixels .* too few to tell the intensities of 8 lights"):
        estimate_intensities(cap.images, cap.variance, cap.lights, mask=mask)
