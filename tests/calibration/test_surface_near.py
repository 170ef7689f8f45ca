"""Near lights: normals and depth together, with the scale that the lights give."""

from typing import Any

import numpy as np
import pytest
from relief_scene import DEPTH_MM, Scene, dome, lens, render

from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight
from calibration.photometric import Gloss
from calibration.provenance import FitError
from calibration.surface import Reconstruction, reconstruct


def _reconstruct(scene: Scene, **options: Any) -> Reconstruction:
    height, width = scene.mask.shape
    return reconstruct(
        scene.radiance, scene.variance, scene.lights,
        **{"lens": lens(width, height), "mask": scene.mask, "depth_mm": DEPTH_MM, **options},
    )  # fmt: skip


def _depth_error(scene: Scene, depth: Any) -> float:
    """Mean absolute error in mm once the median offset is taken away."""
    error = (depth - scene.depth_mm)[scene.judged & np.isfinite(depth)]
    return float(np.abs(error - np.median(error)).mean())


@pytest.mark.parametrize(("gloss", "method"), [(None, "robust"), ((0.25, 0.05), "auto")])
def test_relief_of_120_mm(gloss: Any, method: Any) -> None:
    scene = render(lens(), dome(), gloss=gloss)
    # A start 5 % off: the near lights tell the distance themselves.
    found = _reconstruct(scene, method=method, depth_mm=1.05 * DEPTH_MM)
    errors = angle_deg(found.normals.normals, scene.normals)[scene.judged]
    assert np.isfinite(errors).all()
    assert errors.mean() < 0.3
    assert _depth_error(scene, found.depth_mm) < 0.05
    assert np.nanmedian(found.depth_mm / scene.depth_mm) == pytest.approx(1, abs=1e-3)
    assert found.scale_sigma < 1e-3


def test_errors_of_the_lights_are_in_the_sigma_of_the_scale() -> None:
    misses, claimed = [], []
    scene = render(lens(84, 72), dome())
    for seed in range(6):
        rng = np.random.default_rng(seed)
        moved = []
        for light in scene.lights:
            # As calibrated: wrong by a millimetre, but of the right irradiance at the board.
            position = np.array(light.position_mm) + rng.normal(size=3)
            centre = np.array([0, 0, DEPTH_MM])
            ratio = np.sum((position - centre) ** 2) / np.sum((np.array(light.position_mm) - centre) ** 2)
            power = light.intensity[0] * ratio * (1 + 0.003 * rng.normal())
            moved.append(light.replace(position_mm=tuple(position), intensity=(power,)))
        found = _reconstruct(scene._replace(lights=moved), method="robust", gloss=Gloss(1.0, 0.0))
        errors = angle_deg(found.normals.normals, scene.normals)[scene.judged]
        assert errors.mean() < 0.6
        assert _depth_error(scene, found.depth_mm) < 0.3
        misses.append(np.nanmedian(found.depth_mm / scene.depth_mm) - 1)
        claimed.append(found.scale_sigma)
    # Six draws leave 30 % of chance, and the sigma, from 24 lights, 15 % more: within a factor of 2.
    assert 0.5 < np.std(misses) / np.mean(claimed) < 2


def test_least_squares_alternates_too() -> None:
    scene = render(lens(84, 72), dome(), amplitude=0.4)
    found = _reconstruct(scene, method="least-squares")
    assert angle_deg(found.normals.normals, scene.normals)[scene.mask].mean() < 0.5
    assert found.normals.roughness is None


def test_cast_shadows_do_not_bend_what_least_squares_finds() -> None:
    scene = render(lens(84, 72), dome(), amplitude=2.2)
    found = _reconstruct(scene, method="least-squares")
    errors = angle_deg(found.normals.normals, scene.normals)
    rays = lens(84, 72).unproject(np.moveaxis(np.mgrid[:72, :84][::-1].astype(float), 0, -1))
    points = rays / rays[..., 2:] * scene.depth_mm[..., None]
    facing = np.array([np.sum(light.at(points)[0] * scene.normals, axis=-1) > 0 for light in scene.lights])
    shadowed = scene.judged & ((facing & ~scene.lit).sum(axis=0) >= 2)
    assert shadowed.sum() > 1000
    # With the shadows left in it is 6 degrees; a shadow's rim is told to a pixel, and some stay.
    assert errors[shadowed].mean() < 2


@pytest.mark.parametrize("method", ["robust", "mixture"])
def test_a_mixture_stands_where_the_robust_surface_does(method: Any) -> None:
    scene = render(lens(60, 52), dome(), gloss=(0.25, 0.05))
    found = _reconstruct(scene, method=method, depth_mm=1.03 * DEPTH_MM)
    assert found.normals.method == method
    # Pixels of 2 mm: a surface whose gloss were not told apart would stand 10 mm off.
    assert abs(np.nanmedian((found.depth_mm - scene.depth_mm)[scene.judged])) < 1.5


def test_two_objects_have_their_own_depths() -> None:
    scene = render(lens(84, 72), dome())
    mask = scene.mask.copy()
    mask[:, 38:46] = False
    found = _reconstruct(scene, mask=mask, method="robust")
    for side in (np.s_[:, :38], np.s_[:, 46:]):
        at = scene.judged[side] & mask[side]
        assert np.abs(found.depth_mm[side] - scene.depth_mm[side])[at].mean() < 0.5


def test_distant_lights_take_the_scale_that_is_given() -> None:
    lights = [DistantLight(direction=tuple(-np.array(x.axis)), intensity=(2e4,)) for x in dome()]
    scene = render(lens(84, 72), lights)
    found = _reconstruct(scene)
    assert np.isnan(found.scale_sigma)
    assert np.nanmedian(found.depth_mm) == pytest.approx(DEPTH_MM, rel=1e-3)
    assert _depth_error(scene, found.depth_mm * np.nanmedian(scene.depth_mm[scene.mask]) / DEPTH_MM) < 0.1
    flat = _reconstruct(scene, lens=None, depth_mm=None)
    assert np.nanmedian(flat.depth_mm) == pytest.approx(0, abs=1e-3)


def test_mask_is_found_when_none_is_given() -> None:
    scene = render(lens(84, 72), dome(), backdrop=0.03)
    found = _reconstruct(scene, mask=None, method="robust")
    assert (found.normals.valid & scene.mask).sum() > 0.95 * scene.mask.sum()
    assert _depth_error(scene, found.depth_mm) < 0.1


def test_bad_input_is_one_clear_line() -> None:
    scene = render(lens(36, 32), dome())
    with pytest.raises(ValueError, match="light 0 is near"):
        _reconstruct(scene, depth_mm=None)
    with pytest.raises(ValueError, match="24 images but 23 lights"):
        _reconstruct(scene._replace(lights=scene.lights[1:]))
    with pytest.raises(FitError, match="mask holds no pixel"):
        _reconstruct(scene, mask=np.zeros_like(scene.mask))
    with pytest.raises(ValueError, match="mask is"):
        _reconstruct(scene, mask=np.ones((3, 3), bool))
