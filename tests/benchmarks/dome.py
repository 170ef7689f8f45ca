"""The dome's driver against its firmware on simavr: round trips, and commands on a bad line.

    python tests/benchmarks/dome.py [--commands N]

Without gcc-avr and libsimavr-dev only the Python emulator is asked. Exit 1 where a bound is missed.
"""

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "capture"))

from dome_counterparts import Counterpart, Emulated, Firmware, until
from dome_wire import Faults

from capture.devices import DeviceError
from capture.drivers.dome import DomeLightConfig

ROUND_TRIP_MS = 6.0
DAMAGE = 0.01


def round_trips(port: str, count: int) -> bool:
    """Time of ``count`` commands SET, each from asking to its reply."""
    took_ms = np.empty(count)
    with DomeLightConfig(port=port, channel=0, settle_s=0.0).open("led") as led:
        for number in range(count):
            start = time.perf_counter()
            led.set((number % 255 + 1) / 255)
            took_ms[number] = 1e3 * (time.perf_counter() - start)
    p50, p99 = np.percentile(took_ms, [50, 99])
    print(f"  round trip of SET, {count} times: p50 {p50:.2f} ms (bound {ROUND_TRIP_MS:g}), p99 {p99:.2f} ms")
    return bool(p50 <= ROUND_TRIP_MS)


def bad_line(dome: Counterpart, count: int) -> bool:
    """``count`` exposures fired while lines are damaged either way: pulses of the trigger against reports."""
    answered = failed = 0
    with dome.light() as led:
        controller = led.sequencer.controller
        dome.wire.faults = faults = Faults(damage=DAMAGE, seed=6)
        start = time.perf_counter()
        for _ in range(count):
            try:
                controller.fire(0, 255, 0.0, 50e-6)
                answered += 1
            except DeviceError as error:
                failed += 1
                print(f"  reported as failed: {error}")
        seconds = time.perf_counter() - start
        dome.wire.faults = Faults()
        until(lambda: dome.pulses >= answered)
        time.sleep(0.1)
    print(
        f"  {count} commands FIRE in {seconds:.0f} s, {faults.damaged} lines damaged: {answered} reported as "
        f"done, {failed} as failed, {dome.pulses} pulses of the trigger"
    )
    return bool(answered <= dome.pulses <= answered + failed)


def main() -> int:
    """Print the figures of both counterparts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=10_000)
    count = parser.parse_args().commands
    good = True
    for name, counterpart in (("firmware on simavr", Firmware), ("Python emulator", Emulated)):
        with ExitStack() as stack:
            try:
                dome = counterpart(stack)
            except pytest.skip.Exception as reason:
                print(f"{name}: not asked: {reason}")
                continue
            print(name)
            good &= round_trips(dome.wire.port, min(1000, count))
            good &= bad_line(dome, count)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
