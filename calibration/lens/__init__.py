"""Lens: projection with covariance, its fit from board corners, poses, undistortion of images."""

from calibration.lens.fit import Pose, View, fit_lens, fit_pose
from calibration.lens.model import LensModel
from calibration.lens.undistortion import Undistorted, undistort_image

__all__ = ["LensModel", "Pose", "Undistorted", "View", "fit_lens", "fit_pose", "undistort_image"]
