"""Boards with markers: ChArUco and AprilGrid. Their points are known by the markers' numbers."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.description import (
    TAG_BORDER,
    TAG_FAMILY,
    AprilGrid,
    Charuco,
    Ids,
    corners_mm,
    dictionary,
    pitch_mm,
)
from calibration.targets.boards.layout import Markers, misdescribed
from calibration.targets.boards.plausibility import MIN_POINTS
from calibration.targets.boards.straightened import read_bent
from calibration.targets.boards.view import Found, NoBoard

Grey = NDArray[np.uint8]
_FAMILIES = (
    "DICT_4X4_1000",
    "DICT_5X5_1000",
    "DICT_6X6_1000",
    "DICT_7X7_1000",
    "DICT_ARUCO_ORIGINAL",
    "DICT_ARUCO_MIP_36h12",
    "DICT_APRILTAG_16h5",
    "DICT_APRILTAG_25h9",
    "DICT_APRILTAG_36h11",
)


# How far a corner may be off along the line to the next marker: of an outline where shadows are lifted, of
# a tag that has grown into the squares, and drawn to saddle points.
_OUTLINE_PX, _GROWN_PX, _SADDLE_PX = 1.8, 4.0, 0.3


def find_charuco(grey: Grey, board: Charuco) -> Found | NoBoard:
    """Corners next to markers that were read."""
    pixels, ids, quads, numbers = cv2.aruco.CharucoDetector(_layout(board)).detectBoard(grey)
    markers = _markers(quads, numbers)
    wrong = misdescribed(markers._replace(quads=_edged(markers.quads)), board)
    if wrong is not None:
        return wrong
    if ids is None or len(ids) < MIN_POINTS:
        count = board.columns * board.rows // 2
        read = len(np.unique(markers.below(count).numbers))
        return NoBoard(f"only {read} of its {count} markers read" if read else "none of its markers seen")
    return Found(np.asarray(ids, np.int64).ravel(), np.asarray(pixels, np.float64).reshape(-1, 2))


def _edged(quads: Float) -> Float:
    """Outlines through the middle of a marker's outermost pixels, as OpenCV's are, moved to its edge."""
    middle = quads.mean(axis=1, keepdims=True)
    side = np.linalg.norm(quads - np.roll(quads, 1, axis=1), axis=2).mean(axis=1)[:, None, None]
    return np.asarray(middle + (quads - middle) * (1 + 1 / np.maximum(side, 1.0)))


def _layout(board: Charuco) -> Any:
    layout = cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square_mm, board.marker_mm, dictionary(board.dictionary)
    )
    layout.setLegacyPattern(board.legacy)
    return layout


def with_unread(found: Found, board: Charuco | AprilGrid) -> Found:
    """Add the corners whose markers could not be read, where the corners around them say."""
    ids, pixels = found
    every = corners_mm(board)
    homography, _ = cv2.findHomography(every[ids, :2], pixels, cv2.RANSAC, 2.0)
    if homography is None:
        return found
    flat = cv2.perspectiveTransform(every[None, :, :2], homography)[0]
    for _ in range(2):
        offset = pixels - flat[ids]
        for corner in np.setdiff1d(np.arange(len(every)), ids):
            around = np.linalg.norm(every[ids[: len(offset)]] - every[corner], axis=1) < 1.6 * pitch_mm(board)
            if around.sum() >= 3:
                ids = np.append(ids, corner)
                pixels = np.vstack([pixels, flat[corner] + np.mean(offset[around], axis=0)])
    return Found(ids, pixels)


def find_aprilgrid(grey: Grey, board: AprilGrid) -> Found | NoBoard:
    """Corners of the tags that were read, drawn to the saddle points between tag and small square."""
    quads, numbers, _ = _tags(grey, TAG_FAMILY, TAG_BORDER, cv2.aruco.CORNER_REFINE_NONE)
    if len(numbers) < board.columns * board.rows:
        # Finds tags whose outline has grown together with the squares, but fewer of the blurred.
        more, others, _ = _tags(grey, TAG_FAMILY, TAG_BORDER, cv2.aruco.CORNER_REFINE_APRILTAG)
        new = ~np.isin(others, numbers)
        quads, numbers = np.concatenate([quads, more[new]]), np.concatenate([numbers, others[new]])
    if not len(numbers):
        return NoBoard("none of its tags seen")
    side = np.linalg.norm(quads - np.roll(quads, 1, axis=1), axis=2).min(axis=1)
    quads, drawn = _saddles(grey, quads, 0.7 * side * min(board.gap_mm / board.tag_mm, 0.2))
    # OpenCV sees a tag upside down: its corners are from the bottom right, clockwise.
    edge_px = np.where(drawn.all(axis=1), _SADDLE_PX, _GROWN_PX)
    wrong = misdescribed(Markers(np.roll(quads, 2, axis=1), numbers, edge_px), board)
    if wrong is not None:
        return wrong
    foreign = numbers[numbers >= board.columns * board.rows]
    once = np.isin(numbers, np.flatnonzero(np.bincount(numbers) == 1))
    if 2 * len(foreign) > len(numbers):
        return NoBoard(
            f"tags up to number {foreign.max()} seen, a board of {board.columns}x{board.rows} has none "
            f"above {board.columns * board.rows - 1}"
        )
    good = once & (numbers < board.columns * board.rows)
    known = int(good.sum())
    quads, numbers = _with_bent(grey, board, quads[good], numbers[good])
    side = np.linalg.norm(quads - np.roll(quads, 1, axis=1), axis=2).min(axis=1)
    reach_px = 0.7 * side * min(board.gap_mm / board.tag_mm, 0.2)
    quads[known:] = _saddles(grey, quads[known:], reach_px[known:])[0]
    ids = _corners_of(numbers, board).ravel()
    return Found(ids, quads.reshape(-1, 2))


def _with_bent(grey: Grey, board: AprilGrid, quads: Float, numbers: Ids) -> tuple[Float, Ids]:
    """Add the tags that are bent too much to be read in the picture as it is."""
    layout = corners_mm(board)[_corners_of(np.arange(board.columns * board.rows), board), :2]

    def read(patch: Grey) -> tuple[Float, Ids]:
        found = _tags(patch, TAG_FAMILY, TAG_BORDER, cv2.aruco.CORNER_REFINE_NONE)
        return found[0], found[1]

    return read_bent(grey, layout, board.tag_mm + board.gap_mm, quads, numbers, read)


def _corners_of(numbers: Ids, board: AprilGrid) -> Ids:
    """Ids (n, 4) of the corners of tags, in the order of OpenCV, which sees a tag upside down.

    From the bottom right, clockwise.
    """
    row, column = board.rows - 1 - numbers // board.columns, numbers % board.columns
    i, j = 2 * row[:, None] + (1, 1, 0, 0), 2 * column[:, None] + (1, 0, 0, 1)
    return np.asarray(i * 2 * board.columns + j, np.int64)


def _saddles(grey: Grey, quads: Float, reach_px: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Corners (n, 4, 2) moved to the saddle point in reach, and which were; where there is none, left."""
    out, drawn = quads.reshape(-1, 2).copy(), np.zeros(4 * len(quads), dtype=bool)
    reach = np.repeat(np.maximum(np.rint(reach_px), 2).astype(int), 4)
    rows, columns = grey.shape
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 30, 0.01)
    for r in np.unique(reach):
        inside = np.all((out > r + 2) & (out < np.array([columns, rows]) - r - 3), axis=1) & (reach == r)
        if not inside.any():
            continue
        start = np.ascontiguousarray(out[inside], np.float32).reshape(-1, 1, 2)
        moved = cv2.cornerSubPix(grey, start, (int(r), int(r)), (-1, -1), criteria).reshape(-1, 2)
        near = np.linalg.norm(moved - out[inside], axis=1) < 1.5 * r
        drawn[np.flatnonzero(inside)[near]] = True
        out[drawn & inside] = moved[near]
    return out.reshape(-1, 4, 2), drawn.reshape(-1, 4)


def _tags(grey: Grey, family: str, border: int, refinement: int) -> Markers:
    parameters = cv2.aruco.DetectorParameters()
    parameters.markerBorderBits = border
    parameters.cornerRefinementMethod = refinement
    quads, ids, _ = cv2.aruco.ArucoDetector(dictionary(family), parameters).detectMarkers(grey)
    return _markers(quads, ids)


def _markers(quads: Any, numbers: Any) -> Markers:
    """Markers as OpenCV gives them, None for nothing."""
    if numbers is None:
        quads, numbers = [], []
    numbers = np.asarray(numbers, np.int64).ravel()
    outlines = np.asarray(quads, np.float64).reshape(-1, 4, 2)
    return Markers(outlines, numbers, np.full(len(numbers), _OUTLINE_PX))


def markers_seen(grey: Grey) -> str | None:
    """The family of which at least two markers are in the picture, in words."""
    best, name = 1, None
    for family in _FAMILIES:
        for border in (TAG_BORDER, 1) if family == TAG_FAMILY else (1,):
            count = len(np.unique(_tags(grey, family, border, cv2.aruco.CORNER_REFINE_NONE)[1]))
            if count > best:
                short = family.removesuffix("_1000")
                best, name = (
                    count,
                    f"{count} markers of {short}" + " with Kalibr's border" * (border == TAG_BORDER),
                )
    return name
