"""Cameras that their makers emulate, as configurations; each skips, saying so, without its package."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from capture.drivers.gphoto2 import GphotoCameraConfig
from capture.drivers.micromanager import MicroManagerCameraConfig
from capture.drivers.opencv import OpencvCameraConfig
from capture.drivers.pylon import PylonCameraConfig

LIMITS = {"exposure_min_s": 1e-5, "exposure_max_s": 10.0, "readout_s": 0.01}
SHOT = np.random.default_rng(6).integers(500, 16384, (48, 64), dtype=np.uint16)
"""What the virtual camera of libgphoto2 takes, whatever is in front of it."""


def want(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        pytest.skip(f"the package {missing[0]} is not installed")


def pylon(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> PylonCameraConfig:
    """Basler's emulation: all nodes, rounding and ranges; its picture does not follow the exposure."""
    want("pypylon")
    monkeypatch.setenv("PYLON_CAMEMU", "2")
    given = {"serial": "0815-0000", "width": 64, "height": 48, "pixel_format": "Mono12", "gain_max_db": 24}
    return PylonCameraConfig.model_validate(LIMITS | given | changes)


def micromanager(**changes: Any) -> MicroManagerCameraConfig:
    """Micro-Manager's demonstration camera; its waves grow with the exposure."""
    want("pymmcore", "mm_test_adapters")
    import mm_test_adapters

    given: dict[str, Any] = {
        "folder": mm_test_adapters.device_adapter_path(),
        "library": "DemoCamera",
        "device": "DCam",
        "width": 64,
        "height": 48,
        "pixel_format": "Mono12",
        "properties": {"PixelType": "16bit", "BitDepth": 12},
    }
    return MicroManagerCameraConfig.model_validate(LIMITS | given | changes)


def gphoto2(
    monkeypatch: pytest.MonkeyPatch, folder: Path, file: bytes | None = None, **changes: Any
) -> GphotoCameraConfig:
    """libgphoto2's virtual camera on a virtual USB bus: shutter speeds, apertures, one file for all pictures.

    The camera calls the file a JPEG, whatever it is: a DNG without.
    """
    want("gphoto2", "rawpy")
    import gphoto2 as sdk

    folder.mkdir(exist_ok=True)
    (folder / "shot.jpg").write_bytes(file or dng(folder / "shot.dng", SHOT))
    # importing the package has set the variable to the real buses
    monkeypatch.setenv("IOLIBS", str(Path(sdk.__file__).parent / "libgphoto2" / "vusb"))
    monkeypatch.setenv("VCAMERADIR", str(folder))
    # to delete a picture takes it a third of a second
    given = {"width": 64, "height": 48, "pixel_format": "BayerRG14", "keep": True}
    given |= {"exposure_min_s": 1e-4, "exposure_max_s": 1.0}
    return GphotoCameraConfig.model_validate(LIMITS | given | changes)


def opencv(folder: Path, **changes: Any) -> OpencvCameraConfig:
    """OpenCV's reader of image files, which has no exposure to set; sixteen pictures."""
    import cv2

    for number in range(16):
        cv2.imwrite(str(folder / f"frame{number:02d}.png"), np.full((48, 64), 300 + number, np.uint16))
    given = {
        "source": str(folder / "frame%02d.png"),
        "backend": "images",
        "discard": 0,
        "fixed_exposure_s": 0.01,
        "width": 64,
        "height": 48,
        "pixel_format": "Mono12",
    }
    return OpencvCameraConfig.model_validate(LIMITS | given | changes)


def dng(
    path: Path,
    dn: Any,
    *,
    black: int = 512,
    white: int = 16383,
    exposure: tuple[int, int] = (0, 1),
    pattern: tuple[int, ...] = (0, 1, 1, 2),
    visible: tuple[int, int, int, int] | None = None,
) -> bytes:
    """A DNG of one Bayer picture; ``exposure`` as a fraction, of which 0/1 says nothing.

    ``visible`` is the first row and column of what is not masked, and those after the last.
    """
    camera = b"gnomon\0"
    tags: list[tuple[int, int, int, Any, bool]] = [
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),  # version
        (50708, 2, len(camera), camera, True),
        (33421, 3, 2, (2, 2), True),  # size of the colour filter's pattern
        (33422, 1, 4, bytes(pattern), True),
        (50714, 3, 1, black, True),
        (50717, 3, 1, white, True),
        (50721, 10, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),  # colour matrix
        (33434, 5, 1, exposure, True),
    ]
    if visible is not None:
        tags.append((50829, 4, 4, visible, True))
    tifffile.imwrite(path, dn, photometric=32803, extratags=tags, metadata=None, software=None)
    return path.read_bytes()


def descriptors() -> int | None:
    """How many files this process has open; None where that cannot be told."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
