"""Verdict on a lens: honest fits are good, each fault is named with what to do, no camera is refused."""

import numpy as np
import pytest
from lens_views import LENS, MIDDLE, NOISE, POINTS, names, poses, view, views
from scipy.spatial.transform import Rotation

from calibration.lens import BrownConrady, adjust_lens, fit_lens
from calibration.lens.agreement import agreement, enlarged
from calibration.lens.verdict import judge, place_in_words, shared_residuals, similar_views
from calibration.provenance import FitError

WIDE = {"reach": (130, 75), "distance": (380, 480)}  # boards up to the border of the image


def verdict(seen, **how):
    lens = adjust_lens(seen, LENS.width, LENS.height, **how)
    told = agreement(lens)
    return judge(enlarged(lens, told.influence), names(len(seen)), told.halves)


def told(quality, *parts):
    assert any(all(part in text for part in parts) for text in quality.warnings), quality.warnings


def test_honest_fits_are_good_and_nothing_is_said():
    silent = 0
    for seed in range(12):
        quality = verdict(views(seed, 20, **WIDE))
        assert quality.verdict == "good", quality.warnings
        assert quality.residual_rms == pytest.approx(NOISE, rel=0.1)
        assert not any("repeat" in text or "factor" in text for text in quality.warnings)
        silent += not quality.warnings
    assert silent >= 10


def test_shared_residuals_of_noise_are_noise():
    z = [
        [shared.z for shared in shared_residuals(fit_lens(views(seed, 14), LENS.width, LENS.height))]
        for seed in range(20)
    ]
    # 60 values of about unit variance
    assert 0.7 < np.std(z) < 1.35
    assert abs(np.mean(z)) < 0.5


def test_few_similar_views_are_told_though_they_calibrate():
    rng = np.random.default_rng(0)
    seen = []
    for pose in poses(1, 4, tilt_deg=(25, 35)):
        for _ in range(4):
            seen.append(view(rng, (pose[0], pose[1] + rng.normal(0, 1, 3))))
    lens = fit_lens(seen, LENS.width, LENS.height)
    assert similar_views(lens) == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15))
    quality = judge(lens, names(16))
    assert quality.verdict == "doubtful"
    told(quality, "16 views, but only 4 clearly different")
    told(quality, "nearly the same view", "view 13, view 14, view 15, view 16")


def test_few_views_and_a_bare_edge():
    quality = verdict(views(2, 4))
    assert quality.verdict == "doubtful"
    told(quality, "only 4 views")
    left = [
        view(np.random.default_rng(i), (rotation, t - (35 + (rotation @ MIDDLE + t)[0] / 2, 0, 0)))
        for i, (rotation, t) in enumerate(poses(3, 15))
    ]
    quality = verdict(left)
    told(quality, "move the board into the", "right edge")
    told(quality, "is imaged to", "put the tilted board there")


def test_hardly_tilted_boards():
    quality = verdict(views(4, 12, tilt_deg=(3, 6)))
    assert quality.verdict == "doubtful"
    told(quality, "differ in tilt by", "20 to 40 deg")


def test_parallel_boards_are_refused():
    with pytest.raises(FitError, match="tilt"):
        verdict(views(5, 12, tilt_deg=(0, 0.5)))


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_pictures_are_refused(axis):
    seen = views(6, 12)
    for one in seen:
        one.pixels[:, axis] = (LENS.width, LENS.height)[axis] - 1 - one.pixels[:, axis]
    with pytest.raises(FitError, match=r"mirror|behind"):
        verdict(seen)


def test_another_board_is_no_plausible_camera():
    # Eight corners a row where the description says seven: every row shifts by one more.
    real = np.stack([np.arange(35) % 8 + 1, np.arange(35) // 8 + 1, np.zeros(35)], axis=1) * 14.0
    rng = np.random.default_rng(7)
    seen = [view(rng, pose, points=real) for pose in poses(7, 12)]
    try:
        quality = verdict(seen)
    except FitError:
        return
    assert quality.verdict == "doubtful"
    told(quality, "of the board right?")


def test_squares_that_are_not_square():
    stretched = POINTS * (1, 1.05, 1)
    upright = [
        (Rotation.from_rotvec(turn).as_matrix(), np.array([0, 0, 450.0]) - MIDDLE + shift)
        for turn, shift in zip(
            np.random.default_rng(0).uniform(-0.5, 0.5, (14, 3)) * (1, 1, 0.05),
            np.random.default_rng(1).uniform(-60, 60, (14, 3)) * (1, 0.6, 0.3),
            strict=True,
        )
    ]
    rng = np.random.default_rng(8)
    quality = verdict([view(rng, pose, points=stretched) for pose in upright])
    told(quality, "fy / fx is 1.05", "--aspect")


class Rippled(BrownConrady):
    """A lens whose distortion no polynomial follows."""

    def project(self, points):
        pixels = super().project(points)
        off = (pixels - (self.cx, self.cy)) / 100
        return pixels + 0.25 * np.sin(2.5 * np.linalg.norm(off, axis=-1, keepdims=True)) * off


def test_a_lens_that_the_model_cannot_fit():
    rippled = Rippled(**{name: getattr(LENS, name) for name in ("width", "height", *LENS.names)})
    quality = verdict(views(9, 20, lens=rippled, **WIDE))
    assert quality.verdict == "doubtful"
    told(quality, "repeat at the same places of the image", "--model auto or splined")


def test_a_bent_board_and_a_board_printed_wrong():
    bulge = POINTS.copy()
    bulge[:, 2] += 1.5 * (1 - ((POINTS[:, 0] - 56) / 56) ** 2)
    bent = views(10, 16, points=bulge)
    quality = verdict(bent)
    told(quality, "repeat at the same corners of the board", "bent", "--warp")
    assert not any("repeat" in text for text in verdict(bent, warp=True).warnings)
    misprinted = POINTS + np.random.default_rng(3).normal(0, 0.05, POINTS.shape) * (1, 1, 0)
    quality = verdict(views(11, 16, points=misprinted))
    told(quality, "repeat at the same corners of the board", "not as described")
    assert quality.verdict == "doubtful"


def test_corners_that_err_together_are_told():
    said = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        seen = [
            view(rng, pose, lens=LENS.replace(k1=LENS.k1 + rng.normal(0, 0.05), fx=1500 + rng.normal(0, 8)))
            for pose in poses(seed, 14)
        ]
        said += any("all sigmas are enlarged by a factor of" in text for text in verdict(seen).warnings)
    assert said >= 3


def test_a_bad_view_is_named():
    seen = views(12, 14)
    seen[4].pixels = seen[4].pixels + np.random.default_rng(0).normal(0, 0.12, seen[4].pixels.shape)
    seen[4].sigma_px = np.full(len(seen[4].pixels), 0.12)
    told(verdict(seen), "view 5: residual")


def test_a_view_that_loses_its_corners_alone_makes_the_lens_doubtful():
    """Such as a picture that was turned by half: a part of its corners still agrees, and pulls."""
    data = views(4, 12)
    spoilt = np.arange(len(data[3].pixels)) < 0.4 * len(data[3].pixels)
    data[3].pixels[spoilt] += 2.0 * np.random.default_rng(0).choice([-1, 1], (int(spoilt.sum()), 2))
    lens = fit_lens(data, LENS.width, LENS.height)
    assert lens.quality.verdict == "doubtful"
    (told,) = [text for text in lens.quality.warnings if "of its corners" in text]
    assert told.startswith("view 4: ")
    assert told.endswith("Leave it out")


def test_words_for_places():
    assert place_in_words(LENS, np.array([3.0, 3.0])) == "upper left corner"
    assert place_in_words(LENS, np.array([955.0, 300.0])) == "right edge"
    assert place_in_words(LENS, np.array([480.0, 300.0])) == "middle"
    assert place_in_words(LENS, np.array([480.0, 590.0])) == "lower edge"
