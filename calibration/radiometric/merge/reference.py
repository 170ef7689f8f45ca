"""The merge in plain numpy: what the kernels are tested against, and the place to read how it goes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.radiometric.merge.stack import (
    Frames,
    Masks,
    exposures_of,
    is_integer,
    is_linear,
    left_out,
    noise_of,
)
from calibration.radiometric.merge.weights import Floors, Weights, floors_of, weights_of
from calibration.radiometric.model import Radiance, RadiometricModel

Numbers = NDArray[np.float64]
_CELL = 512
_SHIFT = 15


class _Estimate(NamedTuple):
    """Rate in e-/s, its variance, and the mean of 1 / exposure by the weights."""

    rate: Numbers
    variance: Numbers
    inverse: Numbers


def merge_reference(
    frames: Frames,
    exposure_s: ArrayLike,
    model: RadiometricModel,
    *,
    reject: Masks | None = None,
    saturation_margin_px: int = 0,
) -> Radiance:
    """What `merge` computes, without its kernels and without its bounds of memory.

    Parameters
    ----------
    frames, exposure_s, model, reject, saturation_margin_px
        As of `merge`.

    Returns
    -------
    Radiance
        e-/s.
    """
    exposure = exposures_of(frames, exposure_s)
    order = np.argsort(exposure, kind="stable")
    stack = np.array([np.asarray(frames[int(index)], np.float64).ravel() for index in order])
    out = np.array(
        [
            left_out(
                np.asarray(frames[int(index)]), int(index), model,
                None if reject is None else reject[int(index)], saturation_margin_px,
            ).ravel()
            for index in order
        ]
    )  # fmt: skip
    offset = _image(model, model.dark_map, model.black_dn)
    t = exposure[order]
    with np.errstate(invalid="ignore", divide="ignore"):
        if is_linear(model) and is_integer(frames[0], model):
            found = _linear(stack, offset, out, t, model)
        else:
            found = _weighed(_electrons(stack, offset, out, model), t, floors_of(model))
        shape = model.shape
        result = model.correct(
            found.rate.reshape(shape).astype(np.float32),
            found.variance.reshape(shape).astype(np.float32),
            found.inverse.reshape(shape).astype(np.float32),
        )
    for image in result if model.defects is not None else ():
        image[model.defects] = np.nan
    return result


def _image(model: RadiometricModel, image: NDArray[np.generic] | None, constant: float) -> Numbers:
    full = np.full(model.shape, constant)
    return (full if image is None else full + image).ravel()


def _linear(
    stack: Numbers, offset: Numbers, out: NDArray[np.bool_], t: Numbers, model: RadiometricModel
) -> _Estimate:
    """Cells of 512 samples are classed by their extremes: see `kernels`."""
    weights = weights_of(tuple(t.tolist()), noise_of(model))
    pixels = stack.shape[1]
    rate, variance, inverse = np.empty(pixels), np.empty(pixels), np.empty(pixels)
    for first in range(0, pixels, _CELL):
        part = slice(first, min(first + _CELL, pixels))
        rate[part], variance[part], inverse[part] = _cell(stack[:, part], offset[part], weights)
    irregular = np.isnan(rate) | out.any(axis=0)
    floors = floors_of(model)
    alone = _weighed(_electrons(stack[:, irregular], offset[irregular], out[:, irregular], model), t, floors)
    rate[irregular], variance[irregular], inverse[irregular] = alone
    return _Estimate(rate, variance, inverse)


def _cell(x: Numbers, offset: Numbers, weights: Weights) -> _Estimate:
    saturation, edge, limit, p0, p1, q0, q1, floor = weights.final[:8]
    constants, slopes = weights.final[8:11], weights.final[11:14]
    n = len(x)
    whole, gone = x.max(axis=1) < edge, x.min(axis=1) >= saturation
    valid = int(np.argmin(whole)) if not whole.all() else n
    saturated = int(np.argmin(gone[::-1])) if not gone.all() else n
    electrons = x - offset
    light = bool(valid) and x[valid - 1].min() >= weights.pooled[valid - 1, 0]
    if light:
        _, scale, drop, slope, constant, mean = weights.pooled[valid - 1]
        rate = x[:valid].sum(axis=0) * scale - offset * drop
    elif valid:
        slope, constant, mean = weights.lines[valid - 1]
        rate = weights.bright[valid - 1, :valid] @ electrons[:valid]
    else:
        per = weights.step[0, 5]
        slope, constant, mean = per, floor * per**2, per
        rate = np.where(x[0] < saturation, electrons[0] * weights.step[0, 0], np.nan)
    least = weights.final[16] / constants[0] * constant
    variance = np.maximum(constant + slope * rate, least)
    inverse = np.full(len(rate), mean)
    trust = np.ones(len(rate)) if valid else (x[0] < edge).astype(np.float64)
    for j in range(max(valid, 1), n - saturated):
        scale, top, per, lift, lift0, inverse_t, gain = weights.step[j]
        z = top - x[j] * per
        part = np.clip(z, 0, 1)
        correction = np.where(part == z, electrons[j] * lift + lift0, 0)
        own = part**2 * (np.maximum(rate, 0) * inverse_t + floor * inverse_t**2) + correction**2
        variance = variance * (1 - gain * part) ** 2 + gain**2 * own
        inverse = inverse + gain * part * (inverse_t - inverse)
        rate = rate + gain * (part * (electrons[j] * scale - rate) + correction)
        trust = np.minimum(trust, part)
    if saturated == 0 and n > 1 and not light:
        dark = weights.dark @ electrons
        at = np.clip(dark, 0, limit)
        for _ in range(2):
            share = (p0 + p1 * at) / (q0 + q1 * at)
            mixed = dark + share * (rate - dark)
            at = np.clip(mixed, 0, limit)
        powers = np.array([np.ones(len(rate)), 2 * share, share**2])
        noise = np.maximum(constants @ powers + (slopes @ powers) * mixed, weights.final[16])
        rate, variance = np.where(trust == 1, mixed, rate), np.where(trust == 1, noise, variance)
        inverse = np.where(trust == 1, weights.final[14] + share * weights.final[15], inverse)
    return _Estimate(rate, variance + 0 * rate, inverse)


def _electrons(stack: Numbers, offset: Numbers, out: NDArray[np.bool_], model: RadiometricModel) -> Numbers:
    """Electrons, NaN where a sample is no use."""
    floors = floors_of(model)
    if model.response is None:
        electrons = (stack - offset) / model.gain_dn_per_e
    else:
        channels = len(floors.lookup)
        electrons = np.empty_like(stack)
        codes = np.arange(floors.lookup.shape[1])
        for channel, table in enumerate(floors.lookup):
            electrons[:, channel::channels] = np.interp(stack[:, channel::channels], codes, table)
    electrons[~(stack < model.saturation_dn) | out] = np.nan
    return electrons


def _weighed(electrons: Numbers, t: Numbers, floors: Floors) -> _Estimate:
    """Inverse variances at the pooled signal, then once more at the estimate."""
    base, lowest, shot, _, _ = floors.settings
    channel = np.arange(electrons.shape[1]) % len(floors.floors)
    seen = np.isfinite(electrons)
    weight = np.where(seen, 1.0, 0.0)
    per = t[:, None]
    rate = np.zeros(electrons.shape[1])
    for turn in range(3):
        if turn:
            expected = np.maximum(rate * per, lowest).astype(np.float32)
            entry = np.clip((expected.view(np.int32) >> _SHIFT) - int(base), 0, floors.floors.shape[1] - 1)
            floor = floors.floors[channel, entry]
            weight = np.where(seen, per / np.maximum(shot * rate * per + floor, 0.5 * floor), 0.0)
        total = (weight * per).sum(axis=0)
        rate = np.where(seen, weight * electrons, 0).sum(axis=0) / total
    missing = np.where(total > 0, 1.0, np.nan)
    return _Estimate(rate * missing, missing / total, weight.sum(axis=0) / total)
