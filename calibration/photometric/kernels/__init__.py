"""Compiled photometric stereo: imported only where it is run, as the import alone takes half a second."""

from calibration.photometric.kernels.samples import AXIS, COLUMNS, INTENSITY, NEAR, ORDER, PLACE
from calibration.photometric.kernels.solver import BIWEIGHT, MODEL_ERROR, solve_pixels

__all__ = [
    "AXIS",
    "BIWEIGHT",
    "COLUMNS",
    "INTENSITY",
    "MODEL_ERROR",
    "NEAR",
    "ORDER",
    "PLACE",
    "solve_pixels",
]
