"""What a journal tells beside its frames: runs and how they ended, poses, waits, times, what was lost."""

import json
from contextlib import closing, suppress
from datetime import datetime

import pytest
from capture_fakes import FakeScene, capture, failing, open_fake_rig, shot_lines, small_plan, take

from capture.devices import DeviceLost, FrameLost, NotReady
from capture.drivers.simulated import SimulatedLight, SimulatedOperator
from capture.runner import RunControl, RunSettings, run
from capture.session import Session, SkipRecord


def lines_of(session):
    return [json.loads(line) for line in (session.path / "journal.jsonl").read_text().splitlines()]


def notes_of(session, *kinds):
    return [(line["kind"], line["text"]) for line in lines_of(session) if line.get("kind") in kinds]


def test_a_run_says_who_it_was_what_it_showed_and_that_it_came_to_its_end(session):
    with open_fake_rig(FakeScene()) as rig:
        rig.lights["led2"].identity = {"model": "lamp", "serial": "0815"}
        settings = RunSettings(retries=5)
        with closing(run(session.plan, rig, session, settings=settings, facts={"day": 3})) as events:
            list(events)
    first, *rest = lines_of(session)
    assert first["event"] == "run"
    assert first["version"][0].isdigit()
    assert (first["shots"], first["settings"]["retries"], first["facts"]) == (26, 5, {"day": 3})
    assert first["devices"] == {"led2": {"model": "lamp", "serial": "0815"}}
    assert [line["text"] for line in rest if line.get("kind") == "pose"] == ["relief", "cap"]
    places = [place for place, line in enumerate(rest) if line.get("kind") == "pose"]
    assert places == [0, 25], "each before the first frame that shows it"
    assert (rest[-1]["kind"], rest[-1]["text"]) == ("end", "all shots are settled")
    times = [datetime.fromisoformat(line.get("at") or line["taken_at"]) for line in [first, *rest]]
    assert times == sorted(times)


def test_every_end_is_told_but_that_of_a_killed_run(session):
    with open_fake_rig(FakeScene()) as rig, closing(run(session.plan, rig, session)) as events:
        next(events)
    control = RunControl()
    control.cancel()
    with (
        open_fake_rig(FakeScene()) as rig,
        closing(run(session.plan, rig, session, control=control)) as events,
    ):
        list(events)
    with suppress(DeviceLost):
        take(session, FakeScene(failing(1, DeviceLost("main", "cable\npulled"))))
    with suppress(KeyboardInterrupt):
        take(session, FakeScene(failing(1, KeyboardInterrupt())))
    take(session, FakeScene())
    ends = [text for _, text in notes_of(session, "end")]
    assert ends[:2] == ["stopped", "cancelled"]
    assert ends[2].startswith("main: cable pulled; the frames taken are safe")
    assert ends[3:] == ["interrupted", "all shots are settled"]
    assert sum(line["event"] == "run" for line in lines_of(session)) == 5
    assert Session.open(session.path).verify() == ()


def test_times_of_a_frame(session):
    """When it was asked for, and how long its light had been told by then."""

    class Slow(SimulatedLight):
        def set(self, level):
            super().set(level)
            clock[0] += 0.25

    clock = [100.0]
    with pytest.MonkeyPatch.context() as patch, open_fake_rig(FakeScene()) as rig:
        patch.setattr("capture.runner.lighting.time.monotonic", lambda: clock[0])
        for light in rig.lights.values():
            light.__class__ = Slow
        with closing(run(session.plan, rig, session)) as events:
            list(events)
    for record in session.frames:
        assert record.timing.by == "computer"
        assert record.timing.asked_at <= record.taken_at
        assert record.timing.lit_s == 0.25
        assert (record.timing.place, record.timing.count) == (0, 1)


def test_each_attempt_of_a_skipped_shot_has_its_reason(session):
    reasons = iter(["a", "b", "c"])

    def fault(camera, exposure_s):
        if reason := next(reasons, None):
            raise FrameLost("main", reason)

    skip = take(session, FakeScene(fault))[0].record
    assert isinstance(skip, SkipRecord)
    assert (skip.reasons, skip.reason, skip.attempts) == (("main: a", "main: b"), "main: c", 3)


def test_a_pause_is_told(session):
    class Impatient(RunControl):
        def wait(self):
            self.resume()
            return super().wait()

    control = Impatient()
    with (
        open_fake_rig(FakeScene()) as rig,
        closing(run(session.plan, rig, session, control=control)) as events,
    ):
        next(events)
        control.pause()
        list(events)
    assert notes_of(session, "pause") == [("pause", "asked to pause")]
    assert session.done


def test_what_is_lost_is_told_and_its_line_kept(done):
    (done / "frames/000003.tif").unlink()
    session = Session.resume(done, small_plan(), Session.open(done).rig)
    assert notes_of(session, "lost") == [("lost", "frames/000003.tif is missing or damaged")]
    capture(done, FakeScene())
    assert [json.loads(line)["shot"]["index"] for line in shot_lines(done)].count(3) == 2
    assert Session.open(done).verify() == ()


def test_a_journal_without_these_lines_is_read(done):
    """As earlier versions wrote them."""
    old = []
    for line in shot_lines(done):
        record = json.loads(line)
        del record["timing"]
        old.append(json.dumps(record))
    (done / "journal.jsonl").write_text("\n".join(old) + "\n")
    assert Session.open(done).verify() == ()
    assert Session.open(done).frames[0].timing is None


def test_the_operator_is_told_once_what_is_waited_for(session, monkeypatch):
    monkeypatch.setattr("capture.runner.take._POLL_S", 0.001)
    scene = FakeScene(failing(3, NotReady("led1", "the door is open")))
    told = []
    with open_fake_rig(scene) as rig:
        rig.operator = SimulatedOperator(scene, told.append)
        with closing(run(session.plan, rig, session)) as events:
            list(events)
    assert [text for text in told if "door" in text] == [
        "led1: the door is open: waiting, lights dark, for up to 10 s"
    ]
    assert notes_of(session, "wait") == [("wait", "led1: the door is open")]
