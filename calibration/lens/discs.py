"""Where the centroid of a disc's image lies beside the image of its centre."""

import numpy as np

from calibration.geometry import Float
from calibration.lens.unknowns import Corners, State, placed

_RINGS, _SPOKES = 3, 8


def disc_bias(state: State, corners: Corners) -> Float:
    """Centroid minus image of the centre, px (n, 2), by quadrature over the disc.

    A point of the disc counts as the area of the image it fills. Exact for polynomials of degree five.
    """
    # Rings of equal weight in the square of the radius; spokes against its angle.
    nodes, ring_weight = np.polynomial.legendre.leggauss(_RINGS)
    radius = corners.disc_mm * np.sqrt((1 + nodes) / 2)
    angle = 2 * np.pi * np.arange(_SPOKES) / _SPOKES
    total, area = np.zeros((len(corners.points), 2)), np.zeros((len(corners.points), 1))
    centre = _imaged(state, corners, np.zeros(3))[0]
    for r, weight in zip(radius, ring_weight, strict=True):
        for phi in angle:
            pixels, grown = _imaged(state, corners, np.array([r * np.cos(phi), r * np.sin(phi), 0.0]))
            total += weight * grown * (pixels - centre)
            area += weight * grown
    bias = total / area
    return np.where(np.isfinite(bias), bias, 0.0)


def _imaged(state: State, corners: Corners, offset: Float) -> tuple[Float, Float]:
    """Image of the points moved by an offset in the board's plane, and px^2 per mm^2 there."""
    _, seen = placed(state, corners, corners.points + offset)
    plane = (state.camera_rotations[corners.camera] @ state.rotations[corners.view])[:, :, :2]
    pixels, grown = np.full((len(seen), 2), np.nan), np.full((len(seen), 1), np.nan)
    for k, lens in enumerate(state.lenses):
        mine = corners.camera == k
        derivatives = lens.derivatives(seen[mine])
        pixels[mine] = derivatives.pixels
        grown[mine, 0] = np.abs(np.linalg.det(derivatives.by_points @ plane[mine]))
    return pixels, grown
