"""Depths known at some places of the picture, from a table, and whether the surface bears them out."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.files.tables import csv_rows, number, read_text
from calibration.geometry import Float
from rigs.config import ConfigError

_COLUMNS = ("x", "y", "depth_mm")

_MOST_SIGMAS = 4.0
"""Of an anchor from the surface that it pulls."""
_OFF, _ROUGHLY_OFF = 0.015, 0.5
"""Of the anchors' distance, relative: from the one that near lights tell (gloss deceives by 1 %), and from
one that was given roughly."""


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
    ConfigError
        No file, or it holds no such table; the message names the line.
    """
    try:
        return _read(path, shape, mask)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(str(error)) from None


def _read(path: Path, shape: tuple[int, int], mask: NDArray[np.bool_] | None) -> Float:
    rows = csv_rows(read_text(path, "no such file"))
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


def contradicted(
    known: NDArray[np.floating],
    held: NDArray[np.floating],
    free: NDArray[np.floating],
    sigma_mm: float,
    scale_sigma: float,
) -> tuple[str, ...]:
    """A warning for each way in which anchors and surface contradict each other.

    Parameters
    ----------
    known : ndarray (h, w)
        Depth of the anchors, mm; NaN elsewhere.
    held, free : ndarray (h, w)
        Depth of the surface with and without the anchors, mm; NaN where there is none.
    sigma_mm : float
        One sigma of an anchor.
    scale_sigma : float
        One sigma of the distance of ``free``, relative; NaN where it was given and not measured.
    """
    rows, columns = np.nonzero(np.isfinite(known))
    anchor, surface, alone = (depth[rows, columns] for depth in (known, held, free))
    warnings = []
    bare = np.flatnonzero(~np.isfinite(surface))
    if bare.size:
        x, y = columns[bare[0]], rows[bare[0]]
        warnings.append(
            f"{bare.size} of {len(anchor)} anchors hold nothing, as at ({x}, {y}): no depth was found there"
        )
    off = np.abs(np.nan_to_num(surface - anchor))
    far = np.flatnonzero(off > _MOST_SIGMAS * sigma_mm)
    if far.size:
        worst = far[off[far].argmax()]
        warnings.append(
            f"{far.size} of {len(anchor)} anchors are off the surface that they hold, that at "
            f"({columns[worst]}, {rows[worst]}) by {off[worst]:.3g} mm: are places and depths right, or is "
            f"their sigma more than {sigma_mm:g} mm?"
        )
    if np.isfinite(alone).any():
        middle, factor = np.nanmedian(anchor), np.nanmedian(anchor / alone)
        measured = np.isfinite(scale_sigma)
        most = max(5 * scale_sigma, _OFF) if measured else _ROUGHLY_OFF
        if abs(np.log(factor)) > np.log1p(most):
            there = f"{middle / factor:.4g} mm"
            said = f"the lights tell {there}" if measured else f"{there} was given"
            warnings.append(
                f"the anchors put the object at {middle:.4g} mm, where {said}: are both in mm, along the "
                "camera's axis?"
            )
    return tuple(warnings)
