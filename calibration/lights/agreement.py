"""Two light sets compared: of mirror and of matte spheres, of today and of another day."""

from typing import Any, Literal, NamedTuple

import numpy as np

from calibration.geometry import Float, normalize, tangent_basis
from calibration.lights.intensity import answered, are_known
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
    if matte.sphere_centres_mm is not None:
        middle = np.asarray(matte.sphere_centres_mm, np.float64).mean(axis=0)
        lights = {name: _as_bright(light, matte.lights[name], middle) for name, light in lights.items()}
    return mirror.replace(
        lights=lights,
        quality=_joined(answered(mirror.quality), matte.quality, warnings),
        provenance=mirror.provenance.replace(
            note=f"{mirror.provenance.note}; joined with the shading of matte spheres",
            options={**mirror.provenance.options, "intensity": "matte spheres"},
        ),
    )


def _as_bright(light: LightModel, known: LightModel, point: Float) -> LightModel:
    """A near light at another place than ``known``, with the irradiance at a point that was seen."""
    if not (isinstance(light, NearLight) and isinstance(known, NearLight)):
        return light
    seen, given = known.at(point)[1], light.at(point)[1]
    if not (np.all(seen > 0) and np.all(given > 0)):
        return light
    gain = seen / given
    sigma = light.intensity_sigma
    return light.replace(
        intensity=tuple((gain * light.intensity).tolist()),
        intensity_sigma=None if sigma is None else tuple((gain * sigma).tolist()),
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


_ABSOLUTE = ("white plane", "matte spheres")
"""Where intensities come from that are in units of the camera; others are relative to each other."""
_LEAST_TURN_RAD = np.radians(0.5)
_LEAST_DIMMED = 0.05
"""Smaller changes are nobody's concern, however sure they are."""
_UNTOLD = 0.1
"""Sigma of a strength from which on it is not told: taken from the others where a highlight is saturated."""
_MANY_SIGMA = 5.0
_LEAST_RESIZED = 0.005
"""Difference of the spheres' diameters, relative, that shows in the lights' places."""
_SHARED = 0.2
"""Scatter about a common turn over the lights' own sigma, below which their errors are shared."""
_LEAST_LIGHTS = 6
"""Lights from which three of a common turn can be found, with enough left to see the scatter."""


class LightChange(NamedTuple):
    """What has become of one light.

    Attributes
    ----------
    name : str
    kind : 'still', 'moved', 'dimmed', 'missing' or 'unknown'
        'dimmed' means another strength, brighter too; 'missing' that nothing tells of it today.
    text : str
        One sentence, with numbers.
    turn_deg : float
        Change of its direction, seen from the scene; NaN where it is not known.
    strength : float
        Of the earlier one; NaN where it is not known.
    """

    name: str
    kind: Literal["still", "moved", "dimmed", "missing", "unknown"]
    text: str
    turn_deg: float = float("nan")
    strength: float = float("nan")


def find_changes(known: LightSet, today: LightSet) -> tuple[LightChange, ...]:
    """What has become of each light since ``known`` was calibrated, by another calibration.

    A light has moved where its two places differ by more than 5 sigma and by half a degree seen from the
    scene; it has dimmed where its strength against that of the other lights differs by more than 5 sigma and
    5 %. Where both sets have intensities of a white target, a change of all lights together is told too, and
    is one of each where it is the same kind of target.

    Parameters
    ----------
    known, today : LightSet
        In one camera's frame.

    Returns
    -------
    tuple of LightChange
        One a light of ``known``, then those that only ``today`` has.
    """
    depth = known.scene_depth_mm or today.scene_depth_mm or 1.0
    scene = np.array([0.0, 0.0, depth])
    if known.sphere_centres_mm is not None:
        scene = np.asarray(known.sphere_centres_mm, np.float64).mean(axis=0)
    both = [name for name in known.lights if name in today.lights]
    level = {name: _level(known.lights[name], today.lights[name], scene) for name in both}
    ratios = np.array([ratio for ratio, _ in level.values() if np.isfinite(ratio)])
    common = float(np.median(ratios)) if ratios.size else 1.0
    if any(known.lights[name].kind != today.lights[name].kind for name in both) and ratios.size:
        # A near lamp taken for a far one has a strength of its own at every ball.
        scatter = 1.4826 * float(np.median(np.abs(np.log(ratios / common))))
        level = {name: (ratio, max(sigma, scatter)) for name, (ratio, sigma) in level.items()}
    told = are_known(known) and are_known(today)
    sources = [s.provenance.options.get("intensity") for s in (known, today)]
    absolute = all(source in _ABSOLUTE for source in sources)
    changes: list[LightChange] = []
    sigmas: list[float] = []
    for name in both:
        ratio, sigma = level[name]
        turn, unsure = _turned(known.lights[name], today.lights[name], scene)
        sigmas.append(unsure)
        ratio = ratio / common if told and sigma < _UNTOLD else float("nan")
        kind, text = judge(name, turn, unsure, ratio, sigma)
        changes.append(LightChange(name, kind, text, float(np.degrees(turn)), ratio))
    changes = _against_the_others(changes, np.array(sigmas), known, today, scene)
    turned = [c for c in changes if c.kind == "moved"]
    if len(turned) > max(2, 0.6 * len(both)):
        advice = "; most lights have: has the camera been moved, or its lens changed?"
        sizes = [s.sphere_radius_mm for s in (known, today)]
        if sizes[0] and sizes[1] and abs(np.log(sizes[0] / sizes[1])) > _LEAST_RESIZED:
            advice = (
                f"; most lights have: the spheres were told to have {2 * sizes[0]:g} mm then and "
                f"{2 * sizes[1]:g} mm now"
            )
        changes = [c._replace(text=c.text + advice) if c.kind == "moved" else c for c in changes]
    unsure = float(np.median([sigma for _, sigma in level.values()])) if level else 0.0
    if absolute and abs(np.log(common)) > max(_LEAST_DIMMED, _MANY_SIGMA * unsure):
        changes = [_as_all_are(change, common, alike=sources[0] == sources[1]) for change in changes]
    missing = [
        LightChange(n, "missing", f"{n}: not among today's lights")
        for n in known.lights
        if n not in today.lights
    ]
    new = [
        LightChange(n, "unknown", f"{n}: not among the calibrated lights")
        for n in today.lights
        if n not in known.lights
    ]
    return (*changes, *missing, *new)


def _as_all_are(change: LightChange, common: float, *, alike: bool) -> LightChange:
    """The change of a light where all are ``common`` times as strong, told by ``alike`` targets or others."""
    if alike and change.kind == "still":
        text = f"{change.name}: has {100 * common:.0f} % of its strength, as all lights have"
        return change._replace(kind="dimmed", strength=change.strength * common, text=text)
    return change._replace(text=f"{change.text} (all lights: {common:.2f} times as bright)")


def _against_the_others(
    changes: list[LightChange], sigmas: Float, known: LightSet, today: LightSet, scene: Float
) -> list[LightChange]:
    """Lights that turned otherwise than most did, however unsure all of them are together.

    Without a lens model the view is unsure by degrees, in both sets and for all lights alike. A common turn
    takes that away; what is left scatters little, and a light beyond that, for its own sigma, has moved.
    """
    if len(changes) < _LEAST_LIGHTS or not np.min(sigmas, initial=np.inf) > 0:
        return changes
    worse = sigmas / np.median(sigmas)
    before, after = (
        np.array([_seen(s.lights[change.name], scene)[0] for change in changes]) for s in (known, today)
    )
    weight = np.ones(len(changes))
    for _ in range(20):
        left, _, right = np.linalg.svd((weight[:, None] * after).T @ before)
        turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
        angle = 2 * np.arcsin(np.clip(0.5 * np.linalg.norm(after - before @ turn.T, axis=1), 0, 1))
        off = angle / worse
        # Of a Rayleigh distribution the median is 1.18 sigma.
        sigma = max(float(np.median(off)) / 1.18, 1e-6)
        weight = 1 / (1 + (off / (3 * sigma)) ** 2) ** 2
    if sigma > _SHARED * np.median(sigmas):
        return changes
    beyond = (angle > _LEAST_TURN_RAD) & (off > _MANY_SIGMA * sigma)
    return [
        change._replace(
            kind="moved",
            turn_deg=float(np.degrees(turned)),
            text=f"{change.name}: has moved against the other lights, by {np.degrees(turned):.2f} deg "
            f"(scatter {np.degrees(sigma):.2f})",
        )
        if out and change.kind == "still"
        else change
        for change, turned, out in zip(changes, angle, beyond, strict=True)
    ]


def judge(
    name: str, turn_rad: float, turn_sigma: float, ratio: float, ratio_sigma: float
) -> tuple[Literal["still", "moved", "dimmed"], str]:
    """Kind and sentence of a change of direction and of strength, of the other lights' ``ratio`` 1."""
    turn = float(np.degrees(turn_rad))
    moved = turn_rad > max(_LEAST_TURN_RAD, _MANY_SIGMA * turn_sigma)
    known = np.isfinite(ratio)
    dimmed = known and abs(np.log(max(ratio, 1e-6))) > max(_LEAST_DIMMED, _MANY_SIGMA * ratio_sigma)
    words = f"{100 * ratio:.0f} % of its strength" if known else "strength not known"
    where = f"turned by {turn:.2f} deg (sigma {np.degrees(turn_sigma):.2f})"
    if moved:
        return "moved", f"{name}: has moved, {where}" + (f"; {words}" if dimmed else "")
    if dimmed:
        return "dimmed", f"{name}: has {words} (sigma {100 * ratio_sigma:.1f} %)"
    return "still", f"{name}: as calibrated, {where}, {words}"


def _turned(a: LightModel, b: LightModel, scene: Float) -> tuple[float, float]:
    """Angle between two lights seen from the scene, and its sigma, rad.

    Of near lights that differ in distance alone, it is what the distance turns at the scene's rim.
    """
    first, second = (_seen(light, scene) for light in (a, b))
    turn = tangent_basis(first[0])
    gap = turn @ second[0]
    mix = turn @ tangent_basis(second[0]).T
    spread = first[1] + mix @ second[1] @ mix.T
    angle = float(np.linalg.norm(gap))
    along = gap / angle if angle > 0 else np.array([1.0, 0.0])
    sigma = float(np.sqrt(along @ spread @ along))
    if isinstance(a, NearLight) and isinstance(b, NearLight):
        arms = [np.asarray(light.position_mm) - scene for light in (a, b)]
        lengths = [float(np.linalg.norm(arm)) for arm in arms]
        # A quarter of the distance to the scene's rim is usual.
        deeper = 0.25 * abs(lengths[0] - lengths[1]) / lengths[0]
        unsure = (
            0.25
            * float(
                np.sqrt(
                    sum(
                        arm @ np.asarray(light.covariance) @ arm / length**2
                        for arm, light, length in zip(arms, (a, b), lengths, strict=True)
                        if light.covariance is not None
                    )
                )
            )
            / lengths[0]
        )
        if deeper > max(angle, _MANY_SIGMA * unsure):
            return deeper, unsure
    return angle, sigma


def _seen(light: LightModel, scene: Float) -> tuple[Float, Float]:
    """Direction from the scene and its covariance (2, 2) along the tangents, rad^2."""
    if isinstance(light, DistantLight):
        spread = np.zeros((2, 2)) if light.covariance is None else np.asarray(light.covariance)
        return np.asarray(light.direction, np.float64), spread
    arm = np.asarray(light.position_mm) - scene
    basis = tangent_basis(arm) / float(np.linalg.norm(arm))
    own = np.zeros((3, 3)) if light.covariance is None else np.asarray(light.covariance)
    return normalize(arm), basis @ own @ basis.T


def _level(a: LightModel, b: LightModel, scene: Float) -> tuple[float, float]:
    """Strength of b against a at the scene, and its relative sigma."""
    values, spread = [], 0.0
    for light in (a, b):
        values.append(float(np.mean(light.at(scene)[1])))
        if light.intensity_sigma is not None:
            spread += float(np.mean(np.square(np.divide(light.intensity_sigma, light.intensity))))
    if not (values[0] > 0 and values[1] > 0):
        return float("nan"), 0.0
    return values[1] / values[0], float(np.sqrt(spread))
