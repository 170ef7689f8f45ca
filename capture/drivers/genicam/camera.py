"""The camera that the runner sees."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from typing import Any, Self

import numpy as np
from genicam import gentl

from capture.devices import DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.drivers.genicam.config import GenicamCameraConfig
from capture.drivers.genicam.nodes import FAULTS, Nodes
from capture.drivers.genicam.producers import about, open_device
from capture.drivers.genicam.setup import Exposure, black_level_dn, set_up
from capture.drivers.genicam.stream import Picture, Stream
from capture.frame import Frame
from capture.packing import unpack

_IDENTITY = {
    "maker": ("DeviceVendorName",),
    "model": ("DeviceModelName",),
    "serial": ("DeviceSerialNumber", "DeviceID"),
    "firmware": ("DeviceFirmwareVersion", "DeviceVersion"),
}
"""What tells a camera from others, by the nodes that have it where its producer does not tell."""

_WRAP = 65535
"""GigE Vision counts blocks from 1 to this, then from 1 again."""


class GenicamCamera:
    """A camera that takes one frame for each software trigger.

    Parameters
    ----------
    name : str
        Name in the rig file.
    config : GenicamCameraConfig
        What the rig file says.
    """

    def __init__(self, name: str, config: GenicamCameraConfig) -> None:
        self.name = name
        self.limits = config.limits
        self._config = config
        self._open: _Open | None = None

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Set, trigger once, and wait.

        Raises
        ------
        FrameLost
            No frame in time, or an incomplete one.
        SettingRefused
            The camera does not take the exposure or the gain.
        DeviceLost
            The camera is gone.
        """
        until = time.monotonic() + deadline_s
        camera = self._opened()
        with camera.one_frame():
            if camera.doubtful and camera.stream.running:
                camera.stop()
            if not camera.stream.running:
                camera.stream.start()
            changed = camera.apply(exposure_s, gain_db)
            for _ in range(self._config.discard if changed else 0):
                camera.trigger(until, deadline_s)
                camera.thrown_away(camera.stream.take(until, deadline_s).number)
            camera.trigger(until, deadline_s)
            return camera.frame(camera.stream.take(until, deadline_s))

    @property
    def identity(self) -> dict[str, str]:
        """Maker, model, serial number and firmware, as far as they are told; DeviceError unless open.

        By the producer, as the rig file chooses a camera; what it leaves out by the nodes.
        """
        camera = self._opened()
        nodes, told = camera.nodes, camera.about()
        with nodes.faults(DeviceError, "does not say which camera it is"):
            for key, names in _IDENTITY.items():
                if not told.get(key) and (name := nodes.first(*names)) is not None:
                    told[key] = str(nodes.read(name))
        return {key: told[key] for key in _IDENTITY if told.get(key)}

    def _opened(self) -> "_Open":
        if self._open is None:
            raise DeviceError(self.name, "is not open")
        return self._open

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            acquirer = stack.enter_context(open_device(self.name, self._config))
            self._open = stack.enter_context(_Open(self.name, self._config, acquirer))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open = None
            with suppress(*FAULTS):
                self._stack.close()


class GenicamTriggeredCamera(GenicamCamera):
    """A camera that times its frames itself, or by a hardware trigger.

    It runs only while frames are wanted: the first begins after the request, and nothing that follows its
    exposure signal is led astray in between.
    """

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Set, start, take the first frame, stop; raises as `GenicamCamera.expose`."""
        (frame,) = self.burst([(exposure_s, gain_db)], deadline_s)
        return frame

    def burst(self, settings: Sequence[tuple[float, float]], deadline_s: float) -> Generator[Frame]:
        """Yield one frame for each ``(exposure_s, gain_db)``; ``deadline_s`` holds for each frame.

        Equal settings in a row are taken at the camera's own pace; between two such rows it is stopped.
        Raises as `GenicamCamera.expose`; SettingRefused also for several rows of a camera that steps lights
        and cannot count: it might expose once more before it stops, and the lights would be a step ahead.
        """
        camera = self._opened()
        rows = [(setting, len(list(row))) for setting, row in groupby(settings)]
        try:
            for number, ((exposure_s, gain_db), count) in enumerate(rows):
                until = time.monotonic() + deadline_s
                with camera.one_frame():
                    camera.stop()
                    if self.limits.sequence and number < len(rows) - 1 and not camera.stream.counts(count):
                        raise SettingRefused(
                            self.name,
                            f"cannot count {count} exposures (AcquisitionMode MultiFrame): with sequence, "
                            "take one exposure time and gain at a time",
                        )
                    camera.apply(exposure_s, gain_db)
                    camera.stream.start(count)
                for _ in range(count):
                    with camera.one_frame():
                        frame = camera.frame(camera.stream.take(until, deadline_s))
                    yield frame
                    until = time.monotonic() + deadline_s
        finally:
            camera.stop()


class _Clock:
    """The camera's clock, made to go on where it begins anew; the computer's where the camera has none."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._host_ns = 0
        self._shift_ns = 0

    def read(self, camera_ns: int | None) -> int:
        """Time of a frame that came now: on the camera's clock, and later than that of the one before."""
        host_ns = time.monotonic_ns()
        if camera_ns is None:
            camera_ns = host_ns
        time_ns = camera_ns + self._shift_ns
        if self._last_ns is not None and time_ns <= self._last_ns:
            time_ns = self._last_ns + max(1, host_ns - self._host_ns)
            self._shift_ns = time_ns - camera_ns
        self._last_ns, self._host_ns = time_ns, host_ns
        return time_ns


class _Open:
    """What is there only while the camera is open."""

    def __init__(self, name: str, config: GenicamCameraConfig, acquirer: Any) -> None:
        self._name = name
        self._config = config
        self._acquirer = acquirer
        self.nodes = Nodes(name, acquirer.remote_device.node_map, self._gone)
        self.stream = Stream(name, acquirer, self.nodes)
        self.doubtful = False
        self._applied: tuple[tuple[float, float], tuple[float, float]] | None = None
        self._number = 0
        self._last: int | None = None
        self._clock = _Clock()

    def __enter__(self) -> Self:
        # compiled, or loaded, before the first frame waits for it
        unpack(np.zeros(3, np.uint8), "Mono12p", 2, 1)
        with self.nodes.faults(DeviceError, "cannot be set up"):
            set_up(self.nodes, self._config)
            self._exposure = Exposure(self.nodes, self._config)
            self._exposure.check(self._config.limits)
        if self._config.trigger == "software":
            self.stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.stop()
        # the next program may not know of triggers
        with suppress(DeviceError, *FAULTS):
            if self.nodes.writable("TriggerMode"):
                self.nodes.write("TriggerMode", "Off")

    def about(self) -> dict[str, str]:
        """What the producer says of the camera."""
        found = about(getattr(self._acquirer.device, "module", None))
        return {"maker": found["vendor"], "model": found["model"], "serial": found["serial"]}

    @contextmanager
    def one_frame(self) -> Iterator[None]:
        """However it ends, but well, what still comes of it must not be taken for a later frame."""
        well = False
        try:
            with self.nodes.faults(FrameLost, "the frame failed"):
                yield
            well = True
        except FrameLost as error:
            if self._gone():
                raise DeviceLost(self._name, "is gone: look at its cable and power") from error
            raise
        finally:
            self.doubtful = not well

    def stop(self) -> None:
        """Stop; numbers may begin anew."""
        self.stream.stop()
        self._last = None
        self._applied = None if self.doubtful else self._applied

    def apply(self, exposure_s: float, gain_db: float) -> bool:
        """Set exposure and gain unless they are so; return whether they were not."""
        asked = (exposure_s, gain_db)
        if self._applied is not None and self._applied == (asked, self._exposure.reported()):
            return False
        self._applied = None
        running = self.stream.running
        if running and self._exposure.locked:
            self.stop()
        self._exposure.apply(exposure_s, gain_db)
        if running and not self.stream.running:
            self.stream.start()
        self._applied = (asked, self._exposure.reported())
        return True

    def trigger(self, until: float, told_s: float) -> None:
        """Throw away what came unasked, wait until the camera is ready, and trigger once."""
        if (number := self.stream.drain()) is not None:
            self.thrown_away(number)
        waits = "FrameTriggerWait" in self.nodes.choices("AcquisitionStatusSelector")
        if waits:
            self.nodes.write("AcquisitionStatusSelector", "FrameTriggerWait")
            waits = self.nodes.readable("AcquisitionStatus")
        while not self.nodes.writable("TriggerSoftware") or (
            waits and not self.nodes.read("AcquisitionStatus")
        ):
            if time.monotonic() >= until:
                raise FrameLost(self._name, f"was not ready for a trigger within {told_s:g} s")
            time.sleep(0.001)
        self.nodes.execute("TriggerSoftware")

    def thrown_away(self, number: int | None) -> None:
        """Know of a frame that nobody is given: it is no gap."""
        self._last = number

    def counted(self, number: int | None) -> int:
        """Count a frame of the camera's; a gap in its numbers is one in ours, a repeated one is repeated."""
        step = 1
        if number is not None and self._last is not None:
            step = number - self._last
            if step < 0:
                step += _WRAP
            if not 0 <= step <= _WRAP // 2:
                step = 1  # it counts anew
        self._last = number
        self._number += step
        return self._number

    def frame(self, picture: Picture) -> Frame:
        """Return the picture with what the camera says of it; of the frame itself, or now."""
        timestamp_ns = self._clock.read(picture.timestamp_ns)
        number = self.counted(picture.number)
        told = (picture.exposure, picture.gain) if self._config.chunks else (None, None)
        exposure_s, gain_db = self._exposure.of_frame(*told)
        return Frame(
            dn=picture.dn,
            pixel_format=picture.pixel_format,
            exposure_s=exposure_s,
            gain_db=gain_db,
            frame_id=number,
            timestamp_ns=timestamp_ns,
            black_level_dn=black_level_dn(self.nodes),
            temperature_c=self.nodes.optional("DeviceTemperature", "TemperatureAbs"),
        )

    def _gone(self) -> bool:
        """Whether the camera is out of reach; no event tells so."""
        try:
            status = self._acquirer.device.module.access_status
        except (gentl.NotImplementedException, gentl.NotAvailableException, gentl.InvalidParameterException):
            status = None
        except (gentl.GenericException, AttributeError):
            return True
        if status == gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_NOACCESS:
            return True
        return not self.nodes.alive()
