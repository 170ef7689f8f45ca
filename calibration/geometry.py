"""Rigid transforms, angles, the outline of a sphere and the mirror reflection in it.

Frame: camera x right, y down, z forward, lengths in mm (docs/conventions.md).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def normalize(vectors: ArrayLike) -> Float:
    """Unit vectors along the last axis; a zero or non-finite vector gives NaN.

    Parameters
    ----------
    vectors : array_like, (..., n)
        Any length.

    Returns
    -------
    ndarray, (..., n), float64
    """
    v = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(length > 0, v / length, np.nan))


def angle_deg(a: ArrayLike, b: ArrayLike) -> Float:
    """Angle between vectors in degrees, exact for small angles (atan2 of cross and dot product).

    Parameters
    ----------
    a, b : array_like, (..., 3)
        Any length but zero; broadcast against each other.

    Returns
    -------
    ndarray, (...), degrees in 0..180
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.asarray(np.degrees(np.arctan2(cross, np.sum(a * b, axis=-1))))


def rotation(rotvec_rad: ArrayLike) -> Float:
    """Rotation matrix of a rotation vector (Rodrigues), (3,) -> (3, 3)."""
    r = np.asarray(rotvec_rad, np.float64)
    angle = float(np.linalg.norm(r))
    k = cross_matrix(r)
    if angle < 1e-8:
        return np.asarray(np.eye(3) + k + 0.5 * k @ k)
    return np.asarray(np.eye(3) + np.sin(angle) / angle * k + (1 - np.cos(angle)) / angle**2 * k @ k)


def cross_matrix(v: ArrayLike) -> Float:
    """Matrix of ``v x``: (3,) -> (3, 3)."""
    x, y, z = np.asarray(v, np.float64)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def transform(rotvec_rad: ArrayLike, translation: ArrayLike, points: ArrayLike) -> Float:
    """``R @ p + t`` for points (..., 3); rotation vector in radians, translation in the points' unit."""
    return np.asarray(np.asarray(points, np.float64) @ rotation(rotvec_rad).T + np.asarray(translation))


def tangent_basis(direction: ArrayLike) -> Float:
    """Two unit vectors that span the plane across ``direction``: (..., 3) -> (..., 2, 3), right-handed."""
    d = normalize(direction)
    helper = np.where(np.abs(d[..., :1]) < 0.9, [1.0, 0, 0], [0, 1.0, 0])
    u = normalize(np.cross(d, helper))
    return np.stack([u, np.cross(d, u)], axis=-2)


def sphere_outline(direction: ArrayLike, angular_radius_rad: float, angles_rad: ArrayLike) -> Float:
    """Rays from the camera that graze a sphere: the cone of half-angle asin(R / |c|) about its centre.

    Parameters
    ----------
    direction : array_like, (3,)
        Towards the sphere's centre, camera frame, any length.
    angular_radius_rad : float
        asin(R / |c|), below pi / 2.
    angles_rad : array_like, (k,)
        Positions round the cone, from the first axis of ``tangent_basis(direction)`` to the second.

    Returns
    -------
    ndarray, (k, 3), unit vectors
    """
    d = normalize(direction)
    u, v = tangent_basis(d)
    a = np.asarray(angles_rad, np.float64)[..., None]
    return np.asarray(
        np.cos(angular_radius_rad) * d + np.sin(angular_radius_rad) * (np.cos(a) * u + np.sin(a) * v)
    )


def sphere_centre(direction: ArrayLike, angular_radius_rad: ArrayLike, radius_mm: float) -> Float:
    """Centre of a sphere of known radius seen under an angular radius: (..., 3), (...) -> (..., 3) mm."""
    distance = radius_mm / np.sin(np.asarray(angular_radius_rad, np.float64))
    return np.asarray(normalize(direction) * distance[..., None])


def reflection(centre: ArrayLike, radius: float, light: ArrayLike) -> Float:
    """Outward normals of a mirror sphere where a camera at the origin sees a point light.

    The normal lies in the plane of camera, centre and light, so that the incidence and reflection angles
    are functions of one angle t, one rising and the other falling: a bracketed Newton solves every case
    (Alhazen's problem on the visible, convex side).

    Parameters
    ----------
    centre : array_like, (..., 3)
        Sphere centres, camera frame.
    radius : float
        In the unit of ``centre``.
    light : array_like, (..., 4)
        Homogeneous light: position xyz / w, or w = 0 for a distant light in the direction xyz. w >= 0.

    Returns
    -------
    ndarray, (..., 3), unit normals; NaN where the light is not seen in the sphere (camera or light inside
    the sphere, or the light behind its horizon).
    """
    c, s = np.broadcast_arrays(np.asarray(centre, np.float64), np.asarray(light, np.float64)[..., :3])
    w = np.broadcast_to(np.asarray(light, np.float64)[..., 3], c.shape[:-1])
    d = np.linalg.norm(c, axis=-1)
    towards = s - w[..., None] * c
    size = np.linalg.norm(towards, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        e1 = -c / d[..., None]
        across = towards - np.sum(towards * e1, axis=-1, keepdims=True) * e1
        width = np.linalg.norm(across, axis=-1)
        aligned = width < 1e-14 * size
        e2 = np.where(aligned[..., None], tangent_basis(e1)[..., 0, :], across / width[..., None])
    total = np.where(aligned, np.where(np.sum(towards * e1, axis=-1) > 0, 0.0, np.pi), 0.0)
    total = np.where(aligned, total, np.arctan2(width, np.sum(towards * e1, axis=-1)))

    # Angles from the normal to camera and light; each must stay below 90 degrees, which bounds t.
    with np.errstate(invalid="ignore", divide="ignore"):
        high = np.minimum(total, np.arccos(radius / d))
        low = np.maximum(0.0, total - np.arccos(radius * w / size))
    possible = (d > radius) & (size > radius * w) & (low <= high)
    low, high = np.where(possible, low, 0.0), np.where(possible, high, 0.0)
    t = 0.5 * (low + high)
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(60):
            camera = np.arctan2(d * np.sin(t), d * np.cos(t) - radius)
            lit = np.arctan2(size * np.sin(total - t), size * np.cos(total - t) - radius * w)
            error = camera - lit
            low, high = np.where(error <= 0, t, low), np.where(error >= 0, t, high)
            slope = d * (d - radius * np.cos(t)) / (d**2 + radius**2 - 2 * d * radius * np.cos(t))
            rw = radius * w
            slope = slope + size * (size - rw * np.cos(total - t)) / (
                size**2 + rw**2 - 2 * size * rw * np.cos(total - t)
            )
            newton = t - error / slope
            step = np.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            moved = np.nanmax(np.abs(np.where(possible, step - t, 0.0)), initial=0.0)
            t = step
            if moved < 1e-15:
                break
        camera = np.arctan2(d * np.sin(t), d * np.cos(t) - radius)
        lit = np.arctan2(size * np.sin(total - t), size * np.cos(total - t) - radius * w)
    seen = possible & (np.abs(camera - lit) < 1e-9) & (camera < np.pi / 2)
    normal = np.cos(t)[..., None] * e1 + np.sin(t)[..., None] * e2
    return np.where(seen[..., None], normal, np.nan)


def reflection_jacobian(
    centre: ArrayLike, radius: float, light: ArrayLike, normal: Float
) -> tuple[Float, Float]:
    """How the mirror point ``q = centre + radius * normal`` moves: dq / dcentre and dq / dlight.

    Implicit differentiation of the condition that the sum of the unit vectors to camera and light is along
    the normal.

    Parameters
    ----------
    centre, radius, light
        As for ``reflection``.
    normal : ndarray, (..., 3)
        Its result.

    Returns
    -------
    by_centre : ndarray, (..., 3, 3)
    by_light : ndarray, (..., 3, 4)
        Towards the homogeneous coordinates x, y, z, w.
    """
    c, light4 = np.asarray(centre, np.float64), np.asarray(light, np.float64)
    q = c + radius * normal
    w = light4[..., 3]
    to_light = light4[..., :3] - w[..., None] * q
    reach, length = np.linalg.norm(q, axis=-1), np.linalg.norm(to_light, axis=-1)
    view, lit = -q / reach[..., None], to_light / length[..., None]
    identity = np.eye(3)
    of_view = (identity - view[..., :, None] * view[..., None, :]) / reach[..., None, None]
    of_light = (identity - lit[..., :, None] * lit[..., None, :]) / length[..., None, None]
    bend = of_view + w[..., None, None] * of_light
    tangent = tangent_basis(normal)
    tangent_t = np.swapaxes(tangent, -1, -2)
    balance = np.sum((view + lit) * normal, axis=-1)[..., None, None] * np.eye(2)
    balance = balance + radius * tangent @ bend @ tangent_t
    by_homogeneous = np.concatenate([of_light, -of_light @ q[..., :, None]], axis=-1)
    pull = radius * tangent_t @ np.linalg.solve(balance, tangent)
    return identity - pull @ bend, pull @ by_homogeneous
