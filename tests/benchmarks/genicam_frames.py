"""A thousand frames of each of two GenTL producers, at the producer's rate: none lost, none torn, no growth.

    python tests/benchmarks/genicam_frames.py [COUNT]

Every buffer is hashed twice while it is ours, about the copy that becomes the frame, and every frame again
after eight more have come: a buffer that was written meanwhile, or a frame that shares its memory, is found.
"""

import hashlib
import sys
import time
from collections import deque
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "capture"))

import genicam_counterparts

from capture.devices import DeviceError
from capture.drivers.genicam.config import GenicamCameraConfig
from capture.drivers.genicam.stream import Picture, Stream

LIMIT_MB = 5.0
WARM = 100


def digest(data: object) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()  # type: ignore[arg-type]


class Watched:
    """`Stream._picture`, with a look at the image in the buffer before and after."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.torn = 0
        self.take = Stream._picture

    def __call__(self, stream: Stream, raw: object) -> Picture:
        size = self.size
        data = np.frombuffer(raw.raw_buffer, np.uint8)[:size]  # type: ignore[attr-defined]
        before = digest(data)
        picture = self.take(stream, raw)
        self.torn += not before == digest(np.ascontiguousarray(picture.dn)) == digest(data)
        return picture


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def check(name: str, config: GenicamCameraConfig, count: int) -> bool:
    """Take frames in bursts, or one by one, and tell what became of them."""
    watched = Watched(config.width * config.height)
    Stream._picture = lambda stream, raw: watched(stream, raw)  # type: ignore[method-assign]
    numbers: list[int] = []
    recent: deque[tuple[object, bytes]] = deque(maxlen=8)
    shared = lost = 0
    try:
        with config.open(name) as camera:

            def keep(frame: object) -> None:
                nonlocal shared
                numbers.append(frame.frame_id)  # type: ignore[attr-defined]
                if len(recent) == recent.maxlen:
                    old, was = recent[0]
                    shared += digest(old) != was
                recent.append((frame.dn, digest(frame.dn)))  # type: ignore[attr-defined]

            exposure_s = config.fixed_exposure_s or 0.005
            for _ in range(3):
                camera.expose(exposure_s, 0.0, 5.0)

            def take(number: int) -> None:
                nonlocal lost
                if config.trigger == "software":
                    for _ in range(number):
                        try:
                            keep(camera.expose(exposure_s, 0.0, 5.0))
                        except DeviceError:
                            lost += 1
                else:
                    with closing(camera.burst([(exposure_s, 0.0)] * number, 5.0)) as frames:
                        for frame in frames:
                            keep(frame)

            take(WARM)
            numbers.clear()
            memory, start = resident_mb(), time.monotonic()
            take(count)
            seconds, growth = time.monotonic() - start, resident_mb() - memory
    finally:
        Stream._picture = watched.take  # type: ignore[method-assign]
    gaps = sum(b - a - 1 for a, b in pairwise(numbers))
    good = gaps == lost == watched.torn == shared == 0 and len(numbers) == count and growth <= LIMIT_MB
    print(
        f"{name}: {len(numbers)} frames of {config.width} x {config.height} in {seconds:.1f} s, "
        f"{len(numbers) / seconds:.0f} a second; gaps {gaps}, lost {lost}, torn {watched.torn}, "
        f"overwritten {shared}; memory grew by {growth:.1f} MB: {'good' if good else 'BAD'}",
        flush=True,
    )
    return good


def main() -> None:
    """Check both."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    good = []
    if genicam_counterparts.viky() is None:
        print("viky: skipped, the genicam package has no viky.cti")
    else:
        config = genicam_counterparts.viky_config(width=400, height=400)
        good.append(check("viky, free", config, count))
    if genicam_counterparts.tlsimu() is None:
        print("TLSimu: skipped, it cannot be fetched")
    else:
        for trigger in ("free", "software"):
            config = genicam_counterparts.tlsimu_config(width=512, height=512, trigger=trigger)
            good.append(check(f"TLSimu, {trigger}", config, count))
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
