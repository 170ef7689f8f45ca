"""Depth from measured normals, against depth that was measured, beside a peer.

Bear, cat, cow and reading of the DiLiGenT benchmark (Shi et al., TPAMI 2019) as Bilateral Normal Integration
publishes them (Cao et al., ECCV 2022, doi:10.1007/978-3-031-19769-7_32): normals of 16 bits, mask, lens and
depth in mm. The peer, ``dbini-torch``, is under the GPL: it runs in an interpreter of its own, which
``GNOMON_PEERS`` names, and nothing of it is imported here.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import normalize
from calibration.surface.integration import integrate_grid
from rigs.report import Metric

# Mean absolute errors, mm, of the authors' own program: table 2 of the paper.
PUBLISHED = {"bear": 0.33, "cat": 0.074, "cow": 0.058, "reading": 0.257}

PEER = """
import sys
import numpy as np, torch
from dbini_torch import bilateral_normal_integration
with np.load(sys.argv[1]) as given:
    normals, mask, k = (torch.from_numpy(given[name]) for name in ("normals", "mask", "k"))
depth = bilateral_normal_integration(normals.permute(2, 0, 1).contiguous(), mask, k=2, K=k)[0]
np.save(sys.argv[2], depth.numpy())
"""


class Shape(NamedTuple):
    """Normals as the file has them (x right, y up, z to the camera), mask, lens matrix, depth in mm."""

    normals: NDArray[np.float64]
    mask: NDArray[np.bool_]
    k: NDArray[np.float64]
    depth: NDArray[np.float64]


def read_shape(folder: Path) -> Shape:
    """Read one object of the set."""
    image = cv2.imread(str(folder / "normal_map.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE)
    assert image is not None, folder
    assert mask is not None, folder
    with np.load(folder / "depth_gt.npz") as file:
        depth = file[file.files[0]].astype(np.float64)
    normals = normalize(image[..., ::-1] / 65535 * 2 - 1)
    return Shape(normals, mask > 0, np.loadtxt(folder / "K.txt"), depth)


def ours(shape: Shape, *, smooth: bool) -> NDArray[np.float64]:
    """Depth by the integration that ships."""
    k, (height, width) = shape.k, shape.mask.shape
    y, x = np.mgrid[:height, :width]
    rays = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones(shape.mask.shape)], axis=-1)
    normals = np.where(shape.mask[..., None], shape.normals * [1, -1, -1], np.nan)
    return np.asarray(integrate_grid(normals, np.full(shape.mask.shape, 0.1), rays, smooth=smooth))


def theirs(shape: Shape, work: Path, python: str) -> NDArray[np.float64]:
    """Depth by ``dbini-torch`` with the settings of the paper."""
    work.mkdir(parents=True, exist_ok=True)
    given, found = work / "peer.npz", work / "peer.npy"
    np.savez(given, normals=shape.normals, mask=shape.mask, k=shape.k)
    subprocess.run([python, "-c", PEER, str(given), str(found)], check=True, capture_output=True)
    return np.asarray(np.load(found), dtype=np.float64)


def off(depth: NDArray[Any], shape: Shape) -> float:
    """Mean absolute error, mm, after the authors' scale; NaN if more than 1 % of the mask has no depth."""
    known = np.isfinite(depth) & np.isfinite(shape.depth) & (shape.depth > 0) & shape.mask
    if known.sum() < 0.99 * shape.mask.sum():
        return float("nan")
    found, truth = depth[known], shape.depth[known]
    return float(np.abs(found * np.median(truth / found) - truth).mean())


def depth_maps(data: Path, work: Path) -> Iterator[Metric]:
    """Rows of the table."""
    python = os.environ.get("GNOMON_PEERS")
    for name, published in PUBLISHED.items():
        shape = read_shape(data / name)
        yield Metric(
            quantity=f"{name}: depth, mean error", value=off(ours(shape, smooth=False), shape), unit="mm",
            bound=published, truth=published, note="published: bilateral normal integration, by its authors",
        )  # fmt: skip
        yield Metric(
            quantity=f"{name}: the same, all smooth", value=off(ours(shape, smooth=True), shape), unit="mm"
        )
        if python:
            yield Metric(
                quantity=f"{name}: dbini-torch", value=off(theirs(shape, work, python), shape), unit="mm",
                note="peer, k = 2",
            )  # fmt: skip
