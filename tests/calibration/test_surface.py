"""Integration against analytic surfaces, a direct solver and real depth."""

import os
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
import pytest

from calibration.geometry import normalize
from calibration.lens import BrownConrady, LensModel
from calibration.photometric import NormalMap
from calibration.provenance import FitError
from calibration.surface import integrate, reference
from calibration.surface.integration import integrate_grid
from calibration.surface.pieces import closed, put_together
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


def test_differences_in_single_precision_leave_a_system_with_a_solution() -> None:
    weight, goal, _ = _random_edges(60, 50, 0.5)
    solver = Differences((60, 50))
    solver.weigh(weight)
    u, sweeps = solver.solve(goal.astype(np.float32), tolerance=1e-12)
    assert sweeps < 60
    expected = reference.solve_differences(weight.astype(float), goal.astype(np.float32).astype(float))
    for axis, used in enumerate(weight > 0):
        assert np.abs(np.diff(u - expected, axis=1 - axis, append=0)[used]).max() < 1e-9


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


@pytest.mark.parametrize("scale", [1.0, 1e-20])
def test_a_residual_below_the_working_precision_ends_the_search(scale):
    # Asked for more than single precision holds it stops, and does not divide by what is left.
    solver = Differences((20, 30))
    weight = np.full((2, 20, 30), scale)
    weight[0, :, 15] = 0
    goal = np.random.default_rng(0).normal(size=(2, 20, 30))
    solver.weigh(weight)
    u, sweeps = solver.solve(goal, tolerance=0.0, most=60)
    assert np.isfinite(u).all()
    assert sweeps < 60


@pytest.mark.parametrize("perspective", [False, True])
def test_kernels_are_their_reference(perspective: bool) -> None:
    from calibration.surface import kernels

    rng = np.random.default_rng(0)
    rays = _rays(_lens(40, 30)).astype(np.float32) if perspective else None
    normals = normalize(np.array([0.0, 0, -1]) + rng.normal(0, 0.2, (30, 40, 3))).astype(np.float32)
    sigma = rng.uniform(0.1, 5, (30, 40)).astype(np.float32)
    floors = (0.03, 0.12, 0.35)
    facing = np.empty((30, 40))
    cosine, noise = np.empty((30, 40), np.float32), np.empty((30, 40), np.float32)
    kernels.face(normals, rays, sigma, 0.0175, facing, cosine, noise)
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
    args = (u, goal, one, other, span, base, spread, cosine, 1.5)
    loss = kernels.redescending(*args, weight).sum()
    assert np.allclose(weight, reference.redescending(*args)[0], rtol=1e-4)
    assert loss == pytest.approx(reference.redescending(*args)[1], rel=1e-4)
    squares, creases = np.empty((30, 40), np.float32), np.empty_like(base)
    kernels.contradict(one, other, span, noise, squares, creases)
    for mine, wanted in zip((squares, creases), reference.contradict(one, other, span, noise), strict=True):
        assert np.allclose(mine, wanted, rtol=1e-3, atol=1e-3)


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


def _gable() -> tuple[Any, Any]:
    """Depth in px and normals, orthographic: a roof that stands on a plane; its gables are jumps."""
    depth = np.zeros((90, 80))
    rows = np.arange(-19.5, 20)
    depth[25:65, 20:60] = np.abs(rows)[:, None] - 20
    normals = np.broadcast_to([0.0, 0, -1], (90, 80, 3)).copy()
    normals[25:65, 20:60] = normalize(np.stack([0 * rows, np.sign(rows), -np.ones_like(rows)], axis=-1))[
        :, None
    ]
    return depth, normals


def test_a_jump_of_depth_stays_sharp() -> None:
    depth, normals = _gable()
    everywhere = np.ones(depth.shape, bool)
    sharp = integrate(_map(normals, everywhere), None)
    smeared = integrate(_map(normals, everywhere), None, smooth=True)
    away = np.abs(sharp - depth)
    # Of the jumps of 20 px hardly a pixel is wrong; at the eaves and the ridge half a step is anybody's.
    assert (away > 0.6).mean() < 0.005
    assert away.mean() < 0.1
    assert np.abs(smeared - depth).mean() > 10 * away.mean()


def _flap(slope: float) -> tuple[Any, Any]:
    """Orthographic: a flap that rises from a plane along its left side, and jumps on the other three."""
    depth = np.zeros((90, 100))
    part = np.s_[25:65, 30:75]
    depth[part] = -slope * (np.arange(45) + 0.5)
    normals = np.broadcast_to([0.0, 0, -1], (90, 100, 3)).copy()
    normals[part] = normalize([-slope, 0, -1.0])
    return depth, normals


@pytest.mark.parametrize(("slope", "noise_deg"), [(0.15, 0.0), (0.8, 0.0), (0.8, 1.0)])
def test_a_hinged_flap_rises_from_its_hinge(slope: float, noise_deg: float) -> None:
    depth, normals = _flap(slope)
    rng = np.random.default_rng(4)
    noisy = normalize(normals + rng.normal(0, np.radians(noise_deg), normals.shape))
    everywhere = np.ones(depth.shape, bool)
    sigma = max(np.sqrt(2) * noise_deg, 0.1)
    sharp = integrate(_map(noisy, everywhere, sigma), None)
    smeared = integrate(_map(noisy, everywhere, sigma), None, smooth=True)
    # Half a step at the hinge is anybody's; noise sums up to some of its steps.
    assert np.abs(sharp - depth).mean() < 0.5 * slope + 2 * np.radians(noise_deg)
    assert np.abs(smeared - depth).mean() > 4 * slope


def test_pieces_go_where_most_of_their_border_fits() -> None:
    u = np.zeros((20, 30))
    u[:, 10:20], u[:, 20:] = 5.0, -3.0
    goal, cut = np.zeros((2, 20, 30)), np.zeros((2, 20, 30), bool)
    edge = np.ones((2, 20, 30), bool)
    edge[0, :, -1] = edge[1, -1] = False
    cut[0, :, [9, 19]] = True
    # Of 20 edges of the first border 8 agree on 0, the others on nothing; 9 of the second on 0, 6 on 2.
    goal[0, 8:, 9] = np.linspace(3, 30, 12)
    goal[0, 9:15, 19], goal[0, 15:, 19] = 2.0, np.linspace(-20, -9, 5)
    moved = put_together(u, goal, np.full((2, 20, 30), 0.1), edge, cut)
    assert np.ptp(moved) == pytest.approx(0, abs=1e-12)
    # As many votes for both: the smaller piece takes the nearer place, be it the first or the second.
    for border, difference in ((4, 4.0), (24, -4.0)):
        cut[:], goal[:] = False, 0.0
        cut[0, :, border] = True
        goal[0, :10, border] = difference
        moved = put_together(np.zeros((20, 30)), goal, np.full((2, 20, 30), 0.1), edge, cut)
        assert moved[:, border + 1] - moved[:, border] == pytest.approx(difference, abs=1e-12)


def test_holes_of_a_cut_are_closed() -> None:
    cut = np.zeros((2, 60, 80), bool)
    cut[0, :, 39] = True
    cut[0, 25:35, 39] = False
    edge = np.ones_like(cut)
    edge[0, :, -1] = edge[1, -1] = False
    found = closed(cut, edge, 8.0)
    assert (found & cut).sum() == cut.sum()
    # Somewhere within the hole every row is cut, and nothing elsewhere.
    assert found[0, :, 30:50].any(axis=1).all()
    assert not found[:, :, :30].any()
    assert not found[:, :, 50:].any()
    assert np.array_equal(closed(cut, edge, 3.0), cut)
    assert not closed(np.zeros_like(cut), edge, 8.0).any()


@pytest.mark.parametrize("noise_deg", [0.0, 1.0])
def test_an_arch_stands_above_what_it_is_as_flat_as_at_its_top(noise_deg: float) -> None:
    depth = np.zeros((90, 100))
    along = (np.arange(80) + 0.5) / 80
    depth[37:53, 10:90] = -25 * np.sin(np.pi * along)
    slope = -25 * np.pi / 80 * np.cos(np.pi * along)
    normals = np.broadcast_to([0.0, 0, -1], (90, 100, 3)).copy()
    normals[37:53, 10:90] = normalize(np.stack([slope, 0 * slope, -np.ones(80)], axis=-1))
    rng = np.random.default_rng(0)
    noisy = normalize(normals + rng.normal(0, np.radians(noise_deg), normals.shape))
    found = integrate(_map(noisy, np.ones(depth.shape, bool), max(np.sqrt(2) * noise_deg, 0.1)), None)
    assert np.abs(found - depth).mean() < 0.1 + 2 * np.radians(noise_deg)


@pytest.mark.parametrize("perspective", [False, True])
def test_islands_go_on_from_what_is_nearest(perspective: bool) -> None:
    lens = _lens()
    z, normals, mask = _sphere(_rays(lens))
    if not perspective:
        y, x = np.mgrid[:160, :200].astype(float)
        x, y = x - 100, y - 80
        z = -np.sqrt(np.clip(85.0**2 - x**2 - y**2, 0, None))
        normals, mask = np.stack([x, y, z], axis=-1) / 85, np.hypot(x, y) < 70
    mask = mask.copy()
    # A comb of cuts, two pixels wide: strips, squares, and corners of few pixels.
    mask[::17] = mask[1::17] = mask[:, 100::17] = mask[:, 101::17] = False
    held = integrate(_map(normals, mask), lens if perspective else None, depth_mm=z)
    loose = integrate(_map(normals, mask), lens if perspective else None, depth_mm=np.median(z[mask]))
    known = np.isfinite(held)
    loose = (
        loose * np.median(z[known] / loose[known]) if perspective else loose + np.median((z - loose)[known])
    )
    scale = 500 / 400 if perspective else 1.0
    # Half a step of bend a gap, over the way from the middle of the largest part.
    assert np.abs(loose - z)[known].mean() < 0.3 * scale
    assert np.abs(held - z)[known].mean() < 0.1 * scale


def test_smooth_surfaces_are_not_torn() -> None:
    lens = _lens()
    z, normals, mask = _sphere(_rays(lens))
    rng = np.random.default_rng(2)
    noisy = normalize(normals + rng.normal(0, np.radians(1.0), normals.shape))
    sigma = np.degrees(np.hypot(1, 1) * np.radians(1.0))
    torn = integrate(_map(noisy, mask, sigma), lens, depth_mm=z)
    whole = integrate(_map(noisy, mask, sigma), lens, depth_mm=z, smooth=True)
    assert np.abs(torn - z)[mask].mean() < 1.3 * np.abs(whole - z)[mask].mean()


def test_anchors_put_a_loose_piece_in_its_place() -> None:
    lens = _lens(120, 100)
    z, normals, mask = _plane(_rays(lens))
    mask = mask.copy()
    mask[:, 60] = False
    true = np.where(np.arange(120) < 60, 1.0, 1.2) * z
    anchors = np.full(z.shape, np.nan)
    rng = np.random.default_rng(1)
    at = rng.integers(0, 100, 12), rng.integers(62, 120, 12)
    anchors[at] = true[at] + rng.normal(0, 0.5, 12)
    depth = integrate(_map(normals, mask), lens, depth_mm=z, anchors_mm=anchors, anchor_sigma_mm=0.5)
    # Twelve anchors of 0.5 mm: their mean is off by 0.15 mm, and a plane's slope is the normals'.
    right = mask & (np.arange(120) > 60)
    assert np.abs(depth - true)[right].mean() < 3 * 0.5 / np.sqrt(12)
    left = mask & (np.arange(120) < 60)
    assert np.abs(depth / true - 1)[left].max() < 2e-5
    with pytest.raises(ValueError, match="behind the camera"):
        integrate(_map(normals, mask), lens, anchors_mm=-anchors)
    with pytest.raises(ValueError, match="anchors are"):
        integrate(_map(normals, mask), lens, anchors_mm=anchors[1:])
    with pytest.raises(ValueError, match="anchor_sigma_mm"):
        integrate(_map(normals, mask), lens, anchors_mm=anchors, anchor_sigma_mm=0.0)


def test_the_same_bytes_with_any_number_of_threads() -> None:
    _, normals = _gable()
    normals = np.tile(normals, (3, 3, 1))
    found = _map(normals, np.ones(normals.shape[:2], bool))
    before = numba.get_num_threads()
    many = integrate(found, None)
    try:
        numba.set_num_threads(1)
        assert np.array_equal(integrate(found, None), many)
    finally:
        numba.set_num_threads(before)


def test_normals_that_graze_or_are_missing_are_left_out() -> None:
    depth, normals = _gable()
    normals[10:20, 10:20] = [1.0, 0, -0.01]
    normals[0, 0] = [0, 0, 1]
    normals[40:44, 70:74] = np.nan
    mask = np.ones(depth.shape, bool)
    found = integrate(_map(normals, mask), None)
    assert np.isnan(found[12:18, 12:18]).all()
    assert np.isnan(found[0, 0])
    assert np.isnan(found[40:44, 70:74]).all()
    assert np.isfinite(found).sum() == mask.sum() - 117
    with pytest.raises(FitError, match="graze"):
        integrate(_map(np.broadcast_to([1.0, 0, 0], normals.shape), mask), None)
    with pytest.raises(FitError, match="NaN"):
        integrate(_map(np.full(normals.shape, np.nan), mask), None)


@pytest.mark.skipif(not DATA.is_dir(), reason="no depth_gt data at GNOMON_DATA")
@pytest.mark.parametrize(
    # Mean absolute errors of the authors' own program, doi:10.1007/978-3-031-19769-7_32, table 2.
    ("name", "bound"),
    [("bear", 0.33), ("cat", 0.074), ("cow", 0.058), ("reading", 0.257)],
)
def test_real_shapes_within_the_published_error(name: str, bound: float) -> None:
    folder = DATA / name
    image = cv2.imread(str(folder / "normal_map.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    # x right, y up, z to the camera in the file.
    normals = normalize(image / 65535 * 2 - 1) * [1, -1, -1]
    k = np.loadtxt(folder / "K.txt")
    with np.load(folder / "depth_gt.npz") as file:
        truth = file[file.files[0]].astype(float)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    rays = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones(mask.shape)], axis=-1)
    normals[~mask] = np.nan
    depth = integrate_grid(normals, np.full(mask.shape, 0.1), rays, smooth=False)
    known = np.isfinite(depth) & np.isfinite(truth) & (truth > 0)
    assert known.sum() > 0.99 * mask.sum()
    depth, truth = depth[known], truth[known]
    # Scaled as the authors do.
    assert np.abs(depth * np.median(truth / depth) - truth).mean() <= bound
