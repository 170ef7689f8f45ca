"""Balls of other finishes, balls that are not whole, and what the result says of them."""

from dataclasses import replace

import numpy as np
import pytest
from mirror_scene import four_spheres, small_lens
from numpy.testing import assert_allclose

from calibration.geometry import normalize, tangent_basis
from calibration.provenance import FitError
from calibration.targets.edges import refine
from calibration.targets.outline import SphereView, circle
from calibration.targets.rim import polish
from calibration.targets.spheres import detect_spheres, sphere_from_circle

RADIUS = 20.0


def _off(lens, view, centres):
    """Error of the nearest ball: two angles and the angular radius, in px; and over their sigma."""
    centre = centres[np.argmax(normalize(centres) @ view.direction)]
    angular = np.arcsin(RADIUS / np.linalg.norm(centre))
    off = np.append(tangent_basis(view.direction) @ normalize(centre), angular - view.angular_radius_rad)
    return off * lens.fx, off / np.sqrt(np.diag(view.covariance))


def _polished(scene, images):
    """Each ball of a scene, polished from a start that is off by more than half a pixel."""
    views = []
    for centre in scene.centres:
        at, radius = scene.lens.project(centre), RADIUS / centre[2] * scene.lens.fx
        x, y = np.maximum(at - 1.4 * radius - 15, 0).astype(int)
        far = (at + 1.4 * radius + 15).astype(int)
        lens = scene.lens.replace(cx=scene.lens.cx - x, cy=scene.lens.cy - y)
        window = np.ascontiguousarray(images[:, y : far[1], x : far[0]])
        start = circle(at - [x, y] + [0.6, -0.5], 1.01 * radius, lens)
        views.append(polish(window, refine(window, start, lens, 2.0), lens).view)
    return views


@pytest.fixture(scope="module")
def matte():
    scene = replace(four_spheres(small_lens(), seed=3, count=6), matte=True)
    touching = np.array([[-20.05, 0, 450.0], [20.05, 5, 450.0], [-90.0, 55, 450.0]])
    scene = replace(scene, centres=touching)
    return scene, scene.render(4)


@pytest.fixture(scope="module")
def chrome():
    scene = four_spheres(small_lens(), seed=0, count=8)
    return scene, scene.render(0)


@pytest.fixture(scope="module")
def polished(chrome):
    """Errors, px, and over their sigma, (4, 3) each, of balls of chrome and of black gloss."""
    gloss = replace(four_spheres(small_lens(), seed=1, count=6), gloss=True, texture_seed=1)
    cases = {"chrome": chrome, "gloss": (gloss, gloss.render(1))}
    return {
        name: np.array([_off(scene.lens, view, scene.centres) for view in _polished(scene, images)])
        for name, (scene, images) in cases.items()
    }


def test_what_black_gloss_mirrors_along_its_rim_is_part_of_the_ball(polished):
    # At grazing incidence glass mirrors all of the backdrop: by its steepest place it is 0.4 px too small.
    off = polished["gloss"][:, 0]
    assert abs(off[:, 2].mean()) < 0.2
    assert np.sqrt(np.mean(off**2)) < 0.2


def test_errors_are_as_large_as_their_sigma_says(polished):
    relative = np.array([errors[:, 1] for errors in polished.values()])
    # 24 numbers: their rms is 1 +- 0.14 for independent ones; those of one ball share what its rim shows.
    assert 0.6 < np.sqrt(np.mean(relative**2)) < 1.4


def test_matte_balls_are_found_by_their_shading_though_they_touch(matte):
    scene, images = matte
    views = detect_spheres(images, scene.lens, finish="matte")
    assert len(views) == 3
    assert max(np.abs(_off(scene.lens, view, scene.centres)[0]).max() for view in views) < 0.1


def test_another_finish_is_named(matte, chrome):
    with pytest.raises(FitError, match="as a matte one"):
        detect_spheres(matte[1], matte[0].lens)
    with pytest.raises(FitError, match="as a mirror one"):
        detect_spheres(chrome[1], chrome[0].lens, finish="matte")


def test_half_a_ball_is_found_and_said_to_be_cut(matte):
    scene, images = matte
    column = int(scene.lens.project(scene.centres[2])[0])
    lens = scene.lens.replace(cx=scene.lens.cx - column)
    views = detect_spheres(np.ascontiguousarray(images[:, :, column:]), lens, finish="matte")
    (cut,) = (view for view in views if view.remarks)
    assert cut.centre_px[0] < 2
    assert "cut by the picture's border: 5" in cut.remarks[0]
    off, relative = _off(lens, cut, scene.centres)
    assert np.abs(off).max() < 0.15
    assert np.abs(relative).max() < 4


def test_one_of_several_is_remarked_and_tiny_is_named(chrome):
    scene, images = chrome
    (one,) = detect_spheres(images, scene.lens, count=1)
    assert any("one of several candidates: the one at" in remark for remark in one.remarks)
    small = four_spheres(small_lens(focal=220.0, width=140, height=100), seed=3, count=8)
    with pytest.raises(FitError, match="is tiny, "):
        detect_spheres(small.render(3), small.lens)


def test_place_in_mm_and_its_covariance_are_those_of_the_outline():
    lens = small_lens()
    view = sphere_from_circle((200, 150), 40, lens)._replace(covariance=np.diag([1.0, 2.0, 3.0]) * 1e-8)
    centre, covariance = view.centre_mm(RADIUS)
    assert_allclose(RADIUS / np.linalg.norm(centre), np.sin(view.angular_radius_rad), rtol=1e-12)
    rng = np.random.default_rng(0)
    steps = rng.multivariate_normal(np.zeros(3), view.covariance, 20000)
    turned = normalize(view.direction + steps[:, :2] @ tangent_basis(view.direction))
    drawn = turned * (RADIUS / np.sin(view.angular_radius_rad + steps[:, 2]))[:, None]
    # 20000 draws know a variance to 1 %.
    assert_allclose(np.cov(drawn.T), covariance, atol=0.04 * covariance.max())
    flat = SphereView(np.full(3, np.nan), np.nan, np.eye(3), np.zeros(2), 40.0)
    with pytest.raises(ValueError, match="lens"):
        flat.centre_mm(RADIUS)
    with pytest.raises(ValueError, match="more than 0"):
        view.centre_mm(0.0)
