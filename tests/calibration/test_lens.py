"""Lens: against OpenCV's projection, derivatives and calibration, by Monte Carlo, and on real photographs."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from calibration.geometry import angle_deg
from calibration.lens import BrownConrady, fit_lens, fit_pose
from calibration.provenance import FitError
from calibration.targets.boards import BoardView, Charuco, Checkerboard, NoBoard, corners_mm, detect_board

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


# ---------------------------------------------------------------- the fit


def test_errors_are_as_large_as_the_covariance_says():
    runs = 40
    normalized, mahalanobis = [], []
    for seed in range(runs):
        lens = fit_lens(views_of(seed), LENS.width, LENS.height)
        error = lens.parameters - LENS.parameters
        normalized.append(error / np.sqrt(np.diag(lens.covariance)))
        mahalanobis.append(error @ np.linalg.solve(lens.covariance, error))
    # 99.9 % intervals of chi-squared for the sum over all, and per parameter (of 9).
    low, high = chi2.ppf([0.0005, 0.9995], 9 * runs) / (9 * runs)
    assert low < np.mean(mahalanobis) / 9 < high
    low, high = np.sqrt(chi2.ppf([0.0005, 0.9995], runs) / runs)
    spread = np.sqrt(np.mean(np.square(normalized), axis=0))
    assert np.all((spread > low) & (spread < high)), spread
    assert 0.8 < np.sqrt(np.mean(np.square(normalized))) < 1.2


@pytest.mark.parametrize("fix_k3", [False, True])
def test_same_optimum_and_sigmas_as_opencv(fix_k3):
    views = views_of(7)
    ours = fit_lens(views, LENS.width, LENS.height, fix_k3=fix_k3)
    assert ours.quality.rejected == 0
    rms, camera, distortion, _, _, sigma, *_ = cv2.calibrateCameraExtended(
        [v.points_mm.astype(np.float32) for v in views],
        [v.pixels.astype(np.float32) for v in views],
        (LENS.width, LENS.height),
        None,
        None,
        flags=cv2.CALIB_FIX_K3 if fix_k3 else 0,
        criteria=(3, 500, 1e-15),
    )
    theirs = np.array([camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2], *distortion.ravel()[:5]])
    free = 8 if fix_k3 else 9
    own_sigma = np.sqrt(np.diag(ours.covariance))
    # OpenCV rounds the corners to float32 (3e-5 px of 0.03 px noise) and stops early.
    assert np.all(np.abs(ours.parameters - theirs)[:free] < 0.02 * own_sigma[:free])
    np.testing.assert_allclose(own_sigma[:free], sigma.ravel()[:free], rtol=0.02)
    assert ours.quality.residual_rms == pytest.approx(rms / np.sqrt(2), rel=1e-3)
    if fix_k3:
        assert ours.k3 == 0
        assert not ours.covariance[8].any()


def test_order_of_views_and_corners_does_not_matter():
    views = views_of(3, 8)
    first = fit_lens(views, LENS.width, LENS.height)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(views))
    shuffled = []
    for i in order:
        at = rng.permutation(len(views[i].ids))
        shuffled.append(BoardView(views[i].ids[at], views[i].points_mm[at], views[i].pixels[at], NOISE))
    second = fit_lens(shuffled, LENS.width, LENS.height)
    assert np.array_equal(first.parameters, second.parameters)
    assert np.array_equal(first.covariance, second.covariance)
    assert np.array_equal(first.views[order], second.views)


def test_outliers_are_thrown_out_and_kept_as_evidence():
    rng = np.random.default_rng(11)
    views, wrong = [], 0
    for view in views_of(11, 15):
        pixels = view.pixels.copy()
        bad = rng.random(len(pixels)) < 0.06
        pixels[bad] += np.geomspace(0.2, 20, bad.sum())[:, None] * rng.choice([-1, 1], (bad.sum(), 2))
        wrong += int(bad.sum())
        views.append(view._replace(pixels=pixels))
    lens = fit_lens(views, LENS.width, LENS.height)
    # One good corner in 25 000 is lost.
    assert wrong <= lens.quality.rejected / 2 <= wrong + 2
    error = lens.parameters - LENS.parameters
    assert error @ np.linalg.solve(lens.covariance, error) < chi2.ppf(0.999, 9)
    assert lens.quality.residual_rms == pytest.approx(NOISE, rel=0.1)
    assert np.sum(lens.observations[:, 0] < 0) == lens.quality.rejected / 2
    assert len(lens.observations) == sum(len(v.ids) for v in views)


def test_residuals_and_poses_belong_to_the_views_they_name():
    views = views_of(5, 6)
    lens = fit_lens(views, LENS.width, LENS.height)
    number, points, pixels, residual = np.split(lens.observations, [1, 4, 6], axis=1)
    assert np.array_equal(np.unique(number), np.arange(6))
    for i, view in enumerate(views):
        at = number[:, 0] == i
        assert {tuple(p) for p in pixels[at]} == {tuple(p) for p in view.pixels}
        rotation = Rotation.from_rotvec(lens.views[i, :3].copy()).as_matrix()
        model = lens.project(points[at] @ rotation.T + lens.views[i, 3:])
        np.testing.assert_allclose(pixels[at] - model, residual[at], atol=1e-9)


def test_twin_bounds_with_twenty_views():
    # The demo's camera: 0.011 px of corner noise is what detect_board reaches there.
    for seed in (1, 2):
        lens = fit_lens(views_of(seed, 20, noise=0.011), LENS.width, LENS.height)
        assert abs(lens.fx / LENS.fx - 1) < 5e-4
        assert np.hypot(lens.cx - LENS.cx, lens.cy - LENS.cy) < 0.5
        assert lens.quality.verdict == "good"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_less_than_three_views_are_refused(number):
    with pytest.raises(FitError, match="needs at least 3"):
        fit_lens(views_of(0, number), LENS.width, LENS.height)


def test_boards_without_tilt_are_refused():
    rng = np.random.default_rng(0)
    level = [view_of(rng, pose) for pose in poses(rng, 8, tilt_deg=(0, 0))]
    with pytest.raises(FitError, match="Tilt the board"):
        fit_lens(level, LENS.width, LENS.height)
    with pytest.raises(FitError, match="Tilt the board"):
        fit_lens([views_of(0, 1)[0]] * 5, LENS.width, LENS.height)


def test_weak_evidence_is_named():
    few = fit_lens(views_of(2, 3), LENS.width, LENS.height, fix_k3=True)
    assert few.quality.verdict == "doubtful"
    assert "only 3 views" in few.quality.warnings[0]
    views = views_of(4, 10)
    blurred = views[3]._replace(
        pixels=views[3].pixels + np.random.default_rng(1).normal(0, 0.3, views[3].pixels.shape)
    )
    names = [f"pose {i}" for i in range(10)]
    lens = fit_lens([*views[:3], blurred, *views[4:]], LENS.width, LENS.height, names=names)
    assert any("pose 3" in warning for warning in lens.quality.warnings)
    assert not any("pose 4" in warning for warning in lens.quality.warnings)


def test_a_view_that_is_another_board_is_left_out():
    views = views_of(6, 10)
    other = views[4]._replace(pixels=np.random.default_rng(3).permutation(views[4].pixels))
    lens = fit_lens([*views[:4], other, *views[5:]], LENS.width, LENS.height)
    assert lens.quality.verdict == "doubtful"
    assert "view 5" in lens.quality.warnings[0]
    assert np.isnan(lens.views[4]).all()
    assert np.isfinite(np.delete(lens.views, 4, axis=0)).all()
    assert abs(lens.fx - LENS.fx) < 5 * np.sqrt(lens.covariance[0, 0])


@pytest.mark.parametrize(
    ("points", "pixels", "message"),
    [
        (POINTS, np.zeros((3, 2)), "want points"),
        (POINTS, np.full((len(POINTS), 2), np.nan), "must be finite"),
        (np.add(POINTS, (0, 0, 1)), np.zeros((len(POINTS), 2)), "must be flat"),
    ],
)
def test_impossible_views_are_refused(points, pixels, message):
    with pytest.raises(ValueError, match=message):
        fit_lens([BoardView(np.arange(len(points)), points, pixels, 0.1)] * 3, 640, 480)


# ---------------------------------------------------------------- poses


def test_pose_errors_are_as_large_as_the_covariance_says():
    rng = np.random.default_rng(8)
    total, runs = 0.0, 150
    for pose in poses(rng, runs):
        view = view_of(rng, pose)
        found = fit_pose(LENS, view.points_mm, view.pixels)
        turn = Rotation.from_matrix(pose[0] @ Rotation.from_rotvec(found.rotvec).as_matrix().T).as_rotvec()
        error = np.concatenate([turn, pose[1] - found.t_mm])
        total += error @ np.linalg.solve(found.covariance, error)
    low, high = chi2.ppf([0.0005, 0.9995], 6 * runs)
    assert low < total < high


@pytest.mark.parametrize("flat", [True, False])
def test_pose_without_noise_is_exact(flat):
    rng = np.random.default_rng(2)
    points = POINTS if flat else POINTS + np.outer(rng.uniform(-20, 20, len(POINTS)), (0, 0, 1))
    rotation, t = next(iter(poses(rng, 1)))
    found = fit_pose(LENS, points, LENS.project(points @ rotation.T + t))
    np.testing.assert_allclose(found.t_mm, t, atol=1e-6)
    np.testing.assert_allclose(Rotation.from_rotvec(found.rotvec).as_matrix(), rotation, atol=1e-8)


def test_upright_board_in_front_has_no_rotation():
    found = fit_pose(LENS, POINTS, LENS.project(np.add(POINTS, (-50, -40, 400))))
    np.testing.assert_allclose(found.rotvec, 0, atol=1e-8)
    np.testing.assert_allclose(found.t_mm, (-50, -40, 400), atol=1e-5)


def test_pose_that_cannot_be_is_refused():
    with pytest.raises(FitError, match="at least 4"):
        fit_pose(LENS, POINTS[:3], np.zeros((3, 2)))
    line = POINTS[:6]
    with pytest.raises(FitError, match="not on a line"):
        fit_pose(LENS, line, LENS.project(np.add(line, (0, 0, 400))))


# ---------------------------------------------------------------- real photographs


@pytest.mark.skipif(not (DATA / "lens/bouguet").is_dir(), reason="no lens/bouguet data at GNOMON_DATA")
def test_bouguet_first_example():
    board = Checkerboard(columns=13, rows=12, square_mm=30)
    images = [
        cv2.imread(str(DATA / f"lens/bouguet/Image{i}.tif"), cv2.IMREAD_GRAYSCALE) for i in range(1, 21)
    ]
    found = [detect_board(image, board) for image in images]
    views = [view for view in found if isinstance(view, BoardView)]
    assert len(views) >= 19
    lens = fit_lens(views, 640, 480, fix_k3=True)
    # Published, with three sigmas; he clicked other corners of the same images.
    published = np.array([657.462903, 657.946729, 303.136649, 242.569349])
    three_sigma = np.array([0.318189, 0.340464, 0.646821, 0.592184])
    tolerance = np.hypot(three_sigma, 3 * np.sqrt(np.diag(lens.covariance)[:4]))
    assert np.all(np.abs(lens.parameters[:4] - published) < tolerance)
    assert lens.k1 == pytest.approx(-0.254, abs=0.01)
    assert lens.quality.residual_rms < 0.126  # his residual
    assert lens.quality.verdict == "good"


@pytest.mark.skipif(
    not (DATA / "lens/opencv_pair").is_dir(), reason="no lens/opencv_pair data at GNOMON_DATA"
)
def test_opencv_left_camera():
    board = Checkerboard(columns=9, rows=6, square_mm=25)
    paths = sorted((DATA / "lens/opencv_pair").glob("left*.jpg"))
    views = [detect_board(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), board) for path in paths]
    assert not any(isinstance(view, NoBoard) for view in views)
    lens = fit_lens(views, 640, 480)
    assert lens.fx == pytest.approx(535.9, rel=0.01)
    assert lens.quality.residual_rms < 0.3926 / np.sqrt(2)
