"""Which pixels show the object."""

import cv2
import numpy as np
from numpy.typing import NDArray

_ROWS = 64
_NOISE_FACTOR = 5.0
_QUANTILE = 0.7
_SMALLEST_SHARE = 0.05


def object_mask(radiance: NDArray[np.float32], variance: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels that are bright enough under enough lights to be the object, from the images alone.

    The 0.7 quantile over the lights (so that shadows and highlights do not matter) must stand five sigma
    above the noise. If the logarithms of what remains fall into two groups with a valley between (object and
    dim backdrop), Otsu's threshold takes the brighter. Specks are opened away; connected components smaller
    than 5 % of the largest are dropped. Holes stay holes.

    Parameters
    ----------
    radiance, variance : ndarray (n, h, w) or (n, h, w, 3), float32
        NaN samples are left out; the variance is that of the radiance.

    Returns
    -------
    ndarray (h, w), bool
        All False where nothing is bright.

    Notes
    -----
    Fails where the object's albedo spans the backdrop's: then give a mask. N. Otsu, "A threshold selection
    method from gray-level histograms", IEEE Trans. SMC 9 (1979), doi:10.1109/TSMC.1979.4310076.
    """
    height, width = radiance.shape[1:3]
    bright = np.zeros((height, width), np.float32)
    mask = np.zeros((height, width), bool)
    for y in range(0, height, _ROWS):
        rows = slice(y, y + _ROWS)
        bright[rows], mask[rows] = _bright(radiance[:, rows], variance[:, rows])
    if not mask.any():
        return mask
    logs = np.log(np.where(mask, bright, 1.0))
    mask &= logs > _valley(logs[mask])
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count < 2:
        return np.zeros(labels.shape, bool)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    keep = area >= _SMALLEST_SHARE * area.max()
    keep[0] = False
    return np.asarray(keep[labels])


def _bright(
    radiance: NDArray[np.float32], variance: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    gray = radiance if radiance.ndim == 3 else radiance.mean(axis=3)
    noise = variance if variance.ndim == 3 else variance.mean(axis=3) / 3
    usable = np.isfinite(gray) & np.isfinite(noise)
    order = np.argsort(np.where(usable, gray, np.inf), axis=0)
    rank = np.floor(_QUANTILE * np.maximum(usable.sum(axis=0) - 1, 0)).astype(np.intp)
    at = np.take_along_axis(order, rank[None], axis=0)
    value = np.take_along_axis(gray, at, axis=0)[0]
    sigma = np.sqrt(np.maximum(np.take_along_axis(noise, at, axis=0)[0], 0))
    with np.errstate(invalid="ignore"):
        good = (usable.sum(axis=0) >= 3) & (value > 0) & (value > _NOISE_FACTOR * sigma)
    return np.where(good, value, 0).astype(np.float32), good


def _valley(logs: NDArray[np.float32]) -> float:
    """Otsu's threshold on logarithms, or -inf where they do not form two groups."""
    low, high = np.quantile(logs, [0.002, 0.998])
    if high - low < np.log(2.5):
        return -np.inf
    counts, edges = np.histogram(logs, bins=128, range=(low, high))
    centres = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    total, whole = below[-1], sums[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (whole * below / total - sums) ** 2 / (below * (total - below).astype(np.float64))
    between[~np.isfinite(between)] = 0
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    cut = round(float(best.mean()))
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    peaks = smooth[: cut + 1].max(), smooth[cut + 1 :].max(initial=0.0)
    # The valley may lie beside Otsu's cut where the groups differ in size.
    first, second = int(np.argmax(smooth[: cut + 1])), cut + 1 + int(np.argmax(smooth[cut + 1 :]))
    bottom = first + int(np.argmin(smooth[first : second + 1]))
    apart = centres[second] - centres[first] > np.log(2.5)
    if not (apart and smooth[bottom] < 0.35 * min(peaks)):
        return -np.inf
    floor = np.flatnonzero(smooth[first : second + 1] <= smooth[bottom] + 1e-9) + first
    return float(centres[round(float(floor.mean()))])
