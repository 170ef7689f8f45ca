"""GenICam cameras as makers vary them: features missing, otherwise named, in other units, locked at times."""

from contextlib import closing

import pytest
from pydantic import ValidationError

pytest.importorskip("harvesters", reason="the package harvesters is not installed")

import genicam_fakes as fakes
from genicam import gentl
from test_genicam_buffers import picture_of

from capture.devices import SettingRefused
from capture.drivers.genicam.nodes import Nodes
from capture.drivers.genicam.setup import Exposure

fake = fakes.fake


def without(*names):
    return {name: feature for name, feature in fakes.SFNC.items() if name not in names}


LOCKED = "<pIsLocked>TLParamsLocked</pIsLocked>"
DEEP = ("Float", f"{LOCKED}<Value>5000</Value><Min>10</Min><Max>2000000</Max><Unit>us</Unit>")


def refused(camera):
    """What the camera is refused for, in one line."""
    with pytest.raises(SettingRefused) as caught, camera:
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("main: ")


# ---------------------------------------------------------------- exposure and gain


@pytest.mark.parametrize(
    ("unit", "value"),
    [("s", 0.01), ("sec", 0.01), ("ms", 10.0), ("us", 1e4), ("µs", 1e4), ("", 1e4), ("ns", 1e7)],
)
def test_an_exposure_in_any_unit_of_time(fake, unit, value):
    node = fakes.number(value / 2, value / 1000, value * 1000, unit=unit or None)
    acquirer, camera = fake(fakes.SFNC | {"ExposureTime": node})
    with camera:
        assert camera.expose(0.01, 0.0, 1.0).exposure_s == pytest.approx(0.01)
        assert fakes.nodes_of(acquirer).read("ExposureTime") == pytest.approx(value)


def test_units_that_nobody_knows_are_asked_for(fake):
    lines = {"ExposureTime": fakes.number(5.0, 1.0, 1e5, unit="lines")}
    _, camera = fake(fakes.SFNC | lines)
    assert refused(camera) == "ExposureTime counts in 'lines': give exposure_unit_s, the seconds of one"
    _, camera = fake(fakes.SFNC | lines, exposure_unit_s=2e-5, exposure_min_s=2e-5)
    with camera:
        assert camera.expose(0.01, 0.0, 1.0).exposure_s == pytest.approx(0.01)
    _, camera = fake(fakes.SFNC | {"Gain": fakes.number(3.0, 0.0, 24.0, unit="%")})
    assert refused(camera) == "Gain counts in '%': give gain_unit: db, factor or raw"


@pytest.mark.parametrize(
    ("node", "changes", "asked_db", "value"),
    [
        (
            fakes.number(3, 0, 480),
            {"gain_db_per_raw": 0.1},
            6.0,
            60,
        ),  # an integer without a unit counts steps
        (fakes.number(3, 0, 24, unit="dB"), {}, 6.0, 6),
        (fakes.number(2.0, 1.0, 16.0, unit="x"), {"gain_max_db": 20}, 6.0206, 2.0),
        (fakes.number(3.0, 0.0, 24.0), {}, 6.0, 6.0),
    ],
)
def test_a_gain_in_its_own_unit(fake, node, changes, asked_db, value):
    acquirer, camera = fake(fakes.SFNC | {"Gain": node}, **changes)
    with camera:
        assert camera.expose(0.01, asked_db, 1.0).gain_db == pytest.approx(asked_db, abs=1e-3)
        assert fakes.nodes_of(acquirer).read("Gain") == pytest.approx(value, rel=1e-4)


def test_a_gain_of_channels_without_one_for_all_is_set_for_each(fake):
    gains = {
        "GainSelector": fakes.choice("Tap1", "Tap2", at=1),
        "Gain": ("Float", "<pValue>Gain_Store</pValue><Min>0</Min><Max>24</Max><Unit>dB</Unit>"),
        "Gain_Store": fakes.selected("GainSelector", 2, 7),
    }
    acquirer, camera = fake(fakes.SFNC | gains)
    with camera:
        assert camera.expose(0.01, 5.0, 1.0).gain_db == 5.0
        nodes = fakes.nodes_of(acquirer)
        for tap in ("Tap1", "Tap2"):
            nodes.write("GainSelector", tap)
            assert nodes.read("Gain") == 5.0


@pytest.mark.parametrize(
    ("features", "changes", "message"),
    [
        (
            fakes.SFNC, {"exposure_max_s": 10},
            "takes 1e-05 to 2 s only, the rig file says exposure_max_s 10: mend it",
        ),
        (
            fakes.SFNC, {"exposure_min_s": 1e-6, "gain_max_db": 24},
            "takes 1e-05 to 2 s only, the rig file says exposure_min_s 1e-06: mend it",
        ),
        (fakes.SFNC, {"gain_max_db": 48}, "takes 0 to 24 dB only, the rig file says gain_max_db 48: mend it"),
        (
            fakes.SFNC | {"Gain": fakes.number(3.0, 1.5, 24.0)}, {},
            "takes 1.5 to 24 dB only, the rig file says gain_min_db 0: mend it",
        ),
        (without("Gain"), {}, "takes 0 dB only, the rig file says gain_max_db 24: mend it"),
        (
            without("Gain") | {"GainRaw": fakes.number(5, 0, 99)}, {},
            "GainRaw counts steps: give gain_db_per_raw, from its data sheet, or gain_max_db 0",
        ),
    ],
)  # fmt: skip
def test_ranges_of_the_rig_file_are_held_against_the_cameras(fake, features, changes, message):
    _, camera = fake(features, **changes)
    assert refused(camera) == message


def test_an_exposure_that_is_locked_while_streaming_is_set_in_between(fake):
    features = fakes.SFNC | {"TLParamsLocked": fakes.number(0), "ExposureTime": DEEP}
    acquirer, camera = fake(features)
    start, stop = acquirer.start, acquirer.stop

    def lock(value, then):
        acquirer.node_map.get_node("TLParamsLocked").value = value
        then()

    acquirer.start, acquirer.stop = lambda: lock(1, start), lambda: lock(0, stop)
    with camera:
        for exposure_s in (0.01, 0.02, 0.02, 0.005):
            frame = camera.expose(exposure_s, 0.0, 1.0)
            assert frame.exposure_s == pytest.approx(exposure_s)
            assert frame.dn[0, 0] == acquirer.number
    assert acquirer.calls.count(("start", "Continuous")) == 4  # the third had nothing to set


# ---------------------------------------------------------------- triggers


def test_without_a_selector_there_is_one_trigger(fake):
    plain = without("TriggerSelector", "TriggerMode_Store") | {"TriggerMode": fakes.choice("Off", "On")}
    acquirer, camera = fake(plain)
    with camera:
        assert camera.expose(0.01, 0.0, 1.0).frame_id == 1
        assert fakes.nodes_of(acquirer).read("TriggerMode") == "On"


def test_a_trigger_that_starts_more_than_one_frame_is_none(fake):
    """After AcquisitionStart a camera goes on: its next frame would be of an earlier light."""
    features = fakes.SFNC | {
        "TriggerSelector": fakes.choice("AcquisitionStart", "LineStart"),
        "TriggerMode": fakes.choice("Off", "On"),
    }
    _, camera = fake(features)
    assert refused(camera) == (
        "has no trigger of single frames, only TriggerSelector AcquisitionStart, LineStart: say trigger: free"
    )
    _, camera = fake(features, trigger="free")
    with camera, closing(camera.burst([(0.01, 0.0)] * 3, 1.0)) as frames:
        assert len(list(frames)) == 3


def test_a_burst_of_one_frame_is_a_frame(fake):
    features = fakes.SFNC | {
        "TriggerSelector": fakes.choice("FrameBurstStart"),
        "TriggerMode": fakes.choice("Off", "On"),
        "AcquisitionBurstFrameCount": fakes.number(5, 1, 255),
    }
    acquirer, camera = fake(features)
    with camera:
        assert camera.expose(0.01, 0.0, 1.0).frame_id == 1
        assert fakes.nodes_of(acquirer).read("AcquisitionBurstFrameCount") == 1


# ---------------------------------------------------------------- region, format, what is left behind


def test_what_another_program_left_behind_is_undone(fake):
    left = {
        "BinningHorizontal": fakes.number(2, 1, 4),
        "DecimationVertical": fakes.number(4, 1, 4),
        "ReverseX": fakes.switch(True),
        "GenDCStreamingMode": fakes.choice("Off", "On", at=1),
        "BlackLevelAuto": fakes.switch(True),
        "DeviceTemperatureSelector": fakes.choice("Mainboard", "Sensor"),
    }
    acquirer, camera = fake(fakes.SFNC | left)
    with camera:
        nodes = fakes.nodes_of(acquirer)
        assert {name: nodes.read(name) for name in left} == {
            "BinningHorizontal": 1, "DecimationVertical": 1, "ReverseX": False, "GenDCStreamingMode": "Off",
            "BlackLevelAuto": False, "DeviceTemperatureSelector": "Sensor",
        }  # fmt: skip
    acquirer, camera = fake(fakes.SFNC | left, nodes={"ReverseX": True, "BinningHorizontal": 2})
    with camera:
        nodes = fakes.nodes_of(acquirer)
        assert (nodes.read("ReverseX"), nodes.read("BinningHorizontal")) == (True, 2)


def test_a_pixel_format_that_cannot_be_changed_may_do_as_it_is(fake):
    _, camera = fake(fakes.SFNC | {"PixelFormat": fakes.fixed(fakes.choice("Mono12", "Mono12p", at=1))},
                     pixel_format="Mono12")  # fmt: skip
    with camera:
        assert camera._open.nodes.read("PixelFormat") == "Mono12p"
    _, camera = fake(fakes.SFNC | {"PixelFormat": fakes.fixed(fakes.choice("Mono12", "Mono8"))})
    assert refused(camera).startswith("has no pixel format Mono8")


def test_a_region_that_moves_the_colours_is_told(fake):
    with pytest.raises(ValidationError, match="an odd one moves the colours of a Bayer sensor"):
        fakes.fake_config(offset_x=1, pixel_format="BayerRG8")
    fakes.fake_config(offset_x=1)
    # a camera that says another format for another region
    formats = '<EnumEntry Name="BayerRG8"><Value>0</Value></EnumEntry>'
    formats += '<EnumEntry Name="BayerGR8"><Value>1</Value></EnumEntry>'
    shifted = {
        "OffsetX": fakes.number(0, 0, 64, 2),
        "Shift": ("IntSwissKnife", '<pVariable Name="X">OffsetX</pVariable><Formula>(X &gt; 0)</Formula>'),
        "PixelFormat": ("Enumeration", f"{formats}<pValue>Shift</pValue>"),
    }
    _, camera = fake(fakes.SFNC | shifted, pixel_format="BayerRG8", offset_x=2)
    assert refused(camera).startswith("PixelFormat BayerRG8 becomes BayerGR8 with the region")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GENDC", "sent GENDC, which is no picture of plain pixels"),
        ("JPEG", "sent JPEG, which is no picture"),
        ("CHUNK_ONLY", "sent CHUNK_ONLY, which is no picture"),
        ("MULTI_PART", "sent several parts, none of them a plain picture"),
    ],
)
def test_a_payload_that_is_no_picture_is_not_read_as_one(kind, message):
    payload = getattr(gentl.PAYLOADTYPE_INFO_IDS, f"PAYLOAD_TYPE_{kind}")
    with pytest.raises(SettingRefused, match=f"^main: {message}"):
        picture_of(fakes.FakeBuffer(bytes(48), payload_type=payload, parts=[]))


# ---------------------------------------------------------------- chunks by halves


def test_chunks_that_are_there_by_halves_do_no_harm(fake):
    """A mode that cannot be switched, a selector without a switch, a gain in other units."""
    half = {
        "ChunkModeActive": fakes.fixed(fakes.switch(False)),
        "ChunkSelector": fakes.choice("ExposureTime", "Gain"),
    }
    _, camera = fake(fakes.SFNC | half)
    with camera:
        assert camera.expose(0.01, 0.0, 1.0).exposure_s == 0.01
    half = {"ChunkModeActive": fakes.switch(False), "ChunkSelector": fakes.choice("Gain", "CRC")}
    steps = {"GainRaw": fakes.number(136, 136, 542), "ChunkGain": fakes.number(9.0)}
    acquirer, camera = fake(without("Gain") | half | steps, gain_db_per_raw=0.0359, gain_max_db=14)
    with camera:
        acquirer.on_trigger = lambda: acquirer.send(num_chunks=1)
        assert camera.expose(0.01, 0.0, 1.0).gain_db == 0.0


def test_an_exposure_that_the_camera_rounds_is_told_as_it_is():
    """In steps of 35 us, by an integer; a float as near as the camera has it."""
    nodes = Nodes("main", fakes.described(ExposureTime=fakes.number(35, 35, 99995, 35)), lambda: False)
    exposure = Exposure(nodes, fakes.fake_config())
    exposure.apply(0.001, 0.0)
    assert exposure.reported() == (pytest.approx(0.001015), 0.0)
