"""A person as a driver: lamps switched by hand, and the operator at the terminal."""

import sys
from typing import Literal, Self, TextIO

from capture.devices import DeviceError, LightLimits


class Terminal:
    """Where a person is asked and answers with Enter; standard input and error unless given others."""

    def __init__(self, reading: TextIO | None = None, writing: TextIO | None = None) -> None:
        self._reading = reading
        self._writing = writing

    def say(self, message: str) -> None:
        """Print a line."""
        print(message, file=self._writing or sys.stderr, flush=True)

    def expect(self, who: str, message: str) -> None:
        """Raise DeviceError where nobody could answer ``message``: standard input is not a terminal."""
        if not (self._reading or sys.stdin).isatty():
            raise DeviceError(
                who,
                f"cannot ask a person to {message!r}: standard input is not a terminal; "
                "run in a terminal, rehearse with --simulate TRUTH, or give the plan's block an empty prompt "
                "where nobody need do anything",
            )

    def ask(self, who: str, message: str) -> None:
        """Print ``message`` and wait for Enter.

        Raises
        ------
        DeviceError
            Nobody can answer: standard input is not a terminal, or it has ended. ``who`` asked.
        """
        self.expect(who, message)
        self.say(f"{message}, then press Enter")
        if not (self._reading or sys.stdin).readline():
            raise DeviceError(who, "nobody answers: standard input has ended")


class TerminalOperator:
    """The person at the terminal, who brings each pose about."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        self._terminal = terminal or Terminal()

    def show(self, pose: str, message: str) -> None:
        """Print the message and wait for Enter, unless it is empty; DeviceError where nobody can answer."""
        if message:
            self._terminal.ask("operator", message)

    def tell(self, message: str) -> None:
        """Print the message."""
        self._terminal.say(message)

    def expect(self, message: str) -> None:
        """Raise DeviceError where nobody could answer ``message``, as `show` would."""
        if message:
            self._terminal.expect("operator", message)


class ManualLightConfig(LightLimits):
    """A lamp that a person switches or moves; ``instruction`` replaces "switch on NAME"."""

    driver: Literal["manual"] = "manual"
    sequence: Literal[False] = False
    instruction: str | None = None

    def open(self, name: str) -> "ManualLight":
        """Return the lamp, taken to be dark."""
        return ManualLight(name, self.limits, self.instruction)


class ManualLight:
    """A lamp that a person switches. Taken to be dark when entered: nobody is asked for what is already so.

    Parameters
    ----------
    name : str
        Name in the rig file.
    limits : LightLimits
        What it can do.
    instruction : str, optional
        What the person is asked when it is to burn; "switch on NAME" without.
    terminal : Terminal, optional
        Where the person is.
    """

    def __init__(
        self, name: str, limits: LightLimits, instruction: str | None = None, terminal: Terminal | None = None
    ) -> None:
        self.name = name
        self.limits = limits
        self._instruction = instruction or f"switch on {name}"
        self._terminal = terminal or Terminal()
        self._level: float | None = None

    def set(self, level: float) -> None:
        """Ask the person, and return when it is so; DeviceError where nobody can answer."""
        if self._level is None:
            raise DeviceError(self.name, "is not open")
        if not 0 <= level <= 1:
            raise ValueError(f"{self.name}: level {level} is outside 0 to 1")
        if level == self._level:
            return
        if level == 0:
            message = f"switch off {self.name}"
        else:
            message = self._instruction + (f" at {level:.0%}" if level < 1 else "")
        self._terminal.ask(self.name, message)
        self._level = level

    def __enter__(self) -> Self:
        self._level = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        if self._level:
            self._terminal.say(f"switch off {self.name}")
        self._level = None
