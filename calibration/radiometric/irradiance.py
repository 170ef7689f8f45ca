"""From what a light meter reads to the photons that a pixel receives."""

_PLANCK_J_S = 6.62607015e-34
_LIGHT_M_S = 299_792_458.0


def photons_per_s(irradiance_uw_cm2: float, wavelength_nm: float, pixel_pitch_um: float) -> float:
    """Mean number of photons that reach a pixel in a second.

    Parameters
    ----------
    irradiance_uw_cm2 : float
        At the sensor's plane, uW/cm^2.
    wavelength_nm : float
        Centre of the light's narrow band.
    pixel_pitch_um : float
        Side of the square pixel; its whole area counts, whatever share of it is sensitive.

    Returns
    -------
    float

    Notes
    -----
    EMVA Standard 1288, Release 4.0 Linear (2021), equation 3: ``mu_p = 50.34 A t lambda E`` with A in um^2, t
    in ms, lambda in um and E in uW/cm^2, here with the exact constants of the SI. For one wavelength: a wide
    band wants the mean of E * lambda.

    Examples
    --------
    >>> round(photons_per_s(1.0, 1000.0, 1.0) / 1000, 2)
    50.34
    """
    joule = _PLANCK_J_S * _LIGHT_M_S / (wavelength_nm * 1e-9)
    watt = irradiance_uw_cm2 * 1e-2 * (pixel_pitch_um * 1e-6) ** 2
    return watt / joule
