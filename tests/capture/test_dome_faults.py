"""The dome's driver when things go wrong, on the Python emulator and on the firmware."""

import threading
import time
from contextlib import ExitStack, closing
from types import SimpleNamespace

import pytest
from capture_fakes import CAMERA, RIG, BurstCamera, FakeScene, small_plan
from dome_counterparts import WATCHDOG_S, Emulated, Firmware, until
from dome_wire import Faults, fates

from capture.devices import DeviceError, DeviceLost
from capture.drivers.dome import controller as controller_module
from capture.drivers.simulated import SimulatedCamera, SimulatedOperator
from capture.runner import run
from capture.session import Session

pytestmark = pytest.mark.usefixtures("short_times")


@pytest.fixture
def impatient(monkeypatch):
    """A controller that is quick to miss the program."""
    monkeypatch.setattr(controller_module, "WATCHDOG_S", 0.15)


# ---------------------------------------------------------------- accidents of the controller


def test_a_reset_is_told_once_and_what_should_burn_burns_again(dome):
    with dome.lights(0, 1) as (first, second):
        first.set(1.0)
        dome.reset()
        time.sleep(0.05)
        assert dome.burns({})
        with pytest.raises(
            DeviceError, match=r"^led1: .*: was reset \(its reset line\): its .* dark$"
        ) as told:
            second.set(0.5)
        assert not isinstance(told.value, DeviceLost)
        second.set(0.5)
        assert dome.burns({0: 255, 1: 128})
        second.confirm()
        first.set(0.0)
        assert dome.burns({1: 128})


@pytest.mark.parametrize("fate", ["reset", "reset after"])
def test_a_reset_in_the_middle_of_a_command_fails_it(emulated, fate):
    with emulated.light() as led:
        emulated.wire.faults.fate = fates("SET", fate)
        with pytest.raises(DeviceError, match=r"was reset \(its reset line\)"):
            led.set(1.0)
        assert emulated.burning == {}
        led.set(1.0)
        assert emulated.burning == {0: 255}
        emulated.wire.faults.fate = fates("SET", fate)
        led.set(0.0)
        assert emulated.burning == {}


def test_a_command_that_arrives_after_the_boot_lights_nothing(emulated):
    """The controller boots, and reads what was sent before the host could know."""
    with emulated.light() as led:
        emulated.wire.faults.fate = fates("SET", "boot and do")
        with pytest.raises(DeviceError, match="was reset"):
            led.set(1.0)
        assert emulated.burning == {}
        assert emulated.done("SET", "OFF")[-2:] == ["SET 0 255", "OFF"]


def test_a_light_whose_setting_fails_is_not_lit_by_that_of_another(emulated):
    with emulated.lights(0, 1) as (first, second):
        first.set(1.0)
        emulated.reset()
        with pytest.raises(DeviceError, match="was reset"):
            first.set(0.5)
        second.set(1.0)
        assert emulated.burning == {1: 255}


def test_a_reset_that_nobody_told_of_is_found(emulated):
    """The event itself was lost: the status tells."""
    with emulated.light() as led:
        led.set(1.0)
        emulated.controller.reset()
        emulated.controller.take()
        until(lambda: led.sequencer.controller._dark)
        with pytest.raises(DeviceError, match="does not burn what it was told to: it was reset"):
            led.confirm()
        led.set(1.0)
        assert emulated.burning == {0: 255}


def test_a_missed_keep_alive_is_told_once_and_cleared(dome, impatient):
    with dome.lights(0, 1) as (first, second):
        first.set(1.0)
        with first.sequencer.controller._lock:  # a computer that is too busy
            until(lambda: not dome.burning)
        second.set(0.0)
        with pytest.raises(
            DeviceError, match=r"^led1: .*: heard nothing for 0\.15 s and made its lights dark"
        ):
            second.set(1.0)
        assert dome.burns({})
        assert dome.requests("CLR") == []
        second.set(1.0)
        assert dome.burns({0: 255, 1: 255})
        second.set(0.5)
        assert dome.requests("CLR") == ["CLR"]


def test_a_trip_between_two_frames_is_told_to_who_asks(dome, impatient):
    with dome.light() as led:
        led.set(1.0)
        led.confirm()
        with led.sequencer.controller._lock:
            until(lambda: not dome.burning)
            time.sleep(0.02)
        with pytest.raises(DeviceError, match="heard nothing"):
            led.confirm()
        led.confirm()


def test_a_reset_that_is_not_told_yet_is_asked_for(emulated):
    """A bootloader keeps quiet for a second, and frames taken meanwhile are dark."""
    with emulated.light() as led:
        led.set(1.0)
        emulated.wire.faults = Faults(delay_s=0.1)
        emulated.reset()
        time.sleep(2 * controller_module.FRESH_S)
        with pytest.raises(DeviceError, match="was reset"):
            led.confirm()


def test_a_reset_that_nobody_tells_of_is_found_by_who_asks(emulated):
    """It may have booted, and lost its event: that it answers says nothing of what burns."""
    with emulated.light() as led:
        led.set(1.0)
        time.sleep(2 * controller_module.FRESH_S)
        with led.sequencer.controller._lock:
            emulated.controller.reset()
            emulated.controller.take()
            with pytest.raises(DeviceError, match="does not burn what it was told to: it was reset"):
                led.confirm()


def test_lights_in_a_row_are_asked_after_once(emulated, monkeypatch):
    monkeypatch.setattr(controller_module, "FRESH_S", 0.2)
    with emulated.lights(0, 1) as lights:
        for light in lights:
            light.set(1.0)
        with lights[0].sequencer.controller._lock:
            before = len(emulated.done("STAT"))
            for light in lights:
                light.confirm()
            assert len(emulated.done("STAT")) - before == 1


def test_what_was_told_of_a_frame_is_not_taken_for_the_next(emulated, monkeypatch):
    """Frames of a burst come faster than what is known goes stale."""
    monkeypatch.setattr(controller_module, "FRESH_S", 10.0)
    with emulated.lights(0, 1) as lights:
        for light in lights:
            light.set(1.0)
        for light in lights:
            light.confirm()
        with lights[0].sequencer.controller._lock:
            emulated.controller.reset()
            emulated.controller.take()
            with pytest.raises(DeviceError, match="does not burn"):
                lights[0].confirm()


def test_too_hot(dome):
    with dome.light() as led:
        led.set(1.0)
        dome.heat()
        until(lambda: not dome.burning)
        with pytest.raises(
            DeviceError, match=r"too hot \(\d+(\.\d)? °C\), its lights went dark: let it cool"
        ):
            led.set(1.0)
        with pytest.raises(DeviceError, match=r"refuses (SET|CLR): too hot"):
            led.set(1.0)
        led.set(0.0)
        assert dome.burns({})
        dome.cool()

        def cooled():
            try:
                led.set(1.0)
            except DeviceError:
                return False
            return True

        until(cooled)
        assert dome.burns({0: 255})


def test_a_trip_whose_event_was_damaged_is_found_by_who_asks(emulated):
    wire = emulated.wire
    deliver = wire._back
    wire._back = lambda data: deliver(data.replace(b"!TEMP", b"!TAMP"))
    with emulated.light() as led:
        led.set(1.0)
        emulated.heat()
        until(lambda: led.sequencer.controller._exchange._link._serial.in_waiting > 0)
        time.sleep(0.01)
        with pytest.raises(DeviceError, match=r"too hot \(71\.5 °C\), its lights went dark"):
            led.confirm()


def test_burning_for_too_long():
    with ExitStack() as stack:
        dome = Emulated(stack, max_on_ms=50)
        led = stack.enter_context(dome.light())
        led.set(1.0)
        until(lambda: not dome.burning)
        with pytest.raises(DeviceError, match=r"channel 0 burnt longer or more often than"):
            led.set(1.0)
        led.set(1.0)
        assert dome.burning


def test_a_trip_in_the_middle_of_a_sequence_fails_it(dome, impatient):
    with dome.light() as led:
        led.sequencer.arm([({"led0": 1.0}, 10)])
        dome.end_exposures(2)
        with led.sequencer.controller._lock:
            until(lambda: not dome.burning)
        with pytest.raises(DeviceError, match=r"^led0: .*: heard nothing"):
            led.sequencer.stop()
        led.sequencer.arm([({"led0": 1.0}, 1)])
        dome.end_exposures()
        assert led.sequencer.stop() == 1


def test_a_reset_in_the_middle_of_a_sequence_fails_it(dome):
    with dome.light() as led:
        led.sequencer.arm([({"led0": 1.0}, 10)])
        dome.reset()
        time.sleep(0.05)
        with pytest.raises(DeviceError, match=r"^led0: .*: was reset"):
            led.sequencer.stop()


@pytest.mark.parametrize("event", ["DONE", "END"])
def test_the_end_is_known_where_its_event_is_lost(emulated, impatient, event):
    wire = emulated.wire
    deliver = wire._back
    wire._back = lambda data: None if data.startswith(f"!{event}".encode()) else deliver(data)
    with emulated.light() as led:
        if event == "DONE":
            led.sequencer.controller.fire(0, 255, 0.0, 0.01)
            assert emulated.pulses == 1
        else:
            led.sequencer.arm([({"led0": 1.0}, 2)])
            emulated.end_exposures(2)
            until(lambda: not led.sequencer.controller.burning)
            assert led.sequencer.stop() == 2
        led.set(1.0)
        assert emulated.burning == {0: 255}


def test_an_end_that_comes_together_with_the_reply_is_not_waited_for(emulated, monkeypatch):
    monkeypatch.setattr(controller_module, "REPLY_S", 5.0)
    wire, held = emulated.wire, []
    deliver = wire._back

    def hold(data):
        held.append(data)
        if data.startswith(b"!DONE"):
            deliver(b"".join(held))

    with emulated.light() as led:
        wire._back = hold
        start = time.monotonic()
        led.sequencer.controller.fire(0, 255, 0.0, 1e-4)
        assert time.monotonic() - start < 2.0
        wire._back = deliver


# ---------------------------------------------------------------- the end of the cable


def test_the_cable_is_pulled_in_the_middle_of_a_command(dome):
    def work():
        with dome.lights(0, 1) as (first, second):
            first.set(1.0)
            dome.wire.faults.fate = fates("SET", "unplug")
            second.set(1.0)

    start = time.monotonic()
    with pytest.raises(
        DeviceLost, match=r"^led1: /dev/pts/\d+: the cable was pulled, or the device lost power"
    ):
        work()
    assert time.monotonic() - start < 1.0
    if isinstance(dome, Firmware):
        until(lambda: not dome.burning, WATCHDOG_S + 1.0)


def test_a_cable_that_is_pulled_between_two_frames(emulated):
    led = emulated.light().__enter__()
    led.set(1.0)
    emulated.wire.unplug()
    until(lambda: led.sequencer.controller._exchange.lost is not None)
    with pytest.raises(DeviceLost, match=r"^led0: .*: the cable was pulled") as told:
        led.confirm()
    led.__exit__(DeviceLost, told.value, None)


def test_a_controller_that_falls_silent_is_lost_at_once_and_for_all(emulated):
    def work():
        with emulated.lights(0, 1, 2, 3) as leds:
            leds[0].set(1.0)
            emulated.controller.silent = True
            with pytest.raises(DeviceLost, match=r"^led1: .*: no answer within 0\.3 s: has it power"):
                leds[1].set(1.0)
            start = time.monotonic()
            for led in leds:
                with pytest.raises(DeviceLost, match="no answer"):
                    led.set(0.0)
            assert time.monotonic() - start < 1.0

    start = time.monotonic()
    with pytest.raises(DeviceLost, match=r"^led3: MAY STILL BURN"):
        work()
    assert time.monotonic() - start < 3.0


def test_off_is_sent_on_closing_though_the_controller_counts_as_lost(emulated):
    def work():
        with emulated.lights(0, 1) as leds:
            leds[0].set(1.0)
            emulated.controller.watchdog_s = 60
            emulated.controller.silent = True
            with pytest.raises(DeviceLost):
                leds[1].set(1.0)
            emulated.controller.silent = False
            assert emulated.burning == {0: 255}
            raise DeviceError("camera", "gone")

    with pytest.raises(DeviceError, match="camera: gone"):
        work()
    assert emulated.burning == {}


# ---------------------------------------------------------------- a run


def test_a_run_goes_on_after_a_reset_and_a_trip(dome, tmp_path):
    """Each fault costs one attempt: every shot is taken with its own light, and all is dark afterwards."""
    plan = small_plan()
    plan = plan.replace(blocks=(plan.blocks[0].replace(repeats=1),))
    channels = {f"led{number + 1}": number for number in range(4)}
    seen = []

    def look(camera, exposure_s):
        frame = len(seen)
        seen.append(None)
        until(lambda: len(dome.burning) == 1)
        seen[frame] = next(iter(dome.burning))
        if frame == 2:
            dome.reset()
            time.sleep(0.05)
        elif frame == 5:
            with lights["led2"].sequencer.controller._lock:
                until(lambda: not dome.burning)
            time.sleep(0.05)  # readout: the event is on its way

    with ExitStack() as stack:
        lights = {name: stack.enter_context(dome.light(channel, name)) for name, channel in channels.items()}
        scene = FakeScene(fault=look)
        camera = stack.enter_context(SimulatedCamera("main", CAMERA, scene))
        rig = SimpleNamespace(cameras={"main": camera}, lights=lights, operator=SimulatedOperator(scene))
        session = Session.create(tmp_path / "session", plan, RIG)
        with closing(run(plan, rig, session)) as events:
            list(events)
    assert dome.burns({})
    assert session.skipped == ()
    attempts = [1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    assert [record.attempts for record in session.frames] == attempts
    taken = [shot for shot, times in zip(plan.shots(), attempts, strict=True) for _ in range(times)]
    assert seen == [channels[shot.light] for shot in taken]


def test_a_run_in_sequences_survives_a_reset(dome, tmp_path):
    """The camera steps the lights of the controller; what a reset spoils is taken again."""
    plan = small_plan()
    plan = plan.replace(blocks=(plan.blocks[0].replace(repeats=1),))
    seen = []

    def look(camera, exposure_s):
        if len(seen) == 5:
            dome.reset()
            time.sleep(0.05)
        seen.append(tuple(dome.burning))
        dome.end_exposures()

    limits = CAMERA.replace(sequence=True)
    with ExitStack() as stack:
        lights = {
            f"led{channel + 1}": stack.enter_context(dome.light(channel, f"led{channel + 1}", sequence=True))
            for channel in range(4)
        }
        scene = FakeScene(fault=look)
        camera = stack.enter_context(BurstCamera("main", limits, scene))
        rig = SimpleNamespace(cameras={"main": camera}, lights=lights, operator=SimulatedOperator(scene))
        session = Session.create(tmp_path / "session", plan, RIG)
        with closing(run(plan, rig, session)) as events:
            list(events)
    assert dome.burns({})
    assert session.skipped == ()
    assert seen[-12:] == [(int(shot.light[3:]) - 1,) for shot in plan.shots()]
    assert {record.attempts for record in session.frames} == {2}
    assert dome.requests("ARM")


def test_many_threads_may_use_the_lights_of_a_controller(emulated):
    with emulated.lights(0, 1) as leds:
        failures = []

        def blink(led):
            try:
                for _ in range(30):
                    led.set(1.0)
                    led.set(0.0)
            except DeviceError as error:
                failures.append(error)

        threads = [threading.Thread(target=blink, args=(led,)) for led in leds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
    assert len(emulated.done("SET")) == 2 * 60 + 2
