"""The common look of the report's plots, drawn off-screen; matplotlib is imported when the first is drawn."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BLUE, ORANGE, GRAY, GREEN = "#1d2733", "#1f5fa8", "#c2571a", "#9aa5b1", "#2e7d4f"
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "grid.color": "#e4e8ec",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.3,
    "text.color": INK,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "path.simplify": True,
}


@contextmanager
def drawing(width: float, height: float, columns: int = 1, **grid: Any) -> Iterator[tuple["Figure", Any]]:
    """Figure of ``width`` x ``height`` inches and its axes, one or a row of ``columns``."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(1, columns, **grid)


def png(figure: "Figure") -> bytes:
    """Bytes of the PNG."""
    buffer = io.BytesIO()
    # No software tag: the same report has the same bytes under another release of matplotlib.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
