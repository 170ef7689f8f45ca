"""Lists of lights as other programs write them, into the camera frame, and our own table of them."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calibration.files.light_lists import (
    Y_UP,
    LightList,
    lengths_told,
    listed,
    read_alicevision,
    read_lp,
    unit,
)
from calibration.files.models import write_bytes
from calibration.files.tables import csv_rows, number, read_text
from calibration.geometry import Float
from calibration.lights.model import DistantLight, LightModel, LightSet, NearLight


def read_lights(path: Path) -> LightSet:
    """Lights from an ``.lp`` list, a CSV file or AliceVision's JSON, in the order of the file.

    ``.lp`` (reflectance transformation imaging): the number of lights, then ``image x y z`` a line. The
    direction to the light is x right, y up, z towards the camera; it becomes (x, -y, -z) in the camera frame.
    The light is named by the stem of the image's file name. AliceVision's JSON: see `read_alicevision`.

    CSV: one light a row, by the columns ``light`` (name); ``dx, dy, dz`` (direction to the light) or
    ``x_mm, y_mm, z_mm`` (position); optional ``intensity`` or ``intensity_r, intensity_g, intensity_b``
    (1 if absent); optional ``frame``: ``camera`` (x right, y down, z forward; the default) or ``yup``
    (x right, y up, z towards the camera, same origin). Positions may have a lobe: ``order`` and
    ``axis_x, axis_y, axis_z``, along which the light shines (`NearLight`); without, or with order 0, a light
    shines alike to all sides. Lines that begin with # are skipped.

    Directions that were not of length 1 are made so; the note of the provenance says which.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names file, row and column.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], _Listed]] = {
        ".lp": lambda path: _of(read_lp(path)),
        ".csv": lambda path: _csv_lights(path, read_text(path, "no such light list")),
        ".json": lambda path: _of(read_alicevision(path)),
    }
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: a light list ends in .lp or .csv, or AliceVision's in .json")
    found = readers[path.suffix.lower()](path)
    if not found.lights:
        raise ValueError(f"{path}: holds no light")
    provenance = listed(path.name, strengths=found.strengths, remarks=found.remarks)
    return LightSet(lights=found.lights, provenance=provenance)


class _Listed(NamedTuple):
    """Lights of a list, whether it tells their intensities, and what was remarked on them."""

    lights: dict[str, LightModel]
    strengths: bool
    remarks: tuple[str, ...] = ()


def _of(found: LightList) -> _Listed:
    return _Listed(found.models(), found.strengths, found.remarks)


_DIRECTION, _POSITION = ("dx", "dy", "dz"), ("x_mm", "y_mm", "z_mm")
_RGB = ("intensity_r", "intensity_g", "intensity_b")
_LOBE = ("order", "axis_x", "axis_y", "axis_z")


def _csv_lights(path: Path, text: str) -> _Listed:
    table = csv_rows(text)
    if not table:
        return _Listed({}, False)
    columns = [column.lower() for column in table[0][1]]
    known = {"light", *_DIRECTION, *_POSITION, "intensity", *_RGB, *_LOBE, "frame"}
    if odd := [column for column in columns if column not in known]:
        raise ValueError(
            f"{path}: row {table[0][0]}: column {odd[0]!r} is unknown: want light, dx, dy, dz or light, "
            "x_mm, y_mm, z_mm"
        )
    if odd := [column for column in columns if columns.count(column) > 1]:
        raise ValueError(f"{path}: row {table[0][0]}: column {odd[0]!r} is there twice")
    places = [group for group in (_DIRECTION, _POSITION) if set(group) & set(columns)]
    strengths = [group for group in (("intensity",), _RGB) if set(group) & set(columns)]
    if len(places) != 1 or len(strengths) > 1:
        raise ValueError(
            f"{path}: row {table[0][0]}: want dx, dy, dz OR x_mm, y_mm, z_mm, and one kind of intensity"
        )
    lobe = _LOBE if set(_LOBE) & set(columns) else ()
    if lobe and places[0] is _DIRECTION:
        odd = [column for column in columns if column in _LOBE]
        raise ValueError(f"{path}: row {table[0][0]}: column {odd[0]!r}: a lobe wants a position, x_mm ...")
    for column in ("light", *places[0], *(strengths[0] if strengths else ()), *lobe):
        if column not in columns:
            raise ValueError(f"{path}: row {table[0][0]}: column {column}: missing")
    lights: dict[str, LightModel] = {}
    lengths: dict[str, float] = {}
    for row, cells in table[1:]:
        where = f"{path}: row {row}"
        if len(cells) != len(columns):
            raise ValueError(f"{where}: {len(cells)} cells, the header has {len(columns)}")
        value = dict(zip(columns, cells, strict=True))
        frame = value.get("frame") or "camera"
        if frame not in ("camera", "yup"):
            raise ValueError(f"{where}: column frame: {frame!r}, want camera or yup")
        axes = Y_UP if frame == "yup" else np.ones(3)
        place = [number(value[column], f"{where}: column {column}") for column in places[0]]
        intensity = tuple(
            _intensity(value[c], f"{where}: column {c}") for c in (strengths[0] if strengths else ())
        )
        light: LightModel
        if places[0] is _DIRECTION:
            lengths[f"row {row}"] = math.hypot(*place)
            light = DistantLight(direction=unit(place, axes, where), intensity=intensity or (1.0,))
        else:
            x, y, z = (float(c) for c in place * axes)
            light = NearLight(position_mm=(x, y, z), intensity=intensity or (1.0,))
            if lobe:
                light = _with_lobe(light, value, axes, where)
        _add(lights, value["light"], light, where)
    return _Listed(lights, bool(strengths), lengths_told(path.name, lengths))


def write_light_csv(path: Path, lights: Mapping[str, LightModel]) -> None:
    """Write a list that `read_lights` reads, in the camera frame: directions, or positions with their lobes.

    Every number is written whole, so the same lights come back but for covariances and sigmas. Where all
    intensities are 1 nothing is told of them, and the column is left out.

    Raises
    ------
    ValueError
        Near and distant lights in one list; a name that would not be read as one.
    """
    for name in lights:
        if name != name.strip() or name.startswith("#") or not name.isprintable():
            raise ValueError(f"light {name!r}: a list cannot hold this name")
    if len({light.kind for light in lights.values()}) > 1:
        raise ValueError("near and distant lights do not go into one list")
    near = any(isinstance(light, NearLight) for light in lights.values())
    colours = max((len(light.intensity) for light in lights.values()), default=1)
    strengths: tuple[str, ...] = _RGB if colours == 3 else ("intensity",)
    if all(set(light.intensity) == {1.0} for light in lights.values()):
        strengths, colours = (), 0
    rows = [["light", *(_POSITION if near else _DIRECTION), *strengths, *(_LOBE if near else ())]]
    for name, light in lights.items():
        strength = light.intensity * (colours // len(light.intensity))
        numbers: tuple[float, ...]
        if isinstance(light, NearLight):
            numbers = (*light.position_mm, *strength, light.order, *light.axis)
        else:
            numbers = (*light.direction, *strength)
        rows.append([name, *(repr(float(value)) for value in numbers)])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _with_lobe(light: NearLight, value: Mapping[str, str], axes: Float, where: str) -> NearLight:
    """The light with the order and axis of its row; both blank: alike to all sides."""
    words = [value[column] for column in _LOBE]
    if not any(words):
        return light
    order, *axis = (
        number(word, f"{where}: column {column}") for column, word in zip(_LOBE, words, strict=True)
    )
    if order < 0:
        raise ValueError(f"{where}: column order: {order:g}: want 0 or more")
    try:
        return light.replace(order=order, axis=unit(axis, axes, where))
    except ValueError:
        raise ValueError(f"{where}: column axis_x: the axis is zero") from None


def _intensity(word: str, where: str) -> float:
    value = 1.0 if not word else number(word, where)
    if value <= 0:
        raise ValueError(f"{where}: {word}: an intensity is above 0")
    return value


def _add(lights: dict[str, LightModel], name: str, light: LightModel, where: str) -> None:
    if not name or name in lights:
        raise ValueError(f"{where}: column light: {f'{name!r} is there twice' if name else 'empty'}")
    lights[name] = light
