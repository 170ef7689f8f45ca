"""The focus model: board edges, fit of the sharp surface, depth of field."""

import numpy as np
import pytest
from test_focus_mtf import blur_mtf, true_mtf50

from calibration import files
from calibration.focus import (
    FocusModel,
    ViewEdges,
    board_edges,
    depth_of_field,
    fit_focus,
    measure_edges,
)
from calibration.focus.blur import predicted_mtf50
from calibration.focus.mtf import FREQUENCIES
from calibration.lens import BrownConrady
from calibration.provenance import FitError
from calibration.targets.boards import Charuco, Checkerboard, CircleGrid, detect_board

LENS = BrownConrady(width=800, height=600, fx=1600, fy=1602, cx=402.3, cy=297.1, k1=-0.11, k2=0.05)
FLOOR, PUPIL, DISTANCE, TILT = 0.8, 6.0, 500.0, (4.0, -3.0)


def seen_edges(z_mm, rng, noise=0.01, count=90, pupil=PUPIL, extra=0.0, growth=(0.0, 0.0)):
    """Edges of a board about ``z_mm`` away, as the thin lens blurs them, with noise."""
    pixels = rng.uniform([40, 40], [760, 560], (count, 2))
    rays = LENS.unproject(pixels)
    rays /= rays[:, 2:]
    points = rays * (z_mm * (1 + rng.uniform(-0.08, 0.08, count)))[:, None]
    turn = rng.uniform(0, 2 * np.pi, count)
    normals = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    # the sharp plane z + x tan(tilt x) + y tan(tilt y) = DISTANCE, written out
    slopes = np.tan(np.radians(TILT))
    sharp = DISTANCE / (1 + rays[:, :2] @ slopes)
    step = 1e-4
    shifted = LENS.project(rays[:, None] + step * np.eye(3)[:2]) - LENS.project(rays)[:, None]
    gain = np.linalg.norm(np.einsum("na,nba->nb", normals, shifted / step), axis=1)
    disc = gain * pupil * np.abs(1 / points[:, 2] - 1 / sharp)
    radial = (pixels - [LENS.cx, LENS.cy]) / 500.0  # half the diagonal
    along = np.sum(radial * normals, axis=1) ** 2
    across = np.sum(radial**2, axis=1) - along
    variance = FLOOR**2 + extra + growth[0] * along + growth[1] * across
    mtf50 = predicted_mtf50(variance, disc, normals).mtf50 * np.exp(noise * rng.normal(size=count))
    mtf = np.exp(-np.log(2) * (FREQUENCIES / mtf50[:, None]) ** 2)
    return ViewEdges(points, pixels, normals, mtf50, noise * mtf50, mtf, {})


DEPTHS = tuple(range(390, 681, 41))


def series(rng, depths=DEPTHS, **more):
    return [seen_edges(z, rng, **more) for z in depths]


@pytest.mark.parametrize(
    ("sigma", "disc", "angle_deg"), [(0.7, 0, 10), (0.8, 3, 40), (0.5, 9, 77), (2, 5, 0)]
)
def test_foretold_mtf50_is_that_of_the_transform(sigma, disc, angle_deg):
    a = np.radians(angle_deg)
    normal = np.array([[np.cos(a), np.sin(a)]])
    found = predicted_mtf50(np.array([sigma**2]), np.array([float(disc)]), normal)
    assert found.mtf50[0] == pytest.approx(true_mtf50(blur_mtf(angle_deg, sigma, disc)), abs=2e-5)


def test_edges_of_boards_lie_between_black_and_white():
    edges = board_edges(Checkerboard(columns=3, rows=2, square_mm=20))
    # 4 x 3 squares: 3 lines of 3 pieces and 2 lines of 4
    assert len(edges.start) == 17
    assert np.allclose(edges.room_mm, 20)
    assert np.allclose(np.linalg.norm(edges.end - edges.start, axis=1), 20)
    charuco = board_edges(Charuco(columns=4, rows=3, square_mm=20, marker_mm=14))
    whole = np.isclose(np.linalg.norm(charuco.end - charuco.start, axis=1), 20)
    assert whole.sum() == 17
    assert np.allclose(charuco.room_mm[whole], 3)
    assert len(board_edges(CircleGrid(columns=4, rows=3, spacing_mm=20)).start) == 0
    dotted = board_edges(Checkerboard(columns=9, rows=6, square_mm=20, marker=True))
    assert dotted.room_mm.min() < 10


def test_the_surface_is_found_within_its_sigmas():
    errors = []
    for seed in range(30):
        model = fit_focus(series(np.random.default_rng(seed)), LENS)
        s = model.surface
        errors.append(
            [
                (s.distance_mm - DISTANCE) / s.distance_sigma_mm,
                (s.tilt_deg[0] - TILT[0]) / s.tilt_sigma_deg[0],
                (s.tilt_deg[1] - TILT[1]) / s.tilt_sigma_deg[1],
                s.curvature_per_mm / s.curvature_sigma_per_mm,
                (s.floor_px - FLOOR) / s.floor_sigma_px,
            ]
        )
        assert abs(s.pupil_mm - PUPIL) < 4 * s.pupil_sigma_mm
        assert model.quality.verdict == "good"
    errors = np.array(errors)
    # 150 numbers of deviation 1: their rms scatters by 1 / sqrt(300)
    assert abs(np.sqrt(np.mean(errors**2)) - 1) < 4 / np.sqrt(300)
    assert np.all(np.abs(errors.mean(axis=0)) < 4 / np.sqrt(30))
    assert np.all(np.abs(np.sqrt(np.mean(errors**2, axis=0)) - 1) < 3.5 / np.sqrt(60))


def test_sharpness_that_falls_off_along_the_radius_is_told_from_that_across_it():
    growth = (0.9, 0.2)
    model = fit_focus(series(np.random.default_rng(8), growth=growth), LENS)
    # 720 edges of 1 % tell the growth of a variance of 0.64 px^2 at the corners to some 0.03
    assert model.surface.growth_px2 == pytest.approx(growth, abs=0.12)
    assert abs(model.surface.distance_mm - DISTANCE) < 4 * model.surface.distance_sigma_mm


def test_the_order_of_the_views_does_not_matter():
    views = series(np.random.default_rng(1))
    order = [3, 7, 0, 5, 1, 6, 2, 4]
    names = [f"v{i}" for i in range(8)]
    a = fit_focus(views, LENS, names=names)
    b = fit_focus([views[i] for i in order], LENS, names=[names[i] for i in order])
    assert a.surface == b.surface
    assert [view.name for view in b.views] == [names[i] for i in order]
    assert {v.name: v.model_dump_json() for v in a.views} == {v.name: v.model_dump_json() for v in b.views}
    assert np.array_equal(a.curves, b.curves)


def test_a_moved_view_is_named_and_left_out():
    rng = np.random.default_rng(2)
    views = series(rng)
    views[4] = seen_edges(500, rng, extra=1.5)
    model = fit_focus(views, LENS, names=[f"v{i}" for i in range(8)])
    assert model.views[4].remark.startswith("less sharp")
    assert all(view.remark == "" for i, view in enumerate(model.views) if i != 4)
    assert abs(model.surface.floor_px - FLOOR) < 5 * model.surface.floor_sigma_px
    assert np.all(
        (model.edges[:, 0] < 0) == (np.where(model.edges[:, 0] < 0, -1 - model.edges[:, 0], 0) == 4)
    )
    assert any("v4" in warning for warning in model.quality.warnings)


def test_views_that_err_as_a_whole_make_the_sigmas_larger():
    off, told = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        views = [
            view._replace(mtf50=view.mtf50 * np.exp(0.05 * rng.normal()))
            for view in series(rng, depths=range(390, 681, 15))
        ]
        surface = fit_focus(views, LENS).surface
        off.append(surface.distance_mm - DISTANCE)
        told.append(surface.distance_sigma_mm)
    # 12 numbers know their deviation to 20 %; taken for independent, the edges would claim a quarter of it
    assert 0.5 < np.sqrt(np.mean(np.square(off))) / np.sqrt(np.mean(np.square(told))) < 2


def test_pictures_that_scatter_are_doubted():
    rng = np.random.default_rng(9)
    views = [view._replace(sigma=0.01 * view.mtf50) for view in series(rng, noise=0.2)]
    model = fit_focus(views, LENS)
    assert model.quality.verdict == "doubtful"
    assert "scatters by 20 %" in " ".join(model.quality.warnings) or "scatters by 19 %" in " ".join(
        model.quality.warnings
    )


def test_wild_edges_are_thrown_out():
    rng = np.random.default_rng(3)
    views = series(rng)
    for view in views:
        view.mtf50[:4] *= 0.5
    model = fit_focus(views, LENS)
    assert abs(model.surface.distance_mm - DISTANCE) < 5 * model.surface.distance_sigma_mm
    assert model.quality.rejected >= 4 * 8


def test_views_without_a_range_of_depth_say_what_is_missing():
    model = fit_focus(series(np.random.default_rng(4), depths=[498, 500, 502], pupil=0.2), LENS)
    assert model.surface is None
    assert model.quality.verdict == "doubtful"
    assert "move the board through focus" in model.quality.warnings[0]
    assert np.isfinite([view.mtf50 for view in model.views]).all()
    with pytest.raises(ValueError, match="no sharp surface"):
        model.blur_px([0.0, 0.0, 500.0])
    one_side = fit_focus(series(np.random.default_rng(4), depths=[620, 660, 700, 740]), LENS)
    assert "extrapolated" in one_side.quality.warnings[0] or "known to" in one_side.quality.warnings[0]
    assert abs(one_side.surface.distance_mm - DISTANCE) < 4 * one_side.surface.distance_sigma_mm


def test_too_few_edges_are_no_model():
    view = seen_edges(500, np.random.default_rng(1), count=10)._replace(refused={"too short": 40})
    with pytest.raises(FitError, match=r"10 edges .* 40 too short"):
        fit_focus([view], LENS)


def test_depth_of_field_is_the_textbooks():
    model = fit_focus(series(np.random.default_rng(5)), LENS)
    model = model.replace(
        surface=model.surface.replace(
            distance_mm=500.0, tilt_deg=(0.0, 0.0), curvature_per_mm=0.0, pupil_mm=6.0, covariance=None
        ),
        focal_px=1600.0,
    )
    limit = 2.0
    hyperfocal = 1600 * 6.0 / limit
    found = depth_of_field(model, (450, 600), limit)
    assert found.near_mm == pytest.approx(500 * hyperfocal / (hyperfocal + 500))
    assert found.far_mm == pytest.approx(500 * hyperfocal / (hyperfocal - 500))
    worst = 1600 * 6 * max(1 / 450 - 1 / 500, 1 / 500 - 1 / 600)
    assert found.blur_px == pytest.approx(worst)
    assert found.stops == pytest.approx(2 * np.log2(worst / limit))
    assert found.best_mm == pytest.approx(2 / (1 / 450 + 1 / 600))
    assert found.best_blur_px == pytest.approx(1600 * 6 * (1 / 450 - 1 / 600) / 2)
    # the model's own picture of the same: blur at the ends of the depth of field is the limit
    assert np.allclose(model.blur_px([[0, 0, found.near_mm], [0, 0, found.far_mm]]), limit)
    assert depth_of_field(model, (450, 600), 30.0).far_mm == np.inf
    tilted = model.replace(surface=model.surface.replace(tilt_deg=(10.0, 0.0)))
    wide = depth_of_field(tilted, (450, 600), limit, rays=[(-0.25, 0), (0, 0), (0.25, 0)])
    assert wide.blur_px > found.blur_px
    with pytest.raises(ValueError, match="near <= far"):
        depth_of_field(model, (600, 450), limit)


def test_a_model_survives_its_file(tmp_path):
    model = fit_focus(series(np.random.default_rng(6)), LENS, names=[f"v{i}" for i in range(8)])
    files.save_model(tmp_path / "focus.json", model)
    assert files.load_model(tmp_path / "focus.json", FocusModel) == model


def test_edges_of_a_picture_lie_where_lens_and_pose_say():
    """A board drawn by counting points, far finer than the pixels, through the distorted lens."""
    board = Checkerboard(columns=4, rows=3, square_mm=50)
    lens = BrownConrady(width=360, height=280, fx=250, fy=250, cx=180, cy=139, k1=-0.6, k2=0.3)
    rotation = np.array([0.15, -0.2, 0.14])
    pose = (rotation, np.array([-125.0, -105.0, 200.0]))
    from calibration.geometry import rotation as matrix
    from calibration.targets.boards import reflectance_at

    fine = 9
    steps = (np.arange(fine) + 0.5) / fine - 0.5
    v, u = np.mgrid[: lens.height, : lens.width]
    total = np.zeros(u.shape)
    axes = matrix(pose[0])
    for dv in steps:
        for du in steps:
            rays = lens.unproject(np.stack([u + du, v + dv], axis=-1))
            t = (pose[1] @ axes[:, 2]) / (rays @ axes[:, 2])
            at = (rays * t[..., None] - pose[1]) @ axes
            total += reflectance_at(board, at[..., 0], at[..., 1])
    image = 100 + 800 * total / fine**2
    view = detect_board(image, board)
    found = measure_edges(image, board, view, lens, pose)
    assert len(found.mtf50) > 14
    expected = [
        true_mtf50(blur_mtf(angle))
        for angle in np.degrees(np.arctan2(found.normals[:, 1], found.normals[:, 0]))
    ]
    # nothing but the pixel's square blurs; 9 points a side leave a twentieth of a pixel's rounding
    assert np.median(found.mtf50 / expected) == pytest.approx(1, abs=0.02)
    # without the bends, up to 0.65 px, the scatter is 0.11
    assert np.std(np.log(found.mtf50 / expected)) < 0.03
