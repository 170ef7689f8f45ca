"""Several cameras: ``gnomon calibrate rig``, ``gnomon rig moved``, ``gnomon rig lights``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rigs.cli.app import calibrate_app, rig_app
from rigs.cli.options import (
    BoardOption,
    GeometryOption,
    ModelOut,
    RigOption,
    board_of,
    camera_models,
    geometry_of,
    rig_config,
    say,
    track,
)


@calibrate_app.command(
    "rig", epilog="Example: `gnomon calibrate rig out/boards --rig rig.yaml --out models/cameras.json`"
)
def calibrate_rig(
    session: Annotated[Path, typer.Argument(help="Session with `board` frames of two cameras or more.")],
    board: BoardOption = None,
    rig: RigOption = None,
    lens: Annotated[
        list[str] | None,
        typer.Option(
            "--lens", help="CAMERA=FILE (repeat): its lens. Else the pinned one, else found from the frames."
        ),
    ] = None,
    free_intrinsics: Annotated[
        bool, typer.Option("--free-intrinsics", help="Fit the given lenses anew, with the poses.")
    ] = False,
    reference: Annotated[
        str | None, typer.Option(help="Camera whose frame is the rig's: the first, if not given.")
    ] = None,
    known: Annotated[
        list[str] | None,
        typer.Option(
            help="A,B=RX,RY,RZ,TX,TY,TZ (repeat): p_B = R p_A + t, rotation vector in degrees, mm; for "
            "cameras that no board links."
        ),
    ] = None,
    lens_model: Annotated[
        Literal["auto", "brown-4", "brown-5", "brown-8", "fisheye"],
        typer.Option("--model", help="Of lenses found from the frames; auto: by cross-validation."),
    ] = "auto",
    warp: Annotated[bool, typer.Option("--warp", help="The board may be bent: fit its sag.")] = False,
    out: ModelOut = Path("cameras.json"),
) -> None:
    """Where all cameras of a rig stand in one metric frame, with covariance, from a board moved about.

    A pose's name ties together what was taken at once. Cameras that never see the board together are linked
    by those between them.
    """
    from capture.session import Session
    from rigs import workflows

    config = rig_config(rig)
    opened = Session.open(session)
    cameras = sorted({record.shot.camera for record in opened.frames})
    lenses, sensors = camera_models(rig, cameras, lens or [])
    if reference is None and config is not None:
        reference = next((name for name in config.cameras if name in cameras), None)
    model = workflows.calibrate_cameras(
        opened,
        board_of(board, config),
        lenses,
        sensors=sensors,
        intrinsics="free" if free_intrinsics else "fixed",
        reference=reference,
        known=dict(workflows.parse_known(text) for text in known or ()),
        model=lens_model,
        warp=warp,
        track=track,
    )
    workflows.save(out, model, say)
    for line in workflows.describe_cameras(model):
        say(line)


@rig_app.command("moved", epilog="Example: `gnomon rig moved out/boards-today --rig rig.yaml`")
def rig_moved(
    session: Annotated[Path, typer.Argument(help="Session with `board` frames, taken later.")],
    rig: RigOption = None,
    cameras: GeometryOption = None,
    board: BoardOption = None,
) -> None:
    """Which camera has moved, or had its lens touched, since the rig was calibrated.

    One line a camera. Exits with 1 when one has changed or cannot be told.
    """
    from capture.session import Session
    from rigs import workflows

    config = rig_config(rig)
    model = geometry_of(rig, cameras)
    _, sensors = camera_models(rig, sorted(model.cameras), [])
    changes = workflows.check_cameras(
        Session.open(session), board_of(board, config), model, sensors=sensors, track=track
    )
    for change in changes:
        say(f"{'ok' if change.kind == 'still' else 'warning':<8} {change.text}")
    if any(change.kind != "still" for change in changes):
        raise typer.Exit(1)


@rig_app.command(
    "lights", epilog="Example: `gnomon rig lights models/lights.json --rig rig.yaml --camera top --to left`"
)
def rig_lights(
    lights: Annotated[Path, typer.Argument(help="Lights as `calibrate lights` found them with one camera.")],
    camera: Annotated[str, typer.Option(help="The camera they were calibrated with.")],
    to: Annotated[
        str | None, typer.Option(help="The camera whose frame they are wanted in; the rig's reference.")
    ] = None,
    rig: RigOption = None,
    cameras: GeometryOption = None,
    out: ModelOut = Path("lights.json"),
) -> None:
    """Lights in another camera's frame: one calibration of the lights serves all cameras of a rig."""
    from rigs import workflows
    from rigs.interchange import read_light_set

    model = geometry_of(rig, cameras)
    moved = workflows.lights_seen_from(model, read_light_set(lights), camera, to or model.reference)
    workflows.save(out, moved, say)
