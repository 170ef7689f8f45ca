"""A universe on its way: to a widget on a serial port, or over the network."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from uuid import uuid4

from capture.devices import DeviceLost
from capture.drivers.dmx import codec
from capture.drivers.link import SerialLink, UdpLink, serial_ports
from capture.drivers.slots import Line

_REPLY_S = 1.0
"""How long a widget may take to answer, and how often it is asked within."""

_TRIES = 3

_WIRE_S = 2 * codec.FRAME_S
"""A new frame waits for the one that is under way on the wire."""


class _Universe(Line):
    slots = codec.SLOTS
    shown_s = _WIRE_S

    def slot(self, number: int) -> str:
        """What people call a slot: channels count from 1."""
        return f"channel {number + 1}"


@dataclass(eq=False)
class Enttec(_Universe):
    """A universe behind an ENTTEC DMX USB Pro, or a widget that speaks like it.

    The widget sends its last frame on and on by itself, also when this computer is dead.
    """

    port: str

    @property
    def name(self) -> str:
        """For its errors."""
        return f"DMX at {self.port}"

    @property
    def address(self) -> str:
        """The port."""
        return self.port

    def link(self) -> SerialLink:
        """Return the port, whose baud means nothing: the widget is on USB."""
        return SerialLink(self.name, self.port, 57600)

    def messages(self, frame: bytes, number: int) -> Sequence[bytes]:
        """Return what is sent for a frame."""
        return [codec.enttec_dmx(frame)]

    def _opened(self, link: SerialLink) -> None:
        link.discard()
        rate_hz = self._ask_rate(link)
        self.shown_s = _WIRE_S if rate_hz is None else max(_WIRE_S, 2 / rate_hz)

    def _ask_rate(self, link: SerialLink) -> float | None:
        decoder = codec.EnttecDecoder()
        for _ in range(_TRIES):
            link.write(codec.enttec_message(codec.GET_PARAMETERS, bytes(2)))
            end = time.monotonic() + _REPLY_S / _TRIES
            while (left := end - time.monotonic()) > 0:
                for message in decoder.feed(link.read(left)):
                    if message.label == codec.GET_PARAMETERS:
                        return codec.enttec_rate_hz(message)
        raise DeviceLost(
            self.name,
            f"no answer within {_REPLY_S:g} s: is it a DMX USB Pro, and the right port? "
            "An Open DMX USB is none, and is not supported",
        )


@dataclass(eq=False)
class ArtNet(_Universe):
    """A universe of an Art-Net node. Most nodes hold the last frame when no more come."""

    host: str
    port: int
    universe: int

    @property
    def name(self) -> str:
        """For its errors."""
        return f"Art-Net universe {self.universe} at {self.host}"

    @property
    def address(self) -> str:
        """Host and universe."""
        return f"{self.name}:{self.port}"

    def link(self) -> UdpLink:
        """Return the way to the node."""
        return UdpLink(self.name, self.host, self.port)

    def messages(self, frame: bytes, number: int) -> Sequence[bytes]:
        """Return what is sent for a frame; its sequence goes from 1 to 255."""
        return [codec.art_dmx((number - 1) % 255 + 1, self.universe, frame)]

    def last_messages(self) -> Sequence[bytes]:
        """Return darkness of sequence 0, which comes in whatever order."""
        return [codec.art_dmx(0, self.universe, bytes(self.slots))]


@dataclass(eq=False)
class Sacn(_Universe):
    """A universe over sACN. Receivers note the loss of a sender after 2.5 s; many then hold the last frame.

    Ends its stream on closing, so that they need not wait for that.
    """

    host: str | None
    universe: int
    port: int
    _cid: bytes = field(default_factory=lambda: uuid4().bytes, init=False, repr=False)

    repeat_s = 0.9

    @property
    def name(self) -> str:
        """For its errors."""
        return f"sACN universe {self.universe}" + (f" at {self.host}" if self.host else "")

    @property
    def address(self) -> str:
        """Universe, and the host where it is not multicast."""
        return f"sACN universe {self.universe} at {self.host or 'its group'}:{self.port}"

    def link(self) -> UdpLink:
        """Return the way to the receiver, or to the universe's group."""
        return UdpLink(self.name, self.host or codec.sacn_group(self.universe), self.port)

    def messages(self, frame: bytes, number: int) -> Sequence[bytes]:
        """Return what is sent for a frame."""
        return [self._packet(number, frame)]

    def last_messages(self) -> Sequence[bytes]:
        """Return darkness, and the end of the stream.

        A receiver passes over a number that is up to 19 before the last: one of these at most.
        """
        dark = bytes(self.slots)
        frames = [self._packet(number, dark) for number in (0, 85, 170)]
        return frames + [self._packet(number, dark, terminated=True) for number in (171, 172, 173)]

    def _packet(self, number: int, frame: bytes, *, terminated: bool = False) -> bytes:
        return codec.sacn_data(self._cid, "gnomon", number % 256, self.universe, frame, terminated=terminated)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # where it fails, the frames before have told
        with suppress(DeviceLost):
            for ahead in (1, 2, 3):
                self._link.write(self._packet(self._number + ahead, bytes(self.slots), terminated=True))
        super().__exit__(kind, error, trace)


def survey_enttec() -> str:
    """Ports that may have a widget; none is opened."""
    return f"DMX lights behind a DMX USB Pro, which stay on when its cable is pulled; ports: {serial_ports()}"


def survey_artnet() -> str:
    """Nothing is looked for: a search would go to everybody on the network."""
    return "DMX lights of the Art-Net node whose address the rig file gives; nothing is searched for"


def survey_sacn() -> str:
    """Nothing can be looked for: receivers of sACN do not answer."""
    return "DMX lights of any sACN (E1.31) receiver; receivers do not answer, so none can be found"
