"""Video devices: pixels by OpenCV's reader of image files, controls on a device that is made up here.

No kernel of a test machine has a video device: what a real one does with its controls is not tested.
"""

import threading
import time
from types import SimpleNamespace

import counterparts
import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from capture.devices import DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.drivers import opencv
from capture.drivers.opencv import OpencvCamera


class Device:
    """A device of Video4Linux by the rules of OpenCV: whole numbers of 0.1 ms, up to 0.5 s."""

    def __init__(self, source, backend):
        self.values = {
            cv2.CAP_PROP_AUTO_EXPOSURE: 3.0, cv2.CAP_PROP_EXPOSURE: 156.0, cv2.CAP_PROP_GAIN: 0.0,
            cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0, cv2.CAP_PROP_AUTO_WB: 1.0,
            cv2.CAP_PROP_CONVERT_RGB: 1.0, cv2.CAP_PROP_FOURCC: 0.0,
        }  # fmt: skip
        self.taken, self.opened, self.hangs = 0, source == 0, threading.Event()
        self.image = np.zeros((48, 64, 3), np.uint8)
        self.image[...] = (1, 2, 200)

    def isOpened(self):
        return self.opened

    def set(self, number, value):
        if number not in self.values:
            return False
        if number == cv2.CAP_PROP_EXPOSURE:
            if self.values[cv2.CAP_PROP_AUTO_EXPOSURE] != 1 or value != int(value):
                return False
            value = min(value, 5000.0)
        self.values[number] = value
        return True

    def get(self, number):
        return self.values.get(number, 0.0)

    def grab(self):
        self.taken += 1
        return True

    def read(self):
        while self.hangs.is_set():
            time.sleep(0.005)
        self.taken += 1
        return (True, self.image) if self.image is not None else (False, None)

    def release(self):
        self.opened = False


@pytest.fixture
def device(tmp_path):
    """A device and a function that makes its camera."""
    made = []

    def capture(source, backend):
        made.append(Device(source, backend))
        return made[-1]

    names = {name: value for name, value in vars(cv2).items() if name.startswith("CAP_")}
    sdk = SimpleNamespace(**names, VideoCapture=capture, VideoWriter=cv2.VideoWriter)

    def camera(**changes):
        given = {
            "source": 0,
            "backend": "v4l2",
            "fixed_exposure_s": None,
            "pixel_format": "RGB8",
            "discard": 4,
        }
        config = counterparts.opencv(tmp_path, **(given | changes))
        return OpencvCamera("main", config, sdk, config.backend)

    return camera, made


def test_pictures_of_16_bits_stay_so(tmp_path):
    with counterparts.opencv(tmp_path).open("main") as camera:
        for number in range(3):
            frame = camera.expose(0.01, 0.0, 2.0)
            assert np.array_equal(frame.dn, np.full((48, 64), 300 + number, np.uint16))
        assert frame.frame_id == 3


@pytest.mark.parametrize(
    ("pixel_format", "message"),
    [
        ("Mono8", r"main: sent uint16 of shape \(48, 64\), which is not Mono8"),
        ("RGB8", r"main: sent uint16 of shape \(48, 64\), which is not RGB8"),
    ],
)
def test_no_format_is_made_of_another(tmp_path, pixel_format, message):
    camera = counterparts.opencv(tmp_path, pixel_format=pixel_format).open("main")
    with camera, pytest.raises(SettingRefused, match=message):
        camera.expose(0.01, 0.0, 2.0)


def test_the_end_of_a_stream_is_a_lost_camera(tmp_path):
    with counterparts.opencv(tmp_path, discard=9).open("main") as camera:
        camera.expose(0.01, 0.0, 2.0)
        for _ in range(4):
            with pytest.raises(FrameLost, match="main: the stream gave no picture"):
                camera.expose(0.01, 0.0, 2.0)
        with pytest.raises(DeviceLost, match="failed 5 times in a row"):
            camera.expose(0.01, 0.0, 2.0)


def test_an_exposure_that_cannot_be_set_is_refused(tmp_path):
    camera = counterparts.opencv(tmp_path).open("main")
    with camera, pytest.raises(SettingRefused, match=r"main: its exposure is fixed at 0\.01 s, not 0\.02 s"):
        camera.expose(0.02, 0.0, 2.0)
    camera = counterparts.opencv(tmp_path, fixed_exposure_s=None).open("main")
    with (
        camera,
        pytest.raises(SettingRefused, match="images sets no exposure: set it elsewhere and give fixed"),
    ):
        camera.expose(0.01, 0.0, 2.0)


def test_what_does_not_open_says_so(tmp_path):
    camera = counterparts.opencv(tmp_path, source=str(tmp_path / "none%02d.png")).open("main")
    with pytest.raises(DeviceLost, match=r"main: images does not open .*none%02d\.png"):
        camera.__enter__()
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, 1.0)
    for settings, message in (
        ({"FOO": 1}, "OpenCV has no property CAP_PROP_FOO"),
        ({"GAMMA": 1}, "does not take"),
    ):
        with pytest.raises(SettingRefused, match=message):
            counterparts.opencv(tmp_path, settings=settings).open("main").__enter__()
    with pytest.raises(ValidationError, match="RGB12: a video device gives RGB8, or Mono or Bayer"):
        counterparts.opencv(tmp_path, pixel_format="RGB12")


def test_exposure_is_set_by_hand_in_steps_and_read_back(device):
    camera, made = device
    with camera(settings={"AUTO_WB": 0}) as open_camera:
        frame = open_camera.expose(0.01234, 0.0, 2.0)
        assert (made[0].get(cv2.CAP_PROP_AUTO_EXPOSURE), made[0].get(cv2.CAP_PROP_AUTO_WB)) == (1, 0)
        assert frame.exposure_s == pytest.approx(0.0123)
        assert frame.dn[0, 0].tolist() == [200, 2, 1]
        assert open_camera.expose(2.0, 0.0, 2.0).exposure_s == pytest.approx(0.5)  # and so it says
        assert made[0].taken == 2 * 5
        made[0].values.pop(cv2.CAP_PROP_EXPOSURE)
        with pytest.raises(SettingRefused, match=r"main: does not take an exposure of 0\.02 s"):
            open_camera.expose(0.02, 0.0, 2.0)
    assert not made[0].opened


def test_gain_in_steps_of_a_known_size(device):
    camera, _ = device
    with camera(gain_db_per_unit=0.5) as open_camera:
        assert open_camera.expose(0.01, 6.2, 2.0).gain_db == 6.0
    with camera() as open_camera, pytest.raises(SettingRefused, match="takes 0 dB only"):
        open_camera.expose(0.01, 6.0, 2.0)


def test_a_stream_that_hangs_keeps_the_deadline(device):
    camera, made = device
    with camera() as open_camera:
        made[0].hangs.set()
        start = time.monotonic()
        for message in ("took too long", "still busy with what was given up"):
            with pytest.raises(FrameLost, match=rf"main: no picture within 0\.05 s: {message}"):
                open_camera.expose(0.01, 0.0, 0.05)
        assert time.monotonic() - start < 1.0
        made[0].hangs.clear()
        assert open_camera.expose(0.02, 0.0, 5.0).exposure_s == 0.02


def test_raw_formats_are_asked_for_and_told_from_what_is_not(device):
    camera, made = device
    with camera(pixel_format="Mono12", fourcc="Y16 ") as open_camera:
        assert made[0].get(cv2.CAP_PROP_CONVERT_RGB) == 0
        with pytest.raises(SettingRefused, match=r"sent uint8 of shape .*which is not Mono12: a fourcc such"):
            open_camera.expose(0.01, 0.0, 2.0)
        samples = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
        made[0].image = samples.view(np.uint8).reshape(
            1, -1
        )  # what OpenCV makes of a format it does not know
        assert np.array_equal(open_camera.expose(0.01, 0.0, 2.0).dn, samples)
        made[0].image = samples << 4
        with pytest.raises(SettingRefused, match="sent 49136, which 12 bits do not hold"):
            open_camera.expose(0.01, 0.0, 2.0)
    with camera(pixel_format="Mono8") as open_camera:
        made[1].image = np.full((48, 64, 3), 7, np.uint8)
        assert open_camera.expose(0.01, 0.0, 2.0).dn.shape == (48, 64)
        made[1].image[5, 5] = (7, 8, 7)
        with pytest.raises(SettingRefused, match="which is not Mono8"):
            open_camera.expose(0.01, 0.0, 2.0)


def test_the_survey_opens_nothing(monkeypatch):
    monkeypatch.setattr(opencv.sys, "platform", "darwin")
    assert opencv.survey() == "devices by number: source: 0 is the first"
