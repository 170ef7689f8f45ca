"""DMX lights as a rig file names them: their channels, and what their level means there."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from capture.drivers.dmx import codec
from capture.drivers.dmx.lines import ArtNet, Enttec, Sacn
from capture.drivers.link import Host, Port, port_itself
from capture.drivers.shared import steps_of
from capture.drivers.slots import SlotLightConfig
from capture.plan import expand_ranges

Channel = Annotated[int, Field(ge=1, le=codec.SLOTS)]
Byte = Annotated[int, Field(ge=0, le=255)]


def _listed(value: object) -> object:
    return (value,) if isinstance(value, int) else expand_ranges(value)


class DmxLightConfig(SlotLightConfig):
    """Some channels of a DMX universe that burn as one light.

    Attributes
    ----------
    channels : tuple of int
        From 1, as fixtures count; one, a list, or a range such as ``1..3``. All get the level.
    fine : bool
        Each channel is the coarse half of 16 bits; the channel after it is the fine half.
    full_level : int or None
        The value that is level 1: of 255, with ``fine`` of 65535, which are the defaults.
    fixed : dict of int to int
        Channels that have a value of their own from the first `set` to the closing: a mode, a shutter, the
        master dimmer of a fixture that has colours besides. Lights that want the same value may share them.
    settle_s : float
        From the frame's sending: the way over the wire, twice 23 ms at a whole universe, is within.
    """

    channels: Annotated[tuple[Channel, ...], BeforeValidator(_listed), Field(min_length=1)]
    fine: bool = False
    full_level: int | None = Field(default=None, ge=1, le=0xFFFF)
    fixed: dict[Channel, Byte] = {}
    settle_s: float = Field(default=0.05, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        used = [*self.channels, *self.fixed]
        if self.fine:
            used += [channel + 1 for channel in self.channels]
        if max(used) > codec.SLOTS:
            raise ValueError(f"channel {codec.SLOTS} has no fine half after it")
        twice = sorted({channel for channel in used if used.count(channel) > 1})
        if twice:
            raise ValueError(f"channel {twice[0]} is used twice")
        if not self.fine and (self.full_level or 0) > 255:
            raise ValueError("full_level goes to 255 without fine")
        return self

    def values(self, level: float) -> dict[int, int]:
        """Return the bytes of the light's own slots, from 0, at a level from 0 to 1."""
        values: dict[int, int] = {}
        steps = steps_of(level, self.full_level or (0xFFFF if self.fine else 0xFF))
        for channel in self.channels:
            if self.fine:
                values[channel - 1], values[channel] = divmod(steps, 256)
            else:
                values[channel - 1] = steps
        return values

    @property
    def constants(self) -> dict[int, int]:
        """The fixed channels, as slots."""
        return {channel - 1: value for channel, value in self.fixed.items()}


class EnttecLightConfig(DmxLightConfig):
    """A DMX light behind an ENTTEC DMX USB Pro, or a widget that speaks like it.

    Attributes
    ----------
    port : str
        Its serial port.
    """

    driver: Literal["enttec"] = "enttec"
    port: Port

    def line(self) -> Enttec:
        """Where the light is, not open."""
        return Enttec(port_itself(self.port))


class ArtNetLightConfig(DmxLightConfig):
    """A DMX light of an Art-Net node.

    Attributes
    ----------
    host : str
        Name or address of the node; a broadcast address reaches all.
    universe : int
        The 15 bits of net, sub-net and universe: 256 net + 16 sub-net + universe, each from 0.
    udp_port : int
        6454, but for tests.
    """

    driver: Literal["artnet"] = "artnet"
    host: Host
    universe: int = Field(default=0, ge=0, lt=codec.ARTNET_UNIVERSES)
    udp_port: int = Field(default=codec.ARTNET_PORT, ge=1, le=65535)

    def line(self) -> ArtNet:
        """Where the light is, not open."""
        return ArtNet(self.host, self.udp_port, self.universe)


class SacnLightConfig(DmxLightConfig):
    """A DMX light that hears sACN (E1.31).

    Attributes
    ----------
    universe : int
        From 1.
    host : str or None
        Name or address of the receiver; without, the universe's multicast group, by the network that this
        computer takes for it. Give it where the computer has several networks.
    udp_port : int
        5568, but for tests.
    """

    driver: Literal["sacn"] = "sacn"
    universe: int = Field(default=1, ge=codec.SACN_UNIVERSES.start, lt=codec.SACN_UNIVERSES.stop)
    host: Host | None = None
    udp_port: int = Field(default=codec.SACN_PORT, ge=1, le=65535)

    def line(self) -> Sacn:
        """Where the light is, not open."""
        return Sacn(self.host, self.universe, self.udp_port)
