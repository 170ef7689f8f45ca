"""Weights of an exposure stack: fixed by bracket and noise model, made before any pixel is seen."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric.model import RadiometricModel, look_up

Numbers = NDArray[np.float64]

# The dark estimate is of least variance where the longest exposure collects as much light as it has noise.
_DARK_AT = 1.0
# The pooled sum of all electrons serves where it costs less than this share of the variance.
_POOLED_LOSS = 0.01
# A rate that noise made negative claims at least this share of the variance without light.
_LEAST = 0.4
# Width of the ramp below saturation, in sigmas of a sample.
_RAMP_SIGMAS = 2.0
# Steps of a table of noise an octave: what the upper bits of a float32 tell apart (2**(23 - kernels.SHIFT)).
_STEPS = 256


class Noise(NamedTuple):
    """What the weights rest on.

    ``gain`` DN/e-, ``black`` and ``saturation`` DN, ``floor`` variance without light in e-^2.
    """

    gain: float
    black: float
    saturation: float
    floor: float

    @property
    def full(self) -> float:
        """Electrons at saturation."""
        return (self.saturation - self.black) / self.gain


class Weights(NamedTuple):
    """The estimators of a bracket, shortest exposure first. Rates are e-/s, dark current included.

    Attributes
    ----------
    step : ndarray (n, 7)
        How frame j changes the bright estimate r of the shorter ones: 1 / (gain t); the ramp as
        ``top - dn * per``; its correction as ``electrons_dn * lift + lift0``; 1 / t; share of the frame.
    dark : ndarray (n,)
        Rate = sum of dark * (dn - offset): weights best in the dark.
    bright : ndarray (n, n)
        Row m: the same of the frames 0..m alone, each taken in where it is the longest that is not
        saturated.
    lines : ndarray (n, 3)
        Of row m of ``bright``: slope against the rate and constant of its variance, mean 1 / t.
    pooled : ndarray (n, 6)
        Frames 0..m summed: least DN of frame m where it serves; DN to rate; offset to rate; slope and
        constant of its variance; mean 1 / t.
    final : ndarray (17,)
        Saturation and lower end of the ramp in DN; highest rate of the mix, and its share s = (p0 + p1 r) /
        (q0 + q1 r) of the bright estimate; floor in e-^2; the mix's variance, a constant and a slope each as
        a quadratic in s (3 numbers, the middle one half); its mean 1 / t, a line in s; the least variance.
    """

    step: Numbers
    dark: Numbers
    bright: Numbers
    lines: Numbers
    pooled: Numbers
    final: Numbers


@lru_cache(maxsize=32)
def weights_of(exposures: tuple[float, ...], noise: Noise) -> Weights:
    """Weights of exposures in s that do not decrease.

    Notes
    -----
    The best weight of a sample is t / (r t + floor): it needs the rate r that is sought. Taking it from the
    pixel's own noisy samples costs bias. Here all weights are numbers, known beforehand, so that every sum is
    exactly unbiased: ``dark`` is best where the signal is as small as the noise without light, ``bright``
    (recursive, frame by frame) where each frame is well filled. Their difference carries no signal; the share
    of it to add is a ratio of two lines in r, taken at the estimate, whose noise is all but uncorrelated with
    the difference.
    """
    t = np.asarray(exposures, np.float64)
    n, floor, full = len(t), noise.floor, noise.full
    dark = t / (_DARK_AT * t / t[-1] + 1)
    dark /= np.sum(dark * t)
    bright, share, fill = _recursive(t, noise)

    difference = bright[-1] - dark
    limit = fill[-1] * full / t[-1]
    p0, p1 = -floor * np.sum(dark * difference), -np.sum(dark * difference * t)
    q0, q1 = floor * np.sum(difference**2), np.sum(difference**2 * t)
    if not q0 + q1 * limit > 1e-9 * np.sum(dark**2 * (floor + limit * t)):
        p0, p1, q0, q1 = 1.0, 0.0, 1.0, 0.0
    # one scale for all four, so that they are ordinary numbers in any unit of time
    p0, p1, q0, q1 = (number / (q0 + q1 * limit) for number in (p0, p1, q0, q1))

    edge = np.ceil(noise.saturation) - 0.5
    ramp = ramp_dn(noise)
    step = np.stack(
        [
            1 / (noise.gain * t),
            np.full(n, edge / ramp),
            np.full(n, 1 / ramp),
            1 / (ramp * t),
            floor * noise.gain / (ramp * t),
            1 / t,
            share,
        ],
        -1,
    )
    squares = np.array([dark**2, dark * difference, difference**2])
    constants, slopes = floor * squares.sum(axis=1), (squares * t).sum(axis=1)
    least = _LEAST * (constants[0] + p0 / q0 * (2 * constants[1] + p0 / q0 * constants[2]))
    final = np.array(
        [
            *(noise.saturation, edge - ramp, limit, p0, p1, q0, q1, floor),
            *(*constants, *slopes, dark.sum(), difference.sum(), least),
        ]
    )
    lines = np.stack([(bright**2 * t).sum(axis=1), floor * (bright**2).sum(axis=1), bright.sum(axis=1)], -1)
    return Weights(step, dark / noise.gain, bright / noise.gain, lines, _pooled(t, noise), final)


def ramp_dn(noise: Noise) -> float:
    """Width of the ramp below saturation, whole DN: a sample at its edge is never on both sides."""
    sigma = noise.gain * np.sqrt(noise.full + noise.floor)
    most = max(0.1 * (noise.saturation - noise.black), 1.0)
    return float(np.ceil(min(max(_RAMP_SIGMAS * sigma, 2.0), most)))


def _recursive(t: Numbers, noise: Noise) -> tuple[Numbers, Numbers, Numbers]:
    """Weights after each frame, share of each frame when it comes in, filling at which that is best."""
    n = len(t)
    longer = [t[t > 1.01 * s] for s in t]
    # the longest that is not saturated is filled between this and 1
    least = np.array([s / more[0] if len(more) else 0.09 for s, more in zip(t, longer, strict=True)])
    fill = np.sqrt(np.maximum(least, 1e-3))
    rows, share, row = np.zeros((n, n)), np.empty(n), np.zeros(n)
    for j in range(n):
        information = t[: j + 1] ** 2 / (fill[j] * noise.full / t[j] * t[: j + 1] + noise.floor)
        share[j] = information[j] / information.sum()
        row = row * (1 - share[j])
        row[j] = share[j] / t[j]
        rows[j] = row
    return rows, share, fill


def _pooled(t: Numbers, noise: Noise) -> Numbers:
    n, time = len(t), np.cumsum(t)
    filling = np.geomspace(1e-4, 1.0, 200)
    rows = np.empty((n, 6))
    for m in range(n):
        rate = filling * noise.full / t[m]
        each = rate[:, None] * t[: m + 1]
        information = (t[: m + 1] ** 2 / (each + noise.floor)).sum(axis=1)
        loss = (rate * time[m] + (m + 1) * noise.floor) / time[m] ** 2 * information - 1
        good = np.flatnonzero(loss <= _POOLED_LOSS)
        least = noise.black + noise.gain * filling[good[0]] * noise.full if len(good) else np.inf
        per = 1 / (noise.gain * time[m])
        rows[m] = (
            min(least, 1e9), per, (m + 1) * per, 1 / time[m], (m + 1) * noise.floor / time[m] ** 2,
            (m + 1) / time[m],
        )  # fmt: skip
    return rows


def _codes(low: float, high: float) -> tuple[NDArray[np.int64], Numbers]:
    """Codes (upper bits of a float32) from one number to another, and the least of what each stands for."""
    ends = np.array([low, high], np.float32).view(np.int32)
    shift = 23 - int(np.log2(_STEPS))
    codes = np.arange(ends[0] >> shift, (ends[1] >> shift) + 2)
    return codes, (codes << shift).astype(np.int32).view(np.float32).astype(np.float64)


class Floors(NamedTuple):
    """Of cameras with a response table and of float frames: variance without light against electrons.

    Attributes
    ----------
    lookup : ndarray (channels, codes)
        Electrons of each DN; no codes for a linear camera.
    floors : ndarray (channels, k)
        Variance in e-^2 at electrons 256 an octave.
    settings : ndarray (5,)
        First code of ``floors``, its lowest electrons, 1 where electrons have shot noise, 1 / gain,
        saturation in DN.
    """

    lookup: Numbers
    floors: Numbers
    settings: Numbers


def floors_of(model: RadiometricModel) -> Floors:
    """Noise of a model at every signal."""
    ends = [float(model.counts_electrons), 1 / model.gain_dn_per_e, model.saturation_dn]
    if model.response is None:
        floor = np.full((1, 1), model.noise_dn2 / model.gain_dn_per_e**2)
        return Floors(np.empty((1, 0)), floor, np.array([0.0, 1.0, *ends]))
    tables = np.asarray(model.response, np.float64).T
    top = tables[:, -1].max()
    codes, electrons = _codes(1e-7 * top, 1.5 * top)
    dn = np.arange(tables.shape[1], dtype=np.float64)
    rows = []
    for table in tables:
        at = np.minimum(np.interp(electrons, table, dn), model.saturation_dn)
        after = look_up(table, at)[1].astype(np.float64) ** 2 * model.noise_dn2
        rows.append(after + model.read_noise_e**2)
    return Floors(tables, np.array(rows), np.array([codes[0], electrons[0], *ends]))
