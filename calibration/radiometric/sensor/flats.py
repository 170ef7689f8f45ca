"""The flat series of a sensor, seen through classes of pixels of like brightness."""

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.radiometric.sensor.dark import DarkSeries
from calibration.radiometric.sensor.series import Level, LevelStatistics, Reader

Float = NDArray[np.float64]

_CLASSES = 8
_CLASS_PIXELS = 256
_DEAD = 0.2


def colour_planes(pixel_format: str) -> list[tuple[Any, ...]]:
    """Index of the samples of each colour of a frame."""
    if pixel_format.startswith("Bayer"):
        return [(slice(i, None, 2), slice(j, None, 2)) for i in range(2) for j in range(2)]
    if pixel_format.startswith("RGB"):
        return [(..., c) for c in range(3)]
    return [(...,)]


@dataclass(frozen=True, eq=False)
class Points:
    """Photon-transfer points, one an exposure and class; all arrays (n,).

    Attributes
    ----------
    exposure_s : ndarray
    mean, dark, black : ndarray
        DN of the flats, of darkness at this exposure, and of darkness at exposure zero.
    variance : ndarray
        Temporal, DN^2.
    pixels, freedom : ndarray
        Of the class; its degrees of freedom, pixels times those of one pixel's variance.
    members, plane : ndarray
        The class and its colour.
    """

    exposure_s: Float
    mean: Float
    dark: Float
    black: Float
    variance: Float
    pixels: Float
    freedom: Float
    members: NDArray[np.intp]
    plane: NDArray[np.intp]

    @property
    def signal(self) -> Float:
        """DN above the black of exposure zero: light and dark current, all of which has shot noise."""
        return self.mean - self.black

    def where(self, chosen: NDArray[np.bool_]) -> "Points":
        """Some of the points."""
        return Points(*(getattr(self, f.name)[chosen] for f in fields(self)))


def join(points: list[Points]) -> Points:
    """All points of several levels."""
    return Points(*(np.concatenate([getattr(p, f.name) for p in points]) for f in fields(Points)))


class FlatSeries:
    """Flats with the classes of their pixels; knows the dark series.

    Attributes
    ----------
    classes : ndarray of int
        Class of each sample counted from 1; 0 is defective.
    defects : ndarray of bool
        Those of the darks, and the pixels that do not answer to light as their neighbours do.
    """

    def __init__(
        self, reader: Reader, levels: list[Level], dark: DarkSeries, planes: list[tuple[Any, ...]]
    ) -> None:
        self.reader, self.levels, self.dark, self.planes = reader, levels, dark, planes
        self._check_range()
        self.defects = dark.defects.copy()
        self.classes, self._plane_of_class = self._classify(self._reference())
        self._sizes = np.bincount(self.classes.ravel())[1:].astype(np.float64)
        self._black, self._rate = self._average(dark.at(0.0)), self._average(dark.rate_dn_s)

    def points(self, level: Level, statistics: LevelStatistics) -> Points:
        """Photon-transfer points of one level."""
        mean, variance, frame_means = statistics
        assert variance is not None
        dark = self._black + self._rate * level.exposure_s
        class_mean = self._average(mean)
        light = float(np.average(class_mean - dark, weights=self._sizes))
        # The lamp's flicker scales all pixels alike; its variance is no shot noise.
        flicker = float(frame_means.var(ddof=1)) / light**2 if light > 0 else 0.0
        count = len(self._sizes)
        return Points(
            exposure_s=np.full(count, level.exposure_s),
            mean=class_mean,
            dark=dark,
            black=self._black,
            variance=self._average(variance) - flicker * (class_mean - dark) ** 2,
            pixels=self._sizes,
            freedom=self._sizes * (len(level.frames) - 1),
            members=np.arange(count),
            plane=self._plane_of_class,
        )

    def _average(self, image: NDArray[Any]) -> Float:
        sums = np.bincount(self.classes.ravel(), weights=image.ravel())[1:]
        return np.asarray(sums / self._sizes)

    def _signal(self, level: Level) -> float:
        frame = self.reader(level.frames[0])
        dark = self.dark.at(level.exposure_s)
        return max(float(np.median(frame[plane] - dark[plane])) for plane in self.planes)

    def _check_range(self) -> None:
        first, last = self.levels[0], self.levels[-1]
        dimmest, self._brightest = self._signal(first), self._signal(last)
        if self._brightest < max(3 * np.sqrt(np.nan_to_num(self.dark.noise_dn2)), 2.0):
            raise FitError("sensor: all flats are black: the longest is no brighter than the darks")
        if self._brightest < dimmest * (1 + 0.1 * (last.exposure_s / first.exposure_s - 1)):
            raise FitError("sensor: all flats are saturated: the shortest is as bright as the longest")

    def _reference(self) -> Float:
        """First frame of the longest exposure that is clearly below saturation, less dark."""
        low, high = 0, len(self.levels) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._signal(self.levels[middle]) < 0.6 * self._brightest:
                low = middle
            else:
                high = middle
        return np.asarray(self.reader(self.levels[low].frames[0]) - self.dark.at(self.levels[low].exposure_s))

    def _classify(self, signal: Float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        classes = np.zeros(self.reader.shape, np.intp)
        owners: list[int] = []
        for index, plane in enumerate(self.planes):
            image = np.ascontiguousarray(signal[plane], np.float32)
            local = cv2.medianBlur(image, 5)
            with np.errstate(divide="ignore", invalid="ignore"):
                deviation = np.abs(np.where(local > 0, image / local, 0) - 1)
            limit = max(_DEAD, 6 * 1.4826 * float(np.median(deviation)))
            self.defects[plane] |= deviation > limit
            good = ~self.defects[plane]
            if not np.any(good):
                raise FitError("sensor: no pixel answers to light: check that the flats see the target")
            # Brightness is taken from a neighbourhood: a class chosen by the pixel's own noise would be
            # biased.
            total = cv2.blur(np.where(good, image, 0).astype(np.float32), (15, 15))
            smooth = total / np.maximum(cv2.blur(good.astype(np.float32), (15, 15)), 1e-6)
            count = int(np.clip(np.count_nonzero(good) // _CLASS_PIXELS, 1, _CLASSES))
            edges = np.unique(np.quantile(smooth[good], np.arange(1, count) / count))
            chosen = np.searchsorted(edges, smooth, side="left")
            present, chosen[good] = np.unique(chosen[good], return_inverse=True)
            classes[plane] = np.where(good, chosen + 1 + len(owners), 0)
            owners.extend([index] * len(present))
        return classes, np.asarray(owners, np.intp)
