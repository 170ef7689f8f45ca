"""Per-pixel photometric stereo, compiled; the tests hold the numpy reference."""

import math
from typing import Any

import numpy as np
from numba import njit, prange

from calibration.photometric.kernels.lights import slope, turned
from calibration.photometric.kernels.samples import (
    COMPILE,
    FALL,
    GLOSS,
    HX,
    HY,
    HZ,
    INNER,
    INTENSITY,
    LX,
    LY,
    LZ,
    OK,
    ROWS,
    TRUST,
    M,
    R,
    V,
    W,
    aim,
    gather,
    median,
    outer,
    spread,
    weighted,
)

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


@njit(**INNER)
def _cost(b: Any, work: Any) -> Any:
    """Truncated squares of the residuals of a guess, shadows counted as the model has them."""
    m, ok, trust, gloss = work[M], work[OK], work[TRUST], work[GLOSS]
    lx, ly, lz = work[LX], work[LY], work[LZ]
    total = 0.0
    for k in range(len(m)):
        r = m[k] - gloss[k] - max(b[0] * lx[k] + b[1] * ly[k] + b[2] * lz[k], 0.0)
        total += ok[k] * min(r * r * trust[k], _TRUNCATE)
    return total


@njit(**INNER)
def _start(rms: Any, triplets: Any, work: Any, a: Any, inverse: Any, b: Any, trial: Any) -> Any:
    """The best of smallest absolute residuals and of the triplets of lights; False where there is none."""
    m, v, ok, trust, w, lit = work[M], work[V], work[OK], work[TRUST], work[W], work[R]
    lx, ly, lz = work[LX], work[LY], work[LZ]
    n = len(m)
    for k in range(n):
        trust[k] = 1.0 / (v[k] + (_SEARCH_ERROR * rms) ** 2)
        work[GLOSS, k] = 0.0
        lit[k] = 0.0 if m[k] < max(3.0 * math.sqrt(v[k]), _DARK * rms) else ok[k]
        w[k] = lit[k] * trust[k]
    best = math.inf
    for sweep in range(6):
        if not weighted(work, a, inverse, trial):
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


@njit(**INNER)
def _compromise(rms: Any, triplets: Any, work: Any, a: Any, inverse: Any, b: Any, trial: Any) -> Any:
    """Where no four samples agree: all lit ones by smallest absolute residuals; their disagreement shows in
    the error bar. False where there is no solution."""
    if not _start(rms, triplets, work, a, inverse, b, trial):
        return False
    m, trust, w, lit = work[M], work[TRUST], work[W], work[R]
    for k in range(len(m)):
        e = m[k] - b[0] * work[LX, k] - b[1] * work[LY, k] - b[2] * work[LZ, k]
        w[k] = lit[k] * trust[k] / max(abs(e) * math.sqrt(trust[k]), 1.0)
    return weighted(work, a, inverse, b)


@njit(**INNER)
def _shine(b: Any, sight: Any, gloss: Any, work: Any) -> Any:
    """GGX reflection of every light, in units of albedo, for the normal along ``b``."""
    lx, ly, lz, hx, hy, hz = work[LX], work[LY], work[LZ], work[HX], work[HY], work[HZ]
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
        work[GLOSS, k] = front * nl / (d * d * (nl * shade_v + nv * shade_l) + 1e-300)


@njit(**INNER)
def _refine(rms: Any, sight: Any, gloss: Any, work: Any, a: Any, inverse: Any, b: Any, trial: Any) -> Any:
    """Tukey's biweight from a start; leaves the weights in the workspace; False where they leave no
    normal."""
    m, v, ok, shine = work[M], work[V], work[OK], work[GLOSS]
    trust, w, r = work[TRUST], work[W], work[R]
    lx, ly, lz = work[LX], work[LY], work[LZ]
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
            wide = max(1.0, _MAD_TO_SIGMA * median(r, count)) if count > 3 else 1.0
        cut = 1.0 / (BIWEIGHT * wide)
        for k in range(n):
            p = b[0] * lx[k] + b[1] * ly[k] + b[2] * lz[k]
            u = (m[k] - shine[k] - p) * math.sqrt(trust[k]) * cut
            g = max(1.0 - u * u, 0.0) if p > 0.0 else 0.0
            w[k] = ok[k] * g * g * trust[k]
        if not weighted(work, a, inverse, trial):
            return False
        change = abs(trial[0] - b[0]) + abs(trial[1] - b[1]) + abs(trial[2] - b[2])
        b[:] = trial
        if sweep >= _SCALE_SWEEPS and change < _CONVERGED * rms:
            break
    return True


@njit(**INNER)
def _judge(rms: Any, b: Any, work: Any) -> Any:
    """Truncated cost of a solution on the scale on which solutions are compared."""
    for k in range(work.shape[1]):
        work[TRUST, k] = 1.0 / (work[V, k] + (_SEARCH_ERROR * rms) ** 2)
    return _cost(b, work)


@njit(**INNER)
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
            x, y, z = work[LX, k] + sight[0], work[LY, k] + sight[1], work[LZ, k] + sight[2]
            scale = 1.0 / math.sqrt(x * x + y * y + z * z + 1e-300)
            work[HX, k], work[HY, k], work[HZ, k] = x * scale, y * scale, z * scale
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


@njit(parallel=True, **COMPILE)
def solve_pixels(
    radiance: Any, variance: Any, points: Any, lights: Any, order: Any, mask: Any, triplets: Any,
    errors: Any, middle: Any, roughness: Any, strengths: Any, robust: Any,
    normals: Any, albedo: Any, sigma_deg: Any, by_lights_deg: Any, used: Any, strength: Any, misfit: Any,
    cost: Any,
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
    errors : ndarray (n, ERRORS) or (0, ERRORS), float64
        Of ``lights``; none where nothing is known of them.
    middle : ndarray (3,), float64, mm
        Of the object: there the irradiance of near lights is known.
    roughness : float
        Of the GGX lobe.
    strengths : ndarray (s,), float64
        Each pixel takes the one that explains it best; 0 is no lobe.
    robust : bool
    normals, albedo, sigma_deg, by_lights_deg, used, strength, misfit, cost : ndarray
        Written where a pixel could be solved. ``misfit`` is the reduced chi square of the trusted samples,
        ``cost`` the truncated one of all.
    """
    height, width = mask.shape
    n, channels = lights.shape[0], radiance.shape[3]
    per_pixel = points.shape[0] > 1
    slopes = np.zeros((n, 3))
    for k in range(len(errors)):
        slope(lights[k], middle[0], middle[1], middle[2], slopes[k])
    for y in prange(height):
        work = np.empty((ROWS, n))
        m, v, ok, w, fall, shine = work[M], work[V], work[OK], work[W], work[FALL], work[GLOSS]
        lx, ly, lz = work[LX], work[LY], work[LZ]
        a, inverse = np.empty(6), np.empty(6)
        b, trial, sight, mix, noise = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
        scratch = np.empty(3)
        if not per_pixel:
            aim(lights, points[0, 0, 0], points[0, 0, 1], points[0, 0, 2], work)
        for x in range(width):
            if not mask[y, x]:
                continue
            at = points[y, x] if per_pixel else points[0, 0]
            if per_pixel:
                aim(lights, at[0], at[1], at[2], work)
            count = gather(radiance, variance, lights, order, y, x, work, mix, noise)
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
                if not weighted(work, a, inverse, b):
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
                work[R, k] = w[k] * w[k] * (v[k] + excess * allowed)
            outer(work[R], work, a)
            for c in range(3):
                trial[c] = b[c] / rho
                normals[y, x, c] = trial[c]
            sigma_deg[y, x] = math.degrees(math.sqrt(spread(work, a, inverse, trial)) / rho)
            if len(errors) > 0:
                square = turned(lights, errors, at, slopes, work, inverse, b, trial, scratch)
                by_lights_deg[y, x] = math.degrees(math.sqrt(square) / rho)
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
