"""Running a plan: what is wrong with it before anything moves, and the only loop that touches hardware."""

from capture.runner.check import PlanCheck, check
from capture.runner.control import RunControl, exit_on_sigterm
from capture.runner.progress import RunEvent
from capture.runner.run import run
from capture.runner.settings import RunSettings

__all__ = ["PlanCheck", "RunControl", "RunEvent", "RunSettings", "check", "exit_on_sigterm", "run"]
