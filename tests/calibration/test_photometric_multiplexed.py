"""Three coloured lamps in one frame: unmixing, its noise, the object's colour, and bad input."""

from typing import Any

import numpy as np
import pytest

from calibration.geometry import angle_deg, normalize
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Colour, Multiplex, colour_of, fit_multiplex, solve
from calibration.provenance import FitError

# What the channels R, G, B (rows) see of lamps whose light is cyan-free red, green and blue.
MIXING = np.array([[500.0, 130.0, 20.0], [80.0, 480.0, 110.0], [10.0, 100.0, 450.0]])
TOWARDS = normalize([[0.0, -0.6, -1.0], [0.55, 0.33, -1.0], [-0.53, 0.35, -1.0]])
NAMES = ("red", "green", "blue")


def _lights(mixing: Any = MIXING) -> dict[str, Any]:
    return {
        name: DistantLight(direction=tuple(d), intensity=tuple(column))
        for name, d, column in zip(NAMES, TOWARDS, mixing.T, strict=True)
    }


def _scene(size: int = 32, body: Any = (1.0, 1.0, 1.0)) -> tuple[Any, Any, Any]:
    """Normals, albedo and samples (3, h, w) of each lamp at intensity 1; ``body`` is the albedo for each."""
    y, x = 0.5 * (2 * np.mgrid[:size, :size] / (size - 1) - 1)
    normals = normalize(np.stack([x, y, -np.sqrt(1 - x**2 - y**2)], axis=-1))
    albedo = 0.4 + 0.3 * np.sin(6 * x) * np.cos(5 * y)
    shading = np.clip(np.einsum("yxi,ki->kyx", normals, TOWARDS), 0, None)
    return normals, albedo, np.asarray(body)[:, None, None] * albedo * shading


def _frame(samples: Any, seed: int = 0) -> tuple[Any, Any]:
    clean = np.einsum("ck,kyx->yxc", MIXING, samples)
    variance = 0.02 * clean + 0.5
    noisy = clean + np.sqrt(variance) * np.random.default_rng(seed).normal(size=clean.shape)
    return noisy.astype(np.float32), variance.astype(np.float32)


def _solve(multiplex: Multiplex, frame: Any, variance: Any) -> Any:
    samples, noise = multiplex.unmix(frame, variance)
    lights = [light.replace(intensity=(1.0,)) for light in _lights().values()]
    mask = np.ones(frame.shape[:2], bool)
    found = solve(samples, noise, lights, mask=mask, method="least-squares")
    at = np.array([[[0.0, 0.0, 1.0]]])
    return found, multiplex.sigma_deg(variance, found.normals, found.albedo, lights, at)


def test_the_mixing_is_the_lamps_colours() -> None:
    found = fit_multiplex(_lights(), NAMES)
    assert np.array_equal(found.mixing, MIXING)
    assert found.chromaticity == (1.0, 1.0, 1.0)
    assert found.quality is not None
    assert found.quality.verdict == "good"
    normals, _, samples = _scene()
    clean = np.einsum("ck,kyx->yxc", MIXING, samples)
    unmixed, _ = found.unmix(clean, np.full_like(clean, 1e-6))
    assert np.allclose(unmixed, samples, rtol=1e-5)
    assert angle_deg(_solve(found, clean, np.full_like(clean, 1e-6))[0].normals, normals).max() < 1e-2


def test_noise_is_propagated_whole() -> None:
    found = fit_multiplex(_lights(), NAMES)
    normals, _, samples = _scene()
    unmixed, angles = [], []
    for seed in range(40):
        frame, variance = _frame(samples, seed)
        unmixed.append(found.unmix(frame, variance)[0])
        solved, sigma = _solve(found, frame, variance)
        angles.append(angle_deg(solved.normals, normals) / sigma)
    # 40 x 1024 samples: the mean square is known to 1 %.
    noise = found.unmix(*_frame(samples))[1]
    assert np.mean(np.var(unmixed, axis=0) / noise) == pytest.approx(40 / 41, abs=0.03)
    assert np.mean(np.square(angles)) == pytest.approx(1, abs=0.03)
    # What the diagonal alone makes of it differs.
    assert np.nanmedian(solved.sigma_deg / sigma) != pytest.approx(1, abs=0.03)


def test_a_white_light_tells_the_colour_of_the_object() -> None:
    body = np.array([1.2, 1.0, 0.8])
    normals, albedo, samples = _scene(body=body)
    frame, variance = _frame(samples)
    white = np.array([0.9, 1.0, 0.7])  # a sum of the lamps' lights
    lights = _lights() | {"white": DistantLight(direction=(0.0, 0.0, -1.0), intensity=tuple(MIXING @ white))}
    shown = (albedo * -normals[..., 2])[..., None] * (MIXING @ (white * body))
    check = colour_of(shown, 1e-4 * shown, np.ones(albedo.shape, bool))
    assert check.spread < 1e-3
    found = fit_multiplex(lights, NAMES, {"white": check})
    assert found.chromaticity == pytest.approx(tuple(body), rel=1e-3)
    solved, sigma = _solve(found, frame, variance)
    assert np.sqrt(np.mean((angle_deg(solved.normals, normals) / sigma) ** 2)) == pytest.approx(1, abs=0.1)
    gray, sigma = _solve(fit_multiplex(lights, NAMES), frame, variance)
    assert np.sqrt(np.mean((angle_deg(gray.normals, normals) / sigma) ** 2)) > 3


def test_lamps_without_colours_are_told_by_frames_under_each() -> None:
    _, _, samples = _scene()
    lights = {
        name: light.replace(intensity=(float(np.mean(light.intensity)),)) for name, light in _lights().items()
    }
    checks = {}
    for k, name in enumerate(NAMES):
        frame, variance = _frame(samples * (np.arange(3) == k)[:, None, None], seed=k)
        checks[name] = colour_of(frame, variance, np.ones(frame.shape[:2], bool))
        # Of 1024 pixels: the scatter of the share over their root.
        assert np.abs(checks[name].share - MIXING[:, k] / MIXING[:, k].sum()).max() < 5 * np.sqrt(
            checks[name].covariance.diagonal().max()
        )
    found = fit_multiplex(lights, NAMES, checks)
    assert np.allclose(found.mixing, MIXING, atol=0.005 * MIXING.max())
    assert found.covariance is not None
    assert np.sqrt(np.diag(found.covariance)).max() < 0.005 * MIXING.max()
    with pytest.raises(FitError, match=r"colour of lamp green is not known"):
        fit_multiplex(lights, NAMES, {"red": checks["red"], "blue": checks["blue"]})


def test_an_object_of_two_colours_is_told() -> None:
    _, _, samples = _scene()
    frame, variance = _frame(samples)
    even = colour_of(frame * 0 + 100, variance, np.ones(frame.shape[:2], bool))
    assert even.spread < 0.01
    painted = 100 * np.ones_like(frame)
    painted[:, 16:] *= np.array([1.3, 1.0, 0.7], np.float32)
    colour = colour_of(painted, variance, np.ones(frame.shape[:2], bool))
    lights = _lights() | {"white": DistantLight(direction=(0.0, 0.0, -1.0), intensity=(650.0, 670.0, 560.0))}
    found = fit_multiplex(lights, NAMES, {"white": colour})
    assert found.quality is not None
    assert found.quality.verdict == "doubtful"
    assert "the object's colour varies by" in found.quality.warnings[0]


def test_shadow_is_no_sample() -> None:
    found = fit_multiplex(_lights(), NAMES)
    _, _, samples = _scene()
    samples[1, :5] = 0
    unmixed, _ = found.unmix(*_frame(samples))
    # Three sigma: one in 700 of them stays.
    assert np.isnan(unmixed[1, :5]).mean() > 0.98
    assert np.isfinite(unmixed[[0, 2]]).all()


def test_what_cannot_be_unmixed_is_refused() -> None:
    with pytest.raises(FitError, match=r"2 lamps at once"):
        fit_multiplex(_lights(), NAMES[:2])
    alike = np.array([[1.0, 1.0, 1.0], [0.5, 0.52, 0.51], [0.2, 0.2, 0.21]])
    with pytest.raises(FitError, match=r"red, green, blue have colours too much alike"):
        fit_multiplex(_lights(alike), NAMES)
    close = fit_multiplex(_lights(np.array([[4.0, 3.0, 1.0], [3.0, 4.0, 2.0], [1.0, 3.0, 4.0]])), NAMES)
    assert close.quality is not None
    assert "unmixing raises the noise" in close.quality.warnings[0]
    with pytest.raises(FitError, match=r"0 pixels of the object are clear of noise"):
        colour_of(np.ones((9, 9, 3)), np.ones((9, 9, 3)), np.ones((9, 9), bool))
    odd = Colour(np.array([0.0, 0.0, 1.0]), np.zeros((3, 3)), 0.0)
    lights = _lights() | {"uv": NearLight(position_mm=(0.0, 0.0, 0.0), intensity=(0.1, 0.1, 9.0))}
    with pytest.raises(FitError, match=r"light of uv is no sum of the lamps'"):
        fit_multiplex(lights, NAMES, {"uv": odd})
