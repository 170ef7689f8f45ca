"""Photometric stereo with calibrated lights: checks, tables for the kernel, the normal map."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.photometric.bank import BANKS, Mixture
from calibration.photometric.choice import Candidate, choose
from calibration.photometric.gloss import Gloss, find_gloss
from calibration.photometric.mask import object_mask
from calibration.photometric.mixture import common, fit, learn, mend, sigma_deg
from calibration.photometric.model import NormalMap
from calibration.photometric.pixels import Light, Pixels, Solution
from calibration.photometric.robust import solve_robust
from calibration.progress import Track, silent
from calibration.provenance import FitError, Provenance, Quality

Method = Literal["auto", "mixture", "robust", "least-squares"]

_ROBUST = "matt or one lobe"
# Pixels from which a mixture is learned.
_PIXELS = 1000
# Samples of a pixel from which a mixture is told.
_LEAST_MIXED = 4
# Smallest singular value of the lights' directions below which errors of the images more than double. Three
# lights at right angles have 1, and 3 at 25 degrees around the view 0.52.
_NARROW = 0.5


def solve(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[Light],
    *,
    lens: LensModel | None = None,
    depth_mm: NDArray[np.floating] | float | None = None,
    mask: NDArray[np.bool_] | None = None,
    method: Method = "auto",
    gloss: Gloss | None = None,
    provenance: Provenance | None = None,
    track: Track = silent,
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
    method : 'auto', 'mixture', 'robust' or 'least-squares'
        Least squares is Woodham's method over all usable samples alike, each divided by its light's
        irradiance, shadows and highlights included. Robust starts from the best of
        smallest absolute residuals and sampled triplets of lights under a truncated loss, then iterates
        Tukey's biweight, whose scale is the noise plus the same model error, and wider where the residuals
        ask for it; samples in cast or attached shadow get weight zero. If a GGX lobe common to the object
        explains the images better, it is fitted as well, and each pixel takes 0, 1/2, 1 or 2 times its
        strength; a sample is trusted the less the more of it is gloss.
        Mixture takes each channel of a pixel as reflectances of a bank with shares of 0 or more: matt, rough
        and coated bodies, lobes of gloss, light from all around (``bank``). What shares are likely is
        learned from the object's own pixels. Weights are Tukey's, common to the channels.
        Auto asks the images: of the robust solver and two banks the plainest is taken that foretells
        lights left out as well as any (``choose``); ``method`` and ``reason`` of the result say which.
        A pixel with just three usable samples is solved exactly by all.
    gloss : Gloss, optional
        What is known of the object's gloss, for the robust solver; strength 0 says that it is matt. Default:
        it looks.
    provenance : Provenance, optional
        Stored with the result.
    track : callable, optional
        Wraps each long loop to show its progress, ``progress.Track``; the result is the same.

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
    Least squares and robust assume a Lambertian surface for the trusted samples and no interreflection:
    concave glossy parts are bent. RGB channels are combined into one signal per pixel by inverse variance
    with shares common to all lights; the albedo is then fitted per channel. A mixture's albedo is what all
    but its lobes send straight back; it takes about 0.3 ms a pixel of 96 lights and three channels on a core,
    and wants 8 lights or more.
    R. J. Woodham, Optical Engineering 19 (1980), doi:10.1117/12.7972479. Biweight: A. E. Beaton and J. W.
    Tukey, Technometrics 16 (1974), doi:10.1080/00401706.1974.10489171.
    """
    check(radiance, variance, lights, lens, depth_mm, mask)
    h, w = radiance.shape[1:3]
    if mask is None:
        mask = object_mask(radiance, variance)
    points = points_at(lens, depth_mm, h, w)
    return solve_at(
        radiance,
        variance,
        lights,
        points,
        mask,
        method=method,
        gloss=gloss,
        provenance=provenance,
        track=track,
    )


def solve_at(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[Light],
    points: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    method: Method = "auto",
    gloss: Gloss | None = None,
    provenance: Provenance | None = None,
    track: Track = silent,
) -> NormalMap:
    """``solve`` for known surface points (h, w, 3), mm, NaN where unknown; (1, 1, 3): one line of sight for
    all.

    ``gloss`` is used as it is (strength 0: matt); without it the robust solver looks for it.
    """
    if method not in get_args(Method):
        raise ValueError(f"method {method!r}: want one of {', '.join(get_args(Method))}")
    pixels = Pixels.prepare(radiance, variance, lights, points, mask)
    reason, taken = None, None
    if method == "least-squares":
        gloss, found = None, pixels.solve(robust=False, track=track)
    else:
        gloss = find_gloss(pixels, track=track) if gloss is None else gloss
        gloss = gloss if gloss is not None and gloss.strength > 0 else None
        if method == "mixture" and len(pixels.table) < _LEAST_MIXED:
            reason = f"{len(pixels.table)} lights tell no mixture, which wants {_LEAST_MIXED}, better 8"
        elif method != "robust":
            taken, reason = _model(pixels, gloss, track, mixture_only=method == "mixture")
        found = solve_robust(pixels, gloss, track)
    if taken is not None:
        gloss, found = None, _mix(pixels, found, taken, track)
    valid = np.isfinite(found.normals[..., 0])
    if not valid.any():
        raise FitError(
            "no pixel has three usable samples from lights that span space: check exposure, mask and lights"
        )
    return NormalMap(
        normals=found.normals,
        albedo=found.albedo[..., 0] if radiance.ndim == 3 else found.albedo,
        valid=valid,
        sigma_deg=found.sigma_deg,
        sigma_lights_deg=found.sigma_lights_deg if len(pixels.errors) else None,
        lights_used=found.used,
        roughness=None if gloss is None else gloss.roughness,
        gloss=None if gloss is None else found.strength,
        quality=_quality(found, valid, pixels, "1 %" if taken is None else "3 %", method),
        provenance=provenance or Provenance(options={"method": method}),
        method=method if method == "least-squares" else "robust" if taken is None else "mixture",
        reason=reason,
    )


def _model(
    pixels: Pixels, gloss: Gloss | None, track: Track, *, mixture_only: bool
) -> tuple[Mixture | None, str]:
    """The mixture that the object's images ask for, None where the robust solver's surface does, and why."""
    sample = pixels.sample(_PIXELS)
    starts = _starts(sample, solve_robust(sample, gloss))
    candidates: dict[str, Candidate] = {} if mixture_only else {_ROBUST: gloss}
    for name, bank in track(tuple(BANKS.items()), "learning reflectances"):
        candidates[name] = learn(sample, starts, bank)
    choice = choose(pixels, candidates, track)
    taken = candidates[choice.name]
    return taken if isinstance(taken, Mixture) else None, f"{choice.name}: {choice.reason}"


def _starts(pixels: Pixels, robust: Solution) -> NDArray[np.float32]:
    return np.stack([robust.normals, pixels.solve(robust=False).normals])


def _mix(pixels: Pixels, robust: Solution, mixture: Mixture, track: Track) -> Solution:
    """Solve under a mixture; a pixel of three samples, or one that no start solves, stays as it was."""
    from calibration.photometric.kernels import BANK_ERROR

    mixed = fit(pixels, _starts(pixels, robust), mixture, track=track)
    mixed = mend(pixels, mixed, mixture, track)
    sigma = sigma_deg(mixed, common(pixels, mixed, mixture))
    solved = np.isfinite(sigma)
    return Solution(
        normals=np.where(solved[..., None], mixed.normals, robust.normals),
        albedo=np.where(solved[..., None], mixed.albedo, robust.albedo),
        sigma_deg=np.where(solved, sigma, robust.sigma_deg),
        sigma_lights_deg=robust.sigma_lights_deg,
        used=np.where(solved, mixed.used, robust.used),
        strength=robust.strength,
        misfit=np.where(solved, mixed.misfit / (mixed.chance + BANK_ERROR**2), robust.misfit),
        cost=robust.cost,
    )


def _quality(
    found: Solution, valid: NDArray[np.bool_], pixels: Pixels, model_error: str, method: Method
) -> Quality:
    lights, mask = len(pixels.table), pixels.mask
    share = float(valid.sum() / mask.sum())
    known = found.misfit[np.isfinite(found.misfit)]
    residual = float(np.sqrt(np.median(known))) if known.size else 0.0
    warnings = _of_lights(pixels.directions)
    if share < 0.9:
        warnings.append(
            f"{100 * (1 - share):.0f} % of the mask could not be solved: {_why(pixels, valid, method)}"
        )
    if residual > 2:
        warnings.append(
            f"residuals are {residual:.1f} times what noise and {model_error} model error explain"
        )
    trusted = int(found.used[valid].sum(dtype=np.int64))
    return Quality(
        residual_rms=residual,
        unit="sigma of noise and model error",
        observations=trusted,
        rejected=int(mask.sum()) * lights - trusted,
        verdict="doubtful" if warnings else "good",
        warnings=tuple(warnings),
    )


def _why(pixels: Pixels, valid: NDArray[np.bool_], method: Method) -> str:
    """Why pixels have no normal, each reason with its share of the mask."""
    disagree = "have too few that agree once shadows and highlights are left out: more lights leave more"
    planar = "have samples from lights in a plane, or a normal that faces away"
    unsolved = pixels.mask & ~valid
    usable = np.zeros(int(unsolved.sum()), int)
    for radiance, variance in zip(pixels.radiance, pixels.variance, strict=True):
        usable += np.isfinite(radiance[unsolved] + variance[unsolved]).all(axis=1)
    few = float(np.sum(usable < 3) / pixels.mask.sum())
    rest = float(np.sum(usable >= 3) / pixels.mask.sum())
    reasons = (
        (few, "have fewer than three usable samples"),
        (rest, planar if method == "least-squares" else disagree),
    )
    return ", ".join(f"{100 * share:.0f} % {reason}" for share, reason in reasons if share >= 0.005)


def _of_lights(directions: Float) -> list[str]:
    """What lights in these directions (n, 3) cannot do.

    An error of the images that is a share of the full light turns the normal by up to that share over the
    smallest singular value, rad.
    """
    warnings = []
    if len(directions) == 3:
        warnings.append(
            "3 lights: normal and albedo take all that they tell, so no residual checks the normals, and"
            " shadows and highlights pass for shape; 4 lights or more would show them"
        )
    spread = np.linalg.svd(directions, compute_uv=False)
    if spread[2] < _NARROW:
        told = ", ".join(f"{value:.2f}" for value in spread)
        warnings.append(
            f"the {len(directions)} lights hardly differ along one direction (singular values {told}):"
            f" errors of the images turn normals {1 / spread[2]:.1f} times as much there; spread the lights,"
            " or add some"
        )
    return warnings


def check(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[Light],
    lens: LensModel | None,
    depth_mm: NDArray[np.floating] | float | None,
    mask: NDArray[np.bool_] | None,
) -> None:
    """Raise ValueError or FitError, in one line, where images, lights, lens and depth do not go together."""
    if radiance.ndim not in (3, 4) or (radiance.ndim == 4 and radiance.shape[3] != 3):
        raise ValueError(f"radiance is {radiance.shape}: want (n, h, w) or (n, h, w, 3)")
    if variance.shape != radiance.shape:
        raise ValueError(f"variance is {variance.shape}, radiance is {radiance.shape}")
    if mask is not None and mask.shape != radiance.shape[1:3]:
        raise ValueError(f"mask is {mask.shape}, images are {radiance.shape[1:3]}")
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


def pixels_of(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[Light],
    lens: LensModel | None,
    depth_mm: NDArray[np.floating] | float | None,
    mask: NDArray[np.bool_] | None,
) -> Pixels:
    """The object's pixels under arguments of ``solve`` that were checked, its mask found where none is."""
    if mask is None:
        mask = object_mask(radiance, variance)
    return Pixels.prepare(radiance, variance, lights, points_at(lens, depth_mm, *radiance.shape[1:3]), mask)


def points_at(
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
