"""Captures that die, or whose devices fail, through the command: nothing lost, nothing twice, lights dark."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest
import pytest
import yaml

from capture.session import FrameRecord, Session
from rigs.simulated import Twin

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

REPEATS = 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The relief's plan with repeats: noise of the same request must go on where it stopped."""
    data = conftest.plan_data("relief")
    data["blocks"][1]["repeats"] = REPEATS
    return conftest.dump(tmp_path_factory.mktemp("plan") / "plan.yaml", data)


def command(mini, plan, session, *more):
    """The installed command, as a user would type it."""
    program = Path(sys.executable).with_name("gnomon")
    return [
        str(word) for word in (program, "capture", mini.rig, plan, session, "--simulate", mini.truth, *more)
    ]


def journalled(session: Path) -> int:
    path = session / "journal.jsonl"
    return path.read_bytes().count(b'"event":"frame"') if path.exists() else 0


def wait_for(session: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Return when the journal has that many frames, or the process has ended."""
    while process.poll() is None and journalled(session) < lines:
        time.sleep(0.001)


def begin(words):
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def content(session: Session):
    """What a resumed session must share with one that was never interrupted: all but counters and clocks."""
    clocks = {"timestamp_ns", "frame_id", "attempts", "reasons"} | FrameRecord.UNSTEADY
    return [record.model_dump(exclude=clocks) for record in session.frames]


@pytest.fixture(scope="module")
def whole(mini, plan, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The session that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "session"
    done = subprocess.run(command(mini, plan, path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Session.open(path)


def test_killed_at_random_moments_and_resumed(mini, plan, whole, tmp_path):
    """SIGKILL within the import, the first rendering, a write or the pause between, as a seed chooses."""
    rng = random.Random(20261122)
    path = tmp_path / "session"
    kills = 0
    for _ in range(5):
        process = begin(command(mini, plan, path, "--resume"))
        wait_for(path, journalled(path) + rng.randrange(0, 25), process)
        time.sleep(rng.uniform(0, 0.02))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        if (path / "plan.json").exists():
            cut = Session.open(path)
            assert {problem.kind for problem in cut.verify()} <= {"not done", "damaged", "extra"}
            assert not any(
                problem.file.endswith(".tif") and problem.kind == "damaged" for problem in cut.verify()
            )
    assert kills >= 4
    before = len(Session.open(path).frames)
    assert 0 < before < len(whole.frames)
    done = subprocess.run(
        command(mini, plan, path, "--resume"), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    session = Session.open(path)
    assert session.done
    assert session.verify() == ()
    assert content(session) == content(whole)
    assert len(journal_shots(path)) == len(set(journal_shots(path))) == len(whole.frames)


def journal_shots(path: Path) -> list[int]:
    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]
    return [line["shot"]["index"] for line in lines if line["event"] == "frame"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_and_resumed(mini, plan, whole, tmp_path, number, code):
    path = tmp_path / "session"
    process = begin(command(mini, plan, path))
    wait_for(path, 3, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    how = {130: "interrupted", 143: "ended by the system"}[code]
    assert re.fullmatch(rf"gnomon: {how}, lights dark: go on with `gnomon capture .* --resume .*`\n", err)
    stopped = Session.open(path)
    assert 3 <= len(stopped.frames) < len(whole.frames)
    assert [problem.kind for problem in stopped.verify()] == ["not done"]


# --- devices that fail -------------------------------------------------------------------------------------


@pytest.fixture
def twins(monkeypatch):
    """Every twin that a command opens, to be asked afterwards what burns."""
    made = []

    class Watched(Twin):
        def __init__(self, *words, **named):
            super().__init__(*words, **named)
            self.burning = {}
            self.most = 0
            made.append(self)

        def set_light(self, name, level):
            try:
                super().set_light(name, level)
            finally:
                self.burning[name] = level
                self.most = max(self.most, sum(value > 0 for value in self.burning.values()))

    monkeypatch.setattr("rigs.rig.Twin", Watched)
    return made


@pytest.fixture
def with_faults(mini, tmp_path):
    def write(*faults):
        data = yaml.safe_load(mini.truth.read_text()) | {"faults": list(faults)}
        return conftest.dump(tmp_path / "faulty.yaml", data)

    return write


def lost(*shots, kind="lost", **more):
    return {"kind": kind, "camera": "top", "shots": list(shots), **more}


@pytest.mark.parametrize(
    ("faults", "skipped", "reason"),
    [
        ([lost(6)], [], None),
        ([lost(6, 7)], [], None),
        ([lost(6, 7, 8)], [6], "no frame came"),
        ([lost(6, 7, 8, kind="late", delay_s=2.0)], [6], "late"),
        ([lost(6, kind="exposure", factor=2.0)], [], None),
        ([lost(6, 7, 8, kind="exposure", factor=2.0)], [6], "reports"),
        ([lost(6, 7, 8, kind="refused")], [6], "was not applied"),
        ([{"kind": "dead_light", "light": "led03", "noticed": True}], [10, 11, 12], "led03: does not light"),
    ],
)
def test_faults_of_single_shots(
    gnomon, mini, captured, twins, with_faults, tmp_path, faults, skipped, reason
):
    """Tried three times, then skipped and said so; what is there is right; what is not can be had later."""
    path = tmp_path / "session"
    words = ["capture", mini.rig, mini.plan("relief"), path, "--simulate"]
    answer = gnomon(*words, with_faults(*faults))
    assert answer.code == (3 if skipped else 0)
    lines = answer.err.splitlines()
    assert [line.split(" skipped: ")[0] for line in lines] == [f"shot {index}" for index in skipped]
    assert all(reason in line for line in lines)
    (twin,) = twins
    assert twin.most == 1
    assert not any(twin.burning.values())
    session = Session.open(path)
    assert [record.shot.index for record in session.skipped] == skipped
    assert [problem.kind for problem in session.verify()] == []
    whole = content(captured("relief"))
    if faults[0]["kind"] == "exposure":
        # the refused frame was an answer too, so the next answer to that request has other noise
        whole[6].pop("sha256")
        taken = content(session)
        for record in taken:
            if record["shot"]["index"] == 6:
                assert record.pop("sha256")
    else:
        taken = content(session)
    assert taken == [each for index, each in enumerate(whole) if index not in skipped]
    if skipped:
        answer = gnomon(*words, mini.truth, "--resume")
        assert answer.code == 0, answer.err
        assert content(Session.open(path)) == content(captured("relief"))


def test_a_camera_that_vanishes(gnomon, mini, captured, twins, with_faults, tmp_path):
    path = tmp_path / "session"
    words = ["capture", mini.rig, mini.plan("relief"), path, "--simulate"]
    answer = gnomon(*words, with_faults({"kind": "vanish", "camera": "top", "first": 9}))
    assert answer.code == 5
    (line,) = answer.err.splitlines()
    assert line.startswith("gnomon: top: the camera does not answer any more")
    assert "resume" in line
    (twin,) = twins
    assert twin.most == 1
    assert not any(twin.burning.values())
    answer = gnomon("session", "verify", path)
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert "31 of 40 shots have no frame" in line
    answer = gnomon("capture", mini.rig, path, "--simulate", mini.truth, "--resume")
    assert answer.code == 0, answer.err
    assert content(Session.open(path)) == content(captured("relief"))


def test_a_dead_light_that_nobody_notices_gives_dark_frames(gnomon, mini, captured, with_faults, tmp_path):
    path = tmp_path / "session"
    truth = with_faults({"kind": "dead_light", "light": "led03"})
    answer = gnomon("capture", mini.rig, mini.plan("relief"), path, "--simulate", truth)
    assert answer.code == 0, answer.err
    dark = Session.open(path).stack().select(light="led03")
    lit = captured("relief").stack().select(light="led03")
    assert len(dark) == len(lit) == 3
    assert all(one.mean() < 0.5 * other.mean() for one, other in zip(dark, lit, strict=True))
