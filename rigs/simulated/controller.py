"""The twin with hardware in the loop: real firmware on an emulated chip lights its scene."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from capture.devices import DeviceLost, FrameLost
from capture.frame import Frame
from rigs.simulated.twin import Twin

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"
"""Sources of the firmware and of the emulator: they come with the repository, not with the package."""

_ANSWER_S = 10.0
_TOOLS = {"make": "make", "cc": "gcc libc6-dev", "avr-gcc": "gcc-avr avr-libc binutils-avr"}


class Pulse(NamedTuple):
    """A pulse of the trigger pin: when it began and ended, virtual time in s, and what burnt then."""

    begun_s: float
    ended_s: float
    lamps: dict[int, float]


class EmulatedController:
    """A dome's firmware on simavr, in real time: a serial port, lamps, a trigger pin, a sync input.

    Entering builds both (some seconds) and starts the emulator; leaving ends it.

    Parameters
    ----------
    folder : Path
        Where firmware and emulator are built.
    board, chip : str
        As in docs/dome-firmware.md.
    settings : mapping of str to int, optional
        The firmware's limits, such as ``MAX_LIT``.

    Attributes
    ----------
    port : str
        The pseudo-terminal of its serial port.
    channels : int
        How many lamps it has.
    pulses : list of Pulse
        What the trigger pin gave so far.

    Raises
    ------
    ValueError
        A tool is missing, or something cannot be built; the message says which and what to install.
    """

    port: str
    channels: int

    def __init__(
        self, folder: Path, board: str, chip: str, settings: Mapping[str, int] | None = None
    ) -> None:
        self._folder = folder
        self._board, self._chip = board, chip
        self._settings = dict(settings or {})
        self.pulses: list[Pulse] = []
        self._changed = threading.Condition()
        self._lamps: dict[int, float] = {}
        self._now_s = 0.0
        self._rose: Pulse | None = None
        self._asked = 0
        self._answered = 0
        self._ended = False
        self._process: subprocess.Popen[str] | None = None

    @property
    def levels(self) -> dict[int, float]:
        """Lamps that burn now, by channel: 1 is full."""
        with self._changed:
            return dict(self._lamps)

    def sync(self, exposing: bool) -> None:
        """Set the sync input: a camera's exposure signal."""
        self._send(f"sync {int(exposing)}")

    def settle(self, seconds: float = 0.0) -> float:
        """Wait until all that was told has been done, and ``seconds`` of virtual time more; return that time.

        Raises
        ------
        DeviceLost
            The emulator has ended.
        """
        until = None
        while True:
            now = self._mark()
            until = now + seconds if until is None else until
            if now >= until:
                return now
            time.sleep(max(until - now, 0.0005))

    def __enter__(self) -> Self:
        emulator, program = self.build()
        process = subprocess.Popen(
            [emulator, "--no-dtr", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._process = process
        assert process.stdout is not None
        told = (json.loads(line) for line in process.stdout)
        said = next((each for each in told if "board" in each), None)
        if said is None:
            raise ValueError(f"{emulator.name} does not start: it ended with {process.wait()}")
        self.port, self.channels, self._full = said["port"], said["channels"], said["max_level"]
        self._thread = threading.Thread(target=self._listen, name="emulated controller", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(2.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._thread.join()
            assert process.stdout is not None
            process.stdout.close()

    def _mark(self) -> float:
        """Virtual time at which the emulator has done what it was told before."""
        self._asked += 1
        wanted = self._asked
        self._send("memory")
        with self._changed:
            if not self._changed.wait_for(lambda: self._answered >= wanted or self._ended, _ANSWER_S):
                raise DeviceLost("controller", "the emulator does not answer")
            if self._ended:
                raise DeviceLost("controller", "the emulator has ended")
            return self._now_s

    def _send(self, command: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise DeviceLost("controller", "the emulator is not running")
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except OSError:
            raise DeviceLost("controller", "the emulator has ended") from None

    def _listen(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            said: dict[str, Any] = json.loads(line)
            with self._changed:
                self._now_s = said["t_us"] * 1e-6
                if "light" in said:
                    self._lamps.pop(said["light"], None)
                    if said["level"]:
                        self._lamps[said["light"]] = said["level"] / self._full
                elif "trigger" in said:
                    self._trigger(said["trigger"])
                elif "ram_untouched" in said:
                    self._answered += 1
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _trigger(self, level: int) -> None:
        if level:
            self._rose = Pulse(self._now_s, self._now_s, dict(self._lamps))
        elif self._rose is not None:
            self.pulses.append(self._rose._replace(ended_s=self._now_s))
            self._rose = None

    def build(self) -> tuple[Path, Path]:
        """Build the emulator and the firmware; ValueError as for entering."""
        if not FIRMWARE.is_dir():
            raise ValueError(f"{FIRMWARE}: no such folder: the firmware comes with the repository only")
        for tool, packages in _TOOLS.items():
            if shutil.which(tool) is None:
                raise ValueError(
                    f"the program {tool} is missing: apt-get install {packages} libsimavr-dev (Debian)"
                )
        settings = [f"{name}={value}" for name, value in self._settings.items()]
        self._make("dome", f"BOARD={self._board}", f"MCU={self._chip}", *settings)
        self._make("simavr")
        return self._folder / "emulator", self._folder / f"dome-{self._board}-{self._chip}.elf"

    def _make(self, what: str, *settings: str) -> None:
        done = subprocess.run(
            ["make", "-C", str(FIRMWARE / what), f"OUT={self._folder}", *settings],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            why = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
            raise ValueError(f"firmware/{what} cannot be built (does it want libsimavr-dev?): {why}")


class WiredTwin:
    """A twin whose lights are the lamps of a controller, and whose camera tells it of each exposure.

    A ``capture.drivers.simulated.Scene`` for the camera only: lights are set by the controller's own driver.
    Exposures take their time.

    Parameters
    ----------
    twin : Twin
        What is in view.
    controller : EmulatedController
        Open.
    channels : mapping of str to int
        The twin's lights by the controller's channels.
    readout_s : float
        Time between two exposures, in which lights settle.
    """

    def __init__(
        self, twin: Twin, controller: EmulatedController, channels: Mapping[str, int], readout_s: float
    ) -> None:
        self._twin = twin
        self._controller = controller
        self._names = {channel: name for name, channel in channels.items()}
        self._readout_s = readout_s
        self._burning: dict[str, float] = {}

    def show(self, pose: str) -> None:
        """Bring ``pose`` in view; raises as the twin does."""
        self._twin.show(pose)

    def set_light(self, name: str, level: float) -> None:
        """Refuse: the lights are the controller's."""
        raise ValueError(f"light {name} is lit by the controller alone")

    def strobe_light(self, name: str, level: float, delay_s: float, duration_s: float) -> None:
        """Refuse: the lights are the controller's."""
        raise ValueError(f"light {name} is lit by the controller alone")

    def expose(self, camera: str, exposure_s: float, gain_db: float) -> Frame:
        """Take a frame under the lamps that burn, and signal the exposure to the controller.

        Raises
        ------
        FrameLost
            The lamps changed within the exposure, or one burns that the twin has not.
        DeviceLost
            The emulator has ended.
        """
        self._controller.settle()
        before = self._controller.levels
        self._controller.sync(True)
        self._controller.settle(exposure_s)
        after = self._controller.levels
        self._controller.sync(False)
        self._controller.settle(self._readout_s)
        if after != before:
            raise FrameLost(camera, "lamps changed within the exposure")
        return self._seen(camera, before, exposure_s, gain_db)

    def triggered(self, camera: str, pulse: Pulse, gain_db: float = 0.0) -> Frame:
        """Take the frame of a pulse of the trigger pin, as long as that was, under the lamps that burnt."""
        return self._seen(camera, pulse.lamps, pulse.ended_s - pulse.begun_s, gain_db)

    def _seen(self, camera: str, lamps: Mapping[int, float], exposure_s: float, gain_db: float) -> Frame:
        if strange := sorted(set(lamps) - set(self._names)):
            raise FrameLost(camera, f"channel {strange[0]} burns, which no light of the rig is on")
        wanted = {self._names[channel]: level for channel, level in lamps.items()}
        for name in self._burning.keys() - wanted.keys():
            self._twin.set_light(name, 0.0)
        for name, level in wanted.items():
            if self._burning.get(name) != level:
                self._twin.set_light(name, level)
        self._burning = wanted
        return self._twin.expose(camera, exposure_s, gain_db)
