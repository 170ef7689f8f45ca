"""Boards on paper: true-size pages as PDF or SVG, with a ruler to check the print."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.files import write_bytes
from calibration.targets.boards import AnyBoard, Pattern, described, pattern, size_mm
from rigs.config import ConfigError

_PT_PER_MM = 72 / 25.4
_PAPERS = {
    "a4": (210.0, 297.0),
    "a3": (297.0, 420.0),
    "a2": (420.0, 594.0),
    "a1": (594.0, 841.0),
    "a0": (841.0, 1189.0),
    "letter": (215.9, 279.4),
    "tabloid": (279.4, 431.8),
}
_FOOT_MM = 12.0  # for the ruler and the text, below the pattern
_TEXT_MM = 3.0
_CIRCLE = 4 * (np.sqrt(2) - 1) / 3  # handle of a Bezier quarter: its circle is true to 3e-4 of the radius


class Paper(NamedTuple):
    """A sheet, mm."""

    name: str
    width_mm: float
    height_mm: float


def parse_paper(text: str) -> Paper:
    """``a4``, ``a3``, ``letter`` and the like, or ``WIDTHxHEIGHT`` in mm."""
    known = _PAPERS.get(text.lower())
    if known is not None:
        return Paper(text.lower(), *known)
    try:
        width, height = (float(side) for side in text.lower().split("x"))
    except ValueError:
        raise ConfigError(f"paper {text!r}: want {', '.join(_PAPERS)} or WIDTHxHEIGHT in mm") from None
    if not (0 < width < 1e4 and 0 < height < 1e4):
        raise ConfigError(f"paper {text!r}: sides must be above 0 and below 10000 mm")
    return Paper(f"{width:g} x {height:g} mm", width, height)


def print_board(path: Path, board: AnyBoard, paper: Paper, *, margin_mm: float = 10.0) -> str:
    """Write a board at its true size to a ``.pdf`` or ``.svg``; the sheet is turned where that fits better.

    Below the pattern stand a line of 100 mm (50 mm on a narrow sheet), to hold a ruler to, and the board's
    text form. PDF viewers are asked not to scale; a printer's driver may do so still.

    Returns
    -------
    str
        What was written, in one line.

    Raises
    ------
    ConfigError
        Another suffix; a board larger than the sheet: says what would fit.
    """
    if path.suffix.lower() not in (".pdf", ".svg"):
        raise ConfigError(f"{path}: want a file that ends in .pdf or .svg")
    page = _laid_out(board, paper, margin_mm)
    data = _pdf(page) if path.suffix.lower() == ".pdf" else _svg(page).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    width, height = size_mm(board)
    return (
        f"{path}: {described(board)}, pattern {width:g} x {height:g} mm on {page.width_mm:g} x "
        f"{page.height_mm:g} mm; print at 100 % and check the line of {page.ruler_mm:g} mm"
    )


class _Page(NamedTuple):
    width_mm: float
    height_mm: float
    corner_mm: tuple[float, float]
    print: Pattern
    ruler_mm: float
    foot_mm: float
    left_mm: float
    text: str


def _laid_out(board: AnyBoard, paper: Paper, margin_mm: float) -> _Page:
    width, height = size_mm(board)
    if not 0 <= margin_mm < np.inf:
        raise ConfigError(f"margin {margin_mm:g} mm: want 0 or more")
    upright = (paper.width_mm, paper.height_mm)
    sheets = (upright, upright[::-1]) if width <= height else (upright[::-1], upright)
    rooms = [(w - 2 * margin_mm, h - 2 * margin_mm - _FOOT_MM) for w, h in sheets]
    if min(min(room) for room in rooms) <= 0:
        raise ConfigError(f"paper {paper.name}: margins of {margin_mm:g} mm leave no room")
    scales = [min(w / width, h / height) for w, h in rooms]
    fits = [k for k, scale in enumerate(scales) if scale >= 1 - 1e-9]
    if not fits:
        raise ConfigError(_too_large(board, paper, margin_mm, max(scales)))
    w, h = sheets[fits[0]]
    room = rooms[fits[0]]
    corner = ((w - width) / 2, margin_mm + (room[1] - height) / 2)
    ruler = 100.0 if room[0] >= 100 else 50.0
    left = max(margin_mm, 2.0)
    return _Page(w, h, corner, pattern(board), ruler, h - margin_mm - 2.0, left, described(board))


def _too_large(board: AnyBoard, paper: Paper, margin_mm: float, scale: float) -> str:
    width, height = size_mm(board)
    larger = [
        name
        for name, (w, h) in _PAPERS.items()
        if min(w, h) - 2 * margin_mm >= min(width, height) + _FOOT_MM
        and max(w, h) - 2 * margin_mm >= max(width, height) + _FOOT_MM
    ]
    on = (
        f"--paper {larger[0]}"
        if larger
        else f"a sheet of {width + 2 * margin_mm:.0f} x " + (f"{height + 2 * margin_mm + _FOOT_MM:.0f} mm")
    )
    percent = np.floor(1000 * scale) / 10
    return (
        f"{described(board)} is {width:g} x {height:g} mm, too large for {paper.name} with margins of "
        f"{margin_mm:g} mm: {percent:g} % of its size would fit; make it smaller or take {on}"
    )


def _runs(page: _Page) -> NDArray[np.float64]:
    """Black rectangles x, y, width, height, mm on the page: of each row of cells the runs of black."""
    x, y, cells, _ = page.print
    out = []
    for row, line in enumerate(cells):
        black = np.pad((line < 0.5).astype(int), 1)
        starts, ends = np.flatnonzero(np.diff(black) == 1), np.flatnonzero(np.diff(black) == -1)
        out += [(x[a], y[row], x[b] - x[a], y[row + 1] - y[row]) for a, b in zip(starts, ends, strict=True)]
    left, top = page.corner_mm
    return np.asarray(np.array(out).reshape(-1, 4) + np.array((left, top, 0.0, 0.0)))


def _number(value: float) -> str:
    return f"{value:.5f}".rstrip("0").rstrip(".") or "0"


def _words(*values: float) -> str:
    return " ".join(map(_number, values))


def _svg(page: _Page) -> str:
    # One path for all rectangles: a renderer that draws them apart leaves hairlines between them.
    path = "".join(f"M{_words(x, y)}h{_number(w)}v{_number(h)}h{_number(-w)}z" for x, y, w, h in _runs(page))
    discs = "".join(
        f'<circle cx="{_number(x + page.corner_mm[0])}" cy="{_number(y + page.corner_mm[1])}" '
        f'r="{_number(r)}" fill="{"#fff" if colour > 0.5 else "#000"}"/>\n'
        for x, y, r, colour in page.print.discs
    )
    w, h = _number(page.width_mm), _number(page.height_mm)
    ruler = "".join(f"M{_words(*start)}L{_words(*end)}" for start, end in _ruler(page))
    at = _number(page.left_mm + page.ruler_mm + 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}mm" height="{h}mm" viewBox="0 0 {w} {h}">\n'
        f'<rect width="{w}" height="{h}" fill="#fff"/>\n'
        f'<path fill="#000" d="{path}"/>\n{discs}'
        f'<path fill="none" stroke="#000" stroke-width="0.2" d="{ruler}"/>\n'
        f'<text x="{at}" y="{_number(page.foot_mm)}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="{_TEXT_MM:g}">{_caption(page)}</text>\n</svg>\n'
    )


def _caption(page: _Page) -> str:
    return f"{page.ruler_mm:g} mm | {page.text} | mm"


def _ruler(page: _Page) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Line with ends and a tick each 10 mm."""
    left, y = page.left_mm, page.foot_mm
    lines = [((left, y), (left + page.ruler_mm, y))]
    for k in range(round(page.ruler_mm / 10) + 1):
        x, tall = left + 10.0 * k, 4.0 if k * 10 in (0, page.ruler_mm) else 2.0
        lines.append(((x, y - tall), (x, y)))
    return lines


def _pdf(page: _Page) -> bytes:
    # mm from the top left, y down, as everywhere here.
    scale = repr(_PT_PER_MM)
    lines = [f"{scale} 0 0 -{scale} 0 {page.height_mm * _PT_PER_MM!r} cm", "0 g"]
    lines += [f"{_words(*rectangle)} re" for rectangle in _runs(page)]
    if (page.print.cells < 0.5).any():
        lines.append("f")
    for x, y, radius, colour in page.print.discs:
        lines += [
            f"{1 if colour > 0.5 else 0} g",
            _disc(x + page.corner_mm[0], y + page.corner_mm[1], radius),
        ]
    lines += ["0 g 0 G 0.2 w"]
    lines += [f"{_words(*start)} m {_words(*end)} l S" for start, end in _ruler(page)]
    at = _words(page.left_mm + page.ruler_mm + 4, page.foot_mm)
    lines.append(f"BT /F1 {_TEXT_MM:g} Tf 1 0 0 -1 {at} Tm ({_caption(page)}) Tj ET")
    stream = "\n".join(lines).encode("latin-1")
    box = f"[0 0 {page.width_mm * _PT_PER_MM:.6f} {page.height_mm * _PT_PER_MM:.6f}]"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox {box} /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = b"%PDF-1.6\n"
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))
    return out + head + table + tail


def _disc(x: float, y: float, radius: float) -> str:
    k = radius * _CIRCLE
    quarters = [
        (x + radius, y + k, x + k, y + radius, x, y + radius),
        (x - k, y + radius, x - radius, y + k, x - radius, y),
        (x - radius, y - k, x - k, y - radius, x, y - radius),
        (x + k, y - radius, x + radius, y - k, x + radius, y),
    ]
    return f"{_words(x + radius, y)} m " + " ".join(f"{_words(*q)} c" for q in quarters) + " f"
