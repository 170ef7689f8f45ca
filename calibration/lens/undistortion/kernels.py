"""Work on every pixel of a resampled map of variances."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray


@njit(parallel=True, cache=True)
def spread_variance(
    variance: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], out: NDArray[np.float32]
) -> None:  # pragma: no cover - compiled
    """Variance of a bilinear mean: weights squared. Places outside the image are left as they are."""
    height, width = variance.shape
    for row in prange(out.shape[0]):
        for column in range(out.shape[1]):
            u, v = x[row, column], y[row, column]
            if not (u >= 0 and v >= 0 and u <= width - 1 and v <= height - 1):
                continue
            left, top = min(int(u), width - 2), min(int(v), height - 2)
            a, b = u - np.float32(left), v - np.float32(top)
            c, d = np.float32(1) - a, np.float32(1) - b
            out[row, column] = d * d * (
                c * c * variance[top, left] + a * a * variance[top, left + 1]
            ) + b * b * (c * c * variance[top + 1, left] + a * a * variance[top + 1, left + 1])
