"""The lights of a dome: channels of one controller that share its port."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from pydantic import Field

from capture.devices import DeviceError
from capture.drivers.dome.controller import Controller
from capture.drivers.link import SerialLink, serial_ports
from capture.drivers.shared import ChannelConfig, Shared, SharedLight, check_level, named, steps_of

_COUNT_MAX = 255
"""Exposures that one step of the controller's table can burn for."""


class DomeLightConfig(ChannelConfig):
    """One channel of a dome's controller.

    Attributes
    ----------
    channel : int
        Which of the controller's channels, from 0.
    full_level : int or None
        The controller's level that is level 1 here; its greatest without.
    """

    driver: Literal["dome"] = "dome"
    channel: int = Field(ge=0)
    full_level: int | None = Field(default=None, ge=1)
    strobe: Literal[False] = False

    def open(self, name: str) -> "DomeLight":
        """Return the light, to be entered at once."""
        return DomeLight(name, self)


class Dome:
    """The controller of a port and those of its ``lights`` that are open: their sequencer.

    Its errors name the first of its lights.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.lights: dict[str, DomeLight] = {}

    @property
    def max_steps(self) -> int:
        """Steps that the controller's table holds; one of more than 255 exposures takes several."""
        return self.controller.identity.steps

    def arm(self, steps: Sequence[tuple[Mapping[str, float], int]]) -> None:
        """Store a sequence and light its first step; return once that has settled.

        Raises
        ------
        DeviceError
            The controller does not take it, or has gone dark since it was last lit; all is dark.
        ValueError
            No steps, a count below 1, a level outside 0 to 1, or a light that is not open here.
        """
        table: list[tuple[dict[int, int], int]] = []
        for levels, count in steps:
            if count < 1:
                raise ValueError(f"a step of {count} exposures")
            burning = {}
            for name, level in levels.items():
                if name not in self.lights:
                    raise ValueError(f"light {name} is not of this dome, which has {', '.join(self.lights)}")
                light = self.lights[name]
                burning[light.config.channel] = light.steps_of(level)
            while count > 0:
                table.append((burning, min(count, _COUNT_MAX)))
                count -= _COUNT_MAX
        if not table:
            raise ValueError("a sequence without steps")
        first = next(iter(self.lights))
        with named(first):
            if len(table) > self.max_steps:
                self.controller.off()
                raise DeviceError(
                    first, f"a sequence of {len(table)} steps, and the controller holds {self.max_steps}"
                )
            self.controller.arm(table)
        time.sleep(max(light.limits.settle_s for light in self.lights.values()))
        with named(first):
            self.controller.confirm()

    def stop(self) -> int:
        """Go dark, disarm, and return how many exposures the camera has signalled since ``arm``.

        Raises
        ------
        DeviceError
            Lights have gone dark since ``arm`` without being told to: the frames since are not to be trusted.
        """
        with named(next(iter(self.lights))):
            return self.controller.stop()

    def join(self, light: "DomeLight") -> None:
        """Take in a light that is being opened; ValueError where the controller has no such thing."""
        identity = self.controller.identity
        where = f"light {light.name}: the controller {identity.name} at {light.config.port}"
        if light.config.channel >= identity.channels:
            raise ValueError(f"{where} has channels 0 to {identity.channels - 1}, no {light.config.channel}")
        if (light.config.full_level or 0) > identity.max_level:
            raise ValueError(f"{where} has levels up to {identity.max_level}, no {light.config.full_level}")
        longest_s = light.limits.max_on_s or 0.0
        if 0 < identity.max_on_s < longest_s:
            raise ValueError(
                f"{where} lets a light burn for {identity.max_on_s:g} s, less than max_on_s, {longest_s:g} s"
            )
        # 1 says only that nothing is known of the lamp
        if identity.max_duty < light.limits.max_duty < 1:
            raise ValueError(
                f"{where} lets a light burn for {identity.max_duty:.0%} of the time, less than max_duty, "
                f"{light.limits.max_duty:g}"
            )
        for other in self.lights.values():
            if other.config.channel == light.config.channel:
                raise ValueError(
                    f"{where} has channel {light.config.channel} but once: light {other.name} has it"
                )
        self.lights[light.name] = light

    def leave(self, light: "DomeLight") -> None:
        """Forget a light."""
        self.lights.pop(light.name, None)


class DomeLight(SharedLight[DomeLightConfig, Dome]):
    """One light of a dome."""

    @property
    def sequencer(self) -> Dome:
        """The controller with its lights: the same object for all of them; DeviceError unless open."""
        return self._open()

    @property
    def identity(self) -> dict[str, str]:
        """Model, serial number and firmware of the controller; DeviceError unless open."""
        controller = self._open().controller.identity
        return {"model": controller.name, "serial": controller.uid, "firmware": controller.firmware}

    def set(self, level: float) -> None:
        """Burn at ``level`` (0 dark, 1 full); return once acknowledged and settled. Disarms a sequence.

        Raises
        ------
        DeviceError
            The light did not follow, or lights of its controller have gone dark since they were set.
        """
        steps = self.steps_of(level)
        with named(self.name):
            controller = self._open().controller
            controller.light(self.config.channel, steps)
            time.sleep(self.limits.settle_s)
            if steps:
                controller.confirm()

    def confirm(self) -> None:
        """Raise DeviceError where lights have gone dark by themselves since they were set.

        The controller is asked, which takes a round trip.
        """
        with named(self.name):
            self._open().controller.confirm(self.config.channel)

    def steps_of(self, level: float) -> int:
        """Return the controller's level: none but level 0 is dark; ValueError outside 0 to 1."""
        check_level(self.name, level)
        return steps_of(level, self.config.full_level or self._open().controller.identity.max_level)

    def _shared(self) -> AbstractContextManager[Dome]:
        return _DOMES((self.config.address, self.config.baud))

    def _join(self, dome: Dome) -> None:
        dome.join(self)

    def _leave(self, dome: Dome) -> None:
        dome.leave(self)
        try:
            dome.controller.light(self.config.channel, 0)
        except DeviceError:
            # with its last light the controller is closed, which makes all dark, or tells
            if dome.lights and dome.controller.burning:
                raise


@contextmanager
def _open_dome(key: tuple[str, int]) -> Iterator[Dome]:
    port, baud = key
    with Controller(SerialLink(f"dome at {port}", port, baud)) as controller:
        yield Dome(controller)


_DOMES = Shared(_open_dome)


def survey() -> str:
    """Ports that may have a controller; none is opened, as that resets it."""
    return f"lights of a dome's controller; ports: {serial_ports()}"
