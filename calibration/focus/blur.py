"""MTF50 of a lens that blurs by a Gaussian, by a disc out of focus, and by its pixels' squares."""

from typing import NamedTuple

import numpy as np
from scipy.special import j1, jv

from calibration.geometry import Float

_LEAST, _MOST = 1e-4, 1.5
_BISECTIONS = 40


class Predicted(NamedTuple):
    """MTF50 (n,) and the derivatives of its logarithm by the variance and by the square of the disc."""

    mtf50: Float
    by_variance: Float
    by_disc2: Float


def predicted_mtf50(variance_px2: Float, disc_px: Float, normals: Float) -> Predicted:
    """Where exp(-2 pi^2 V f^2) 2 J1(pi c f) / (pi c f) sinc(f nx) sinc(f ny) falls to one half.

    Parameters
    ----------
    variance_px2 : ndarray (n,)
        V, of the Gaussian.
    disc_px : ndarray (n,)
        c, the disc's diameter.
    normals : ndarray (n, 2)
        Unit vector across the edge.
    """
    low, high = np.full(len(disc_px), _LEAST), np.full(len(disc_px), _MOST)
    # The first zero of the disc's transform is beyond its fall to one half.
    high = np.minimum(high, 1.2196 / np.maximum(disc_px, 1e-6))
    for _ in range(_BISECTIONS):
        f = 0.5 * (low + high)
        above = _log_mtf(f, variance_px2, disc_px, normals) > -np.log(2)
        low, high = np.where(above, f, low), np.where(above, high, f)
    f = 0.5 * (low + high)
    x = np.pi * disc_px * f
    # d log(2 J1(x) / x) / dx over x; -1/4 at 0.
    fall = -np.where(x > 1e-3, jv(2, x) / np.where(x > 1e-3, x * j1(x), 1), 0.25)
    slope = -4 * np.pi**2 * variance_px2 * f + x * fall * np.pi * disc_px
    for part in (normals[:, 0], normals[:, 1]):
        slope = slope + _sinc_slope(part * f) * part
    by_variance = 2 * np.pi**2 * f * f / slope
    by_disc2 = -0.5 * fall * np.pi**2 * f * f / slope
    return Predicted(f, by_variance / f, by_disc2 / f)


def _log_mtf(f: Float, variance: Float, disc: Float, normals: Float) -> Float:
    x = np.pi * disc * f
    ring = np.where(x > 1e-6, 2 * j1(x) / np.where(x > 1e-6, x, 1), 1.0)
    value = ring * np.sinc(f * normals[:, 0]) * np.sinc(f * normals[:, 1])
    return np.asarray(-2 * np.pi**2 * variance * f * f + np.log(np.maximum(value, 1e-12)))


def _sinc_slope(t: Float) -> Float:
    """Derivative of log(sinc(t))."""
    small = np.abs(t) < 1e-4
    safe = np.where(small, 1.0, t)
    return np.where(small, -(np.pi**2) * t / 3, np.pi / np.tan(np.pi * safe) - 1 / safe)
