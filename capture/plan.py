"""Capture plans: pure frozen data that expand into shots and know no device."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Kind = Literal["object", "sphere", "board", "chart", "flat", "dark", "ambient"]
Axis = Literal["repeat", "exposure", "light", "camera"]

_RANGE = re.compile(r"(?P<stem>.*?)(?P<first>\d+)\.\.(?P=stem)(?P<last>\d+)")


class Record(BaseModel):
    """Frozen value; an unknown key is an error; ``replace`` validates, unlike ``model_copy``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def replace(self, **changes: Any) -> Self:
        """Validated copy with some fields changed."""
        return type(self).model_validate({**dict(self), **changes})


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


class LightSequence(Record):
    """Lights that burn one after the other, each alone, at one level (1 is full)."""

    names: Names = Field(min_length=1)
    level: float = Field(default=1.0, gt=0, le=1)


class ExposureBracket(Record):
    """Exposure times taken of every light, at one gain."""

    exposures_s: Annotated[tuple[PositiveSeconds, ...], BeforeValidator(_as_tuple)] = Field(min_length=1)
    gain_db: float = 0.0


class Shot(Record):
    """One exposure of one camera under one state of the lights.

    ``kinds`` says what the picture may be used for: the spheres usually stand beside the object.
    ``pose`` names what is in view; the operator brings it about.
    ``lights`` maps the burning lights to their level; empty is dark.
    """

    index: int = Field(ge=0)
    kinds: Kinds
    pose: str
    camera: str
    lights: dict[str, float] = {}
    exposure_s: PositiveSeconds
    gain_db: float = 0.0
    repeat: int = Field(default=0, ge=0)

    @property
    def light(self) -> str:
        """Names of the burning lights joined by ``+``; empty when dark."""
        return "+".join(self.lights)


class Block(Record):
    """Shots of one or several poses, each the product of the axes; the last in ``order`` varies fastest.

    ``pose`` takes a name, a list, or a range such as ``board-01..board-20``.
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
        return self

    def shots(self, first_index: int) -> Iterator[Shot]:
        """Expand into shots numbered from ``first_index``."""
        lights: tuple[str | None, ...] = (None,) if self.lights is None else self.lights.names
        values: dict[str, tuple[Any, ...]] = {
            "repeat": tuple(range(self.first_repeat, self.first_repeat + self.repeats)),
            "exposure": self.bracket.exposures_s,
            "light": lights,
            "camera": self.cameras,
        }
        axes = product(self.pose, *(values[axis] for axis in self.order))
        for offset, (pose, *combination) in enumerate(axes):
            at = dict(zip(self.order, combination, strict=True))
            level = self.lights.level if self.lights is not None else 0.0
            yield Shot(
                index=first_index + offset,
                kinds=self.kinds,
                pose=pose,
                camera=at["camera"],
                lights={} if at["light"] is None else {at["light"]: level},
                exposure_s=at["exposure"],
                gain_db=self.bracket.gain_db,
                repeat=at["repeat"],
            )


class CapturePlan(Record):
    """What to take, in which order. Knows no device; the same plan runs on a rig and on its twin."""

    name: str
    blocks: tuple[Block, ...] = Field(min_length=1)

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
