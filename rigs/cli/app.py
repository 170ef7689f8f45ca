"""The command itself: its groups, and how a fault becomes one line and an exit code."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rigs.cli.options import fail, say

_STOPPED = "stopped: what is not named above may not have been written"

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
"""What the system ends a program with: on purpose, with its terminal, with its console window."""

ENDED = {128 + number for number in _ENDING}
"""Exit codes of commands that the system ended."""

app = typer.Typer(
    name="gnomon",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Camera-rig capture and calibration. Start with `gnomon demo`.",
)
rig_app = typer.Typer(no_args_is_help=True, help="Rig files.")
session_app = typer.Typer(no_args_is_help=True, help="Captured sessions.")
import_app = typer.Typer(no_args_is_help=True, help="Foreign images in.")
calibrate_app = typer.Typer(no_args_is_help=True, help="Models from sessions.")
plan_app = typer.Typer(no_args_is_help=True, help="Plans from what was seen.")
export_app = typer.Typer(no_args_is_help=True, help="Models and results for other programs, training sets.")
app.add_typer(rig_app, name="rig")
app.add_typer(session_app, name="session")
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")
app.add_typer(calibrate_app, name="calibrate")
app.add_typer(plan_app, name="plan")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"gnomon {version('gnomon')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and a non-zero exit."""
    _open_standard_streams()
    # Idle threads of a compiled kernel that spin, OpenMP's habit, take the cores from all other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _left_when_ended():
            app(prog_name="gnomon")
    except KeyboardInterrupt:
        sys.exit(fail(_STOPPED, 130))
    except SystemExit as leaving:
        # typer makes a silent exit of an interrupt that no command answered itself
        silent = leaving.__context__
        if isinstance(silent, typer.Exit) and isinstance(silent.__cause__, KeyboardInterrupt):
            fail(_STOPPED, 130)
        if isinstance(leaving.code, int) and leaving.code in ENDED and not isinstance(silent, typer.Exit):
            fail(_STOPPED, leaving.code)
        raise
    except Exception as error:
        sys.exit(_ended_before(error) or _explain(error))


def _open_standard_streams() -> None:
    """Open what a shell has closed by ``<&-`` or ``2>&-``: else the next file or port takes its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


@contextmanager
def _left_when_ended() -> Iterator[None]:
    """Leave all contexts when the system ends the program: temporary files go, lights go dark."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = {}
    try:
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                former[number] = signal.signal(number, leave)
    except ValueError:  # not the main thread, which alone has signals
        pass
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _ended_before(error: BaseException) -> int | None:
    """The exit code where the system had ended the program: with a terminal goes what is said there."""
    reason = error.__context__
    while reason is not None:
        if isinstance(reason, SystemExit) and isinstance(reason.code, int) and reason.code in ENDED:
            return reason.code
        reason = reason.__context__
    return None


def _explain(error: Exception) -> int:
    from calibration.provenance import FitError
    from capture.devices import DeviceError, DeviceLost
    from capture.session import Busy, DiskFailed, SessionError
    from rigs.config import ConfigError

    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename is not None:
        path = Path(error.filename)
        there = next((place for place in path.parents if place.is_file()), path)
        return fail(f"{there}: is a file, want a folder", 2)
    if isinstance(error, OSError) and error.filename is not None:
        return fail(f"{error.filename}: {error.strerror}", 2)
    if isinstance(error, Busy):
        return fail(str(error), 7)
    if isinstance(error, DiskFailed):
        return fail(str(error), 6)
    if isinstance(error, ConfigError | SessionError | OSError):
        return fail(str(error), 2)
    if isinstance(error, DeviceLost):
        return fail(str(error), 5)
    if isinstance(error, DeviceError):
        return fail(str(error), 3)
    if isinstance(error, FitError):
        return fail(str(error), 4)
    raise error
