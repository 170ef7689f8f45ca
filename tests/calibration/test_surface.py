"""Integration against analytic surfaces, a direct solver and real depth; meshes against trimesh."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh

from calibration.geometry import normalize
from calibration.lens import BrownConrady, LensModel
from calibration.photometric import NormalMap
from calibration.provenance import FitError
from calibration.surface import integrate, mesh, reference, write_ply
from calibration.surface.integration import integrate_grid
from calibration.surface.poisson import Differences

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data")) / "depth_gt"


def _lens(width: int = 200, height: int = 160) -> LensModel:
    return BrownConrady(
        width=width, height=height, fx=400, fy=401, cx=97, cy=82.5, k1=-0.2, k2=0.05, p1=1e-3, p2=-5e-4
    )


def _rays(lens: LensModel) -> Any:
    y, x = np.mgrid[: lens.height, : lens.width]
    rays = lens.unproject(np.stack([x, y], axis=-1).astype(float))
    return rays / rays[..., 2:]


def _map(normals: Any, mask: Any, sigma: Any = 0.1) -> NormalMap:
    normals = np.where(mask[..., None], normals, np.nan).astype(np.float32)
    return NormalMap(
        normals=normals, albedo=normals[..., 0], valid=mask,
        sigma_deg=np.where(mask, sigma, np.nan).astype(np.float32), lights_used=mask.astype(np.uint8),
    )  # fmt: skip


def _sphere(rays: Any) -> tuple[Any, Any, Any]:
    """Depth, normals and mask of a ball of 90 mm at 500 mm, seen up to 60 degrees off its middle."""
    centre, radius = np.array([20.0, -10, 500]), 90.0
    along = rays @ centre
    square = np.sum(rays**2, axis=-1)
    root = along**2 - square * (centre @ centre - radius**2)
    z = (along - np.sqrt(np.clip(root, 0, None))) / square
    normals = (rays * z[..., None] - centre) / radius
    return z, normals, (root > 0) & (-np.sum(normals * normalize(rays), axis=-1) > 0.5)


def _paraboloid(rays: Any) -> tuple[Any, Any, Any]:
    """z = 480 + (x^2 + y^2 / 2) / 400, a bowl seen from inside, with a hole in the mask."""
    z = np.full(rays.shape[:2], 480.0)
    for _ in range(100):
        x, y = rays[..., 0] * z, rays[..., 1] * z
        z = 480 + (x**2 + y**2 / 2) / 400
    normals = normalize(np.stack([x / 200, y / 400, -np.ones_like(x)], axis=-1))
    mask = np.ones(z.shape, bool)
    mask[60:90, 40:120] = False
    return z, normals, mask


def _plane(rays: Any) -> tuple[Any, Any, Any]:
    normal = normalize([0.6, -0.3, -1])
    z = -400.0 / (rays @ normal)
    return z, np.broadcast_to(normal, rays.shape), (z > 0) & (z < 2000)


@pytest.mark.parametrize(
    ("surface", "bound"),
    # The plane's relation between neighbours is exact: float32 normals and the solver's 1e-6 are left.
    [(_sphere, 1e-3), (_paraboloid, 1e-3), (_plane, 2e-5)],
)
def test_analytic_surfaces_through_a_distorting_lens(surface: Any, bound: float) -> None:
    lens = _lens()
    z, normals, mask = surface(_rays(lens))
    depth = integrate(_map(normals, mask), lens, depth_mm=z)
    assert np.array_equal(np.isfinite(depth), mask)
    assert np.abs(depth[mask] / z[mask] - 1).max() < bound
    # Relief, not only the overall depth.
    relief = z[mask] - z[mask].mean()
    assert np.abs(depth[mask] - z[mask]).mean() < 0.01 * np.abs(relief).mean()


def test_orthographic_cap() -> None:
    y, x = np.mgrid[:101, :101] - 50.0
    radius = 80.0
    inside = x**2 + y**2 < 49**2
    z = -np.sqrt(np.clip(radius**2 - x**2 - y**2, 0, None))
    normals = np.stack([x / radius, y / radius, z / radius], axis=-1)
    depth = integrate(_map(normals, inside), None)
    assert np.nanmedian(depth) == pytest.approx(0, abs=1e-4)
    error = depth[inside] - z[inside]
    assert np.abs(error - np.median(error)).max() < 1e-3 * 80


def test_components_get_their_own_scale() -> None:
    lens = _lens()
    z, normals, mask = _plane(_rays(lens))
    mask = mask.copy()
    mask[:, 95:105] = False
    mask[40, 100] = True  # alone: no neighbour, no depth
    wanted = np.where(np.arange(200) < 100, 1.0, 1.5) * z
    depth = integrate(_map(normals, mask), lens, depth_mm=wanted)
    assert np.isnan(depth[40, 100])
    mask[40, 100] = False
    assert np.abs(depth[mask] / wanted[mask] - 1).max() < 2e-5
    assert np.nanmedian(integrate(_map(normals, mask), lens, depth_mm=700.0)[:, :95]) == pytest.approx(
        700, rel=1e-3
    )


def test_uncertain_normals_weigh_less() -> None:
    lens = _lens()
    z, normals, mask = _sphere(_rays(lens))
    rng = np.random.default_rng(0)
    rough = np.zeros(mask.shape, bool)
    rough[30:60, 80:140] = True
    noisy = normalize(normals + rng.normal(size=normals.shape) * np.where(rough, 0.3, 0.003)[..., None])
    noisy = np.where((np.sum(noisy * _rays(lens), axis=-1) < -0.2)[..., None], noisy, normals)
    told = integrate(_map(noisy, mask, np.where(rough, 24.0, 0.24)), lens, depth_mm=z)
    untold = integrate(_map(noisy, mask), lens, depth_mm=z)
    at = mask & ~rough
    assert np.abs(told - z)[at].mean() < 0.6 * np.abs(untold - z)[at].mean()


def _random_edges(h: int, w: int, decades: float) -> tuple[Any, Any, Any]:
    """Weights (2, h, w) over some decades on a mask with holes and islands, and wanted differences."""
    rng = np.random.default_rng(3)
    mask = rng.random((h, w)) > 0.15
    weight = 10 ** rng.uniform(-decades, 0, (2, h, w))
    weight[0, :, :-1] *= mask[:, :-1] & mask[:, 1:]
    weight[1, :-1] *= mask[:-1] & mask[1:]
    weight[0, :, -1] = weight[1, -1] = 0
    return weight.astype(np.float32), rng.normal(size=(2, h, w)), mask


@pytest.mark.parametrize(("h", "w"), [(37, 53), (64, 40), (1, 9), (6, 1)])
@pytest.mark.parametrize("pulled", [False, True])
def test_multigrid_solves_what_a_direct_solver_does(h: int, w: int, pulled: bool) -> None:
    weight, goal, mask = _random_edges(h, w, 2)
    rng = np.random.default_rng(5)
    pull = np.where(mask & (rng.random((h, w)) > 0.9), 0.5, 0.0).astype(np.float32) if pulled else None
    wanted = rng.normal(size=(h, w))
    solver = Differences((h, w))
    solver.weigh(weight, pull)
    u, sweeps = solver.solve(goal, wanted=wanted if pulled else None, tolerance=1e-10)
    assert sweeps < 60
    expected = reference.solve_differences(weight.astype(float), goal, pull, wanted if pulled else None)
    for axis, used in enumerate(weight > 0):
        off = np.diff(u - expected, axis=1 - axis, append=0)
        assert np.abs(off[used]).max(initial=0) < 1e-4
    if pulled:
        assert np.abs((u - expected)[pull > 0]).max(initial=0) < 1e-4


def test_a_solver_is_used_again_for_other_weights() -> None:
    weight, goal, _ = _random_edges(40, 50, 1)
    solver = Differences((40, 50))
    solver.weigh(weight)
    first, _ = solver.solve(goal)
    solver.weigh(weight**2)
    solver.solve(goal, start=first)
    solver.weigh(weight)
    again, _ = solver.solve(goal)
    assert np.array_equal(first, again)


@pytest.mark.parametrize("perspective", [False, True])
def test_kernels_are_their_reference(perspective: bool) -> None:
    from calibration.surface import kernels

    rng = np.random.default_rng(0)
    rays = _rays(_lens(40, 30)).astype(np.float32) if perspective else None
    normals = normalize(np.array([0.0, 0, -1]) + rng.normal(0, 0.2, (30, 40, 3))).astype(np.float32)
    sigma = rng.uniform(0.1, 5, (30, 40)).astype(np.float32)
    floors = (0.03, 0.12, 0.35)
    facing, noise = np.empty((30, 40)), np.empty((30, 40), np.float32)
    kernels.face(normals, rays, sigma, 0.0175, facing, noise)
    found = [np.empty((2, 30, 40), np.float32) for _ in range(5)]
    kernels.predict(normals, rays, facing, noise, floors, *found)
    wide = None if rays is None else rays.astype(float)
    expected = reference.predict(normals.astype(float), wide, sigma.astype(float), floors)
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-8)

    one, other, span, base, spread = found
    u = rng.normal(size=(30, 40)) / span.max()
    weight, goal = np.empty_like(base), np.empty_like(base)
    kernels.one_sided(u, one, other, span, base, 2.0, weight, goal)
    for mine, wanted in zip((weight, goal), reference.one_sided(u, *found[:4], 2.0), strict=True):
        assert np.allclose(mine, wanted, rtol=1e-4, atol=1e-8)
    kernels.redescending(u, goal, span, base, spread, 1.5, weight)
    assert np.allclose(weight, reference.redescending(u, goal, span, base, spread, 1.5), rtol=1e-4)


def test_empty_and_mismatched_input() -> None:
    lens = _lens(40, 30)
    normals = np.broadcast_to([0.0, 0, -1], (30, 40, 3))
    nothing = np.zeros((30, 40), bool)
    with pytest.raises(FitError, match="no valid normal"):
        integrate(_map(normals, nothing), lens)
    alone = nothing.copy()
    alone[3, 4] = True
    with pytest.raises(FitError, match="neighbours"):
        integrate(_map(normals, alone), lens)
    with pytest.raises(ValueError, match="lens is for"):
        integrate(_map(normals, ~nothing), _lens())


@pytest.mark.skipif(not DATA.is_dir(), reason="no depth_gt data at GNOMON_DATA")
def test_bear_within_the_published_error() -> None:
    folder = DATA / "bear"
    image = cv2.imread(str(folder / "normal_map.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    # x right, y up, z to the camera in the file.
    normals = normalize(image / 65535 * 2 - 1) * [1, -1, -1]
    k = np.loadtxt(folder / "K.txt")
    with np.load(folder / "depth_gt.npz") as file:
        truth = file[file.files[0]]
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    rays = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones(mask.shape)], axis=-1)
    mask &= np.isfinite(truth) & (truth > 0)
    normals[~mask] = np.nan
    depth = integrate_grid(normals, np.full(mask.shape, 0.1), rays, depth_mm=np.where(mask, truth, np.nan))
    # BiNI's mean absolute error, doi:10.1007/978-3-031-19769-7_32, table 2.
    assert np.nanmean(np.abs(depth - truth)[mask]) < 0.33


# Meshes


def _roof() -> tuple[Any, LensModel]:
    lens = _lens(40, 30)
    x = np.arange(40.0) + np.zeros((30, 1))
    depth = 500 + 2.0 * np.abs(x - 12)
    depth[:, 25:] += 200  # a jump
    depth[10:14, 5:9] = np.nan
    return depth, lens


def test_mesh_faces_the_camera_and_does_not_span_jumps() -> None:
    depth, lens = _roof()
    found = mesh(depth, lens, np.full((30, 40), 0.5))
    corners = found.vertices[found.faces].astype(float)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.sum(across * corners[:, 0], axis=1) < 0).all()
    assert np.ptp(corners[..., 2], axis=1).max() < 10
    # Vertices lie on their rays.
    pixels = lens.project(found.vertices)
    assert np.abs(pixels - pixels.round()).max() < 1e-3
    quads = 29 * 39 - 29 - 25
    assert len(found.faces) == 2 * quads + 4  # and a triangle in each of the four corners of the hole
    assert found.colours is not None
    assert (found.colours == 255).all()


def test_ply_is_read_back_by_trimesh(tmp_path: Path) -> None:
    depth, lens = _roof()
    rng = np.random.default_rng(0)
    normals = normalize(rng.normal(size=(30, 40, 3)))
    one = mesh(depth, lens, rng.random((30, 40, 3)), normals=normals)
    write_ply(tmp_path / "a.ply", one)
    read = trimesh.load(tmp_path / "a.ply", process=False)
    assert np.array_equal(np.asarray(read.vertices, np.float32), one.vertices)
    assert np.array_equal(read.faces, one.faces)
    assert np.array_equal(read.visual.vertex_colors[:, :3], one.colours)
    assert np.allclose(read.vertex_normals, one.normals, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
    bare = mesh(depth, None)
    write_ply(tmp_path / "a.ply", bare)
    assert len(trimesh.load(tmp_path / "a.ply", process=False).vertices) == len(bare.vertices)


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    depth, lens = _roof()
    path = tmp_path / "a.ply"
    write_ply(path, mesh(depth, lens))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="no space"):
        write_ply(path, mesh(depth + 1, lens))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_no_triangle_is_said() -> None:
    with pytest.raises(FitError, match="no triangle"):
        mesh(np.full((5, 5), np.nan), None)
