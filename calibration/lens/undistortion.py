"""Images with the lens distortion taken out."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.model import LensModel

_ROUNDING_PX = 1e-3


class Undistorted(NamedTuple):
    """Image (h, w) or (h, w, c), float32, NaN where the camera saw nothing; its lens without distortion."""

    image: NDArray[np.float32]
    lens: LensModel


def undistort_image(lens: LensModel, image: NDArray[Any]) -> Undistorted:
    """Image that the same camera would take without distortion: same size, focal length and principal point.

    Bilinear between pixels, so fine detail loses contrast and noise is smoothed (its variance by up to
    4) and correlated: measure corners and highlights in the original image and undistort points by
    ``lens.unproject``.

    Parameters
    ----------
    lens : LensModel
        Of the camera that took the image.
    image : ndarray (h, w) or (h, w, c)
        Any real type; NaN spreads to the pixels that rest on it.

    Returns
    -------
    Undistorted
        The image and the lens model without distortion that goes with it.

    Raises
    ------
    ValueError
        The image is not of the lens model's size.
    """
    if image.shape[:2] != (lens.height, lens.width) or image.ndim not in (2, 3):
        raise ValueError(f"image {image.shape} does not fit a lens of {lens.width} x {lens.height} px")
    u, v = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
    points = np.stack([(u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, np.ones(u.shape)], axis=-1)
    where = lens.project(points)
    on_image = np.clip(where, 0, (lens.width - 1, lens.height - 1))
    # Rounding must not put the outermost pixels outside.
    outside = ~np.all(np.abs(where - on_image) < _ROUNDING_PX, axis=-1)
    # Linear interpolation of float32 is exact in OpenCV 5; cubic and Lanczos round to 1/32 px.
    seen = cv2.remap(
        np.ascontiguousarray(image, np.float32),
        np.ascontiguousarray(np.nan_to_num(on_image[..., 0]), np.float32),
        np.ascontiguousarray(np.nan_to_num(on_image[..., 1]), np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    seen[outside] = np.nan
    straight = BrownConrady(
        width=lens.width, height=lens.height, fx=lens.fx, fy=lens.fy, cx=lens.cx, cy=lens.cy,
        covariance=_pinhole_part(lens), provenance=lens.provenance,
    )  # fmt: skip
    return Undistorted(np.asarray(seen, np.float32).reshape(image.shape), straight)


def _pinhole_part(lens: LensModel) -> NDArray[np.float64] | None:
    if lens.covariance is None:
        return None
    covariance = np.zeros((12, 12))
    covariance[:4, :4] = lens.covariance[:4, :4]
    return covariance
