"""Light models: ``at(points)`` gives direction and irradiance, the same call for distant and near lights."""

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import AfterValidator, Field

from calibration.geometry import Float, cross_matrix, normalize, tangent_basis
from calibration.provenance import Array, Model, Provenance, Quality

Vector = tuple[float, float, float]


def _finite(vector: Vector) -> Vector:
    if not all(map(math.isfinite, vector)):
        raise ValueError(f"{vector}: want three finite numbers")
    return vector


def _not_zero(vector: Vector) -> Vector:
    if not any(vector):
        raise ValueError("the direction is zero")
    return vector


def _strength(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3) or not all(0 < value < math.inf for value in values):
        raise ValueError(f"{values}: want one number above 0, or three for R, G, B")
    return values


_Place = Annotated[Vector, AfterValidator(_finite)]
_Direction = Annotated[_Place, AfterValidator(_not_zero)]
_Intensity = Annotated[tuple[float, ...], AfterValidator(_strength)]


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
    direction: _Direction
    intensity: _Intensity = (1.0,)
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
    lobe_covariance : ndarray (3, 3) or None
        Of the axis along the two axes of ``geometry.tangent_basis(axis)``, rad, and of the order; the error
        of the order is common to lights that were fitted together.
    """

    kind: Literal["near"] = "near"
    position_mm: _Place
    intensity: _Intensity = (1.0,)
    intensity_sigma: tuple[float, ...] | None = None
    axis: _Direction = (0.0, 0.0, 1.0)
    order: float = Field(default=0.0, ge=0)
    covariance: Array | None = None
    lobe_covariance: Array | None = None

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

    def moved(self, rotation: ArrayLike, t_mm: ArrayLike, covariance: ArrayLike | None = None) -> "LightSet":
        """The same lights in another frame: ``p -> rotation @ p + t_mm``.

        Parameters
        ----------
        rotation : array_like (3, 3)
        t_mm : array_like (3,)
        covariance : array_like (6, 6), optional
            Of the motion: a small turn about the new frame's axes (rad) and the shift (mm). It goes into that
            of each light; that its error is common to all lights is not kept.
        """
        turn, shift = np.asarray(rotation, np.float64), np.asarray(t_mm, np.float64)
        own = np.zeros((6, 6)) if covariance is None else np.asarray(covariance, np.float64)
        centres = None if self.sphere_centres_mm is None else self.sphere_centres_mm @ turn.T + shift
        return self.replace(
            lights={name: _moved(light, turn, shift, own) for name, light in self.lights.items()},
            sphere_centres_mm=centres,
            scene_depth_mm=self.scene_depth_mm if centres is None else float(centres[:, 2].mean()),
        )


def _moved(light: DistantLight | NearLight, turn: Float, shift: Float, covariance: Float) -> LightModel:
    if isinstance(light, NearLight):
        axis, lobe = turn @ np.asarray(light.axis), light.lobe_covariance
        if lobe is not None:
            mix = np.eye(3)
            mix[:2, :2] = tangent_basis(axis) @ turn @ tangent_basis(light.axis).T
            lobe = mix @ lobe @ mix.T
        arm = turn @ np.asarray(light.position_mm)
        spread = None
        if light.covariance is not None:
            by_motion = np.concatenate([-cross_matrix(arm), np.eye(3)], axis=1)
            spread = turn @ light.covariance @ turn.T + by_motion @ covariance @ by_motion.T
        return light.replace(
            position_mm=tuple((arm + shift).tolist()),
            axis=tuple(axis.tolist()),
            covariance=spread,
            lobe_covariance=lobe,
        )
    direction = turn @ np.asarray(light.direction)
    spread = None
    if light.covariance is not None:
        basis = tangent_basis(direction)
        own, by_turn = basis @ turn @ tangent_basis(light.direction).T, -basis @ cross_matrix(direction)
        spread = own @ light.covariance @ own.T + by_turn @ covariance[:3, :3] @ by_turn.T
    return light.replace(direction=tuple(direction.tolist()), covariance=spread)
