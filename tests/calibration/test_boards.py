"""Boards: picture and corners against OpenCV's, detection against an independent rendering."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import erf

from calibration.targets.boards import (
    Charuco,
    Checkerboard,
    NoBoard,
    board_image,
    corners_mm,
    detect_board,
    size_mm,
)
from calibration.targets.boards.plausibility import neighbourhood, plausible
from calibration.targets.corners import refine_corners

CHARUCO = Charuco(columns=7, rows=5, square_mm=10, marker_mm=7)
CHECKER = Checkerboard(columns=7, rows=4, square_mm=10)
SUPERSAMPLING = 5


def seen(board, homography, shape=(260, 340), psf=0.7, texel=16.0):
    """Picture of a board under board mm -> px: blurred by the lens, then averaged over each pixel.

    Written apart from the twin: warps a fine texture by OpenCV into a supersampled image.
    """
    border = 40
    texture = np.pad(board_image(board, texel).astype(np.float32) / 255, border, constant_values=1)
    mm_from_texel = np.array([[1, 0, 0.5 - border], [0, 1, 0.5 - border], [0, 0, texel]]) / texel
    s = SUPERSAMPLING
    fine_from_px = np.array([[s, 0, (s - 1) / 2], [0, s, (s - 1) / 2], [0, 0, 1.0]])
    fine = cv2.warpPerspective(
        texture,
        fine_from_px @ homography @ mm_from_texel,
        (shape[1] * s, shape[0] * s),
        flags=cv2.INTER_LINEAR,
        borderValue=0.4,
    )
    fine = cv2.GaussianBlur(fine, (0, 0), psf * s)
    return fine.reshape(shape[0], s, shape[1], s).mean(axis=(1, 3)) * 0.9 + 0.05


def where(board, homography):
    p = np.column_stack([corners_mm(board)[:, :2], np.ones(len(corners_mm(board)))]) @ homography.T
    return p[:, :2] / p[:, 2:]


def tilted(turn=0.2, scale=3.6, origin=(65.3, 30.6), perspective=(0.0012, -0.0008)):
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[c, -s, origin[0]], [s, c, origin[1]], [*perspective, 1.0]])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("columns", "rows"), [(5, 4), (6, 5), (4, 6)])
def test_picture_and_corners_are_those_of_opencv(columns, rows, legacy):
    board = Charuco(columns=columns, rows=rows, square_mm=10, marker_mm=7, legacy=legacy)
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_1000)
    theirs = cv2.aruco.CharucoBoard((columns, rows), 10.0, 7.0, dictionary)
    theirs.setLegacyPattern(legacy)
    # At 8 px/mm all edges fall between pixels, so the pictures are the same or half a pixel is lost.
    assert np.array_equal(
        board_image(board, 8.0), theirs.generateImage((columns * 80, rows * 80), marginSize=0)
    )
    np.testing.assert_allclose(corners_mm(board), theirs.getChessboardCorners(), atol=1e-6)


@given(st.floats(0.7, 9.0))
@settings(max_examples=15, deadline=None)
def test_picture_keeps_the_amount_of_ink_at_any_scale(px_per_mm):
    picture = board_image(CHARUCO, px_per_mm)
    exact = board_image(CHARUCO, 8.0)
    ink = np.sum(255.0 - picture) / px_per_mm**2
    # Rounding to 8 bits, the same in every square at the worst: 0.5 grey values a pixel.
    assert abs(ink - np.sum(255.0 - exact) / 64) < 0.5 * picture.size / px_per_mm**2


def test_a_corner_of_the_picture_lies_half_a_pixel_inside_its_coordinate():
    board = Checkerboard(columns=3, rows=3, square_mm=10)
    assert size_mm(board) == (40, 40)
    picture = board_image(board, 2.0)
    # The first inner corner is at 10 mm = the border between pixels 19 and 20.
    assert picture[18, 18] == picture[19, 19] == 0
    assert picture[19, 20] == picture[20, 19] == 255
    view = detect_board(np.pad(board_image(CHARUCO, 5.0), 20, constant_values=255), CHARUCO)
    np.testing.assert_allclose(view.pixels, corners_mm(CHARUCO)[view.ids][:, :2] * 5.0 - 0.5 + 20, atol=2e-3)


@pytest.mark.parametrize(
    "board", [CHARUCO, CHECKER, CHARUCO.replace(rows=6, legacy=True, square_mm=9, marker_mm=6)]
)
def test_corners_within_a_twentieth_of_a_pixel_and_unbiased(board):
    rng = np.random.default_rng(3)
    errors, sigmas = [], []
    for k in range(6):
        homography = tilted(rng.uniform(-0.3, 0.25), scale=3.2, origin=rng.uniform(55, 75, 2))
        picture = seen(board, homography) + rng.normal(0, 1 / 50, (260, 340))
        view = detect_board(picture, board)
        assert len(view.ids) >= 0.9 * len(corners_mm(board)), k
        errors.append(view.pixels - where(board, homography)[view.ids])
        sigmas.append(view.sigma_px)
    error = np.concatenate(errors)
    rms = float(np.sqrt(np.mean(error**2)))
    assert rms <= 0.05
    assert np.all(np.abs(error.mean(axis=0)) < 0.02)
    # What the view says of itself: n numbers know their spread to 1 / sqrt(2 n).
    expected = float(np.sqrt(np.mean(np.concatenate(sigmas) ** 2)))
    assert abs(rms / expected - 1) < 4 / np.sqrt(2 * error.size)


def test_refinement_beats_opencv_corner_sub_pix():
    rng = np.random.default_rng(1)
    homography = tilted()
    picture = (seen(CHARUCO, homography) + rng.normal(0, 0.02, (260, 340))).astype(np.float32)
    truth = where(CHARUCO, homography)
    ours = detect_board(picture, CHARUCO)
    theirs = np.ascontiguousarray((truth + 0.3)[:, None], np.float32)
    cv2.cornerSubPix(picture, theirs, (4, 4), (-1, -1), (3, 50, 1e-4))
    rms_ours = np.sqrt(np.mean((ours.pixels - truth[ours.ids]) ** 2))
    assert rms_ours < 0.6 * np.sqrt(np.mean((theirs.reshape(-1, 2) - truth) ** 2))


@given(st.floats(1e-3, 1e6), st.floats(-2.0, 2.0))
@settings(max_examples=8, deadline=None)
def test_scale_and_offset_of_the_grey_values_do_not_matter(gain, offset):
    picture = seen(CHARUCO, tilted()).astype(np.float32)
    plain = detect_board(picture, CHARUCO)
    view = detect_board((picture + np.float32(offset)) * np.float32(gain), CHARUCO)
    assert np.array_equal(view.ids, plain.ids)
    # The 8-bit search may round elsewhere and so move a window's edge by a pixel; the noiseless fit shifts by
    # what its model leaves out.
    np.testing.assert_allclose(view.pixels, plain.pixels, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_any_real_type_is_read_and_left_alone(dtype):
    picture = (seen(CHARUCO, tilted()) * 200).astype(dtype)
    before = picture.copy()
    view = detect_board(picture, CHARUCO)
    assert np.array_equal(picture, before)
    assert len(view.ids) == 24
    assert view.pixels.dtype == np.float64


def test_saturated_dead_and_dim_pixels_are_survived():
    rng = np.random.default_rng(5)
    homography = tilted()
    truth = where(CHARUCO, homography)
    picture = seen(CHARUCO, homography) + rng.normal(0, 0.01, (260, 340))
    holes = picture.copy()
    holes[rng.random(picture.shape) < 0.01] = np.nan
    holes[picture > 0.93] = np.nan
    highlight = 0.05 * picture
    highlight[:40, 280:] = 40.0
    for image in (holes, highlight, 0.004 * picture):
        view = detect_board(image, CHARUCO)
        assert len(view.ids) >= 20
        assert np.sqrt(np.mean((view.pixels - truth[view.ids]) ** 2)) < 0.05


def test_part_of_a_charuco_board_keeps_its_ids():
    homography = tilted()
    view = detect_board(seen(CHARUCO, homography)[:, :190], CHARUCO)
    assert 6 <= len(view.ids) < 24
    np.testing.assert_allclose(view.pixels, where(CHARUCO, homography)[view.ids], atol=0.03)
    np.testing.assert_array_equal(view.points_mm, corners_mm(CHARUCO)[view.ids])


def test_part_of_a_checkerboard_is_a_board_of_its_own():
    homography = tilted()
    view = detect_board(seen(CHECKER, homography)[:, :200], CHECKER)
    assert len(view.ids) >= 12
    # Its points differ from the true ones by whole squares, and black stays black.
    seen_mm = cv2.perspectiveTransform(view.pixels[None], np.linalg.inv(homography))[0]
    shift = (view.points_mm[:, :2] - seen_mm) / 10
    np.testing.assert_allclose(shift, np.rint(shift[0])[None].repeat(len(shift), 0), atol=0.01)
    assert np.rint(shift[0]).sum() % 2 == 0


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_checkerboard_is_numbered_from_its_black_corner(quarters):
    homography = tilted(turn=0.0)
    picture = np.rot90(seen(CHECKER, homography), quarters).copy()
    truth = where(CHECKER, homography)
    for turn in range(quarters):
        width = 340 if turn % 2 == 0 else 260
        truth = np.stack([truth[:, 1], width - 1 - truth[:, 0]], axis=1)
    view = detect_board(picture, CHECKER)
    np.testing.assert_allclose(view.pixels, truth[view.ids], atol=0.03)


def test_symmetric_checkerboard_has_its_x_axis_to_the_right():
    board = Checkerboard(columns=6, rows=4, square_mm=10)
    for turn, origin in ((0.2, (45, 20)), (0.2 + np.pi, (290, 230))):
        view = detect_board(seen(board, tilted(turn, 3.6, origin, (0, 0))), board)
        assert view.pixels[5, 0] > view.pixels[0, 0] + 100


def test_no_board_is_none():
    rng = np.random.default_rng(2)
    picture = seen(CHARUCO, tilted())
    assert isinstance(detect_board(rng.normal(size=(240, 320)), CHARUCO), NoBoard)
    assert isinstance(detect_board(np.zeros((240, 320)), CHARUCO), NoBoard)
    assert isinstance(detect_board(np.full((240, 320), np.nan), CHECKER), NoBoard)
    assert isinstance(detect_board(picture[:, ::-1], CHARUCO), NoBoard)  # mirrored
    assert isinstance(detect_board(picture, CHARUCO.replace(dictionary="DICT_4X4_50")), NoBoard)
    # Two rows of squares have one row of corners: all on a line.
    strip = Charuco(columns=9, rows=2, square_mm=10, marker_mm=7)
    assert isinstance(detect_board(seen(strip, tilted(scale=2.6, perspective=(0, 0))), strip), NoBoard)


def test_a_moved_corner_is_dropped_and_a_shuffled_board_refused():
    points, pixels = corners_mm(CHARUCO), where(CHARUCO, tilted())
    assert plausible(points, pixels, 10.0).all()
    pixels[7] += (12, 5)
    assert np.flatnonzero(~plausible(points, pixels, 10.0)).tolist() == [7]
    shuffled = plausible(points, np.random.default_rng(0).permutation(pixels), 10.0)
    assert "do not lie as on the board described" in shuffled.reason
    assert "only 5 of its points" in plausible(points[:5], pixels[:5], 10.0).reason
    # All but one on a line: to that one the others tell nothing across it.
    bent = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0], [5, 0, 0], [2, 1, 0]]) * 10.0
    assert isinstance(plausible(bent, np.random.default_rng(1).uniform(0, 300, (7, 2)), 10.0), NoBoard)
    mirrored = plausible(points, where(CHARUCO, tilted()) * (-1, 1), 10.0)
    assert "mirrored" in mirrored.reason


def test_a_board_close_to_a_fisheye_is_plausible_and_a_wrong_one_is_not():
    board = CHARUCO.replace(columns=12, rows=9)
    points = corners_mm(board)
    # Equidistant, 300 px per radian, the board reaching beyond 70 degrees from the axis and tilted.
    turn, _ = cv2.Rodrigues(np.radians([25.0, -20.0, 15.0]))
    ray = (points - (75, 25, 0)) @ turn.T + (0, 0, 38)
    across = np.hypot(ray[:, 0], ray[:, 1])
    angle = np.arctan2(across, ray[:, 2])
    assert np.degrees(angle.max()) > 70
    pixels = 300 * ray[:, :2] * (angle / across)[:, None]
    assert plausible(points, pixels, 10.0).all()
    off = pixels.copy()
    axes, _ = neighbourhood(points, pixels, 10.0)
    off[40] += 0.35 * axes[40].sum(axis=1)
    assert np.flatnonzero(~plausible(points, off, 10.0)).tolist() == [40]
    # Counted in rows of ten where the board has eleven.
    rows = np.arange(80)
    wider = np.stack([rows % 10, rows // 10, 0 * rows], axis=1) * 10.0
    assert "do not lie as on the board described" in plausible(wider, pixels[:80], 10.0).reason


def test_a_corner_of_the_wrong_colours_is_dropped():
    picture = seen(CHARUCO, tilted())
    u, v = np.rint(where(CHARUCO, tilted())[9]).astype(int)
    window = np.s_[v - 13 : v + 14, u - 13 : u + 14]
    picture[window] = 1.0 - picture[window]
    view = detect_board(picture, CHARUCO)
    assert 9 not in view.ids
    assert len(view.ids) >= 20


def test_the_first_guess_does_not_matter():
    homography = tilted()
    picture = seen(CHARUCO, homography).astype(np.float32)
    truth = where(CHARUCO, homography)
    axes = np.broadcast_to(homography[:2, :2] * 9, (len(truth), 2, 2))
    rng = np.random.default_rng(4)
    refined = [
        refine_corners(picture, truth + rng.uniform(-1.5, 1.5, truth.shape), axes, 0.15) for _ in range(2)
    ]
    assert refined[0].good.all()
    assert refined[1].good.all()
    assert np.abs(refined[0].pixels - refined[1].pixels).max() < 1e-3


def test_a_blur_to_one_side_draws_corners_as_little_as_the_gradients_centre():
    across, along = np.array([0.978, 0.208]), np.array([-0.208, 0.978])
    v, u = np.mgrid[:61, :61]

    def crossing(at, blur):
        off = np.stack([u, v], axis=-1) - at
        return 0.5 + 0.4 * erf(off @ across / blur / np.sqrt(2)) * erf(off @ along / blur / np.sqrt(2))

    place, drawn, apart = np.array([30.2, 29.7]), [], []
    axes = np.stack([across, along], axis=1)[None] * 25
    for blur in (0.7, 1.0, 1.5):
        for share, tail in ((0.1, (2, 1)), (0.15, (2, 1)), (0.15, (3, 1.5)), (0.1, (5, 0))):
            picture = (1 - share) * crossing(place, blur) + share * crossing(place + tail, 1.5 * blur)
            found = refine_corners(picture.astype(np.float32), place[None] + 0.3, axes, 1.0)
            assert found.good.all()
            outside = cv2.cornerSubPix(
                np.rint(picture * 255).astype(np.uint8),
                np.float32(place[None, None] + 0.3),
                (5, 5),
                (-1, -1),
                (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-4),
            ).ravel()
            drawn.append(np.linalg.norm(found.pixels[0] - place) / np.linalg.norm(share * np.array(tail)))
            apart.append(np.linalg.norm(found.pixels[0] - outside))
    # The centroid of the blur is 1; least squares are drawn by 0.49 and lie 0.15 px from the other finder.
    assert np.mean(drawn) < 0.3
    assert np.mean(apart) < 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"marker_mm": 10.0}, "below square_mm"),
        ({"dictionary": "DICT_9X9"}, "no such OpenCV dictionary"),
        ({"dictionary": "DICT_4X4_50", "columns": 20, "rows": 20}, "200 markers needed"),
        ({"squares": 4}, "Extra inputs"),
    ],
)
def test_impossible_boards_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Charuco.model_validate({**dict(CHARUCO), **change})


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4), complex), np.zeros(5)])
def test_what_is_no_grey_image_is_refused(image):
    with pytest.raises(ValueError, match="want a grey image"):
        detect_board(image, CHARUCO)
