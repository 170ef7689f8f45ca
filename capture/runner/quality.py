"""Cheap checks of each frame against the plan, while it can still be taken again."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from itertools import product
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.devices import DeviceError
from capture.frame import Frame, format_bits
from capture.plan import QualityGate, Shot, Strobe

_UNLIT = 0.02
"""Share of the other lights' signal below which a light did not burn."""

_TELLING_DN = 2.0
"""Least signal that is expected of a light that burns where its absence is to mean something."""

_SAMPLES = 1 << 18
"""Pixels that are looked at for brightness, on a grid: their noise is far below `_TELLING_DN`."""

_SIDE_PX = 1024
"""Longest side of the pictures in which movement and blur are looked for."""

_CERTAIN = 7.0
"""Standard deviations of chance that tell structure from noise: the highest of a quarter's noise has five."""

_OFF = 4.0
"""Standard deviations by which a measurement must miss what is asked of it."""

_BAND_PX = 0.8, 6.0
"""Finest and coarsest detail that is followed, as the sigmas of two Gaussians."""

_DETAIL_PX = 3.0
"""Pixels that share their energy after filtering, for one independent sample of it."""

_NOISE_KNOWN = 0.01
"""Relative error of the noise that is taken off the energy of detail."""

_TILE_PX = 32
"""Side of the tiles whose noise is measured apart: it differs with brightness."""

_LEAST_SIDE_PX = 16
"""Side of a quarter of a picture below which no movement is looked for."""


class _Alike(NamedTuple):
    """What frames have in common that are held against one another."""

    camera: str
    pose: str
    light: str
    exposure_s: float
    gain_db: float
    strobe: Strobe | None


class QualityCheck:
    """What was seen so far in one run, and what each further frame must meet.

    Parameters
    ----------
    gate : QualityGate
        What the plan asks.
    shots : iterable of Shot
        All shots of the plan: they tell which exposures a light's brightness can be judged by.
    """

    def __init__(self, gate: QualityGate, shots: Iterable[Shot]) -> None:
        self._gate = gate
        self._longest: dict[Hashable, float] = {}
        alike: Counter[_Alike] = Counter()
        for shot in shots:
            alike[_alike(shot)] += 1
            key = shot.camera, shot.pose, shot.light
            self._longest[key] = max(self._longest.get(key, 0.0), shot.exposure_s)
        self._repeated = {key for key, count in alike.items() if count > 1}
        self._rates: defaultdict[Hashable, dict[str, float]] = defaultdict(dict)
        self._first: dict[_Alike, NDArray[np.float32]] = {}
        self._detail: dict[_Alike, list[tuple[float, float]]] = {}

    def accept(self, frame: Frame, shot: Shot) -> dict[str, float]:
        """Return what was measured; raise DeviceError, naming what is at fault, where that is not enough.

        A frame that meets it is what later ones are held against.

        Returns
        -------
        dict of str to float
            ``saturated``: share of the pixels. ``signal_dn``: mean above black. ``shift_px``: of the picture
            since the first frame taken alike. ``sharpness``: contrast of detail, as a share of that frame's.
            What was not looked for, or cannot be told, is left out.
        """
        gate = self._gate
        measured: dict[str, float] = {}
        if gate.max_saturated is not None:
            measured |= _check_saturation(frame, shot, gate.max_saturated)
        if gate.lit:
            measured |= self._check_light(frame, shot)
        if _alike(shot) in self._repeated and (gate.max_shift_px or gate.min_sharpness):
            image, scale = _small(frame.dn)
            if gate.max_shift_px is not None:
                measured |= self._check_place(image, scale, shot, gate.max_shift_px)
            if gate.min_sharpness is not None:
                measured |= self._check_sharpness(image, shot, gate.min_sharpness)
        return measured

    def forget(self, pose: str) -> None:
        """Let go of the pictures of a pose that is over."""
        self._first = {alike: image for alike, image in self._first.items() if alike.pose != pose}

    def recall(self, frame: Frame, shot: Shot) -> None:
        """Take note of a frame that an earlier run has kept."""
        with suppress(DeviceError):
            self.accept(frame, shot)

    def _check_light(self, frame: Frame, shot: Shot) -> dict[str, float]:
        """Hold the signal of a light, in DN per second, against that of the other lights of the pose."""
        if frame.black_level_dn is None or shot.strobe is not None:
            return {}
        signal = float(_grid(frame.dn).mean(dtype=np.float64)) - frame.black_level_dn
        rates = self._rates[shot.camera, shot.pose, shot.gain_db]
        ambient = rates.get("", 0.0)
        if not shot.lights:
            rates[""] = signal / shot.exposure_s
            return {"signal_dn": signal}
        own = signal - ambient * shot.exposure_s
        others = [rate for light, rate in rates.items() if light not in ("", shot.light)]
        level = sum(shot.lights.values())
        if others:
            expected = median(others) * shot.exposure_s * level
            unlit = expected >= _TELLING_DN and own < _UNLIT * expected
        else:
            longest = self._longest.get((shot.camera, shot.pose, shot.light), 0.0)
            unlit = shot.exposure_s >= longest and own < 0.5 * _TELLING_DN
        if unlit:
            raise DeviceError(
                shot.light,
                f"did not light: {own:.2g} DN in {shot.exposure_s:g} s above "
                f"{'the ambient light' if ambient else 'black'}: look at its cable and supply",
            )
        if own >= _TELLING_DN:
            rates[shot.light] = own / (shot.exposure_s * level)
        return {"signal_dn": signal}

    def _check_place(
        self, image: NDArray[np.float32], scale: float, shot: Shot, max_shift_px: float
    ) -> dict[str, float]:
        """Follow the picture since the first frame of the pose that was taken alike."""
        first = self._first.setdefault(_alike(shot), image)
        if first is image or first.shape != image.shape:
            return {}
        found = [(scale * shift, scale * sigma) for shift, sigma in _shifts(first, image)]
        moved = [shift for shift, sigma in found if shift - _OFF * sigma > max_shift_px]
        # a hand in the picture moves one part of it, a knock moves all that shows anything
        if moved and len(moved) >= min(2, len(found)):
            which = "frame taken alike" if shot.lights else "ambient frame"
            raise DeviceError(
                shot.camera,
                f"the picture has moved by {median(moved):.1f} px since the first {which} and may by "
                f"{max_shift_px:g}: camera or object was touched: begin the pose anew",
            )
        shifts = sorted(shift for shift, _ in found)
        return {"shift_px": shifts[-min(2, len(found))]} if found else {}

    def _check_sharpness(self, image: NDArray[np.float32], shot: Shot, least: float) -> dict[str, float]:
        """Hold the energy of detail, that of noise taken off, against that of the first frame taken alike."""
        found = _detail(image)
        before = self._detail.setdefault(_alike(shot), found)
        # where noise hides the detail nothing is told. Amplitudes, as blur lowers contrast, and energy goes
        # with its square; along the axis of the worse, as things vibrate along one
        shares = [
            (math.sqrt(max(energy, 0.0) / first), energy + _OFF * sigma < least**2 * first)
            for (first, _), (energy, sigma) in zip(before, found, strict=True)
            if first > _CERTAIN * sigma
        ]
        if not shares:
            return {}
        sharpness, blurred = min(shares)
        if blurred:
            raise DeviceError(
                shot.camera,
                f"the picture has {sharpness:.0%} of the first one's sharpness and must have "
                f"{least:.0%}: look at focus and vibration",
            )
        return {"sharpness": sharpness}


def _alike(shot: Shot) -> _Alike:
    return _Alike(shot.camera, shot.pose, shot.light, shot.exposure_s, shot.gain_db, shot.strobe)


def _check_saturation(frame: Frame, shot: Shot, most: float) -> dict[str, float]:
    bits = format_bits(frame.pixel_format)
    if bits is None:
        return {}
    share = np.count_nonzero(frame.dn >= 2**bits - 1) / frame.dn.size
    if share > most:
        raise DeviceError(
            shot.camera,
            f"{share:.2%} of the pixels are saturated at {shot.exposure_s:g} s and {most:.2%} may be: expose "
            "shorter",
        )
    return {"saturated": share}


def _shifts(first: NDArray[np.float32], image: NDArray[np.float32]) -> list[tuple[float, float]]:
    """How far each quarter of a picture has moved, and its sigma, px; of those whose detail is found."""
    rows, columns = (side // 2 for side in image.shape)
    if min(rows, columns) < _LEAST_SIDE_PX:
        return []
    found = []
    for top, left in product((0, rows), (0, columns)):
        quarter = slice(top, top + rows), slice(left, left + columns)
        shift = _shift(first[quarter], image[quarter])
        if shift is not None:
            found.append(shift)
    return found


def _shift(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float] | None:
    """Where the correlation of two pictures is highest, and its sigma; None where chance is as high.

    Plain correlation weighs each frequency by what there is of it, as noise wants it; phases alone would
    follow the noise. What the move does not explain is taken for noise. It is averaged over as many samples
    as the energy is spread over: a few specks, of noise below the last digit, find one another by chance.
    """
    import cv2

    rows, columns = before.shape
    window = cv2.createHanningWindow((columns, rows), cv2.CV_32F)
    spectra, energy, samples = [], 0.0, math.inf
    for picture in (before, after):
        # hot pixels stay where they are, whatever moves
        calm = cv2.medianBlur(np.ascontiguousarray(picture), 3)
        fine, coarse = (cv2.GaussianBlur(calm, (0, 0), sigma) for sigma in _BAND_PX)
        band = window * (fine - coarse)
        squares = np.square(band, dtype=np.float64)
        own, fourth = float(np.sum(squares)), float(np.sum(np.square(squares)))
        if fourth == 0:
            return None
        energy += 0.5 * own
        samples = min(samples, own**2 / fourth / _DETAIL_PX)
        spectra.append(np.fft.rfft2(band))
    correlation = np.fft.irfft2(np.conj(spectra[0]) * spectra[1], s=(rows, columns))
    row, column = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    peak = float(correlation[row, column])
    noise = max(energy - peak, 0.0)
    chance = math.sqrt((2 * peak + noise) * noise / samples)
    if peak <= _CERTAIN * chance:
        return None
    distance, variance = 0.0, 0.0
    for line, place in ((correlation[:, column], int(row)), (correlation[row], int(column))):
        size = len(line)
        below, above = float(line[place - 1]), float(line[(place + 1) % size])
        curvature = 2 * peak - below - above
        at = (place + size // 2) % size - size // 2 + 0.5 * (above - below) / curvature
        distance = math.hypot(distance, at)
        variance += 0.5 * (chance / curvature) ** 2
    return distance, math.sqrt(variance)


def _detail(image: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Mean square of the differences between neighbours that noise does not explain, its sigma; by axis.

    White noise is told by a filter that sees neither slopes nor most edges (Immerkaer 1996), tile by tile,
    and of each tile without what is left of them.
    """
    import cv2

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    rough = np.abs(cv2.filter2D(image, cv2.CV_32F, mask))
    side = min(_TILE_PX, *image.shape)
    rows, columns = (size // side for size in image.shape)
    cut = rough[: rows * side, : columns * side].reshape(rows, side, columns, side)
    tiles = cut.transpose(0, 2, 1, 3).reshape(rows * columns, side * side)
    kept = tiles <= 3 * np.median(tiles, axis=1, keepdims=True)
    # 0.7254: mean of a normal deviate's size within three medians of it; 6: what the mask makes of noise
    sigmas = np.sum(tiles * kept, axis=1) / np.sum(kept, axis=1) / (0.7254 * 6)
    noise = 2 * float(np.mean(np.square(sigmas), dtype=np.float64))
    out = []
    for axis in (0, 1):
        squares = np.square(np.diff(image, axis=axis))
        # neighbouring squares share a sample
        chance = 2 * float(np.std(squares, dtype=np.float64)) / math.sqrt(squares.size)
        energy = float(np.mean(squares, dtype=np.float64)) - noise
        out.append((energy, math.hypot(chance, _NOISE_KNOWN * noise)))
    return out


def _grid(dn: NDArray[np.generic]) -> NDArray[np.generic]:
    step = max(1, int(np.sqrt(dn.shape[0] * dn.shape[1] / _SAMPLES)))
    # an odd step meets every colour of a Bayer pattern alike
    step += 1 - step % 2
    return dn[::step, ::step]


def _small(dn: NDArray[np.generic]) -> tuple[NDArray[np.float32], float]:
    """Grey float32 picture of at most `_SIDE_PX`, an area mean, and how many pixels one of its is."""
    height, width = dn.shape[:2]
    factor = -(-max(height, width, 2) // _SIDE_PX)
    factor += factor % 2  # whole 2 x 2 blocks of a colour pattern
    factor = max(1, min(factor, height, width))
    rows, columns = height // factor, width // factor
    cut = dn[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, -1)
    return cut.mean(axis=(1, 3, 4), dtype=np.float32), float(factor)
