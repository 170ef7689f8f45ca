"""Webcams and other video devices through OpenCV's VideoCapture: driver ``opencv``.

A last resort, for what such a stream cannot promise:

- It runs freely. There is no trigger, no frame number and no clock: pictures that were exposed before the
  lights changed are dropped by their count, ``discard``, and a lost one is not noticed.
- The camera's own processor has been at the picture: gamma, white balance, sharpening and noise reduction,
  often JPEG too. Only a raw format (``fourcc`` such as ``Y16``, ``GREY``) is near to the sensor's numbers.
- Exposure comes in steps of 0.1 ms (Video4Linux) or of a factor of two (Windows), and some cameras keep it
  below the frame time without a word. What is reported is what the device says after.
"""

import math
import re
import sys
import time
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from capture.devices import (
    Camera,
    CameraLimits,
    DeviceError,
    DeviceLost,
    Encoding,
    FrameLost,
    SettingRefused,
)
from capture.drivers.blocking import Blocking, Taken
from capture.drivers.opening import at_one_exposure, check_ranges, open_camera
from capture.frame import Frame, format_bits

Backend = Literal["v4l2", "dshow", "msmf", "avfoundation", "images"]

_PLATFORM: dict[str, Backend] = {"linux": "v4l2", "win32": "dshow", "darwin": "avfoundation"}
_MANUAL: dict[str, float] = {"v4l2": 1.0, "dshow": 0.0, "msmf": 0.0}
"""What a backend calls an exposure that is not automatic; those that have no word for it set none."""
_V4L2_UNIT_S = 1e-4
_RAW = ("GREY", "Y800", "Y8  ", "Y10 ", "Y12 ", "Y14 ", "Y16 ", "BA81", "GBRG", "GRBG", "RGGB", "BYR2")
"""Formats of a stream that are the sensor's own, as far as names can say so."""


class OpencvCameraConfig(CameraLimits):
    """A video device of OpenCV.

    Attributes
    ----------
    source : int or str
        Number of the device, its path, or for ``images`` a pattern such as ``frames/%04d.png``.
    backend : str or None
        ``v4l2``, ``dshow``, ``msmf``, ``avfoundation`` or ``images``; the platform's own without. Never
        "any": it may choose one that makes 8 bits of 16 without a word.
    fourcc : str or None
        The stream's format, four letters; as the device has it without. Bayer and more than 8 bits want one.
    discard : int
        How many pictures are dropped before each that is kept: those the device and the driver hold in store.
    fixed_exposure_s : float or None
        For a device whose exposure cannot be set from here: what it was set to elsewhere. No other is taken,
        and what is reported is this number, which nobody has read from the device.
    gain_db_per_unit : float or None
        dB of one unit of ``CAP_PROP_GAIN``; without, only 0 dB is taken, and the gain is left as it is.
    settings : dict
        Further properties by OpenCV's name without ``CAP_PROP_`` (``AUTO_WB: 0``, ``GAMMA: 100``), set in
        this order and read back.
    isolate : bool
        Run in a process of its own: a hang of the device costs one frame.
    """

    driver: Literal["opencv"] = "opencv"
    sequence: Literal[False] = False
    source: int | str = 0
    backend: Backend | None = None
    fourcc: str | None = Field(default=None, min_length=4, max_length=4)
    discard: int = Field(default=4, ge=0)
    fixed_exposure_s: float | None = Field(default=None, gt=0)
    gain_db_per_unit: float | None = Field(default=None, gt=0)
    settings: dict[str, float] = {}
    isolate: bool = False

    @field_validator("pixel_format")
    @classmethod
    def _check(cls, value: str) -> str:
        if (value.startswith("RGB") and value != "RGB8") or format_bits(value) is None:
            raise ValueError(f"{value}: a video device gives RGB8, or Mono or Bayer of 8 to 16 bits")
        return value

    @property
    def limits(self) -> CameraLimits:
        """What the camera can do; of exposures one, where it is fixed."""
        return at_one_exposure(super().limits, self.fixed_exposure_s)

    @property
    def encoding(self) -> Encoding | None:
        """Why its numbers may not be proportional to light."""
        if self.backend == "images":
            return Encoding("unknown", "")
        if self.fourcc in _RAW and self.pixel_format != "RGB8":
            return Encoding("unknown", "raw by name, but of a device that tells no more")
        return Encoding("gamma", "the picture of a video device, made to be looked at")

    @property
    def address(self) -> str | None:
        """What only one run may hold at a time; None for image files."""
        return None if self.backend == "images" else f"video device {self.source}"

    def open(self, name: str) -> Camera:
        """Return the camera, to be entered at once; ValueError where there is no backend for it here."""
        backend = self.backend or _PLATFORM.get(sys.platform)
        if backend is None:
            raise ValueError(f"camera {name}: no backend is known for {sys.platform}: name one")

        def make() -> Camera:
            import cv2

            return OpencvCamera(name, self, cv2, backend)

        return open_camera(name, self, make, "driver opencv wants the package opencv-python-headless")


def survey() -> str:
    """What devices there are, as far as can be told with none opened."""
    if not sys.platform.startswith("linux"):
        return "devices by number: source: 0 is the first"
    found = sorted(Path("/dev").glob("video*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    return ", ".join(map(str, found)) or "no video device: there is no /dev/video*"


class OpencvCamera:
    """One video device of OpenCV."""

    def __init__(self, name: str, config: OpencvCameraConfig, cv2: Any, backend: Backend) -> None:
        self.name = name
        self.limits = config.limits
        self._config = config
        self._cv2 = cv2
        self._backend = backend
        self._video: Any = None
        self._taking: Blocking[Taken] = Blocking(name)

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Set, drop what was exposed before, and take the next picture of the stream.

        Raises
        ------
        FrameLost
            No picture in time, or the device reports an error.
        SettingRefused
            The device does not take the exposure or the gain, or its pixels are not the rig file's.
        DeviceLost
            Five frames in a row were lost.
        """
        if self._video is None:
            raise DeviceError(self.name, "is not open")
        taken = self._taking.take(lambda: self._take(exposure_s, gain_db), deadline_s)
        return Frame(
            dn=self._pixels(taken.image),
            pixel_format=self.limits.pixel_format,
            exposure_s=taken.exposure_s,
            gain_db=taken.gain_db,
            frame_id=self._taking.frames,
            timestamp_ns=time.time_ns(),
        )

    def __enter__(self) -> Self:
        source, cv2 = self._config.source, self._cv2
        video = cv2.VideoCapture(source, getattr(cv2, f"CAP_{self._backend.upper()}"))
        if not video.isOpened():
            video.release()
            raise DeviceLost(self.name, f"{self._backend} does not open {source}: look at its cable")
        self._video = video
        self._taking.begin()
        try:
            self._set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        video, self._video = self._video, None
        if video is not None and self._taking.over():  # what hangs would hang here too
            video.release()

    def _set_up(self) -> None:
        config, cv2 = self._config, self._cv2
        if config.fourcc is not None:
            self._set("FOURCC", float(cv2.VideoWriter.fourcc(*config.fourcc)))
        if self._backend != "images":  # the pictures have their size
            self._set("FRAME_WIDTH", self.limits.width)
            self._set("FRAME_HEIGHT", self.limits.height)
            if self.limits.pixel_format != "RGB8" and config.fourcc is not None:
                self._set("CONVERT_RGB", 0.0)
            self._video.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # few heed it, hence `discard`
        if config.fixed_exposure_s is None and self._backend in _MANUAL:
            self._set("AUTO_EXPOSURE", _MANUAL[self._backend])
        for name, value in config.settings.items():
            self._set(name, value)
        # the device tells no ranges, but without the size of its units there is none of gains
        check_ranges(self.name, self.limits, gains_db=(0.0, 0.0) if config.gain_db_per_unit is None else None)

    def _set(self, name: str, value: float) -> None:
        number = getattr(self._cv2, f"CAP_PROP_{name}", None)
        if number is None:
            raise SettingRefused(self.name, f"OpenCV has no property CAP_PROP_{name}")
        if not self._video.set(number, value):
            raise SettingRefused(self.name, f"does not take {name} = {value:g}")
        applied = self._video.get(number)
        if not abs(applied - value) <= 0.01 * abs(value):
            raise SettingRefused(self.name, f"{name} is {applied:g} after it was set to {value:g}")

    def _set_exposure(self, exposure_s: float) -> None:
        fixed_s = self._config.fixed_exposure_s
        if fixed_s is not None:
            if not math.isclose(fixed_s, exposure_s, rel_tol=0.01):
                raise SettingRefused(
                    self.name, f"its exposure is fixed at {fixed_s:g} s, not {exposure_s:g} s"
                )
            return
        if self._backend not in _MANUAL:
            raise SettingRefused(
                self.name, f"{self._backend} sets no exposure: set it elsewhere and give fixed_exposure_s"
            )
        value = round(exposure_s / _V4L2_UNIT_S) if self._backend == "v4l2" else round(math.log2(exposure_s))
        if not self._video.set(self._cv2.CAP_PROP_EXPOSURE, float(value)):
            raise SettingRefused(self.name, f"does not take an exposure of {exposure_s:g} s")

    def _exposure_s(self) -> float:
        if self._config.fixed_exposure_s is not None:
            return self._config.fixed_exposure_s
        value = float(self._video.get(self._cv2.CAP_PROP_EXPOSURE))
        return value * _V4L2_UNIT_S if self._backend == "v4l2" else 2.0**value

    def _set_gain(self, gain_db: float) -> None:
        unit = self._config.gain_db_per_unit
        if unit is None:
            if gain_db:
                raise SettingRefused(self.name, "takes 0 dB only: give gain_db_per_unit for more")
        elif not self._video.set(self._cv2.CAP_PROP_GAIN, float(round(gain_db / unit))):
            raise SettingRefused(self.name, f"does not take a gain of {gain_db:g} dB")

    def _gain_db(self) -> float:
        unit = self._config.gain_db_per_unit
        return 0.0 if unit is None else float(self._video.get(self._cv2.CAP_PROP_GAIN)) * unit

    def _take(self, exposure_s: float, gain_db: float) -> Taken:
        """All that talks to the device for one frame, since any of it may block."""
        self._set_exposure(exposure_s)
        self._set_gain(gain_db)
        good = all(self._video.grab() for _ in range(self._config.discard))
        good, image = self._video.read() if good else (False, None)
        if not good:
            raise FrameLost(self.name, "the stream gave no picture")
        return Taken(np.array(image), self._exposure_s(), self._gain_db())

    def _pixels(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the picture as the rig file says it is, or say what it is instead."""
        limits, bits = self.limits, format_bits(self.limits.pixel_format)
        told = f"{image.dtype} of shape {image.shape}, which is not {limits.pixel_format}"
        if limits.pixel_format == "RGB8":
            if image.dtype != np.uint8 or image.shape[2:] != (3,):
                raise SettingRefused(self.name, f"sent {told}")
            return np.ascontiguousarray(image[:, :, ::-1])
        wanted = np.dtype(np.uint8 if bits == 8 else np.uint16)
        size = (limits.height, limits.width)
        if image.dtype == np.uint8 and image.size == size[0] * size[1] * wanted.itemsize:
            # a format that OpenCV does not know comes as a row of bytes
            image = np.ascontiguousarray(image).reshape(-1).view(wanted).reshape(size)
        if image.shape[2:] == (3,) and (image == image[:, :, :1]).all():
            image = np.ascontiguousarray(image[:, :, 0])  # grey, three times over
        if image.dtype != wanted or image.ndim != 2:
            raise SettingRefused(
                self.name, f"sent {told}: a fourcc such as GREY or 'Y16 ' asks for raw pixels"
            )
        if bits is not None and int(image.max()) >= 2**bits:
            raise SettingRefused(
                self.name,
                f"sent {int(image.max())}, which {bits} bits do not hold: its samples are aligned left",
            )
        return image
