"""How a run behaves, whatever its plan."""

from pydantic import Field

from capture.plan import Record


class RunSettings(Record):
    """How a run behaves, whatever its plan. The journal has them.

    Attributes
    ----------
    retries : int
        How often a failed shot is tried again.
    exposure_tolerance : float
        Largest relative difference of reported and requested exposure.
    held_bytes : int
        Most pixels of a hardware-timed sequence: they wait until the count of its exposures has been checked.
    compress : bool
        Write frames compressed, without loss.
    patience_s : float
        How long a device that is not ready (an open door, heat) is waited for, in the dark.
    """

    retries: int = Field(default=2, ge=0)
    exposure_tolerance: float = Field(default=0.01, ge=0)
    held_bytes: int = Field(default=256 * 2**20, ge=0)
    compress: bool = False
    patience_s: float = Field(default=10.0, ge=0)
