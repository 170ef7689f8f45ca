"""Compiled loops of the consistency; imported only where they are run."""

from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, parallel=True, error_model="numpy")
def compare(
    electrons: Any, floor: Any, seconds: Any, shot: Any, relative: Any, tolerance: Any, step: Any,
    total: Any, weighted: Any, square: Any, there: Any,
) -> None:  # fmt: skip
    """Squared difference, in sigma, of a frame's samples from what was seen so far.

    Parameters
    ----------
    electrons : ndarray (h, w, c), float32
        NaN: invalid.
    floor : ndarray (1 or h, 1 or w, 1 or c), float32
        Variance without shot noise.
    seconds, shot, relative : float32, bool, float32
        Exposure; kind of noise.
    tolerance, step : float32
        Difference that is no motion: relative, and in e-.
    total, weighted : ndarray (h, w, c), float32
        Sums over the frames so far: of w t^2 and w t e.
    square, there : ndarray (h, w), float32
        Written: sum over colours of the squares, and how many there are.
    """
    h, w, colours = electrons.shape
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    rows = 0 if floor.shape[0] == 1 else 1
    columns = 0 if floor.shape[1] == 1 else 1
    planes = 0 if floor.shape[2] == 1 else 1
    for y in numba.prange(h):
        for x in range(w):
            sum_of, count = zero, zero
            for c in range(colours):
                value = electrons[y, x, c]
                if value == value and total[y, x, c] > zero:
                    base = floor[rows * y, columns * x, planes * c]
                    rate = weighted[y, x, c] / total[y, x, c]
                    expected = rate * seconds
                    # The noise at the mean of the two: at either alone, the darker would seem too sure.
                    level = half * (expected + value)
                    if shot:
                        variance = max(level + base, half * base)
                    else:
                        variance = base + relative * relative * level * level
                    allowed = tolerance * level
                    variance += seconds * seconds / total[y, x, c] + allowed * allowed + step * step
                    off = value - expected
                    sum_of += off * off / variance
                    count += one
            square[y, x] = sum_of
            there[y, x] = count


@numba.njit(cache=True, parallel=True, error_model="numpy")
def accumulate(
    electrons: Any, floor: Any, seconds: Any, shot: Any, relative: Any, moved: Any, total: Any, weighted: Any
) -> None:
    """Add a frame's samples that did not move to the sums of ``compare``."""
    h, w, colours = electrons.shape
    half = np.float32(0.5)
    rows = 0 if floor.shape[0] == 1 else 1
    columns = 0 if floor.shape[1] == 1 else 1
    planes = 0 if floor.shape[2] == 1 else 1
    for y in numba.prange(h):
        for x in range(w):
            if moved[y, x]:
                continue
            for c in range(colours):
                value = electrons[y, x, c]
                if value == value:
                    base = floor[rows * y, columns * x, planes * c]
                    level = value
                    if total[y, x, c] > 0:
                        # At what is known so far, not at the noisy sample.
                        level = weighted[y, x, c] / total[y, x, c] * seconds
                    if shot:
                        variance = max(level + base, half * base)
                    else:
                        variance = base + relative * relative * level * level
                    total[y, x, c] += seconds * seconds / variance
                    weighted[y, x, c] += seconds * value / variance
