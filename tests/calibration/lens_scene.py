"""Boards before any lens, from long to fisheye, whole or cut off by the border; spoilt views."""

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from calibration.lens import BrownConrady
from calibration.targets.boards import BoardView

SQUARE = 10.0


def grid(columns=10, rows=7):
    at = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) * SQUARE
    return np.column_stack([at, np.zeros(len(at))])


def project(lens, points, rotation, t):
    """By OpenCV where it has the lens: gnomon's own model only fits."""
    if not isinstance(lens, BrownConrady):
        return lens.project(points @ rotation.T + t)
    camera = np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
    pixels, _ = cv2.projectPoints(points, cv2.Rodrigues(rotation)[0], t, camera, lens.parameters[4:])
    # OpenCV images what lies beyond the fold, too.
    return np.where(np.isfinite(lens.project(points @ rotation.T + t)), pixels.reshape(-1, 2), np.nan)


POINTS = grid()


def poses_before(
    lens, seed, n, *, points=POINTS, fill=0.5, off=0.3, tilt_deg=(10.0, 45.0), roll_deg=35.0
):  # fmt: skip
    """Poses of a board that fills about ``fill`` of the image's width, aimed at from places of the image."""
    rng = np.random.default_rng(seed)
    middle, size = points.mean(axis=0), np.ptp(points[:, 0])
    while n:
        aim = np.array([lens.width, lens.height]) * (0.5 + rng.uniform(-off, off, 2))
        ray, beside = lens.unproject(aim), lens.unproject(np.add(aim, (1, 0)))
        if not (np.isfinite(ray).all() and np.isfinite(beside).all()):
            continue
        angle = np.linalg.norm(np.cross(ray, beside))
        distance = size / (fill * rng.uniform(0.7, 1.3) * lens.width * angle)
        across = np.cross([0, 1, 0], ray)
        across /= np.linalg.norm(across)
        facing = np.stack([across, np.cross(ray, across), ray], axis=1)
        around, tilt = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(*tilt_deg))
        turn = Rotation.from_rotvec(tilt * np.array([np.cos(around), np.sin(around), 0]))
        roll = Rotation.from_rotvec([0, 0, np.radians(rng.uniform(-roll_deg, roll_deg))])
        rotation = facing @ (turn * roll).as_matrix()
        n -= 1
        yield rotation, ray * distance - rotation @ middle


def views_through(lens, seed, n=20, *, noise=0.1, points=POINTS, told=None, **how):
    """Views of a board at ``points``, described as ``told``; corners outside the image are missing."""
    rng = np.random.default_rng(1000 + seed)
    told, views, salt = points if told is None else told, [], 0
    while len(views) < n:
        for rotation, t in poses_before(lens, (seed, salt), n - len(views), points=points, **how):
            pixels = project(lens, points, rotation, t)
            with np.errstate(invalid="ignore"):
                ok = np.all((pixels > 2) & (pixels < (lens.width - 3, lens.height - 3)), axis=1)
            if ok.sum() >= 12:
                pixels = pixels[ok] + rng.normal(0, noise, (ok.sum(), 2))
                views.append(BoardView(np.flatnonzero(ok), told[ok], pixels, np.full(ok.sum(), noise), 0.0))
        salt += 1
    return views


def with_wrong_corners(views, part, seed=0):
    """A part of all corners at random places on and about the board."""
    rng = np.random.default_rng(seed)
    spoilt = []
    for view in views:
        wrong = rng.random(len(view.ids)) < part
        anywhere = rng.uniform(
            view.pixels.min(axis=0) - 100, view.pixels.max(axis=0) + 100, view.pixels.shape
        )
        spoilt.append(view._replace(pixels=np.where(wrong[:, None], anywhere, view.pixels)))
    return spoilt


def mirrored(view):
    points = view.points_mm.copy()
    points[:, 0] = points[:, 0].max() - points[:, 0]
    return view._replace(points_mm=points)


def one_square_off(view):
    """The lower part of the board is counted one column too far."""
    points = view.points_mm.copy()
    points[points[:, 1] > np.quantile(points[:, 1], 0.3), 0] += SQUARE
    return view._replace(points_mm=points)


def moved(view, seed=0):
    """Smeared by 4 px."""
    smear = np.random.default_rng(seed).uniform(-2, 2, (len(view.pixels), 1)) * (1.0, 0.5)
    return view._replace(pixels=view.pixels + smear)


def shuffled(views, seed=0):
    """The same views in another order, and their corners too; and the order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(views))
    out = []
    for i in order:
        v, at = views[i], rng.permutation(len(views[i].ids))
        out.append(BoardView(v.ids[at], v.points_mm[at], v.pixels[at], v.sigma_px[at], v.disc_mm))
    return out, order
