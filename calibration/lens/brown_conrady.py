"""Pinhole with Brown-Conrady distortion: OpenCV's five parameters, and the eight of its rational model."""

from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
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
    Valid out to ``valid_tangent``, where the image turns back (its derivative stops being positive definite)
    or runs to infinity (a pole of the rational model). Beyond it ``project`` gives NaN, and ``unproject``
    gives NaN for pixels that no direction within it reaches. The disc is convex and the derivative, which is
    symmetric, positive definite in all of it: no two directions share a pixel. Where no corner was seen (the
    edges of the image, usually) the model is extrapolated. A lens wider than about 120 degrees needs another.
    D. C. Brown, "Close-range camera calibration", Photogrammetric Engineering 37 (1971); k4, k5 and k6 are
    those of OpenCV's rational model.
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

    @cached_property
    def valid_tangent(self) -> float:
        """Tangent of the largest angle to the axis that is imaged; inf if the image never turns back."""
        # Along and across the radius the derivative is diag(m, g) + 2 r [[3 a, b], [b, a]]: g = N / D, m =
        # d(r g) / dr, and (a, b) the tangential coefficients along and across. The eigenvalues of the second
        # part are at least -6 r hypot(p1, p2): positive definite on all sides while m and g are above that.
        # As coefficients of the powers of r: this is asked for at every step of a fit.
        power = np.arange(7)
        n = np.array([1.0, 0, self.k1, 0, self.k2, 0, self.k3])
        d = np.array([1.0, 0, self.k4, 0, self.k5, 0, self.k6])
        bent = 6 * float(np.hypot(self.p1, self.p2))
        if d[1:].any():
            m = np.append(np.convolve((1 + power) * n, d) - np.convolve(n, power * d), 0.0)
            m[1:] -= bent * np.convolve(d, d)
        else:
            m = np.append((1 + power) * n, 0.0)
            m[1] -= bent
        g = np.append(n, 0.0)
        g[1:] -= bent * d
        ends = [*_positive_roots(m), *_positive_roots(g), *_positive_roots(d)]
        return min(ends, default=float("inf"))

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
        shape = xd.shape
        xd, yd = xd.ravel(), yd.ravel()
        # Nearly all pixels need a few steps, those at the end of the valid disc, where the image turns, many.
        x, y, done = self._newton(xd, yd, xd, yd, 6)
        rest = np.flatnonzero(~done & np.isfinite(xd + yd))
        if rest.size:
            x[rest], y[rest], done[rest] = self._newton(xd[rest], yd[rest], x[rest], y[rest], 100)
        return np.where(done, x, np.nan).reshape(shape), np.where(done, y, np.nan).reshape(shape)

    def _newton(
        self, xd: Float, yd: Float, x: Float, y: Float, steps: int
    ) -> tuple[Float, Float, NDArray[np.bool_]]:
        """Newton from (x, y), and where it arrived.

        The derivative is the Hessian of a convex function on the valid disc. Steps that do not lessen the
        error are halved until they do; held inside the disc, they cannot run to a root beyond it.
        """
        limit2 = (self.valid_tangent * (1 - 1e-9)) ** 2
        best, x_best, y_best = np.full(xd.shape, np.inf), x, y
        dx, dy = np.zeros_like(x), np.zeros_like(y)
        size, rounding = 1 + np.hypot(xd, yd), np.zeros(xd.shape)
        done = np.zeros(xd.shape, dtype=bool)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for _ in range(steps):
                if np.isfinite(limit2):
                    shrink = np.sqrt(limit2 / np.maximum(x * x + y * y, limit2))
                    x, y = x * shrink, y * shrink
                xx, yy, xy = x * x, y * y, x * y
                r2 = xx + yy
                radial, slope = self._radial(r2)
                ex = x * radial + 2 * self.p1 * xy + self.p2 * (r2 + 2 * xx) - xd
                ey = y * radial + self.p1 * (r2 + 2 * yy) + 2 * self.p2 * xy - yd
                error = np.hypot(ex, ey)
                # A pixel that has arrived stays, whatever its neighbours still need.
                better = (error < best) & ~done
                jxx = radial + slope * xx + 2 * self.p1 * y + 6 * self.p2 * x
                jyy = radial + slope * yy + 6 * self.p1 * y + 2 * self.p2 * x
                jxy = slope * xy + 2 * self.p1 * x + 2 * self.p2 * y
                det = jxx * jyy - jxy * jxy
                dx = np.where(better, -(jyy * ex - jxy * ey) / det, 0.5 * dx)
                dy = np.where(better, -(jxx * ey - jxy * ex) / det, 0.5 * dy)
                best = np.where(better, error, best)
                x_best, y_best = np.where(better, x, x_best), np.where(better, y, y_best)
                # What rounding of x and of the sum leaves; near a pole the first is the larger.
                rounding = np.where(better, 2e-15 * (size + (jxx + jyy) * np.sqrt(r2)), rounding)
                done = best <= rounding
                if done.all():
                    break
                x, y = x_best + dx, y_best + dy
        return x_best, y_best, done

    def derivatives(self, points: Float) -> Derivatives:
        """Projection of points (n, 3) with its derivatives."""
        from calibration.lens.kernels import brown_conrady

        at = np.ascontiguousarray(points, np.float64)
        pixels, by_points, by_parameters = brown_conrady(at, self.parameters, self.valid_tangent)
        return Derivatives(pixels, by_points, by_parameters)


def _positive_roots(coefficients: Float) -> list[float]:
    """Real roots above 0 of a polynomial, from its constant up, which is 1."""
    if not np.any(coefficients < 0):
        return []  # as Descartes's rule of signs has it; the constant is 1
    # As a polynomial in 1 / r, whose leading coefficient cannot vanish: eigenvalues of its companion.
    count = int(np.flatnonzero(coefficients)[-1])
    companion = np.eye(count, k=-1)
    companion[:1] = -coefficients[1 : count + 1] / coefficients[0]
    roots = np.linalg.eigvals(companion)
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots)) & (roots.real > 1e-9)]
    return [1 / float(root) for root in real]
