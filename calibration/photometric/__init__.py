"""Photometric stereo: normals and albedo with error bars from images under known lights."""

from calibration.photometric.gloss import Gloss
from calibration.photometric.intensities import IntensityFit, estimate_intensities
from calibration.photometric.mask import object_mask
from calibration.photometric.model import NormalMap
from calibration.photometric.multiplexed import Colour, Multiplex, colour_of, fit_multiplex
from calibration.photometric.pairing import Pairing, pair
from calibration.photometric.solver import Method, sight, solve

__all__ = [
    "Colour",
    "Gloss",
    "IntensityFit",
    "Method",
    "Multiplex",
    "NormalMap",
    "Pairing",
    "colour_of",
    "estimate_intensities",
    "fit_multiplex",
    "object_mask",
    "pair",
    "sight",
    "solve",
]
