"""Frames to row means with their noise: all that the fit of the timing looks at."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.provenance import FitError

_FEWEST_COLUMNS = 8
_MOST_ALIKE = 6


class Rows(NamedTuple):
    """Mean of each row of each frame, black level included, and the variance of that mean: (n, rows)."""

    mean: Float
    variance: Float


def reduce_rows(
    frames: Sequence[NDArray[Any]],
    exposure_s: Float,
    lights: Sequence[str],
    strobed: Sequence[bool],
    *,
    saturation: float = np.inf,
    defects: NDArray[np.bool_] | None = None,
) -> Rows:
    """Reduce frames to rows; two passes, one frame in memory at a time.

    Parameters
    ----------
    frames : sequence of ndarray (h, w) or (h, w, 3)
        Linear, in any unit, black level included.
    exposure_s, lights, strobed
        Of each frame; a light's name is empty where it is dark.
    saturation : float
        Samples at or above it in any frame are left out of all.
    defects : ndarray (h, w), bool, optional
        Pixels to leave out.

    Raises
    ------
    FitError
        Steady or dark frames were not taken, or not twice, which tells the noise; or next to nothing is
        unsaturated.

    Notes
    -----
    The noise is that of the frames themselves: the difference of two frames of the same light has twice the
    variance of one. It is taken to be constant plus proportional to the signal above dark (EMVA 1288).
    Changes of the light's brightness between the two are taken out, and of several pairs the median counts:
    the first after a change of light may not have settled.
    """
    shape: tuple[int, ...] = frames[0].shape
    usable: NDArray[np.bool_] = np.ones(shape, bool)
    if defects is not None:
        usable &= ~(defects if defects.ndim == len(shape) else defects[..., None])
    for frame in frames:
        usable &= np.asarray(frame) < saturation
    good = usable.reshape(shape[0], -1)
    count = good.sum(axis=1)
    if np.mean(count < min(_FEWEST_COLUMNS, good.shape[1])) > 0.5:
        raise FitError("most rows are saturated: take all frames with a shorter exposure or less light")
    enough = count >= min(_FEWEST_COLUMNS, good.shape[1])
    weight = np.where(good, 1.0 / np.maximum(count, 1)[:, None], 0.0).astype(np.float32)
    mean = np.stack([np.einsum("rc,rc->r", _flat(frame), weight) for frame in frames]).astype(np.float64)
    dark = np.array([name == "" for name in lights])
    for exposure in np.unique(exposure_s):
        if not (dark & (exposure_s == exposure)).any():
            raise FitError(f"no frame in the dark at {exposure:g} s: take two or more, they tell the noise")
    law = _noise_law(frames, exposure_s, lights, strobed, good)
    variance = np.empty_like(mean)
    for exposure in np.unique(exposure_s):
        group = exposure_s == exposure
        black = mean[group & dark].mean(axis=0)
        excess = np.maximum(mean[group] - black, 0.0)
        variance[group] = (law[0] + law[1] * excess) / np.maximum(count, 1)
    mean[:, ~enough] = np.nan
    return Rows(mean, variance)


def _flat(frame: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(frame, np.float32).reshape(len(frame), -1)


def _noise_law(
    frames: Sequence[NDArray[Any]],
    exposure_s: Float,
    lights: Sequence[str],
    strobed: Sequence[bool],
    good: NDArray[np.bool_],
) -> tuple[float, float]:
    """Variance of a sample: (in the dark, per unit of signal above dark)."""
    groups: dict[tuple[float, str], list[int]] = {}
    for index, (exposure, name) in enumerate(zip(exposure_s.tolist(), lights, strict=True)):
        if not strobed[index]:
            groups.setdefault((exposure, name), []).append(index)
    black: dict[float, float] = {}
    dark_noise, lit_noise, signal = [], [], []
    for (exposure, name), members in sorted(groups.items(), key=lambda item: item[0][1] != ""):
        if len(members) < 2:
            what = f"under {name!r}" if name else "in the dark"
            raise FitError(f"one frame {what} at {exposure:g} s: take two or more, they tell the noise")
        found, level = [], 0.0
        for one, two in pairwise(members[:_MOST_ALIKE]):
            a, b = _flat(frames[one])[good], _flat(frames[two])[good]
            step, middle = (a - b).astype(np.float64), 0.5 * (a + b).astype(np.float64)
            level = float(middle.mean())
            shape = middle - (black.get(exposure, level) if name else level)
            power = float(np.sum(shape**2))
            if name and power > 0:
                step -= float(np.sum(step * shape)) / power * shape
            found.append(0.5 * float(np.sum(step**2)) / len(step))
        if name:
            lit_noise.append(float(np.median(found)))
            signal.append(level - black[exposure])
        else:
            dark_noise.append(float(np.median(found)))
            black[exposure] = level
    if not lit_noise:
        raise FitError("no frame under steady light: take two or more of each light, they tell the noise")
    floor = max(float(np.mean(dark_noise)), float(np.finfo(np.float32).tiny))
    lit = np.maximum(np.array(lit_noise) - floor, 0.0)
    above = np.maximum(np.array(signal), np.finfo(np.float32).tiny)
    return floor, float(lit.sum() / above.sum())
