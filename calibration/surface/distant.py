"""Distant lights: the samples in shadows that the surface itself casts, found by geometry."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Gloss, sight
from calibration.photometric.gloss import find_gloss
from calibration.photometric.pixels import Pixels, Solution
from calibration.photometric.robust import solve_robust
from calibration.progress import Track, silent
from calibration.surface.integration import integrate_grid
from calibration.surface.near import enlarge
from calibration.surface.shadows import LEAST_LIT, cast_shadows

# Pixels on which the surface is found; of larger pictures every second, third, ...
_COARSE_PIXELS = 100_000
_ROUNDS = 4
_STILL = 1e-3
_TOLERANCE = 1e-4
# A sample in shadow is darker than this part of what its light would give; light that bounces brightens it.
_DARK = 0.5
# Where a light would give less than this part of a pixel's mean the images do not tell.
_UNTOLD = 0.1
# A shadow is believed if so much of it, as far as the images tell, is dark.
_BELIEVED = 0.7


def without_shadows(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    lens: LensModel | None,
    mask: NDArray[np.bool_],
    gloss: Gloss | None = None,
    *,
    attached: bool = True,
    track: Track = silent,
) -> tuple[NDArray[np.float32], Gloss, int]:
    """Leave out the samples in shadows that the surface casts and that the images confirm.

    Normals by the robust solver, the surface they make, its shadows, normals of the rest, and so on until the
    shadows stand still, four times at most.

    Parameters
    ----------
    radiance, variance : ndarray (n, h, w) or (n, h, w, 3), float32
    lights : sequence of n lights
        Distant ones.
    lens : LensModel or None
        None: orthographic view.
    mask : ndarray (h, w), bool
    gloss : Gloss, optional
        As for ``photometric.solve``.
    attached : bool
        Leave out hidden samples also where the surface faces away from their light: to the robust solver they
        say nothing, and light that bounces makes them say something wrong. A mixture learns from them.
    track : callable, optional
        Shows progress.

    Returns
    -------
    radiance : ndarray, float32
        The same array where nothing is left out; else a copy with NaN.
    gloss : Gloss
        The one found, strength 0 if there is none.
    rounds : int

    Notes
    -----
    A surface can be wrong: a jump of depth integrated as a slope throws shadows that are none. So the samples
    that geometry calls hidden are foretold from the others. One that is half as bright as foretold or more is
    lit; and of each connected shadow of a light most must be dark, or all of it is taken for lit. Where light
    bounces so much that a shadow is half as bright as its surroundings, it stays in, and is left to the
    weights of the solver.
    """
    h, w = mask.shape
    step = max(1, round(float(np.sqrt(mask.sum() / _COARSE_PIXELS))))
    grid = np.s_[::step, ::step]
    rays = None if lens is None else sight(lens, np.arange(0, h, step), np.arange(0, w, step))
    points = np.array([[[0, 0, 1]]], np.float32) if rays is None else rays
    samples = radiance[(slice(None), *grid)]
    pixels = Pixels.prepare(samples, variance[(slice(None), *grid)], lights, points, mask[grid])
    if gloss is None:
        gloss = find_gloss(pixels, track=track) or Gloss(1.0, 0.0)
    lobe = gloss if gloss.strength > 0 else None

    found = solve_robust(pixels, lobe)
    hidden = kept = np.zeros(samples.shape[:3], np.bool_)
    depth: Float | None = None
    rounds = 1
    for rounds in track(range(1, _ROUNDS + 1), "finding shadows"):
        if np.isfinite(found.normals[..., 0]).sum() < 2:
            return radiance, gloss, rounds
        depth = integrate_grid(found.normals, found.sigma_deg, rays, smooth=False, tolerance=_TOLERANCE)
        cast = _enough(cast_shadows(depth, lights, lens, step=step) & pixels.mask, samples)
        before = hidden
        refuted, away = _asked(pixels, cast, found, lobe)
        hidden = cast & ~refuted
        kept = refuted if attached else refuted | away
        changed = (hidden != before).any(axis=0)
        if changed.sum() <= _STILL * pixels.mask.sum():
            break
        found = _merged(found, _solve(pixels, hidden, changed, lobe), changed)
    hidden = hidden & ~kept
    if not hidden.any() or depth is None:
        return radiance, gloss, rounds
    if step > 1:
        full = np.where(mask, enlarge(depth, step, (h, w)), np.nan)
        doubt = np.repeat(np.repeat(kept, step, axis=1), step, axis=2)[:, :h, :w]
        hidden = _enough(cast_shadows(full, lights, lens) & mask & ~doubt, radiance)
    lit = radiance.copy()
    lit[hidden] = np.nan
    return lit, gloss, rounds


def _enough(hidden: NDArray[np.bool_], samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """``hidden`` where enough samples remain."""
    usable = np.isfinite(samples) if samples.ndim == 3 else np.isfinite(samples).all(axis=3)
    return np.asarray(hidden & (np.count_nonzero(usable & ~hidden, axis=0) >= LEAST_LIT))


def _solve(
    pixels: Pixels, hidden: NDArray[np.bool_], where: NDArray[np.bool_], lobe: Gloss | None
) -> Solution:
    radiance = pixels.radiance.copy()
    radiance[hidden] = np.nan
    return solve_robust(pixels._replace(radiance=radiance, mask=pixels.mask & where), lobe)


def _merged(old: Solution, new: Solution, where: NDArray[np.bool_]) -> Solution:
    """``new`` where it was asked for and has an answer."""
    there = where & np.isfinite(new.normals[..., 0])
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = list(zip(old, new, strict=True))
    return Solution(*(np.where(there if a.ndim == 2 else there[..., None], b, a) for a, b in pairs))


def _asked(
    pixels: Pixels, cast: NDArray[np.bool_], found: Solution, lobe: Gloss | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Samples (n, h, w) that geometry has in shadow and the images do not, with the shadows they are in; and
    those whose light the surface faces away from."""
    touched = np.asarray(cast.any(axis=0))
    out, away = np.zeros_like(cast), np.zeros_like(cast)
    if not touched.any():
        return out, away
    found = _merged(found, _solve(pixels, cast, touched, lobe), touched)
    here = pixels._replace(mask=touched)
    direction = here.aimed()[0]
    samples = here.packed()[0].mean(axis=2)
    body = found.normals[touched] * found.albedo[touched].mean(axis=-1, keepdims=True)
    foretold = np.einsum("npi,pi->np", np.broadcast_to(direction, (*samples.shape, 3)), body)
    mean = np.sqrt(np.nanmean(np.where(cast[here.order][:, touched], np.nan, samples) ** 2, axis=0))
    told = np.isfinite(samples) & (foretold > _UNTOLD * mean)
    dark = samples < _DARK * foretold
    for row, light in enumerate(here.order):
        asked = np.zeros(touched.shape, np.bool_)
        bright = asked.copy()
        asked[touched] = told[row]
        bright[touched] = told[row] & ~dark[row]
        shadow = cast[light] & asked
        count, labels = cv2.connectedComponents(shadow.astype(np.uint8), connectivity=8)
        share = ndimage.mean(bright, labels, np.arange(count))
        wrong = share > 1 - _BELIEVED
        wrong[0] = False
        out[light] = shadow & (bright | wrong[labels])
        away[light][touched] = ~(foretold[row] > 0)
    return out, away
