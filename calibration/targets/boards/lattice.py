"""Corners of a checkerboard as saddles of the grey values, put together square by square."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from calibration.geometry import Float

Grey = NDArray[np.uint8]
Place = tuple[int, int]
_SCALES_PX = (2.0, 1.2, 4.0)
_LEAST_SADDLE = 0.6  # grey values: curvature along a quadrant's middle times scale^2
_MOST_SADDLES = 4000
_NEAR = 48  # saddles among which the next corner is looked for
_ASTRAY = 0.45  # sine of the angle between an edge and the step along it
_RING = 3.0  # its radius, of the scale
_RAYS = 24  # over half a turn
_LOPSIDED = 1.0  # difference of opposite sides, of the contrast
_TURNED = 0.45  # sine of the angle between the edges across the step, of one corner and the next
_SLIMMEST = 0.15  # sine of the angle between a corner's edges
_ALIKE = 5.0  # between the strengths of neighbours
_BESIDE = 0.15  # of an edge's length: where its two sides are compared
_STEADY = 0.25  # least contrast along an edge, of the most
_ALONG = (0.25, 0.375, 0.5, 0.625, 0.75)


class _Saddles(NamedTuple):
    """Saddles (n, 2), unit vectors along their two edges (n, 2, 2), and how strong they are (n,).

    Looking out along the first edge, either way, the side that a turn from x to y leads to is bright;
    along the second it is dark.
    """

    pixels: Float
    edges: Float
    strength: Float


class _Links(NamedTuple):
    """The next corner along each edge (n, edge, way), -1 where there is none, and by which way it looks back.

    Along an edge the colours' sides stay, so a corner's first edge is its neighbour's second.
    """

    to: NDArray[np.int64]
    back: NDArray[np.int64]


def find_lattice(grey: Grey, enough: int) -> Float | None:
    """Corners of the largest checkerboard in a picture, by rows and columns.

    Corners are saddles of the smoothed grey values round which a ring turns bright and dark twice. Two are
    neighbours where each is the next along the other's edge, and where one side of the edge between is the
    brighter one all the way: one square further the sides would change. Four neighbours make a square; what
    is part of no square is left out. So no corner of the lattice is skipped, and the pattern's outer border,
    where edges meet without crossing, is not part of it.

    Parameters
    ----------
    grey : ndarray (h, w), uint8
        Blurred by less than about a quarter of a square.
    enough : int
        Number of corners at which no coarser scale is tried.

    Returns
    -------
    ndarray (rows, columns, 2) or None
        Right-handed as the picture is; NaN where a corner is missing. None where no square is seen.
    """
    best: dict[Place, int] = {}
    pixels = np.empty((0, 2))
    for scale in _SCALES_PX:
        smooth = np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), scale), np.float32)
        saddles = _saddles(smooth, scale)
        if len(saddles.pixels) < 4:
            continue
        places = _largest(saddles, _links(smooth, saddles))
        if len(places) > len(best):
            best, pixels = places, saddles.pixels
        if len(best) >= enough:
            break
    if not best:
        return None
    at = np.array(list(best))
    at -= at.min(axis=0)
    grid = np.full((at[:, 1].max() + 1, at[:, 0].max() + 1, 2), np.nan)
    grid[at[:, 1], at[:, 0]] = pixels[list(best.values())]
    return _trimmed(grid)


def _trimmed(grid: Float) -> Float:
    """Without outer rows of one square: an edge of the surroundings may continue one of the pattern."""
    for quarters in range(4):
        g = np.rot90(grid, quarters)
        count = int(np.isfinite(g[0, :, 0]).sum())
        if len(g) > 2 and count < 3 and 2 * count < g.shape[1]:
            grid = np.rot90(g[1:], -quarters)
    return grid


def one_square_apart(grey: Grey, start: Float, end: Float) -> NDArray[np.bool_]:
    """Whether one side of each edge, from ``start`` to ``end`` (n, 2), is the brighter one all the way."""
    smooth = np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0), np.float32)
    contrast = _contrast(smooth, start, end)
    return _steady(np.where(contrast.sum(axis=1, keepdims=True) < 0, -contrast, contrast))


def _steady(contrast: Float) -> NDArray[np.bool_]:
    return np.asarray(contrast.min(axis=1) > np.maximum(_STEADY * contrast.max(axis=1), 0.0))


def _contrast(smooth: NDArray[np.float32], start: Float, end: Float) -> Float:
    """Grey values on the +det side less those on the other, at places along each edge: (n, k)."""
    step = end - start
    at = start[:, None] + np.array(_ALONG)[:, None] * step[:, None]
    aside = _BESIDE * np.stack([-step[:, 1], step[:, 0]], axis=1)[:, None]
    return _sampled(smooth, at + aside) - _sampled(smooth, at - aside)


def _sampled(smooth: NDArray[np.float32], pixels: Float) -> Float:
    """Grey values between pixels, in double precision."""
    rows_columns = np.moveaxis(pixels, -1, 0)[::-1]
    return np.asarray(map_coordinates(smooth, rows_columns, np.float64, order=1, mode="nearest"))


def _saddles(smooth: NDArray[np.float32], scale: float) -> _Saddles:
    dy, dx = (np.asarray(slope) for slope in np.gradient(smooth))
    xy, xx = (np.asarray(bend) for bend in np.gradient(dx))
    yy = np.asarray(np.gradient(dy)[0])
    strength = np.asarray(xy * xy - xx * yy, np.float32)
    reach = 2 * round(scale) + 1
    peak = (strength == cv2.dilate(strength, np.ones((reach, reach), np.uint8))) & (
        strength > (_LEAST_SADDLE / scale**2) ** 2
    )
    v, u = np.nonzero(peak)
    if len(u) > _MOST_SADDLES:
        strongest = np.argsort(-strength[v, u], kind="stable")[:_MOST_SADDLES]
        u, v = u[strongest], v[strongest]
    hessian = np.stack([xx[v, u], xy[v, u], xy[v, u], yy[v, u]], axis=1).reshape(-1, 2, 2).astype(np.float64)
    slope = np.stack([dx[v, u], dy[v, u]], axis=1).astype(np.float64)
    step = -np.linalg.solve(hessian, slope[..., None])[..., 0] if len(u) else np.empty((0, 2))
    near = np.linalg.norm(step, axis=1) < scale
    at = np.stack([u, v], axis=1)[near] + step[near]
    edges, crossing = _edges(smooth, at, _RING * scale)
    return _Saddles(at[crossing], edges[crossing], np.sqrt(strength[v, u][near][crossing].astype(np.float64)))


def _edges(smooth: NDArray[np.float32], pixels: Float, radius: float) -> tuple[Float, NDArray[np.bool_]]:
    """Unit vectors (n, 2, 2) to where half a ring round each saddle turns bright, and dark; if once (n,).

    Curvatures would not do: however skew two edges cross, blurred they curve as square ones.
    """
    angle = np.arange(_RAYS) * np.pi / _RAYS
    ray = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    ahead, behind = (_sampled(smooth, pixels[:, None] + sign * ray) for sign in (1, -1))
    level = (ahead + behind) / 2 - _sampled(smooth, pixels)[:, None]
    after = np.roll(level, -1, axis=1)
    edges = np.zeros((len(pixels), 2, 2))
    once = np.abs(level).max(axis=1) > 0
    for k, rising in enumerate((True, False)):
        turns = (level < 0) & (after >= 0) if rising else (level >= 0) & (after < 0)
        once &= turns.sum(axis=1) == 1
        j = np.argmax(turns, axis=1)
        low, high = (np.take_along_axis(side, j[:, None], axis=1)[:, 0] for side in (level, after))
        turned = (j + low / np.where(high == low, 1.0, low - high)) * np.pi / _RAYS
        edges[:, k] = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    flip = np.abs(ahead - behind).mean(axis=1) < _LOPSIDED * np.abs(level).mean(axis=1)
    skew = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    return edges, np.asarray(once & flip & (skew > _SLIMMEST))


def _links(smooth: NDArray[np.float32], saddles: _Saddles) -> _Links:
    pixels, edges, strength = saddles
    n = len(pixels)
    distance, other = cKDTree(pixels).query(pixels, k=min(_NEAR + 1, n))
    distance, other = distance[:, 1:], other[:, 1:]
    step = (pixels[other] - pixels[:, None]) / np.maximum(distance, 1e-9)[..., None]
    ratio = strength[other] / strength[:, None]
    alike = (ratio < _ALIKE) & (ratio > 1 / _ALIKE)
    to = np.full((n, 2, 2), -1, np.int64)
    back = np.zeros((n, 2, 2), np.int64)
    for edge in (0, 1):
        off = step[..., 0] * edges[:, edge, 1, None] - step[..., 1] * edges[:, edge, 0, None]
        along = np.einsum("nka,na->nk", step, edges[:, edge])
        theirs = edges[other, 1 - edge]
        their_off = step[..., 0] * theirs[..., 1] - step[..., 1] * theirs[..., 0]
        across, theirs_across = edges[:, None, 1 - edge], edges[other, edge]
        turned = across[..., 0] * theirs_across[..., 1] - across[..., 1] * theirs_across[..., 0]
        # The neighbour's way that leads back is its forward one where that points against the step.
        their_way = (np.sum(step * theirs, axis=2) > 0).astype(np.int64)
        for way, sign in enumerate((1, -1)):
            ahead = (np.abs(off) < _ASTRAY) & (np.abs(their_off) < _ASTRAY) & (sign * along > 0)
            ahead &= np.abs(turned) < _TURNED
            here, k = np.nonzero(ahead & alike)
            bright = _contrast(smooth, pixels[here], pixels[other[here, k]]) * (1 if edge == 0 else -1)
            held = _steady(bright)
            # The nearest of those that hold: they come in order of their distance.
            first, index = np.unique(here[held], return_index=True)
            chosen = k[held][index]
            to[first, edge, way] = other[first, chosen]
            back[first, edge, way] = their_way[first, chosen]
    mutual = np.zeros_like(to, dtype=bool)
    for edge in (0, 1):
        seen = to[:, edge]
        mutual[:, edge] = (seen >= 0) & (to[seen, 1 - edge, back[:, edge]] == np.arange(n)[:, None])
    return _Links(np.where(mutual, to, -1), back)


def _largest(saddles: _Saddles, links: _Links) -> dict[Place, int]:
    """The largest connected lattice of whole squares."""
    best: dict[Place, int] = {}
    visited = np.zeros(len(saddles.pixels), dtype=bool)
    for seed in range(len(visited)):
        if visited[seed]:
            continue
        places, joined = _grown(saddles, links, seed)
        visited[list(places.values())] = True
        if len(places) >= 4 and len(places) > len(best):
            whole = _whole_squares(places, joined)
            if len(whole) > len(best):
                best = whole
    return best


def _grown(saddles: _Saddles, links: _Links, seed: int) -> tuple[dict[Place, int], set[tuple[Place, Place]]]:
    """Corners by their place (column, row), walked to from a seed, and which neighbours are linked."""
    places: dict[Place, int] = {(0, 0): seed}
    ways = {seed: _frame(saddles.edges[seed], 0, 0, 0)}
    of = {seed: (0, 0)}
    joined: set[tuple[Place, Place]] = set()
    front = [seed]
    while front:
        here = front.pop(0)
        place = of[here]
        for axis, (edge, way) in enumerate(ways[here]):
            for sign in (1, -1):
                out = way if sign > 0 else 1 - way
                there = int(links.to[here, edge, out])
                if there < 0:
                    continue
                at = (place[0] + sign * (axis == 0), place[1] + sign * (axis == 1))
                if there not in of and at not in places:
                    looks_back = int(links.back[here, edge, out])
                    forward = 1 - looks_back if sign > 0 else looks_back
                    ways[there] = _frame(saddles.edges[there], 1 - edge, forward, axis)
                    places[at], of[there] = there, at
                    front.append(there)
                if of.get(there) == at:
                    joined.add((min(place, at), max(place, at)))
    return places, joined


def _frame(edges: Float, edge: int, way: int, axis: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Edge and way along +x and +y of a corner, right-handed; those of one ``axis`` are known."""
    known = edges[edge] * (1 if way == 0 else -1)
    other = edges[1 - edge]
    det = known[0] * other[1] - known[1] * other[0]
    other_way = int((det > 0) != (axis == 0))
    return ((edge, way), (1 - edge, other_way)) if axis == 0 else ((1 - edge, other_way), (edge, way))


def _whole_squares(places: dict[Place, int], joined: set[tuple[Place, Place]]) -> dict[Place, int]:
    """The largest part of a lattice that hangs together by squares with all four sides linked."""
    squares: set[Place] = set()
    for x, y in places:
        a, b, c, d = (x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)
        if all(side in joined for side in ((a, b), (a, c), (b, d), (c, d))):
            squares.add((x, y))
    best: set[Place] = set()
    while squares:
        front = [min(squares)]
        squares.remove(front[0])
        part: set[Place] = set()
        while front:
            x, y = front.pop()
            part |= {(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)}
            for near in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                if near in squares:
                    squares.remove(near)
                    front.append(near)
        if len(part) > len(best):
            best = part
    return {place: places[place] for place in sorted(best)}
