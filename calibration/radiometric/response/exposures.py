"""An exposure stack as joint histograms: how often each pair of codes meets in two frames of one scene."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError
from calibration.radiometric.model import checked_exposures, sample_bits

Float = NDArray[np.float64]

_BINS = 512  # of deeper samples; finer than their shot noise, coarse enough for joint histograms in a cache
_FEWEST = 3
_PARTNER_EV = 1.0
_PIECES = 2


class Exposures(NamedTuple):
    """Checked frames of one scene, from the shortest to the longest exposure.

    Attributes
    ----------
    frames : sequence of ndarray
        As given, read when asked for.
    order : ndarray (n,), int
        Index of each frame in the caller's order.
    exposure_s : ndarray (n,), float64
        Reported, increasing.
    pixel_format : str
        PFNC name.
    """

    frames: Sequence[NDArray[Any]]
    order: NDArray[np.intp]
    exposure_s: Float
    pixel_format: str

    @property
    def bits(self) -> int:
        """Of one sample."""
        bits = sample_bits(self.pixel_format)
        assert bits is not None
        return bits

    def read(self) -> Iterator[NDArray[Any]]:
        """Frames in order as (pixels, channels); FitError where one is of another kind than the first."""
        shape: tuple[int, ...] | None = None
        for index in self.order:
            frame = np.asarray(self.frames[index])
            _check_frame(frame, int(index), self.pixel_format)
            if shape is not None and frame.shape != shape:
                raise FitError(
                    f"response: frame {index} has shape {frame.shape}, frame {self.order[0]} has {shape}"
                )
            shape = frame.shape
            yield frame.reshape(-1, shape[2] if len(shape) == 3 else 1)


class Codes(NamedTuple):
    """Digital numbers, put into bins where there are many.

    Attributes
    ----------
    centre, width : ndarray (bins,), float64
        DN.
    bin_of : ndarray (2**bits,), uint16, or None
        Bin of every DN; None: the DN itself.
    clips_dark : bool
        Whether darker light than the first bin's falls into it.
    highest : int
        Greatest DN that occurs (or may occur, with 8 bits).
    """

    centre: Float
    width: Float
    bin_of: NDArray[np.uint16] | None
    clips_dark: bool
    highest: int


class Joint(NamedTuple):
    """Joint histograms of an exposure stack.

    Attributes
    ----------
    pairs : tuple of (int, int)
        Frames compared, shorter exposure first.
    counts : ndarray (pairs, channels, bins, bins), int64
        Samples in bin i of the one and bin j of the other.
    codes : Codes
    first, last : int
        Bins that clip: samples in them and beyond are not used.
    saturation_dn : float
        First saturated DN.
    saturates : bool
        Whether any sample is.
    """

    pairs: tuple[tuple[int, int], ...]
    counts: NDArray[np.int64]
    codes: Codes
    first: int
    last: int
    saturation_dn: float
    saturates: bool


def check(
    frames: Sequence[NDArray[Any]], exposure_s: ArrayLike, pixel_format: str | None = None
) -> Exposures:
    """Sort the frames by exposure and refuse what cannot be fitted.

    Parameters
    ----------
    frames : sequence of ndarray, (h, w), (h, w, 1) or (h, w, 3), unsigned integers
        Only the first is read here.
    exposure_s : array_like, (n,)
        Of each frame, in any order.
    pixel_format : str, optional
        PFNC name; by default 8 or 16 bits after the dtype.

    Raises
    ------
    FitError
        Fewer than 3 frames; exposures missing, not positive or all equal; frames of no known kind.
    """
    exposure = checked_exposures("response", len(frames), exposure_s)
    if len(frames) < _FEWEST:
        raise FitError(f"response: {len(frames)} frames: want three exposures or more")
    order = np.argsort(exposure, kind="stable")
    if exposure.max() < 1.2 * exposure.min():
        raise FitError(
            f"response: frames 0 to {len(frames) - 1} are all alike, exposed {exposure[order[-1]]:g} s: "
            "vary the exposure by factors of two"
        )
    distinct = 1 + np.count_nonzero(np.diff(exposure[order]) > 0.01 * exposure[order][:-1])
    if distinct < _FEWEST:
        same = np.flatnonzero(np.diff(exposure[order]) <= 0.01 * exposure[order][:-1])[0]
        a, b = sorted(int(order[same + step]) for step in (0, 1))
        raise FitError(
            f"response: frames {a} and {b} are both exposed {exposure[a]:g} s, which leaves {distinct} "
            "different exposures: want three or more"
        )
    frame = np.asarray(frames[order[0]])
    if pixel_format is None:
        colour = frame.ndim == 3 and frame.shape[2] == 3
        pixel_format = f"{'RGB' if colour else 'Mono'}{8 if frame.dtype == np.uint8 else 16}"
    elif sample_bits(pixel_format) is None:
        raise FitError(f"response: {pixel_format} frames hold floats: want the camera's digital numbers")
    return Exposures(frames, order, exposure[order], pixel_format)


def count(exposures: Exposures) -> Joint:
    """Joint histograms of frames about one EV apart, in one pass over 8-bit frames and two over others.

    Every sample of every frame is counted. Frames wait in memory only until their partners have come.

    Raises
    ------
    FitError
        A frame of another size or kind; every sample black or saturated.
    """
    from calibration.radiometric.response.kernels import count_pairs

    pairs = partners(exposures.exposure_s)
    codes = codes_of(exposures)
    bins = len(codes.centre)
    counts: list[NDArray[np.int64] | None] = [None] * len(pairs)
    waiting: dict[int, NDArray[Any]] = {}
    for j, frame in enumerate(exposures.read()):
        if codes.bin_of is not None:
            frame = codes.bin_of[frame]
        elif frame.dtype != np.uint8:
            frame = frame.astype(np.uint8)
        waiting[j] = np.ascontiguousarray(frame)
        for number, (a, b) in enumerate(pairs):
            if b == j:
                counts[number] = count_pairs(waiting[a], waiting[b], bins, _PIECES)
        needed = {a for a, b in pairs if b > j}
        waiting = {index: kept for index, kept in waiting.items() if index in needed}
    table = np.stack([part for part in counts if part is not None])
    return _trimmed(pairs, table, codes, exposures)


def count_reference(a: NDArray[Any], b: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """The compiled count in plain numpy; what it is tested against."""
    cells = a.astype(np.int64) * bins + b
    table = [np.bincount(cells[:, c], minlength=bins * bins) for c in range(a.shape[1])]
    return np.asarray(table, np.int64).reshape(-1, bins, bins)


def partners(exposure_s: Float) -> tuple[tuple[int, int], ...]:
    """For every frame the longer one nearest to 1 EV above, and all frames joined in one chain."""
    ev = np.log2(exposure_s)
    chosen = set()
    for i in range(len(ev) - 1):
        above = ev[i + 1 :] - ev[i]
        j = i + 1 + int(np.argmin(np.abs(above - _PARTNER_EV)))
        if ev[j] - ev[i] > 0.2:
            chosen.add((i, j))
    for j in range(1, len(ev)):
        if all(b != j for _, b in chosen):
            below = ev[j] - ev[:j]
            i = int(np.argmin(np.abs(below - _PARTNER_EV)))
            if below[i] > 0.2:
                chosen.add((i, j))
    return tuple(sorted(chosen))


def _check_frame(frame: NDArray[Any], index: int, pixel_format: str) -> None:
    if frame.dtype.kind == "f":
        what = "NaN among its values" if np.isnan(frame).any() else "floating-point values"
        raise FitError(f"response: frame {index} has {what} ({frame.dtype}): want the camera's integers")
    if frame.dtype.kind != "u" or frame.dtype.itemsize > 2:
        raise FitError(f"response: frame {index} has dtype {frame.dtype}: want uint8 or uint16")
    bits = sample_bits(pixel_format)
    assert bits is not None
    if (frame.dtype.itemsize == 1) != (bits == 8):
        raise FitError(f"response: frame {index} has dtype {frame.dtype}, the stack is {pixel_format}")
    colour = pixel_format.startswith("RGB")
    channels = frame.shape[2] if frame.ndim == 3 else 1
    if frame.ndim not in (2, 3) or channels != (3 if colour else 1) or frame.size == 0:
        raise FitError(f"response: frame {index} has shape {frame.shape}, the stack is {pixel_format}")


def codes_of(exposures: Exposures) -> Codes:
    """Every DN of 8-bit frames; of deeper ones, which are read for it, bins that widen as shot noise does."""
    if exposures.bits == 8:
        return Codes(np.arange(256.0), np.ones(256), None, True, 255)
    total = np.zeros(65536, np.int64)
    for frame in exposures.read():
        total += np.bincount(frame.ravel(), minlength=65536)
    there = np.flatnonzero(total)
    lowest, highest = int(there[0]), int(there[-1])
    top = 2**exposures.bits - 1
    if highest > top:
        raise FitError(f"response: a sample of DN {highest} in {exposures.pixel_format} frames")
    # A pile of samples at the lowest number is clipped black; a tail that thins out is a black level's noise.
    clips_dark = lowest == 0 or total[lowest] > 4 * total[there[1 : 1 + 8]].max(initial=0)
    if not clips_dark:
        there = np.concatenate([[lowest - 1], there])
    # Only numbers that occur: 12 bits stored in 16 leave gaps.
    place = np.sqrt((there - there[0]) / max(highest - there[0], 1)) * (_BINS - 1)
    group = np.unique(np.rint(place).astype(np.int64), return_inverse=True)[1]
    weight = np.maximum(total[there], 1e-3)
    centre = np.bincount(group, weight * there) / np.bincount(group, weight)
    bin_of = np.zeros(65536, np.uint16)
    bin_of[there] = group
    if len(centre) < _FEWEST:
        raise FitError(
            f"response: the frames {', '.join(str(index) for index in exposures.order)} hold "
            f"{len(centre)} different values: every sample is black or saturated"
        )
    return Codes(centre, np.gradient(centre), bin_of, bool(clips_dark), highest)


def _trimmed(
    pairs: tuple[tuple[int, int], ...], table: NDArray[np.int64], codes: Codes, exposures: Exposures
) -> Joint:
    """Find the codes that clip: a pile at the brightest one is the ceiling, wherever that lies."""
    marginal = table.sum(axis=(0, 1, 2)) + table.sum(axis=(0, 1, 3))
    there = np.flatnonzero(marginal)
    first, last = 0, int(there[-1])
    if exposures.bits == 8:
        lowest = int(there[0])
        piled = lowest == 0 or marginal[lowest] > 4 * marginal[lowest + 1 : lowest + 9].max(initial=0)
        first = lowest if piled else lowest - 1
        codes = codes._replace(clips_dark=bool(piled))
    below = marginal[max(last - 8, 0) : last]
    highest = last if exposures.bits == 8 else codes.highest
    full_scale = 2**exposures.bits - 1
    saturates = highest == full_scale or marginal[last] > 4 * below.max(initial=0)
    if not saturates:
        last += 1
        if last == len(codes.centre):
            centre = np.append(codes.centre, codes.centre[-1] + codes.width[-1])
            codes = codes._replace(centre=centre, width=np.append(codes.width, codes.width[-1]))
            table = np.pad(table, ((0, 0), (0, 0), (0, 1), (0, 1)))
    if not np.any(table[..., first + 1 : last, first + 1 : last]):
        inside = marginal[first + 1 : last].any()
        raise FitError(
            f"response: {'no two frames share mid-tones' if inside else 'every sample is black or saturated'}"
            f" (frames {', '.join(str(index) for index in exposures.order)}): "
            "add exposures between them"
        )
    saturation = float(highest if saturates else full_scale)
    return Joint(pairs, table, codes, first, last, saturation, bool(saturates))


def blind_frames(joint: Joint, exposures: Exposures) -> dict[int, str]:
    """Frames that are black or saturated nearly everywhere, by place in order, and one sentence for each."""
    notes = {}
    for index in range(len(exposures.order)):
        for number, pair in enumerate(joint.pairs):
            if index not in pair:
                continue
            seen = joint.counts[number].sum(axis=0).sum(axis=1 if pair[0] == index else 0)
            share = seen[joint.first + 1 : joint.last].sum() / seen.sum()
            if share < 1e-3:
                bright = seen[joint.last :].sum() > seen[: joint.first + 1].sum()
                notes[index] = (
                    f"frame {exposures.order[index]} ({exposures.exposure_s[index]:g} s) is "
                    f"{'saturated' if bright else 'black'} and adds nothing"
                )
            break
    return notes
