"""The data sheet of a sensor after EMVA 1288: what was measured, beside the model that uses it."""

from pydantic import Field

from calibration.provenance import Array, Model


class NonUniformity(Model):
    """Spatial standard deviation of the pixels, temporal noise removed, and its parts.

    Attributes
    ----------
    total, row, column, pixel : float
        In the unit that the owner states; ``total**2 = row**2 + column**2 + pixel**2``. A part whose variance
        came out below zero, within its noise, is 0.
    sigma : float
        One-sigma uncertainty of ``total``.
    raw : float
        ``total`` of the image as it is, before low frequencies (vignetting, shading) were taken out: what
        EMVA 1288 up to release 3.1 states.
    """

    total: float = Field(ge=0)
    row: float = Field(ge=0)
    column: float = Field(ge=0)
    pixel: float = Field(ge=0)
    sigma: float = Field(default=0.0, ge=0)
    raw: float = Field(ge=0)


class SensorSheet(Model):
    """Parameters of EMVA Standard 1288, Release 4.0 Linear, as far as the series gave them.

    None is a number that the series could not give. Photons are those of ``photons_per_s``.

    Attributes
    ----------
    temperature_c, wavelength_nm, pixel_pitch_um : float or None
        Conditions, as told.
    quantum_efficiency_percent, quantum_efficiency_sigma_percent : float or None
        Electrons per photon; wants photons.
    responsivity_dn_per_photon : float or None
    dark_noise_dn, dark_noise_e : float
        Temporal dark noise at the shortest exposure: sigma_y.dark, and sigma_d without the quantisation.
    threshold_e, threshold_photons : float, float or None
        Absolute sensitivity threshold: the signal at which the SNR is 1.
    saturation_e, saturation_photons : float, float or None
        Saturation capacity: where the temporal variance is greatest.
    snr_max, dynamic_range : float
        Ratios, not dB.
    linearity_error_percent : float or None
        Mean absolute relative deviation from the line through 5..95 % of saturation.
    linearity_error_min_percent, linearity_error_max_percent : float or None
        Its greatest deviations to either side.
    dark_current_e_s, dark_current_from_variance_e_s : float or None
        From the mean, and from the variance, of the darks against exposure.
    dark_doubling_c : float or None
        Temperature interval in which the dark current doubles; wants darks at several temperatures.
    dsnu_e : NonUniformity or None, e-
    prnu_percent : NonUniformity or None, percent of the mean
    levels : ndarray (n, 7), float64
        One row an exposure, means over all good pixels: exposure_s, photons (NaN where not told), mean DN,
        mean dark DN, temporal variance DN^2, temporal dark variance DN^2, used in the fit of K (1) or
        not (0).
    linearity : ndarray (n, 2), float64 or None
        Exposure_s (or photons) and relative deviation in percent, within the range of the fit.
    spectrogram : ndarray (k, 5), float64 or None
        Frequency in cycles/px, then the standard deviation a frequency band of: dark rows, dark columns (e-),
        bright rows, bright columns (percent).
    profile_rows, profile_columns : ndarray (n, 4), float64 or None
        Mean, minimum, maximum of the bright image over its lines, in percent of the mean, and the mean of the
        dark image, DN.
    histograms : ndarray (m, 4), float64 or None
        Logarithmic histograms: deviation of the dark image in DN, its count, deviation of the bright image in
        percent, its count.
    dark_defects, bright_defects : ndarray (n, 3), float64 or None
        Row, column and deviation (DN; percent) of the pixels that stand out, the worst first.
    """

    temperature_c: float | None = None
    wavelength_nm: float | None = None
    pixel_pitch_um: float | None = None
    quantum_efficiency_percent: float | None = None
    quantum_efficiency_sigma_percent: float | None = None
    responsivity_dn_per_photon: float | None = None
    dark_noise_dn: float
    dark_noise_e: float
    threshold_e: float
    threshold_photons: float | None = None
    saturation_e: float
    saturation_photons: float | None = None
    snr_max: float
    dynamic_range: float
    linearity_error_percent: float | None = None
    linearity_error_min_percent: float | None = None
    linearity_error_max_percent: float | None = None
    dark_current_e_s: float | None = None
    dark_current_from_variance_e_s: float | None = None
    dark_doubling_c: float | None = None
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
