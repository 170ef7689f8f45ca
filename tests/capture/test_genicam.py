"""GenICam cameras against two producers that we did not write.

Not tested: a camera of glass and silicon; a hardware trigger; the chunks of GigE Vision or USB3 Vision.
"""

import os
import signal
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("harvesters", reason="the package harvesters is not installed")

from genicam_counterparts import tlsimu, tlsimu_config, viky, viky_config
from test_drivers import (
    test_every_camera_closes_on_an_error,
    test_every_camera_counts_its_frames,
    test_no_camera_outlasts_its_deadline,
    test_no_camera_works_unless_open,
)

from capture.devices import (
    Camera,
    DeviceError,
    DeviceLost,
    FrameLost,
    Identified,
    SettingRefused,
    TriggeredCamera,
)
from capture.drivers.genicam import GenicamCameraConfig, survey

needs_viky = pytest.mark.skipif(viky() is None, reason="the genicam package has no viky.cti")
SMALL = {
    "exposure_min_s": 1e-5,
    "exposure_max_s": 1,
    "gain_max_db": 24,
    "width": 8,
    "height": 6,
    "pixel_format": "Mono8",
}

contract = (
    test_every_camera_closes_on_an_error,
    test_every_camera_counts_its_frames,
    test_no_camera_outlasts_its_deadline,
    test_no_camera_works_unless_open,
)


@pytest.fixture
def simulator():
    """Makes configurations of TLSimu."""
    if tlsimu() is None:
        pytest.skip("TLSimu cannot be fetched: pip download genicam==1.5.0 fails")
    return tlsimu_config


@pytest.fixture(params=[pytest.param(viky_config, marks=needs_viky, id="viky"), "TLSimu"])
def make_camera(request):
    make = request.getfixturevalue("simulator") if request.param == "TLSimu" else request.param
    return lambda: make().open("main")


def test_both_producers_keep_the_protocol_and_report(make_camera):
    camera = make_camera()
    assert isinstance(camera, Camera)
    with camera:
        frame = camera.expose(0.01, 0.0, 2.0)
        assert isinstance(camera, Identified)
        # as the rig file names it, whatever its nodes say
        assert camera.identity["serial"] in ("0", "SN_InterfaceA_0")
        assert camera.identity["model"] in ("Viky", "TLSimuMono")
    assert (frame.exposure_s, frame.gain_db, frame.pixel_format) == (pytest.approx(0.01), 0.0, "Mono8")
    assert frame.dn.shape == (camera.limits.height, camera.limits.width)
    assert not frame.dn.flags.writeable
    assert frame.dn.std() > 0


# ---------------------------------------------------------------- viky


@needs_viky
def test_a_free_camera_takes_bursts_with_no_frame_between_and_none_shared():
    # slow enough for a computer that is busy with other things
    camera = viky_config(nodes={"AcquisitionFrameRate": 60}).open("main")
    assert isinstance(camera, TriggeredCamera)
    with camera, closing(camera.burst([(0.01, 0.0)] * 30, 2.0)) as frames:
        taken = [(frame, frame.dn.copy()) for frame in frames]
    assert all(b.frame_id == a.frame_id + 1 for (a, _), (b, _) in pairwise(taken))
    assert all(np.array_equal(frame.dn, copy) for frame, copy in taken)
    assert all(b.timestamp_ns > a.timestamp_ns for (a, _), (b, _) in pairwise(taken))


@needs_viky
def test_colours_come_without_alpha():
    with viky_config(pixel_format="RGB8").open("main") as camera:
        frame = camera.expose(0.01, 0.0, 2.0)
        assert camera._open.nodes.read("PixelFormat") == "RGBa8"
    assert frame.pixel_format == "RGB8"
    assert frame.dn.shape == (100, 120, 3)
    # the camera is called red, and its ball is
    assert frame.dn[..., 0].max() > 100


@needs_viky
def test_two_cameras_of_one_producer_do_not_disturb_each_other():
    with viky_config().open("one") as one:
        with viky_config(serial="1").open("two") as two:
            assert two.expose(0.01, 0.0, 2.0).dn.shape == (100, 120)
            assert one.expose(0.01, 0.0, 2.0).frame_id == 1
        assert one.expose(0.01, 0.0, 2.0).frame_id == 2


@needs_viky
@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"trigger": "software"}, SettingRefused, "has no TriggerMode, so cannot .*: say trigger: free"),
        ({"fixed_exposure_s": None}, SettingRefused, "has no node ExposureTime, .*fixed_exposure_s"),
        ({"serial": None}, DeviceError, "say which camera by its serial, .*Viky serial 0, .*Viky serial 2"),
        ({"serial": "77"}, DeviceLost, r"no camera found \(serial 77\); seen: .*Viky serial 0"),
        ({"nodes": {"Bogus": 1}}, SettingRefused, "nodes.Bogus: has no node Bogus"),
        ({"nodes": {"Root": 1}}, SettingRefused, "nodes.Root: Root is no number, choice, switch or text"),
        (
            {"nodes": {"AcquisitionFrameRate": 999}}, SettingRefused,
            "nodes.AcquisitionFrameRate: does not take AcquisitionFrameRate = 999: it takes 1 to 200",
        ),
        ({"width": 90}, SettingRefused, "does not take Width = 90: it takes 100 to 800 in steps of"),
        ({"offset_x": 4}, SettingRefused, "has no node OffsetX"),
        ({"pixel_format": "Mono12"}, SettingRefused, "has no pixel format Mono12, .* only RGBa8, Mono8"),
        ({"black_level": 3.0}, SettingRefused, "has no BlackLevel: leave black_level out"),
        ({"description": Path("nowhere.xml")}, DeviceError, "description nowhere.xml: no such file"),
        ({"description": Path(__file__)}, DeviceError, "description .*test_genicam.py describes no camera: "),
        ({"producers": Path("nowhere.cti")}, DeviceError, "nowhere.cti: no such producer"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_line(changes, kind, message):
    camera = viky_config(**changes).open("main")
    with pytest.raises(kind, match=f"^main: {message}") as caught, camera:
        pass
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, 1.0)


def test_a_file_that_is_no_producer(tmp_path, monkeypatch):
    path = tmp_path / "broken.cti"
    path.write_text("no library")
    with pytest.raises(
        DeviceError, match=r"producer .*broken\.cti cannot be used: .*(invalid ELF|too short|not a)"
    ):
        GenicamCameraConfig.model_validate(SMALL | {"producers": path}).open("main").__enter__()
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(tmp_path / "empty"))
    with pytest.raises(
        DeviceError, match=r"no GenTL producer \(a .cti file of the camera's maker\) in \$GENICAM"
    ):
        GenicamCameraConfig.model_validate(SMALL).open("main").__enter__()
    assert survey().startswith("no GenTL producer")


@needs_viky
def test_the_survey_names_the_cameras(monkeypatch):
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(viky().parent))
    assert "Machine Vision Games Ltd. Viky serial 1" in survey()


# ---------------------------------------------------------------- TLSimu


def test_settings_are_read_back_and_what_another_program_left_is_undone(simulator):
    with simulator(black_level=10).open("main") as camera:
        nodes = camera._open.nodes
        assert (nodes.read("ExposureAuto"), nodes.read("GammaEnable")) == ("Off", False)
        assert nodes.read("BlackLevelRaw") == 8  # steps of 4
        for exposure_s, gain_db in ((0.02, 0.0), (0.001, 12.5)):
            frame = camera.expose(exposure_s, gain_db, 2.0)
            assert (frame.exposure_s, frame.gain_db) == (pytest.approx(exposure_s), pytest.approx(gain_db))
        assert frame.temperature_c == 41.5
        with pytest.raises(
            SettingRefused, match=r"does not take ExposureTime = 2000000: it takes 10 to 1000000 us"
        ):
            camera.expose(2.0, 0.0, 3.0)
        with pytest.raises(SettingRefused, match=r"does not take Gain = 30: it takes 0 to 24 dB"):
            camera.expose(0.02, 30.0, 3.0)
        assert camera.expose(0.02, 0.0, 2.0).exposure_s == pytest.approx(0.02)


def test_the_buffer_is_believed_and_not_the_node(simulator):
    """TLSimu sends 8 bits whatever is set: the runner must be able to see it."""
    with simulator(pixel_format="Mono12").open("main") as camera:
        assert camera._open.nodes.read("PixelFormat") == "Mono12"
        frame = camera.expose(0.01, 0.0, 2.0)
    assert (frame.pixel_format, frame.dn.dtype) == ("Mono8", np.uint8)


def test_unasked_and_late_frames_are_never_taken_for_an_answer(simulator):
    with simulator().open("main") as camera:
        first = camera.expose(0.01, 0.0, 2.0)
        nodes = camera._open.nodes
        for _ in range(2):
            nodes.execute("TriggerSoftware")
            time.sleep(0.05)
        second = camera.expose(0.01, 0.0, 2.0)
        assert second.frame_id == first.frame_id + 1
        assert second.timestamp_ns > first.timestamp_ns
        # a trigger that brings nothing in time, and whose frame comes after all
        execute, nodes.execute = nodes.execute, lambda name: None
        start = time.monotonic()
        with pytest.raises(FrameLost, match=r"^main: no frame within 0\.2 s$"):
            camera.expose(0.01, 0.0, 0.2)
        assert 0.2 <= time.monotonic() - start < 1.5
        nodes.execute = execute
        execute("TriggerSoftware")
        time.sleep(0.05)
        third = camera.expose(0.01, 0.0, 3.0)
        assert not np.array_equal(third.dn, second.dn)
        assert third.frame_id == second.frame_id + 1


def test_ctrl_c_stays_as_it_was_and_frees_the_camera(simulator):
    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:

        def interrupted():
            with simulator().open("main") as camera:
                assert signal.getsignal(signal.SIGINT) is handler
                camera._open.nodes.execute = lambda name: os.kill(os.getpid(), signal.SIGINT)
                camera.expose(0.01, 0.0, 5.0)

        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    with simulator().open("main") as camera:
        assert camera.expose(0.01, 0.0, 2.0).frame_id == 1


@needs_viky
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_opening_and_closing_ten_times_leaves_nothing_behind():
    def resident_mb():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def threads_and_files():
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    def cycle():
        with viky_config().open("main") as camera:
            camera.expose(0.01, 0.0, 2.0)

    for _ in range(8):
        cycle()
    memory, rest = resident_mb(), threads_and_files()
    for _ in range(10):
        cycle()
    assert resident_mb() - memory < 5
    assert threads_and_files() == rest
