"""How sure a lens is of where it images a point in space, and whether two agree; the camera's pose apart.

Two calibrations that are equally good differ in their parameters and in where they put the camera. What a
turn and a shift of the camera undo is no error of the lens: it is taken out before pixels are compared. That
pose is the one under which both see the boards alike.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from calibration.geometry import Float
from calibration.lens.bundle import fitted_sigma
from calibration.lens.descent import inverse_of_many
from calibration.lens.model import Derivatives, LensModel

_COLUMNS = 36  # of the grid over the image that a mean or a map is taken on
_PRIOR_SHARE = 0.05  # of what is known along a direction
_MOST_POINTS = 1000  # what an implied pose rests on; more changes nothing


class Evidence(NamedTuple):
    """Corners that a fit kept.

    Attributes
    ----------
    view : ndarray (n,), int64
        Ascending.
    points : ndarray (n, 3)
        In the camera frame, mm.
    board : ndarray (n, 3)
        In the board frame, mm.
    pixels, residual : ndarray (n, 2)
        Where they are seen, and measured minus model, px.
    sigma : ndarray (n,)
        Of a pixel coordinate: as the detection told it, enlarged to what the residuals show, and to what the
        views show where the covariance of the lens was.
    """

    view: NDArray[np.int64]
    points: Float
    board: Float
    pixels: Float
    residual: Float
    sigma: Float


class Information(NamedTuple):
    """What each view says of the free lens parameters, its own pose left open.

    Attributes
    ----------
    views : ndarray (v,), int64
        Their numbers.
    matrix : ndarray (v, p, p)
        Inverse covariance that a view alone would give.
    gradient : ndarray (v, p)
        Of the residuals: ``matrix`` times the step that a view alone would take. At the fit, that of all
        views and of the prior is zero.
    prior : ndarray (p, p)
        What the covariance knows beyond the views: the smoothness of a splined lens. Else zero.
    design, residual : tuple of ndarray (r, p) and (r,)
        The same by view, with r <= p: ``matrix`` is design' design, ``gradient`` design' residual.
    """

    views: NDArray[np.int64]
    matrix: Float
    gradient: Float
    prior: Float
    design: tuple[Float, ...]
    residual: tuple[Float, ...]


def evidence(lens: LensModel) -> Evidence:
    """Corners that the fit of ``lens`` kept; ValueError where it has none."""
    if lens.observations is None or lens.views is None:
        raise ValueError("the lens model comes without the corners of its fit")
    rows = np.asarray(lens.observations, np.float64)
    rows = rows[rows[:, 0] >= 0]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    view, board, residual = rows[:, 0].astype(np.int64), rows[:, 1:4], rows[:, 6:8]
    shaped = board if lens.board is None else lens.board.shaped(board)
    poses = np.asarray(lens.views)[view]
    points = Rotation.from_rotvec(poses[:, :3].copy()).apply(shaped) + poses[:, 3:]
    told = np.nan_to_num(rows[:, 8]) if rows.shape[1] > 8 else np.zeros(len(rows))
    freedom = max(residual.size - 6 * len(np.unique(view)) - int(free_parameters(lens).sum()), 1)
    sigma = fitted_sigma(residual, told, np.ones(len(rows), dtype=bool), freedom)
    sigma *= np.sqrt(lens.covariance_factor)
    return Evidence(view, points, board, rows[:, 4:6], residual, sigma)


def free_parameters(lens: LensModel) -> NDArray[np.bool_]:
    """Which parameters (p,) the fit was free to change."""
    if lens.covariance is None:
        return np.zeros(len(lens.parameters), dtype=bool)
    return np.asarray(np.diag(lens.covariance) > 0)


def working_distance_mm(lens: LensModel) -> float:
    """Median distance of the board's corners from the camera, mm."""
    return float(np.median(np.linalg.norm(evidence(lens).points, axis=1)))


def image_grid(lens: LensModel, columns: int = _COLUMNS) -> Float:
    """Pixels evenly over the image, the outermost on its border: (gy, gx, 2)."""
    rows = max(round(columns * lens.height / lens.width), 2)
    return np.stack(
        np.meshgrid(np.linspace(0, lens.width - 1, columns), np.linspace(0, lens.height - 1, rows)), axis=-1
    )


def projection_sigma(lens: LensModel, distance_mm: float, pixels: ArrayLike | None = None) -> Float:
    """Standard deviation of where the lens images a point that is fixed in space.

    Parameters
    ----------
    lens : LensModel
        With covariance, views and observations.
    distance_mm : float
        Of the point from the camera; inf for the direction alone.
    pixels : array_like (..., 2), optional
        Where the point is imaged; ``image_grid(lens)`` if not given.

    Returns
    -------
    ndarray (...)
        In the direction in which it is largest, px; NaN where the model images nothing.

    Notes
    -----
    First order in the covariance, so honest where that is, and where the model can fit the lens at all:
    a stiff model is sure of itself where it saw nothing. Smallest at the distances of the boards, as
    after mrcal (https://mrcal.secretsauce.net/uncertainty.html), with the implied pose taken from all
    corners at once.
    """
    at = image_grid(lens) if pixels is None else np.asarray(pixels, np.float64)
    free = free_parameters(lens)
    covariance = np.asarray(lens.covariance)[np.ix_(free, free)]
    moves = sensitivity(lens, distance_mm, at.reshape(-1, 2))
    spread = np.einsum("nip,pq,njq->nij", moves, covariance, moves, optimize=True)
    # Largest eigenvalue of 2 x 2.
    mean = 0.5 * (spread[:, 0, 0] + spread[:, 1, 1])
    away = np.hypot(0.5 * (spread[:, 0, 0] - spread[:, 1, 1]), spread[:, 0, 1])
    return np.asarray(np.sqrt(np.maximum(mean + away, 0)).reshape(at.shape[:-1]))


def sensitivity(lens: LensModel, distance_mm: float, pixels: Float) -> Float:
    """Move of the images (n, 2, p) of points fixed in space by the p free parameters, pose taken out."""
    free = free_parameters(lens)
    rays = lens.unproject(pixels)
    at = lens.derivatives(rays)
    return np.asarray(
        _by_parameters(at, len(free))[..., free]
        + _by_pose(at, rays, 1 / distance_mm) @ _implied_pose(lens, free, distance_mm)
    )


def even_weight(lens: LensModel) -> Float:
    """Matrix (p, p) that makes one number of a change of the parameters, all of the image counting alike.

    A change d of the parameters moves the projection, at the working distance and on average over the
    image, by ``d @ weight @ d`` times its variance. With the covariance C the trace of ``C @ weight`` is 1.
    """
    free = free_parameters(lens)
    moves = sensitivity(lens, working_distance_mm(lens), image_grid(lens, 24).reshape(-1, 2))
    moves = moves[np.isfinite(moves).all(axis=(1, 2))]
    covariance = np.asarray(lens.covariance)[np.ix_(free, free)]
    variance = np.einsum("nip,pq,niq->n", moves, covariance, moves, optimize=True)
    scaled = moves / np.sqrt(np.maximum(variance, 1e-300))[:, None, None]
    return np.asarray(np.einsum("nip,niq->pq", scaled, scaled, optimize=True) / max(len(moves), 1))


def projection_difference(
    first: LensModel, second: LensModel, distance_mm: float, pixels: ArrayLike | None = None
) -> Float:
    """Where ``second`` images what ``first`` images at ``pixels``, minus ``pixels``.

    The second camera is turned and shifted so that both see the corners of their boards alike, by a fit
    that large differences do not bend. Lenses without observations are compared by a turn alone.

    Parameters
    ----------
    first, second : LensModel
        Of one image size; of any kinds.
    distance_mm : float
        Of the points from the first camera; inf for directions alone.
    pixels : array_like (..., 2), optional
        In the image of ``first``; ``image_grid(first)`` if not given.

    Returns
    -------
    ndarray (..., 2)
        Px; NaN where one of the two images nothing.
    """
    if (first.width, first.height) != (second.width, second.height):
        raise ValueError(
            f"lenses of {first.width} x {first.height} and {second.width} x {second.height} px: want one size"
        )
    at = image_grid(first) if pixels is None else np.asarray(pixels, np.float64)
    rays = first.unproject(at)
    rotation, shift = _aligned(first, second)
    return np.asarray(second.project(rays @ rotation.T + shift / distance_mm) - at)


def information(lens: LensModel) -> Information:
    """What each view says of the free parameters of its fit."""
    corners, free = evidence(lens), free_parameters(lens)
    numbers = np.unique(corners.view)
    designs, residuals = [], []
    for number in numbers:
        mine = corners.view == number
        by_lens, by_pose, residual = weighted_derivatives(
            lens, free, corners.points[mine], corners.residual[mine], corners.sigma[mine]
        )
        open_ = by_lens - by_pose @ np.linalg.lstsq(by_pose, by_lens, rcond=None)[0]
        if len(open_) > open_.shape[1]:
            turned, open_ = np.linalg.qr(open_)
            residual = turned.T @ residual
        designs.append(open_)
        residuals.append(residual)
    matrix = np.array([design.T @ design for design in designs])
    gradient = np.array([design.T @ right for design, right in zip(designs, residuals, strict=True)])
    prior = _prior(lens, free, matrix.sum(axis=0))
    return Information(numbers, matrix, gradient, prior, tuple(designs), tuple(residuals))


def _prior(lens: LensModel, free: NDArray[np.bool_], told: Float) -> Float:
    """Part of the inverse covariance that the views' information ``told`` does not explain."""
    covariance = np.asarray(lens.covariance)[np.ix_(free, free)]
    scale = np.sqrt(np.diag(covariance))
    values, axes = np.linalg.eigh(covariance / scale / scale[:, None])
    # Directions that nothing tells apart have no variance of their own.
    length = np.sqrt(np.maximum(values, 1e-14))
    root = axes * length * scale[:, None]
    share, turn = np.linalg.eigh(root.T @ told @ root)
    # Rounding, and unknowns of the board that the views share, leave a little on either side of one.
    more = np.where(1 - share > _PRIOR_SHARE, 1 - share, 0.0)
    if not more.any():
        return np.zeros_like(told)
    back = (axes / length / scale[:, None]) @ turn
    return np.asarray((back * more) @ back.T)


def scaled_inverse(matrix: Float) -> Float:
    """Inverse of a symmetric matrix whose rows differ in scale; what is undetermined gets a huge variance."""
    told = np.diag(matrix)
    # Bounded, so that squares of what is undetermined stay finite.
    scale = 1 / np.sqrt(np.maximum(told, max(1e-24 * float(told.max()), 1e-100)))
    unit = matrix * scale * scale[:, None]
    inverse = inverse_of_many(unit)
    if inverse is None:
        values, vectors = np.linalg.eigh(unit)
        inverse = (vectors / np.maximum(values, 1e-14)) @ vectors.T
    return np.asarray(inverse * scale * scale[:, None])


def pose_derivatives(by_points: Float, points: Float) -> Float:
    """Derivatives (n, 2, 6) by a small turn about the camera's axes (rad), then by a shift."""
    zero = np.zeros(len(points))
    x, y, z = points.T
    cross = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], axis=-1).reshape(-1, 3, 3)
    return np.concatenate([by_points @ cross, by_points], axis=2)


def weighted_derivatives(
    lens: LensModel, free: NDArray[np.bool_], points: Float, residual: Float, sigma: Float
) -> tuple[Float, Float, Float]:
    """Derivatives (2n, p) by the lens and (2n, 6) by the pose, residuals (2n,), over their sigma."""
    at = lens.derivatives(points)
    lost = ~(np.isfinite(at.pixels).all(axis=1) & np.isfinite(residual).all(axis=1))
    by_lens = _by_parameters(at, len(free))[..., free] / sigma[:, None, None]
    # Lengths in units of the distance: turns and shifts are alike then.
    span = float(np.linalg.norm(points.mean(axis=0)))
    by_pose = pose_derivatives(at.by_points * span, points / span) / sigma[:, None, None]
    right = residual / sigma[:, None]
    by_lens[lost], by_pose[lost], right[lost] = 0, 0, 0
    return by_lens.reshape(-1, by_lens.shape[2]), by_pose.reshape(-1, 6), right.ravel()


def _by_parameters(at: Derivatives, count: int) -> Float:
    if at.columns is None:
        return at.by_parameters
    dense = np.zeros((len(at.pixels), 2, count))
    rows = np.arange(len(at.pixels))[:, None]
    for axis in range(2):
        np.add.at(dense[:, axis], (rows, at.columns), at.by_parameters[:, axis])
    return dense


def _by_pose(at: Derivatives, rays: Float, nearness: float) -> Float:
    by_pose = pose_derivatives(at.by_points, rays)
    by_pose[..., 3:] *= nearness
    return by_pose


def _implied_pose(lens: LensModel, free: NDArray[np.bool_], distance_mm: float) -> Float:
    """Pose (6, p) of the camera that each free parameter implies: the corners stay where they are seen."""
    points = _scene(lens, distance_mm) if lens.observations is None else _thinned(evidence(lens).points)
    at = lens.derivatives(points)
    good = np.isfinite(at.pixels).all(axis=1)
    span = float(np.median(np.linalg.norm(points, axis=1)))
    by_pose = pose_derivatives(at.by_points * span, points / span)[good].reshape(-1, 6)
    by_lens = _by_parameters(at, len(free))[good][..., free]
    q, r = np.linalg.qr(by_pose)
    pose = -np.linalg.pinv(r, rcond=1e-12) @ (q.T @ by_lens.reshape(len(by_pose), -1))
    pose[3:] *= span
    return np.asarray(pose)


def _scene(lens: LensModel, distance_mm: float) -> Float:
    """Points that fill the view around a distance, for a lens that saw none."""
    rays = lens.unproject(image_grid(lens, 12)).reshape(-1, 3)
    rays = rays[np.isfinite(rays).all(axis=1)]
    middle = distance_mm if np.isfinite(distance_mm) else 1.0
    return np.asarray(rays * middle * (0.75 + np.arange(len(rays)) % 5 / 8)[:, None])


def _thinned(points: Float) -> Float:
    return points[:: max(len(points) // _MOST_POINTS, 1)]


def _aligned(first: LensModel, second: LensModel) -> tuple[Float, Float]:
    """Rotation and shift, second_from_first, under which both see their corners alike."""
    here = _thinned(evidence(first).points) if first.observations is not None else np.zeros((0, 3))
    there = _thinned(evidence(second).points) if second.observations is not None else np.zeros((0, 3))
    turn_only = len(here) + len(there) == 0
    if turn_only:
        here = _scene(first, 1.0)
    span = float(np.median(np.linalg.norm(np.concatenate([here, there]), axis=1)))
    here, there = here / span, there / span
    rotation, shift = np.eye(3), np.zeros(3)
    seen_here, seen_there = first.project(here), second.project(there)
    for _ in range(30):
        moved, back = here @ rotation.T + shift, (there - shift) @ rotation
        forth, undone = second.derivatives(moved), first.derivatives(back)
        error = np.concatenate([forth.pixels - seen_here, seen_there - undone.pixels])
        by = np.concatenate(
            [
                pose_derivatives(forth.by_points, moved),
                pose_derivatives(undone.by_points @ rotation.T, there),
            ]
        )
        good = np.isfinite(error).all(axis=1)
        length = np.linalg.norm(error[good], axis=1)
        weight = np.sqrt(1 / (1 + (length / max(3 * float(np.median(length)), 1e-12)) ** 2))[:, None]
        design = (by[good] * weight[..., None]).reshape(-1, 6)[:, : 3 if turn_only else 6]
        step = np.zeros(6)
        found = -np.linalg.lstsq(design, (error[good] * weight).ravel(), rcond=1e-12)[0]
        step[: len(found)] = found
        turn = Rotation.from_rotvec(step[:3]).as_matrix()
        rotation, shift = turn @ rotation, turn @ shift + step[3:]
        if float(np.abs(step).max()) < 1e-12:
            break
    return rotation, shift * span
