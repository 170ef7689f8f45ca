"""Colour spaces by their definitions: XYZ, L*a*b*, linear Rec.709, and adaptation between whites.

XYZ is relative: Y = 1 for a perfect diffuser under the light in question. CIE 1931 observer (2 degrees).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibration.geometry import Float

ILLUMINANTS: dict[str, tuple[float, float]] = {
    "A": (0.44757, 0.40745),
    "C": (0.31006, 0.31616),
    "D50": (0.34567, 0.35850),
    "D55": (0.33242, 0.34743),
    "D65": (0.31270, 0.32900),
    "D75": (0.29902, 0.31485),
    "E": (1 / 3, 1 / 3),
}
"""Chromaticities x, y of CIE illuminants (CIE 15; D65 as ITU-R BT.709 and IEC 61966-2-1 round it)."""

REC709_CHROMATICITIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
"""x, y of red, green, blue and white, in the order of OpenEXR's ``chromaticities`` (ITU-R BT.709-6)."""

# Cone-like responses of the Bradford transform: Lam (1985), as the ICC profile specification has it.
_BRADFORD: Float = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_EPSILON, _KAPPA = (6 / 29) ** 3, (29 / 3) ** 3 / 116


def white_xyz(chromaticity: Sequence[float]) -> Float:
    """XYZ (3,) with Y = 1 of a white of chromaticity x, y."""
    x, y = chromaticity
    return np.array([x / y, 1.0, (1 - x - y) / y])


def illuminant(name: str) -> tuple[float, float]:
    """Chromaticity of an illuminant, by its CIE name or as ``x,y``.

    Raises
    ------
    ValueError
        Neither of the two.
    """
    if name.upper() in ILLUMINANTS:
        return ILLUMINANTS[name.upper()]
    try:
        x, y = (float(part) for part in name.split(","))
    except ValueError:
        raise ValueError(f"illuminant {name!r}: want {', '.join(ILLUMINANTS)} or x,y") from None
    if not (0.1 < x < 0.8 and 0.1 < y < 0.9 and x + y < 1):
        raise ValueError(f"illuminant {name!r}: no white has this chromaticity")
    return x, y


def adaptation(source: Sequence[float], target: Sequence[float]) -> Float:
    """Matrix (3, 3) from XYZ under a white x, y to XYZ under another, by the Bradford transform.

    Notes
    -----
    Linear von Kries adaptation in Bradford's cone space (ICC.1:2010, annex E). It predicts appearance; it is
    not what a surface would measure under the other light, which its XYZ alone cannot tell.
    """
    ratio = (_BRADFORD @ white_xyz(target)) / (_BRADFORD @ white_xyz(source))
    return np.asarray(np.linalg.solve(_BRADFORD, ratio[:, None] * _BRADFORD))


def rgb_to_xyz(chromaticities: Sequence[float] = REC709_CHROMATICITIES) -> Float:
    """Matrix (3, 3) from linear RGB to XYZ of a space given by its primaries and white (SMPTE RP 177)."""
    primaries = np.stack([white_xyz(chromaticities[k : k + 2]) for k in (0, 2, 4)], axis=-1)
    return np.asarray(primaries * np.linalg.solve(primaries, white_xyz(chromaticities[6:8])))


def xyz_to_lab(xyz: ArrayLike, white: Sequence[float]) -> Float:
    """L*a*b* (..., 3) of XYZ (..., 3) under a white x, y (CIE 15:2018, 8.2.1)."""
    ratio = np.asarray(xyz, np.float64) / white_xyz(white)
    f = np.where(ratio > _EPSILON, np.cbrt(ratio), _KAPPA * ratio + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_to_xyz(lab: ArrayLike, white: Sequence[float]) -> Float:
    """XYZ (..., 3) of L*a*b* (..., 3) under a white x, y."""
    lightness, a, b = np.moveaxis(np.asarray(lab, np.float64), -1, 0)
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    return np.asarray(np.where(f > 6 / 29, f**3, (f - 4 / 29) / _KAPPA) * white_xyz(white))


def encode_srgb(linear: ArrayLike) -> Float:
    """sRGB values 0..1 of linear Rec.709, clipped, for showing (IEC 61966-2-1)."""
    level = np.clip(np.asarray(linear, np.float64), 0, 1)
    return np.where(level <= 0.0031308, 12.92 * level, 1.055 * level ** (1 / 2.4) - 0.055)
