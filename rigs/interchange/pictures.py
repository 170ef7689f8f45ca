"""Picture files as they are to be undistorted: every channel of an EXR with its header, masks told apart."""

from pathlib import Path

import numpy as np
import tifffile

from calibration.files import read_exr, read_exr_attributes
from rigs.config import ConfigError
from rigs.interchange.images import ImageError, read_image
from rigs.workflows import Source

_COLOUR_FILTER_ARRAY = 32803


def read_picture(path: Path) -> Source:
    """Read PNG, TIFF, JPEG, BMP or HDR as `read_image` does, and all channels of an OpenEXR file.

    A gray integer picture of two values, one of which is 0, is a mask.

    Raises
    ------
    ConfigError
        No such file, none that can be read, or a TIFF that says it is a raw mosaic; the line names it.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder without a session: name its pictures")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        if path.suffix.lower() == ".exr":
            return Source(path, path.stem, ".exr", read_exr(path), read_exr_attributes(path))
        picture = read_image(path)
    except ImageError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, OSError) as error:
        raise ConfigError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    if _is_mosaic(path):
        raise ConfigError(
            f"{path}: is a raw mosaic, whose neighbours are of different colours: develop it first"
        )
    image = picture.dn
    suffix = ".tif" if image.dtype.kind == "f" or path.suffix.lower() in (".tif", ".tiff") else ".png"
    if image.ndim == 2 and image.dtype.kind == "u":
        top = image.max()
        if top > 0 and bool(np.all((image == 0) | (image == top))) and not image.all():
            return Source(path, path.stem, suffix, image, is_mask=True)
    return Source(path, path.stem, suffix, image)


def _is_mosaic(path: Path) -> bool:
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    with tifffile.TiffFile(path) as tiff:
        return int(tiff.pages.first.photometric) == _COLOUR_FILTER_ARRAY
