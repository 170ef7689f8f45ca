"""DMX512 lights: over an ENTTEC DMX USB Pro, Art-Net or sACN (E1.31)."""

from capture.drivers.dmx.lights import ArtNetLightConfig, EnttecLightConfig, SacnLightConfig
from capture.drivers.dmx.lines import survey_artnet, survey_enttec, survey_sacn

__all__ = [
    "ArtNetLightConfig",
    "EnttecLightConfig",
    "SacnLightConfig",
    "survey_artnet",
    "survey_enttec",
    "survey_sacn",
]
