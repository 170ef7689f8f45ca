"""What detection hands back."""

from typing import NamedTuple

from calibration.geometry import Float
from calibration.targets.boards.description import Ids


class BoardView(NamedTuple):
    """Points of a board in one image.

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

    ids: Ids
    points_mm: Float
    pixels: Float
    sigma_px: Float
    disc_mm: float = 0.0


class NoBoard(NamedTuple):
    """What ``detect_board`` says where there is no board to be believed."""

    reason: str


class Misdescribed(NoBoard):
    """The picture shows another board than the one described: another search will say the same."""


class Found(NamedTuple):
    """Points before they are measured: ids (n,) and pixels (n, 2), good to a few pixels."""

    ids: Ids
    pixels: Float
