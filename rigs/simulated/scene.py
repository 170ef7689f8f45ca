"""What a camera sees of a pose: every pixel's surface point, cast once, and which lights reach it."""

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize
from rigs.simulated.chart import chart_parts
from rigs.simulated.surfaces import (
    LIFT_MM,
    Float32,
    Placement,
    Sheet,
    Solid,
    board_sheet,
    mesh_solid,
    plane_sheet,
    relief_solid,
)
from rigs.simulated.things import (
    BoardThing,
    ChartThing,
    HeightfieldThing,
    MeshThing,
    PlaneThing,
    SphereThing,
    Thing,
)

_CHUNK = 1 << 15
# sub-pixel places of a mirror's reflected rays: a rank-1 lattice
_MIRROR_RAYS = tuple(((k + 0.5) / 5 - 0.5, ((2 * k) % 5 + 0.5) / 5 - 0.5) for k in range(5))


@dataclass(frozen=True, eq=False)
class Ball:
    """A sphere in the camera's frame, mm."""

    centre: Float
    radius: float
    owner: int
    thing: SphereThing

    def reflectance(self, cosine: Float) -> Float:
        """Mirror reflectance over the cosine of incidence: constant for a mirror, Schlick's for gloss."""
        f0 = self.thing.reflectance
        if self.thing.finish == "mirror":
            return np.full(np.shape(cosine), f0)
        if self.thing.finish == "glossy":
            return np.asarray(f0 + (1 - f0) * (1 - np.clip(cosine, 0, 1)) ** 5)
        return np.zeros(np.shape(cosine))


@dataclass(frozen=True, eq=False)
class Samples:
    """Surface points that add up to pixels, flat arrays of one length; ``owner`` -1 sees the surroundings."""

    points: Float32
    normals: Float32
    albedo: Float32
    weight: Float32
    owner: NDArray[np.int16]


class Stage:
    """The things of a pose in one camera's frame.

    ``gloss`` (k, 2): roughness (0 Lambertian) and f0 of each thing (a chart counts as its parts, which
    come in its place). ``tint`` (k + 1, 4): its factor on the albedo in R, G, B and their mean; the last row
    is that of the surroundings.
    """

    def __init__(self, things: Sequence[Thing], place: Placement) -> None:
        self.balls: list[Ball] = []
        self.sheets: list[Sheet] = []
        self.solids: list[Solid] = []
        parts: list[tuple[Thing, Float | None]] = []
        for thing in things:
            if isinstance(thing, ChartThing):
                pieces = chart_parts(thing)
                centre = place.points(np.array(pieces[0].translation_mm))
                parts += [(piece, centre) for piece in pieces]
            else:
                parts.append((thing, None))
        self.gloss = np.zeros((max(len(parts), 1), 2), np.float32)
        self.tint = np.ones((len(parts) + 1, 4), np.float32)
        for owner, (thing, pivot) in enumerate(parts):
            if isinstance(thing, SphereThing):
                centre = place.points(np.array(thing.centre_mm))
                self.balls.append(Ball(centre, thing.radius_mm, owner, thing))
                continue
            if not isinstance(thing, BoardThing | PlaneThing | HeightfieldThing | MeshThing):
                continue
            self.tint[owner] = *thing.tint, sum(thing.tint) / 3
            at = place @ Placement.of(thing.rotvec_deg, thing.translation_mm)
            if isinstance(thing, BoardThing):
                self.sheets.append(board_sheet(thing, at, owner))
            elif isinstance(thing, PlaneThing):
                self.sheets.append(replace(plane_sheet(thing, at, owner), pivot=pivot))
            else:
                if isinstance(thing, HeightfieldThing):
                    self.solids.append(relief_solid(thing, at, owner))
                else:
                    self.solids.append(mesh_solid(thing, at, owner))
                if thing.gloss is not None:
                    self.gloss[owner] = thing.gloss.roughness, thing.gloss.f0
        self._embree = _embree_scene(self.solids)

    def seen_from(self, origin: Float) -> "Stage":
        """The same things in a frame that is moved to ``origin`` (3,) and not turned."""
        moved = copy.copy(self)
        moved.balls = [replace(ball, centre=ball.centre - origin) for ball in self.balls]
        moved.sheets = [
            replace(
                sheet,
                place=sheet.place.seen_from(origin),
                pivot=None if sheet.pivot is None else sheet.pivot - origin,
            )
            for sheet in self.sheets
        ]
        moved.solids = [replace(solid, place=solid.place.seen_from(origin)) for solid in self.solids]
        moved._embree = _embree_scene(moved.solids)
        return moved

    def nearest(
        self, origins: Float, directions: Float, *, solid_only: bool = False
    ) -> tuple[Float, Float, Float, NDArray[np.int16]]:
        """First surface along rays (n, 3): t (inf for none), normals against the ray, albedo, owner.

        ``solid_only`` leaves balls and bounded sheets out. Sheets are looked up at a point, not over an area.
        """
        count = len(origins)
        t, normals = np.full(count, np.inf), np.zeros((count, 3))
        albedo, owner = np.ones(count), np.full(count, -1, np.int16)
        if self._embree is not None:
            hit = self._embree.run(
                np.ascontiguousarray(origins, np.float32),
                np.ascontiguousarray(directions, np.float32),
                output=True,
            )
            for number, solid in enumerate(self.solids):
                (at,) = np.nonzero(hit["geomID"] == number)
                if not at.size:
                    continue
                local = solid.place.back(origins[at])
                along = directions[at] @ solid.place.matrix
                corner = np.stack([hit["u"][at], hit["v"][at]], axis=-1).astype(np.float64)
                met, normal = solid.meet(
                    local, along, hit["tfar"][at].astype(np.float64), hit["primID"][at], corner
                )
                t[at], owner[at] = met, solid.owner
                albedo[at] = solid.albedo(local + met[:, None] * along)
                normals[at] = normalize(solid.place.vectors(normal))
        for sheet in self.sheets:
            if sheet.extent is not None and solid_only:
                continue
            met, x, y = _meet_sheet(sheet, origins, directions)
            better = (met > 1e-6) & (met < t)
            if sheet.extent is not None:
                m = sheet.margin
                better &= (x >= -m) & (x <= sheet.extent[0] + m) & (y >= -m) & (y <= sheet.extent[1] + m)
            t[better], owner[better] = met[better], sheet.owner
            normals[better] = sheet.place.matrix[:, 2]
            albedo[better] = sheet.look_up(x[better], y[better])
        for ball in () if solid_only else self.balls:
            to = ball.centre - origins
            along = np.sum(to * directions, axis=-1)
            inside = ball.radius**2 - np.sum(to * to, axis=-1) + along**2
            met = along - np.sqrt(np.maximum(inside, 0.0))
            better = (inside > 0) & (met > 1e-3) & (met < t)
            t[better], owner[better] = met[better], ball.owner
            normals[better] = (met[better, None] * directions[better] - to[better]) / ball.radius
            albedo[better] = ball.thing.reflectance if ball.thing.finish == "matte" else 0.0
        normals *= -np.sign(np.sum(normals * directions, axis=-1, keepdims=True))
        return t, normals, albedo, owner

    def occluders(self) -> tuple[Float, Float]:
        """Balls (k, 5) and bounded sheets (m, 12) as ``kernels.block`` takes them."""
        balls = [(*ball.centre, ball.radius, ball.owner) for ball in self.balls]
        sheets = []
        for sheet in self.sheets:
            if sheet.extent is None:
                continue
            m, axes = sheet.margin, sheet.place.matrix
            corner = sheet.place.points(np.array([-m, -m, 0.0]))
            size = sheet.extent[0] + 2 * m, sheet.extent[1] + 2 * m
            sheets.append((*corner, *axes[:, 0], *axes[:, 1], *size, sheet.owner))
        return np.array(balls, np.float64).reshape(-1, 5), np.array(sheets, np.float64).reshape(-1, 12)

    def hidden(self, samples: Samples, light: Float) -> NDArray[np.uint8]:
        """Bit i set where sample i lies in a cast shadow, little-endian bits.

        ``light`` (4,): x, y, z, 1 for a position in mm or 0 for the direction to it.
        """
        from rigs.simulated import kernels

        near = light[3] > 0
        out = np.zeros(len(samples.albedo), np.bool_)
        balls, sheets = self.occluders()
        if len(balls) or len(sheets):
            kernels.block(samples.points, samples.owner, light, balls, sheets, out)
        if self._embree is not None:

            def cast(part: slice) -> None:
                start = samples.points[part] + np.float32(LIFT_MM) * samples.normals[part]
                towards = light[:3].astype(np.float32) - (start if near else np.float32(0))
                towards = np.ascontiguousarray(np.broadcast_to(towards, start.shape))
                reach = np.full(len(start), 1.0 if near else 1e6, np.float32)
                out[part] |= self._embree.run(start, towards, dists=reach, query="OCCLUDED") >= 0

            with ThreadPoolExecutor(2) as pool:
                list(pool.map(cast, _parts(len(out))))
        return np.packbits(out, bitorder="little")


def _embree_scene(solids: Sequence[Solid]) -> Any:
    """Triangles of the solids for ray casting; None where there are none."""
    if not solids:
        return None
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene(robust=True)
    for body in solids:
        vertices = body.place.points(body.vertices.astype(np.float64)).astype(np.float32)
        TriangleMesh(scene, vertices, body.faces)
    return scene


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def _meet_sheet(sheet: Sheet, origins: Float, directions: Float) -> tuple[Float, Float, Float]:
    axes = sheet.place.matrix
    start = sheet.place.offset - origins
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (start @ axes[:, 2]) / (directions @ axes[:, 2])
        t = np.where(np.isfinite(t), t, -1.0)
    x = t * (directions @ axes[:, 0]) - start @ axes[:, 0]
    y = t * (directions @ axes[:, 1]) - start @ axes[:, 1]
    return t, x, y


@dataclass(frozen=True, eq=False)
class View:
    """A pose as one camera sees it.

    Attributes
    ----------
    dense : Samples of all pixels, row by row
    extra : Samples that fall on the pixels ``pixel``: the share of an edge, the reflections in a mirror
    """

    stage: Stage
    shape: tuple[int, int]
    dense: Samples
    extra: Samples
    pixel: NDArray[np.int64]


class _Canvas:
    """Builds a view: solids first, then sheets and balls painted over, far ones first."""

    def __init__(self, rays: Float) -> None:
        count = rays.shape[0] * rays.shape[1]
        self.rays = rays
        self.t = np.full(count, np.inf)
        self.normals = np.zeros((count, 3), np.float32)
        self.albedo, self.weight = np.ones(count, np.float32), np.ones(count, np.float32)
        self.owner = np.full(count, -1, np.int16)
        self.extra: list[tuple[Any, ...]] = []

    def paint(
        self, pixel: NDArray[np.int64], t: Float, cover: Float, normals: Float, albedo: Float, owner: int
    ) -> None:
        front = (t < self.t[pixel]) & (cover > 0)
        full, part = front & (cover >= 1), front & (cover < 1)
        at = pixel[full]
        self.t[at], self.normals[at], self.albedo[at] = t[full], normals[full], albedo[full]
        self.owner[at], self.weight[at] = owner, 1.0
        at = pixel[part]
        self.weight[at] *= (1 - cover[part]).astype(np.float32)
        points = t[part, None] * self.rays.reshape(-1, 3)[at]
        self.add(at, t[part], points, normals[part], albedo[part], cover[part], np.full(at.size, owner))

    def add(
        self, pixel: Any, t: Float, points: Float, normals: Float, albedo: Float, weight: Float, owner: Any
    ) -> None:
        self.extra.append((pixel, t, points, normals, albedo, weight, owner))

    def finish(self, stage: Stage) -> View:
        count = self.t.size
        points = np.zeros((count, 3), np.float32)
        rays = self.rays.reshape(-1, 3)
        for part in _parts(count):
            reach = np.where(np.isfinite(self.t[part]), self.t[part], 0.0)
            points[part] = reach[:, None] * rays[part]
        dense = Samples(points, self.normals, self.albedo, self.weight, self.owner)
        if not self.extra:
            self.add(*(np.zeros((0, *tail)) for tail in ((), (), (3,), (3,), (), (), ())))
        pixel, t, where, normals, albedo, weight, owner = (
            np.concatenate(column) for column in zip(*self.extra, strict=True)
        )
        pixel = pixel.astype(np.int64)
        keep = t <= self.t[pixel]
        extra = Samples(
            np.ascontiguousarray(where[keep], np.float32),
            np.ascontiguousarray(normals[keep], np.float32),
            np.ascontiguousarray(albedo[keep], np.float32),
            np.ascontiguousarray(weight[keep], np.float32),
            owner[keep].astype(np.int16),
        )
        return View(stage, (self.rays.shape[0], self.rays.shape[1]), dense, extra, pixel[keep])


def cast(stage: Stage, rays: Float) -> View:
    """See a stage from the origin through ``rays`` (h, w, 3), float64: unit, NaN where a pixel has none."""
    canvas = _Canvas(rays)
    flat = rays.reshape(-1, 3)

    def trace(part: slice) -> None:
        found = stage.nearest(np.zeros_like(flat[part]), flat[part], solid_only=True)
        canvas.t[part], canvas.normals[part], canvas.albedo[part], canvas.owner[part] = found

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(trace, _parts(len(flat))))

    painted: list[tuple[float, Ball | Sheet]] = [(float(b.centre[2]), b) for b in stage.balls]
    for sheet in stage.sheets:
        if sheet.extent is not None:
            centre = sheet.pivot
            if centre is None:
                centre = sheet.place.points(np.array([0.5 * sheet.extent[0], 0.5 * sheet.extent[1], 0.0]))
            painted.append((float(centre[2]), sheet))
    for _, thing in sorted(painted, key=lambda entry: -entry[0]):
        if isinstance(thing, Ball):
            _paint_ball(canvas, stage, thing)
        else:
            _paint_sheet(canvas, thing)
    return canvas.finish(stage)


def _window(inside: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns that hold all of ``inside`` and two pixels around."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return None
    return slice(max(rows[0] - 2, 0), rows[-1] + 3), slice(max(columns[0] - 2, 0), columns[-1] + 3)


def _paint_sheet(canvas: _Canvas, sheet: Sheet) -> None:
    from rigs.simulated import kernels

    assert sheet.extent is not None
    shape = canvas.rays.shape[:2]
    flat = canvas.rays.reshape(-1, 3)
    near = np.empty(len(flat), np.bool_)
    m = sheet.margin
    for part in _parts(len(flat)):
        t, x, y = _meet_sheet(sheet, np.zeros(3), flat[part])
        near[part] = (t > 0) & (x > -m) & (x < sheet.extent[0] + m) & (y > -m) & (y < sheet.extent[1] + m)
    window = _window(near.reshape(shape))
    if window is None:
        return
    # bands of rows with one more on each side, for the differences
    for top in range(window[0].start, min(window[0].stop, shape[0]), 128):
        first, last = max(top - 1, 0), min(top + 129, shape[0])
        rays = canvas.rays[first:last, window[1]]
        t, x, y = (a.reshape(rays.shape[:2]) for a in _meet_sheet(sheet, np.zeros(3), rays.reshape(-1, 3)))
        (xv, xu), (yv, yu) = np.gradient(x), np.gradient(y)
        own = slice(top - first, min(top + 128, shape[0]) - first)
        jacobian = np.stack([a[own].ravel() for a in (xu, xv, yu, yv)], axis=-1)
        cover = np.empty((len(jacobian), 2))
        kernels.cover_sheet(
            x[own].ravel(),
            y[own].ravel(),
            jacobian,
            np.array(sheet.extent),
            sheet.texture,
            sheet.clear,
            sheet.px_per_mm,
            m,
            cover,
        )
        pixel = np.arange(len(flat)).reshape(shape)[first:last, window[1]][own].ravel()
        albedo = sheet.black + (sheet.white - sheet.black) * cover[:, 0]
        side = -np.sign(flat[pixel] @ sheet.place.matrix[:, 2])
        normals = side[:, None] * sheet.place.matrix[:, 2]
        t = t[own].ravel()
        canvas.paint(pixel, t, np.where(t > 0, cover[:, 1], 0.0), normals, albedo, sheet.owner)


def half_plane_cover(distance: Float, across: Float, along: Float) -> Float:
    """Share of a unit square on the far side of a line at ``distance`` from its centre (positive: less).

    ``across``, ``along``: the line's unit normal, component by component. Exact.
    """
    a = np.maximum(np.abs(across), np.abs(along))
    b = np.maximum(np.minimum(np.abs(across), np.abs(along)), 1e-6)

    def ramp(x: Float) -> Float:
        return np.asarray(np.maximum(x, 0.0) ** 2)

    p, q = 0.5 * (a + b), 0.5 * (a - b)
    total = ramp(-distance + p) - ramp(-distance + q) - ramp(-distance - q) + ramp(-distance - p)
    return np.asarray(np.clip(total / (2 * a * b), 0.0, 1.0))


def _paint_ball(canvas: _Canvas, stage: Stage, ball: Ball) -> None:
    shape = canvas.rays.shape[:2]
    distance = float(np.linalg.norm(ball.centre))
    if ball.centre[2] <= ball.radius or distance <= ball.radius:
        return
    cosine = np.sqrt(1 - (ball.radius / distance) ** 2)
    with np.errstate(invalid="ignore"):
        near = canvas.rays @ (ball.centre / distance) > cosine
    window = _window(near)
    if window is None:
        return
    rays = canvas.rays[window]
    pixel = np.arange(shape[0] * shape[1]).reshape(shape)[window]
    off = np.linalg.norm(np.cross(rays, ball.centre), axis=-1)
    beyond = np.arctan2(off, rays @ ball.centre) - np.arcsin(ball.radius / distance)
    dv, du = np.gradient(beyond)
    slope = np.hypot(du, dv)
    slope = np.where(slope > 0, slope, np.inf)
    # only the limb's neighbourhood needs the exact share; the gradient is meaningless at the centre
    cover = np.where(beyond < 0, 1.0, 0.0)
    limb = np.abs(beyond) < 2 * slope
    limb[~np.isfinite(slope)] = False
    cover[limb] = half_plane_cover(beyond[limb] / slope[limb], du[limb] / slope[limb], dv[limb] / slope[limb])
    seen = cover > 0
    ray_u, ray_v = np.gradient(rays, axis=1)[seen], np.gradient(rays, axis=0)[seen]
    rays, pixel, cover = rays[seen], pixel[seen], cover[seen]
    t, normals = _meet_ball(ball, rays)
    albedo = np.full(t.shape, ball.thing.reflectance if ball.thing.finish == "matte" else 0.0)
    front = t < canvas.t[pixel]
    canvas.paint(pixel, t, cover, normals, albedo, ball.owner)
    if ball.thing.finish == "matte":
        return
    for shift_u, shift_v in _MIRROR_RAYS:
        at = normalize(rays[front] + shift_u * ray_u[front] + shift_v * ray_v[front])
        normal = _meet_ball(ball, at)[1]
        cosine_in = -np.sum(normal * at, axis=-1)
        share = cover[front] * ball.reflectance(cosine_in) / len(_MIRROR_RAYS)
        away = at + 2 * cosine_in[:, None] * normal
        start = ball.centre + ball.radius * normal
        far, far_normals, far_albedo, owner = stage.nearest(start, away)
        far = np.where(owner >= 0, far, 0.0)
        canvas.add(pixel[front], t[front], start + far[:, None] * away, far_normals, far_albedo, share, owner)


def _meet_ball(ball: Ball, rays: Float) -> tuple[Float, Float]:
    """Where rays from the camera meet a ball, or pass it nearest: t and the normal."""
    along = rays @ ball.centre
    inside = ball.radius**2 - ball.centre @ ball.centre + along**2
    t = along - np.sqrt(np.maximum(inside, 0.0))
    return t, normalize(t[:, None] * rays - ball.centre)
