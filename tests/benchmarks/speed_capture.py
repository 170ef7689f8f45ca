"""A plan's shots on the real-time twin, against the time that its exposures, settling and readout take."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml
from speed import Row, Table

from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.runner import run
from capture.runner.check import shot_seconds
from capture.session import Session
from rigs.config import RigConfig, load_rig
from rigs.rig import Rig, open_rig
from rigs.simulated import Truth, load_truth

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPOSURES_S = (0.02, 0.04, 0.08)
READOUT_S = 0.03
SHRINK = 4
LIGHTS = "led01..led24"


@dataclass(frozen=True)
class Taken:
    """How long a run took, and the longest wait between two frames beyond what they need."""

    seconds: float
    delay_s: float


def dome(sequence: bool) -> RigConfig:
    """The shipped dome, its camera and lights timed by hardware or by the computer."""
    config = load_rig(CONFIGS / "rigs" / "dome.yaml")
    cameras = {
        name: camera.replace(
            readout_s=READOUT_S,
            sequence=sequence,
            width=camera.width // SHRINK,
            height=camera.height // SHRINK,
        )
        for name, camera in config.cameras.items()
    }
    lights = {
        name: light.replace(sequence=sequence and name != "panel") for name, light in config.lights.items()
    }
    return config.replace(cameras=cameras, lights=lights)


def truth(folder: Path) -> Truth:
    """Its truth, the sensor small enough to be rendered within the shortest exposure."""
    data = yaml.safe_load((CONFIGS / "truths" / "dome.yaml").read_text())
    lens = data["cameras"]["top"]["lens"]
    lens |= {name: lens[name] // SHRINK for name in ("width", "height")}
    lens |= {name: lens[name] / SHRINK for name in ("fx", "fy", "cx", "cy")}
    path = folder / "truth.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_truth(path)


def tables() -> Iterator[Table]:
    """Yield the table; each way is run twice, the second counts: the twin renders a light once."""
    plan = CapturePlan(
        name="speed",
        blocks=(
            Block(
                kinds="object",
                pose="relief",
                cameras="top",
                lights=LightSequence(names=LIGHTS),
                bracket=ExposureBracket(exposures_s=EXPOSURES_S),
            ),
        ),
    )
    config = dome(False)
    least = sum(shot_seconds(plan.shots(), config.limits.cameras, config.limits.lights))
    rows = []
    for sequence, who in ((False, "gnomon, timed by the computer"), (True, "gnomon, timed by hardware")):
        with (
            tempfile.TemporaryDirectory() as folder,
            open_rig(dome(sequence), truth(Path(folder)), realtime=True) as rig,
        ):
            _take(plan, rig, Path(folder) / "warm")
            taken = _take(plan, rig, Path(folder) / "session")
        note = f"{taken.seconds / least:.3f} × the sum; longest delay of a shot {1e3 * taken.delay_s:.0f} ms"
        rows.append(Row(who, taken.seconds, error=note))
    rows.append(Row("sum of exposures, settling and readout", least))
    yield Table("24 lights × 3 exposures of 0.14 MP", tuple(rows))


def _take(plan: CapturePlan, rig: Rig, path: Path) -> Taken:
    session = Session.create(path, plan, {})
    start = time.perf_counter()
    with closing(run(plan, rig, session)) as events:
        for _ in events:
            pass
    seconds = time.perf_counter() - start
    came = [datetime.fromisoformat(record.taken_at).timestamp() for record in session.frames]
    limits = rig.config.limits
    need = shot_seconds(plan.shots(), limits.cameras, limits.lights)
    delays = [after - before - own for before, after, own in zip(came, came[1:], need[1:], strict=False)]
    return Taken(seconds, max(delays))


if __name__ == "__main__":
    from speed import markdown

    print(markdown(list(tables())))
