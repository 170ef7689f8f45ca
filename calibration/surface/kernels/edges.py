"""Differences that normals predict between neighbouring pixels, and which of them are believed, compiled.

Arrays of edges are (2, h, w): [0] joins (y, x) to (y, x + 1), [1] joins (y, x) to (y + 1, x). ``span`` is
zero where there is no edge. All is per pixel: nothing depends on the number of threads.
"""

from typing import Any

import numpy as np
from numba import njit, prange

# Of an edge that is not believed at all: what it joins stays in one piece.
_LEAST = 1e-5
_STEEPEST = 0.1
# A jump counts this much where the nearer side turns away altogether, in full where it faces the camera.
_EDGE_ON = 0.3
# Variance, px along the normal: below, differences of normals are their rounding.
_ROUNDING = 1e-6


@njit(cache=True, parallel=True)
def face(normals: Any, rays: Any, sigma_deg: Any, grazing: Any, facing: Any, cosine: Any, noise: Any) -> None:
    """``facing`` is the normal times the line of sight, zero where it grazes or is not known.

    ``cosine`` is that for a line of sight of unit length. ``noise`` is the variance, in px along the normal,
    of the step between two pixels that the normal tells.
    """
    for y in prange(facing.shape[0]):
        for x in range(facing.shape[1]):
            if rays is None:
                length = 1.0
                value = -1.0 * normals[y, x, 2]
            else:
                length = 0.0
                value = 0.0
                for k in range(3):
                    ray = np.float64(rays[y, x, k])
                    value -= normals[y, x, k] * ray
                    length += ray * ray
                length = np.sqrt(length)
            sigma = np.radians(np.float64(sigma_deg[y, x]))
            known = value > grazing * length and np.isfinite(sigma) and np.isfinite(value)
            facing[y, x] = value if known else 0.0
            cosine[y, x] = value / length if known else 0.0
            noise[y, x] = 0.5 * (sigma * length / value) ** 2 if known else 0.0


@njit(cache=True, parallel=True)
def predict(
    normals: Any, rays: Any, facing: Any, noise: Any, floors: Any,
    one: Any, other: Any, span: Any, base: Any, spread: Any,
) -> None:  # fmt: skip
    """Differences from the normal of the ``one`` end and of the ``other``, after ``face``.

    ``span`` turns a difference into px along the normal, ``base`` is the weight of the edge where nothing
    jumps, ``spread`` how far off it may be in px. ``floors``: of the weight, of the spread, and the share of
    the bend between the ends that the spread has.
    """
    height, width = facing.shape
    for y in prange(height):
        row = np.int64(y)
        for axis in range(2):
            for x in range(width):
                v, u = row + axis, x + 1 - axis
                span[axis, y, x] = 0.0
                base[axis, y, x] = 0.0
                one[axis, y, x] = 0.0
                other[axis, y, x] = 0.0
                spread[axis, y, x] = 1.0
                if v >= height or u >= width or facing[y, x] == 0.0 or facing[v, u] == 0.0:
                    continue
                p, q = facing[y, x], facing[v, u]
                if rays is None:
                    a, b = normals[y, x, axis] / p, normals[v, u, axis] / q
                    step = 1.0
                else:
                    cross = 0.0
                    back = 0.0
                    step = 0.0
                    for k in range(3):
                        here, there = np.float64(rays[y, x, k]), np.float64(rays[v, u, k])
                        cross -= normals[y, x, k] * there
                        back -= normals[v, u, k] * here
                        step += (there - here) ** 2
                    # Half a step from here the surface would be seen from the side.
                    if cross < _STEEPEST * p or back < _STEEPEST * q:
                        continue
                    step = np.sqrt(step)
                    a, b = np.log(p / cross), np.log(back / q)
                s = 2 * p * q / ((p + q) * step)
                n = 0.5 * (noise[y, x] + noise[v, u])
                one[axis, y, x] = a
                other[axis, y, x] = b
                span[axis, y, x] = s
                base[axis, y, x] = s * s / (n + floors[0] ** 2)
                bend = floors[2] * 0.5 * s * (a - b)
                spread[axis, y, x] = np.sqrt(floors[1] ** 2 + bend**2 + 0.5 * n)


@njit(cache=True, parallel=True)
def one_sided(u: Any, one: Any, other: Any, span: Any, base: Any, k: Any, weight: Any, goal: Any) -> Any:
    """Bilateral weights: along each axis a pixel holds rather to the side where depth changes less.

    ``weight`` and ``goal``, of each edge the difference that both ends together want, are filled; returned is
    the sum, row by row, of how far weights have moved.
    """
    moved = np.zeros(u.shape[0])
    height, width = u.shape
    for y in prange(height):
        row = np.int64(y)
        for axis in range(2):
            for x in range(width):
                if span[axis, y, x] == 0.0:
                    weight[axis, y, x] = 0.0
                    goal[axis, y, x] = 0.0
                    continue
                v, w = row + axis, x + 1 - axis
                here = (span[axis, y, x] * (u[v, w] - u[y, x])) ** 2
                before = 0.0
                after = 0.0
                if axis == 0:
                    if x > 0 and span[0, y, x - 1] > 0:
                        before = (span[0, y, x - 1] * (u[y, x] - u[y, x - 1])) ** 2
                    if span[0, v, w] > 0:
                        after = (span[0, v, w] * (u[v, w + 1] - u[v, w])) ** 2
                else:
                    if y > 0 and span[1, y - 1, x] > 0:
                        before = (span[1, y - 1, x] * (u[y, x] - u[y - 1, x])) ** 2
                    if span[1, v, w] > 0:
                        after = (span[1, v, w] * (u[v + 1, w] - u[v, w])) ** 2
                a = 1 / (1 + np.exp(min(k * (here - before), 60.0)))
                b = 1 / (1 + np.exp(min(k * (here - after), 60.0)))
                total = a + b + 2 * _LEAST
                old = weight[axis, y, x]
                weight[axis, y, x] = base[axis, y, x] * total
                moved[y] += abs(weight[axis, y, x] - old)
                wanted = (a + _LEAST) * one[axis, y, x] + (b + _LEAST) * other[axis, y, x]
                goal[axis, y, x] = wanted / total
    return moved


@njit(cache=True, parallel=True, error_model="numpy", fastmath=True)
def redescending(
    u: Any, goal: Any, one: Any, other: Any, span: Any, base: Any, spread: Any, cosine: Any, wide: Any,
    weight: Any,
) -> Any:  # fmt: skip
    """Weights that fall with an edge's misfit over ``wide`` times its spread; returned: the loss of each row.

    The general robust loss with shape -1: J. T. Barron, doi:10.1109/CVPR.2019.00446. A round thing that hides
    another turns away from the camera where it ends: a jump behind such a rim is believed sooner.
    """
    loss = np.zeros(u.shape[0])
    height, width = u.shape
    for y in prange(height):
        row = np.int64(y)
        for axis in range(2):
            v, right = min(row + axis, height - 1), 1 - axis
            weight[axis, y, width - 1] = 0.0
            total = 0.0
            # Without a branch, and summed in any order: so it is compiled to vectors, 8 times as fast.
            # Where there is no edge ``base`` is zero.
            for x in range(width - right):
                s = span[axis, y, x]
                off = s * (u[v, x + right] - u[y, x] - goal[axis, y, x])
                here = cosine[y, x] if one[axis, y, x] > 0 else 1.0
                there = cosine[v, x + right] if other[axis, y, x] < 0 else 1.0
                turned = here if off > 0 else there
                wide_spread = wide * spread[axis, y, x]
                scale = wide_spread * wide_spread * (_EDGE_ON + (1 - _EDGE_ON) * turned)
                t = 1 + off * off / scale
                root = 1 / np.sqrt(t)
                weight[axis, y, x] = base[axis, y, x] * max(root / t, _LEAST)
                square = s * s if s > 0 else 1.0
                total += base[axis, y, x] * scale / square * (1 - root)
            loss[y] += total
    return loss


@njit(cache=True, parallel=True)
def contradict(one: Any, other: Any, span: Any, noise: Any, squares: Any, creases: Any) -> None:
    """How far normals contradict each other, in sigmas of their noise.

    ``squares`` (h, w): what the four steps round a square of pixels, whose first is the pixel, sum up to; a
    surface without a jump leaves zero. -1 where one of the four is not known. ``creases`` (2, h, w): by
    how much an edge bends beyond one and a half times what the edges before and after it bend.
    """
    height, width = squares.shape
    for y in prange(height):
        row = np.int64(y)
        for x in range(width):
            squares[y, x] = -1.0
            for axis in range(2):
                creases[axis, y, x] = 0.0
                if span[axis, y, x] == 0.0:
                    continue
                v, w = row + axis, x + 1 - axis
                own = span[axis, y, x] * (one[axis, y, x] - other[axis, y, x])
                near = 0.0
                count = 0
                i, j = row - axis, x - 1 + axis
                if i >= 0 and j >= 0 and span[axis, i, j] > 0:
                    near += span[axis, i, j] * (one[axis, i, j] - other[axis, i, j])
                    count += 1
                if span[axis, v, w] > 0:
                    near += span[axis, v, w] * (one[axis, v, w] - other[axis, v, w])
                    count += 1
                if count > 1:
                    near *= 0.5
                # Two normals one and a half times, their neighbours half: 5 variances.
                sigma = np.sqrt(2.5 * (noise[y, x] + noise[v, w]) + _ROUNDING)
                creases[axis, y, x] = max(abs(own - near) - 0.5 * abs(near), 0.0) / sigma
            if row + 1 == height or x + 1 == width:
                continue
            a, b, c, d = span[0, y, x], span[0, row + 1, x], span[1, y, x], span[1, y, x + 1]
            if a > 0 and b > 0 and c > 0 and d > 0:
                total = one[0, y, x] + other[0, y, x] + one[1, y, x + 1] + other[1, y, x + 1]
                total -= one[0, row + 1, x] + other[0, row + 1, x] + one[1, y, x] + other[1, y, x]
                around = noise[y, x] + noise[y, x + 1] + noise[row + 1, x] + noise[row + 1, x + 1]
                # Each normal counts half for two steps: 2 variances.
                sigma = np.sqrt(0.5 * around + _ROUNDING)
                squares[y, x] = 0.5 * abs(total) * min(a, b, c, d) / sigma
