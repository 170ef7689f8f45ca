import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mirror_scene import dome

from calibration.geometry import normalize, rotation, tangent_basis
from calibration.lights.agreement import find_changes
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.lights.watch import watch_lights
from calibration.provenance import FitError, Provenance

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
NAMES = [f"led{i:02d}" for i in range(8)]


def _calibrated(seed, sigma_mm=0.5, strength_sigma=0.01, source="white plane", **changes):
    """Near lights as a calibration finds them, with errors that they state; ``changes``: shift, factor."""
    rng = np.random.default_rng(seed)
    lights = {}
    for name, place in zip(NAMES, dome(3, 8), strict=True):
        shift, factor = changes.get(name, (0, 1))
        found = place + shift + rng.normal(size=3) * sigma_mm
        level = 1e5 * factor * (1 + rng.normal() * strength_sigma)
        lights[name] = NearLight(
            position_mm=tuple(found),
            covariance=np.eye(3) * sigma_mm**2,
            intensity=(level,),
            intensity_sigma=(strength_sigma * level,),
        )
    return LightSet(lights=lights, scene_depth_mm=450.0, provenance=Provenance(options={"intensity": source}))


def _kinds(changes):
    return {c.name: c.kind for c in changes if c.kind != "still"}


def test_nothing_has_changed_between_two_calibrations_of_the_same_lights():
    for seed in range(20):
        changes = find_changes(_calibrated(seed), _calibrated(100 + seed))
        assert not _kinds(changes), [c.text for c in changes]


def test_what_is_unsure_for_all_lights_alike_hides_no_light_that_moved():
    """Without a lens model: sigmas of 4 degrees, but an error that all lights share."""
    rng = np.random.default_rng(0)
    towards = normalize(dome(3, 12) - [0, 0, 450])
    shared = rotation([0.03, -0.02, 0.01])

    def lights(directions):
        spread = np.eye(2) * np.radians(4) ** 2
        noisy = directions + rng.normal(size=directions.shape) * np.radians(0.05)
        return LightSet(
            lights={
                f"led{i}": DistantLight(direction=tuple(normalize(d)), covariance=spread)
                for i, d in enumerate(noisy)
            }
        )

    assert not _kinds(find_changes(lights(towards), lights(towards @ shared.T)))
    moved = towards @ shared.T
    moved[7] = moved[7] @ rotation([0.05, 0.0, 0.0]).T
    (named,) = (c for c in find_changes(lights(towards), lights(moved)) if c.kind != "still")
    assert named.name == "led7"
    turn = np.degrees(np.arccos(moved[7] @ (towards[7] @ shared.T)))
    assert named.turn_deg == pytest.approx(turn, abs=0.3)


def test_spheres_of_another_diameter_are_told():
    today = _calibrated(1)
    shrunk = {
        name: light.replace(position_mm=tuple(0.8 * np.asarray(light.position_mm)))
        for name, light in today.lights.items()
    }
    changes = find_changes(
        _calibrated(0).replace(sphere_radius_mm=12.0),
        today.replace(lights=shrunk, sphere_radius_mm=9.6),
    )
    assert all("the spheres were told to have 24 mm then and 19.2 mm now" in c.text for c in changes)


def test_a_light_that_moved_dimmed_failed_or_is_new_is_named():
    place = dome(3, 8)[2] - [0, 0, 450]
    away = {
        "led01": (tangent_basis(place)[0] * 12.0, 1.0),
        "led02": (0.2 * place, 1.44),
        "led05": (np.zeros(3), 0.8),
    }
    today = _calibrated(1, **away)
    found = find_changes(_calibrated(0), today)
    assert _kinds(found) == {"led01": "moved", "led02": "moved", "led05": "dimmed"}
    assert found[5].text.startswith("led05: has 8")
    assert found[5].strength == pytest.approx(0.8, abs=0.05)
    other = {**{n: v for n, v in today.lights.items() if n != "led00"}, "spare": today.lights["led00"]}
    found = find_changes(_calibrated(0), today.replace(lights=other))
    assert _kinds(found) == {
        "led01": "moved", "led02": "moved", "led05": "dimmed", "led00": "missing", "spare": "unknown",
    }  # fmt: skip


def test_what_all_lights_do_together_is_told_of_all():
    turn = rotation([0.0, 0.03, 0.0])
    moved = {
        n: (turn @ (p - [0, 0, 450]) + [0, 0, 450] - p, 0.7) for n, p in zip(NAMES, dome(3, 8), strict=True)
    }
    found = find_changes(_calibrated(0), _calibrated(1, **moved))
    assert {c.kind for c in found} == {"moved"}
    assert all("has the camera been moved" in c.text and "0.70 times as bright" in c.text for c in found)
    dimmed = find_changes(_calibrated(0), _calibrated(1, **dict.fromkeys(NAMES, (0, 0.7))))
    assert {c.kind for c in dimmed} == {"dimmed"}
    assert dimmed[3].strength == pytest.approx(0.7, abs=0.03)
    assert dimmed[3].text.startswith("led03: has 7")
    # By another white, whose albedo is as sure as its paint, it is told but no change of the lights.
    by_balls = _calibrated(1, source="matte spheres", **dict.fromkeys(NAMES, (0, 0.7)))
    other = find_changes(_calibrated(0), by_balls)
    assert not _kinds(other)
    assert "0.7" in other[3].text
    # Equal by assumption: nothing is known of their strength.
    found = find_changes(_calibrated(0, source="equal"), _calibrated(1, led03=(0, 0.5)))
    assert not _kinds(found)
    assert "strength not known" in found[3].text


def test_near_lights_taken_for_far_ones_tell_no_strength_to_a_few_percent():
    """Without a lens model today: the strength at the balls differs by as much as the lamps are near."""
    known = _calibrated(0)
    scene = np.array([0.0, 0.0, 450.0])
    rng = np.random.default_rng(3)
    lights = {}
    for name, light in known.lights.items():
        level = float(light.at(scene)[1][0]) * np.exp(0.2 * rng.normal())
        towards = tuple(normalize(np.asarray(light.position_mm) - scene))
        lights[name] = DistantLight(
            direction=towards,
            covariance=np.eye(2) * 0.03**2,
            intensity=(level,),
            intensity_sigma=(0.02 * level,),
        )
    changes = find_changes(known, known.replace(lights=lights))
    assert not _kinds(changes), [c.text for c in changes]
    assert all("strength not known" in c.text for c in changes)


def _scene(count=12, seed=0):
    """Bumps under distant lights, some gloss and shadow: pictures, mask and lights."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :160]
    height = sum(
        14 * rng.uniform(0.5, 1) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2))
        for a, b, s in rng.uniform([10, 10, 8], [150, 110, 18], (14, 3))
    )
    gy, gx = np.gradient(height)
    normals = normalize(np.stack([gx, gy, -np.ones_like(gx)], axis=-1))
    albedo = 0.5 + 0.2 * np.sin(x / 9) * np.cos(y / 7)
    directions = normalize(dome(seed, count) - [0, 0, 450])
    lights = {f"led{i:02d}": DistantLight(direction=tuple(d)) for i, d in enumerate(directions)}
    images = []
    for d in directions:
        shading = np.clip(normals @ d, 0, None)
        sheen = 0.15 * np.clip(normals @ normalize(d - np.array([0, 0, 1])), 0, 1) ** 60
        images.append(albedo * shading + sheen + rng.normal(size=x.shape) * 0.004)
    return images, np.ones(x.shape, bool), lights


def test_an_object_alone_tells_which_light_has_changed():
    images, mask, lights = _scene()
    names = list(lights)
    assert not _kinds(watch_lights(names, images, lights, mask, None))
    dim = [0.8 * im if i == 4 else im for i, im in enumerate(images)]
    (found,) = (c for c in watch_lights(names, dim, lights, mask, None) if c.kind != "still")
    assert (found.name, found.kind) == ("led04", "dimmed")
    assert found.strength == pytest.approx(0.8, abs=0.04)
    true = np.asarray(lights["led07"].direction)
    off = rotation(tangent_basis(true)[0] * np.radians(6)) @ true
    pinned = {**lights, "led07": DistantLight(direction=tuple(off))}
    (found,) = (c for c in watch_lights(names, images, pinned, mask, None) if c.kind != "still")
    assert (found.name, found.kind) == ("led07", "moved")
    assert found.turn_deg == pytest.approx(6, abs=1)
    for factor in (0.01, 1e-7):
        dark = [factor * im if i == 2 else im for i, im in enumerate(images)]
        (found,) = (c for c in watch_lights(names, dark, lights, mask, None) if c.kind != "still")
        assert (found.name, found.kind, found.turn_deg) == ("led02", "missing", 0.0)
        assert "does it burn?" in found.text


def test_lights_that_were_exchanged_are_turned_by_no_more_than_they_are_apart():
    images, mask, lights = _scene()
    names = list(lights)
    apart = np.degrees(np.arccos(np.dot(lights["led01"].direction, lights["led09"].direction)))
    assert apart > 35
    swapped = {**lights, "led01": lights["led09"], "led09": lights["led01"]}
    found = {c.name: c for c in watch_lights(names, images, swapped, mask, None)}
    for name in ("led01", "led09"):
        assert found[name].kind == "moved"
        assert found[name].turn_deg == pytest.approx(apart, rel=0.05)


def test_a_strength_that_nobody_knows_is_not_told():
    images, mask, lights = _scene()
    dim = [0.8 * im if i == 4 else im for i, im in enumerate(images)]
    for change in watch_lights(list(lights), dim, lights, mask, None, strengths=False):
        assert change.kind == "still"
        assert change.text.endswith("strength not known")
        assert np.isnan(change.strength)
    # A saturated highlight leaves a strength to 30 %.
    today = _calibrated(1)
    guessed = today.lights["led03"]
    guessed = guessed.replace(intensity_sigma=(0.3 * guessed.intensity[0],))
    changes = find_changes(_calibrated(0), today.replace(lights={**today.lights, "led03": guessed}))
    assert [c.name for c in changes if np.isnan(c.strength)] == ["led03"]
    assert changes[3].text.endswith("strength not known")


def test_a_check_that_cannot_be_made_says_why():
    images, mask, lights = _scene(6)
    with pytest.raises(FitError, match="4 lights are too few"):
        watch_lights(list(lights)[:4], images[:4], lights, mask, None)
    with pytest.raises(FitError, match="light sun is not among"):
        watch_lights(["sun", *list(lights)[1:]], images, lights, mask, None)
    with pytest.raises(FitError, match="pixels of the object"):
        watch_lights(list(lights), images, lights, np.zeros_like(mask), None)
    with pytest.raises(FitError, match="dark under every light"):
        watch_lights(list(lights), [np.zeros_like(image) for image in images], lights, mask, None)
    with pytest.raises(FitError, match="most lights contradict"):
        watch_lights(list(lights), images[1:] + images[:1], lights, mask, None)


@pytest.mark.skipif(not (DATA / "diligent/catPNG").is_dir(), reason="no diligent data at GNOMON_DATA")
def test_a_real_object_tells_which_light_has_changed():
    folder = DATA / "diligent/catPNG"
    directions = np.loadtxt(folder / "light_directions.txt") * [1, -1, -1]
    strength = np.loadtxt(folder / "light_intensities.txt").mean(axis=1)
    picked = range(0, 96, 6)
    images = [cv2.imread(str(folder / f"{i + 1:03d}.png"), -1).mean(axis=-1) / strength[i] for i in picked]
    mask = cv2.imread(str(folder / "mask.png"), 0) > 0
    lights = {f"{i:03d}": DistantLight(direction=tuple(directions[i])) for i in picked}
    assert not _kinds(watch_lights(list(lights), images, lights, mask, None))
    images[5] = 0.8 * images[5]
    true = directions[60]
    off = rotation(tangent_basis(true)[1] * np.radians(6)) @ true
    pinned = {**lights, "060": DistantLight(direction=tuple(off))}
    assert _kinds(watch_lights(list(lights), images, pinned, mask, None)) == {"030": "dimmed", "060": "moved"}
