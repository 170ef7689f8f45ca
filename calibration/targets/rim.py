"""The outline of a sphere once more, through a model of what a ball shows along its rim.

Near its outline a ball turns away from the camera with the square root of the depth inside: its shading, the
reflected scene and the share that is reflected all go with it. A straight line does not follow that, and a
glossy ball, which mirrors all of the light at grazing incidence, would come out too small.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, tangent_basis
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.edges import Edges, profiles, profiles_around
from calibration.targets.outline import SphereView, frame, moved_by, settled, solve, turns

Finish = Literal["smooth", "glossy"]
Kernel = Literal["bell", "disc"]

_REACH = 4.0
"""Half the window across the outline, in blurs."""
_REFRACTIVE = 1.5
_SHARP = 1.0
"""Blur, px, up to which it is the pixel's and the lens's own: a bell, alike all round."""
_COARSER = 1.33
"""Largest blur, in those of the rough outline: its fit goes on while the edge is finer than three quarters of
the filter. What a mirror shows beside its outline passes for blur, and a wider one takes in more of it."""
_SECTORS = 12
"""Parts of the outline, in each of which the blur is taken as one."""
_LEAST_ERROR = 0.02
"""Standard error of a sharp outline's radius, in blurs: of blur and interpolation (simulated balls)."""
_COMMON = np.array([0.5, 0.5, 1.25])
"""Error of centre and radius over scatter^2 / blur. What a mirror shows beside its outline draws all profiles
inwards, by the square of how far it spreads them (simulated balls, and renderings of chrome, steel and black
gloss before textured backdrops; 0.3 and 0.8 in the simulated ones alone)."""
_CHANCE = 0.5
"""Scatter, in blurs, of edges that have nothing to do with the outline: what scatters so says nothing."""
_WAVES = 5
"""Waves round the outline, up to which errors are taken as alike."""
_PER_STEEPNESS = 0.2
"""Error of one profile's edge, in blurs, where the brightness inside changes by the step within one blur."""


class _Rim(NamedTuple):
    """What profiles across the rim look like."""

    finish: Finish
    kernel: Kernel
    """Of the blur: a bell in focus, the disc of the aperture out of it."""
    widths: Float
    """Logarithm of the blur: its mean, and the cosine and sine of its first wave round the outline."""
    widest: float
    """Largest mean of that logarithm."""
    varies: bool = False
    """Whether that wave is sought: first the outline is found with one blur."""

    @property
    def blur(self) -> float:
        return float(np.exp(self.widths[0]))


class _Fit(NamedTuple):
    view: SphereView
    rim: _Rim
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
        The outline of ``rough`` where the edge is too faint for it, its covariance widened.

    Notes
    -----
    Assumes a symmetric blur, a bell or a disc, that out of focus changes along one direction (the plane of
    focus lies askew to the rim), and brightness that is linear outside. In gamma-encoded pictures a blurred
    outline comes out up to 0.8 blurs too small, as it also looks.
    """
    start = np.array([np.log(rough.blur_px), 0.0, 0.0])
    fits = _both(images, rough, lens, rough.view, _Rim("smooth", "bell", start, start[0] + np.log(_COARSER)))
    if not fits:
        # A straight line inside is off by half a blur where the inside is not straight.
        unsure = np.diag((0.5 * rough.blur_px / _px_per_step(rough.view, lens)) ** 2)
        return rough._replace(view=rough.view._replace(covariance=rough.view.covariance + unsure))
    best = min(fits, key=lambda f: f.misfit)
    if best.rim.blur > _SHARP:
        rim = _of_kernel(images, best.view, lens, best.rim._replace(varies=True))
        fits = _both(images, rough, lens, best.view, rim) or fits
        best = min(fits, key=lambda f: f.misfit)
    blur = best.rim.blur
    informed = max(1 - (best.scatter_px / (_CHANCE * blur)) ** 2, 0.1)
    model = np.hypot(_COMMON * best.scatter_px**2 / (informed * blur), [0.0, 0.0, _LEAST_ERROR * blur])
    model /= _px_per_step(best.view, lens)
    if len(fits) == 2:
        model = np.hypot(model, _apart(fits[0].view, fits[1].view) * [0.5, 0.5, 1.0])
    view = best.view._replace(covariance=best.view.covariance + np.diag(model**2))
    return Edges(view, rough.support, best.scatter_px, blur)


def _fit(
    images: NDArray[np.float32], rough: Edges, lens: LensModel | None, view: SphereView, rim: _Rim
) -> _Fit | None:
    scatter, misfit = np.nan, np.inf
    try:
        for turn in range(4):
            sharper, misfit = _blurred(images, view, lens, rim)
            settled_at = turn > 0 and np.abs(sharper.widths - rim.widths).max() < 0.02
            rim = sharper
            x = _offsets(rim.blur, view.radius_px)
            basis, motion = _bases(x, rim, view.radius_px)
            for _ in range(20):
                view, moved, scatter = _step(images, view, lens, rim.blur, x, basis, motion)
                if moved < 2e-3 * rim.blur:
                    break
            if settled_at:
                break
    except FitError:
        return None
    away = np.append(view.centre_px - rough.view.centre_px, view.radius_px - rough.view.radius_px)
    near = np.linalg.norm(away) < max(rim.blur, rough.blur_px)
    return _Fit(view, rim, scatter, misfit) if near else None


def _both(
    images: NDArray[np.float32], rough: Edges, lens: LensModel | None, view: SphereView, rim: _Rim
) -> list[_Fit]:
    """The fits of both finishes that stayed by the rough outline."""
    finishes: tuple[Finish, ...] = ("smooth", "glossy")
    tried = (_fit(images, rough, lens, view, rim._replace(finish=finish)) for finish in finishes)
    return [f for f in tried if f]


def _of_kernel(images: NDArray[np.float32], view: SphereView, lens: LensModel | None, rim: _Rim) -> _Rim:
    """The rim by the kernel that leaves the smaller residuals, both in one window."""
    kernels: tuple[Kernel, ...] = ("bell", "disc")
    try:
        around = _sectors(images, view, lens, rim.blur)
    except FitError:
        return rim
    found = [_blurred(images, view, lens, rim._replace(kernel=kernel), around) for kernel in kernels]
    return min(found, key=lambda f: f[1])[0]


def _apart(a: SphereView, b: SphereView) -> Float:
    """Differences of the three parameters, as the covariance counts them."""
    if np.isfinite(a.angular_radius_rad):
        return np.append(
            tangent_basis(a.direction) @ b.direction, a.angular_radius_rad - b.angular_radius_rad
        )
    return np.append(a.centre_px - b.centre_px, a.radius_px - b.radius_px)


def _reflected(cosine: Float) -> Float:
    """Share of unpolarised light that a dielectric reflects (Fresnel)."""
    inside = np.sqrt(1 - (1 - cosine**2) / _REFRACTIVE**2)
    across = (cosine - _REFRACTIVE * inside) / (cosine + _REFRACTIVE * inside)
    along = (_REFRACTIVE * cosine - inside) / (_REFRACTIVE * cosine + inside)
    return np.asarray((across**2 + along**2) / 2)


def _basis(x: Float, blur: float, radius: float, rim: _Rim) -> tuple[Float, Float]:
    """What a profile across the rim is made of, (m, 4), and its change as the rim moves outwards.

    Level and slope of the surroundings; the step to the ball; what changes inside it with the cosine.
    """
    pitch = blur / 12
    around = np.arange(-5 * blur, 5 * blur + pitch / 2, pitch) / blur
    # A disc seen edge on, whose standard deviation is half its radius.
    bell = np.exp(-0.5 * around**2) if rim.kernel == "bell" else np.sqrt(np.clip(4 - around**2, 0, None))
    bell /= bell.sum()
    fine = np.arange(x[0] - 5 * blur, x[-1] + 5 * blur, pitch)
    depth = np.clip(-fine / radius, 0, 1)
    cosine = np.sqrt(depth * (2 - depth))
    inside = np.clip(0.5 - fine / pitch, 0, 1)
    shapes = (inside, inside * (cosine if rim.finish == "smooth" else _reflected(cosine)))
    blurred = [np.convolve(s, bell, "same") for s in shapes]
    surroundings = [np.ones_like(x), x / (5 * blur)]
    moving = [-np.interp(x, fine, np.gradient(b, pitch)) for b in blurred]
    return (
        np.stack([*surroundings, *(np.interp(x, fine, b) for b in blurred)], axis=-1),
        np.stack([np.zeros_like(x), np.zeros_like(x), *moving], axis=-1),
    )


def _waves_of_blur() -> Float:
    """Mean and first wave at the middle of each sector, (sectors, 3)."""
    turn = (np.arange(_SECTORS) + 0.5) * (2 * np.pi / _SECTORS)
    return np.stack([np.ones(_SECTORS), np.cos(turn), np.sin(turn)], axis=-1)


def _bases(x: Float, rim: _Rim, radius: float, wider: float = 0.0) -> tuple[Float, Float]:
    """``_basis`` of every sector, (sectors, m, 4) each, or of all as one; the blur wider by a share."""
    waves = _waves_of_blur() if rim.varies else np.array([[1.0, 0.0, 0.0]])
    blurs = np.exp(waves @ rim.widths) * (1 + wider)
    basis, motion = zip(*(_basis(x, float(blur), radius, rim) for blur in blurs), strict=True)
    return np.stack(basis), np.stack(motion)


def _offsets(blur: float, radius: float) -> Float:
    reach = _REACH * blur
    inner = min(reach, 0.45 * radius)
    return np.arange(-inner, reach + 1e-9, min(0.5, blur / 1.5) if blur < 2 else blur / 4)


class _Profiles(NamedTuple):
    """Profiles (n, sectors, 30, m) at offsets x (m,), zero where they are not ``seen`` (n, sectors, 30)."""

    x: Float
    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    radius: float

    def misfits(self, rim: _Rim, wider: float = 0.0) -> Float:
        """Sum over each sector of the logarithm of the residuals' power."""
        basis = _bases(self.x, rim, self.radius, wider)[0]
        rest = self.values @ (np.eye(len(self.x)) - basis @ np.linalg.pinv(basis)).astype(np.float32)
        # Dead pixels of an 8-bit picture fit without a rest: they say nothing.
        power = np.mean(rest**2, axis=-1)
        least = 1e-3 * np.mean(power[self.seen])
        return np.asarray(np.sum(np.log(power + least), axis=(0, 2), where=self.seen), np.float64)


def _sectors(images: NDArray[np.float32], view: SphereView, lens: LensModel | None, blur: float) -> _Profiles:
    x = _offsets(blur, view.radius_px)
    p = profiles_around(images, view, lens, x, 30 * _SECTORS).reshape(len(images), _SECTORS, 30, len(x))
    seen = np.asarray(np.isfinite(p).all(axis=-1))
    if seen.sum() < 36:
        raise FitError("no outline of a sphere at this place")
    return _Profiles(x, np.where(seen[..., None], p, 0), seen, view.radius_px)


def _blurred(
    images: NDArray[np.float32],
    view: SphereView,
    lens: LensModel | None,
    rim: _Rim,
    window: _Profiles | None = None,
) -> tuple[_Rim, float]:
    """The blur that leaves the smallest residuals round the outline, and their mean logarithm."""
    misfit, waves = np.inf, _waves_of_blur()
    relative = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    low, high = np.array([np.log(0.5), -0.5, -0.5]), np.array([rim.widest, 0.5, 0.5])
    for _ in range(6):
        around = window or _sectors(images, view, lens, rim.blur)
        left = np.stack([around.misfits(rim, wider) for wider in relative])
        misfit = float(left[2].sum() / around.seen.sum()) / 2
        bend, slope, _ = np.polyfit(relative, left, 2)
        change = np.zeros(3)
        if bend.sum() > 0:
            # A sector that cannot tell does not steer.
            firm, free = np.clip(bend, 0, None), 3 if rim.varies else 1
            curvature = (waves.T * firm) @ waves + 0.02 * firm.mean() * np.eye(3)
            change[:free] = np.linalg.solve(curvature[:free, :free], -0.5 * waves.T[:free] @ slope)
        else:
            change[0] = -np.sign(slope.sum())
        change = np.clip(change, -0.2, 0.2)
        rim = rim._replace(widths=np.clip(rim.widths + change, low, high))
        if np.abs(change).max() < 0.02:
            break
    return rim, misfit


def _step(
    images: NDArray[np.float32],
    view: SphereView,
    lens: LensModel | None,
    blur: float,
    x: Float,
    basis: Float,
    motion: Float,
) -> tuple[SphereView, float, float]:
    """One step of least squares over all profiles, its size, and the scatter beyond the noise, px.

    The brightnesses of each profile are eliminated first (variable projection, G. Golub and V. Pereyra, 1973,
    doi:10.1137/0710036); what is left of the rim's motion gives its offset and that offset's sigma.
    """
    count = 36 * int(np.clip(2 * np.pi * view.radius_px / (1.5 * blur) / 36, 2, 20))
    angles = turns(count)
    points, normal, jacobian = frame(view, lens, angles)
    p = profiles(images, 1, points, normal, x).astype(np.float64)
    p = p.reshape(len(images), _SECTORS, -1, len(x))
    inverse = np.linalg.pinv(basis)
    coefficients = p @ inverse.mT
    rest = p - coefficients @ basis.mT
    moving = coefficients @ motion.mT
    moving -= moving @ inverse.mT @ basis.mT
    rest, moving, coefficients = (a.reshape(len(images), count, -1) for a in (rest, moving, coefficients))
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
    jacobian = frame(view, lens, turns(72))[2]
    return np.asarray(np.sqrt(np.mean(jacobian**2, axis=0)) * np.array([np.sqrt(2), np.sqrt(2), 1.0]))
