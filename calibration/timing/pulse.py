"""How much of a light's pulse falls into an exposure: the forward model of timing, with its derivatives."""

from typing import NamedTuple

import numpy as np

from calibration.geometry import Float

# Shorter than any light or camera: keeps the quotients of a light that follows at once finite.
AT_ONCE_S = 1e-9


class Share(NamedTuple):
    """Mean output of a light over an exposure, relative to steady burning, and its derivatives per second."""

    value: Float
    by_start: Float
    by_exposure: Float
    by_rise: Float
    by_fall: Float


def pulse_share(start_s: Float, exposure_s: Float, duration_s: Float, rise_s: float, fall_s: float) -> Share:
    """Share of an exposure that a pulse fills; 1 is what steady burning gives. Arguments broadcast.

    Parameters
    ----------
    start_s : ndarray
        Start of the exposure, from the instant at which the light begins to follow its pulse.
    exposure_s : ndarray
        True exposure.
    duration_s : ndarray
        From the order to shine to the order to go dark.
    rise_s, fall_s : float
        Time constants of the exponential rise and fall.

    Notes
    -----
    Assumes that the light follows both orders with the same delay and nears the new level exponentially. A
    supply that ramps its current linearly departs from that by a few percent of the ramp's length.
    """
    rise, fall = max(rise_s, AT_ONCE_S), max(fall_s, AT_ONCE_S)
    first = _light_until(start_s, duration_s, rise, fall)
    last = _light_until(start_s + exposure_s, duration_s, rise, fall)
    value = (last.total - first.total) / exposure_s
    return Share(
        value,
        (last.output - first.output) / exposure_s,
        (last.output - value) / exposure_s,
        (last.by_rise - first.by_rise) / exposure_s,
        (last.by_fall - first.by_fall) / exposure_s,
    )


class _Light(NamedTuple):
    total: Float
    output: Float
    by_rise: Float
    by_fall: Float


def _light_until(at_s: Float, duration_s: Float, rise: float, fall: float) -> _Light:
    """Integral of a pulse's output up to ``at_s``, the output there, and the integral's derivatives."""
    on = np.clip(at_s, 0.0, duration_s)
    dark = np.exp(-on / rise)
    peak = -np.expm1(-duration_s / rise)
    peak_by_rise = -duration_s / rise**2 * np.exp(-duration_s / rise)
    after = np.maximum(at_s - duration_s, 0.0)
    left = np.exp(-after / fall)
    output = np.where(at_s <= 0, 0.0, np.where(at_s <= duration_s, 1 - dark, peak * left))
    tail = peak * fall * (1 - left)
    return _Light(
        on - rise * (1 - dark) + tail,
        output,
        -(1 - dark) + on / rise * dark + peak_by_rise * fall * (1 - left),
        peak * ((1 - left) - after / fall * left),
    )
