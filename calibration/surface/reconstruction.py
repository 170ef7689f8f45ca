"""Normals, albedo and depth of one view, whatever the lights."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.lens import LensModel
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import Gloss, Method, NormalMap, object_mask, solve
from calibration.photometric.solver import check
from calibration.progress import Track, silent
from calibration.provenance import Provenance
from calibration.surface.distant import without_shadows
from calibration.surface.integration import integrate
from calibration.surface.near import alternate


class Reconstruction(NamedTuple):
    """Normals and depth of one view.

    Attributes
    ----------
    normals : NormalMap
        Solved at the final depth.
    depth_mm : ndarray (h, w), float32
        Depth z, camera frame, NaN where unknown; px for an orthographic view.
    scale_sigma : float
        One sigma of the common factor of all depths, relative; NaN where it was given and not measured
        (distant lights).
    rounds : int
        Alternations until depth, or under distant lights the shadows, stood still.
    """

    normals: NormalMap
    depth_mm: NDArray[np.float32]
    scale_sigma: float
    rounds: int


def reconstruct(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[DistantLight | NearLight],
    *,
    lens: LensModel | None = None,
    mask: NDArray[np.bool_] | None = None,
    depth_mm: NDArray[np.floating] | float | None = None,
    method: Method = "auto",
    gloss: Gloss | None = None,
    provenance: Provenance | None = None,
    track: Track = silent,
) -> Reconstruction:
    """Normals, albedo and depth from images under known lights.

    Parameters
    ----------
    radiance, variance, lights, lens, mask, method, gloss, provenance, track
        As for ``photometric.solve``.
    depth_mm : float or ndarray (h, w), optional
        Where the surface is, roughly (10 %). Near lights then find the scale by themselves; with distant
        lights it is the scale (median depth; without it 1 mm, or 0 px in an orthographic view).

    Returns
    -------
    Reconstruction

    Raises
    ------
    ValueError, FitError
        As ``photometric.solve``.

    Notes
    -----
    Near lights: normals at the current depth, depth from the normals, and so on, on a coarser grid of the
    same lines of sight until the depth stands still, then once at full resolution. From the second round on,
    samples in the shadows that the surface so far casts (``cast_shadows``) are left out; a pixel keeps all of
    them where fewer than four would remain.

    Integration leaves the factor of each piece of the surface between jumps of depth: it is the one at which
    a Lambertian surface explains the trusted samples best (Gauss-Newton on the residual with the normals
    solved for), under a prior of 10 % around ``depth_mm``. Its sigma takes the lights, not the pixels, as the
    independent observations, as errors of a light's position and intensity are common to all pixels.

    Distant lights: samples in shadows that the surface casts and the images confirm are left out
    (``distant.without_shadows``), then normals and depth once. Least squares keeps them: it is there to be
    compared with.
    """
    if mask is None:
        mask = object_mask(radiance, variance)
    check(radiance, variance, lights, lens, depth_mm, mask)
    if lens is not None and depth_mm is not None and any(light.kind == "near" for light in lights):
        normals, depth, sigma, rounds = alternate(
            radiance,
            variance,
            lights,
            lens,
            depth_mm,
            mask,
            method=method,
            gloss=gloss,
            provenance=provenance,
            track=track,
        )
        return Reconstruction(normals, depth.astype(np.float32), sigma, rounds)
    rounds = 1
    if method != "least-squares":
        radiance, gloss, rounds = without_shadows(
            radiance, variance, lights, lens, mask, gloss, attached=method == "robust", track=track
        )
    normals = solve(
        radiance, variance, lights,
        lens=lens, depth_mm=depth_mm, mask=mask, method=method, gloss=gloss, provenance=provenance,
        track=track,
    )  # fmt: skip
    surface = integrate(normals, lens, depth_mm=depth_mm, track=track)
    return Reconstruction(normals, surface, float("nan"), rounds)
