"""Models and arrays in files; the only place in ``calibration`` that converts axes."""

from calibration.files.cameras import (
    read_colmap,
    read_kalibr,
    read_mrcal,
    read_opencv_camera,
    read_ros_camera,
    write_colmap,
    write_kalibr,
    write_mrcal,
    write_opencv_camera,
    write_ros_camera,
)
from calibration.files.images import (
    Attribute,
    read_exr,
    read_exr_attributes,
    write_exr,
    write_image,
    write_normals_png,
)
from calibration.files.lights import read_lights
from calibration.files.models import load_model, save_model, write_bytes

__all__ = [
    "Attribute",
    "load_model",
    "read_colmap",
    "read_exr",
    "read_exr_attributes",
    "read_kalibr",
    "read_lights",
    "read_mrcal",
    "read_opencv_camera",
    "read_ros_camera",
    "save_model",
    "write_bytes",
    "write_colmap",
    "write_exr",
    "write_image",
    "write_kalibr",
    "write_mrcal",
    "write_normals_png",
    "write_opencv_camera",
    "write_ros_camera",
]
