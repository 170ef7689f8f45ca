"""Which model of the surface: the plainest that predicts lights it has not seen as well as any."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.photometric.bank import Mixture
from calibration.photometric.gloss import Gloss
from calibration.photometric.mixture import fit, foretell
from calibration.photometric.pixels import Pixels, rms
from calibration.photometric.robust import solve_robust
from calibration.progress import Track, silent

_PIXELS = 250
_FOLDS = 5
_LEAST_LIGHTS = 8
# Error of a prediction that is allowed for, of a channel's rms sample, and the square in sigmas beyond which
# a sample is one that no model foresees: a cast shadow.
_ALLOWED = 0.03
_TRUNCATE = 9.0

# A surface with a lobe of gloss or none, and a mixture of reflectances.
Candidate = Gloss | Mixture | None


class Choice(NamedTuple):
    """The candidate taken, and why, in one line."""

    name: str
    reason: str


def choose(pixels: Pixels, candidates: Mapping[str, Candidate], track: Track = silent) -> Choice:
    """The first of the candidates, plainest first, within one standard error of the best prediction.

    The lights are left out in sectors of azimuth, a fifth at a time, so that a model must reach beyond the
    lights it has seen; a sample of pixels is solved without them, and each candidate foretells their samples.
    Its score is the squared residual, over noise and 3 % of the signal, truncated at nine; the lights are the
    independent observations, and the standard error is that of the difference to the best candidate.

    Parameters
    ----------
    pixels : Pixels
    candidates : mapping of str to Gloss, Mixture or None
        Plainest first; None is a matt surface, and a surface that is no mixture is solved robustly.
    track : callable, optional
        Shows progress.

    Notes
    -----
    L. Breiman et al., Classification and Regression Trees (1984), section 3.4.3, for the standard error. A
    mixture keeps the prior that it learned from all the lights.
    """
    plainest = next(iter(candidates))
    if len(candidates) == 1:
        return Choice(plainest, "the only candidate")
    if len(pixels.table) < _LEAST_LIGHTS:
        return Choice(plainest, f"fewer than {_LEAST_LIGHTS} lights cannot tell models apart")
    scores = _scores(pixels.sample(_PIXELS), candidates, track)
    if not len(scores[plainest]):
        return Choice(plainest, "too few pixels are solved when lights are left out to tell models apart")
    means = {name: float(np.mean(score)) for name, score in scores.items()}
    best = min(means, key=lambda name: means[name])
    told = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    for name, score in scores.items():
        behind = score - scores[best]
        error = float(np.std(behind, ddof=1) / np.sqrt(len(behind)))
        if name == best or means[name] - means[best] <= error:
            close = f"plainer and within one standard error ({error:.3f}) of {best} at foretelling"
            why = "foretells best" if name == best else close
            return Choice(name, f"{why} the lights left out (squared error in sigmas: {told})")
    raise AssertionError


def ahead(plain: tuple[Pixels, Candidate], rich: tuple[Pixels, Candidate]) -> float:
    """Standard errors by which the rich candidate foretells lights left out better; negative: worse.

    As ``choose``, of the same pixels, but each candidate has its own surface points. Nothing tells: -inf.
    """
    if len(plain[0].table) < _LEAST_LIGHTS:
        return -np.inf
    one, other = (_scores(pixels.sample(_PIXELS), {"": candidate})[""] for pixels, candidate in (plain, rich))
    if len(one) != len(other) or not len(one):
        return -np.inf
    lead = one - other
    return float(np.mean(lead) / max(np.std(lead, ddof=1) / np.sqrt(len(lead)), 1e-12))


def _scores(pixels: Pixels, candidates: Mapping[str, Candidate], track: Track = silent) -> dict[str, Float]:
    """Mean score of each light, (n,), over the pixels; NaN where no pixel tells."""
    samples, variance = pixels.packed()
    usable = np.isfinite(samples).all(axis=2)
    allowed = variance + (_ALLOWED * rms(samples)) ** 2
    fold = _sectors(pixels.directions)
    folds = [(fold == q, pixels.without(fold == q)) for q in np.unique(fold)]
    scores = {name: np.full(usable.shape, np.nan) for name in candidates}
    pairs = [(name, *parts) for name in candidates for parts in folds]
    for name, out, rest in track(pairs, "choosing the model"):
        gone = samples[out] - _predict(rest, candidates[name], out)
        scores[name][out] = np.minimum((gone**2 / allowed[out]).mean(axis=2), _TRUNCATE)
    # Where one candidate has no answer, none is judged.
    judged = usable & np.logical_and.reduce([np.isfinite(score) for score in scores.values()])
    lights = judged.any(axis=1)
    return {
        name: np.where(judged, score, 0.0).sum(axis=1)[lights] / judged.sum(axis=1)[lights]
        for name, score in scores.items()
    }


def _predict(rest: Pixels, candidate: Candidate, out: NDArray[np.bool_]) -> Float:
    """Samples (lights ``out``, p, c) foretold by a solution of the rest."""
    robust = solve_robust(rest, None if isinstance(candidate, Mixture) else candidate)
    if isinstance(candidate, Mixture):
        starts = np.stack([robust.normals, rest.solve(robust=False).normals])
        return foretell(rest, fit(rest, starts, candidate, shares=True), candidate)[out]
    mask, direction, eye = rest.mask, rest.aimed()[0][out], rest.eyes()
    normals = robust.normals[mask]
    shading = np.maximum(np.sum(normals * direction, axis=-1), 0.0)
    foretold = shading[..., None] * robust.albedo[mask]
    if candidate is not None:
        lobe = Gloss(candidate.roughness, 1.0).reflect(normals, direction, eye)
        foretold += (lobe * robust.strength[mask])[..., None]
    return np.asarray(foretold)


def _sectors(directions: Float) -> NDArray[np.int64]:
    """Sector of azimuth of each light, as many lights in each of the five."""
    sector = np.empty(len(directions), np.int64)
    around = np.argsort(np.arctan2(directions[:, 1], directions[:, 0]), kind="stable")
    sector[around] = np.arange(len(directions)) * _FOLDS // len(directions)
    return sector
