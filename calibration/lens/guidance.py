"""Which view of the board to take next, and which views add nothing: from the covariance of the lens."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from calibration.geometry import Float, normalize
from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.model import LensModel
from calibration.lens.uncertainty import (
    even_weight,
    evidence,
    free_parameters,
    image_grid,
    information,
    scaled_inverse,
    sensitivity,
    weighted_derivatives,
)
from calibration.lens.verdict import place_in_words

_PLACES = (9, 7)
_TILT_DEG, _TILTS_DEG = 35.0, (0.0, 20.0, 35.0, 45.0)
_FILL = (0.45, 0.75)  # of the shorter side of the image, by a board in a first view
_FIRST_SIGMA_PX = 0.1
_MARGIN = 0.02  # of the image's width, that a board keeps from the border
_MOST_CORNERS = 30  # of a candidate; the others repeat what these say
_AT_ONCE = 64
_SIDES = ("right", "lower right", "lower", "lower left", "left", "upper left", "upper", "upper right")


class Suggestion(NamedTuple):
    """A view to take.

    Attributes
    ----------
    rotvec, t_mm : ndarray (3,)
        camera_from_board, rad and mm.
    outline : ndarray (k, 2)
        Border of the board in the image, closed, px.
    words : str
        Where to hold the board, and how.
    gain : float
        Part of the mean variance of the projection that this view would take away.
    """

    rotvec: Float
    t_mm: Float
    outline: Float
    words: str
    gain: float


def suggest_views(
    lens: LensModel,
    points_mm: ArrayLike,
    size_mm: tuple[float, float],
    *,
    count: int = 1,
    whole: bool = True,
) -> tuple[Suggestion, ...]:
    """Views that would reduce the uncertainty most, one after the other.

    Candidates are boards over the whole image, at distances like those seen so far, facing the camera or
    turned by up to 45 degrees. Each is worth what it takes from the variance of the projection, averaged
    over the image (I-optimality), its own pose being unknown.

    Parameters
    ----------
    lens : LensModel
        Fitted, with covariance; or ``first_lens``.
    points_mm : array_like (n, 3)
        Corners of the board.
    size_mm : (float, float)
        Width and height of the board, for the outline.
    count : int
        How many views; each is chosen knowing those before it.
    whole : bool
        The board is found only where it is wholly in view.

    Returns
    -------
    tuple of Suggestion
        Fewer than ``count`` where no board fits into the image.
    """
    points = np.asarray(points_mm, np.float64)
    middle = np.array([size_mm[0] / 2, size_mm[1] / 2, 0.0])
    step = max(len(points) // _MOST_CORNERS, 1)
    thin, free = points[::step], free_parameters(lens)
    sigma = _sigma_px(lens) / np.sqrt(len(points) / len(thin))
    covariance = np.asarray(lens.covariance)[np.ix_(free, free)]
    distances = _distances(lens, size_mm)
    weight = _mean_weight(lens, float(np.median(distances)))
    border = _border(size_mm)
    anywhere = _in_view(lens, _candidates(lens, distances), border - middle, whole)
    out: list[Suggestion] = []
    taken: list[_Pose] = []
    for _ in range(count):
        best: tuple[float, _Pose] | None = None
        for fine in (False, True):
            # The same view twice would help too, but no one asks for it.
            around = [] if best is None else _in_view(lens, _around(lens, best[1]), border - middle, whole)
            poses = [
                pose
                for pose in (around if fine else anywhere)
                if not any(_alike(lens, pose, other) for other in taken)
            ]
            values = _values(lens, free, poses, thin - middle, sigma, covariance, weight)
            for pose, value in zip(poses, values, strict=True):
                if best is None or value > best[0] * (1 + 1e-9):
                    best = value, pose
        if best is None:
            break
        value, pose = best
        taken.append(pose)
        (rotation,), (centre,) = _placed(lens, [pose])
        outline = lens.project((border - middle) @ rotation.T + centre)
        out.append(
            Suggestion(
                Rotation.from_matrix(rotation).as_rotvec(),
                centre - rotation @ middle,
                outline[np.isfinite(outline).all(axis=1)],
                _words(lens, pose, outline),
                value / float(np.sum(covariance * weight)),
            )
        )
        rows = _reduced(lens, free, [pose], thin - middle, sigma)[0]
        gained = rows @ covariance
        covariance = covariance - gained.T @ np.linalg.solve(np.eye(len(rows)) + gained @ rows.T, gained)
    return tuple(out)


def first_lens(width: int, height: int) -> LensModel:
    """What is known of any lens before the first view: a guess with a wide covariance.

    For ``suggest_views`` only: a field of view of about 50 degrees, known to a third.
    """
    focal = 1.1 * max(width, height)
    lens = BrownConrady(
        width=width, height=height, fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2
    )
    told = {"fx": focal / 3, "fy": focal / 3, "cx": width / 20, "cy": width / 20}
    told |= {"k1": 0.3, "k2": 0.3, "p1": 3e-3, "p2": 3e-3}
    return lens.replace(covariance=np.diag([told.get(name, 0.0) ** 2 for name in lens.names]))


def seen_board(lens: LensModel) -> tuple[Float, tuple[float, float], bool]:
    """Corners (n, 3) and size of the board that a lens was fitted to, and whether all of it was always seen.

    The size holds for boards whose margin is the same at opposite sides.
    """
    corners = evidence(lens)
    points = np.unique(corners.board, axis=0)
    width, height = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)).tolist()
    # A few corners may have been thrown out of a view.
    seen = np.bincount(corners.view)
    return points, (width, height), bool(np.median(seen[seen > 0]) > 0.95 * len(points))


def idle_views(lens: LensModel, each: float = 0.02, together: float = 0.1) -> tuple[int, ...]:
    """Views without which the lens would be known nearly as well.

    The least useful view goes first, then the least useful of those left, and so on: of views that repeat
    each other some are named and some are kept.

    Parameters
    ----------
    lens : LensModel
        With covariance, views and observations.
    each, together : float
        What a view, and what all of them, may add at most, of the variance of the projection at a place of
        the image, on average.

    Returns
    -------
    tuple of int
        Numbers of views, the least useful first.
    """
    told, weight = information(lens), even_weight(lens)
    left = list(range(len(told.views)))

    def variance(kept: list[int]) -> float:
        return float(np.sum(scaled_inverse(told.matrix[kept].sum(axis=0) + told.prior) * weight))

    whole = now = variance(left)
    idle: list[int] = []
    while len(left) > 3:
        without = [variance([i for i in left if i != gone]) for gone in left]
        least = int(np.argmin(without))
        if without[least] > min((1 + each) * now, (1 + together) * whole):
            break
        now = without[least]
        idle.append(int(told.views[left.pop(least)]))
    return tuple(idle)


class _Pose(NamedTuple):
    """Candidate: the board's middle in the image (px), its distance, its tilt to a side; a quarter turn."""

    x: float
    y: float
    distance_mm: float
    tilt_deg: float
    side_deg: float
    upright: bool


def _candidates(lens: LensModel, distances: Float) -> list[_Pose]:
    x, y = (
        (np.arange(n) + 0.5) / n * side - 0.5
        for n, side in zip(_PLACES, (lens.width, lens.height), strict=True)
    )
    return [
        _Pose(float(u), float(v), float(far), tilt, 45.0 * side, False)
        for far in distances
        for u in x
        for v in y
        for tilt, sides in ((0.0, 1), (_TILT_DEG, 8))
        for side in range(sides)
    ]


def _around(lens: LensModel, pose: _Pose) -> list[_Pose]:
    dx, dy = lens.width / _PLACES[0] / 2, lens.height / _PLACES[1] / 2
    return [
        pose._replace(x=pose.x + i * dx, y=pose.y + j * dy, tilt_deg=tilt, upright=upright)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        for tilt in _TILTS_DEG
        for upright in (False, True)
    ]


def _alike(lens: LensModel, one: _Pose, other: _Pose) -> bool:
    near = np.hypot(one.x - other.x, one.y - other.y) < 1.2 * lens.width / _PLACES[0]
    turned = one.side_deg != other.side_deg or abs(one.tilt_deg - other.tilt_deg) > 20
    return bool(near and one.distance_mm == other.distance_mm and not turned)


def _placed(lens: LensModel, poses: list[_Pose]) -> tuple[Float, Float]:
    """Rotations (n, 3, 3) of the board and its middles (n, 3), in the camera frame; NaN beyond the lens."""
    x, y, distance, tilt, side, upright = np.array(poses, np.float64).T
    away = lens.unproject(np.stack([x, y], axis=-1))
    right = normalize(np.array([1.0, 0, 0]) - away[:, :1] * away)
    facing = np.stack([right, np.cross(away, right), away], axis=2)
    # The side at this angle in the board's plane (right, then down) comes nearer.
    side, zero = np.radians(side), np.zeros_like(side)
    axis = np.stack([-np.sin(side), np.cos(side), zero], axis=-1)
    turn = Rotation.from_rotvec(np.radians(tilt)[:, None] * axis) * Rotation.from_rotvec(
        np.stack([zero, zero, np.pi / 2 * upright], axis=-1)
    )
    return np.asarray(facing @ turn.as_matrix()), np.asarray(away * distance[:, None])


def _in_view(lens: LensModel, poses: list[_Pose], border: Float, whole: bool) -> list[_Pose]:
    """Those that show the front of the board, all of it or half."""
    rotations, centres = _placed(lens, poses)
    moved = border @ np.swapaxes(rotations, 1, 2) + centres[:, None]
    with np.errstate(invalid="ignore"):
        front = np.all(np.einsum("nbi,ni->nb", moved, rotations[:, :, 2]) > 0, axis=1)
    seen = np.mean(_inside(lens, lens.project(moved)), axis=1) >= (1 if whole else 0.5)
    return [pose for pose, good in zip(poses, front & seen, strict=True) if good]


def _inside(lens: LensModel, pixels: Float) -> NDArray[np.bool_]:
    margin = _MARGIN * lens.width
    with np.errstate(invalid="ignore"):
        low = (pixels >= margin).all(axis=-1)
        high = (pixels <= np.array([lens.width, lens.height]) - 1 - margin).all(axis=-1)
    return np.asarray(low & high)


def _values(
    lens: LensModel,
    free: NDArray[np.bool_],
    poses: list[_Pose],
    points: Float,
    sigma: float,
    covariance: Float,
    weight: Float,
) -> list[float]:
    """What each candidate takes away from the mean variance."""
    inner = covariance @ weight @ covariance
    out: list[float] = []
    for start in range(0, len(poses), _AT_ONCE):
        rows = _reduced(lens, free, poses[start : start + _AT_ONCE], points, sigma)
        # (Sigma^-1 + A'A)^-1 = Sigma - Sigma A' (1 + A Sigma A')^-1 A Sigma.
        turned = np.swapaxes(rows, 1, 2)
        known = np.eye(rows.shape[1]) + rows @ covariance @ turned
        out += np.trace(np.linalg.solve(known, rows @ inner @ turned), axis1=1, axis2=2).tolist()
    return out


def _reduced(
    lens: LensModel, free: NDArray[np.bool_], poses: list[_Pose], points: Float, sigma: float
) -> Float:
    """Derivatives (k, 2n, p) of the corners in units of their sigma, what the pose can take up removed."""
    rotations, centres = _placed(lens, poses)
    flat = (points @ np.swapaxes(rotations, 1, 2) + centres[:, None]).reshape(-1, 3)
    hidden = ~_inside(lens, lens.project(flat))
    residual = np.where(hidden[:, None], np.nan, np.zeros((len(flat), 2)))
    by_lens, by_pose, _ = weighted_derivatives(lens, free, flat, residual, np.full(len(flat), sigma))
    by_lens = by_lens.reshape(len(poses), -1, by_lens.shape[1])
    by_pose = by_pose.reshape(len(poses), -1, 6)
    # A tiny damping for boards of which too little is in view.
    normal = np.swapaxes(by_pose, 1, 2) @ by_pose
    normal += 1e-10 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(6) + 1e-300 * np.eye(6)
    return np.asarray(by_lens - by_pose @ np.linalg.solve(normal, np.swapaxes(by_pose, 1, 2) @ by_lens))


def _mean_weight(lens: LensModel, distance_mm: float) -> Float:
    """Matrix (p, p) whose product with the covariance has the projection's mean variance as its trace."""
    moves = sensitivity(lens, distance_mm, image_grid(lens, 24).reshape(-1, 2))
    moves = moves[np.isfinite(moves).all(axis=(1, 2))]
    return np.asarray(np.einsum("nip,niq->pq", moves, moves, optimize=True) / max(len(moves), 1))


def _distances(lens: LensModel, size_mm: tuple[float, float]) -> Float:
    """Distances at which to hold the board: near, usual and far ones of those seen."""
    if lens.observations is None:
        shown = min(lens.width, lens.height)
        return np.array([lens.fx * max(size_mm) / (fill * shown) for fill in _FILL])
    corners = evidence(lens)
    seen = [
        float(np.linalg.norm(corners.points[corners.view == view].mean(axis=0)))
        for view in np.unique(corners.view)
    ]
    return np.unique(np.quantile(seen, (0.1, 0.5, 0.9)))


def _sigma_px(lens: LensModel) -> float:
    return _FIRST_SIGMA_PX if lens.observations is None else float(np.median(evidence(lens).sigma))


def _border(size_mm: tuple[float, float]) -> Float:
    """Points along the border of the board, closed: (41, 3)."""
    t = np.linspace(0, 4, 41)
    x, y = np.clip(np.minimum(t, 3 - t), 0, 1), np.clip(np.minimum(t - 1, 4 - t), 0, 1)
    return np.stack([x * size_mm[0], y * size_mm[1], np.zeros_like(t)], axis=1)


def _words(lens: LensModel, pose: _Pose, outline: Float) -> str:
    # A large board cannot have its middle far out.
    place = place_in_words(lens, np.array([pose.x, pose.y]), middle=0.15)
    how = "facing the camera"
    if pose.tilt_deg:
        side = _SIDES[round(pose.side_deg / 45) % 8]
        end = "side" if " " not in side else "corner"
        how = f"turned by {pose.tilt_deg:.0f} deg so that its {side} {end} comes nearer"
    turned = ", the board upright (a quarter turn)" if pose.upright else ""
    # Before the first fit nobody knows which distance gives which size.
    span = 100 * float(np.nanmax(np.ptp(outline, axis=0) / (lens.width, lens.height)))
    size = f"spanning {span:.0f} % of it" if lens.observations is None else f"{pose.distance_mm:.0f} mm away"
    return f"{place} of the image, {size}, {how}{turned}"
