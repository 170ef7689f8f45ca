"""The flat series of a sensor, seen through classes of pixels of like brightness."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.radiometric.sensor.dark import DarkSeries
from calibration.radiometric.sensor.pages import zeros
from calibration.radiometric.sensor.series import Level, Reader, stack_of

T = TypeVar("T")
Float = NDArray[np.float64]
Image = NDArray[np.float32]

_CLASSES = 8
_CLASS_PIXELS = 256
_DEAD = 0.2
_FLAT_RANGE = 0.8  # of saturation, so that no pixel of the flat map was clipped
_STRIP = 256


@dataclass(frozen=True, eq=False)
class Points:
    """Photon-transfer points, one a level and class; all arrays (n,).

    Attributes
    ----------
    exposure_s, photons : ndarray
        Photons are NaN where not told.
    mean, dark, black : ndarray
        DN of the flats, of darkness at this exposure, and of darkness at exposure zero.
    variance : ndarray
        Temporal, DN^2.
    pixels, freedom : ndarray
        Of the class; its degrees of freedom, pixels times those of one pixel's variance.
    members, plane : ndarray
        The class and its colour.
    level : ndarray
        Number of the level.
    """

    exposure_s: Float
    photons: Float
    mean: Float
    dark: Float
    black: Float
    variance: Float
    pixels: Float
    freedom: Float
    members: NDArray[np.intp]
    plane: NDArray[np.intp]
    level: NDArray[np.intp]

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


@dataclass(frozen=True, eq=False)
class Sum:
    """Sum of frames below saturation, and what belongs to it.

    Attributes
    ----------
    image : ndarray, float32
        Mean light DN of a frame: dark taken off.
    frames : int
    exposure_s : float
        Mean of the frames.
    """

    image: Image
    frames: int
    exposure_s: float


class FlatSeries:
    """Flats with the classes of their pixels; knows the dark series, and takes its own defects out of it.

    Attributes
    ----------
    stack : Level or None
        The spatial series of EMVA 1288, if there is one below saturation.
    """

    def __init__(
        self, reader: Reader, levels: list[Level], dark: DarkSeries, planes: list[tuple[Any, ...]]
    ) -> None:
        self.reader, self.levels, self.dark, self.planes = reader, levels, dark, planes
        self.stack = stack_of(levels)
        self._check_range()
        self._good = dark.good
        self._blocks, self._plane_of_class = self._classify(self._reference())
        self._sizes = self._class_sums(None)
        empty = self._sizes == 0
        if np.all(empty):
            raise FitError("sensor: no pixel answers to light: check that the flats see the target")
        self._sizes[empty] = np.nan
        self._mean_dark = self._class_sums(dark.mean_dn) / self._sizes
        if dark.rate_dn_s is None:
            self._rate = np.zeros_like(self._mean_dark)
        else:
            self._rate = self._class_sums(dark.rate_dn_s.image()) / self._sizes

    @property
    def good(self) -> NDArray[np.bool_]:
        """Pixels that are neither hot nor noisy and answer to light as their neighbours do."""
        return self._good

    def measure(self, level: Level) -> Points:
        """Photon-transfer points of one level's first two frames."""
        first, second = (self.reader(index) for index in level.frames[:2])
        sums = self._step(level, 1, first, second, np.zeros(2, np.uint32), np.zeros_like(first, np.uint32))
        return self._points(level, [sums[:, 0], sums[:, 1]], sums[:, 2], 1)

    def sweep(self, ceiling: float, examine: Callable[[Sum, Points], T]) -> tuple[Points, Sum, T | None]:
        """One pass over the flats: the points, the sum of the frames below the ceiling.

        The spatial series, if there is one below the ceiling, is handed to ``examine`` with its points, and
        what that returns is returned; the image in the sum is ``examine``'s to change.

        Raises
        ------
        FitError
            All levels are close to saturation.
        """
        total = zeros(self.reader.shape, np.uint32)
        if self.dark.rate_dn_s is not None:
            self.dark.rate_dn_s.pack(self.good)
        points: dict[Level, Points] = {}
        found: T | None = None
        frames, exposure = 0, 0.0
        # The spatial series goes first, so that the same running sum serves it.
        rest = [level for level in self.levels if level is not self.stack]
        for some in ([] if self.stack is None else [self.stack]), rest:
            for level, of_level, below in self._levels(some, ceiling, total):
                points[level] = of_level
                frames += below * len(level.frames)
                exposure += below * len(level.frames) * level.exposure_s
            if some and some[0] is self.stack and frames:
                n, t = len(self.stack.frames), self.stack.exposure_s
                found = examine(Sum(self._light(total, n, t), n, t), points[self.stack])
        if frames == 0:
            raise FitError(
                "sensor: all flats are close to saturation: shorten the exposures or dim the light"
            )
        light = self._light(total, frames, exposure / frames)
        return (
            join([points[level] for level in self.levels]),
            Sum(light, frames, exposure / frames),
            found,
        )

    def _levels(
        self, levels: list[Level], ceiling: float, total: NDArray[np.uint32]
    ) -> Iterator[tuple[Level, Points, bool]]:
        """Levels with their points and whether they are below the ceiling and so in ``total``."""
        empty = np.zeros((0, 0), np.uint16)
        before, below = empty, False
        means: list[Float] = []
        squares = np.zeros(len(self._sizes))
        for level, place, frame in self.reader.stream(levels):
            if place == 0:
                below = self._is_below(level, frame, ceiling)
                means, squares = [], np.zeros(len(self._sizes))
            else:
                weight = np.array([below and place == 1, below], np.uint32)
                sums = self._step(level, place, before, frame, weight, total)
                means = means or [sums[:, 0]]
                means.append(sums[:, 1])
                squares += self._unflickered(level, means, sums[:, 2])
            # Two frames at most are held while the next is decoded.
            before = frame if place < len(level.frames) - 1 else empty
            del frame
            if before is empty:
                yield level, self._points(level, means, squares, place, clean=True), below

    def samples(self, frame: NDArray[Any], member: int) -> NDArray[Any]:
        """Samples of a frame that belong to one class of the points."""
        number = int(np.flatnonzero(np.isfinite(self._sizes))[member])
        for plane, blocks, count in self._blocks:
            if number < count:
                h, w = frame[plane].shape
                inside = np.repeat(np.repeat(blocks == number, 16, 0), 16, 1)[:h, :w]
                return np.asarray(frame[plane][inside & self._good[plane]])
            number -= count
        raise IndexError(member)

    def _light(self, total: NDArray[np.uint32], frames: int, exposure_s: float) -> Image:
        image = zeros(total.shape, np.float32)
        np.divide(total, frames, out=image, dtype=np.float32)
        for top in range(0, len(image), _STRIP):
            image[top : top + _STRIP] -= self.dark.at(exposure_s, slice(top, top + _STRIP))
        return image

    def _step(
        self,
        level: Level,
        place: int,
        first: NDArray[Any],
        second: NDArray[Any],
        weight: NDArray[np.uint32],
        total: NDArray[np.uint32],
    ) -> Float:
        """Sums over the classes (n, 3): of either frame, of the squared difference."""
        from calibration.radiometric.sensor import kernels

        out = []
        for plane, blocks, count in self._blocks:
            sums = np.empty((blocks.shape[0], count + 1, 3))
            kernels.flat_sums(
                first[plane], second[plane], self._good[plane], blocks, weight, total[plane], sums
            )
            for offset in (0, 1):
                self.reader.check_peak(level.frames[place - 1 + offset], int(sums[:, -1, offset].max()))
            out.append(sums[:, :-1].sum(0))
        return np.concatenate(out)

    def _unflickered(self, level: Level, sums: list[Float], squares: Float) -> Float:
        """Squared differences of one step, less what a lamp that flickers scales all pixels by."""
        step = np.nansum(sums[-1] - sums[-2]) / np.nansum(self._sizes)
        mean = 0.5 * (sums[-1] + sums[-2]) / self._sizes
        light = mean - (self._mean_dark + self._rate * (level.exposure_s - self.dark.mean_exposure_s))
        field = np.nansum(light * self._sizes) / np.nansum(self._sizes)
        scale = light / field if field > 0 else np.ones_like(light)
        return squares - self._sizes * (step * scale) ** 2

    def _points(
        self, level: Level, sums: list[Float], squares: Float, steps: int, *, clean: bool = False
    ) -> Points:
        if not clean:
            squares = self._unflickered(level, sums, squares)
        n = steps + 1
        kept = np.isfinite(self._sizes)
        count = np.count_nonzero(kept)
        black = self._mean_dark - self._rate * self.dark.mean_exposure_s
        mean = np.mean(sums, axis=0) / self._sizes

        def column(values: Float) -> Float:
            return values[kept]

        return Points(
            exposure_s=np.full(count, level.exposure_s),
            photons=np.full(count, level.photons),
            mean=column(mean),
            dark=column(black + self._rate * level.exposure_s),
            black=column(black),
            variance=column(squares / (2 * steps * self._sizes)),
            pixels=column(self._sizes),
            freedom=column(self._sizes) * 2 * steps**2 / (3 * n - 4),
            members=np.arange(count),
            plane=self._plane_of_class[kept],
            level=np.full(count, self.levels.index(level)),
        )

    def _class_sums(self, image: Image | None) -> Float:
        from calibration.radiometric.sensor import kernels

        out = []
        for plane, blocks, count in self._blocks:
            sums = np.empty((blocks.shape[0], count))
            good = self._good[plane]
            of = np.ones((1, 1), np.float32) if image is None else image[plane]
            kernels.class_sums(np.broadcast_to(of, good.shape) if image is None else of, good, blocks, sums)
            out.append(sums.sum(0))
        return np.concatenate(out)

    def _is_below(self, level: Level, frame: NDArray[Any], ceiling: float) -> bool:
        """Whether every class of a frame is clear of the ceiling, from a sample of each block."""
        if not np.isfinite(ceiling):
            return True
        for plane, blocks, count in self._blocks:
            rows, columns = (np.minimum(np.arange(n) * 16 + 8, size - 1) for n, size in zip(
                blocks.shape, frame[plane].shape, strict=True))  # fmt: skip
            place = np.ix_(rows, columns)
            good = self._good[plane][place]
            dark = self.dark.at(level.exposure_s)[plane][place] if self.dark.rate_dn_s is None else (
                self.dark.mean_dn[plane][place])  # fmt: skip
            light = (frame[plane][place] - dark)[good]
            of = blocks[good]
            number = np.bincount(of, minlength=count)
            mean = np.bincount(of, light, count) / np.maximum(number, 1)
            offset = float(np.median(dark))
            if np.any(mean[number > 0] >= _FLAT_RANGE * (ceiling - offset)):
                return False
        return True

    def _signal(self, level: Level) -> float:
        frame = self.reader(level.frames[0])
        light = []
        for plane in self.planes:
            step = max(int(np.sqrt(frame[plane].size / 65536)), 1)
            thin = (slice(None, None, step), slice(None, None, step))
            dark = self.dark.mean_dn[plane][thin]
            if self.dark.rate_dn_s is not None:
                dark = dark + self.dark.rate_dn_s[plane][thin] * np.float32(
                    level.exposure_s - self.dark.mean_exposure_s
                )
            light.append(float(np.median(frame[plane][thin] - dark)))
        return max(light)

    def _check_range(self) -> None:
        first, last = self.levels[0], self.levels[-1]
        dimmest, self._brightest = self._signal(first), self._signal(last)
        if self._brightest < max(3 * np.sqrt(np.nan_to_num(self.dark.noise_dn2)), 2.0):
            raise FitError("sensor: all flats are black: the longest is no brighter than the darks")
        if self._brightest < dimmest * (1 + 0.1 * (last.light / first.light - 1)):
            raise FitError("sensor: all flats are saturated: the shortest is as bright as the longest")

    def _reference(self) -> Level:
        """Longest exposure that is clearly below saturation."""
        low, high = 0, len(self.levels) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._signal(self.levels[middle]) < 0.6 * self._brightest:
                low = middle
            else:
                high = middle
        return self.levels[low]

    def _classify(self, level: Level) -> tuple[list[tuple[Any, NDArray[np.uint8], int]], NDArray[np.intp]]:
        """Blocks of 16 x 16 pixels by brightness: a class chosen by a pixel's own noise would be biased."""
        from calibration.radiometric.sensor import kernels

        frame = self.reader(level.frames[0])
        found: list[tuple[Any, NDArray[np.uint8], int]] = []
        owners: list[int] = []
        side = kernels.BLOCK
        for index, plane in enumerate(self.planes):
            dn, good = frame[plane], self._good[plane]
            h, w = dn.shape
            parts = []
            limit = 0.0
            for top in range(0, h, _STRIP):
                # Two more rows at either side for the median of the neighbourhood.
                inner = slice(max(top - 2, 0), min(top + _STRIP + 2, h))
                own = slice(top - inner.start, min(top + _STRIP, h) - inner.start)
                dark = self.dark.mean_dn[plane][inner]
                if self.dark.rate_dn_s is not None:
                    lever = np.float32(level.exposure_s - self.dark.mean_exposure_s)
                    dark = dark + self.dark.rate_dn_s[plane][inner] * lever
                image = np.ascontiguousarray(dn[inner] - dark, np.float32)
                local = cv2.medianBlur(image, 5)
                with np.errstate(divide="ignore", invalid="ignore"):
                    deviation = np.abs(np.where(local > 0, image / local, 0) - 1)[own]
                limit = max(_DEAD, 6 * 1.4826 * float(np.median(deviation)))
                rows = slice(top, min(top + _STRIP, h))
                good[rows] &= deviation <= limit
                kept = good[rows]
                starts = np.arange(0, kept.shape[0], side), np.arange(0, w, side)
                total = _blocks(np.where(kept, image[own], 0), *starts)
                number = _blocks(kept.astype(np.float32), *starts)
                parts.append((total, number))
            total = np.concatenate([p[0] for p in parts])
            number = np.concatenate([p[1] for p in parts])
            some = number > 0
            if not np.any(some):
                raise FitError("sensor: no pixel answers to light: check that the flats see the target")
            smooth = total / np.maximum(number, 1)
            classes = int(np.clip(min(number.sum() // _CLASS_PIXELS, some.sum()), 1, _CLASSES))
            edges = np.unique(np.quantile(smooth[some], np.arange(1, classes) / classes))
            blocks = np.searchsorted(edges, smooth, side="left").astype(np.uint8)
            found.append((plane, blocks, len(edges) + 1))
            owners.extend([index] * (len(edges) + 1))
        return found, np.asarray(owners, np.intp)


def _blocks(image: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Float:
    return np.add.reduceat(np.add.reduceat(image, rows, 0, dtype=np.float64), columns, 1)
