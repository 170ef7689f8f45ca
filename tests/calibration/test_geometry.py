import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from calibration.geometry import (
    angle_deg,
    normalize,
    reflection,
    reflection_jacobian,
    rotation,
    sphere_centre,
    sphere_outline,
    tangent_basis,
    transform,
)

unit = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)


def _setups(seed=0, count=300):
    """Centres, radius, homogeneous lights of all kinds on the camera's side."""
    rng = np.random.default_rng(seed)
    centres = np.stack(
        [rng.uniform(-150, 150, count), rng.uniform(-100, 100, count), rng.uniform(300, 700, count)], axis=-1
    )
    places = rng.normal(size=(count, 3)) * 250
    places[:, 2] = -np.abs(places[:, 2]) + 150
    lights = np.c_[places, np.ones(count)]
    lights[::3, 3] = 0
    lights[1::3] *= rng.uniform(0.01, 10, len(lights[1::3]))[:, None]
    return centres, 15.0, lights


def test_normalize_gives_nan_for_no_direction():
    out = normalize([[0, 0, 0], [3, 0, 4], [np.nan, 1, 0]])
    assert np.isnan(out[[0, 2]]).all()
    assert_allclose(out[1], [0.6, 0, 0.8])


def test_angle_is_exact_where_the_arc_cosine_is_not():
    assert_allclose(angle_deg([0, 0, 1], [1e-9, 0, 1]), np.degrees(1e-9), rtol=1e-12)
    assert_allclose(angle_deg([0, 0, 1], [0, 0, -2]), 180)


@given(st.tuples(*[st.floats(-3, 3)] * 3))
def test_rotation_is_opencvs(rotvec):
    assert_allclose(rotation(rotvec), cv2.Rodrigues(np.array(rotvec))[0], atol=1e-12)
    point = np.array([1.0, 2, 3])
    assert_allclose(transform(rotvec, [4, 5, 6], point), rotation(rotvec) @ point + [4, 5, 6], atol=1e-12)


@given(unit)
def test_tangent_basis_is_right_handed(direction):
    u, v = tangent_basis(direction)
    frame = np.stack([u, v, normalize(direction)])
    assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert_allclose(np.linalg.det(frame[[2, 0, 1]]), 1, atol=1e-12)


@given(unit, st.floats(0.001, 1.0))
def test_outline_rays_graze_the_sphere(direction, angular):
    radius = 7.0
    centre = sphere_centre(direction, angular, radius)
    rays = sphere_outline(direction, angular, np.linspace(0, 6, 9))
    passing = np.linalg.norm(np.cross(rays, centre), axis=-1)
    assert_allclose(passing, radius, rtol=1e-9)


def test_reflection_obeys_the_mirror_law():
    centres, radius, lights = _setups()
    normal = reflection(centres, radius, lights)
    points = centres + radius * normal
    to_light = normalize(lights[:, :3] - lights[:, 3:] * points)
    incoming = normalize(points)
    mirrored = incoming - 2 * np.sum(incoming * normal, axis=-1, keepdims=True) * normal
    assert np.isfinite(normal).all()
    assert_allclose(mirrored, to_light, atol=1e-12)


def test_reflection_is_the_shortest_way():
    # Fermat: independent of the law of reflection and of the plane in which it is solved.
    centres, radius, lights = _setups(seed=1, count=6)
    for centre, light in zip(centres, lights, strict=True):
        place = light[:3] / light[3] if light[3] else normalize(light[:3]) * 1e9

        def way(angles, centre=centre, place=place):
            t, p = angles
            n = np.array([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), -np.cos(t)])
            q = centre + radius * n
            return np.linalg.norm(q) + np.linalg.norm(place - q) - np.linalg.norm(place)

        n = reflection(centre, radius, light)
        start = np.array([np.arccos(-n[2]) + 0.05, np.arctan2(n[1], n[0]) + 0.05])
        best = minimize(way, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).x
        t, p = best
        found = np.array([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), -np.cos(t)])
        # The way is flat at its minimum: its rounding (1e-7 for a light at 1e9) allows the square root.
        assert angle_deg(found, n) < 0.2


def test_reflection_is_nan_where_the_light_is_not_seen():
    centre = np.array([0.0, 0, 400])
    hidden = [[0, 0, 1000, 1], [0, 0, 1, 0], [0, 0, 405, 1]]
    assert np.isnan(reflection(centre, 20.0, np.array(hidden, float))).all()
    assert np.isnan(reflection(np.array([0.0, 0, 10]), 20.0, np.array([0.0, 0, -100, 1]))).all()


def test_light_beside_the_camera_is_seen_at_the_nearest_point():
    assert_allclose(
        reflection(np.array([0, 0, 400.0]), 20.0, np.array([0, 0, -50.0, 1])), [0, 0, -1], atol=1e-9
    )


def test_reflection_jacobian_is_its_derivative():
    centres, radius, lights = _setups(count=60)
    normal = reflection(centres, radius, lights)
    by_centre, by_light = reflection_jacobian(centres, radius, lights, normal)

    def point(c, light):
        return c + radius * reflection(c, radius, light)

    for k in range(3):
        h = 1e-3 * np.eye(3)[k]
        numeric = (point(centres + h, lights) - point(centres - h, lights)) / 2e-3
        # Central differences at 1e-3 of 400: error (1e-3)^2 times third derivatives below 1e-3.
        assert_allclose(by_centre[..., k], numeric, atol=1e-7)
    size = np.linalg.norm(lights[:, :3], axis=-1)
    for k in range(4):
        h = 1e-6 * (size if k < 3 else size / 1000)
        step = h[:, None] * np.eye(4)[k]
        numeric = (point(centres, lights + step) - point(centres, lights - step)) / (2 * h[:, None])
        scale = np.abs(numeric).max(axis=-1, keepdims=True) + 1e-9
        assert_allclose(by_light[..., k] / scale, numeric / scale, atol=2e-5)


@settings(max_examples=30)
@given(st.floats(-3.1, 3.1), st.integers(0, 20))
def test_reflection_turns_with_the_setup(angle, seed):
    centres, radius, lights = _setups(seed, 6)
    turn = rotation([0, 0, angle])
    turned = np.c_[lights[:, :3] @ turn.T, lights[:, 3]]
    assert_allclose(
        reflection(centres @ turn.T, radius, turned), reflection(centres, radius, lights) @ turn.T, atol=1e-11
    )


@pytest.mark.parametrize("count", [0, 1])
def test_reflection_takes_any_number_of_lights(count):
    out = reflection(np.array([0.0, 0, 300]), 10.0, np.tile([0.0, 100, 0, 1], (count, 1)))
    assert out.shape == (count, 3)
