"""Pinned lights on another day: ``gnomon rig lights-moved``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rigs.cli.app import rig_app
from rigs.cli.options import (
    AlbedoOption,
    CameraOption,
    LensOption,
    MatteDiameterOption,
    MatteMaskOption,
    RigOption,
    SensorOption,
    SphereDiameterOption,
    lights_of,
    matte_of,
    models_of,
    rig_config,
    say,
    track,
)


@rig_app.command("lights-moved", epilog="Example: `gnomon rig lights-moved out/today --rig rig.yaml`")
def rig_lights_moved(
    session: Annotated[
        Path, typer.Argument(help="Later session: `sphere` frames, or `object` frames without any ball.")
    ],
    rig: RigOption = None,
    lights: Annotated[
        Path | None, typer.Option(help="Lights as calibrated, else those that rig.yaml pins.")
    ] = None,
    sensor: SensorOption = None,
    lens: LensOption = None,
    sphere_mm: SphereDiameterOption = None,
    spheres: Annotated[int | None, typer.Option(help="How many spheres are in view.")] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Mask of one sphere (repeat), or of the object where there is no sphere."),
    ] = None,
    finish: Annotated[
        Literal["mirror", "matte", "both"],
        typer.Option(help="What the spheres are; both: mirrors, and matte ones beside them."),
    ] = "mirror",
    matte_mm: MatteDiameterOption = None,
    matte_mask: MatteMaskOption = None,
    albedo: AlbedoOption = 0.9,
    camera: CameraOption = None,
) -> None:
    """Which light has moved, dimmed or failed since the lights were calibrated.

    One line a light. Exits with 1 when one has changed or cannot be told. A ball in view tells half a degree
    and 5 %; any object under five lights or more some 3 degrees and 10 %.
    """
    from capture.session import Session
    from rigs import workflows

    opened = Session.open(session)
    balls = workflows.sphere_target(rig_config(rig), sphere_mm, spheres)
    masks = mask or []
    seen = any("sphere" in record.shot.kinds for record in opened.frames)
    radiometric, view = models_of(rig, camera, sensor, lens, session)
    changes = workflows.check_lights(
        opened,
        lights_of(rig, camera, lights, session),
        balls,
        sensor=radiometric,
        lens=view,
        masks=masks if seen and finish != "matte" else (),
        mirror=finish != "matte",
        matte=matte_of(finish, balls, masks, matte_mm, matte_mask or [], albedo),
        object_mask=masks[0] if masks and not seen else None,
        camera=camera,
        track=track,
    )
    for change in changes:
        say(f"{'ok' if change.kind == 'still' else 'warning':<8} {change.text}")
    if any(change.kind != "still" for change in changes):
        raise typer.Exit(1)
