"""Clients of a dome in virtual time, that know the protocol and nothing of the driver.

`Dome` is the firmware on the emulated chip, `Model` the emulator in Python, told and asked the same.
"""

import binascii
import functools
import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import pytest
from dome_emulator import Board, Emulator

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"
HEADER = Path("/usr/include/simavr/sim_avr.h")


def crc(body: str) -> str:
    return f"{binascii.crc_hqx(body.encode('latin-1'), 0xFFFF):04X}"


def line(body: str) -> str:
    return f">{body}*{crc(body)}"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dome-")


def _make(part: str, *settings: str) -> Path:
    tools = all(shutil.which(tool) for tool in ("avr-gcc", "make", "cc"))
    if sys.platform != "linux" or not tools or not HEADER.exists():
        pytest.skip("needs make, gcc, gcc-avr, avr-libc and libsimavr-dev: apt-get install them")
    out = Path(_folder().name)
    command = ["make", "-s", "-C", FIRMWARE / part, f"OUT={out}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@functools.cache
def emulator() -> Path:
    """The emulated chip, made once; skips where that cannot be done here."""
    return _make("simavr") / "emulator"


@functools.cache
def firmware(board: str, *settings: str, chip: str = "") -> Path:
    """The firmware of a board, made once."""
    chip = chip or ("atmega2560" if board == "mega" else "atmega328p")
    elf = _make("dome", f"BOARD={board}", f"MCU={chip}", *settings) / f"dome-{board}-{chip}.elf"
    return elf.rename(elf.with_stem("-".join((elf.stem, "with", *settings))))


class Client(ABC):
    """Time passes only while a command waits for its answer, or by `run`."""

    room_mv = 2500

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.events: list[dict] = []
        self.now_us = 0.0
        self.reset()

    @abstractmethod
    def tell(self, command: str) -> None:
        """One of the commands of the emulated chip."""

    @abstractmethod
    def pass_time(self, command: str) -> list[dict]:
        """What happens meanwhile: ``run`` or ``listen`` and the microseconds."""

    def run(self, ms: float) -> list[dict]:
        return self.pass_time(f"run {ms * 1000}")

    def reset(self) -> None:
        """As after switching on, with inputs at rest."""
        for command in ("interlock closed", "sync 0", f"adc 0 {self.room_mv}", "reset P"):
            self.tell(command)
        self.run(30)
        self.events.clear()

    def raw(self, text: str | bytes, wait_ms: float = 30) -> list[str]:
        """Lines sent within `wait_ms` after these bytes."""
        data = text if isinstance(text, bytes) else text.encode("latin-1")
        self.tell("hex " + data.hex(" "))
        return [event["serial"] for event in self.run(wait_ms) if "serial" in event]

    def frame(self, body: str) -> str | None:
        """The answer to one line, None where none comes."""
        self.tell(f"send {line(body)}")
        for _ in range(4):
            for event in self.pass_time("listen 20000"):
                if event.get("serial", "!")[0] == "<":
                    return event["serial"][1:]
        return None

    def ask(self, command: str) -> str:
        """The answer to a command with a new sequence number, without that number."""
        number = f"{next(self.numbers) % 256:02X}"
        answer = self.frame(f"{number} {command}")
        assert answer is not None, command
        assert answer[:3] == f"{number} "
        return answer[3:]

    def stay(self, ms: float) -> list[dict]:
        """Let time pass, with a sign of life every second."""
        mark = len(self.events)
        end_us = self.now_us + ms * 1000
        while self.now_us < end_us:
            assert self.ask("HB") == "OK"
            self.run(min(1000.0, max(0.1, (end_us - self.now_us) / 1000)))
        return self.events[mark:]

    def lit(self) -> dict[int, int]:
        levels: dict[int, int] = {}
        for event in self.events:
            if "light" in event:
                levels[event["light"]] = event["level"]
        return {light: level for light, level in levels.items() if level}

    def sent(self, name: str) -> list[str]:
        return [e["serial"] for e in self.events if e.get("serial", "").startswith(f"!{name}")]

    def edges(self) -> list[float]:
        return [event["t_us"] for event in self.events if "trigger" in event]


class Dome(Client):
    """The firmware on the emulated chip, in steps."""

    def __init__(self, elf: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [emulator(), "--pace", "step", *options, elf],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.room_mv = 250 if "mega-" in elf.name else 2500
        super().__init__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self.process.communicate("quit\n", timeout=10)

    def tell(self, command: str) -> None:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def pass_time(self, command: str) -> list[dict]:
        self.tell(command)
        new: list[dict] = []
        while True:
            text = self.process.stdout.readline()
            assert text, f"the emulator ended: {self.process.wait()}"
            event = json.loads(text)
            if "ran" in event:
                self.now_us = event["t_us"]
                break
            if "serial" in event:
                event["serial"] = whole(event["serial"])
            new.append(event)
        self.events += new
        return new


class Model(Client):
    """The emulator in Python, with the firmware's limits; its wire takes no time."""

    def __init__(self, **limits: object) -> None:
        uno = {"name": "gnomon", "channels": 4, "uid": "000000", "max_on_ms": 65000, "max_lit": 3}
        self.controller = Emulator(Board(**{**uno, "steps": 32, "duty_percent": 50, **limits}))
        self._edges_us: list[float] = []
        self._sync = "0"
        self._told = 0, 0
        super().__init__()

    def tell(self, command: str) -> None:
        word, _, rest = command.partition(" ")
        controller = self.controller
        if word in ("hex", "send"):
            data = bytes.fromhex(rest) if word == "hex" else rest.encode("latin-1") + b"\n"
            controller.receive(data, self.now_us / 1e6)
        elif word == "sync":
            if (self._sync, rest) == ("1", "0"):
                controller.edge(self.now_us / 1e6)
            self._sync = rest
        elif word == "pulse":
            high_us, count, period_us = map(float, rest.split())
            self._edges_us = [self.now_us + high_us + k * period_us for k in range(int(count))]
        elif word == "interlock":
            controller.interlock_open = False
            if rest == "open":
                controller.open_interlock()
        elif word == "adc":
            controller.too_hot = False
            controller.temperature = 250
            if int(rest.split()[1]) < 750:
                controller.heat()
        elif word == "reset":
            self._edges_us = []
            controller.reset(rest)

    def pass_time(self, command: str) -> list[dict]:
        word, us = command.split()
        end_us = self.now_us + float(us)
        new: list[dict] = []
        while True:
            new += self._happened()
            if word == "listen" and any("serial" in event for event in new):
                break
            edge_us = self._edges_us[0] if self._edges_us else math.inf
            due_s = self.controller.due()
            due_us = math.inf if due_s is None else due_s * 1e6
            if min(edge_us, due_us) > end_us:
                self._advance(end_us)
                break
            if edge_us <= due_us:
                self._advance(self._edges_us.pop(0))
                self.controller.edge(self.now_us / 1e6)
            else:
                self._advance(due_us)
                self.controller.advance(due_s)
        self.events += new
        return new

    def _advance(self, us: float) -> None:
        self.now_us = max(self.now_us, us)
        self.controller.advance(self.now_us / 1e6)

    def _happened(self) -> list[dict]:
        levels, triggers = self._told
        history, trigger = self.controller.history, self.controller.trigger
        new: list[dict] = []
        for (_, before), (at_s, after) in itertools.pairwise([(0.0, {}), *history][levels:]):
            for light in sorted({*before, *after}):
                if before.get(light, 0) != after.get(light, 0):
                    new.append({"t_us": at_s * 1e6, "light": light, "level": after.get(light, 0)})
        self._told = len(history), len(trigger)
        for index, at_s in enumerate(trigger[triggers:]):
            new.append({"t_us": at_s * 1e6, "trigger": 1 - index % 2})
        texts = self.controller.take().decode().splitlines()
        return new + [{"t_us": self.now_us, "serial": whole(text)} for text in texts]


def whole(text: str) -> str:
    """A line of the controller without its checksum, which must be right."""
    body, _, check = text.rpartition("*")
    assert check == crc(body[1:]), f"a line of the controller is not whole: {text}"
    assert len(text) < 64
    return body


class Domes(ExitStack):
    """The firmware by board and settings: each is built and started once, and reset when it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[tuple[str, ...], Dome] = {}

    def __call__(self, board: str, *settings: str) -> Dome:
        key = (board, *settings)
        if key not in self._open:
            options = ("--pins",) if board in ("hc595", "tlc5947") else ()
            self._open[key] = self.enter_context(Dome(firmware(board, *settings), *options))
        self._open[key].reset()
        return self._open[key]
