"""Which camera has moved, or has had its lens touched, since the rig was calibrated."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from calibration.cameras.consensus import largest_group
from calibration.cameras.fit import fit_cameras
from calibration.cameras.linking import Motion
from calibration.cameras.model import CameraSet, Relative, rotvec
from calibration.geometry import cross_matrix, rotation
from calibration.lens.bundle import Corners, Free, Prior, State, solve
from calibration.lens.fit import View, fit_pose
from calibration.lens.model import LensModel
from calibration.provenance import FitError

# Chi-squared per degree of freedom beyond which a change is no noise.
_SURE = 9.0
_SCALE_SIGMAS = 4.0
_LENS_PX = 3.0  # a lens model that is not quite right takes other values on other boards


class Change(NamedTuple):
    """What has become of one camera.

    Attributes
    ----------
    camera : str
    kind : 'still', 'moved', 'lens', 'unknown'
        'lens': its focal length or principal point is another. 'unknown': no board was seen, or nobody can
        say which of the cameras it is.
    motion : Relative or None
        Camera then to camera now, in its own frame (now_from_then), against those that stand still.
    focal_percent, focal_sigma_percent : float
        Change of the focal length; NaN where it was not asked.
    px : float
        How far it shows in the picture, rms over the corners.
    against : str
        The camera that ``motion`` is measured against, where nobody knows which of the two moved.
    """

    camera: str
    kind: Literal["still", "moved", "lens", "unknown"]
    motion: Relative | None = None
    focal_percent: float = float("nan")
    focal_sigma_percent: float = float("nan")
    px: float = 0.0
    against: str = ""

    @property
    def text(self) -> str:
        """One sentence for the operator."""
        if self.kind == "lens":
            off = "" if self.motion is None else f"; it also turned {_number(self.motion.angle_deg)}°"
            return (
                f"camera {self.camera}: its lens was touched since the calibration: focal length "
                f"{self.focal_percent:+.2f} % (sigma {self.focal_sigma_percent:.2g} %), {self.px:.1f} px{off}"
            )
        if self.motion is None:
            return f"camera {self.camera}: cannot be told: show the board to it and to others at once"
        turned = f"turned {_number(self.motion.angle_deg)}° (sigma {_number(self.motion.angle_sigma_deg)}°)"
        shifted = (
            f"shifted {_number(self.motion.baseline_mm)} mm "
            f"(sigma {_number(self.motion.baseline_sigma_mm)} mm)"
        )
        if self.kind == "moved":
            return f"camera {self.camera} has {turned} and {shifted} since the calibration, {self.px:.1f} px"
        if self.kind == "unknown":
            return (
                f"camera {self.camera} has {turned} and {shifted} against {self.against} since the "
                f"calibration, {self.px:.1f} px; which of the two moved cannot be told"
            )
        return f"camera {self.camera} stands where it stood"


def find_moved(
    cameras: CameraSet, views: Mapping[tuple[str, str], View], *, turns: Sequence[Motion] = ()
) -> tuple[Change, ...]:
    """Hold new views of a board against a calibrated rig.

    First each lens is asked by the boards that its camera sees: do another focal length and principal point
    explain them better? Then the cameras are fitted anew from the new views, with the calibrated lenses (or
    those just found), and their relative poses compared. The largest group whose poses are as they were
    stands still; the others moved. A change counts that is beyond the noise of both calibrations and moves
    the picture by more than the residuals of the first (a lens: three times as much).

    Parameters
    ----------
    cameras : CameraSet
        As calibrated.
    views : mapping of (frame, camera) -> View
        Of a board, taken now; any board.
    turns : sequence of Motion
        As for ``fit_cameras``.

    Returns
    -------
    tuple of Change
        One a camera, in the order of ``cameras``.

    Raises
    ------
    FitError
        Views of an unknown camera, no views, a fit that fails; or a board of another size than described,
        with the factor: the cameras stand to each other as they did but for one scale.

    Notes
    -----
    With two cameras a motion is seen but not whose it is: both are 'unknown'. With three or more the larger
    group is taken to stand still; of two groups of one size, the one with the reference camera. A board of
    another size than described makes all distances too short or too long alike; that a rig itself has grown
    so (0.02 % for 10 K of aluminium) looks the same.
    """
    strange = sorted({camera for _, camera in views} - set(cameras.cameras))
    if strange:
        raise FitError(f"camera {', '.join(strange)} is none of the calibrated rig's")
    if not views:
        raise FitError("no view of the board: nothing tells whether a camera moved")
    rms = cameras.quality.residual_rms if cameras.quality is not None else 0.0
    touched: dict[str, tuple[LensModel, Change]] = {}
    for name, camera in cameras.cameras.items():
        own = [views[key] for key in sorted(views) if key[1] == name]
        found = _touched(name, camera.lens, own) if own else None
        if found is not None and found[1].px > _LENS_PX * rms:
            touched[name] = found
    seen = _linked(cameras, views)
    comparison = _Comparison(cameras, None, views, rms)
    if len(seen) > 1:
        lenses = {name: touched[name][0] if name in touched else cameras.cameras[name].lens for name in seen}
        base = cameras.reference if cameras.reference in seen else seen[0]
        told = {key: view for key, view in views.items() if key[1] in seen}
        comparison = comparison._replace(now=fit_cameras(told, lenses, reference=base, turns=turns))
        kept = [name for name in seen if name not in touched]
        still = comparison.largest_still(kept)
        misprinted = comparison.another_size(kept, still)
        if misprinted is not None:
            raise FitError(misprinted)
        # Boards that the others hold tell a lens far better than its own views do.
        for name in (name for name in seen if len(still) > 1 and name not in (*still, *touched)):
            now = fit_cameras(told, lenses, reference=still[0], intrinsics={name: "core"}, turns=turns)
            change = _lens_change(name, cameras.cameras[name].lens, now.cameras[name].lens, told)
            if change is not None and change.px > _LENS_PX * rms:
                motion, _, changed = comparison._replace(now=now).motion(still[0], name)
                touched[name] = now.cameras[name].lens, change._replace(motion=motion if changed else None)
    still = comparison.largest_still([name for name in seen if name not in touched])
    return tuple(
        touched[name][1] if name in touched else comparison.judged(name, seen, still)
        for name in cameras.cameras
    )


class _Comparison(NamedTuple):
    """The rig as it was and as it is; the board is ``scale`` times as large as in ``views``."""

    then: CameraSet
    now: CameraSet | None
    views: Mapping[tuple[str, str], View]
    rms_px: float
    scale: float = 1.0

    def judged(self, name: str, seen: Sequence[str], still: Sequence[str]) -> Change:
        """Change of one camera that has kept its lens."""
        if self.now is None or name not in seen:
            return Change(name, "unknown")
        if len(still) > 1:
            base = next(other for other in still if other != name)
            motion, px, _ = self.motion(base, name)
            return Change(name, "still" if name in still else "moved", motion, px=px)
        others = [other for other in seen if other != name]
        base = self.then.reference if self.then.reference in others else others[0]
        motion, px, changed = self.motion(base, name)
        return Change(name, "unknown" if changed else "still", motion, px=px, against=base)

    def largest_still(self, names: Sequence[str]) -> tuple[str, ...]:
        """Most cameras that stand to each other as they did; of two groups the one with the reference."""
        if self.now is None:
            return ()
        same = np.zeros((len(names), len(names)), dtype=bool)
        for i, j in combinations(range(len(names)), 2):
            same[i, j] = same[j, i] = not self.motion(names[i], names[j])[2]
        reference = np.array([name == self.then.reference for name in names])
        return tuple(names[i] for i in largest_group(same, -np.diag(reference.astype(float))))

    def another_size(self, names: Sequence[str], still: Sequence[str]) -> str | None:
        """What to tell where more cameras stand to each other as they did if the board has another size."""
        if self.now is None or len(still) == len(names):
            return None
        rough, _ = self.scale_of(names)
        again, sigma = self._replace(now=_scaled(self.now, rough), scale=rough).scale_of(names)
        scale = rough * again
        if not abs(scale - 1) > _SCALE_SIGMAS * sigma:
            return None
        agreed = self._replace(now=_scaled(self.now, scale), scale=scale).largest_still(names)
        if len(agreed) <= max(len(still), len(names) / 2):
            return None
        digits = int(np.clip(1 - np.floor(np.log10(sigma)), 2, 6))
        told = f"the board is {scale:.{digits}f} times as large as described (sigma {sigma:.1g})"
        if len(agreed) == 2:
            return (
                f"{told}, or {agreed[0]} and {agreed[1]} stand that much farther apart than they did: "
                "measure the board, and correct its size if it is another"
            )
        who = "all cameras" if len(agreed) == len(names) else ", ".join(agreed)
        return f"{told}: with that size {who} stand as they did; correct the board's size"

    def scale_of(self, names: Sequence[str]) -> tuple[float, float]:
        """Size of the board with which the cameras stand to each other as they did, and its sigma.

        Every pair of cameras gives one; the mean is over those that most others agree with, and of these the
        one that it explains best. The pairs share cameras: the sigma is that of the surest pair alone. 1 and
        infinity where no pair tells.
        """
        assert self.now is not None
        values, weights, left = [], [], []
        for one, other in combinations(names, 2):
            found = self.motion(one, other)[0]
            step = np.concatenate([rotvec(found.rotation), found.t_mm])
            grown = np.concatenate([np.zeros(3), self.now.relative(one, other).t_mm])
            information = np.linalg.pinv(found.covariance, rcond=1e-14, hermitian=True)
            square, along = float(grown @ information @ grown), float(grown @ information @ step)
            if square > 0:
                values.append(1 - along / square)
                weights.append(square)
                left.append(float(step @ information @ step) - along**2 / square)
        if not values:
            return 1.0, float("inf")
        value, weight = np.array(values), np.array(weights)
        near = (value[:, None] - value) ** 2 <= _SCALE_SIGMAS**2 * (1 / weight[:, None] + 1 / weight)
        most = near[np.lexsort((left, -near.sum(axis=1)))[0]]
        mean = float(np.average(value[most], weights=weight[most]))
        return mean, float(1 / np.sqrt(weight[most].max()))

    def motion(self, base: str, name: str) -> tuple[Relative, float, bool]:
        """How a camera moved if ``base`` did not, how far it shows in its picture, if that is a change."""
        assert self.now is not None
        then, now = self.then.relative(base, name), self.now.relative(base, name)
        turn = now.rotation @ then.rotation.T
        t_mm = now.t_mm - turn @ then.t_mm
        # Both differ from the truth: what the old one is off moves with the turn.
        carry = np.kron(np.eye(2), turn)
        arm = cross_matrix(now.t_mm - t_mm)
        lever = np.block([[np.eye(3), np.zeros((3, 3))], [arm, np.eye(3)]])
        both = now.covariance + carry @ then.covariance @ carry.T
        covariance = lever @ both @ lever.T
        step = np.concatenate([rotvec(turn), t_mm])
        chi = float(step @ np.linalg.pinv(covariance, rcond=1e-14, hermitian=True) @ step) / 6
        px = self.shown(name, Motion(turn, t_mm))
        return Relative(turn, t_mm, covariance), px, bool(chi > _SURE and px > self.rms_px)

    def shown(self, name: str, motion: Motion) -> float:
        """How far a motion of a camera moves the boards that it sees now, px rms."""
        assert self.now is not None
        camera = self.now.cameras[name]
        place = Motion(camera.rotation, np.asarray(camera.t_mm))
        squares = []
        for (frame, seer), view in self.views.items():
            if seer == name and frame in self.now.frames and self.now.boards is not None:
                pose = self.now.boards[self.now.frames.index(frame)]
                points = (place @ Motion(rotation(pose[:3]), pose[3:])).points(
                    self.scale * np.asarray(view.points_mm)
                )
                before = camera.lens.project(motion.inverse().points(points))
                squares.append(np.sum((camera.lens.project(points) - before) ** 2, axis=1))
        return float(np.sqrt(np.nanmean(np.concatenate(squares)))) if squares else 0.0


def _scaled(cameras: CameraSet, scale: float) -> CameraSet:
    """The same pictures of a board ``scale`` times as large."""
    by = np.tile([1.0, 1.0, 1.0, scale, scale, scale], len(cameras.cameras))
    return cameras.replace(
        cameras={
            name: camera.replace(t_mm=tuple((scale * np.asarray(camera.t_mm)).tolist()))
            for name, camera in cameras.cameras.items()
        },
        boards=None if cameras.boards is None else cameras.boards * by[:6],
        covariance=None if cameras.covariance is None else cameras.covariance * by * by[:, None],
    )


def _linked(cameras: CameraSet, views: Mapping[tuple[str, str], View]) -> list[str]:
    """The largest group of cameras that common frames link; of two the one with the reference."""
    frames = {name: {frame for frame, camera in views if camera == name} for name in cameras.cameras}
    groups: list[set[str]] = []
    for name, own in frames.items():
        joined = {name}.union(*(g for g in groups if any(own & frames[other] for other in g)))
        groups = [g for g in groups if not g & joined] + ([joined] if own else [])
    best = max(groups, key=lambda group: (len(group), cameras.reference in group))
    return [name for name in cameras.cameras if name in best]


def _touched(name: str, lens: LensModel, views: Sequence[View]) -> tuple[LensModel, Change] | None:
    """Lens with the focal lengths and principal point that suit these views; None if it has kept its own."""
    poses, seen = [], []
    for view in views:
        try:
            pose = fit_pose(lens, view.points_mm, view.pixels, sigma_px=view.sigma_px, disc_mm=view.disc_mm)
        except FitError:
            continue
        poses.append(Motion(rotation(pose.rotvec), np.asarray(pose.t_mm)))
        seen.append(view)
    if not seen:
        return None
    sizes = [len(view.pixels) for view in seen]
    corners = Corners(
        np.concatenate([view.points_mm for view in seen]),
        np.concatenate([view.pixels for view in seen]),
        np.concatenate([view.sigma_px for view in seen]),
        np.repeat(np.arange(len(seen)), sizes),
        np.zeros(sum(sizes), np.int64),
        max(view.disc_mm for view in seen),
    )
    core = np.zeros(len(lens.parameters), dtype=bool)
    core[:4] = True
    start = State(
        (lens,), np.eye(3)[None], np.zeros((1, 3)),
        np.array([pose.rotation for pose in poses]), np.array([pose.t for pose in poses]),
    )  # fmt: skip
    # Ten percent and a tenth of the picture: only there so that views that say nothing stay where they are.
    loose = 0.1 * np.array([lens.fx, lens.fy, lens.width, lens.height])
    precision = np.zeros((len(core), len(core)))
    precision[:4, :4] = np.diag(1 / loose**2)
    prior = Prior(precision, lens.parameters)
    try:
        found = solve(start, corners, Free((core,), np.zeros(1, dtype=bool)), priors=(prior,))
    except FitError:
        return None
    lens_now = found.state.lenses[0].replace(
        covariance=found.covariance[found.layout.lens[0], found.layout.lens[0]]
    )
    change = _lens_change(name, lens, lens_now, {(str(k), name): view for k, view in enumerate(seen)})
    return (
        None
        if change is None
        else (lens_now.replace(covariance=lens.covariance, covariance_factor=lens.covariance_factor), change)
    )


def _lens_change(
    name: str, then: LensModel, now: LensModel, views: Mapping[tuple[str, str], View]
) -> Change | None:
    """What has become of focal length and principal point; None where that may be noise."""
    step = now.parameters[:4] - then.parameters[:4]
    covariance = np.zeros((4, 4))
    for lens in (then, now):
        covariance += 0.0 if lens.covariance is None else lens.covariance[:4, :4]
    if float(step @ np.linalg.solve(covariance, step)) / 4 <= _SURE:
        return None
    pixels = np.concatenate([view.pixels for (_, camera), view in views.items() if camera == name])
    moved = (pixels - then.parameters[2:4]) * (step[:2] / then.parameters[:2]) + step[2:]
    return Change(
        name,
        "lens",
        focal_percent=100 * float(step[0]) / then.fx,
        focal_sigma_percent=100 * float(np.sqrt(covariance[0, 0])) / then.fx,
        px=float(np.sqrt(np.mean(np.sum(moved**2, axis=1)))),
    )


def _number(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.1f}"
