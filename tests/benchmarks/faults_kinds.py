"""What befalls a run: kinds of faults, how each strikes and is mended, and how a run may end after it."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dome_wire import Faults
from faults_bench import Bench
from genicam_fakes import FAULTS

from capture.drivers.dome.controller import BOOT_S
from capture.drivers.dome.exchange import REQUEST_S
from capture.drivers.isolated import FAILURES, START_S
from capture.drivers.isolated.process import CLOSE_S
from capture.runner.settings import RunSettings
from capture.runner.take import DEADLINE_MARGIN_S

COMMAND_S = 20.0
"""What starting and leaving Python and the SDK may take on a busy computer."""

CODES = {0, 3, 5}
"""A fault that the run gets over, one that costs shots, one that loses a device."""

OURS = frozenset({"testing", "sequence"})
"""Cameras of the producer that takes faults while it runs."""


@dataclass
class Kind:
    """A fault.

    ``extra_s`` is what it may cost beyond the plan's own time: the drivers' deadlines. ``dark_at_once`` says
    that nothing of the run reaches the lights from then on, or that the controller itself must go dark.
    ``cameras`` are those it is asked of; all without.
    """

    strike: Callable[[Bench, random.Random], None]
    codes: set[int]
    mend: Callable[[Bench], None] = lambda bench: None
    extra_s: float = 0.0
    dark_at_once: bool = False
    wired: bool = False
    disk: bool = False
    slow: bool = False
    cameras: frozenset[str] | None = None
    before: Callable[[Bench, random.Random], None] | None = None


# ---------------------------------------------------------------- the faults


def _signal_camera(number: int) -> Callable[[Bench, random.Random], None]:
    def strike(bench: Bench, rng: random.Random) -> None:
        for pid in bench.camera_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    return strike


def _kill_every_camera(bench: Bench, rng: random.Random) -> None:
    assert bench.process is not None
    while bench.process.poll() is None:
        _signal_camera(signal.SIGKILL)(bench, rng)
        time.sleep(0.01)


def _tell(*commands: str) -> Callable[[Bench, random.Random], None]:
    def strike(bench: Bench, rng: random.Random) -> None:
        bench.dome.tell(rng.choice(commands))

    return strike


def _for_a_while(command: str, end: str, longest_s: float) -> Callable[[Bench, random.Random], None]:
    def strike(bench: Bench, rng: random.Random) -> None:
        bench.dome.tell(command)
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0.0, longest_s))
            bench.dome.tell(end)

    return strike


def _unplug(bench: Bench, rng: random.Random) -> None:
    bench.dome.tell("unplug")
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0.0, 1.0))
        bench.dome.plug()


def _garbage(bench: Bench, rng: random.Random) -> None:
    assert bench.wire is not None
    until = time.monotonic() + rng.uniform(0.05, 2.0)
    bench.wire.faults = Faults(damage=rng.choice([0.1, 0.5, 1.0]), seed=rng.randrange(1 << 30))
    while time.monotonic() < until:
        bench.wire.inject(rng.randbytes(rng.randrange(1, 200)))
        time.sleep(0.02)
    bench.wire.faults = Faults()


def _silence(bench: Bench, rng: random.Random) -> None:
    assert bench.wire is not None
    bench.wire.faults = Faults(loss=1.0)
    time.sleep(rng.uniform(0.05, 3.0))
    bench.wire.faults = Faults()


def _dead_line(bench: Bench, rng: random.Random) -> None:
    assert bench.wire is not None
    bench.wire.faults = Faults(loss=1.0)


def _refuse(bench: Bench, rng: random.Random) -> None:
    assert bench.wire is not None
    error, left = rng.choice(["ERR 9 lit", "ERR 4", "ERR 3"]), [rng.randrange(1, 8)]

    def fate(request: str) -> str:
        if not request.startswith("SET") or request.endswith(" 0") or not left[0]:
            return ""
        left[0] -= 1
        return error

    bench.wire.faults = Faults(fate=fate)


def _quiet_wire(bench: Bench) -> None:
    assert bench.wire is not None
    bench.wire.faults = Faults()


def _signal_command(number: int, times: int = 1) -> Callable[[Bench, random.Random], None]:
    def strike(bench: Bench, rng: random.Random) -> None:
        assert bench.process is not None
        for _ in range(times):
            with suppress(ProcessLookupError):
                # a terminal gives Ctrl-C to all of its processes
                if number == signal.SIGINT:
                    os.killpg(bench.process.pid, number)
                else:
                    bench.process.send_signal(number)
            time.sleep(rng.uniform(0.0, 0.3))

    return strike


def _suspend(bench: Bench, rng: random.Random) -> None:
    assert bench.process is not None
    bench.process.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.1, 4.0))
    bench.process.send_signal(signal.SIGCONT)


def _fill(bench: Bench, rng: random.Random) -> None:
    block = b"\1" * rng.choice([4096, 65536])
    with open(bench.disk / "filler", "wb", buffering=0) as file, suppress(OSError):
        while file.write(block) == len(block):
            pass


def _read_only(bench: Bench, rng: random.Random) -> None:
    frames = bench.session / "frames"
    if frames.is_dir():
        subprocess.run(["mount", "--bind", frames, frames], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", frames], check=True)


def _writable(bench: Bench) -> None:
    subprocess.run(["umount", bench.session / "frames"], check=False, capture_output=True)


def _slow_disk(bench: Bench, rng: random.Random) -> None:
    bench.slow_disk.touch()


def _ctrl_c_on_a_slow_disk(bench: Bench, rng: random.Random) -> None:
    bench.slow_disk.touch()
    time.sleep(rng.uniform(0.0, 1.5))
    _signal_command(signal.SIGINT)(bench, rng)


def _spoil_frames(*names: str, most: int = 4) -> Callable[[Bench, random.Random], None]:
    def strike(bench: Bench, rng: random.Random) -> None:
        count = rng.randrange(1, most + 1)
        bench.spoil_frames("".join(str(FAULTS.index(rng.choice(names))) for _ in range(count)))

    return strike


def _cut_signal(bench: Bench, rng: random.Random) -> None:
    bench.spoil_frames("c")


def _noise(bench: Bench, rng: random.Random) -> None:
    bench.dome.tell(f"pulse {rng.choice([50, 500])} {rng.randrange(1, 30)} 1000")


def _second_run(bench: Bench, rng: random.Random) -> None:
    code, lines = bench.run("capture", bench.rig, bench.plan, bench.disk / "second", within_s=COMMAND_S)
    assert bench.process is not None
    # on a busy computer the first may have ended before the second is there
    if (code or bench.process.poll() is None) and (code != 7 or len(lines) != 1):
        raise AssertionError(f"the second run ended with {code}: {lines}")


_LOST_FRAME_S = DEADLINE_MARGIN_S + 0.1
_RESTARTED_S = _LOST_FRAME_S + START_S
_SILENT_S = 2 * REQUEST_S + BOOT_S
_SLOW_S = 30.0
_UNREADY_S = _SILENT_S + RunSettings().patience_s
"""A device that is not ready is waited for."""

KINDS: dict[str, Kind] = {
    "camera killed": Kind(_signal_camera(signal.SIGKILL), CODES, extra_s=_RESTARTED_S),
    "camera hangs": Kind(_signal_camera(signal.SIGSTOP), CODES, extra_s=_RESTARTED_S + CLOSE_S),
    "camera keeps dying": Kind(_kill_every_camera, {5}, extra_s=FAILURES * _LOST_FRAME_S + CLOSE_S),
    "controller reset": Kind(_tell("reset E", "reset P", "reset B"), {0}, extra_s=BOOT_S, dark_at_once=True),
    "controller jams": Kind(_tell("jam"), {0}, extra_s=BOOT_S, dark_at_once=True),
    "unplugged": Kind(_unplug, {5}, lambda bench: bench.dome.plug(), _SILENT_S, dark_at_once=True),
    "too hot": Kind(
        _for_a_while("adc 0 300", "adc 0 2500", 1.0), CODES, lambda bench: bench.dome.tell("adc 0 2500"),
        extra_s=_UNREADY_S, dark_at_once=True,
    ),
    "interlock opened": Kind(
        _for_a_while("interlock open", "interlock closed", 1.0), CODES,
        lambda bench: bench.dome.tell("interlock closed"), extra_s=_UNREADY_S, dark_at_once=True,
    ),
    "garbage": Kind(_garbage, CODES, _quiet_wire, 2.0 + _SILENT_S, wired=True),
    "silence": Kind(_silence, {0, 5}, _quiet_wire, 3.0 + _SILENT_S, wired=True),
    "line dead": Kind(_dead_line, {5}, _quiet_wire, _SILENT_S, wired=True, dark_at_once=True),
    "refusals": Kind(_refuse, CODES, _quiet_wire, wired=True),
    "wrong baud": Kind(
        lambda bench, rng: None, {5}, lambda bench: bench.write_rig(), _SILENT_S,
        before=lambda bench, rng: bench.write_rig(baud=rng.choice([9600, 57600, 230400])),
    ),
    "Ctrl-C": Kind(_signal_command(signal.SIGINT), {130}, extra_s=_LOST_FRAME_S + CLOSE_S),
    "Ctrl-C twice": Kind(_signal_command(signal.SIGINT, 2), {130}, extra_s=_LOST_FRAME_S + CLOSE_S),
    "SIGTERM": Kind(_signal_command(signal.SIGTERM), {143}, extra_s=_LOST_FRAME_S + CLOSE_S),
    "SIGKILL": Kind(_signal_command(signal.SIGKILL), {-9}, extra_s=0.0, dark_at_once=True),
    "SIGHUP": Kind(_signal_command(signal.SIGHUP), {129}, extra_s=_LOST_FRAME_S + CLOSE_S),
    "suspended": Kind(_suspend, {0}, extra_s=4.0 + _LOST_FRAME_S + _RESTARTED_S),
    "disk full": Kind(_fill, {6}, lambda bench: (bench.disk / "filler").unlink(), _LOST_FRAME_S, disk=True),
    "folder read-only": Kind(_read_only, {6}, _writable, _LOST_FRAME_S, disk=True),
    "slow disk": Kind(
        _slow_disk, {0}, lambda bench: bench.slow_disk.unlink(), extra_s=_SLOW_S, slow=True,
    ),
    "Ctrl-C on a slow disk": Kind(
        _ctrl_c_on_a_slow_disk, {130}, lambda bench: bench.slow_disk.unlink(), extra_s=_SLOW_S, slow=True,
    ),
    "second run": Kind(_second_run, {0}, extra_s=COMMAND_S),
    "frames incomplete": Kind(
        _spoil_frames("incomplete", "short"), {0, 3}, extra_s=4 * _LOST_FRAME_S, cameras=OURS,
    ),
    "frames lost": Kind(_spoil_frames("dropped"), {0, 3}, extra_s=4 * _LOST_FRAME_S, cameras=OURS),
    "frames late": Kind(
        _spoil_frames("late"), {0, 3}, extra_s=4 * _LOST_FRAME_S, cameras=frozenset({"testing"}),
    ),
    "frames doubled": Kind(_spoil_frames("doubled"), {0}, extra_s=4 * _LOST_FRAME_S, cameras=OURS),
    "wrong exposure": Kind(_spoil_frames("mistold"), {0, 3}, extra_s=4 * _LOST_FRAME_S, cameras=OURS),
    "any of the frames": Kind(
        _spoil_frames("incomplete", "short", "dropped", "doubled", "mistold", most=9), {0, 3},
        extra_s=9 * _LOST_FRAME_S, cameras=OURS,
    ),
    "camera crashes": Kind(_spoil_frames("crashing", most=1), {0}, extra_s=_RESTARTED_S, cameras=OURS),
    "camera vanishes": Kind(_spoil_frames("vanished", most=1), {5}, extra_s=_LOST_FRAME_S, cameras=OURS),
    "noise on the signal": Kind(_noise, {0}, extra_s=0.0, cameras=frozenset({"sequence"})),
    "signal cut": Kind(
        _cut_signal, {3}, extra_s=60.0, cameras=frozenset({"sequence"}),
    ),
}  # fmt: skip
