"""Lens models from sessions, how sure they are, and the next view to take."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from calibration.lens import LensKind as FittedKind
from calibration.lens import LensModel, choose_lens
from calibration.lens.agreement import agreement
from calibration.lens.choice import CANDIDATES
from calibration.lens.guidance import Suggestion, first_lens, idle_views, seen_board, suggest_views
from calibration.lens.uncertainty import image_grid, projection_sigma, working_distance_mm
from calibration.lens.verdict import in_px, place_in_words
from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.targets.boards import (
    Board,
    BoardView,
    Checkerboard,
    CircleGrid,
    Misdescribed,
    NoBoard,
    corners_mm,
    size_mm,
)
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.encoding import Doubt, doubted, doubts_of
from rigs.workflows.frames import (
    board_in,
    of_kind,
    provenance_of,
    sensor_for,
    still_views,
    taken_again,
    told_once,
)

_ENOUGH = 4  # views in a row of another board: the rest, slow to search in vain, will say the same
LensKind = FittedKind | Literal["auto"]
"""Lens model by its name in options; ``auto`` is chosen by cross-validation."""


def calibrate_lens(
    session: Session,
    board: Board,
    *,
    model: LensKind = "auto",
    warp: bool = False,
    aspect: bool = False,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    track: Track = silent,
) -> LensModel:
    """Lens from the session's ``board`` frames; frames of one pose count as one view, copies once.

    Parameters
    ----------
    board : Board
        As described.
    model : str
        Kind of lens model.
    warp, aspect : bool
        The board may be bent; its squares may be higher than wide.

    Raises
    ------
    FitError
        No board in any view, or views that give no camera; says why and what to do.
    """
    stack = of_kind(session, camera, "board")
    radiometric = sensor_for(session, stack, sensor)
    seen, missed = list[tuple[str, BoardView]](), list[tuple[str, NoBoard]]()
    for name, view in track(board_views(session, stack), "finding boards"):
        found = board_in(view, radiometric, board)
        if isinstance(found, NoBoard):
            missed.append((name, found))
        else:
            seen.append((name, found))
        if not seen and len(missed) == _ENOUGH and all(isinstance(m, Misdescribed) for _, m in missed):
            raise FitError(
                f"{session.path}: the board was found in none of the first {_ENOUGH} views, and the rest is "
                f"not searched, since it is another than described: {_usual(missed)}"
            )
    if not seen:
        raise FitError(
            f"{session.path}: the board was found in none of {len(missed)} views: {_usual(missed)}"
        )
    again = taken_again(enumerate(view for _, view in seen))
    copies = [(seen[i][0], seen[first][0]) for i, first in again.items()]
    names, views = zip(*(one for i, one in enumerate(seen) if i not in again), strict=True)
    height, width = stack.shape[1:3]
    provenance = provenance_of(session, board=board.kind)
    told = f"board not found in {len(missed)} of {len(missed) + len(seen)} views"
    candidates = CANDIDATES if model == "auto" else (model,)
    try:
        lens = choose_lens(
            views,
            width,
            height,
            candidates=candidates,
            warp=warp,
            aspect=aspect,
            names=names,
            provenance=provenance,
        )
    except FitError as error:
        missing = [f"{told}: {_usual(missed)}"] if missed else []
        alike = [told_once(copies)] if copies else []
        raise FitError("; ".join((str(error), *missing, *alike))) from None
    lens = lens.replace(view_names=names)
    doubts = doubts_of(session, stack.records[0].shot.camera, sensor)
    if missed:
        every = ", ".join(f"{name} ({reason})" for name, (reason,) in missed)
        doubts = (Doubt(f"{told}: {every}"), *doubts)
    if copies:
        doubts = (Doubt(told_once(copies)), *doubts)
    return doubted(lens, doubts)


def _usual(missed: Sequence[tuple[str, NoBoard]]) -> str:
    """The most common reason, whatever its numbers, with the first view that has it."""
    kinds = [re.sub(r"[\d.]+", "", reason) for _, (reason,) in missed]
    kind = Counter(kinds).most_common(1)[0][0]
    name, (reason,) = missed[kinds.index(kind)]
    return f"{name} ({reason})"


def describe_lens(lens: LensModel) -> Iterator[str]:
    """What a fit found and how sure it is, in a few lines."""
    if lens.covariance is None or lens.observations is None or lens.views is None:
        return
    sigma = np.sqrt(np.diag(lens.covariance))
    fx, fy, cx, cy = (_with_sigma(value, one) for value, one in zip(lens.parameters[:4], sigma, strict=False))
    yield f"focal lengths {fx}, {fy} px; principal point {cx}, {cy} px"
    free = [name for name, one in zip(lens.names, sigma, strict=True) if one > 0][4:]
    shown = ", ".join(free) if len(free) <= 8 else f"{len(free)} parameters"
    yield f"distortion {lens.MODEL}: {shown or 'none'}"
    if lens.scores is not None:
        yield f"chosen {lens.scores.chosen}: {lens.scores.reason}"
    if lens.board is not None:
        shape = lens.board
        yield (
            f"board: bulge {shape.warp_mm[0]:.3f} mm along x, {shape.warp_mm[1]:.3f} mm along y; height to "
            f"width of a square {shape.aspect:.5f}"
        )
    distance, grid = working_distance_mm(lens), image_grid(lens)
    unsure = projection_sigma(lens, distance, grid)
    if np.isfinite(unsure).any():
        worst = place_in_words(lens, grid.reshape(-1, 2)[int(np.nanargmax(unsure))])
        usual, most = in_px(float(np.nanmedian(unsure))), in_px(float(np.nanmax(unsure)))
        yield (
            f"a point {distance:.0f} mm away is imaged to {usual} (median over the image), {most} at worst "
            f"({worst})"
        )
    if lens.covariance_factor > 1:
        times = np.sqrt(lens.covariance_factor)
        yield f"sigmas are enlarged {times:.1f} times, as the views disagree; the rest is held against them"
    changed, halves = agreement(lens)
    yield (
        f"views left out in turn change the projection {changed.ratio:.2f} times as much as expected; "
        f"{changed.limit:.2f} at most"
    )
    if halves is not None:
        yield (
            f"halves of the views differ by {in_px(halves.rms)}; {in_px(halves.expected)} expected, "
            f"{in_px(halves.limit)} at most"
        )
    idle = idle_views(lens)
    if idle:
        yield f"views that add less than 2 % each: {', '.join(view_name(lens, i) for i in idle)}"


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
    points, size_of_it, whole = corners_mm(board), size_mm(board), _wanted_whole(board)
    if lens.observations is not None and _is_seen(board, lens):
        points, size_of_it, whole = seen_board(lens)
    suggestions = suggest_views(lens, points, size_of_it, count=count, whole=whole)
    if not suggestions:
        raise FitError("the whole board does not fit into the image at the distances seen so far")
    return lens, suggestions


def _is_seen(board: Board, lens: LensModel) -> bool:
    """Whether the lens was fitted to this board: then its views tell how it is shown, as in the report."""
    points, described = seen_board(lens)[0], corners_mm(board)
    near = np.linalg.norm(points[:, None] - described, axis=-1).min(axis=1) < 1e-6 * np.ptp(described)
    return bool(near.all() and 2 * len(points) >= len(described))


def _wanted_whole(board: Board) -> bool:
    """Whether a part of the board says less than where it is."""
    return isinstance(board, CircleGrid) or (isinstance(board, Checkerboard) and not board.marker)


def board_views(session: Session, stack: Stack) -> list[tuple[str, Stack]]:
    """Views by pose; those of one pose, which nobody named, by their file or number."""
    sources = session.facts.get("files", [])
    views = []
    for pose, place, part in still_views(stack):
        index = part.records[0].shot.index
        file = str(sources[index]) if index < len(sources) else f"frame {index}"
        views.append((pose if place is None else file, part))
    return views


def _with_sigma(value: float, sigma: float) -> str:
    """Value with two digits of its sigma; a splined lens holds its nominal numbers."""
    if not sigma > 0:
        return f"{value:.2f} (held)"
    return f"{value:.{max(1 - int(np.floor(np.log10(sigma))), 0)}f} +- {sigma:.2g}"
