"""Compiled photometric stereo: imported only where it is run, as the import alone takes half a second."""

from calibration.photometric.kernels.mixture import BANK_ERROR, TOLD, mix_pixels
from calibration.photometric.kernels.samples import AXIS, COLUMNS, INTENSITY, NEAR, ORDER, PLACE
from calibration.photometric.kernels.solver import BIWEIGHT, MODEL_ERROR, solve_pixels

__all__ = [
    "AXIS",
    "BANK_ERROR",
    "BIWEIGHT",
    "COLUMNS",
    "INTENSITY",
    "MODEL_ERROR",
    "NEAR",
    "ORDER",
    "PLACE",
    "TOLD",
    "mix_pixels",
    "solve_pixels",
]
