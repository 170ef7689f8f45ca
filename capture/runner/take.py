"""Taking shots with open devices, again where it must be, each settled as a frame or as skipped."""

import time
from collections import defaultdict, deque
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from capture.devices import (
    Camera,
    DeviceError,
    DeviceLost,
    FrameLost,
    NotReady,
    Operator,
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
from capture.runner.settings import RunSettings
from capture.runner.watch import Watch
from capture.session import Note, Timing, Writer, now

DEADLINE_MARGIN_S = 1.0
"""What a frame may take beyond its exposure and readout before it counts as lost."""

_POLL_S = 0.5
"""How often a device that is not ready is asked again."""

_BURST_MOST = 1000
"""Exposures that are asked for in one go: what a driver does with the list counts towards the first frame."""


@dataclass(eq=False)
class Taker:
    """Takes groups of shots: in a row under the same lights, or as hardware-timed sequences.

    Attributes
    ----------
    writer : Writer
        Where frames and skips go.
    lighting : Lighting
        The lights.
    operator : Operator
        Whoever brings a pose about, and is told what is waited for.
    quality : QualityCheck or None
        What each frame must meet.
    control : RunControl
        Pauses and cancels.
    progress : Progress
        Counts what is settled.
    settings : RunSettings
        How often a shot is tried again, how long is waited.
    """

    writer: Writer
    lighting: Lighting
    operator: Operator
    quality: QualityCheck | None
    control: RunControl
    progress: Progress
    settings: RunSettings
    _unready_since_s: float | None = None

    def show(self, pose: str, message: str) -> None:
        """Have a pose brought about, in the dark."""
        self.lighting.dark()
        with self.progress.idle():
            self.operator.show(pose, message)
        self._note("pose", pose)

    def leave(self, pose: str) -> None:
        """Know that a pose is over: none of its shots is to come."""
        if self.quality is not None:
            self.quality.forget(pose)

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
            asked = _in_one_go(watch.camera, tuple(todo))
            try:
                self.lighting.prepare(group[0])
                timing = Timing(asked_at=now(), lit_s=self.lighting.settling_s, count=len(asked))
                with closing(_frames(watch.camera, asked)) as frames:
                    for place, frame in enumerate(frames):
                        watch.accept(frame, todo[0])
                        self.lighting.confirm(todo[0].lights)
                        checks = self._meet(frame, todo[0])
                        self.writer.put(todo.popleft(), frame, reasons, timing.replace(place=place), checks)
                        reasons = []
                        self._unready_since_s = None
                        if todo:
                            yield from self.progress.events(self.writer)
                        if todo and self.control.state != "running":
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
                if len(reasons) > self.settings.retries:
                    self._skip(todo.popleft(), reasons)
                    reasons = []
                if todo:
                    yield from self.progress.events(self.writer)
        return True

    def take_sequence(
        self, group: tuple[Shot, ...], watch: Watch, sequencer: Sequencer
    ) -> Generator[RunEvent, None, bool]:
        """Settle every shot of ``group``, its lights stepped by the camera; False when cancelled before.

        Frames wait until the controller has told how many exposures it stepped through: until then none is
        known to be of its light. A lost one is taken again alone. Shots whose turn did not come, since the
        camera gave up before, lose no attempt by it where any frame came. The last event is left, as by
        `take`.
        """
        most = self.settings.held_bytes // frame_bytes(watch.camera.limits)
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
            exposed = len(shots)
            try:
                frames, signalled, timing = self._expose_sequence(shots, watch, sequencer)
                if self.control.state != "running":
                    watch.unsettle()
                    continue
                answers, failures = watch.accept_sequence(frames, shots, signalled)
                exposed = signalled if answers else len(shots)
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
                        checks = self._meet(answers[place], shot)
                    except DeviceError as error:
                        failures[place] = str(error)
                    else:
                        known = timing.replace(place=place)
                        self.writer.put(shot, answers[place], reasons[shot.index], known, checks)
                        self._unready_since_s = None
                        todo.remove(shot)
                        continue
                if place >= exposed:
                    continue
                reasons[shot.index].append(failures[place])
                if len(reasons[shot.index]) > self.settings.retries:
                    self._skip(shot, reasons[shot.index])
                    todo.remove(shot)
            if todo:
                yield from self.progress.events(self.writer)
        return True

    def _be_patient(self, error: NotReady) -> None:
        """Wait a little in the dark; DeviceLost after ``patience_s``."""
        now_s = time.monotonic()
        if self._unready_since_s is None:
            self._unready_since_s = now_s
            with suppress(DeviceError):  # told again by the next try, or at the end
                self.lighting.dark()
            self._note("wait", str(error))
            self.operator.tell(f"{error}: waiting, lights dark, for up to {self.settings.patience_s:g} s")
        if now_s - self._unready_since_s >= self.settings.patience_s:
            text = str(error).removeprefix(f"{error.device}: ")
            waited = f"{text}; waited {self.settings.patience_s:g} s"
            raise _resumable(DeviceLost(error.device, waited)) from error
        with self.progress.idle():
            time.sleep(min(_POLL_S, self.settings.patience_s))

    def _meet(self, frame: Frame, shot: Shot) -> dict[str, float]:
        """Hold a frame against the plan's gate; the state of lights that did not show counts as unknown."""
        if self.quality is None:
            return {}
        try:
            return self.quality.accept(frame, shot)
        except DeviceError:
            self.lighting.doubt(shot.lights)
            raise

    def _expose_sequence(
        self, shots: tuple[Shot, ...], watch: Watch, sequencer: Sequencer
    ) -> tuple[list[Frame], int, Timing]:
        """Return what came of a sequence, how many exposures its lights were told of, and its beginning."""
        frames: list[Frame] = []
        timing = Timing(by="camera", asked_at=now(), count=len(shots))
        try:
            self.lighting.arm(sequencer, steps(shots))
            timing = timing.replace(asked_at=now())
            with closing(_frames(watch.camera, shots)) as burst:
                for frame in burst:
                    frames.append(frame)
                    if self.control.state != "running":
                        break
        except FrameLost:
            pass  # what did not come is told by what is missing
        finally:
            signalled = self.lighting.disarm(sequencer)
        return frames, signalled, timing

    def _skip(self, shot: Shot, reasons: list[str]) -> None:
        self.writer.skip(shot, reasons[-1], len(reasons), reasons[:-1])

    def _note(self, kind: Literal["pose", "wait", "pause"], text: str) -> None:
        self.writer.note(Note(kind=kind, at=now(), text=text))

    def _may_go_on(self) -> bool:
        if self.control.state == "paused":
            self.lighting.dark()
            self._note("pause", "asked to pause")
            with self.progress.idle():
                return self.control.wait()
        return self.control.wait()


def _in_one_go(camera: Camera, shots: tuple[Shot, ...]) -> tuple[Shot, ...]:
    """Return the shots that are asked for at once: many where the camera takes bursts, else the first.

    A pulse is armed for one trigger: strobed shots are taken one by one.
    """
    together = shots[0].strobe is None and isinstance(camera, TriggeredCamera)
    return shots[:_BURST_MOST] if together else shots[:1]


def _resumable(error: DeviceLost) -> DeviceLost:
    text = str(error).removeprefix(f"{error.device}: ")
    return DeviceLost(error.device, f"{text}; the frames taken are safe: mend it, then resume")


def _frames(camera: Camera, shots: tuple[Shot, ...]) -> Generator[Frame]:
    """Yield a frame for each shot: of one its exposure, of several a burst."""
    deadline_s = max(shot.exposure_s for shot in shots) + camera.limits.readout_s + DEADLINE_MARGIN_S
    if len(shots) == 1 or not isinstance(camera, TriggeredCamera):
        yield camera.expose(shots[0].exposure_s, shots[0].gain_db, deadline_s)
        return
    settings = [(shot.exposure_s, shot.gain_db) for shot in shots]
    count = 0
    with closing(camera.burst(settings, deadline_s)) as burst:
        for frame in islice(burst, len(shots)):
            count += 1
            yield frame
    if count < len(shots):
        raise FrameLost(camera.name, f"a burst of {len(shots)} frames ended after {count}")
