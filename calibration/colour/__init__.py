"""Camera colours to linear Rec.709: white balance, matrix or root polynomial, colour difference."""

from calibration.colour.difference import delta_e_2000
from calibration.colour.fit import fit_colour
from calibration.colour.model import ColourModel
from calibration.colour.reference import CLASSIC_2005, CLASSIC_2014, Reference

__all__ = ["CLASSIC_2005", "CLASSIC_2014", "ColourModel", "Reference", "delta_e_2000", "fit_colour"]
