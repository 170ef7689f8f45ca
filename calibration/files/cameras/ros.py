"""ROS ``camera_info``: the calibration file of camera_info_manager, or a printed message. Axes are ours."""

from pathlib import Path
from typing import Any

import yaml

from calibration.files.cameras.intrinsics import (
    brown_conrady,
    camera_matrix,
    coefficients,
    kannala_brandt,
    numbers,
    read_yaml,
    refuse,
)
from calibration.files.models import write_bytes
from calibration.lens import BrownConrady, KannalaBrandt, LensModel

_MODELS = {"": brown_conrady, "plumb_bob": brown_conrady, "rational_polynomial": brown_conrady,
           "equidistant": kannala_brandt, "fisheye": kannala_brandt}  # fmt: skip


def read_ros_camera(path: Path) -> LensModel:
    """Lens from a ROS camera_info YAML, of a file (``camera_matrix``) or a message (``K`` or ``k``).

    The lens of the camera's own picture: the rectified view, R and P, is left out.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names the entry that is missing or cannot be represented; binned pixels, or a part of
        the picture.
    """
    path = Path(path)
    info = read_yaml(path)

    def entry(*names: str) -> tuple[str, Any]:
        for name in names:
            if name in info:
                value = info[name]
                return name, value["data"] if isinstance(value, dict) and "data" in value else value
        raise ValueError(f"{path}: {names[0]}: missing")

    size = [int(numbers(path, *entry(f"image_{side}", side), (1,))[0]) for side in ("width", "height")]
    for key in ("binning_x", "binning_y"):
        if numbers(path, key, info.get(key) or 0)[0] > 1:
            raise ValueError(f"{path}: {key}: binned pixels: want the camera_info of the full picture")
    region = info.get("roi") or {}
    if isinstance(region, dict) and any(region.get(key) for key in ("x_offset", "y_offset")):
        raise ValueError(f"{path}: roi: a part of the picture: want the camera_info of the full picture")
    name, matrix = entry("camera_matrix", "K", "k")
    core = camera_matrix(path, name, numbers(path, name, matrix, (3, 3)))
    model = str(info.get("distortion_model") or "")
    if model not in _MODELS:
        listed = ", ".join(known for known in _MODELS if known)
        raise ValueError(f"{path}: distortion_model: {model} cannot be represented, only {listed}")
    name, distortion = entry("distortion_coefficients", "D", "d")
    return _MODELS[model](path, name, size, core, numbers(path, name, distortion).tolist())


def write_ros_camera(path: Path, lens: LensModel, name: str = "camera") -> None:
    """Write a lens as camera_info_manager's YAML: plumb_bob, rational_polynomial or equidistant.

    The rectified view (R, P) is the camera's own: identity and its camera matrix.

    Raises
    ------
    ValueError
        A model that ROS has not.
    """
    if isinstance(lens, KannalaBrandt):
        model, distortion = "equidistant", lens.parameters[4:].tolist()
    elif isinstance(lens, BrownConrady):
        distortion = coefficients(lens, (5, 8), "ROS")
        model = "plumb_bob" if len(distortion) == 5 else "rational_polynomial"
    else:
        raise refuse(lens, "ROS")
    matrix = [lens.fx, 0.0, lens.cx, 0.0, lens.fy, lens.cy, 0.0, 0.0, 1.0]
    projection = [lens.fx, 0.0, lens.cx, 0.0, 0.0, lens.fy, lens.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    content = {
        "image_width": lens.width,
        "image_height": lens.height,
        "camera_name": name,
        "camera_matrix": {"rows": 3, "cols": 3, "data": matrix},
        "distortion_model": model,
        "distortion_coefficients": {"rows": 1, "cols": len(distortion), "data": distortion},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]},
        "projection_matrix": {"rows": 3, "cols": 4, "data": projection},
    }
    write_bytes(path, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=200).encode())
