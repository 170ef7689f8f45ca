"""Real photographs with known answers, through the same commands as anybody's: ``make real``.

Looks for the data in ``$GNOMON_DATA``, else in ``shared/data`` beside the repository; says so where they are
absent. Each set becomes a folder with a ``manifest.csv``; everything after that is ``gnomon`` commands.
Prints one table and exits with 1 when a bound is missed.

The sets and their makers: PSM (S. Seitz, University of Washington), two spheres (Xiong et al., TPAMI 2015),
Bouguet's first calibration example, EMVA 1288 set 001 (Basler), the memorial church (Debevec and Malik,
SIGGRAPH 1997), a raw exposure stack (B. Llanos), DiLiGenT (Shi et al., TPAMI 2019), depth of four of its
objects (Cao et al., ECCV 2022).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from commands import CommandError, bring_in, gnomon
from depth_maps import depth_maps
from emva import emva
from exposure_stack import exposure_stack
from objects import diligent, psm, two_spheres
from response_curves import judged

from calibration.cameras import CameraSet
from calibration.files import load_model, read_exr
from calibration.lens import LensModel
from rigs.interchange import read_image
from rigs.report import Metric

Rows = Iterator[Metric]

LENS = ["calibrate lens {work}/lens --board 'checkerboard 13x12 30' --out {work}/lens.json"]
PAIR = [
    "calibrate lens {work}/pair --camera left --board 'checkerboard 9x6 25' --model brown-5"
    " --out {work}/left.json",
    "calibrate rig {work}/pair --board 'checkerboard 9x6 25' --out {work}/cameras.json",
]
MEMORIAL = [
    "calibrate response {work}/memorial --out {work}/response.json",
    "merge {work}/memorial --sensor {work}/response.json --out {work}/hdr",
]


# --- Bouguet: lens


def bouguet_rows(data: Path) -> list[dict[str, object]]:
    return [{"file": data / f"Image{index}.tif", "kind": "board"} for index in range(1, 21)]


def bouguet(data: Path, work: Path) -> Rows:
    bring_in(work, "lens", bouguet_rows(data))
    for command in LENS:
        gnomon(command, work=work)
    lens = load_model(work / "lens.json", LensModel)
    sigma = np.full(12, np.nan) if lens.covariance is None else np.sqrt(np.diag(lens.covariance))
    boards = 0 if lens.views is None else len(lens.views)
    yield Metric(quantity="boards found of 20", value=boards, bound=19, at_least=True)
    for index, (name, published, bound) in enumerate(
        (("fx", 657.463, 0.318), ("fy", 657.947, 0.340), ("cx", 303.137, 1.0), ("cy", 242.569, 1.0))
    ):
        value = getattr(lens, name)
        yield Metric(quantity=name, value=value, truth=published, sigma=sigma[index], unit="px")
        yield Metric(
            quantity=f"{name} off the published", value=abs(value - published), unit="px", bound=bound
        )
    for index, name, published in ((4, "k1", -0.25403), (5, "k2", 0.12143)):
        yield Metric(quantity=name, value=getattr(lens, name), truth=published, sigma=sigma[index])
    yield Metric(quantity="k1 off the published", value=abs(lens.k1 + 0.25403), bound=0.005)


def opencv_pair(data: Path, work: Path) -> Rows:
    rows = [
        {"file": data / f"{side}{index:02d}.jpg", "kind": "board", "camera": side, "pose": f"{index:02d}"}
        for index in (*range(1, 10), *range(11, 15))
        for side in ("left", "right")
    ]
    bring_in(work, "pair", rows)
    for command in PAIR:
        gnomon(command, work=work)
    lens = load_model(work / "left.json", LensModel)
    assert lens.quality is not None
    yield Metric(
        quantity="left, five parameters: rms of a corner", value=np.sqrt(2) * lens.quality.residual_rms,
        truth=0.3926, unit="px", bound=0.39,
    )  # fmt: skip
    pair = load_model(work / "cameras.json", CameraSet)
    baseline = float(np.linalg.norm(pair.relative("left", "right").t_mm))
    yield Metric(quantity="baseline, of unit squares of 25", value=baseline, unit="mm")


# --- memorial: response of a camera that is not linear, merge to radiance


def memorial_rows(data: Path) -> Iterator[dict[str, object]]:
    for line in (data / "image_list.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            file, exposure = line.split()[:2]
            yield {"file": data / file, "kind": "object", "exposure_s": exposure}


def memorial(data: Path, work: Path) -> Rows:
    bring_in(work, "memorial", memorial_rows(data))
    for command in MEMORIAL:
        gnomon(command, work=work)
    (merged,) = (work / "hdr").glob("*.exr")
    channels = read_exr(merged)
    ours = np.stack([channels[letter] for letter in "RGB"], axis=-1)
    theirs = read_image(data / "memorial.hdr").dn.astype(np.float64)
    there = (theirs > 0).all(axis=-1)
    yield Metric(
        quantity="pixels with a radiance", value=100 * np.isfinite(ours).all(axis=-1)[there].mean(), unit="%",
        bound=99.0, at_least=True, note="where Debevec's map has one",
    )  # fmt: skip
    for index, (letter, opencv) in enumerate(zip("RGB", (0.992, 0.984, 0.984), strict=True)):
        both = there & (ours[..., index] > 0)
        a, b = np.log(ours[..., index][both]), np.log(theirs[..., index][both])
        yield Metric(
            quantity=f"log radiance against Debevec's, {letter}: correlation", value=np.corrcoef(a, b)[0, 1],
            bound=0.98, at_least=True, truth=opencv, note="published: OpenCV's own response and merge",
        )  # fmt: skip
        off = a - b - np.median(a - b)
        yield Metric(
            quantity=f"log radiance against Debevec's, {letter}: robust sigma",
            value=1.4826 * np.median(np.abs(off)), bound=0.16, note="OpenCV's own: 0.16 to 0.20",
        )  # fmt: skip


SETS: dict[str, Callable[[Path, Path], Rows]] = {
    "psm": psm,
    "two_spheres/cat": two_spheres,
    "lens/bouguet": bouguet,
    "lens/opencv_pair": opencv_pair,
    "emva1288/set001": emva,
    "memorial": memorial,
    "response_curves": lambda data, work: judged(data / "dorf_even.npz"),
    "raw_stack": exposure_stack,
    "diligent/ballPNG": lambda data, work: diligent(data, work, published=4.10, best=1.7),
    "diligent/catPNG": lambda data, work: diligent(data, work, published=8.41, best=5.0),
    "depth_gt": depth_maps,
}


def find_data() -> Path:
    """Return ``$GNOMON_DATA``, else ``shared/data`` beside the repository; it need not exist."""
    given = os.environ.get("GNOMON_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "data"


def table(metrics: Iterable[Metric]) -> str:
    """One line a metric."""
    head = ("data", "quantity", "value", "published", "bound", "", "note")
    lines = [head]
    for metric in metrics:
        sigma = "" if metric.sigma is None or not np.isfinite(metric.sigma) else f" ± {metric.sigma:.2g}"
        bound = "" if metric.bound is None else f"{'≥' if metric.at_least else '≤'} {metric.bound:.4g}"
        verdict = {None: "", True: "pass", False: "MISSED"}[metric.passed]
        truth = "" if metric.truth is None else f"{metric.truth:.5g}"
        value = f"{metric.value:.5g}{sigma} {metric.unit}".strip()
        lines.append((metric.section, metric.quantity, value, truth, bound, verdict, metric.note))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def run(name: str, data: Path, work: Path) -> list[Metric]:
    """Metrics of one set; a command that fails ends the set with a row that misses."""
    rows: list[Metric] = []
    try:
        rows.extend(SETS[name](data / name, work / name))
    except CommandError as error:
        rows.append(Metric(quantity="command failed", value=float("nan"), passed=False, note=str(error)))
    return [row.replace(section=name) for row in rows]


def main() -> int:
    """Run the sets that are there and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SETS, action="append", help="run this set only; may be repeated")
    parser.add_argument("--out", type=Path, help="keep sessions and results in this new folder")
    options = parser.parse_args()
    data = find_data()
    wanted = options.only or list(SETS)
    there = [name for name in wanted if (data / name).is_dir()]
    for name in wanted:
        if name not in there:
            print(f"{name}: not in {data}; set GNOMON_DATA to where the data are")
    if not there:
        return 0
    metrics: list[Metric] = []
    with tempfile.TemporaryDirectory(prefix="gnomon-real-") as temporary:
        work = options.out or Path(temporary)
        for name in there:
            print(f"{name} ...", file=sys.stderr, flush=True)
            metrics += run(name, data, work)
    print(table(metrics))
    return int(any(metric.passed is False for metric in metrics))


if __name__ == "__main__":
    sys.exit(main())
