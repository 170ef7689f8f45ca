"""Whether points lie as those of a flat board do, and how sharp the picture is there."""

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.lattice import one_square_apart
from calibration.targets.boards.view import NoBoard

MIN_POINTS = 6
_APART = 0.8  # part of the neighbours by number that must be neighbours in the picture
_MISS = 0.2  # of a pitch: how far a point may lie from where its neighbours say
_TIE = 1e-6  # weight that ties a lone corner to the whole board
_SMEAR, _BLUR = 0.15, 0.1  # of a pitch
_LEAST_SMEAR_PX, _LEAST_BLUR_PX = 5.0, 2.5
_WIDEST_PX = 3.8  # where the fit of a corner ends to follow


def plausible(points: Float, pixels: Float, pitch_mm: float) -> NDArray[np.bool_] | NoBoard:
    """Which points agree with their neighbours, or why the rest is no board.

    Parameters
    ----------
    points : ndarray (n, 3)
        Board frame, mm.
    pixels : ndarray (n, 2)
        Where they are seen.
    pitch_mm : float
        Distance of neighbours.
    """
    keep = np.ones(len(points), dtype=bool)
    if keep.sum() < MIN_POINTS:
        return NoBoard(f"only {keep.sum()} of its points seen, want at least {MIN_POINTS}")
    for _ in range(5):
        if keep.sum() < MIN_POINTS:
            return NoBoard(f"the points found do not lie as on the board described: only {keep.sum()} agree")
        spread = np.linalg.svd(points[keep, :2] - points[keep, :2].mean(axis=0), compute_uv=False)
        if spread[1] < 0.5 * pitch_mm:
            return NoBoard(f"all {keep.sum()} points seen lie on one line")
        axes, error = neighbourhood(points[keep], pixels[keep], pitch_mm)
        # Close to a fisheye the grid curves within a pitch; where few points are near, a plane says more.
        error = np.minimum(error, _curved_error(points[keep], pixels[keep], pitch_mm))
        turning = np.linalg.det(axes)
        if np.mean(turning < 0) > 0.8 and np.median(error / np.sqrt(np.abs(turning))) < _MISS:
            return NoBoard("the board is seen mirrored: turn the picture back")
        bad = (error > _MISS * np.sqrt(np.abs(turning))) | (turning <= 0)
        if not bad.any():
            return keep
        # The worst ones go first: a wrong corner also spoils what its neighbours are told.
        bad &= (error >= 0.5 * error.max()) | (turning <= 0)
        keep[np.flatnonzero(keep)[bad]] = False
    return NoBoard("the points found do not lie as on the board described")


def spaced_out(grey: NDArray[np.uint8], points: Float, pixels: Float, pitch_mm: float) -> NoBoard | None:
    """Refuse corners of a checkerboard between which the picture shows more corners, or that are scattered.

    Between two neighbours one side of the edge is the brighter one all the way; where a row was skipped the
    sides change half way.

    Parameters
    ----------
    grey : ndarray (h, w), uint8
    points : ndarray (n, 3)
        Board frame, mm.
    pixels : ndarray (n, 2)
        Where they are seen, px of ``grey``.
    pitch_mm : float
        Side of a square.
    """
    step = (points[None, :, :2] - points[:, None, :2]) / pitch_mm
    start, end = np.nonzero(np.abs(step - (1, 0)).max(axis=2) < 0.1)
    above, below = np.nonzero(np.abs(step - (0, 1)).max(axis=2) < 0.1)
    start, end = np.concatenate([start, above]), np.concatenate([end, below])
    if len(np.union1d(start, end)) < _APART * len(points):
        return NoBoard("the corners found are scattered: most have no neighbour one square away")
    if np.mean(one_square_apart(grey, pixels[start], pixels[end])) < _APART:
        return NoBoard("corners with consecutive numbers lie several squares apart in the picture")
    return None


def neighbourhood(points: Float, pixels: Float, pitch_mm: float) -> tuple[Float, Float]:
    """Image of a pitch along x and y at each point (n, 2, 2) and how far the neighbours miss it, px (n,)."""
    p = points[:, :2] / pitch_mm
    difference = p[:, None] - p
    weight = np.exp(-np.sum(difference**2, axis=2) / (2 * 1.2**2))
    weight += _TIE
    np.fill_diagonal(weight, 0)
    design = np.concatenate([-difference, np.ones((*weight.shape, 1))], axis=2)
    normal = np.einsum("ij,ija,ijb->iab", weight, design, design)
    # Where all other points lie on one line there is nothing across it: the pitch there is 0.
    normal[:, [0, 1], [0, 1]] += 1e-12
    solution = np.linalg.solve(normal, np.einsum("ij,ija,jc->iac", weight, design, pixels))
    return np.swapaxes(solution[:, :2], 1, 2), np.linalg.norm(solution[:, 2] - pixels, axis=1)


def _curved_error(points: Float, pixels: Float, pitch_mm: float) -> Float:
    """How far the quadratic through the points around each one misses it, px (n,)."""
    p = points[:, :2] / pitch_mm
    weight = _nearness(p) + _TIE
    np.fill_diagonal(weight, 0)
    return np.asarray(np.linalg.norm(_quadratic(p, pixels, weight)[:, 0], axis=1))


def bending(points: Float, pixels: Float, pitch_mm: float) -> Float:
    """Second derivatives of the image along x, ``[i, :, 0]``, and y at each point, px per pitch^2: (n, 2, 2).

    From a quadratic through the points around; none where there are too few to tell.
    """
    p = points[:, :2] / pitch_mm
    return np.swapaxes(_quadratic(p, pixels, _nearness(p))[:, (3, 5)], 1, 2)


def _nearness(p: Float) -> Float:
    return np.asarray(np.exp(-np.sum((p - p[:, None]) ** 2, axis=2) / (2 * 1.5**2)))


def _quadratic(p: Float, pixels: Float, weight: Float) -> Float:
    """Coefficients of 1, x, y, x^2/2, xy, y^2/2 about each point, from where it is seen: (n, 6, 2)."""
    x, y = np.moveaxis(p - p[:, None], 2, 0)
    design = np.stack([np.ones_like(x), x, y, x * x / 2, x * y, y * y / 2], axis=2)
    weighted = design * weight[..., None]
    normal = np.swapaxes(weighted, 1, 2) @ design
    index = np.arange(6)
    normal[:, index, index] += (1e-12, 1e-12, 1e-12, 0.02, 0.02, 0.02)
    moved = pixels - pixels[:, None]
    return np.asarray(np.linalg.solve(normal, np.swapaxes(weighted, 1, 2) @ moved))


def unsharp(normals: Float, blur_px: Float, pitch_px: float) -> NoBoard | None:
    """Refuse a picture that is smeared by motion or badly out of focus.

    The blur along the edges' normals is that of one covariance over the board: motion stretches it along one
    direction. A smear hides where the board was, and with a rolling shutter or a flickering light its middle
    is not the middle of the exposure.

    Parameters
    ----------
    normals : ndarray (m, 2)
        Unit normals of edges.
    blur_px : ndarray (m,)
        Standard deviation of the blur along them.
    pitch_px : float
        Distance of neighbouring points in the image.
    """
    if len(blur_px) < 2 * MIN_POINTS:
        return None
    x, y = normals.T
    design = np.stack([x * x, 2 * x * y, y * y], axis=1)
    # Edges along two directions only leave the covariance's third number open: then it is taken as 0.
    held = np.array([[0.0, 0.1 * np.sqrt(len(x)), 0.0]])
    weight = np.ones(len(blur_px))
    for _ in range(10):
        rows = np.concatenate([design * weight[:, None], held])
        a, b, c = np.linalg.lstsq(rows, np.append(blur_px**2 * weight, 0.0), rcond=None)[0]
        off = np.abs(blur_px**2 - design @ (a, b, c))
        weight = 1 / (1 + (off / max(2 * float(np.median(off)), 1e-6)) ** 2)
    low, high = np.clip(np.linalg.eigvalsh([[a, b], [b, c]]), 0, None)
    smear, blur = float(np.sqrt(12 * (high - low))), float(np.sqrt(high))
    if smear > max(_LEAST_SMEAR_PX, _SMEAR * pitch_px) and high > 4 * low:
        return NoBoard(f"the picture is smeared over {smear:.1f} px: the board or the camera moved")
    if blur > min(max(_LEAST_BLUR_PX, _BLUR * pitch_px), _WIDEST_PX):
        return NoBoard(
            f"the picture is blurred: edges are {blur:.1f} px soft where squares are {pitch_px:.0f} px"
        )
    return None
