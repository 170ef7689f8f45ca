"""Light models: ``at(points)`` gives direction and irradiance, the same call for distant and near lights."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from calibration.geometry import Float, normalize
from calibration.provenance import Array, Model, Provenance, Quality

Vector = tuple[float, float, float]


class DistantLight(Model):
    """A light so far away that direction and irradiance are the same everywhere.

    Attributes
    ----------
    direction : 3 floats
        Unit vector from the surface to the light, camera frame.
    intensity : 1 or 3 floats
        Irradiance E across the beam, so that a Lambertian surface has radiance albedo * E * max(0, n.l)
        (the 1/pi is inside E). One value, or R, G, B.
    covariance : ndarray (2, 2) or None
        Of the direction along the two axes of ``geometry.tangent_basis(direction)``, rad^2.
    """

    kind: Literal["distant"] = "distant"
    direction: Vector
    intensity: tuple[float, ...] = (1.0,)
    intensity_sigma: tuple[float, ...] | None = None
    covariance: Array | None = None

    def at(self, points: ArrayLike) -> tuple[Float, Float]:
        """Direction (..., 3) to the light and irradiance (..., c) at points (..., 3), mm, camera frame."""
        shape = np.asarray(points).shape[:-1]
        direction = np.broadcast_to(normalize(self.direction), (*shape, 3))
        return direction, np.broadcast_to(np.asarray(self.intensity), (*shape, len(self.intensity)))


class NearLight(Model):
    """A small source at a position, with inverse-square fall-off and a cosine-power emission lobe.

    Irradiance at distance d under the angle theta from ``axis``: intensity * cos(theta)**order / d**2,
    d in mm; zero behind the source. Order 0 is isotropic, 1 a Lambertian LED.

    Attributes
    ----------
    position_mm : 3 floats
        Camera frame.
    intensity : 1 or 3 floats
        Radiant intensity scaled as for DistantLight, times mm^2.
    axis : 3 floats
        Unit vector along which the source shines, camera frame.
    order : float
        Lambertian order mu.
    covariance : ndarray (3, 3) or None
        Of the position, mm^2.
    """

    kind: Literal["near"] = "near"
    position_mm: Vector
    intensity: tuple[float, ...] = (1.0,)
    intensity_sigma: tuple[float, ...] | None = None
    axis: Vector = (0.0, 0.0, 1.0)
    order: float = Field(default=0.0, ge=0)
    covariance: Array | None = None

    def at(self, points: ArrayLike) -> tuple[Float, Float]:
        """Direction (..., 3) to the light and irradiance (..., c) at points (..., 3), mm, camera frame."""
        to_light = np.asarray(self.position_mm) - np.asarray(points, np.float64)
        distance2 = np.sum(to_light**2, axis=-1)
        direction = normalize(to_light)
        fall_off = 1.0 / distance2
        if self.order > 0:
            cosine = np.clip(-np.sum(direction * normalize(self.axis), axis=-1), 0.0, None)
            fall_off = fall_off * cosine**self.order
        return direction, fall_off[..., None] * np.asarray(self.intensity)


LightModel = Annotated[DistantLight | NearLight, Field(discriminator="kind")]


class LightSet(Model):
    """The lights of a rig by name, with what they rest on.

    Attributes
    ----------
    lights : dict of name -> DistantLight or NearLight
    sphere_centres_mm : ndarray (s, 3) or None
        Refined centres of the spheres that the fit rests on, camera frame.
    scene_depth_mm : float or None
        Depth of the spheres' mean centre: the scale for reconstruction.
    """

    kind: Literal["lights"] = "lights"
    lights: dict[str, LightModel]
    sphere_centres_mm: Array | None = None
    sphere_radius_mm: float | None = None
    scene_depth_mm: float | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()
