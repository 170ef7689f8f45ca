"""The command line: argument parsing and exit codes only.

Every command imports what it needs when it runs, so that ``gnomon --help`` answers at once.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from calibration.lens import LensModel
    from calibration.lights.model import LightSet
    from calibration.radiometric import RadiometricModel
    from rigs.config import RigConfig
    from rigs.simulated import Truth

T = TypeVar("T")

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
app.add_typer(rig_app, name="rig")
app.add_typer(session_app, name="session")
app.add_typer(import_app, name="import")
app.add_typer(calibrate_app, name="calibrate")


def _model_name(path: Path) -> Path:
    """Refuse at once what could not be written after a long fit."""
    from rigs.config import ConfigError

    if path.suffix != ".json":
        raise ConfigError(f"{path}: want a file that ends in .json")
    return path


def _folder(path: Path) -> Path:
    """Refuse at once what could not be written after a long run."""
    from rigs.config import ConfigError

    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path}: is a file, want a folder")
    return path


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        _say(f"gnomon {version('gnomon')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Simulate = Annotated[
    Path | None, typer.Option(help="Truth file: play the rig by its simulated twin.", show_default=False)
]
SensorOption = Annotated[
    Path | None, typer.Option("--sensor", help="Sensor or response model; nominal and linear without.")
]
LensOption = Annotated[
    Path | None,
    typer.Option("--lens", help="Lens model (.json), or an OpenCV camera file (.yml, .yaml, .xml)."),
]
RigOption = Annotated[Path | None, typer.Option("--rig", help="rig.yaml: targets and pinned calibrations.")]
ModelOut = Annotated[Path, typer.Option(help="Model file to write; ends in .json.", callback=_model_name)]
CameraOption = Annotated[
    str | None, typer.Option("--camera", help="Which camera, where a session has several.")
]


def track(items: Iterable[T], what: str) -> Iterable[T]:
    """Progress bar with the time left on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(items, description=what, console=Console(stderr=True), transient=True)


def _say(text: str) -> None:
    typer.echo(text)


def _rig(path: Path | None) -> "RigConfig | None":
    from rigs.config import load_rig

    return None if path is None else load_rig(path)


def _truth(path: Path | None) -> "Truth | None":
    if path is None:
        return None
    from rigs.workflows import read_truth

    return read_truth(path)


def _models(
    rig: Path | None, camera: str | None, sensor: Path | None, lens: Path | None
) -> "tuple[RadiometricModel | None, LensModel | None]":
    """Models that the options name, else those that the rig file pins."""
    from calibration.lens import LensModel
    from calibration.radiometric import RadiometricModel
    from rigs.interchange import read_lens
    from rigs.workflows import pinned, read_sensor

    config = _rig(rig)
    found_sensor = None if sensor is None else read_sensor(sensor)
    found_lens = None if lens is None else read_lens(lens)
    if config is not None and rig is not None:
        name = camera or next(iter(config.cameras))
        found_sensor = found_sensor or pinned(config, rig.parent, name, "sensor", RadiometricModel)
        found_lens = found_lens or pinned(config, rig.parent, name, "lens", LensModel)
    return found_sensor, found_lens


def _lights(rig: Path | None, camera: str | None, path: Path | None) -> "LightSet":
    from calibration.lights.model import LightSet
    from rigs.config import ConfigError
    from rigs.interchange import read_light_set
    from rigs.workflows import pinned

    if path is not None:
        return read_light_set(path)
    config = _rig(rig)
    if config is not None and rig is not None:
        found = pinned(config, rig.parent, camera or next(iter(config.cameras)), "lights", LightSet)
        if found is not None:
            return found
    raise ConfigError("no lights: give --lights, or --rig with pinned lights")


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
    _say(f"{rig}: {config.name}: {len(config.cameras)} cameras, {len(config.lights)} lights")
    for path in plan or []:
        report = workflows.check_plan(config, load_plan(path), session)
        for problem in report.problems:
            typer.echo(f"{path}: {problem}", err=True)
        bad += report.problems
        _say(f"{path}: {workflows.describe(report)}")
    if bad:
        raise typer.Exit(2)


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
    config = load_rig(rig)
    chosen = Session.open(session).plan if plan is None else load_plan(plan)
    _say(f"{chosen.name}: {workflows.describe(workflows.check_plan(config, chosen, session))}")
    try:
        done = workflows.capture_session(
            config,
            chosen,
            session,
            simulate=_truth(simulate),
            resume=resume,
            track=track,
        )
    except KeyboardInterrupt:
        _fail(
            f"interrupted: go on with `gnomon capture {rig} {session} --resume`, and --simulate as before",
            130,
        )
        raise typer.Exit(130) from None
    _say(f"{session}: {len(done.frames)} frames, {len(done.skipped)} skipped, digest {done.digest[:12]}")
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
    _say(f"{session}: {len(opened.frames)} frames, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


@import_app.command("folder", epilog="Example: `gnomon import folder photos/ out/photos --bayer RGGB`")
def import_folder(
    directory: Annotated[Path, typer.Argument(help="Folder with the images and manifest.csv.")],
    session: Annotated[Path, typer.Argument(help="New folder for the session.")],
    bayer: Annotated[str | None, typer.Option(help="Raw mosaic order: RGGB, GRBG, GBRG or BGGR.")] = None,
) -> None:
    """Turn a folder of images into a session by its manifest.csv."""
    from rigs import interchange

    done = interchange.import_folder(directory, session, bayer=bayer)
    for kind in ("warnings", "notes"):
        for text in done.facts.get(kind, []):
            typer.echo(f"{kind[:-1]}: {text}", err=True)
    _say(f"{session}: {len(done.frames)} frames, digest {done.digest[:12]}")


@calibrate_app.command(
    "sensor", epilog="Example: `gnomon calibrate sensor out/sensor --out models/sensor.json`"
)
def calibrate_sensor(
    session: Annotated[Path, typer.Argument(help="Session with `flat` and `dark` frames.")],
    out: ModelOut = Path("sensor.json"),
    camera: CameraOption = None,
) -> None:
    """Black, gain, read noise, saturation, dark and flat maps, defects, by photon transfer."""
    from capture.session import Session
    from rigs import workflows

    model = workflows.calibrate_sensor(Session.open(session), camera=camera, track=track)
    workflows.save(out, model, _say)


@calibrate_app.command(
    "response", epilog="Example: `gnomon calibrate response out/memorial --out response.json`"
)
def calibrate_response(
    session: Annotated[
        Path, typer.Argument(help="Session with an exposure stack of a static scene, 8 bits.")
    ],
    out: ModelOut = Path("response.json"),
    camera: CameraOption = None,
) -> None:
    """Response of a camera that is not linear, from an exposure stack."""
    from capture.session import Session
    from rigs import workflows

    model = workflows.calibrate_response(Session.open(session), camera=camera)
    workflows.save(out, model, _say)


@calibrate_app.command(
    "lens",
    epilog="Example: `gnomon calibrate lens out/lens --board 'checkerboard 9x6 25' --out models/lens.json`",
)
def calibrate_lens(
    session: Annotated[Path, typer.Argument(help="Session with `board` frames.")],
    board: Annotated[
        str | None,
        typer.Option(
            help="'checkerboard COLSxROWS SQUARE_MM' (inner corners), or "
            "'charuco COLSxROWS SQUARE_MM MARKER_MM [DICTIONARY] [legacy]' (squares)."
        ),
    ] = None,
    rig: RigOption = None,
    sensor: SensorOption = None,
    out: ModelOut = Path("lens.json"),
    camera: CameraOption = None,
) -> None:
    """Focal length, principal point and distortion, with covariance, from views of a board."""
    from capture.session import Session
    from rigs import workflows

    model = workflows.calibrate_lens(
        Session.open(session),
        workflows.choose_board(board, _rig(rig)),
        sensor=_models(rig, camera, sensor, None)[0],
        camera=camera,
        track=track,
    )
    workflows.save(out, model, _say)


@calibrate_app.command(
    "lights", epilog="Example: `gnomon calibrate lights out/lights --rig rig.yaml --lens models/lens.json`"
)
def calibrate_lights(
    session: Annotated[Path, typer.Argument(help="Session with `sphere` frames under each light.")],
    rig: RigOption = None,
    sensor: SensorOption = None,
    lens: LensOption = None,
    sphere_mm: Annotated[
        float | None, typer.Option("--sphere-diameter", help="Diameter of the mirror spheres, mm.")
    ] = None,
    spheres: Annotated[
        int | None, typer.Option(help="How many spheres are in view; found by itself if not given.")
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Mask image of one sphere (repeat for several) instead of detection."),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(help="Board beside the spheres, for the intensities; as in `calibrate lens`."),
    ] = None,
    model: Annotated[
        Literal["auto", "near", "distant"],
        typer.Option(help="Whether the lights are near; auto lets the data tell."),
    ] = "auto",
    out: ModelOut = Path("lights.json"),
    camera: CameraOption = None,
) -> None:
    """Direction or position, and intensity, of every light, from mirror spheres found in the images.

    One ball gives a far light's direction (no lens model needed); two or more, with a lens model and the
    diameter, give a near light's position.
    """
    from capture.session import Session
    from rigs import workflows

    radiometric, view = _models(rig, camera, sensor, lens)
    targets = workflows.targets(_rig(rig))
    lights = workflows.calibrate_lights(
        Session.open(session),
        workflows.sphere_target(_rig(rig), sphere_mm, spheres),
        sensor=radiometric,
        lens=view,
        board=workflows.choose_board(board, _rig(rig), needed=False),
        board_reflectance=targets.board_reflectance,
        board_margin_mm=targets.board_margin_mm,
        masks=mask or [],
        model=model,
        camera=camera,
        track=track,
    ).lights
    workflows.save(out, lights, _say)


@app.command(epilog="Example: `gnomon merge out/memorial --sensor response.json --out out/memorial-hdr`")
def merge(
    session: Annotated[Path, typer.Argument(help="Session with exposure stacks.")],
    out: Annotated[Path, typer.Option(help="Folder for radiance EXRs.", callback=_folder)],
    rig: RigOption = None,
    sensor: SensorOption = None,
    camera: CameraOption = None,
) -> None:
    """Merge the exposures of every pose and light to linear radiance with its sigma, as EXR."""
    from capture.session import Session
    from rigs import workflows

    radiometric, _ = _models(rig, camera, sensor, None)
    for path in workflows.merge_session(
        Session.open(session), out, sensor=radiometric, camera=camera, track=track
    ):
        _say(str(path))


@app.command(
    epilog="Example: `gnomon reconstruct out/relief --sensor models/sensor.json --lens models/lens.json "
    "--lights models/lights.json --out out/relief-result`"
)
def reconstruct(
    session: Annotated[Path, typer.Argument(help="Session with `object` frames under each light.")],
    out: Annotated[Path, typer.Option(help="Folder for normals, albedo, depth and mesh.", callback=_folder)],
    lights: Annotated[
        Path | None, typer.Option(help="Light model (.json), or a light list (.lp, .csv).")
    ] = None,
    rig: RigOption = None,
    sensor: SensorOption = None,
    lens: LensOption = None,
    mask: Annotated[Path | None, typer.Option(help="Mask image: the object is where it is not zero.")] = None,
    pose: Annotated[str | None, typer.Option(help="Which pose, where a session has several.")] = None,
    method: Annotated[
        Literal["robust", "least-squares"], typer.Option(help="Solver of the photometric stereo.")
    ] = "robust",
    depth: Annotated[
        float | None,
        typer.Option(min=1e-3, help="Rough distance of the object, mm; without it that of the spheres."),
    ] = None,
    camera: CameraOption = None,
) -> None:
    """Normals, albedo, depth and mesh, each with its uncertainty, from images under known lights."""
    from capture.session import Session
    from rigs import workflows

    radiometric, view = _models(rig, camera, sensor, lens)
    light_set = _lights(rig, camera, lights)
    result = workflows.reconstruct(
        Session.open(session),
        light_set,
        sensor=radiometric,
        lens=view,
        mask=mask,
        pose=pose,
        method=method,
        camera=camera,
        depth_mm=depth,
        track=track,
    )
    for path in workflows.write_reconstruction(out, result, sensor=radiometric, lens=view, lights=light_set):
        _say(str(path))
    quality = result.reconstruction.normals.quality
    if result.depth_unit == "relative":
        typer.echo("warning: depth is relative, nothing tells its scale: give --depth in mm", err=True)
    for warning in () if quality is None else quality.warnings:
        typer.echo(f"warning: {warning}", err=True)


@app.command(epilog="Example: `gnomon report out/relief-result`")
def report(
    directory: Annotated[
        Path, typer.Argument(help="Folder written by `reconstruct` or `demo`, or of models.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; report.html in the folder if not given.")
    ] = None,
) -> None:
    """One self-contained HTML page of everything in a folder: pictures, models, residuals, warnings."""
    from rigs import report as report_module

    _say(str(report_module.report_directory(directory, out or directory / "report.html")))


@app.command(epilog="Example: `gnomon devices`")
def devices() -> None:
    """List the drivers, what each finds, and why one finds nothing."""
    from rigs import workflows

    for line in workflows.list_devices():
        _say(line)


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
) -> None:
    """Commission the simulated dome, capture two objects, reconstruct them, check every step with the truth.

    Exits with 1 when a bound of the truth file is missed.
    """
    from rigs import demo as demo_module

    metrics = demo_module.run(out, rig=rig, truth=truth, plans=plans, seed=seed, track=track, say=_say)
    if not all(metric.passed for metric in metrics if metric.bound is not None):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and a non-zero exit."""
    # Idle threads of a compiled kernel that spin, OpenMP's habit, take the cores from all other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(prog_name="gnomon")
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))
    except Exception as error:
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    from calibration.provenance import FitError
    from capture.devices import DeviceError
    from capture.session import SessionError
    from rigs.config import ConfigError

    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"{error.filename}: {error.strerror}", 2)
    if isinstance(error, ConfigError | SessionError | OSError):
        return _fail(str(error), 2)
    if isinstance(error, DeviceError):
        return _fail(str(error), 3)
    if isinstance(error, FitError):
        return _fail(str(error), 4)
    raise error


def _fail(message: str, code: int) -> int:
    typer.echo(f"gnomon: {message}", err=True)
    return code


if __name__ == "__main__":
    main()
