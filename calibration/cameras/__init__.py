"""Several cameras in one metric frame: their poses, found from boards, with covariance."""

from calibration.cameras.fit import fit_cameras
from calibration.cameras.linking import Motion, half_turn
from calibration.cameras.model import CameraSet, Relative, RigCamera

__all__ = [
    "CameraSet",
    "Motion",
    "Relative",
    "RigCamera",
    "fit_cameras",
    "half_turn",
]
