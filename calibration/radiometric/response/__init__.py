"""The response of a camera from an exposure stack of any static scene."""

from calibration.radiometric.response.debevec import fit_debevec
from calibration.radiometric.response.fit import fit_response

__all__ = ["fit_debevec", "fit_response"]
