"""Which lens model: the plainest that predicts unseen corners as well as the best does."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.geometry import Float
from calibration.lens.agreement import agreement, enlarged, unmoved_views
from calibration.lens.bundle import solve
from calibration.lens.fit import LensKind, View, adjust_lens, labels_of, prior_of
from calibration.lens.model import BoardShape, CandidateScore, LensModel, ModelScores
from calibration.lens.splined import SplinedLens
from calibration.lens.splined.fit import fit_splined
from calibration.lens.unknowns import Corners, Free, Index, State, alone, placed
from calibration.lens.verdict import judge, shared_residuals
from calibration.provenance import FitError, Provenance

CANDIDATES: tuple[LensKind, ...] = ("brown-4", "brown-5", "fisheye", "brown-8", "splined")
"""From the plainest on."""

_FOLDS, _FEWEST_VIEWS = 5, 5
_WORTH_KNOTS = 1.1  # ratio of errors: the plain model's own is then nearly half the noise of a corner
_WORTH_SIGMAS = 2.0
_EQUAL = 1.01  # ratio of errors that is no merit, however sure
_HOPELESS = 100.0  # times the least residuals: no part of the views will make it the best
_EXACT_PX = 1e-3  # less is no noise of a picture
_SAID_Z, _SAID_PART = 2.0, 0.05
_SOBER: tuple[LensKind, ...] = ("brown-4", "brown-5", "fisheye")
_GROSS_SIGMA = 6.0
_FAR_PX = 1e4  # what counts as the error of a corner that a model cannot image


class _Evidence(NamedTuple):
    """All corners, the views in an order that does not depend on how they came, first poses, and places."""

    corners: Corners
    rotations: Float
    translations: Float
    place: Index


class _Predictions(NamedTuple):
    """Errors (n, 2) with which a model foretells the corners, and the sigma (n,) of a coordinate, px."""

    error: Float
    sigma: Float


def choose_lens(
    views: Sequence[View],
    width: int,
    height: int,
    *,
    candidates: Sequence[LensKind] = CANDIDATES,
    warp: bool = False,
    aspect: bool = False,
    names: Sequence[str] | None = None,
    provenance: Provenance = Provenance(),  # noqa: B008
) -> LensModel:
    """Fit several lens models and keep the one that cross-validation recommends.

    The views are dealt into five parts. Each model is fitted to four of them and foretells the corners of the
    fifth: every corner from the pose that the others of its view give, with the lens held, so that neither
    lens nor pose has seen it. Taken is the plainest model whose mean square error is within one standard
    error of the least (the standard error is that of the difference over the views, which share their noise),
    or whose error is within one per cent of the least.
    The splined one, which has hundreds of parameters and which hardly another program reads, is taken only
    where it is better by two standard errors and by a tenth: the error of the plainer one is then nearly half
    the noise of a corner. It is not tried where the others leave residuals as the detections told them, nor
    is a model compared whose residuals are a hundred times those of another. The residuals of the fits do
    not count: they always prefer the model with more parameters.

    Parameters
    ----------
    views, width, height, warp, aspect, names, provenance
        As for ``fit_lens``.
    candidates : sequence of str
        From the plainest on. One that cannot be fitted is noted in the scores; one alone is not compared.

    Returns
    -------
    LensModel
        Fitted to all views and judged, agreement of the views included: where they disagree the covariance is
        enlarged (``agreement.enlarged``). ``scores`` says how all candidates did and why this one was taken.

    Raises
    ------
    FitError
        None of the candidates can be fitted: what the plainest one lacks.

    Notes
    -----
    The standard-error rule after L. Breiman et al., "Classification and Regression Trees" (1984). With fewer
    than five views nothing is compared: the plainest candidate is taken.
    """
    if not candidates:
        raise ValueError("no lens model to choose from")
    labels = labels_of(views, names)
    fits: dict[LensKind, LensModel] = {}
    failures: dict[LensKind, str] = {}
    for model in candidates:
        if model == "splined" and fits and _like_noise(_best(fits)[1]):
            failures[model] = f"not tried: the residuals of {_best(fits)[0]} leave it nothing to correct"
            continue
        try:
            fits[model] = adjust_lens(
                views,
                width,
                height,
                model=model,
                warp=warp,
                aspect=aspect,
                names=names,
                plain=_plain(fits) if all(m in fits or m in failures for m in _SOBER) else None,
                provenance=provenance,
            )
        except FitError as error:
            failures[model] = str(error)
        if fits and len(candidates) == 1:
            return _judged(fits[model], labels)
        if len(views) < _FEWEST_VIEWS and fits:
            reason = f"{len(views)} views are too few to compare models; the plainest was taken"
            scores = ModelScores(candidates=(), chosen=model, reason=reason)
            return _judged(fits[model].replace(scores=scores), labels)
    if not fits:
        raise FitError(failures[candidates[0]])  # the plainest asks for the least
    free = Free((), np.zeros(1, dtype=bool), warp=warp, aspect=aspect)
    evidence = _evidence(fits, views)
    folds = min(_FOLDS, int(evidence.place.max()) + 1)
    foretold: dict[LensKind, _Predictions] = {}
    least = max(_usual_miss(_best(fits)[1]), _EXACT_PX)
    for model, lens in fits.items():
        if (miss := _usual_miss(lens)) > _HOPELESS * least:
            failures[model] = f"does not fit: its residuals are {miss / least:.0f} times the least ones"
            continue
        try:
            foretold[model] = _foretell(lens, _plain(fits), evidence, free, folds)
        except FitError as error:
            failures[model] = f"on a part of the views: {error}"
    if not foretold:
        # A fit to all views stands, whatever part of them lacks.
        model, lens = _best(fits)
        reason = f"could not be compared ({failures[model]}); it has the least residuals"
        return _judged(lens.replace(scores=ModelScores(candidates=(), chosen=model, reason=reason)), labels)
    scores = _scores(candidates, foretold, failures, evidence.corners.view, folds)
    chosen = next(lens for model, lens in fits.items() if model == scores.chosen)
    return _judged(chosen.replace(scores=scores), labels)


def _usual_miss(lens: LensModel) -> float:
    """Median length of the residuals, px."""
    assert lens.observations is not None
    return float(np.median(np.linalg.norm(lens.observations[:, 6:8], axis=1)))


def _best(fits: dict[LensKind, LensModel]) -> tuple[LensKind, LensModel]:
    """The fit with the least residuals."""
    return min(fits.items(), key=lambda fit: _usual_miss(fit[1]))


def _like_noise(lens: LensModel) -> bool:
    """Whether the residuals of a fit are as the detections told, and repeat at no places of the image."""
    assert lens.observations is not None
    assert lens.views is not None
    rows = np.array(lens.observations)
    lost = rows[:, 0] < 0
    usual = np.sqrt(np.mean(rows[~lost, 6:8] ** 2))
    if not usual < _WORTH_KNOTS * np.sqrt(np.mean(rows[~lost, 8] ** 2)):
        return False  # poses may hide from each other what they have in common
    # What was thrown out may be what the model cannot fit: it counts, drawn in to where the rest ends.
    length = np.linalg.norm(rows[:, 6:8], axis=1)
    rows[lost, 6:8] *= np.minimum(length[~lost].max() / length[lost], 1)[:, None]
    view = np.where(lost, -1 - rows[:, 0], rows[:, 0])
    rows[:, 0] = np.where(np.isfinite(lens.views[view.astype(int), 0]), view, rows[:, 0])
    shared = shared_residuals(lens.replace(observations=rows))[0]
    return shared.z < _SAID_Z or shared.part < _SAID_PART


def _judged(lens: LensModel, labels: Sequence[str]) -> LensModel:
    """The lens with its verdict and, where the views disagree, with the covariance that they show."""
    views = agreement(lens)
    lens = enlarged(lens, views.influence)
    return lens.replace(quality=judge(lens, labels, views.halves))


def _plain(fits: dict[LensKind, LensModel]) -> LensModel | None:
    """What a splined lens starts from: of the sober fits the one that is nowhere far off."""

    def miss(lens: LensModel) -> float:
        assert lens.observations is not None
        return float(np.mean(lens.observations[:, 6:8] ** 2))

    return min((fits[model] for model in _SOBER if model in fits), key=miss, default=None)


def _evidence(fits: dict[LensKind, LensModel], views: Sequence[View]) -> _Evidence:
    """Corners, views ordered by what they show, and the pose of each from a model that has one."""
    first = next(iter(fits.values()))
    assert first.observations is not None
    rows = first.observations
    number = np.where(rows[:, 0] < 0, -1 - rows[:, 0], rows[:, 0]).astype(int)
    parts = [rows[number == i] for i in range(len(views))]
    poses = np.full((len(views), 6), np.nan)
    for lens in fits.values():
        assert lens.views is not None
        poses = np.where(np.isnan(poses), lens.views, poses)
    seen = [i for i in range(len(views)) if np.isfinite(poses[i]).all() and len(parts[i])]
    order = sorted(seen, key=lambda i: (parts[i][:, 4:6].tobytes(), parts[i][:, 1:4].tobytes()))
    rows = np.concatenate([parts[i] for i in order])
    view = np.repeat(np.arange(len(order)), [len(parts[i]) for i in order])
    corners = Corners(
        rows[:, 1:4],
        rows[:, 4:6],
        np.nan_to_num(rows[:, 8]),
        view,
        np.zeros_like(view),
        float(views[0].disc_mm),
    )
    # Views of one place foretell each other, errors included: they stay together.
    place = unmoved_views(view, corners.points, corners.pixels, corners.sigma)
    if place.max() + 1 < _FEWEST_VIEWS:
        place = np.arange(len(order))
    return _Evidence(corners, Rotation.from_rotvec(poses[order, :3]).as_matrix(), poses[order, 3:], place)


def _foretell(
    lens: LensModel, plain: LensModel | None, evidence: _Evidence, free: Free, folds: int
) -> _Predictions:
    """Every corner foretold by a fit to the other parts of the views."""
    corners, views = evidence.corners, np.arange(len(evidence.rotations))
    place = evidence.place
    out = _Predictions(np.empty_like(corners.pixels), np.empty(len(corners.points)))
    for fold in range(folds):
        trained = _trained(lens, plain, *_part(evidence, views[place % folds != fold]), free)
        held = np.isin(corners.view, views[place % folds == fold])
        part = _foretold(trained, *_part(evidence, views[place % folds == fold]))
        out.error[held], out.sigma[held] = part
    return out


def _part(evidence: _Evidence, views: Index) -> tuple[Corners, Float, Float]:
    """Corners of some views, and their poses."""
    corners = evidence.corners
    at = np.isin(corners.view, views)
    part = corners._replace(
        points=corners.points[at], pixels=corners.pixels[at], sigma=corners.sigma[at],
        view=np.searchsorted(views, corners.view[at]), camera=corners.camera[at],
    )  # fmt: skip
    return part, evidence.rotations[views], evidence.translations[views]


def _trained(
    lens: LensModel,
    plain: LensModel | None,
    corners: Corners,
    rotations: Float,
    translations: Float,
    free: Free,
) -> State:
    first = plain if isinstance(lens, SplinedLens) else lens
    if first is None:
        raise FitError("the splined model needs a plainer one to start from")
    assert first.covariance is not None
    mask = np.diag(first.covariance) > 0
    state = alone(first, rotations, translations)._replace(board=lens.board or BoardShape())
    solution = solve(state, corners, free._replace(lens=(mask,)), priors=(prior_of(first, mask),))
    if isinstance(lens, SplinedLens):
        solution = fit_splined(
            solution.state, corners, free._replace(lens=(mask,)), stiffness=lens.stiffness
        ).solution
    return solution.state


def _foretold(trained: State, corners: Corners, rotations: Float, translations: Float) -> _Predictions:
    """Corners of unseen views, each from the pose of the others of its view."""
    lens = trained.lenses[0]
    state = trained._replace(rotations=rotations, translations=translations)
    held = Free((np.zeros(len(lens.parameters), dtype=bool),), np.zeros(1, dtype=bool))
    solution = solve(state, corners, held, min_points=4)
    turned, seen = placed(solution.state, corners)
    by_points = np.nan_to_num(lens.derivatives(seen).by_points)
    # A small turn moves a point by turn x turned.
    turning = np.cross(np.eye(3), turned[:, None]).swapaxes(1, 2)
    by_pose = np.concatenate([by_points @ turning, by_points], axis=2)
    weight = solution.used / solution.sigma**2
    information = np.zeros((len(rotations), 6, 6))
    np.add.at(information, corners.view, np.einsum("nki,nkj,n->nij", by_pose, by_pose, weight))
    # A corner's own pull on its pose, taken back: the residual that a fit without it would leave.
    scale = 1 / np.sqrt(np.maximum(np.einsum("vii->vi", information), 1e-300))
    inverse = np.linalg.pinv(information * scale[:, None] * scale[:, :, None], hermitian=True)
    inverse *= scale[:, None] * scale[:, :, None]
    pull = np.einsum("nki,nij,nlj,n->nkl", by_pose, inverse[corners.view], by_pose, weight)
    error = np.linalg.solve(np.eye(2) - 0.999 * pull, solution.residual[..., None])[..., 0]
    return _Predictions(np.clip(np.nan_to_num(error, nan=_FAR_PX), -_FAR_PX, _FAR_PX), solution.sigma)


def _scores(
    candidates: Sequence[LensKind],
    foretold: dict[LensKind, _Predictions],
    failures: dict[LensKind, str],
    view: Index,
    folds: int,
) -> ModelScores:
    # What is wrong in the measurement is told by the model that errs least in most places.
    usual = min(foretold.values(), key=lambda p: float(np.median(np.sum(p.error**2, axis=1))))
    weight = np.where(np.linalg.norm(usual.error, axis=1) < _GROSS_SIGMA * usual.sigma, usual.sigma**-2, 0.0)
    total = np.bincount(view, weight)
    total, count = total / total.sum(), len(total)
    weight = weight / weight.sum()
    squares = {
        model: np.bincount(view, weight * 0.5 * np.sum(p.error**2, axis=1)) for model, p in foretold.items()
    }

    def mean(model: LensKind) -> float:
        return float(squares[model].sum())

    def beyond(model: LensKind, other: LensKind) -> tuple[float, float]:
        """How much larger the mean square error is, and the standard error of that, by views."""
        apart = squares[model] - squares[other]
        scatter = np.sum((apart - apart.sum() * total) ** 2)
        return float(apart.sum()), float(np.sqrt(count / (count - 1) * scatter))

    ranked = sorted(squares, key=mean)
    best = ranked[0]
    chosen, reason = _plainest(ranked, [model for model in candidates if model in squares], mean, beyond)
    rows = []
    for model in candidates:
        if model not in squares:
            rows.append(CandidateScore(model=model, failure=failures[model]))
            continue
        rms, least = np.sqrt(mean(model)), np.sqrt(mean(best))
        rows.append(
            CandidateScore(
                model=model,
                held_out_rms_px=float(rms),
                worse_px=float(rms - least),
                worse_sigma_px=float(beyond(model, best)[1] / (rms + least)),
            )
        )
    return ModelScores(candidates=tuple(rows), chosen=chosen, reason=reason, folds=folds)


def _plainest(
    ranked: Sequence[LensKind],
    candidates: Sequence[LensKind],
    mean: Callable[[LensKind], float],
    beyond: Callable[[LensKind, LensKind], tuple[float, float]],
) -> tuple[LensKind, str]:
    """The model to take, of ``ranked`` from the least mean square error on, and why."""
    best = ranked[0]
    few = [model for model in ranked if model != "splined"]

    def within(model: LensKind, other: LensKind, sigmas: float, ratio: float) -> bool:
        worse, sigma = beyond(model, other)
        return worse <= max(sigmas * sigma, (ratio**2 - 1) * mean(other))

    model: LensKind = best
    if best != "splined" or (few and within(few[0], best, _WORTH_SIGMAS, _WORTH_KNOTS)):
        model = next(m for m in candidates if m in few and within(m, few[0], 1.0, _EQUAL))
    told = f"foretells unseen corners {'best, ' if model == best else ''}to {np.sqrt(mean(model)):.3g} px"
    if model not in (best, few[0] if few else best):
        told += f", as well as {few[0]} within one standard error or 1 %, and is plainer"
    if best == "splined" and model != best:
        told += ", and splined is not clearly better (by two standard errors and a tenth)"
    others = [f"{other} {np.sqrt(mean(other)):.3g}" for other in candidates if other != model]
    return model, f"{told}; compared with {', '.join(others)} px" if others else told
