"""The loop that takes a plan's shots with open devices."""

from collections.abc import Generator, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from capture.devices import DeviceError, Devices, Identified, StrobedLight
from capture.plan import CapturePlan, Shot
from capture.runner.check import unknown_name
from capture.runner.control import RunControl, exit_on_sigterm
from capture.runner.grouping import groups
from capture.runner.lighting import Lighting
from capture.runner.progress import Progress, RunEvent
from capture.runner.quality import QualityCheck
from capture.runner.settings import RunSettings
from capture.runner.take import Taker
from capture.runner.watch import Watch
from capture.session import Note, RunRecord, Session, SessionError, now


def run(
    plan: CapturePlan,
    devices: Devices,
    session: Session,
    *,
    control: RunControl | None = None,
    settings: RunSettings | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Generator[RunEvent]:
    """Take what is pending of a session, yielding an event as each shot reaches the disk.

    Consume inside ``contextlib.closing``: stopping early is part of the contract. However the run ends
    (return, error, closing, Ctrl-C, SIGTERM), every light is turned dark, every frame taken is written, and
    the session can be resumed; the journal says when and why it ended. Lights burn while the consumer holds
    an event: be quick, or pause it by ``control``.

    Where camera and lights can (see `capture.runner.grouping`), shots under different lights are taken as one
    hardware-timed sequence, in parts. Its frames are matched to its lights by number, count and time; where
    that leaves a doubt, all are taken again. A part that is stopped early is given up.

    A shot whose frame is lost, late, stale, taken with other settings or fails the plan's ``quality`` is
    tried again, ``settings.retries`` times, then recorded as skipped. A resumed run tries skipped shots
    again, in the plan's order with the rest, and holds frames against those that earlier runs have kept. When
    all shots are settled the session is finished. A light's own waits are its driver's to bound.

    Parameters
    ----------
    plan : CapturePlan
        What to take; must be the session's.
    devices : Devices
        Open devices of the rig.
    session : Session
        Where to.
    control : RunControl, optional
        Pauses and cancels; a cancelled run returns.
    settings : RunSettings, optional
        How the run behaves.
    facts : mapping, optional
        Whatever else is known of this run, as JSON values; the journal has it.

    Raises
    ------
    SessionError
        The session is of another plan, is being written by another process, or the disk fails.
    DeviceLost
        A device is gone, or was not ready for ``settings.patience_s``.
    DeviceError
        An unknown device is asked for; or, at the end, a light could not be turned dark.
    """
    session.refuse_other(plan)
    pending = session.pending()
    for shot in pending:
        if shot.camera not in devices.cameras:
            raise DeviceError(shot.camera, unknown_name("camera", shot.camera, devices.cameras))
        for name in shot.lights:
            if name not in devices.lights:
                raise DeviceError(name, unknown_name("light", name, devices.lights))
            if shot.strobe is not None and not isinstance(devices.lights[name], StrobedLight):
                raise DeviceError(name, "the plan strobes it, and its driver has no strobe")
    return _run(
        plan, devices, session, pending, control or RunControl(), settings or RunSettings(), dict(facts or {})
    )


def _run(
    plan: CapturePlan,
    devices: Devices,
    session: Session,
    pending: tuple[Shot, ...],
    control: RunControl,
    settings: RunSettings,
    facts: dict[str, Any],
) -> Generator[RunEvent]:
    if not pending:
        session.finish()
        return
    watches = {name: Watch(camera, settings.exposure_tolerance) for name, camera in devices.cameras.items()}
    with exit_on_sigterm(), session.writer(compress=settings.compress) as writer:
        pending = session.pending()  # another process may have gone on since
        writer.note(_beginning(pending, devices, settings, facts))
        progress = Progress(pending, devices, total=len(plan.shots()))
        quality = _gate(plan, session, pending)
        try:
            with Lighting(devices.lights) as lighting:
                taker = Taker(writer, lighting, devices.operator, quality, control, progress, settings)
                complete = yield from _take_all(plan, pending, devices, watches, taker)
        except BaseException as error:
            with suppress(SessionError):  # told by the error itself, or by leaving the writer
                writer.note(Note(kind="end", at=now(), text=_ending(error)))
            raise
        writer.note(Note(kind="end", at=now(), text="all shots are settled" if complete else "cancelled"))
        writer.flush()
    if complete:
        session.finish()
    yield from progress.events(writer)


def _take_all(
    plan: CapturePlan,
    pending: tuple[Shot, ...],
    devices: Devices,
    watches: Mapping[str, Watch],
    taker: Taker,
) -> Generator[RunEvent, None, bool]:
    """Settle every shot, pose by pose; False when cancelled before."""
    last = {shot.pose: shot.index for shot in pending}
    pose: str | None = None
    for group in groups(pending, devices):
        first = group.shots[0]
        if first.pose != pose:
            pose = first.pose
            taker.show(pose, plan.prompt(pose))
        watch = watches[first.camera]
        if group.sequencer is None:
            taking = taker.take(group.shots, watch)
        else:
            taking = taker.take_sequence(group.shots, watch, group.sequencer)
        if not (yield from taking):
            return False
        if group.shots[-1].index == last[pose]:
            taker.leave(pose)
    return True


def _gate(plan: CapturePlan, session: Session, pending: tuple[Shot, ...]) -> QualityCheck | None:
    """The gate of the plan, with what earlier runs have seen of the poses that are gone on with."""
    if plan.quality is None:
        return None
    gate = QualityCheck(plan.quality, plan.shots())
    views = {(shot.camera, shot.pose) for shot in pending}
    for camera in dict.fromkeys(camera for camera, _ in views):
        stack = session.stack(camera)
        for number, record in enumerate(stack.records):
            if (camera, record.shot.pose) in views:
                gate.recall(record.frame(stack[number]), record.shot)
    return gate


def _beginning(
    pending: tuple[Shot, ...], devices: Devices, settings: RunSettings, facts: dict[str, Any]
) -> RunRecord:
    identities: dict[str, dict[str, str]] = {}
    for name, device in {**devices.cameras, **devices.lights}.items():
        with suppress(DeviceError):  # one that is lost is told by what is asked of it next
            if isinstance(device, Identified) and (identity := dict(device.identity)):
                identities[name] = identity
    return RunRecord(
        at=now(),
        version=version("gnomon"),
        shots=len(pending),
        settings=settings.model_dump(mode="json"),
        devices=identities,
        facts=facts,
    )


def _ending(error: BaseException) -> str:
    """How a run ended, in one line."""
    if isinstance(error, GeneratorExit):
        return "stopped"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return "ended by the system"
    return " ".join(str(error).split()) or type(error).__name__
