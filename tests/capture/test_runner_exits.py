"""Lights that fail, and lights that are dark however a run ends."""

import os
import signal
import threading
import time
from contextlib import closing

import pytest
from capture_fakes import (
    LIGHT,
    NAMES,
    FakeScene,
    failing,
    open_fake_rig,
    take,
)

from capture.devices import DeviceError, DeviceLost
from capture.drivers.simulated import SimulatedLight
from capture.runner import exit_on_sigterm, run
from capture.session import Session


class FaultyLights(FakeScene):
    """``refuse(name, level, count)`` says whether a light fails to follow for the ``count``-th time."""

    refuse = staticmethod(lambda name, level, count: False)

    def set_light(self, name, level):
        self.counts = getattr(self, "counts", {})
        key = (name, level > 0)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.refuse(name, level, self.counts[key]):
            self.calls.append(("refused", name, level))
            raise DeviceError(name, "no answer")
        super().set_light(name, level)


def test_a_light_that_stumbles_is_set_again(session):
    scene = FaultyLights()
    scene.refuse = lambda name, level, count: name == "led2" and level > 0 and count <= 2
    events = take(session, scene)
    assert [event.record.attempts for event in events[2:5]] == [1, 3, 1]
    assert session.skipped == ()


def test_a_light_that_goes_dark_by_itself_costs_the_frames_since(session):
    """It was set and has settled; that it tripped within the exposure only its controller knows."""
    tripped = []

    class Watched(SimulatedLight):
        def confirm(self):
            if tripped:
                tripped.clear()
                raise DeviceError(self.name, "has gone dark: too hot")

    scene = FakeScene()
    scene.fault = lambda *_: tripped.append(True) if scene.frames == 4 else None
    with open_fake_rig(scene) as rig:
        for name in NAMES:
            rig.lights[name] = Watched(name, LIGHT, scene)
            rig.lights[name].__enter__()
        with closing(run(session.plan, rig, session)) as events:
            for _ in events:
                pass
    again = [record for record in session.frames if record.attempts > 1]
    assert [(record.shot.index, record.reasons) for record in again] == [
        (4, ("led2: has gone dark: too hot",))
    ]
    lit = [call for call in scene.calls if call[0] == "light" and call[1:] == ("led2", 1.0)]
    assert len(lit) == 3  # once in each repeat, and once anew


def test_a_light_that_does_not_light_costs_its_shots_only(session):
    scene = FaultyLights()
    scene.refuse = lambda name, level, count: name == "led2" and level > 0
    take(session, scene)
    assert {record.shot.light for record in session.skipped} == {"led2"}
    assert len(session.skipped) == 6
    assert session.skipped[0].reason == "led2: no answer"
    assert session.done
    for image, light in zip(session.stack(), session.stack().lights, strict=True):
        assert image[0, 0] == (2 ** (int(light[3:]) - 1) if light else 0)


def test_a_light_that_does_not_go_dark_spoils_no_frame_and_is_told(session):
    scene = FaultyLights()
    scene.refuse = lambda name, level, count: name == "led2" and level == 0 and count > 1
    with open_fake_rig(scene) as rig:
        with pytest.raises(DeviceError, match="led2: MAY STILL BURN") as caught:
            list(run(session.plan, rig, session))
        assert "\n" not in str(caught.value)
        scene.refuse = lambda name, level, count: False
    assert scene.levels == dict.fromkeys(NAMES, 0.0)
    for image, light in zip(session.stack(), session.stack().lights, strict=True):
        assert image[0, 0] == (2 ** (int(light[3:]) - 1) if light else 0)


def test_a_controller_that_is_gone_is_told_once_whatever_hangs_on_it(session):
    scene = FakeScene()

    class Unplugged(SimulatedLight):
        def set(self, level):
            if scene.frames >= 3:
                raise DeviceLost(self.name, "/dev/dome: the cable was pulled")
            super().set(level)

    with open_fake_rig(scene) as rig:
        for name in NAMES:
            rig.lights[name] = Unplugged(name, LIGHT, scene).__enter__()
        with (
            pytest.raises(DeviceLost) as caught,
            closing(run(session.plan, rig, session)) as events,
        ):
            list(events)
    assert str(caught.value) == (
        f"{caught.value.device}: MAY STILL BURN, could not be turned dark: "
        "/dev/dome: the cable was pulled; the frames taken are safe: mend it, then resume"
    )
    assert set(caught.value.device.split(", ")) == set(NAMES)


def leave_by_return(events, scene):
    list(events)


def leave_by_closing(events, scene):
    next(events)
    events.close()


def leave_by_error_in_the_consumer(events, scene):
    if not scene.frames:
        next(events)
    raise ZeroDivisionError


def leave_by_interrupt(events, scene):
    scene.fault = failing(1, KeyboardInterrupt())
    list(events)


def leave_by_lost_camera(events, scene):
    scene.fault = failing(1, DeviceLost("main", "gone"))
    list(events)


def leave_by_bug(events, scene):
    scene.fault = failing(1, RuntimeError("bug"))
    list(events)


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


WAYS_OUT = [
    (leave_by_return, ()),
    (leave_by_closing, ()),
    (leave_by_error_in_the_consumer, ZeroDivisionError),
    (leave_by_interrupt, KeyboardInterrupt),
    (leave_by_lost_camera, DeviceLost),
    (leave_by_bug, RuntimeError),
]


@pytest.mark.parametrize(("leave", "error"), WAYS_OUT)
def test_lights_are_dark_after_any_exit(session, leave, error):
    scene = FakeScene()
    with open_fake_rig(scene) as rig:
        try:
            with closing(run(session.plan, rig, session)) as events:
                leave(events, scene)
        except error:
            pass
        assert scene.levels == dict.fromkeys(NAMES, 0.0)
    with Session.open(session.path).writer():
        pass


@pytest.mark.parametrize("stuck", NAMES)
@pytest.mark.parametrize(("leave", "error"), WAYS_OUT)
def test_one_failing_light_leaves_no_other_on(session, leave, error, stuck):
    """All four burn at once; one does not answer when they are to go dark."""
    scene = FaultyLights()

    def begin_then(leave, rig):
        with closing(run(session.plan, rig, session)) as events:
            next(events)
            scene.levels = dict.fromkeys(NAMES, 1.0)
            scene.refuse = lambda name, level, count: name == stuck and level == 0
            leave(events, scene)

    with open_fake_rig(scene) as rig:
        with pytest.raises(DeviceError, match=f"^{stuck}: MAY STILL BURN") as caught:
            begin_then(leave, rig)
        assert scene.levels == {name: float(name == stuck) for name in NAMES}
        if error:
            assert any(isinstance(former, error) for former in chain(caught.value))
        assert [call for call in scene.calls if call == ("refused", stuck, 0.0)][1:], "it is tried twice"
        scene.refuse = lambda name, level, count: False


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_impatient_second_ctrl_c_does_not_leave_lights_on(session, times):
    """The interrupts come while the first of four burning lights goes dark."""
    scene = FakeScene()
    with open_fake_rig(scene) as rig:
        events = run(session.plan, rig, session)
        next(events)
        scene.levels = dict.fromkeys(NAMES, 1.0)
        real = scene.set_light

        def interrupted(name, level):
            scene.set_light = real
            real(name, level)
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

        scene.set_light = interrupted
        before = len(scene.calls)
        with pytest.raises(KeyboardInterrupt):
            events.close()
        if times == 1:
            assert len(scene.calls) - before == len(NAMES), (
                "the first interrupt waits, so no light is set twice"
            )
        assert scene.levels == dict.fromkeys(NAMES, 0.0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_becomes_an_exit_and_the_handler_is_restored():
    before = signal.getsignal(signal.SIGTERM)

    def terminated():
        with exit_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(SystemExit) as caught:
        terminated()
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_program_that_handles_sigterm_itself_keeps_its_handler():
    def mine(*_):
        return None

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with exit_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_runs_outside_the_main_thread(session):
    result = []
    thread = threading.Thread(target=lambda: result.extend(take(session, FakeScene())))
    thread.start()
    thread.join(20)
    assert len(result) == 26
