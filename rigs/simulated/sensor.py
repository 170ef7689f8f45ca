"""The sensor of a simulated camera: EMVA 1288's chain from photons to digital numbers, seeded.

The model is that of EMVA Standard 1288, release 4.0 Linear (European Machine Vision Association, 2021):
electrons are Poisson, dark noise is normal, numbers are rounded. The full well clips the electrons, then the
converter clips the numbers.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from rigs.simulated.surfaces import Float32
from rigs.simulated.truth import Optics, Sensor

Key = NDArray[np.uint64]


class Pattern(NamedTuple):
    """What is fixed in a sensor, (h, w) float32: relative response, dark current e-/s, dark offset e-."""

    response: Float32
    dark_e_s: Float32
    offset_e: Float32


def fixed_pattern(sensor: Sensor, shape: tuple[int, int], seed: int) -> Pattern:
    """Draw the sensor's pixels; depends on nothing but the arguments."""
    rng = np.random.default_rng([seed, 1288])
    response = 1 + np.float32(sensor.prnu) * rng.standard_normal(shape, np.float32)
    offset = np.float32(sensor.dsnu_e) * rng.standard_normal(shape, np.float32)
    dark = np.full(shape, sensor.dark_rate_e_s, np.float32)
    hot = rng.random(shape, np.float32) < sensor.hot_pixels
    warmer = 2.0 ** ((sensor.temperature_c - sensor.dark_reference_c) / sensor.dark_doubling_c)
    dark[hot] += (warmer * rng.exponential(sensor.hot_pixel_e_s, int(hot.sum()))).astype(np.float32)
    return Pattern(np.maximum(response, 0), dark, offset)


def noise_key(*what: object) -> Key:
    """Two 32-bit words from the text of what is asked: the same request has the same noise."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return np.frombuffer(digest, np.uint32).astype(np.uint64)


def vignetting(optics: Optics, rays: Float, centre: tuple[float, float]) -> Float32:
    """Share of the light that arrives at each pixel of ``rays`` (h, w, 3); 1 at ``centre`` (u, v)."""
    height, width = rays.shape[:2]
    u, v = np.arange(width) - centre[0], np.arange(height)[:, None] - centre[1]
    corner = max(centre[0], width - 1 - centre[0]) ** 2 + max(centre[1], height - 1 - centre[1]) ** 2
    out = 1 - optics.vignetting * (u * u + v * v) / corner
    if optics.cos4:
        out = out * np.maximum(rays[..., 2], 0.0) ** 4
    return np.asarray(np.nan_to_num(out), np.float32)


def expose(
    rate: Float32,
    exposure_s: float,
    gain_db: float,
    sensor: Sensor,
    pattern: Pattern,
    key: Key,
    *,
    corner: tuple[int, int] = (0, 0),
    stride: int | None = None,
) -> NDArray[np.uint16]:
    """Digital numbers of one channel.

    Parameters
    ----------
    rate : ndarray (h, w), float32
        Photo-electrons per second before the fixed pattern's response.
    exposure_s, gain_db : float
        Gain scales the sensor's DN/e-; its read noise in electrons stays.
    sensor, pattern :
        ``pattern`` has the shape of ``rate``.
    key : ndarray (2,), uint64
        From ``noise_key``.
    corner, stride : (row, column) of the first pixel and width of the sensor, when ``rate`` is a part of it:
        a pixel's noise belongs to its place.

    Returns
    -------
    ndarray (h, w), uint16, right-aligned
    """
    from rigs.simulated import kernels

    top = 2**sensor.bits - 1
    table = np.zeros(0)
    if sensor.response is not None:
        if sensor.response.gamma is not None:
            table = np.linspace(0, 1, 4097) ** (1 / sensor.response.gamma)
        else:
            table = np.asarray(sensor.response.table, np.float64)
    gain = sensor.gain_dn_per_e * 10 ** (gain_db / 20)
    numbers = np.array([sensor.full_well_e, sensor.read_noise_e, gain, sensor.black_dn, top], np.float64)
    out = np.empty(rate.shape, np.uint16)
    time = np.float32(exposure_s)
    kernels.expose(
        rate * pattern.response * time,
        pattern.dark_e_s * time,
        np.ascontiguousarray(pattern.offset_e),
        numbers,
        table,
        key,
        np.array(corner, np.int64),
        np.int64(stride or rate.shape[1]),
        out,
    )
    return out


def mosaic(rate: Float32, colour: str) -> list[Float32]:
    """Planes (h, w) that the sensor sees of ``rate`` (h, w, c): one of mono or Bayer, three of RGB."""
    if colour in ("mono", "rgb"):
        return [np.ascontiguousarray(rate[..., channel]) for channel in range(rate.shape[2])]
    out = np.empty(rate.shape[:2], np.float32)
    for place, letter in enumerate(colour):
        row, column = divmod(place, 2)
        out[row::2, column::2] = rate[row::2, column::2, "RGB".index(letter)]
    return [out]
