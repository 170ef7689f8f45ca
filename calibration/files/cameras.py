"""Lenses in the camera files of OpenCV and ROS, whose axes, pixels and parameters are ours."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import ValidationError

from calibration.files.models import one_line, read_bytes, write_bytes
from calibration.geometry import Float
from calibration.lens import BrownConrady, LensModel
from calibration.provenance import Provenance, Quality

_MATRIX = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "CameraMatrix", "intrinsic_matrix", "K")
_DISTORTION = (
    "distortion_coefficients", "Distortion_Coefficients", "distCoeffs", "dist_coeffs",
    "distortion_coeffs", "D",
)  # fmt: skip
_WIDTH = ("image_width", "image_Width", "imageWidth", "width")
_HEIGHT = ("image_height", "image_Height", "imageHeight", "height")


def read_opencv_camera(path: Path, *, size: tuple[int, int] | None = None) -> LensModel:
    """Lens from a camera file of OpenCV (YAML, XML or JSON) or ROS (``camera_info`` YAML).

    The same axes, pixel convention and parameters as ours, so nothing is converted.

    Parameters
    ----------
    path : Path
        With a camera matrix and 4, 5 or more distortion coefficients, of which those after the fifth are 0.
    size : (width, height), optional
        For files that do not name the image size.

    Returns
    -------
    LensModel
        Without covariance; the file's reprojection error, if any, as residual (per coordinate).

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names the entry that is missing or cannot be represented.
    """
    path = Path(path)
    try:
        text = read_bytes(path, "no such camera file").decode()
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        names = set(storage.root().keys())
    except (cv2.error, SystemError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no camera file ({one_line(error.__cause__ or error)[:200]})") from None

    def find(candidates: Sequence[str]) -> Any:
        name = next((name for name in candidates if name in names), None)
        return None if name is None else storage.getNode(name)

    matrix, coefficients = _numbers(find(_MATRIX)), _numbers(find(_DISTORTION))
    if matrix is None or matrix.size != 9:
        raise ValueError(
            f"{path}: camera_matrix: want a 3 x 3 matrix (also looked for {', '.join(_MATRIX[1:])})"
        )
    matrix = matrix.reshape(3, 3)
    if abs(matrix[0, 1]) > 1e-6 * abs(matrix[0, 0]) or not np.array_equal(
        matrix[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]
    ):
        raise ValueError(f"{path}: camera_matrix: skew or a scale cannot be represented")
    model = find(("distortion_model",))
    if model is not None and model.isString() and model.string() not in ("plumb_bob", "rational_polynomial"):
        raise ValueError(f"{path}: distortion_model: {model.string()} cannot be represented, only plumb_bob")
    coefficients = np.zeros(5) if coefficients is None else coefficients.ravel()
    if len(coefficients) not in (0, 4, 5, 8, 12, 14) or np.any(coefficients[5:] != 0):
        raise ValueError(
            f"{path}: distortion_coefficients: {len(coefficients)} values; only k1, k2, p1, p2, k3 "
            "can be represented"
        )
    k1, k2, p1, p2, k3 = (float(c) for c in np.append(coefficients, np.zeros(5))[:5])
    if size is None:
        sides = [find(_WIDTH), find(_HEIGHT)]
        if None in sides:
            raise ValueError(f"{path}: image_width, image_height: missing; add them")
        size = int(sides[0].real()), int(sides[1].real())
    rms = find(("avg_reprojection_error", "Avg_Reprojection_Error", "reprojection_error", "rms"))
    quality = None
    if rms is not None:
        quality = Quality(residual_rms=rms.real() / math.sqrt(2), unit="px", observations=0)
    try:
        return BrownConrady(
            width=size[0], height=size[1], fx=matrix[0, 0], fy=matrix[1, 1], cx=matrix[0, 2], cy=matrix[1, 2],
            k1=k1, k2=k2, p1=p1, p2=p2, k3=k3,
            quality=quality, provenance=Provenance(note=f"read from {path.name}"),
        )  # fmt: skip
    except ValidationError as fault:
        first = fault.errors()[0]
        raise ValueError(f"{path}: {first['loc'][0]}: {one_line(first['msg'])}") from None


def _numbers(node: Any) -> Float | None:
    """Numbers of a matrix or a (nested) list, flat."""
    if node is not None and node.isMap():
        node = node.getNode("data")
    if node is None or not node.isSeq():
        return None
    entries = [node.at(i) for i in range(node.size())]
    return np.array([x for e in entries for x in (_numbers(e) if e.isSeq() else [e.real()])], np.float64)  # type: ignore[union-attr]


def write_opencv_camera(path: Path, lens: BrownConrady) -> None:
    """Write a lens as OpenCV's camera YAML (image size, camera_matrix, five distortion_coefficients)."""
    storage = cv2.FileStorage(".yml", cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    storage.write("image_width", lens.width)
    storage.write("image_height", lens.height)
    storage.write("camera_matrix", np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]]))
    storage.write("distortion_coefficients", np.array([[lens.k1, lens.k2, lens.p1, lens.p2, lens.k3]]))
    if lens.quality is not None:
        storage.write("avg_reprojection_error", lens.quality.residual_rms * math.sqrt(2))
    write_bytes(path, storage.releaseAndGetString().encode())
