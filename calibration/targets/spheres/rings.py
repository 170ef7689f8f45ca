"""Which of the circles about a ball is its outline.

A mirror ball shows the horizon of its surroundings as another ring inside its outline, often with the
stronger contrast and, near a table, well off the outline's centre. Shadows and patterns make rings outside.
Candidates come from the survey; which of them the outline is, shows at full resolution.
"""

from typing import NamedTuple

import numpy as np

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.edges import Edges, align, refine, rings_about
from calibration.targets.outline import SphereView, circle
from calibration.targets.spheres.cues import Finish, answer
from calibration.targets.spheres.search import Candidate, Image, Survey

_SUPPORT = 0.38
"""Least share of an outline with its edge in place: by chance it is about 0.2, with a spread of 0.04."""
_WIDEST = 1.8
"""Radius of the widest outline that is looked for, in radii of the ring inside."""
_WIDER = 6
"""Rings that are looked at about each core, beside those the survey found."""
_CORES = 2
"""Circles that wider ones are looked for about: a mirrored horizon is no outline, so that its fits differ."""
_SHARE, _SHARE_SHARPER = 0.55, 0.45
"""Least support of an outline, over that of any other ring; the second where edges lie closer to it than to
that other. What a ball mirrors is round, but no outline: its edges leave more."""
_CUT = 0.05
"""How far circles that touch, or are one, may seem to cut each other, in radii."""
_DOUBTFUL = 0.6
"""Support of an outline below which a better supported ring speaks against it. Wrong outlines of balls on
tables, rendered, had up to 0.58, right ones rarely less than 0.63."""
_BARE = 0.5
"""Support up to which chance may have made a ring: on wood and checks the best of many had up to 0.48. An
outline below it gives way to any better ring; a ring outside is no rival."""
_FAINT = 0.55
"""Support of an outline below which it is told, whatever is beside it: on cloth that a ball mirrors as a fine
net the best of many had up to 0.54."""
_FUZZIER = 2.0
"""How many times as far off a ring its edges may lie as off a better supported one, each in its blurs. The
shadows of many lights end on a ring round the ball: four of the demo had 0.5 blurs, their outlines 0.14."""
_BY_CHANCE = 0.5
"""How far edges that have nothing to do with an outline lie off it, in blurs."""
_INFORMED = 0.15
"""Support, times the share by which the edges' variance is below that of chance, up to which an outline may
be another. Rendered ones that were 1 to 14 px wrong had at most 0.14, of those right two in a hundred."""
_CLEAR, _CRISP = 0.75, 0.4
"""Support of an outline at full resolution, and distance of its edges in blurs, that leave no doubt; touching
circles have at most about 0.5 of support."""


def rings(
    survey: Survey, layers: list[Image], candidates: list[Candidate], lens: LensModel | None, finish: Finish
) -> list[list[Candidate]]:
    """For each sphere, best first, the circles that edges support at the survey's scale, outermost first."""
    stack = np.stack(layers)
    fitted: list[Candidate] = []
    tried: list[Candidate] = []
    for c in candidates:
        crowd = sum(_apart(o, c) < 0.5 * max(o.radius_px, c.radius_px) for o in tried)
        if any(_alike(o, c, 0.08 * c.radius_px) for o in tried) or crowd >= 8 or len(tried) >= 60:
            continue
        tried.append(c)
        better = _supported(stack, survey, c, lens, finish)
        if better is not None:
            fitted.append(better)
    groups: list[list[Candidate]] = []
    for c in sorted(fitted, key=lambda c: (-c.score, -c.radius_px)):
        if any(_apart(g[0], c) < 0.5 * max(g[0].radius_px, c.radius_px) for g in groups):
            continue
        near = [f for f in fitted if _apart(f, c) < 0.25 * c.radius_px and f.score >= 0.4 * c.score]
        wider = [w for core in _distinct(near)[:_CORES] for w in _wider(stack, survey, core, lens)]
        groups.append(sorted(near + wider, key=lambda r: -r.radius_px))
    # In the order of their groups' best support: a faint outline with a clear horizon inside is a sphere.
    kept: list[list[Candidate]] = []
    for group in groups:
        c = max(group, key=lambda r: r.score)
        best = [max(k, key=lambda r: r.score) for k in kept]
        if all(_apart(c, b) > 0.7 * (c.radius_px + b.radius_px) for b in best):
            kept.append(group)
    return kept


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Without those that are nearly alike an earlier one; best first."""
    kept: list[Candidate] = []
    for c in sorted(candidates, key=lambda c: -c.score):
        if not any(_alike(k, c, 0.08 * c.radius_px) for k in kept):
            kept.append(c)
    return kept


def _apart(a: Candidate, b: Candidate) -> float:
    return float(np.hypot(*(a.centre_px - b.centre_px)))


def _alike(a: Candidate, b: Candidate, slack_px: float) -> bool:
    return _apart(a, b) + abs(a.radius_px - b.radius_px) < slack_px


class _Window(NamedTuple):
    """The surroundings of a candidate in the survey."""

    stack: Image
    start: SphereView
    lens: LensModel | None
    corner: Float
    factor: int

    def candidate(self, view: SphereView, score: float) -> Candidate:
        f = self.factor
        return Candidate((view.centre_px + self.corner + 0.5) * f - 0.5, view.radius_px * f, score)


def _window(stack: Image, survey: Survey, c: Candidate, lens: LensModel | None, wider: float) -> _Window:
    f = survey.factor
    centre, radius = (c.centre_px + 0.5) / f - 0.5, c.radius_px / f
    x0, y0, x1, y1 = box(centre, wider * radius, stack.shape[1:])
    if lens is not None:
        cx, cy = (lens.cx + 0.5) / f - 0.5 - x0, (lens.cy + 0.5) / f - 0.5 - y0
        lens = lens.replace(fx=lens.fx / f, fy=lens.fy / f, cx=cx, cy=cy)
    corner = np.array([x0, y0], np.float64)
    return _Window(stack[:, y0:y1, x0:x1], circle(centre - corner, radius, lens), lens, corner, f)


def _supported(
    stack: Image, survey: Survey, c: Candidate, lens: LensModel | None, finish: Finish
) -> Candidate | None:
    """The outline fitted to the edges nearby, if enough of it has one and it answers as a ball."""
    try:
        w = _window(stack, survey, c, lens, 1.0)
        slack = 0.08 * w.start.radius_px
        start = align(w.stack, w.start, w.lens, max(slack, 1.5))
        edges = refine(w.stack, start, w.lens, max(0.25 * slack, 1.5))
    except FitError:
        return None
    better = w.candidate(edges.view, edges.support)
    return better if edges.support > _SUPPORT and answer(survey, better, finish) > 0 else None


def _wider(stack: Image, survey: Survey, c: Candidate, lens: LensModel | None) -> list[Candidate]:
    """The rings outside of a candidate that the survey's edges speak for most."""
    try:
        w = _window(stack, survey, c, lens, _WIDEST)
        found = rings_about(w.stack, w.start, w.lens, _WIDEST, _WIDER)
    except FitError:
        return []
    return [w.candidate(view, 0.0) for view in found]


def box(centre: Float, radius: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Window x0, y0, x1, y1 that holds a circle and its surroundings."""
    reach = 1.3 * radius + 12
    low = np.maximum(centre - reach, 0).astype(int)
    high = np.minimum(centre + reach + 1, [shape[1], shape[0]]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


class Found(NamedTuple):
    """The outline of a ball, and what else it might be."""

    edges: Edges
    doubt: str


def outline_of(stack: Image, group: list[Candidate], lens: LensModel | None, factor: int) -> Found | None:
    """The outermost ring that full resolution confirms, or None.

    Parameters
    ----------
    stack : ndarray, (n, h, w), float32
        Every light, in the candidates' pixel frame.
    group : list of Candidate
        Rings of one ball, outermost first.
    lens : LensModel or None
        Of that frame.
    factor : int
        Pixels a pixel of the survey that the candidates come from, a side.
    """
    fits: list[Edges] = []
    tried: list[Candidate] = []
    for c in group:
        slack = max(0.03 * c.radius_px, min(2.0 * factor, 0.15 * c.radius_px))
        if any(_alike(c, t, slack) for t in tried):
            continue
        tried.append(c)
        try:
            start = align(stack, circle(c.centre_px, c.radius_px, lens), lens, slack)
            edges = refine(stack, start, lens, slack)
        except FitError:
            continue
        if edges.support > _SUPPORT:
            fits.append(edges)
        if edges.support > _CLEAR and _scatter(edges) < _CRISP:
            break
    good = [f for f in fits if all(_stands(f, g) for g in fits)]
    standing = [f for f in good if not any(_crossing(f, g) and g.support > f.support for g in good)]
    if not standing:
        return None
    taken = max(standing, key=lambda f: f.view.radius_px)
    return Found(taken, _doubt(taken, fits))


def _stands(f: Edges, beside: Edges) -> bool:
    """Whether an outline has enough support, beside that of another ring of the same ball."""
    if _fuzzier(f, beside):
        return False
    share = _SHARE if f.rms_px >= beside.rms_px else _SHARE_SHARPER
    return f.support >= min(max(share * beside.support, _BARE), beside.support)


def _scatter(edges: Edges) -> float:
    """How far edges lie off their outline, in blurs."""
    return edges.rms_px / edges.blur_px


def chance(rough: Edges, polished: Edges) -> str:
    """What is to be said of an outline about which edges lie as by chance; empty if they do not."""
    scatter = max(_scatter(rough), _scatter(polished))
    if polished.support * (1 - (scatter / _BY_CHANCE) ** 2) > _INFORMED:
        return ""
    radius = polished.view.radius_px
    return f"edges lie about its outline of {radius:.0f} px as by chance: look at it, or give its circle"


def _fuzzier(f: Edges, beside: Edges) -> bool:
    return f.support < beside.support and _scatter(f) > _FUZZIER * _scatter(beside)


def _crossing(a: Edges, b: Edges) -> bool:
    """Whether two outlines cut each other; those of one ball and of what it mirrors do not."""
    return _cut_px(a, b) > _CUT * max(a.view.radius_px, b.view.radius_px)


def _cut_px(a: Edges, b: Edges) -> float:
    apart = float(np.hypot(*(a.view.centre_px - b.view.centre_px)))
    return apart - abs(a.view.radius_px - b.view.radius_px)


def _doubt(taken: Edges, fits: list[Edges]) -> str:
    """What speaks against the outline taken; empty if nothing does."""
    radius = taken.view.radius_px
    others = [f for f in fits if abs(f.view.radius_px - radius) > _CUT * radius or _crossing(f, taken)]
    better = max(others, key=lambda f: f.support, default=taken)
    rivals = [f for f in others if not _fuzzier(f, taken)]
    outside = max(rivals, key=lambda f: f.view.radius_px, default=taken)
    share = f"its outline of {radius:.0f} px has an edge along {100 * taken.support:.0f} % alone"
    if taken.support < _DOUBTFUL and better.support > taken.support:
        return f"{share}, a ring of {better.view.radius_px:.0f} px more: look at it, or give its circle"
    if taken.support < _FAINT:
        return f"{share}: look at it, or give its circle"
    if outside.view.radius_px > radius and not _crossing(outside, taken) and outside.support > _BARE:
        return (
            f"a fainter ring of {outside.view.radius_px:.0f} px is round it: look at it, or give its circle"
        )
    return ""
