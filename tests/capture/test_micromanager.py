"""Micro-Manager's cameras on its demonstration camera, whose waves are linear in the exposure."""

import time

import counterparts
import numpy as np
import pytest
from pydantic import ValidationError

from capture.devices import DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.drivers import micromanager

FULL = {"width": 512, "height": 512}


def test_the_picture_grows_with_the_exposure():
    """The adapter scales its waves by the exposure; rounding is half a number."""
    with counterparts.micromanager(**FULL).open("main") as camera:
        frames = [camera.expose(exposure_s, 0.0, 2.0) for exposure_s in (0.01, 0.02, 0.04)]
    assert [frame.exposure_s for frame in frames] == [0.01, 0.02, 0.04]
    assert [frame.frame_id for frame in frames] == [1, 2, 3]
    means = np.array([frame.dn.mean() for frame in frames])
    assert means[1:] / means[:-1] == pytest.approx(2.0, rel=0.01)


def test_an_exposure_that_is_rounded_or_refused_is_reported_as_it_is():
    with counterparts.micromanager().open("main") as camera:
        assert camera.expose(0.0123456, 0.0, 2.0).exposure_s == 0.01235
        # beyond its range the adapter keeps what it had, and says nothing
        assert camera.expose(20.0, 0.0, 2.0).exposure_s == 0.01235


def test_a_picture_that_takes_too_long_is_lost_and_does_not_answer_the_next():
    with counterparts.micromanager(**FULL).open("main") as camera:
        start = time.monotonic()
        with pytest.raises(FrameLost, match=r"main: no picture within 0\.05 s: took too long"):
            camera.expose(0.8, 0.0, 0.05)
        with pytest.raises(FrameLost, match=r"no picture within 0\.05 s: still busy with what was given up"):
            camera.expose(0.01, 0.0, 0.05)
        assert time.monotonic() - start < 0.7
        frame = camera.expose(0.02, 0.0, 2.0)
        with counterparts.micromanager(**FULL).open("other") as other:
            expected = other.expose(0.02, 0.0, 2.0)
        assert frame.exposure_s == 0.02
        assert frame.dn.mean() == pytest.approx(expected.dn.mean(), rel=0.01)


def test_five_pictures_lost_in_a_row_are_a_lost_camera():
    """More than the runner tries one shot."""
    with counterparts.micromanager().open("main") as camera:
        for _ in range(4):
            with pytest.raises(FrameLost):
                camera.expose(0.2, 0.0, 0.01)
        with pytest.raises(DeviceLost, match="failed 5 times in a row: no picture within"):
            camera.expose(0.2, 0.0, 0.01)
        camera.expose(0.01, 0.0, 2.0)


def test_gain_goes_through_a_property():
    with counterparts.micromanager(gain_property="Gain", gain_db_per_unit=2.0).open("main") as camera:
        assert camera.expose(0.01, 6.0, 2.0).gain_db == 6.0
        assert camera._core.getProperty("camera", "Gain") == "3"
        assert camera.expose(0.01, 5.2, 2.0).gain_db == 6.0  # whole units only, and it says so
        with pytest.raises(SettingRefused, match=r'99 dB: Cannot set property "Gain" to "50"'):
            camera.expose(0.01, 99.0, 2.0)
    camera = counterparts.micromanager().open("main")
    with camera, pytest.raises(SettingRefused, match="takes 0 dB only: name its gain_property"):
        camera.expose(0.01, 3.0, 2.0)


@pytest.mark.parametrize(
    ("pixel_format", "properties", "shape"),
    [
        ("Mono8", {"PixelType": "8bit"}, (48, 64)),
        ("Mono16", {"PixelType": "16bit", "BitDepth": 16}, (48, 64)),
        ("RGB8", {"PixelType": "32bitRGB", "Mode": "Color Test Pattern"}, (48, 64, 3)),
    ],
)
def test_formats(pixel_format, properties, shape):
    changes = {"pixel_format": pixel_format, "properties": properties}
    with counterparts.micromanager(**changes).open("main") as camera:
        frame = camera.expose(0.01, 0.0, 2.0)
    assert frame.dn.shape == shape
    assert frame.dn.max() > 0


def test_colours_come_in_the_order_of_their_names():
    """The core gives four bytes a pixel: blue, green, red, nothing."""
    with counterparts.micromanager(pixel_format="Mono12").open("main") as camera:
        camera.limits = camera.limits.replace(pixel_format="RGB8")
        image = np.array([[0x00C86402]], dtype=np.uint32)
        assert camera._pixels(image).tolist() == [[[200, 100, 2]]]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"library": "Nope"}, DeviceLost, 'main: Failed to load device adapter "Nope"'),
        ({"device": "Nope"}, DeviceLost, "Nope"),
        ({"properties": {"PixelType": "16bit"}}, SettingRefused, r"gives 16 bits .* not Mono12: set prop"),
        ({"properties": {"BitDepht": 12}}, SettingRefused, "no property 'BitDepht': did you mean 'BitDepth'"),
        ({"properties": {"PixelType": "9bit"}}, SettingRefused, "does not take PixelType = 9bit"),
        ({"width": 480, "offset_x": 33}, SettingRefused, "has 512 x 512 pixels: the region reaches out"),
        ({"gain_property": "Nope"}, SettingRefused, "main: has no property 'Nope'"),
    ],
)
def test_what_cannot_be_opened_says_why(changes, kind, message):
    camera = counterparts.micromanager(**changes).open("main")
    with pytest.raises(kind, match=message):
        camera.__enter__()
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, 1.0)


def test_a_configuration_file_names_the_camera(tmp_path):
    config = counterparts.micromanager()
    file = config.folder / "MMConfig_demo.cfg"
    changed = config.replace(library=None, device=None, configuration=file)
    with changed.open("main") as camera:
        assert camera.expose(0.01, 0.0, 2.0).exposure_s == 0.01
    with pytest.raises(ValueError, match=r"camera main: .*none\.cfg: no such file"):
        changed.replace(configuration=tmp_path / "none.cfg").open("main")
    with pytest.raises(ValidationError, match="give either configuration or library and device"):
        config.replace(configuration=file)
    with pytest.raises(ValidationError, match="library DemoCamera wants the device in it"):
        config.replace(device=None)


def test_a_crash_of_an_adapter_does_not_reach_here():
    """The demonstration camera follows a null pointer when it is asked to."""
    crash = {"PixelType": "16bit", "BitDepth": 12, "SimulateCrash": "Dereference Null Pointer"}
    camera = counterparts.micromanager(isolate=True, properties=crash).open("main")
    with pytest.raises(
        DeviceLost, match="main: could not be opened: the driver's process was killed by SIGSEGV"
    ):
        camera.__enter__()


def test_without_a_folder_or_the_package_it_says_what_to_do(monkeypatch, tmp_path):
    config = counterparts.micromanager()
    monkeypatch.setattr(micromanager, "_find_adapters", lambda: None)
    with pytest.raises(ValueError, match="camera main: no Micro-Manager is found here: install it"):
        config.replace(folder=None).open("main")
    assert "no Micro-Manager is found" in micromanager.survey()
    monkeypatch.setattr(micromanager, "_find_adapters", lambda: config.folder)
    assert micromanager.survey() == f"4 device adapters in {config.folder}"
    with pytest.raises(ValueError, match="nowhere is no folder of device adapters"):
        config.replace(folder=tmp_path / "nowhere").open("main")
