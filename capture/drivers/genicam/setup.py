"""A camera brought to where raw numbers come from; its exposure and gain under their several names."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from capture.devices import CameraLimits, DeviceError, SettingRefused
from capture.drivers.genicam.config import GenicamCameraConfig, Value
from capture.drivers.genicam.nodes import Nodes
from capture.drivers.opening import check_ranges
from capture.drivers.sfnc import NEUTRAL
from capture.packing import packing_of

EXPOSURE = ("ExposureTime", "ExposureTimeAbs", "ExposureTimeRaw")
"""SFNC 2, SFNC 1 and before, in the order they are tried; microseconds where the node tells no unit."""

GAIN = ("Gain", "GainAbs", "GainRaw")
"""The same for gain; dB, but for raw steps."""

SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("", "us", "µs", "μs", "usec", "usecs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e-9),
}
"""What nodes write as their unit; those that write none count in microseconds, as SFNC says."""

_UNITS_OF_GAIN: dict[str, Literal["db", "factor"]] = {
    **dict.fromkeys(("", "db"), "db"),
    **dict.fromkeys(("x", "times", "factor"), "factor"),
}

_TRIGGERS = ("FrameStart", "ExposureStart", "FrameBurstStart")
"""Those that begin one exposure, a burst's with one frame in it; the first that is there is taken."""

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
    if config.trigger != "free":
        _aim_at_frames(nodes)
    if "Sensor" in nodes.choices("DeviceTemperatureSelector") and "DeviceTemperatureSelector" not in own:
        with suppress(SettingRefused):
            nodes.write("DeviceTemperatureSelector", "Sensor")


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
    wanted += [(name, False) for name in automatic if nodes.is_switch(name)]
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
    sent = _sent_format(nodes, config) if nodes.readable("PixelFormat") else None
    if sent is not None:
        nodes.write("PixelFormat", sent)
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
    if sent is not None and not nodes.has("PixelFormat", sent):
        raise SettingRefused(
            nodes.device,
            f"PixelFormat {sent} becomes {nodes.read('PixelFormat')} with the region: "
            "choose even offsets, or name that as pixel_format",
        )


def _sent_format(nodes: Nodes, config: GenicamCameraConfig) -> str:
    if config.sent_format is not None:
        return config.sent_format
    there = nodes.choices("PixelFormat")
    if config.pixel_format in there and nodes.writable("PixelFormat"):
        return config.pixel_format
    # what cannot be changed may do as it is
    for name in there if nodes.writable("PixelFormat") else [str(nodes.read("PixelFormat"))]:
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
    for start in nodes.choices("TriggerSelector"):
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
    if not starts:
        return
    frame = next((name for name in _TRIGGERS if name in starts), None)
    if frame is None:
        raise SettingRefused(
            nodes.device,
            f"has no trigger of single frames, only TriggerSelector {', '.join(starts)}: say trigger: free",
        )
    nodes.write("TriggerSelector", frame)
    if frame == "FrameBurstStart" and nodes.readable("AcquisitionBurstFrameCount"):
        nodes.write("AcquisitionBurstFrameCount", 1)


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
    """Exposure and gain of one camera, in seconds and dB whatever its nodes count in.

    Raises
    ------
    SettingRefused
        A node is not there, or counts in a unit that nobody has told.
    """

    def __init__(self, nodes: Nodes, config: GenicamCameraConfig) -> None:
        self._nodes = nodes
        self._fixed_s = config.fixed_exposure_s
        self._time = self._time_node(config) if self._fixed_s is None else ""
        self._unit_s = config.exposure_unit_s or self._time_unit_s(self._time)
        self._gain = config.gain_node or nodes.first(*GAIN)
        if config.gain_node is not None and not nodes.readable(config.gain_node):
            raise SettingRefused(nodes.device, f"has no node {config.gain_node}: look at gain_node")
        self._channels = self._gain_channels(config)
        self._gain_unit = config.gain_unit or self._unit_of_gain()
        self._db_per_raw = config.gain_db_per_raw

    @property
    def locked(self) -> bool:
        """Whether exposure or gain cannot be set now, as while some cameras stream."""
        return any(name and not self._nodes.writable(name) for name in (self._time, self._gain))

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
        unit = self._nodes.unit(name)
        if unit not in SECONDS:
            raise SettingRefused(
                self._nodes.device, f"{name} counts in {unit!r}: give exposure_unit_s, the seconds of one"
            )
        return SECONDS[unit]

    def _unit_of_gain(self) -> Literal["db", "factor", "raw"]:
        if self._gain is None:
            return "db"
        unit = self._nodes.unit(self._gain)
        # an integer without a unit counts steps, by whatever name
        if self._gain.endswith("Raw") or (not unit and self._nodes.is_whole(self._gain)):
            return "raw"
        span = self._nodes.span(self._gain)
        if not unit and span is not None and span[0] == 1:
            raise SettingRefused(
                self._nodes.device,
                f"{self._gain} begins at 1 and has no unit: give gain_unit, factor or db",
            )
        if unit not in _UNITS_OF_GAIN:
            raise SettingRefused(
                self._nodes.device, f"{self._gain} counts in {unit!r}: give gain_unit: db, factor or raw"
            )
        return _UNITS_OF_GAIN[unit]

    def _gain_channels(self, config: GenicamCameraConfig) -> tuple[str, ...]:
        """What `GainSelector` goes through to set all pixels' gain; none where it is as it should be."""
        there = self._nodes.choices("GainSelector")
        for name in ("All", "AnalogAll", "DigitalAll"):
            if name in there:
                return (name,)
        own = any("GainSelector" in part for part in config.nodes)
        return () if own or not self._nodes.writable("GainSelector") else tuple(there)

    def check(self, limits: CameraLimits) -> None:
        """SettingRefused where the rig file allows what the camera cannot do."""
        if self._gain_unit == "raw" and self._db_per_raw is None and limits.gain_max_db:
            raise SettingRefused(self._nodes.device, f"{self._counts_steps()}, or gain_max_db 0")
        exposures = None if self._fixed_s is not None else self._nodes.span(self._time)
        check_ranges(
            self._nodes.device,
            limits,
            exposures_s=exposures and (exposures[0] * self._unit_s, exposures[1] * self._unit_s),
            gains_db=self._gains_db(),
        )

    def _counts_steps(self) -> str:
        return f"{self._gain} counts steps: give gain_db_per_raw, from its data sheet"

    def _gains_db(self) -> tuple[float, float] | None:
        if self._gain is None:
            return 0.0, 0.0
        self._select_gain()
        gains = self._nodes.span(self._gain)
        return gains and (self.decibels(gains[0]), self.decibels(gains[1]))

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
        if self._gain_unit == "raw" and gain_db and self._db_per_raw is None:
            raise SettingRefused(self._nodes.device, self._counts_steps())
        # in reverse: the first stays selected, and is the one that is reported
        for channel in self._channels[::-1] or (None,):
            self._select_gain(channel)
            value = gain_db
            if self._gain_unit == "factor":
                value = 10 ** (gain_db / 20)
            elif self._gain_unit == "raw":
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

    def of_frame(self, exposure: float | None, gain: float | None) -> tuple[float, float]:
        """As `reported`, but what the frame says of itself in `ChunkExposureTime` and `ChunkGain`."""
        exposure_s, gain_db = self.reported()
        if exposure is not None and exposure > 0:
            exposure_s = exposure * SECONDS.get(self._nodes.unit("ChunkExposureTime"), 1e-6)
        if gain is not None and self._gain == "Gain":
            gain_db = self.decibels(gain)
        return exposure_s, gain_db

    def decibels(self, gain: float) -> float:
        """Gain as the camera has it, in dB."""
        if self._gain_unit == "factor":
            return 20 * math.log10(gain) if gain > 0 else -math.inf
        if self._gain_unit == "raw":
            return (gain - self._least_gain()) * (self._db_per_raw or 0.0)
        return gain

    def _least_gain(self) -> float:
        return float(self._nodes.node(self._gain or "").min)

    def _select_gain(self, channel: str | None = None) -> None:
        channel = channel or next(iter(self._channels), None)
        if channel is not None and not self._nodes.has("GainSelector", channel):
            self._nodes.write("GainSelector", channel)


def black_level_dn(nodes: Nodes) -> float | None:
    """Black level where the camera tells it in digital numbers."""
    name = nodes.first("BlackLevel", "BlackLevelRaw")
    return nodes.optional(name) if name is not None and nodes.unit(name) in DN_UNITS else None
