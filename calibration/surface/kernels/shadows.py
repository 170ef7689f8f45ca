"""Sight of a light over a depth map, compiled. All is per pixel: nothing depends on the number of threads."""

from typing import Any

import numpy as np
from numba import njit, prange

TILE = 64


@njit(cache=True, inline="always")
def _bilinear(image: Any, x: Any, y: Any) -> Any:
    i = min(int(y), image.shape[0] - 2)
    j = min(int(x), image.shape[1] - 2)
    a = y - i
    b = x - j
    return (1 - a) * ((1 - b) * image[i, j] + b * image[i, j + 1]) + a * (
        (1 - b) * image[i + 1, j] + b * image[i + 1, j + 1]
    )


@njit(cache=True, parallel=True)
def march(
    nearness: Any,
    reach: Any,
    highest: Any,
    places: Any,
    depth: Any,
    light: Any,
    perspective: Any,
    first: Any,
    margin: Any,
    hidden: Any,
) -> None:
    """Write True into ``hidden`` (h, w) where the surface stands between a pixel's point and a light.

    ``nearness`` is 1/z on a grid of lines of sight (minus z for an orthographic view), 0 (minus infinity)
    where there is no surface; ``reach`` the greatest of a place and its neighbours to the right and below;
    ``highest`` the maximum of that over tiles of TILE. ``places`` (h, w, 2): column and row of each pixel in
    that grid. ``light`` (4,): x and y, in columns and rows times z, z, and 1 for a place or 0 for a
    direction. A point of the surface hides when it is nearer by ``margin``, relative (absolute for an
    orthographic view); the first ``first`` columns and rows of the way are not looked at.

    Along the picture of a way to a light 1/z changes linearly, for a pinhole; z for an orthographic view.
    """
    rows, columns = nearness.shape
    for v in prange(depth.shape[0]):
        for u in range(depth.shape[1]):
            hidden[v, u] = False
            z = np.float64(depth[v, u])
            if not np.isfinite(z):
                continue
            x = np.float64(places[v, u, 0])
            y = np.float64(places[v, u, 1])
            if perspective:
                dz = light[2] - light[3] * z
                ex = light[0] - light[3] * x * z - x * dz
                ey = light[1] - light[3] * y * z - y * dz
            else:
                dz = light[2]
                ex = light[0]
                ey = light[1]
            length = np.sqrt(ex * ex + ey * ey)
            if length == 0.0:
                continue
            ex /= length
            ey /= length
            # Steps for one column and for one row, and the side of a tile where the way leaves it.
            perx = 1.0 / ex if abs(ex) > 1e-9 else 1e9
            pery = 1.0 / ey if abs(ey) > 1e-9 else 1e9
            aheadx = 1 if perx > 0 else 0
            aheady = 1 if pery > 0 else 0
            # What the way gains in nearness for one column or row of its picture.
            start, slope = (1.0 / z, -dz / (z * length)) if perspective else (-z, -dz / length)
            # A near light is passed at t = 1, t being the way over the distance to the light.
            end = np.inf
            if light[3] > 0:
                end = length / light[2] if light[2] > 0 else np.inf
            k = first
            while k < end:
                px = x + k * ex
                py = y + k * ey
                if not (0.0 <= px <= columns - 1 and 0.0 <= py <= rows - 1):
                    break
                way = start + k * slope
                row = int(py) // TILE
                column = int(px) // TILE
                top = highest[row, column]
                if top <= way:
                    left = min(((column + aheadx) * TILE - px) * perx, ((row + aheady) * TILE - py) * pery)
                    if top <= way + left * slope:
                        k += max(np.ceil(left), 1.0)
                        continue
                bar = way * (1 + margin) if perspective else way + margin
                if reach[int(py), int(px)] > bar and _bilinear(nearness, px, py) > bar:
                    hidden[v, u] = True
                    break
                k += 1.0


@njit(cache=True, parallel=True)
def sweep(
    nearness: Any, stretch: Any, shift: Any, factor: Any, term: Any, forward: Any, highest: Any
) -> None:
    """Write into ``highest`` (lines, columns) how high the surface rises from each column to the light.

    Each line of light crosses every column once: line i the column j at row (i - shift[j]) / stretch[j].
    Along it the height above the light's own ways is nearness * factor[j] + term[j], minus infinity beside
    the grid. ``forward``: the light lies towards higher columns.
    """
    rows, columns = nearness.shape
    for i in prange(highest.shape[0]):
        top = -np.inf
        for step in range(columns):
            j = columns - 1 - step if forward else step
            row = (i - shift[j]) / stretch[j]
            if 0.0 <= row <= rows - 1:
                k = min(int(row), rows - 2)
                part = row - k
                value = (1 - part) * nearness[k, j] + part * nearness[k + 1, j]
                top = max(top, value * factor[j] + term[j])
            highest[i, j] = top


@njit(cache=True, parallel=True)
def below(highest: Any, lines: Any, columns: Any, first: Any, own: Any, forward: Any, hidden: Any) -> None:
    """Write True into ``hidden`` (n,) where a point lies below what ``sweep`` found towards the light.

    ``lines``, ``columns`` (n,): where it is; ``first`` the columns passed over; ``own`` its height.
    """
    for p in prange(len(lines)):
        hidden[p] = False
        j = int(np.ceil(columns[p] + first)) if forward else int(np.floor(columns[p] - first))
        i = int(np.floor(lines[p]))
        if 0 <= j < highest.shape[1] and 0 <= i < highest.shape[0] - 1:
            part = lines[p] - i
            hidden[p] = (1 - part) * highest[i, j] + part * highest[i + 1, j] > own[p]
