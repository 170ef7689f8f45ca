"""COLMAP's ``cameras.txt``: lenses without poses. The centre of its top-left pixel is (0.5, 0.5)."""

from collections.abc import Mapping
from pathlib import Path

from calibration.files.cameras.intrinsics import (
    brown_conrady,
    coefficients,
    kannala_brandt,
    numbers,
    read_text,
    refuse,
)
from calibration.files.models import write_bytes
from calibration.lens import BrownConrady, KannalaBrandt, LensModel

_SHIFT = 0.5
# Number of focal lengths, and of the coefficients after the principal point.
_BROWN_MODELS = {
    "SIMPLE_PINHOLE": (1, 0), "PINHOLE": (2, 0), "SIMPLE_RADIAL": (1, 1), "RADIAL": (1, 2),
    "OPENCV": (2, 4), "FULL_OPENCV": (2, 8),
}  # fmt: skip
_FISHEYE_MODELS = {"SIMPLE_RADIAL_FISHEYE": (1, 1), "RADIAL_FISHEYE": (1, 2), "OPENCV_FISHEYE": (2, 4)}


def read_colmap(path: Path) -> dict[str, LensModel]:
    """Lenses of a ``cameras.txt``, by the number of the camera.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line with the row that cannot be read or represented (FOV, thin prism).
    """
    path = Path(path)
    lenses: dict[str, LensModel] = {}
    for row, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"row {row}"
        if len(words) < 5:
            raise ValueError(f"{path}: {where}: want CAMERA_ID MODEL WIDTH HEIGHT PARAMS")
        name, model = words[:2]
        if model not in _BROWN_MODELS | _FISHEYE_MODELS:
            listed = ", ".join([*_BROWN_MODELS, *_FISHEYE_MODELS])
            raise ValueError(f"{path}: {where}: {model} cannot be represented, only {listed}")
        if name in lenses:
            raise ValueError(f"{path}: {where}: camera {name} is there twice")
        focals, extra = (_BROWN_MODELS | _FISHEYE_MODELS)[model]
        size = [int(side) for side in numbers(path, where, words[2:4])]
        given = numbers(path, f"{where}, {model}", words[4:], (focals + 2 + extra,)).tolist()
        cx, cy = (value - _SHIFT for value in given[focals : focals + 2])
        core = [given[0], given[focals - 1], cx, cy]
        more = given[focals + 2 :]
        if model in _FISHEYE_MODELS:
            lenses[name] = kannala_brandt(path, where, size, core, more + [0.0] * (4 - extra))
        else:
            lenses[name] = brown_conrady(path, where, size, core, more + [0.0] * (max(4, extra) - extra))
    if not lenses:
        raise ValueError(f"{path}: holds no camera")
    return lenses


def write_colmap(path: Path, lenses: Mapping[str, LensModel]) -> None:
    """Write lenses as ``cameras.txt``: PINHOLE, OPENCV, FULL_OPENCV or OPENCV_FISHEYE, numbered from 1.

    Raises
    ------
    ValueError
        A model that COLMAP has not.
    """
    lines = [
        "# Camera list with one line of data per camera:",
        "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]",
        f"# Number of cameras: {len(lenses)}",
    ]
    for number, (name, lens) in enumerate(lenses.items(), start=1):
        if isinstance(lens, KannalaBrandt):
            model, more = "OPENCV_FISHEYE", lens.parameters[4:].tolist()
        elif isinstance(lens, BrownConrady):
            more = coefficients(lens, (0, 4, 8), "COLMAP")
            model = {0: "PINHOLE", 4: "OPENCV", 8: "FULL_OPENCV"}[len(more)]
        else:
            raise refuse(lens, "COLMAP")
        values = [lens.fx, lens.fy, lens.cx + _SHIFT, lens.cy + _SHIFT, *more]
        lines += [
            f"# {name}",
            " ".join([str(number), model, str(lens.width), str(lens.height), *map(repr, values)]),
        ]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
