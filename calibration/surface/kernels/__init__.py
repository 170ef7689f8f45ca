"""Compiled integration: imported only where it is run, as the import alone takes half a second."""

from calibration.surface.kernels.edges import face, one_sided, predict, redescending
from calibration.surface.kernels.multigrid import NARROW, WIDE, Kernels

__all__ = ["NARROW", "WIDE", "Kernels", "face", "one_sided", "predict", "redescending"]
