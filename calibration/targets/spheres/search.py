"""Where circles may be: a vote of edges in small copies of the images."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float

Image = NDArray[np.float32]

_SEARCH_PIXELS = 1.4e6
_MIN_RADIUS, _MAX_RADIUS = 9, 22
"""Radii searched at each level of the pyramid, px of that level: an octave and a bit."""


class Survey(NamedTuple):
    """Small copies of all images for the search."""

    factor: int
    mean: Image
    """(n, h, w) area means."""
    peak: Image
    """(n, h, w) largest value of each block; saturated (NaN) counts as the image's maximum."""
    size: tuple[int, int]


class Candidate(NamedTuple):
    """A circle that may be a ball."""

    centre_px: Float
    radius_px: float
    score: float


def survey_of(images: Sequence[NDArray[np.floating]]) -> Survey:
    """Small copies of the images; ``ValueError`` if their sizes differ."""
    h, w = images[0].shape[:2]
    factor = max(1, int(np.ceil(np.sqrt(h * w / _SEARCH_PIXELS))))
    rows, columns = h // factor, w // factor
    mean = np.empty((len(images), rows, columns), np.float32)
    peak = np.empty_like(mean)
    for i, image in enumerate(images):
        if image.shape != (h, w):
            raise ValueError(
                f"image {i} is {image.shape}, the first is {(h, w)}: want gray images of one size"
            )
        full = np.array(image[: rows * factor, : columns * factor], dtype=np.float32)
        top = float(np.nanmax(full)) if np.isfinite(full).any() else 0.0
        np.copyto(full, top, where=~np.isfinite(full))
        mean[i] = cv2.resize(full, (columns, rows), interpolation=cv2.INTER_AREA)
        peak[i] = full.reshape(rows, factor, columns, factor).max(axis=(1, 3))
    return Survey(factor, mean, peak, (h, w))


def statistics(mean: Image) -> list[Image]:
    """Statistics over the lights in which outlines show; edges in the dark count as those in the light."""
    bottom = max(float(np.percentile(np.median(mean, axis=0), 60)) * 0.2, 1e-12)
    scaled = np.log1p(np.clip(mean, 0, None) / bottom)
    ordered = np.sort(scaled, axis=0)
    n = len(ordered)
    return [
        np.mean(scaled, axis=0, dtype=np.float32),
        ordered[n // 2],
        ordered[n // 5],
        ordered[n - 1 - n // 5],
    ]


def circles(layers: list[Image], scale: int, low: float, high: float) -> list[Candidate]:
    """Hough vote of edges along their gradients, one octave of radii at each level of a pyramid."""
    factor = float(scale)
    found: list[Candidate] = []
    while True:
        radii = [r for r in range(_MIN_RADIUS - 3, _MAX_RADIUS + 1) if low <= r * factor <= high]
        if radii:
            found += _vote(layers, radii, factor)
        if _MAX_RADIUS * factor >= high or min(layers[0].shape) < 2 * _MIN_RADIUS:
            break
        h, w = layers[0].shape
        half = (w // 2, h // 2)
        layers = [np.asarray(cv2.resize(v, half, interpolation=cv2.INTER_AREA), np.float32) for v in layers]
        factor *= 2
    return found


def _vote(layers: list[Image], radii: list[int], factor: float) -> list[Candidate]:
    h, w = layers[0].shape
    pad = max(radii)
    columns = w + 2 * pad
    cells = (h + 2 * pad) * columns
    edges = [_edges(layer) for layer in layers]
    x, y, dx, dy = (np.concatenate([e[k] for e in edges]) for k in range(4))
    space = np.empty((len(radii), h + 2 * pad, columns), np.float32)
    for i, r in enumerate(radii):
        votes = np.zeros(cells, np.float32)
        for sign in (-1.0, 1.0):
            u = np.rint(x + sign * r * dx).astype(np.intp) + pad
            v = np.rint(y + sign * r * dy).astype(np.intp) + pad
            votes += np.bincount(v * columns + u, minlength=cells)[:cells]
        space[i] = cv2.GaussianBlur(votes.reshape(-1, columns), (0, 0), 1.0) * (
            4 * np.pi / (2 * np.pi * r * len(layers))
        )
    if len(radii) > 2:
        padded = np.pad(space, ((1, 1), (0, 0), (0, 0)), mode="edge")
        space = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    wide = np.stack([cv2.dilate(layer, np.ones((5, 5), np.uint8)) for layer in space])
    around = np.pad(wide, ((1, 1), (0, 0), (0, 0)), mode="edge")
    around = np.maximum(np.maximum(around[:-2], around[1:-1]), around[2:])
    which, rows, cols = np.nonzero((space >= around) & (space > 0.15))
    height = space[which, rows, cols]
    return [
        Candidate(
            (np.array([cols[k] - pad, rows[k] - pad]) + 0.5) * factor - 0.5,
            radii[which[k]] * factor,
            float(height[k]),
        )
        for k in np.argsort(-height, kind="stable")[:80]
    ]


def _edges(layer: Image) -> tuple[NDArray[np.floating], ...]:
    """Positions and unit gradients of the strongest thin edges."""
    smooth = cv2.GaussianBlur(layer, (0, 0), 1.0)
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125)
    size = np.hypot(gx, gy)
    # Against the local mean, so that a faint outline beside a printed board still counts.
    strong = size > np.maximum(1.2 * cv2.GaussianBlur(size, (0, 0), 6.0), 0.01)
    strong[:2], strong[-2:], strong[:, :2], strong[:, -2:] = False, False, False, False
    y, x = np.nonzero(strong)
    dx, dy = gx[y, x] / size[y, x], gy[y, x] / size[y, x]
    ix, iy = np.rint(dx).astype(int), np.rint(dy).astype(int)
    thin = (size[y, x] >= size[y + iy, x + ix]) & (size[y, x] >= size[y - iy, x - ix])
    return x[thin], y[thin], dx[thin], dy[thin]
