"""Strobe controllers of Gardasoft, series RT and PP420, on a serial port or over TCP.

Written after their manuals, and never run on the hardware: tests know only an emulator made after the same
manuals. Source: user manuals of the RT200-20 and PP420 series, chapters "Command configuration".
"""

from capture.drivers.gardasoft.lights import GardasoftLight, GardasoftLightConfig, survey

__all__ = ["GardasoftLight", "GardasoftLightConfig", "survey"]
