"""``gnomon focus``: sharpness over the field, plane of focus, depth of field."""

from pathlib import Path
from typing import Annotated

import typer

from rigs.cli.app import app
from rigs.cli.options import (
    BoardOption,
    CameraOption,
    LensOption,
    ModelOut,
    RigOption,
    SensorOption,
    board_of,
    models_of,
    rig_config,
    say,
    track,
)


@app.command(
    epilog="Example: `gnomon focus out/focus --board 'checkerboard 9x6 20' --lens lens.json --volume 450,600 "
    "--out focus.json`"
)
def focus(
    session: Annotated[
        Path, typer.Argument(help="Session with `board` frames, the board moved through focus.")
    ],
    board: BoardOption = None,
    lens: LensOption = None,
    rig: RigOption = None,
    sensor: SensorOption = None,
    volume: Annotated[
        str | None,
        typer.Option(metavar="NEAR,FAR", help="Distances between which all must be sharp, mm."),
    ] = None,
    criterion: Annotated[
        str,
        typer.Option(
            metavar="PX",
            help="Circle of confusion that is sharp enough, px; or the share of the best MTF50 that must be "
            "left, such as 70%.",
        ),
    ] = "2",
    out: ModelOut = Path("focus.json"),
    camera: CameraOption = None,
) -> None:
    """Sharpness over the picture (MTF50), plane of focus and its tilt, and the depth of field.

    From the slanted edges of a board in many places, some out of focus. Needs linear frames and a lens model.
    """
    from capture.session import Session
    from rigs import workflows
    from rigs.config import ConfigError

    span = None if volume is None else workflows.parse_volume(volume)
    enough = workflows.parse_criterion(criterion)
    radiometric, view = models_of(rig, camera, sensor, lens, session)
    if view is None:
        raise ConfigError("no lens model: give --lens, or --rig with a pinned one")
    pattern = board_of(board, rig_config(rig))
    model = workflows.measure_focus(
        Session.open(session), pattern, view, sensor=radiometric, camera=camera, track=track
    )
    lines = list(workflows.describe_focus(model, view, volume_mm=span, criterion=enough))
    workflows.save(out, model, say)
    for line in lines:
        say(line)
