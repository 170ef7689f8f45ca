"""A tiny scene, rig and plan; run as a script it captures into a session, so that it can be killed.

python capture_fakes.py SESSION LIGHTS_LOG [SECONDS_PER_FRAME]
    python capture_fakes.py --crash-points FOLDER
"""

import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capture.devices import Camera, CameraLimits, Light, LightLimits, Operator, RigLimits
from capture.drivers.simulated import SimulatedCamera, SimulatedLight, SimulatedOperator
from capture.frame import Frame
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.runner import RunEvent, RunSettings, run
from capture.session import Session

CAMERA = CameraLimits(
    exposure_min_s=1e-5,
    exposure_max_s=10,
    gain_max_db=24,
    width=8,
    height=6,
    pixel_format="Mono12",
    readout_s=0.01,
)
LIGHT = LightLimits(settle_s=0.001)
NAMES = tuple(f"led{number}" for number in range(1, 5))
LIMITS = RigLimits(cameras={"main": CAMERA}, lights=dict.fromkeys(NAMES, LIGHT))
RIG = {"cameras": {"main": CAMERA.model_dump()}}


def small_plan(**changes: object) -> CapturePlan:
    """24 shots of ``object``, then 2 of ``cap``."""
    block = Block(
        kinds="object",
        pose="relief",
        cameras=("main",),
        lights=LightSequence(names=NAMES),
        bracket=ExposureBracket(exposures_s=(0.01, 0.02, 0.04)),
        repeats=2,
    )
    dark = Block(
        kinds="dark",
        pose="cap",
        prompt="put the cap on",
        cameras=("main",),
        bracket=ExposureBracket(exposures_s=(0.01,)),
        repeats=2,
    )
    return CapturePlan(name="small", blocks=(block, dark)).replace(**changes)


@dataclass
class FakeScene:
    """Pixels that tell what was asked; ``fault`` is called before each frame, to raise or to sleep."""

    fault: Callable[[str, float], None] | None = None
    log: Path | None = None
    levels: dict[str, float] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    pose: str = ""
    frames: int = 0
    report: Callable[[float], float] = lambda exposure_s: exposure_s
    shape: tuple[int, ...] = (6, 8)

    def show(self, pose: str) -> None:
        self.pose = pose
        self.calls.append(("show", pose))

    def set_light(self, name: str, level: float) -> None:
        self.calls.append(("light", name, level))
        self.levels[name] = level
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{name} {level:g}\n")

    def strobe_light(self, name: str, level: float, delay_s: float, duration_s: float) -> None:
        self.calls.append(("strobe", name, level, delay_s, duration_s))
        self.levels[name] = 0.0

    def expose(self, camera: str, exposure_s: float, gain_db: float) -> Frame:
        self.calls.append(("expose", camera, exposure_s))
        if self.fault is not None:
            self.fault(camera, exposure_s)
        self.frames += 1
        dn = np.full(self.shape, round(exposure_s * 1e4) % 4096, dtype=np.uint16)
        dn[0, 0] = sum(2 ** (int(name[3:]) - 1) for name, level in self.levels.items() if level)
        dn[0, 1] = len(self.pose)
        return Frame(
            dn=dn,
            pixel_format="Mono12",
            exposure_s=self.report(exposure_s),
            gain_db=gain_db,
            frame_id=self.frames,
            timestamp_ns=self.frames * 1000,
            black_level_dn=64.0,
            temperature_c=31.5,
        )


class BurstCamera(SimulatedCamera):
    """A camera of the scene that takes bursts."""

    bursts: list[int]

    def burst(self, settings: Sequence[tuple[float, float]], deadline_s: float) -> Generator[Frame]:
        self.bursts = [*getattr(self, "bursts", []), len(settings)]
        for exposure_s, gain_db in settings:
            yield self.expose(exposure_s, gain_db, deadline_s)


@dataclass
class FakeRig:
    """Open devices."""

    cameras: dict[str, Camera]
    lights: dict[str, Light]
    operator: Operator


@contextmanager
def open_fake_rig(scene: FakeScene, camera: type[SimulatedCamera] = SimulatedCamera) -> Generator[FakeRig]:
    """A camera ``main`` and four lights."""
    with ExitStack() as stack:
        cameras: dict[str, Camera] = {"main": stack.enter_context(camera("main", CAMERA, scene))}
        lights: dict[str, Light] = {
            name: stack.enter_context(SimulatedLight(name, LIGHT, scene)) for name in NAMES
        }
        yield FakeRig(cameras, lights, SimulatedOperator(scene))


def capture(path: Path, scene: FakeScene, plan: CapturePlan | None = None, quiet: bool = False) -> Session:
    """Run or resume the small plan to its end."""
    session = Session.resume(path, plan or small_plan(), RIG)
    with open_fake_rig(scene) as rig, closing(run(session.plan, rig, session)) as events:
        for event in events:
            if not quiet:
                print(event.done, event.total, flush=True)
    return session


def frame(
    value: float = 7,
    shape: tuple[int, ...] = (6, 8),
    dtype: type[np.generic] = np.uint16,
    pixel_format: str = "Mono12",
    **reported: Any,
) -> Frame:
    """An even frame."""
    reported = {"exposure_s": 0.01, "gain_db": 0.0, "frame_id": 1, "timestamp_ns": 5} | reported
    return Frame(np.full(shape, value, dtype=dtype), pixel_format, **reported)


def take(
    session: Session, scene: FakeScene, camera: type[SimulatedCamera] = SimulatedCamera, **settings: Any
) -> list[RunEvent]:
    """Run what is pending of the session's plan on a rig of the scene."""
    with (
        open_fake_rig(scene, camera) as rig,
        closing(run(session.plan, rig, session, settings=RunSettings(**settings))) as events,
    ):
        return list(events)


def failing(
    times: int, error: Exception, when: Callable[[float], bool] = lambda exposure_s: True
) -> Callable[[str, float], None]:
    """A fault that raises ``error`` the first ``times`` times that ``when`` holds."""
    left = [times]

    def fault(camera: str, exposure_s: float) -> None:
        if left[0] and when(exposure_s):
            left[0] -= 1
            raise error

    return fault


def shot_lines(path: Path) -> list[bytes]:
    """Lines of a session's journal that are of a shot; the others tell of the run."""
    lines = (path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    return [line for line in lines if b'"shot":{' in line]


def crash_points(folder: Path) -> int:
    """Kill a fork around each step to the disk, one step further each time; resume each; count them."""
    plan = CapturePlan(name="tiny", blocks=(small_plan().blocks[0].replace(lights=None, repeats=1),))
    point = 0
    while True:
        path = folder / f"{point:03d}"
        child = os.fork()
        if child == 0:
            _die_at(point)
            capture(path, FakeScene(), plan, quiet=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(f"point {point}: the child failed instead of being killed")
            shutil.rmtree(path)
            return point
        capture(path, FakeScene(), plan, quiet=True)
        point += 1


def _die_at(point: int) -> None:
    """Before step ``point // 2`` when even, after it when odd."""
    steps = itertools.count()

    def fatal(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            number = next(steps)
            if 2 * number == point:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if 2 * number + 1 == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return step

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, fatal(getattr(os, name)))


def main() -> None:
    """Capture slowly, or try every crash point."""
    os.fsync = lambda handle: None  # as in conftest.py
    if sys.argv[1] == "--crash-points":
        print(crash_points(Path(sys.argv[2])))
        return
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    capture(Path(sys.argv[1]), FakeScene(lambda camera, exposure_s: time.sleep(seconds), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
