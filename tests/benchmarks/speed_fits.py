"""Work that fits: photometric stereo, lens, spheres."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from speed import Candidate, Table, compare

from calibration.geometry import angle_deg
from calibration.lens import BrownConrady, fit_lens
from calibration.lens.agreement import agreement
from calibration.lights.model import DistantLight
from calibration.photometric import Gloss, NormalMap, solve
from calibration.targets.boards import BoardView
from calibration.targets.spheres import detect_spheres
from rigs.simulated import Twin

Maps = tuple[NDArray[np.float32], NDArray[np.float32]]


def hill(size: int) -> Maps:
    """Smooth relief in px on a square of ``size`` px: depth (h, w) and normals (h, w, 3), orthographic."""
    y, x = np.mgrid[:size, :size].astype(np.float64) / size
    depth = np.zeros((size, size))
    gx, gy = np.zeros_like(depth), np.zeros_like(depth)
    rng = np.random.default_rng(4)
    for _ in range(6):
        a, b = rng.uniform(0.2, 0.8, 2)
        s, height = rng.uniform(0.08, 0.2), rng.uniform(-0.06, 0.06) * size
        bump = height * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2))
        depth += bump
        gx += bump * -(x - a) / s**2 / size
        gy += bump * -(y - b) / s**2 / size
    normals = np.stack([gx, gy, -np.ones_like(gx)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return depth.astype(np.float32), normals.astype(np.float32)


def photometric(count: int = 24, size: int = 1000) -> list[Table]:
    """``count`` lights on a matt relief of 1 MP; one sample in ten is in shadow or in a highlight."""
    _, normals = hill(size)
    rng = np.random.default_rng(3)
    around = 2 * np.pi * np.arange(count) / count
    above = np.radians(np.where(np.arange(count) % 2, 35.0, 65.0))
    directions = np.stack(
        [np.cos(above) * np.cos(around), np.cos(above) * np.sin(around), -np.sin(above)], axis=-1
    )
    lights = [DistantLight(direction=tuple(d), intensity=(2e5,)) for d in directions.tolist()]
    albedo = np.float32(0.5)
    clean = 2e5 * albedo * np.maximum(np.einsum("nc,hwc->nhw", directions.astype(np.float32), normals), 0)
    variance = (clean * 30 + 900).astype(np.float32)
    odd = rng.random(clean.shape, np.float32)
    clean[odd < 0.05] = 0
    clean[odd > 0.95] *= 2
    radiance = clean + np.sqrt(variance) * rng.standard_normal(clean.shape, np.float32)
    mask = np.ones((size, size), bool)

    def judge_normals(found: NDArray[Any]) -> str:
        return f"mean {np.nanmean(angle_deg(found, normals)):.2g}°"

    def judge(found: NormalMap) -> str:
        return judge_normals(found.normals)

    matrix = (2e5 * directions).astype(np.float32)
    samples = radiance.reshape(count, -1)

    def lstsq() -> NDArray[Any]:
        return unit(np.linalg.lstsq(matrix, samples, rcond=None)[0])

    def product() -> NDArray[Any]:
        return unit(np.linalg.pinv(matrix) @ samples)

    def unit(scaled: NDArray[Any]) -> NDArray[Any]:
        length = np.linalg.norm(scaled, axis=0)
        return np.asarray((scaled / length).T.reshape(size, size, 3))

    def ours(method: Any, gloss: Gloss | None = None) -> NormalMap:
        return solve(radiance, variance, lights, mask=mask, method=method, gloss=gloss)

    matt = Gloss(roughness=0.3, strength=0.0)
    plain = compare(
        f"normals by least squares, {count} lights × 1 MP float32",
        [
            Candidate("gnomon, with sigma and shadow test", lambda: ours("least-squares"), judge),
            Candidate("numpy pseudo-inverse times samples", product, judge_normals),
            Candidate("numpy lstsq", lstsq, judge_normals, turns=1),
        ],
        read_bytes=radiance.nbytes,
    )
    robust = compare(
        f"normals, robust, {count} lights × 1 MP float32",
        [
            Candidate("gnomon, matt known", lambda: ours("robust", matt), judge, turns=2),
            Candidate("gnomon, gloss looked for", lambda: ours("robust"), judge, turns=2),
        ],
        read_bytes=radiance.nbytes,
    )
    return [plain, robust]


def lens(count: int = 30) -> Table:
    """Lens fit, five parameters of distortion, to ``count`` views of 88 corners with 0.05 px of noise."""
    true = BrownConrady(width=1920, height=1200, fx=3003.7, fy=3002.1, cx=967.3, cy=594.6, k1=-0.08, k2=0.1)
    rng = np.random.default_rng(6)
    grid = np.stack(np.meshgrid(np.arange(11.0), np.arange(8.0)), axis=-1).reshape(-1, 2) * 8
    board = np.concatenate([grid, np.zeros((len(grid), 1))], axis=-1)
    views = []
    for k in range(count):
        turn = Rotation.from_rotvec(np.radians([35 * np.cos(2.4 * k), 35 * np.sin(2.4 * k), 9 * k % 30]))
        middle = np.array([rng.uniform(-60, 60), rng.uniform(-30, 30), rng.uniform(400, 480)])
        pixels = true.project(turn.apply(board - board.mean(axis=0)) + middle)
        pixels += rng.normal(0, 0.05, pixels.shape)
        views.append(BoardView(np.arange(88), board, pixels, np.full(88, 0.05)))

    def judge(focal: float) -> str:
        return f"focal length {100 * abs(focal / true.fx - 1):.2g} %"

    objects = [view.points_mm.astype(np.float32) for view in views]
    images = [view.pixels.astype(np.float32) for view in views]

    def opencv() -> float:
        return float(cv2.calibrateCamera(objects, images, (1920, 1200), None, None)[1][0, 0])

    def opencv_sigmas() -> float:
        return float(cv2.calibrateCameraExtended(objects, images, (1920, 1200), None, None)[1][0, 0])

    def asked() -> float:
        lens = fit_lens(views, 1920, 1200)
        agreement(lens)
        return lens.fx

    return compare(
        f"lens fit, {count} views, {sum(len(view.ids) for view in views)} corners",
        [
            Candidate("gnomon, with covariance and verdict", lambda: fit_lens(views, 1920, 1200).fx, judge),
            Candidate("cv2.calibrateCamera", opencv, judge),
            Candidate("cv2.calibrateCameraExtended, with sigmas", opencv_sigmas, judge),
            Candidate("gnomon, and whether the views agree", asked, judge),
        ],
    )


def spheres(truth: Path) -> Table:
    """Four mirror spheres in the demo's picture, 24 lights × 2.3 MP, clean."""
    from rigs.simulated import load_truth

    known = load_truth(truth)
    camera = next(iter(known.cameras))
    rig = Twin(known)
    lamps = [name for name in known.lights if name.startswith("led")]
    # no picture saturates here: the highlights are as the short exposure sees them
    images = [rig.clean_radiance("spheres", {lamp: 1.0}, camera) for lamp in lamps]
    model = rig.lens(camera)
    true = sorted(rig.spheres("spheres", camera), key=lambda sphere: sphere.centre_mm[0])

    def judge(found: Any) -> str:
        worst = 0.0
        for sphere in true:
            along = sphere.centre_mm / np.linalg.norm(sphere.centre_mm)
            worst = max(worst, min(float(angle_deg(view.direction, along)) for view in found))
        return f"centres within {np.radians(worst) * model.fx:.2g} px"

    return compare(
        f"find 4 mirror spheres in {len(images)} pictures of 2.3 MP",
        [Candidate("gnomon", lambda: detect_spheres(images, model, count=4), judge, turns=1)],
        read_bytes=sum(image.nbytes for image in images),
    )
