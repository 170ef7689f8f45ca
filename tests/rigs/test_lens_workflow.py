"""Lens calibration from a folder of pictures to the report, and the guide, by their commands."""

import re
import shutil

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from calibration import files
from calibration.lens import BrownConrady, LensModel
from calibration.provenance import FitError
from calibration.targets.boards import Charuco, Checkerboard, board_image, size_mm
from capture.session import Session
from rigs.interchange import import_folder
from rigs.workflows import calibrate_lens, describe_lens
from rigs.workflows.cameras import board_frames

LENS = BrownConrady(width=480, height=360, fx=520, fy=521, cx=241.2, cy=178.3, k1=-0.15, k2=0.05)
BOARD = Checkerboard(columns=7, rows=5, square_mm=10)
TEXT = "checkerboard 7x5 10"
VIEWS = 9


def picture(rng, rotation, t):
    """What the lens sees of the printed board, white around it."""
    scale = 12.0
    print_ = np.pad(board_image(BOARD, scale), 120, constant_values=255).astype(np.float32)
    u, v = np.meshgrid(np.arange(LENS.width), np.arange(LENS.height))
    rays = LENS.unproject(np.stack([u, v], axis=-1)) @ rotation
    origin = -t @ rotation
    at = origin[:2] - rays[..., :2] * (origin[2] / rays[..., 2:])
    grid = (at * scale - 0.5 + 120).astype(np.float32)
    seen = cv2.remap(print_, grid[..., 0], grid[..., 1], cv2.INTER_AREA, borderValue=255)
    return np.clip(0.7 * cv2.GaussianBlur(seen, (0, 0), 0.7) + 25 + rng.normal(0, 1, seen.shape), 0, 255)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of the board, one without it, and a session of them."""
    path = tmp_path_factory.mktemp("lens") / "pictures"
    path.mkdir()
    rng = np.random.default_rng(2)
    middle = np.array([*size_mm(BOARD), 0]) / 2
    for number in range(VIEWS):
        around, tilt = 2.4 * number, np.radians(12 + 3 * number)
        rotation = Rotation.from_rotvec([tilt * np.cos(around), tilt * np.sin(around), 0.05]).as_matrix()
        place = np.array([45 * np.cos(1.3 * number), 30 * np.sin(1.7 * number), 150 + 8 * number])
        image = picture(rng, rotation, place - rotation @ middle)
        cv2.imwrite(str(path / f"board{number}.png"), image.astype(np.uint8))
    wall = 90 + 40 * np.linspace(0, 1, LENS.width) * np.linspace(1, 0.5, LENS.height)[:, None]
    cv2.imwrite(str(path / "wall.png"), wall.astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def session(folder):
    """Session of the pictures."""
    return import_folder(folder, folder.parent / "session", kind="board")


@pytest.fixture(scope="module")
def lens_file(folder, session):
    """The lens, calibrated and saved."""
    path = folder.parent / "models" / "lens.json"
    path.parent.mkdir()
    files.save_model(path, calibrate_lens(session, BOARD, model="brown-4"))
    return path


def test_a_folder_of_pictures_gives_a_lens_and_what_to_think_of_it(gnomon, session, tmp_path):
    out = tmp_path / "lens.json"
    answer = gnomon("calibrate", "lens", session.path, "--board", TEXT, "--out", out)
    assert answer.code == 0, answer.err
    lens = files.load_model(out, LensModel)
    assert lens.fx == pytest.approx(LENS.fx, rel=3e-3)
    assert lens.scores.chosen in answer.out
    assert f"board not found in 1 of {VIEWS + 1} views: wall" in answer.out
    for part in ("focal lengths", "principal point", "distortion", "is imaged to", "views left out in turn"):
        assert part in answer.out, part
    assert sorted(lens.view_names) == [f"board{number}" for number in range(VIEWS)]


def test_a_frame_without_a_valid_pixel_is_a_view_without_a_board(gnomon, folder, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    for path in pictures.glob("board*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.minimum(image, 250))
    cv2.imwrite(str(pictures / "white.png"), np.full((LENS.height, LENS.width), 255, np.uint8))
    import_folder(pictures, tmp_path / "session", kind="board")
    lens = calibrate_lens(Session.open(tmp_path / "session"), BOARD, model="brown-4")
    (told,) = [text for text in lens.quality.warnings if "board not found" in text]
    assert "white (" in told
    assert "wall (" in told


def test_a_picture_that_differs_is_named_with_its_folder(gnomon, folder, tmp_path):
    for camera in ("left", "right"):
        (tmp_path / "in" / camera).mkdir(parents=True)
        shutil.copy(folder / "board0.png", tmp_path / "in" / camera / "a.png")
    answer = gnomon("import", "folder", tmp_path / "in" / "left", tmp_path / "one", "--kind", "board")
    assert "one: 1 frame, digest" in answer.out
    cv2.imwrite(str(tmp_path / "in" / "right" / "b.png"), np.zeros((9, 9), np.uint8))
    answer = gnomon("import", "folder", tmp_path / "in", tmp_path / "two", "--kind", "board")
    assert "right/b.png: 9 x 9 Mono8, but camera 'right' gave 480 x 360 Mono8 in right/a.png" in answer.err


def test_names_of_models_and_the_shape_of_the_board(gnomon, session, tmp_path):
    out = tmp_path / "lens.json"
    words = ("calibrate", "lens", session.path, "--board", TEXT, "--out", out)
    answer = gnomon(*words, "--model", "fisheye", "--warp")
    assert answer.code == 0, answer.err
    lens = files.load_model(out, LensModel)
    assert lens.MODEL == "kannala-brandt"
    assert abs(lens.board.warp_mm[0]) < 5 * lens.board.warp_sigma_mm[0]
    assert "board: bulge" in answer.out
    answer = gnomon(*words, "--model", "pinhole")
    assert answer.code == 2
    assert "brown-5" in answer.err


def test_another_board_is_told_after_a_few_views(tmp_path):
    """The search is slow where nothing is found: the pictures that follow would say the same."""
    shown = Charuco(columns=7, rows=5, square_mm=22, marker_mm=16, dictionary="DICT_4X4_50")
    image = cv2.GaussianBlur(np.pad(board_image(shown, 2.0), 30, constant_values=255), (0, 0), 0.8)
    (tmp_path / "in").mkdir()
    for number in range(6):
        cv2.imwrite(str(tmp_path / "in" / f"v{number}.png"), np.roll(image, number, axis=1))
    session = import_folder(tmp_path / "in", tmp_path / "session", kind="board")
    asked = []

    def track(items, what):
        for item in items:
            asked.append(item)
            yield item

    with pytest.raises(FitError, match=r"first 4 views.* another than described: v0 \(.*DICT_4X4 seen"):
        calibrate_lens(session, shown.replace(dictionary="DICT_6X6_250"), track=track)
    assert len(asked) == 4


def test_copies_of_a_picture_count_once(folder, session, tmp_path):
    """Counted again they would shrink every sigma, by the root of two were all of them there twice."""
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    for number in (1, 2, 5):
        shutil.copy(folder / f"board{number}.png", pictures / f"board{number}-copy.png")
    once = calibrate_lens(session, BOARD, model="brown-4")
    lens = calibrate_lens(import_folder(pictures, tmp_path / "more", kind="board"), BOARD, model="brown-4")
    assert len(lens.view_names) == VIEWS
    np.testing.assert_allclose(lens.covariance, once.covariance, rtol=1e-6)
    (told,) = [text for text in lens.quality.warnings if "same picture" in text]
    for number in (1, 2, 5):
        assert re.search(rf"board{number}(-copy)? and board{number}(-copy)?\b", told), told
    assert told.endswith("counted once")
    one = tmp_path / "one"
    one.mkdir()
    for number in range(4):
        shutil.copy(folder / "board0.png", one / f"again{number}.png")
    with pytest.raises(FitError, match=r"at least 3.*: the same picture, counted once"):
        calibrate_lens(import_folder(one, tmp_path / "same", kind="board"), BOARD, model="brown-4")


def test_a_camera_of_several_that_gave_a_picture_again(folder, tmp_path):
    """The copy is left out of the frame it does not belong to; the other camera's picture stays there."""
    for camera, numbers in (("left", (3, 1, 1)), ("right", (3, 4, 5))):
        (tmp_path / "rig" / camera).mkdir(parents=True)
        for place, number in enumerate(numbers):
            shutil.copy(folder / f"board{number}.png", tmp_path / "rig" / camera / f"shot{place}.png")
    found = board_frames(import_folder(tmp_path / "rig", tmp_path / "session", kind="board"), BOARD)
    assert set(found.views) == {
        *((f"shot{place}", "left") for place in (0, 1)),
        *((f"shot{place}", "right") for place in (0, 1, 2)),
    }
    assert "camera left: shot1 and shot2: the same picture, counted once" in found.warnings


def test_no_board_and_one_view_are_refused(gnomon, folder, tmp_path):
    for names, want in (
        (["wall"], "the board was found in none of 1 views: wall"),
        (["board1"], "at least 3"),
        (["board2", "wall"], "in different tilts; board not found in 1 of 2 views: wall ("),
    ):
        pictures = tmp_path / names[0]
        pictures.mkdir()
        for name in names:
            shutil.copy(folder / f"{name}.png", pictures)
        import_folder(pictures, tmp_path / f"{names[0]}-session", kind="board")
        answer = gnomon(
            "calibrate", "lens", tmp_path / f"{names[0]}-session", "--board", TEXT,
            "--out", tmp_path / "lens.json",
        )  # fmt: skip
        assert answer.code == 4
        assert want in answer.err
        assert len(answer.err.splitlines()) == 1
        assert not (tmp_path / "lens.json").exists()


def test_another_size_is_refused_by_the_name_of_the_picture(gnomon, folder, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    cv2.imwrite(str(pictures / "small.png"), np.full((240, 320), 90, np.uint8))
    answer = gnomon("import", "folder", pictures, tmp_path / "session", "--kind", "board")
    assert answer.code == 2
    assert "small.png" in answer.err
    assert "320" in answer.err


def test_same_lens_from_frames_in_any_order(folder, session, lens_file, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    order = np.random.default_rng(0).permutation(VIEWS)
    for place, number in enumerate(order):
        shutil.copy(folder / f"board{number}.png", pictures / f"p{place}.png")
    import_folder(pictures, tmp_path / "session", kind="board")
    other = calibrate_lens(Session.open(tmp_path / "session"), BOARD, model="brown-4")
    lens = files.load_model(lens_file, LensModel)
    assert np.array_equal(lens.parameters, other.parameters)
    assert np.array_equal(lens.covariance, other.covariance)
    assert list(describe_lens(lens))[:2] == list(describe_lens(other))[:2]


def test_the_guide_names_and_draws_the_next_views(gnomon, folder, lens_file, tmp_path):
    out = tmp_path / "guide.png"
    answer = gnomon(
        "guide", lens_file, "--board", TEXT, "--picture", folder / "board0.png", "--count", 2, "--out", out
    )
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert re.fullmatch(r"1\. .* of the image, \d+ mm away, .* \(\d+ % of the mean variance\)", lines[0])
    assert len(lines) == 3
    drawn = cv2.imread(str(out))
    # Orange lines over the grey picture.
    assert np.sum((drawn[..., 2].astype(int) - drawn[..., 0]) > 80) > 500


def test_guide_and_report_give_one_advice(gnomon, lens_file, tmp_path):
    shutil.copytree(lens_file.parent, tmp_path / "models")
    told = gnomon("guide", lens_file, "--board", TEXT)
    assert told.code == 0, told.err
    assert told.err == ""
    words = [re.sub(r" \(\d+ % of the mean variance\)", "", line) for line in told.out.splitlines()]
    assert len(words) == 3
    assert gnomon("report", tmp_path / "models", "--out", tmp_path / "report.html").code == 0
    assert "; ".join(words) in (tmp_path / "report.html").read_text("utf-8")


def test_a_board_in_metres_is_asked_for(gnomon, lens_file, tmp_path):
    """A slide of a microscope is as small, rightly: the command goes on."""
    for words in (
        ("guide", lens_file, "--board", "checkerboard 7x5 0.1", "--count", 1),
        ("target", "checkerboard 7x5 0.1", "--out", tmp_path / "board.pdf"),
    ):
        told = gnomon(*words)
        assert told.code == 0, told.err
        assert "is square_mm 0.1 in millimetres?" in told.err
        assert not gnomon(*(word if "checker" not in str(word) else TEXT for word in words)).err


def test_the_guide_without_a_lens(gnomon, tmp_path):
    answer = gnomon("guide", "--board", TEXT, "--size", "640x480")
    assert answer.code == 0
    assert len(answer.out.splitlines()) == 3
    assert "spanning" in answer.out
    answer = gnomon("guide", "--board", TEXT)
    assert answer.code == 2
    assert "--size" in answer.err
    answer = gnomon("guide", "--board", TEXT, "--size", "640")
    assert answer.code == 2
    assert "WIDTHxHEIGHT" in answer.err


def test_the_guide_wants_a_lens_that_was_fitted_here_and_its_pictures(gnomon, lens_file, tmp_path):
    files.save_model(tmp_path / "bare.json", LENS)
    answer = gnomon("guide", tmp_path / "bare.json", "--board", TEXT)
    assert answer.code == 4
    assert "without covariance and views" in answer.err
    cv2.imwrite(str(tmp_path / "small.png"), np.full((240, 320), 90, np.uint8))
    answer = gnomon("guide", lens_file, "--board", TEXT, "--picture", tmp_path / "small.png")
    assert answer.code == 4
    assert "320 x 240" in answer.err


def test_the_report_of_a_lens_alone(gnomon, lens_file, tmp_path):
    answer = gnomon("report", lens_file.parent, "--out", tmp_path / "report.html")
    assert answer.code == 0, answer.err
    page = (tmp_path / "report.html").read_text("utf-8")
    for word in (
        "Uncertainty of the projection", "Coverage and next views", "Halves of the views", "Distortion",
        "Views left out in turn", "Residuals", f"Residual rms of {VIEWS} views",
    ):  # fmt: skip
        assert word in page, word
    assert "Surface" not in page
    assert page.count("data:image/png") >= 6
