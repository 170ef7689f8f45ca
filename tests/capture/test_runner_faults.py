"""What a run does with cameras that fail, and with frames that are not the answer."""

import numpy as np
import pytest
from capture_fakes import CAMERA, RIG, BurstCamera, FakeScene, failing, shot_lines, small_plan, take

from capture.devices import DeviceError, DeviceLost, FrameLost, NotReady, SettingRefused
from capture.drivers.simulated import SimulatedCamera
from capture.frame import Frame
from capture.session import FrameRecord, Session, SkipRecord


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
    assert record.reasons == ("main: incomplete",) * 2
    assert len(shot_lines(session.path)) == 27


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
