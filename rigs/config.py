"""rig.yaml and its neighbours: YAML in, validated frozen configuration out, errors with their path."""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator, model_validator

from calibration.targets.boards import Board
from capture.devices import RigLimits
from capture.drivers import CameraConfig, LightConfig
from capture.plan import CapturePlan, Record, expand_ranges

M = TypeVar("M", bound=BaseModel)


class ConfigError(Exception):
    """A configuration file cannot be used; the message names file, key and what is wrong."""


class SphereTarget(Record):
    """The calibration spheres of a rig: equal mirror balls. What is not given is not known.

    Without ``count`` they are found by themselves; without ``diameter_mm`` they tell directions only.
    """

    count: int | None = Field(default=None, ge=1)
    diameter_mm: float | None = Field(default=None, gt=0)


class Targets(Record):
    """What the operator puts in view to calibrate.

    ``board_reflectance`` is the diffuse reflectance of the board's white; it sets the albedo scale.
    ``board_margin_mm`` is the white border round the pattern: it tells the intensities too.
    """

    board: Board | None = None
    board_reflectance: float = Field(default=0.9, gt=0, le=1)
    board_margin_mm: float = Field(default=0.0, ge=0)
    spheres: SphereTarget | None = None


class Pin(Record):
    """One calibration in use: the model file, relative to rig.yaml, and its whole digest (64 hex digits)."""

    path: str
    digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class Calibrations(Record):
    """The models in use for one camera."""

    sensor: Pin | None = None
    lens: Pin | None = None
    colour: Pin | None = None
    lights: Pin | None = None
    timing: Pin | None = None


class RigConfig(Record):
    """A rig: its devices by name, its targets, its pinned calibrations.

    Keys of ``lights`` may be ranges: ``led01..led24`` gives each of them the same configuration, but for
    values that are ranges themselves: ``channel: 0..23`` is dealt out, one to each, and ``channels: 1..72``
    three to each.
    ``geometry`` pins where the cameras stand to one another (`gnomon calibrate rig`).
    """

    name: str
    cameras: dict[str, CameraConfig] = Field(min_length=1)
    lights: dict[str, LightConfig] = {}
    operator: Literal["terminal"] = "terminal"
    targets: Targets = Targets()
    calibrations: dict[str, Calibrations] = {}
    geometry: Pin | None = None

    @field_validator("lights", mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        out: dict[object, object] = {}
        for key, config in value.items():
            names = expand_ranges((key,))
            for number, name in enumerate(names):
                if name in out:
                    raise ValueError(f"{name} is named twice")
                out[name] = config if names == (key,) else _dealt(str(key), config, number, len(names))
        return out

    @model_validator(mode="after")
    def _each_its_place(self) -> Self:
        cameras = {name: (camera.address,) for name, camera in self.cameras.items() if camera.address}
        lights = {name: light.places for name, light in self.lights.items()}
        for kind, claims in (("cameras", cameras), ("lights", lights)):
            holders: dict[str, str] = {}
            for name, places in claims.items():
                for place in places:
                    if (other := holders.setdefault(place, name)) != name:
                        raise ValueError(f"{kind} {other} and {name} are both {place}")
        return self

    @property
    def addresses(self) -> dict[str, list[str]]:
        """The devices at each address: port, host or serial number; without those that have none."""
        found: dict[str, list[str]] = {}
        for name, device in (*self.cameras.items(), *self.lights.items()):
            if device.address is not None:
                found.setdefault(device.address, []).append(name)
        return found

    @property
    def limits(self) -> RigLimits:
        """Limits of every device, with nothing opened."""
        return RigLimits(
            cameras={name: config.limits for name, config in self.cameras.items()},
            lights={name: config.limits for name, config in self.lights.items()},
        )


def _dealt(lights: str, config: object, number: int, count: int) -> object:
    """What light ``number`` of the range ``lights`` has: of values that are ranges, its own share."""
    if not isinstance(config, dict):
        return config
    out: dict[object, object] = {}
    for key, value in config.items():
        shares = expand_ranges(value) if isinstance(value, str) else (value,)
        each, left = divmod(len(shares), count)
        if shares == (value,):
            out[key] = value
        elif left:
            raise ValueError(f"{lights}.{key}: {value} is {len(shares)} values for {count} lights")
        else:
            out[key] = shares[number] if each == 1 else shares[number * each : (number + 1) * each]
    return out


_MESSAGES = {
    "extra_forbidden": "unknown key",
    "tuple_type": "Input should be a list, in [ ]",
}
"""Where pydantic's own words are those of Python."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: YAML would silently keep the last.

    What ``<<`` merges in may be given again.
    """


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: key {key!r} is given twice")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_plain(path: Path | str) -> object:
    """Read one YAML file as plain data.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or gives a key twice.
    """
    path = Path(path)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506, TID251 - a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def read_yaml(path: Path | str, kind: type[M]) -> M:
    """Read one YAML file as a ``kind``.

    Raises
    ------
    ConfigError
        One line a fault: file, key path (``lights.north.channel``) and reason.
    """
    return validate(read_plain(path), kind, str(path))


def validate(raw: object, kind: type[M], source: str) -> M:
    """Validate parsed YAML or JSON as ``kind``; ``source`` opens each line of the error."""
    if raw is None:
        raise ConfigError(f"{source}: is empty")
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        told: dict[tuple[str, str], list[str]] = {}
        faults = error.errors()
        for fault in faults:
            if fault["type"] == "too_short" and any(_within(other["loc"], fault["loc"]) for other in faults):
                continue  # only what is at fault in it was taken out of it
            message = _MESSAGES.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "string_type" and isinstance(fault["input"], int | float):
                message += ": put the number in quotes"
            place = _place(fault["loc"], raw) or "top level"
            in_list = bool(fault["loc"]) and isinstance(fault["loc"][-1], int)
            told.setdefault((place.rpartition(".")[0] if in_list else place, message), []).append(place)
        lines = []
        for (_, message), places in told.items():
            # a fault of a range of lights is that of every light in it
            first, *others = dict.fromkeys(places)
            more = f" and {len(others)} more" if others else ""
            lines.append(f"{source}: {first}{more}: {message}")
        raise ConfigError("\n".join(lines)) from None


def _within(loc: tuple[int | str, ...], place: tuple[int | str, ...]) -> bool:
    return len(loc) > len(place) and loc[: len(place)] == place


def _place(loc: tuple[int | str, ...], node: Any) -> str:
    """Path of a fault as the file has it: without the tags of unions, with ranges not expanded."""
    parts: list[str] = []
    for key in loc:
        if isinstance(node, dict) and key not in node:
            if key in (node.get("driver"), node.get("kind")):
                continue
            key = next((name for name in node if _covers(name, key)), key)
        parts.append(str(key))
        if isinstance(node, dict):
            node = node.get(key)
        else:
            known = isinstance(node, list | tuple) and isinstance(key, int) and key < len(node)
            node = node[key] if known else None
    return ".".join(parts)


def _covers(name: object, key: int | str) -> bool:
    """Whether ``name`` is a range such as ``led01..led24`` that ``key`` is in."""
    try:
        return isinstance(name, str) and key in expand_ranges((name,))
    except ValueError:
        return False


def load_rig(path: Path | str) -> RigConfig:
    """Read a rig.yaml."""
    return read_yaml(path, RigConfig)


def load_plan(path: Path | str) -> CapturePlan:
    """Read a plan.yaml."""
    return read_yaml(path, CapturePlan)


def save_plan(path: Path, plan: CapturePlan, head: Iterable[str]) -> None:
    """Write a plan.yaml that ``load_plan`` reads; ``head`` are the comment lines above it."""
    from calibration.files import write_bytes

    data = plan.model_dump(mode="json", exclude_defaults=True)
    text = "\n".join([*head, yaml.safe_dump(data, sort_keys=False, width=110, default_flow_style=None)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())
