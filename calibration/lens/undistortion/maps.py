"""Where each pixel of a pinhole view is seen in a camera's image."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.model import LensModel

ROUNDING_PX = 1e-3

_NOWHERE = -9.0
_TILE = 64
_NODES = 6
_TOLERANCE_PX = 1e-4


class Maps(NamedTuple):
    """Column and row (h, w), float32, in the camera's image, and whether the camera saw the place.

    Where it did not, both lie far outside the image.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    valid: NDArray[np.bool_]


def make_maps(lens: LensModel, view: BrownConrady, rotation: Float) -> Maps:
    """Maps of a view of which ``rotation`` is Rt_view_camera.

    A lens images smoothly: in tiles of 64 px a polynomial of degree five in each direction, through places
    that the model gives, stands for the model. Where it is off by more than 1e-4 px at other places of the
    tile, or the model images nothing nearby, every pixel is asked for.
    """
    across, down = -(-view.width // _TILE), -(-view.height // _TILE)
    nodes = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    # Where the error is greatest, between the nodes and on the tile's rim.
    checks = np.cos(np.pi * np.array([0, 1, 3, 5, 6]) / _NODES)
    basis = np.linalg.inv(chebvander(nodes, _NODES - 1))
    pixels = (np.arange(_TILE) - (_TILE - 1) / 2) / (_TILE / 2)
    to_pixels, to_checks = (chebvander(at, _NODES - 1) @ basis for at in (pixels, checks))

    def tiles(at: Float) -> Float:
        """Places (2, down, across, n, n) at the places ``at`` (n,), from -1 to 1, of every tile."""
        middle = (_TILE - 1) / 2 + _TILE * np.arange(max(across, down))[:, None]
        line = middle + (_TILE / 2) * at
        places = _project(lens, view, rotation, line[:across].ravel(), line[:down].ravel())
        return places.reshape(2, down, len(at), across, len(at)).swapaxes(2, 3)

    coarse, held = tiles(nodes), tiles(checks)
    off = np.abs(to_checks @ coarse @ to_checks.T - held).max(axis=(0, 3, 4))
    imaged = np.isfinite(coarse).any(axis=(0, 3, 4)) | np.isfinite(held).any(axis=(0, 3, 4))
    exact = ~(off <= _TOLERANCE_PX) | _grown(~np.isfinite(off))
    exact &= _grown(np.asarray(imaged))

    size = (view.height, view.width)
    out = Maps(np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.bool_))
    for row in range(down):
        rows = slice(row * _TILE, min((row + 1) * _TILE, view.height))
        strip = (to_pixels[: rows.stop - rows.start] @ coarse[:, row]).swapaxes(1, 2) @ to_pixels.T
        _store(lens, out, rows, slice(0, view.width), strip.reshape(2, -1, across * _TILE)[..., : view.width])
    for row, column in np.argwhere(exact):
        rows = slice(row * _TILE, min((row + 1) * _TILE, view.height))
        columns = slice(column * _TILE, min((column + 1) * _TILE, view.width))
        u, v = np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)
        _store(lens, out, rows, columns, _project(lens, view, rotation, u, v))
    for array in out:
        array.flags.writeable = False
    return out


def _project(
    lens: LensModel, view: BrownConrady, rotation: Float, u: NDArray[np.number], v: NDArray[np.number]
) -> Float:
    """Places (2, v, u) in the camera's image of the columns and rows of a view."""
    x, y = np.meshgrid((u - view.cx) / view.fx, (v - view.cy) / view.fy)
    return np.moveaxis(lens.project(np.stack([x, y, np.ones_like(x)], axis=-1) @ rotation), -1, 0)


def _grown(tiles: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tiles and all that touch them."""
    return cv2.dilate(tiles.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def _store(lens: LensModel, out: Maps, rows: slice, columns: slice, places: Float) -> None:
    valid = out.valid[rows, columns]
    valid[:] = True
    # Rounding must not put the outermost pixels outside.
    for place, last, target in ((places[0], lens.width - 1, out.x), (places[1], lens.height - 1, out.y)):
        valid &= (place >= -ROUNDING_PX) & (place <= last + ROUNDING_PX)
        np.clip(place, 0, last, out=target[rows, columns], casting="same_kind")
    for target in (out.x, out.y):
        target[rows, columns][~valid] = _NOWHERE
