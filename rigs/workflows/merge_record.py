"""How a radiance picture was made: the record beside it, and the patch that put it on a scale."""

import re
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError, Model, Provenance, Quality
from calibration.radiometric import Radiance
from rigs.config import ConfigError

_PATCH = re.compile(
    r"(?:(?P<name>[^:]+):)?(?P<x>\d+),(?P<y>\d+),(?P<w>\d+),(?P<h>\d+)"
    r"=(?P<l>\d+\.?\d*(?:e[+-]?\d+)?)(?:(?:\+-|±)(?P<s>\d+\.?\d*))?"
)


class Patch(NamedTuple):
    """A patch of known luminance: column and row of its top left pixel, size, cd/m^2 with one sigma."""

    x: int
    y: int
    width: int
    height: int
    luminance_cd_m2: float
    sigma_cd_m2: float = 0.0
    picture: str = ""


def parse_luminance(text: str) -> Patch:
    """Patch from ``[NAME:]X,Y,W,H=CD_M2[+-SIGMA]``.

    Raises
    ------
    ConfigError
        Anything else.
    """
    match = _PATCH.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ConfigError(f"luminance {text!r}: want X,Y,W,H=CD_M2, such as 410,300,40,40=118 or =118+-2")
    x, y, width, height = (int(match[name]) for name in ("x", "y", "w", "h"))
    return Patch(x, y, width, height, float(match["l"]), float(match["s"] or 0), match["name"] or "")


class MergeRecord(Model):
    """How one radiance picture was made, beside it as ``NAME.json``.

    Attributes
    ----------
    picture : str
        Name of the EXR.
    frames : tuple of str
        Files of the frames, in the order of the tuples below.
    told_s, found_s, used_s : tuple of float
        Exposures as told, as the data have them, as the merge used them.
    sigma, systematic : tuple of float
        Relative one-sigma of ``found_s``, and what dim and bright samples disagree by; NaN: not found.
    exposure_scale_sigma : float
        Relative one-sigma of the scale common to all ``found_s``, from the scatter of the told times that
        hold it; NaN: not known. Not part of the picture's sigma.
    refined : bool
        Whether ``used_s`` are those found.
    reference : int
        Frame whose scene is kept where something moved; its exposure is the EXR's ``expTime``.
    chi2, chi2_robust : float
        Reduced chi^2 of the samples about the merge; NaN where the noise is not known or nothing overlaps.
    chi2_frame : tuple of float
    chi2_colour : dict of str to float
    chi2_signal : tuple of (signal in e-, reduced chi^2, mean residual in percent, samples)
    shift_px, shift_sigma_px : tuple of (x, y)
        Of each frame against the others; NaN: not known.
    moved : tuple of float
        Part of each frame that was left out as moved.
    bend_percent, bend_sigma_percent, black_off_dn, black_off_sigma_dn, bend_chi2 : float
        Shortfall at saturation and rest of the black level that explain the frames best if the told exposures
        are right, and reduced chi^2 with them; NaN where not asked. Not applied.
    margin_px : int
        Samples so near a saturated one were left out.
    units : str
        Of the picture's channels.
    scale, scale_sigma : float
        cd/m^2 for one e-/s, and its relative one-sigma; 0 where the picture is not on a scale.
    sensor : str
        Digest of the sensor model, or what stood in for it.
    """

    kind: Literal["merge"] = "merge"
    picture: str
    frames: tuple[str, ...]
    told_s: tuple[float, ...]
    found_s: tuple[float, ...]
    used_s: tuple[float, ...]
    sigma: tuple[float, ...]
    systematic: tuple[float, ...]
    exposure_scale_sigma: float = float("nan")
    refined: bool
    reference: int
    chi2: float
    chi2_robust: float
    chi2_frame: tuple[float, ...]
    chi2_colour: dict[str, float]
    chi2_signal: tuple[tuple[float, float, float, float], ...]
    shift_px: tuple[tuple[float, float], ...]
    shift_sigma_px: tuple[tuple[float, float], ...]
    moved: tuple[float, ...]
    bend_percent: float = float("nan")
    bend_sigma_percent: float = float("nan")
    black_off_dn: float = float("nan")
    black_off_sigma_dn: float = float("nan")
    bend_chi2: float = float("nan")
    margin_px: int
    units: str
    scale: float = 0.0
    scale_sigma: float = 0.0
    sensor: str = ""
    quality: Quality
    provenance: Provenance = Provenance()


def describe_merge(record: MergeRecord) -> str:
    """How a picture was made, in one line."""
    count = len(record.used_s)
    if count == 1:
        parts = [f"one frame of {record.used_s[0]:.4g} s"]
    else:
        shortest, longest = f"{min(record.used_s):.4g}", f"{max(record.used_s):.4g}"
        parts = [f"{count} frames of {shortest}{'' if shortest == longest else f' to {longest}'} s"]
        off = [100 * (f / t - 1) for f, t, s in zip(record.found_s, record.told_s, record.sigma, strict=True)
               if np.isfinite(s)]  # fmt: skip
        if not record.refined and len(set(record.told_s)) == 1:
            pass  # What they differ by is the light, not the time.
        elif off:
            most = max(off, key=abs)
            what = "refined, by up to" if record.refined else "as told, the pictures say"
            parts.append(f"exposures {what} {most:+.{2 if abs(most) < 10 else 3}g} %")
        else:
            parts.append("exposures as told, no overlap to check them by")
        if np.isfinite(record.chi2):
            parts.append(f"reduced chi^2 {record.chi2:.3g}")
        parts.append(f"{100 * float(np.mean(record.moved)):.2g} % of the samples moved")
    if record.scale:
        parts.append(f"cd/m^2, scale +- {100 * record.scale_sigma:.2g} %")
    return "; ".join(parts)


def scale_of(
    radiance: Radiance, patch: Patch, name: str, weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Cd/m^2 for one unit of radiance, and its relative sigma.

    Parameters
    ----------
    radiance : Radiance
        Of the picture, in its own colours.
    patch, name : Patch, str
        The patch; what messages call the picture.
    weights : ndarray (1 or 3,)
        Of the colours in the luminance.

    Raises
    ------
    FitError
        The patch is not within the picture, saturated, or not above the noise.
    """
    height, width = radiance.value.shape[:2]
    where = f"luminance: patch {patch.x},{patch.y},{patch.width},{patch.height} of {name}"
    if patch.luminance_cd_m2 <= 0 or patch.width < 1 or patch.height < 1:
        raise FitError(f"{where} = {patch.luminance_cd_m2:g} cd/m^2: want a size and a luminance above 0")
    if patch.x < 0 or patch.y < 0 or patch.x + patch.width > width or patch.y + patch.height > height:
        raise FitError(f"{where} is not within the picture of {width} x {height} px")
    box = (slice(patch.y, patch.y + patch.height), slice(patch.x, patch.x + patch.width))
    value, variance = (
        np.asarray(part[box] if part.ndim == 2 else part[box][..., weights > 0] @ share, np.float64)
        for part, share in zip(radiance, (weights[weights > 0], weights[weights > 0] ** 2), strict=True)
    )
    bad = int(np.count_nonzero(~np.isfinite(value)))
    if bad:
        raise FitError(
            f"{where}: {bad} of {value.size} pixels are saturated or invalid: choose another patch"
        )
    mean = float(value.mean())
    # Neighbours interpolated from a mosaic share samples: four times the variance is on the safe side.
    shared = 4.0 if radiance.value.ndim == 3 else 1.0
    sigma = float(np.sqrt(shared * variance.sum())) / value.size
    if mean <= 5 * sigma:
        raise FitError(f"{where}: its radiance {mean:.3g} +- {sigma:.2g} is not above the noise")
    return patch.luminance_cd_m2 / mean, float(
        np.hypot(sigma / mean, patch.sigma_cd_m2 / patch.luminance_cd_m2)
    )
