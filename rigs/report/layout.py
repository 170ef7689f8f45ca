"""What a chapter of the page is made of: rows, tables, figures, and how numbers are written."""

import base64
import math
from typing import Any, NamedTuple

from numpy.typing import NDArray

from calibration.provenance import Quality
from rigs.report import maps

MAP_PX = 600
"""Longer side of a map on the page."""


class Bar(NamedTuple):
    """Colour bar under a map."""

    source: str
    low: str
    high: str


class Figure(NamedTuple):
    """A picture of the page; ``wide`` takes the whole width, ``pixels`` marks a map of the camera's view."""

    source: str
    width: int
    height: int
    title: str
    alt: str
    caption: str = ""
    bar: Bar | None = None
    legend: str = ""
    wide: bool = False
    pixels: bool = False


class Table(NamedTuple):
    """A table of the page; a row of one cell is a heading within.

    The first ``words`` columns are words, the others numbers. In a column ``Symbol`` what follows ``_`` is an
    index.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    note: str = ""


class Section(NamedTuple):
    """A chapter of the page."""

    title: str
    figures: tuple[Figure, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def number(value: float | None, sigma: float | None = None) -> str:
    """Four significant digits, or as many decimals as give the sigma two."""
    if value is None or not math.isfinite(value):
        return "–"
    if sigma is not None and sigma > 0 and math.isfinite(sigma):
        decimals = max(1 - math.floor(math.log10(sigma)), 0)
        text = f"{value:.{decimals}f}" if decimals <= 9 else f"{value:.1e}"
    else:
        text = f"{value:.4g}"
        if "e" in text and 1 <= abs(value) < 1e7:
            text = f"{value:.0f}"
    return text.replace("-", "−")


def scalar(
    values: NDArray[Any],
    title: str,
    alt: str,
    unit: str,
    caption: str,
    *,
    limits: tuple[float, float] | None = None,
    diverging: bool = False,
    logarithmic: bool = False,
) -> Figure:
    """Map of one number a pixel, with a colour bar."""
    low, high = maps.limits(values) if limits is None else limits
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    picture = maps.coloured(values, low, high, diverging=diverging, logarithmic=logarithmic)
    space = "" if unit == "°" else " "
    ends = [f"{number(float(f'{end:.3g}'))}{space}{unit}".strip() for end in (low, high)]
    if abs(high - low) < 0.1 * abs(high):
        ends = [f"{end:.2f}{space}{unit}".strip() for end in (low, high)]
    return figure(
        picture,
        title,
        f"{alt}, from {ends[0]} to {ends[1]}",
        caption,
        bar=Bar(data_url(maps.bar(diverging=diverging)), *ends),
        pixels=True,
    )


def quality_rows(quality: Quality | None) -> tuple[tuple[str, str], ...]:
    """What a fit says of itself."""
    if quality is None:
        return ()
    count = f"{counted(quality.observations)} observations"
    if quality.rejected:
        count += f", {counted(quality.rejected)} rejected"
    residual = f"{number(quality.residual_rms)} {quality.unit} rms over {count}"
    if math.isnan(quality.residual_rms):
        residual = f"none: {count} are no more than the unknowns"
    return (
        ("Residual", residual),
        ("Verdict", quality.verdict),
    )


def counted(value: int) -> str:
    """A count in groups of three digits."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def with_sigma(value: float, sigma: float, unit: str) -> str:
    """Value, uncertainty and unit."""
    spread = f" ± {number(sigma, sigma)}" if sigma > 0 else ""
    return f"{number(value, sigma)}{spread} {unit}".strip()


def data_url(png: bytes) -> str:
    """A PNG within the page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def figure(png: bytes, title: str, alt: str, caption: str = "", **more: Any) -> Figure:
    """Figure of a PNG."""
    # Width and height stand at bytes 16..24 of every PNG.
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    return Figure(data_url(png), width, height, title, alt, caption, **more)


def image(rgb: maps.Image, title: str, alt: str, caption: str = "", legend: str = "") -> Figure:
    """Figure of a picture of the camera's view."""
    return figure(maps.png(rgb), title, alt, caption, pixels=True, legend=legend)
