"""Multigrid on a masked pixel grid with weighted edges, compiled.

Every array has a rim of one zero cell all around, so that no loop asks where it is. A grid's graph has four
edges a cell: ``e`` to the right, ``s`` down, ``se`` and ``sw`` down the diagonals (None on the finest grid).
``inverse`` is one over the sum of a cell's edges and of its pull to zero. Grids have an odd number of rows
and columns; their odd ones (1, 3, ...) are the cells of the next coarser grid.
Sums run along rows and then over rows: their order does not depend on the number of threads.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange


def _invert(e: Any, s: Any, se: Any, sw: Any, pull: Any, inverse: Any) -> None:
    """``inverse`` of the sum of the edges that end in a cell; zero for a cell without any."""
    for y in prange(1, e.shape[0] - 1):
        for x in range(1, e.shape[1] - 1):
            total = e[y, x] + e[y, x - 1] + s[y, x] + s[y - 1, x] + pull[y, x]
            if se is not None:
                total += se[y, x] + se[y - 1, x - 1] + sw[y, x] + sw[y - 1, x + 1]
            inverse[y, x] = 1 / total if total > 0 else 0.0


def _scale(f: Any, inverse: Any, omega: Any, out: Any) -> None:
    """First Jacobi step, from zero."""
    for y in prange(1, f.shape[0] - 1):
        for x in range(1, f.shape[1] - 1):
            out[y, x] = omega * inverse[y, x] * f[y, x]


def _relax(u: Any, f: Any, e: Any, s: Any, se: Any, sw: Any, inverse: Any, omega: Any, out: Any) -> None:
    """One damped Jacobi step: ``out = u + omega D^-1 (f - A u)``."""
    for y in prange(1, u.shape[0] - 1):
        for x in range(1, u.shape[1] - 1):
            total = (
                e[y, x] * u[y, x + 1]
                + e[y, x - 1] * u[y, x - 1]
                + s[y, x] * u[y + 1, x]
                + s[y - 1, x] * u[y - 1, x]
            )
            if se is not None:
                total += (
                    se[y, x] * u[y + 1, x + 1]
                    + se[y - 1, x - 1] * u[y - 1, x - 1]
                    + sw[y, x] * u[y + 1, x - 1]
                    + sw[y - 1, x + 1] * u[y - 1, x + 1]
                )
            step = (f[y, x] + total) * inverse[y, x] - u[y, x]
            out[y, x] = u[y, x] + omega * step if inverse[y, x] > 0 else 0.0


def _residual(u: Any, f: Any, e: Any, s: Any, se: Any, sw: Any, pull: Any, out: Any) -> None:
    """``out = f - A u``."""
    for y in prange(1, u.shape[0] - 1):
        for x in range(1, u.shape[1] - 1):
            v = u[y, x]
            total = (
                e[y, x] * (u[y, x + 1] - v)
                + e[y, x - 1] * (u[y, x - 1] - v)
                + s[y, x] * (u[y + 1, x] - v)
                + s[y - 1, x] * (u[y - 1, x] - v)
                - pull[y, x] * v
            )
            if se is not None:
                total += (
                    se[y, x] * (u[y + 1, x + 1] - v)
                    + se[y - 1, x - 1] * (u[y - 1, x - 1] - v)
                    + sw[y, x] * (u[y + 1, x - 1] - v)
                    + sw[y - 1, x + 1] * (u[y - 1, x + 1] - v)
                )
            out[y, x] = f[y, x] + total


@njit(cache=True, inline="always")
def _at(se: Any, y: Any, x: Any) -> Any:
    return 0.0 if se is None else se[y, x]


@njit(cache=True, inline="always")
def _halves(a: Any, b: Any) -> Any:
    """Share of the first of two; one that holds to neither takes the mean, so that shares always sum to 1."""
    a, b = max(a, 0.0), max(b, 0.0)
    return a / (a + b) if a + b > 0 else 0.5


def _interpolation(e: Any, s: Any, se: Any, sw: Any, top: Any, left: Any) -> None:
    """How cells of a fine grid follow those of the coarse one, which are its odd ones (1, 3, ...).

    ``top[i, j]`` is the share of coarse (i, j) in the cell between it and (i, j + 1), which has the rest;
    ``left[i, j]`` that in the cell between it and (i + 1, j). The edges decide: J. E. Dendy, "Black box
    multigrid", doi:10.1016/0021-9991(82)90057-2.
    """
    for i in prange(1, top.shape[0] - 1):
        y = 2 * i - 1
        for j in range(1, top.shape[1] - 1):
            x = 2 * j - 1
            if j + 2 < top.shape[1]:
                top[i, j] = _halves(
                    e[y, x] + _at(se, y - 1, x) + _at(sw, y, x + 1),
                    e[y, x + 1] + _at(sw, y - 1, x + 2) + _at(se, y, x + 1),
                )
            if i + 2 < top.shape[0]:
                left[i, j] = _halves(
                    s[y, x] + _at(se, y, x - 1) + _at(sw, y, x + 1),
                    s[y + 1, x] + _at(sw, y + 1, x) + _at(se, y + 1, x),
                )


def _middles(e: Any, s: Any, se: Any, sw: Any, top: Any, left: Any, middle: Any) -> None:
    """Shares of (i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1) in the cell between the four."""
    for i in prange(1, top.shape[0] - 2):
        y = 2 * i
        for j in range(1, top.shape[1] - 2):
            x = 2 * j
            north, south = max(s[y - 1, x], 0.0), max(s[y, x], 0.0)
            west, east = max(e[y, x - 1], 0.0), max(e[y, x], 0.0)
            a, b = max(_at(se, y - 1, x - 1), 0.0), max(_at(sw, y - 1, x + 1), 0.0)
            c, d = max(_at(sw, y, x), 0.0), max(_at(se, y, x), 0.0)
            whole = north + south + west + east + a + b + c + d
            part = 1 / whole if whole > 0 else 0.0
            t, under, near, far = top[i, j], top[i + 1, j], left[i, j], left[i, j + 1]
            middle[i, j, 0] = part * (a + north * t + west * near)
            middle[i, j, 1] = part * (b + north * (1 - t) + east * far)
            middle[i, j, 2] = part * (c + south * under + west * (1 - near))
            middle[i, j, 3] = part * (d + south * (1 - under) + east * (1 - far))


@njit(cache=True, inline="always")
def _share(w: Any, a: Any, b: Any, c: Any, d: Any, out: Any) -> None:
    """Add to the six edges of a coarse square a fine edge whose ends' shares differ by (a, b, c, d)."""
    out[0] -= w * a * b
    out[1] -= w * a * c
    out[2] -= w * b * d
    out[3] -= w * c * d
    out[4] -= w * a * d
    out[5] -= w * b * c


def _coarsen(e: Any, s: Any, se: Any, sw: Any, top: Any, left: Any, middle: Any, square: Any) -> None:
    """Galerkin's coarse operator, square by square: its edges top, left, right, bottom, se, sw.

    A fine edge on the border of two squares is counted with the one below or to the right of it.
    """
    for i in prange(1, top.shape[0] - 1):
        y = 2 * i
        out = np.zeros(6)
        for j in range(1, top.shape[1] - 1):
            x = 2 * j
            ta, tb = top[i, j], 1 - top[i, j]
            la, lc = left[i, j], 1 - left[i, j]
            out[:] = 0.0
            _share(e[y - 1, x - 1], 1 - ta, -tb, 0.0, 0.0, out)
            _share(e[y - 1, x], ta, tb - 1, 0.0, 0.0, out)
            _share(s[y - 1, x - 1], 1 - la, 0.0, -lc, 0.0, out)
            _share(s[y, x - 1], la, 0.0, lc - 1, 0.0, out)
            if i + 2 < top.shape[0] and j + 2 < top.shape[1]:
                bc, bd = top[i + 1, j], 1 - top[i + 1, j]
                rb, rd = left[i, j + 1], 1 - left[i, j + 1]
                oa, ob = middle[i, j, 0], middle[i, j, 1]
                oc, od = middle[i, j, 2], middle[i, j, 3]
                _share(s[y - 1, x], oa - ta, ob - tb, oc, od, out)
                _share(s[y, x], oa, ob, oc - bc, od - bd, out)
                _share(e[y, x - 1], oa - la, ob, oc - lc, od, out)
                _share(e[y, x], oa, ob - rb, oc, od - rd, out)
                if se is not None:
                    _share(se[y - 1, x - 1], oa - 1, ob, oc, od, out)
                    _share(sw[y - 1, x + 1], oa, ob - 1, oc, od, out)
                    _share(sw[y, x], oa, ob, oc - 1, od, out)
                    _share(se[y, x], oa, ob, oc, od - 1, out)
                    _share(sw[y - 1, x], ta - la, tb, -lc, 0.0, out)
                    _share(se[y - 1, x], ta, tb - rb, 0.0, -rd, out)
                    _share(se[y, x - 1], la, 0.0, lc - bc, -bd, out)
                    _share(sw[y, x + 1], 0.0, rb, -bc, rd - bd, out)
            for k in range(6):
                square[i, j, k] = out[k]


def _gather(square: Any, e: Any, s: Any, se: Any, sw: Any) -> None:
    """Edges of the coarse grid from those of its squares."""
    for i in prange(1, square.shape[0] - 1):
        for j in range(1, square.shape[1] - 1):
            e[i, j] = square[i, j, 0] + square[i - 1, j, 3]
            s[i, j] = square[i, j, 1] + square[i, j - 1, 2]
            se[i, j] = square[i, j, 4]
            sw[i, j] = square[i, j - 1, 5]


def _restrict(fine: Any, top: Any, left: Any, middle: Any, out: Any) -> None:
    """Transpose of ``prolong``."""
    for i in prange(1, top.shape[0] - 1):
        y = 2 * i - 1
        for j in range(1, top.shape[1] - 1):
            x = 2 * j - 1
            out[i, j] = (
                fine[y, x]
                + top[i, j] * fine[y, x + 1]
                + (1 - top[i, j - 1]) * fine[y, x - 1]
                + left[i, j] * fine[y + 1, x]
                + (1 - left[i - 1, j]) * fine[y - 1, x]
                + middle[i, j, 0] * fine[y + 1, x + 1]
                + middle[i, j - 1, 1] * fine[y + 1, x - 1]
                + middle[i - 1, j, 2] * fine[y - 1, x + 1]
                + middle[i - 1, j - 1, 3] * fine[y - 1, x - 1]
            )


def _prolong(coarse: Any, top: Any, left: Any, middle: Any, u: Any) -> None:
    """Add the interpolated coarse values to ``u``."""
    for i in prange(1, top.shape[0] - 1):
        y = 2 * i - 1
        below = y + 1 < u.shape[0] - 1
        for j in range(1, top.shape[1] - 1):
            x = 2 * j - 1
            beside = x + 1 < u.shape[1] - 1
            a, b, c, d = coarse[i, j], coarse[i, j + 1], coarse[i + 1, j], coarse[i + 1, j + 1]
            u[y, x] += a
            if beside:
                u[y, x + 1] += top[i, j] * a + (1 - top[i, j]) * b
            if below:
                u[y + 1, x] += left[i, j] * a + (1 - left[i, j]) * c
            if below and beside:
                m = middle[i, j]
                u[y + 1, x + 1] += m[0] * a + m[1] * b + m[2] * c + m[3] * d


def _begin(
    u: Any, goal: Any, wanted: Any, e: Any, s: Any, pull: Any, r: Any, narrow: Any, rows: Any, right: Any
) -> None:
    """Residual ``r`` and its float32 copy ``narrow``; row sums of its square and of the right side's.

    ``goal`` (2, h, w) and ``wanted`` (h, w) have no rim. On the first row and column the edge before is zero.
    """
    height, width = goal.shape[1:]
    for y in prange(1, height + 1):
        asked = 0.0
        above = max(y - 2, 0)
        for x in range(1, width + 1):
            v = u[y, x]
            before = max(x - 2, 0)
            # In double precision: what leaves a cell arrives in the next, or the system has no solution.
            f = (
                e[y, x - 1] * np.float64(goal[0, y - 1, before])
                - e[y, x] * np.float64(goal[0, y - 1, x - 1])
                + s[y - 1, x] * np.float64(goal[1, above, x - 1])
                - s[y, x] * np.float64(goal[1, y - 1, x - 1])
            )
            if wanted is not None:
                f += pull[y, x] * wanted[y - 1, x - 1]
            asked += f * f
            r[y, x] = (
                f
                + e[y, x] * (u[y, x + 1] - v)
                + e[y, x - 1] * (u[y, x - 1] - v)
                + s[y, x] * (u[y + 1, x] - v)
                + s[y - 1, x] * (u[y - 1, x] - v)
                - pull[y, x] * v
            )
            narrow[y, x] = r[y, x]
        right[y] = asked
        total = 0.0
        for x in range(1, width + 1):
            total += r[y, x] * r[y, x]
        rows[y] = total


def _along(p: Any, e: Any, s: Any, pull: Any, q: Any, rows: Any) -> None:
    """``q = A p`` and, row by row, the sum of ``p q``."""
    for y in prange(1, p.shape[0] - 1):
        total = 0.0
        for x in range(1, p.shape[1] - 1):
            v = p[y, x]
            q[y, x] = (
                e[y, x] * (v - p[y, x + 1])
                + e[y, x - 1] * (v - p[y, x - 1])
                + s[y, x] * (v - p[y + 1, x])
                + s[y - 1, x] * (v - p[y - 1, x])
                + pull[y, x] * v
            )
        for x in range(1, p.shape[1] - 1):
            total += p[y, x] * q[y, x]
        rows[y] = total


def _advance(u: Any, r: Any, p: Any, q: Any, alpha: Any, narrow: Any, rows: Any) -> None:
    """Step of conjugate gradients: ``u``, ``r`` and its float32 copy ``narrow`` move on; row sums of r r."""
    for y in prange(1, u.shape[0] - 1):
        total = 0.0
        for x in range(1, u.shape[1] - 1):
            u[y, x] += alpha * p[y, x]
            r[y, x] -= alpha * q[y, x]
            narrow[y, x] = r[y, x]
        for x in range(1, u.shape[1] - 1):
            total += r[y, x] * r[y, x]
        rows[y] = total


def _product(r: Any, z: Any, rows: Any) -> None:
    """Row sums of ``r z``."""
    for y in prange(1, r.shape[0] - 1):
        total = 0.0
        for x in range(1, r.shape[1] - 1):
            total += r[y, x] * z[y, x]
        rows[y] = total


def _turn(p: Any, z: Any, beta: Any) -> None:
    """``p = z + beta p``."""
    for y in prange(1, p.shape[0] - 1):
        for x in range(1, p.shape[1] - 1):
            p[y, x] = z[y, x] + beta * p[y, x]


class Kernels(NamedTuple):
    """One compilation of the kernels."""

    invert: Any
    scale: Any
    relax: Any
    residual: Any
    interpolation: Any
    middles: Any
    coarsen: Any
    gather: Any
    restrict: Any
    prolong: Any
    begin: Any
    along: Any
    advance: Any
    product: Any
    turn: Any


_ALL = (
    _invert,
    _scale,
    _relax,
    _residual,
    _interpolation,
    _middles,
    _coarsen,
    _gather,
    _restrict,
    _prolong,
    _begin,
    _along,
    _advance,
    _product,
    _turn,
)
WIDE = Kernels(*(njit(cache=True, parallel=True, fastmath=True)(kernel) for kernel in _ALL))
NARROW = Kernels(*(njit(cache=True, fastmath=True)(kernel) for kernel in _ALL))
