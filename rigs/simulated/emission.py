"""What a light gives over time: its orders, delay, rise and fall, drift and flicker; integrals exact."""

from typing import NamedTuple, Self

import numpy as np

from calibration.geometry import Float
from rigs.simulated.truth import Flicker, LightTruth

# e^-40 of a step is below the last digit of what is computed with it.
_GONE = 40.0


class Drive(NamedTuple):
    """What a light is told, times in seconds from the camera's trigger.

    Attributes
    ----------
    before : float
        Level that it was told long before the first change, and has reached.
    changes : tuple of (time_s, level)
        In order of time; the light follows ``delay_s`` later with its rise or fall.
    """

    before: float
    changes: tuple[tuple[float, float], ...] = ()

    def scaled(self, factor: float) -> Self:
        """All levels times ``factor``."""
        return type(self)(factor * self.before, tuple((at, factor * level) for at, level in self.changes))

    def since(self, light: LightTruth, oldest_s: float) -> Self:
        """Without the changes whose last trace is gone at ``oldest_s``."""
        before, changes = self.before, list(self.changes)
        reach = light.delay_s + _GONE * (light.rise_s + light.fall_s)
        while changes and changes[0][0] + reach < oldest_s:
            before = changes.pop(0)[1]
        return type(self)(before, tuple(changes))


def given(light: LightTruth, drive: Drive, low_s: Float, high_s: Float, phase: float) -> Float:
    """Integral of a light's relative output from ``low_s`` to ``high_s`` after the trigger.

    After a change to another level the output nears it exponentially, with ``rise_s`` or ``fall_s``. Drift
    and flicker multiply what comes of that.
    """
    if not drive.changes:
        return np.asarray(drive.before * (_steady(light, high_s, phase) - _steady(light, low_s, phase)))
    out = np.zeros(np.broadcast_shapes(low_s.shape, high_s.shape))
    for begin, end, level, excess, decay in _pieces(light, drive):
        ends = [np.clip(at, begin, end) for at in (low_s, high_s)]
        if level:
            out += level * (_steady(light, ends[1], phase) - _steady(light, ends[0], phase))
        if excess:
            out += excess * (
                _fading(light, ends[1], begin, decay, phase) - _fading(light, ends[0], begin, decay, phase)
            )
    return out


def _pieces(light: LightTruth, drive: Drive) -> list[tuple[float, float, float, float, float]]:
    """Begin, end, level neared, distance from it at the begin, and rate at which that decays."""
    pieces = []
    begin, level, excess, decay = -np.inf, drive.before, 0.0, 0.0
    for at_s, wanted in (*drive.changes, (np.inf, 0.0)):
        end = at_s + light.delay_s
        pieces.append((begin, end, level, excess, decay))
        if not np.isfinite(end):
            break
        reached = level + (excess * np.exp(-decay * (end - begin)) if excess else 0.0)
        lag = light.rise_s if wanted > reached else light.fall_s
        begin, level = end, wanted
        excess, decay = (reached - wanted, 1 / lag) if lag > 0 else (0.0, 0.0)
    return pieces


def _steady(light: LightTruth, at_s: Float, phase: float) -> Float:
    """Integral of a light that burns, from the trigger."""
    out = at_s + 0.5 * light.drift_per_s * at_s**2
    if light.flicker is not None:
        pulse = 2 * np.pi * light.flicker.frequency_hz
        out = out + light.flicker.depth / pulse * np.sin(pulse * at_s + phase)
    return np.asarray(out)


def _fading(light: LightTruth, at_s: Float, begin_s: float, decay: float, phase: float) -> Float:
    """Antiderivative of exp(-decay * (t - begin)), times drift and flicker."""
    fading = np.exp(-decay * (at_s - begin_s))
    out = -fading * (1 / decay + light.drift_per_s * (at_s / decay + 1 / decay**2))
    flicker: Flicker | None = light.flicker
    if flicker is not None:
        pulse = 2 * np.pi * flicker.frequency_hz
        wave = np.exp(1j * (pulse * at_s + phase)) / (1j * pulse - decay)
        out = out + flicker.depth * fading * wave.real
    return np.asarray(out)
