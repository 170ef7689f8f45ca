"""The sensor's model and data sheet from a session of flats and darks."""

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric import RadiometricModel, fit_sensor, irradiance
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.encoding import doubted, doubts_of
from rigs.workflows.evidence import refuse_nonlinear
from rigs.workflows.frames import of_kind, provenance_of, sensor_for

Float = NDArray[np.float64]


def calibrate_sensor(
    session: Session,
    *,
    camera: str | None = None,
    photons_per_s: float | None = None,
    wavelength_nm: float | None = None,
    pixel_pitch_um: float | None = None,
) -> RadiometricModel:
    """Photon transfer on the session's ``flat`` and ``dark`` frames, with the data sheet of EMVA 1288.

    Parameters
    ----------
    photons_per_s : float, optional
        Mean photons that a pixel receives in a second of the flats' light. Without it those that the session
        tells of each frame (``facts["photons"]``, from an import) hold; without either there is no quantum
        efficiency.
    wavelength_nm, pixel_pitch_um : float, optional
        Conditions, for the sheet.

    Raises
    ------
    FitError
        The frames are gamma-encoded, or as `fit_sensor` says.
    ConfigError
        ``photons_per_s`` for flats under several lights or levels; photons of the session that are none.
    """
    flats, darks = (of_kind(session, camera, kind) for kind in ("flat", "dark"))
    name = flats.records[0].shot.camera
    photons = _told_photons(session, flats) if photons_per_s is None else _photons(flats, photons_per_s)
    refuse_nonlinear(session, flats, sensor_for(session, flats, None), None, "photon transfer")
    options = {
        name: value
        for name, value in (
            ("photons_per_s", photons_per_s),
            ("wavelength_nm", wavelength_nm),
            ("pixel_pitch_um", pixel_pitch_um),
        )
        if value is not None
    }
    warmth = _temperatures(flats)
    model = fit_sensor(
        flats,
        flats.exposure_s,
        darks,
        darks.exposure_s,
        pixel_format=flats.pixel_format,
        photons=photons,
        dark_temperature_c=_temperatures(darks),
        temperature_c=None if warmth is None else float(np.mean(warmth)),
        wavelength_nm=wavelength_nm,
        pixel_pitch_um=pixel_pitch_um,
        gain_db=float(flats.gain_db[0]),
        provenance=provenance_of(session, **options),
    )
    # The linearity is measured here: what no tag says of a tone curve is no doubt.
    return doubted(model, doubts_of(session, name))


def photons_per_s(
    photons: float | None,
    irradiance_uw_cm2: float | None,
    wavelength_nm: float | None,
    pixel_pitch_um: float | None,
) -> float | None:
    """Photons a second and pixel, as told or from the irradiance; None where neither is.

    Raises
    ------
    ConfigError
        Both are told, one is not above 0, or the irradiance lacks wavelength or pitch.
    """
    for name, value in (
        ("--photons-per-s", photons),
        ("--irradiance-uW-cm2", irradiance_uw_cm2),
        ("--wavelength-nm", wavelength_nm),
        ("--pixel-pitch-um", pixel_pitch_um),
    ):
        if value is not None and not 0 < value < np.inf:
            raise ConfigError(f"{name} {value:g}: want a number above 0")
    if irradiance_uw_cm2 is None:
        return photons
    if photons is not None:
        raise ConfigError("--photons-per-s and --irradiance-uW-cm2 say the same: give one")
    if wavelength_nm is None or pixel_pitch_um is None:
        raise ConfigError("--irradiance-uW-cm2 wants --wavelength-nm and --pixel-pitch-um")
    return irradiance.photons_per_s(irradiance_uw_cm2, wavelength_nm, pixel_pitch_um)


def _told_photons(session: Session, flats: Stack) -> Float | None:
    """Photons of each flat as the session's facts have them; NaN where they do not say, None if nowhere."""
    told = session.facts.get("photons")
    if told is None:
        return None
    shots = len(session.plan.shots())
    try:
        every = np.array(told, np.float64)
        if every.shape != (shots,) or np.any(every <= 0):
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(
            f"{session.path / 'facts.json'}: photons: want {shots} entries, one a shot, each above 0 or null"
        ) from None
    values = every[[record.shot.index for record in flats.records]]
    return None if np.all(np.isnan(values)) else values


def _photons(flats: Stack, per_s: float) -> Float:
    lights = {tuple(sorted(record.shot.lights.items())) for record in flats.records}
    if len(lights) > 1:
        raise ConfigError(
            "flats under several lights or levels: one number of photons per second cannot hold"
        )
    return flats.exposure_s * per_s


def _temperatures(stack: Stack) -> Float | None:
    """Temperature of each frame, degrees Celsius, None unless the camera tells them all."""
    values = [record.temperature_c for record in stack.records]
    return None if any(value is None for value in values) else np.array(values, np.float64)


def describe_sensor(model: RadiometricModel) -> list[str]:
    """Lines that say what was measured: the model's own numbers, then those of the data sheet."""
    k, k_sigma = model.gain_dn_per_e, model.gain_sigma_dn_per_e
    lines = [
        f"gain {k:.5g} ± {k_sigma:.2g} DN/e-, "
        f"read noise {model.read_noise_e:.4g} ± {model.read_noise_sigma_e:.2g} e-, "
        f"black {model.black_dn:.5g} DN, saturated from {model.saturation_dn:.6g} DN, "
        f"dark current {model.dark_current_e_s:.3g} ± {model.dark_current_sigma_e_s:.2g} e-/s"
    ]
    sheet = model.sheet
    if sheet is None:
        return lines
    parts = [
        f"saturation capacity {sheet.saturation_e:.5g} e-",
        f"SNRmax {sheet.snr_max:.4g}",
        f"dynamic range {sheet.dynamic_range:.4g}",
    ]
    if sheet.quantum_efficiency_percent is not None:
        parts.insert(0, f"quantum efficiency {sheet.quantum_efficiency_percent:.4g} %")
    if sheet.linearity_error_percent is not None:
        parts.append(f"linearity error {sheet.linearity_error_percent:.2g} %")
    if sheet.dsnu_e is not None:
        parts.append(f"DSNU {sheet.dsnu_e.total:.3g} e-")
    if sheet.prnu_percent is not None:
        parts.append(f"PRNU {sheet.prnu_percent.total:.3g} %")
    return [*lines, "EMVA 1288: " + ", ".join(parts)]
