"""How errors of the lights turn normals: claimed, against lights drawn from their covariance."""

from typing import Any

import numpy as np
import pytest
from relief_scene import Scene, dome, lens, render

from calibration.geometry import angle_deg, normalize, tangent_basis
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Gloss, NormalMap, sight, solve

WIDTH, HEIGHT = 36, 32
INTENSITY_SIGMA = 0.005
DRAWS = 40


def _spread(rng: np.random.Generator, size: int, sigma: float) -> Any:
    """A covariance of no particular axes."""
    a = rng.normal(size=(size, size))
    c = a @ a.T + 0.2 * np.eye(size)
    return c * sigma**2 * size / np.trace(c)


def _uncertain(lights: Any, sigma: float) -> list[DistantLight | NearLight]:
    rng = np.random.default_rng(5)
    return [
        light.replace(
            covariance=_spread(rng, 3 if light.kind == "near" else 2, sigma),
            intensity_sigma=(INTENSITY_SIGMA * light.intensity[0],),
        )
        for light in lights
    ]


def _drawn(light: Any, middle: Any, rng: np.random.Generator) -> Any:
    """The light as another calibration might have found it: of the same irradiance at the object."""
    step = np.linalg.cholesky(light.covariance) @ rng.normal(size=len(light.covariance))
    gain = 1 + INTENSITY_SIGMA * rng.normal()
    if light.kind == "near":
        moved = light.replace(position_mm=tuple(np.array(light.position_mm) + step))
        gain *= float(light.at(middle)[1][0] / moved.at(middle)[1][0])
    else:
        moved = light.replace(
            direction=tuple(normalize(np.array(light.direction) + step @ tangent_basis(light.direction)))
        )
    return moved.replace(intensity=(gain * light.intensity[0],))


def _distant() -> list[DistantLight]:
    return [DistantLight(direction=tuple(-np.array(x.axis)), intensity=(2e4,)) for x in dome(16)]


def _solve(scene: Scene, lights: Any, method: Any) -> NormalMap:
    return solve(
        scene.radiance, scene.variance, lights,
        lens=lens(WIDTH, HEIGHT), depth_mm=scene.depth_mm, mask=scene.mask, method=method,
        gloss=Gloss(1.0, 0.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("near", "method", "sigma"),
    [(False, "least-squares", np.radians(0.3)), (True, "least-squares", 1.5), (True, "robust", 1.5)],
)
def test_claimed_turn_is_the_scatter_over_drawn_lights(near: bool, method: Any, sigma: float) -> None:
    scene = render(lens(WIDTH, HEIGHT), dome(16) if near else _distant())
    lights = _uncertain(scene.lights, sigma)
    rays = sight(lens(WIDTH, HEIGHT), np.arange(HEIGHT), np.arange(WIDTH))
    middle = (rays * scene.depth_mm[..., None])[scene.mask].mean(axis=0)
    found = _solve(scene, lights, method)
    rng = np.random.default_rng(2)
    turned = [
        angle_deg(_solve(scene, [_drawn(x, middle, rng) for x in lights], method).normals, found.normals)
        for _ in range(DRAWS)
    ]
    assert found.sigma_lights_deg is not None
    ratio = (np.sqrt(np.mean(np.square(turned), axis=0)) / found.sigma_lights_deg)[scene.judged]
    # Two angles of 40 draws: 8 % of chance at a pixel, and all pixels share the draws.
    assert np.median(ratio) == pytest.approx(1, abs=0.15)
    assert np.quantile(ratio, 0.05) > 0.8
    assert np.quantile(ratio, 0.95) < 1.25
    assert 0.05 < np.nanmedian(found.sigma_lights_deg) < 0.5


def test_exact_lights_claim_nothing_and_noise_is_told_apart() -> None:
    scene = render(lens(WIDTH, HEIGHT), dome(16))
    plain = _solve(scene, scene.lights, "robust")
    assert plain.sigma_lights_deg is None
    told = _solve(scene, _uncertain(scene.lights, 1.5), "robust")
    assert np.array_equal(told.sigma_deg, plain.sigma_deg, equal_nan=True)
    assert np.array_equal(told.normals, plain.normals, equal_nan=True)
    part = told.crop(np.s_[4:10], np.s_[3:20])
    assert told.sigma_lights_deg is not None
    assert np.array_equal(part.sigma_lights_deg, told.sigma_lights_deg[4:10, 3:20])


def test_order_of_the_lights_changes_no_claim() -> None:
    scene = render(lens(WIDTH, HEIGHT), dome(16))
    lights = _uncertain(scene.lights, 1.5)
    turned = scene._replace(radiance=scene.radiance[::-1], variance=scene.variance[::-1])
    there, back = _solve(scene, lights, "robust"), _solve(turned, lights[::-1], "robust")
    assert there.sigma_lights_deg is not None
    assert np.array_equal(there.sigma_lights_deg, back.sigma_lights_deg, equal_nan=True)
