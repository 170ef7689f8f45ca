"""Lens models from sessions, how sure they are, and the next view to take."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from calibration.lens import LensModel, fit_lens
from calibration.lens.agreement import compare_halves
from calibration.lens.guidance import Suggestion, first_lens, idle_views, suggest_views
from calibration.lens.uncertainty import image_grid, projection_sigma, working_distance_mm
from calibration.lens.verdict import place_in_words
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.targets.boards import Board, Checkerboard, NoBoard, corners_mm, detect_board, size_mm
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.encoding import Doubt, doubted, doubts_of
from rigs.workflows.frames import gray, merged_of, of_kind, provenance_of, sensor_for
from rigs.workflows.progress import Track, silent

LensKind = Literal["auto", "brown-4", "brown-5", "brown-8", "fisheye", "splined"]


def calibrate_lens(
    session: Session,
    board: Board,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    track: Track = silent,
) -> LensModel:
    """Lens from the session's ``board`` frames; frames of one pose count as one view.

    Parameters
    ----------
    board : Board
        As printed.

    Raises
    ------
    FitError
        No board in any view, or views that give no camera; says why and what to do.
    """
    stack = of_kind(session, camera, "board")
    radiometric = sensor_for(session, stack, sensor)
    views, names, missed = [], [], []
    for name, view in track(board_views(session, stack), "finding boards"):
        found = detect_board(gray(merged_of(view, radiometric).value), board)
        if isinstance(found, NoBoard):
            missed.append(f"{name} ({found.reason})")
        else:
            views.append(found)
            names.append(name)
    if not views:
        raise FitError(f"{session.path}: the board was found in none of {len(missed)} views: {missed[0]}")
    height, width = stack.shape[1:3]
    lens = fit_lens(
        views, width, height, names=names, provenance=provenance_of(session, board=board.kind)
    ).replace(view_names=tuple(names))
    doubts = doubts_of(session, stack.records[0].shot.camera, sensor)
    if missed:
        told = f"board not found in {len(missed)} of {len(missed) + len(names)} views: {', '.join(missed)}"
        doubts = (Doubt(told), *doubts)
    return doubted(lens, doubts)


def describe_lens(lens: LensModel) -> Iterator[str]:
    """What a fit found and how sure it is, in a few lines."""
    if lens.covariance is None or lens.observations is None or lens.views is None:
        return
    sigma = np.sqrt(np.diag(lens.covariance))
    fx, fy, cx, cy = (f"{lens.parameters[i]:.{_decimals(sigma[i])}f} +- {sigma[i]:.2g}" for i in range(4))
    yield f"focal lengths {fx}, {fy} px; principal point {cx}, {cy} px"
    free = [name for name, one in zip(lens.names, sigma, strict=True) if one > 0][4:]
    shown = ", ".join(free) if len(free) <= 8 else f"{len(free)} parameters"
    why = str(lens.provenance.options.get("chosen", ""))
    yield f"distortion {lens.MODEL}: {shown or 'none'}{f' ({why})' if why else ''}"
    distance, grid = working_distance_mm(lens), image_grid(lens)
    unsure = projection_sigma(lens, distance, grid)
    if np.isfinite(unsure).any():
        worst = grid.reshape(-1, 2)[int(np.nanargmax(unsure))]
        yield (
            f"a point {distance:.0f} mm away is imaged to {np.nanmedian(unsure):.2g} px (median over the "
            f"image), {np.nanmax(unsure):.2g} px at worst ({place_in_words(lens, worst)})"
        )
    halves = compare_halves(lens)
    if halves is not None:
        yield (
            f"halves of the views differ by {halves.rms:.2g} px; {halves.expected:.2g} expected from the "
            f"covariance, {halves.limit:.2g} at most"
        )
    idle = idle_views(lens)
    if idle:
        yield f"views that together add less than 2 %: {', '.join(view_name(lens, i) for i in idle)}"


def view_name(lens: LensModel, number: int) -> str:
    """Name of a view, or its number from 1."""
    return lens.view_names[number] if lens.view_names else f"view {number + 1}"


def guide(
    lens: LensModel | None, board: Board, *, size: tuple[int, int] | None = None, count: int = 3
) -> tuple[LensModel, tuple[Suggestion, ...]]:
    """Next views to take for a lens, or the first ones where there is no lens yet.

    Parameters
    ----------
    lens : LensModel or None
        Fitted here; its covariance and views are asked.
    size : (int, int), optional
        Width and height of the pictures, where there is no lens.

    Returns
    -------
    LensModel
        Of the outlines: ``lens``, or a guess.
    tuple of Suggestion

    Raises
    ------
    ConfigError
        Neither a lens nor a size.
    FitError
        The model comes without covariance or views, or is of another size; no board fits into the image.
    """
    if lens is None:
        if size is None:
            raise ConfigError("no lens model: the size of the pictures is needed (--picture or --size)")
        lens = first_lens(*size)
    elif lens.covariance is None or lens.views is None or lens.observations is None:
        raise FitError("the lens model comes without covariance and views: only a fit of gnomon has them")
    elif size is not None and size != (lens.width, lens.height):
        raise FitError(
            f"lens model is for {lens.width} x {lens.height} px, the picture is {size[0]} x {size[1]}"
        )
    suggestions = suggest_views(
        lens, corners_mm(board), size_mm(board), count=count, whole=isinstance(board, Checkerboard)
    )
    if not suggestions:
        raise FitError("the whole board does not fit into the image at the distances seen so far")
    return lens, suggestions


def board_views(session: Session, stack: Stack) -> list[tuple[str, Stack]]:
    """Frames of one pose, unless they repeat each other: then nobody named the poses and each is a view."""
    sources = session.facts.get("files", [])
    views = []
    for pose in dict.fromkeys(stack.poses):
        group = stack.select(pose=pose)
        keys = [(r.shot.light, r.exposure_s, r.shot.repeat) for r in group.records]
        if len(set(keys)) == len(keys):
            views.append((pose, group))
            continue
        for i, record in enumerate(group.records):
            index = record.shot.index
            name = str(sources[index]) if index < len(sources) else f"frame {index}"
            views.append((name, group[i : i + 1]))
    return views


def _decimals(sigma: float) -> int:
    return max(1 - int(np.floor(np.log10(sigma))), 0) if sigma > 0 else 4
