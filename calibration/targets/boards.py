"""Flat calibration boards: their geometry, their picture, and their corners in an image.

Board frame: x right and y down along the printed pattern, z into the board (away from the viewer), mm.
(0, 0, 0) is the outer top-left corner of the pattern, so an upright board facing the camera has
``camera_from_board`` with rotation identity. It is the frame of OpenCV's ``CharucoBoard``.
"""

from typing import Annotated, Any, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from calibration.geometry import Float
from calibration.provenance import Model

MIN_CORNERS = 6


class Checkerboard(Model):
    """Plain checkerboard; the outer top-left square is black.

    Attributes
    ----------
    columns, rows : int
        Inner corners, as in OpenCV's ``patternSize``: one less than the squares.
    square_mm : float
    """

    kind: Literal["checkerboard"] = "checkerboard"
    columns: int = Field(ge=2)
    rows: int = Field(ge=2)
    square_mm: float = Field(gt=0)


class Charuco(Model):
    """Checkerboard with an ArUco marker in each white square, so that part of it is enough.

    Attributes
    ----------
    columns, rows : int
        Squares.
    square_mm, marker_mm : float
        Sides; the marker side includes its black border of one module.
    dictionary : str
        Name of a predefined OpenCV dictionary.
    legacy : bool
        Layout of OpenCV before 4.6: with an even number of rows the top-left square is white, not black.
    """

    kind: Literal["charuco"] = "charuco"
    columns: int = Field(ge=2)
    rows: int = Field(ge=2)
    square_mm: float = Field(gt=0)
    marker_mm: float = Field(gt=0)
    dictionary: str = "DICT_5X5_1000"
    legacy: bool = False

    @field_validator("dictionary")
    @classmethod
    def _known(cls, name: str) -> str:
        if not name.startswith("DICT_") or not hasattr(cv2.aruco, name):
            raise ValueError(f"{name}: no such OpenCV dictionary (for example DICT_5X5_1000)")
        return name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.marker_mm >= self.square_mm:
            raise ValueError(f"marker_mm {self.marker_mm:g} must be below square_mm {self.square_mm:g}")
        markers, available = self.columns * self.rows // 2, len(_dictionary(self).bytesList)
        if markers > available:
            raise ValueError(f"{markers} markers needed, {self.dictionary} has {available}")
        return self


Board = Annotated[Checkerboard | Charuco, Field(discriminator="kind")]


class BoardView(NamedTuple):
    """Corners of a board in one image.

    Attributes
    ----------
    ids : ndarray (n,), int64
        Row-major numbers into ``corners_mm(board)``.
    points_mm : ndarray (n, 3), float64
        Board frame.
    pixels : ndarray (n, 2), float64
        Where they are seen; pixel (0, 0) is the centre of the top-left pixel.
    sigma_px : float
        Standard deviation of a pixel coordinate, from the noise of the image.
    """

    ids: NDArray[np.int64]
    points_mm: Float
    pixels: Float
    sigma_px: float


def size_mm(board: Checkerboard | Charuco) -> tuple[float, float]:
    """Width and height of the printed pattern, without a margin, mm."""
    extra = 1 if isinstance(board, Checkerboard) else 0
    return (board.columns + extra) * board.square_mm, (board.rows + extra) * board.square_mm


def corners_mm(board: Checkerboard | Charuco) -> Float:
    """Inner corners in the board frame, row by row: (n, 3), mm. Their row number is the corner's id."""
    less = 0 if isinstance(board, Checkerboard) else 1
    x, y = np.arange(1, board.columns + 1 - less), np.arange(1, board.rows + 1 - less)
    gx, gy = np.meshgrid(x, y)
    return np.asarray(
        np.stack([gx.ravel(), gy.ravel(), np.zeros(gx.size)], axis=-1) * board.square_mm, np.float64
    )


def board_image(board: Checkerboard | Charuco, px_per_mm: float) -> NDArray[np.uint8]:
    """Picture of the pattern, x right, y down, without a margin (print it on white).

    The pattern's outer corner (0, 0) is the outer corner of the top-left pixel: the centre of pixel
    (u, v) lies at board x = (u + 0.5) / px_per_mm, y = (v + 0.5) / px_per_mm. Every pixel is the exact
    mean over its area, so edges need not fall on pixels.

    Parameters
    ----------
    board : Checkerboard or Charuco
        What to draw.
    px_per_mm : float
        Scale; any positive number.

    Returns
    -------
    ndarray (h, w), uint8
        0 black, 255 white; h and w rounded up, beyond the pattern white.
    """
    x_edges, y_edges, cells = _cells(board)
    width, height = (int(np.ceil(side * px_per_mm - 1e-6)) for side in size_mm(board))
    cover_x, cover_y = _coverage(x_edges * px_per_mm, width), _coverage(y_edges * px_per_mm, height)
    black = cover_y @ (1.0 - cells) @ cover_x.T
    return np.asarray(np.rint(255 * (1 - black)), dtype=np.uint8)


def _dictionary(board: Charuco) -> Any:
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))


def _cells(board: Checkerboard | Charuco) -> tuple[Float, Float, Float]:
    """Edges along x and y (mm) of the rectangles of one colour, and their colours (1 white)."""
    if isinstance(board, Checkerboard):
        i, j = np.indices((board.rows + 1, board.columns + 1))
        edges = [np.arange(n + 2, dtype=np.float64) * board.square_mm for n in (board.columns, board.rows)]
        return edges[0], edges[1], ((i + j) % 2).astype(np.float64)
    dictionary = _dictionary(board)
    modules = dictionary.markerSize + 2
    margin = (board.square_mm - board.marker_mm) / 2
    inside = np.concatenate([[0.0], margin + np.arange(modules + 1) * board.marker_mm / modules])
    edges = [
        np.append(
            (np.arange(n, dtype=np.float64)[:, None] * board.square_mm + inside).ravel(), n * board.square_mm
        )
        for n in (board.columns, board.rows)
    ]
    step = len(inside)
    cells = np.zeros((board.rows * step, board.columns * step))
    white_first = board.legacy and board.rows % 2 == 0
    marker = 0
    for row in range(board.rows):
        for column in range(board.columns):
            if (row + column) % 2 == (1 if white_first else 0):
                continue
            square = np.ones((step, step))
            bits = cv2.aruco.generateImageMarker(dictionary, marker, modules, borderBits=1)
            square[1 : modules + 1, 1 : modules + 1] = bits > 0
            cells[row * step : (row + 1) * step, column * step : (column + 1) * step] = square
            marker += 1
    return edges[0], edges[1], cells


def _coverage(edges: Float, pixels: int) -> Float:
    """Part of each pixel's side covered by each interval: (pixels, intervals)."""
    left, right = np.arange(pixels)[:, None], np.arange(1, pixels + 1)[:, None]
    overlap = np.minimum(right, edges[1:]) - np.maximum(left, edges[:-1])
    return np.asarray(np.clip(overlap, 0, None))


def detect_board(image: NDArray[Any], board: Checkerboard | Charuco) -> BoardView | None:
    """Find the board's corners, or None where there is no plausible board.

    Parameters
    ----------
    image : ndarray (h, w)
        Any real type; float radiance may hold NaN.
    board : Checkerboard or Charuco
        What to look for.
    """
    grey = _to_8_bit(image)
    if isinstance(board, Charuco):
        layout = cv2.aruco.CharucoBoard(
            (board.columns, board.rows), board.square_mm, board.marker_mm, _dictionary(board)
        )
        layout.setLegacyPattern(board.legacy)
        found, ids, _, _ = cv2.aruco.CharucoDetector(layout).detectBoard(grey)
        if ids is None or len(ids) < MIN_CORNERS:
            return None
        ids, pixels = np.asarray(ids, np.int64).ravel(), np.asarray(found, np.float64).reshape(-1, 2)
    else:
        ok, found = cv2.findChessboardCornersSB(
            grey, (board.columns, board.rows), flags=cv2.CALIB_CB_ACCURACY
        )
        if not ok:
            return None
        pixels = np.asarray(found, np.float64).reshape(-1, 2)
        ids = np.arange(len(pixels), dtype=np.int64)
    return BoardView(ids, corners_mm(board)[ids], pixels, 0.1)


def _to_8_bit(image: NDArray[Any]) -> NDArray[np.uint8]:
    values = np.asarray(image, np.float32)
    low, high = np.nanpercentile(values, (0.5, 99.5))
    scaled = (np.nan_to_num(values, nan=high) - low) / max(float(high - low), 1e-12)
    return np.asarray(np.rint(255 * np.clip(scaled, 0, 1)), np.uint8)
