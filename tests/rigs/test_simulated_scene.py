import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from simulated_small import camera, near, truth

from calibration.lens import BrownConrady
from calibration.targets.boards import Charuco, corners_mm, detect_board
from rigs.simulated import Twin
from rigs.simulated.lighting import Source, highlights, splat
from rigs.simulated.scene import Stage, half_plane_cover
from rigs.simulated.surfaces import Placement
from rigs.simulated.things import SphereThing

FLOAT32 = 1e-5
PLANE = {"kind": "plane", "translation_mm": [0, 0, 450], "albedo": 0.6}


def points_of(twin):
    maps, lens = twin.maps("scene", "cam"), twin.lens("cam")
    v, u = np.mgrid[: lens.height, : lens.width]
    rays = lens.unproject(np.stack([u, v], axis=-1))
    return rays / rays[..., 2:] * maps.depth_mm[..., None].astype(np.float64), maps


def test_a_tilted_plane_shows_lambert_fall_off_and_lobe():
    turn = Rotation.from_euler("xyz", [20, -15, 5], degrees=True)
    plane = PLANE | {"rotvec_deg": np.degrees(turn.as_rotvec()).tolist()}
    place, axis = np.array([90.0, -120.0, 60.0]), np.array([-0.2, 0.3, 1.0])
    light = near(*place, intensity=3e11, order=1.7, axis=axis.tolist())
    twin = Twin(truth([plane], lights={"led": light}))
    points, maps = points_of(twin)

    normal = turn.as_matrix()[:, 2] * -1
    assert np.abs((points - [0, 0, 450]) @ normal).max() < 450 * FLOAT32
    assert np.abs(maps.normals - normal).max() < FLOAT32
    away = place - points
    distance = np.linalg.norm(away, axis=-1)
    lobe = np.maximum(-(away / distance[..., None]) @ axis / np.linalg.norm(axis), 0) ** 1.7
    expected = 0.6 * 3e11 / distance**2 * lobe * np.maximum(away @ normal / distance, 0)
    seen = twin.clean_radiance("scene", {"led": 1.0}, "cam")
    np.testing.assert_allclose(seen, expected, rtol=3 * FLOAT32)
    # the calibration's own description of the light says the same
    direction, irradiance = twin.lights("cam")["led"].at(points)
    np.testing.assert_allclose(seen, 0.6 * irradiance[..., 0] * (direction @ normal), rtol=3 * FLOAT32)


def test_distant_light_levels_and_ambient_add_up():
    lights = {"sun": {"kind": "distant", "direction": [0, -3, -4], "intensity": 5e5}, "led": near(0, 0, 0)}
    twin = Twin(truth([PLANE], lights=lights, ambient=700.0))
    both = twin.clean_radiance("scene", {"sun": 0.5, "led": 1.0}, "cam")
    assert twin.clean_radiance("scene", {"sun": 1.0}, "cam")[70, 70] == pytest.approx(0.6 * (5e5 * 0.8 + 700))
    led = twin.clean_radiance("scene", {"led": 1.0}, "cam")
    np.testing.assert_allclose(both, led + 0.5 * 0.6 * 5e5 * 0.8, rtol=FLOAT32)


def test_a_ball_throws_its_shadow_where_geometry_says():
    ball = {
        "kind": "sphere",
        "finish": "matte",
        "centre_mm": [20, 5, 400],
        "radius_mm": 15,
        "reflectance": 0.5,
    }
    place = np.array([-60.0, -40.0, 50.0])
    twin = Twin(truth([PLANE, ball], lights={"led": near(*place)}))
    points, maps = points_of(twin)
    along = points - place
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    passes = np.linalg.norm(np.cross(np.array([20, 5, 400]) - place, along), axis=-1)
    on_plane = maps.thing == 0
    lit = twin.lit_count("scene", "cam") == 1
    clear = on_plane & (np.abs(passes - 15) > 450 * FLOAT32)
    assert (lit == (passes > 15))[clear].all()
    assert (~lit & on_plane).sum() > 300


def ball_mesh(tmp_path, radius):
    path = tmp_path / "ball.ply"
    ball = trimesh.creation.icosphere(subdivisions=6, radius=radius)
    ball.export(path)
    return str(path), radius - np.linalg.norm(ball.triangles_center, axis=-1).min()


def test_a_ball_as_mesh_looks_like_a_ball(tmp_path):
    centre = [8.0, -6.0, 420.0]
    ball = {"kind": "sphere", "finish": "matte", "centre_mm": centre, "radius_mm": 30, "reflectance": 0.5}
    path, sag = ball_mesh(tmp_path, 30)
    mesh = {"kind": "mesh", "path": path, "translation_mm": centre, "albedo": 0.5}
    lights = {"led": near(-200, -80, 150)}
    one, other = (Twin(truth([thing, PLANE], lights=lights)) for thing in (ball, mesh))
    a, b = one.maps("scene", "cam"), other.maps("scene", "cam")
    inside = (a.thing == 0) & (np.linalg.norm(np.nan_to_num(a.normals) * [1, 1, 0], axis=-1) < 0.95)
    assert inside.sum() > 1500
    assert np.abs(a.depth_mm - b.depth_mm)[inside].max() < sag / np.sqrt(1 - 0.95**2) + 450 * FLOAT32
    assert np.abs(a.normals - b.normals)[inside].max() < 2e-3
    lit, lit_too = (twin.lit_count("scene", "cam") for twin in (one, other))
    outline = cv2.morphologyEx(lit, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    assert (lit == lit_too)[~outline & ((a.thing == 1) == (b.thing == 1))].all()


def test_a_relief_lies_on_its_formula():
    hill = {"kind": "bump", "at_mm": [10, -5], "height_mm": 14, "radius_mm": [9, 15], "angle_deg": 30}
    cap = {"kind": "cap", "at_mm": [-28, 10], "height_mm": 6, "radius_mm": [14, 14]}
    relief = {
        "kind": "heightfield",
        "width_mm": 120,
        "height_mm": 100,
        "translation_mm": [2, 3, 450],
        "rotvec_deg": [10, 0, 0],
        "features": [hill, cap],
        "cell_mm": 0.25,
    }
    twin = Twin(truth([relief]))
    points, maps = points_of(twin)
    seen = maps.thing == 0
    local = (points[seen] - [2, 3, 450]) @ Rotation.from_euler("x", 10, degrees=True).as_matrix()
    x, y = local[:, 0] - 10, local[:, 1] + 5
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    u, v = (c * x + s * y) / 9, (c * y - s * x) / 15
    bump = 14 * np.exp(-0.5 * (u**2 + v**2))
    r2 = (local[:, 0] + 28) ** 2 + (local[:, 1] - 10) ** 2
    ball = (14**2 + 6**2) / 12
    height = bump + np.where(r2 < 14**2, np.sqrt(np.maximum(ball**2 - r2, 0)) - (ball - 6), 0)
    # triangles cut the rim of the cap
    smooth = np.abs(np.sqrt(r2) - 14) > 0.5
    assert np.abs(local[:, 2] + height)[smooth].max() < 2 * 450 * FLOAT32
    slope_x, slope_y = -bump * (u * c / 9 - v * s / 15), -bump * (u * s / 9 + v * c / 15)
    expected = np.stack([-slope_x, -slope_y, -np.ones_like(slope_x)], axis=-1)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    normals = maps.normals[seen] @ Rotation.from_euler("x", 10, degrees=True).as_matrix()
    outside = r2 > 15**2
    assert np.abs(normals - expected)[outside].max() < 1e-4


def test_gloss_is_walters_lobe_over_lambert():
    flat = {"kind": "bump", "at_mm": [0, 0], "height_mm": 1e-9, "radius_mm": [50, 50]}
    relief = {
        "kind": "heightfield",
        "width_mm": 400,
        "height_mm": 300,
        "translation_mm": [0, 0, 450],
        "features": [flat],
        "cell_mm": 50,
        "albedo": 0.3,
        "gloss": {"roughness": 0.3, "f0": 0.08},
    }
    place = np.array([100.0, -60.0, 100.0])
    twin = Twin(truth([relief], lights={"led": near(*place, intensity=1e11)}))
    points, _ = points_of(twin)
    n = np.array([0, 0, -1.0])
    away = place - points
    d2 = np.sum(away**2, axis=-1)
    light = away / np.sqrt(d2)[..., None]
    view = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    half = light + view
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    nl, nv, nh, vh = light @ n, view @ n, half @ n, np.sum(view * half, axis=-1)
    a2 = 0.3**2
    spread = a2 / (np.pi * (nh**2 * (a2 - 1) + 1) ** 2)
    # Smith's height-correlated masking of the GGX distribution
    mask = [(np.sqrt(1 + a2 * (1 / c**2 - 1)) - 1) / 2 for c in (nl, nv)]
    fresnel = 0.08 + 0.92 * (1 - vh) ** 5
    brdf = 0.3 / np.pi + spread * fresnel / (1 + mask[0] + mask[1]) / (4 * nl * nv)
    expected = np.pi * 1e11 / d2 * nl * brdf
    np.testing.assert_allclose(twin.clean_radiance("scene", {"led": 1.0}, "cam"), expected, rtol=1e-4)


def test_half_plane_cover_is_the_share_of_the_square():
    rng = np.random.default_rng(1)
    angle, distance = rng.uniform(0, 2 * np.pi, 50), rng.uniform(-0.8, 0.8, 50)
    x, y = np.meshgrid((np.arange(1000) + 0.5) / 1000 - 0.5, (np.arange(1000) + 0.5) / 1000 - 0.5)
    for a, d in zip(angle, distance, strict=True):
        inside = np.mean(x * np.cos(a) + y * np.sin(a) + d < 0)
        assert half_plane_cover(d, np.cos(a), np.sin(a)) == pytest.approx(inside, abs=2e-3)
    assert half_plane_cover(np.array(0.2), np.array(1.0), np.array(0.0)) == pytest.approx(0.3, abs=1e-6)


def polygon(outline):
    """Area and centroid of a closed outline (n, 2)."""
    x, y = (outline - outline.mean(axis=0)).T
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    cross = x * y1 - x1 * y
    area = cross.sum() / 2
    centroid = np.array([np.sum((x + x1) * cross), np.sum((y + y1) * cross)]) / (6 * area)
    return abs(area), centroid + outline.mean(axis=0)


def test_the_outline_of_a_ball_has_no_bias():
    # under light from everywhere a white ball is uniform: its picture is its share of each pixel
    lens = {"k1": -0.1, "p1": 0.001}
    ball = {
        "kind": "sphere",
        "centre_mm": [40.3, -20.7, 450],
        "radius_mm": 24,
        "reflectance": 1,
        "finish": "matte",
    }
    eye = camera(600, 380, 940.0, lens=lens, optics={"psf_sigma_px": 0.8})
    twin = Twin(truth([ball, PLANE | {"translation_mm": [0, 0, 600], "albedo": 0}], eye=eye, ambient=1.0))
    image = twin.clean_radiance("scene", {}, "cam").astype(np.float64)
    (sphere,) = twin.spheres("scene", "cam")
    area, centre = polygon(sphere.outline_px)
    assert abs(image.sum() - area) / np.sqrt(4 * np.pi * area) < 0.003
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    found = np.array([np.sum(image * u), np.sum(image * v)]) / image.sum()
    assert np.abs(found - centre).max() < 0.003


# Not square to the pixels: the blur comes after the sampling, so edges along the rows err with their phase.
@pytest.mark.parametrize("tilt_deg", [(0, 0, 3), (25, -30, 8)])
def test_board_corners_are_where_opencv_projects_them(tilt_deg):
    board = {"kind": "charuco", "columns": 9, "rows": 6, "square_mm": 10, "marker_mm": 7.5}
    turn = Rotation.from_euler("xyz", tilt_deg, degrees=True)
    corner = np.array([1.3, -2.1, 400]) - turn.apply([45, 30, 0])
    thing = {
        "kind": "board",
        "board": board,
        "translation_mm": corner.tolist(),
        "rotvec_deg": np.degrees(turn.as_rotvec()).tolist(),
    }
    lens = {"k1": -0.12, "k2": 0.2, "p1": 0.002, "p2": -0.001}
    eye = camera(700, 480, 2000.0, lens=lens, optics={"psf_sigma_px": 0.7})
    twin = Twin(truth([thing], lights={"led": near(20, 10, 0)}, eye=eye))
    image = twin.clean_radiance("scene", {"led": 1.0}, "cam")
    view = detect_board(image, Charuco.model_validate(board))
    assert len(view.ids) == 40
    matrix = np.array([[2000, 0, 350], [0, 2000, 240], [0, 0, 1.0]])
    true = cv2.projectPoints(
        corners_mm(Charuco.model_validate(board)),
        turn.as_rotvec(),
        corner,
        matrix,
        np.array([-0.12, 0.2, 0.002, -0.001, 0.0]),
    )[0].reshape(-1, 2)
    miss = view.pixels - true[view.ids]
    assert np.abs(miss.mean(axis=0)).max() < 0.01
    assert np.sqrt(np.mean(miss**2)) < 0.02


def brute_force_highlight(lens, ball, light, normal, radius_mm):
    """Flux and centroid of a small Lambertian disk's image in a mirror ball, by rays through sub-pixels."""
    spot = highlights(ball, lens, light)[0].pixel
    step = 1 / 250
    u, v = np.meshgrid(np.arange(-2, 2, step) + step / 2, np.arange(-2, 2, step) + step / 2)
    pixels = np.stack([u, v], axis=-1) + spot
    rays = lens.unproject(pixels)
    centre, size = ball.balls[0].centre, ball.balls[0].radius
    along = rays @ centre
    t = along - np.sqrt(size**2 - centre @ centre + along**2)
    hit = t[..., None] * rays
    n = (hit - centre) / size
    away = rays - 2 * np.sum(rays * n, axis=-1, keepdims=True) * n
    s = ((light.place - hit) @ normal) / (away @ normal)
    landing = hit + s[..., None] * away - light.place
    inside = np.sum(landing**2, axis=-1) < radius_mm**2
    # J = pi I cos = L A cos for a Lambertian source of order 1
    glow = np.pi * light.intensity[0] / (np.pi * radius_mm**2)
    return ball.balls[0].thing.reflectance * glow * inside.sum() * step**2, pixels[inside].mean(axis=0), spot


@pytest.mark.parametrize("place", [(-150.0, 80.0, 120.0), (260.0, -30.0, 300.0), (20.0, 10.0, -100.0)])
def test_highlight_has_the_place_and_flux_of_a_ray_traced_lamp(place):
    lens = BrownConrady(width=1920, height=1200, fx=3000, fy=3010, cx=960, cy=600, k1=-0.1, k2=0.1, p1=5e-4)
    thing = SphereThing(kind="sphere", centre_mm=(72.0, -62.0, 450.0), radius_mm=12, reflectance=0.6)
    stage = Stage([thing], Placement(np.eye(3), np.zeros(3)))
    axis = np.array([0, 0, 450.0]) - place
    axis /= np.linalg.norm(axis)
    light = Source(True, np.array(place), np.array([2e11]), axis, 1.0)
    flux, centre, spot = brute_force_highlight(lens, stage, light, axis, 4.0)
    (found,) = highlights(stage, lens, light)
    assert np.abs(centre - spot).max() < 0.004
    assert found.flux[0] == pytest.approx(flux, rel=5e-3)


def test_a_highlight_keeps_its_flux_and_place_when_spread():
    image = np.zeros((60, 80), np.float32)
    splat(image, np.array([41.37, 22.81]), 1e6, 0.7)
    v, u = np.mgrid[:60, :80]
    assert image.sum() == pytest.approx(1e6, rel=1e-6)
    assert np.sum(image * u) / 1e6 == pytest.approx(41.37, abs=1e-4)
    assert np.sum(image * v) / 1e6 == pytest.approx(22.81, abs=1e-4)
    # pixel aperture and Gaussian
    assert np.sum(image * (u - 41.37) ** 2) / 1e6 == pytest.approx(0.49 + 1 / 12, rel=1e-3)


def test_highlights_show_in_the_picture_and_hide_behind_other_balls():
    ball = {"kind": "sphere", "centre_mm": [0, 0, 450], "radius_mm": 20, "reflectance": 0.5}
    lights = {"led": near(-100, 0, 100)}
    twin = Twin(truth([ball], lights=lights, eye=camera(optics={"psf_sigma_px": 0.7})))
    (spot,) = twin.highlights("scene", "led", "cam")
    image = twin.clean_radiance("scene", {"led": 1.0}, "cam")
    assert image.sum() == pytest.approx(spot.flux[0], rel=1e-5)
    screen = {"kind": "sphere", "centre_mm": [-45, 0, 280], "radius_mm": 15, "finish": "matte"}
    hidden = Twin(truth([ball, screen], lights=lights))
    assert hidden.highlights("scene", "led", "cam")[0].flux[0] == 0


def test_a_mirror_shows_the_plane_beside_it():
    ball = {"kind": "sphere", "centre_mm": [0, 0, 400], "radius_mm": 20, "reflectance": 0.5}
    twin = Twin(truth([ball, PLANE], ambient=1000.0))
    image = twin.clean_radiance("scene", {}, "cam")
    (sphere,) = twin.spheres("scene", "cam")
    right = sphere.outline_px[:, 0].max()
    row = image[75]
    # surroundings of 1000 in the middle, the plane's 600 at the rim, half of each; then the plane itself
    assert row[120] == pytest.approx(500, rel=1e-5)
    assert row[int(right) - 1] == pytest.approx(300, rel=1e-5)
    assert row[int(right) + 3] == pytest.approx(600, rel=1e-5)
