"""Compiled loops of the response fit; imported only where they are run."""

import math
from typing import Any

import numba
import numpy as np

# Smooth pictures hit one cell many times in a row; with two tables in turn no add waits for the last one.
_TURNS = 2
_MOTION = 4.0  # sigma beyond which a difference counts as an outlier


@numba.njit(cache=True, parallel=True)
def count_pairs(a: Any, b: Any, bins: int, threads: int) -> Any:
    """Joint histogram of two frames.

    Parameters
    ----------
    a, b : ndarray (pixels, 1 or 3), unsigned
        Bin of every sample.
    bins : int
        How many bins there are.
    threads : int
        Into how many pieces the pixels are cut.

    Returns
    -------
    ndarray (channels, bins, bins), int64
    """
    pixels, channels = a.shape
    turns = _TURNS if channels == 1 else 1
    parts = np.zeros((threads, turns, channels, bins * bins), np.uint32)
    for part in numba.prange(threads):
        first, last = pixels * part // threads, pixels * (part + 1) // threads
        width = np.uint32(bins)
        if channels == 3:
            red, green, blue = parts[part, 0, 0], parts[part, 0, 1], parts[part, 0, 2]
            for q in range(first, last):
                red[np.uint32(a[q, 0]) * width + np.uint32(b[q, 0])] += 1
                green[np.uint32(a[q, 1]) * width + np.uint32(b[q, 1])] += 1
                blue[np.uint32(a[q, 2]) * width + np.uint32(b[q, 2])] += 1
        else:
            even, odd = parts[part, 0, 0], parts[part, 1, 0]
            pairs = (last - first) // 2
            for p in range(pairs):
                q = first + 2 * p
                even[np.uint32(a[q, 0]) * width + np.uint32(b[q, 0])] += 1
                odd[np.uint32(a[q + 1, 0]) * width + np.uint32(b[q + 1, 0])] += 1
            if first + 2 * pairs < last:
                even[np.uint32(a[last - 1, 0]) * width + np.uint32(b[last - 1, 0])] += 1
    total = np.zeros((channels, bins * bins), np.int64)
    for part in range(threads):
        for turn in range(turns):
            for c in range(channels):
                for cell in range(bins * bins):
                    total[c, cell] += parts[part, turn, c, cell]
    return total.reshape(channels, bins, bins)


@numba.njit(cache=True)
def extents(counts: Any) -> Any:
    """First bin of each row of tables that holds samples, and the one after the last.

    Parameters
    ----------
    counts : ndarray (pairs, bins, bins)

    Returns
    -------
    ndarray (pairs, bins, 2), int64
        Zeros where the row is empty.
    """
    pairs, bins = counts.shape[0], counts.shape[1]
    found = np.zeros((pairs, bins, 2), np.int64)
    for pair in range(pairs):
        for i in range(bins):
            low, high = 0, bins
            while high > 0 and counts[pair, i, high - 1] == 0:
                high -= 1
            while low < high and counts[pair, i, low] == 0:
                low += 1
            if high > 0:
                found[pair, i, 0], found[pair, i, 1] = low, high
    return found


# On one thread: waking others between calls of linear algebra, whose threads wait busily, costs more.
@numba.njit(cache=True, error_model="numpy")
def residuals(
    counts: Any,
    extent: Any,
    exposure: Any,
    step: Any,
    width: Any,
    ratio: Any,
    noise: Any,
    first: int,
    last: int,
    reach: float,
) -> Any:
    """Sum what the cells of joint histograms say, along lines of equal merged signal.

    Parameters
    ----------
    counts : ndarray (pairs, bins, bins)
        Samples with bin i in the shorter and j in the longer exposure.
    extent : ndarray (pairs, bins, 2)
        Of ``extents(counts)``.
    exposure, step, width : ndarray (bins,)
        Relative exposure of each bin, how much of it the bin spans, its width in DN.
    ratio : ndarray (pairs,)
        Longer over shorter exposure.
    noise : ndarray (3,)
        Variance of a sample: ``noise[0] * exposure + noise[1] + noise[2] * slope**2``, without the
        quantisation, which is added.
    first, last : int
        The dark and the bright bin that clip; a ``first`` of -1 says that no dark sample is cut off.
    reach : float
        Differences beyond so many sigma are not used.

    Returns
    -------
    ndarray (pairs, bins, 8)
        By the bin of the merged signal in the longer frame: information, information * signal, gradient,
        samples, samples far from clipping, their squared differences (as if none were cut off), outliers,
        sum of the signal of the samples far from clipping.
    """
    pairs, bins = counts.shape[0], counts.shape[1]
    lowest = -np.inf
    if first >= 0:
        lowest = exposure[first] + 0.5 * (exposure[first + 1] - exposure[first])
    highest = exposure[last] - 0.5 * (exposure[last] - exposure[last - 1])
    floor = np.empty(bins)
    for k in range(bins):
        floor[k] = noise[1] + step[k] ** 2 * (noise[2] / width[k] ** 2 + 1 / 12)
    kept_at_reach = _kept(reach)
    sums = np.zeros((pairs, bins, 8))
    for pair in range(pairs):
        out, r = sums[pair], ratio[pair]
        for i in range(first + 1, last):
            for j in range(max(first + 1, extent[pair, i, 0]), min(last, extent[pair, i, 1])):
                count = counts[pair, i, j]
                if count == 0:
                    continue
                short, long = r * exposure[i], exposure[j]
                difference = short - long
                # Pooled electrons, then the weights of the noise at that signal: as the merge does it.
                signal = (short + r * long) / (1 + r)
                ka = _at(exposure, signal / r, i, last)
                kb = _at(exposure, signal, j, last)
                shot = noise[0] * max(signal, 0.0)
                of_long = shot + floor[kb]
                variance = r * shot + r * r * floor[ka] + of_long
                share = of_long / variance
                signal = share * short + (1 - share) * long
                kb = _at(exposure, signal, kb, last)
                # Where one sign of the difference would clip, the other is left out beyond the same size.
                open_to = min((highest - signal) / (1 - share), (signal - r * lowest) / share)
                open_to = min(open_to, (signal - lowest) / (1 - share), (r * highest - signal) / share)
                size = difference * difference
                if size >= reach * reach * variance:
                    if size >= _MOTION * _MOTION * variance:
                        out[kb, 6] += count
                    continue
                weight, kept = count / variance, kept_at_reach
                if open_to * open_to >= reach * reach * variance:
                    out[kb, 4] += count
                    out[kb, 5] += count * size / kept
                    out[kb, 7] += count * signal
                else:
                    if abs(difference) >= open_to:
                        continue
                    bound = open_to / np.sqrt(variance)
                    if bound < 1.0:
                        continue
                    kept = _kept(bound)
                out[kb, 0] += weight * kept
                out[kb, 1] += weight * kept * signal
                out[kb, 2] += weight * difference
                out[kb, 3] += count
    return sums


@numba.njit(cache=True)
def _kept(bound: float) -> float:
    """Variance of a normal distribution cut at ``bound`` sigma; so much it answers a shift of its middle."""
    density = math.exp(-0.5 * bound * bound) * 0.3989422804014327
    return 1 - 2 * bound * density / math.erf(bound * 0.7071067811865476)


@numba.njit(cache=True, fastmath=True)
def gram(rows: Any, weight: Any) -> Any:
    """``rows.T @ diag(weight) @ rows`` on one thread: too small to wake a library's threads for."""
    count, size = rows.shape
    total = np.zeros((size, size))
    # Four rows at a time: the table is read and written a quarter as often.
    for r in range(0, count - count % 4, 4):
        a, b, c, d = rows[r], rows[r + 1], rows[r + 2], rows[r + 3]
        for i in range(size):
            wa, wb, wc, wd = (
                weight[r] * a[i],
                weight[r + 1] * b[i],
                weight[r + 2] * c[i],
                weight[r + 3] * d[i],
            )
            if wa != 0 or wb != 0 or wc != 0 or wd != 0:
                line = total[i]
                for j in range(i, size):
                    line[j] += wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
    for r in range(count - count % 4, count):
        for i in range(size):
            scaled = weight[r] * rows[r, i]
            for j in range(i, size):
                total[i, j] += scaled * rows[r, j]
    for i in range(size):
        for j in range(i):
            total[i, j] = total[j, i]
    return total


@numba.njit(cache=True)
def differences(values: Any, ratio: Any, at_short: Any, at_long: Any) -> Any:
    """``ratio`` times the rows of ``values`` at ``at_short``, less those at ``at_long``.

    Parameters
    ----------
    values : ndarray (codes, size)
        Between whose rows is interpolated.
    ratio, at_short, at_long : ndarray (rows,)

    Returns
    -------
    ndarray (rows, size)
    """
    size, end = values.shape[1], values.shape[0] - 2
    out = np.empty((len(ratio), size))
    for r in range(len(ratio)):
        i, j = min(int(at_short[r]), end), min(int(at_long[r]), end)
        p, q = at_short[r] - i, at_long[r] - j
        a, b, c, d = ratio[r] * (1 - p), ratio[r] * p, 1 - q, q
        for k in range(size):
            out[r, k] = (a * values[i, k] + b * values[i + 1, k]) - (c * values[j, k] + d * values[j + 1, k])
    return out


@numba.njit(cache=True)
def quantiles(counts: Any) -> Any:
    """Samples of each row of a table, and their 10 %, 50 % (between bins) and 90 % bins.

    Parameters
    ----------
    counts : ndarray (bins, bins)

    Returns
    -------
    tuple of ndarray (bins,), float64
    """
    bins = counts.shape[0]
    total, low, middle, high = np.zeros(bins), np.zeros(bins), np.zeros(bins), np.zeros(bins)
    for i in range(bins):
        for j in range(bins):
            total[i] += counts[i, j]
        before = 0.0
        for j in range(bins):
            after = before + counts[i, j]
            if before < 0.1 * total[i] <= after:
                low[i] = j
            if before < 0.5 * total[i] <= after:
                middle[i] = j - 0.5 + (0.5 * total[i] - before) / counts[i, j]
            if before < 0.9 * total[i] <= after:
                high[i] = j
                break
            before = after
    return total, low, middle, high


@numba.njit(cache=True, inline="always")
def _at(exposure: Any, value: float, start: int, last: int) -> int:
    k = start
    while k > 0 and exposure[k] > value:
        k -= 1
    while k < last - 1 and exposure[k + 1] <= value:
        k += 1
    return k
