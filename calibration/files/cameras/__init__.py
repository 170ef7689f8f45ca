"""Cameras in the files of other programs: one format a file, read and written."""

from calibration.files.cameras.colmap import read_colmap, write_colmap
from calibration.files.cameras.kalibr import read_kalibr, write_kalibr
from calibration.files.cameras.mrcal import read_mrcal, write_mrcal
from calibration.files.cameras.opencv import read_opencv_camera, write_opencv_camera
from calibration.files.cameras.ros import read_ros_camera, write_ros_camera

__all__ = [
    "read_colmap",
    "read_kalibr",
    "read_mrcal",
    "read_opencv_camera",
    "read_ros_camera",
    "write_colmap",
    "write_kalibr",
    "write_mrcal",
    "write_opencv_camera",
    "write_ros_camera",
]
