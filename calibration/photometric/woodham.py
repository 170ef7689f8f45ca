"""Woodham's least squares straight from a camera's frames, in one pass over them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float, normalize
from calibration.lights.model import DistantLight
from calibration.provenance import FitError

_FLATTEST = 0.02


class Shading(NamedTuple):
    """Normals (h, w, 3) and albedo (h, w), float32, NaN where not ``valid`` (h, w), bool."""

    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    valid: NDArray[np.bool_]


def least_squares(
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    lights: Sequence[DistantLight],
    *,
    dark: ArrayLike = 0.0,
    flat: ArrayLike = 1.0,
    saturation_dn: float | None = None,
    usable: Sequence[NDArray[np.bool_] | None] | NDArray[np.bool_] | None = None,
    out: Shading | None = None,
) -> Shading:
    """Normals and albedo of least squares over the usable samples of raw frames, one distant light each.

    All usable samples count alike, each divided by its light's intensity, as in ``solve`` with
    ``method="least-squares"``; there is no variance, hence no sigma.

    Parameters
    ----------
    frames : sequence of n ndarray (h, w), or ndarray (n, h, w); uint8, uint16 or float32
        Linear. Arrays and memory maps are read where they lie; what is not contiguous is copied. NaN samples
        of floats are left out.
    lights : sequence of n DistantLight
        One intensity each, in the unit of the frames over flat field.
    dark : float or ndarray (h, w)
        Level without light, in the frames' unit.
    flat : float or ndarray (h, w)
        Relative response. Pixels where it is not positive are invalid.
    saturation_dn : float, optional
        Samples of so much or more are left out.
    usable : sequence of n (ndarray (h, w) or None), or ndarray (n, h, w), bool, optional
        False: leave the sample out (shadow, highlight).
    out : Shading, optional
        C-contiguous arrays to write to: fresh memory costs as much time as the arithmetic.

    Returns
    -------
    Shading
        Camera frame (x right, y down, z forward), towards the camera. Albedo in the unit of signal over
        intensity. A pixel with fewer than three usable samples, with usable lights in a plane, or whose
        vector has n_z >= 0 is invalid: under a wide lens that takes a few grazing normals at the border.

    Raises
    ------
    ValueError
        Shapes, types or counts that do not go together; a light that is not distant and of one intensity.
    FitError
        Fewer than three lights, lights in a plane, or no pixel that can be solved.

    Notes
    -----
    Assumes a Lambertian surface in the light of its lamp alone: shadows, gloss and interreflections that
    ``usable`` does not leave out bend the normal. Sums are of single precision, in an order of the lights'
    own: relative errors are about 1e-7 times the condition of the normal equations.
    R. J. Woodham, Optical Engineering 19 (1980), doi:10.1117/12.7972479.
    """
    from calibration.photometric.kernels import raw

    kinds = {"uint8": raw.UINT8, "uint16": raw.UINT16, "float32": raw.FLOAT32}
    images = _frames(frames, tuple(kinds))
    directions, intensities = _lights(lights, len(images))
    shape = images[0].shape
    masks = _masks(usable, len(images), shape)
    result = _outputs(shape, out)
    levels = [_level("dark", dark, shape), _level("flat", flat, shape)]

    # an order of the lights' own: the caller's changes no bit of the result
    order = np.lexsort(np.column_stack([directions, intensities]).T[::-1])
    directions, intensities = directions[order], intensities[order]
    images, masks = [images[k] for k in order], [masks[k] for k in order]
    first, second = np.triu_indices(3)
    padding = ((0, -len(images) % raw.SWEEP), (0, 0))
    shares, inverse, outer = (
        np.pad(table, padding).astype(np.float32)
        for table in (
            directions / intensities[:, None],
            np.linalg.pinv(directions).T / intensities[:, None],
            directions[:, first] * directions[:, second],
        )
    )
    kind = kinds[images[0].dtype.name]
    bare = saturation_dn is None and kind != raw.UINT8 and all(mask is None for mask in masks)
    raw.solve_frames(
        np.array([image.ctypes.data for image in images], np.uint64), kind,
        np.array([0 if mask is None else mask.ctypes.data for mask in masks], np.uint64),
        np.float32(np.inf if saturation_dn is None else saturation_dn),
        np.array([level.ctypes.data for level in levels], np.uint64),
        np.array([level.size == 1 for level in levels]),
        shares, inverse, outer, bare,
        result.normals.reshape(-1), result.albedo.reshape(-1), result.valid.reshape(-1),
    )  # fmt: skip
    if not result.valid.any():
        raise FitError(
            "no pixel has three usable samples from lights that span space: check exposure, masks and lights"
        )
    return result


def _frames(
    frames: Sequence[NDArray[Any]] | NDArray[Any], types: tuple[str, ...]
) -> list[NDArray[Any]]:  # fmt: skip
    images = [np.ascontiguousarray(frame) for frame in frames]
    if not 3 <= len(images) <= 255:
        raise FitError(f"{len(images)} frames: photometric stereo needs 3 to 255")
    for k, image in enumerate(images):
        if image.ndim != 2 or image.shape != images[0].shape or image.size == 0:
            raise ValueError(
                f"frame {k} is {image.shape}, frame 0 is {images[0].shape}: want (h, w) of one size"
            )
        if image.dtype != images[0].dtype or image.dtype.name not in types:
            raise ValueError(
                f"frame {k} is {image.dtype}, frame 0 is {images[0].dtype}: want one of {', '.join(types)}"
            )
    return [image.astype(image.dtype.newbyteorder("="), copy=False) for image in images]


def _lights(lights: Sequence[DistantLight], count: int) -> tuple[Float, Float]:
    """Unit directions (n, 3) and intensities (n,)."""
    if len(lights) != count:
        raise ValueError(f"{count} frames but {len(lights)} lights: give one light per frame, in order")
    for k, light in enumerate(lights):
        if light.kind != "distant":
            raise ValueError(f"light {k} is near: its direction changes from pixel to pixel, use solve")
        if len(light.intensity) != 1 or not 0 < light.intensity[0] < np.inf:
            raise ValueError(f"light {k} has intensity {light.intensity}: want one, positive")
    directions = np.array([normalize(light.direction) for light in lights])
    spread = np.linalg.svd(directions, compute_uv=False)
    if not spread[2] >= _FLATTEST * spread[0]:
        raise FitError(
            "the lights lie in one plane with the object: their images do not determine a normal; "
            "add a light off that plane"
        )
    return directions, np.array([light.intensity[0] for light in lights])


def _masks(
    usable: Sequence[NDArray[np.bool_] | None] | NDArray[np.bool_] | None, count: int, shape: tuple[int, ...]
) -> list[NDArray[np.bool_] | None]:
    if usable is None:
        return [None] * count
    if len(usable) != count:
        raise ValueError(f"{count} frames but {len(usable)} masks of usable samples")
    for k, mask in enumerate(usable):
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != shape):
            raise ValueError(f"mask of frame {k} is {mask.dtype} {mask.shape}, want bool {shape}")
    return [None if mask is None else np.ascontiguousarray(mask) for mask in usable]


def _level(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    level = np.ascontiguousarray(value, np.float32)
    if level.size != 1 and level.shape != shape:
        raise ValueError(f"{name} is {level.shape}, the frames are {shape}")
    return level


def _outputs(shape: tuple[int, ...], out: Shading | None) -> Shading:
    wanted = {"normals": ((*shape, 3), np.float32), "albedo": (shape, np.float32), "valid": (shape, np.bool_)}
    if out is None:
        return Shading(*(np.empty(size, kind) for size, kind in wanted.values()))
    for (name, (size, kind)), array in zip(wanted.items(), out, strict=True):
        if array.shape != size or array.dtype != kind or not array.flags.c_contiguous:
            raise ValueError(
                f"out.{name} is {array.dtype} {array.shape}: want C-contiguous {np.dtype(kind)} {size}"
            )
    return out
