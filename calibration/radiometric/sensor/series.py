"""Exposure series of raw frames: grouped by level, checked, read one frame ahead of the work."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError

_SAME = 1e-3
_STACK_FRAMES = 8
_STACK_RATIO = 4


@dataclass(frozen=True)
class Level:
    """Frames of one level: their mean exposure, photons (NaN: not told) and their places in the series."""

    exposure_s: float
    frames: tuple[int, ...]
    photons: float = float("nan")

    @property
    def light(self) -> float:
        """What the signal is proportional to: photons where they were told, else seconds."""
        return self.exposure_s if np.isnan(self.photons) else self.photons


def group(
    kind: str, frames: Sequence[NDArray[Any]], exposure_s: ArrayLike, photons: ArrayLike | None = None
) -> list[Level]:
    """Levels of a series by rising light; exposures and photons within 0.1 % count as one level.

    Raises
    ------
    FitError
        No frames; exposures missing, negative, or zero for anything but darks; photons missing or not
        positive.
    """
    exposure = _numbers(kind, "exposure", len(frames), exposure_s, zero=kind == "dark")
    light = exposure if photons is None else _numbers(kind, "photons", len(frames), photons, zero=False)
    groups: list[list[int]] = []
    for index in np.lexsort((exposure, light)):
        last = groups[-1][0] if groups else None
        if (
            last is not None
            and light[index] <= light[last] * (1 + _SAME)
            and abs(exposure[index] - exposure[last]) <= _SAME * exposure[last]
        ):
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    return [
        Level(
            float(np.mean(exposure[g])),
            tuple(sorted(g)),
            float("nan") if photons is None else float(np.mean(light[g])),
        )
        for g in groups
    ]


def _numbers(kind: str, what: str, count: int, given: ArrayLike, *, zero: bool) -> NDArray[np.float64]:
    values = np.asarray(given, np.float64)
    plural = "exposures" if what == "exposure" else what
    if count == 0:
        raise FitError(f"sensor: no {kind} frames")
    if values.shape != (count,):
        raise FitError(f"sensor: {count} {kind} frames but {plural} of shape {values.shape}")
    allowed = np.isfinite(values) & ((values > 0) | (zero & (values == 0)))
    if not np.all(allowed):
        index = int(np.flatnonzero(~allowed)[0])
        unit = " s" if what == "exposure" else ""
        raise FitError(
            f"sensor: {kind} frame {index} has {what} {values[index]}{unit}: want a positive number"
        )
    return values


def stack_of(levels: Sequence[Level]) -> Level | None:
    """Return the level that was repeated far more often than the others: the spatial series of EMVA 1288."""
    if not levels:
        return None
    counts = np.array([len(level.frames) for level in levels])
    longest = levels[int(np.argmax(counts))]
    others = np.median(counts) if len(levels) > 1 else 0
    n = len(longest.frames)
    return longest if n >= _STACK_FRAMES and n >= _STACK_RATIO * others else None


class Reader:
    """One series of frames, each checked for size and type as it is read."""

    def __init__(
        self, kind: str, frames: Sequence[NDArray[Any]], shape: tuple[int, ...], full_scale: float
    ) -> None:
        self.kind, self.frames, self.shape, self.full_scale = kind, frames, shape, full_scale

    def __call__(self, index: int) -> NDArray[Any]:
        """Frame by its place in the series.

        Raises
        ------
        FitError
            Another size than the first flat's, or not raw unsigned integers of at most 16 bits.
        """
        frame = np.asarray(self.frames[index])
        if frame.shape != self.shape:
            raise FitError(
                f"sensor: {self.kind} frame {index} has shape {frame.shape}, the flats have {self.shape}"
            )
        if frame.dtype.kind != "u" or frame.dtype.itemsize > 2:
            raise FitError(
                f"sensor: {self.kind} frame {index} has dtype {frame.dtype}: want raw unsigned integers of "
                "8 or 16 bits"
            )
        return frame

    def check_peak(self, index: int, peak: float) -> None:
        """Refuse a frame whose greatest DN is beyond the pixel format."""
        if peak > self.full_scale:
            raise FitError(
                f"sensor: {self.kind} frame {index} has DN {peak:.0f} above {self.full_scale:.0f}: "
                "wrong pixel format, or samples that are not right-aligned"
            )

    def stream(self, levels: Sequence[Level]) -> Iterator[tuple[Level, int, NDArray[Any]]]:
        """Every frame of the levels in their order; the next is read while the caller works on this one."""
        order = [(level, place) for level in levels for place in range(len(level.frames))]
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self, order[0][0].frames[0]) if order else None
            for number, (level, place) in enumerate(order):
                assert ahead is not None
                frame = ahead.result()
                ahead = None
                if number + 1 < len(order):
                    following, after = order[number + 1]
                    ahead = pool.submit(self, following.frames[after])
                yield level, place, frame
                del frame
