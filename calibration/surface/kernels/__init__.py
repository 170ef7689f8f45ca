"""Compiled integration and shadows: imported only where run, as the import alone takes half a second."""

from calibration.surface.kernels.edges import contradict, face, one_sided, predict, redescending
from calibration.surface.kernels.multigrid import NARROW, WIDE, Kernels
from calibration.surface.kernels.shadows import TILE, below, march, sweep

__all__ = [
    "NARROW",
    "TILE",
    "WIDE",
    "Kernels",
    "below",
    "contradict",
    "face",
    "march",
    "one_sided",
    "predict",
    "redescending",
    "sweep",
]
