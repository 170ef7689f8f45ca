"""Capture plans: pure frozen data that expand into shots and know no device."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

Kind = Literal["object", "sphere", "board", "chart", "flat", "dark", "ambient", "timing"]
Axis = Literal["repeat", "exposure", "light", "camera"]

_RANGE = re.compile(r"(?P<stem>.*?)(?P<first>\d+)\.\.(?P=stem)(?P<last>\d+)")


class Record(BaseModel):
    """Frozen value; an unknown key is an error; ``replace`` validates, unlike ``model_copy``.

    Fields named in ``LATER`` came after the first files were written: while they have their default they are
    left out of every dump, so that what does not use them keeps its text and its digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    LATER: ClassVar[frozenset[str]] = frozenset()

    def replace(self, **changes: Any) -> Self:
        """Validated copy with some fields changed."""
        return type(self).model_validate({**dict(self), **changes})

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        out: dict[str, Any] = handler(self)
        for name in self.LATER:
            if getattr(self, name) == type(self).model_fields[name].default:
                out.pop(name, None)
        return out


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | int | float) else value


def _unique(value: tuple[object, ...]) -> tuple[object, ...]:
    if len(set(value)) != len(value):
        raise ValueError("repeats an entry")
    return value


def expand_ranges(value: Any) -> Any:
    """Names with each range such as ``led01..led24`` replaced by the 24 names, zero-padded as the first is.

    One string becomes a tuple; what is neither string, list nor tuple comes back for the validator to refuse.
    """
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple):
        return value
    names: list[object] = []
    for item in value:
        match = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if match is None:
            names.append(item)
            continue
        first, last, width = int(match["first"]), int(match["last"]), len(match["first"])
        if last < first:
            raise ValueError(f"{item}: runs backwards")
        names.extend(f"{match['stem']}{number:0{width}d}" for number in range(first, last + 1))
    return tuple(names)


Kinds = Annotated[tuple[Kind, ...], BeforeValidator(_as_tuple), AfterValidator(_unique), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(expand_ranges), AfterValidator(_unique)]
PositiveSeconds = Annotated[float, Field(gt=0)]


class Strobe(Record):
    """One pulse of a light in place of steady burning: when after the camera's trigger, and how long."""

    delay_s: float = Field(ge=0)
    duration_s: PositiveSeconds


class LightSequence(Record):
    """Lights that burn one after the other, each alone, at one level (1 is full).

    With ``together`` they burn all at once, in one shot. With ``strobes`` each light is pulsed instead of
    burning, once for each of them in turn.
    """

    LATER = frozenset({"strobes", "together"})

    names: Names = Field(min_length=1)
    level: float = Field(default=1.0, gt=0, le=1)
    strobes: tuple[Strobe, ...] = ()
    together: bool = False

    @property
    def states(self) -> tuple[tuple[str, ...], ...]:
        """The lights that burn at a time, in turn."""
        return (self.names,) if self.together else tuple((name,) for name in self.names)


class ExposureBracket(Record):
    """Exposure times taken of every light, at one gain."""

    exposures_s: Annotated[tuple[PositiveSeconds, ...], BeforeValidator(_as_tuple)] = Field(min_length=1)
    gain_db: float = 0.0


class Shot(Record):
    """One exposure of one camera under one state of the lights.

    ``kinds`` says what the picture may be used for: the spheres usually stand beside the object.
    ``pose`` names what is in view; the operator brings it about.
    ``lights`` maps the burning lights to their level; empty is dark. With a ``strobe`` they are dark but for
    that pulse.
    """

    LATER = frozenset({"strobe"})

    index: int = Field(ge=0)
    kinds: Kinds
    pose: str
    camera: str
    lights: dict[str, float] = {}
    exposure_s: PositiveSeconds
    gain_db: float = 0.0
    repeat: int = Field(default=0, ge=0)
    strobe: Strobe | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.strobe is not None and not self.lights:
            raise ValueError("a strobe wants a light")
        return self

    @property
    def light(self) -> str:
        """Names of the burning lights joined by ``+``; empty when dark."""
        return "+".join(self.lights)


class Block(Record):
    """Shots of one or several poses, each the product of the axes; the last in ``order`` varies fastest.

    The strobes of a light belong to its axis and vary faster than the lights.

    ``pose`` takes a name, a list, or a range such as ``board-01..board-20``. ``prompt`` is what the operator
    is asked to do for it; an empty one asks nothing.
    """

    kinds: Kinds
    pose: Names = Field(min_length=1)
    prompt: str | None = None
    cameras: Names = Field(min_length=1)
    lights: LightSequence | None = None
    bracket: ExposureBracket
    repeats: int = Field(default=1, ge=1)
    first_repeat: int = Field(default=0, ge=0)
    order: tuple[Axis, ...] = ("repeat", "light", "exposure", "camera")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sorted(self.order) != sorted(get_args(Axis)):
            raise ValueError(f"order must name each of {', '.join(get_args(Axis))} once")
        if "dark" in self.kinds and (self.lights is not None or len(self.kinds) > 1):
            raise ValueError("a dark block has no lights and no other kind")
        if self.lights is not None and self.lights.strobes and self.kinds != ("timing",):
            raise ValueError("strobed frames are of kind timing and of no other: a pulse is no exposure time")
        return self

    def shots(self, first_index: int) -> Iterator[Shot]:
        """Expand into shots numbered from ``first_index``."""
        lights: tuple[tuple[tuple[str, ...], Strobe | None], ...] = (((), None),)
        if self.lights is not None:
            lights = tuple(product(self.lights.states, self.lights.strobes or (None,)))
        values: dict[str, tuple[Any, ...]] = {
            "repeat": tuple(range(self.first_repeat, self.first_repeat + self.repeats)),
            "exposure": self.bracket.exposures_s,
            "light": lights,
            "camera": self.cameras,
        }
        axes = product(self.pose, *(values[axis] for axis in self.order))
        for offset, (pose, *combination) in enumerate(axes):
            at = dict(zip(self.order, combination, strict=True))
            burning, strobe = at["light"]
            level = self.lights.level if self.lights is not None else 0.0
            yield Shot(
                index=first_index + offset,
                kinds=self.kinds,
                pose=pose,
                camera=at["camera"],
                lights=dict.fromkeys(burning, level),
                exposure_s=at["exposure"],
                gain_db=self.bracket.gain_db,
                repeat=at["repeat"],
                strobe=strobe,
            )


class QualityGate(Record):
    """What a frame must meet to be kept; one that does not is taken again.

    Attributes
    ----------
    max_saturated : float, optional
        Largest share of saturated pixels.
    lit : bool
        A frame under lights must show them, held against the other lights of its pose. Wants a camera that
        reports its black level.
    max_shift_px : float, optional
        How far the picture may move between an ambient frame and the first one of its pose.
    min_sharpness : float, optional
        Least contrast of fine detail, as a share of that of the first frame taken alike.
    """

    max_saturated: float | None = Field(default=None, ge=0, le=1)
    lit: bool = True
    max_shift_px: float | None = Field(default=None, gt=0)
    min_sharpness: float | None = Field(default=None, gt=0, lt=1)


class CapturePlan(Record):
    """What to take, in which order. Knows no device; the same plan runs on a rig and on its twin.

    With ``quality`` each frame is checked as it comes.
    """

    LATER = frozenset({"quality"})

    name: str
    blocks: tuple[Block, ...] = Field(min_length=1)
    quality: QualityGate | None = None

    def shots(self) -> tuple[Shot, ...]:
        """All shots in order; ``shot.index`` is its place."""
        out: list[Shot] = []
        for block in self.blocks:
            out.extend(block.shots(len(out)))
        return tuple(out)

    def prompt(self, pose: str) -> str:
        """Return what the operator is asked to do to bring ``pose`` about."""
        for block in self.blocks:
            if pose in block.pose and block.prompt is not None:
                return block.prompt.replace("{pose}", pose)
        return f"put {pose!r} in view"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON text."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
