"""``gnomon target``: a board to print."""

from pathlib import Path
from typing import Annotated

import typer

from rigs.cli.app import app
from rigs.cli.options import board_of, say


@app.command(
    "target",
    epilog="Example: `gnomon target configs/targets/charuco.yaml --out board.pdf --paper a3`",
)
def target(
    board: Annotated[
        str,
        typer.Argument(help="Target file (configs/targets/*.yaml, or Kalibr's), or 'checkerboard 9x6 25'."),
    ],
    out: Annotated[Path, typer.Option(help="Page to write; ends in .pdf or .svg.")],
    paper: Annotated[
        str, typer.Option(help="a4, a3, a2, a1, a0, letter, tabloid, or WIDTHxHEIGHT in mm.")
    ] = "a4",
    margin: Annotated[float, typer.Option(help="White border of the sheet, mm.")] = 10.0,
) -> None:
    """Write a calibration board at its true size, with a ruler to check the print."""
    from rigs import workflows

    sheet = workflows.parse_paper(paper)
    say(workflows.print_board(out, board_of(board, None), sheet, margin_mm=margin))
