"""Boards that are not as described: what the picture shows instead is said, through exact distortion."""

import cv2
import numpy as np
import pytest
from board_scene import Eye, pose, sight

from calibration.targets.boards import AprilGrid, Charuco, Checkerboard, NoBoard, corners_mm, detect_board
from calibration.targets.boards.layout import Markers, _Rows, _squares, misdescribed

BARREL = Eye(480, 360, 330.0, (-0.28, 0.08, 0.001, -0.001, 0.0))
FISHEYE = Eye(480, 360, 210.0, (-0.02, 0.003, 0.0, 0.0), True)
CHARUCO = Charuco(columns=12, rows=9, square_mm=15, marker_mm=11, dictionary="DICT_5X5_100")
APRIL = AprilGrid(columns=5, rows=4, tag_mm=30, gap_mm=9)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    out = {}
    for board in (CHARUCO, APRIL):
        image = sight(board, BARREL, pose(board, 165, (14, -12), 8.0), samples=3).image
        out[board.kind] = image + rng.normal(0, 0.01, image.shape)
    return out


def said(picture, board):
    found = detect_board(picture, board)
    assert isinstance(found, NoBoard)
    return found.reason


@pytest.mark.parametrize(
    ("board", "changes", "told"),
    [
        (
            CHARUCO,
            {"columns": 11, "rows": 8},
            "markers up to number 53 seen, a board of 11x8 has none above 43; the markers lie as on a board "
            "of 12 columns and at least 9 rows, 11x8 is described: correct the description",
        ),
        (
            CHARUCO,
            {"columns": 13},
            "the markers lie as on a board of 12 columns and at least 9 rows, 13x9 is",
        ),
        (CHARUCO, {"columns": 9, "rows": 12}, "the markers lie as on the same board as 12x9: correct"),
        (
            APRIL,
            {"columns": 4},
            "tags up to number 19 seen, a board of 4x4 has none above 15; the tags lie as on a board of 5 "
            "columns and at least 4 rows, 4x4 is described",
        ),
        (
            APRIL,
            {"columns": 6},
            "the tags lie as on a board of 5 columns and at least 4 rows, 6x4 is described",
        ),
        (APRIL, {"columns": 4, "rows": 5}, "the tags lie as on the same board as 5x4: correct"),
        # Counted from the bottom: with a row less the origin would be that row's.
        (
            APRIL,
            {"rows": 3},
            "tags up to number 19 seen, a board of 5x3 has none above 14; the tags lie as on",
        ),
    ],
)
def test_columns_and_rows_are_counted_from_the_markers(pictures, board, changes, told):
    assert said(pictures[board.kind], board.replace(**changes)).startswith(told)


@pytest.mark.parametrize(
    ("board", "changes", "told", "true"),
    [
        (CHARUCO, {"marker_mm": 9.0}, "the description says 0.60: marker_mm should be", 11.0),
        (CHARUCO, {"square_mm": 20.0}, "the description says 0.55: marker_mm should be", 11 / 15 * 20),
        (CHARUCO, {"marker_mm": 13.5}, "the description says 0.90: marker_mm should be", 11.0),
        (APRIL, {"gap_mm": 6.0}, "the description says 0.20: gap_mm should be", 9.0),
        (APRIL, {"tag_mm": 36.0}, "the description says 0.25: gap_mm should be", 9 / 30 * 36),
        (APRIL, {"gap_mm": 13.5}, "the description says 0.45: gap_mm should be", 9.0),
    ],
)
def test_the_size_of_markers_is_measured_against_what_is_between(pictures, board, changes, told, true):
    text = said(pictures[board.kind], board.replace(**changes))
    assert told in text
    measured = float(text.partition("should be ")[2].split()[0])
    # Markers of 20 px, whose outline is that of a threshold; tags of 45 px by their saddle points.
    assert measured == pytest.approx(true, rel=0.05 if board is CHARUCO else 0.03)


@pytest.mark.parametrize(
    ("board", "eye"),
    [(CHARUCO, FISHEYE), (APRIL, BARREL), (CHARUCO.replace(columns=8, rows=6, legacy=True), BARREL)],
)
def test_what_is_described_well_is_not_doubted(board, eye):
    """Near and askew, dim and soft, overexposed: nothing of it looks like another board."""
    near = sight(board, eye, pose(board, 120, (28, 22), -20.0), samples=3)
    bleeding = np.clip(cv2.GaussianBlur(near.image, (0, 0), 0.8) * 1.5, 0, 1)
    soft = cv2.GaussianBlur(near.image, (0, 0), 1.2) * 0.1
    for image in (bleeding, soft):
        found = detect_board(image, board)
        assert not isinstance(found, NoBoard), found.reason
        assert np.median(np.linalg.norm(found.pixels - near.pixels[found.ids], axis=1)) < 0.3


def test_a_fisheye_close_to_a_board_does_not_contradict_it():
    board = AprilGrid(columns=6, rows=5, tag_mm=24, gap_mm=7.2)
    eye = Eye(640, 640, 212.0, (-0.02, 0.004, -0.003, 0.0005), True)
    picture = sight(board, eye, pose(board, 55, (12, -8), 15, (60, 30)), samples=2).image
    assert not isinstance(found := detect_board(picture, board), NoBoard), found.reason


def test_rows_that_the_description_lacks_change_no_corner_of_a_charuco_board(pictures):
    board = CHARUCO.replace(rows=7)
    view = detect_board(pictures["charuco"], board)
    assert not isinstance(view, NoBoard)
    assert len(view.ids) > 0.8 * len(corners_mm(board))


def test_a_checkerboard_where_markers_are_described_is_named():
    plain = Checkerboard(columns=7, rows=5, square_mm=22)
    picture = sight(plain, BARREL, pose(plain, 190, (10, 5), 4.0), samples=3).image
    told = said(picture, CHARUCO.replace(columns=8, rows=6))
    assert told.startswith(
        "none of its markers seen; a checkerboard of 7x5 inner corners is, without markers"
    )


@pytest.mark.parametrize(("columns", "rows"), [(7, 5), (6, 4), (5, 6)])
@pytest.mark.parametrize("legacy", [False, True])
def test_markers_stand_in_the_squares_of_opencvs_board(columns, rows, legacy):
    board = Charuco(columns=columns, rows=rows, square_mm=1, marker_mm=0.5, legacy=legacy)
    size, name = (columns, rows), cv2.aruco.DICT_5X5_1000
    theirs = cv2.aruco.CharucoBoard(size, 1.0, 0.5, cv2.aruco.getPredefinedDictionary(name))
    theirs.setLegacyPattern(legacy)
    middle = np.array(theirs.getObjPoints())[:, :, :2].mean(axis=1)
    column, row = _squares(board, np.ravel(theirs.getIds()), _Rows(columns, board.white_first))
    np.testing.assert_allclose(np.stack([column, row], axis=1) + 0.5, middle, atol=1e-6)


def test_markers_strewn_about_say_nothing():
    rng = np.random.default_rng(1)
    quads = rng.uniform(0, 400, (30, 1, 2)) + np.array([[0.0, 0], [9, 0], [9, 9], [0, 9]])
    markers = Markers(quads, rng.permutation(50)[:30], np.ones(30))
    assert misdescribed(markers, CHARUCO) is None
    assert misdescribed(markers, APRIL) is None
