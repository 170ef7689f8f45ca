"""What a run does with devices that behave, and with those that do not."""

import os
import signal
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from capture_fakes import CAMERA, LIGHT, LIMITS, NAMES, RIG, BurstCamera, FakeScene, open_fake_rig, small_plan

from capture.devices import DeviceError, DeviceLost, FrameLost, NotReady, RigLimits, SettingRefused
from capture.drivers.simulated import SimulatedCamera, SimulatedLight
from capture.frame import Frame
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.runner import RunControl, check, exit_on_sigterm, run
from capture.session import FrameRecord, Session, SessionError, SkipRecord, Writer


@pytest.fixture
def session(tmp_path):
    return Session.create(tmp_path / "session", small_plan(), RIG)


def take(session, scene, camera=SimulatedCamera, **options):
    with (
        open_fake_rig(scene, camera) as rig,
        closing(run(session.plan, rig, session, **options)) as events,
    ):
        return list(events)


def failing(times, error, when=lambda exposure_s: True):
    """A fault that raises ``error`` the first ``times`` times that ``when`` holds."""
    left = [times]

    def fault(camera, exposure_s):
        if left[0] and when(exposure_s):
            left[0] -= 1
            raise error

    return fault


# ---------------------------------------------------------------- check


LIGHT_SLOW = ["light", "repeat", "exposure", "camera"]


def plan_of(**changes):
    block = {
        "kinds": "object",
        "pose": "relief",
        "cameras": "main",
        "lights": {"names": "led1..led4"},
        "bracket": {"exposures_s": [0.01]},
    } | changes
    return CapturePlan.model_validate({"name": "p", "blocks": [block]})


@pytest.mark.parametrize(
    ("changes", "limits", "problem"),
    [
        ({}, {}, None),
        ({"cameras": "mian"}, {}, "camera 'mian' is not in the rig: did you mean 'main'?"),
        ({"cameras": "webcam"}, {}, "camera 'webcam' is not in the rig, which has main"),
        ({"lights": {"names": "led7"}}, {}, "light 'led7' is not in the rig: did you mean 'led"),
        ({"bracket": {"exposures_s": [20]}}, {}, "outside what camera 'main' can do: 1e-05 to 10 s"),
        ({"bracket": {"exposures_s": [1e-6]}}, {}, "exposure 1e-06 s is outside"),
        ({"bracket": {"exposures_s": [1], "gain_db": 48}}, {}, "gain 48 dB is outside what camera"),
        ({"repeats": 2, "order": LIGHT_SLOW}, {"max_on_s": 0.0405}, "'led1' would burn 0.041 s"),
        ({"repeats": 2}, {"max_on_s": 0.0405}, None),
        ({"lights": {"names": "led1"}}, {"max_duty": 0.99}, "light 'led1' would burn with a duty of 100%"),
        ({"lights": {"names": "led1", "level": 0.5}}, {"max_duty": 0.5}, None),
        ({}, {"max_duty": 0.26}, None),
        ({}, {"max_duty": 0.23}, "'led2' would burn with a duty of 25%"),
    ],
)  # fmt: skip
def test_check(changes, limits, problem):
    rig = LIMITS.replace(lights=dict.fromkeys(NAMES, LIGHT.replace(**limits)))
    problems = check(plan_of(**changes), rig).problems
    if problem is None:
        assert problems == ()
    else:
        assert any(problem in line for line in problems), problems


def test_check_tells_every_problem_once():
    plan = plan_of(cameras=["mian"], lights={"names": ["led8", "led9"]}, bracket={"exposures_s": [20, 30]})
    assert len(check(plan, LIMITS).problems) == 3


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({"repeats": 2, "bracket": {"exposures_s": [0.1]}}, "the lights flash 8 times at about 8.9 Hz"),
        ({"repeats": 2, "bracket": {"exposures_s": [1.0]}}, None),
        ({"repeats": 2, "bracket": {"exposures_s": [1e-4]}}, None),
        ({"lights": {"names": "led1"}}, None),
        ({"lights": {"names": ["led1", "led2"]}}, None),
        ({"repeats": 2, "lights": {"names": ["led1", "led2"], "together": True}}, None),
    ],
    ids=["ten a second", "slower", "faster", "steady", "twice", "together"],
)
def test_check_warns_of_flashing(changes, warns):
    found = check(plan_of(**changes), LIMITS)
    assert not found.problems
    assert len(found.warnings) == (warns is not None)
    assert warns is None or warns in found.warnings[0]


def test_check_expects_time_and_space():
    found = check(small_plan(), LIMITS, free_bytes=10)
    lit = 2 * 4 * (0.01 + 0.02 + 0.04 + 3 * 0.01)
    # each change of light settles the old and the new; the first has no old; the last goes dark
    settling = (1 + 2 * 7 + 1) * 0.001
    assert found.duration_s == pytest.approx(lit + 2 * (0.01 + 0.01) + settling)
    assert (found.shots, found.prompts) == (26, 2)
    assert found.bytes >= 26 * 6 * 8 * 2
    assert "make room" in found.problems[0]
    assert check(small_plan(), LIMITS, free_bytes=found.bytes).problems == ()


@pytest.mark.parametrize(
    ("pixel_format", "sample_bytes"), [("Mono8", 1), ("BayerRG12", 2), ("RGB8", 3), ("Mono32f", 4)]
)
def test_check_knows_the_pixel_format(pixel_format, sample_bytes):
    rig = RigLimits(
        cameras={"main": CAMERA.replace(pixel_format=pixel_format, width=1000, height=1000)}, lights={}
    )
    found = check(plan_of(lights=None), rig)
    assert 1e6 * sample_bytes <= found.bytes < 1e6 * sample_bytes + 1e4


# ---------------------------------------------------------------- a run that goes well


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


# ---------------------------------------------------------------- refused before anything moves


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


# ---------------------------------------------------------------- devices that misbehave


@pytest.mark.parametrize("camera", [SimulatedCamera, BurstCamera])
@pytest.mark.parametrize(
    "error", [FrameLost("main", "incomplete"), SettingRefused("main", "no"), DeviceError("main", "?")]
)
def test_a_failed_frame_is_tried_again(session, error, camera):
    events = take(session, FakeScene(failing(2, error, lambda exposure_s: exposure_s == 0.02)), camera)
    attempts = [event.record.attempts for event in events]
    assert attempts == [1, 3] + [1] * 24
    assert session.done
    assert session.skipped == ()


@pytest.mark.parametrize("camera", [SimulatedCamera, BurstCamera])
def test_a_shot_that_cannot_be_had_is_skipped_and_tried_on_resume(session, camera):
    scene = FakeScene(failing(3, FrameLost("main", "incomplete"), lambda exposure_s: exposure_s == 0.02))
    events = take(session, scene, camera)
    assert [event.shot.index for event in events] == list(range(26))
    record = events[1].record
    assert isinstance(record, SkipRecord)
    assert (record.reason, record.attempts) == ("main: incomplete", 3)
    assert session.done
    assert len(session.frames) == 25
    again = take(Session.open(session.path), FakeScene())
    assert [event.shot.index for event in again] == [1]
    assert Session.open(session.path).skipped == ()
    assert Session.open(session.path).verify() == ()
    lines = (session.path / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 27


def test_no_retries(session):
    events = take(session, FakeScene(failing(1, FrameLost("main", "incomplete"))), retries=0)
    assert isinstance(events[0].record, SkipRecord)
    assert all(isinstance(event.record, FrameRecord) for event in events[1:])


def test_a_camera_that_is_gone_ends_the_run_and_leaves_a_session_to_resume(session):
    count = [0]

    def vanish(camera, exposure_s):
        count[0] += 1
        if count[0] > 10:
            raise DeviceLost("main", "unplugged")

    scene = FakeScene(vanish)
    with pytest.raises(DeviceLost, match="main: unplugged; the frames taken are safe: mend it, then resume"):
        take(session, scene)
    assert set(scene.levels.values()) == {0.0}
    stopped = Session.open(session.path)
    assert not stopped.done
    assert len(stopped.frames) == 10
    take(stopped, FakeScene())
    assert Session.open(session.path).verify() == ()


@pytest.mark.parametrize("factor", [1.02, 0.98, 2, float("inf")])
def test_a_wrong_exposure_is_refused(session, factor):
    wrong = [True]

    def report(exposure_s):
        if exposure_s == 0.02 and wrong[0]:
            wrong[0] = False
            return min(exposure_s * factor, 1e6)
        return exposure_s

    events = take(session, FakeScene(report=report))
    assert [event.record.attempts for event in events] == [1, 2] + [1] * 24


def test_rounding_of_the_exposure_is_no_error_and_is_recorded(session):
    take(session, FakeScene(report=lambda exposure_s: exposure_s * 1.009))
    np.testing.assert_allclose(session.stack().select(exposure_s=0.02).exposure_s, 0.02 * 1.009)
    assert session.frames[1].shot.exposure_s == 0.02


def test_the_tolerance_is_the_callers(session):
    events = take(session, FakeScene(report=lambda exposure_s: exposure_s * 1.4), exposure_tolerance=0.5)
    assert {event.record.attempts for event in events} == {1}


def test_a_reason_says_what_was_asked_and_what_came(session):
    def wrong_once(exposure_s):
        return exposure_s * (1.5 if exposure_s == 0.01 else 1.0)

    events = take(session, FakeScene(report=wrong_once), retries=1)
    assert events[0].record.reason == "main: asked for 0.01 s and 0 dB, reports 0.015 s and 0 dB"


class Door(FakeScene):
    """Lights do not burn while it is open."""

    open_for = 0

    def set_light(self, name, level):
        if level and self.open_for:
            self.open_for -= 1
            raise NotReady(name, "its interlock is open: close it")
        super().set_light(name, level)


def test_what_is_not_ready_is_waited_for(session, monkeypatch):
    """A door that was opened and shut costs time and no shot."""
    monkeypatch.setattr("capture.runner.take._POLL_S", 0.001)
    scene = Door(fault=lambda *_: setattr(scene, "open_for", 9 if scene.frames == 5 else scene.open_for))
    take(session, scene)
    assert session.done
    assert not session.skipped
    assert {record.attempts for record in session.frames} == {1}


def test_what_stays_not_ready_ends_the_run_dark_and_resumable(session, monkeypatch):
    monkeypatch.setattr("capture.runner.take._POLL_S", 0.001)
    scene = Door(fault=lambda *_: setattr(scene, "open_for", 1e9 if scene.frames == 5 else scene.open_for))
    says = r"led3: its interlock is open: close it; waited 0\.02 s; the frames taken are safe: mend it"
    with pytest.raises(DeviceLost, match=says):
        take(session, scene, patience_s=0.02)
    assert not any(scene.levels.values())
    assert not session.skipped
    scene.open_for = 0
    scene.fault = None
    take(session, scene)
    assert session.done


class Tampering(SimulatedCamera):
    """Hands every frame to ``tamper(number, frame, former)`` on its way out."""

    tamper = staticmethod(lambda number, frame, former: frame)
    number = 0
    former = None

    def expose(self, exposure_s, gain_db, deadline_s):
        frame = super().expose(exposure_s, gain_db, deadline_s)
        self.number += 1
        out = self.tamper(self.number, frame, self.former)
        self.former = frame
        return out


def tampering(tamper):
    return type("Tampered", (Tampering,), {"tamper": staticmethod(tamper)})


def as_id(frame, frame_id):
    return Frame(frame.dn, frame.pixel_format, frame.exposure_s, frame.gain_db, frame_id, frame.timestamp_ns)


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (lambda n, frame, former: former if n == 2 else frame, "frame 1 came twice"),
        (lambda n, frame, former: as_id(frame, frame.frame_id + (n >= 2)), "frame 3 came after frame 1: one"),
        (lambda n, frame, former: as_id(frame, frame.frame_id - 5 * (n >= 2)), "frame -3 came after frame 1"),
        (lambda n, frame, former: as_id(former, 2) if n == 2 else frame, "belongs to an earlier request"),
        (
            lambda n, frame, former: Frame(frame.dn[:3].copy(), "Mono12", 0.02, 0, 2, 0) if n == 2 else frame,
            "sent Mono12 of 8 x 3, the rig file says Mono12 of 8 x 6",
        ),
        (
            lambda n, frame, former: Frame(frame.dn, "Mono16", 0.02, 0, 2, 0) if n == 2 else frame,
            "sent Mono16 of 8 x 6, the rig file says Mono12",
        ),
        (lambda n, frame, former: Frame(frame.dn, "Mono12", 0.02, 6, 2, 0) if n == 2 else frame, "and 6 dB"),
    ],
)  # fmt: skip
def test_a_frame_that_is_not_the_answer_is_told(tmp_path, tamper, reason):
    """Once with no retries, to see the reason; once with, to see it mended."""
    session = Session.create(tmp_path / "told", small_plan(), RIG)
    events = take(session, FakeScene(), tampering(tamper), retries=0)
    skipped = [event.record for event in events if isinstance(event.record, SkipRecord)]
    assert [record.shot.index for record in skipped] == [1]
    assert reason in skipped[0].reason
    session = Session.create(tmp_path / "mended", small_plan(), RIG)
    events = take(session, FakeScene(), tampering(tamper))
    assert [event.record.attempts for event in events] == [1, 2] + [1] * 24


def test_a_burst_that_ends_early_goes_on_where_it_ended(session):
    class Short(BurstCamera):
        def burst(self, settings, deadline_s):
            yield from list(super().burst(settings, deadline_s))[:2]

    events = take(session, FakeScene(), Short)
    assert all(isinstance(event.record, FrameRecord) for event in events)
    assert [event.record.attempts for event in events[:4]] == [1, 1, 2, 1]


def test_deadlines_follow_the_exposure(session):
    deadlines = {}

    class Noting(SimulatedCamera):
        def expose(self, exposure_s, gain_db, deadline_s):
            deadlines[exposure_s] = deadline_s
            return super().expose(exposure_s, gain_db, deadline_s)

    take(session, FakeScene(), Noting)
    rest = {round(deadline_s - exposure_s, 9) for exposure_s, deadline_s in deadlines.items()}
    assert len(rest) == 1
    assert rest.pop() > CAMERA.readout_s


# ---------------------------------------------------------------- lights


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


# ---------------------------------------------------------------- pause and cancel


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
