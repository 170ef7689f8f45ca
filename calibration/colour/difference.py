"""Colour difference CIEDE2000."""

import numpy as np
from numpy.typing import ArrayLike

from calibration.geometry import Float

_25_7 = 25.0**7


def delta_e_2000(reference: ArrayLike, sample: ArrayLike) -> Float:
    """CIEDE2000 difference of colours, parametric factors 1.

    Parameters
    ----------
    reference, sample : array_like (..., 3)
        L*a*b* under the same white.

    Returns
    -------
    ndarray (...)
        About 1 is just visible side by side.

    Notes
    -----
    G. Sharma, W. Wu, E. N. Dalal, "The CIEDE2000 color-difference formula: implementation notes,
    supplementary test data, and mathematical observations", Color Research & Application 30 (2005),
    doi:10.1002/col.20070. Made for differences below about 5; greater ones rank, but do not add up.
    """
    return np.asarray(np.linalg.norm(components(reference, sample), axis=-1))


def components(reference: ArrayLike, sample: ArrayLike) -> Float:
    """Three numbers (..., 3) a pair whose squares add up to the square of its CIEDE2000 difference.

    Smooth where the colours agree, which the difference itself is not: what a least-squares fit wants.
    """
    l1, a1, b1 = np.moveaxis(np.asarray(reference, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(sample, np.float64), -1, 0)
    mean7 = (0.5 * (np.hypot(a1, b1) + np.hypot(a2, b2))) ** 7
    stretch = 1 + 0.5 * (1 - np.sqrt(mean7 / (mean7 + _25_7)))
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    turn = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    # Opposite hues turn both ways, as the paper has it: else the difference would depend on the order.
    turn = np.where(~grey & (np.abs(h2 - h1) == 180), h2 - h1, turn)
    hue = np.where(grey, h1 + h2, 0.5 * (h1 + h2))
    far = ~grey & (np.abs(h1 - h2) > 180)
    hue = np.where(far, np.where(h1 + h2 < 360, hue + 180, hue - 180), hue)
    lightness, chroma = 0.5 * (l1 + l2), 0.5 * (c1 + c2)
    t = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    off = (lightness - 50) ** 2
    dl = (l2 - l1) / (1 + 0.015 * off / np.sqrt(20 + off))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(0.5 * turn)) / (1 + 0.015 * chroma * t)
    chroma7 = chroma**7
    blue = 30 * np.exp(-(((hue - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(chroma7 / (chroma7 + _25_7)) * np.sin(np.radians(2 * blue))
    # dc^2 + dh^2 + R dc dh as a sum of two squares; |R| < 2.
    return np.stack([dl, dc + 0.5 * rotation * dh, np.sqrt(1 - 0.25 * rotation**2) * dh], axis=-1)
