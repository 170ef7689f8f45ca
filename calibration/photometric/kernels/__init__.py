"""Compiled photometric stereo: imported only where it is run, as the import alone takes half a second."""

from calibration.photometric.kernels.lights import ERRORS, IRRADIANCE_SPREAD, PLACE_SPREAD
from calibration.photometric.kernels.mixture import BANK_ERROR, TOLD, mix_pixels
from calibration.photometric.kernels.samples import AXIS, COLUMNS, INTENSITY, NEAR, ORDER, PLACE
from calibration.photometric.kernels.solver import BIWEIGHT, MODEL_ERROR, solve_pixels

__all__ = [
    "AXIS",
    "BANK_ERROR",
    "BIWEIGHT",
    "COLUMNS",
    "ERRORS",
    "INTENSITY",
    "IRRADIANCE_SPREAD",
    "MODEL_ERROR",
    "NEAR",
    "ORDER",
    "PLACE",
    "PLACE_SPREAD",
    "TOLD",
    "mix_pixels",
    "solve_pixels",
]
