"""Per-pixel photometric stereo, compiled; the tests hold the numpy reference."""

import math
from typing import Any

import numpy as np
from numba import njit, prange

# Columns of the table of lights: kind, direction or position, axis, order, intensity of up to 3 channels.
NEAR = 0
PLACE = 1
AXIS = 4
ORDER = 7
INTENSITY = 8
COLUMNS = 11

MODEL_ERROR = 0.01
START_ERROR = 0.03
DARK = 0.1
TRUNCATE = 9.0
SHADOWED = 0.5
MAD_TO_SIGMA = 1.4826
BIWEIGHT = 4.685


@njit(cache=True, inline="always")
def _dot3(b: Any, lx: Any, ly: Any, lz: Any, k: Any) -> Any:
    return b[0] * lx[k] + b[1] * ly[k] + b[2] * lz[k]


@njit(cache=True)
def _invert(a: Any, out: Any) -> Any:
    """Inverse of the symmetric 3 x 3 matrix (xx, xy, xz, yy, yz, zz); False where it is close to singular."""
    xx, xy, xz, yy, yz, zz = a[0], a[1], a[2], a[3], a[4], a[5]
    cxx = yy * zz - yz * yz
    cxy = xz * yz - xy * zz
    cxz = xy * yz - xz * yy
    det = xx * cxx + xy * cxy + xz * cxz
    size = (xx + yy + zz) / 3.0
    if not det > 1e-7 * size * size * size:
        return False
    s = 1.0 / det
    out[0] = cxx * s
    out[1] = cxy * s
    out[2] = cxz * s
    out[3] = (xx * zz - xz * xz) * s
    out[4] = (xy * xz - xx * yz) * s
    out[5] = (xx * yy - xy * xy) * s
    return True


@njit(cache=True)
def _weighted(n: Any, w: Any, m: Any, lx: Any, ly: Any, lz: Any, a: Any, inverse: Any, b: Any) -> Any:
    """Weighted least squares b of m = b . l; leaves the inverse normal matrix in ``inverse``."""
    a[:] = 0.0
    rx = ry = rz = 0.0
    for k in range(n):
        wx, wy, wz = w[k] * lx[k], w[k] * ly[k], w[k] * lz[k]
        a[0] += wx * lx[k]
        a[1] += wx * ly[k]
        a[2] += wx * lz[k]
        a[3] += wy * ly[k]
        a[4] += wy * lz[k]
        a[5] += wz * lz[k]
        rx += wx * m[k]
        ry += wy * m[k]
        rz += wz * m[k]
    if not _invert(a, inverse):
        return False
    i = inverse
    b[0] = i[0] * rx + i[1] * ry + i[2] * rz
    b[1] = i[1] * rx + i[3] * ry + i[4] * rz
    b[2] = i[2] * rx + i[4] * ry + i[5] * rz
    return True


@njit(cache=True)
def _median(values: Any, count: Any) -> Any:
    """Median of the first ``count`` values, which are sorted in place (insertion sort)."""
    for i in range(1, count):
        x = values[i]
        j = i - 1
        while j >= 0 and values[j] > x:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = x
    half = count // 2
    return values[half] if count % 2 else 0.5 * (values[half - 1] + values[half])


@njit(cache=True)
def _gather(
    radiance: Any,
    variance: Any,
    lights: Any,
    order: Any,
    px: Any,
    py: Any,
    pz: Any,
    y: Any,
    x: Any,
    channels: Any,
    m: Any,
    v: Any,
    ok: Any,
    lx: Any,
    ly: Any,
    lz: Any,
    fall: Any,
    mc: Any,
) -> Any:
    """Samples of one pixel in units of albedo, with their light vectors; the number of usable samples."""
    n = radiance.shape[0]
    for c in range(channels):
        mc[c] = 0.0
        mc[3 + c] = 0.0
    count = 0
    for k in range(n):
        if lights[k, NEAR] > 0.5:
            dx = lights[k, PLACE] - px
            dy = lights[k, PLACE + 1] - py
            dz = lights[k, PLACE + 2] - pz
            inverse2 = 1.0 / (dx * dx + dy * dy + dz * dz)
            inverse = math.sqrt(inverse2)
            dx *= inverse
            dy *= inverse
            dz *= inverse
            e = inverse2
            power = lights[k, ORDER]
            if power > 0.0:
                cosine = -(dx * lights[k, AXIS] + dy * lights[k, AXIS + 1] + dz * lights[k, AXIS + 2])
                if cosine <= 0.0:
                    e = 0.0
                elif power == 1.0:
                    e *= cosine
                else:
                    e *= cosine**power
        else:
            dx = lights[k, PLACE]
            dy = lights[k, PLACE + 1]
            dz = lights[k, PLACE + 2]
            e = 1.0
        lx[k] = dx
        ly[k] = dy
        lz[k] = dz
        fall[k] = e
        good = e > 0.0
        for c in range(channels):
            if not (
                math.isfinite(radiance[order[k], y, x, c]) and math.isfinite(variance[order[k], y, x, c])
            ):
                good = False
        ok[k] = 1.0 if good else 0.0
        if good:
            count += 1
            for c in range(channels):
                scale = 1.0 / (e * lights[k, INTENSITY + c])
                mc[c] += radiance[order[k], y, x, c] * scale
                mc[3 + c] += variance[order[k], y, x, c] * scale * scale
    if count == 0:
        return 0
    # Matched filter over the channels. One set for all lights of the pixel: shares that changed from light to
    # light would look like an albedo that does.
    total = 0.0
    for c in range(channels):
        mean = max(mc[c], 0.0) / count
        share = mean / (mc[3 + c] / count + 1e-4 * mean * mean + 1e-300)
        mc[c] = share
        total += share
    for c in range(channels):
        mc[c] = mc[c] / total if total > 0.0 else 1.0 / channels
    for k in range(n):
        m[k] = 0.0
        v[k] = 1.0
        if ok[k] > 0.0:
            s = t = 0.0
            for c in range(channels):
                scale = mc[c] / (fall[k] * lights[k, INTENSITY + c])
                s += radiance[order[k], y, x, c] * scale
                t += max(variance[order[k], y, x, c], 0.0) * scale * scale
            m[k] = s
            v[k] = t
    return count


@njit(cache=True)
def _cost(n: Any, b: Any, m: Any, ok: Any, is2: Any, limit: Any, lx: Any, ly: Any, lz: Any) -> Any:
    """Truncated squares of the residuals of a Lambertian guess."""
    total = 0.0
    for k in range(n):
        r = m[k] - max(_dot3(b, lx, ly, lz, k), 0.0)
        total += ok[k] * min(r * r * is2[k], limit)
    return total


@njit(cache=True)
def _robust(
    n: Any,
    m: Any,
    v: Any,
    ok: Any,
    lx: Any,
    ly: Any,
    lz: Any,
    rms: Any,
    triplets: Any,
    is2: Any,
    w: Any,
    r: Any,
    a: Any,
    inverse: Any,
    b: Any,
    trial: Any,
) -> Any:
    """Redescending fit; leaves weights in ``w``; False where no start holds."""
    tau2 = (MODEL_ERROR * rms) ** 2
    start2 = (START_ERROR * rms) ** 2
    for k in range(n):
        is2[k] = 1.0 / (v[k] + start2)
    best = math.inf
    # Smallest absolute residuals over the samples that are not dark.
    for k in range(n):
        dark = m[k] < max(3.0 * math.sqrt(v[k]), DARK * rms)
        r[k] = 0.0 if dark else ok[k]
        w[k] = r[k] * is2[k]
    for sweep in range(6):
        if not _weighted(n, w, m, lx, ly, lz, a, inverse, trial):
            break
        for k in range(n):
            e = (m[k] - _dot3(trial, lx, ly, lz, k)) * math.sqrt(is2[k])
            w[k] = r[k] * is2[k] / max(abs(e), 1.0)
        if sweep == 5 or sweep == 0:
            cost = _cost(n, trial, m, ok, is2, TRUNCATE, lx, ly, lz)
            if cost < best:
                best = cost
                b[:] = trial
    for t in range(triplets.shape[0]):
        i, j, k = triplets[t, 0], triplets[t, 1], triplets[t, 2]
        if r[i] * r[j] * r[k] == 0.0:
            continue
        cx = ly[j] * lz[k] - lz[j] * ly[k]
        cy = lz[j] * lx[k] - lx[j] * lz[k]
        cz = lx[j] * ly[k] - ly[j] * lx[k]
        det = lx[i] * cx + ly[i] * cy + lz[i] * cz
        if abs(det) < 0.02:
            continue
        s = 1.0 / det
        u0 = m[i] * s
        u1 = m[j] * s
        u2 = m[k] * s
        trial[0] = u0 * cx + u1 * (ly[k] * lz[i] - lz[k] * ly[i]) + u2 * (ly[i] * lz[j] - lz[i] * ly[j])
        trial[1] = u0 * cy + u1 * (lz[k] * lx[i] - lx[k] * lz[i]) + u2 * (lz[i] * lx[j] - lx[i] * lz[j])
        trial[2] = u0 * cz + u1 * (lx[k] * ly[i] - ly[k] * lx[i]) + u2 * (lx[i] * ly[j] - ly[i] * lx[j])
        cost = _cost(n, trial, m, ok, is2, TRUNCATE, lx, ly, lz)
        if cost < best:
            best = cost
            b[:] = trial
    if not math.isfinite(best):
        return False
    for k in range(n):
        is2[k] = 1.0 / (v[k] + tau2)
    f = 1.0
    for sweep in range(30):
        if sweep < 6:
            count = 0
            for k in range(n):
                p = _dot3(b, lx, ly, lz, k)
                if ok[k] > 0.0 and p > DARK * rms and m[k] > SHADOWED * p:
                    r[count] = abs(m[k] - p) * math.sqrt(is2[k])
                    count += 1
            f = 1.0
            if count > 3:
                f = max(1.0, MAD_TO_SIGMA * _median(r, count))
        cut = 1.0 / (BIWEIGHT * f)
        for k in range(n):
            p = _dot3(b, lx, ly, lz, k)
            u = (m[k] - p) * math.sqrt(is2[k]) * cut
            g = max(1.0 - u * u, 0.0) if p > 0.0 else 0.0
            w[k] = ok[k] * g * g * is2[k]
        if not _weighted(n, w, m, lx, ly, lz, a, inverse, trial):
            return False
        change = abs(trial[0] - b[0]) + abs(trial[1] - b[1]) + abs(trial[2] - b[2])
        b[:] = trial
        if sweep >= 6 and change < 1e-6 * rms:
            break
    return True


@njit(cache=True, parallel=True)
def solve_pixels(
    radiance: Any,
    variance: Any,
    points: Any,
    lights: Any,
    order: Any,
    mask: Any,
    triplets: Any,
    robust: Any,
    normals: Any,
    albedo: Any,
    sigma: Any,
    used: Any,
    misfit: Any,
) -> Any:
    """Solve every pixel of ``mask``; rows in parallel, nothing of the size of the stack is made."""
    n, height, width, channels = radiance.shape
    per_pixel = points.shape[0] > 1
    for y in prange(height):
        scratch = np.empty((10, n))
        m, v, ok, lx, ly = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
        lz, fall, is2, w, r = scratch[5], scratch[6], scratch[7], scratch[8], scratch[9]
        a = np.empty(6)
        inverse = np.empty(6)
        b = np.empty(3)
        trial = np.empty(3)
        mc = np.empty(6)
        for x in range(width):
            if not mask[y, x]:
                continue
            px, py, pz = points[0, 0, 0], points[0, 0, 1], points[0, 0, 2]
            if per_pixel:
                px, py, pz = points[y, x, 0], points[y, x, 1], points[y, x, 2]
            count = _gather(
                radiance, variance, lights, order, px, py, pz, y, x, channels, m, v, ok, lx, ly, lz, fall, mc
            )
            if count < 3:
                continue
            rms = 0.0
            for k in range(n):
                rms += ok[k] * m[k] * m[k]
            rms = math.sqrt(rms / count)
            if not rms > 0.0:
                continue
            tau2 = (MODEL_ERROR * rms) ** 2
            if robust and count > 3:
                if not _robust(n, m, v, ok, lx, ly, lz, rms, triplets, is2, w, r, a, inverse, b, trial):
                    continue
            else:
                for k in range(n):
                    w[k] = ok[k] / (v[k] + tau2)
                if not _weighted(n, w, m, lx, ly, lz, a, inverse, b):
                    continue
            rho = math.sqrt(b[0] * b[0] + b[1] * b[1] + b[2] * b[2])
            if not (rho > 0.0 and b[0] * px + b[1] * py + b[2] * pz < 0.0):
                continue
            nx, ny, nz = b[0] / rho, b[1] / rho, b[2] / rho
            chi2 = 0.0
            lost = 0.0
            trusted = 0
            top = 0.0
            for k in range(n):
                top = max(top, w[k] * (v[k] + tau2))
            for k in range(n):
                e = m[k] - _dot3(b, lx, ly, lz, k)
                chi2 += w[k] * e * e
                lost += w[k] * (v[k] + tau2)
                if w[k] * (v[k] + tau2) > 0.1:
                    trusted += 1
            if robust and trusted < 4:
                continue
            reduced = chi2 / max(lost * (1.0 - 3.0 / trusted), 1e-3) if trusted > 3 else 0.0
            excess = max(0.0, reduced / (1.0 + 3.0 * math.sqrt(2.0 / max(trusted - 3, 1))) - 1.0)
            a[:] = 0.0
            for k in range(n):
                g = w[k] * w[k] * (v[k] + excess * (v[k] + tau2))
                a[0] += g * lx[k] * lx[k]
                a[1] += g * lx[k] * ly[k]
                a[2] += g * lx[k] * lz[k]
                a[3] += g * ly[k] * ly[k]
                a[4] += g * ly[k] * lz[k]
                a[5] += g * lz[k] * lz[k]
            # trace of T C T with C = inverse a inverse and T = 1 - n n': trace of C less its share along n.
            i = inverse
            trace = 0.0
            along = 0.0
            for row in range(3):
                if row == 0:
                    ux, uy, uz = i[0], i[1], i[2]
                elif row == 1:
                    ux, uy, uz = i[1], i[3], i[4]
                else:
                    ux, uy, uz = i[2], i[4], i[5]
                trace += (
                    a[0] * ux * ux
                    + a[3] * uy * uy
                    + a[5] * uz * uz
                    + 2 * (a[1] * ux * uy + a[2] * ux * uz + a[4] * uy * uz)
                )
            ux = i[0] * nx + i[1] * ny + i[2] * nz
            uy = i[1] * nx + i[3] * ny + i[4] * nz
            uz = i[2] * nx + i[4] * ny + i[5] * nz
            along = (
                a[0] * ux * ux
                + a[3] * uy * uy
                + a[5] * uz * uz
                + 2 * (a[1] * ux * uy + a[2] * ux * uz + a[4] * uy * uz)
            )
            sigma[y, x] = math.degrees(math.sqrt(max(trace - along, 0.0)) / rho)
            normals[y, x, 0] = nx
            normals[y, x, 1] = ny
            normals[y, x, 2] = nz
            used[y, x] = trusted
            misfit[y, x] = reduced
            for c in range(channels):
                top = 0.0
                bottom = 0.0
                for k in range(n):
                    if w[k] > 0.0:
                        shading = nx * lx[k] + ny * ly[k] + nz * lz[k]
                        g = w[k] * shading
                        top += g * radiance[order[k], y, x, c] / (fall[k] * lights[k, INTENSITY + c])
                        bottom += g * shading
                albedo[y, x, c] = top / bottom if bottom > 0.0 else math.nan
