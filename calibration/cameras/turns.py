"""Ways up in which a board looks the same: a camera that sees it may have taken any of them for upright."""

import numpy as np

from calibration.cameras.linking import Motion
from calibration.geometry import Float
from calibration.targets.boards import Board, Checkerboard, CircleGrid, corners_mm


def turns_of(board: Board) -> tuple[Motion, ...]:
    """Turns of a board in its plane, besides none, after which its picture is the same.

    Found from the pattern itself: the turns by 90, 180 and 270 degrees about its middle that bring every
    corner (or disc) onto another, and of a checkerboard every square onto one of its colour. A board with
    markers that are all different has none.
    """
    if not isinstance(board, Checkerboard | CircleGrid) or getattr(board, "marker", False):
        return ()
    points = corners_mm(board)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    out = []
    for quarters in (1, 2, 3):
        c, s = np.round([np.cos(quarters * np.pi / 2), np.sin(quarters * np.pi / 2)])
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0, 0, 1]])
        motion = Motion(turn, middle - turn @ middle)
        if _same(points, motion.points(points)) and _same_colours(board, motion):
            out.append(motion)
    return tuple(out)


def _same(points: Float, moved: Float) -> bool:
    gap = np.linalg.norm(points[:, None] - moved, axis=2)
    nearest = np.sort(np.linalg.norm(points[0] - points, axis=1))[1]
    return bool(np.all(gap.min(axis=1) < 0.01 * nearest))


def _same_colours(board: Board, motion: Motion) -> bool:
    if not isinstance(board, Checkerboard):
        return True
    corner_square = np.array([[0.5, 0.5, 0.0]]) * board.square_mm
    column, row = np.floor(motion.points(corner_square)[0, :2] / board.square_mm).astype(int)
    return bool((column + row) % 2 == 0)
