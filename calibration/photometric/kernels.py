"""Per-pixel photometric stereo, compiled; the tests hold the numpy reference.

Everything of one pixel is in units of albedo: the sample of light k is m = b . l + gloss, b = albedo *
normal.
"""

import math
from typing import Any

import numpy as np
from numba import njit, prange

_FAST = {"contract", "reassoc", "nsz", "arcp"}
_COMPILE: dict[str, Any] = {"cache": True, "error_model": "numpy", "fastmath": _FAST}

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
_M, _V, _OK, _LX, _LY, _LZ, _HX, _HY, _HZ, _FALL, _GLOSS, _TRUST, _W, _R, _ROWS = range(15)

# Errors of the Lambertian model and of the lights, of the pixel's rms signal: allowed for, and while
# searching.
MODEL_ERROR = 0.01
_SEARCH_ERROR = 0.03
# A sample below this part of the rms signal does not vote while searching; below that part of its prediction
# it is a shadow and says nothing about the scatter of the lit ones.
_DARK = 0.1
_SHADOWED = 0.5
# Squared residual at which a guess loses a sample, in sigmas.
_TRUNCATE = 9.0
_MAD_TO_SIGMA = 1.4826
# Tukey's constant: 95 % efficiency on Gaussian noise.
BIWEIGHT = 4.685
# Part of the predicted gloss that may be wrong.
_GLOSS_ERROR = 0.3
_SWEEPS = 40
_CONVERGED = 1e-5
# A strength other than the object's own must lower the logarithm of a pixel's cost by this over its samples.
_SWITCH = 2.0
_FLOOR_COST = 1e-3
# Mean cost of a sample below which the likeliest strength needs no rivals.
_GOOD = 0.15
_SCALE_SWEEPS = 6
TRUSTED = 0.1


@njit(**_COMPILE)
def _invert(a: Any, out: Any) -> Any:
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


@njit(**_COMPILE)
def _outer(weights: Any, work: Any, a: Any) -> Any:
    """``a`` = sum of weight times the outer product of the light's direction."""
    lx, ly, lz = work[_LX], work[_LY], work[_LZ]
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


@njit(**_COMPILE)
def _weighted(work: Any, a: Any, inverse: Any, b: Any) -> Any:
    """Weighted least squares of m - gloss = b . l; leaves the inverse normal matrix in ``inverse``."""
    w, m, gloss, lx, ly, lz = work[_W], work[_M], work[_GLOSS], work[_LX], work[_LY], work[_LZ]
    _outer(w, work, a)
    if not _invert(a, inverse):
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


@njit(**_COMPILE)
def _median(values: Any, count: Any) -> Any:
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


@njit(**_COMPILE)
def _aim(lights: Any, px: Any, py: Any, pz: Any, work: Any) -> Any:
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
        work[_LX, k], work[_LY, k], work[_LZ, k], work[_FALL, k] = dx, dy, dz, e


@njit(**_COMPILE)
def _gather(
    radiance: Any, variance: Any, lights: Any, order: Any, y: Any, x: Any, work: Any, mix: Any, noise: Any
) -> Any:
    """Samples of one pixel in units of albedo, channels mixed into one; returns how many are usable."""
    n, channels = lights.shape[0], radiance.shape[3]
    ok, fall = work[_OK], work[_FALL]
    for c in range(channels):
        mix[c] = 0.0
        noise[c] = 0.0
    count = 0
    for k in range(n):
        good = fall[k] > 0.0
        for c in range(channels):
            good &= math.isfinite(radiance[order[k], y, x, c]) and math.isfinite(variance[order[k], y, x, c])
        ok[k] = 1.0 if good else 0.0
        if good:
            count += 1
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
        work[_M, k] = 0.0
        work[_V, k] = 1.0
        if ok[k] > 0.0:
            s = t = 0.0
            for c in range(channels):
                scale = mix[c] / (fall[k] * lights[k, INTENSITY + c])
                s += radiance[order[k], y, x, c] * scale
                t += max(variance[order[k], y, x, c], 0.0) * scale * scale
            work[_M, k] = s
            work[_V, k] = t
    return count


@njit(**_COMPILE)
def _cost(b: Any, work: Any) -> Any:
    """Truncated squares of the residuals of a guess, shadows counted as the model has them."""
    m, ok, trust, gloss = work[_M], work[_OK], work[_TRUST], work[_GLOSS]
    lx, ly, lz = work[_LX], work[_LY], work[_LZ]
    total = 0.0
    for k in range(len(m)):
        r = m[k] - gloss[k] - max(b[0] * lx[k] + b[1] * ly[k] + b[2] * lz[k], 0.0)
        total += ok[k] * min(r * r * trust[k], _TRUNCATE)
    return total


@njit(**_COMPILE)
def _start(rms: Any, triplets: Any, work: Any, a: Any, inverse: Any, b: Any, trial: Any) -> Any:
    """The best of smallest absolute residuals and of the triplets of lights; False where there is none."""
    m, v, ok, trust, w, lit = work[_M], work[_V], work[_OK], work[_TRUST], work[_W], work[_R]
    lx, ly, lz = work[_LX], work[_LY], work[_LZ]
    n = len(m)
    for k in range(n):
        trust[k] = 1.0 / (v[k] + (_SEARCH_ERROR * rms) ** 2)
        work[_GLOSS, k] = 0.0
        lit[k] = 0.0 if m[k] < max(3.0 * math.sqrt(v[k]), _DARK * rms) else ok[k]
        w[k] = lit[k] * trust[k]
    best = math.inf
    for sweep in range(6):
        if not _weighted(work, a, inverse, trial):
            break
        for k in range(n):
            e = (m[k] - trial[0] * lx[k] - trial[1] * ly[k] - trial[2] * lz[k]) * math.sqrt(trust[k])
            w[k] = lit[k] * trust[k] / max(abs(e), 1.0)
        if sweep == 0 or sweep == 5:
            cost = _cost(trial, work)
            if cost < best:
                best = cost
                b[:] = trial
    for t in range(triplets.shape[0]):
        i, j, k = triplets[t, 0], triplets[t, 1], triplets[t, 2]
        if lit[i] * lit[j] * lit[k] == 0.0:
            continue
        cx = ly[j] * lz[k] - lz[j] * ly[k]
        cy = lz[j] * lx[k] - lx[j] * lz[k]
        cz = lx[j] * ly[k] - ly[j] * lx[k]
        det = lx[i] * cx + ly[i] * cy + lz[i] * cz
        if abs(det) < 0.02:
            continue
        u, v1, v2 = m[i] / det, m[j] / det, m[k] / det
        trial[0] = u * cx + v1 * (ly[k] * lz[i] - lz[k] * ly[i]) + v2 * (ly[i] * lz[j] - lz[i] * ly[j])
        trial[1] = u * cy + v1 * (lz[k] * lx[i] - lx[k] * lz[i]) + v2 * (lz[i] * lx[j] - lx[i] * lz[j])
        trial[2] = u * cz + v1 * (lx[k] * ly[i] - ly[k] * lx[i]) + v2 * (lx[i] * ly[j] - ly[i] * lx[j])
        cost = _cost(trial, work)
        if cost < best:
            best = cost
            b[:] = trial
    return best < math.inf


@njit(**_COMPILE)
def _compromise(rms: Any, triplets: Any, work: Any, a: Any, inverse: Any, b: Any, trial: Any) -> Any:
    """Where no four samples agree: all lit ones by smallest absolute residuals; their disagreement shows in
    the error bar. False where there is no solution."""
    if not _start(rms, triplets, work, a, inverse, b, trial):
        return False
    m, trust, w, lit = work[_M], work[_TRUST], work[_W], work[_R]
    for k in range(len(m)):
        e = m[k] - b[0] * work[_LX, k] - b[1] * work[_LY, k] - b[2] * work[_LZ, k]
        w[k] = lit[k] * trust[k] / max(abs(e) * math.sqrt(trust[k]), 1.0)
    return _weighted(work, a, inverse, b)


@njit(**_COMPILE)
def _shine(b: Any, sight: Any, gloss: Any, work: Any) -> Any:
    """GGX reflection of every light, in units of albedo, for the normal along ``b``."""
    lx, ly, lz, hx, hy, hz = work[_LX], work[_LY], work[_LZ], work[_HX], work[_HY], work[_HZ]
    scale = 1.0 / max(math.sqrt(b[0] * b[0] + b[1] * b[1] + b[2] * b[2]), 1e-300)
    nx, ny, nz = b[0] * scale, b[1] * scale, b[2] * scale
    alpha2 = gloss[0] * gloss[0]
    nv = max(nx * sight[0] + ny * sight[1] + nz * sight[2], 1e-3)
    shade_v = math.sqrt(alpha2 + (1.0 - alpha2) * nv * nv)
    front = 0.5 * gloss[1] * alpha2
    for k in range(len(lx)):
        nl = max(nx * lx[k] + ny * ly[k] + nz * lz[k], 0.0)
        nh = nx * hx[k] + ny * hy[k] + nz * hz[k]
        d = nh * nh * (alpha2 - 1.0) + 1.0
        shade_l = math.sqrt(alpha2 + (1.0 - alpha2) * nl * nl)
        work[_GLOSS, k] = front * nl / (d * d * (nl * shade_v + nv * shade_l) + 1e-300)


@njit(**_COMPILE)
def _refine(rms: Any, sight: Any, gloss: Any, work: Any, a: Any, inverse: Any, b: Any, trial: Any) -> Any:
    """Tukey's biweight from a start; leaves the weights in the workspace; False where they leave no
    normal."""
    m, v, ok, shine = work[_M], work[_V], work[_OK], work[_GLOSS]
    trust, w, r = work[_TRUST], work[_W], work[_R]
    lx, ly, lz = work[_LX], work[_LY], work[_LZ]
    n = len(m)
    glossy = gloss[1] > 0.0
    wide = 1.0
    for sweep in range(_SWEEPS):
        if glossy:
            _shine(b, sight, gloss, work)
        for k in range(n):
            trust[k] = 1.0 / (v[k] + (MODEL_ERROR * rms) ** 2 + (_GLOSS_ERROR * shine[k]) ** 2)
        if sweep < _SCALE_SWEEPS:
            count = 0
            for k in range(n):
                p = b[0] * lx[k] + b[1] * ly[k] + b[2] * lz[k]
                if ok[k] > 0.0 and p > _DARK * rms and m[k] > _SHADOWED * p:
                    r[count] = abs(m[k] - shine[k] - p) * math.sqrt(trust[k])
                    count += 1
            wide = max(1.0, _MAD_TO_SIGMA * _median(r, count)) if count > 3 else 1.0
        cut = 1.0 / (BIWEIGHT * wide)
        for k in range(n):
            p = b[0] * lx[k] + b[1] * ly[k] + b[2] * lz[k]
            u = (m[k] - shine[k] - p) * math.sqrt(trust[k]) * cut
            g = max(1.0 - u * u, 0.0) if p > 0.0 else 0.0
            w[k] = ok[k] * g * g * trust[k]
        if not _weighted(work, a, inverse, trial):
            return False
        change = abs(trial[0] - b[0]) + abs(trial[1] - b[1]) + abs(trial[2] - b[2])
        b[:] = trial
        if sweep >= _SCALE_SWEEPS and change < _CONVERGED * rms:
            break
    return True


@njit(**_COMPILE)
def _spread(work: Any, a: Any, inverse: Any, n: Any) -> Any:
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


@njit(**_COMPILE)
def _judge(rms: Any, b: Any, work: Any) -> Any:
    """Truncated cost of a solution on the scale on which solutions are compared."""
    for k in range(work.shape[1]):
        work[_TRUST, k] = 1.0 / (work[_V, k] + (_SEARCH_ERROR * rms) ** 2)
    return _cost(b, work)


@njit(**_COMPILE)
def _best_gloss(
    rms: Any, sight: Any, roughness: Any, strengths: Any, work: Any, a: Any, inverse: Any, b: Any, trial: Any
) -> Any:
    """Refine a start under each strength, the first being the likeliest, and keep the one that explains most.

    Returns its index, -1 where none holds.
    """
    start = b.copy()
    gloss = np.array([roughness, 0.0])
    chosen, latest, least = -1, -1, math.inf
    if strengths.max() > 0.0:
        for k in range(work.shape[1]):
            x, y, z = work[_LX, k] + sight[0], work[_LY, k] + sight[1], work[_LZ, k] + sight[2]
            scale = 1.0 / math.sqrt(x * x + y * y + z * z + 1e-300)
            work[_HX, k], work[_HY, k], work[_HZ, k] = x * scale, y * scale, z * scale
    for t in range(len(strengths)):
        gloss[1] = strengths[t]
        b[:] = start
        if not _refine(rms, sight, gloss, work, a, inverse, b, trial):
            continue
        latest = t
        cost = _judge(rms, b, work) / work.shape[1]
        if t == 0 and (len(strengths) == 1 or cost < _GOOD):
            return 0
        cost = work.shape[1] * math.log(cost + _FLOOR_COST) + (_SWITCH if t > 0 else 0.0)
        if cost < least:
            least, chosen = cost, t
    if chosen >= 0 and chosen != latest:
        gloss[1] = strengths[chosen]
        b[:] = start
        _refine(rms, sight, gloss, work, a, inverse, b, trial)
    return chosen


@njit(parallel=True, **_COMPILE)
def solve_pixels(
    radiance: Any, variance: Any, points: Any, lights: Any, order: Any, mask: Any, triplets: Any,
    roughness: Any, strengths: Any, robust: Any,
    normals: Any, albedo: Any, sigma_deg: Any, used: Any, strength: Any, misfit: Any, cost: Any,
) -> None:  # fmt: skip
    """Solve every pixel of ``mask``, rows in parallel; nothing of the size of the stack is made.

    Parameters
    ----------
    radiance, variance : ndarray (n, h, w, c), float32
    points : ndarray (h, w, 3) or (1, 1, 3), float32, mm
    lights : ndarray (n, COLUMNS), float64
        Row k belongs to image ``order[k]``.
    order : ndarray (n,), int64
    mask : ndarray (h, w), bool
    triplets : ndarray (t, 3), int64
        Rows of ``lights``.
    roughness : float
        Of the GGX lobe.
    strengths : ndarray (s,), float64
        Each pixel takes the one that explains it best; 0 is no lobe.
    robust : bool
    normals, albedo, sigma_deg, used, strength, misfit, cost : ndarray
        Written where a pixel could be solved. ``misfit`` is the reduced chi square of the trusted samples,
        ``cost`` the truncated one of all.
    """
    height, width = mask.shape
    n, channels = lights.shape[0], radiance.shape[3]
    per_pixel = points.shape[0] > 1
    for y in prange(height):
        work = np.empty((_ROWS, n))
        m, v, ok, w, fall, shine = work[_M], work[_V], work[_OK], work[_W], work[_FALL], work[_GLOSS]
        lx, ly, lz = work[_LX], work[_LY], work[_LZ]
        a, inverse = np.empty(6), np.empty(6)
        b, trial, sight, mix, noise = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
        if not per_pixel:
            _aim(lights, points[0, 0, 0], points[0, 0, 1], points[0, 0, 2], work)
        for x in range(width):
            if not mask[y, x]:
                continue
            at = points[y, x] if per_pixel else points[0, 0]
            if per_pixel:
                _aim(lights, at[0], at[1], at[2], work)
            count = _gather(radiance, variance, lights, order, y, x, work, mix, noise)
            rms = 0.0
            for k in range(n):
                rms += ok[k] * m[k] * m[k]
                shine[k] = 0.0
            if count < 3 or not rms > 0.0:
                continue
            rms = math.sqrt(rms / count)
            back = -1.0 / math.sqrt(at[0] * at[0] + at[1] * at[1] + at[2] * at[2])
            for c in range(3):
                sight[c] = at[c] * back
            agreed = True
            if robust and count > 3:
                if not _start(rms, triplets, work, a, inverse, b, trial):
                    continue
                t = _best_gloss(rms, sight, roughness, strengths, work, a, inverse, b, trial)
                agreed = t >= 0
                strength[y, x] = strengths[max(t, 0)]
            else:
                # All alike: weights by variance would favour the shadows, where the model fails.
                least = math.inf
                for k in range(n):
                    if ok[k] > 0.0:
                        least = min(least, v[k] + (MODEL_ERROR * rms) ** 2)
                for k in range(n):
                    w[k] = ok[k] / least
                if not _weighted(work, a, inverse, b):
                    continue

            chi2 = lost = 0.0
            trusted = 0
            for _ in range(2):
                if not agreed:
                    if not _compromise(rms, triplets, work, a, inverse, b, trial):
                        break
                    strength[y, x] = 0.0
                chi2 = lost = 0.0
                trusted = 0
                for k in range(n):
                    allowed = v[k] + (MODEL_ERROR * rms) ** 2 + (_GLOSS_ERROR * shine[k]) ** 2
                    e = m[k] - shine[k] - b[0] * lx[k] - b[1] * ly[k] - b[2] * lz[k]
                    chi2 += w[k] * e * e
                    lost += w[k] * allowed
                    trusted += 1 if w[k] * allowed > (TRUSTED if agreed else 0.0) else 0
                if not robust or count <= 3 or trusted >= 4 or not agreed:
                    break
                agreed = False
            if trusted < (4 if robust and count > 3 else 1):
                continue
            rho = math.sqrt(b[0] * b[0] + b[1] * b[1] + b[2] * b[2])
            if not (rho > 0.0 and b[0] * sight[0] + b[1] * sight[1] + b[2] * sight[2] > 0.0):
                continue
            free = max(trusted - 3, 1)
            reduced = chi2 / max(lost * free / trusted, 1e-6)
            # Only scatter that chance does not explain (3 sigma of its chi square) raises the error bar.
            excess = max(0.0, reduced / (1.0 + 3.0 * math.sqrt(2.0 / free)) - 1.0) if trusted > 3 else 0.0
            for k in range(n):
                allowed = v[k] + (MODEL_ERROR * rms) ** 2 + (_GLOSS_ERROR * shine[k]) ** 2
                work[_R, k] = w[k] * w[k] * (v[k] + excess * allowed)
            _outer(work[_R], work, a)
            for c in range(3):
                trial[c] = b[c] / rho
                normals[y, x, c] = trial[c]
            sigma_deg[y, x] = math.degrees(math.sqrt(_spread(work, a, inverse, trial)) / rho)
            used[y, x] = trusted
            misfit[y, x] = reduced if trusted > 3 else math.nan
            cost[y, x] = _judge(rms, b, work) / count
            for c in range(channels):
                top = bottom = 0.0
                for k in range(n):
                    if w[k] > 0.0:
                        shading = trial[0] * lx[k] + trial[1] * ly[k] + trial[2] * lz[k]
                        value = radiance[order[k], y, x, c] / (fall[k] * lights[k, INTENSITY + c]) - shine[k]
                        top += w[k] * shading * value
                        bottom += w[k] * shading * shading
                albedo[y, x, c] = top / bottom
