"""Plots of a lens calibration as PNG: what it rests on, how sure it is, what to add."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.lens import LensModel
from calibration.lens.agreement import Halves
from calibration.lens.guidance import Suggestion
from calibration.lens.uncertainty import evidence, image_grid, projection_sigma
from rigs.report.drawing import BLUE, GRAY, GREEN, INK, ORANGE, drawing, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELLS = (12, 9)
_HALO: dict[str, Any] = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none", "alpha": 0.85}


def residuals(lens: LensModel) -> bytes:
    """Residual vectors where the corners were seen, and the same as a cloud."""
    corners = evidence(lens)
    residual, pixels = corners.residual, corners.pixels
    rms = float(np.sqrt(np.mean(residual**2)))
    stretch = _round_down(0.03 * lens.width / max(rms, 1e-9))
    with drawing(8.4, _height(lens, 4.6), 2, width_ratios=[1.75, 1]) as (figure, (field, scatter)):
        colours = _view_colours(corners.view)
        field.quiver(
            pixels[:, 0], pixels[:, 1], residual[:, 0] * stretch, residual[:, 1] * stretch,
            color=colours, angles="xy", scale_units="xy", scale=1, width=0.0018, headwidth=4,
        )  # fmt: skip
        field.plot(pixels[:, 0], pixels[:, 1], ".", ms=1.6, color=GRAY, zorder=0)
        field.plot(lens.cx, lens.cy, "+", ms=11, mew=1.4, color=INK)
        _frame(field, lens, f"residuals ×{stretch:g}, one colour a view; + principal point")
        scatter.scatter(residual[:, 0], residual[:, 1], s=4, c=colours, alpha=0.6, linewidths=0)
        turn = np.linspace(0, 2 * np.pi, 121)
        scatter.plot(2 * rms * np.cos(turn), 2 * rms * np.sin(turn), color=INK, lw=0.8)
        reach = 1.1 * float(np.max(np.abs(residual), initial=1e-3))
        scatter.set(
            xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal",
            xlabel="column residual / px", ylabel="row residual / px",
            title=f"rms of a coordinate {rms:.3f} px; circle 2 σ",
        )  # fmt: skip
        return png(figure)


def uncertainty(lens: LensModel, distances_mm: Sequence[float]) -> bytes:
    """Sigma of the projection over the image at some distances, with contours and the corners seen."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter

    corners, grid = evidence(lens), image_grid(lens, 72)
    maps = [projection_sigma(lens, distance, grid) for distance in distances_mm]
    finite = np.concatenate([one[np.isfinite(one)] for one in maps])
    low, high = (float(value) for value in np.quantile(finite, (0.0, 1.0)))
    steps = [s * 10.0**e for e in range(-4, 3) for s in (1, 3)]
    norm = LogNorm(max(low, high / 1e3), max(high, low * 1.5))
    with drawing(8.4, _height(lens, 3.1), len(maps), squeeze=False) as (figure, grid_of_axes):
        for axes, values, distance in zip(grid_of_axes[0], maps, distances_mm, strict=True):
            shown = axes.pcolormesh(
                grid[..., 0], grid[..., 1], values, norm=norm, cmap="viridis", shading="gouraud",
                rasterized=True,
            )  # fmt: skip
            axes.plot(*corners.pixels.T, ".", ms=0.9, color="white", alpha=0.35)
            levels = [step for step in steps if low < step < high]
            if levels:
                lines = axes.contour(
                    grid[..., 0], grid[..., 1], values, levels=levels, colors="white", linewidths=0.9
                )
                axes.clabel(lines, fmt=lambda value: f"{value:g}", fontsize=7)
            where = f"{distance:.0f} mm away" if np.isfinite(distance) else "at infinity"
            _frame(axes, lens, f"a point {where}")
            axes.grid(False)
        bar = figure.colorbar(shown, ax=grid_of_axes[0].tolist(), shrink=0.9, pad=0.015)
        bar.set_label("σ of the projection / px")
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        return png(figure)


def halves(lens: LensModel, compared: Halves) -> bytes:
    """Difference of the lenses of two halves of the views: its length as colour, and as arrows."""
    from matplotlib.colors import PowerNorm

    length = np.linalg.norm(compared.difference, axis=-1)
    # The corners of the image may be off ten times as far as the rest: their arrows are cut.
    longest = 0.06 * lens.width
    stretch = _round_down(0.7 * longest / max(float(np.nanquantile(length, 0.8)), 1e-9))
    with drawing(3.7, _height(lens, 2.6)) as (figure, axes):
        shown = axes.pcolormesh(
            compared.pixels[..., 0], compared.pixels[..., 1], length, cmap="magma_r",
            norm=PowerNorm(0.5, vmin=0, vmax=float(np.nanmax(length))), shading="gouraud", rasterized=True,
        )  # fmt: skip
        thin = np.s_[1::3, 1::3]
        at, off = compared.pixels[thin], compared.difference[thin] * stretch
        off = off * np.minimum(longest / np.maximum(np.linalg.norm(off, axis=-1, keepdims=True), 1e-9), 1)
        axes.quiver(
            at[..., 0], at[..., 1], off[..., 0], off[..., 1],
            angles="xy", scale_units="xy", scale=1, width=0.004, color=BLUE,
        )  # fmt: skip
        _frame(axes, lens, f"arrows ×{stretch:g}")
        axes.grid(False)
        figure.colorbar(shown, ax=axes, shrink=0.9, pad=0.015, label="difference / px")
        return png(figure)


def views(lens: LensModel, names: Sequence[str], idle: Sequence[int]) -> bytes:
    """Residual rms of each view; what was thrown out; views that add nothing are pale."""
    corners = evidence(lens)
    assert lens.observations is not None
    every = np.asarray(lens.observations[:, 0])
    number = np.where(every >= 0, every, -1 - every).astype(int)
    shown = np.arange(len(names))
    rms = np.array(
        [
            np.sqrt(np.mean(corners.residual[corners.view == i] ** 2)) if np.any(corners.view == i) else 0
            for i in shown
        ]
    )
    out = np.array([int(np.sum(every[number == i] < 0)) for i in shown])
    rows = shown
    with drawing(3.7, max(0.16 * len(names) + 0.8, 2.0)) as (figure, axes):
        colours = ["#b9cbe0" if i in idle else BLUE for i in shown]
        axes.barh(rows, rms, height=0.72, color=colours)
        whole = float(np.sqrt(np.mean(corners.residual**2)))
        axes.axvline(whole, color=ORANGE, lw=1)
        for row, i in zip(rows, shown, strict=True):
            if rms[i] == 0:
                axes.annotate(" left out", (0, row), va="center", fontsize=6.5, color=ORANGE)
            elif out[i]:
                axes.annotate(f" {out[i]} thrown out", (rms[i], row), va="center", fontsize=6, color=INK)
        axes.set(yticks=rows, ylim=(len(rows) - 0.4, -0.6), xlabel="residual rms / px; | all views")
        axes.set_xlim(0, 1.3 * max(float(rms.max()), whole))
        axes.set_yticklabels([_short(name) for name in names], fontsize=6 if len(rows) > 20 else 7)
        axes.grid(axis="y", visible=False)
        return png(figure)


def distortion(lens: LensModel) -> bytes:
    """Shift by the distortion over the angle to the axis, to four sides; dotted where nothing was seen."""
    corners = evidence(lens)
    seen = np.degrees(np.arctan2(np.linalg.norm(corners.points[:, :2], axis=1), corners.points[:, 2])).max()
    reach = _largest_angle_deg(lens)
    theta = np.linspace(0, reach, 300)
    with drawing(3.7, 2.9) as (figure, axes):
        for turn, colour, name in (
            (0, BLUE, "right"),
            (90, GREEN, "down"),
            (180, ORANGE, "left"),
            (270, GRAY, "up"),
        ):
            at = np.radians(turn)
            side, along = np.sin(np.radians(theta)), np.cos(np.radians(theta))
            ray = np.stack([side * np.cos(at), side * np.sin(at), along], axis=-1)
            off = (lens.project(ray) - (lens.cx, lens.cy)) @ (np.cos(at), np.sin(at))
            focal = lens.fx if turn % 180 == 0 else lens.fy
            # A wide lens is compared with f theta: the pinhole's image runs away.
            ideal = focal * (np.radians(theta) if reach > 60 else np.tan(np.radians(theta)))
            inside = theta <= seen
            axes.plot(theta, np.where(inside, off - ideal, np.nan), color=colour, label=name)
            axes.plot(theta, np.where(inside, np.nan, off - ideal), ":", color=colour)
        axes.axhline(0, color=INK, lw=0.8, zorder=0)
        law = "f θ" if reach > 60 else "f tan θ"
        axes.set(xlabel="angle to the axis θ / °", ylabel=f"radius − {law} / px", xlim=(0, reach))
        axes.legend(loc="best", ncols=2)
        return png(figure)


def board(lens: LensModel) -> bytes:
    """Shape of the board that the fit found: its height, enlarged by colour."""
    assert lens.board is not None
    points = evidence(lens).board
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0) - 1e-3, points[:, :2].max(axis=0) + 1e-3
    x, y = np.meshgrid(np.linspace(x0, x1, 60), np.linspace(y0, y1, 60))
    flat = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    height = np.asarray(lens.board.shaped(flat))[:, 2].reshape(x.shape)
    top = max(float(np.abs(height).max()), 1e-6)
    with drawing(3.7, 3.0) as (figure, axes):
        shown = axes.pcolormesh(
            x, y, height, cmap="RdBu_r", vmin=-top, vmax=top, shading="gouraud", rasterized=True
        )
        axes.plot(points[:, 0], points[:, 1], ".", ms=2, color=INK, alpha=0.4)
        axes.set(
            aspect="equal",
            xlabel="x / mm",
            ylabel="y / mm",
            ylim=(y1 + 0.05 * (y1 - y0), y0 - 0.05 * (y1 - y0)),
        )
        axes.grid(False)
        figure.colorbar(shown, ax=axes, shrink=0.85, label="away from the camera / mm")
        return png(figure)


def next_views(
    lens: LensModel, suggestions: Sequence[Suggestion], picture: NDArray[Any] | None = None
) -> bytes:
    """Outlines of the views to take, over a picture or over the corners seen so far."""
    with drawing(6.4, _height(lens, 5.6)) as (figure, axes):
        if picture is not None:
            low, high = (float(value) for value in np.nanpercentile(picture, (0.5, 99.5)))
            level = np.clip((np.asarray(picture, float) - low) / max(high - low, 1e-12), 0, 1)
            axes.imshow(level, cmap="gray", vmin=0, vmax=1, alpha=0.75)
        elif lens.observations is not None:
            axes.plot(*evidence(lens).pixels.T, ".", ms=2, color=INK, alpha=0.35)
        _outlines(axes, lens, suggestions)
        return png(figure)


def coverage(lens: LensModel, suggestions: Sequence[Suggestion]) -> bytes:
    """How many corners were seen where, and the outlines of the views to take beside it."""
    from matplotlib.ticker import MaxNLocator

    pixels = evidence(lens).pixels
    edges = [
        np.linspace(-0.5, side - 0.5, n + 1)
        for n, side in zip(_CELLS, (lens.width, lens.height), strict=True)
    ]
    count = np.histogram2d(pixels[:, 0], pixels[:, 1], edges)[0].T
    with drawing(8.4, _height(lens, 3.45), 2, width_ratios=[1.13, 1]) as (figure, (seen, following)):
        shown = seen.pcolormesh(
            *edges, np.ma.masked_equal(count, 0), cmap="Blues", vmin=0, vmax=1.3 * count.max(),
            edgecolors="none", rasterized=True,
        )  # fmt: skip
        bar = figure.colorbar(shown, ax=seen, pad=0.02, fraction=0.05, label="corners")
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        bar.ax.set_ylim(0, count.max())
        _frame(seen, lens, "corners seen; white: none")
        seen.grid(False)
        following.plot(*pixels.T, ".", ms=1.2, color=INK, alpha=0.3)
        _outlines(following, lens, suggestions)
        return png(figure)


def _outlines(axes: "Axes", lens: LensModel, suggestions: Sequence[Suggestion]) -> None:
    from matplotlib.patches import Polygon

    # The first one last, so that it lies on top.
    for place, one in reversed(list(enumerate(suggestions))):
        first = place == 0
        dashes: Any = "-" if first else (0, (4, 3))
        axes.add_patch(
            Polygon(
                one.outline,
                closed=True,
                fill=first,
                fc=(0.76, 0.34, 0.1, 0.12),
                ec=ORANGE,
                lw=2.2 if first else 1.2,
                ls=dashes,
            )
        )
        axes.annotate(
            str(place + 1), one.outline.mean(axis=0), ha="center", va="center",
            fontsize=13 if first else 10, color=ORANGE, weight="bold", bbox=_HALO,
        )  # fmt: skip
    when = "first" if lens.observations is None else "next"
    _frame(axes, lens, f"{when} views of the board")
    axes.grid(False)


def _frame(axes: "Axes", lens: LensModel, title: str) -> None:
    axes.set(
        xlim=(-0.5, lens.width - 0.5), ylim=(lens.height - 0.5, -0.5), aspect="equal",
        xlabel="column / px", ylabel="row / px", title=title,
    )  # fmt: skip


def _height(lens: LensModel, width: float) -> float:
    """Inches for a picture of the image that is ``width`` inches wide, with its labels."""
    return float(np.clip(width * lens.height / lens.width, 1.5, 1.6 * width)) + 0.7


def _largest_angle_deg(lens: LensModel) -> float:
    """Largest angle to the axis within the image that the model reaches."""
    rays = lens.unproject(image_grid(lens)).reshape(-1, 3)
    rays = rays[np.isfinite(rays).all(axis=1)]
    return float(np.degrees(np.arctan2(np.linalg.norm(rays[:, :2], axis=1), rays[:, 2])).max())


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"…{name[-21:]}"


def _view_colours(view: NDArray[Any]) -> NDArray[Any]:
    import matplotlib

    order = np.unique(view, return_inverse=True)[1]
    # Hues turn by the golden ratio, so that views next to each other differ.
    colours: NDArray[Any] = np.array(matplotlib.colormaps["hsv"]((order * 0.618034) % 1.0))
    colours[:, :3] *= 0.75
    return colours


def _round_down(value: float) -> float:
    """Largest 1, 2 or 5 times a power of ten not above ``value``."""
    decade = 10.0 ** np.floor(np.log10(value))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= value))
