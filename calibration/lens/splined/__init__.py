"""Splined lens: any smooth lens, and its fit with a smoothness prior."""

from calibration.lens.splined.model import SplinedLens

__all__ = ["SplinedLens"]
