"""The colour model of one camera under one light: its R, G, B to linear Rec.709."""

from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from calibration.colour.spaces import REC709_CHROMATICITIES, rgb_to_xyz
from calibration.geometry import Float
from calibration.provenance import Array, Model, Provenance, Quality
from calibration.radiometric.model import Radiance

Method = Literal["matrix", "root-polynomial"]
F = TypeVar("F", np.float32, np.float64)

TERMS: dict[str, int] = {"matrix": 3, "root-polynomial": 6}
"""Columns of the matrix of each method."""

_ROWS_AT_ONCE = 64


class PatchResidual(Model):
    """One patch of the chart: what it is, what the model makes of it, and how far apart.

    Attributes
    ----------
    name : str
    reference, measured : (float, float, float)
        L*a*b* under the reference's white. What was measured is None where the patch was not used.
    delta_e : float or None
        CIEDE2000 of the two.
    left_out_delta_e : float or None
        The same, from the fit without this patch: what a colour that is not on the chart may expect.
    sigma : float
        What the noise of the image alone does to ``delta_e``, rms.
    fault : str
        Why it was not used; empty where it was.
    """

    name: str
    reference: tuple[float, float, float]
    measured: tuple[float, float, float] | None = None
    delta_e: float | None = None
    left_out_delta_e: float | None = None
    sigma: float = 0.0
    fault: str = ""


class ColourModel(Model):
    """Camera R, G, B to linear Rec.709 with white D65.

    Output, per pixel: ``matrix @ terms(white_balance * rgb)``, with the terms r, g, b and, for the root
    polynomial, sqrt(rg), sqrt(gb), sqrt(rb). A neutral surface keeps its green signal, so the unit of the
    radiance stays; divided by ``white_level`` it is the reflectance factor under the light of the chart.

    Attributes
    ----------
    method : 'matrix' or 'root-polynomial'
    white_balance : (float, float, float)
        Gains that make a neutral grey; green is 1.
    matrix : ndarray (3, 3) or (3, 6), float64
        Rows R, G, B of the output.
    covariance : ndarray (n, n), n = matrix.size, or None
        Of ``matrix.ravel()``, from the noise of the patches and the misfit, at this white balance.
    white_level : float
        Green signal of a perfect diffuser where the chart was, in the unit of the image of the fit: good for
        pictures linearised by the same sensor model.
    illuminant : (float, float)
        Chromaticity of the white of the reference values; they were adapted to D65 (Bradford).
    reference : str
        The chart and the source of its values.
    patches : tuple of PatchResidual
    mean_delta_e, max_delta_e, cross_validated_delta_e : float
        CIEDE2000 over the patches used; the last with each patch left out in turn, mean.
    stray_light : float
        Light added to every patch, as a share of the white's, that the greys tell of (not corrected).
    unevenness : float or None
        Range of the light over the chart, relative, as the slopes inside the patches tell (not corrected);
        None where they do not.
    corners : ndarray (4, 2) or None, px
        Where the chart was: dark skin, bluish green, black, white.
    picture : ndarray (h, w, 3), float32, or None
        Small linear copy of the view of the chart, camera colours, 1 at the white; for the report.
    outlines : ndarray (24, 4, 2) or None, px of ``picture``
        The parts of the patches that were read.

    Notes
    -----
    Valid for the light of the chart, and for surfaces whose spectra are like the chart's: a camera whose
    channels are no mix of the eye's sees some colours alike that the eye tells apart, and no matrix mends
    that. Both forms are homogeneous: exposure scales the output and nothing else. G. D. Finlayson,
    M. Mackiewicz, A. Hurlbert, "Color correction using root-polynomial regression", IEEE TIP 24 (2015),
    doi:10.1109/TIP.2015.2405336.
    """

    kind: Literal["colour"] = "colour"
    method: Method = "matrix"
    white_balance: tuple[float, float, float]
    matrix: Array
    covariance: Array | None = None
    white_level: float = Field(gt=0)
    illuminant: tuple[float, float]
    reference: str
    patches: tuple[PatchResidual, ...] = ()
    mean_delta_e: float
    max_delta_e: float
    cross_validated_delta_e: float
    stray_light: float = 0.0
    unevenness: float | None = None
    corners: Array | None = None
    picture: Array | None = None
    outlines: Array | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        want = (3, TERMS[self.method])
        if self.matrix.shape != want or not np.isfinite(self.matrix).all():
            raise ValueError(f"matrix has shape {self.matrix.shape}, a {self.method} wants {want}, finite")
        if self.covariance is not None and self.covariance.shape != (self.matrix.size,) * 2:
            raise ValueError(f"covariance has shape {self.covariance.shape}, want {(self.matrix.size,) * 2}")
        if min(self.white_balance) <= 0:
            raise ValueError("white_balance wants three positive gains")
        return self

    @property
    def luminance(self) -> tuple[float, float, float]:
        """Weights of R, G, B of the output in luminance."""
        red, green, blue = rgb_to_xyz()[1].tolist()
        return red, green, blue

    @property
    def attributes(self) -> dict[str, Any]:
        """What an EXR of corrected radiance says of its colours."""
        return {
            "chromaticities": REC709_CHROMATICITIES,
            "colourSpace": "linear Rec.709 (primaries of sRGB), white D65",
            "colourMethod": self.method,
        }

    def correct(self, radiance: Radiance) -> Radiance:
        """Radiance in linear Rec.709.

        Parameters
        ----------
        radiance : Radiance, (h, w, 3)
            Of the camera; of a mosaic, after ``demosaic``.

        Returns
        -------
        Radiance, (h, w, 3), float32
            Value in the unit that came in; not clipped, so that colours outside the space are negative. A
            pixel is NaN in all channels where it was in one. The variance is that of the pixel's noise, to
            first order, its channels taken as independent; the covariance of ``matrix`` is common to all
            pixels and not added.

        Raises
        ------
        ValueError
            No image of three channels.
        """
        value, variance = radiance
        if value.ndim != 3 or value.shape[2] != 3 or variance.shape != value.shape:
            raise ValueError(f"colour correction wants R, G, B (h, w, 3), this image has {value.shape}")
        out = np.empty(value.shape, np.float32)
        spread = np.empty(value.shape, np.float32)
        gains = np.array(self.white_balance, np.float32)
        matrix = np.asarray(self.matrix, np.float32)
        linear = matrix[:, :3] * gains
        for row in range(0, len(value), _ROWS_AT_ONCE):
            rows = slice(row, row + _ROWS_AT_ONCE)
            rgb, var = np.asarray(value[rows], np.float32), np.asarray(variance[rows], np.float32)
            if self.method == "matrix":
                out[rows], spread[rows] = rgb @ linear.T, var @ (linear * linear).T
            else:
                out[rows], spread[rows] = _rooted(rgb * gains, var * (gains * gains), matrix)
        return Radiance(out, spread)

    def apply(self, rgb: NDArray[Any]) -> Float:
        """Linear Rec.709 (..., 3), float64, of camera colours (..., 3); no noise is followed."""
        return expand(np.asarray(rgb, np.float64) * self.white_balance, self.method) @ self.matrix.T


def expand(rgb: NDArray[F], method: Method) -> NDArray[F]:
    """Terms (..., 3 or 6) of balanced colours (..., 3); a root of what noise made negative is 0."""
    if method == "matrix":
        return rgb
    positive = np.maximum(rgb, 0)
    r, g, b = np.moveaxis(positive, -1, 0)
    return np.concatenate([rgb, np.stack([np.sqrt(r * g), np.sqrt(g * b), np.sqrt(r * b)], axis=-1)], axis=-1)


def _rooted(
    rgb: NDArray[np.float32], variance: NDArray[np.float32], matrix: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    terms = expand(rgb, "root-polynomial")
    # The slope of a root has no end at zero; the noise lets no pixel come nearer than its sigma.
    level = np.maximum(rgb, np.sqrt(variance))
    root = np.sqrt(np.where(level > 0, level, np.float32(1)))
    spread = np.zeros_like(rgb)
    for channel in range(3):
        slope = np.broadcast_to(matrix[:, channel], rgb.shape).copy()
        for term, (first, second) in enumerate(((0, 1), (1, 2), (0, 2)), start=3):
            if channel in (first, second):
                other = second if channel == first else first
                slope += matrix[:, term] * (0.5 * root[..., other] / root[..., channel])[..., None]
        spread += slope * slope * variance[..., channel, None]
    return np.asarray(terms @ matrix.T, np.float32), spread
