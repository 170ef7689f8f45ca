"""The outline of a sphere once more, through a model of what a ball shows along its rim.

Near its outline a ball turns away from the camera with the square root of the depth inside: its shading, the
reflected scene and the share that is reflected all go with it. A straight line does not follow that, and a
glossy ball, which mirrors all of the light at grazing incidence, would come out too small.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.edges import Edges, profiles, profiles_around
from calibration.targets.outline import SphereView, frame, moved_by, settled, solve

Finish = Literal["smooth", "glossy"]

_REACH = 4.0
"""Half the window across the outline, in blurs."""
_REFRACTIVE = 1.5
_LEAST_ERROR = 0.02
"""Standard error of a sharp outline's radius, in blurs: of blur and interpolation (simulated balls)."""
_COMMON = np.array([0.5, 0.5, 1.25])
"""Error of centre and radius over scatter^2 / blur. What a mirror shows beside its outline draws all profiles
inwards, by the square of how far it spreads them (simulated balls, and renderings of chrome, steel and black
gloss before textured backdrops; 0.3 and 0.8 in the simulated ones alone)."""
_WAVES = 5
"""Waves round the outline, up to which errors are taken as alike."""
_PER_STEEPNESS = 0.2
"""Error of one profile's edge, in blurs, where the brightness inside changes by the step within one blur."""


class _Fit(NamedTuple):
    view: SphereView
    blur: float
    scatter_px: float
    """Of the profiles' edges, beyond their noise."""
    misfit: float
    """Mean logarithm of the residuals' standard deviation."""


def polish(images: NDArray[np.float32], rough: Edges, lens: LensModel | None) -> Edges:
    """The outline once more, at full resolution, with the exact blur of its edge.

    Two models of the inside are fitted: one smooth in the cosine between surface and view (matte paint, a
    metal mirror), one with the reflectance of a dielectric (black gloss). The better one is taken; by how
    much they differ goes into the covariance.

    Parameters
    ----------
    images : ndarray, (n, h, w), float32
        Under different lights; NaN is ignored. Work in this pixel frame.
    rough : Edges
        From ``edges.refine``.
    lens : LensModel or None
        Of the given pixel frame.

    Returns
    -------
    Edges
        ``rough`` itself where the edge is too faint for it.

    Notes
    -----
    Assumes one symmetric blur round the outline and brightness that is linear outside. In gamma-encoded
    pictures a blurred outline comes out up to 0.8 blurs too small, as it also looks.
    """
    finishes: tuple[Finish, ...] = ("smooth", "glossy")
    fits = [f for f in (_fit(images, rough, lens, finish) for finish in finishes) if f]
    if not fits:
        return rough
    best = min(fits, key=lambda f: f.misfit)
    across = _px_per_step(best.view, lens)
    model = np.hypot(_COMMON * best.scatter_px**2 / best.blur, [0.0, 0.0, _LEAST_ERROR * best.blur])
    if len(fits) == 2:
        model = np.hypot(model, _apart_px(fits[0].view, fits[1].view) * [0.5, 0.5, 1.0])
    view = best.view._replace(covariance=best.view.covariance + np.diag((model / across) ** 2))
    return Edges(view, rough.support, best.scatter_px, best.blur)


def _fit(images: NDArray[np.float32], rough: Edges, lens: LensModel | None, finish: Finish) -> _Fit | None:
    view, blur, scatter, misfit = rough.view, rough.blur_px, np.nan, np.inf
    try:
        for turn in range(4):
            sharper, misfit = _blur(images, view, lens, blur, finish)
            settled_at = turn > 0 and abs(sharper / blur - 1) < 0.02
            blur = sharper
            for _ in range(20):
                view, moved, scatter = _step(images, view, lens, blur, finish)
                if moved < 2e-3 * blur:
                    break
            if settled_at:
                break
    except FitError:
        return None
    far = float(np.linalg.norm(_apart_px(view, rough.view)))
    return _Fit(view, blur, scatter, misfit) if far < 1.5 * blur else None


def _apart_px(a: SphereView, b: SphereView) -> Float:
    """Differences of centre and radius."""
    return np.append(a.centre_px - b.centre_px, a.radius_px - b.radius_px)


def _reflected(cosine: Float) -> Float:
    """Share of unpolarised light that a dielectric reflects (Fresnel)."""
    inside = np.sqrt(1 - (1 - cosine**2) / _REFRACTIVE**2)
    across = (cosine - _REFRACTIVE * inside) / (cosine + _REFRACTIVE * inside)
    along = (_REFRACTIVE * cosine - inside) / (_REFRACTIVE * cosine + inside)
    return np.asarray((across**2 + along**2) / 2)


def _basis(x: Float, blur: float, radius: float, finish: Finish) -> tuple[Float, Float]:
    """What a profile across the rim is made of, (m, 4), and its change as the rim moves outwards.

    Level and slope of the surroundings; the step to the ball; what changes inside it with the cosine.
    """
    pitch = blur / 12
    around = np.arange(-5 * blur, 5 * blur + pitch / 2, pitch)
    bell = np.exp(-0.5 * (around / blur) ** 2)
    bell /= bell.sum()
    fine = np.arange(x[0] - 5 * blur, x[-1] + 5 * blur, pitch)
    depth = np.clip(-fine / radius, 0, 1)
    cosine = np.sqrt(depth * (2 - depth))
    inside = np.clip(0.5 - fine / pitch, 0, 1)
    shapes = (inside, inside * (cosine if finish == "smooth" else _reflected(cosine)))
    blurred = [np.convolve(s, bell, "same") for s in shapes]
    surroundings = [np.ones_like(x), x / (5 * blur)]
    moving = [-np.interp(x, fine, np.gradient(b, pitch)) for b in blurred]
    return (
        np.stack([*surroundings, *(np.interp(x, fine, b) for b in blurred)], axis=-1),
        np.stack([np.zeros_like(x), np.zeros_like(x), *moving], axis=-1),
    )


def _offsets(blur: float, radius: float) -> Float:
    reach = _REACH * blur
    inner = min(reach, 0.45 * radius)
    return np.arange(-inner, reach + 1e-9, min(0.5, blur / 1.5) if blur < 2 else blur / 4)


def _blur(
    images: NDArray[np.float32], view: SphereView, lens: LensModel | None, blur: float, finish: Finish
) -> tuple[float, float]:
    """The blur that leaves the smallest residuals round the outline, and their mean logarithm."""
    misfit = np.inf
    for _ in range(6):
        x = _offsets(blur, view.radius_px)
        p = profiles_around(images, view, lens, x, 360)
        p = p[np.isfinite(p).all(axis=-1)]
        if len(p) < 36:
            raise FitError("no outline of a sphere at this place")
        relative = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
        left = np.empty(5)
        for k, wider in enumerate(relative):
            basis = _basis(x, blur * (1 + wider), view.radius_px, finish)[0]
            rest = p @ (np.eye(len(x)) - basis @ np.linalg.pinv(basis)).astype(np.float32)
            # Dead pixels of an 8-bit picture fit without a rest: they say nothing.
            power = np.mean(rest**2, axis=-1)
            left[k] = np.mean(np.log(power + 1e-3 * np.mean(power)))
        misfit = float(left[2]) / 2
        bend, slope, _ = np.polyfit(relative, left, 2)
        change = float(np.clip(-0.5 * slope / bend, -0.2, 0.2)) if bend > 0 else 0.2 * float(np.sign(-slope))
        blur = float(np.clip(blur * (1 + change), 0.5, 20.0))
        if abs(change) < 0.02:
            break
    return blur, misfit


def _step(
    images: NDArray[np.float32], view: SphereView, lens: LensModel | None, blur: float, finish: Finish
) -> tuple[SphereView, float, float]:
    """One step of least squares over all profiles, its size, and the scatter beyond the noise, px.

    The brightnesses of each profile are eliminated first (variable projection, G. Golub and V. Pereyra, 1973,
    doi:10.1137/0710036); what is left of the rim's motion gives its offset and that offset's sigma.
    """
    count = int(np.clip(2 * np.pi * view.radius_px / (1.5 * blur), 72, 720))
    angles = np.asarray(np.arange(count) * (2 * np.pi / count), np.float64)
    points, normal, jacobian = frame(view, lens, angles)
    x = _offsets(blur, view.radius_px)
    p = profiles(images, 1, points, normal, x).astype(np.float64)
    basis, motion = _basis(x, blur, view.radius_px, finish)
    inverse = np.linalg.pinv(basis)
    coefficients = p @ inverse.T
    rest = p - coefficients @ basis.T
    moving = coefficients @ motion.T
    moving -= moving @ inverse.T @ basis.T
    strength = np.sum(moving**2, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = np.sum(rest * moving, axis=-1) / strength
        variance = (np.sum(rest**2, axis=-1) - offset**2 * strength) / max(len(x) - 5, 1) + 1e-30
        # What a model of the inside misses goes with how much changes there.
        steep = np.abs(coefficients[..., 3] / coefficients[..., 2]) * np.sqrt(2 * blur / view.radius_px)
        noise = variance / strength
        sigma = np.sqrt(noise + (_PER_STEEPNESS * blur * steep) ** 2)
        good = (np.abs(offset) < 2 * blur) & (sigma < blur)
    if good.any(axis=0).sum() < 12:
        raise FitError("no outline of a sphere at this place")
    light, where = np.nonzero(good)
    d, j, own = offset[good], jacobian[where], sigma[good] ** 2
    sector = where * 36 // count
    # Profiles scatter by more than their noise where a shadow or what is mirrored lies beside the outline,
    # and there they are the clearest: their scatter counts as noise of each (R. DerSimonian and N. Laird,
    # 1986, doi:10.1016/0197-2456(86)90046-2).
    least = (0.03 * blur) ** 2
    step, scale, residual, scatter = np.zeros(3), blur, d, least
    for _ in range(20):
        base = 1 / (own + scatter)
        weight = base / (1 + (residual / scale) ** 2) ** 2
        step = solve(j, d, weight, sector, light)[0]
        residual = d - j @ step
        spread = float(np.sqrt(np.sum(weight * residual**2) / np.sum(weight)))
        scale = float(np.clip(3 * spread, 0.15 * blur, blur))
        near = np.abs(residual) < scale
        excess = np.sum((base**2 * (residual**2 - own))[near]) / np.sum(base[near] ** 2)
        scatter = max(float(excess), least)
    # Soft weights make the sandwich too thin: it wants those that stay as they are when an edge moves.
    covariance = solve(j, residual, base * near, sector, light)[1]
    covariance = covariance + _waves(j, residual, base * near, angles[where])
    moved = settled(moved_by(view, step, lens), lens)._replace(covariance=covariance)
    return moved, float(np.max(np.abs(jacobian @ step))), float(np.sqrt(scatter))


def _waves(jacobian: Float, residual: Float, weight: Float, angles: Float) -> Float:
    """Covariance (3, 3) by errors that go smoothly round the outline.

    Two to five waves are seen in the residuals; none and one, which move radius and centre, are taken to
    continue them: all alike or, where that is clearly likelier, in inverse proportion to their number.
    """
    number = np.arange(1, _WAVES + 1)
    turns = np.outer(angles, number)
    waves = np.concatenate([np.full((len(angles), 1), np.sqrt(0.5)), np.cos(turns), np.sin(turns)], axis=-1)
    scale = np.sqrt(np.mean(jacobian**2, axis=0))
    basis = np.concatenate([jacobian / scale, np.delete(waves, [0, 1, 1 + _WAVES], axis=-1)], axis=-1)
    heights = np.linalg.lstsq((basis.T * weight) @ basis, (basis.T * weight) @ residual, rcond=None)[0][3:]
    seen = np.tile(number[1:], 2)
    alike, falling = np.mean(heights**2), np.mean((heights * seen) ** 2)
    steep = np.sum(np.log(seen)) - 0.5 * len(seen) * np.log(falling / alike) > 1
    fall = np.concatenate([[1.0], np.tile(1.0 / number, 2)]) if steep else np.ones(1 + 2 * _WAVES)
    moving = np.linalg.solve((jacobian.T * weight) @ jacobian, (jacobian.T * weight) @ (waves * fall))
    return np.asarray(moving @ moving.T * (falling if steep else alike))


def _px_per_step(view: SphereView, lens: LensModel | None) -> Float:
    """Root mean square motion of the outline, px, by the three parameters."""
    jacobian = frame(view, lens, np.linspace(0, 2 * np.pi, 72, endpoint=False))[2]
    return np.asarray(np.sqrt(np.mean(jacobian**2, axis=0)) * np.array([np.sqrt(2), np.sqrt(2), 1.0]))
