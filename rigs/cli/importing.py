"""``gnomon import``: foreign images in."""

from pathlib import Path
from typing import Annotated

import typer

from rigs.cli.app import import_app
from rigs.cli.options import say


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
    say(f"{session}: {len(done.frames)} frames, digest {done.digest[:12]}")
