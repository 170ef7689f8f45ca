"""DMX lights over a DMX USB Pro, Art-Net and sACN: bytes against foreign packages, frames on their way.

What a receiver makes of them is asked of OLA in test_ola.py.
"""

import time
from contextlib import ExitStack, closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from light_counterparts import Serial, Widget, receiver, until
from pydantic import ValidationError

from capture.devices import DeviceError, DeviceLost
from capture.drivers import shared, slots
from capture.drivers.dmx import ArtNetLightConfig, EnttecLightConfig, SacnLightConfig, codec, lines

LEVELS = bytes(range(256)) * 2


# ---------------------------------------------------------------- bytes


def test_a_widget_gets_the_whole_universe():
    message = codec.enttec_dmx(b"\x01\x02")
    assert message[:7] == bytes([0x7E, 6, 0x01, 0x02, 0, 1, 2])
    assert message[7:] == bytes(510) + b"\xe7"


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=600))), st.integers(1, 40), st.binary())
def test_messages_of_a_widget_are_found_however_they_come(sent, step, noise):
    data = noise.replace(b"\x7e", b"") + b"".join(codec.enttec_message(*message) for message in sent)
    decoder = codec.EnttecDecoder()
    found = [message for at in range(0, len(data), step) for message in decoder.feed(data[at : at + step])]
    assert [(message.label, message.data) for message in found] == sent


def test_a_torn_message_costs_no_other():
    whole = codec.enttec_message(3, b"\x04\x01\x09\x01\x28")
    for torn in (whole[:-2], b"\x7e\x03\xff\xff", whole[:-1] + b"\x00"):
        decoder = codec.EnttecDecoder()
        found = decoder.feed(torn + whole + whole)
        assert codec.EnttecMessage(3, whole[4:-1]) in found


def test_the_rate_of_a_widget():
    assert codec.enttec_rate_hz(codec.EnttecMessage(3, b"\x04\x01\x09\x01\x0a")) == 10
    assert codec.enttec_rate_hz(codec.EnttecMessage(3, b"\x04\x01\x09\x01\x00")) is None
    assert codec.enttec_rate_hz(codec.EnttecMessage(3, b"\x04")) is None


@pytest.mark.parametrize("universe", [0, 3, 0x25, 0x7FFF])
def test_art_net_as_another_sender_does_it(universe):
    other = pytest.importorskip("stupidArtnet").StupidArtnet("127.0.0.1", universe)
    with closing(other):
        other.sequence = 200
        other.make_artdmx_header()
        other.set(bytearray(LEVELS))
        assert codec.art_dmx(200, universe, LEVELS) == bytes(other.packet_header + other.buffer)


def test_an_odd_number_of_slots_is_made_even():
    packet = codec.art_dmx(1, 0, b"\x09\x08\x07")
    assert packet[16:] == b"\x00\x04\x09\x08\x07\x00"


@pytest.mark.parametrize("terminated", [False, True])
def test_sacn_as_another_sender_does_it(terminated):
    packets = pytest.importorskip("sacn.messages.data_packet")
    other = packets.DataPacket(
        cid=tuple(range(16)),
        sourceName="gnomon",
        universe=0x1234,
        dmxData=tuple(LEVELS),
        sequence=77,
        streamTerminated=terminated,
    )
    ours = codec.sacn_data(bytes(range(16)), "gnomon", 77, 0x1234, LEVELS, terminated=terminated)
    assert len(ours) == 638
    assert ours == bytes(other.getBytes())
    assert codec.sacn_group(0x1234) == "239.255.18.52"


# ---------------------------------------------------------------- configurations


def artnet(**changes):
    return ArtNetLightConfig.model_validate({"host": "127.0.0.1", "settle_s": 0, "channels": 1} | changes)


def test_levels_become_bytes():
    assert artnet(channels=[2, 5]).values(1.0) == {1: 255, 4: 255}
    assert artnet().values(0.5) == {0: 128}
    assert artnet().values(1e-6) == {0: 1}
    assert artnet().values(0.0) == {0: 0}
    assert artnet(full_level=100).values(0.5) == {0: 50}
    assert artnet(channels=7, fine=True).values(0.5) == {6: 0x80, 7: 0x00}
    assert artnet(channels=7, fine=True).values(1e-9) == {6: 0, 7: 1}
    assert artnet(channels=7, fine=True, full_level=256).values(1) == {6: 1, 7: 0}
    assert artnet(channels="3..4", fixed={"1": 40}).values(0.0) == {2: 0, 3: 0}
    assert artnet(channels="3..4", fixed={"1": 40}).constants == {0: 40}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"channels": 0}, "greater than or equal to 1"),
        ({"channels": [513]}, "less than or equal to 512"),
        ({"channels": []}, "at least 1"),
        ({"channels": [4, 4]}, "channel 4 is used twice"),
        ({"channels": [4, 5], "fine": True}, "channel 5 is used twice"),
        ({"channels": 512, "fine": True}, "no fine half"),
        ({"channels": 4, "fixed": {4: 255}}, "channel 4 is used twice"),
        ({"fixed": {1000: 1}}, "less than or equal to 512"),
        ({"full_level": 256}, "255 without fine"),
        ({"universe": 2**15}, "less than 32768"),
        ({"strobe": True}, "strobe"),
    ],
)
def test_what_no_universe_has_is_refused(changes, told):
    with pytest.raises(ValidationError, match=told):
        artnet(**changes)


def test_one_run_at_a_time_has_a_universe(tmp_path):
    (tmp_path / "by-id").symlink_to("/dev/ttyUSB7")
    assert EnttecLightConfig(port=str(tmp_path / "by-id"), channels=1).address == "/dev/ttyUSB7"
    assert artnet(channels=1).address == artnet(channels=2).address != artnet(universe=1).address
    sacn = SacnLightConfig(channels=1)
    assert sacn.address == sacn.replace(channels=2).address != sacn.replace(universe=2).address


# ---------------------------------------------------------------- on the way


@pytest.fixture(autouse=True)
def no_repetitions(monkeypatch):
    """Only those that a test asks for, so that frames can be counted."""
    for line in (slots.Line, lines.Sacn):
        monkeypatch.setattr(line, "repeat_s", 60.0)


@contextmanager
def node(monkeypatch=None, repeat_s=None):
    """An Art-Net lights' maker, and the levels of the frames that have come since it was last asked."""
    with receiver() as (port, come):
        if repeat_s is not None:
            monkeypatch.setattr(slots.Line, "repeat_s", repeat_s)

        def frames():
            return [packet[18:] for packet in come()]

        yield (lambda name="led", **changes: artnet(udp_port=port, **changes).open(name)), frames


def test_lights_of_a_universe_share_one_sender():
    with receiver() as (port, come), ExitStack() as stack:
        lights = [artnet(udp_port=port, channels=n).open(f"led{n}") for n in (1, 2)]
        one, two = (stack.enter_context(light) for light in lights)
        one.set(1.0)
        two.set(0.5)
        lights[0].__exit__(None, None, None)
        packets = come()
        assert [packet[12] for packet in packets] == [1, 2, 3, 4]
        assert [tuple(packet[18:20]) for packet in packets] == [(0, 0), (255, 0), (255, 128), (0, 128)]
    with receiver() as (port, come):
        with artnet(udp_port=port).open("led") as light:
            light.set(1.0)
        frames = [packet[18:] for packet in come()]
        assert len(frames) >= 4
        assert frames[1][0] == 255
        assert not any(map(any, frames[2:]))


def test_sacn_ends_its_stream_after_several_dark_frames():
    with receiver() as (port, come):
        with SacnLightConfig(host="127.0.0.1", udp_port=port, channels=3, settle_s=0).open("led") as light:
            light.set(1.0)
        packets = come()
    assert [packet[111] for packet in packets] == [*range(1, len(packets) + 1)]
    assert packets[1][126:130] == b"\x00\x00\xff\x00"
    assert len({packet[22:38] for packet in packets}) == 1
    dark = packets[2:]
    assert not any(any(packet[126:]) for packet in dark)
    assert [bool(packet[112] & 0x40) for packet in dark][-6:] == [False] * 3 + [True] * 3


def test_frames_are_repeated_while_the_light_is_open_and_not_after(monkeypatch):
    with node(monkeypatch, repeat_s=0.04) as (make, frames):
        with make() as light:
            light.set(1.0)
            frames()
            seen = []

            def several():
                seen.extend(frames())
                return len(seen) > 5

            until(several)
            assert {frame[0] for frame in seen} == {255}
        frames()
        time.sleep(0.1)
        assert frames() == []


def test_a_program_that_hangs_leaves_no_light_on(monkeypatch):
    monkeypatch.setattr(shared, "UNATTENDED_S", 0.1)
    with node(monkeypatch, repeat_s=0.04) as (make, frames), make() as light:
        light.set(1.0)
        until(lambda: [frame[0] for frame in frames()][-1:] == [0])
        with pytest.raises(DeviceError, match=r"led: nothing was asked of its lights for 0\.1 s"):
            light.set(1.0)
        light.set(1.0)


def test_fixed_channels_burn_with_the_first_setting_and_go_with_the_last():
    with node() as (make, frames):
        with make(channels=1, fixed={5: 77}) as light:
            assert not any(frames()[-1])
            light.set(0.0)
            assert frames()[-1][:6] == bytes([0, 0, 0, 0, 77, 0])
        assert not any(frames()[-1])


def test_a_channel_belongs_to_one_light_and_a_line_has_one_description():
    with node() as (make, _), make("a", channels=[1, 2]) as light:
        told = r"light b: channel 2 of Art-Net universe 0 .* is that of light a"
        for changes in ({"channels": 2}, {"channels": 3, "fixed": {2: 1}}):
            with pytest.raises(ValueError, match=told):
                make("b", **changes).__enter__()
        light.set(1.0)


def test_colours_of_a_fixture_share_its_dimmer():
    with node() as (make, frames), ExitStack() as stack:
        red = stack.enter_context(make("red", channels=2, fixed={1: 255}))
        green = stack.enter_context(make("green", channels=3, fixed={1: 255}))
        with pytest.raises(ValueError, match=r"light blue: channel 1 of .* is that of light red"):
            make("blue", channels=4, fixed={1: 200}).__enter__()
        red.set(1.0)
        green.set(0.5)
        assert frames()[-1][:3] == b"\xff\xff\x80"
        red.__exit__(None, None, None)
        assert frames()[-1][:3] == b"\xff\x00\x80"
        green.__exit__(None, None, None)
        assert not any(frames()[-1])


def test_what_two_lights_both_are_is_known_before_they_are_opened():
    assert artnet(channels=7, fine=True, fixed={1: 255}).places == (
        "channel 7 of Art-Net universe 0 at 127.0.0.1",
        "channel 8 of Art-Net universe 0 at 127.0.0.1",
    )


def test_set_waits_for_the_wire_and_the_lamp():
    with node() as (make, _), make(settle_s=0.0) as light:
        start = time.monotonic()
        light.set(1.0)
        assert time.monotonic() - start >= 2 * codec.FRAME_S
    with node() as (make, _), make(settle_s=0.08) as light:
        start = time.monotonic()
        light.set(1.0)
        assert time.monotonic() - start >= 0.08


def test_nobody_listens():
    with receiver() as (port, _):
        pass
    for config in (
        artnet(udp_port=port),
        SacnLightConfig(host="127.0.0.1", udp_port=port, channels=1),
    ):
        with pytest.raises(DeviceLost, match=r"^led: 127.0.0.1 port \d+: nothing listens there"):
            use(config.open("led"))
    with pytest.raises(DeviceLost, match="no such host"):
        artnet(host="nowhere.invalid").open("led").__enter__()


def use(light):
    with light:
        light.set(1.0)


def test_a_receiver_that_dies_is_told_of_by_confirm_and_on_leaving():
    with node() as (make, _):
        light = make().__enter__()
        light.set(1.0)
        light.confirm()
    with pytest.raises(DeviceLost, match="nothing listens there"):
        light.set(0.5)
    with pytest.raises(DeviceLost, match=r"^led: MAY STILL BURN: .* nothing listens there"):
        light.__exit__(None, None, None)


def test_a_receiver_that_was_away_for_a_while_is_told_of_once(monkeypatch):
    monkeypatch.setattr(slots.Line, "repeat_s", 0.04)
    with receiver() as (port, _):
        light = artnet(udp_port=port).open("led").__enter__()
        light.set(1.0)
    until(lambda: light._controller._alive._fault is not None)
    with receiver(port) as (_, come):
        until(come)
        with pytest.raises(DeviceLost, match=r"led: .* nothing listens there"):
            light.set(1.0)
        light.set(1.0)
        light.__exit__(None, None, None)


# ---------------------------------------------------------------- widgets


def enttec(serial, **changes):
    config = {"port": serial.port, "channels": 1, "settle_s": 0} | changes
    return EnttecLightConfig.model_validate(config).open("led")


def test_a_widget_shows_what_is_set_and_is_dark_after():
    widget = Widget()
    with Serial(widget) as serial:
        with enttec(serial, channels=[1, 512]) as light:
            light.set(0.5)
            until(lambda: any(widget.universe))
            assert widget.universe == b"\x80" + bytes(510) + b"\x80"
        until(lambda: not any(widget.universe))
    assert widget.stray == b""
    assert {len(data) for label, data in widget.messages if label == 6} == {513}


def test_the_rate_of_the_widget_is_waited_for():
    with Serial(Widget(rate_hz=20)) as serial, enttec(serial) as light:
        start = time.monotonic()
        light.set(1.0)
        assert time.monotonic() - start >= 0.1


def test_what_is_no_widget_is_told(monkeypatch):
    monkeypatch.setattr("capture.drivers.dmx.lines._REPLY_S", 0.06)
    deaf = Widget(labels=())
    with Serial(deaf) as serial:
        with pytest.raises(
            DeviceLost, match=r"^led: no answer within 0\.06 s: is it a DMX USB Pro.* Open DMX"
        ):
            enttec(serial).__enter__()
        with pytest.raises(DeviceLost, match="no answer"):
            enttec(serial).__enter__()


def test_noise_before_the_answer_does_no_harm():
    with Serial(Widget(), greeting=b"\x7e\x03garbage~~") as serial, enttec(serial) as light:
        light.set(1.0)


def test_a_pulled_widget_is_lost_and_told_to_burn():
    with Serial(Widget()) as serial:
        light = enttec(serial).__enter__()
        light.set(1.0)
        serial.unplug()
        with pytest.raises(DeviceLost, match=r"led: .*the cable was pulled"):
            light.set(0.0)
        with pytest.raises(DeviceLost, match=r"led: MAY STILL BURN: .*the cable was pulled"):
            light.__exit__(None, None, None)


def test_what_ends_the_program_is_not_told_twice():
    lost = DeviceLost("camera", "gone")
    with Serial(Widget()) as serial:
        light = enttec(serial).__enter__()
        serial.unplug()
        light.__exit__(DeviceLost, lost, None)


def test_a_widget_with_a_damaged_answer_is_asked_again(monkeypatch):
    widget = Widget()
    asked = []

    def answer(data):
        reply = widget(data)
        asked.append(data)
        return reply if len(asked) > 1 else reply[:-1]

    monkeypatch.setattr("capture.drivers.dmx.lines._REPLY_S", 0.6)
    with Serial(answer) as serial, enttec(serial) as light:
        light.set(1.0)
        until(lambda: any(widget.universe))
    assert len([label for label, _ in widget.messages if label == 3]) == 2
