"""What is printed on a board: its rectangles and discs, its picture, and its colour at a point."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float
from calibration.targets.boards.description import (
    DOT_RADIUS,
    TAG_BITS,
    TAG_BORDER,
    TAG_FAMILY,
    AnyBoard,
    AprilGrid,
    Charuco,
    Checkerboard,
    CircleGrid,
    corners_mm,
    dictionary,
    size_mm,
)


class Pattern(NamedTuple):
    """The print as a grid of rectangles with discs on top, mm in the board frame.

    Attributes
    ----------
    x_edges, y_edges : ndarray (c + 1,), (r + 1,)
        Borders of the rectangles.
    cells : ndarray (r, c)
        Their colours, 1 white and 0 black.
    discs : ndarray (m, 4)
        Centre x, y, radius and colour; they do not overlap.
    """

    x_edges: Float
    y_edges: Float
    cells: Float
    discs: Float


def pattern(board: AnyBoard) -> Pattern:
    """What is printed."""
    none = np.zeros((0, 4))
    match board:
        case Checkerboard():
            i, j = np.indices((board.rows + 1, board.columns + 1))
            cells = ((i + j) % 2).astype(np.float64)
            side = board.square_mm
            dots = [
                ((x + 0.5) * side, (y + 0.5) * side, DOT_RADIUS * side, 1.0 - cells[y, x])
                for x, y in board.dots
            ]
            discs = np.array(dots).reshape(-1, 4)
            return Pattern(
                side * np.arange(board.columns + 2.0), side * np.arange(board.rows + 2.0), cells, discs
            )
        case Charuco():
            return Pattern(*_charuco_cells(board), none)
        case AprilGrid():
            return Pattern(*_aprilgrid_cells(board), none)
        case CircleGrid():
            width, height = size_mm(board)
            centres = corners_mm(board)[:, :2]
            rest = np.broadcast_to([board.disc_mm, 0.0], (len(centres), 2))
            edges = np.array([0.0, width]), np.array([0.0, height])
            return Pattern(*edges, np.ones((1, 1)), np.concatenate([centres, rest], axis=1))


def _charuco_cells(board: Charuco) -> tuple[Float, Float, Float]:
    markers = dictionary(board.dictionary)
    modules = markers.markerSize + 2
    margin = (board.square_mm - board.marker_mm) / 2
    inside = np.concatenate([[0.0], margin + np.arange(modules + 1) * board.marker_mm / modules])
    x, y = (_repeated(n, board.square_mm, inside) for n in (board.columns, board.rows))
    step = len(inside)
    cells = np.zeros((board.rows * step, board.columns * step))
    marker = 0
    for row in range(board.rows):
        for column in range(board.columns):
            if (row + column) % 2 == (1 if board.white_first else 0):
                continue
            square = np.ones((step, step))
            bits = cv2.aruco.generateImageMarker(markers, marker, modules, borderBits=1)
            square[1 : modules + 1, 1 : modules + 1] = bits > 0
            cells[row * step : (row + 1) * step, column * step : (column + 1) * step] = square
            marker += 1
    return x, y, cells


def _aprilgrid_cells(board: AprilGrid) -> tuple[Float, Float, Float]:
    tags = dictionary(TAG_FAMILY)
    modules = TAG_BITS + 2 * TAG_BORDER
    inside = np.concatenate([[0.0], board.gap_mm + np.arange(modules) * board.tag_mm / modules])
    pitch = board.tag_mm + board.gap_mm
    x, y = (
        np.append(_repeated(n, pitch, inside), n * pitch + board.gap_mm) for n in (board.columns, board.rows)
    )
    step = len(inside)
    cells = np.ones((board.rows * step + 1, board.columns * step + 1))
    cells[::step, ::step] = 0
    for row in range(board.rows):
        for column in range(board.columns):
            tag = (board.rows - 1 - row) * board.columns + column
            bits = cv2.aruco.generateImageMarker(tags, tag, modules, borderBits=TAG_BORDER)
            # Kalibr prints them upside down, seen from OpenCV's dictionary.
            top, left = row * step + 1, column * step + 1
            cells[top : top + modules, left : left + modules] = np.rot90(bits, 2) > 0
    return x, y, cells


def _repeated(count: int, pitch: float, inside: Float) -> Float:
    edges = np.arange(count, dtype=np.float64)[:, None] * pitch + inside
    return np.append(edges.ravel(), count * pitch)


def board_image(board: AnyBoard, px_per_mm: float) -> NDArray[np.uint8]:
    """Picture of the pattern, x right, y down, without a margin (print it on white).

    The pattern's outer corner (0, 0) is the outer corner of the top-left pixel: the centre of pixel
    (u, v) lies at board x = (u + 0.5) / px_per_mm, y = (v + 0.5) / px_per_mm. Every pixel is the exact
    mean over its area, so edges need not fall on pixels.

    Parameters
    ----------
    board : Board
        What to draw.
    px_per_mm : float
        Scale; any positive number.

    Returns
    -------
    ndarray (h, w), uint8
        0 black, 255 white; h and w rounded up, beyond the pattern white.
    """
    x_edges, y_edges, cells, discs = pattern(board)
    width, height = (int(np.ceil(side * px_per_mm - 1e-6)) for side in size_mm(board))
    cover_x, cover_y = _coverage(x_edges * px_per_mm, width), _coverage(y_edges * px_per_mm, height)
    white = 1.0 - cover_y @ (1.0 - cells) @ cover_x.T
    for x, y, radius, colour in discs * [px_per_mm, px_per_mm, px_per_mm, 1.0]:
        left, top = max(int(x - radius), 0), max(int(y - radius), 0)
        u = np.arange(left, min(int(x + radius) + 2, width) + 1)
        v = np.arange(top, min(int(y + radius) + 2, height) + 1)
        quadrant = _disc_quadrant((u - x) / radius, (v[:, None] - y) / radius)
        part = radius**2 * np.diff(np.diff(quadrant, axis=0), axis=1)
        window = white[v[0] : v[-1], u[0] : u[-1]]
        window += (colour - window) * part
    return np.asarray(np.rint(255 * np.clip(white, 0, 1)), dtype=np.uint8)


def reflectance_at(board: AnyBoard, x_mm: ArrayLike, y_mm: ArrayLike) -> Float:
    """Colour at points of the board's plane, 1 white and 0 black; white beyond the pattern.

    A point on an edge takes the colour to its right and below.
    """
    x, y = np.broadcast_arrays(np.asarray(x_mm, np.float64), np.asarray(y_mm, np.float64))
    x_edges, y_edges, cells, discs = pattern(board)
    column, row = np.searchsorted(x_edges, x, "right") - 1, np.searchsorted(y_edges, y, "right") - 1
    inside = (column >= 0) & (column < cells.shape[1]) & (row >= 0) & (row < cells.shape[0])
    colour = np.ones(x.shape)
    colour[inside] = cells[row[inside], column[inside]]
    for at_x, at_y, radius, disc_colour in discs:
        colour[(x - at_x) ** 2 + (y - at_y) ** 2 < radius**2] = disc_colour
    return colour


def _coverage(edges: Float, pixels: int) -> Float:
    """Part of each pixel's side covered by each interval: (pixels, intervals)."""
    left, right = np.arange(pixels)[:, None], np.arange(1, pixels + 1)[:, None]
    overlap = np.minimum(right, edges[1:]) - np.maximum(left, edges[:-1])
    return np.asarray(np.clip(overlap, 0, None))


def _disc_quadrant(x: Float, y: Float) -> Float:
    """Area of the unit disc left of x and above y (y down), closed form."""
    x, y = np.broadcast_arrays(np.clip(x, -1, 1), np.clip(y, -1, 1))
    reach = np.sqrt(1 - y * y)

    def half(t: Float) -> Float:
        return np.asarray((t * np.sqrt(np.clip(1 - t * t, 0, None)) + np.arcsin(t)) / 2)

    # Left of -reach and right of reach a chord is whole where y > 0 and empty where y < 0.
    whole = np.where(y > 0, 2.0, 0.0)
    ahead, within = np.minimum(x, -reach), np.clip(x, -reach, reach)
    area = whole * (half(ahead) - half(np.full_like(x, -1.0)))
    area = area + half(within) - half(-reach) + y * (within + reach)
    beyond = np.maximum(x, reach)
    return np.asarray(area + whole * (half(beyond) - half(reach)))
