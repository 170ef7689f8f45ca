"""New pictures of a known surface: under other lights, and with a sensor's noise. Arrays in, arrays out."""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float, tangent_basis
from calibration.radiometric import Radiance, RadiometricModel, demosaic
from capture.frame import format_bits, format_cfa

Image = NDArray[np.float32]


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one picture: of the seed and its name alone, so in any order of pictures the same."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def directions(count: int, most_deg: float, rng: np.random.Generator) -> Iterator[Float]:
    """Unit vectors to lights, even over the cap within ``most_deg`` of the camera's axis; z < 0."""
    axis = np.array([0.0, 0.0, -1.0])
    right, down = tangent_basis(axis)
    for _ in range(count):
        cosine = rng.uniform(np.cos(np.radians(most_deg)), 1.0)
        turn = rng.uniform(0, 2 * np.pi)
        sine = np.sqrt(1 - cosine**2)
        yield cosine * axis + sine * (np.cos(turn) * right + np.sin(turn) * down)


def relight(normals: Image, albedo: Image, direction: ArrayLike, irradiance: ArrayLike) -> Image:
    """Radiance of the Lambertian part under a distant light: albedo * E * max(0, n.l).

    Parameters
    ----------
    normals : ndarray (h, w, 3)
        Camera frame; NaN where there is none.
    albedo : ndarray (h, w) or (h, w, 3)
    direction : 3 floats
        Unit vector to the light, camera frame.
    irradiance : 1 or 3 floats
        As a DistantLight's intensity.

    Returns
    -------
    ndarray (h, w) or (h, w, 3), float32
        0 in the attached shadow, NaN without a normal.

    Notes
    -----
    No highlight, no cast shadow, no light from surface to surface: glossy or deeply folded objects look
    otherwise.
    """
    shade = np.maximum(np.asarray(normals, np.float64) @ np.asarray(direction, np.float64), 0.0)
    shine = np.asarray(irradiance, np.float64)
    if albedo.ndim == 2:
        return np.asarray(albedo * shade * shine.mean(), np.float32)
    return np.asarray(albedo * shade[..., None] * shine, np.float32)


def retake(
    radiance: Radiance, exposure_s: float, sensor: RadiometricModel, rng: np.random.Generator
) -> Radiance:
    """The picture as one exposure of the sensor would have had it: noise, whole numbers, saturation.

    Parameters
    ----------
    radiance : Radiance, (h, w) or (h, w, 3)
        Expected e-/s and its variance. Where the variance is 0 the value is the truth, and photons are
        counted (Poisson); elsewhere only as much noise is added as the sensor's exceeds what is in it.
    exposure_s : float
        Not longer than what the radiance rests on, or its noise stays larger than the sensor's.
    sensor : RadiometricModel
        Of a counting sensor; its maps and its mosaic take part.
    rng : Generator

    Returns
    -------
    Radiance
        Linear, dark-subtracted, in e-/s as the sensor model gives it: NaN where saturated or defective, and
        where the radiance is.

    Raises
    ------
    ValueError
        The sensor counts no electrons (float formats).
    """
    bits = format_bits(sensor.pixel_format)
    if bits is None:
        raise ValueError(f"{sensor.pixel_format}: a float format has no noise model: give a sensor model")
    cfa = format_cfa(sensor.pixel_format)
    value, variance = (_sampled(np.asarray(plane, np.float64), cfa) for plane in radiance)
    known = np.isfinite(value)
    response = np.ones(1) if sensor.flat_map is None else np.asarray(sensor.flat_map, np.float64)
    dark = np.full(1, sensor.dark_current_e_s)
    if sensor.dark_rate_map is not None:
        dark = dark + sensor.dark_rate_map
    mean = np.maximum(np.nan_to_num(np.where(known, value, 0) * response + dark) * exposure_s, 0)
    there = np.where(known, variance, 0) * (response * exposure_s) ** 2
    lacking = np.sqrt(np.maximum(mean + sensor.read_noise_e**2 - there, 0))
    electrons = mean + lacking * rng.standard_normal(mean.shape)
    exact = known & (variance == 0)
    if exact.any():
        counted = rng.poisson(mean) + sensor.read_noise_e * rng.standard_normal(mean.shape)
        electrons = np.where(exact, counted, electrons)
    dn = sensor.dn_of(electrons.astype(np.float32)).astype(np.float64)
    if sensor.response is not None:
        dn += sensor.curve_noise_dn * rng.standard_normal(dn.shape)
    found = sensor.linearize(np.clip(np.rint(dn), 0, 2**bits - 1), exposure_s)
    taken = Radiance(*(np.where(known, plane, np.float32(np.nan)) for plane in found))
    if cfa is None:
        return taken
    # The mosaic is filled in from its neighbours, which are black beside the object.
    whole = demosaic(found, cfa, defects=sensor.defects)
    inside = np.isfinite(radiance.value)
    return Radiance(*(np.where(inside, plane, np.float32(np.nan)) for plane in whole))


def _sampled(plane: Float, cfa: str | None) -> Float:
    """What the pixels see of a colour picture: all of it, or of a mosaic each its own colour."""
    if cfa is None:
        return plane
    if plane.ndim == 2:
        raise ValueError("a mosaic sensor wants a colour picture")
    out = np.empty(plane.shape[:2])
    for place, letter in enumerate(cfa):
        row, column = divmod(place, 2)
        out[row::2, column::2] = plane[row::2, column::2, "RGB".index(letter)]
    return out
