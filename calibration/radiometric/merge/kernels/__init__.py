"""Compiled loops of the merge; imported only where they are run. `reference` says the same in plain numpy."""

from calibration.radiometric.merge.kernels.linear import TILE, merge_linear
from calibration.radiometric.merge.kernels.maps import CELL
from calibration.radiometric.merge.kernels.packing import unpack
from calibration.radiometric.merge.kernels.samples import merge_samples

__all__ = ["CELL", "TILE", "merge_linear", "merge_samples", "unpack"]
