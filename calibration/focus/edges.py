"""Sharpness of a picture at the edges of the board it shows: which edges, where in space, how sharp."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.focus.mtf import FREQUENCIES, EdgeMtf, edge_mtf
from calibration.geometry import Float, transform
from calibration.lens import LensModel
from calibration.targets.boards import AnyBoard, BoardView, Pattern, pattern

_MOST_ROOM_PX = 45.0
_STATIONS = 9
_BEND_ORDER = 3


class BoardEdges(NamedTuple):
    """Straight edges of a print that end at its corners, m of them, mm in the board frame.

    Attributes
    ----------
    start, end : ndarray (m, 3)
    room_mm : ndarray (m,)
        How far to both sides there is nothing else.
    """

    start: Float
    end: Float
    room_mm: Float


class ViewEdges(NamedTuple):
    """What the edges of one view say, n of them.

    Attributes
    ----------
    points_mm : ndarray (n, 3)
        Middle of each edge, camera frame.
    pixels : ndarray (n, 2)
        Where it is seen.
    normals : ndarray (n, 2)
        Unit vector across the edge in the picture; sharpness is measured along it.
    mtf50, sigma : ndarray (n,)
        cycles / px.
    mtf : ndarray (n, 101)
        At ``calibration.focus.mtf.FREQUENCIES``.
    refused : dict of reason -> how many edges
    """

    points_mm: Float
    pixels: Float
    normals: Float
    mtf50: Float
    sigma: Float
    mtf: Float
    refused: dict[str, int]


def board_edges(board: AnyBoard) -> BoardEdges:
    """Edges between a black and a white area of a print, not those of its outer border; none of discs."""
    print_ = pattern(board)
    along_y = _lines(print_.x_edges, print_.y_edges, print_.cells, print_, 0)
    along_x = _lines(print_.y_edges, print_.x_edges, print_.cells.T, print_, 1)
    rows = np.array([*along_y, *along_x]).reshape(-1, 7)
    return BoardEdges(rows[:, :3], rows[:, 3:6], rows[:, 6])


def _lines(across: Float, along: Float, cells: Float, print_: Pattern, axis: int) -> list[tuple[float, ...]]:
    """Edges on lines of constant ``across``: start, end and room; ``cells`` (along, across)."""
    out: list[tuple[float, ...]] = []
    discs = np.asarray(print_.discs).reshape(-1, 4)
    for k in range(1, len(across) - 1):
        left, right = cells[:, k - 1], cells[:, k]
        step = right - left
        r = 0
        while r < len(step):
            last = r + 1
            while last < len(step) and step[last] == step[r]:
                last += 1
            if step[r] != 0:
                block = cells[r:last]
                room = min(
                    _clear(block[:, k - 1 :: -1], across[k] - across[k - 1 :: -1]),
                    _clear(block[:, k:], across[k + 1 :] - across[k]),
                )
                centre, other, radius = discs[:, axis], discs[:, 1 - axis], discs[:, 2]
                beside = (other + radius > along[r]) & (other - radius < along[last])
                room = min([room, *(np.abs(centre - across[k]) - radius)[beside].tolist()])
                ends = [(across[k], along[r]), (across[k], along[last])]
                (x0, y0), (x1, y1) = [pair[:: -1 if axis else 1] for pair in ends]
                out.append((x0, y0, 0.0, x1, y1, 0.0, float(room)))
            r = last
    return out


def _clear(block: Float, reach: Float) -> float:
    """Distance up to which a block (rows, columns away from the edge) has the colour of its first column."""
    same = np.all(block == block[:1, :1], axis=0)
    return float(reach[-1] if same.all() else reach[int(np.argmin(same)) - 1])


def measure_edges(
    image: NDArray[np.floating],
    board: AnyBoard,
    view: BoardView,
    lens: LensModel,
    pose: tuple[Float, Float],
) -> ViewEdges:
    """MTF of every edge of a board between two corners that were seen.

    The lens and the pose say where each edge lies and how distortion bends it; the fit of the edge finds the
    rest, a shift and a turn.

    Parameters
    ----------
    image : ndarray (h, w)
        Proportional to light; NaN where a pixel is clipped or missing.
    board : board
        What is seen.
    view : BoardView
        Corners that were found; an edge counts where both its ends were.
    lens : LensModel
        Of these pictures.
    pose : (rotation vector (3,) rad, translation (3,) mm)
        Camera from board.

    Returns
    -------
    ViewEdges
    """
    edges = board_edges(board)
    corners = view.points_mm[None]
    ended = [
        np.min(np.linalg.norm(end[:, None] - corners, axis=2), axis=1, initial=np.inf) < 1e-6
        for end in (edges.start, edges.end)
    ]
    rows: list[tuple[Float, Float, Float, EdgeMtf]] = []
    refused: Counter[str] = Counter()
    for i in np.flatnonzero(ended[0] & ended[1]):
        middle = transform(*pose, 0.5 * (edges.start[i] + edges.end[i]))
        traced = _traced(lens, pose, edges.start[i], edges.end[i], float(edges.room_mm[i]))
        if traced is None or middle[2] <= 0:
            refused["outside the lens model, or beyond 90 degrees"] += 1
            continue
        found = edge_mtf(*traced.sampled(image), traced.room)
        if isinstance(found, EdgeMtf):
            rows.append((middle, traced.origin, traced.normal, found))
        else:
            refused[found.reason] += 1
    return ViewEdges(
        np.array([row[0] for row in rows]).reshape(-1, 3),
        np.array([row[1] for row in rows]).reshape(-1, 2),
        np.array([row[2] for row in rows]).reshape(-1, 2),
        np.array([row[3].mtf50 for row in rows]),
        np.array([row[3].sigma for row in rows]),
        np.array([row[3].mtf for row in rows]).reshape(-1, len(FREQUENCIES)),
        dict(sorted(refused.items())),
    )


class _Traced(NamedTuple):
    """An edge in the picture: its middle, its unit normal, its bend over the place along, half its length."""

    origin: Float
    normal: Float
    bend: Float
    reach: float
    room: float

    def sampled(self, image: NDArray[np.floating]) -> tuple[Float, Float, NDArray[np.floating]]:
        """Distance to the edge, place along it and value of the pixels around."""
        height, width = image.shape
        span = np.abs([-self.normal[1], self.normal[0]]) * self.reach + np.abs(self.normal) * (self.room + 2)
        low = np.maximum(np.ceil(self.origin - span), 0).astype(int)
        high = np.minimum(np.floor(self.origin + span), [width - 1, height - 1]).astype(int)
        v, u = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1]
        du, dv = u - self.origin[0], v - self.origin[1]
        along = -self.normal[1] * du + self.normal[0] * dv
        distance = (
            self.normal[0] * du + self.normal[1] * dv - np.polynomial.polynomial.polyval(along, self.bend)
        )
        near = (np.abs(along) < self.reach) & (np.abs(distance) < self.room)
        return distance[near], along[near], image[v[near], u[near]]


def _traced(
    lens: LensModel, pose: tuple[Float, Float], start: Float, end: Float, room_mm: float
) -> _Traced | None:
    share = np.linspace(0, 1, _STATIONS)[:, None]
    line = start + share * (end - start)
    side = np.cross([0.0, 0.0, 1.0], (end - start) / np.linalg.norm(end - start)) * room_mm
    seen = lens.project(transform(*pose, np.stack([line, line + side, line - side])))
    if not np.isfinite(seen).all():
        return None
    middle = 0.5 * (seen[0, 0] + seen[0, -1])
    chord = seen[0, -1] - seen[0, 0]
    length = float(np.linalg.norm(chord))
    if length < 1:
        return None
    normal = np.array([chord[1], -chord[0]]) / length
    along = (seen[0] - middle) @ (chord / length)
    bend = np.polynomial.polynomial.polyfit(along, (seen[0] - middle) @ normal, _BEND_ORDER)
    room = float(np.min(np.abs((seen[1:] - seen[0]) @ normal)))
    # distances and places count from the middle of the bent edge
    return _Traced(middle, normal, bend, 0.5 * length, min(room, _MOST_ROOM_PX))
