"""Compiled loops over the frames of a sensor series, each beside the plain numpy that says what it computes.

A frame is cut into bands of rows and blocks of ``BLOCK`` pixels; all sums are of a band, added up
in order afterwards, so that the result does not depend on the number of threads.
"""

from typing import Any

import numba
import numpy as np

BLOCK = 16


@numba.njit(cache=True, parallel=True, nogil=True)
def flat_sums(first: Any, second: Any, good: Any, blocks: Any, weight: Any, total: Any, sums: Any) -> None:
    """Class sums of two frames of one level, and the running sum of the frames.

    Parameters
    ----------
    first, second : ndarray (h, w), uint8 or uint16
    good : ndarray (h, w), bool
        Pixels that count for the classes.
    blocks : ndarray (ceil(h / BLOCK), ceil(w / BLOCK)), uint8
        Class of each block.
    weight : ndarray (2,), uint32
        How often each frame enters ``total``: 0 or 1.
    total : ndarray (h, w), uint32
        Running sum of frames, changed in place.
    sums : ndarray (bands, classes + 1, 3), float64
        Written: sums of the first, of the second, of the squared difference, of each band and class; the last
        class holds the greatest DN of the first and of the second.
    """
    rows, columns = first.shape
    top = sums.shape[1] - 1
    w0, w1 = weight[0], weight[1]
    for band in numba.prange(blocks.shape[0]):
        # Down the columns of a band, so that the loops run over neighbours; 16 numbers of 16 bits are exact.
        s0, s1 = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
        s2 = np.zeros(columns, np.float32)
        peak0, peak1 = np.zeros(columns, np.uint16), np.zeros(columns, np.uint16)
        for row in range(band * BLOCK, min(band * BLOCK + BLOCK, rows)):
            for column in range(columns):
                a, b = first[row, column], second[row, column]
                peak0[column] = a if a > peak0[column] else peak0[column]
                peak1[column] = b if b > peak1[column] else peak1[column]
            if w0 | w1:
                for column in range(columns):
                    total[row, column] += np.uint32(
                        w0 * np.uint32(first[row, column]) + w1 * np.uint32(second[row, column])
                    )
            for column in range(columns):
                use = np.float32(good[row, column])
                x, y = np.float32(first[row, column]), np.float32(second[row, column])
                step = use * (y - x)
                s0[column] += use * x
                s1[column] += use * y
                s2[column] += step * step
        sums[band, :, :] = 0
        for column in range(columns):
            k = blocks[band, column // BLOCK]
            sums[band, k, 0] += s0[column]
            sums[band, k, 1] += s1[column]
            sums[band, k, 2] += s2[column]
        sums[band, top, 0], sums[band, top, 1] = peak0.max(), peak1.max()


def flat_sums_plain(
    first: Any, second: Any, good: Any, blocks: Any, weight: Any, total: Any, sums: Any
) -> None:
    """``flat_sums`` in numpy; bands summed into the first."""
    rows, columns = first.shape
    classes = np.repeat(np.repeat(blocks, BLOCK, 0), BLOCK, 1)[:rows, :columns][good]
    a, b = first[good].astype(np.int64), second[good].astype(np.int64)
    sums[:] = 0
    for j, value in enumerate((a, b, (b - a) ** 2)):
        np.add.at(sums[0, :, j], classes, value)
    sums[0, -1, :2] = first.max(), second.max()
    total += weight[0] * first.astype(np.uint32) + weight[1] * second.astype(np.uint32)


@numba.njit(cache=True, parallel=True, nogil=True)
def dark_sums(
    before: Any, frame: Any, good: Any, numbers: Any, total: Any, moment: Any, noise: Any, sums: Any
) -> None:
    """One dark frame into the running sums of its series.

    Parameters
    ----------
    before, frame : ndarray (h, w), uint8 or uint16
        The frame and the one before it in its level.
    good : ndarray (h, w), bool
        Pixels that count for ``sums``.
    numbers : ndarray (3,), float32
        What the frame counts in ``moment``; 1 where ``before`` is of the same level, else 0; 1 / the unit of
        ``noise`` in DN^2.
    total : ndarray (h, w), uint32
        Sum of the frames, changed in place.
    moment : ndarray (h, w), float32
        Weighted sum of the frames, changed in place.
    noise : ndarray (h, w), uint16
        Sum of squared differences in a unit that fits, stopping at the greatest number; changed in place.
    sums : ndarray (bands, 4), int64
        Written, of each band: sum of the frame, of the squared difference, greatest DN, samples at 0 DN.
    """
    rows, columns = frame.shape
    weight, scale = numbers[0], numbers[1] * numbers[2]
    for band in numba.prange(sums.shape[0]):
        s0, s1, s2, s3 = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for row in range(band * BLOCK, min(band * BLOCK + BLOCK, rows)):
            for column in range(columns):
                dn = np.float32(frame[row, column])
                total[row, column] += np.uint32(frame[row, column])
                moment[row, column] += weight * dn
                step = dn - np.float32(before[row, column])
                added = np.float32(noise[row, column]) + scale * step * step + np.float32(0.5)
                noise[row, column] = np.uint16(min(added, np.float32(65535)))
            for column in range(columns):
                use = np.int64(good[row, column])
                value = np.int64(frame[row, column])
                change = value - np.int64(before[row, column])
                s0 += use * value
                s1 += use * change * change
                s2 = max(s2, value)
                s3 += use * np.int64(value == 0)
        sums[band, 0], sums[band, 1], sums[band, 2], sums[band, 3] = s0, s1, s2, s3


def dark_sums_plain(
    before: Any, frame: Any, good: Any, numbers: Any, total: Any, moment: Any, noise: Any, sums: Any
) -> None:
    """``dark_sums`` in numpy; bands summed into the first."""
    step = frame.astype(np.int64) - before
    total += frame
    moment += numbers[0] * frame.astype(np.float32)
    added = noise + numbers[1] * numbers[2] * (step * step).astype(np.float32) + np.float32(0.5)
    noise[:] = np.minimum(added, 65535).astype(np.uint16)
    sums[:] = 0
    sums[0] = frame[good].sum(dtype=np.int64), (step[good] ** 2).sum(), frame.max(), (frame[good] == 0).sum()


@numba.njit(cache=True, parallel=True, nogil=True)
def class_sums(image: Any, good: Any, blocks: Any, sums: Any) -> None:
    """Sums of an image (h, w) float32 over the good pixels of each class, into ``sums`` (bands, classes)."""
    rows, columns = image.shape
    for band in numba.prange(blocks.shape[0]):
        for k in range(sums.shape[1]):
            sums[band, k] = 0.0
        for row in range(band * BLOCK, min(band * BLOCK + BLOCK, rows)):
            for block in range(blocks.shape[1]):
                value = 0.0
                for column in range(block * BLOCK, min(block * BLOCK + BLOCK, columns)):
                    if good[row, column]:
                        value += np.float64(image[row, column])
                sums[band, blocks[band, block]] += value


def class_sums_plain(image: Any, good: Any, blocks: Any, sums: Any) -> None:
    """``class_sums`` in numpy; bands summed into the first."""
    rows, columns = image.shape
    classes = np.repeat(np.repeat(blocks, BLOCK, 0), BLOCK, 1)[:rows, :columns]
    sums[:] = 0
    np.add.at(sums[0], classes[good], image[good].astype(np.float64))
