"""Exposure series of raw frames: grouped by exposure, checked, read one frame at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError
from calibration.radiometric.model import Image

_SAME_EXPOSURE = 1e-3


@dataclass(frozen=True)
class Level:
    """Frames of one exposure: their mean exposure and their places in the series."""

    exposure_s: float
    frames: tuple[int, ...]


class LevelStatistics(NamedTuple):
    """Temporal statistics of one level, per pixel, and the mean DN of each of its frames."""

    mean: Image
    variance: Image | None
    frame_means: NDArray[np.float64]


def group(kind: str, frames: Sequence[NDArray[Any]], exposure_s: ArrayLike) -> list[Level]:
    """Levels of a series by rising exposure; exposures within 0.1 % count as one.

    Raises
    ------
    FitError
        No frames; exposures missing, negative, or zero for anything but darks.
    """
    exposure = np.asarray(exposure_s, np.float64)
    if len(frames) == 0:
        raise FitError(f"sensor: no {kind} frames")
    if exposure.shape != (len(frames),):
        raise FitError(f"sensor: {len(frames)} {kind} frames but exposures of shape {exposure.shape}")
    allowed = np.isfinite(exposure) & ((exposure > 0) | ((kind == "dark") & (exposure == 0)))
    if not np.all(allowed):
        index = int(np.flatnonzero(~allowed)[0])
        raise FitError(
            f"sensor: {kind} frame {index} has exposure {exposure[index]} s: want a positive number"
        )
    groups: list[list[int]] = []
    for index in np.argsort(exposure, kind="stable"):
        if groups and exposure[index] <= exposure[groups[-1][0]] * (1 + _SAME_EXPOSURE):
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    return [Level(float(np.mean(exposure[g])), tuple(g)) for g in groups]


class Reader:
    """One series of frames, each checked for size and depth as it is read."""

    def __init__(
        self, kind: str, frames: Sequence[NDArray[Any]], shape: tuple[int, ...], full_scale: float
    ) -> None:
        self.kind, self.frames, self.shape, self.full_scale = kind, frames, shape, full_scale

    def __call__(self, index: int) -> NDArray[Any]:
        """Frame by its place in the series.

        Raises
        ------
        FitError
            Another size than the first flat's, or not raw unsigned integers within the pixel format.
        """
        frame = np.asarray(self.frames[index])
        if frame.shape != self.shape:
            raise FitError(
                f"sensor: {self.kind} frame {index} has shape {frame.shape}, the flats have {self.shape}"
            )
        if frame.dtype.kind != "u":
            raise FitError(
                f"sensor: {self.kind} frame {index} has dtype {frame.dtype}: want raw unsigned integers"
            )
        if frame.max() > self.full_scale:
            raise FitError(
                f"sensor: {self.kind} frame {index} has DN {frame.max()} above {self.full_scale:.0f}: "
                "wrong pixel format, or samples that are not right-aligned"
            )
        return frame

    def statistics(self, level: Level) -> LevelStatistics:
        """Mean and unbiased temporal variance of each pixel; no variance from a single frame."""
        first = self(level.frames[0])
        n = len(level.frames)
        means = [float(first.mean(dtype=np.float64))]
        if n == 1:
            return LevelStatistics(first.astype(np.float32), None, np.asarray(means))
        sums, squares = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        for index in level.frames[1:]:
            # Differences to the first frame are small integers: float32 holds their squares without loss.
            difference = np.subtract(self(index), first, dtype=np.float32)
            means.append(means[0] + float(difference.mean(dtype=np.float64)))
            sums += difference
            squares += difference * difference
        mean = np.asarray(first + sums / np.float32(n), np.float32)
        variance = np.asarray((squares - sums * sums / np.float32(n)) / np.float32(n - 1), np.float32)
        return LevelStatistics(mean, variance, np.asarray(means))
