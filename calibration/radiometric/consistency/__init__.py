"""What the frames of an exposure stack say of each other: exposures, residuals, shifts, motion, noise."""

from calibration.radiometric.consistency.exposures import Exposures, find_exposures
from calibration.radiometric.consistency.linearity import Bend, find_bend
from calibration.radiometric.consistency.motion import Motion, find_motion, reference_of
from calibration.radiometric.consistency.noise import StackNoise, noise_of_stack, one_half, with_noise
from calibration.radiometric.consistency.residuals import Residuals, residuals_of
from calibration.radiometric.consistency.sampling import Sample, counted_by, sample_stack
from calibration.radiometric.consistency.shifts import Shifts, find_shifts

__all__ = [
    "Bend",
    "Exposures",
    "Motion",
    "Residuals",
    "Sample",
    "Shifts",
    "StackNoise",
    "counted_by",
    "find_bend",
    "find_exposures",
    "find_motion",
    "find_shifts",
    "noise_of_stack",
    "one_half",
    "reference_of",
    "residuals_of",
    "sample_stack",
    "with_noise",
]
