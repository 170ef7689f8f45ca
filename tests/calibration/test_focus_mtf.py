"""The slanted-edge MTF against the transform of the blur that made the edge."""

import numpy as np
import pytest
from scipy.special import j1

from calibration.focus.mtf import FREQUENCIES, EdgeMtf, NoEdge, edge_mtf

ROOM = 22.0


def blur_mtf(angle_deg, sigma=0.0, disc=0.0):
    """Analytic MTF across an edge: Gaussian, disc of a lens out of focus, square pixel."""
    a = np.radians(angle_deg)

    def mtf(f):
        f = np.asarray(f, float)
        x = np.maximum(np.pi * disc * f, 1e-9)
        pixel = np.sinc(f * np.cos(a)) * np.sinc(f * np.sin(a))
        return np.exp(-2 * (np.pi * sigma * f) ** 2) * (2 * j1(x) / x) * pixel

    return mtf


def true_mtf50(mtf):
    f = np.linspace(0, 1, 100001)
    return f[np.argmax(np.abs(mtf(f)) < 0.5)]


def spread(mtf):
    """Profile of a perfect edge (0 to 1) seen through ``mtf``."""
    step, reach = 0.01, 80.0
    count = int(2 * reach / step)
    f = np.fft.rfftfreq(count, step)
    line = np.fft.irfft(mtf(f) * np.exp(-2j * np.pi * f * reach), count)
    return lambda d: np.interp(d, np.arange(count) * step - reach, np.cumsum(line) - 0.5 * line)


def pixels(angle_deg, rng, length=40.0, room=ROOM):
    """Distances and places along of the pixels around an edge that lies anywhere on the grid."""
    a, reach = np.radians(angle_deg), int(length + room) + 2
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1] + rng.uniform(-0.5, 0.5, 2)[:, None, None]
    d, s = u * np.cos(a) + v * np.sin(a), v * np.cos(a) - u * np.sin(a)
    near = (np.abs(d) < room) & (np.abs(s) < length / 2)
    return d[near], s[near]


@pytest.mark.parametrize("angle_deg", [3.0, 15.0, 33.0, 63.0, 86.0])
@pytest.mark.parametrize(
    ("sigma", "disc"), [(0.5, 0), (0.7, 0), (1.0, 0), (2.0, 0), (3.0, 0), (0.5, 2), (0.6, 5), (0.6, 12)]
)
def test_mtf50_is_that_of_the_blur(sigma, disc, angle_deg):
    rng = np.random.default_rng(5)
    mtf = blur_mtf(angle_deg, sigma, disc)
    d, s = pixels(angle_deg, rng, length=60, room=30)
    # the light falls off over the place, and the edge is not quite where it is said to be
    grey = (100 + 800 * spread(mtf)(d - 0.3 - 0.01 * s)) * (1 + 0.002 * s - 0.001 * d)
    found = edge_mtf(d, s, grey, 30)
    assert isinstance(found, EdgeMtf)
    assert found.mtf50 == pytest.approx(true_mtf50(mtf), rel=0.01)
    # the uneven light weighs the two halves of a wide blur differently
    assert found.offset_px == pytest.approx(0.3, abs=0.01 + 0.003 * disc)
    assert np.tan(found.turn_rad) == pytest.approx(0.01, abs=1e-3)
    low = true_mtf50(mtf) > FREQUENCIES
    assert np.max(np.abs(found.mtf - mtf(FREQUENCIES))[low]) < 0.015


@pytest.mark.parametrize("angle_deg", [5.0, 30.0, 70.0])
@pytest.mark.parametrize(("share", "wide", "off"), [(0.3, 1.5, 0.002), (0.2, 2.0, 0.005), (0.1, 3.0, 0.014)])
def test_a_halo_is_seen(share, wide, off, angle_deg):
    """A sharp core with a wide halo is far from the step that is fitted: the profile tells the rest."""
    core, halo = blur_mtf(angle_deg, 0.6), blur_mtf(angle_deg, wide)

    def mtf(f):
        return (1 - share) * core(f) + share * halo(f)

    d, s = pixels(angle_deg, np.random.default_rng(3), length=60, room=30)
    found = edge_mtf(d, s, 100 + 800 * spread(mtf)(d - 0.2), 30)
    assert found.mtf50 == pytest.approx(true_mtf50(mtf), rel=off)
    low = FREQUENCIES < 0.5
    assert np.max(np.abs(found.mtf - mtf(FREQUENCIES))[low]) < off


@pytest.mark.parametrize(("sigma", "disc"), [(0.7, 0), (2.0, 0), (0.6, 8)])
def test_the_scatter_of_mtf50_is_its_sigma(sigma, disc):
    rng = np.random.default_rng(3)
    mtf = blur_mtf(13, sigma, disc)
    profile, off, sigmas = spread(mtf), [], []
    for _ in range(120):
        d, s = pixels(13, rng)
        clean = 100 + 800 * profile(d - rng.uniform(-0.5, 0.5))
        found = edge_mtf(d, s, clean + rng.normal(size=d.size) * 0.5 * np.sqrt(clean), ROOM)
        off.append(found.mtf50 - true_mtf50(mtf))
        sigmas.append(found.sigma)
    # the scatter of 120 numbers is known to 1 / sqrt(240) of itself; below 0.6 % the method's own bias
    rms = np.sqrt(np.mean(np.square(sigmas)))
    assert abs(np.std(off) / rms - 1) < 3.5 / np.sqrt(240)
    assert abs(np.mean(off)) < 4 * rms / np.sqrt(120) + 0.006 * true_mtf50(mtf)


@pytest.mark.parametrize("angle_deg", [0, 0.5, 26.565, 45, 89.7, 90])
def test_an_edge_along_the_pixels_is_refused(angle_deg):
    d, s = pixels(angle_deg, np.random.default_rng(1), length=30)
    found = edge_mtf(d, s, 100 + 800 * spread(blur_mtf(angle_deg, 0.7))(d), ROOM)
    assert isinstance(found, NoEdge)
    assert "do not sample it evenly" in found.reason


def test_what_cannot_be_measured_is_refused_with_the_reason():
    rng = np.random.default_rng(1)
    d, s = pixels(10, rng)
    clean = 100 + 800 * spread(blur_mtf(10, 0.7))(d)
    clipped = np.where(clean > 890, np.nan, clean)
    assert edge_mtf(d, s, clipped, ROOM) == NoEdge("clipped or missing pixels")
    assert edge_mtf(d, s, 500 + rng.normal(size=d.size) * 300, ROOM).reason
    assert edge_mtf(d, s, np.zeros_like(d), ROOM) == NoEdge("no contrast")
    wide = 100 + 800 * spread(blur_mtf(10, 12.0))(d)
    assert "blurred" in edge_mtf(d, s, wide, ROOM).reason
    short = np.abs(s) < 4
    assert "short" in edge_mtf(d[short], s[short], clean[short], ROOM).reason
    # a few defects are left out
    holes = clean.copy()
    holes[rng.choice(d.size, d.size // 200, replace=False)] = np.nan
    assert edge_mtf(d, s, holes, ROOM).mtf50 == pytest.approx(true_mtf50(blur_mtf(10, 0.7)), rel=0.01)
