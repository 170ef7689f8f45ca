"""Commands at the rig: check, capture, verify, devices."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rigs.cli.app import ENDED, app, rig_app, session_app
from rigs.cli.options import (
    CameraOption,
    RigOption,
    SensorOption,
    Simulate,
    counted,
    fail,
    model_name,
    models_of,
    say,
    track,
    truth_of,
)

if TYPE_CHECKING:
    from rigs.config import RigConfig


@rig_app.command(
    "check", epilog="Example: `gnomon rig check configs/rigs/dome.yaml configs/plans/dome-relief.yaml`"
)
def rig_check(
    rig: Annotated[Path, typer.Argument(help="rig.yaml")],
    plan: Annotated[list[Path] | None, typer.Argument(help="Plans to check against the rig.")] = None,
    session: Annotated[Path, typer.Option(help="Where the session would go: its disk is checked.")] = Path(
        "."
    ),
) -> None:
    """Check a rig file, its pinned calibrations, and plans against it; no hardware is touched."""
    from rigs import workflows
    from rigs.config import load_plan, load_rig

    config = load_rig(rig)
    bad = workflows.check_pins(config, rig.parent)
    for problem in bad:
        typer.echo(f"{rig}: {problem}", err=True)
    cameras, lights = counted(len(config.cameras), "camera"), counted(len(config.lights), "light")
    say(f"{rig}: {config.name}: {cameras}, {lights}")
    for line in _at_each_address(config):
        say(f"{rig}: {line}")
    for line in _half_a_sequence(config):
        typer.echo(f"{rig}: warning: {line}", err=True)
    if not bad:
        for line in workflows.check_settling(config, rig.parent):
            typer.echo(f"{rig}: warning: {line}", err=True)
        config = workflows.settled(config, rig.parent)
    for path in plan or []:
        report = workflows.check_plan(config, load_plan(path), session)
        for problem in report.problems:
            typer.echo(f"{path}: {problem}", err=True)
        bad += report.problems
        for line in () if report.problems else report.warnings:
            typer.echo(f"{path}: warning: {line}", err=True)
        say(f"{path}: {workflows.describe(report)}")
    if bad:
        raise typer.Exit(2)


def _at_each_address(config: "RigConfig") -> list[str]:
    """The devices of each port, host or serial number."""
    few = {
        address: names if len(names) < 4 else [names[0], "...", names[-1]]
        for address, names in config.addresses.items()
    }
    return [f"{address}: {', '.join(names)}" for address, names in few.items()]


def _half_a_sequence(config: "RigConfig") -> list[str]:
    """Hardware-timed sequences that will not be taken, as cameras or lights for them are missing."""
    cameras = [name for name, camera in config.cameras.items() if camera.sequence]
    lights = [name for name, light in config.lights.items() if light.sequence]
    if bool(cameras) == bool(lights):
        return []
    has, lacks = ("lights", "camera") if lights else ("cameras", "light")
    return [
        f"{has} have `sequence: true` and no {lacks} has: the computer times every exposure. Say so of both"
    ]


@app.command(
    epilog="Example: `gnomon capture configs/rigs/dome.yaml configs/plans/dome-relief.yaml out/relief "
    "--simulate configs/truths/dome.yaml`"
)
def capture(
    rig: Annotated[Path, typer.Argument(help="rig.yaml")],
    plan: Annotated[Path | None, typer.Argument(help="plan.yaml; not needed with --resume.")] = None,
    session: Annotated[Path | None, typer.Argument(help="New folder for the session.")] = None,
    simulate: Simulate = None,
    resume: Annotated[bool, typer.Option("--resume", help="Complete an interrupted session.")] = False,
    compress: Annotated[
        bool,
        typer.Option("--compress", help="Write frames compressed, without loss: two thirds of the size."),
    ] = False,
) -> None:
    """Run a plan on a rig, or on its twin, into a session.

    With --resume the plan may be left out: `gnomon capture RIG SESSION --resume`.
    """
    from capture.session import Session
    from rigs import workflows
    from rigs.config import load_plan, load_rig

    if resume and session is None:
        plan, session = None, plan
    if session is None:
        raise typer.BadParameter("give RIG PLAN SESSION, or RIG SESSION --resume")
    if plan is None and not resume:
        raise typer.BadParameter("PLAN is missing")
    config = workflows.settled(load_rig(rig), rig.parent)
    chosen = Session.open(session).plan if plan is None else load_plan(plan)
    report = workflows.check_plan(config, chosen, session)
    say(f"{chosen.name}: {workflows.describe(report)}")
    for line in () if simulate is not None else report.warnings:
        typer.echo(f"{chosen.name}: warning: {line}", err=True)
    try:
        done = workflows.capture_session(
            config,
            chosen,
            session,
            simulate=truth_of(simulate),
            resume=resume,
            compress=compress,
            track=track,
        )
    except (KeyboardInterrupt, SystemExit) as leaving:
        code = 130 if isinstance(leaving, KeyboardInterrupt) else leaving.code
        if not isinstance(code, int) or code not in (130, *ENDED):
            raise
        how = "ended by the system" if isinstance(leaving, SystemExit) else "interrupted"
        again = "" if simulate is None else f" --simulate {simulate}"
        fail(f"{how}, lights dark: go on with `gnomon capture {rig} {session} --resume{again}`", code)
        raise typer.Exit(code) from None
    taken, lost = counted(len(done.frames), "frame"), len(done.skipped)
    say(f"{session}: {taken}, {lost} skipped, digest {done.digest[:12]}")
    if done.skipped:
        for skip in done.skipped[:10]:
            typer.echo(f"shot {skip.shot.index} skipped: {skip.reason}", err=True)
        raise typer.Exit(3)


@session_app.command("verify", epilog="Example: `gnomon session verify out/relief`")
def session_verify(session: Annotated[Path, typer.Argument(help="Session folder.")]) -> None:
    """Check every frame's hash; say what is missing, damaged or not done."""
    from capture.session import Session

    opened = Session.open(session)
    problems = opened.verify()
    for problem in problems:
        typer.echo(str(problem), err=True)
    say(f"{session}: {counted(len(opened.frames), 'frame')}, {counted(len(problems), 'problem')}")
    if problems:
        raise typer.Exit(1)


@session_app.command("check", epilog="Example: `gnomon session check out/relief --sensor models/sensor.json`")
def session_check(
    session: Annotated[Path, typer.Argument(help="Session folder.")],
    rig: RigOption = None,
    sensor: SensorOption = None,
    patch: Annotated[
        str | None,
        typer.Option(help="Reference patch that is in every frame: x,y,width,height in pixels."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the results (.json), which `report` shows.")
    ] = None,
    camera: CameraOption = None,
) -> None:
    """Check what the frames themselves tell: linearity, drift, clipping, copies, dark lamps.

    One line a check. Exits with 1 when a check fails.
    """
    from calibration import files
    from capture.session import Session
    from rigs import workflows

    if out is not None:
        model_name(out)
    radiometric, _ = models_of(rig, camera, sensor, None, session)
    checks = workflows.check_session(
        Session.open(session),
        sensor=radiometric,
        camera=camera,
        patch=None if patch is None else workflows.parse_patch(patch),
        track=track,
    )
    for check in checks.results:
        say(f"{check.verdict:<8} {check.name}: {check.text}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.save_model(out, checks)
    if checks.failed:
        raise typer.Exit(1)


@app.command(epilog="Example: `gnomon devices`")
def devices() -> None:
    """List the drivers, what each finds, and why one finds nothing."""
    from rigs import workflows

    for line in workflows.list_devices():
        say(line)
