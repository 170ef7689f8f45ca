"""Processes that die, by SIGKILL anywhere, SIGTERM or Ctrl-C, leave a session that resumes to the end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import capture_fakes
import pytest
from capture_fakes import FakeScene, capture, shot_lines

from capture.session import Session, SessionError

SCRIPT = Path(capture_fakes.__file__)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


def begin(session, log, seconds_per_frame):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(session), str(log), str(seconds_per_frame)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_whole(path):
    """Every shot has one frame, in its place, of the right hash, and with the right picture."""
    session = Session.open(path)
    assert session.done
    assert session.verify() == ()
    assert [record.shot for record in session.frames] == list(session.plan.shots())
    assert len(shot_lines(path)) == len(session.frames)
    assert sorted(entry.name for entry in path.iterdir()) == [
        "done.json", "facts.json", "frames", "journal.jsonl", "plan.json", "rig.json", "session.lock",
    ]  # fmt: skip
    for image, record in zip(session.stack(), session.frames, strict=True):
        light = record.shot.light
        assert image[0, 0] == (2 ** (int(light[3:]) - 1) if light else 0)
        assert image[0, 1] == len(record.shot.pose)
        assert image[1, 1] == round(record.shot.exposure_s * 1e4)


def test_killed_at_random_moments(tmp_path):
    """Six kills in one session, at moments that a seed chooses; the seventh process completes it."""
    rng = random.Random(20261121)
    session, log = tmp_path / "session", tmp_path / "lights"
    for _ in range(6):
        process = begin(session, log, 0.002)
        assert process.stdout is not None
        for _ in range(rng.randrange(5)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.communicate()
        if session.exists() and (session / "plan.json").exists():
            assert not any(problem.kind == "missing" for problem in Session.open(session).verify())
    capture(session, FakeScene())
    assert_whole(session)


def test_killed_before_and_after_every_write(tmp_path):
    """The script's ``--crash-points`` kills a fork of itself around each fsync, rename and unlink in turn."""
    process = subprocess.run(
        [sys.executable, str(SCRIPT), "--crash-points", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    points = int(process.stdout)
    # creation: 4 files; each of 3 frames: 4 steps; done.json; each step killed before and after
    assert points >= 2 * (4 * 3 + 3 * 4 + 3)
    sessions = sorted(tmp_path.iterdir())
    assert len(sessions) == points
    for path in sessions:
        assert_whole(path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_signals_leave_lights_dark_and_a_session_that_resumes(tmp_path, number, code):
    session, log = tmp_path / "session", tmp_path / "lights"
    process = begin(session, log, 0.05)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    levels = dict(line.split() for line in log.read_text().splitlines())
    assert set(levels.values()) == {"0"}
    assert any(line.endswith(" 1") for line in log.read_text().splitlines())
    stopped = Session.open(session)
    assert not stopped.done
    assert 3 <= len(stopped.frames) < 26
    assert [problem.kind for problem in stopped.verify()] == ["not done"]
    capture(session, FakeScene())
    assert_whole(session)


def test_the_lock_dies_with_its_process(tmp_path):
    session, log = tmp_path / "session", tmp_path / "lights"
    process = begin(session, log, 10)
    try:
        while not (session / "plan.json").exists() or not log.exists():
            time.sleep(0.02)
        with pytest.raises(SessionError, match="written by another process"), Session.open(session).writer():
            pass
    finally:
        process.kill()
        process.communicate()
    with Session.open(session).writer():
        pass
