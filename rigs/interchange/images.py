"""Read one picture file as the numbers it holds: no gamma, no rotation, no rescaling, RGB in this order."""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import OpenEXR
import tifffile
from numpy.typing import NDArray

from rigs.interchange import encoding
from rigs.interchange.encoding import Encoding

SUFFIXES = (".png", ".tif", ".tiff", ".exr", ".hdr", ".bmp", ".jpg", ".jpeg")
_RAW_SUFFIXES = (
    ".arw",
    ".cr2",
    ".cr3",
    ".crw",
    ".dng",
    ".iiq",
    ".nef",
    ".orf",
    ".pef",
    ".raf",
    ".raw",
    ".rw2",
)
_CFA_FORMAT = {"RGGB": "BayerRG", "GRBG": "BayerGR", "GBRG": "BayerGB", "BGGR": "BayerBG"}


class ImageError(ValueError):
    """The file holds nothing that can be taken as a measurement; the message says why."""


class Picture(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    dn : ndarray, (h, w) or (h, w, 3), uint8, uint16 or float32
        As stored, RGB order.
    pixel_format : str
        ``Mono8``, ``RGB16``, ``BayerRG16``, ``Mono32f`` and so on.
    notes, warnings : tuple of str
        What was left out; what speaks against the file as a measurement.
    encoding : Encoding
        What the file's tags say of its tone curve.
    """

    dn: NDArray[np.generic]
    pixel_format: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    encoding: Encoding = encoding.UNKNOWN


def read_image(path: Path, *, bayer: str | None = None) -> Picture:
    """Read PNG, TIFF, OpenEXR, Radiance HDR, BMP or JPEG; the file's first bytes decide, not its name.

    Parameters
    ----------
    path : Path
        The file.
    bayer : 'RGGB', 'GRBG', 'GBRG' or 'BGGR', optional
        The picture is a raw mosaic with this order of the top-left 2 x 2 pixels.

    Raises
    ------
    ImageError
        Unknown, damaged, camera raw, several pages, a palette, real transparency, or samples other than
        unsigned 8 or 16 bits or float; NaN or infinite; colour where ``bayer`` wants a mosaic.
    """
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise ImageError("camera raw is not read; develop it linearly to 16-bit TIFF without white balance")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    notes: list[str] = []
    warnings: list[str] = []
    told = encoding.UNKNOWN
    if data.startswith(b"\x89PNG"):
        dn, told = _png(data), encoding.of_png(data)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        dn, told = _tiff(path, data)
    elif data.startswith(b"\x76\x2f\x31\x01"):
        dn, told = _exr(path, notes), encoding.LINEAR_BY_FORMAT
    elif data.startswith(b"#?"):
        dn, told = _decode(data), encoding.LINEAR_BY_FORMAT
    elif data.startswith(b"BM"):
        dn = _decode(data)
    elif data.startswith(b"\xff\xd8"):
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
            raise ImageError("is damaged: cut short")  # decoders fill the rest with gray
        dn, told = _decode(data), Encoding("gamma", "JPEG")
        warnings.append("JPEG is gamma-encoded and lossy; linear data (TIFF, PNG, EXR) are wanted")
    else:
        raise ImageError(_no_picture(path, data))
    if told.note:
        notes.append(told.note)
    return _picture(dn, notes, warnings, bayer)._replace(encoding=told)


def _no_picture(path: Path, data: bytes) -> str:
    suffix = path.suffix.lower()
    if not data:
        return "is empty"
    if suffix in SUFFIXES:
        return f"not a picture, or damaged: does not begin as a {suffix} file does"
    return f"not a picture that is read here ({' '.join(SUFFIXES)})"


def _picture(dn: NDArray[Any], notes: list[str], warnings: list[str], bayer: str | None) -> Picture:
    if dn.ndim == 3 and dn.shape[2] in (2, 4):
        alpha, dn = dn[..., -1], dn[..., :-1]
        opaque = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
        if not np.all(alpha == opaque):
            raise ImageError("has transparent pixels: no measurement; save it without alpha")
        notes.append("an opaque alpha channel was left out")
    if dn.ndim == 3 and dn.shape[2] == 1:
        dn = dn[..., 0]
    if not (dn.ndim == 2 or (dn.ndim == 3 and dn.shape[2] == 3)) or 0 in dn.shape:
        raise ImageError(f"has shape {dn.shape}, want (h, w) or (h, w, 3)")
    if dn.dtype in (np.int32, np.uint32) and int(dn.min()) >= 0 and int(dn.max()) < 1 << 16:
        dn = dn.astype(np.uint16)
        notes.append("32-bit integers below 65536 are kept as 16-bit")
    if dn.dtype.kind == "f":
        dn, bits = dn.astype(np.float32), "32f"
        bad = np.argwhere(~np.isfinite(dn))
        if len(bad):
            raise ImageError(
                f"{len(bad)} samples are NaN or infinite, the first at x {bad[0][1]}, y {bad[0][0]}: no "
                "measurement; write it without, and leave such places out by a mask"
            )
    elif dn.dtype in (np.uint8, np.uint16):
        bits = str(8 * dn.dtype.itemsize)
    else:
        raise ImageError(f"has {dn.dtype} samples, want unsigned 8 or 16 bits or float")
    family = "Mono" if dn.ndim == 2 else "RGB"
    if bayer is not None:
        if bayer not in _CFA_FORMAT:
            raise ImageError(f"Bayer order {bayer!r} is unknown; want {', '.join(_CFA_FORMAT)}")
        if dn.ndim == 3:
            raise ImageError(f"is colour already, not a raw {bayer} mosaic")
        family = _CFA_FORMAT[bayer]
    return Picture(np.ascontiguousarray(dn), family + bits, tuple(notes), tuple(warnings))


def _png(data: bytes) -> NDArray[Any]:
    if len(data) < 26:
        raise ImageError("is damaged: cut short")
    bits, colour = struct.unpack(">BB", data[24:26])
    if colour == 3:
        raise ImageError("has a palette; save it as gray or RGB")
    if bits < 8:
        raise ImageError(f"has only {bits} bits a sample, want 8 or 16")
    return _decode(data)


def _decode(data: bytes) -> NDArray[Any]:
    """Decode by OpenCV, whose colours come out as BGR, and gray with alpha as BGRA."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said once, below
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise ImageError("is damaged or of an unknown kind")
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return image


def _tiff(path: Path, data: bytes) -> tuple[NDArray[Any], Encoding]:
    told = encoding.UNKNOWN
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            # A page of smaller size is a thumbnail or a pyramid level; two of one size are two exposures.
            same = [other for other in tiff.pages if getattr(other, "shape", None) == page.shape]
            if len(same) > 1:
                raise ImageError(f"holds {len(same)} pages; write one file for each")
            told = encoding.of_tiff(page)
            photometric = int(page.photometric)
            if photometric not in (1, 2, 32803, 34892):
                raise ImageError(f"photometric kind {photometric} is not read, want gray or RGB")
            if page.sampleformat == 1 and page.bitspersample not in (8, 16):
                raise ImageError(f"has {page.bitspersample} bits a sample, want 8 or 16 (or float)")
            if page.planarconfig == 2 and page.samplesperpixel > 1:
                return np.moveaxis(np.asarray(page.asarray()), 0, -1), told
            return np.asarray(page.asarray()), told
    except ImageError:
        raise
    except ValueError as error:
        # tifffile leaves LZW and its like to another package; libtiff inside OpenCV knows them.
        if "imagecodecs" in str(error):
            return _decode(data), told
        raise ImageError(f"is damaged: {error}") from None
    except (
        Exception
    ) as error:  # tifffile raises many kinds on damaged files: struct.error, IndexError, zlib.error
        raise ImageError(f"is damaged: {error}") from None


def _exr(path: Path, notes: list[str]) -> NDArray[Any]:
    try:
        with OpenEXR.File(str(path), separate_channels=True) as exr:
            # Header and channels are empty once the file is closed.
            header = exr.header()
            windows = [np.ravel(header[key]).tolist() for key in ("dataWindow", "displayWindow")]
            planes = {name: np.array(channel.pixels) for name, channel in exr.channels().items()}
            if len(exr.parts) > 1:
                notes.append(f"first of {len(exr.parts)} parts taken")
    except Exception as error:  # of many kinds, by where the file is cut
        raise ImageError(f"is damaged: {error}") from None
    if windows[0] != windows[1]:
        raise ImageError(
            f"data window {windows[0]} is not its display window {windows[1]}; save it uncropped"
        )
    names = _exr_names(list(planes))
    left = sorted(set(planes) - set(names))
    if left:
        notes.append(f"channels left out: {', '.join(left)}")
    if len({planes[name].shape for name in names}) > 1:
        raise ImageError("has subsampled colour channels; save it as RGB")
    return planes[names[0]] if len(names) == 1 else np.stack([planes[name] for name in names], axis=-1)


def _exr_names(names: list[str]) -> tuple[str, ...]:
    """Return the channels that are the picture: Y or R, G, B, of the whole file or of its only layer."""
    pictures: dict[str, tuple[str, ...]] = {}
    for layer in sorted({name.rpartition(".")[0] for name in names}):
        stem = f"{layer}." if layer else ""
        if all(stem + letter in names for letter in "RGB"):
            pictures[layer] = (stem + "R", stem + "G", stem + "B")
        elif stem + "Y" in names and stem + "RY" not in names:
            pictures[layer] = (stem + "Y",)
    if not pictures:
        raise ImageError(f"has the channels {', '.join(sorted(names))}; want Y, or R, G and B")
    if len(pictures) > 1 and "" not in pictures:
        raise ImageError(f"has several layers ({', '.join(pictures)}); write one file for each")
    return pictures.get("", next(iter(pictures.values())))
