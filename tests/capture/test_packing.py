"""Unpacking bit by bit, against packers written from the layouts' definitions in plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.packing import packing_of, row_stride, unpack

PACKED = [
    f"{family}{bits}{suffix}"
    for family in ("Mono", "BayerRG", "BayerGR", "BayerGB", "BayerBG")
    for bits, suffix in [
        (10, "p"),
        (12, "p"),
        (14, "p"),
        (10, "Packed"),
        (12, "Packed"),
        (10, "g"),
        (12, "g"),
    ]
]
COLOURS = [f"{family}{bits}p" for family in ("RGB", "BGR", "RGBa", "BGRa") for bits in (10, 12, 14)]


def bits_of(values, bits):
    """Bits of each value, least first."""
    return (np.asarray(values, np.int64)[:, None] >> np.arange(bits)) & 1


def pack(values, name):
    """Bytes of one run of samples; from the definitions, a bit at a time."""
    values, packing = [int(value) for value in values], packing_of(name)
    if packing.style == "stream":
        return np.packbits(bits_of(values, packing.bits).reshape(-1).astype(np.uint8), bitorder="little")
    low = packing.bits - 8
    out = []
    if packing.style == "packed":
        for place in range(0, len(values), 2):
            pair = values[place : place + 2]
            out += [pair[0] >> low, sum((value & (1 << low) - 1) << 4 * n for n, value in enumerate(pair))]
            out += [value >> low for value in pair[1:]]
        return np.array(out, np.uint8)
    size = 8 // low
    for place in range(0, len(values), size):
        group = values[place : place + size] + [0] * (size - len(values[place : place + size]))
        out += [value >> low for value in group]
        out.append(sum((value & (1 << low) - 1) << low * n for n, value in enumerate(group)))
    return np.array(out, np.uint8)


@given(
    name=st.sampled_from(PACKED + COLOURS),
    width=st.integers(1, 70),
    height=st.integers(1, 6),
    padding=st.one_of(st.none(), st.integers(0, 9)),
    trailing=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_every_packing_comes_out_bit_for_bit(name, width, height, padding, trailing, seed):
    """Rows that run on (no padding) or begin at a byte, whatever follows the rows and the image."""
    rng = np.random.default_rng(seed)
    packing = packing_of(name)
    samples = width * packing.channels
    true = rng.integers(0, 1 << packing.bits, (height, samples))
    stride = None
    if padding is None:
        data = pack(true.reshape(-1), name)
    else:
        stride = packing.row_bytes(samples) + padding
        lines = [pack(row, name) for row in true]
        data = np.concatenate(
            [part for line in lines for part in (line, rng.integers(0, 256, stride - line.size, np.uint8))]
        )
    data = np.concatenate([data, rng.integers(0, 256, trailing, np.uint8)])
    before = data.copy()
    found = unpack(data, name, width, height, stride=stride)
    assert found.dtype == np.uint16
    assert np.array_equal(data, before)
    if packing.channels == 1:
        assert np.array_equal(found, true)
    else:
        colours = true.reshape(height, width, packing.channels)[:, :, :3]
        assert np.array_equal(found, colours[:, :, ::-1] if name.startswith("BGR") else colours)


@pytest.mark.parametrize(
    "name", ["Mono12p", "Mono10p", "Mono14p", "Mono10Packed", "BayerGB12Packed", "Mono10g40IDS"]
)
@pytest.mark.parametrize("running", [True, False])
def test_large_images_are_cut_among_threads_without_a_seam(name, running):
    """Wider than a thread's share, and of a size that fits no group."""
    width, height = 40_003, 3
    packing = packing_of(name)
    true = np.random.default_rng(1).integers(0, 1 << packing.bits, (height, width))
    lines = [true.reshape(-1)] if running else list(true)
    data = np.concatenate([pack(line, name) for line in lines])
    found = unpack(data, name, width, height, stride=None if running else data.size // height)
    assert np.array_equal(found, true)


def test_layouts_by_hand():
    """Bytes of two or four samples as the standards draw them."""
    assert unpack(np.array([0xBC, 0x3A, 0x12], np.uint8), "Mono12p", 2, 1).tolist() == [[0xABC, 0x123]]
    assert unpack(np.array([0xAB, 0x3C, 0x12], np.uint8), "Mono12Packed", 2, 1).tolist() == [[0xABC, 0x123]]
    assert unpack(np.array([0xAB, 0x12, 0x3C], np.uint8), "Mono12g24IDS", 2, 1).tolist() == [[0xABC, 0x123]]
    assert unpack(np.array([0xFF, 0x21, 0x00], np.uint8), "Mono10Packed", 2, 1).tolist() == [[0x3FD, 0x002]]
    ten = [1, 2, 3, 1023]
    stream = sum(value << 10 * n for n, value in enumerate(ten)).to_bytes(5, "little")
    assert unpack(np.frombuffer(stream, np.uint8), "BayerRG10p", 4, 1).tolist() == [ten]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("family", ["Mono", "BayerGR", "RGB", "BGR", "BGRa"])
@pytest.mark.parametrize("padding", [None, 3])
def test_plain_samples_keep_rows_and_colours_apart(bits, family, padding):
    name = f"{family}{bits}"
    packing = packing_of(name)
    rng = np.random.default_rng(bits)
    true = rng.integers(0, 1 << bits, (5, 7 * packing.channels)).astype(np.uint8 if bits == 8 else np.uint16)
    stride = None if padding is None else true[0].nbytes + padding
    lines = true.view(np.uint8).reshape(5, -1)
    if stride is not None:
        lines = np.pad(lines, ((0, 0), (0, padding)), constant_values=255)
    found = unpack(lines.reshape(-1), name, 7, 5, stride=stride)
    assert found.dtype == true.dtype
    want = true.reshape(5, 7, -1)[:, :, :3]
    want = want[:, :, ::-1] if family.startswith("BGR") else want
    assert np.array_equal(found.reshape(5, 7, -1), want)
    assert not np.shares_memory(found, lines)
    if bits > 8 and padding is None:
        swapped = true.byteswap().view(np.uint8).reshape(-1)
        assert np.array_equal(unpack(swapped, name, 7, 5, big_endian=True), found)


def test_names_lose_their_packing():
    names = {
        "Mono12p": "Mono12", "BayerGB10Packed": "BayerGB10", "BGRa8": "RGB8", "RGB8Packed": "RGB8",
        "RGB12Packed": "RGB12", "Mono10g40IDS": "Mono10", "Mono12packed": "Mono12", "RGB14p": "RGB14",
    }  # fmt: skip
    assert {name: packing_of(name).pixel_format for name in names} == names
    assert packing_of("RGB12Packed").style == "plain"


@pytest.mark.parametrize(
    "name",
    [
        "Mono8p",
        "Mono16p",
        "Mono14Packed",
        "Mono1p",
        "YUV422Packed",
        "Mono12g40",
        "RGB10g",
        "Mono12",
        "BayerXX8",
        "",
    ],
)
def test_other_names_are_refused(name):
    if name == "Mono12":
        assert packing_of(name).style == "plain"
        return
    with pytest.raises(ValueError, match=f"pixel format '{name}' cannot be unpacked: want Mono, "):
        packing_of(name)


@pytest.mark.parametrize(
    ("name", "width", "height", "size", "padding", "stride"),
    [
        ("Mono12p", 7, 100, 1050, 0, None),  # 7 samples of 12 bits are 10.5 bytes
        ("Mono12p", 7, 100, 1100, 0, 11),
        ("Mono12p", 7, 100, 1200, 0, 12),
        ("Mono12p", 7, 100, 1064, 0, None),  # something follows the image
        ("Mono12p", 8, 100, 1200, 0, None),
        ("Mono12p", 8, 100, 1500, 3, 15),
        ("Mono12Packed", 7, 100, 1200, 0, 12),
        ("Mono12Packed", 7, 100, 1100, 0, 11),
        ("Mono8", 7, 100, 800, 0, 8),
        ("Mono8", 7, 100, 1000, 3, 10),
        ("Mono8", 7, 100, 997, 3, 10),  # the last row needs none
    ],
)
def test_the_buffer_says_how_far_its_rows_are_apart(name, width, height, size, padding, stride):
    assert row_stride(packing_of(name), width, height, size, padding) == stride


def test_buffers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="149 bytes are too few for 10 x 10 of Mono12: want 150"):
        unpack(np.zeros(149, np.uint8), "Mono12p", 10, 10)
    with pytest.raises(ValueError, match="1049 bytes are too few for 7 x 100 of Mono12: want 1050"):
        row_stride(packing_of("Mono12p"), 7, 100, 1049)
    with pytest.raises(ValueError, match="rows 14 bytes apart overlap"):
        unpack(np.zeros(1000, np.uint8), "Mono12p", 10, 10, stride=14)
    with pytest.raises(ValueError, match="0 x 10 pixels has none"):
        unpack(np.zeros(10, np.uint8), "Mono8", 0, 10)
    with pytest.raises(ValueError, match="a sample of 65520 is no 12-bit number: does the camera align"):
        unpack(np.full(2, 65520, np.uint16).view(np.uint8), "Mono12", 2, 1)
