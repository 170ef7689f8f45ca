"""``gnomon export``: models in other programs' formats."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rigs.cli.app import export_app
from rigs.cli.options import say


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
