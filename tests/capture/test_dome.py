"""The dome's driver against the Python emulator and the firmware: lighting, sequences, opening, closing."""

import os
import subprocess
import sys
import threading
import time

import pytest
from dome_counterparts import WATCHDOG_S, until
from pydantic import ValidationError

from capture.devices import (
    DeviceError,
    DeviceLost,
    Identified,
    Light,
    SequencedLight,
    SettingRefused,
    StrobedLight,
)
from capture.drivers import shared
from capture.drivers.dome import DomeLightConfig
from capture.drivers.dome import controller as controller_module
from capture.drivers.dome.codec import checksum, encode


@pytest.fixture(autouse=True)
def short_boot(short_times, monkeypatch):
    monkeypatch.setattr(controller_module, "BOOT_S", 0.4)


# ---------------------------------------------------------------- lighting


def test_a_light_keeps_the_protocol(emulated):
    with emulated.light() as led:
        assert isinstance(led, Light)
        assert isinstance(led, SequencedLight)
        assert not isinstance(led, StrobedLight)
        assert led.limits.settle_s == 0.0
        assert isinstance(led, Identified)
        assert set(led.identity) == {"model", "serial", "firmware"}
        assert led.identity["model"] == "emulated"


def test_entering_lights_nothing_and_leaving_turns_dark(dome):
    with dome.light(3) as led:
        assert dome.burns({})
        led.set(1.0)
        assert dome.burns({3: 255})
        led.set(0.5)
        assert dome.burns({3: 128})
        led.set(0.0)
        assert dome.burns({})
        led.set(1e-6)
        assert dome.burns({3: 1})
    assert dome.burns({})
    assert dome.requests("SET", "OFF")[-2:] == ["SET 3 0", "OFF"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_dark_however_it_is_left(emulated, error):
    def work():
        with emulated.light() as led:
            led.set(1.0)
            raise error

    with pytest.raises(error):
        work()
    assert emulated.burning == {}


def test_lights_of_one_controller_share_its_port(dome):
    with dome.light(0) as first:
        with dome.light(1) as second:
            assert first.sequencer is second.sequencer
            first.set(1.0)
            second.set(1.0)
            assert dome.burns({0: 255, 1: 255})
        assert dome.burns({0: 255})
        assert len(dome.requests("OFF")) == 1
    assert dome.burns({})
    assert len(dome.requests("OFF")) == 2


def test_setting_returns_once_settled(dome):
    with dome.light(settle_s=0.05) as led:
        start = time.monotonic()
        led.set(1.0)
        assert time.monotonic() - start >= 0.05
        assert dome.burns({0: 255})


def test_full_level_may_be_less_than_the_controllers(emulated):
    with emulated.light(full_level=100) as led:
        led.set(1.0)
        assert emulated.burning == {0: 100}


def test_what_the_controller_has_not_is_told_on_opening(emulated):
    with pytest.raises(ValueError, match=r"light led4: .* emulated at .* has channels 0 to 3, no 4"):
        emulated.light(4).__enter__()
    with pytest.raises(ValueError, match="has levels up to 255, no 4096"):
        emulated.light(full_level=4096).__enter__()
    with pytest.raises(ValueError, match="lets a light burn for 60 s, less than max_on_s, 61 s"):
        emulated.light(max_on_s=61).__enter__()
    emulated.controller.board.duty_percent = 50
    with pytest.raises(ValueError, match=r"lets a light burn for 50% of the time, less than max_duty, 0\.6"):
        emulated.light(max_duty=0.6).__enter__()
    with (
        emulated.light(),
        pytest.raises(ValueError, match=r"two: .* channel 0 but once: light led0 has it"),
    ):
        emulated.light(0, "two").__enter__()
    with emulated.light(max_duty=0.5) as led:
        led.set(1.0)


def test_a_level_outside_the_range_and_a_light_that_is_not_open(emulated):
    with emulated.light() as led, pytest.raises(ValueError, match=r"led0: level 1\.5 is outside 0 to 1"):
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


def test_more_lights_than_allowed_are_refused_and_the_others_burn_on(dome):
    with dome.lights(0, 1, 2) as (first, second, third):
        first.set(1.0)
        second.set(1.0)
        with pytest.raises(SettingRefused, match=r"^led2: .*: refuses SET: beyond a limit \((max)?lit\)"):
            third.set(1.0)
        assert dome.burns({0: 255, 1: 255})
        second.set(0.0)
        third.set(1.0)
        assert dome.burns({0: 255, 2: 255})


def test_opened_and_closed_over_and_over_nothing_grows(emulated):
    def used():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for number in range(10):
        with emulated.lights(0, 1):
            if number == 0:
                first = used()
        assert used() < first
    with emulated.lights(0, 1):
        assert used() == first


# ---------------------------------------------------------------- sequences


def test_the_camera_steps_the_lights(dome):
    with dome.lights(0, 1, 2) as (first, second, third):
        first.set(1.0)
        sequencer = third.sequencer
        assert sequencer is first.sequencer
        assert sequencer.max_steps >= 24
        sequencer.arm([({"led1": 1.0}, 2), ({}, 1), ({"led1": 0.5, "led2": 0.2}, 1)])
        assert dome.burns({1: 255})
        dome.end_exposures()
        assert dome.burns({1: 255})
        dome.end_exposures()
        assert dome.burns({})
        dome.end_exposures()
        assert dome.burns({1: 128, 2: 51})
        dome.end_exposures()
        assert dome.burns({})
        assert sequencer.stop() == 4
        assert not sequencer.controller.burning, "what burnt before the sequence is forgotten"
        second.set(1.0)
        assert dome.burns({1: 255})


def test_a_sequence_that_is_stopped_counts_what_it_was_told(dome):
    with dome.light() as led:
        led.sequencer.arm([({"led0": 1.0}, 10)])
        dome.end_exposures(3)
        assert led.sequencer.stop() == 3
        assert dome.burns({})
        # as often as one likes, with exposures beyond the end of a sequence
        led.sequencer.arm([({"led0": 1.0}, 1)])
        dome.end_exposures(1)
        assert dome.burns({})
        assert led.sequencer.stop() == 1


def test_setting_a_light_ends_a_sequence(dome):
    with dome.lights(0, 1) as (first, second):
        first.sequencer.arm([({"led0": 1.0}, 10)])
        second.set(0.0)
        assert dome.burns({})
        first.sequencer.arm([({"led0": 1.0}, 10)])
        second.set(1.0)
        assert dome.burns({1: 255})


def test_a_sequence_is_kept_alive(emulated):
    with emulated.light() as led:
        led.sequencer.arm([({"led0": 1.0}, 10)])
        time.sleep(1.2 * WATCHDOG_S)
        assert emulated.burns({0: 255})
        emulated.end_exposures(10)
        assert led.sequencer.stop() == 10


def test_more_exposures_than_a_step_can_count_take_several_steps(emulated):
    with emulated.light() as led:
        led.sequencer.arm([({"led0": 1.0}, 600)])
        emulated.end_exposures(599)
        assert emulated.burns({0: 255})
        emulated.end_exposures()
        assert emulated.burns({})
        assert led.sequencer.stop() == 600


def test_a_sequence_that_cannot_be_is_refused_in_the_dark(make_emulated):
    emulated = make_emulated(steps=4, channels=24)
    with emulated.lights(*range(24)) as leds:
        sequencer = leds[0].sequencer
        leds[0].set(1.0)
        with pytest.raises(DeviceError, match=r"^led0: a sequence of 5 steps, and the controller holds 4"):
            sequencer.arm([({"led0": 1.0}, 1)] * 5)
        assert emulated.burning == {}
        with pytest.raises(SettingRefused, match=r"led0: .*: refuses SEQ: beyond a limit \(maxlit\)"):
            sequencer.arm([({"led0": 1.0, "led1": 1.0, "led2": 1.0}, 1)])
        with pytest.raises(DeviceError, match="24 lights at once are too many for a sequence"):
            sequencer.arm([({led.name: 1.0 for led in leds}, 1)])
        assert emulated.burning == {}
        for steps in ([], [({"led0": 1.0}, 0)], [({"lamp": 1.0}, 1)], [({"led0": 2.0}, 1)]):
            with pytest.raises(ValueError, match=r"steps|exposures|not of this dome|outside"):
                sequencer.arm(steps)


def test_the_controller_can_trigger_the_camera_itself(dome):
    with dome.light() as led:
        controller = led.sequencer.controller
        start = time.monotonic()
        controller.fire(0, 255, 0.01, 0.02)
        assert time.monotonic() - start >= 0.03
        controller.fire(0, 0, 0.0, 0.001)
        until(lambda: dome.pulses == 2)
        assert dome.burns({})
        led.set(0.5)
        controller.fire(1, 255, 0.0, 0.001)
        assert dome.burns({0: 128})
        controller.fire(0, 255, 0.0, 0.001)
        assert dome.burns({})
        controller.status()
        led.confirm()


def test_an_exposure_longer_than_the_watchdog(emulated):
    with emulated.light() as led:
        led.sequencer.controller.fire(0, 255, 0.0, 1.2 * WATCHDOG_S)
        assert emulated.pulses == 1


# ---------------------------------------------------------------- the life of the program


def test_lights_burn_on_while_the_program_waits_for_a_long_exposure(dome):
    with dome.light() as led:
        led.set(1.0)
        time.sleep(1.2 * WATCHDOG_S)
        assert dome.burns({0: 255})
        led.confirm()
        led.set(0.0)
        asked = len(dome.wire.requests)
        time.sleep(WATCHDOG_S / 3)
        assert len(dome.wire.requests) == asked, "nothing burns, and it goes on"


@pytest.mark.parametrize("dome", ["firmware"], indirect=True)
def test_lights_go_dark_when_the_program_is_killed(dome):
    script = (
        "import sys, time\n"
        "from capture.drivers.dome import DomeLightConfig, controller\n"
        f"controller.WATCHDOG_S = {WATCHDOG_S}\n"
        "led = DomeLightConfig(port=sys.argv[1], channel=2).open('led').__enter__()\n"
        "led.set(1.0)\n"
        "print('lit', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, dome.wire.port], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"lit\n"
        assert dome.burns({2: 255})
        child.kill()
    start = time.monotonic()
    until(lambda: not dome.burning)
    assert time.monotonic() - start < WATCHDOG_S + 0.5
    # the next program is not blamed for it
    with dome.light(2) as led:
        led.set(1.0)
        assert dome.burns({2: 255})


def test_a_program_that_hangs_does_not_burn_for_ever(emulated, monkeypatch):
    monkeypatch.setattr(shared, "UNATTENDED_S", 0.1)
    with emulated.light() as led:
        led.set(1.0)
        until(lambda: not emulated.burning)
        with pytest.raises(DeviceError, match=r"led0: .*: nothing was asked of its lights for 0\.1 s"):
            led.confirm()
        led.set(1.0)
        assert emulated.burning


# ---------------------------------------------------------------- opening


def test_opening_waits_for_the_boot_that_it_causes(emulated):
    emulated.controller.reset(boot_s=0.2)
    start = time.monotonic()
    with emulated.light() as led:
        assert 0.2 <= time.monotonic() - start < 2.0
        assert emulated.requests("ID") == ["ID"] * 2, "some bootloaders start nothing while bytes come"
        led.set(1.0)
        assert emulated.burning


def test_a_boot_that_comes_late_is_no_fault(dome):
    """A reset line with a capacitor, or a port that is told of the opening after the fact."""
    with dome.light() as led:
        dome.reset()
        time.sleep(0.05)
        led.set(1.0)
        assert dome.requests("WDT") == [f"WDT {WATCHDOG_S * 1000:.0f}"] * 2
        led.confirm()
        assert dome.burns({0: 255})


def test_what_an_earlier_program_left_is_ended(emulated):
    for request in ((1, "WDT", 60000), (2, "SEQ", 0, 3, 0, 255), (3, "ARM", 1)):
        emulated.controller.receive(encode(*request), time.monotonic())
    assert emulated.burning == {0: 255}
    with emulated.light() as led:
        assert emulated.burning == {}
        assert emulated.controller.watchdog_s == WATCHDOG_S
        led.set(1.0)
        assert emulated.burning == {0: 255}


@pytest.mark.parametrize("event", [b"MAXON 3", b"WDT", b"LOCK", b"END 4", b"NEWS"])
def test_what_is_still_told_of_an_earlier_program_does_no_harm(emulated, event):
    """It may have been on its way while the port was opened."""
    emulated.wire.faults.fate = lambda request: (
        (emulated.wire.inject(b"!%b*%04X\n" % (event, checksum(event))) if request == "ID" else None) or ""
    )
    with emulated.light() as led:
        led.set(1.0)
        led.confirm()
        assert emulated.burning == {0: 255}


def test_another_protocol_and_no_dome_at_all(make_emulated):
    with pytest.raises(DeviceError, match=r"^led0: .*: emulated speaks protocol 2, this driver 1: flash"):
        make_emulated(protocol=2).light().__enter__()
    deaf = make_emulated()
    deaf.controller.silent = True
    start = time.monotonic()
    with pytest.raises(DeviceLost, match=r"^led0: /dev/.*: no answer within 0\.3 s: has it power"):
        deaf.light().__enter__()
    assert time.monotonic() - start < 2.0


def test_a_wrong_rate_is_told(emulated):
    with pytest.raises(DeviceLost, match=r"no answer within 0\.3 s: .*is baud\?"):
        emulated.light(baud=9600).__enter__()
    with emulated.light() as led:
        led.set(1.0)


def test_a_device_that_talks_all_the_time_is_no_dome(emulated):
    emulated.controller.silent = True
    enough = threading.Event()

    def talk():
        while not enough.wait(0.001):
            emulated.wire.inject(b"$GPGGA,092751.000,5321.6802,N,00630.3371,W*6E\r\n" * 4)

    receiver = threading.Thread(target=talk)
    receiver.start()
    try:
        start = time.monotonic()
        with pytest.raises(DeviceLost, match="what comes is unreadable"):
            emulated.light().__enter__()
        assert time.monotonic() - start < 2.0
    finally:
        enough.set()
        receiver.join()
