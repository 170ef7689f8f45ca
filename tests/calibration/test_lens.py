"""Lens: against OpenCV's projection, derivatives and calibration, by Monte Carlo, and on real photographs."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from calibration.geometry import angle_deg
from calibration.lens import BrownConrady
from calibration.targets.boards import BoardView, Charuco, corners_mm

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
LENS = BrownConrady(
    width=960, height=600, fx=1500, fy=1501, cx=482.3, cy=297.1, k1=-0.12, k2=0.15, p1=5e-4, p2=-3e-4
)  # fmt: skip
POINTS = corners_mm(Charuco(columns=8, rows=6, square_mm=14, marker_mm=10))
NOISE = 0.03


def matrix(lens):
    return np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])


def coefficients(lens):
    return lens.parameters[4:]


def poses(rng, n, tilt_deg=(10, 40)):
    middle = POINTS.mean(axis=0)
    for _ in range(n):
        around, tilt = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(*tilt_deg))
        turn = Rotation.from_rotvec(tilt * np.array([np.cos(around), np.sin(around), 0]))
        rotation = (turn * Rotation.from_rotvec([0, 0, rng.uniform(-0.5, 0.5)])).as_matrix()
        yield rotation, rng.uniform((-80, -40, 420), (80, 40, 480)) - rotation @ middle


def view_of(rng, pose, lens=LENS, noise=NOISE):
    rotation, t = pose
    # The outside reference projects; gnomon's own model only fits.
    pixels, _ = cv2.projectPoints(POINTS, cv2.Rodrigues(rotation)[0], t, matrix(lens), coefficients(lens))
    pixels = pixels.reshape(-1, 2) + rng.normal(0, noise, (len(POINTS), 2))
    ok = np.all((pixels > 3) & (pixels < (lens.width - 4, lens.height - 4)), axis=1)
    return BoardView(np.flatnonzero(ok), POINTS[ok], pixels[ok], noise)


def views_of(seed, n=12, **how):
    rng = np.random.default_rng(seed)
    return [view_of(rng, pose, **how) for pose in poses(rng, n)]


lenses = st.builds(
    BrownConrady,
    width=st.just(640), height=st.just(480),
    fx=st.floats(400, 3000), fy=st.floats(400, 3000), cx=st.floats(250, 400), cy=st.floats(180, 300),
    k1=st.floats(-0.3, 0.3), k2=st.floats(-0.1, 0.2), p1=st.floats(-2e-3, 2e-3), p2=st.floats(-2e-3, 2e-3),
    k3=st.floats(-0.02, 0.05),
)  # fmt: skip


# ---------------------------------------------------------------- the model


@given(lenses, st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_projection_and_derivatives_are_those_of_opencv(lens, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform((-100, -80, 380), (100, 80, 500), (20, 3))
    theirs, derivatives = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), matrix(lens), coefficients(lens)
    )
    inside = np.hypot(points[:, 0], points[:, 1]) / points[:, 2] < lens.valid_tangent
    np.testing.assert_allclose(lens.project(points)[inside], theirs.reshape(-1, 2)[inside], atol=1e-9)
    assert np.isnan(lens.project(points)[~inside]).all()
    pixels, by_points, by_parameters, _ = lens.derivatives(points)
    np.testing.assert_allclose(pixels[inside], theirs.reshape(-1, 2)[inside], atol=1e-9)
    derivatives = derivatives.reshape(-1, 2, derivatives.shape[1])[inside]
    np.testing.assert_allclose(by_parameters[inside], derivatives[..., 6:18], rtol=1e-9, atol=1e-9)
    # With no rotation, the derivative by the translation is that by the point.
    np.testing.assert_allclose(by_points[inside], derivatives[..., 3:6], rtol=1e-9, atol=1e-9)


@given(lenses, st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_unproject_inverts_project_or_gives_nan(lens, seed):
    pixels = np.random.default_rng(seed).uniform((0, 0), (639, 479), (50, 2))
    rays = lens.unproject(pixels)
    valid = np.isfinite(rays).all(axis=1)
    np.testing.assert_allclose(lens.project(rays[valid]), pixels[valid], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(rays[valid], axis=1), 1, atol=1e-15)
    # Points well inside the valid circle are found again, and not another point of the same image.
    tangent = min(0.9 * lens.valid_tangent, 0.6)
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, 20)
    points = np.stack([tangent * np.cos(angle), tangent * np.sin(angle), np.ones(20)], axis=1)
    back = lens.unproject(lens.project(points))
    found = np.isfinite(back).all(axis=1)
    assert np.all(angle_deg(back[found], points[found]) < 1e-7)
    if lens.valid_tangent > 0.8 and min(lens.p1, lens.p2) == max(lens.p1, lens.p2) == 0:
        assert found.all()


def test_nothing_is_seen_beyond_the_turning_point_or_behind():
    barrel = BrownConrady(width=640, height=480, fx=400, fy=400, cx=320, cy=240, k1=-0.3)
    assert barrel.valid_tangent == pytest.approx(np.sqrt(1 / 0.9))  # 1 + 3 k1 s = 0
    edge = barrel.valid_tangent
    points = np.array([[0.99 * edge, 0, 1], [1.01 * edge, 0, 1], [0, 0, -1.0]])
    assert np.isfinite(barrel.project(points)).all(axis=1).tolist() == [True, False, False]
    beyond = 320 + 400 * edge * (1 - 0.3 * edge**2) + 1
    assert np.isfinite(barrel.unproject([[beyond - 3, 240], [beyond, 240]])).all(axis=1).tolist() == [
        True,
        False,
    ]
    assert BrownConrady(width=2, height=2, fx=1, fy=1, cx=0, cy=0, k1=0.1).valid_tangent == np.inf


def test_no_ray_comes_from_beyond_the_turning_point():
    # Newton, left alone, runs to the second root of these polynomials at the corners of a wide image.
    for k1, k2, k3, p1 in (
        (-0.18, -0.02, -0.046, -0.0097),
        (-0.21, 0.096, -0.032, 0.0),
        (-0.17, 0.08, -0.047, 0.0),
    ):
        lens = LENS.replace(fx=300.0, fy=300.0, cx=320.0, cy=240.0, k1=k1, k2=k2, k3=k3, p1=p1, p2=0.0)
        u, v = np.meshgrid(np.arange(-200.0, 840, 20), np.arange(-200.0, 680, 20))
        rays = lens.unproject(np.stack([u, v], axis=-1))
        tangent = np.hypot(rays[..., 0], rays[..., 1]) / rays[..., 2]
        assert np.isnan(tangent).any()
        assert np.nanmax(tangent) < lens.valid_tangent


def test_rays_of_the_image_are_those_of_its_pixels():
    lens = LENS.replace(width=160, height=101, cx=70.0, cy=55.0, fx=150.0, fy=150.0)
    u, v = np.meshgrid(np.arange(160.0), np.arange(101.0))
    rays = lens.rays()
    assert rays.dtype == np.float32
    # float32 rounds to 6e-8
    np.testing.assert_allclose(rays, lens.unproject(np.stack([u, v], axis=-1)), atol=1.2e-7)
