"""The chapter of a focus model: sharpness over the picture, through focus, MTF curves, the sharp surface."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from calibration.focus import FocusModel
from calibration.geometry import Float
from rigs.report.drawing import BLUE, GRAY, GREEN, INK, ORANGE, drawing, png
from rigs.report.layout import Figure, Section, Table, figure, number, quality_rows, with_sigma

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARPEST = 0.25
_CELLS = (8, 6)
_STEPS = 200
_IN_FOCUS_PX = 1.5


def focus_section(model: FocusModel) -> Section:
    """Chapter of a focus model."""
    missing = () if model.surface else ("Plane of focus: the views do not tell it.",)
    return Section("Focus", tuple(_figures(model)), tuple(_rows(model)), missing, (_views(model),))


def _rows(model: FocusModel) -> Iterator[tuple[str, str]]:
    s = model.surface
    if s is not None:
        yield "Sharp distance", with_sigma(s.distance_mm, s.distance_sigma_mm, "mm") + " on the axis"
        sides = zip(("to the right", "below"), s.tilt_deg, s.tilt_sigma_deg, strict=True)
        yield (
            "Tilt",
            "; ".join(f"{with_sigma(t, e, '°')} {side}" for side, t, e in sides) + " (positive: nearer)",
        )
        yield "Curvature", with_sigma(1e3 * s.curvature_per_mm, 1e3 * s.curvature_sigma_per_mm, "1/m")
        yield "Entrance pupil", with_sigma(s.pupil_mm, s.pupil_sigma_mm, "mm")
        slope = model.focal_px * s.pupil_mm
        yield "Circle of confusion", f"{number(slope)} px mm × |1/z − 1/z(sharp)|"
        yield "Blur in focus", with_sigma(s.floor_px, s.floor_sigma_px, "px") + " (sigma, at the centre)"
        growth = ", ".join(
            f"{number(float(np.sqrt(max(s.floor_px**2 + more, 0.0))))} px {way}"
            for way, more in zip(("tangential", "sagittal"), s.growth_px2, strict=True)
        )
        yield "Blur in focus, corners", growth
        yield "MTF50 in focus", f"{number(s.best_mtf50())} cycles/px at the centre"
    yield from quality_rows(model.quality)


def _views(model: FocusModel) -> Table:
    rows = tuple(
        (
            view.name,
            f"{view.near_mm:.0f} – {view.far_mm:.0f}" if view.edges else "–",
            number(view.mtf50),
            number(view.tangential),
            number(view.sagittal),
            number(view.expected),
            str(view.edges),
            view.remark,
        )
        for view in sorted(model.views, key=lambda view: view.name)
    )
    head = ("View", "Distance / mm", "MTF50", "Tangential", "Sagittal", "Foretold", "Edges", "Remark")
    return Table(
        "Views", head, rows, note="Medians of the edges, cycles/px. Tangential: sharp along the radius."
    )


def _figures(model: FocusModel) -> Iterator[Figure]:
    if model.surface is not None:
        yield figure(
            through_focus(model),
            "Through focus",
            "MTF50 over the distance from the sharp surface, measured and fitted",
            "Dots: edges of all views, against how far they lie from the sharp surface on their own ray, in "
            "1/z. Line: the model at the picture's centre. Grey: left out by the fit.",
            wide=True,
        )
    yield figure(
        field(model),
        "Sharpness over the picture",
        "MTF50 of the sharpest edges in each part of the picture, along the radius and across it",
        f"Median of the sharpest quarter of a cell's edges; of those with circles of confusion below "
        f"{_IN_FOCUS_PX:g} px only, so empty cells saw no edge in focus."
        if model.surface
        else "Median of the sharpest quarter of a cell's edges, whatever their distance.",
        wide=True,
    )
    yield figure(
        curves(model),
        "MTF",
        "Modulation transfer over frequency, centre and corners",
        "Mean of the sharpest quarter of the edges near the centre and in the corners.",
    )
    if model.surface is not None:
        yield figure(
            surface(model),
            "Sharp surface",
            "Where the camera is sharp, from above and from the side, with the places of the edges",
            "Cuts through the sharp surface along the middle row and the middle column; band: circles of "
            "confusion up to 2 px.",
            wide=True,
        )


def _kept(model: FocusModel) -> Float:
    return np.asarray(model.edges[model.edges[:, 0] >= 0])


def through_focus(model: FocusModel) -> bytes:
    """MTF50 of the edges over their defocus in 1/m, with the model's curve, PNG."""
    assert model.surface is not None
    edges = np.asarray(model.edges)
    x, y, z = edges[:, 5] / edges[:, 7], edges[:, 6] / edges[:, 7], edges[:, 7]
    defocus = 1e3 * (1 / z - model.surface.sharp_at(x, y))
    kept = edges[:, 0] >= 0
    with drawing(8.4, 3.2) as (canvas, axes):
        axes.plot(defocus[~kept], edges[~kept, 8], ".", ms=3, color=GRAY)
        axes.plot(defocus[kept], edges[kept, 8], ".", ms=3, color=BLUE, alpha=0.6)
        span = np.linspace(defocus.min(), defocus.max(), _STEPS)
        slope = 1e-3 * model.focal_px * model.surface.pupil_mm
        line = [model.surface.best_mtf50(slope * abs(value)) for value in span]
        axes.plot(span, line, color=ORANGE, label="model, centre")
        axes.set(xlabel="1/z − 1/z(sharp) / (1/m)      far  ←  →  near", ylabel="MTF50 / (cycles/px)")
        axes.set_ylim(0, None)
        axes.legend(loc="upper right")
        top = axes.secondary_xaxis("top", functions=(lambda v: v * slope, lambda c: c / slope))
        top.set_xlabel("circle of confusion / px (sign: side)", fontsize=8)
        return png(canvas)


def field(model: FocusModel) -> bytes:
    """Best MTF50 over the picture, along the radius and across it, PNG."""
    edges = _kept(model)
    if model.surface is not None:
        edges = edges[model.blur_px(edges[:, 5:8]) < _IN_FOCUS_PX]
    centre = np.array([0.5 * (model.width - 1), 0.5 * (model.height - 1)])
    out = edges[:, 1:3] - centre
    along = np.abs(np.sum(out * edges[:, 3:5], axis=1)) / np.maximum(np.linalg.norm(out, axis=1), 1e-9)
    sides = [
        np.linspace(-0.5, size - 0.5, n + 1)
        for size, n in zip((model.width, model.height), _CELLS, strict=True)
    ]
    parts = (
        (along > np.sqrt(0.5), "along the radius (tangential)"),
        (along <= np.sqrt(0.5), "across it (sagittal)"),
    )
    grids = [_best(edges[chosen], sides) for chosen, _ in parts]
    known = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    high = float(known.max(initial=0.01))
    low = min(float(known.min(initial=high)), 0.8 * high)
    shape = 8.4 * 0.45 * model.height / model.width + 0.9
    with drawing(8.4, min(max(shape, 2.2), 5.0), 2) as (canvas, pair):
        for axes, grid, (_, title) in zip(pair, grids, parts, strict=True):
            shown = axes.pcolormesh(*sides, grid, cmap="viridis", vmin=low, vmax=high)
            _write_cells(axes, grid, sides, 0.5 * (low + high))
            axes.grid(visible=False)
            axes.set(
                xlim=(-0.5, model.width - 0.5), ylim=(model.height - 0.5, -0.5), aspect="equal", title=title,
                xlabel="column / px",
            )  # fmt: skip
        pair[0].set_ylabel("row / px")
        canvas.colorbar(shown, ax=list(pair), label="MTF50 / (cycles/px)", shrink=0.85)
        return png(canvas)


def _best(edges: Float, sides: list[Float]) -> Float:
    """Median of the sharpest quarter of the edges in each cell (rows, columns); NaN where there are none."""
    column, row = (np.digitize(edges[:, 1 + i], sides[i]) - 1 for i in (0, 1))
    grid = np.full((len(sides[1]) - 1, len(sides[0]) - 1), np.nan)
    for r in range(grid.shape[0]):
        for c in range(grid.shape[1]):
            here = np.sort(edges[(row == r) & (column == c), 8])
            if here.size:
                grid[r, c] = np.median(here[int((1 - _SHARPEST) * here.size) :])
    return grid


def _write_cells(axes: "Axes", grid: Float, sides: list[Float], bright: float) -> None:
    for (r, c), value in np.ndenumerate(grid):
        if np.isfinite(value):
            at = 0.5 * (sides[0][c] + sides[0][c + 1]), 0.5 * (sides[1][r] + sides[1][r + 1])
            ink = INK if value > bright else "white"
            axes.text(*at, f"{value:.2f}"[1:], ha="center", va="center", fontsize=6.5, color=ink)


def curves(model: FocusModel) -> bytes:
    """MTF over frequency, PNG."""
    frequency, centre, corners = np.asarray(model.curves).T
    shown = frequency <= 0.75
    with drawing(4.6, 3.2) as (canvas, axes):
        axes.plot(frequency[shown], centre[shown], color=BLUE, label="centre")
        if np.isfinite(corners).any():
            axes.plot(frequency[shown], corners[shown], color=ORANGE, label="corners")
        axes.axhline(0.5, color=GRAY, lw=0.7)
        axes.axvline(0.5, color=GRAY, lw=0.7, ls=":")
        axes.annotate("Nyquist", (0.5, 1.0), xytext=(3, -2), textcoords="offset points", fontsize=7, va="top")
        axes.set(xlabel="frequency / (cycles/px)", ylabel="MTF", ylim=(0, 1.02), xlim=(0, 0.75))
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.9))
        return png(canvas)


def surface(model: FocusModel) -> bytes:
    """Cuts through the sharp surface along the middle row and column, and the edges' places, PNG."""
    s = model.surface
    assert s is not None
    edges = _kept(model)
    reach = 2.0 / (model.focal_px * s.pupil_mm)
    with drawing(8.4, 3.4, 2, sharey=True) as (canvas, pair):
        for axis, (axes, title) in enumerate(
            zip(
                pair,
                ("from above, middle row", "from the side, middle column"),
                strict=True,
            )
        ):
            place = edges[:, 5 + axis] / edges[:, 7]
            axes.plot(edges[:, 5 + axis], edges[:, 7], ".", ms=1.5, color=GRAY, alpha=0.6, zorder=0)
            span = np.linspace(place.min(), place.max(), _STEPS)
            zero = np.zeros_like(span)
            sharp = s.sharp_at(span, zero) if axis == 0 else s.sharp_at(zero, span)
            near, far = 1 / (sharp + reach), 1 / np.maximum(sharp - reach, 1e-9)
            # Filled between two curves of different abscissae: out along one and back along the other.
            ring = np.concatenate([span * near, (span * far)[::-1]]), np.concatenate([near, far[::-1]])
            axes.fill(*ring, color=GREEN, alpha=0.18, lw=0)
            axes.plot(span / sharp, 1 / sharp, color=GREEN)
            for side in (span[0], span[-1]):
                depth = np.array([0.0, 1.05 * float(edges[:, 7].max())])
                axes.plot(side * depth, depth, color=GRAY, lw=0.7, ls="--")
            tilt, sigma = s.tilt_deg[axis], s.tilt_sigma_deg[axis]
            axes.set(
                title=f"{title}: tilt {number(tilt, sigma)} ± {sigma:.1g}°",
                xlabel=("x / mm (right)", "y / mm (down)")[axis],
            )
        low, high = float(edges[:, 7].min()), float(edges[:, 7].max())
        pair[0].set(ylabel="z / mm (from the camera)", ylim=(0.93 * low, 1.05 * high))
        return png(canvas)
