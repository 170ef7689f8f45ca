"""The flat field's chapter of the page: smooth part, what the pixels add, fall-off along the radius."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.radiometric import RadiometricModel, Vignetting
from calibration.radiometric.vignetting import colour_planes, sites
from capture.frame import format_cfa
from rigs.report import maps
from rigs.report.drawing import BLUE, GRAY, GREEN, INK, ORANGE, drawing, png
from rigs.report.layout import MAP_PX, Figure, Section, figure, number, scalar

_POINTS = 40  # cells of the map across, behind the curves
_INKS = {"": INK, "R": ORANGE, "G": GREEN, "B": BLUE}


def flat_sections(model: RadiometricModel | None) -> Iterator[Section]:
    """Chapter of a flat field that has a smooth part; none where there is no such."""
    if model is None or model.vignetting is None or model.flat_map is None:
        return
    smooth = model.vignetting
    names = _names(model.pixel_format)
    figures = [
        figure(
            profile(model),
            "Fall-off",
            "Relative response over the distance from the centre of the fall-off, for each colour",
            "Curves: smooth model along the diagonals, with one sigma. Dots: cells of the map.",
        )
    ]
    figures += _maps(model, smooth, names)
    rows = []
    for index, name in enumerate(names):
        falloff = smooth.channels[index]
        u, v = _corners(smooth)
        ends = smooth.value(index, u, v) / float(smooth.value(index, *falloff.centre_px))
        powers = ", ".join(map(str, falloff.powers))
        surface = f" and {len(falloff.terms)} terms over the picture" if falloff.terms else ""
        rows.append(
            (
                f"Corners {name}".strip(),
                f"{100 * ends.min():.1f} to {100 * ends.max():.1f} % of the centre, column "
                f"{falloff.centre_px[0]:.0f}, row {falloff.centre_px[1]:.0f}",
            )
        )
        rows.append((f"Terms {name}".strip(), f"radius to the powers {powers}{surface}"))
    if model.prnu_percent is not None:
        rows.append(("Pixels about it", f"{number(model.prnu_percent)} % standard deviation"))
    rows.append(("Sigma of a pixel of the map", f"{number(100 * model.flat_sigma)} %"))
    missing: tuple[str, ...] = ()
    if smooth.extrapolated > 0:
        missing = (f"{smooth.extrapolated:.0%} of the picture had no data: the model extrapolates there.",)
    yield Section("Flat field", figures=tuple(figures), rows=tuple(rows), missing=missing)


def profile(model: RadiometricModel) -> bytes:
    """Relative response over the distance from the centre, PNG."""
    smooth = model.vignetting
    assert smooth is not None
    assert model.flat_map is not None
    half = float(np.hypot(smooth.width, smooth.height)) / 2
    with drawing(4.6, 3.2) as (canvas, axes):
        for index, (name, plane) in enumerate(
            zip(_names(model.pixel_format), colour_planes(model.pixel_format), strict=True)
        ):
            ink = _INKS[name[:1]]
            centre = smooth.channels[index].centre_px
            u, v, value = _cells(np.asarray(model.flat_map)[plane], *sites(*_size(smooth), index))
            radius = np.hypot(u - centre[0], v - centre[1]) / half
            axes.plot(radius, value, ".", ms=2, color=ink, alpha=0.35, zorder=1)
            for number_, (x, y) in enumerate(zip(*_corners(smooth), strict=True)):
                steps = np.linspace(0, 1, 100)
                line = centre[0] + steps * (x - centre[0]), centre[1] + steps * (y - centre[1])
                curve, sigma = smooth.value(index, *line), smooth.relative_sigma(index, *line)
                along = np.hypot(line[0] - centre[0], line[1] - centre[1]) / half
                axes.fill_between(
                    along, curve * (1 - sigma), curve * (1 + sigma), color=ink, alpha=0.15, lw=0
                )
                axes.plot(along, curve, color=ink, lw=0.9, label=(name or None) if number_ == 0 else None)
        axes.axhline(1, color=GRAY, lw=0.6)
        axes.set(xlabel="distance from the centre / half diagonal", ylabel="relative response")
        if model.pixel_format[:4] != "Mono":
            axes.legend(loc="lower left")
        return png(canvas)


def _size(smooth: Vignetting) -> tuple[int, int, int]:
    return smooth.width, smooth.height, len(smooth.channels)


def _corners(smooth: Vignetting) -> tuple[Float, Float]:
    right, low = smooth.width - 1.0, smooth.height - 1.0
    return np.array([0.0, right, 0.0, right]), np.array([0.0, 0.0, low, low])


def _names(pixel_format: str) -> tuple[str, ...]:
    """Colour of each channel; the two greens of a mosaic apart."""
    if pixel_format.startswith("RGB"):
        return ("R", "G", "B")
    order = format_cfa(pixel_format)
    if order is None:
        return ("",)
    return tuple(f"{c}{order[: i + 1].count(c)}" if c == "G" else c for i, c in enumerate(order))


def _cells(image: NDArray[np.float32], u: Float, v: Float) -> tuple[Float, Float, Float]:
    """Middles and medians of cells of a map."""
    step = max(image.shape[1] // _POINTS, 1)
    rows, columns = image.shape[0] // step, image.shape[1] // step
    blocks = image[: rows * step, : columns * step].reshape(rows, step, columns, step)
    value = np.median(blocks.swapaxes(1, 2).reshape(rows, columns, -1), axis=-1)
    middle = np.arange(max(rows, columns)) * step + step // 2
    x, y = np.meshgrid(u[middle[:columns]], v[middle[:rows]])
    return x.ravel(), y.ravel(), value.ravel().astype(np.float64)


def _maps(model: RadiometricModel, smooth: Vignetting, names: tuple[str, ...]) -> Iterator[Figure]:
    """Smooth part of the first colour and what each pixel adds to it."""
    whole = smooth.at()
    planes = colour_planes(model.pixel_format)
    which = next((i for i, name in enumerate(names) if name[:1] == "G"), 0)
    label = f", {names[which]}" if names[which] else ""
    yield scalar(
        maps.shrink(whole[planes[which]], MAP_PX),
        f"Smooth part{label}",
        "Smooth relative response over the picture",
        "",
        "Vignetting of the lens and whatever the target's own light added.",
    )
    left = 100 * (np.asarray(model.flat_map)[planes[which]] / whole[planes[which]] - 1)
    small = maps.shrink(left, MAP_PX)
    low, high = maps.limits(small, 0.5, 99.5)
    yield scalar(
        small,
        f"Map over smooth part{label}",
        "What each pixel adds to the smooth part",
        "%",
        "Pixels' own response, dust, and what the smooth form does not follow.",
        limits=(low, max(high, -low)),
        diverging=True,
    )
