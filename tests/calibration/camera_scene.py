"""Cameras around a volume and boards in it, with exact or noisy corners."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.cameras import Motion
from calibration.lens import BrownConrady

Float = NDArray[np.float64]
SIZE = (1000, 750)


class Seen(NamedTuple):
    points_mm: Float
    pixels: Float
    sigma_px: Float
    disc_mm: float = 0.0


def lens(shift: float = 0.0) -> BrownConrady:
    return BrownConrady(
        width=SIZE[0], height=SIZE[1], fx=1300 + shift, fy=1302 + shift, cx=505, cy=371 + shift / 10,
        k1=-0.11, k2=0.14, p1=4e-4, p2=-2e-4,
    )  # fmt: skip


def looking(angle_deg: float, distance_mm: float = 500, height_mm: float = 0.0) -> Motion:
    """camera_from_rig of a camera on a circle round the origin, looking at it; y stays down."""
    a = np.radians(angle_deg)
    centre = np.array([distance_mm * np.sin(a), height_mm, -distance_mm * np.cos(a)])
    forward = -centre / np.linalg.norm(centre)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Motion(rotation, -rotation @ centre)


CAMERAS = {"left": looking(-25), "middle": looking(2, 480, -60), "right": looking(27, 520, 20)}


def board(columns: int = 8, rows: int = 6, square: float = 20.0) -> Float:
    x, y = np.meshgrid(np.arange(1, columns + 1), np.arange(1, rows + 1))
    return np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=-1) * square


def poses(count: int, points: Float, seed: int = 1, reach: float = 60.0, tilt: float = 30.0) -> list[Motion]:
    """rig_from_board of boards about the origin, tilted all round."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        about = [rng.uniform(-tilt, tilt), rng.uniform(-tilt, tilt), rng.uniform(-20, 20) + 90 * (k % 4)]
        turn = Rotation.from_rotvec(np.radians(about)).as_matrix()
        out.append(Motion(turn, rng.uniform(-reach, reach, 3) - turn @ points.mean(axis=0)))
    return out


def look(
    camera: Motion, eye: Any, pose: Motion, points: Float, sigma: float = 0.0, rng: Any = None
) -> Seen | None:
    """What the camera sees of the board; None where less than half of it."""
    pixels = eye.project((camera @ pose).points(points))
    inside = np.all((pixels > 0) & (pixels < np.array(SIZE) - 1), axis=1)
    if inside.sum() < len(points) / 2:
        return None
    if sigma:
        pixels = pixels + rng.normal(0, sigma, pixels.shape)
    return Seen(points[inside], pixels[inside], np.full(int(inside.sum()), sigma or 1e-3))


def scene(
    count: int = 15, sigma: float = 0.1, seed: int = 0, cameras: dict[str, Motion] | None = None, **more: Any
) -> tuple[dict[tuple[str, str], Seen], dict[str, BrownConrady]]:
    rng = np.random.default_rng(seed)
    points = board()
    cameras = CAMERAS if cameras is None else cameras
    eyes = {name: lens(10.0 * k) for k, name in enumerate(cameras)}
    views = {}
    for k, pose in enumerate(poses(count, points, **more)):
        for name, camera in cameras.items():
            seen = look(camera, eyes[name], pose, points, sigma, rng)
            if seen is not None:
                views[f"pose-{k + 1:02d}", name] = seen
    return views, eyes
