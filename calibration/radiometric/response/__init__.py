"""The response of a camera that is not linear, from exposure stacks."""

from calibration.radiometric.response.debevec import fit_response

__all__ = ["fit_response"]
