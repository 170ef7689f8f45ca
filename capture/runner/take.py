"""Taking shots with open devices, again where it must be, each settled as a frame or as skipped."""

import time
from collections import defaultdict, deque
from collections.abc import Generator
from contextlib import closing, suppress
from itertools import islice

from capture.devices import (
    Camera,
    DeviceError,
    DeviceLost,
    FrameLost,
    NotReady,
    Sequencer,
    TriggeredCamera,
)
from capture.frame import Frame
from capture.plan import Shot
from capture.runner.check import frame_bytes
from capture.runner.control import RunControl
from capture.runner.grouping import part, steps
from capture.runner.lighting import Lighting
from capture.runner.progress import Progress, RunEvent
from capture.runner.quality import QualityCheck
from capture.runner.watch import Watch
from capture.session import Writer

DEADLINE_MARGIN_S = 1.0
"""What a frame may take beyond its exposure and readout before it counts as lost."""

_POLL_S = 0.5
"""How often a device that is not ready is asked again."""


class Taker:
    """Takes groups of shots: in a row under the same lights, or as hardware-timed sequences.

    Parameters
    ----------
    writer : Writer
        Where frames and skips go.
    lighting : Lighting
        The lights.
    quality : QualityCheck or None
        What each frame must meet.
    control : RunControl
        Pauses and cancels.
    progress : Progress
        Counts what is settled.
    retries : int
        How often a shot is tried again.
    held_bytes : int
        Most pixels of a sequence.
    patience_s : float
        How long a device may be not ready.
    """

    def __init__(
        self,
        writer: Writer,
        lighting: Lighting,
        quality: QualityCheck | None,
        control: RunControl,
        progress: Progress,
        *,
        retries: int,
        held_bytes: int,
        patience_s: float,
    ) -> None:
        self._writer = writer
        self._lighting = lighting
        self._quality = quality
        self._control = control
        self._progress = progress
        self._retries = retries
        self._held_bytes = held_bytes
        self._patience_s = patience_s
        self._unready_since_s: float | None = None

    def take(
        self, group: tuple[Shot, ...], watch: Watch, reasons: list[str] | None = None
    ) -> Generator[RunEvent, None, bool]:
        """Settle every shot of ``group``; False when cancelled before.

        ``reasons`` are why the first was not taken so far. The event of the last shot is left for later, so
        that no consumer that stops at the last event of the run stops it before the session is finished.
        """
        todo = deque(group)
        reasons = list(reasons or ())
        while todo:
            if not self._may_go_on():
                return False
            try:
                self._lighting.prepare(group[0])
                with closing(_frames(watch.camera, tuple(todo))) as frames:
                    for frame in frames:
                        watch.accept(frame, todo[0])
                        self._lighting.confirm(todo[0].lights)
                        self._meet(frame, todo[0])
                        self._writer.put(todo.popleft(), frame, reasons)
                        reasons = []
                        self._unready_since_s = None
                        if todo:
                            yield from self._progress.events(self._writer)
                        if todo and self._control.state != "running":
                            watch.unsettle()
                            break
            except DeviceLost as error:
                raise _resumable(error) from error
            except NotReady as error:
                watch.unsettle()
                self._be_patient(error)
            except DeviceError as error:
                watch.unsettle()
                reasons.append(str(error))
                if len(reasons) > self._retries:
                    self._writer.skip(todo.popleft(), reasons[-1], len(reasons))
                    reasons = []
                if todo:
                    yield from self._progress.events(self._writer)
        return True

    def take_sequence(
        self, group: tuple[Shot, ...], watch: Watch, sequencer: Sequencer
    ) -> Generator[RunEvent, None, bool]:
        """Settle every shot of ``group``, its lights stepped by the camera; False when cancelled before.

        Frames wait until the controller has told how many exposures it stepped through: until then none is
        known to be of its light. A lost one is taken again alone. The last event is left, as by `take`.
        """
        most = self._held_bytes // frame_bytes(watch.camera.limits)
        todo = list(group)
        reasons: defaultdict[int, list[str]] = defaultdict(list)
        while todo:
            shots = part(todo, sequencer.max_steps, most)
            if len(shots) == 1:
                if not (yield from self.take(shots, watch, reasons[shots[0].index])):
                    return False
                todo.remove(shots[0])
                continue
            if not self._may_go_on():
                return False
            answers: dict[int, Frame] = {}
            try:
                frames, signalled = self._expose_sequence(shots, watch, sequencer)
                if self._control.state != "running":
                    watch.unsettle()
                    continue
                answers, failures = watch.accept_sequence(frames, shots, signalled)
            except DeviceLost as error:
                raise _resumable(error) from error
            except NotReady as error:
                watch.unsettle()
                self._be_patient(error)
                continue
            except DeviceError as error:
                watch.unsettle()
                failures = dict.fromkeys(range(len(shots)), str(error))
            for place, shot in enumerate(shots):
                if place in answers:
                    try:
                        self._meet(answers[place], shot)
                    except DeviceError as error:
                        failures[place] = str(error)
                    else:
                        self._writer.put(shot, answers[place], reasons[shot.index])
                        self._unready_since_s = None
                        todo.remove(shot)
                        continue
                reasons[shot.index].append(failures[place])
                if len(reasons[shot.index]) > self._retries:
                    self._writer.skip(shot, failures[place], len(reasons[shot.index]))
                    todo.remove(shot)
            if todo:
                yield from self._progress.events(self._writer)
        return True

    def _be_patient(self, error: NotReady) -> None:
        """Wait a little in the dark; DeviceLost after ``patience_s``."""
        now_s = time.monotonic()
        if self._unready_since_s is None:
            self._unready_since_s = now_s
            with suppress(DeviceError):  # told again by the next try, or at the end
                self._lighting.dark()
        if now_s - self._unready_since_s >= self._patience_s:
            text = str(error).removeprefix(f"{error.device}: ")
            waited = f"{text}; waited {self._patience_s:g} s"
            raise _resumable(DeviceLost(error.device, waited)) from error
        with self._progress.idle():
            time.sleep(min(_POLL_S, self._patience_s))

    def _meet(self, frame: Frame, shot: Shot) -> None:
        """Hold a frame against the plan's gate; the state of lights that did not show counts as unknown."""
        if self._quality is None:
            return
        try:
            self._quality.accept(frame, shot)
        except DeviceError:
            self._lighting.doubt(shot.lights)
            raise

    def _expose_sequence(
        self, shots: tuple[Shot, ...], watch: Watch, sequencer: Sequencer
    ) -> tuple[list[Frame], int]:
        """Return what came of a sequence, and how many exposures its lights were told of."""
        frames: list[Frame] = []
        try:
            self._lighting.arm(sequencer, steps(shots))
            with closing(_frames(watch.camera, shots)) as burst:
                for frame in burst:
                    frames.append(frame)
                    if self._control.state != "running":
                        break
        except FrameLost:
            pass  # what did not come is told by what is missing
        finally:
            signalled = self._lighting.disarm(sequencer)
        return frames, signalled

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
