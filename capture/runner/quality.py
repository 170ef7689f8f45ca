"""Cheap checks of each frame against the plan, while it can still be taken again."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from itertools import product
from statistics import median

import numpy as np
from numpy.typing import NDArray

from capture.devices import DeviceError
from capture.frame import Frame, format_bits
from capture.plan import QualityGate, Shot

_UNLIT = 0.02
"""Share of the other lights' signal below which a light did not burn."""

_TELLING_DN = 2.0
"""Least signal that is expected of a light that burns where its absence is to mean something."""

_SAMPLES = 1 << 18
"""Pixels that are looked at for brightness, on a grid: their noise is far below `_TELLING_DN`."""

_SIDE_PX = 1024
"""Longest side of the pictures in which movement and blur are looked for."""

_EXPLAINED = 0.25
"""Share of the difference of two pictures that a move must take away to be one: noise has nothing to lose."""

_LEAST_SIDE_PX = 16
"""Side of a quarter of a picture below which no movement is looked for."""


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
        for shot in shots:
            key = shot.camera, shot.pose, shot.light
            self._longest[key] = max(self._longest.get(key, 0.0), shot.exposure_s)
        self._rates: defaultdict[Hashable, dict[str, float]] = defaultdict(dict)
        self._ambient: dict[Hashable, NDArray[np.float32]] = {}
        self._sharpness: dict[Hashable, float] = {}

    def accept(self, frame: Frame, shot: Shot) -> dict[str, float]:
        """Return what was measured; raise DeviceError, naming what is at fault, where that is not enough.

        A frame that meets it is what later ones are held against.

        Returns
        -------
        dict of str to float
            ``saturated``: share of the pixels. ``signal_dn``: mean above black. ``shift_px``: of the picture
            since the first ambient frame. ``sharpness``: contrast of detail, as a share of the first frame's.
            What was not looked for, or cannot be told, is left out.
        """
        gate = self._gate
        measured: dict[str, float] = {}
        if gate.max_saturated is not None:
            measured |= _check_saturation(frame, shot, gate.max_saturated)
        if gate.lit:
            measured |= self._check_light(frame, shot)
        if gate.max_shift_px is not None and "ambient" in shot.kinds:
            measured |= self._check_place(frame, shot, gate.max_shift_px)
        if gate.min_sharpness is not None:
            measured |= self._check_sharpness(frame, shot, gate.min_sharpness)
        return measured

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

    def _check_place(self, frame: Frame, shot: Shot, max_shift_px: float) -> dict[str, float]:
        """Follow the picture since the first ambient frame of the pose, exposed alike."""
        image, scale = _small(frame.dn)
        first = self._ambient.setdefault((shot.camera, shot.pose, shot.exposure_s, shot.gain_db), image)
        if first is image or first.shape != image.shape:
            return {}
        shifts = [scale * shift for shift in _shifts(first, image)]
        moved = [shift for shift in shifts if shift > max_shift_px]
        # a hand in the picture moves one part of it, a knock moves all
        if len(moved) > 1:
            raise DeviceError(
                shot.camera,
                f"the picture has moved by {median(moved):.1f} px since the first ambient frame and may by "
                f"{max_shift_px:g}: camera or object was touched: begin the pose anew",
            )
        # the second largest: one quarter alone is no knock
        return {"shift_px": sorted(shifts)[-2]} if len(shifts) > 1 else {}

    def _check_sharpness(self, frame: Frame, shot: Shot, least: float) -> dict[str, float]:
        """Hold the gradient energy against that of the first frame taken alike."""
        image, _ = _small(frame.dn)
        rows, columns = np.diff(image, axis=0), np.diff(image, axis=1)
        energy = float(
            np.mean(np.square(rows), dtype=np.float64) + np.mean(np.square(columns), dtype=np.float64)
        )
        key = shot.camera, shot.pose, shot.light, shot.exposure_s, shot.gain_db, shot.strobe
        first = self._sharpness.setdefault(key, energy)
        # amplitudes, as blur lowers contrast, and energy goes with its square
        if energy < least**2 * first:
            raise DeviceError(
                shot.camera,
                f"the picture has {np.sqrt(energy / first):.0%} of the first one's sharpness and must have "
                f"{least:.0%}: look at focus and vibration",
            )
        return {"sharpness": float(np.sqrt(energy / first))} if first > 0 else {}


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


def _shifts(first: NDArray[np.float32], image: NDArray[np.float32]) -> list[float]:
    """How far each quarter of a picture has moved, px; of those only that a move explains."""
    import cv2

    rows, columns = (side // 2 for side in image.shape)
    if min(rows, columns) < _LEAST_SIDE_PX:
        return []
    window = cv2.createHanningWindow((columns, rows), cv2.CV_32F)
    found = []
    for top, left in product((0, rows), (0, columns)):
        quarter = slice(top, top + rows), slice(left, left + columns)
        before, after = (np.ascontiguousarray(picture[quarter]) for picture in (first, image))
        (x, y), _ = cv2.phaseCorrelate(before, after, window)
        move = np.array([[1, 0, x], [0, 1, y]], dtype=np.float64)
        moved = cv2.warpAffine(before, move, (columns, rows), borderMode=cv2.BORDER_REPLICATE)
        left_over = np.mean(window * np.square(after - moved), dtype=np.float64)
        if left_over < (1 - _EXPLAINED) * np.mean(window * np.square(after - before), dtype=np.float64):
            found.append(float(np.hypot(x, y)))
    return found


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
