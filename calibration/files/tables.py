"""Small tables in text files: CSV rows with their places, numbers that are numbers."""

import csv
import math
import re
from pathlib import Path

from calibration.files.models import read_bytes


def read_text(path: Path, otherwise: str) -> str:
    """Text of a UTF-8 file, with or without a byte-order mark.

    Raises
    ------
    FileNotFoundError
        None there; the message is the path and ``otherwise``.
    ValueError
        Not UTF-8.
    """
    try:
        return read_bytes(path, otherwise).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no text file in UTF-8") from None


_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


def csv_rows(text: str) -> list[tuple[int, list[str]]]:
    """Number of each line, counted from 1, and its stripped cells; blank lines and those after # left out.

    Cells are parted by commas, semicolons or tabs, whichever the first line has most of; but with commas, a
    decimal comma becomes a point.
    """
    numbered = enumerate(text.splitlines(), 1)
    lines = [(row, line) for row, line in numbered if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return []
    separator = max(",;\t", key=lines[0][1].count)

    def cells(line: str) -> list[str]:
        found = [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
        return found if separator == "," else [_with_point(cell) for cell in found]

    return [(row, cells(line)) for row, line in lines]


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell


def number(word: str, where: str) -> float:
    """Finite number in a cell; ValueError that begins with ``where``."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = ": write a decimal point" if _DECIMAL_COMMA.fullmatch(word) else ""
        raise ValueError(f"{where}: {word!r} is no number{hint}")
    return value
