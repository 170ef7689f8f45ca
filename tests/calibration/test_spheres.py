import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from mirror_scene import four_spheres, small_lens
from numpy.testing import assert_allclose

from calibration.geometry import angle_deg, normalize, tangent_basis
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.outline import circle, curve, fit_points
from calibration.targets.spheres import SphereView, detect_spheres, sphere_from_circle, sphere_from_mask

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
RADIUS = 20.0


def _truth(lens, centre, radius=RADIUS):
    angular = float(np.arcsin(radius / np.linalg.norm(centre)))
    return SphereView(normalize(centre), angular, np.eye(3), np.zeros(2), 0.0)


def _errors(lens, views, centres, radius=RADIUS):
    """Errors (s, 3) in px: two of the direction, one of the radius; and the same over their sigma."""
    errors, relative = [], []
    for view in views:
        centre = centres[np.argmin(angle_deg(view.direction, centres))]
        u, v = tangent_basis(view.direction)
        d = normalize(centre)
        off = np.array([d @ u, d @ v, np.arcsin(radius / np.linalg.norm(centre)) - view.angular_radius_rad])
        errors.append(off * lens.fx)
        relative.append(off / np.sqrt(np.diag(view.covariance)))
    return np.array(errors), np.array(relative)


@pytest.fixture(scope="module")
def plain():
    """Dark balls on a backdrop: their mirror shows nothing but the lights."""
    lens = small_lens(k1=-0.2, k2=0.08, p1=1e-3, p2=-5e-4)
    scene = replace(four_spheres(lens, seed=1, count=6), mirrors_backdrop=False)
    return scene, scene.render(1)


@pytest.fixture(scope="module")
def horizon():
    """Balls before a near backdrop: its horizon shows in them as a sharper circle than their outline."""
    scene = four_spheres(small_lens(), seed=0, count=8)
    return scene, scene.render(0)


def test_finds_four_spheres_to_a_twentieth_of_a_pixel(plain):
    scene, images = plain
    views = detect_spheres(images, scene.lens)
    assert len(views) == 4
    errors, relative = _errors(scene.lens, views, scene.centres)
    assert np.abs(errors).max() < 0.05
    # 12 numbers: chi-square stays below 32.9 with probability 0.999.
    assert np.sum(relative**2) < 32.9


def test_the_horizon_in_the_ball_is_not_its_outline(horizon):
    scene, images = horizon
    views = detect_spheres(images, scene.lens)
    assert len(views) == 4
    errors, relative = _errors(scene.lens, views, scene.centres)
    # The horizon lies 10 px inside. What the mirror shows near its outline costs up to 0.2 px at this size.
    assert np.abs(errors).max() < 0.25
    assert np.abs(relative).max() < 4.5


@pytest.mark.parametrize("depth", [0.4, 0.7])
def test_a_holder_that_touches_the_outline_is_not_it(depth):
    lens = small_lens()
    scene = replace(four_spheres(lens, seed=1, count=8), mirrors_backdrop=False)
    images = scene.render(1)
    centre, radius = lens.project(scene.centres[0]), RADIUS / scene.centres[0, 2] * lens.fx
    v, u = np.mgrid[: lens.height, : lens.width]
    ball = np.stack([u, v], axis=-1) - centre
    # A quarter of a disc, 15 % larger than the ball, that meets it at its left.
    disc = ball - [0.15 * radius, 0.0]
    quarter = np.abs(np.arctan2(disc[..., 1], disc[..., 0])) < 0.8
    reach, inside = np.linalg.norm(disc, axis=-1), np.linalg.norm(ball, axis=-1)
    images[:, quarter & (reach < 1.15 * radius) & (inside > 1.02 * radius)] *= depth
    views = detect_spheres(images, lens, count=4)
    errors, _ = _errors(lens, views, scene.centres)
    assert np.abs(errors).max() < 0.05


def test_a_round_object_with_stray_bright_pixels_is_no_sphere():
    lens = small_lens()
    scene = replace(four_spheres(lens, seed=1, count=8), mirrors_backdrop=False)
    images, rng = scene.render(1), np.random.default_rng(0)
    v, u = np.mgrid[: lens.height, : lens.width]
    disc = np.hypot(u - 277, v - 202) < 50
    images[:, disc] += 3 * images[:, disc].mean()
    for image in images:
        # What a path tracer leaves where light went by way of a mirror.
        y, x = 202 + rng.integers(-40, 40), 277 + rng.integers(-28, 28)
        image[y - 1 : y + 2, x - 1 : x + 2] += 5 * image.max()
    for count in (None, 4):
        views = detect_spheres(images, lens, count=count)
        errors, _ = _errors(lens, views, scene.centres)
        assert len(views) == 4
        assert np.abs(errors).max() < 0.05


def test_a_circle_of_chance_edges_does_not_run_away():
    lens = small_lens()
    scene = replace(four_spheres(lens, seed=2, count=8), mirrors_backdrop=False)
    assert len(detect_spheres(scene.render(2), lens)) == 4


def test_without_a_lens_the_circles_are_those_in_the_image():
    lens = small_lens(focal=4000.0)
    scene = replace(four_spheres(lens, seed=2, count=6), backdrop_mm=2100.0, mirrors_backdrop=False)
    scene = replace(
        scene,
        centres=np.array([[-120.0, 10, 2000], [90.0, -40, 2000]]),
        lights=np.c_[scene.lights[:, :3] + [0, 0, 1500], np.ones(6)],
        strength=scene.strength * 4,
    )
    views = detect_spheres(scene.render(2), None, count=2)
    for view, centre in zip(views, scene.centres, strict=True):
        outline = curve(_truth(lens, centre), lens, np.linspace(0, 2 * np.pi, 200, endpoint=False))
        assert np.isnan(view.direction).all()
        assert np.isnan(view.angular_radius_rad)
        assert_allclose(view.centre_px, outline.mean(axis=0), atol=0.1)
        assert_allclose(
            view.radius_px, np.linalg.norm(outline - outline.mean(axis=0), axis=1).mean(), atol=0.1
        )


def test_false_circles_are_no_spheres(plain):
    scene, images = plain
    marked = np.array(images)
    rows, columns = np.mgrid[: scene.lens.height, : scene.lens.width]
    disc = 1 / (1 + np.exp((np.hypot(columns - 280, rows - 200) - 38) / 0.5))
    marked *= 1 - 0.9 * disc
    # A matte bump: its shading moves with the light, over its whole face.
    x, y = (columns - 280) / 38, (rows - 60) / 38
    for image, light in zip(marked, scene.lights, strict=True):
        normal = np.stack([x, y, -np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))], axis=-1)
        shade = np.clip(normal @ normalize(light[:3] - [0, 0, 450]), 0, None)
        np.copyto(image, shade * np.median(image) * 2, where=x**2 + y**2 < 1)
    views = detect_spheres(marked, scene.lens)
    assert len(views) == 4
    assert np.abs(_errors(scene.lens, views, scene.centres)[0]).max() < 0.1


def test_a_sphere_cut_by_the_border_and_saturated_highlights(plain):
    scene, images = plain
    cut = np.array(images[:, :, 118:])
    cut[cut > 0.5 * np.max(cut, axis=(1, 2), keepdims=True)] = np.nan
    lens = scene.lens.replace(cx=scene.lens.cx - 118)
    views = detect_spheres(cut, lens)
    assert min(v.centre_px[0] for v in views) < 25
    errors, _ = _errors(lens, views, scene.centres)
    assert len(views) == 4
    assert np.abs(errors).max() < 0.08


def test_finding_is_blind_to_the_order_of_lights_and_leaves_images_alone(plain):
    scene, images = plain
    kept = np.array(images)
    images.flags.writeable = False
    first, second = detect_spheres(images, scene.lens), detect_spheres(images[::-1], scene.lens)
    images.flags.writeable = True
    assert np.array_equal(images, kept)
    again = detect_spheres(images, scene.lens)
    for a, b, c in zip(first, second, again, strict=True):
        assert_allclose(a.direction, b.direction, atol=0.01 / scene.lens.fx)
        assert np.array_equal(a.direction, c.direction)
        assert np.array_equal(a.covariance, c.covariance)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_turned_image_has_turned_spheres(plain, turns):
    _, images = plain
    straight = detect_spheres(images, None, count=4)
    turned = detect_spheres([np.ascontiguousarray(np.rot90(i, turns)) for i in images], None, count=4)
    for view in straight:
        x, y = view.centre_px
        for _ in range(turns):
            x, y = y, (images.shape[2] - 1 if _ % 2 == 0 else images.shape[1] - 1) - x
        # Angles are sampled from another starting point: differences of the order of the noise remain.
        assert min(np.hypot(*(t.centre_px - [x, y])) for t in turned) < 0.03


def test_size_hint_and_count_are_kept(plain):
    scene, images = plain
    left = images[:4, :, :220]
    assert len(detect_spheres(left, scene.lens, radius_px=40, count=1)) == 1
    with pytest.raises(FitError, match="sphere"):
        detect_spheres(left, scene.lens, radius_px=(70, 90))
    with pytest.raises(FitError, match="want 9"):
        detect_spheres(left, scene.lens, count=9)


def test_no_sphere_and_too_few_lights_are_said(plain):
    scene, images = plain
    with pytest.raises(FitError, match="no mirror sphere"):
        detect_spheres(images[:, 130:270, 190:370], None)
    with pytest.raises(FitError, match="at least 3"):
        detect_spheres(images[:2], scene.lens)
    with pytest.raises(ValueError, match="gray images"):
        detect_spheres([images[0], images[1], images[2][:-1]], scene.lens)


@pytest.fixture(scope="module")
def wide() -> LensModel:
    return small_lens(focal=300.0, k1=-0.12, k2=0.02, p1=1e-3)


@pytest.mark.parametrize("centre", [(0, 0, 400), (220, -150, 320), (-260, 180, 380)])
def test_mask_gives_the_sphere_anywhere_in_a_wide_field(wide, centre):
    # At 37 degrees off the axis the outline is an ellipse 20 % longer than wide.
    radius = 40.0
    centre = np.array(centre, float)
    outline = curve(_truth(wide, centre, radius), wide, np.linspace(0, 2 * np.pi, 2000, endpoint=False))
    mask = np.zeros((wide.height, wide.width), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * 256).astype(np.int32)], 255, shift=8)
    view = sphere_from_mask(mask > 0, wide)
    # fillPoly includes touched border pixels: it grows masks by up to half a pixel.
    assert angle_deg(view.direction, centre) < np.degrees(0.15 / wide.fx)
    assert abs(np.sin(view.angular_radius_rad) - radius / np.linalg.norm(centre)) * wide.fx < 0.8
    hole = np.array(mask)
    hole[: int(view.centre_px[1]) - 10, : int(view.centre_px[0])] = 0
    partly = sphere_from_mask(hole > 0, wide)
    assert angle_deg(partly.direction, view.direction) < np.degrees(0.3 / wide.fx)


def test_points_on_an_outline_give_it_back_with_honest_errors(wide):
    centre = np.array([150.0, 90, 350])
    true = _truth(wide, centre, 30.0)
    off = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        points = curve(true, wide, np.arange(150) * (2 * np.pi / 150)) + rng.normal(size=(150, 2)) * 0.1
        points[:10] += 8
        view = fit_points(points, sphere_from_circle(points.mean(axis=0), 30.0, wide), wide)
        u, v = tangent_basis(view.direction)
        d = normalize(centre)
        step = np.array([d @ u, d @ v, true.angular_radius_rad - view.angular_radius_rad])
        off.append(step / np.sqrt(np.diag(view.covariance)))
    # 180 numbers: their rms is 1 +- 0.053; the sandwich over 36 sectors is itself known to 12 %.
    assert 0.8 < np.sqrt(np.mean(np.square(off))) < 1.25


def test_one_image_is_too_few_for_a_sphere():
    with pytest.raises(FitError, match=r"^1 image is too few"):
        detect_spheres([np.ones((50, 50), np.float32)], None)


def test_bad_masks_are_said(wide):
    with pytest.raises(FitError, match="empty"):
        sphere_from_mask(np.zeros((50, 50), bool), wide)
    with pytest.raises(FitError, match="empty"):
        sphere_from_mask(np.ones((50, 50), bool), wide)
    with pytest.raises(FitError, match="too few"):
        fit_points(np.zeros((3, 2)), circle((5, 5), 5, None), None)
    row, column = np.indices((80, 100))
    ball, second = (np.hypot(column - x, row - 40) < r for x, r in ((35, 20), (80, 16)))
    for inverted in (~ball, ~(ball | second), np.hypot(column - 50, row - 40) > 39):
        with pytest.raises(FitError, match="marks what is around the sphere, not the sphere: invert it"):
            sphere_from_mask(inverted, None)
    with pytest.raises(FitError, match="39 % of what the mask marks lies outside"):
        sphere_from_mask(ball | second, None)


def test_circle_by_hand_means_the_same_with_and_without_lens():
    lens = small_lens(focal=5000.0)
    view = sphere_from_circle((200, 150), 40, lens, sigma_px=0.5)
    assert_allclose(view.centre_px, [200, 150], atol=0.01)
    assert_allclose(view.radius_px, 40, atol=0.01)
    flat = sphere_from_circle((200, 150), 40, None, sigma_px=0.5)
    # One px is as many radians as the angular radius over its size in px.
    assert_allclose(view.covariance * (40 / view.angular_radius_rad) ** 2, flat.covariance, rtol=0.01)


@pytest.mark.skipif(not (DATA / "psm/chrome").is_dir(), reason="no psm/chrome data at GNOMON_DATA")
def test_chrome_ball_of_psm_is_where_its_mask_says():
    images = [cv2.imread(str(DATA / f"psm/chrome/chrome.{i}.png"), cv2.IMREAD_GRAYSCALE) for i in range(12)]
    by_mask = sphere_from_mask(cv2.imread(str(DATA / "psm/chrome/chrome.mask.png"), 0) > 0, None)
    (view,) = detect_spheres([i.astype(np.float32) for i in images], None)
    assert np.hypot(*(view.centre_px - by_mask.centre_px)) < 1.5
    assert abs(view.radius_px - by_mask.radius_px) < 1.5


@pytest.mark.skipif(not (DATA / "two_spheres").is_dir(), reason="no two_spheres data at GNOMON_DATA")
@pytest.mark.parametrize(("ball", "bound_px"), [("cat/LightProbe-1", 1.5), ("frog/LightProbe-2", 3.0)])
def test_chrome_balls_of_two_spheres_are_where_their_makers_marked_them(ball, bound_px):
    folder = DATA / "two_spheres" / ball
    # Half resolution: the outlines are blurred by 5 px. A pixel's centre goes from x to (x + 0.5) / 2 - 0.5.
    files = [str(folder / f"Image_{i:02d}.JPG") for i in range(1, 21)]
    images = [cv2.imread(f, cv2.IMREAD_REDUCED_GRAYSCALE_2).astype(np.float32) for f in files]
    (view,) = detect_spheres(images, None)
    # Their file counts from 1, with y up from the bottom row.
    x, y, radius = np.loadtxt(folder / "circle_data.txt")
    marked = np.array([x - 1, 2 * images[0].shape[0] - y])
    off = 2 * view.centre_px + 0.5 - marked
    # The marked points leave 1.1 and 1.7 px rms about their own circle: its centre is known to 0.8, 1.2 px.
    assert np.hypot(*off) < bound_px
    assert abs(2 * view.radius_px - radius) < 1.5
