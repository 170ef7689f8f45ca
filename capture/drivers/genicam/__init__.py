"""Cameras of any maker through GenICam: harvesters, and the maker's GenTL producer (a ``.cti`` file).

`config` is what a rig file says, `producers` finds and opens the camera, `nodes` reads and writes its
features, `setup` brings them to where raw numbers come from, `stream` takes buffers, `camera` is what the
runner sees.
"""

from capture.drivers.genicam.config import GenicamCameraConfig
from capture.drivers.genicam.producers import survey

__all__ = ["GenicamCameraConfig", "survey"]
