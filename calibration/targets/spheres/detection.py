"""Balls found in images under several lights, without clicks.

Two cues must agree. The outline: a circle of edges in the statistics of each pixel over the lights. The
answer to the lights: a mirror's highlight, or a matte ball's shading, that moves from light to light.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.provenance import FitError
from calibration.targets.outline import SphereView
from calibration.targets.rim import polish
from calibration.targets.spheres.cues import Finish, alike, answer, shown
from calibration.targets.spheres.rings import box, chance, outline_of, rings
from calibration.targets.spheres.search import Candidate, Image, Survey, circles, statistics, survey_of

_LEAST_RADIUS_PX = 18.0
_SMALL_PX = 25.0
_WHOLE = 0.98
_PLAIN = 0.45
"""Votes for a circle, over what a whole one has, that need no second look to speak of a ball."""
_NEARLY = 0.6
"""Share of an outline's support with which another may stand in its place."""
_FOUND = 0.5
"""Least support of an outline where nobody said how many there are: the best of many circles by chance has
about 0.4."""


def detect_spheres(
    images: Sequence[NDArray[np.floating]],
    lens: LensModel | None,
    *,
    count: int | None = None,
    radius_px: float | tuple[float, float] | None = None,
    finish: Finish = "mirror",
) -> tuple[SphereView, ...]:
    """Find balls and fit their outlines.

    Parameters
    ----------
    images : sequence of ndarray, (h, w)
        Linear radiance of the same view under different lights, at least 3. NaN is taken as saturated.
        Read one at a time, twice.
    lens : LensModel or None
        None: orthographic; the views then carry only circles.
    count : int or None
        How many spheres to find; None: all that pass the tests.
    radius_px : float, pair or None
        About how large they look (a float means 0.7 to 1.4 of it), or the range.
    finish : 'mirror' or 'matte'
        Balls that show highlights (chrome, steel, black gloss), or white ones without.

    Returns
    -------
    tuple of SphereView
        From left to right, then top to bottom. Their ``remarks`` say what limits them: cut by the picture's
        border, small, or one of several that fit as well.

    Raises
    ------
    FitError
        No sphere found, or fewer than ``count``; the message says what was found instead.

    Notes
    -----
    Fails where the outline has no contrast anywhere (black ball on black), where fewer than half of the
    lights make a highlight in a mirror or shade a matte ball, and where less than about a third of the
    outline is in the picture.
    """
    if len(images) < 3:
        few = "1 image is" if len(images) == 1 else f"{len(images)} images are"
        raise FitError(f"{few} too few to find a {finish} sphere: give at least 3 lights")
    survey = survey_of(images)
    if radius_px is None:
        low, high = _LEAST_RADIUS_PX, 0.55 * max(survey.size)
    elif isinstance(radius_px, tuple):
        low, high = radius_px
    else:
        low, high = 0.7 * radius_px, 1.4 * radius_px
    layers = statistics(survey.mean)
    seen = circles(layers, survey.factor, 0.65 * low, high)
    groups = rings(survey, layers, _answering(survey, seen, finish), lens, finish)
    groups = [g for g in ([c for c in g if low <= c.radius_px <= high] for g in groups) if g]
    if not groups:
        raise FitError(_instead(survey, layers, seen, low, finish))
    found = _refined(images, groups[: 2 * (count or 16)], lens, survey.factor, finish)
    same = np.ones(len(found), bool) if finish == "matte" else alike(survey, [view for _, view in found])
    order = np.argsort(~same, kind="stable")
    if count is not None:
        if len(found) < count:
            raise FitError(f"found {len(found)} {finish} spheres, want {count}: give a mask of each")
        # Stable: within the alike and within the others, the best outlines first.
        order = _of_one_size(found, order, int(same.sum()), count)
        chosen = [found[k] for k in order[:count]]
    else:
        least = max(_FOUND, 0.5 * found[0][0]) if found else _FOUND
        chosen = [f for f, s in zip(found, same, strict=True) if s and f[0] > least]
    if not chosen:
        raise FitError(
            f"no {finish} sphere found: the candidates' outlines are no circles at full resolution"
        )
    spare = [
        found[k]
        for k in order[len(chosen) :]
        if same[k] and found[k][0] > max(_FOUND, _NEARLY * chosen[-1][0])
    ]
    views = [_remarked(view, survey.size, [other for _, other in spare]) for _, view in chosen]
    return tuple(sorted(views, key=lambda s: (round(s.centre_px[0] / s.radius_px), s.centre_px[1])))


def _of_one_size(
    found: list[tuple[float, SphereView]], order: NDArray[np.intp], alike_ones: int, count: int
) -> NDArray[np.intp]:
    """The order with those first that look most of one size, where more than ``count`` are good outlines.

    The balls of a set are of one size and about as far away; a glossy object among them is not.
    """
    least = _NEARLY * found[order[count - 1]][0]
    able = [k for k in order[:alike_ones] if found[k][0] >= least]
    if len(able) <= count or count < 2:
        return order
    by_size = sorted(able, key=lambda k: found[k][1].radius_px)
    sets = [by_size[i : i + count] for i in range(len(able) - count + 1)]
    best = min(sets, key=lambda s: found[s[-1]][1].radius_px / found[s[0]][1].radius_px)
    return np.array([k for k in order if k in best] + [k for k in order if k not in best])


def _answering(survey: Survey, candidates: list[Candidate], finish: Finish) -> list[Candidate]:
    scored = [c._replace(score=c.score * answer(survey, c, finish)) for c in candidates]
    return sorted((c for c in scored if c.score > 0), key=lambda c: -c.score)


def _remarked(view: SphereView, size: tuple[int, int], spare: list[SphereView]) -> SphereView:
    """The view with what its user should know."""
    remarks = list(view.remarks)
    share = shown(view.centre_px, view.radius_px, size)
    if share < _WHOLE:
        remarks.append(f"cut by the picture's border: {100 * share:.0f} % of its outline is in view")
    if view.radius_px < _SMALL_PX:
        remarks.append(f"tiny: a radius of {view.radius_px:.0f} px; 100 px give good lights")
    if spare:
        remarks.append(f"one of several candidates: {_place(spare[0].centre_px)} fits as well")
    return view._replace(remarks=tuple(remarks))


def _place(centre_px: Float) -> str:
    return f"the one at ({centre_px[0]:.0f}, {centre_px[1]:.0f}) px"


def _instead(survey: Survey, layers: list[Image], seen: list[Candidate], low: float, finish: Finish) -> str:
    """Why there is no sphere, as far as can be told."""
    small = circles(layers, survey.factor, 5.0, low)
    for c in _answering(survey, small, finish)[:1]:
        if c.score > _PLAIN and c.radius_px < low:
            return (
                f"no {finish} sphere of a radius above {low:.0f} px found: {_place(c.centre_px)} is tiny,"
                f" {c.radius_px:.0f} px; use a larger ball or come nearer"
            )
    other: Finish = "matte" if finish == "mirror" else "mirror"
    for c in _answering(survey, seen, other)[:1]:
        if c.score > _PLAIN:
            return f"no {finish} sphere found: {_place(c.centre_px)} answers to the lights as a {other} one"
    cue = "a moving highlight" if finish == "mirror" else "the shading of a matte ball"
    reason = f"no {finish} sphere found: no circle of edges holds {cue} under half of the lights"
    for c in _answering(survey, seen, finish):
        share = shown(c.centre_px, c.radius_px, survey.size)
        if share < 0.5 and c.score > 0.33 * share:
            return (
                f"{reason}; {_place(c.centre_px)} may be one that is cut by the picture's border, with"
                f" {100 * share:.0f} % of its outline in view: show the whole ball"
            )
    return f"{reason}; where a ball is as dark as what is behind it, give its mask"


_COARSE = 14
"""Radius, px of the survey, below which it does not tell a ball's outline from the horizon inside."""


def _refined(
    images: Sequence[NDArray[np.floating]],
    groups: list[list[Candidate]],
    lens: LensModel | None,
    factor: int,
    finish: Finish,
) -> list[tuple[float, SphereView]]:
    """One view for each group of rings, fitted at full resolution, with its score; best first."""
    coarse = [factor > 1 and g[0].radius_px < _COARSE * factor for g in groups]
    boxes = [
        box(g[0].centre_px, g[0].radius_px * (1.6 if again else 1.0), images[0].shape)
        for g, again in zip(groups, coarse, strict=True)
    ]
    crops: list[list[Image]] = [[] for _ in boxes]
    for image in images:
        for crop, (x0, y0, x1, y1) in zip(crops, boxes, strict=True):
            crop.append(np.array(image[y0:y1, x0:x1], np.float32))
    found = []
    for group, crop, again, (x0, y0, _, _) in zip(groups, crops, coarse, boxes, strict=True):
        shifted = None if lens is None else lens.replace(cx=lens.cx - x0, cy=lens.cy - y0)
        corner = np.array([x0, y0], np.float64)
        stack = np.stack(crop)
        within = [c._replace(centre_px=c.centre_px - corner) for c in group]
        if again:
            within = _looked_at_again(crop, within[-1], shifted, finish)
        outline = outline_of(stack, within, shifted, 1 if again else factor)
        if outline is not None:
            edges = polish(stack, outline.edges, shifted)
            doubt = outline.doubt or chance(outline.edges, edges)
            remarks = (doubt,) if doubt else ()
            view = edges.view._replace(centre_px=edges.view.centre_px + corner, remarks=remarks)
            found.append((edges.support, view))
    return sorted(found, key=lambda f: -f[0])


def _looked_at_again(
    crop: list[Image], core: Candidate, lens: LensModel | None, finish: Finish
) -> list[Candidate]:
    """The rings of one ball that is small at the survey's scale, from full resolution."""
    window = survey_of(crop)
    layers = statistics(window.mean)
    seen = circles(layers, window.factor, 0.6 * core.radius_px, 1.7 * core.radius_px)
    groups = rings(window, layers, _answering(window, seen, finish), lens, finish)
    return groups[0] if groups else []
