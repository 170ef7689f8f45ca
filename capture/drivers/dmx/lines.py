"""A universe on its way: to a widget on a serial port, or over the network."""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from uuid import uuid4

from capture.devices import DeviceLost
from capture.drivers.dmx import codec
from capture.drivers.link import SerialLink, UdpLink, serial_ports
from capture.drivers.slots import Line
from capture.drivers.will import Will

_REPLY_S = 1.0
"""How long a widget may take to answer, and how often it is asked within."""

_TRIES = 3

_WIRE_S = 2 * codec.FRAME_S
"""A new frame waits for the one that is under way on the wire."""


@dataclass(eq=False)
class Enttec(Line):
    """A universe behind an ENTTEC DMX USB Pro, or a widget that speaks like it.

    The widget sends its last frame on and on by itself, also when this computer is dead.
    """

    port: str
    _link: SerialLink = field(init=False, repr=False)

    slots = codec.SLOTS
    shown_s = _WIRE_S

    def __post_init__(self) -> None:
        # its baud means nothing: the widget is on USB
        self._link = SerialLink(self.name, self.port, 57600)

    @property
    def name(self) -> str:
        """For its errors."""
        return f"DMX at {self.port}"

    @property
    def address(self) -> str:
        """The port."""
        return self.port

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self._link.write(codec.enttec_dmx(frame))

    def confirm(self) -> None:
        """Raise DeviceLost where the port is gone."""
        self._link.discard()

    def will(self) -> Will:
        """Return what is sent when this process dies."""
        return Will(self._link.fileno(), [codec.enttec_dmx(bytes(self.slots))])

    def _ask_rate(self) -> float | None:
        decoder = codec.EnttecDecoder()
        for _ in range(_TRIES):
            self._link.write(codec.enttec_message(codec.GET_PARAMETERS, bytes(2)))
            end = time.monotonic() + _REPLY_S / _TRIES
            while (left := end - time.monotonic()) > 0:
                for message in decoder.feed(self._link.read(left)):
                    if message.label == codec.GET_PARAMETERS:
                        return codec.enttec_rate_hz(message)
        raise DeviceLost(
            self.name,
            f"no answer within {_REPLY_S:g} s: is it a DMX USB Pro, and the right port? "
            "An Open DMX USB is none, and is not supported",
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._link)
            self._link.discard()
            rate_hz = self._ask_rate()
            self.shown_s = _WIRE_S if rate_hz is None else max(_WIRE_S, 2 / rate_hz)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.__exit__(kind, error, trace)


@dataclass(eq=False)
class ArtNet(Line):
    """A universe of an Art-Net node. Most nodes hold the last frame when no more come."""

    host: str
    port: int
    universe: int
    _link: UdpLink = field(init=False, repr=False)
    _sequence: int = field(default=0, init=False, repr=False)

    slots = codec.SLOTS
    shown_s = _WIRE_S

    def __post_init__(self) -> None:
        self._link = UdpLink(self.name, self.host, self.port)

    @property
    def name(self) -> str:
        """For its errors."""
        return f"Art-Net universe {self.universe} at {self.host}"

    @property
    def address(self) -> str:
        """Host and universe."""
        return f"Art-Net universe {self.universe} at {self.host}:{self.port}"

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self._sequence = self._sequence % 255 + 1
        self._link.send(codec.art_dmx(self._sequence, self.universe, frame))

    def will(self) -> Will:
        """Return what is sent when this process dies; sequence 0 comes in whatever order."""
        return Will(self._link.fileno(), [codec.art_dmx(0, self.universe, bytes(self.slots))])

    def confirm(self) -> None:
        """Raise DeviceLost where the network has told that frames do not arrive."""
        self._link.confirm()

    def __enter__(self) -> Self:
        self._link.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.__exit__()


@dataclass(eq=False)
class Sacn(Line):
    """A universe over sACN. Receivers note the loss of a sender after 2.5 s; many then hold the last frame.

    Ends its stream on closing, so that they need not wait for that.
    """

    host: str | None
    universe: int
    port: int
    _link: UdpLink = field(init=False, repr=False)
    _cid: bytes = field(init=False, repr=False)
    _sequence: int = field(default=0, init=False, repr=False)

    slots = codec.SLOTS
    shown_s = _WIRE_S
    repeat_s = 0.9

    def __post_init__(self) -> None:
        self._link = UdpLink(self.name, self.host or codec.sacn_group(self.universe), self.port)
        self._cid = uuid4().bytes

    @property
    def name(self) -> str:
        """For its errors."""
        return f"sACN universe {self.universe}" + (f" at {self.host}" if self.host else "")

    @property
    def address(self) -> str:
        """Universe, and the host where it is not multicast."""
        return f"sACN universe {self.universe} at {self.host or 'its group'}:{self.port}"

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self._send(frame, terminated=False)

    def confirm(self) -> None:
        """Raise DeviceLost where the network has told that frames do not arrive."""
        self._link.confirm()

    def will(self) -> Will:
        """Return what is sent when this process dies.

        A receiver passes over a number that is up to 19 before the last: one of these at most.
        """
        dark = [(sequence, False) for sequence in (0, 85, 170)] + [
            (sequence, True) for sequence in (171, 172, 173)
        ]
        packets = [self._packet(sequence, bytes(self.slots), terminated) for sequence, terminated in dark]
        return Will(self._link.fileno(), packets)

    def _send(self, frame: bytes, *, terminated: bool) -> None:
        self._sequence = (self._sequence + 1) % 256
        self._link.send(self._packet(self._sequence, frame, terminated))

    def _packet(self, sequence: int, frame: bytes, terminated: bool) -> bytes:
        return codec.sacn_data(self._cid, "gnomon", sequence, self.universe, frame, terminated=terminated)

    def __enter__(self) -> Self:
        self._link.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for _ in range(3):
                self._send(bytes(self.slots), terminated=True)
        except DeviceLost:
            # the frames before have told of it
            pass
        finally:
            self._link.__exit__()


def survey_enttec() -> str:
    """Ports that may have a widget; none is opened."""
    return f"DMX lights behind a DMX USB Pro, which stay on when its cable is pulled; ports: {serial_ports()}"


def survey_artnet() -> str:
    """Nothing is looked for: a search would go to everybody on the network."""
    return "DMX lights of the Art-Net node whose address the rig file gives; nothing is searched for"


def survey_sacn() -> str:
    """Nothing can be looked for: receivers of sACN do not answer."""
    return "DMX lights of any sACN (E1.31) receiver; receivers do not answer, so none can be found"
