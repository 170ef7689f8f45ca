"""Camera buffers to right-aligned samples, for every packing of the PFNC and of GigE Vision.

A packed line of odd width ends amid a byte. There are two habits: the bits run on over the rows (PFNC without
line padding, GigE Vision), or each row begins at a byte of its own. A buffer says which by its size and its
padding: `row_stride`.

Sources: EMVA, GenICam Pixel Format Naming Convention 2.4 (lsb packed ``p``, grouped ``g``); AIA, GigE Vision
2.0 (``Mono10Packed``, ``Mono12Packed``).
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NAME = re.compile(
    r"(?P<family>Mono|Bayer(?:RG|GR|GB|BG)|RGBa?|BGRa?)(?P<bits>8|10|12|14|16)"
    r"(?P<packing>p|[Pp]acked|g(?:24|40)?(?:IDS)?)?"
)


@dataclass(frozen=True)
class Packing:
    """How samples lie in a buffer.

    Attributes
    ----------
    pixel_format : str
        Name without the packing, as a frame has it: ``Mono12`` of ``Mono12p``, ``RGB8`` of ``BGRa8``.
    bits : int
        Of one sample.
    channels : int
        Samples of one pixel in the buffer: 4 with an alpha channel, which is dropped.
    style : str
        ``plain`` (8 or 16 bits a sample, little-endian), ``stream`` (PFNC ``p``: no gaps, least bit first),
        ``packed`` (GigE Vision, pairs in 3 bytes), ``grouped`` (high bytes, then one byte of low bits).
    reverse : bool
        Blue comes first.
    """

    pixel_format: str
    bits: int
    channels: int
    style: str
    reverse: bool = False

    def row_bytes(self, samples: int) -> int:
        """Bytes from the first to the last that ``samples`` samples in a row touch."""
        if self.style == "plain":
            return samples * (1 if self.bits == 8 else 2)
        if self.style == "stream":
            return -(-samples * self.bits // 8)
        if self.style == "packed":
            return samples // 2 * 3 + samples % 2 * 2
        return -(-samples // 4) * 5 if self.bits == 10 else -(-samples // 2) * 3


def packing_of(name: str) -> Packing:
    """How the samples of a pixel format lie in a buffer.

    Raises
    ------
    ValueError
        Not a format that can be unpacked.
    """
    match = _NAME.fullmatch(name)
    if match is not None:
        family, bits, kind = match["family"], int(match["bits"]), (match["packing"] or "")
        channels = 1 if family.startswith(("Mono", "Bayer")) else 4 if family.endswith("a") else 3
        plain = f"RGB{bits}" if channels > 1 else f"{family}{bits}"
        style = {"": "plain", "p": "stream", "P": "packed", "g": "grouped"}[
            kind[:1] if kind != "packed" else "P"
        ]
        if style == "packed" and channels > 1:
            style = "plain"  # the older names of RGB8, RGB10, RGB12 say Packed where nothing is
        widths = {
            "plain": (8, 10, 12, 14, 16),
            "stream": (10, 12, 14),
            "packed": (10, 12),
            "grouped": (10, 12),
        }
        group = kind.removesuffix("IDS")[1:] if style == "grouped" else ""
        known = bits in widths[style] and group in ("", {10: "40", 12: "24"}.get(bits))
        if known and (style != "grouped" or channels == 1):
            return Packing(plain, bits, channels, style, family.startswith("BGR"))
    raise ValueError(
        f"pixel format {name!r} cannot be unpacked: want Mono, BayerRG, BayerGR, BayerGB, BayerBG, RGB, "
        "RGBa, BGR or BGRa with 8, 10, 12, 14 or 16 bits, plain, or with p, Packed or g after 10 or 12, "
        "or with p after 14"
    )


def row_stride(packing: Packing, width: int, height: int, size: int, padding: int = 0) -> int | None:
    """Bytes from row to row of a buffer; None where the bits run on over the rows.

    Parameters
    ----------
    packing : Packing
        Of the buffer.
    width, height : int
        Of the image, px.
    size : int
        Bytes of image data in the buffer, as far as known; what follows the image may be in it.
    padding : int
        Bytes that the buffer says follow each row.

    Raises
    ------
    ValueError
        The buffer is too small for the image.
    """
    samples = width * packing.channels
    row = packing.row_bytes(samples)
    stride: int | None = None
    if padding:
        stride = row + padding
    else:
        # rows of their own are believed where the size says nothing else, for running on is the standard:
        # as many bytes as needed, whole pairs, or words of 32 bits
        pairs = packing.row_bytes(samples + samples % 2) if packing.style == "packed" else row
        running = packing.row_bytes(samples * height)
        for bytes_ in (row, pairs, -(-row // 4) * 4):
            if size == bytes_ * height and size != running:
                stride = bytes_
                break
    _require(packing, width, height, size, stride)
    return stride


def _require(packing: Packing, width: int, height: int, size: int, stride: int | None) -> None:
    samples = width * packing.channels
    if stride is None:
        need = packing.row_bytes(samples * height)
    else:
        need = stride * (height - 1) + packing.row_bytes(samples)
    if size < need:
        raise ValueError(
            f"{size} bytes are too few for {width} x {height} of {packing.pixel_format}: want {need}"
        )


def unpack(
    data: NDArray[np.uint8],
    name: str,
    width: int,
    height: int,
    *,
    stride: int | None = None,
    big_endian: bool = False,
) -> NDArray[np.generic]:
    """Samples of a buffer, right-aligned, in memory of their own.

    Parameters
    ----------
    data : ndarray, (n,), uint8
        The buffer from the image's first byte on.
    name : str
        PFNC or GigE Vision name of the pixel format, with its packing.
    width, height : int
        Of the image, px.
    stride : int, optional
        Bytes from row to row; without, rows follow each other, and packed bits run on over them.
    big_endian : bool
        Samples of 16 bits come with their high byte first; no packed format does.

    Returns
    -------
    ndarray, (h, w) or (h, w, 3), uint8 or uint16
        Colours in the order R, G, B; without alpha.

    Raises
    ------
    ValueError
        The format is unknown; the buffer is too small; or a sample is larger than the format's bits allow, as
        those of cameras that align left.
    """
    packing = packing_of(name)
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels has none")
    samples = width * packing.channels
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    _require(packing, width, height, data.size, stride)
    if stride is not None and stride < packing.row_bytes(samples):
        raise ValueError(f"rows {stride} bytes apart overlap: one of {name} has {packing.row_bytes(samples)}")
    if packing.style == "plain":
        dn = _plain(data, packing, samples, height, stride, big_endian)
    else:
        dn = _packed(data, packing, samples, height, stride)
    if packing.channels == 1:
        return dn
    pixels = dn.reshape(height, width, packing.channels)[:, :, :3]
    return np.ascontiguousarray(pixels[:, :, ::-1] if packing.reverse else pixels)


def _plain(
    data: NDArray[np.uint8], packing: Packing, samples: int, rows: int, stride: int | None, big_endian: bool
) -> NDArray[np.generic]:
    kind = np.dtype("u1" if packing.bits == 8 else ">u2" if big_endian else "<u2")
    step = stride if stride is not None else samples * kind.itemsize
    view: NDArray[np.generic] = np.ndarray(
        (rows, samples), dtype=kind, buffer=data.data, strides=(step, kind.itemsize)
    )
    dn = view.astype(kind.newbyteorder("="))
    if 8 < packing.bits < 16 and int(dn.max()) >> packing.bits:
        raise ValueError(
            f"a sample of {int(dn.max())} is no {packing.bits}-bit number: "
            "does the camera align its samples left?"
        )
    return dn


def _packed(
    data: NDArray[np.uint8], packing: Packing, samples: int, rows: int, stride: int | None
) -> NDArray[np.uint16]:
    from capture.kernels import unpacking

    layout = {
        ("packed", 10): unpacking.PACKED10,
        ("packed", 12): unpacking.PACKED12,
        ("grouped", 10): unpacking.GROUPED10,
        ("grouped", 12): unpacking.GROUPED12,
    }.get((packing.style, packing.bits), unpacking.STREAM)
    dn = np.empty((rows, samples), np.uint16)
    # bits that run on are one long row
    out = dn if stride is not None else dn.reshape(1, -1)
    unpacking.unpack_rows(data.ctypes.data, data.size, layout, packing.bits, stride or 0, out)
    return dn
