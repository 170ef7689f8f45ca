"""Strobe controllers of Gardasoft against an emulator made after their manuals: none of it saw hardware."""

import time
from contextlib import contextmanager

import pytest
from light_counterparts import Serial, Strobes, Tcp, until

from capture.devices import DeviceError, DeviceLost, Identified, SettingRefused, StrobedLight
from capture.drivers import shared
from capture.drivers.gardasoft import GardasoftLightConfig
from capture.drivers.gardasoft import controller as controller_module
from capture.drivers.gardasoft.codec import Pulse, read_setting, steady


def light_of(far, name="led", **changes):
    config = {"port": far.port, "channel": 1, "settle_s": 0, "strobe": True} | changes
    return GardasoftLightConfig.model_validate(config).open(name)


@contextmanager
def controller(kind=Serial, **options):
    strobes = Strobes(**options)
    with kind(strobes) as far:
        yield strobes, far


def test_commands_as_the_manual_has_them():
    assert steady(2, 50) == "RS2,50"
    assert steady(1, 12.5) == "RS1,12.5"
    assert Pulse(75, 0.0002, 0.004).command(3) == "RT3,4,0.2,75"
    assert Pulse(300, 0.00002, 0.01).command(3) == "RT3,10,0.02,300,50"
    # a rest is a multiple of 0.1 ms, and no shorter than the duty allows
    assert Pulse(200, 0.0, 0.001).command(1) == "RT1,1,0,200,3.4"


@pytest.mark.parametrize(
    ("percent", "most"),
    [
        (100, (0.999, 0)),
        (100.1, (0.03, 0.1)),
        (300, (0.01, 0.05)),
        (500, (0.002, 0.02)),
        (999, (0.001, 0.02)),
    ],
)
def test_overdrive_is_short_and_rare(percent, most):
    longest_s = Pulse(percent, 0.0, 0.0).longest_s
    assert (longest_s, pytest.approx(Pulse(percent, 0.0, longest_s).rest_s)) == most


def test_what_a_channel_says_is_read_as_the_manual_has_it():
    """The examples of the PP420's manual, `ST`."""
    said = read_setting("CH 1, MD 2, IP 4, CS 0.100A, SE 75.0, DL 2.0us, PU 300.0us, RT 500.0us, FL 1")
    assert (said.percent, said.delay_s, said.duration_s) == pytest.approx((75, 2e-6, 3e-4))
    said = read_setting("CH 2, MD 0, IP 2, CS 0.100A, SE 25.8, DL 1.000ms, PU 1.000ms, RT 0.0us, FL 0")
    assert (said.percent, said.delay_s, said.duration_s) == pytest.approx((25.8, 1e-3, 1e-3))


@pytest.mark.parametrize(("kind", "echo"), [(Serial, True), (Serial, False), (Tcp, False)])
def test_lights_of_a_controller_burn_and_go_dark(kind, echo):
    with controller(kind, echo=echo) as (strobes, far):
        strobes.channels = dict.fromkeys((1, 2), ("RS", 60.0, ()))
        with light_of(far) as one, light_of(far, "two", channel=2, full_percent=80) as two:
            assert isinstance(one, StrobedLight)
            assert strobes.burning == {}
            one.set(0.125)
            two.set(1.0)
            assert strobes.burning == {1: 12.5, 2: 80}
            one.set(0.0)
            assert strobes.burning == {2: 80}
            one.set(1e-6)
            assert strobes.burning == {1: 0.1, 2: 80}
        assert strobes.burning == {}


@pytest.mark.parametrize("version", ["RT420-20 (HW02) V031", "PP420 (HW001) V002"])
def test_only_the_camera_triggers(version):
    with controller(version=version) as (strobes, far):
        strobes.triggers_itself = version.startswith("RT")
        with light_of(far) as light:
            assert isinstance(light, Identified)
            assert light.identity == {"model": version}
            assert not strobes.triggers_itself
            light.strobe(1.0, 0.0, 0.01)


def test_a_pulse_is_armed_in_the_dark_and_disarmed():
    with controller() as (strobes, far), light_of(far) as light:
        light.set(1.0)
        light.strobe(0.5, 0.001, 0.0028)
        assert strobes.channels[1] == ("RT", 50, (2.8, 1))
        light.set(0.0)
        assert strobes.channels[1] == ("RS", 0, ())
        light.strobe(1.0, 0.0, 0.01)
    assert strobes.channels[1] == ("RS", 0, ())


def test_an_overdriven_pulse_is_short_and_rests():
    with controller() as (strobes, far), light_of(far, pulse_percent=200) as light:
        with pytest.raises(SettingRefused, match=r"led: a pulse of 0\.031 s at 200 % may last 0\.03 s"):
            light.strobe(1.0, 0.0, 0.031)
        assert strobes.channels[1][0] == "RS"
        light.strobe(1.0, 0.0, 0.015)
        assert strobes.channels[1] == ("RT", 200, (15, 0.01, 50))
        start = time.monotonic()
        light.strobe(1.0, 0.0, 0.015)
        assert time.monotonic() - start >= 0.05
        light.strobe(0.5, 0.0, 0.2)
        assert strobes.channels[1] == ("RT", 100, (200, 0.01))


def test_a_time_that_the_controller_has_changed_is_told_unless_it_is_the_shortest_delay():
    with controller() as (strobes, far), light_of(far) as light:
        with pytest.raises(
            SettingRefused,
            match=r"led: was told 100 %, 0\.005 ms long after 1 ms, and is set to 100 %, 0\.01 ms",
        ):
            light.strobe(1.0, 0.001, 5e-6)
        light.strobe(1.0, 0.0, 0.001)
        assert strobes.channels[1] == ("RT", 100, (1, 0.01))
        strobes.faults = {"RT": "Err 5", "ST": "SE 100.0"}
        with pytest.raises(SettingRefused, match="set to 100 %"):
            light.strobe(1.0, 0.0, 0.001)


@pytest.mark.parametrize(
    ("faults", "error", "told"),
    [
        ({"RS": "Err 1"}, SettingRefused, r"led: refuses RS1,100: a value is not allowed \(error 1\)"),
        ({"RS": "Err 2"}, DeviceError, "the command is not known"),
        ({"RS": "Err 77"}, DeviceError, r"see its manual \(error 77\)"),
        ({"GR": "Err 45"}, DeviceError, "led: reports 'Err 45': see its manual"),
        ({"GR": "Evt1,18"}, DeviceError, "led: reports 'Evt1,18'"),
        ({"ST": "CH 1, MD 0, SE 75.0"}, SettingRefused, "led: was told 100 %, and is set to 75 %"),
    ],
)
def test_what_the_controller_refuses_is_told(faults, error, told):
    with controller() as (strobes, far), light_of(far) as light:
        strobes.faults = faults
        with pytest.raises(error, match=told):
            light.set(1.0)
        strobes.faults = {}
        light.set(1.0)


@pytest.mark.parametrize("faults", [{"GR": ""}, {"ST": "whatever"}])
def test_other_firmware_may_say_less(faults):
    with controller() as (strobes, far):
        strobes.faults = faults
        with light_of(far) as light:
            light.set(1.0)
            assert strobes.burning == {1: 100}


def test_an_error_from_before_is_nobodys_fault():
    with controller() as (strobes, far):
        strobes.errors = ["Err 45"]
        with light_of(far) as light:
            light.set(1.0)
            strobes.errors = ["Err 46"]
            with pytest.raises(DeviceError, match="led: reports 'Err 46'"):
                light.confirm()
            light.confirm()


def test_what_is_no_controller_is_told(monkeypatch):
    told = pytest.raises(DeviceError, match="led: answers VR with 'ERROR': is it a Gardasoft RT or PP")
    with controller(version="ERROR") as (_, far), told:
        light_of(far).__enter__()
    told = pytest.raises(DeviceError, match=r"answers VR with 'CC320 \(HW01\) V003'")
    with controller(version="CC320 (HW01) V003") as (strobes, far):
        with told:
            light_of(far).__enter__()
        assert strobes.commands == ["VR"]
    monkeypatch.setattr(controller_module, "_REPLY_S", 0.05)
    with Serial(lambda data: b"") as far, pytest.raises(DeviceLost, match=r"led: no answer within 0\.05 s"):
        light_of(far).__enter__()


def test_a_channel_belongs_to_one_light():
    with controller() as (strobes, far), light_of(far, "a") as light:
        light.set(1.0)
        with pytest.raises(ValueError, match="light b: channel 1 is that of light a"):
            light_of(far, "b").__enter__()
        assert strobes.burning == {1: 100}


def test_the_connection_is_kept_open_and_the_program_watched(monkeypatch):
    monkeypatch.setattr(controller_module, "_IDLE_S", 0.06)
    with controller(Tcp) as (strobes, far), light_of(far) as light:
        light.set(1.0)
        before = len(strobes.commands)
        until(lambda: len(strobes.commands) > before + 2)
        assert set(strobes.commands[before:]) == {"VR"}
        monkeypatch.setattr(shared, "UNATTENDED_S", 0.05)
        until(lambda: not strobes.burning)
        with pytest.raises(DeviceError, match="led: nothing was asked of its lights"):
            light.set(1.0)


def test_a_dropped_connection_is_made_anew_and_told_of():
    with controller(Tcp) as (strobes, far):
        with light_of(far) as light, light_of(far, "two", channel=2) as two:
            light.set(1.0)
            strobes.channels.clear()
            far.drop()
            with pytest.raises(DeviceError, match="two: the connection was lost and made anew"):
                two.set(0.5)
            assert far.clients == 2
            assert strobes.burning == {1: 100, 2: 50}
            two.set(0.25)
        assert strobes.burning == {}


def test_a_lost_controller_is_told_to_burn(monkeypatch):
    monkeypatch.setattr(controller_module, "_REPLY_S", 0.05)
    with controller() as (_, far):
        light = light_of(far).__enter__()
        light.set(1.0)
        far.unplug()
        for _ in range(2):
            with pytest.raises(DeviceLost, match="led: "):
                light.set(0.0)
        with pytest.raises(DeviceLost, match="led: MAY STILL BURN"):
            light.__exit__(None, None, None)
    with controller() as (_, far):
        light = light_of(far).__enter__()
        far.unplug()
        light.__exit__(DeviceLost, DeviceLost("camera", "gone"), None)


def test_a_lost_reply_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(controller_module, "_REPLY_S", 0.05)
    with controller() as (strobes, far), light_of(far) as light:
        strobes.faults = {"RS": "silence"}
        with pytest.raises(DeviceLost, match="no answer"):
            light.set(1.0)
        strobes.faults = {}
        with pytest.raises(DeviceError, match="made anew"):
            light.set(1.0)
        light.set(1.0)
        assert strobes.burning == {1: 100}
