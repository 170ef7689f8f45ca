"""What a calibrated rig is for: rectified pairs, and noticing that a camera was touched."""

import cv2
import numpy as np
import pytest
from camera_scene import CAMERAS, SIZE, board, lens, look, poses, scene
from scipy.spatial.transform import Rotation

from calibration.cameras import CameraSet, Motion, RigCamera, find_moved, fit_cameras, rectify
from calibration.cameras.model import rotvec
from calibration.lens import BrownConrady
from calibration.lens.undistortion import undistorter
from calibration.provenance import FitError

SIGMA = 0.1
LENSES = {name: lens(10.0 * k) for k, name in enumerate(CAMERAS)}


def exact(cameras: dict[str, Motion], lenses: dict[str, BrownConrady]) -> CameraSet:
    placed = {
        name: RigCamera(lens=lenses[name], rotvec_rad=rotvec(pose.rotation), t_mm=tuple(pose.t.tolist()))
        for name, pose in cameras.items()
    }
    return CameraSet(cameras=placed, reference=next(iter(cameras)))


def facing(*t_mm: float) -> Motion:
    return Motion(np.eye(3), np.array(t_mm, np.float64))


@pytest.mark.parametrize("view", ["same", "crop", "keep-all"])
def test_rectified_rows_match_and_disparity_is_depth(view: str) -> None:
    points = np.random.default_rng(0).uniform(-80, 80, (400, 3))
    found = fit_cameras(*scene(30, sigma=0.02))
    for rig, row, depth in ((exact(CAMERAS, LENSES), 1e-6, 1e-6), (found, 0.1, 0.2)):
        pair = rectify(rig, "left", "right", view=view)  # type: ignore[arg-type]
        assert pair.along == "rows"
        assert pair.left.view.fx == pair.right.view.fx == pair.left.view.fy
        seen = {}
        for name, side in (("left", pair.left), ("right", pair.right)):
            rays = side.lens.unproject(LENSES[name].project(CAMERAS[name].points(points)))
            seen[name] = side.view.project(rays @ side.rotation.T)
        disparity = seen["left"] - seen["right"]
        assert np.abs(disparity[:, 1]).max() < row
        z = CAMERAS["left"].points(points) @ pair.left.rotation[2]
        assert np.abs(pair.depth_mm(disparity[:, 0]) - z).max() < depth


def test_rectification_agrees_with_opencv() -> None:
    rig = exact(CAMERAS, LENSES)
    pair, relative = rectify(rig, "left", "right"), rig.relative("left", "right")
    one, other = (
        (np.array([[eye.fx, 0, eye.cx], [0, eye.fy, eye.cy], [0, 0, 1]]), eye.parameters[4:9])
        for eye in (LENSES["left"], LENSES["right"])
    )
    told = cv2.stereoRectify(*one, *other, SIZE, relative.rotation, relative.t_mm.reshape(3, 1))
    for side, turn in ((pair.left, told[0]), (pair.right, told[1])):
        # The same rows; about the baseline OpenCV looks half way between the cameras in another sense.
        about = rotvec(side.rotation @ turn.T)
        assert np.abs(about[1:]).max() < 1e-9
        assert abs(np.degrees(about[0])) < 0.2


def test_rectified_pictures_show_one_point_in_one_row() -> None:
    """Dots drawn in the cameras' own pictures, found again in the rectified ones."""
    small = {
        name: BrownConrady(width=500, height=375, fx=650, fy=651, cx=252, cy=185, k1=-0.1) for name in CAMERAS
    }
    pair = rectify(exact(CAMERAS, small), "left", "right", view="keep-all")
    points = np.array([[-40.0, -20, 10], [30, 35, -20], [0, 0, 30]])
    rows = []
    for name, side in (("left", pair.left), ("right", pair.right)):
        u, v = np.meshgrid(np.arange(500), np.arange(375))
        picture = sum(
            np.exp(-((u - x) ** 2 + (v - y) ** 2) / 18)
            for x, y in small[name].project(CAMERAS[name].points(points))
        )
        seen = undistorter(side.lens, side.view, rotation=side.rotation).image(picture.astype(np.float32))
        own = side.view.project(CAMERAS[name].points(points) @ side.rotation.T)
        found = []
        for x, y in own:
            c, r = round(float(x)), round(float(y))
            part = np.nan_to_num(seen[r - 7 : r + 8, c - 7 : c + 8])
            found.append(float((part.sum(axis=1) @ np.arange(r - 7, r + 8)) / part.sum()))
        np.testing.assert_allclose(found, own[:, 1], atol=0.05)
        rows.append(found)
    np.testing.assert_allclose(rows[0], rows[1], atol=0.1)


def test_cameras_above_one_another_share_columns() -> None:
    cameras = {
        "a": Motion(np.eye(3), np.array([0, 0, 500.0])),
        "b": Motion(np.eye(3), np.array([10, -80, 500.0])),
    }
    eyes = {name: lens() for name in cameras}
    pair = rectify(exact(cameras, eyes), "a", "b")
    assert pair.along == "columns"
    point = np.array([[12.0, -30.0, 20.0]])
    one, other = (
        side.view.project(cameras[name].points(point) @ side.rotation.T)
        for name, side in (("a", pair.left), ("b", pair.right))
    )
    assert one[0, 0] == pytest.approx(other[0, 0], abs=1e-9)
    assert pair.depth_mm(one[:, 1] - other[:, 1])[0] == pytest.approx(520, abs=1e-6)
    with pytest.raises(FitError, match="b stands below a"):
        rectify(exact(cameras, eyes), "b", "a")


def test_cameras_behind_one_another_cannot_be_rectified() -> None:
    cameras = {
        "a": Motion(np.eye(3), np.array([0, 0, 500.0])),
        "b": Motion(np.eye(3), np.array([-1, 0, 600.0])),
    }
    with pytest.raises(FitError, match="cannot be rectified"):
        rectify(exact(cameras, {name: lens() for name in cameras}), "a", "b")


def now(cameras: dict[str, Motion], lenses: dict[str, BrownConrady] = LENSES, seed: int = 7, count: int = 8):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    points, views = board(), {}
    for k, pose in enumerate(poses(count, points, seed=seed)):
        for name, camera in cameras.items():
            seen = look(camera, lenses[name], pose, points, SIGMA, rng)
            if seen is not None:
                views[f"now-{k}", name] = seen
    return views


@pytest.fixture(scope="module")
def calibrated() -> CameraSet:
    return fit_cameras(*scene(15, sigma=SIGMA))


def test_turned_camera_is_named_with_its_angle(calibrated: CameraSet) -> None:
    turn = Motion(Rotation.from_rotvec(np.radians([0, 0.4, 0])).as_matrix(), np.zeros(3))
    left, middle, right = find_moved(calibrated, now({**CAMERAS, "left": turn @ CAMERAS["left"]}))
    assert (left.kind, middle.kind, right.kind) == ("moved", "still", "still")
    assert left.motion is not None
    assert left.motion.angle_deg == pytest.approx(0.4, abs=4 * left.motion.angle_sigma_deg)
    assert left.motion.angle_sigma_deg < 0.02
    assert left.text.startswith("camera left has turned 0.")


def test_shifted_camera(calibrated: CameraSet) -> None:
    shift = Motion(np.eye(3), np.array([1.0, 0, 0]))
    left, middle, right = find_moved(calibrated, now({**CAMERAS, "middle": shift @ CAMERAS["middle"]}))
    assert (left.kind, middle.kind, right.kind) == ("still", "moved", "still")
    assert middle.motion is not None
    assert middle.motion.baseline_mm == pytest.approx(1.0, abs=4 * middle.motion.baseline_sigma_mm)


def test_lens_that_was_touched_is_no_camera_that_moved(calibrated: CameraSet) -> None:
    longer = {
        **LENSES,
        "right": LENSES["right"].replace(fx=LENSES["right"].fx * 1.005, fy=LENSES["right"].fy * 1.005),
    }
    left, middle, right = find_moved(calibrated, now(CAMERAS, longer))
    assert (left.kind, middle.kind, right.kind) == ("still", "still", "lens")
    assert right.focal_percent == pytest.approx(0.5, abs=4 * right.focal_sigma_percent)
    assert right.motion is None


def test_of_two_cameras_nobody_can_say_which(calibrated: CameraSet) -> None:
    views, lenses = scene(15, sigma=SIGMA)
    two = fit_cameras(
        {key: view for key, view in views.items() if key[1] != "middle"},
        {name: eye for name, eye in lenses.items() if name != "middle"},
    )
    apart = {name: pose for name, pose in CAMERAS.items() if name != "middle"}
    turn = Motion(Rotation.from_rotvec(np.radians([0, 0.4, 0])).as_matrix(), np.zeros(3))
    moved = find_moved(two, now({**apart, "left": turn @ CAMERAS["left"]}))
    assert [change.kind for change in moved] == ["unknown", "unknown"]
    assert "which of the two moved cannot be told" in moved[0].text
    assert [change.kind for change in find_moved(two, now(apart))] == ["still", "still"]


def test_no_false_alarm(calibrated: CameraSet) -> None:
    kinds = [
        change.kind for seed in range(8) for change in find_moved(calibrated, now(CAMERAS, seed=40 + seed))
    ]
    assert set(kinds) == {"still"}


def test_one_camera_alone_tells_nothing_of_its_place(calibrated: CameraSet) -> None:
    views = {key: view for key, view in now(CAMERAS).items() if key[1] == "left"}
    assert {change.kind for change in find_moved(calibrated, views)} == {"unknown"}
    with pytest.raises(FitError, match="camera top is none"):
        find_moved(calibrated, {("a", "top"): next(iter(views.values()))})


def as_described(views: dict, scale: float) -> dict:  # type: ignore[type-arg]
    """The views with a board whose true size is ``scale`` times the described one."""
    return {key: view._replace(points_mm=view.points_mm / scale) for key, view in views.items()}


@pytest.mark.parametrize(("scale", "bent"), [(1.25, False), (0.8, False), (1.004, False), (1.25, True)])
def test_a_board_of_another_size_is_no_camera_that_moved(
    calibrated: CameraSet, scale: float, bent: bool
) -> None:
    cameras = dict(CAMERAS)
    if bent:  # a camera that moved as well leaves the others to tell
        turn = Motion(Rotation.from_rotvec(np.radians([0, 0.4, 0])).as_matrix(), np.zeros(3))
        cameras["left"] = turn @ cameras["left"]
    views = as_described(now(cameras), scale)
    with pytest.raises(FitError, match=r"the board is .* times as large as described") as error:
        find_moved(calibrated, views)
    words = str(error.value).split()
    sigma = float(words[words.index("(sigma") + 1].strip("),:"))
    assert 1e-5 < sigma < 1e-3
    assert float(words[3]) == pytest.approx(scale, abs=5 * sigma)
    said = "or middle and right stand that much farther apart" if bent else "all cameras stand as they did"
    assert said in str(error.value)


def test_of_two_cameras_a_slip_along_their_bar_may_be_the_board(calibrated: CameraSet) -> None:
    views, lenses = scene(15, sigma=SIGMA)
    two = fit_cameras(
        {key: view for key, view in views.items() if key[1] != "middle"},
        {name: eye for name, eye in lenses.items() if name != "middle"},
    )
    apart = {name: pose for name, pose in CAMERAS.items() if name != "middle"}
    with pytest.raises(FitError, match="or left and right stand that much farther apart"):
        find_moved(two, as_described(now(apart), 1.1))
