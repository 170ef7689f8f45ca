"""Cameras of Basler through pypylon, Basler's own Python binding, which brings the runtime with it.

Every frame is one software trigger. Automatic functions, gamma and tables are switched off on entering and
read back; the trigger is switched off again on leaving. Without a camera, ``PYLON_CAMEMU=2`` in the
environment gives two emulated ones, with all nodes but an image that does not follow the exposure.
"""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, Self

from pydantic import Field

from capture.devices import (
    Camera,
    CameraLimits,
    DeviceError,
    DeviceLost,
    Encoding,
    FrameLost,
    SettingRefused,
)
from capture.drivers.opening import Region, check_ranges, encoding_by, open_camera
from capture.drivers.sfnc import NEUTRAL
from capture.frame import Frame

_AUTOMATIC = ("ExposureAuto", "GainAuto", "BalanceWhiteAuto")
_EMULATED = "BaslerCamEmu"
_SLICE_S = 0.1
_THROWN = re.compile(r"\s*:\s*\w+Exception thrown.*", re.DOTALL)
_MISSING = "driver pylon wants the package pypylon: pip install 'gnomon[pylon]'"


class PylonCameraConfig(Region, CameraLimits):
    """A Basler camera.

    Attributes
    ----------
    serial : str or None
        Serial number; without, the only camera there is.
    gain_db_per_raw : float or None
        For cameras that have ``GainRaw`` and no gain in dB: dB of one step, from the data sheet. Without,
        such a camera takes 0 dB only, which is its least gain.
    nodes : dict
        Further nodes by name, set in this order after all others and read back.
    isolate : bool
        Run in a process of its own: a crash costs one frame.
    """

    driver: Literal["pylon"] = "pylon"
    sequence: Literal[False] = False
    serial: str | None = None
    gain_db_per_raw: float | None = Field(default=None, gt=0)
    nodes: dict[str, bool | int | float | str] = {}
    isolate: bool = False

    @property
    def encoding(self) -> Encoding | None:
        """Why its numbers may not be proportional to light."""
        return encoding_by(self.nodes.items())

    @property
    def address(self) -> str:
        """What only one run may hold at a time."""
        return f"Basler camera {self.serial or '(the only one)'}"

    def open(self, name: str) -> Camera:
        """Return the camera, to be entered at once; ValueError without pypylon."""
        return open_camera(name, self, lambda: PylonCamera(name, self, *_import()), _MISSING)


def survey() -> str:
    """What cameras there are, or why none."""
    try:
        pylon, genicam = _import()
    except ImportError:
        return _MISSING
    try:
        found = pylon.TlFactory.GetInstance().EnumerateDevices()
    except genicam.GenericException as error:
        return _text(error)
    return ", ".join(map(_label, found)) or "no Basler camera; PYLON_CAMEMU=2 in the environment emulates two"


def _import() -> tuple[Any, Any]:
    # where warnings are errors, those of its making crash the interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from pypylon import genicam, pylon
    return pylon, genicam


class PylonCamera:
    """One Basler camera, triggered by software."""

    def __init__(self, name: str, config: PylonCameraConfig, sdk: Any, genicam: Any) -> None:
        self.name = name
        self.limits = config.limits
        self._config = config
        self._sdk = sdk
        self._genicam = genicam
        self._camera: Any = None
        self._block: int | None = None
        self._frame_id = 0

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Set, trigger and wait; the settings reported are the nodes' after the exposure.

        Raises
        ------
        FrameLost
            No frame in time, or an incomplete one.
        SettingRefused
            The camera does not take the exposure or the gain.
        DeviceLost
            The camera was pulled out.
        """
        if self._camera is None:
            raise DeviceError(self.name, "is not open")
        until = time.monotonic() + deadline_s
        with self._faults(FrameLost):
            self._write(self._exposure_node, exposure_s * 1e6)
            self._write_gain(gain_db)
            triggered_ns, result = self._grab(until, deadline_s)
            try:
                self._check(result)
                # a copy: GetArray goes through a buffer of its own
                return Frame(
                    dn=result.GetArray(),
                    pixel_format=self.limits.pixel_format,
                    exposure_s=self._read(self._exposure_node) * 1e-6,
                    gain_db=self._read_gain(),
                    frame_id=self._count(int(result.BlockID)),
                    timestamp_ns=self._timestamp_ns(int(result.TimeStamp), triggered_ns),
                    black_level_dn=self._optional("BlackLevel", "BlackLevelRaw"),
                    temperature_c=self._optional("DeviceTemperature", "TemperatureAbs"),
                )
            finally:
                result.Release()

    @property
    def identity(self) -> dict[str, str]:
        """Maker, model, serial number and firmware; DeviceError unless open."""
        if self._camera is None:
            raise DeviceError(self.name, "is not open")
        with self._faults(DeviceError):
            info = self._camera.GetDeviceInfo()
            return {
                "maker": info.GetVendorName(),
                "model": info.GetModelName(),
                "serial": info.GetSerialNumber(),
                "firmware": info.GetDeviceVersion(),
            }

    def __enter__(self) -> Self:
        with self._faults(DeviceLost):
            factory = self._sdk.TlFactory.GetInstance()
            camera = self._sdk.InstantCamera(factory.CreateDevice(self._find(factory)))
        try:
            with self._faults(DeviceLost):
                camera.Open()
            self._camera = camera
            with self._faults(SettingRefused):
                self._set_up()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        camera, self._camera = self._camera, None
        if camera is None:
            return
        for leave in (camera.StopGrabbing, lambda: camera.TriggerMode.FromString("Off"), camera.Close):
            with suppress(self._genicam.GenericException):
                leave()

    def _find(self, factory: Any) -> Any:
        found = factory.EnumerateDevices()
        serial = self._config.serial
        wanted = [info for info in found if serial in (None, info.GetSerialNumber())]
        if len(wanted) == 1:
            return wanted[0]
        there = ", ".join(_label(info) for info in found) or "none"
        if wanted:
            raise DeviceError(self.name, f"say which camera by its serial; there are {there}")
        sought = "no Basler camera" if serial is None else f"no Basler camera with serial {serial}"
        raise DeviceLost(self.name, f"{sought}; found: {there}; look at its cable and power")

    def _set_up(self) -> None:
        limits = self.limits
        wanted = [*((name, "Off") for name in _AUTOMATIC), *NEUTRAL]
        wanted += [("AcquisitionFrameRateEnable", False), ("AcquisitionMode", "Continuous")]
        for name, value in wanted:
            if self._takes(name, value) and self._node(name).ToString() != str(value):
                self._write(name, value)
        formats = self._node("PixelFormat").Symbolics
        # before version 2 of the naming convention RGB8 was RGB8Packed, as pylon's own constants still are
        old = {"RGB8": "RGB8packed"}.get(limits.pixel_format, limits.pixel_format)
        chosen = [name for name in formats if name.lower() in (limits.pixel_format.lower(), old.lower())]
        self._pixel_type = getattr(self._sdk, f"PixelType_{old}", None)
        if not chosen or self._pixel_type is None:
            raise SettingRefused(
                self.name, f"has no pixel format {limits.pixel_format}, only {', '.join(formats)}"
            )
        self._write("PixelFormat", chosen[0])
        for name in ("OffsetX", "OffsetY"):  # a region can only grow where there is room
            if self._readable(name):
                self._write(name, 0)
        self._write("Width", limits.width)
        self._write("Height", limits.height)
        for name, offset in (("OffsetX", self._config.offset_x), ("OffsetY", self._config.offset_y)):
            if offset:
                self._write(name, offset)
        for selected in self._node("TriggerSelector").Symbolics:
            self._write("TriggerSelector", selected)
            if self._readable("TriggerMode"):
                self._write("TriggerMode", "Off")
        self._write("TriggerSelector", "FrameStart")
        self._write("TriggerMode", "On")
        self._write("TriggerSource", "Software")
        for name, value in self._config.nodes.items():
            self._write(name, value)
        self._exposure_node = self._first("ExposureTime", "ExposureTimeAbs")
        self._gain_node = self._first("Gain", "GainAbs", "GainRaw")
        check_ranges(self.name, limits, exposures_s=self._exposures_s(), gains_db=self._gains_db())
        ticks = "GevTimestampTickFrequency"
        self._ns_per_tick = 1e9 / self._node(ticks).Value if self._readable(ticks) else 1.0

    def _start(self) -> None:
        """Begin anew to take in frames; what a frame given up still sends is gone."""
        with self._faults(DeviceError):
            self._camera.StopGrabbing()
            self._camera.StartGrabbing(self._sdk.GrabStrategy_OneByOne)
        self._block = None

    def _grab(self, until: float, deadline_s: float) -> tuple[int, Any]:
        camera, quietly = self._camera, self._sdk.TimeoutHandling_Return
        if camera.CanWaitForFrameTriggerReady() and not _waited(
            lambda ms: camera.WaitForFrameTriggerReady(ms, quietly), bool, until
        ):
            self._start()
            raise FrameLost(self.name, f"was not ready for a trigger within {deadline_s:g} s")
        triggered_ns = time.time_ns()
        camera.ExecuteSoftwareTrigger()
        result = _waited(lambda ms: camera.RetrieveResult(ms, quietly), lambda got: got.IsValid(), until)
        if not result.IsValid():
            self._start()
            raise FrameLost(self.name, f"no frame within {deadline_s:g} s")
        return triggered_ns, result

    def _check(self, result: Any) -> None:
        if not result.GrabSucceeded():
            raise FrameLost(self.name, f"{result.ErrorDescription.strip()} (code {result.ErrorCode:#x})")
        if result.PixelType != self._pixel_type:
            raise SettingRefused(self.name, f"sent another pixel format than {self.limits.pixel_format}")

    def _count(self, block: int) -> int:
        """Return a number that goes on where the camera's own begins anew, at a start or after 65535."""
        step = 1 if self._block is None or block <= self._block else block - self._block
        self._block = block
        self._frame_id += step
        return self._frame_id

    def _timestamp_ns(self, ticks: int, triggered_ns: int) -> int:
        return round(ticks * self._ns_per_tick) if ticks else triggered_ns

    def _exposures_s(self) -> tuple[float, float]:
        node = self._node(self._exposure_node)
        return node.Min * 1e-6, node.Max * 1e-6

    def _gains_db(self) -> tuple[float, float]:
        node = self._node(self._gain_node)
        if self._gain_node != "GainRaw":
            return node.Min, node.Max
        return 0.0, (node.Max - node.Min) * (self._config.gain_db_per_raw or 0.0)

    def _write_gain(self, gain_db: float) -> None:
        if self._gain_node != "GainRaw":
            self._write(self._gain_node, gain_db)
            return
        if gain_db and self._config.gain_db_per_raw is None:
            raise SettingRefused(self.name, "has GainRaw only: give gain_db_per_raw, from its data sheet")
        raw = round(gain_db / (self._config.gain_db_per_raw or 1.0))
        self._write("GainRaw", self._node("GainRaw").Min + raw)

    def _read_gain(self) -> float:
        if self._gain_node != "GainRaw":
            return self._read(self._gain_node)
        node = self._node("GainRaw")
        return float((node.Value - node.Min) * (self._config.gain_db_per_raw or 0.0))

    def _first(self, *names: str) -> str:
        for name in names:
            if self._readable(name):
                return name
        raise SettingRefused(self.name, f"has none of the nodes {', '.join(names)}")

    def _node(self, name: str) -> Any:
        return self._camera.GetNodeMap().GetNode(name)

    def _readable(self, name: str) -> bool:
        node = self._node(name)
        return node is not None and self._genicam.IsReadable(node)

    def _takes(self, name: str, value: str | float | bool) -> bool:
        if not self._readable(name):
            return False
        # without a test picture, an emulated camera has none
        if name == "TestImageSelector" and self._camera.GetDeviceInfo().GetDeviceClass() == _EMULATED:
            return False
        return not isinstance(value, str) or value in self._node(name).Symbolics

    def _read(self, name: str) -> float:
        return float(self._node(name).Value)

    def _optional(self, *names: str) -> float | None:
        for name in names:
            with suppress(self._genicam.GenericException):
                if self._readable(name):
                    return self._read(name)
        return None

    def _write(self, name: str, value: str | float | bool) -> None:
        """Set a node and read it back; SettingRefused unless it is what was asked, but for rounding."""
        node = self._node(name)
        if node is None or not self._genicam.IsAvailable(node):
            raise SettingRefused(self.name, f"has no node {name}")
        try:
            if isinstance(value, str):
                node.FromString(value)
                applied = node.ToString()
                same = applied == value
            else:
                node.Value = value
                applied = node.Value
                same = abs(applied - value) <= max(0.01 * abs(value), 1e-6)
        except (self._genicam.GenericException, TypeError) as error:
            if self._camera.IsCameraDeviceRemoved():
                raise
            raise SettingRefused(self.name, f"does not take {name} = {value}: {_text(error)}") from error
        # exposure and gain are the runner's to compare: it knows the tolerance
        if not same and name not in ("ExposureTime", "ExposureTimeAbs", "Gain", "GainAbs"):
            raise SettingRefused(self.name, f"{name} is {applied} after it was set to {value}")

    @contextmanager
    def _faults(self, kind: type[DeviceError]) -> Iterator[None]:
        try:
            yield
        except self._genicam.GenericException as error:
            if self._camera is not None and self._camera.IsCameraDeviceRemoved():
                raise DeviceLost(self.name, "is gone: look at its cable and power") from error
            raise kind(self.name, _text(error)) from error


def _waited(wait: Callable[[int], Any], done: Callable[[Any], bool], until: float) -> Any:
    """Return what ``wait(ms)`` returns last, in slices: within one, Ctrl-C has to wait too."""
    while True:
        left_s = until - time.monotonic()
        got = wait(max(1, int(1000 * min(left_s, _SLICE_S))))
        if done(got) or left_s <= _SLICE_S:
            return got


def _label(info: Any) -> str:
    return f"{info.GetModelName()} {info.GetSerialNumber()}"


def _text(error: BaseException) -> str:
    """Return what a GenICam exception says, without the place in its source."""
    return _THROWN.sub("", str(error)).strip().rstrip(".")
