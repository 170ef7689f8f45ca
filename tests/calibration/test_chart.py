"""The ColorChecker found in linear pictures of raw camera colours, and its patches read."""

import re

import chart_scene
import cv2
import numpy as np
import pytest

from calibration.provenance import FitError
from calibration.targets.chart import GREYS, PATCHES, find_charts, read_chart

TRUE = chart_scene.camera_rgb()


def check(image, corners, level=1.0, share=0.12):
    """One chart, its corners within ``share`` of a patch, its means within five of their own sigmas."""
    (view,) = find_charts(image)
    pitch = np.linalg.norm(corners[1] - corners[0]) / 6
    assert np.abs(view.corners - corners).max() < share * pitch
    assert not view.faults
    off = (view.mean / level - TRUE) / (view.sigma / level)
    # 72 means: five sigma, and as a crowd no worse than their sigmas say
    assert np.abs(off).max() < 5.0
    assert np.sqrt(np.mean(off**2)) < 1.4
    return view


@pytest.mark.parametrize(
    ("width", "turn", "perspective"),
    [
        (300, 0, 0),
        (250, 20, 0.2),
        (200, 45, 0.25),
        (190, 90, 0),
        (300, 180, 0.2),
        (200, 270, 0.1),
        (70, 10, 0),
    ],
)
def test_chart_is_found_wherever_it_lies(width, turn, perspective):
    corners = chart_scene.quad(225, 150, width, turn, perspective)
    check(chart_scene.picture(corners), corners)


@pytest.mark.parametrize(
    "scene",
    [{"background": 0.02}, {"background": 3.0}, {"background": 20.0}, {"noise": 0.03}],
    ids=["dark room", "bright wall", "window", "noise"],
)
def test_chart_is_found_beside_much_else(scene):
    corners = chart_scene.quad(225, 150, 260, 12, 0.15)
    check(chart_scene.picture(corners, **scene), corners)


@pytest.mark.parametrize("level", [1e-5, 3e4])
def test_exposure_scales_the_means_and_nothing_else(level):
    corners = chart_scene.quad(225, 150, 260, -8)
    image = chart_scene.picture(corners)
    one, other = check(image, corners), check(image * np.float32(level), corners, level)
    np.testing.assert_allclose(other.mean, one.mean * level, rtol=1e-5)
    np.testing.assert_allclose(other.sigma, one.sigma * level, rtol=1e-3)


def test_sigma_of_the_means_is_their_scatter():
    corners = chart_scene.quad(225, 150, 240, 5, 0.1)
    clean, rng = chart_scene.picture(corners, noise=0), np.random.default_rng(1)
    views = [
        read_chart(clean + rng.normal(0, 0.02, clean.shape).astype(np.float32), corners) for _ in range(24)
    ]
    scatter = np.std([view.mean for view in views], axis=0, ddof=1)
    said = np.mean([view.sigma for view in views], axis=0)
    # 72 scatters of 24 draws each: their mean square is known to sqrt(2 / (23 * 72)) = 3.5 %
    assert np.sqrt(np.mean((scatter / said) ** 2)) == pytest.approx(1, abs=3 * 0.035)


def test_sigma_holds_for_correlated_pixels():
    rng = np.random.default_rng(3)
    corners = chart_scene.quad(225, 150, 300)
    clean = chart_scene.picture(corners, noise=0)
    means, said = [], []
    for _ in range(24):
        coarse = rng.normal(0, 0.02, (150, 225, 3)).repeat(2, axis=0).repeat(2, axis=1)
        view = read_chart(clean + coarse.astype(np.float32), corners)
        means.append(view.mean)
        said.append(view.sigma)
    ratio = np.std(means, axis=0, ddof=1) / np.mean(said, axis=0)
    # blocks of 4 x 4 px cut a pair of like pixels at their edges: up to 12 % is not seen
    assert np.sqrt(np.mean(ratio**2)) == pytest.approx(1.0, abs=0.15)


def test_rough_corners_in_any_order_do():
    corners = chart_scene.quad(225, 150, 260, 30, 0.2)
    image = chart_scene.picture(corners)
    want = read_chart(image, corners)
    for turn in range(4):
        for way in (1, -1):
            rough = np.roll(corners, turn, axis=0)[::way] + np.array([[9, -8], [-7, 9], [8, 6], [-9, -5]])
            view = read_chart(image, rough)
            np.testing.assert_allclose(view.corners, want.corners, atol=0.5)
            # another start moves what is read by a fraction of a pixel: as noise allows
            assert np.nanmax(np.abs(view.mean - want.mean) / want.sigma) < 2


def test_mirrored_picture_is_read_the_right_way():
    corners = chart_scene.quad(225, 150, 260, 8)
    image = chart_scene.picture(corners)[:, ::-1]
    (view,) = find_charts(np.ascontiguousarray(image))
    np.testing.assert_allclose(view.mean, TRUE, atol=0.01)


def test_two_charts_are_two():
    left, right = chart_scene.quad(110, 150, 180, 4), chart_scene.quad(340, 150, 190, -5)
    image = chart_scene.picture(left)
    image[:, 225:] = chart_scene.picture(right)[:, 225:]
    first, second = find_charts(image)
    # the larger first
    assert first.corners.mean(axis=0)[0] == pytest.approx(340, abs=3)
    assert second.corners.mean(axis=0)[0] == pytest.approx(110, abs=3)


def test_no_chart_where_there_is_none():
    rng = np.random.default_rng(5)
    assert find_charts(rng.uniform(0.1, 1, (200, 300, 3)).astype(np.float32)) == ()
    assert find_charts(np.full((200, 300, 3), np.nan, np.float32)) == ()
    assert find_charts(np.zeros((200, 300, 3), np.float32)) == ()
    boxes = rng.uniform(0.1, 1, (8, 12, 3)).repeat(25, axis=0).repeat(25, axis=1)
    assert find_charts(boxes.astype(np.float32)) == ()


def test_half_hidden_chart_is_not_taken_for_a_whole_one():
    corners = chart_scene.quad(225, 150, 300)
    image = chart_scene.picture(corners)
    image[150:, 150:] = 0.3
    assert find_charts(image) == ()


def test_wrong_corners_are_refused():
    image = chart_scene.picture(chart_scene.quad(225, 150, 200))
    with pytest.raises(FitError, match="no row of six greys"):
        read_chart(image, [[5, 5], [80, 5], [80, 50], [5, 50]])
    with pytest.raises(FitError, match="enclose almost nothing"):
        read_chart(image, [[5, 5], [5, 5], [5, 5], [5, 5]])
    with pytest.raises(FitError, match="four points"):
        read_chart(image, [[5, 5], [80, 5], [80, 50]])


def test_grey_picture_is_refused():
    with pytest.raises(ValueError, match=re.escape("this image has (20, 30)")):
        find_charts(np.zeros((20, 30), np.float32))


def test_clipped_patches_are_left_out_and_named():
    corners = chart_scene.quad(225, 150, 280, 10, 0.1)
    image = chart_scene.picture(corners)
    image[image > 0.85] = np.nan
    clipped = np.flatnonzero((TRUE > 0.85 + 0.02).any(axis=1))
    (view,) = find_charts(image)
    assert set(view.faults) == set(clipped.tolist())
    assert set(view.faults.values()) == {"clipped or missing"}
    assert np.isnan(view.mean[clipped]).all()
    assert PATCHES[clipped[0]] in ("orange yellow", "yellow", "white")


def test_dead_pixels_and_dust_do_not_move_a_mean():
    corners = chart_scene.quad(225, 150, 300)
    image = chart_scene.picture(corners)
    rng = np.random.default_rng(2)
    bad = rng.random(image.shape[:2])
    image[bad < 0.01] = np.nan
    image[(bad > 0.01) & (bad < 0.02)] = 5.0
    image[(bad > 0.02) & (bad < 0.03)] = 0.0
    view = read_chart(image, corners)
    assert not view.faults
    assert np.abs((view.mean - TRUE) / view.sigma).max() < 5.5
    # no wilder than without them: 0.004 a pixel
    assert np.all(view.sigma < 3 * 0.004 / np.sqrt(view.pixels)[:, None])


@pytest.mark.parametrize("fall", [0.0, 0.10, 0.25])
def test_uneven_light_is_measured(fall):
    corners = chart_scene.quad(225, 150, 300)
    image = chart_scene.picture(corners)
    along = np.linspace(0, 1, 450, dtype=np.float32)[None, :, None]
    view = read_chart(image * (1 - fall * along), corners)
    centres = view.quads.mean(axis=1)[:, 0]
    light = np.log(1 - fall * centres / 449)
    assert view.unevenness == pytest.approx(np.ptp(light), abs=4 * view.unevenness_sigma)
    assert view.unevenness_sigma < 0.03


def test_chart_bent_by_the_lens_is_read_in_its_patches():
    corners = chart_scene.quad(225, 150, 330)
    v, u = np.mgrid[:300, :450].astype(np.float32)
    x, y = (u - 225) / 225, (v - 150) / 225
    stretch = 1 + 0.45 * (x * x + y * y)
    bent = chart_scene.picture(corners, noise=0)
    bent = cv2.remap(bent, 225 + 225 * x * stretch, 150 + 225 * y * stretch, cv2.INTER_LINEAR)
    bent += np.random.default_rng(4).normal(0, 0.004, bent.shape).astype(np.float32)
    (view,) = find_charts(bent)
    assert not view.faults
    # a plane alone would miss a corner patch by a third and read its frame: 0.2
    np.testing.assert_allclose(view.mean, TRUE, atol=0.01)
    assert np.all(np.diff(view.mean[GREYS, 1]) < 0)
