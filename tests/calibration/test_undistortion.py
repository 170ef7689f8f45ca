"""Undistortion: pictures rendered through a lens against the scene rendered without one; OpenCV's maps."""

import cv2
import numpy as np
import pytest

from calibration.geometry import normalize, rotation
from calibration.lens import (
    BrownConrady,
    KannalaBrandt,
    SplinedLens,
    pinhole_view,
    undistort_image,
    undistorter,
)
from calibration.lens.model import ModelScores
from calibration.lens.undistortion.maps import make_maps

BROWN = BrownConrady(
    width=320, height=240, fx=250.0, fy=252.0, cx=155.3, cy=122.1, k1=-0.22, k2=0.08, p1=1e-3, p2=-6e-4
)
CUSHION = BROWN.replace(k1=0.15, k2=0.02, k3=0.01)
FISHEYE = KannalaBrandt(
    width=320, height=240, fx=110.0, fy=110.5, cx=161.0, cy=118.4, k1=0.02, k2=-0.01, k3=2e-3
)
SPLINED = SplinedLens(
    width=320, height=240, fx=200.0, fy=201.0, cx=158.0, cy=121.0, spacing=0.2, corner=(-1.4, -1.2),
    knots=np.random.default_rng(1).normal(size=(13, 15, 2)) * 3e-3,
)  # fmt: skip
LENSES = pytest.mark.parametrize(
    "lens", [BROWN, CUSHION, FISHEYE, SPLINED], ids=["barrel", "cushion", "fisheye", "splined"]
)
TURN = rotation([0.05, -0.12, 0.03])


def grid(lens):
    u, v = np.meshgrid(np.arange(float(lens.width)), np.arange(float(lens.height)))
    return np.stack([u, v], axis=-1)


def waves(directions):
    """A scene far away: sums of sinusoids of the direction, 1 at most in each derivative's scale."""
    x, y, z = np.moveaxis(normalize(directions), -1, 0)
    return np.sin(20 * x + 3 * z) + np.cos(17 * y - 5 * x)


def matrix(lens):
    return np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])


def theirs(lens, view, turn):
    """OpenCV's maps."""
    size = (view.width, view.height)
    if isinstance(lens, KannalaBrandt):
        maps = cv2.fisheye.initUndistortRectifyMap(
            matrix(lens), lens.parameters[4:], turn, matrix(view), size, cv2.CV_32FC1
        )
    else:
        order = lens.parameters[4:12]
        maps = cv2.initUndistortRectifyMap(matrix(lens), order, turn, matrix(view), size, cv2.CV_32FC1)
    return np.stack(maps, axis=-1)


# ---------------------------------------------------------------- views


@LENSES
def test_crop_sees_every_pixel_and_could_not_see_more(lens):
    view = pinhole_view(lens, "crop")
    assert undistorter(lens, view).valid.all()
    assert view.fx / view.fy == pytest.approx(lens.fx / lens.fy)
    for scale in (1.01, 1.1):
        wider = view.replace(
            fx=view.fx / scale, fy=view.fy / scale,
            cx=159.5 + (view.cx - 159.5) / scale, cy=119.5 + (view.cy - 119.5) / scale,
        )  # fmt: skip
        # A fisheye's view ends at 75 degrees, not with what it sees.
        corner = np.degrees(np.arccos(wider.unproject([[0, 0], [319, 239]])[:, 2])).max()
        assert not undistorter(lens, wider).valid.all() or corner > 75


@pytest.mark.parametrize("lens", [BROWN, CUSHION], ids=["barrel", "cushion"])
def test_keep_all_leaves_nothing_out_and_wastes_nothing(lens):
    view = pinhole_view(lens, "keep-all")
    places = view.project(lens.unproject(grid(lens)))
    low, high = places.min(axis=(0, 1)), places.max(axis=(0, 1))
    # The rim is followed to 1e-3 px or so.
    assert np.all(low > -0.01)
    assert np.all(high < (319.01, 239.01))
    assert np.min(low - high + np.array([319, 239])) == pytest.approx(0, abs=0.02)
    assert not undistorter(lens, view).valid.all()


def test_views_of_another_size_and_turned():
    view = pinhole_view(BROWN, "crop", size=(100, 300), rotation=TURN)
    assert (view.width, view.height) == (100, 300)
    assert undistorter(BROWN, view, rotation=TURN).valid.all()
    same = pinhole_view(BROWN, size=(300, 200))
    assert (same.fx, same.cx, same.cy) == (250.0, 155.3 - 10, 122.1 - 20)
    by = undistorter(BROWN, "keep-all", rotation=TURN)
    places = by.view.project(BROWN.unproject(grid(BROWN)) @ TURN.T)
    assert np.all((places > -0.01) & (places < (319.01, 239.01)))


def test_views_that_cannot_be():
    with pytest.raises(ValueError, match="more than the 150 degrees of a flat picture: choose crop"):
        pinhole_view(FISHEYE.replace(fx=80.0, fy=80.0), "keep-all")
    with pytest.raises(ValueError, match="does not look where"):
        pinhole_view(BROWN, "crop", rotation=rotation([0, 2.0, 0]))
    with pytest.raises(ValueError, match="want 2 x 2"):
        pinhole_view(BROWN, "crop", size=(1, 40))


# ---------------------------------------------------------------- maps


OPENCV = pytest.mark.parametrize("lens", [BROWN, CUSHION, FISHEYE], ids=["barrel", "cushion", "fisheye"])


@OPENCV
@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["straight", "turned"])
def test_maps_are_those_of_opencv(lens, turn):
    view = pinhole_view(lens, "crop", rotation=turn)
    maps = make_maps(lens, view, turn)
    expected = theirs(lens, view, turn)
    # float32 at 320 px, twice, and 1e-4 px of the polynomials
    assert np.abs(np.stack(maps[:2], axis=-1) - expected).max() < 1.7e-4


def test_maps_where_the_model_turns_back():
    # Its image turns back inside the view: nothing is seen beyond.
    lens = BROWN.replace(k1=-0.9, k2=0.0)
    maps = make_maps(lens, pinhole_view(lens), np.eye(3))
    exact = lens.project(
        np.concatenate([(grid(lens) - (lens.cx, lens.cy)) / (250, 252), np.ones((240, 320, 1))], -1)
    )
    valid = np.isfinite(exact).all(axis=-1)
    assert 0.3 < valid.mean() < 0.95
    np.testing.assert_array_equal(maps.valid, valid)
    assert np.abs(np.stack(maps[:2], axis=-1) - exact)[valid].max() < 1.7e-4
    assert (maps.x[~valid] < -1).all()


class Holed(BrownConrady):
    """A lens that images nothing around (69, 45): the hole reaches 2 px into the tile on its left."""

    def project(self, points):
        pixels = super().project(points)
        return np.where((np.hypot(*np.moveaxis(pixels - (69, 45), -1, 0)) < 8)[..., None], np.nan, pixels)


def test_a_hole_that_reaches_over_into_a_tile_is_found_there():
    lens = Holed(width=200, height=200, fx=150.0, fy=150.0, cx=100.0, cy=80.0)
    valid = make_maps(lens, pinhole_view(lens), np.eye(3)).valid
    np.testing.assert_array_equal(valid, np.hypot(*np.moveaxis(grid(lens) - (69, 45), -1, 0)) >= 8)


# ---------------------------------------------------------------- pictures


@LENSES
def test_undistorted_pixels_are_where_the_pinhole_sees_them(lens):
    # An image of its own coordinates comes out as the distorted place of each pixel.
    own = grid(lens)
    seen = undistort_image(lens, np.dstack([own, own.sum(axis=-1)]))
    assert seen.image.dtype == np.float32
    place = lens.project(seen.lens.unproject(own))
    inside = np.all((place >= -1e-3) & (place <= (319.001, 239.001)), axis=-1)
    assert 0.3 < inside.mean() <= 1
    np.testing.assert_allclose(seen.image[inside][:, :2], place[inside], atol=1.2e-3)
    assert np.isnan(seen.image[~seen.valid]).all()
    np.testing.assert_array_equal(seen.valid, inside)
    assert seen.lens.project([[0.3, 0.2, 1.0]])[0] == pytest.approx(
        [lens.fx * 0.3 + lens.cx, lens.fy * 0.2 + lens.cy]
    )


@LENSES
@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["straight", "turned"])
def test_a_rendered_scene_comes_out_as_a_pinhole_renders_it(lens, turn):
    taken = waves(lens.unproject(grid(lens)))
    by = undistorter(lens, "crop", rotation=turn)
    expected = waves(by.view.unproject(grid(by.view)) @ turn)
    # Bilinear: an eighth of the second derivatives, of 20 and 17 rad/unit, a pixel being 1 / f wide at most.
    bound = (20**2 + 20**2 + 17**2) / 8 * (1.2 / min(lens.fx, lens.fy)) ** 2
    assert np.abs(by.image(taken) - expected).max() < bound
    assert bound < 0.02


def test_straight_lines_are_straight():
    # The edge of a half plane through the scene, blurred over some pixels: its place is known row by row.
    rays = BROWN.unproject(grid(BROWN))
    off = (rays[..., 0] - 0.35 * rays[..., 1]) / rays[..., 2] + 0.33
    by = undistorter(BROWN, "crop")
    found = by.image(off)[:, :140]
    rows = np.arange(240)
    place = np.array([np.interp(0, row, np.arange(140)) for row in found])
    assert np.abs(place - np.polyval(np.polyfit(rows, place, 1), rows)).max() < 2e-3
    bent = np.array([np.interp(0, row, np.arange(140)) for row in off[:, :140].astype(np.float32)])
    assert np.abs(bent - np.polyval(np.polyfit(rows, bent, 1), rows)).max() > 1


def test_round_trip_of_points():
    by = undistorter(FISHEYE, "crop", rotation=TURN)
    pixels = grid(by.view)[::7, ::5]
    back = FISHEYE.project(by.view.unproject(pixels) @ TURN)
    x, y = by.maps.x[::7, ::5], by.maps.y[::7, ::5]
    assert np.abs(back - np.stack([x, y], axis=-1)).max() < 1.7e-4
    assert np.abs(by.view.project(FISHEYE.unproject(back) @ TURN.T) - pixels).max() < 1e-6


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (5,)])
def test_types_and_channels_stay(kind, channels):
    rng = np.random.default_rng(3)
    picture = (rng.random((240, 320, *channels)) * 255).astype(kind)
    before = picture.copy()
    by = undistorter(CUSHION, "keep-all")
    out = by.image(picture)
    assert out.dtype == kind
    assert out.shape == picture.shape
    np.testing.assert_array_equal(picture, before)
    exact = by.image(picture.astype(np.float64))
    # Rounding, and half a unit more where OpenCV's weights differ in their last digit.
    assert np.nanmax(np.abs(out - exact)) <= (0.51 if kind != np.float32 else 1e-4)
    hidden = out[~by.valid]
    assert np.isnan(hidden).all() if kind == np.float32 else not hidden.any()


def test_against_opencv_undistort():
    rng = np.random.default_rng(4)
    picture = cv2.GaussianBlur(rng.random((240, 320)).astype(np.float32), (0, 0), 2)
    seen = undistort_image(BROWN, picture)
    other = cv2.undistort(picture, matrix(BROWN), BROWN.parameters[4:9])
    steep = max(np.abs(np.diff(picture, axis=axis)).max() for axis in (0, 1))
    # Theirs is rounded to 1/32 px in each direction.
    assert np.abs(seen.image - other)[seen.valid].max() < 2 / 64 * steep + 1e-6


def test_holes_spread_to_what_rests_on_them():
    plain = BROWN.replace(k1=0.0, k2=0.0, p1=0.0, p2=0.0)
    holes = np.ones((240, 320))
    holes[100, 200] = np.nan
    assert 1 <= np.isnan(undistort_image(plain, holes).image).sum() <= 4
    seen = undistort_image(BROWN, holes)
    u, v = (round(x) for x in seen.lens.project(BROWN.unproject([200.0, 100.0])))
    near = np.isnan(seen.image) & seen.valid
    assert 1 <= near.sum() <= 9
    assert near[v - 2 : v + 3, u - 2 : u + 3].sum() == near.sum()


def test_masks_rest_on_nothing_that_is_masked():
    mask = np.random.default_rng(5).random((240, 320)) < 0.95
    by = undistorter(CUSHION, "keep-all")
    out = by.mask(mask)
    assert out.dtype == bool
    x, y = by.maps.x, by.maps.y
    left, top = np.clip(np.floor(x), 0, 318).astype(int), np.clip(np.floor(y), 0, 238).astype(int)
    a, b = x - left, y - top
    hole = sum(
        w * ~mask[top + j, left + i]
        for i, j, w in ((0, 0, (1 - a) * (1 - b)), (1, 0, a * (1 - b)), (0, 1, (1 - a) * b), (1, 1, a * b))
    )
    assert not out[~by.valid].any()
    assert not out[by.valid & (hole > 1 / 500)].any()
    assert out[by.valid & (hole == 0)].all()
    np.testing.assert_array_equal(by.mask((mask * 255).astype(np.uint8)), out)


def test_counts_are_not_mixed():
    counts = np.where(grid(BROWN)[..., 0] < 160, 3, 11).astype(np.float32)
    out = undistorter(BROWN, "keep-all").nearest(counts)
    assert set(np.unique(out[np.isfinite(out)])) == {3, 11}


def test_variance_is_the_scatter():
    rng = np.random.default_rng(6)
    variance = (0.5 + grid(BROWN).sum(axis=-1) / 300).astype(np.float32)
    by = undistorter(BROWN, "crop")
    told = by.variance(variance)
    repeats = 400
    total = np.zeros((240, 320))
    for _ in range(repeats):
        total += by.image(rng.standard_normal((240, 320), np.float32) * np.sqrt(variance)) ** 2.0
    ratio = total / repeats / told
    # Each is a mean of 400 squares of a normal number; noise of neighbours is common to at most 4 pixels.
    assert ratio.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / repeats / (320 * 240 / 4)))
    assert ratio.std() == pytest.approx(np.sqrt(2 / repeats), rel=0.03)
    plain = by.image(variance)
    assert np.all(told <= plain * (1 + 1e-5))
    assert told.min() < 0.26 * plain.min()
    three = by.variance(np.dstack([variance, 2 * variance, variance]))
    np.testing.assert_allclose(three[..., 1], 2 * told, rtol=1e-6)


# ---------------------------------------------------------------- surfaces


def ball(lens, turn):
    """Normals and depth of a ball as a lens sees it; rays turned into the camera's frame."""
    rays = normalize(lens.unproject(grid(lens))) @ turn
    centre, radius = np.array([10.0, -5.0, 500.0]), 160.0
    along = rays @ centre
    inner = along**2 - centre @ centre + radius**2
    with np.errstate(invalid="ignore"):
        distance = along - np.sqrt(inner)
    points = rays * distance[..., None]
    return (points - centre) / radius, points


@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["straight", "turned"])
def test_normals_of_a_ball_turn_with_the_view(turn):
    normals, _ = ball(BROWN, np.eye(3))
    by = undistorter(BROWN, "same", rotation=turn)
    out = by.normals(normals)
    expected = ball(by.view, turn)[0] @ turn.T
    both = np.isfinite(out).all(axis=-1)
    length = np.linalg.norm(out[both], axis=-1)
    assert np.abs(length - 1).max() < 1e-6
    # A pixel's normal rests on its neighbours, which are NaN off the ball.
    known = np.isfinite(expected).all(axis=-1)
    assert both.sum() > 0.9 * known.sum()
    facing = np.abs(np.einsum("...i,...i", normalize(by.view.unproject(grid(by.view))), expected)) > 0.3
    error = np.degrees(np.arccos(np.clip(np.einsum("...i,...i", out, expected), -1, 1)))[
        both & facing & known
    ]
    assert error.max() < 0.1
    assert not np.isfinite(out[cv2.erode((~known).astype(np.uint8), np.ones((5, 5))) > 0]).any()


def test_depth_of_a_plane_is_exact_in_a_turned_view():
    normal, offset = normalize(np.array([0.2, -0.1, -1.0])), -300.0

    def plane(lens, turn):
        rays = lens.unproject(grid(lens)) @ turn
        return rays * (offset / (rays @ normal))[..., None]

    by = undistorter(BROWN, "crop", rotation=TURN)
    out = by.depth(plane(BROWN, np.eye(3))[..., 2])
    expected = (plane(by.view, TURN) @ TURN.T)[..., 2]
    # 1 / z is bilinear in an undistorted picture; in a distorted one it bends by some 1e-5 over a pixel.
    assert np.abs(out / expected - 1).max() < 1e-5
    holes = np.full((240, 320), 5.0)
    holes[:, 100] = np.nan
    holes[:, 200] = 0
    assert np.isnan(by.depth(holes)).any(axis=1).all()
    assert np.nanmax(by.depth(holes)) < 6


# ---------------------------------------------------------------- kept, refused


def test_maps_are_made_once_for_a_lens_whatever_its_evidence():
    by = undistorter(BROWN, "crop")
    chosen = ModelScores(candidates=(), chosen="brown-5", reason="the only one that was asked for")
    assert undistorter(BROWN.replace(covariance=np.eye(12), scores=chosen), "crop").maps is by.maps
    assert undistorter(BROWN.replace(k1=-0.21), "crop").maps is not by.maps
    assert undistorter(BROWN, "crop", rotation=TURN).maps is not by.maps


def test_what_is_refused():
    by = undistorter(BROWN)
    with pytest.raises(ValueError, match="does not fit a lens of 320 x 240"):
        by.image(np.zeros((3, 4)))
    for call in (by.mask, by.depth):
        with pytest.raises(ValueError, match="does not fit"):
            call(np.ones((240, 320, 3)))
    with pytest.raises(ValueError, match=r"want \(h, w, 3\)"):
        by.normals(np.ones((240, 320)))
    with pytest.raises(ValueError, match="int32: want 8 or 16 bits"):
        by.image(np.zeros((240, 320), np.int32))
    with pytest.raises(ValueError, match="has distortion"):
        undistorter(BROWN, BROWN)
    for bad in (np.eye(4), 2 * np.eye(3), np.diag([1, 1, -1.0])):
        with pytest.raises(ValueError, match="rotation matrix"):
            undistorter(BROWN, rotation=bad)
    wide = BROWN.replace(width=40000)
    with pytest.raises(ValueError, match="40000 x 240 px: sides of more than 32766"):
        undistorter(wide)
