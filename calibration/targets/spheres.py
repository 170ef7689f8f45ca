"""Mirror spheres found in images under several lights, without clicks; and from masks or circles.

Two cues must agree. The outline: a circle of edges in the statistics of each pixel over the lights. The
mirror: a small bright highlight inside it under most lights, which moves from light to light. A printed
mark, a hole or a matte bump has the first and not the second.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.edges import Edges, align, refine
from calibration.targets.outline import SphereView, circle, fit_points
from calibration.targets.rim import polish

__all__ = ["SphereView", "detect_spheres", "sphere_from_circle", "sphere_from_mask"]

Image = NDArray[np.float32]

_SEARCH_PIXELS = 0.65e6
_MIN_RADIUS, _MAX_RADIUS = 9, 22
"""Radii searched at each level of the pyramid, px of that level: an octave and a bit."""


class _Survey(NamedTuple):
    """Small copies of all images for the search."""

    factor: int
    mean: Image
    """(n, h, w) area means."""
    peak: Image
    """(n, h, w) largest value of each block; saturated (NaN) counts as the image's maximum."""
    size: tuple[int, int]


class _Candidate(NamedTuple):
    centre_px: Float
    radius_px: float
    score: float


def sphere_from_circle(
    centre_px: ArrayLike, radius_px: float, lens: LensModel | None, *, sigma_px: float = 0.5
) -> SphereView:
    """A sphere from a circle drawn by hand.

    Parameters
    ----------
    centre_px : array_like, (2,)
        Centre of the outline, px.
    radius_px : float
        Its radius.
    lens : LensModel or None
        None: orthographic.
    sigma_px : float
        How well the circle's centre and radius are known; becomes the covariance.
    """
    view = circle(np.asarray(centre_px, np.float64), radius_px, lens)
    scale = 1.0 if lens is None else view.angular_radius_rad / view.radius_px
    return view._replace(covariance=np.eye(3) * (sigma_px * scale) ** 2)


def sphere_from_mask(mask: NDArray[np.bool_], lens: LensModel | None) -> SphereView:
    """A sphere from the mask of its pixels: the outline is fitted to the mask's border.

    Parameters
    ----------
    mask : ndarray, (h, w)
        Non-zero on the sphere. Parts may be missing (a holder, the frame's border): the fit is robust.
    lens : LensModel or None
        None: orthographic.

    Raises
    ------
    FitError
        The mask is empty, fills the image, or its border is no sphere's outline.
    """
    inside = np.ascontiguousarray(np.asarray(mask) != 0)
    if not inside.any() or inside.all():
        raise FitError("the sphere's mask is empty or covers the whole image: mark the sphere's pixels")
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 1 else 1
    inside = labels == largest
    borders = []
    for axis in (0, 1):
        # The border lies half-way between an inner and an outer pixel; the frame's own border is none.
        change = np.argwhere(np.diff(inside.astype(np.int8), axis=axis) != 0).astype(np.float64)
        change[:, axis] += 0.5
        borders.append(change[:, ::-1])
    pixels = np.concatenate(borders)
    start = _three_point_circle(pixels)
    return fit_points(pixels, circle(start.centre_px, start.radius_px, lens), lens)


def _three_point_circle(pixels: Float) -> _Candidate:
    """Circle with the most points on it, from random triples (fixed seed)."""
    rng = np.random.default_rng(0)
    if len(pixels) < 8:
        raise FitError("the sphere's mask has almost no border inside the image")
    a, b, c = pixels[rng.integers(len(pixels), size=(3, 400))]
    u, v = b - a, c - a
    det = 2 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        uu, vv = np.sum(u * u, axis=-1), np.sum(v * v, axis=-1)
        x = (v[:, 1] * uu - u[:, 1] * vv) / det
        y = (u[:, 0] * vv - v[:, 0] * uu) / det
    radius, centre = np.hypot(x, y), a + np.stack([x, y], axis=-1)
    sample = pixels[rng.permutation(len(pixels))[:2000]]
    with np.errstate(invalid="ignore"):
        off = np.abs(np.linalg.norm(sample[None] - centre[:, None], axis=-1) - radius[:, None])
        votes = np.sum(off < 1.0, axis=1)
    best = int(np.argmax(votes))
    return _Candidate(centre[best], float(radius[best]), float(votes[best]))


def detect_spheres(
    images: Sequence[NDArray[np.floating]],
    lens: LensModel | None,
    *,
    count: int | None = None,
    radius_px: float | tuple[float, float] | None = None,
) -> tuple[SphereView, ...]:
    """Find mirror spheres and fit their outlines.

    Parameters
    ----------
    images : sequence of ndarray, (h, w)
        Linear radiance of the same view under different lights, at least 3. NaN is taken as saturated.
        Read one at a time, twice.
    lens : LensModel or None
        None: orthographic; the views then carry only circles.
    count : int or None
        How many spheres to find; None: all that pass the tests.
    radius_px : float, pair or None
        About how large they look (a float means 0.7 to 1.4 of it), or the range.

    Returns
    -------
    tuple of SphereView
        From left to right, then top to bottom.

    Raises
    ------
    FitError
        No sphere found, or fewer than ``count``.

    Notes
    -----
    Fails where the outline has no contrast anywhere (black ball on black), and where fewer than half of the
    lights make a highlight in the ball.
    """
    if len(images) < 3:
        raise FitError(f"{len(images)} images are too few to find a mirror sphere: give at least 3 lights")
    survey = _survey(images)
    h, w = survey.size
    if radius_px is None:
        low, high = 18.0, 0.55 * max(h, w)
    elif isinstance(radius_px, tuple):
        low, high = radius_px
    else:
        low, high = 0.7 * radius_px, 1.4 * radius_px
    layers = _compressed(survey.mean)
    mirrors = _mirrors(survey, _circles(layers, survey.factor, 0.65 * low, high))
    groups = [[c for c in g if low <= c.radius_px <= high] for g in _rings(survey, layers, mirrors)]
    groups = [g for g in groups if g]
    if not groups:
        raise FitError(
            "no mirror sphere found: no circle of edges holds a moving highlight under half of the lights;"
            " where a ball is as dark as what is behind it, give its mask"
        )
    found = _refined(images, groups[: 2 * (count or 16)], lens, survey.factor)
    alike = _alike(survey, [view for _, view in found])
    if count is not None:
        if len(found) < count:
            raise FitError(f"found {len(found)} mirror spheres, want {count}: give a mask of each")
        # Stable: within the alike and within the others, the best outlines first.
        found = [found[k] for k in np.argsort(~alike, kind="stable")[:count]]
    else:
        found = [f for f, same in zip(found, alike, strict=True) if same]
        found = [f for f in found if f[0] > 0.5 * found[0][0]]
    if not found:
        raise FitError("no mirror sphere found: the candidates' outlines are no circles at full resolution")
    views = [view for _, view in found]
    return tuple(sorted(views, key=lambda s: (round(s.centre_px[0] / s.radius_px), s.centre_px[1])))


def _survey(images: Sequence[NDArray[np.floating]]) -> _Survey:
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
    return _Survey(factor, mean, peak, (h, w))


def _compressed(mean: Image) -> list[Image]:
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


def _circles(layers: list[Image], scale: int, low: float, high: float) -> list[_Candidate]:
    """Hough vote of edges along their gradients, one octave of radii at each level of a pyramid."""
    factor = float(scale)
    found: list[_Candidate] = []
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


def _vote(layers: list[Image], radii: list[int], factor: float) -> list[_Candidate]:
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
        _Candidate(
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


def _mirrors(survey: _Survey, candidates: list[_Candidate]) -> list[_Candidate]:
    """The candidates in which a compact highlight appears under at least half of the lights and moves."""
    kept = []
    for c in candidates:
        share, spread, reach = _highlight_cue(survey, c)
        if share >= 0.5 and spread > 0.02 and reach < 0.93:
            kept.append(c._replace(score=c.score * share))
    return sorted(kept, key=lambda c: -c.score)


def _highlight_cue(survey: _Survey, c: _Candidate) -> tuple[float, float, float]:
    """Share of lights with a highlight; spread of its positions and their reach from the centre, in radii."""
    at = _highlights(survey, c.centre_px, c.radius_px)
    bright = np.isfinite(at[:, 0])
    if bright.sum() < 3:
        return 0.0, 0.0, 9.0
    spread = float(np.hypot(*at[bright].std(axis=0)))
    reach = float(np.percentile(np.hypot(*at[bright].T), 90))
    return float(bright.mean()), spread, reach


def _highlights(survey: _Survey, centre_px: Float, radius_px: float) -> Float:
    """Place of the compact highlight under each light, (n, 2) from the centre in radii; NaN without one."""
    f = survey.factor
    (x, y), r = (centre_px + 0.5) / f - 0.5, radius_px / f
    n, h, w = survey.peak.shape
    places = np.full((n, 2), np.nan)
    x0, x1, y0, y1 = int(max(x - r, 0)), int(min(x + r + 1, w)), int(max(y - r, 0)), int(min(y + r + 1, h))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return places
    gy, gx = np.mgrid[y0:y1, x0:x1]
    inside = np.hypot(gx - x, gy - y) / r < 0.95
    if inside.sum() < 20:
        return places
    disc = survey.peak[:, y0:y1, x0:x1][:, inside]
    steady = np.median(disc, axis=0)
    rise = disc - steady
    top = rise.max(axis=1)
    typical = np.median(disc, axis=1) + 1e-12
    compact = np.mean(rise > 0.5 * top[:, None], axis=1)
    bright = (top > 3 * typical) & (compact < 0.06) & (top > 0.1 * np.median(top))
    at = rise.argmax(axis=1)[bright]
    places[bright] = np.stack([gx[inside][at] - x, gy[inside][at] - y], axis=-1) / r
    return places


_LIKENESS = 0.8
"""Least correlation of the highlights' motion in two balls: chance has a spread of 0.35 with 5 lights."""


def _alike(survey: _Survey, views: Sequence[SphereView]) -> NDArray[np.bool_]:
    """Which of the views show the lights as most others do; all of them where no two agree.

    The highlights of two mirror balls move alike from light to light. Those of glossy bumps, glass, or the
    stray bright pixels of a renderer inside any round outline do not.
    """
    places = [_highlights(survey, view.centre_px, view.radius_px) for view in views]
    agreeing = np.zeros(len(views), int)
    for i, a in enumerate(places):
        for j, b in enumerate(places[:i]):
            both = np.isfinite(a[:, 0]) & np.isfinite(b[:, 0])
            if both.sum() < 4:
                continue
            u, v = a[both] - np.median(a[both], axis=0), b[both] - np.median(b[both], axis=0)
            if np.sum(u * v) > _LIKENESS * np.sqrt(np.sum(u * u) * np.sum(v * v)):
                agreeing[[i, j]] += 1
    return np.asarray(agreeing >= 0.5 * agreeing.max(initial=0))


def _rings(survey: _Survey, layers: list[Image], candidates: list[_Candidate]) -> list[list[_Candidate]]:
    """For each sphere, best first, the circles that edges support at the survey's scale, outermost first.

    A mirror ball shows the horizon of its surroundings as another circle inside its outline, often with the
    stronger contrast; and a circle that touches the outline on one side and a shadow on the other has some
    support too. Which of them the outline is, shows at full resolution.
    """
    stack = np.stack(layers)
    fitted: list[_Candidate] = []
    tried: list[_Candidate] = []
    for c in candidates:
        gap = [np.hypot(*(o.centre_px - c.centre_px)) for o in tried]
        known = [
            g + abs(o.radius_px - c.radius_px) < 0.08 * c.radius_px for g, o in zip(gap, tried, strict=True)
        ]
        crowd = [g < 0.5 * max(o.radius_px, c.radius_px) for g, o in zip(gap, tried, strict=True)]
        if any(known) or sum(crowd) >= 8 or len(tried) >= 60:
            continue
        tried.append(c)
        better = _supported(stack, survey, c, 0.08)
        if better is not None:
            fitted.append(better)
    outer: list[list[_Candidate]] = []
    for c in sorted(fitted, key=lambda c: (-c.score, -c.radius_px)):
        if any(
            np.hypot(*(o[0].centre_px - c.centre_px)) < 0.5 * max(o[0].radius_px, c.radius_px) for o in outer
        ):
            continue
        rings = [f for f in fitted if np.hypot(*(f.centre_px - c.centre_px)) < 0.25 * c.radius_px]
        for growth in np.arange(1.05, 1.56, 0.05):
            ring = _supported(stack, survey, c._replace(radius_px=c.radius_px * growth), 0.03)
            if ring is not None and abs(ring.radius_px / c.radius_px - growth) < 0.06:
                rings.append(ring)
        outer.append(sorted((r for r in rings if r.score >= 0.4 * c.score), key=lambda r: -r.radius_px))
    # In the order of their groups' best support: a faint outline with a clear horizon inside is a sphere.
    kept: list[list[_Candidate]] = []
    for group in outer:
        c = group[0]
        if all(
            np.hypot(*(c.centre_px - k[0].centre_px)) > 0.7 * (c.radius_px + k[0].radius_px) for k in kept
        ):
            kept.append(group)
    return kept


_SUPPORT = 0.38
"""Least share of an outline with its edge in place: by chance it is about 0.2, with a spread of 0.04."""


def _supported(stack: Image, survey: _Survey, c: _Candidate, slack: float) -> _Candidate | None:
    """The circle fitted to the edges nearby, if enough of it has one and a highlight moves inside."""
    f = survey.factor
    centre, radius = (c.centre_px + 0.5) / f - 0.5, c.radius_px / f
    x0, y0, x1, y1 = _box(centre, radius, stack.shape[1:])
    corner = np.array([x0, y0], np.float64)
    try:
        start = circle(centre - corner, radius, None)
        window = stack[:, y0:y1, x0:x1]
        start = align(window, start, max(slack * radius, 1.5))
        edges = refine(window, start, None, max(0.25 * slack * radius, 1.5))
    except FitError:
        return None
    at = (edges.view.centre_px + corner + 0.5) * f - 0.5
    better = _Candidate(at, edges.view.radius_px * f, edges.support)
    share, spread, reach = _highlight_cue(survey, better)
    mirror = share >= 0.5 and spread > 0.02 and reach < 0.93
    return better if mirror and edges.support > _SUPPORT else None


def _box(centre: Float, radius: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Window x0, y0, x1, y1 that holds a circle and its surroundings."""
    reach = 1.3 * radius + 12
    low = np.maximum(centre - reach, 0).astype(int)
    high = np.minimum(centre + reach + 1, [shape[1], shape[0]]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _refined(
    images: Sequence[NDArray[np.floating]],
    groups: list[list[_Candidate]],
    lens: LensModel | None,
    factor: int,
) -> list[tuple[float, SphereView]]:
    """One view for each group of rings, fitted at full resolution, with its score; best first."""
    boxes = [_box(g[0].centre_px, g[0].radius_px, images[0].shape) for g in groups]
    crops: list[list[Image]] = [[] for _ in boxes]
    for image in images:
        for crop, (x0, y0, x1, y1) in zip(crops, boxes, strict=True):
            crop.append(np.array(image[y0:y1, x0:x1], np.float32))
    found = []
    for group, crop, (x0, y0, _, _) in zip(groups, crops, boxes, strict=True):
        shifted = None if lens is None else lens.replace(cx=lens.cx - x0, cy=lens.cy - y0)
        corner = np.array([x0, y0], np.float64)
        stack = np.stack(crop)
        edges = _outline(stack, [c._replace(centre_px=c.centre_px - corner) for c in group], shifted, factor)
        if edges is not None:
            edges = polish(stack, edges, shifted)
            found.append((edges.support, edges.view._replace(centre_px=edges.view.centre_px + corner)))
    return sorted(found, key=lambda f: -f[0])


_CLEAR = 0.75
"""Support of an outline at full resolution that leaves no doubt; touching circles have at most about 0.5."""


def _outline(stack: Image, rings: list[_Candidate], lens: LensModel | None, factor: int) -> Edges | None:
    """The outermost ring that full resolution confirms, or None."""
    fits: list[Edges] = []
    tried: list[_Candidate] = []
    for c in rings:
        slack = max(0.03 * c.radius_px, 2.0 * factor)
        if any(
            np.hypot(*(c.centre_px - t.centre_px)) + abs(c.radius_px - t.radius_px) < slack for t in tried
        ):
            continue
        tried.append(c)
        try:
            edges = refine(stack, circle(c.centre_px, c.radius_px, lens), lens, slack)
        except FitError:
            continue
        if edges.support > _SUPPORT:
            fits.append(edges)
        if edges.support > _CLEAR:
            break
    best = max((f.support for f in fits), default=0.0)
    good = [f for f in fits if f.support >= 0.55 * best]
    return max(good, key=lambda f: f.view.radius_px, default=None)
