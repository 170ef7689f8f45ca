"""Boards in an image: found on a reduced picture, measured on the grey values themselves, and doubted."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.targets.boards.checkers import beyond, find_checkerboard
from calibration.targets.boards.circles import find_circles
from calibration.targets.boards.description import (
    AnyBoard,
    AprilGrid,
    Charuco,
    Checkerboard,
    CircleGrid,
    Ids,
    corners_mm,
    grid_shape,
    pitch_mm,
)
from calibration.targets.boards.layout import checkerboard_seen
from calibration.targets.boards.plausibility import (
    MIN_POINTS,
    bending,
    neighbourhood,
    plausible,
    spaced_out,
    unsharp,
)
from calibration.targets.boards.tags import (
    find_aprilgrid,
    find_charuco,
    markers_seen,
    with_unread,
)
from calibration.targets.boards.view import BoardView, Found, Misdescribed, NoBoard
from calibration.targets.corners import MAX_SHIFT_PX, Refined, refine_corners
from calibration.targets.discs import refine_discs

Grey = NDArray[np.uint8]
Image = NDArray[np.float32]
_SEARCH_PX = (1500, 3000)
_SMALL_PX = 1000  # pictures up to this size are also searched enlarged
_FLOOR_PX = 0.005  # what the models of corner and disc leave out


def detect_board(image: NDArray[Any], board: AnyBoard) -> BoardView | NoBoard:
    """Find the board's points, or say why there is no plausible board.

    The grey values are stretched robustly and the picture reduced to find the board; the positions come
    from a fit to the grey values themselves at full resolution (``refine_corners``, ``refine_discs``). Points
    that do not lie where their neighbours say are dropped.

    A point of a board with markers is known by them, part of the board is enough, and the ids are absolute.
    A plain checkerboard is taken as the pattern with the black square at its top left; where it looks the
    same after a turn (``symmetries``), the turn with its x axis most to the right is taken. Of a plain
    checkerboard that is partly out of view, the part found is counted from the sides that are in view with
    white paper behind them, else from the part's own top-left corner: good for ``fit_lens``, not to follow
    the board's origin or to compare cameras (``is_placed``). A circle grid must be in view as a whole.

    Refused, with the reason: fewer than six points, or all on a line; a mirrored board (a plain checkerboard
    and a circle grid look the same in a mirror, which cannot be told); black and white swapped; points that
    do not lie as the description says; a board that is larger than described; a picture smeared or badly
    blurred.

    Parameters
    ----------
    image : ndarray (h, w)
        Any real type, preferably linear; NaN and infinities are pixels to ignore.
    board : Board
        What to look for.

    Returns
    -------
    BoardView or NoBoard
        Points in the order of their ids; or the reason why there are none.

    Raises
    ------
    ValueError
        The image is not a grey one.
    """
    values = np.asarray(image)
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise ValueError(f"want a grey image (h, w) of real numbers, not {values.dtype} {values.shape}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        values = np.where(np.isfinite(values), values, np.float32(np.nan))
    best: BoardView | None = None
    # The reason of the attempt that came furthest is told.
    reason = _Reason(-1, "the picture is empty: all its pixels are alike")
    first: Grey | None = None
    for level in _levels(values):
        for grey in _renditions(level.values):
            first = grey if first is None else first
            view = _seen(values, level, grey, board)
            if isinstance(view, _Reason):
                reason = max(reason, view, key=lambda r: r.depth)
            elif best is None or len(view.ids) > len(best.ids):
                best = view
            enough = 0.9 if isinstance(board, AprilGrid) else 0.5
            if best is not None and len(best.ids) >= enough * len(corners_mm(board)):
                return best
            if isinstance(view, _Reason) and view.depth == _FINAL:
                return view.told()
        if best is not None and 4 * len(best.ids) >= len(corners_mm(board)):
            break
    if best is not None:
        return best
    return (reason if first is None else _explained(reason, first, values, board)).told()


class _Reason(NamedTuple):
    depth: int
    text: str
    is_other: bool = False  # another board than the one described is in view

    def told(self) -> NoBoard:
        return Misdescribed(self.text) if self.is_other else NoBoard(self.text)


_UNSEEN, _MISPLACED, _FINAL = 0, 1, 2


class _Level(NamedTuple):
    """The picture reduced (or enlarged) and the factor from its pixels to the full ones."""

    values: Image
    factor: float

    def full(self, pixels: Float) -> Float:
        return np.asarray((pixels + 0.5) * self.factor - 0.5)


def _levels(values: Image) -> Iterator[_Level]:
    longest, last = max(values.shape), 0
    for size in _SEARCH_PX:
        factor = int(np.ceil(longest / size))
        if factor != last:
            yield _reduced(values, factor)
        last = factor
    if longest <= _SMALL_PX:
        twice = cv2.resize(values, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        yield _Level(np.asarray(twice, np.float32), 0.5)


def _reduced(values: Image, factor: int) -> _Level:
    if factor <= 1:
        return _Level(values, 1)
    height, width = (n // factor for n in values.shape)
    whole = values[: height * factor, : width * factor]
    return _Level(np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)), factor)


def _renditions(values: Image) -> Iterator[Grey]:
    """8-bit pictures to search, the plain one first, then ones that lift the shadows."""
    valid = np.isfinite(values)
    if not valid.any():
        return
    low, high = (float(q) for q in np.percentile(values[valid], (0.5, 99.5)))
    if not high > low:
        return
    scaled = np.clip((np.where(valid, values, high) - low) / (high - low), 0, 1)
    if not valid.all():
        # A defect takes its neighbours' grey; the middle of a large hole is saturated, hence white.
        weight = cv2.blur(valid.astype(np.float32), (5, 5))
        near = cv2.blur(np.where(valid, scaled, 0).astype(np.float32), (5, 5)) / np.maximum(weight, 1e-6)
        scaled = np.where(valid | (weight < 1e-3), scaled, near)
    plain = np.asarray(np.rint(255 * scaled), np.uint8)
    yield plain
    yield np.asarray(np.rint(255 * scaled**0.4), np.uint8)
    quantiles = np.quantile(values[valid], np.linspace(0, 1, 513))
    rank = np.interp(np.where(valid, values, high), quantiles, np.linspace(0, 255, 513))
    yield np.asarray(np.rint(rank), np.uint8)


def _seen(values: Image, level: _Level, grey: Grey, board: AnyBoard) -> BoardView | _Reason:
    """One attempt: find, doubt, measure, doubt."""
    if isinstance(board, CircleGrid):
        discs = find_circles(grey, board)
        if isinstance(discs, NoBoard):
            return _Reason(_UNSEEN, discs.reason)
        return _measured_discs(values, level, board, *discs)
    match board:
        case Checkerboard():
            found = find_checkerboard(grey, board)
        case Charuco():
            found = find_charuco(grey, board)
        case AprilGrid():
            found = find_aprilgrid(grey, board)
    if isinstance(found, NoBoard):
        other = isinstance(found, Misdescribed)
        return _Reason(_FINAL if other else _UNSEEN, found.reason, other)
    keep = plausible(corners_mm(board)[found.ids], found.pixels, pitch_mm(board))
    if isinstance(keep, NoBoard):
        return _Reason(_MISPLACED, keep.reason)
    found = Found(found.ids[keep], found.pixels[keep])
    if isinstance(board, Checkerboard):
        sparse = spaced_out(grey, corners_mm(board)[found.ids], found.pixels, board.square_mm)
        if sparse is not None:
            return _Reason(_MISPLACED, sparse.reason)
    if isinstance(board, Charuco | AprilGrid):
        found = with_unread(found, board)
    scale = level if level.factor >= 1 else _Level(values, 1)
    if level.factor < 1:
        found = Found(found.ids, level.full(found.pixels))
    refined = _measured(scale.values, found, board)
    dull = _dull(refined, found, board)
    if dull is not None:
        return _Reason(_FINAL, dull.reason)
    if scale.factor > 1:
        start = Found(found.ids, scale.full(np.where(refined.good[:, None], refined.pixels, found.pixels)))
        fine = _measured(values, start, board)
        # A picture softer than the fit follows is as good reduced.
        soft = fine.good.sum() < 0.8 * refined.good.sum()
        refined = _enlarged(refined, scale) if soft else fine
        found = start
    return _doubted(values, found, refined, board)


def _enlarged(refined: Refined, scale: _Level) -> Refined:
    f = scale.factor
    return refined._replace(
        pixels=scale.full(refined.pixels), sigma_px=refined.sigma_px * f, blur_px=refined.blur_px * f
    )


def _dull(refined: Refined, found: Found, board: AnyBoard) -> NoBoard | None:
    axes, _ = neighbourhood(corners_mm(board)[found.ids], found.pixels, pitch_mm(board))
    pitch_px = float(np.median(np.sqrt(np.abs(np.linalg.det(axes)))))
    fitted = np.linalg.norm(refined.pixels - found.pixels, axis=1) < 0.25 * pitch_px
    return unsharp(refined.normals[fitted].reshape(-1, 2), refined.blur_px[fitted].ravel(), pitch_px)


def _measured(values: Image, found: Found, board: AnyBoard) -> Refined:
    """Fit of the corners: with straight edges, then with the bend that the corners' own grid shows."""
    points, pitch = corners_mm(board)[found.ids], pitch_mm(board)
    side, clear = 1.0, 1.0
    if isinstance(board, Charuco):
        clear = (1 - board.marker_mm / board.square_mm) / 2
    elif isinstance(board, AprilGrid):
        # The small square is the shorter of the two; the tag's bits begin behind two modules of border.
        side = board.gap_mm / pitch
        clear = min(0.2 * board.tag_mm / board.gap_mm, 1.0)
    axes, _ = neighbourhood(points, found.pixels, pitch)
    straight = refine_corners(values, found.pixels, axes * side, clear)
    good = straight.good
    if good.sum() < 2 * MIN_POINTS:
        return straight
    bend = np.zeros_like(axes)
    bend[good] = bending(points[good], straight.pixels[good], pitch)
    start = np.where(good[:, None], straight.pixels, found.pixels)
    bent = refine_corners(values, start, axes * side, clear, bend * side**2)
    near = np.linalg.norm(bent.pixels - found.pixels, axis=1) < MAX_SHIFT_PX
    return bent._replace(good=bent.good & near)


def _doubted(values: Image, found: Found, refined: Refined, board: AnyBoard) -> BoardView | _Reason:
    columns = grid_shape(board)[1]
    first = isinstance(board, Charuco) and board.white_first
    swapped = refined.bright_diagonal ^ ((found.ids // columns + found.ids % columns) % 2 == 1) ^ first
    if refined.good.sum() and 2 * np.sum(swapped & refined.good) > np.sum(refined.good):
        return _Reason(_MISPLACED, "black and white are swapped: off by a square, or a negative")
    good = refined.good & ~swapped
    points = corners_mm(board)[found.ids]
    keep = plausible(points[good], refined.pixels[good], pitch_mm(board))
    if isinstance(keep, NoBoard):
        few = f"{len(good)} of its points found, but no clear corner at {len(good) - good.sum()} of them"
        return _Reason(_MISPLACED, keep.reason if good.all() else few)
    view = _view(board, found.ids[good][keep], refined.pixels[good][keep], refined.sigma_px[good][keep])
    if isinstance(board, Checkerboard) and is_placed(board, view):
        larger = _larger(values, view, board)
        if larger is not None:
            return _Reason(_FINAL, larger)
    return view


def _view(board: AnyBoard, ids: Ids, pixels: Float, sigma_px: Float) -> BoardView:
    order = np.argsort(ids)
    sigma = np.hypot(sigma_px[order], _FLOOR_PX)
    radius = board.disc_mm if isinstance(board, CircleGrid) else 0.0
    return BoardView(ids[order], corners_mm(board)[ids[order]], pixels[order], sigma, radius)


def _larger(values: Image, view: BoardView, board: Checkerboard) -> str | None:
    """Whether the pattern goes on beyond one of the board's sides."""
    for side in beyond(view.ids, view.pixels, board):
        height, width = values.shape
        inside = np.all((side.pixels > 2) & (side.pixels < (width - 3, height - 3)), axis=1)
        if inside.sum() < 3:
            continue
        axes, _ = neighbourhood(view.points_mm, view.pixels, board.square_mm)
        nearest = np.argmin(np.linalg.norm(side.pixels[inside][:, None] - view.pixels, axis=2), axis=1)
        more = refine_corners(values, side.pixels[inside], axes[nearest], 1.0)
        # At the pattern's outer border, too, edges meet; the fit to them is a poor one.
        clear = more.good & (more.sigma_px < 3 * np.median(view.sigma_px))
        even = more.bright_diagonal == (side.ids[inside] % 2 == 0)
        alternating = max(np.mean(clear & even), np.mean(clear & ~even))
        if alternating > 0.6:
            return f"the pattern goes on beyond the {board.columns}x{board.rows} corners described"
    return None


def _measured_discs(
    values: Image, level: _Level, board: CircleGrid, found: Found, shape: Float
) -> BoardView | _Reason:
    pitch = pitch_mm(board)
    points = corners_mm(board)[found.ids]
    keep = plausible(points, found.pixels, pitch)
    if isinstance(keep, NoBoard):
        return _Reason(_MISPLACED, keep.reason)
    discs = refine_discs(values, level.full(found.pixels), shape * level.factor)
    axes, _ = neighbourhood(points, level.full(found.pixels), pitch)
    pitch_px = float(np.median(np.sqrt(np.abs(np.linalg.det(axes)))))
    blur = float(np.median(discs.blur_px[discs.good])) if discs.good.any() else np.inf
    if blur > max(2.5, 0.12 * pitch_px):
        return _Reason(
            _FINAL, f"the picture is blurred: discs are {blur:.1f} px soft, {pitch_px:.0f} px apart"
        )
    radius = np.sqrt(np.abs(np.linalg.det(discs.shape)) / np.abs(np.linalg.det(axes))) * pitch
    if discs.good.any() and not 0.75 < np.median(radius[discs.good]) / board.disc_mm < 1.33:
        seen = 2 * float(np.median(radius[discs.good]))
        return _Reason(
            _FINAL, f"the discs are {seen:.3g} mm wide where diameter_mm {2 * board.disc_mm:.3g} is described"
        )
    keep = plausible(points[discs.good], discs.pixels[discs.good], pitch)
    if isinstance(keep, NoBoard):
        return _Reason(_MISPLACED, keep.reason)
    ids = found.ids[discs.good][keep]
    return _view(board, ids, discs.pixels[discs.good][keep], discs.sigma_px[discs.good][keep])


def is_placed(board: AnyBoard, view: BoardView) -> bool:
    """Whether the view's ids are those of the board, up to its ``symmetries``.

    False for a plain checkerboard of which only a part is in view: its rows and columns are then counted from
    those sides that are in view, or from the part's own corner.
    """
    if not isinstance(board, Checkerboard) or board.marker:
        return True
    rows, columns = view.ids // board.columns, view.ids % board.columns
    return bool(np.ptp(rows) == board.rows - 1 and np.ptp(columns) == board.columns - 1)


def _explained(reason: _Reason, grey: Grey, values: Image, board: AnyBoard) -> _Reason:
    """The reason, with what was seen instead."""
    text = reason.text
    if isinstance(board, Charuco | AprilGrid):
        if _shows(np.ascontiguousarray(grey[:, ::-1]), board):
            return _Reason(_FINAL, "the board is seen mirrored: turn the picture back")
        if _shows(255 - grey, board):
            return _Reason(
                _FINAL, "black and white are swapped: the picture, or the print, is a negative", is_other=True
            )
        if reason.depth == _UNSEEN and (other := markers_seen(grey)) is not None:
            return _Reason(_FINAL, f"{text}; {other} seen", is_other=True)
    if reason.depth > _UNSEEN:
        return reason
    dull = _dullness(grey)
    if dull is None and isinstance(board, Charuco | AprilGrid) and (plain := checkerboard_seen(grey)):
        return reason._replace(text=f"{text}; {plain}")
    finite = values[np.isfinite(values)]
    if finite.size and np.mean(finite == finite.max()) > 0.5:
        return reason._replace(text=f"{text}; more than half of the picture is saturated")
    return reason if dull is None else reason._replace(text=f"{text}; {dull}")


def _shows(grey: Grey, board: Charuco | AprilGrid) -> bool:
    """Whether the board is in this version of the picture."""
    found = find_charuco(grey, board) if isinstance(board, Charuco) else find_aprilgrid(grey, board)
    if isinstance(found, NoBoard):
        return False
    return not isinstance(plausible(corners_mm(board)[found.ids], found.pixels, pitch_mm(board)), NoBoard)


def _dullness(grey: Grey) -> str | None:
    """What ails a picture without any sharp edge."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32)
    slope = np.hypot(
        cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125)
    )
    steepest = float(np.percentile(slope, 99.9))
    width = 255.0 / max(steepest, 1e-3)
    return f"the picture is blurred: its sharpest edges are about {width:.0f} px wide" if width > 12 else None
