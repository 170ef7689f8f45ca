"""Images that a series holds for long: in memory of their own, and in half of it where that does no harm."""

import contextlib
import mmap
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_LARGE = 1 << 20
_STRIP = 256
_HALF_TOP = 32768.0


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Array of zeros; a large one in pages of its own, which go back to the system when it is let go.

    In the allocator's heap the images of a series, which come and go in another order, leave holes of frames.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size < _LARGE:
        return np.zeros(shape, dtype)
    data = mmap.mmap(-1, size) if sys.platform == "win32" else mmap.mmap(-1, size, mmap.MAP_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            data.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(data, dtype).reshape(shape)


class Rates:
    """Slope of each dark pixel with exposure, DN/s, that can be held in 16 bits while others want the room.

    Packed, the deviation of a pixel from the mean keeps 11 bits: a two-thousandth of it, where a series of
    darks tells it to a few hundredths at best.
    """

    def __init__(self, image: Image) -> None:
        self._image: NDArray[Any] = image
        self._centre, self._scale = np.float32(0), np.float32(1)

    def __getitem__(self, where: Any) -> Image:
        part = self._image[where]
        if part.dtype == np.float32:
            return np.asarray(part)
        return np.asarray(part.astype(np.float32) * self._scale + self._centre)

    def mean(self, good: NDArray[np.bool_]) -> float:
        """Of the good pixels."""
        total = 0.0
        for rows in self._strips():
            total += float(np.sum(self[rows], where=good[rows], dtype=np.float64))
        return total / max(int(np.count_nonzero(good)), 1)

    def pack(self, good: NDArray[np.bool_]) -> None:
        """Hold 16 bits of each."""
        centre = np.float32(self.mean(good))
        widest = [float(np.abs(self[rows] - centre).max()) for rows in self._strips()]
        scale = np.float32(max([*widest, 1e-30]) / _HALF_TOP)
        packed = zeros(self._image.shape, np.float16)
        for rows in self._strips():
            packed[rows] = (self[rows] - centre) / scale
        self._image, self._centre, self._scale = packed, centre, scale

    def image(self) -> Image:
        """All of it; what was packed is unpacked and let go."""
        if self._image.dtype != np.float32:
            whole = zeros(self._image.shape, np.float32)
            for rows in self._strips():
                whole[rows] = self[rows]
            self._image, self._centre, self._scale = whole, np.float32(0), np.float32(1)
        return self._image

    def _strips(self) -> list[slice]:
        return [slice(top, top + _STRIP) for top in range(0, len(self._image), _STRIP)]
