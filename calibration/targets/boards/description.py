"""Flat calibration boards as they are described: kinds, sizes, points, and where one looks like itself.

Board frame: x right and y down along the printed pattern, z into the board (away from the viewer), mm.
(0, 0, 0) is the outer top-left corner of the pattern, so an upright board facing the camera has
``camera_from_board`` with rotation identity. It is the frame of OpenCV's ``CharucoBoard``.
"""

from functools import cache
from typing import Annotated, Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from calibration.geometry import Float
from calibration.provenance import Model

Ids = NDArray[np.int64]
TAG_FAMILY, TAG_BITS, TAG_BORDER = "DICT_APRILTAG_36h11", 6, 2


class Checkerboard(Model):
    """Plain checkerboard; the outer top-left square is black.

    Attributes
    ----------
    columns, rows : int
        Inner corners, as in OpenCV's ``patternSize``: one less than the squares.
    square_mm : float
    marker : bool
        Three dots in the middle, as of OpenCV's radon checkerboard: a part of the board is then enough, and
        each corner is known. With C columns and R rows of squares they sit in the squares (column, row)
        (C // 2, R // 2 - 1), (C // 2, R // 2) and (C // 2 + 1, R // 2), counted from 0.
    """

    kind: Literal["checkerboard"] = "checkerboard"
    columns: int = Field(ge=2)
    rows: int = Field(ge=2)
    square_mm: float = Field(gt=0, allow_inf_nan=False)
    marker: bool = False

    @model_validator(mode="after")
    def _roomy(self) -> Self:
        if self.marker and (self.columns < 4 or self.rows < 3):
            raise ValueError(f"{self.columns}x{self.rows} corners leave no room for the marker: want 4x3")
        return self

    @property
    def dots(self) -> tuple[tuple[int, int], ...]:
        """Squares (column, row) with a dot of the other colour."""
        if not self.marker:
            return ()
        column, row = (self.columns + 1) // 2, (self.rows + 1) // 2
        return (column, row - 1), (column, row), (column + 1, row)


DOT_RADIUS = 0.17
"""Of the marker's dots, in squares."""


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
    square_mm: float = Field(gt=0, allow_inf_nan=False)
    marker_mm: float = Field(gt=0, allow_inf_nan=False)
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
        markers, available = self.columns * self.rows // 2, len(dictionary(self.dictionary).bytesList)
        if markers > available:
            raise ValueError(f"{markers} markers needed, {self.dictionary} has {available}")
        return self

    @property
    def white_first(self) -> bool:
        """Whether the top-left square is white."""
        return self.legacy and self.rows % 2 == 0


class AprilGrid(Model):
    """Kalibr's grid of AprilTags (36h11, border of two modules) with black squares between their corners.

    The tags are numbered row by row from the bottom left, as Kalibr does; the corners row by row from the
    top left, as on all boards here. The small squares stand round the outer tags too.

    Attributes
    ----------
    columns, rows : int
        Tags.
    tag_mm : float
        Side of a tag over its black border; Kalibr's ``tagSize``.
    gap_mm : float
        Between two tags, and the side of the small squares; Kalibr's ``tagSpacing`` is ``gap_mm / tag_mm``.
    """

    kind: Literal["aprilgrid"] = "aprilgrid"
    columns: int = Field(ge=1)
    rows: int = Field(ge=1)
    tag_mm: float = Field(gt=0, allow_inf_nan=False)
    gap_mm: float = Field(gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        available = len(dictionary(TAG_FAMILY).bytesList)
        if self.columns * self.rows > available:
            raise ValueError(f"{self.columns * self.rows} tags needed, the family 36h11 has {available}")
        if self.gap_mm > self.tag_mm:
            raise ValueError(f"gap_mm {self.gap_mm:g} must not be above tag_mm {self.tag_mm:g}")
        return self


class CircleGrid(Model):
    """Black discs on white, in rows and columns or (asymmetric) with every other row moved by half.

    Attributes
    ----------
    columns, rows : int
        Discs, as in OpenCV's ``patternSize``.
    spacing_mm : float
        Between the centres of neighbours; of an asymmetric grid between rows, half the distance in a row.
    diameter_mm : float, optional
        Of a disc; without it 0.4 of the spacing, as OpenCV's pattern generator draws them.
    asymmetric : bool
        Every second row, the first of them the second, is moved right by ``spacing_mm``.
    """

    kind: Literal["circles"] = "circles"
    columns: int = Field(ge=2)
    rows: int = Field(ge=2)
    spacing_mm: float = Field(gt=0, allow_inf_nan=False)
    diameter_mm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    asymmetric: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        nearest = self.spacing_mm * (np.sqrt(2.0) if self.asymmetric else 1.0)
        if 2 * self.disc_mm >= 0.95 * nearest:
            raise ValueError(f"discs of {2 * self.disc_mm:g} mm touch: they are {nearest:.4g} mm apart")
        return self

    @property
    def disc_mm(self) -> float:
        """Radius of a disc."""
        return self.spacing_mm / 5 if self.diameter_mm is None else self.diameter_mm / 2


AnyBoard = Checkerboard | Charuco | AprilGrid | CircleGrid
Board = Annotated[AnyBoard, Field(discriminator="kind")]


@cache
def dictionary(name: str) -> Any:
    """Predefined OpenCV dictionary."""
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


def grid_shape(board: AnyBoard) -> tuple[int, int]:
    """Rows and columns of the board's points; their product is the number of points."""
    match board:
        case Checkerboard() | CircleGrid():
            return board.rows, board.columns
        case Charuco():
            return board.rows - 1, board.columns - 1
        case AprilGrid():
            return 2 * board.rows, 2 * board.columns


def pitch_mm(board: AnyBoard) -> float:
    """Typical distance of neighbouring points."""
    match board:
        case Checkerboard() | Charuco():
            return board.square_mm
        case AprilGrid():
            return (board.tag_mm + board.gap_mm) / 2
        case CircleGrid():
            return board.spacing_mm * (float(np.sqrt(2.0)) if board.asymmetric else 1.0)


def size_mm(board: AnyBoard) -> tuple[float, float]:
    """Width and height of the printed pattern, without a margin, mm.

    Half a spacing of white round the outer discs' centres belongs to a circle grid, of an asymmetric one a
    whole.
    """
    match board:
        case Checkerboard():
            return (board.columns + 1) * board.square_mm, (board.rows + 1) * board.square_mm
        case Charuco():
            return board.columns * board.square_mm, board.rows * board.square_mm
        case AprilGrid():
            step = board.tag_mm + board.gap_mm
            return board.columns * step + board.gap_mm, board.rows * step + board.gap_mm
        case CircleGrid(asymmetric=False):
            return board.columns * board.spacing_mm, board.rows * board.spacing_mm
        case CircleGrid():
            return (2 * board.columns + 1) * board.spacing_mm, (board.rows + 1) * board.spacing_mm


def corners_mm(board: AnyBoard) -> Float:
    """Points of a board in its frame, row by row from the top left: (n, 3), mm; the row number is the id.

    Inner corners of a checkerboard or ChArUco board, the corners of the tags of an AprilGrid, centres of
    discs.
    """
    rows, columns = grid_shape(board)
    i, j = (index.ravel() for index in np.indices((rows, columns)))
    match board:
        case Checkerboard() | Charuco():
            x, y = (j + 1) * board.square_mm, (i + 1) * board.square_mm
        case AprilGrid():
            x, y = (
                board.gap_mm + (k // 2) * (board.tag_mm + board.gap_mm) + (k % 2) * board.tag_mm
                for k in (j, i)
            )
        case CircleGrid(asymmetric=False):
            x, y = (j + 0.5) * board.spacing_mm, (i + 0.5) * board.spacing_mm
        case CircleGrid():
            x, y = (2 * j + i % 2 + 1) * board.spacing_mm, (i + 1) * board.spacing_mm
    return np.asarray(np.stack([x, y, np.zeros(len(x))], axis=-1), np.float64)


def symmetries(board: AnyBoard) -> tuple[Ids, ...]:
    """Renumberings under which the board looks the same, the identity first.

    Boards with markers have only the identity: their ids are absolute. A plain checkerboard with an even
    sum of columns and rows looks the same after a half turn, as does every symmetric circle grid, and an
    asymmetric one with an even number of rows; square ones also after a quarter turn. Of these each picture
    gives the ids only up to one of the permutations.

    Returns
    -------
    tuple of ndarray (n,), int64
        ``p[k]`` is the id that the point ``k`` may be taken for.
    """
    rows, columns = grid_shape(board)
    grid = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    half = grid[::-1, ::-1].ravel()
    quarter, back = np.rot90(grid).ravel(), np.rot90(grid, -1).ravel()
    same = (grid.ravel(),)
    match board:
        case Checkerboard(marker=False):
            if rows == columns and rows % 2 == 0:
                return (*same, quarter, half, back)
            return (*same, half) if (rows + columns) % 2 == 0 else same
        case CircleGrid(asymmetric=False):
            return (*same, quarter, half, back) if rows == columns else (*same, half)
        case CircleGrid() if rows % 2 == 0:
            return (*same, half)
    return same


def described(board: AnyBoard) -> str:
    """The board in the words of the compact text form, for instance ``checkerboard 9x6 25``."""
    head = f"{board.kind} {board.columns}x{board.rows}"
    match board:
        case Checkerboard():
            return f"{head} {board.square_mm:g}" + " marker" * board.marker
        case Charuco():
            tail = f"{board.square_mm:g} {board.marker_mm:g} {board.dictionary}"
            return f"{head} {tail}" + " legacy" * board.legacy
        case AprilGrid():
            return f"{head} {board.tag_mm:g} {board.gap_mm:g}"
        case CircleGrid():
            return f"{head} {board.spacing_mm:g} {2 * board.disc_mm:g}" + " asymmetric" * board.asymmetric
