"""Every kind of board through exact distortion: positions, honest sigmas, and refusals with their reason."""

import cv2
import numpy as np
import pytest
from board_scene import Eye, points_seen, pose, sight

from calibration.targets.boards import (
    AprilGrid,
    Charuco,
    Checkerboard,
    CircleGrid,
    Misdescribed,
    NoBoard,
    board_image,
    corners_mm,
    detect_board,
    is_placed,
    reflectance_at,
    symmetries,
)

PLAIN = Eye(360, 270, 420.0)
BARREL = Eye(360, 270, 230.0, (-0.28, 0.08, 0.001, -0.001, 0.0))
FISHEYE = Eye(360, 270, 150.0, (-0.02, 0.003, 0.0, 0.0), True)
CHECKER = Checkerboard(columns=7, rows=5, square_mm=20)
MARKED = Checkerboard(columns=8, rows=5, square_mm=20, marker=True)
APRIL = AprilGrid(columns=4, rows=3, tag_mm=36, gap_mm=10.8)
CIRCLES = CircleGrid(columns=7, rows=5, spacing_mm=20, diameter_mm=10)
ASYMMETRIC = CircleGrid(columns=4, rows=9, spacing_mm=14, diameter_mm=11, asymmetric=True)
CHARUCO = Charuco(columns=7, rows=5, square_mm=22, marker_mm=16, dictionary="DICT_4X4_50")


def noisy(image, seed=0, sigma=0.01):
    return image + np.random.default_rng(seed).normal(0, sigma, image.shape)


def flat(board, px_per_mm=3.0, border=30, blur=0.8):
    """Upright picture of the print, soft as a lens's."""
    picture = np.pad(board_image(board, px_per_mm), border, constant_values=255)
    return cv2.GaussianBlur(picture, (0, 0), blur)


def error_of(board, view, pixels):
    """Misses (n, 2) under the renumbering of the board that fits best."""
    turns = [view.pixels - pixels[p[view.ids]] for p in symmetries(board)]
    return min(turns, key=lambda e: float(np.abs(e).max()))


@pytest.mark.parametrize(("eye", "distance"), [(PLAIN, 260), (BARREL, 150), (FISHEYE, 120)])
@pytest.mark.parametrize("board", [MARKED, CHARUCO, APRIL, CIRCLES, ASYMMETRIC], ids=lambda b: b.kind)
def test_points_lie_where_they_are_and_their_sigmas_are_honest(board, eye, distance):
    placed = pose(board, distance, (18, -14), 8.0)
    seen = sight(board, eye, placed, psf=0.7, samples=4)
    view = detect_board(noisy(seen.image), board)
    assert not isinstance(view, NoBoard), view.reason
    assert len(view.ids) >= 0.75 * len(corners_mm(board))
    assert view.disc_mm == (board.disc_mm if isinstance(board, CircleGrid) else 0.0)
    error = error_of(board, view, seen.pixels)
    # 30 to 80 points: their own spread is known to about a tenth; edges of the picture bend the most.
    assert np.sqrt(np.mean(error**2)) < 0.04
    assert 0.65 < np.std(error / view.sigma_px[:, None]) < 1.5


def test_sigma_follows_noise_that_pixels_share():
    placed = pose(CHARUCO, 240, (10, 12), 5.0)
    seen = sight(CHARUCO, PLAIN, placed, samples=4)
    pulls = []
    for seed in range(6):
        grain = np.random.default_rng(seed).normal(0, 0.06, seen.image.shape)
        view = detect_board(seen.image + cv2.GaussianBlur(grain, (0, 0), 0.8), CHARUCO)
        pulls.append((view.pixels - seen.pixels[view.ids]) / view.sigma_px[:, None])
    # Taken as independent, the noise would make the pulls 1.7 wide.
    assert 0.8 < np.concatenate(pulls).std() < 1.25


def test_opencvs_own_detectors_read_the_marked_board_and_kalibrs_tags():
    flags = cv2.CALIB_CB_MARKER
    ok, _, meta = cv2.findChessboardCornersSBWithMeta(flat(MARKED), (8, 5), flags=flags)
    assert ok
    assert sorted(meta[meta >= 3].tolist()) == [3, 3, 4] or sorted(meta[meta >= 3].tolist()) == [3, 4, 4]
    parameters = cv2.aruco.DetectorParameters()
    parameters.markerBorderBits = 2
    family = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
    quads, ids, _ = cv2.aruco.ArucoDetector(family, parameters).detectMarkers(flat(APRIL))
    # From the bottom left, row by row.
    middle = {int(i): q.reshape(4, 2).mean(axis=0) for i, q in zip(ids.ravel(), quads, strict=True)}
    assert sorted(middle) == list(range(12))
    assert middle[0][1] > middle[8][1] + 100
    assert middle[3][0] > middle[0][0] + 100


def test_the_code_of_tag_0_is_that_of_its_family_upside_down():
    # 36h11, tag 0: 0xd5d628584, most significant bit first from the top left as Kalibr prints it.
    bits = np.array([int(c) for c in f"{0xD5D628584:036b}"]).reshape(6, 6)
    board = AprilGrid(columns=1, rows=1, tag_mm=10, gap_mm=3)
    x, y = np.meshgrid(np.arange(6) + 0.5, np.arange(6) + 0.5)
    np.testing.assert_array_equal(reflectance_at(board, x + 5, y + 5), bits)
    assert reflectance_at(board, 1.5, 1.5) == reflectance_at(board, 14.5, 14.5) == 0
    assert reflectance_at(board, 8.0, 1.5) == 1


@pytest.mark.parametrize("board", [CIRCLES, MARKED, APRIL, CHARUCO])
def test_the_picture_is_the_mean_of_the_colour_at_points(board):
    scale, fine = 1.7, 24
    picture = board_image(board, scale)
    at = (np.arange(40 * fine) + 0.5) / (fine * scale) + 20 / scale
    mean = reflectance_at(board, *np.meshgrid(at, at)).reshape(40, fine, 40, fine).mean(axis=(1, 3))
    # A straight edge is off by 1 / fine of a pixel at the most, a crossing by twice that.
    assert np.abs(255 * mean - picture[20:60, 20:60]).max() < 255 * 2 / fine + 1


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_part_of_a_marked_board_keeps_its_ids_however_it_is_turned(quarters):
    board = Checkerboard(columns=10, rows=7, square_mm=20, marker=True)
    picture = flat(board, 2.0)[:, 40:380]
    true = corners_mm(board)[:, :2] * 2.0 - 0.5 + (30 - 40, 30)
    for _ in range(quarters):
        true = np.stack([true[:, 1], picture.shape[1] - 1 - true[:, 0]], axis=1)
        picture = np.ascontiguousarray(np.rot90(picture))
    view = detect_board(picture, board)
    assert not isinstance(view, NoBoard), view.reason
    assert 30 <= len(view.ids) < 70
    assert is_placed(board, view)
    np.testing.assert_allclose(view.pixels, true[view.ids], atol=0.02)


def test_symmetries_are_those_of_the_print():
    for board in (
        CHECKER,
        MARKED,
        CHARUCO,
        APRIL,
        CIRCLES,
        ASYMMETRIC,
        Checkerboard(columns=6, rows=5, square_mm=10),
        Checkerboard(columns=6, rows=6, square_mm=10),
        Checkerboard(columns=5, rows=5, square_mm=10),
        CircleGrid(columns=4, rows=4, spacing_mm=10),
        CircleGrid(columns=4, rows=6, spacing_mm=10, asymmetric=True),
    ):
        picture = board_image(board, 2.0).astype(int)
        turns = [k for k in range(4) if np.rot90(picture, k).shape == picture.shape]
        same = [k for k in turns if np.abs(np.rot90(picture, k) - picture).max() <= 2]
        assert len(symmetries(board)) == len(same), board
        points = corners_mm(board)
        for p in symmetries(board):
            # A turn moves no point nearer to another.
            d, e = points - points[0], points[p] - points[p[0]]
            np.testing.assert_allclose(np.linalg.norm(d, axis=1), np.linalg.norm(e, axis=1))


def test_views_of_one_board_agree_up_to_its_symmetries():
    for board in (CIRCLES, ASYMMETRIC, CHECKER):
        true = points_seen(board, PLAIN, pose(board, 300, (10, 5), 0.0))
        for turn in (100.0, 190.0):
            placed = pose(board, 300, (10, 5), turn)
            seen = sight(board, PLAIN, placed, samples=3)
            view = detect_board(noisy(seen.image), board)
            assert len(view.ids) == len(true), (board, turn)
            assert np.abs(error_of(board, view, seen.pixels)).max() < 0.2


def refused(image, board):
    found = detect_board(image, board)
    assert isinstance(found, NoBoard)
    return found.reason


def test_a_mirrored_board_is_refused_where_it_can_be_told():
    for board in (CHARUCO, APRIL):
        assert "mirrored" in refused(flat(board, 2.0)[:, ::-1], board)
    assert "mirrored" in refused(flat(MARKED)[:, ::-1], MARKED)


def test_another_board_is_refused_with_what_was_seen():
    assert "markers of DICT_4X4 seen" in refused(
        flat(CHARUCO, 2.0), CHARUCO.replace(dictionary="DICT_6X6_250")
    )
    assert "markers of DICT_4X4 seen" in refused(flat(CHARUCO, 2.0), APRIL)
    assert "with Kalibr's border seen" in refused(flat(APRIL, 2.0), CHARUCO)
    even = CHARUCO.replace(rows=6)
    assert "without legacy" in refused(flat(even, 2.0), even.replace(legacy=True))
    assert "tags up to number" in refused(flat(APRIL), APRIL.replace(columns=2, rows=2))
    assert "another board" in refused(flat(CIRCLES, 2.0), CIRCLES.replace(columns=8))
    assert "another board" in refused(flat(CIRCLES, 2.0), CIRCLES.replace(columns=5))
    assert "mm wide" in refused(flat(CIRCLES, 2.0), CIRCLES.replace(diameter_mm=16))


def test_a_checkerboard_described_too_small_or_too_large_is_refused():
    picture = flat(CHECKER, 2.0, border=80)
    assert "shows 7x5 inner corners" in refused(picture, CHECKER.replace(columns=9, rows=6))
    said = refused(picture, CHECKER.replace(columns=6))
    assert "shows 7x5 inner corners" in said


def test_the_border_of_the_print_is_not_taken_for_more_squares():
    for board in (CHECKER, Checkerboard(columns=13, rows=8, square_mm=20)):
        picture = np.pad(board_image(board, 2.0), 60, constant_values=120)
        view = detect_board(noisy(cv2.GaussianBlur(picture, (0, 0), 1.0), sigma=2.0), board)
        assert len(view.ids) == len(corners_mm(board))


@pytest.mark.parametrize("board", [CHARUCO, APRIL], ids=lambda b: b.kind)
def test_a_negative_is_named(board):
    """OpenCV reads no marker of a negative: it is looked for on purpose."""
    found = detect_board(255 - flat(board, 2.0), board)
    assert isinstance(found, Misdescribed)
    assert "black and white are swapped" in found.reason


@pytest.mark.parametrize("board", [CHECKER, CHARUCO])
def test_a_smeared_or_blurred_picture_is_refused_and_a_soft_one_is_not(board):
    placed = pose(board, 240, (15, -10), 12.0)
    smeared = sight(board, PLAIN, placed, samples=4, motion=(8.0, 30.0))
    said = refused(noisy(smeared.image), board)
    assert "smeared" in said or "blurred" in said or board is CHARUCO
    soft = sight(board, PLAIN, placed, samples=4, psf=1.6)
    view = detect_board(noisy(soft.image), board)
    assert len(view.ids) >= 15
    assert "blur" in refused(cv2.GaussianBlur(soft.image, (0, 0), 9.0), board)


def test_uneven_light_jpeg_and_bright_noise_are_survived():
    for board in (MARKED, CHARUCO, APRIL, CIRCLES):
        seen = sight(board, PLAIN, pose(board, 260, (20, 15), -10.0), samples=3)
        ramp = np.linspace(0.15, 1.0, seen.image.shape[1])
        code = cv2.imencode(
            ".jpg", (255 * seen.image * ramp).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80]
        )[1]
        view = detect_board(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), board)
        assert not isinstance(view, NoBoard), (board, view.reason)
        assert len(view.ids) >= 0.7 * len(corners_mm(board))
        assert np.sqrt(np.mean(error_of(board, view, seen.pixels) ** 2)) < 0.15


def test_a_large_picture_is_measured_at_its_full_resolution():
    board = Charuco(columns=9, rows=6, square_mm=20, marker_mm=15)
    scale = 17.3
    picture = flat(board, scale, border=200, blur=1.0)
    assert max(picture.shape) > 3000
    view = detect_board(picture, board)
    assert len(view.ids) == 40
    np.testing.assert_allclose(view.pixels, corners_mm(board)[view.ids][:, :2] * scale - 0.5 + 200, atol=0.01)
