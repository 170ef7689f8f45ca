"""Shapes of the scene's things, placed in the camera's frame: reliefs, mesh files, sheets, albedo maps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float, rotation
from calibration.targets.boards import board_image, size_mm
from rigs.simulated.things import (
    AlbedoMap,
    BoardThing,
    Feature,
    HeightfieldThing,
    MeshThing,
    PlaneThing,
    Scatter,
)

Float32 = NDArray[np.float32]
_TEXTURE_PX = 2400.0
# a relief's point is moved off its triangle by less than shadow rays are lifted, or it would shade itself
_CLOSE_MM, LIFT_MM = 0.015, 0.02


@dataclass(frozen=True, eq=False)
class Placement:
    """Camera_from_thing: ``matrix`` (3, 3) and ``offset`` (3,), mm."""

    matrix: Float
    offset: Float

    @classmethod
    def of(cls, rotvec_deg: ArrayLike, translation_mm: ArrayLike) -> "Placement":
        """From a rotation vector in degrees and a translation in mm."""
        return cls(rotation(np.radians(rotvec_deg)), np.array(translation_mm, np.float64))

    def __matmul__(self, inner: "Placement") -> "Placement":
        return Placement(self.matrix @ inner.matrix, self.points(inner.offset))

    def seen_from(self, origin: Float) -> "Placement":
        """The same in a camera frame that is moved to ``origin`` (3,) and not turned."""
        return Placement(self.matrix, self.offset - origin)

    def points(self, points: Float) -> Float:
        """Points (..., 3) of the thing's frame in the camera's."""
        return np.asarray(points @ self.matrix.T + self.offset)

    def vectors(self, vectors: Float) -> Float:
        """Directions (..., 3) of the thing's frame in the camera's."""
        return np.asarray(vectors @ self.matrix.T)

    def back(self, points: Float) -> Float:
        """Points (..., 3) of the camera's frame in the thing's."""
        return np.asarray((points - self.offset) @ self.matrix)


@dataclass(frozen=True, eq=False)
class Solid:
    """Triangles in the thing's frame, and how a ray's meeting with them becomes a surface point.

    ``meet(origins, directions, t, triangle, barycentric) -> t, normals``, all (n, ...) in the thing's frame,
    normals of any length and sign.
    """

    vertices: Float32
    faces: NDArray[np.int32]
    meet: Callable[[Float, Float, Float, NDArray[np.int32], Float], tuple[Float, Float]]
    albedo: Callable[[Float], Float]
    owner: int
    place: Placement


@dataclass(frozen=True, eq=False)
class Sheet:
    """A flat rectangle; without ``extent`` an endless plane.

    ``texture`` 255 is ``white``, 0 is ``black``; ``clear``: within how many texels all are alike. ``pivot``:
    point whose depth orders it among the sheets, where it lies on another; its centre if None.
    """

    place: Placement
    extent: tuple[float, float] | None
    texture: NDArray[np.uint8]
    clear: NDArray[np.uint8]
    px_per_mm: float
    margin: float
    white: float
    black: float
    owner: int
    pivot: Float | None = None

    def look_up(self, x: Float, y: Float) -> Float:
        """Albedo at points of the sheet, mm from its corner."""
        rows, columns = self.texture.shape
        column, row = np.floor(x * self.px_per_mm).astype(int), np.floor(y * self.px_per_mm).astype(int)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        value = np.ones(x.shape)
        value[inside] = self.texture[row[inside], column[inside]] / 255.0
        return np.asarray(self.black + (self.white - self.black) * value)


def hills(thing: HeightfieldThing) -> tuple[Feature, ...]:
    """All features of a relief, scattered ones drawn."""
    out: list[Feature] = []
    for feature in thing.features:
        if isinstance(feature, Feature):
            out.append(feature)
            continue
        out.extend(_scattered(feature, thing.width_mm, thing.height_mm))
    return tuple(out)


def _scattered(scatter: Scatter, width: float, height: float) -> list[Feature]:
    rng = np.random.default_rng(scatter.seed)
    out = []
    for number in range(scatter.count):
        radii = rng.uniform(*scatter.radius_mm, size=2)
        room = np.maximum(0.5 * np.array([width, height]) - 1.5 * radii.max(), 0.0)
        at = rng.uniform(-room, room)
        tall, angle = rng.uniform(*scatter.height_mm), rng.uniform(0, 180)
        cap = number < scatter.caps
        if cap:  # no cap is more than a half ball
            tall = float(np.clip(tall, -0.9 * radii[0], 0.9 * radii[0]))
        out.append(
            Feature(
                kind="cap" if cap else "bump",
                at_mm=(float(at[0]), float(at[1])),
                height_mm=float(tall),
                radius_mm=(float(radii[0]), float(radii[1])),
                angle_deg=float(angle),
            )
        )
    return out


def heights(thing: HeightfieldThing, x: ArrayLike, y: ArrayLike) -> tuple[Float, Float, Float]:
    """Height over the base and its slopes along x and y at points of a relief, mm."""
    from rigs.simulated import kernels

    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    out = np.empty((x.size, 3))
    kernels.relief(
        np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(y).reshape(-1), _feature_table(thing), out
    )
    a, b, c = out.T.reshape(3, *x.shape)
    return a, b, c


def _feature_table(thing: HeightfieldThing) -> Float:
    rows = []
    for hill in hills(thing):
        angle = np.radians(hill.angle_deg)
        rows.append(
            (hill.kind == "cap", *hill.at_mm, np.cos(angle), np.sin(angle), *hill.radius_mm, hill.height_mm)
        )
    return np.array(rows, np.float64)


def relief_solid(thing: HeightfieldThing, place: Placement, owner: int) -> Solid:
    """Triangulate a relief; rays meet the formula itself."""
    from rigs.simulated import kernels

    columns = max(2, round(thing.width_mm / thing.cell_mm) + 1)
    rows = max(2, round(thing.height_mm / thing.cell_mm) + 1)
    x, y = np.meshgrid(
        np.linspace(-0.5 * thing.width_mm, 0.5 * thing.width_mm, columns),
        np.linspace(-0.5 * thing.height_mm, 0.5 * thing.height_mm, rows),
    )
    vertices = np.stack([x, y, -heights(thing, x, y)[0]], axis=-1).reshape(-1, 3).astype(np.float32)
    i = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = (q.ravel() for q in (i[:-1, :-1], i[:-1, 1:], i[1:, :-1], i[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, c], axis=-1), np.stack([d, c, b], axis=-1)])
    table = _feature_table(thing)

    def meet(
        origins: Float, directions: Float, t: Float, triangle: NDArray[np.int32], at: Float
    ) -> tuple[Float, Float]:
        t, slopes = t.copy(), np.empty((t.size, 2))
        kernels.meet_relief(
            np.ascontiguousarray(origins),
            np.ascontiguousarray(directions),
            table,
            _CLOSE_MM,
            t,
            slopes,
        )
        return t, np.concatenate([-slopes, -np.ones((t.size, 1))], axis=-1)

    return Solid(vertices, faces, meet, albedo_map(thing.albedo), owner, place)


def mesh_solid(thing: MeshThing, place: Placement, owner: int) -> Solid:
    """Read a mesh file."""
    import trimesh

    if not thing.path.is_file():
        raise ValueError(f"{thing.path}: no such mesh file")
    mesh = trimesh.load_mesh(str(thing.path))
    vertices = np.asarray(mesh.vertices, np.float64) * thing.scale
    faces = np.ascontiguousarray(mesh.faces, np.int32)
    corner_normals = np.asarray(mesh.vertex_normals if thing.smooth else mesh.face_normals, np.float64)

    def meet(
        origins: Float, directions: Float, t: Float, triangle: NDArray[np.int32], at: Float
    ) -> tuple[Float, Float]:
        if not thing.smooth:
            return t, corner_normals[triangle]
        a, b, c = (corner_normals[faces[triangle, k]] for k in range(3))
        u, v = at[:, :1], at[:, 1:]
        return t, (1 - u - v) * a + u * b + v * c

    return Solid(vertices.astype(np.float32), faces, meet, albedo_map(thing.albedo), owner, place)


def albedo_map(albedo: float | AlbedoMap) -> Callable[[Float], Float]:
    """Albedo over points (n, 3) of the thing's frame."""
    if not isinstance(albedo, AlbedoMap):
        return lambda points: np.full(len(points), float(albedo))
    rng = np.random.default_rng(albedo.seed)
    count = 12
    shortest, longest = np.log(albedo.scale_mm)
    length = np.exp(rng.uniform(shortest, longest, size=count))
    towards = rng.normal(size=(count, 3))
    wave = 2 * np.pi * towards / np.linalg.norm(towards, axis=1, keepdims=True) / length[:, None]
    phase, strength = rng.uniform(0, 2 * np.pi, count), np.sqrt(2.0 / count)

    def at(points: Float) -> Float:
        total = np.zeros(len(points))
        for k in range(count):
            total += strength * np.cos(points @ wave[k] + phase[k])
        half = 0.5 * (albedo.high - albedo.low)
        return np.asarray(albedo.low + half * (1 + np.sin(1.6 * total)))

    return at


def board_sheet(thing: BoardThing, place: Placement, owner: int) -> Sheet:
    """Draw a board's texture."""
    extent = size_mm(thing.board)
    scale = _TEXTURE_PX / max(extent)
    image = board_image(thing.board, scale)
    dark = (image < 128).astype(np.uint8)
    clear: NDArray[Any] = np.add(
        cv2.distanceTransform(dark, cv2.DIST_L2, 3), cv2.distanceTransform(1 - dark, cv2.DIST_L2, 3)
    )
    # beyond the pattern lies white paper: dark texels at the border are next to an edge
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in image.shape)
    clear = np.minimum(np.minimum(clear, 255), np.minimum(rows[:, None], columns)).astype(np.uint8)
    return Sheet(place, extent, image, clear, scale, thing.margin_mm, thing.white, thing.black, owner)


def plane_sheet(thing: PlaneThing, place: Placement, owner: int) -> Sheet:
    """Uniform sheet, its corner at the rectangle's."""
    blank = np.full((1, 1), 255, np.uint8)
    if thing.size_mm is None:
        return Sheet(place, None, blank, blank, 1.0, 0.0, thing.albedo, 0.0, owner)
    half = np.array([0.5 * thing.size_mm[0], 0.5 * thing.size_mm[1], 0.0])
    corner = Placement(place.matrix, place.points(-half))
    scale = 1.0 / max(thing.size_mm)
    return Sheet(corner, thing.size_mm, blank, blank, scale, 0.0, thing.albedo, 0.0, owner)
