"""Photometric stereo on photographs with known normals: DiLiGenT, given lights."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import io
from scipy.stats import spearmanr

from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight
from calibration.photometric import solve

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data")) / "diligent"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no diligent data at GNOMON_DATA")

# DiLiGenT: x right, y up, z to the camera.
_FLIP = np.array([1, -1, -1])


def _load(name: str) -> tuple[Any, Any, Any, Any, Any]:
    """Images (n, h, w, 3) of every pixel in the crop, directions, intensities, mask, true normals."""
    folder = DATA / name
    files = (folder / "filenames.txt").read_text().split()
    images = np.array([cv2.imread(str(folder / f), cv2.IMREAD_UNCHANGED)[..., ::-1] for f in files])
    return (
        images.astype(np.float32),
        np.loadtxt(folder / "light_directions.txt") * _FLIP,
        np.loadtxt(folder / "light_intensities.txt"),
        cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0,
        io.loadmat(folder / "Normal_gt.mat")["Normal_gt"] * _FLIP,
    )


@pytest.mark.parametrize(("name", "published"), [("ballPNG", 4.10), ("catPNG", 8.41)])
def test_least_squares_on_gray_is_the_published_baseline(name: str, published: float) -> None:
    images, directions, intensities, mask, truth = _load(name)
    gray = (images / 65535 / intensities[:, None, None].astype(np.float32)) @ np.array(
        [0.2989, 0.587, 0.114], np.float32
    )
    gray = np.minimum(gray, 1)
    lights = [DistantLight(direction=tuple(d)) for d in directions]
    found = solve(gray, np.full_like(gray, 1e-8), lights, mask=mask, method="least-squares")
    # Published to two digits.
    assert angle_deg(found.normals[mask], truth[mask]).mean() == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize(("name", "plain", "best"), [("ballPNG", 4.2, 1.7), ("catPNG", 9.0, 5.0)])
def test_colour_with_shot_noise(name: str, plain: float, best: float) -> None:
    images, directions, intensities, mask, truth = _load(name)
    lights = [
        DistantLight(direction=tuple(d), intensity=tuple(e))
        for d, e in zip(directions, intensities, strict=True)
    ]
    step = 3 if name == "ballPNG" else 4  # some of the rows and columns: much the same time for both
    images, mask, truth = images[:, ::step, ::step], mask[::step, ::step], truth[::step, ::step]
    images = np.where((images >= 65535).any(axis=-1, keepdims=True), np.float32(np.nan), images)
    # One electron per unit is as good a guess as any for a camera of which nothing is said.
    variance = np.maximum(images, 0) + 400
    errors = {}
    for method in ("least-squares", "robust", "auto"):
        found = solve(images, variance, lights, mask=mask, method=method)
        assert found.valid[mask].mean() > 0.999
        angle = angle_deg(found.normals, truth)[mask & found.valid]
        errors[method] = angle.mean()
    assert errors["least-squares"] < plain
    assert errors["robust"] < 0.62 * errors["least-squares"]
    assert found.method == "mixture"
    assert errors["auto"] < best
    assert spearmanr(found.sigma_deg[mask & found.valid], angle)[0] > 0.4
