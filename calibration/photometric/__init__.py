"""Photometric stereo: normals and albedo with error bars from images under known lights."""

from calibration.photometric.gloss import Gloss
from calibration.photometric.intensities import IntensityFit, estimate_intensities
from calibration.photometric.mask import object_mask
from calibration.photometric.model import NormalMap
from calibration.photometric.solver import Method, sight, solve

__all__ = [
    "Gloss",
    "IntensityFit",
    "Method",
    "NormalMap",
    "estimate_intensities",
    "object_mask",
    "sight",
    "solve",
]
