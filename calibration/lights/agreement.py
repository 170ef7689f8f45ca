"""Two light sets compared: from mirror and from matte spheres, or of today and of another day."""

from typing import Any

import numpy as np

from calibration.geometry import normalize, tangent_basis
from calibration.lights.model import DistantLight, LightModel, LightSet, NearLight
from calibration.provenance import FitError, Quality

_CONFLICT = 21.1
"""Chi-square between two places of one light: exceeded once in 1e4 with 3 unknowns."""


def join_lights(mirror: LightSet, matte: LightSet) -> LightSet:
    """Places of lights by mirror spheres and by matte ones as one, each weighted by its covariance.

    Lights of which the two disagree are named. Where the matte spheres could not tell a distance, or either
    has no covariance, the place by the mirror spheres stands. Intensities are the matte spheres'.

    Raises
    ------
    FitError
        The two have different lights.
    """
    if set(mirror.lights) != set(matte.lights):
        odd = sorted(set(mirror.lights) ^ set(matte.lights))
        raise FitError(f"light {odd[0]}: not seen by both the mirror and the matte spheres")
    lights: dict[str, LightModel] = {}
    warnings = []
    for name, ours in mirror.lights.items():
        other = matte.lights[name]
        strength = _strength(other)
        lights[name] = ours.replace(**strength) if ours.kind == other.kind else ours
        if ours.covariance is None or other.covariance is None or ours.kind != other.kind:
            continue
        if isinstance(ours, NearLight) and isinstance(other, NearLight):
            gap = np.asarray(other.position_mm) - ours.position_mm
            theirs = other.covariance
        elif isinstance(ours, DistantLight) and isinstance(other, DistantLight):
            turn = tangent_basis(ours.direction)
            gap = turn @ np.asarray(other.direction)
            mix = turn @ tangent_basis(other.direction).T
            theirs = mix @ other.covariance @ mix.T
        both = np.asarray(ours.covariance) + theirs
        chi2 = float(gap @ np.linalg.solve(both, gap))
        if chi2 > _CONFLICT:
            size = (
                f"{np.linalg.norm(gap):.1f} mm"
                if ours.kind == "near"
                else f"{np.degrees(np.linalg.norm(gap)):.1f} deg"
            )
            warnings.append(
                f"light {name}: matte and mirror spheres put it {size} apart (chi-square {chi2:.0f}): did it"
                " move, or does a reflection pass for its highlight?"
            )
            continue
        gain = ours.covariance @ np.linalg.inv(both)
        spread = ours.covariance - gain @ ours.covariance
        step = gain @ gap
        if isinstance(ours, NearLight):
            place = tuple((np.asarray(ours.position_mm) + step).tolist())
            lights[name] = ours.replace(position_mm=place, covariance=spread, **strength)
        elif isinstance(ours, DistantLight):
            place = tuple(
                normalize(np.asarray(ours.direction) + step @ tangent_basis(ours.direction)).tolist()
            )
            lights[name] = ours.replace(direction=place, covariance=spread, **strength)
    return mirror.replace(
        lights=lights,
        quality=_joined(mirror.quality, matte.quality, warnings),
        provenance=mirror.provenance.replace(
            note=f"{mirror.provenance.note}; joined with the shading of matte spheres",
            options={**mirror.provenance.options, "intensity": "matte spheres"},
        ),
    )


def _joined(mirror: Quality | None, matte: Quality | None, warnings: list[str]) -> Quality | None:
    if mirror is None:
        return matte
    told = (*mirror.warnings, *(() if matte is None else matte.warnings), *warnings)
    return mirror.replace(warnings=told, verdict="doubtful" if told else "good")


def _strength(light: LightModel) -> dict[str, Any]:
    """How strongly a light shines, and where to."""
    told: dict[str, Any] = {"intensity": light.intensity, "intensity_sigma": light.intensity_sigma}
    if isinstance(light, NearLight):
        told |= {"axis": light.axis, "order": light.order}
    return told
