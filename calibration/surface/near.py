"""Normals and depth together: a near light's direction depends on where the surface is."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Gloss, Method, NormalMap, sight
from calibration.photometric.gloss import find_gloss
from calibration.photometric.pixels import Pixels
from calibration.photometric.solver import solve_at
from calibration.progress import Track, silent
from calibration.provenance import FitError, Provenance
from calibration.surface.integration import integrate_grid
from calibration.surface.material import Judged, as_mixture
from calibration.surface.scale import Placed, place
from calibration.surface.shadows import LEAST_LIT, cast_shadows

_COARSE_PIXELS = 15000
_ROUNDS = 12
_CONVERGED = 2e-5
_TOLERANCE = 1e-5
# Relative change of the gloss' strength.
_SETTLED = 0.005
# One sigma of the depth of a piece that the lights have moved: each pixel says little, the piece much.
_ANCHOR_PX = 1.0


class _Grid(NamedTuple):
    """What is known of every ``step``-th pixel, on which the surface is found."""

    radiance: NDArray[np.float32]
    variance: NDArray[np.float32]
    lights: Sequence[DistantLight | NearLight]
    lens: LensModel
    step: int
    mask: NDArray[np.bool_]
    prior: Float
    rays: NDArray[np.float32]

    def lit(self, depth: Float) -> NDArray[np.float32]:
        return _lit(self.radiance, depth, self.lights, self.lens, self.step)


def alternate(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    lens: LensModel,
    depth_mm: NDArray[np.floating] | float,
    mask: NDArray[np.bool_],
    *,
    method: Method,
    gloss: Gloss | None,
    provenance: Provenance | None,
    track: Track = silent,
) -> tuple[NormalMap, Float, float, int]:
    """Normals, depth (h, w), one sigma of its factor and the rounds until it stood still: ``reconstruct``."""
    h, w = mask.shape
    step = max(1, round(float(np.sqrt(mask.sum() / _COARSE_PIXELS))))
    prior = np.broadcast_to(np.asarray(depth_mm, np.float64), (h, w))
    every = np.s_[::step, ::step]
    grid = _Grid(
        radiance[:, *every],
        variance[:, *every],
        lights,
        lens,
        step,
        mask[every],
        prior[every],
        sight(lens, np.arange(0, h, step), np.arange(0, w, step)),
    )
    placed, found, rounds = _coarse(grid, method, gloss, track)
    own = _of_material(grid, placed, method, found, track)
    depth = placed.depth_mm if own.depth_mm is None else own.depth_mm
    rays = sight(lens, np.arange(h), np.arange(w))
    start = enlarge(depth, step, (h, w))
    points = rays * start[..., None].astype(np.float32)
    lit = _lit(radiance, np.where(mask, start, np.nan), lights, lens, 1)
    normals = solve_at(
        lit, variance, lights, points, mask,
        method=method, gloss=found, provenance=provenance, track=track,
    )  # fmt: skip
    telling = normals
    if normals.method == "mixture":
        # Its gloss cannot be taken from the samples, and gloss that is left in them moves the surface.
        telling = solve_at(lit, variance, lights, points, mask, method="robust", gloss=found, track=track)
    final = _depth(lit, variance, lights, rays, start, normals, telling, prior, track)
    if own.depth_mm is None:
        return normals, final.depth_mm, float(np.hypot(final.sigma, own.sigma)), rounds
    # The samples without a mixture would put the whole elsewhere; what they tell of its pieces stays.
    depth = final.depth_mm * np.exp(np.nanmedian(np.log(start / final.depth_mm)[mask]))
    return normals, depth, own.sigma, rounds


def _of_material(grid: _Grid, placed: Placed, method: Method, gloss: Gloss, track: Track) -> Judged:
    """``as_mixture`` from the depth that the grid has."""
    if method not in ("auto", "mixture"):
        return Judged(None, 0.0)
    depth = placed.depth_mm
    lit = grid.lit(np.where(grid.mask, depth, np.nan))
    points = np.asarray(grid.rays * depth[..., None], np.float32)
    pixels = Pixels.prepare(lit, grid.variance, grid.lights, points, grid.mask)
    lobe = gloss if gloss.strength > 0 else None
    return as_mixture(
        pixels, grid.rays, lobe, grid.prior, placed.influence, asked=method == "mixture", track=track
    )


def _coarse(grid: _Grid, method: Method, known: Gloss | None, track: Track) -> tuple[Placed, Gloss, int]:
    variance, lights, mask, rays = grid.variance, grid.lights, grid.mask, grid.rays
    depth, rounds, lit = grid.prior, 0, grid.radiance
    matt = Gloss(1.0, 0.0)
    gloss, settled = known or matt, False
    # A richer model of the surface hardly moves the depth at which light and sight are computed.
    plain: Method = "least-squares" if method == "least-squares" else "robust"
    for rounds in track(range(1, _ROUNDS + 1), "finding normals and depth together"):
        before = depth
        points = np.asarray(rays * depth[..., None], np.float32)
        # The shape of the first round is too rough to tell gloss; then the two settle together, as gloss
        # that is taken too weak moves the surface.
        if plain == "robust" and known is None and rounds > 1 and not settled:
            pixels = Pixels.prepare(lit, variance, lights, points, mask)
            last, gloss = gloss, find_gloss(pixels, None if gloss is matt else gloss) or matt
            settled = gloss is matt or abs(gloss.strength - last.strength) < _SETTLED * gloss.strength
        normals = solve_at(lit, variance, lights, points, mask, method=plain, gloss=gloss)
        placed = _depth(lit, variance, lights, rays, before, normals, normals, grid.prior)
        depth = placed.depth_mm
        both = np.isfinite(depth) & np.isfinite(before)
        if not both.any():
            raise FitError("the surface fell apart while alternating: check lights and depth_mm")
        change = np.abs(np.log(depth[both] / before[both]))
        lit = grid.lit(depth)
        # Pixels that drop out of one round may come back in the next.
        depth = fill(depth)
        if (
            rounds > 2
            and (settled or plain != "robust" or known is not None)
            and np.quantile(change, 0.9) < _CONVERGED
        ):
            break
    return placed._replace(depth_mm=depth), gloss, rounds


def _depth(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    rays: NDArray[np.float32],
    before: Float,
    normals: NormalMap,
    telling: NormalMap,
    prior: Float,
    track: Track = silent,
) -> Placed:
    """Depth from ``normals``, its pieces where the lights say, and what these say of its factor.

    ``telling`` is the surface without a mixture, by which the samples tell the distance.
    """
    depth = integrate_grid(
        normals.normals, normals.sigma_deg, rays,
        depth_mm=before, smooth=False, tolerance=_TOLERANCE, track=track,
    )  # fmt: skip
    placed = place(radiance, variance, lights, rays, depth, before, telling, prior)
    if placed.anchors_mm is None:
        return placed
    pitch = float(np.nanmedian(np.linalg.norm(np.diff(rays, axis=1), axis=2)))
    depth = integrate_grid(
        normals.normals,
        normals.sigma_deg,
        rays,
        depth_mm=placed.depth_mm,
        anchors_mm=placed.anchors_mm,
        anchor_sigma_mm=_ANCHOR_PX * pitch * float(np.nanmedian(placed.anchors_mm)),
        smooth=False,
        tolerance=_TOLERANCE,
        track=track,
    )
    return placed._replace(depth_mm=depth)


def _lit(
    radiance: NDArray[np.float32],
    depth: Float,
    lights: Sequence[DistantLight | NearLight],
    lens: LensModel,
    step: int,
) -> NDArray[np.float32]:
    """The samples without those in the shadows that the surface casts; NaN in their places."""
    hidden = cast_shadows(depth, lights, lens, step=step)
    hidden &= np.count_nonzero(~hidden, axis=0) >= LEAST_LIT
    lit = radiance.copy()
    lit[hidden] = np.nan
    return lit


def fill(depth: Float) -> Float:
    """Unknown depths from the nearest known one."""
    index = ndimage.distance_transform_edt(~np.isfinite(depth), return_distances=False, return_indices=True)
    return np.asarray(depth[tuple(index)])


def enlarge(depth: Float, step: int, shape: tuple[int, int]) -> Float:
    """Depth of the coarse grid (every ``step``-th pixel from 0) on the full one, bilinear, filled outside."""
    if step == 1:
        return fill(depth)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / step
    full = cv2.remap(fill(depth).astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(full, np.float64)
