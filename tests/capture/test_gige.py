"""GenICam cameras over real GigE Vision: a server on the loopback that we did not write, Aravis's.

Its picture, a ramp of 255 columns, follows the exposure by its logarithm. Debian has it in libaravis-0.8-0.
"""

import subprocess
import sys
import time
from contextlib import closing
from ctypes.util import find_library

import pytest

pytest.importorskip("harvesters", reason="the package harvesters is not installed")

from genicam import gentl
from gige import GigeAcquirer
from test_drivers import (
    test_every_camera_closes_on_an_error,
    test_every_camera_counts_its_frames,
    test_every_camera_follows_the_exposure,
    test_every_camera_reports_what_it_did,
    test_no_camera_outlasts_its_deadline,
    test_no_camera_works_unless_open,
)

from capture.devices import DeviceLost, FrameLost, SettingRefused
from capture.drivers.genicam import GenicamCameraConfig

SERVER = """
import ctypes, threading
new = ctypes.CDLL("libaravis-0.8.so.0").arv_gv_fake_camera_new
new.restype = ctypes.c_void_p
assert new(b"127.0.0.1", b"GV01")
threading.Event().wait()
"""
pytestmark = pytest.mark.skipif(find_library("aravis-0.8") is None, reason="libaravis-0.8-0 is not installed")
ADDRESS = "127.0.0.1"
START_S = 10.0

contract = (
    test_every_camera_closes_on_an_error,
    test_every_camera_counts_its_frames,
    test_every_camera_follows_the_exposure,
    test_every_camera_reports_what_it_did,
    test_no_camera_outlasts_its_deadline,
    test_no_camera_works_unless_open,
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a server, one at a time on this computer: the protocol has one port only."""
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path_factory.getbasetemp().parent / "gige.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [sys.executable, "-c", SERVER]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                end = time.monotonic() + START_S
                while not _answers():
                    assert time.monotonic() < end
                    time.sleep(0.02)
                yield ADDRESS
            finally:
                server.kill()


def _answers():
    try:
        GigeAcquirer(ADDRESS).close()
    except gentl.GenericException:
        return False
    return True


@pytest.fixture
def camera_at(monkeypatch):
    """Makes an unopened camera, and what it finds in the place of harvesters."""

    def make(address, **changes):
        acquirers = []

        def opened(device, config):
            acquirers.append(GigeAcquirer(address))
            return acquirers[-1].opened(device, config)

        monkeypatch.setattr("capture.drivers.genicam.camera.open_device", opened)
        given = {
            "width": 255, "height": 48, "pixel_format": "Mono8", "exposure_min_s": 1e-5, "exposure_max_s": 1,
        }  # fmt: skip
        return GenicamCameraConfig.model_validate(given | changes).open("main"), acquirers

    return make


@pytest.fixture
def make_camera(camera_at, address):
    return lambda: camera_at(address)[0]


@pytest.mark.parametrize("pixel_format", ["Mono8", "Mono16", "RGB8", "BayerRG8", "BayerGB8"])
def test_the_picture_follows_the_exposure_in_every_format(camera_at, address, pixel_format):
    camera, _ = camera_at(address, pixel_format=pixel_format)
    with camera:
        means = [float(camera.expose(exposure_s, 0.0, 5.0).dn.mean()) for exposure_s in (0.001, 0.003, 0.01)]
    assert means[0] < means[1] < means[2]


def test_a_free_camera_takes_bursts_of_several_exposures(camera_at, address):
    settings = [(0.001, 0.0)] * 3 + [(0.01, 0.0)] * 2
    camera, _ = camera_at(address, trigger="free", nodes={"AcquisitionFrameRate": 100.0})
    with camera, closing(camera.burst(settings, 5.0)) as frames:
        taken = [(frame.frame_id, float(frame.dn.mean())) for frame in frames]
    assert [number for number, _ in taken] == [1, 2, 3, 4, 5]
    assert max(mean for _, mean in taken[:3]) < min(mean for _, mean in taken[3:])


def test_a_packet_that_is_lost_costs_one_frame(camera_at, address):
    camera, acquirers = camera_at(address)
    with camera:
        camera.expose(0.01, 0.0, 5.0)
        stream = acquirers[0].stream
        acquirers[0].stream = _Losing(stream)
        with pytest.raises(FrameLost, match="a frame came incomplete"):
            camera.expose(0.01, 0.0, 5.0)
        acquirers[0].stream = stream
        assert camera.expose(0.01, 0.0, 5.0).frame_id == 2


class _Losing:
    """A socket that loses every payload packet."""

    def __init__(self, stream):
        self._stream = stream

    def recv(self, size):
        while (packet := self._stream.recv(size))[4] & 0x0F == 3:
            pass
        return packet

    def __getattr__(self, name):
        return getattr(self._stream, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_format": "Mono12"}, "has no pixel format Mono12, packed or not, only .*Mono8"),
        ({"trigger": "Line1"}, "does not take TriggerSource = Line1: it takes Line0, Software"),
        ({"exposure_max_s": 100}, "takes .* s only, the rig file says exposure_max_s 100"),
        ({"gain_max_db": 48}, "GainRaw counts steps: give gain_db_per_raw, .*, or gain_max_db 0"),
        ({"width": 4096}, "does not take Width = 4096: it takes 1 to 2048"),
    ],
)
def test_what_the_camera_cannot_do_is_told_on_opening(camera_at, address, changes, message):
    camera, _ = camera_at(address, **changes)
    with pytest.raises(SettingRefused, match=f"^main: {message}"), camera:
        pass


def test_a_camera_that_falls_silent_is_gone(camera_at, address):
    camera, acquirers = camera_at(address)
    with camera:
        camera.expose(0.01, 0.0, 5.0)
        acquirers[0].commands.socket.connect((address, 9))  # where nobody listens
        with pytest.raises(DeviceLost, match="is gone"):
            camera.expose(0.01, 0.0, 0.3)
        acquirers[0].commands.socket.connect((address, 3956))
