"""Exposure stacks to one linear radiance of least variance."""

from calibration.radiometric.merge.stack import merge, merge_reference

__all__ = ["merge", "merge_reference"]
