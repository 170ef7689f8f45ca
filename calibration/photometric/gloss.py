"""The gloss of an object, found from its own images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from calibration.geometry import Float, normalize
from calibration.photometric.pixels import Pixels
from calibration.progress import Track, silent

_PIXELS = 1500
_ROUGHNESS = (0.1, 0.2, 0.35, 0.6)
_RATIOS = (0.02, 0.08, 0.3)
_LEAST_GAIN = 0.5
_SWITCH = 2.0
_FLOOR_COST = 1e-3
_EVALUATIONS = 30


class Gloss(NamedTuple):
    """A GGX lobe over the Lambertian base.

    Attributes
    ----------
    roughness : float
        Walter's alpha_g.
    strength : float
        Fresnel reflectance at normal incidence, in the units of albedo; 0 is no gloss.
    """

    roughness: float
    strength: float

    def reflect(self, normals: ArrayLike, to_light: ArrayLike, to_eye: ArrayLike) -> Float:
        """Radiance over irradiance across the beam, in units of albedo: pi * f_s * n.l.

        Parameters
        ----------
        normals, to_light, to_eye : array_like, (..., 3)
            Unit vectors.

        Returns
        -------
        ndarray (...), float64
            0 behind the terminator.

        Notes
        -----
        GGX distribution with the height-correlated Smith shadowing, without the rise of Fresnel's reflectance
        towards grazing incidence (1 % at 60 degrees between light and eye). B. Walter et al., EGSR 2007,
        doi:10.2312/EGWR/EGSR07/195-206; E. Heitz, JCGT 3 (2014).
        """
        n, light, eye = (np.asarray(v, np.float64) for v in (normals, to_light, to_eye))
        half = normalize(light + eye)
        nl = np.clip(np.sum(n * light, axis=-1), 0.0, None)
        nv = np.clip(np.sum(n * eye, axis=-1), 1e-3, None)
        nh = np.sum(n * half, axis=-1)
        a2 = self.roughness**2
        spread = a2 / (np.pi * (nh**2 * (a2 - 1) + 1) ** 2)
        shade = nl * np.sqrt(a2 + (1 - a2) * nv**2) + nv * np.sqrt(a2 + (1 - a2) * nl**2)
        return np.asarray(np.pi * self.strength * spread * nl * 0.5 / np.maximum(shade, 1e-300))


def find_gloss(pixels: Pixels, start: Gloss | None = None, track: Track = silent) -> Gloss | None:
    """The lobe common to the object that best explains its images; None if none explains them better.

    A sample of pixels is solved robustly under candidate lobes. The one that lowers the logarithm of the
    pixels' truncated costs most wins; a pixel that a lobe does not suit counts as matt.

    Parameters
    ----------
    pixels : Pixels
    start : Gloss, optional
        Search only around it.
    track : callable, optional
        Shows progress.
    """
    sample = pixels.sample(_PIXELS)
    lights = len(sample.table)
    matt = sample.solve(robust=True)
    if not np.isfinite(matt.cost).any():
        return None
    albedo = float(np.nanmedian(matt.albedo))

    def loss(logs: ArrayLike) -> float:
        roughness, ratio = np.exp(np.asarray(logs))
        if not (0.02 < roughness <= 1 and ratio < 10):
            return _SWITCH
        lobe = sample.solve(robust=True, roughness=roughness, strengths=(ratio * albedo,))
        gain = lights * np.log((matt.cost + _FLOOR_COST) / (lobe.cost + _FLOOR_COST))
        return float(-np.maximum(np.nan_to_num(gain[sample.mask], nan=0.0), -_SWITCH).mean())

    if start is None:
        grid = [(np.log(a), np.log(r)) for a in _ROUGHNESS for r in _RATIOS]
        first, span = np.array(min(track(grid, "finding gloss"), key=loss)), 0.3
    else:
        first, span = np.log([start.roughness, start.strength / albedo]), 0.1
    simplex = first + np.array([[0, 0], [span, 0], [0, 1.5 * span]])
    found = minimize(
        loss,
        first,
        method="Nelder-Mead",
        options={"maxfev": _EVALUATIONS, "xatol": 0.01, "fatol": 0.01, "initial_simplex": simplex},
    )
    if not found.fun < -_LEAST_GAIN:
        return None
    roughness, ratio = np.exp(found.x)
    return Gloss(float(roughness), float(ratio * albedo))
