"""What is wrong with a session on disk is told, and taken again."""

import json
import subprocess
import sys

import numpy as np
import pytest
from capture_fakes import RIG, FakeScene, capture, frame, shot_lines, small_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.plan import CapturePlan
from capture.session import Session, SessionError


def test_verify_names_every_damage(done):
    (done / "frames/000003.tif").unlink()
    data = bytearray((done / "frames/000004.tif").read_bytes())
    data[-1] ^= 1
    (done / "frames/000004.tif").write_bytes(data)
    (done / "frames/thumbs.db").write_bytes(b"")
    (done / "done.json").unlink()
    session = Session.open(done)
    found = [(problem.kind, problem.file) for problem in session.verify()]
    assert found == [
        ("missing", "frames/000003.tif"),
        ("damaged", "frames/000004.tif"),
        ("extra", "frames/thumbs.db"),
        ("not done", "done.json"),
    ]
    stack = session.stack()
    with pytest.raises(SessionError, match=r"000003\.tif cannot be read: No such file"):
        stack[3]
    with pytest.raises(SessionError, match=r"000004\.tif is damaged: its hash is not the journal's"):
        stack[4]


def test_a_journal_changed_after_the_end_is_found(done):
    journal = done / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"temperature_c":31.5', '"temperature_c":31.6', 1))
    assert [problem.kind for problem in Session.open(done).verify()] == ["damaged"]


def break_missing(done):
    (done / "frames/000003.tif").unlink()


def break_bits(done):
    data = bytearray((done / "frames/000003.tif").read_bytes())
    data[-1] ^= 1
    (done / "frames/000003.tif").write_bytes(data)


def break_cut(done):
    (done / "frames/000003.tif").write_bytes((done / "frames/000003.tif").read_bytes()[:-1])


def break_line(done, index=3):
    journal = done / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(line_of(done, index), b'{"event":"frame","sh\xff\n'))


def line_of(done, index):
    (line,) = [line for line in shot_lines(done) if json.loads(line)["shot"]["index"] == index]
    return line


@pytest.mark.parametrize(
    ("breaks", "again"),
    [
        ((break_missing,), [3]),
        ((break_bits,), [3]),
        ((break_cut,), [3]),
        ((break_line,), [3]),
        ((lambda done: break_line(done, 25),), [25]),
        ((break_missing, lambda done: break_line(done, 7), lambda done: break_line(done, 25)), [3, 7, 25]),
    ],
    ids=["missing", "bits", "cut", "line", "last line", "several"],
)
@pytest.mark.parametrize("finish", [True, False])
def test_resume_takes_again_what_is_damaged(done, finished, breaks, again, finish):
    if not finish:
        (done / "done.json").unlink()
    for damage in breaks:
        damage(done)
    before = Session.open(done)
    assert {problem.kind for problem in before.verify()} & {"missing", "damaged"}
    session = Session.resume(done, small_plan(), RIG)
    assert [shot.index for shot in session.pending()] == again
    assert not session.done
    assert {problem.kind for problem in session.verify()} == {"not done"}
    assert (done / "journal.jsonl").read_bytes().count(b'"lost"') == len(again), "it says what is taken again"
    capture(done, FakeScene())
    whole = Session.open(done)
    assert whole.verify() == ()
    assert whole.done
    assert [record.shot for record in whole.frames] == list(small_plan().shots())
    for image, want in zip(whole.stack(), Session.open(finished).stack(), strict=True):
        np.testing.assert_array_equal(image, want)


def test_a_writer_mends_without_resume(done):
    break_bits(done)
    session = Session.open(done)
    with session.writer() as writer:
        assert [shot.index for shot in session.pending()] == [3]
        assert not (done / "frames/000003.tif").exists()
        writer.put(session.pending()[0], frame())
    session.finish()
    assert Session.open(done).verify() == ()


def test_an_older_skip_does_not_stand_for_a_lost_frame(tmp_path):
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    with session.writer() as writer:
        for shot in session.pending():
            writer.skip(shot, "lost") if shot.index == 2 else writer.put(shot, frame())
    with session.writer() as writer:
        writer.put(session.pending()[0], frame())
    (session.path / "frames/000002.tif").unlink()
    again = Session.resume(session.path, small_plan(), RIG)
    assert again.skipped == ()
    with pytest.raises(SessionError, match="1 of 26 shots have not been taken"):
        again.finish()


def test_verify_of_a_session_being_written_says_so(tmp_path):
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    with session.writer():
        (session.path / "frames/000000.tif.part").write_bytes(b"half")
        script = (
            "from capture.session import Session\n"
            f"print([problem.kind for problem in Session.open({str(session.path)!r}).verify()])"
        )
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == "['being written']"
    assert [problem.kind for problem in session.verify()] == ["extra", "not done"]


def test_a_damaged_line_inside_the_journal_is_told_and_its_frames_not_read_around(done):
    whole = (done / "journal.jsonl").read_bytes()
    place = whole[: whole.index(line_of(done, 5))].count(b"\n") + 1
    break_line(done, 5)
    damaged = Session.open(done)
    assert f"line {place} is damaged" in str(damaged.verify()[1])
    with pytest.raises(SessionError, match=rf"journal\.jsonl: line {place} is damaged"):
        damaged.stack()
    four = line_of(done, 4)
    (done / "journal.jsonl").write_bytes(whole.replace(four, four + four))
    with pytest.raises(SessionError, match=rf"line {place}: shot 4 has been taken already"):
        Session.open(done)


def test_a_journal_of_another_plan_is_refused(done):
    plan = json.loads((done / "plan.json").read_text())
    plan["blocks"][0]["bracket"]["exposures_s"][0] = 0.015
    (done / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(SessionError, match=r"line \d: shot 0 is not the plan's shot"):
        Session.open(done)


def test_a_lost_journal_does_not_cost_the_frames(done):
    (done / "journal.jsonl").write_bytes(b"")
    with (
        pytest.raises(SessionError, match="26 frames that the journal does not name"),
        Session.open(done).writer(),
    ):
        pass
    assert len(list((done / "frames").iterdir())) == 26
    (done / "journal.jsonl").unlink()
    with pytest.raises(SessionError, match=r"journal\.jsonl cannot be read"):
        Session.open(done)


def test_a_line_torn_at_any_byte_is_dropped_and_the_shot_taken_again(tmp_path):
    """Every prefix of a frame's line, from nothing of it to all but its newline."""
    done = tmp_path / "session"
    plan = CapturePlan(name="two", blocks=small_plan().blocks[1:])
    capture(done, FakeScene(), plan)
    (done / "done.json").unlink()
    whole = (done / "journal.jsonl").read_bytes()
    start = whole.index(line_of(done, 1))
    whole = whole[: start + len(line_of(done, 1))]
    last = (done / "frames/000001.tif").read_bytes()
    for offset in range(start, len(whole)):
        (done / "journal.jsonl").write_bytes(whole[:offset])
        (done / "frames/000001.tif").write_bytes(last)
        session = Session.open(done)
        assert (done / "journal.jsonl").read_bytes() == whole[:offset], "reading must change nothing"
        assert [shot.index for shot in session.pending()] == [1]
        assert any(problem.file == "journal.jsonl" for problem in session.verify()) == (offset > start)
        with session.writer():
            assert not (done / "frames/000001.tif").exists()
        assert (done / "journal.jsonl").read_bytes() == whole[:start]
    resumed = capture(done, FakeScene(), plan)
    assert resumed.done
    assert resumed.verify() == ()


@settings(max_examples=30, deadline=None)
@given(tail=st.binary(min_size=1, max_size=40).filter(lambda tail: b"\n" not in tail))
def test_garbage_after_the_last_line_is_dropped(finished, tail):
    journal = finished / "journal.jsonl"
    whole = journal.read_bytes()
    try:
        journal.write_bytes(whole + tail)
        assert len(Session.open(finished).frames) == 26
    finally:
        journal.write_bytes(whole)
