"""Samples where they lie in memory: addresses to arrays, packed bytes to samples."""

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from calibration.radiometric.merge.packed import MONO8, MONO10P, MONO12P, MONO12PACKED


def _pointer_to(kind: Any) -> Any:
    """Compiled cast of an address to a pointer: frames are separate arrays, their number is not a type."""

    pointer: Any = types.CPointer

    @intrinsic
    def cast(context: Any, address: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], target.get_value_type(pointer(kind)))

        return pointer(kind)(types.uint64), generate

    return cast


to_uint8 = _pointer_to(types.uint8)
to_uint16 = _pointer_to(types.uint16)
to_uint32 = _pointer_to(types.uint32)
to_uint64 = _pointer_to(types.uint64)
to_float32 = _pointer_to(types.float32)


@numba.njit(cache=True)
def unpack(kind: Any, address: Any, first: Any, out: Any) -> None:
    """Samples ``first ... first + len(out)`` of packed bytes; ``first`` is a multiple of 16.

    Parameters
    ----------
    kind : int
        One of the constants of `packed`.
    address : uint64
        Of the frame's first byte.
    first : int
        Sample.
    out : ndarray, uint16
        Written.
    """
    count = len(out)
    if kind == MONO8:
        plain = carray(to_uint8(address + np.uint64(first)), (count,))
        for p in range(count):
            out[p] = plain[p]
    elif kind == MONO12P:
        start = address + np.uint64(first // 2 * 3)
        words = carray(to_uint64(start), (count // 16 * 3,))
        mask = np.uint64(4095)
        for g in range(count // 16):
            a, b, c = words[3 * g], words[3 * g + 1], words[3 * g + 2]
            q = 16 * g
            for k in range(5):
                out[q + k] = np.uint16((a >> np.uint64(12 * k)) & mask)
            out[q + 5] = np.uint16(((a >> np.uint64(60)) | (b << np.uint64(4))) & mask)
            for k in range(4):
                out[q + 6 + k] = np.uint16((b >> np.uint64(8 + 12 * k)) & mask)
            out[q + 10] = np.uint16(((b >> np.uint64(56)) | (c << np.uint64(8))) & mask)
            for k in range(5):
                out[q + 11 + k] = np.uint16((c >> np.uint64(4 + 12 * k)) & mask)
        tail = carray(to_uint8(start), (count * 3 // 2 + 1,))
        for p in range(count // 16 * 16, count):
            low, high = np.uint16(tail[p * 3 // 2]), np.uint16(tail[p * 3 // 2 + 1])
            out[p] = (low >> 4) | (high << 4) if p % 2 else low | ((high & 15) << 8)
    elif kind == MONO12PACKED:
        triples = carray(to_uint8(address + np.uint64(first // 2 * 3)), (count * 3 // 2 + 1,))
        for p in range(count):
            q = p // 2 * 3
            middle = np.uint16(triples[q + 1])
            if p % 2:
                out[p] = (np.uint16(triples[q + 2]) << 4) | (middle >> 4)
            else:
                out[p] = (np.uint16(triples[q]) << 4) | (middle & 15)
    elif kind == MONO10P:
        bits = carray(to_uint8(address + np.uint64(first // 4 * 5)), ((count * 10 + 7) // 8,))
        for p in range(count):
            q, s = p * 10 // 8, p * 10 % 8
            pair = np.uint32(bits[q]) | (np.uint32(bits[q + 1]) << np.uint32(8))
            out[p] = np.uint16((pair >> np.uint32(s)) & np.uint32(1023))
