"""Pictures with the lens distortion taken out, and turned, as rectification wants them."""

from calibration.lens.undistortion.undistorter import Undistorted, Undistorter, undistort_image, undistorter
from calibration.lens.undistortion.view import ViewChoice, pinhole_view

__all__ = ["Undistorted", "Undistorter", "ViewChoice", "pinhole_view", "undistort_image", "undistorter"]
