"""Shape and distance of a surface of real material: under near lights the mixture has its own of both."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.photometric import Gloss
from calibration.photometric.bank import BANKS, Mixture
from calibration.photometric.choice import ahead
from calibration.photometric.mixture import fit, foretell, learn
from calibration.photometric.pixels import Pixels, rms
from calibration.photometric.robust import solve_robust
from calibration.progress import Track, silent
from calibration.surface.integration import integrate_grid

# Pixels by which a distance is judged, and by which the mixture of the shape is learned.
_PIXELS = 600
_TAUGHT = 1000
# Logarithms of distance: the first step of the secant (a shorter one is lost in the mixture being learned
# anew), the longest, the one of the derivative.
_FIRST = 0.03
_LONGEST = 0.03
_NUDGE = 2e-3
# Steps below this part of sigma end the search; so many are enough.
_STILL = 0.25
_STEPS = 6
_MODEL_ERROR = 0.01
_TUKEY = 4.685
_PRIOR_SIGMA = 0.1
# Sigmas between the distances of both models beyond which the plain one is doubted.
_APART = 3.0
# Standard errors in foretelling by which a mixture that is behind says nothing of the plain one's distance.
_REFUTED = -2.0
# One sigma of the logarithm of a distance for want of the object's own reflectance in the bank: from two
# path-traced coated scenes, 0.1 and 1 % off.
_BANK_ERROR = 0.006
_TOLERANCE = 1e-5


class Judged(NamedTuple):
    """What a second model of the surface says of its distance.

    Attributes
    ----------
    depth_mm : ndarray (h, w) or None
        Where the mixture explains the samples; None where the robust solver's model does as well.
    sigma : float
        One sigma of the logarithm of the mixture's distance; where that is not taken, how much further than
        by chance it is from the plain model's.
    """

    depth_mm: Float | None
    sigma: float


class _Found(NamedTuple):
    """Logarithm of a factor of distance, one sigma, and how each light's error moves it, (n,)."""

    moved: float
    sigma: float
    influence: Float


class _State(NamedTuple):
    """The fit at one distance: slope (n,) of the squares light by light, residuals and weights (n, p, c)."""

    at: float
    slopes: Float
    residual: Float
    weight: Float


def as_mixture(
    pixels: Pixels,
    rays: NDArray[np.float32],
    gloss: Gloss | None,
    prior: Float,
    influence: Float,
    *,
    asked: bool,
    track: Track = silent,
) -> Judged:
    """The depth at which a mixture of reflectances explains the samples, and what it tells of the other.

    Parameters
    ----------
    pixels : Pixels
        Points where the robust solver's model explains the samples best.
    rays : ndarray (h, w, 3)
        Lines of sight, z = 1.
    gloss : Gloss or None
        Of the robust solver's model.
    prior : ndarray (h, w)
        What is known of the depth without the lights, to 10 %.
    influence : ndarray (n,)
        How each light's error moves the logarithm of the distance that the robust solver's model has.
    asked : bool
        A mixture is wanted, whatever the lights left out say.
    track : callable, optional
        Shows progress.

    Returns
    -------
    Judged

    Notes
    -----
    A wrong model of the surface looks right at a wrong distance: a coated body under near lights looks like a
    matt one some per cent nearer. So each model is judged by the lights left out (``choose``) at the depth
    where it explains the samples best. The plain one is next to a special case of the mixture: were it right,
    both would have the same distance (J. A. Hausman, Econometrica 46 (1978), doi:10.2307/1913827). So where
    these are three sigmas of their difference apart the mixture is taken if it foretells better at all; else
    only if it does so by one standard error. Errors of the lights are common to both: the sigma is that of
    the difference of what each light's error does to either. Where the plain one stays, the difference counts
    as an error of its distance, unless the mixture foretells worse by two standard errors.

    The distance is where the weighted squares of the residuals do not change along it; normals and shares
    are held, as at a minimum in these the derivative is the same. The mixture is learned anew at each
    distance. Sigma takes the lights as the independent observations; light by light it needs the derivatives
    with normals and shares following the distance, as what these take up cancels only in the sum. Where no
    reflectance of the bank is the object's own the distance is still off, by 1 % on a coated body with light
    from surface to surface.
    """
    here, moved = pixels, 0.0
    away = float(np.median(np.log(pixels.points[..., 2] / prior)[pixels.mask]))
    for last in track((False, True), "finding the distance by the material"):
        found = _distance(here.sample(_PIXELS), gloss, away + moved)
        if found is None:
            return Judged(None, 0.0)
        moved += found.moved
        here = here._replace(points=here.points * np.float32(np.exp(found.moved)))
        mixture = _learned(here.sample(_TAUGHT), gloss)
        if not last:
            here = here._replace(points=_reshaped(here, rays, gloss, mixture))
    assert found is not None
    chance = _sigma(found.influence - influence)
    if not asked:
        lead = ahead((pixels, gloss), (here, mixture))
        # Standard errors in foretelling by which the mixture must be ahead.
        if not lead > (0.0 if abs(moved) > _APART * chance else 1.0):
            unexplained = moved**2 - chance**2 if lead > _REFUTED else 0.0
            return Judged(None, float(np.sqrt(max(unexplained, 0.0))))
    sigma = float(np.hypot(found.sigma, _BANK_ERROR))
    return Judged(here.points[..., 2].astype(np.float64), sigma)


def _starts(pixels: Pixels, gloss: Gloss | None) -> NDArray[np.float32]:
    return np.stack([solve_robust(pixels, gloss).normals, pixels.solve(robust=False).normals])


def _learned(sample: Pixels, gloss: Gloss | None) -> Mixture:
    return learn(sample, _starts(sample, gloss), BANKS["whole bank"])


def _reshaped(
    pixels: Pixels, rays: NDArray[np.float32], gloss: Gloss | None, mixture: Mixture
) -> NDArray[np.float32]:
    """Points of the surface that the mixture's normals make, as far off as it was."""
    before = pixels.points[..., 2].astype(np.float64)
    normals = fit(pixels, _starts(pixels, gloss), mixture).normals
    alike = np.ones(before.shape, np.float32)
    depth = integrate_grid(normals, alike, rays, depth_mm=before, smooth=False, tolerance=_TOLERANCE)
    depth = depth * np.exp(np.nanmedian(np.log(before / depth)))
    return np.asarray(rays * np.where(np.isfinite(depth), depth, before)[..., None], np.float32)


def _distance(sample: Pixels, gloss: Gloss | None, away: float) -> _Found | None:
    """From here to the best distance, by chords from the furthest distance tried."""
    at = 0.0
    tried: list[_State] = []
    for number in range(_STEPS):
        moved = sample._replace(points=sample.points * np.float32(np.exp(at)))
        state = _State(at, *_slopes(moved, gloss))
        slope = float(state.slopes.sum())
        if not tried:
            step = -float(np.copysign(_FIRST, slope))
        else:
            # What is learned anew at each distance jitters: the longest chord feels it least.
            far = max(tried, key=lambda other: abs(other.at - at))
            bend = (slope - float(far.slopes.sum())) / (at - far.at)
            if not bend > 0:
                return None
            influence = _influence(state, far, bend)
            spread = _sigma(influence) ** 2
            information = 1 / max(spread, 1e-12)
            posterior = information + 1 / _PRIOR_SIGMA**2
            step = (-information * slope / bend - (away + at) / _PRIOR_SIGMA**2) / posterior
            step = float(np.clip(step, -_LONGEST, _LONGEST))
            if abs(step) < _STILL * np.sqrt(spread) or number == _STEPS - 1:
                return _Found(at + step, float(posterior**-0.5), influence)
        tried.append(state)
        at += step
    raise AssertionError


def _influence(here: _State, there: _State, bend: float) -> Float:
    """How each light's error moves the distance (n,): derivatives with normals and shares that follow it."""
    both = (here.weight > 0) & (there.weight > 0)
    along = np.where(both, (here.residual - there.residual) / (here.at - there.at), 0.0)
    gradient = np.sum(here.weight * along * here.residual, axis=(1, 2))
    curvature = np.sum(here.weight * along**2, axis=(1, 2))
    wanted = -gradient.sum() / max(float(curvature.sum()), 1e-12)
    return np.asarray(-(gradient + wanted * curvature) / bend)


def _sigma(influence: Float) -> float:
    """One sigma from the influence (n,) of each light, the independent observations."""
    lights = len(influence)
    return float(np.sqrt(np.sum(influence**2) * lights / max(lights - 4, 1)))


def _slopes(sample: Pixels, gloss: Gloss | None) -> tuple[Float, Float, Float]:
    """Derivative (n,) of the weighted squares along the logarithm of the distance, residuals and weights."""
    starts = _starts(sample, gloss)
    mixture = learn(sample, starts, BANKS["whole bank"])
    found = fit(sample, starts, mixture, shares=True)
    samples, variance = sample.packed()
    irradiance = sample.aimed()[1][..., None]
    value = samples * irradiance
    here, nearer, further = (
        foretell(at, found, mixture) * at.aimed()[1][..., None]
        for at in (
            sample._replace(points=sample.points * np.float32(np.exp(e))) for e in (0, -_NUDGE, _NUDGE)
        )
    )
    solved = np.isfinite(found.loss[sample.mask])[:, None]
    residual = np.where(solved, value - here, np.nan)
    usable = np.isfinite(residual)
    sigma = np.sqrt(variance * irradiance**2 + (_MODEL_ERROR * rms(value)) ** 2)
    off = np.where(usable, np.abs(residual) / sigma, 0.0)
    # Where nothing is usable there is no weight either, whatever the width.
    wide = np.maximum(1.0, 1.4826 * np.median(off, axis=0))
    weight = np.where(usable, np.clip(1 - (off / (_TUKEY * wide)) ** 2, 0, None) ** 2 / sigma**2, 0.0)
    slope = -(further - nearer) / (2 * _NUDGE)
    residual = np.where(weight > 0, residual, 0.0)
    slopes = np.sum(np.where(weight > 0, weight * slope, 0.0) * residual, axis=(1, 2))
    return np.asarray(slopes), residual, weight
