"""Several cameras from one session: their poses in one metric frame, and which of them has moved since."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from calibration.cameras import CameraSet, Change, Motion, find_moved, fit_cameras
from calibration.cameras.fit import FoundKind, Intrinsics
from calibration.cameras.turns import turns_of
from calibration.geometry import rotation
from calibration.lens import LensModel
from calibration.lights.model import LightSet
from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.targets.boards import Board, BoardView, NoBoard, is_placed
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.frames import (
    board_in,
    check_lens,
    of_kind,
    provenance_of,
    sensor_for,
    still_views,
    taken_again,
    told_once,
)

_NAMED = 6


class BoardFrames(NamedTuple):
    """Boards found in a session.

    Attributes
    ----------
    views : dict of (frame, camera) -> BoardView
    sizes : dict of camera -> (width, height)
    warnings : tuple of str
        Where there was none, what was the same picture twice, and how frames were paired.
    """

    views: dict[tuple[str, str], BoardView]
    sizes: dict[str, tuple[int, int]]
    warnings: tuple[str, ...]


def board_frames(
    session: Session,
    board: Board,
    *,
    sensors: Mapping[str, RadiometricModel] | None = None,
    track: Track = silent,
) -> BoardFrames:
    """Find the board in the ``board`` frames of every camera; what shares a pose's name is one frame.

    A picture that a camera gave twice counts in the first frame of it only.
    Where no two cameras share a name, frames are paired by the last number in their names.

    Raises
    ------
    FitError
        No ``board`` frames, or no board in any of them.
    """
    cameras = sorted({record.shot.camera for record in session.frames if "board" in record.shot.kinds})
    if not cameras:
        raise FitError(f"{session.path}: has no 'board' frames")
    sizes: dict[str, tuple[int, int]] = {}
    pictures: list[tuple[str, str, Stack, RadiometricModel]] = []
    for camera in cameras:
        stack = of_kind(session, camera, "board")
        height, width = stack.shape[1:3]
        sizes[camera] = width, height
        sensor = sensor_for(session, stack, (sensors or {}).get(camera))
        pictures += [(frame, camera, part, sensor) for frame, part in _frames(stack)]
    names = paired({(frame, camera) for frame, camera, *_ in pictures}, len(cameras))
    views: dict[tuple[str, str], BoardView] = {}
    missed: dict[str, list[str]] = {}
    for frame, camera, part, sensor in track(pictures, "finding boards"):
        found = board_in(part, sensor, board)
        if isinstance(found, BoardView) and not is_placed(board, found):
            found = NoBoard("only a part is seen, and a plain checkerboard does not say which")
        if isinstance(found, NoBoard):
            missed.setdefault(camera, []).append(f"{frame} ({found.reason})")
        else:
            views[names[frame, camera], camera] = found
    if not views:
        first = next(iter(missed.values()))[0]
        raise FitError(f"{session.path}: the board was found in none of {len(pictures)} frames: {first}")
    warnings = [
        f"camera {camera}: board not found in {len(frames)} frames: {', '.join(frames[:_NAMED])}"
        f"{', ...' if len(frames) > _NAMED else ''}"
        for camera, frames in sorted(missed.items())
    ]
    for camera in cameras:
        # What a camera gave again is of the earlier frame, whatever the others saw meanwhile.
        again = taken_again((key, view) for key, view in views.items() if key[1] == camera)
        if again:
            copies = told_once((key[0], first[0]) for key, first in again.items())
            warnings.append(f"camera {camera}: {copies}")
            views = {key: view for key, view in views.items() if key not in again}
    if any(names[key] != key[0] for key in names):
        warnings.insert(0, "no two cameras share a pose: frames were paired by the numbers in their names")
    return BoardFrames(views, sizes, tuple(warnings))


def calibrate_cameras(
    session: Session,
    board: Board,
    lenses: Mapping[str, LensModel],
    *,
    sensors: Mapping[str, RadiometricModel] | None = None,
    intrinsics: Intrinsics = "fixed",
    reference: str | None = None,
    known: Mapping[tuple[str, str], Motion] | None = None,
    model: FoundKind = "auto",
    warp: bool = False,
    track: Track = silent,
) -> CameraSet:
    """Cameras of a rig from the session's ``board`` frames.

    Parameters
    ----------
    board : Board
        As printed.
    lenses : mapping of camera -> LensModel
        Those that are known; that of any other camera is found from the same frames.
    sensors : mapping of camera -> RadiometricModel, optional
    intrinsics, reference, known, model, warp
        As in ``fit_cameras``.

    Raises
    ------
    FitError
        A lens of another size, no board, or cameras that nothing links.
    """
    found = board_frames(session, board, sensors=sensors, track=track)
    cameras = {camera for _, camera in found.views} | set(found.sizes)
    for camera in sorted(cameras & set(lenses)):
        width, height = found.sizes[camera]
        check_lens(lenses[camera], (height, width))
    rig = fit_cameras(
        found.views,
        {camera: lenses.get(camera, found.sizes[camera]) for camera in cameras},
        intrinsics=intrinsics,
        reference=reference,
        known=known,
        turns=turns_of(board),
        model=model,
        warp=warp,
        provenance=provenance_of(session, board=board.kind, intrinsics=intrinsics),
    )
    assert rig.quality is not None
    told = (*found.warnings, *rig.quality.warnings)
    return rig.replace(quality=rig.quality.replace(warnings=told))


def check_cameras(
    session: Session,
    board: Board,
    cameras: CameraSet,
    *,
    sensors: Mapping[str, RadiometricModel] | None = None,
    track: Track = silent,
) -> tuple[Change, ...]:
    """What has become of each camera of a calibrated rig, by the ``board`` frames of a later session."""
    found = board_frames(session, board, sensors=sensors, track=track)
    for camera in sorted(set(found.sizes) & set(cameras.cameras)):
        width, height = found.sizes[camera]
        check_lens(cameras.cameras[camera].lens, (height, width))
    return find_moved(cameras, found.views, turns=turns_of(board))


def parse_known(text: str) -> tuple[tuple[str, str], Motion]:
    """``'A,B=RX,RY,RZ,TX,TY,TZ'``: cameras, rotation vector in degrees, translation in mm (b_from_a)."""
    names, _, numbers = text.partition("=")
    try:
        a, b = (name.strip() for name in names.split(","))
        values = np.array([float(number) for number in numbers.split(",")])
        if len(values) != 6 or not np.isfinite(values).all() or not a or not b:
            raise ValueError
    except ValueError:
        raise ConfigError(f"known {text!r}: want A,B=RX,RY,RZ,TX,TY,TZ in degrees and mm") from None
    return (a, b), Motion(rotation(np.radians(values[:3])), values[3:])


def describe_cameras(cameras: CameraSet) -> Iterator[str]:
    """One line a camera: where it stands against the reference, and how sure that is."""
    for name in cameras.cameras:
        if name != cameras.reference:
            pose = cameras.relative(cameras.reference, name)
            yield (
                f"{name} from {cameras.reference}: {pose.baseline_mm:.3f} mm "
                f"(sigma {pose.baseline_sigma_mm:.3f}), turned {pose.angle_deg:.4f} deg "
                f"(sigma {pose.angle_sigma_deg:.4f})"
            )


def lights_seen_from(cameras: CameraSet, lights: LightSet, camera: str, to: str) -> LightSet:
    """Lights that were calibrated with one camera, in the frame of another.

    The rig's frame is that of its reference camera, so lights moved to it stand in one metric frame with all
    cameras and boards.

    Raises
    ------
    FitError
        No such camera.
    """
    for name in (camera, to):
        if name not in cameras.cameras:
            raise FitError(f"no camera {name!r}: the rig has {', '.join(cameras.cameras)}")
    pose = cameras.relative(camera, to)
    return lights.moved(pose.rotation, pose.t_mm, pose.covariance)


def _frames(stack: Stack) -> list[tuple[str, Stack]]:
    """Views by pose, those of one pose numbered."""
    return [(pose if i is None else f"{pose} {i + 1}", part) for pose, i, part in still_views(stack)]


def paired(keys: set[tuple[str, str]], cameras: int) -> dict[tuple[str, str], str]:
    """Name of the common frame of each (frame, camera): its own, or the number in it that cameras share."""
    own = {key: key[0] for key in keys}
    if cameras < 2 or len({frame for frame, _ in keys}) < len(keys):
        return own
    numbers = {key: _last_number(key[0]) for key in keys}
    unique = {(number, camera) for (_, camera), number in numbers.items()}
    shared = len({number for number in numbers.values()}) < len(keys)
    if "" in numbers.values() or len(unique) < len(keys) or not shared:
        return own
    return numbers


def _last_number(name: str) -> str:
    found: list[Any] = re.findall(r"\d+", re.sub(r"\.\w+$", "", name))
    return str(int(found[-1])) if found else ""
