"""Whether all cameras of a frame saw the board in one place; who did not."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.cameras.consensus import largest_group
from calibration.cameras.linking import Key
from calibration.geometry import Float, cross_matrix
from calibration.lens.bundle import HARMLESS_PX, Corners, State

# Chi-squared per degree of freedom: noise stays below 5; a lens that fits badly raises all views alike, which
# the median takes out.
_TOO_FAR = 20.0
_HARM = 3.0  # sigmas of a corner: a view that is less far off does no harm worth the loss
_WORST = 0.2  # views as bad as this part of the worst are judged with it, the others after it is gone
_MIN_CORNERS = 6


class _Shift(NamedTuple):
    """Where one camera alone would put the board: (6,), turn about the rig's axes and mm; its information."""

    by: Float
    information: Float
    chi: float
    px: float


class Disagreement(NamedTuple):
    """A frame whose cameras saw the board in different places.

    Attributes
    ----------
    frame : int
    thrown : tuple of (frame, camera)
        Views that do not belong, or all of the frame where nobody can say which.
    kept : tuple of int
        Cameras that agree.
    px : float
        How far off the worst view is.
    """

    frame: int
    thrown: tuple[Key, ...]
    kept: tuple[int, ...]
    px: float

    def text(self, frames: Sequence[str], names: Sequence[str]) -> str:
        """Warning for the reader."""
        off = ", ".join(names[camera] for _, camera in self.thrown)
        why = "it moved between their frames, or they were not taken at once"
        if self.kept:
            rest = ", ".join(names[camera] for camera in self.kept)
            off = f"{off} saw the board {self.px:.1f} px from where {rest} saw it"
        else:
            off = f"{off} saw the board {self.px:.1f} px apart"
        return f"{frames[self.frame]}: {off}: left out; {why}"


def disagreements(
    state: State, corners: Corners, sigma_px: float, frames: Sequence[int]
) -> list[Disagreement]:
    """Frames whose cameras contradict each other, the worst of them.

    Of each view the motion of the board that would suit it best is found, robustly against single wrong
    corners. Where it is far too long for the noise, the largest group of cameras that agree stays.

    Parameters
    ----------
    state : State
        Solution of the bundle adjustment.
    corners : Corners
    sigma_px : float
        Of a coordinate.
    frames : sequence of int
        Number of the frame of each pose of ``state``.

    Returns
    -------
    list of Disagreement
        Empty where all agree. Throw these out, solve again and ask again.
    """
    shifts: dict[Key, _Shift] = {}
    for view in range(len(state.rotations)):
        mine = np.flatnonzero(corners.view == view)
        for camera in np.unique(corners.camera[mine]):
            at = mine[corners.camera[mine] == camera]
            shift = _shift(state, corners, at, view, int(camera), sigma_px)
            if shift is not None:
                shifts[view, int(camera)] = shift
    shared = [key for key in shifts if sum(other[0] == key[0] for other in shifts) > 1]
    if not shared:
        return []
    usual = max(1.0, float(np.median([shifts[key].chi for key in shared])))
    far = {key: shifts[key].chi for key in shared if shifts[key].px > max(_HARM * sigma_px, HARMLESS_PX)}
    worst = max(far.values(), default=0.0)
    if worst <= _TOO_FAR * usual:
        return []
    bad = sorted({view for (view, _), chi in far.items() if chi > max(_TOO_FAR * usual, _WORST * worst)})
    out = []
    for view in bad:
        cameras = [camera for v, camera in shared if v == view]
        agreeing = _agreeing([shifts[view, camera] for camera in cameras], _TOO_FAR * usual)
        kept = tuple(cameras[i] for i in agreeing)
        thrown = tuple((frames[view], camera) for camera in cameras if camera not in kept)
        px = max(shifts[view, camera].px for camera in cameras)
        if thrown:
            out.append(Disagreement(frames[view], thrown, kept, px))
    return out


def _shift(
    state: State, corners: Corners, at: NDArray[np.int64], view: int, camera: int, sigma_px: float
) -> _Shift | None:
    turn, place = state.camera_rotations[camera], state.camera_translations[camera]
    arm = state.board.shaped(corners.points[at]) @ state.rotations[view].T
    seen = (arm + state.translations[view]) @ turn.T + place
    model, by_points, _, _ = state.lenses[camera].derivatives(seen)
    residual = corners.pixels[at] - model
    good = np.isfinite(residual).all(axis=1) & np.isfinite(by_points).all(axis=(1, 2))
    if good.sum() < _MIN_CORNERS:
        return None
    by_place = by_points[good] @ turn
    by_turn = by_place @ np.array([-cross_matrix(p) for p in arm[good]])
    design = np.concatenate([by_turn, by_place], axis=2)
    residual = residual[good]
    weight = np.ones(len(residual))
    scale = 1 / np.array([1.0, 1.0, 1.0, *([1 / max(float(np.abs(arm).max()), 1e-9)] * 3)])
    scaled = design * scale
    for _ in range(8):
        normal = np.einsum("nia,n,nib->ab", scaled, weight, scaled)
        step = np.linalg.lstsq(normal, np.einsum("nia,n,ni->a", scaled, weight, residual), rcond=1e-12)[0]
        left = np.linalg.norm(residual - scaled @ step, axis=1)
        spread = max(float(np.median(left)) / 1.1774, sigma_px)
        weight = 1 / (1 + (left / (2 * spread)) ** 2)
    by = scale * step
    normal = np.einsum("nia,n,nib->ab", design, (left < 4.5 * spread) / sigma_px**2, design)
    px = float(np.sqrt(np.mean(np.sum((design @ by) ** 2, axis=1))))
    return _Shift(by, normal, float(by @ normal @ by) / 6, px)


def _agreeing(shifts: Sequence[_Shift], limit: float) -> tuple[int, ...]:
    """Most of the cameras, every two of which put the board in one place; none where no two do.

    Where every two of n equally sure cameras stay below the limit, so do all n about their common mean.
    """
    chi = np.zeros((len(shifts), len(shifts)))
    for i, j in combinations(range(len(shifts)), 2):
        chi[i, j] = chi[j, i] = _spread([shifts[i], shifts[j]])
    return largest_group(chi <= limit, chi)


def _spread(shifts: Sequence[_Shift]) -> float:
    """Chi-squared per degree of freedom of the shifts about their common mean."""
    total = np.sum([shift.information for shift in shifts], axis=0)
    mean = np.linalg.lstsq(total, np.sum([s.information @ s.by for s in shifts], axis=0), rcond=1e-14)[0]
    chi = sum(float((s.by - mean) @ s.information @ (s.by - mean)) for s in shifts)
    return chi / (6 * (len(shifts) - 1))
