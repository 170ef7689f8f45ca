"""Merge of a linear camera's integer frames, in one pass over memory."""

from typing import Any

import numba
import numpy as np
from numba.np.numpy_support import carray

from calibration.radiometric.merge.kernels.maps import CELL, FAST, correct, defects_of, image_of
from calibration.radiometric.merge.kernels.packing import to_uint16, unpack
from calibration.radiometric.merge.packed import UINT16

# Pixels that a thread reads of a frame before it turns to the next: nine frames fit the second cache, and the
# prefetcher has its run.
TILE = 8 * CELL


@numba.njit(cache=True)
def _limits(a: Any, b: Any, c: Any, limits: Any) -> None:
    """Least and greatest of three frames' samples of a cell; three at once, for the streams of memory."""
    low_a, low_b, low_c = np.uint16(65535), np.uint16(65535), np.uint16(65535)
    high_a, high_b, high_c = np.uint16(0), np.uint16(0), np.uint16(0)
    for p in range(len(a)):
        x, y, z = a[p], b[p], c[p]
        low_a, high_a = x if x < low_a else low_a, x if x > high_a else high_a
        low_b, high_b = y if y < low_b else low_b, y if y > high_b else high_b
        low_c, high_c = z if z < low_c else low_c, z if z > high_c else high_c
    limits[0, 0], limits[0, 1] = low_a, high_a
    limits[1, 0], limits[1, 1] = low_b, high_b
    limits[2, 0], limits[2, 1] = low_c, high_c


@numba.njit(cache=True)
def _add(a: Any, b: Any, c: Any, count: Any, total: Any) -> None:
    if count == 3:
        for p in range(len(total)):
            total[p] = np.uint32(total[p] + np.uint32(np.uint32(a[p]) + np.uint32(b[p])) + np.uint32(c[p]))
    else:
        for p in range(len(total)):
            total[p] = np.uint32(total[p] + np.uint32(a[p]))
        if count == 2:
            for p in range(len(total)):
                total[p] = np.uint32(total[p] + np.uint32(b[p]))


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
def _project(
    places: Any, count: Any, offset: Any, bright: Any, dark: Any, both: Any, rate: Any, shaded: Any
) -> None:
    """Add weighted frames to two sums (``both``) or the second alone, two frames a turn."""
    size = len(rate)
    for j in range(0, count, 2):
        two = j + 1 < count
        x, y = (
            carray(to_uint16(places[j]), (size,)),
            carray(to_uint16(places[j + 1 if two else j]), (size,)),
        )
        b0, b1 = bright[j], bright[j + 1] if two else np.float32(0)
        d0, d1 = dark[j], dark[j + 1] if two else np.float32(0)
        if both:
            for p in range(size):
                first, second = np.float32(x[p]) - offset[p], np.float32(y[p]) - offset[p]
                rate[p] += b0 * first + b1 * second
                shaded[p] += d0 * first + d1 * second
        else:
            for p in range(size):
                shaded[p] += d0 * (np.float32(x[p]) - offset[p]) + d1 * (np.float32(y[p]) - offset[p])


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _take_in(
    x: Any, offset: Any, step: Any, floor: Any, rate: Any, variance: Any, trust: Any, spread: Any
) -> None:
    """Bring a frame into the estimate of the shorter ones; ``trust`` becomes its part where that is less."""
    zero, one = np.float32(0), np.float32(1)
    factor, top, per = step[0], step[1], step[2]
    lift, lift0, inverse, gain = step[3], step[4], step[5], step[6]
    noise, square = floor * inverse * inverse, gain * gain
    for p in range(len(rate)):
        dn = np.float32(x[p])
        electrons = dn - offset[p]
        z = top - dn * per
        part = z if z > zero else zero
        part = part if part < one else one
        correction = electrons * lift + lift0 if part == z else zero
        if spread:
            # the shorter frames' estimate tells the shot noise; of the correction the mean square is its own
            light = rate[p] if rate[p] > zero else zero
            left = one - gain * part
            own = part * part * (light * inverse + noise) + correction * correction
            variance[p] = variance[p] * left * left + square * own
        rate[p] += gain * (part * (electrons * factor - rate[p]) + correction)
        trust[p] = part if part < trust[p] else trust[p]


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _mix(final: Any, trust: Any, rate: Any, variance: Any, shaded: Any, spread: Any) -> None:
    """Mix the bright and the dark estimate; the share of the bright one takes the dark one's place."""
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    limit, p0, p1, q0, q1 = final[2], final[3], final[4], final[5], final[6]
    a0, a1, a2, b0, b1, b2, least = final[8], final[9], final[10], final[11], final[12], final[13], final[16]
    for p in range(len(rate)):
        difference = rate[p] - shaded[p]
        at = shaded[p] if shaded[p] > zero else zero
        at = at if at < limit else limit
        at = shaded[p] + (p0 + p1 * at) / (q0 + q1 * at) * difference
        at = at if at > zero else zero
        at = at if at < limit else limit
        share = (p0 + p1 * at) / (q0 + q1 * at)
        mixed = shaded[p] + share * difference
        if spread:
            noise = a0 + share * (two * a1 + share * a2) + (b0 + share * (two * b1 + share * b2)) * mixed
            noise = least if noise < least else noise
            variance[p] = noise if trust[p] == one else variance[p]
        rate[p] = mixed if trust[p] == one else rate[p]
        shaded[p] = share


@numba.njit(cache=True, error_model="numpy", fastmath=FAST)
def _cell(
    places: Any, limits: Any, total: Any, offset: Any, step: Any, dark: Any, bright: Any, lines: Any,
    pooled: Any, final: Any, barred: Any, rate: Any, variance: Any, inverse: Any, spread: Any,
) -> None:  # fmt: skip
    """Electrons per second of one cell, and (``spread``) their variance and mean inverse exposure."""
    n, size = len(step), len(rate)
    zero, one = np.float32(0), np.float32(1)
    nan = np.float32(np.nan)
    saturation, edge, floor = final[0], final[1], final[7]
    per_wanted = size if spread and len(inverse) > 1 else 0
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
        x = carray(to_uint16(places[0]), (size,))
        per_dn = step[0, 0]
        slope, constant, mean = step[0, 5], floor * step[0, 5] * step[0, 5], step[0, 5]
        for p in range(size):
            dn = np.float32(x[p])
            rate[p] = (dn - offset[p]) * per_dn if dn < saturation else nan
    elif light:
        scale, drop = pooled[valid - 1, 1], pooled[valid - 1, 2]
        slope, constant, mean = pooled[valid - 1, 3], pooled[valid - 1, 4], pooled[valid - 1, 5]
        for p in range(size):
            rate[p] = np.float32(total[p]) * scale - offset[p] * drop
    else:
        slope, constant, mean = lines[valid - 1, 0], lines[valid - 1, 1], lines[valid - 1, 2]
        for p in range(size):
            rate[p] = zero
    shaded = np.zeros(size, np.float32)
    if not light and (valid > 0 or mixed):
        _project(
            places, n if mixed else valid, offset, bright[max(valid, 1) - 1], dark, valid > 0, rate, shaded
        )
    least = final[16] / final[8] * constant
    for p in range(size if spread else 0):
        noise = constant + slope * rate[p]
        variance[p] = least if noise < least else noise
    for p in range(per_wanted):
        inverse[p] = mean
    if mixed or valid + saturated < n:
        trust = np.ones(size, np.float32)
        if valid == 0:
            x = carray(to_uint16(places[0]), (size,))
            for p in range(size):
                trust[p] = one if np.float32(x[p]) < edge else zero
        for j in range(max(valid, 1), n - saturated):
            x = carray(to_uint16(places[j]), (size,))
            top, per, time, gain = step[j, 1], step[j, 2], step[j, 5], step[j, 6]
            for p in range(per_wanted):
                part = min(max(top - np.float32(x[p]) * per, zero), one)
                inverse[p] += gain * part * (time - inverse[p])
            _take_in(x, offset, step[j], floor, rate, variance, trust, spread)
        if mixed:
            _mix(final, trust, rate, variance, shaded, spread)
            for p in range(per_wanted):
                inverse[p] = final[14] + shaded[p] * final[15] if trust[p] == one else inverse[p]
    if limits[0, 1] >= saturation or len(barred) > 1:
        for p in range(size):
            without = barred[p] if len(barred) > 1 else np.uint64(0)
            if without != 0 or np.isnan(rate[p]):
                value, noise, mean = _reweighted(places, p, without, offset[p], saturation, step, floor)
                rate[p] = value
                if spread:
                    variance[p] = noise
                    if len(inverse) > 1:
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
    addresses, kinds : ndarray (n + padding to a multiple of 3,), uint64 and (n,), int64
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
    padded = len(addresses)
    rows = 1
    for j in range(n):
        rows += kinds[j] != UINT16
    # the addresses that point into it do not keep it alive, its use below does; the last row stays dark
    scratch = np.zeros((rows, TILE), np.uint16)
    places = np.empty(padded, np.uint64)
    here = np.empty(n, np.uint64)
    inverse = np.empty(CELL if maps[5] > 0 else 1, np.float32)
    total = np.empty(TILE, np.uint32)
    limits = np.empty((TILE // CELL, padded, 2), np.uint16)
    sound = np.empty(TILE // CELL, np.bool_)  # all frames up to here are below the ramp
    edge = final[1]
    for first in range(begin, end, TILE):
        size = min(TILE, end - first)
        total[:] = 0
        sound[:] = True
        row = 0
        for j in range(n):
            if kinds[j] == UINT16:
                places[j] = addresses[j] + np.uint64(2 * first)
            else:
                unpack(kinds[j], addresses[j], first, scratch[row, :size])
                places[j] = scratch[row].ctypes.data
                row += 1
        for j in range(n, padded):
            places[j] = scratch[row].ctypes.data
        cells = (size + CELL - 1) // CELL
        for j in range(0, padded, 3):
            for c in range(cells):
                offset = np.uint64(2 * CELL * c)
                length = min(CELL, size - CELL * c)
                x0 = carray(to_uint16(places[j] + offset), (length,))
                x1 = carray(to_uint16(places[j + 1] + offset), (length,))
                x2 = carray(to_uint16(places[j + 2] + offset), (length,))
                _limits(x0, x1, x2, limits[c, j : j + 3])
                count = 0
                while sound[c] and count < 3:
                    sound[c] = np.float32(limits[c, j + count, 1]) < edge
                    count += sound[c]
                if count > 0:
                    _add(x0, x1, x2, count, total[CELL * c : CELL * c + length])
        for c in range(cells):
            start = first + CELL * c
            length = min(CELL, size - CELL * c)
            for j in range(n):
                here[j] = places[j] + np.uint64(2 * CELL * c)
            own = image_of(images, alike, 0, start, length)
            bar = barred[start : start + length] if len(barred) > 1 else barred
            rate = value[start : start + length]
            noise = variance[start : start + length] if spread else variance[:length]
            per = inverse[:length] if maps[5] > 0 else inverse
            _cell(
                here, limits[c], total[CELL * c : CELL * c + length], own, step, dark, bright, lines, pooled,
                final, bar, rate, noise, per, spread,
            )  # fmt: skip
            if maps[4] > 0:
                correct(
                    rate, noise, per,
                    image_of(images, alike, 1, start, length), image_of(images, alike, 2, start, length),
                    defects_of(images, alike, start, length),
                    maps, spread,
                )  # fmt: skip
    scratch[0, 0] = 0
