"""Radiance of matte white surfaces under every light: it tells a light's strength, and its direction too."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, rotation, sphere_centre, transform
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.boards import AnyBoard, board_image, pitch_mm, size_mm
from calibration.targets.outline import SphereView, moved_by

TEXTURE = 0.002
"""Relative unevenness of a good white print: samples are not better than this."""


class MatteSamples(NamedTuple):
    """Radiance of a matte white surface, a plane or spheres, at some points under every light.

    Attributes
    ----------
    points_mm : ndarray, (m, 3)
        Camera frame.
    normals : ndarray, (m, 3)
        Of the surface there, towards the camera.
    radiance : ndarray, (n, m) or (n, m, 3)
        e-/s under each light; NaN where unknown.
    sigma : ndarray, as radiance
        Standard deviation, e-/s.
    reflectance : float
        Albedo of the white: it fixes the scale of all albedos found with these lights.
    """

    points_mm: Float
    normals: Float
    radiance: Float
    sigma: Float
    reflectance: float


class WhiteSpots(NamedTuple):
    """Places on a board with nothing printed near.

    Attributes
    ----------
    points_mm : ndarray, (m, 3)
        Board frame.
    clearance_mm : ndarray, (m,)
        Distance to the nearest ink.
    """

    points_mm: Float
    clearance_mm: Float


def white_spots(board: AnyBoard, *, margin_mm: float = 0.0) -> WhiteSpots:
    """Centres of the blank areas of a board, at most one per half square.

    Parameters
    ----------
    board : Board
        As printed.
    margin_mm : float
        White border of the print round the pattern that may be used too.

    Returns
    -------
    WhiteSpots
    """
    scale = 48.0 / pitch_mm(board)
    image = board_image(board, scale)
    border = int(margin_mm * scale)
    blank = np.pad(image > 200, border, constant_values=True)
    # Beyond the pattern and its border anything may lie.
    clear = cv2.distanceTransform(np.pad(blank, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[
        1:-1, 1:-1
    ]
    window = 2 * int(0.25 * pitch_mm(board) * scale) + 1
    # A faint slope towards the top left makes plateaus single-peaked.
    rows, columns = np.indices(clear.shape)
    tie = clear - 3e-5 * rows - 3.3e-5 * columns
    peak = (tie >= cv2.dilate(tie, np.ones((window, window), np.uint8))) & (clear >= 4.0)
    y, x = np.nonzero(peak)
    width, height = size_mm(board)
    h, w = image.shape
    points = np.stack(
        [(x - border + 0.5) * width / w, (y - border + 0.5) * height / h, np.zeros(len(x))], axis=-1
    )
    return WhiteSpots(points, np.asarray((clear[y, x] - 0.5) / scale, np.float64))


def sample_plane(
    radiance: Iterable[NDArray[np.floating]],
    variance: Iterable[NDArray[np.floating]],
    lens: LensModel,
    pose: tuple[Float, Float],
    spots: WhiteSpots,
    reflectance: float,
    *,
    blur_px: float = 1.0,
) -> MatteSamples:
    """Mean radiance round white spots of a board or plane in known pose.

    Parameters
    ----------
    radiance, variance : iterables of ndarray, (h, w) or (h, w, 3)
        One a light, e-/s and its square; NaN is skipped.
    lens : LensModel
        Of these images.
    pose : (rotation vector rad (3,), translation mm (3,))
        camera_from_board.
    spots : WhiteSpots
        In the board's frame.
    reflectance : float
        Albedo of the white.
    blur_px : float
        Standard deviation of the image's blur; windows keep three of it from ink.

    Raises
    ------
    FitError
        No spot is large enough in the image.
    """
    rotvec, translation = pose
    points = transform(rotvec, translation, spots.points_mm)
    matrix = rotation(rotvec)
    normal = matrix[:, 2] * -np.sign(float(matrix[:, 2] @ translation))
    pixels = lens.project(points)
    # Foreshortening shrinks the clear disc in one direction by the cosine of the view angle.
    facing = np.abs(normalize(points) @ normal)
    reach = spots.clearance_mm * facing * min(lens.fx, lens.fy) / points[:, 2] - 3 * blur_px
    # The window is centred on the nearest pixel, and a pixel reaches half a px further.
    reach = np.minimum(reach - 1.2, 8.0)
    room = np.minimum(pixels, [lens.width - 1, lens.height - 1] - pixels).min(axis=-1)
    inside = np.isfinite(pixels).all(axis=-1) & (reach >= 0) & (room > reach + 1)
    if inside.sum() < 4:
        raise FitError(
            f"only {int(inside.sum())} white places of the board are large enough in the image to sample;"
            " use larger squares or come closer"
        )
    centre, reach = np.rint(pixels[inside]).astype(int), reach[inside]
    rays = lens.unproject(centre)
    points = rays * ((points[0] @ normal) / (rays @ normal))[:, None]
    means, sigmas = [], []
    for image, noise in zip(radiance, variance, strict=True):
        mean = np.empty((len(centre), *image.shape[2:]))
        spread = np.empty_like(mean)
        for k, ((x, y), r) in enumerate(zip(centre, reach, strict=True)):
            side = np.arange(-int(r), int(r) + 1)
            dy, dx = np.nonzero(np.hypot(*np.meshgrid(side, side)) <= r)
            at = y + side[dy], x + side[dx]
            patch, square = np.asarray(image[at], np.float64), np.asarray(noise[at], np.float64)
            good = np.isfinite(patch) & np.isfinite(square)
            count = good.sum(axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                enough = count >= 0.5 * len(patch)
                mean[k] = np.where(enough, np.where(good, patch, 0).sum(axis=0) / count, np.nan)
                spread[k] = np.where(enough, np.sqrt(np.where(good, square, 0).sum(axis=0)) / count, np.nan)
        means.append(mean)
        sigmas.append(spread)
    return MatteSamples(
        points, np.broadcast_to(normal, points.shape), np.stack(means), np.stack(sigmas), reflectance
    )


class SphereSamples(NamedTuple):
    """Radiance of matte spheres, and how their places move with the spheres' outlines.

    Attributes
    ----------
    matte : MatteSamples
    part : ndarray, (m,)
        Number of the sphere.
    patch : ndarray, (m,)
        Number of the piece of a sphere: errors of paint and surroundings are alike within one.
    motion : ndarray, (3, 2, m, 3)
        Derivative of points and normals by the three numbers of the outline, ``SphereView.covariance``'s.
    covariance : ndarray, (s, 3, 3)
        Of the outlines.
    centres_mm : ndarray, (s, 3) or None
        None without a lens or a radius: points are then of no known scale, and tell directions only.
    radius_mm : float or None
    """

    matte: MatteSamples
    part: NDArray[np.intp]
    patch: NDArray[np.intp]
    motion: Float
    covariance: Float
    centres_mm: Float | None
    radius_mm: float | None


_ACROSS = 13
"""Windows over the radius of a sphere that its shading is averaged in."""
_WITHIN = 0.93
"""Share of the radius that is used: at the rim the paint is seen grazing."""


def sample_spheres(
    radiance: Iterable[NDArray[np.floating]],
    variance: Iterable[NDArray[np.floating]],
    spheres: Sequence[SphereView],
    lens: LensModel | None,
    *,
    radius_mm: float | None = None,
    reflectance: float = 1.0,
) -> SphereSamples:
    """Mean radiance in small windows all over matte spheres.

    Parameters
    ----------
    radiance, variance : iterables of ndarray, (h, w) or (h, w, 3)
        One a light, e-/s and its square; NaN is missing.
    spheres : sequence of SphereView
        Matte spheres of one radius.
    lens : LensModel or None
        None: orthographic.
    radius_mm : float or None
        Gives the scale.
    reflectance : float
        Albedo of the paint.

    Raises
    ------
    FitError
        A sphere is too small in the picture.
    """
    centres, reaches, parts, normals, points, motions = [], [], [], [], [], []
    for j, view in enumerate(spheres):
        reach = int(view.radius_px / _ACROSS / 2)
        step = 2 * reach + 1
        low = np.rint(view.centre_px - view.radius_px).astype(int)
        grid = np.stack(
            np.meshgrid(*(np.arange(k, k + int(2 * view.radius_px) + step, step) for k in low)), axis=-1
        ).reshape(-1, 2)
        place, normal, inside = _surface(view, lens, radius_mm or 1.0, grid)
        if inside.sum() < 60:
            raise FitError(
                f"matte sphere {j} at ({view.centre_px[0]:.0f}, {view.centre_px[1]:.0f}) px is too small:"
                f" {view.radius_px:.0f} px of radius, want 8 or more"
            )
        unit = 1e-3 if lens is None else 1e-3 / lens.fx
        motion = np.empty((3, 2, int(inside.sum()), 3))
        for k, e in enumerate(np.eye(3)):
            ahead = _surface(moved_by(view, e * unit, lens), lens, radius_mm or 1.0, grid[inside])
            back = _surface(moved_by(view, -e * unit, lens), lens, radius_mm or 1.0, grid[inside])
            for q in range(2):
                motion[k, q] = (ahead[q] - back[q]) / (2 * unit)
        centres.append(grid[inside])
        reaches.append(np.full(int(inside.sum()), reach))
        parts.append(np.full(int(inside.sum()), j))
        normals.append(normal[inside])
        points.append(place[inside])
        motions.append(motion)
    at, reach_of, part = np.concatenate(centres), np.concatenate(reaches), np.concatenate(parts)
    means, sigmas = [], []
    for image, noise in zip(radiance, variance, strict=True):
        mean, spread = np.empty((len(at), *image.shape[2:])), np.empty((len(at), *image.shape[2:]))
        for k, ((x, y), r) in enumerate(zip(at, reach_of, strict=True)):
            window = (slice(max(y - r, 0), max(y + r + 1, 0)), slice(max(x - r, 0), max(x + r + 1, 0)))
            patch, square = np.asarray(image[window], np.float64), np.asarray(noise[window], np.float64)
            whole = patch.shape[0] * patch.shape[1] == (2 * r + 1) ** 2
            # A mean of what is left of a window that is saturated in part would be too low.
            mean[k] = patch.mean(axis=(0, 1)) if whole else np.nan
            spread[k] = np.sqrt(square.sum(axis=(0, 1))) / max(patch.shape[0] * patch.shape[1], 1)
        means.append(mean)
        sigmas.append(spread)
    all_normals = np.concatenate(normals)
    octant = np.zeros(len(at), np.intp)
    for j, view in enumerate(spheres):
        own = part == j
        away = (at[own] - view.centre_px) / view.radius_px
        turn = np.floor((np.arctan2(away[:, 1], away[:, 0]) / (2 * np.pi) + 0.5) * 7.999).astype(int)
        ring = np.digitize(np.hypot(*away.T), (0.35, 0.6, 0.8))
        octant[own] = 32 * j + 8 * ring + turn
    covariance = np.stack([view.covariance for view in spheres])
    metric = lens is not None and radius_mm is not None
    middle = [sphere_centre(v.direction, v.angular_radius_rad, radius_mm or 1.0) for v in spheres]
    return SphereSamples(
        MatteSamples(np.concatenate(points), all_normals, np.stack(means), np.stack(sigmas), reflectance),
        part,
        octant,
        np.concatenate(motions, axis=2),
        np.where(np.isfinite(covariance), covariance, 0.0),
        np.array(middle) if metric else None,
        radius_mm if metric else None,
    )


def _surface(
    view: SphereView, lens: LensModel | None, radius: float, pixels: Float | NDArray[np.intp]
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Points and outward normals of the sphere at pixels (m, 2), and which of them lie well inside."""
    if lens is None:
        flat = (pixels - view.centre_px) / view.radius_px
        square = np.sum(flat**2, axis=-1)
        normal = np.concatenate([flat, -np.sqrt(np.clip(1 - square, 0, 1))[:, None]], axis=-1)
        return normal, normal, np.asarray(square < _WITHIN**2)
    centre = sphere_centre(view.direction, view.angular_radius_rad, radius)
    rays = lens.unproject(pixels)
    along = rays @ centre
    nearest = np.sum((along[:, None] * rays - centre) ** 2, axis=-1)
    with np.errstate(invalid="ignore"):
        inside = nearest < (_WITHIN * radius) ** 2
        points = rays * (along - np.sqrt(np.clip(radius**2 - nearest, 0, None)))[:, None]
    return points, normalize(points - centre), np.asarray(inside)
