"""Exposure stacks to one linear radiance of least variance."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError
from calibration.radiometric.model import Radiance, RadiometricModel


def merge(
    frames: Sequence[NDArray[Any]],
    exposure_s: ArrayLike,
    model: RadiometricModel,
    *,
    background: Radiance | None = None,
    reject: Sequence[NDArray[np.bool_] | None] | None = None,
    saturation_margin_px: int = 0,
) -> Radiance:
    """Minimum-variance radiance of a static scene from several exposures under the model's noise.

    The weights are the inverse variances that the model predicts at the pixel's own merged signal, not at
    each noisy sample: weighting a sample by its own noise favours the dark ones. They start at the pooled
    signal (all valid electrons over all their exposure time) and are taken once more at the estimate so
    found, whose noise is uncorrelated with the differences between the samples, so that no bias is left in
    the dark. Saturated, defective and NaN samples are left out. Integer frames of a linear model run through
    one fused kernel.

    Parameters
    ----------
    frames : sequence of ndarray, (h, w) or (h, w, 3)
        In any order; read once each, one after the other.
    exposure_s : array_like, (n,)
        Of each frame.
    model : RadiometricModel
        Of the camera that took them.
    background : Radiance, optional
        Ambient light to subtract, in the same unit (such as the merge of frames without the light); its
        variance is added, and it is NaN where unknown.
    reject : sequence of (ndarray of bool or None), one a frame, optional
        True: leave this sample of the frame out (motion, a reflection); (h, w) or the frame's shape.
    saturation_margin_px : int
        Leave out the samples of a frame that lie this near a saturated one of the same frame (rows and
        columns counted alike): blooming and the halo of the readout reach that far.

    Returns
    -------
    Radiance
        e-/s; NaN where no sample is valid. The variance is that of the estimate at the pooled signal, with
        the map errors, which do not average out. A pixel whose signal lies within a sigma of saturation keeps
        the samples that happened to fall below: its value is low by up to 0.3 sigma of a single sample.

    Raises
    ------
    FitError
        No frame; a frame of another size or kind than the model's; exposures missing or not positive.
    """
    exposure = _checked(frames, exposure_s)
    if reject is not None and len(reject) != len(frames):
        raise FitError(f"merge: {len(frames)} frames but {len(reject)} reject masks")
    if saturation_margin_px < 0:
        raise FitError(f"merge: saturation_margin_px is {saturation_margin_px}: want 0 or more")
    dtype = np.asarray(frames[0]).dtype
    linear = model.response is None and dtype.kind == "u" and dtype.itemsize <= 2 and model.counts_electrons
    plain = reject is None and saturation_margin_px == 0
    if linear and plain:
        result = _fused(frames, exposure, model)
    else:
        result = merge_reference(
            frames, exposure, model, reject=reject, saturation_margin_px=saturation_margin_px
        )
    if background is None:
        return result
    if background.value.shape != result.value.shape:
        raise FitError(f"background has shape {background.value.shape}, the frames have {result.value.shape}")
    return Radiance(result.value - background.value, result.variance + background.variance)


def merge_reference(
    frames: Sequence[NDArray[Any]],
    exposure: NDArray[np.float64],
    model: RadiometricModel,
    *,
    reject: Sequence[NDArray[np.bool_] | None] | None = None,
    saturation_margin_px: int = 0,
) -> Radiance:
    """The merge in plain numpy, for every kind of model and frame; what the kernel is tested against."""
    samples = [_electrons(model, frame, index) for index, frame in enumerate(frames)]
    for index, (frame, (sample, _)) in enumerate(zip(frames, samples, strict=True)):
        mask = None if reject is None else reject[index]
        sample[_left_out(np.asarray(frame), index, model, mask, saturation_margin_px)] = np.nan
    electrons, time = np.zeros(model.shape), np.zeros(model.shape)
    for t, (sample, _) in zip(exposure, samples, strict=True):
        valid = np.isfinite(sample)
        electrons += np.where(valid, sample, 0)
        time += valid * t
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = electrons / time
        for _ in range(2):
            total, weighted, inverse = (np.zeros(model.shape) for _ in range(3))
            for t, (sample, own_floor) in zip(exposure, samples, strict=True):
                expected = (rate * t).astype(np.float32)
                floor = own_floor if model.response is None else _floor_at(model, expected)
                shot = expected if model.counts_electrons else 0.0
                weight = np.where(np.isfinite(sample), t * t / np.maximum(shot + floor, 0.5 * floor), 0.0)
                total += weight
                weighted += np.where(weight > 0, weight * sample / t, 0)
                inverse += weight / t
            rate = weighted / total
        variance = 1 / total
        variance[total == 0] = np.nan
        return model.correct(
            rate.astype(np.float32), variance.astype(np.float32), (inverse / total).astype(np.float32)
        )


def _left_out(
    dn: NDArray[Any], index: int, model: RadiometricModel, mask: NDArray[np.bool_] | None, margin: int
) -> NDArray[np.bool_]:
    """Samples that are rejected, or lie within ``margin`` px of a saturated one."""
    out = np.zeros(model.shape, bool)
    if mask is not None:
        if mask.dtype != np.bool_ or mask.shape not in (model.shape, model.shape[:2]):
            raise FitError(
                f"merge: reject mask of frame {index} is {mask.dtype} {mask.shape}, "
                f"want bool {model.shape} or {model.shape[:2]}"
            )
        out |= mask if mask.ndim == out.ndim else mask[..., None]
    if margin:
        full = (dn >= model.saturation_dn).astype(np.uint8)
        out |= cv2.dilate(full, np.ones((2 * margin + 1,) * 2, np.uint8)).astype(bool)
    return out


def _floor_at(model: RadiometricModel, electrons: NDArray[np.float32]) -> NDArray[np.float32]:
    dn = np.nan_to_num(model.dn_of(electrons))
    defect_free = model.replace(defects=None)
    return defect_free.electrons(dn)[1]


def _electrons(
    model: RadiometricModel, frame: NDArray[Any], index: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    try:
        return model.electrons(np.asarray(frame))
    except ValueError as error:
        raise FitError(f"merge: frame {index}: {error}") from error


def _fused(
    frames: Sequence[NDArray[Any]], exposure: NDArray[np.float64], model: RadiometricModel
) -> Radiance:
    from calibration.radiometric.merge.kernels import merge_linear

    stack = np.empty((len(frames), int(np.prod(model.shape))), np.uint16)
    for index, frame in enumerate(frames):
        dn = np.asarray(frame)
        if dn.shape != model.shape:
            raise FitError(
                f"merge: frame {index} has shape {dn.shape}, the radiometric model is for {model.shape}"
            )
        if dn.dtype.kind != "u" or dn.dtype.itemsize > 2:
            raise FitError(f"merge: frame {index} has dtype {dn.dtype}, the first has uint8 or uint16")
        stack[index] = dn.ravel()
    offset = _full(model, model.dark_map, model.black_dn)
    rate = _full(model, model.dark_rate_map, model.dark_current_e_s)
    flat = (
        np.ones(stack.shape[1], np.float32) if model.flat_map is None else _full(model, model.flat_map, 0.0)
    )
    if model.defects is not None:
        flat = np.where(model.defects.ravel(), np.float32(np.nan), flat)
    covariance = np.zeros((2, 2)) if model.dark_covariance is None else model.dark_covariance
    constants = np.array(
        [
            1 / model.gain_dn_per_e,
            model.noise_dn2 / model.gain_dn_per_e**2,
            model.saturation_dn,
            model.flat_sigma**2,
            covariance[0, 0],
            covariance[0, 1],
            covariance[1, 1],
        ],
        np.float32,
    )
    value, variance = np.empty(stack.shape[1], np.float32), np.empty(stack.shape[1], np.float32)
    merge_linear(stack, exposure.astype(np.float32), offset, rate, flat, constants, value, variance)
    return Radiance(value.reshape(model.shape), variance.reshape(model.shape))


def _full(model: RadiometricModel, image: NDArray[Any] | None, constant: float) -> NDArray[np.float32]:
    if image is None:
        return np.full(int(np.prod(model.shape)), constant, np.float32)
    return (image.astype(np.float32, copy=False) + np.float32(constant)).ravel()


def _checked(frames: Sequence[NDArray[Any]], exposure_s: ArrayLike) -> NDArray[np.float64]:
    exposure = np.asarray(exposure_s, np.float64)
    if len(frames) == 0:
        raise FitError("merge: no frames")
    if exposure.shape != (len(frames),):
        raise FitError(f"merge: {len(frames)} frames but exposures of shape {exposure.shape}")
    bad = np.flatnonzero(~(np.isfinite(exposure) & (exposure > 0)))
    if len(bad):
        raise FitError(f"merge: frame {bad[0]} has exposure {exposure[bad[0]]} s: want a positive number")
    return exposure
