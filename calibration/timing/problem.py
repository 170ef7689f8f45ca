"""Frames of a timing session, group by group, as the least squares want them."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.provenance import FitError

# Unknowns of the camera: start of the middle row, line time, exposure offset; then four of each light.
CAMERA_UNKNOWNS, LIGHT_UNKNOWNS = 3, 4


class Group(NamedTuple):
    """Frames of one exposure under one light: ``dark`` dark ones, ``steady`` steady ones, then the strobed.

    ``signal`` and ``weight`` (one over the variance) are (all frames, rows kept); ``frame``, ``delay_s`` and
    ``duration_s`` are of the strobed ones, ``frame`` their numbers among what was given. The dark frames are
    those of ``sharing`` groups, each of which has that part of their weight.
    """

    light: int
    exposure_s: float
    frame: NDArray[np.intp]
    delay_s: Float
    duration_s: Float
    dark: int
    steady: int
    sharing: int
    signal: Float
    weight: Float

    def shares(self) -> tuple[Float, Float]:
        """Strobed frames as shares of steady burning, (strobed, rows), with their sigma."""
        pulsed = self.dark + self.steady
        bright, black = slice(self.dark, pulsed), slice(0, self.dark)
        mean, noise = [], []
        for part in (bright, black):
            whole = self.weight[part].sum(axis=0)
            mean.append((self.signal[part] * self.weight[part]).sum(axis=0) / whole)
            noise.append(1 / whole)
        height = mean[0] - mean[1]
        # a row without light is not brighter than its noise
        height = np.maximum(height, 1e-3 * np.sqrt(noise[0] + noise[1]))
        share = (self.signal[pulsed:] - mean[1]) / height
        variance = 1 / self.weight[pulsed:] + noise[1] * (1 - share) ** 2 + noise[0] * share**2
        return share, np.sqrt(variance) / height


class Problem(NamedTuple):
    """All groups, and the rows kept as distances from the middle row of ``height``."""

    groups: tuple[Group, ...]
    row: Float
    height: int
    lights: int

    @property
    def row_index(self) -> NDArray[np.intp]:
        """Numbers of the rows kept, from 0 at the top."""
        return np.asarray(np.round(self.row + 0.5 * (self.height - 1)), np.intp)

    def of_light(self, number: int) -> slice:
        """Where a light's delay, rise, fall and level stand among the unknowns."""
        return slice(
            CAMERA_UNKNOWNS + LIGHT_UNKNOWNS * number, CAMERA_UNKNOWNS + LIGHT_UNKNOWNS * (number + 1)
        )

    def names(self, lights: Sequence[str]) -> tuple[str, ...]:
        """Names of the unknowns."""
        own = ("delay", "rise", "fall", "level")
        camera = ("middle", "line_time", "exposure_offset")
        return (*camera, *(f"{name} {what}" for name in lights for what in own))

    def without(self, strays: Sequence[int]) -> Self:
        """The problem less some strobed frames."""
        groups = []
        for group in self.groups:
            keep = ~np.isin(group.frame, strays)
            every = np.concatenate([np.ones(group.dark + group.steady, bool), keep])
            if keep.any():
                groups.append(
                    group._replace(
                        frame=group.frame[keep],
                        delay_s=group.delay_s[keep],
                        duration_s=group.duration_s[keep],
                        signal=group.signal[every],
                        weight=group.weight[every],
                    )
                )
        if {group.light for group in groups} != set(range(self.lights)):
            raise FitError("no strobed frame of a light agrees with those of the others")
        return self._replace(groups=tuple(groups))


def reach(groups: Sequence[Group]) -> tuple[float, float]:
    """Between which starts of a row some pulse falls into its exposure."""
    low = min(float(group.delay_s.min()) - group.exposure_s for group in groups)
    return low, max(float((group.delay_s + group.duration_s).max()) for group in groups)
