"""Gain and read noise from an exposure stack itself, where no sensor calibration exists."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from calibration.provenance import Quality
from calibration.radiometric.consistency.sampling import Sample
from calibration.radiometric.model import QUANTISATION_DN2, RadiometricModel

_BINS = 16
_FEWEST = 400
_CELL = 8
_CLEAREST = 4.0


class StackNoise(NamedTuple):
    """Noise of a camera as an exposure stack shows it.

    Attributes
    ----------
    gain_dn_per_e, gain_sigma : float
        K and its one-sigma.
    noise_dn2 : float
        Variance without light, quantisation included, DN^2.
    from_darks : bool
        Whether ``noise_dn2`` is that of dark frames.
    levels : ndarray (k, 3)
        Evidence: what K multiplies, measured variance, number of differences, one row a pair and brightness.
    """

    gain_dn_per_e: float
    gain_sigma: float
    noise_dn2: float
    from_darks: bool
    levels: NDArray[np.float64]


def one_half(sample: Sample, which: int) -> NDArray[np.bool_]:
    """Every other cell of 8 x 8 px of the sample: to estimate on one half and to test on the other."""
    h, w = sample.electrons.shape[2:4]
    y, x = np.mgrid[:h, :w] // _CELL
    cells = ((y + x) % 2 == which)[None, None]
    if sample.electrons.ndim == 5:
        cells = cells[..., None]
    return np.broadcast_to(cells, sample.electrons.shape)


def noise_of_stack(
    sample: Sample,
    exposure_s: ArrayLike,
    model: RadiometricModel,
    *,
    darks: Sequence[NDArray[Any]] = (),
    dark_exposure_s: ArrayLike = (),
) -> StackNoise | None:
    """Photon transfer between neighbouring exposures of a static scene.

    The difference of a pixel in two exposures, the shorter scaled up, has no scene in it; that difference
    less the one of the pixel two columns on has no smooth error of the scaling left either. Its variance
    against the signal is a line of slope K.

    Parameters
    ----------
    sample : Sample
        Of ``sample_stack`` with ``model``; NaN what shall not be used.
    exposure_s : array_like (n,)
        As found by ``find_exposures``.
    model : RadiometricModel
        The linear model that the sample was made with: its black level and saturation count, its gain is only
        the unit of ``sample``.
    darks, dark_exposure_s : sequence of ndarray, array_like, optional
        Dark frames; pairs of one exposure give the noise without light, where DN 0 does not cut it off.

    Returns
    -------
    StackNoise or None
        None where the stack does not tell: float frames, a non-linear model, fewer than four brightnesses
        with 400 differences, or a slope less than four sigma from 0.

    Notes
    -----
    Assumes a static scene and raw data: noise that was smoothed, sharpened or compressed comes out wrong, and
    a scene that shakes counts as noise. Interpolated colour (RGB from a mosaic) has less noise than its
    photons: K comes out too small.
    """
    if not model.counts_electrons or model.response is not None:
        return None
    gain = model.gain_dn_per_e
    time = np.asarray(exposure_s, np.float64)
    order = np.argsort(time, kind="stable")
    rows: list[tuple[float, float, float, float]] = []
    top = (model.saturation_dn - model.black_dn) * 0.9
    for one, two in pairwise(order):
        ratio = time[two] / time[one]
        a, b = sample.electrons[one] * np.float32(gain), sample.electrons[two] * np.float32(gain)
        pooled = (a + b) / np.float32(1 + ratio)
        off = b - np.float32(ratio) * a
        first = (slice(None), slice(None), slice(None, -2))
        second = (slice(None), slice(None), slice(2, None))
        difference = (off[first] - off[second]).ravel()
        level = 0.5 * (pooled[first] + pooled[second]).ravel()
        there = np.isfinite(difference) & (level * ratio < top) & (level > 1)
        if there.sum() < _FEWEST:
            continue
        rows += _levels(difference[there].astype(np.float64), level[there].astype(np.float64), ratio)
    if len(rows) < 4:
        return None
    slope, constant, variance, count = np.array(rows).T
    dark = _dark_variance(sample, darks, dark_exposure_s)
    fit = _line(slope, constant, variance, count, dark)
    if fit is None:
        return None
    found, sigma, floor = fit
    if found <= _CLEAREST * sigma:
        return None
    return StackNoise(found, sigma, floor, dark is not None, np.stack([slope, variance, count], axis=1))


def with_noise(model: RadiometricModel, noise: StackNoise) -> RadiometricModel:
    """``model`` with the gain and read noise of the stack: doubtful, and saying so."""
    gain = noise.gain_dn_per_e
    read = np.sqrt(max(noise.noise_dn2 - QUANTISATION_DN2, 0.0)) / gain
    source = "its darks" if noise.from_darks else "the stack itself"
    warning = (
        f"no sensor calibration: gain {gain:.3g} +- {noise.gain_sigma:.2g} DN/e- estimated from the stack, "
        f"read noise from {source}; linear response and black level are assumed"
    )
    return model.replace(
        gain_dn_per_e=gain,
        gain_sigma_dn_per_e=noise.gain_sigma,
        read_noise_e=float(read),
        quality=Quality(
            residual_rms=0.0,
            unit="DN",
            observations=int(noise.levels[:, 2].sum()),
            verdict="doubtful",
            warnings=(warning,),
        ),
    )


def _levels(
    difference: NDArray[np.float64], level: NDArray[np.float64], ratio: float
) -> list[tuple[float, float, float, float]]:
    bins = min(_BINS, max(len(level) // _FEWEST, 1))
    edges = np.unique(np.quantile(level, np.linspace(0, 1, bins + 1)))
    index = np.searchsorted(edges[1:-1], level, side="right")
    rows = []
    for k in range(len(edges) - 1):
        here = difference[index == k]
        if len(here) >= _FEWEST / 2:
            # Two pixels, each of two samples: ratio times the brighter signal twice, and the fixed noise.
            signal = 2 * level[index == k].mean() * ratio * (1 + ratio)
            rows.append((signal, 2 * (1 + ratio**2), _clipped_variance(here), float(len(here))))
    return rows


def _clipped_variance(values: NDArray[np.float64]) -> float:
    """Variance about the mean without what lies beyond 4.5 of its sigma."""
    kept = values
    for _ in range(10):
        middle, spread = kept.mean(), kept.std()
        inside = np.abs(kept - middle) <= 4.5 * spread
        if inside.all():
            break
        kept = kept[inside]
    return float(kept.var())


def _dark_variance(sample: Sample, darks: Sequence[NDArray[Any]], exposure_s: ArrayLike) -> float | None:
    """Variance of a dark sample from pairs of one exposure; None without pairs, or where DN 0 cuts it off."""
    time = np.asarray(exposure_s, np.float64)
    found = []
    waiting: dict[float, NDArray[Any]] = {}
    for frame, t in zip(darks, time, strict=True):
        if float(t) in waiting:
            first = waiting.pop(float(t))
            pair = sample.cut(np.asarray(frame))
            if np.mean(pair == 0) < 0.01:
                found.append(_clipped_variance(pair.astype(np.float64) - first) / 2)
        else:
            waiting[float(t)] = sample.cut(np.asarray(frame))
    return float(np.median(found)) if found else None


def _line(
    slope: NDArray[np.float64],
    constant: NDArray[np.float64],
    variance: NDArray[np.float64],
    count: NDArray[np.float64],
    dark: float | None,
) -> tuple[float, float, float] | None:
    """K, its sigma and the variance without light, by weighted least squares; none of them negative."""
    design = np.stack([slope, constant], axis=1)
    expected = variance
    floor = QUANTISATION_DN2 if dark is None else max(dark, QUANTISATION_DN2)
    solution = np.zeros(2)
    weight = np.ones(len(slope))
    for _ in range(4):
        # The variance of a variance; neighbours share pixels, hence half as many count.
        weight = np.sqrt(count / 4) / np.maximum(expected, 1e-12)
        target = variance - floor * constant
        if dark is None:
            solution = nnls(design * weight[:, None], target * weight)[0]
        else:
            gain = float((weight**2 * slope) @ target / ((weight**2 * slope) @ slope))
            solution = np.array([gain, 0.0])
        expected = design @ solution + floor * constant
    if solution[0] <= 0:
        return None
    residual = (target - design @ solution) * weight
    unknowns = design if dark is None else design[:, :1]
    information = (unknowns * (weight**2)[:, None]).T @ unknowns
    if np.linalg.cond(information) > 1e14:
        return None
    scatter = max(1.0, float(residual @ residual) / max(len(slope) - unknowns.shape[1], 1))
    sigma = float(np.sqrt(np.linalg.inv(information)[0, 0] * scatter))
    return float(solution[0]), sigma, floor + float(solution[1])
