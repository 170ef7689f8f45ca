"""Flat calibration boards: their geometry, their picture, and their corners in an image.

Board frame: x right and y down along the printed pattern, z into the board (away from the viewer), mm.
(0, 0, 0) is the outer top-left corner of the pattern, so an upright board facing the camera has
``camera_from_board`` with rotation identity. It is the frame of OpenCV's ``CharucoBoard``.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from calibration.geometry import Float
from calibration.provenance import Model
from calibration.targets.corners import refine_corners

MIN_CORNERS = 6
_PART_SEARCH_PX = 800


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
    sigma_px : ndarray (n,), float64
        Standard deviation of a coordinate of each, px, from the scatter of the grey values round its fit.
    disc_mm : float
        Radius of the discs whose centroids ``pixels`` are; 0 for corners.
    """

    ids: NDArray[np.int64]
    points_mm: Float
    pixels: Float
    sigma_px: Float
    disc_mm: float = 0.0


class NoBoard(NamedTuple):
    """What ``detect_board`` says where there is no board to be believed."""

    reason: str


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


def detect_board(image: NDArray[Any], board: Checkerboard | Charuco) -> BoardView | NoBoard:
    """Find the board's corners, or say why there is no plausible board.

    The grey values are stretched robustly to find the board (brightened where it is dim); the positions
    come from a fit to the grey values themselves (``refine_corners``). Corners that do not lie where
    their neighbours say are dropped; fewer than six, all on a line, or a mirrored board is no view.

    A ChArUco corner is known by its markers. A checkerboard is taken as the pattern with the black
    square at its top left; where it looks the same after a turn, the turn with its x axis most to the
    right is taken. Of a checkerboard that is partly out of view, the part found is
    counted from the top-left corner: good for ``fit_lens``, not to follow the board's origin.

    Parameters
    ----------
    image : ndarray (h, w)
        Any real type, preferably linear; NaN and infinities are pixels to ignore.
    board : Checkerboard or Charuco
        What to look for.

    Returns
    -------
    BoardView or NoBoard
        Corners in the order of their ids; or the reason why there are none.

    Raises
    ------
    ValueError
        The image is not a grey one.
    """
    values = np.asarray(image)
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise ValueError(f"want a grey image (h, w) of real numbers, not {values.dtype} {values.shape}")
    values = values.astype(np.float32)
    values = np.where(np.isfinite(values), values, np.float32(np.nan))
    best: BoardView | None = None
    for grey in _renditions(values):
        found = _find_charuco(grey, board) if isinstance(board, Charuco) else _find_checkerboard(grey, board)
        view = None if found is None else _refined_view(values, board, *found)
        if view is not None and (best is None or len(view.ids) > len(best.ids)):
            best = view
        if best is not None and 2 * len(best.ids) >= len(corners_mm(board)):
            break
    return NoBoard(f"no {board.kind} of {board.columns} x {board.rows} found") if best is None else best


def _renditions(values: NDArray[np.float32]) -> Iterator[NDArray[np.uint8]]:
    """8-bit pictures to search, the plain one first, then ones that lift the shadows."""
    valid = np.isfinite(values)
    if not valid.any():
        return
    low, high = (float(q) for q in np.percentile(values[valid], (0.5, 99.5)))
    if not high > low:
        return
    scaled = np.clip((np.where(valid, values, high) - low) / (high - low), 0, 1)
    if not valid.all():
        # A defect takes its neighbours' grey; the middle of a large hole is saturated, hence white.
        weight = cv2.blur(valid.astype(np.float32), (5, 5))
        near = cv2.blur(np.where(valid, scaled, 0).astype(np.float32), (5, 5)) / np.maximum(weight, 1e-6)
        scaled = np.where(valid | (weight < 1e-3), scaled, near)
    plain = np.asarray(np.rint(255 * scaled), np.uint8)
    yield plain
    yield np.asarray(np.rint(255 * scaled**0.4), np.uint8)
    quantiles = np.quantile(values[valid], np.linspace(0, 1, 513))
    rank = np.interp(np.where(valid, values, high), quantiles, np.linspace(0, 255, 513))
    yield np.asarray(np.rint(rank), np.uint8)


Found = tuple[NDArray[np.int64], Float]


def _find_charuco(grey: NDArray[np.uint8], board: Charuco) -> Found | None:
    layout = cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square_mm, board.marker_mm, _dictionary(board)
    )
    layout.setLegacyPattern(board.legacy)
    pixels, ids, _, _ = cv2.aruco.CharucoDetector(layout).detectBoard(grey)
    if ids is None or len(ids) < MIN_CORNERS:
        return None
    return np.asarray(ids, np.int64).ravel(), np.asarray(pixels, np.float64).reshape(-1, 2)


def _find_checkerboard(grey: NDArray[np.uint8], board: Checkerboard) -> Found | None:
    flags = cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_NORMALIZE_IMAGE
    ok, pixels = cv2.findChessboardCornersSB(grey, (board.columns, board.rows), flags=flags)
    if ok:
        grid = np.asarray(pixels, np.float64).reshape(board.rows, board.columns, 2)
        return _numbered(grey, grid, board)
    # A part of the board: any grid of corners, searched in a smaller picture as it takes long.
    shrink = max(1, round(max(grey.shape) / _PART_SEARCH_PX))
    small = cv2.resize(grey, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    flags |= cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_LARGER
    ok, pixels, meta = cv2.findChessboardCornersSBWithMeta(np.asarray(small), (3, 3), flags=flags)
    if not ok or meta is None:
        return None
    grid = np.asarray(pixels, np.float64).reshape(*np.shape(meta)[:2], 2)
    return _numbered(grey, (grid + 0.5) * shrink - 0.5, board)


def _numbered(grey: NDArray[np.uint8], grid: Float, board: Checkerboard) -> Found | None:
    """Ids of a grid of corners (rows, columns, 2), turned so that the top-left square is black."""
    along, down = grid[:, -1] - grid[:, 0], grid[-1] - grid[0]
    if np.linalg.det(np.stack([along.mean(axis=0), down.mean(axis=0)])) < 0:
        grid = grid[:, ::-1]
    best: tuple[tuple[bool, float], Found] | None = None
    for turned in (np.rot90(grid, k) for k in range(4)):
        rows, columns = turned.shape[:2]
        if rows > board.rows or columns > board.columns:
            continue
        centres = (turned[:-1, :-1] + turned[1:, :-1] + turned[:-1, 1:] + turned[1:, 1:]) / 4
        at = np.clip(np.rint(centres).astype(int), 0, [grey.shape[1] - 1, grey.shape[0] - 1])
        i, j = np.indices(centres.shape[:2])
        contrast = float(np.sum(grey[at[..., 1], at[..., 0]] * np.where((i + j) % 2, 1.0, -1.0)))
        x_axis = np.mean(turned[:, -1] - turned[:, 0], axis=0)
        right = float(x_axis[0] / np.linalg.norm(x_axis))
        # A part of the board may start one square further, which swaps the colours.
        shift_x, shift_y = 0, 0
        if contrast < 0:
            shift_x, shift_y = (1, 0) if columns < board.columns else (0, int(rows < board.rows))
        fits = contrast > 0 or shift_x + shift_y > 0
        gi, gj = np.indices((rows, columns))
        ids = ((gi + shift_y) * board.columns + gj + shift_x).ravel().astype(np.int64)
        if best is None or (fits, right) > best[0]:
            best = (fits, right), (ids, turned.reshape(-1, 2))
    return None if best is None else best[1]


def _refined_view(
    values: NDArray[np.float32], board: Checkerboard | Charuco, ids: NDArray[np.int64], pixels: Float
) -> BoardView | None:
    points = corners_mm(board)[ids]
    keep = _plausible(points, pixels, board.square_mm)
    if keep is None:
        return None
    ids, points, pixels = ids[keep], points[keep], pixels[keep]
    if isinstance(board, Charuco):
        ids, pixels = _with_unread(ids, pixels, board)
        points = corners_mm(board)[ids]
    axes, _ = _neighbourhood(points, pixels, board.square_mm)
    clear = 1.0 if isinstance(board, Checkerboard) else (1 - board.marker_mm / board.square_mm) / 2
    refined = refine_corners(values, pixels, axes, clear)
    columns = board.columns - (1 if isinstance(board, Charuco) else 0)
    bright = refined.bright_diagonal ^ ((ids // columns + ids % columns) % 2 == 1)
    good = refined.good & (bright == (2 * np.sum(bright & refined.good) > np.sum(refined.good)))
    ids, points, pixels, sigma = ids[good], points[good], refined.pixels[good], refined.sigma_px[good]
    keep = _plausible(points, pixels, board.square_mm)
    if keep is None:
        return None
    order = np.flatnonzero(keep)[np.argsort(ids[keep])]
    return BoardView(ids[order], points[order], pixels[order], np.maximum(sigma[order], 1e-3))


def _with_unread(ids: NDArray[np.int64], pixels: Float, board: Charuco) -> Found:
    """Add the corners whose markers could not be read, where the corners around them say."""
    every = corners_mm(board)
    homography, _ = cv2.findHomography(every[ids, :2], pixels, cv2.RANSAC, 2.0)
    if homography is None:
        return ids, pixels
    flat = cv2.perspectiveTransform(every[None, :, :2], homography)[0]
    for _ in range(2):
        offset = pixels - flat[ids]
        for corner in np.setdiff1d(np.arange(len(every)), ids):
            around = np.linalg.norm(every[ids[: len(offset)]] - every[corner], axis=1) < 1.5 * board.square_mm
            if around.sum() >= 3:
                ids = np.append(ids, corner)
                pixels = np.vstack([pixels, flat[corner] + np.mean(offset[around], axis=0)])
    return ids, pixels


def _plausible(points: Float, pixels: Float, square_mm: float) -> NDArray[np.bool_] | None:
    """Which corners agree with their neighbours; None where the rest is no board."""
    keep = np.ones(len(points), dtype=bool)
    for _ in range(5):
        if keep.sum() < MIN_CORNERS:
            return None
        spread = np.linalg.svd(points[keep, :2] - points[keep, :2].mean(axis=0), compute_uv=False)
        if spread[1] < 0.5 * square_mm:
            return None
        axes, error = _neighbourhood(points[keep], pixels[keep], square_mm)
        turning = np.linalg.det(axes)
        bad = (error > 0.2 * np.sqrt(np.abs(turning))) | (turning <= 0)
        if not bad.any():
            return keep
        # The worst ones go first: a wrong corner also spoils what its neighbours are told.
        bad &= (error >= 0.5 * error.max()) | (turning <= 0)
        keep[np.flatnonzero(keep)[bad]] = False
    return None


def _neighbourhood(points: Float, pixels: Float, square_mm: float) -> tuple[Float, Float]:
    """Image of a square's sides at each corner (n, 2, 2) and how far the neighbours miss the corner, px."""
    p = points[:, :2] / square_mm
    difference = p[:, None] - p
    weight = np.exp(-np.sum(difference**2, axis=2) / (2 * 1.2**2))
    weight += 1e-6  # ties a lone corner to the whole board
    np.fill_diagonal(weight, 0)
    design = np.concatenate([-difference, np.ones((*weight.shape, 1))], axis=2)
    normal = np.einsum("ij,ija,ijb->iab", weight, design, design)
    solution = np.linalg.solve(normal, np.einsum("ij,ija,jc->iac", weight, design, pixels))
    return np.swapaxes(solution[:, :2], 1, 2), np.linalg.norm(solution[:, 2] - pixels, axis=1)
