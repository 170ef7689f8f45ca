"""The normal map: what photometric stereo gives."""

from typing import Literal, Self

import numpy as np

from calibration.provenance import Array, Model, Provenance, Quality


class NormalMap(Model):
    """Unit normals and albedo per pixel, in the camera frame (x right, y down, z forward), with error bars.

    Attributes
    ----------
    normals : ndarray (h, w, 3), float32
        Towards the camera (n . ray < 0; n_z < 0 on the optical axis). NaN where invalid.
    albedo : ndarray (h, w) or (h, w, 3), float32
        In the units of radiance over irradiance of the lights. NaN where invalid.
    valid : ndarray (h, w), bool
    sigma_deg : ndarray (h, w), float32
        Root mean square angle, in degrees, by which the noise of the samples turns the normal: the square
        root of the trace of the normal's covariance in its tangent plane (both directions together). Where
        the trusted samples scatter more than their noise and the model error allowed for can explain, it is
        raised to what they show. Under a mixture it holds an allowance for the errors of the model and for
        detail smaller than a pixel too. NaN where invalid.
    sigma_lights_deg : ndarray (h, w), float32, optional
        Root mean square angle, in degrees, by which the errors of the lights (covariance of their directions
        or positions, sigma of their intensities) turn the normal; those of different lights independent, and
        a light of which nothing is known taken for exact. None where nothing is known of any. Alike over the
        surface, so neither noise nor told by the residuals: the whole is the root of the sum of both squares
        at one pixel, while of the angle between neighbours ``sigma_deg`` is nearly all. To first order,
        weights held: lights off by more than the residuals' scale weigh less, and it is then too large (12 %
        at 1 degree). Under a mixture it is that of the robust solution, up to a third too large.
    lights_used : ndarray (h, w), uint8
        Samples that the solution trusts: all usable ones for least squares, those of weight above 0.1 (of 1)
        for the robust solver and mixtures. 0 where invalid.
    method : str, optional
        What solved it: ``robust``, ``mixture`` or ``least-squares``.
    reason : str, optional
        Why this model of the surface, where the images were asked.
    """

    kind: Literal["normals"] = "normals"
    normals: Array
    albedo: Array
    valid: Array
    sigma_deg: Array
    lights_used: Array
    roughness: float | None = None
    gloss: Array | None = None
    method: str | None = None
    reason: str | None = None
    sigma_lights_deg: Array | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    def crop(self, rows: slice, columns: slice) -> Self:
        """The part of the map in a window of the image; quality and provenance stay those of the whole."""
        maps = {name: value for name, value in self if isinstance(value, np.ndarray)}
        return self.replace(**{name: value[rows, columns].copy() for name, value in maps.items()})
