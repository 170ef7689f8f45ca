"""One pixel's samples, and the small linear algebra on them.

Everything of one pixel is in units of albedo: the sample of light k is m = b . l + gloss, b = albedo *
normal.
"""

import math
from typing import Any

from numba import njit

_FAST = {"contract", "reassoc", "nsz", "arcp"}
COMPILE: dict[str, Any] = {"cache": True, "error_model": "numpy", "fastmath": _FAST}
# Of what only kernels call: a fifth less to compile without the ways in from Python and C.
INNER: dict[str, Any] = COMPILE | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

# Columns of the table of lights: near or not, direction or position, axis, order, intensity of up to 3
# channels.
NEAR = 0
PLACE = 1
AXIS = 4
ORDER = 7
INTENSITY = 8
COLUMNS = 11

# Rows of a pixel's workspace, one column per light: sample, its variance, usable or not, direction to the
# light, half vector, irradiance of a light of unit intensity, predicted gloss, inverse of the expected square
# of the residual, weight, scratch.
M, V, OK, LX, LY, LZ, HX, HY, HZ, FALL, GLOSS, TRUST, W, R, ROWS = range(15)


@njit(**INNER)
def invert(a: Any, out: Any) -> Any:
    """Inverse of the symmetric 3 x 3 matrix (xx, xy, xz, yy, yz, zz); False where it is close to singular."""
    xx, xy, xz, yy, yz, zz = a[0], a[1], a[2], a[3], a[4], a[5]
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    det = xx * cxx + xy * cxy + xz * cxz
    size = (xx + yy + zz) / 3.0
    if not det > 1e-7 * size * size * size:
        return False
    s = 1.0 / det
    out[0], out[1], out[2] = cxx * s, cxy * s, cxz * s
    out[3], out[4], out[5] = (xx * zz - xz * xz) * s, (xy * xz - xx * yz) * s, (xx * yy - xy * xy) * s
    return True


@njit(**INNER)
def outer(weights: Any, work: Any, a: Any) -> Any:
    """``a`` = sum of weight times the outer product of the light's direction."""
    lx, ly, lz = work[LX], work[LY], work[LZ]
    xx = xy = xz = yy = yz = zz = 0.0
    for k in range(len(weights)):
        wx, wy, wz = weights[k] * lx[k], weights[k] * ly[k], weights[k] * lz[k]
        xx += wx * lx[k]
        xy += wx * ly[k]
        xz += wx * lz[k]
        yy += wy * ly[k]
        yz += wy * lz[k]
        zz += wz * lz[k]
    a[0], a[1], a[2], a[3], a[4], a[5] = xx, xy, xz, yy, yz, zz


@njit(**INNER)
def weighted(work: Any, a: Any, inverse: Any, b: Any) -> Any:
    """Weighted least squares of m - gloss = b . l; leaves the inverse normal matrix in ``inverse``."""
    w, m, gloss, lx, ly, lz = work[W], work[M], work[GLOSS], work[LX], work[LY], work[LZ]
    outer(w, work, a)
    if not invert(a, inverse):
        return False
    x = y = z = 0.0
    for k in range(len(w)):
        s = w[k] * (m[k] - gloss[k])
        x += s * lx[k]
        y += s * ly[k]
        z += s * lz[k]
    b[0] = inverse[0] * x + inverse[1] * y + inverse[2] * z
    b[1] = inverse[1] * x + inverse[3] * y + inverse[4] * z
    b[2] = inverse[2] * x + inverse[4] * y + inverse[5] * z
    return True


@njit(**INNER)
def median(values: Any, count: Any) -> Any:
    """Median of the first ``count`` values, which are sorted in place (insertion sort: few lights)."""
    for i in range(1, count):
        x = values[i]
        j = i - 1
        while j >= 0 and values[j] > x:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = x
    half = count // 2
    return values[half] if count % 2 else 0.5 * (values[half - 1] + values[half])


@njit(**INNER)
def aim(lights: Any, px: Any, py: Any, pz: Any, work: Any) -> Any:
    """Direction and irradiance of every light at a point."""
    for k in range(lights.shape[0]):
        dx, dy, dz, e = lights[k, PLACE], lights[k, PLACE + 1], lights[k, PLACE + 2], 1.0
        if lights[k, NEAR] > 0.5:
            dx -= px
            dy -= py
            dz -= pz
            e = 1.0 / (dx * dx + dy * dy + dz * dz)
            inverse = math.sqrt(e)
            dx *= inverse
            dy *= inverse
            dz *= inverse
            power = lights[k, ORDER]
            if power > 0.0:
                cosine = -(dx * lights[k, AXIS] + dy * lights[k, AXIS + 1] + dz * lights[k, AXIS + 2])
                if cosine <= 0.0:
                    e = 0.0
                elif power == 1.0:
                    e *= cosine
                else:
                    e *= cosine**power
        work[LX, k], work[LY, k], work[LZ, k], work[FALL, k] = dx, dy, dz, e


@njit(**INNER)
def usable(radiance: Any, variance: Any, order: Any, y: Any, x: Any, work: Any) -> Any:
    """Mark the lights that reach a pixel and whose sample is there in every channel; returns how many."""
    ok, fall = work[OK], work[FALL]
    count = 0
    for k in range(len(order)):
        good = fall[k] > 0.0
        for c in range(radiance.shape[3]):
            good &= math.isfinite(radiance[order[k], y, x, c]) and math.isfinite(variance[order[k], y, x, c])
        ok[k] = 1.0 if good else 0.0
        count += 1 if good else 0
    return count


@njit(**INNER)
def gather(
    radiance: Any, variance: Any, lights: Any, order: Any, y: Any, x: Any, work: Any, mix: Any, noise: Any
) -> Any:
    """Samples of one pixel in units of albedo, channels mixed into one; returns how many are usable."""
    n, channels = lights.shape[0], radiance.shape[3]
    ok, fall = work[OK], work[FALL]
    for c in range(channels):
        mix[c] = 0.0
        noise[c] = 0.0
    count = usable(radiance, variance, order, y, x, work)
    for k in range(n):
        if ok[k] > 0.0:
            for c in range(channels):
                scale = 1.0 / (fall[k] * lights[k, INTENSITY + c])
                mix[c] += radiance[order[k], y, x, c] * scale
                noise[c] += variance[order[k], y, x, c] * scale * scale
    # Matched filter over the channels. One set for all lights of the pixel: shares that changed from light to
    # light would look like an albedo that does.
    total = 0.0
    for c in range(channels):
        mean = max(mix[c], 0.0)
        mix[c] = mean / (noise[c] + 1e-12 * mean * mean + 1e-300)
        total += mix[c]
    for c in range(channels):
        mix[c] = mix[c] / total if total > 0.0 else 1.0 / channels
    for k in range(n):
        work[M, k] = 0.0
        work[V, k] = 1.0
        if ok[k] > 0.0:
            s = t = 0.0
            for c in range(channels):
                scale = mix[c] / (fall[k] * lights[k, INTENSITY + c])
                s += radiance[order[k], y, x, c] * scale
                t += max(variance[order[k], y, x, c], 0.0) * scale * scale
            work[M, k] = s
            work[V, k] = t
    return count


@njit(**INNER)
def spread(work: Any, a: Any, inverse: Any, n: Any) -> Any:
    """Trace in the tangent plane of ``n`` of inverse . a . inverse."""
    i = inverse
    trace = 0.0
    for row in range(4):
        if row == 0:
            x, y, z = i[0], i[1], i[2]
        elif row == 1:
            x, y, z = i[1], i[3], i[4]
        elif row == 2:
            x, y, z = i[2], i[4], i[5]
        else:
            x = i[0] * n[0] + i[1] * n[1] + i[2] * n[2]
            y = i[1] * n[0] + i[3] * n[1] + i[4] * n[2]
            z = i[2] * n[0] + i[4] * n[1] + i[5] * n[2]
        square = a[0] * x * x + a[3] * y * y + a[5] * z * z + 2 * (a[1] * x * y + a[2] * x * z + a[4] * y * z)
        trace += square if row < 3 else -square
    return max(trace, 0.0)
