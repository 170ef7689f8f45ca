"""Photometric stereo under a mixture of reflectances, compiled: every pixel of an image."""

import math
from typing import Any

import numpy as np
from numba import njit, prange

from calibration.photometric.kernels.descent import Problem, descend, equations, room, settle
from calibration.photometric.kernels.samples import (
    COMPILE,
    FALL,
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
    V,
    W,
    aim,
    usable,
)
from calibration.photometric.kernels.solver import TRUSTED

# Error of the bank and of the lights, of a channel's rms sample.
BANK_ERROR = 0.03
# Loss per light (0 to 1) below which a start needs no rivals; part of the best loss that a rival must beat.
_GOOD = 0.1
_BETTER = 0.9
# Loss that a normal turned away from the camera is charged with.
_AWAY = 10.0
_LEAST_SAMPLES = 4
# Powers of the samples that weigh the half vectors of two more starts.
_POWERS = (2.0, 5.0)
# Columns of what a pixel tells: loss, squared angle (rad) by which noise turns the normal, mean square of the
# trusted residuals over the squared rms sample, what noise alone would make of it, and the squared angle that
# an independent error of one rms in every sample would cause.
LOSS, NOISE, MISFIT, CHANCE, LEVER, TOLD = range(6)


@njit(**INNER)
def _gather(
    radiance: Any, variance: Any, lights: Any, order: Any, y: Any, x: Any, work: Any, m: Any, noise: Any,
    rms: Any, gain: Any,
) -> Any:  # fmt: skip
    """Samples of every channel in units of its rms, their variances; returns how many are usable.

    A channel counts by its mean variance, that of the bank's error included: a dark one says little.
    """
    channels, n = m.shape
    ok, fall = work[OK], work[FALL]
    count = usable(radiance, variance, order, y, x, work)
    if count < _LEAST_SAMPLES:
        return count
    total = 0.0
    for c in range(channels):
        square = mean = 0.0
        for k in range(n):
            m[c, k] = 0.0
            noise[c, k] = 0.0
            if ok[k] > 0.0:
                scale = 1.0 / (fall[k] * lights[k, INTENSITY + c])
                m[c, k] = radiance[order[k], y, x, c] * scale
                noise[c, k] = max(variance[order[k], y, x, c], 0.0) * scale * scale
                square += m[c, k] * m[c, k]
                mean += noise[c, k]
        if not square > 0.0:
            square = count
        rms[c] = math.sqrt(square / count)
        for k in range(n):
            m[c, k] /= rms[c]
            noise[c, k] /= rms[c] * rms[c]
        gain[c] = 1.0 / (BANK_ERROR * BANK_ERROR + mean / (count * rms[c] * rms[c]))
        total += gain[c]
    for c in range(channels):
        gain[c] *= channels / total
    for k in range(n):
        work[V, k] = BANK_ERROR * BANK_ERROR
        for c in range(channels):
            work[V, k] += gain[c] * noise[c, k] / channels
    return count


@njit(**INNER)
def _halve(sight: Any, work: Any) -> None:
    for k in range(work.shape[1]):
        x, y, z = work[LX, k] + sight[0], work[LY, k] + sight[1], work[LZ, k] + sight[2]
        scale = 1.0 / math.sqrt(x * x + y * y + z * z + 1e-300)
        work[HX, k], work[HY, k], work[HZ, k] = x * scale, y * scale, z * scale


@njit(**INNER)
def _centroid(m: Any, work: Any, power: Any, n: Any) -> Any:
    """Half vectors weighed by a power of the samples: where a lobe points. False where nothing is bright."""
    n[0] = n[1] = n[2] = 0.0
    for k in range(work.shape[1]):
        total = 0.0
        for c in range(len(m)):
            total += m[c, k]
        weight = work[OK, k] * max(total, 0.0) ** power
        n[0] += weight * work[HX, k]
        n[1] += weight * work[HY, k]
        n[2] += weight * work[HZ, k]
    size = math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
    if not size > 0.0:
        return False
    for i in range(3):
        n[i] /= size
    return True


@njit(**INNER)
def _tell(p: Any, s: Any, t: Any, noise: Any, told: Any) -> None:
    """Fill in what the solution's neighbourhood says of its error.

    The squared angle is the sandwich H^-1 G H^-1 of the noise with the shares in use projected out.
    """
    uu, uv, vv, _, _ = equations(p, s, t)
    det = uu * vv - uv * uv
    if not det > 1e-9 * (uu + vv) * (uu + vv):
        return
    angle = misfit = chance = lever = weight = 0.0
    for c in range(len(p.m)):
        for k in range(p.m.shape[1]):
            w = p.gain[c] * p.work[W, k]
            ju, jv, r = s.ju[c, k], s.jv[c, k], p.m[c, k] - s.fit[c, k]
            xu, xv = w * (vv * ju - uv * jv) / det, w * (uu * jv - uv * ju) / det
            angle += noise[c, k] * (xu * xu + xv * xv)
            lever += xu * xu + xv * xv
            misfit += w * r * r
            chance += w * noise[c, k]
            weight += w
    told[NOISE] = angle
    told[LEVER] = lever
    told[MISFIT] = misfit / max(weight, 1e-300)
    told[CHANCE] = chance / max(weight, 1e-300)


@njit(**INNER)
def _row(
    y: Any,
    radiance: Any, variance: Any, points: Any, lights: Any, order: Any, mask: Any, starts: Any,
    kinds: Any, widths: Any, precision: Any, body: Any,
    normals: Any, albedo: Any, told: Any, used: Any, shares: Any,
) -> None:  # fmt: skip
    width = mask.shape[1]
    n, channels = lights.shape[0], radiance.shape[3]
    size = len(kinds)
    per_pixel = points.shape[0] > 1
    work = np.zeros((ROWS, n))
    m, noise = np.zeros((channels, n)), np.zeros((channels, n))
    rms, gain = np.zeros(channels), np.zeros(channels)
    sight, best_n, best_w = np.zeros(3), np.zeros(3), np.zeros(n)
    s, t = room(channels, n, size)
    p = Problem(m, gain, work, sight, kinds, widths, precision)
    if not per_pixel:
        aim(lights, points[0, 0, 0], points[0, 0, 1], points[0, 0, 2], work)
    for x in range(width):
        if not mask[y, x]:
            continue
        i, j = (y, x) if per_pixel else (0, 0)
        ax, ay, az = points[i, j, 0], points[i, j, 1], points[i, j, 2]
        if per_pixel:
            aim(lights, ax, ay, az, work)
        if _gather(radiance, variance, lights, order, y, x, work, m, noise, rms, gain) < _LEAST_SAMPLES:
            continue
        back = -1.0 / math.sqrt(ax * ax + ay * ay + az * az)
        sight[0], sight[1], sight[2] = ax * back, ay * back, az * back
        _halve(sight, work)
        best = math.inf
        for start in range(len(starts) + 2):
            if start < len(starts):
                for c in range(3):
                    s.n[c] = starts[start, y, x, c]
                there = math.isfinite(s.n[0])
            else:
                there = _centroid(m, work, _POWERS[start - len(starts)], s.n)
            if not there:
                continue
            loss = descend(p, s, t)
            if not s.n[0] * sight[0] + s.n[1] * sight[1] + s.n[2] * sight[2] > 0.0:
                loss += _AWAY
            if loss < best * _BETTER:
                best = loss
                for c in range(3):
                    best_n[c] = s.n[c]
                for k in range(n):
                    best_w[k] = work[W, k]
            if best < _GOOD:
                break
        if not best < _AWAY:
            continue
        for c in range(3):
            s.n[c] = best_n[c]
            normals[y, x, c] = best_n[c]
        for k in range(n):
            work[W, k] = best_w[k]
        settle(p, s, t)
        told[y, x, LOSS] = best
        _tell(p, s, t, noise, told[y, x])
        top = 0.0
        for k in range(n):
            top = max(top, work[W, k] * work[V, k])
        for k in range(n):
            used[y, x] += 1 if work[W, k] * work[V, k] > TRUSTED * top else 0
        for c in range(channels):
            total = 0.0
            for q in range(size):
                total += s.share[c, q] * body[q]
                if len(shares) > 0:
                    shares[y, x, c, q] = s.share[c, q] * rms[c]
            albedo[y, x, c] = total * rms[c]


@njit(parallel=True, **COMPILE)
def mix_pixels(
    radiance: Any, variance: Any, points: Any, lights: Any, order: Any, mask: Any, starts: Any,
    kinds: Any, widths: Any, precision: Any, body: Any,
    normals: Any, albedo: Any, told: Any, used: Any, shares: Any,
) -> None:  # fmt: skip
    """Solve every pixel of ``mask`` under a mixture, rows in parallel.

    Parameters
    ----------
    radiance, variance : ndarray (n, h, w, c), float32
    points : ndarray (h, w, 3) or (1, 1, 3), float32, mm
    lights : ndarray (n, COLUMNS), float64
        Row k belongs to image ``order[k]``.
    order : ndarray (n,), int64
    mask : ndarray (h, w), bool
    starts : ndarray (s, h, w, 3), float32
        Normals to start from; NaN ones are left out.
    kinds, widths, precision : ndarray (k,), int64; (k,), float64; (k, k), float64
        The bank, and the inverse of the second moment of shares.
    body : ndarray (k,), float64
        Albedo of a share of one.
    normals, albedo, told, used : ndarray (h, w, ...)
        Written where a pixel could be solved; columns of ``told`` as LOSS ... LEVER.
    shares : ndarray (h, w, c, k), float32
        In units of radiance over irradiance; left alone if its height is 0.
    """
    for y in prange(mask.shape[0]):
        _row(
            np.int64(y), radiance, variance, points, lights, order, mask, starts,
            kinds, widths, precision, body, normals, albedo, told, used, shares,
        )  # fmt: skip
