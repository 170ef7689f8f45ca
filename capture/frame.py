"""One raw exposure, locked, with what the camera reports it did."""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FORMAT = re.compile(r"(?P<family>Mono|RGB|BayerRG|BayerGR|BayerGB|BayerBG)(?P<bits>8|10|12|14|16|32f)")


def format_bits(pixel_format: str) -> int | None:
    """Bits of one sample of a GenICam PFNC pixel format; None for float (``Mono32f``).

    Raises
    ------
    ValueError
        The name is not one of Mono, RGB, BayerRG, BayerGR, BayerGB, BayerBG with 8, 10, 12, 14, 16 or 32f.
    """
    match = _FORMAT.fullmatch(pixel_format)
    if match is None:
        raise ValueError(
            f"pixel format {pixel_format!r}: want Mono, RGB, BayerRG, BayerGR, BayerGB or BayerBG "
            "followed by 8, 10, 12, 14, 16 or 32f"
        )
    return None if match["bits"] == "32f" else int(match["bits"])


def format_cfa(pixel_format: str) -> str | None:
    """Colour filter order of the top-left 2 x 2 block (``RGGB``, ``GRBG``, ``GBRG``, ``BGGR``) or None."""
    format_bits(pixel_format)
    return {"BayerRG": "RGGB", "BayerGR": "GRBG", "BayerGB": "GBRG", "BayerBG": "BGGR"}.get(pixel_format[:7])


@dataclass(frozen=True, eq=False)
class Frame:
    """One exposure as it left the camera.

    Attributes
    ----------
    dn : ndarray, (h, w) or (h, w, 3), uint8, uint16 or float32
        Raw digital numbers, right-aligned (a 12-bit sample lies in 0..4095). Locked on construction.
    pixel_format : str
        GenICam PFNC name without packing: ``Mono12``, ``BayerRG12``, ``RGB8``, ``Mono32f``.
    exposure_s, gain_db : float
        What the camera REPORTS it applied, not what was asked.
    frame_id : int
        The camera's own counter; a gap is a lost frame.
    timestamp_ns : int
        Start of exposure on the camera's clock.
    black_level_dn, temperature_c : float or None
        None where the camera does not say.
    """

    dn: NDArray[np.generic]
    pixel_format: str
    exposure_s: float
    gain_db: float
    frame_id: int
    timestamp_ns: int
    black_level_dn: float | None = None
    temperature_c: float | None = None

    def __post_init__(self) -> None:
        bits = format_bits(self.pixel_format)
        want = np.float32 if bits is None else np.uint8 if bits == 8 else np.uint16
        if self.dn.dtype != want:
            raise ValueError(f"{self.pixel_format} frame has dtype {self.dn.dtype}, want {np.dtype(want)}")
        shape = self.dn.shape
        if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
            raise ValueError(f"frame has shape {shape}, want (h, w) or (h, w, 3)")
        if self.pixel_format.startswith("RGB") != (len(shape) == 3):
            raise ValueError(f"{self.pixel_format} frame has shape {shape}")
        for name in ("exposure_s", "gain_db", "black_level_dn", "temperature_c"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"frame reports {name} = {value}")
        self.dn.flags.writeable = False
