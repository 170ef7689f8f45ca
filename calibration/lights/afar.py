"""Directions from spheres seen without a lens: what the unknown line of sight makes of them."""

from collections.abc import Sequence

import numpy as np

from calibration.geometry import tangent_basis
from calibration.lights.model import DistantLight, LightModel, LightSet
from calibration.targets.spheres import SphereView

_USUAL_FOCAL = 1.4
"""Focal length over the picture's longer side where nobody tells it: 50 mm on a 36 mm sensor. Half of all
pictures are taken with 1 to 3."""
_SLIGHT_DEG = 0.3


def seen_from_afar(
    lights: LightSet, spheres: Sequence[SphereView], size_px: tuple[int, int] | None
) -> LightSet:
    """Directions found without a lens, as if the view were along z, with what that costs in their covariance.

    A ball beside the axis is seen along a ray that is inclined to it, and all directions turn by that angle.
    Over the ball itself the ray turns by as much as its radius subtends; a quarter of that is left in a
    direction on average.

    Parameters
    ----------
    lights : LightSet
        Distant lights by ``spheres``, mirror or matte.
    spheres : sequence of SphereView
    size_px : (width, height) or None
        Of the pictures.

    Returns
    -------
    LightSet
        With wider covariances, and a warning where the angle matters.
    """
    if size_px is None:
        warning = "no lens model, nor the picture's size: sigmas leave out how obliquely the ball is seen"
        return _warned(lights, warning)
    focal = _USUAL_FOCAL * max(size_px)
    middle = 0.5 * np.array(size_px) - 0.5
    off = np.mean([s.centre_px for s in spheres], axis=0) - middle
    spread = float(np.mean([s.radius_px for s in spheres])) / focal / 4
    angle = float(np.linalg.norm(off)) / focal
    # The turn is about one axis to first order only.
    spread = float(np.hypot(spread, 0.15 * angle))
    axis = np.array([-off[1], off[0], 0.0]) / max(float(np.linalg.norm(off)), 1e-12)
    wider: dict[str, LightModel] = {}
    for name, light in lights.lights.items():
        assert isinstance(light, DistantLight)
        own = np.zeros((2, 2)) if light.covariance is None else light.covariance
        turn = tangent_basis(light.direction) @ np.cross(axis, light.direction) * angle
        wider[name] = light.replace(covariance=own + np.outer(turn, turn) + spread**2 * np.eye(2))
    lights = lights.replace(lights=wider)
    if np.degrees(np.hypot(angle, spread)) < _SLIGHT_DEG:
        return lights
    usual = "with a usual lens (50 mm on 36 mm film)"
    if angle > spread:
        balls = "ball is" if len(spheres) == 1 else "balls are in the mean"
        warning = (
            f"no lens model: the {balls} {np.linalg.norm(off):.0f} px off the picture's middle; {usual} all"
            f" directions are {np.degrees(angle):.1f} deg wrong together"
        )
    else:
        warning = (
            f"no lens model: {usual} a ball that large is so near that directions are"
            f" {np.degrees(spread):.1f} deg wrong"
        )
    return _warned(lights, f"{warning}: give a lens model, or the focal length")


def _warned(lights: LightSet, warning: str) -> LightSet:
    assert lights.quality is not None
    quality = lights.quality
    return lights.replace(quality=quality.replace(verdict="doubtful", warnings=(*quality.warnings, warning)))
