"""Fit of a colour model to the patches of a chart, in CIEDE2000."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.optimize import least_squares

from calibration.colour.difference import components, delta_e_2000
from calibration.colour.model import TERMS, ColourModel, Method, PatchResidual, expand
from calibration.colour.reference import CLASSIC_2014, Reference
from calibration.colour.spaces import ILLUMINANTS, adaptation, lab_to_xyz, rgb_to_xyz, xyz_to_lab
from calibration.geometry import Float
from calibration.provenance import FitError, Provenance, Quality
from calibration.targets.chart import GREYS, PATCHES, ChartView

_FEWEST: dict[str, int] = {"matrix": 12, "root-polynomial": 18}
_D65 = ILLUMINANTS["D65"]
# A power of light below the first is no stray light that a lens has.
_LEAST_POWER, _MOST_POWER = 0.75, 1.33
_STRAY, _UNEVEN = 0.01, 0.05
_POOR_DELTA_E = 4.0


class _Target(NamedTuple):
    """The colours to reach: linear Rec.709 and L*a*b* (n, 3), and the way from the first to the second."""

    rgb: Float
    lab: Float
    to_xyz: Float
    white: tuple[float, float]

    def look(self, rgb: Float) -> Float:
        return xyz_to_lab(rgb @ self.to_xyz.T, self.white)

    def without(self, number: int) -> "_Target":
        return self._replace(rgb=np.delete(self.rgb, number, 0), lab=np.delete(self.lab, number, 0))


class _Solution(NamedTuple):
    method: Method
    matrix: Float
    covariance: Float
    difference: Float
    left_out: Float
    noise: Float


def fit_colour(
    view: ChartView,
    reference: Reference = CLASSIC_2014,
    *,
    method: Literal["auto", "matrix", "root-polynomial"] = "auto",
    keep_white: bool = False,
    provenance: Provenance = Provenance(),  # noqa: B008 - frozen value
) -> ColourModel:
    """Colour model from the patches of one chart.

    Minimises the CIEDE2000 of all patches, each weighted by the noise of its mean beside the misfit that all
    share.

    Parameters
    ----------
    view : ChartView
        Linear patch means with sigma, of ``find_charts`` or ``read_chart``.
    reference : Reference
        What the patches are; their L*a*b* are adapted to D65.
    method : 'auto', 'matrix' or 'root-polynomial'
        auto: the matrix, unless the patches left out of the fit one by one come out better with the root
        polynomial by more than the standard error of the gain.
    keep_white : bool
        Neutral comes out neutral exactly; else the greys count as the other patches do.
    provenance : Provenance
        Recorded with the model; what the fit chose is added to its options.

    Returns
    -------
    ColourModel

    Raises
    ------
    FitError
        Too few patches (the clipped ones are named), no colours, or greys that do not follow light.

    Notes
    -----
    Assumes even light over the chart and no stray light: both are tested, and a warning names their size.
    """
    usable = np.isfinite(view.mean).all(axis=-1) & (view.mean.max(axis=-1) > 0)
    names = [f"{PATCHES[k]} ({why})" for k, why in sorted(view.faults.items())]
    least = _FEWEST["matrix" if method == "auto" else method]
    if usable.sum() < least:
        raise FitError(
            f"chart: {usable.sum()} of 24 patches can be used, a {method} fit needs {least}: "
            f"{', '.join(names) or 'the others are black'}"
        )
    grey = np.zeros(len(usable), np.bool_)
    grey[GREYS] = usable[GREYS] & (view.mean[GREYS] > 0).all(axis=-1)
    if grey.sum() < 3:
        raise FitError(f"chart: {grey.sum()} of its 6 greys can be used, want 3: {', '.join(names)}")
    target = _target(reference)
    stray = _check_greys(view.mean[grey, 1], target.rgb[grey, 1])
    level = _white(view, usable, grey, target.rgb)
    gains = level[1] / level
    colour = view.mean[usable] * gains / level[1]
    noise = view.sigma[usable] * gains / level[1]
    if np.ptp(np.log(np.maximum(colour, 1e-3)) @ np.array([[1, 0], [-1, 1], [0, -1]]), axis=0).max() < 0.05:
        raise FitError("chart: the three channels are the same: no colours in these frames")
    chosen = target._replace(rgb=target.rgb[usable], lab=target.lab[usable])
    solutions = [
        _solve(colour, noise, chosen, name, keep_white)
        for name in (("matrix", "root-polynomial") if method == "auto" else (method,))
        if usable.sum() >= _FEWEST[name]
    ]
    best = solutions[0]
    if len(solutions) == 2:
        gain = solutions[0].left_out - solutions[1].left_out
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            best = solutions[1]
    options = {f"cross_validated_{s.method}": round(float(s.left_out.mean()), 4) for s in solutions}
    warnings = _warnings(view, names, stray)
    mean = float(best.difference.mean())
    if mean > _POOR_DELTA_E:
        warnings.append(
            f"mean CIEDE2000 is {mean:.1f}: are the reference values those of this chart "
            "(edition, own CSV), and is its light even and of one kind?"
        )
    return ColourModel(
        method=best.method,
        white_balance=(float(gains[0]), 1.0, float(gains[2])),
        matrix=best.matrix,
        covariance=best.covariance,
        white_level=float(level[1]),
        illuminant=reference.illuminant,
        reference=reference.name,
        patches=_patches(view, usable, best, colour, chosen, reference),
        mean_delta_e=mean,
        max_delta_e=float(best.difference.max()),
        cross_validated_delta_e=float(best.left_out.mean()),
        stray_light=stray[0],
        unevenness=view.unevenness if np.isfinite(view.unevenness) else None,
        corners=view.corners,
        quality=Quality(
            residual_rms=float(np.sqrt(np.mean(best.difference**2))),
            unit="CIEDE2000",
            observations=3 * int(usable.sum()),
            rejected=3 * int((~usable).sum()),
            verdict="doubtful" if len(warnings) > bool(names) else "good",
            warnings=tuple(warnings),
        ),
        provenance=provenance.replace(options={**provenance.options, **options}),
    )


def _target(reference: Reference) -> _Target:
    xyz = lab_to_xyz(reference.lab, reference.illuminant)
    to_d65 = adaptation(reference.illuminant, _D65)
    rgb = xyz @ to_d65.T @ np.linalg.inv(rgb_to_xyz()).T
    to_xyz = np.linalg.solve(to_d65, rgb_to_xyz())
    lab: Float = np.asarray(reference.lab, np.float64)
    return _Target(rgb, lab, np.asarray(to_xyz, np.float64), reference.illuminant)


def _white(view: ChartView, usable: NDArray[np.bool_], grey: NDArray[np.bool_], known: Float) -> Float:
    """Camera colour (3,) of a perfect diffuser, from the greys."""
    mean, sigma, level = view.mean[grey], view.sigma[grey], known[grey, 1:2]
    # The greys have a little colour of their own; a first matrix tells well enough what it does.
    scale = 1 / (known[usable, 1:2] + 0.05)
    to_camera = np.linalg.lstsq(known[usable] * scale, view.mean[usable] * scale, rcond=None)[0]
    ratio = (mean - (known[grey] - level) @ to_camera) / level
    # They differ from each other by about 1 % whatever the noise.
    weight = 1 / ((sigma / level) ** 2 + (0.01 * ratio) ** 2)
    return np.asarray((weight * ratio).sum(axis=0) / weight.sum(axis=0))


def _check_greys(measured: Float, known: Float) -> tuple[float, float]:
    """Stray light as a share of the white's, and its sigma; FitError where the greys follow no light."""
    logs = np.column_stack([np.ones(len(known)), np.log(known)])
    power = np.linalg.lstsq(logs, np.log(measured), rcond=None)[0]
    power_rms = float(np.std(np.log(measured) - logs @ power))
    # Relative errors count: a straight line through the logarithms' weights.
    line = np.column_stack([np.ones(len(known)), known]) / measured[:, None]
    offset, slope = np.linalg.lstsq(line, np.ones(len(known)), rcond=None)[0]
    residual = 1 - line @ np.array([offset, slope])
    line_rms = float(np.std(residual))
    if not _LEAST_POWER < power[1] < _MOST_POWER and (power_rms < line_rms or slope <= 0):
        raise FitError(
            f"chart: its greys follow light to the power {power[1]:.2f}: the frames are not linear "
            "(gamma-encoded or tone-mapped?); give raw frames, or a response model with --sensor"
        )
    dof = max(len(known) - 2, 1)
    covariance = np.linalg.inv(line.T @ line) * float(residual @ residual) / dof
    return float(offset / slope), float(np.sqrt(covariance[0, 0]) / slope)


def _solve(colour: Float, noise: Float, target: _Target, method: Method, keep_white: bool) -> _Solution:
    columns = TERMS[method]
    basis = np.eye(3 * columns)
    if keep_white:  # every term of (1, 1, 1) is 1: equal sums of the rows
        sums = np.kron(np.eye(3), np.ones(columns))
        basis = null_space(sums[:2] - sums[1:])
    terms = expand(colour, method)
    scale = 1 / (target.rgb[:, 1] + 0.05)
    start = np.linalg.lstsq(terms * scale[:, None], target.rgb * scale[:, None], rcond=None)[0].T
    free = basis.T @ start.ravel()
    free = _minimise(free, basis, terms, target, np.ones(len(terms)))
    residual = components(target.lab, target.look(terms @ (basis @ free).reshape(3, -1).T))
    slopes = _noise_slopes(colour, (basis @ free).reshape(3, -1), target, method)
    spread = np.einsum("nij,nj,nkj->nik", slopes, noise**2, slopes)
    sigma2 = np.trace(spread, axis1=1, axis2=2) / 3
    # The misfit beyond the noise is the same for all patches; what is left of it weighs the noisy ones less.
    dof = max(3 * len(terms) - len(free), 1)
    misfit = max(float((residual**2).sum() / dof - sigma2.mean()), 0.0) + 1e-8
    weight = 1 / np.sqrt(misfit + sigma2)
    free = _minimise(free, basis, terms, target, weight)
    matrix = (basis @ free).reshape(3, -1)
    shown = target.look(terms @ matrix.T)
    left_out = np.empty(len(terms))
    for number in range(len(terms)):
        other = np.delete(terms, number, 0)
        part = _minimise(free, basis, other, target.without(number), np.delete(weight, number))
        guess = target.look(terms[number] @ (basis @ part).reshape(3, -1).T)
        left_out[number] = delta_e_2000(target.lab[number], guess)
    jacobian = _jacobian(free, basis, terms, target) * weight[:, None, None]
    inverse = np.linalg.pinv(np.einsum("nij,nik->jk", jacobian, jacobian))
    middle = spread + misfit * np.eye(3)
    middle = np.einsum("nij,nik,nkl->jl", jacobian, middle * weight[:, None, None] ** 2, jacobian)
    covariance = basis @ inverse @ middle @ inverse @ basis.T
    return _Solution(
        method, matrix, covariance, delta_e_2000(target.lab, shown), left_out, np.sqrt(3 * sigma2)
    )


def _minimise(start: Float, basis: Float, terms: Float, target: _Target, weight: Float) -> Float:
    def residual(free: Float) -> Float:
        matrix = (basis @ free).reshape(3, -1)
        return np.asarray((components(target.lab, target.look(terms @ matrix.T)) * weight[:, None]).ravel())

    def jacobian(free: Float) -> Float:
        return np.asarray(
            (_jacobian(free, basis, terms, target) * weight[:, None, None]).reshape(-1, len(free))
        )

    return np.asarray(least_squares(residual, start, jacobian, method="lm", max_nfev=60).x)


def _jacobian(free: Float, basis: Float, terms: Float, target: _Target) -> Float:
    """Slopes (n, 3, parameters) of the components of the differences."""
    matrix = (basis @ free).reshape(3, -1)
    by_rgb = _slopes_of_rgb(terms @ matrix.T, target)
    return np.asarray((by_rgb[..., None] * terms[:, None, None, :]).reshape(len(terms), 3, -1) @ basis)


def _slopes_of_rgb(rgb: Float, target: _Target) -> Float:
    """Slopes (n, 3, 3) of the components by linear Rec.709, by central differences."""
    step = 1e-6 * (np.abs(rgb).max(axis=-1) + 1e-3)
    shift = step[:, None] * np.eye(3)[:, None, :]
    high, low = components(target.lab, target.look(rgb + np.stack([shift, -shift])))
    return np.asarray(np.moveaxis((high - low) / (2 * step[:, None]), 0, -1))


def _noise_slopes(colour: Float, matrix: Float, target: _Target, method: Method) -> Float:
    """Slopes (n, 3, 3) of the components by the camera's balanced colours."""
    by_rgb = _slopes_of_rgb(expand(colour, method) @ matrix.T, target)
    step = 1e-5 * np.maximum(np.abs(colour).max(axis=-1, keepdims=True), 1e-6)
    by_colour = np.empty((len(colour), 3, 3))
    for channel in range(3):
        shift = np.zeros(3)
        shift[channel] = 1
        high, low = (expand(colour + sign * step * shift, method) @ matrix.T for sign in (1, -1))
        by_colour[..., channel] = (high - low) / (2 * step)
    return np.asarray(by_rgb @ by_colour)


def _warnings(view: ChartView, names: list[str], stray: tuple[float, float]) -> list[str]:
    out = []
    if names:
        out.append(f"patches left out: {', '.join(names)}")
    share, sigma = stray
    if abs(share) > _STRAY and abs(share) > 3 * sigma:
        out.append(
            f"the dark greys are {'too bright' if share > 0 else 'too dark'}, as if {share:.1%} of the "
            "white's light were added everywhere: stray light, a glossy reflection, or a wrong black level"
        )
    if view.unevenness > _UNEVEN and view.unevenness > 3 * view.unevenness_sigma:
        out.append(
            f"the light varies by {view.unevenness:.0%} over the chart: light it evenly, correct the lens by "
            "a sensor model with a flat map, or take `flat` frames of a white board in its place (--white)"
        )
    return out


def _patches(
    view: ChartView,
    usable: NDArray[np.bool_],
    best: _Solution,
    colour: Float,
    target: _Target,
    reference: Reference,
) -> tuple[PatchResidual, ...]:
    shown = target.look(expand(colour, best.method) @ best.matrix.T)
    rows = dict(zip(np.flatnonzero(usable).tolist(), range(len(colour)), strict=True))
    out = []
    for number, name in enumerate(PATCHES):
        known = tuple(float(value) for value in reference.lab[number])
        if number not in rows:
            out.append(PatchResidual(name=name, reference=known, fault=view.faults.get(number, "black")))
            continue
        row = rows[number]
        out.append(
            PatchResidual(
                name=name,
                reference=known,
                measured=tuple(float(value) for value in shown[row]),
                delta_e=float(best.difference[row]),
                left_out_delta_e=float(best.left_out[row]),
                sigma=float(best.noise[row]),
            )
        )
    return tuple(out)
