"""Depth to triangles."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.lens import LensModel
from calibration.photometric import sight
from calibration.provenance import FitError

# Pixels along the normal; a sharp crease half-way between two pixels stays below.
_JUMP = 1.0


class Mesh(NamedTuple):
    """Triangles in the camera frame.

    Attributes
    ----------
    vertices : ndarray (v, 3), float32
        In ``unit``.
    faces : ndarray (f, 3), int32
        Counter-clockwise seen from the camera: face normals point towards it.
    colours : ndarray (v, 3), uint8, or None
        sRGB.
    normals : ndarray (v, 3), float32, or None
    unit : {"mm", "px"}
        px: an orthographic view, whose scale nothing tells.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colours: NDArray[np.uint8] | None = None
    normals: NDArray[np.float32] | None = None
    unit: Literal["mm", "px"] = "mm"


def mesh(
    depth_mm: NDArray[np.floating],
    lens: LensModel | None,
    albedo: NDArray[np.floating] | None = None,
    *,
    normals: NDArray[np.floating] | None = None,
    steepest_deg: float = 85.0,
) -> Mesh:
    """Triangle mesh of a depth map, one vertex per pixel that is part of a triangle.

    Parameters
    ----------
    depth_mm : ndarray (h, w)
        NaN where unknown.
    lens : LensModel or None
        None: orthographic view, vertices (column, row, depth).
    albedo : ndarray (h, w) or (h, w, 3), optional
        Becomes the colour: scaled so that its 99th percentile is white, with the sRGB curve.
    normals : ndarray (h, w, 3), optional
        Stored with the vertices. Triangles with a side that leaves the surface by more than a pixel by the
        normals of both its ends span a jump of depth and are left out.
    steepest_deg : float
        Triangles whose normal is further than this from the line of sight span a jump of depth and are left
        out.

    Returns
    -------
    Mesh

    Raises
    ------
    FitError
        No triangle.
    """
    h, w = depth_mm.shape
    if lens is None:
        y, x = np.mgrid[:h, :w]
        points = np.stack([x, y, depth_mm], axis=-1).astype(np.float64)
        sights = np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape)
    else:
        if (lens.height, lens.width) != (h, w):
            raise ValueError(f"lens is for {lens.width} x {lens.height} px, depth is {w} x {h}")
        sights = sight(lens, np.arange(h), np.arange(w)).astype(np.float64)
        points = sights * depth_mm[..., None]
    flat, sights = points.reshape(-1, 3), sights.reshape(-1, 3)
    at = np.arange(h * w, dtype=np.int32).reshape(h, w)
    a, b, c, d = (at[s].ravel() for s in (np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]))
    known = np.asarray(np.isfinite(flat).all(axis=1))
    z = np.where(known, flat[:, 2], np.inf)
    some = known[a].astype(np.int8) + known[b] + known[c] + known[d] >= 3
    a, b, c, d = a[some], b[some], c[some], d[some]
    # Each quad is cut along the diagonal that bends less, or that leaves out its one unknown corner.
    with np.errstate(invalid="ignore"):
        straight = np.abs(z[a] - z[d]) <= np.abs(z[b] - z[c])
    other = np.asarray(np.logical_not(straight))[:, None]
    first = np.where(other, np.stack([a, c, b], 1), np.stack([a, c, d], 1))
    second = np.where(other, np.stack([b, c, d], 1), np.stack([a, d, b], 1))
    faces = np.stack([first, second], axis=1).reshape(-1, 3)
    faces = faces[known[faces].all(axis=1)]
    one, two, three = (flat[faces[:, i]] for i in range(3))
    across = np.cross(two - one, three - one)
    cosine = -np.sum(across * sights[faces[:, 0]], axis=1)
    size = np.linalg.norm(across, axis=1) * np.linalg.norm(sights[faces[:, 0]], axis=1)
    faces = faces[cosine > np.cos(np.radians(steepest_deg)) * size]
    if normals is not None:
        pitch = _pitch(sights.reshape(h, w, 3)).ravel() * (1.0 if lens is None else flat[:, 2])
        faces = faces[~_torn(flat, np.asarray(normals, np.float64).reshape(-1, 3), pitch, faces)]
    if not len(faces):
        raise FitError("no triangle: the depth has no three neighbouring pixels; is the mask too thin?")
    used = np.unique(faces)
    rank = np.zeros(h * w, np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    colours = None if albedo is None else _colours(albedo).reshape(-1, 3)[used]
    vectors = None if normals is None else np.asarray(normals, np.float32).reshape(-1, 3)[used]
    unit: Literal["mm", "px"] = "px" if lens is None else "mm"
    return Mesh(flat[used].astype(np.float32), rank[faces], colours, vectors, unit)


def _pitch(sights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distance (h, w) of neighbouring pixels at depth 1; 1 for parallel lines of sight."""
    if np.ptp(sights[..., 0]) == 0:
        return np.ones(sights.shape[:2])
    return np.asarray(np.linalg.norm(np.gradient(sights, axis=1), axis=2))


def _torn(
    points: NDArray[np.floating],
    normals: NDArray[np.floating],
    pitch: NDArray[np.floating],
    faces: NDArray[np.int32],
) -> NDArray[np.bool_]:
    """Triangles with a side that the normals of both its ends contradict."""
    torn = np.zeros(len(faces), bool)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        p, q = faces[:, i], faces[:, j]
        step = points[q] - points[p]
        off = [np.abs(np.sum(normals[end] * step, axis=1)) for end in (p, q)]
        with np.errstate(invalid="ignore"):
            torn |= np.fmin(*off) > _JUMP * pitch[p]
    return torn


def _colours(albedo: NDArray[np.floating]) -> NDArray[np.uint8]:
    value = albedo if albedo.ndim == 3 else np.repeat(albedo[..., None], 3, axis=2)
    known = value[np.isfinite(value)]
    white = float(np.quantile(known, 0.99)) if known.size else 1.0
    linear = np.clip(np.nan_to_num(value / (white or 1.0), nan=0.0), 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(srgb * 255), np.uint8)
