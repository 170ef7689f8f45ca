"""Domes of LEDs on the controller whose firmware is in ``firmware/dome``."""

from capture.drivers.dome.lights import Dome, DomeLight, DomeLightConfig, survey

__all__ = ["Dome", "DomeLight", "DomeLightConfig", "survey"]
