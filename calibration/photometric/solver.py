"""Photometric stereo with calibrated lights: checks, tables for the kernel, the normal map."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric.mask import object_mask
from calibration.photometric.model import NormalMap
from calibration.provenance import FitError, Provenance, Quality

Method = Literal["robust", "least-squares"]

_TRIPLETS = 48
_FLATTEST = 0.02


def solve(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    *,
    lens: LensModel | None = None,
    depth_mm: NDArray[np.floating] | float | None = None,
    mask: NDArray[np.bool_] | None = None,
    method: Method = "robust",
    provenance: Provenance | None = None,
) -> NormalMap:
    """Normals and albedo from images under known lights, one per image.

    Parameters
    ----------
    radiance : ndarray (n, h, w) or (n, h, w, 3), float32
        Linear radiance, in units of the lights' irradiance times albedo. NaN samples are left out (of an RGB
        sample all three channels).
    variance : ndarray, same shape, float32
        Of the radiance.
    lights : sequence of n lights
        Distant or near, mixed as they come, with one intensity, or three for RGB images.
    lens : LensModel, optional
        Without it the view is orthographic along +z, and all lights must be distant.
    depth_mm : float or ndarray (h, w), optional
        Depth z of the surface; near lights need it. Pixels where it is not finite are invalid.
    mask : ndarray (h, w), bool, optional
        Default: ``object_mask(radiance, variance)``.
    provenance : Provenance, optional
        Stored with the result.
    method : 'robust' or 'least-squares'
        Least squares is Woodham's method over all usable samples, shadows and highlights included, weighted
        by the inverse of variance plus (1 % of the pixel's rms signal)^2. Robust starts from the best of
        smallest absolute residuals and sampled triplets of lights under a truncated loss, then iterates
        Tukey's biweight, whose scale is the noise plus the same model error, and wider where the residuals
        ask for it; samples in cast or attached shadow get weight zero.

    Returns
    -------
    NormalMap
        ``quality.residual_rms`` is the median over pixels of the residual of the trusted samples in units of
        noise plus model error: about 1 or less on Lambertian surfaces.

    Raises
    ------
    ValueError
        Shapes, counts or units that do not go together.
    FitError
        Fewer than three lights, lights in a plane, an empty mask, or no pixel that can be solved.

    Notes
    -----
    Assumes a Lambertian surface for the trusted samples and no interreflection: concave glossy parts are
    bent. RGB channels are combined into one signal per pixel by inverse variance with shares common to all
    lights; the albedo is then fitted per channel.
    R. J. Woodham, Optical Engineering 19 (1980), doi:10.1117/12.7972479. Biweight: A. E. Beaton and J. W.
    Tukey, Technometrics 16 (1974), doi:10.1080/00401706.1974.10489171.
    """
    _check(radiance, variance, lights, lens, depth_mm)
    h, w = radiance.shape[1:3]
    if mask is None:
        mask = object_mask(radiance, variance)
    if mask.shape != (h, w):
        raise ValueError(f"mask is {mask.shape}, images are {(h, w)}")
    points = _points(lens, depth_mm, h, w)
    return solve_at(radiance, variance, lights, points, mask, method=method, provenance=provenance)


def solve_at(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    points: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    method: Method = "robust",
    provenance: Provenance | None = None,
) -> NormalMap:
    """``solve`` for known surface points (h, w, 3), mm, NaN where unknown; (1, 1, 3): one line of sight for
    all."""
    from calibration.photometric import kernels

    mono = radiance.ndim == 3
    n, h, w = radiance.shape[:3]
    mask = mask.astype(bool)
    if points.shape[:2] != (1, 1):
        mask &= np.isfinite(points).all(axis=2)
    if not mask.any():
        raise FitError(
            "the mask holds no pixel: give a mask, or images in which the object is brighter than noise"
        )
    directions = _directions(lights, points, mask)

    # The lights go into the kernel in an order of their own, so that the caller's changes no bit.
    table = _table(lights, 1 if mono else 3)
    order = np.lexsort(table.T[::-1])
    value, noise = (np.ascontiguousarray(a, np.float32).reshape(n, h, w, -1) for a in (radiance, variance))
    normals = np.full((h, w, 3), np.nan, np.float32)
    albedo = np.full((h, w, value.shape[3]), np.nan, np.float32)
    sigma_deg, misfit = np.full((h, w), np.nan, np.float32), np.full((h, w), np.nan, np.float32)
    used = np.zeros((h, w), np.uint8)
    kernels.solve_pixels(
        value, noise, points, table[order], order, mask, _triplets(directions[order]), method == "robust",
        normals, albedo, sigma_deg, used, misfit,
    )  # fmt: skip
    valid = np.isfinite(normals[..., 0])
    if not valid.any():
        raise FitError(
            "no pixel has three usable samples from lights that span space: check exposure, mask, lights"
        )
    share = float(valid.sum() / mask.sum())
    residual = float(np.sqrt(np.median(misfit[valid])))
    warnings = []
    if share < 0.9:
        warnings.append(f"{100 * (1 - share):.0f} % of the mask could not be solved")
    if residual > 2:
        warnings.append(
            f"residuals are {residual:.1f} times what noise and 1 % model error explain: not Lambertian"
        )
    trusted = int(used[valid].sum(dtype=np.int64))
    return NormalMap(
        normals=normals,
        albedo=albedo[..., 0] if mono else albedo,
        valid=valid,
        sigma_deg=sigma_deg,
        lights_used=used,
        quality=Quality(
            residual_rms=residual,
            unit="sigma of noise and model error",
            observations=trusted,
            rejected=int(mask.sum()) * n - trusted,
            verdict="doubtful" if warnings else "good",
            warnings=tuple(warnings),
        ),
        provenance=provenance or Provenance(options={"method": method}),
    )


def _check(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    lens: LensModel | None,
    depth_mm: NDArray[np.floating] | float | None,
) -> None:
    if radiance.ndim not in (3, 4) or (radiance.ndim == 4 and radiance.shape[3] != 3):
        raise ValueError(f"radiance is {radiance.shape}: want (n, h, w) or (n, h, w, 3)")
    if variance.shape != radiance.shape:
        raise ValueError(f"variance is {variance.shape}, radiance is {radiance.shape}")
    if len(lights) != radiance.shape[0]:
        raise ValueError(
            f"{radiance.shape[0]} images but {len(lights)} lights: give one light per image, in order"
        )
    if not 3 <= len(lights) <= 255:
        raise FitError(f"{len(lights)} lights: photometric stereo needs 3 to 255")
    near = [i for i, light in enumerate(lights) if light.kind == "near"]
    if near and (lens is None or depth_mm is None):
        raise ValueError(f"light {near[0]} is near: its direction at a pixel needs lens and depth_mm")
    if lens is not None and (lens.height, lens.width) != radiance.shape[1:3]:
        raise ValueError(
            f"lens is for {lens.height} rows x {lens.width} columns, images are {radiance.shape[1:3]}"
        )
    for i, light in enumerate(lights):
        if len(light.intensity) != 1 and len(light.intensity) != (3 if radiance.ndim == 4 else 1):
            raise ValueError(
                f"light {i} has {len(light.intensity)} intensities for images of shape {radiance.shape}"
            )
        if not (np.isfinite(light.intensity).all() and min(light.intensity) > 0):
            raise ValueError(f"light {i} has intensity {light.intensity}: must be positive")


def _points(
    lens: LensModel | None, depth_mm: NDArray[np.floating] | float | None, h: int, w: int
) -> NDArray[np.float32]:
    """Surface points (h, w, 3), mm, or for an orthographic view the one direction of sight."""
    if lens is None:
        return np.array([[[0, 0, 1]]], np.float32)
    rays = sight(lens, np.arange(h), np.arange(w))
    depth = np.asarray(1.0 if depth_mm is None else depth_mm)
    if depth.shape not in ((), (h, w)):
        raise ValueError(f"depth_mm is {depth.shape}, images are {(h, w)}")
    with np.errstate(invalid="ignore"):
        depth = np.where(depth > 0, depth, np.nan)
    return np.asarray(rays * depth[..., None], np.float32)


def sight(lens: LensModel, rows: NDArray[np.int_], columns: NDArray[np.int_]) -> NDArray[np.float32]:
    """Lines of sight (rows, columns, 3) with z = 1 through a grid of pixels; NaN where the lens has no
    inverse."""
    rays = np.empty((len(rows), len(columns), 3), np.float32)
    for i, y in enumerate(rows):
        ray = lens.unproject(np.stack([columns, np.full(len(columns), y)], axis=-1))
        rays[i] = ray / ray[:, 2:]
    return rays


def _table(lights: Sequence[DistantLight | NearLight], channels: int) -> Float:
    from calibration.photometric import kernels

    table = np.zeros((len(lights), kernels.COLUMNS))
    for row, light in zip(table, lights, strict=True):
        if light.kind == "near":
            row[kernels.NEAR] = 1
            row[kernels.PLACE : kernels.PLACE + 3] = light.position_mm
            row[kernels.AXIS : kernels.AXIS + 3] = normalize(light.axis)
            row[kernels.ORDER] = light.order
        else:
            row[kernels.PLACE : kernels.PLACE + 3] = normalize(light.direction)
        row[kernels.INTENSITY : kernels.INTENSITY + channels] = light.intensity
    return table


def _directions(
    lights: Sequence[DistantLight | NearLight], points: NDArray[np.float32], mask: NDArray[np.bool_]
) -> Float:
    """Directions to the lights from the middle of the object; refuses lights that do not span space."""
    middle = points[0, 0] if points.shape[:2] == (1, 1) else points[mask].mean(axis=0, dtype=np.float64)
    directions = np.array([light.at(middle)[0] for light in lights])
    spread = np.linalg.svd(directions, compute_uv=False)
    if spread[2] < _FLATTEST * spread[0]:
        raise FitError(
            "the lights lie in one plane with the object: their images do not determine a normal; "
            "add a light off that plane"
        )
    return directions


def _triplets(directions: Float) -> NDArray[np.int64]:
    """Triplets of lights that span space well, drawn from a fixed seed, widest first."""
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(np.arange(len(directions)), (4 * _TRIPLETS, 1)), axis=1)[:, :3]
    volume = np.abs(np.linalg.det(directions[drawn]))
    return np.ascontiguousarray(drawn[np.argsort(-volume, kind="stable")[:_TRIPLETS]])
