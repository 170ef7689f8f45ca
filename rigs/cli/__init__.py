"""The command line: argument parsing and exit codes only.

Every command imports what it needs when it runs, so that ``gnomon --help`` answers at once.
"""

import sys

try:
    from rigs.cli import (
        calibrate,
        cameras,
        exporting,
        focus,
        guide,
        importing,
        lights,
        planning,
        results,
        rig,
        target,
        timing,
        undistort,
    )
    from rigs.cli.app import app, main
except KeyboardInterrupt:  # these take the first tenth of a second, in which no command answers it yet
    print("gnomon: stopped", file=sys.stderr)
    sys.exit(130)

__all__ = [
    "app",
    "calibrate",
    "cameras",
    "exporting",
    "focus",
    "guide",
    "importing",
    "lights",
    "main",
    "planning",
    "results",
    "rig",
    "target",
    "timing",
    "undistort",
]
