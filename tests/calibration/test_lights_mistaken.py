import numpy as np
from mirror_scene import dome, small_lens

from calibration.geometry import normalize, reflection, tangent_basis
from calibration.lights.fit import fit_lights
from calibration.lights.highlights import Highlights
from calibration.lights.intensity import mirror_gain
from calibration.targets.outline import SphereView, settled

LENS = small_lens(2400.0, 1500, 1100)
RADIUS = 10.0
CENTRES = np.array([[80.0, 5, 450], [-3, 72, 448], [-79, -6, 452], [4, -70, 451]])
NAMES = [f"led{i:02d}" for i in range(10)]


def _views(common_px=0.0, own_px=0.0, stated_px=0.03, seed=0):
    """Outlines with errors of their own, and radii that are all off by the same."""
    rng = np.random.default_rng(seed)
    views = []
    for centre in CENTRES:
        off = own_px * rng.normal(size=3) / LENS.fx
        direction = normalize(normalize(centre) + off[:2] @ tangent_basis(centre))
        angular = float(np.arcsin(RADIUS / np.linalg.norm(centre)) + off[2]) - common_px / LENS.fx
        spread = np.eye(3) * (stated_px / LENS.fx) ** 2
        views.append(settled(SphereView(direction, angular, spread, np.zeros(2), 0.0), LENS))
    return views


def _spots(places, pictures, noise_px=0.01, seed=0):
    """Highlights of lamps at places, in pictures that each show some of them: number and brightness."""
    rng = np.random.default_rng(seed)
    lights = np.c_[places, np.ones(len(places))]
    normal = reflection(CENTRES[None], RADIUS, lights[:, None])
    at = LENS.project(CENTRES + RADIUS * normal)
    flux = mirror_gain(CENTRES[None], RADIUS, lights[:, None], LENS)
    shape = (len(pictures), len(CENTRES), 3)
    found = Highlights(
        np.full((*shape, 2), np.nan), *(np.full(shape, np.nan) for _ in range(3)), np.zeros(shape, bool)
    )
    for i, shown in enumerate(pictures):
        for k, (lamp, level) in enumerate(shown):
            found.pixels[i, :, k] = at[lamp] + noise_px * rng.normal(size=at[lamp].shape)
            found.sigma_px[i, :, k] = noise_px
            found.flux[i, :, k] = level * flux[lamp]
            found.flux_sigma[i, :, k] = 0.002 * level * flux[lamp]
    return found


def _fit(found, views=None):
    return fit_lights(NAMES, found, views or _views(), LENS, sphere_radius_mm=RADIUS, model="near")


def test_a_second_lamp_in_a_picture_is_named_and_the_place_is_right():
    places = dome(2, 10)
    pictures = [[(i, 1.0)] for i in range(10)]
    pictures[3] = [(3, 1.0), (7, 0.4)]
    lights = _fit(_spots(places, pictures))
    assert lights.quality.verdict == "doubtful"
    (told,) = [w for w in lights.quality.warnings if "burns" in w]
    assert told.startswith("light led03: led07 burns in its picture too, ")
    assert np.linalg.norm(np.subtract(lights.lights["led03"].position_mm, places[3])) < 6
    # In every other picture nothing is found.
    clean = _fit(_spots(places, [[(i, 1.0)] for i in range(10)]))
    assert clean.quality.verdict == "good"
    assert clean.quality.warnings == ()


def test_one_lamp_in_two_pictures_is_named():
    places = dome(2, 10)
    pictures = [[(i, 1.0)] for i in range(10)]
    pictures[4] = pictures[5]
    (told,) = _fit(_spots(places, pictures)).quality.warnings
    assert told.startswith("lights led04 and led05 stand at one place")


def test_outlines_that_are_all_too_small_alike_leave_honest_sigmas():
    rms, off = [], []
    for seed in range(12):
        places = dome(seed, 10)
        small = float(np.random.default_rng(seed).normal()) * 0.1
        found = _spots(places, [[(i, 1.0)] for i in range(10)], seed=seed)
        lights = _fit(found, _views(small, 0.03, 0.1, seed))
        gaps = [np.subtract(v.position_mm, p) for v, p in zip(lights.lights.values(), places, strict=True)]
        spread = [v.covariance for v in lights.lights.values()]
        rms.append(np.mean([g @ np.linalg.solve(c, g) / 3 for g, c in zip(gaps, spread, strict=True)]))
        off.append(np.median(np.linalg.norm(gaps, axis=1)))
    # Twelve common errors are all the chance there is: their root mean square is known to 20 %.
    assert 0.6 < np.sqrt(np.mean(rms)) < 1.4, (np.sqrt(rms), off)


def test_one_saturated_light_leaves_the_others_their_strength():
    places = dome(2, 10)
    level = np.linspace(0.7, 1.3, 10)
    found = _spots(places, [[(i, level[i])] for i in range(10)])
    found.saturated[6] = True
    lights = _fit(found)
    (told,) = lights.quality.warnings
    assert "taken as strong as the others" in told
    assert told.endswith("led06")
    strength = np.array([light.intensity[0] for light in lights.lights.values()])
    rest = np.arange(10) != 6
    np.testing.assert_allclose(strength[rest] / strength[0], level[rest] / level[0], rtol=0.02)
    assert 0.7 < strength[6] / strength[0] * level[0] < 1.3
    # Its sigma says that nothing is known but that lamps of one rig are alike.
    assert lights.lights["led06"].intensity_sigma[0] / strength[6] > 0.2
    assert lights.lights["led05"].intensity_sigma[0] / strength[5] < 0.02


def test_an_outline_that_claims_far_more_than_the_others_is_not_believed():
    places = dome(4, 10)
    views = _views(0.3, 0.12, 0.3)
    views[1] = views[1]._replace(covariance=views[1].covariance / 100)
    lights = _fit(_spots(places, [[(i, 1.0)] for i in range(10)]), views)
    gaps = [np.subtract(v.position_mm, p) for v, p in zip(lights.lights.values(), places, strict=True)]
    spread = [v.covariance for v in lights.lights.values()]
    chi2 = np.mean([g @ np.linalg.solve(c, g) / 3 for g, c in zip(gaps, spread, strict=True)])
    assert np.sqrt(chi2) < 2.0
