"""Plain checkerboards that leave the picture: no row skipped, numbered by their sides, miscounts named."""

import cv2
import numpy as np
import pytest
from board_scene import Eye, pose, sight

from calibration.targets.boards import Checkerboard, NoBoard, corners_mm, detect_board, is_placed, symmetries
from calibration.targets.boards.lattice import find_lattice
from calibration.targets.boards.plausibility import spaced_out

EYE = Eye(320, 240, 380.0)
BARREL = Eye(320, 240, 250.0, (-0.28, 0.08, 0.001, -0.001, 0.0))
BOARD = Checkerboard(columns=9, rows=6, square_mm=20)
SIDES = [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1)]


def defocused(image, diameter):
    r = np.arange(-6, 7)
    disc = np.clip(diameter / 2 + 0.5 - np.hypot(r[:, None], r), 0, 1)
    return cv2.filter2D(image, -1, (disc / disc.sum()).astype(np.float32))


def noisy(image, seed):
    return image + np.random.default_rng(seed).normal(0, 0.01, image.shape)


def shift_of(view, board, eye, placed):
    """The turn (2, 2) and shift (2,) from the view's numbering to the board's, in squares, or None."""
    rotation, at = placed
    truth = eye.project(corners_mm(board) @ rotation.T + at)
    nearest = np.linalg.norm(view.pixels[:, None] - truth, axis=2).argmin(axis=1)
    if np.linalg.norm(view.pixels - truth[nearest], axis=1).max() > 0.7:
        return None
    said, true = (np.stack([n % board.columns, n // board.columns], axis=1) for n in (view.ids, nearest))
    design = np.column_stack([said, np.ones(len(said))])
    affine = np.rint(np.linalg.lstsq(design, true, rcond=None)[0])
    exact = np.array_equal(design @ affine, true) and np.isclose(np.linalg.det(affine[:2]), 1)
    return (affine[:2], affine[2]) if exact else None


@pytest.mark.parametrize(
    ("eye", "distance", "tilt", "turn", "disc"),
    [
        (EYE, 260, (0, 0), 0.0, 1.0),
        (EYE, 220, (24, 10), -7.0, 4.0),
        (EYE, 180, (-23, -10), 14.0, 6.5),
        (BARREL, 160, (15, 25), 100.0, 2.0),
        (EYE, 330, (-13, 19), 217.0, 2.5),
    ],
)
def test_a_board_over_the_pictures_edge_has_no_row_skipped(eye, distance, tilt, turn, disc):
    half = distance / eye.focal * np.array([eye.width, eye.height]) / 2
    for k, side in enumerate(SIDES):
        placed = pose(BOARD, distance, tilt, turn, tuple(0.6 * half * side))
        seen = sight(BOARD, eye, placed, samples=2, margin_mm=8.0, ground=0.06)
        view = detect_board(noisy(defocused(seen.image, disc), k), BOARD)
        assert not isinstance(view, NoBoard), (side, view.reason)
        inside = np.all((seen.pixels > 8) & (seen.pixels < (eye.width - 9, eye.height - 9)), axis=1)
        assert len(view.ids) >= 0.75 * inside.sum(), side
        found = shift_of(view, BOARD, eye, placed)
        assert found is not None, side
        # Black stays black: about a corner a quarter turn swaps the colours, and so does one step.
        assert found[1].sum() % 2 == abs(found[0][0, 1]), side
        if is_placed(BOARD, view):
            assert np.array_equal(found[0], np.eye(2)), side
            assert not found[1].any(), side


def test_every_board_in_full_view_is_found_whole():
    rng = np.random.default_rng(5)
    for k in range(6):
        board = BOARD if k % 2 else Checkerboard(columns=7, rows=5, square_mm=20)
        distance = rng.uniform(300, 560)
        placed = pose(board, distance, tuple(rng.uniform(-30, 30, 2)), rng.uniform(-180, 180))
        seen = sight(board, EYE, placed, samples=2, margin_mm=8.0, ground=(0.05, 0.4, 0.85)[k % 3])
        view = detect_board(noisy(defocused(seen.image, 2.0), k), board)
        assert not isinstance(view, NoBoard), (k, view.reason)
        assert len(view.ids) == len(corners_mm(board))
        truths = [seen.pixels[p] for p in symmetries(board)]
        assert min(np.abs(view.pixels - t).max() for t in truths) < 0.5


def test_a_part_is_numbered_from_the_sides_in_view():
    # Three columns are out of view on the left; a count from the part would start at the second.
    placed = pose(BOARD, 300, (8, -6), 4.0, (-100.0, 0.0))
    seen = sight(BOARD, EYE, placed, samples=2, margin_mm=15.0)
    view = detect_board(noisy(seen.image, 1), BOARD)
    assert len(view.ids) >= 30
    assert not is_placed(BOARD, view)
    assert np.abs(view.pixels - seen.pixels[view.ids]).max() < 0.3


def test_squares_counted_instead_of_inner_corners_are_named():
    seen = sight(BOARD, EYE, pose(BOARD, 330, (10, 15), 12.0), samples=2)
    image = noisy(seen.image, 2)
    said = detect_board(image, BOARD.replace(columns=10, rows=7))
    assert isinstance(said, NoBoard)
    assert "shows 9x6 inner corners" in said.reason
    assert "has 10x7: are these squares counted" in said.reason
    said = detect_board(image, BOARD.replace(columns=7, rows=10))
    assert "shows 6x9 inner corners" in said.reason
    assert "has 7x10: are these squares counted" in said.reason
    said = detect_board(image, BOARD.replace(columns=8, rows=5))
    assert "has 8x5: was one taken off" in said.reason
    said = detect_board(image, BOARD.replace(columns=12, rows=8))
    assert "has 12x8: another board" in said.reason
    # One way only is in view from border to border.
    seen = sight(BOARD, EYE, pose(BOARD, 300, (8, -6), 4.0, (-60.0, 0.0)), samples=2)
    said = detect_board(noisy(seen.image, 1), BOARD.replace(columns=10, rows=7))
    assert isinstance(said, NoBoard)
    assert "shows 6 inner corners from border to border, the board described has 10x7" in said.reason
    assert "squares counted" in said.reason


def test_a_skipped_row_and_scattered_corners_are_refused():
    seen = sight(BOARD, EYE, pose(BOARD, 330, (10, 15), 12.0), samples=2)
    grey = np.rint(255 * seen.image).astype(np.uint8)
    points, grid = corners_mm(BOARD), seen.pixels.reshape(6, 9, 2)
    assert spaced_out(grey, points, seen.pixels, 20.0) is None
    # Rows 0, 2, 4 counted as 0, 1, 2; then rows 0 and 3, with two changes between.
    for rows in ([0, 2, 4], [0, 3]):
        pixels = grid[rows].reshape(-1, 2)
        refused = spaced_out(grey, points[: len(pixels)], pixels, 20.0)
        assert "several squares apart" in refused.reason
    apart = np.flatnonzero((np.arange(54) // 9 % 2 == 0) & (np.arange(54) % 9 % 2 == 0))
    assert "scattered" in spaced_out(grey, points[apart], seen.pixels[apart], 20.0).reason


def test_a_lattice_is_right_handed_and_leaves_out_what_hides_it():
    seen = sight(BOARD, EYE, pose(BOARD, 300, (0, 0), 20.0), samples=2)
    grey = np.rint(255 * np.clip(noisy(seen.image, 3), 0, 1)).astype(np.uint8)
    hidden = seen.pixels[22]
    cv2.circle(grey, tuple(int(c) for c in np.rint(hidden)), 9, 255, -1)
    grid = find_lattice(grey, 54)
    assert sorted(grid.shape[:2]) == [6, 9]
    assert np.isnan(grid[..., 0]).sum() == 1
    along, down = (
        np.nanmean(np.diff(grid, axis=1), axis=(0, 1)),
        np.nanmean(np.diff(grid, axis=0), axis=(0, 1)),
    )
    assert np.linalg.det(np.stack([along, down])) > 0
    away = np.linalg.norm(grid.reshape(-1, 1, 2) - seen.pixels, axis=2)
    assert np.nanmax(away.min(axis=1)) < 0.5
    view = detect_board(grey, BOARD)
    assert 22 not in view.ids
    assert len(view.ids) == 53
    assert find_lattice(np.full((40, 50), 90, np.uint8), 54) is None
