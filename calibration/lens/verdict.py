"""Whether a fitted lens may be trusted, what it lacks, and what to do about it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.geometry import Float, angle_deg
from calibration.lens.agreement import Halves
from calibration.lens.model import LensModel
from calibration.lens.uncertainty import Evidence, evidence, image_grid, projection_sigma
from calibration.provenance import FitError, Quality

PARALLEL_DEG = 3.0
_HARDLY_TILTED_DEG = 15.0
_TILTED_ENOUGH_DEG = 60.0
_GRID = (8, 6)
_SAME_TURN_DEG, _SAME_PLACE = 5.0, 0.08  # of the image's width, and of the distance
_SQUARE_PART = 0.1  # of a square: no sharp corner is missed by that
_UNSURE_PX = 0.3
_FAR_OFF = 0.02  # of the image's width: the fit is not linear over such a sigma of the principal point
_FAR_MORE = 5.0  # times what independent errors explain: the factor itself is hardly known then
_SYSTEMATIC_Z, _REPEATED_PX = 4.0, 0.1
_LOSES_MANY, _LOSES_FEW = 0.25, 0.05  # of a view's corners
_ABOVE_NOISE = 4.0  # times what the detections tell


class Finding(NamedTuple):
    """One sentence of a verdict, and whether it makes the fit doubtful."""

    serious: bool
    text: str


class Shared(NamedTuple):
    """What residuals of different views have in common: its rms in px, the part of their variance, and z."""

    rms: float
    part: float
    z: float


def judge(lens: LensModel, names: Sequence[str], halves: Halves | None = None) -> Quality:
    """Quality of a fit, from the finished model alone.

    Parameters
    ----------
    lens : LensModel
        With covariance, views and observations. The covariance is taken at its word: see ``enlarged``.
    names : sequence of str
        Of the views, in the order of ``lens.views``.
    halves : Halves, optional
        Of the views, compared.

    Returns
    -------
    Quality
        Residual rms of a coordinate; the verdict; warnings with what to do, the serious ones first.

    Raises
    ------
    FitError
        What was fitted is no camera: fewer than three views agree, boards all parallel, seen from behind
        (mirrored), a principal point far outside; says what to do.
    """
    corners = evidence(lens)
    _refuse(lens, corners)
    serious: list[str] = []
    minor: list[str] = []
    for finding in (
        *_of_views(lens, names, corners),
        *_of_coverage(lens, corners),
        *_of_residuals(lens, names, corners),
        *_of_structure(lens, corners),
        *_of_focal_lengths(lens),
        *_of_projection(lens, corners, halves),
    ):
        (serious if finding.serious else minor).append(finding.text)
    assert lens.observations is not None
    return Quality(
        residual_rms=_rms(corners.residual),
        unit="px",
        observations=2 * len(corners.view),
        rejected=2 * (len(lens.observations) - len(corners.view)),
        verdict="doubtful" if serious else "good",
        warnings=(*serious, *minor),
    )


def refuse(lens: LensModel) -> None:
    """Raise FitError where what was fitted is no camera."""
    _refuse(lens, evidence(lens))


def _refuse(lens: LensModel, corners: Evidence) -> None:
    alive = np.unique(corners.view)
    if len(alive) < 3:
        raise FitError(
            f"only {len(alive)} views agree with one lens: check the board's columns, rows and square size"
        )
    assert lens.covariance is not None
    fx, fy, cx, cy = lens.parameters[:4]
    # Views that disagree make a doubtful lens, but a lens.
    variance = np.diag(lens.covariance)[:2] / lens.covariance_factor
    known = bool(np.all(np.sqrt(variance) / (fx, fy) < 0.1))
    tilt = largest_tilt_deg(_rotations(lens, alive))
    refuse_parallel(tilt, PARALLEL_DEG if known else _TILTED_ENOUGH_DEG)
    if not known:
        raise FitError(
            "the corners tell no focal length, tilted as the boards are: check the board's columns, rows and "
            "squares, or try another kind of lens"
        )
    if not (-lens.width < cx < 2 * lens.width and -lens.height < cy < 2 * lens.height):
        raise FitError(f"the principal point went to {cx:.0f}, {cy:.0f}: add views with other tilts")
    # The board's z axis points into it, away from who sees its front.
    towards = np.einsum("ni,ni->n", _rotations(lens, corners.view)[:, :, 2], corners.points)
    behind = int(np.sum(np.bincount(corners.view, towards)[alive] < 0))
    if 2 * behind > len(alive):
        raise FitError(
            f"{behind} of {len(alive)} boards are seen from behind: the images are mirrored, or the "
            "board's description is another board's"
        )


def refuse_parallel(tilt_deg: float, limit_deg: float) -> None:
    """Raise FitError where boards differ in tilt by less than a limit."""
    if tilt_deg < limit_deg:
        raise FitError(
            f"the boards differ in tilt by {tilt_deg:.1f} deg at most: focal length and distance cannot be "
            "told apart. Tilt the board by 20 to 40 deg, to all sides"
        )


def largest_tilt_deg(rotations: Float) -> float:
    """Largest angle between the normals of two boards, rotations (v, 3, 3)."""
    normals = rotations[:, :, 2]
    return float(np.max(angle_deg(normals[:, None], normals)))


def similar_views(lens: LensModel) -> tuple[tuple[int, ...], ...]:
    """Groups of two and more views that show nearly the same: place, distance and tilt of the board."""
    return _similar(lens, evidence(lens))


def _similar(lens: LensModel, corners: Evidence) -> tuple[tuple[int, ...], ...]:
    first = np.flatnonzero(np.diff(corners.view, prepend=-1))
    numbers, count = corners.view[first], np.diff(first, append=len(corners.view))[:, None]
    places = np.add.reduceat(corners.pixels, first) / count / lens.width
    fars = np.linalg.norm(np.add.reduceat(corners.points, first) / count, axis=1)
    normal = _rotations(lens, numbers)[:, :, 2]
    alike = (
        (angle_deg(normal[:, None], normal) < _SAME_TURN_DEG)
        & (np.linalg.norm(places[:, None] - places, axis=-1) < _SAME_PLACE)
        & (np.abs(np.log(fars[:, None] / fars)) < _SAME_PLACE)
    )
    # Chains count as one group, so that the order of the views does not matter.
    label = np.arange(len(numbers))
    for _ in range(len(numbers)):
        label = np.min(np.where(alike, label, len(numbers)), axis=1)
    groups = [tuple(int(n) for n in numbers[label == first]) for first in np.unique(label)]
    return tuple(group for group in groups if len(group) > 1)


def _of_views(lens: LensModel, names: Sequence[str], corners: Evidence) -> Iterator[Finding]:
    alive = np.unique(corners.view)
    gone = [names[i] for i in range(len(names)) if i not in alive]
    if gone:
        yield Finding(True, f"left out, their corners agree with no pose: {', '.join(sorted(gone))}")
    groups = _similar(lens, corners)
    distinct = len(alive) - sum(len(group) - 1 for group in groups)
    if len(alive) < 5:
        yield Finding(True, f"only {len(alive)} views: take 15 or more")
    elif distinct < 5:
        yield Finding(
            True, f"{len(alive)} views, but only {distinct} clearly different ones: take 15 of these"
        )
    elif distinct < 10:
        yield Finding(False, f"{distinct} different views: 15 or more would be safer")
    for group in groups:
        if len(group) > 2:
            alike = ", ".join(sorted(names[i] for i in group))
            yield Finding(False, f"nearly the same view, counts little more than once: {alike}")
    tilt = largest_tilt_deg(_rotations(lens, alive))
    if tilt < _HARDLY_TILTED_DEG:
        yield Finding(
            True, f"the boards differ in tilt by {tilt:.0f} deg at most: tilt by 20 to 40 deg, to all sides"
        )


def _of_coverage(lens: LensModel, corners: Evidence) -> Iterator[Finding]:
    cell = np.floor((corners.pixels + 0.5) / (lens.width, lens.height) * _GRID).astype(int)
    cell = np.clip(cell, 0, np.array(_GRID) - 1)
    seen = np.zeros(_GRID, dtype=bool)
    seen[cell[:, 0], cell[:, 1]] = True
    # Where the lens images nothing (outside a fisheye's circle) no corners are missing.
    centre = (np.indices(_GRID).reshape(2, -1).T + 0.5) / _GRID * (lens.width, lens.height) - 0.5
    imaged = np.isfinite(lens.unproject(centre)).all(axis=-1).reshape(_GRID) | seen
    covered = 100 * float(seen.sum() / imaged.sum())
    if covered < 30:
        yield Finding(
            True, f"corners cover {covered:.0f} % of the image: the distortion elsewhere is a guess"
        )
        return
    sides = {"left": (0, 0), "right": (0, -1), "upper": (1, 0), "lower": (1, -1)}
    bare = [
        name
        for name, (axis, at) in sides.items()
        if seen.take(at, axis).sum() < 0.2 * imaged.take(at, axis).sum()
    ]
    if covered < 60 or bare:
        edges = f"{', '.join(bare)} edge{'s' if len(bare) > 1 else ''}" if bare else "edges"
        yield Finding(False, f"corners cover {covered:.0f} % of the image: move the board into the {edges}")


def _of_residuals(lens: LensModel, names: Sequence[str], corners: Evidence) -> Iterator[Finding]:
    every = np.asarray(lens.observations)
    number = np.where(every[:, 0] >= 0, every[:, 0], -1 - every[:, 0]).astype(int)
    rms = _rms(corners.residual)
    # No square of a pixel is ever found.
    if rms > _SQUARE_PART and rms > _SQUARE_PART * (square := _square_px(corners)):
        yield Finding(
            True,
            f"residuals of {rms:.1f} px rms where a square has {square:.0f} px: are columns, rows and kind "
            "of the board right?",
        )
    elif rms > 1.0:
        yield Finding(
            True, f"residuals of {rms:.1f} px rms: is the board flat, the image sharp, the square size right?"
        )
    lost = 1 - len(corners.view) / len(every)
    if lost > 0.1:
        yield Finding(True, f"{100 * lost:.0f} % of the corners do not agree with the rest")
    expected = _noise_px(lens)
    if rms > max(_ABOVE_NOISE * expected, _REPEATED_PX):
        yield Finding(
            False,
            f"residuals of {rms:.2f} px where the pictures' noise explains {expected:.2f}: a bent board "
            "(--warp), another kind of lens (--model), or a board that moved",
        )
    alive = np.unique(corners.view)
    squares = np.bincount(corners.view, np.sum(corners.residual**2, axis=1))
    rms_of = np.sqrt(squares / np.maximum(2 * np.bincount(corners.view), 1))
    lost_of = np.bincount(number, every[:, 0] < 0) / np.maximum(np.bincount(number), 1)
    usual = float(np.median(rms_of[alive]))
    alone = float(np.median(lost_of[alive])) < _LOSES_FEW
    for i in sorted(alive.tolist(), key=lambda i: names[i]):
        lost = float(lost_of[i])
        if lost > _LOSES_MANY and alone:
            text = "turned, cropped, or of another camera? Leave it out"
            yield Finding(
                True, f"{names[i]}: {100 * lost:.0f} % of its corners do not agree with the rest: {text}"
            )
        elif lost > _LOSES_MANY:
            yield Finding(False, f"{names[i]}: {100 * lost:.0f} % of its corners do not agree with the rest")
        elif rms_of[i] > max(3 * usual, 0.02):
            yield Finding(False, f"{names[i]}: residual {rms_of[i]:.2f} px, the median view has {usual:.2f}")


def _of_structure(lens: LensModel, corners: Evidence) -> Iterator[Finding]:
    """Residuals that repeat from view to view are no noise: of the lens in the image, or of the board."""
    shared = _shared_residuals(lens, corners)
    best = max(shared, key=lambda one: one.part)
    if best.z < _SYSTEMATIC_Z or best.part < 0.1 or best.rms < 0.01:
        return
    rms = _rms(corners.residual)
    above = rms > max(_ABOVE_NOISE * _noise_px(lens), _REPEATED_PX)
    if best is shared[0]:
        where = "places of the image"
        what = "the lens is of another kind: try --model auto or splined"
        if lens.MODEL == "splined":
            what = "the lens is not even smooth, or its pictures were resampled"
    else:
        where = "corners of the board"
        what = (
            "it is bent: try --warp" if best is shared[2] else "it is not as described: try --warp, --aspect"
        )
        if lens.board is not None:
            what = "it is neither as described nor evenly bent: take a stiffer, truer one"
    wrong = best.rms > _REPEATED_PX or (best is shared[0] and above)
    part = f"{best.rms:.2g} px of the residuals' {rms:.2g} px"
    yield Finding(wrong, f"{part} repeat at the same {where}: {what}")


def shared_residuals(lens: LensModel) -> tuple[Shared, Shared, Shared]:
    """What residuals of different views have in common: at places of the image, on the board, off the board.

    Views with independent noise share nothing: the sum over all pairs of views of what one view's residuals
    say of the other's has mean zero, and its spread under a change of sign of whole views is known.
    """
    return _shared_residuals(lens, evidence(lens))


def _shared_residuals(lens: LensModel, corners: Evidence) -> tuple[Shared, Shared, Shared]:
    cells = max(min(int(np.sqrt(len(corners.view) / 12)), 16), 2)
    place = np.clip(((corners.pixels + 0.5) / (lens.width, lens.height) * cells).astype(int), 0, cells - 1)
    at_image = place @ np.array([1, cells])
    at_board = _same(corners.board)
    axes = _rotations(lens, corners.view)
    by_points = lens.derivatives(corners.points).by_points / corners.sigma[:, None, None]
    by_board = by_points @ axes
    by_image = np.broadcast_to(np.eye(2), (len(place), 2, 2)) / corners.sigma[:, None, None]
    residual = corners.residual / corners.sigma[:, None]
    rms = _rms(corners.residual)
    return (
        _shared(by_image, residual, at_image, corners.view, rms),
        _shared(by_board[..., :2], residual, at_board, corners.view, rms),
        _shared(by_board[..., 2:], residual, at_board, corners.view, rms),
    )


def _same(points: Float) -> NDArray[np.int64]:
    """Numbers (n,) that equal points (n, 3) have in common."""
    order = np.lexsort(points.T)
    number = np.empty(len(points), np.int64)
    number[order] = np.cumsum(np.any(np.diff(points[order], axis=0, prepend=points[order[:1]]) != 0, axis=1))
    return number


def _shared(
    by: Float, residual: Float, group: NDArray[np.int64], view: NDArray[np.int64], rms: float
) -> Shared:
    """What a displacement of each group explains of the residuals (n, 2) of other views."""
    views = np.unique(view, return_inverse=True)[1].ravel()
    count, size = int(group.max()) + 1, by.shape[2]
    score = np.zeros((count, int(views.max()) + 1, size))
    np.add.at(score, (group, views), np.einsum("nik,ni->nk", by, residual))
    weight = np.zeros((count, size, size))
    np.add.at(weight, group, np.einsum("nik,nil->nkl", by, by))
    weight += 1e-9 * np.trace(weight, axis1=1, axis2=2)[:, None, None] * np.eye(size) + 1e-300 * np.eye(size)
    pairs = np.einsum("gvk,gkl,gwl->vw", score, np.linalg.inv(weight), score, optimize=True)
    each = pairs[np.triu_indices(len(pairs), 1)]
    total = float(np.sum(residual**2))
    spread = float(np.sqrt(np.sum(each**2)))
    part = max(2 * float(each.sum()) / max(total, 1e-300), 0.0)
    return Shared(rms * min(part, 1.0) ** 0.5, part, float(each.sum()) / spread if spread > 0 else 0.0)


def _of_focal_lengths(lens: LensModel) -> Iterator[Finding]:
    sigma = np.sqrt(np.diag(np.asarray(lens.covariance)))
    relative = 100 * float(np.max(sigma[:2] / lens.parameters[:2]))
    if relative > 1:
        yield Finding(
            True, f"the focal length is known to {relative:.1f} % only: tilt the board more, to all sides"
        )
    unsure = float(np.max(sigma[2:4]))
    if unsure > _FAR_OFF * lens.width:
        yield Finding(
            False,
            f"the principal point is known to {unsure:.0f} px only, and its error may be some times that: so "
            "far off, hardly anything tells it. A turn of the camera makes up for it",
        )
    ratio = lens.fy / lens.fx
    if abs(ratio - 1) > 0.02:
        yield Finding(
            False,
            f"fy / fx is {ratio:.3f}: either the pixels are not square, or the board's squares are not: "
            "measure them (--aspect fits it)",
        )


def _of_projection(lens: LensModel, corners: Evidence, halves: Halves | None) -> Iterator[Finding]:
    distance, grid = float(np.median(np.linalg.norm(corners.points, axis=1))), image_grid(lens)
    sigma = projection_sigma(lens, distance, grid)
    lost = 100 * float(np.mean(~np.isfinite(sigma)))
    if lens.MODEL == "brown-conrady" and lost > 0:
        yield Finding(
            False,
            f"the model images nothing in {max(lost, 1):.0f} % of the picture: move the board "
            "to the border, or try --model fisheye or splined",
        )
    if lost < 100 and (worst := float(np.nanmax(sigma))) > _UNSURE_PX:
        place = place_in_words(lens, grid.reshape(-1, 2)[int(np.nanargmax(sigma))])
        yield Finding(
            worst > 1.0,
            f"{place}: a point {distance:.0f} mm away is imaged to {in_px(worst)} only: put the tilted "
            "board there",
        )
    if lens.covariance_factor > 1 and lost < 100:
        factor = float(np.sqrt(lens.covariance_factor))
        yield Finding(
            factor > _FAR_MORE or float(np.nanmedian(sigma)) > _UNSURE_PX,
            "views left out in turn change the projection more than independent errors would: corners of "
            f"one picture err together, and all sigmas are enlarged by a factor of {factor:.1f}",
        )
    elif halves is not None and halves.rms > max(halves.limit, 0.02):
        yield Finding(
            halves.rms > _UNSURE_PX,
            f"two halves of the views disagree by {in_px(halves.rms)}, the covariance expects "
            f"{in_px(halves.expected)}: the uncertainty is larger than it says",
        )


def in_px(value: float) -> str:
    """A length in the image with two digits, such as ``0.12 px``."""
    return f"{value:.2g} px" if value < 10 else f"{value:.0f} px"


def place_in_words(lens: LensModel, pixel: Float, middle: float = 1 / 3) -> str:
    """Such as ``upper left corner``; ``middle`` is the part of a side that counts as its middle."""
    off = (np.asarray(pixel) + 0.5) / (lens.width, lens.height) - 0.5
    right = "left" if off[0] < -middle / 2 else "right" if off[0] > middle / 2 else ""
    down = "upper" if off[1] < -middle / 2 else "lower" if off[1] > middle / 2 else ""
    if down and right:
        return f"{down} {right} corner"
    return f"{down or right} edge" if down or right else "middle"


def _rotations(lens: LensModel, views: NDArray[np.int64]) -> Float:
    return np.asarray(Rotation.from_rotvec(np.asarray(lens.views)[views, :3]).as_matrix())


def _noise_px(lens: LensModel) -> float:
    """Sigma of a coordinate that the detections tell; inf where they tell nothing."""
    every = np.asarray(lens.observations)
    told = every[every[:, 0] >= 0, 8] if every.shape[1] > 8 else np.zeros(1)
    sigma = _rms(told)
    return sigma if np.isfinite(sigma) and sigma > 0 else np.inf


def _square_px(corners: Evidence) -> float:
    """Usual distance of a corner from its nearest neighbour, px."""
    out = []
    for view in np.unique(corners.view):
        seen = corners.pixels[corners.view == view]
        apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
        np.fill_diagonal(apart, np.inf)
        out.append(float(np.median(apart.min(axis=1))))
    return float(np.median(out))


def _rms(values: Float) -> float:
    return float(np.sqrt(np.mean(values**2)))
