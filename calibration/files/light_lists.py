"""Lists of distant lights as other programs keep them, one light a picture; axes are turned here.

Into the camera frame (x right, y down, z forward) from x right, y up, z towards the camera: ``.lp`` of
reflectance transformation imaging, the text files of DiLiGenT and of the two-sphere sets. AliceVision's JSON
has the camera frame's own axes.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from calibration.files.models import one_line, write_bytes
from calibration.files.tables import number, read_text
from calibration.geometry import Float, normalize
from calibration.lights.model import DistantLight, LightModel
from calibration.provenance import Provenance

Y_UP = np.array([1.0, -1.0, -1.0])  # from x right, y up, z to the camera into the camera frame, and back
_UNIT = 0.01
_SHOWN = 3


class ListedLight(NamedTuple):
    """One light of a list.

    Attributes
    ----------
    place : str
        Where it stands: file and row, for messages.
    name : str
        Of the light: the stem of its picture's file name, whatever system the list is from.
    image : str
        The picture as it is written there; empty where the list names no pictures.
    light : DistantLight
        Camera frame.
    """

    place: str
    name: str
    image: str
    light: DistantLight


class LightList(NamedTuple):
    """Lights in the order of a list, what was remarked on them, and whether it tells their intensities.

    Where it does not, all are 1.
    """

    lights: tuple[ListedLight, ...]
    remarks: tuple[str, ...] = ()
    strengths: bool = True

    def models(self) -> dict[str, LightModel]:
        """The lights by name; ValueError at the place of one that is there twice."""
        found: dict[str, LightModel] = {}
        for entry in self.lights:
            if not entry.name or entry.name in found:
                what = f"{entry.name!r} is there twice" if entry.name else "empty"
                raise ValueError(f"{entry.place}: column light: {what}")
            found[entry.name] = entry.light
        return found

    def provenance(self, name: str) -> Provenance:
        """Where the lights are from: the file ``name``."""
        return listed(name, strengths=self.strengths, remarks=self.remarks)


def listed(name: str, *, strengths: bool, remarks: Sequence[str] = ()) -> Provenance:
    """Provenance of lights that the file ``name`` lists with intensities or without, and remarks."""
    options: dict[str, str | float | int | bool] = {} if strengths else {"intensity": "equal"}
    return Provenance(note="; ".join((f"read from {name}", *remarks)), options=options)


def read_lp(path: Path) -> LightList:
    """Lights of an ``.lp`` list: their number, then ``image x y z`` a line, y up, z to the camera.

    Blank lines and those that begin with # are left out; an image's name may hold blanks or stand in quotes.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names file and row: no number, another number of lights, no or no finite vector, zero.
    """
    text = read_text(path, "no such light list")
    lines = [
        (row, line)
        for row, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    first = lines[0][0] if lines else 1
    if not lines or not lines[0][1].strip().isdecimal():
        raise ValueError(f"{path}: row {first}: want the number of lights alone, then a line for each")
    entries, lengths = [], {}
    for row, line in lines[1:]:
        where = f"{path}: row {row}"
        image, words = _image_and_numbers(line)
        if not image or len(words) < 3:
            raise ValueError(f"{where}: want an image's name and x y z, with blanks between them")
        if len(words) > 3:
            raise ValueError(f"{where}: {len(words)} numbers after {image}, want x y z alone")
        vector = [number(word, f"{where}: {axis}") for axis, word in zip("xyz", words, strict=True)]
        lengths[f"row {row}"] = math.hypot(*vector)
        light = DistantLight(direction=unit(vector, Y_UP, where))
        entries.append(ListedLight(where, stem(image), image, light))
    if len(entries) != int(lines[0][1]):
        promised = f"row {first} promises {lines[0][1].strip()} lights"
        raise ValueError(f"{path}: {promised}, the file has {len(entries)}")
    return LightList(tuple(entries), lengths_told(path.name, lengths), strengths=False)


def _image_and_numbers(line: str) -> tuple[str, list[str]]:
    """Name of the picture, which may hold blanks or stand in quotes, and the words after it."""
    text = line.strip()
    quoted = re.fullmatch(r"""(["'])(.+)\1\s+(.*)""", text)
    if quoted:
        return quoted[2], quoted[3].split()
    named = re.fullmatch(r"(.*\.[A-Za-z][A-Za-z0-9]{1,4})\s+(.*)", text)
    if named:
        return named[1], named[2].split()
    words = text.split()
    return " ".join(words[:-3]), words[-3:]


def read_diligent_lights(folder: Path) -> LightList:
    """Lights of a DiLiGenT folder: ``filenames.txt``, ``light_directions.txt``, ``light_intensities.txt``.

    One row a picture in each; directions y up, z to the camera; intensities R, G, B.

    Raises
    ------
    FileNotFoundError
        One of the files is missing.
    ValueError
        One line that names file and row: another number of rows, no number, zero.
    """
    names = [
        (row, line.strip())
        for row, line in enumerate(read_text(folder / "filenames.txt", "missing").splitlines(), 1)
        if line.strip()
    ]
    if not names:
        raise ValueError(f"{folder / 'filenames.txt'}: names no picture")
    directions = read_matrix(folder / "light_directions.txt", columns=(3,))
    intensities = read_matrix(folder / "light_intensities.txt", columns=(1, 3))
    for file, rows in (("light_directions.txt", directions), ("light_intensities.txt", intensities)):
        if len(rows) != len(names):
            raise ValueError(f"{folder / file}: {len(rows)} rows, filenames.txt names {len(names)} pictures")
    entries, lengths = [], {}
    for (row, name), (at, vector), (shine_at, strength) in zip(names, directions, intensities, strict=True):
        if min(strength) <= 0:
            where = f"{folder / 'light_intensities.txt'}: row {shine_at}"
            raise ValueError(f"{where}: {min(strength):g}: an intensity is above 0")
        lengths[f"row {at}"] = math.hypot(*vector)
        direction = unit(vector, Y_UP, f"{folder / 'light_directions.txt'}: row {at}")
        light = DistantLight(direction=direction, intensity=_shortest(strength))
        entries.append(ListedLight(f"{folder / 'filenames.txt'}: row {row}", stem(name), name, light))
    return LightList(tuple(entries), lengths_told("light_directions.txt", lengths))


def read_light_matrix(path: Path, images: Sequence[str]) -> LightList:
    """Lights of a text file of three rows, x, y (up), z (to the camera), one column a picture.

    The length of a column is the light's intensity; where all are 1, nothing is told of it.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names the file, and row or column.
    """
    rows = read_matrix(path, columns=None)
    if len(rows) != 3:
        raise ValueError(f"{path}: {len(rows)} rows, want three: x, y and z of each light")
    table = np.array([values for _, values in rows])
    if table.shape[1] != len(images):
        raise ValueError(f"{path}: {table.shape[1]} columns, but there are {len(images)} pictures")
    entries = []
    for column, (vector, image) in enumerate(zip(table.T, images, strict=True), 1):
        where = f"{path}: column {column}"
        direction = unit(vector, Y_UP, where)
        light = DistantLight(direction=direction, intensity=(float(np.linalg.norm(vector)),))
        entries.append(ListedLight(where, stem(image), image, light))
    told = np.abs(np.linalg.norm(table, axis=0) - 1).max() > _UNIT
    return LightList(tuple(entries), strengths=bool(told))


def read_alicevision(path: Path) -> LightList:
    """Lights of AliceVision's lighting calibration (JSON), camera frame.

    A list whose entries have ``lightId`` or ``viewId``, or the older object of lights by part of the
    picture's name; numbers may be quoted, as AliceVision writes them. An entry's ``name`` comes first.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names file and light: spherical harmonics; lights in the world's axes, which need the
        poses of the cameras; no vector, zero.
    """
    try:
        lights = json.loads(read_text(path, "no such light list"))["lights"]
        pairs = list(lights.items()) if isinstance(lights, dict) else [("", light) for light in lights]
        if not all(isinstance(light, dict) for _, light in pairs):
            raise TypeError("a light that is no object")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged, or no AliceVision lights ({one_line(error)})") from None
    entries, lengths = [], {}
    for position, (key, light) in enumerate(pairs, 1):
        known = [str(light[field]) for field in ("name", "lightId", "viewId") if field in light]
        name = known[0] if known else key or str(position)
        where = f"{path}: light {name}"
        kind = light.get("type", "directional")
        if kind in ("directionnal", "punctual"):
            raise ValueError(f"{where}: {kind}: in the world's axes, which want the cameras' poses")
        if kind != "directional":
            raise ValueError(f"{where}: type {kind!r}: want directional")
        vector = _numbers(light.get("direction"), (3,), f"{where}: direction")
        strength = _numbers(light.get("intensity", [1.0]), (1, 3), f"{where}: intensity")
        if min(strength) <= 0:
            raise ValueError(f"{where}: intensity: {min(strength):g}: is above 0")
        lengths[f"light {name}"] = math.hypot(*vector)
        model = DistantLight(direction=unit(vector, np.ones(3), where), intensity=_shortest(strength))
        entries.append(ListedLight(where, name, "", model))
    told = any("intensity" in light for _, light in pairs)
    return LightList(tuple(entries), lengths_told(path.name, lengths), told)


def write_lp(path: Path, lights: Mapping[str, DistantLight], suffix: str = ".png") -> None:
    """Write an ``.lp`` list with pictures named as the lights with ``suffix``; intensities are left out."""
    rows = [f"{name}{suffix} {_vector(light, Y_UP)}" for name, light in lights.items()]
    write_bytes(path, "\n".join([str(len(rows)), *rows, ""]).encode())


def write_diligent_lights(folder: Path, lights: Mapping[str, DistantLight], suffix: str = ".png") -> None:
    """Write ``filenames.txt``, ``light_directions.txt`` and ``light_intensities.txt`` into a folder."""
    texts = {
        "filenames.txt": [f"{name}{suffix}" for name in lights],
        "light_directions.txt": [_vector(light, Y_UP) for light in lights.values()],
        "light_intensities.txt": [" ".join(map(repr, _rgb(light))) for light in lights.values()],
    }
    for file, rows in texts.items():
        write_bytes(folder / file, "\n".join([*rows, ""]).encode())


def write_alicevision(path: Path, lights: Mapping[str, DistantLight]) -> None:
    """Write AliceVision's lights of a dome: ``lightId`` counts them; ``name`` is ours beside it."""
    entries = [
        {
            "lightId": position,
            "name": name,
            "type": "directional",
            "direction": normalize(light.direction).tolist(),
            "intensity": list(_rgb(light)),
        }
        for position, (name, light) in enumerate(lights.items())
    ]
    write_bytes(path, (json.dumps({"lights": entries}, indent=1, ensure_ascii=False) + "\n").encode())


def read_matrix(path: Path, columns: tuple[int, ...] | None) -> list[tuple[int, tuple[float, ...]]]:
    """Row number and finite numbers of each line, blank lines left out; commas count as blanks.

    ``columns``: how many numbers a line may have; None: as many as the first.
    """
    found: list[tuple[int, tuple[float, ...]]] = []
    for row, line in enumerate(read_text(path, "missing").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        where = f"{path}: row {row}"
        wanted = columns or (len(found[0][1]) if found else len(words),)
        if len(words) not in wanted:
            raise ValueError(f"{where}: {len(words)} numbers, want {' or '.join(map(str, wanted))}")
        found.append((row, tuple(number(word, where) for word in words)))
    return found


def unit(vector: Iterable[float], axes: Float, where: str) -> tuple[float, float, float]:
    """Unit vector in the camera frame; ValueError that begins with ``where`` for a zero one."""
    x, y, z = (float(c) for c in normalize(np.asarray(tuple(vector)) * axes))
    if not math.isfinite(x):
        raise ValueError(f"{where}: the direction is zero")
    return x, y, z


def lengths_told(name: str, lengths: Mapping[str, float]) -> tuple[str, ...]:
    """A remark on vectors that were not of length 1, within rounding."""
    odd = [f"{where} has {length:.4g}" for where, length in lengths.items() if abs(length - 1) > _UNIT]
    if not odd:
        return ()
    more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
    return (f"{name}: directions are not of length 1, and were made so: {', '.join(odd[:_SHOWN])}{more}",)


def _shortest(intensity: tuple[float, ...]) -> tuple[float, ...]:
    """One intensity where all colours have the same: a white light serves gray pictures too."""
    return intensity[:1] if len(set(intensity)) == 1 else intensity


def stem(image: str) -> str:
    """Stem of a file name that may hold folders of Windows or of another system."""
    return PureWindowsPath(image).stem


def _numbers(values: Any, lengths: tuple[int, ...], where: str) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) not in lengths:
        raise ValueError(f"{where}: want {' or '.join(map(str, lengths))} numbers")
    return tuple(number(str(value), where) for value in values)


def _vector(light: DistantLight, axes: Float) -> str:
    # + 0.0: no "-0.0"
    return " ".join(repr(float(c) + 0.0) for c in normalize(light.direction) * axes)


def _rgb(light: DistantLight) -> tuple[float, ...]:
    return tuple(float(c) for c in light.intensity) * (3 // len(light.intensity))
