"""Reference values of a user's own colour chart, from a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.colour import CLASSIC_2014, Reference
from calibration.colour.spaces import xyz_to_lab
from calibration.files.tables import csv_rows, number, read_text
from calibration.targets.chart import PATCHES

_LAB, _XYZ = ("l", "a", "b"), ("x", "y", "z")


def read_patches(path: Path, illuminant: Sequence[float] = CLASSIC_2014.illuminant) -> Reference:
    """Reference of a ColorChecker from a CSV file.

    A header ``patch,L,a,b`` or ``patch,X,Y,Z``, then one patch a row, in any order: its name (``dark skin``
    ... ``black``) or its number, 1 to 24 row by row. Y is 1 or 100 for a perfect diffuser. Lines that begin
    with # are skipped.

    Parameters
    ----------
    path : Path
    illuminant : (float, float)
        Chromaticity x, y of the white that the values are for; 2-degree observer.

    Returns
    -------
    Reference

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names file, row and column.
    """
    path = Path(path)
    table = csv_rows(read_text(path, "no such table of patches"))
    head = [cell.lower() for cell in table[0][1]] if table else []
    axes = next((axes for axes in (_LAB, _XYZ) if {"patch", *axes} <= set(head)), None)
    if axes is None:
        raise ValueError(f"{path}: want a header patch,L,a,b or patch,X,Y,Z")
    values = np.full((len(PATCHES), 3), np.nan)
    for row, cells in table[1:]:
        where = f"{path}: row {row}"
        if len(cells) != len(head):
            raise ValueError(f"{where}: has {len(cells)} columns, the header {len(head)}")
        entry = dict(zip(head, cells, strict=True))
        patch = _number_of(entry["patch"], where)
        if np.isfinite(values[patch, 0]):
            raise ValueError(f"{where}: patch {entry['patch']} is given twice")
        values[patch] = [number(entry[axis], f"{where}: {axis}") for axis in axes]
    if missing := [name for name, row_ in zip(PATCHES, values, strict=True) if np.isnan(row_[0])]:
        raise ValueError(f"{path}: has no patch {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}")
    if axes == _XYZ:
        scale = 100.0 if values[:, 1].max() > 2 else 1.0
        values = xyz_to_lab(values / scale, illuminant)
    x, y = illuminant
    return Reference(name=f"table {path.name}", lab=values, illuminant=(x, y))


def _number_of(text: str, where: str) -> int:
    name = " ".join(text.lower().split())
    if name in PATCHES:
        return PATCHES.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(PATCHES):
        return int(name) - 1
    raise ValueError(f"{where}: patch {text!r}: want 1 to 24, or a name such as {PATCHES[0]!r}")
