"""AprilGrids close to a strong fisheye: the tags at its rim are read, and none as another."""

import numpy as np
from board_scene import Eye, pose, sight

from calibration.targets.boards import AprilGrid, NoBoard, corners_mm, detect_board
from calibration.targets.boards.straightened import read_bent

BOARD = AprilGrid(columns=6, rows=5, tag_mm=24, gap_mm=7.2)
FISHEYE = Eye(800, 800, 270.0, (-0.02, 0.004, -0.003, 0.0005), True)


def test_tags_at_the_rim_of_a_fisheye_are_read():
    rotation, shift = pose(BOARD, 70, (12, -8), 15, (70, -30))
    seen = sight(BOARD, FISHEYE, (rotation, shift), psf=0.6, samples=2)
    view = detect_board(seen.image + np.random.default_rng(5).normal(0, 0.004, seen.image.shape), BOARD)
    assert not isinstance(view, NoBoard), view
    error = np.linalg.norm(view.pixels - seen.pixels[view.ids], axis=1)
    assert error.max() < 0.5  # a corner taken for another is off by a gap, 5 px and more
    points = corners_mm(BOARD)[view.ids] @ rotation.T + shift
    angle = np.degrees(np.arctan2(np.hypot(points[:, 0], points[:, 1]), points[:, 2]))
    # Read in the picture as it is they end at 60 degrees.
    assert angle.max() > 62
    assert len(view.ids) >= 50


def test_another_number_in_a_tags_place_is_not_taken():
    layout = np.array(
        [[[x, y], [x + 8, y], [x + 8, y + 8], [x, y + 8]] for y in (0, 10) for x in (0, 10, 20)]
    )
    quads, numbers = 10.0 * layout[:4] + 50, np.arange(4)
    grey = np.zeros((400, 400), np.uint8)
    in_place = np.array([[[96, 96], [216, 96], [216, 216], [96, 216]]]) - 0.5
    more, names = read_bent(
        grey, layout.astype(float), 10.0, quads, numbers, lambda _: (in_place, np.array([5]))
    )
    assert names.tolist() == [0, 1, 2, 3, 5]
    assert np.allclose(more[-1], 10.0 * layout[5] + 50, atol=1e-6)
    aside = in_place + 80
    assert read_bent(grey, layout.astype(float), 10.0, quads, numbers, lambda _: (aside, np.array([5])))[
        1
    ].tolist() == [0, 1, 2, 3]
