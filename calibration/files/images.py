"""Images of floats in OpenEXR files, and normal maps as other programs show them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.files.models import one_line, replacing, write_bytes

_Y_UP = np.array([1.0, -1.0, -1.0])  # x right, y up, z to the camera, from x right, y down, z forward


def write_exr(
    path: Path,
    channels: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, str | float | int] | None = None,
) -> None:
    """Write float32 channels to an OpenEXR file, ZIP-compressed (lossless); NaN stays NaN.

    Parameters
    ----------
    path : Path
        Its folder exists.
    channels : mapping of name to ndarray (h, w)
        For example ``N.X N.Y N.Z``, ``albedo.R``, ``Z``, ``sigma``.
    attributes : mapping, optional
        Into the header: say units, axes and frame here.

    Raises
    ------
    ValueError
        No channel, channels of different shapes, or an attribute that the format has itself.
    OSError
        The disk is full, or the folder cannot be written.
    """
    import OpenEXR

    planes = {name: np.ascontiguousarray(plane, np.float32) for name, plane in channels.items()}
    shapes = {plane.shape for plane in planes.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"{path}: want channels (h, w) of one shape, not {sorted(map(str, shapes))}")
    header: dict[str, Any] = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    own = {*header, "channels", "dataWindow", "displayWindow", "lineOrder", "pixelAspectRatio"}
    for name, value in (attributes or {}).items():
        if name in own:
            raise ValueError(f"{path}: attribute {name!r} belongs to the format")
        header[name] = float(value) if isinstance(value, float) else value
    with replacing(Path(path)) as temporary, OpenEXR.File(header, planes) as file:
        try:
            file.write(str(temporary))
        except RuntimeError as error:
            raise OSError(f"{path}: cannot be written: {' '.join(str(error).split())}") from None


def read_exr(path: Path) -> dict[str, NDArray[np.float32]]:
    """Channels of an OpenEXR file by name, each (h, w) float32 (16-bit floats and integers converted).

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not an OpenEXR file, cut short, or with subsampled channels or a channel name in two parts.
    """
    import OpenEXR

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    channels: dict[str, NDArray[np.float32]] = {}
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            for part in file.parts:
                low, high = part.header["dataWindow"]
                shape = (int(high[1] - low[1] + 1), int(high[0] - low[0] + 1))
                for name, channel in part.channels.items():
                    if name in channels:
                        raise ValueError(f"{path}: channel {name} is in two parts: save one part")
                    pixels = np.asarray(channel.pixels)
                    if pixels.shape != shape:
                        raise ValueError(f"{path}: channel {name} is cut short or subsampled")
                    channels[name] = pixels.astype(np.float32)
    except RuntimeError as error:
        raise ValueError(f"{path}: no readable OpenEXR file ({one_line(error)})") from None
    if not channels:
        raise ValueError(f"{path}: damaged: no channel can be read")
    return channels


def write_normals_png(path: Path, normals: NDArray[Any]) -> None:
    """Write normals as a 16-bit RGB PNG the way other programs show them.

    Red, green and blue are (n + 1) / 2 * 65535 with x right, y UP, z TOWARDS the camera; black is no normal.

    Parameters
    ----------
    path : Path
        Ends in ``.png``.
    normals : ndarray (h, w, 3)
        Camera frame (x right, y down, z forward), NaN where there is none.
    """
    shown = (np.asarray(normals, np.float64) * _Y_UP + 1) / 2 * 65535
    valid = np.isfinite(shown).all(axis=-1, keepdims=True)
    rgb = np.where(valid, np.rint(np.clip(np.where(valid, shown, 0), 0, 65535)), 0).astype(np.uint16)
    ok, data = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    if not ok:
        raise ValueError(f"{path}: cannot be encoded as PNG")
    write_bytes(path, data.tobytes())
