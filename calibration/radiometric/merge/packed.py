"""Frames as they lie in a camera's buffer: twelve or ten bits a sample, without a byte to spare."""

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from calibration.provenance import FitError

UINT16: Final = 0
MONO8: Final = 1
MONO12P: Final = 2
MONO10P: Final = 3
MONO12PACKED: Final = 4
FLOAT32: Final = 5

Packing = Literal["12p", "10p", "12Packed"]
_KINDS: dict[str, int] = {"12p": MONO12P, "10p": MONO10P, "12Packed": MONO12PACKED}
_BITS = {MONO12P: 12, MONO10P: 10, MONO12PACKED: 12}


class Packed:
    """A frame of packed samples, unpacked only where it is read; `merge` takes it as it is.

    Parameters
    ----------
    data : ndarray (n,), uint8
        The buffer. Kept, not copied; bytes beyond the last sample are padding.
    shape : tuple
        (h, w) or (h, w, 3) of the frame.
    packing : '12p', '10p' or '12Packed'
        PFNC: ``p`` is little-endian without gaps, the first sample in the lowest bits (GenICam);
        ``12Packed`` is GigE Vision's, where the middle byte of three holds the low four bits of both.
        Samples run on over the ends of rows.

    Attributes
    ----------
    shape : tuple
    dtype : dtype
        uint16, as ``numpy.asarray`` of it.
    kind : int
        Constant of this module that the kernels know.

    Raises
    ------
    FitError
        Unknown packing, or a buffer too short for the shape.
    """

    def __init__(self, data: NDArray[np.uint8], shape: tuple[int, ...], packing: Packing) -> None:
        if packing not in _KINDS:
            raise FitError(f"packing {packing!r}: want one of {', '.join(_KINDS)}")
        self.kind = _KINDS[packing]
        self.data: NDArray[np.uint8] = np.ascontiguousarray(data, np.uint8).ravel()
        self.shape = tuple(shape)
        self.dtype = np.dtype(np.uint16)
        samples = int(np.prod(shape))
        needed = self.bytes_of(samples)
        if self.data.size < needed:
            raise FitError(f"packed frame {self.shape}: {self.data.size} bytes, want {needed}")

    @property
    def nbytes(self) -> int:
        """Of the packed samples."""
        return self.data.nbytes

    def bytes_of(self, samples: int) -> int:
        """How many bytes hold the first so many samples."""
        if self.kind == MONO12PACKED:
            return (samples + 1) // 2 * 3  # a pair fills its three bytes
        return (samples * _BITS[self.kind] + 7) // 8

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Unpack all of it."""
        if copy is False:
            raise ValueError("a packed frame cannot be had without a copy")
        from calibration.radiometric.merge.kernels import unpack

        out = np.empty(int(np.prod(self.shape)), np.uint16)
        unpack(self.kind, np.uint64(self.data.ctypes.data), 0, out)
        return out.reshape(self.shape).astype(np.uint16 if dtype is None else dtype, copy=False)


def unpack_reference(data: NDArray[np.uint8], samples: int, packing: Packing) -> NDArray[np.uint16]:
    """`Packed` unpacked in plain numpy, bit by bit; what the kernel is tested against."""
    if packing == "12Packed":
        triples = np.resize(data, ((samples + 1) // 2, 3)).astype(np.uint16)
        first, second = triples[:, 0] << 4 | triples[:, 1] & 15, triples[:, 2] << 4 | triples[:, 1] >> 4
        return np.stack([first, second], -1).ravel()[:samples]
    bits = _BITS[_KINDS[packing]]
    each = np.unpackbits(data, bitorder="little")[: samples * bits].reshape(samples, bits)
    return np.asarray(each @ (1 << np.arange(bits)), np.uint16)
