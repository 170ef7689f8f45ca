"""What tells a ball from other round things: how it answers to the lights."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.outline import SphereView
from calibration.targets.spheres.search import Candidate, Survey

Finish = Literal["mirror", "matte"]

_LIKENESS = 0.8
"""Least correlation of the highlights' motion in two balls: chance has a spread of 0.35 with 5 lights."""
_SHADED = 0.9
"""Least share of a matte ball's brightness (mean square) that a Lambertian sphere explains."""
_SHADE = 0.4
"""Greatest brightness of a matte ball's shade, of its brightest place."""


def answer(survey: Survey, c: Candidate, finish: Finish) -> float:
    """Share of the lights to which the candidate answers as a ball does, 0 if that is too few.

    A mirror has a small highlight that moves from light to light, a matte ball the shading of a sphere that
    turns from light to light. A printed mark or a hole has neither.
    """
    return _mirrored(survey, c) if finish == "mirror" else _shaded(survey, c)


def alike(survey: Survey, views: Sequence[SphereView]) -> NDArray[np.bool_]:
    """Which of the mirrors show the lights as most others do; all of them where no two agree.

    The highlights of two mirror balls move alike from light to light. Those of glossy bumps, glass, or the
    stray bright pixels of a renderer inside any round outline do not.
    """
    places = [_highlights(survey, view.centre_px, view.radius_px) for view in views]
    agreeing = np.zeros(len(views), int)
    for i, a in enumerate(places):
        for j, b in enumerate(places[:i]):
            both = np.isfinite(a[:, 0]) & np.isfinite(b[:, 0])
            if both.sum() < 4:
                continue
            u, v = a[both] - np.median(a[both], axis=0), b[both] - np.median(b[both], axis=0)
            if np.sum(u * v) > _LIKENESS * np.sqrt(np.sum(u * u) * np.sum(v * v)):
                agreeing[[i, j]] += 1
    return np.asarray(agreeing >= 0.5 * agreeing.max(initial=0))


def _mirrored(survey: Survey, c: Candidate) -> float:
    at = _highlights(survey, c.centre_px, c.radius_px)
    bright = np.isfinite(at[:, 0])
    # A ball that is half in the picture shows half of the lights.
    needed = 0.5 * min(1.0, 1.2 * shown(c.centre_px, c.radius_px, survey.size))
    if bright.sum() < 3 or bright.mean() < needed:
        return 0.0
    spread = float(np.hypot(*at[bright].std(axis=0)))
    reach = float(np.percentile(np.hypot(*at[bright].T), 90))
    return float(bright.mean()) if spread > 0.02 and reach < 0.93 else 0.0


def _highlights(survey: Survey, centre_px: Float, radius_px: float) -> Float:
    """Place of the compact highlight under each light, (n, 2) from the centre in radii; NaN without one."""
    places = np.full((len(survey.peak), 2), np.nan)
    window = _inside(survey, centre_px, radius_px)
    if window is None:
        return places
    at, rows, columns = window
    disc = survey.peak[:, rows, columns]
    rise = disc - np.median(disc, axis=0)
    top = rise.max(axis=1)
    typical = np.median(disc, axis=1) + 1e-12
    compact = np.mean(rise > 0.5 * top[:, None], axis=1)
    bright = (top > 3 * typical) & (compact < 0.06) & (top > 0.1 * np.median(top))
    places[bright] = at[rise.argmax(axis=1)[bright]]
    return places


def _shaded(survey: Survey, c: Candidate) -> float:
    """Share of the lights from in front that shade the disc as a Lambertian sphere, and turn."""
    window = _inside(survey, c.centre_px, c.radius_px)
    if window is None:
        return 0.0
    at, rows, columns = window
    keep = slice(None, None, max(1, len(rows) // 400))
    at = at[keep]
    bright = survey.mean[:, rows[keep], columns[keep]].astype(np.float64)
    normal = np.column_stack([at, np.sqrt(1 - np.sum(at**2, axis=1))])
    towards = np.zeros((len(bright), 3))
    explained = np.zeros(len(bright))
    for i, b in enumerate(bright):
        if b.std() < 0.1 * b.mean():
            continue
        # What bright surroundings send into the shade counts as a constant.
        shade, lit = 0.0, b > 0.1 * np.percentile(b, 95)
        for _ in range(3):
            if lit.sum() < 20:
                break
            towards[i] = np.linalg.lstsq(normal[lit], b[lit] - shade, rcond=None)[0]
            direct = np.clip(normal @ towards[i], 0, None)
            rest = b - shade - direct
            explained[i] = max(explained[i], 1 - np.mean(rest**2) / np.var(b))
            lit = direct > 0
            shade = float(np.clip(np.mean(b[~lit]), 0, _SHADE * b.max())) if (~lit).sum() >= 20 else 0.0
    # A slope of brightness over a flat thing is the shading by a light in its plane: light from the side or
    # from behind speaks neither for a ball nor against it.
    facing = towards[:, 2] > 0.2 * np.linalg.norm(towards, axis=1)
    good = (explained > _SHADED) & facing
    if good.sum() < 3 or good.sum() < 0.5 * facing.sum():
        return 0.0
    direction = towards[good] / np.linalg.norm(towards[good], axis=1, keepdims=True)
    turning = float(np.sqrt(np.sum(np.var(direction, axis=0))))
    return float(good.sum() / facing.sum()) if turning > 0.05 else 0.0


def _inside(
    survey: Survey, centre_px: Float, radius_px: float
) -> tuple[Float, NDArray[np.intp], NDArray[np.intp]] | None:
    """Places (k, 2) in radii, rows and columns of the survey's pixels well inside a circle."""
    f = survey.factor
    (x, y), r = (centre_px + 0.5) / f - 0.5, radius_px / f
    h, w = survey.peak.shape[1:]
    x0, x1, y0, y1 = int(max(x - r, 0)), int(min(x + r + 1, w)), int(max(y - r, 0)), int(min(y + r + 1, h))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    rows, columns = np.mgrid[y0:y1, x0:x1]
    at = np.stack([columns - x, rows - y], axis=-1) / r
    inside = np.linalg.norm(at, axis=-1) < 0.95
    if inside.sum() < 20:
        return None
    return at[inside], rows[inside], columns[inside]


def shown(centre_px: Float, radius_px: float, size: tuple[int, int]) -> float:
    """Share of a circle's line that lies in a picture of ``size`` (h, w)."""
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    x, y = centre_px[0] + radius_px * np.cos(turn), centre_px[1] + radius_px * np.sin(turn)
    return float(np.mean((x > -0.5) & (y > -0.5) & (x < size[1] - 0.5) & (y < size[0] - 0.5)))
