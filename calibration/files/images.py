"""Images of floats in OpenEXR files, and normal maps as other programs show them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.files.models import one_line, replacing, write_bytes

Attribute = str | float | int | Sequence[float] | Sequence[str]
"""What an attribute of a file may be; a float is stored in 32 bits."""

_OWN = {
    "channels", "compression", "dataWindow", "displayWindow", "lineOrder", "pixelAspectRatio",
    "screenWindowCenter", "screenWindowWidth", "type",
}  # fmt: skip
# Attributes that OpenEXR itself defines as floats: an integer there would be of another type and be ignored.
_FLOATS = (
    "altitude", "aperture", "expTime", "focus", "framesPerSecond", "isoSpeed", "latitude",
    "longitude", "utcOffset", "whiteLuminance", "xDensity",
)  # fmt: skip
_Y_UP = np.array([1.0, -1.0, -1.0])  # x right, y up, z to the camera, from x right, y down, z forward


def write_exr(
    path: Path,
    channels: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Attribute] | None = None,
) -> None:
    """Write float32 channels to an OpenEXR file, ZIP-compressed (lossless); NaN stays NaN.

    Parameters
    ----------
    path : Path
        Its folder exists.
    channels : mapping of name to ndarray (h, w)
        For example ``N.X N.Y N.Z``, ``albedo.R``, ``Z``, ``sigma``.
    attributes : mapping, optional
        Into the header: say units, axes and frame here. Names that OpenEXR defines have its types:
        ``expTime`` (s) and ``whiteLuminance`` (cd/m^2 of the value 1) are floats, ``chromaticities`` eight
        numbers, x, y of red, green, blue and white. Other sequences are lists of floats or of strings.

    Raises
    ------
    ValueError
        No channel, channels of different shapes, an attribute that the format has itself, or one that is not
        of its type.
    OSError
        The disk is full, or the folder cannot be written.
    """
    import OpenEXR

    planes = {name: np.ascontiguousarray(plane, np.float32) for name, plane in channels.items()}
    shapes = {plane.shape for plane in planes.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"{path}: want channels (h, w) of one shape, not {sorted(map(str, shapes))}")
    header: dict[str, Any] = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for name, value in (attributes or {}).items():
        if name in _OWN:
            raise ValueError(f"{path}: attribute {name!r} belongs to the format")
        header[name] = _attribute(path, name, value)
    with replacing(Path(path)) as temporary, OpenEXR.File(header, planes) as file:
        try:
            file.write(str(temporary))
        except RuntimeError as error:
            raise OSError(f"{path}: cannot be written: {' '.join(str(error).split())}") from None


def _attribute(path: Path, name: str, value: Attribute) -> Any:
    """Value as the OpenEXR package wants it for the type that the attribute shall have."""
    if name == "chromaticities":
        numbers = tuple(float(number) for number in value) if not isinstance(value, str | float | int) else ()
        if len(numbers) != 8 or not np.all(np.isfinite(numbers)):
            raise ValueError(
                f"{path}: chromaticities: want eight numbers, x and y of red, green, blue, white"
            )
        return numbers
    if isinstance(value, str | bool):
        if name in _FLOATS:
            raise ValueError(f"{path}: attribute {name!r} is {value!r}, want a number")
        return value if isinstance(value, str) else int(value)
    if isinstance(value, float | int | np.number):
        return float(value) if name in _FLOATS or not isinstance(value, int | np.integer) else int(value)
    return [entry if isinstance(entry, str) else float(entry) for entry in value]


def read_exr_attributes(path: Path) -> dict[str, Any]:
    """Attributes of an OpenEXR file beside those of the format itself: text, numbers, lists and tuples.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not an OpenEXR file.
    """
    import OpenEXR

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
            header = dict(file.header())
    except RuntimeError as error:
        raise ValueError(f"{path}: no readable OpenEXR file ({one_line(error)})") from None
    return {
        name: value
        for name, value in header.items()
        if name not in _OWN and isinstance(value, str | float | int | list | tuple)
    }


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


def write_image(path: Path, image: NDArray[Any]) -> None:
    """Write a picture as it is: ``.png`` (uint8, uint16) or ``.tif`` (these and float32), RGB in this order.

    Parameters
    ----------
    path : Path
        Its folder exists.
    image : ndarray (h, w) or (h, w, 3)

    Raises
    ------
    ValueError
        Another ending, shape or type.
    OSError
        The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    kinds = {".png": ("uint8", "uint16"), ".tif": ("uint8", "uint16", "float32")}.get(path.suffix, ())
    if image.dtype.name not in kinds or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"{path}: cannot hold an image {image.shape} of {image.dtype}")
    if path.suffix == ".png":
        _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image))
        write_bytes(path, data.tobytes())
        return
    import tifffile

    with replacing(path) as temporary:
        tifffile.imwrite(temporary, image, photometric="minisblack" if image.ndim == 2 else "rgb")


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
    write_image(path, rgb)
