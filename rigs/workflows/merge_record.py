"""How a radiance picture was made: the record beside it, and the patch that put it on a scale."""

import re
from typing import Literal, NamedTuple

import numpy as np

from calibration.provenance import Model, Provenance, Quality
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
        parts = [f"{count} frames of {min(record.used_s):.4g} to {max(record.used_s):.4g} s"]
        off = [100 * (f / t - 1) for f, t, s in zip(record.found_s, record.told_s, record.sigma, strict=True)
               if np.isfinite(s)]  # fmt: skip
        if off:
            most = max(off, key=abs)
            what = "refined, by up to" if record.refined else "as told, the pictures say"
            parts.append(f"exposures {what} {most:+.2g} %")
        else:
            parts.append("exposures as told, no overlap to check them by")
        if np.isfinite(record.chi2):
            parts.append(f"reduced chi^2 {record.chi2:.3g}")
        parts.append(f"{100 * float(np.mean(record.moved)):.2g} % of the samples moved")
    if record.scale:
        parts.append(f"cd/m^2, scale +- {100 * record.scale_sigma:.2g} %")
    return "; ".join(parts)
