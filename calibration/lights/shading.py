"""Lights from the shading of matte spheres: directions or positions, with covariance."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from calibration.geometry import normalize
from calibration.lights.exchange import exchange
from calibration.lights.intensity import fit_intensities
from calibration.lights.model import DistantLight, LightModel, LightSet, NearLight
from calibration.lights.place import (
    GRAZING,
    Lobe,
    Place,
    Scene,
    Shown,
    brightest,
    closest,
    cost_at,
    fit_place,
    shown_of,
)
from calibration.lights.samples import MatteSamples, SphereSamples
from calibration.provenance import FitError, Provenance, Quality

_MISFIT = 0.06
"""Relative scatter of the shading beyond which a sphere is hardly matte."""
_ALBEDO = 0.02
"""One sigma of the albedo by which spheres light each other, from light to light."""
_ROUNDS = 4


def fit_shading(
    names: Sequence[str],
    samples: SphereSamples,
    *,
    model: Literal["auto", "near", "distant"] = "auto",
    provenance: Provenance | None = None,
) -> LightSet:
    """Fit every light to the shading of matte spheres.

    The radiance is albedo * (E * max(0, n.l) + t * (1 + n_z) / 2): the lamp, and what a bright ground behind
    the spheres sends back. A distant light is a direction and E; a near one is a position: direction and
    distance change over the spheres. How much light each sphere gets is left free, within a tenth, for lamps
    shine more to one side than to the other; so spheres of different paint do not mislead either.

    Parameters
    ----------
    names : sequence of str
        One a light, in the order of the samples.
    samples : SphereSamples
        Of matte spheres of one radius and paint.
    model : 'auto', 'near' or 'distant'
        'auto' takes near lights where they explain the shading better than chance (Bayesian information
        criterion); the reason is in ``provenance.note``.
    provenance : Provenance or None
        Session and options to record; a note is added.

    Returns
    -------
    LightSet
        With intensity (1 or 3 values) relative to the paint's albedo, and of near lights the lobe.

    Raises
    ------
    FitError
        A light hardly reaches the spheres, or a near one is asked for where nothing tells a distance.

    Notes
    -----
    Assumes a Lambertian paint. Sheen, and shadows that one thing casts on another, are outvoted as long as
    they cover less than a third of what is lit (Geman-McClure weights). Covariances come from the scatter of
    whole patches of a sphere, not of single samples, and from those of the outlines.
    """
    if len(names) != len(samples.matte.radiance):
        raise ValueError(f"{len(names)} names for {len(samples.matte.radiance)} lights")
    can_be_near = samples.centres_mm is not None and len(samples.covariance) >= 2
    if model == "near" and not can_be_near:
        raise FitError("near lights need a lens, the spheres' radius in mm and at least two spheres")
    shown = [shown_of(name, samples.matte, i) for i, name in enumerate(names)]
    alike = len(samples.patch) / len(np.unique(samples.patch))
    scene = Scene(samples, exchange(samples), 0.5, 0.5)
    far = [fit_place(light, scene, brightest(light, samples), None) for light in shown]
    fits, note = far, f"distant lights: {_why_distant(samples, model)}"
    if can_be_near and model != "distant":
        close = [closest(light, scene, start) for light, start in zip(shown, far, strict=True)]
        gain = sum(
            (cost_at(light, scene, a, b.scale) - b.cost) * b.patches / max(b.seen, 1)
            for light, a, b in zip(shown, far, close, strict=True)
        )
        price = len(names) * float(np.log(sum(fit.patches for fit in close)))
        near = model == "near" or gain > price
        words = f"chi-square falls by {gain:.0f} for {len(names)} more unknowns, whose price is {price:.0f}"
        note = (
            f"{'near' if near else 'distant'} lights: {'as asked' if model == 'near' else words + ' (BIC)'}"
        )
        fits = close if near else far
    base = provenance or Provenance()
    lights = LightSet(
        lights={name: _light(fit) for name, fit in zip(names, fits, strict=True)},
        sphere_centres_mm=samples.centres_mm,
        sphere_radius_mm=samples.radius_mm,
        scene_depth_mm=None if samples.centres_mm is None else float(samples.centres_mm[:, 2].mean()),
        quality=_quality(names, samples, fits),
        provenance=base.replace(note="; ".join(t for t in (base.note, note) if t)),
    )
    for _ in range(_ROUNDS if fits[0].lobe is not None else 0):
        # A lobe that falls off across a sphere turns its shading, and the place moves the lobe.
        strong = fit_intensities(lights, _lamps_alone(shown, samples, fits), alike=alike)
        scene = scene._replace(albedo=_albedo(fits), albedo_sigma=_ALBEDO)
        lobes = [
            Lobe(normalize(v.axis), v.order, np.asarray(v.lobe_covariance))
            for v in strong.lights.values()
            if isinstance(v, NearLight)
        ]
        fits = [
            fit_place(light, scene, fit.place, lobe)
            for light, fit, lobe in zip(shown, fits, lobes, strict=True)
        ]
        lights = lights.replace(
            lights={name: _light(fit) for name, fit in zip(names, fits, strict=True)},
            quality=_quality(names, samples, fits),
        )
    strong = fit_intensities(lights, _lamps_alone(shown, samples, fits), alike=alike)
    told = {**strong.provenance.options, "intensity": "matte spheres"}
    return strong.replace(provenance=strong.provenance.replace(options=told))


def _why_distant(samples: SphereSamples, model: str) -> str:
    if model == "distant":
        return "as asked"
    if samples.centres_mm is None:
        return "without a lens or the spheres' radius no distance can be told"
    return "one sphere cannot tell a distance"


def _albedo(fits: Sequence[Place]) -> float:
    """Of the spheres, by the light that they send each other."""
    return float(np.clip(np.median([fit.albedo for fit in fits]), 0.0, 1.0))


def _lamps_alone(shown: Sequence[Shown], samples: SphereSamples, fits: Sequence[Place]) -> MatteSamples:
    """The samples that the lamps light fully and nothing shades, without what other things send there."""
    value = np.stack([light.value for light in shown])
    noise = np.stack([light.sigma for light in shown])
    for i, fit in enumerate(fits):
        usable = shown[i].there & (fit.shade > 2 * GRAZING * fit.shade.max()) & (fit.trust > 0.3)
        value[i] = np.where(usable[:, None], value[i] - fit.others, np.nan)
    return samples.matte._replace(
        radiance=value * samples.matte.reflectance, sigma=noise * samples.matte.reflectance
    )


def _light(fit: Place) -> LightModel:
    x, y, z = (float(v) for v in fit.place)
    level, sigma = tuple(fit.level.tolist()), tuple(fit.level_sigma.tolist())
    if fit.lobe is None:
        return DistantLight(
            direction=(x, y, z), intensity=level, intensity_sigma=sigma, covariance=fit.covariance
        )
    return NearLight(position_mm=(x, y, z), intensity=level, intensity_sigma=sigma, covariance=fit.covariance)


def _quality(names: Sequence[str], samples: SphereSamples, fits: Sequence[Place]) -> Quality:
    warnings = []
    for name, fit in zip(names, fits, strict=True):
        if fit.scatter > _MISFIT:
            warnings.append(
                f"light {name}: the shading is off that of matte spheres by {100 * fit.scatter:.0f} %: are"
                " they matte, and does nothing else shine on them?"
            )
        warnings += [
            f"light {name}: sphere {j} disagrees with the others; does something shade it?" for j in fit.dark
        ]
    return Quality(
        residual_rms=100 * float(np.sqrt(np.mean([fit.scatter**2 for fit in fits]))),
        unit="%",
        observations=sum(fit.seen for fit in fits),
        verdict="doubtful" if warnings else "good",
        warnings=tuple(warnings),
    )
