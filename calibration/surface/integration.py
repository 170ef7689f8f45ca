"""Normals to depth, along the true lines of sight, with the jumps of depth kept."""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.photometric import NormalMap, sight
from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.surface.edges import Edges
from calibration.surface.jumps import with_jumps
from calibration.surface.pieces import continued
from calibration.surface.poisson import Differences


def integrate(
    normal_map: NormalMap,
    lens: LensModel | None,
    *,
    depth_mm: NDArray[np.floating] | float | None = None,
    anchors_mm: NDArray[np.floating] | None = None,
    anchor_sigma_mm: float = 1.0,
    smooth: bool = False,
    tolerance: float = 1e-6,
    track: Track = silent,
) -> NDArray[np.float32]:
    """Depth whose surface has the given normals.

    Parameters
    ----------
    normal_map : NormalMap
        Its ``sigma_deg`` weighs the pixels, with their slant to the line of sight.
    lens : LensModel or None
        None: orthographic view along +z.
    depth_mm : float or ndarray (h, w), optional
        What the normals cannot tell: in perspective a factor (the median of depth over ``depth_mm`` becomes
        1; default 1 mm), in an orthographic view an offset (the median difference becomes 0; default 0). A
        number is for the largest connected component of valid pixels, a map for each it knows pixels of.
    anchors_mm : ndarray (h, w), optional
        Depth known at some pixels, NaN elsewhere. They pull the surface, and a component that has one takes
        its place from them instead of from ``depth_mm``. In px for an orthographic view, as the result.
    anchor_sigma_mm : float
        One sigma of the anchors.
    smooth : bool
        True: every step between neighbours is believed, and a jump of depth is smeared. Quicker, and better
        where it is known that nothing jumps.
    tolerance : float
        Of the linear solver: residual relative to the right side.
    track : callable, optional
        Shows progress, of surfaces with jumps.

    Returns
    -------
    ndarray (h, w), float32
        Depth z in mm, camera frame; in px for an orthographic view. NaN where invalid or without neighbours.

    Raises
    ------
    FitError
        No two neighbouring pixels are valid.
    ValueError
        The lens or the anchors are for another picture size, or the anchors cannot be depths.

    Notes
    -----
    In perspective the unknown is log z. For two pixels with rays p, q (z = 1) on a plane with normal n,
    z_q / z_p = n.p / n.q exactly, whatever the lens does; each edge takes the mean of its two normals'
    logarithms. Least squares over all edges: J.-D. Durou et al., "A comprehensive introduction to photometric
    3D-reconstruction", doi:10.1007/978-3-030-51866-0_1.

    Surfaces with jumps from several starts compete, and the one with the fewest broken steps is taken. Two
    starts are bilateral: along each axis a pixel holds rather to the neighbour to which depth changes less
    (X. Cao et al., "Bilateral normal integration", doi:10.1007/978-3-031-19769-7_32, k = 2). Two are cut
    where normals contradict each other, and their pieces put where most of their borders agree (``pieces``).
    Each is then put in place: a step is believed by how well it fits, given the noise and the bend of the
    surface (a redescending loss). Where a piece may as well rise from a surface as sink into it, it rises.

    A jump is told only from what runs around it. A piece that jumps on all its border may be anywhere, and is
    put where most of its border fits; give it anchors.

    Of components that do not touch, normals do not tell how one stands to another. One for which neither
    ``depth_mm`` nor an anchor says it goes on from the component nearest to it, as if the surface ran
    through the gap. That is right for specks and parts that gaps in the mask cut off; another thing behind
    or before the first is put in the same depth.
    """
    h, w = normal_map.valid.shape
    if lens is not None and (lens.height, lens.width) != (h, w):
        raise ValueError(f"lens is for {lens.width} x {lens.height} px, normals are {w} x {h}")
    rays = None if lens is None else sight(lens, np.arange(h), np.arange(w))
    return integrate_grid(
        normal_map.normals,
        normal_map.sigma_deg,
        rays,
        depth_mm=depth_mm,
        anchors_mm=anchors_mm,
        anchor_sigma_mm=anchor_sigma_mm,
        smooth=smooth,
        tolerance=tolerance,
        track=track,
    ).astype(np.float32)


def integrate_grid(
    normals: NDArray[np.floating],
    sigma_deg: NDArray[np.floating],
    rays: NDArray[np.floating] | None,
    *,
    depth_mm: NDArray[np.floating] | float | None = None,
    anchors_mm: NDArray[np.floating] | None = None,
    anchor_sigma_mm: float = 1.0,
    smooth: bool = True,
    tolerance: float = 1e-6,
    track: Track = silent,
) -> Float:
    """``integrate`` on any grid of rays (h, w, 3) with z = 1, as float64; None for an orthographic view."""
    depth = np.full(normals.shape[:2], np.nan)
    perspective = rays is not None
    _check_anchors(anchors_mm, anchor_sigma_mm, depth.shape, perspective)
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(normals).all(axis=2) & np.isfinite(sigma_deg)
    if not valid.any():
        raise FitError("no valid normal to integrate: the mask is empty or every normal is NaN")
    # All work is on the box around what is valid.
    y, x, height, width = cv2.boundingRect(valid.astype(np.uint8).T)
    box = np.s_[y : y + height, x : x + width]
    given = np.asarray((1.0 if perspective else 0.0) if depth_mm is None else depth_mm)
    if given.ndim:
        given = np.broadcast_to(given, depth.shape)[box]
    edges = Edges(normals[box], sigma_deg[box], None if rays is None else rays[box])
    pull = wanted = None
    if anchors_mm is not None:
        pull, wanted = _pulls(anchors_mm[box], anchor_sigma_mm, perspective)
        pull *= edges.unit
    solver = Differences(edges.shape)
    start = None
    if pull is not None and wanted is not None and pull.any():
        start = np.full(edges.shape, np.median(wanted[pull > 0]))
    solver.weigh(edges.base, pull)
    u, _ = solver.solve(
        edges.mean, wanted=wanted, start=start, tolerance=tolerance if smooth else max(tolerance, 1e-3)
    )
    if not smooth:
        u = with_jumps(edges, solver, u, pull, wanted, tolerance, track)
    u = _level(u, edges, given, None if pull is None else pull > 0, perspective)
    depth[box] = np.exp(u) if perspective else u
    return depth


def components(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Number of 4-connected components and their labels from 1; 0 outside."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return count - 1, np.asarray(labels, np.int32)


def _check_anchors(
    anchors_mm: NDArray[np.floating] | None, sigma_mm: float, shape: tuple[int, ...], perspective: bool
) -> None:
    if anchors_mm is None:
        return
    if anchors_mm.shape != shape:
        raise ValueError(f"anchors are {anchors_mm.shape}, normals are {shape}")
    if not 0 < sigma_mm < np.inf:
        raise ValueError(f"anchor_sigma_mm must be positive and finite, not {sigma_mm}")
    with np.errstate(invalid="ignore"):
        if perspective and (anchors_mm <= 0).any():
            raise ValueError("an anchor lies behind the camera: depths are positive, NaN where unknown")


def _pulls(anchors_mm: NDArray[np.floating], sigma_mm: float, perspective: bool) -> tuple[Float, Float]:
    """Weight and value of what the unknown is pulled to; zero where no anchor is."""
    known = np.isfinite(anchors_mm)
    z = np.where(known, anchors_mm, 1.0).astype(np.float64)
    sigma = sigma_mm / z if perspective else np.full(z.shape, sigma_mm)
    return np.where(known, sigma**-2, 0.0), np.where(known, np.log(z) if perspective else z, 0.0)


def _level(
    u: Float,
    edges: Edges,
    given: NDArray[np.floating],
    anchored: NDArray[np.bool_] | None,
    perspective: bool,
) -> Float:
    """``u`` with each component where its anchors or the map ``given`` have it; others go on from those.

    Where neither tells of any, the largest takes its place from ``given``. NaN outside of all.
    """
    count, labels = components(edges.joined())
    # Labels in the order of their pixels: one pass instead of one mask per component.
    flat = labels.ravel()
    order = np.flatnonzero(flat)
    if count > 1:
        order = order[np.argsort(flat[order], kind="stable")]
    parts = np.split(order, np.searchsorted(flat[order], np.arange(2, count + 1)))
    wanted = given if given.ndim else np.full(u.shape, np.nan)
    known = np.isfinite(wanted) & (wanted > 0 if perspective else True)
    offset = np.full(count, np.nan)
    for label, at in enumerate(parts):
        if anchored is not None and anchored.ravel()[at].any():
            offset[label] = 0.0
        elif known.ravel()[at].any():
            at = at[known.ravel()[at]]
            place = wanted.ravel()[at].astype(np.float64)
            offset[label] = np.median((np.log(place) if perspective else place) - u.ravel()[at])
    if np.isnan(offset).all():
        label = int(np.argmax([len(at) for at in parts]))
        place = np.nanmedian(given)
        offset[label] = (np.log(place) if perspective else place) - np.median(u.ravel()[parts[label]])
    loose = np.isnan(offset)
    moved = np.where(labels > 0, u + np.append(offset, 0.0)[labels - 1], np.nan)
    if loose.any():
        moved = np.where(np.append(loose, False)[labels - 1], u, moved)
        # What has its place is one, the first.
        number = np.append(np.where(loose, np.cumsum(loose), 0), -1)[labels - 1].astype(np.int32)
        moved += np.append(continued(moved, number, edges.step), 0.0)[number]
    return np.asarray(moved)
