"""Checkerboards: a grid of corners found, and which corner of the board each is."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.description import Checkerboard
from calibration.targets.boards.view import Found, NoBoard

Grey = NDArray[np.uint8]
_PART_SEARCH_PX = 800
_NEAR_BORDER = 1.6  # squares: a grid that ends within them may go on outside


def find_checkerboard(grey: Grey, board: Checkerboard) -> Found | NoBoard:
    """The whole board, or a part of it as far as the kind allows (see ``detect_board``)."""
    flags = cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_NORMALIZE_IMAGE
    ok, pixels = cv2.findChessboardCornersSB(grey, (board.columns, board.rows), flags=flags)
    if ok:
        grid = np.asarray(pixels, np.float64).reshape(board.rows, board.columns, 2)
        return _placed(grey, grid, board)
    # A part of the board: any grid of corners, searched in a smaller picture as it takes long.
    shrink = max(1, round(max(grey.shape) / _PART_SEARCH_PX))
    small = cv2.resize(grey, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    flags |= cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_LARGER
    ok, pixels, meta = cv2.findChessboardCornersSBWithMeta(np.asarray(small), (3, 3), flags=flags)
    if not ok or meta is None:
        return NoBoard("no grid of corners seen")
    grid = np.asarray(pixels, np.float64).reshape(*np.shape(meta)[:2], 2)
    return _placed(grey, (grid + 0.5) * shrink - 0.5, board)


class _Place(NamedTuple):
    """A grid turned by ``quarters``, its first corner the board's corner (column, row)."""

    quarters: int
    column: int
    row: int


def _placed(grey: Grey, grid: Float, board: Checkerboard) -> Found | NoBoard:
    along, down = np.mean(grid[:, -1] - grid[:, 0], axis=0), np.mean(grid[-1] - grid[0], axis=0)
    if np.linalg.det(np.stack([along, down])) < 0:
        grid = grid[:, ::-1]
    place = _by_marker(grey, grid, board) if board.marker else _by_colour(grey, grid, board)
    if isinstance(place, NoBoard):
        return place
    turned = np.rot90(grid, place.quarters)
    i, j = np.indices(turned.shape[:2])
    row, column = i + place.row, j + place.column
    on = np.asarray((row >= 0) & (row < board.rows) & (column >= 0) & (column < board.columns))
    if on.mean() < 0.9:
        return NoBoard(
            f"the corners seen reach beyond the {board.columns}x{board.rows} described: "
            "mirrored, or another board"
        )
    return Found(np.asarray(row * board.columns + column, np.int64)[on], turned[on])


def _by_colour(grey: Grey, grid: Float, board: Checkerboard) -> _Place | NoBoard:
    """Turn with a black square at the top left, and of those the one with its x axis most to the right."""
    best: tuple[tuple[bool, float], _Place] | None = None
    for quarters in range(4):
        turned = np.rot90(grid, quarters)
        rows, columns = turned.shape[:2]
        if rows > board.rows or columns > board.columns:
            continue
        middle, _ = _squares(grey, turned)
        i, j = np.indices(middle.shape)
        contrast = float(np.sum(middle * np.where((i + j) % 2, 1.0, -1.0)))
        x_axis = np.mean(turned[:, -1] - turned[:, 0], axis=0)
        right = float(x_axis[0] / np.linalg.norm(x_axis))
        # A part of the board may start one square further, which swaps the colours.
        column, row = 0, 0
        if contrast < 0:
            column, row = (1, 0) if columns < board.columns else (0, int(rows < board.rows))
        fits = contrast > 0 or column + row > 0
        if best is None or (fits, right) > best[0]:
            best = (fits, right), _Place(quarters, column, row)
    rows, columns = sorted(np.shape(grid)[:2])
    seen = f"a grid of {columns}x{rows} corners seen"
    if best is None or not best[0][0]:
        return NoBoard(f"{seen} where {board.columns}x{board.rows} are described")
    if grid.shape[0] * grid.shape[1] < board.columns * board.rows and not _reaches_border(grey, grid):
        whole = f"{seen} where {board.columns}x{board.rows} are described, and none leaves the picture"
        return NoBoard(f"{whole}: partly hidden, or another board")
    return best[1]


def _reaches_border(grey: Grey, grid: Float) -> bool:
    """Whether on some side the next corners would lie outside the picture."""
    height, width = grey.shape
    for quarters in range(4):
        g = np.rot90(grid, quarters)
        beyond = g[0] + _NEAR_BORDER * (g[0] - g[1])
        inside = np.all((beyond > 0) & (beyond < (width - 1, height - 1)), axis=1)
        if not inside.all():
            return True
    return False


def _by_marker(grey: Grey, grid: Float, board: Checkerboard) -> _Place | NoBoard:
    """Turn and shift that lay the described dots on dots that are seen."""
    want = np.array(board.dots)
    for quarters in range(4):
        middle, around = _squares(grey, np.rot90(grid, quarters))
        contrast = float(np.percentile(around, 85) - np.percentile(around, 15))
        dotted = np.abs(middle - around) > 0.5 * contrast
        rows, columns = np.nonzero(dotted)
        for row, column in zip(rows, columns, strict=True):
            # The described dot 1 is the elbow of the three.
            at = want - want[1] + (column, row)
            if not _all_set(dotted, at):
                continue
            dark = around[at[:, 1], at[:, 0]] < np.median(around)
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
    return _at(grey, middle), np.median(values, axis=0)


def _at(grey: Grey, pixels: Float) -> Float:
    at = np.clip(np.rint(pixels).astype(int), 0, [grey.shape[1] - 1, grey.shape[0] - 1])
    return np.asarray(grey[at[..., 1], at[..., 0]], np.float64)


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
