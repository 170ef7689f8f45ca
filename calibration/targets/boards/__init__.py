"""Flat calibration boards: their description, their picture, and their points in an image."""

from calibration.targets.boards.description import (
    AnyBoard,
    AprilGrid,
    Board,
    Charuco,
    Checkerboard,
    CircleGrid,
    corners_mm,
    described,
    pitch_mm,
    size_mm,
    symmetries,
)
from calibration.targets.boards.detection import detect_board, is_placed
from calibration.targets.boards.drawing import Pattern, board_image, pattern, reflectance_at
from calibration.targets.boards.view import BoardView, Misdescribed, NoBoard

__all__ = [
    "AnyBoard",
    "AprilGrid",
    "Board",
    "BoardView",
    "Charuco",
    "Checkerboard",
    "CircleGrid",
    "Misdescribed",
    "NoBoard",
    "Pattern",
    "board_image",
    "corners_mm",
    "described",
    "detect_board",
    "is_placed",
    "pattern",
    "pitch_mm",
    "reflectance_at",
    "size_mm",
    "symmetries",
]
