"""Markers that a lens bends: read where their neighbours foretell them, on patches drawn straight."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.description import Ids

Grey = NDArray[np.uint8]
Reader = Callable[[Grey], tuple[Float, Ids]]
_PATCH_PX = 120  # of a marker's side, drawn straight
_MARGIN = 0.8  # of a side: what is drawn round a marker
_MISS = 0.6  # of a side: how far a corner may lie from where it was foretold
_LEAST_SIDE_PX = 8.0
_NEAR = 1.5  # of a pitch: neighbours within it say most
_AROUND, _FEWEST = 2.3, 3  # so many neighbours, within so many pitches, foretell a place
_STIFF = 2e-4  # weight against bending, for where few neighbours tell it


def read_bent(
    grey: Grey, layout: Float, pitch_mm: float, quads: Float, numbers: Ids, read: Reader
) -> tuple[Float, Ids]:
    """Read the markers that were not, from those around them outwards.

    The picture around a marker is taken as a quadratic of the board's coordinates, which follows a lens over
    a pitch or two, not over the whole board. A marker counts only where its own number is read in its own
    place, so a wrong guess of the place costs the marker and nothing else.

    Parameters
    ----------
    grey : ndarray (h, w)
    layout : ndarray (m, 4, 2)
        Corners of marker ``k`` on the board, mm, in the order of the reader.
    pitch_mm : float
        Distance of neighbouring markers.
    quads : ndarray (n, 4, 2)
        Corners of the markers read, px.
    numbers : ndarray (n,)
        Their numbers, each once and below m.
    read : callable
        Quads and numbers of the markers in a picture.

    Returns
    -------
    ndarray (p, 4, 2), ndarray (p,)
        Of all markers read, those given first.
    """
    middle = layout.mean(axis=1)
    seen_by: dict[int, int] = {}
    while len(numbers):
        new = []
        for k in np.setdiff1d(np.arange(len(layout)), numbers).tolist():
            around = int(np.sum(np.linalg.norm(middle[numbers] - middle[k], axis=1) < _AROUND * pitch_mm))
            # A marker is tried again once more of those around it have been read.
            if around < _FEWEST or around <= seen_by.get(k, 0):
                continue
            seen_by[k] = around
            quad = _read_one(grey, layout, k, pitch_mm, quads, numbers, read)
            if quad is not None:
                new.append((k, quad))
        if not new:
            break
        quads = np.concatenate([quads, [quad for _, quad in new]])
        numbers = np.append(numbers, [k for k, _ in new])
    return quads, numbers


def _read_one(
    grey: Grey, layout: Float, number: int, pitch_mm: float, quads: Float, numbers: Ids, read: Reader
) -> Float | None:
    """Corners (4, 2) of one marker in the picture, or None."""
    own = layout[number]
    centre = own.mean(axis=0)
    bend = _quadratic((layout[numbers].reshape(-1, 2) - centre) / pitch_mm, quads.reshape(-1, 2))
    side = float(np.linalg.norm(own[1] - own[0]))
    foretold = _at(bend, (own - centre) / pitch_mm)
    height, width = grey.shape
    inside = np.all((foretold >= 0) & (foretold <= (width - 1, height - 1)))
    if not inside or np.linalg.norm(foretold - np.roll(foretold, 1, axis=0), axis=1).min() < _LEAST_SIDE_PX:
        return None
    margin = _MARGIN * _PATCH_PX
    steps = (np.arange(_PATCH_PX + 2 * int(margin)) - margin + 0.5) / _PATCH_PX - 0.5
    patch_mm = np.stack(np.meshgrid(steps, steps), axis=-1) * side / pitch_mm
    at = _at(bend, patch_mm.reshape(-1, 2)).reshape(*patch_mm.shape).astype(np.float32)
    patch = cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found, ids = read(np.asarray(patch))
    mine = found[ids == number]
    if len(mine) != 1:
        return None
    straight = ((mine[0] - margin + 0.5) / _PATCH_PX - 0.5) * side / pitch_mm
    off = np.linalg.norm(straight - (own - centre) / pitch_mm, axis=1)
    return _at(bend, straight) if off.max() < _MISS * side / pitch_mm else None


def _quadratic(p: Float, pixels: Float) -> Float:
    """Coefficients (6, 2) of 1, x, y, x^2/2, xy, y^2/2 about the origin."""
    design = _powers(p)
    weight = np.exp(-np.sum(p**2, axis=1) / (2 * _NEAR**2)) + 1e-9
    normal = (design * weight[:, None]).T @ design
    stiff = np.diag([0, 0, 0, 1, 1, 1]) * _STIFF
    return np.asarray(np.linalg.solve(normal + stiff, (design * weight[:, None]).T @ pixels))


def _powers(p: Float) -> Float:
    x, y = p.T
    return np.stack([np.ones_like(x), x, y, x * x / 2, x * y, y * y / 2], axis=1)


def _at(coefficients: Float, p: Float) -> Float:
    return np.asarray(_powers(p) @ coefficients)
