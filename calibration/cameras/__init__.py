"""Several cameras in one metric frame: their poses, found from boards, with covariance."""

from calibration.cameras.fit import fit_cameras
from calibration.cameras.linking import Motion, half_turn
from calibration.cameras.model import CameraSet, Relative, RigCamera
from calibration.cameras.moving import Change, find_moved
from calibration.cameras.rectification import Rectified, RectifiedPair, rectify

__all__ = [
    "CameraSet",
    "Change",
    "Motion",
    "Rectified",
    "RectifiedPair",
    "Relative",
    "RigCamera",
    "find_moved",
    "fit_cameras",
    "half_turn",
    "rectify",
]
