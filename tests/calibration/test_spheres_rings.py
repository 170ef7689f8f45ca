"""The rings of a ball: its outline among what it mirrors."""

import cv2
import numpy as np
import pytest
from mirror_scene import small_lens

from calibration.geometry import normalize
from calibration.targets.edges import Edges, rings_about
from calibration.targets.outline import SphereView, circle, curve, settled
from calibration.targets.spheres.detection import _of_one_size
from calibration.targets.spheres.rings import _doubt, _stands, chance


def _edges(radius, support, rms, right=0.0):
    return Edges(circle((100.0 + right, 100.0), radius, None), support, rms, 0.8)


@pytest.mark.parametrize("contrast", [0.3, 0.1])
@pytest.mark.parametrize("border", [480, 445])
def test_a_faint_outline_far_off_the_axis_is_among_the_rings_about_its_mirrored_horizon(contrast, border):
    lens = small_lens(focal=300.0)
    centre = np.array([150.0, 60.0, 300.0])
    view = SphereView(
        normalize(centre), float(np.arcsin(40 / np.linalg.norm(centre))), np.eye(3), np.zeros(2), 0
    )
    true = settled(view, lens)
    image = np.full((lens.height, lens.width), 1.0, np.float32)
    outline = np.rint(curve(true, lens, np.linspace(0, 2 * np.pi, 720)) * 256).astype(np.int32)
    cv2.fillPoly(image, [outline], 1 - contrast, shift=8)
    # Off the outline's centre by 0.6 of what the outline is wider.
    inside = true.centre_px + np.array([0.6 * 0.3 * true.radius_px, 0.0])
    core = circle(inside, 0.7 * true.radius_px, lens)
    ring = np.rint(curve(core, lens, np.linspace(0, 2 * np.pi, 720)) * 256).astype(np.int32)
    cv2.fillPoly(image, [ring], 0.01, shift=8)
    image = cv2.GaussianBlur(image, (0, 0), 0.7)[:, :border]
    noise = np.random.default_rng(0).normal(size=image.shape) * 0.003
    found = rings_about((image + noise)[None].astype(np.float32), core, lens, 1.8, 6)
    off = [np.hypot(*(f.centre_px - true.centre_px)) + abs(f.radius_px - true.radius_px) for f in found]
    assert min(off) < 0.06 * true.radius_px


def test_an_outline_with_less_support_stands_where_it_is_the_sharper_circle():
    horizon = _edges(25, 1.0, 0.35)
    assert _stands(_edges(34, 0.5, 0.2), horizon)
    assert not _stands(_edges(34, 0.5, 0.4), horizon)
    assert _stands(_edges(34, 0.6, 0.4), horizon)


def test_where_the_shadows_of_many_lights_end_is_no_outline():
    outline, shadows = _edges(80, 1.0, 0.1), _edges(135, 0.8, 0.4)
    assert not _stands(shadows, outline)
    assert _doubt(outline, [shadows, outline]) == ""
    assert _stands(_edges(135, 0.8, 0.15), outline)  # as sharp a ring: what is inside is a reflection
    assert _stands(_edges(135, 0.8, 0.4), _edges(80, 0.75, 0.1))


def test_a_ring_that_chance_may_have_made_gives_way_to_a_better_one():
    outline = _edges(50, 0.62, 0.2)
    for support in (0.3, 0.48):
        chance = _edges(80, support, 0.15, right=8.0)
        assert not _stands(chance, outline)
        assert _doubt(outline, [chance, outline]) == ""
    assert _stands(outline, chance)
    assert _stands(chance, chance)  # the best that there is


def test_what_speaks_against_an_outline_is_said():
    horizon, outline = _edges(25, 1.0, 0.35), _edges(34, 0.95, 0.2)
    assert _doubt(outline, [outline, horizon]) == ""
    weak = _edges(34, 0.55, 0.2)
    assert "ring of 25 px" in _doubt(weak, [weak, horizon])
    alone = _edges(16, 0.45, 0.2)
    assert "along 45 % alone: look" in _doubt(alone, [alone])
    # As much as chance made of the fine net that a ball on cloth shows.
    by_chance = _edges(80, 0.54, 0.2)
    assert "along 54 % alone: look" in _doubt(by_chance, [by_chance])
    assert _doubt(_edges(80, 0.56, 0.2), [_edges(80, 0.56, 0.2), by_chance]) == ""
    assert "ring of 34 px is round it" in _doubt(horizon, [weak, horizon])


def test_an_outline_about_which_edges_lie_as_by_chance_is_told():
    # In blurs of 0.8 px: chance has 0.5.
    assert "about its outline of 49 px as by chance" in chance(_edges(49, 0.63, 0.37), _edges(49, 0.63, 0.37))
    assert "as by chance" in chance(_edges(62, 0.59, 0.38), _edges(62, 0.59, 0.26))
    assert "as by chance" in chance(_edges(397, 0.53, 0.3), _edges(397, 0.53, 0.36))
    assert chance(_edges(100, 0.72, 0.32), _edges(100, 0.72, 0.32)) == ""
    assert chance(_edges(190, 0.55, 0.19), _edges(190, 0.55, 0.3)) == ""


def _taken(outlines, count):
    found = [(support, circle((100.0, 100.0), radius, None)) for radius, support in outlines]
    order = np.arange(len(found))
    return sorted(outlines[k][0] for k in _of_one_size(found, order, len(found), count)[:count])


def test_where_more_fit_than_asked_for_those_of_one_size_are_taken_if_well_supported():
    assert _taken([(52, 0.98), (90, 0.95), (50, 0.9), (51, 0.8)], 3) == [50, 51, 52]
    # One as large as the others, but hardly an outline, takes no ball's place.
    assert _taken([(60, 0.98), (38, 0.95), (28, 0.9), (39, 0.4)], 3) == [28, 38, 60]
    # Balls at different distances, all that there are.
    assert _taken([(60, 0.98), (38, 0.95), (28, 0.9)], 3) == [28, 38, 60]
