"""What the drivers of DMX lights, LED strips and strobe controllers are tested against.

Widgets and controllers on a pseudo terminal or a socket, made after their manuals. Run as a script it is a
program whose lights burn until it is killed.
"""

import contextlib
import json
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from pydantic import TypeAdapter

from capture.devices import Light
from capture.drivers import LightConfig, slots
from capture.drivers.dmx import ArtNetLightConfig, EnttecLightConfig, SacnLightConfig, lines
from capture.drivers.gardasoft import GardasoftLightConfig
from capture.drivers.slots import SlotLightConfig
from capture.drivers.strips import AdalightConfig, WledConfig


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something to come about."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


class Serial(threading.Thread):
    """The far end of a serial port: gives what comes to ``answer``, and sends back what that returns.

    Sends ``greeting`` again and again while nothing has come: what comes before it is opened is lost.
    """

    def __init__(self, answer: Callable[[bytes], bytes], greeting: bytes = b"") -> None:
        super().__init__(daemon=True)
        self._far, self._near = pty.openpty()
        tty.setraw(self._near)
        self.port = os.ttyname(self._near)
        self._answer = answer
        self._greeting = greeting
        self._answering = threading.Lock()
        self._heard_s = 0.0
        self._wake = os.pipe()

    def run(self) -> None:
        """Answer until it is unplugged."""
        while True:
            greets = self._greeting and not self._heard_s
            ready, _, _ = select.select([self._far, self._wake[0]], [], [], 0.02 if greets else None)
            if self._wake[0] in ready:
                break
            if not ready:
                os.write(self._far, self._greeting)
                continue
            with self._answering:
                os.write(self._far, self._answer(os.read(self._far, 4096)))
                self._heard_s = time.monotonic()
        os.close(self._near)
        os.close(self._far)

    def settled(self) -> bool:
        """Wait until nothing has come for a while."""

        def quiet() -> bool:
            with self._answering:
                pending = select.select([self._far], [], [], 0)[0]
                return not pending and time.monotonic() - self._heard_s > 0.005

        until(quiet)
        return True

    def unplug(self) -> None:
        """Pull the cable."""
        if self.is_alive():
            os.write(self._wake[1], b"x")
            self.join()

    def __enter__(self) -> "Serial":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        for handle in self._wake:
            os.close(handle)


class Widget:
    """A DMX USB Pro: ``universe`` is what it sends on and on.

    ``labels`` are those that it answers, as ``rate_hz`` says how many frames a second it sends.
    """

    def __init__(
        self, rate_hz: int = 40, labels: tuple[int, ...] = (3, 10), serial: int = 0x12345678
    ) -> None:
        self.universe = b""
        self.messages: list[tuple[int, bytes]] = []
        self.stray = b""
        self._replies = {3: bytes([4, 1, 9, 1, rate_hz]), 10: struct.pack("<I", serial)}
        self._labels = labels
        self._waiting = b""

    def __call__(self, data: bytes) -> bytes:
        """Take in bytes; return the replies."""
        self._waiting += data
        replies = b""
        while len(self._waiting) >= 5:
            if self._waiting[0] != 0x7E:
                self.stray += self._waiting[:1]
                self._waiting = self._waiting[1:]
                continue
            count = self._waiting[2] + 256 * self._waiting[3]
            if len(self._waiting) < count + 5:
                break
            message, self._waiting = self._waiting[: count + 5], self._waiting[count + 5 :]
            assert message[-1] == 0xE7
            label, payload = message[1], message[4:-1]
            self.messages.append((label, payload))
            if label == 6:
                assert payload[0] == 0
                self.universe = payload[1:]
            if label in self._labels:
                reply = self._replies[label]
                replies += bytes([0x7E, label, len(reply), 0]) + reply + b"\xe7"
        return replies


@contextmanager
def receiver(port: int = 0) -> Iterator[tuple[int, Callable[[], list[bytes]]]]:
    """A UDP port of this machine, any without, and what has come to it since it was last asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", port))
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        there.setblocking(False)

        def come() -> list[bytes]:
            packets = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    packets.append(there.recv(2000))
            return packets

        yield there.getsockname()[1], come


# ---------------------------------------------------------------- strips


class Strip:
    """A microcontroller that speaks Adalight: ``shown`` is what its LEDs show."""

    def __init__(self) -> None:
        self.shown = b""
        self.faults = 0
        self._waiting = b""

    def __call__(self, data: bytes) -> bytes:
        """Take in bytes; it does not answer."""
        self._waiting += data
        while len(self._waiting) >= 6:
            if self._waiting[:3] != b"Ada" or self._waiting[3] ^ self._waiting[4] ^ 0x55 != self._waiting[5]:
                self.faults += 1
                self._waiting = self._waiting[1:]
                continue
            end = 6 + 3 * (self._waiting[3] * 256 + self._waiting[4] + 1)
            if len(self._waiting) < end:
                break
            self.shown, self._waiting = self._waiting[6:end], self._waiting[end:]
        return b""


def wled_strip(packets: list[bytes], leds: int) -> bytes:
    """What a strip of WLED shows after these packets."""
    shown = bytearray(3 * leds)
    for packet in packets:
        kind, watchdog = packet[:2]
        assert watchdog == 2
        # WLED's udp.cpp passes over shorter ones
        if len(packet) <= {2: 4, 4: 7}[kind]:
            continue
        first, colours = {2: (0, packet[2:]), 4: (int.from_bytes(packet[2:4], "big"), packet[4:])}[kind]
        shown[3 * first : 3 * first + len(colours)] = colours
    assert len(shown) == 3 * leds
    return bytes(shown)


# ---------------------------------------------------------------- strobe controllers


class Strobes:
    """A controller of Gardasoft, as its manual has it: ``channels`` are mode, percent and times of each.

    ``faults`` are answers that come in place of the right one, by command.
    """

    def __init__(self, version: str = "PP420 (HW001) V002", echo: bool = False) -> None:
        self.channels: dict[int, tuple[str, float, tuple[float, ...]]] = {}
        self.commands: list[str] = []
        self.faults: dict[str, str] = {}
        self.errors: list[str] = []
        self.triggers_itself = False
        self._version = version
        self._echo = echo
        self._waiting = b""

    @property
    def burning(self) -> dict[int, float]:
        """Percent of the channels that burn steadily."""
        return {
            channel: percent
            for channel, (mode, percent, _) in self.channels.items()
            if mode == "RS" and percent
        }

    def __call__(self, data: bytes) -> bytes:
        """Take in bytes; return the replies."""
        *lines, self._waiting = (self._waiting + data).split(b"\r")
        replies = []
        for line in lines:
            command = line.decode("ascii")
            self.commands.append(command)
            answer = self.faults.get(command[:2])
            if answer is None:
                answer = self._answer(
                    command[:2], [float(value) for value in command[2:].split(",") if value]
                )
            if answer != "silence":
                replies.append(f"{command if self._echo else ''}{answer}\n\r>".encode())
        return b"".join(replies)

    def _answer(self, code: str, values: list[float]) -> str:
        if code == "VR":
            return self._version
        if code == "GR":
            errors, self.errors = self.errors, []
            return errors[-1] if errors else "Err 0"
        if code == "ST":
            mode, percent, times = self.channels.get(int(values[0]), ("RS", 0.0, ()))
            width, delay, *_ = times or (1.0, 1.0)
            pulse = f"SE {percent:.1f}, DL {1000 * delay:.1f}us, PU {width:.3f}ms, RT 0.0us"
            return f"CH {values[0]:.0f}, MD {int(mode == 'RT')}, IP 1, CS 0.100A, {pulse}, FL 0"
        if code == "TT" and self._version.startswith("RT"):
            self.triggers_itself = bool(values[0])
            return ""
        if code == "RS":
            if len(values) != 2 or not 0 <= values[1] <= 100:
                return "Err 1"
            self.channels[int(values[0])] = ("RS", values[1], ())
            return ""
        if code == "RT":
            if len(values) not in (4, 5):
                return "Err 4"
            width, delay = (min(max(value, 0.01), 999.0) for value in values[1:3])
            self.channels[int(values[0])] = ("RT", values[3], (width, delay, *values[4:]))
            return "" if [width, delay] == values[1:3] else "Err 5"
        return "Err 2"


class Tcp(threading.Thread):
    """A server for one client: gives what comes to ``answer``, and sends back what that returns."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        super().__init__(daemon=True)
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self._wake = os.pipe()
        self.clients = 0

    def run(self) -> None:
        """Answer until it is closed."""
        client: socket.socket | None = None
        while True:
            ready, _, _ = select.select([client or self._server, self._wake[0]], [], [])
            if self._wake[0] in ready:
                order = os.read(self._wake[0], 1)
                if client is not None:
                    client.close()
                    client = None
                if order == b"x":
                    break
            elif client is None:
                client, _ = self._server.accept()
                self.clients += 1
            elif data := client.recv(4096):
                client.sendall(self._answer(data))
            else:
                client.close()
                client = None
        self._server.close()

    def drop(self) -> None:
        """Close the connection, as the controller does with an idle one."""
        os.write(self._wake[1], b"d")

    def __enter__(self) -> "Tcp":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._wake[1], b"x")
        self.join()
        for handle in self._wake:
            os.close(handle)


# ---------------------------------------------------------------- one light of each kind, and how it burns


@contextmanager
def hasty() -> Iterator[None]:
    """Leave out the waiting for wires and for lost datagrams: what is emulated has neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "_FAREWELL_GAP_S", 0.0)
        patch.setattr(slots, "_ECHO_S", 0.0)
        patch.setattr(lines, "_WIRE_S", 0.0)
        for line in (lines.ArtNet, lines.Sacn):
            patch.setattr(line, "shown_s", 0.0)
        yield


@contextmanager
def enttec_light(**limits: object) -> Iterator[tuple[Light, Callable[[], float]]]:
    """Behind a widget."""
    widget = Widget()
    with Serial(widget) as serial:
        config = EnttecLightConfig.model_validate({"port": serial.port, "channels": 2} | limits)
        yield config.open("led1"), lambda: serial.settled() and widget.universe[1] / 255


@contextmanager
def gardasoft_light(**limits: object) -> Iterator[tuple[Light, Callable[[], float]]]:
    """Behind a strobe controller."""
    strobes = Strobes()
    with Serial(strobes) as serial:
        config = GardasoftLightConfig.model_validate({"port": serial.port, "channel": 2} | limits)
        yield config.open("led1"), lambda: strobes.burning.get(2, 0.0) / 100


@contextmanager
def adalight_light(**limits: object) -> Iterator[tuple[Light, Callable[[], float]]]:
    """On a strip behind a microcontroller."""
    strip = Strip()
    with Serial(strip) as serial:
        where = {"port": serial.port, "boot_s": 0.0, "strip": 3, "leds": 1}
        config = AdalightConfig.model_validate(where | limits)
        yield config.open("led1"), lambda: serial.settled() and strip.shown[4] / 255


def _of_datagrams(
    kind: type[SlotLightConfig], where: dict[str, object], byte: int, limits: dict[str, object]
) -> Any:
    @contextmanager
    def made() -> Iterator[tuple[Light, Callable[[], float]]]:
        with receiver() as (port, come):
            levels = [0]

            def level() -> float:
                levels.extend(packet[byte] for packet in come())
                return levels[-1] / 255

            config = kind.model_validate({"host": "127.0.0.1", "udp_port": port} | where | limits)
            yield config.open("led1"), level

    return made()


def artnet_light(**limits: object) -> Any:
    """Of an Art-Net node."""
    return _of_datagrams(ArtNetLightConfig, {"channels": 2}, 19, limits)


def sacn_light(**limits: object) -> Any:
    """That hears sACN."""
    return _of_datagrams(SacnLightConfig, {"channels": 2}, 127, limits)


def wled_light(**limits: object) -> Any:
    """On a strip of WLED."""
    return _of_datagrams(WledConfig, {"strip": 3, "leds": 1}, 6, limits)


LIGHTS = [enttec_light, artnet_light, sacn_light, adalight_light, wled_light, gardasoft_light]


# ---------------------------------------------------------------- a program to be killed


@contextmanager
def burning(configs: list[dict[str, object]]) -> Iterator["subprocess.Popen[str]"]:
    """A program whose lights, of these configurations, burn."""
    command = [sys.executable, __file__, json.dumps(configs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "lit\n"
            yield program
        finally:
            program.kill()


def main() -> None:
    """Light what is given, say so, and wait."""
    with ExitStack() as stack:
        for number, config in enumerate(json.loads(sys.argv[1])):
            opened = TypeAdapter(LightConfig).validate_python(config).open(f"led{number}")
            stack.enter_context(opened).set(1.0)
        print("lit", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    main()
