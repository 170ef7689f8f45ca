"""What the files of a still camera hold: RAW read with LibRaw (rawpy), JPEG with OpenCV."""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.frame import format_bits


class Raw(NamedTuple):
    """What a file holds: the visible area, its format, the mean black level, the shutter speed it names."""

    dn: NDArray[np.generic]
    pixel_format: str
    black_level_dn: float
    exposure_s: float | None


def decode_jpeg(data: bytes) -> Raw:
    """Read a JPEG as the camera has written it: gamma and all, not turned; ValueError where it is broken."""
    import cv2

    image = cv2.imdecode(
        np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if image is None:
        raise ValueError("sent a JPEG that cannot be read")
    return Raw(np.ascontiguousarray(image[:, :, ::-1]), "RGB8", 0.0, None)


def decode_raw(data: bytes) -> Raw:
    """Read the sensor's own numbers from a RAW file.

    The format's bits are the fewest that hold the file's white level. A black level that differs between
    colours is averaged: the frames of a dark block tell each.

    Raises
    ------
    ValueError
        LibRaw does not know the file, or its sensor has no 2 x 2 colour filter.
    """
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            if raw.raw_type != rawpy.RawType.Flat or getattr(raw.raw_pattern, "shape", None) != (2, 2):
                raise ValueError("sent a RAW file without a Bayer pattern")
            colours = raw.color_desc.decode()
            # LibRaw counts rows and columns of colours from the corner of the visible area
            pattern = "".join(colours[raw.raw_color(y, x)] for y in (0, 1) for x in (0, 1))
            family = {"RGGB": "BayerRG", "GRBG": "BayerGR", "GBRG": "BayerGB", "BGGR": "BayerBG"}.get(pattern)
            if family is None:
                raise ValueError(f"sent a RAW file with the colour filter {pattern}, which is not Bayer's")
            white = int(raw.white_level)
            pixel_format = f"{family}{next(bits for bits in (8, 10, 12, 14, 16) if white < 2**bits)}"
            dtype = np.uint8 if format_bits(pixel_format) == 8 else np.uint16
            return Raw(
                dn=raw.raw_image_visible.astype(dtype),
                pixel_format=pixel_format,
                black_level_dn=float(np.mean(raw.black_level_per_channel)),
                exposure_s=float(raw.other.shutter_speed) or None,
            )
    except rawpy.LibRawError as error:
        raise ValueError(f"sent a file that LibRaw does not read: {_said(error)}") from None


def _said(error: Exception) -> str:
    told = error.args[0] if error.args else error
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
