"""Whether the views of a fit agree on the lens: halves of them, and each left out, against the covariance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation
from scipy.special import gammaincinv

from calibration.geometry import Float
from calibration.lens.model import LensModel
from calibration.lens.uncertainty import (
    Evidence,
    Information,
    even_weight,
    evidence,
    free_parameters,
    image_grid,
    information,
    projection_difference,
    scaled_inverse,
    sensitivity,
    weighted_derivatives,
    working_distance_mm,
)

_ALONE = 1e-12  # of what is known of an unknown that one view alone tells
_UNMOVED = 5.0  # times the sigmas of two corners, as the median distance of those in common
_SETTLED = 1e-6  # gain of a step, in units of chi-squared


class Halves(NamedTuple):
    """The lens fitted to two halves of its views.

    Attributes
    ----------
    first, second : LensModel
        With their own covariance, views and observations.
    pixels : ndarray (gy, gx, 2)
        Grid over the image.
    difference : ndarray (gy, gx, 2)
        Where the second half images what the first one images at ``pixels``, minus ``pixels``.
    rms, expected, limit : float
        Root mean square length of the difference, px; what the covariance expects; and what one of a
        thousand honest calibrations exceeds.
    """

    first: LensModel
    second: LensModel
    pixels: Float
    difference: Float
    rms: float
    expected: float
    limit: float


class Influence(NamedTuple):
    """How much the lens changes when views are left out in turn.

    Attributes
    ----------
    ratio : float
        Of the changes of the projection, rms over image and views, to what the covariance expects.
    limit : float
        What one of some hundred honest calibrations exceeds.
    factor : float
        By which the uncertainty that these changes show exceeds that of the covariance; means something
        where ``ratio`` exceeds ``limit``.
    """

    ratio: float
    limit: float
    factor: float


class Agreement(NamedTuple):
    """Both looks at the views of a fit; ``halves`` is None where there are too few."""

    influence: Influence
    halves: Halves | None


def agreement(lens: LensModel) -> Agreement:
    """Whether the views of a fit agree: some fits' work, so it is asked once, of the final model."""
    told = information(lens)
    return Agreement(influence(lens, told), compare_halves(lens, told))


def enlarged(lens: LensModel, changed: Influence) -> LensModel:
    """``lens`` with the covariance that its views show, where they disagree by more than chance.

    The covariance is multiplied by the square of ``changed.factor``, the variances of the board's shape too,
    and ``covariance_factor`` keeps count. The views of what comes out agree: nothing is enlarged twice.
    """
    if lens.covariance is None or changed.ratio <= changed.limit:
        return lens
    board, factor = lens.board, changed.factor
    if board is not None:
        wx, wy = board.warp_sigma_mm
        board = board.replace(
            warp_sigma_mm=(factor * wx, factor * wy),
            aspect_sigma=factor * board.aspect_sigma,
            scale_sigma=factor * board.scale_sigma,
        )
    return lens.replace(
        covariance=factor**2 * lens.covariance,
        covariance_factor=factor**2 * lens.covariance_factor,
        board=board,
    )


def unmoved_views(view: NDArray[np.int64], board: Float, pixels: Float, sigma: Float) -> NDArray[np.int64]:
    """Which views show the board where another one does, to the noise: their corners err together.

    Two pictures of a board that was not moved are one view, taken twice: what is wrong in one is wrong in the
    other, so neither tells of the other whether it is right. All count singly where fewer than three places
    would be left.

    Parameters
    ----------
    view : ndarray (n,)
        Number of the view of each corner.
    board, pixels, sigma : ndarray (n, 3), (n, 2), (n,)
        Where each is on the board, where it is seen, and how well.

    Returns
    -------
    ndarray (v,), int64
        Number of the place, from 0, of each of ``np.unique(view)``.
    """
    numbers, row = np.unique(view, return_inverse=True)
    points, column = np.unique(board, axis=0, return_inverse=True)
    seen = np.full((len(numbers), len(points), 2), np.nan)
    variance = np.full((len(numbers), len(points)), np.nan)
    seen[row.ravel(), column.ravel()], variance[row.ravel(), column.ravel()] = pixels, sigma**2
    alike = np.eye(len(numbers), dtype=bool)
    for i in range(len(numbers)):
        common = np.isfinite(variance) & np.isfinite(variance[i])
        # Chances are that only what is near in the middle of the picture is near in all.
        near = np.sum((seen - seen[i]) ** 2, axis=-1) < _UNMOVED**2 * (variance + variance[i])
        alike[i] |= (2 * np.sum(near & common, axis=1) > np.sum(common, axis=1)) & common.any(axis=1)
    alike |= alike.T
    # Chains are one place, so that the order of the views does not matter.
    places, number = connected_components(alike, directed=False)
    return np.arange(len(numbers)) if places < 3 else number.astype(np.int64)


def split_views(lens: LensModel) -> NDArray[np.bool_]:
    """Two halves of the views, alike in spread: (v,), true for the first.

    Views that are most alike go to different halves, but for those of a board that was not moved between
    them (``unmoved_views``), which would agree in their errors too. Nothing depends on the order of views.
    """
    assert lens.views is not None
    corners = evidence(lens)
    first = np.zeros(len(lens.views), dtype=bool)
    numbers = np.unique(corners.view)
    place = _places(corners)
    trait = []
    for number in numbers:
        mine = corners.view == number
        middle = corners.points[mine].mean(axis=0)
        normal = Rotation.from_rotvec(lens.views[number, :3].copy()).as_matrix()[:, 2]
        at = corners.pixels[mine].mean(axis=0) / lens.width
        trait.append([*at, *normal, np.log(np.linalg.norm(middle))])
    traits = np.array([np.mean(np.array(trait)[place == one], axis=0) for one in range(place.max() + 1)])
    order = np.lexsort(traits.T[::-1])
    traits = traits[order]
    apart = np.linalg.norm(traits[:, None] - traits, axis=-1)
    apart[np.tril_indices(len(apart))] = np.inf
    balance, left = np.zeros(traits.shape[1]), set(range(len(traits)))
    for flat in np.argsort(apart, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(traits))
        if i not in left or j not in left or not i < j:
            continue
        step = traits[i] - traits[j]
        swap = np.linalg.norm(balance + step) > np.linalg.norm(balance - step)
        balance += -step if swap else step
        first[numbers[place == order[j if swap else i]]] = True
        left -= {i, j}
    return first


def compare_halves(lens: LensModel, told: Information | None = None) -> Halves | None:
    """Fit each half of the views for itself and compare; None where a half is too small for a fit.

    The halves start at the common solution, with the corners that it kept and the shape of its board.
    ``told`` is ``information(lens)``, where it is at hand.
    """
    assert lens.views is not None
    corners = evidence(lens)
    split, kept, place = split_views(lens), np.unique(corners.view), _places(corners)
    sides = split[kept], ~split[kept]
    own = [kept[side] for side in sides]
    if min(len(np.unique(place[side])) for side in sides) < 3:
        return None
    told = information(lens) if told is None else told
    prior = told.prior
    first, second = (_refined(lens, views, told) for views in own)
    if first is None or second is None:
        return None
    distance = working_distance_mm(lens)
    pixels = image_grid(lens)
    difference = projection_difference(first, second, distance, pixels)
    free = free_parameters(lens)
    # Of the difference; the prior is the same for both.
    parts = (np.asarray(half.covariance)[np.ix_(free, free)] for half in (first, second))
    covariance = np.sum([part - part @ prior @ part for part in parts], axis=0)
    moves = sensitivity(lens, distance, pixels.reshape(-1, 2))
    valid = np.isfinite(moves).all(axis=(1, 2)) & np.isfinite(difference).all(axis=-1).ravel()
    if not valid.any():
        return None
    weight = np.einsum("nip,niq->pq", moves[valid], moves[valid], optimize=True) / int(valid.sum())
    # A sum of squares with these variances is close to a gamma variable of the same mean and variance.
    product = covariance @ weight
    mean, variance = float(np.trace(product)), 2 * float(np.sum(product * product.T))
    shape = mean**2 / variance
    return Halves(
        first,
        second,
        pixels,
        difference,
        rms=float(np.sqrt(np.mean(np.sum(difference.reshape(-1, 2)[valid] ** 2, axis=1)))),
        expected=float(np.sqrt(mean)),
        limit=float(np.sqrt(mean * gammaincinv(shape, 0.999) / shape)),
    )


def influence(lens: LensModel, told: Information | None = None) -> Influence:
    """Leave each view out, one at a time, and compare the change with what the covariance expects.

    Views of a board that was not moved between them (``unmoved_views``) are left out together.

    More telling than two halves: each view is one more trial. The factor, where corners of one picture err
    together, is that of the delete-one jackknife: it exceeds the ratio since a view that says much of an
    unknown carries its common error whole into the lens. ``told`` is ``information(lens)``, where it is at
    hand.

    Notes
    -----
    Jackknife over clusters: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 11.
    """
    told = information(lens) if told is None else told
    covariance = scaled_inverse(told.matrix.sum(axis=0) + told.prior)
    weight = covariance @ even_weight(lens) @ covariance
    square = mean = variance = 0.0
    parts = _by_place(told, _places(evidence(lens)))
    for design, residual in parts:
        # By M. Woodbury's identity, in as many unknowns as the view has residuals.
        share, axes = np.linalg.eigh(design @ covariance @ design.T)
        more = (axes / np.maximum(1 - share, _ALONE)) @ axes.T
        moved = design @ weight @ design.T
        step = more @ residual
        # The covariance of a change by data left out is the difference of the covariances.
        product = more @ moved
        square += float(step @ moved @ step)
        mean += float(np.trace(product))
        variance += 2 * float(np.sum(product * product.T))
    shape = mean**2 / variance
    ratio, number = float(np.sqrt(square / mean)), len(parts)
    # The weight makes the variance that the covariance claims one.
    jackknife = float(np.sqrt((number - 1) / number * square))
    # Where smoothness tells most, leaving views out shows a part of the variance only.
    return Influence(ratio, float(np.sqrt(gammaincinv(shape, 0.999) / shape)), max(jackknife, ratio))


def _places(corners: Evidence) -> NDArray[np.int64]:
    return unmoved_views(corners.view, corners.board, corners.pixels, corners.sigma)


def _by_place(told: Information, place: NDArray[np.int64]) -> list[tuple[Float, Float]]:
    """Design and residual of each place, with no more rows than unknowns."""
    out = []
    for one in range(place.max() + 1):
        mine = np.flatnonzero(place == one)
        design = np.concatenate([told.design[i] for i in mine])
        residual = np.concatenate([told.residual[i] for i in mine])
        if len(mine) > 1 and len(design) > design.shape[1]:
            axes, design = np.linalg.qr(design)
            residual = axes.T @ residual
        out.append((design, residual))
    return out


def _refined(lens: LensModel, views: NDArray[np.int64], told: Information) -> LensModel | None:
    """``lens`` fitted again to some of its views, with the corners and the prior that it had."""
    corners, free = evidence(lens), free_parameters(lens)
    mine = [np.flatnonzero(corners.view == view) for view in views]
    poses = np.full_like(np.asarray(lens.views), np.nan)
    poses[views] = np.asarray(lens.views)[views]
    rotations = Rotation.from_rotvec(poses[views, :3]).as_matrix()
    shifts = poses[views, 3:]
    points = [corners.points[rows] for rows in mine]
    residuals = [corners.residual[rows] for rows in mine]
    now, prior = lens, told.prior
    pull = -told.gradient.sum(axis=0) if prior.any() else np.zeros(int(free.sum()))
    for _ in range(4):
        # The prior pulls against all views of the fit, in balance with them there.
        matrix, gradient = prior.copy(), pull - prior @ (now.parameters - lens.parameters)[free]
        parts = []
        for rows, p, r in zip(mine, points, residuals, strict=True):
            by_lens, by_pose, right = weighted_derivatives(now, free, p, r, corners.sigma[rows])
            solved = np.linalg.lstsq(by_pose, np.column_stack([by_lens, right]), rcond=None)[0]
            open_ = by_lens - by_pose @ solved[:, :-1]
            matrix += open_.T @ open_
            gradient += open_.T @ right
            parts.append(solved)
        covariance = scaled_inverse(matrix)
        step = np.zeros(len(free))
        step[free] = covariance @ gradient
        values = now.parameters + step
        if not (np.isfinite(values).all() and values[:2].min() > 0):
            return None
        following = now.with_parameters(values)
        for i, (p, solved) in enumerate(zip(points, parts, strict=True)):
            move = solved[:, -1] - solved[:, :-1] @ step[free]
            move[3:] *= np.linalg.norm(p.mean(axis=0))
            turn = Rotation.from_rotvec(move[:3]).as_matrix()
            # What is stored counts as measured, so the shape of the board need not be known.
            moved = p @ turn.T + move[3:]
            residuals[i] = residuals[i] + now.project(p) - following.project(moved)
            points[i] = moved
            rotations[i], shifts[i] = turn @ rotations[i], turn @ shifts[i] + move[3:]
        now = following
        if float(gradient @ step[free]) < _SETTLED:
            break
    if not all(np.isfinite(r).all() for r in residuals):
        return None
    full = np.zeros((len(free), len(free)))
    full[np.ix_(free, free)] = covariance
    poses[views] = np.concatenate([Rotation.from_matrix(rotations).as_rotvec(), shifts], axis=1)
    rows = np.asarray(lens.observations)
    rows = rows[rows[:, 0] >= 0]
    rows = rows[np.argsort(rows[:, 0], kind="stable")][np.concatenate(mine)]
    rows[:, 6:8] = np.concatenate(residuals)
    return now.replace(
        covariance=full,
        covariance_factor=lens.covariance_factor,
        views=poses,
        observations=rows,
        board=lens.board,
    )
