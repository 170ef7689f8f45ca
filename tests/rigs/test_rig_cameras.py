"""Several cameras, from the capture to a moved one: workflows and commands, on a small twin of three."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Answer, dump, shipped
from scipy.spatial.transform import Rotation

from calibration import files
from calibration.cameras import CameraSet, Motion
from calibration.cameras.turns import turns_of
from calibration.geometry import rotation, tangent_basis
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.provenance import FitError
from calibration.targets.boards import Charuco, Checkerboard, CircleGrid
from capture.session import Session
from rigs import workflows
from rigs.config import ConfigError, load_plan, load_rig
from rigs.simulated import Truth, load_truth
from rigs.workflows.cameras import paired

SHRINK = 2
BOARD = {
    "kind": "charuco", "columns": 7, "rows": 5, "square_mm": 24, "marker_mm": 18, "dictionary": "DICT_4X4_50",
}  # fmt: skip
NAMES = ("left", "middle", "right")


class Small:
    """Files of the shipped rig at half its resolution, with fewer poses of a coarser board."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rig, truth = shipped("rigs/three-cameras.yaml"), shipped("truths/three-cameras.yaml")
        plan = shipped("plans/three-cameras.yaml")
        for name in NAMES:
            rig["cameras"][name] = rig["cameras"][name] | {"width": 640, "height": 480}
            eye = truth["cameras"][name]["lens"]
            eye |= {"width": 640, "height": 480, "fx": eye["fx"] / SHRINK, "fy": eye["fy"] / SHRINK}
            eye |= {key: (eye[key] + 0.5) / SHRINK - 0.5 for key in ("cx", "cy")}
        rig["targets"]["board"] = BOARD
        truth["generate"]["boards"] |= {"board": BOARD, "columns": 3, "rows": 3}
        plan["blocks"][0]["pose"] = "board-1..board-9"
        self.rig, self.data = dump(folder / "rig.yaml", rig), truth
        self.truth, self.plan = dump(folder / "truth.yaml", truth), dump(folder / "plan.yaml", plan)

    def capture(self, name: str, truth: Truth) -> Session:
        return workflows.capture_session(
            load_rig(self.rig), load_plan(self.plan), self.folder / name, simulate=truth
        )

    def pose(self, name: str) -> Motion:
        eye = self.data["cameras"][name]
        turn, shift = (np.array(eye.get(key, [0.0] * 3)) for key in ("rotvec_deg", "translation_mm"))
        return Motion(rotation(np.radians(turn)), shift)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def session(small: Small) -> Session:
    return small.capture("boards", load_truth(small.truth))


@pytest.fixture(scope="module")
def geometry(small: Small, session: Session) -> Path:
    """Cameras calibrated with their true lenses, as a separate calibration would give them."""
    twin = load_truth(small.truth)
    model = workflows.calibrate_cameras(
        session,
        load_rig(small.rig).targets.board,
        {n: twin.cameras[n].lens for n in NAMES},  # type: ignore[arg-type]
    )
    path = small.folder / "cameras.json"
    files.save_model(path, model)
    return path


def test_twin_bounds(small: Small, geometry: Path) -> None:
    found = files.load_model(geometry, CameraSet)
    bounds = small.data["bounds"]
    assert found.quality is not None
    assert found.quality.verdict == "good"
    for a, b in (("left", "middle"), ("middle", "right"), ("left", "right")):
        true, relative = small.pose(b) @ small.pose(a).inverse(), found.relative(a, b)
        turn = Rotation.from_matrix(true.rotation @ relative.rotation.T).magnitude()
        assert np.degrees(turn) < bounds["rotation_deg"]
        assert np.linalg.norm(true.t - relative.t_mm) < bounds["translation_mm"]


def test_command_finds_the_lenses_too(
    small: Small, session: Session, gnomon: Callable[..., Answer], tmp_path: Path
) -> None:
    out = tmp_path / "cameras.json"
    answer = gnomon("calibrate", "rig", session.path, "--rig", small.rig, "--out", out)
    assert answer.code == 0, answer.err
    assert "middle from left: " in answer.out
    found = files.load_model(out, CameraSet)
    assert found.reference == "left"
    for a, b in (("left", "middle"), ("left", "right")):
        true, relative = small.pose(b) @ small.pose(a).inverse(), found.relative(a, b)
        turn = Rotation.from_matrix(true.rotation @ relative.rotation.T).as_rotvec()
        off = np.concatenate([turn, true.t - relative.t_mm])
        assert off @ np.linalg.solve(relative.covariance, off) < 40
    answer = gnomon("report", tmp_path)
    assert answer.code == 0, answer.err
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Cameras and boards" in page
    assert "Poses against left" in page


def test_moved_camera_is_told_by_the_command(
    small: Small, geometry: Path, gnomon: Callable[..., Answer]
) -> None:
    bumped: dict[str, Any] = {**small.data, "seed": 5}
    turn = Motion(rotation(np.radians([0.1, -0.39, 0.0])), np.zeros(3)) @ small.pose("right")
    bumped["cameras"] = dict(bumped["cameras"])
    bumped["cameras"]["right"] = bumped["cameras"]["right"] | {
        "rotvec_deg": np.degrees(Rotation.from_matrix(turn.rotation).as_rotvec()).tolist(),
        "translation_mm": turn.t.tolist(),
    }
    later = small.capture("later", load_truth(dump(small.folder / "bumped.yaml", bumped)))
    pinned = shipped("rigs/three-cameras.yaml")
    pinned["targets"]["board"] = BOARD
    pinned["geometry"] = {"path": str(geometry), "digest": None}
    rig = dump(small.folder / "pinned.yaml", pinned)
    answer = gnomon("rig", "moved", later.path, "--rig", rig)
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert lines[0] == "ok       camera left stands where it stood"
    assert lines[2].startswith("warning  camera right has turned 0.4° (sigma 0.0")
    answer = gnomon("rig", "moved", small.folder / "boards", "--rig", rig)
    assert (answer.code, answer.err) == (0, "")
    larger = ("--board", "charuco 7x5 30 22.5 DICT_4X4_50")
    answer = gnomon("rig", "moved", small.folder / "boards", "--rig", rig, *larger)
    assert answer.code == 4
    assert re.search(r"the board is 0\.(800|799)\d* times as large as described", answer.err)
    assert "with that size all cameras stand as they did" in answer.err


def test_pinned_geometry_is_checked(small: Small, geometry: Path, gnomon: Callable[..., Answer]) -> None:
    data = shipped("rigs/three-cameras.yaml") | {"geometry": {"path": str(geometry), "digest": "0" * 64}}
    answer = gnomon("rig", "check", dump(small.folder / "wrong.yaml", data))
    assert answer.code == 2
    assert "geometry: " in answer.err
    assert "not the pinned model" in answer.err
    data["cameras"].pop("right")
    data["geometry"] = {"path": str(geometry)}
    answer = gnomon("rig", "check", dump(small.folder / "wrong.yaml", data))
    assert "geometry: camera right is none of the rig's" in answer.err


def test_pins_of_several_cameras_are_never_guessed(
    small: Small, session: Session, gnomon: Callable[..., Answer], tmp_path: Path
) -> None:
    lens = tmp_path / "lens.json"
    files.save_model(lens, load_truth(small.truth).cameras["left"].lens)
    data = shipped("rigs/three-cameras.yaml") | {"calibrations": {"left": {"lens": {"path": str(lens)}}}}
    rig = dump(tmp_path / "rig.yaml", data)
    answer = gnomon("session", "check", session.path, "--rig", rig)
    assert answer.code == 2
    assert answer.err.strip() == "gnomon: there are cameras left, middle, right: say which with --camera"


def test_options_that_cannot_be_read(small: Small, session: Session, gnomon: Callable[..., Answer]) -> None:
    for words, told in (
        (("--lens", "top=a.json"), "want CAMERA=FILE; the cameras are left, middle, right"),
        (("--known", "left,right=1,2"), "want A,B=RX,RY,RZ,TX,TY,TZ"),
        (("--reference", "top"), "reference 'top' is no camera"),
    ):
        answer = gnomon("calibrate", "rig", session.path, "--rig", small.rig, *words)
        assert answer.code in (2, 4)
        assert told in answer.err
    with pytest.raises(ConfigError):
        workflows.parse_known("left=1,2,3,4,5,6")
    assert workflows.parse_known("a,b=0,0,90,1,2,3")[1].rotation[1, 0] == pytest.approx(1)


def test_lights_of_one_camera_serve_another(
    small: Small, geometry: Path, gnomon: Callable[..., Answer], tmp_path: Path
) -> None:
    cameras = files.load_model(geometry, CameraSet)
    lights = LightSet(
        lights={
            "near": NearLight(position_mm=(40, -260, 60), axis=(0, 0.5, 0.866), covariance=0.04 * np.eye(3)),
            "far": DistantLight(direction=(0, 0.6, -0.8), covariance=1e-6 * np.eye(2)),
        },
        sphere_centres_mm=np.array([[0.0, 0, 480], [30, 0, 520]]),
        scene_depth_mm=500.0,
    )
    files.save_model(tmp_path / "lights.json", lights)
    answer = gnomon(
        "rig", "lights", tmp_path / "lights.json", "--cameras", geometry, "--camera", "middle",
        "--to", "right", "--out", tmp_path / "right.json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    moved = files.load_model(tmp_path / "right.json", LightSet)
    true = small.pose("right") @ small.pose("middle").inverse()
    points = np.array([[10.0, -20, 450], [40, 10, 520]])
    for name in ("near", "far"):
        here, there = lights.lights[name].at(points), moved.lights[name].at(true.points(points))
        np.testing.assert_allclose(there[0], here[0] @ true.rotation.T, atol=1e-3)
        np.testing.assert_allclose(there[1], here[1], rtol=2e-3)
    near = moved.lights["near"].covariance
    assert near is not None
    assert np.all(np.diag(near) >= 0.04)
    with pytest.raises(FitError, match="no camera 'top'"):
        workflows.lights_seen_from(cameras, lights, "top", "left")


def test_covariance_of_moved_lights_against_scatter() -> None:
    rng = np.random.default_rng(3)
    near = NearLight(position_mm=(40, -260, 60), covariance=np.diag([0.04, 0.09, 0.01]))
    far = DistantLight(direction=(0.48, 0.6, -0.64), covariance=np.diag([1e-6, 4e-6]))
    spread = np.diag([1e-6, 2e-6, 1e-6, 0.01, 0.02, 0.01])
    turn, t_mm = rotation([0.3, -0.5, 0.2]), np.array([100.0, 20, -30])
    moved = LightSet(lights={"near": near, "far": far}).moved(turn, t_mm, spread).lights
    places, ways = [], []
    for _ in range(4000):
        step = rng.multivariate_normal(np.zeros(6), spread)
        off = rotation(step[:3]) @ turn
        at = rng.multivariate_normal(near.position_mm, near.covariance)
        places.append(off @ at + t_mm + step[3:])
        way = np.array(far.direction) + rng.multivariate_normal([0, 0], far.covariance) @ tangent_basis(
            far.direction
        )
        ways.append(tangent_basis(moved["far"].direction) @ off @ way)
    # Variances of 4000 draws scatter by 2.2 %.
    np.testing.assert_allclose(
        np.diag(np.cov(np.transpose(places))), np.diag(moved["near"].covariance), rtol=0.1
    )
    np.testing.assert_allclose(np.cov(np.transpose(ways)), moved["far"].covariance, rtol=0.1, atol=2e-7)


def test_frames_arepaired_by_their_numbers() -> None:
    keys = {
        ("left01.jpg", "left"),
        ("left02.jpg", "left"),
        ("right01.jpg", "right"),
        ("right03.jpg", "right"),
    }
    assert paired(keys, 2) == {key: str(int(key[0][-6:-4])) for key in keys}
    named = {("a", "left"), ("a", "right"), ("b1", "left")}
    assert paired(named, 2) == {key: key[0] for key in named}


@pytest.mark.parametrize(
    ("board", "count"),
    [
        (Checkerboard(columns=9, rows=6, square_mm=10), 0),
        (Checkerboard(columns=8, rows=6, square_mm=10), 1),
        (Checkerboard(columns=6, rows=6, square_mm=10), 3),
        (Checkerboard(columns=7, rows=7, square_mm=10), 1),
        (Charuco(columns=8, rows=6, square_mm=10, marker_mm=7), 0),
        (CircleGrid(columns=8, rows=6, spacing_mm=10), 1),
    ],
)
def test_ways_up_in_which_a_board_looks_the_same(board: Any, count: int) -> None:
    assert len(turns_of(board)) == count
