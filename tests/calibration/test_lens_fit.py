"""Lens fit and poses: against OpenCV, by Monte Carlo, from bad starts and data, on real photographs."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from lens_scene import (
    grid,
    mirrored,
    moved,
    one_square_off,
    poses_before,
    project,
    shuffled,
    views_through,
    with_wrong_corners,
)
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from calibration.lens import BrownConrady, KannalaBrandt, adjust_lens, fit_lens, fit_pose
from calibration.provenance import FitError
from calibration.targets.boards import BoardView, Checkerboard, detect_board

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
W, H = 1280, 960
LENS = BrownConrady(width=W, height=H, fx=960, fy=961, cx=655, cy=470, k1=-0.15, k2=0.06, p1=5e-4, p2=-3e-4)
FISHEYE = KannalaBrandt(width=W, height=H, fx=380, fy=381, cx=655, cy=470, k1=0.02, k2=-0.01, k3=0.001)


def normalized(found, true):
    """Errors over their sigmas, of the parameters that were fitted."""
    free = np.diag(found.covariance) > 0
    return ((found.parameters - true.parameters) / np.sqrt(np.diag(found.covariance).clip(1e-300)))[free]


def distance2(found, true):
    """Squared Mahalanobis distance of the fitted parameters."""
    free = np.diag(found.covariance) > 0
    error = (found.parameters - true.parameters)[free]
    return error @ np.linalg.solve(found.covariance[np.ix_(free, free)], error)


# ---------------------------------------------------------------- accuracy and covariance


def test_twin_bounds_and_an_honest_covariance():
    # 20 views of a board of 10 x 7 inner corners with 0.1 px of noise.
    runs, scores, distances = 50, [], []
    for seed in range(runs):
        lens = adjust_lens(views_through(LENS, seed, 20, fill=0.65, off=0.2), W, H)
        assert abs(lens.fx / LENS.fx - 1) < 2e-4 * 1.7
        assert np.hypot(lens.cx - LENS.cx, lens.cy - LENS.cy) < 0.3 * 1.7
        scores.append(normalized(lens, LENS))
        distances.append(distance2(lens, LENS))
    # 99.9 % intervals of chi-squared: per parameter, and for the sum over all nine.
    low, high = np.sqrt(chi2.ppf([0.0005, 0.9995], runs) / runs)
    spread = np.sqrt(np.mean(np.square(scores), axis=0))
    assert np.all((spread > low) & (spread < high)), spread
    low, high = chi2.ppf([0.0005, 0.9995], 9 * runs) / (9 * runs)
    assert low < np.mean(distances) / 9 < high
    assert 0.9 < np.sqrt(np.mean(np.square(scores))) < 1.1


@pytest.mark.parametrize(
    ("model", "flags", "free"),
    [
        ("brown-4", cv2.CALIB_FIX_K3, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("brown-5", 0, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_same_optimum_and_sigmas_as_opencv(model, flags, free):
    views = views_through(LENS, 7, 12)
    ours = fit_lens(views, W, H, model=model)
    assert ours.quality.rejected == 0
    rms, camera, distortion, _, _, sigma, *_ = cv2.calibrateCameraExtended(
        [v.points_mm.astype(np.float32) for v in views],
        [v.pixels.astype(np.float32) for v in views],
        (W, H),
        None,
        None,
        flags=flags,
        criteria=(3, 500, 1e-15),
    )
    theirs = np.array([camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2], *distortion.ravel()[:5]])
    own_sigma = np.sqrt(np.diag(ours.covariance))
    # OpenCV rounds the corners to float32 (6e-5 px of 0.1 px noise) and stops early.
    assert np.all(np.abs(ours.parameters[:9] - theirs)[free] < 0.02 * own_sigma[free])
    np.testing.assert_allclose(own_sigma[free], sigma.ravel()[free], rtol=0.02)
    assert ours.quality.residual_rms == pytest.approx(rms / np.sqrt(2), rel=1e-3)
    assert not np.delete(ours.covariance, free, axis=0).any()


def test_same_fisheye_as_opencv():
    # OpenCV's fisheye ends at 90 degrees.
    lens = FISHEYE.replace(fx=520.0, fy=521.0)
    views = views_through(lens, 3, 15, off=0.25, fill=0.3)
    ours = adjust_lens(views, W, H, model="fisheye")
    _, camera, distortion, _, _ = cv2.fisheye.calibrate(
        [v.points_mm.reshape(1, -1, 3) for v in views],
        [v.pixels.reshape(1, -1, 2) for v in views],
        (W, H),
        np.eye(3),
        np.zeros(4),
        flags=cv2.CALIB_RECOMPUTE_EXTRINSIC | cv2.CALIB_FIX_SKEW,
        criteria=(3, 200, 1e-12),
    )
    theirs = np.array([camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2], *distortion.ravel()])
    assert np.all(np.abs(ours.parameters - theirs) < 0.05 * np.sqrt(np.diag(ours.covariance)))


def test_corners_weigh_by_their_sigma_and_by_what_it_leaves_out():
    # Sigmas of 0.02 to 0.3 px, and 0.05 px beside them that no detection tells.
    scores, plain = [], []
    for seed in range(12):
        rng, views = np.random.default_rng(seed), []
        for view in views_through(LENS, seed, 15, noise=0.0):
            told = rng.uniform(0.02, 0.3, len(view.ids))
            noise = rng.normal(0, 1, view.pixels.shape) * np.hypot(told, 0.05)[:, None]
            views.append(view._replace(pixels=view.pixels + noise, sigma_px=told))
        lens = adjust_lens(views, W, H)
        scores.append(normalized(lens, LENS))
        even = adjust_lens([view._replace(sigma_px=np.full(len(view.ids), np.nan)) for view in views], W, H)
        plain.append(np.diag(even.covariance)[:9] / np.diag(lens.covariance)[:9])
        assert np.mean(lens.observations[:, 0] < 0) < 2e-3
        assert np.isnan(even.observations[:, 8]).all()
    assert 0.8 < np.sqrt(np.mean(np.square(scores))) < 1.2
    # Weights gain as much as means of harmonic and arithmetic kind differ: some 1.9 here.
    assert np.mean(plain) > 1.4


@pytest.mark.parametrize("model", ["brown-5", "brown-8", "fisheye"])
def test_order_of_views_and_corners_does_not_matter(model):
    views = views_through(LENS, 3, 8)
    first = fit_lens(views, W, H, model=model)
    other, order = shuffled(views)
    second = fit_lens(other, W, H, model=model)
    assert np.array_equal(first.parameters, second.parameters)
    assert np.array_equal(first.covariance, second.covariance)
    assert np.array_equal(first.views[order], second.views)


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize("widths", [0.3, 0.7, 4.0, 50.0])
@pytest.mark.parametrize("off", [0.0, 0.2])
def test_any_focal_length_is_found(widths, off):
    true = BrownConrady(
        width=W, height=H, fx=widths * W, fy=widths * W, cx=W * (0.5 + off), cy=H * (0.5 - off),
        k1=-0.02 if widths < 0.5 else -0.1,
    )  # fmt: skip
    lens = adjust_lens(views_through(true, 1), W, H, model="brown-4")
    sigma = np.sqrt(lens.covariance[0, 0])
    assert abs(lens.fx - true.fx) < 4 * sigma
    assert sigma < 0.02 * true.fx
    assert np.sqrt(np.mean(lens.observations[:, 6:8] ** 2)) == pytest.approx(0.1, rel=0.06)
    assert np.all(lens.observations[:, 0] >= 0)


@pytest.mark.parametrize("field_deg", [120, 180, 220])
@pytest.mark.parametrize("off", [0.0, 0.2])
def test_any_fisheye_is_found(field_deg, off):
    focal = W / np.radians(field_deg)
    true = FISHEYE.replace(fx=focal, fy=focal, cx=W * (0.5 + off), cy=H * (0.5 - off / 2))
    views = views_through(true, 2, off=0.4, fill=0.35)
    lens = adjust_lens(views, W, H, model="fisheye")
    assert distance2(lens, true) < chi2.ppf(0.9999, 8)
    assert np.mean(lens.observations[:, 0] < 0) < 2e-3


def test_an_ordinary_lens_is_also_a_fisheye_and_a_strong_barrel_no_trouble():
    barrel = LENS.replace(fx=0.5 * W, fy=0.5 * W, k1=-0.28, k2=0.07)
    assert distance2(adjust_lens(views_through(barrel, 1), W, H), barrel) < chi2.ppf(0.9999, 9)
    flat = LENS.replace(fx=2.0 * W, fy=2.0 * W, k1=0.0, k2=0.0, p1=0.0, p2=0.0)
    lens = adjust_lens(views_through(flat, 1), W, H, model="fisheye")
    assert abs(lens.fx - flat.fx) < 5 * np.sqrt(lens.covariance[0, 0])


# ---------------------------------------------------------------- wrong data


@pytest.mark.parametrize("true", [LENS, FISHEYE, LENS.replace(fx=12.0 * W, fy=12.0 * W)])
def test_a_fifth_of_the_corners_may_be_anywhere(true):
    model = "fisheye" if true is FISHEYE else "brown-4"
    good = views_through(true, 3, off=0.35, fill=0.4)
    views = with_wrong_corners(good, 0.2)
    lens = adjust_lens(views, W, H, model=model)
    assert abs(lens.fx - true.fx) < 4.5 * np.sqrt(lens.covariance[0, 0])
    wrong = np.concatenate(
        [np.linalg.norm(a.pixels - b.pixels, axis=1) > 1 for a, b in zip(good, views, strict=True)]
    )
    thrown = lens.observations[:, 0] < 0
    # The rows of a view are sorted: count, view by view.
    number = np.where(thrown, -1 - lens.observations[:, 0], lens.observations[:, 0]).astype(int)
    sizes = [len(view.ids) for view in views]
    expected = np.bincount(np.repeat(np.arange(20), sizes), wrong)
    whole = np.isfinite(lens.views[:, 0])
    assert whole.sum() >= 18
    assert np.all(np.abs(np.bincount(number, thrown) - expected)[whole] <= 2)


@pytest.mark.parametrize("spoil", [moved, mirrored, one_square_off])
@pytest.mark.parametrize("true", [LENS, FISHEYE])
def test_a_spoilt_view_is_left_out_by_name(true, spoil):
    model = "fisheye" if true is FISHEYE else "brown-5"
    views = views_through(true, 4, 12, off=0.2, fill=0.4)
    views[5] = spoil(views[5])
    lens = fit_lens(views, W, H, model=model, names=[f"pose {i}" for i in range(12)])
    assert lens.quality.verdict == "doubtful"
    assert any("left out" in warning and "pose 5" in warning for warning in lens.quality.warnings)
    assert np.isnan(lens.views[5]).all()
    assert np.isfinite(np.delete(lens.views, 5, axis=0)).all()
    assert distance2(lens, true) < chi2.ppf(0.9999, 9)
    assert np.sum(lens.observations[:, 0] < 0) <= len(views[5].ids) + 1


def test_corners_left_on_a_line_are_no_view():
    views = views_through(LENS, 4, 12, off=0.2, fill=0.4)
    # A row of seven, and two beside it that are wrong.
    view = views[5]
    row = np.flatnonzero(view.points_mm[:, 1] == 30)[:7]
    few = np.append(row, np.flatnonzero(view.points_mm[:, 1] == 40)[:2])
    pixels = view.pixels[few]
    pixels[-2:] += (30.0, -25.0), (-40.0, 30.0)
    views[5] = BoardView(view.ids[few], view.points_mm[few], pixels, view.sigma_px[few])
    lens = adjust_lens(views, W, H)
    assert np.isnan(lens.views[5]).all()
    assert distance2(lens, LENS) < chi2.ppf(0.9999, 9)


def test_outliers_are_thrown_out_and_kept_as_evidence():
    rng = np.random.default_rng(11)
    views, wrong = [], 0
    for view in views_through(LENS, 11, 15):
        pixels, bad = view.pixels.copy(), rng.random(len(view.ids)) < 0.06
        pixels[bad] += np.geomspace(0.7, 60, bad.sum())[:, None] * rng.choice([-1, 1], (bad.sum(), 2))
        wrong += int(bad.sum())
        views.append(view._replace(pixels=pixels))
    lens = fit_lens(views, W, H)
    # One good corner in 25 000 is lost.
    assert wrong <= lens.quality.rejected / 2 <= wrong + 2
    assert distance2(lens, LENS) < chi2.ppf(0.999, 9)
    assert lens.quality.residual_rms == pytest.approx(0.1, rel=0.1)
    assert np.sum(lens.observations[:, 0] < 0) == lens.quality.rejected / 2
    assert len(lens.observations) == sum(len(view.ids) for view in views)


def test_residuals_and_poses_belong_to_the_views_they_name():
    views = views_through(LENS, 5, 6)
    lens = adjust_lens(views, W, H)
    number, points, pixels, residual, sigma = np.split(lens.observations, [1, 4, 6, 8], axis=1)
    assert np.array_equal(np.unique(number), np.arange(6))
    assert np.all(sigma == 0.1)
    for i, view in enumerate(views):
        at = number[:, 0] == i
        assert {tuple(p) for p in pixels[at]} == {tuple(p) for p in view.pixels}
        rotation = Rotation.from_rotvec(lens.views[i, :3].copy()).as_matrix()
        model = lens.project(points[at] @ rotation.T + lens.views[i, 3:])
        np.testing.assert_allclose(pixels[at] - model, residual[at], atol=1e-9)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_less_than_three_views_are_refused(number):
    with pytest.raises(FitError, match="needs at least 3"):
        fit_lens(views_through(LENS, 0, number), W, H)


@pytest.mark.parametrize("model", ["brown-4", "brown-5", "brown-8", "fisheye"])
def test_boards_without_tilt_are_refused(model):
    # At 12 widths nothing else tells the focal length.
    level = views_through(LENS.replace(fx=12.0 * W, fy=12.0 * W), 0, 8, tilt_deg=(0, 0.1))
    with pytest.raises(FitError, match=r"Tilt the board|cannot be told"):
        fit_lens(level, W, H, model=model)
    with pytest.raises(FitError, match=r"Tilt the board|cannot be told"):
        fit_lens([views_through(LENS, 0, 1)[0]] * 5, W, H, model=model)


@pytest.mark.parametrize(
    ("points", "pixels", "sigma", "message"),
    [
        (grid(), np.zeros((3, 2)), np.ones(70), "want points"),
        (grid(), np.full((70, 2), np.nan), np.ones(70), "must be finite"),
        (np.add(grid(), (0, 0, 1)), np.zeros((70, 2)), np.ones(70), "must be flat"),
        (grid(), np.zeros((70, 2)), np.ones(3), "a sigma for each"),
    ],
)
def test_impossible_views_are_refused(points, pixels, sigma, message):
    with pytest.raises(ValueError, match=message):
        fit_lens([BoardView(np.arange(len(points)), points, pixels, sigma, 0.0)] * 3, 640, 480)


def test_a_line_of_corners_is_refused():
    line = grid()[:10]
    with pytest.raises(FitError, match="lie on a line"):
        fit_lens([BoardView(np.arange(10), line, line[:, :2] + 5, np.ones(10), 0.0)] * 3, 640, 480)


@pytest.mark.parametrize("model", ["brown-5", "fisheye"])
def test_a_board_described_wrongly_gives_no_good_camera(model):
    views = views_through(LENS, 1, 15)
    stretched = [view._replace(points_mm=view.points_mm * (1.05, 1, 1)) for view in views]
    assert fit_lens(stretched, W, H, model=model).quality.verdict == "doubtful"
    for columns in (9, 7):
        at = np.stack(np.divmod(np.arange(70), columns)[::-1], axis=-1) * 10.0
        points = np.column_stack([at, np.zeros(70)])
        with pytest.raises(FitError, match=r"columns, rows|Tilt the board|cannot be told"):
            fit_lens([view._replace(points_mm=points[view.ids]) for view in views], W, H, model=model)
    with pytest.raises(FitError, match="mirrored"):
        fit_lens([mirrored(view) for view in views], W, H, model=model)


# ---------------------------------------------------------------- the board


def test_a_bent_and_stretched_board_is_found_out():
    points = grid()
    u, v = (points[:, :2] - (45, 30)).T / [[45], [30]]
    true = points * (1, 1.003, 1) + np.outer(0.3 * (1 - u**2) - 0.2 * (1 - v**2), (0, 0, 1))
    scores = []
    for seed in range(6):
        views = views_through(LENS, seed, 20, points=true, told=points, roll_deg=120)
        lens = adjust_lens(views, W, H, warp=True, aspect=True)
        board = lens.board
        sigma = np.array([*board.warp_sigma_mm, board.aspect_sigma])
        scores.append((board.values[:3] - (0.3, -0.2, 1.003)) / sigma)
        scores.append(normalized(lens, LENS)[:3])
        assert sigma[0] < 0.02
        assert sigma[2] < 2e-4
    assert np.abs(scores).max() < 4
    assert 0.6 < np.std(scores) < 1.4
    # Taken as flat, it bends the lens.
    assert np.abs(normalized(adjust_lens(views, W, H), LENS)).max() > 5


def test_a_shape_that_the_views_do_not_tell_is_refused():
    views = views_through(LENS, 0, 12, noise=3.0, tilt_deg=(1, 6), roll_deg=0.0, off=0.05)
    with pytest.raises(FitError, match="aspect of the print"):
        adjust_lens(views, W, H, model="brown-4", aspect=True)
    with pytest.raises(FitError, match="warp of the board"):
        adjust_lens(views, W, H, model="brown-4", warp=True)


def centroids(lens, centres, radius, rotation, t):
    """Centroids of the images of discs, as areas within their outlines of 720 points."""
    phi = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    rim = radius * np.column_stack([np.cos(phi), np.sin(phi), np.zeros(720)])
    out = []
    for centre in centres:
        x, y = project(lens, centre + rim, rotation, t).T
        x0, y0 = x.mean(), y.mean()
        x, y = x - x0, y - y0
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        area = cross.sum() / 2
        out.append(
            [
                x0 + ((x + np.roll(x, -1)) * cross).sum() / (6 * area),
                y0 + ((y + np.roll(y, -1)) * cross).sum() / (6 * area),
            ]
        )
    return np.array(out)


def test_centroids_of_discs_are_not_the_images_of_their_centres():
    true, points, radius = LENS.replace(fx=640.0, fy=640.0), grid(8, 6), 4.0
    views = []
    for rotation, t in poses_before(true, 6, 10, points=points, fill=0.7, off=0.1):
        pixels = centroids(true, points, radius, rotation, t)
        views.append(BoardView(np.arange(48), points, pixels, np.full(48, np.nan), radius))
    lens = adjust_lens(views, W, H)
    # Outlines of 720 points: some 1e-5 of the radius; no noise.
    assert np.sqrt(np.mean(lens.observations[:, 6:8] ** 2)) < 1e-3
    np.testing.assert_allclose(lens.parameters[:4], true.parameters[:4], atol=0.02)
    naive = adjust_lens([view._replace(disc_mm=0.0) for view in views], W, H)
    assert np.abs(naive.parameters - true.parameters)[:4].max() > 0.1


# ---------------------------------------------------------------- poses


@pytest.mark.parametrize("lens", [LENS, FISHEYE])
def test_pose_errors_are_as_large_as_the_covariance_says(lens):
    rng, total, runs, points = np.random.default_rng(8), 0.0, 60, grid()
    for rotation, t in poses_before(lens, 8, runs, fill=0.25, off=0.3):
        pixels = project(lens, points, rotation, t)
        sigma = rng.uniform(0.05, 0.2, len(points))
        pixels = pixels + rng.normal(0, 1, pixels.shape) * sigma[:, None]
        found = fit_pose(lens, points, pixels, sigma_px=sigma)
        turn = Rotation.from_matrix(rotation @ Rotation.from_rotvec(found.rotvec).as_matrix().T).as_rotvec()
        error = np.concatenate([turn, t - found.t_mm])
        total += error @ np.linalg.solve(found.covariance, error)
    low, high = chi2.ppf([0.0005, 0.9995], 6 * runs)
    assert low < total < high * 1.05  # the variance itself is estimated from 134 degrees of freedom


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("lens", [LENS, FISHEYE])
def test_pose_without_noise_is_exact(lens, flat):
    rng, points = np.random.default_rng(2), grid()
    points = points if flat else points + np.outer(rng.uniform(-20, 20, len(points)), (0, 0, 1))
    for rotation, t in poses_before(lens, 2, 5, fill=0.3, off=0.35):
        found = fit_pose(lens, points, lens.project(points @ rotation.T + t))
        np.testing.assert_allclose(found.t_mm, t, atol=1e-5)
        np.testing.assert_allclose(Rotation.from_rotvec(found.rotvec).as_matrix(), rotation, atol=1e-6)


def test_four_corners_and_a_board_beside_the_fisheye_have_a_pose():
    corners = grid()[[0, 9, 60, 69]]
    found = fit_pose(LENS, corners, LENS.project(np.add(corners, (-50, -40, 400))))
    np.testing.assert_allclose(found.t_mm, (-50, -40, 400), atol=1e-4)
    np.testing.assert_allclose(found.rotvec, 0, atol=1e-6)
    # Seen at 80 to 110 degrees from the axis: partly behind the camera.
    turn = Rotation.from_rotvec([0, np.radians(95), 0]).as_matrix()
    t = turn @ (np.array([0, 0, 250.0]) - grid().mean(axis=0))
    fisheye = FISHEYE.replace(width=2000, height=2000, cx=1000.0, cy=1000.0)
    found = fit_pose(fisheye, grid(), fisheye.project(grid() @ turn.T + t))
    np.testing.assert_allclose(found.t_mm, t, atol=1e-5)
    assert np.mean((grid() @ turn.T + t)[:, 2] < 0) > 0.4


def test_pose_that_cannot_be_is_refused():
    with pytest.raises(FitError, match="at least 4"):
        fit_pose(LENS, grid()[:3], np.zeros((3, 2)))
    line = grid()[:6]
    with pytest.raises(FitError, match="not on a line"):
        fit_pose(LENS, line, LENS.project(np.add(line, (0, 0, 400))))


# ---------------------------------------------------------------- real photographs


def found_in(paths, board):
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    return [view for image in images if isinstance(view := detect_board(image, board), BoardView)]


@pytest.mark.skipif(not (DATA / "lens/bouguet").is_dir(), reason="no lens/bouguet data at GNOMON_DATA")
def test_bouguet_first_example():
    paths = [DATA / f"lens/bouguet/Image{i}.tif" for i in range(1, 21)]
    views = found_in(paths, Checkerboard(columns=13, rows=12, square_mm=30))
    assert len(views) == 20
    lens = fit_lens(views, 640, 480, model="brown-4")
    # Published, with three sigmas; he clicked other corners of the same images.
    assert np.all(np.abs(lens.parameters[:2] - (657.462903, 657.946729)) < (0.318189, 0.340464))
    assert np.all(np.abs(lens.parameters[2:4] - (303.136649, 242.569349)) < 1)
    assert lens.k1 == pytest.approx(-0.25403, abs=0.005)
    assert lens.quality.residual_rms < 0.126  # his residual


@pytest.mark.skipif(
    not (DATA / "lens/opencv_pair").is_dir(), reason="no lens/opencv_pair data at GNOMON_DATA"
)
def test_opencv_left_camera():
    paths = sorted((DATA / "lens/opencv_pair").glob("left*.jpg"))
    views = found_in(paths, Checkerboard(columns=9, rows=6, square_mm=25))
    assert len(views) == len(paths)
    lens = fit_lens(views, 640, 480)
    assert lens.fx == pytest.approx(535.9, rel=0.01)
    used = lens.observations[lens.observations[:, 0] >= 0]
    # OpenCV's RMS is of the length of a residual.
    assert np.sqrt(np.mean(np.sum(used[:, 6:8] ** 2, axis=1))) < 0.39
    rms, camera, *_ = cv2.calibrateCamera(
        [v.points_mm.astype(np.float32) for v in views],
        [v.pixels.astype(np.float32) for v in views],
        (640, 480),
        None,
        None,
    )
    assert lens.quality.residual_rms < 1.001 * rms / np.sqrt(2)
    assert abs(lens.fx - camera[0, 0]) < 3 * np.sqrt(lens.covariance[0, 0])
