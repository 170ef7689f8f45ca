"""What the stream of a GenICam camera makes of buffers made up here."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("harvesters", reason="the package harvesters is not installed")

import genicam_fakes as fakes
from genicam import gentl

from capture.devices import FrameLost
from capture.drivers.genicam.nodes import Nodes
from capture.drivers.genicam.stream import Stream


def picture_of(*buffers, deadline_s=0.05):
    """What the stream makes of the first buffer that is one."""
    acquirer = fakes.FakeAcquirer(**fakes.SFNC)
    stream = Stream("main", acquirer, Nodes("main", acquirer.node_map, lambda: False))
    acquirer.arriving.extend(buffers)
    try:
        return stream.take(time.monotonic() + deadline_s, deadline_s)
    finally:
        assert all(buffer.queued == 1 for buffer in acquirer.taken if buffer is not None)


def test_packed_rows_with_padding_come_out_whole_and_of_their_own():
    true = np.arange(7 * 5).reshape(5, 7) * 117 % 4096
    rows = []
    for row in true:
        bits = (row[:, None] >> np.arange(12)) & 1
        rows.append(np.concatenate([np.packbits(bits.reshape(-1), bitorder="little"), [255, 255]]))
    data = np.concatenate(rows).astype(np.uint8)
    told = {
        "width": 7,
        "height": 5,
        "pixel_format": 0x010C0047,
        "padding_x": 2,
        "frame_id": 9,
        "timestamp_ns": 5,
    }
    picture = picture_of(fakes.FakeBuffer(data, **told))
    assert (picture.pixel_format, picture.number, picture.timestamp_ns) == ("Mono12", 9, 5)
    # the fake's bytes are all 0 once it is given back
    assert np.array_equal(picture.dn, true)


def test_formats_that_harvesters_does_not_know():
    data = np.frombuffer(
        sum(v << 14 * n for n, v in enumerate([1, 2, 3, 16383])).to_bytes(7, "little"), np.uint8
    )
    picture = picture_of(fakes.FakeBuffer(data, width=2, height=2, pixel_format=0x010E0106, size_filled=7))
    assert (picture.pixel_format, picture.dn.tolist()) == ("BayerRG14", [[1, 2], [3, 16383]])


def test_a_buffer_that_says_nothing_is_read_by_the_nodes():
    data = np.arange(48, dtype=np.uint8)
    picture = picture_of(fakes.FakeBuffer(data))
    assert (picture.pixel_format, picture.number, picture.timestamp_ns) == ("Mono8", None, None)
    assert np.array_equal(picture.dn.reshape(-1), data)


def test_the_picture_of_several_parts_is_taken():
    image = {
        "data_format": 0x01080001,
        "width": 4,
        "height": 2,
        "x_padding": 0,
        "data_offset": 10,
        "data_size": 8,
    }
    kinds = gentl.PARTDATATYPE_IDS
    parts = [
        SimpleNamespace(data_type=kinds.PART_DATATYPE_3D_IMAGE, **image | {"data_offset": 0}),
        SimpleNamespace(data_type=kinds.PART_DATATYPE_2D_IMAGE, **image),
    ]
    kind = gentl.PAYLOADTYPE_INFO_IDS.PAYLOAD_TYPE_MULTI_PART
    picture = picture_of(fakes.FakeBuffer(range(30), payload_type=kind, parts=parts, frame_id=1))
    assert picture.dn.tolist() == [[10, 11, 12, 13], [14, 15, 16, 17]]


def test_of_several_streams_the_first_is_taken_and_none_starves():
    first, second = (
        fakes.FakeBuffer([value] * 4, width=2, height=2, pixel_format=0x01080001) for value in (1, 2)
    )
    assert (picture_of([None, first, second]).dn == 1).all()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"pixel_format": 0x12345678}, "sent an unknown pixel format, 0x12345678"),
        ({"pixel_format": 0x0210001F}, "pixel format 'YUV422_8_UYVY' cannot be unpacked: want Mono"),
        ({"delivered_image_height": 4}, "a frame came with 4 of its 6 rows"),
        ({"data_size": 40}, "40 bytes are too few for 8 x 6 of Mono8: want 48"),
        ({"pixel_format": 0x01100005}, "48 bytes are too few for 8 x 6 of Mono12: want 96"),
    ],
)
def test_buffers_that_are_no_picture(told, message):
    buffer = fakes.FakeBuffer(bytes(48), **{"width": 8, "height": 6, "pixel_format": 0x01080001} | told)
    with pytest.raises(FrameLost, match=f"^main: {message}"):
        picture_of(buffer)
