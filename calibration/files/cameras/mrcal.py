"""mrcal's ``.cameramodel``: a Python literal of one camera. Axes and pixels are ours; lengths are metres.

``extrinsics`` is rt_cam_ref: the rotation vector (rad) and the translation that take points of the reference
frame to the camera's. mrcal itself knows no unit; its boards are measured in metres.
"""

import ast
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from calibration.cameras import RigCamera
from calibration.files.cameras.intrinsics import (
    brown_conrady,
    checked,
    coefficients,
    numbers,
    read_text,
    refuse,
)
from calibration.files.models import write_bytes
from calibration.geometry import Float
from calibration.lens import BrownConrady, LensModel, SplinedLens
from calibration.provenance import Provenance

_MM = 1000.0
_BROWN = {"PINHOLE": 0, "OPENCV4": 4, "OPENCV5": 5, "OPENCV8": 8, "OPENCV12": 12}
_SPLINED = re.compile(r"SPLINED_STEREOGRAPHIC_order=3_Nx=(\d+)_Ny=(\d+)_fov_x_deg=(\d+)")
_MOST_WIDE_DEG = 360


def read_mrcal(path: Path) -> RigCamera:
    """Camera of a ``.cameramodel``: its lens, and its pose in the file's reference frame.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names the entry that is missing or cannot be represented: CAHVOR, CAHVORE,
        STEREOGRAPHIC, LONLAT, LATLON; splines of order 2.
    """
    path = Path(path)
    try:
        content = ast.literal_eval(read_text(path))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{path}: no camera model of mrcal: not a Python literal") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: no camera model of mrcal: want a table of named entries")

    def need(*keys: str) -> tuple[str, Any]:
        for key in keys:
            if key in content:
                return key, content[key]
        raise ValueError(f"{path}: {keys[0]}: missing")

    # Files of early versions say lens_model.
    key, name = need("lensmodel", "lens_model")
    model = str(name).removeprefix("LENSMODEL_")
    size = [int(side) for side in numbers(path, *need("imagersize"), (2,))]
    spline = _SPLINED.fullmatch(model)
    if spline is not None:
        columns, rows, fov = map(int, spline.groups())
        values = numbers(path, *need("intrinsics"), (4 + 2 * columns * rows,))
        lens: LensModel = _splined(path, size, values, rows, columns, fov)
    elif model in _BROWN:
        values = numbers(path, *need("intrinsics"), (4 + _BROWN[model],))
        lens = brown_conrady(path, "intrinsics", size, values[:4].tolist(), values[4:].tolist())
    else:
        listed = ", ".join(_BROWN)
        raise ValueError(f"{path}: {key}: {name} cannot be represented, only {listed} and splines of order 3")
    pose = numbers(path, *need("extrinsics"), (6,)) if "extrinsics" in content else np.zeros(6)
    rx, ry, rz, x, y, z = pose.tolist()
    return checked(
        path, lambda: RigCamera(lens=lens, rotvec_rad=(rx, ry, rz), t_mm=(_MM * x, _MM * y, _MM * z))
    )


def _spacing(columns: int, fov_deg: int) -> float:
    """Of the knots: half a cell outside the field of view on each side is the knots' outermost row."""
    return 4 * math.tan(math.radians(fov_deg) / 4) / (columns - 3)


def _splined(path: Path, size: list[int], values: Float, rows: int, columns: int, fov: int) -> SplinedLens:
    if min(rows, columns) < 4 or not 0 < fov < _MOST_WIDE_DEG:
        raise ValueError(
            f"{path}: lensmodel: want 4 x 4 knots or more, and a field of view below 360 degrees"
        )
    spacing = _spacing(columns, fov)
    fx, fy, cx, cy = values[:4].tolist()
    return checked(
        path,
        lambda: SplinedLens(
            width=size[0], height=size[1], fx=fx, fy=fy, cx=cx, cy=cy,
            knots=values[4:].reshape(rows, columns, 2), spacing=spacing,
            corner=(-spacing * (columns - 1) / 2, -spacing * (rows - 1) / 2),
            provenance=Provenance(note=f"read from {path.name}"),
        ),
    )  # fmt: skip


def write_mrcal(path: Path, camera: RigCamera) -> None:
    """Write a camera as ``.cameramodel``: PINHOLE, OPENCV4, OPENCV5, OPENCV8, or the spline of order 3.

    Raises
    ------
    ValueError
        A fisheye, which mrcal has not; a spline whose knots are not where mrcal puts them: around the axis,
        spaced by a whole number of degrees.
    """
    lens = camera.lens
    if isinstance(lens, BrownConrady):
        more = coefficients(lens, (0, 4, 5, 8), "mrcal")
        model = {0: "PINHOLE", 4: "OPENCV4", 5: "OPENCV5", 8: "OPENCV8"}[len(more)]
    elif isinstance(lens, SplinedLens):
        model, more = _spline_name(lens), lens.knots.ravel().tolist()
    else:
        raise refuse(lens, "mrcal")
    values = [lens.fx, lens.fy, lens.cx, lens.cy, *more]
    pose = [*camera.rotvec_rad, *(value / _MM for value in camera.t_mm)]
    text = (
        "{\n"
        f"    'lensmodel':  'LENSMODEL_{model}',\n\n"
        "    # intrinsics are fx,fy,cx,cy,distortion0,distortion1,....\n"
        f"    'intrinsics': {values!r},\n\n"
        "    # extrinsics are rt_fromref\n"
        f"    'extrinsics': {pose!r},\n\n"
        f"    'imagersize': [ {lens.width}, {lens.height} ],\n"
        "}\n"
    )
    write_bytes(path, text.encode())


def _spline_name(lens: SplinedLens) -> str:
    rows, columns = lens.knots.shape[:2]
    fov = round(math.degrees(4 * math.atan(lens.spacing * (columns - 3) / 4)))
    corner = (-lens.spacing * (columns - 1) / 2, -lens.spacing * (rows - 1) / 2)
    there = 0 < fov < _MOST_WIDE_DEG and math.isclose(_spacing(columns, fov), lens.spacing, rel_tol=1e-9)
    if not there or not np.allclose(corner, lens.corner, atol=1e-9 * lens.spacing):
        raise ValueError(
            "mrcal's splines have their knots around the axis, over a whole number of degrees: not this lens"
        )
    return f"SPLINED_STEREOGRAPHIC_order=3_Nx={columns}_Ny={rows}_fov_x_deg={fov}"
