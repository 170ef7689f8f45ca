"""Photon transfer over a session of 12 MP frames: time against reading them, and peak memory."""

import argparse
import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import speed
from numpy.typing import NDArray

from calibration.radiometric import RadiometricModel, fit_sensor
from capture.frame import Frame
from capture.plan import CapturePlan
from capture.session import Session

SHAPE = (3000, 4096)
GAIN, BLACK, READ_E, DSNU_E, PRNU, DARK_E_S, FULL_DN = 0.125, 64.0, 7.0, 3.0, 0.01, 50.0, 4095
CAPACITY_E = (FULL_DN - BLACK) / GAIN
RATE_E_S = CAPACITY_E / 0.02
SPATIAL_REPEATS = 25


class Sensor:
    """Twelve-bit frames of a vignetted target, fast: Gaussian shot noise from a few shuffled images of it."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(12)
        h, w = SHAPE
        y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)
        self.noise = [self.rng.standard_normal(SHAPE, np.float32) for _ in range(3)]
        self.pattern = (1 - 0.15 * (x * x + y * y)) * (1 + np.float32(PRNU) * self.noise[0][::-1])
        self.offset = np.float32(DSNU_E) * self.noise[1][:, ::-1]
        self.rate = np.float32(DARK_E_S) * (1 + np.float32(0.3) * self.noise[2][::-1, ::-1])

    def frame(self, exposure_s: float, light: float) -> NDArray[np.uint16]:
        """One exposure; ``light`` in e-/s."""
        electrons = (self.pattern * np.float32(light) + self.rate) * np.float32(exposure_s)
        down, right = self.rng.integers(0, SHAPE[0]), self.rng.integers(0, SHAPE[1])
        own = np.roll(self.noise[self.rng.integers(3)], (down, right), (0, 1))
        np.multiply(own, np.sqrt(np.maximum(electrons, 0) + np.float32(READ_E**2)), out=own)
        own += electrons
        own += self.offset
        own *= np.float32(GAIN)
        own += np.float32(BLACK)
        return np.clip(np.rint(own, out=own), 0, FULL_DN, out=own).astype(np.uint16)


def record(path: Path, levels: int, spatial: int) -> Session:
    """Session of ``levels`` pairs of flats, half as many of darks, and the two spatial series."""
    flat_s = np.linspace(0.02, 1.2, levels) * CAPACITY_E / RATE_E_S
    dark_s = np.linspace(0.001, 0.1, max(levels // 2, 2))
    blocks = [
        (kind, exposures, repeats)
        for kind, exposures, repeats in (
            ("flat", flat_s, 2),
            ("flat", [0.5037 * CAPACITY_E / RATE_E_S], spatial),
            ("dark", dark_s, 2),
            ("dark", [0.02037], spatial),
        )
        if repeats
    ]
    plan = CapturePlan.model_validate(
        {
            "name": "speed",
            "blocks": [
                {
                    "kinds": kind, "pose": "x", "cameras": "a", "repeats": repeats,
                    "bracket": {"exposures_s": [float(t) for t in exposures]},
                }
                for kind, exposures, repeats in blocks
            ],
        }
    )  # fmt: skip
    sensor = Sensor()
    session = Session.create(path, plan, {})
    with session.writer() as writer:
        for shot in session.pending():
            dn = sensor.frame(shot.exposure_s, 0.0 if "dark" in shot.kinds else RATE_E_S)
            frame = Frame(
                dn=dn, pixel_format="Mono12", exposure_s=shot.exposure_s, gain_db=0.0,
                frame_id=shot.index, timestamp_ns=shot.index,
            )  # fmt: skip
            writer.put(shot, frame)
    session.finish()
    return session


def fit(path: Path) -> RadiometricModel:
    """The work: nothing of the session is known from before, so that every hash is checked."""
    stack = Session.open(path).stack("a")
    flats, darks = stack.select(kind="flat"), stack.select(kind="dark")
    return fit_sensor(flats, flats.exposure_s, darks, darks.exposure_s, pixel_format="Mono12")


def read(path: Path) -> int:
    """Every frame of the session once, its hash checked."""
    return sum(frame.size for frame in Session.open(path).stack("a"))


def read_bare(path: Path) -> int:
    """Every file of the session once, into memory and no more."""
    return sum(len(file.read_bytes()) for file in sorted((path / "frames").rglob("*.tif*")))


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Most bytes that this process holds above where it began, sampled each 2 ms; 0 where not told."""
    found = [0]
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield found
        return

    def resident() -> int:
        return int(statm.read_text().split()[1]) * 4096

    start, over = resident(), threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            found[0] = max(found[0], resident() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def photon_transfer(levels: int = 15, spatial: int = 0, folder: Path | None = None) -> speed.Table:
    """Sensor calibration from a session of 12 MP frames, against reading it.

    With 50 levels and 75 spatial repeats these are the 300 frames of the bound; fewer go at the same rate.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        small = Path(name) / "session"
        session = record(small, levels, spatial)
        count = len(session.frames)
        size = count * SHAPE[0] * SHAPE[1] * 2
        kept: list[RadiometricModel] = []

        def run() -> None:
            kept[:] = [fit(small)]

        run()
        kept.clear()
        with peak_memory() as peak:
            run()
        frames = peak[0] / (SHAPE[0] * SHAPE[1] * 2)

        def judge(_: object) -> str:
            error = abs(kept[0].gain_dn_per_e / GAIN - 1)
            return f"K off by {100 * error:.2g} %, peak memory {frames:.1f} frames"

        table = speed.compare(
            f"photon transfer, {count} frames of 12.3 MP, from a session on disk (in page cache)",
            [
                speed.Candidate("gnomon calibrate sensor: hashes, maps, data sheet", run, judge),
                speed.Candidate("reading the frames, hashes checked", lambda: read(small)),
                speed.Candidate("reading the files, no more", lambda: read_bare(small)),
            ],
            read_bytes=size,
        )
        shutil.rmtree(small)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", type=int, default=50)
    parser.add_argument("--spatial", type=int, default=75)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    begun = time.monotonic()
    print(speed.markdown([photon_transfer(chosen.levels, chosen.spatial, chosen.folder)]))
    print(f"{time.monotonic() - begun:.0f} s")
