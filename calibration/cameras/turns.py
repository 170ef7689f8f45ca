"""Ways up in which a board looks the same: a camera that sees it may have taken any of them for upright."""

import numpy as np

from calibration.cameras.linking import Motion
from calibration.targets.boards import Board, corners_mm, symmetries


def turns_of(board: Board) -> tuple[Motion, ...]:
    """Turns of a board in its plane, besides none, after which its picture is the same (``symmetries``)."""
    points = corners_mm(board)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    x, y, _ = (points - middle).T
    out = []
    for ids in symmetries(board)[1:]:
        u, v, _ = (points[ids] - middle).T
        angle = np.arctan2(x @ v - y @ u, x @ u + y @ v)
        c, s = np.round([np.cos(angle), np.sin(angle)])  # quarters of a turn
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        out.append(Motion(turn, middle - turn @ middle))
    return tuple(out)
