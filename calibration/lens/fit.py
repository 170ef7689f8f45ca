"""Lens and pose from the corners of boards."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from calibration.geometry import Float
from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.bundle import FEW, Solution, solve
from calibration.lens.kannala_brandt import KannalaBrandt
from calibration.lens.model import BoardShape, LensModel
from calibration.lens.splined.fit import fit_splined
from calibration.lens.start import first_guess, mirrored, plane_poses
from calibration.lens.unknowns import Corners, Free, Index, Mask, Prior, State, alone, placed
from calibration.lens.verdict import judge, largest_tilt_deg, refuse, refuse_parallel
from calibration.provenance import FitError, Provenance

_MIN_POINTS = 6
_RATIONAL = 1.0  # sigma of the prior on k4, k5, k6
_WANDERED_DEG = 9.0  # boards of less tilt explain a fit that found no end
_ASPECT_KNOWN = 0.01  # sigma beyond which the shape is not told
_WARP_KNOWN = 0.01  # the same, over half the board's size

LensKind = Literal["brown-4", "brown-5", "brown-8", "fisheye", "splined"]
_HELD: dict[LensKind, tuple[str, ...]] = {
    "brown-4": ("k3", "k4", "k5", "k6"),
    "brown-5": ("k4", "k5", "k6"),
    "brown-8": (),
    "fisheye": (),
}


class View(Protocol):
    """One picture of a board, n points. ``BoardView`` is one."""

    @property
    def points_mm(self) -> Float:
        """Corners in the board frame (n, 3)."""
        ...

    @property
    def pixels(self) -> Float:
        """Where they are seen (n, 2)."""
        ...

    @property
    def sigma_px(self) -> Float:
        """Standard deviation of a coordinate (n,), from the noise of the image; NaN where unknown."""
        ...

    @property
    def disc_mm(self) -> float:
        """Radius of the discs whose centroids the pixels are; 0 for corners."""
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
    model: LensKind = "brown-5",
    warp: bool = False,
    aspect: bool = False,
    names: Sequence[str] | None = None,
    provenance: Provenance = Provenance(),  # noqa: B008
) -> LensModel:
    """Fit the lens to views of a flat board, and judge it: ``adjust_lens``, then ``judge``.

    Parameters, result and errors are those of ``adjust_lens``; the lens has its ``quality`` too, whose
    residual rms is per coordinate (OpenCV's RMS is sqrt(2) times as large). Whether the views agree with one
    another is not asked, since ``agreement`` takes as long as several fits: the covariance is that of
    independent errors. ``choose_lens`` asks, of one candidate too.
    """
    lens = adjust_lens(
        views, width, height, model=model, warp=warp, aspect=aspect, names=names, provenance=provenance
    )
    return lens.replace(quality=judge(lens, labels_of(views, names)))


def adjust_lens(
    views: Sequence[View],
    width: int,
    height: int,
    *,
    model: LensKind = "brown-5",
    warp: bool = False,
    aspect: bool = False,
    names: Sequence[str] | None = None,
    plain: LensModel | None = None,
    provenance: Provenance = Provenance(),  # noqa: B008
) -> LensModel:
    """Fit the lens to views of a flat board, with covariance and without a verdict.

    Corners weigh by their sigma and what the residuals show beyond it, so that the covariance holds where
    their errors are independent (no bent board, no motion blur). Corners whose residual is longer than 4.5
    sigmas are thrown out, and views that lose half of theirs. The order of the views does not matter.

    Parameters
    ----------
    views : sequence of View
        At least three, in clearly different tilts; each with at least six corners. Z of the corners is 0.
    width, height : int
        Image size, px.
    model : 'brown-4', 'brown-5', 'brown-8', 'fisheye' or 'splined'
        Brown-Conrady with k1, k2, p1, p2; with k3; with k4 to k6, of order 1. ``KannalaBrandt``.
        ``SplinedLens``.
    warp : bool
        Fit how the board is bent, too: two parabolas, along its x and its y.
    aspect : bool
        Fit the ratio of the print's scales along y and x, too; tilted boards, and boards turned by 90
        degrees, tell it from fy / fx.
    names : sequence of str, optional
        Of the views, for warnings.
    plain : LensModel, optional
        Fit of another model to the same views, from which the splined one starts; the best of three is
        sought if it is not given, or has left out a view.
    provenance : Provenance
        Goes into the model.

    Returns
    -------
    LensModel
        With ``covariance``, ``views``, ``observations`` and ``board`` (where asked for).

    Raises
    ------
    FitError
        Too few views, boards all nearly parallel, an unknown that the views do not tell, no camera that
        explains them, or no convergence; says what to do.
    """
    labels = labels_of(views, names)
    data = [_flat_view(view, label) for view, label in zip(views, labels, strict=True)]
    if len(data) < 3:
        raise FitError(
            f"{len(data)} view(s) of the board: a lens fit needs at least 3, better 15, in different tilts"
        )
    order = np.array(sorted(range(len(data)), key=lambda i: [part.tobytes() for part in data[i]]))
    corners = _corners([data[i] for i in order], _disc_mm(views))
    if model == "splined":
        solution = _splined(corners, width, height, warp, aspect, _state_of(plain, corners, order))
    else:
        solution = _plain(model, corners, width, height, warp, aspect)
    lens = solution.state.lenses[0]
    of_lens = solution.layout.lens[0]
    alive = np.isin(np.arange(len(order)), corners.view[solution.used])
    poses = np.full((len(order), 6), np.nan)
    rotvec = Rotation.from_matrix(solution.state.rotations).as_rotvec()
    poses[order] = np.where(
        alive[:, None], np.concatenate([rotvec, solution.state.translations], axis=1), np.nan
    )
    told = {"model": model, "warp": warp, "aspect": aspect}
    lens = lens.replace(
        covariance=solution.covariance[of_lens, of_lens],
        views=poses,
        observations=_observations(solution, corners, order),
        board=_board(solution) if warp or aspect else None,
        provenance=provenance.replace(options={**provenance.options, **told}),
    )
    refuse(lens)
    return lens


def fit_pose(
    lens: LensModel,
    points_mm: ArrayLike,
    pixels: ArrayLike,
    *,
    sigma_px: ArrayLike | None = None,
    disc_mm: float = 0.0,
) -> Pose:
    """Pose of known points seen through a known lens.

    Both candidate poses of a flat board are tried. With eight points or more, those whose residual is
    longer than 4.5 sigmas are thrown out.

    Parameters
    ----------
    lens : LensModel
        Taken as exact; of any kind and angle of view.
    points_mm : array_like (n, 3)
        At least four, or six that are not in a plane; not on a line; in the body's frame.
    pixels : array_like (n, 2)
        Where they are seen.
    sigma_px : array_like (n,), optional
        Of a coordinate; the points weigh by it and what the residuals show beyond.
    disc_mm : float
        Radius of the discs whose centroids the pixels are.

    Returns
    -------
    Pose

    Raises
    ------
    FitError
        Too few points, points on a line, or no pose that puts them in front of the camera.
    """
    sigma = np.zeros(len(np.asarray(pixels))) if sigma_px is None else sigma_px
    points, seen, sigma = _sorted(points_mm, pixels, sigma, "the points")
    if len(points) < 4 or np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] < 1e-9:
        raise FitError(f"{len(points)} points: a pose needs at least 4 that are not on a line")
    rays = lens.unproject(seen)
    if not np.isfinite(rays).all():
        raise FitError("some points are seen where the lens model is not valid")
    none = np.zeros(len(points), np.int64)
    corners = Corners(points, seen, sigma, none, none, disc_mm)
    held = Free((np.zeros(len(lens.parameters), dtype=bool),), np.zeros(1, dtype=bool))
    solutions: list[Solution] = []
    for rotations, translations in _poses(points, rays):
        try:
            solution = solve(alone(lens, rotations, translations), corners, held, min_points=4)
        except FitError:
            continue  # the wrong one of two need not settle
        if np.all(np.sum(placed(solution.state, corners)[1] * rays, axis=1)[solution.used] > 0):
            solutions.append(solution)
    if not solutions:
        raise FitError("no pose puts the points in front of the camera")
    # The wrong one of two poses fits no point well, but it may throw fewer out.
    limit = 25 * min(solution.variance for solution in solutions) if len(points) >= FEW else np.inf
    best = min(solutions, key=lambda s: float(np.sum(np.minimum(np.sum(s.residual**2, axis=1), limit))))
    rotvec = np.asarray(Rotation.from_matrix(best.state.rotations[0]).as_rotvec(), np.float64)
    return Pose(rotvec, best.state.translations[0], best.pose_covariance[0])


def labels_of(views: Sequence[View], names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the views; without any their numbers, from 1."""
    labels = tuple(names) if names is not None else tuple(f"view {i + 1}" for i in range(len(views)))
    if len(labels) != len(views):
        raise ValueError(f"{len(labels)} names for {len(views)} views")
    return labels


def _plain(model: LensKind, corners: Corners, width: int, height: int, warp: bool, aspect: bool) -> Solution:
    """Fit of a model with few parameters."""
    # The rational model's other unknowns say next to nothing before the rest is right.
    state = first_guess(
        corners, _ideal(model, width, height), _free("brown-5" if model == "brown-8" else model)
    )
    state = state._replace(board=_flat(corners.points))
    free = Free((_free(model),), np.zeros(1, bool), warp, aspect)
    trusted = _facing(state, corners)[corners.view]
    try:
        priors = (prior_of(state.lenses[0], free.lens[0]),)
        return solve(state, corners, free, min_points=_MIN_POINTS, priors=priors, trusted=trusted)
    except FitError:
        # Without tilt nothing tells the focal length, and the fit wanders.
        refuse_parallel(largest_tilt_deg(state.rotations), _WANDERED_DEG)
        raise


def prior_of(lens: LensModel, free: Mask) -> Prior | None:
    """What a fit of the free parameters (p,) supposes: k4, k5, k6 of the rational model are of order 1.

    Numerator and denominator may have a factor in common that no corner sees; without it they run away.
    """
    rational = free & np.isin(lens.names, ("k4", "k5", "k6")) & isinstance(lens, BrownConrady)
    if not rational.any():
        return None
    return Prior(np.diag(rational / _RATIONAL**2), np.zeros(len(free)))


def _state_of(plain: LensModel | None, corners: Corners, order: Index) -> tuple[State, Mask] | None:
    """State of a finished fit, and which parameters it fitted; None where a view has no pose."""
    if plain is None or plain.views is None or not np.isfinite(plain.views).all():
        return None
    poses = np.asarray(plain.views)[order]
    state = alone(plain, Rotation.from_rotvec(poses[:, :3]).as_matrix(), poses[:, 3:])
    return state._replace(board=plain.board or _flat(corners.points)), np.diag(
        np.asarray(plain.covariance)
    ) > 0


def _splined(
    corners: Corners, width: int, height: int, warp: bool, aspect: bool, plain: tuple[State, Mask] | None
) -> Solution:
    """Fit of the splined model, from the plain one that is nowhere far off, thrown-out corners included."""
    state, mask = plain or _nearest(corners, width, height, warp, aspect)
    free = Free((mask,), np.zeros(1, bool), warp, aspect)
    return fit_splined(state, corners, free, min_points=_MIN_POINTS).solution


def _nearest(corners: Corners, width: int, height: int, warp: bool, aspect: bool) -> tuple[State, Mask]:
    """State of the plain model with the smallest mean square, and which parameters it has."""
    plain: list[tuple[LensKind, Solution]] = []
    failure: FitError | None = None
    kinds: tuple[LensKind, ...] = ("brown-4", "brown-5", "fisheye")
    for kind in kinds:
        try:
            plain.append((kind, _plain(kind, corners, width, height, warp, aspect)))
        except FitError as error:
            failure = failure or error
    if failure is not None and not plain:
        raise failure
    kind, best = min(plain, key=lambda one: float(np.mean(one[1].residual ** 2)))
    return best.state, _free(kind)


def _ideal(model: LensKind, width: int, height: int) -> LensModel:
    kind = KannalaBrandt if model == "fisheye" else BrownConrady
    return kind(width=width, height=height, fx=width, fy=width, cx=(width - 1) / 2, cy=(height - 1) / 2)


def _free(model: LensKind) -> Mask:
    return np.array([name not in _HELD[model] for name in _ideal(model, 1, 1).names])


def _flat(points: Float) -> BoardShape:
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return BoardShape(centre_mm=tuple((low + high) / 2), half_mm=tuple((high - low) / 2))


def _board(solution: Solution) -> BoardShape:
    """The board with its sigmas, or FitError where the views do not tell its shape."""
    board, at = solution.state.board, solution.layout.board
    wx, wy, aspect, scale = np.sqrt(np.diag(solution.covariance)[at]).tolist()
    if aspect > _ASPECT_KNOWN:
        raise FitError(
            f"the views tell the aspect of the print to {100 * aspect:.1f} % only: tilt and turn it more"
        )
    if max(wx / board.half_mm[0], wy / board.half_mm[1]) > _WARP_KNOWN:
        raise FitError(
            f"the views tell the warp of the board to {max(wx, wy):.2g} mm only: take more, close and tilted"
        )
    return board.replace(warp_sigma_mm=(wx, wy), aspect_sigma=aspect, scale_sigma=scale)


def _facing(state: State, corners: Corners) -> Mask:
    """Views of the side of the board that most views show: another one is mirrored."""
    _, seen = placed(state, corners)
    towards = np.einsum("ni,ni->n", seen, state.rotations[corners.view][:, :, 2])
    front = np.bincount(corners.view, np.sign(towards)) >= 0
    return front if 2 * front.sum() >= len(front) else ~front


def _sorted(
    points_mm: ArrayLike, pixels: ArrayLike, sigma_px: ArrayLike, what: str
) -> tuple[Float, Float, Float]:
    points, seen = np.asarray(points_mm, np.float64), np.asarray(pixels, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or seen.shape != (len(points), 2):
        raise ValueError(f"{what}: want points (n, 3) and pixels (n, 2), not {points.shape} and {seen.shape}")
    if not (np.isfinite(points).all() and np.isfinite(seen).all()):
        raise ValueError(f"{what}: points and pixels must be finite")
    sigma = np.asarray(sigma_px, np.float64)
    if sigma.shape != (len(points),):
        raise ValueError(f"{what}: want a sigma for each of {len(points)} pixels, not {sigma.shape}")
    sigma = np.where(np.isfinite(sigma) & (sigma > 0), sigma, 0.0)
    order = np.lexsort((sigma, seen[:, 1], seen[:, 0], *points.T))
    return points[order], seen[order], sigma[order]


def _flat_view(view: View, label: str) -> tuple[Float, Float, Float]:
    points, pixels, sigma = _sorted(view.points_mm, view.pixels, view.sigma_px, label)
    if len(points) < _MIN_POINTS:
        raise FitError(f"{label}: {len(points)} corners, need at least {_MIN_POINTS}")
    if np.abs(points[:, 2]).max() > 0:
        raise ValueError(f"{label}: the board must be flat, z = 0 in its frame")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[1] < 1e-6 * spread[0]:
        raise FitError(f"{label}: all corners lie on a line")
    return pixels, points, sigma


def _corners(data: Sequence[tuple[Float, Float, Float]], disc_mm: float) -> Corners:
    pixels, points, sigma = (np.concatenate(part) for part in zip(*data, strict=True))
    view = np.repeat(np.arange(len(data)), [len(part[0]) for part in data])
    return Corners(points, pixels, sigma, view, np.zeros_like(view), disc_mm)


def _disc_mm(views: Sequence[View]) -> float:
    radii = {float(view.disc_mm) for view in views}
    if len(radii) > 1:
        raise ValueError(f"views of different boards: discs of {sorted(radii)} mm")
    return radii.pop()


def _poses(points: Float, rays: Float) -> list[tuple[Float, Float]]:
    """Candidate poses, each (1, 3, 3) and (1, 3), of points seen along unit rays; two for flat ones."""
    middle = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - middle)
    axes[2] *= np.linalg.det(axes)
    local = (points - middle) @ axes.T
    if spread[2] < 1e-6 * spread[0]:
        local[:, 2] = 0
        rotations, translations = plane_poses(local[None], rays[None], np.ones((1, len(points))))
        candidates = [(rotations, translations), mirrored(rotations, translations, np.zeros((1, 3)))]
    elif len(points) >= 6:
        # A pinhole that looks along the mean ray sees all of them.
        towards = np.linalg.svd(np.mean(rays, axis=0)[None])[2]
        towards = towards * np.sign(towards[0] @ np.mean(rays, axis=0))
        turn = np.stack([towards[1], np.cross(towards[0], towards[1]), towards[0]])
        ahead = rays @ turn.T
        ok = ahead[:, 2] > 0.05
        _, rotvecs, moved, _ = cv2.solvePnPGeneric(
            local[ok], ahead[ok, :2] / ahead[ok, 2:], np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP
        )
        turns = Rotation.from_rotvec(np.array(rotvecs).reshape(-1, 3)).as_matrix()
        candidates = [
            (turn.T @ r[None], np.asarray(t).reshape(1, 3) @ turn) for r, t in zip(turns, moved, strict=True)
        ]
    else:
        raise FitError(f"{len(points)} points that are not in a plane: a pose needs at least 6")
    return [(r @ axes, t - np.einsum("vij,j->vi", r @ axes, middle)) for r, t in candidates]


def _observations(solution: Solution, corners: Corners, order: Index) -> Float:
    view = order[corners.view]
    number = np.where(solution.used, view, -1 - view)
    told = np.where(corners.sigma > 0, corners.sigma, np.nan)
    rows = np.column_stack([number, corners.points, corners.pixels, solution.residual, told])
    return np.asarray(rows[np.argsort(view, kind="stable")])
