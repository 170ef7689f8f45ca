"""Residuals of a merge against the noise that the model claims: reduced chi^2, by frame and by signal."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.radiometric.consistency.sampling import Sample

Vector = NDArray[np.float64]

_BINS = 12
_FEWEST = 200
_MEDIAN_CHI2 = 0.4549364  # of the square of a standard normal


class Residuals(NamedTuple):
    """Reduced chi^2 of the clear samples about the merge; 1 where the noise model is right.

    Attributes
    ----------
    total, robust : float
        Over all samples; and the same from the median of the squares, which a few outliers do not reach.
        NaN where too few pixels were seen more than once.
    by_frame : ndarray (n,)
        NaN where a frame has too few samples.
    robust_by_frame : ndarray (n,)
        From the median of the squares, which something that moved in less than half of the picture hardly
        changes.
    by_colour : dict of str to float
        Reduced chi^2 of each colour of a mosaic (its two greens apart) or of RGB; empty for mono.
    by_signal : ndarray (k, 4)
        Expected signal in e- of a sample, reduced chi^2, mean residual in percent of the signal, samples.
    samples : int
    """

    total: float
    robust: float
    by_frame: Vector
    robust_by_frame: Vector
    by_colour: dict[str, float]
    by_signal: NDArray[np.float64]
    samples: int


def residuals_of(
    sample: Sample,
    exposure_s: ArrayLike,
    keep: NDArray[np.bool_] | None = None,
    *,
    cfa: str | None = None,
) -> Residuals:
    """Compare every clear sample with the merge of all samples of its pixel.

    A sample's own part in the merge is taken into account: with the weights w and times t, the expected
    square of a residual is the sample's variance times 1 - w t^2 / sum(w t^2).

    Parameters
    ----------
    sample : Sample
        Of ``sample_stack``.
    exposure_s : array_like (n,)
        Told or found.
    keep : ndarray of bool, shape of ``sample.electrons``, optional
        Samples to use: those that did not move; or one part of the pixels, where the noise was estimated
        from the other.
    cfa : str, optional
        Colours of the top-left 2 x 2 block of a mosaic, row by row, such as GBRG.

    Returns
    -------
    Residuals

    Notes
    -----
    Samples whose expectation lies within 4.5 sigma of DN 0 or of saturation are left out: there clipping
    takes part of the noise away. Quantisation is counted as white noise of 1/12 DN^2, which fails where the
    noise before it is below about a third of a DN.
    """
    time = np.asarray(exposure_s, np.float64)
    count = len(time)
    electrons = sample.electrons.reshape(count, -1)
    if keep is not None:
        electrons = np.where(keep.reshape(count, -1), electrons, np.float32(np.nan))
    floor = sample.floor.reshape(count, -1) if sample.floor.size > count else sample.floor.reshape(-1, 1)
    flat = sample._replace(electrons=electrons, floor=floor)
    expected, weight, share = fitted(flat, time)
    used = (weight > 0) & (share < 1 - 1e-6)
    with np.errstate(invalid="ignore", divide="ignore"):
        square = (electrons - expected) ** 2 * weight
        left = 1 - share
    square[~used], left[~used] = 0, 0
    by_frame, robust_by_frame = np.full(count, np.nan), np.full(count, np.nan)
    for i in range(count):
        if used[i].sum() >= _FEWEST:
            by_frame[i] = square[i].sum(dtype=np.float64) / left[i].sum(dtype=np.float64)
            each = square[i][used[i]] / left[i][used[i]]
            robust_by_frame[i] = np.median(each) / _MEDIAN_CHI2
    seen = int(used.sum())
    if seen < _FEWEST:
        return Residuals(np.nan, np.nan, by_frame, robust_by_frame, {}, np.empty((0, 4)), seen)
    total = float(square.sum(dtype=np.float64) / left.sum(dtype=np.float64))
    robust = float(np.median(square[used] / left[used]) / _MEDIAN_CHI2)
    shape = sample.electrons.shape
    colours = {
        name: float(square.reshape(shape)[at].sum(dtype=np.float64) / free)
        for name, at in _colours(cfa, len(shape) == 5)
        if (free := left.reshape(shape)[at].sum(dtype=np.float64)) >= _FEWEST / 4
    }
    by_signal = _by_signal(expected, electrons, square, left, used)
    return Residuals(total, robust, by_frame, robust_by_frame, colours, by_signal, seen)


def _colours(cfa: str | None, rgb: bool) -> list[tuple[str, tuple[Any, ...]]]:
    """Name and place of each colour in an array (n, m, h, w[, 3]); tiles start on even rows and columns."""
    if rgb:
        return [(letter, (..., c)) for c, letter in enumerate("RGB")]
    names = (
        [] if cfa is None else [f"{c}{cfa[: k + 1].count(c)}" if c == "G" else c for k, c in enumerate(cfa)]
    )
    return [(name, (..., slice(k // 2, None, 2), slice(k % 2, None, 2))) for k, name in enumerate(names)]


def fitted(
    sample: Sample, time: Vector
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Expectation of each sample by the merge, its weight (0: not clear), its share of the pixel's weight.

    ``sample.electrons`` is (n, p) here.
    """
    t = time.astype(np.float32)[:, None]
    valid = np.isfinite(sample.electrons)
    value = np.where(valid, sample.electrons, np.float32(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = value.sum(axis=0) / (valid * t).sum(axis=0)
        for _ in range(2):
            expected = rate * t
            weight = sample.weight(expected)
            total = (weight * t * t).sum(axis=0)
            rate = (weight * value * t).sum(axis=0) / total
        share = np.nan_to_num(weight * t * t / total)
    expected = np.nan_to_num(rate * t)
    return expected.astype(np.float32), weight.astype(np.float32), share.astype(np.float32)


def _by_signal(
    expected: NDArray[np.float32],
    electrons: NDArray[np.float32],
    square: NDArray[np.float32],
    left: NDArray[np.float32],
    used: NDArray[np.bool_],
) -> NDArray[np.float64]:
    signal = expected[used]
    edges = np.unique(np.quantile(signal, np.linspace(0, 1, _BINS + 1)))
    index = np.clip(np.searchsorted(edges, signal, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for k in range(len(edges) - 1):
        here = index == k
        if here.sum() >= _FEWEST:
            mean = signal[here].mean(dtype=np.float64)
            off = (electrons[used][here] - signal[here]).mean(dtype=np.float64)
            chi2 = square[used][here].sum(dtype=np.float64) / left[used][here].sum(dtype=np.float64)
            rows.append((mean, chi2, 100 * off / mean if mean > 0 else np.nan, here.sum()))
    return np.array(rows).reshape(-1, 4)
