"""Links to controllers: a serial port with deadlines, and datagrams. The one place where these fail."""

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, EAGAIN, EBUSY, ENOENT, EPERM
from io import UnsupportedOperation
from pathlib import Path
from typing import Annotated, Any, Protocol, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from capture.devices import DeviceError, DeviceLost

POLL_S = 0.02
"""How far a read may overrun its wait: setting a timeout anew for every read would reconfigure the port."""


class Link(Protocol):
    """Where bytes go; DeviceLost from every method where they cannot."""

    def write(self, data: bytes) -> None:
        """Send all of ``data``."""

    def confirm(self) -> None:
        """Raise DeviceLost where it is known that what was sent did not arrive; does not wait."""

    def fileno(self) -> int | None:
        """File descriptor, for another process to write to; None where there is none."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class SerialLink:
    """A serial port of 8 data bits without parity, or what pyserial reaches by ``socket://``, ``rfc2217://``.

    Safe for one reading and one writing thread. Bytes that have come are kept until they are read.

    Parameters
    ----------
    name : str
        Of the device, for its errors.
    port : str
        ``/dev/ttyUSB0``, ``COM3`` or a URL.
    baud : int
        Bits a second.

    Raises
    ------
    capture.devices.DeviceLost
        From every method, and on entering: the port is not there, taken by another program, or gone.
    ValueError
        On entering: no such kind of URL, or a rate that the port cannot have.
    """

    def __init__(self, name: str, port: str, baud: int) -> None:
        self.name = name
        self.port = port
        self._baud = baud
        self._serial: Any = None
        self._waiting = b""

    def write(self, data: bytes) -> None:
        """Send all of ``data``; a port that takes nothing for a second counts as lost."""
        with self._faults():
            self._open().write(data)

    def read(self, wait_s: float = 0.0) -> bytes:
        """Return what has come, at least a byte; ``b""`` where none comes within ``wait_s``."""
        if self._waiting:
            data, self._waiting = self._waiting, b""
            return data
        end = time.monotonic() + wait_s
        with self._faults():
            port = self._open()
            while not (count := port.in_waiting):
                if wait_s <= 0 or time.monotonic() >= end:
                    return b""
                if first := port.read(1):
                    return bytes(first + port.read(port.in_waiting))
            return bytes(port.read(count))

    def read_until(self, end: bytes, wait_s: float) -> bytes | None:
        """Return what has come up to and including ``end``; None, losing nothing, where it does not come."""
        deadline = time.monotonic() + wait_s
        data = self.read(wait_s)
        while end not in data:
            left = deadline - time.monotonic()
            more = self.read(left) if left > 0 else b""
            if not more:
                self._waiting = data
                return None
            data += more
        message, _, rest = data.partition(end)
        self._waiting = rest
        return message + end

    def fileno(self) -> int | None:
        """File descriptor of the open port, for another process to write to; None where it has none."""
        with self._faults():
            try:
                return int(self._open().fileno())
            except (AttributeError, UnsupportedOperation):
                return None

    def discard(self) -> None:
        """Forget what has come and was not read."""
        while self.read():
            pass

    def confirm(self) -> None:
        """Raise DeviceLost where the port is gone; forgets what has come and was not read."""
        self.discard()

    def _open(self) -> Any:
        if self._serial is None:
            raise DeviceError(self.name, "is not open")
        return self._serial

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Every way in which pyserial tells that a port is gone: also ``termios.error``, which is no OSError.

        A port that another thread closes ends in a TypeError.
        """
        try:
            yield
        except _port_faults() as error:
            reason = f" ({error})" if isinstance(error, OSError) else ""
            raise DeviceLost(
                self.name, f"{self.port}: the cable was pulled, or the device lost power{reason}"
            ) from error

    def __enter__(self) -> Self:
        import serial

        try:
            self._serial = serial.serial_for_url(
                self.port, baudrate=self._baud, timeout=POLL_S, write_timeout=1.0, exclusive=True
            )
        except ValueError as error:
            raise ValueError(f"{self.name}: port {self.port}: {error}") from None
        except _port_faults() as error:
            raise DeviceLost(self.name, f"{self.port}: {_no_opening(self.port, error)}") from error
        self._waiting = b""
        return self

    def __exit__(self, *_: object) -> None:
        port, self._serial = self._serial, None
        if port is not None:
            # pyserial forgets a socket whose other end is closed, and leaves it open
            beyond = getattr(port, "_socket", None)
            with suppress(*_port_faults()):
                port.close()
            if beyond is not None:
                beyond.close()


def _port_faults() -> tuple[type[Exception], ...]:
    try:
        import termios
    except ImportError:  # Windows
        return (OSError, TypeError)
    return (OSError, termios.error, TypeError)


def _no_opening(port: str, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == ENOENT:
        return "no such port: is the cable plugged in? `gnomon devices` lists the ports"
    if number in (EACCES, EPERM):
        return _no_permission(port)
    if number in (EAGAIN, EBUSY):
        return "is in use: close the other program, or give all devices on this port the same baud"
    if "://" in port:
        reason = str(error).rpartition(": ")[2]
        return f"no connection ({reason}): is the device switched on, the address right?"
    return f"cannot be opened: {error}"


def _no_permission(port: str) -> str:
    try:
        group = Path(port).group()
    except (OSError, KeyError, NotImplementedError):
        return "may not be opened: has another program it?"
    if group == "root":
        return "may not be opened: only root may, until a udev rule gives it to a group such as dialout"
    return f"may not be opened but by its group, {group}: sudo usermod -a -G {group} $USER, and log in anew"


_TELL_ERRORS = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
"""``IP_RECVERR`` and ``IPV6_RECVERR``: without, Linux keeps to itself that there is no way to a host."""


class UdpLink:
    """Datagrams to one host, a broadcast or a multicast address.

    Nobody acknowledges them. A host that is there and listens not says so a little later, where nothing on
    the way holds that back. That there is no such host is known on Linux after three seconds; one that goes
    away meanwhile may be missed for a minute, and nobody is missed of a broadcast or a group.

    Parameters
    ----------
    name : str
        Of the device, for its errors.
    host : str
        Name or address.
    port : int
        UDP port.

    Raises
    ------
    capture.devices.DeviceLost
        From every method, and on entering: no such host, no way to it, or nothing listens there.
    """

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._missed: OSError | None = None

    def write(self, data: bytes) -> None:
        """Send one datagram."""
        link = self._open()
        try:
            link.send(data)
        except OSError as missed:
            # that of an earlier datagram may be told now, and then this one was not sent
            self._missed = missed
            try:
                link.send(data)
            except OSError as error:
                raise self._unheard(error) from error

    def confirm(self) -> None:
        """Raise DeviceLost where it has been told since the last time that datagrams did not arrive."""
        number = self._open().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        missed, self._missed = self._missed, None
        if number:
            missed = OSError(number, os.strerror(number))
        if missed is not None:
            raise self._unheard(missed)

    def fileno(self) -> int:
        """File descriptor of the open socket, for another process to write to."""
        return self._open().fileno()

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise DeviceError(self.name, "is not open")
        return self._socket

    def _unheard(self, error: OSError) -> DeviceLost:
        where = f"{self._host} port {self._port}"
        if isinstance(error, ConnectionRefusedError):
            return DeviceLost(
                self.name, f"{where}: nothing listens there: is the address right, the protocol switched on?"
            )
        if isinstance(error, socket.gaierror):
            return DeviceLost(self.name, f"{where}: no such host ({error.strerror}): is its name right?")
        return DeviceLost(
            self.name,
            f"{where}: no way there ({error.strerror}): is it switched on, the cable plugged in, the address "
            "right?",
        )

    def __enter__(self) -> Self:
        try:
            # lamps listen on version 4, also where their name has both
            family, kind, protocol, _, address = min(
                socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM),
                key=lambda found: found[0] != socket.AF_INET,
            )
            with ExitStack() as stack:
                link = stack.enter_context(socket.socket(family, kind, protocol))
                link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                if sys.platform == "linux":
                    link.setsockopt(*_TELL_ERRORS[family], 1)
                link.connect(address)
                stack.pop_all()
        except OSError as error:
            raise self._unheard(error) from error
        self._socket, self._missed = link, None
        return self

    def __exit__(self, *_: object) -> None:
        link, self._socket = self._socket, None
        if link is not None:
            link.close()


def _port(port: str) -> str:
    try:
        url = urlsplit(port)
        lacking = url.scheme in ("socket", "rfc2217") and not (url.hostname and url.port)
    except ValueError:
        lacking = True
    if lacking:
        raise ValueError(f"{port}: write host and TCP port, as in socket://10.0.0.30:30313")
    if re.fullmatch(r"[^/:]+:\d+", port):
        raise ValueError(f"{port}: for TCP write socket://{port}")
    return port


Port = Annotated[str, Field(min_length=1), AfterValidator(_port)]
"""A serial port of a configuration: ``/dev/ttyUSB0``, ``COM3`` or a URL."""

Host = Annotated[str, Field(min_length=1)]
"""Name or address of a host, of a configuration."""


def port_itself(port: str) -> str:
    """Return the port that a link such as those in ``/dev/serial`` names; URLs and others as they are."""
    return str(Path(port).resolve()) if port.startswith("/") else port


def serial_ports() -> str:
    """Serial ports of this computer in one line; opens none, as opening resets many a controller."""
    from serial.tools.list_ports import comports

    ports = [
        port.device if port.description in ("n/a", None) else f"{port.device} ({port.description})"
        for port in comports()
    ]
    return ", ".join(ports) or "no serial port here"
