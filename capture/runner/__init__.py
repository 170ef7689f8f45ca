"""Running a plan: what is wrong with it before anything moves, and the only loop that touches hardware."""

from capture.runner.check import PlanCheck, check
from capture.runner.control import RunControl, exit_on_sigterm
from capture.runner.progress import RunEvent
from capture.runner.run import run

__all__ = ["PlanCheck", "RunControl", "RunEvent", "check", "exit_on_sigterm", "run"]
