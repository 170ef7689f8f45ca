"""Work that reads every pixel: merge, undistortion, frames to disk, the twin."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from speed import Candidate, Row, Table, compare

from calibration.lens import BrownConrady, undistort_image, undistorter
from calibration.lens.undistortion.maps import make_maps
from calibration.radiometric import Radiance, RadiometricModel
from calibration.radiometric.merge import merge, merge_value
from capture.frame import Frame
from capture.plan import CapturePlan
from capture.session import Session
from rigs.simulated import Twin, load_truth

TRUTH = Path(__file__).resolve().parents[2] / "configs" / "truths" / "dome.yaml"
SHAPE = (3000, 4096)
GAIN, BLACK, READ_E, FULL_DN = 0.125, 64.0, 7.0, 4095


@njit(parallel=True, cache=True)
def _sum(words: NDArray[np.uint64]) -> np.uint64:  # pragma: no cover - compiled
    total = np.uint64(0)
    for index in prange(words.size):
        total += words[index]
    return total


def read_bandwidth() -> float:
    """Bytes a second that all threads together sum, from memory that no cache holds."""
    words = np.ones(1_200_000_000 // 8, np.uint64)
    table = compare("read", [Candidate("read", lambda: _sum(words), turns=5)])
    return words.nbytes / table.rows[0].seconds


@njit(parallel=True, cache=True, fastmath=True)
def _sum_nine(frames: tuple[NDArray[np.uint16], ...]) -> int:  # pragma: no cover - compiled
    """Sum of nine frames at once, row by row: little more than the reading of them."""
    a, b, c, d, e, f, g, h, i = frames
    total = 0
    for row in prange(a.shape[0]):
        part = np.uint32(0)
        for x in range(a.shape[1]):
            part += np.uint32(a[row, x]) + np.uint32(b[row, x]) + np.uint32(c[row, x])
            part += np.uint32(d[row, x]) + np.uint32(e[row, x]) + np.uint32(f[row, x])
            part += np.uint32(g[row, x]) + np.uint32(h[row, x]) + np.uint32(i[row, x])
        total += np.int64(part)
    return total


@njit(parallel=True, cache=True, fastmath=True)
def _sum_three(frames: tuple[NDArray[np.uint16], ...]) -> int:  # pragma: no cover - compiled
    a, b, c = frames
    total = 0
    for row in prange(a.shape[0]):
        part = np.uint32(0)
        for x in range(a.shape[1]):
            part += np.uint32(a[row, x]) + np.uint32(b[row, x]) + np.uint32(c[row, x])
        total += np.int64(part)
    return total


def exposures(count: int) -> tuple[list[NDArray[np.uint16]], NDArray[np.floating], NDArray[np.floating]]:
    """``count`` frames of a ramp over two decades, 12 bits and noisy, each twice as long as the last."""
    rng = np.random.default_rng(count)
    h, w = SHAPE
    ramp = (
        np.geomspace(5e4, 4e6, w, dtype=np.float32)[None, :]
        * np.linspace(0.7, 1.3, h, dtype=np.float32)[:, None]
    )
    times = 0.002 * 2.0 ** np.arange(count)
    noise = rng.standard_normal(SHAPE, np.float32)
    frames = []
    for number, seconds in enumerate(times):
        electrons = ramp * np.float32(seconds)
        dn = BLACK + GAIN * (electrons + np.sqrt(electrons + READ_E**2) * np.roll(noise, 977 * number))
        frames.append(np.clip(np.rint(dn), 0, FULL_DN).astype(np.uint16))
    return frames, times, ramp


def _numpy_loop(frames: list[NDArray[np.uint16]], times: NDArray[np.floating]) -> NDArray[np.float32]:
    """Frame by frame with weights from each sample's own noise, as one would write it down."""
    total = np.zeros(SHAPE, np.float32)
    weights = np.zeros(SHAPE, np.float32)
    for frame, seconds in zip(frames, times, strict=True):
        electrons = (frame.astype(np.float32) - np.float32(BLACK)) / np.float32(GAIN)
        variance = np.maximum(electrons, 0) + np.float32(READ_E**2)
        weight = np.where(frame < FULL_DN, np.float32(seconds**2) / variance, np.float32(0))
        total += weight * electrons / np.float32(seconds)
        weights += weight
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / weights)


def merging(count: int, bandwidth: float) -> Table:
    """Merge of ``count`` frames of 12 MP."""
    frames, times, true = exposures(count)
    model = RadiometricModel.nominal("Mono12", SHAPE).replace(
        black_dn=BLACK, gain_dn_per_e=GAIN, read_noise_e=READ_E, saturation_dn=float(FULL_DN)
    )
    size = sum(frame.nbytes for frame in frames)

    def judge(value: NDArray[np.float32]) -> str:
        with np.errstate(invalid="ignore", divide="ignore"):
            off = np.abs(value / true - 1)
        seen = np.isfinite(off)
        far = 100 * np.mean(off[seen] > 0.1)
        return f"median {100 * np.median(off[seen]):.2g} %, {far:.2g} % of pixels > 10 %"

    # 16-bit input wants its full range
    shifted = [frame << 4 for frame in frames]
    seconds = times.astype(np.float32)

    def debevec() -> NDArray[np.float32]:
        return np.asarray(cv2.createMergeDebevec().process(shifted, seconds), np.float32)

    def judge_debevec(value: NDArray[np.float32]) -> str:
        return judge(value * np.float32(np.nanmedian(true / np.maximum(value, 1e-30))))

    out = Radiance(np.empty(SHAPE, np.float32), np.empty(SHAPE, np.float32))
    together = tuple(frames)
    read = {3: _sum_three, 9: _sum_nine}[count]
    table = compare(
        f"merge {count} uint16 frames, 12.3 MP",
        [
            Candidate("gnomon, with variance", lambda: merge(frames, times, model).value, judge, turns=9),
            Candidate("the same, into arrays at hand", lambda: merge(frames, times, model, out=out), turns=9),
            Candidate("gnomon, value alone", lambda: merge_value(frames, times, model), judge, turns=9),
            Candidate(
                "the same, into an array at hand",
                lambda: merge_value(frames, times, model, out=out.value),
                turns=9,
            ),
            Candidate("bare read of the frames, all at once", lambda: read(together), turns=9),
            Candidate("numpy, frame by frame", lambda: _numpy_loop(frames, times), judge, turns=1),
            Candidate("OpenCV MergeDebevec", debevec, judge_debevec, turns=1),
        ],
        read_bytes=size,
    )
    words = Row("read as uint64, frames long in memory", size / bandwidth, size)
    return Table(table.work, (*table.rows, words))


def undistorting() -> Table:
    """Undistortion of 12 MP uint16: maps at hand, made anew, and made by the model at every pixel."""
    h, w = SHAPE
    lens = BrownConrady(
        width=w, height=h, fx=4000.0, fy=4000.0, cx=w / 2, cy=h / 2, k1=-0.1, k2=0.05, p1=3e-4, p2=-2e-4
    )
    image = np.random.default_rng(1).integers(0, 4096, SHAPE, dtype=np.uint16)
    matrix = np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
    coefficients = np.array([lens.k1, lens.k2, lens.p1, lens.p2, lens.k3])
    by = undistorter(lens)

    def theirs() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return cv2.initUndistortRectifyMap(matrix, coefficients, None, matrix, (w, h), cv2.CV_32FC1)

    maps = theirs()
    expected = cv2.remap(image, *maps, cv2.INTER_LINEAR).astype(np.float32)

    def judge(found: NDArray[np.uint16]) -> str:
        # the border is left out: there the two treat what lies outside differently
        inner = np.abs(found.astype(np.float32) - expected)[20:-20, 20:-20]
        return f"differs from remap by {np.sqrt(np.mean(inner**2)):.2g} DN rms"

    def judge_maps(found: Sequence[NDArray[np.float32]]) -> str:
        off = max(np.abs(a - b)[20:-20, 20:-20].max() for a, b in zip(found, maps, strict=False))
        return f"differs from OpenCV's maps by {off:.1g} px at most"

    straight = np.eye(3)
    return compare(
        "undistort 12.3 MP uint16",
        [
            Candidate("gnomon", lambda: undistort_image(lens, image).image, judge, turns=15),
            Candidate(
                "cv2.remap with OpenCV's maps", lambda: cv2.remap(image, *maps, cv2.INTER_LINEAR), turns=15
            ),
            Candidate("gnomon, the maps", lambda: make_maps(lens, by.view, straight), judge_maps),
            Candidate("cv2.initUndistortRectifyMap", theirs),
            Candidate("cv2.undistort", lambda: cv2.undistort(image, matrix, coefficients), judge),
        ],
        read_bytes=image.nbytes,
    )


def writing(folder: Path | None = None) -> Table:
    """A session of 8 frames of 12 MP, photon noise: TIFF, hash, journal, fsync, rename; and bare bytes."""
    count = 8
    plan = CapturePlan.model_validate(
        {
            "name": "speed",
            "blocks": [
                {
                    "kinds": "object",
                    "pose": "x",
                    "cameras": "a",
                    "bracket": {"exposures_s": 1},
                    "repeats": count,
                }
            ],
        }
    )
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    scene = 800 + 600 * np.sin(columns / 300) * np.cos(rows / 200)
    dn = np.random.default_rng(2).poisson(scene).astype(np.uint16)
    size = count * dn.nbytes
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)

        def session(compress: bool = False) -> None:
            path = place / f"s{time.monotonic_ns()}"
            new = Session.create(path, plan, {})
            with new.writer(compress=compress) as writer:
                for shot in new.pending():
                    frame = Frame(
                        dn=dn, pixel_format="Mono12", exposure_s=1.0, gain_db=0.0,
                        frame_id=shot.index, timestamp_ns=shot.index,
                    )  # fmt: skip
                    writer.put(shot, frame)
            new.finish()

        def bare() -> None:
            for number in range(count):
                with open(place / f"b{number}", "wb", buffering=0) as file:
                    file.write(dn.data)
                    os.fsync(file.fileno())

        return compare(
            "write 8 frames of 12.3 MP to a session",
            [
                Candidate("gnomon: TIFF, SHA-256, journal", session, turns=4),
                Candidate("the same with Zstandard", lambda: session(True), turns=4),
                Candidate("write and fsync", bare, turns=4),
            ],
            read_bytes=size,
        )


def twin() -> list[Table]:
    """The dome of the demo, 2.3 MP: a pose, a light more, an exposure with its noise."""
    truth = load_truth(TRUTH)
    camera = next(iter(truth.cameras))
    lamps = [name for name in truth.lights if name.startswith("led")]
    new = Twin(truth)
    new.show("relief")

    def first() -> None:
        new.clean_radiance("relief", {lamps[0]: 1.0}, camera)

    start = time.perf_counter()
    first()
    pose = time.perf_counter() - start
    times = []
    for lamp in lamps[1:6]:
        start = time.perf_counter()
        new.clean_radiance("relief", {lamp: 1.0}, camera)
        times.append(time.perf_counter() - start)
    new.set_light(lamps[1], 1.0)
    frame = compare("", [Candidate("", lambda: new.expose(camera, 0.02, 0.0), turns=5)])
    return [
        Table("twin: first picture of a pose, 2.3 MP, rays and all", (Row("gnomon", pose),)),
        Table("twin: another light on it", (Row("gnomon", min(times)),)),
        Table("twin: an exposure of a picture it has, sensor noise", (Row("gnomon", frame.rows[0].seconds),)),
    ]
