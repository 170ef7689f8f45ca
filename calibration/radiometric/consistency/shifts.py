"""Sub-pixel shifts between the frames of an exposure stack."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.radiometric.consistency.sampling import Sample

_ROUNDS = 6
_FEWEST = 100


class Shifts(NamedTuple):
    """Where the scene lies in each frame, against the median of the frames.

    Attributes
    ----------
    shift_px : ndarray (n, 2)
        x, y; NaN for frames that show too little of what the middle ones show.
    sigma_px : ndarray (n, 2)
        One-sigma, of the comparisons that lead to the frame from the one in the middle of the exposures.
    """

    shift_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]

    def significant(self, least_px: float = 0.3) -> NDArray[np.bool_]:
        """Frames that are off by more than ``least_px``, and by more than five sigma."""
        length = np.hypot(*self.shift_px.T)
        sigma = np.hypot(*self.sigma_px.T)
        with np.errstate(invalid="ignore"):
            return np.asarray((length > least_px) & (length > 5 * sigma))


def find_shifts(sample: Sample, exposure_s: ArrayLike, mosaic: bool = False) -> Shifts:
    """Shifts from each exposure to the next longer one, by their gradients in linear light.

    The frames are divided by their exposures and smoothed alike; their difference is fitted by the gradient
    of their mean times the shift, a factor and an offset. Residuals beyond three times their spread, such as
    of something that moved by itself, lose weight.

    Parameters
    ----------
    sample : Sample
        Of ``sample_stack``: tiles of neighbouring pixels.
    exposure_s : array_like (n,)
    mosaic : bool
        The frames are a colour-filter mosaic: blocks of 2 x 2 are averaged first.

    Returns
    -------
    Shifts
        In pixels of the frames. Good for shifts of up to about two pixels (four of a mosaic); a larger one is
        reported too small, but not as none. The gradients' own noise makes a shift of a scene without
        contrast too small; its sigma is then large.

    Notes
    -----
    B. D. Lucas and T. Kanade, An iterative image registration technique, IJCAI 1981, over all tiles at once.
    Fails for scenes without texture, of which sigma tells, and for motion in depth.
    """
    time = np.asarray(exposure_s, np.float64)
    order = np.argsort(time, kind="stable")
    count = len(time)
    steps, variances = np.zeros((count, 2)), np.zeros((count, 2))
    scale = 2 if mosaic else 1
    last: NDArray[np.float32] | None = None
    for k, i in enumerate(order):
        image = _smooth(sample.electrons[i] / np.float32(time[i]), mosaic)
        if last is not None:
            steps[k], sigma = _between(last, image)
            variances[k] = sigma**2
        last = image
    # A step that is not known cuts off all that lies beyond it, seen from the middle.
    middle = (count - 1) // 2
    ends = [np.cumsum(part[middle + 1 :], axis=0) for part in (steps, variances)]
    starts = [np.cumsum(part[middle:0:-1], axis=0)[::-1] for part in (-steps, variances)]
    place, variance = (
        np.concatenate([start, np.zeros((1, 2)), end]) for start, end in zip(starts, ends, strict=True)
    )
    place -= np.nanmedian(place, axis=0)
    shift, sigma_px = np.empty((count, 2)), np.empty((count, 2))
    shift[order], sigma_px[order] = scale * place, scale * np.sqrt(variance)
    return Shifts(shift, sigma_px)


def _smooth(tiles: NDArray[np.float32], mosaic: bool) -> NDArray[np.float32]:
    if tiles.ndim == 4:
        tiles = tiles.mean(axis=-1)
    if mosaic:
        h, w = tiles.shape[1] // 2 * 2, tiles.shape[2] // 2 * 2
        tiles = tiles[:, :h, :w].reshape(len(tiles), h // 2, 2, w // 2, 2).mean(axis=(2, 4))
    return np.stack([cv2.GaussianBlur(tile, (0, 0), 1.2) for tile in tiles])


def _between(
    one: NDArray[np.float32], two: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nothing = np.full(2, np.nan)
    mean = 0.5 * (one + two)
    gy, gx = np.gradient(mean, axis=(1, 2))
    there = np.isfinite(gy) & np.isfinite(gx) & np.isfinite(one) & np.isfinite(two)
    there[:, [0, -1]], there[:, :, [0, -1]] = False, False
    # The smoothing makes neighbours alike: every third row and column is asked.
    there[:, np.arange(there.shape[1]) % 3 > 0] = False
    there[:, :, np.arange(there.shape[2]) % 3 > 0] = False
    if there.sum() < _FEWEST:
        return nothing, nothing
    level = mean[there].astype(np.float64)
    unit = float(np.mean(np.abs(level))) or 1.0
    design = np.stack([-gx[there] / unit, -gy[there] / unit, level / unit, np.ones_like(level)], axis=1)
    target = (two[there] - one[there]) / unit
    # Shot noise: the squares are worth the less, the brighter.
    prior = 1 / np.sqrt(np.maximum(level / unit, 0) + 0.02)
    weight = prior.copy()
    for _ in range(_ROUNDS):
        matrix = (design * (weight**2)[:, None]).T @ design
        if np.linalg.cond(matrix) > 1e12:
            return nothing, nothing
        solution = np.linalg.solve(matrix, (design * (weight**2)[:, None]).T @ target)
        off = prior * (target - design @ solution)
        spread = max(1.4826 * float(np.median(np.abs(off))), 1e-12)
        weight = prior * np.sqrt(np.minimum(1, 3 * spread / np.maximum(np.abs(off), 1e-30)))
    covariance = spread**2 * np.linalg.inv(matrix)
    return solution[:2], np.sqrt(np.diag(covariance)[:2])
