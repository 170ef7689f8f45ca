"""``gnomon guide``: which view of the board to take next."""

from pathlib import Path
from typing import Annotated

import typer

from rigs.cli.app import app
from rigs.cli.options import BoardOption, RigOption, board_of, rig_config, say


@app.command(
    epilog="Example: `gnomon guide models/lens.json --board 'charuco 11x8 10 7.5' --out out/guide.png`"
)
def guide(
    lens: Annotated[
        Path | None, typer.Argument(help="Lens model so far (.json); without it, the first views to take.")
    ] = None,
    board: BoardOption = None,
    rig: RigOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="A frame of the camera, to draw the outlines over.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Of the pictures, without lens and picture."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=12, help="How many views to name.")] = 3,
    out: Annotated[Path | None, typer.Option(help="PNG file to draw the outlines in.")] = None,
) -> None:
    """The next poses of the board that would reduce the uncertainty of the lens most."""
    from calibration.files import write_bytes
    from rigs import workflows
    from rigs.config import ConfigError
    from rigs.interchange import ImageError, read_image, read_lens
    from rigs.report import lens_plots

    if out is not None and (out.suffix.lower() != ".png" or out.is_dir()):
        raise ConfigError(f"{out}: want a file that ends in .png")
    try:
        frame = None if picture is None else read_image(picture).dn
    except ImageError as error:
        raise ConfigError(f"{picture}: {error}") from None
    told = None if size is None else workflows.parse_size(size)
    if frame is not None:
        told = frame.shape[1], frame.shape[0]
    model, suggestions = workflows.guide(
        None if lens is None else read_lens(lens),
        board_of(board, rig_config(rig)),
        size=told,
        count=count,
    )
    for place, one in enumerate(suggestions, start=1):
        gain = "" if lens is None else f" ({100 * one.gain:.0f} % of the mean variance)"
        say(f"{place}. {one.words}{gain}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, lens_plots.next_views(model, suggestions, frame))
        say(str(out))
