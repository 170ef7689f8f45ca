"""``gnomon undistort``: pictures without distortion."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rigs.cli.app import app
from rigs.cli.options import (
    CameraOption,
    LensOption,
    RigOption,
    folder,
    geometry_of,
    models_of,
    say,
    track,
)

if TYPE_CHECKING:
    from rigs.workflows import Source


@app.command(
    epilog="Example: `gnomon undistort out/stack-hdr/*.exr --lens models/lens.json --out out/straight`"
)
def undistort(
    pictures: Annotated[
        list[Path],
        typer.Argument(help="Pictures, masks, EXRs of `merge` or `reconstruct`; or one session."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures, their lens and mask.", callback=folder)],
    lens: LensOption = None,
    rig: RigOption = None,
    camera: CameraOption = None,
    view: Annotated[
        Literal["crop", "keep-all", "same"],
        typer.Option(
            help="crop: every pixel was seen; keep-all: nothing is left out; same: the lens's focal length."
        ),
    ] = "crop",
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of the new pictures; as they are without.")
    ] = None,
    cameras: Annotated[
        Path | None,
        typer.Option(
            help="For --pair: cameras of `calibrate rig` (.json), a camchain; pinned in --rig without."
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="LEFT,RIGHT",
            help="Rectify: a scene point comes to lie in one row of both cameras' pictures. Pictures are "
            "those of --camera; a session has both.",
        ),
    ] = None,
) -> None:
    """Take the lens distortion out of pictures, masks, normal maps, depth and merged radiance.

    Integers stay integers, EXRs keep their channels and header. Beside them the new lens, without distortion,
    for later steps, and a mask of the pixels that the camera saw.
    """
    from rigs import workflows
    from rigs.config import ConfigError

    if pair is not None:
        if lens is not None or size is not None:
            raise ConfigError("--pair takes lenses and size from the cameras: leave --lens and --size out")
        _rectified(pictures, out, rig, cameras, pair, camera, view)
        return
    if cameras is not None:
        raise ConfigError("--cameras is for --pair LEFT,RIGHT; of one camera give --lens FILE#NAME")
    _, model = models_of(rig, camera, None, lens)
    if model is None:
        raise ConfigError("no lens model: give --lens, or --rig with a pinned one")
    by = workflows.view_of(model, view, size=None if size is None else workflows.parse_size(size))
    for path in workflows.undistort_pictures(_sources(pictures, camera), by, out, lens=lens):
        say(str(path))


def _rectified(
    pictures: list[Path],
    out: Path,
    rig: Path | None,
    cameras: Path | None,
    pair: str,
    camera: str | None,
    view: Literal["crop", "keep-all", "same"],
) -> None:
    from rigs import workflows
    from rigs.config import ConfigError

    views = workflows.rectified_pair(geometry_of(rig, cameras), pair, view)
    names = views.names
    if camera is not None and camera not in names:
        raise ConfigError(f"--camera {camera}: not of the pair {pair}")
    session = _is_session(pictures)
    if camera is None and not session:
        raise ConfigError(f"which camera took the pictures? --camera {names[0]} or --camera {names[1]}")
    for name, by in zip(names, views.by, strict=True):
        if camera in (None, name):
            sources = _sources(pictures, name, f"{name}-" if session else "")
            for path in workflows.undistort_pictures(sources, by, out, name=f"{name}-view", lens=cameras):
                say(str(path))
    say(f"baseline {views.baseline_mm:.4f} mm; a scene point has one place across the {views.along}")


def _is_session(pictures: list[Path]) -> bool:
    return len(pictures) == 1 and (pictures[0] / "plan.json").is_file()


def _sources(pictures: list[Path], camera: str | None, prefix: str = "") -> "Iterator[Source]":
    from capture.session import Session
    from rigs import interchange, workflows

    if _is_session(pictures):
        yield from track(
            workflows.session_pictures(Session.open(pictures[0]), camera, prefix), "undistorting"
        )
        return
    for path in track(pictures, "undistorting"):
        yield interchange.read_picture(path)
