"""What models and sessions give: merge, reconstruct, report, demo."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from rigs.cli.app import app
from rigs.cli.options import (
    CameraOption,
    ColourOption,
    LensOption,
    RigOption,
    SensorOption,
    colour_of,
    folder,
    given_with,
    lights_of,
    models_of,
    rig_config,
    say,
    sensor_digest,
    track,
)


@app.command(
    epilog="Example: `gnomon merge out/stack --sensor models/sensor.json --luminance 410,300,40,40=118 "
    "--out out/stack-hdr`"
)
def merge(
    session: Annotated[Path, typer.Argument(help="Session with exposure stacks.")],
    out: Annotated[Path, typer.Option(help="Folder for radiance EXRs.", callback=folder)],
    rig: RigOption = None,
    sensor: SensorOption = None,
    camera: CameraOption = None,
    exposures: Annotated[
        Literal["auto", "refined", "told"],
        typer.Option(help="Exposure times: found in the pictures, as told, or the first where it matters."),
    ] = "auto",
    margin: Annotated[
        int, typer.Option(min=0, help="Leave out samples within so many px of a saturated one (blooming).")
    ] = 1,
    motion: Annotated[bool, typer.Option(help="Find what moved between the frames and leave it out.")] = True,
    colour: ColourOption = None,
    luminance: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H=CD_M2",
            help="Patch of known luminance: the pictures come in cd/m^2. =CD_M2+-SIGMA tells how sure; with "
            "several pictures, NAME:X,Y,W,H=CD_M2.",
        ),
    ] = None,
) -> None:
    """Merge the exposures of every pose and light to linear radiance with its sigma, as EXR."""
    from capture.session import Session
    from rigs import workflows

    patch = None if luminance is None else workflows.parse_luminance(luminance)
    radiometric, _ = models_of(rig, camera, sensor, None, session)
    for path, record in workflows.merge_session(
        Session.open(session),
        out,
        sensor=radiometric,
        sensor_digest=sensor_digest(rig, camera, sensor, session),
        camera=camera,
        exposures=exposures,
        margin_px=margin,
        motion=motion,
        luminance=patch,
        colour=colour_of(rig, camera, colour, session),
        track=track,
    ):
        say(str(path))
        typer.echo(f"{record.picture}: {workflows.describe_merge(record)}", err=True)
        for warning in record.quality.warnings:
            typer.echo(f"warning: {record.picture}: {warning}", err=True)


@app.command(
    epilog="Example: `gnomon reconstruct out/relief --sensor models/sensor.json --lens models/lens.json "
    "--lights models/lights.json --out out/relief-result`"
)
def reconstruct(
    session: Annotated[Path, typer.Argument(help="Session with `object` frames under each light.")],
    out: Annotated[Path, typer.Option(help="Folder for normals, albedo, depth and mesh.", callback=folder)],
    lights: Annotated[
        Path | None,
        typer.Option(help="Light model, or a light list (.lp, .csv, .json); else pinned or imported ones."),
    ] = None,
    rig: RigOption = None,
    sensor: SensorOption = None,
    lens: LensOption = None,
    mask: Annotated[Path | None, typer.Option(help="Mask image: the object is where it is bright.")] = None,
    pose: Annotated[str | None, typer.Option(help="Which pose, where a session has several.")] = None,
    method: Annotated[
        Literal["auto", "mixture", "robust", "least-squares"],
        typer.Option(help="Solver of the photometric stereo; auto: as the pictures ask."),
    ] = "auto",
    intensities: Annotated[
        Literal["auto", "given", "estimated"],
        typer.Option(
            help="Of the lights: as the light file says, or found from the object; auto: found where the "
            "file says nothing and the object contradicts equal ones."
        ),
    ] = "auto",
    depth: Annotated[
        float | None,
        typer.Option(min=1e-3, help="Rough distance of the object, mm; without it that of the spheres."),
    ] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="Table (.csv) x,y,depth_mm of known depths: they hold the surface.")
    ] = None,
    anchor_sigma: Annotated[float, typer.Option(min=1e-6, help="One sigma of each anchor, mm.")] = 1.0,
    camera: CameraOption = None,
) -> None:
    """Normals, albedo, depth and mesh, each with its uncertainty, from images under known lights."""
    from capture.session import Session
    from rigs import workflows

    opened = Session.open(session)
    camera = camera or workflows.only_camera(opened, "object")
    radiometric, view = models_of(rig, camera, sensor, lens, session)
    light_set = lights_of(rig, camera, lights, session)
    changed = workflows.lights_changed(
        opened,
        light_set,
        workflows.sphere_target(rig_config(rig), None, None),
        sensor=radiometric,
        lens=view,
        camera=camera,
        track=track,
    )
    for line in changed:
        typer.echo(f"warning: {line}", err=True)
    result = workflows.reconstruct(
        opened,
        light_set,
        sensor=radiometric,
        lens=view,
        mask=mask or given_with(session, "mask.png"),
        pose=pose,
        method=method,
        camera=camera,
        depth_mm=depth,
        anchors=anchors,
        anchor_sigma_mm=anchor_sigma,
        intensities=intensities,
        track=track,
    )
    for path in workflows.write_reconstruction(
        out, result, sensor=radiometric, lens=view, lights=result.lights
    ):
        say(str(path))
    for remark in result.remarks:
        say(remark)
    normals = result.reconstruction.normals
    quality = normals.quality
    if normals.reason is not None:
        say(f"{normals.method}: {normals.reason}")
    scale = result.reconstruction.scale_sigma
    if math.isfinite(scale):
        say(f"depth: the lights tell the distance to {100 * scale:.2g} % (one sigma)")
    if result.depth_unit == "relative":
        typer.echo("warning: depth is relative, nothing tells its scale: give --depth in mm", err=True)
    for warning in () if quality is None else quality.warnings:
        typer.echo(f"warning: {warning}", err=True)


@app.command(epilog="Example: `gnomon report out/relief-result`")
def report(
    directory: Annotated[
        Path, typer.Argument(help="Folder written by `merge`, `reconstruct` or `demo`, or of models.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; report.html in the folder if not given.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="True normals (.exr), as `given/normals.exr` of an import: the errors are shown."),
    ] = None,
) -> None:
    """One self-contained HTML page of everything in a folder: pictures, models, residuals, warnings."""
    from rigs import report as report_module

    say(str(report_module.report_directory(directory, out or directory / "report.html", truth)))


@app.command(epilog="Example: `gnomon demo --out out/demo`")
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the results; an earlier demo there is replaced.")
    ] = Path("out/demo"),
    rig: Annotated[Path | None, typer.Option(help="rig.yaml of the simulated rig.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Truth file: another seed, lights, object or lens.")
    ] = None,
    plans: Annotated[Path | None, typer.Option(help="Folder with the five dome-*.yaml plans.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed in place of the truth's.")] = None,
    hil: Annotated[
        bool,
        typer.Option(
            "--hil", help="Capture the relief through the dome's firmware on an emulated chip instead."
        ),
    ] = False,
) -> None:
    """Commission the simulated dome, capture two objects, reconstruct them, check every step with the truth.

    Exits with 1 when a bound of the truth file is missed. With --hil the lights are those of the real
    firmware: what comes must be the twin's frames to the last bit (docs/dome-firmware.md).
    """
    from rigs import demo as demo_module

    if hil:
        from rigs import hil as hil_module

        if any(choice is not None for choice in (rig, truth, plans, seed)):
            raise typer.BadParameter("--hil has its own rig, truth and plan")
        checks = hil_module.run(out, track=track, say=say)
        if not all(metric.passed for metric in checks if metric.bound is not None):
            raise typer.Exit(1)
        return
    metrics = demo_module.run(out, rig=rig, truth=truth, plans=plans, seed=seed, track=track, say=say)
    if not all(metric.passed for metric in metrics if metric.bound is not None):
        raise typer.Exit(1)
