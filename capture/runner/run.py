"""The loop that takes a plan's shots with open devices."""

import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

from capture.devices import (
    Camera,
    DeviceError,
    DeviceLost,
    Devices,
    FrameLost,
    Sequencer,
    StrobedLight,
    TriggeredCamera,
)
from capture.frame import Frame
from capture.plan import CapturePlan, Shot
from capture.runner.check import frame_bytes, shot_seconds, unknown_name
from capture.runner.control import RunControl, exit_on_sigterm
from capture.runner.grouping import groups, part, steps
from capture.runner.lighting import Lighting
from capture.runner.watch import Watch
from capture.session import FrameRecord, Session, SkipRecord, Writer

DEADLINE_MARGIN_S = 1.0
"""What a frame may take beyond its exposure and readout before it counts as lost."""


@dataclass(frozen=True)
class RunEvent:
    """A shot that is settled: its frame, or its being skipped, is in the journal.

    Attributes
    ----------
    shot : Shot
        Which.
    record : FrameRecord or SkipRecord
        What the journal says of it.
    done, total : int
        Shots of the plan settled so far, earlier runs included, and all.
    seconds_left : float
        Estimate from the pace so far, prompts and pauses not counted.
    """

    shot: Shot
    record: FrameRecord | SkipRecord
    done: int
    total: int
    seconds_left: float


def run(
    plan: CapturePlan,
    devices: Devices,
    session: Session,
    *,
    control: RunControl | None = None,
    retries: int = 2,
    exposure_tolerance: float = 0.01,
    held_bytes: int = 256 * 2**20,
) -> Generator[RunEvent]:
    """Take what is pending of a session, yielding an event as each shot reaches the disk.

    Consume inside ``contextlib.closing``: stopping early is part of the contract. However the run ends
    (return, error, closing, Ctrl-C, SIGTERM), every light is turned dark, every frame taken is written, and
    the session can be resumed. Lights burn while the consumer holds an event: be quick, or pause it by
    ``control``.

    Where camera and lights can (see `capture.runner.grouping`), shots under different lights are taken as one
    hardware-timed sequence, in parts. Its frames are matched to its lights by number, count
    and time; where that leaves a doubt, all are taken again. A part that is stopped early is given up.

    A shot whose frame is lost, late, stale or taken with other settings is tried again, ``retries`` times,
    then recorded as skipped. A resumed run tries skipped shots again, in the plan's order with the rest. When
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
    retries : int
        How often a failed shot is tried again.
    exposure_tolerance : float
        Largest relative difference of reported and requested exposure.
    held_bytes : int
        Most pixels of a hardware-timed sequence: they wait until the count of its exposures has been checked.

    Raises
    ------
    SessionError
        The session is of another plan, is being written by another process, or the disk fails.
    DeviceLost
        A device is gone.
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
        plan, devices, session, pending, control or RunControl(), retries, exposure_tolerance, held_bytes
    )


def _run(
    plan: CapturePlan,
    devices: Devices,
    session: Session,
    pending: tuple[Shot, ...],
    control: RunControl,
    retries: int,
    exposure_tolerance: float,
    held_bytes: int,
) -> Generator[RunEvent]:
    if not pending:
        session.finish()
        return
    watches = {name: Watch(camera, exposure_tolerance) for name, camera in devices.cameras.items()}
    complete = False
    with exit_on_sigterm(), session.writer() as writer, Lighting(devices.lights) as lighting:
        pending = session.pending()  # another process may have gone on since
        progress = _Progress(pending, devices, total=len(plan.shots()))
        taker = _Taker(writer, lighting, control, retries, progress)
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
                taking = taker.take_sequence(group.shots, watch, group.sequencer, held_bytes)
            if not (yield from taking):
                break
        else:
            complete = True
        writer.flush()
    if complete:
        session.finish()
    yield from progress.events(writer)


class _Taker:
    """Takes groups of shots: in a row under the same lights, or as hardware-timed sequences."""

    def __init__(
        self, writer: Writer, lighting: Lighting, control: RunControl, retries: int, progress: "_Progress"
    ) -> None:
        self._writer = writer
        self._lighting = lighting
        self._control = control
        self._retries = retries
        self._progress = progress

    def take(
        self, group: tuple[Shot, ...], watch: Watch, failures: int = 0
    ) -> Generator[RunEvent, None, bool]:
        """Settle every shot of ``group``, the first after so many failures; False when cancelled before.

        The event of the last shot is left for later, so that no consumer that stops at the last event of the
        run stops it before the session is finished.
        """
        todo = deque(group)
        while todo:
            if not self._may_go_on():
                return False
            try:
                self._lighting.prepare(group[0])
                with closing(_frames(watch.camera, tuple(todo))) as frames:
                    for frame in frames:
                        watch.accept(frame, todo[0])
                        self._writer.put(todo.popleft(), frame, failures + 1)
                        failures = 0
                        if todo:
                            yield from self._progress.events(self._writer)
                        if todo and self._control.state != "running":
                            watch.unsettle()
                            break
            except DeviceLost as error:
                raise _resumable(error) from error
            except DeviceError as error:
                watch.unsettle()
                failures += 1
                if failures > self._retries:
                    self._writer.skip(todo.popleft(), str(error), failures)
                    failures = 0
                if todo:
                    yield from self._progress.events(self._writer)
        return True

    def take_sequence(
        self, group: tuple[Shot, ...], watch: Watch, sequencer: Sequencer, held_bytes: int
    ) -> Generator[RunEvent, None, bool]:
        """Settle every shot of ``group``, its lights stepped by the camera; False when cancelled before.

        Frames wait until the controller has told how many exposures it stepped through: until then none is
        known to be of its light. A lost one is taken again alone. The last event is left, as by `take`.
        """
        limits = watch.camera.limits
        todo = list(group)
        failures: Counter[int] = Counter()
        while todo:
            taken = part(todo, sequencer.max_steps, held_bytes // frame_bytes(limits))
            if len(taken) == 1:
                if not (yield from self.take(taken, watch, failures[taken[0].index])):
                    return False
                todo.remove(taken[0])
                continue
            if not self._may_go_on():
                return False
            answers: dict[int, Frame] = {}
            try:
                frames, signalled, reason = self._expose_sequence(taken, watch, sequencer)
                if self._control.state != "running":
                    watch.unsettle()
                    continue
                answers, reasons = watch.accept_sequence(frames, taken, signalled)
            except DeviceLost as error:
                raise _resumable(error) from error
            except DeviceError as error:
                watch.unsettle()
                reason, reasons = str(error), {}
            for place, shot in enumerate(taken):
                if place in answers:
                    self._writer.put(shot, answers[place], failures[shot.index] + 1)
                    todo.remove(shot)
                    continue
                failures[shot.index] += 1
                if failures[shot.index] > self._retries:
                    told = f"{watch.camera.name}: {reasons[place]}" if place in reasons else reason
                    self._writer.skip(shot, told, failures[shot.index])
                    todo.remove(shot)
            if todo:
                yield from self._progress.events(self._writer)
        return True

    def _expose_sequence(
        self, shots: tuple[Shot, ...], watch: Watch, sequencer: Sequencer
    ) -> tuple[list[Frame], int, str]:
        """Return what came of a sequence, how many exposures its lights were told of, and why it ended."""
        frames: list[Frame] = []
        reason = ""
        try:
            self._lighting.arm(sequencer, steps(shots))
            with closing(_frames(watch.camera, shots)) as burst:
                for frame in burst:
                    frames.append(frame)
                    if self._control.state != "running":
                        break
        except FrameLost as error:
            reason = str(error)
        finally:
            signalled = self._lighting.disarm(sequencer)
        return frames, signalled, reason

    def _may_go_on(self) -> bool:
        if self._control.state == "paused":
            self._lighting.dark()
            with self._progress.idle():
                return self._control.wait()
        return self._control.wait()


def _resumable(error: DeviceLost) -> DeviceLost:
    text = str(error).removeprefix(f"{error.device}: ")
    return DeviceLost(error.device, f"{text}; the frames taken are safe: mend it, then resume")


def _frames(camera: Camera, shots: tuple[Shot, ...]) -> Generator[Frame]:
    """Yield a frame for each shot where the camera can take a burst, else for the first only.

    A pulse is armed for one trigger: strobed shots are taken one by one.
    """
    deadline_s = max(shot.exposure_s for shot in shots) + camera.limits.readout_s + DEADLINE_MARGIN_S
    if len(shots) == 1 or shots[0].strobe is not None or not isinstance(camera, TriggeredCamera):
        shot = shots[0]
        yield camera.expose(
            shot.exposure_s, shot.gain_db, shot.exposure_s + camera.limits.readout_s + DEADLINE_MARGIN_S
        )
        return
    settings = [(shot.exposure_s, shot.gain_db) for shot in shots]
    count = 0
    with closing(camera.burst(settings, deadline_s)) as burst:
        for frame in islice(burst, len(shots)):
            count += 1
            yield frame
    if count < len(shots):
        raise FrameLost(camera.name, f"a burst of {len(shots)} frames ended after {count}")


class _Progress:
    """Counts what is settled and guesses what is left."""

    def __init__(self, pending: tuple[Shot, ...], devices: Devices, total: int) -> None:
        seconds = shot_seconds(
            pending,
            {name: camera.limits for name, camera in devices.cameras.items()},
            {name: light.limits for name, light in devices.lights.items()},
        )
        self._seconds = {shot.index: value for shot, value in zip(pending, seconds, strict=True)}
        self._planned = sum(seconds)
        self._left = self._planned
        self._done = total - len(pending)
        self._total = total
        self._idle_s = 0.0
        self._start = time.monotonic()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Do not count this time as pace."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._idle_s += time.monotonic() - start

    def events(self, writer: Writer) -> Iterator[RunEvent]:
        """Yield an event for each shot settled since the last call."""
        for record in writer.written():
            self._done += 1
            self._left = max(0.0, self._left - self._seconds[record.shot.index])
            spent = time.monotonic() - self._start - self._idle_s
            pace = spent / (self._planned - self._left)
            left = self._left * pace if self._done < self._total else 0.0
            yield RunEvent(record.shot, record, self._done, self._total, left)
