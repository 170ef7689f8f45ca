"""Outputs of a strobe controller as a rig file names them: steady, or pulsed by the camera's trigger."""

import time
from contextlib import AbstractContextManager
from typing import Literal

from pydantic import Field

from capture.devices import SettingRefused
from capture.drivers.gardasoft.codec import Pulse, Setting, steady
from capture.drivers.gardasoft.controller import Controller
from capture.drivers.link import SerialLink, serial_ports
from capture.drivers.shared import ChannelConfig, Shared, SharedLight, check_level, named, steps_of


class GardasoftLightConfig(ChannelConfig):
    """One output of a controller. Not tested on hardware.

    Attributes
    ----------
    port : str
        Serial port, or ``socket://HOST:30313`` for TCP.
    channel : int
        Output, from 1.
    full_percent : float
        Brightness of level 1 that burns, in percent of the light's rating.
    pulse_percent : float
        Brightness of level 1 that is pulsed; beyond 100 pulses must be short, as the manual's table says.
    """

    driver: Literal["gardasoft"] = "gardasoft"
    channel: int = Field(ge=1, le=8)
    full_percent: float = Field(default=100.0, gt=0, le=100)
    pulse_percent: float = Field(default=100.0, gt=0, le=999)
    sequence: Literal[False] = False

    def open(self, name: str) -> "GardasoftLight":
        """Return the light, to be entered at once."""
        return GardasoftLight(name, self)


class GardasoftLight(SharedLight[GardasoftLightConfig, Controller]):
    """One output of a controller."""

    _rest_s: float | None = None
    _lit = False

    @property
    def identity(self) -> dict[str, str]:
        """Model of the controller, with what its hardware and firmware are; DeviceError unless open."""
        return {"model": self._open().model}

    def set(self, level: float) -> None:
        """Burn at ``level`` (0 dark, 1 full); return once acknowledged and settled. Disarms a pulse.

        Raises
        ------
        DeviceError
            The light did not follow.
        """
        percent = self._percent(level, self.config.full_percent)
        with named(self.name):
            self._tell(steady(self.config.channel, percent), Setting(percent))
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
        pulse = Pulse(self._percent(level, self.config.pulse_percent), delay_s, duration_s)
        if duration_s > pulse.longest_s * (1 + 1e-9):
            raise SettingRefused(
                self.name,
                f"a pulse of {duration_s:g} s at {pulse.percent:g} % may last {pulse.longest_s:g} s",
            )
        with named(self.name):
            if self._rest_s is not None:
                # when the earlier pulse came is the trigger's to know
                time.sleep(self._rest_s)
            self._tell(pulse.command(self.config.channel), Setting(pulse.percent, delay_s, duration_s))
            self._rest_s = max(pulse.rest_s, delay_s + duration_s)
            if self._lit:
                time.sleep(self.limits.settle_s)
                self._lit = False
            self._open().confirm()

    def confirm(self) -> None:
        """Raise DeviceError for what went wrong since the last call."""
        with named(self.name):
            self._open().confirm()

    def _percent(self, level: float, full: float) -> float:
        check_level(self.name, level)
        return steps_of(level, full * 10) / 10

    def _tell(self, command: str, asked: Setting) -> None:
        controller = self._open()
        exact = controller.tell(self.config.channel, command)
        told = controller.setting(self.config.channel)
        if asked.delay_s is None:
            told = Setting(told.percent)
        # a time that was changed must be known to have been changed by little
        if not told.follows(asked) or not (exact or told.delay_s is not None):
            raise SettingRefused(self.name, f"was told {asked}, and is set to {told}")

    def _shared(self) -> AbstractContextManager[Controller]:
        return _CONTROLLERS((self.config.address, self.config.baud))

    def _join(self, controller: Controller) -> None:
        controller.claim(self.name, self.config.channel)
        self._rest_s = None
        self._lit = False

    def _leave(self, controller: Controller) -> None:
        controller.release(self.config.channel)


def _open_controller(key: tuple[str, int]) -> Controller:
    port, baud = key
    return Controller(SerialLink(f"controller at {port}", port, baud))


_CONTROLLERS = Shared(_open_controller)


def survey() -> str:
    """Ports that may have a controller; nothing is asked."""
    return f"strobe controllers of Gardasoft, untested on hardware, by TCP or on ports: {serial_ports()}"
