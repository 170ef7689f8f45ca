"""Normals to depth, along the true lines of sight."""

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.photometric import NormalMap, sight
from calibration.provenance import FitError
from calibration.surface.poisson import solve_differences

# Below it the error of a normal is the surface between two pixels, not noise.
_FLOOR_DEG = 0.3
_LEAST_WEIGHT = 1e-4


def integrate(
    normal_map: NormalMap,
    lens: LensModel | None,
    *,
    depth_mm: NDArray[np.floating] | float | None = None,
    tolerance: float = 1e-6,
) -> NDArray[np.float32]:
    """Depth whose surface has the given normals.

    Parameters
    ----------
    normal_map : NormalMap
        Its ``sigma_deg`` weighs the pixels, with their slant to the line of sight.
    lens : LensModel or None
        None: orthographic view along +z.
    depth_mm : float or ndarray (h, w), optional
        What the normals cannot tell, for each connected component of valid pixels: in perspective its factor
        (the median of depth over ``depth_mm`` becomes 1; default 1 mm), in an orthographic view its offset
        (the median difference becomes 0; default 0).
    tolerance : float
        Of the linear solver: residual relative to the right side.

    Returns
    -------
    ndarray (h, w), float32
        Depth z in mm, camera frame; in px for an orthographic view. NaN where invalid or without neighbours.

    Raises
    ------
    FitError
        No two neighbouring pixels are valid.

    Notes
    -----
    In perspective the unknown is log z. For two pixels with rays p, q (z = 1) on a plane with normal n,
    z_q / z_p = n.p / n.q exactly, whatever the lens does; each edge takes the mean of its two normals'
    logarithms. Discontinuities of depth are bridged smoothly. Least squares over all edges: J.-D. Durou et
    al., "A comprehensive introduction to photometric 3D-reconstruction", doi:10.1007/978-3-030-51866-0_1.
    """
    h, w = normal_map.valid.shape
    if lens is not None and (lens.height, lens.width) != (h, w):
        raise ValueError(f"lens is for {lens.width} x {lens.height} px, normals are {w} x {h}")
    rays = None if lens is None else sight(lens, np.arange(h), np.arange(w))
    return integrate_grid(
        normal_map.normals, normal_map.sigma_deg, rays, depth_mm=depth_mm, tolerance=tolerance
    ).astype(np.float32)


def integrate_grid(
    normals: NDArray[np.floating],
    sigma_deg: NDArray[np.floating],
    rays: NDArray[np.floating] | None,
    *,
    depth_mm: NDArray[np.floating] | float | None = None,
    tolerance: float = 1e-6,
) -> Float:
    """``integrate`` on any grid of rays (h, w, 3) with z = 1, as float64; None for an orthographic view."""
    perspective = rays is not None
    sights = np.broadcast_to(np.array([0.0, 0.0, 1.0]), normals.shape) if rays is None else rays
    facing = -np.einsum("hwc,hwc->hw", normals, sights, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        # Beyond 89 degrees of slant a difference of depth has no use.
        inside = np.isfinite(facing) & (facing > 0.0175) & np.isfinite(sigma_deg)
        length = np.linalg.norm(sights, axis=2)
        trust = (facing / length) ** 4 / (sigma_deg.astype(np.float64) ** 2 + _FLOOR_DEG**2)
    trust[~inside] = 0.0
    if not inside.any():
        raise FitError("no valid normal to integrate")
    trust = np.clip(trust / np.median(trust[inside]), _LEAST_WEIGHT, 10.0) * inside
    wx, gx = _edges(normals, sights, facing, trust, perspective, axis=1)
    wy, gy = _edges(normals, sights, facing, trust, perspective, axis=0)
    if not (wx.any() or wy.any()):
        raise FitError("no two valid normals are neighbours: nothing to integrate")
    u, _ = solve_differences(wx, wy, gx, gy, tolerance=tolerance)
    joined = (wx > 0) | (wy > 0)
    joined[:, 1:] |= wx[:, :-1] > 0
    joined[1:] |= wy[:-1] > 0
    return _level(u, joined, depth_mm, perspective)


def components(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Number of 4-connected components and their labels from 1; 0 outside."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return count - 1, np.asarray(labels, np.int32)


def _edges(
    normals: NDArray[np.floating],
    sights: NDArray[np.floating],
    facing: Float,
    trust: Float,
    perspective: bool,
    axis: int,
) -> tuple[Float, Float]:
    """Weights and differences between each pixel and its next along an axis, (h, w), zero at the end."""
    here = (slice(None), slice(None, -1)) if axis == 1 else (slice(None, -1), slice(None))
    there = (slice(None), slice(1, None)) if axis == 1 else (slice(1, None), slice(None))
    weights, differences = np.zeros_like(trust), np.zeros_like(trust)
    a, b = trust[here], trust[there]
    ok = (a > 0) & (b > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        if perspective:
            # n.p and n.q for the normals of both ends.
            cross = -np.einsum("hwc,hwc->hw", normals[here], sights[there], dtype=np.float64)
            back = -np.einsum("hwc,hwc->hw", normals[there], sights[here], dtype=np.float64)
            ok &= (cross > 0.25 * facing[here]) & (back > 0.25 * facing[there])
            step = 0.5 * (np.log(facing[here] / cross) + np.log(back / facing[there]))
        else:
            tilt = normals[..., 0 if axis == 1 else 1].astype(np.float64) / facing
            step = 0.5 * (tilt[here] + tilt[there])
        weights[here] = np.where(ok, 2 * a * b / (a + b), 0.0)
    differences[here] = np.where(ok, step, 0.0)
    return weights, differences


def _level(
    u: Float, joined: NDArray[np.bool_], depth_mm: NDArray[np.floating] | float | None, perspective: bool
) -> Float:
    depth = np.full(u.shape, np.nan)
    given = np.broadcast_to(
        np.asarray((1.0 if perspective else 0.0) if depth_mm is None else depth_mm), u.shape
    )
    count, labels = components(joined)
    # Labels in the order of their pixels: one pass instead of one mask per component.
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(1, count + 2))
    for first, last in pairwise(ends):
        at = order[first:last]
        part, wanted = u.ravel()[at], given.ravel()[at]
        known = np.isfinite(wanted) & (wanted > 0 if perspective else True)
        if not known.any():
            known, wanted = np.ones_like(known), np.full_like(wanted, np.nanmedian(given))
        if perspective:
            offset = np.median(np.log(wanted[known]) - part[known])
            depth.ravel()[at] = np.exp(part + offset)
        else:
            depth.ravel()[at] = part + np.median(wanted[known] - part[known])
    return depth
