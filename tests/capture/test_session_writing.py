"""The writer of a session: its order, its locks, its queue, and disks that fail."""

import errno
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from capture_fakes import RIG, frame, small_plan

from capture.plan import CapturePlan
from capture.session import DiskFailed, Session, SessionError


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


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFailed), (errno.EACCES, SessionError)])
def test_an_end_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch, number, kind):
    session = Session.create(tmp_path / "s", CapturePlan(name="two", blocks=small_plan().blocks[1:]), {})
    with session.writer() as writer:
        for shot in session.pending():
            writer.put(shot, frame())
    real = os.replace

    def full(source, target):
        if target.name in ("done.json", "facts.json"):
            raise OSError(number, os.strerror(number))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(
            SessionError, match=r"done\.json cannot be written: .*; the frames are safe"
        ) as told:
            session.finish()
        assert type(told.value) is kind
        with pytest.raises(SessionError, match="a session cannot be made here") as told:
            Session.create(tmp_path / "t", small_plan(), {})
        assert type(told.value) is kind
    session.finish()
    assert Session.open(session.path).verify() == ()


def test_a_disk_that_took_no_frame_may_take_the_line_that_says_so(tmp_path, monkeypatch):
    session = Session.create(tmp_path / "s", small_plan(), RIG)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("capture.session.writer.write_part", full)
    with pytest.raises(DiskFailed), session.writer() as writer:
        writer.put(session.pending()[0], frame())
    (line,) = (session.path / "journal.jsonl").read_text().splitlines()
    assert json.loads(line)["text"].startswith(f"{session.path}: shot 0 cannot be written: [Errno 28]")
