"""Views of a board through a known lens, for tests of what is said about a fit."""

from types import SimpleNamespace

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.lens import BrownConrady
from calibration.targets.boards import Charuco, corners_mm

LENS = BrownConrady(
    width=960, height=600, fx=1500, fy=1501, cx=482.3, cy=297.1, k1=-0.12, k2=0.15, p1=5e-4, p2=-3e-4
)  # fmt: skip
POINTS = corners_mm(Charuco(columns=8, rows=6, square_mm=14, marker_mm=10))
SIZE = (8 * 14.0, 6 * 14.0)
MIDDLE = np.array([56.0, 42.0, 0.0])
NOISE = 0.03


def poses(seed, n, *, tilt_deg=(10, 40), reach=(80, 40), distance=(420, 480)):
    """Rotations and translations camera_from_board, spread over the image and over tilts."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        around, tilt = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(*tilt_deg))
        turn = Rotation.from_rotvec(tilt * np.array([np.cos(around), np.sin(around), 0]))
        rotation = (turn * Rotation.from_rotvec([0, 0, rng.uniform(-0.5, 0.5)])).as_matrix()
        at = np.array([rng.uniform(-reach[0], reach[0]), rng.uniform(-reach[1], reach[1]), 0])
        at[2] = rng.uniform(*distance)
        out.append((rotation, at - rotation @ MIDDLE))
    return out


def view(rng, pose, *, lens=LENS, noise=NOISE, points=POINTS, told=POINTS, warped=0.0):
    """What is seen of ``points``, described as ``told``; only corners in the image."""
    rotation, t = pose
    pixels = np.asarray(lens.project(points @ rotation.T + t)) + warped
    pixels = pixels + rng.normal(0, noise, pixels.shape)
    with np.errstate(invalid="ignore"):
        ok = np.all((pixels > 3) & (pixels < (lens.width - 4, lens.height - 4)), axis=1)
    return SimpleNamespace(
        points_mm=told[ok], pixels=pixels[ok], sigma_px=np.full(int(ok.sum()), noise), disc_mm=0.0
    )


def views(seed, n=12, *, lens=LENS, noise=NOISE, points=POINTS, told=POINTS, **how):
    rng = np.random.default_rng(1000 + seed)
    return [
        view(rng, pose, lens=lens, noise=noise, points=points, told=told) for pose in poses(seed, n, **how)
    ]


def names(n):
    return [f"view {i + 1}" for i in range(n)]
