"""Bytes of the three ways to send a DMX512 universe; no input or output here.

Sources: DMX USB Pro Widget API 1.44 (ENTTEC), Art-Net 4 (Artistic Licence), ANSI E1.31-2018.
"""

import struct
from dataclasses import dataclass

SLOTS = 512
"""Channels of a universe."""

FRAME_S = 0.0228
"""Time of a whole universe on the wire: 513 slots of 11 bits at 250 kbit/s, after break and mark."""

# ---------------------------------------------------------------- ENTTEC DMX USB Pro

GET_PARAMETERS = 3
SEND_DMX = 6

_START, _END = 0x7E, 0xE7
_MESSAGE_MAX = 600


def enttec_message(label: int, data: bytes) -> bytes:
    """Return one message to a widget."""
    return struct.pack("<BBH", _START, label, len(data)) + data + bytes([_END])


def enttec_dmx(slots: bytes) -> bytes:
    """Return the message that sends a universe, whole, with the start code of levels."""
    return enttec_message(SEND_DMX, b"\0" + slots.ljust(SLOTS, b"\0"))


@dataclass(frozen=True)
class EnttecMessage:
    """A message of a widget."""

    label: int
    data: bytes


class EnttecDecoder:
    """Messages out of a widget's bytes; what is none is passed over."""

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> list[EnttecMessage]:
        """Take in bytes and return the messages that are complete with them."""
        waiting = self._waiting + data
        found: list[EnttecMessage] = []
        while (start := waiting.find(_START)) >= 0:
            waiting = waiting[start:]
            if len(waiting) < 4:
                break
            _, label, count = struct.unpack_from("<BBH", waiting)
            whole = count <= _MESSAGE_MAX
            if whole and len(waiting) < count + 5:
                break
            if whole and waiting[count + 4] == _END:
                found.append(EnttecMessage(label, waiting[4 : count + 4]))
                waiting = waiting[count + 5 :]
            else:
                waiting = waiting[1:]
        else:
            waiting = b""
        self._waiting = waiting
        return found


def enttec_rate_hz(message: EnttecMessage) -> float | None:
    """Frames a second that a widget sends, from its parameters; None where it sends as many as it can."""
    return float(message.data[4]) if len(message.data) >= 5 and message.data[4] else None


# ---------------------------------------------------------------- Art-Net

ARTNET_PORT = 6454
ARTNET_UNIVERSES = 2**15


def art_dmx(sequence: int, universe: int, slots: bytes) -> bytes:
    """Return an ArtDmx packet; ``sequence`` is 1 to 255, ``universe`` the 15 bits net, sub-net, universe."""
    slots = slots + b"\0" * (len(slots) % 2)
    head = struct.pack("<8sH", b"Art-Net\0", 0x5000)
    return head + struct.pack(">HBBBBH", 14, sequence, 0, universe & 0xFF, universe >> 8, len(slots)) + slots


# ---------------------------------------------------------------- sACN

SACN_PORT = 5568
SACN_UNIVERSES = range(1, 64000)
SACN_PRIORITY = 100

_TERMINATED = 0x40


def sacn_group(universe: int) -> str:
    """Return the multicast address of a universe."""
    return f"239.255.{universe >> 8}.{universe & 0xFF}"


def sacn_data(
    cid: bytes, source: str, sequence: int, universe: int, slots: bytes, *, terminated: bool = False
) -> bytes:
    """Return an E1.31 data packet of a whole universe, 638 bytes.

    Parameters
    ----------
    cid : bytes
        16 bytes that tell this sender from others.
    source : str
        What people see of it.
    sequence : int
        0 to 255, of this universe.
    universe : int
        1 to 63999.
    slots : bytes
        Levels.
    terminated : bool
        Nothing comes after this.
    """
    values = b"\0" + slots.ljust(SLOTS, b"\0")
    dmp = struct.pack(">HBBHHH", 0x7000 | (len(values) + 10), 2, 0xA1, 0, 1, len(values)) + values
    name = source.encode()[:63]
    options = _TERMINATED if terminated else 0
    framing = (
        struct.pack(">HI64s", 0x7000 | (len(dmp) + 77), 2, name)
        + struct.pack(">BHBBH", SACN_PRIORITY, 0, sequence, options, universe)
        + dmp
    )
    return (
        struct.pack(">HH12s", 0x10, 0, b"ASC-E1.17")
        + struct.pack(">HI16s", 0x7000 | (len(framing) + 22), 4, cid)
        + framing
    )
