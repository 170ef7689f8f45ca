"""What a run does with devices that behave. Those that do not, and its exits: beside."""

import threading
import time
from contextlib import closing

import pytest
from capture_fakes import CAMERA, NAMES, BurstCamera, FakeScene, failing, open_fake_rig, small_plan, take

from capture.devices import DeviceError, FrameLost
from capture.drivers.simulated import SimulatedCamera
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.runner import RunControl, run
from capture.session import Session, SessionError, Writer


def test_events_come_in_order_once_on_disk(session):
    seen = []
    with open_fake_rig(FakeScene()) as rig, closing(run(session.plan, rig, session)) as events:
        for event in events:
            assert (session.path / event.record.file).exists()
            seen.append(event)
    assert [event.shot.index for event in seen] == list(range(26))
    assert [event.done for event in seen] == list(range(1, 27))
    assert {event.total for event in seen} == {26}
    assert seen[0].seconds_left > 0
    assert seen[-1].seconds_left == 0
    assert session.done
    with pytest.raises(AttributeError):
        seen[0].done = 3


@pytest.mark.parametrize("last_fails", [False, True])
def test_a_consumer_that_stops_at_the_last_event_has_a_finished_session(session, monkeypatch, last_fails):
    """Also when the disk is so fast that each frame is on it before the next is asked for."""
    written = Writer.written

    def at_once(writer):
        writer.flush()
        return written(writer)

    monkeypatch.setattr(Writer, "written", at_once)
    scene = FakeScene()
    if last_fails:
        scene.fault = failing(99, FrameLost("main", "incomplete"), lambda exposure_s: scene.frames == 25)
    with open_fake_rig(scene) as rig, closing(run(session.plan, rig, session)) as events:
        for event in events:
            if event.done == event.total:
                break
    assert session.done


def test_only_lights_that_must_change_are_changed(session):
    scene = FakeScene()
    take(session, scene)
    first = scene.calls.index(("expose", "main", 0.01))
    last = len(scene.calls) - 1 - scene.calls[::-1].index(("expose", "main", 0.01))
    changes = [call for call in scene.calls[first:last] if call[0] == "light"]
    # 8 times a light burns; each of the 7 changes is one off, one on; the last goes off for the cap
    assert len(changes) == 2 * 7 + 1
    assert [call for call in scene.calls if call[0] == "show"] == [("show", "relief"), ("show", "cap")]
    burning = set()
    for _, name, level in (call for call in scene.calls if call[0] == "light"):
        burning = burning | {name} if level else burning - {name}
        assert len(burning) <= 1, "the next light burns only once the last is dark"


def test_lights_are_dark_when_what_is_in_view_changes(session):
    scene = FakeScene()
    told = []
    with open_fake_rig(scene) as rig:

        class Operator:
            def show(self, pose, message):
                told.append((pose, message, sum(scene.levels.values())))
                scene.show(pose)

        rig.operator = Operator()
        with closing(run(session.plan, rig, session)) as events:
            list(events)
    assert told == [("relief", "put 'relief' in view", 0), ("cap", "put the cap on", 0)]


def test_a_resumed_run_shows_the_pose_again(session):
    scene = FakeScene()
    with open_fake_rig(scene) as rig, closing(run(session.plan, rig, session)) as events:
        next(events)
    taken = len(Session.open(session.path).frames)
    assert 0 < taken < 26
    again = FakeScene()
    events = take(Session.open(session.path), again)
    assert again.calls.index(("show", "relief")) < again.calls.index(("expose", "main", 0.01))
    assert events[0].done == taken + 1
    assert len(events) == 26 - taken
    assert Session.open(session.path).verify() == ()


def test_nothing_is_touched_when_nothing_is_pending(session):
    take(session, FakeScene())
    scene = FakeScene()
    with open_fake_rig(scene) as rig, closing(run(session.plan, rig, session)) as events:
        assert list(events) == []
        assert scene.calls == []


def test_bursts_take_what_one_camera_takes_under_the_same_lights(session):
    scene = FakeScene()
    with open_fake_rig(scene, BurstCamera) as rig, closing(run(session.plan, rig, session)) as events:
        list(events)
        assert rig.cameras["main"].bursts == [3] * 8 + [2]
    assert session.verify() == ()
    assert Session.open(session.path).done


def test_two_cameras_take_turns(tmp_path):
    block = Block(
        kinds="object",
        pose="x",
        cameras=("left", "right"),
        lights=LightSequence(names=("led1",)),
        bracket=ExposureBracket(exposures_s=(0.01, 0.02)),
    )
    session = Session.create(tmp_path / "s", CapturePlan(name="two", blocks=(block,)), {})
    scene = FakeScene()
    with open_fake_rig(scene) as rig, SimulatedCamera("l", CAMERA, scene) as left:
        rig.cameras = {"left": left, "right": rig.cameras["main"]}
        scene_of = {"left": FakeScene(), "right": FakeScene()}
        left._scene, rig.cameras["right"]._scene = scene_of["left"], scene_of["right"]
        with closing(run(session.plan, rig, session)) as events:
            order = [event.shot.camera for event in events]
    assert order == ["left", "right"] * 2
    assert len(session.stack("left")) == 2


def test_what_the_rig_has_not_is_refused_before_anything_moves(session, tmp_path):
    scene = FakeScene()
    with open_fake_rig(scene) as rig:
        other = small_plan().replace(name="other")
        with pytest.raises(SessionError, match=r'plan\.name was "small", is now "other"'):
            run(other, rig, session)
        rig.lights = {name: light for name, light in rig.lights.items() if name != "led3"}
        with pytest.raises(DeviceError, match="light 'led3' is not in the rig: did you mean"):
            run(session.plan, rig, session)
        rig.cameras = {}
        with pytest.raises(DeviceError, match="camera 'main' is not in the rig, which has none"):
            run(session.plan, rig, session)
        assert scene.calls == []


@pytest.mark.parametrize("camera", [SimulatedCamera, BurstCamera])
def test_pause_goes_dark_and_resume_goes_on(session, camera):
    control = RunControl()
    scene = FakeScene()
    with open_fake_rig(scene, camera) as rig:
        seen = []

        def consume():
            with closing(run(session.plan, rig, session, control=control)) as events:
                for event in events:
                    seen.append(event)
                    if len(seen) == 2:
                        control.pause()
                        paused.set()

        paused = threading.Event()
        thread = threading.Thread(target=consume)
        thread.start()
        assert paused.wait(10)
        for _ in range(200):
            if not any(scene.levels.values()):
                break
            time.sleep(0.01)
        count = scene.frames
        assert not any(scene.levels.values())
        time.sleep(0.1)
        assert scene.frames == count
        assert control.state == "paused"
        control.resume()
        thread.join(20)
        assert [event.shot.index for event in seen] == list(range(26))
    assert session.done
    assert {record.attempts for record in session.frames} == {1}


@pytest.mark.parametrize("camera", [SimulatedCamera, BurstCamera])
@pytest.mark.parametrize("paused", [False, True])
def test_cancel_ends_the_run_and_leaves_a_session_to_resume(session, paused, camera):
    control = RunControl()
    scene = FakeScene()
    with (
        open_fake_rig(scene, camera) as rig,
        closing(run(session.plan, rig, session, control=control)) as events,
    ):
        next(events)
        if paused:
            control.pause()
        control.cancel()
        rest = list(events)
        assert scene.levels == dict.fromkeys(NAMES, 0.0)
    assert control.state == "cancelled"
    control.resume()
    assert control.state == "cancelled", "cancelled is final"
    assert len(session.frames) == 1 + len(rest) < 26
    assert not session.done
    take(Session.open(session.path), FakeScene())
    assert Session.open(session.path).verify() == ()
