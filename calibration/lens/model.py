"""Lens model: where a point of the camera frame is seen, and the ray of a pixel."""

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from calibration.geometry import Float, normalize
from calibration.provenance import Array, Model, Provenance, Quality

PARAMETERS = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")
_ROWS_AT_ONCE = 32  # keeps the scratch arrays of the inverse in the cache


class LensModel(Model):
    """Pinhole with Brown-Conrady distortion, OpenCV's five parameters.

    Pixel (0, 0) is the centre of the top-left pixel. Camera frame: x right, y down, z forward.

    Attributes
    ----------
    fx, fy, cx, cy : float
        Focal lengths and principal point, px.
    k1, k2, p1, p2, k3 : float
        Radial and tangential distortion, dimensionless, in OpenCV's convention.
    covariance : ndarray (9, 9) or None
        Of (fx, fy, cx, cy, k1, k2, p1, p2, k3); zero rows for parameters held fixed.
    views : ndarray (v, 6) or None
        Board poses (rotation vector rad, translation mm, camera_from_board) of the fit; NaN where a
        view was left out.
    observations : ndarray (n, 8) or None
        What the fit rests on, one corner a row: view, board x, y, z (mm), pixel x, y, residual x, y (px,
        measured minus model). A corner that was thrown out has the view number -1 - view.

    Notes
    -----
    Valid where the radial polynomial is monotone, out to ``valid_tangent``: beyond it the polynomial
    turns back, and ``project`` and ``unproject`` give NaN. Where no corner was seen (the edges of the
    image, usually) the polynomial is extrapolated; ``quality.warnings`` says when coverage is small. A lens
    wider than about 120 degrees needs another model. D. C. Brown, "Close-range camera calibration",
    Photogrammetric Engineering 37 (1971).
    """

    kind: Literal["lens"] = "lens"
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    fx: float = Field(gt=0)
    fy: float = Field(gt=0)
    cx: float
    cy: float
    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    k3: float = 0.0
    covariance: Array | None = None
    views: Array | None = None
    observations: Array | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    @property
    def parameters(self) -> Float:
        """(fx, fy, cx, cy, k1, k2, p1, p2, k3), the order of ``covariance``."""
        return np.array([getattr(self, name) for name in PARAMETERS])

    @cached_property
    def valid_tangent(self) -> float:
        """Tangent of the largest angle to the axis that is imaged; inf if the polynomial never turns back."""
        # Where 1 + 3 k1 r^2 + 5 k2 r^4 + 7 k3 r^6 = 0 first, as a polynomial in 1 / r^2.
        roots = np.roots([1.0, 3 * self.k1, 5 * self.k2, 7 * self.k3])
        turning = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots)) & (roots.real > 1e-12)]
        return float(turning.max() ** -0.5) if turning.size else float("inf")

    def project(self, points: ArrayLike) -> Float:
        """Image of points in the camera frame: (..., 3) mm -> (..., 2) px; NaN behind or beyond validity."""
        p = np.asarray(points, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(p[..., 2] > 0, p[..., 2], np.nan)
            x, y = p[..., 0] / z, p[..., 1] / z
            x = np.where(np.hypot(x, y) < self.valid_tangent, x, np.nan)
        xd, yd = self._distort(x, y)
        return np.stack([self.fx * xd + self.cx, self.fy * yd + self.cy], axis=-1)

    def unproject(self, pixels: ArrayLike) -> Float:
        """Unit ray through pixels: (..., 2) px -> (..., 3), z > 0; NaN where the model has no inverse."""
        p = np.asarray(pixels, np.float64)
        xd, yd = (p[..., 0] - self.cx) / self.fx, (p[..., 1] - self.cy) / self.fy
        x, y = self._undistort(xd, yd)
        return normalize(np.stack([x, y, np.ones_like(x)], axis=-1))

    def rays(self) -> NDArray[np.float32]:
        """Unit ray of every pixel: (height, width, 3), float32; NaN where the model has no inverse."""
        out = np.empty((self.height, self.width, 3), np.float32)
        xd = (np.arange(self.width) - self.cx) / self.fx
        for top in range(0, self.height, _ROWS_AT_ONCE):
            rows = np.arange(top, min(top + _ROWS_AT_ONCE, self.height))
            x, y = self._undistort(*np.meshgrid(xd, (rows - self.cy) / self.fy))
            scale = 1 / np.sqrt(x * x + y * y + 1)
            out[rows, :, 0], out[rows, :, 1], out[rows, :, 2] = x * scale, y * scale, scale
        return out

    def _distort(self, x: Float, y: Float) -> tuple[Float, Float]:
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        xy2 = 2 * x * y
        return (
            x * radial + self.p1 * xy2 + self.p2 * (r2 + 2 * x * x),
            y * radial + self.p1 * (r2 + 2 * y * y) + self.p2 * xy2,
        )

    def _undistort(self, xd: Float, yd: Float) -> tuple[Float, Float]:
        if not any((self.k1, self.k2, self.p1, self.p2, self.k3)):
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
            radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
            slope = 2 * (self.k1 + r2 * (2 * self.k2 + 3 * r2 * self.k3))
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


def jacobians(parameters: Float, points: Float) -> tuple[Float, Float, Float]:
    """Projection with its derivatives, for fits.

    Parameters
    ----------
    parameters : ndarray (9,)
        In the order of ``LensModel.parameters``.
    points : ndarray (n, 3)
        Camera frame, in front of the camera.

    Returns
    -------
    pixels : ndarray (n, 2)
    by_parameters : ndarray (n, 2, 9)
    by_points : ndarray (n, 2, 3)
    """
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = parameters
    iz = 1 / points[:, 2]
    x, y = points[:, 0] * iz, points[:, 1] * iz
    r2, xy = x * x + y * y, x * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2 * (k1 + r2 * (2 * k2 + 3 * r2 * k3))
    ax, ay = r2 + 2 * x * x, r2 + 2 * y * y
    xd = x * radial + 2 * p1 * xy + p2 * ax
    yd = y * radial + p1 * ay + 2 * p2 * xy
    pixels = np.stack([fx * xd + cx, fy * yd + cy], axis=-1)
    by_parameters = np.zeros((len(points), 2, 9))
    by_parameters[:, 0, 0], by_parameters[:, 1, 1] = xd, yd
    by_parameters[:, 0, 2] = by_parameters[:, 1, 3] = 1
    for column, power in ((4, r2), (5, r2**2), (8, r2**3)):
        by_parameters[:, 0, column], by_parameters[:, 1, column] = fx * x * power, fy * y * power
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
    return pixels, by_parameters, by_points
