"""What a bundle adjustment seeks: lenses, cameras, poses, the board's shape; and the corners it has."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens.model import BoardShape, LensModel

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


class State(NamedTuple):
    """What is fitted, of c cameras and v board poses.

    Attributes
    ----------
    lenses : tuple of LensModel
        One a camera.
    camera_rotations, camera_translations : ndarray (c, 3, 3), (c, 3)
        camera_from_rig, mm. Identity for a camera alone.
    rotations, translations : ndarray (v, 3, 3), (v, 3)
        rig_from_board, mm.
    board : BoardShape
    """

    lenses: tuple[LensModel, ...]
    camera_rotations: Float
    camera_translations: Float
    rotations: Float
    translations: Float
    board: BoardShape = BoardShape()


class Corners(NamedTuple):
    """What is seen.

    Attributes
    ----------
    points : ndarray (n, 3)
        As the board is described, mm.
    pixels : ndarray (n, 2)
    sigma : ndarray (n,)
        Of a coordinate as the detection tells it, px; 0 where it tells nothing.
    view : ndarray (n,)
        Number of the pose; ascending.
    camera : ndarray (n,)
    disc_mm : float
        Radius of the discs whose centroids the pixels are; 0 for corners.
    """

    points: Float
    pixels: Float
    sigma: Float
    view: Index
    camera: Index
    disc_mm: float = 0.0


class Free(NamedTuple):
    """What is unknown besides the poses: a mask of parameters a lens, cameras (c,), and the board's shape.

    One camera, or the rig's frame is nowhere. ``scale`` only where the distance of two cameras is held.
    """

    lens: tuple[Mask, ...]
    cameras: Mask
    warp: bool = False
    aspect: bool = False
    scale: bool = False


class Prior(NamedTuple):
    """Gaussian prior on a lens's parameters: precision (p, p), dense or scipy.sparse, about a mean (p,)."""

    precision: Float
    mean: Float


class Layout(NamedTuple):
    """Where the global unknowns stand in ``Solution.covariance``.

    Attributes
    ----------
    lens : tuple of slice
        Parameters of each lens.
    cameras : tuple of slice
        Of each camera: a small turn about its own axes (rad; true rotation = turn after the fitted one), and
        the translation of camera_from_rig (mm).
    board : slice
        Warp along x and y (mm), aspect, scale.
    """

    lens: tuple[slice, ...]
    cameras: tuple[slice, ...]
    board: slice


def layout_of(state: State) -> Layout:
    """Where each global unknown of a state stands."""
    lens, at = [], 0
    for model in state.lenses:
        lens.append(slice(at, at + len(model.parameters)))
        at = lens[-1].stop
    cameras = tuple(slice(at + 6 * k, at + 6 * k + 6) for k in range(len(state.lenses)))
    at += 6 * len(state.lenses)
    return Layout(tuple(lens), cameras, slice(at, at + 4))


def placed(state: State, corners: Corners, points: Float | None = None) -> tuple[Float, Float]:
    """Corners (n, 3) turned into the rig's axes, without the shift, and in the frames of their cameras."""
    from calibration.lens.kernels import place

    return place(
        state.board.shaped(corners.points if points is None else points), corners.view, corners.camera,
        state.rotations, state.translations, state.camera_rotations, state.camera_translations,
    )  # fmt: skip


def alone(lens: LensModel, rotations: Float, translations: Float) -> State:
    """One camera, which is the rig: poses are camera_from_board."""
    return State((lens,), np.eye(3)[None], np.zeros((1, 3)), rotations, translations)
