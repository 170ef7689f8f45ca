"""Merge of frames of any kind, each sample with its own noise: response tables and floats."""

from typing import Any

import numba
import numpy as np
from numba.np.numpy_support import carray

from calibration.radiometric.merge.kernels.maps import CELL, FAST, correct, defects_of, image_of
from calibration.radiometric.merge.kernels.packing import to_float32, to_uint16, unpack
from calibration.radiometric.merge.packed import FLOAT32, UINT16

# Steps of the table of noise, 256 an octave: the upper bits of a float32.
SHIFT = np.int32(15)


@numba.njit(cache=True, error_model="numpy")
def _electrons(
    kind: Any, address: Any, first: Any, start: Any, offset: Any, lookup: Any, settings: Any, j: Any,
    barred: Any, out: Any,
) -> None:  # fmt: skip
    """Electrons of a cell of one frame; NaN where the sample is no use.

    ``first`` counts from the band's start, ``start`` from the frame's.
    """
    size, channels, codes = len(out), lookup.shape[0], lookup.shape[1]
    per_dn, saturation, nan = settings[3], settings[4], np.float32(np.nan)
    plain = np.empty(size, np.float32)
    if kind == FLOAT32:
        floats = carray(to_float32(address + np.uint64(4 * first)), (size,))
        for p in range(size):
            plain[p] = floats[p]
    else:
        if kind == UINT16:
            dn = carray(to_uint16(address + np.uint64(2 * first)), (size,))
            for p in range(size):
                plain[p] = np.float32(dn[p])
        else:
            scratch = np.empty(size, np.uint16)
            unpack(kind, address, first, scratch)
            for p in range(size):
                plain[p] = np.float32(scratch[p])
    for p in range(size):
        x = plain[p]
        if not x < saturation or (barred[p if len(barred) > 1 else 0] >> np.uint64(j)) & np.uint64(1):
            out[p] = nan
        elif codes == 0:
            out[p] = (x - offset[p]) * per_dn
        else:
            channel = (start + p) % channels
            below = min(max(int(x), 0), codes - 2)
            low = lookup[channel, below]
            out[p] = low + (lookup[channel, below + 1] - low) * min(
                max(x - below, np.float32(0)), np.float32(1)
            )


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _weigh(
    electrons: Any, exposure: Any, floors: Any, settings: Any, start: Any, rate: Any, variance: Any,
    inverse: Any, spread: Any,
) -> None:  # fmt: skip
    """Least-variance rate of a cell: weights at the pooled signal, then twice at the estimate."""
    n, size = electrons.shape
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    channels, last = floors.shape[0], floors.shape[1] - 1
    base, lowest, shot = np.int32(settings[0]), settings[1], settings[2]
    total, weighted, over = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    expected = np.empty(size, np.float32)
    codes = expected.view(np.int32)
    for turn in range(3):
        total[:] = zero
        weighted[:] = zero
        over[:] = zero
        for j in range(n):
            t = exposure[j]
            for p in range(size):
                expected[p] = max(rate[p] * t, lowest) if turn > 0 else lowest
            for p in range(size):
                e = electrons[j, p]
                if e == e:
                    weight = one
                    if turn > 0:
                        channel = (start + p) % channels
                        floor = floors[channel, min(max((codes[p] >> SHIFT) - base, 0), last)]
                        weight = t / max(shot * rate[p] * t + floor, half * floor)
                    weighted[p] += weight * e
                    total[p] += weight * t
                    over[p] += weight
        for p in range(size):
            rate[p] = weighted[p] / total[p] if total[p] > zero else np.float32(np.nan)
    if spread:
        for p in range(size):
            variance[p] = one / total[p] if total[p] > zero else np.float32(np.nan)
        for p in range(size if len(inverse) > 1 else 0):
            inverse[p] = over[p] / total[p]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def merge_samples(
    addresses: Any, kinds: Any, begin: Any, end: Any, images: Any, alike: Any,
    barred: Any, exposure: Any, lookup: Any, floors: Any, settings: Any, maps: Any, start: Any,
    value: Any, variance: Any, spread: Any,
) -> None:  # fmt: skip
    """Merge frames of any kind: codes of a response table, or floats.

    Parameters
    ----------
    addresses, kinds : ndarray (n,), uint64 and int64
        First byte of each frame and how its samples are kept (`packed`).
    begin, end, images, alike, barred, maps, value, variance, spread
        As in `merge_linear`.
    exposure : ndarray (n,), float32
        Seconds.
    lookup, floors, settings : ndarray, float32
        Of `weights.Floors`.
    start : int
        Number of the first sample within its frame: which channel it is.
    """
    n = len(exposure)
    for first in range(begin, end, CELL):
        size = min(CELL, end - first)
        electrons = np.empty((n, size), np.float32)
        inverse = np.empty(size if maps[5] > 0 else 1, np.float32)
        bar = barred[first : first + size] if len(barred) > 1 else barred
        for j in range(n):
            own = image_of(images, alike, 0, first, size)
            _electrons(
                kinds[j], addresses[j], first, start + first, own, lookup, settings, j, bar, electrons[j]
            )
        rate = value[first : first + size]
        noise = variance[first : first + size] if spread else variance[:size]
        _weigh(electrons, exposure, floors, settings, start + first, rate, noise, inverse, spread)
        if maps[4] > 0:
            correct(
                rate, noise, inverse,
                image_of(images, alike, 1, first, size), image_of(images, alike, 2, first, size),
                defects_of(images, alike, first, size),
                maps, spread,
            )  # fmt: skip
