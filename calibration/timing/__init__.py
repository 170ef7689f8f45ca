"""When a camera's rows are exposed after its trigger, and how its lights follow theirs."""

from calibration.timing.fit import fit_timing
from calibration.timing.model import LightTiming, TimingModel
from calibration.timing.rows import Rows, reduce_rows

__all__ = ["LightTiming", "Rows", "TimingModel", "fit_timing", "reduce_rows"]
