"""``gnomon export``: models and results in other programs' formats, and as training sets."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from rigs.cli.app import export_app
from rigs.cli.options import CameraOption, counted, folder, say, track, truth_of

ResultArgument = Annotated[Path, typer.Argument(help="Folder written by `reconstruct`, or a normals.exr.")]


@export_app.command(
    "lens", epilog="Example: `gnomon export lens models/lens.json --format colmap --out cameras.txt`"
)
def export_lens(
    lens: Annotated[Path, typer.Argument(help="Lens model or camera file, as for --lens elsewhere.")],
    form: Annotated[
        Literal["opencv", "ros", "kalibr", "mrcal", "colmap", "gnomon"],
        typer.Option(
            "--format", help="opencv, ros: YAML; kalibr: camchain; mrcal: .cameramodel; colmap: .txt."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    name: Annotated[str, typer.Option(help="Name of the camera, where the format has one.")] = "camera",
) -> None:
    """A lens in another program's format; its covariance and evidence are left out.

    What the format cannot hold exactly is refused.
    """
    from rigs import interchange

    model = interchange.read_lens(lens)
    interchange.write_lens(out, model, form, name)
    if model.covariance is not None and form != "gnomon":
        typer.echo(f"left out: the covariance, which {form} has no place for", err=True)
    say(str(out))


@export_app.command(
    "cameras",
    epilog="Example: `gnomon export cameras models/cameras.json --format kalibr --out camchain.yaml`",
)
def export_cameras(
    cameras: Annotated[Path, typer.Argument(help="Cameras of `calibrate rig` (.json), or a camchain.")],
    form: Annotated[
        Literal["kalibr", "mrcal", "colmap"],
        typer.Option(
            "--format", help="kalibr: camchain; mrcal: a .cameramodel each; colmap: .txt, no poses."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write; for mrcal a folder.")],
) -> None:
    """Several cameras with their poses in another program's format; covariances are left out.

    What the format cannot hold exactly is refused.
    """
    from rigs import interchange

    found = interchange.read_cameras(cameras)
    if form == "mrcal":
        for name, camera in found.cameras.items():
            path = out / f"{name}.cameramodel"
            interchange.write_cameras(path, {name: camera}, form)
            say(str(path))
    else:
        interchange.write_cameras(out, found.cameras, form)
        say(str(out))
    if form == "colmap":
        typer.echo("left out: the poses, which belong to COLMAP's images.txt", err=True)
    if found.covariance is not None:
        typer.echo(f"left out: the covariance, which {form} has no place for", err=True)


@export_app.command(
    "normals", epilog="Example: `gnomon export normals out/relief-result --axes directx --out normals.png`"
)
def export_normals(
    result: ResultArgument,
    out: Annotated[Path, typer.Option(help="File to write: .png (16-bit) or .exr (float).")],
    axes: Annotated[
        Literal["opengl", "directx", "camera"],
        typer.Option(help="opengl: green is up; directx: green is down; camera: our own frame, .exr only."),
    ] = "opengl",
) -> None:
    """Normals as other programs read them; the file says its axes."""
    from rigs import interchange

    interchange.write_normals(out, interchange.read_maps(result), axes)
    say(str(out))


@export_app.command("depth", epilog="Example: `gnomon export depth out/relief-result --out depth.png`")
def export_depth(
    result: ResultArgument,
    out: Annotated[Path, typer.Option(help="File to write: .png (16-bit, says its scale) or .exr.")],
) -> None:
    """Depth along the camera's axis as a picture."""
    from rigs import interchange

    interchange.write_depth(out, interchange.read_maps(result))
    say(str(out))


@export_app.command("mesh", epilog="Example: `gnomon export mesh out/relief-result --out relief.glb`")
def export_mesh(
    result: Annotated[Path, typer.Argument(help="Folder written by `reconstruct`.")],
    out: Annotated[Path, typer.Option(help="File to write: .ply, .obj (mm) or .glb (binary glTF, metres).")],
) -> None:
    """The surface with its albedo as a mesh."""
    from rigs import interchange

    lens = result / "models" / "lens.json"
    interchange.write_mesh(
        out, interchange.read_maps(result), interchange.read_lens(lens) if lens.is_file() else None
    )
    say(str(out))


@export_app.command("mask", epilog="Example: `gnomon export mask out/relief-result --out mask.png`")
def export_mask(
    result: ResultArgument,
    out: Annotated[Path, typer.Option(help="File to write, .png: 255 where there is a normal.")],
) -> None:
    """Where the result has a normal."""
    from rigs import interchange

    interchange.write_mask(out, interchange.read_maps(result))
    say(str(out))


@export_app.command(
    "lights", epilog="Example: `gnomon export lights models/lights.json --format lp --at 0,0,450 --out a.lp`"
)
def export_lights(
    lights: Annotated[Path, typer.Argument(help="Light model, or a light list (.lp, .csv, .json).")],
    form: Annotated[
        Literal["csv", "lp", "alicevision", "diligent"],
        typer.Option(
            "--format",
            help="csv: near lights too; lp: RTI; alicevision: JSON; diligent: three .txt in a folder.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write; for diligent a folder.")],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,Z", help="Near lights as distant ones, seen from this point, mm, camera frame."
        ),
    ] = None,
    suffix: Annotated[
        str, typer.Option(help="Ending of the pictures that are named as the lights.")
    ] = ".png",
) -> None:
    """Lights in another program's format: directions, and but for .lp their intensities.

    A .csv has near lights with position and lobe, as --lights reads them.
    """
    from rigs import interchange

    found = interchange.read_light_set(lights)
    interchange.write_lights(out, found, form, at_mm=_point(at), suffix=suffix)
    every = found.lights.values()
    if at is not None and all(light.kind == "distant" for light in every):
        typer.echo("--at was not used: all lights are distant, alike from everywhere", err=True)
    if form == "lp" and any(set(light.intensity) != {1.0} for light in every):
        typer.echo("left out: the intensities, which lp has no place for", err=True)
    if any(light.covariance is not None for light in every):
        typer.echo(f"left out: the covariances, which {form} has no place for", err=True)
    say(str(out))


def _point(text: str | None) -> tuple[float, float, float] | None:
    from rigs.config import ConfigError

    if text is None:
        return None
    try:
        x, y, z = (float(word) for word in text.split(","))
    except ValueError:
        x = y = z = math.nan
    if not math.isfinite(x + y + z):
        raise ConfigError(f"--at {text!r}: want X,Y,Z in mm, as 0,0,450")
    return x, y, z


@export_app.command(
    "training",
    epilog="Example: `gnomon export training out/relief --result out/relief-result --relit 32 --noisy 2 "
    "--out out/training`",
)
def export_training(
    session: Annotated[Path, typer.Argument(help="Session with `object` frames under each light.")],
    result: Annotated[Path, typer.Option(help="Folder that `reconstruct` wrote of this session.")],
    out: Annotated[Path, typer.Option(help="New folder for the training set.", callback=folder)],
    truth: Annotated[
        Path | None, typer.Option(help="Truth file of a simulated session: exact maps and pictures too.")
    ] = None,
    form: Annotated[
        Literal["exr", "png"], typer.Option("--format", help="Of the pictures: float or 16-bit.")
    ] = "exr",
    relit: Annotated[int, typer.Option(min=0, help="New pictures under so many new lights.")] = 16,
    noisy: Annotated[int, typer.Option(min=0, help="Noisy versions of each picture.")] = 1,
    within: Annotated[
        float, typer.Option(min=0, max=89, help="New lights lie within so many degrees of the axis.")
    ] = 70.0,
    seed: Annotated[int, typer.Option(min=0, help="Of new lights and noise; the same gives the same.")] = 0,
    pose: Annotated[str | None, typer.Option(help="Which pose, where a session has several.")] = None,
    camera: CameraOption = None,
) -> None:
    """Pictures, maps, lights and noise model as a training set, with relit and noisy pictures."""
    from capture.session import Session
    from rigs import interchange

    done = interchange.write_training(
        out,
        Session.open(session),
        result,
        camera=camera,
        pose=pose,
        form=form,
        relit=relit,
        noisy=noisy,
        most_deg=within,
        seed=seed,
        truth=truth_of(truth),
        track=track,
    )
    if not done["sensor"]["calibrated"]:
        typer.echo("warning: no sensor model: the noise is that of a nominal camera", err=True)
    say(f"{out}: {counted(len(done['images']), 'picture')}, {len(done['relit']['images'])} relit")
