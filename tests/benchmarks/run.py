"""Speed beside peers and accuracy beside bounds: ``make bench`` writes docs/benchmarks.md.

Everything is timed in this one process, each piece of work in turn with its peers: the ratios hold where the
times do not. An idle machine gives better times.
"""

import argparse
import contextlib
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import speed
import speed_capture
import speed_fits
import speed_images
import speed_packing
import speed_photometric
import speed_response
import speed_sensor
import speed_surface

from rigs import demo
from rigs.report import Metric

ROOT = Path(__file__).resolve().parents[2]


def processor() -> str:
    """Name of the processor, as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def blas_kernel() -> str:
    """Which BLAS numpy calls, and which of its kernels runs: an environment variable may pin an old one."""
    build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    name = f"{build['name']} {build['version']}"
    for library in (Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*"):
        loaded = ctypes.CDLL(str(library))
        for symbol in ("scipy_openblas_get_corename64_", "openblas_get_corename64_", "openblas_get_corename"):
            if hasattr(loaded, symbol):
                ask = getattr(loaded, symbol)
                ask.restype = ctypes.c_char_p
                name += f", kernel {ask().decode()}"
                break
    pinned = os.environ.get("OPENBLAS_CORETYPE")
    return name + (f" (pinned by OPENBLAS_CORETYPE={pinned})" if pinned else "")


def machine(bandwidth: float, load: float) -> str:
    """What the figures were made on."""
    packages = ("numpy", "scipy", "opencv-python-headless", "numba", "gnomon")
    threads = {
        name: os.environ[name] for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ
    }
    rows = {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "BLAS": blas_kernel(),
        "threads": ", ".join(f"{name}={value}" for name, value in threads.items()) or "as many as cores",
        "read bandwidth, all threads": f"{bandwidth / 1e9:.1f} GB/s",
        "load when begun": f"{load:.1f}"
        + (" (other work ran: times are too long, ratios may be off)" if load > 0.7 else ""),
    }
    return "\n".join(["| machine | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())])


def start_up() -> list[speed.Table]:
    """Time from the shell to the help text, and to the first line of a command that computes."""
    program = Path(sys.executable).with_name("gnomon")
    tables = []
    for words in (("--help",), ("devices",)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([program, *words], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        tables.append(speed.Table(f"`gnomon {' '.join(words)}`", (speed.Row("gnomon", min(times)),)))
    return tables


def accuracy(folder: Path) -> str:
    """Table of the demo's bounds; the demo is run if its numbers are not there."""
    path = folder / "metrics.json"
    if not path.exists():
        demo.run(folder)
    lines = ["| quantity | measured | bound | share of the bound |", "|---|---|---|---|"]
    for row in json.loads(path.read_text())["metrics"]:
        metric = Metric.model_validate(row)
        if metric.bound is None:
            continue
        share = metric.bound / metric.value if metric.at_least else metric.value / metric.bound
        sign = "≥" if metric.at_least else "≤"
        mark = "" if metric.passed else " **missed**"
        lines.append(
            f"| {metric.quantity} | {metric.value:.3g} {metric.unit} | {sign} {metric.bound:g} {metric.unit} "
            f"| {100 * share:.0f} %{mark} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=ROOT / "out" / "demo", help="folder of a demo run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    chosen = parser.parse_args()
    begun, load = time.monotonic(), os.getloadavg()[0]
    bandwidth = speed_images.read_bandwidth()
    tables: list[speed.Table] = []
    for part in (
        lambda: [speed_images.merging(3, bandwidth)],
        lambda: [speed_images.merging(9, bandwidth)],
        lambda: speed_photometric.tables(bandwidth),
        speed_fits.photometric,
        speed_surface.tables,
        lambda: [speed_sensor.photon_transfer()],
        speed_response.tables,
        lambda: [speed_images.undistorting()],
        lambda: [speed_fits.lens()],
        lambda: [speed_fits.spheres(speed_images.TRUTH)],
        lambda: [speed_images.writing()],
        speed_packing.tables,
        speed_capture.tables,
        speed_images.twin,
        start_up,
    ):
        for table in part():
            tables.append(table)
            print(
                f"{time.monotonic() - begun:6.1f} s  {table.work}: {table.rows[0].seconds:.3g} s", flush=True
            )
    text = f"""# Benchmarks

Written by `make bench` (`tests/benchmarks/run.py`). Times are the best of a few runs, compilation not
counted; peers ran in the same process, in turn with gnomon. "× gnomon" is the peer's time over gnomon's:
above 1 gnomon is faster. Rate is input read over time.

## Machine

{machine(bandwidth, load)}

## Speed

{speed.markdown(tables)}

What the peers do not do: OpenCV's merge gives no variance and knows no sensor. The least-squares peers have
no error bars and no shadow test. `cv2.remap` is the bare resampling with its maps at hand; the picture is
white noise, on which every rounding of a place shows. A bare write has no hash, journal or rename. SuperLU
and pyamg solve the same equations without the weights, with the matrix made beforehand. One photometric
sample in ten is a shadow or a highlight.

## Accuracy

Measured by the demo (`gnomon demo`) on the simulated dome, every model fitted from its captured frames alone.

{accuracy(chosen.demo)}

Real photographs: `make real`.
"""
    chosen.out.write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - begun:6.1f} s  {chosen.out}")


if __name__ == "__main__":
    main()
