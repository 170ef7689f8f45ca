"""Lens model: where a point of the camera frame is seen, and the ray of a pixel; what all models share."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from calibration.geometry import Float, normalize
from calibration.provenance import Array, Model, Provenance, Quality

CORE = ("fx", "fy", "cx", "cy")
_ROWS_AT_ONCE = 32  # keeps the scratch arrays of the inverse in the cache


class Derivatives(NamedTuple):
    """Projection of n points with its derivatives, for fits.

    Attributes
    ----------
    pixels : ndarray (n, 2)
        NaN where the model images nothing.
    by_points : ndarray (n, 2, 3)
        By the point's coordinates, px / mm.
    by_parameters : ndarray (n, 2, m)
        By the parameters a point depends on.
    columns : ndarray (n, m), int64, or None
        Which parameters those are; None where they are all of them, in order.
    """

    pixels: Float
    by_points: Float
    by_parameters: Float
    columns: NDArray[np.int64] | None = None


class BoardShape(Model):
    """A printed board beside its description.

    A corner described at x, y, z lies at scale x, scale aspect y, scale z + bulge; the bulge is
    warp[0] (1 - u^2) + warp[1] (1 - v^2), with u and v from -1 to 1 over the board. Away from the camera is
    positive.

    Attributes
    ----------
    warp_mm : tuple of float
        Height of the two parabolas, along x and along y.
    aspect, scale : float
    centre_mm, half_mm : tuple of float
        Middle and half the size of the board as described: where u = v = 0, and how far to 1.
    warp_sigma_mm : tuple of float
    aspect_sigma, scale_sigma : float
        0 for what was held.
    """

    warp_mm: tuple[float, float] = (0.0, 0.0)
    aspect: float = Field(1.0, gt=0)
    scale: float = Field(1.0, gt=0)
    centre_mm: tuple[float, float] = (0.0, 0.0)
    half_mm: tuple[float, float] = (1.0, 1.0)
    warp_sigma_mm: tuple[float, float] = (0.0, 0.0)
    aspect_sigma: float = 0.0
    scale_sigma: float = 0.0

    @property
    def values(self) -> Float:
        """What a fit may change, (4,): warp along x and y, aspect, scale."""
        return np.array([*self.warp_mm, self.aspect, self.scale])

    def with_values(self, values: Float) -> Self:
        """Copy with other values (4,)."""
        wx, wy, aspect, scale = np.asarray(values, np.float64).tolist()
        return self.replace(warp_mm=(wx, wy), aspect=aspect, scale=scale)

    def shaped(self, points: Float) -> Float:
        """Where corners described at (n, 3) lie, mm."""
        if self.aspect == self.scale == 1 and not any(self.warp_mm):
            return points
        bulge = self._bulge(points) @ np.array(self.warp_mm)
        out = points * (self.scale, self.scale * self.aspect, self.scale)
        out[:, 2] += bulge
        return np.asarray(out)

    def by_values(self, points: Float) -> Float:
        """Derivative of ``shaped`` by ``values``: (n, 3, 4)."""
        out = np.zeros((len(points), 3, 4))
        out[:, 2, :2] = self._bulge(points)
        out[:, 1, 2] = self.scale * points[:, 1]
        out[:, :, 3] = points * (1, self.aspect, 1)
        return out

    def _bulge(self, points: Float) -> Float:
        return np.asarray(1 - ((points[:, :2] - self.centre_mm) / self.half_mm) ** 2)


class CandidateScore(Model):
    """How well a model predicts corners that its fit has not seen.

    Attributes
    ----------
    model : str
    held_out_rms_px : float or None
        Of a coordinate, over the corners of held-out views; None where the model could not be fitted.
    worse_px, worse_sigma_px : float or None
        How much that is above the best model's, and the standard error of the difference.
    failure : str
        Why it could not be fitted.
    """

    model: str
    held_out_rms_px: float | None = None
    worse_px: float | None = None
    worse_sigma_px: float | None = None
    failure: str = ""


class ModelScores(Model):
    """How a lens's model was chosen: ``candidates`` from the plainest on, the one ``chosen``, and why."""

    candidates: tuple[CandidateScore, ...]
    chosen: str
    reason: str
    folds: int = 0


class LensModel(Model, ABC):
    """A central camera: pixel = (fx, fy) * distorted(ray) + (cx, cy).

    Pixel (0, 0) is the centre of the top-left pixel. Camera frame: x right, y down, z forward. The closed
    list of models is ``BrownConrady``, ``KannalaBrandt`` and ``SplinedLens``; ``Lens`` is their union, for
    fields of other models.

    Attributes
    ----------
    width, height : int
        Image size, px.
    fx, fy, cx, cy : float
        Focal lengths and principal point, px.
    covariance : ndarray (p, p) or None
        Of ``parameters``; zero rows for those held fixed. Errors of corners count as independent, unless the
        views were found to disagree.
    covariance_factor : float
        By which it, and the squares of the board's sigmas, were enlarged since the views disagree by more
        than independent errors of their corners explain; 1 where they agree, or where that was not asked.
    views : ndarray (v, 6) or None
        Board poses (rotation vector rad, translation mm, camera_from_board) of the fit; NaN where a
        view was left out.
    observations : ndarray (n, 9) or None
        What the fit rests on, one corner a row: view, board x, y, z (mm), pixel x, y, residual x, y (px,
        measured minus model), sigma of a pixel coordinate as the detection told it (px). A corner that was
        thrown out has the view number -1 - view. Eight columns, without sigma, in models of earlier versions.
    view_names : tuple of str
        Of the views, in their order; empty where nobody named them.
    board : BoardShape or None
        The shape that the fit found the board to have; None where it was taken as described.
    scores : ModelScores or None
        Where the model was chosen among several.
    """

    MODEL: ClassVar[str]
    """Name of the model in options, reports and warnings."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    fx: float = Field(gt=0)
    fy: float = Field(gt=0)
    cx: float
    cy: float
    covariance: Array | None = None
    covariance_factor: float = Field(1.0, ge=1)
    views: Array | None = None
    observations: Array | None = None
    view_names: tuple[str, ...] = ()
    board: BoardShape | None = None
    scores: ModelScores | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of ``parameters``, in the order of ``covariance``; the first four are fx, fy, cx, cy."""

    @property
    def parameters(self) -> Float:
        """Values (p,) that a fit may change, in the order of ``names``."""
        return np.array([getattr(self, name) for name in self.names])

    def with_parameters(self, values: Float) -> Self:
        """Copy with other values (p,), without the evidence of a fit."""
        return self._bare(**dict(zip(self.names, np.asarray(values, np.float64).tolist(), strict=True)))

    @property
    @abstractmethod
    def valid_angle_rad(self) -> float:
        """Largest angle to the axis up to which every direction is imaged; pi if there is no limit."""

    @abstractmethod
    def derivatives(self, points: Float) -> Derivatives:
        """Projection of points (n, 3) with its derivatives."""

    @abstractmethod
    def _distort(self, points: Float) -> tuple[Float, Float]:
        """(pixel - c) / f of points (..., 3); NaN where the model images nothing."""

    @abstractmethod
    def _undistort(self, xd: Float, yd: Float) -> Float:
        """Direction (..., 3), of any length, imaged at xd, yd = (pixel - c) / f; NaN where none is."""

    def project(self, points: ArrayLike) -> Float:
        """Image of points of the camera frame: (..., 3) mm -> (..., 2) px; NaN where nothing is imaged."""
        xd, yd = self._distort(np.asarray(points, np.float64))
        return np.stack([self.fx * xd + self.cx, self.fy * yd + self.cy], axis=-1)

    def unproject(self, pixels: ArrayLike) -> Float:
        """Unit ray through pixels: (..., 2) px -> (..., 3); NaN where the model has no inverse."""
        p = np.asarray(pixels, np.float64)
        p = np.where(np.isfinite(p).all(axis=-1, keepdims=True), p, np.nan)
        return normalize(self._undistort((p[..., 0] - self.cx) / self.fx, (p[..., 1] - self.cy) / self.fy))

    def rays(self) -> NDArray[np.float32]:
        """Unit ray of every pixel: (height, width, 3), float32; NaN where the model has no inverse."""
        out = np.empty((self.height, self.width, 3), np.float32)
        xd = (np.arange(self.width) - self.cx) / self.fx
        for top in range(0, self.height, _ROWS_AT_ONCE):
            rows = np.arange(top, min(top + _ROWS_AT_ONCE, self.height))
            direction = self._undistort(*np.meshgrid(xd, (rows - self.cy) / self.fy))
            out[rows] = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        return out

    def _bare(self, **changes: object) -> Self:
        """Copy without the evidence of a fit, which holds for the old parameters only."""
        gone: dict[str, object] = {
            "covariance": None, "covariance_factor": 1.0, "views": None, "observations": None,
            "view_names": (), "board": None, "scores": None, "quality": None,
        }  # fmt: skip
        return self.replace(**gone, **changes)
