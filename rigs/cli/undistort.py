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
    from rigs.workflows import Source, Sources


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
    series = workflows.Series(_sources(pictures, camera), by)
    for path in workflows.undistort_pictures([series], out, lens=lens):
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
    if camera is None and not _is_session(pictures):
        raise ConfigError(f"which camera took the pictures? --camera {names[0]} or --camera {names[1]}")
    series = [
        workflows.Series(_sources(pictures, name, names), by, f"{name}-")
        for name, by in zip(names, views.by, strict=True)
        if camera in (None, name)
    ]
    for path in workflows.undistort_pictures(series, out, lens=cameras):
        say(str(path))
    shared = "row" if views.along == "rows" else "column"
    say(f"baseline {views.baseline_mm:.4f} mm; a scene point lies in one {shared} of both pictures")


def _is_session(pictures: list[Path]) -> bool:
    return len(pictures) == 1 and (pictures[0] / "plan.json").is_file()


def _sources(pictures: list[Path], camera: str | None, pair: tuple[str, ...] = ()) -> "Sources":
    """Pictures or a session's frames, as often as they are asked for; those of a pair are numbered alike."""
    from capture.session import Session
    from rigs import interchange, workflows

    def sources(what: str) -> "Iterator[Source]":
        if not _is_session(pictures):
            for path in track(pictures, what):
                yield interchange.read_picture(path)
            return
        session = Session.open(pictures[0])
        if pair and camera is not None:
            yield from track(workflows.paired_pictures(session, pair, camera), what)
        else:
            yield from track(workflows.session_pictures(session, camera), what)

    return sources
