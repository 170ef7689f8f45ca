"""The dome's lines, by byte tables and at random; the checksum by the value of a catalogue."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.drivers.dome.codec import (
    LINE_BYTES,
    Decoder,
    Event,
    Identity,
    Noise,
    Reply,
    Status,
    checksum,
    encode,
    read_degrees,
    read_identity,
    read_status,
)


def line(first, body):
    return f"{first}{body}*{checksum(body.encode()):04X}\n".encode()


def test_the_checksum_is_crc_16_ccitt_false():
    """Check value of CRC-16/IBM-3740, also called CCITT-FALSE, in Greg Cook's catalogue of CRC algorithms."""
    assert checksum(b"123456789") == 0x29B1


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ((0x00, "ID"), rb">00 ID\*[0-9A-F]{4}\n"),
        ((0xAF, "SET", 3, 255), rb">AF SET 3 255\*[0-9A-F]{4}\n"),
        ((7, "FIRE", 0, 1, 2000, 10000000), rb">07 FIRE 0 1 2000 10000000\*[0-9A-F]{4}\n"),
        ((255, "SEQ", 1, 3), rb">FF SEQ 1 3\*[0-9A-F]{4}\n"),
    ],
)
def test_requests(asked, sent):
    assert re.fullmatch(sent, encode(*asked))


def test_a_known_line_byte_by_byte():
    assert encode(0x05, "SET", 3, 4095) == b">05 SET 3 4095*28CC\n"


def test_a_request_fits_into_a_line_or_is_refused():
    pairs = [value for channel in range(10, 20) for value in (channel, 4095)]
    assert len(encode(1, "SEQ", 63, 255, *pairs[:10])) <= LINE_BYTES
    with pytest.raises(ValueError, match="does not fit into a line of 64 bytes"):
        encode(1, "SEQ", 63, 255, *pairs)


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ("05 OK", Reply(5, 0)),
        ("FF OK 12", Reply(255, 0, ("12",))),
        ("?? ERR 1 crc", Reply(None, 1, ("crc",))),
        ("0A ERR 9 maxlit", Reply(10, 9, ("maxlit",))),
    ],
)
def test_replies(body, reply):
    assert Decoder().feed(line("<", body)) == [reply]
    assert Decoder().feed(line("<", body).replace(b"\n", b"\r\n")) == [reply]


def test_events():
    found = Decoder().feed(line("!", "BOOT P") + line("!", "WDT") + line("!", "DONE 0F"))
    assert found == [Event("BOOT", ("P",)), Event("WDT"), Event("DONE", ("0F",))]


@pytest.mark.parametrize(
    "data",
    [
        b"<05 OK*0000\n",
        line("<", "05 OK").lower(),
        line("<", "5 OK"),
        line("<", "05 YES"),
        line("<", "05 ERR 0"),
        line("<", "05 OKAY"),
        line(">", "05 OK"),
        line("!", "boot P"),
        b"no line at all\n",
        b"\xff\xfe\x00\n",
        line("<", "05 OK").replace(b"*", b""),
        b"*" * LINE_BYTES,
    ],
)
def test_what_is_no_line_is_noise_and_the_next_line_is_read(data):
    assert all(isinstance(found, Noise) for found in Decoder().feed(data))
    *before, last = Decoder().feed(data + line("!", "WDT"))
    assert before
    assert all(isinstance(found, Noise) for found in before)
    assert last == Event("WDT")


def test_a_torn_line_gives_way_to_the_one_that_begins_in_it():
    noise, reply = Decoder().feed(b"<05 O" + line("<", "06 OK"))
    assert (noise, reply) == (Noise(b"<05 O"), Reply(6, 0))


def test_a_line_without_end_is_given_up():
    found = Decoder().feed(b"x" * 1000)
    assert len(found) > 1000 // LINE_BYTES - 2
    assert all(isinstance(noise, Noise) for noise in found)


def test_empty_lines_are_nothing():
    assert Decoder().feed(b"\n\n" + line("<", "06 OK") + b"\n") == [Reply(6, 0)]


words = st.lists(st.from_regex(r"[a-z0-9-]{1,6}", fullmatch=True), max_size=5).map(tuple)
replies = st.builds(Reply, st.integers(0, 255), st.integers(0, 9), words)


def text_of(reply):
    told = "OK" if reply.error == 0 else f"ERR {reply.error}"
    return line("<", " ".join([f"{reply.sequence:02X}", told, *reply.words]))


@settings(max_examples=30, deadline=None)
@given(st.lists(replies, max_size=5), st.data())
def test_lines_come_in_pieces_of_any_size(sent, data):
    stream = b"".join(map(text_of, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, found = Decoder(), []
    for first, last in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[first:last])
    assert found == sent


@given(st.binary(max_size=300))
def test_no_stream_of_bytes_is_refused_and_none_is_kept_for_ever(data):
    decoder = Decoder()
    decoder.feed(data)
    assert decoder.feed(b"\n" + line("<", "00 OK"))[-1] == Reply(0, 0)


@given(replies, st.data())
def test_no_reply_with_one_damaged_byte_is_taken_for_another(reply, data):
    good = text_of(reply)
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255))
    damaged = good[:place] + bytes([byte]) + good[place + 1 :]
    read = [found for found in Decoder().feed(damaged + b"\n") if isinstance(found, Reply)]
    assert read in ([], [reply])


def test_the_identity():
    words = ("gnomon", "1.0", "1", "24", "255", "A1B2C3", "65000", "8", "2000", "32", "50")
    assert read_identity(words) == Identity(
        "gnomon",
        "1.0",
        1,
        24,
        255,
        "A1B2C3",
        max_on_s=65.0,
        max_lit=8,
        watchdog_s=2.0,
        steps=32,
        max_duty=0.5,
    )
    assert read_identity(words[:-1]) is None
    assert read_identity((*words[:-1], "half")) is None
    assert read_identity(()) is None


def test_the_status():
    assert read_status(("L", "2", "-35", "7", "1", "0", "-")) == Status("L", 2, -3.5, 7, 1, 0, "-")
    assert read_status(("T", "0", "-", "0", "0", "0", "wdt")) == Status("T", 0, None, 0, 0, 0, "wdt")
    assert read_status(("L", "two", "-", "0", "0", "0", "-")) is None
    assert read_status(()) is None
    assert read_degrees("") is None
