"""Whether each picture is that of its light: the others foretell what it should show."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.photometric.pixels import Light, Pixels
from calibration.photometric.robust import solve_robust
from calibration.photometric.solver import check, pixels_of

_PIXELS = 800
_LEAST_LIGHTS = 5
_LEAST_SAMPLES = 50
# Cosine to a light below which a sample says more of shadow and roughness than of the light.
_GRAZING = 0.2
# A strength is named where it is off by this factor, and by so many sigmas of the lights' scatter. Right
# lights of psm, two spheres and DiLiGenT's ball and cat scatter by 0.4 to 5 % and are off by 1.2 at most.
_LEAST_OFF = 1.3
_MANY_SIGMA = 6.0
# What is left of a picture that has the shape of its light's, and how many times the median that may be.
_KEPT = 0.1
_SHAPE = 3.0
# A picture of another shape is another light's that leaves no more than this share of it. Of the same objects
# swapped pictures leave up to 0.25 where the lights are right, 0.5 under those of psm, off by 4 to 8 degrees.
_FITS = 0.25
# Above this share of the lights none is blamed: the normals themselves are then not to be trusted.
_MOST_BLAMED = 1 / 3


class Pairing(NamedTuple):
    """How each picture agrees with its light.

    Attributes
    ----------
    strength : ndarray (n,), float64
        Of each picture in what its light foretells, against the median of all lights; 1 where not known.
    off : ndarray (n,), bool
        The picture has the shape that its light foretells, but clearly another strength.
    shown : ndarray (n,), int64
        Which light's picture it is by its shape; its own, unless another one clearly explains it better.
    """

    strength: Float
    off: NDArray[np.bool_]
    shown: NDArray[np.int64]

    def contradictions(self, names: Sequence[str]) -> tuple[str, ...]:
        """One sentence for each light whose picture is not the one it should be."""
        told = []
        for i, j in enumerate(self.shown.tolist()):
            if i == j:
                continue
            if self.shown[j] != i:
                told.append(
                    f"light {names[i]}: its picture is one under {names[j]}: swapped, or taken twice?"
                )
            elif i < j:
                told.append(f"lights {names[i]} and {names[j]}: their pictures are swapped")
        for i in np.flatnonzero(self.off).tolist():
            times = f"{self.strength[i]:.2f} times as bright as the others foretell"
            told.append(f"light {names[i]}: its picture is {times}: is its intensity wrong, or the exposure?")
        return tuple(told)


def pair(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[Light],
    *,
    lens: LensModel | None = None,
    depth_mm: NDArray[np.floating] | float | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Pairing:
    """Hold each picture against what its light, and every other light, should show of the object.

    Parameters
    ----------
    radiance, variance, lights, lens, depth_mm, mask
        As for ``photometric.solve``.

    Returns
    -------
    Pairing
        Without blame where there are fewer than five lights: no picture is then foretold by the others.

    Raises
    ------
    ValueError, FitError
        As ``photometric.solve``.

    Notes
    -----
    Normals and albedo of some hundred pixels come from all lights by the robust solver, to which a picture
    that does not belong is an outlier at every pixel. Under each light the shading of these pixels is
    foretold; the median ratio of picture and shading is the strength, and the median deviation from it what
    is left of the shape. Both outvote cast shadows and highlights of less than half of the pixels. Of lights
    that all err alike nothing is seen, nor where more than a third would have to be blamed.
    """
    check(radiance, variance, lights, lens, depth_mm, mask)
    own = np.arange(len(lights))
    silent = Pairing(np.ones(len(lights)), np.zeros(len(lights), bool), own)
    if len(lights) < _LEAST_LIGHTS:
        return silent
    pixels = pixels_of(radiance, variance, lights, lens, depth_mm, mask)
    samples, shading = _foretold(pixels.sample(_PIXELS))
    gain, left = np.array([_explained(samples[i], shading[i]) for i in own]).T
    if np.isfinite(left).sum() < _LEAST_LIGHTS:
        return silent
    log = np.log(np.maximum(gain, 1e-6))
    log -= np.nanmedian(log)
    strength = np.where(np.isfinite(log), np.exp(log), 1.0)
    usual, scatter = float(np.nanmedian(left)), 1.4826 * float(np.nanmedian(np.abs(log)))
    strange = left > _SHAPE * usual
    least = max(np.log(_LEAST_OFF), _MANY_SIGMA * scatter)
    off = (np.abs(log) > least) & ~(left > max(_KEPT, _SHAPE * usual))
    if np.count_nonzero(off | strange) > _MOST_BLAMED * len(own):
        return silent._replace(strength=strength)
    shown = own.copy()
    for i in np.flatnonzero(strange & ~off):
        under = np.array([_explained(samples[i], shade)[1] for shade in shading])
        best = int(np.nanargmin(under))
        if under[best] < _FITS * left[i]:
            shown[i] = best
    return Pairing(strength, off, shown)


def _foretold(pixels: Pixels) -> tuple[Float, Float]:
    """Samples (n, p), channels added up, and the shading of each light there; NaN where it is grazing."""
    from calibration.photometric import kernels

    found = solve_robust(pixels, None)
    normals, albedo = (np.asarray(a[pixels.mask], np.float64) for a in (found.normals, found.albedo))
    towards, irradiance = pixels.aimed()
    cosine = np.einsum("npi,pi->np", towards, normals)
    intensity = pixels.table[:, kernels.INTENSITY : kernels.INTENSITY + albedo.shape[1]]
    shading = np.where(cosine > _GRAZING, cosine, np.nan) * irradiance * (intensity @ albedo.T)
    samples = pixels.radiance[pixels.order][:, pixels.mask].sum(axis=-1, dtype=np.float64)
    back = np.argsort(pixels.order)
    return samples[back], shading[back]


def _explained(sample: Float, shading: Float) -> tuple[float, float]:
    """Strength of a picture (p,) in its shading (p,), and what is left of it, relative; NaN for too few."""
    use = np.isfinite(sample) & (shading > 0)
    if np.count_nonzero(use) < _LEAST_SAMPLES:
        return np.nan, np.nan
    sample, shading = sample[use], shading[use]
    gain = float(np.median(sample / shading))
    return gain, float(np.median(np.abs(sample - gain * shading)) / max(np.median(sample), 1e-30))
