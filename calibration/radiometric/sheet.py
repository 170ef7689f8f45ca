"""The data sheet of a sensor after EMVA 1288: what was measured, beside the model that uses it."""

from pydantic import Field

from calibration.provenance import Array, Model


class NonUniformity(Model):
    """Spatial standard deviation of the pixels, temporal noise removed, and its parts.

    Attributes
    ----------
    total, row, column, pixel : float
        In the unit that the owner states; ``total**2 = row**2 + column**2 + pixel**2``. Low frequencies
        (vignetting, shading) are taken out by the standard's high-pass, and what the high-pass takes of white
        rows, columns and pixels is given back; defects are left out: EMVA 1288 Release 4.0. A part whose
        variance came out below zero, within its noise, is 0.
    sigma : float
        One-sigma uncertainty of ``total``.
    raw : float
        Of the image as it is, low frequencies and every pixel counted: EMVA 1288 up to Release 3.1.
    raw_sigma : float
        One-sigma uncertainty of ``raw``.
    """

    total: float = Field(ge=0)
    row: float = Field(ge=0)
    column: float = Field(ge=0)
    pixel: float = Field(ge=0)
    sigma: float = Field(default=0.0, ge=0)
    raw: float = Field(ge=0)
    raw_sigma: float = Field(default=0.0, ge=0)


class SensorSheet(Model):
    """Parameters of EMVA Standard 1288, Release 4.0 Linear, as far as the series gave them.

    None is a number that the series could not give. The system gain is the model's ``gain_dn_per_e``. Each
    ``*_sigma*`` is the one-sigma uncertainty of the number it is named after, from the noise of the frames
    alone: the uncertainty of the photons told, commonly 3 %, comes on top.

    Attributes
    ----------
    temperature_c, wavelength_nm, pixel_pitch_um : float or None
        Conditions, as told.
    quantum_efficiency_percent, quantum_efficiency_sigma_percent : float or None
        Electrons per photon; wants photons.
    responsivity_dn_per_photon, responsivity_sigma_dn_per_photon : float or None
        Slope of the mean signal with the photons, through zero, up to 70 % of saturation.
    dark_noise_dn, dark_noise_e, dark_noise_sigma_e : float
        Temporal dark noise at exposure zero: sigma_y.dark in DN with the 1/12 DN^2 of the quantisation, and
        sigma_d without.
    threshold_e, threshold_photons : float, float or None
        Absolute sensitivity threshold: the signal at which the SNR is 1.
    saturation_dn : float
        Mean DN at the saturation point: where the temporal variance is greatest.
    saturation_e, saturation_photons : float, float or None
        Saturation capacity: electrons and photons at the saturation point, on the line of the responsivity.
    saturation_reached : bool
        Whether the variance fell beyond its maximum. If not, the capacity is a lower limit.
    snr_max, dynamic_range : float
        Ratios, not dB.
    linearity_error_percent, linearity_error_sigma_percent : float or None
        Release 4.0: mean absolute relative deviation from the line through 5..95 % of saturation.
    linearity_error_min_percent, linearity_error_max_percent : float or None
        Release 3.1: the greatest deviations to either side of the same line.
    dark_current_e_s, dark_current_sigma_e_s : float or None
        From the mean of the darks against exposure.
    dark_current_from_variance_e_s, dark_current_from_variance_sigma_e_s : float or None
        From their temporal variance. Below zero, within its noise, where there is next to none.
    dark_doubling_c, dark_doubling_sigma_c : float or None
        Temperature interval in which the dark current doubles; wants darks at several temperatures.
    dsnu_e : NonUniformity or None, e-
    prnu_percent : NonUniformity or None, percent of the mean
    levels : ndarray (n, 7), float64
        One row an exposure, means over all good pixels: exposure_s, photons (NaN where not told), mean DN,
        mean dark DN, temporal variance DN^2, temporal dark variance DN^2 (NaN where no darks give it), used
        in the fit of K (1) or not (0).
    linearity : ndarray (n, 2), float64 or None
        Photons (exposure_s where not told) and relative deviation in percent, within the range of the fit.
    spectrogram : ndarray (k, 5), float64 or None
        Frequency in cycles/px, then the square root of the mean power spectrum of: dark rows, dark columns
        (e-), bright rows, bright columns (percent). White nonuniformity of s is s at every frequency; the
        temporal noise that is left in the averaged image is within.
    profile_rows, profile_columns : ndarray (n, 4), float64 or None
        Mean, minimum, maximum of the bright image over each row (column), in percent of its mean, and the
        mean of the dark image, DN.
    histograms : ndarray (m, 4), float64 or None
        Logarithmic histograms of the high-passed images: deviation of the dark image in DN, its count,
        deviation of the bright image in percent, its count.
    dark_defects, bright_defects : ndarray (n, 3), float64 or None
        Row, column and deviation (DN; percent) of the pixels that stand out, the worst first, at most 1000.
    """

    temperature_c: float | None = None
    wavelength_nm: float | None = None
    pixel_pitch_um: float | None = None
    quantum_efficiency_percent: float | None = None
    quantum_efficiency_sigma_percent: float | None = None
    responsivity_dn_per_photon: float | None = None
    responsivity_sigma_dn_per_photon: float | None = None
    dark_noise_dn: float
    dark_noise_e: float
    dark_noise_sigma_e: float = 0.0
    threshold_e: float
    threshold_photons: float | None = None
    saturation_dn: float | None = None
    saturation_e: float
    saturation_photons: float | None = None
    saturation_reached: bool = True
    snr_max: float
    dynamic_range: float
    linearity_error_percent: float | None = None
    linearity_error_sigma_percent: float | None = None
    linearity_error_min_percent: float | None = None
    linearity_error_max_percent: float | None = None
    dark_current_e_s: float | None = None
    dark_current_sigma_e_s: float | None = None
    dark_current_from_variance_e_s: float | None = None
    dark_current_from_variance_sigma_e_s: float | None = None
    dark_doubling_c: float | None = None
    dark_doubling_sigma_c: float | None = None
    dsnu_e: NonUniformity | None = None
    prnu_percent: NonUniformity | None = None
    levels: Array
    linearity: Array | None = None
    spectrogram: Array | None = None
    profile_rows: Array | None = None
    profile_columns: Array | None = None
    histograms: Array | None = None
    dark_defects: Array | None = None
    bright_defects: Array | None = None
