"""``gnomon import``: foreign images in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rigs.cli.app import import_app
from rigs.cli.options import counted, say

if TYPE_CHECKING:
    from capture.session import Session

NewSession = Annotated[Path, typer.Argument(help="New folder for the session.")]
BayerOption = Annotated[str | None, typer.Option(help="Raw mosaic order: RGGB, GRBG, GBRG or BGGR.")]
LinearOption = Annotated[
    bool,
    typer.Option("--assume-linear", help="The data are known to be linear, whatever the files' tags say."),
]


@import_app.command("folder", epilog="Example: `gnomon import folder boards/ out/boards --kind board`")
def import_folder(
    directory: Annotated[Path, typer.Argument(help="Folder with the images and their manifest.csv.")],
    session: NewSession,
    kind: Annotated[
        str | None,
        typer.Option(
            help="No manifest.csv: all pictures are of this kind, such as `board`; those in a folder within "
            "are of the camera of its name."
        ),
    ] = None,
    bayer: BayerOption = None,
    assume_linear: LinearOption = False,
) -> None:
    """Turn a folder of images into a session, by its manifest.csv or as pictures of one kind."""
    from rigs import interchange

    done = interchange.import_folder(directory, session, kind=kind, bayer=bayer, assume_linear=assume_linear)
    _tell(session, done)


@import_app.command("emva", epilog="Example: `gnomon import emva set001/ out/set001`")
def import_emva(
    source: Annotated[Path, typer.Argument(help="EMVA 1288 descriptor text, or the folder it lies in.")],
    session: NewSession,
    bayer: BayerOption = None,
) -> None:
    """Turn an EMVA 1288 image set into a session for `calibrate sensor`."""
    from rigs import interchange

    _tell(session, interchange.import_emva(source, session, bayer=bayer))


@import_app.command("diligent", epilog="Example: `gnomon import diligent ballPNG/ out/ball`")
def import_diligent(
    directory: Annotated[
        Path, typer.Argument(help="Folder with filenames.txt, light_directions.txt, light_intensities.txt.")
    ],
    session: NewSession,
) -> None:
    """Turn a DiLiGenT object into a session, with its lights, mask and true normals in `given/`."""
    from rigs import interchange

    _tell(session, interchange.import_diligent(directory, session))


@import_app.command("lp", epilog="Example: `gnomon import lp coin/coin.lp out/coin`")
def import_lp(
    lights: Annotated[Path, typer.Argument(help="Light list (.lp) that names its pictures.")],
    session: NewSession,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures, where they are not beside the list.")
    ] = None,
    assume_linear: LinearOption = False,
) -> None:
    """Turn a light list of RTI and its pictures into a session, with the lights in `given/`."""
    from rigs import interchange

    _tell(session, interchange.import_lp(lights, session, images=images, assume_linear=assume_linear))


@import_app.command("two-spheres", epilog="Example: `gnomon import two-spheres cat/ out/cat`")
def import_two_spheres(
    directory: Annotated[
        Path, typer.Argument(help="Folder with Objects, LightProbe-1 and LightProbe-2, and the lights' file.")
    ],
    session: NewSession,
) -> None:
    """Turn a capture with two mirror balls into a session: cameras `main`, `probe-1` and `probe-2`."""
    from rigs import interchange

    _tell(session, interchange.import_two_spheres(directory, session))


def _tell(path: Path, done: "Session") -> None:
    for kind in ("warnings", "notes"):
        for text in done.facts.get(kind, []):
            typer.echo(f"{kind[:-1]}: {text}", err=True)
    for name in done.facts.get("given", []):
        say(str(path / name))
    say(f"{path}: {counted(len(done.frames), 'frame')}, digest {done.digest[:12]}")
