"""What a metering frame says of a scene, and what a set of exposures would make of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError
from calibration.radiometric.model import Radiance, RadiometricModel, look_up
from calibration.radiometric.vignetting import colour_planes

Float = NDArray[np.float64]

PER_OCTAVE = 16
_CLEAR_SNR = 50.0  # below it a sample stands for its neighbourhood, unless it is clearly another
_ANOTHER_SIGMAS = 4.0
_SEEN_SIGMAS = 3.0
_CLEAR_OF_SATURATION = 4.0  # sigma of a sample


@dataclass(eq=False)
class Distribution:
    """How much of a scene lies at which light: a histogram of the electrons per second that samples gather.

    Light as the pixel meets it: vignetting and the pixel's own response are in it, dark current is not.

    Attributes
    ----------
    counts : dict of int to int
        Samples in each class of ``rate``, 16 to the octave.
    above : int
        Samples that no exposure held: brighter than ``ceiling_e_s``.
    ceiling_e_s : float
        Light that saturates the shortest exposure.
    dark : int
        Samples without measurable light, even averaged over their neighbours.
    """

    counts: dict[int, int] = field(default_factory=dict)
    above: int = 0
    ceiling_e_s: float = 0.0
    dark: int = 0

    def add(self, radiance: Radiance, model: RadiometricModel, shortest_s: float) -> None:
        """Count the samples of one merged picture.

        Parameters
        ----------
        radiance : Radiance
            Merged or linearised by ``model``, as a mosaic where it is one.
        model : RadiometricModel
        shortest_s : float
            Shortest of its exposures.
        """
        well = Well(model)
        self.ceiling_e_s = max(self.ceiling_e_s, well.clear_e / shortest_s - well.dark_e_s)
        defects = np.zeros(model.shape, np.bool_) if model.defects is None else model.defects
        for plane in colour_planes(model.pixel_format):
            value, variance = radiance.value[plane], radiance.variance[plane]
            if model.flat_map is not None:
                flat = model.flat_map[plane].astype(np.float32)
                value, variance = value * flat, variance * flat * flat
            finite = np.isfinite(value)
            self.above += int(np.count_nonzero(~finite & ~defects[plane]))
            rate, seen = _calmed(value, variance, finite)
            self.dark += int(np.count_nonzero(finite & ~seen))
            classes = np.round(np.log2(rate[finite & seen]) * PER_OCTAVE).astype(np.int64)
            for number, count in zip(*np.unique(classes, return_counts=True), strict=True):
                self.counts[int(number)] = self.counts.get(int(number), 0) + int(count)

    @property
    def rate(self) -> Float:
        """Light of the classes, e-/s, rising."""
        return np.asarray(2.0 ** (np.array(sorted(self.counts), np.float64) / PER_OCTAVE))

    @property
    def share(self) -> Float:
        """Share of the measured samples in each class."""
        counts = np.array([self.counts[number] for number in sorted(self.counts)], np.float64)
        return np.asarray(counts / counts.sum())

    @classmethod
    def of(cls, rate: Iterable[float], count: int = 1) -> Self:
        """A scene of these lights, e-/s, each ``count`` times."""
        out = cls()
        for number in np.round(np.log2(np.asarray(list(rate), np.float64)) * PER_OCTAVE).astype(int):
            out.counts[int(number)] = out.counts.get(int(number), 0) + count
        return out


def predict_snr(
    model: RadiometricModel, exposures_s: ArrayLike, repeats: ArrayLike, rate: ArrayLike
) -> Float:
    """Signal-to-noise ratio of the merge of these exposures at these lights.

    Parameters
    ----------
    model : RadiometricModel
        Its map errors count too: ``replace(flat_sigma=0, dark_covariance=None)`` for repeats alone.
    exposures_s, repeats : array_like (k,)
    rate : array_like (n,)
        e-/s at the pixel.

    Returns
    -------
    ndarray (n,), float64
        Of the minimum-variance merge (see ``merge``); 0 where every exposure comes within four sigma of
        saturation. There a merge gives a little more than is promised here.
    """
    return Well(model).snr(
        np.asarray(exposures_s, np.float64), np.asarray(repeats), np.asarray(rate, np.float64)
    )


class Well:
    """Noise of one sample as a function of the electrons it gathers."""

    def __init__(self, model: RadiometricModel) -> None:
        if not model.counts_electrons:
            raise FitError(
                f"bracket: {model.pixel_format} frames hold no electrons: want a raw camera's model"
            )
        self.model = model
        self.dark_e_s = float(model.dark_current_e_s)
        self._table: tuple[Float, Float] | None = None
        if model.response is None:
            self.full_e = (model.saturation_dn - model.black_dn) / model.gain_dn_per_e
        else:
            # Of three channels the one with the most noise and the least room stands for all.
            codes = np.arange(len(model.response), dtype=np.uint16)
            tables = [np.asarray(column, np.float64) for column in model.response.T]
            self.full_e = min(float(np.interp(model.saturation_dn, codes, table)) for table in tables)
            slopes = [look_up(table, codes)[1].astype(np.float64) for table in tables]
            grid = np.linspace(0, self.full_e, 2048)
            # Noise before the curve is in electrons as it is; noise after it is seen through the slope.
            after = [np.interp(grid, t, s**2) * model.noise_dn2 for t, s in zip(tables, slopes, strict=True)]
            self._table = grid, np.max(after, axis=0) + model.read_noise_e**2
        spread = float(np.sqrt(self.full_e + self.floor(np.array(self.full_e))))
        self.clear_e = self.full_e - _CLEAR_OF_SATURATION * spread
        if self.clear_e <= 0:
            raise FitError("bracket: the sensor saturates within its own noise: nothing can be planned")

    def floor(self, electrons: Float) -> Float:
        """Variance but for the shot noise, e-^2."""
        if self._table is None:
            return np.full(np.shape(electrons), self.model.noise_dn2 / self.model.gain_dn_per_e**2)
        return np.asarray(np.interp(electrons, *self._table))

    def information(self, exposure_s: float, rate: Float) -> Float:
        """Inverse variance of the rate from one frame; 0 where it saturates."""
        electrons = (rate + self.dark_e_s) * exposure_s
        usable = electrons <= self.clear_e * (1 + 1e-9)
        return np.where(usable, exposure_s**2 / (electrons + self.floor(electrons)), 0.0)

    def snr(self, exposures_s: Float, repeats: NDArray[np.int_], rate: Float) -> Float:
        """Of the merge, with the errors of the maps."""
        total, inverse = np.zeros_like(rate), np.zeros_like(rate)
        for t, n in zip(exposures_s, repeats, strict=True):
            own = n * self.information(float(t), rate)
            total += own
            inverse += own / t
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = 1 / total + self.maps(inverse / total, rate)
            return np.where(total > 0, rate / np.sqrt(variance), 0.0)

    def maps(self, inverse_exposure: Float, rate: Float) -> Float:
        """Variance that no repetition takes away, (e-/s)^2."""
        out = self.model.flat_sigma**2 * rate**2
        if self.model.dark_covariance is not None:
            (c00, c01), (_, c11) = np.asarray(self.model.dark_covariance, np.float64)
            out = out + (c00 * inverse_exposure + 2 * c01) * inverse_exposure + c11
        return np.asarray(out)


def _calmed(
    value: NDArray[np.float32], variance: NDArray[np.float32], finite: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Light of each sample, of its neighbourhood where noise alone parts them, and whether any is seen."""
    clear = np.where(finite, value, 0).astype(np.float32)
    spread = np.where(finite, variance, 0).astype(np.float32)
    size = (5, 5)
    count = np.maximum(cv2.blur(finite.astype(np.float32), size), np.float32(1e-6))
    mean = cv2.blur(clear, size) / count
    of_mean = cv2.blur(spread, size) / count / np.maximum(count * 25, 1)
    own = np.sqrt(spread)
    # Noise would make the dark end of the scene look darker than it is.
    noisy = (clear < _CLEAR_SNR * own) & (np.abs(clear - mean) < _ANOTHER_SIGMAS * own)
    rate = np.where(noisy, mean, clear)
    sigma = np.sqrt(np.where(noisy, of_mean, spread))
    return rate, np.asarray((rate > _SEEN_SIGMAS * sigma) & (rate > 0))
