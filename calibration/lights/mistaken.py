"""Pictures that do not show what they are named for: two lamps burn in one, or one lamp in two."""

from collections.abc import Sequence

import numpy as np

from calibration.geometry import Float
from calibration.lights.bundle import Mirror, Solution
from calibration.lights.highlights import Highlights

_THERE = 0.02
"""Distance, in radii, within which a spot is the highlight of a light known from its own picture."""
_SAME = 0.002
"""Distance, in radii, within which two highlights are one: a fifth of a degree of the light."""


def mistaken_pictures(
    names: Sequence[str],
    radius_px: Sequence[float],
    highlights: Highlights,
    solution: Solution,
    mirror: Mirror,
) -> list[str]:
    """A sentence for each light whose picture shows another light too, and for each pair that are one.

    Parameters
    ----------
    names : sequence of str
        Of the n lights.
    radius_px : sequence of float
        Of the s mirror spheres.
    highlights : Highlights
        All that was seen; what the fit did not use is looked through.
    solution : Solution
        The fitted lights and spheres.
    mirror : Mirror
        That of the fit.

    Notes
    -----
    A lamp that burns beside another one is found only where it has a picture of its own, and where at least
    half of the spheres show it.
    """
    expected = mirror.predict(solution.state)[0]
    used, radius = solution.chosen >= 0, np.asarray(radius_px, np.float64)
    told = []
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            both = used[i] & used[j]
            if i == j or not both.any():
                continue
            apart = np.linalg.norm(expected[i] - expected[j], axis=-1) / radius
            if i < j and (apart[both] < _SAME).all():
                told.append(
                    f"lights {name} and {other} stand at one place: did one lamp burn in both pictures?"
                )
            shares = _shares(highlights, solution, expected[j], i, both & (apart > 2 * _THERE), radius)
            if shares is not None:
                told.append(f"light {name}: {other} burns in its picture too, {100 * shares:.0f} % as bright")
    return told


def _shares(
    highlights: Highlights, solution: Solution, expected: Float, i: int, where: Float, radius: Float
) -> float | None:
    """Brightness of another light's highlights in light i's picture, its own being 1; None without any."""
    shares = []
    for s in np.flatnonzero(where):
        own = solution.chosen[i, s]
        away = np.linalg.norm(highlights.pixels[i, s] - expected[s], axis=-1) / radius[s]
        away = np.where(np.isfinite(away) & (np.arange(len(away)) != own), away, np.inf)
        best = int(np.argmin(away))
        if away[best] < _THERE:
            shares.append(float(highlights.flux[i, s, best] / highlights.flux[i, s, own]))
    return float(np.median(shares)) if shares and 2 * len(shares) >= np.count_nonzero(where) else None
