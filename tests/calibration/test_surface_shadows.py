"""Cast shadows from a depth map, against rays traced by brute force."""

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.lens import BrownConrady, LensModel
from calibration.lights.model import DistantLight, NearLight
from calibration.surface.shadows import cast_shadows

WIDTH, HEIGHT, DEPTH_MM, STEP_MM = 72, 60, 300.0, 0.05
LENS = BrownConrady(
    width=WIDTH, height=HEIGHT, fx=260.0, fy=259.0, cx=34.0, cy=31.0, k1=-0.3, k2=0.1, p1=2e-3, p2=-1e-3
)
POST = (6.0, -4.0, 9.0, 14.0)  # x, y, radius and height in mm of a smooth hill
LIGHTS = [
    NearLight(position_mm=(160.0, 20.0, 190.0)),
    NearLight(position_mm=(-120.0, -110.0, 230.0)),
    NearLight(position_mm=(30.0, 150.0, -40.0)),
    DistantLight(direction=(-0.8, 0.3, -0.52)),
]


def _surface(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    cx, cy, radius, height = POST
    return np.asarray(DEPTH_MM - height * np.exp(-((((x - cx) ** 2 + (y - cy) ** 2) / radius**2) ** 2)))


def _seen(camera: LensModel | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (h, w, 3) of the surface and their depth."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    if camera is None:
        z = _surface(u - WIDTH / 2, v - HEIGHT / 2)
        return np.stack([u - WIDTH / 2, v - HEIGHT / 2, z], axis=-1), z
    rays = camera.unproject(np.stack([u, v], axis=-1))
    rays /= rays[..., 2:]
    z = np.full((HEIGHT, WIDTH), DEPTH_MM)
    for _ in range(200):
        z = 0.5 * (z + _surface(rays[..., 0] * z, rays[..., 1] * z))
    return rays * z[..., None], z


def _brute(points: NDArray[np.float64], light: NearLight | DistantLight, lift: float) -> NDArray[np.bool_]:
    """March through space against the formula; ``lift`` mm below the surface is inside."""
    hidden = np.zeros(points.shape[:2], bool)
    direction = light.at(points)[0]
    for t in np.arange(1.0, 90.0, STEP_MM):
        at = points + t * direction
        hidden |= at[..., 2] > _surface(at[..., 0], at[..., 1]) + lift
    return hidden


@pytest.mark.parametrize(("camera", "step"), [(LENS, 1), (LENS, 2), (None, 1)])
def test_as_rays_traced_against_the_formula(camera: LensModel | None, step: int) -> None:
    points, depth = (part[::step, ::step] for part in _seen(camera))
    lights = [light for light in LIGHTS if camera is not None or light.kind == "distant"]
    found = cast_shadows(depth, lights, camera, step=step)
    for light, hidden in zip(lights, found, strict=True):
        # Between these two the sampling of the depth map decides.
        surely, perhaps = _brute(points, light, 0.8 * step), _brute(points, light, 0.05)
        if light is not LIGHTS[2]:
            assert surely.sum() > 60 / step**2
        assert (surely & ~hidden).sum() <= max(0.02 * surely.sum(), 1)
        assert (hidden & ~perhaps).sum() <= 0.02 * max(perhaps.sum(), 50)


def test_nothing_is_thrown_by_what_is_not_there() -> None:
    depth = _seen(LENS)[1]
    hill = depth < DEPTH_MM - 1
    unknown = np.where(hill, np.nan, depth)
    before = unknown.copy()
    hidden = cast_shadows(unknown, LIGHTS, LENS)
    assert not hidden.any()
    assert np.array_equal(unknown, before, equal_nan=True)
    assert not cast_shadows(np.full_like(depth, np.nan), LIGHTS, LENS).any()
    with pytest.raises(ValueError, match="need the lens"):
        cast_shadows(depth, LIGHTS, None)


def test_a_light_before_what_is_higher_is_not_hidden() -> None:
    # The hill stands behind this lamp as seen from the flat ground on its far side.
    cx, cy, radius, _ = POST
    lamp = NearLight(position_mm=(cx - 2 * radius, cy, DEPTH_MM - 4.0))
    points, depth = _seen(LENS)
    (hidden,) = cast_shadows(depth, [lamp], LENS)
    left, right = points[..., 0] < cx - 2 * radius - 3, points[..., 0] > cx + 2 * radius
    row = np.abs(points[..., 1] - cy) < 3
    assert not hidden[left & row].any()
    assert hidden[right & row].all()


def test_order_of_the_lights_changes_nothing() -> None:
    depth = _seen(LENS)[1]
    assert np.array_equal(cast_shadows(depth, LIGHTS, LENS)[::-1], cast_shadows(depth, LIGHTS[::-1], LENS))


@pytest.mark.parametrize("camera", [LENS, None])
def test_sweeping_all_lines_is_following_each_way(
    camera: LensModel | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = _seen(camera)[1]
    turns = np.radians([3, 47, 95, 140, 184, 233, 280, 325])
    lights = [DistantLight(direction=(0.8 * np.cos(t), 0.8 * np.sin(t), -0.6)) for t in turns]
    # Almost along the view the lines meet in the picture; from behind and across they go the other way.
    lights += [DistantLight(direction=(0.1, 0.05, -0.99)), DistantLight(direction=(0.9, 0.4, 0.1))]
    swept = cast_shadows(depth, lights, camera)
    monkeypatch.setattr("calibration.surface.shadows._fan", lambda *_: None)
    followed = cast_shadows(depth, lights, camera)
    assert followed[:8].any(axis=(1, 2)).all()
    # Both look at a way once a pixel, at other places of it: only rims can differ.
    assert (swept ^ followed).sum() < 0.025 * followed.sum()
