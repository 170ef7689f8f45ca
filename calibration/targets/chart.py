"""ColorChecker in a linear image: where its 24 patches are, and their means with sigma.

Chart coordinates: one patch pitch is the unit, x along the rows of six, y down the four rows, (0, 0) half a
pitch outside the centre of the first patch (dark skin). Patches are numbered row by row; 18..23 are greys.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float
from calibration.provenance import FitError

PATCHES = (
    *("dark skin", "light skin", "blue sky", "foliage", "blue flower", "bluish green"),
    *("orange", "purplish blue", "moderate red", "purple", "yellow green", "orange yellow"),
    *("blue", "green", "red", "yellow", "magenta", "cyan"),
    *("white", "neutral 8", "neutral 6.5", "neutral 5", "neutral 3.5", "black"),
)
"""Names of the 24 patches of the ColorChecker Classic, row by row."""

GREYS = slice(18, 24)

Mask = NDArray[np.bool_]

_COLUMNS, _ROWS = 6, 4
_CENTRES: Float = np.stack(np.meshgrid(np.arange(_COLUMNS) + 0.5, np.arange(_ROWS) + 0.5), axis=-1).reshape(
    -1, 2
)
_INSET = 0.065  # half of the gap between two patches: the outer corner of a corner patch
_OUTLINE: Float = np.array(
    [
        [_INSET, _INSET],
        [_COLUMNS - _INSET, _INSET],
        [_COLUMNS - _INSET, _ROWS - _INSET],
        [_INSET, _ROWS - _INSET],
    ]
)
# Central part of a patch that is read: blur and errors of position stay outside.
_CORE = 0.25
_CORE_QUAD: Float = _CORE * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
_MIN_PIXELS = 9
_MOST_MISSING = 0.05
_SEARCH_PX = (1000, 2000)
_REFINE_PX = 640
_BLOCK = 4


class ChartView(NamedTuple):
    """One chart in one image.

    Attributes
    ----------
    corners : ndarray (4, 2), float64, px
        Outer corners of the patches dark skin, bluish green, black and white, in this order.
    quads : ndarray (24, 4, 2), float64, px
        The central part of each patch that was read; pixel (0, 0) is the centre of the top-left pixel.
    mean, sigma : ndarray (24, 3), float64
        Mean of each patch in the unit of the image, and one sigma of it; NaN where the patch cannot be used.
    pixels : ndarray (24,), int64
        How many each mean rests on.
    faults : dict of int to str
        Why a patch cannot be used: clipped, too small, outside the image.
    unevenness, unevenness_sigma : float
        Range of the light over the patches, relative to its mean, and its sigma: a smooth field through the
        slopes inside the patches. NaN where too few tell.
    """

    corners: Float
    quads: Float
    mean: Float
    sigma: Float
    pixels: NDArray[np.int64]
    faults: dict[int, str]
    unevenness: float
    unevenness_sigma: float


def find_charts(image: NDArray[Any], most: int = 4) -> tuple[ChartView, ...]:
    """Find ColorChecker Classic charts in a linear image.

    OpenCV's detector (``cv2.mcc``) proposes, on copies that are balanced and gamma-encoded; each proposal is
    refined on the patches' own outlines and kept only where its last row is a falling ramp of greys.

    Parameters
    ----------
    image : ndarray (h, w, 3), float
        R, G, B, linear; any white balance and exposure. NaN is saturated or missing.
    most : int
        How many charts to look for.

    Returns
    -------
    tuple of ChartView
        The largest first; empty where none is seen.

    Raises
    ------
    ValueError
        Not an image of three channels.

    Notes
    -----
    A patch of fewer than about 5 px, a chart of which a part is hidden, or one bent far from a plane is not
    found; ``read_chart`` takes corners from the user then.
    """
    _check(image)
    for pictures in _renderings(image):
        found: list[ChartView] = []
        for corners in _propose(*pictures, most):
            try:
                view = read_chart(image, corners)
            except FitError:
                continue
            if all(_apart(view, other) for other in found):
                found.append(view)
        if found:
            return tuple(sorted(found, key=lambda view: -_area(view.corners)))
    return ()


def read_chart(image: NDArray[Any], corners: ArrayLike) -> ChartView:
    """Patch means of a chart whose four outer corners are about known.

    Parameters
    ----------
    image : ndarray (h, w, 3), float
        R, G, B, linear; NaN is saturated or missing.
    corners : array_like (4, 2), px
        Outer corners of the four corner patches, in order around the chart; right to a third of a patch.
        Which way round the chart lies, even mirrored, the greys tell.

    Returns
    -------
    ChartView

    Raises
    ------
    FitError
        No row of greys where it should be, or the patches are too small.
    """
    _check(image)
    corners = np.asarray(corners, np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise FitError("chart corners: want four points x,y")
    if _area(corners) < 24 * _MIN_PIXELS:
        raise FitError("chart corners: enclose almost nothing")
    if _side(corners, 0) < _side(corners, 1):  # the long side first
        corners = np.roll(corners, -1, axis=0)
    start = cv2.getPerspectiveTransform(_OUTLINE.astype(np.float32), corners.astype(np.float32))
    plane, shifts = _refine(image, np.asarray(start, np.float64))
    seen = _measure(image, plane, shifts)
    if len(seen.faults) == len(PATCHES):
        raise FitError(f"chart: no patch can be read: {seen.faults[0]}")
    best: tuple[float, ChartView] | None = None
    for signs in ((1, 1), (-1, -1), (-1, 1), (1, -1)):
        turn = np.diag([*signs, 1.0])
        turn[:2, 2] = [length * (sign < 0) for sign, length in zip(signs, (_COLUMNS, _ROWS), strict=True)]
        order = _number(_map(turn, _CENTRES))
        greyness = _ramp(seen.mean[order[GREYS]])
        if greyness is not None and (best is None or greyness < best[0]):
            best = greyness, _turned(seen, order, _map(plane @ turn, _OUTLINE))
    if best is None:
        raise FitError("chart: no row of six greys from white to black is where the corners put it")
    return best[1]


def _turned(view: ChartView, order: NDArray[np.int64], corners: Float) -> ChartView:
    return view._replace(
        corners=corners,
        quads=view.quads[order],
        mean=view.mean[order],
        sigma=view.sigma[order],
        pixels=view.pixels[order],
        faults={k: view.faults[n] for k, n in enumerate(order.tolist()) if n in view.faults},
    )


def _check(image: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a chart is read from R, G, B (h, w, 3), this image has {image.shape}")


def _side(corners: Float, first: int) -> float:
    edges = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    return float(edges[first] + edges[first + 2])


def _area(corners: Float) -> float:
    x, y = corners.T
    return float(0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))


def _apart(view: ChartView, other: ChartView) -> bool:
    gap = np.linalg.norm(view.corners.mean(axis=0) - other.corners.mean(axis=0))
    return bool(gap > 0.5 * np.sqrt(min(_area(view.corners), _area(other.corners))))


def _map(matrix: Float, points: NDArray[Any]) -> Float:
    """Points (..., 2) through a homography (3, 3)."""
    out = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(out[..., :2] / out[..., 2:])


def _number(points: Float) -> NDArray[np.int64]:
    """Numbers of the patches at chart coordinates."""
    column, row = np.floor(points).astype(np.int64).T
    return np.asarray(row * _COLUMNS + column)


def _renderings(image: NDArray[Any]) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """8-bit BGR copies for OpenCV's detector, and their pixels' size; the likeliest first.

    Raw camera colours are greenish, the chart may be small, dim beside a window or bright on black, and the
    detector, made for finished pictures, wants none of this.
    """
    longest = max(image.shape[:2])
    for size in _SEARCH_PX:
        if size > _SEARCH_PX[0] and longest <= _SEARCH_PX[0]:
            return
        scale = min(size / longest, 1.0)
        small = _shrink(np.asarray(image, np.float32), scale)
        finite = np.isfinite(small).all(axis=-1)
        if not finite.any():
            return
        level = np.where(np.isfinite(small), small, np.nanmax(small[finite]))
        for balance in (small[finite].mean(axis=0), np.percentile(small[finite], 98, axis=0)):
            flat = level / np.maximum(balance, 1e-12 * max(float(balance.max()), 1e-30))
            for percentile in (99.5, 92.0, 70.0):
                white = float(np.percentile(flat[finite], percentile))
                if white > 0:
                    code = np.clip(flat / white, 0, 1) ** (1 / 2.2) * 255
                    yield np.ascontiguousarray(code[..., ::-1].astype(np.uint8)), 1 / scale


def _shrink(image: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    if scale >= 1:
        return image
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    # NaN spreads over what it touches: a mean over the rest of the cell would be too dark.
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _propose(picture: NDArray[np.uint8], pixel: float, most: int) -> list[Float]:
    """Corners of what OpenCV takes for charts, in the image's own pixels."""
    detector = cv2.mcc.CCheckerDetector.create()
    detector.setColorChartType(cv2.mcc.MCC24)
    if not detector.process(picture, most):
        return []
    out = []
    for checker in detector.getListColorChecker():
        cells = np.asarray(checker.getColorCharts(), np.float64).reshape(-1, 4, 2).mean(axis=1)
        if cells.shape != _CENTRES.shape or not np.isfinite(cells).all():
            continue
        # The cells lie better than the box, which is drawn round them with a margin.
        plane, _ = cv2.findHomography(_CENTRES, (cells + 0.5) * pixel - 0.5)
        if plane is not None:
            out.append(_map(np.asarray(plane), _OUTLINE))
    return out


def _refine(image: NDArray[Any], plane: Float) -> tuple[Float, Float]:
    """Image_from_chart fitted to the patches' outlines, and what is left at each patch (24, 2), px.

    Where too few patches stand out from the frame, the plane comes back as it was.
    """
    corners = _map(plane, _OUTLINE)
    margin = 0.15 * np.ptp(corners, axis=0).max()
    low = np.maximum(np.floor(corners.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0) + margin) + 1, image.shape[1::-1]).astype(int)
    none = np.zeros((len(_CENTRES), 2))
    if np.any(high - low < 8):
        return plane, none
    part = np.asarray(image[low[1] : high[1], low[0] : high[0]], np.float32)
    scale = min(_REFINE_PX / max(part.shape[:2]), 1.0)
    part = _shrink(part, scale)
    finite: Mask = np.asarray(np.isfinite(part).all(axis=-1))
    if not finite.any():
        return plane, none
    white = np.maximum(np.percentile(part[finite], 99, axis=0), 1e-30)
    code = np.where(finite[..., None], np.clip(part / white, 0, 1.5) ** (1 / 2.2), 1.3).astype(np.float32)
    to_part = np.array(
        [[scale, 0, scale * (0.5 - low[0]) - 0.5], [0, scale, scale * (0.5 - low[1]) - 0.5], [0, 0, 1]]
    )
    local = to_part @ plane
    offset = none
    for _ in range(3):
        where, seen = _outlines(code, local)
        if seen.sum() < 12:
            return plane, none
        pitch = np.sqrt(_area(_map(local, _OUTLINE)) / 24)
        better, inliers = cv2.findHomography(_CENTRES[seen], where[seen], cv2.RANSAC, 0.12 * pitch)
        if better is None or inliers.sum() < 10:
            return plane, none
        local = np.asarray(better, np.float64)
        # A lens bends the chart: each patch that was seen is read where it was seen.
        apart = where - _map(local, _CENTRES)
        near = seen & (np.linalg.norm(apart, axis=-1) < 0.4 * pitch)
        offset = np.where(near[:, None], apart, 0) / scale
    return np.linalg.inv(to_part) @ local, offset


def _outlines(code: NDArray[np.float32], plane: Float) -> tuple[Float, Mask]:
    """Centroids of the even regions round the patches' expected centres, and which were found."""
    where, seen = _map(plane, _CENTRES), np.zeros(len(_CENTRES), np.bool_)
    for number, centre in enumerate(_CENTRES):
        cell = _map(plane, centre + 2 * _CORE_QUAD)
        area = _area(cell)
        window = _map(plane, centre + 3.4 * _CORE_QUAD)
        low = np.floor(window.min(axis=0)).astype(int)
        high = np.ceil(window.max(axis=0)).astype(int) + 1
        if np.any(low < 0) or np.any(high > code.shape[1::-1]) or area < _MIN_PIXELS:
            continue
        part = code[low[1] : high[1], low[0] : high[0]]
        column, row = np.rint(where[number] - low).astype(int)
        reach = max(int(0.15 * np.sqrt(area)), 1)
        if min(row, column) < reach or row + reach >= part.shape[0] or column + reach >= part.shape[1]:
            continue  # bent beyond what a chart can be
        core = part[row - reach : row + reach + 1, column - reach : column + reach + 1].reshape(-1, 3)
        middle = np.median(core, axis=0)
        spread = 1.4826 * np.median(np.abs(core - middle))
        alike = (np.abs(part - middle).max(axis=-1) < 0.05 + 4 * spread).astype(np.uint8)
        if reach > 2:
            alike = np.asarray(cv2.medianBlur(alike, 3))
        _, labels, stats, centroids = cv2.connectedComponentsWithStats(alike, connectivity=4)
        label = labels[row, column]
        x, y, w, h, size = stats[label]
        touches = x == 0 or y == 0 or x + w == part.shape[1] or y + h == part.shape[0]
        if label > 0 and not touches and 0.4 * area < size < 1.1 * area:
            where[number], seen[number] = centroids[label] + low, True
    return where, seen


def _measure(image: NDArray[Any], plane: Float, shifts: Float) -> ChartView:
    count = len(_CENTRES)
    mean, sigma = np.full((count, 3), np.nan), np.full((count, 3), np.nan)
    pixels = np.zeros(count, np.int64)
    quads = np.empty((count, 4, 2))
    faults: dict[int, str] = {}
    slopes: list[tuple[int, Float, float]] = []
    back = np.asarray(np.linalg.inv(plane), np.float64)
    for number, centre in enumerate(_CENTRES):
        quads[number] = _map(plane, centre + _CORE_QUAD) + shifts[number]
        low = np.ceil(quads[number].min(axis=0)).astype(int)
        high = np.floor(quads[number].max(axis=0)).astype(int) + 1
        if np.any(low < 0) or np.any(high > image.shape[1::-1]):
            faults[number] = "outside the image"
            continue
        v, u = np.mgrid[low[1] : high[1], low[0] : high[0]]
        pixel: Float = np.empty((*u.shape, 2))
        pixel[..., 0], pixel[..., 1] = u, v
        at = _map(back, pixel - shifts[number]) - centre
        inside = np.abs(at).max(axis=-1) <= _CORE
        samples = np.asarray(image[low[1] : high[1], low[0] : high[0]], np.float64)[inside]
        if len(samples) < _MIN_PIXELS:
            faults[number] = f"{len(samples)} pixels: too small"
            continue
        valid = np.isfinite(samples).all(axis=-1)
        if np.mean(~valid) > _MOST_MISSING:
            faults[number] = "clipped or missing"
            continue
        place = np.stack([v[inside], u[inside]], axis=-1)[valid]
        value, error, slope, used = _patch(samples[valid], at[inside][valid], place)
        mean[number], sigma[number], pixels[number] = value, error, used
        level = float(value.sum())
        noise = float(np.linalg.norm(error))
        if level > 10 * noise > 0:
            # An even spread of pixels over the core has the slope this much less sure than the mean.
            slopes.append((number, slope.sum(axis=1) / level, np.sqrt(3) / _CORE * noise / level))
    return ChartView(_map(plane, _OUTLINE), quads, mean, sigma, pixels, faults, *_unevenness(slopes))


def _patch(samples: Float, at: Float, place: NDArray[np.int64]) -> tuple[Float, Float, Float, int]:
    """Mean, sigma of the mean, slopes (2, 3) per pitch, and number of pixels kept, of one patch.

    A plane is fitted and pixels far off it (dust, glints, dead pixels) are left out. The sigma comes from the
    scatter of blocks, for demosaicing leaves neighbours correlated.
    """
    keep: Mask = np.ones(len(samples), np.bool_)
    design = np.column_stack([np.ones(len(at)), at])
    centre = np.median(samples, axis=0)
    residual = samples - centre
    for _ in range(3):
        spread = 1.4826 * np.median(np.abs(residual[keep]), axis=0)
        near = np.abs(residual) <= 4 * spread + 1e-12 * np.abs(centre)
        closer: Mask = np.asarray(near.all(axis=-1))
        if closer.sum() < max(_MIN_PIXELS, len(samples) // 2):
            break
        keep = closer
        plane = np.linalg.lstsq(design[keep], samples[keep], rcond=None)[0]
        residual = samples - design @ plane
    plane = np.linalg.lstsq(design[keep], samples[keep], rcond=None)[0]
    residual = (samples - design @ plane)[keep]
    count = int(keep.sum())
    blocks = place[keep] // _BLOCK
    _, block = np.unique(blocks[:, 0] * (blocks[:, 1].max() + 1) + blocks[:, 1], return_inverse=True)
    size = np.bincount(block)
    if np.sum(size >= _BLOCK) >= 12:
        sums = np.stack([np.bincount(block, weights=residual[:, c]) for c in range(3)], axis=-1)
        # The plane took three of the blocks' freedoms.
        free = 1 - 3 * float((size**2).sum()) / count**2
        sigma = np.sqrt((sums**2).sum(axis=0) / free) / count
    else:
        # Too few blocks for a scatter: a demosaiced channel has one sample of its own in four.
        sigma = 2 * residual.std(axis=0, ddof=3) / np.sqrt(count)
    # The plane at the patch's centre is its mean.
    mean, slope = np.asarray(plane[0], np.float64), np.asarray(plane[1:], np.float64)
    return mean, np.asarray(sigma, np.float64), slope, count


def _unevenness(slopes: list[tuple[int, Float, float]]) -> tuple[float, float]:
    """Range over the patches of the light whose logarithm, of second order, has these slopes; its sigma."""
    if len(slopes) < 8:
        return np.nan, np.nan
    x, y = (_CENTRES[[number for number, _, _ in slopes]] - [0.5 * _COLUMNS, 0.5 * _ROWS]).T
    one, none = np.ones_like(x), np.zeros_like(x)
    design = np.concatenate(
        [
            np.stack([one, none, 2 * x, y, none], axis=-1),
            np.stack([none, one, none, x, 2 * y], axis=-1),
        ]
    )
    value = np.concatenate([[slope[axis] for _, slope, _ in slopes] for axis in range(2)])
    # Blur and texture add a little to what the noise does.
    sigma = np.hypot(np.tile([error for _, _, error in slopes], 2), 0.003)
    keep = np.ones(len(value), np.bool_)
    for _ in range(4):
        scaled = design[keep] / sigma[keep, None]
        field = np.linalg.lstsq(scaled, value[keep] / sigma[keep], rcond=None)[0]
        residual = np.abs(value - design @ field) / sigma
        keep = residual < 4 * max(1.4826 * float(np.median(residual)), 1.0)
    dof = max(int(keep.sum()) - 5, 1)
    spread = max(float((residual[keep] ** 2).sum()) / dof, 1.0)
    x, y = (_CENTRES - [0.5 * _COLUMNS, 0.5 * _ROWS]).T
    terms = np.stack([x, y, x * x, x * y, y * y], axis=-1)
    level = terms @ field
    between = terms[np.argmax(level)] - terms[np.argmin(level)]
    covariance = np.linalg.pinv(scaled.T @ scaled) * spread
    return float(np.ptp(level)), float(np.sqrt(between @ covariance @ between))


def _ramp(greys: Float) -> float | None:
    """How far six patches are from a falling ramp of one colour (0: none); None where they are no ramp."""
    valid: Mask = np.asarray((np.isfinite(greys) & (greys > 0)).all(axis=-1))
    if valid.sum() < 3 or not valid[3:].any():
        return None
    logs = np.log(greys[valid])
    level = logs.mean(axis=-1)
    if np.any(np.diff(level) > -0.05) or level[0] - level[-1] < 0.25 * (len(level) - 1):
        return None
    # The dark ones show stray light and black level: their colour is not asked.
    colour = (logs - level[:, None])[: max(len(level) - 2, 2)]
    spread = float(np.ptp(colour, axis=0).max())
    return spread if spread < 0.35 else None
