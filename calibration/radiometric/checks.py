"""Do frames follow the radiometric model? Exposures, drift and clipping, from means over blocks of pixels.

A session can be checked against itself: the radiance of one view under one light must not depend on the
exposure, nor on whether a frame came first or last. All of this rests on means over small blocks of pixels
(`block_means`), which are small enough to be kept for every frame; a frame is read once.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.provenance import Model, Provenance

Float = NDArray[np.float64]
Verdict = Literal["ok", "warning", "fail"]

# A block further off the line than this many sigma, in units of the blocks' own scatter, moved or is defect.
_REJECT = 4.0
_ROUNDS = 8
# With the black level unknown, blocks must spread this many times their noise for a slope to be honest.
_SPREAD = 10.0
# Known or not, frames without a signal tell nothing.
_LEAST_SNR = 3.0
# Pictures that differ by this share of their light, and by so many times what noise alone does, are of
# different things. Pictures of psm, two spheres and DiLiGenT differ by 0.011 a degree between their lights.
_UNLIKE = 0.05
_MANY_NOISE = 2.0
# Exposure times are good to no better than this; it keeps one precise pair from deciding a slope alone.
_EXPOSURE_SIGMA = 0.005


class Check(Model):
    """One question put to a session, and what its frames answer.

    Attributes
    ----------
    name : str
        What was checked: ``linearity``, ``lamp drift``, ``black drift``, ``clipping``, ``frames`` and so on.
    verdict : 'ok', 'warning' or 'fail'
        ``fail``: results that rest on these frames would be wrong.
    text : str
        One line with the numbers.
    """

    name: str
    verdict: Verdict
    text: str


class SessionChecks(Model):
    """What the checks of a session found, in order."""

    kind: Literal["checks"] = "checks"
    results: tuple[Check, ...]
    provenance: Provenance = Provenance()

    @property
    def failed(self) -> bool:
        """Whether any check fails."""
        return any(check.verdict == "fail" for check in self.results)


class Blocks(NamedTuple):
    """Means of one frame over blocks of pixels.

    Attributes
    ----------
    mean : ndarray (n,), float64
        NaN where a sample of the block is.
    samples : int
        That each mean is of.
    """

    mean: Float
    samples: int


def block_size(shape: tuple[int, ...], *, mosaic: bool = False, blocks: int = 2048) -> int:
    """Side of blocks of which about ``blocks`` fill a frame; of a mosaic, in samples of one colour."""
    area = shape[0] * shape[1] / (4 if mosaic else 1)
    return int(max(np.sqrt(area / blocks), 1))


def block_means(values: NDArray[np.floating], size: int, *, mosaic: bool = False) -> Blocks:
    """Mean over blocks of ``size`` x ``size`` samples of one colour.

    Parameters
    ----------
    values : ndarray (h, w) or (h, w, 3)
        NaN makes its block NaN. Samples beyond the last whole block are left out.
    size : int
        Side of a block.
    mosaic : bool
        The frame is a Bayer mosaic: blocks are made of each of its four kinds of pixels apart.
    """
    planes = [values[..., c] for c in range(3)] if values.ndim == 3 else [values]
    if mosaic:
        planes = [plane[i::2, j::2] for plane in planes for i in (0, 1) for j in (0, 1)]
    means = []
    for plane in planes:
        rows, columns = plane.shape[0] // size, plane.shape[1] // size
        cut = plane[: rows * size, : columns * size]
        # Rows first: a sum over the slow axis runs along memory.
        part = np.add.reduceat(cut, np.arange(0, rows * size, size), axis=0, dtype=np.float64)
        means.append(part.reshape(rows, columns, size).sum(axis=-1).ravel() / (size * size))
    return Blocks(np.concatenate(means), size * size)


class Ratio(NamedTuple):
    """How many times as bright one frame is as another of the same view.

    Attributes
    ----------
    value, sigma : float
        Of ``y`` over ``x``; the sigma includes the scatter of the blocks where they scatter more than noise.
    chi2 : float
        Reduced chi-square of the blocks kept.
    blocks : int
        Kept.
    rejected : float
        Share of the blocks left out because they do not follow the others.
    """

    value: float
    sigma: float
    chi2: float
    blocks: int
    rejected: float


def fit_ratio(x: Float, y: Float, var_x: Float, var_y: Float, offset_sigma: float) -> Ratio | None:
    """Slope of the straight line through the block means of two frames of one view.

    Parameters
    ----------
    x, y : ndarray (n,)
        Signal of each block above the black level, in one unit; NaN is left out.
    var_x, var_y : ndarray (n,)
        Variances of the noise.
    offset_sigma : float
        Uncertainty of the black level common to both frames. The line passes through (0, 0) within it;
        infinite leaves it free.

    Returns
    -------
    Ratio or None
        None where the blocks do not tell: too few, too dark, or the black level is unknown and all blocks are
        alike.

    Notes
    -----
    Errors in both coordinates: York et al., "Unified equations for the slope, intercept, and standard errors
    of the best straight line", Am. J. Phys. 72 (2004), doi:10.1119/1.1632486. The black level enters as one
    more point at (0, 0) whose two errors are one and the same. The line's slope is the ratio of the exposures
    for a linear camera; for one of DN ~ light ** p, the ratio to the power of p, whatever the black level
    (the comparametric plot of Mann, doi:10.1109/83.855435). Blocks that moved are rejected by their distance
    in units of the blocks' robust scatter, so up to about a third of the blocks may move.
    """
    x, y, var_x, var_y = _known(x, y, var_x, var_y)
    var_x, var_y = np.maximum(var_x, 1e-30), np.maximum(var_y, 1e-30)
    known = bool(np.isfinite(offset_sigma))
    if len(x) < (1 if known else 8):
        return None
    noise = float(np.sqrt(np.median(var_x)))
    if known and np.percentile(x, 75) < _LEAST_SNR * noise:
        return None
    if not known and np.subtract(*np.percentile(x, (90, 10))) < _SPREAD * noise:
        return None
    offset2 = offset_sigma**2 if known else np.inf
    slope, intercept = _first_line(x, y, known)
    keep = np.zeros(len(x), bool)
    for _ in range(_ROUNDS):
        if not (np.isfinite(slope) and slope > 0):
            return None
        off = (y - intercept - slope * x) / np.sqrt(var_y + slope**2 * var_x)
        scatter = max(1.4826 * float(np.median(np.abs(off))), 1.0)
        kept = np.abs(off) < _REJECT * scatter
        if np.array_equal(kept, keep) or not kept.any():
            break
        keep = kept
        slope, intercept, sigma = _line(x[keep], y[keep], var_x[keep], var_y[keep], slope, offset2)
    if not keep.any():
        return None
    chi2 = float(np.sum(off[keep] ** 2) / max(keep.sum() - (1 if known else 2), 1))
    sigma *= np.sqrt(max(chi2, 1.0))
    if not sigma < 0.3 * slope:
        return None
    return Ratio(float(slope), float(sigma), chi2, int(keep.sum()), float(1 - keep.mean()))


def are_unlike(x: Float, y: Float, var_x: Float, var_y: Float) -> bool:
    """Whether two frames taken alike show different pictures, whatever the light's strength in each.

    Parameters
    ----------
    x, y : ndarray (n,)
        Signal of each block above the black level, in one unit; NaN is left out.
    var_x, var_y : ndarray (n,)
        Variances of the noise.
    """
    x, y, var_x, var_y = _known(x, y, var_x, var_y)
    if not (len(x) and x.sum() > 0 and y.sum() > 0):
        return False
    gain = y.sum() / x.sum()
    off = np.abs(y - gain * x).sum() / y.sum()
    # Of a normal distribution the mean magnitude is 0.8 sigma.
    noise = 0.8 * np.sqrt(np.maximum(var_y + gain**2 * var_x, 0)).sum() / y.sum()
    return bool(off > _UNLIKE + _MANY_NOISE * noise)


def _known(*blocks: Float) -> tuple[Float, ...]:
    """What is said of the blocks for which all of it is known."""
    good = np.isfinite(blocks).all(axis=0)
    return tuple(values[good] for values in blocks)


def _first_line(x: Float, y: Float, known: bool) -> tuple[float, float]:
    """Slope and intercept that blocks which moved do not pull away."""
    if known:
        bright = x >= np.median(x)
        return float(np.median(y[bright] / np.where(x[bright] > 0, x[bright], np.nan))), 0.0
    # Theil's slope over pairs of a dark and a bright block.
    order = np.argsort(x)
    half = len(x) // 2
    low, high = order[:half], order[-half:]
    slope = float(np.median((y[high] - y[low]) / (x[high] - x[low])))
    return slope, float(np.median(y - slope * x))


def _line(
    x: Float, y: Float, var_x: Float, var_y: Float, slope: float, offset2: float
) -> tuple[float, float, float]:
    """Slope, intercept and sigma of the slope, York's iteration; the last point is the black level."""
    with_origin = np.isfinite(offset2)
    for _ in range(50):
        weight = 1 / (var_y + slope**2 * var_x)
        # One error that is common to both coordinates moves a point along the diagonal only, so it matters
        # the less the nearer the slope is to 1; kept away from 1, where position on the line is undefined.
        across = np.copysign(max(abs(1 - slope), 1e-3), 1 - slope)
        origin = 1 / max(offset2 * across**2, 1e-30) if with_origin else 0.0
        total = weight.sum() + origin
        mean_x, mean_y = float(weight @ x) / total, float(weight @ y) / total
        u, v = x - mean_x, y - mean_y
        beta = weight * (u * var_y + slope * v * var_x)
        u0, v0 = -mean_x, -mean_y
        # York's beta with equal sigmas and correlation one: W (u + b v - b u - v) s^2
        beta0 = origin * offset2 * across * (u0 - v0) if with_origin else 0.0
        up = float((weight * beta) @ v) + origin * beta0 * v0
        down = float((weight * beta) @ u) + origin * beta0 * u0
        new = up / down if down else float("nan")
        if not np.isfinite(new) or abs(new - slope) < 1e-10 * abs(slope):
            slope = new
            break
        slope = new
    adjusted = mean_x + beta
    adjusted0 = mean_x + beta0
    centre = (float(weight @ adjusted) + origin * adjusted0) / total
    spread = float(weight @ (adjusted - centre) ** 2) + origin * (adjusted0 - centre) ** 2
    return float(slope), mean_y - slope * mean_x, float(1 / np.sqrt(spread)) if spread > 0 else float("inf")


class Pair(NamedTuple):
    """The measured ratio of two exposures of one view.

    Attributes
    ----------
    short_s, long_s : float
    ratio : Ratio
    offset : float
        Uncertainty of the black level over the signal of the shorter exposure. All pairs share its sign, so
        that it does not average out; 0 where the level is free.
    """

    short_s: float
    long_s: float
    ratio: Ratio
    offset: float = 0.0


class Linearity(Model):
    """Whether radiance depends on the exposure it was measured with.

    Attributes
    ----------
    exposure_s : tuple of float
        Ascending.
    deviation, sigma : tuple of float
        Radiance measured with each exposure over that of the one that most agree with, less 1.
    chi2 : float
        Reduced chi-square of all deviations against 0, with 0.5 % granted to the times.
    exponent, exponent_sigma : float
        Of DN above black against exposure: 1 for a linear camera, 1 / 2.2 for common gamma-encoded pictures,
        0 where the image does not follow the exposure.
    pairs : int
        Pairs of frames that the numbers rest on.
    """

    exposure_s: tuple[float, ...]
    deviation: tuple[float, ...]
    sigma: tuple[float, ...]
    chi2: float
    exponent: float
    exponent_sigma: float
    pairs: int

    @property
    def worst(self) -> int:
        """Index of the exposure that deviates most."""
        return int(np.argmax(np.abs(self.deviation)))

    @property
    def is_linear(self) -> bool:
        """False where the exponent is clearly not 1: off by more than 0.15 and by more than 3 sigma.

        The sigma grows with the scatter of the ratios, so a curve that is no power of the light is called one
        later than a power of the same size.
        """
        off = abs(self.exponent - 1)
        return not (off > 0.15 and off > 3 * self.exponent_sigma)


def linearity(pairs: Sequence[Pair]) -> Linearity | None:
    """Combine the ratios of exposures, of any number of views and lights.

    Returns
    -------
    Linearity or None
        None where no pair tells anything.

    Notes
    -----
    Weighted least squares for one factor an exposure, from the logarithms of the ratios. Pairs that disagree
    with each other by more than their sigmas (lamps that flicker) widen the sigmas. An error of the exposure
    TIMES and one of the camera's response look alike here; the exponent tells a tone curve, which bends all
    ratios alike, from one wrong time.
    """
    if not pairs:
        return None
    times = sorted({t for pair in pairs for t in (pair.short_s, pair.long_s)})
    index = {t: i for i, t in enumerate(times)}
    told = np.array([np.log(pair.long_s / pair.short_s) for pair in pairs])
    off = np.array([np.log(pair.ratio.value) for pair in pairs]) - told
    sigma = np.array([pair.ratio.sigma / pair.ratio.value for pair in pairs])
    weight = 1 / (sigma**2 + _EXPOSURE_SIGMA**2)
    exponent = 1 + float(np.sum(weight * off * told) / np.sum(weight * told**2))
    left = off - (exponent - 1) * told
    spread = max(float(np.sum(weight * left**2) / max(len(pairs) - 1, 1)), 1.0)
    offset = np.array([pair.offset for pair in pairs])
    common = float(np.sum(weight * offset * told) / np.sum(weight * told**2))
    exponent_sigma = float(np.hypot(np.sqrt(spread / np.sum(weight * told**2)), common))

    design = np.zeros((len(pairs), len(times)))
    for row, pair in enumerate(pairs):
        design[row, index[pair.long_s]], design[row, index[pair.short_s]] = 1, -1
    scale = np.sqrt(weight)[:, None]
    factor = np.linalg.lstsq(design * scale, off * scale[:, 0], rcond=None)[0]
    left = off - design @ factor
    spread = max(float(np.sum(weight * left**2) / max(len(pairs) - len(times) + 1, 1)), 1.0)
    # The exposure that most others agree with; of two, the longer, whose time is the surer.
    apart = np.abs(factor[:, None] - factor[None])
    reference = int(np.argmin(np.median(apart, axis=0))) if len(times) > 2 else len(times) - 1
    to_reference = np.eye(len(times))
    to_reference[:, reference] -= 1
    # Exposures that no chain of pairs connects cannot be compared; least norm sets their means alike.
    normal = design.T @ (weight[:, None] * design)
    covariance = to_reference @ np.linalg.pinv(normal) @ to_reference.T * spread
    deviation = factor - factor[reference]
    black = np.zeros(len(times))
    for pair in pairs:
        black[index[pair.short_s]] = max(black[index[pair.short_s]], pair.offset)
    sigmas = np.sqrt(np.maximum(np.diag(covariance), 0) + black**2)
    return Linearity(
        exposure_s=tuple(times),
        deviation=tuple(float(d) for d in np.expm1(deviation)),
        sigma=tuple(float(s) for s in sigmas),
        chi2=float(np.sum(weight * off**2) / len(pairs)),
        exponent=exponent,
        exponent_sigma=exponent_sigma,
        pairs=len(pairs),
    )


def judge_linearity(found: Linearity | None) -> Check:
    """Say in one line whether the exposures agree.

    Fails where the exponent is clearly not 1, or an exposure is more than 10 % (and 5 sigma) off; warns from
    2 % (and 3 sigma).
    """
    if found is None:
        text = "nothing to check with: take some shots with two exposures, both unsaturated"
        return Check(name="linearity", verdict="warning", text=text)
    worst = found.worst
    off, sigma = found.deviation[worst], found.sigma[worst]
    numbers = (
        f"exponent {found.exponent:.3f} ± {found.exponent_sigma:.3f}; largest deviation "
        f"{_percent(off, sigma)} at {found.exposure_s[worst]:g} s; chi² {found.chi2:.3g} over {found.pairs} "
        f"ratios of {len(found.exposure_s)} exposures"
    )
    if found.exponent < 0.2 and not found.is_linear:
        text = f"the image does not follow the exposure that was told ({numbers}): automatic exposure?"
        return Check(name="linearity", verdict="fail", text=text)
    if not found.is_linear:
        text = f"DN are not proportional to light ({numbers}): a tone curve; calibrate the response"
        return Check(name="linearity", verdict="fail", text=text)
    if abs(off) > 0.1 and abs(off) > 5 * sigma:
        text = f"radiance depends on the exposure ({numbers}): a wrong time, or a lamp that changed"
        return Check(name="linearity", verdict="fail", text=text)
    if abs(off) > 0.02 and abs(off) > 3 * sigma:
        text = f"radiance depends a little on the exposure ({numbers})"
        return Check(name="linearity", verdict="warning", text=text)
    return Check(name="linearity", verdict="ok", text=numbers)


def _percent(off: float, sigma: float) -> str:
    return f"{100 * off:+.2f} ± {100 * sigma:.2f} %" if abs(off) < 1 else f"a factor of {1 + off:.3g}"


def clipped_shares(clipped: NDArray[np.bool_], cfa: str | None = None) -> tuple[dict[str, float], float]:
    """Share of clipped samples of each channel, and of pixels of which a part of the channels clips alone.

    Parameters
    ----------
    clipped : ndarray (h, w) or (h, w, 3) of bool
        True where a sample is clipped in every exposure.
    cfa : str, optional
        Order of the top-left 2 x 2 pixels of a mosaic; then a pixel is one such cell.

    Returns
    -------
    dict of channel -> share, float
        Channels are ``Y``, or ``R``, ``G``, ``B``. The second is 0 for mono frames.
    """
    if clipped.ndim == 3:
        planes = {letter: clipped[..., c] for c, letter in enumerate("RGB")}
    elif cfa is not None:
        height, width = clipped.shape[0] // 2 * 2, clipped.shape[1] // 2 * 2
        cells = [clipped[i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
        planes = {}
        for letter, cell in zip(cfa, cells, strict=True):
            planes[letter] = cell if letter not in planes else planes[letter] | cell
        planes = {letter: planes[letter] for letter in "RGB"}
    else:
        return {"Y": float(clipped.mean())}, 0.0
    every, some = np.logical_and.reduce(list(planes.values())), np.logical_or.reduce(list(planes.values()))
    return {letter: float(plane.mean()) for letter, plane in planes.items()}, float((some & ~every).mean())
