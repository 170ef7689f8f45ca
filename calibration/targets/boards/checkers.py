"""Checkerboards: a grid of corners found, and which corner of the board each is."""

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.description import Checkerboard
from calibration.targets.boards.lattice import find_lattice
from calibration.targets.boards.view import Found, NoBoard

Grey = NDArray[np.uint8]
_NEAR_BORDER = 1.6  # squares: a grid that ends within them may go on outside
_BEYOND = 1.2  # squares from the last corners: where the paper round the pattern is looked at
_WHITE = 0.9  # part of a side along which it must be white


def find_checkerboard(grey: Grey, board: Checkerboard) -> Found | NoBoard:
    """The whole board, or a part of it as far as the kind allows (see ``detect_board``)."""
    grid = find_lattice(grey, board.columns * board.rows)
    if grid is None:
        return NoBoard("no grid of corners seen")
    place = _by_marker(grey, grid, board) if board.marker else _by_colour(grey, grid, board)
    if isinstance(place, NoBoard):
        return place
    turned = np.rot90(grid, place.quarters)
    i, j = np.indices(turned.shape[:2])
    row, column = i + place.row, j + place.column
    seen = np.isfinite(turned[..., 0])
    on = seen & (row >= 0) & (row < board.rows) & (column >= 0) & (column < board.columns)
    if on.sum() < 0.9 * seen.sum():
        return NoBoard(
            f"the corners seen reach beyond the {board.columns}x{board.rows} described: "
            "mirrored, or another board"
        )
    return Found(np.asarray(row * board.columns + column, np.int64)[on], turned[on])


class _Place(NamedTuple):
    """A grid turned by ``quarters``, its first corner the board's corner (column, row)."""

    quarters: int
    column: int
    row: int


def _by_colour(grey: Grey, grid: Float, board: Checkerboard) -> _Place | NoBoard:
    """Turn with a black square at the top left, and of those the one with its x axis most to the right.

    A side of the grid with white paper behind it is a side of the board; without one, the grid starts at the
    board's first corner, or at the next for the sake of the colours.
    """
    ends = _ends(grey, grid)
    best: tuple[float, _Place] | None = None
    for quarters in range(4):
        turned = np.rot90(grid, quarters)
        rows, columns = turned.shape[:2]
        top, right, bottom, left = np.roll(ends, -quarters)
        middle, _ = _squares(grey, turned)
        i, j = np.indices(middle.shape)
        white_first = float(np.nansum(middle * np.where((i + j) % 2, 1.0, -1.0))) < 0
        starts = product(
            _starts(board.rows - rows, bool(top), bool(bottom)),
            _starts(board.columns - columns, bool(left), bool(right)),
        )
        fits = sorted((sum(start), *start) for start in starts if sum(start) % 2 == white_first)
        x_axis = np.nanmean(turned[:, 1:] - turned[:, :-1], axis=(0, 1))
        to_right = float(x_axis[0] / np.linalg.norm(x_axis))
        if fits and (best is None or to_right > best[0]):
            best = to_right, _Place(quarters, column=fits[0][2], row=fits[0][1])
    if best is None:
        return NoBoard(_misfit(grid, ends, board))
    if grid.shape[0] * grid.shape[1] < board.columns * board.rows and not _reaches_border(grey, grid):
        seen = _seen(grid, board)
        whole = f"{seen} where {board.columns}x{board.rows} are described, and none leaves the picture"
        return NoBoard(f"{whole}: partly hidden, or another board")
    return best[1]


def _starts(room: int, first: bool, last: bool) -> list[int]:
    """Rows or columns of the board where a grid leaving ``room`` may start, by the ends in view."""
    if room < 0 or (first and last and room > 0):
        return []
    if first or room == 0:
        return [0]
    return [room] if last else [0, 1]


def _seen(grid: Float, board: Checkerboard) -> str:
    """How many corners are seen, the longer side first where the board's is."""
    few, many = sorted(grid.shape[:2])
    columns, rows = (many, few) if board.columns >= board.rows else (few, many)
    return f"a grid of {columns}x{rows} corners seen"


def _misfit(grid: Float, ends: NDArray[np.bool_], board: Checkerboard) -> str:
    """Why a grid is no part of the board; what else was counted, where the grid's ends tell its size."""
    described = (board.columns, board.rows)
    shown = [n for n, known in zip(grid.shape[:2], (ends[::2].all(), ends[1::2].all()), strict=True) if known]
    if not shown:
        return f"{_seen(grid, board)} where {board.columns}x{board.rows} are described"
    if len(shown) == 2 and sorted(shown) == sorted(described):
        return f"{_seen(grid, board)}, but black and white are swapped, or its rows and columns"
    if len(shown) == 2:
        few, many = sorted(shown)
        size = f"{many}x{few}" if board.columns >= board.rows else f"{few}x{many}"
    else:
        size = f"{shown[0]}"
    said = f"the picture shows {size} inner corners from border to border"
    said = f"{said}, the board described has {board.columns}x{board.rows}"
    for more, counted in (
        (1, "are these squares counted instead of inner corners?"),
        (-1, "was one taken off a count that was of inner corners already?"),
    ):
        if {n + more for n in shown} <= set(described):
            return f"{said}: {counted}"
    return f"{said}: another board"


def _ends(grey: Grey, grid: Float) -> NDArray[np.bool_]:
    """Whether white paper is seen behind the top, right, bottom and left of a grid: there the board ends."""
    return np.array([_ends_above(grey, np.rot90(grid, quarters)) for quarters in range(4)])


def _ends_above(grey: Grey, grid: Float) -> bool:
    inner, outer, paper = (_between_columns(grid, squares) for squares in (-0.5, 0.5, _BEYOND))
    height, width = grey.shape
    seen = np.all((paper > 0) & (paper < (width - 1, height - 1)), axis=1)
    if seen.sum() < max(2, len(seen) / 2):
        return False
    limit = (_at(grey, inner[seen]) + _at(grey, outer[seen])) / 2
    return bool(np.mean(_at(grey, paper[seen]) > limit) >= _WHITE)


def _between_columns(grid: Float, squares: float) -> Float:
    """Places so many squares out of a grid's first row, half way between its columns."""
    step = grid[0] - grid[1]
    if len(grid) > 2:
        grows = step - (grid[1] - grid[2])
        step = step + np.where(np.isfinite(grows), grows, 0.0) * (1 + squares) / 2
    out = grid[0] + squares * step
    return np.asarray((out[1:] + out[:-1]) / 2)


def _reaches_border(grey: Grey, grid: Float) -> bool:
    """Whether on some side the next corners would lie outside the picture."""
    height, width = grey.shape
    for quarters in range(4):
        g = np.rot90(grid, quarters)
        above = np.concatenate([np.full_like(g[:1], np.nan), g[:-2]])
        beyond = g[:-1] + _NEAR_BORDER * (g[:-1] - g[1:])
        outside = np.any((beyond <= 0) | (beyond >= (width - 1, height - 1)), axis=2)
        if np.any(outside & np.isnan(above[..., 0])):
            return True
    return False


def _by_marker(grey: Grey, grid: Float, board: Checkerboard) -> _Place | NoBoard:
    """Turn and shift that lay the described dots on dots that are seen."""
    want = np.array(board.dots)
    for quarters in range(4):
        middle, around = _squares(grey, np.rot90(grid, quarters))
        contrast = float(np.nanpercentile(around, 85) - np.nanpercentile(around, 15))
        dotted = np.abs(middle - around) > 0.5 * contrast
        rows, columns = np.nonzero(dotted)
        for row, column in zip(rows, columns, strict=True):
            # The described dot 1 is the elbow of the three.
            at = want - want[1] + (column, row)
            if not _all_set(dotted, at):
                continue
            dark = around[at[:, 1], at[:, 0]] < np.nanmedian(around)
            if np.array_equal(dark, want.sum(axis=1) % 2 == 0):
                return _Place(quarters, int(want[1, 0] - column - 1), int(want[1, 1] - row - 1))
    return NoBoard("a grid of corners seen, but not its marker of three dots")


def _all_set(dotted: NDArray[np.bool_], at: NDArray[np.intp]) -> bool:
    inside = np.all((at >= 0) & (at < (dotted.shape[1], dotted.shape[0])), axis=1)
    return bool(inside.all() and dotted[at[:, 1], at[:, 0]].all())


def _squares(grey: Grey, grid: Float) -> tuple[Float, Float]:
    """Grey at the middle of each square of a grid, and half way from there to its corners."""
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
    middle = (a + b + c + d) / 4
    values = [_at(grey, (middle + corner) / 2) for corner in (a, b, c, d)]
    return _at(grey, middle), np.asarray(np.median(values, axis=0))


def _at(grey: Grey, pixels: Float) -> Float:
    """Grey values at the nearest pixels, NaN at NaN."""
    known = np.asarray(np.isfinite(pixels).all(axis=-1))
    at = np.rint(np.where(known[..., None], pixels, 0.0)).astype(int)
    at = np.clip(at, 0, [grey.shape[1] - 1, grey.shape[0] - 1])
    return np.where(known, grey[at[..., 1], at[..., 0]].astype(np.float64), np.nan)


def beyond(ids: NDArray[np.int64], pixels: Float, board: Checkerboard) -> list[Found]:
    """Where the next corners of each side would be, were the board larger; ids count that side's own row."""
    grid = np.full((board.rows, board.columns, 2), np.nan)
    grid.reshape(-1, 2)[ids] = pixels
    sides = []
    for quarters in range(4):
        g = np.rot90(grid, quarters)
        ahead = 2 * g[0] - g[1]
        seen = np.isfinite(ahead).all(axis=1)
        sides.append(Found(np.flatnonzero(seen).astype(np.int64), ahead[seen]))
    return sides
