"""DN to radiance with sigma: sensor calibration, exposure merge, camera response, demosaicing."""

from calibration.radiometric.demosaic import demosaic
from calibration.radiometric.merge import merge
from calibration.radiometric.model import Radiance, RadiometricModel
from calibration.radiometric.response import fit_response
from calibration.radiometric.sensor import fit_sensor
from calibration.radiometric.sheet import NonUniformity, SensorSheet

__all__ = [
    "NonUniformity",
    "Radiance",
    "RadiometricModel",
    "SensorSheet",
    "demosaic",
    "fit_response",
    "fit_sensor",
    "merge",
]
