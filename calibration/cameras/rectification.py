"""Stereo pairs turned so that one scene point lies in one row (or column) of both pictures."""

from typing import Literal, NamedTuple

import numpy as np

from calibration.cameras.model import CameraSet
from calibration.geometry import Float, normalize
from calibration.lens import BrownConrady, LensModel
from calibration.lens.undistortion import ViewChoice, pinhole_view
from calibration.provenance import FitError

_AHEAD_DEG = 60.0


class Rectified(NamedTuple):
    """One camera of a pair: what ``lens.undistortion.undistorter(lens, view, rotation=rotation)`` wants.

    Attributes
    ----------
    lens : LensModel
        Of the camera that takes the pictures.
    view : BrownConrady
        Of the rectified picture; no distortion.
    rotation : ndarray (3, 3)
        view_from_camera.
    """

    lens: LensModel
    view: BrownConrady
    rotation: Float


class RectifiedPair(NamedTuple):
    """Two views of one focal length that look the same way.

    Attributes
    ----------
    left, right : Rectified
    baseline_mm : float
        Distance of the cameras. Depth in the views is baseline * focal length / disparity.
    along : 'rows' or 'columns'
        Where a scene point's two pictures differ: 'rows', they lie in one row and the columns differ;
        'columns' for cameras above one another.
    """

    left: Rectified
    right: Rectified
    baseline_mm: float
    along: Literal["rows", "columns"]

    def depth_mm(self, disparity_px: Float) -> Float:
        """Depth in the views from column (or row) in the left picture less that in the right one."""
        view = self.left.view
        other = self.right.view
        focal, shift = (
            (view.fx, view.cx - other.cx) if self.along == "rows" else (view.fy, view.cy - other.cy)
        )
        with np.errstate(divide="ignore"):
            return np.asarray(self.baseline_mm * focal / (np.asarray(disparity_px, np.float64) - shift))


def rectify(cameras: CameraSet, left: str, right: str, *, view: ViewChoice = "same") -> RectifiedPair:
    """Views of two cameras with common rows (or columns), as stereo matching wants them.

    Both views are turned so that the baseline is their x axis (y axis for cameras above one another) and that
    together they look where the two cameras look on average. Pictures have the left camera's size.

    Parameters
    ----------
    cameras : CameraSet
    left, right : str
        Names; of cameras above one another the upper is ``left``.
    view : 'same', 'crop' or 'keep-all'
        Focal length: of the cameras, the smaller; or that at which each picture is filled, or all of it seen
        (``pinhole_view``); then the rows are those in the middle of both.

    Raises
    ------
    FitError
        The names are the other way round; or the cameras look along their baseline or away from each other.
    KeyError
        No such camera.
    """
    turn, t_mm, _ = cameras.relative(left, right)
    one, other = cameras.cameras[left].lens, cameras.cameras[right].lens
    baseline = -turn.T @ t_mm  # centre of the right camera in the left one's frame
    forward = normalize([0, 0, 1.0] + turn.T[:, 2])
    along: Literal["rows", "columns"] = "rows" if abs(baseline[0]) >= abs(baseline[1]) else "columns"
    own = 0 if along == "rows" else 1
    if baseline[own] < 0:
        raise FitError(
            f"{left} stands {'to the right of' if own == 0 else 'below'} {right}: name them in turn"
        )
    base = normalize(baseline)
    across = normalize(np.cross(forward, base))
    apart = float(np.degrees(np.arccos(np.clip(turn[2, 2], -1, 1))))
    if apart > 2 * _AHEAD_DEG or abs(float(forward @ base)) > np.sin(np.radians(_AHEAD_DEG)):
        raise FitError(
            f"{left} and {right} cannot be rectified: they look {apart:.0f} deg apart, "
            f"{np.degrees(np.arccos(abs(float(forward @ base)))):.0f} deg to their baseline"
        )
    # x right, y down, z ahead; the baseline is x, or y.
    if along == "rows":
        frame = np.stack([base, across, np.cross(base, across)])
    else:
        frame = np.stack([-across, base, np.cross(-across, base)])
    turns = frame, frame @ turn.T
    lenses = one, other
    size = one.width, one.height
    alone = [
        pinhole_view(lens, view, size=size, rotation=r) if view != "same" else _same(lens, size, r)
        for lens, r in zip(lenses, turns, strict=True)
    ]
    focals = [focal for a in alone for focal in (a.fx, a.fy)]
    focal = max(focals) if view == "crop" else min(focals)
    middle = (np.array(size) - 1) / 2
    # Direction of the middle of each picture, in the plane at distance 1.
    centres = np.array([((middle[0] - a.cx) / a.fx, (middle[1] - a.cy) / a.fy) for a in alone])
    centres[:, 1 - own] = centres[:, 1 - own].mean()
    views = [
        BrownConrady(
            width=size[0], height=size[1], fx=focal, fy=focal,
            cx=float(middle[0] - focal * c[0]), cy=float(middle[1] - focal * c[1]),
            provenance=lens.provenance,
        )
        for c, lens in zip(centres, lenses, strict=True)
    ]  # fmt: skip
    sides = [Rectified(*entry) for entry in zip(lenses, views, turns, strict=True)]
    return RectifiedPair(sides[0], sides[1], float(np.linalg.norm(t_mm)), along)


def _same(lens: LensModel, size: tuple[int, int], turn: Float) -> BrownConrady:
    """View of the lens's focal length whose middle is that of the camera's picture."""
    ray = turn @ lens.unproject([(lens.width - 1) / 2, (lens.height - 1) / 2])
    x, y = ray[:2] / ray[2]
    focal = min(lens.fx, lens.fy)
    return BrownConrady(
        width=size[0], height=size[1], fx=focal, fy=focal,
        cx=float((size[0] - 1) / 2 - focal * x), cy=float((size[1] - 1) / 2 - focal * y),
    )  # fmt: skip
