"""What a picture file says of its tone curve: whether its numbers are proportional to light."""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import tifffile

Kind = Literal["gamma", "suspected", "unknown", "linear"]
_WORST: tuple[Kind, ...] = ("gamma", "suspected", "unknown", "linear")
# A profile's curve counts as a straight line when it strays less than this share of full scale.
_STRAIGHT = 0.01
_SRGB_EXIF = 1
# ITU-T H.273, transfer characteristics: 8 is linear; what programs write beside it.
_CICP = {
    1: "BT.709",
    4: "gamma 2.2",
    5: "gamma 2.8",
    6: "BT.601",
    13: "sRGB",
    14: "BT.2020",
    16: "PQ",
    18: "HLG",
}
_DEVELOPERS = (
    "adobe", "affinity", "capture one", "darktable", "dcraw", "dxo", "gimp", "lightroom", "luminar",
    "photolab", "photoshop", "rawtherapee", "silkypix", "snapseed", "ufraw",
)  # fmt: skip


class Encoding(NamedTuple):
    """What a file's tags say of its numbers.

    Attributes
    ----------
    kind : 'gamma', 'suspected', 'unknown' or 'linear'
        ``suspected``: tagged with a gamma by a tag that programs write into linear files too. ``unknown``:
        no tag.
    why : str
        The tag, in words; empty where there is none.
    note : str
        What else the file tells of how it came to be.
    """

    kind: Kind
    why: str = ""
    note: str = ""


UNKNOWN = Encoding("unknown")
LINEAR_BY_FORMAT = Encoding("linear", "a format of linear values")


def of_png(data: bytes) -> Encoding:
    """What the chunks of a PNG say; of several the first in the order cICP, iCCP, sRGB, eXIf, gAMA holds.

    Notes
    -----
    PNG Specification (Third Edition), 2025, section 11.3.2. A gAMA chunk alone is a suspicion: ImageMagick
    writes 0.45455 into every picture that it converts, linear ones among them.
    """
    chunks = dict(_png_chunks(data))
    if "cICP" in chunks and len(chunks["cICP"]) >= 2:
        transfer = chunks["cICP"][1]
        if transfer == 8:
            return Encoding("linear", "PNG cICP chunk, linear")
        if transfer in _CICP:
            return Encoding("gamma", f"PNG cICP chunk, {_CICP[transfer]}")
    if "iCCP" in chunks:
        _, _, packed = chunks["iCCP"].partition(b"\0")
        try:
            found = of_icc(zlib.decompress(packed[1:]))
        except zlib.error:
            found = UNKNOWN
        if found.kind != "unknown":
            return found
    if "sRGB" in chunks:
        return Encoding("gamma", "PNG sRGB chunk")
    if "eXIf" in chunks and _exif_is_srgb(chunks["eXIf"]):
        return Encoding("gamma", "EXIF colour space sRGB")
    if len(chunks.get("gAMA", b"")) == 4:
        gamma = struct.unpack(">I", chunks["gAMA"])[0] / 100_000
        if abs(gamma - 1) < 0.01:
            return Encoding("linear", "PNG gAMA chunk, 1")
        return Encoding("suspected", f"PNG gAMA chunk, {gamma:.4g}")
    return UNKNOWN


def of_tiff(page: tifffile.TiffPage) -> Encoding:
    """What the tags of a TIFF page say: its ICC profile, else the EXIF colour space."""
    note = ""
    software = page.tags.valueof(305)
    if isinstance(software, str) and any(name in software.lower() for name in _DEVELOPERS):
        note = f"written by {' '.join(software.split())[:40]}: is its tone curve off?"
    profile = page.tags.valueof(34675)
    if isinstance(profile, bytes):
        found = of_icc(profile)
        if found.kind != "unknown":
            return found._replace(note=note)
    exif = page.tags.valueof(34665)
    if isinstance(exif, dict) and exif.get("ColorSpace") == _SRGB_EXIF:
        return Encoding("gamma", "EXIF colour space sRGB", note)
    return UNKNOWN._replace(note=note)


def of_icc(profile: bytes) -> Encoding:
    """Whether the tone curves of an ICC profile are straight; unknown where it has none that is read here.

    Notes
    -----
    ICC.1:2022, section 10.6 (``curv``) and 10.18 (``para``).
    """
    x = np.linspace(0, 1, 65)
    try:
        count = struct.unpack_from(">I", profile, 128)[0]
        for index in range(min(count, 100)):
            name, start = struct.unpack_from(">4sI", profile, 132 + 12 * index)
            if name in (b"rTRC", b"gTRC", b"bTRC", b"kTRC"):
                curve = _icc_curve(profile, start, x)
                if curve is not None and np.abs(curve - x).max() > _STRAIGHT:
                    return Encoding("gamma", f"ICC profile with a tone curve{_icc_gamma(curve)}")
                if curve is not None:
                    return Encoding("linear", "ICC profile with straight curves")
    except struct.error:
        pass
    return UNKNOWN


def _icc_gamma(curve: np.ndarray) -> str:
    middle = curve[len(curve) // 2]
    return f", gamma {np.log(middle) / np.log(0.5):.2g}" if 0 < middle < 1 else ""


def _icc_curve(profile: bytes, start: int, x: np.ndarray) -> np.ndarray | None:
    kind = profile[start : start + 4]
    if kind == b"curv":
        count = struct.unpack_from(">I", profile, start + 8)[0]
        if count == 0:
            return x
        table = np.frombuffer(profile, ">u2", min(count, 1 << 16), start + 12).astype(np.float64)
        if count == 1:
            return np.asarray(x ** (table[0] / 256))
        return np.asarray(np.interp(x, np.linspace(0, 1, count), table / 65535))
    if kind == b"para":
        function = struct.unpack_from(">H", profile, start + 8)[0]
        number = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}.get(function)
        if number is None:
            return None
        p = np.array(struct.unpack_from(f">{number}i", profile, start + 12)) / 65536
        g, a, b, c, d, e, f = p[0], 1.0, 0.0, 0.0, -1.0, 0.0, 0.0
        if function in (1, 2):
            a, b = p[1], p[2]
            d, e = -b / a if a else -1.0, p[3] if function == 2 else 0.0
            f = e
        elif function >= 3:
            a, b, c, d = p[1:5]
            e, f = (p[5], p[6]) if function == 4 else (0.0, 0.0)
        return np.asarray(np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f))
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name != b"IDAT":
            yield name.decode("latin-1"), data[at + 8 : at + 8 + length]
        at += 12 + length


def _exif_is_srgb(exif: bytes) -> bool:
    try:
        with tifffile.TiffFile(io.BytesIO(exif)) as tiff:
            tags = tiff.pages.first.tags.valueof(34665)
            return isinstance(tags, dict) and tags.get("ColorSpace") == _SRGB_EXIF
    except Exception:  # tifffile raises many kinds on damaged tags; these decide nothing
        return False


class Tally:
    """Encodings of the pictures of one camera, and their sum."""

    def __init__(self) -> None:
        self._count: Counter[tuple[Kind, str]] = Counter()

    def add(self, encoding: Encoding) -> None:
        """Count one picture."""
        self._count[encoding.kind, encoding.why] += 1

    def sum(self, linear: str) -> dict[str, str]:
        """``kind``, the worst of all pictures, and ``why``; ``linear`` says how it is known better."""
        kind = next(kind for kind in _WORST if any(kind == found for found, _ in self._count))
        reasons = [
            f"{count} file{'s' if count > 1 else ''}: {why}"
            for (found, why), count in self._count.items()
            if found == kind and why
        ]
        why = "; ".join(reasons)
        if linear and kind != "linear":
            return {"kind": "linear", "why": linear + (f", against {why}" if why else "")}
        return {"kind": kind, "why": why}
