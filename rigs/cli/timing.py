"""``gnomon calibrate timing`` and ``gnomon plan timing``."""

from pathlib import Path
from typing import Annotated

import typer

from rigs.cli.app import calibrate_app, plan_app
from rigs.cli.options import (
    CameraOption,
    ModelOut,
    RigOption,
    SensorOption,
    models_of,
    plan_name,
    rig_config,
    say,
)


@calibrate_app.command(
    "timing", epilog="Example: `gnomon calibrate timing out/timing --out models/timing.json`"
)
def calibrate_timing(
    session: Annotated[Path, typer.Argument(help="Session with `timing` frames: see `plan timing`.")],
    rig: RigOption = None,
    sensor: SensorOption = None,
    light_delay: Annotated[
        float,
        typer.Option(
            help="Known delay of the controller of the first light (by name), s; else it counts as latency."
        ),
    ] = 0.0,
    pose: Annotated[str | None, typer.Option(help="Which pose, where a session has several.")] = None,
    out: ModelOut = Path("timing.json"),
    camera: CameraOption = None,
) -> None:
    """Rolling shutter, start latency and true exposure of a camera; rise, fall and settle time of its lights.

    Pin the model as `calibrations.CAMERA.timing` in rig.yaml: captures then wait for the lights to settle.
    """
    from capture.session import Session
    from rigs import workflows

    model = workflows.calibrate_timing(
        Session.open(session),
        sensor=models_of(rig, camera, sensor, None, session)[0],
        camera=camera,
        pose=pose,
        light_delay_s=light_delay,
    )
    workflows.save(out, model, say)
    for line in workflows.describe_timing(model):
        say(line)
    config = rig_config(rig)
    if config is None:
        return
    for name, seconds in workflows.hurried_lights(config, model).items():
        waits = config.lights[name].settle_s
        typer.echo(
            f"warning: {name} settles in {1e3 * seconds:.3g} ms, {rig} waits {1e3 * waits:.3g} ms", err=True
        )


@plan_app.command(
    "timing",
    epilog="Example: `gnomon plan timing configs/rigs/bench.yaml --exposure 0.004 --out timing.yaml`",
)
def plan_timing(
    rig: Annotated[Path, typer.Argument(help="rig.yaml, with `strobe: true` on the lights that can.")],
    exposure: Annotated[
        float, typer.Option(help="Seconds at which the lights, burning steadily, expose the view well.")
    ],
    out: Annotated[Path, typer.Option(help="Plan to write; ends in .yaml.", callback=plan_name)],
    light: Annotated[
        list[str] | None, typer.Option(help="A light to measure with (repeat); all that can strobe without.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Of a pulse, s; 0.7 of the exposure if not given.")
    ] = None,
    first: Annotated[float, typer.Option(help="Shortest delay after the trigger, s.")] = 0.0,
    last: Annotated[
        float | None, typer.Option(help="Longest delay, s; the camera's readout_s and exposure if not given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many delays.")] = None,
    level: Annotated[float, typer.Option(help="Level of the lights, 1 is full.")] = 1.0,
    gain: Annotated[float, typer.Option(help="Gain of the camera, dB.")] = 0.0,
    camera: CameraOption = None,
) -> None:
    """Plan of pulses that walk over the exposures of all rows, for `gnomon calibrate timing`."""
    from rigs import workflows
    from rigs.config import load_rig

    config = load_rig(rig)
    plan = workflows.plan_timing(
        config,
        exposure,
        camera=camera,
        lights=tuple(light or ()),
        duration_s=duration,
        first_s=first,
        last_s=last,
        steps=steps,
        level=level,
        gain_db=gain,
    )
    workflows.write_timing_plan(out, plan)
    say(f"{out}: {workflows.describe(workflows.check_plan(config, plan, Path('.')))}")
