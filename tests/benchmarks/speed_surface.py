"""Integration of normals beside algebraic multigrid and a sparse factorisation: alone by
``python tests/benchmarks/speed_surface.py``, or within ``make bench``.

pyamg (MIT, from PyPI) is a peer of this benchmark only, and left out, with a word, where it is not installed.
"""

import importlib.util
import resource
import sys
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve
from speed import Candidate, Table, compare, markdown
from speed_fits import hill

from calibration.geometry import normalize
from calibration.photometric import NormalMap
from calibration.surface import integrate

Maps = tuple[NDArray[np.float64], NDArray[np.float32]]


def roofs(size: int) -> Maps:
    """The hill with four roofs on it: eaves without a jump, gables with one of up to 9 % of the size."""
    depth, normals = hill(size)
    slope = -normals[..., :2].astype(np.float64) / normals[..., 2:]
    y = np.arange(size)
    for top, left, height, width in (
        (0.10, 0.08, 0.18, 0.30),
        (0.12, 0.55, 0.12, 0.33),
        (0.55, 0.10, 0.14, 0.25),
        (0.60, 0.50, 0.18, 0.35),
    ):
        a, b, h, w = (round(part * size) for part in (top, left, height, width))
        ridge = a + h / 2
        rise = np.clip(h / 2 - np.abs(y - ridge), 0, None)
        part = np.s_[a : a + h, b : b + w]
        depth[part] -= rise[a : a + h, None]
        slope[part][..., 1] += np.sign(y - ridge)[a : a + h, None]
    steep = np.concatenate([slope, -np.ones_like(depth)[..., None]], axis=-1)
    return depth, normalize(steep).astype(np.float32)


def tables() -> list[Table]:
    """0.25 MP against a sparse factorisation; 1 MP, smooth and with jumps, against algebraic multigrid."""
    return [_compare(500, direct=True), _compare(1000, direct=False)]


def _compare(size: int, *, direct: bool) -> Table:
    depth, normals = hill(size)
    smooth = _map(normals)

    def judge(found: NDArray[Any], true: NDArray[np.float64] = depth) -> str:
        off = found - true
        return f"mean {np.abs(off - np.median(off)).mean():.2g} px"

    candidates = [Candidate("gnomon, all smooth", lambda: integrate(smooth, None, smooth=True), judge)]
    matrix, right = _equations(normals)
    if direct:
        held = matrix + sparse.csr_matrix(([1.0], ([0], [0])), matrix.shape)
        candidates.append(
            Candidate(
                "scipy spsolve (SuperLU)",
                lambda: spsolve(held.tocsc(), right).reshape(size, size),
                judge,
                turns=1,
            )
        )
    elif importlib.util.find_spec("pyamg") is None:
        print("pyamg is not installed: its rows are left out (pip install pyamg)", file=sys.stderr)
    else:
        candidates.append(
            Candidate(
                "pyamg Ruge-Stuben + CG to 1e-6, matrix at hand",
                lambda: _algebraic(matrix, right).reshape(size, size),
                judge,
                turns=2,
            )
        )
    jumping, steep = roofs(size)
    torn = _map(steep)
    candidates += [
        Candidate(
            "gnomon, jumps kept, on four roofs",
            lambda: integrate(torn, None),
            lambda found: judge(found, jumping),
        ),
        Candidate(
            "gnomon, all smooth, on four roofs",
            lambda: integrate(torn, None, smooth=True),
            lambda found: judge(found, jumping),
        ),
    ]
    return compare(f"integrate normals, {size * size / 1e6:.2g} MP", candidates)


def _map(normals: NDArray[np.float32]) -> NormalMap:
    shape = normals.shape[:2]
    return NormalMap(
        normals=normals,
        albedo=np.ones(shape, np.float32),
        valid=np.ones(shape, bool),
        sigma_deg=np.full(shape, 0.5, np.float32),
        lights_used=np.full(shape, 24, np.uint8),
    )


def _equations(normals: NDArray[np.float32]) -> tuple[Any, NDArray[np.float64]]:
    """Normal equations of the same differences, unweighted."""
    h, w = normals.shape[:2]
    number = np.arange(h * w).reshape(h, w)
    slope = -normals[..., :2].astype(np.float64) / normals[..., 2:]
    starts = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    ends = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    across, down = slope[..., 0], slope[..., 1]
    rise = 0.5 * np.concatenate([(across[:, :-1] + across[:, 1:]).ravel(), (down[:-1] + down[1:]).ravel()])
    rows = np.arange(len(starts))
    ones = np.ones(len(starts))
    system = sparse.csr_matrix(
        (np.concatenate([-ones, ones]), (np.tile(rows, 2), np.concatenate([starts, ends]))),
        (len(starts), h * w),
    )
    return (system.T @ system).tocsr(), np.asarray(system.T @ rise)


def _algebraic(matrix: Any, right: NDArray[np.float64]) -> NDArray[np.float64]:
    import pyamg

    return np.asarray(pyamg.ruge_stuben_solver(matrix).solve(right, tol=1e-6, accel="cg"))


def main() -> None:
    """Print the tables and what memory gnomon takes of it."""
    _, normals = roofs(1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    integrate(_map(normals), None)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(markdown(tables()))
    print(
        f"\nPeak memory, 1 MP with jumps: {after / 1024:.0f} MB, {(after - before) / 1024:.0f} MB of it new"
    )


if __name__ == "__main__":
    main()
