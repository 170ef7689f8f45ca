"""Non-negative least squares on small normal equations, compiled."""

import math
from typing import Any

from numba import njit

from calibration.photometric.kernels.samples import COMPILE, INNER

_SINGULAR = 1e-9
_STEEP = 1e-6


@njit(**INNER)
def factor(g: Any, index: Any, count: Any, low: Any) -> Any:
    """Cholesky factor of the rows and columns ``index`` of ``g``; False where it is close to singular."""
    for i in range(count):
        for j in range(i + 1):
            s = g[index[i], index[j]]
            for t in range(j):
                s -= low[i, t] * low[j, t]
            if i > j:
                low[i, j] = s / low[j, j]
            elif s > _SINGULAR * g[index[i], index[i]]:
                low[i, i] = math.sqrt(s)
            else:
                return False
    return True


@njit(**INNER)
def substitute(low: Any, rhs: Any, index: Any, count: Any, x: Any) -> None:
    """Solve with the factor of ``index`` for the entries ``index`` of ``rhs``; ``x`` is packed."""
    for i in range(count):
        s = rhs[index[i]]
        for t in range(i):
            s -= low[i, t] * x[t]
        x[i] = s / low[i, i]
    for i in range(count - 1, -1, -1):
        s = x[i]
        for t in range(i + 1, count):
            s -= low[t, i] * x[t]
        x[i] = s / low[i, i]


@njit(**INNER)
def steepest(g: Any, rhs: Any, share: Any) -> Any:
    """Which share at zero would lower the cost fastest; -1 where none does."""
    newest, best = -1, _STEEP
    for j in range(len(rhs)):
        if share[j] > 0.0 or not (g[j, j] > 0.0 and rhs[j] != 0.0):
            continue
        slope = rhs[j]
        for i in range(len(rhs)):
            slope -= g[j, i] * share[i]
        # Part of the slope at the origin, in the metric of the reflectance.
        slope /= math.sqrt(g[j, j] * abs(rhs[j]))
        if slope > best:
            best, newest = slope, j
    return newest


@njit(**COMPILE)
def nonnegative(g: Any, rhs: Any, share: Any, index: Any, low: Any, x: Any) -> None:
    """Minimise share . g . share - 2 rhs . share over shares of 0 or more, from the support of ``share``.

    C. L. Lawson and R. J. Hanson, Solving Least Squares Problems (1974), chapter 23, on normal equations.
    """
    size = len(rhs)
    for sweep in range(3 * size):
        newest = -1
        if sweep > 0:
            newest = steepest(g, rhs, share)
            if newest < 0:
                return
        for _ in range(size + 1):
            count = 0
            for j in range(size):
                if share[j] > 0.0 or j == newest:
                    index[count] = j
                    count += 1
            if count == 0:
                break
            if not factor(g, index, count, low):
                dropped = index[count - 1]
                share[dropped] = 0.0
                if newest == dropped:
                    return
                continue
            substitute(low, rhs, index, count, x)
            step, drop = 1.0, -1
            for i in range(count):
                if x[i] <= 0.0:
                    now = share[index[i]]
                    t = now / (now - x[i]) if now > 0.0 else 0.0
                    if drop < 0 or t < step:
                        step, drop = t, index[i]
            for i in range(count):
                share[index[i]] += step * (x[i] - share[index[i]])
            if drop < 0:
                break
            share[drop] = 0.0
            if drop == newest:
                return
