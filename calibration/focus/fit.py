"""Focus model from the edges of many views: where the lens is sharp and how it blurs away from there."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.focus.blur import predicted_mtf50
from calibration.focus.edges import ViewEdges
from calibration.focus.model import FocalSurface, FocusModel, ViewSharpness, median_finite
from calibration.focus.mtf import FREQUENCIES
from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.provenance import FitError, Provenance, Quality

_STEPS, _ROUNDS = 60, 6
_OUTLIER = 4.5
_LEAST_EDGES = 30
_CENTRE, _CORNER = 0.3, 0.7
# Standard deviations of what is assumed before anything is measured; wide, so that they matter only where the
# views tell nothing: the tangent of a tilt, the curvature times the distance, the growth of the floor, px^2.
_PRIOR_TILT, _PRIOR_BEND, _PRIOR_GROWTH = 0.5, 1.0, 1.0
_LEAST_VARIANCE = -0.05
_WELL_KNOWN = 5.0
_FAR_OFF = 0.05
_METHOD = 0.004  # of a disc, the method's own error of MTF50
_FEW = 5
_MUCH_SCATTER = 0.1
_MOVED, _MOVED_SIGMAS = 0.12, 5.0


class _Data(NamedTuple):
    """Edges of all views: what they tell (log of MTF50, its sigma), and what the model needs of them."""

    view: NDArray[np.int64]
    log50: Float
    sigma: Float
    normals: Float
    xy: Float
    inverse: Float
    gain: Float
    radial2: Float
    tangential: Float

    def where(self, chosen: NDArray[np.bool_]) -> "_Data":
        """Some of the edges."""
        return _Data(*(np.asarray(part)[chosen] for part in self))  # type: ignore[arg-type]


class _Fit(NamedTuple):
    """Parameters (8,) as ``FocalSurface.covariance`` orders them, residuals (n,), what they scatter."""

    parameters: Float
    covariance: Float
    residual: Float
    extra: float
    used: NDArray[np.bool_]


def fit_focus(
    views: Sequence[ViewEdges],
    lens: LensModel,
    *,
    names: Sequence[str] | None = None,
    provenance: Provenance = Provenance(),  # noqa: B008
) -> FocusModel:
    """Fit the sharp surface, the pupil and the sharpness in focus to the edges of views of a board.

    The model foretells the MTF50 of every edge: a Gaussian blur (lens at its best, diffraction), a disc that
    grows with the difference of 1 / z from the sharp surface, and the pixel's square. Edges count by their
    noise and by the scatter that is left; those off by more than 4.5 sigmas, and views that are blurred
    beyond what their place explains, are thrown out. The order of the views does not matter.

    Parameters
    ----------
    views : sequence of ViewEdges
        From ``measure_edges``. At least some must lie clearly out of focus and some in it, or the fit cannot
        tell the surface; the model then has none, and says so.
    lens : LensModel
        The one that the edges were measured with.
    names : sequence of str, optional
    provenance : Provenance

    Raises
    ------
    FitError
        Not even thirty edges could be measured.

    Notes
    -----
    A thin lens with a round, evenly filled pupil of one size for the whole field: vignetting by the lens's
    barrel, spherical aberration and strong diffraction make other discs. Depths count by z, so rays must stay
    within 90 degrees of the axis.
    """
    labels = tuple(names) if names is not None else tuple(f"view {i + 1}" for i in range(len(views)))
    total = sum(len(view.mtf50) for view in views)
    if total < _LEAST_EDGES:
        raise FitError(
            f"{total} edges of the board could be measured in {len(views)} views, want {_LEAST_EDGES}: "
            f"{_refusals(views)}"
        )
    order = sorted(range(len(views)), key=lambda i: (views[i].pixels.tobytes(), views[i].mtf50.tobytes()))
    rank = np.argsort(order)
    data = _data([views[i] for i in order], lens)
    fit = _fit(data)
    left_out: set[int] = set()
    for _ in range(_ROUNDS):
        moved = set() if fit is None else _blurred_views(data, fit)
        if moved <= left_out or len(views) - len(left_out | moved) < 3:
            break
        left_out |= moved
        fit = _fit(data, ~np.isin(data.view, list(left_out)))
    focal = float(np.sqrt(lens.fx * lens.fy))
    surface = _surface(fit) if fit is not None and _grows(fit) else None
    lacking = _lacking(data, fit)
    residual = np.full(len(data.view), np.nan) if fit is None or surface is None else fit.residual
    used = np.ones(len(data.view), np.bool_) if fit is None or surface is None else fit.used
    told = tuple(
        _sharpness(views[i], labels[i], data, int(rank[i]), residual, int(rank[i]) in left_out)
        for i in range(len(views))
    )
    number = np.asarray(order, np.float64)[data.view]
    evidence = np.column_stack(
        [
            np.where(used, number, -1 - number),
            *(np.concatenate([getattr(views[i], part) for i in order]) for part in ("pixels", "normals")),
            np.concatenate([views[i].points_mm for i in order]),
            np.exp(data.log50),
            data.sigma * np.exp(data.log50),
            residual,
        ]
    )
    warnings = [*lacking, *(f"{view.name}: {view.remark}" for view in told if view.remark)]
    quality = Quality(
        residual_rms=float(np.sqrt(np.mean((data.sigma if surface is None else residual)[used] ** 2))),
        unit="of log MTF50" if surface is not None else "of log MTF50 (noise)",
        observations=int(np.count_nonzero(used)),
        rejected=int(np.count_nonzero(~used)),
        verdict="doubtful" if lacking else "good",
        warnings=tuple(warnings),
    )
    return FocusModel(
        width=lens.width,
        height=lens.height,
        focal_px=focal,
        surface=surface,
        views=told,
        edges=evidence[np.argsort(number, kind="stable")],
        curves=_curves([views[i] for i in order], data, lens),
        quality=quality,
        provenance=provenance,
    )


def _refusals(views: Sequence[ViewEdges]) -> str:
    count: dict[str, int] = {}
    for view in views:
        for reason, times in view.refused.items():
            count[reason] = count.get(reason, 0) + times
    told = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{times} {reason}" for reason, times in told) or "the board has none"


def _data(views: Sequence[ViewEdges], lens: LensModel) -> _Data:
    points, pixels, normals, mtf50, sigma = (
        np.concatenate([getattr(view, part) for view in views])
        for part in ("points_mm", "pixels", "normals", "mtf50", "sigma")
    )
    z = points[:, 2]
    rays = points / z[:, None]
    # A step of the pupil of one unit moves the image by so many px across the edge, per unit of 1 / z.
    by_step = np.einsum("na,nab->nb", normals, lens.derivatives(rays).by_points[:, :, :2])
    from_centre = pixels - (lens.cx, lens.cy)
    radius = np.linalg.norm(from_centre, axis=1)
    along = np.sum(from_centre * normals, axis=1) / np.maximum(radius, 1e-9)
    half = 0.5 * float(np.hypot(lens.width, lens.height))
    return _Data(
        np.repeat(np.arange(len(views)), [len(view.mtf50) for view in views]),
        np.log(mtf50),
        sigma / mtf50,
        normals,
        rays[:, :2],
        1 / z,
        np.linalg.norm(by_step, axis=1),
        (radius / half) ** 2,
        along**2,
    )


def _model(p: Float, data: _Data) -> tuple[Float, Float]:
    """log of MTF50 (n,) and its derivatives (n, 8)."""
    x, y = data.xy.T
    surface = np.stack([np.ones_like(x), x, y, x * x + y * y], axis=-1)
    defocus = data.inverse - surface @ p[:4]
    scale = p[4] * data.gain
    growth = data.radial2[:, None] * np.stack([data.tangential, 1 - data.tangential], axis=-1)
    variance = np.maximum(p[5] + growth @ p[6:8], _LEAST_VARIANCE)
    predicted = predicted_mtf50(variance, np.abs(scale * defocus), data.normals)
    by_disc2 = predicted.by_disc2[:, None]
    columns = [
        by_disc2 * (-2 * scale**2 * defocus)[:, None] * surface,
        by_disc2 * (2 * p[4] * (data.gain * defocus) ** 2)[:, None],
        predicted.by_variance[:, None],
        predicted.by_variance[:, None] * growth,
    ]
    return np.log(predicted.mtf50), np.concatenate(columns, axis=1)


def _starts(data: _Data) -> list[Float]:
    """Parameters for the best few distances of the sharp plane, of many."""
    # Of a Gaussian MTF50 is sqrt(ln 2 / 2) / (pi sigma); the pixel's square has the variance 1/12.
    variance = np.log(2) / (2 * np.pi**2) * np.exp(-2 * data.log50) - 1 / 12
    weight = 1 / np.maximum(variance, 0.05)
    low, high = float(data.inverse.min()), float(data.inverse.max())
    more = max(high - low, 0.05 * high)
    found = []
    for q in np.linspace(max(low - more, 0.05 * low), high + more, 81):
        blur2 = (data.gain * (data.inverse - q)) ** 2 / 16
        design = np.stack([blur2, np.ones_like(blur2)], axis=-1) * weight[:, None]
        slope, floor = np.linalg.lstsq(design, variance * weight, rcond=None)[0]
        if slope <= 0:
            continue
        floor = max(floor, 0.02)
        miss = float(np.mean(np.abs(np.log(np.maximum(variance, 0.02) / (slope * blur2 + floor)))))
        found.append((miss, np.array([q, 0, 0, 0, np.sqrt(slope), floor, 0, 0])))
    found.sort(key=lambda entry: entry[0])
    return [p for _, p in found[:3]]


def _fit(data: _Data, allowed: NDArray[np.bool_] | None = None) -> _Fit | None:
    """None where no disc that grows with defocus is to be seen."""
    allowed = np.ones(len(data.view), np.bool_) if allowed is None else allowed
    if np.count_nonzero(allowed) < _LEAST_EDGES:
        return None
    ends = [_descended(p, data, allowed) for p in _starts(data.where(allowed))]
    if not ends:
        return None
    return min(ends, key=lambda end: end[0])[1]


def _descended(p: Float, data: _Data, allowed: NDArray[np.bool_]) -> tuple[float, _Fit]:
    used, extra = allowed.copy(), 0.05
    for _ in range(_ROUNDS):
        p, normal, residual = _least_squares(p, data, used, extra)
        extra = _scatter(residual[used], data.sigma[used])
        wild = np.abs(residual) > _OUTLIER * np.hypot(data.sigma, extra)
        following = allowed & ~wild
        if np.array_equal(following, used) or np.count_nonzero(following) < _LEAST_EDGES:
            break
        used = following
    p, normal, residual = _least_squares(p, data, used, extra)
    covariance = np.asarray(np.linalg.inv(normal), np.float64)
    spread = np.hypot(data.sigma, extra)
    covariance *= _shared(data.view[used], (residual / spread)[used])
    covariance[4, 4] += (_METHOD * p[4]) ** 2
    cost = float(np.mean(np.log(spread[allowed]) + 0.5 * np.minimum((residual / spread)[allowed] ** 2, 20.0)))
    p = p.copy()
    p[4] = abs(p[4])
    return cost, _Fit(p, covariance, residual, extra, used)


def _least_squares(
    p: Float, data: _Data, used: NDArray[np.bool_], extra: float
) -> tuple[Float, Float, Float]:
    """Levenberg and Marquardt: parameters, normal matrix and residuals of all edges."""
    weight = used / (data.sigma**2 + extra**2)
    q = float(data.inverse.mean())
    scale = np.array(
        [q, _PRIOR_TILT * q, _PRIOR_TILT * q, _PRIOR_BEND * q, 1, 1, _PRIOR_GROWTH, _PRIOR_GROWTH]
    )
    prior = np.array([0, 1, 1, 1, 0, 0, 1, 1]) / scale**2

    def state(p: Float) -> tuple[float, Float, Float]:
        value, jacobian = _model(p, data)
        residual = data.log50 - value
        return float(np.sum(weight * residual**2) + np.sum(prior * p**2)), residual, jacobian

    damping = 1e-3
    cost, residual, jacobian = state(p)
    normal = jacobian.T @ (weight[:, None] * jacobian) + np.diag(prior)
    for _ in range(_STEPS):
        gradient = jacobian.T @ (weight * residual) - prior * p
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9 / scale**2), gradient)
        trial = p + step
        trial_cost, trial_residual, trial_jacobian = state(trial)
        if trial_cost <= cost:
            gained = cost - trial_cost
            p, cost, residual, jacobian = trial, trial_cost, trial_residual, trial_jacobian
            normal = jacobian.T @ (weight[:, None] * jacobian) + np.diag(prior)
            damping = max(damping / 10, 1e-9)
            if gained <= 1e-9 * cost:
                break
        else:
            damping *= 10
            if damping > 1e8:
                break
    return p, normal, residual


def _scatter(residual: Float, sigma: Float) -> float:
    """What the residuals scatter beyond their sigmas, so that half of them lie within 0.6745 sigmas."""
    low, high = 0.0, float(np.max(np.abs(residual), initial=1e-3)) * 2
    for _ in range(40):
        middle = 0.5 * (low + high)
        if np.median(np.abs(residual) / np.hypot(sigma, middle)) > 0.6745:
            low = middle
        else:
            high = middle
    return max(0.5 * (low + high), 1e-4)


def _shared(view: NDArray[np.int64], residual: Float) -> float:
    """By how much variances grow as edges of one view err together; 1 where that may be chance."""
    count, total = np.bincount(view), np.bincount(view, residual)
    several = count >= _FEW
    if np.count_nonzero(several) < 3:
        return 1.0
    growth = float(np.mean(total[several] ** 2 / count[several]))
    return growth if growth > 1 + 4 * np.sqrt(2 / np.count_nonzero(several)) else 1.0


def _blurred_views(data: _Data, fit: _Fit) -> set[int]:
    """Views whose edges are less sharp than their place explains."""
    count = int(data.view.max()) + 1
    middle, error = np.full(count, np.nan), np.full(count, np.nan)
    for view in range(count):
        mine = fit.residual[data.view == view]
        if len(mine) >= _FEW:
            middle[view] = np.median(mine)
            error[view] = 1.4826 * np.median(np.abs(mine - middle[view])) / np.sqrt(len(mine)) + 1e-6
    seen = middle[np.isfinite(middle)]
    if len(seen) < 3:
        return set()
    usual = 1.4826 * float(np.median(np.abs(seen - np.median(seen))))
    limit = max(_MOVED, _MOVED_SIGMAS * usual)
    low = (middle < -limit) & (middle < -_MOVED_SIGMAS * error)
    return {int(view) for view in np.flatnonzero(low)}


def _surface(fit: _Fit) -> FocalSurface | None:
    p, sigma = fit.parameters, np.sqrt(np.diag(fit.covariance))
    q, bend, pupil, floor2 = p[[0, 3, 4, 5]]
    if not (q > 0 and pupil > 0 and np.isfinite(p).all()):
        return None
    tilt, tilt_sigma = _tilt_deg(fit)
    floor = float(np.sqrt(max(floor2, 0.0)))
    return FocalSurface(
        distance_mm=1 / q,
        distance_sigma_mm=sigma[0] / q**2,
        tilt_deg=tuple(tilt.tolist()),
        tilt_sigma_deg=tuple(tilt_sigma.tolist()),
        curvature_per_mm=2 * bend,
        curvature_sigma_per_mm=2 * sigma[3],
        pupil_mm=pupil,
        pupil_sigma_mm=sigma[4],
        floor_px=floor,
        floor_sigma_px=sigma[5] / (2 * max(floor, 0.1)),
        growth_px2=(float(p[6]), float(p[7])),
        covariance=fit.covariance,
    )


def _tilt_deg(fit: _Fit) -> tuple[Float, Float]:
    """Tilts of the sharp surface on the axis and their sigmas: (2,), (2,)."""
    q, a, b = fit.parameters[:3]
    by_tilt = np.array([[-a / q**2, 1 / q, 0], [-b / q**2, 0, 1 / q]]) / (
        1 + np.array([[a], [b]]) ** 2 / q**2
    )
    tilt_sigma = np.degrees(np.sqrt(np.diag(by_tilt @ fit.covariance[:3, :3] @ by_tilt.T)))
    return np.degrees(np.arctan([a / q, b / q])), tilt_sigma


def _grows(fit: _Fit) -> bool:
    """Whether the blur is seen to grow with defocus at all."""
    return bool(fit.parameters[4] > _WELL_KNOWN * np.sqrt(fit.covariance[4, 4]))


def _lacking(data: _Data, fit: _Fit | None) -> list[str]:
    """What the views do not tell."""
    near, far = 1 / float(data.inverse.max()), 1 / float(data.inverse.min())
    seen = f"the edges lie {near:.0f} to {far:.0f} mm away"
    advice = "move the board through focus, from clearly blurred in front of it to clearly blurred behind"
    if fit is None or not _grows(fit):
        return [f"no plane of focus: {seen} and do not show how sharpness changes with distance: {advice}"]
    q, sigma = fit.parameters[0], float(np.sqrt(fit.covariance[0, 0]))
    if q <= 0:
        return [f"no plane of focus: {seen}, all of them nearer than what is sharp: {advice}"]
    out = []
    if sigma / q > _FAR_OFF:
        out.append(f"the plane of focus is known to {100 * sigma / q:.0f} % only: {seen}: {advice}")
    elif not near <= 1 / q <= far:
        out.append(f"the plane of focus, {1 / q:.0f} mm, is extrapolated: {seen}: {advice}")
    if fit.extra > _MUCH_SCATTER:
        out.append(
            f"MTF50 scatters by {100 * fit.extra:.0f} % about the model: a board that moved, a ragged print, "
            "or pictures that were sharpened or compressed"
        )
    tilt = _tilt_deg(fit)[1]
    if tilt.max() > 10:
        out.append(f"the tilt is known to {tilt.max():.0f} deg only: show the board all over the picture")
    return out


def _sharpness(
    view: ViewEdges, name: str, data: _Data, number: int, residual: Float, moved: bool
) -> ViewSharpness:
    mine = data.view == number
    if not mine.any():
        why = max(
            view.refused, key=lambda reason: view.refused[reason], default="no edge between two corners"
        )
        return ViewSharpness(name=name, remark=f"nothing could be measured: {why}")
    mtf50, along = np.exp(data.log50[mine]), data.tangential[mine]
    expected = float(np.median(mtf50 * np.exp(-residual[mine])))
    blurred = view.refused.get("blurred as wide as the clear space beside it", 0)
    remark = ""
    if moved:
        remark = (
            f"less sharp (MTF50 {np.median(mtf50):.3f}) than its place explains ({expected:.3f}): moved "
            "during the exposure? left out"
        )
    elif blurred > len(mtf50):
        remark = f"{blurred} of {blurred + len(mtf50)} edges are too blurred to be measured"
    return ViewSharpness(
        name=name,
        near_mm=float(view.points_mm[:, 2].min()),
        far_mm=float(view.points_mm[:, 2].max()),
        mtf50=float(np.median(mtf50)),
        tangential=median_finite(mtf50[along > 0.75]),
        sagittal=median_finite(mtf50[along < 0.25]),
        expected=expected,
        edges=len(mtf50),
        remark=remark,
    )


def _curves(views: Sequence[ViewEdges], data: _Data, lens: LensModel) -> Float:
    """Frequencies, and the mean MTF of the sharpest quarter of the edges near the centre and the corners."""
    mtf = np.concatenate([view.mtf for view in views])
    half = np.sqrt(data.radial2)
    columns = [FREQUENCIES]
    for there in (half < _CENTRE, half > _CORNER):
        if not there.any():
            columns.append(np.full(len(FREQUENCIES), np.nan))
            continue
        limit = np.quantile(data.log50[there], 0.75)
        columns.append(mtf[there & (data.log50 >= limit)].mean(axis=0))
    return np.stack(columns, axis=-1)
