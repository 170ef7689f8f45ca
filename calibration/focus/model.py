"""Focus model: where a camera is sharp, how fast it blurs away from there, and how sharp it gets."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from calibration.focus.blur import predicted_mtf50
from calibration.geometry import Float
from calibration.provenance import Array, Model, Provenance, Quality


class FocalSurface(Model):
    """Where a camera is sharp, and its blur elsewhere; a thin lens's.

    Points are sharp where ``1 / z = q(x, y) = 1 / distance + slopes . (x, y) + curvature / 2 (x^2 + y^2)``,
    with x = X / Z, y = Y / Z of the camera frame: a plane, bent by the curvature. A point at z makes a disc
    of diameter ``focal_px * pupil_mm * |1 / z - q|``, on top of what the lens blurs at its best.

    Attributes
    ----------
    distance_mm : float
        z of the sharp surface on the optical axis.
    tilt_deg : (float, float)
        Towards the camera to the right, and below: angles of the plane's intersection with y = 0 against x,
        and with x = 0 against y.
    curvature_per_mm : float
        One over the radius of the sharp surface; positive where it bends towards the camera.
    pupil_mm : float
        Diameter of the entrance pupil that makes the measured circles of confusion.
    floor_px : float
        Standard deviation of the blur in focus at the picture's centre, the pixel's own square taken off, as
        of a Gaussian.
    growth_px2 : (float, float)
        What its variance gains from the centre to the picture's corner, along the radius (tangential) and
        across it (sagittal).
    distance_sigma_mm, ... : float
        Standard deviations.
    covariance : ndarray (8, 8)
        Of 1 / distance, the two slopes, half the curvature (1 / mm), ``pupil_mm``, the floor's variance and
        the two of ``growth_px2``.
    """

    distance_mm: float = Field(gt=0)
    distance_sigma_mm: float
    tilt_deg: tuple[float, float]
    tilt_sigma_deg: tuple[float, float]
    curvature_per_mm: float
    curvature_sigma_per_mm: float
    pupil_mm: float = Field(gt=0)
    pupil_sigma_mm: float
    floor_px: float
    floor_sigma_px: float
    growth_px2: tuple[float, float]
    covariance: Array | None = None

    @property
    def inverse_mm(self) -> Float:
        """1 / distance, the slopes along x and y, half the curvature: (4,), 1 / mm."""
        slopes = np.tan(np.radians(self.tilt_deg)) / self.distance_mm
        return np.array([1 / self.distance_mm, *slopes, 0.5 * self.curvature_per_mm])

    def best_mtf50(self, disc_px: float = 0.0) -> float:
        """MTF50 at the picture's centre, across an edge along the pixels, out of focus by a disc."""
        variance, disc = np.array([self.floor_px**2]), np.array([disc_px])
        return float(predicted_mtf50(variance, disc, np.array([[1.0, 0.0]])).mtf50[0])

    def sharp_at(self, x: ArrayLike, y: ArrayLike) -> Float:
        """1 / z of the sharp point on the rays (x, y, 1)."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        q, a, b, bend = self.inverse_mm
        return np.asarray(q + a * x + b * y + bend * (x * x + y * y))


class ViewSharpness(Model):
    """One picture of the board.

    Attributes
    ----------
    name : str
    near_mm, far_mm : float
        z of its nearest and farthest edge; NaN where no edge could be measured.
    mtf50 : float
        Median of its edges, cycles / px.
    tangential, sagittal : float
        Medians of the edges across the radius (sharp along it) and of those along it; NaN where there are
        none.
    expected : float
        Median that the focal surface foretells; NaN without one.
    edges : int
        That could be measured.
    remark : str
        What is wrong with it; empty where nothing is.
    """

    name: str
    near_mm: float = float("nan")
    far_mm: float = float("nan")
    mtf50: float = float("nan")
    tangential: float = float("nan")
    sagittal: float = float("nan")
    expected: float = float("nan")
    edges: int = 0
    remark: str = ""


class FocusModel(Model):
    """Sharpness of a camera over its field and its depth.

    Attributes
    ----------
    width, height : int
        Of the picture, px.
    focal_px : float
        Geometric mean of the lens's fx and fy.
    surface : FocalSurface or None
        None where the views do not tell it; the warnings say what is missing.
    views : tuple of ViewSharpness
    edges : ndarray (n, 11)
        What all rests on, an edge a row: view, column, row (px), normal's column and row part, X, Y, Z (mm,
        camera frame), MTF50, its sigma (cycles / px), log of measured over expected MTF50 (NaN without a
        surface). An edge that the fit threw out has the view number -1 - view.
    curves : ndarray (101, 3)
        MTF over frequency: cycles / px, mean of the sharpest edges near the centre, and near the corners (NaN
        where there are none).
    """

    kind: Literal["focus"] = "focus"
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    focal_px: float = Field(gt=0)
    surface: FocalSurface | None = None
    views: tuple[ViewSharpness, ...] = ()
    edges: Array
    curves: Array
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    def blur_px(self, points_mm: ArrayLike) -> Float:
        """Diameter of the circle of confusion of points (..., 3) of the camera frame: (...) px.

        Raises
        ------
        ValueError
            There is no surface.
        """
        surface = self._known()
        p = np.asarray(points_mm, np.float64)
        x, y, z = p[..., 0], p[..., 1], p[..., 2]
        defocus = 1 / z - surface.sharp_at(x / z, y / z)
        return np.asarray(self.focal_px * surface.pupil_mm * np.abs(defocus))

    def _known(self) -> FocalSurface:
        if self.surface is None:
            raise ValueError("the focus model has no sharp surface: its views did not tell it")
        return self.surface


class Depth(NamedTuple):
    """What is sharp enough.

    Attributes
    ----------
    near_mm, far_mm : float
        Depth of field on the axis; far may be infinite.
    blur_px : float
        Largest circle of confusion in the volume, over the whole picture.
    best_mm : float
        Distance to focus at for the volume, at the present tilt.
    best_blur_px : float
        Largest circle then.
    stops : float
        How far the aperture must be closed to keep the limit as focused now (negative: may be opened), in
        stops: the f-number times 2 ** (stops / 2).
    best_stops : float
        The same when focused at ``best_mm``.
    """

    near_mm: float
    far_mm: float
    blur_px: float
    best_mm: float
    best_blur_px: float
    stops: float
    best_stops: float


def depth_of_field(
    model: FocusModel, volume_mm: tuple[float, float], limit_px: float, rays: ArrayLike = ((0.0, 0.0),)
) -> Depth:
    """Budget of the circle of confusion for a working volume.

    Follows from the measured growth of the blur with defocus, not from a nominal f-number. Diffraction, which
    grows as the aperture closes, is not in it.

    Parameters
    ----------
    model : FocusModel
        With a surface.
    volume_mm : (float, float)
        Nearest and farthest z.
    limit_px : float
        Largest diameter of the circle of confusion that is sharp enough.
    rays : array_like (n, 2)
        X / Z, Y / Z over which the volume reaches, for instance the picture's corners and centre.

    Raises
    ------
    ValueError
        No surface, or no volume or limit.
    """
    surface = model._known()
    near, far = volume_mm
    if not (0 < near <= far and limit_px > 0):
        raise ValueError("want 0 < near <= far and a limit above 0")
    scale = model.focal_px * surface.pupil_mm
    q, reach = 1 / surface.distance_mm, limit_px / scale
    x, y = np.asarray(rays, np.float64).reshape(-1, 2).T
    off = np.stack([1 / near - surface.sharp_at(x, y), 1 / far - surface.sharp_at(x, y)])
    shift = 0.5 * float(off.max() + off.min())
    worst, least = float(np.abs(off).max()), float(np.abs(off - shift).max())
    return Depth(
        1 / (q + reach),
        1 / (q - reach) if q > reach else float("inf"),
        scale * worst,
        1 / (q + shift) if q + shift > 0 else float("inf"),
        scale * least,
        _stops(scale * worst / limit_px),
        _stops(scale * least / limit_px),
    )


def blur_for_share(model: FocusModel, share: float) -> float:
    """Circle of confusion, px, that lowers the MTF50 of the centre to ``share`` (0 to 1) of the best."""
    surface = model._known()
    wanted = share * surface.best_mtf50()
    low, high = 0.0, 1.0
    while surface.best_mtf50(high) > wanted:
        low, high = high, 2 * high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if surface.best_mtf50(middle) > wanted else (low, middle)
    return 0.5 * (low + high)


def _stops(ratio: float) -> float:
    return 2 * float(np.log2(ratio)) if ratio > 0 else -float("inf")


def median_finite(values: Sequence[float] | Float) -> float:
    """Median of the finite values; NaN where there is none."""
    v = np.asarray(values, np.float64)
    v = v[np.isfinite(v)]
    return float(np.median(v)) if v.size else float("nan")
