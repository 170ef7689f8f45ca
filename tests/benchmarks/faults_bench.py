"""What a fault run stands on: the dome's firmware, an emulated camera, and the command as a process."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from dome_wire import Wire
from genicam_counterparts import viky
from genicam_fakes import describe_producer

from capture.plan import CapturePlan, Shot
from capture.runner.check import shot_seconds
from capture.session import Session
from rigs.config import load_plan, load_rig
from rigs.simulated.controller import EmulatedController

LIGHTS = 6
SETTLE_S = 0.04
READOUT_S = 0.1
"""Of the camera that steps the lights: in it they must change, on a busy computer too."""

COMMAND = Path(sys.executable).with_name("gnomon")
HERE = Path(__file__).parent
_MARK = "GNOMON_FAULT_RUN"
_NO_FAULT = re.compile(": warning: |, then press Enter$|: still opening |: waiting, lights dark, ")


def cameras(folder: Path) -> dict[str, dict[str, Any]]:
    """Cameras of native code that can be had here, as in a rig file; each runs in a process.

    Two were not written by us: Basler's emulation and viky. Two are of our own producer, built in
    ``folder``: it takes faults while it runs. ``sequence`` tells the emulated dome of its exposures, and
    steps its lights.
    """
    found: dict[str, dict[str, Any]] = {}
    common = {"isolate": True, "width": 320, "height": 240, "pixel_format": "Mono8", "readout_s": 0.01}
    if find_spec("pypylon"):
        own = {"driver": "pylon", "serial": "0815-0000", "exposure_min_s": 1e-5, "exposure_max_s": 1.0}
        found["pylon"] = common | own
    if find_spec("harvesters") and (producer := viky()):
        found["viky"] = common | {
            "driver": "genicam", "producers": str(producer), "serial": "0", "trigger": "free",
            "width": 120, "height": 100, "fixed_exposure_s": 0.01, "exposure_min_s": 0.01,
            "exposure_max_s": 0.01, "nodes": {"AcquisitionFrameRate": 20},
        }  # fmt: skip
    if find_spec("harvesters") and shutil.which("cc"):
        producer = _compiled(HERE.parent / "capture" / "gentl_producer.c", folder / "testing.cti")
        producer.with_suffix(".xml").write_text(describe_producer(counts=True))
        own = {
            "driver": "genicam", "producers": str(producer), "id": "TestDev", "width": 64, "height": 48,
            "exposure_min_s": 1e-5, "exposure_max_s": 1.0,
        }  # fmt: skip
        found["testing"] = common | own
        stepping = {"trigger": "free", "sequence": True, "readout_s": READOUT_S}
        found["sequence"] = common | own | stepping | {"nodes": {"FrameRate": round(1 / READOUT_S)}}
    return found


def _compiled(source: Path, library: Path) -> Path:
    words = ["-O1", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["cc", *words, "-o", library, source], check=True, capture_output=True, timeout=60)
    return library


def plan_of(camera: Mapping[str, Any]) -> dict[str, Any]:
    """Some twenty shots: lights for several frames each, and lights that take turns with every frame."""
    names = f"led1..led{LIGHTS}"
    bracket = {"exposures_s": [0.01] if "fixed_exposure_s" in camera else [0.01, 0.03]}
    repeats = 2 if "fixed_exposure_s" in camera else 1
    block = {"kinds": "object", "pose": "stage", "cameras": "top", "lights": {"names": names}}
    dark = {"kinds": "ambient", "pose": "stage", "cameras": "top", "bracket": {"exposures_s": [0.01]}}
    order = ["light", "repeat", "exposure", "camera"]
    steady = block | {"bracket": bracket, "repeats": repeats, "order": order}
    turns = block | {"bracket": {"exposures_s": [0.01]}, "first_repeat": 2}
    return {"name": "faults", "blocks": [dark | {"repeats": 2}, steady, turns]}


class _State(NamedTuple):
    """Lamps that burn from a virtual time on, by the wall clock not later than ``latest_s``.

    ``stretch`` is which time between two lags of the emulator it is in: within one, both clocks go alike.
    """

    begun_s: float
    stretch: int
    latest_s: float
    burning: frozenset[int]


class Dome:
    """The dome's firmware on simavr, what its lamps did when, and the faults it can be given.

    Parameters
    ----------
    emulator, firmware : Path
        As built.
    link : Path
        Symbolic link to its terminal: the same after the cable was plugged in again.
    """

    def __init__(self, emulator: Path, firmware: Path, link: Path, *, resets_on_opening: bool) -> None:
        options = [] if resets_on_opening else ["--no-dtr"]
        # named, for a camera that signals its exposures
        self.orders = link.with_suffix(".orders")
        os.mkfifo(self.orders)
        self._orders = os.open(self.orders, os.O_RDWR | os.O_CLOEXEC)
        self._process = subprocess.Popen(
            [emulator, "--link", link, *options, firmware],
            stdin=self._orders, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._changed = threading.Condition()
        self._states = [_State(0.0, 0, time.time(), frozenset())]
        # the wall clock less the virtual one, at most, in each stretch
        self._ahead_s = [0.0, float("inf")]
        self._now_s, self._asked, self._answered = 0.0, 0, 0
        self.lightings = 0
        self.lag_s = 0.0
        self._plugged = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._plugged.acquire(timeout=10), "the emulator does not start"

    def tell(self, command: str) -> None:
        """Give it one of its commands (docs/dome-firmware.md)."""
        os.write(self._orders, f"{command}\n".encode())

    def plug(self) -> None:
        """Put its cable in again."""
        self.tell("plug")
        assert self._plugged.acquire(timeout=10), "the emulator has no new terminal"

    def now_s(self) -> float:
        """Virtual time, once what it was told before is done."""
        with self._changed:
            self._asked += 1
            wanted = self._asked
        self.tell("memory")
        with self._changed:
            done = self._changed.wait_for(lambda: self._answered >= wanted, 30)
            assert done, "the emulator does not answer"
            return self._now_s

    def wait(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait until something has come about; looks at least every 20 ms."""
        until = time.monotonic() + within_s
        with self._changed:
            while not condition():
                if time.monotonic() > until:
                    return False
                self._changed.wait(0.02)
        return True

    def burnt(self, begun_s: float, ended_s: float) -> list[tuple[float, float, frozenset[int]]]:
        """What may have burnt in a time of the wall clock: earliest beginning, latest end, lamps."""
        with self._changed:
            states, ahead_s = list(self._states), list(self._ahead_s)
        ends_s = [state.latest_s for state in states[1:]] + [float("inf")]
        spans = (
            (state.begun_s + ahead_s[state.stretch], end_s, state.burning)
            for state, end_s in zip(states, ends_s, strict=True)
        )
        return [span for span in spans if span[0] <= ended_s and begun_s <= span[1]]

    def dark_after(self, since_s: float) -> float | None:
        """Virtual time from ``since_s`` until all was dark; None where something burns since then."""
        with self._changed:
            states = list(self._states)
        ends_s = [state.begun_s for state in states[1:]] + [float("inf")]
        for state, end_s in zip(states, ends_s, strict=True):
            if end_s > since_s and not state.burning:
                return max(0.0, state.begun_s - since_s)
        return None

    def may_have_burnt(self, wanted: frozenset[int], begun_s: float, ended_s: float) -> bool:
        """Whether just these lamps may have burnt from one time of the wall clock to another."""
        return any(
            burning == wanted and from_s <= begun_s and ended_s <= to_s
            for from_s, to_s, burning in self.burnt(begun_s, ended_s)
        )

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self.tell("quit")
        self._process.wait(10)
        self._thread.join()
        os.close(self._orders)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            told = json.loads(line)
            received_s = time.time()
            with self._changed:
                self._now_s = told["t_us"] * 1e-6
                if "lag_us" in told:
                    self._ahead_s.append(float("inf"))
                    self.lag_s += told["lag_us"] * 1e-6
                self._ahead_s[-1] = min(self._ahead_s[-1], received_s - self._now_s)
                if "light" in told:
                    burning = self._states[-1].burning - {told["light"]}
                    if told["level"]:
                        burning |= {told["light"]}
                        self.lightings += 1
                    stretch = len(self._ahead_s) - 1
                    self._states.append(_State(self._now_s, stretch, received_s, burning))
                elif "ram_untouched" in told:
                    self._answered += 1
                elif str(told.get("port", "")).startswith("/"):
                    self._plugged.release()
                self._changed.notify_all()


class Bench:
    """One rig, one session, and the processes of the command on them.

    Parameters
    ----------
    folder : Path
        Of its own, empty.
    emulator, firmware : Path
        As built.
    camera : dict
        Of `cameras`.
    wired : bool
        A wire that can be disturbed stands between the rig's port and the dome's.
    slow : bool
        The disk can be made slow: `slow_disk`.
    small_disk : callable, optional
        Makes the folder of the sessions a disk of its own.
    """

    def __init__(
        self,
        folder: Path,
        built: tuple[Path, Path],
        camera: dict[str, Any],
        *,
        wired: bool = False,
        slow: bool = False,
        small_disk: Callable[[Path], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.session = self.disk / "session"
        self.rig, self.plan = folder / "rig.yaml", folder / "plan.yaml"
        self.wire: Wire | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0
        self._stack = ExitStack()
        # a plan asks for its poses at a terminal: whoever is there has pressed Enter already
        self._person, self._terminal = os.openpty()
        for handle in (self._person, self._terminal):
            self._stack.callback(os.close, handle)
        port = folder / "dome"
        try:
            if small_disk is not None:
                self._stack.enter_context(small_disk(self.disk))
            self.dome = Dome(*built, folder / "far" if wired else port, resets_on_opening=not wired)
            self._stack.callback(self.dome.close)
            if wired:
                self.wire = self._stack.enter_context(Wire(str(folder / "far")))
                port.symlink_to(self.wire.port)
        except BaseException:
            self._stack.close()
            raise
        self.config: dict[str, Any] = {
            "name": "faults",
            "cameras": {"top": camera},
            "lights": {
                f"led1..led{LIGHTS}": {
                    "driver": "dome", "port": str(port), "channel": f"0..{LIGHTS - 1}", "settle_s": SETTLE_S,
                    "sequence": camera.get("sequence", False),
                }
            },
        }  # fmt: skip
        self._free_running = "fixed_exposure_s" in camera
        self.frame_faults = folder / "frames.orders"
        os.mkfifo(self.frame_faults)
        self._frame_faults = os.open(self.frame_faults, os.O_RDWR | os.O_CLOEXEC)
        self._stack.callback(os.close, self._frame_faults)
        self.slow_disk = folder / "slow"
        producer = Path(str(camera.get("producers", "none.cti")))
        self._environment = {
            _MARK: str(folder), "TMPDIR": str(self.temporary),
            "PYLON_CAMEMU": "2", "OPENBLAS_NUM_THREADS": "1",
            "GNOMON_TEST_XML": str(producer.with_suffix(".xml")), "GNOMON_TEST_LINE": str(self.dome.orders),
            "GNOMON_TEST_FAULTS": str(self.frame_faults), "GNOMON_TEST_SLOW": str(self.slow_disk),
        }  # fmt: skip
        if slow:
            library = _compiled(HERE / "faults_slow.c", folder / "slow.so")
            self._environment["LD_PRELOAD"] = str(library)
        self.write_rig()
        self.plan.write_text(yaml.safe_dump(plan_of(camera)))
        limits = load_rig(self.rig).limits
        self.shots: tuple[Shot, ...] = self.capture_plan.shots()
        self.plan_s = sum(shot_seconds(self.shots, limits.cameras, limits.lights))

    @property
    def capture_plan(self) -> CapturePlan:
        """What is to be taken."""
        return load_plan(self.plan)

    def write_rig(self, **light: object) -> None:
        """Write the rig file; ``light`` goes to all lights."""
        name = f"led1..led{LIGHTS}"
        lights = {name: self.config["lights"][name] | light}
        self.rig.write_text(yaml.safe_dump(self.config | {"lights": lights}))

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start the command, in a group of processes of its own; what it says goes to files."""
        self.started += 1
        os.write(self._person, b"\n")
        said = self.folder / str(self.started)
        with open(f"{said}.out", "wb") as out, open(f"{said}.err", "wb") as err:
            return subprocess.Popen(
                [COMMAND, *map(str, arguments)],
                stdin=self._terminal, stdout=out, stderr=err, start_new_session=True,
                env=os.environ | self._environment,
            )  # fmt: skip

    def complaints(self, number: int) -> list[str]:
        """Lines on standard error of the command started as this one; warnings and prompts are none."""
        lines = (self.folder / f"{number}.err").read_text(errors="replace").splitlines()
        return [line for line in lines if line.strip() and not _NO_FAULT.search(line)]

    def run(self, *arguments: object, within_s: float) -> tuple[int | None, list[str]]:
        """Run the command to its end; None as its code where it does not end within ``within_s``."""
        process = self.start(*arguments)
        number = self.started
        try:
            code: int | None = process.wait(within_s)
        except subprocess.TimeoutExpired:
            code = None
            process.kill()
            process.wait()
        return code, self.complaints(number)

    def spoil_frames(self, faults: str) -> None:
        """Give the producer of ours a fault for each of the next frames."""
        os.write(self._frame_faults, faults.encode())

    def spoil_no_more(self) -> None:
        """Take back the faults that no frame has had."""
        os.set_blocking(self._frame_faults, False)
        with suppress(BlockingIOError):
            os.read(self._frame_faults, 1000)

    def camera_processes(self) -> list[int]:
        """Processes of isolated cameras."""
        return [pid for pid, words in self.processes().items() if "capture.drivers.isolated" in words]

    def processes(self) -> dict[int, str]:
        """All processes of this run by their number, whatever became of their parents; zombies are none."""
        mark = f"{_MARK}={self.folder}\0".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes() + b"\0":
                        words = (entry / "cmdline").read_bytes().split(b"\0")
                        found[int(entry.name)] = b" ".join(words).decode()
        return found

    def lit(self) -> tuple[int, list[str]]:
        """How many frames were looked at, and what burnt in those exposed under other lamps than theirs.

        pylon tells the wall clock at the trigger, the producer of ours the monotonic clock at the beginning
        of the exposure, and viky's driver that at which a frame was handed over: viky has no clock.
        """
        told: int = 0
        wrong: list[str] = []
        monotonic_s = time.time() - time.monotonic()
        for record in Session.open(self.session).frames:
            taken_s, begun_s = _seconds(record.taken_at), record.timestamp_ns * 1e-9
            if abs(taken_s - begun_s) > abs(taken_s - begun_s - monotonic_s):
                begun_s += monotonic_s
            if self._free_running:
                begun_s -= record.exposure_s
            ended_s = min(begun_s + record.exposure_s, taken_s)
            told += 1
            wanted = frozenset(int(name.removeprefix("led")) - 1 for name in record.shot.lights)
            if not self.dome.may_have_burnt(wanted, begun_s, ended_s):
                burnt = [
                    (round(from_s - begun_s, 4), round(to_s - begun_s, 4), sorted(burning))
                    for from_s, to_s, burning in self.dome.burnt(begun_s - 0.5, ended_s + 0.5)
                ]
                wrong.append(
                    f"shot {record.shot.index} of lamps {sorted(wanted)}, {ended_s - begun_s:.4f} s exposed, "
                    f"put {taken_s - begun_s:.4f} s after its beginning, attempt {record.attempts}, emulator "
                    f"{self.dome.lag_s:.3f} s behind: {burnt}"
                )
        return told, wrong

    def close(self) -> None:
        """End whatever is left."""
        for pid in self.processes():
            with suppress(OSError):
                os.kill(pid, 9)
        self._stack.close()


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def build(folder: Path) -> tuple[Path, Path]:
    """Build emulator and firmware; ValueError where something for it is not installed."""
    return EmulatedController(folder, "hc595", "atmega328p").build()
