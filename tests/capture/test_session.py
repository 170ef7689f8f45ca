"""Sessions on disk: creation, reading, damage, locking, the writer. Killed processes: `test_killed`."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tifffile
from capture_fakes import RIG, FakeScene, capture, small_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.frame import Frame
from capture.plan import Block, CapturePlan, ExposureBracket
from capture.session import FrameRecord, Session, SessionError, Stack
from capture.session.disk import decode, encode, read_file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "session"
    capture(path, FakeScene())
    return path


@pytest.fixture
def done(finished, tmp_path):
    """A copy that may be damaged."""
    path = tmp_path / "session"
    (path / "frames").mkdir(parents=True)
    for file in finished.rglob("*.*"):
        (path / file.relative_to(finished)).write_bytes(file.read_bytes())
    return path


def frame(value=7, shape=(6, 8), dtype=np.uint16, pixel_format="Mono12", **reported):
    reported = {"exposure_s": 0.01, "gain_db": 0.0, "frame_id": 1, "timestamp_ns": 5} | reported
    return Frame(np.full(shape, value, dtype=dtype), pixel_format, **reported)


def test_a_session_comes_back_as_it_was(finished):
    session = Session.open(finished)
    assert session.plan == small_plan()
    assert session.rig == json.loads(json.dumps(RIG))
    assert session.facts == {}
    assert session.done
    assert session.pending() == ()
    assert session.skipped == ()
    assert session.verify() == ()
    assert [record.shot for record in session.frames] == list(small_plan().shots())
    for record in session.frames:
        assert hashlib.sha256((finished / record.file).read_bytes()).hexdigest() == record.sha256
        assert (record.black_level_dn, record.temperature_c, record.attempts) == (64.0, 31.5, 1)
        assert record.taken_at.endswith("+00:00")
    order = [
        json.loads(line)["shot"]["index"] for line in (finished / "journal.jsonl").read_text().splitlines()
    ]
    assert order == sorted(order)


def test_stack_reads_what_was_taken(finished):
    stack = Session.open(finished).stack()
    assert isinstance(stack, Stack)
    assert stack.shape == (26, 6, 8)
    assert stack.pixel_format == "Mono12"
    np.testing.assert_array_equal(stack.exposure_s, [record.exposure_s for record in stack.records])
    np.testing.assert_array_equal(stack.gain_db, np.zeros(26))
    for image, light, exposure_s, pose in zip(
        stack, stack.lights, stack.exposure_s, stack.poses, strict=True
    ):
        assert image.dtype == np.uint16
        assert not image.flags.writeable
        assert image[0, 0] == (2 ** (int(light[3:]) - 1) if light else 0)
        assert image[0, 1] == len(pose)
        assert image[1, 1] == round(exposure_s * 1e4)
    with pytest.raises(ValueError, match="read-only"):
        stack[0][0, 0] = 1
    with pytest.raises(IndexError):
        stack[26]
    np.testing.assert_array_equal(stack[-1], stack[25])
    assert len(stack[3:7]) == 4


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ({}, 26),
        ({"kind": "object"}, 24),
        ({"kind": ("object", "dark")}, 26),
        ({"kind": "sphere"}, 0),
        ({"pose": "cap"}, 2),
        ({"light": "led2"}, 6),
        ({"light": ("led2", "")}, 8),
        ({"exposure_s": 0.02}, 8),
        ({"exposure_s": (0.02, 0.04)}, 16),
        ({"repeat": 1}, 13),
        ({"light": "led3", "repeat": 0, "exposure_s": 0.01}, 1),
    ],
)
def test_select(finished, condition, count):
    stack = Session.open(finished).stack("main").select(**condition)
    assert len(stack) == count
    assert [record.shot.index for record in stack.records] == sorted(
        record.shot.index for record in stack.records
    )


def test_an_empty_selection_says_so_where_it_matters(finished):
    with pytest.raises(SessionError, match="no frame selected, so no size"):
        _ = Session.open(finished).stack().select(light="led9").shape


def test_cameras_are_named(finished, tmp_path):
    with pytest.raises(SessionError, match="no camera 'mian': it has main"):
        Session.open(finished).stack("mian")
    block = small_plan().blocks[0].replace(cameras=("left", "right"))
    session = Session.create(tmp_path / "two", CapturePlan(name="two", blocks=(block,)), {})
    with pytest.raises(SessionError, match="cameras left, right: name one"):
        session.stack()
    assert len(session.stack("left")) == 0


def test_digest_is_of_what_was_taken_not_of_when(finished, tmp_path):
    first = Session.open(finished)
    assert capture(tmp_path / "again", FakeScene()).digest == first.digest
    other = capture(tmp_path / "other", FakeScene(report=lambda exposure_s: exposure_s * 1.001))
    assert other.digest != first.digest


def test_create_refuses_a_folder_in_use(finished, tmp_path):
    with pytest.raises(SessionError, match="holds a session already"):
        Session.create(finished, small_plan(), RIG)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(SessionError, match="is not empty"):
        Session.create(tmp_path, small_plan(), RIG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(SessionError, match="is a file"):
        Session.create(tmp_path / "note.txt", small_plan(), RIG)
    with pytest.raises(SessionError, match="cannot be made here"):
        Session.create(tmp_path / "note.txt" / "session", small_plan(), RIG)


def test_create_takes_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert not Session.create(tmp_path / "empty", small_plan(), RIG).done


def test_rig_must_be_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Session.create(tmp_path / "s", small_plan(), {"exposure_s": float("nan")})
    assert not (tmp_path / "s").exists()


def test_what_is_no_session_is_named(tmp_path):
    with pytest.raises(SessionError, match="nowhere: no such folder"):
        Session.open(tmp_path / "nowhere")


def test_resume_refuses_another_plan_or_rig_and_says_what_differs(done):
    plan = small_plan()
    longer = plan.replace(
        blocks=(
            plan.blocks[0].replace(bracket=ExposureBracket(exposures_s=(0.01, 0.02, 0.08))),
            plan.blocks[1],
        )
    )
    with pytest.raises(
        SessionError, match=r"plan\.blocks\.0\.bracket\.exposures_s\.2 was 0\.04, is now 0\.08"
    ):
        Session.resume(done, longer, RIG)
    rig = json.loads(json.dumps(RIG))
    rig["cameras"]["main"]["readout_s"] = 0.5
    rig["cameras"]["side"] = {}
    message = (
        r"rig\.cameras\.main\.readout_s was 0\.01, is now 0\.5; rig\.cameras\.side is not in the session"
    )
    with pytest.raises(SessionError, match=message):
        Session.resume(done, plan, rig)
    assert Session.resume(done, plan, RIG).done


# ---------------------------------------------------------------- damage


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
    lines = (done / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[index] = b'{"event":"frame","sh\xff\n'
    (done / "journal.jsonl").write_bytes(b"".join(lines))


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
    lines = (done / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (done / "journal.jsonl").write_bytes(b"".join([*lines[:5], b'{"event":"frame","shot"\n', *lines[6:]]))
    damaged = Session.open(done)
    assert "line 6 is damaged" in str(damaged.verify()[1])
    with pytest.raises(SessionError, match=r"journal\.jsonl: line 6 is damaged"):
        damaged.stack()
    (done / "journal.jsonl").write_bytes(b"".join([*lines[:5], lines[4], *lines[5:]]))
    with pytest.raises(SessionError, match=r"line 6: shot 4 has been taken already"):
        Session.open(done)


def test_a_journal_of_another_plan_is_refused(done):
    plan = json.loads((done / "plan.json").read_text())
    plan["blocks"][0]["bracket"]["exposures_s"][0] = 0.015
    (done / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(SessionError, match="line 1: shot 0 is not the plan's shot"):
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


def test_a_line_torn_at_any_byte_is_dropped_and_the_shot_taken_again(done):
    """Every prefix of the last line, from nothing of it to all but its newline."""
    (done / "done.json").unlink()
    whole = (done / "journal.jsonl").read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    last = (done / "frames/000025.tif").read_bytes()
    for offset in range(start, len(whole)):
        (done / "journal.jsonl").write_bytes(whole[:offset])
        (done / "frames/000025.tif").write_bytes(last)
        session = Session.open(done)
        assert (done / "journal.jsonl").read_bytes() == whole[:offset], "reading must change nothing"
        assert [shot.index for shot in session.pending()] == [25]
        assert any(problem.file == "journal.jsonl" for problem in session.verify()) == (offset > start)
        with session.writer():
            assert not (done / "frames/000025.tif").exists()
        assert (done / "journal.jsonl").read_bytes() == whole[:start]
    resumed = capture(done, FakeScene())
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


# ---------------------------------------------------------------- writing


def test_two_writers_are_refused_here_and_from_another_process(tmp_path):
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    with session.writer():
        with pytest.raises(SessionError, match="a writer is open already"), session.writer():
            pass
        with (
            pytest.raises(SessionError, match="written by another process"),
            Session.open(session.path).writer(),
        ):
            pass
        with pytest.raises(SessionError, match="leave the writer"):
            session.finish()
        script = (
            f"from capture.session import Session\nwith Session.open({str(session.path)!r}).writer(): pass"
        )
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "is being written by another process: wait for it to end" in other.stderr
    with session.writer():
        pass


def test_what_the_journal_names_is_on_disk_first(tmp_path, monkeypatch):
    """The order a power cut relies on: file, name, folder, then the line that names it, at last done.json."""
    steps = []

    def noting(name, real):
        def step(*args):
            path = args[-1] if name == "replace" else os.readlink(f"/proc/self/fd/{args[0]}")
            steps.append((name, os.path.relpath(path, tmp_path)))
            return real(*args)

        return step

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc to name what is synced")
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    session = Session.create(tmp_path / "s", CapturePlan(name="one", blocks=(small_plan().blocks[1],)), {})
    files = [step for step in steps if step[1] not in ("s", ".")]
    assert files[-2:] == [("fsync", "s/plan.json.part"), ("replace", "s/plan.json")]
    assert len(files) == 2 * 4
    assert steps[-2:] == [("fsync", "s"), ("fsync", ".")]
    steps.clear()
    with session.writer() as writer:
        for shot in session.pending():
            writer.put(shot, frame())
    session.finish()
    frames = [f"s/frames/{index:06d}.tif" for index in range(2)]
    # the second may be written while the first gets its name
    for file in frames:
        assert steps.index(("fsync", file + ".part")) < steps.index(("replace", file))
        steps.remove(("fsync", file + ".part"))
    taken = [[("replace", file), ("fsync", "s/frames"), ("fsync", "s/journal.jsonl")] for file in frames]
    end = [("fsync", "s/done.json.part"), ("replace", "s/done.json"), ("fsync", "s")]
    assert steps == [("fsync", "s/journal.jsonl"), *taken[0], *taken[1], *end]


def test_put_refuses_what_is_not_pending(tmp_path):
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    shots = session.pending()
    with session.writer() as writer:
        writer.put(shots[0], frame())
        with pytest.raises(SessionError, match="shot 0 has been taken already"):
            writer.put(shots[0], frame())
        writer.flush()
        with pytest.raises(SessionError, match="shot 0 has been taken already"):
            writer.skip(shots[0], "no")
        with pytest.raises(SessionError, match="shot 1 is not the plan's"):
            writer.put(shots[1].replace(exposure_s=9), frame())
    with pytest.raises(SessionError, match="closed"):
        writer.put(shots[1], frame())
    with pytest.raises(SessionError, match="25 of 26 shots have not been taken"):
        session.finish()


def test_a_skip_keeps_its_index_and_is_pending(tmp_path):
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    with session.writer() as writer:
        for shot in session.pending():
            if shot.index == 2:
                writer.skip(shot, "main: lost", 3)
            else:
                writer.put(shot, frame(shot.index))
    session.finish()
    again = Session.open(session.path)
    assert again.done
    assert [shot.index for shot in again.pending()] == [2]
    assert [(record.shot.index, record.reason, record.attempts) for record in again.skipped] == [
        (2, "main: lost", 3)
    ]
    assert [record.file for record in again.frames][1:3] == ["frames/000001.tif", "frames/000003.tif"]
    with again.writer() as writer:
        assert not again.done, "a session that is written to is not done"
        writer.put(again.pending()[0], frame())
    again.finish()
    assert Session.open(session.path).verify() == ()
    assert Session.open(session.path).skipped == ()


def test_a_slow_disk_holds_capture_back(tmp_path, monkeypatch):
    """With room for two frames, the third waits until the first is on disk."""
    from capture.session import writer as module

    gate = threading.Semaphore(0)
    real = module.write_part

    def slow(path, *pieces):
        assert gate.acquire(timeout=10)
        return real(path, *pieces)

    monkeypatch.setattr(module, "write_part", slow)
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    shots = session.pending()
    given_over = []

    def feed():
        for shot in shots[:4]:
            writer.put(shot, frame())
            given_over.append(shot.index)

    with session.writer(queue_bytes=2 * frame().dn.nbytes) as writer:
        feeder = threading.Thread(target=feed)
        feeder.start()
        feeder.join(0.3)
        assert given_over == [0, 1]
        gate.release()
        for _ in range(100):
            if len(given_over) == 3:
                break
            feeder.join(0.05)
        assert given_over == [0, 1, 2]
        gate.release(3)
        feeder.join(10)
        writer.flush()
        assert [record.shot.index for record in writer.written()] == [0, 1, 2, 3]
        assert writer.written() == ()


def test_a_disk_that_stalls_delays_no_shot_while_the_queue_has_room(tmp_path, monkeypatch):
    """The journal shows it: eight shots were taken before the disk took the first."""
    from capture.session import writer as module

    ready = threading.Event()
    real = module.write_part

    def stalled(path, *pieces):
        assert ready.wait(10), "a shot waited for the disk"
        return real(path, *pieces)

    monkeypatch.setattr(module, "write_part", stalled)
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    shots = session.pending()[:12]
    with session.writer() as writer:
        for shot in shots[:8]:
            writer.put(shot, frame())
        assert writer.written() == ()
        recovered = datetime.now(UTC)
        ready.set()
        for shot in shots[8:]:
            writer.put(shot, frame())
    taken = [datetime.fromisoformat(record.taken_at) for record in session.frames]
    assert len(taken) == 12
    assert taken == sorted(taken)
    assert taken[7] <= recovered


def test_one_frame_larger_than_the_queue_passes(tmp_path):
    session = Session.create(tmp_path / "s", small_plan(), RIG)
    with session.writer(queue_bytes=1) as writer:
        for shot in session.pending():
            writer.put(shot, frame(shot.index))
    assert len(session.frames) == 26


@pytest.mark.parametrize("failing", ["write_part", "replace", "append"])
def test_a_full_disk_is_one_clear_error_and_nothing_half_written(tmp_path, monkeypatch, failing):
    from capture.session import disk, records
    from capture.session import writer as module

    session = Session.create(tmp_path / "s", small_plan(), RIG)
    shots = session.pending()

    def full(*_):
        raise OSError(28, "No space left on device")

    def attempt():
        with session.writer() as writer:
            for shot in shots:
                if shot.index == 5:
                    writer.flush()
                    place = {"write_part": module, "replace": disk.os, "append": records.os}[failing]
                    patch.setattr(place, "fsync" if failing == "append" else failing, full)
                writer.put(shot, frame(shot.index))

    with monkeypatch.context() as patch, pytest.raises(SessionError) as caught:
        attempt()
    assert "shot 5 cannot be written: [Errno 28] No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (session.path / "frames").iterdir()) == [
        f"{i:06d}.tif" for i in range(5)
    ]
    again = Session.open(session.path)
    assert [record.shot.index for record in again.frames] == [0, 1, 2, 3, 4]
    with again.writer() as writer:
        for shot in again.pending():
            writer.put(shot, frame(shot.index))
    again.finish()
    assert again.verify() == ()


def test_the_error_in_flight_is_kept_beside_a_failing_disk(tmp_path, monkeypatch):
    from capture.session import writer as module

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_part", full)
    session = Session.create(tmp_path / "s", small_plan(), RIG)

    def interrupted():
        with session.writer() as writer:
            writer.put(session.pending()[0], frame())
            raise KeyboardInterrupt

    with pytest.raises(SessionError, match="No space left") as caught:
        interrupted()
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)


def test_import_of_foreign_images(tmp_path):
    """One block per picture: the way images that no rig took become a session."""
    pictures = [
        frame(200, (4, 5, 3), np.uint8, "RGB8", exposure_s=0.125),
        frame(0.5, (4, 5), np.float32, "Mono32f", exposure_s=1.0),
        frame(4000, (4, 5), np.uint16, "BayerRG12"),
    ]
    blocks = tuple(
        Block(
            kinds=("object", "sphere"),
            pose=f"picture-{number}",
            cameras=("imported",),
            bracket=ExposureBracket(exposures_s=(picture.exposure_s,)),
        )
        for number, picture in enumerate(pictures)
    )
    session = Session.create(
        tmp_path / "s", CapturePlan(name="import", blocks=blocks), {}, {"from": "folder"}
    )
    with session.writer() as writer:
        for shot, picture in zip(session.plan.shots(), pictures, strict=True):
            writer.put(shot, picture)
    session.finish()
    again = Session.open(session.path)
    assert again.verify() == ()
    stack = again.stack("imported")
    for image, picture in zip(stack, pictures, strict=True):
        np.testing.assert_array_equal(image, picture.dn)
        assert image.dtype == picture.dn.dtype
    says = r"differ in pixel format: frames/000001.tif has Mono32f, frames/000000.tif RGB8: select some"
    with pytest.raises(SessionError, match=says):
        _ = stack.pixel_format
    with pytest.raises(SessionError, match="differ in size"):
        _ = stack.shape


@settings(max_examples=40, deadline=None)
@given(
    pixel_format=st.sampled_from(["Mono8", "Mono12", "Mono16", "RGB8", "RGB16", "BayerGB10", "Mono32f"]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_tiff_keeps_every_sample_and_is_the_same_bytes_each_time(pixel_format, height, width, seed):
    rng = np.random.default_rng(seed)
    shape = (height, width, 3) if pixel_format.startswith("RGB") else (height, width)
    if pixel_format == "Mono32f":
        dn = rng.normal(size=shape).astype(np.float32)
    else:
        dtype = np.uint8 if pixel_format.endswith("8") else np.uint16
        dn = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    picture = Frame(dn, pixel_format, 0.01, 0.0, 1, 1)
    for compress in (False, True):
        data = b"".join(encode(picture, compress))
        assert data == b"".join(encode(picture, compress))
        back = decode(data)
        assert back.dtype == dn.dtype
        assert not back.flags.writeable
        np.testing.assert_array_equal(back, dn)


@pytest.mark.parametrize("shape", [(700, 90), (300, 64, 3)])
def test_compressed_frames_are_read_by_others(shape):
    """By tifffile with imagecodecs: several strips, differences that wrap round, a name for what was done."""
    pytest.importorskip(
        "imagecodecs", reason="imagecodecs, another reader of Zstandard TIFF, is not installed"
    )
    dn = np.random.default_rng(4).poisson(900, shape).astype(np.uint16)
    dn[::7] = 65535 - dn[::7]
    (data,) = encode(Frame(dn, "RGB16" if len(shape) == 3 else "Mono16", 0.01, 0.0, 1, 1), compress=True)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), dn)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert (tiff.pages[0].compression.name, tiff.pages[0].predictor.name) == ("ZSTD", "HORIZONTAL")


def test_a_compressed_session_holds_the_same_pictures_in_less(tmp_path):
    plan = small_plan()
    dn = np.random.default_rng(4).poisson(900, (200, 300)).astype(np.uint16)
    sizes = []
    for compress in (False, True):
        session = Session.create(tmp_path / str(compress), plan, RIG)
        with session.writer(compress=compress) as writer:
            for shot in session.pending():
                writer.put(shot, Frame(dn.copy(), "Mono12", shot.exposure_s, 0.0, shot.index, 1))
        session.finish()
        assert session.verify() == ()
        for image in session.stack():
            np.testing.assert_array_equal(image, dn)
        sizes.append(sum(path.stat().st_size for path in (session.path / "frames").iterdir()))
    assert sizes[1] < 0.75 * sizes[0]


def test_a_large_file_is_its_bytes_and_its_picture_a_view(tmp_path):
    """Beyond a megabyte the bytes lie in pages of their own; what is no plain TIFF goes the long way."""
    dn = np.random.default_rng(3).integers(0, 4096, (800, 900), dtype=np.uint16)
    picture = Frame(dn, "Mono12", 0.01, 0.0, 1, 1)
    path = tmp_path / "frame.tif"
    path.write_bytes(b"".join(encode(picture)))
    data = read_file(path)
    assert bytes(data) == path.read_bytes()
    back = decode(data)
    assert back.base is not None
    assert not back.flags.writeable
    np.testing.assert_array_equal(back, dn)
    tifffile.imwrite(path, dn, compression="zlib")
    np.testing.assert_array_equal(decode(read_file(path)), dn)
    tifffile.imwrite(path, dn, byteorder=">")
    np.testing.assert_array_equal(decode(read_file(path)), dn)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_cut_tiff_is_an_error_not_a_picture(cut):
    data = b"".join(encode(frame()))
    with pytest.raises(ValueError, match="not a readable TIFF"):
        decode(data[: max(0, len(data) - 1 - cut)])


def test_outside_reader_sees_the_same_picture(finished):
    """OpenCV knows nothing of this writer."""
    import cv2

    record = Session.open(finished).frames[7]
    assert isinstance(record, FrameRecord)
    image = cv2.imread(os.fspath(Path(finished) / record.file), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, Session.open(finished).stack()[7])
