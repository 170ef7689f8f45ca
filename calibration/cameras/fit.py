"""Cameras of a rig from boards that they see together: links, bundle adjustment, views that do not belong."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from calibration.cameras.agreement import Disagreement, disagreements
from calibration.cameras.linking import Key, Motion, Placed, Sight, link, turned
from calibration.cameras.model import CameraSet
from calibration.cameras.pairing import mispaired
from calibration.cameras.result import MIN_POINTS, Fitted, Mask, model_of
from calibration.geometry import Float, rotation
from calibration.lens.bundle import Corners, Free, Solution, State, solve
from calibration.lens.choice import choose_lens
from calibration.lens.fit import LensKind, View, fit_pose, prior_of
from calibration.lens.model import BoardShape, LensModel
from calibration.provenance import FitError, Provenance

Intrinsics = Literal["fixed", "core", "free"]
FoundKind = Literal["auto", "brown-4", "brown-5", "brown-8", "fisheye"]
"""Model of a lens that is to be found with the poses; ``auto`` is chosen by cross-validation."""
_PARAMETRIC: tuple[LensKind, ...] = ("brown-5", "brown-8", "fisheye")


class _Seen(NamedTuple):
    """One camera's view of one board pose, corners in a fixed order."""

    points: Float
    pixels: Float
    sigma: Float
    disc_mm: float


def fit_cameras(
    views: Mapping[tuple[str, str], View],
    lenses: Mapping[str, LensModel | tuple[int, int]],
    *,
    intrinsics: Intrinsics | Mapping[str, Intrinsics] = "fixed",
    reference: str | None = None,
    known: Mapping[tuple[str, str], Motion] | None = None,
    turns: Sequence[Motion] = (),
    model: FoundKind = "auto",
    warp: bool = False,
    provenance: Provenance = Provenance(),  # noqa: B008
) -> CameraSet:
    """Fit the poses of all cameras, and of the board in every frame, to what they see of it.

    All that was taken of one pose of the board is a frame; the cameras need not see it all, nor all of it.
    Two cameras that never see the board together are linked through others that do, or by ``known``. Corners
    whose residual is longer than 4.5 sigmas are thrown out; so is a camera's whole view where the others of
    its frame saw the board elsewhere, and the frame where nobody can say which. The order of frames and
    cameras does not matter.

    Parameters
    ----------
    views : mapping of (frame, camera) -> View
        Corners of one rigid board, which stands still in a frame.
    lenses : mapping of camera -> LensModel or (width, height)
        Of every camera; where only its size is given, px, the lens is found from the same views, and free.
    intrinsics : 'fixed', 'core' or 'free', or a mapping of camera -> one of them
        What of lenses that are given is fitted anew: nothing, and their covariance goes into that of the
        poses; focal lengths and principal point; or all that their own fit left free.
    reference : str, optional
        Camera whose frame is the rig's; the first by name.
    known : mapping of (camera a, camera b) -> Motion
        b_from_a, taken as exact; used only where no board links the two.
    turns : sequence of Motion
        Motions of the board after which it looks the same: each camera may have taken it either way.
    model : str
        Of lenses that are to be found; 'auto' lets cross-validation choose for each.
    warp : bool
        Whether the board may be bent.
    provenance : Provenance
        Goes into the model.

    Returns
    -------
    CameraSet
        Cameras by name, with joint covariance, the board's poses and the corners. The residual rms is per
        coordinate.

    Raises
    ------
    FitError
        A camera without views, cameras that nothing links, frames of a camera that belong to other frames of
        the rest, or no convergence; names them.
    """
    names = sorted(lenses)
    by_camera = {name: sorted(frame for frame, camera in views if camera == name) for name in names}
    _check(views, lenses, reference, by_camera)
    frames = _in_order(views)
    seen = {
        (f, names.index(camera)): _sorted(views[frame, camera])
        for f, frame in enumerate(frames)
        for camera in names
        if (frame, camera) in views
    }
    candidates = _PARAMETRIC if model == "auto" else (model,)
    started = [_lens(name, lenses[name], views, by_camera[name], candidates) for name in names]
    wanted = {name: intrinsics for name in names} if isinstance(intrinsics, str) else intrinsics
    free = [
        _unknown(lens, wanted.get(name, "fixed") if isinstance(lenses[name], LensModel) else "free")
        for name, lens in zip(names, started, strict=True)
    ]
    sights, warnings = _sights(seen, started, frames, names)
    ties = {(names.index(a), names.index(b)): motion for (a, b), motion in (known or {}).items()}
    base = names.index(reference) if reference is not None else 0
    placed = link(sights, names, base, ties, turns)
    astray = mispaired(sights, placed, frames, turns)
    told = [entry.text(frames, names) for entry in astray]
    if any(entry.shift for entry in astray):
        raise FitError("; ".join(text for text, entry in zip(told, astray, strict=True) if entry.shift))
    warnings += [
        f"{names[a]} and {names[b]}: their frames fit as well with the board half-turned in one of them: use "
        "a board that shows which way up it is, or turn it about between frames"
        for a, b in placed.ambiguous
    ]
    keys = sorted(key for key in sights if key[0] in placed.boards)
    every = _Evidence(seen, sights, placed, turns, frames, names)
    out: list[Disagreement] = []
    state = _state(started, placed, every, keys, warp)
    try:
        for _ in range(len(keys)):
            solution, corners = _solved(state, every, keys, free, warp)
            numbers = sorted({frame for frame, _ in keys})
            found = disagreements(solution.state, corners, float(np.median(solution.sigma)), numbers)
            if not found:
                break
            out += found
            gone = {key for entry in found for key in entry.thrown}
            keys = [key for key in keys if key not in gone]
            # What is left may hold the cameras together otherwise, or not at all.
            placed = link({key: sights[key] for key in keys}, names, base, ties, turns)
            every = every._replace(placed=placed)
            state = _state(list(solution.state.lenses), placed, every, keys, warp)
    except FitError as error:
        raise FitError("; ".join([str(error), *told])) from None
    # Through a lens that is not quite known boards seem to stand apart that the fit brings together.
    warnings += (told if out else []) + [entry.text(frames, names) for entry in sorted(out)]
    kept = [frames[frame] for frame in sorted({frame for frame, _ in keys})]
    is_free = [bool(mask.any()) for mask in free]
    fitted = Fitted(solution, corners, every.placed, started, is_free, kept, names)
    return model_of(fitted, warnings, provenance)


class _Evidence(NamedTuple):
    """What is seen and by whom; numbers are those of ``frames`` and ``names``."""

    seen: dict[Key, _Seen]
    sights: dict[Key, Sight]
    placed: Placed
    turns: Sequence[Motion]
    frames: list[str]
    names: list[str]


def _check(
    views: Mapping[tuple[str, str], View],
    lenses: Mapping[str, LensModel | tuple[int, int]],
    reference: str | None,
    by_camera: Mapping[str, list[str]],
) -> None:
    if len(lenses) < 2:
        raise FitError("one camera is no rig: its lens is all there is to fit (`gnomon calibrate lens`)")
    strange = sorted({camera for _, camera in views} - set(lenses))
    if strange:
        raise FitError(f"no lens and no size of camera {', '.join(strange)}")
    if reference is not None and reference not in lenses:
        raise FitError(f"reference {reference!r} is no camera; there are {', '.join(sorted(lenses))}")
    blind = [name for name, frames in by_camera.items() if not frames]
    if blind:
        raise FitError(f"the board was found in no frame of {', '.join(blind)}")


def _sorted(view: View) -> _Seen:
    points, pixels = np.asarray(view.points_mm, np.float64), np.asarray(view.pixels, np.float64)
    order = np.lexsort((pixels[:, 1], pixels[:, 0], *points.T))
    sigma = np.asarray(view.sigma_px, np.float64)[order]
    return _Seen(points[order], pixels[order], sigma, view.disc_mm)


def _in_order(views: Mapping[tuple[str, str], View]) -> list[str]:
    """Frames by what is seen in them, whatever they are called."""
    of_frame: dict[str, list[tuple[str, bytes]]] = {}
    for (frame, camera), view in views.items():
        of_frame.setdefault(frame, []).append((camera, _sorted(view).pixels.tobytes()))
    return sorted(of_frame, key=lambda frame: (sorted(of_frame[frame]), frame))


def _lens(
    name: str,
    given: LensModel | tuple[int, int],
    views: Mapping[tuple[str, str], View],
    frames: Sequence[str],
    candidates: Sequence[LensKind],
) -> LensModel:
    if isinstance(given, LensModel):
        return given
    try:
        own = [views[frame, name] for frame in frames]
        return choose_lens(own, *given, candidates=candidates, names=frames)
    except FitError as error:
        raise FitError(f"lens of camera {name}: {error}") from None


def _sights(
    seen: Mapping[Key, _Seen], lenses: Sequence[LensModel], frames: Sequence[str], names: Sequence[str]
) -> tuple[dict[Key, Sight], list[str]]:
    sights: dict[Key, Sight] = {}
    lost: dict[int, list[str]] = {}
    for key, (points, pixels, sigma, disc_mm) in seen.items():
        frame, camera = key
        try:
            if len(points) < MIN_POINTS:
                raise FitError("too few corners")
            pose = fit_pose(lenses[camera], points, pixels, sigma_px=sigma, disc_mm=disc_mm)
        except FitError:
            lost.setdefault(camera, []).append(frames[frame])
            continue
        sights[key] = Sight(Motion(rotation(pose.rotvec), np.asarray(pose.t_mm)), points)
    warnings = [
        f"camera {names[camera]}: no pose of the board fits {', '.join(sorted(gone))}: left out"
        for camera, gone in sorted(lost.items())
    ]
    return sights, warnings


def _state(
    lenses: Sequence[LensModel], placed: Placed, every: _Evidence, keys: Sequence[Key], warp: bool
) -> State:
    frames = sorted({frame for frame, _ in keys})
    boards = [placed.boards[frame] for frame in frames]
    every_point = np.concatenate([every.seen[key].points for key in keys])
    middle = (every_point.max(axis=0) + every_point.min(axis=0)) / 2
    half = np.maximum(np.ptp(every_point, axis=0) / 2, 1e-9)
    shape = BoardShape(centre_mm=tuple(middle[:2].tolist()), half_mm=tuple(half[:2].tolist()))
    return State(
        tuple(lenses),
        np.array([camera.rotation for camera in placed.cameras]),
        np.array([camera.t for camera in placed.cameras]),
        np.array([board.rotation for board in boards]),
        np.array([board.t for board in boards]),
        shape if warp else BoardShape(),
    )


def _corners(every: _Evidence, keys: Sequence[Key]) -> Corners:
    frames = sorted({frame for frame, _ in keys})
    number = {frame: i for i, frame in enumerate(frames)}
    points = []
    for key in keys:
        turn = every.placed.turns[key]
        own = every.seen[key].points
        points.append(own if turn == 0 else turned(own, every.turns[turn - 1]))
    sizes = [len(every.seen[key].points) for key in keys]
    return Corners(
        np.concatenate(points),
        np.concatenate([every.seen[key].pixels for key in keys]),
        np.concatenate([every.seen[key].sigma for key in keys]),
        np.repeat([number[frame] for frame, _ in keys], sizes),
        np.repeat([camera for _, camera in keys], sizes),
        max(every.seen[key].disc_mm for key in keys),
    )


def _solved(
    state: State, every: _Evidence, keys: Sequence[Key], free: Sequence[Mask], warp: bool
) -> tuple[Solution, Corners]:
    corners = _corners(every, keys)
    cameras = np.ones(len(state.lenses), dtype=bool)
    cameras[[every.placed.reference, *(tie.new for tie in every.placed.ties)]] = False
    unknown = Free(tuple(free), cameras, warp=warp)
    priors = tuple(prior_of(lens, mask) for lens, mask in zip(state.lenses, free, strict=True))
    return solve(state, corners, unknown, min_points=MIN_POINTS, priors=priors), corners


def _unknown(lens: LensModel, intrinsics: Intrinsics) -> Mask:
    """Parameters of a lens that are fitted; 'free': all that its own fit left so, or that are not 0."""
    mask = np.zeros(len(lens.parameters), dtype=bool)
    if intrinsics == "fixed":
        return mask
    mask[:4] = True
    if intrinsics == "free":
        if lens.covariance is not None and np.any(lens.covariance):
            mask |= np.diag(lens.covariance) > 0
        else:
            mask |= lens.parameters != 0
    return mask
