"""Compiled loops of the merge; imported only where they are run. `reference` says the same in plain numpy."""

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from calibration.radiometric.merge.packed import FLOAT32, MONO8, MONO10P, MONO12P, MONO12PACKED, UINT16

# Pixels that are classed together, and pixels that one thread reads of a frame before it turns to the next:
# short enough for the first cache (nine frames of a tile: the second), long enough for the prefetcher.
CELL = 1024
TILE = 8 * CELL
# Steps of the table of noise: 256 an octave, the upper bits of a float32.
SHIFT = np.int32(15)

_FAST = {"contract", "arcp", "nsz"}


def _pointer_to(kind: Any) -> Any:
    """Compiled cast of an address to a pointer: frames are separate arrays, their number is not a type."""

    pointer: Any = types.CPointer

    @intrinsic
    def cast(context: Any, address: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], target.get_value_type(pointer(kind)))

        return pointer(kind)(types.uint64), generate

    return cast


_to_uint8 = _pointer_to(types.uint8)
_to_uint16 = _pointer_to(types.uint16)
_to_uint64 = _pointer_to(types.uint64)
_to_float32 = _pointer_to(types.float32)


@numba.njit(cache=True)
def _image(images: Any, alike: Any, which: Any, first: Any, count: Any) -> Any:
    start = np.uint64(0 if alike[which] else 4 * first)
    return carray(_to_float32(images[which] + start), (count,))


@numba.njit(cache=True)
def _defects(images: Any, alike: Any, first: Any, count: Any) -> Any:
    start = np.uint64(0 if alike[3] else first)
    return carray(_to_uint8(images[3] + start), (count,))


@numba.njit(cache=True)
def unpack(kind: Any, address: Any, first: Any, out: Any) -> None:
    """Samples ``first ... first + len(out)`` of packed bytes; ``first`` is a multiple of 16.

    Parameters
    ----------
    kind : int
        One of the constants of `packed`.
    address : uint64
        Of the frame's first byte.
    first : int
        Sample.
    out : ndarray, uint16
        Written.
    """
    count = len(out)
    if kind == MONO8:
        plain = carray(_to_uint8(address + np.uint64(first)), (count,))
        for p in range(count):
            out[p] = plain[p]
    elif kind == MONO12P:
        start = address + np.uint64(first // 2 * 3)
        words = carray(_to_uint64(start), (count // 16 * 3,))
        mask = np.uint64(4095)
        for g in range(count // 16):
            a, b, c = words[3 * g], words[3 * g + 1], words[3 * g + 2]
            q = 16 * g
            for k in range(5):
                out[q + k] = np.uint16((a >> np.uint64(12 * k)) & mask)
            out[q + 5] = np.uint16(((a >> np.uint64(60)) | (b << np.uint64(4))) & mask)
            for k in range(4):
                out[q + 6 + k] = np.uint16((b >> np.uint64(8 + 12 * k)) & mask)
            out[q + 10] = np.uint16(((b >> np.uint64(56)) | (c << np.uint64(8))) & mask)
            for k in range(5):
                out[q + 11 + k] = np.uint16((c >> np.uint64(4 + 12 * k)) & mask)
        tail = carray(_to_uint8(start), (count * 3 // 2 + 1,))
        for p in range(count // 16 * 16, count):
            low, high = np.uint16(tail[p * 3 // 2]), np.uint16(tail[p * 3 // 2 + 1])
            out[p] = (low >> 4) | (high << 4) if p % 2 else low | ((high & 15) << 8)
    elif kind == MONO12PACKED:
        triples = carray(_to_uint8(address + np.uint64(first // 2 * 3)), (count * 3 // 2 + 1,))
        for p in range(count):
            q = p // 2 * 3
            middle = np.uint16(triples[q + 1])
            if p % 2:
                out[p] = (np.uint16(triples[q + 2]) << 4) | (middle >> 4)
            else:
                out[p] = (np.uint16(triples[q]) << 4) | (middle & 15)
    elif kind == MONO10P:
        bits = carray(_to_uint8(address + np.uint64(first // 4 * 5)), ((count * 10 + 7) // 8,))
        for p in range(count):
            q, s = p * 10 // 8, p * 10 % 8
            pair = np.uint32(bits[q]) | (np.uint32(bits[q + 1]) << np.uint32(8))
            out[p] = np.uint16((pair >> np.uint32(s)) & np.uint32(1023))


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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
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
            dn = np.float32(carray(_to_uint16(places[j]), (p + 1,))[p])
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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _project(
    places: Any, count: Any, offset: Any, bright: Any, dark: Any, both: Any, rate: Any, shaded: Any
) -> None:
    """Add weighted frames to two sums (``both``) or the second alone, two frames a turn."""
    size = len(rate)
    for j in range(0, count, 2):
        two = j + 1 < count
        x, y = (
            carray(_to_uint16(places[j]), (size,)),
            carray(_to_uint16(places[j + 1 if two else j]), (size,)),
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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
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
        x = carray(_to_uint16(places[0]), (size,))
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
            x = carray(_to_uint16(places[0]), (size,))
            for p in range(size):
                trust[p] = one if np.float32(x[p]) < edge else zero
        for j in range(max(valid, 1), n - saturated):
            x = carray(_to_uint16(places[j]), (size,))
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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
def _correct(
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
                x0 = carray(_to_uint16(places[j] + offset), (length,))
                x1 = carray(_to_uint16(places[j + 1] + offset), (length,))
                x2 = carray(_to_uint16(places[j + 2] + offset), (length,))
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
            own = _image(images, alike, 0, start, length)
            bar = barred[start : start + length] if len(barred) > 1 else barred
            rate = value[start : start + length]
            noise = variance[start : start + length] if spread else variance[:length]
            per = inverse[:length] if maps[5] > 0 else inverse
            _cell(
                here, limits[c], total[CELL * c : CELL * c + length], own, step, dark, bright, lines, pooled,
                final, bar, rate, noise, per, spread,
            )  # fmt: skip
            if maps[4] > 0:
                _correct(
                    rate, noise, per,
                    _image(images, alike, 1, start, length), _image(images, alike, 2, start, length),
                    _defects(images, alike, start, length),
                    maps, spread,
                )  # fmt: skip
    scratch[0, 0] = 0


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
        floats = carray(_to_float32(address + np.uint64(4 * first)), (size,))
        for p in range(size):
            plain[p] = floats[p]
    else:
        if kind == UINT16:
            dn = carray(_to_uint16(address + np.uint64(2 * first)), (size,))
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


@numba.njit(cache=True, error_model="numpy", fastmath=_FAST)
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
            own = _image(images, alike, 0, first, size)
            _electrons(
                kinds[j], addresses[j], first, start + first, own, lookup, settings, j, bar, electrons[j]
            )
        rate = value[first : first + size]
        noise = variance[first : first + size] if spread else variance[:size]
        _weigh(electrons, exposure, floors, settings, start + first, rate, noise, inverse, spread)
        if maps[4] > 0:
            _correct(
                rate, noise, inverse,
                _image(images, alike, 1, first, size), _image(images, alike, 2, first, size),
                _defects(images, alike, first, size),
                maps, spread,
            )  # fmt: skip
