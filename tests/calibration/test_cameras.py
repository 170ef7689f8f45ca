"""Several cameras in one frame: links, bundle adjustment, covariance, views that do not belong."""

import os
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_scene import CAMERAS, SIZE, board, lens, look, looking, poses, scene
from scipy.spatial.transform import Rotation

from calibration import files
from calibration.cameras import CameraSet, Motion, Relative, fit_cameras, half_turn
from calibration.provenance import FitError
from calibration.targets.boards import BoardView, Checkerboard, detect_board

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
PAIR = DATA / "lens/opencv_pair"
SIGMA = 0.1


def truth(a: str, b: str) -> Motion:
    return CAMERAS[b] @ CAMERAS[a].inverse()


def error(found: Relative, true: Motion) -> np.ndarray:
    turn = Rotation.from_matrix(true.rotation @ found.rotation.T).as_rotvec()
    return np.concatenate([turn, true.t - found.t_mm])


def chi(found: CameraSet, a: str, b: str) -> float:
    relative = found.relative(a, b)
    off = error(relative, truth(a, b))
    return float(off @ np.linalg.solve(relative.covariance, off))


def test_exact_corners_give_the_exact_rig() -> None:
    views, lenses = scene(6, sigma=0.0)
    found = fit_cameras(views, lenses)
    for a, b in (("left", "right"), ("right", "middle")):
        off = error(found.relative(a, b), truth(a, b))
        assert np.abs(off[:3]).max() < 1e-9
        assert np.abs(off[3:]).max() < 1e-6


def test_twin_bound_with_known_lenses() -> None:
    views, lenses = scene(40, sigma=SIGMA)
    found = fit_cameras(views, lenses)
    assert found.quality is not None
    assert found.quality.verdict == "good"
    assert found.quality.residual_rms == pytest.approx(SIGMA, rel=0.03)
    for a, b in (("left", "right"), ("left", "middle"), ("middle", "right")):
        off = error(found.relative(a, b), truth(a, b))
        assert np.degrees(np.linalg.norm(off[:3])) < 0.01
        assert np.linalg.norm(off[3:]) < 0.1
        assert found.relative(a, b).angle_sigma_deg < 0.01


@pytest.mark.parametrize("intrinsics", ["fixed", "free"])
def test_covariance_is_honest(intrinsics: str) -> None:
    normalised, squares = [], []
    for seed in range(20):
        views, lenses = scene(8, sigma=SIGMA, seed=seed)
        found = fit_cameras(views, lenses, intrinsics=intrinsics)  # type: ignore[arg-type]
        for a, b in (("left", "middle"), ("right", "middle")):
            relative = found.relative(a, b)
            off = error(relative, truth(a, b))
            normalised.append(off / np.sqrt(np.diag(relative.covariance)))
            squares.append(chi(found, a, b) / 6)
    # 240 errors, about 12 to a seed and half of them tied to one another: 8 % for one sigma.
    assert 0.82 < np.std(normalised) < 1.18
    assert 0.7 < np.mean(squares) < 1.4


def test_lenses_own_covariance_goes_into_the_poses() -> None:
    rng = np.random.default_rng(5)
    size = np.array([1.0, 1.0, 0.8, 0.8, 1e-3, 4e-3, 1e-5, 1e-5, 0, 0, 0, 0])
    squares, without = [], []
    for seed in range(8):
        views, lenses = scene(8, sigma=SIGMA, seed=seed)
        off = {
            name: eye.with_parameters(eye.parameters + size * rng.normal(size=12))
            for name, eye in lenses.items()
        }
        told = {name: eye.replace(covariance=np.diag(size**2)) for name, eye in off.items()}
        squares.append(chi(fit_cameras(views, told), "left", "right") / 6)
        without.append(chi(fit_cameras(views, off), "left", "right") / 6)
    assert 0.5 < np.mean(squares) < 1.7  # the mean of 8 x 6 chi-squares scatters by 0.2
    assert np.mean(without) > 5


def test_order_and_names_of_frames_do_not_matter() -> None:
    views, lenses = scene(8, sigma=SIGMA)
    found = fit_cameras(views, lenses)
    items = list(views.items())
    random.Random(1).shuffle(items)
    assert fit_cameras(dict(items), dict(reversed(lenses.items()))) == found
    renamed = fit_cameras({(f"{hash(f)}", c): view for (f, c), view in items}, lenses)
    assert renamed.cameras == found.cameras


def test_sizes_in_place_of_lenses() -> None:
    views, lenses = scene(20, sigma=0.02)
    found = fit_cameras(views, {name: SIZE for name in lenses})
    for name, eye in lenses.items():
        own = found.cameras[name].lens
        sigma = np.sqrt(np.diag(own.covariance))[:4]
        assert np.all(np.abs(own.parameters[:4] - eye.parameters[:4]) < 4.5 * sigma)
        assert np.all(sigma > 0)
    assert chi(found, "left", "right") < 30


def test_cameras_that_share_no_frame_are_linked_by_those_between() -> None:
    views, lenses = scene(20, sigma=SIGMA)
    chain = {(f, c): view for (f, c), view in views.items() if c != ("right" if int(f[-2:]) % 2 else "left")}
    found = fit_cameras(chain, lenses)
    assert chi(found, "left", "right") < 25
    direct = fit_cameras(views, lenses)
    assert found.relative("left", "right").baseline_sigma_mm > (
        direct.relative("left", "right").baseline_sigma_mm
    )


def test_unlinked_cameras_are_named_or_tied_by_what_is_known() -> None:
    views, lenses = scene(12, sigma=SIGMA)
    apart = {(f, c): view for (f, c), view in views.items() if (c == "right") == bool(int(f[-2:]) % 2)}
    with pytest.raises(FitError, match="nothing links right to left"):
        fit_cameras(apart, lenses)
    found = fit_cameras(apart, lenses, known={("right", "middle"): truth("right", "middle")})
    off = error(found.relative("right", "middle"), truth("right", "middle"))
    assert np.abs(off).max() < 1e-9
    # As exact as it was given: left to right is as sure as left to middle.
    for of in ("angle_sigma_deg",):
        assert getattr(found.relative("left", "right"), of) == pytest.approx(
            getattr(found.relative("left", "middle"), of), rel=0.5
        )
    assert chi(found, "left", "middle") < 25
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(found.relative("right", "middle").covariance)


def test_board_that_moved_between_two_cameras_is_named() -> None:
    views, lenses = scene(12, sigma=SIGMA)
    points, pose = board(), poses(12, board())[4]
    moved = Motion(pose.rotation, pose.t + np.array([0.6, 0, 0]))
    seen = look(CAMERAS["right"], lenses["right"], moved, points, SIGMA, np.random.default_rng(3))
    assert seen is not None
    found = fit_cameras({**views, ("pose-05", "right"): seen}, lenses)
    assert found.quality is not None
    assert len(found.quality.warnings) == 1
    assert found.quality.warnings[0].startswith("pose-05: right saw the board")
    assert chi(found, "left", "right") < 25
    # Two cameras see a board that moved across their baseline; along it, it is just another depth.
    moved = Motion(pose.rotation, pose.t + np.array([0, 0.6, 0]))
    seen = look(CAMERAS["right"], lenses["right"], moved, points, SIGMA, np.random.default_rng(3))
    assert seen is not None
    two = {key: view for key, view in {**views, ("pose-05", "right"): seen}.items() if key[1] != "middle"}
    found = fit_cameras(two, {name: eye for name, eye in lenses.items() if name != "middle"})
    assert found.quality is not None
    assert found.quality.warnings[0].startswith("pose-05: left, right saw the board")
    assert "pose-05" not in found.frames
    assert chi(found, "left", "right") < 25


def test_frames_out_of_step_are_thrown_out() -> None:
    views, lenses = scene(14, sigma=SIGMA)
    late = dict(views)
    for k in (3, 7, 8, 12):
        late[f"pose-{k:02d}", "right"] = views[f"pose-{k + 1:02d}", "right"]
    late = {key: view for key, view in late.items() if key[1] != "middle"}
    found = fit_cameras(late, {name: eye for name, eye in lenses.items() if name != "middle"})
    assert found.quality is not None
    named = {text[:7] for text in found.quality.warnings}
    assert named == {"pose-03", "pose-07", "pose-08", "pose-12"}
    assert chi(found, "left", "right") < 25


def test_boards_taken_upside_down_by_some_cameras() -> None:
    views, lenses = scene(10, sigma=SIGMA)
    points = board()
    turn = half_turn(*(points.max(axis=0) + points.min(axis=0))[:2])
    rng = np.random.default_rng(0)
    turned = {
        key: view._replace(points_mm=turn.points(view.points_mm)) if rng.random() < 0.4 else view
        for key, view in views.items()
    }
    straight, found = fit_cameras(views, lenses), fit_cameras(turned, lenses, turns=[turn])
    assert found.quality is not None
    assert found.quality.rejected == 0
    off = error(found.relative("left", "right"), Motion(*straight.relative("left", "right")[:2]))
    assert np.abs(off).max() < 1e-6
    one = {key: view for key, view in turned.items() if key[0] == "pose-03"}
    doubtful = fit_cameras(one, lenses, turns=[turn]).quality
    assert doubtful is not None
    assert doubtful.verdict == "doubtful"
    assert any("half-turned" in text for text in doubtful.warnings)


def test_bent_board() -> None:
    rng = np.random.default_rng(2)
    cameras = {name: looking(angle) for name, angle in (("a", -20.0), ("b", 20.0))}
    lenses = {name: lens() for name in cameras}
    flat = board()
    u, v = ((flat[:, i] - flat[:, i].mean()) / (np.ptp(flat[:, i]) / 2) for i in (0, 1))
    bent = flat + np.stack([0 * u, 0 * u, 0.8 * (1 - u**2) - 0.3 * (1 - v**2)], axis=-1)
    views = {}
    for k, pose in enumerate(poses(12, flat)):
        for name, camera in cameras.items():
            seen = look(camera, lenses[name], pose, bent, SIGMA, rng)
            if seen is not None:
                views[f"{k}", name] = seen._replace(points_mm=seen.points_mm * (1, 1, 0))
    found = fit_cameras(views, lenses, warp=True)
    assert found.board is not None
    assert found.board.warp_mm == pytest.approx((0.8, -0.3), abs=0.03)
    assert found.quality is not None
    assert found.quality.residual_rms == pytest.approx(SIGMA, rel=0.05)


def test_another_reference_changes_no_relative_pose() -> None:
    views, lenses = scene(8, sigma=SIGMA)
    left, right = fit_cameras(views, lenses), fit_cameras(views, lenses, reference="right")
    moved = left.in_frame_of("right")
    assert moved.reference == right.reference == "right"
    for a, b in (("left", "middle"), ("right", "left")):
        one, two, three = (found.relative(a, b) for found in (left, right, moved))
        np.testing.assert_allclose(three.t_mm, one.t_mm, atol=1e-9)
        np.testing.assert_allclose(three.covariance, one.covariance, rtol=1e-6, atol=1e-16)
        np.testing.assert_allclose(two.t_mm, one.t_mm, atol=1e-5)
        np.testing.assert_allclose(np.diag(two.covariance), np.diag(one.covariance), rtol=1e-3)
    np.testing.assert_allclose(moved.boards, right.boards, atol=1e-4)


def test_bad_input_is_one_clear_line() -> None:
    views, lenses = scene(3, sigma=SIGMA)
    with pytest.raises(FitError, match="one camera is no rig"):
        fit_cameras(views, {"left": lenses["left"]})
    with pytest.raises(FitError, match="no lens and no size of camera middle"):
        fit_cameras(views, {name: lenses[name] for name in ("left", "right")})
    with pytest.raises(FitError, match="found in no frame of right"):
        fit_cameras({key: view for key, view in views.items() if key[1] != "right"}, lenses)
    with pytest.raises(FitError, match="reference 'top' is no camera"):
        fit_cameras(views, lenses, reference="top")


def test_file_round_trip(tmp_path: Path) -> None:
    found = fit_cameras(*scene(4, sigma=SIGMA))
    digest = files.save_model(tmp_path / "cameras.json", found)
    assert files.load_model(tmp_path / "cameras.json", CameraSet, digest) == found


@pytest.mark.skipif(not PAIR.is_dir(), reason="no lens/opencv_pair data at GNOMON_DATA")
def test_real_stereo_pair_agrees_with_opencv() -> None:
    target = Checkerboard(columns=9, rows=6, square_mm=25.0)
    views = {}
    for side in ("left", "right"):
        for path in sorted(PAIR.glob(f"{side}*.jpg"))[1:9]:
            view = detect_board(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), target)
            if isinstance(view, BoardView):
                views[path.stem.removeprefix(side), side] = view
    size = (640, 480)
    found = fit_cameras(views, {"left": size, "right": size}, model="brown-5")
    relative = found.relative("left", "right")
    points, left, right = [], [], []
    for frame in sorted({frame for frame, _ in views}):
        if (frame, "left") in views and (frame, "right") in views:
            one, two = views[frame, "left"], views[frame, "right"]
            _, i, j = np.intersect1d(one.ids, two.ids, return_indices=True)
            points.append(one.points_mm[i].astype(np.float32))
            left.append(one.pixels[i].astype(np.float32))
            right.append(two.pixels[j].astype(np.float32))
    start = [cv2.calibrateCamera(points, seen, size, None, None)[1:3] for seen in (left, right)]
    told = cv2.stereoCalibrate(
        points, left, right, *start[0], *start[1], size, flags=cv2.CALIB_USE_INTRINSIC_GUESS,
        criteria=(cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 500, 1e-12),
    )  # fmt: skip
    off = error(relative, Motion(told[5], told[6].ravel()))
    # Ours weighs corners by their sigmas and holds those that only one camera sees: not quite the same fit.
    assert np.all(np.abs(off) < np.sqrt(np.diag(relative.covariance)))
    assert abs(relative.baseline_mm - np.linalg.norm(told[6])) < relative.baseline_sigma_mm
    assert abs(relative.angle_deg - np.degrees(np.linalg.norm(cv2.Rodrigues(told[5])[0]))) < (
        relative.angle_sigma_deg
    )
    assert relative.baseline_sigma_mm < 0.2
