"""The loop that takes a plan's shots with open devices."""

from collections.abc import Generator

from capture.devices import DeviceError, Devices, StrobedLight
from capture.plan import CapturePlan, Shot
from capture.runner.check import unknown_name
from capture.runner.control import RunControl, exit_on_sigterm
from capture.runner.grouping import groups
from capture.runner.lighting import Lighting
from capture.runner.progress import Progress, RunEvent
from capture.runner.quality import QualityCheck
from capture.runner.take import Taker
from capture.runner.watch import Watch
from capture.session import Session


def run(
    plan: CapturePlan,
    devices: Devices,
    session: Session,
    *,
    control: RunControl | None = None,
    retries: int = 2,
    exposure_tolerance: float = 0.01,
    held_bytes: int = 256 * 2**20,
    compress: bool = False,
    patience_s: float = 10.0,
) -> Generator[RunEvent]:
    """Take what is pending of a session, yielding an event as each shot reaches the disk.

    Consume inside ``contextlib.closing``: stopping early is part of the contract. However the run ends
    (return, error, closing, Ctrl-C, SIGTERM), every light is turned dark, every frame taken is written, and
    the session can be resumed. Lights burn while the consumer holds an event: be quick, or pause it by
    ``control``.

    Where camera and lights can (see `capture.runner.grouping`), shots under different lights are taken as one
    hardware-timed sequence, in parts. Its frames are matched to its lights by number, count and time; where
    that leaves a doubt, all are taken again. A part that is stopped early is given up.

    A shot whose frame is lost, late, stale, taken with other settings or fails the plan's ``quality`` is
    tried again, ``retries`` times, then recorded as skipped. A resumed run tries skipped shots again, in the
    plan's order with the rest. When all shots are settled the session is finished. A light's own waits are
    its driver's to bound.

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
    retries : int
        How often a failed shot is tried again.
    exposure_tolerance : float
        Largest relative difference of reported and requested exposure.
    held_bytes : int
        Most pixels of a hardware-timed sequence: they wait until the count of its exposures has been checked.
    compress : bool
        Write frames compressed, without loss.
    patience_s : float
        How long a device that is not ready (an open door, heat) is waited for, in the dark.

    Raises
    ------
    SessionError
        The session is of another plan, is being written by another process, or the disk fails.
    DeviceLost
        A device is gone, or was not ready for ``patience_s``.
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
        plan,
        devices,
        session,
        pending,
        control or RunControl(),
        retries=retries,
        exposure_tolerance=exposure_tolerance,
        held_bytes=held_bytes,
        compress=compress,
        patience_s=patience_s,
    )


def _run(
    plan: CapturePlan,
    devices: Devices,
    session: Session,
    pending: tuple[Shot, ...],
    control: RunControl,
    *,
    retries: int,
    exposure_tolerance: float,
    held_bytes: int,
    compress: bool,
    patience_s: float,
) -> Generator[RunEvent]:
    if not pending:
        session.finish()
        return
    watches = {name: Watch(camera, exposure_tolerance) for name, camera in devices.cameras.items()}
    complete = False
    with exit_on_sigterm(), session.writer(compress=compress) as writer, Lighting(devices.lights) as lighting:
        pending = session.pending()  # another process may have gone on since
        progress = Progress(pending, devices, total=len(plan.shots()))
        quality = None if plan.quality is None else QualityCheck(plan.quality, plan.shots())
        taker = Taker(
            writer,
            lighting,
            quality,
            control,
            progress,
            retries=retries,
            held_bytes=held_bytes,
            patience_s=patience_s,
        )
        pose: str | None = None
        for group in groups(pending, devices):
            first = group.shots[0]
            if first.pose != pose:
                pose = first.pose
                lighting.dark()
                with progress.idle():
                    devices.operator.show(pose, plan.prompt(pose))
            watch = watches[first.camera]
            if group.sequencer is None:
                taking = taker.take(group.shots, watch)
            else:
                taking = taker.take_sequence(group.shots, watch, group.sequencer)
            if not (yield from taking):
                break
        else:
            complete = True
        writer.flush()
    if complete:
        session.finish()
    yield from progress.events(writer)
