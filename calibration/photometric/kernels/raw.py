"""Least squares straight from frames: every sample is read once, and nothing of the stack's size is made."""

from typing import Any

import numpy as np
from numba import njit, prange
from numba.np.numpy_support import carray

from calibration.radiometric.merge.kernels.packing import to_float32, to_uint8, to_uint16
from calibration.radiometric.merge.kernels.streaming import write_out

# Kinds of samples.
UINT8, UINT16, FLOAT32 = range(3)
# Pixels whose sums stay in the second cache: memory gives long runs of a frame sooner than short ones. Frames
# that are added at a time.
TILE = 4096
SWEEP = 8

# Rows of a tile's workspace: the right side of the normal equations, their matrix, the level to take off, the
# flat field, then the signals and the weights of one sweep. All lie at fixed distances from one address: of
# arrays that might overlap the compiler makes no vectors.
_X, _XX, _DARK, _FLAT, _SIGNAL, _WEIGHT = 0, 3, 9, 10, 11, 11 + SWEEP
_ROWS = _WEIGHT + SWEEP

# A determinant (of unit mean eigenvalue) below this may be the sums' rounding: lights in a plane have 0.
_SINGULAR = 1e-5
_FAST: Any = {"contract", "reassoc", "nsz", "arcp"}
_COMPILE: Any = {"cache": True, "error_model": "numpy", "fastmath": _FAST}
# Of what only kernels call: a fifth less to compile without the ways in from Python and C.
_INNER: Any = _COMPILE | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@njit(**_INNER)
def _row(work: Any, row: Any) -> Any:
    return carray(to_float32(work + np.uint64(4 * TILE * row)), (TILE,))


@njit(**_INNER)
def _take(frame: Any, limit: Any, work: Any, j: Any, count: Any) -> Any:
    """Signals of a frame's usable samples, 0 where not; their weights 1 and 0; how many there are."""
    x, w, dark = _row(work, _SIGNAL + j), _row(work, _WEIGHT + j), _row(work, _DARK)
    zero, one = np.float32(0), np.float32(1)
    used = 0
    for p in range(count):
        dn = np.float32(frame[p])
        good = dn < limit
        x[p] = dn - dark[p] if good else zero
        w[p] = one if good else zero
        used += 1 if good else 0
    return used


@njit(**_INNER)
def _bar(usable: Any, work: Any, j: Any, count: Any) -> Any:
    """Leave out what a mask leaves out of a frame's samples; how many are left."""
    x, w = _row(work, _SIGNAL + j), _row(work, _WEIGHT + j)
    zero = np.float32(0)
    used = 0
    for p in range(count):
        good = (usable[p] != 0) & (w[p] > zero)
        x[p] = x[p] if good else zero
        w[p] = w[p] if good else zero
        used += 1 if good else 0
    return used


@njit(**_INNER)
def _add(
    a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, k: Any, work: Any, count: Any
) -> None:  # fmt: skip
    """Add eight frames to the right side, each with its three factors."""
    x, y, z = _row(work, _X), _row(work, _X + 1), _row(work, _X + 2)
    # read before the loop: for all the compiler knows, the sums might overwrite them
    ax, bx, cx, dx, ex, fx, gx, hx = k[0, 0], k[1, 0], k[2, 0], k[3, 0], k[4, 0], k[5, 0], k[6, 0], k[7, 0]
    ay, by, cy, dy, ey, fy, gy, hy = k[0, 1], k[1, 1], k[2, 1], k[3, 1], k[4, 1], k[5, 1], k[6, 1], k[7, 1]
    az, bz, cz, dz, ez, fz, gz, hz = k[0, 2], k[1, 2], k[2, 2], k[3, 2], k[4, 2], k[5, 2], k[6, 2], k[7, 2]
    for p in range(count):
        s, t, u, v = np.float32(a[p]), np.float32(b[p]), np.float32(c[p]), np.float32(d[p])
        i, j, m, n = np.float32(e[p]), np.float32(f[p]), np.float32(g[p]), np.float32(h[p])
        x[p] += ax * s + bx * t + cx * u + dx * v + ex * i + fx * j + gx * m + hx * n
        y[p] += ay * s + by * t + cy * u + dy * v + ey * i + fy * j + gy * m + hy * n
        z[p] += az * s + bz * t + cz * u + dz * v + ez * i + fz * j + gz * m + hz * n


@njit(**_INNER)
def _weigh(k: Any, work: Any, count: Any) -> None:
    """Add the outer products of eight lights, each with its weight, to the matrix."""
    w0, w1, w2, w3 = (
        _row(work, _WEIGHT), _row(work, _WEIGHT + 1), _row(work, _WEIGHT + 2), _row(work, _WEIGHT + 3)
    )  # fmt: skip
    w4, w5, w6, w7 = (
        _row(work, _WEIGHT + 4), _row(work, _WEIGHT + 5), _row(work, _WEIGHT + 6), _row(work, _WEIGHT + 7)
    )  # fmt: skip
    for half in range(2):
        x, y, z = _row(work, _XX + 3 * half), _row(work, _XX + 1 + 3 * half), _row(work, _XX + 2 + 3 * half)
        i, j, m = 3 * half, 3 * half + 1, 3 * half + 2
        for p in range(count):
            a, b, c, d, e, f, g, h = w0[p], w1[p], w2[p], w3[p], w4[p], w5[p], w6[p], w7[p]
            x[p] += (
                k[0, i] * a + k[1, i] * b + k[2, i] * c + k[3, i] * d
                + k[4, i] * e + k[5, i] * f + k[6, i] * g + k[7, i] * h
            )  # fmt: skip
            y[p] += (
                k[0, j] * a + k[1, j] * b + k[2, j] * c + k[3, j] * d
                + k[4, j] * e + k[5, j] * f + k[6, j] * g + k[7, j] * h
            )  # fmt: skip
            z[p] += (
                k[0, m] * a + k[1, m] * b + k[2, m] * c + k[3, m] * d
                + k[4, m] * e + k[5, m] * f + k[6, m] * g + k[7, m] * h
            )  # fmt: skip


@njit(**_INNER)
def _divide(every: Any, work: Any, count: Any) -> None:
    """Solve the normal equations; NaN where fewer than three lights, or lights in a plane, are left.

    ``every`` (6,) is the part of the matrix that all pixels share.
    """
    x, y, z = _row(work, _X), _row(work, _X + 1), _row(work, _X + 2)
    xx, xy, xz = _row(work, _XX), _row(work, _XX + 1), _row(work, _XX + 2)
    yy, yz, zz = _row(work, _XX + 3), _row(work, _XX + 4), _row(work, _XX + 5)
    third, least, one, nan = np.float32(1 / 3), np.float32(_SINGULAR), np.float32(1), np.float32(np.nan)
    for p in range(count):
        a, b, c = every[0] + xx[p], every[1] + xy[p], every[2] + xz[p]
        d, e, f = every[3] + yy[p], every[4] + yz[p], every[5] + zz[p]
        u, v, w = x[p], y[p], z[p]
        caa, cab, cac = d * f - e * e, c * e - b * f, b * e - c * d
        cbb, cbc, ccc = a * f - c * c, b * c - a * e, a * d - b * b
        det = a * caa + b * cab + c * cac
        size = (a + d + f) * third
        s = one / det if det > least * size * size * size else nan
        x[p] = s * (caa * u + cab * v + cac * w)
        y[p] = s * (cab * u + cbb * v + cbc * w)
        z[p] = s * (cac * u + cbc * v + ccc * w)


@njit(**_INNER)
def _level(total: Any, work: Any, count: Any) -> Any:
    """Take the dark level off sums of bare samples; whether one is not finite."""
    x, y, z, dark = _row(work, _X), _row(work, _X + 1), _row(work, _X + 2), _row(work, _DARK)
    top = np.float32(np.inf)
    lost = 0
    for p in range(count):
        x[p] -= total[0] * dark[p]
        y[p] -= total[1] * dark[p]
        z[p] -= total[2] * dark[p]
        lost += 0 if abs(z[p]) < top else 1
    return lost > 0


@njit(**_INNER)
def _finish(work: Any, normals: Any, albedo: Any, valid: Any) -> None:
    """Direction and length; a vector that points away from the camera is no normal."""
    x, y, z, flat = _row(work, _X), _row(work, _X + 1), _row(work, _X + 2), _row(work, _FLAT)
    count = len(albedo)
    zero, one, nan, top = np.float32(0), np.float32(1), np.float32(np.nan), np.float32(np.inf)
    for p in range(count):
        square = x[p] * x[p] + y[p] * y[p] + z[p] * z[p]
        good = (z[p] < zero) & (square < top) & (flat[p] > zero)
        length = np.sqrt(square) if good else nan
        scale = one / length
        x[p], y[p], z[p], flat[p] = x[p] * scale, y[p] * scale, z[p] * scale, length / flat[p]
    write_out(flat[:count], np.uint64(albedo.ctypes.data))
    for p in range(count):
        valid[p] = flat[p] == flat[p]
    out = carray(to_float32(work + np.uint64(4 * TILE * _SIGNAL)), (3 * TILE,))
    for p in range(count):
        out[3 * p] = x[p]
        out[3 * p + 1] = y[p]
        out[3 * p + 2] = z[p]
    write_out(out[: 3 * count], np.uint64(normals.ctypes.data))


@njit(**_INNER)
def _image(address: Any, single: Any, first: Any, work: Any, row: Any, count: Any) -> None:
    """Copy the tile's part of an image, or its one number, to a row."""
    out = _row(work, row)
    if single:
        number = carray(to_float32(address), (1,))[0]
        for p in range(count):
            out[p] = number
    else:
        part = carray(to_float32(address + np.uint64(4 * first)), (count,))
        for p in range(count):
            out[p] = part[p]


@njit(**_INNER)
def _bytes(places: Any, j: Any, first: Any, count: Any) -> Any:
    return carray(to_uint8(places[min(j, len(places) - 1)] + np.uint64(first)), (count,))


@njit(**_INNER)
def _words(places: Any, j: Any, first: Any, count: Any) -> Any:
    return carray(to_uint16(places[min(j, len(places) - 1)] + np.uint64(2 * first)), (count,))


@njit(**_INNER)
def _floats(places: Any, j: Any, first: Any, count: Any) -> Any:
    return carray(to_float32(places[min(j, len(places) - 1)] + np.uint64(4 * first)), (count,))


@njit(**_INNER)
def _clear(work: Any, first: Any, last: Any) -> None:
    rows = carray(to_float32(work + np.uint64(4 * TILE * first)), (TILE * (last - first),))
    for p in range(len(rows)):
        rows[p] = np.float32(0)


@njit(**_INNER)
def _plain(frames: Any, kind: Any, first: Any, k: Any, work: Any, count: Any) -> None:
    """Sums of all bare samples, of uint16 or float32; the last sweep is filled up with the last frame."""
    for j in range(0, len(frames), SWEEP):
        at = k[j : j + SWEEP]
        if kind == UINT16:
            _add(
                _words(frames, j, first, count), _words(frames, j + 1, first, count),
                _words(frames, j + 2, first, count), _words(frames, j + 3, first, count),
                _words(frames, j + 4, first, count), _words(frames, j + 5, first, count),
                _words(frames, j + 6, first, count), _words(frames, j + 7, first, count), at, work, count,
            )  # fmt: skip
        else:
            _add(
                _floats(frames, j, first, count), _floats(frames, j + 1, first, count),
                _floats(frames, j + 2, first, count), _floats(frames, j + 3, first, count),
                _floats(frames, j + 4, first, count), _floats(frames, j + 5, first, count),
                _floats(frames, j + 6, first, count), _floats(frames, j + 7, first, count), at, work, count,
            )  # fmt: skip


@njit(**_INNER)
def _masked(
    frames: Any, kind: Any, usable: Any, limit: Any, first: Any, k: Any, outer: Any, every: Any, work: Any,
    count: Any,
) -> None:  # fmt: skip
    """Sums of the usable samples' signals, and the matrix of their lights."""
    every[:] = np.float32(0)
    n = len(frames)
    for j in range(0, n, SWEEP):
        size = min(SWEEP, n - j)
        used = 0
        if size < SWEEP:
            _clear(work, _SIGNAL, _ROWS)
        for i in range(size):
            if kind == UINT16:
                left = _take(_words(frames, j + i, first, count), limit, work, i, count)
            elif kind == FLOAT32:
                left = _take(_floats(frames, j + i, first, count), limit, work, i, count)
            else:
                left = _take(_bytes(frames, j + i, first, count), limit, work, i, count)
            if usable[j + i] != 0:
                left = _bar(_bytes(usable, j + i, first, count), work, i, count)
            used += left
        _add(
            _row(work, _SIGNAL), _row(work, _SIGNAL + 1), _row(work, _SIGNAL + 2), _row(work, _SIGNAL + 3),
            _row(work, _SIGNAL + 4), _row(work, _SIGNAL + 5), _row(work, _SIGNAL + 6),
            _row(work, _SIGNAL + 7), k[j : j + SWEEP], work, count,
        )  # fmt: skip
        if used == size * count:
            for i in range(size):
                every += outer[j + i]
        elif used > 0:
            _weigh(outer[j : j + SWEEP], work, count)


@njit(parallel=True, **_COMPILE)
def solve_frames(
    frames: Any, kind: Any, usable: Any, limit: Any, images: Any, single: Any,
    shares: Any, inverse: Any, outer: Any, plain: Any, normals: Any, albedo: Any, valid: Any,
) -> None:  # fmt: skip
    """Normals and albedo of every pixel, tiles in parallel; what is in a tile does not depend on who does it.

    Parameters
    ----------
    frames : ndarray (n,), uint64
        First byte of each frame.
    kind : int
        UINT8, UINT16 or FLOAT32.
    usable : ndarray (n,), uint64
        First byte of each frame's mask of usable samples (uint8); 0 where there is none.
    limit : float32
        Samples are usable below it, if the mask says so too.
    images : ndarray (2,), uint64
        First byte of the dark level and of the flat field, float32.
    single : ndarray (2,), bool
        Which of them is one number.
    shares, inverse : ndarray (m, 3), float32
        A sample's part in the right side of the normal equations and in their solution with all lights; rows
        of zeros fill up the last sweep.
    outer : ndarray (m, 6), float32
        A light's part in the matrix: xx, xy, xz, yy, yz, zz of its direction.
    plain : bool
        No mask and no limit: all samples, not of UINT8, are usable but for NaN.
    normals, albedo, valid : ndarray (3 * pixels,), (pixels,) float32, (pixels,) bool
        Written.
    """
    pixels = len(albedo)
    total = np.zeros(3, np.float32)
    for j in range(len(inverse)):
        total += inverse[j]
    for tile in prange((pixels + TILE - 1) // TILE):
        first = tile * TILE
        count = min(TILE, pixels - first)
        # to a line of the caches
        space = np.empty(_ROWS * TILE + 16, np.float32)
        every = np.empty(6, np.float32)
        work = (np.uint64(space.ctypes.data) + np.uint64(63)) & ~np.uint64(63)
        _image(images[0], single[0], first, work, _DARK, count)
        _image(images[1], single[1], first, work, _FLAT, count)
        again = not plain
        if plain:
            _clear(work, _X, _XX)
            _plain(frames, kind, first, inverse, work, count)
            again = _level(total, work, count)
        if again:
            _clear(work, _X, _DARK)
            _masked(frames, kind, usable, limit, first, shares, outer, every, work, count)
            _divide(every, work, count)
        last = first + count
        _finish(work, normals[3 * first : 3 * last], albedo[first:last], valid[first:last])
