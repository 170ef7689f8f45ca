"""What a model knows of each pixel, applied to a merged rate."""

from typing import Any

import numba
import numpy as np
from numba.np.numpy_support import carray

from calibration.radiometric.merge.kernels.packing import to_float32, to_uint8

# Pixels that are classed together. What is one number for all pixels is kept as so many.
CELL = 512
# Sums may be fused and divisions turned into products, but NaN means what it means.
FAST = {"contract", "arcp", "nsz"}


@numba.njit(cache=True)
def image_of(images: Any, alike: Any, which: Any, first: Any, count: Any) -> Any:
    """Part of one of the images of `merge_linear`."""
    start = np.uint64(0 if alike[which] else 4 * first)
    return carray(to_float32(images[which] + start), (count,))


@numba.njit(cache=True)
def defects_of(images: Any, alike: Any, first: Any, count: Any) -> Any:
    """Part of the image of defects."""
    start = np.uint64(0 if alike[3] else first)
    return carray(to_uint8(images[3] + start), (count,))


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def correct(
    rate: Any, variance: Any, inverse: Any, dark_rate: Any, flat: Any, defects: Any, maps: Any, spread: Any
) -> None:
    """Dark current off, flat applied, variance of the maps added; in place."""
    one, two, zero, nan = np.float32(1), np.float32(2), np.float32(0), np.float32(np.nan)
    c00, c01, c11, flat_variance = maps[0], maps[1], maps[2], maps[3]
    for p in range(len(rate)):
        good = flat[p] > zero and defects[p] == 0
        scale = one / flat[p] if good else nan
        mean = (rate[p] - dark_rate[p]) * scale
        rate[p] = mean
        if spread:
            variance[p] = variance[p] * scale * scale + flat_variance * mean * mean * scale
            if len(inverse) > 1:
                offset = (c00 * inverse[p] + two * c01) * inverse[p] + c11
                variance[p] += offset * scale * scale
