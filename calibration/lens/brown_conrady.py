"""Pinhole with Brown-Conrady distortion: OpenCV's five parameters, and the eight of its rational model."""

from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import field_validator

from calibration.geometry import Float
from calibration.lens.model import CORE, Derivatives, LensModel

_NAMES = (*CORE, "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")


class BrownConrady(LensModel):
    """Pinhole with radial and tangential distortion.

    With s = (x^2 + y^2) / z^2 the radial factor is
    (1 + k1 s + k2 s^2 + k3 s^3) / (1 + k4 s + k5 s^2 + k6 s^3).

    Attributes
    ----------
    k1, k2, p1, p2, k3, k4, k5, k6 : float
        Radial and tangential distortion, dimensionless, in OpenCV's order and convention. The five-parameter
        model is that of k4 = k5 = k6 = 0.

    Notes
    -----
    Valid where the radial function is monotone, out to ``valid_tangent``: beyond it the image turns back, and
    ``project`` and ``unproject`` give NaN. Where no corner was seen (the edges of the image, usually) it is
    extrapolated. A lens wider than about 120 degrees needs another model. D. C. Brown, "Close-range camera
    calibration", Photogrammetric Engineering 37 (1971).
    """

    MODEL: ClassVar[str] = "brown-conrady"

    kind: Literal["lens"] = "lens"
    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0

    @field_validator("covariance", mode="before")
    @classmethod
    def _of_five(cls, value: Any) -> Any:
        # Models of earlier versions had no k4, k5, k6.
        if isinstance(value, np.ndarray) and value.shape == (9, 9):
            return np.pad(value, (0, 3))
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6."""
        return _NAMES

    @property
    def parameters(self) -> Float:
        """Values (12,) in the order of ``names``."""
        return np.array([getattr(self, name) for name in _NAMES])

    def with_parameters(self, values: Float) -> Self:
        """Copy with other values (12,), without evidence."""
        return self._bare(**dict(zip(_NAMES, np.asarray(values, np.float64).tolist(), strict=True)))

    @cached_property
    def valid_tangent(self) -> float:
        """Tangent of the largest angle to the axis that is imaged; inf if the image never turns back."""
        # r N(s) / D(s) with s = r^2 turns where N D + 2 s (N' D - N D') = 0, or has its pole where D = 0.
        n = np.polynomial.Polynomial([1.0, self.k1, self.k2, self.k3])
        d = np.polynomial.Polynomial([1.0, self.k4, self.k5, self.k6])
        s = np.polynomial.Polynomial([0.0, 1.0])
        turning = [*_positive_roots(n * d + 2 * s * (n.deriv() * d - n * d.deriv())), *_positive_roots(d)]
        return min(turning) ** 0.5 if turning else float("inf")

    @property
    def valid_angle_rad(self) -> float:
        """Largest angle to the axis up to which every direction is imaged; below pi / 2."""
        return float(np.arctan(self.valid_tangent))

    def _distort(self, points: Float) -> tuple[Float, Float]:
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
            x, y = points[..., 0] / z, points[..., 1] / z
            x = np.where(np.hypot(x, y) < self.valid_tangent, x, np.nan)
        r2 = x * x + y * y
        radial = self._radial(r2)[0]
        xy2 = 2 * x * y
        return (
            x * radial + self.p1 * xy2 + self.p2 * (r2 + 2 * x * x),
            y * radial + self.p1 * (r2 + 2 * y * y) + self.p2 * xy2,
        )

    def _radial(self, r2: Float) -> tuple[Float, Float]:
        """Radial factor, and twice its derivative by r2."""
        over = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        slope = 2 * (self.k1 + r2 * (2 * self.k2 + 3 * r2 * self.k3))
        if not (self.k4 or self.k5 or self.k6):
            return over, slope
        under = 1 + r2 * (self.k4 + r2 * (self.k5 + r2 * self.k6))
        radial = over / under
        return radial, (slope - radial * 2 * (self.k4 + r2 * (2 * self.k5 + 3 * r2 * self.k6))) / under

    def _undistort(self, xd: Float, yd: Float) -> Float:
        x, y = self._undistorted(xd, yd)
        return np.stack([x, y, np.ones_like(x)], axis=-1)

    def _undistorted(self, xd: Float, yd: Float) -> tuple[Float, Float]:
        if not any(self.parameters[4:]):
            return xd, yd
        # Newton on the 2 x 2 Jacobian: the usual fixed-point iteration stalls at strong distortion. Held
        # inside the valid circle, it cannot run to a root beyond the turning point.
        limit2 = 0.999 * self.valid_tangent**2
        x, y = xd.copy(), yd.copy()
        error = det = np.zeros(())
        for _ in range(25):
            if np.isfinite(limit2):
                shrink = np.sqrt(limit2 / np.maximum(x * x + y * y, limit2))
                x, y = x * shrink, y * shrink
            xx, yy, xy = x * x, y * y, x * y
            r2 = xx + yy
            radial, slope = self._radial(r2)
            ex = x * radial + 2 * self.p1 * xy + self.p2 * (r2 + 2 * xx) - xd
            ey = y * radial + self.p1 * (r2 + 2 * yy) + 2 * self.p2 * xy - yd
            error = np.maximum(np.abs(ex), np.abs(ey))
            jxx = radial + slope * xx + 2 * self.p1 * y + 6 * self.p2 * x
            jyy = radial + slope * yy + 6 * self.p1 * y + 2 * self.p2 * x
            jxy = slope * xy + 2 * self.p1 * x + 2 * self.p2 * y
            det = jxx * jyy - jxy * jxy
            if not np.nanmax(error, initial=0.0) > 1e-14:
                break
            with np.errstate(invalid="ignore", divide="ignore"):
                x, y = x - (jyy * ex - jxy * ey) / det, y - (jxx * ey - jxy * ex) / det
        with np.errstate(invalid="ignore"):
            ok = (error < 1e-13) & (det > 0)
        return np.where(ok, x, np.nan), np.where(ok, y, np.nan)

    def derivatives(self, points: Float) -> Derivatives:
        """Projection of points (n, 3) with its derivatives."""
        with np.errstate(invalid="ignore", divide="ignore"):
            iz = 1 / np.where(points[:, 2] > 0, points[:, 2], np.nan)
            x, y = points[:, 0] * iz, points[:, 1] * iz
            x = np.where(np.hypot(x, y) < self.valid_tangent, x, np.nan)
        fx, fy, p1, p2 = self.fx, self.fy, self.p1, self.p2
        r2, xy = x * x + y * y, x * y
        radial, slope = self._radial(r2)
        ax, ay = r2 + 2 * x * x, r2 + 2 * y * y
        xd = x * radial + 2 * p1 * xy + p2 * ax
        yd = y * radial + p1 * ay + 2 * p2 * xy
        pixels = np.stack([fx * xd + self.cx, fy * yd + self.cy], axis=-1)
        by_parameters = np.zeros((len(points), 2, len(_NAMES)))
        by_parameters[:, 0, 0], by_parameters[:, 1, 1] = xd, yd
        by_parameters[:, 0, 2] = by_parameters[:, 1, 3] = 1
        under = 1 + r2 * (self.k4 + r2 * (self.k5 + r2 * self.k6))
        for columns, factor in (((4, 5, 8), 1 / under), ((9, 10, 11), -radial / under)):
            for power, column in enumerate(columns, 1):
                by = factor * r2**power
                by_parameters[:, 0, column], by_parameters[:, 1, column] = fx * x * by, fy * y * by
        by_parameters[:, 0, 6], by_parameters[:, 1, 6] = 2 * fx * xy, fy * ay
        by_parameters[:, 0, 7], by_parameters[:, 1, 7] = fx * ax, 2 * fy * xy
        jxx = fx * (radial + slope * x * x + 2 * p1 * y + 6 * p2 * x)
        jyy = fy * (radial + slope * y * y + 6 * p1 * y + 2 * p2 * x)
        cross = slope * xy + 2 * p1 * x + 2 * p2 * y
        by_points = np.zeros((len(points), 2, 3))
        by_points[:, 0, 0], by_points[:, 0, 1] = jxx * iz, fx * cross * iz
        by_points[:, 1, 0], by_points[:, 1, 1] = fy * cross * iz, jyy * iz
        by_points[:, 0, 2] = -(by_points[:, 0, 0] * x + by_points[:, 0, 1] * y)
        by_points[:, 1, 2] = -(by_points[:, 1, 0] * x + by_points[:, 1, 1] * y)
        return Derivatives(pixels, by_points, by_parameters)


def _positive_roots(polynomial: np.polynomial.Polynomial) -> list[float]:
    """Real roots above 0 of a polynomial whose constant is not 0."""
    # As a polynomial in 1 / s, whose leading coefficient cannot vanish.
    roots = np.roots(polynomial.coef)
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots)) & (roots.real > 1e-12)]
    return [1 / float(root) for root in real]
