"""Cameras for a process of their own; run as a script it opens one and waits to be killed.

python isolated_fakes.py MARK
"""

import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from capture.devices import Camera, CameraLimits, DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.drivers.isolated import Isolated, IsolatedTriggered, process
from capture.frame import Frame

LIMITS = CameraLimits(
    exposure_min_s=1e-5, exposure_max_s=10, gain_max_db=24, width=8, height=6, pixel_format="Mono12"
)
KINDS = (DeviceError, FrameLost, SettingRefused, DeviceLost, ValueError)


class FakeConfig(CameraLimits):
    """A camera that fails as its gain says, see ``FakeCamera``; the file ``mark`` exists while it is open."""

    driver: Literal["fake"] = "fake"
    isolate: bool = True
    triggered: bool = False
    fault: str = ""
    mark: Path | None = None

    def open(self, name: str) -> Camera:
        if self.isolate:
            return (IsolatedTriggered if self.triggered else Isolated)(name, self)
        if self.fault == "import":
            raise ValueError(f"camera {name}: driver fake wants the package nothing")
        return (TriggeredFake if self.triggered else FakeCamera)(name, self)


def config(**changes: Any) -> FakeConfig:
    return FakeConfig.model_validate(LIMITS.model_dump() | changes)


class FakeCamera:
    """Gains above 10 dB are faults: 11 to 15 kinds of errors, 20 sleeps, 21 writes and sleeps, 22 ends."""

    def __init__(self, name: str, config: FakeConfig) -> None:
        self.name, self.limits, self._config = name, config.limits, config
        self._frames = 100

    @property
    def identity(self) -> dict[str, str]:
        return {"model": "fake", "serial": f"of {self.name}"}

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        self._frames += 1
        fault = int(gain_db)
        print("chatter of an SDK", flush=True)
        os.write(1, b"chatter of its native code\n")
        if self._config.fault == "seventh" and self._frames == 107:
            os.kill(os.getpid(), signal.SIGSEGV)
        if 11 <= fault <= 15:
            kind = KINDS[fault - 11]
            raise kind("told: so") if kind is ValueError else kind(self.name, "told: so")
        if fault == 21:
            print("stuck in the SDK", file=sys.stderr, flush=True)
        if fault in (20, 21):
            if self._config.mark is not None:
                self._config.mark.with_suffix(".busy").touch()
            time.sleep(60)
        if fault == 22:
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(7)
        dn = np.arange(48, dtype=np.uint16).reshape(6, 8).copy()
        dn[0, 0] = os.getpid() % 4096
        return Frame(
            dn=dn,
            pixel_format="Mono12",
            exposure_s=exposure_s,
            gain_db=gain_db,
            frame_id=self._frames,
            timestamp_ns=time.time_ns(),
            black_level_dn=64.0,
        )

    def __enter__(self) -> Self:
        fault = self._config.fault
        if fault == "lost":
            raise DeviceLost(self.name, "no such serial number")
        if fault == "once" and self._config.mark is not None:
            # opens once only, as a camera that was pulled out after
            if self._config.mark.exists():
                raise DeviceLost(self.name, "no such serial number")
            self._config.mark.touch()
        if fault == "hangs again" and self._config.mark is not None:
            # opens once only, and hangs when it is to open again
            if self._config.mark.exists():
                time.sleep(60)
            self._config.mark.touch()
        if fault == "crash":
            os.abort()
        if self._config.mark is not None and fault not in ("once", "hangs again"):
            self._config.mark.write_text(str(os.getpid()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._config.mark is not None and self._config.fault not in ("once", "hangs again"):
            self._config.mark.unlink()


class TriggeredFake(FakeCamera):
    """Takes bursts."""

    def burst(self, settings: Sequence[tuple[float, float]], deadline_s: float) -> Generator[Frame]:
        for exposure_s, gain_db in settings:
            yield self.expose(exposure_s, gain_db, deadline_s)


if __name__ == "__main__":
    from isolated_fakes import config as importable

    process.CLOSE_S = 0.3
    with importable(mark=Path(sys.argv[1])).open("main") as camera:
        camera.expose(0.01, 20.0, 60.0)
