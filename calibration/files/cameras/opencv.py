"""OpenCV's camera files: YAML, XML or JSON of ``cv::FileStorage``. Axes, pixels, coefficients are ours."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calibration.files.cameras.intrinsics import (
    brown_conrady,
    camera_matrix,
    coefficients,
    kannala_brandt,
    refuse,
)
from calibration.files.models import one_line, read_bytes, write_bytes
from calibration.geometry import Float
from calibration.lens import BrownConrady, KannalaBrandt, LensModel
from calibration.provenance import Quality

_MATRIX = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "CameraMatrix", "intrinsic_matrix", "K")
_DISTORTION = (
    "distortion_coefficients", "Distortion_Coefficients", "distCoeffs", "dist_coeffs",
    "distortion_coeffs", "D",
)  # fmt: skip
_WIDTH = ("image_width", "image_Width", "imageWidth", "width")
_HEIGHT = ("image_height", "image_Height", "imageHeight", "height")
_BROWN = ("plumb_bob", "rational_polynomial")
_FISHEYE = ("equidistant", "fisheye")


def read_opencv_camera(path: Path, *, size: tuple[int, int] | None = None) -> LensModel:
    """Lens from a camera file of OpenCV (YAML, XML or JSON).

    Fisheye where ``fisheye_model`` is 1, as OpenCV's calibration program writes it, or ``distortion_model``
    says so. Coefficients after the eighth must be 0.

    Parameters
    ----------
    path : Path
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

    matrix, distortion = _numbers(find(_MATRIX)), _numbers(find(_DISTORTION))
    if matrix is None or matrix.size != 9:
        raise ValueError(
            f"{path}: camera_matrix: want a 3 x 3 matrix (also looked for {', '.join(_MATRIX[1:])})"
        )
    core = camera_matrix(path, "camera_matrix", matrix.reshape(3, 3))
    node = find(("distortion_model",))
    model = node.string() if node is not None and node.isString() else _BROWN[0]
    if model not in _BROWN + _FISHEYE:
        raise ValueError(
            f"{path}: distortion_model: {model} cannot be represented, only {', '.join(_BROWN + _FISHEYE)}"
        )
    flag = find(("fisheye_model",))
    fisheye = model in _FISHEYE or (flag is not None and flag.real() != 0)
    if size is None:
        sides = [find(_WIDTH), find(_HEIGHT)]
        if None in sides:
            raise ValueError(f"{path}: image_width, image_height: missing; add them")
        size = int(sides[0].real()), int(sides[1].real())
    make = kannala_brandt if fisheye else brown_conrady
    distortion = np.zeros(0) if distortion is None else distortion.ravel()
    lens = make(path, "distortion_coefficients", size, core, distortion.tolist())
    rms = find(("avg_reprojection_error", "Avg_Reprojection_Error", "reprojection_error", "rms"))
    if rms is None:
        return lens
    return lens.replace(quality=Quality(residual_rms=rms.real() / math.sqrt(2), unit="px", observations=0))


def _numbers(node: Any) -> Float | None:
    """Numbers of a matrix or a (nested) list, flat."""
    if node is not None and node.isMap():
        node = node.getNode("data")
    if node is None or not node.isSeq():
        return None
    entries = [node.at(i) for i in range(node.size())]
    return np.array([x for e in entries for x in (_numbers(e) if e.isSeq() else [e.real()])], np.float64)  # type: ignore[union-attr]


def write_opencv_camera(path: Path, lens: LensModel) -> None:
    """Write a lens as OpenCV's camera YAML: image size, fisheye_model, camera_matrix, coefficients.

    Raises
    ------
    ValueError
        Neither Brown-Conrady (5 or 8 coefficients) nor fisheye (4).
    """
    storage = cv2.FileStorage(".yml", cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    if isinstance(lens, KannalaBrandt):
        distortion = lens.parameters[4:].tolist()
    elif isinstance(lens, BrownConrady):
        distortion = coefficients(lens, (5, 8), "OpenCV")
    else:
        raise refuse(lens, "OpenCV")
    storage.write("image_width", lens.width)
    storage.write("image_height", lens.height)
    storage.write("fisheye_model", int(isinstance(lens, KannalaBrandt)))
    storage.write("camera_matrix", np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]]))
    storage.write("distortion_coefficients", np.array([distortion]))
    if lens.quality is not None:
        storage.write("avg_reprojection_error", lens.quality.residual_rms * math.sqrt(2))
    write_bytes(path, storage.releaseAndGetString().encode())
