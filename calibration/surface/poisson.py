"""Weighted least squares of differences on a masked grid: multigrid-preconditioned conjugate gradients."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float

# Below as many cells a sweep takes less time than two threads need to meet.
_NARROW_CELLS = 40000


class _Level(NamedTuple):
    kernels: Any
    wx: Float
    wy: Float
    active: NDArray[np.bool_]
    share: Float
    u: Float
    f: Float
    r: Float


def solve_differences(
    wx: Float, wy: Float, gx: Float, gy: Float, *, start: Float | None = None, tolerance: float = 1e-6
) -> tuple[Float, int]:
    """Minimise the weighted squares of ``u[q] - u[p] - g`` over the edges of a grid.

    Parameters
    ----------
    wx, wy : ndarray (h, w), float64
        Weights of the edges to the right and downwards; zero is no edge.
    gx, gy : ndarray (h, w), float64
        Wanted differences along the edges.
    start : ndarray (h, w), optional
        Where to start from.
    tolerance : float
        Norm of the residual of the normal equations relative to that of their right side.

    Returns
    -------
    u : ndarray (h, w), float64
        Free up to a constant per connected component; zero where no edge ends.
    sweeps : int
        Iterations of conjugate gradients.
    """
    f = np.zeros_like(wx)
    fx, fy = wx * gx, wy * gy
    f -= fx
    f[:, 1:] += fx[:, :-1]
    f -= fy
    f[1:] += fy[:-1]
    levels = _pyramid(wx, wy)
    kernels = levels[0].kernels
    zero = np.zeros_like(f)
    u = zero.copy() if start is None else np.where(levels[0].active, start, 0.0)
    r = np.empty_like(f)
    kernels.residual(u, f, wx, wy, r)
    goal = tolerance * np.sqrt(np.sum(f * f))
    q = np.empty_like(f)
    p = np.zeros_like(f)
    rho_before = 1.0
    for sweep in range(500):
        if not np.sqrt(np.sum(r * r)) > goal:
            return u, sweep
        z = _cycle(levels, 0, r)
        rho = float(np.sum(r * z))
        p *= rho / rho_before if sweep else 0.0
        p += z
        kernels.residual(p, zero, wx, wy, q)
        alpha = -rho / float(np.sum(p * q))
        u += alpha * p
        r += alpha * q
        rho_before = rho
    return u, 500


def _pyramid(wx: Float, wy: Float) -> list[_Level]:
    from calibration.surface.kernels import NARROW, WIDE

    levels = []
    while True:
        kernels = WIDE if wx.size > _NARROW_CELLS else NARROW
        active = (wx > 0) | (wy > 0)
        active[:, 1:] |= wx[:, :-1] > 0
        active[1:] |= wy[:-1] > 0
        u, f, r = np.zeros_like(wx), np.zeros_like(wx), np.zeros_like(wx)
        if max(wx.shape) <= 4:
            levels.append(_Level(kernels, wx, wy, active, u, u, f, r))
            return levels
        coarse_wx, coarse_wy = _coarsen(wx), _coarsen(wy.T).T
        coarse = np.ascontiguousarray(coarse_wx), np.ascontiguousarray(coarse_wy)
        coarse_active = (coarse[0] > 0) | (coarse[1] > 0)
        coarse_active[:, 1:] |= coarse[0][:, :-1] > 0
        coarse_active[1:] |= coarse[1][:-1] > 0
        levels.append(_Level(kernels, wx, wy, active, _shares(active, coarse_active), u, f, r))
        wx, wy = coarse


def _coarsen(w: Float) -> Float:
    """Weights of the edges to the right between cells of 2 x 2 pixels."""
    height, width = w.shape
    crossing = np.zeros(((height + 1) // 2 * 2, (width + 1) // 2))
    crossing[:height, : width // 2] = w[:, 1::2]
    # Two edges side by side count twice and two in a row count half: a constant weight stays what it is.
    return np.asarray(0.5 * (crossing[0::2] + crossing[1::2]))


def _shares(active: NDArray[np.bool_], coarse: NDArray[np.bool_]) -> Float:
    height, width = active.shape
    padded = np.pad(coarse, 1).astype(np.float64)
    y, x = np.arange(height), np.arange(width)
    cy, cx = y // 2 + 1, x // 2 + 1
    oy, ox = cy + np.where(y % 2, 1, -1), cx + np.where(x % 2, 1, -1)
    total = (
        9 * padded[np.ix_(cy, cx)]
        + 3 * padded[np.ix_(oy, cx)]
        + 3 * padded[np.ix_(cy, ox)]
        + padded[np.ix_(oy, ox)]
    )
    return np.where(active & (total > 0), 1.0 / np.maximum(total, 1.0), 0.0)


def _cycle(levels: list[_Level], depth: int, f: Float) -> Float:
    level = levels[depth]
    kernels, u = level.kernels, level.u
    u[:] = 0.0
    if depth + 1 == len(levels):
        for colour in (0, 1) * 8 + (1, 0) * 8:
            kernels.relax(u, f, level.wx, level.wy, colour)
        return u
    for colour in (0, 1):
        kernels.relax(u, f, level.wx, level.wy, colour)
    kernels.residual(u, f, level.wx, level.wy, level.r)
    below = levels[depth + 1]
    kernels.restrict(level.r, level.share, below.f)
    _cycle(levels, depth + 1, below.f)
    kernels.prolong(below.u, below.active, level.share, u)
    for colour in (1, 0):
        kernels.relax(u, f, level.wx, level.wy, colour)
    return u
