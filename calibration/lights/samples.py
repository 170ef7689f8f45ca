"""Radiance of matte white surfaces under every light: it tells a light's strength, and its direction too."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, rotation, transform
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.boards import AnyBoard, board_image, pitch_mm, size_mm

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
