"""Cameras in a process of their own: killed, hung, never started, orphaned."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import isolated_fakes
import numpy as np
import pytest
from capture_fakes import RIG, FakeScene, open_fake_rig, small_plan
from isolated_fakes import KINDS, LIMITS, config

from capture.devices import DeviceError, DeviceLost, FrameLost, NotReady, TriggeredCamera
from capture.drivers import isolated
from capture.drivers.isolated import process
from capture.runner import RunSettings, run
from capture.session import Session

WAIT_S = 20.0
"""For a computer that is busy with other things; nothing that is well takes so long."""


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a process that nobody has waited for is a zombie of init's where init does not reap
    return not _zombie(pid)


def _zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def again(camera, deadline_s=5.0):
    """A frame after a fault, however long the next process takes to start."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return camera.expose(0.01, 0.0, deadline_s)
        except FrameLost:
            assert time.monotonic() < end


@pytest.fixture(scope="module")
def camera():
    """One process for all tests that do it no harm."""
    with config(triggered=True).open("main") as camera:
        yield camera


def test_pixels_and_reports_come_across(camera):
    frame = camera.expose(0.0123, 1.5, WAIT_S)
    expected = np.arange(48, dtype=np.uint16).reshape(6, 8)
    assert np.array_equal(frame.dn.ravel()[1:], expected.ravel()[1:])
    assert frame.dn[0, 0] != os.getpid() % 4096
    assert (frame.exposure_s, frame.gain_db, frame.black_level_dn) == (0.0123, 1.5, 64.0)
    assert (frame.pixel_format, frame.temperature_c) == ("Mono12", None)
    assert not frame.dn.flags.writeable
    assert camera.limits == LIMITS


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_errors_keep_their_kind_and_words(camera, number):
    with pytest.raises(KINDS[number]) as caught:
        camera.expose(0.01, 11.0 + number, WAIT_S)
    assert type(caught.value) is KINDS[number]
    assert str(caught.value) == ("told: so" if KINDS[number] is ValueError else "main: told: so")
    if KINDS[number] is not ValueError:
        assert caught.value.device == "main"


def test_bursts_come_across_and_can_be_left(camera):
    assert isinstance(camera, TriggeredCamera)
    assert not isinstance(config().open("main"), TriggeredCamera)
    with closing(camera.burst([(0.01, 0.0), (0.02, 6.0)], WAIT_S)) as frames:
        told = [(frame.exposure_s, frame.gain_db, frame.frame_id) for frame in frames]
    assert [setting[:2] for setting in told] == [(0.01, 0.0), (0.02, 6.0)]
    assert told[1][2] == told[0][2] + 1
    with closing(camera.burst([(0.01, 0.0)] * 1000, WAIT_S)) as frames:
        next(frames)
    frame = camera.expose(0.03, 0.0, WAIT_S)
    assert frame.exposure_s == 0.03
    assert frame.frame_id < told[1][2] + 900, "the burst went on after it was left"
    with pytest.raises(FrameLost, match="main: told: so"):
        list(camera.burst([(0.01, 0.0), (0.01, 12.0)], WAIT_S))
    assert camera.expose(0.03, 0.0, WAIT_S).exposure_s == 0.03


def test_a_killed_process_costs_one_frame():
    with config().open("main") as camera:
        first = camera.expose(0.01, 0.0, WAIT_S)
        pid = camera._process._popen.pid
        threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
        start = time.monotonic()
        with pytest.raises(FrameLost, match=r"^main: the driver's process was killed by SIGKILL"):
            camera.expose(0.01, 20.0, WAIT_S)
        assert time.monotonic() - start < WAIT_S / 2
        # what was left of the deadline has sufficed for the next process
        second = camera.expose(0.01, 0.0, 0.5)
        third = camera.expose(0.01, 0.0, WAIT_S)
    assert second.dn[0, 0] != first.dn[0, 0]
    assert second.frame_id == first.frame_id + 2
    assert third.frame_id == second.frame_id + 1


def test_a_hung_process_is_ended_at_the_deadline():
    with config().open("main") as camera:
        pid = camera._process._popen.pid
        start = time.monotonic()
        with pytest.raises(FrameLost, match=r"did not answer within 0\.3 s and was ended: stuck in the SDK"):
            camera.expose(0.01, 21.0, 0.3)
        assert 0.29 < time.monotonic() - start < 2.0
        assert not runs(pid)
        # the next is not open so soon: a deadline is a deadline, and this is no further failure
        for _ in range(3):
            with pytest.raises(NotReady, match="is starting again"):
                camera.expose(0.01, 0.0, 0.001)
        assert again(camera).exposure_s == 0.01


def test_a_program_that_was_suspended_takes_the_answer_that_is_there(monkeypatch):
    with config().open("main") as camera:
        pid, replies = camera._process._popen.pid, camera._process._replies
        ahead_s = [0.0]
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s[0], sleep=time.sleep)
        monkeypatch.setattr(process, "time", clock)
        get = replies.get

        def suspended(timeout):
            monkeypatch.setattr(replies, "get", get)
            ahead_s[0] = 10.0
            raise queue.Empty

        monkeypatch.setattr(replies, "get", suspended)
        assert camera.expose(0.01, 0.0, 1.0).exposure_s == 0.01
        assert camera._process._popen.pid == pid


def test_three_ends_in_a_row_are_a_lost_camera():
    with config().open("main") as camera:
        for _ in range(2):
            with pytest.raises(FrameLost, match="ended with status 7: out of luck"):
                camera.expose(0.01, 22.0, WAIT_S)
        with pytest.raises(DeviceLost, match=r"main: failed 3 times in a row: .* status 7: out of luck"):
            camera.expose(0.01, 22.0, WAIT_S)
        with pytest.raises(DeviceLost, match="3 times in a row"):
            camera.expose(0.01, 0.0, WAIT_S)
    with pytest.raises(DeviceError, match="main: is not open"):
        camera.expose(0.01, 0.0, WAIT_S)


def test_a_camera_that_does_not_come_back_is_lost(tmp_path):
    with config(fault="once", mark=tmp_path / "mark").open("main") as camera:
        with pytest.raises(FrameLost, match="status 7"):
            camera.expose(0.01, 22.0, WAIT_S)
        with pytest.raises(FrameLost, match="main: no such serial number"):
            camera.expose(0.01, 0.0, WAIT_S)
        with pytest.raises(DeviceLost, match="3 times in a row: no such serial number"):
            camera.expose(0.01, 0.0, WAIT_S)


def test_a_capture_goes_on_where_the_driver_crashes(tmp_path):
    """Every process dies of its seventh frame; each costs its shot a second attempt, and the run nothing."""
    session = Session.create(tmp_path / "session", small_plan(), RIG)
    with open_fake_rig(FakeScene()) as rig, config(fault="seventh").open("main") as camera:
        rig.cameras = {"main": camera}
        # a busy computer may be late in starting the next process: it is waited for
        with closing(run(session.plan, rig, session, settings=RunSettings(retries=1))) as events:
            list(events)
    again_at = [number for number, record in enumerate(session.frames) if record.attempts > 1]
    assert again_at == [6, 12, 18, 24]
    assert session.skipped == ()
    assert session.verify() == ()


def test_one_that_hangs_when_it_is_to_open_again_is_a_failure(tmp_path):
    with config(fault="hangs again", mark=tmp_path / "mark").open("main") as camera:
        camera._restart_s = 0.5
        with pytest.raises(FrameLost, match="status 7"):
            camera.expose(0.01, 22.0, WAIT_S)
        with pytest.raises(FrameLost, match=r"had not opened the camera after 0\.5 s and was ended"):
            camera.expose(0.01, 0.0, 5.0)
        with pytest.raises(DeviceLost, match=r"3 times in a row: .* had not opened the camera"):
            camera.expose(0.01, 0.0, 5.0)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("import", ValueError, "^camera main: driver fake wants the package nothing$"),
        ("lost", DeviceLost, "^main: no such serial number$"),
        ("crash", DeviceLost, "^main: could not be opened: the driver's process was killed by SIGABRT"),
    ],
)
def test_what_opening_raises_comes_across(fault, kind, message):
    camera = config(fault=fault).open("main")
    with pytest.raises(kind, match=message):
        camera.__enter__()
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, WAIT_S)


def test_one_that_hangs_when_it_is_opened_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "START_S", 1.0)
    (tmp_path / "mark").touch()
    with pytest.raises(
        DeviceLost, match=r"^main: could not be opened: .* had not opened the camera after 1 s and was ended"
    ):
        config(fault="hangs again", mark=tmp_path / "mark").open("main").__enter__()


def test_a_configuration_that_cannot_be_imported_says_so():
    class Local(isolated_fakes.FakeConfig):
        pass

    local = Local.model_validate(config().model_dump())
    with pytest.raises(DeviceLost, match=r"could not be opened: .* AttributeError: .*has no attribute"):
        local.open("main").__enter__()


def test_leaving_closes_the_camera_and_ends_the_process(tmp_path):
    mark = tmp_path / "mark"
    with config(mark=mark).open("main") as camera:
        pid = int(mark.read_text())
        assert runs(pid)
        assert camera.expose(0.01, 0.0, WAIT_S)
    assert not mark.exists(), "the camera was not left"
    assert not runs(pid)


def test_one_that_cannot_be_killed_is_left_behind(monkeypatch):
    """As one that waits for a device in the kernel; stopped, so that it neither answers nor ends."""
    camera = config().open("main")
    with camera:
        left = camera._process
        monkeypatch.setattr(left._popen, "kill", lambda: left._popen.send_signal(signal.SIGSTOP))
        start = time.monotonic()
        with pytest.raises(FrameLost, match=r"did not answer within 0\.2 s and was ended"):
            camera.expose(0.01, 20.0, 0.2)
        assert time.monotonic() - start < 3.0
        assert again(camera).exposure_s == 0.01
    monkeypatch.undo()
    left.kill()
    assert left._popen.returncode is not None


def test_leaving_does_not_wait_for_one_that_hangs(monkeypatch):
    """As when Ctrl-C interrupts an exposure."""
    monkeypatch.setattr(process, "CLOSE_S", 0.2)
    with config().open("main") as camera:
        asked = camera._process
        asked._ask("expose", exposure_s=0.01, gain_db=20.0, deadline_s=60.0)
        start = time.monotonic()
    assert time.monotonic() - start < 5.0
    assert asked._popen.returncode is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_no_process_outlives_the_one_that_asks(tmp_path):
    """In the middle of a frame: it has its deadline, and the time to leave the camera."""
    mark = tmp_path / "mark"
    with subprocess.Popen([sys.executable, isolated_fakes.__file__, str(mark)]) as parent:
        until(mark.with_suffix(".busy").exists)
        pid = int(mark.read_text())
        assert runs(pid)
        parent.kill()
    until(lambda: not runs(pid))


def test_messages_of_every_length_come_across():
    read, write = os.pipe()
    data = np.random.default_rng(1).integers(0, 255, 300_001, dtype=np.uint8)
    with os.fdopen(read, "rb", buffering=0) as source, os.fdopen(write, "wb", buffering=0) as sink:
        sent = threading.Thread(
            target=lambda: [process.write_message(sink, {"n": n}, data[:n]) for n in (0, 1, 300_001)]
        )
        sent.start()
        for size in (0, 1, 300_001):
            message = process.read_message(source)
            assert message.head == {"n": size}
            assert np.array_equal(message.data, data[:size])
        sent.join()
        sink.close()
        assert process.read_message(source) is None


def test_a_camera_says_which_it_is_from_its_process():
    with config().open("main") as camera:
        assert camera.identity == {"model": "fake", "serial": "of main"}
