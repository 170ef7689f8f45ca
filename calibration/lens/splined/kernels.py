"""The splined field and its inverse, compiled.

A field is ``knots`` (ny, nx, 2) on a square grid: knot [j, i] stands at u = ``corner`` + ``spacing`` (i, j).
"""

from typing import Any

import numpy as np
from numba import njit

_STEPS = 60
_BEYOND = 0.25  # spacings by which the inverse may stray from the field on its way


@njit(cache=True)
def _weights(t: Any, w: Any, d: Any) -> None:
    """Cubic B-spline weights of four knots at t from the second, and their derivatives."""
    s = 1.0 - t
    w[0] = s * s * s / 6.0
    w[1] = (4.0 - 3.0 * t * t * (2.0 - t)) / 6.0
    w[2] = (4.0 - 3.0 * s * s * (2.0 - s)) / 6.0
    w[3] = t * t * t / 6.0
    d[0] = -0.5 * s * s
    d[1] = 0.5 * t * (3.0 * t - 4.0)
    d[2] = 0.5 * s * (4.0 - 3.0 * s)
    d[3] = 0.5 * t * t


@njit(cache=True)
def _field(u: Any, v: Any, knots: Any, corner: Any, spacing: Any, scratch: Any, out: Any) -> Any:
    """Displaced place and its derivatives in out: x, y, xx, xy, yx, yy; first knot's column and row.

    Beyond the field the polynomials of its rim go on.
    """
    gx, gy = (u - corner[0]) / spacing, (v - corner[1]) / spacing
    i = min(max(int(np.floor(gx)), 1), knots.shape[1] - 3) - 1
    j = min(max(int(np.floor(gy)), 1), knots.shape[0] - 3) - 1
    wx, dx, wy, dy = scratch[0], scratch[1], scratch[2], scratch[3]
    _weights(gx - i - 1, wx, dx)
    _weights(gy - j - 1, wy, dy)
    out[0], out[1], out[2], out[3], out[4], out[5] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for b in range(4):
        for a in range(4):
            kx, ky = knots[j + b, i + a, 0], knots[j + b, i + a, 1]
            w, across, down = wx[a] * wy[b], dx[a] * wy[b], wx[a] * dy[b]
            out[0] += w * kx
            out[1] += w * ky
            out[2] += across * kx
            out[3] += down * kx
            out[4] += across * ky
            out[5] += down * ky
    out[0] += u
    out[1] += v
    out[2] = 1.0 + out[2] / spacing
    out[3] /= spacing
    out[4] /= spacing
    out[5] = 1.0 + out[5] / spacing
    return i, j


@njit(cache=True)
def displace(u: Any, knots: Any, corner: Any, spacing: Any) -> Any:
    """Displaced places and derivatives (n, 6): x, y, xx, xy, yx, yy; of places u (n, 2), NaN where u is."""
    out = np.empty((len(u), 6))
    scratch = np.empty((4, 4))
    for n in range(len(u)):
        if np.isfinite(u[n, 0] + u[n, 1]):
            _field(u[n, 0], u[n, 1], knots, corner, spacing, scratch, out[n])
        else:
            out[n] = np.nan
    return out


@njit(cache=True)
def first_folds(
    middle: Any, along: Any, border: Any, share: Any, suspect: Any, low: Any, cell: Any,
    knots: Any, corner: Any, spacing: Any,
) -> Any:  # fmt: skip
    """Number (n,) of the first fold from ``middle`` along directions (n, 2); ``len(share)`` if there is none.

    Looked for at parts ``share`` of the way to the ``border`` (n,), within those cells, of side ``cell`` from
    ``low`` on, that are ``suspect`` (rows, columns).
    """
    out = np.full(len(along), len(share))
    scratch, field = np.empty((4, 4)), np.empty(6)
    for n in range(len(along)):
        for k in range(len(share)):
            u = middle[0] + along[n, 0] * (border[n] * share[k])
            v = middle[1] + along[n, 1] * (border[n] * share[k])
            i = min(max(int((u - low[0]) / cell), 0), suspect.shape[1] - 1)
            j = min(max(int((v - low[1]) / cell), 0), suspect.shape[0] - 1)
            if not suspect[j, i]:
                continue
            _field(u, v, knots, corner, spacing, scratch, field)
            xx, xy, yx, yy = field[2], field[3], field[4], field[5]
            if not 0.5 * (xx + yy - np.hypot(xx - yy, xy + yx)) > 0:
                out[n] = k
                break
    return out


@njit(cache=True)
def basis(u: Any, knots: Any, corner: Any, spacing: Any) -> Any:
    """Weights (n, 16) of the knots round each place u (n, 2), and their numbers row * nx + column (n, 16).

    Zero weights where u is NaN.
    """
    weight, number = np.zeros((len(u), 16)), np.zeros((len(u), 16), np.int64)
    scratch, field = np.empty((4, 4)), np.empty(6)
    for n in range(len(u)):
        if np.isfinite(u[n, 0] + u[n, 1]):
            i, j = _field(u[n, 0], u[n, 1], knots, corner, spacing, scratch, field)
            for b in range(4):
                for a in range(4):
                    weight[n, 4 * b + a] = scratch[0, a] * scratch[2, b]
                    number[n, 4 * b + a] = (j + b) * knots.shape[1] + i + a
    return weight, number


@njit(cache=True, nogil=True)
def restore(places: Any, start: Any, knots: Any, corner: Any, spacing: Any) -> Any:
    """Places u (n, 2) displaced to ``places`` (n, 2), sought from ``start`` (n, 2); NaN where there is none.

    Newton; a step that does not lessen the error is halved until it does.
    """
    out = np.full((len(places), 2), np.nan)
    scratch, field = np.empty((4, 4)), np.empty(6)
    low_u, low_v = corner[0] + (1 - _BEYOND) * spacing, corner[1] + (1 - _BEYOND) * spacing
    high_u = corner[0] + (knots.shape[1] - 2 + _BEYOND) * spacing
    high_v = corner[1] + (knots.shape[0] - 2 + _BEYOND) * spacing
    for n in range(len(places)):
        x, y = places[n, 0], places[n, 1]
        if not np.isfinite(x + y):
            continue
        size = 2e-15 * (1.0 + abs(x) + abs(y))
        u, v, du, dv, best_u, best_v = start[n, 0], start[n, 1], 0.0, 0.0, start[n, 0], start[n, 1]
        best = np.inf
        for _ in range(_STEPS):
            u, v = min(max(u, low_u), high_u), min(max(v, low_v), high_v)
            _field(u, v, knots, corner, spacing, scratch, field)
            ex, ey = field[0] - x, field[1] - y
            error = np.hypot(ex, ey)
            if error < best:
                best, best_u, best_v = error, u, v
                if error <= size:
                    break
                det = field[2] * field[5] - field[3] * field[4]
                if not det > 0.0:
                    break
                du, dv = -(field[5] * ex - field[3] * ey) / det, -(field[2] * ey - field[4] * ex) / det
            else:
                du, dv = 0.5 * du, 0.5 * dv
            u, v = best_u + du, best_v + dv
        if best <= 4.0 * size:
            out[n, 0], out[n, 1] = best_u, best_v
    return out
