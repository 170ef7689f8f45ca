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
    grid_shape,
    pitch_mm,
)
from calibration.targets.boards.plausibility import MIN_POINTS, plausible
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


def find_charuco(grey: Grey, board: Charuco) -> Found | NoBoard:
    """Corners next to markers that were read."""
    pixels, ids, _, marker_ids = cv2.aruco.CharucoDetector(_layout(board)).detectBoard(grey)
    markers = [] if marker_ids is None else [int(i) for i in np.ravel(marker_ids)]
    if ids is None or len(ids) < MIN_POINTS:
        few = f"only {len(markers)} of its {board.columns * board.rows // 2} markers read"
        return NoBoard(few if markers else "none of its markers seen")
    return Found(np.asarray(ids, np.int64).ravel(), np.asarray(pixels, np.float64).reshape(-1, 2))


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
    quads, numbers = _tags(grey, TAG_FAMILY, TAG_BORDER, cv2.aruco.CORNER_REFINE_NONE)
    if len(numbers) < board.columns * board.rows:
        # Finds tags whose outline has grown together with the squares, but fewer of the blurred.
        more, others = _tags(grey, TAG_FAMILY, TAG_BORDER, cv2.aruco.CORNER_REFINE_APRILTAG)
        new = ~np.isin(others, numbers)
        quads, numbers = np.concatenate([quads, more[new]]), np.concatenate([numbers, others[new]])
    if not len(numbers):
        return NoBoard("none of its tags seen")
    foreign = numbers[numbers >= board.columns * board.rows]
    once = np.isin(numbers, np.flatnonzero(np.bincount(numbers) == 1))
    if 2 * len(foreign) > len(numbers):
        return NoBoard(
            f"tags up to number {foreign.max()} seen, a board of {board.columns}x{board.rows} has none "
            f"above {board.columns * board.rows - 1}"
        )
    good = once & (numbers < board.columns * board.rows)
    quads, numbers = quads[good], numbers[good]
    row, column = board.rows - 1 - numbers // board.columns, numbers % board.columns
    # A tag's corners in the order of OpenCV, which sees it upside down: from the bottom right, clockwise.
    i, j = 2 * row[:, None] + (1, 1, 0, 0), 2 * column[:, None] + (1, 0, 0, 1)
    ids = (i * 2 * board.columns + j).ravel().astype(np.int64)
    side = np.linalg.norm(quads - np.roll(quads, 1, axis=1), axis=2).min(axis=1)
    pixels = _saddles(grey, quads, 0.7 * side * min(board.gap_mm / board.tag_mm, 0.2))
    return Found(ids, pixels)


def _saddles(grey: Grey, quads: Float, reach_px: Float) -> Float:
    """Corners (n * 4, 2) moved to the saddle point in reach; where there is none, left."""
    out = quads.reshape(-1, 2).copy()
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
        out[np.flatnonzero(inside)[near]] = moved[near]
    return out


def _tags(grey: Grey, family: str, border: int, refinement: int) -> tuple[Float, Ids]:
    parameters = cv2.aruco.DetectorParameters()
    parameters.markerBorderBits = border
    parameters.cornerRefinementMethod = refinement
    quads, ids, _ = cv2.aruco.ArucoDetector(dictionary(family), parameters).detectMarkers(grey)
    if ids is None:
        return np.zeros((0, 4, 2)), np.zeros(0, np.int64)
    return np.asarray(quads, np.float64).reshape(-1, 4, 2), np.asarray(ids, np.int64).ravel()


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


def misdescribed(grey: Grey, board: Charuco) -> str | None:
    """What fits the markers where the description does not: the other layout or columns and rows swapped."""
    swapped = {"columns": board.rows, "rows": board.columns}
    for changes, words in (
        ({"legacy": not board.legacy}, "without legacy" if board.legacy else "with legacy"),
        (swapped, f"as {board.rows}x{board.columns}"),
    ):
        if "legacy" in changes and board.rows % 2:
            continue
        other = board.replace(**changes)
        found = find_charuco(grey, other)
        if isinstance(found, NoBoard):
            continue
        fits = plausible(corners_mm(other)[found.ids], found.pixels, board.square_mm)
        if not isinstance(fits, NoBoard) and fits.sum() >= 0.5 * np.prod(grid_shape(board)):
            return words
    return None
