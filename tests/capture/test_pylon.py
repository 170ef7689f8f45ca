"""Basler's cameras on Basler's emulation. What a picture shows there does not depend on the exposure."""

import time
from types import SimpleNamespace

import counterparts
import numpy as np
import pytest

from capture.devices import DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.drivers import pylon


@pytest.fixture
def config(monkeypatch):
    return counterparts.pylon(monkeypatch)


@pytest.mark.parametrize(
    ("pixel_format", "bits"),
    [("Mono8", 8), ("Mono10", 10), ("Mono16", 16), ("BayerGR8", 8), ("BayerRG12", 12), ("RGB8", 8)],
)
def test_every_format_comes_right_aligned(config, pixel_format, bits):
    """The emulation's first picture is column + row in 8 bits, moved up to those of the format."""
    nodes = {"TestImageSelector": "Testimage1"}
    with config.replace(pixel_format=pixel_format, nodes=nodes).open("main") as camera:
        dn = camera.expose(0.01, 0.0, 2.0).dn
    expected = np.add.outer(np.arange(48), np.arange(64)) << (bits - 8)
    assert dn.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert np.array_equal(dn, expected[..., None].repeat(3, axis=2) if pixel_format == "RGB8" else expected)


def test_the_settings_reported_are_the_nodes(config):
    with config.open("main") as camera:
        frame = camera.expose(0.0123456, 6.0, 2.0)
        assert frame.exposure_s == pytest.approx(0.012346, abs=1e-12)  # rounded to a microsecond
        assert frame.gain_db == pytest.approx(6.0, abs=0.1)
        assert frame.black_level_dn == 0.0
        second = camera.expose(0.02, 0.0, 2.0)
        assert (second.exposure_s, second.frame_id) == (0.02, frame.frame_id + 1)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((1e-8, 0.0), r"main: does not take ExposureTime = 0\.01: Value 0\.01.* greater than or equal 1"),
        ((20.0, 0.0), r"ExposureTime = 20000000.*smaller than or equal 10000000"),
        ((0.01, 99.0), "main: does not take Gain = 99"),
    ],
)
def test_settings_out_of_range_are_refused(config, request_, message):
    with config.open("main") as camera:
        with pytest.raises(SettingRefused, match=message):
            camera.expose(*request_, 2.0)
        assert camera.expose(0.01, 0.0, 2.0).exposure_s == 0.01


def test_an_incomplete_frame_is_lost_and_the_next_is_well(config):
    with config.open("main") as camera:
        first = camera.expose(0.01, 0.0, 2.0)
        camera._camera.ForceFailedBufferCount.Value = 1
        camera._camera.ForceFailedBuffer.Execute()
        with pytest.raises(FrameLost, match="main: The buffer was incompletely grabbed"):
            camera.expose(0.01, 0.0, 2.0)
        assert camera.expose(0.01, 0.0, 2.0).frame_id > first.frame_id + 1


def test_a_camera_that_has_stopped_loses_one_frame_and_is_started_again(config):
    with config.open("main") as camera:
        camera.expose(0.01, 0.0, 2.0)
        camera._camera.AcquisitionStop.Execute()
        start = time.monotonic()
        with pytest.raises(FrameLost, match=r"main: (no frame|was not ready for a trigger) within 0\.1 s"):
            camera.expose(0.02, 0.0, 0.1)
        assert time.monotonic() - start < 1.0
        assert camera.expose(0.04, 0.0, 2.0).exposure_s == 0.04


def test_what_alters_the_numbers_is_switched_off(config):
    """The emulation forgets what it was set to when it is closed: hence the second set-up of an open one."""
    with config.open("main") as camera:
        nodes = camera._camera
        nodes.StopGrabbing()
        nodes.ExposureAuto.FromString("Continuous")
        nodes.GainAuto.FromString("Once")
        nodes.Gamma.Value = 0.5
        nodes.TriggerSelector.FromString("FrameBurstStart")
        nodes.TriggerMode.FromString("On")
        camera._set_up()
        told = (nodes.ExposureAuto.ToString(), nodes.GainAuto.ToString(), nodes.Gamma.Value)
        assert told == ("Off", "Off", 1.0)
        assert (nodes.TriggerSelector.ToString(), nodes.TriggerMode.ToString()) == ("FrameStart", "On")
        nodes.TriggerSelector.FromString("FrameBurstStart")
        assert nodes.TriggerMode.ToString() == "Off"


def test_leaving_ends_the_trigger_and_closes_whatever_fails(config):
    did = []
    with config.open("main") as camera:
        nodes = camera._camera

        def stop():
            did.append("stop")
            raise camera._genicam.GenericException("unplugged", "", 0)

        mode = SimpleNamespace(FromString=lambda value: did.append(f"trigger {value}"))
        camera._camera = SimpleNamespace(
            StopGrabbing=stop, TriggerMode=mode, Close=lambda: (did.append("close"), nodes.Close())
        )
    assert did == ["stop", "trigger Off", "close"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"serial": "9"}, DeviceLost, "no Basler camera with serial 9; found: Emulation 0815-0000, "),
        ({"serial": None}, DeviceError, "main: say which camera by its serial; there are Emulation 0815"),
        ({"width": 5000}, SettingRefused, r"does not take Width = 5000: .* smaller than Max = 4096"),
        ({"pixel_format": "Mono14"}, SettingRefused, "has no pixel format Mono14, only Mono8, Mono10"),
        ({"nodes": {"Foo": 1}}, SettingRefused, r"main: has no node Foo$"),
        ({"nodes": {"BlackLevel": 1.4}}, SettingRefused, r"BlackLevel is 1\.375 after it was set to 1\.4"),
        ({"nodes": {"DigitalShift": 9}}, SettingRefused, "does not take DigitalShift = 9"),
        ({"nodes": {"TestImageSelector": "None"}}, SettingRefused, "TestImageSelector = None"),
    ],
)
def test_what_cannot_be_opened_says_why(config, changes, kind, message):
    camera = config.replace(**changes).open("main")
    with pytest.raises(kind, match=message):
        camera.__enter__()
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, 1.0)


def test_nodes_of_the_rig_file_are_set_and_the_region_lies_where_it_should(config):
    changed = config.replace(offset_x=16, offset_y=8, nodes={"ReverseX": True, "BlackLevel": 20.0})
    with changed.open("main") as camera:
        assert camera.expose(0.01, 0.0, 2.0).black_level_dn == 20.0
        assert (camera._camera.OffsetX.Value, camera._camera.OffsetY.Value) == (16, 8)
        assert camera._camera.ReverseX.Value


def test_a_gain_of_steps_wants_their_size(config):
    with config.open("main") as camera:
        camera._gain_node = "GainRaw"
        with pytest.raises(SettingRefused, match="give gain_db_per_raw"):
            camera.expose(0.01, 3.0, 2.0)
        assert camera.expose(0.01, 0.0, 2.0).gain_db == 0.0
    with config.replace(gain_db_per_raw=0.0359).open("main") as camera:
        camera._gain_node = "GainRaw"
        frame = camera.expose(0.01, 6.0, 2.0)
        assert camera._camera.GainRaw.Value == camera._camera.GainRaw.Min + 167
        assert frame.gain_db == pytest.approx(167 * 0.0359)


def test_the_survey_names_the_cameras(config):
    assert pylon.survey() == "Emulation 0815-0000, Emulation 0815-0001"


def test_without_the_package_it_says_what_to_install(config, monkeypatch):
    def missing():
        raise ImportError("No module named 'pypylon'")

    monkeypatch.setattr(pylon, "_import", missing)
    with pytest.raises(ValueError, match=r"camera main: driver pylon wants .* pip install 'gnomon\[pylon\]'"):
        config.open("main")
    assert "pip install" in pylon.survey()
