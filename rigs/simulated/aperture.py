"""A lens with a finite aperture: each of many points of its entrance pupil sees the scene for itself."""

from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from calibration.geometry import Float, normalize
from calibration.lens import LensModel
from rigs.simulated.truth import Optics

PUPIL_POINTS = 40
"""So many keep the MTF of the blur within 0.004 of a disc's down to a tenth, for edges of every direction."""


class Sight(Protocol):
    """Which rays of the own frame, from the origin, make which pixels. A ``LensModel`` is one."""

    def project(self, points: ArrayLike) -> Float:
        """Image of points (..., 3) -> (..., 2) px."""
        ...

    def unproject(self, pixels: ArrayLike) -> Float:
        """Unit ray through pixels (..., 2) -> (..., 3)."""
        ...


class FocalSurface(NamedTuple):
    """Where points are sharp: 1 / z = inverse + slope_x x + slope_y y + bend (x^2 + y^2).

    x = X / Z, y = Y / Z of the camera frame; all coefficients in 1 / mm. Without ``bend`` it is a plane.
    """

    inverse: float
    slope_x: float
    slope_y: float
    bend: float

    @classmethod
    def of(cls, optics: Optics) -> "FocalSurface":
        """Of an optics that has a plane of focus."""
        assert optics.focus_mm is not None
        inverse = 1 / optics.focus_mm
        slopes = inverse * np.tan(np.radians(optics.focus_tilt_deg))
        return cls(inverse, float(slopes[0]), float(slopes[1]), 0.5 * optics.focus_curvature_per_mm)

    def meet(self, rays: ArrayLike) -> Float:
        """Points (..., 3) on rays from the origin; NaN where a ray does not meet the surface in front."""
        r = np.asarray(rays, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = r / np.where(r[..., 2:] > 0, r[..., 2:], np.nan)
            x, y = flat[..., 0], flat[..., 1]
            near = self.inverse + self.slope_x * x + self.slope_y * y + self.bend * (x * x + y * y)
            return np.asarray(flat / np.where(near > 0, near, np.nan)[..., None])


class PupilSight(NamedTuple):
    """The lens as one point of its pupil sees: that point is the origin, the axes are the camera's.

    All points of the pupil see a point of the focal surface at one pixel. Distortion is that of the lens's
    model for every point of the pupil.
    """

    lens: LensModel
    focus: FocalSurface
    offset: Float

    def project(self, points: ArrayLike) -> Float:
        """Pixel of points (..., 3) in the frame of this point of the pupil."""
        p, f, d = np.asarray(points, np.float64), self.focus, self.offset
        # The line offset + t p meets the focal surface where a t^2 + b t + c = 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(p[..., 2] > 0, p[..., 2], np.nan)
            slopes = np.array([f.slope_x, f.slope_y, f.inverse])
            a = p @ slopes + f.bend * np.sum(p[..., :2] ** 2, axis=-1) / z
            b = d @ slopes + 2 * f.bend * (p @ d) / z - 1
            c = f.bend * (d @ d) / z
            t = (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a)
        return self.lens.project(d + t[..., None] * p)

    def unproject(self, pixels: ArrayLike) -> Float:
        """Unit rays (..., 3) from this point of the pupil through the focus of pixels (..., 2)."""
        return self.through(self.lens.unproject(pixels))

    def through(self, rays: Float) -> Float:
        """Unit rays from this point of the pupil, for the rays (..., 3) of the pupil's centre."""
        return normalize(self.focus.meet(rays) - self.offset)


@cache
def _disc(count: int) -> Float:
    """Even points (count, 2) of a disc of diameter 1: a spiral, set to the disc's centre and second moments.

    H. Vogel, Mathematical Biosciences 44 (1979), doi:10.1016/0025-5564(79)90080-4.
    """
    k = np.arange(count)
    radius, turn = 0.5 * np.sqrt((k + 0.5) / count), k * np.pi * (3 - np.sqrt(5))
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=-1)
    points -= points.mean(axis=0)
    # A disc of diameter 1 has the variance 1/16 along every axis.
    root = np.linalg.cholesky(points.T @ points / count)
    return np.asarray(0.25 * points @ np.linalg.inv(root).T)


def sights(lens: LensModel, optics: Optics) -> tuple[PupilSight, ...]:
    """Points of the entrance pupil, evenly over its disc; they count alike."""
    focus = FocalSurface.of(optics)
    offsets = np.pad(optics.pupil_mm * _disc(PUPIL_POINTS), ((0, 0), (0, 1)))
    return tuple(PupilSight(lens, focus, offset) for offset in offsets)
