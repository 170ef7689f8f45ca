"""Lights from mirror spheres: directions of distant ones, positions of near ones, with covariance."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, tangent_basis
from calibration.lens import LensModel
from calibration.lights.afar import seen_from_afar
from calibration.lights.bundle import Mirror, OrthographicMirror, PerspectiveMirror, Solution, State, adjust
from calibration.lights.highlights import Highlights, locate_highlights
from calibration.lights.intensity import (
    EQUAL_INTENSITIES,
    GUESSED_INTENSITIES,
    UNEVEN_INTENSITIES,
    FluxIntensity,
    flux_intensity,
    mirror_gain,
)
from calibration.lights.mistaken import mistaken_pictures
from calibration.lights.model import DistantLight, LightModel, LightSet, NearLight
from calibration.provenance import FitError, Provenance, Quality
from calibration.targets.spheres import SphereView

_SUSPECT_PX = 0.25
_UNEVEN = 0.05
"""Scatter of one light's highlights between spheres that polished balls and enough light stay below."""

Observed = Sequence[NDArray[np.floating]] | Highlights


def fit_lights(
    names: Sequence[str],
    observed: Observed,
    spheres: Sequence[SphereView],
    lens: LensModel | None,
    *,
    sphere_radius_mm: float | None = None,
    model: Literal["auto", "near", "distant"] = "auto",
    size_px: tuple[int, int] | None = None,
    provenance: Provenance | None = None,
) -> LightSet:
    """Fit every light to its highlights in all spheres at once, the spheres' places refined with them.

    Parameters
    ----------
    names : sequence of str
        One a light, in the order of ``observed``.
    observed : images (h, w) of radiance, one a light, or Highlights
        In images NaN means saturated.
    spheres : sequence of SphereView
        Mirror spheres of one radius.
    lens : LensModel or None
        None: orthographic view, distant lights only.
    sphere_radius_mm : float or None
        Gives the scale; needed for near lights.
    model : 'auto', 'near' or 'distant'
        'auto' takes near lights when they explain the highlights better than chance (Bayesian information
        criterion); the reason is in ``provenance.note``.
    size_px : (width, height) or None
        Of the pictures, where ``observed`` are highlights. Without a lens it says how far off the axis the
        spheres are seen, which turns all directions and goes into their covariance.
    provenance : Provenance or None
        Session and options to record; a note is added.

    Returns
    -------
    LightSet
        Intensities are relative, from the highlights' flux (unit mean irradiance at the spheres' middle),
        for emission that is alike in all directions; ``intensity.fit_intensities`` replaces them by those
        from a white plane. Warnings name the highlights that were rejected and the spheres
        whose outline and highlights disagree.

    Raises
    ------
    FitError
        A light has too few highlights: none for a distant one, fewer than two for a near one.
    """
    if not spheres:
        raise FitError("no mirror sphere: lights need at least one, near lights two")
    if isinstance(observed, Highlights):
        highlights = observed
    else:
        highlights = locate_highlights(observed, spheres)
        size_px = (observed[0].shape[1], observed[0].shape[0])
    if len(names) != len(highlights.pixels):
        raise ValueError(f"{len(names)} names for {len(highlights.pixels)} lights")
    if highlights.pixels.shape[1] != len(spheres):
        raise ValueError(f"highlights of {highlights.pixels.shape[1]} spheres, but {len(spheres)} spheres")
    unseen = [
        name for name, sigma in zip(names, highlights.sigma_px, strict=True) if not np.isfinite(sigma).any()
    ]
    if unseen:
        others = f" (nor of {len(unseen) - 1} others)" if len(unseen) > 1 else ""
        balls = "the sphere" if len(spheres) == 1 else f"any of the {len(spheres)} spheres"
        raise FitError(
            f"light {unseen[0]}: no highlight in {balls}{others}; is it lit, is its exposure"
            " long enough, does it stand on the camera's side?"
        )
    can_be_near = lens is not None and sphere_radius_mm is not None and len(spheres) >= 2
    if model == "near" and not can_be_near:
        raise FitError(
            "near lights need a lens, the spheres' radius in mm and at least two spheres: here are "
            f"{'a' if lens is not None else 'no'} lens, "
            f"{'a' if sphere_radius_mm is not None else 'no'} radius and {len(spheres)}"
        )
    problem = _problem(spheres, lens, sphere_radius_mm)
    base = provenance or Provenance()
    if model == "auto" and can_be_near:
        solution, near, note = _chosen(problem, highlights)
    else:
        near = model == "near"
        solution = _solve(problem, highlights, near=near)
        note = (
            f"{'near' if near else 'distant'} lights: as asked"
            if model != "auto"
            else _only_distant(spheres, lens)
        )
    lights = _light_set(names, problem, highlights, solution, near, sphere_radius_mm, base, note)
    return lights if lens is not None else seen_from_afar(lights, spheres, size_px)


def _or_near(problem: "_Problem") -> str:
    lacks = [] if isinstance(problem.mirror, PerspectiveMirror) else ["a lens model"]
    lacks += [] if problem.metric else ["the spheres' diameter"]
    return f" If the lights are near, give {' and '.join(lacks)}" if lacks else ""


class _Problem(NamedTuple):
    mirror: Mirror
    spheres: Float
    covariance: Float
    views: Sequence[SphereView]
    origin: Float
    metric: bool
    """Whether the spheres' radius is known."""


def _only_distant(spheres: Sequence[SphereView], lens: LensModel | None) -> str:
    if lens is None:
        return "distant lights: without a lens no distance can be told"
    if len(spheres) < 2:
        return "distant lights: one sphere cannot tell a distance"
    return "distant lights: without the spheres' radius no distance can be told"


def _problem(spheres: Sequence[SphereView], lens: LensModel | None, radius_mm: float | None) -> _Problem:
    covariance = np.stack([s.covariance for s in spheres])
    if not np.isfinite(covariance).all():
        raise ValueError("a sphere without covariance: take it from detect_spheres, a mask or a circle")
    if lens is None:
        circles = np.array([[*s.centre_px, s.radius_px] for s in spheres])
        mirror = OrthographicMirror()
        return _Problem(mirror, circles, covariance, spheres, np.zeros(3), radius_mm is not None)
    cones = np.array([[*s.direction, s.angular_radius_rad] for s in spheres])
    seen = PerspectiveMirror(lens, radius_mm or 1.0)
    return _Problem(seen, cones, covariance, spheres, seen.centres(cones).mean(axis=0), radius_mm is not None)


def _chosen(problem: _Problem, highlights: Highlights) -> tuple[Solution, bool, str]:
    near = _solve(problem, highlights, near=True)
    n = len(highlights.pixels)
    seen = int((near.chosen >= 0).sum())
    if seen <= 1.5 * n:
        distant = _solve(problem, highlights, near=False)
        return (
            distant,
            False,
            "distant lights: too few highlights are shared between spheres to tell a distance",
        )
    distant = _solve(problem, highlights, near=False, scale=near.scale)
    # The distant model may drop highlights that contradict it: each counts as if at the rejection limit.
    dropped = max(seen - int((distant.chosen >= 0).sum()), 0)
    gain = distant.cost + dropped * 20.0 - near.cost
    price = n * float(np.log(2 * seen))
    words = f"chi-square falls by {gain:.0f} for {n} more unknowns, whose price is {price:.0f} (BIC)"
    if gain > price:
        return near, True, f"near lights: {words}"
    return _solve(problem, highlights, near=False), False, f"distant lights: {words}"


def _solve(problem: _Problem, h: Highlights, *, near: bool, scale: float | None = None) -> Solution:
    start = _start(problem, h, near)
    return adjust(problem.mirror, start, problem.covariance, h.pixels, h.sigma_px, near=near, scale=scale)


def _start(problem: _Problem, h: Highlights, near: bool) -> State:
    """For each light the hypothesis that most spheres agree with.

    Hypotheses are the mirrored ray of every candidate (a distant light) and, for near lights, the closest
    approach of the mirrored rays of every pair of candidates in two spheres.
    """
    n, s, k = h.sigma_px.shape
    points, rays = _mirrored(problem, h.pixels)
    limit = 0.06 * np.array([v.radius_px for v in problem.views]) + 1.0
    towards, inverse = np.zeros((n, 3)), np.zeros(n)
    first = [(j, c) for j in range(s) for c in range(k)]
    for i in range(n):
        options: list[tuple[Float, float]] = []
        for a, (j, c) in enumerate(first):
            if not np.isfinite(rays[i, j, c]).all():
                continue
            options.append((rays[i, j, c], 0.0))
            for j2, c2 in first[a + 1 :] if near else ():
                if j2 == j or not np.isfinite(rays[i, j2, c2]).all():
                    continue
                met = _closest(points[i, j, c], rays[i, j, c], points[i, j2, c2], rays[i, j2, c2])
                away = met - problem.origin
                options.append((normalize(away), 1 / float(np.linalg.norm(away))))
        directions, inverses = np.array([o[0] for o in options]), np.array([o[1] for o in options])
        trial = State(problem.spheres, directions, inverses, problem.origin)
        predicted = problem.mirror.predict(trial)[0]
        gap = np.linalg.norm(h.pixels[i][None] - predicted[:, :, None], axis=-1) / limit[None, :, None]
        # Among equals the stronger candidate is more likely the light.
        cost = np.where(np.isfinite(gap), np.minimum(gap, 1.0) ** 2 + 0.02 * np.arange(k), 1.5).min(axis=-1)
        best = int(np.argmin(cost.sum(axis=-1)))
        towards[i], inverse[i] = options[best]
    return State(problem.spheres, towards, inverse if near else np.zeros(n), problem.origin)


def _mirrored(problem: _Problem, pixels: Float) -> tuple[Float, Float]:
    """Points on the spheres and directions of the view rays mirrored there, (..., 3) each."""
    mirror, spheres = problem.mirror, problem.spheres
    if isinstance(mirror, PerspectiveMirror):
        centres = mirror.centres(spheres)[None, :, None]
        ray = mirror.lens.unproject(pixels)
        along = np.sum(ray * centres, axis=-1)
        with np.errstate(invalid="ignore"):
            depth = along - np.sqrt(along**2 - np.sum(centres**2, axis=-1) + mirror.radius_mm**2)
        points = ray * depth[..., None]
        normal = normalize(points - centres)
        return points, ray - 2 * np.sum(ray * normal, axis=-1, keepdims=True) * normal
    circle = spheres[None, :, None]
    flat = (pixels - circle[..., :2]) / circle[..., 2:]
    with np.errstate(invalid="ignore"):
        normal = np.concatenate([flat, -np.sqrt(1 - np.sum(flat**2, axis=-1, keepdims=True))], axis=-1)
    view = np.array([0.0, 0.0, 1.0])
    return normal, view - 2 * normal[..., 2:] * normal


def _closest(p: Float, u: Float, q: Float, v: Float) -> Float:
    """Point half-way between two lines where they pass each other."""
    cosine = float(u @ v)
    gap = q - p
    det = max(1 - cosine**2, 1e-12)
    a = (gap @ u - cosine * (gap @ v)) / det
    b = (cosine * (gap @ u) - gap @ v) / det
    # Behind the sphere there is no light: nearly parallel rays mean a far one.
    if a <= 0 or b <= 0:
        return np.asarray(p + 1e6 * normalize(u + v))
    return np.asarray((p + a * u + q + b * v) / 2)


def _light_set(
    names: Sequence[str],
    problem: _Problem,
    highlights: Highlights,
    solution: Solution,
    near: bool,
    radius_mm: float | None,
    provenance: Provenance,
    note: str,
) -> LightSet:
    state, used = solution.state, solution.chosen >= 0
    seen = np.asarray(np.isfinite(highlights.sigma_px).any(axis=-1))
    need = 2 if near else 1
    for name, kept, present in zip(names, used.sum(axis=1), seen.sum(axis=1), strict=True):
        if kept < need:
            raise FitError(
                f"light {name}: {kept} consistent highlights (of {present} seen),"
                f" want {need}; did the light move, or a reflection pass for it?"
            )
    flux = _flux(problem, highlights, solution, near)
    strength: list[dict[str, Any]] = [
        {"intensity": (float(v),), "intensity_sigma": (float(d),) if flux.known else None}
        for v, d in zip(flux.value, flux.sigma, strict=True)
    ]
    lights: dict[str, LightModel] = {}
    turn = tangent_basis(state.towards)
    for i, name in enumerate(names):
        if not near:
            lights[name] = DistantLight(
                direction=_vector(state.towards[i]),
                covariance=solution.light_covariance[i, :2, :2],
                **strength[i],
            )
            continue
        if not state.inverse[i] > 1e-7:
            raise FitError(f"light {name}: its highlights meet at infinity: fit it as distant")
        distance = 1 / state.inverse[i]
        by_step = np.stack(
            [turn[i, 0] * distance, turn[i, 1] * distance, -state.towards[i] * distance**2], axis=-1
        )
        lights[name] = NearLight(
            position_mm=_vector(state.origin + state.towards[i] * distance),
            covariance=by_step @ solution.light_covariance[i] @ by_step.T,
            axis=_vector(-state.towards[i]),
            **strength[i],
        )
    metric = isinstance(problem.mirror, PerspectiveMirror) and radius_mm is not None
    centres = problem.mirror.centres(state.spheres) if isinstance(problem.mirror, PerspectiveMirror) else None
    return LightSet(
        lights=lights,
        sphere_centres_mm=centres if metric else None,
        sphere_radius_mm=radius_mm,
        scene_depth_mm=float(centres[:, 2].mean()) if metric and centres is not None else None,
        quality=_quality(names, problem, highlights, solution, seen, flux),
        provenance=provenance.replace(
            note="; ".join(t for t in (provenance.note, note) if t),
            options={**provenance.options, "intensity": "highlights" if flux.known else "equal"},
        ),
    )


def _flux(problem: _Problem, highlights: Highlights, solution: Solution, near: bool) -> FluxIntensity:
    """Intensities from the unsaturated ones of the highlights that the fit used."""
    chosen = solution.chosen
    pick = np.arange(chosen.shape[0])[:, None], np.arange(chosen.shape[1])[None], np.maximum(chosen, 0)
    usable = (chosen >= 0) & ~highlights.saturated[pick]
    flux = np.where(usable, highlights.flux[pick], np.nan)
    state, mirror = solution.state, problem.mirror
    gain, irradiance = np.ones(chosen.shape), np.ones(len(chosen))
    if isinstance(mirror, PerspectiveMirror):
        place = state.towards + state.inverse[:, None] * state.origin
        light = np.concatenate([place, state.inverse[:, None]], axis=-1)
        if near:
            light = light / np.maximum(state.inverse, 1e-12)[:, None]
            irradiance = state.inverse**2
        gain = mirror_gain(mirror.centres(state.spheres)[None], mirror.radius_mm, light[:, None], mirror.lens)
    return flux_intensity(flux, highlights.flux_sigma[pick], gain, irradiance)


def _vector(values: Float) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _quality(
    names: Sequence[str],
    problem: _Problem,
    highlights: Highlights,
    solution: Solution,
    seen: NDArray[np.bool_],
    flux: FluxIntensity,
) -> Quality:
    used = solution.chosen >= 0
    size = np.linalg.norm(solution.residual, axis=-1)
    warnings = []
    blind = [name for name, unknown in zip(names, flux.guessed, strict=True) if unknown]
    if blind:
        which = ", ".join(blind[:6]) + (f" and {len(blind) - 6} more" if len(blind) > 6 else "")
        reason = GUESSED_INTENSITIES if flux.known else EQUAL_INTENSITIES
        warnings.append(f"{reason}; saturated in every sphere: {which}")
    if flux.scatter > _UNEVEN:
        warnings.append(
            f"{UNEVEN_INTENSITIES} by {100 * flux.scatter:.0f} %: intensities are no better than that; clean"
            " balls, enough light, or a white plane make them so"
        )
    # One highlight a light fixes a direction exactly: nothing is left over.
    spare = int(used.sum(axis=1).max(initial=0)) > 1
    rms = float(np.sqrt(np.mean(solution.residual[used] ** 2))) if spare else float("nan")
    # Many times what the highlights' own noise explains, and too much for lights: something else is wrong.
    if rms > _SUSPECT_PX and solution.scale > 5:
        warnings.append(
            f"the highlights of a light in different spheres disagree by {rms:.1f} px: are the outlines those"
            f" of the spheres (and not of a reflection in them), and all radii alike?{_or_near(problem)}"
        )
    radii = [view.radius_px for view in problem.views]
    warnings += mistaken_pictures(names, radii, highlights, solution, problem.mirror)
    for name, kept, present in zip(names, used.sum(axis=1), seen.sum(axis=1), strict=True):
        if present > 2 and 2 * kept <= present:
            warnings.append(f"light {name}: only {kept} of its {present} highlights agree: take it again")
    for i, j in np.argwhere(seen & ~used):
        off = f"{size[i, j]:.1f} px off" if np.isfinite(size[i, j]) else "where none can be"
        warnings.append(f"light {names[i]}: highlight in sphere {j} rejected, {off}")
    for j, moved in enumerate(solution.outline_chi2):
        # 3 degrees of freedom: exceeded once in 1e4.
        if moved > 21.1:
            at = problem.views[j].centre_px
            warnings.append(
                f"sphere {j} at ({at[0]:.0f}, {at[1]:.0f}) px: its highlights disagree with its outline"
                f" (chi-square {moved:.0f} for 3)"
            )
    for j in range(seen.shape[1]):
        if seen[:, j].any() and used[:, j].sum() < 0.5 * seen[:, j].sum():
            warnings.append(f"sphere {j}: most of its highlights were rejected; is it a mirror sphere?")
    return Quality(
        residual_rms=rms,
        unit="px",
        observations=2 * int(used.sum()),
        rejected=2 * int((seen & ~used).sum()),
        verdict="doubtful" if warnings else "good",
        warnings=tuple(warnings),
    )
