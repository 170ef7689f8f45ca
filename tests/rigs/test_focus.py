"""Focus end to end: the bench's twin moved through focus, the command, the chapter of the report."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Answer, dump, shipped
from simulated_small import camera, truth

from calibration import files
from calibration.focus import FocusModel
from calibration.lens import BrownConrady
from calibration.provenance import FitError
from calibration.targets.boards import Checkerboard, CircleGrid
from capture.session import Session
from rigs import workflows
from rigs.config import load_plan, load_rig
from rigs.report import report_directory
from rigs.simulated import Truth, Twin, load_truth
from rigs.simulated.aperture import FocalSurface, sights
from rigs.simulated.truth import Optics

BOARD = Checkerboard(columns=9, rows=6, square_mm=20)
VIEWS = (1, 3, 4, 5, 7, 9)
PUPIL = 12.0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Truth]:
    """The shipped bench at half its resolution and twice its aperture, six of its views."""
    folder = tmp_path_factory.mktemp("bench")
    rig, plan = shipped("rigs/focus-bench.yaml"), shipped("plans/focus-bench.yaml")
    known = shipped("truths/focus-bench.yaml")
    rig["cameras"]["cam"] |= {"width": 400, "height": 300}
    lens = known["cameras"]["cam"]["lens"]
    lens |= {"width": 400, "height": 300, "fx": 800.0, "fy": 801.0, "cx": 200.9, "cy": 148.3}
    known["cameras"]["cam"]["optics"] |= {"pupil_mm": PUPIL, "focus_curvature_per_mm": 0.0}
    known["poses"] = {f"focus-{i}": known["poses"][f"focus-{i}"] for i in VIEWS}
    plan["blocks"] = [plan["blocks"][0] | {"pose": f"focus-{i}"} for i in VIEWS]
    true = load_truth(dump(folder / "truth.yaml", known))
    session = workflows.capture_session(
        load_rig(dump(folder / "rig.yaml", rig)),
        load_plan(dump(folder / "plan.yaml", plan)),
        folder / "session",
        simulate=true,
    )
    return session, true


@pytest.fixture(scope="module")
def model(bench: tuple[Session, Truth]) -> FocusModel:
    session, true = bench
    return workflows.measure_focus(session, BOARD, true.cameras["cam"].lens)


def test_the_bench_finds_its_truth(bench: tuple[Session, Truth], model: FocusModel) -> None:
    optics, found = bench[1].cameras["cam"].optics, model.surface
    assert found is not None
    assert model.quality is not None
    assert model.quality.verdict == "good"
    assert abs(found.distance_mm - 500) < 4 * found.distance_sigma_mm
    assert found.distance_sigma_mm < 1
    for at, sigma, true in zip(found.tilt_deg, found.tilt_sigma_deg, optics.focus_tilt_deg, strict=True):
        assert abs(at - true) < 4 * sigma
        assert sigma < 0.5
    assert found.pupil_mm == pytest.approx(PUPIL, rel=0.015)
    # the twin blurs on the grid of the pixels, which makes 0.3 % at this blur
    assert found.floor_px == pytest.approx(optics.psf_sigma_px, rel=0.015)
    assert len(model.views) == len(VIEWS)
    sharpest = max(model.views, key=lambda view: view.mtf50)
    assert sharpest.name == "focus-5"


def test_the_command_tells_and_writes_it(
    bench: tuple[Session, Truth], gnomon: Callable[..., Answer], tmp_path: Path
) -> None:
    session, true = bench
    files.save_model(tmp_path / "lens.json", true.cameras["cam"].lens)
    words = ["focus", session.path, "--board", "checkerboard 9x6 20", "--lens", tmp_path / "lens.json"]
    answer = gnomon(*words, "--volume", "450,600", "--criterion", "70%", "--out", tmp_path / "focus.json")
    assert (answer.code, answer.err) == (0, "")
    assert "sharp at 5" in answer.out
    assert "close the aperture by" in answer.out
    assert "focus-9: 6" in answer.out
    assert files.load_model(tmp_path / "focus.json", FocusModel).surface is not None
    page = report_directory(tmp_path, tmp_path / "report.html").read_text()
    for word in ("Through focus", "Sharp surface", "Entrance pupil", "focus-9"):
        assert word in page

    assert gnomon(*words[:4]).code == 2
    for option, value in (
        ("--volume", "600,450"),
        ("--volume", "x"),
        ("--criterion", "0"),
        ("--criterion", "a%"),
    ):
        answer = gnomon(*words, option, value, "--out", tmp_path / "not.json")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert not (tmp_path / "not.json").exists()


def test_a_board_without_edges_is_refused(bench: tuple[Session, Truth]) -> None:
    circles = CircleGrid(columns=9, rows=6, spacing_mm=20)
    with pytest.raises(FitError, match="no straight edges"):
        workflows.measure_focus(bench[0], circles, bench[1].cameras["cam"].lens)


def test_a_lens_of_other_frames_is_refused(bench: tuple[Session, Truth]) -> None:
    lens = BrownConrady(width=800, height=600, fx=1600, fy=1600, cx=400, cy=300)
    with pytest.raises(FitError, match="lens model is for 800 x 600"):
        workflows.measure_focus(bench[0], BOARD, lens)


def test_a_point_of_the_sharp_surface_is_seen_at_one_pixel_from_all_of_the_pupil() -> None:
    lens = BrownConrady(width=400, height=300, fx=800, fy=800, cx=200, cy=150, k1=-0.1)
    optics = Optics(focus_mm=500, pupil_mm=20, focus_tilt_deg=(5, -8), focus_curvature_per_mm=0.001)
    pixels = np.stack(np.meshgrid([10.0, 200.0, 390.0], [5.0, 150.0, 290.0]), axis=-1)
    points = FocalSurface.of(optics).meet(lens.unproject(pixels))
    on_axis = FocalSurface.of(optics).meet(np.array([0.0, 0.0, 1.0]))
    assert np.allclose(on_axis, [0, 0, 500])
    # the plane z = 500 - x tan 5 + y tan 8, bent towards the camera by x^2 / (2 * 1000) in first order
    right = FocalSurface.of(optics).meet(np.array([0.01, 0.0, 1.0]))
    assert right[2] == pytest.approx(500 - right[0] * np.tan(np.radians(5)) - right[0] ** 2 / 2000, abs=1e-3)
    pupil = sights(lens, optics)
    for sight in pupil:
        assert np.allclose(sight.project(points - sight.offset), pixels, atol=1e-8)
        rays = sight.unproject(pixels)
        assert np.allclose(sight.project(rays * 300), pixels, atol=1e-8)
    offsets = np.array([sight.offset for sight in pupil])
    assert np.allclose(offsets.mean(axis=0), 0)
    assert np.allclose(offsets[:, :2].T @ offsets[:, :2] / len(offsets), np.eye(2) * 20**2 / 16)
    assert np.linalg.norm(offsets, axis=1).max() < 10.5


def test_what_lies_in_the_sharp_plane_looks_as_through_a_pinhole() -> None:
    board = {"kind": "board", "board": BOARD.model_dump(), "translation_mm": [-95, -68, 500]}
    optics = {"psf_sigma_px": 0.7, "focus_mm": 500, "pupil_mm": 10}
    blurred, sharp = (
        Twin(
            truth([board | {"translation_mm": [-95, -68, z]}], eye=camera(optics=optics | {"pupil_mm": d}))
        ).clean_radiance("scene", {"led": 1.0}, "cam")
        for z, d in ((500, 10), (500, 0))
    )
    scale = sharp.max()
    assert np.sqrt(np.mean((blurred - sharp) ** 2)) < 0.003 * scale
    away = Twin(
        truth([board | {"translation_mm": [-95, -68, 420]}], eye=camera(optics=optics))
    ).clean_radiance("scene", {"led": 1.0}, "cam")
    pinhole = Twin(
        truth([board | {"translation_mm": [-95, -68, 420]}], eye=camera(optics=optics | {"pupil_mm": 0}))
    ).clean_radiance("scene", {"led": 1.0}, "cam")
    assert np.sqrt(np.mean((away - pinhole) ** 2)) > 0.01 * scale
    # blur moves light and keeps it; the board lies wholly in the picture
    assert away.sum() == pytest.approx(pinhole.sum(), rel=0.002)


def test_a_pupil_wants_a_distance() -> None:
    with pytest.raises(ValueError, match="pupil_mm wants focus_mm"):
        Optics(pupil_mm=3)
