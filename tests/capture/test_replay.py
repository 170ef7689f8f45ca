"""Recordings as cameras."""

from contextlib import closing

import cv2
import numpy as np
import pytest
import test_drivers
from capture_fakes import RIG, FakeScene, open_fake_rig, small_plan
from pydantic import ValidationError
from test_drivers import replay

from capture.devices import DeviceError, DeviceLost, SettingRefused
from capture.runner import run
from capture.session import Session, SessionError

recorded, pictures = test_drivers.recorded, test_drivers.pictures


def test_a_replayed_session_gives_the_same_pixels_and_reports(recorded, tmp_path):
    """A run with the recording as its camera: the same plan, the same frames."""
    session = Session.create(tmp_path / "again", small_plan(), RIG)
    with open_fake_rig(FakeScene()) as rig, replay(recorded).open("main") as camera:
        rig.cameras = {"main": camera}
        with closing(run(session.plan, rig, session)) as events:
            list(events)
    original = Session.open(recorded)
    assert session.skipped == ()
    assert [record.sha256 for record in session.frames] == [record.sha256 for record in original.frames]
    assert session.frames[3].temperature_c == original.frames[3].temperature_c


def test_a_folder_is_played_in_natural_order(pictures):
    with replay(pictures, exposures_s=[0.01, 0.02]).open("main") as camera:
        seen = [int(camera.expose((0.01, 0.02)[n % 2], 0.0, 1.0).dn[0, 0]) - 300 for n in range(12)]
        assert seen == list(range(1, 13))
        with pytest.raises(DeviceLost, match="main: the recording ends after 12 frames"):
            camera.expose(0.01, 0.0, 1.0)


def test_replay_begins_where_it_is_told(pictures):
    with replay(pictures, exposures_s=0.01, first=10).open("main") as camera:
        assert camera.expose(0.01, 0.0, 1.0).dn[0, 0] == 311


def test_replay_refuses_other_settings_and_loses_no_frame(recorded):
    with replay(recorded).open("main") as camera:
        with pytest.raises(SettingRefused, match=r"frame 0 was recorded with 0\.01 s and 0 dB, not 0\.02 s"):
            camera.expose(0.02, 0.0, 1.0)
        with pytest.raises(SettingRefused, match=r"not 0\.01 s and 6 dB"):
            camera.expose(0.01, 6.0, 1.0)
        assert camera.expose(0.01, 0.0, 1.0).frame_id == 0


def test_replay_gives_colours_as_rgb(tmp_path):
    bgr = np.zeros((6, 8, 3), np.uint8)
    bgr[..., 2] = 200
    cv2.imwrite(str(tmp_path / "red.png"), bgr)
    with replay(tmp_path, exposures_s=1, pixel_format="RGB8").open("main") as camera:
        assert camera.expose(1, 0, 1.0).dn[0, 0].tolist() == [200, 0, 0]


def test_replay_says_what_is_wrong_with_a_recording(tmp_path, pictures):
    with pytest.raises(ValueError, match="nowhere is neither a session nor a folder of images"):
        replay(tmp_path / "nowhere").open("main")
    with pytest.raises(ValueError, match="holds no TIFF, PNG, BMP or JPEG"):
        replay(tmp_path).open("main")
    with pytest.raises(ValueError, match="give exposures_s"):
        replay(pictures).open("main")
    with pytest.raises(ValidationError, match="greater than 0"):
        replay(pictures, exposures_s=[0.01, 0])
    (tmp_path / "broken.png").write_bytes(b"")
    with replay(tmp_path, exposures_s=1).open("main") as camera:
        with pytest.raises(
            DeviceError, match=r"frame 0 of the recording: .*broken\.png is not a readable image"
        ):
            camera.expose(1, 0, 1.0)
        (tmp_path / "broken.png").unlink()
        with pytest.raises(DeviceError, match="No such file"):
            camera.expose(1, 0, 1.0)
        cv2.imwrite(str(tmp_path / "broken.png"), np.zeros((6, 8), np.uint8))
        with pytest.raises(DeviceError, match="Mono12 frame has dtype uint8, want uint16"):
            camera.expose(1, 0, 1.0)


def test_replay_of_a_camera_the_session_has_not(recorded):
    with pytest.raises(SessionError, match="no camera 'side': it has main"):
        replay(recorded, camera="side").open("main")
