"""Multigrid on a masked pixel grid with weighted edges, compiled.

The operator is the graph Laplacian of the 4-neighbour grid: ``wx[y, x]`` joins (y, x) to (y, x + 1),
``wy[y, x]`` joins (y, x) to (y + 1, x); a zero weight is no edge, a pixel without edges takes no part.
Every sum runs in an order that does not depend on the number of threads.
"""

from typing import Any, NamedTuple

from numba import njit, prange


@njit(cache=True, inline="always")
def _around(u: Any, wx: Any, wy: Any, y: Any, x: Any) -> Any:
    """Weighted sum of the four neighbours of a pixel, and the sum of the weights."""
    total = 0.0
    weight = 0.0
    if x > 0:
        total += wx[y, x - 1] * u[y, x - 1]
        weight += wx[y, x - 1]
    if x + 1 < u.shape[1]:
        total += wx[y, x] * u[y, x + 1]
        weight += wx[y, x]
    if y > 0:
        total += wy[y - 1, x] * u[y - 1, x]
        weight += wy[y - 1, x]
    if y + 1 < u.shape[0]:
        total += wy[y, x] * u[y + 1, x]
        weight += wy[y, x]
    return total, weight


def _relax(u: Any, f: Any, wx: Any, wy: Any, colour: Any) -> Any:
    """Gauss-Seidel on one colour of the checkerboard, in place."""
    for y in prange(u.shape[0]):
        for x in range((y + colour) % 2, u.shape[1], 2):
            total, weight = _around(u, wx, wy, y, x)
            if weight > 0.0:
                u[y, x] = (f[y, x] + total) / weight


def _residual(u: Any, f: Any, wx: Any, wy: Any, out: Any) -> Any:
    """``out = f - A u``."""
    for y in prange(u.shape[0]):
        for x in range(u.shape[1]):
            total, weight = _around(u, wx, wy, y, x)
            out[y, x] = f[y, x] + total - weight * u[y, x] if weight > 0.0 else 0.0


def _restrict(fine: Any, share: Any, out: Any) -> Any:
    """Transpose of ``_prolong``."""
    height, width = fine.shape
    for cy in prange(out.shape[0]):
        for cx in range(out.shape[1]):
            total = 0.0
            for y in range(max(2 * cy - 1, 0), min(2 * cy + 3, height)):
                ky = 3.0 if y // 2 == cy else 1.0
                for x in range(max(2 * cx - 1, 0), min(2 * cx + 3, width)):
                    kx = 3.0 if x // 2 == cx else 1.0
                    total += ky * kx * share[y, x] * fine[y, x]
            out[cy, cx] = total


def _prolong(coarse: Any, active: Any, share: Any, u: Any) -> Any:
    """Add the bilinear interpolation from the active coarse cells; ``share`` makes its weights sum to one."""
    height, width = u.shape
    rows, columns = coarse.shape
    for y in prange(height):
        cy = y // 2
        oy = cy + 1 if y % 2 else cy - 1
        for x in range(width):
            if share[y, x] == 0.0:
                continue
            cx = x // 2
            ox = cx + 1 if x % 2 else cx - 1
            total = 9.0 * coarse[cy, cx] if active[cy, cx] else 0.0
            inside = 0 <= oy < rows
            beside = 0 <= ox < columns
            if inside and active[oy, cx]:
                total += 3.0 * coarse[oy, cx]
            if beside and active[cy, ox]:
                total += 3.0 * coarse[cy, ox]
            if inside and beside and active[oy, ox]:
                total += coarse[oy, ox]
            u[y, x] += share[y, x] * total


class Kernels(NamedTuple):
    """One compilation of the kernels."""

    relax: Any
    residual: Any
    restrict: Any
    prolong: Any


_ALL = (_relax, _residual, _restrict, _prolong)
WIDE = Kernels(*(njit(cache=True, parallel=True)(kernel) for kernel in _ALL))
NARROW = Kernels(*(njit(cache=True)(kernel) for kernel in _ALL))
