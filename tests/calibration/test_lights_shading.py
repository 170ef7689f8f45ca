import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mirror_scene import dome, small_lens

from calibration.geometry import angle_deg, normalize, tangent_basis
from calibration.lights.agreement import join_lights
from calibration.lights.fit import fit_lights
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.lights.samples import sample_spheres
from calibration.lights.shading import fit_shading
from calibration.provenance import FitError
from calibration.targets.outline import SphereView, settled
from calibration.targets.spheres import sphere_from_circle, sphere_from_mask

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
LENS = small_lens(k1=-0.08)
RADIUS, ALBEDO, NOISE = 22.0, 0.7, 0.004
FOUR = np.array([[60.0, 38, 450], [-58, 40, 452], [-61, -37, 449], [59, -40, 451]])
OUTLINE_PX = 0.05


def _names(lights):
    return [f"led{i:02d}" for i in range(len(lights))]


def _views(centres, rng):
    """Outlines with an error drawn from the covariance they state."""
    views = []
    for centre in centres:
        off = rng.normal(size=3) * OUTLINE_PX / LENS.fx
        direction = normalize(normalize(centre) + off[:2] @ tangent_basis(centre))
        angular = float(np.arcsin(RADIUS / np.linalg.norm(centre)) + off[2])
        spread = np.eye(3) * (OUTLINE_PX / LENS.fx) ** 2
        views.append(settled(SphereView(direction, angular, spread, np.zeros(2), 0.0), LENS))
    return views


def _seen(lights, centres, seed=0, ground=0.0, shadow=None, lens=LENS):
    """Noisy pictures of matte spheres under each light, by ``at`` alone; samples of them."""
    rng = np.random.default_rng(seed)
    rays = lens.unproject(np.stack(np.meshgrid(np.arange(lens.width), np.arange(lens.height)), axis=-1))
    points, normals, on = np.zeros_like(rays), np.zeros_like(rays), np.zeros(rays.shape[:2], bool)
    for centre in centres:
        along = rays @ centre
        inside = along**2 - centre @ centre + RADIUS**2 > 0
        depth = along - np.sqrt(np.clip(along**2 - centre @ centre + RADIUS**2, 0, None))
        points[inside] = (rays * depth[..., None])[inside]
        normals[inside] = normalize(points[inside] - centre)
        on |= inside
    images, variances = [], []
    for i, light in enumerate(lights):
        direction, irradiance = light.at(points)
        lit = np.clip(np.sum(direction * normals, axis=-1), 0, None)[..., None] * irradiance
        if shadow is not None and i == shadow[0]:
            lit[:, shadow[1]] *= 0.05
        full = np.percentile(lit[on], 98)
        image = ALBEDO * np.where(on[..., None], lit + ground * full * 0.5 * (1 + normals[..., 2:]), 0)
        sigma = NOISE * ALBEDO * full
        image = image + rng.normal(size=image.shape) * sigma
        images.append(image if image.shape[2] > 1 else image[..., 0])
        variances.append(np.full_like(images[-1], sigma**2))
    views = _views(centres, rng)
    return sample_spheres(images, variances, views, lens, radius_mm=RADIUS, reflectance=ALBEDO)


def _lamps(seed, count, order=1.5):
    rng = np.random.default_rng(seed)
    places = dome(seed, count)
    axes = normalize(np.array([0, 0, 450]) + rng.normal(size=(count, 3)) * 40 - places)
    level = 1e5 * rng.uniform(0.7, 1.3, count)
    return [
        NearLight(position_mm=tuple(p), intensity=(float(v),), axis=tuple(a), order=order)
        for p, a, v in zip(places, axes, level, strict=True)
    ]


def _suns(seed, count, intensity=(5.0,)):
    directions = normalize(dome(seed, count) - [0, 0, 450])
    return [DistantLight(direction=tuple(d), intensity=intensity) for d in directions]


def _off(light, true):
    if isinstance(true, NearLight):
        return np.asarray(light.position_mm) - true.position_mm
    return tangent_basis(light.direction) @ np.asarray(true.direction)


def _relative(lights, true):
    return np.concatenate(
        [
            np.linalg.solve(np.linalg.cholesky(v.covariance), _off(v, t))
            for v, t in zip(lights.lights.values(), true, strict=True)
        ]
    )


def test_one_matte_sphere_tells_direction_and_colour():
    relative = []
    for seed in range(5):
        true = _suns(seed, 6, (5.0, 4.0, 2.0))
        lights = fit_shading(_names(true), _seen(true, FOUR[:1], seed))
        relative.append(_relative(lights, true))
        off = [angle_deg(v.direction, t.direction) for v, t in zip(lights.lights.values(), true, strict=True)]
        # An outline off by 0.05 px turns all directions of a ball of 44 px by 0.07 degrees.
        assert np.max(off) < 0.4
        for light in lights.lights.values():
            np.testing.assert_allclose(light.intensity, (5, 4, 2), rtol=0.01)
        assert "one sphere" in lights.provenance.note
        assert lights.quality.verdict == "good"
    # The lights of one ball share its outline: some ten independent numbers.
    assert 0.4 < np.sqrt(np.mean(np.square(np.concatenate(relative)))) < 1.5


def test_four_matte_spheres_tell_where_a_lamp_is_and_how_it_shines():
    relative, errors = [], []
    for seed in range(2):
        true = _lamps(seed, 6)
        lights = fit_shading(_names(true), _seen(true, FOUR, seed))
        assert "BIC" in lights.provenance.note
        relative.append(_relative(lights, true))
        errors += [np.linalg.norm(_off(v, t)) for v, t in zip(lights.lights.values(), true, strict=True)]
        points = np.array([0, 0, 450]) + np.random.default_rng(0).uniform(-40, 40, (30, 3))
        for light, lamp in zip(lights.lights.values(), true, strict=True):
            np.testing.assert_allclose(light.at(points)[1], lamp.at(points)[1], rtol=0.015)
            assert abs(light.order - 1.5) < 0.4
    # Outlines of 0.05 px in 44 turn a direction by a thousandth, which is 3 mm over a base of 75.
    assert np.median(errors) < 5
    assert 0.6 < np.sqrt(np.mean(np.square(np.concatenate(relative)))) < 1.5


def test_distant_lights_on_four_spheres_are_found_to_be_distant():
    true = _suns(3, 6)
    lights = fit_shading(_names(true), _seen(true, FOUR, 3))
    assert {v.kind for v in lights.lights.values()} == {"distant"}
    assert "chi-square" in lights.provenance.note
    assert fit_shading(_names(true), _seen(true, FOUR, 3), model="near").lights["led00"].kind == "near"


def test_a_bright_ground_and_a_cast_shadow_do_not_turn_the_light():
    true = _suns(4, 5)
    lights = fit_shading(_names(true), _seen(true, FOUR[:2], 4, ground=0.15))
    off = [angle_deg(v.direction, t.direction) for v, t in zip(lights.lights.values(), true, strict=True)]
    assert np.max(off) < 0.5
    # A pole's shadow over a quarter of the first sphere's width.
    x = int(LENS.project(FOUR[0])[0])
    lights = fit_shading(_names(true), _seen(true, FOUR[:2], 4, shadow=(2, slice(x - 10, x + 12))))
    assert angle_deg(lights.lights["led02"].direction, true[2].direction) < 0.5


def test_without_a_lens_shading_gives_directions_in_the_ball_s_own_view():
    lens = small_lens(focal=60000.0)
    centre = np.array([[0.0, 0.0, RADIUS * 60000 / 90]])
    true = _suns(5, 4)
    rng = np.random.default_rng(0)
    ball = sphere_from_circle(lens.project(centre[0]), 90.0, None, sigma_px=0.05)
    y, x = np.mgrid[: lens.height, : lens.width]
    flat = (np.stack([x, y], axis=-1) - ball.centre_px) / 90
    square = np.sum(flat**2, axis=-1)
    normal = np.concatenate([flat, -np.sqrt(np.clip(1 - square, 0, 1))[..., None]], axis=-1)
    images = [
        np.where(square < 1, np.clip(normal @ np.asarray(t.direction), 0, None), 0)
        + rng.normal(size=x.shape) * 0.002
        for t in true
    ]
    samples = sample_spheres(images, [np.full(x.shape, 4e-6)] * 4, [ball], None)
    lights = fit_shading(_names(true), samples)
    off = [angle_deg(v.direction, t.direction) for v, t in zip(lights.lights.values(), true, strict=True)]
    assert np.max(off) < 0.2
    assert "without a lens" in lights.provenance.note
    with pytest.raises(FitError, match="need a lens"):
        fit_shading(_names(true), samples, model="near")


def test_a_dark_or_saturated_light_is_named():
    true = _suns(6, 3)
    samples = _seen(true, FOUR[:1], 6)
    radiance = np.array(samples.matte.radiance)
    dark, blown = np.array(radiance), np.array(radiance)
    dark[1] = np.random.default_rng(0).normal(size=dark[1].shape) * 0.01
    blown[2, radiance[2] > 0.2] = np.nan
    for values, words in ((dark, "light led01.*is it lit"), (blown, "light led02.*saturated")):
        with pytest.raises(FitError, match=words):
            fit_shading(_names(true), samples._replace(matte=samples.matte._replace(radiance=values)))
    with pytest.raises(ValueError, match="2 names for 3 lights"):
        fit_shading(["a", "b"], samples)
    tiny = sphere_from_circle((50, 50), 3.0, None)
    with pytest.raises(FitError, match=r"sphere 0 at \(50, 50\) px is too small"):
        sample_spheres([np.ones((99, 99))], [np.ones((99, 99))], [tiny], None)


def test_both_kinds_of_spheres_are_joined_and_a_light_that_they_put_apart_is_named():
    true = _lamps(7, 5)
    matte = fit_shading(_names(true), _seen(true, FOUR, 7))
    rng = np.random.default_rng(7)
    mirror = LightSet(
        lights={
            name: t.replace(
                position_mm=tuple(np.asarray(t.position_mm) + rng.normal(size=3)), covariance=np.eye(3)
            )
            for name, t in zip(_names(true), true, strict=True)
        },
        quality=matte.quality.replace(warnings=(), verdict="good"),
    )
    joined = join_lights(mirror, matte)
    middle = np.mean(matte.sphere_centres_mm, axis=0)
    for name, t in zip(_names(true), true, strict=True):
        assert np.trace(joined.lights[name].covariance) < 3
        # The matte balls tell how much light arrives, not how strong a lamp at another place would be.
        np.testing.assert_allclose(joined.lights[name].at(middle)[1], matte.lights[name].at(middle)[1])
        assert joined.lights[name].order == matte.lights[name].order
        assert np.linalg.norm(_off(joined.lights[name], t)) < 4
    moved = mirror.lights["led02"].replace(position_mm=(0.0, -250.0, 150.0))
    joined = join_lights(mirror.replace(lights={**mirror.lights, "led02": moved}), matte)
    assert "light led02: matte and mirror spheres put it" in joined.quality.warnings[-1]
    assert joined.quality.verdict == "doubtful"
    with pytest.raises(FitError, match="light led02"):
        join_lights(mirror, matte.replace(lights={k: v for k, v in matte.lights.items() if k != "led02"}))


def test_a_lamp_that_did_not_burn_is_named():
    lamps = [
        DistantLight(direction=tuple(d)) for d in normalize([[0.0, 0, -1], [0.6, 0.2, -1], [0, -0.5, -1]])
    ]
    samples = _seen(lamps, FOUR[:1])
    assert list(fit_shading(_names(lamps), samples).lights) == _names(lamps)
    dark = np.array(samples.matte.radiance)
    dark[2] = np.where(np.isfinite(dark[2]), 0.3 * np.nanmax(dark[0]), np.nan)  # a black level that stayed in
    samples = samples._replace(matte=samples.matte._replace(radiance=dark))
    with pytest.raises(FitError, match=r"light led02: no shading on the matte spheres.* 100 % as bright"):
        fit_shading(_names(lamps), samples)


@pytest.mark.skipif(not (DATA / "psm/gray").is_dir(), reason="no psm/gray data at GNOMON_DATA")
def test_gray_ball_of_psm_agrees_with_its_chrome_ball():
    def pictures(name):
        files = [str(DATA / f"psm/{name}/{name}.{i}.png") for i in range(12)]
        images = [cv2.imread(f, 0).astype(np.float32) for f in files]
        mask = cv2.imread(str(DATA / f"psm/{name}/{name}.mask.png"), 0) > 127
        return [np.where(i >= 250, np.nan, i) for i in images], sphere_from_mask(mask, None)

    names = [str(i) for i in range(12)]
    images, ball = pictures("chrome")
    mirror = fit_lights(names, images, [ball], None)
    images, ball = pictures("gray")
    matte = fit_shading(names, sample_spheres(images, [np.ones_like(i) for i in images], [ball], None))
    off = [angle_deg(matte.lights[n].direction, mirror.lights[n].direction) for n in names]
    # A published Lambertian fit of the gray ball agrees to 2.3 degrees.
    assert np.mean(off) < 2.3
