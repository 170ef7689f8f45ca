"""The chapter of a timing model: bands of the strobed frames, fitted curves, rise and fall of the lights."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from calibration.geometry import Float
from calibration.timing import TimingModel
from rigs.report.drawing import BLUE, GRAY, GREEN, INK, ORANGE, drawing, png
from rigs.report.layout import Figure, Section, Table, figure, number, quality_rows, with_sigma

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES, _POINTS = 6, 120
_US = 1e6
_COLOURS = (BLUE, ORANGE, GREEN, INK)


def timing_section(model: TimingModel) -> Section:
    """Chapter of a timing model."""
    figures: tuple[Figure, ...] = ()
    missing: tuple[str, ...] = ("Bands: the model was saved without its strobed frames.",)
    if model.strobes is not None and model.signal is not None and model.signal_sigma is not None:
        figures, missing = tuple(_figures(model)), ()
    return Section("Timing", figures, tuple(_rows(model)), missing, (_lights(model),))


def _rows(model: TimingModel) -> Iterator[tuple[str, str]]:
    way = (
        ""
        if model.shutter == "global"
        else f", {model.direction}, {number(1e3 * model.frame_span_s)} ms a frame"
    )
    yield "Shutter", f"{model.shutter}{way}"
    yield "Line time", with_sigma(_US * model.line_time_s, _US * model.line_time_sigma_s, "µs")
    known = "the camera's own" if model.light_delay_s else "camera and first light together"
    latency = with_sigma(_US * model.latency_s, _US * model.latency_sigma_s, "µs")
    yield "Start after the trigger", f"{latency} ({known})"
    yield (
        "True less reported exposure",
        with_sigma(_US * model.exposure_offset_s, _US * model.exposure_offset_sigma_s, "µs"),
    )
    if model.jitter_s:
        yield "Jitter of the start", f"{number(_US * model.jitter_s)} µs"
    if model.flicker:
        yield "Flicker of the pulses", f"{number(100 * model.flicker)} %"
    yield from quality_rows(model.quality)


def _lights(model: TimingModel) -> Table:
    rows = tuple(
        (
            name,
            with_sigma(_US * light.delay_s, _US * light.delay_sigma_s, "") if light.delay_sigma_s else "0",
            with_sigma(_US * light.rise_s, _US * light.rise_sigma_s, ""),
            with_sigma(_US * light.fall_s, _US * light.fall_sigma_s, ""),
            number(1e3 * light.settle_s(0.01)),
            number(1e3 * light.settle_s(0.001)),
            with_sigma(light.level, light.level_sigma, ""),
        )
        for name, light in model.lights.items()
    )
    head = ("Light", "Delay / µs", "Rise / µs", "Fall / µs", "1 % / ms", "0.1 % / ms", "Pulse level")
    return Table(
        "Lights",
        head,
        rows,
        note="Delay: later than the first light. Rise and fall: time constants of exponentials. 1 %, 0.1 %: "
        "until the light is that near to its new level, with two sigma to spare. Pulse level: settled pulse "
        "over steady burning.",
    )


def _figures(model: TimingModel) -> Iterator[Figure]:
    yield figure(
        bands(model),
        "Bands",
        "Rows of all strobed frames as a share of steady burning, measured, fitted, difference in sigmas",
        "Each column is a frame, light by light in the order of the delays; rows run down as in the picture. "
        "Where it is bright, the row saw the pulse. The difference should be without pattern.",
        wide=True,
    )
    yield figure(
        curves(model),
        "Frames and fit",
        "Share of steady burning over the rows of some frames, measured and fitted",
        "Dots: means of neighbouring rows. Lines: the fit. The number is the delay of the pulse.",
        wide=True,
    )
    yield figure(
        pulses(model),
        "Rise and fall",
        "Output of each light after the order to shine and after that to go dark",
        "As fitted, with two sigma. Time counts from the first change of light.",
        wide=True,
    )


def bands(model: TimingModel) -> bytes:
    """Rows of all strobed frames, side by side: measured, fitted, difference in sigmas."""
    assert model.strobes is not None
    assert model.signal is not None
    assert model.signal_sigma is not None
    order = np.lexsort((model.strobes[:, 2], model.strobes[:, 3], model.strobes[:, 1], model.strobes[:, 0]))
    measured, fitted = np.asarray(model.signal, np.float64)[order], model.expected()[order]
    off = (measured - fitted) / np.asarray(model.signal_sigma, np.float64)[order]
    top = max(1.0, float(np.nanmax(fitted)))
    with drawing(8.4, 3.1, 3, sharey=True) as (sheet, axes):
        told = zip(axes, (measured, fitted, off), ("measured", "fitted", "difference / sigma"), strict=True)
        for index, (at, values, title) in enumerate(told):
            colours = (
                {"cmap": "RdBu_r", "vmin": -5, "vmax": 5} if index == 2 else {"cmap": "magma", "vmin": 0}
            )
            if index < 2:
                colours["vmax"] = top
            shown = at.imshow(
                values.T, aspect="auto", interpolation="nearest", **colours,
                extent=(-0.5, len(order) - 0.5, model.rows - 0.5, -0.5),
            )  # fmt: skip
            at.grid(False)
            at.set(title=title, xlabel="strobed frame")
            sheet.colorbar(shown, ax=at, pad=0.02, fraction=0.07)
        axes[0].set(ylabel="row")
        return png(sheet)


def curves(model: TimingModel) -> bytes:
    """Share over the rows of a few frames of each of the first two lights, measured and fitted."""
    assert model.strobes is not None
    assert model.signal is not None
    fitted = model.expected()
    names = list(model.lights)[:2]
    with drawing(8.4, 3.3, len(names), sharey=True, squeeze=False) as (sheet, grid):
        for number_, (name, at) in enumerate(zip(names, grid[0], strict=True)):
            mine = np.flatnonzero(model.strobes[:, 0] == number_)
            telling = mine[np.ptp(fitted[mine], axis=1) > 0.02 * np.ptp(fitted)]
            telling = telling if len(telling) else mine
            telling = telling[np.argsort(model.strobes[telling, 2], kind="stable")]
            picked = telling[np.unique(np.linspace(0, len(telling) - 1, _CURVES).round().astype(int))]
            for place, index in enumerate(picked):
                colour = _COLOURS[place % len(_COLOURS)]
                row, share = _binned(np.asarray(model.signal[index], np.float64))
                at.plot(row, share, ".", ms=2.5, color=colour, alpha=0.6)
                label = f"{1e3 * model.strobes[index, 2]:.3g} ms"
                style = "-" if place < len(_COLOURS) else "--"
                at.plot(np.arange(model.rows), fitted[index], style, color=colour, lw=1.1, label=label)
            at.set(title=name, xlabel="row")
            at.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.2),
                ncol=_CURVES,
                handlelength=1.2,
                columnspacing=0.9,
            )
        grid[0][0].set(ylabel="share of steady burning")
        return png(sheet)


def _binned(values: Float) -> tuple[Float, Float]:
    """Middles and means of runs of rows."""
    parts = np.array_split(np.arange(len(values)), min(_POINTS, len(values)))
    kept = [part[np.isfinite(values[part])] for part in parts]
    kept = [part for part in kept if len(part)]
    return np.array([part.mean() for part in kept]), np.array([values[part].mean() for part in kept])


def pulses(model: TimingModel) -> bytes:
    """Rise and fall of each light."""
    reach = 5 * max(max(light.rise_s, light.fall_s) for light in model.lights.values())
    reach = reach if reach > 0 else 1e-6
    with drawing(8.4, 2.6, 2, sharey=True) as (sheet, (rising, falling)):
        for index, (name, light) in enumerate(model.lights.items()):
            colour = _COLOURS[index % len(_COLOURS)]
            _step(rising, reach, light.rise_s, light.rise_sigma_s, colour, name, rise=True)
            _step(falling, reach, light.fall_s, light.fall_sigma_s, colour, name, rise=False)
        for at, title in ((rising, "rise"), (falling, "fall")):
            at.set(title=title, xlabel="time / µs")
            for share in (0.01, 0.99):
                at.axhline(share, color=GRAY, lw=0.7, ls=":")
        if len(model.lights) <= 8:
            falling.legend()
        rising.set(ylabel="share of the level")
        return png(sheet)


def _step(
    axes: "Axes", reach: float, tau: float, sigma: float, colour: str, name: str, *, rise: bool
) -> None:
    t = np.linspace(-0.05 * reach, reach, 500)

    def output(lag: float) -> Float:
        left = np.where(t < 0, 1.0, np.exp(-np.maximum(t, 0) / max(lag, 1e-12)))
        return 1 - left if rise else left

    axes.plot(_US * t, output(tau), color=colour, label=name)
    axes.fill_between(
        _US * t, output(max(tau - 2 * sigma, 0.0)), output(tau + 2 * sigma), color=colour, alpha=0.25, lw=0
    )
