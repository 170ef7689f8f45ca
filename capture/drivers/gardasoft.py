"""Strobe controllers of Gardasoft, series RT and PP, on a serial port or over TCP.

Written after their manuals, and never run on the hardware: tests know only an emulator made after the same
manuals. Source: user manuals of the RT200-20 and PP420 series, chapters "Command configuration".
"""

import re
import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Literal, Self

from pydantic import Field

from capture.devices import DeviceError, DeviceLost, LightLimits, SettingRefused
from capture.drivers.link import (
    UNATTENDED_S,
    SerialLink,
    Shared,
    named,
    port_itself,
    reason_of,
    serial_ports,
)
from capture.drivers.will import Will

TCP_PORT = 30313

_REPLY_S = 1.0
"""How long a reply may take."""

_IDLE_S = 3.0
"""A TCP connection that is idle for 10 s is closed by the controller."""

# ---------------------------------------------------------------- what goes over the line

_ERROR = re.compile(r"Err\s*(\d+)")
_MODEL = re.compile(r"(\S+)\s*\(HW")
_BRIGHTNESS = re.compile(r"\bSE\s*([\d.]+)")

_ERRORS = {
    1: "a value is not allowed",
    2: "the command is not known",
    3: "a number is not understood",
    4: "wrong number of values",
    5: "a time was out of range and has been changed",
}

_OVERDRIVE = (
    (100.0, None, 1.0),
    (200.0, 0.030, 0.3),
    (300.0, 0.010, 0.2),
    (500.0, 0.002, 0.1),
    (1000.0, 0.001, 0.05),
)
"""Brightness up to so many percent; longest pulse in s; largest duty."""


def steady(channel: int, percent: float) -> str:
    """Return the command that lets a channel burn; 0 makes it dark."""
    return f"RS{channel},{_number(percent)}"


def pulsed(channel: int, percent: float, delay_s: float, duration_s: float, rest_s: float = 0.0) -> str:
    """Return the command that pulses a channel with each trigger, none sooner than ``rest_s`` after one."""
    values = [duration_s * 1e3, delay_s * 1e3, percent, *([rest_s * 1e3] if rest_s else [])]
    return f"RT{channel}," + ",".join(map(_number, values))


def overdrive(percent: float) -> tuple[float | None, float]:
    """Return the longest pulse in s, None for any, and the largest duty at this brightness."""
    return next((longest, duty) for most, longest, duty in _OVERDRIVE if percent <= most)


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


# ---------------------------------------------------------------- configuration


class GardasoftLightConfig(LightLimits):
    """One output of a controller. Not tested on hardware.

    Attributes
    ----------
    port : str
        Serial port, or ``socket://HOST:30313`` for TCP.
    baud : int
        Bits a second of a serial port.
    channel : int
        Output, from 1.
    full_percent : float
        Brightness of level 1 that burns, in percent of the light's rating.
    pulse_percent : float
        Brightness of level 1 that is pulsed; beyond 100 pulses must be short, as the manual's table says.
    """

    driver: Literal["gardasoft"] = "gardasoft"
    port: str
    baud: int = Field(default=115200, gt=0)
    channel: int = Field(ge=1, le=8)
    full_percent: float = Field(default=100.0, gt=0, le=100)
    pulse_percent: float = Field(default=100.0, gt=0, le=999)
    sequence: Literal[False] = False

    @property
    def address(self) -> str:
        """The port."""
        return port_itself(self.port)

    def open(self, name: str) -> "GardasoftLight":
        """Return the light, to be entered at once."""
        return GardasoftLight(name, self)


# ---------------------------------------------------------------- the controller


class Controller:
    """One open controller; safe for several threads.

    A connection that ends is made anew, once for each command: no command does harm twice. What the channels
    were told last is then told again, and the next `confirm` fails, as they may have been dark meanwhile.
    A program that hangs is bounded by `link.UNATTENDED_S`; when it dies, its `Will` makes the channels dark.

    Parameters
    ----------
    link : SerialLink
        Where it is; entered and left with the controller.

    Raises
    ------
    capture.devices.DeviceLost
        From every method: no reply, or no connection.
    capture.devices.SettingRefused
        From what is asked: the controller does not allow it.
    capture.devices.DeviceError
        From what is asked: any other error that it replies with.
    """

    def __init__(self, link: SerialLink) -> None:
        self.name = link.name
        self._link = link
        self._lock = threading.RLock()
        self._owners: dict[int, str] = {}
        self._told: dict[int, str] = {}
        self._fault: DeviceError | None = None
        self._will: Will | None = None
        self._asked_s = self._attended_s = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_open, name="gardasoft keep-alive", daemon=True)

    def claim(self, light: str, channel: int) -> None:
        """Give a channel to a light and make it dark; ValueError where another light has it."""
        with self._lock:
            if channel in self._owners:
                raise ValueError(f"light {light}: channel {channel} is that of light {self._owners[channel]}")
            self.tell(channel, steady(channel, 0))
            self._owners[channel] = light
            self._revoke()

    def release(self, channel: int) -> None:
        """Make a channel dark and forget it."""
        with self._lock:
            self._owners.pop(channel, None)
            try:
                self.tell(channel, steady(channel, 0))
            finally:
                self._told.pop(channel, None)

    def tell(self, channel: int, command: str) -> None:
        """Let a channel burn, pulse or go dark; return once acknowledged."""
        with self._lock:
            self._attended_s = time.monotonic()
            if self._will is None and command != steady(channel, 0):
                dark = ";".join(steady(owned, 0) for owned in self._owners)
                self._will = Will(self._link.fileno(), [b"\r", dark.encode() + b"\r"])
            self._ask(command)
            self._told[channel] = command

    def brightness(self, channel: int) -> float | None:
        """Return to how many percent a channel is set, by what it says; None where that is not understood."""
        match = _BRIGHTNESS.search(self._ask(f"ST{channel}"))
        return float(match[1]) if match else None

    def confirm(self) -> None:
        """Raise DeviceError, once, for what went wrong since the last time; takes one exchange."""
        with self._lock:
            self._attended_s = time.monotonic()
            fault, self._fault = self._fault, None
            if fault is not None:
                raise fault
            # an error is cleared by being read
            report = self._ask("GR", checked=False).strip()
        if report and _ERROR.findall(report) != ["0"]:
            raise DeviceError(
                self.name, f"reports {report!r}: see its manual, and the light's cable and rating"
            )

    def _ask(self, command: str, *, checked: bool = True) -> str:
        with self._lock:
            try:
                reply = self._exchange(command)
            except DeviceError:
                self._again()
                reply = self._exchange(command)
        error = _ERROR.search(reply)
        if checked and error is not None and int(error[1]):
            number = int(error[1])
            kind = SettingRefused if number in (1, 5) else DeviceError
            raise kind(
                self.name, f"refuses {command}: {_ERRORS.get(number, 'see its manual')} (error {number})"
            )
        return reply

    def _exchange(self, command: str) -> str:
        self._link.discard()
        self._link.write(command.encode() + b"\r")
        reply = self._link.read_until(b">", _REPLY_S)
        if reply is None:
            raise DeviceLost(
                self.name, f"no answer within {_REPLY_S:g} s: has it power, are port and baud right?"
            )
        self._asked_s = time.monotonic()
        text = reply[:-1].decode("ascii", "replace").strip()
        return text.removeprefix(command).strip()

    def _again(self) -> None:
        """Connect anew, and tell the channels what they were told."""
        self._revoke()
        self._link.__exit__()
        self._link.__enter__()
        self._fault = DeviceError(
            self.name, "the connection was lost and made anew: lights may have been dark"
        )
        for command in self._told.values():
            self._exchange(command)

    def _revoke(self) -> None:
        """Take back the will: the next light that burns makes another."""
        will, self._will = self._will, None
        if will is not None:
            will.revoke()

    def _keep_open(self) -> None:
        while not self._closing.wait(_IDLE_S / 3):
            with self._lock:
                now_s = time.monotonic()
                try:
                    if now_s - self._attended_s > UNATTENDED_S and self._told:
                        self._abandon()
                    elif now_s - self._asked_s >= _IDLE_S * 2 / 3:
                        self._ask("VR")
                except DeviceError as error:
                    self._fault = self._fault or error

    def _abandon(self) -> None:
        for channel in tuple(self._told):
            self._ask(steady(channel, 0))
            del self._told[channel]
        self._fault = DeviceError(
            self.name, f"nothing was asked of its lights for {UNATTENDED_S:g} s: made them dark"
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._link)
            version = self._exchange("VR")
            if not _MODEL.search(version):
                raise DeviceError(
                    self.name,
                    f"answers VR with {version!r}: is it a Gardasoft RT or PP, are port and baud right?",
                )
            # what happened before is nobody's fault here
            self._exchange("GR")
            self._attended_s = time.monotonic()
            stack.pop_all()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._revoke()
        self._link.__exit__()


# ---------------------------------------------------------------- the light


class GardasoftLight:
    """One output of a controller, which is opened with the first of its lights and closed with the last."""

    def __init__(self, name: str, config: GardasoftLightConfig) -> None:
        self.name = name
        self.limits = config.limits
        self.config = config
        self._controller: Controller | None = None
        self._leaving = ExitStack()
        self._rest_s: float | None = None
        self._lit = False

    def set(self, level: float) -> None:
        """Burn at ``level`` (0 dark, 1 full); return once acknowledged and settled. Disarms a pulse.

        Raises
        ------
        DeviceError
            The light did not follow.
        """
        percent = self._percent(level, self.config.full_percent)
        with named(self.name):
            self._tell(steady(self.config.channel, percent), percent)
            self._rest_s = None
            time.sleep(self.limits.settle_s)
            self._lit = level > 0
            if level:
                self._open().confirm()

    def strobe(self, level: float, delay_s: float, duration_s: float) -> None:
        """Go dark, and arm a pulse at ``level`` for the camera's next trigger; return once armed and dark.

        The controller pulses with every trigger until ``set`` or another ``strobe``. Beyond 100 % it ignores
        those that come before it has rested.

        Raises
        ------
        capture.devices.SettingRefused
            The pulse is too long for its brightness, or the controller does not allow it.
        capture.devices.DeviceError
            The light did not follow.
        """
        percent = self._percent(level, self.config.pulse_percent)
        longest_s, duty = overdrive(percent)
        if longest_s is not None and duration_s > longest_s * (1 + 1e-9):
            raise SettingRefused(
                self.name, f"a pulse of {duration_s:g} s at {percent:g} % may last {longest_s:g} s"
            )
        rest_s = duration_s / duty if duty < 1 else 0.0
        with named(self.name):
            if self._rest_s is not None:
                # when the earlier pulse came is the trigger's to know
                time.sleep(self._rest_s)
            self._tell(pulsed(self.config.channel, percent, delay_s, duration_s, rest_s), percent)
            self._rest_s = max(rest_s, delay_s + duration_s)
            if self._lit:
                time.sleep(self.limits.settle_s)
                self._lit = False
            self._open().confirm()

    def confirm(self) -> None:
        """Raise DeviceError for what went wrong since the last call."""
        with named(self.name):
            self._open().confirm()

    def _percent(self, level: float, full: float) -> float:
        if not 0 <= level <= 1:
            raise ValueError(f"{self.name}: level {level} is outside 0 to 1")
        return max(round(level * full, 1), 0.1) if level > 0 else 0.0

    def _tell(self, command: str, percent: float) -> None:
        controller = self._open()
        controller.tell(self.config.channel, command)
        told = controller.brightness(self.config.channel)
        if told is not None and abs(told - percent) > max(0.1, 0.005 * percent):
            raise SettingRefused(self.name, f"was told {percent:g} %, and is set to {told:g} %")

    def _open(self) -> Controller:
        if self._controller is None:
            raise DeviceError(self.name, "is not open")
        return self._controller

    def __enter__(self) -> Self:
        with named(self.name), ExitStack() as stack:
            controller = stack.enter_context(_CONTROLLERS((port_itself(self.config.port), self.config.baud)))
            controller.claim(self.name, self.config.channel)
            self._leaving = stack.pop_all()
        self._controller = controller
        self._rest_s = None
        self._lit = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        controller, self._controller = self._controller, None
        if controller is None:
            return
        with self._leaving:
            try:
                controller.release(self.config.channel)
            except DeviceError as failure:
                # what ends the program is told already
                if not isinstance(error, DeviceError):
                    raise DeviceLost(self.name, f"MAY STILL BURN: {reason_of(failure)}") from failure


def _open_controller(key: tuple[str, int]) -> Controller:
    port, baud = key
    return Controller(SerialLink(f"controller at {port}", port, baud))


_CONTROLLERS = Shared(_open_controller)


def survey() -> str:
    """Ports that may have a controller; nothing is asked."""
    return f"strobe controllers of Gardasoft, untested on hardware, by TCP or on ports: {serial_ports()}"
