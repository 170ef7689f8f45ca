"""How strong the lights are, where the light file does not tell it or is not to be trusted."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.lens import LensModel
from calibration.lights.intensity import answered, are_known
from calibration.lights.model import DistantLight, LightModel, LightSet
from calibration.photometric import IntensityFit, Method, estimate_intensities
from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.surface import reconstruct as surface_of
from rigs.workflows.frames import LightImages

Intensities = Literal["auto", "given", "estimated"]

# Rounds of intensities and surface under near lights, and the relative change of the distance that ends them.
_ROUNDS = 8
_SETTLED = 1e-3
_FLATTEST = -0.02
_LONGEST_STEP = 0.08
# Between 1.7 and less, of `psm` with directions off by degrees, and 13 and more, of the objects of DiLiGenT
# with their intensities, which vary by 47 %, withheld.
_CLEARLY = 4.0
# Sigma of the directions, degrees, from which on estimated intensities are doubtful.
_UNSURE_DEG = 1.0


class Settled(NamedTuple):
    """Lights with the intensities that are taken, how these came about, and which given ones are wrong."""

    lights: LightSet
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def settle_intensities(
    lights: LightSet,
    images: LightImages,
    how: Intensities,
    *,
    lens: LensModel | None,
    depth_mm: float | None,
    mask: NDArray[np.bool_],
    method: Method,
    track: Track = silent,
) -> Settled:
    """The intensities to reconstruct with.

    ``auto`` takes those of the light file where it tells any. Where it tells none, all lights are equal
    unless other intensities leave less than a quarter of the residuals: errors of the directions ask for
    other intensities too, and have them at the cost of the normals. Under near lights intensities and surface
    are found in turn until the distance stands still.

    Raises
    ------
    FitError
        ``estimated``, and the object does not tell them.
    """
    known = are_known(lights)
    if how == "given" or (how == "auto" and known):
        return Settled(lights)
    used = [lights.lights[name] for name in images.names]
    try:
        fit = _estimate(images, used, lens, depth_mm, mask, method, track)
    except FitError as error:
        if how == "estimated":
            raise
        return Settled(lights, warnings=(f"all lights are taken as equal: {error}",))
    contradicted = fit.contradicted(images.names)
    if how == "auto" and not fit.given_rms > _CLEARLY * fit.quality.residual_rms:
        return Settled(lights, (f"intensities: all lights equal; {_no_better(fit)}",))
    spread = f"{100 * float(np.std(np.log(fit.factor))):.1f} % rms"
    differ = f"differ from the light file's by {spread}" if known else f"vary by {spread}"
    remark = f"intensities: estimated from the object; they {differ} ({_sure(fit)})"
    relit = dict(zip(images.names, fit.applied(used), strict=True))
    quality = answered(lights.quality) or fit.quality
    warnings = (*(contradicted if known else ()), *fit.quality.warnings, *_doubtful(used))
    found = lights.replace(
        lights={name: relit.get(name, light) for name, light in lights.lights.items()},
        quality=quality.replace(warnings=tuple(dict.fromkeys((*quality.warnings, *warnings)))),
        provenance=lights.provenance.replace(
            note="; ".join(t for t in (lights.provenance.note, remark) if t),
            options={**lights.provenance.options, "intensity": "object"},
        ),
    )
    return Settled(found, (remark,), warnings)


def _estimate(
    images: LightImages,
    lights: Sequence[LightModel],
    lens: LensModel | None,
    depth_mm: float | None,
    mask: NDArray[np.bool_],
    method: Method,
    track: Track,
) -> IntensityFit:
    def at(depth: NDArray[np.floating]) -> IntensityFit:
        known = mask & np.isfinite(depth)
        return estimate_intensities(
            images.value, images.variance, lights, lens=lens, depth_mm=depth, mask=known
        )

    if all(light.kind == "distant" for light in lights) or lens is None or depth_mm is None:
        return estimate_intensities(
            images.value, images.variance, lights, lens=lens, depth_mm=depth_mm, mask=mask
        )
    plain: Method = "least-squares" if method == "least-squares" else "robust"
    taken, tried = float(np.log(depth_mm)), list[tuple[float, float]]()
    fit = at(np.full(mask.shape, depth_mm))
    for _ in range(_ROUNDS):
        depth = surface_of(
            images.value,
            images.variance,
            fit.applied(lights),
            lens=lens,
            mask=mask,
            depth_mm=float(np.exp(taken)),
            method=plain,
            track=track,
        ).depth_mm
        found = float(np.nanmedian(np.log(depth[mask])))
        # Distance and intensities hang together, and left alone they creep along by small steps.
        tried.append((taken, found - taken))
        step = _root(tried[1:] or tried) - taken
        fit = at(depth * np.exp(taken + step - found))
        taken += step
        if abs(step) < _SETTLED and len(tried) > 2:
            break
    return fit


def _root(tried: Sequence[tuple[float, float]]) -> float:
    """Where the change of the distance, on a line through those of the rounds, is none."""
    at, change = np.array(tried).T
    spread = float(np.sum((at - at.mean()) ** 2))
    slope = float(np.sum((at - at.mean()) * (change - change.mean()))) / spread if spread > 0 else -1.0
    step = at.mean() - change.mean() / min(slope, _FLATTEST) - at[-1]
    return float(at[-1] + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP))


def _no_better(fit: IntensityFit) -> str:
    left = 100 * max(fit.quality.residual_rms, 1e-6) / max(fit.given_rms, 1e-6)
    return f"others would leave {left:.0f} % of the residuals, and are taken from {100 / _CLEARLY:.0f} % down"


def _doubtful(lights: Sequence[LightModel]) -> tuple[str, ...]:
    """A warning where the directions that the intensities rest on are hardly known."""
    sigmas = [
        np.degrees(np.sqrt(np.trace(np.asarray(light.covariance)) / 2))
        for light in lights
        if isinstance(light, DistantLight) and light.covariance is not None
    ]
    sigma = float(np.median(sigmas)) if sigmas else 0.0
    if sigma < _UNSURE_DEG:
        return ()
    return (
        f"the estimated intensities rest on directions of sigma {sigma:.1f} deg: they err by some "
        f"{2 * sigma:.0f} %, and the normals bend with them; --intensities given takes no others",
    )


def _sure(fit: IntensityFit) -> str:
    return f"sigma {100 * float(np.median(fit.sigma / fit.factor)):.1f} %"
