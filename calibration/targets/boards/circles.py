"""Circle grids: dark round blobs, put together to a lattice, and which disc of the board each is."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.description import CircleGrid
from calibration.targets.boards.view import Found, NoBoard

Grey = NDArray[np.uint8]
Lattice = dict[tuple[int, int], int]
_LEAST_AREA_PX = 20.0
_MISS = 0.3  # of a step: how far a disc may lie from where the lattice goes on
_SEEDS = 12


class Blobs(NamedTuple):
    """Dark round blobs: centres (n, 2) and images of the unit circle (n, 2, 2)."""

    pixels: Float
    shape: Float


def find_circles(grey: Grey, board: CircleGrid) -> tuple[Found, Float] | NoBoard:
    """Discs of the grid, with the images of the unit circle (n, 2, 2)."""
    best: tuple[Found, Float] | NoBoard = NoBoard("no dark discs seen")
    most = 0
    for part in (6, 20):
        blobs = _blobs(grey, max(grey.shape) // part)
        lattice = _largest_lattice(blobs.pixels)
        if len(lattice) <= most:
            continue
        most = len(lattice)
        placed = _placed(lattice, blobs.pixels, board)
        if isinstance(placed, NoBoard):
            best = placed
            continue
        ids, which = placed
        return Found(ids, blobs.pixels[which]), blobs.shape[which]
    return best


def _blobs(grey: Grey, block: int) -> Blobs:
    smooth = cv2.GaussianBlur(grey, (3, 3), 0)
    dark = cv2.adaptiveThreshold(
        smooth, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, 2 * (block // 2) + 1, 12
    )
    contours, _ = cv2.findContours(np.asarray(dark), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    pixels, shapes = [], []
    for contour in contours:
        m = cv2.moments(contour)
        area = m["m00"]
        if area < _LEAST_AREA_PX:
            continue
        second = np.array([[m["mu20"], m["mu11"]], [m["mu11"], m["mu02"]]]) / area
        low, high = np.linalg.eigvalsh(second)
        # An ellipse's area follows from its second moments; a long one is no disc in view.
        if low <= 0 or high > 40 * low or abs(4 * np.pi * np.sqrt(low * high) / area - 1) > 0.08:
            continue
        hull = cv2.contourArea(cv2.convexHull(contour))
        if area < 0.9 * hull:
            continue
        pixels.append((m["m10"] / area, m["m01"] / area))
        shapes.append(np.linalg.cholesky(4 * second))
    return _single(Blobs(np.array(pixels).reshape(-1, 2), np.array(shapes).reshape(-1, 2, 2)))


def _single(blobs: Blobs) -> Blobs:
    """Blobs with no smaller one inside: the sheet's outline may well be an ellipse round a disc."""
    radius = np.sqrt(np.abs(np.linalg.det(blobs.shape)))
    away = np.linalg.norm(blobs.pixels[:, None] - blobs.pixels, axis=2)
    order = np.arange(len(radius))
    smaller = (radius[:, None] > radius) | ((radius[:, None] == radius) & (order[:, None] > order))
    keep = ~np.any((away < 0.7 * radius[:, None]) & smaller, axis=1)
    return Blobs(blobs.pixels[keep], blobs.shape[keep])


def _largest_lattice(pixels: Float) -> Lattice:
    """Blobs by their place in the largest lattice that grows from one of several seeds."""
    best: Lattice = {}
    if len(pixels) < 4:
        return best
    order = np.argsort(np.linalg.norm(pixels - np.median(pixels, axis=0), axis=1), kind="stable")
    for seed in order[:: max(1, len(order) // (2 * _SEEDS))][:_SEEDS]:
        away = np.linalg.norm(pixels - pixels[seed], axis=1)
        near = np.argsort(away, kind="stable")[1:6]
        steps = pixels[near] - pixels[seed]
        first = steps[0]
        for second in steps[1:]:
            cross = first[0] * second[1] - first[1] * second[0]
            if abs(cross) < 0.5 * np.linalg.norm(first) * np.linalg.norm(second):
                continue
            lattice = _grown(pixels, int(seed), first, second if cross > 0 else -second)
            if len(lattice) > len(best):
                best = lattice
            break
        if 2 * len(best) > len(pixels):
            break
    return best


def _grown(pixels: Float, seed: int, u: Float, v: Float) -> Lattice:
    """Lattice from a seed: each disc looks for its four neighbours where its own steps lead."""
    places: Lattice = {(0, 0): seed}
    steps = {(0, 0): (u, v)}
    taken = {seed}
    front = [(0, 0)]
    while front:
        place = front.pop(0)
        here, (u, v) = pixels[places[place]], steps[place]
        for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
            there = (place[0] + sign * (axis == 0), place[1] + sign * (axis == 1))
            if there in places:
                continue
            step = sign * (u if axis == 0 else v)
            away = np.linalg.norm(pixels - here - step, axis=1)
            nearest = int(np.argmin(away))
            if away[nearest] > _MISS * np.linalg.norm(step) or nearest in taken:
                continue
            own = sign * (pixels[nearest] - here)
            places[there], steps[there] = nearest, (own, v) if axis == 0 else (u, own)
            taken.add(nearest)
            front.append(there)
    return places


def _placed(
    lattice: Lattice, pixels: Float, board: CircleGrid
) -> tuple[NDArray[np.int64], list[int]] | NoBoard:
    """Ids of the lattice's discs: the turn and shift under which all of the board's discs are there.

    The lattice of an asymmetric grid has its steps along the diagonals. Of turns that fit alike the one with
    the x axis most to the right is taken.
    """
    i, j = (index.ravel() for index in np.indices((board.rows, board.columns)))
    if board.asymmetric:
        x, y = 2 * j + i % 2, i
        want = np.stack([(x + y) // 2, (y - x) // 2 + board.columns], axis=1)
    else:
        want = np.stack([j, i], axis=1)
    seen = np.array(list(lattice))
    which = np.array(list(lattice.values()))
    best: tuple[tuple[int, float], NDArray[np.int64], list[int]] | None = None
    largest = 0
    for quarters in range(4):
        turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarters)
        turned = seen @ turn.T
        shape = turned.max(axis=0) - turned.min(axis=0)
        room = want.max(axis=0) - want.min(axis=0)
        slack = np.abs(shape - room)
        for a in range(-int(slack[0]) - 1, int(slack[0]) + 2):
            for b in range(-int(slack[1]) - 1, int(slack[1]) + 2):
                at = {
                    (int(p), int(q)): int(k)
                    for (p, q), k in zip(turned - turned.min(axis=0) + (a, b), which, strict=True)
                }
                ids = [n for n, (p, q) in enumerate(want - want.min(axis=0)) if (int(p), int(q)) in at]
                largest = max(largest, len(ids))
                if len(ids) < len(want):
                    continue
                blobs = [at[int(p), int(q)] for p, q in want - want.min(axis=0)]
                grid = pixels[blobs].reshape(board.rows, board.columns, 2)
                x_axis = np.mean(grid[:, -1] - grid[:, 0], axis=0)
                rank = (-abs(len(at) - len(ids)), float(x_axis[0] / np.linalg.norm(x_axis)))
                if best is None or rank > best[0]:
                    best = rank, np.array(ids, np.int64), blobs
    if best is None:
        return NoBoard(
            f"a lattice of {len(lattice)} discs seen, of which {largest} fit the {len(want)} described: "
            "another board, or one partly out of view: a circle grid must be seen as a whole, its discs have "
            "no numbers"
        )
    if -best[0][0] > 0.1 * len(want):
        return NoBoard(
            f"a lattice of {len(lattice)} discs seen where {len(want)} are described: another board"
        )
    return best[1], best[2]
