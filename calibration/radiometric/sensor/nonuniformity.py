"""Spatial nonuniformity of an averaged image: parts of rows, columns and pixels, spectrogram, profiles.

EMVA Standard 1288, Release 4.0 Linear, chapters 4.2 and 8.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from calibration.radiometric.sheet import NonUniformity

Float = NDArray[np.float64]
Image = NDArray[np.float32]

_STRIP = 96
_HALO = 9  # rows that the low-pass reaches: 3 + 5 + 1
_BINS = 256
_BANDS = 256
_LISTED = 1000
_LIST_SIGMAS = 6.0
_UNLIT = 0.02  # of the mean: the corner of a fisheye's picture says nothing of its pixels

# The standard's low-pass: a 7 x 7 box, an 11 x 11 box, a 3 x 3 binomial, one after the other.
_LOW_PASS = np.convolve(np.convolve(np.full(7, 1 / 7), np.full(11, 1 / 11)), [0.25, 0.5, 0.25])
_CENTRE = len(_LOW_PASS) // 2
# What the high-pass leaves of the variance of white rows or columns, and of white pixels.
_LINES_LEFT = float(1 - 2 * _LOW_PASS[_CENTRE] + np.sum(_LOW_PASS**2))
_PIXELS_LEFT = float(1 - 2 * _LOW_PASS[_CENTRE] ** 2 + np.sum(_LOW_PASS**2) ** 2)


@dataclass(frozen=True)
class Spread:
    """Variances over the pixels of one image, with their own variances (``*_error2``)."""

    row: float
    column: float
    pixel: float
    error2: float
    raw: float
    raw_error2: float


def high_pass(image: Image, good: NDArray[np.bool_], *, relative: bool) -> tuple[float, float]:
    """Take low frequencies out of an image, in place.

    Parameters
    ----------
    image : ndarray (h, w), float32, changed
        In strips, so that nothing of its size is made.
    good : ndarray (h, w), bool
        The others do not count for the low-pass.
    relative : bool
        Divide by the low-pass instead of taking it off, less one: right for pixels whose response differs
        under light that falls off towards the corners.

    Returns
    -------
    float, float
        Means of 1 / low-pass and of its square over the good pixels that ``spread`` counts; ones if not
        ``relative``.
    """
    height = len(image)
    count, first, second = 0, 0.0, 0.0
    inner = _inner(image.shape)
    above = np.empty((0, image.shape[1]), np.float32)
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        outer = slice(max(top - _HALO, 0), min(bottom + _HALO, height))
        # The rows above have been changed by now.
        part = np.concatenate([above[len(above) - (top - outer.start) :], image[top : outer.stop]])
        kept = good[outer]
        low = _low_pass(np.where(kept, part, 0)) / np.maximum(_low_pass(kept.astype(np.float32)), 1e-6)
        own = slice(top - outer.start, bottom - outer.start)
        above = part[own][-_HALO:].copy() if bottom - top >= _HALO else part[: own.stop][-_HALO:].copy()
        if relative:
            lit = low[own] > _UNLIT
            inverse = np.divide(1, low[own], out=np.zeros_like(low[own]), where=lit)
            image[top:bottom] = np.where(lit, part[own] * inverse - 1, 0)
            lit &= kept[own]
            lit[: max(inner[0].start - top, 0)] = False
            lit[max(inner[0].stop - top, 0) :] = False
            lit[:, : inner[1].start] = lit[:, inner[1].stop :] = False
            inverse *= lit
            count += int(np.count_nonzero(lit))
            first += float(inverse.sum(dtype=np.float64))
            second += float(np.einsum("ij,ij->", inverse, inverse, dtype=np.float64))
        else:
            image[top:bottom] = part[own] - low[own]
    return (first / count, second / count) if count else (1.0, 1.0)


def _low_pass(image: Image) -> Image:
    kernel = _LOW_PASS.astype(np.float32)
    filtered = cv2.sepFilter2D(image, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    return np.asarray(filtered, np.float32)


def _inner(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Where the low-pass does not reach over the edge; all of a small image."""
    border = _HALO if min(shape) > 8 * _HALO else 0
    return slice(border, shape[0] - border), slice(border, shape[1] - border)


def spread(filtered: Image, good: NDArray[np.bool_], noise: float, raw: float, raw_noise: float) -> Spread:
    """Variances of rows, columns and pixels of a high-passed image.

    Parameters
    ----------
    filtered : ndarray (h, w), float32
        After ``high_pass``.
    good : ndarray (h, w), bool
    noise : float
        Temporal variance of a pixel of the image before the filter, mean over the good ones.
    raw, raw_noise : float
        Variance over all pixels before the filter, temporal part within, and that part.

    Notes
    -----
    Release 4.0, equations (40) to (42): averages of rows hold a share 1 / columns of the variance of pixels,
    and so the other way round. The temporal noise is white and goes with the pixels.
    """
    inner = _inner(filtered.shape)
    image, kept = filtered[inner], good[inner]
    m, n = image.shape
    count = kept.sum()
    mean = float(np.mean(image, where=kept, dtype=np.float64))
    rows, columns, square = np.zeros(m), np.zeros(n), 0.0
    of_columns = np.zeros(n)
    for top in range(0, m, _STRIP):
        part = np.where(kept[top : top + _STRIP], image[top : top + _STRIP] - np.float32(mean), 0)
        square += float(np.einsum("ij,ij->", part, part, dtype=np.float64))
        counted = np.maximum(kept[top : top + _STRIP].sum(1), 1)
        rows[top : top + _STRIP] = part.sum(1, dtype=np.float64) / counted
        columns += part.sum(0, dtype=np.float64)
        of_columns += kept[top : top + _STRIP].sum(0)
    columns /= np.maximum(of_columns, 1)
    all_of_it = square / count
    of_rows, of_cols = float(np.var(rows)), float(np.var(columns))
    free = m * n - m - n
    column = ((m * n - m) * of_cols - n * (all_of_it - of_rows)) / free
    row = ((m * n - n) * of_rows - m * (all_of_it - of_cols)) / free
    pixel = m * n * (all_of_it - of_rows - of_cols) / free
    row, column, white = row / _LINES_LEFT, column / _LINES_LEFT, pixel / _PIXELS_LEFT
    # Of a variance of n independent values the variance is 2 / n of its square.
    error2 = 2 * (
        white**2 / count + (max(row, 0) + white / n) ** 2 / m + (max(column, 0) + white / m) ** 2 / n
    )
    return Spread(
        row=row,
        column=column,
        pixel=white - noise,
        error2=error2,
        raw=raw - raw_noise,
        raw_error2=error2 + 2 * raw_noise**2 / count,
    )


def summary(parts: list[Spread], scale: float) -> NonUniformity:
    """Of all colours together, times ``scale``; the mean of their variances."""
    means = [float(np.mean([getattr(p, name) for p in parts])) for name in ("row", "column", "pixel")]
    # A part below zero, within its noise or where temporal noise goes by rows, takes from the others.
    total = float(np.sqrt(max(sum(means), 0.0)))
    kept = [max(value, 0.0) for value in means]
    row, column, pixel = (value * total**2 / sum(kept) if total > 0 else 0.0 for value in kept)
    raw = float(np.sqrt(max(float(np.mean([p.raw for p in parts])), 0.0)))
    error = float(np.sqrt(np.sum([p.error2 for p in parts]))) / len(parts)
    raw_error = float(np.sqrt(np.sum([p.raw_error2 for p in parts]))) / len(parts)
    return NonUniformity(
        total=scale * total,
        row=scale * float(np.sqrt(row)),
        column=scale * float(np.sqrt(column)),
        pixel=scale * float(np.sqrt(pixel)),
        sigma=scale * root_sigma(total, error),
        raw=scale * raw,
        raw_sigma=scale * root_sigma(raw, raw_error),
    )


def root_sigma(root: float, sigma: float) -> float:
    """Sigma of a square root, given that of the square.

    Of a root near zero the linear sigma diverges; the step from zero to one sigma stands in.
    """
    return sigma / max(2 * root, float(np.sqrt(sigma))) if sigma > 0 else 0.0


def spectrum(image: Image, good: NDArray[np.bool_], axis: int) -> tuple[Float, Float]:
    """Root of the mean power spectrum along one axis of an image, in at most 256 bands of 0..0.5 cycles/px.

    White noise of standard deviation s gives s in every band.
    """
    mean = np.mean(image, where=good, dtype=np.float64)
    length, lines = image.shape[axis], image.shape[1 - axis]
    power = np.zeros(length // 2 + 1)
    for first in range(0, lines, _STRIP):
        part = image[first : first + _STRIP] if axis == 1 else image[:, first : first + _STRIP]
        kept = good[first : first + _STRIP] if axis == 1 else good[:, first : first + _STRIP]
        line = np.where(kept, part - np.float32(mean), 0)
        power += np.sum(np.abs(scipy.fft.rfft(line, axis=axis, workers=-1)) ** 2, axis=1 - axis)
    power /= lines * length
    # By number, not by edge: frequencies lie on edges, and rounding would leave bands without any.
    n = len(power) - 1
    band = np.arange(n) * min(_BANDS, n) // max(n, 1)
    count = np.bincount(band)
    frequency = np.bincount(band, np.arange(1, n + 1)) / (count * length)
    return frequency, np.sqrt(np.bincount(band, power[1:]) / count)


def profiles(image: Image, good: NDArray[np.bool_], axis: int) -> Float:
    """Mean of the good pixels (NaN where none), minimum and maximum of all, of each line (n, 3)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.sum(image, axis=axis, where=good, dtype=np.float64) / good.sum(axis)
    return np.stack([mean, image.min(axis), image.max(axis)], 1).astype(np.float64)


def histogram(filtered: Image) -> Float:
    """Deviation and count (m, 2), from the least to the greatest deviation."""
    count, edges = np.histogram(filtered, bins=_BINS)
    return np.stack([0.5 * (edges[1:] + edges[:-1]), count], 1)


def outstanding(filtered: Image, scale: float) -> Float:
    """Row, column and deviation (n, 3) of the pixels beyond six robust sigmas, the worst first."""
    sample = filtered.flat[:: max(filtered.size // 1_000_000, 1)]
    sigma = 1.4826 * float(np.median(np.abs(sample - np.median(sample))))
    reach = np.float32(max(_LIST_SIGMAS * sigma, 1e-6))
    places = []
    for top in range(0, len(filtered), _STRIP):
        part = filtered[top : top + _STRIP]
        places.append(np.argwhere(np.logical_or(part > reach, part < -reach)))
        places[-1][:, 0] += top
    rows, columns = np.concatenate(places).T
    values = np.asarray(filtered)[rows, columns].astype(np.float64)
    worst = np.argsort(-np.abs(values), kind="stable")[:_LISTED]
    return np.stack([rows[worst], columns[worst], scale * values[worst]], 1).astype(np.float64)


def mean_square(image: Image, mean: float) -> float:
    """Mean squared deviation of all pixels, in float64 whatever the size."""
    total: Any = 0.0
    for top in range(0, len(image), _STRIP):
        part = image[top : top + _STRIP].astype(np.float64) - mean
        total += np.sum(part * part)
    return float(total) / image.size
