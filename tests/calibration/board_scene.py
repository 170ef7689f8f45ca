"""Boards seen through lenses with exact distortion: every pixel the mean of many rays, apart from the twin.

Written from the formulas (OpenCV's Brown-Conrady and fisheye models), not from ``calibration.lens``.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from calibration.targets.boards import CircleGrid, corners_mm, reflectance_at, size_mm


class Eye(NamedTuple):
    """A camera; ``fisheye`` takes k as Kannala-Brandt's k1..k4, else as k1 k2 p1 p2 k3."""

    width: int
    height: int
    focal: float
    k: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    fisheye: bool = False

    @property
    def centre(self):
        return np.array([self.width / 2 - 0.5 + 3.2, self.height / 2 - 0.5 - 2.1])

    def project(self, points):
        """Points (n, 3) of the camera frame in pixels."""
        x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
        r = np.hypot(x, y)
        if self.fisheye:
            t = np.arctan(r)
            scale = t * (1 + sum(k * t ** (2 * n + 2) for n, k in enumerate(self.k))) / np.maximum(r, 1e-12)
            return self.focal * np.stack([x * scale, y * scale], axis=1) + self.centre
        k1, k2, p1, p2, k3 = self.k
        s, xy = r * r, x * y
        radial = 1 + s * (k1 + s * (k2 + s * k3))
        u = x * radial + 2 * p1 * xy + p2 * (s + 2 * x * x)
        v = y * radial + p1 * (s + 2 * y * y) + 2 * p2 * xy
        return self.focal * np.stack([u, v], axis=1) + self.centre

    def rays(self, pixels):
        """Rays (n, 3) with z 1 through pixels (n, 2): the inverse by Newton steps on numbers."""
        want = (pixels - self.centre) / self.focal
        at = want.copy()
        if self.fisheye:
            r = np.linalg.norm(want, axis=1)
            t = r.copy()
            for _ in range(12):
                t = r / (1 + sum(k * t ** (2 * n + 2) for n, k in enumerate(self.k)))
            at = want * (np.tan(np.minimum(t, 1.55)) / np.maximum(r, 1e-12))[:, None]
        else:
            unit = Eye(0, 0, 1.0, self.k)
            shift = unit.centre
            for _ in range(15):
                step = want - (unit.project(np.column_stack([at, np.ones(len(at))])) - shift)
                at = at + step
                if np.abs(step).max() < 1e-9:
                    break
        return np.column_stack([at, np.ones(len(at))])


class Sight(NamedTuple):
    """A picture and where the board's points (of discs the centroids) are in it, (n, 2)."""

    image: np.ndarray
    pixels: np.ndarray


def pose(board, distance_mm, tilt_deg=(0.0, 0.0), turn_deg=0.0, aside_mm=(0.0, 0.0)):
    """Rotation and translation camera_from_board, the board's middle at the distance."""
    turn, _ = cv2.Rodrigues(np.array([0.0, 0.0, np.radians(turn_deg)]))
    tilt, _ = cv2.Rodrigues(np.radians([*tilt_deg, 0.0]))
    rotation = tilt @ turn
    middle = np.array([*size_mm(board), 0.0]) / 2
    return rotation, np.array([*aside_mm, distance_mm]) - rotation @ middle


@lru_cache(maxsize=4)
def _fine_rays(eye, fine):
    v, u = np.mgrid[: eye.height * fine, : eye.width * fine]
    return eye.rays((np.stack([u.ravel(), v.ravel()], axis=1) + 0.5) / fine - 0.5)


def sight(board, eye, placed, *, psf=0.6, samples=4, margin_mm=15.0, motion=(0.0, 0.0), ground=0.4):
    """Picture of a board on a grey ground, 0.08 where black and 0.9 where white, without noise.

    ``motion``: length and direction (deg) of an even smear, px.
    """
    rotation, at = placed
    fine = samples
    rays = _fine_rays(eye, fine)
    normal = rotation[:, 2]
    depth = (normal @ at) / (rays @ normal)
    on = (depth[:, None] * rays - at) @ rotation
    width, height = size_mm(board)
    inside = (
        (depth > 0)
        & (on[:, 0] > -margin_mm)
        & (on[:, 0] < width + margin_mm)
        & (on[:, 1] > -margin_mm)
        & (on[:, 1] < height + margin_mm)
    )
    value = np.full(len(rays), ground, np.float32)
    value[inside] = 0.08 + 0.82 * reflectance_at(board, on[inside, 0], on[inside, 1])
    picture = cv2.GaussianBlur(value.reshape(eye.height * fine, eye.width * fine), (0, 0), psf * fine)
    if motion[0] > 0:
        picture = cv2.filter2D(picture, -1, _streak(motion[0] * fine, motion[1]))
    picture = picture.reshape(eye.height, fine, eye.width, fine).mean(axis=(1, 3))
    return Sight(picture.astype(np.float32), points_seen(board, eye, placed))


def points_seen(board, eye, placed):
    """Where the board's points are seen, (n, 2): corners, or the centroids of the discs' images."""
    rotation, at = placed
    points = corners_mm(board)
    if not isinstance(board, CircleGrid):
        return eye.project(points @ rotation.T + at)
    t = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    ring = board.disc_mm * np.column_stack([np.cos(t), np.sin(t), np.zeros_like(t)])
    out = []
    for point in points:
        p = eye.project((point + ring) @ rotation.T + at)
        q = np.roll(p, -1, axis=0)
        cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
        out.append(((p + q) * cross[:, None]).sum(axis=0) / (3 * cross.sum()))
    return np.array(out)


def _streak(length, direction_deg):
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    a = np.radians(direction_deg)
    for s in np.linspace(-length / 2, length / 2, 8 * half):
        kernel[half + round(s * np.sin(a)), half + round(s * np.cos(a))] += 1
    return kernel / kernel.sum()
