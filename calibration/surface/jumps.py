"""Jumps of depth: which steps between neighbours are not believed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calibration.geometry import Float
from calibration.progress import Counted, Track, silent
from calibration.provenance import FitError
from calibration.surface.edges import Edges
from calibration.surface.pieces import closed, put_together
from calibration.surface.poisson import Differences

_SHARPNESS = 2.0
# A gap opens by a pixel a round: rounds go on while weights change by more than this share.
_STILL = 2e-4
_MOST_ROUNDS = 30
_FINISHING_ROUNDS = 10
# Grids with a longer side than this are looked at from further off first.
_COARSE_SIDE = 100
# Of two surfaces that fit alike the one that was found first stays; one that breaks nearly the same edges is
# not looked at.
_CLEARLY_LESS = 0.995
# How many times its spread a misfit may be, round by round; where pieces are in place already; and at last.
_WIDTHS = (3.0, 2.0, 1.4, 1.0, 1.0)
_LAST_WIDTHS = (2.0, 1.4, 1.0, 1.0)
_FINAL_WIDTHS = (1.4, 1.0, 1.0)
# Sigmas by which normals contradict each other where the surface may jump: one finds faint jumps, and under
# noise too many to leave pieces whole; the other does not.
_CONTRADICTIONS = (3.0, 6.0)
# How far holes in a cut are closed, px; and as a share of the picture, with which the hole grows where two
# slopes come near each other.
_HOLE = 8.0
_HOLE_SHARE = 0.05
# The equations of a round are solved no better than the next round's weights deserve.
_REDUCTION = 0.2
_SWEEPS = 4


def with_jumps(
    edges: Edges,
    solver: Differences,
    u: Float,
    pull: Any,
    wanted: Any,
    tolerance: float,
    track: Track = silent,
) -> Float:
    """The smooth solution ``u`` with its jumps found.

    Surfaces from several starts compete by what of their edges does not fit.
    """
    search = _Search(edges, solver, pull, wanted)
    starts = Counted(search.starts(u), 2 + len(_CONTRADICTIONS))
    for start, widths in track(starts, "finding depth"):
        search.offer(start, widths)
    for reach in track(_reaches(edges.shape), "moving pieces of depth"):
        search.move(reach)
    return search.finish(tolerance)


class _Search:
    """The best surface so far, and the ways to another."""

    def __init__(self, edges: Edges, solver: Differences, pull: Any, wanted: Any) -> None:
        self._edges, self._solver, self._pull, self._wanted = edges, solver, pull, wanted
        self._trust = edges.trust
        self._edge = edges.span > 0
        self._within = edges.spread / np.where(self._edge, edges.span, 1)
        self._weight = np.zeros_like(edges.base)
        self._loss = np.inf
        self._broken = self._edge
        self.best: Float = np.zeros(edges.shape)

    def starts(self, u: Float) -> Iterator[tuple[Float, tuple[float, ...]]]:
        """Surfaces to begin with, and the widths by which each is put in place."""
        yield self.apart(u, _MOST_ROUNDS), _WIDTHS
        far = _from_far(self._edges, u)
        if far is not None:
            yield self.apart(far, _FINISHING_ROUNDS), _WIDTHS
        before = None
        for cut in self._edges.contradicted(*_CONTRADICTIONS):
            if before is None or (cut != before).any():
                yield self.together(u, cut), _LAST_WIDTHS
            before = cut

    def apart(self, u: Float, rounds: int) -> Float:
        """Bilateral rounds from ``u``: which pixels belong together."""
        return _set_apart(self._edges, self._solver, u, self._pull, self._wanted, rounds)

    def together(self, u: Float, cut: NDArray[np.bool_]) -> Float:
        """Solution without the edges that are ``cut``, each piece where most of its border fits."""
        edges = self._edges
        self._solver.weigh(np.where(cut, 0, edges.base), self._pull)
        u, _ = self._solver.solve(edges.mean, wanted=self._wanted, start=u, tolerance=1e-3)
        return put_together(u, edges.mean, self._within, self._edge, cut)

    def move(self, reach: float) -> None:
        """Put the pieces between the broken edges of the best together anew."""
        self.offer(self.together(self.best, closed(self._broken, self._edge, reach)), _LAST_WIDTHS)

    def offer(self, u: Float, widths: tuple[float, ...]) -> None:
        """Put ``u`` in place, and keep it if it then fits better than the best so far."""
        other = np.count_nonzero(self._edges.broken(u) != self._broken)
        if other <= (1 - _CLEARLY_LESS) * np.count_nonzero(self._broken) and self._loss < np.inf:
            return
        u = self._placed(u, self._trust, widths)
        loss = self._edges.believe(u, self._trust, 1.0, self._weight)
        if loss < _CLEARLY_LESS * self._loss:
            self.best, self._loss, self._broken = u, loss, self._edges.broken(u)

    def finish(self, tolerance: float) -> Float:
        """The best, its edges weighed by the noise of their normals where they are believed."""
        edges = self._edges
        u = self._placed(self.best, edges.base, _FINAL_WIDTHS)
        edges.believe(u, edges.base, 1.0, self._weight)
        self._solver.weigh(self._weight, self._pull)
        return self._solver.solve(edges.mean, wanted=self._wanted, start=u, tolerance=tolerance)[0]

    def _placed(self, u: Float, base: NDArray[np.float32], widths: tuple[float, ...]) -> Float:
        """Redescending rounds, in which what does not fit counts less and less."""
        for width in widths:
            self._edges.believe(u, base, width, self._weight)
            self._solver.weigh(self._weight, self._pull)
            u, _ = self._solver.solve(
                self._edges.mean, wanted=self._wanted, start=u, tolerance=0.0, reduction=_REDUCTION,
                most=_SWEEPS,
            )  # fmt: skip
        return u


def _reaches(shape: tuple[int, ...]) -> list[float]:
    """How far holes of a cut are closed, move by move: pieces that hang together in a hole cannot part."""
    return sorted({0.0, _HOLE, max(_HOLE, _HOLE_SHARE * max(shape))})


def _from_far(edges: Edges, u: Float) -> Float | None:
    """Start on every second pixel, every fourth, ...: there a long gap opens in few rounds.

    Where pixels that are left out held a piece, it stays where ``u`` had it. None where the grid is small
    enough or what is left has no edges.
    """
    if max(edges.shape) <= _COARSE_SIDE:
        return None
    try:
        coarse = Edges(
            edges.normals[::2, ::2],
            edges.sigma_deg[::2, ::2],
            None if edges.rays is None else edges.rays[::2, ::2],
        )
    except FitError:
        return None
    u = u[::2, ::2]
    start = _from_far(coarse, u)
    far = _set_apart(
        coarse, Differences(coarse.shape), u if start is None else start, None, None, _MOST_ROUNDS
    )
    return _nearer(edges, coarse, far)


def _set_apart(edges: Edges, solver: Differences, u: Float, pull: Any, wanted: Any, rounds: int) -> Float:
    """Bilateral rounds."""
    from calibration.surface.kernels import one_sided

    weight, goal = np.zeros_like(edges.base), np.zeros_like(edges.mean)
    for _ in range(rounds):
        moved = one_sided(u, edges.one, edges.other, edges.span, edges.base, _SHARPNESS, weight, goal)
        if moved.sum() < _STILL * edges.count:
            break
        solver.weigh(weight, pull)
        u, _ = solver.solve(goal, wanted=wanted, start=u, tolerance=0.0, reduction=_REDUCTION, most=_SWEEPS)
    return u


def _nearer(edges: Edges, coarse: Edges, far: Float) -> Float:
    """Solution of every second pixel on all of them: each on the plane of its coarse pixel."""
    row, column = ndimage.distance_transform_edt(
        ~coarse.joined(), return_distances=False, return_indices=True
    )
    parent = np.ix_(*(np.arange(size) // 2 for size in edges.shape))
    row, column = row[parent], column[parent]
    normals, facing = coarse.normals[row, column], coarse.facing[row, column]
    if edges.rays is None:
        y, x = np.ogrid[: edges.shape[0], : edges.shape[1]]
        step = (normals[..., 0] * (x - 2.0 * column) + normals[..., 1] * (y - 2.0 * row)) / facing
    else:
        cross = -np.einsum("hwc,hwc->hw", normals, edges.rays, dtype=np.float64)
        step = np.log(facing / np.maximum(cross, 0.1 * facing))
    return np.asarray(np.where(edges.facing > 0, far[row, column] + step, 0.0))
