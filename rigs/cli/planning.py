"""``gnomon plan``: plans made from what was seen."""

from pathlib import Path
from typing import Annotated

import typer

from rigs.cli.app import plan_app
from rigs.cli.options import (
    CameraOption,
    RigOption,
    SensorOption,
    models_of,
    plan_name,
    rig_config,
    say,
    track,
)


@plan_app.command(
    "bracket",
    epilog="Example: `gnomon plan bracket out/metering --sensor models/sensor.json --snr 40 --out plan.yaml`",
)
def plan_bracket(
    session: Annotated[Path, typer.Argument(help="Metering session: one exposure or a few of each view.")],
    snr: Annotated[float, typer.Option(help="Wanted signal-to-noise ratio of the merged radiance.")],
    out: Annotated[Path, typer.Option(help="Plan to write; ends in .yaml.", callback=plan_name)],
    sensor: SensorOption = None,
    rig: RigOption = None,
    camera: CameraOption = None,
    quantile: Annotated[
        float, typer.Option(help="Share of the pixels, the darkest, that need not reach it.")
    ] = 0.0,
    max_time: Annotated[
        float | None, typer.Option(help="Seconds for one view under one light, readout included.")
    ] = None,
    spend: Annotated[
        bool, typer.Option("--spend", help="Use all of --max-time for a better ratio everywhere.")
    ] = False,
    min_exposure: Annotated[
        float | None, typer.Option(help="Shortest exposure, s; the camera's own if not given.")
    ] = None,
    max_exposure: Annotated[
        float | None, typer.Option(help="Longest exposure, s; the camera's own if not given.")
    ] = None,
    exposure: Annotated[
        list[float] | None,
        typer.Option(help="An exposure that the camera can do (repeat); for cameras with steps."),
    ] = None,
    headroom: Annotated[
        float, typer.Option(help="Stops above the metering's ceiling where its saturated pixels may lie.")
    ] = 2.0,
) -> None:
    """Fewest exposures that give the wanted signal-to-noise ratio, as a plan ready to run."""
    from capture.session import Session
    from rigs import workflows
    from rigs.config import ConfigError

    model, _ = models_of(rig, camera, sensor, None, session)
    if model is None:
        raise ConfigError("no sensor model: give --sensor, or --rig with a pinned one")
    metering = Session.open(session)
    made = workflows.plan_brackets(
        metering,
        model,
        snr,
        camera=camera,
        config=rig_config(rig),
        shortest_s=min_exposure,
        longest_s=max_exposure,
        allowed_s=tuple(exposure or ()),
        max_time_s=max_time,
        spend=spend,
        quantile=quantile,
        headroom_stops=headroom,
        track=track,
    )
    workflows.write_plan(out, made, metering, snr)
    for label, bracket in made.brackets:
        say(workflows.describe_bracket(label, bracket))
    for warning in made.warnings:
        typer.echo(f"warning: {warning}", err=True)
    say(str(out))
