"""The model of a finished fit: poses with their joint covariance, the corners, what a reader must know."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.cameras.linking import Motion, Placed
from calibration.cameras.model import CameraSet, RigCamera, rotvec
from calibration.geometry import Float, cross_matrix
from calibration.lens.bundle import Corners, Free, Prior, Solution, solve
from calibration.lens.model import BoardShape, LensModel
from calibration.provenance import Provenance, Quality

Mask = NDArray[np.bool_]
MIN_POINTS = 6
_FEW_FRAMES = 3
_MUCH_WORSE = 3.0


class Fitted(NamedTuple):
    """Solution of the bundle adjustment, what went into it, and the names of its frames and cameras."""

    solution: Solution
    corners: Corners
    placed: Placed
    given: Sequence[LensModel]
    is_free: Sequence[bool]
    frames: Sequence[str]
    names: Sequence[str]


def model_of(fit: Fitted, warnings: Sequence[str], provenance: Provenance) -> CameraSet:
    """Write a solution down; ``warnings`` come before its own."""
    solution, corners = fit.solution, fit.corners
    used = solution.used
    cameras, boards, covariance = _tied(fit, _covariance(fit))
    lenses = [_lens(fit, k, provenance) for k in range(len(fit.names))]
    number = np.where(used, corners.view, -1 - corners.view)
    rows = (number, corners.camera, corners.points, corners.pixels, solution.residual, solution.sigma)
    serious, weak = _serious(fit), _weak(fit)
    return CameraSet(
        cameras={
            name: RigCamera(lens=lens, rotvec_rad=rotvec(pose.rotation), t_mm=tuple(pose.t.tolist()))
            for name, lens, pose in zip(fit.names, lenses, cameras, strict=True)
        },
        reference=fit.names[fit.placed.reference],
        covariance=covariance,
        frames=tuple(fit.frames),
        boards=np.array([[*rotvec(board.rotation), *board.t] for board in boards]),
        board=None if solution.state.board == BoardShape() else solution.state.board,
        observations=np.column_stack(rows),
        quality=Quality(
            residual_rms=_rms(fit, used),
            unit="px",
            observations=2 * int(used.sum()),
            rejected=2 * int((~used).sum()),
            verdict="doubtful" if serious or fit.placed.ambiguous else "good",
            warnings=(*warnings, *serious, *weak),
        ),
        provenance=provenance,
    )


def _lens(fit: Fitted, camera: int, provenance: Provenance) -> LensModel:
    """The lens that was given, or the fitted one with its covariance; the set holds what it rests on."""
    if not fit.is_free[camera]:
        return fit.given[camera]
    at, own = fit.solution.layout.lens[camera], fit.corners.camera == camera
    used = fit.solution.used
    return fit.solution.state.lenses[camera].replace(
        covariance=fit.solution.covariance[at, at],
        views=None,
        observations=None,
        view_names=(),
        board=None,
        quality=Quality(
            residual_rms=_rms(fit, used & own),
            unit="px",
            observations=2 * int((used & own).sum()),
            rejected=2 * int((~used & own).sum()),
        ),
        provenance=provenance,
    )


def _rms(fit: Fitted, which: Mask) -> float:
    return float(np.sqrt(np.mean(fit.solution.residual[which] ** 2))) if which.any() else float("nan")


def _covariance(fit: Fitted) -> Float:
    """Of all cameras' poses, with what lenses that were held add, (6c, 6c).

    With lens and poses free together the poses' mean moves with the lens as C_pl C_ll^-1, whatever prior
    holds the lens: that is how far poses are off for a lens that is off.
    """
    solution = fit.solution
    state, layout = solution.state, solution.layout
    poses = np.arange(layout.cameras[0].start, layout.cameras[-1].stop)
    covariance = solution.covariance[np.ix_(poses, poses)]
    masks: list[Mask] = []
    priors: list[Prior | None] = []
    for lens, free in zip(fit.given, fit.is_free, strict=True):
        if free or lens.covariance is None:
            masks.append(np.zeros(len(lens.parameters), dtype=bool))
            priors.append(None)
        else:
            masks.append(np.asarray(np.diag(lens.covariance) > 0))
            priors.append(Prior(_inverse(np.asarray(lens.covariance)), lens.parameters))
    if not any(mask.any() for mask in masks):
        return np.asarray(covariance)
    cameras = np.asarray(np.diag(covariance).reshape(-1, 6).any(axis=1))
    joint = solve(
        state, fit.corners, Free(tuple(masks), cameras), min_points=MIN_POINTS, priors=tuple(priors)
    ).covariance
    lens_at = np.concatenate(
        [np.arange(at.start, at.stop)[mask] for at, mask in zip(layout.lens, masks, strict=True)]
    )
    own = np.zeros((len(solution.covariance), len(solution.covariance)))
    for at, lens in zip(layout.lens, fit.given, strict=True):
        if lens.covariance is not None:
            own[at, at] = lens.covariance
    follows = joint[np.ix_(poses, lens_at)] @ _inverse(joint[np.ix_(lens_at, lens_at)])
    return np.asarray(covariance + follows @ own[np.ix_(lens_at, lens_at)] @ follows.T)


def _inverse(covariance: Float) -> Float:
    """Inverse of a covariance of parameters of many sizes; zero rows where it has zero rows."""
    size = np.sqrt(np.diag(covariance))
    scale = np.where(size > 0, 1 / np.where(size > 0, size, 1.0), 0.0)
    unit = covariance * scale * scale[:, None]
    return np.asarray(np.linalg.pinv(unit, rcond=1e-12, hermitian=True) * scale * scale[:, None])


def _tied(fit: Fitted, covariance: Float) -> tuple[list[Motion], list[Motion], Float]:
    """Poses of cameras and boards, each known link as it is given: its group follows what it hangs on."""
    state = fit.solution.state
    cameras = [Motion(*pose) for pose in zip(state.camera_rotations, state.camera_translations, strict=True)]
    boards = [Motion(*pose) for pose in zip(state.rotations, state.translations, strict=True)]
    for tie in fit.placed.ties:
        carry = cameras[tie.new].inverse() @ tie.motion @ cameras[tie.old]
        follow = np.eye(len(covariance))
        for camera in tie.group:
            before = cameras[camera]
            cameras[camera] = before @ carry
            turn = cameras[camera].rotation @ cameras[tie.old].rotation.T
            own, old = slice(6 * camera, 6 * camera + 6), slice(6 * tie.old, 6 * tie.old + 6)
            follow[own, own][3:, :3] = cross_matrix(cameras[camera].t - before.t)
            follow[own, old] = np.kron(np.eye(2), turn)
        covariance = follow @ covariance @ follow.T
        for view in np.unique(fit.corners.view[np.isin(fit.corners.camera, tie.group)]):
            boards[view] = carry.inverse() @ boards[view]
    return cameras, boards, covariance


def _serious(fit: Fitted) -> list[str]:
    """What makes the fit doubtful."""
    out = []
    used, corners = fit.solution.used, fit.corners
    cameras_of = [np.unique(corners.camera[used & (corners.view == v)]) for v in range(len(fit.frames))]
    for k, name in enumerate(fit.names):
        shared = sum(k in cameras and len(cameras) > 1 for cameras in cameras_of)
        if 0 < shared < _FEW_FRAMES:
            out.append(
                f"camera {name} shares the board with another in {shared} frame(s) only: take 10 or more"
            )
        if not np.any(used & (corners.camera == k)):
            out.append(f"camera {name}: none of its corners agree with the others")
    return out


def _weak(fit: Fitted) -> list[str]:
    """What is worth a word."""
    out = []
    used, corners = fit.solution.used, fit.corners
    for k, name in enumerate(fit.names):
        own = corners.camera == k
        lost = set(np.unique(corners.view[own])) - set(np.unique(corners.view[own & used]))
        if lost:
            frames = ", ".join(sorted(fit.frames[view] for view in lost))
            out.append(f"camera {name}: its corners in {frames} agree with no pose of the board: left out")
    rms = [_rms(fit, used & (corners.camera == k)) for k in range(len(fit.names))]
    usual = float(np.nanmedian(rms))
    for name, value in zip(fit.names, rms, strict=True):
        if value > _MUCH_WORSE * usual:
            out.append(
                f"camera {name}: its residuals of {value:.2f} px are {value / usual:.0f} times those of the "
                "others: is its lens model the right one?"
            )
    return out
