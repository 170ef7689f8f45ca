"""Distance of a coated surface under near lights, rendered by Fresnel's equations and not by the bank."""

import numpy as np

from calibration.geometry import normalize
from calibration.lens import BrownConrady
from calibration.lights.model import NearLight
from calibration.photometric import sight
from calibration.photometric.choice import ahead
from calibration.photometric.gloss import find_gloss
from calibration.photometric.pixels import Pixels
from calibration.surface.material import as_mixture

SIZE = 20
FAR = 450.0
LENS = BrownConrady(width=SIZE, height=SIZE, fx=80.0, fy=80.0, cx=9.5, cy=9.5)
RAYS = sight(LENS, np.arange(SIZE), np.arange(SIZE)).astype(np.float64)
MASK = np.ones((SIZE, SIZE), bool)


def lamps(n=16):
    turn = np.arange(n) * 2.39996
    up = np.arcsin(np.linspace(0.42, 0.95, n)[np.random.default_rng(2).permutation(n)])
    far = np.random.default_rng(3).uniform(300, 600, n)
    ray = np.stack([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), -np.sin(up)], -1)
    places = ray * far[:, None] + [0, 0, FAR]
    return [NearLight(position_mm=(x, y, z), intensity=(FAR**2,)) for x, y, z in places.tolist()]


def surface():
    """Waves of 8 mm: depth along each line of sight and the normals, by differences of the points."""
    y, x = np.mgrid[:SIZE, :SIZE]

    def point(v, u):
        ray = LENS.unproject(np.stack([u, v], -1).astype(np.float64))
        ray = ray / ray[..., 2:]
        depth = FAR + 4 * np.sin(u / 3.1 + 1) * np.cos(v / 2.7) + 3 * np.sin((u + v) / 4.3)
        return ray * depth[..., None]

    step = 1e-3
    along, down = (point(y, x + step) - point(y, x - step)), (point(y + step, x) - point(y - step, x))
    normals = normalize(np.cross(along, down))
    points = point(y, x)
    return points, np.where(np.sum(normals * points, -1, keepdims=True) > 0, -normals, normals)


def transmitted(cosine, index=1.5):
    """What Fresnel's equations let through an uncoated dielectric, for light without polarisation."""
    inside = np.sqrt(1 - (1 - cosine**2) / index**2)
    across = ((cosine - index * inside) / (cosine + index * inside)) ** 2
    along = ((inside - index * cosine) / (inside + index * cosine)) ** 2
    return 1 - 0.5 * (across + along)


def pixels_at(factor, coat, noise=2e-3, believed=None):
    """Samples of the surface, taken to be ``factor`` times as far off as it is, under lights ``believed``."""
    points, normals = surface()
    rng = np.random.default_rng(5)
    albedo = rng.uniform(0.3, 0.7, (SIZE, SIZE))
    eye = np.maximum(-np.sum(normals * normalize(points), -1), 0.01)
    images = []
    for light in lamps():
        direction, irradiance = light.at(points)
        cosine = np.clip(np.sum(normals * direction, -1), 0, 1)
        body = cosine * (transmitted(cosine) * transmitted(eye) if coat else 1.0)
        images.append(albedo * irradiance[..., 0] * body)
    radiance = np.array(images)
    radiance = radiance + rng.normal(0, noise, radiance.shape)
    value, variance = radiance.astype(np.float32), np.full(radiance.shape, noise**2, np.float32)
    return Pixels.prepare(value, variance, believed or lamps(), (points * factor).astype(np.float32), MASK)


def judged(pixels, gloss, *, asked):
    """By a robust model whose distance no light moves."""
    rays, prior = RAYS.astype(np.float32), np.full(MASK.shape, FAR)
    return as_mixture(pixels, rays, gloss, prior, np.zeros(len(lamps())), asked=asked)


def off(depth):
    return abs(float(np.median(np.log(depth / surface()[0][..., 2]))))


def test_a_coated_body_is_as_far_off_as_it_is():
    # Where a matt surface explains the samples best: some per cent nearer.
    pixels = pixels_at(0.97, coat=True)
    found = judged(pixels, find_gloss(pixels), asked=False)
    assert found.depth_mm is not None
    assert off(found.depth_mm) < 0.01
    assert 0 < found.sigma < 0.01


def test_errors_of_the_lights_leave_a_coated_body_where_it_is():
    # As four balls leave them: 1 mm and 0.7 %. Derivatives with the normals held say 2 % and tell no model.
    rng = np.random.default_rng(1)
    believed = [
        light.replace(
            position_mm=tuple(np.add(light.position_mm, rng.normal(0, 1, 3)).tolist()),
            intensity=(light.intensity[0] * (1 + float(rng.normal(0, 0.007))),),
        )
        for light in lamps()
    ]
    pixels = pixels_at(0.985, coat=True, believed=believed)
    found = judged(pixels, find_gloss(pixels), asked=False)
    assert found.depth_mm is not None
    assert found.sigma < 0.01
    assert off(found.depth_mm) < 3 * found.sigma


def test_a_matt_body_stays_where_the_plain_model_has_it():
    pixels = pixels_at(1.0, coat=False)
    stays = judged(pixels, None, asked=False)
    assert stays.depth_mm is None
    assert 0 <= stays.sigma < 0.005
    asked = judged(pixels, None, asked=True)
    assert asked.depth_mm is not None
    assert off(asked.depth_mm) < max(3 * asked.sigma, 0.005)


def test_too_few_lights_ask_for_no_mixture():
    pixels = pixels_at(1.0, coat=False)
    few = pixels._replace(table=pixels.table[:7], order=pixels.order[:7])
    assert ahead((few, None), (few, None)) == -np.inf
