"""Packed samples to 16 bits: four at a time out of one 64-bit word."""

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import uint16, uint64
from numba.core import types
from numba.extending import intrinsic

# Layouts of four samples in a word; `capture.packing` says which format has which.
STREAM, PACKED10, PACKED12, GROUPED10, GROUPED12 = range(5)

# Groups of four samples that one thread takes at a time.
BLOCK = 8192


def _reader(kind: Any) -> Any:
    """Compiled read of an unsigned integer at an address, little-endian, wherever it lies."""

    @intrinsic
    def read(context: Any, address: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.inttoptr(args[0], ir.IntType(kind.bitwidth).as_pointer())
            return builder.load(place, align=1)

        return kind(types.uint64), generate

    return read


_word = _reader(types.uint64)
_byte = _reader(types.uint8)


@numba.njit(cache=True)
def _short_word(start: Any, end: Any) -> Any:
    """As ``_word``, with zeros for the bytes from ``end`` on."""
    word = uint64(0)
    for byte in range(8):
        place = start + uint64(byte)
        if place < end:
            word |= uint64(_byte(place)) << uint64(8 * byte)
    return word


@numba.njit(cache=True, inline="always")
def _stream(word: Any, bits: Any, index: Any) -> Any:
    return (word >> uint64(bits * index)) & ((uint64(1) << uint64(bits)) - uint64(1))


@numba.njit(cache=True, inline="always")
def _packed(word: Any, bits: Any, index: Any) -> Any:
    """GigE Vision: high byte, both low parts (second in the high nibble), high byte."""
    pair = word >> uint64(24 * (index // 2))
    low = uint64(bits - 8)
    high = (pair >> uint64(16 * (index % 2))) & uint64(255)
    return (high << low) | ((pair >> uint64(8 + 4 * (index % 2))) & ((uint64(1) << low) - uint64(1)))


@numba.njit(cache=True, inline="always")
def _grouped10(word: Any, index: Any) -> Any:
    high = (word >> uint64(8 * index)) & uint64(255)
    return (high << uint64(2)) | ((word >> uint64(32 + 2 * index)) & uint64(3))


@numba.njit(cache=True, inline="always")
def _grouped12(word: Any, index: Any) -> Any:
    pair = word >> uint64(24 * (index // 2))
    high = (pair >> uint64(8 * (index % 2))) & uint64(255)
    return (high << uint64(4)) | ((pair >> uint64(16 + 4 * (index % 2))) & uint64(15))


@numba.njit(cache=True)
def _sample(word: Any, layout: Any, bits: Any, index: Any) -> Any:
    if layout == STREAM:
        return _stream(word, bits, index)
    if layout == GROUPED10:
        return _grouped10(word, index)
    if layout == GROUPED12:
        return _grouped12(word, index)
    return _packed(word, bits, index)


@numba.njit(cache=True)
def _whole_groups(start: Any, layout: Any, bits: Any, out: Any) -> None:
    """Fill ``out``, whose length is a multiple of four; ``start`` is an address.

    A loop for each layout, its shifts and steps constants: so they become vectors.
    """
    groups = out.size // 4
    if layout == STREAM and bits == 12:
        for group in range(groups):
            word = _word(start + uint64(6 * group))
            for index in range(4):
                out[4 * group + index] = uint16(_stream(word, 12, index))
    elif layout == STREAM and bits == 10:
        for group in range(groups):
            word = _word(start + uint64(5 * group))
            for index in range(4):
                out[4 * group + index] = uint16(_stream(word, 10, index))
    elif layout == STREAM:
        for group in range(groups):
            word = _word(start + uint64(7 * group))
            for index in range(4):
                out[4 * group + index] = uint16(_stream(word, 14, index))
    elif layout == PACKED12:
        for group in range(groups):
            word = _word(start + uint64(6 * group))
            for index in range(4):
                out[4 * group + index] = uint16(_packed(word, 12, index))
    elif layout == PACKED10:
        for group in range(groups):
            word = _word(start + uint64(6 * group))
            for index in range(4):
                out[4 * group + index] = uint16(_packed(word, 10, index))
    elif layout == GROUPED10:
        for group in range(groups):
            word = _word(start + uint64(5 * group))
            for index in range(4):
                out[4 * group + index] = uint16(_grouped10(word, index))
    else:
        for group in range(groups):
            word = _word(start + uint64(6 * group))
            for index in range(4):
                out[4 * group + index] = uint16(_grouped12(word, index))


@numba.njit(cache=True, parallel=True)
def unpack_rows(address: Any, size: Any, layout: Any, bits: Any, stride: Any, out: Any) -> None:
    """Unpack rows of samples that begin every ``stride`` bytes.

    Parameters
    ----------
    address, size : int
        First byte of the buffer, and how many there are; bytes beyond count as 0. An address, for arrays that
        may be written and those that may not are two types, each compiled on its own.
    layout : int
        One of the constants above.
    bits : int
        Of one sample.
    stride : int
        Bytes from row to row.
    out : ndarray, (rows, samples), uint16
        Written; C-contiguous.
    """
    rows, samples = out.shape
    step = 4 * bits // 8 if layout == STREAM else 5 if layout == GROUPED10 else 6
    end = uint64(address) + uint64(size)
    blocks = (samples + 4 * BLOCK - 1) // (4 * BLOCK)
    for job in numba.prange(rows * blocks):
        row, first = job // blocks, (job % blocks) * BLOCK
        last = min(samples, 4 * (first + BLOCK))
        offset = row * stride + step * first
        # whole groups whose eight bytes are all there
        inside = min(last // 4 - first, max(0, (size - 8 - offset + step) // step))
        _whole_groups(
            uint64(address) + uint64(offset), layout, bits, out[row, 4 * first : 4 * (first + inside)]
        )
        for index in range(4 * (first + inside), last):
            start = uint64(address) + uint64(row * stride + step * (index // 4))
            out[row, index] = uint16(_sample(_short_word(start, end), layout, bits, index % 4))
