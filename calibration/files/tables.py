"""Small tables in text files: CSV rows with their places, numbers that are numbers."""

import csv
import math
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


def csv_rows(text: str) -> list[tuple[int, list[str]]]:
    """Number of each line, counted from 1, and its stripped cells; blank lines and those after # left out."""
    numbered = enumerate(text.splitlines(), 1)
    lines = [(row, line) for row, line in numbered if line.strip() and not line.lstrip().startswith("#")]
    return [(row, [cell.strip() for cell in next(csv.reader([line]))]) for row, line in lines]


def number(word: str, where: str) -> float:
    """Finite number in a cell; ValueError that begins with ``where``."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {word!r} is no number")
    return value
