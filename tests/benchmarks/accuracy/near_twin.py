"""Near light from raw frames to depth, on the twin: ``python tests/benchmarks/accuracy/near_twin.py``.

A glossy relief of 120 mm with half balls, ridges and a ball on top, under 24 LEDs at 250 to 400 mm, all
throwing shadows. Sensor, lens and lights are calibrated from their own sessions; every step is a ``gnomon``
command, and the truth is opened for the comparison only. Prints one table and exits with 1 when a bound is
missed. Some 100 s of CPU; ``--quick`` takes the true lens instead of calibrating one from twenty views, which
leaves 80.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from commands import CommandError, gnomon
from numpy.typing import NDArray
from objects import read_normals
from real import table

from calibration.files import load_model, read_exr, save_model
from calibration.geometry import angle_deg
from calibration.lights.model import LightSet, NearLight
from rigs.report import Metric
from rigs.simulated import Twin, load_truth

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
RIG = CONFIGS / "rigs/dome.yaml"
TRUTH = CONFIGS / "truths/near-dome.yaml"
PLANS = {name: CONFIGS / f"plans/dome-{name}.yaml" for name in ("sensor", "lens", "lights")} | {
    "hills": CONFIGS / "plans/near-dome-hills.yaml"
}
CAPTURE = "capture {rig} {plan} {work}/{name} --simulate {truth}"
CALIBRATE = {
    "sensor": "calibrate sensor {work}/sensor --out {work}/sensor.json",
    "lens": "calibrate lens {work}/lens --rig {rig} --model brown-5 --sensor {work}/sensor.json"
    " --out {work}/lens.json",
    "lights": "calibrate lights {work}/lights --rig {rig} --sensor {work}/sensor.json"
    " --lens {work}/lens.json --out {work}/lights.json",
}
RECONSTRUCT = (
    "reconstruct {work}/hills --sensor {work}/sensor.json --lens {work}/lens.json --lights {work}/lights.json"
    " --out {work}/result"
)
NORMALS_DEG, DEPTH_MM = 1.5, 0.2
BALL = 1  # number of the ball among the things of the pose


def near_twin(work: Path, *, quick: bool) -> Iterator[Metric]:
    """Run the chain in ``work`` and compare; sessions and models that are there are kept."""
    paths = {"work": work, "rig": RIG, "truth": TRUTH}
    twin = Twin(load_truth(TRUTH))
    if quick and not (work / "lens.json").exists():
        save_model(work / "lens.json", twin.lens("top"))
    for name, plan in PLANS.items():
        made = (work / f"{name}.json").exists() or (work / name / "done.json").exists()
        if not made:
            gnomon(CAPTURE, name=name, plan=plan, **paths)
    for name, command in CALIBRATE.items():
        if not (work / f"{name}.json").exists():
            gnomon(command, **paths)
    started = time.monotonic()
    gnomon(RECONSTRUCT, **paths)
    seconds = time.monotonic() - started

    true = twin.maps("hills", "top")
    normals = read_normals(work / "result")
    depth = read_exr(work / "result/depth.exr")["Z"]
    where = (true.thing >= 0) & (true.thing <= BALL) & (twin.lit_count("hills", "top") >= 4)
    yield from lights(load_model(work / "lights.json", LightSet), twin)
    for name, part in (("object", where), ("its ball", where & (true.thing == BALL))):
        bounds = (NORMALS_DEG, DEPTH_MM) if name == "object" else (None, None)
        yield from compared(name, normals, depth, true.normals, true.depth_mm, part, bounds)
    yield Metric(quantity="reconstruct: duration", value=seconds, unit="s", note="this machine")


def lights(found: LightSet, twin: Twin) -> Iterator[Metric]:
    """Places of the LEDs, as what follows rests on them."""
    true = twin.lights("top")
    off = [
        np.linalg.norm(np.subtract(light.position_mm, true[name].position_mm))
        for name, light in found.lights.items()
        if isinstance(light, NearLight)
    ]
    yield Metric(quantity="LEDs: position, median error", value=float(np.median(off)), unit="mm")


def compared(
    name: str,
    normals: NDArray[np.float32],
    depth: NDArray[np.float32],
    true_normals: NDArray[np.float32],
    true_depth: NDArray[np.float32],
    where: NDArray[np.bool_],
    bounds: tuple[float | None, float | None],
) -> Iterator[Metric]:
    """Errors over ``where``; of depth as it is written, with no alignment of scale or offset."""
    turned = angle_deg(normals, true_normals)[where]
    off = np.abs(depth - true_depth)[where]
    solved = np.isfinite(turned) & np.isfinite(off)
    yield Metric(
        quantity=f"{name}: normals, mean error", value=float(turned[solved].mean()), unit="°",
        bound=bounds[0], note="pixels that 4 lights reach or more",
    )  # fmt: skip
    yield Metric(
        quantity=f"{name}: depth, mean error", value=float(off[solved].mean()), unit="mm", bound=bounds[1],
        note="as written: its scale is the lights'",
    )  # fmt: skip
    yield Metric(quantity=f"{name}: depth, median error", value=float(np.median(off[solved])), unit="mm")
    yield Metric(quantity=f"{name}: share solved", value=100 * float(solved.mean()), unit="%")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="keep sessions, models and results here")
    parser.add_argument("--quick", action="store_true", help="take the true lens instead of calibrating one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            rows = list(near_twin(options.work or Path(temporary), quick=options.quick))
        except CommandError as error:
            raise SystemExit(str(error)) from None
    print(table(rows))
    return int(any(row.passed is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
