"""Exposure stacks to one linear radiance of least variance."""

from calibration.radiometric.merge.packed import Packed
from calibration.radiometric.merge.reference import merge_reference
from calibration.radiometric.merge.stack import merge, merge_value

__all__ = ["Packed", "merge", "merge_reference", "merge_value"]
