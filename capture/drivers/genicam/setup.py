"""A camera brought to where raw numbers come from; its exposure and gain under their several names."""

import math
from collections.abc import Iterator
from contextlib import suppress

from capture.devices import CameraLimits, DeviceError, SettingRefused
from capture.drivers.genicam.config import GenicamCameraConfig, Value
from capture.drivers.genicam.nodes import Nodes
from capture.packing import packing_of

EXPOSURE = ("ExposureTime", "ExposureTimeAbs", "ExposureTimeRaw")
"""SFNC 2, SFNC 1 and before, in the order they are tried; microseconds where the node tells no unit."""

GAIN = ("Gain", "GainAbs", "GainRaw")
"""The same for gain; dB, but for raw steps."""

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "usec": 1e-6, "ns": 1e-9}

NEUTRAL: tuple[tuple[str, Value], ...] = (
    ("ExposureMode", "Timed"),
    ("ExposureTimeMode", "Common"),
    ("GammaEnable", False),
    ("GammaEnabled", False),
    ("Gamma", 1.0),
    ("LUTEnable", False),
    ("ColorTransformationEnable", False),
    ("DigitalShift", 0),
    ("SharpnessEnable", False),
    ("SharpeningEnable", False),
    ("TestPattern", "Off"),
    ("TestImageSelector", "Off"),
)
"""What must be so for numbers to be the sensor's own, where a camera has it; and each ``...Auto`` Off."""

_GAMMA = ("GammaEnable", "GammaEnabled")

DN_UNITS = ("", "dn", "lsb", "adu", "counts")


def set_up(nodes: Nodes, config: GenicamCameraConfig) -> None:
    """Bring the camera to what the configuration says.

    Raises
    ------
    SettingRefused
        The camera does not take something; the message names the node.
    DeviceLost
        The camera is gone.
    """
    _release(nodes)
    for part in config.nodes:
        for name, value in part.items():
            _by_user(nodes, name, value)
    own = {name for part in config.nodes for name in part}
    _neutralise(nodes, own, free=config.trigger == "free")
    _region_and_format(nodes, config)
    _trigger(nodes, config)
    if config.black_level is not None:
        _black_level(nodes, config.black_level)
    if config.chunks:
        _chunks(nodes)
    # what came after the user's nodes may have moved them, or their selectors
    for part in config.nodes:
        for name, value in part.items():
            if not nodes.is_command(name) and not nodes.has(name, value):
                _by_user(nodes, name, value)
    _aim_at_frames(nodes)


def _release(nodes: Nodes) -> None:
    """End what an earlier program left running: a camera that streams takes no settings."""
    for name in ("AcquisitionStop", "TLParamsLocked"):
        with suppress(SettingRefused, DeviceError):
            if nodes.writable(name):
                nodes.execute(name) if nodes.is_command(name) else nodes.write(name, 0)


def _by_user(nodes: Nodes, name: str, value: Value) -> None:
    try:
        nodes.write(name, value)
    except SettingRefused as error:
        raise SettingRefused(nodes.device, f"nodes.{name}: {_bare(error)}") from error


def _bare(error: DeviceError) -> str:
    return str(error).removeprefix(f"{error.device}: ")


def _neutralise(nodes: Nodes, own: set[str], *, free: bool) -> None:
    automatic = [name for name in nodes.names() if name.endswith("Auto")]
    wanted: list[tuple[str, Value]] = [(name, "Off") for name in automatic if "Off" in nodes.choices(name)]
    wanted += NEUTRAL
    if not free:
        wanted += [("AcquisitionFrameRateEnable", False), ("AcquisitionFrameRateEnabled", False)]
    for name, value in wanted:
        if name in own or not nodes.readable(name):
            continue
        if isinstance(value, str) and value not in nodes.choices(name):
            continue
        if name == "Gamma" and any(nodes.read(of) is False for of in _GAMMA if nodes.readable(of)):
            continue
        for _ in _selected(nodes, "GainSelector" if name == "GainAuto" else None):
            if not nodes.has(name, value):
                try:
                    nodes.write(name, value)
                except SettingRefused as error:
                    raise SettingRefused(
                        nodes.device, f"{_bare(error)}; to keep it so, say it under nodes"
                    ) from error


def _selected(nodes: Nodes, selector: str | None) -> Iterator[None]:
    """Go through all settings of a selector, and back to the first; once where there is none."""
    choices = nodes.choices(selector) if selector is not None and nodes.writable(selector) else []
    if selector is None or not choices:
        yield
        return
    before = nodes.read(selector)
    for choice in choices:
        nodes.write(selector, choice)
        yield
    nodes.write(selector, before)


def _region_and_format(nodes: Nodes, config: GenicamCameraConfig) -> None:
    if nodes.readable("PixelFormat"):
        nodes.write("PixelFormat", _sent_format(nodes, config))
    for name in ("OffsetX", "OffsetY"):  # a region can grow only where there is room
        if nodes.writable(name):
            nodes.write(name, 0)
    for name, value in (
        ("Width", config.width),
        ("Height", config.height),
        ("OffsetX", config.offset_x),
        ("OffsetY", config.offset_y),
    ):
        if value or nodes.readable(name):
            nodes.write(name, value)


def _sent_format(nodes: Nodes, config: GenicamCameraConfig) -> str:
    if config.sent_format is not None:
        return config.sent_format
    there = nodes.choices("PixelFormat")
    if config.pixel_format in there:
        return config.pixel_format
    for name in there:
        with suppress(ValueError):
            if packing_of(name).pixel_format == config.pixel_format:
                return name
    raise SettingRefused(
        nodes.device, f"has no pixel format {config.pixel_format}, packed or not, only {', '.join(there)}"
    )


def _trigger(nodes: Nodes, config: GenicamCameraConfig) -> None:
    if nodes.readable("AcquisitionMode"):
        nodes.write("AcquisitionMode", "Continuous")
    if not nodes.readable("TriggerMode"):
        if config.trigger != "free":
            raise SettingRefused(
                nodes.device, "has no TriggerMode, so cannot be triggered: say trigger: free"
            )
        return
    starts = nodes.choices("TriggerSelector")
    for start in starts:
        nodes.write("TriggerSelector", start)
        if nodes.readable("TriggerMode"):
            nodes.write("TriggerMode", "Off")
    nodes.write("TriggerMode", "Off")
    if config.trigger == "free":
        return
    _aim_at_frames(nodes)
    source = "Software" if config.trigger == "software" else config.trigger
    # some take a source only while the trigger is on, and some only while it is off
    if nodes.writable("TriggerSource"):
        nodes.write("TriggerSource", source)
        nodes.write("TriggerMode", "On")
    else:
        nodes.write("TriggerMode", "On")
        nodes.write("TriggerSource", source)
    if config.trigger == "software" and not nodes.is_command("TriggerSoftware"):
        raise SettingRefused(nodes.device, "has no TriggerSoftware: say trigger: free, or name a line")


def _aim_at_frames(nodes: Nodes) -> None:
    """What `TriggerSoftware` and the trigger's other nodes mean from here on."""
    starts = nodes.choices("TriggerSelector")
    if starts:
        frame = next((name for name in ("FrameStart", "ExposureStart") if name in starts), starts[0])
        nodes.write("TriggerSelector", frame)


def _black_level(nodes: Nodes, level: float) -> None:
    if "All" in nodes.choices("BlackLevelSelector"):
        nodes.write("BlackLevelSelector", "All")
    name = nodes.first("BlackLevel", "BlackLevelRaw")
    if name is None:
        raise SettingRefused(nodes.device, "has no BlackLevel: leave black_level out")
    nodes.write(name, nodes.nearest(name, level))


def _chunks(nodes: Nodes) -> None:
    """Ask for what tells of each frame; a camera that does not give it is none the worse."""
    wanted = {"ExposureTime", "Gain", "Timestamp", "FrameID"} & set(nodes.choices("ChunkSelector"))
    if not wanted or not nodes.readable("ChunkModeActive"):
        return
    with suppress(SettingRefused):
        nodes.write("ChunkModeActive", True)
        for name in sorted(wanted):
            nodes.write("ChunkSelector", name)
            if nodes.writable("ChunkEnable"):
                nodes.write("ChunkEnable", True)


class Exposure:
    """Exposure and gain of one camera, in seconds and dB whatever its nodes count in."""

    def __init__(self, nodes: Nodes, config: GenicamCameraConfig) -> None:
        self._nodes = nodes
        self._fixed_s = config.fixed_exposure_s
        self._time = self._time_node(config) if self._fixed_s is None else ""
        self._unit_s = config.exposure_unit_s or self._time_unit_s(self._time)
        self._gain = config.gain_node or nodes.first(*GAIN)
        if config.gain_node is not None and not nodes.readable(config.gain_node):
            raise SettingRefused(nodes.device, f"has no node {config.gain_node}: look at gain_node")
        raw = self._gain is not None and self._gain.endswith("Raw")
        self._gain_unit = config.gain_unit or ("raw" if raw else "db")
        self._db_per_raw = config.gain_db_per_raw
        self._gain_of = next(
            (name for name in ("All", "AnalogAll") if name in nodes.choices("GainSelector")), None
        )

    def _time_node(self, config: GenicamCameraConfig) -> str:
        name = config.exposure_node or self._nodes.first(*EXPOSURE)
        if name is None or not self._nodes.readable(name):
            sought = ", ".join(EXPOSURE) if config.exposure_node is None else config.exposure_node
            raise SettingRefused(
                self._nodes.device,
                f"has no node {sought}: name its node under exposure_node, give a description that has one, "
                "or, if the exposure cannot be set, fixed_exposure_s",
            )
        return name

    def _time_unit_s(self, name: str) -> float:
        if name == "ExposureTimeRaw":
            base = self._nodes.optional("ExposureTimeBaseAbs")
            if base:
                return base * 1e-6
        return SECONDS.get(self._nodes.unit(name), 1e-6)

    def apply(self, exposure_s: float, gain_db: float) -> None:
        """Set both; SettingRefused where the camera does not take one."""
        if self._fixed_s is not None:
            if not math.isclose(exposure_s, self._fixed_s, rel_tol=0.01):
                raise SettingRefused(
                    self._nodes.device,
                    f"always exposes {self._fixed_s:g} s (fixed_exposure_s), not {exposure_s:g} s",
                )
        else:
            value = exposure_s / self._unit_s
            self._nodes.write(self._time, self._nodes.nearest(self._time, value), exact=False)
        self._apply_gain(gain_db)

    def _apply_gain(self, gain_db: float) -> None:
        if self._gain is None:
            if gain_db:
                raise SettingRefused(self._nodes.device, f"has no gain to set to {gain_db:g} dB")
            return
        self._select_gain()
        value = gain_db
        if self._gain_unit == "factor":
            value = 10 ** (gain_db / 20)
        elif self._gain_unit == "raw":
            if gain_db and self._db_per_raw is None:
                raise SettingRefused(
                    self._nodes.device,
                    f"{self._gain} counts steps: give gain_db_per_raw, from its data sheet",
                )
            value = self._least_gain() + round(gain_db / (self._db_per_raw or 1.0))
        self._nodes.write(self._gain, self._nodes.nearest(self._gain, value), exact=False)

    def reported(self) -> tuple[float, float]:
        """What the nodes say now: exposure in seconds, gain in dB."""
        exposure_s = (
            self._fixed_s if self._fixed_s is not None else self._nodes.number(self._time) * self._unit_s
        )
        if self._gain is None:
            return exposure_s, 0.0
        self._select_gain()
        return exposure_s, self.decibels(self._nodes.number(self._gain))

    def decibels(self, gain: float) -> float:
        """Gain as the camera has it, in dB."""
        if self._gain_unit == "factor":
            return 20 * math.log10(gain) if gain > 0 else -math.inf
        if self._gain_unit == "raw":
            return (gain - self._least_gain()) * (self._db_per_raw or 0.0)
        return gain

    def _least_gain(self) -> float:
        return float(self._nodes.node(self._gain or "").min)

    def _select_gain(self) -> None:
        if self._gain_of is not None and not self._nodes.has("GainSelector", self._gain_of):
            self._nodes.write("GainSelector", self._gain_of)


def black_level_dn(nodes: Nodes) -> float | None:
    """Black level where the camera tells it in digital numbers."""
    name = nodes.first("BlackLevel", "BlackLevelRaw")
    return nodes.optional(name) if name is not None and nodes.unit(name) in DN_UNITS else None


def check_size(device: str, limits: CameraLimits, width: int, height: int) -> None:
    """SettingRefused unless a picture has the size that was set."""
    if (width, height) != (limits.width, limits.height):
        raise SettingRefused(
            device, f"sent {width} x {height}, the rig file says {limits.width} x {limits.height}"
        )
