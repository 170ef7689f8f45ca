"""DN to radiance with sigma: sensor calibration, exposure merge, camera response, demosaicing."""

from calibration.radiometric.demosaic import demosaic
from calibration.radiometric.flat import FlatField, fit_flat
from calibration.radiometric.flat_views import SceneFlat, fit_vignetting
from calibration.radiometric.merge import Packed, merge, merge_value
from calibration.radiometric.model import Radiance, RadiometricModel
from calibration.radiometric.response import fit_debevec, fit_response
from calibration.radiometric.sensor import fit_sensor
from calibration.radiometric.sheet import NonUniformity, SensorSheet
from calibration.radiometric.vignetting import Vignetting

__all__ = [
    "FlatField",
    "NonUniformity",
    "Packed",
    "Radiance",
    "RadiometricModel",
    "SceneFlat",
    "SensorSheet",
    "Vignetting",
    "demosaic",
    "fit_debevec",
    "fit_flat",
    "fit_response",
    "fit_sensor",
    "fit_vignetting",
    "merge",
    "merge_value",
]
