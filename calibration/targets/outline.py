"""The outline of a sphere: the curve it draws in the image, and its fit to points.

The outline is described by three numbers. With a lens: two angles of the direction to the centre and the
angular radius of the tangent cone, projected exactly, distortion included. Without one (orthographic): centre
and radius of a circle in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, sphere_centre, sphere_outline, tangent_basis
from calibration.lens import LensModel
from calibration.provenance import FitError


class SphereView(NamedTuple):
    """A sphere as its outline in one camera tells it.

    Attributes
    ----------
    direction : ndarray, (3,)
        Unit vector to the centre, camera frame; NaN without a lens.
    angular_radius_rad : float
        Half-angle of the tangent cone, asin(R / distance); NaN without a lens.
    covariance : ndarray, (3, 3)
        Of (angle along each axis of ``tangent_basis(direction)``, angular radius), rad^2.
        Without a lens: of (centre x, centre y, radius), px^2.
    centre_px : ndarray, (2,)
        Centroid of the outline's area. Not the projection of the sphere's centre.
    radius_px : float
        Of the circle of the same area.
    remarks : tuple of str
        What limits it, for whoever reads the result.
    """

    direction: Float
    angular_radius_rad: float
    covariance: Float
    centre_px: Float
    radius_px: float
    remarks: tuple[str, ...] = ()

    def centre_mm(self, radius_mm: float) -> tuple[Float, Float]:
        """Centre in the camera frame, (3,) mm, and its covariance (3, 3), mm^2, for a known radius.

        Raises
        ------
        ValueError
            The view was made without a lens, or the radius is not positive.
        """
        if not np.isfinite(self.angular_radius_rad):
            raise ValueError("a sphere seen without a lens model has no place in mm")
        if not radius_mm > 0:
            raise ValueError(f"a sphere's radius of {radius_mm} mm: want more than 0")
        centre = sphere_centre(self.direction, self.angular_radius_rad, radius_mm)
        distance = float(np.linalg.norm(centre))
        u, v = tangent_basis(self.direction)
        deeper = -self.direction / np.tan(self.angular_radius_rad)
        jacobian = distance * np.stack([u, v, deeper], axis=-1)
        return centre, jacobian @ self.covariance @ jacobian.T

    def outline(self, lens: LensModel | None, count: int = 360) -> Float:
        """Points of the outline in the image, (count, 2) px."""
        return curve(self, lens, turns(count))


def turns(count: int) -> Float:
    """Positions round a sphere at equal steps, (count,) rad from 0."""
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def curve(view: SphereView, lens: LensModel | None, angles_rad: Float) -> Float:
    """Outline points at the given positions round the sphere, (k, 2) px."""
    if lens is None:
        ring = np.stack([np.cos(angles_rad), np.sin(angles_rad)], axis=-1)
        return np.asarray(view.centre_px + view.radius_px * ring)
    return lens.project(sphere_outline(view.direction, view.angular_radius_rad, angles_rad))


def circle(centre_px: Sequence[float] | Float, radius_px: float, lens: LensModel | None) -> SphereView:
    """First estimate of the sphere whose outline is about this circle; covariance NaN."""
    centre = np.asarray(centre_px, np.float64)
    unknown = np.full((3, 3), np.nan)
    if lens is None:
        return SphereView(np.full(3, np.nan), np.nan, unknown, centre, float(radius_px))
    angles = turns(72)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    rays = lens.unproject(centre + radius_px * ring)
    rays = rays[np.isfinite(rays).all(axis=-1)]
    if len(rays) < 12:
        raise FitError(f"a circle at {centre} px lies outside the lens model")
    # All outline rays make one angle with the axis: rays @ (axis / cos(angular radius)) = 1, linear.
    axis = np.linalg.lstsq(rays, np.ones(len(rays)), rcond=None)[0]
    direction = normalize(axis)
    angular = float(np.arccos(np.clip(np.mean(rays @ direction), -1, 1)))
    return settled(SphereView(direction, angular, unknown, centre, float(radius_px)), lens)


def settled(view: SphereView, lens: LensModel | None) -> SphereView:
    """The view with ``centre_px`` and ``radius_px`` computed from its outline."""
    if lens is None:
        return view
    p = curve(view, lens, turns(720))
    if not np.isfinite(p).all():
        raise FitError("a sphere's outline leaves the lens model's valid field")
    q = np.roll(p, -1, axis=0)
    cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    area = cross.sum() / 2
    centre = ((p + q) * cross[:, None]).sum(axis=0) / (6 * area)
    return view._replace(centre_px=centre, radius_px=float(np.sqrt(abs(area) / np.pi)))


def moved_by(view: SphereView, step: Float, lens: LensModel | None) -> SphereView:
    """The view after a step of its parameters; ``centre_px`` and ``radius_px`` follow by ``settled``."""
    if lens is None:
        return view._replace(centre_px=view.centre_px + step[:2], radius_px=view.radius_px + float(step[2]))
    u, v = tangent_basis(view.direction)
    turned = normalize(view.direction + step[0] * u + step[1] * v)
    return view._replace(direction=turned, angular_radius_rad=view.angular_radius_rad + float(step[2]))


def frame(view: SphereView, lens: LensModel | None, angles: Float) -> tuple[Float, Float, Float]:
    """Outline points (k, 2), outward normals (k, 2), motion along those by the parameters (k, 3)."""
    points = curve(view, lens, angles)
    h = 1e-4
    tangent = curve(view, lens, angles + h) - curve(view, lens, angles - h)
    tangent = normalize(tangent)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=-1)
    inward = np.sum(normal * (points - view.centre_px), axis=-1) < 0
    normal = np.where(inward[:, None], -normal, normal)
    unit = 1e-3 if lens is None else 1e-3 / lens.fx
    jacobian = np.empty((len(angles), 3))
    for k in range(3):
        step = np.zeros(3)
        step[k] = unit
        ahead = curve(moved_by(view, step, lens), lens, angles)
        back = curve(moved_by(view, -step, lens), lens, angles)
        jacobian[:, k] = np.sum((ahead - back) * normal, axis=-1) / (2 * unit)
    return points, normal, jacobian


def fit_points(pixels: Float, start: SphereView, lens: LensModel | None) -> SphereView:
    """Outline through edge points (m, 2) px, robust (Geman-McClure, scale from the residuals' spread).

    Raises
    ------
    FitError
        Fewer than 8 points, or points on too short an arc.
    """
    view = start
    if len(pixels) < 8:
        raise FitError(f"{len(pixels)} points are too few for a sphere's outline: give at least 8")
    for _ in range(50):
        angles = _angles_of(view, lens, pixels)
        points, normal, jacobian = frame(view, lens, angles)
        offset = np.sum((pixels - points) * normal, axis=-1)
        scale = max(1.4826 * float(np.median(np.abs(offset))), 0.02)
        weight = 1 / (1 + (offset / (3 * scale)) ** 2) ** 2
        sector = np.floor(angles / (2 * np.pi) * 36).astype(int)
        step = solve(jacobian, offset, weight, sector)[0]
        view = settled(moved_by(view, step, lens), lens)
        if np.max(np.abs(jacobian @ step)) < 1e-7:
            break
    # Soft weights make the sandwich too thin: it wants those that stay as they are when a point moves.
    covariance = solve(jacobian, offset, (np.abs(offset) < 3 * scale).astype(np.float64), sector)[1]
    return view._replace(covariance=covariance)


def _angles_of(view: SphereView, lens: LensModel | None, pixels: Float) -> Float:
    if lens is None:
        away = pixels - view.centre_px
        return np.asarray(np.arctan2(away[:, 1], away[:, 0]) % (2 * np.pi))
    rays = lens.unproject(pixels)
    u, v = tangent_basis(view.direction)
    return np.asarray(np.arctan2(rays @ v, rays @ u) % (2 * np.pi))


def solve(jacobian: Float, offset: Float, weight: Float, *clusters: NDArray[np.intp]) -> tuple[Float, Float]:
    """Weighted least squares step and its cluster-robust covariance.

    Neighbouring profiles share pixels and the same texture behind the sphere; one light makes one shading all
    round it. Their errors are not independent, so that the covariance is the sum of the sandwiches over
    sectors and over lights.
    """
    scale = np.sqrt(np.mean(jacobian**2, axis=0))
    j = jacobian / scale
    normal = (j * weight[:, None]).T @ j
    if np.linalg.cond(normal) > 1e8:
        raise FitError("a sphere's outline is visible on too short an arc to fit it")
    bread = np.linalg.inv(normal)
    step = bread @ (j.T @ (weight * offset))
    score = j * (weight * (offset - j @ step))[:, None]
    meat = np.zeros((3, 3))
    for cluster in clusters:
        count = int(cluster.max()) + 1
        groups = np.stack([np.bincount(cluster, s, count) for s in score.T])
        used = len(np.unique(cluster[weight > 0]))
        meat += groups @ groups.T * (used / max(used - 3, 1))
    return step / scale, bread @ meat @ bread / np.outer(scale, scale)
