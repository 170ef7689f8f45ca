"""Commands of a strobe controller, and what it answers; no input or output here.

Lines of ASCII that end in a carriage return; a reply ends in ``>``, and may begin with its command.
"""

import math
import re
from dataclasses import dataclass

ERRORS = {
    1: "a value is not allowed",
    2: "the command is not known",
    3: "a number is not understood",
    4: "wrong number of values",
    5: "a time was out of range and has been changed",
}
"""What the number of an ``Err`` means."""

ADJUSTED = 5
"""The number of the only ``Err`` that is a warning: the command has been carried out, with another time."""

_ERROR = re.compile(r"Err\s*(\d+)")
# others, as the CC320, mean other things by the same commands
_MODEL = re.compile(r"\b(?:RT|PP)\d+\S*\s*\(HW")
_SETTING = re.compile(r"\b(SE|DL|PU)\s*([\d.]+)(us|ms|s)?")
_QUIET = re.compile(r"(Err\s*0)?")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

_REST_STEP_S = 1e-4

_DELAY_MIN_S = 5e-5
"""No controller's shortest delay is longer: what was asked to come at once may come so late."""

_OVERDRIVE = (
    (100.0, 0.999, 1.0),
    (200.0, 0.030, 0.3),
    (300.0, 0.010, 0.2),
    (500.0, 0.002, 0.1),
    (1000.0, 0.001, 0.05),
)
"""Brightness up to so many percent; longest pulse in s; largest duty."""


NO_INTERNAL_TRIGGER = "TT0"
"""The command that stops the clock with which a controller may trigger itself; not all have one."""


def steady(channel: int, percent: float) -> str:
    """Return the command that lets a channel burn; 0 makes it dark."""
    return f"RS{channel},{_number(percent)}"


@dataclass(frozen=True)
class Pulse:
    """What a channel does on each trigger: after ``delay_s``, for ``duration_s``, at ``percent``."""

    percent: float
    delay_s: float
    duration_s: float

    @property
    def longest_s(self) -> float:
        """How long a pulse of this brightness may last."""
        return self._limits[0]

    @property
    def rest_s(self) -> float:
        """Least time from one trigger to the next, in the controller's steps; 0 for any."""
        duty = self._limits[1]
        steps = math.ceil(self.duration_s / duty / _REST_STEP_S - 1e-6)
        return steps * _REST_STEP_S if duty < 1 else 0.0

    @property
    def _limits(self) -> tuple[float, float]:
        return next((longest, duty) for most, longest, duty in _OVERDRIVE if self.percent <= most)

    def command(self, channel: int) -> str:
        """Return the command; triggers that come before the rest is over are ignored."""
        values = [self.duration_s * 1e3, self.delay_s * 1e3, self.percent]
        if self.rest_s:
            values.append(self.rest_s * 1e3)
        return f"RT{channel}," + ",".join(map(_number, values))


@dataclass(frozen=True)
class Setting:
    """What a channel was told, or says that it is set to; None where it says nothing."""

    percent: float | None
    delay_s: float | None = None
    duration_s: float | None = None

    def follows(self, asked: "Setting") -> bool:
        """Whether this is what was asked, as far as both say."""
        pairs = (
            (self.percent, asked.percent, 0.1),
            (self.duration_s, asked.duration_s, 1e-6),
            (self.delay_s, asked.delay_s, _DELAY_MIN_S),
        )
        return all(
            abs(said - wanted) <= max(least, 0.005 * wanted)
            for said, wanted, least in pairs
            if said is not None and wanted is not None
        )

    def __str__(self) -> str:
        words = [f"{self.percent:g} %"] if self.percent is not None else []
        if self.duration_s is not None and self.delay_s is not None:
            words.append(f"{self.duration_s * 1e3:g} ms long after {self.delay_s * 1e3:g} ms")
        return ", ".join(words) or "another time"


def read_setting(reply: str) -> Setting:
    """Read the reply to ``ST`` of one channel."""
    said = {name: float(value) * _UNIT_S.get(unit, 1.0) for name, value, unit in _SETTING.findall(reply)}
    return Setting(said.get("SE"), said.get("DL"), said.get("PU"))


def read_error(reply: str) -> int:
    """Return the number of the error that a reply tells of, 0 where all is well."""
    error = _ERROR.search(reply)
    return int(error[1]) if error else 0


def is_quiet(reply: str) -> bool:
    """Whether the reply to ``GR`` tells of nothing: no error, and no event."""
    return _QUIET.fullmatch(reply) is not None


def is_identity(reply: str) -> bool:
    """Whether this is the reply to ``VR`` of such a controller."""
    return _MODEL.search(reply) is not None


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
