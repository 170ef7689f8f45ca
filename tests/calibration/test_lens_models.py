"""Lens models: against OpenCV and the mathematics, exact inverses, and where they are not valid."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from calibration.files import load_model, save_model
from calibration.geometry import angle_deg
from calibration.lens import BrownConrady, KannalaBrandt, Lens, LensModel, SplinedLens
from calibration.lens.splined.fit import start
from calibration.lens.splined.model import direction

SIZE = {"width": 1600, "height": 1200, "cx": 805.0, "cy": 596.0}


def splined(bend=0.0, rough=0.03, wide=1.0, seed=0):
    """Field of 13 x 9 spacings over +-1.1 wide x +-0.76 wide of the stereographic plane."""
    spacing = 2.2 * wide / 13
    corner = (-1.1 * wide - spacing, -0.76 * wide - spacing)
    x, y = (corner[i] + spacing * np.arange(n) for i, n in enumerate((16, 12)))
    places = np.stack(np.meshgrid(x, y), axis=-1)
    knots = bend * np.sum(places**2, axis=-1, keepdims=True) * places
    knots = knots + rough * spacing * np.random.default_rng(seed).normal(size=knots.shape)
    focal = {"fx": 780.0 / wide, "fy": 785.0 / wide}
    return SplinedLens(**SIZE, **focal, knots=knots, spacing=spacing, corner=corner)


def brown(**coefficients):
    return BrownConrady(**SIZE, fx=900.0, fy=905.0, **coefficients)


def fisheye(*k):
    """Of 170 degrees over the height of the picture."""
    return KannalaBrandt(**SIZE, fx=400.0, fy=402.0, **dict(zip(("k1", "k2", "k3", "k4"), k, strict=False)))


LENSES = {
    "pinhole": brown(),
    "barrel": brown(k1=-0.32, k2=0.13, p1=5e-4, p2=-3e-4, k3=-0.02),
    "pincushion": brown(k1=0.2, k2=0.1),
    "decentred": brown(k1=-0.2, p1=8e-3, p2=-6e-3),
    "rational": brown(k1=0.4, k2=-0.1, k3=0.01, k4=0.6, k5=0.05, k6=0.002, p1=1e-3),
    "pole": brown(k1=-0.1, k4=-0.4),
    "fisheye": fisheye(-0.02, 0.004, -5e-4),
    "fisheye that turns back": fisheye(-0.05, -0.01),
    "fisheye without end": fisheye(0.01),
    "splined": splined(bend=-0.06),
    "wide splined": splined(bend=-0.02, wide=2.0),
    "folding splined": splined(bend=-0.12, wide=2.0),
}
every = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())


def directions(lens, n, seed=0):
    """Points on the valid cone at any distance, a third of them next to its rim."""
    rng = np.random.default_rng(seed)
    limit = min(lens.valid_angle_rad, np.pi)
    theta, phi = limit * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    theta[: n // 3] = limit * (1 - 10.0 ** rng.uniform(-6, -1, n // 3))
    theta[-3:] = 0, 1e-12, 1e-300
    unit = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
    return unit * rng.uniform(0.5, 2000, (n, 1))


# ---------------------------------------------------------------- all models


@every
def test_unproject_inverts_project_up_to_the_rim(lens):
    points = directions(lens, 600)
    pixels = lens.project(points)
    assert np.isfinite(pixels).all()
    # Near 90 degrees or a pole pixels lie far beyond any picture.
    near = np.abs(pixels).max(axis=1) < 1e4
    points, pixels = points[near], pixels[near]
    assert len(points) > 200
    rays = lens.unproject(pixels)
    assert np.isfinite(rays).all()
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1, atol=1e-15)
    assert np.max(np.abs(lens.project(rays) - pixels)) < 1e-9
    # Where the image all but turns back, 1e-13 of the picture's size is its square root of an angle.
    assert np.max(angle_deg(rays, points)) < 2e-4
    assert np.quantile(angle_deg(rays, points), 0.6) < 1e-9


@every
def test_a_pixel_has_a_ray_that_it_images_or_none(lens):
    u, v = np.meshgrid(np.arange(-1200.0, 2800, 41), np.arange(-1000.0, 2200, 39))
    pixels = np.stack([u, v], axis=-1)
    rays = lens.unproject(pixels)
    assert rays.shape == (*u.shape, 3)
    has = np.isfinite(rays).all(axis=-1)
    assert np.array_equal(has, np.isfinite(rays).any(axis=-1))
    assert has.any()
    assert np.max(np.abs(lens.project(rays) - pixels)[has]) < 1e-9
    assert np.max(angle_deg(lens.unproject(pixels[has]), rays[has])) == 0


@every
def test_nothing_is_imaged_where_the_model_is_not_valid_and_all_that_is_comes_back(lens):
    rng = np.random.default_rng(3)
    points = rng.normal(size=(4000, 3))
    pixels = lens.project(points)
    seen = np.isfinite(pixels).all(axis=1)
    angle = np.radians(angle_deg(points, (0, 0, 1)))
    assert np.all(seen[angle < lens.valid_angle_rad * (1 - 1e-9)])
    if not isinstance(lens, SplinedLens):  # whose field is no circle
        assert not seen[angle > lens.valid_angle_rad].any()
    inside = seen & (np.abs(pixels - 800).max(axis=1) < 1e5)
    back = lens.unproject(pixels[inside])
    assert np.isfinite(back).all()
    assert np.max(angle_deg(back, points[inside])) < 2e-4
    assert np.isnan(lens.unproject([[np.nan, 3.0], [np.inf, 3.0]])).all()
    assert np.isnan(lens.project([[0, 0, -1.0], [0, 0, 0], [np.nan, 0, 1]])).all()


@every
def test_shapes_broadcast(lens):
    points = directions(lens, 100)[50:62]
    pixels = lens.project(points)
    assert np.array_equal(lens.project(points.reshape(3, 4, 3)), pixels.reshape(3, 4, 2))
    np.testing.assert_allclose(lens.project(points[0]), pixels[0], rtol=1e-15)
    assert np.array_equal(lens.unproject(pixels.reshape(2, 6, 2)), lens.unproject(pixels).reshape(2, 6, 3))
    assert np.array_equal(lens.unproject(pixels[5]), lens.unproject(pixels)[5])
    assert lens.project(np.empty((0, 3))).shape == (0, 2)
    assert lens.unproject(np.empty((0, 2))).shape == (0, 3)


@every
def test_derivatives_are_those_of_the_projection(lens):
    points = directions(lens, 60, seed=1)[20:-3]
    points *= 300 / np.linalg.norm(points, axis=1, keepdims=True)
    points = points[np.abs(lens.project(points) - 800).max(axis=1) < 3000]
    pixels, by_points, by_parameters, columns = lens.derivatives(points)
    np.testing.assert_allclose(pixels, lens.project(points), atol=1e-9)
    values = lens.parameters
    full = np.zeros((len(points), 2, len(values)))
    if columns is None:
        full = by_parameters
    else:
        rows = np.arange(len(points))
        for k in range(columns.shape[1]):
            full[rows, :, columns[:, k]] += by_parameters[:, :, k]
    h = 1e-3
    for axis in range(3):
        step = h * np.eye(3)[axis]
        slope = (lens.project(points + step) - lens.project(points - step)) / (2 * h)
        np.testing.assert_allclose(by_points[:, :, axis], slope, rtol=1e-5, atol=1e-5)
    touched = np.arange(4) if columns is not None else np.arange(len(values))
    for at in (*touched, *(range(4, len(values), 7) if columns is not None else ())):
        step = np.zeros(len(values))
        step[at] = 1e-3 if at < 4 else 1e-6
        high, low = (lens.with_parameters(values + s * step).project(points) for s in (1, -1))
        slope = (high - low) / (2 * step[at])
        np.testing.assert_allclose(full[:, :, at], slope, rtol=1e-5, atol=2e-3)
    assert np.isnan(lens.derivatives(np.array([[0.0, 0, -1]])).pixels).all()


@every
def test_parameters_have_names_and_files_keep_them(lens, tmp_path):
    assert len(set(lens.names)) == len(lens.names) == len(lens.parameters)
    assert lens.names[:4] == ("fx", "fy", "cx", "cy")
    assert lens.parameters[:4].tolist() == [lens.fx, lens.fy, lens.cx, lens.cy]
    assert lens.with_parameters(lens.parameters) == lens
    save_model(tmp_path / "lens.json", lens)
    assert load_model(tmp_path / "lens.json", LensModel) == lens


@every
def test_rays_of_the_image_are_those_of_its_pixels(lens):
    lens = lens.replace(width=160, height=101, cx=70.0, cy=55.0, fx=lens.fx / 8, fy=lens.fy / 8)
    u, v = np.meshgrid(np.arange(160.0), np.arange(101.0))
    rays = lens.rays()
    assert rays.dtype == np.float32
    # float32 rounds to 6e-8
    np.testing.assert_allclose(rays, lens.unproject(np.stack([u, v], axis=-1)), atol=1.2e-7)


# ---------------------------------------------------------------- Brown-Conrady

rational = st.builds(
    BrownConrady,
    width=st.just(640), height=st.just(480),
    fx=st.floats(400, 3000), fy=st.floats(400, 3000), cx=st.floats(250, 400), cy=st.floats(180, 300),
    k1=st.floats(-0.4, 0.4), k2=st.floats(-0.2, 0.2), p1=st.floats(-4e-3, 4e-3), p2=st.floats(-4e-3, 4e-3),
    k3=st.floats(-0.05, 0.05),
    k4=st.sampled_from([0.0, -0.3, 0.4]), k5=st.sampled_from([0.0, 0.2, -0.1]),
    k6=st.sampled_from([0.0, 0.05]),
)  # fmt: skip


ordinary = st.builds(
    BrownConrady,
    width=st.just(640), height=st.just(480),
    fx=st.floats(400, 3000), fy=st.floats(400, 3000), cx=st.floats(250, 400), cy=st.floats(180, 300),
    k1=st.floats(-0.3, 0.3), k2=st.floats(-0.1, 0.2), p1=st.floats(-2e-3, 2e-3), p2=st.floats(-2e-3, 2e-3),
    k3=st.floats(-0.02, 0.05),
)  # fmt: skip


def matrix(lens):
    return np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])


@given(rational, st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_brown_conrady_is_that_of_opencv_and_one_to_one(lens, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform((-200, -150, 380), (200, 150, 500), (20, 3))
    points = points[np.hypot(points[:, 0], points[:, 1]) / points[:, 2] < 0.999 * lens.valid_tangent]
    coefficients = lens.parameters[4:]
    theirs, by = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix(lens), coefficients)
    theirs, by = theirs.reshape(-1, 2), by.reshape(len(points), 2, -1)
    pixels, by_points, by_parameters, _ = lens.derivatives(points)
    np.testing.assert_allclose(lens.project(points), theirs, rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(pixels, theirs, rtol=1e-11, atol=1e-9)
    # With no rotation, the derivative by the translation is that by the point.
    np.testing.assert_allclose(by_points, by[..., 3:6], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(by_parameters, by[..., 6:18], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(lens.unproject(theirs), axis=1), 1)
    assert np.max(angle_deg(lens.unproject(theirs), points), initial=0) < 1e-6


@pytest.mark.parametrize(
    ("coefficients", "tangent"),
    [
        ({"k1": -0.3}, np.sqrt(1 / 0.9)),  # 1 + 3 k1 s = 0
        ({"k1": 0.1}, np.inf),
        ({"k4": -0.25}, 2.0),  # the pole
        ({"k4": 1.0}, 1.0),  # r / (1 + r^2) turns at 1
        ({"p1": 0.0, "p2": 1e-3}, 1 / 6e-3),  # 1 - 6 p r, against the decentring
        ({"k1": 0.3, "k2": -0.2, "k3": 0.05}, None),
    ],
)
def test_brown_conrady_ends_where_its_derivative_does(coefficients, tangent):
    lens = brown(**coefficients)
    if tangent is not None:
        assert lens.valid_tangent == pytest.approx(tangent, rel=1e-9)
        assert lens.valid_angle_rad == pytest.approx(np.arctan(tangent))
    if np.isfinite(lens.valid_tangent):
        rim = np.array([lens.valid_tangent, 0, 1])
        assert np.isfinite(lens.project(rim * (1 - 1e-9, 1, 1))).all()
        assert np.isnan(lens.project(rim * (1 + 1e-9, 1, 1))).all()
        assert np.isnan(lens.project(rim * (1, 1, -1))).all()


def test_no_ray_comes_from_beyond_the_turning_point():
    # Newton, left alone, runs to the second root of these polynomials at the corners of a wide image.
    for k1, k2, k3, p1 in (
        (-0.18, -0.02, -0.046, -0.0097),
        (-0.21, 0.096, -0.032, 0.0),
        (-0.17, 0.08, -0.047, 0.0),
    ):
        lens = BrownConrady(width=640, height=480, fx=300, fy=300, cx=320, cy=240, k1=k1, k2=k2, k3=k3, p1=p1)
        u, v = np.meshgrid(np.arange(-200.0, 840, 20), np.arange(-200.0, 680, 20))
        rays = lens.unproject(np.stack([u, v], axis=-1))
        tangent = np.hypot(rays[..., 0], rays[..., 1]) / rays[..., 2]
        assert np.isnan(tangent).any()
        assert np.nanmax(tangent) < lens.valid_tangent


@given(ordinary, st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_brown_conrady_has_a_ray_for_every_pixel_or_none(lens, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.uniform((0, 0), (639, 479), (50, 2))
    rays = lens.unproject(pixels)
    valid = np.isfinite(rays).all(axis=1)
    np.testing.assert_allclose(lens.project(rays[valid]), pixels[valid], atol=1e-9)
    # Well inside the valid disc a direction is found again, and not another one of the same image.
    reach, angle = min(0.9 * lens.valid_tangent, 0.6), rng.uniform(0, 2 * np.pi, 20)
    points = np.stack([reach * np.cos(angle), reach * np.sin(angle), np.ones(20)], axis=1)
    back = lens.unproject(lens.project(points))
    found = np.isfinite(back).all(axis=1)
    assert np.all(angle_deg(back[found], points[found]) < 1e-7)
    assert found.all() or lens.valid_tangent <= 0.8


# ---------------------------------------------------------------- Kannala-Brandt


@pytest.mark.parametrize("lens", [LENSES["fisheye"], fisheye(0.05, -0.01, 0.002, -2e-4)])
def test_fisheye_is_that_of_opencv(lens):
    points = directions(lens, 300)
    points = points[points[:, 2] > 0.05 * np.linalg.norm(points, axis=1)]  # OpenCV divides by z
    points = points[np.hypot(points[:, 0], points[:, 1]) > 1e-6]
    theirs, by = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), matrix(lens), lens.parameters[4:]
    )
    theirs, by = theirs.reshape(-1, 2), by.reshape(len(points), 2, -1)
    pixels, _, by_parameters, _ = lens.derivatives(points)
    np.testing.assert_allclose(pixels, theirs, atol=1e-9)
    np.testing.assert_allclose(by_parameters, by[..., :8], rtol=1e-9, atol=1e-8)
    near = np.degrees(np.arccos(points[:, 2] / np.linalg.norm(points, axis=1))) < 60
    back = cv2.fisheye.undistortPoints(theirs[near, None], matrix(lens), lens.parameters[4:]).reshape(-1, 2)
    rays = lens.unproject(theirs[near])
    np.testing.assert_allclose(rays[:, :2] / rays[:, 2:], back, atol=1e-7)


def test_fisheye_sees_behind_itself_up_to_the_opposite_of_its_axis():
    lens = fisheye()
    theta = np.array([0.0, 1e-9, 1.0, np.pi / 2, 3.0, np.pi * (1 - 1e-12)])
    points = np.stack([np.sin(theta), 0 * theta, np.cos(theta)], axis=1)
    np.testing.assert_allclose(lens.project(points)[:, 0], 805 + 400 * theta, atol=1e-9)
    np.testing.assert_allclose(lens.unproject(lens.project(points)), points, atol=1e-12)
    assert lens.valid_angle_rad == np.pi
    # 1 + 3 k1 t^2 = 0
    assert fisheye(-0.2).valid_angle_rad == pytest.approx(np.sqrt(1 / 0.6))


# ---------------------------------------------------------------- splined


def test_splined_field_is_the_tensor_product_of_cubic_b_splines():
    lens = splined(rough=0.3, seed=5)
    rng = np.random.default_rng(1)
    theta, phi = rng.uniform(0, 0.6, 50), rng.uniform(0, 2 * np.pi, 50)
    points = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    u = 2 * np.tan(theta / 2)[:, None] * np.stack([np.cos(phi), np.sin(phi)], axis=1)
    rows, columns = lens.knots.shape[:2]
    across, down = (
        BSpline(np.arange(-2.0, n + 2), np.eye(n), 3)((u[:, i] - lens.corner[i]) / lens.spacing)
        for i, n in enumerate((columns, rows))
    )
    displaced = u + np.einsum("nj,ni,jik->nk", down, across, lens.knots)
    np.testing.assert_allclose(lens.project(points), displaced * (lens.fx, lens.fy) + (805, 596), atol=1e-9)


def test_splined_lens_folds_nowhere_that_it_images():
    lens = LENSES["folding splined"]
    rng = np.random.default_rng(4)
    points = direction(rng.uniform(-2.2, 2.2, (6000, 2)))
    pixels = lens.project(points)
    seen = np.isfinite(pixels).all(axis=1)
    assert 0.1 < seen.mean() < 0.9
    # The derivative by the place keeps its sign.
    by_points = lens.derivatives(points[seen]).by_points
    tangents = np.linalg.svd(points[seen][:, None])[2][:, 1:]
    turn = np.linalg.det(np.concatenate([tangents, points[seen][:, None]], axis=1))
    area = np.linalg.det(by_points @ tangents.swapaxes(1, 2)) * np.sign(turn)
    assert np.all(area > 0)
    # The middle of the field may be off the axis.
    aside = splined().replace(corner=(0.2, 0.1))
    assert aside.valid_angle_rad == 0
    place = direction(np.array([1.0, 0.8]))
    assert angle_deg(aside.unproject(aside.project(place)), place) < 1e-9
    assert np.isnan(aside.project([0, 0, 1])).all()


@pytest.mark.parametrize("name", ["barrel", "rational", "fisheye", "decentred"])
def test_splined_start_is_the_plain_lens_all_over_the_picture(name):
    lens = LENSES[name]
    if name == "fisheye":  # whose picture shows 220 degrees across its corners
        lens = lens.replace(fx=520.0, fy=522.0, k3=0.0)
    x, y = np.meshgrid(np.linspace(0, 1599, 40), np.linspace(0, 1199, 30))
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    began = start(lens, pixels, 3600)
    assert 12 < began.knots.shape[1] < 30
    away = began.project(lens.unproject(pixels)) - pixels
    inside = np.isfinite(lens.unproject(pixels)).all(axis=1)
    assert inside.mean() > 0.8
    # What splines of this spacing leave of a strong distortion; the fit corrects it with the rest.
    assert np.abs(away[inside]).max() < 0.1
    # Few corners bear few knots.
    assert start(lens, pixels, 300).spacing > 1.5 * began.spacing


def test_splined_lens_in_yaml_and_bad_knots():
    from pydantic import TypeAdapter, ValidationError

    lens = splined()
    plain = {**SIZE, "kind": "splined", "fx": lens.fx, "fy": lens.fy, "spacing": lens.spacing,
             "corner": list(lens.corner), "knots": lens.knots.tolist()}  # fmt: skip
    assert TypeAdapter(Lens).validate_python(plain) == lens
    for knots in (np.zeros((3, 9, 2)), np.zeros((5, 5)), np.full((5, 5, 2), np.nan)):
        with pytest.raises(ValidationError, match="knots"):
            TypeAdapter(Lens).validate_python({**plain, "knots": knots.tolist()})
