"""Bundle adjustment of lenses, cameras, poses and the shape of the board: robust, with covariance."""

from typing import NamedTuple

import numpy as np

from calibration.geometry import Float
from calibration.lens.descent import Problem, covariances, equations, minimize, problem_of, residuals
from calibration.lens.discs import disc_bias
from calibration.lens.unknowns import Corners, Free, Index, Layout, Mask, Prior, State, layout_of
from calibration.provenance import FitError

__all__ = [
    "FEW", "Corners", "Free", "Layout", "Prior", "Solution", "State", "approach", "fitted_sigma", "layout_of",
    "solve",
]  # fmt: skip

_OUTLIER_SIGMA = 4.5  # of the length of a residual: one good corner in 25 000 is lost
_MOST_LOST = 0.4  # a view that has lost more of its corners is not the board it says it is
_ON_A_LINE = 1e-6
HARMLESS_PX = 0.1  # no corner is thrown out for less: edges that follow the pixel grid are off by that
_FLOOR_PX = 1e-7  # exact data: rounding is no outlier
_ROUGH = 1e-3  # gain a corner, in units of chi-squared, at which the next scale is tried
_FINE = 1e-9  # gain, in these units, at which a minimum is reached
_ALTERNATIONS = 8  # of least squares with the sigmas and the centres of discs
FEW = 8  # corners for which a robust scale means nothing


class Solution(NamedTuple):
    """What came out.

    Attributes
    ----------
    state : State
    residual : ndarray (n, 2)
        Measured minus model, px; centroids of discs are corrected first.
    used : ndarray (n,) bool
        Corners not thrown out.
    sigma : ndarray (n,)
        Of a coordinate, px: the detection's, enlarged to what the residuals show.
    variance : float
        Mean square of a coordinate's residual per degree of freedom, px^2.
    covariance : ndarray (g, g)
        Of all global unknowns; zero rows for those held.
    layout : Layout
    pose_covariance : ndarray (v, 6, 6)
        Of a small turn about the rig's axes (rad) and of the translation (mm), the global unknowns' part
        included; NaN for a view without corners in use.
    """

    state: State
    residual: Float
    used: Mask
    sigma: Float
    variance: float
    covariance: Float
    layout: Layout
    pose_covariance: Float


def solve(
    start: State,
    corners: Corners,
    free: Free,
    *,
    min_points: int = 6,
    priors: tuple[Prior | None, ...] = (),
    trusted: Mask | None = None,
) -> Solution:
    """Least squares with outliers thrown out.

    Heavy-tailed weights first (``approach``), so that a gross error does not pull the others out with
    it; then plain least squares over the corners within 4.5 sigmas, or 0.1 px, until they stay the same. A
    corner's variance is that of its detection plus one of the fit, at which the residuals are as large as
    they should be.

    Parameters
    ----------
    start : State
        First guess.
    corners : Corners
        What is seen.
    free : Free
        What is fitted besides the poses; all else stays.
    min_points : int
        What a camera sees of a view is left out whole when fewer corners, or less than 60 %, remain.
    priors : tuple of Prior or None
        One a lens.
    trusted : ndarray (n,) bool, optional
        Corners that may be used; all by default.

    Returns
    -------
    Solution

    Raises
    ------
    FitError
        No convergence, or an unknown that the corners do not tell.
    """
    problem = problem_of(start, corners, free, priors)
    trusted = np.ones(len(corners.points), dtype=bool) if trusted is None else trusted
    state, used = start, trusted
    if len(used) >= FEW:
        state, sigma = approach(start, corners, free, priors=priors)
        told = _told(problem, state, corrected(state, corners), trusted / sigma**2)
        for number in range(10):
            length = np.linalg.norm(residuals(problem, state, corrected(state, corners)), axis=1)
            near = trusted & (length < np.maximum(_OUTLIER_SIGMA * sigma, HARMLESS_PX))
            # Corners on a line hold no pose: what stands beside them may be right, and the pose wrong.
            again = trusted & _on_a_line(problem, near) & (number == 0)
            now = _agreeing(problem, near | again, min_points)
            settled = np.array_equal(now, used) and not again.any()
            used = now
            state, sigma = _refined(problem, state, used, sigma, told)
            if settled:
                break
    else:
        told = float(len(problem.free))
        state, sigma = _refined(problem, state, used, np.ones(len(used)), told)
    freedom = _freedom(problem, used, told)
    if freedom < 1:
        raise FitError(f"{int(used.sum())} corners agree: too few for a fit")
    pixels = corrected(state, corners)
    residual = residuals(problem, state, pixels)
    variance = float(np.sum(residual[used] ** 2)) / freedom
    covariance, poses = covariances(problem, equations(problem, state, pixels, used / sigma**2))
    poses[np.bincount(corners.view[used], minlength=len(poses)) == 0] = np.nan
    return Solution(state, residual, used, sigma, variance, covariance, problem.layout, poses)


def approach(
    start: State, corners: Corners, free: Free, *, priors: tuple[Prior | None, ...] = (), rounds: int = 12
) -> tuple[State, Float]:
    """Robust minimum near a first guess, and the sigma (n,) of a coordinate of each corner, px.

    Cauchy weights at the median's scale; a corner that the model cannot image weighs next to nothing.
    """
    problem = problem_of(start, corners, free, priors)
    state, last = start, np.inf
    pixels = corrected(state, corners)
    sigma = _robust_sigma(residuals(problem, state, pixels), corners.sigma)
    for _ in range(rounds):
        state = minimize(problem, state, pixels, 1 / sigma**2, _ROUGH * len(sigma), heavy=True)
        pixels = corrected(state, corners)
        last, sigma = float(np.median(sigma)), _robust_sigma(residuals(problem, state, pixels), corners.sigma)
        if np.median(sigma) > 0.8 * last:
            break
    return state, sigma


def corrected(state: State, corners: Corners) -> Float:
    """Pixels of the discs' centres, where centroids were measured."""
    if corners.disc_mm == 0:
        return corners.pixels
    return corners.pixels - disc_bias(state, corners)


def _refined(problem: Problem, state: State, used: Mask, sigma: Float, told: float) -> tuple[State, Float]:
    """Minimum of plain least squares, and the sigmas at which its residuals are as they should be."""
    corners = problem.corners
    pixels = corrected(state, corners)
    for _ in range(_ALTERNATIONS):
        state = minimize(problem, state, pixels, used / sigma**2, _FINE)
        residual = residuals(problem, state, pixels)
        before, sigma = sigma, fitted_sigma(residual, corners.sigma, used, _freedom(problem, used, told))
        aimed, pixels = pixels, corrected(state, corners)
        weights = sigma / before * (before[0] / sigma[0])
        if np.abs(weights - 1).max() < 1e-3 and np.abs(pixels - aimed).max() < 1e-3 * sigma.min():
            break
    return state, sigma


def _freedom(problem: Problem, used: Mask, told: float) -> float:
    """Of the residuals of the corners in use, where so many unknowns are told by them."""
    return 2 * int(used.sum()) - 6 * len(np.unique(problem.corners.view[used])) - told


def _told(problem: Problem, state: State, pixels: Float, weight: Float) -> float:
    """How many of the global unknowns the corners tell, and not the priors."""
    if not len(problem.mean):
        return float(len(problem.free))
    covariance, _ = covariances(problem, equations(problem, state, pixels, weight))
    known = np.sum(problem.precision * covariance[np.ix_(problem.free, problem.free)])
    return len(problem.free) - float(known)


def _agreeing(problem: Problem, near: Mask, min_points: int) -> Mask:
    """Corners that are near the model, without what cameras saw of views that have lost too many.

    What is left on one line tells no pose.
    """
    sight = _sight(problem)
    total = np.bincount(sight)
    left = np.bincount(sight[near], minlength=len(total))
    whole = (left >= min_points) & (left >= (1 - _MOST_LOST) * total)
    return np.asarray(near & whole[sight] & ~_on_a_line(problem, near))


def _on_a_line(problem: Problem, near: Mask) -> Mask:
    """Corners (n,) of what a camera saw of a view, of which the near ones, and not all, lie on a line."""
    sight = _sight(problem)
    total = np.bincount(sight)
    left = np.bincount(sight[near], minlength=len(total))
    narrow = np.zeros(len(total), dtype=bool)
    for number in np.flatnonzero((left > 2) & (left < total)):
        points = problem.corners.points[near & (sight == number)]
        _, across, _ = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        narrow[number] = across <= _ON_A_LINE * np.ptp(points, axis=0).max()
    return np.asarray(narrow[sight])


def _sight(problem: Problem) -> Index:
    """Number of what a camera saw of a view, for each corner (n,)."""
    return problem.corners.view * len(problem.seen_by) + problem.corners.camera


def _robust_sigma(residual: Float, told: Float) -> Float:
    """Sigma of a coordinate (n,), px: the detection's, enlarged to what the median residual shows."""
    # The median of a Rayleigh variable is 1.1774 sigma.
    usual = float(np.median(np.sum(residual**2, axis=1))) / 1.1774**2
    variance = np.maximum(told, _FLOOR_PX) ** 2
    claimed = float(np.median(variance))
    enlarged = variance * min(usual / claimed, 1.0) + max(usual - claimed, 0.0)
    return np.asarray(np.sqrt(np.maximum(enlarged, _FLOOR_PX**2)))


def fitted_sigma(residual: Float, told: Float, used: Mask, freedom: float) -> Float:
    """Sigma of a coordinate (n,), px: with it, the squares of the corners in use sum up to their freedom.

    The detection's ``told`` (n,), enlarged by a variance that is the same for all, or lowered by a factor.
    After R. C. Paule and J. Mandel, J. Res. NBS 87 (1982), doi:10.6028/jres.087.022.
    """
    squares, variance = np.sum(residual[used] ** 2, axis=1), np.maximum(told[used], _FLOOR_PX) ** 2
    claimed = float(np.sum(squares / variance)) / max(freedom, 1)
    if claimed <= 1:
        # The detection claims more scatter than there is.
        return np.asarray(np.maximum(told * np.sqrt(claimed), _FLOOR_PX))
    # The sum falls and is convex in the added variance: Newton from below does not overshoot.
    added = max(float(np.sum(squares)) / max(freedom, 1) - float(np.max(variance)), 0.0)
    for _ in range(50):
        terms = squares / (variance + added)
        step = (float(np.sum(terms)) - freedom) / float(np.sum(terms / (variance + added)))
        added += step
        if step <= 1e-9 * added:
            break
    return np.asarray(np.sqrt(np.maximum(told, _FLOOR_PX) ** 2 + added))
