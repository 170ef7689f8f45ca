"""Noise that hides in the quantisation: mean and variances of a rounded, clipped Gaussian, and their inverse.

Where the temporal noise is below about 0.6 DN, the rule "rounding adds 1/12 DN^2" fails: what a pixel shows
depends on where its level lies between two numbers. The darks still tell the noise, through how often samples
fall on the neighbouring number, as long as any do.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import gammaln, ndtr, xlogy

Float = NDArray[np.float64]

SMOOTH_DN2 = 1.0
"""Variance from which rounding adds 1/12 DN^2 to better than one in a thousand, whatever the level."""

_NODES = np.linspace(-5, 5, 201)
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()
_WIDE = 2.0
_STEP = 0.5  # of the Gaussian noise: from here an electron is a step
_MANY = 60.0  # electrons whose number is Gaussian enough


@dataclass(frozen=True, eq=False)
class DarkMoments:
    """What a dark series shows.

    Attributes
    ----------
    exposure_s, frames : ndarray (n,)
    mean, mean_sigma : ndarray (n,), DN
        Over the pixels; the sigma holds the drift of the black level from frame to frame.
    variance, freedom : ndarray (n,), DN^2
        Temporal, mean over the pixels, with its degrees of freedom; NaN without pairs.
    spatial, spatial_sigma : float, DN^2
        Variance over the pixels of the mean of all frames, temporal part taken off.
    """

    exposure_s: Float
    frames: Float
    mean: Float
    mean_sigma: Float
    variance: Float
    freedom: Float
    spatial: float
    spatial_sigma: float


@dataclass(frozen=True)
class TrueDark:
    """The sensor before rounding: level at exposure zero, noise variance there, spread of the pixels; sigmas.

    ``rate_dn_s`` is the mean dark current.
    """

    black: float
    black_sigma: float
    rate_dn_s: float
    noise_dn2: float
    noise_sigma_dn2: float
    spread_dn: float
    spread_sigma_dn: float


def rounded_moments(mean: Float, sigma: Float, top: float) -> tuple[Float, Float, Float]:
    """Mean, variance and fourth central moment of Gaussian samples rounded to integers within 0..top.

    Parameters
    ----------
    mean, sigma : ndarray, any one shape, DN
        Before rounding; ``sigma`` > 0.
    top : float
        Greatest number.
    """
    if float(np.max(sigma)) > _WIDE:
        # Rounding is mere noise of 1/12 DN^2 here; what is left is the cut at 0 DN.
        ratio = mean / sigma
        density, above = np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi), ndtr(ratio)
        value = mean * above + sigma * density
        variance = (mean**2 + sigma**2) * above + mean * sigma * density - value**2 + above / 12
        return value, variance, 3 * variance**2
    reach = int(np.ceil(8 * float(np.max(sigma)))) + 1
    codes = np.rint(mean)[..., None] + np.arange(-reach, reach + 1)
    upper = ndtr((codes + 0.5 - mean[..., None]) / sigma[..., None])
    chance = np.diff(upper, axis=-1, prepend=0.0)
    shown = np.clip(codes, 0, top)
    value = np.sum(chance * shown, -1)
    square = (shown - value[..., None]) ** 2
    chance *= square
    return value, np.sum(chance, -1), np.sum(chance * square, -1)


def counted_moments(
    level: Float, electrons: Float, gain: float, sigma: float, top: float
) -> tuple[Float, Float, Float]:
    """Moments (n, m) as ``rounded_moments`` gives them, with dark electrons that come one by one.

    Parameters
    ----------
    level : ndarray (m,), DN
        Of each pixel without dark current.
    electrons : ndarray (n,)
        Mean number of them in each exposure; Poisson.
    gain : float, DN/e-
    sigma : float, DN
        Gaussian noise.
    top : float
        Greatest number.

    Notes
    -----
    The fourth moment leaves out the skewness within a count: it serves for weights.
    """
    most = float(np.max(electrons))
    number = np.arange(int(np.ceil(most + 6 * np.sqrt(most) + 4)) + 1)
    chance = np.exp(xlogy(number, electrons[:, None]) - electrons[:, None] - gammaln(number + 1))
    chance /= chance.sum(1, keepdims=True)
    nodes = level + gain * number[:, None]
    value, variance, fourth = rounded_moments(nodes, np.full(nodes.shape, sigma), top)
    v = value - level
    about = v, variance + v**2, 3 * variance * v + v**3, fourth + 6 * variance * v**2 + v**4
    # A plain sum of products: the order of a library's goes by its threads.
    one, two, three, four = (np.einsum("nk,km->nm", chance, moment) for moment in about)
    return (
        level + one,
        two - one**2,
        four - 4 * three * one + 6 * two * one**2 - 3 * one**4,
    )


def _over_pixels(values: Float) -> Float:
    """Mean over the Gaussian spread of the pixels; no matrix product, whose order goes by the threads."""
    return np.asarray(np.sum(values * _WEIGHTS, -1))


def true_dark(
    seen: DarkMoments,
    *,
    gain: float,
    top: float,
    black: tuple[float, float] | None = None,
    noise_dn2: tuple[float, float] | None = None,
) -> TrueDark:
    """The sensor before rounding that shows these moments, by weighted least squares.

    Parameters
    ----------
    seen : DarkMoments
    gain : float
        DN/e-: the shot noise of the dark current.
    top : float
        Greatest DN.
    black, noise_dn2 : (value, sigma), optional
        What the flats say of the two, from where light dithers the rounding.

    Notes
    -----
    Level and spread of the pixels are taken as Gaussian; where ``spread`` or noise is above half a DN that no
    longer matters. Without any sample on a neighbouring number, and without the flats, the darks only bound
    the noise: the sigma says so.
    """
    t, pixels_dof = seen.exposure_s, seen.freedom
    paired = np.isfinite(seen.variance) & (pixels_dof > 0)
    level = float(np.average(seen.mean, weights=1 / seen.mean_sigma**2))
    typical = float(np.nanmean(seen.variance)) if np.any(paired) else 0.25
    fit_rate = len(t) > 1
    rate0 = float(np.polyfit(t, seen.mean, 1, w=1 / seen.mean_sigma)[0]) if fit_rate else 0.0

    single = False

    def moments(p: Float) -> tuple[Float, Float, float, Float]:
        spread = abs(p[3]) * _NODES
        if single:
            value, variance, fourth = counted_moments(
                p[0] + spread, np.maximum(p[1], 0.0) * t / gain, gain, p[2], top
            )
        else:
            sigma2 = p[2] ** 2 + gain * max(p[1], 0.0) * t
            nodes = (p[0] + p[1] * t)[:, None] + spread
            value, variance, fourth = rounded_moments(nodes, np.sqrt(sigma2)[:, None] + 0 * nodes, top)
        of_pixel = np.sum(seen.frames[:, None] * value, 0) / seen.frames.sum()
        spatial = float(np.sum(_WEIGHTS * (of_pixel - np.sum(_WEIGHTS * of_pixel)) ** 2))
        return _over_pixels(value), _over_pixels(variance), spatial, _over_pixels(fourth)

    def residuals(p: Float) -> Float:
        value, variance, spatial, fourth = moments(p)
        # The noise of a mean of squared differences, at what the model says, and at least one event.
        own = (fourth + variance**2)[paired] / 2 + 1 / pixels_dof[paired]
        parts: list[Any] = [
            (seen.mean - value) / seen.mean_sigma,
            (seen.variance - variance)[paired] / np.sqrt(own / pixels_dof[paired]),
            [(seen.spatial - spatial) / seen.spatial_sigma],
        ]
        if black is not None:
            parts.append([(p[0] - black[0]) / black[1]])
        if noise_dn2 is not None:
            parts.append([(p[2] ** 2 - noise_dn2[0]) / noise_dn2[1]])
        return np.concatenate(parts)

    def search(start: Float, scale: Float, lower: Float, upper: Float) -> Any:
        try:
            return least_squares(residuals, start, x_scale=scale, bounds=(lower, upper), max_nfev=60)
        except ValueError:
            return None

    best = None
    spread0 = np.sqrt(max(seen.spatial, 1e-4))
    for sigma0 in (np.sqrt(max(typical - 1 / 12, 0.02)), 0.15, 0.3):
        for shift in (0.0, -0.3, 0.3):
            start = np.array([level - rate0 * float(t.mean()) + shift, rate0, sigma0, max(spread0, 0.02)])
            scale = np.array([0.1, 1.0 / max(float(t.max()), 1e-12) * 0.1, 0.1, 0.1])
            lower = np.array([level - 1.5 - abs(rate0) * t.max(), -np.inf, 0.02, 1e-3])
            upper = np.array([level + 1.5 + abs(rate0) * t.max(), np.inf, np.inf, np.inf])
            if not fit_rate:
                scale[1], lower[1], upper[1] = 1.0, -1e-12, 1e-12
            found = search(start, scale, lower, upper)
            if found is not None and (best is None or found.cost < best.cost):
                best = found
        if best is not None and 2 * best.cost < 3 * len(best.fun):
            break
    assert best is not None
    electrons = max(best.x[1], 0.0) * float(t.max()) / gain
    if gain > _STEP * best.x[2] and 0.01 < electrons < _MANY:
        # Few dark electrons that are steps, not a Gaussian, to noise and rounding as fine as this.
        single = True
        best = search(best.x, scale, lower, upper) or best
    free = [0, 1, 2, 3] if fit_rate else [0, 2, 3]
    information = best.jac[:, free].T @ best.jac[:, free]
    excess = max(1.0, 2 * best.cost / max(len(best.fun) - len(free), 1))
    # What nothing constrains gets the width of the prior that the grid of numbers itself is.
    prior = np.diag([1 / 0.5**2, 1e-12, 1 / 0.3**2, 1 / 0.3**2])[np.ix_(free, free)]
    covariance = np.linalg.inv(information / excess + prior)
    sigma = np.zeros(4)
    sigma[free] = np.sqrt(np.diag(covariance))
    p = best.x
    return TrueDark(
        black=float(p[0]),
        black_sigma=float(sigma[0]),
        rate_dn_s=float(p[1]),
        noise_dn2=float(p[2] ** 2),
        noise_sigma_dn2=float(np.hypot(2 * p[2] * sigma[2], sigma[2] ** 2)),
        spread_dn=float(p[3]),
        spread_sigma_dn=float(sigma[3]),
    )
