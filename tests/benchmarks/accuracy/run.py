"""Every accuracy benchmark, in one table: ``make accuracy`` writes docs/accuracy.md.

Photographs with known answers (``real.py``), lights from balls on the twin (``lights.py``) and near light
from raw frames to depth (``near_twin.py``), as they ship, each within its bounds. Sets that are absent are
named. Peers run where ``GNOMON_PEERS`` names an interpreter that has them. Exits with 1 when a bound is
missed.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import lights
import near_twin
import real

from rigs.report import Metric

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "numba", "gnomon")
PEERS = ("dbini-torch", "torch")


def peers(python: str | None) -> str:
    """Versions of the peers that an interpreter has."""
    if not python:
        return "none: `GNOMON_PEERS` names no interpreter"
    ask = (
        "import sys; from importlib.metadata import version; "
        "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
    )
    done = subprocess.run([python, "-c", ask, *PEERS], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def markdown(metrics: Iterable[Metric]) -> str:
    """One row a metric."""
    lines = ["| data | quantity | measured | published | bound | note |", "|---|---|---|---|---|---|"]
    for metric in metrics:
        value = f"{metric.value:.4g}"
        if metric.sigma is not None and metric.sigma == metric.sigma:
            value += f" ± {metric.sigma:.2g}"
        bound = "" if metric.bound is None else f"{'≥' if metric.at_least else '≤'} {metric.bound:.4g}"
        missed = " **missed**" if metric.passed is False else ""
        truth = "" if metric.truth is None else f"{metric.truth:.5g}"
        cells = (metric.section, metric.quantity, f"{value} {metric.unit}".strip(), truth, bound + missed)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, metric.note)) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the twin's scenes")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "accuracy.md")
    options = parser.parse_args()
    begun, data = time.monotonic(), real.find_data()
    photographs: list[Metric] = []
    absent = [name for name in real.SETS if not (data / name).is_dir()]
    with tempfile.TemporaryDirectory(prefix="gnomon-accuracy-") as temporary:
        for name in real.SETS:
            if name not in absent:
                photographs += real.run(name, data, Path(temporary))
                print(f"{time.monotonic() - begun:6.1f} s  {name}", flush=True)
        if not {"psm", "two_spheres/cat"} & set(absent):
            photographs += [row.replace(section="lights") for row in lights.real(data)]
        twin = lights.twin(quick=options.quick)
        print(f"{time.monotonic() - begun:6.1f} s  lights of the twin", flush=True)
        near = list(near_twin.near_twin(Path(temporary) / "near", quick=options.quick))
        twin += [row.replace(section="near light") for row in near]
    print(f"{time.monotonic() - begun:6.1f} s  near light of the twin", flush=True)
    missing = f"\nNot there: {', '.join(absent)}.\n" if absent else ""
    text = f"""# Accuracy

Written by `make accuracy` (`tests/benchmarks/accuracy/run.py`): every model as it ships, one setting for all
data. "Published" is what the makers of the data, or a paper, give; a peer stands in rows of its own.

| | |
|---|---|
| system | {platform.system()} {platform.machine()}, Python {platform.python_version()} |
| packages | {", ".join(f"{name} {version(name)}" for name in PACKAGES)} |
| peers | {peers(os.environ.get("GNOMON_PEERS"))} |

## Photographs

{markdown(photographs)}
{missing}
## The twin

Captured with the noise, blur and saturation of a 12-bit camera; the calibration sees the frames alone.

{markdown(twin)}
"""
    options.out.write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - begun:6.1f} s  {options.out}")
    return int(any(row.passed is False for row in (*photographs, *twin)))


if __name__ == "__main__":
    sys.exit(main())
