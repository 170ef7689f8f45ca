"""Compiled loops of the radiometry; imported only where they are run."""

from typing import Any

import numba
import numpy as np

# Pixels of one sweep: few enough that the frames' samples and the sums stay in the first-level cache.
_BLOCK = 1024


@numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})
def merge_linear(
    stack: Any, exposure: Any, offset: Any, rate: Any, flat: Any, constants: Any, value: Any, variance: Any
) -> None:
    """Inverse-variance merge of linear integer frames, one pass over the pixels.

    Parameters
    ----------
    stack : ndarray (n, pixels), uint16
        DN of the frames.
    exposure : ndarray (n,), float32
        Seconds.
    offset, rate, flat : ndarray (pixels,), float32
        Dark level in DN, dark current in e-/s, relative response (NaN: defect).
    constants : ndarray (7,), float32
        1 / gain, noise without light in e-^2, saturation in DN, flat variance, dark covariance (3 numbers).
    value, variance : ndarray (pixels,), float32
        Written.
    """
    n, pixels = stack.shape
    inverse_gain, floor, saturation, flat_variance = constants[0], constants[1], constants[2], constants[3]
    c00, c01, c11 = constants[4], constants[5], constants[6]
    zero, half, one, two = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
    nan = np.float32(np.nan)
    for block in numba.prange((pixels + _BLOCK - 1) // _BLOCK):
        first = block * _BLOCK
        size = min(_BLOCK, pixels - first)
        electrons = np.zeros(_BLOCK, np.float32)
        time = np.zeros(_BLOCK, np.float32)
        total = np.empty(_BLOCK, np.float32)
        weighted = np.empty(_BLOCK, np.float32)
        inverse = np.empty(_BLOCK, np.float32)
        for i in range(n):
            t = exposure[i]
            for p in range(size):
                dn = np.float32(stack[i, first + p])
                valid = one if dn < saturation else zero
                electrons[p] += valid * (dn - offset[first + p])
                time[p] += valid * t
        for p in range(size):
            electrons[p] = electrons[p] * inverse_gain / time[p] if time[p] > zero else zero
        # The second round takes the weights at the first one's estimate: see merge.
        for _ in range(2):
            total[:] = zero
            weighted[:] = zero
            inverse[:] = zero
            for i in range(n):
                t = exposure[i]
                for p in range(size):
                    dn = np.float32(stack[i, first + p])
                    valid = one if dn < saturation else zero
                    per_time = valid * t / max(electrons[p] * t + floor, half * floor)
                    total[p] += per_time * t
                    weighted[p] += per_time * (dn - offset[first + p])
                    inverse[p] += per_time
            for p in range(size):
                electrons[p] = weighted[p] * inverse_gain / total[p] if total[p] > zero else zero
        for p in range(size):
            q = first + p
            good = total[p] > zero and flat[q] > zero
            scale = one / flat[q] if good else nan
            spread = one / total[p] if good else nan
            mean = (electrons[p] - rate[q]) * scale
            per_second = inverse[p] * spread
            maps = (c00 * per_second + two * c01) * per_second + c11
            value[q] = mean
            variance[q] = (spread + maps) * scale * scale + flat_variance * mean * mean * scale
