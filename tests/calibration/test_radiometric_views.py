"""Vignetting from a textured scene moved about, on synthetic views with known fall-off.

Not tested here: scenes with depth, gloss, light that does not move with the scene.
"""

import cv2
import numpy as np
import pytest

from calibration.provenance import FitError
from calibration.radiometric import Radiance, RadiometricModel, fit_vignetting
from calibration.radiometric.vignetting import colour_planes

WIDTH, HEIGHT = 320, 200
SHIFTS = tuple((dx, dy, 0.0) for dx in (-80, 0, 80) for dy in (-50, 0, 50))
TURNS = ((0, 0, 0.0), (60, 40, 90.0), (-60, 30, 180.0), (50, -40, 250.0), (-50, -50, 20.0), (0, 60, 130.0))


@pytest.fixture(scope="module")
def texture():
    rng = np.random.default_rng(5)
    out = np.zeros((1000, 1000), np.float32)
    for scale in (3, 8, 25, 80, 200):
        layer = cv2.GaussianBlur(rng.standard_normal(out.shape).astype(np.float32), (0, 0), scale)
        out += 0.25 * layer / layer.std()
    return np.exp(out)


def fall_off(u, v, ramp=0.01):
    """cos^4 and a square about a place off the middle, with a ramp."""
    r2 = ((u - 170) ** 2 + (v - 90) ** 2) / ((WIDTH**2 + HEIGHT**2) / 4)
    return (1 - 0.25 * r2) / (1 + 0.2 * r2) ** 2 * (1 + ramp * (2 * u / WIDTH - 1))


def truth(ramp=0.01, strength=1.0):
    v, u = np.indices((HEIGHT, WIDTH))
    image = fall_off(u, v, ramp) ** strength
    return image / image[HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4].mean()


def pose(dx, dy, turn):
    """From pixels to places of the texture."""
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    middle = np.array([[1, 0, -WIDTH / 2], [0, 1, -HEIGHT / 2], [0, 0, 1]])
    return np.array([[c, -s, 500 + dx], [s, c, 500 + dy], [0, 0, 1]]) @ middle


def shoot(texture, moves, rng, image, scale=0.03):
    fixed = 1 + 0.005 * np.random.default_rng(1).standard_normal(image.shape)
    views = []
    for move in moves:
        scene = cv2.warpAffine(
            texture, pose(*move)[:2], (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        )
        scene = scene if image.ndim == 2 else scene[..., None]
        electrons = rng.poisson(scene * image * fixed * 1e4 * np.exp(scale * rng.standard_normal()))
        views.append(Radiance(electrons.astype(np.float32), (electrons + 25).astype(np.float32)))
    return views


def off(found, image):
    return found.vignetting.at() / image - 1


def test_turned_views_give_everything(texture):
    rng = np.random.default_rng(1)
    found = fit_vignetting(shoot(texture, TURNS, rng, truth()), "Mono12")
    assert not found.quality.warnings
    assert np.sqrt(np.mean(off(found, truth()) ** 2)) < 2e-3
    assert found.registration_px < 0.5
    assert found.vignetting.ramp_sigma(0) < 2e-3


def test_shifted_views_in_steady_light_give_everything(texture):
    rng = np.random.default_rng(2)
    found = fit_vignetting(shoot(texture, SHIFTS, rng, truth(), scale=0.0), "Mono12", steady=True)
    assert not found.quality.warnings
    error = off(found, truth())
    assert np.sqrt(np.mean(error**2)) < 1e-3
    assert np.all(found.view_scales == 1)


def test_shifted_views_alone_cannot_tell_a_ramp_and_say_so(texture):
    rng = np.random.default_rng(3)
    found = fit_vignetting(shoot(texture, SHIFTS, rng, truth()), "Mono12")
    assert any("ramp" in warning for warning in found.quality.warnings)
    assert found.quality.verdict == "doubtful"
    # What is thought, not what was seen.
    assert found.vignetting.ramp_sigma(0) == pytest.approx(0.05, rel=0.1)
    wider = fit_vignetting(shoot(texture, SHIFTS, rng, truth()), "Mono12", ramp_sigma=0.1)
    assert wider.vignetting.ramp_sigma(0) > 1.8 * found.vignetting.ramp_sigma(0)
    error, sigma = off(found, truth()), found.vignetting.sigma()
    assert np.sqrt(np.mean(error**2)) < 2 * np.sqrt(np.mean(sigma.astype(np.float64) ** 2))
    # All that is wrong is a ramp.
    v, u = np.indices(error.shape)
    plane = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3).astype(float)
    left = np.log1p(error).ravel() - plane @ np.linalg.lstsq(plane, np.log1p(error).ravel())[0]
    assert np.sqrt(np.mean(left**2)) < 1e-3


def test_sigma_covers_the_error_over_fresh_noise(texture):
    """Monte Carlo with given homographies: only noise is left."""
    moves = TURNS[:5]
    given = np.stack([np.linalg.inv(pose(*move)) @ pose(*moves[0]) for move in moves])
    scores = []
    for seed in range(8):
        rng = np.random.default_rng(100 + seed)
        found = fit_vignetting(shoot(texture, moves, rng, truth()), "Mono12", homographies=given)
        middle = (slice(20, -20, 12), slice(20, -20, 12))
        scores.append((off(found, truth())[middle] / found.vignetting.sigma()[middle]).ravel())
    # The pattern of the pixels is the same in all, and the shape is chosen anew: not exactly 1.
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 2


@pytest.mark.parametrize("pixel_format", ["RGB12", "BayerRG12"])
def test_each_colour_has_its_own(texture, pixel_format):
    rng = np.random.default_rng(4)
    image = np.stack([truth(strength=s) for s in (0.8, 1.0, 1.3)], axis=-1)
    if pixel_format.startswith("Bayer"):
        mosaic = image[..., 1].copy()
        mosaic[::2, ::2], mosaic[1::2, 1::2] = image[::2, ::2, 0], image[1::2, 1::2, 2]
        image = mosaic
    found = fit_vignetting(shoot(texture, TURNS, rng, image), pixel_format)
    for plane in colour_planes(pixel_format):
        ratio = found.vignetting.at()[plane] / image[plane]
        assert np.std(ratio / ratio.mean()) < 3e-3


def test_a_clipped_part_does_no_harm(texture):
    rng = np.random.default_rng(6)
    views = shoot(texture, TURNS, rng, truth())
    views = [
        Radiance(*(np.where(view.value > 15000, np.nan, part).astype(np.float32) for part in view))
        for view in views
    ]
    found = fit_vignetting(views, "Mono12")
    assert np.sqrt(np.mean(off(found, truth()) ** 2)) < 3e-3


def test_the_pattern_of_the_pixels_is_kept_where_it_is_known(texture):
    rng = np.random.default_rng(7)
    found = fit_vignetting(shoot(texture, TURNS, rng, truth()), "Mono12")
    pattern = 1 + 0.02 * rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    bare = RadiometricModel.nominal("Mono12", (HEIGHT, WIDTH))
    old = found.vignetting
    known = bare.replace(flat_map=old.at() * pattern, vignetting=old, flat_sigma=0.001)
    new = found.apply(known)
    assert np.std(new.flat_map / new.vignetting.at() / pattern) < 1e-5
    assert new.flat_sigma == 0.001
    assert found.apply(bare).flat_sigma > 0.005  # single pixels are not known
    # A flat without its smooth part is parted first.
    parted = found.apply(known.replace(vignetting=None))
    assert np.std(parted.flat_map / parted.vignetting.at() / pattern) < 3e-3


def test_bad_input_is_one_line(texture):
    rng = np.random.default_rng(8)
    views = shoot(texture, TURNS[:2], rng, truth())
    blank = Radiance(np.full_like(views[0].value, 100), np.full_like(views[0].value, 100))
    small = Radiance(views[0].value[:-2], views[0].variance[:-2])
    for bad, said in (
        (views[:1], "1 view"),
        ([views[0], blank], "too few features"),
        ([views[0], small], "view 1 has"),
    ):
        with pytest.raises(FitError, match=said) as error:
            fit_vignetting(bad, "Mono12")
        assert "\n" not in str(error.value)
    with pytest.raises(FitError, match="homographies"):
        fit_vignetting(views, "Mono12", homographies=np.eye(3)[None])
