"""Maximum-likelihood fit of curve, exposure ratios and noise to joint histograms of all samples."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calibration.provenance import FitError
from calibration.radiometric.response.curve import Curve, hats, weights
from calibration.radiometric.response.exposures import Exposures, Joint
from calibration.radiometric.response.rows import REST_DN, Equations, Rows, add_to, calmed, noise_of, rows_of

Float = NDArray[np.float64]

_ROUNDS = 30
_NOISE_ROUNDS = 2  # with the curve settled
_SETTLED = 3e-4  # root mean square change of the curve, of its full scale, or of an exposure in one round
_ROUGH = 2  # rounds with the smoothness as it starts, while the noise is overrated
_CAREFUL = 5  # round from which steps that do not shrink are shortened
_LAST_STEP, _FIRST_CODE = 0.5, 2.0  # sigma of the logarithm
_HELD = 1e8
ROWS_A_KNOT = 2
FAR, CLEAN = 4.0, 1e-3  # the same where a smaller share lies farther off than that
REACH = 2.5  # sigma beyond which a difference is not used: edges out of place scatter more than noise
_AT_CEILING = 2.0  # sigma about saturation within which a code's partners tell where it lies
_LONGEST_STEP = 1.0
_SMOOTHEST, _ROUGHEST = 1e6, 0.02
_START_KNOTS, _MANY_PAIRS = 60, 6  # half of many pairs is plenty for a start
_START_JITTER = 0.03
_LEAST_JITTER = 1e-4
_COMMON_PRIOR = 0.02  # jitter that the estimate of the jitter starts from, counted as one exposure


class Fit(NamedTuple):
    """What the fit found, channels first.

    Attributes
    ----------
    curve : Curve
        Family; ``parameters`` (channels, p) choose one each, scaled to 1 at the middle of the codes.
    shift, shift_sigma : ndarray (n,)
        Natural logarithm of fitted over reported exposure, in order of exposure.
    covariance : ndarray (channels * p + n,) * 2
        Of parameters and shifts together.
    noise, noise_sigma : ndarray (channels, 3)
        Variance of a sample: ``noise[0] * exposure + noise[1] + noise[2] * slope**2``, without quantisation;
        exposure as in ``parameters``, slope in exposure a DN.
    information : ndarray (channels, codes)
        Of the relative exposure of each code, from all rows that touch it.
    jitter : float
        Standard deviation of the shifts about a common scale and power.
    samples, outliers : float
        Pairs of samples used, and beyond the reach of the noise.
    residual_dn : float
        Root mean square over the rows of their mean difference beyond noise, in DN of the longer frame.
    """

    curve: Curve
    parameters: Float
    shift: Float
    shift_sigma: Float
    covariance: Float
    noise: Float
    noise_sigma: Float
    information: Float
    jitter: float
    samples: float
    outliers: float
    residual_dn: float


def fit(joint: Joint, exposures: Exposures, exposure_sigma: float | None = None) -> Fit:
    """Fit the response to joint histograms.

    The differences between two frames, taken at equal merged signal, have mean zero whatever the scene, for
    the merged signal of two Poisson samples and their difference are uncorrelated; binning by either sample
    alone bends the curve where the scene's histogram is steep. Each round sums them by merged signal, solves
    for the curve and the exposures by Gauss-Newton, then takes noise, smoothness (marginal likelihood) and
    jitter anew from what is left.

    Parameters
    ----------
    joint : Joint
        Of ``count``.
    exposures : Exposures
        Reported exposures.
    exposure_sigma : float, optional
        Relative sigma of the reported exposures; estimated if not given.

    Raises
    ------
    FitError
        A channel without mid-tones in any two frames.
    """
    from calibration.radiometric.response.kernels import differences, extents, residuals

    codes, first, last = joint.codes, joint.first, joint.last
    dark = first if codes.clips_dark else -1
    reported = np.log(exposures.exposure_s)
    pairs = np.array(joint.pairs)
    tables = [np.ascontiguousarray(joint.counts[:, c]) for c in range(joint.counts.shape[1])]
    reaches = [extents(table) for table in tables]
    curve = Curve.over(codes.centre, first, last, codes.clips_dark)
    size, n = curve.roughness.shape[1], len(reported)
    offset = size * len(tables)
    # Lines of merged signal closer than the knots of the curve are taken together.
    groups = np.unique(np.floor(curve.position(codes.centre) * ROWS_A_KNOT), return_index=True)[1]
    middle = int(np.searchsorted(codes.centre, 0.5 * (codes.centre[first] + codes.centre[last])))
    parameters = []
    for number, table in enumerate(tables):
        start = _start(table, curve, pairs, reported, first, last, _channel(number, len(tables)))
        parameters.append(curve.through(start / start[middle]))
    noise = np.tile([1e-3, 1e-6, 0.5], (len(tables), 1))
    noise_sigma = np.full_like(noise, np.inf)
    smoothness = np.ones((len(tables), len(curve.roughness)))
    shift = np.zeros(n)
    jitter = _START_JITTER if exposure_sigma is None else exposure_sigma
    slant = reported - reported.mean()
    steepness = float(np.linalg.norm(slant))
    slant = slant / steepness
    pace, before = 1.0, np.inf
    for turn in range(_ROUNDS):
        matrix, vector = np.zeros((offset + n, offset + n)), np.zeros(offset + n)
        seen, slopes = [], []
        ratio = np.exp((reported + shift)[pairs[:, 1]] - (reported + shift)[pairs[:, 0]])
        for c, table in enumerate(tables):
            part = slice(c * size, (c + 1) * size)
            p = curve.scaled(parameters[c], 1 / curve.exposure(parameters[c])[middle])
            parameters[c] = p
            exposure, jacobian = curve.exposure(p), curve.jacobian(p)
            step = np.gradient(exposure)
            sums = residuals(
                table, reaches[c], exposure, step, codes.width, ratio, noise[c], dark, last, REACH
            )
            rows = rows_of(sums, groups, exposure, step, codes.width, ratio, noise[c])
            seen.append(rows)
            slopes.append(jacobian[first + 1 : last] / exposure[last])
            design = differences(jacobian, rows.ratio, rows.at_short, rows.at_long)
            add_to(matrix, vector, rows.equation, design, pairs, part, offset)
            if turn >= _ROUGH and joint.saturates:
                ceiling = _ceiling(table, exposure, step, codes.width, jacobian, ratio, noise[c], first, last)
                add_to(matrix, vector, *ceiling, pairs, part, offset)
            gauge = jacobian[middle]
            matrix[part, part] += 1e10 * np.outer(gauge, gauge)
            _tie(matrix[part, part], vector[part], p, curve.positive)
            penalty = np.tensordot(smoothness[c], curve.roughness, 1)
            matrix[part, part] += penalty
            vector[part] -= penalty @ p
        matrix[range(offset, offset + n), range(offset, offset + n)] += 1 / jitter**2
        vector[offset:] -= shift / jitter**2
        # The power, which the frames cannot tell: noise and roughness must not choose it, only the report.
        matrix[offset:, offset:] += _HELD * np.outer(slant, slant)
        vector[offset:] -= _HELD * slant * (slant @ shift)
        covariance = np.linalg.inv(matrix)
        move = pace * np.clip(covariance @ vector, -_LONGEST_STEP, _LONGEST_STEP)
        shift = shift + move[offset:]
        change = float(np.abs(move[offset:]).max())
        for c, rows in enumerate(seen):
            part = slice(c * size, (c + 1) * size)
            parameters[c] = parameters[c] + move[part]
            change = max(change, float(np.sqrt(np.mean((slopes[c] @ move[part]) ** 2))))
            if turn >= _ROUGH:
                smoothness[c] = _smoothness(smoothness[c], curve, parameters[c], covariance[part, part])
            measured, noise_sigma[c] = noise_of(rows, noise[c])
            noise[c] = measured if turn < _CAREFUL else 0.5 * (noise[c] + measured)
        if exposure_sigma is None:
            jitter = _jitter(shift, covariance[offset:, offset:], reported)
        if turn > _ROUGH and change < _SETTLED:
            break
        if turn >= _CAREFUL and change > 0.5 * before:
            pace = max(0.7 * pace, 0.2)
        before = change
    ratio = np.exp((reported + shift)[pairs[:, 1]] - (reported + shift)[pairs[:, 0]])
    for c, table in enumerate(tables):
        exposure = curve.exposure(parameters[c])
        # Where nothing scatters more than noise, more of the noise may be measured.
        clean = seen[c].outliers < CLEAN * seen[c].samples
        reach = FAR if clean else REACH
        for _ in range(_NOISE_ROUNDS):
            step = np.gradient(exposure)
            sums = residuals(
                table, reaches[c], exposure, step, codes.width, ratio, noise[c], dark, last, reach
            )
            seen[c] = rows_of(sums, groups, exposure, step, codes.width, ratio, noise[c])
            noise[c], noise_sigma[c] = noise_of(seen[c], noise[c])
    power_sigma = jitter / steepness
    along = np.concatenate([*(_power(curve, p) for p in parameters), reported - reported.mean()])
    covariance = covariance + power_sigma**2 * np.outer(along, along)
    information = np.stack([_touched(rows, len(codes.centre)) for rows in seen])
    residual = np.concatenate([rows.residual_dn for rows in seen])
    return Fit(
        curve=curve,
        parameters=np.stack(
            [curve.scaled(p, 1 / curve.exposure(p)[middle]) for p in parameters]
        ),
        shift=shift,
        shift_sigma=np.sqrt(np.diag(covariance)[offset:]),
        covariance=covariance,
        noise=noise,
        noise_sigma=noise_sigma,
        information=information,
        jitter=jitter,
        samples=sum(rows.samples for rows in seen),
        outliers=sum(rows.outliers for rows in seen),
        residual_dn=float(np.sqrt(np.mean(residual**2))),
    )  # fmt: skip


def _channel(number: int, channels: int) -> str:
    return f"channel {'RGB'[number]}: " if channels == 3 else ""


def _start(
    table: NDArray[np.int64], curve: Curve, pairs: NDArray[np.intp], reported: Float, first: int, last: int,
    name: str,
) -> Float:  # fmt: skip
    """Rough curve from the medians of each code's partners: linear least squares on its logarithm."""
    at = curve.scale.place(curve.centre)
    knots = np.linspace(at[first], at[last], _START_KNOTS)
    index = np.arange(len(at), dtype=np.float64)
    every = hats(at, knots)
    height = (curve.centre - curve.scale.dark) / (curve.scale.bright - curve.scale.dark)
    corners, values, asked = [], [], []
    some = slice(None, None, 2 if len(pairs) > _MANY_PAIRS else 1)
    for (i, j), counts in zip(pairs[some], table[some], strict=True):
        for part, sign in ((counts, 1.0), (np.ascontiguousarray(counts.T), -1.0)):
            code, partner, weight = _medians(part, first, last)
            sure = np.sqrt(np.minimum(weight, 1000)) / (0.01 / (np.abs(height[code]) + 0.004) + 0.02)
            theirs, mine = weights(np.interp(partner, index, at), knots), weights(at[code], knots)
            corners.append(np.concatenate([theirs[0], mine[0]], axis=1))
            values.append(np.concatenate([theirs[1], -mine[1]], axis=1) * sure[:, None])
            asked.append(sign * (reported[j] - reported[i]) * sure)
    corner, value, wanted = np.concatenate(corners), np.concatenate(values), np.concatenate(asked)
    found = len(wanted)
    cell = corner[:, :, None] * _START_KNOTS + corner[:, None, :]
    products = value[:, :, None] * value[:, None, :]
    normal = np.bincount(cell.ravel(), products.ravel(), _START_KNOTS**2).reshape(_START_KNOTS, -1)
    right = np.bincount(corner.ravel(), (value * wanted[:, None]).ravel(), _START_KNOTS)
    if not found:
        raise FitError(
            f"response: {name}no two frames share mid-tones: add exposures between them, or light the scene"
        )
    scale = np.trace(normal)
    second = np.diff(np.eye(_START_KNOTS), 2, axis=0) / (knots[1] - knots[0]) ** 1.5
    normal += 1e-5 * scale / _START_KNOTS * (second.T @ second) + 1e-9 * scale * np.eye(_START_KNOTS)
    normal[-1, -1] += scale
    exposure = np.exp(every @ np.linalg.solve(normal, right))
    least = 1e-4 * exposure[1:] / (np.abs(curve.centre[1:] - curve.scale.dark) + 1) * np.diff(curve.centre)
    rise = np.maximum(np.diff(exposure), least)
    return np.asarray(np.concatenate([[max(exposure[0], rise[0] / 4)], exposure[0] + np.cumsum(rise)]))


def _medians(counts: NDArray[np.int64], first: int, last: int) -> tuple[NDArray[np.intp], Float, Float]:
    """Codes of one frame, the median of their partners in the other, and how many there were."""
    from calibration.radiometric.response.kernels import quantiles

    total, low, partner, high = quantiles(counts)
    good = (total >= 20) & (low > first) & (high < last)
    good[: first + 1] = False
    good[last:] = False
    return np.flatnonzero(good), partner[good], total[good]


def _ceiling(
    table: NDArray[np.int64], exposure: Float, step: Float, width: Float, jacobian: Float, ratio: Float,
    noise: Float, first: int, last: int,
) -> tuple[Equations, Float]:  # fmt: skip
    """Share of saturated partners of each code of the shorter frame: it tells where the ceiling lies.

    The partners are normal about the expected exposure. A code's own noise moves that expectation where the
    scene's histogram is steep; near saturation, where the noise is small, by less than is added here to the
    uncertainty.
    """
    edge = 0.5 * (exposure[last - 1] + exposure[last])
    of_edge = 0.5 * (jacobian[last - 1] + jacobian[last])
    expected = ratio[:, None] * exposure
    floor = noise[1] + step**2 * (noise[2] / width**2 + 1 / 12)
    own = ratio[:, None] ** 2 * (noise[0] * np.maximum(exposure, 0) + floor)
    variance = own + noise[0] * np.maximum(expected, 0) + floor[last - 1]
    away = (edge - expected) / np.sqrt(variance)
    near = np.abs(away) < _AT_CEILING
    near[:, : first + 1] = False
    near[:, last:] = False
    pair, code = np.nonzero(near)
    mean, sigma, z = expected[near], np.sqrt(variance[near]), away[near]
    cells = table[pair, code]
    full = cells[:, last:].sum(axis=1)
    believed = np.abs(exposure[:last] - mean[:, None]) < (REACH + _AT_CEILING) * sigma[:, None]
    believed[:, : first + 1] = False
    count = full + (cells[:, :last] * believed).sum(axis=1)
    share = full / np.maximum(count, 1)
    saturated = 1 - ndtr(z)
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    difference = (share - saturated) * sigma / density
    spread = saturated * (1 - saturated) * (sigma / density) ** 2
    floor_of = own[pair, code] + (REST_DN * step[last - 1]) ** 2
    information = np.where(count > 0, 1 / (spread / np.maximum(count, 1) + floor_of), 0.0)
    design = of_edge - ratio[pair, None] * jacobian[code]
    return calmed(Equations(pair, -mean, information, information * difference)), design


def _tie(matrix: Float, vector: Float, parameters: Float, positive: bool) -> None:
    """Weak priors on what lies beyond the codes that are seen.

    The step to saturation is like the one before it, and what a black code holds is of the order of a step.
    """
    matrix[-1, -1] += 1 / _LAST_STEP**2
    vector[-1] -= parameters[-1] / _LAST_STEP**2
    if positive:
        off = (parameters[-2] - parameters[0]) / _FIRST_CODE**2
        matrix[[0, -2], [0, -2]] += 1 / _FIRST_CODE**2
        matrix[[0, -2], [-2, 0]] -= 1 / _FIRST_CODE**2
        vector[0] += off
        vector[-2] -= off


def _smoothness(before: Float, curve: Curve, parameters: Float, covariance: Float) -> Float:
    """Weights that make the curve's wiggles as large as the prior expects them (Fellner and Schall)."""
    wiggles = np.einsum("i,kij,j->k", parameters, curve.roughness, parameters)
    known = before * np.einsum("kij,ij->k", curve.roughness, covariance)
    wanted = np.maximum(curve.rank - known, 1e-3) / np.maximum(wiggles, 1e-12)
    return np.asarray(np.clip(np.clip(wanted, before / 4, before * 4), _ROUGHEST, _SMOOTHEST))


def _power(curve: Curve, parameters: Float) -> Float:
    """Change of the parameters when the curve is raised to a power, by the power."""
    exposure = curve.exposure(parameters)
    middle = 0.5 * (exposure[1:] + exposure[:-1])
    dn = 0.5 * (curve.centre[1:] + curve.centre[:-1])
    at = np.interp(curve.scale.dn(curve.knots), dn, middle)
    slope = 1 + np.log(np.maximum(at, 1e-9))
    first = np.log(np.maximum(exposure[0], 1e-9)) * (1.0 if curve.positive else exposure[0])
    return np.concatenate([slope, [first, 0.0]])


def _jitter(shift: Float, covariance: Float, reported: Float) -> float:
    """Standard deviation of the shifts about scale and power, which no stack can tell from the curve."""
    n = len(shift)
    plane = np.linalg.qr(np.stack([np.ones(n), reported], axis=1))[0]
    rest = np.eye(n) - plane @ plane.T
    total = shift @ rest @ shift + np.trace(rest @ covariance) + _COMMON_PRIOR**2
    return max(float(np.sqrt(total / (n - 2 + 1))), _LEAST_JITTER)


def _touched(rows: Rows, codes: int) -> Float:
    """Information on the logarithm of the exposure of each code."""
    relative = rows.equation.information * rows.signal**2
    found = np.zeros(codes)
    for at in (rows.at_short, rows.at_long):
        left = np.minimum(at.astype(np.intp), codes - 2)
        np.add.at(found, left, relative * (1 - at + left))
        np.add.at(found, left + 1, relative * (at - left))
    return found
