"""Drivers: a module for each SDK, family of protocols or kind of person; the unions a rig file chooses from.

A configuration carries the limits of its device, so that a plan is checked with nothing opened, and opens
itself: ``config.open(name)`` gives a device to be entered at once. The SDK is imported inside ``open``.
"""

import sys
from typing import Annotated

from pydantic import Field

from capture.drivers import dmx, dome, gardasoft, opencv, strips, surveys
from capture.drivers.dmx import ArtNetLightConfig, EnttecLightConfig, SacnLightConfig
from capture.drivers.dome import DomeLightConfig
from capture.drivers.gardasoft import GardasoftLightConfig
from capture.drivers.genicam import GenicamCameraConfig
from capture.drivers.gphoto2 import GphotoCameraConfig
from capture.drivers.manual import ManualLightConfig
from capture.drivers.micromanager import MicroManagerCameraConfig
from capture.drivers.opencv import OpencvCameraConfig
from capture.drivers.pylon import PylonCameraConfig
from capture.drivers.replay import ReplayCameraConfig
from capture.drivers.simulated import SimulatedCameraConfig, SimulatedLightConfig
from capture.drivers.strips import AdalightConfig, WledConfig

CameraConfig = Annotated[
    SimulatedCameraConfig
    | ReplayCameraConfig
    | GenicamCameraConfig
    | PylonCameraConfig
    | GphotoCameraConfig
    | MicroManagerCameraConfig
    | OpencvCameraConfig,
    Field(discriminator="driver"),
]
"""Any camera a rig file can name; its ``driver`` key says which."""

LightConfig = Annotated[
    SimulatedLightConfig
    | ManualLightConfig
    | DomeLightConfig
    | EnttecLightConfig
    | ArtNetLightConfig
    | SacnLightConfig
    | AdalightConfig
    | WledConfig
    | GardasoftLightConfig,
    Field(discriminator="driver"),
]
"""Any light a rig file can name; its ``driver`` key says which."""


def survey() -> list[str]:
    """One line for each driver: what it finds here, or why it finds nothing."""
    person = "a person answers at this terminal" if sys.stdin.isatty() else "standard input is not a terminal"
    found = {
        "simulated": "cameras and lights of a truth: open any rig with --simulate TRUTH",
        "replay": "cameras that play a session or a folder of images",
        **surveys.ask(("genicam", "pylon", "gphoto2", "micromanager")),
        "opencv": opencv.survey(),
        "dome": dome.survey(),
        "enttec": dmx.survey_enttec(),
        "artnet": dmx.survey_artnet(),
        "sacn": dmx.survey_sacn(),
        "adalight": strips.survey_adalight(),
        "wled": strips.survey_wled(),
        "gardasoft": gardasoft.survey(),
        "manual": f"lights and poses changed by hand: {person}",
    }
    return [f"{driver:<13}{line}" for driver, line in found.items()]
