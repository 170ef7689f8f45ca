"""The outline of a sphere: the curve it draws in the image, fitted to edges at sub-pixel accuracy.

The outline is described by three numbers. With a lens: two angles of the direction to the centre and the
angular radius of the tangent cone, projected exactly, distortion included. Without one (orthographic): centre
and radius of a circle in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calibration.geometry import Float, normalize, sphere_outline, tangent_basis
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
    """

    direction: Float
    angular_radius_rad: float
    covariance: Float
    centre_px: Float
    radius_px: float

    def outline(self, lens: LensModel | None, count: int = 360) -> Float:
        """Points of the outline in the image, (count, 2) px."""
        return curve(self, lens, np.linspace(0, 2 * np.pi, count, endpoint=False))


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
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    rays = lens.unproject(centre + radius_px * ring)
    rays = rays[np.isfinite(rays).all(axis=-1)]
    if len(rays) < 12:
        raise FitError(f"a circle at {centre} px lies outside the lens model")
    # All outline rays make one angle with the axis: rays @ (axis / cos(angular radius)) = 1, linear.
    axis = np.linalg.lstsq(rays, np.ones(len(rays)), rcond=None)[0]
    direction = normalize(axis)
    angular = float(np.arccos(np.clip(np.mean(rays @ direction), -1, 1)))
    return _settled(SphereView(direction, angular, unknown, centre, float(radius_px)), lens)


def _settled(view: SphereView, lens: LensModel | None) -> SphereView:
    """The view with ``centre_px`` and ``radius_px`` computed from its outline."""
    if lens is None:
        return view
    p = curve(view, lens, np.linspace(0, 2 * np.pi, 720, endpoint=False))
    if not np.isfinite(p).all():
        raise FitError("a sphere's outline leaves the lens model's valid field")
    q = np.roll(p, -1, axis=0)
    cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    area = cross.sum() / 2
    centre = ((p + q) * cross[:, None]).sum(axis=0) / (6 * area)
    return view._replace(centre_px=centre, radius_px=float(np.sqrt(abs(area) / np.pi)))


def _moved(view: SphereView, step: Float, lens: LensModel | None) -> SphereView:
    if lens is None:
        return view._replace(centre_px=view.centre_px + step[:2], radius_px=view.radius_px + float(step[2]))
    u, v = tangent_basis(view.direction)
    turned = normalize(view.direction + step[0] * u + step[1] * v)
    return view._replace(direction=turned, angular_radius_rad=view.angular_radius_rad + float(step[2]))


def _frame(view: SphereView, lens: LensModel | None, angles: Float) -> tuple[Float, Float, Float]:
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
        ahead = curve(_moved(view, step, lens), lens, angles)
        back = curve(_moved(view, -step, lens), lens, angles)
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
    covariance = np.full((3, 3), np.nan)
    for _ in range(50):
        angles = _angles_of(view, lens, pixels)
        points, normal, jacobian = _frame(view, lens, angles)
        offset = np.sum((pixels - points) * normal, axis=-1)
        scale = max(1.4826 * float(np.median(np.abs(offset))), 0.02)
        weight = 1 / (1 + (offset / (3 * scale)) ** 2) ** 2
        step, covariance = _solve(jacobian, offset, weight, np.floor(angles / (2 * np.pi) * 36).astype(int))
        view = _settled(_moved(view, step, lens), lens)
        if np.max(np.abs(jacobian @ step)) < 1e-7:
            break
    return view._replace(covariance=covariance)


def _angles_of(view: SphereView, lens: LensModel | None, pixels: Float) -> Float:
    if lens is None:
        away = pixels - view.centre_px
        return np.asarray(np.arctan2(away[:, 1], away[:, 0]) % (2 * np.pi))
    rays = lens.unproject(pixels)
    u, v = tangent_basis(view.direction)
    return np.asarray(np.arctan2(rays @ v, rays @ u) % (2 * np.pi))


def _solve(jacobian: Float, offset: Float, weight: Float, cluster: NDArray[np.int_]) -> tuple[Float, Float]:
    """Weighted least squares step and its cluster-robust covariance.

    Neighbouring profiles share pixels and the same texture behind the sphere: their errors are not
    independent, so that the covariance is the sandwich over sectors of the outline.
    """
    scale = np.sqrt(np.mean(jacobian**2, axis=0))
    j = jacobian / scale
    normal = (j * weight[:, None]).T @ j
    if np.linalg.cond(normal) > 1e8:
        raise FitError("a sphere's outline is visible on too short an arc to fit it")
    bread = np.linalg.inv(normal)
    step = bread @ (j.T @ (weight * offset))
    score = j * (weight * (offset - j @ step))[:, None]
    groups = np.zeros((int(cluster.max()) + 1, 3))
    np.add.at(groups, cluster, score)
    used = len(np.unique(cluster[weight > 0]))
    meat = groups.T @ groups * (used / max(used - 3, 1))
    return step / scale, bread @ meat @ bread / np.outer(scale, scale)


class Edges(NamedTuple):
    """How well the images support an outline."""

    view: SphereView
    coverage: float
    """Share of the outline's visible directions with an edge on it, 0..1."""
    rms_px: float


def refine(images: NDArray[np.float32], start: SphereView, lens: LensModel | None, slack_px: float) -> Edges:
    """Fit the outline to the edges across it in every image, from coarse to fine.

    Each radial profile of each image is modelled as two straight lines joined by a blurred step; its
    linearised offset from the present outline comes from one matrix product for all profiles. Offsets are
    weighted by their own noise, so that an image without contrast at a place says nothing there, and outvoted
    robustly where a shadow's or a holder's edge lies nearer.

    Parameters
    ----------
    images : ndarray, (n, h, w), float32
        Under different lights; NaN is ignored. Work in this pixel frame.
    lens : LensModel or None
        Of the given pixel frame.
    start : SphereView
        Within ``slack_px`` of the truth.
    slack_px : float
        Reach of the first pass.

    Raises
    ------
    FitError
        No outline there.
    """
    view = start
    blur = max(slack_px / 2.5, 0.8)
    while True:
        factor = max(1, 2 ** int(np.floor(np.log2(blur / 1.6))) if blur > 1.6 else 1)
        reduced = images if factor == 1 else _reduced(images, factor)
        if blur <= 1.6:
            blur = _blur_of(reduced, view, lens)
        for _ in range(6 if blur > 2 else 8):
            edges, moved = _refine_once(reduced, factor, view, lens, blur)
            view = edges.view
            if moved < 0.003 * blur:
                break
        if blur <= 2.0 and factor == 1:
            break
        blur = max(blur / 2, 1.2)
    return edges


def _reduced(images: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    h, w = images.shape[1] // factor * factor, images.shape[2] // factor * factor
    return np.stack(
        [cv2.resize(i[:h, :w], (w // factor, h // factor), interpolation=cv2.INTER_AREA) for i in images]
    )


def _profiles(
    images: NDArray[np.float32], factor: int, points: Float, normal: Float, offsets: Float
) -> NDArray[np.float32]:
    """Samples (n, k, m) along the normals, NaN outside the images."""
    at = points[:, None, :] + offsets[None, :, None] * normal[:, None, :]
    at = ((at + 0.5) / factor - 0.5).astype(np.float32)
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    border = (float("nan"),)
    return np.stack(
        [
            cv2.remap(i, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
            for i in images
        ]
    )


class _Steps(NamedTuple):
    offset: Float
    sigma: Float
    significance: Float
    residual: float


def _steps(profiles: NDArray[np.float32], x: Float, blur: float) -> _Steps:
    """Offset of the step in every profile (n, k), its noise, and the step's size over its noise."""
    step = ndtr(x / blur)
    bell = np.exp(-0.5 * (x / blur) ** 2) / (blur * np.sqrt(2 * np.pi))
    basis = np.stack([np.ones_like(x), x, step - 0.5, x * (step - 0.5), bell], axis=-1)
    inverse = np.linalg.pinv(basis)
    spread = inverse @ inverse.T
    p = profiles.astype(np.float64)
    coefficients = p @ inverse.T
    residual = p - coefficients @ basis.T
    variance = np.sum(residual**2, axis=-1) / (len(x) - 5) + 1e-30
    with np.errstate(invalid="ignore", divide="ignore"):
        height, shift = coefficients[..., 2], coefficients[..., 4]
        offset = -shift / height
        significance = np.abs(height) / np.sqrt(variance * spread[2, 2])
        sigma = np.sqrt(variance * (spread[4, 4] + offset**2 * spread[2, 2])) / np.abs(height)
    explained = float(np.nansum(variance) / np.nansum(np.nanvar(p, axis=-1) + 1e-30))
    return _Steps(offset, sigma, significance, explained)


def _count(view: SphereView, blur: float) -> int:
    return int(np.clip(2 * np.pi * view.radius_px / (1.5 * blur), 72, 720))


def _blur_of(images: NDArray[np.float32], view: SphereView, lens: LensModel | None) -> float:
    """Width of the step that explains the profiles best, px."""
    angles = np.asarray(np.arange(120) * (2 * np.pi / 120), np.float64)
    points, normal, _ = _frame(view, lens, angles)
    x = np.arange(-8.0, 8.01, 0.5)
    profiles = _profiles(images, 1, points, normal, x)
    widths = [0.6, 0.8, 1.0, 1.3, 1.6, 2.0]
    return widths[int(np.argmin([_steps(profiles, x, b).residual for b in widths]))]


def _refine_once(
    images: NDArray[np.float32], factor: int, view: SphereView, lens: LensModel | None, blur: float
) -> tuple[Edges, float]:
    k = _count(view, blur)
    angles = np.asarray(np.arange(k) * (2 * np.pi / k), np.float64)
    points, normal, jacobian = _frame(view, lens, angles)
    reach = min(5 * blur, 0.45 * view.radius_px)
    x = np.arange(-reach, reach + 1e-9, min(0.5 * max(factor, 1), blur / 1.5))
    steps = _steps(_profiles(images, factor, points, normal, x), x, blur)
    with np.errstate(invalid="ignore"):
        good = (steps.significance > 5) & (np.abs(steps.offset) < 2.0 * blur) & (steps.sigma < blur)
    visible = np.isfinite(steps.offset).any(axis=0)
    if good.any(axis=0).sum() < 12:
        raise FitError("no outline of a sphere at this place")
    light, where = np.nonzero(good)
    offset, sigma = steps.offset[light, where], steps.sigma[light, where]
    j = jacobian[where]
    base = 1 / (sigma**2 + (0.1 * blur) ** 2)
    step = np.zeros(3)
    scale = blur
    cluster = where * 36 // k
    for _ in range(12):
        residual = offset - j @ step
        weight = base / (1 + (residual / scale) ** 2) ** 2
        step, covariance = _solve(j, offset, weight, cluster)
        residual = offset - j @ step
        inlier = np.abs(residual) < 3 * scale
        spread = np.sqrt(np.sum(weight * residual**2) / np.sum(weight))
        scale = float(np.clip(3 * spread, 0.15 * blur, blur))
    _ = light
    near = np.abs(residual) < 3 * scale
    supported = np.zeros(k, bool)
    supported[where[near & inlier]] = True
    rms = float(np.sqrt(np.mean(residual[near] ** 2))) if near.any() else np.inf
    moved = float(np.max(np.abs(jacobian @ step)))
    view = _settled(_moved(view, step, lens), lens)._replace(covariance=covariance)
    return Edges(view, float(supported.sum() / max(visible.sum(), 1)), rms), moved
