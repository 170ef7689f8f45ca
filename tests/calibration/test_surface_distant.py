"""Distant lights: samples in shadows that the surface casts are left out where the images confirm it."""

from typing import Any

import numpy as np
import pytest
from relief_scene import Scene, dome, lens, render

from calibration.geometry import angle_deg
from calibration.lens import LensModel
from calibration.lights.model import DistantLight
from calibration.photometric import Gloss, solve
from calibration.surface import reconstruct
from calibration.surface.distant import without_shadows

WIDTH, HEIGHT = 84, 72
LENS = lens(WIDTH, HEIGHT)
MATT = Gloss(1.0, 0.0)


def _lights(count: int = 24) -> list[DistantLight]:
    return [DistantLight(direction=tuple(-np.array(x.axis)), intensity=(2e4,)) for x in dome(count)]


@pytest.fixture(scope="module")
def deep() -> Scene:
    return render(LENS, _lights(), amplitude=3.5)


def _hidden(scene: Scene, camera: LensModel | None = LENS, **changes: Any) -> Any:
    given = {"radiance": scene.radiance, "variance": scene.variance, "lights": scene.lights, **changes}
    lit, _, _ = without_shadows(
        given["radiance"], given["variance"], given["lights"], camera, scene.mask, MATT
    )
    return np.isnan(lit) & np.isfinite(given["radiance"])


def test_what_is_left_out_is_in_shadow(deep: Scene) -> None:
    before = deep.radiance.copy()
    hidden = _hidden(deep)
    assert np.array_equal(deep.radiance, before)
    at = deep.judged
    cast = ~deep.lit & at
    assert (hidden & deep.lit & at).sum() < 1e-3 * cast.sum()
    # All but the rims, where a shadow ends between pixels, and what merely faces away.
    assert (hidden & cast).sum() > 0.8 * cast.sum()
    assert (~hidden).sum(axis=0).min() >= 4


def test_deep_relief_under_distant_lights() -> None:
    view = lens(60, 52)
    scene = render(view, _lights(), amplitude=3.5)
    given = (scene.radiance, scene.variance, scene.lights)
    options: Any = {"lens": view, "mask": scene.mask, "method": "mixture", "gloss": MATT}
    plain, found = solve(*given, **options), reconstruct(*given, **options).normals
    dark = scene.judged & (scene.lit.sum(axis=0) <= 14)
    assert dark.sum() > 30
    kept, left_out = (angle_deg(x.normals, scene.normals)[dark] for x in (plain, found))
    assert np.isfinite(left_out).all()
    # How much shadows hurt hangs on the solver; without them it is what noise makes of ten lights.
    assert np.nanmean(left_out) < min(0.8 * np.nanmean(kept), 0.4)
    assert found.lights_used[dark].mean() < plain.lights_used[dark].mean()


def test_a_wrong_surface_throws_out_no_good_sample(deep: Scene) -> None:
    # Attached shadows only: whatever the integrated surface throws, the images have it lit.
    rng = np.random.default_rng(0)
    flat = render(LENS, _lights(), amplitude=0.4)
    tilted = [
        light.replace(direction=tuple(np.array(light.direction) + rng.normal(size=3) * 0.15))
        for light in flat.lights
        if isinstance(light, DistantLight)
    ]
    hidden = _hidden(flat, lights=tilted)
    assert (hidden & flat.lit).sum() < 1e-3 * flat.lit.sum()
    # A shadow that geometry finds and a lamp of its own fills: nothing of that light may be left out there.
    cast = _hidden(deep)
    filled = deep.radiance.copy()
    light = int(cast.sum(axis=(1, 2)).argmax())
    direction = np.array(deep.lights[light].at([0.0, 0.0, 450.0])[0])
    shading = 2e4 * deep.albedo * np.clip(deep.normals @ direction, 0, None)
    filled[light] = shading
    again = _hidden(deep, radiance=filled)
    facing = deep.normals @ direction > 0.2
    assert cast[light][facing].sum() > 20
    assert again[light][facing].sum() < 0.05 * cast[light][facing].sum()


def test_larger_pictures_find_their_shadows_on_a_coarser_grid(
    deep: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = _hidden(deep)
    monkeypatch.setattr("calibration.surface.distant._COARSE_PIXELS", 1200)
    coarse = _hidden(deep)
    assert 0.85 * fine.sum() < (coarse & fine).sum()
    assert (coarse & deep.lit & deep.judged).sum() < 0.02 * coarse.sum()


def test_an_orthographic_view_and_colour() -> None:
    # A post of 12 px on a plane: its shadow is as long as geometry has it.
    y, x = np.mgrid[:60, :60].astype(float)
    away = np.hypot(x - 30, y - 30)
    height = 12 / (1 + np.exp((away - 8) / 1.2))
    slope = np.gradient(-height)
    normals = np.stack([slope[1], slope[0], -np.ones_like(x)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    lights = _lights(16)
    towards = np.array([light.direction for light in lights])
    lit = np.einsum("ni,hwi->nhw", towards, normals) > 0
    for light, (dx, dy, dz) in enumerate(towards):
        for t in np.arange(0.5, 60, 0.25):
            there = np.hypot(x + t * dx - 30, y + t * dy - 30)
            lit[light] &= 12 / (1 + np.exp((there - 8) / 1.2)) < height - t * dz + 0.2
    shading = np.einsum("ni,hwi->nhw", towards, normals) * lit
    image = (2e4 * shading[..., None] * np.array([0.6, 0.4, 0.2])).astype(np.float32)
    scene = Scene(
        image, np.full_like(image, 400.0), list(lights), normals, -height, x, lit, np.ones(x.shape, bool)
    )
    hidden = _hidden(scene, None)
    assert (hidden.all(axis=3) == hidden.any(axis=3)).all()
    gone = hidden.any(axis=3)
    assert gone.sum() > 0.6 * (~lit).sum()
    assert (gone & lit).sum() < 0.01 * gone.sum()


def test_what_faces_away_is_kept_for_a_mixture(deep: Scene) -> None:
    given = (deep.radiance, deep.variance, deep.lights, LENS, deep.mask, MATT)
    every, cast = (np.isnan(without_shadows(*given, attached=which)[0]) for which in (True, False))
    assert not (cast & ~every).any()
    towards = np.array([light.at([0.0, 0.0, 450.0])[0] for light in deep.lights])
    facing = np.einsum("ni,hwi->nhw", towards, deep.normals)
    # A degree or so from the terminator the normals decide, which have noise.
    assert (cast & (facing < -0.05) & deep.judged).sum() < 0.02 * cast.sum()
    assert (every & ~cast & (facing > 0.05) & deep.judged).sum() < 0.02 * cast.sum()
    assert (every & ~cast).sum() > 0.2 * every.sum()


def test_nothing_to_leave_out_gives_the_same_array() -> None:
    flat = render(LENS, _lights(), amplitude=0.2)
    lit, _, _ = without_shadows(flat.radiance, flat.variance, flat.lights, LENS, flat.mask, MATT)
    assert lit is flat.radiance


def test_least_squares_keeps_its_shadows(deep: Scene) -> None:
    given = (deep.radiance, deep.variance, deep.lights)
    plain = solve(*given, lens=LENS, mask=deep.mask, method="least-squares")
    found = reconstruct(*given, lens=LENS, mask=deep.mask, method="least-squares").normals
    assert np.array_equal(plain.normals, found.normals, equal_nan=True)
