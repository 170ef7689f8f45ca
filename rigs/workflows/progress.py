"""Progress of long loops."""

from calibration.progress import Counted, Track, silent

__all__ = ["Counted", "Track", "silent"]
