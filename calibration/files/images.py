"""Images of floats in OpenEXR files, and normal maps as other programs show them."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.files.models import one_line, read_bytes, replacing, write_bytes
from calibration.geometry import normalize

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
NormalAxes = Literal["opengl", "directx"]
"""Which way green points in a normal map: up or down; red is right and blue towards the camera in both."""

NORMAL_AXES = {"opengl": np.array([1.0, -1.0, -1.0]), "directx": np.array([1.0, 1.0, -1.0])}
"""Factors of a normal's components from the camera frame (x right, y down, z forward), and back."""

_AXES_KEY = "gnomon:normal-axes"
_IHDR_END = 8 + 25


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


def write_image(path: Path, image: NDArray[Any], texts: Mapping[str, str] | None = None) -> None:
    """Write a picture as it is: ``.png`` (uint8, uint16) or ``.tif`` (these and float32), RGB in this order.

    Parameters
    ----------
    path : Path
        Its folder exists.
    image : ndarray (h, w) or (h, w, 3)
    texts : mapping of str to str, optional
        Of a PNG: what the file says of itself, as tEXt chunks; keys of up to 79 characters, all Latin-1.

    Raises
    ------
    ValueError
        Another ending, shape or type; texts for a TIFF.
    OSError
        The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    kinds = {".png": ("uint8", "uint16"), ".tif": ("uint8", "uint16", "float32")}.get(path.suffix, ())
    if image.dtype.name not in kinds or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"{path}: cannot hold an image {image.shape} of {image.dtype}")
    if path.suffix == ".png":
        _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image))
        write_bytes(path, _with_texts(data.tobytes(), texts or {}))
        return
    if texts:
        raise ValueError(f"{path}: only a PNG holds texts")
    import tifffile

    with replacing(path) as temporary:
        tifffile.imwrite(temporary, image, photometric="minisblack" if image.ndim == 2 else "rgb")


def _with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """The PNG with tEXt chunks after its header (PNG Specification, Third Edition, 11.3.3.2)."""
    chunks = b""
    for key, text in texts.items():
        body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("latin-1")
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_IHDR_END] + chunks + png[_IHDR_END:]


def read_png_texts(path: Path) -> dict[str, str]:
    """The tEXt chunks of a PNG by key; FileNotFoundError without the file, ValueError if it is no PNG."""
    data = read_bytes(path, "no such file")
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{path}: no PNG")
    texts, at = {}, 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"tEXt":
            key, _, text = data[at + 8 : at + 8 + length].partition(b"\0")
            texts[key.decode("latin-1")] = text.decode("latin-1")
        at += 12 + length
    return texts


def write_normals_png(path: Path, normals: NDArray[Any], axes: NormalAxes = "opengl") -> None:
    """Write normals as a 16-bit RGB PNG the way other programs show them; the file says its axes (tEXt).

    Red, green and blue are (n + 1) / 2 * 65535 with x right, z TOWARDS the camera and y UP (``opengl``) or
    DOWN (``directx``); black is no normal.

    Parameters
    ----------
    path : Path
        Ends in ``.png``.
    normals : ndarray (h, w, 3)
        Camera frame (x right, y down, z forward), NaN where there is none.
    axes : 'opengl' or 'directx'
    """
    shown = (np.asarray(normals, np.float64) * NORMAL_AXES[axes] + 1) / 2 * 65535
    valid = np.isfinite(shown).all(axis=-1, keepdims=True)
    rgb = np.where(valid, np.rint(np.clip(np.where(valid, shown, 0), 0, 65535)), 0).astype(np.uint16)
    up = "up" if axes == "opengl" else "down"
    told = f"x right, y {up}, z towards the camera; n = value / 65535 * 2 - 1; black is no normal"
    write_image(path, rgb, {_AXES_KEY: axes, "Description": f"normals: {told}"})


def read_normals_png(path: Path, axes: NormalAxes | None = None) -> NDArray[np.float32]:
    """Unit normals (h, w, 3) of a PNG, camera frame, NaN where it is black.

    Parameters
    ----------
    path : Path
        RGB, 8 or 16 bits, of any program.
    axes : 'opengl' or 'directx', optional
        Of the green channel; None: as the file says, which those of `write_normals_png` do.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not an RGB PNG of 8 or 16 bits, or nothing says its axes.
    """
    told = read_png_texts(path).get(_AXES_KEY)
    chosen = axes or told
    if chosen not in NORMAL_AXES:
        raise ValueError(f"{path}: does not say whether green is up (opengl) or down (directx)")
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] < 3 or image.dtype.name not in ("uint8", "uint16"):
        raise ValueError(f"{path}: want RGB of 8 or 16 bits")
    rgb = image[..., 2::-1]
    full_scale = 255 if image.dtype == np.uint8 else 65535
    normals = normalize(rgb * (2.0 / full_scale) - 1.0) * NORMAL_AXES[chosen]
    normals[~rgb.any(axis=-1)] = np.nan
    return np.asarray(normals, np.float32)


def write_depth_png(path: Path, depth: NDArray[Any], unit: str = "mm") -> float:
    """Write depth as a 16-bit gray PNG, which says its scale (tEXt); return the step.

    Depth is ``offset + step * value``; 0 is no depth. The nearest depth is the value 1, the farthest 65535.

    Parameters
    ----------
    path : Path
        Ends in ``.png``.
    depth : ndarray (h, w)
        NaN where there is none.
    unit : str
        ``mm``, ``px`` or ``relative``, for the text.

    Raises
    ------
    ValueError
        No depth at all.
    """
    plane = np.asarray(depth, np.float64)
    valid = np.isfinite(plane)
    if not valid.any():
        raise ValueError(f"{path}: the depth is NaN everywhere")
    low, high = float(plane[valid].min()), float(plane[valid].max())
    step = (high - low) / 65534 or 1.0
    offset = low - step
    value = np.where(valid, np.clip(np.rint((np.where(valid, plane, low) - offset) / step), 1, 65535), 0)
    texts = {
        "gnomon:depth-offset": repr(offset),
        "gnomon:depth-step": repr(step),
        "gnomon:depth-unit": unit,
        "Description": f"depth in {unit} = {offset!r} + {step!r} * value; 0 is no depth",
    }
    write_image(path, value.astype(np.uint16), texts)
    return step


def read_depth_png(path: Path) -> NDArray[np.float32]:
    """Depth (h, w) of a PNG of `write_depth_png`, NaN where it has none; ValueError without a scale."""
    texts = read_png_texts(path)
    try:
        offset, step = float(texts["gnomon:depth-offset"]), float(texts["gnomon:depth-step"])
    except (KeyError, ValueError):
        raise ValueError(f"{path}: does not say its scale") from None
    value = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if value is None or value.ndim != 2:
        raise ValueError(f"{path}: want one channel")
    return np.where(value > 0, offset + step * value.astype(np.float64), np.nan).astype(np.float32)
