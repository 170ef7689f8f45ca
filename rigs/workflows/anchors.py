"""Depths that are known at some places of the picture, from a table."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.files.tables import csv_rows, number, read_text
from calibration.geometry import Float

_COLUMNS = ("x", "y", "depth_mm")


def read_anchors(path: Path, shape: tuple[int, int], mask: NDArray[np.bool_] | None = None) -> Float:
    """Table with the columns ``x``, ``y`` (px, (0, 0) the centre of the first pixel) and ``depth_mm``.

    Parameters
    ----------
    path : Path
        Separated by commas, semicolons or tabs; the first line names the columns, others are left out.
    shape : (int, int)
        Height and width of the picture.
    mask : ndarray (h, w) of bool, optional
        Where the object is: anchors beside it are refused.

    Returns
    -------
    ndarray (h, w)
        Depth z in mm at the nearest pixel, the mean where several have the same; NaN elsewhere.

    Raises
    ------
    FileNotFoundError, ValueError
        No file, or it holds no such table; the message names the line.
    """
    rows = csv_rows(read_text(path, ""))
    names = [cell.lower() for cell in rows[0][1]] if rows else []
    if any(name not in names for name in _COLUMNS):
        raise ValueError(
            f"{path}: want a table with the columns {', '.join(_COLUMNS)}, named in its first line"
        )
    at = [names.index(name) for name in _COLUMNS]
    total, count = np.zeros(shape), np.zeros(shape)
    for line, cells in rows[1:]:
        where = f"{path}: line {line}"
        if len(cells) != len(names):
            raise ValueError(f"{where}: {len(cells)} cells under {len(names)} columns")
        x, y, z = (number(cells[i], f"{where}: {name}") for i, name in zip(at, _COLUMNS, strict=True))
        if z <= 0:
            raise ValueError(f"{where}: depth_mm is {z:g}: behind the camera")
        column, row = round(x), round(y)
        if not (0 <= row < shape[0] and 0 <= column < shape[1]):
            raise ValueError(f"{where}: ({x:g}, {y:g}) is outside the picture of {shape[1]} x {shape[0]} px")
        if mask is not None and not mask[row, column]:
            raise ValueError(f"{where}: ({x:g}, {y:g}) is beside the object (outside the mask)")
        total[row, column] += z
        count[row, column] += 1
    if not count.any():
        raise ValueError(f"{path}: no depth in it")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
