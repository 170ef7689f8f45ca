"""What moved between the frames of a stack: samples that disagree with the rest beyond the noise."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError
from calibration.radiometric.consistency.sampling import Sample, near_saturation, sample_variance
from calibration.radiometric.model import RadiometricModel

Mask = NDArray[np.bool_]

_WINDOW = 5
# Of the window's chi^2 as a normal deviate: one window in 3.5 million by chance.
_DEVIATE = 5.0


class Motion(NamedTuple):
    """Samples of a stack that show another scene than the reference frame.

    Attributes
    ----------
    masks : tuple of (ndarray (h, w) of bool or None), one a frame
        True: moved. None: nothing moved in this frame.
    reference : int
        Frame whose scene is kept.
    share : ndarray (n,), float64
        Part of the pixels of each frame that is marked.
    """

    masks: tuple[Mask | None, ...]
    reference: int
    share: NDArray[np.float64]

    def left_out(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Frames left out at each pixel, (h, w)."""
        total = np.zeros(shape[:2], np.float32)
        for mask in self.masks:
            if mask is not None:
                total += mask
        return total


def find_motion(
    frames: Sequence[NDArray[Any]],
    exposure_s: ArrayLike,
    model: RadiometricModel,
    *,
    margin: int = 0,
    noise_scale: ArrayLike | None = None,
    tolerance: float = 0.03,
    reference: int | None = None,
    compiled: bool = True,
) -> Motion:
    """Mark what moved, frame by frame, against a reference frame and what agrees with it.

    The reference is the frame with the most well-exposed pixels (not saturated, signal above ten sigma of the
    dark noise). The others follow in the order of their exposure's distance from it; each is compared with
    the weighted mean of the samples accepted so far, and its samples join where they agree. So a moving
    object stays where the reference saw it, and where the reference is saturated, where the nearest exposure
    saw it.

    Agreement is judged in windows of 5 x 5 px: the sum of squared differences in sigma follows chi^2, is made
    a normal deviate (Wilson and Hilferty), and beyond 5 the whole window is marked. By chance that happens
    to one window in 3.5 million. Differences within ``tolerance`` of the signal, or of one DN, count as noise
    of that size: linearity, black level and stray light differ by so much, and are no object.

    Parameters
    ----------
    frames : sequence of ndarray, (h, w) or (h, w, 3)
        Read once each, beside the search for the reference.
    exposure_s : array_like (n,)
        Seconds, refined where that was needed.
    model : RadiometricModel
    margin : int
        Samples within so many pixels of a saturated one are left out, as in the merge.
    noise_scale : array_like (n,), optional
        Factor on each frame's sigma where its residuals are known to scatter more than the model says.
    tolerance : float
        Relative difference that is no motion: as large as the model's linearity and the exposures are unsure.
    reference : int, optional
        Frame to keep, as ``reference_of`` finds it in a sample; found in the frames without.
    compiled : bool
        False: the plain numpy reference of the kernels.

    Returns
    -------
    Motion

    Raises
    ------
    FitError
        A frame of another size than the model's.

    Notes
    -----
    Something that differs by less than the noise or the tolerance is not seen; nor is what moved
    in every frame but shows the same radiance. Misalignment marks edges: see ``find_shifts``. The memory is
    that of some float32 images, whatever the number of frames. The running reference goes back to Gallo et
    al., Artifact-free high dynamic range imaging, ICCP 2009, doi:10.1109/ICCPHOT.2009.5559003.
    """
    time = np.asarray(exposure_s, np.float64)
    count = len(frames)
    if count != len(time):
        raise FitError(f"{count} frames but {len(time)} exposures")
    factors = np.ones(count) if noise_scale is None else np.maximum(np.asarray(noise_scale, np.float64), 1)
    if reference is None:
        reference = _reference(frames, time, model)
    nearest = np.argsort(np.abs(np.log(time / time[reference])), kind="stable")
    order = [reference, *(int(i) for i in nearest if i != reference)]
    shape = (*model.shape[:2], model.shape[2] if len(model.shape) == 3 else 1)
    total, weighted = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    square, there = np.zeros(shape[:2], np.float32), np.zeros(shape[:2], np.float32)
    masks: list[Mask | None] = [None] * count
    share = np.zeros(count)
    nowhere = np.zeros(shape[:2], bool)
    compare, accumulate = _loops(compiled)
    one_dn = 1 / model.gain_dn_per_e if model.counts_electrons else 0.0
    for step, index in enumerate(order):
        electrons, floor = _electrons(frames[index], index, model, margin)
        rest = (np.float32(time[index]), model.counts_electrons, np.float32(_relative(model)))
        # One DN in this frame and, as far as it is scaled up, in the reference.
        step_e = one_dn * np.hypot(1, time[index] / time[reference])
        moved = nowhere
        if step:
            compare(
                electrons,
                floor,
                *rest,
                np.float32(tolerance),
                np.float32(step_e),
                total,
                weighted,
                square,
                there,
            )
            moved = _windows(square / np.float32(factors[index] ** 2), there)
            share[index] = moved.mean()
            masks[index] = moved if share[index] > 0 else None
        accumulate(electrons, floor, *rest, moved, total, weighted)
    return Motion(tuple(masks), reference, share)


def _relative(model: RadiometricModel) -> float:
    return 0.0 if model.counts_electrons else model.flat_sigma


def _electrons(
    frame: NDArray[Any], index: int, model: RadiometricModel, margin: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    dn = np.asarray(frame)
    if dn.shape != model.shape:
        raise FitError(f"frame {index} has shape {dn.shape}, the radiometric model is for {model.shape}")
    electrons, floor = model.electrons(dn)
    near = near_saturation(dn, model, margin)
    if near is not None:
        electrons[near] = np.nan
    planes = (*dn.shape[:2], -1)
    if model.response is None:
        floor = floor.reshape(-1)[:1]
        return electrons.reshape(planes), np.ascontiguousarray(floor.reshape(1, 1, 1))
    return electrons.reshape(planes), np.ascontiguousarray(floor.reshape(planes))


def _reference(frames: Sequence[NDArray[Any]], time: NDArray[np.float64], model: RadiometricModel) -> int:
    """Frame with the most pixels between ten sigma of the dark noise and saturation; every 4th is asked."""
    best, most = 0, -1.0
    small = _thinned(model)
    for index, frame in enumerate(frames):
        dn = np.asarray(frame)
        if dn.shape != model.shape:
            raise FitError(f"frame {index} has shape {dn.shape}, the radiometric model is for {model.shape}")
        electrons, floor = small.electrons(dn[::4, ::4])
        good = float(np.mean(electrons > 10 * np.sqrt(floor)))
        # Of two alike, the one that gathers more light.
        if good > most or (good == most and time[index] > time[best]):
            best, most = index, good
    return best


def reference_of(sample: Sample, exposure_s: ArrayLike) -> int:
    """The reference frame of ``find_motion``, from tiles."""
    time = np.asarray(exposure_s, np.float64)
    with np.errstate(invalid="ignore"):
        good = sample.electrons > 10 * np.sqrt(sample.floor)
    share = good.reshape(len(time), -1).mean(axis=1)
    # Of two alike, the one that gathers more light.
    return int(max(range(len(time)), key=lambda i: (share[i], time[i])))


def _thinned(model: RadiometricModel) -> RadiometricModel:
    maps = {
        name: image[::4, ::4]
        for name in ("dark_map", "dark_rate_map", "flat_map", "defects")
        if (image := getattr(model, name)) is not None
    }
    return model.replace(height=-(-model.height // 4), width=-(-model.width // 4), **maps)


def _windows(square: NDArray[np.float32], there: NDArray[np.float32]) -> Mask:
    """Windows whose mean square is beyond chance, each whole."""
    window = (_WINDOW, _WINDOW)

    def summed(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(
            cv2.boxFilter(image, cv2.CV_32F, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
        )

    total, count = summed(square), np.maximum(summed(there), 1)
    # Wilson and Hilferty (1931): the cube root of chi^2 over its degrees of freedom is nearly normal.
    spread = 2 / (9 * count)
    with np.errstate(over="ignore"):
        limit = count * (1 - spread + _DEVIATE * np.sqrt(spread)) ** 3
    found = (total > limit).astype(np.uint8)
    if not found.any():
        return np.zeros(square.shape, bool)
    return np.asarray(cv2.dilate(found, np.ones(window, np.uint8)) > 0)


def _loops(compiled: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    if compiled:
        from calibration.radiometric.consistency import kernels

        return kernels.compare, kernels.accumulate
    return compare_reference, accumulate_reference


def compare_reference(
    electrons: NDArray[np.float32], floor: NDArray[np.float32], seconds: np.float32, shot: bool,
    relative: np.float32, tolerance: np.float32, step: np.float32,
    total: NDArray[np.float32], weighted: NDArray[np.float32],
    square: NDArray[np.float32], there: NDArray[np.float32],
) -> None:  # fmt: skip
    """``kernels.compare`` in plain numpy."""
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = weighted / total * seconds
        level = 0.5 * (expected + electrons)
        variance = sample_variance(level, floor, shot, float(relative))
        variance = variance + seconds**2 / total + (tolerance * level) ** 2 + step**2
        each = (electrons - expected) ** 2 / variance
    valid = np.isfinite(electrons) & (total > 0)
    square[:] = np.where(valid, each, 0).sum(axis=-1)
    there[:] = valid.sum(axis=-1)


def accumulate_reference(
    electrons: NDArray[np.float32], floor: NDArray[np.float32], seconds: np.float32, shot: bool,
    relative: np.float32, moved: Mask, total: NDArray[np.float32], weighted: NDArray[np.float32],
) -> None:  # fmt: skip
    """``kernels.accumulate`` in plain numpy."""
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.where(total > 0, weighted / total * seconds, electrons)
        variance = sample_variance(level, floor, shot, float(relative))
        valid = np.isfinite(electrons) & ~moved[..., None]
        total += np.where(valid, seconds**2 / variance, 0)
        weighted += np.where(valid, seconds * electrons / variance, 0)
