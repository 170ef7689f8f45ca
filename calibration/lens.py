"""Lens model: Brown-Conrady projection with covariance, its fit from board corners, undistortion."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from calibration.geometry import Float, normalize
from calibration.provenance import Array, Model, Provenance, Quality


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
        Board poses (rotation vector rad, translation mm, camera_from_board) of the fit.

    Notes
    -----
    Valid where the radial polynomial is monotone; ``unproject`` gives NaN beyond. D. C. Brown,
    "Close-range camera calibration", Photogrammetric Engineering 37 (1971).
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
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    def project(self, points: ArrayLike) -> Float:
        """Image of points in the camera frame: (..., 3) mm -> (..., 2) px; NaN behind the camera."""
        p = np.asarray(points, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(p[..., 2] > 0, p[..., 2], np.nan)
            x, y = p[..., 0] / z, p[..., 1] / z
        xd, yd = self._distort(x, y)
        return np.stack([self.fx * xd + self.cx, self.fy * yd + self.cy], axis=-1)

    def unproject(self, pixels: ArrayLike) -> Float:
        """Unit ray through pixels: (..., 2) px -> (..., 3), z > 0; NaN where the model has no inverse."""
        p = np.asarray(pixels, np.float64)
        xd, yd = (p[..., 0] - self.cx) / self.fx, (p[..., 1] - self.cy) / self.fy
        x, y = self._undistort(xd, yd)
        return normalize(np.stack([x, y, np.ones_like(x)], axis=-1))

    def _distort(self, x: Float, y: Float) -> tuple[Float, Float]:
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        return (
            x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x),
            y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y,
        )

    def _undistort(self, xd: Float, yd: Float) -> tuple[Float, Float]:
        # Newton on the 2 x 2 Jacobian: the usual fixed-point iteration stalls at strong distortion.
        x, y = xd.copy(), yd.copy()
        for _ in range(20):
            r2 = x * x + y * y
            radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
            slope = 2 * (self.k1 + r2 * (2 * self.k2 + 3 * r2 * self.k3))
            ex, ey = (a - b for a, b in zip(self._distort(x, y), (xd, yd), strict=True))
            jxx = radial + slope * x * x + 2 * self.p1 * y + 6 * self.p2 * x
            jyy = radial + slope * y * y + 6 * self.p1 * y + 2 * self.p2 * x
            jxy = slope * x * y + 2 * self.p1 * x + 2 * self.p2 * y
            with np.errstate(invalid="ignore", divide="ignore"):
                det = jxx * jyy - jxy * jxy
                dx, dy = (jyy * ex - jxy * ey) / det, (jxx * ey - jxy * ex) / det
            x, y = x - dx, y - dy
            if not np.nanmax(np.abs(dx) + np.abs(dy), initial=0.0) > 1e-14:
                break
        back_x, back_y = self._distort(x, y)
        with np.errstate(invalid="ignore"):
            ok = (np.hypot(back_x - xd, back_y - yd) < 1e-11) & (det > 0)
        return np.where(ok, x, np.nan), np.where(ok, y, np.nan)
