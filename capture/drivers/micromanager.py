"""Every camera that Micro-Manager has a device adapter for, through its core (pymmcore).

One frame is one ``snapImage``, which nothing can interrupt: it runs in a thread of its own, and the deadline
is kept by not waiting for it. The core knows neither gain nor frame numbers nor the camera's clock: gain goes
through a property that the rig file names, frames are counted here, and the time is the computer's.
"""

import os
import sys
import time
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

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
from capture.drivers.opening import Region, check_ranges, encoding_by, open_camera
from capture.frame import Frame, format_bits

_MISSING = "driver micromanager wants the package pymmcore-plus: pip install 'gnomon[micromanager]'"
_NO_FOLDER = "no Micro-Manager is found here: install it (mmcore install), or give its folder"
_ERRORS = (RuntimeError, OSError)


class MicroManagerCameraConfig(Region, CameraLimits):
    """A camera of Micro-Manager: of a configuration file, or by its adapter's library and device.

    Attributes
    ----------
    folder : Path or None
        Where the device adapters are; where pymmcore-plus finds them without.
    configuration : Path or None
        A configuration file as the Hardware Configuration Wizard writes it.
    library, device : str or None
        In place of a configuration file: ``DemoCamera`` and ``DCam``, say. With one, ``device`` is the label
        of the camera where it is not the default one.
    properties : dict
        Properties of the camera, set in this order and read back: ``PixelType``, ``BitDepth`` and the like,
        and whatever switches automatic functions off.
    gain_property : str or None
        The property that is the gain; without, only 0 dB can be asked for.
    gain_db_per_unit : float
        dB of one unit of that property.
    isolate : bool
        Run in a process of its own: a crash of an adapter costs one frame.
    """

    driver: Literal["micromanager"] = "micromanager"
    sequence: Literal[False] = False
    folder: Path | None = None
    configuration: Path | None = None
    library: str | None = None
    device: str | None = None
    properties: dict[str, str | int | float] = {}
    gain_property: str | None = None
    gain_db_per_unit: float = Field(default=1.0, gt=0)
    isolate: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.configuration is None) == (self.library is None):
            raise ValueError("give either configuration or library and device")
        if self.library is not None and self.device is None:
            raise ValueError(f"library {self.library} wants the device in it")
        return self

    @property
    def encoding(self) -> Encoding | None:
        """Why its numbers may not be proportional to light."""
        return encoding_by(self.properties.items())

    @property
    def address(self) -> str:
        """What only one run may hold at a time."""
        of = self.configuration or self.library
        return f"Micro-Manager camera {self.device or '(the default)'} of {of}"

    def open(self, name: str) -> Camera:
        """Return the camera, to be entered at once; ValueError without pymmcore or the adapters."""
        return open_camera(name, self, lambda: self._make(name), _MISSING)

    def _make(self, name: str) -> "MicroManagerCamera":
        import pymmcore

        folder = self.folder or _find_adapters()
        if folder is None:
            raise ValueError(f"camera {name}: {_NO_FOLDER}")
        if not folder.is_dir():
            raise ValueError(f"camera {name}: {folder} is no folder of device adapters")
        if self.configuration is not None and not self.configuration.is_file():
            raise ValueError(f"camera {name}: {self.configuration}: no such file")
        return MicroManagerCamera(name, self, pymmcore.CMMCore, folder)


def survey() -> str:
    """What adapters there are, or why none."""
    try:
        import pymmcore
    except ImportError:
        return _MISSING
    folder = _find_adapters()
    if folder is None:
        return _NO_FOLDER
    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([str(folder)])
    return f"{len(core.getDeviceAdapterNames())} device adapters in {folder}"


def _find_adapters() -> Path | None:
    try:
        from pymmcore_plus import find_micromanager
    except ImportError:
        return None
    found = find_micromanager()
    return None if found is None else Path(str(found))


class MicroManagerCamera:
    """One camera of Micro-Manager."""

    def __init__(self, name: str, config: MicroManagerCameraConfig, make_core: Any, folder: Path) -> None:
        self.name = name
        self.limits = config.limits
        self._config = config
        self._make_core = make_core
        self._folder = folder
        self._core: Any = None
        self._label = ""
        self._taking: Blocking[Taken] = Blocking(name)

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Set, snap and fetch; the exposure reported is what the core says after.

        Raises
        ------
        FrameLost
            No picture in time, or the adapter reports an error.
        SettingRefused
            Exposure or gain is not taken, or the picture is not of the rig file's pixel format.
        DeviceLost
            Five frames in a row were lost.
        """
        if self._core is None:
            raise DeviceError(self.name, "is not open")
        started_ns = time.time_ns()
        taken = self._taking.take(lambda: self._take(exposure_s, gain_db), deadline_s)
        return Frame(
            dn=self._pixels(taken.image),
            pixel_format=self.limits.pixel_format,
            exposure_s=taken.exposure_s,
            gain_db=taken.gain_db,
            frame_id=self._taking.frames,
            timestamp_ns=started_ns,
        )

    @property
    def identity(self) -> dict[str, str]:
        """Library and name of its adapter, and the core's version; DeviceError unless open."""
        core = self._core
        if core is None:
            raise DeviceError(self.name, "is not open")
        return {
            "library": str(core.getDeviceLibrary(self._label)),
            "model": str(core.getDeviceName(self._label)),
            "core": str(core.getVersionInfo()),
        }

    def __enter__(self) -> Self:
        config = self._config
        core = self._make_core()
        if sys.platform == "win32":
            # adapters find the libraries beside them through PATH only
            os.environ["PATH"] = f"{self._folder}{os.pathsep}{os.environ['PATH']}"
        try:
            core.setDeviceAdapterSearchPaths([str(self._folder)])
            if config.configuration is not None:
                core.loadSystemConfiguration(str(config.configuration))
                self._label = config.device or core.getCameraDevice()
            else:
                self._label = "camera"
                core.loadDevice(self._label, config.library, config.device)
                core.initializeDevice(self._label)
            core.setCameraDevice(self._label)
        except _ERRORS as error:
            raise DeviceLost(self.name, _text(error)) from error
        self._core = core
        self._taking.begin()
        try:
            self._set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        core, self._core = self._core, None
        if core is not None and self._taking.over():  # an adapter that hangs would hang here too
            core.unloadAllDevices()

    def _set_up(self) -> None:
        core, limits, config = self._core, self.limits, self._config
        for name, value in config.properties.items():
            self._set(name, value)
        if config.gain_property is not None and not core.hasProperty(self._label, config.gain_property):
            raise SettingRefused(self.name, f"has no property {config.gain_property!r}")
        unit_db = config.gain_db_per_unit
        gains_db = (0.0, 0.0) if config.gain_property is None else self._span(config.gain_property, unit_db)
        check_ranges(self.name, limits, exposures_s=self._span("Exposure", 1e-3), gains_db=gains_db)
        size = (limits.width, limits.height)
        try:
            core.clearROI()
            whole = (core.getImageWidth(), core.getImageHeight())
            if config.offset_x + size[0] > whole[0] or config.offset_y + size[1] > whole[1]:
                raise SettingRefused(self.name, f"has {whole[0]} x {whole[1]} pixels: the region reaches out")
            if whole != size:
                core.setROI(config.offset_x, config.offset_y, *size)
        except _ERRORS as error:
            raise SettingRefused(self.name, f"region of {size[0]} x {size[1]}: {_text(error)}") from error
        applied = (core.getImageWidth(), core.getImageHeight())
        if applied != size:
            raise SettingRefused(
                self.name,
                f"gives {applied[0]} x {applied[1]}, the rig file says {size[0]} x {size[1]}",
            )
        depth, colours = core.getImageBitDepth(), core.getNumberOfComponents()
        wanted = 4 if limits.pixel_format.startswith("RGB") else 1
        if (depth, colours) != (format_bits(limits.pixel_format), wanted):
            raise SettingRefused(
                self.name,
                f"gives {depth} bits and {colours} component(s), which is not {limits.pixel_format}: "
                "set properties such as PixelType and BitDepth",
            )

    def _span(self, name: str, unit: float) -> tuple[float, float] | None:
        core = self._core
        if not core.hasProperty(self._label, name) or not core.hasPropertyLimits(self._label, name):
            return None
        low, high = (
            core.getPropertyLowerLimit(self._label, name),
            core.getPropertyUpperLimit(self._label, name),
        )
        return low * unit, high * unit

    def _set(self, name: str, value: str | float) -> None:
        core = self._core
        if not core.hasProperty(self._label, name):
            close = get_close_matches(name, core.getDevicePropertyNames(self._label), n=3)
            meant = f": did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise SettingRefused(self.name, f"has no property {name!r}{meant}")
        try:
            core.setProperty(self._label, name, value)
            core.waitForDevice(self._label)
            applied = core.getProperty(self._label, name)
        except _ERRORS as error:
            raise SettingRefused(self.name, f"does not take {name} = {value}: {_text(error)}") from error
        if not _same(applied, value):
            raise SettingRefused(self.name, f"{name} is {applied} after it was set to {value}")

    def _set_gain(self, gain_db: float) -> None:
        if self._config.gain_property is None:
            if gain_db:
                raise SettingRefused(self.name, "takes 0 dB only: name its gain_property for more")
            return
        units = gain_db / self._config.gain_db_per_unit
        name = self._config.gain_property
        whole = self._core.getPropertyType(self._label, name) == 3  # PropertyType.Integer
        self._core.setProperty(self._label, name, round(units) if whole else units)

    def _gain_db(self) -> float:
        name = self._config.gain_property
        if name is None:
            return 0.0
        return float(self._core.getProperty(self._label, name)) * self._config.gain_db_per_unit

    def _take(self, exposure_s: float, gain_db: float) -> Taken:
        """All that talks to the adapter for one frame: while it takes a picture, it answers nothing else."""
        core = self._core
        try:
            core.setExposure(exposure_s * 1e3)
            self._set_gain(gain_db)
        except _ERRORS as error:
            raise SettingRefused(self.name, f"{exposure_s:g} s and {gain_db:g} dB: {_text(error)}") from error
        try:
            core.snapImage()
            return Taken(np.array(core.getImage()), core.getExposure() * 1e-3, self._gain_db())
        except _ERRORS as error:
            raise FrameLost(self.name, _text(error)) from error

    def _pixels(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        if self.limits.pixel_format != "RGB8":
            return image
        # four bytes a pixel: blue, green, red and nothing
        bytes_ = np.ascontiguousarray(image).view(np.uint8).reshape(*image.shape[:2], 4)
        return np.ascontiguousarray(bytes_[..., 2::-1])


def _same(applied: str, value: str | float) -> bool:
    """Whether a property reads as it was set: numbers may come back rounded and written otherwise."""
    if isinstance(value, str):
        return applied == value
    try:
        return abs(float(applied) - value) <= max(0.01 * abs(value), 1e-6)
    except ValueError:
        return False


def _text(error: BaseException) -> str:
    """Return what the core says, on one line."""
    return " ".join(str(error).split()).rstrip(".")
