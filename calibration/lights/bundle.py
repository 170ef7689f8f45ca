"""Bundle adjustment of lights and mirror spheres in image space."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import (
    Float,
    normalize,
    reflection,
    reflection_jacobian,
    sphere_centre,
    tangent_basis,
)
from calibration.lens import LensModel

Mask = NDArray[np.bool_]


class State(NamedTuple):
    """Unknowns. Light i is at origin + towards[i] / inverse[i]; a distant light has inverse 0."""

    spheres: Float
    """(s, 4): direction and angular radius; without a lens (s, 3): centre and radius in px."""
    towards: Float
    """(n, 3) unit vectors."""
    inverse: Float
    """(n,) 1 / mm."""
    origin: Float
    """(3,) mm."""


class Mirror(Protocol):
    """Where a camera sees lights in spheres, and how that moves."""

    def moved(self, spheres: Float, step: Float) -> Float:
        """Spheres changed by a step (s, 3)."""

    def away(self, spheres: Float, outline: Float) -> Float:
        """The step (s, 3) that leads from ``outline`` to ``spheres``."""

    def predict(self, state: State) -> tuple[Float, Float, Float]:
        """Pixels (n, s, 2); their derivative by the sphere (n, s, 2, 3); by the light (n, s, 2, 3)."""


class PerspectiveMirror(NamedTuple):
    """Spheres of one radius seen through a lens. Sphere steps: two tangent angles and the angular radius."""

    lens: LensModel
    radius_mm: float

    def moved(self, spheres: Float, step: Float) -> Float:
        """Spheres turned and resized."""
        basis = tangent_basis(spheres[:, :3])
        turned = normalize(spheres[:, :3] + np.einsum("sk,skd->sd", step[:, :2], basis))
        return np.concatenate([turned, spheres[:, 3:] + step[:, 2:]], axis=-1)

    def away(self, spheres: Float, outline: Float) -> Float:
        """Small rotation and growth."""
        turned = np.einsum("skd,sd->sk", tangent_basis(outline[:, :3]), spheres[:, :3])
        return np.concatenate([turned, spheres[:, 3:] - outline[:, 3:]], axis=-1)

    def centres(self, spheres: Float) -> Float:
        """(s, 3) mm."""
        return sphere_centre(spheres[:, :3], spheres[:, 3], self.radius_mm)

    def predict(self, state: State) -> tuple[Float, Float, Float]:
        """Exact reflection and projection."""
        centres = self.centres(state.spheres)
        lights = np.concatenate(
            [state.towards + state.inverse[:, None] * state.origin, state.inverse[:, None]], axis=-1
        )
        light = lights[:, None, :]
        normal = reflection(centres[None], self.radius_mm, light)
        by_centre, by_light = reflection_jacobian(centres[None], self.radius_mm, light, normal)
        points = centres + self.radius_mm * normal
        pixels, image = _projection(self.lens, points)
        distance = np.linalg.norm(centres, axis=-1)
        basis = tangent_basis(state.spheres[:, :3])
        deeper = -distance / np.tan(state.spheres[:, 3])
        of_sphere = np.concatenate(
            [basis * distance[:, None, None], (deeper[:, None] * state.spheres[:, :3])[:, None]], axis=1
        )
        turn = np.swapaxes(tangent_basis(state.towards), -1, -2)
        of_light = np.zeros((len(lights), 4, 3))
        of_light[:, :3, :2] = turn
        of_light[:, :3, 2] = state.origin
        of_light[:, 3, 2] = 1.0
        by_sphere = image @ by_centre @ np.swapaxes(of_sphere, -1, -2)[None]
        return pixels, by_sphere, image @ by_light @ of_light[:, None]


class OrthographicMirror(NamedTuple):
    """Spheres seen along +z without perspective; distant lights only. Steps: centre x, y, radius, px."""

    def moved(self, spheres: Float, step: Float) -> Float:
        """Circles moved and resized."""
        return np.asarray(spheres + step)

    def away(self, spheres: Float, outline: Float) -> Float:
        """Shift and growth."""
        return np.asarray(spheres - outline)

    def predict(self, state: State) -> tuple[Float, Float, Float]:
        """The normal half-way between light and view, times the radius."""
        half = state.towards + np.array([0.0, 0.0, -1.0])
        length = np.linalg.norm(half, axis=-1)[:, None]
        normal = half / length
        turn = np.swapaxes(tangent_basis(state.towards), -1, -2)
        bend = (np.eye(3) - normal[:, :, None] * normal[:, None, :]) / length[..., None] @ turn
        n, s = len(state.towards), len(state.spheres)
        radius = state.spheres[:, 2]
        pixels = state.spheres[:, :2] + radius[:, None] * normal[:, None, :2]
        by_sphere = np.zeros((n, s, 2, 3))
        by_sphere[..., 0, 0] = by_sphere[..., 1, 1] = 1.0
        by_sphere[..., :, 2] = normal[:, None, :2]
        by_light = np.zeros((n, s, 2, 3))
        by_light[..., :2] = radius[:, None, None] * bend[:, None, :2, :]
        return pixels, by_sphere, by_light


def _projection(lens: LensModel, points: Float) -> tuple[Float, Float]:
    """Pixels and their derivative by the point, central differences (exact to 1e-9)."""
    pixels = lens.project(points)
    h = 1e-5 * np.linalg.norm(points, axis=-1)
    columns = []
    for k in range(3):
        step = h[..., None] * np.eye(3)[k]
        columns.append((lens.project(points + step) - lens.project(points - step)) / (2 * h[..., None]))
    return pixels, np.stack(columns, axis=-1)


class Solution(NamedTuple):
    """Result of ``adjust``."""

    state: State
    chosen: NDArray[np.int_]
    """(n, s) candidate used for each light and sphere, -1 where none is."""
    residual: Float
    """(n, s, 2) px, of the nearest candidate; NaN where there is none."""
    cost: float
    """Chi-square of highlights and outlines."""
    scale: float
    """Factor on the stated highlight sigmas that the residuals ask for."""
    light_covariance: Float
    """(n, 3, 3) of (two tangent angles, inverse distance); zero in the third for distant lights."""
    sphere_covariance: Float
    """(s, 3, 3) in the steps of the mirror."""
    outline_chi2: Float
    """(s,) how far each sphere moved against its outline's covariance, 3 degrees of freedom."""


class _Problem(NamedTuple):
    mirror: Mirror
    outline: Float
    prior: Float
    """(3 s, 3 s) inverse covariance of all outlines together."""
    pixels: Float
    sigma_px: Float
    width: int


class _Terms(NamedTuple):
    cost: float
    hessian: Float
    gradient: Float
    residual: Float
    norm: Float
    """(n, s) length of the residual over its sigma; its square has 2 degrees of freedom."""
    chosen: NDArray[np.int_]
    outline_chi2: Float
    outlines: float
    """Chi-square of all outlines together."""


_REJECT = 4.5
"""Highlights further than this many sigma are dropped: of 1e5 good ones four would be."""
_HARMLESS_PX = 0.02
"""Nearer, a highlight is no false one, however small the noise: the model of its shape errs by as much."""


def adjust(
    mirror: Mirror,
    start: State,
    outline_covariance: Float,
    pixels: Float,
    sigma_px: Float,
    *,
    near: bool,
    scale: float | None = None,
) -> Solution:
    """Least squares over lights and spheres: bad highlights are outvoted robustly, then rejected.

    Parameters
    ----------
    mirror : Mirror
        How the camera sees lights in the spheres.
    start : State
        Its spheres are the outlines' and serve as prior; its lights need to be right to some 5 % of a
        sphere's radius in most spheres.
    outline_covariance : ndarray, (s, 3, 3)
        Of the spheres, in the mirror's steps.
    pixels, sigma_px : ndarray, (n, s, k, 2) and (n, s, k)
        Highlight candidates; NaN where there is none.
    near : bool
        Whether the lights' inverse distances are free.
    scale : float or None
        Factor on ``sigma_px``; None estimates it from the residuals where they are enough.

    Returns
    -------
    Solution
    """
    width = 3 if near else 2
    problem = _Problem(
        mirror,
        start.spheres,
        _joint(outline_covariance),
        pixels,
        sigma_px,
        width,
    )
    factor = 1.0 if scale is None else scale
    used: Mask = np.asarray(np.isfinite(sigma_px).any(axis=-1))
    state = start
    for loss in (100.0, 30.0, 10.0, 5.0):
        state, terms = _descend(problem, state, factor, used, loss)
    if scale is None:
        known = terms.norm[np.isfinite(terms.norm)]
        freedom = 2 * len(known) - width * len(pixels)
        if freedom > 0:
            # 1.177 is the median length of a 2-D normal deviate; the fit has eaten some of the residuals.
            eaten = float(np.sqrt(2 * len(known) / freedom))
            factor *= max(float(np.median(known)) / 1.177 * eaten, 1e-3 if freedom > 10 else 1.0)
    for _ in range(6):
        before = used
        measured = _evaluate(problem, state, factor, used, 0.0)
        with np.errstate(invalid="ignore"):
            near_enough = np.linalg.norm(measured.residual, axis=-1) < _HARMLESS_PX
            used = np.asarray((measured.norm < _REJECT) | near_enough)
        state, terms = _descend(problem, state, factor, used, 0.0)
        freedom = 2 * int(used.sum()) - width * int(used.any(axis=1).sum())
        change = 1.0
        if scale is None and freedom > 0:
            change = float(np.sqrt(terms.cost / freedom))
            # A handful of residuals cannot prove that the stated noise is too large.
            change = max(change, 1.0 / factor) if freedom < 10 else max(change, 1e-3)
            factor *= change
        if np.array_equal(used, before) and abs(change - 1) < 1e-3:
            break
    for _ in range(4):
        terms = _evaluate(problem, state, factor, used, 0.0)
        lights, spheres = _covariances(problem, terms, used.shape)
        share = _outline_share(problem, terms, spheres)
        if share > 0.8:
            break
        problem = problem._replace(prior=problem.prior / share)
        state, _ = _descend(problem, state, factor, used, 0.0)
    terms = _evaluate(problem, state, factor, used, 0.0)
    lights, spheres = _covariances(problem, terms, used.shape)
    chosen = np.where(used, terms.chosen, -1)
    own = np.einsum("sisj->sij", spheres.reshape(len(state.spheres), 3, -1, 3))
    return Solution(state, chosen, terms.residual, terms.cost, factor, lights, own, terms.outline_chi2)


_COMMON = 0.8
"""Correlation of the radii's errors: balls of one kind on one ground come out too small alike (path-traced
mirrors and black gloss on tables: 0.09 +- 0.01, 0.18 +- 0.04, 0.3 +- 0.1 px)."""


_BETTER = 0.5
"""Sigma of a radius over the median of all, below which no outline is believed: it is not so much better than
those of the other balls (path-traced: 0.04 px stated beside 0.3, and 0.4 px off like those)."""


def _joint(covariance: Float) -> Float:
    """Inverse covariance of all outlines, (3 s, 3 s), from that of each."""
    s = len(covariance)
    least = _BETTER * float(np.median(np.sqrt(covariance[:, 2, 2])))
    wider = np.maximum(least / np.sqrt(covariance[:, 2, 2]), 1.0)
    covariance = covariance * wider[:, None, None] ** 2
    whole = np.zeros((s, 3, s, 3))
    sigma = np.sqrt(covariance[:, 2, 2])
    whole[:, 2, :, 2] = _COMMON * np.outer(sigma, sigma)
    for j in range(s):
        whole[j, :, j] = covariance[j]
    return np.asarray(np.linalg.inv(whole.reshape(3 * s, 3 * s)), np.float64)


def _covariances(problem: _Problem, terms: _Terms, shape: tuple[int, ...]) -> tuple[Float, Float]:
    """Of lights (n, 3, 3) and of all spheres together (3 s, 3 s)."""
    diagonal = np.diag(terms.hessian)
    unit = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    # The ridge keeps a light without highlights from stopping the others; whoever reads it must drop it.
    covariance = np.linalg.inv(terms.hessian * np.outer(unit, unit) + 1e-13 * np.eye(len(unit)))
    covariance = covariance * np.outer(unit, unit)
    n, width = shape[0], problem.width
    lights = np.zeros((n, 3, 3))
    for i in range(n):
        at = slice(i * width, (i + 1) * width)
        lights[i, :width, :width] = covariance[at, at]
    return lights, covariance[n * width :, n * width :]


def _outline_share(problem: _Problem, terms: _Terms, spheres: Float) -> float:
    """By how much the outlines' covariance is too large, where the highlights prove it; 1 where they do not.

    One picture's outlines are stated with what their model may miss, and often it misses less. As many of
    their numbers as the highlights determine (MacKay, doi:10.1162/neco.1992.4.3.415) scatter with the true
    covariance; one sigma of what these few numbers tell is added.
    """
    known = len(spheres) - float(np.sum(problem.prior * spheres))
    if known < 4:
        return 1.0
    found = terms.outlines / known
    return (
        float(np.clip(found * (1 + np.sqrt(2 / known)), 0.02, 1.0))
        if found < 1 - 2 * np.sqrt(2 / known)
        else 1.0
    )


def _descend(problem: _Problem, start: State, factor: float, used: Mask, loss: float) -> tuple[State, _Terms]:
    """Levenberg-Marquardt to a minimum."""
    state, terms = start, _evaluate(problem, start, factor, used, loss)
    damping = 1e-6
    for _ in range(60):
        diagonal = np.diag(terms.hessian)
        lift = np.maximum(diagonal, 1e-12 * diagonal.max()) * damping
        # Scaled to a unit diagonal: angles and inverse lengths differ by orders of magnitude.
        unit = 1 / np.sqrt(diagonal + lift + 1e-300)
        system = (terms.hessian + np.diag(lift)) * np.outer(unit, unit)
        step = unit * np.linalg.solve(system + 1e-14 * np.eye(len(unit)), unit * terms.gradient)
        trial = _stepped(problem, state, step)
        there = _evaluate(problem, trial, factor, used, loss)
        if there.cost <= terms.cost:
            done = terms.cost - there.cost < 1e-10 * (1 + terms.cost)
            state, terms, damping = trial, there, max(damping / 10, 1e-12)
            if done:
                break
        else:
            damping = max(damping * 10, 1e-9)
            if damping > 1e6:
                break
    return state, terms


def _stepped(problem: _Problem, state: State, step: Float) -> State:
    n, width = len(state.towards), problem.width
    light = step[: n * width].reshape(n, width)
    towards = normalize(state.towards + np.einsum("nk,nkd->nd", light[:, :2], tangent_basis(state.towards)))
    inverse = state.inverse
    if width == 3:
        inverse = np.maximum(inverse + light[:, 2], 0.0)
    spheres = problem.mirror.moved(state.spheres, step[n * width :].reshape(-1, 3))
    return State(spheres, towards, inverse, state.origin)


def _evaluate(problem: _Problem, state: State, factor: float, used: Mask, loss: float) -> _Terms:
    """Cost, normal equations and residuals; Geman-McClure loss at ``loss`` sigma, 0 for none."""
    width = problem.width
    predicted, by_sphere, by_light = problem.mirror.predict(state)
    n, s = predicted.shape[:2]
    gap = np.linalg.norm(problem.pixels - predicted[:, :, None], axis=-1)
    gap = np.where(np.isfinite(gap), gap, np.inf)
    chosen = gap.argmin(axis=-1)
    pick = np.arange(n)[:, None], np.arange(s)[None], chosen
    found = np.isfinite(gap[pick])
    residual = np.where(found[..., None], problem.pixels[pick] - predicted, np.nan)
    sigma = problem.sigma_px[pick] * factor
    norm = np.linalg.norm(residual, axis=-1) / sigma
    square = np.where(found & used, norm, 0.0) ** 2
    weight = np.where(found & used, 1 / np.where(found, sigma, 1.0) ** 2, 0.0)
    lost = 0.0
    if loss:
        weight = weight / (1 + square / loss**2) ** 2
        square = square / (1 + square / loss**2)
        lost = loss**2 * float((used & ~found).sum())

    moved = problem.mirror.away(state.spheres, problem.outline)
    pulled = (problem.prior @ moved.ravel()).reshape(s, 3)
    outlines = float(np.sum(moved * pulled))
    # Each against what the other spheres' outlines let expect of it.
    blocks = np.einsum("sisj->sij", problem.prior.reshape(s, 3, s, 3))
    outline_chi2 = np.sum(pulled * np.linalg.solve(blocks, pulled[..., None])[..., 0], axis=-1)
    size = n * width + 3 * s
    hessian, gradient = np.zeros((size, size)), np.zeros(size)
    live = weight > 0
    jl = np.where(live[..., None, None], by_light[..., :width], 0.0)
    js = np.where(live[..., None, None], by_sphere, 0.0)
    r = np.where(live[..., None], residual, 0.0)
    ll = np.einsum("ns,nsdi,nsdj->nij", weight, jl, jl)
    ss = np.einsum("ns,nsdi,nsdj->sij", weight, js, js)
    ls = np.einsum("ns,nsdi,nsdj->nisj", weight, jl, js)
    head = n * width
    for i in range(n):
        hessian[i * width : (i + 1) * width, i * width : (i + 1) * width] = ll[i]
    for j in range(s):
        at = slice(head + 3 * j, head + 3 * j + 3)
        hessian[at, at] = ss[j]
    hessian[head:, head:] += problem.prior
    cross = ls.reshape(head, 3 * s)
    hessian[:head, head:], hessian[head:, :head] = cross, cross.T
    gradient[:head] = np.einsum("ns,nsdi,nsd->ni", weight, jl, r).ravel()
    gradient[head:] = (np.einsum("ns,nsdi,nsd->si", weight, js, r) - pulled).ravel()
    cost = float(square.sum()) + outlines + lost
    return _Terms(cost, hessian, gradient, residual, norm, chosen, outline_chi2, outlines)
