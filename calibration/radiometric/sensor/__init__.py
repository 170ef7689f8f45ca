"""A linear sensor from series of flats and darks, after EMVA 1288: photon transfer, maps, non-uniformity."""

from calibration.radiometric.sensor.fit import fit_sensor

__all__ = ["fit_sensor"]
