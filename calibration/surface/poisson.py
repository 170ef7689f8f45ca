"""Weighted least squares of differences on a masked grid: multigrid-preconditioned conjugate gradients."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float

Narrow = NDArray[np.float32]

# Two Jacobi steps at Chebyshev's nodes of the upper three quarters of the spectrum, which ends at 2.
_OMEGAS = (np.float32(0.562), np.float32(1.39))
_COARSEST = 5
_MOST_SWEEPS = 300
# A residual that has grown as much above its least is below the working precision, and only grows on.
_GROWN = 1e3
# Below as many cells a sweep takes less time than two threads need to meet.
_NARROW_CELLS = 20000


class _Level(NamedTuple):
    kernels: Any
    edges: tuple[Narrow, Narrow, Narrow | None, Narrow | None]
    pull: Narrow
    inverse: Narrow
    top: Narrow
    left: Narrow
    middle: Narrow
    square: Narrow
    f: Narrow
    u: Narrow
    v: Narrow


class Differences:
    """Solver of ``sum w (u[q] - u[p] - g)^2 + sum pull (u - wanted)^2`` over the edges and cells of one grid.

    The memory of the pyramid is taken once; weights, differences and start may change from call to call.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the grid.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        from calibration.surface.kernels import NARROW, WIDE

        self.shape = shape
        self._levels: list[_Level] = []
        h, w = shape
        while True:
            # An odd number of cells, so that every second one has a coarse one on both sides; and the rim.
            size = (h | 1) + 2, (w | 1) + 2
            coarse = size[0] // 2 + 2, size[1] // 2 + 2
            last = max(h, w) <= _COARSEST
            blank = [np.zeros(size, np.float32) for _ in range(9)]
            e, s, se, sw, pull, inverse, f, u, v = blank
            shares = [np.zeros((0, 0) if last else coarse, np.float32) for _ in range(2)]
            middle = np.zeros((0, 0, 4) if last else (*coarse, 4), np.float32)
            square = np.zeros((0, 0, 6) if last else (*coarse, 6), np.float32)
            edges = (e, s, se, sw) if self._levels else (e, s, None, None)
            kernels = WIDE if h * w > _NARROW_CELLS else NARROW
            self._levels.append(
                _Level(kernels, edges, pull, inverse, shares[0], shares[1], middle, square, f, u, v)
            )
            if last:
                break
            h, w = size[0] // 2, size[1] // 2
        self._bottom = np.zeros(((h | 1) * (w | 1),) * 2, np.float32)
        size = self._levels[0].u.shape
        self._u, self._r, self._p, self._q = (np.zeros(size) for _ in range(4))
        self._rows, self._right = np.zeros(size[0]), np.zeros(size[0])

    def weigh(self, weight: NDArray[Any], pull: NDArray[Any] | None = None) -> None:
        """Set the weights (2, h, w) of the edges to the right and downwards, and of the pulls (h, w)."""
        fine = self._levels[0]
        h, w = self.shape
        fine.edges[0][1 : h + 1, 1:w] = weight[0, :, :-1]
        fine.edges[1][1:h, 1 : w + 1] = weight[1, :-1]
        if pull is not None:
            fine.pull[1 : h + 1, 1 : w + 1] = pull
        for level, below in zip(self._levels, self._levels[1:], strict=False):
            k = level.kernels
            k.invert(*level.edges, level.pull, level.inverse)
            k.interpolation(*level.edges, level.top, level.left)
            k.middles(*level.edges, level.top, level.left, level.middle)
            k.coarsen(*level.edges, level.top, level.left, level.middle, level.square)
            k.gather(level.square, *below.edges)
            if pull is not None:
                k.restrict(level.pull, level.top, level.left, level.middle, below.pull)
        self._bottom[:] = _inverse(self._levels[-1])

    def solve(
        self,
        goal: NDArray[Any],
        *,
        wanted: NDArray[Any] | None = None,
        start: NDArray[Any] | None = None,
        tolerance: float = 1e-6,
        reduction: float = 0.0,
        most: int = _MOST_SWEEPS,
    ) -> tuple[Float, int]:
        """Minimiser for the wanted differences (2, h, w) along the edges, and the sweeps it took.

        Ends when the norm of the residual is ``tolerance`` of that of the right side, or ``reduction`` of
        what it was at the start, or after ``most`` sweeps. Without a pull each component has a free constant.
        """
        fine = self._levels[0]
        k, (e, s, _, _), rows = fine.kernels, fine.edges, self._rows
        u, r, p, q = self._u, self._r, self._p, self._q
        h, w = self.shape
        inside = np.s_[1 : h + 1, 1 : w + 1]
        u[inside] = 0.0 if start is None else start
        k.begin(u, goal, wanted, e, s, fine.pull, r, fine.f, rows, self._right)
        p[:] = 0.0
        norm = np.sqrt(rows.sum())
        enough = max(tolerance * np.sqrt(self._right.sum()), reduction * norm)
        least, rho_before = norm, 1.0
        for sweep in range(most):
            least = min(least, norm)
            if not enough < norm < _GROWN * least:
                break
            z = self._cycle(0)
            k.product(r, z, rows)
            rho = float(rows.sum())
            k.turn(p, z, rho / rho_before if sweep else 0.0)
            k.along(p, e, s, fine.pull, q, rows)
            bend = float(rows.sum())
            if not (rho > 0 and bend > 0):
                # What is left of the residual cannot be reduced: it is below the working precision.
                break
            k.advance(u, r, p, q, rho / bend, fine.f, rows)
            norm = np.sqrt(rows.sum())
            rho_before = rho
        else:
            sweep = most
        return u[inside].copy(), sweep

    def _cycle(self, depth: int) -> Narrow:
        level = self._levels[depth]
        k, f, u, v = level.kernels, level.f, level.u, level.v
        if depth + 1 == len(self._levels):
            right = f[1:-1, 1:-1]
            u[1:-1, 1:-1] = (self._bottom @ right.ravel()).reshape(right.shape)
            return u
        below = self._levels[depth + 1]
        k.scale(f, level.inverse, _OMEGAS[0], v)
        k.relax(v, f, *level.edges, level.inverse, _OMEGAS[1], u)
        k.residual(u, f, *level.edges, level.pull, v)
        k.restrict(v, level.top, level.left, level.middle, below.f)
        k.prolong(self._cycle(depth + 1), level.top, level.left, level.middle, u)
        k.relax(u, f, *level.edges, level.inverse, _OMEGAS[0], v)
        k.relax(v, f, *level.edges, level.inverse, _OMEGAS[1], u)
        return u


def _inverse(level: _Level) -> Narrow:
    """Pseudo-inverse of the coarsest operator: a constant over a component is left alone."""
    e, s, se, sw = (
        np.zeros(level.u.shape)[1:-1, 1:-1] if edge is None else edge[1:-1, 1:-1].astype(np.float64)
        for edge in level.edges
    )
    h, w = e.shape
    number = np.arange(h * w).reshape(h, w)
    matrix = np.diag(level.pull[1:-1, 1:-1].astype(np.float64).ravel())
    pairs = (
        (e[:, :-1], number[:, :-1], number[:, 1:]),
        (s[:-1], number[:-1], number[1:]),
        (se[:-1, :-1], number[:-1, :-1], number[1:, 1:]),
        (sw[:-1, 1:], number[:-1, 1:], number[1:, :-1]),
    )
    for weights, one, other in pairs:
        for weight, i, j in zip(weights.ravel(), one.ravel(), other.ravel(), strict=True):
            matrix[i, i] += weight
            matrix[j, j] += weight
            matrix[i, j] -= weight
            matrix[j, i] -= weight
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-7 * max(float(values[-1]), 1e-300)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return np.asarray(inverse, np.float32)
