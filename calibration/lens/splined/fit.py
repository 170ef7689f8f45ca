"""Fit of the splined lens: start from a plainer lens, smoothness prior as stiff as the corners tell."""

from typing import Any, NamedTuple

import numpy as np

from calibration.geometry import Float
from calibration.lens.bundle import Solution, corrected, solve
from calibration.lens.descent import minimize, problem_of
from calibration.lens.model import LensModel
from calibration.lens.splined.model import SplinedLens, direction, stereographic
from calibration.lens.unknowns import Corners, Free, Mask, Prior, State, placed
from calibration.provenance import FitError

FEWEST_CORNERS = 400
_CORNERS_A_KNOT = 8
_MOST_CELLS, _FEWEST_CELLS = 16, 4
_USUAL_PX, _SOFT = 0.1, 1e-3
_FITTING = 5.0  # median residuals within which the plainer model holds
_NEIGHBOURS = 9
_OUTLIER_SIGMA, _ROUGH = 4.5, 1e-2  # as in a solution
_GRID = 81
_REACH = 0.5  # knot spacings, at the most cells, that count as among the corners
_OPENING = 1.5
_TURN_PX = 1e-3  # to which the mean turn is held, which no corner tells
_AS_GOOD = 0.1  # of twice the logarithm of the evidence
_ROUNDS, _SETTLED = 4, 0.2  # of the stiffness: searches, and the logarithm that changes no projection
_PLANE = 1e-9  # of the bending of the most bent field: none
_FILL = 1e-9  # smoothness of the start beside its samples: extends it beyond the picture


class Splined(NamedTuple):
    """A fit, and the prior that it had."""

    solution: Solution
    prior: Prior


def fit_splined(
    state: State, corners: Corners, free: Free, *, min_points: int = 6, stiffness: float | None = None
) -> Splined:
    """Fit the splined lens of one camera.

    The field is that of a plainer lens plus a correction, whose bending energy (that of a thin plate) has a
    Gaussian prior. The plainer lens's own parameters stay free under it, and so does a turn of all rays: what
    fits them was these very corners, so the prior has no opinion on them. The prior's stiffness is where the
    corners are most probable, so that the correction follows what the corners tell above their noise,
    whatever the size of its waves, and is smooth where there are none.

    Parameters
    ----------
    state : State
        Solution of a plainer lens, Brown-Conrady or fisheye. One camera.
    corners : Corners
        At least ``FEWEST_CORNERS``.
    free : Free
        Parameters of the plainer lens that were fitted, and the board's shape.
    min_points : int
        See ``solve``.
    stiffness : float, optional
        Of the prior, where it is known: that of a fit to nearly the same corners.

    Returns
    -------
    Splined

    Raises
    ------
    FitError
        Too few corners, or no convergence.

    Notes
    -----
    A common turn of all rays and of all boards changes no residual: the mean turn against the plainer lens,
    over the corners, is held at 0. Evidence of a ridge prior: D. MacKay, "Bayesian interpolation", Neural
    Computation 4 (1992), doi:10.1162/neco.1992.4.3.415.
    """
    if len(corners.points) < FEWEST_CORNERS:
        raise FitError(
            f"{len(corners.points)} corners: the splined model needs {FEWEST_CORNERS}, better ten times that"
        )
    plain, missed = state.lenses[0], np.linalg.norm(_missed(state, corners), axis=1)
    fitting = corners.pixels[missed < _FITTING * np.nanmedian(missed)]
    mean = start(plain, fitting, len(corners.points))
    family, turns = _family(plain, free.lens[0], mean, fitting), _turns(mean, plain, fitting)
    bending, rank = _apart(_bending(mean), np.concatenate([family, turns.fields]))
    turn = turns.precision
    free = free._replace(lens=(np.arange(len(mean.parameters)) >= 4,))
    given = stiffness is not None
    if stiffness is None:
        # At first soft beside what the corners tell at usual noise, so that none is out of reach.
        stiffness = _SOFT * 2 * len(corners.points) * (mean.fx / _USUAL_PX) ** 2 / float(np.trace(bending))
    state = state._replace(lenses=(mean.replace(stiffness=stiffness),))
    for _ in range(_ROUNDS):
        prior = Prior(stiffness * bending + turn, mean.parameters)
        state = _gathered(state, corners, free, prior)
        solution = solve(state, corners, free, min_points=min_points, priors=(prior,))
        if given:
            break
        better = _most_probable(solution, prior, bending, rank, stiffness)
        if abs(np.log(better / stiffness)) < _SETTLED:
            break
        stiffness = better
        state = solution.state._replace(lenses=(solution.state.lenses[0].replace(stiffness=stiffness),))
    return Splined(solution, prior)


def _missed(state: State, corners: Corners) -> Float:
    """Residuals (n, 2), px; NaN where nothing is imaged."""
    return np.asarray(corners.pixels - state.lenses[0].project(placed(state, corners)[1]))


def _gathered(state: State, corners: Corners, free: Free, prior: Prior) -> State:
    """Least squares over the corners that miss what their neighbours, of all views, miss in common.

    Where the lens is far from its start, the corners of a place look like gross errors, each by itself;
    the median of neighbours tells one from the other.
    """
    from scipy.spatial import cKDTree

    problem = problem_of(state, corners, free, (prior,))
    pixels = corrected(state, corners)
    missed = pixels - state.lenses[0].project(placed(state, corners)[1])
    missed = np.where(np.isfinite(missed), missed, 0.0)
    common = np.median(missed[cKDTree(corners.pixels).query(corners.pixels, k=_NEIGHBOURS)[1]], axis=1)
    apart = np.linalg.norm(missed - common, axis=1)
    scale = float(np.median(apart)) / 1.1774
    # Across a place what they have in common changes, too.
    agree = apart < _OUTLIER_SIGMA * scale + 0.5 * np.linalg.norm(common, axis=1)
    return minimize(problem, state, pixels, agree / max(scale, _USUAL_PX) ** 2, _ROUGH)


def start(lens: LensModel, pixels: Float, corners: int) -> SplinedLens:
    """Splined lens equal to a plainer one where that fits, and without bending beyond.

    The field covers the picture and one spacing more.

    Parameters
    ----------
    lens : LensModel
    pixels : ndarray (n, 2)
        Where corners are that it fits; of other places it says nothing.
    corners : int
        How many the splined fit will have: the knots are as many as they can bear.
    """
    u, seen = _samples(lens, pixels)
    low, high = u.min(axis=0), u.max(axis=0)
    # To the borders of the picture, and half as far again: the field of a wide lens opens towards them.
    ends = np.array([[-0.5, -0.5], [lens.width - 0.5, lens.height - 0.5]])
    gaps = _OPENING * np.abs(ends - [seen.min(axis=0), seen.max(axis=0)])
    per_px = (high - low) / np.maximum(np.ptp(seen, axis=0), 1)
    low, high = low - gaps[0] * per_px, high + gaps[1] * per_px
    size = high - low
    cells = np.sqrt(corners / _CORNERS_A_KNOT * size.max() / size.min())
    spacing = float(size.max() / np.clip(np.floor(cells) - 2, _FEWEST_CELLS, _MOST_CELLS))
    number = np.ceil(size / spacing).astype(int) + 5
    x, y = (0.5 * (low + high) - 0.5 * (number - 1) * spacing).tolist()
    blank = SplinedLens(
        width=lens.width, height=lens.height, fx=lens.fx, fy=lens.fy, cx=lens.cx, cy=lens.cy,
        knots=np.zeros((number[1], number[0], 2)), spacing=spacing, corner=(x, y), provenance=lens.provenance,
    )  # fmt: skip
    displacement = (seen - (lens.cx, lens.cy)) / (lens.fx, lens.fy) - u
    return blank.replace(knots=_smooth(blank, u, displacement).reshape(blank.knots.shape))


def _smooth(lens: SplinedLens, u: Float, values: Float) -> Float:
    """Knots (ny nx, m) of fields with the values (n, m) at places u (n, 2), and no bending beyond."""
    weight = _design(lens, u)
    plate = _plate(lens)
    stiff = _FILL * weight.multiply(weight).sum() / plate.trace()
    return _solved(weight.T @ weight + stiff * plate, weight.T @ values)


def _family(lens: LensModel, free: Mask, mean: SplinedLens, pixels: Float) -> Float:
    """Changes (m, p) of ``mean`` that follow those of a plainer lens in its m free parameters."""
    u, _ = _samples(lens, pixels)
    by = lens.derivatives(direction(u)).by_parameters[:, :, free] / np.array([[lens.fx], [lens.fy]])
    good = np.isfinite(by).all(axis=(1, 2))
    fields = _smooth(mean, u[good], by[good].reshape(int(good.sum()), -1)).reshape(-1, 2, by.shape[2])
    rows = np.zeros((by.shape[2], len(mean.parameters)))
    rows[:, 4:] = fields.reshape(-1, by.shape[2]).T
    return rows


def _apart(bending: Float, fields: Float) -> tuple[Float, int]:
    """The energy that is left when the fields (m, p) are added freely, and on how many unknowns it is."""
    fields = fields / np.linalg.norm(fields, axis=1, keepdims=True)
    bent = bending @ fields.T
    energy, axes = np.linalg.eigh(fields @ bent)
    known = energy > _PLANE * energy[-1]
    reach = bent @ axes[:, known]
    rank = len(bending) - 4 - 6 - int(known.sum())  # planes bend nothing
    return bending - (reach / energy[known]) @ reach.T, rank


def _samples(lens: LensModel, pixels: Float) -> tuple[Float, Float]:
    """Places in the stereographic plane (n, 2) and their pixels (n, 2) among the corners, where valid."""
    from scipy.spatial import cKDTree

    x, y = (np.linspace(-0.5, size - 0.5, _GRID) for size in (lens.width, lens.height))
    seen = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    reach = _REACH * max(lens.width, lens.height) / _MOST_CELLS
    seen = np.concatenate([seen[cKDTree(pixels).query(seen)[0] < reach], pixels])
    u = stereographic(lens.unproject(seen))
    valid = np.isfinite(u).all(axis=1)
    if not valid.any():
        raise FitError("the start of the splined model images nothing in the picture")
    return u[valid], seen[valid]


def _design(lens: SplinedLens, u: Float) -> Any:
    """Weights (n, ny nx), sparse, of the knots at places u (n, 2)."""
    from scipy.sparse import csr_array

    from calibration.lens.splined.kernels import basis

    weight, number = basis(np.ascontiguousarray(u), lens.knots, np.array(lens.corner), lens.spacing)
    rows = np.arange(0, weight.size + 1, 16)
    return csr_array((weight.ravel(), number.ravel(), rows), shape=(len(u), lens.knots[..., 0].size))


def _plate(lens: SplinedLens) -> Any:
    """Bending energy of one coordinate of the field as a quadratic form of its knots (ny nx, ny nx), sparse.

    The integral of xx^2 + 2 xy^2 + yy^2 (second derivatives) in spacings.
    """
    from scipy.sparse import csr_array, kron

    columns, rows = ([csr_array(g) for g in _grams(size)] for size in lens.knots.shape[1::-1])
    return csr_array(kron(rows[0], columns[2]) + 2 * kron(rows[1], columns[1]) + kron(rows[2], columns[0]))


def _grams(size: int) -> list[Float]:
    """Integrals (size, size) of products of B-splines, of their first and of their second derivatives."""
    from scipy.interpolate import BSpline

    # Knot i of the field stands at i; its B-spline reaches from i - 2 to i + 2. The field: 1 .. size - 2.
    splines = BSpline(np.arange(-2.0, size + 2), np.eye(size), 3)
    node, weight = np.polynomial.legendre.leggauss(4)
    at = (np.arange(1, size - 2)[:, None] + 0.5 * (node + 1)).ravel()
    values = [splines(at, nu=order) for order in range(3)]
    return [v.T @ (np.tile(0.5 * weight, size - 3)[:, None] * v) for v in values]


def _bending(lens: SplinedLens) -> Float:
    """``_plate`` of both coordinates as a quadratic form of ``parameters`` (p, p)."""
    plate = _plate(lens).toarray()
    out = np.zeros((len(lens.parameters),) * 2)
    out[4::2, 4::2] = out[5::2, 5::2] = plate
    return out


class _Turns(NamedTuple):
    """Changes (3, p) of the lens by a turn of all rays about each axis; precision (p, p) holding the mean."""

    fields: Float
    precision: Float


def _turns(mean: SplinedLens, lens: LensModel, pixels: Float) -> _Turns:
    rays = lens.unproject(pixels)
    rays = rays[np.isfinite(rays).all(axis=1)]
    field, weight = _turned(mean, rays)
    rows = np.zeros((3, len(mean.parameters)))
    for axis in range(3):
        rows[axis, 4:] = (weight.T @ field[axis]).ravel()
    rows = np.linalg.solve(np.einsum("kni,lni->kl", field, field), rows)
    at, _ = _samples(lens, pixels)
    field, _ = _turned(mean, direction(at))
    fields = np.zeros_like(rows)
    for axis in range(3):
        fields[axis, 4:] = _smooth(mean, at, field[axis]).ravel()
    return _Turns(fields, np.asarray(rows.T @ rows * (mean.fx / _TURN_PX) ** 2))


def _turned(mean: SplinedLens, rays: Float) -> tuple[Float, Any]:
    """Displacement (3, n, 2) of rays (n, 3) by a turn about each axis, and the weights of the knots there."""
    u = stereographic(rays)
    # A turn moves the ray, and its place in the plane, which moves in the picture.
    moved = np.cross(np.eye(3)[:, None], rays)
    shift = (2 * moved[..., :2] - u * moved[..., 2:]) / (1 + rays[:, 2:])
    jacobian = mean._displaced(u)[:, 2:].reshape(-1, 2, 2)
    return np.einsum("nij,knj->kni", jacobian, shift), _design(mean, u)


def _most_probable(solution: Solution, prior: Prior, bending: Float, rank: int, stiffness: float) -> float:
    """Stiffness of the prior at which the corners are most probable, taking the fit as linear."""
    from scipy.linalg import LinAlgError, eigh

    at = slice(4, len(prior.mean))
    correction = solution.state.lenses[0].parameters[at] - prior.mean[at]
    try:
        information = np.linalg.inv(solution.covariance[at, at])
        information = 0.5 * (information + information.T)
        bend, vectors = eigh(bending[at, at], information)
    except LinAlgError:
        raise FitError("the splined model cannot be told from these corners: take more views") from None
    bend = np.maximum(bend, 0)
    told = vectors.T @ information @ correction
    ratio = np.geomspace(1e-5, 1e5, 401)[:, None]
    stiffer = 1 + (ratio - 1) * stiffness * bend
    with np.errstate(invalid="ignore"):
        evidence = (
            rank * np.log(ratio[:, 0]) - np.sum(np.log(stiffer), axis=1) + np.sum(told**2 / stiffer, axis=1)
        )
    evidence[~(stiffer > 0).all(axis=1)] = -np.inf
    # Where nothing is to be corrected it rises without end, by less and less: the first as good as any.
    return float(stiffness * ratio[np.argmax(evidence > evidence.max() - _AS_GOOD), 0])


def _solved(matrix: Any, right: Float) -> Float:
    from scipy.sparse.linalg import splu

    return np.asarray(splu(matrix.tocsc()).solve(np.ascontiguousarray(right)))
