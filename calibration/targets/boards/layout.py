"""Whether markers lie on the board as described: how many in a row, and how large against what is between.

Asked of the markers alone, so that it can be told where their corners come to nothing.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.description import AprilGrid, Charuco, Ids
from calibration.targets.boards.lattice import find_lattice
from calibration.targets.boards.view import Misdescribed

_FEWEST_CORNERS = 9  # of what is called a checkerboard
_FEWEST = 4  # pairs of neighbours below which nothing is said
_LIES_SO, _LIES_OTHERWISE = 0.7, 0.8  # of these pairs: enough for the description, and for another one
_MOST_COLUMNS = 40
_PRINTED = 0.02  # of the side: what no printer or ruler gets wrong
_BOWED = 0.2  # of a line's bow: with the above, twice what fisheyes of 150 degrees were seen to add


class Markers(NamedTuple):
    """Markers in a picture.

    Attributes
    ----------
    quads : ndarray (n, 4, 2)
        Outlines from the top left of the print, clockwise, px.
    numbers : ndarray (n,)
    edge_px : ndarray (n,)
        How far a corner may be off along the line to the next marker, px.
    """

    quads: Float
    numbers: Ids
    edge_px: Float

    def below(self, count: int) -> "Markers":
        """Those with a number below ``count``."""
        which = self.numbers < count
        return Markers(self.quads[which], self.numbers[which], self.edge_px[which])


class _Rows(NamedTuple):
    """How a board may number its markers: columns, and of ChArUco whether the first square is white."""

    columns: int
    white_first: bool = False


class _Pairs(NamedTuple):
    """Neighbours by their numbers (of a ChArUco board corner to corner), and whether they lie so.

    ``ends`` (m, 2): places in the list of markers. Of those that lie so: ``lines`` (k, 4, 2), two corners of
    the first and two of the second, on one line, and how far each of these may be off, ``edge_px`` (k,).
    """

    ends: Ids
    good: NDArray[np.bool_]
    lines: Float
    edge_px: Float

    @property
    def fit(self) -> float:
        """Part that lies so; 0 for too few."""
        return float(self.good.mean()) if len(self.good) >= _FEWEST else 0.0


def misdescribed(markers: Markers, board: Charuco | AprilGrid) -> Misdescribed | None:
    """What to correct in the description; None where it fits, or the markers are too few to tell.

    Errors that leave every point where it is said to be are none: rows of a ChArUco board that the
    description lacks.
    """
    told = _Rows(board.columns, isinstance(board, Charuco) and board.white_first)
    own = markers.below(_count(board))
    if 2 * len(own.numbers) >= len(markers.numbers):
        pairs = _pairs(own, board, told)
        if isinstance(board, Charuco):
            # Of an odd number of columns the other layout differs at the ends of the rows only.
            swapped = told._replace(white_first=not told.white_first)
            otherwise = _pairs(own, board, swapped)
            if pairs.good.sum() < otherwise.good.sum() and otherwise.fit >= _LIES_OTHERWISE:
                return _other_rows(markers, board, swapped)
        if pairs.fit >= _LIES_SO:
            every = _pairs(markers, board, told)
            more = every.good & np.any(markers.numbers[every.ends] >= _count(board), axis=1)
            if isinstance(board, AprilGrid) and more.sum() > 1:
                return _other_rows(markers, board, told)
            return _other_sides(pairs, board)
    whites = (False,) if isinstance(board, AprilGrid) else (told.white_first, not told.white_first)
    others = [_Rows(columns, white) for white in whites for columns in range(2, _MOST_COLUMNS + 1)]
    tried = [(_pairs(markers, board, other), other) for other in others if other != told]
    fitting = [(int(pairs.good.sum()), other) for pairs, other in tried if pairs.fit >= _LIES_OTHERWISE]
    return _other_rows(markers, board, max(fitting)[1]) if fitting else None


def _count(board: Charuco | AprilGrid) -> int:
    both = board.columns * board.rows
    return both // 2 if isinstance(board, Charuco) else both


def _squares(board: Charuco | AprilGrid, numbers: Ids, how: _Rows) -> tuple[Ids, Ids]:
    """Column and row of each marker; of an AprilGrid's rows the lowest is 0, those above are negative."""
    if isinstance(board, AprilGrid):
        return numbers % how.columns, -(numbers // how.columns)
    # Two rows together hold as many markers as a row has squares.
    upper = (how.columns + how.white_first) // 2
    pair, rest = numbers // how.columns, numbers % how.columns
    low = rest >= upper
    start = np.where(low, int(how.white_first), int(not how.white_first))
    return 2 * (rest - np.where(low, upper, 0)) + start, 2 * pair + low


def _pairs(markers: Markers, board: Charuco | AprilGrid, how: _Rows) -> _Pairs:
    """Neighbours by ``how``, and which of them lie where the sides of the first one lead."""
    column, row = _squares(board, markers.numbers, how)
    at = {place: k for k, place in enumerate(zip(column.tolist(), row.tolist(), strict=True))}
    # Steps to a neighbour, and the two corners of each marker that are on one line with the other's.
    steps = (
        [((1, 1), ((0, 2),)), ((-1, 1), ((1, 3),))]
        if isinstance(board, Charuco)
        else [((1, 0), ((0, 1), (3, 2))), ((0, 1), ((0, 3), (1, 2)))]
    )
    ends, good, lines, edges = [], [], [], []
    for (dx, dy), corners in steps:
        for (x, y), k in at.items():
            other = at.get((x + dx, y + dy))
            if other is None:
                continue
            first, second = markers.quads[k], markers.quads[other]
            ends.append((k, other))
            good.append(_leads(first, second, (dx, dy)) and _leads(second, first, (-dx, -dy)))
            if good[-1]:
                lines += [(*first[list(line)], *second[list(line)]) for line in corners]
                edges += [max(markers.edge_px[k], markers.edge_px[other])] * len(corners)
    return _Pairs(
        np.array(ends, np.int64).reshape(-1, 2),
        np.array(good, bool),
        np.array(lines).reshape(-1, 4, 2),
        np.array(edges),
    )


def _leads(first: Float, second: Float, step: tuple[int, int]) -> bool:
    """Whether the sides of one outline lead to another: one to three of them, perspective allowed for."""
    sides = (
        np.stack([first[1] + first[2] - first[0] - first[3], first[2] + first[3] - first[0] - first[1]]) / 2
    )
    across = sides[0, 0] * sides[1, 1] - sides[0, 1] * sides[1, 0]
    if not across > 0:
        return False
    way = np.linalg.solve(sides.T, second.mean(axis=0) - first.mean(axis=0))
    far = float(way @ step) / float(np.dot(step, step))
    return bool(0.8 < far < 3.5 and np.abs(way - far * np.asarray(step)).max() < 0.35 * far)


def _other_rows(markers: Markers, board: Charuco | AprilGrid, how: _Rows) -> Misdescribed:
    pairs = _pairs(markers, board, how)
    lying = markers.numbers[np.unique(pairs.ends[pairs.good])]
    rows = int(np.abs(_squares(board, lying, how)[1]).max()) + 1
    name = "tags" if isinstance(board, AprilGrid) else "markers"
    described, last = f"{board.columns}x{board.rows}", _count(board) - 1
    if isinstance(board, Charuco) and how.columns == board.columns:
        seen = f"the same board {_other_layout(board)}"
    elif how.columns == board.rows and rows <= board.columns:
        seen = f"the same board as {board.rows}x{board.columns}"
    else:
        seen = f"a board of {how.columns} columns and at least {rows} rows, {described} is described"
    high = f"{name} up to number {lying.max()} seen, a board of {described} has none above {last}; "
    return Misdescribed(
        f"{high if lying.max() > last else ''}the {name} lie as on {seen}: correct the description"
    )


def _other_layout(board: Charuco) -> str:
    """How the first square comes to be of the other colour."""
    if board.white_first:
        return "without legacy, or with an odd number of rows"
    if board.legacy:
        return "with an even number of rows"
    return "with legacy" + " and an even number of rows" * (board.rows % 2)


def _other_sides(pairs: _Pairs, board: Charuco | AprilGrid) -> Misdescribed | None:
    """Markers of another size against the squares, or tags against the gaps, than described."""
    edge = float(np.quantile(pairs.edge_px, 0.25))
    gap, bow, side = _gap(pairs.lines[pairs.edge_px <= edge])
    told = (
        board.square_mm / board.marker_mm - 1 if isinstance(board, Charuco) else board.gap_mm / board.tag_mm
    )
    if abs(gap - told) <= (2 * edge / side + _PRINTED + _BOWED * bow) * (1 + min(gap, told)):
        return None
    if isinstance(board, Charuco):
        seen, said = 1 / (1 + gap), board.marker_mm / board.square_mm
        return Misdescribed(
            f"markers are {seen:.2f} of a square in the picture, the description says {said:.2f}: marker_mm "
            f"should be {seen * board.square_mm:.3g} if square_mm is {board.square_mm:g}"
        )
    return Misdescribed(
        f"gaps are {gap:.2f} of a tag in the picture, the description says {told:.2f}: gap_mm should be "
        f"{gap * board.tag_mm:.3g} if tag_mm is {board.tag_mm:g}"
    )


def _gap(lines: Float) -> tuple[float, float, float]:
    """Gap over side of neighbours, from points a, b, c, d on a line each; that line's bow; the side, px.

    Medians; of the bow, in sides, the quantile 5/6, as lines towards the lens's middle stay straight. A
    projection keeps the cross ratio, and so does a lens as far as lines stay straight: with ab = cd = 1 and
    bc = u, ac bd / (bc ad) is 1 + 1 / (u (2 + u)).
    """
    a, b, c, d = np.moveaxis(lines, 1, 0)

    def length(one: Float, other: Float) -> Float:
        return np.asarray(np.linalg.norm(other - one, axis=1))

    ratio = length(a, c) * length(b, d) / np.maximum(length(b, c) * length(a, d), 1e-9)
    gaps = np.sqrt(1 + 1 / np.maximum(ratio - 1, 1e-9)) - 1
    side, chord = (length(a, b) + length(c, d)) / 2, d - a
    middle = (b + c - a - d) / 2
    off = np.abs(chord[:, 0] * middle[:, 1] - chord[:, 1] * middle[:, 0]) / np.maximum(length(a, d), 1e-9)
    bow = np.quantile(off / np.maximum(side, 1e-9), 5 / 6)
    return float(np.median(gaps)), float(bow), float(np.median(side))


def checkerboard_seen(grey: NDArray[np.uint8]) -> str | None:
    """Size of a checkerboard, whatever is in its squares, in words."""
    shrink = max(1, round(max(grey.shape) / 800))
    small = cv2.resize(grey, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    grid = find_lattice(np.asarray(small), _FEWEST_CORNERS)
    if grid is None or np.isfinite(grid[..., 0]).sum() < _FEWEST_CORNERS:
        return None
    few, many = sorted(grid.shape[:2])
    return f"a checkerboard of {many}x{few} inner corners is, without markers that can be read"
