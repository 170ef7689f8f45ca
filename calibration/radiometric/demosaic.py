"""Colour from a Bayer mosaic, in linear light and with the variance carried along."""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.radiometric.model import Image, Radiance

_CROSS: Image = np.asarray(np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, np.float32)
_SQUARE: Image = np.asarray(np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4, np.float32)


def demosaic(radiance: Radiance, cfa: str) -> Radiance:
    """Bilinear interpolation of a mosaic of linear radiance.

    Parameters
    ----------
    radiance : Radiance, (h, w)
        Of ``RadiometricModel.linearize`` or ``merge``; at least 2 x 2.
    cfa : str
        Colours of the top-left 2 x 2 block, row by row: RGGB, GRBG, GBRG or BGGR.

    Returns
    -------
    Radiance, (h, w, 3)
        R, G, B. A channel is NaN where any sample that it would rest on is NaN: the neighbours of a saturated
        sample are no estimate of it. Neighbouring pixels share samples, so their errors are correlated; the
        variance is that of each pixel alone. At the border the missing neighbours are left out.

    Raises
    ------
    ValueError
        Unknown ``cfa`` or an image that is not a mosaic.
    """
    if cfa not in ("RGGB", "GRBG", "GBRG", "BGGR"):
        raise ValueError(f"colour filter {cfa!r}: want RGGB, GRBG, GBRG or BGGR")
    if radiance.value.ndim != 2 or min(radiance.value.shape) < 2:
        raise ValueError(f"a mosaic has shape (h, w), this image has {radiance.value.shape}")
    invalid = np.isnan(radiance.value)
    value = np.where(invalid, np.float32(0), radiance.value)
    variance = np.where(invalid, np.float32(0), radiance.variance)
    channels = [
        _interpolate(
            value, variance, invalid, _sites(cfa, colour, value.shape), _CROSS if colour == "G" else _SQUARE
        )
        for colour in "RGB"
    ]
    return Radiance(np.stack([c.value for c in channels], -1), np.stack([c.variance for c in channels], -1))


def _sites(cfa: str, colour: str, shape: tuple[int, ...]) -> Image:
    sites = np.zeros(shape, np.float32)
    for k, name in enumerate(cfa):
        if name == colour:
            sites[k // 2 :: 2, k % 2 :: 2] = 1
    return sites


def _interpolate(
    value: Image, variance: Image, invalid: NDArray[np.bool_], sites: Image, kernel: Image
) -> Radiance:
    def spread(image: Image, weights: Image) -> Image:
        return np.asarray(cv2.filter2D(image, cv2.CV_32F, weights, borderType=cv2.BORDER_CONSTANT))

    total = spread(sites, kernel)
    missing = spread(np.where(invalid, sites, np.float32(0)), kernel) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = spread(value * sites, kernel) / total
        spread_variance = spread(variance * sites, kernel * kernel) / (total * total)
    mean[missing | (total == 0)] = np.nan
    spread_variance[missing | (total == 0)] = np.nan
    return Radiance(mean, spread_variance)
