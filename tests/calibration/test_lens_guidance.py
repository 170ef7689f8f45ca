"""Guidance: what it promises of a view is what the view brings, and it beats views taken anywhere."""

import numpy as np
import pytest
from lens_views import LENS, MIDDLE, POINTS, SIZE, view, views
from scipy.spatial.transform import Rotation

from calibration.geometry import angle_deg
from calibration.lens import fit_lens
from calibration.lens.guidance import first_lens, idle_views, seen_board, suggest_views
from calibration.lens.uncertainty import image_grid, projection_sigma, sensitivity


def mean_variance(lens, distance=450.0):
    moves = sensitivity(lens, distance, image_grid(lens, 24).reshape(-1, 2))
    free = np.diag(lens.covariance) > 0
    covariance = np.asarray(lens.covariance)[np.ix_(free, free)]
    return float(np.einsum("nip,pq,niq->", moves, covariance, moves) / len(moves))


def fit(seen):
    return fit_lens(seen, LENS.width, LENS.height)


def suggested(lens, **how):
    return suggest_views(lens, POINTS, SIZE, **how)


def taken(rng, suggestion, lens=LENS, stretch=1.0):
    """The view that someone takes who holds the board as suggested."""
    rotation = Rotation.from_rotvec(suggestion.rotvec).as_matrix()
    return view(rng, (rotation, suggestion.t_mm * (1, 1, stretch)), lens=lens)


def test_a_view_brings_what_is_promised():
    seen = views(0, 8)
    lens = fit(seen)
    (best,) = suggested(lens)
    after = fit([*seen, taken(np.random.default_rng(0), best)])
    gain = 1 - mean_variance(after) / mean_variance(lens)
    # The scale of the noise is estimated anew: 2 / 500 corners, squared; and the pose of the camera.
    assert best.gain == pytest.approx(gain, abs=0.12)
    assert best.gain > 0.3


def test_suggestions_are_views_that_can_be_taken():
    lens = fit(views(1, 8))
    distances = [np.linalg.norm(Rotation.from_rotvec(p[:3].copy()).apply(MIDDLE) + p[3:]) for p in lens.views]
    found = suggested(lens, count=3)
    assert len(found) == 3
    assert found[0].gain >= max(one.gain for one in suggested(lens, count=1)) - 1e-12
    for one in found:
        assert np.all((one.outline > 0) & (one.outline < (LENS.width - 1, LENS.height - 1)))
        rotation = Rotation.from_rotvec(one.rotvec).as_matrix()
        middle = rotation @ MIDDLE + one.t_mm
        assert min(distances) - 1 < np.linalg.norm(middle) < max(distances) + 1
        assert angle_deg(rotation[:, 2], middle) < 46
        # The outline is the board's: its corners are where the pose puts them.
        border = lens.project(np.array([[0, 0, 0], [SIZE[0], SIZE[1], 0]]) @ rotation.T + one.t_mm)
        assert np.linalg.norm(one.outline - border[:, None], axis=-1).min(axis=1).max() < 1e-6
        assert "of the image" in one.words
        assert "mm away" in one.words
    apart = [np.linalg.norm(a.outline.mean(axis=0) - b.outline.mean(axis=0)) for a in found for b in found]
    assert np.count_nonzero(np.array(apart) < 20) < 9


def test_words_say_which_side_comes_nearer():
    lens = fit(views(2, 8))
    told = 0
    for one in suggested(lens, count=4):
        rotation = Rotation.from_rotvec(one.rotvec).as_matrix()
        if "comes nearer" not in one.words:
            continue
        side = one.words.split("so that its ")[1].split(" comes")[0]
        aim = np.array([("right" in side) - ("left" in side), ("lower" in side) - ("upper" in side)], float)
        # Points of the board in image directions: the nearest lies where the words say.
        corners = np.array([[0, 0, 0], [SIZE[0], 0, 0], [SIZE[0], SIZE[1], 0], [0, SIZE[1], 0]])
        p = corners @ rotation.T + one.t_mm
        off = p[:, :2] - p[:, :2].mean(axis=0)
        # Depth along the ray to the board's middle, as whoever holds the board sees it.
        middle = p.mean(axis=0)
        deeper = np.linalg.lstsq(off, (p - middle) @ middle, rcond=None)[0]
        assert -aim @ deeper > 0.6 * np.linalg.norm(aim) * np.linalg.norm(deeper)
        told += 1
    assert told


def test_following_beats_taking_views_anywhere():
    start = views(3, 5)
    rng = np.random.default_rng(3)
    guided = list(start)
    for _ in range(4):
        guided.append(taken(rng, suggested(fit(guided))[0]))
    anywhere = [mean_variance(fit([*start, *views(seed, 4)])) for seed in range(50, 58)]
    ours = mean_variance(fit(guided))
    assert ours < 0.5 * np.median(anywhere)
    assert ours < min(anywhere)
    # Not only in the covariance: the lens is closer to the truth.
    off = [np.nanmax(projection_sigma(one, 450.0)) for one in (fit(guided), fit([*start, *views(50, 4)]))]
    assert off[0] < off[1]


def test_views_that_add_nothing_are_named():
    near = views(4, 12, reach=(130, 75))
    far = views(5, 5, reach=(20, 20), distance=(1500, 1600))
    lens = fit([*near, *far])
    idle = idle_views(lens)
    assert set(range(12, 17)) <= set(idle)
    assert len(idle) <= 7
    # Without them the lens is as well known as is said; its noise is estimated anew.
    rest = fit([one for i, one in enumerate([*near, *far]) if i not in idle])
    assert mean_variance(rest) < 1.2 * mean_variance(lens)
    assert idle_views(fit(views(6, 8, reach=(130, 75)))) == ()


def test_first_views_lead_to_a_lens():
    guess = first_lens(LENS.width, LENS.height)
    found = suggested(guess, count=6)
    assert len(found) == 6
    rng = np.random.default_rng(5)
    for focal in (900.0, 1056.0, 1900.0):
        lens = LENS.replace(fx=focal, fy=focal)
        # Held so that it looks as in the outline.
        model = fit([taken(rng, one, lens, stretch=focal / guess.fx) for one in found])
        assert model.fx == pytest.approx(focal, rel=3e-3)
    assert "spanning" in found[0].words
    assert angle_deg(*(Rotation.from_rotvec(one.rotvec).as_matrix()[:, 2] for one in found[:2])) > 10


def test_part_of_a_board_may_be_enough():
    lens = fit(views(6, 8))
    (part,) = suggested(lens, whole=False)
    (whole,) = suggested(lens, whole=True)
    assert part.gain >= whole.gain - 1e-9
    outside = (part.outline < 0) | (part.outline > (LENS.width, LENS.height))
    assert outside.any()


def test_a_board_that_never_fits_gives_no_suggestion():
    lens = fit(views(7, 8))
    huge = (10 * SIZE[0], 10 * SIZE[1])
    assert suggest_views(lens, POINTS * 10, huge) == ()


def test_the_board_is_known_from_the_fit():
    points, size, whole = seen_board(fit(views(8, 8)))
    np.testing.assert_array_equal(np.sort(points, axis=0), np.sort(POINTS, axis=0))
    assert size == pytest.approx(SIZE)
    assert whole
