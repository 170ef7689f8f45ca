"""Lens and pose from the corners of boards: least squares with outliers thrown out, and its covariance."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from calibration.geometry import Float, angle_deg
from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.bundle import FEW, Corners, Free, Solution, State, solve
from calibration.lens.model import LensModel
from calibration.provenance import FitError, Provenance, Quality

_MIN_POINTS = 6
_PARALLEL_DEG, _HARDLY_TILTED_DEG = 3.0, 15.0
_GRID = (8, 6)


class View(Protocol):
    """One picture of a board, n points. ``BoardView`` is one."""

    @property
    def points_mm(self) -> Float:
        """Corners in the board frame."""
        ...

    @property
    def pixels(self) -> Float:
        """Where they are seen."""
        ...


class Pose(NamedTuple):
    """Board (or any rigid body) in the camera frame.

    Attributes
    ----------
    rotvec : ndarray (3,)
        Rotation vector of camera_from_board, rad.
    t_mm : ndarray (3,)
        Origin of the board in the camera frame, mm.
    covariance : ndarray (6, 6)
        Of a small turn about the camera's x, y, z axes (rad; true rotation = turn after the fitted
        one) and of ``t_mm`` (mm). Without the lens model's own uncertainty.
    """

    rotvec: Float
    t_mm: Float
    covariance: Float


def fit_lens(
    views: Sequence[View],
    width: int,
    height: int,
    *,
    fix_k3: bool = False,
    names: Sequence[str] | None = None,
    provenance: Provenance = Provenance(),  # noqa: B008
) -> LensModel:
    """Fit the lens to views of a flat board.

    All corners count alike; the covariance is scaled by the scatter of the residuals, so it holds where
    they are independent and alike (no bent board, no motion blur). Corners whose residual is longer than
    4.5 robust sigmas are thrown out. The order of the views does not matter.

    Parameters
    ----------
    views : sequence of View
        At least three, in clearly different tilts; each with at least six corners. Z of the corners is 0.
    width, height : int
        Image size, px.
    fix_k3 : bool
        Hold k3 at 0: right for most lenses of less than 60 degrees.
    names : sequence of str, optional
        Of the views, for warnings.
    provenance : Provenance
        Goes into the model.

    Returns
    -------
    LensModel
        With ``covariance``, ``views``, ``observations`` and ``quality``, whose residual rms is per
        coordinate (OpenCV's RMS is sqrt(2) times as large).

    Raises
    ------
    FitError
        Too few views, boards all nearly parallel, or no convergence; says what to do.

    Notes
    -----
    Start values after Z. Zhang, "A flexible new technique for camera calibration", PAMI 22 (2000),
    doi:10.1109/34.888718.
    """
    labels = tuple(names) if names is not None else tuple(f"view {i + 1}" for i in range(len(views)))
    if len(labels) != len(views):
        raise ValueError(f"{len(labels)} names for {len(views)} views")
    data = [_flat_view(view, label) for view, label in zip(views, labels, strict=True)]
    if len(data) < 3:
        raise FitError(
            f"{len(data)} view(s) of the board: a lens fit needs at least 3, better 15, in different tilts"
        )
    order = sorted(range(len(data)), key=lambda i: (data[i][1].tobytes(), data[i][0].tobytes()))
    corners = _corners([data[i] for i in order])
    start = _start(corners, width, height)
    held = {"k4", "k5", "k6"} | ({"k3"} if fix_k3 else set())
    free = np.array([name not in held for name in start.lenses[0].names])
    try:
        solution = solve(start, corners, Free((free,), np.zeros(1, bool)), min_points=_MIN_POINTS)
    except FitError:
        # Without tilt the start values say nothing about the focal length, and the fit wanders.
        _refuse_parallel(_largest_tilt_deg(start.rotations), 3 * _PARALLEL_DEG)
        raise
    _refuse_degenerate(solution, corners, width, height)
    labels = tuple(labels[i] for i in order)
    alive = np.isin(np.arange(len(order)), corners.view[solution.used])
    warnings, doubtful = _warnings(solution, corners, labels, width, height)
    poses = np.full((len(order), 6), np.nan)
    rotvec = Rotation.from_matrix(solution.state.rotations).as_rotvec()
    poses[order] = np.where(
        alive[:, None], np.concatenate([rotvec, solution.state.translations], axis=1), np.nan
    )
    lens = solution.state.lenses[0]
    size = len(lens.parameters)
    return lens.replace(
        covariance=solution.covariance[:size, :size],
        views=poses,
        observations=_observations(solution, corners, np.asarray(order)),
        quality=Quality(
            residual_rms=float(np.sqrt(np.mean(solution.residual[solution.used] ** 2))),
            unit="px",
            observations=2 * int(solution.used.sum()),
            rejected=2 * int((~solution.used).sum()),
            verdict="doubtful" if doubtful else "good",
            warnings=warnings,
        ),
        provenance=provenance.replace(options={**provenance.options, "fix_k3": fix_k3}),
    )


def fit_pose(lens: LensModel, points_mm: ArrayLike, pixels: ArrayLike) -> Pose:
    """Pose of known points seen through a known lens.

    Both candidate poses of a flat board are tried. With eight points or more, those whose residual is
    longer than 4.5 robust sigmas are thrown out.

    Parameters
    ----------
    lens : LensModel
        Taken as exact.
    points_mm : array_like (n, 3)
        At least four, not on a line, in the body's frame.
    pixels : array_like (n, 2)
        Where they are seen.

    Returns
    -------
    Pose

    Raises
    ------
    FitError
        Too few points, points on a line, or no pose that puts them in front of the camera.
    """
    points, seen = _pair(points_mm, pixels, "the points")
    if len(points) < 4 or np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] < 1e-9:
        raise FitError(f"{len(points)} points: a pose needs at least 4 that are not on a line")
    rays = lens.unproject(seen)
    if not np.isfinite(rays).all():
        raise FitError("some points are seen where the lens model is not valid")
    none = np.zeros(len(points), np.int64)
    corners = Corners(points, seen, np.zeros(len(points)), none, none)
    held = Free((np.zeros(len(lens.parameters), dtype=bool),), np.zeros(1, dtype=bool))
    solutions: list[Solution] = []
    for rotation, translation in _poses(points, rays[:, :2] / rays[:, 2:]):
        start = _alone(lens, rotation[None], translation[None])
        solution = solve(start, corners, held, min_points=4)
        behind = (points @ solution.state.rotations[0].T + solution.state.translations[0])[:, 2] <= 0
        if not behind.any():
            solutions.append(solution)
    if not solutions:
        raise FitError("no pose puts the points in front of the camera")
    # The wrong one of two poses fits no point well, but it may throw fewer out.
    limit = 25 * min(solution.variance for solution in solutions) if len(points) >= FEW else np.inf
    best = min(solutions, key=lambda s: float(np.sum(np.minimum(np.sum(s.residual**2, axis=1), limit))))
    rotvec = np.asarray(Rotation.from_matrix(best.state.rotations[0]).as_rotvec(), np.float64)
    return Pose(rotvec, best.state.translations[0], best.pose_covariance[0])


def _pair(points_mm: ArrayLike, pixels: ArrayLike, what: str) -> tuple[Float, Float]:
    points, seen = np.asarray(points_mm, np.float64), np.asarray(pixels, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or seen.shape != (len(points), 2):
        raise ValueError(f"{what}: want points (n, 3) and pixels (n, 2), not {points.shape} and {seen.shape}")
    if not (np.isfinite(points).all() and np.isfinite(seen).all()):
        raise ValueError(f"{what}: points and pixels must be finite")
    order = np.lexsort((seen[:, 1], seen[:, 0], *points.T))
    return points[order], seen[order]


def _flat_view(view: View, label: str) -> tuple[Float, Float]:
    points, pixels = _pair(view.points_mm, view.pixels, label)
    if len(points) < _MIN_POINTS:
        raise FitError(f"{label}: {len(points)} corners, need at least {_MIN_POINTS}")
    if np.abs(points[:, 2]).max() > 0:
        raise ValueError(f"{label}: the board must be flat, z = 0 in its frame")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[1] < 1e-6 * spread[0]:
        raise FitError(f"{label}: all corners lie on a line")
    return points, pixels


def _corners(data: list[tuple[Float, Float]]) -> Corners:
    sizes = [len(points) for points, _ in data]
    return Corners(
        np.concatenate([points for points, _ in data]),
        np.concatenate([pixels for _, pixels in data]),
        np.zeros(sum(sizes)),
        np.repeat(np.arange(len(data)), sizes),
        np.zeros(sum(sizes), np.int64),
    )


def _alone(lens: LensModel, rotations: Float, translations: Float) -> State:
    return State((lens,), np.eye(3)[None], np.zeros((1, 3)), rotations, translations)


def _start(corners: Corners, width: int, height: int) -> State:
    """Focal length from the homographies, principal point in the middle, no distortion; poses one by one."""
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    views = [corners.view == i for i in range(int(corners.view.max()) + 1)]
    # The board's axes are perpendicular and of one length: two equations a / f**2 + b = 0 a view.
    slope, offset = [], []
    for at in views:
        homography, _ = cv2.findHomography(
            corners.points[at, :2], (corners.pixels[at] - centre) / width, cv2.LMEDS
        )
        if homography is None:
            continue
        u, v = homography[:, 0], homography[:, 1]
        u, v = u / np.linalg.norm(homography[:, :2]), v / np.linalg.norm(homography[:, :2])
        slope += [u[0] * v[0] + u[1] * v[1], u[0] ** 2 + u[1] ** 2 - v[0] ** 2 - v[1] ** 2]
        offset += [u[2] * v[2], u[2] ** 2 - v[2] ** 2]
    a, b = np.array(slope), np.array(offset)
    inverse_square = -float(a @ b) / max(float(a @ a), 1e-300)
    guesses = [width * f for f in (0.6, 1.0, 1.8, 3.0, 6.0)]
    if inverse_square > 0 and 0.2 < (focal := inverse_square**-0.5) < 50:
        guesses.append(width * focal)
    best: tuple[float, State] | None = None
    for focal in guesses:
        cx, cy = centre.tolist()
        lens = BrownConrady(width=width, height=height, fx=focal, fy=focal, cx=cx, cy=cy)
        poses, misses = [], []
        for at in views:
            normalized = (corners.pixels[at] - centre) / focal
            candidates = _poses(corners.points[at], normalized)
            if not candidates:
                # No board at all: placed somewhere in front, its corners will be thrown out.
                span = np.ptp(corners.points[at], axis=0).max() / np.ptp(normalized, axis=0).max()
                candidates = [(np.eye(3), np.array([0, 0, span]))]
            errors = []
            for rotation, translation in candidates:
                p = corners.points[at] @ rotation.T + translation
                errors.append(
                    float(np.median(np.linalg.norm(p[:, :2] / p[:, 2:] - normalized, axis=1))) * focal
                )
            poses.append(candidates[int(np.argmin(errors))])
            misses.append(min(errors))
        miss = float(np.median(misses))
        if best is None or miss < best[0]:
            best = miss, _alone(lens, np.array([r for r, _ in poses]), np.array([t for _, t in poses]))
    assert best is not None
    return best[1]


def _poses(points: Float, normalized: Float) -> list[tuple[Float, Float]]:
    """Candidate poses (rotation, translation) of points seen at x/z, y/z; two for flat ones."""
    middle = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - middle)
    axes[2] *= np.linalg.det(axes)
    flat = spread[2] < 1e-6 * spread[0]
    local = (points - middle) @ axes.T
    if flat:
        local[:, 2] = 0
    method = cv2.SOLVEPNP_IPPE if flat else cv2.SOLVEPNP_SQPNP
    _, rotvecs, translations, _ = cv2.solvePnPGeneric(local, normalized, np.eye(3), None, flags=method)
    out = []
    for rotvec, translation in zip(rotvecs, translations, strict=True):
        rotation = Rotation.from_rotvec(np.asarray(rotvec).ravel()).as_matrix() @ axes
        t = np.asarray(translation).ravel() - rotation @ middle
        if np.isfinite(rotation).all() and np.all((points @ rotation.T + t)[:, 2] > 0):
            out.append((rotation, t))
    return out


def _refuse_degenerate(solution: Solution, corners: Corners, width: int, height: int) -> None:
    alive = np.unique(corners.view[solution.used])
    if len(alive) < 3:
        raise FitError(
            f"only {len(alive)} views agree with one lens: check the board's columns, rows and square size"
        )
    fx, fy, cx, cy = solution.state.lenses[0].parameters[:4]
    known = np.all(np.sqrt(np.diag(solution.covariance)[:2]) / (fx, fy) < 0.1)
    tilt = _largest_tilt_deg(solution.state.rotations[alive])
    _refuse_parallel(tilt, _PARALLEL_DEG if known else np.inf)
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise FitError(f"the principal point went to {cx:.0f}, {cy:.0f}: add views with other tilts")


def _refuse_parallel(tilt_deg: float, limit_deg: float) -> None:
    if tilt_deg < limit_deg:
        raise FitError(
            f"the boards differ in tilt by {tilt_deg:.1f} deg at most: focal length and distance cannot be "
            "told apart. Tilt the board by 20 to 40 deg, to all sides"
        )


def _largest_tilt_deg(rotations: Float) -> float:
    """Largest angle between the normals of two boards, rotations (v, 3, 3)."""
    normals = rotations[:, :, 2]
    return float(np.max(angle_deg(normals[:, None], normals)))


def _warnings(
    solution: Solution, corners: Corners, labels: tuple[str, ...], width: int, height: int
) -> tuple[tuple[str, ...], bool]:
    """What a reader of the fit must know, and whether it makes the fit doubtful."""
    out: list[str] = []
    serious: list[str] = []
    alive = np.unique(corners.view[solution.used])
    gone = [labels[i] for i in range(len(labels)) if i not in alive]
    if gone:
        serious.append(f"left out, their corners agree with no pose: {', '.join(sorted(gone))}")
    if len(alive) < 5:
        serious.append(f"only {len(alive)} views: take 15 or more")
    elif len(alive) < 10:
        out.append(f"{len(alive)} views: 15 or more would be safer")
    tilt = _largest_tilt_deg(solution.state.rotations[alive])
    if tilt < _HARDLY_TILTED_DEG:
        serious.append(
            f"the boards differ in tilt by {tilt:.0f} deg at most: tilt them by 20 to 40 deg, to all sides"
        )
    lens = solution.state.lenses[0].parameters
    relative = float(np.max(np.sqrt(np.diag(solution.covariance)[:2]) / lens[:2]))
    if relative > 0.01:
        serious.append(f"the focal length is known to {100 * relative:.1f} % only")
    seen = corners.pixels[solution.used]
    cell = np.floor((seen + 0.5) / (width, height) * _GRID).astype(int)
    cell = np.clip(cell, 0, np.array(_GRID) - 1)
    covered = len(np.unique(cell @ (1, _GRID[0]))) / (_GRID[0] * _GRID[1])
    if covered < 0.3:
        serious.append(
            f"corners cover {100 * covered:.0f} % of the image: the distortion elsewhere is a guess"
        )
    elif covered < 0.6:
        out.append(f"corners cover {100 * covered:.0f} % of the image: move the board into the edges")
    rms = float(np.sqrt(np.mean(solution.residual[solution.used] ** 2)))
    if rms > 1.0:
        serious.append(
            f"residuals of {rms:.1f} px rms: is the board flat, the image sharp, the square size right?"
        )
    lost = 1 - float(np.mean(solution.used))
    if lost > 0.1:
        serious.append(f"{100 * lost:.0f} % of the corners do not agree with the rest")
    rms_of, lost_of = np.zeros(len(labels)), np.zeros(len(labels))
    for i in alive:
        mine = corners.view == i
        rms_of[i] = np.sqrt(np.mean(solution.residual[mine & solution.used] ** 2))
        lost_of[i] = 1 - np.mean(solution.used[mine])
    usual = float(np.median(rms_of[alive]))
    for i in sorted(alive, key=lambda i: labels[i]):
        if lost_of[i] > 0.3:
            out.append(f"{labels[i]}: {100 * lost_of[i]:.0f} % of its corners do not agree with the rest")
        elif rms_of[i] > max(3 * usual, 0.02):
            out.append(f"{labels[i]}: residual {rms_of[i]:.2f} px, the median view has {usual:.2f}")
    return (*serious, *out), bool(serious)


def _observations(solution: Solution, corners: Corners, order: Float) -> Float:
    view = order[corners.view]
    number = np.where(solution.used, view, -1 - view)
    sigma = np.full(len(number), np.nan)
    rows = np.column_stack([number, corners.points, corners.pixels, solution.residual, sigma])
    return np.asarray(rows[np.argsort(view, kind="stable")])
