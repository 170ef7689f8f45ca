"""The radiometric model of one camera at one gain: DN <-> radiance, with the variance of every sample."""

import re
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from calibration.provenance import Array, FitError, Model, Provenance, Quality
from calibration.radiometric.sheet import SensorSheet
from calibration.radiometric.vignetting import Vignetting

Image = NDArray[np.float32]

_FORMAT = re.compile(r"(Mono|RGB|BayerRG|BayerGR|BayerGB|BayerBG)(8|10|12|14|16|32f)")
# Float images have no ceiling; a finite stand-in survives JSON, which has no infinity.
_UNLIMITED = float(np.finfo(np.float32).max)
QUANTISATION_DN2 = 1.0 / 12.0


class Radiance(NamedTuple):
    """Linear light of one frame or one merged stack.

    Attributes
    ----------
    value : ndarray (h, w) or (h, w, 3), float32, e-/s
        NaN where the sample is saturated, defective or missing.
    variance : ndarray, same shape, float32, (e-/s)^2
        NaN where ``value`` is.
    """

    value: Image
    variance: Image


class RadiometricModel(Model):
    """How one camera at one gain turns light into DN, after EMVA 1288 (linear) or through a response table.

    Expected DN of a linear camera, per pixel::

        dn = black_dn + dark_map + gain * exposure_s * (dark_current + dark_rate_map + flat_map * radiance)

    A map that is None is zero everywhere (``flat_map``: one). Maps have the shape of a frame: (h, w), or
    (h, w, 3) for RGB formats; Bayer mosaics are (h, w) like mono.

    Attributes
    ----------
    black_dn : float
        Mean dark level at exposure zero, DN.
    gain_dn_per_e : float
        K of EMVA 1288, DN per electron.
    read_noise_e : float
        Temporal dark noise at exposure zero, quantisation removed, e-.
    dark_current_e_s : float
        Mean dark current, e-/s.
    saturation_dn : float
        A sample at or above it is saturated.
    black_sigma_dn, gain_sigma_dn_per_e, read_noise_sigma_e, dark_current_sigma_e_s : float
        One-sigma uncertainties of the four; 0 where not known (see ``quality``).
    dark_map : ndarray or None, DN
        Offset of each pixel from ``black_dn``, mean zero over the good pixels.
    dark_rate_map : ndarray or None, e-/s
        Dark current of each pixel less ``dark_current_e_s``.
    flat_map : ndarray or None
        Relative response of each pixel, lens included; mean 1 over the central half of rows and columns,
        for each colour apart.
    vignetting : Vignetting or None
        Smooth part of ``flat_map``, as a formula; the map is what is applied.
    defects : ndarray of bool or None
        True: hot, dead or noisy. Such samples become NaN.
    dark_covariance : ndarray (2, 2) or None
        Covariance of one pixel's (``dark_map`` in e-, ``dark_rate_map`` in e-/s), from the frames they rest
        on.
    flat_sigma : float
        Relative one-sigma of one pixel of ``flat_map`` where it is 1. For float formats, where no electrons
        are counted, it is the relative sigma of every sample.
    response : ndarray (2**bits, 1 or 3) or None
        Non-linear cameras: DN -> relative exposure (radiance x exposure_s) of each channel, increasing.
        Scaled to nominal electrons; then black and gain do not enter ``linearize``.
    response_sigma : ndarray, shape of ``response``, or None
        Relative one-sigma of each entry of ``response``, but for the common scale; infinite where the scene
        did not constrain it.
    curve_noise_dn : float
        Noise that a non-linear camera adds after its curve, quantisation not counted, DN; ``read_noise_e`` is
        then what comes before the curve.
    exposures : ndarray (n, 3) or None
        Evidence of a response: reported exposure_s of each frame, the one that fits the frames, its relative
        one-sigma.
    sheet : SensorSheet or None
        What EMVA 1288 asks of a data sheet, as measured.
    photon_transfer : ndarray (n, 4) or None
        Evidence: exposure_s, mean DN, temporal variance DN^2, used in the fit of K (1) or not (0). One row an
        exposure and class of pixels of like brightness (and colour).
    linearity_error_percent : float or None
        Mean absolute relative deviation from the line through 5..95 % of saturation (EMVA 1288 Release 4.0,
        6.7).
    dsnu_e : float or None
        Spatial standard deviation of the dark, of models older than ``sheet``, which holds it now.
    prnu_percent : float or None
        Scatter of the good pixels of a flat that ``fit_flat`` measured about its smooth part, temporal noise
        removed; that of the sensor's own calibration is in ``sheet``.

    Notes
    -----
    Assumes shot noise is Poisson in electrons and read noise white; fails for images that were denoised,
    sharpened, tone-mapped or compressed with loss. EMVA Standard 1288, Release 4.0 Linear (2021). Map errors
    are common to all frames: ``replace(flat_sigma=0, dark_covariance=None)`` leaves the variance of repeated
    frames alone.
    """

    kind: Literal["radiometric"] = "radiometric"
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    pixel_format: str
    black_dn: float = 0.0
    gain_dn_per_e: float = Field(gt=0)
    read_noise_e: float = Field(ge=0)
    dark_current_e_s: float = Field(default=0.0, ge=0)
    saturation_dn: float
    black_sigma_dn: float = Field(default=0.0, ge=0)
    gain_sigma_dn_per_e: float = Field(default=0.0, ge=0)
    read_noise_sigma_e: float = Field(default=0.0, ge=0)
    dark_current_sigma_e_s: float = Field(default=0.0, ge=0)
    gain_db: float = 0.0
    dark_map: Array | None = None
    dark_rate_map: Array | None = None
    flat_map: Array | None = None
    vignetting: Vignetting | None = None
    defects: Array | None = None
    dark_covariance: Array | None = None
    flat_sigma: float = Field(default=0.0, ge=0)
    response: Array | None = None
    response_sigma: Array | None = None
    curve_noise_dn: float = Field(default=0.0, ge=0)
    exposures: Array | None = None
    sheet: SensorSheet | None = None
    photon_transfer: Array | None = None
    linearity_error_percent: float | None = None
    dsnu_e: float | None = None
    prnu_percent: float | None = None
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bits = sample_bits(self.pixel_format)
        if self.saturation_dn <= self.black_dn:
            raise ValueError(f"saturation_dn {self.saturation_dn:g} is not above black_dn {self.black_dn:g}")
        for name in ("dark_map", "dark_rate_map", "flat_map", "defects"):
            value = getattr(self, name)
            if value is not None and value.shape != self.shape:
                raise ValueError(f"{name} has shape {value.shape}, the frames have {self.shape}")
        if self.vignetting is not None and (self.vignetting.height, self.vignetting.width) != self.shape[:2]:
            raise ValueError(f"vignetting is of {self.vignetting.shape}, the frames have {self.shape}")
        if self.defects is not None and self.defects.dtype != np.bool_:
            raise ValueError(f"defects has dtype {self.defects.dtype}, want bool")
        if self.dark_covariance is not None and self.dark_covariance.shape != (2, 2):
            raise ValueError(f"dark_covariance has shape {self.dark_covariance.shape}, want (2, 2)")
        if self.response is not None:
            if bits is None or self.response.ndim != 2 or self.response.shape[0] != 2**bits:
                raise ValueError(
                    f"response has shape {self.response.shape}, want one row a DN of {self.pixel_format}"
                )
            if self.response.shape[1] not in (1, *self.shape[2:]):
                raise ValueError(
                    f"response has {self.response.shape[1]} channels, {self.pixel_format} needs 1 or 3"
                )
            if not np.all(np.isfinite(self.response)) or np.any(np.diff(self.response, axis=0) <= 0):
                raise ValueError("response must be finite and increase with DN")
        if self.response_sigma is not None and (
            self.response is None or self.response_sigma.shape != self.response.shape
        ):
            raise ValueError(f"response_sigma has shape {self.response_sigma.shape}, want that of response")
        return self

    @classmethod
    def nominal(
        cls,
        pixel_format: str,
        shape: tuple[int, ...],
        *,
        black_dn: float = 0.0,
        saturation_dn: float | None = None,
        full_scale_dn: float | None = None,
        full_well_e: float = 10_000.0,
        read_noise_dn: float = 1.0,
        gain_db: float = 0.0,
        provenance: Provenance = Provenance(),  # noqa: B008 - frozen value
    ) -> Self:
        """Model of a linear camera that nobody calibrated, for images brought in from elsewhere.

        Parameters
        ----------
        pixel_format : str
            PFNC name; float formats (``Mono32f``, ``RGB32f``) get radiance = value / exposure_s.
        shape : tuple
            Of a frame, (h, w) or (h, w, 3).
        black_dn : float
            DN of no light.
        saturation_dn : float, optional
            First saturated DN. Default: full scale, 2**bits - 1; none for float formats.
        full_scale_dn : float, optional
            DN at which the full well is reached. Default: where it saturates; 12-bit samples in 16-bit files
            that nowhere saturate say so here.
        full_well_e : float
            Electrons from black to there: the conservative guess that sets the shot noise. Not used for
            floats.
        read_noise_dn : float
            For float formats counted in thousandths of 1.0, with 1 % of the value beside it.
        gain_db : float
            Recorded with the model.
        provenance : Provenance
            Recorded with the model.

        Returns
        -------
        RadiometricModel
            With verdict 'doubtful' and a warning that its sigmas are nominal.

        Raises
        ------
        ValueError
            Unknown pixel format, or a shape that does not fit it.
        """
        bits = sample_bits(pixel_format)
        if (
            len(shape) not in (2, 3)
            or (len(shape) == 3) != pixel_format.startswith("RGB")
            or shape[2:] not in ((), (3,))
        ):
            raise ValueError(f"a {pixel_format} frame cannot have shape {shape}")
        noise: dict[str, float]
        if bits is None:
            noise = {"gain_dn_per_e": 1.0, "read_noise_e": 1e-3 * read_noise_dn, "flat_sigma": 0.01}
            top = _UNLIMITED
        else:
            top = 2.0**bits - 1
            scale = full_scale_dn or (top if saturation_dn is None else saturation_dn)
            gain = (scale - black_dn) / full_well_e
            noise = {"gain_dn_per_e": gain, "read_noise_e": read_noise_dn / gain}
        warning = "no sensor calibration: linear response and black level are assumed, sigmas are nominal"
        return cls(
            width=shape[1],
            height=shape[0],
            pixel_format=pixel_format,
            black_dn=black_dn,
            saturation_dn=top if saturation_dn is None else saturation_dn,
            gain_db=gain_db,
            quality=Quality(
                residual_rms=0.0, unit="DN", observations=0, verdict="doubtful", warnings=(warning,)
            ),
            provenance=provenance,
            **noise,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one frame: (h, w), or (h, w, 3) for RGB formats."""
        return (self.height, self.width, *((3,) if self.pixel_format.startswith("RGB") else ()))

    @property
    def counts_electrons(self) -> bool:
        """False for float formats, whose values carry no shot noise that could be known."""
        return sample_bits(self.pixel_format) is not None

    def linearize(self, dn: NDArray[Any], exposure_s: float) -> Radiance:
        """Radiance of one frame with its variance.

        Parameters
        ----------
        dn : ndarray, the model's shape, any real dtype
            Raw DN (or the mean of several frames, whose variance is then smaller than given).
        exposure_s : float
            Seconds.

        Returns
        -------
        Radiance
            e-/s after black, dark, gain (or response) and flat; saturated, defective and NaN samples are NaN.
            Variance: shot noise of light and dark current, read noise, quantisation, uncertainty of the maps.
            The shot noise is taken at the sample itself, so it is right on average but not for weighting
            samples of one pixel against each other: that is ``merge``.

        Raises
        ------
        ValueError
            Another size than the model's, or an exposure that is not positive.
        """
        check_exposure(exposure_s)
        electrons, floor = self.electrons(dn)
        shot = electrons if self.counts_electrons else np.float32(0)
        # A dark sample below zero must not lower the variance without limit, nor be cut at zero, which
        # biases.
        variance = np.maximum(shot + floor, 0.5 * floor)
        variance[np.isnan(electrons)] = np.nan
        t = np.float32(exposure_s)
        return self.correct(electrons / t, variance / (t * t), 1 / t)

    def expose(self, radiance: ArrayLike, exposure_s: float) -> Image:
        """Expected DN of a radiance.

        Parameters
        ----------
        radiance : array_like, the shape of a frame, or a scalar
            e-/s.
        exposure_s : float
            Seconds.

        Returns
        -------
        ndarray, float32
            Not quantised; clipped at ``saturation_dn``. NaN where the radiance is.
        """
        check_exposure(exposure_s)
        value = np.broadcast_to(np.asarray(radiance, np.float32), self.shape)
        rate = value if self.flat_map is None else value * self.flat_map.astype(np.float32)
        return self.dn_of((rate + self._dark_rate()) * np.float32(exposure_s))

    def dn_of(self, electrons: Image) -> Image:
        """Expected DN of electrons collected in each pixel, clipped at saturation."""
        if self.response is None:
            dn = np.asarray(electrons * np.float32(self.gain_dn_per_e) + self._offset_dn(), np.float32)
        else:
            dn = np.empty(self.shape, np.float32)
            codes = np.arange(len(self.response), dtype=np.float64)
            for channel, table in self._channels():
                dn[channel] = np.interp(electrons[channel], table, codes)
        return np.minimum(dn, np.float32(self.saturation_dn))

    def electrons(self, dn: NDArray[Any]) -> tuple[Image, Image]:
        """Electrons collected in each pixel, and their variance in e-^2 but for the shot noise.

        Dark current still inside, flat not applied; NaN where saturated, defective or not finite.
        """
        if dn.shape != self.shape:
            raise ValueError(f"frame has shape {dn.shape}, the radiometric model is for {self.shape}")
        if self.response is None:
            electrons = np.subtract(dn, self._offset_dn(), dtype=np.float32)
            electrons *= np.float32(1 / self.gain_dn_per_e)
            floor = np.broadcast_to(np.float32(self.noise_dn2 / self.gain_dn_per_e**2), self.shape)
        else:
            electrons, floor = np.empty(self.shape, np.float32), np.empty(self.shape, np.float32)
            for channel, table in self._channels():
                electrons[channel], slope = look_up(table, dn[channel])
                floor[channel] = slope**2 * self.noise_dn2 + np.float32(self.read_noise_e**2)
        invalid = ~(dn < self.saturation_dn)
        if self.defects is not None:
            invalid |= self.defects
        electrons[invalid] = np.nan
        return electrons, floor

    @property
    def noise_dn2(self) -> float:
        """Variance of a sample without light, DN^2: read noise and, for integer formats, quantisation.

        With a response, what comes after the curve only.
        """
        added = self.read_noise_e * self.gain_dn_per_e if self.response is None else self.curve_noise_dn
        return added**2 + self.counts_electrons * QUANTISATION_DN2

    def correct(self, rate: Image, variance: Image, inverse_exposure: ArrayLike) -> Radiance:
        """Radiance from electrons per second: dark current off, flat applied, uncertainty of the maps added.

        Parameters
        ----------
        rate, variance : ndarray, float32
            e-/s and (e-/s)^2, before dark current and flat.
        inverse_exposure : float or ndarray
            Weighted mean of 1 / exposure_s over the samples of each pixel: how an error of the offset map
            enters.
        """
        value: NDArray[Any] = rate - self._dark_rate()
        total: NDArray[Any] = variance
        if self.dark_covariance is not None:
            (c00, c01), (_, c11) = np.asarray(self.dark_covariance, np.float32)
            inverse = np.asarray(inverse_exposure, np.float32)
            total = total + ((c00 * inverse + 2 * c01) * inverse + c11)
        if self.flat_map is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.where(self.flat_map > 0, 1 / self.flat_map, np.nan).astype(np.float32)
            value, total = value * scale, total * scale * scale
        else:
            scale = np.ones(1, np.float32)
        if self.flat_sigma > 0:
            total = total + np.float32(self.flat_sigma**2) * value * value * scale
        return Radiance(np.asarray(value, np.float32), np.asarray(total, np.float32))

    def _offset_dn(self) -> Image | np.float32:
        black = np.float32(self.black_dn)
        return black if self.dark_map is None else np.asarray(black + self.dark_map, np.float32)

    def _dark_rate(self) -> Image | np.float32:
        mean = np.float32(self.dark_current_e_s)
        return mean if self.dark_rate_map is None else np.asarray(mean + self.dark_rate_map, np.float32)

    def _channels(self) -> list[tuple[Any, NDArray[np.float64]]]:
        assert self.response is not None
        table = np.asarray(self.response, np.float64)
        if table.shape[1] == 1:
            return [(..., table[:, 0])]
        return [((..., c), table[:, c]) for c in range(3)]


def look_up(table: NDArray[np.float64], dn: NDArray[Any]) -> tuple[Image, Image]:
    """Value and slope of a response table at DN, linear between codes."""
    codes = np.arange(len(table))
    # A fitted curve may lie flat at its dark end, where it is not known; the samples there are not that sure.
    slope = np.maximum(np.gradient(table), 0.5 * table / (codes + 1))
    if dn.dtype.kind in "ui":
        return table.astype(np.float32)[dn], slope.astype(np.float32)[dn]
    return np.interp(dn, codes, table).astype(np.float32), np.interp(dn, codes, slope).astype(np.float32)


def sample_bits(pixel_format: str) -> int | None:
    """Bits of one sample of a PFNC pixel format, None for float.

    Raises
    ------
    ValueError
        Unknown name.
    """
    match = _FORMAT.fullmatch(pixel_format)
    if match is None:
        raise ValueError(
            f"pixel format {pixel_format!r}: want Mono, RGB or BayerXX and 8, 10, 12, 14, 16 or 32f"
        )
    return None if match[2] == "32f" else int(match[2])


def check_exposure(exposure_s: float) -> None:
    """Refuse an exposure that is not a positive number."""
    if not (np.isfinite(exposure_s) and exposure_s > 0):
        raise ValueError(f"exposure_s is {exposure_s}: want a positive number of seconds")


def checked_exposures(what: str, count: int, exposure_s: ArrayLike) -> NDArray[np.float64]:
    """Exposures of ``count`` frames as an array, each a positive number.

    Raises
    ------
    FitError
        Begins with ``what``: exposures missing or too many, or the frame whose own is not positive.
    """
    exposure = np.asarray(exposure_s, np.float64)
    if exposure.shape != (count,):
        raise FitError(f"{what}: {count} frames but exposures of shape {exposure.shape}")
    bad = np.flatnonzero(~(np.isfinite(exposure) & (exposure > 0)))
    if len(bad):
        raise FitError(f"{what}: frame {bad[0]} has exposure {exposure[bad[0]]} s: want a positive number")
    return exposure
