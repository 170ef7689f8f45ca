"""One light fitted to the shading of matte spheres: where it is, and what else reaches the samples."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, tangent_basis
from calibration.lights.exchange import Exchange
from calibration.lights.samples import MatteSamples, SphereSamples
from calibration.provenance import FitError

_UNEVEN = 0.01
"""Relative error of a good matte paint: samples are not better than this."""
_SURROUNDINGS = 0.05
"""Light sent back by what is behind the spheres, against the lamp's: one sigma."""
_LOBE = 0.1
"""Brightness of the spheres against each other: one sigma of what lobes and paints make of it."""
GRAZING = 0.12
"""Share of the full light below which a lamp's own size and a paint's roughness show."""

_FLAT = 0.7
"""Of the brightest places, the darkest: even a lamp at the camera leaves less than half at a ball's rim."""


class Scene(NamedTuple):
    """The spheres, and what they send each other: the albedo that this speaks of, with its sigma."""

    samples: SphereSamples
    exchange: Exchange | None
    albedo: float
    albedo_sigma: float


class Shown(NamedTuple):
    """One light on the spheres: radiance over albedo (m, c), its sigma, which samples there are."""

    name: str
    value: Float
    sigma: Float
    there: NDArray[np.bool_]


class Lobe(NamedTuple):
    """How a near light shines: its axis and its Lambertian order."""

    axis: Float
    order: float
    covariance: Float
    """(3, 3), of two turns of the axis and of the order."""


class Place(NamedTuple):
    """A fitted light; it is distant where it has no lobe."""

    place: Float
    lobe: Lobe | None
    shade: Float
    trust: Float
    others: Float
    albedo: float
    level: Float
    level_sigma: Float
    covariance: Float
    cost: float
    scale: float
    seen: int
    patches: int
    scatter: float
    dark: tuple[int, ...]


def shown_of(name: str, matte: MatteSamples, number: int) -> Shown:
    """The samples under one of the lights.

    Raises
    ------
    FitError
        Fewer than 20 of them are lit and not saturated, or all are about as bright.
    """
    value = np.asarray(matte.radiance[number], np.float64) / matte.reflectance
    noise = np.asarray(matte.sigma[number], np.float64) / matte.reflectance
    if value.ndim == 1:
        value, noise = value[:, None], noise[:, None]
    there = np.asarray(np.isfinite(value).all(axis=1) & np.isfinite(noise).all(axis=1))
    top = np.percentile(value[there], 98, axis=0) if there.any() else np.zeros(value.shape[1])
    lit = there & (value > 0.3 * top).all(axis=1) & (value > 5 * noise).all(axis=1)
    if lit.sum() < 20:
        why = "is it lit?" if there.sum() > 0.5 * len(there) else "are they saturated?"
        raise FitError(f"light {name}: {int(lit.sum())} usable places on the matte spheres, want 20; {why}")
    least = float((np.percentile(value[there], 2, axis=0) / top).min())
    if least > _FLAT:
        raise FitError(
            f"light {name}: no shading on the matte spheres, whose darkest places are {100 * least:.0f} % as "
            "bright as their brightest: did it burn, is the black level right?"
        )
    value, noise = np.where(there[:, None], value, 0.0), np.where(there[:, None], noise, 1.0)
    # Of a place in shadow the error is a share of the full light: it comes by way of other things.
    return Shown(name, value, np.hypot(noise, _UNEVEN * np.maximum(value, 0.3 * top)), there)


def _shading(place: Float, lobe: Lobe | None, points: Float, normals: Float) -> Float:
    """Irradiance (m,) of a light of unit intensity."""
    if lobe is None:
        return np.asarray(np.clip(normals @ place, 0, None))
    to = place - points
    distance = np.linalg.norm(to, axis=-1)
    forward = np.clip(-(to @ lobe.axis) / distance, 0.05, None) ** lobe.order
    return np.asarray(np.clip(np.sum(normals * to, axis=-1), 0, None) / distance**3 * forward)


def brightest(light: Shown, samples: SphereSamples) -> Float:
    """Direction (3,) of a distant light by least squares over the brighter samples: where a fit starts."""
    bright = light.value.mean(axis=1)
    lit = light.there & (bright > 0.4 * np.percentile(bright[light.there], 98))
    return normalize(np.linalg.lstsq(samples.matte.normals[lit], bright[lit], rcond=None)[0])


def closest(light: Shown, scene: Scene, far: Place) -> Place:
    """The near light that starts along the distant one's direction."""
    middle, size = _extent(scene.samples)
    # Without knowledge a lamp is a Lambertian one that points here.
    return fit_place(light, scene, middle + 4 * size * far.place, Lobe(-far.place, 1.0, np.zeros((3, 3))))


def _extent(samples: SphereSamples) -> tuple[Float, float]:
    """Middle of the samples, and how far they reach from it."""
    middle = samples.matte.points_mm.mean(axis=0)
    return middle, float(np.linalg.norm(samples.matte.points_mm - middle, axis=1).max())


def _stepped(place: Float, step: Float, middle: Float, size: float) -> Float:
    """A position moved in angle and inverse distance, in which shading is nearly linear."""
    away = place - middle
    distance = float(np.linalg.norm(away))
    towards = away / distance
    outwards = float(step @ towards)
    sideways = (step - outwards * towards) / distance
    sideways *= min(1.0, 0.3 / max(float(np.linalg.norm(sideways)), 1e-12))
    inverse = float(np.clip(1 / distance - outwards / distance**2, 1e-4 / size, 0.8 / size))
    return np.asarray(middle + normalize(towards + sideways) / inverse)


def fit_place(light: Shown, scene: Scene, start: Float, lobe: Lobe | None) -> Place:
    """Gauss-Newton on the place; intensity and surroundings are linear and eliminated at each step.

    Parameters
    ----------
    light : Shown
    scene : Scene
    start : ndarray (3,)
        Direction of a distant light, position (mm) of a near one.
    lobe : Lobe or None
        Of a near light; None: it is distant.

    Raises
    ------
    FitError
        The shading follows no light.
    """
    samples = scene.samples
    place, loss = start, 0.3 / _UNEVEN
    width = 2 if lobe is None else 3
    middle, size = _extent(samples)
    for number in range(40):
        system = _linear(light, scene, place, lobe, loss)
        step = np.asarray(np.linalg.solve(system.hessian, system.gradient), np.float64)
        before = place
        if lobe is None:
            step = step * min(1.0, 0.3 / max(float(np.linalg.norm(step)), 1e-12))
            place = normalize(place + step @ tangent_basis(place))
        else:
            place = _stepped(place, step, middle, size)
        loss = max(0.6 * loss, 4 * system.scale, 4.0)
        reach = 1.0 if lobe is None else float(np.linalg.norm(place - middle))
        if number > 6 and float(np.linalg.norm(place - before)) < 1e-6 * reach:
            break
    system = _linear(light, scene, place, lobe, loss)
    bread = np.linalg.inv(system.hessian)
    groups = np.stack([np.bincount(samples.patch, column) for column in system.score.T])
    patches = int((np.bincount(samples.patch, light.there) > 0).sum())
    # What is smooth over a sphere, as light from a table is, moves the place and leaves no residuals.
    covariance = bread + bread @ groups @ groups.T @ bread * patches / max(patches - width - 5, 1)
    for j, outline in enumerate(samples.covariance):
        own = np.where(samples.part == j, 1.0, 0.0)
        moved = np.stack(
            [
                -bread @ np.einsum("mcw,mc,m->w", system.pull, change, own)
                for change in _changes(samples, place, lobe, system.level)
            ],
            axis=-1,
        )
        covariance = covariance + moved @ outline @ moved.T
    if lobe is not None:
        moved = np.stack(
            [
                -bread @ np.einsum("mcw,mc->w", system.pull, change)
                for change in _lobe_changes(samples, place, lobe, system.level)
            ],
            axis=-1,
        )
        covariance = covariance + moved @ lobe.covariance @ moved.T
    lit = light.there & (system.shade > 0.3 * system.shade.max())
    dark = [
        j
        for j in range(len(samples.covariance))
        if (at := lit & (samples.part == j)).sum() > 20 and system.trust[at].mean() < 0.3
    ]
    off = 1.4826 * np.median(np.abs(system.residual[lit]))
    return Place(
        place,
        lobe,
        system.shade,
        system.trust,
        system.others,
        system.albedo,
        system.level,
        system.level_sigma * np.sqrt(max(light.there.sum() / patches, 1.0)),
        covariance,
        float(np.sum(_robust(system.residual / light.sigma, loss)[light.there])),
        loss,
        int(light.there.sum()),
        patches,
        float(off / np.percentile(light.value[lit].mean(axis=1), 98)),
        tuple(dark),
    )


class _System(NamedTuple):
    """Normal equations of a light's place, all that is linear eliminated."""

    hessian: Float
    gradient: Float
    pull: Float
    """(m, c, width): weighted derivative of a sample by the place."""
    score: Float
    """(m, width)."""
    residual: Float
    trust: Float
    """(m,) robust weight, 1 for a sample that agrees."""
    shade: Float
    others: Float
    """(m, c) what comes from behind and from the other spheres."""
    albedo: float
    level: Float
    level_sigma: Float
    scale: float


def _linear(light: Shown, scene: Scene, place: Float, lobe: Lobe | None, loss: float) -> _System:
    samples = scene.samples
    points, normals = samples.matte.points_mm, samples.matte.normals
    near = lobe is not None
    shade = _shading(place, lobe, points, normals)
    if not (shade[light.there] > 0).any():
        raise FitError(f"light {light.name}: the matte spheres' shading follows no light; are they matte?")
    unit = float(np.percentile(shade[shade > 0], 95))
    basis = np.eye(3) if near else tangent_basis(place)
    h = 1e-5 * (float(np.linalg.norm(place - points.mean(axis=0))) if near else 1.0)
    slope = np.stack(
        [
            _shading(place + h * e, lobe, points, normals) - _shading(place - h * e, lobe, points, normals)
            for e in basis
        ],
        axis=-1,
    ) / (2 * h * unit)
    spheres = len(samples.covariance)
    own = np.eye(spheres)[samples.part]
    mutual, behind = np.zeros_like(shade), 0.5 * (1 + normals[:, 2:])
    if scene.exchange is not None:
        sent = _shading(place, lobe, scene.exchange.points_mm, scene.exchange.normals)
        mutual = scene.exchange.share @ sent / unit
    lamp = shade / unit + scene.albedo * mutual
    columns = np.concatenate([own * lamp[:, None], behind, mutual[:, None]], axis=1)
    grazing = (shade > 0) & (shade < GRAZING * unit)
    known = np.where(light.there, np.where(grazing, 1 / 9, 1.0), 0.0)[:, None] / light.sigma**2
    channels, width = light.value.shape[1], slope.shape[1]
    hessian, gradient = np.zeros((width, width)), np.zeros(width)
    pull, residual = np.zeros((len(points), channels, width)), np.zeros_like(light.value)
    level, level_sigma, others = np.zeros(channels), np.zeros(channels), np.zeros_like(light.value)
    trust, albedo = np.zeros(len(points)), 0.0
    for c in range(channels):
        value, weight = light.value[:, c], known[:, c]
        full = float(np.percentile(value[light.there], 98))
        stiff = np.zeros((spheres + 2, spheres + 2))
        stiff[:spheres, :spheres] = (np.eye(spheres) - 1 / spheres) / (_LOBE * full) ** 2
        stiff[-2, -2] = 1 / (_SURROUNDINGS * full) ** 2
        stiff[-1, -1] = 1 / (scene.albedo_sigma * full) ** 2
        for _ in range(4):
            inverse = np.linalg.inv(columns.T @ (weight[:, None] * columns) + stiff)
            solved = inverse @ (columns.T @ (weight * value))
            away = value - columns @ solved
            faith = 1 / (1 + (away / light.sigma[:, c] / loss) ** 2) ** 2
            weight = known[:, c] * faith
        inverse = np.linalg.inv(columns.T @ (weight[:, None] * columns) + stiff)
        jacobian = solved[samples.part, None] * slope
        pulled = weight[:, None] * (
            jacobian - columns @ (inverse @ (columns.T @ (weight[:, None] * jacobian)))
        )
        hessian += pulled.T @ jacobian
        gradient += pulled.T @ away
        pull[:, c], residual[:, c] = pulled, away
        mean = np.where(np.arange(spheres + 2) < spheres, 1 / spheres, 0.0)
        level[c], level_sigma[c] = mean @ solved / unit, np.sqrt(mean @ inverse @ mean) / unit
        others[:, c] = solved[-2] * behind[:, 0] + (solved[samples.part] * scene.albedo + solved[-1]) * mutual
        albedo += (scene.albedo + solved[-1] / (mean @ solved)) / channels
        trust += faith / channels
    lit = light.there & (shade > 0)
    scale = 1.4826 * float(np.median(np.abs(residual / light.sigma)[lit]))
    hessian += 1e-12 * np.trace(hessian) * np.eye(width)
    score = np.einsum("mcw,mc->mw", pull, residual)
    return _System(
        hessian, gradient, pull, score, residual, trust, shade, others, albedo, level, level_sigma, scale
    )


def _changes(samples: SphereSamples, place: Float, lobe: Lobe | None, level: Float) -> list[Float]:
    """How the radiance (m, c) at a pixel changes with each number of its sphere's outline."""
    points, normals, h = samples.matte.points_mm, samples.matte.normals, 1e-4
    changes = []
    for by_point, by_normal in samples.motion:
        ahead = _shading(place, lobe, points + h * by_point, normals + h * by_normal)
        back = _shading(place, lobe, points - h * by_point, normals - h * by_normal)
        changes.append((ahead - back)[:, None] * level / (2 * h))
    return changes


def _lobe_changes(samples: SphereSamples, place: Float, lobe: Lobe, level: Float) -> list[Float]:
    """How the radiance (m, c) changes with two turns of the lobe's axis and with its order."""
    points, normals, h = samples.matte.points_mm, samples.matte.normals, 1e-4
    axes = [lobe._replace(axis=normalize(lobe.axis + h * e)) for e in tangent_basis(lobe.axis)]
    still = _shading(place, lobe, points, normals)
    return [
        (_shading(place, other, points, normals) - still)[:, None] * level / h
        for other in (*axes, lobe._replace(order=lobe.order + h))
    ]


def _robust(relative: Float, loss: float) -> Float:
    square = relative**2
    return np.asarray(square / (1 + square / loss**2))


def cost_at(light: Shown, scene: Scene, fit: Place, scale: float) -> float:
    """Robust chi-square of a fit by the scale of another."""
    system = _linear(light, scene, fit.place, fit.lobe, scale)
    return float(np.sum(_robust(system.residual / light.sigma, scale)[light.there]))
