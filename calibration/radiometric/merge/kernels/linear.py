"""Merge of a linear camera's integer frames, in one pass over memory."""

from typing import Any

import numba
import numpy as np
from numba.np.numpy_support import carray

from calibration.radiometric.merge.kernels.maps import CELL, FAST, correct, defects_of, image_of
from calibration.radiometric.merge.kernels.packing import to_float32, to_uint16, to_uint32, to_uint64, unpack
from calibration.radiometric.merge.kernels.streaming import fetch_ahead, write_out
from calibration.radiometric.merge.packed import UINT16

# Pixels that are unpacked, and whose results are written, at a time.
TILE = 8 * CELL


@numba.njit(cache=True)
def _samples(places: Any, j: Any, count: Any) -> Any:
    return carray(to_uint16(places[j]), (count,))


@numba.njit(cache=True)
def _bare(array: Any) -> Any:
    """The same floats without a count of who holds them."""
    return carray(to_float32(np.uint64(array.ctypes.data)), (array.shape[0],))


@numba.njit(cache=True)
def _bare2(array: Any) -> Any:
    return carray(to_float32(np.uint64(array.ctypes.data)), (array.shape[0], array.shape[1]))


@numba.njit(cache=True)
def _limits(a: Any, b: Any, c: Any, d: Any, e: Any, limits: Any) -> None:
    """Least and greatest of five frames' samples of a cell; five at once, for the streams of memory."""
    low_a, low_b, low_c, low_d, low_e = a[0], b[0], c[0], d[0], e[0]
    high_a, high_b, high_c, high_d, high_e = a[0], b[0], c[0], d[0], e[0]
    for p in range(len(a)):
        u, v, x, y, z = a[p], b[p], c[p], d[p], e[p]
        low_a, high_a = min(u, low_a), max(u, high_a)
        low_b, high_b = min(v, low_b), max(v, high_b)
        low_c, high_c = min(x, low_c), max(x, high_c)
        low_d, high_d = min(y, low_d), max(y, high_d)
        low_e, high_e = min(z, low_e), max(z, high_e)
    limits[0, 0], limits[0, 1] = low_a, high_a
    limits[1, 0], limits[1, 1] = low_b, high_b
    limits[2, 0], limits[2, 1] = low_c, high_c
    limits[3, 0], limits[3, 1] = low_d, high_d
    limits[4, 0], limits[4, 1] = low_e, high_e


@numba.njit(cache=True)
def _survey(places: Any, count: Any, limits: Any) -> None:
    """Least and greatest sample of each frame of a cell; ``limits`` has five rows at least."""
    n = len(places)
    for j in range(0, n, 5):
        # the last five may overlap the five before, or repeat the last frame
        i = max(min(j, n - 5), 0)
        _limits(
            _samples(places, i, count),
            _samples(places, min(i + 1, n - 1), count),
            _samples(places, min(i + 2, n - 1), count),
            _samples(places, min(i + 3, n - 1), count),
            _samples(places, min(i + 4, n - 1), count),
            limits[i : i + 5],
        )


@numba.njit(cache=True)
def _sum(places: Any, frames: Any, total: Any) -> None:
    """Sum of the first frames, as integers of the kind of ``total``."""
    size = len(total)
    total[:] = 0
    for j in range(0, frames - 2, 3):
        a, b, c = _samples(places, j, size), _samples(places, j + 1, size), _samples(places, j + 2, size)
        for p in range(size):
            total[p] = total[p] + a[p] + b[p] + c[p]
    for j in range(frames // 3 * 3, frames):
        a = _samples(places, j, size)
        for p in range(size):
            total[p] = total[p] + a[p]


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _reweighted(places: Any, p: Any, barred: Any, offset: Any, saturation: Any, step: Any, noise: Any) -> Any:
    """One pixel whose shortest sample is no use: weights at the pooled signal, then at the estimate.

    Returns rate, variance and mean of 1 / exposure.
    """
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    rate = zero
    total, inverse = zero, zero
    for turn in range(3):
        total, inverse, weighted = zero, zero, zero
        for j in range(len(step)):
            dn = np.float32(carray(to_uint16(places[j]), (p + 1,))[p])
            if dn >= saturation or (barred >> np.uint64(j)) & np.uint64(1):
                continue
            scale = step[j, 0]
            per_time = one if turn == 0 else one / max(rate + noise * step[j, 5], half * noise * step[j, 5])
            # step[j, 5] is 1 / t: t / (rate t + noise) = 1 / (rate + noise / t)
            time = one / step[j, 5]
            weighted += per_time * (dn - offset) * scale * time
            total += per_time * time
            inverse += per_time
        if not total > zero:
            return np.float32(np.nan), np.float32(np.nan), np.float32(np.nan)
        rate = weighted / total
    return rate, one / total, inverse / total


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _project(places: Any, frames: Any, offset: Any, bright: Any, dark: Any, rate: Any, shaded: Any) -> None:
    """Sum frames with two sets of weights, three frames a turn."""
    size = len(rate)
    zero = np.float32(0)
    rate[:] = zero
    shaded[:] = zero
    for j in range(0, frames, 3):
        if j == 3:
            fetch_ahead(places, 1)
        k, m = min(j + 1, frames - 1), min(j + 2, frames - 1)
        x, y, z = _samples(places, j, size), _samples(places, k, size), _samples(places, m, size)
        b0, d0 = bright[j], dark[j]
        b1, d1 = (bright[k], dark[k]) if k > j else (zero, zero)
        b2, d2 = (bright[m], dark[m]) if m > k else (zero, zero)
        for p in range(size):
            o = offset[p]
            first, second, third = np.float32(x[p]) - o, np.float32(y[p]) - o, np.float32(z[p]) - o
            rate[p] += b0 * first + b1 * second + b2 * third
            shaded[p] += d0 * first + d1 * second + d2 * third


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _take_in(
    x: Any, offset: Any, step: Any, floor: Any, rate: Any, variance: Any, trust: Any, mixed: Any, spread: Any
) -> None:  # fmt: skip
    """Bring a frame into the estimate of the shorter ones.

    ``trust`` becomes the frame's part where that is less, if it is wanted (``mixed``).
    """
    zero, one = np.float32(0), np.float32(1)
    factor, top, per = step[0], step[1], step[2]
    lift, lift0, inverse, gain = step[3], step[4], step[5], step[6]
    noise, square = floor * inverse * inverse, gain * gain
    # a loop for each wish: with the wish inside, the compiler gives up on vectors
    if mixed:
        for p in range(len(rate)):
            part = min(max(top - np.float32(x[p]) * per, zero), one)
            trust[p] = min(part, trust[p])
    if spread:
        for p in range(len(rate)):
            dn = np.float32(x[p])
            electrons = dn - offset[p]
            z = top - dn * per
            part = min(max(z, zero), one)
            correction = electrons * lift + lift0 if part == z else zero
            # the shorter frames' estimate tells the shot noise; of the correction the mean square is its own
            left = one - gain * part
            own = part * part * (max(rate[p], zero) * inverse + noise) + correction * correction
            variance[p] = variance[p] * left * left + square * own
            rate[p] += gain * (part * (electrons * factor - rate[p]) + correction)
    else:
        for p in range(len(rate)):
            dn = np.float32(x[p])
            electrons = dn - offset[p]
            z = top - dn * per
            part = min(max(z, zero), one)
            correction = electrons * lift + lift0 if part == z else zero
            rate[p] += gain * (part * (electrons * factor - rate[p]) + correction)


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _mix(final: Any, trust: Any, rate: Any, variance: Any, shaded: Any, spread: Any) -> None:
    """Mix the bright and the dark estimate; the share of the bright one takes the dark one's place."""
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    limit, p0, p1, q0, q1 = final[2], final[3], final[4], final[5], final[6]
    a0, a1, a2, b0, b1, b2, least = final[8], final[9], final[10], final[11], final[12], final[13], final[16]
    for p in range(len(rate)):
        difference = rate[p] - shaded[p]
        at = min(max(shaded[p], zero), limit)
        at = shaded[p] + (p0 + p1 * at) / (q0 + q1 * at) * difference
        at = min(max(at, zero), limit)
        share = (p0 + p1 * at) / (q0 + q1 * at)
        mixed = shaded[p] + share * difference
        rate[p] = mixed if trust[p] == one else rate[p]
        shaded[p] = share
    if spread:
        for p in range(len(rate)):
            share = shaded[p]
            noise = a0 + share * (two * a1 + share * a2) + (b0 + share * (two * b1 + share * b2)) * rate[p]
            variance[p] = max(noise, least) if trust[p] == one else variance[p]


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _cell(
    places: Any, limits: Any, total: Any, total_wide: Any, shaded: Any, trust: Any, offset: Any,
    step: Any, dark: Any, bright: Any, lines: Any, pooled: Any, final: Any,
    barred: Any, every: Any, rate: Any, variance: Any, inverse: Any, inverted: Any, spread: Any,
) -> None:  # fmt: skip
    """Electrons per second of one cell, and (``spread``) their variance and mean inverse exposure."""
    n, size = len(step), len(rate)
    zero, one = np.float32(0), np.float32(1)
    nan = np.float32(np.nan)
    saturation, edge, floor = final[0], final[1], final[7]
    per_wanted = size if spread and inverted else 0
    valid, saturated = 0, 0
    while valid < n and np.float32(limits[valid, 1]) < edge:
        valid += 1
    while saturated < n - valid and np.float32(limits[n - 1 - saturated, 0]) >= saturation:
        saturated += 1
    if saturated == n:
        for p in range(size):
            rate[p] = nan
        for p in range(size if spread else 0):
            variance[p] = nan
        return
    # Where light is all that matters every electron counts the same, and sums of integers do.
    light = valid > 0 and np.float32(limits[valid - 1, 0]) >= pooled[valid - 1, 0]
    mixed = saturated == 0 and n > 1 and not light
    if valid == 0:
        # nothing shorter could tell how much of the shortest frame's noise the ceiling cut off
        x = _samples(places, 0, size)
        per_dn = step[0, 0]
        slope, constant, mean = step[0, 5], floor * step[0, 5] * step[0, 5], step[0, 5]
        for p in range(size):
            dn = np.float32(x[p])
            rate[p] = (dn - offset[p]) * per_dn if dn < saturation else nan
    elif light:
        scale, drop = pooled[valid - 1, 1], pooled[valid - 1, 2]
        slope, constant, mean = pooled[valid - 1, 3], pooled[valid - 1, 4], pooled[valid - 1, 5]
        if valid * edge < np.float32(65536):
            _sum(places, valid, total)
            for p in range(size):
                rate[p] = np.float32(total[p]) * scale - offset[p] * drop
        else:
            _sum(places, valid, total_wide)
            for p in range(size):
                rate[p] = np.float32(total_wide[p]) * scale - offset[p] * drop
        fetch_ahead(places, 1)
    else:
        slope, constant, mean = lines[valid - 1, 0], lines[valid - 1, 1], lines[valid - 1, 2]
    if not light and (valid > 0 or mixed):
        # without a valid frame the first sum is of no use: it goes where it is overwritten
        _project(
            places, n if mixed else valid, offset, bright[max(valid, 1) - 1], dark,
            rate if valid > 0 else trust, shaded,
        )  # fmt: skip
    fetch_ahead(places, 2)
    least = final[16] / final[8] * constant
    for p in range(size if spread else 0):
        noise = constant + slope * rate[p]
        variance[p] = least if noise < least else noise
    for p in range(per_wanted):
        inverse[p] = mean
    if mixed or valid + saturated < n:
        if mixed:
            trust[:] = one
        if mixed and valid == 0:
            x = _samples(places, 0, size)
            for p in range(size):
                trust[p] = one if np.float32(x[p]) < edge else zero
        for j in range(max(valid, 1), n - saturated):
            x = _samples(places, j, size)
            top, per, time, gain = step[j, 1], step[j, 2], step[j, 5], step[j, 6]
            for p in range(per_wanted):
                part = min(max(top - np.float32(x[p]) * per, zero), one)
                inverse[p] += gain * part * (time - inverse[p])
            _take_in(x, offset, step[j], floor, rate, variance, trust, mixed, spread)
        if mixed:
            _mix(final, trust, rate, variance, shaded, spread)
            for p in range(per_wanted):
                inverse[p] = final[14] + shaded[p] * final[15] if trust[p] == one else inverse[p]
    if limits[0, 1] >= saturation or not every:
        for p in range(size):
            without = np.uint64(0) if every else barred[p]
            if without != 0 or np.isnan(rate[p]):
                value, noise, mean = _reweighted(places, p, without, offset[p], saturation, step, floor)
                rate[p] = value
                if spread:
                    variance[p] = noise
                    if inverted:
                        inverse[p] = mean


@numba.njit(cache=True, nogil=True, error_model="numpy")
def merge_linear(
    addresses: Any, kinds: Any, begin: Any, end: Any, images: Any, alike: Any,
    barred: Any, step: Any, dark: Any, bright: Any, lines: Any, pooled: Any, final: Any, maps: Any,
    value: Any, variance: Any, spread: Any,
) -> None:  # fmt: skip
    """Merge integer frames of a linear camera, each read once.

    Parameters
    ----------
    addresses, kinds : ndarray (n,), uint64 and int64
        First byte of each frame, shortest exposure first, and how its samples are kept (`packed`).
    begin, end : int
        Samples to merge; the first is the start of a tile, as where several threads share the work.
    images, alike : ndarray (4,), uint64 and bool
        First byte of the images of the dark level in DN, dark current in e-/s and relative response (float32)
        and of the defects (uint8), and which of them are one cell, where all pixels are alike.
    barred : ndarray (pixels,) or (1,), uint64
        Bit j: sample of frame j is left out.
    step, dark, bright, lines, pooled, final : ndarray, float32
        Of `weights.Weights`.
    maps : ndarray (6,), float32
        Covariance of the dark maps (3), flat variance, whether anything is corrected, whether the dark maps
        have a covariance.
    value, variance : ndarray (pixels,) or (CELL,) for a variance not wanted, float32
        Written.
    spread : bool
        Whether the variance is wanted.
    """
    n = len(step)
    rows = 1
    for j in range(n):
        rows += kinds[j] != UINT16
    # What points into these does not keep them alive, their use at the end does. In the loop all arrays are
    # made of addresses: to count who holds them would take as long as the sums.
    scratch = np.empty((rows, TILE), np.uint16)
    work = np.empty(2 * TILE + 4 * CELL, np.float32)
    small = np.empty((3, max(n, 5)), np.uint64)
    row_bytes, small_bytes = np.uint64(4 * CELL), np.uint64(8 * max(n, 5))
    memory, small_memory = np.uint64(work.ctypes.data), np.uint64(small.ctypes.data)
    results = np.uint64(4 * TILE)
    cell_memory = memory + results + results
    places = carray(to_uint64(small_memory), (n,))
    here = carray(to_uint64(small_memory + small_bytes), (n,))
    limits = carray(to_uint16(small_memory + small_bytes + small_bytes), (max(n, 5), 2))
    step, bright, lines, pooled = _bare2(step), _bare2(bright), _bare2(lines), _bare2(pooled)
    dark, final, maps = _bare(dark), _bare(final), _bare(maps)
    every = len(barred) == 1
    barred_at, value_at, variance_at = barred.ctypes.data, value.ctypes.data, variance.ctypes.data
    for first in range(begin, end, TILE):
        size = min(TILE, end - first)
        row = 0
        for j in range(n):
            if kinds[j] == UINT16:
                places[j] = addresses[j] + np.uint64(2 * first)
            else:
                unpack(kinds[j], addresses[j], first, scratch[row, :size])
                places[j] = scratch[row].ctypes.data
                row += 1
        for start in range(first, first + size, CELL):
            length = min(CELL, first + size - start)
            for j in range(n):
                here[j] = places[j] + np.uint64(2 * (start - first))
            _survey(here, length, limits)
            fetch_ahead(here, 0)
            own = image_of(images, alike, 0, start, length)
            if every:
                bar = carray(to_uint64(barred_at), (1,))
            else:
                bar = carray(to_uint64(np.uint64(barred_at + 8 * start)), (length,))
            rate = carray(to_float32(memory + np.uint64(4 * (start - first))), (length,))
            noise = carray(to_float32(memory + results + np.uint64(4 * (start - first))), (length,))
            shaded = carray(to_float32(cell_memory + np.uint64(0) * row_bytes), (length,))
            trust = carray(to_float32(cell_memory + np.uint64(1) * row_bytes), (length,))
            per = carray(to_float32(cell_memory + np.uint64(2) * row_bytes), (length if maps[5] > 0 else 1,))
            total = carray(to_uint16(cell_memory + np.uint64(3) * row_bytes), (length,))
            total_wide = carray(to_uint32(cell_memory + np.uint64(3) * row_bytes), (length,))
            _cell(
                here, limits, total, total_wide, shaded, trust, own,
                step, dark, bright, lines, pooled, final, bar, every, rate, noise, per, maps[5] > 0, spread,
            )  # fmt: skip
            if maps[4] > 0:
                correct(
                    rate, noise, per,
                    image_of(images, alike, 1, start, length), image_of(images, alike, 2, start, length),
                    defects_of(images, alike, start, length),
                    maps, spread,
                )  # fmt: skip
            fetch_ahead(here, 3)
        write_out(carray(to_float32(memory), (size,)), np.uint64(value_at + 4 * first))
        if spread:
            write_out(carray(to_float32(memory + results), (size,)), np.uint64(variance_at + 4 * first))
    scratch[0, 0], work[0], small[0, 0] = 0, 0, 0
