"""LED strips: bytes after the protocols' descriptions, and strips made after them on a port and a socket."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from light_counterparts import Serial, Strip, receiver, until, wled_strip
from pydantic import ValidationError

from capture.devices import DeviceLost
from capture.drivers.strips import (
    WLED_WATCHDOG_S,
    AdalightConfig,
    WledConfig,
    WledLine,
    adalight_frame,
    wled_packets,
)


def adalight(serial, name="led", **changes):
    config = {"port": serial.port, "strip": 4, "leds": 0, "settle_s": 0} | changes
    return AdalightConfig.model_validate(config).open(name)


def test_a_strip_gets_count_checksum_and_colours():
    assert adalight_frame(b"\x01\x02\x03" * 2) == b"Ada\x00\x01\x54" + b"\x01\x02\x03" * 2
    assert adalight_frame(bytes(3 * 300))[:6] == b"Ada\x01\x2b\x7f"


def test_wled_gets_one_packet_or_several():
    assert list(wled_packets(b"\x09\x08\x07")) == [b"\x02\x02\x09\x08\x07"]
    assert [len(packet) for packet in wled_packets(bytes(3 * 490))] == [2 + 3 * 490]
    assert [packet[:4] for packet in wled_packets(bytes(3 * 491))] == [
        b"\x04\x02\x00\x00",
        b"\x04\x02\x01\xe9",
    ]


@given(st.integers(1, 1500))
@example(2 * 489 + 1)
def test_wled_puts_the_colours_together_again(leds):
    colours = bytes(n % 251 for n in range(3 * leds))
    packets = list(wled_packets(colours))
    assert wled_strip(packets, leds) == colours
    assert max(map(len, packets)) <= 1472


def test_a_light_is_some_leds_in_one_colour():
    config = WledConfig(host="strip", strip=8, leds="1..2", colour=(1, 0.5, 0))
    assert config.values(1.0) == {3: 255, 4: 128, 6: 255, 7: 128}
    assert config.values(0.0) == dict.fromkeys((3, 4, 6, 7), 0)
    assert config.values(1e-6) == dict.fromkeys((3, 4, 6, 7), 1)
    assert config.places[:2] == ("red of LED 1 of WLED at strip", "green of LED 1 of WLED at strip")
    assert config.address == config.replace(leds=(7,)).address != config.replace(host="other").address


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"leds": 4}, "those from 0 to 3"),
        ({"leds": [1, 1]}, "repeats"),
        ({"leds": -1}, "greater than or equal to 0"),
        ({"colour": (0, 0, 0)}, "dark"),
        ({"colour": (2, 0, 0)}, "less than or equal to 1"),
        ({"strip": 70000}, "65536"),
    ],
)
def test_what_no_strip_has_is_refused(changes, told):
    with pytest.raises(ValidationError, match=told):
        WledConfig.model_validate({"host": "strip", "strip": 4, "leds": 0} | changes)


def test_a_strip_shows_what_is_set_and_is_dark_after():
    strip = Strip()
    with Serial(strip, greeting=b"Ada\n") as serial:
        start = time.monotonic()
        with (
            adalight(serial, leds=[0, 3], boot_s=60.0) as one,
            adalight(serial, "two", leds=1, colour=(0, 1, 0), boot_s=60.0) as two,
        ):
            assert time.monotonic() - start < 20.0
            one.set(1.0)
            two.set(0.5)
            until(lambda: strip.shown == b"\xff\xff\xff\x00\x80\x00\x00\x00\x00\xff\xff\xff")
            one.set(0.0)
            until(lambda: strip.shown == bytes(4) + b"\x80" + bytes(7))
        until(lambda: strip.shown == bytes(12))
    assert strip.faults == 0


def test_lights_of_different_colours_share_leds():
    strip = Strip()
    with (
        Serial(strip) as serial,
        adalight(serial, boot_s=0.0, colour=(1, 0, 0)) as red,
        adalight(serial, "two", boot_s=0.0, colour=(0, 0, 1)) as blue,
    ):
        red.set(1.0)
        blue.set(0.5)
        until(lambda: strip.shown == b"\xff\x00\x80" + bytes(9))
        red.set(0.0)
        until(lambda: strip.shown == b"\x00\x00\x80" + bytes(9))


def test_the_time_on_the_wire_is_waited_for():
    with Serial(Strip()) as serial, adalight(serial, boot_s=0.0, baud=9600, strip=32) as light:
        start = time.monotonic()
        light.set(1.0)
        assert time.monotonic() - start >= 2 * 102 / 960


def test_lights_of_one_strip_that_disagree_are_told():
    told = pytest.raises(ValueError, match=r"light led: AdalightLine\(.*strip=9.* and .*strip=4")
    with Serial(Strip()) as serial, adalight(serial, boot_s=0.0), told:
        adalight(serial, boot_s=0.0, strip=9, leds=8).__enter__()


def test_a_pulled_strip_is_lost():
    with Serial(Strip()) as serial:
        light = adalight(serial, boot_s=0.0).__enter__()
        serial.unplug()
        with pytest.raises(DeviceLost, match=r"led: .*the cable was pulled"):
            light.set(1.0)
        light.__exit__(DeviceLost, DeviceLost("led", "gone"), None)


def test_wled_is_kept_awake_no_longer_than_this_program_lives():
    """Frames come several times within the time after which WLED goes its own way."""
    with receiver() as (port, come):
        config = WledConfig(host="127.0.0.1", udp_port=port, strip=2, leds=1, settle_s=0)
        with config.open("led") as light:
            light.set(1.0)
            assert wled_strip(come(), 2) == b"\0\0\0\xff\xff\xff"
            until(lambda: wled_strip(come(), 2) == b"\0\0\0\xff\xff\xff")
        assert wled_strip(come()[-3:], 2) == bytes(6)
    assert WledLine.repeat_s <= WLED_WATCHDOG_S / 4
