"""Pieces of a surface between the places where it may jump, and how they are put together."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from calibration.geometry import Float

# Offsets with this share of the most votes are told apart by chance only.
_AS_MANY = 0.8
# Across a gap a plane is carried on for as many pixels, and level beyond.
_CARRIED = 3.0


def pieces(joined: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Number of pieces that edges (2, h, w) join, and their labels (h, w) from 0."""
    _, h, w = joined.shape
    # Pixels on even rows and columns, the edges between them on the odd ones.
    grid = np.zeros((2 * h - 1, 2 * w - 1), np.uint8)
    grid[::2, ::2] = 1
    grid[::2, 1::2] = joined[0, :, :-1]
    grid[1::2, ::2] = joined[1, :-1]
    count, labels = cv2.connectedComponents(grid, connectivity=4)
    return count - 1, np.asarray(labels[::2, ::2] - 1, np.int32)


def closed(cut: NDArray[np.bool_], edge: NDArray[np.bool_], reach: float) -> NDArray[np.bool_]:
    """``cut`` (2, h, w) with its holes closed, up to about twice ``reach`` px wide.

    Of the pixels further than ``reach`` from a cut those that touch are one core; every other pixel goes to
    the nearest core, and edges between pixels of two cores are cut too.
    """
    if not cut.any():
        return cut
    apart = np.ones(cut.shape[1:], np.uint8)
    apart[cut.any(axis=0)] = 0
    apart[:, 1:][cut[0, :, :-1]] = 0
    apart[1:][cut[1, :-1]] = 0
    narrow = (cv2.distanceTransform(apart, cv2.DIST_L2, 3) <= reach).astype(np.uint8)
    core = cv2.distanceTransformWithLabels(narrow, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)[1]
    found = cut.copy()
    found[0, :, :-1] |= core[:, 1:] != core[:, :-1]
    found[1, :-1] |= core[1:] != core[:-1]
    return np.asarray(found & edge)


def put_together(
    u: Float,
    goal: NDArray[np.floating],
    tolerance: NDArray[np.floating],
    edge: NDArray[np.bool_],
    cut: NDArray[np.bool_],
) -> Float:
    """Move the pieces of ``u`` between its ``cut`` edges to where most of their borders fit.

    Parameters
    ----------
    u : ndarray (h, w)
        Right within each piece.
    goal : ndarray (2, h, w)
        Differences of ``u`` along the edges that the normals tell.
    tolerance : ndarray (2, h, w)
        How far a difference may be off and still fit.
    edge, cut : ndarray (2, h, w) of bool
        Where neighbours have an edge, and where the surface may jump along it.

    Notes
    -----
    Each edge across a border votes for one offset of its two pieces. For each pair of pieces that which most
    edges agree on is taken, and a tree of the pairs with the most agreeing edges puts all in place.
    Of offsets with as many votes, but for chance, the smaller piece takes the one nearest to the camera: what
    is hinged on a surface rather rises from it than sinks into it.
    """
    count, labels = pieces(edge & ~cut)
    size = np.bincount(labels.ravel(), minlength=count)
    a, b, vote, within = _borders(u, goal, tolerance, edge & cut, labels)
    if not len(a):
        return u
    # Sorted by pair, then by vote: those who agree with a vote stand side by side.
    order = np.lexsort((vote, b, a))
    a, b, vote, within = a[order], b[order], vote[order], within[order]
    first = np.concatenate([[True], (np.diff(a) != 0) | (np.diff(b) != 0)])
    pair = np.cumsum(first) - 1
    apart = 2 * (np.ptp(vote) + 4 * within.max())
    low = np.searchsorted(vote + pair * apart, vote + pair * apart - within)
    high = np.searchsorted(vote + pair * apart, vote + pair * apart + within, side="right")
    agree = high - low
    most = np.maximum.reduceat(agree, np.flatnonzero(first))[pair]
    nearer = np.where(size[b] < size[a], vote, -vote)
    few = agree < np.maximum(most - np.sqrt(most), _AS_MANY * most)
    best = np.lexsort((nearer, few, pair))[np.flatnonzero(first)]
    sums = np.concatenate([[0.0], np.cumsum(vote)])
    offset = (sums[high] - sums[low])[best] / agree[best]
    return u + _along_tree(count, size, a[best], b[best], offset, agree[best])[labels]


def continued(
    u: Float,
    labels: NDArray[np.int32],
    step: Callable[[NDArray[np.intp], NDArray[np.intp]], Float],
) -> Float:
    """Offset (count,) at which each component of ``u`` goes on from the component nearest to it.

    Parameters
    ----------
    u : ndarray (h, w)
        Right within each component.
    labels : ndarray (h, w)
        Components from 0, the first of which stays; -1 in the gaps.
    step : callable
        Difference of ``u`` from pixels to others, both as flat indices, on the planes of the former.

    Notes
    -----
    Across a gap two planes meet half-way, but none is carried on for more than a few pixels: a rim that turns
    away would lead anywhere. The pixels nearest to each other count most, and a tree of the nearest
    components puts all in place.
    """
    gap = (labels < 0).astype(np.uint8)
    number = cv2.distanceTransformWithLabels(gap, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    inside = np.flatnonzero(gap == 0)
    pixel = np.zeros(number.max() + 1, np.intp)
    pixel[number.ravel()[inside]] = inside
    nearest = pixel[number]
    part = labels.ravel()[nearest]
    across, down = part[:, 1:] != part[:, :-1], part[1:] != part[:-1]
    p = np.concatenate([nearest[:, :-1][across], nearest[:-1][down]])
    q = np.concatenate([nearest[:, 1:][across], nearest[1:][down]])
    swap = labels.ravel()[p] > labels.ravel()[q]
    p, q = np.where(swap, q, p), np.where(swap, p, q)
    width = labels.shape[1]
    far = np.hypot(p // width - q // width, p % width - q % width)
    rise = 0.5 * (step(p, q) - step(q, p)) * np.minimum(1.0, _CARRIED / far)
    vote = u.ravel()[p] + rise - u.ravel()[q]
    count = int(labels.max()) + 1
    key = labels.ravel()[p].astype(np.int64) * count + labels.ravel()[q]
    pairs, pair = np.unique(key, return_inverse=True)
    weight = np.bincount(pair, far**-4.0)
    size = np.zeros(count, np.intp)
    size[0] = 1
    offset = np.bincount(pair, far**-4.0 * vote) / weight
    return _along_tree(count, size, pairs // count, pairs % count, offset, weight)


def _borders(
    u: Float,
    goal: NDArray[np.floating],
    tolerance: NDArray[np.floating],
    border: NDArray[np.bool_],
    labels: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], Float, Float]:
    """Of each edge between two pieces their labels, the lower first, what it votes for, its tolerance."""
    parts = []
    ends: tuple[tuple[Any, Any], ...] = ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:]))
    for axis, (p, q) in enumerate(ends):
        here, there = labels[p], labels[q]
        at = border[axis][p] & (here != there)
        one, other = here[at], there[at]
        vote = goal[axis][p][at] - (u[q][at] - u[p][at])
        swap = one > other
        parts.append(
            (
                np.where(swap, other, one),
                np.where(swap, one, other),
                np.where(swap, -vote, vote),
                tolerance[axis][p][at].astype(np.float64),
            )
        )
    a, b, vote, within = (np.concatenate(part) for part in zip(*parts, strict=True))
    return a, b, vote, within


def _along_tree(
    count: int,
    size: NDArray[np.intp],
    a: NDArray[np.integer],
    b: NDArray[np.integer],
    offset: Float,
    votes: NDArray[Any],
) -> Float:
    """Offset of each piece, by the pairs with most votes; the largest of those that hang together stays."""
    graph = sparse.coo_matrix((-votes.astype(np.float64), (a, b)), (count, count)).tocsr()
    bodies, body = connected_components(graph, directed=False)
    tree = minimum_spanning_tree(graph)
    order = np.lexsort((-size, body))
    leaders = order[np.searchsorted(body[order], np.arange(bodies))]
    # All leaders hang on one more node, from which the tree is walked once.
    branches = sparse.coo_matrix((np.ones(bodies), (np.full(bodies, count), leaders)), (count + 1, count + 1))
    tree.resize(count + 1, count + 1)
    order, before = breadth_first_order((abs(tree) + branches).tocsr(), count, directed=False)
    steps = sparse.coo_matrix((offset, (a, b)), (count + 1, count + 1)).tocsr()
    child = order[1:]
    parent = before[child]
    inner = parent < count
    step = np.zeros(count + 1)
    i, j = parent[inner], child[inner]
    step[j] = np.asarray(steps[i, j]).ravel() - np.asarray(steps[j, i]).ravel()
    place = step.tolist()
    for node, above in zip(child.tolist(), parent.tolist(), strict=True):
        place[node] += place[above]
    return np.asarray(place[:count])
