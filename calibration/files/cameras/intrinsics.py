"""What camera files of all formats share: a lens from named numbers, or one line that says why not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import ValidationError

from calibration.files.models import one_line, read_bytes
from calibration.geometry import Float
from calibration.lens import BrownConrady, KannalaBrandt, LensModel
from calibration.provenance import Model, Provenance

M = TypeVar("M", bound=Model)


def brown_conrady(
    path: Path, key: str, size: Sequence[int], core: Sequence[float], coefficients: Sequence[float]
) -> BrownConrady:
    """Lens from k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tau_x tau_y]]]], the last six of which must be 0.

    ``core`` is fx, fy, cx, cy; ``key`` the entry of the coefficients, for the message.
    """
    given = np.asarray(coefficients, np.float64)
    if len(given) not in (0, 4, 5, 8, 12, 14) or np.any(given[8:] != 0):
        why = "thin prism and tilt" if len(given) in (12, 14) else f"{len(given)} values"
        raise ValueError(f"{path}: {key}: {why}: only k1, k2, p1, p2 and k3, k4, k5, k6 can be represented")
    k1, k2, p1, p2, k3, k4, k5, k6 = np.append(given, np.zeros(8))[:8].tolist()
    return checked(
        path,
        lambda: BrownConrady(
            **_common(path, size, core), k1=k1, k2=k2, p1=p1, p2=p2, k3=k3, k4=k4, k5=k5, k6=k6
        ),
    )


def kannala_brandt(
    path: Path, key: str, size: Sequence[int], core: Sequence[float], coefficients: Sequence[float]
) -> KannalaBrandt:
    """Lens from k1 k2 k3 k4; arguments as of `brown_conrady`."""
    given = np.asarray(coefficients, np.float64)
    if len(given) not in (0, 4):
        raise ValueError(f"{path}: {key}: {len(given)} values: a fisheye has k1, k2, k3, k4")
    k1, k2, k3, k4 = np.append(given, np.zeros(4))[:4].tolist()
    return checked(path, lambda: KannalaBrandt(**_common(path, size, core), k1=k1, k2=k2, k3=k3, k4=k4))


def checked(path: Path, make: Callable[[], M]) -> M:
    """What ``make`` gives; a value that a model refuses is one line with the file."""
    try:
        return make()
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the numbers"
        raise ValueError(f"{path}: {where}: {one_line(first['msg'])}") from None


def _common(path: Path, size: Sequence[int], core: Sequence[float]) -> dict[str, Any]:
    fx, fy, cx, cy = core
    note = Provenance(note=f"read from {path.name}")
    return {"width": size[0], "height": size[1], "fx": fx, "fy": fy, "cx": cx, "cy": cy, "provenance": note}


def read_yaml(path: Path) -> dict[str, Any]:
    """First document of a YAML file, which must be a table; OpenCV's header line is passed over."""
    text = read_text(path)
    if text.startswith("%YAML"):
        text = text.partition("\n")[2]
    try:
        found = next(yaml.safe_load_all(text), None)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: no camera file ({one_line(error)[:200]})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: no camera file: want a table of named entries")
    return found


def read_text(path: Path) -> str:
    """Text of a camera file."""
    try:
        return read_bytes(path, "no such camera file").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no camera file: not UTF-8 text") from None


def numbers(path: Path, key: str, value: Any, shape: tuple[int, ...] | None = None) -> Float:
    """Finite numbers of an entry, flat or (where a shape is given) in this shape."""
    try:
        # PyYAML takes 1e-05 for text: its exponent wants a point before it.
        found = np.array([float(number) for number in _flat(value)])
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {key}: want numbers") from None
    if not np.isfinite(found).all():
        raise ValueError(f"{path}: {key}: want finite numbers")
    if shape is not None and found.size != np.prod(shape):
        raise ValueError(f"{path}: {key}: {found.size} numbers, want {' x '.join(map(str, shape))}")
    return found if shape is None else found.reshape(shape)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, bool | dict):
        raise TypeError
    if isinstance(value, list | tuple):
        return [number for entry in value for number in _flat(entry)]
    return [value]


def camera_matrix(path: Path, key: str, matrix: Float) -> list[float]:
    """fx, fy, cx, cy of a matrix (3, 3) without skew."""
    if abs(matrix[0, 1]) > 1e-6 * abs(matrix[0, 0]) or not np.array_equal(
        matrix[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]
    ):
        raise ValueError(f"{path}: {key}: skew or a scale cannot be represented")
    return [float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))]


def coefficients(lens: BrownConrady, counts: Sequence[int], where: str) -> list[float]:
    """Distortion of a lens in the fewest coefficients of ``counts`` that hold it; ValueError if none does."""
    every: list[float] = lens.parameters[4:].tolist()
    for count in counts:
        if not any(every[count:]):
            return every[:count]
    places = range(counts[-1], len(every))
    beyond = ", ".join(lens.names[4 + place] for place in places if every[place])
    raise ValueError(f"{where} has no place for {beyond} of this lens: fit it with a plainer model")


def refuse(lens: LensModel, where: str) -> ValueError:
    """Error for a model that a format has not."""
    return ValueError(f"{where} has no {lens.MODEL} lens: fit another model, or choose another format")
