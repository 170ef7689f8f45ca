"""Pixel maps as PNG: normals, albedo, depth, relief, sigma. White is where there is nothing."""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import normalize

Image = NDArray[np.uint8]
Window = tuple[slice, slice]

_COLOURS = 100
_RELIEF_LIGHT = normalize([-0.5, -0.6, -0.7])


def window(valid: NDArray[np.bool_], margin: float = 0.02) -> Window:
    """Smallest rectangle that holds all valid pixels, with a margin; everything when there are none."""
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if rows.size == 0:
        return slice(0, valid.shape[0]), slice(0, valid.shape[1])
    pad = int(margin * max(np.ptp(rows), np.ptp(columns))) + 1
    return (
        slice(max(int(rows[0]) - pad, 0), int(rows[-1]) + pad + 1),
        slice(max(int(columns[0]) - pad, 0), int(columns[-1]) + pad + 1),
    )


def shrink(values: NDArray[Any], longest: int) -> NDArray[np.float32]:
    """Area means of the finite samples, (h, w) or (h, w, c), until no side exceeds ``longest``."""
    data = np.asarray(values, np.float32)
    factor = longest / max(data.shape[:2])
    if factor >= 1:
        return data
    size = (max(round(data.shape[1] * factor), 1), max(round(data.shape[0] * factor), 1))
    finite = np.isfinite(data)
    weight = cv2.resize(finite.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(np.where(finite, data, np.float32(0)), size, interpolation=cv2.INTER_AREA)
    # Half a pixel's worth of samples keeps the outline where it is.
    return np.asarray(np.where(weight >= 0.5, total / np.maximum(weight, 0.5), np.nan), np.float32)


def normal_colours(normals: NDArray[Any]) -> Image:
    """RGB of unit normals (h, w, 3): red to the right, green up, blue to the camera; white where NaN."""
    rgb = 0.5 + 0.5 * np.asarray(normals) * np.array([1.0, -1.0, -1.0], np.float32)
    return _to_bytes(rgb)


def normal_ball(size: int = 160) -> Image:
    """Colours of all normals that face the camera, as they lie on a ball."""
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    with np.errstate(invalid="ignore"):
        z = -np.sqrt(1 - x**2 - y**2)
    return normal_colours(np.stack([np.where(np.isnan(z), np.nan, x), y, z], axis=-1))


def relief(normals: NDArray[Any]) -> Image:
    """Gray shading under one light from the upper left, which shows form without albedo."""
    shade = np.asarray(normals) @ _RELIEF_LIGHT.astype(np.float32)
    return _to_bytes(np.repeat(np.clip(shade, 0, None)[..., None], 3, axis=-1) * 0.92 + 0.04)


def photograph(linear: NDArray[Any], percentile: float = 99.5) -> Image:
    """Linear picture (h, w) or (h, w, 3) as seen on a screen: white at the percentile, sRGB curve."""
    data = np.asarray(linear, np.float32)
    if data.ndim == 2:
        data = np.repeat(data[..., None], 3, axis=-1)
    finite = data[np.isfinite(data)]
    white = float(np.percentile(finite, percentile)) if finite.size else 1.0
    level = np.clip(data / (white if white > 0 else 1.0), 0, 1)
    curve = np.where(level <= 0.0031308, 12.92 * level, 1.055 * level ** (1 / 2.4) - 0.055)
    # Short of white, which is where there is nothing.
    return _to_bytes(0.94 * curve)


def coloured(
    values: NDArray[Any], low: float, high: float, *, diverging: bool = False, logarithmic: bool = False
) -> bytes:
    """PNG of a scalar map (h, w) in colours between ``low`` and ``high``; white where NaN."""
    data = np.asarray(values, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        if logarithmic:
            data, low, high = np.log(data), float(np.log(low)), float(np.log(high))
        level = np.clip((data - low) / max(high - low, 1e-12), 0, 1)
        # Index 0 is white; a hundred colours are more than the eye tells apart, and compress well.
        index = np.where(np.isfinite(data), 1 + np.round(level * (_COLOURS - 1)), 0).astype(np.uint8)
    return _indexed_png(index, np.concatenate([[[255, 255, 255]], _ramp(diverging)]).astype(np.uint8))


def bar(*, diverging: bool = False) -> bytes:
    """PNG of the colours of ``coloured`` from low to high."""
    return _indexed_png(np.repeat(np.arange(_COLOURS, dtype=np.uint8)[None], 4, axis=0), _ramp(diverging))


def limits(values: NDArray[Any], low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    """Percentiles of the finite values, apart from each other; (0, 1) when there are none."""
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    a, b = (float(value) for value in np.percentile(finite, [low, high]))
    return (a, b) if b > a else (a, a + max(abs(a), 1.0) * 1e-3)


def png(rgb: Image) -> bytes:
    """Encode (h, w, 3) bytes; gray is stored as gray."""
    gray = bool(np.all(rgb[..., :1] == rgb))
    ok, data = cv2.imencode(".png", rgb[..., 0] if gray else rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 7])
    if not ok:
        raise ValueError(f"cannot encode a picture of shape {rgb.shape}")
    return data.tobytes()


def _indexed_png(index: Image, palette: Image) -> bytes:
    """PNG with a palette (ISO/IEC 15948, colour type 3): a third of the size of RGB on noisy maps."""
    height, width = index.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), index], axis=1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette.tobytes()),
            chunk(b"IDAT", zlib.compress(rows.tobytes(), 7)),
            chunk(b"IEND", b""),
        ]
    )


def _ramp(diverging: bool) -> Image:
    if not diverging:
        steps = np.round(np.linspace(0, 255, _COLOURS)).astype(np.uint8)[:, None]
        return np.asarray(cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1], np.uint8)
    level = np.linspace(-1, 1, _COLOURS)[:, None]
    end = np.where(level < 0, [33, 102, 172], [178, 24, 43])  # blue, red
    return np.asarray(np.round(240 + (end - 240) * np.abs(level) ** 0.8), np.uint8)


def _to_bytes(rgb: NDArray[Any]) -> Image:
    level = np.round(np.clip(np.nan_to_num(rgb, nan=1.0), 0, 1) * 255)
    level[~np.isfinite(rgb).all(axis=-1)] = 255
    return np.asarray(level, np.uint8)
