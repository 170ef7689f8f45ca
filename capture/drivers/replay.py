"""Recorded images as a camera: a session, or a folder of pictures in natural order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from capture.devices import CameraLimits, DeviceError, DeviceLost, Encoding, SettingRefused
from capture.frame import Frame
from capture.session import Session, SessionError, Stack

_JPEG = {".jpg", ".jpeg"}
_ENDINGS = {".tif", ".tiff", ".png", ".bmp", *_JPEG}


class ReplayCameraConfig(CameraLimits):
    """A camera that plays a recording.

    Attributes
    ----------
    path : Path
        A session, or a folder of TIFF, PNG, BMP or JPEG images; their names sort naturally, 2 before 10.
    camera : str or None
        Which camera of a session with several.
    exposures_s : tuple of float
        For a folder: the exposure of each image, repeated over and over when there are fewer than images.
    gain_db : float
        For a folder: the gain of all images.
    first : int
        Where in the recording to begin. A recording knows nothing of lights and poses: a capture that is
        resumed from it must begin at the first pending shot.
    """

    driver: Literal["replay"] = "replay"
    sequence: Literal[False] = False
    path: Path
    camera: str | None = None
    exposures_s: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value),
    ] = ()
    gain_db: float = 0.0
    first: int = Field(default=0, ge=0)

    @property
    def encoding(self) -> Encoding | None:
        """What the recorded session says of its numbers; of a folder, what kind of files they are."""
        if (self.path / "plan.json").exists():
            told = Session.open(self.path).facts.get("encoding", {})
            mine = told.get(self.camera) if self.camera is not None else next(iter(told.values()), None)
            return Encoding(mine["kind"], mine["why"]) if mine and mine["kind"] != "linear" else None
        if self.path.is_dir() and any(entry.suffix.lower() in _JPEG for entry in self.path.iterdir()):
            return Encoding("gamma", "JPEG")
        return Encoding("unknown", "")

    def open(self, name: str) -> "ReplayCamera":
        """Find the recording; ValueError or SessionError where there is none."""
        if (self.path / "plan.json").exists():
            stack = Session.open(self.path).stack(self.camera)
            settings = [(record.shot.exposure_s, record.shot.gain_db) for record in stack.records]
            recording = Recording(stack, tuple(settings), stack.records[0].pixel_format if settings else "")
        else:
            recording = _folder(name, self.path, self.exposures_s, self.gain_db, self.pixel_format)
        return ReplayCamera(name, self.limits, recording, self.first)


@dataclass(frozen=True, eq=False)
class Recording:
    """Images and the ``(exposure_s, gain_db)`` that was asked for each."""

    images: "Sequence[NDArray[np.generic]]"
    settings: tuple[tuple[float, float], ...]
    pixel_format: str


class ReplayCamera:
    """Gives the images of a recording one after the other, each only for the settings it was taken with."""

    def __init__(self, name: str, limits: CameraLimits, recording: Recording, first: int = 0) -> None:
        self.name = name
        self.limits = limits
        self._recording = recording
        self._next = first
        self._served = 0
        self._open = False

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Return the next image.

        Raises
        ------
        SettingRefused
            The next image was taken with other settings; it stays the next.
        DeviceLost
            The recording has ended.
        DeviceError
            The image cannot be read, or is not of the pixel format the rig file gives.
        """
        if not self._open:
            raise DeviceError(self.name, "is not open")
        if self._next >= len(self._recording.settings):
            raise DeviceLost(self.name, f"the recording ends after {len(self._recording.settings)} frames")
        recorded_s, recorded_db = self._recording.settings[self._next]
        if not np.allclose([exposure_s, gain_db], [recorded_s, recorded_db], rtol=1e-9, atol=0):
            raise SettingRefused(
                self.name,
                f"frame {self._next} was recorded with {recorded_s:g} s and {recorded_db:g} dB, "
                f"not {exposure_s:g} s and {gain_db:g} dB",
            )
        try:
            frame = self._frame(recorded_s, recorded_db)
        except (SessionError, OSError, ValueError) as error:
            raise DeviceError(self.name, f"frame {self._next} of the recording: {error}") from None
        self._next += 1
        self._served += 1
        return frame

    def _frame(self, exposure_s: float, gain_db: float) -> Frame:
        images = self._recording.images
        image = images[self._next]
        if not isinstance(images, Stack):
            return Frame(
                dn=image,
                pixel_format=self._recording.pixel_format,
                exposure_s=exposure_s,
                gain_db=gain_db,
                frame_id=self._served,
                timestamp_ns=self._served,
            )
        record = images.records[self._next]
        return Frame(
            dn=image,
            pixel_format=record.pixel_format,
            exposure_s=record.exposure_s,
            gain_db=record.gain_db,
            frame_id=self._served,
            timestamp_ns=record.timestamp_ns,
            black_level_dn=record.black_level_dn,
            temperature_c=record.temperature_c,
        )

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False


class _Files(Sequence[NDArray[np.generic]]):
    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.generic]:  # type: ignore[override]
        return _read(self._paths[index])


def _folder(
    name: str, path: Path, exposures_s: tuple[float, ...], gain_db: float, pixel_format: str
) -> Recording:
    if not path.is_dir():
        raise ValueError(f"camera {name}: {path} is neither a session nor a folder of images")
    paths = sorted((entry for entry in path.iterdir() if entry.suffix.lower() in _ENDINGS), key=_natural)
    if not paths:
        raise ValueError(f"camera {name}: {path} holds no TIFF, PNG, BMP or JPEG image")
    if not exposures_s:
        raise ValueError(f"camera {name}: {path} is a folder of images: give exposures_s, their exposures")
    settings = tuple((exposures_s[number % len(exposures_s)], gain_db) for number in range(len(paths)))
    return Recording(_Files(paths), settings, pixel_format)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _read(path: Path) -> NDArray[np.generic]:
    import cv2

    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise ValueError(f"{path} is not a readable image")
    if image.ndim == 3:
        if image.shape[2] == 4:
            image = image[:, :, :3]
        image = np.ascontiguousarray(image[:, :, ::-1])
    return np.asarray(image)
