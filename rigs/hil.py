"""The dome's capture with hardware in the loop: real firmware on an emulated chip, the real driver, the twin.

What comes must be what the twin gives when its own lights burn, to the last bit.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.progress import Counted
from capture.devices import Camera, CameraLimits, Light
from capture.drivers.dome import DomeLight, DomeLightConfig
from capture.drivers.simulated import SimulatedCamera, SimulatedOperator, SimulatedTriggeredCamera
from capture.plan import CapturePlan
from capture.runner import run as take
from capture.session import FrameRecord, Session
from rigs import workflows
from rigs.config import ConfigError, RigConfig, load_plan, load_rig
from rigs.demo import prepare, shipped
from rigs.report import Metric
from rigs.rig import Rig
from rigs.simulated import Truth, Twin
from rigs.simulated.controller import EmulatedController, WiredTwin
from rigs.workflows import Track

_BOARD, _CHIP = "hc595", "atmega328p"
_CAMERA = "top"
_READOUT_S = 0.02
_SETTLE_S = 0.002
_FIRE_S = 0.02
_FIRED_MS = 0.01
"""Longest time by which a pulse of the trigger pin may be off (docs/dome-firmware.md, Safety)."""

_SILENCE_S = 2.1
"""The watchdog's 2 s, and a status that was on the way."""

_OWNER = """
import sys, time
from capture.drivers.dome import DomeLightConfig
with DomeLightConfig(port=sys.argv[1], channel=0).open("led01") as light:
    light.set(1.0)
    print("lit", flush=True)
    time.sleep(60)
"""


def run(out: Path, *, track: Track = workflows.silent, say: Callable[[str], None] = print) -> list[Metric]:
    """Capture the dome's relief through the firmware, light by light and as a sequence, into ``out``.

    Parameters
    ----------
    out : Path
        Folder for the sessions; an earlier demo there is replaced, anything else is left alone and refused.

    Raises
    ------
    ConfigError
        A tool to build or run the firmware is missing.
    capture.devices.DeviceError
        The controller did not do what it was told.
    """
    config = load_rig(shipped("rigs/dome.yaml"))
    truth = workflows.read_truth(shipped("truths/dome.yaml"))
    plan = load_plan(shipped("plans/dome-relief.yaml"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            controller = stack.enter_context(EmulatedController(folder, _BOARD, _CHIP))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        prepare(out, config, {"relief": plan}, truth)
        bench = Bench(plan, config, truth, controller, track)
        whole = workflows.capture_session(config, plan, out / "twin", simulate=truth, track=track)
        metrics = [
            *bench.captured(out / "single", False, whole),
            *bench.captured(out / "sequence", True, whole),
            *bench.fired(),
            bench.killed(),
        ]
    for metric in metrics:
        say(metric.line)
    return metrics


@dataclass(frozen=True, eq=False)
class Bench:
    """An emulated dome round the twin's camera."""

    plan: CapturePlan
    config: RigConfig
    truth: Truth
    controller: EmulatedController
    track: Track

    @property
    def channels(self) -> dict[str, int]:
        """The lights of the plan, dealt out to the channels."""
        names = dict.fromkeys(name for shot in self.plan.shots() for name in shot.lights)
        return {name: number for number, name in enumerate(names)}

    def captured(self, path: Path, sequence: bool, whole: Session) -> list[Metric]:
        """Run the plan, and hold what came against the twin's own frames."""
        how = "sequence" if sequence else "single"
        start = time.monotonic()
        with ExitStack() as stack:
            rig = self._open(stack, sequence)
            session = Session.create(
                path, self.plan, self.config.model_dump(mode="json"), facts={"simulated": True}
            )
            with closing(take(self.plan, rig, session)) as events:
                for _ in self.track(Counted(events, len(self.plan.shots())), f"capturing {path.name}"):
                    pass
        seconds = time.monotonic() - start
        came = {record.shot.index: image for record, image in _frames(session)}
        differ = sum(
            not np.array_equal(image, came.get(record.shot.index, np.empty(0)))
            for record, image in _frames(whole)
        )
        return [
            Metric(section=how, quantity=f"{how}: frames that differ from the twin's", value=differ, bound=0),
            Metric(
                section=how,
                quantity=f"{how}: attempts beyond one a frame",
                value=sum(record.attempts - 1 for record in session.frames),
                bound=0.1 * len(came),
                note="a computer that is busy elsewhere makes some",
            ),
            Metric(section=how, quantity=f"{how}: duration", value=seconds, unit="s"),
            self._left_on(how),
        ]

    def fired(self) -> list[Metric]:
        """Let the firmware time light and camera by itself, each light once."""
        scene = self.scene()
        scene.show(self.plan.shots()[0].pose)
        before = len(self.controller.pulses)
        with ExitStack() as stack:
            lights = [stack.enter_context(self.light(name, False)) for name in self.channels]
            for light in lights:
                dome = light.sequencer.controller
                dome.fire(light.config.channel, dome.identity.max_level, _SETTLE_S, _FIRE_S)
        self.controller.settle()
        pulses = self.controller.pulses[before:]
        off = [abs(pulse.ended_s - pulse.begun_s - _FIRE_S) for pulse in pulses]
        frames = [scene.triggered(_CAMERA, pulse) for pulse in pulses]
        right = sum(
            list(pulse.lamps) == [channel] and frame.dn.mean() > frame.black_level_dn
            for pulse, channel, frame in zip(pulses, self.channels.values(), frames, strict=False)
        )
        return [
            Metric(
                section="fired",
                quantity="fired: pulses of the trigger under their light",
                value=right,
                bound=len(lights),
                at_least=True,
            ),
            Metric(
                section="fired",
                quantity="fired: worst length of a pulse, off by",
                value=1e3 * max(off, default=np.nan),
                unit="ms",
                bound=_FIRED_MS,
            ),
            self._left_on("fired"),
        ]

    def killed(self) -> Metric:
        """Kill a program that has lit a light; return how long that burnt on, in the chip's time."""
        with subprocess.Popen(
            [sys.executable, "-c", _OWNER, self.controller.port], stdout=subprocess.PIPE, text=True
        ) as owner:
            try:
                assert owner.stdout is not None
                lit = owner.stdout.readline() == "lit\n"
                # the last sign of life comes later than it lights
                self.controller.settle(0.5)
            finally:
                owner.kill()
        begun = self.controller.settle()
        lit = lit and bool(self.controller.levels)
        ended = begun
        while lit and self.controller.levels and ended < begun + 2 * _SILENCE_S:
            ended = self.controller.settle(0.01)
        return Metric(
            section="killed",
            quantity="killed: light goes dark after its program's death within",
            value=ended - begun if lit else np.nan,
            unit="s",
            bound=_SILENCE_S,
        )

    def _left_on(self, section: str) -> Metric:
        self.controller.settle(0.01)
        lit = len(self.controller.levels)
        return Metric(section=section, quantity=f"{section}: lights left on", value=lit, bound=0)

    def _open(self, stack: ExitStack, sequence: bool) -> Rig:
        scene = self.scene()
        kind = SimulatedTriggeredCamera if sequence else SimulatedCamera
        camera: Camera = stack.enter_context(kind(_CAMERA, self.limits(sequence), scene))
        lights: dict[str, Light] = {
            name: stack.enter_context(self.light(name, sequence)) for name in self.channels
        }
        return Rig(self.config, {_CAMERA: camera}, lights, SimulatedOperator(scene))

    def scene(self) -> WiredTwin:
        """A twin of its own under the controller's lamps."""
        twin = Twin(self.truth, {_CAMERA: self.limits(False)})
        return WiredTwin(twin, self.controller, self.channels, _READOUT_S)

    def limits(self, sequence: bool) -> CameraLimits:
        """Of the camera, wired to the controller's sync input or not."""
        return self.config.limits.cameras[_CAMERA].replace(readout_s=_READOUT_S, sequence=sequence)

    def light(self, name: str, sequence: bool) -> DomeLight:
        """One light of the controller, by the driver of the rig files."""
        channel = self.channels[name]
        return DomeLightConfig(
            port=self.controller.port, channel=channel, settle_s=_SETTLE_S, sequence=sequence
        ).open(name)


def _frames(session: Session) -> Iterator[tuple[FrameRecord, NDArray[np.generic]]]:
    stack = session.stack(_CAMERA)
    return zip(stack.records, stack, strict=True)
