"""Tiles of every frame of an exposure stack, as electrons: what the statistics of a stack rest on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.radiometric.model import RadiometricModel

_TILE = 64
# 4.5 sigma from the clipping levels: what the noise carries across no longer shifts a mean.
CLEAR_OF_CLIPPING = 4.5


class Sample(NamedTuple):
    """The same tiles of each frame, whole images where they are small.

    Attributes
    ----------
    electrons : ndarray (n, m, h, w) or (n, m, h, w, 3), float32
        Dark current inside; NaN where saturated (or within the margin of it), defective or not finite.
    floor : ndarray, a shape that broadcasts to that of ``electrons``, float32
        Variance without shot noise, e-^2.
    lowest, highest : float
        Electrons at which the sensor clips: full saturation, and DN 0.
    shot : bool
        Whether electrons carry shot noise (integer formats do).
    relative : float
        Relative sigma of every sample beside the noise (float formats).
    corners : ndarray (m, 2) or None
        Row and column of each tile; None: the whole image.
    """

    electrons: NDArray[np.float32]
    floor: NDArray[np.float32]
    lowest: float
    highest: float
    shot: bool
    relative: float
    corners: NDArray[np.int64] | None

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """Tiles of another image of the frames' size, (m, h, w, ...)."""
        return _cut(image, self.corners)

    def variance(self, expected: NDArray[Any]) -> NDArray[Any]:
        """Of a sample whose expectation is known, e-^2."""
        return np.asarray(sample_variance(expected, self.floor, self.shot, self.relative))

    def clear(self, expected: NDArray[Any], variance: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether the noise around the expectation stays off both clipping levels."""
        reach = CLEAR_OF_CLIPPING * np.sqrt(variance)
        return np.asarray((expected + reach < self.highest) & (expected - reach > self.lowest))

    def weight(self, expected: NDArray[Any]) -> NDArray[np.float32]:
        """Inverse variance of each sample by its expectation; 0 where it is not valid or not clear."""
        variance = self.variance(expected)
        good = np.isfinite(self.electrons) & self.clear(expected, variance)
        return np.where(good, 1 / variance, np.float32(0))


def sample_stack(
    frames: Sequence[NDArray[Any]], model: RadiometricModel, *, margin: int = 0, most: int = 262_144
) -> Sample:
    """Tiles of 64 x 64 px, evenly spread, from each frame in turn.

    Parameters
    ----------
    frames : sequence of ndarray, (h, w) or (h, w, 3)
        Read once each, one after the other.
    model : RadiometricModel
        Of the camera that took them.
    margin : int
        Samples within so many pixels of a saturated one are left out: blooming.
    most : int
        Samples to take of each frame, roughly; an image of no more is taken whole.

    Raises
    ------
    FitError
        A frame of another size than the model's.
    """
    height, width = model.shape[:2]
    corners = _corners(height, width, most // (3 if len(model.shape) == 3 else 1))
    electrons, floors = [], []
    for index, frame in enumerate(frames):
        dn = np.asarray(frame)
        if dn.shape != model.shape:
            raise FitError(f"frame {index} has shape {dn.shape}, the radiometric model is for {model.shape}")
        blocked = near_saturation(dn, model, margin)
        if index == 0:
            small = _cut_model(model, corners)
        tiles = _cut(dn, corners)
        value, floor = small.electrons(tiles.reshape(small.shape))
        value = value.reshape(tiles.shape)
        if blocked is not None:
            value[_cut(blocked, corners)] = np.nan
        electrons.append(value)
        floors.append(floor.reshape(tiles.shape) if model.response is not None else floor.flat[:1])
    shape = (len(frames),) + (1,) * electrons[0].ndim
    stacked = np.stack(floors)
    lowest, highest = _clipping_levels(model)
    return Sample(
        electrons=np.stack(electrons),
        floor=stacked if model.response is not None else stacked.reshape(shape),
        lowest=lowest,
        highest=highest,
        shot=model.counts_electrons,
        relative=0.0 if model.counts_electrons else model.flat_sigma,
        corners=corners,
    )


def counted_by(sample: Sample, before: RadiometricModel, after: RadiometricModel) -> Sample:
    """The sample of a linear model as another one counts it that differs in gain and noise alone."""
    lowest, highest = _clipping_levels(after)
    return sample._replace(
        electrons=sample.electrons * np.float32(before.gain_dn_per_e / after.gain_dn_per_e),
        floor=np.full_like(sample.floor, after.noise_dn2 / after.gain_dn_per_e**2),
        lowest=lowest,
        highest=highest,
    )


def _clipping_levels(model: RadiometricModel) -> tuple[float, float]:
    """Electrons at which a sample is cut off below (DN 0) and above (saturation)."""
    if not model.counts_electrons:
        return -np.inf, model.saturation_dn
    if model.response is not None:
        table = np.asarray(model.response, np.float64)
        top = min(int(model.saturation_dn), len(table) - 1)
        return float(table[0].max()), float(table[top].min())
    gain = model.gain_dn_per_e
    return -model.black_dn / gain, (model.saturation_dn - model.black_dn) / gain


def sample_variance(expected: Any, floor: Any, shot: bool, relative: float) -> Any:
    """Variance of a sample of known expectation, e-^2: shot noise, noise without light, relative noise."""
    if not shot:
        return floor + relative**2 * expected * expected
    return np.maximum(expected + floor, np.float32(0.5) * floor)


def near_saturation(dn: NDArray[Any], model: RadiometricModel, margin: int) -> NDArray[np.bool_] | None:
    """Samples within ``margin`` pixels of a saturated one, of any colour; None where the margin is 0."""
    if margin <= 0:
        return None
    saturated: NDArray[np.bool_] = np.asarray(dn >= model.saturation_dn)
    if saturated.ndim == 3:
        saturated = np.asarray(saturated.any(axis=-1))
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    near = cv2.dilate(saturated.astype(np.uint8), kernel) > 0
    return np.asarray(near if dn.ndim == 2 else np.repeat(near[..., None], 3, axis=-1))


def _corners(height: int, width: int, most: int) -> NDArray[np.int64] | None:
    """Top-left corners of the tiles, on even rows and columns so that colour filters stay in phase."""
    if height * width <= most or min(height, width) < 2 * _TILE:
        return None
    count = max(most // _TILE**2, 1)
    rows = max(min(round(np.sqrt(count * height / width)), height // _TILE), 1)
    columns = max(min(count // rows, width // _TILE), 1)
    y = np.linspace(0, height - _TILE, rows).astype(int) // 2 * 2
    x = np.linspace(0, width - _TILE, columns).astype(int) // 2 * 2
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def _cut(image: NDArray[Any], corners: NDArray[np.int64] | None) -> NDArray[Any]:
    if corners is None:
        return image[None]
    return np.stack([image[y : y + _TILE, x : x + _TILE] for y, x in corners])


def _cut_model(model: RadiometricModel, corners: NDArray[np.int64] | None) -> RadiometricModel:
    """The model of the tiles laid under each other."""
    if corners is None:
        return model
    maps = {
        name: _cut(image, corners).reshape(-1, _TILE, *image.shape[2:])
        for name in ("dark_map", "dark_rate_map", "flat_map", "defects")
        if (image := getattr(model, name)) is not None
    }
    return model.replace(width=_TILE, height=_TILE * len(corners), **maps)
