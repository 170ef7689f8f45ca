"""What can be in view of the twin, as a truth file has it: boards, charts, balls, reliefs, meshes, panels."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from calibration.targets.boards import Board
from capture.plan import Record

Vector = tuple[float, float, float]
Tint = Annotated[
    tuple[float, float, float], BeforeValidator(lambda v: (v, v, v) if isinstance(v, int | float) else v)
]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
WHITE = (1.0, 1.0, 1.0)


class AlbedoMap(Record):
    """Smooth seeded albedo between ``low`` and ``high``: plane waves of wavelengths in ``scale_mm``."""

    low: Share
    high: Share
    seed: int = 0
    scale_mm: tuple[Positive, Positive] = (8.0, 60.0)


Albedo = Share | AlbedoMap


class Microfacet(Record):
    """GGX lobe over the Lambertian base: ``roughness`` is Walter's alpha_g, ``f0`` the normal reflectance.

    B. Walter et al., "Microfacet models for refraction through rough surfaces", EGSR 2007,
    doi:10.2312/EGWR/EGSR07/195-206; Fresnel by Schlick, doi:10.1111/1467-8659.1330233.
    """

    roughness: float = Field(gt=0.01, le=1)
    f0: Share = 0.04


class PanelThing(Record):
    """A uniform luminous surface that fills the view, lit by the panel lights."""

    kind: Literal["panel"]


class CapThing(Record):
    """The lens cap: no light at all."""

    kind: Literal["cap"]


class Placed(Record):
    """``rotvec_deg`` and ``translation_mm`` are rig_from_thing."""

    rotvec_deg: Vector = (0.0, 0.0, 0.0)
    translation_mm: Vector
    tint: Tint = WHITE


class BoardThing(Placed):
    """A printed board; the thing's origin is the pattern's top-left corner, x right, y down, z away."""

    kind: Literal["board"]
    board: Board
    white: Share = 0.85
    black: Share = 0.05
    margin_mm: NonNegative = 5.0


class PlaneThing(Placed):
    """A flat target or backdrop, centred on its origin; without ``size_mm`` it has no end."""

    kind: Literal["plane"]
    size_mm: tuple[Positive, Positive] | None = None
    albedo: Share = 0.5


class ChartThing(Placed):
    """A ColorChecker Classic; its origin is half a patch pitch off the first patch's centre, as of a board.

    The patches have the published colours of the edition of 2014. ``frame``: albedo of what is between them.
    """

    kind: Literal["chart"]
    pitch_mm: Positive = 46.0
    frame: Share = 0.04


class SphereThing(Record):
    """A ball. ``reflectance`` is the mirror's (at every angle), the gloss's F0, or the matte albedo."""

    kind: Literal["sphere"]
    finish: Literal["mirror", "glossy", "matte"] = "mirror"
    centre_mm: Vector
    radius_mm: Positive
    reflectance: Share = 0.6


class Feature(Record):
    """One hill of a relief: Gaussian ``bump`` (two sigmas; unequal ones make a ridge) or spherical ``cap``.

    ``radius_mm`` of a cap is that of its base; only the first counts. A negative height is a hollow.
    """

    kind: Literal["bump", "cap"]
    at_mm: tuple[float, float]
    height_mm: float
    radius_mm: tuple[Positive, Positive]
    angle_deg: float = 0.0


class Scatter(Record):
    """Many hills, drawn with ``seed``: place, height, radii, angle, and bump or cap (``caps`` of them).

    Heights may be negative: hollows. Centres keep one and a half radii from the relief's border.
    """

    kind: Literal["scatter"]
    count: int = Field(ge=1)
    seed: int = 0
    height_mm: tuple[float, float]
    radius_mm: tuple[Positive, Positive]
    caps: int = Field(default=0, ge=0)


class HeightfieldThing(Placed):
    """A relief of summed features over a rectangle centred on its origin; heights rise along -z.

    The traced surface is the formula where its triangles of ``cell_mm`` come within 0.015 mm of it along the
    ray, and the triangles elsewhere: at the rim of a cap, at a silhouette, or with coarse cells. Normals are
    always the formula's.
    """

    kind: Literal["heightfield"]
    width_mm: Positive
    height_mm: Positive
    features: tuple[Annotated[Feature | Scatter, Field(discriminator="kind")], ...] = Field(min_length=1)
    cell_mm: Positive = 0.25
    albedo: Albedo = 0.5
    gloss: Microfacet | None = None


class MeshThing(Placed):
    """A mesh file that trimesh reads, scaled to mm; ``smooth`` interpolates the vertex normals."""

    kind: Literal["mesh"]
    path: Path
    scale: Positive = 1.0
    smooth: bool = True
    albedo: Albedo = 0.5
    gloss: Microfacet | None = None


Thing = Annotated[
    PanelThing | CapThing | BoardThing | ChartThing | PlaneThing | SphereThing | HeightfieldThing | MeshThing,
    Field(discriminator="kind"),
]
