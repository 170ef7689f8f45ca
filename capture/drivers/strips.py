"""LED strips: behind a microcontroller that speaks Adalight, or WLED on the network.

Sources: the LEDstream sketch of Adalight (Adafruit), WLED's page on UDP realtime control.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from capture.drivers.link import Host, Port, SerialLink, UdpLink, port_itself, serial_ports
from capture.drivers.shared import steps_of
from capture.drivers.slots import Line, SlotLightConfig
from capture.plan import expand_ranges

WLED_PORT = 21324

_COLOURS = ("red", "green", "blue")

WLED_WATCHDOG_S = 2
"""WLED goes back to what it showed before when it has heard nothing for this long."""

_LED_S = 30e-6
"""Time that one LED's 24 bits take along the strip."""

_WLED_LEDS = 489
"""Most LEDs of one packet that says where it begins; one more without."""

Share = Annotated[float, Field(ge=0, le=1)]


def adalight_frame(colours: bytes) -> bytes:
    """Return what a strip is sent, all of its LEDs; ``colours`` has three bytes for each."""
    high, low = divmod(len(colours) // 3 - 1, 256)
    return b"Ada" + bytes([high, low, high ^ low ^ 0x55]) + colours


def wled_packets(colours: bytes) -> Iterator[bytes]:
    """Yield what WLED is sent, DRGB or DNRGB; ``colours`` has three bytes for each LED."""
    if len(colours) <= 3 * (_WLED_LEDS + 1):
        yield bytes([2, WLED_WATCHDOG_S]) + colours
        return
    leds = len(colours) // 3
    for begin in range(0, leds, _WLED_LEDS):
        # it passes over a packet of one LED
        first = min(begin, leds - 2)
        part = colours[3 * first : 3 * (begin + _WLED_LEDS)]
        yield struct.pack(">BBH", 4, WLED_WATCHDOG_S, first) + part


@dataclass(eq=False)
class _Strip(Line):
    strip: int

    @property
    def slots(self) -> int:
        """Bytes of a frame."""
        return 3 * self.strip

    def slot(self, number: int) -> str:
        """What people call a slot: a colour of an LED, from 0."""
        return f"{_COLOURS[number % 3]} of LED {number // 3}"


@dataclass(eq=False)
class AdalightLine(_Strip):
    """A strip behind a microcontroller. Whether it goes dark when no more comes is its sketch's to say."""

    port: str
    baud: int
    boot_s: float

    def __post_init__(self) -> None:
        # ten bits a byte, after the frame that may be under way; then along the strip
        self.shown_s = 2 * (6 + self.slots) * 10 / self.baud + self.strip * _LED_S

    @property
    def name(self) -> str:
        """For its errors."""
        return f"strip at {self.port}"

    @property
    def address(self) -> str:
        """The port."""
        return self.port

    def link(self) -> SerialLink:
        """Return the port."""
        return SerialLink(self.name, self.port, self.baud)

    def messages(self, frame: bytes, number: int) -> Sequence[bytes]:
        """Return what is sent for a frame."""
        return [adalight_frame(frame)]

    def _opened(self, link: SerialLink) -> None:
        # opening resets many a board; one that says nothing has either booted or been given its time
        link.read_until(b"Ada\n", self.boot_s)


@dataclass(eq=False)
class WledLine(_Strip):
    """A strip of WLED, which goes back to its own state `WLED_WATCHDOG_S` after the last frame."""

    host: str
    port: int

    repeat_s = WLED_WATCHDOG_S / 4

    def __post_init__(self) -> None:
        # every packet is shown by itself
        self.shown_s = len(self.messages(bytes(self.slots), 1)) * self.strip * _LED_S

    @property
    def name(self) -> str:
        """For its errors."""
        return f"WLED at {self.host}"

    @property
    def address(self) -> str:
        """The host."""
        return f"{self.name}:{self.port}"

    def link(self) -> UdpLink:
        """Return the way to the host."""
        return UdpLink(self.name, self.host, self.port)

    def messages(self, frame: bytes, number: int) -> Sequence[bytes]:
        """Return what is sent for a frame."""
        return tuple(wled_packets(frame))


def _listed(value: object) -> object:
    return (value,) if isinstance(value, int) else expand_ranges(value)


class StripLightConfig(SlotLightConfig):
    """Some LEDs of a strip that burn as one light.

    Attributes
    ----------
    leds : tuple of int
        From 0 at the strip's beginning; one, a list, or a range such as ``0..7``.
    strip : int
        How many LEDs the whole strip has: the same for all of its lights.
    colour : tuple of float
        Red, green, blue at level 1, each from 0 to 1, in the order in which the strip's controller takes
        them. Lights of different colours may share LEDs.
    """

    leds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_listed), Field(min_length=1)]
    strip: int = Field(ge=1)
    colour: tuple[Share, Share, Share] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if max(self.leds) >= self.strip:
            raise ValueError(f"a strip of {self.strip} LEDs has those from 0 to {self.strip - 1}")
        if len(set(self.leds)) != len(self.leds):
            raise ValueError("repeats an LED")
        if not any(self.colour):
            raise ValueError("a light without colour is dark")
        return self

    def values(self, level: float) -> dict[int, int]:
        """Return the bytes of the light's own slots, from 0, at a level from 0 to 1; no colour it lacks."""
        shares = {place: steps_of(level * share, 255) for place, share in enumerate(self.colour) if share}
        return {3 * led + place: share for led in self.leds for place, share in shares.items()}


class AdalightConfig(StripLightConfig):
    """LEDs of a strip behind a microcontroller that speaks Adalight.

    Attributes
    ----------
    port : str
        Its serial port.
    baud : int
        Bits a second, as the sketch has it.
    boot_s : float
        For how long the board is waited for after opening; no longer than until the sketch greets with
        "Ada".
    """

    driver: Literal["adalight"] = "adalight"
    port: Port
    baud: int = Field(default=115200, gt=0)
    strip: int = Field(ge=1, le=0x10000)
    boot_s: float = Field(default=2.5, ge=0)

    def line(self) -> AdalightLine:
        """Where the light is, not open."""
        return AdalightLine(self.strip, port_itself(self.port), self.baud, self.boot_s)


class WledConfig(StripLightConfig):
    """LEDs of a strip of WLED.

    Attributes
    ----------
    host : str
        Name or address.
    udp_port : int
        As in WLED's sync settings.
    settle_s : float
        From the frame's sending: what Wi-Fi takes is within.
    """

    driver: Literal["wled"] = "wled"
    host: Host
    strip: int = Field(ge=1, le=0x10000)
    udp_port: int = Field(default=WLED_PORT, ge=1, le=65535)
    settle_s: float = Field(default=0.1, ge=0)

    def line(self) -> WledLine:
        """Where the light is, not open."""
        return WledLine(self.strip, self.host, self.udp_port)


def survey_adalight() -> str:
    """Ports that may have a strip; none is opened, as that resets many a board."""
    return f"LED strips behind a microcontroller that speaks Adalight; ports: {serial_ports()}"


def survey_wled() -> str:
    """Nothing is looked for: a search would go to everybody on the network."""
    return "LED strips of the WLED whose address the rig file gives; nothing is searched for"
