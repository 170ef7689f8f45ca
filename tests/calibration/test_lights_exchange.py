import numpy as np
import pytest
from mirror_scene import dome

from calibration.geometry import angle_deg, normalize, tangent_basis
from calibration.lights.exchange import exchange
from calibration.lights.model import NearLight
from calibration.lights.samples import MatteSamples, SphereSamples
from calibration.lights.shading import fit_shading

CENTRES = np.array([[42.0, 38, 450], [-40, 40, 452], [-43, -37, 449], [41, -40, 451]])
RADIUS, ALBEDO = 20.0, 0.8


def _samples(centres=CENTRES, per_sphere=200):
    """Places on the visible halves of spheres, nothing seen yet."""
    turn = np.arange(per_sphere) * 2.39996
    flat = 0.92 * np.sqrt((np.arange(per_sphere) + 0.5) / per_sphere)
    local = np.stack([flat * np.cos(turn), flat * np.sin(turn), -np.sqrt(1 - flat**2)], axis=-1)
    normals = np.tile(local, (len(centres), 1))
    part = np.repeat(np.arange(len(centres)), per_sphere)
    sector = np.floor((np.arctan2(normals[:, 1], normals[:, 0]) / (2 * np.pi) + 0.5) * 7.999).astype(int)
    patch = 32 * part + 8 * np.digitize(np.hypot(*normals[:, :2].T), (0.35, 0.6, 0.8)) + sector
    matte = MatteSamples(
        centres[part] + RADIUS * normals, normals, np.zeros((0, len(part))), np.zeros((0, len(part))), ALBEDO
    )
    still = np.zeros((3, 2, len(part), 3))
    return SphereSamples(matte, part, patch, still, np.zeros((len(centres), 3, 3)), centres, RADIUS)


def _direct(light, points, normals):
    direction, irradiance = light.at(points)
    return irradiance[..., 0] * np.clip(np.sum(direction * normals, axis=-1), 0, None)


def _mutual(light, samples, rng, rays=3000):
    """Light by way of another sphere: rays of cosine-weighted chance directions, to what they hit."""
    points, normals = samples.matte.points_mm, samples.matte.normals
    found = np.zeros(len(points))
    for i, (point, normal) in enumerate(zip(points, normals, strict=True)):
        u, v = rng.uniform(size=(2, rays))
        across = tangent_basis(normal)
        flat = np.sqrt(u)[:, None] * np.stack([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)], axis=-1)
        ray = flat @ across + np.sqrt(1 - u)[:, None] * normal
        for j, centre in enumerate(samples.centres_mm):
            along = ray @ (centre - point)
            root = along**2 - np.sum((centre - point) ** 2) + RADIUS**2
            met = (along > 0) & (root > 0) & (j != samples.part[i])
            place = point + ray[met] * (along[met] - np.sqrt(root[met]))[:, None]
            found[i] += np.sum(_direct(light, place, (place - centre) / RADIUS)) / rays
    return found


def test_a_sphere_all_of_one_brightness_lights_a_place_as_its_solid_angle_says():
    far = np.array([[0.0, 0, 450], [90.0, 0, 450]])
    samples = _samples(far)
    share = exchange(samples).share
    k = int(np.argmax(samples.matte.normals[:200] @ [1.0, 0, 0]))
    to = far[1] - samples.matte.points_mm[k]
    cosine = normalize(to) @ samples.matte.normals[k]
    # The form factor of a whole sphere above the horizon: (R / d)^2 times the cosine.
    assert cosine > 0.8
    assert share[k].sum() == pytest.approx((RADIUS / np.linalg.norm(to)) ** 2 * cosine, rel=0.02)
    assert share[k, :200].sum() == 0
    assert exchange(samples._replace(centres_mm=None)) is None


@pytest.mark.parametrize("albedo", [0.8, 0.0])
def test_lamps_are_where_they_are_though_the_spheres_light_each_other(albedo):
    rng = np.random.default_rng(3)
    places = dome(1, 5)
    lamps = [
        NearLight(position_mm=tuple(p), intensity=(1e5,), axis=tuple(normalize([0, 0, 450] - p)), order=1.0)
        for p in places
    ]
    samples = _samples()
    clean = np.stack(
        [_direct(lamp, samples.matte.points_mm, samples.matte.normals) for lamp in lamps]
    ) + albedo * (np.stack([_mutual(lamp, samples, rng) for lamp in lamps]) if albedo else 0)
    sigma = 0.003 * clean.max(axis=1, keepdims=True) * np.ones_like(clean)
    noisy = ALBEDO * (clean + sigma * rng.normal(size=clean.shape))
    samples = samples._replace(matte=samples.matte._replace(radiance=noisy, sigma=ALBEDO * sigma))
    # How much they light each other the balls tell themselves, whatever their stated albedo.
    lights = fit_shading([f"led{i}" for i in range(5)], samples, model="near")
    off = [
        np.linalg.norm(np.subtract(a.position_mm, b.position_mm))
        for a, b in zip(lights.lights.values(), lamps, strict=True)
    ]
    # One third of a percent in 200 places, of which each tells a turn of the light by its slope: 2 mm at 400.
    assert np.median(off) < 5
    for light, lamp in zip(lights.lights.values(), lamps, strict=True):
        assert abs(light.order - 1) < 3 * np.sqrt(light.lobe_covariance[2, 2])
        assert angle_deg(light.axis, lamp.axis) < 8
