"""Memory kept busy: samples asked for before they are wanted, results written past the caches."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from calibration.radiometric.merge.kernels.maps import CELL
from calibration.radiometric.merge.kernels.packing import to_float32

_PREFETCH = "llvm.prefetch.p0"
_LANES = 16  # float32 of a line of the caches
_LINES = 2 * CELL // 64 // 4  # of a quarter of a cell of uint16


def _stream_line(context: Any, target: Any, source: Any) -> Any:
    """Copy 64 bytes to an address that is a multiple of 64, without reading what was there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = ir.VectorType(ir.FloatType(), _LANES).as_pointer()
        numbers = builder.load(builder.inttoptr(args[1], line))
        numbers.align = 4
        store = builder.store(numbers, builder.inttoptr(args[0], line))
        store.align = 64
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


def _fetch(context: Any, address: Any) -> Any:
    """Ask for the line of the caches that holds an address; any address will do."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        call = builder.module.globals.get(_PREFETCH) or ir.Function(builder.module, kind, _PREFETCH)
        # to read, for long, data
        builder.call(call, [builder.inttoptr(args[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


stream_line: Any = intrinsic(_stream_line)
fetch: Any = intrinsic(_fetch)


@numba.njit(cache=True)
def fetch_ahead(places: Any, quarter: Any) -> None:
    """Ask for a quarter of the next cell of each frame: memory is to work while sums are made."""
    for line in range(_LINES * quarter, _LINES * (quarter + 1)):
        for j in range(len(places)):
            fetch(places[j] + np.uint64(2 * CELL + 64 * line))


@numba.njit(cache=True)
def write_out(numbers: Any, target: Any) -> None:
    """Copy float32 to an address that nobody reads soon; a plain store would fetch each line first.

    Whoever reads them in another thread waits for this one, by a lock, which orders these stores too.
    """
    source = np.uint64(numbers.ctypes.data)
    count = len(numbers)
    out = carray(to_float32(target), (count,))
    # all but an end that is not a whole line
    head: Any = min(np.int64((np.uint64(0) - target) & np.uint64(63)) // 4, count)
    for p in range(head):
        out[p] = numbers[p]
    whole = (count - head) // _LANES
    for line in range(whole):
        at = np.uint64(4 * (head + _LANES * line))
        stream_line(target + at, source + at)
    for p in range(head + _LANES * whole, count):
        out[p] = numbers[p]
