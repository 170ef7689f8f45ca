"""Cast shadows by geometry: which lights a surface hides from its own points."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import sight

# The first pixel beside a point is the point's own slope; and depth from normals is off by part of a pixel.
_FIRST = 1.5
_MARGIN_PX = 0.5
# Samples that a pixel keeps at least: beyond, geometry is not believed against the robust solver.
LEAST_LIT = 4


def cast_shadows(
    depth_mm: NDArray[np.floating],
    lights: Sequence[DistantLight | NearLight],
    lens: LensModel | None,
    *,
    step: int = 1,
) -> NDArray[np.bool_]:
    """Points of a surface from which a light is hidden by another part of it.

    Parameters
    ----------
    depth_mm : ndarray (h, w)
        Depth z of every ``step``-th pixel from (0, 0), mm, NaN where there is no surface; px for an
        orthographic view.
    lights : sequence of n lights
        Distant ones only for an orthographic view.
    lens : LensModel or None
        None: orthographic view along +z.

    Returns
    -------
    ndarray (n, h, w), bool
        True where the light is hidden; False where there is no surface.

    Raises
    ------
    ValueError
        A near light without a lens.

    Notes
    -----
    Distant lights are swept: along a line of light over the picture the surface's height above the light's
    way is carried from the lit end, each pixel once, as for a horizon (1/z over the distance to the point
    where the lines of light meet; z less the light's own in an orthographic view). Where that point lies in
    the picture or close by, and for near lights, every pixel's own way is followed.

    All behind the surface is taken as solid, as a single view shows no back: under an overhang, and behind a
    ball, more counts as hidden than is. What is not in the depth map throws no shadow. Attached shadow is not
    meant here: where the surface turns away from a light, it may or may not be told.
    """
    if lens is None and any(light.kind == "near" for light in lights):
        raise ValueError("a near light's shadows need the lens: depth in px has no scale")
    from calibration.surface.kernels import TILE, march

    h, w = depth_mm.shape
    hidden = np.zeros((len(lights), h, w), np.bool_)
    known = np.isfinite(depth_mm) & (depth_mm > 0 if lens is not None else True)
    if not known.any():
        return hidden
    depth = np.where(known, depth_mm, np.nan).astype(np.float32)
    nearness, places, pitch, corner = _pinhole(depth, lens, step)
    reach, highest = _tops(nearness, TILE)
    margin = _MARGIN_PX * pitch if lens is not None else _MARGIN_PX * step
    for light, out in zip(lights, hidden, strict=True):
        place = _in_grid(light, pitch, corner, lens is not None)
        fan = _fan(place, nearness.shape, lens is not None)
        if fan is None:
            march(nearness, reach, highest, places, depth, place, lens is not None, _FIRST, margin, out)
        else:
            out[known] = _swept(fan, nearness, places[known], depth[known], lens is not None, margin)
    return hidden


class _Fan(NamedTuple):
    """Lines of a distant light over a grid, or its transpose (``turned``), as ``kernels.sweep`` has them.

    ``at`` gives stretch, shift, factor and term at columns; ``slant`` is how far a line goes a column.
    """

    turned: bool
    forward: bool
    lines: int
    slant: float
    at: Callable[[Float], tuple[Float, Float, Float, Float]]


def _fan(place: Float, shape: tuple[int, ...], perspective: bool) -> _Fan | None:
    """None where lines run together within the grid or close by, and for near lights."""
    x, y, z, near = place
    if near > 0:
        return None
    middle = 0.5 * (np.array(shape[::-1]) - 1)
    towards = np.array([x, y]) - (z * middle if perspective else 0.0)
    turned = bool(abs(towards[1]) > abs(towards[0]))
    if turned:
        towards, middle, shape = towards[::-1], middle[::-1], shape[::-1]
        x, y = y, x
    rows, columns = shape
    along = towards[0]
    slant = float(np.hypot(*towards) / abs(along)) if along else np.inf
    if not np.isfinite(slant):
        return None
    ends = np.array([0.0, columns - 1.0])
    if perspective:
        if abs(z) < 1e-9 * abs(along):
            return None
        point = x / z, y / z
        if abs(middle[0] - point[0]) < max(columns, rows):
            return None
        far = ends[np.argmax(np.abs(ends - point[0]))] - point[0]

        def lay(j: Float) -> tuple[Float, Float, Float, Float]:
            away = j - point[0]
            stretch = far / away
            return stretch, point[1] * (1 - stretch), np.abs(1 / away), np.zeros_like(j)

    else:

        def lay(j: Float) -> tuple[Float, Float, Float, Float]:
            one = np.ones_like(j)
            # The light's way gains -z over its picture's length; a column of it has slant such lengths.
            gain = -z / abs(along)
            return one, -j * towards[1] / along, one, -gain * np.sign(along) * j

    stretch, shift, _, _ = lay(ends)
    corners = np.concatenate([shift, shift + stretch * (rows - 1)])
    lowest = np.floor(corners.min())

    def at(j: Float) -> tuple[Float, Float, Float, Float]:
        stretch, shift, factor, term = lay(np.asarray(j, np.float64))
        return stretch, shift - lowest, factor, term

    return _Fan(turned, bool(along > 0), int(np.ceil(corners.max() - lowest)) + 2, slant, at)


def _swept(
    fan: _Fan,
    nearness: NDArray[np.float32],
    places: NDArray[np.float32],
    depth: NDArray[np.float32],
    perspective: bool,
    margin: float,
) -> NDArray[np.bool_]:
    """Hidden or not of points at ``places`` (n, 2) of depth (n,): one pass over all lines for all of them."""
    from calibration.surface.kernels import below, sweep

    grid = np.ascontiguousarray(nearness.T) if fan.turned else nearness
    highest = np.empty((fan.lines, grid.shape[1]), np.float64)
    sweep(grid, *fan.at(np.arange(grid.shape[1], dtype=np.float64)), fan.forward, highest)
    columns, rows = places.T[::-1] if fan.turned else places.T
    stretch, shift, factor, term = fan.at(columns)
    own = (1 + margin) / depth.astype(np.float64) if perspective else margin - depth.astype(np.float64)
    hidden = np.empty(len(depth), np.bool_)
    below(
        highest, stretch * rows + shift, columns, _FIRST / fan.slant, own * factor + term, fan.forward, hidden
    )
    return hidden


def _pinhole(
    depth: NDArray[np.float32], lens: LensModel | None, step: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], float, Float]:
    """Nearness on a grid of straight rows of sight, each pixel's place in it, its pitch and its corner."""
    h, w = depth.shape
    known = np.isfinite(depth)
    rows, columns = np.arange(0, h * step, step), np.arange(0, w * step, step)
    if lens is None:
        y, x = np.mgrid[:h, :w].astype(np.float32)
        nearness = np.where(known, -depth, -np.inf).astype(np.float32)
        return _framed(nearness, -np.inf), np.stack([x, y], axis=-1), float(step), np.zeros(2)
    rays = sight(lens, rows, columns)[..., :2]
    seen = known & np.isfinite(rays).all(axis=2)
    low, high = rays[seen].min(axis=0).astype(np.float64), rays[seen].max(axis=0).astype(np.float64)
    pitch = step * _spacing(lens, rays[seen])
    size = np.ceil((high - low) / pitch).astype(int) + 1
    nearness = np.empty((size[1], size[0]), np.float32)
    source = np.where(seen, 1 / np.where(seen, depth, 1.0), 0.0).astype(np.float32)
    x = low[0] + pitch * np.arange(size[0])
    for row in range(size[1]):
        line = np.stack([x, np.full(len(x), low[1] + pitch * row), np.ones(len(x))], axis=-1)
        at = (lens.project(line) / step).astype(np.float32)
        nearness[row] = cv2.remap(
            source, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )[0]
    places = ((rays - low) / pitch).astype(np.float32)
    return _framed(nearness, 0.0), places, pitch, low


def _spacing(lens: LensModel, rays: NDArray[np.float32]) -> float:
    """Tangent between neighbouring pixels in the middle of the surface."""
    middle = np.append(np.median(rays, axis=0).astype(np.float64), 1.0)
    pixel = lens.project(middle)
    around = lens.unproject(pixel + np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]]))
    left, right, above, below = around[:, :2] / around[:, 2:]
    x, y = right - left, below - above
    return float(np.sqrt(abs(x[0] * y[1] - x[1] * y[0])))


def _framed(nearness: NDArray[np.float32], nothing: float) -> NDArray[np.float32]:
    """At least two rows and columns, for the interpolation."""
    more = [(0, max(0, 2 - size)) for size in nearness.shape]
    return np.ascontiguousarray(np.pad(nearness, more, constant_values=nothing))


def _tops(nearness: NDArray[np.float32], tile: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Greatest nearness that interpolation can meet from each place of the grid on, and in each tile."""
    reach = cv2.dilate(nearness, np.ones((2, 2), np.uint8), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    more = [(0, -size % tile) for size in nearness.shape]
    padded = np.pad(reach, more, mode="edge")
    rows, columns = (size // tile for size in padded.shape)
    return np.asarray(reach), padded.reshape(rows, tile, columns, tile).max(axis=(1, 3))


def _in_grid(light: DistantLight | NearLight, pitch: float, corner: Float, perspective: bool) -> Float:
    """The light as ``kernels.march`` wants it."""
    near = isinstance(light, NearLight)
    place = np.asarray(light.position_mm if isinstance(light, NearLight) else light.direction, np.float64)
    if perspective:
        x, y = (place[:2] - corner * place[2]) / pitch
    else:
        x, y = place[:2] / pitch
    return np.array([x, y, place[2], float(near)])
