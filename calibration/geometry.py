"""Rigid transforms, angles, and the projection of spheres.

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
    k = np.array([[0, -r[2], r[1]], [r[2], 0, -r[0]], [-r[1], r[0], 0]])
    if angle < 1e-8:
        return np.asarray(np.eye(3) + k + 0.5 * k @ k)
    return np.asarray(np.eye(3) + np.sin(angle) / angle * k + (1 - np.cos(angle)) / angle**2 * k @ k)


def transform(rotvec_rad: ArrayLike, translation: ArrayLike, points: ArrayLike) -> Float:
    """``R @ p + t`` for points (..., 3); rotation vector in radians, translation in the points' unit."""
    return np.asarray(np.asarray(points, np.float64) @ rotation(rotvec_rad).T + np.asarray(translation))


def tangent_basis(direction: ArrayLike) -> Float:
    """Two unit vectors that span the plane across ``direction``: (..., 3) -> (..., 2, 3), right-handed."""
    d = normalize(direction)
    helper = np.where(np.abs(d[..., :1]) < 0.9, [1.0, 0, 0], [0, 1.0, 0])
    u = normalize(np.cross(d, helper))
    return np.stack([u, np.cross(d, u)], axis=-2)
