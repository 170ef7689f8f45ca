"""What the dome's driver is tested against: the Python emulator, and the firmware on simavr.

Both stand behind a `Wire`. Four channels, levels to 255, two lights at once.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from dome_emulator import Board, Emulator
from dome_wire import Wire
from firmware_client import emulator, firmware

from capture.devices import Light
from capture.drivers.dome import DomeLight, DomeLightConfig

WATCHDOG_S = 0.5
"""What the driver is told, for tests of what two seconds do."""

LIMITS = ("uno", "MAX_LIT=2", "DUTY_PCT=100")


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something to come about."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


class Counterpart:
    """A controller behind a wire."""

    wire: Wire
    burning: dict[int, int]
    pulses: int

    def light(self, channel: int = 0, name: str | None = None, **changes: object) -> DomeLight:
        """One light, not open yet."""
        config = DomeLightConfig(port=self.wire.port, channel=channel, settle_s=0.0).replace(**changes)
        return config.open(name or f"led{channel}")

    @contextmanager
    def lights(self, *channels: int) -> Iterator[list[Light]]:
        """Several lights, open."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.light(channel)) for channel in channels]

    def burns(self, levels: dict[int, int]) -> bool:
        """Whether this is what burns: it is told a little later than it is done."""
        deadline = time.monotonic() + 2.0
        while self.burning != levels and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.burning == levels

    def requests(self, *names: str) -> list[str]:
        """Requests of these names that the driver has sent, again and again as it may be."""
        return [text[3:] for text in self.wire.requests if text[3:].split()[0] in names]

    def dies_silently(self) -> None:
        """From now on nothing is heard of it."""
        self.wire.faults.fate = lambda request: "lose"


class Emulated(Counterpart):
    """The Python emulator."""

    def __init__(self, stack: ExitStack, **board: object) -> None:
        self.controller = Emulator(Board(**{"channels": 4, "max_lit": 2, **board}))
        self.wire = stack.enter_context(Wire(self.controller))

    @property
    def burning(self) -> dict[int, int]:
        """Levels by channel."""
        return dict(self.controller.burning)

    @property
    def pulses(self) -> int:
        """Exposures that it has triggered."""
        return self.controller.pulses

    def end_exposures(self, count: int = 1) -> None:
        """Let the camera's exposure signal fall."""
        for _ in range(count):
            self.controller.edge()
        self.wire.poke()

    def reset(self) -> None:
        """Pull the reset line."""
        self.wire.reset()

    def heat(self) -> None:
        """Let it become too hot."""
        self.controller.heat()
        self.wire.poke()

    def cool(self) -> None:
        """Let it cool."""
        self.controller.too_hot = False

    def done(self, *names: str) -> list[str]:
        """Commands of these names that it has done, each once for each time."""
        return [text for text in self.controller.executed if text.split()[0] in names]


class Firmware(Counterpart):
    """The firmware in C on simavr, in real time."""

    def __init__(self, stack: ExitStack) -> None:
        self.process = stack.enter_context(
            subprocess.Popen(
                [emulator(), "--no-dtr", firmware(*LIMITS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(self._quit)
        self.burning = {}
        self.pulses = 0
        self.resets = 0
        self._ports: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: bool(self._ports))
        self.port = self._ports[0]
        self.wire = stack.enter_context(Wire(self.port))
        self.wire.reset = self.reset  # type: ignore[method-assign]

    def _read(self) -> None:
        for line in self.process.stdout or ():
            told = json.loads(line)
            if "level" in told:
                levels = {**self.burning, told["light"]: told["level"]}
                self.burning = {channel: level for channel, level in levels.items() if level}
            elif told.get("trigger") == 0:
                self.pulses += 1
            elif "reset" in told:
                self.resets += 1
            elif "board" in told:
                self._ports.append(told["port"])

    def _quit(self) -> None:
        self._say("quit")
        self._reader.join()

    def _say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def end_exposures(self, count: int = 1) -> None:
        """Let the camera's exposure signal rise and fall; return once the last is over."""
        self._say(f"pulse 500 {count} 1000")
        time.sleep(0.002 * count + 0.02)

    def reset(self) -> None:
        """Pull the reset line."""
        self._say("reset E")

    def heat(self) -> None:
        """Let it become too hot: the resistance of its sensor falls."""
        self._say("adc 0 300")

    def cool(self) -> None:
        """Let it cool."""
        self._say("adc 0 2500")


COUNTERPARTS = {"emulator": Emulated, "firmware": Firmware}
