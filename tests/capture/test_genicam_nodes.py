"""GenICam cameras: one made up behind the real GenApi, nodes and buffers as no producer at hand has them."""

import time
from contextlib import closing

import pytest
from pydantic import ValidationError

pytest.importorskip("harvesters", reason="the package harvesters is not installed")

import genicam_fakes as fakes
from genicam import gentl

from capture.devices import DeviceLost, FrameLost, SettingRefused
from capture.drivers.genicam import GenicamCameraConfig
from capture.drivers.genicam.camera import GenicamCamera
from capture.drivers.genicam.nodes import Nodes
from capture.drivers.genicam.setup import Exposure, set_up

fake = fakes.fake


def test_everything_that_alters_numbers_is_off(fake):
    acquirer, camera = fake(black_level=12.0, offset_x=8, offset_y=4)
    with camera:
        nodes = fakes.nodes_of(acquirer)
        want = {
            "ExposureAuto": "Off", "GammaEnable": False, "TestPattern": "Off", "BlackLevel": 12.0,
            "TriggerSelector": "FrameStart", "TriggerMode": "On", "TriggerSource": "Software", "Width": 8,
            "OffsetX": 8, "OffsetY": 4, "AcquisitionMode": "Continuous",
        }  # fmt: skip
        assert {name: nodes.read(name) for name in want} == want
        nodes.write("TriggerSelector", "AcquisitionStart")
        assert nodes.read("TriggerMode") == "Off"
    assert nodes.read("TriggerMode") == "Off"


def test_nodes_of_the_user_come_first_hold_and_have_the_last_word(fake):
    features = fakes.SFNC | {
        "BinningHorizontal": fakes.number(1, 1, 4),
        "UserSetLoad": fakes.command(),
        "Note": fakes.number(0, 0, 100),
        "TriggerActivation": fakes.choice("Rising", "Falling"),
        "Upside": fakes.choice("On", "Off", at=1),
        "LUTEnable": fakes.switch(False),
        # one thing under two names: what is switched off under one is put back under the other
        "Tone": ("Integer", "<pValue>Tone_</pValue>"),
        "Tone_": fakes.number(1, 0, 1),
        "GammaEnable": ("Boolean", "<pValue>Tone_</pValue><OnValue>1</OnValue><OffValue>0</OffValue>"),
    }
    acquirer, camera = fake(
        features,
        nodes=[
            {"UserSetLoad": None, "BinningHorizontal": 2, "LUTEnable": True, "Tone": 1},
            {"TriggerSelector": "AcquisitionStart", "Note": 5},
            {"TriggerSelector": "FrameStart", "TriggerActivation": "Falling", "Note": 6},
            {"TriggerSelector": "AcquisitionStart", "Upside": True},
        ],
    )
    with camera:
        nodes = fakes.nodes_of(acquirer)
        assert nodes.read("Upside") == "On"  # YAML reads On as true
        want = {"BinningHorizontal": 2, "LUTEnable": True, "Tone": 1, "ExposureAuto": "Off", "Note": 6}
        assert {name: nodes.read(name) for name in want} == want
        assert nodes.read("TriggerSelector") == "FrameStart"


def test_what_stays_as_it_was_is_told(fake):
    _, camera = fake(fakes.SFNC | {"GammaEnable": fakes.fixed(fakes.switch(True))})
    with (
        pytest.raises(SettingRefused, match=r"^main: GammaEnable cannot be set to False now: it is True"),
        camera,
    ):
        pass
    _, camera = fake(nodes={"TriggerSource": "Line9"})
    with (
        pytest.raises(SettingRefused, match=r"nodes.TriggerSource: .*it takes Software, Line1, Line2"),
        camera,
    ):
        pass
    _, camera = fake(width=10)
    with (
        pytest.raises(SettingRefused, match="does not take Width = 10: it takes 4 to 4096 in steps of 4"),
        camera,
    ):
        pass
    # a gamma that is switched off needs not be 1
    gamma = {"Gamma": fakes.fixed(fakes.number(0.45, 0.1, 2.0))}
    _, camera = fake(fakes.SFNC | gamma)
    with camera:
        pass
    _, camera = fake(fakes.SFNC | gamma | {"GammaEnable": fakes.fixed(fakes.switch(True))})
    with pytest.raises(SettingRefused, match="to keep it so, say it under nodes"), camera:
        pass
    _, camera = fake(fakes.SFNC | gamma | {"GammaEnable": fakes.switch(True)}, nodes={"GammaEnable": True})
    with pytest.raises(SettingRefused, match=r"Gamma cannot be set to 1 now: it is 0\.45; to keep"), camera:
        pass
    # what is read only, and as wanted, is no fault
    _, camera = fake(fakes.SFNC | {"GammaEnable": fakes.fixed(fakes.switch(False))})
    with camera:
        assert camera.expose(0.01, 0.0, 1.0).exposure_s == 0.01


@pytest.mark.parametrize(
    ("features", "changes", "asked", "reported"),
    [
        ({"ExposureTimeAbs": fakes.number(1.0, 1.0, 1e6)}, {}, (0.01, 0.0), (0.01, 0.0)),
        ({"ExposureTime": fakes.number(1.0, 0.1, 1e3, unit="ms")}, {}, (0.01, 0.0), (0.01, 0.0)),
        ({"ExposureTimeRaw": fakes.number(35, 35, 9999, 35)}, {}, (0.001, 0.0), (0.001015, 0.0)),
        (
            {"ExposureTimeRaw": fakes.number(1, 1, 9999), "ExposureTimeBaseAbs": fakes.number(20.0)},
            {}, (0.01, 0.0), (0.01, 0.0),
        ),
        (
            {"ShutterTicks": fakes.number(1, 1, 99999)},
            {"exposure_node": "ShutterTicks", "exposure_unit_s": 1e-5}, (0.0123, 0.0), (0.0123, 0.0),
        ),
        ({}, {"fixed_exposure_s": 0.02}, (0.02, 0.0), (0.02, 0.0)),
        (
            {"Gain": fakes.number(1.0, 1.0, 16.0)},
            {"gain_unit": "factor", "fixed_exposure_s": 1}, (1, 6.0), (1, 6.0),
        ),
        (
            {"GainRaw": fakes.number(136, 136, 542)},
            {"gain_db_per_raw": 0.0359, "fixed_exposure_s": 1}, (1, 6.0), (1, 167 * 0.0359),
        ),
        ({"GainRaw": fakes.number(140, 136, 542)}, {"fixed_exposure_s": 1}, (1, 0.0), (1, 0.0)),
    ],
)  # fmt: skip
def test_exposure_and_gain_under_their_other_names(features, changes, asked, reported):
    nodes = Nodes("main", fakes.described(**features), lambda: False)
    exposure = Exposure(nodes, fakes.fake_config(**changes))
    exposure.apply(*asked)
    assert exposure.reported() == pytest.approx(reported, rel=1e-6)


@pytest.mark.parametrize(
    ("features", "asked", "message"),
    [
        ({}, (1, 6.0), "has no gain to set to 6 dB"),
        ({"GainRaw": fakes.number(136, 136, 542)}, (1, 6.0), "GainRaw counts steps: give gain_db_per_raw"),
        ({"Gain": fakes.number(1.5, 1.5, 16.0)}, (1, 0.0), r"does not take Gain = 0: it takes 1\.5 to 16"),
        ({"Gain": fakes.number(1.0, 1.0, 16.0)}, (1, 0.0), "Gain begins at 1 and has no unit: give gain"),
        ({}, (2, 0.0), r"always exposes 1 s \(fixed_exposure_s\), not 2 s"),
    ],
)
def test_exposure_and_gain_that_cannot_be(features, asked, message):
    nodes = Nodes("main", fakes.described(**features), lambda: False)
    with pytest.raises(SettingRefused, match=f"^main: {message}"):
        Exposure(nodes, fakes.fake_config(fixed_exposure_s=1)).apply(*asked)


def test_the_gain_of_all_channels_is_meant():
    """Whatever the selector was left at; and the automatic of each channel goes off."""
    features = {
        "ExposureTime": fakes.number(5.0),
        "GainSelector": fakes.choice("Red", "All"),
        "Gain": ("Float", "<pValue>Gain_Store</pValue>"),
        "Gain_Store": fakes.selected("GainSelector", 2, 7),
        "GainAuto": fakes.choice("Off", "Continuous", per="Store"),
        "GainAuto_Store": fakes.selected("GainSelector", 2, 1),
    }
    nodes = Nodes("main", fakes.described(**fakes.SFNC | features), lambda: False)
    config = fakes.fake_config(nodes={"GainSelector": "Red", "Gain": 2})
    set_up(nodes, config)
    exposure = Exposure(nodes, config)
    exposure.apply(0.01, 5.0)
    assert exposure.reported()[1] == 5.0
    for channel, gain in (("Red", 2.0), ("All", 5.0)):
        nodes.write("GainSelector", channel)
        assert (nodes.read("Gain"), nodes.read("GainAuto")) == (gain, "Off")


def test_a_frame_tells_of_itself_where_it_can(fake):
    """Chunks: the exposure that the frame had, not the one that the node has now."""
    features = fakes.SFNC | {
        "ChunkModeActive": fakes.switch(False),
        "ChunkSelector": fakes.choice("CRC", "ExposureTime", "Gain"),
        "ChunkEnable": ("Boolean", "<pValue>Store</pValue><OnValue>1</OnValue><OffValue>0</OffValue>"),
        "Store": fakes.selected("ChunkSelector", 3, 0),
        "ChunkExposureTime": fakes.number(7000.0, unit="us"),
        "ChunkGain": fakes.number(1.5),
    }
    acquirer, camera = fake(features)
    with camera:
        acquirer.on_trigger = lambda: acquirer.send(num_chunks=1)
        frame = camera.expose(0.01, 3.0, 1.0)
        assert (frame.exposure_s, frame.gain_db) == (pytest.approx(0.007), 1.5)
        acquirer.on_trigger = lambda: acquirer.send(num_chunks=0)
        assert camera.expose(0.01, 3.0, 1.0).exposure_s == 0.01
        assert (frame.black_level_dn, frame.temperature_c) == (10.0, 40.5)
        nodes = fakes.nodes_of(acquirer)
        for name, on in (("CRC", False), ("ExposureTime", True), ("Gain", True)):
            nodes.write("ChunkSelector", name)
            assert nodes.read("ChunkEnable") is on
    acquirer, camera = fake(features, chunks=False)
    with camera:
        acquirer.on_trigger = lambda: acquirer.send(num_chunks=1)
        assert camera.expose(0.01, 3.0, 1.0).exposure_s == 0.01


def test_a_gap_in_the_cameras_numbers_is_one_in_ours(fake):
    acquirer, camera = fake()
    with camera:
        first = camera.expose(0.01, 0.0, 1.0).frame_id
        acquirer.number += 2
        assert camera.expose(0.01, 0.0, 1.0).frame_id == first + 3
        acquirer.number = 65534
        before = camera.expose(0.01, 0.0, 1.0).frame_id
        acquirer.number = 2
        assert camera.expose(0.01, 0.0, 1.0).frame_id == before + 3  # 1 and 2 were lost
        acquirer.number -= 1
        assert camera.expose(0.01, 0.0, 1.0).frame_id == before + 3


def test_a_clock_that_begins_anew_goes_on(fake):
    acquirer, camera = fake()
    with camera:
        times = []
        for told in (5_000_000_000, 6_000_000_000, 1_000_000, 2_000_000):
            acquirer.on_trigger = lambda told=told: acquirer.send(timestamp_ns=told)
            times.append(camera.expose(0.01, 0.0, 1.0).timestamp_ns)
    assert times[:2] == [5_000_000_000, 6_000_000_000]
    assert times[1] < times[2] < times[1] + 10**9
    assert times[3] - times[2] == 1_000_000


def test_a_region_may_grow_where_another_program_moved_it(fake):
    features = fakes.SFNC | {
        "OffsetX": fakes.number(64, 0, 64, 4),
        "WidthMax": ("IntSwissKnife", '<pVariable Name="X">OffsetX</pVariable><Formula>72-X</Formula>'),
        "Width": ("Integer", "<Value>8</Value><Min>4</Min><pMax>WidthMax</pMax><Inc>4</Inc>"),
    }
    acquirer, camera = fake(features, width=68, offset_x=4)
    with camera:
        nodes = fakes.nodes_of(acquirer)
        assert (nodes.read("Width"), nodes.read("OffsetX")) == (68, 4)


def test_an_incomplete_frame_is_lost_at_once_and_the_stream_begun_anew(fake):
    acquirer, camera = fake()
    with camera:
        acquirer.on_trigger = lambda: acquirer.arriving.append("incomplete")
        start = time.monotonic()
        with pytest.raises(FrameLost, match=r"^main: a frame came incomplete"):
            camera.expose(0.01, 0.0, 5.0)
        assert time.monotonic() - start < 4
        acquirer.send()  # comes late
        acquirer.on_trigger = acquirer.send
        acquirer.calls.clear()
        frame = camera.expose(0.01, 0.0, 1.0)
        assert acquirer.calls == ["stop", ("start", "Continuous"), "trigger"]
        assert frame.dn[0, 0] == acquirer.number


def test_frames_after_a_change_are_thrown_away_where_asked(fake):
    acquirer, camera = fake(discard=2)
    with camera:
        assert camera.expose(0.01, 0.0, 1.0).frame_id == 1
        assert camera.expose(0.01, 0.0, 1.0).frame_id == 2
        assert acquirer.number == 4
        assert camera.expose(0.02, 0.0, 1.0).frame_id == 3
        assert acquirer.number == 7


@pytest.mark.parametrize("how", ["status", "query", "register"])
def test_a_camera_that_vanishes_is_lost(fake, how):
    acquirer, camera = fake()
    with camera:
        camera.expose(0.01, 0.0, 1.0)
        acquirer.on_trigger = lambda: None
        if how == "status":
            acquirer.status = gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_NOACCESS
        elif how == "query":
            acquirer.device.module = None
        else:
            camera._open.nodes.alive = lambda: False
        with pytest.raises(DeviceLost, match=r"^main: is gone: look at its cable and power"):
            camera.expose(0.01, 0.0, 0.05)


def test_whatever_the_libraries_raise_is_told_as_ours(fake):
    acquirer, camera = fake()
    with camera:
        acquirer.on_trigger = lambda: acquirer.arriving.append(gentl.IoException("cable"))
        with pytest.raises(FrameLost, match=r"^main: a frame cannot be taken in: cable"):
            camera.expose(0.01, 0.0, 1.0)
        acquirer.on_trigger = acquirer.send
        assert camera.expose(0.01, 0.0, 1.0).frame_id == 1


@pytest.mark.parametrize("trigger", ["free", "Line2"])
def test_bursts_run_only_while_they_are_wanted(fake, trigger):
    acquirer, camera = fake(trigger=trigger)
    with camera:
        nodes = fakes.nodes_of(acquirer)
        assert not acquirer.acquiring
        assert nodes.read("TriggerMode") == ("Off" if trigger == "free" else "On")
        if trigger == "Line2":
            assert nodes.read("TriggerSource") == "Line2"
            start = acquirer.start
            acquirer.start = lambda: (start(), acquirer.send(300))
        settings = [(0.01, 0.0)] * 3 + [(0.02, 6.0)]
        acquirer.calls.clear()
        with closing(camera.burst(settings, 1.0)) as frames:
            taken = [(frame.exposure_s, frame.gain_db) for frame in frames]
        assert taken == settings
        assert acquirer.calls == ["stop", ("start", "MultiFrame"), "stop", ("start", "SingleFrame"), "stop"]
        acquirer.calls.clear()
        with closing(camera.burst(settings, 1.0)) as frames:
            next(frames)
        assert acquirer.calls[-1] == "stop"
        assert not acquirer.acquiring
        assert all(buffer.queued == 1 for buffer in acquirer.taken)


def test_lights_that_follow_the_camera_want_exposures_that_are_counted(fake):
    settings = [(0.01, 0.0), (0.01, 0.0), (0.02, 0.0)]
    _, camera = fake(trigger="free", sequence=True)
    with camera, closing(camera.burst(settings, 1.0)) as frames:
        assert [(frame.exposure_s, frame.gain_db) for frame in frames] == settings
    features = fakes.SFNC | {"AcquisitionMode": fakes.choice("Continuous", "SingleFrame")}
    acquirer, camera = fake(features, trigger="free", sequence=True)
    with camera:
        with (
            closing(camera.burst(settings, 1.0)) as frames,
            pytest.raises(SettingRefused, match="cannot count 2 exposures"),
        ):
            next(frames)
        assert ("start", "Continuous") not in acquirer.calls
        assert len(list(camera.burst(settings[:2], 1.0))) == 2


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": {"Width": 8}}, "nodes: Width has a key of its own, width"),
        ({"nodes": {"AcquisitionMode": "SingleFrame"}}, "AcquisitionMode goes with trigger"),
        ({"sent_format": "Mono12p"}, "sent_format Mono12p gives Mono12, not the pixel_format Mono8"),
        ({"sent_format": "Mono9"}, "pixel format 'Mono9' cannot be unpacked"),
        ({"sequence": True}, "sequence wants a trigger other than software"),
        ({"trigger": "free", "discard": 1}, "discard wants trigger software"),
        ({"fixed_exposure_s": 1, "exposure_node": "X"}, "exclude each other"),
    ],
)
def test_configurations_that_contradict_themselves(changes, message):
    with pytest.raises(ValidationError, match=message):
        fakes.fake_config(**changes)


def test_a_configuration_survives_json():
    config = fakes.fake_config(
        producers="a.cti", nodes={"LUTEnable": True, "X": 2, "Y": 0.5, "Z": "On", "C": None}
    )
    again = GenicamCameraConfig.model_validate(config.model_dump(mode="json"))
    assert again == config
    assert [type(value) for value in again.nodes[0].values()] == [bool, int, float, str, type(None)]
    assert fakes.fake_config(serial="7").address == "genicam:7"
    assert isinstance(config.open("main"), GenicamCamera)
