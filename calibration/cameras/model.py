"""Cameras of a rig: where each stands and looks in one metric frame, and how sure that is."""

from typing import Literal, NamedTuple

import numpy as np

from calibration.geometry import Float, cross_matrix, rotation
from calibration.lens import Lens
from calibration.lens.model import BoardShape
from calibration.provenance import Array, Model, Provenance, Quality

Vector = tuple[float, float, float]


class Relative(NamedTuple):
    """Frame b seen from frame a: ``p_b = rotation @ p_a + t_mm``.

    Attributes
    ----------
    rotation : ndarray (3, 3)
        b_from_a.
    t_mm : ndarray (3,)
        Origin of a in the frame of b, mm.
    covariance : ndarray (6, 6)
        Of a small turn about the axes of b (rad; true rotation = turn after the fitted one) and of ``t_mm``
        (mm). NaN where it is not known.
    """

    rotation: Float
    t_mm: Float
    covariance: Float

    @property
    def angle_deg(self) -> float:
        """Angle of the rotation, degrees."""
        return turned_deg(self.rotation)

    @property
    def angle_sigma_deg(self) -> float:
        """Standard deviation of ``angle_deg``; of a rotation of nothing, that of its length."""
        axis = _axis(self.rotation)
        turn = self.covariance[:3, :3]
        return float(np.degrees(np.sqrt(axis @ turn @ axis if axis.any() else np.trace(turn))))

    @property
    def baseline_mm(self) -> float:
        """Distance of the two origins, mm."""
        return float(np.linalg.norm(self.t_mm))

    @property
    def baseline_sigma_mm(self) -> float:
        """Standard deviation of ``baseline_mm``; of no distance, that of its length."""
        along = self.t_mm / self.baseline_mm if self.baseline_mm > 0 else np.zeros(3)
        place = self.covariance[3:, 3:]
        return float(np.sqrt(along @ place @ along if along.any() else np.trace(place)))


class RigCamera(Model):
    """One camera of a rig.

    Attributes
    ----------
    lens : Lens
        Of the camera; with covariance where it was fitted or came with one.
    rotvec_rad, t_mm : 3 floats
        camera_from_rig: ``p_camera = R(rotvec_rad) @ p_rig + t_mm``.
    """

    lens: Lens
    rotvec_rad: Vector = (0.0, 0.0, 0.0)
    t_mm: Vector = (0.0, 0.0, 0.0)

    @property
    def rotation(self) -> Float:
        """camera_from_rig (3, 3)."""
        return rotation(self.rotvec_rad)

    @property
    def centre_mm(self) -> Float:
        """Centre of projection (3,) in the rig frame, mm."""
        return np.asarray(-self.rotation.T @ np.asarray(self.t_mm))


class CameraSet(Model):
    """The cameras of a rig by name, in one metric frame, with what they rest on.

    Attributes
    ----------
    cameras : dict of name -> RigCamera
        In the order of ``covariance``.
    reference : str
        The camera whose frame is the rig's.
    covariance : ndarray (6c, 6c) or None
        Joint, of all poses: for each camera a small turn about its own x, y, z axes (rad; true rotation =
        turn after the fitted one), then its ``t_mm`` (mm). Zero for the reference camera. It holds the noise
        of the corners and, where the lenses were held, what their own covariance adds.
    frames : tuple of str
        Names of the board's poses, in the order of ``boards``.
    boards : ndarray (v, 6) or None
        rig_from_board of each: rotation vector (rad), translation (mm).
    board : BoardShape or None
        The shape that the fit found the board to have; None where it was taken as described.
    observations : ndarray (n, 10) or None
        One corner a row: frame, camera (numbers into ``frames`` and ``cameras``), board x, y, z (mm), pixel
        x, y, residual x, y (px, measured minus model), sigma of a coordinate (px). A corner that was thrown
        out has the frame number -1 - frame.
    """

    kind: Literal["cameras"] = "cameras"
    cameras: dict[str, RigCamera]
    reference: str
    covariance: Array | None = None
    frames: tuple[str, ...] = ()
    boards: Array | None = None
    board: BoardShape | None = None
    observations: Array | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    def relative(self, a: str, b: str) -> Relative:
        """Pose of camera a in the frame of camera b (b_from_a) with its covariance.

        Raises
        ------
        KeyError
            No such camera.
        """
        one, other = self.cameras[a], self.cameras[b]
        turn = other.rotation @ one.rotation.T
        moved = turn @ np.asarray(one.t_mm)
        t_mm = np.asarray(other.t_mm) - moved
        if self.covariance is None:
            return Relative(turn, t_mm, np.full((6, 6), np.nan))
        # w = w_b - R w_a turns b; the place of a follows both turns.
        by_turn, cross = np.zeros((6, 12)), cross_matrix(moved)
        by_turn[:3, :3], by_turn[:3, 6:9] = -turn, np.eye(3)
        by_turn[3:, :3], by_turn[3:, 6:9] = -cross @ turn, cross
        by_turn[3:, 3:6], by_turn[3:, 9:] = -turn, np.eye(3)
        names = list(self.cameras)
        at = np.concatenate([6 * names.index(name) + np.arange(6) for name in (a, b)])
        return Relative(turn, t_mm, by_turn @ self.covariance[np.ix_(at, at)] @ by_turn.T)

    def in_frame_of(self, camera: str) -> "CameraSet":
        """The same cameras with another one's frame as the rig's; ``boards`` and ``covariance`` follow.

        Raises
        ------
        KeyError
            No such camera.
        """
        base = self.cameras[camera]
        names = list(self.cameras)
        cameras, by_pose = {}, np.zeros((6 * len(names), 6 * len(names)))
        k = names.index(camera)
        for i, name in enumerate(names):
            if name == camera:
                cameras[name] = self.cameras[name].replace(rotvec_rad=(0.0, 0.0, 0.0), t_mm=(0.0, 0.0, 0.0))
                continue
            turn, t_mm, _ = self.relative(camera, name)
            cameras[name] = self.cameras[name].replace(rotvec_rad=rotvec(turn), t_mm=tuple(t_mm.tolist()))
            own, base_at = slice(6 * i, 6 * i + 6), slice(6 * k, 6 * k + 6)
            cross = cross_matrix(turn @ np.asarray(base.t_mm))
            zero, one = np.zeros((3, 3)), np.eye(3)
            by_pose[own, own] = np.block([[one, zero], [cross, one]])
            by_pose[own, base_at] = np.block([[-turn, zero], [-cross @ turn, -turn]])
        boards = None
        if self.boards is not None:
            turns = np.array([base.rotation @ rotation(board[:3]) for board in self.boards]).reshape(-1, 3, 3)
            places = self.boards[:, 3:] @ base.rotation.T + np.asarray(base.t_mm)
            boards = np.concatenate([np.array([rotvec(r) for r in turns]).reshape(-1, 3), places], axis=1)
        return self.replace(
            cameras=cameras,
            reference=camera,
            boards=boards,
            covariance=None if self.covariance is None else by_pose @ self.covariance @ by_pose.T,
        )


def rotvec(matrix: Float) -> Vector:
    """Rotation vector of a rotation matrix, rad."""
    from scipy.spatial.transform import Rotation

    x, y, z = Rotation.from_matrix(matrix).as_rotvec().tolist()
    return x, y, z


def turned_deg(matrix: Float) -> float:
    """Angle of a rotation matrix, degrees, exact for small ones."""
    return float(np.degrees(np.linalg.norm(rotvec(matrix))))


def _axis(matrix: Float) -> Float:
    vector = np.asarray(rotvec(matrix))
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else np.zeros(3)
