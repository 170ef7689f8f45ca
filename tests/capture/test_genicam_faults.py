"""GenICam cameras through harvesters and the whole of GenTL, against a producer that misbehaves on command.

We wrote that producer (gentl_producer.c): it shows faults and layouts that those of others do not.
"""

import os
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("harvesters", reason="the package harvesters is not installed")

import genicam_fakes as fakes

from capture.devices import DeviceLost, FrameLost
from capture.drivers.genicam import GenicamCameraConfig
from capture.packing import packing_of

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None or os.name != "posix", reason="there is no C compiler")

RUN_ON = 0xFFFF
"""The padding of rows whose bits run on."""


@pytest.fixture(scope="module")
def producer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("producer")
    path = folder / "testing.cti"
    words = ["-O1", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden"]
    source = Path(__file__).with_name("gentl_producer.c")
    subprocess.run([COMPILER, *words, "-o", path, source], check=True, capture_output=True, timeout=60)
    (folder / "testing.xml").write_text(fakes.describe_producer())
    return path


@pytest.fixture
def make_camera(producer, monkeypatch):
    monkeypatch.setenv("GNOMON_TEST_XML", str(producer.with_suffix(".xml")))

    def make(**changes):
        values = {
            "producers": producer, "width": 64, "height": 48, "pixel_format": "Mono8",
            "exposure_min_s": 1e-5, "exposure_max_s": 1.0,
        }  # fmt: skip
        return GenicamCameraConfig.model_validate(values | changes).open("main")

    return make


def picture(frame_number, exposure_s=0.02, width=64, height=48, name="Mono8"):
    packing = packing_of(name)
    column, row = np.arange(width * packing.channels), np.arange(height)[:, None]
    dn = (3 * column + 5 * row + 7 * frame_number + round(exposure_s * 1e4)) % (1 << packing.bits)
    return dn if packing.channels == 1 else dn.reshape(height, width, 3)


def tell(camera, fault):
    camera._open.nodes.write("Fault", fault)


@pytest.mark.parametrize("name", fakes.FORMATS)
@pytest.mark.parametrize("padding", [0, 5, RUN_ON])
def test_every_format_comes_through_whole(make_camera, name, padding):
    """Odd in both directions."""
    size = {"width": 67, "height": 31}
    camera = make_camera(
        pixel_format=packing_of(name).pixel_format, sent_format=name, nodes={"RowPadding": padding},
        chunks=padding != 0, **size,
    )  # fmt: skip
    with camera:
        for number in (1, 2):
            frame = camera.expose(0.02, 0.0, 5.0)
            assert frame.frame_id == number
            assert np.array_equal(frame.dn, picture(number, name=name, **size))


def test_each_frame_tells_its_own_exposure(make_camera):
    """Not that of the node, and not that of the frame before."""
    with make_camera() as camera:
        for error_us in (0, 5000, 100, 0):
            camera._open.nodes.write("ChunkExposureError", error_us)
            assert camera.expose(0.02, 0.0, 5.0).exposure_s == pytest.approx(0.02 + error_us * 1e-6)


def test_an_exposure_that_the_camera_made_another_is_told(make_camera):
    with make_camera(chunks=False, nodes={"ExposureGrain": 3000}) as camera:
        assert camera.expose(0.02, 0.0, 5.0).exposure_s == pytest.approx(0.018)
        assert camera.expose(0.03, 0.0, 5.0).exposure_s == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("fault", "message", "lost"),
    [
        ("incomplete", "a frame came incomplete", 1),
        ("dropped", r"no frame within 0\.2 s", 1),
        ("late", r"no frame within 0\.2 s", 1),
        ("short", "a frame came with 24 of its 48 rows", 1),
    ],
)
def test_a_lost_frame_is_told_and_the_next_is_the_right_one(make_camera, fault, message, lost):
    with make_camera() as camera:
        assert np.array_equal(camera.expose(0.02, 0.0, 5.0).dn, picture(1))
        tell(camera, fault)
        start = time.monotonic()
        with pytest.raises(FrameLost, match=rf"^main: {message}"):
            camera.expose(0.02, 0.0, 0.2)
        assert time.monotonic() - start < 2
        time.sleep(0.3)  # a late one would come now
        frame = camera.expose(0.03, 0.0, 5.0)
        assert (frame.frame_id, frame.exposure_s) == (2, pytest.approx(0.03))
        assert np.array_equal(frame.dn, picture(2 + lost, 0.03))


def test_a_second_frame_of_one_trigger_is_no_answer_to_the_next(make_camera):
    with make_camera() as camera:
        tell(camera, "doubled")
        assert np.array_equal(camera.expose(0.02, 0.0, 5.0).dn, picture(1))
        assert np.array_equal(camera.expose(0.03, 0.0, 5.0).dn, picture(3, 0.03))


def test_a_frame_dropped_in_a_burst_leaves_a_gap(make_camera):
    with (
        make_camera(trigger="free", nodes={"FrameRate": 100}) as camera,
        closing(camera.burst([(0.02, 0.0)] * 6, 5.0)) as frames,
    ):
        numbers = [next(frames).frame_id, next(frames).frame_id]
        tell(camera, "dropped")
        numbers += [frame.frame_id for frame in frames]
    steps = np.diff(numbers)
    assert sorted(steps) == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("trigger", ["software", "free"])
def test_a_camera_that_vanishes_is_lost_for_good(make_camera, trigger):
    with make_camera(trigger=trigger) as camera:
        camera.expose(0.02, 0.0, 5.0)
        tell(camera, "vanished")
        for _ in range(2):
            with pytest.raises(DeviceLost, match=r"^main: is gone"):
                camera.expose(0.02, 0.0, 0.2)
    # it can be opened again, by a program that begins anew
    with make_camera() as camera:
        assert camera.expose(0.02, 0.0, 5.0).frame_id == 1


@pytest.mark.parametrize(
    ("fault", "told"), [("crashing", "SIGABRT|Aborted|signal 6"), ("hanging", "did not answer|no answer")]
)
def test_a_crash_and_a_hang_cost_one_frame_when_isolated(make_camera, fault, told):
    """The gain's node is the fault's register: nobody else can reach into the other process."""
    gain = {"gain_node": "Faulty", "gain_unit": "raw", "gain_db_per_raw": 1.0, "gain_max_db": 9.0}
    with make_camera(isolate=True, **gain) as camera:
        assert camera.expose(0.02, 0.0, 20.0).frame_id == 1
        start = time.monotonic()
        with pytest.raises(FrameLost, match=told):
            camera.expose(0.02, fakes.FAULTS.index(fault), 1.0)
        assert time.monotonic() - start < 5
        assert np.array_equal(camera.expose(0.02, 0.0, 30.0).dn, picture(1))
