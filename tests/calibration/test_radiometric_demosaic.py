"""demosaic: the gradient method, and what stands in for samples that are missing."""

import cv2
import numpy as np
import pytest

from calibration.radiometric import Radiance, demosaic

EPS = float(np.finfo(np.float32).eps)
CFAS = ("RGGB", "GRBG", "GBRG", "BGGR")


def mosaic_of(image, cfa):
    mosaic = np.empty(image.shape[:2], np.float32)
    for k, colour in enumerate(cfa):
        part = (slice(k // 2, None, 2), slice(k % 2, None, 2))
        mosaic[part] = image[(*part, "RGB".index(colour))]
    return mosaic


@pytest.mark.parametrize("cfa", CFAS)
def test_gradient_follows_texture_that_the_colours_share(cfa):
    texture = cv2.GaussianBlur(np.random.default_rng(1).standard_normal((96, 128)), (0, 0), 1.2)
    image = 10 + np.exp(3 * texture)[..., None] * np.array([1.0, 0.9, 0.8])
    radiance = Radiance(mosaic_of(image, cfa), np.ones((96, 128), np.float32))
    error = {
        method: np.sqrt(np.mean((demosaic(radiance, cfa, method=method).value - image)[3:-3, 3:-3] ** 2))
        for method in ("bilinear", "gradient")
    }
    assert error["gradient"] < 0.6 * error["bilinear"]


def test_gradient_has_the_coefficients_of_the_paper():
    """Answers to one sample among zeros, in eighths: figure 2 of Malvar, He and Cutler."""
    value = np.zeros((11, 11), np.float32)
    value[4, 4] = 8  # red of RGGB
    found = demosaic(Radiance(value, np.ones((11, 11), np.float32)), "RGGB", method="gradient").value
    assert found[4, 2:7].tolist() == [[0, -1, -1.5], [4, 0, 0], [8, 4, 6], [4, 0, 0], [0, -1, -1.5]]
    assert found[3, 3:6].tolist() == [[2, 0, 0], [4, 0, 0], [2, 0, 0]]


@pytest.mark.parametrize("cfa", CFAS)
def test_gradient_keeps_planes_and_constants(cfa):
    y, x = np.mgrid[:9, :11].astype(np.float64)
    flat = np.broadcast_to([1000.0, 2000.0, 300.0], (9, 11, 3))
    ones = np.ones((9, 11), np.float32)
    found = demosaic(Radiance(mosaic_of(flat, cfa), ones), cfa, method="gradient").value
    np.testing.assert_allclose(found, flat, rtol=16 * EPS * 2000 / 300)
    ramp = flat + (3 * x + 7 * y)[..., None]
    found = demosaic(Radiance(mosaic_of(ramp, cfa), ones), cfa, method="gradient").value
    np.testing.assert_allclose(found[2:-2, 2:-2], ramp[2:-2, 2:-2], rtol=16 * EPS * 2100 / 300)


@pytest.mark.parametrize("method", ["bilinear", "gradient"])
def test_variance_is_the_scatter(method):
    rng = np.random.default_rng(5)
    variance = rng.uniform(1, 9, (8, 10)).astype(np.float32)
    noise = np.sqrt(variance) * rng.standard_normal((4000, 8, 10))
    draws = np.array(
        [
            demosaic(Radiance((100 + n).astype(np.float32), variance), "GBRG", method=method).value
            for n in noise
        ]
    )
    stated = demosaic(Radiance(np.full((8, 10), 100, np.float32), variance), "GBRG", method=method).variance
    # 240 ratios, each known to sqrt(2 / 4000)
    assert np.max(np.abs(draws.var(axis=0, dtype=np.float64) / stated - 1)) < 4.5 * np.sqrt(2 / 4000)


@pytest.mark.parametrize("method", ["bilinear", "gradient"])
@pytest.mark.parametrize("cfa", CFAS)
def test_a_defect_leaves_its_neighbours_their_colours(method, cfa):
    y, x = np.mgrid[:10, :10]
    value = (100.0 + x + 3 * y).astype(np.float32)
    defects = np.zeros((10, 10), bool)
    defects[4, 5] = True
    value[defects] = np.nan
    found = demosaic(Radiance(value, np.ones((10, 10), np.float32)), cfa, method=method, defects=defects)
    colour = "RGB".index(cfa[2 * (4 % 2) + 5 % 2])
    missing = np.argwhere(np.isnan(found.value))
    assert missing.tolist() == [[4, 5, colour]]
    np.testing.assert_array_equal(np.isnan(found.variance), np.isnan(found.value))
    # one of two or four neighbours is gone: the mean of the others is off by their slope at most
    rest = np.delete(np.abs(found.value - (100.0 + x + 3 * y)[..., None])[2:-2, 2:-2].ravel(), 0)
    assert np.nanmax(rest) <= 4.001


@pytest.mark.parametrize("method", ["bilinear", "gradient"])
def test_a_saturated_sample_blanks_its_neighbours_colour(method):
    value = np.full((10, 10), 5, np.float32)
    value[4, 4] = np.nan
    found = demosaic(Radiance(value, np.ones((10, 10), np.float32)), "RGGB", method=method)
    red = np.zeros((10, 10), bool)
    red[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(found.value[..., 0]), red)
    assert np.all(np.isfinite(found.value[..., 1:]))


def test_gradients_make_no_light_negative():
    """A lamp of one colour beside the dark: its curvature is not that of the others."""
    value = np.full((12, 12), 1.0, np.float32)
    value[6, 6] = 1e5
    found = demosaic(Radiance(value, np.full((12, 12), 1e-4, np.float32)), "RGGB", method="gradient").value
    assert found.min() > -0.05


def test_defects_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"defects have shape \(3, 3\)"):
        demosaic(
            Radiance(np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)), "RGGB",
            defects=np.zeros((3, 3), bool),
        )  # fmt: skip
