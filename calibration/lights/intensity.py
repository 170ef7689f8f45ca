"""Intensities and emission lobes of lights, from matte white or from their highlights in mirror spheres."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, reflection, reflection_jacobian, tangent_basis
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, LightModel, LightSet, NearLight
from calibration.lights.samples import TEXTURE, MatteSamples
from calibration.provenance import FitError, Quality

EQUAL_INTENSITIES = (
    "highlights are saturated, all lights are taken as equal: expose shorter or add a white plane"
)
"""Warning of lights fitted from spheres alone; a white plane answers it."""

GUESSED_INTENSITIES = (
    "some lights' highlights are saturated, they are taken as strong as the others on average, +- 30 %"
)
"""Warning of lights fitted from spheres alone; a white plane answers it too."""

UNEVEN_INTENSITIES = "the brightness of a light's highlights differs between spheres"
"""Beginning of a warning of lights fitted from spheres alone; a white plane answers it too."""


_AXIS_PRIOR_RAD = 0.5
_ORDER_PRIOR = 1.0


def fit_intensities(lights: LightSet, samples: MatteSamples, *, alike: float = 1.0) -> LightSet:
    """Intensity of every light, and the emission lobe of near ones, from a white plane.

    Near lights share one Lambertian order; each has its own axis with a weak prior towards the samples'
    middle (0.5 rad) and on the order (1 +- 1): a small plane cannot tell a tilted axis from another order,
    yet the irradiance over the plane, which is what counts, is fixed by the data. Geman-McClure weights
    outvote shadows and marks.

    Parameters
    ----------
    lights : LightSet
        Directions or positions are kept.
    samples : MatteSamples
        In the order of ``lights.lights``.
    alike : float
        How many neighbouring samples share one error; it widens all sigmas.

    Returns
    -------
    LightSet
        With intensities (1 or 3 values), axes and order, with sigma.

    Raises
    ------
    FitError
        A light does not reach the plane: fewer than 4 samples agree.

    Notes
    -----
    Assumes a matte white: a glossy board shows a sheen that is taken for intensity.
    """
    names = list(lights.lights)
    values = np.asarray(samples.radiance, np.float64)
    noise = np.asarray(samples.sigma, np.float64)
    if values.ndim == 2:
        values, noise = values[..., None], noise[..., None]
    if len(values) != len(names):
        raise ValueError(f"{len(values)} images of the plane for {len(names)} lights")
    order = 1.0
    fits: list[_Lobe] = []
    for _ in range(30):
        fits = [
            _fit_lobe(name, light, samples, values[i], noise[i], order)
            for i, (name, light) in enumerate(lights.lights.items())
        ]
        near = [f for f in fits if f.order_weight > 0]
        if not near:
            break
        # Newton on the shared order, each light's own unknowns eliminated.
        weight = sum(f.order_weight for f in near) + 1 / _ORDER_PRIOR**2
        step = (sum(f.order_pull for f in near) - (order - 1.0) / _ORDER_PRIOR**2) / weight
        new = float(np.clip(order + np.clip(step, -0.5, 0.5), 0.0, 20.0))
        settled = abs(new - order) < 1e-5
        order = new
        if settled:
            break
    near = [f for f in fits if f.order_weight > 0]
    order_variance = 1 / (sum(f.order_weight for f in near) / alike + 1 / _ORDER_PRIOR**2)
    fitted = {
        name: _with_lobe(light, fit, order, order_variance, alike)
        for (name, light), fit in zip(lights.lights.items(), fits, strict=True)
    }
    note = f"intensities from {len(samples.points_mm)} places on matte white"
    if any(f.order_weight > 0 for f in fits):
        note += f", Lambertian order {order:.2f}"
    provenance = lights.provenance.replace(
        note="; ".join(t for t in (lights.provenance.note, note) if t),
        options={**lights.provenance.options, "intensity": "white plane"},
    )
    return lights.replace(lights=fitted, quality=answered(lights.quality), provenance=provenance)


def are_known(lights: LightSet) -> bool:
    """Whether anything tells how strong the lights are; else all were given the same intensity."""
    return lights.provenance.options.get("intensity") != "equal"


def answered(quality: Quality | None) -> Quality | None:
    """The quality without the doubts about intensities, which have come from elsewhere since."""
    doubts = EQUAL_INTENSITIES, GUESSED_INTENSITIES, UNEVEN_INTENSITIES
    if quality is None or not any(warning.startswith(doubts) for warning in quality.warnings):
        return quality
    others = tuple(warning for warning in quality.warnings if not warning.startswith(doubts))
    return quality.replace(warnings=others, verdict="doubtful" if others else "good")


class _Lobe(NamedTuple):
    axis: Float
    log_intensity: Float
    log_sigma: Float
    order_weight: float
    order_pull: float
    axis_covariance: Float
    axis_by_order: Float


def _fit_lobe(
    name: str, light: LightModel, samples: MatteSamples, values: Float, noise: Float, order: float
) -> _Lobe:
    """Intensity per channel and axis for a given order; how the residuals pull on the order."""
    points = samples.points_mm
    bare: LightModel
    if isinstance(light, NearLight):
        bare = light.replace(intensity=(1.0,), intensity_sigma=None, order=0.0)
    else:
        bare = light.replace(intensity=(1.0,), intensity_sigma=None)
    direction, irradiance = bare.at(points)
    shading = irradiance[:, 0] * np.sum(direction * samples.normals, axis=-1) * samples.reflectance
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.log(values / shading[:, None])
        relative = np.hypot(noise / values, TEXTURE)
    usable = np.isfinite(log) & np.isfinite(relative) & (relative < 0.3) & (shading > 0)[:, None]
    if (usable.sum(axis=0) < 4).any():
        raise FitError(f"light {name}: does not light the white; fewer than 4 places on it are usable")
    log, weight0 = np.where(usable, log, 0.0), np.where(usable, 1 / relative**2, 0.0)
    channels = values.shape[1]
    near = isinstance(light, NearLight)
    prior_axis = (
        normalize(points.mean(axis=0) - light.position_mm) if isinstance(light, NearLight) else np.zeros(3)
    )
    axis, away = prior_axis, -direction
    level = np.array([np.median(log[usable[:, c], c]) for c in range(channels)])
    scale = 0.2
    hessian = np.eye(channels)
    jacobian, weight, residual = np.zeros((*log.shape, channels)), weight0, log
    for step_number in range(60):
        cosine = np.clip(away @ axis, 0.05, None) if near else np.ones(len(points))
        residual = np.where(usable, log - level - order * np.log(cosine)[:, None], 0.0)
        weight = weight0 / (1 + (residual / scale) ** 2) ** 2
        tight = 1.4826 * np.median(np.abs(residual[usable]))
        scale = max(scale / 2, 4 * float(tight), 3 * TEXTURE)
        extra = 2 if near else 0
        jacobian = np.zeros((*log.shape, channels + extra))
        jacobian[..., :channels] = np.eye(channels)
        hessian, gradient = np.zeros((channels + extra,) * 2), np.zeros(channels + extra)
        if near:
            basis = tangent_basis(axis)
            jacobian[..., channels:] = (order * (away @ basis.T) / cosine[:, None])[:, None, :]
            at = slice(channels, None)
            hessian[at, at] = np.eye(2) / _AXIS_PRIOR_RAD**2
            gradient[at] = (basis @ prior_axis) / _AXIS_PRIOR_RAD**2
        hessian += np.einsum("mc,mci,mcj->ij", weight, jacobian, jacobian)
        gradient += np.einsum("mc,mci,mc->i", weight, jacobian, residual)
        step = np.linalg.solve(hessian, gradient)
        level = level + step[:channels]
        if near:
            turn = np.clip(step[channels:], -0.3, 0.3)
            axis = normalize(axis + turn @ basis)
        if step_number > 8 and np.max(np.abs(step)) < 1e-9:
            break
    agreeing = (np.abs(residual) < 3 * scale) & usable
    if (agreeing.sum(axis=0) < 4).any():
        raise FitError(f"light {name}: its irradiance on the white plane follows no light at that place")
    # The fit's own scatter, where the print is more uneven than assumed.
    freedom = max(int(agreeing.sum()) - len(hessian), 1)
    chi2 = max(float(np.sum(weight * residual**2)) / freedom, 1.0)
    inverse = np.linalg.inv(hessian)
    order_weight = order_pull = 0.0
    axis_by_order = np.zeros(2)
    if near:
        column = np.broadcast_to(np.log(np.clip(away @ axis, 0.05, None))[:, None], log.shape)
        cross = np.einsum("mc,mci,mc->i", weight, jacobian, column)
        order_weight = float(np.sum(weight * column**2) - cross @ inverse @ cross) / chi2
        order_pull = float(np.sum(weight * column * residual) - cross @ inverse @ gradient) / chi2
        axis_by_order = -(inverse @ cross)[channels:]
    sigma = np.sqrt(np.diag(inverse)[:channels] * chi2)
    weight_of_order = max(order_weight, 1e-12) if near else 0.0
    spread = np.asarray(inverse[channels:, channels:] * chi2, np.float64)
    return _Lobe(axis, level, sigma, weight_of_order, order_pull, spread, axis_by_order)


def _with_lobe(
    light: LightModel, fit: _Lobe, order: float, order_variance: float, alike: float
) -> LightModel:
    intensity = np.exp(fit.log_intensity)
    values = tuple(float(v) for v in intensity)
    sigma = tuple(float(v) for v in intensity * fit.log_sigma * np.sqrt(alike))
    if isinstance(light, DistantLight):
        return light.replace(intensity=values, intensity_sigma=sigma)
    x, y, z = (float(v) for v in fit.axis)
    by_order = np.append(fit.axis_by_order, 1.0)
    spread = np.outer(by_order, by_order) * order_variance
    # The prior is no measurement: many samples alike make the data weaker, not it.
    data = np.linalg.inv(fit.axis_covariance) - np.eye(2) / _AXIS_PRIOR_RAD**2
    spread[:2, :2] += np.linalg.inv(data / alike + np.eye(2) / _AXIS_PRIOR_RAD**2)
    return light.replace(
        intensity=values, intensity_sigma=sigma, axis=(x, y, z), order=order, lobe_covariance=spread
    )


def mirror_gain(centres: Float, radius: float, light: Float, lens: LensModel) -> Float:
    """Flux of a highlight, radiance times px^2, per unit of its light's intensity and mirror reflectance.

    The irradiance that a small source sends to the camera by way of the mirror is, by reciprocity, its
    intensity times the determinant of the view ray's turn by the source's shift. Divided by the solid angle
    of a pixel this is the sum of radiance over the highlight's pixels. As in ``LightModel`` the 1 / pi of a
    Lambertian surface is inside the intensity: pi times it.

    Parameters
    ----------
    centres : ndarray, (..., 3)
        mm, camera frame.
    radius : float
        mm.
    light : ndarray, (..., 4)
        Homogeneous, w = 1 for a near light, w = 0 and a unit vector for a distant one.
    lens : LensModel
        Of the image; without distortion of flux, i.e. radiance is corrected for vignetting.

    Returns
    -------
    ndarray, (...)
        NaN where the light is not seen in the sphere.
    """
    normal = reflection(centres, radius, light)
    points = centres + radius * normal
    reach = np.linalg.norm(points, axis=-1)
    view = points / reach[..., None]
    _, by_light = reflection_jacobian(centres, radius, light, normal)
    turn = (np.eye(3) - view[..., :, None] * view[..., None, :]) @ by_light[..., :3] / reach[..., None, None]
    towards = normalize(light[..., :3] - light[..., 3:] * points)
    small = tangent_basis(view) @ turn @ np.swapaxes(tangent_basis(towards), -1, -2)
    pixels, half = lens.project(points), 0.5 * np.eye(2)
    du, dv = (lens.unproject(pixels + h) - lens.unproject(pixels - h) for h in half)
    solid_angle = np.linalg.norm(np.cross(du, dv), axis=-1)
    return np.asarray(np.pi * np.abs(np.linalg.det(small)) / solid_angle)


_GUESS = 0.3
"""By how much lamps of one rig differ: one sigma for a lamp that nothing tells of."""


class FluxIntensity(NamedTuple):
    """Relative intensities from highlights.

    Attributes
    ----------
    value, sigma : ndarray, (n,)
        Scaled to unit mean irradiance at the reference point.
    known : bool
        False where the highlights of half the lights say nothing and all are taken to be equally strong;
        sigma is then NaN.
    guessed : ndarray, (n,), bool
        Lights whose own highlights say nothing.
    scatter : float
        Relative difference of one light's highlights between spheres, one sigma; 0 where only one is seen.
    """

    value: Float
    sigma: Float
    known: bool
    guessed: NDArray[np.bool_]
    scatter: float


def flux_intensity(flux: Float, sigma: Float, gain: Float, irradiance: Float) -> FluxIntensity:
    """Combine the highlights of equally reflecting spheres.

    Parameters
    ----------
    flux, sigma : ndarray, (n, s)
        Of the highlights; NaN where unused or saturated.
    gain : ndarray, (n, s)
        ``mirror_gain``, or ones.
    irradiance : ndarray, (n,)
        Of each light at the reference point for unit intensity; it scales the result.

    Returns
    -------
    FluxIntensity
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.log(flux / gain)
        relative = np.hypot(sigma / flux, 0.005)
    good = np.isfinite(log) & np.isfinite(relative)
    blind: NDArray[np.bool_] = np.asarray(~good.any(axis=1))
    if 2 * blind.sum() >= len(blind):
        value = 1.0 / float(np.mean(irradiance)) * np.ones(len(irradiance))
        return FluxIntensity(value, np.full(len(value), np.nan), False, blind, 0.0)
    if blind.any():
        rest = flux_intensity(flux[~blind], sigma[~blind], gain[~blind], irradiance[~blind])
        value, spread = np.empty(len(blind)), np.empty(len(blind))
        value[~blind], spread[~blind] = rest.value, rest.sigma
        value[blind] = np.exp(np.mean(np.log(rest.value)))
        spread[blind] = _GUESS * value[blind]
        unit = float(np.mean(value * irradiance))
        return FluxIntensity(value / unit, spread / unit, True, blind, rest.scatter)
    # Spheres may differ in reflectance: their offsets from each other are taken out.
    level = np.where(good, log, np.nan)
    for _ in range(20):
        of_light = np.nanmedian(level, axis=1, keepdims=True)
        offset = np.array(
            [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 0.0 for c in (level - of_light).T]
        )
        level = level - offset + offset.mean()
        if np.max(np.abs(offset - offset.mean())) < 1e-9:
            break
    middle = np.nanmedian(level, axis=1, keepdims=True)
    away = np.where(good, level - middle, 0.0)
    # What the spheres disagree by beyond the noise (finish, grain of a rendering) is an error of each.
    seen = good.sum(axis=1)
    freedom = int(seen.sum()) - len(good) - int(good.any(axis=0).sum()) + 1
    scatter = 0.0
    if freedom > 0:
        shared = good & (seen > 1)[:, None]
        scatter = 1.4826 * float(np.median(np.abs(away[shared]))) * float(np.sqrt(shared.sum() / freedom))
        excess = scatter**2 - float(np.median(relative[shared])) ** 2
        relative = np.hypot(relative, np.sqrt(max(excess, 0.0)))
    weight = np.where(good, 1 / relative**2, 0.0)
    weight = weight / (1 + (away / max(0.03, 3 * scatter)) ** 2) ** 2
    mean = np.sum(weight * np.where(good, level, 0.0), axis=1) / weight.sum(axis=1)
    value = np.exp(mean)
    value = value / float(np.mean(value * irradiance))
    return FluxIntensity(value, value / np.sqrt(weight.sum(axis=1)), True, blind, scatter)
