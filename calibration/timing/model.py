"""Timing of one camera and of the lights it was measured with."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from calibration.geometry import Float
from calibration.provenance import Array, Model, Provenance, Quality
from calibration.timing.pulse import pulse_share


class LightTiming(Model):
    """How one light follows an order to shine or to go dark.

    Attributes
    ----------
    delay_s : float
        From the order to the first light, counted from that of the model's first light.
    rise_s, fall_s : float
        Time constants of the exponential rise and fall.
    level : float
        Brightness of a settled pulse over that of steady burning: above 1 where the controller overdrives.
    """

    delay_s: float
    delay_sigma_s: float
    rise_s: float
    rise_sigma_s: float
    fall_s: float
    fall_sigma_s: float
    level: float
    level_sigma: float

    def settle_s(self, share: float = 0.001) -> float:
        """Time from the first change of light until it is within ``share`` of its new level, 2 sigma safe."""
        slowest = max(self.rise_s + 2 * self.rise_sigma_s, self.fall_s + 2 * self.fall_sigma_s)
        return float(-np.log(share) * slowest)


class TimingModel(Model):
    """When the rows of a camera are exposed after its trigger, and how its lights follow theirs.

    Row r is exposed from ``row_start_s(r)`` for the reported exposure and ``exposure_offset_s``.

    Attributes
    ----------
    rows : int
        Height of the picture.
    line_time_s : float
        Start of a row less that of the row above it: positive from top to bottom, negative from bottom to
        top, 0 (within ``line_time_sigma_s``) of a global shutter.
    latency_s : float
        From the trigger to the start of the row that is first, plus what the light's trigger is late: a
        camera and one light tell the difference of their delays only. ``light_delay_s`` was taken for the
        delay of the first light.
    exposure_offset_s : float
        True less reported exposure.
    jitter_s, flicker : float
        Scatter from frame to frame of the start, and relative, of the pulses' brightness; 0 where none is
        seen above the noise.
    lights : dict of str to LightTiming
        By name; the first is the reference of the delays.
    parameters : tuple of str
        What ``covariance`` is of, in seconds but for levels: ``middle`` is the start of the middle row.
    strobes : ndarray (n, 6)
        Evidence: number of the light, reported exposure, delay, duration, shift of the frame by jitter
        (all s), relative change of its brightness.
    signal, signal_sigma : ndarray (n, rows), float32
        Evidence: row means of these frames as a share of steady burning, and their noise.
    """

    kind: Literal["timing"] = "timing"
    rows: int = Field(gt=1)
    line_time_s: float
    line_time_sigma_s: float = Field(ge=0)
    latency_s: float
    latency_sigma_s: float = Field(ge=0)
    light_delay_s: float = 0.0
    exposure_offset_s: float = 0.0
    exposure_offset_sigma_s: float = Field(default=0.0, ge=0)
    jitter_s: float = Field(default=0.0, ge=0)
    flicker: float = Field(default=0.0, ge=0)
    lights: dict[str, LightTiming] = Field(min_length=1)
    parameters: tuple[str, ...] = ()
    covariance: Array | None = None
    strobes: Array | None = None
    signal: Array | None = None
    signal_sigma: Array | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    @property
    def shutter(self) -> Literal["global", "rolling"]:
        """Global where the line time is 0 within three sigma."""
        return "rolling" if abs(self.line_time_s) > 3 * self.line_time_sigma_s else "global"

    @property
    def direction(self) -> Literal["top-down", "bottom-up", "none"]:
        """Which way the rows start one after the other."""
        if self.shutter == "global":
            return "none"
        return "top-down" if self.line_time_s > 0 else "bottom-up"

    @property
    def frame_span_s(self) -> float:
        """From the start of the first row to that of the last."""
        return abs(self.line_time_s) * (self.rows - 1)

    def row_start_s(self, row: Any) -> Float:
        """Start of a row's exposure after the trigger; any shape of rows from 0 at the top."""
        first = 0 if self.line_time_s >= 0 else self.rows - 1
        return np.asarray(self.latency_s + self.line_time_s * (np.asarray(row, np.float64) - first))

    def expected(self) -> Float:
        """What ``signal`` should be, (n, rows); ValueError where the evidence is not there."""
        if self.strobes is None:
            raise ValueError("the model was saved without its strobes")
        lights = list(self.lights.values())
        out = np.empty((len(self.strobes), self.rows))
        start = self.row_start_s(np.arange(self.rows)) - self.light_delay_s
        for index, (number, exposure, delay, duration, shift, change) in enumerate(self.strobes):
            light = lights[int(number)]
            share = pulse_share(
                start + shift - delay - light.delay_s,
                np.asarray(exposure + self.exposure_offset_s),
                np.asarray(duration),
                light.rise_s,
                light.fall_s,
            )
            out[index] = light.level * (1 + change) * share.value
        return out
