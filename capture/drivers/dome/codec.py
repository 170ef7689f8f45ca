"""The dome's protocol without input or output: requests to bytes, bytes to replies and events.

Lines of ASCII, at most `LINE_BYTES` with their line feed. Each ends in ``*`` and four hexadecimal digits, the
CRC-16/CCITT-FALSE of what stands between its first character and the ``*``.
"""

import re
from binascii import crc_hqx
from dataclasses import dataclass

PROTOCOL = 1
LINE_BYTES = 64

ERRORS = {
    1: "checksum",
    2: "unknown command",
    3: "wrong argument",
    4: "busy",
    5: "tripped",
    6: "line too long",
    7: "torn line",
    8: "too hot, or its interlock is open",
    9: "beyond a limit",
}
"""What the number of an ``ERR`` means."""

UNSAFE = {
    "interlock": "its interlock is open: close it",
    "hot": "too hot: let it cool",
    "sensor": "its temperature sensor is cut or shorted",
}
"""What the word after ``ERR 8`` means."""

BOOTS = {"P": "power", "E": "its reset line", "W": "its own watchdog", "B": "its supply broke down"}
"""What the letter of a ``BOOT`` means."""

_REPLY = re.compile(r"(?P<sequence>[0-9A-F]{2}|\?\?) (?:OK|ERR (?P<error>[1-9]\d{0,2}))(?: (?P<words>.*))?")
_EVENT = re.compile(r"(?P<name>[A-Z]+)(?: (?P<words>.*))?")


@dataclass(frozen=True)
class Reply:
    """What the controller answers; ``sequence`` is None where it could not read the request.

    ``error`` is 0 when all is well.
    """

    sequence: int | None
    error: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """What the controller tells of itself: ``BOOT``, ``WDT``, ``DONE``, ``MAXON``, ``TEMP``, ``END``."""

    name: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """What a controller says it is; a ``max_on_s`` of 0 is no limit."""

    name: str
    firmware: str
    protocol: int
    channels: int
    max_level: int
    uid: str
    max_on_s: float
    max_lit: int
    watchdog_s: float
    steps: int
    max_duty: float


@dataclass(frozen=True)
class Status:
    """What a controller says of itself now; ``state`` is I idle, L lit, F firing, A armed or T tripped."""

    state: str
    lit: int
    temperature_c: float | None
    exposures: int
    damaged: int
    overflows: int
    cause: str


@dataclass(frozen=True)
class Noise:
    """Bytes that are no line: damaged, torn, or of another protocol."""

    data: bytes


def encode(sequence: int, command: str, *arguments: int) -> bytes:
    """Return the bytes of one request; ValueError where they do not fit into a line."""
    body = " ".join([f"{sequence:02X}", command, *map(str, arguments)]).encode("ascii")
    line = b">%b*%04X\n" % (body, checksum(body))
    if len(line) > LINE_BYTES:
        raise ValueError(f"{body.decode()} does not fit into a line of {LINE_BYTES} bytes")
    return line


def checksum(body: bytes) -> int:
    """CRC-16/CCITT-FALSE."""
    return crc_hqx(body, 0xFFFF)


class Decoder:
    """Finds the lines in a stream of bytes; takes it in pieces of any size, and raises nothing."""

    def __init__(self) -> None:
        self._line = bytearray()

    def feed(self, data: bytes) -> list[Reply | Event | Noise]:
        """Return what has become complete with ``data``."""
        found: list[Reply | Event | Noise] = []
        for byte in data:
            # a line that begins within another one: the first was torn
            if byte in b"<!" and self._line:
                found.append(self._noise())
            if byte != 0x0A:
                self._line.append(byte)
                if len(self._line) > LINE_BYTES:
                    found.append(self._noise())
            elif self._line:
                found.append(_read(bytes(self._line)) or Noise(bytes(self._line)))
                self._line.clear()
        return found

    def _noise(self) -> Noise:
        noise = Noise(bytes(self._line))
        self._line.clear()
        return noise


def _read(line: bytes) -> Reply | Event | None:
    """Read a line without its line feed; None where it is none."""
    body, star, digits = line.removesuffix(b"\r")[1:].rpartition(b"*")
    if star != b"*" or digits != b"%04X" % checksum(body) or not body.isascii():
        return None
    if line.startswith(b"<") and (match := _REPLY.fullmatch(body.decode())):
        sequence = None if match["sequence"] == "??" else int(match["sequence"], 16)
        return Reply(sequence, int(match["error"] or 0), tuple((match["words"] or "").split()))
    if line.startswith(b"!") and (match := _EVENT.fullmatch(body.decode())):
        return Event(match["name"], tuple((match["words"] or "").split()))
    return None


def read_identity(words: tuple[str, ...]) -> Identity | None:
    """Read the reply to ``ID``; None where it is that of something else."""
    if len(words) != 11 or not all(word.isdecimal() for word in (*words[2:5], *words[6:])):
        return None
    protocol, channels, max_level = map(int, words[2:5])
    max_on_ms, max_lit, watchdog_ms, steps, duty_percent = map(int, words[6:])
    return Identity(
        name=words[0],
        firmware=words[1],
        protocol=protocol,
        channels=channels,
        max_level=max_level,
        uid=words[5],
        max_on_s=max_on_ms / 1000,
        max_lit=max_lit,
        watchdog_s=watchdog_ms / 1000,
        steps=steps,
        max_duty=duty_percent / 100,
    )


def read_status(words: tuple[str, ...]) -> Status | None:
    """Read the reply to ``STAT``; None where it is that of something else."""
    if len(words) != 7 or not all(word.isdecimal() for word in (words[1], *words[3:6])):
        return None
    return Status(
        state=words[0],
        lit=int(words[1]),
        temperature_c=read_degrees(words[2]),
        exposures=int(words[3]),
        damaged=int(words[4]),
        overflows=int(words[5]),
        cause=words[6],
    )


def read_degrees(word: str) -> float | None:
    """Temperature in °C of a word in tenths; None where there is none."""
    return int(word) / 10 if word.removeprefix("-").isdecimal() else None


def told_of_trip(cause: str, channel: str, temperature_c: float | None, watchdog_s: float) -> str:
    """Say in one line what made lights dark, and what to do.

    Parameters
    ----------
    cause : str
        Name of the event, or the cause in the status, in capitals.
    channel : str
        Which it was; empty where that is not told.
    temperature_c : float or None
        How hot it was, in °C.
    watchdog_s : float
        What the controller's watchdog was set to.
    """
    if cause == "WDT":
        return (
            f"heard nothing for {watchdog_s:g} s and made its lights dark: "
            "was the computer asleep or too busy, is the cable bad?"
        )
    if cause in ("MAXON", "DUTY"):
        which = f"channel {channel}" if channel else "a channel"
        return (
            f"{which} burnt longer or more often than the firmware allows (MAX_ON_MS, DUTY_PCT), and all "
            "went dark: shorten the exposures"
        )
    if cause == "TEMP":
        at = "" if temperature_c is None else f" ({temperature_c:g} °C)"
        return f"too hot{at}, its lights went dark: let it cool"
    if cause in ("LOCK", "INTERLOCK"):
        return "its interlock was opened, and its lights went dark: close it"
    return f"tripped ({cause}): its lights went dark"
