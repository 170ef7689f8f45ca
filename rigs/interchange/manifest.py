"""``manifest.csv``: the table that says what each picture of a folder is."""

import csv
import difflib
import io
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import get_args

from pydantic import Field

from capture.plan import Kind, Kinds, PositiveSeconds, Record
from rigs.config import ConfigError
from rigs.interchange.images import SUFFIXES

COLUMNS = ("file", "kind", "camera", "light", "exposure_s", "gain_db", "pose", "repeat", "photons")

_KINDS: tuple[str, ...] = get_args(Kind)
_PROBLEMS_SHOWN = 10


class ManifestError(ConfigError, ValueError):
    """The folder cannot be imported; one line for each problem, naming its row and column."""


class ManifestRow(Record):
    """One picture: where it lies and what it is.

    ``row`` counts as a spreadsheet does: the header is row 1 and blank rows count. ``photons`` is the mean
    number that reached a pixel in the exposure, where it was measured.
    """

    row: int
    file: Path
    kinds: Kinds
    camera: str
    light: str
    exposure_s: PositiveSeconds
    gain_db: float
    pose: str
    repeat: int = Field(ge=0)
    photons: float | None = None


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """Read and check the whole table before any picture is opened.

    Parameters
    ----------
    path : Path
        CSV with a header; separated by comma, semicolon or tab as the header is; UTF-8, with or without a
        byte-order mark. With semicolons or tabs a decimal comma is understood. Columns may stand in any
        order; all but ``file`` and ``kind`` may be absent or blank. Paths are relative to the table's
        folder; absolute paths and ``..`` are followed.

    Returns
    -------
    tuple of ManifestRow
        In the order of the table. A blank camera is ``main``, a blank light means none of the rig's lights,
        a blank exposure is 1 s, a blank gain 0 dB. A blank pose is the kind (``default`` for several), but
        a picture of a board alone is a pose of its own, named after its file. Blank repeats count from 0
        among pictures with equal settings.

    Raises
    ------
    ManifestError
        One line for each problem, the first ten.
    """
    header, table, decimal_comma = _read_cells(path)
    return _rows(path.name, path.parent, _check_header(path.name, *header), table, decimal_comma)


def want_folder(path: Path) -> None:
    """Raise ManifestError where there is no folder."""
    if not path.is_dir():
        raise ManifestError(f"{path}: {'is a file, want a folder' if path.exists() else 'no such folder'}")


def list_pictures(directory: Path, kind: str) -> tuple[ManifestRow, ...]:
    """Rows of a folder without a table: every picture in it is of one kind.

    Parameters
    ----------
    directory : Path
        Pictures that lie in it belong to the camera ``main``; those of a folder in it to the camera of that
        folder's name. Other files are passed over.
    kind : str
        As in the table, such as ``board``: then each picture is a pose, named after its file, which cameras
        of equal file names share.

    Returns
    -------
    tuple of ManifestRow
        By camera, then by name; numbers in a name count as numbers.

    Raises
    ------
    ManifestError
        No such folder, no picture in it, or an unknown kind.
    """
    want_folder(directory)
    try:
        _kinds(kind)
    except _BadCell as error:
        raise ManifestError(f"--kind: {error.reason}") from None
    found = [
        path
        for path in (*directory.glob("*"), *directory.glob("*/*"))
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    ]
    if not found:
        raise ManifestError(f"{directory}: no picture in it ({' '.join(SUFFIXES)})")
    found.sort(key=lambda path: (path.parent != directory, natural(path.parent.name), natural(path.name)))
    table = [
        (
            row,
            [
                path.relative_to(directory).as_posix(),
                kind,
                path.parent.name if path.parent != directory else "",
            ],
        )
        for row, path in enumerate(found, start=1)
    ]
    return _rows(str(directory), directory, ["file", "kind", "camera"], table, False)


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Sorts ``v2`` before ``v10``."""
    return tuple(
        (part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)
    )


def _rows(
    name: str,
    folder: Path,
    columns: Sequence[str],
    table: Sequence[tuple[int, Sequence[str]]],
    decimal_comma: bool,
) -> tuple[ManifestRow, ...]:
    drafts: list[_Draft] = []
    problems: list[str] = []
    for row, cells in table:
        try:
            drafts.append(_Draft(row, columns, cells, folder, decimal_comma))
        except _BadCell as error:
            problems.append(f"{name} row {row}, column {error.column}: {error.reason}")
    if not drafts and not problems:
        problems.append(f"{name}: there is no row below the header")
    rows, clashes = _number_repeats(drafts)
    problems += [f"{name} {clash}" for clash in clashes]
    if problems:
        more = len(problems) - _PROBLEMS_SHOWN
        raise ManifestError("\n".join(problems[:_PROBLEMS_SHOWN] + [f"... and {more} more"] * (more > 0)))
    return rows


class _BadCell(ValueError):
    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


class _Draft:
    """A checked row whose repeat may still be open."""

    def __init__(
        self, row: int, columns: Sequence[str], cells: Sequence[str], folder: Path, decimal_comma: bool
    ) -> None:
        if any(cells[len(columns) :]):
            raise _BadCell(columns[-1], f"more cells than the header has columns ({len(columns)})")
        values = dict(zip(columns, cells, strict=False))

        def number(column: str, default: float) -> float:
            return _number(column, values.get(column, ""), default, decimal_comma)

        self.row = row
        self.file = _find(folder, values.get("file", ""))
        self.kinds = _kinds(values.get("kind", ""))
        self.camera = _name("camera", values.get("camera", "")) or "main"
        self.light = _name("light", values.get("light", ""))
        for dark in {"dark", "ambient"} & set(self.kinds):
            if self.light:
                raise _BadCell("light", f"{self.light!r} burns in a frame of kind {dark}; leave it blank")
        self.exposure_s = number("exposure_s", 1.0)
        if self.exposure_s <= 0:
            raise _BadCell("exposure_s", f"{values['exposure_s']} is not above 0")
        self.gain_db = number("gain_db", 0.0)
        default: str = self.kinds[0] if len(self.kinds) == 1 else "default"
        if self.kinds == ("board",):
            default = self.file.stem.replace("..", ".")
        self.pose = _name("pose", values.get("pose", "")) or default
        repeat = number("repeat", -1)
        if values.get("repeat") and (repeat < 0 or repeat != int(repeat)):
            raise _BadCell("repeat", f"{values['repeat']!r} is not a whole number from 0")
        self.repeat = int(repeat)
        photons = number("photons", math.nan)
        if photons <= 0:
            raise _BadCell("photons", f"{values['photons']} is not above 0; leave it blank where not known")
        self.photons = None if math.isnan(photons) else photons

    @property
    def settings(self) -> tuple[object, ...]:
        return (self.camera, self.kinds, self.pose, self.light, self.exposure_s, self.gain_db)


def _read_cells(path: Path) -> tuple[tuple[int, list[str]], list[tuple[int, list[str]]], bool]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: not found; it wants the columns {', '.join(COLUMNS)}. Or say what all pictures "
            "are: --kind board"
        ) from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path.name}: not UTF-8 text; save the sheet as 'CSV UTF-8'") from None
    if "\0" in text:
        raise ManifestError(f"{path.name}: not plain text; save the sheet as 'CSV UTF-8'")
    separator = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    table: list[tuple[int, list[str]]] = []
    row = 0
    try:
        for row, cells in enumerate(reader, start=1):
            if any(cell.strip() for cell in cells):
                table.append((row, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise ManifestError(f"{path.name} row {row + 1}: {error}") from None
    if not table:
        raise ManifestError(f"{path.name}: empty; it wants the columns {', '.join(COLUMNS)}")
    return table[0], table[1:], separator != ","


def _check_header(name: str, row: int, header: Sequence[str]) -> list[str]:
    columns = [column.lower() for column in header]
    while columns and not columns[-1]:
        columns.pop()
    for column, written in zip(columns, header, strict=False):
        if column not in COLUMNS:
            raise ManifestError(f"{name} row {row}: unknown column {written!r}{suggest(column, COLUMNS)}")
        if columns.count(column) > 1:
            raise ManifestError(f"{name} row {row}: column {column} stands twice")
    for column in ("file", "kind"):
        if column not in columns:
            raise ManifestError(f"{name} row {row}: no column {column}; it has {', '.join(columns)}")
    return columns


def _number_repeats(drafts: Sequence[_Draft]) -> tuple[tuple[ManifestRow, ...], list[str]]:
    """Fill blank repeats with the first free number; find rows that say the same or name one file."""
    taken: dict[tuple[object, ...], dict[int, int]] = {}
    files: dict[Path, int] = {}
    clashes: list[str] = []
    for draft in drafts:
        if draft.file in files:
            clashes.append(
                f"row {draft.row}, column file: {draft.file.name} stands in row {files[draft.file]} already; "
                "join the kinds there with '+'"
            )
        files.setdefault(draft.file, draft.row)
        if draft.repeat >= 0:
            rows = taken.setdefault(draft.settings, {})
            if draft.repeat in rows:
                clashes.append(
                    f"row {draft.row}, column repeat: row {rows[draft.repeat]} has the same settings and "
                    f"repeat {draft.repeat}; number the repeats, or leave the column blank"
                )
            rows.setdefault(draft.repeat, draft.row)
    numbered = []
    next_free: dict[tuple[object, ...], int] = {}
    for draft in drafts:
        repeat = draft.repeat
        if repeat < 0:
            repeat = next_free.get(draft.settings, 0)
            while repeat in taken.get(draft.settings, {}):
                repeat += 1
            next_free[draft.settings] = repeat + 1
        numbered.append(
            ManifestRow(
                row=draft.row,
                file=draft.file,
                kinds=draft.kinds,
                camera=draft.camera,
                light=draft.light,
                exposure_s=draft.exposure_s,
                gain_db=draft.gain_db,
                pose=draft.pose,
                repeat=repeat,
                photons=draft.photons,
            )
        )
    return tuple(numbered), clashes


def _find(folder: Path, text: str) -> Path:
    if not text:
        raise _BadCell("file", "blank")
    path = folder / text
    if not path.is_file() and "\\" in text:
        path = folder / text.replace("\\", "/")
    if not path.is_file():
        there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise _BadCell("file", f"{text} not found in {folder}{suggest(path.name, there)}")
    return path


def _kinds(text: str) -> tuple[Kind, ...]:
    kinds = [kind.strip().lower() for kind in text.split("+")]
    if not text:
        raise _BadCell("kind", f"blank; want {', '.join(_KINDS)}, several joined by '+'")
    for kind in kinds:
        if kind not in _KINDS:
            hint = suggest(kind, _KINDS) or f"; want {', '.join(_KINDS)}"
            raise _BadCell("kind", f"unknown kind {kind!r}{hint}")
        if kinds.count(kind) > 1:
            raise _BadCell("kind", f"{kind} stands twice")
    if "dark" in kinds and len(kinds) > 1:
        raise _BadCell("kind", "a dark frame serves no other purpose")
    return tuple(kind for kind in get_args(Kind) if kind in kinds)


def _name(column: str, text: str) -> str:
    if ".." in text or any(not character.isprintable() or character in "/\\" for character in text):
        raise _BadCell(column, f"{text!r} is not a name: it may hold no '/', no '\\' and no '..'")
    return text


def _number(column: str, text: str, default: float, decimal_comma: bool) -> float:
    if not text:
        return default
    plain = text.replace(",", ".") if decimal_comma else text
    try:
        value = float(Fraction(plain.replace(" ", "")) if "/" in plain else float(plain))
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        example = " (write seconds as 0.01 or 1/100)" if column == "exposure_s" else ""
        raise _BadCell(column, f"{text!r} is not a number{example}")
    return value


def suggest(text: str, known: Sequence[str]) -> str:
    """End of a message: which of the known names may have been meant; empty where none is close."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(text.casefold(), list(folded), n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""
