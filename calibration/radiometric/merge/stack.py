"""Exposure stacks to one linear radiance of least variance."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError
from calibration.radiometric.merge.packed import FLOAT32, MONO8, UINT16, Packed
from calibration.radiometric.merge.weights import Noise, floors_of, weights_of
from calibration.radiometric.model import Image, Radiance, RadiometricModel, checked_exposures

Frames = Sequence[NDArray[Any] | Packed]
Masks = Sequence[NDArray[np.bool_] | None]

# What is kept of frames that are read one by one from a disk: bytes of samples.
_BUDGET = 1 << 30
# Pixels whose maps are brought to one form at a time.
_BAND = 1 << 24


def merge(
    frames: Frames,
    exposure_s: ArrayLike,
    model: RadiometricModel,
    *,
    background: Radiance | None = None,
    reject: Masks | None = None,
    saturation_margin_px: int = 0,
    out: Radiance | None = None,
) -> Radiance:
    """Minimum-variance radiance of a static scene from several exposures under the model's noise.

    Linear cameras: the frames are taken in from the shortest to the longest by weights that are fixed
    numbers for the bracket, so that no noise of a sample enters its own weight and nothing is biased (see
    `weights.weights_of`). A sample within two sigmas of saturation counts in part, with the bias of what the
    ceiling cut off corrected exactly (Stein's identity); what a saturated sample lacks is filled by the
    shorter ones. Response tables, float frames, and pixels whose shortest sample is saturated or rejected:
    inverse variances at the pixel's own pooled signal, then once more at the estimate.

    Parameters
    ----------
    frames : sequence of ndarray or Packed, (h, w) or (h, w, 3)
        In any order, all of one dtype: uint8, uint16 (`Packed` counts as that), other integers or floats. A
        sequence that reads its frames when asked (such as a session's stack) is kept whole up to 1 GiB;
        beyond that it is read once for each GiB. Arrays and memory maps are read where they lie.
    exposure_s : array_like, (n,)
        Of each frame; equal ones are repeats.
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
    out : Radiance, optional
        Arrays to write to, float32 and C-contiguous, of the frame's shape: fresh memory costs as much time
        as the arithmetic.

    Returns
    -------
    Radiance
        e-/s; NaN where no sample is valid. The variance is right on average, with the map errors, which do
        not average out. Where the shortest frame itself comes within three sigmas of saturation a pixel is
        kept only if it fell below: these are low by up to 0.8 sigma of a sample, and nothing in the data
        tells.

    Raises
    ------
    FitError
        No frame; a frame of another size or kind than the first or the model; exposures missing or not
        positive; no pixel with a valid sample.
    """
    value, variance = _outputs(model, out)
    _run(frames, exposure_s, model, reject, saturation_margin_px, value, variance)
    if background is not None:
        if background.value.shape != value.shape:
            raise FitError(f"background has shape {background.value.shape}, the frames have {value.shape}")
        np.subtract(value, background.value, out=value)
        np.add(variance, background.variance, out=variance)
    return Radiance(value, variance)


def merge_value(
    frames: Frames,
    exposure_s: ArrayLike,
    model: RadiometricModel,
    *,
    reject: Masks | None = None,
    saturation_margin_px: int = 0,
    out: Image | None = None,
) -> Image:
    """`merge` without the variance, for pictures: the same value in less time.

    Parameters
    ----------
    frames, exposure_s, model, reject, saturation_margin_px
        As of `merge`.
    out : ndarray, float32, optional
        Array to write to.

    Returns
    -------
    ndarray, (h, w) or (h, w, 3), float32
        e-/s.

    Raises
    ------
    FitError
        As `merge`.
    """
    value, _ = _outputs(model, None if out is None else Radiance(out, out))
    _run(frames, exposure_s, model, reject, saturation_margin_px, value, None)
    return value


class _Band(NamedTuple):
    """Pixels ``first ... last`` of all frames, shortest exposure first.

    ``held`` keeps alive what lies at ``addresses``.
    """

    first: int
    last: int
    addresses: NDArray[np.uint64]
    kinds: NDArray[np.int64]
    barred: NDArray[np.uint64]
    held: list[NDArray[Any]]


def _run(
    frames: Frames,
    exposure_s: ArrayLike,
    model: RadiometricModel,
    reject: Masks | None,
    margin: int,
    value: Image,
    variance: Image | None,
) -> None:
    exposure = exposures_of(frames, exposure_s)
    _check_options(len(frames), reject, margin)
    order = np.argsort(exposure, kind="stable")
    sorted_s = exposure[order]
    flat_value = value.reshape(-1)
    flat_variance = None if variance is None else variance.reshape(-1)
    for band in _bands(frames, order, model, reject, margin):
        part = slice(band.first, band.last)
        _merge_band(
            band, sorted_s, model, flat_value[part], None if flat_variance is None else flat_variance[part]
        )
    if np.isnan(flat_value[:: max(1, flat_value.size // 64)]).all() and np.isnan(flat_value).all():
        raise FitError(
            f"merge: no pixel has a valid sample: even frame {order[0]} of {sorted_s[0]:g} s is saturated "
            "(or rejected, or defective) all over: expose shorter"
        )


def _merge_band(
    band: _Band, exposure: NDArray[np.float64], model: RadiometricModel, value: Image, variance: Image | None
) -> None:
    from calibration.radiometric.merge import kernels

    part = slice(band.first, band.last)

    def full(image: NDArray[Any] | None, constant: float) -> NDArray[np.float32]:
        if image is None:
            return np.full(kernels.CELL, constant, np.float32)
        return image.reshape(-1)[part].astype(np.float32, copy=False) + np.float32(constant)

    flat = np.ones(kernels.CELL, np.float32)
    if model.flat_map is not None:
        flat = np.ascontiguousarray(model.flat_map.reshape(-1)[part], np.float32)
    defects = np.zeros(kernels.CELL, np.uint8)
    if model.defects is not None:
        defects = np.ascontiguousarray(model.defects.reshape(-1)[part]).view(np.uint8)
    # A model's arrays are locked, which to the compiler is another type: they go by their place.
    images: list[NDArray[Any]] = [
        full(model.dark_map, model.black_dn),
        full(model.dark_rate_map, model.dark_current_e_s),
        flat,
    ]
    images.append(defects)
    places = np.array([image.ctypes.data for image in images], np.uint64)
    single_cell = np.array([image.size <= kernels.CELL for image in images])

    covariance = np.zeros((2, 2)) if model.dark_covariance is None else model.dark_covariance
    corrected = (
        model.flat_map is not None
        or model.dark_rate_map is not None
        or model.defects is not None
        or model.dark_current_e_s != 0
        or model.flat_sigma > 0
        or model.dark_covariance is not None
    )
    maps = np.array(
        [
            *(covariance[0, 0], covariance[0, 1], covariance[1, 1]),
            *(model.flat_sigma**2, corrected, model.dark_covariance is not None),
        ],
        np.float32,
    )
    spread = variance is not None
    noise_image = np.empty(kernels.CELL, np.float32) if variance is None else variance
    if is_linear(model) and FLOAT32 not in band.kinds:
        weights = weights_of(tuple(exposure.tolist()), noise_of(model))
        step, dark, bright, lines, pooled, final = (
            np.ascontiguousarray(each, np.float32) for each in weights
        )

        def run(begin: int, end: int) -> None:
            kernels.merge_linear(
                band.addresses, band.kinds, begin, end, places, single_cell, band.barred, step, dark, bright,
                lines, pooled, final, maps, value, noise_image, spread,
            )  # fmt: skip

    else:
        lookup, floors, settings = (np.ascontiguousarray(each, np.float32) for each in floors_of(model))
        seconds = exposure.astype(np.float32)

        def run(begin: int, end: int) -> None:
            kernels.merge_samples(
                band.addresses, band.kinds, begin, end, places, single_cell, band.barred, seconds, lookup,
                floors, settings, maps, band.first, value, noise_image, spread,
            )  # fmt: skip

    _share(band.last - band.first, kernels.TILE, run)


def _share(pixels: int, tile: int, run: Callable[[int, int], None]) -> None:
    """Give every thread runs of whole tiles; what is in a tile does not depend on who does it."""
    import numba

    tiles = -(-pixels // tile)
    threads = min(numba.get_num_threads(), tiles)
    if threads == 1:
        run(0, pixels)
        return
    # some runs a thread, so that one that is held up does not hold up all
    cuts = np.linspace(0, tiles, min(tiles, 8 * threads) + 1).astype(int) * tile
    cuts[-1] = pixels
    runs = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))[::-1]

    def work() -> None:
        while True:
            try:
                begin, end = runs.pop()
            except IndexError:
                return
            run(begin, end)

    others = [_helpers(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads that are kept: to start one takes as long as a twentieth of a merge."""
    return ThreadPoolExecutor(count, thread_name_prefix="merge")


# a forked process has the pool but not its threads
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def is_linear(model: RadiometricModel) -> bool:
    """Whether the model is one gain from electrons to integer DN."""
    return model.response is None and model.counts_electrons


def noise_of(model: RadiometricModel) -> Noise:
    """What of the model sets the weights; its maps do not."""
    return Noise(
        model.gain_dn_per_e, model.black_dn, model.saturation_dn, model.noise_dn2 / model.gain_dn_per_e**2
    )


def left_out(
    dn: NDArray[Any], index: int, model: RadiometricModel, mask: NDArray[np.bool_] | None, margin: int
) -> NDArray[np.bool_]:
    """Samples of a frame that are rejected, or lie within ``margin`` px of a saturated one but are not."""
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
        out |= (cv2.dilate(full, np.ones((2 * margin + 1,) * 2, np.uint8)) > full).astype(bool)
    return out


def exposures_of(frames: Frames, exposure_s: ArrayLike) -> NDArray[np.float64]:
    """Exposures as an array; FitError where they do not fit the frames or are not positive."""
    if len(frames) == 0:
        raise FitError("merge: no frames")
    return checked_exposures("merge", len(frames), exposure_s)


def _check_options(n: int, reject: Masks | None, margin: int) -> None:
    if reject is not None and len(reject) != n:
        raise FitError(f"merge: {n} frames but {len(reject)} reject masks")
    if margin < 0:
        raise FitError(f"merge: saturation_margin_px is {margin}: want 0 or more")
    if n > 64 and (reject is not None or margin):
        raise FitError(f"merge: {n} frames with rejected samples: at most 64")


def _outputs(model: RadiometricModel, out: Radiance | None) -> tuple[Image, Image]:
    if out is None:
        return np.empty(model.shape, np.float32), np.empty(model.shape, np.float32)
    for name, image in zip(("value", "variance"), out, strict=True):
        if image.shape != model.shape or image.dtype != np.float32 or not image.flags.c_contiguous:
            raise FitError(
                f"merge: out.{name} is {image.dtype} {image.shape}: want C-contiguous float32 {model.shape}"
            )
    return out.value, out.variance


def _bands(
    frames: Frames, order: NDArray[np.intp], model: RadiometricModel, reject: Masks | None, margin: int
) -> Iterator[_Band]:
    """Cut the frames so that what is held stays bounded; a cut is between tiles of the kernel."""
    from calibration.radiometric.merge.kernels import TILE

    held = isinstance(frames, (list, tuple, np.ndarray))
    pixels = int(np.prod(model.shape))
    first_frame = frames[0]
    integer = is_integer(first_frame, model)
    each = (first_frame.dtype.itemsize if integer else 4) * len(frames)
    most = _BAND if held else max(_BUDGET // each, 1)
    most = max(TILE, most // TILE * TILE)
    for first in range(0, pixels, most):
        last = min(first + most, pixels)
        whole = first == 0 and last == pixels
        kept: list[NDArray[Any]] = []
        kinds = np.empty(len(order), np.int64)
        addresses = np.empty(len(order), np.uint64)
        barred = np.zeros(last - first if reject is not None or margin else 1, np.uint64)
        for place, index in enumerate(order):
            frame = first_frame if index == 0 and first == 0 else frames[int(index)]
            _check_frame(frame, int(index), first_frame, model)
            if len(barred) > 1:
                mask = None if reject is None else reject[int(index)]
                out = left_out(np.asarray(frame), int(index), model, mask, margin).reshape(-1)[first:last]
                barred |= out.astype(np.uint64) << np.uint64(place)
            kinds[place], data = _samples(frame, first, last, integer)
            # a frame that was read for this is let go but for the band
            kept.append(data if held or whole else data.copy())
            addresses[place] = kept[-1].ctypes.data
        yield _Band(first, last, addresses, kinds, barred, kept)


def is_integer(frame: NDArray[Any] | Packed, model: RadiometricModel) -> bool:
    """Whether the samples of a frame are codes that the kernels take as they are."""
    return model.counts_electrons and frame.dtype.kind == "u" and frame.dtype.itemsize <= 2


def _samples(frame: NDArray[Any] | Packed, first: int, last: int, integer: bool) -> tuple[int, NDArray[Any]]:
    """How samples ``first ... last`` are kept, and they."""
    if isinstance(frame, Packed):
        return frame.kind, frame.data[frame.bytes_of(first) : frame.bytes_of(last)]
    flat = np.ascontiguousarray(frame).reshape(-1)[first:last]
    if integer:
        return (MONO8 if flat.itemsize == 1 else UINT16), flat.astype(
            flat.dtype.newbyteorder("="), copy=False
        )
    return FLOAT32, flat.astype(np.float32, copy=False)


def _check_frame(
    frame: NDArray[Any] | Packed, index: int, first: NDArray[Any] | Packed, model: RadiometricModel
) -> None:
    if frame.shape != model.shape:
        raise FitError(
            f"merge: frame {index} has shape {frame.shape}, the radiometric model is for {model.shape}"
        )
    if frame.dtype.kind not in "uif":
        raise FitError(f"merge: frame {index} has dtype {frame.dtype}: want integers or floats")
    if frame.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
        raise FitError(f"merge: frame {index} has dtype {frame.dtype}, the first has {first.dtype}")
