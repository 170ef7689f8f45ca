"""Is a fitted response a straight line, and which?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric.response.exposures import Exposures, Joint
from calibration.radiometric.response.likelihood import CLEAN, FAR, REACH, ROWS_A_KNOT, Fit
from calibration.radiometric.response.rows import add_to, noise_of, rows_of

Float = NDArray[np.float64]

_PLACES = 40
_RANGE = (0.05, 0.95)  # of saturation, as EMVA 1288 judges linearity
_SURE = 3.0  # sigma
_GAMMA = 0.02
_GAMMA_LIMIT = 0.1
_BENT_PERCENT = 0.5
_FLOOR = 1e-4  # of full scale: no curve is known better
_ROUNDS, _SETTLED = 12, 1e-5


class Line(NamedTuple):
    """Straight line through the response of one channel.

    Attributes
    ----------
    black_dn, black_sigma_dn : float
        Where the exposure is zero.
    slope : float
        Relative exposure a DN.
    gamma, gamma_sigma : float
        Exponent of exposure ~ (DN - black)**gamma that fits best. Its sigma holds what the jitter of the
        exposures leaves open.
    bent_percent : float
        Root mean square departure from that power law, of full scale.
    error_percent : float
        Mean absolute relative departure from it over 5..95 % of saturation.
    """

    black_dn: float
    black_sigma_dn: float
    slope: float
    gamma: float
    gamma_sigma: float
    bent_percent: float
    error_percent: float

    @property
    def straight(self) -> bool:
        """Whether the data allow a linear sensor."""
        off = abs(self.gamma - 1)
        return off < min(max(_SURE * self.gamma_sigma, _GAMMA), _GAMMA_LIMIT) and (
            self.bent_percent < _BENT_PERCENT
        )


def line_through(fit: Fit, joint: Joint, channel: int) -> Line:
    """Fit a line, and a line with a free exponent, by generalised least squares on the fitted curve.

    The covariance of the curve includes that of the exposures, so the exponent is judged by what the jitter
    of the exposures could have made of a straight line.
    """
    centre, first, last = joint.codes.centre, joint.first, joint.last
    dark, bright = centre[first], centre[last]
    seen = np.flatnonzero(fit.information[channel] > 0)
    low = max(centre[seen[0]], dark + _RANGE[0] * (bright - dark))
    high = min(centre[seen[-1]], dark + _RANGE[1] * (bright - dark))
    dn = np.linspace(low, high, _PLACES)
    parameters = fit.parameters[channel]
    size = len(parameters)
    part = slice(channel * size, (channel + 1) * size)
    exposure = np.interp(dn, centre, fit.curve.exposure(parameters))
    jacobian = np.stack(
        [np.interp(dn, centre, column) for column in fit.curve.jacobian(parameters).T], axis=1
    )
    spread = jacobian @ fit.covariance[part, part] @ jacobian.T
    scale = float(exposure[-1])
    spread += np.eye(_PLACES) * (_FLOOR * scale) ** 2
    whiten = np.linalg.cholesky(np.linalg.inv(spread)).T
    line = np.stack([np.ones(_PLACES), dn], axis=1)
    offset, slope = np.linalg.lstsq(whiten @ line, whiten @ exposure, rcond=None)[0]
    covariance = np.linalg.inv((whiten @ line).T @ (whiten @ line))
    by_black = np.array([-1 / slope, offset / slope**2])
    fraction = np.clip((offset + slope * dn) / (offset + slope * bright), 1e-6, None)
    bend = (fraction * np.log(fraction) * (offset + slope * bright))[:, None]
    design = np.concatenate([line, bend], axis=1)
    found = np.linalg.lstsq(whiten @ design, whiten @ exposure, rcond=None)[0]
    sigma = np.sqrt(np.linalg.inv((whiten @ design).T @ (whiten @ design))[2, 2])
    rest = exposure - design @ found
    return Line(
        black_dn=float(-offset / slope),
        black_sigma_dn=float(np.sqrt(by_black @ covariance @ by_black)),
        slope=float(slope),
        gamma=float(1 + found[2]),
        gamma_sigma=float(sigma),
        bent_percent=float(100 * np.sqrt(np.mean(rest**2)) / scale),
        error_percent=float(100 * np.mean(np.abs(rest / (design @ found)))),
    )


class Straight(NamedTuple):
    """A linear camera, fitted as such.

    Attributes
    ----------
    black_dn, black_sigma_dn : ndarray (channels,)
    noise, noise_sigma : ndarray (channels, 2)
        Variance of a sample in DN^2: DN an electron times the signal in DN, and a constant, without the
        quantisation.
    shift, shift_sigma : ndarray (n,)
        Natural logarithm of fitted over reported exposure, in order of exposure.
    """

    black_dn: Float
    black_sigma_dn: Float
    noise: Float
    noise_sigma: Float
    shift: Float
    shift_sigma: Float


def refit(fit: Fit, joint: Joint, exposures: Exposures, lines: list[Line]) -> Straight:
    """Fit black levels, exposures and noise of a straight response to the same sums as the curve.

    Where two frames cross is where there is no light: without a curve to bend and a power to hold, black is
    known to a fraction of an electron. Extrapolated from the fitted curve it is not.
    """
    from calibration.radiometric.response.kernels import extents, residuals

    codes, last = joint.codes, joint.last
    dark = joint.first if codes.clips_dark else -1
    reported, pairs = np.log(exposures.exposure_s), np.array(joint.pairs)
    tables = [np.ascontiguousarray(joint.counts[:, c]) for c in range(len(lines))]
    reaches = [extents(table) for table in tables]
    groups = np.unique(np.floor(fit.curve.position(codes.centre) * ROWS_A_KNOT), return_index=True)[1]
    step = np.gradient(codes.centre)
    slope = np.array([line.slope for line in lines])
    black = np.array([line.black_dn for line in lines])
    noise = np.stack([fit.noise[:, 0] / slope, fit.noise[:, 1] / slope**2 + fit.noise[:, 2]], axis=1)
    sigma, shift = np.full_like(noise, np.inf), fit.shift.copy()
    reach = FAR if fit.outliers < CLEAN * fit.samples else REACH
    channels, n = len(lines), len(reported)
    for _ in range(_ROUNDS):
        matrix, vector = np.zeros((channels + n, channels + n)), np.zeros(channels + n)
        ratio = np.exp((reported + shift)[pairs[:, 1]] - (reported + shift)[pairs[:, 0]])
        for c, table in enumerate(tables):
            signal = codes.centre - black[c]
            three = np.append(noise[c], 0.0)
            sums = residuals(table, reaches[c], signal, step, codes.width, ratio, three, dark, last, reach)
            rows = rows_of(sums, groups, signal, step, codes.width, ratio, three)
            design = (1 - rows.ratio)[:, None]
            add_to(matrix, vector, rows.equation, design, pairs, slice(c, c + 1), channels)
            noise[c], sigma[c] = noise_of(rows, noise[c])
        every = range(channels, channels + n)
        matrix[every, every] += 1 / fit.jitter**2
        vector[channels:] -= shift / fit.jitter**2
        covariance = np.linalg.inv(matrix)
        move = covariance @ vector
        black, shift = black + move[:channels], shift + move[channels:]
        if np.abs(move).max() < _SETTLED:
            break
    spread = np.sqrt(np.diag(covariance))
    return Straight(black, spread[:channels], noise, sigma, shift, spread[channels:])
