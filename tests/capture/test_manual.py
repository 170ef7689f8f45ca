"""Devices that are a person or a scene: lamps and poses changed by hand, those of the twin."""

import io
from contextlib import closing

import pytest
from capture_fakes import CAMERA, LIGHT, NAMES, RIG, FakeScene, open_fake_rig, small_plan
from test_drivers import person

from capture.devices import DeviceError, DeviceLost, FrameLost, Operator, SettingRefused
from capture.drivers.manual import ManualLight, ManualLightConfig, Terminal, TerminalOperator
from capture.drivers.simulated import SimulatedCamera, SimulatedOperator
from capture.runner import run
from capture.session import Session


def test_faults_of_the_scene_are_those_of_the_device():
    scene = FakeScene()
    with SimulatedCamera("main", CAMERA, scene) as camera:
        for error in (FrameLost("main", "x"), SettingRefused("main", "x"), DeviceLost("main", "x")):

            def fault(name, exposure_s, error=error):
                raise error

            scene.fault = fault
            with pytest.raises(type(error)):
                camera.expose(0.01, 0.0, 1.0)


def test_simulated_operator_shows_and_announces():
    scene, said = FakeScene(), []
    operator = SimulatedOperator(scene, said.append)
    assert isinstance(operator, Operator)
    operator.show("cap", "put the cap on")
    assert (scene.pose, said) == ("cap", ["put the cap on"])


def test_the_person_is_asked_only_for_changes():
    terminal = person()
    with ManualLight("lamp", LIGHT, "move the lamp to mark 3", terminal) as light:
        for level in (0.0, 0.5, 0.5, 1.0, 0.0, 0.0):
            light.set(level)
    assert terminal._writing.getvalue().splitlines() == [
        "move the lamp to mark 3 at 50%, then press Enter",
        "move the lamp to mark 3, then press Enter",
        "switch off lamp, then press Enter",
    ]


def test_nobody_at_the_terminal_is_a_clear_error():
    deaf = Terminal(io.StringIO("\n"), io.StringIO())
    with ManualLightConfig(instruction="aim the lamp").open("lamp") as light:
        light._terminal = deaf
        with pytest.raises(
            DeviceError, match="lamp: cannot ask a person to 'aim the lamp': standard input is"
        ):
            light.set(1.0)
    with pytest.raises(DeviceError, match="operator: cannot ask a person to 'cap on'"):
        TerminalOperator(deaf).show("cap", "cap on")
    with pytest.raises(DeviceError, match="operator: nobody answers: standard input has ended"):
        TerminalOperator(person(answers=0)).show("cap", "cap on")


def test_the_operator_waits_for_enter():
    terminal = person(answers=1)
    operator = TerminalOperator(terminal)
    assert isinstance(operator, Operator)
    operator.show("cap", "put the cap on")
    assert terminal._writing.getvalue() == "put the cap on, then press Enter\n"
    with pytest.raises(DeviceError, match="nobody answers"):
        operator.show("cap", "put the cap on")


def test_a_person_switches_lamps_for_a_whole_run(tmp_path):
    """Hand-moved lights and poses in the plan of any rig."""
    terminal = person()
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    with open_fake_rig(FakeScene()) as rig:
        lamps = {name: ManualLight(name, LIGHT, terminal=terminal) for name in NAMES}
        for lamp in lamps.values():
            lamp.__enter__()
        rig.lights, rig.operator = lamps, TerminalOperator(terminal)
        with closing(run(session.plan, rig, session)) as events:
            list(events)
        for lamp in lamps.values():
            lamp.__exit__(None, None, None)
    said = terminal._writing.getvalue().splitlines()
    assert said[0] == "put 'relief' in view, then press Enter"
    assert said[1] == "switch on led1, then press Enter"
    assert said[-1] == "put the cap on, then press Enter"
    assert len(said) == 2 + 2 * 8
