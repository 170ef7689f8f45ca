"""The dome's driver against a controller: the Python emulator."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from dome_emulator import Board, Emulator
from dome_wire import Wire
from pydantic import ValidationError

from capture.devices import (
    DeviceError,
    DeviceLost,
    Light,
    SequencedLight,
    SettingRefused,
    StrobedLight,
)
from capture.drivers.dome import DomeLightConfig
from capture.drivers.dome import controller as controller_module

WATCHDOG_S = 0.25


@pytest.fixture(autouse=True)
def short_watchdog(monkeypatch):
    """Tests of what two seconds do would take two seconds."""
    monkeypatch.setattr(controller_module, "WATCHDOG_S", WATCHDOG_S)
    monkeypatch.setattr(controller_module, "REPLY_S", 0.01)


class Emulated:
    """The emulator behind a wire."""

    def __init__(self, stack, **board):
        self.controller = Emulator(Board(**board))
        self.wire = stack.enter_context(Wire(self.controller))
        self.faults = self.wire.faults
        self.port = self.wire.port

    @property
    def burning(self):
        """Levels by channel."""
        return dict(self.controller.burning)

    @property
    def pulses(self):
        return self.controller.pulses

    def end_exposures(self, count=1):
        """The camera's exposure signal falls."""
        for _ in range(count):
            self.controller.edge()
        self.wire.poke()

    def reset(self):
        self.wire.reset()

    def commands(self, *names):
        """Those of these names that were done, in their order."""
        return [done for done in self.controller.executed if done.split()[0] in names]


@pytest.fixture
def make_dome():
    with ExitStack() as stack:
        yield lambda **board: Emulated(stack, **board)


@pytest.fixture
def dome(make_dome):
    return make_dome()


def light(dome, channel=0, name=None, **changes):
    config = DomeLightConfig(port=dome.port, channel=channel, settle_s=0.0).replace(**changes)
    return config.open(name or f"led{channel}")


@contextmanager
def lights(dome, *channels):
    with ExitStack() as stack:
        yield [stack.enter_context(light(dome, channel)) for channel in channels]


def until(condition, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def fate_of(command, *fates):
    """A fate for each of the next requests of a command; then they fare well."""
    left = list(fates)

    def fate(request):
        return left.pop(0) if left and request.startswith(command) else ""

    return fate


# ---------------------------------------------------------------- lighting


def test_a_light_keeps_the_protocol(dome):
    with light(dome) as led:
        assert isinstance(led, Light)
        assert isinstance(led, SequencedLight)
        assert not isinstance(led, StrobedLight)
        assert led.limits.settle_s == 0.0


def test_entering_lights_nothing_and_leaving_turns_dark(dome):
    with light(dome, 3) as led:
        assert dome.burning == {}
        led.set(1.0)
        assert dome.burning == {3: 255}
        led.set(0.5)
        assert dome.burning == {3: 128}
        led.set(0.0)
        assert dome.burning == {}
        led.set(1e-6)
        assert dome.burning == {3: 1}
    assert dome.burning == {}
    assert dome.controller.executed[-1] == "OFF"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_dark_however_it_is_left(dome, error):
    def work():
        with light(dome) as led:
            led.set(1.0)
            raise error

    with pytest.raises(error):
        work()
    assert dome.burning == {}


def test_lights_of_one_controller_share_its_port(dome):
    with light(dome, 0) as first:
        with light(dome, 1) as second:
            assert first.sequencer is second.sequencer
            first.set(1.0)
            second.set(1.0)
            assert dome.burning == {0: 255, 1: 255}
        assert dome.burning == {0: 255}
        assert len(dome.commands("OFF")) == 1
    assert dome.burning == {}
    assert len(dome.commands("OFF")) == 2
    assert len(dome.commands("ID")) == 1


def test_setting_returns_once_settled(dome):
    with light(dome, settle_s=0.05) as led:
        start = time.monotonic()
        led.set(1.0)
        assert time.monotonic() - start >= 0.05
        assert dome.burning


def test_full_level_may_be_less_than_the_controllers(dome):
    with light(dome, full_level=100) as led:
        led.set(1.0)
        assert dome.burning == {0: 100}


def test_what_the_controller_has_not_is_told_on_opening(dome):
    with pytest.raises(ValueError, match=r"light led24: .* emulated at .* has channels 0 to 23, no 24"):
        light(dome, 24).__enter__()
    with pytest.raises(ValueError, match="has levels up to 255, no 4096"):
        light(dome, full_level=4096).__enter__()
    with (
        light(dome),
        pytest.raises(ValueError, match=r"two: .* has channel 0 but once: light led0 has it"),
    ):
        light(dome, 0, "two").__enter__()
    with light(dome) as led:
        led.set(1.0)


def test_a_level_outside_the_range_and_a_light_that_is_not_open(dome):
    with light(dome) as led, pytest.raises(ValueError, match=r"led0: level 1\.5 is outside 0 to 1"):
        led.set(1.5)
    with pytest.raises(DeviceError, match="led0: is not open"):
        led.set(1.0)
    with pytest.raises(ValidationError, match="strobe"):
        DomeLightConfig(port="x", channel=0, strobe=True)


def test_the_address_is_the_port_whatever_names_it(tmp_path):
    (tmp_path / "port").touch()
    (tmp_path / "link").symlink_to(tmp_path / "port")
    named = [DomeLightConfig(port=str(tmp_path / name), channel=0).address for name in ("port", "link")]
    assert named == [str(tmp_path / "port")] * 2
    assert DomeLightConfig(port="socket://dome:5000", channel=0).address == "socket://dome:5000"


def test_more_lights_than_allowed_are_refused_and_the_others_burn_on(make_dome):
    dome = make_dome(max_lit=2)
    with lights(dome, 0, 1, 2) as (first, second, third):
        first.set(1.0)
        second.set(1.0)
        with pytest.raises(SettingRefused, match=r"^led2: /dev/.*: refuses SET: beyond a limit \(lit\)"):
            third.set(1.0)
        assert dome.burning == {0: 255, 1: 255}
        second.set(0.0)
        third.set(1.0)
        assert dome.burning == {0: 255, 2: 255}


def test_opened_and_closed_over_and_over_nothing_grows(dome):
    def used():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for number in range(10):
        with lights(dome, 0, 1):
            if number == 0:
                first = used()
        assert used() < first
    with lights(dome, 0, 1):
        assert used() == first


# ---------------------------------------------------------------- the life of the program


def test_lights_burn_on_while_the_program_waits_for_a_long_exposure(dome):
    with light(dome) as led:
        led.set(1.0)
        time.sleep(3 * WATCHDOG_S)
        assert dome.burning == {0: 255}
        led.confirm()
        asked = len(dome.wire.requests)
        led.set(0.0)
        time.sleep(WATCHDOG_S)
        assert len(dome.wire.requests) == asked + 1, "nothing burns, and it goes on"


def test_lights_go_dark_when_the_program_is_killed(dome):
    script = (
        "import sys, time\n"
        "from capture.drivers.dome import DomeLightConfig, controller\n"
        f"controller.WATCHDOG_S = {WATCHDOG_S}\n"
        "led = DomeLightConfig(port=sys.argv[1], channel=5).open('led').__enter__()\n"
        "led.set(1.0)\n"
        "print('lit', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, dome.port], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"lit\n"
        time.sleep(1.5 * WATCHDOG_S)
        assert dome.burning == {5: 255}
        child.kill()
    start = time.monotonic()
    until(lambda: not dome.burning)
    assert time.monotonic() - start < WATCHDOG_S + 0.5
    # the next program is not blamed for it
    with light(dome, 5) as led:
        led.set(1.0)
        assert dome.burning == {5: 255}


def test_a_program_that_hangs_does_not_burn_for_ever(dome, monkeypatch):
    monkeypatch.setattr(controller_module, "UNATTENDED_S", 0.1)
    with light(dome) as led:
        led.set(1.0)
        until(lambda: not dome.burning)
        with pytest.raises(DeviceError, match=r"led0: .*: nothing was asked of its lights for 0\.1 s"):
            led.confirm()
        led.set(1.0)
        assert dome.burning


# ---------------------------------------------------------------- opening


def test_opening_waits_for_the_boot_that_it_causes(dome):
    dome.controller.reset(boot_s=0.5)
    start = time.monotonic()
    with light(dome) as led:
        assert 0.5 <= time.monotonic() - start < 2.5
        led.set(1.0)
        assert dome.burning


def test_a_boot_that_comes_late_is_no_fault(dome):
    """A reset line with a capacitor, or a port that is told of the opening after the fact."""
    with light(dome) as led:
        dome.reset()
        until(lambda: dome.controller.watchdog_s != WATCHDOG_S)
        led.set(1.0)
        assert dome.controller.watchdog_s == WATCHDOG_S
        led.confirm()
        assert dome.burning


def test_what_an_earlier_program_left_is_ended(dome):
    def leave_it_armed():
        with light(dome) as led:
            led.sequencer.arm([({"led0": 1.0}, 3)])
            dome.controller.watchdog_s = 60
            dome.controller.silent = True
            raise DeviceError("camera", "gone")

    with pytest.raises(DeviceError, match="camera: gone"):
        leave_it_armed()
    dome.controller.silent = False
    assert dome.burning == {0: 255}
    with light(dome) as led:
        assert dome.burning == {}
        led.set(1.0)
        assert dome.burning == {0: 255}


def test_another_protocol_and_no_dome_at_all(make_dome, monkeypatch):
    with pytest.raises(DeviceError, match=r"^led0: .*: emulated speaks protocol 2, this driver 1: flash"):
        light(make_dome(protocol=2)).__enter__()
    deaf = make_dome()
    deaf.controller.silent = True
    monkeypatch.setattr(controller_module, "BOOT_S", 0.3)
    start = time.monotonic()
    with pytest.raises(DeviceLost, match=r"^led0: /dev/.*: no answer within 0\.3 s: has it power"):
        light(deaf).__enter__()
    assert time.monotonic() - start < 2.0


def test_a_wrong_rate_is_told(dome, monkeypatch):
    monkeypatch.setattr(controller_module, "BOOT_S", 0.3)
    with pytest.raises(DeviceLost, match=r"no answer within 0\.3 s: .*is baud\?"):
        light(dome, baud=9600).__enter__()
    with light(dome) as led:
        led.set(1.0)


def test_a_device_that_talks_all_the_time_is_no_dome(dome, monkeypatch):
    monkeypatch.setattr(controller_module, "BOOT_S", 0.3)
    dome.controller.silent = True
    talking = threading.Event()

    def talk():
        while not talking.wait(0.001):
            dome.wire.inject(b"$GPGGA,092751.000,5321.6802,N,00630.3371,W*6E\r\n" * 4)

    gps = threading.Thread(target=talk)
    gps.start()
    try:
        start = time.monotonic()
        with pytest.raises(DeviceLost, match="what comes is unreadable"):
            light(dome).__enter__()
        assert time.monotonic() - start < 3.0
    finally:
        talking.set()
        gps.join()
