"""A session's frames merged to radiance, light by light."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.lens import LensModel
from calibration.progress import Track, silent
from calibration.provenance import FitError, Provenance
from calibration.radiometric import Radiance, RadiometricModel, demosaic
from calibration.radiometric import merge as merge_frames
from calibration.radiometric.checks import clipped_shares
from calibration.targets.boards import Board, BoardView, NoBoard, detect_board
from capture.frame import format_bits, format_cfa
from capture.session import FrameRecord, Session, Stack
from rigs.workflows.encoding import Doubt
from rigs.workflows.evidence import (
    CLIPPED,
    Clipped,
    by_exposure,
    clipping_texts,
    refuse_nonlinear,
    signal_of,
    strangers,
)

Image = NDArray[np.float32]
Key = TypeVar("Key")
_MOST_DARKS = 8


def stack_of(session: Session, camera: str | None) -> Stack:
    """Frames of one camera; its name may be left out where the session has only one.

    Raises
    ------
    FitError
        The session is not complete, has no frames, a frame without a positive exposure, or the camera is not
        told or not there.
    """
    if not session.done:
        missing, total = len(session.pending()), len(session.plan.shots())
        raise FitError(
            f"{session.path}: {missing} of {total} shots have no frame yet: complete it with "
            "`gnomon capture RIG SESSION --resume`"
        )
    cameras = sorted({record.shot.camera for record in session.frames})
    if not cameras:
        raise FitError(f"{session.path}: has no frames")
    if camera is None and len(cameras) > 1:
        raise FitError(f"{session.path}: has cameras {', '.join(cameras)}: say which with --camera")
    if camera is not None and camera not in cameras:
        raise FitError(f"{session.path}: no frames of camera {camera!r}; it has {', '.join(cameras)}")
    stack = session.stack(camera or cameras[0])
    for record in stack.records:
        if not (record.exposure_s > 0 and np.isfinite(record.exposure_s)):
            raise FitError(
                f"{session.path}: {record.file} has exposure {record.exposure_s:g} s: want a positive number"
            )
    return stack


def only_camera(session: Session, kind: str) -> str | None:
    """The camera that alone of several has frames of ``kind``; None where there is no such one."""
    cameras = {record.shot.camera for record in session.frames if kind in record.shot.kinds}
    return cameras.pop() if len(cameras) == 1 else None


def of_kind(session: Session, camera: str | None, kind: str, pose: str | None = None) -> Stack:
    """Frames that may serve as ``kind``, of one pose if given; FitError where there are none."""
    stack = stack_of(session, camera).select(kind=kind)
    if not len(stack):
        raise FitError(f"{session.path}: has no {kind!r} frames")
    poses = tuple(dict.fromkeys(stack.poses))
    if pose is not None:
        if pose not in poses:
            raise FitError(f"{session.path}: no {kind!r} frames of pose {pose!r}; it has {', '.join(poses)}")
        stack = stack.select(pose=pose)
    return stack


def provenance_of(session: Session, **options: str | float | int | bool) -> Provenance:
    """Provenance of what is made of ``session`` with these options."""
    from importlib.metadata import version

    return Provenance(session=session.digest, code_version=version("gnomon"), options=options)


def sensor_for(session: Session, stack: Stack, sensor: RadiometricModel | None) -> RadiometricModel:
    """``sensor``, or the nominal model of these frames; FitError where size or format are not theirs.

    The nominal model saturates at the ceiling that the import found in the camera's frames, has its full
    well there or at the bits that they use, and takes its black level from the session's ``dark`` frames
    where there are any.
    """
    if sensor is None:
        camera = stack.records[0].shot.camera
        ceiling = session.facts.get("saturation_dn", {}).get(camera)
        darks = session.stack(camera).select(kind="dark")[:_MOST_DARKS]
        means = [float(np.asarray(frame, np.float64).mean()) for frame in darks]
        black = float(np.mean(means)) if means and format_bits(stack.pixel_format) else 0.0
        shape = stack.shape[1:]
        bits = format_bits(stack.pixel_format)
        if bits is not None and black >= (2**bits - 1 if ceiling is None else ceiling):
            raise FitError(f"{session.path}: the dark frames are saturated ({black:g} DN): was the cap on?")
        used = session.facts.get("sample_bits", {}).get(camera)
        return RadiometricModel.nominal(
            stack.pixel_format,
            shape,
            black_dn=black,
            saturation_dn=ceiling,
            full_scale_dn=2.0**used - 1 if used and ceiling is None and 2**used - 1 > black else None,
        )
    if sensor.shape != stack.shape[1:]:
        raise FitError(
            f"sensor model is for frames of {sensor.shape}, these are {stack.shape[1:]} (rows, columns)"
        )
    if sensor.pixel_format != stack.pixel_format:
        raise FitError(f"sensor model is for {sensor.pixel_format}, the frames are {stack.pixel_format}")
    return sensor


def check_lens(lens: LensModel | None, shape: tuple[int, ...]) -> None:
    """Raise FitError where the lens model is of other frames than these (rows, columns)."""
    if lens is not None and (lens.height, lens.width) != shape:
        raise FitError(
            f"lens model is for {lens.width} x {lens.height} px, the frames are {shape[1]} x {shape[0]}"
        )


def merged_of(stack: Stack, sensor: RadiometricModel, background: Radiance | None = None) -> Radiance:
    """Radiance of one view from all its exposures, demosaiced where it is a mosaic."""
    radiance = merge_frames(stack, stack.exposure_s, sensor, background=background)
    cfa = format_cfa(stack.pixel_format)
    return radiance if cfa is None else demosaic(radiance, cfa, defects=sensor.defects)


def still_views(stack: Stack) -> Iterator[tuple[str, int | None, Stack]]:
    """Yield pose, place within it and frames of each view.

    Frames of one pose are one view, whose place is None, unless they repeat each other: then each is one.
    """
    for pose in dict.fromkeys(stack.poses):
        group = stack.select(pose=pose)
        keys = [(r.shot.light, r.exposure_s, r.shot.repeat) for r in group.records]
        if len(set(keys)) == len(keys):
            yield pose, None, group
        else:
            yield from ((pose, i, group[i : i + 1]) for i in range(len(keys)))


def board_in(stack: Stack, sensor: RadiometricModel, board: Board) -> BoardView | NoBoard:
    """Find the board in one view; frames that cannot be merged, without a valid pixel say, show none."""
    try:
        return detect_board(gray(merged_of(stack, sensor).value), board)
    except FitError as error:
        return NoBoard(str(error))


def taken_again(views: Iterable[tuple[Key, BoardView]]) -> dict[Key, Key]:
    """Views that are a copy of another's picture, each with the first one of it.

    Two exposures never give the same points to the last bit: the noise differs. A copy tells nothing new, and
    counted again it would make a fit surer than it is.
    """
    first: dict[tuple[bytes, bytes], Key] = {}
    again: dict[Key, Key] = {}
    for key, view in views:
        known = first.setdefault((view.ids.tobytes(), view.pixels.tobytes()), key)
        if known != key:
            again[key] = known
    return again


def told_once(again: Iterable[tuple[str, str]]) -> str:
    """The warning of names that ``taken_again`` found."""
    pairs = "; ".join(f"{first} and {name}" for name, first in again)
    return f"{pairs}: the same picture, counted once"


def background_of(
    session: Session, camera: str | None, pose: str, sensor: RadiometricModel
) -> Radiance | None:
    """Light that is there with every lamp dark, where the session has ``ambient`` frames of this pose."""
    stack = stack_of(session, camera).select(kind="ambient", pose=pose)
    return merge_frames(stack, stack.exposure_s, sensor) if len(stack) else None


def _pedestal(session: Session, stack: Stack, sensor: RadiometricModel | None) -> tuple[Stack | None, str]:
    """Ambient frames to take off frame by frame, and a warning, where nobody knows the black level.

    Merged apart, the black level would be divided by other exposures in the ambient than in the lit frames
    and would not cancel. Where all frames have one exposure, it does.
    """
    camera = stack.records[0].shot.camera
    ambient = session.stack(camera).select(kind="ambient", pose=stack.poses[0])
    told = {*stack.exposure_s.tolist(), *ambient.exposure_s.tolist()}
    known = sensor is not None or format_bits(stack.pixel_format) is None
    if known or not len(ambient) or len(told) == 1 or len(session.stack(camera).select(kind="dark")):
        return None, ""
    if set(stack.exposure_s.tolist()) <= set(ambient.exposure_s.tolist()):
        return ambient, ""
    return None, (
        "ambient frames of other exposures than the lit ones, and neither a sensor model nor dark frames: "
        "the black level stays in; take ambient frames at the same exposures, or darks"
    )


def _merged_above(stack: Stack, ambient: Stack, sensor: RadiometricModel) -> Radiance:
    """Merge of frames less the mean ambient frame of the same exposure, which holds the black level too."""
    frames = []
    for frame, seconds in zip(stack, stack.exposure_s, strict=True):
        dark = [np.asarray(ambient[int(i)]) for i in np.flatnonzero(ambient.exposure_s == seconds)]
        image = np.asarray(frame, np.float32) - np.mean(dark, axis=0, dtype=np.float32)
        cut_off = np.maximum(np.asarray(frame), np.maximum.reduce(dark)) >= sensor.saturation_dn
        frames.append(np.where(cut_off, np.float32(np.nan), image))
    noise = merge_frames(ambient, ambient.exposure_s, sensor)
    nothing = Radiance(np.zeros_like(noise.value), noise.variance)
    radiance = merge_frames(frames, stack.exposure_s, sensor.replace(black_dn=0.0), background=nothing)
    cfa = format_cfa(stack.pixel_format)
    return radiance if cfa is None else demosaic(radiance, cfa, defects=sensor.defects)


class LightImages(NamedTuple):
    """Merged radiance under each light in turn, background removed.

    ``names`` (n,); ``value``, ``variance`` (n, h, w[, 3]) float32, e-/s, NaN where no sample is valid.
    ``doubts``: what is saturated in every exposure; a black level that nothing tells; one picture under two
    lights. ``remarks``: how many frames of one exposure were averaged.
    """

    names: tuple[str, ...]
    value: Image
    variance: Image
    doubts: tuple[Doubt, ...] = ()
    remarks: tuple[str, ...] = ()


def light_images(
    session: Session,
    kind: str,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    pose: str | None = None,
    track: Track = silent,
) -> LightImages:
    """Merge the frames of ``kind`` light by light.

    Raises
    ------
    FitError
        No such frames, several poses and none chosen, or no frame with a light; ``object`` frames that are
        clearly not linear; one light with two different pictures, or one picture under all lights.
    """
    stack = of_kind(session, camera, kind, pose)
    poses = tuple(dict.fromkeys(stack.poses))
    if len(poses) > 1:
        raise FitError(f"{session.path}: {kind!r} frames of poses {', '.join(poses)}: say which with --pose")
    model = sensor_for(session, stack, sensor)
    names = tuple(name for name in dict.fromkeys(stack.lights) if name)
    if not names:
        raise FitError(f"{session.path}: no {kind!r} frame has a light")
    if kind == "object":
        refuse_nonlinear(session, stack, model, sensor, "photometric stereo")
    copies = _copies(stack, names)
    if len(copies) == len(names) - 1 > 0:
        raise FitError(f"{session.path}: the pictures under all {len(names)} lights are one and the same")
    remarks = _averaged(session, stack, model, names, measured=sensor is not None)
    pedestal, warning = _pedestal(session, stack, sensor)
    background = None if pedestal is not None else background_of(session, camera, poses[0], model)
    value: Image | None = None
    for index, name in enumerate(track(names, "merging exposures")):
        lit = stack.select(light=name)
        merged = (
            merged_of(lit, model, background) if pedestal is None else _merged_above(lit, pedestal, model)
        )
        if value is None:
            value = np.empty((len(names), *merged.value.shape), np.float32)
            variance = np.empty_like(value)
        value[index], variance[index] = merged
    assert value is not None
    doubts = (
        *((Doubt(warning),) if warning else ()),
        *(
            Doubt(f"lights {first} and {again}: the same picture: one of the two is missing", wrong=True)
            for first, again in copies
        ),
        *map(Doubt, _clipping(names, value)),
    )
    return LightImages(names, value, variance, doubts, remarks)


def _copies(stack: Stack, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Lights whose frames are those of another one to the last bit, after the first that has them.

    Two exposures never are: the noise differs. Frames without any light in them may be.
    """
    first: dict[str, str] = {}
    again: dict[str, str] = {}
    for index, record in enumerate(stack.records):
        name = record.shot.light
        known = first.setdefault(record.sha256, name)
        if known != name and name in names and name not in again and np.ptp(np.asarray(stack[index])) > 0:
            again[name] = known
    return tuple((known, name) for name, known in again.items())


def _averaged(
    session: Session, stack: Stack, model: RadiometricModel, names: Sequence[str], *, measured: bool
) -> tuple[str, ...]:
    """How many frames of one light and exposure there are, where there are several.

    Raises
    ------
    FitError
        They show two different pictures.
    """
    several: dict[int, list[str]] = {}
    for name in names:
        most = 1
        lit = stack.select(light=name)
        for gain in sorted(set(lit.gain_db.tolist())):
            alike = [i for i, record in enumerate(lit.records) if record.gain_db == gain]
            times = [lit.records[i].exposure_s for i in alike]
            if len(set(times)) == len(times):
                continue
            frames = [signal_of(lit[i], lit.records[i], model, measured=measured) for i in alike]
            for one, two in strangers(frames):
                raise FitError(
                    f"{session.path}: light {name} has two different pictures of one exposure, "
                    f"{_told(session, one)} and {_told(session, two)}: give each light a name of its own, or "
                    "leave out the wrong one"
                )
            most = max(most, *map(len, by_exposure(frames).values()))
        if most > 1:
            several.setdefault(most, []).append(name)
    return tuple(
        f"{count} frames of one exposure averaged under "
        + (f"each of {len(named)} lights" if len(named) > 3 else ", ".join(named))
        for count, named in sorted(several.items())
    )


def _told(session: Session, record: FrameRecord) -> str:
    """File of a frame, and that of the picture that it was imported from."""
    sources = session.facts.get("files", ())
    index = record.shot.index
    return f"{record.file} ({sources[index]})" if index < len(sources) else record.file


def _clipping(names: tuple[str, ...], value: Image) -> tuple[str, ...]:
    """Warnings of what is missing under some lights only: saturated in every exposure, hence no defect."""
    missing = [np.count_nonzero(np.isnan(image)) for image in value]
    if max(missing) - min(missing) < CLIPPED * value[0].size / 3:
        return ()
    always = np.logical_and.reduce([np.isnan(image) for image in value])
    return clipping_texts(
        Clipped(name, *clipped_shares(np.isnan(image) & ~always))
        for name, image in zip(names, value, strict=True)
    )


def gray(image: Image) -> Image:
    """Mean over colour channels, ``(..., h, w[, 3]) -> (..., h, w)``; NaN where a channel is."""
    return image if image.shape[-1] != 3 else np.asarray(image.mean(axis=-1), np.float32)
