"""The dome's driver on a bad line: every request is done once, or reported as failed."""

import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from dome_counterparts import Firmware, until
from dome_wire import Faults, fates

from capture.devices import DeviceError, DeviceLost, SettingRefused
from capture.drivers.dome import exchange as exchange_module

pytestmark = pytest.mark.usefixtures("short_times")


@pytest.mark.parametrize("fate", ["lose", "lose reply", "damage", "damage reply"])
def test_what_gets_lost_is_sent_again_and_done_once(dome, fate):
    with dome.light() as led:
        dome.wire.faults.fate = fates("FIRE", fate, "", fate)
        for _ in range(2):
            led.sequencer.controller.fire(0, 255, 0.0, 0.001)
        until(lambda: dome.pulses == 2)
        time.sleep(0.01)
        assert dome.pulses == 2
        assert len(dome.requests("FIRE")) >= 4
        assert len(set(dome.requests("FIRE"))) == 1
        again = [text for text in dome.wire.requests if text[3:].startswith("FIRE")]
        assert len({text[:2] for text in again}) == 2, "a retry has the number of its request"


def test_thousands_of_commands_are_done_once_each_or_reported_as_failed(emulated):
    """1 % of the lines damaged, either way."""
    asked, failed = [], 0
    with emulated.light(0, settle_s=0) as led:
        emulated.wire.faults = faults = Faults(damage=0.01, seed=1)
        controller = led.sequencer.controller
        done = len(emulated.done("SET"))
        for number in range(3000):
            channel, level = number % 2, 1 + number % 255
            try:
                controller.light(channel, level)
            except DeviceError:
                failed += 1
            else:
                asked.append(f"SET {channel} {level}")
        emulated.wire.faults = Faults()
        assert failed == 0
        assert emulated.done("SET")[done:] == asked
    assert faults.damaged >= 40


@pytest.mark.parametrize(("fate", "done"), [("lose", 0), ("lose reply", 1)])
def test_what_cannot_be_told_is_reported_and_done_once_at_most(emulated, fate, done):
    with emulated.light() as led:
        emulated.wire.faults.fate = fates("SET 0 99", *[fate] * 1000)
        with pytest.raises(DeviceLost, match=r"no answer within 0\.3 s"):
            led.sequencer.controller.light(0, 99)
        assert len(emulated.requests("SET")) > 3
        assert emulated.done("SET") == ["SET 0 99"] * done
        with pytest.raises(DeviceLost, match="no answer"):
            led.confirm()
    assert emulated.burning == {}
    assert emulated.done("OFF") == ["OFF"] * 2


def test_a_controller_has_its_tries_however_busy_the_computer_is(emulated, monkeypatch):
    """More time passes at every try than a request may take, of which this program saw little."""
    with emulated.light() as led:
        late_s = [0.0]
        passing = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s[0], sleep=time.sleep)
        link = led.sequencer.controller._exchange._link
        write = link.write

        def write_late(data):
            write(data)
            late_s[0] += 2 * exchange_module.REQUEST_S

        emulated.wire.faults.fate = fates("SET 0 99", "lose", "lose reply", "lose")
        with monkeypatch.context() as patch:
            patch.setattr(exchange_module, "time", passing)
            patch.setattr(link, "write", write_late)
            led.sequencer.controller.light(0, 99)
        assert emulated.done("SET") == ["SET 0 99"]


def test_commands_of_the_firmware_are_done_once_each_on_a_bad_line():
    with ExitStack() as stack:
        dome = Firmware(stack)
        controller = stack.enter_context(dome.light()).sequencer.controller
        dome.wire.faults = faults = Faults(damage=0.1, seed=3)
        for _ in range(60):
            controller.fire(0, 255, 0.0, 0.0005)
        dome.wire.faults = Faults()
        until(lambda: dome.pulses == 60)
        assert controller.status().damaged > 0
        assert faults.damaged > 20
        assert dome.pulses == 60


def test_replies_that_come_late_are_not_taken_for_those_to_the_next(emulated):
    with emulated.light() as led:
        emulated.wire.faults.delay_s = 0.08
        for level in (1.0, 0.5, 0.2):
            led.set(level)
            assert emulated.burning == {0: round(255 * level)}
        emulated.wire.faults.delay_s = 0.0


def test_bytes_out_of_nowhere_do_no_harm(dome):
    with dome.light() as led:
        for junk in (b"\x00\xff\xfe", b"<", b"!BOOT P*0000\n", b"<00 OK\n", b"x" * 300, b"\n\n"):
            dome.wire.inject(junk)
            led.set(1.0)
            led.confirm()
            assert dome.burns({0: 255})


def test_a_refusal_is_one_clear_line(emulated):
    with emulated.light() as led:
        emulated.wire.faults.fate = fates("SET", "ERR 8 interlock")
        with pytest.raises(DeviceError, match=r"^led0: .*: refuses SET: its interlock is open: close it$"):
            led.set(1.0)
        led.set(1.0)
        assert emulated.burning == {0: 255}


def test_what_is_refused_leaves_as_it_was_what_burns(emulated):
    with emulated.lights(0, 1) as (first, second):
        first.set(1.0)
        emulated.wire.faults.fate = fates("SET", "ERR 9 duty")
        with pytest.raises(SettingRefused, match=r"beyond a limit \(duty\)"):
            first.set(0.5)
        emulated.reset()
        with pytest.raises(DeviceError, match="was reset"):
            second.set(1.0)
        second.set(1.0)
        assert emulated.burning == {0: 255, 1: 255}


def test_a_damaged_request_is_sent_again_at_once(emulated, monkeypatch):
    monkeypatch.setattr(exchange_module, "REPLY_S", 5.0)
    with emulated.light() as led:
        emulated.wire.faults.fate = fates("SET", "damage", "damage reply")
        start = time.monotonic()
        led.set(1.0)
        assert time.monotonic() - start < 2.0
        assert emulated.done("SET") == ["SET 0 255"]
