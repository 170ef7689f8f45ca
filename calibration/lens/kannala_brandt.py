"""Fisheye lens after Kannala and Brandt, as OpenCV, Kalibr and ROS have it (``equidistant``)."""

from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from calibration.geometry import Float
from calibration.lens.model import CORE, Derivatives, LensModel

_NAMES = (*CORE, "k1", "k2", "k3", "k4")


class KannalaBrandt(LensModel):
    """Distance from the centre grows as theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8).

    Theta is the angle to the axis; also beyond 90 degrees.

    Attributes
    ----------
    k1, k2, k3, k4 : float
        Dimensionless, OpenCV's ``fisheye``.

    Notes
    -----
    Valid where the polynomial is monotone, out to ``valid_angle_rad``: beyond it ``project`` gives NaN, and
    ``unproject`` gives NaN for pixels outside the image of that cone. Rotationally symmetric: a decentred
    lens needs the splined model. J. Kannala and S. Brandt, PAMI 28 (2006), doi:10.1109/TPAMI.2006.153.
    """

    MODEL: ClassVar[str] = "kannala-brandt"

    kind: Literal["kannala-brandt"] = "kannala-brandt"
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """fx, fy, cx, cy, k1, k2, k3, k4."""
        return _NAMES

    @cached_property
    def valid_angle_rad(self) -> float:
        """Largest angle to the axis that is imaged; pi if the polynomial never turns back."""
        # Where 1 + 3 k1 t + 5 k2 t^2 + 7 k3 t^3 + 9 k4 t^4 = 0 first (t = theta^2), as a polynomial in 1 / t.
        roots = np.roots([1.0, 3 * self.k1, 5 * self.k2, 7 * self.k3, 9 * self.k4])
        turning = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots)) & (roots.real > 1e-12)]
        return min(float(turning.max() ** -0.5), np.pi) if turning.size else np.pi

    def _grown(self, theta: Float) -> tuple[Float, Float]:
        """Distance from the centre, in focal lengths, and its derivative by theta."""
        t = theta * theta
        grown = theta * (1 + t * (self.k1 + t * (self.k2 + t * (self.k3 + t * self.k4))))
        slope = 1 + t * (3 * self.k1 + t * (5 * self.k2 + t * (7 * self.k3 + t * 9 * self.k4)))
        return grown, slope

    def _distort(self, points: Float) -> tuple[Float, Float]:
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        r = np.hypot(x, y)
        theta = np.arctan2(r, z)
        with np.errstate(invalid="ignore", divide="ignore"):
            imaged = (theta < self.valid_angle_rad) & ((r > 0) | (z > 0))
            scale = np.where(imaged, self._grown(theta)[0] / r, np.nan)
            # On the axis r = 0 = grown.
            scale = np.where((r == 0) & (z > 0), 1 / z, scale)
        return x * scale, y * scale

    def _undistort(self, xd: Float, yd: Float) -> Float:
        r = np.hypot(xd, yd)
        theta = self._angle(r.ravel()).reshape(r.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            side = np.where(r > 0, np.sin(theta) / r, 1.0)
        return np.stack([xd * side, yd * side, np.cos(theta)], axis=-1)

    def _angle(self, r: Float) -> Float:
        """Angle to the axis (n,) imaged at r (n,) focal lengths from the centre; NaN beyond."""
        limit = self.valid_angle_rad
        out = np.full(r.shape, np.nan)
        open_ = np.flatnonzero(r < self._grown(np.asarray(limit))[0])
        # Newton, held inside the monotone part by bisection: the derivative vanishes at its end.
        r = r[open_]
        low, high, theta = np.zeros_like(r), np.full_like(r, limit), np.minimum(r, 0.9 * limit)
        for _ in range(100):
            grown, slope = self._grown(theta)
            error = grown - r
            low, high = np.where(error < 0, theta, low), np.where(error > 0, theta, high)
            with np.errstate(invalid="ignore", divide="ignore"):
                newton = theta - error / slope
            following = np.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            moving = np.abs(following - theta) > 2e-16 * (1 + theta)
            theta = following
            out[open_] = theta
            if moving.all():
                continue
            open_, r, theta, low, high = (a[moving] for a in (open_, r, theta, low, high))
            if not open_.size:
                break
        return out

    def derivatives(self, points: Float) -> Derivatives:
        """Projection of points (n, 3) with its derivatives."""
        xd, yd = self._distort(points)
        x, y, z = np.where(np.isfinite(xd), points.T, np.nan)
        r2 = x * x + y * y
        r, length2 = np.sqrt(r2), r2 + z * z
        theta = np.arctan2(r, z)
        grown, slope = self._grown(theta)
        with np.errstate(invalid="ignore", divide="ignore"):
            on_axis = r < 1e-9 * z
            scale = np.where(on_axis, 1 / z, grown / r)
            # d (grown / r) / d r over r, and the part by z.
            along = np.where(on_axis, 0.0, (slope * z / length2 - scale) / r2)
            by_z = -slope / length2
            t = theta * theta
            base = np.where(on_axis, 1 / z, theta / r)
        pixels = np.stack([self.fx * xd + self.cx, self.fy * yd + self.cy], axis=-1)
        by_points = np.empty((len(points), 2, 3))
        by_points[:, 0] = np.stack([scale + along * x * x, along * x * y, by_z * x], axis=-1) * self.fx
        by_points[:, 1] = np.stack([along * x * y, scale + along * y * y, by_z * y], axis=-1) * self.fy
        by_parameters = np.zeros((len(points), 2, len(_NAMES)))
        by_parameters[:, 0, 0], by_parameters[:, 1, 1] = xd, yd
        by_parameters[:, 0, 2] = by_parameters[:, 1, 3] = 1
        for power in range(1, 5):
            by = base * t**power
            by_parameters[:, 0, 3 + power], by_parameters[:, 1, 3 + power] = (
                self.fx * x * by,
                self.fy * y * by,
            )
        return Derivatives(pixels, by_points, by_parameters)
