"""What the averaged dark and bright image of a sensor show: nonuniformity, spectrogram, profiles, defects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric.sensor.nonuniformity import (
    Spread,
    high_pass,
    histogram,
    mean_square,
    outstanding,
    profiles,
    spectrum,
    spread,
)

Float = NDArray[np.float64]
Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Spatial:
    """One image: parts a colour, spectra (frequency, value) and profiles of rows and columns, defects.

    In DN for the dark image; relative to the mean for the bright one.
    """

    parts: list[Spread]
    spectra: tuple[tuple[Float, Float], tuple[Float, Float]]
    profiles: tuple[Float, Float]
    histogram: Float
    outstanding: Float


def dark_image(image: Image, good: NDArray[np.bool_], noise: float, planes: list[tuple[Any, ...]]) -> Spatial:
    """Of a mean of darks, whose temporal noise is ``noise`` DN^2; ``image`` is changed."""
    raw = []
    for plane in planes:
        part = image[plane]
        raw.append(mean_square(part, float(part.mean(dtype=np.float64))))
    every = [noise] * len(planes)
    return _examine(image, good, planes, [(noise, 0.0)] * len(planes), raw, every, relative=False)


def bright_image(
    image: Image,
    good: NDArray[np.bool_],
    planes: list[tuple[Any, ...]],
    *,
    frames: int,
    gain: float,
    dark_noise_dn2: float,
    map_noise_dn2: float,
) -> Spatial:
    """Of the mean light of ``frames`` flats.

    Parameters
    ----------
    image : ndarray, float32, DN, changed
        Dark taken off.
    good : ndarray of bool
    planes : list
        Index of each colour.
    frames : int
    gain : float
        DN/e-, for the shot noise that is left.
    dark_noise_dn2 : float
        Temporal noise of one frame without light.
    map_noise_dn2 : float
        Temporal noise of the dark image that was taken off.
    """
    noise, raw, raw_noise = [], [], []
    for plane in planes:
        part, kept = image[plane], good[plane]
        mean = float(np.mean(part, where=kept, dtype=np.float64))
        part /= np.float32(mean)
        floor = dark_noise_dn2 / frames + map_noise_dn2
        shot = gain * mean / frames
        noise.append((shot / mean**2, floor / mean**2))
        every = float(part.mean(dtype=np.float64))
        raw.append(mean_square(part, every) / every**2)
        raw_noise.append((shot + floor) / mean**2)
    return _examine(image, good, planes, noise, raw, raw_noise, relative=True)


def _examine(
    image: Image,
    good: NDArray[np.bool_],
    planes: list[tuple[Any, ...]],
    noise: list[tuple[float, float]],
    raw: list[float],
    raw_noise: list[float],
    *,
    relative: bool,
) -> Spatial:
    """``noise`` holds the shot noise and the rest, of a pixel at the image's mean."""
    # Three samples a pixel: the middle one, green, stands for the pictures of the image.
    shown = (..., 1) if image.ndim == 3 else ...
    view, kept = image[shown], good[shown]
    spectra = spectrum(view, kept, 1), spectrum(view, kept, 0)
    lines = profiles(view, kept, 1), profiles(view, kept, 0)
    parts = []
    for plane, (shot, rest), whole, of_whole in zip(planes, noise, raw, raw_noise, strict=True):
        # A pixel whose light is r of the mean: (shot r + rest) / r^2 of its own light.
        first, second = high_pass(image[plane], good[plane], relative=relative)
        parts.append(spread(image[plane], good[plane], shot * first + rest * second, whole, of_whole))
    return Spatial(
        parts=parts,
        spectra=spectra,
        profiles=lines,
        histogram=histogram(view),
        outstanding=outstanding(view, 1.0),
    )
