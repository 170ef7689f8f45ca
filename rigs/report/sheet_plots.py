"""Figures of an EMVA 1288 data sheet as PNG."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric.sheet import NonUniformity, SensorSheet
from rigs.report.drawing import BLUE, GRAY, GREEN, INK, ORANGE, drawing, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Float = NDArray[np.float64]
_SIZE = 3.7, 2.9
_FIT_RANGE = 0.7  # of saturation: EMVA 1288, fit of the photon transfer and of the responsivity


class Levels:
    """Columns of `SensorSheet.levels`, sorted by the mean.

    Attributes
    ----------
    photons : ndarray (n,)
        NaN where not told.
    signal, variance : ndarray (n,)
        DN and DN^2 above darkness.
    exposure_s, dark, temporal : ndarray (n,)
        Exposure, mean DN of the darks, temporal variance in DN^2.
    used : ndarray (n,), bool
    """

    def __init__(self, sheet: SensorSheet) -> None:
        table = np.asarray(sheet.levels, np.float64).reshape(-1, 7)
        table = table[np.argsort(table[:, 2], kind="stable")]
        self.exposure_s, self.photons, mean, self.dark, self.temporal, dark_variance, used = table.T
        self.signal = mean - self.dark
        self.variance = self.temporal - np.where(np.isfinite(dark_variance), dark_variance, 0.0)
        self.used = used > 0

    @property
    def abscissa(self) -> tuple[Float, str]:
        """What was varied: photons where all are told, else the exposure in ms."""
        if self.photons.size and np.all(np.isfinite(self.photons)):
            return self.photons, "irradiation / (photons/pixel)"
        return 1000 * self.exposure_s, "exposure / ms"


def photon_transfer(sheet: SensorSheet, gain_dn_per_e: float) -> bytes:
    """Photo-induced variance over the photo-induced mean, with the line of slope K."""
    levels = Levels(sheet)
    with drawing(*_SIZE) as (figure, axes):
        _marks(axes, levels.signal, levels.variance, levels.used)
        reach = float(np.max(levels.signal[levels.used], initial=0.0))
        axes.plot([0, reach], [0, gain_dn_per_e * reach], color=ORANGE, label="fit of slope K")
        top = float(np.max(levels.signal, initial=1.0))
        axes.plot([reach, top], np.multiply(gain_dn_per_e, [reach, top]), ":", color=ORANGE)
        _saturation(axes, _saturation_signal(sheet, gain_dn_per_e))
        axes.set(xlabel="mean above dark / DN", ylabel="variance above dark / DN²", xlim=(0, 1.05 * top))
        axes.set_ylim(0, 1.15 * max(float(np.max(levels.variance, initial=0.0)), 1e-9))
        axes.legend(loc="upper left")
        return png(figure)


def sensitivity(sheet: SensorSheet, gain_dn_per_e: float) -> bytes:
    """Photo-induced mean over the light, with the line of the responsivity."""
    levels = Levels(sheet)
    light, label = levels.abscissa
    with drawing(*_SIZE) as (figure, axes):
        _marks(axes, light, levels.signal, levels.used)
        inside = levels.signal <= _FIT_RANGE * _saturation_signal(sheet, gain_dn_per_e)
        slope = sheet.responsivity_dn_per_photon if light is levels.photons else None
        if slope is None and np.any(inside) and np.any(light[inside] > 0):
            slope = float(light[inside] @ levels.signal[inside] / (light[inside] @ light[inside]))
        if slope is not None and light.size:
            end = min(float(light.max()), 1.05 * float(levels.signal.max()) / slope)
            name = "fit of slope R" if light is levels.photons else "line through zero"
            axes.plot([0, end], [0, slope * end], color=ORANGE, label=name)
        axes.set(xlabel=label, ylabel="mean above dark / DN", xlim=(0, None), ylim=(0, None))
        axes.locator_params(axis="x", nbins=5)
        axes.legend(loc="upper left")
        return png(figure)


def linearity(sheet: SensorSheet) -> bytes:
    """Relative deviation from the line through 5..95 % of saturation."""
    assert sheet.linearity is not None
    light, off = np.asarray(sheet.linearity, np.float64).T
    order = np.argsort(light)
    told = np.isfinite(Levels(sheet).photons).all()
    with drawing(*_SIZE) as (figure, axes):
        axes.axhline(0, color=INK, lw=0.8)
        axes.plot(light[order] * (1 if told else 1000), off[order], "o-", ms=4, color=BLUE)
        for bound, side in (
            (sheet.linearity_error_min_percent, "min"),
            (sheet.linearity_error_max_percent, "max"),
        ):
            if bound is not None:
                axes.axhline(bound, ls=":", color=GRAY)
                axes.annotate(
                    f"LE {side} {bound:.3g} %".replace("-", "−"),
                    (0.99, bound),
                    xycoords=("axes fraction", "data"),
                    ha="right",
                    va="bottom" if bound > 0 else "top",
                    fontsize=7.5,
                )
        reach = 1.3 * max(float(np.max(np.abs(off), initial=0.0)), 0.05)
        axes.set(
            xlabel="irradiation / (photons/pixel)" if told else "exposure / ms",
            ylabel="off the straight line / %",
            ylim=(-reach, reach),
        )
        axes.locator_params(axis="x", nbins=5)
        return png(figure)


def signal_to_noise(sheet: SensorSheet, gain_dn_per_e: float) -> bytes:
    """Measured SNR of single frames, the theoretical curve, and that with the nonuniformity, log-log."""
    levels = Levels(sheet)
    told = bool(np.isfinite(levels.photons).all()) and sheet.quantum_efficiency_percent is not None
    eta = (sheet.quantum_efficiency_percent or 100.0) / 100 if told else 1.0
    # Beyond saturation the noise is clipped with the signal, and the ratio means nothing.
    shown = (levels.signal > 0) & (levels.temporal > 0)
    shown &= levels.signal <= 1.005 * _saturation_signal(sheet, gain_dn_per_e)
    light = (levels.photons if told else levels.signal / gain_dn_per_e)[shown]
    noise_e2 = (sheet.dark_noise_dn / gain_dn_per_e) ** 2
    with drawing(*_SIZE) as (figure, axes):
        measured = levels.signal[shown] / np.sqrt(levels.temporal[shown])
        axes.loglog(light, measured, "o", ms=4, color=BLUE, label="measured")
        ends = [sheet.threshold_e / eta / 2, sheet.saturation_e / eta]
        curve = np.geomspace(min(ends[0], ends[1] / 10), ends[1], 200)
        electrons = eta * curve
        axes.loglog(curve, electrons / np.sqrt(noise_e2 + electrons), color=ORANGE, label="theory, temporal")
        if sheet.dsnu_e is not None and sheet.prnu_percent is not None:
            spatial = sheet.dsnu_e.total**2 + (sheet.prnu_percent.total / 100 * electrons) ** 2
            total = electrons / np.sqrt(noise_e2 + electrons + spatial)
            axes.loglog(curve, total, "--", color=GREEN, label="theory, total")
        axes.loglog(curve, np.sqrt(curve), ":", color=GRAY, label="ideal sensor")
        for place in (sheet.threshold_e / eta, sheet.saturation_e / eta):
            axes.axvline(place, color=GRAY, lw=0.8, ls=(0, (4, 3)))
        axes.set(
            xlabel="irradiation / (photons/pixel)" if told else "signal / e⁻",
            ylabel="signal to noise",
            ylim=(0.3, None),
        )
        axes.legend(loc="upper left")
        return png(figure)


def dark_current(sheet: SensorSheet, gain_dn_per_e: float) -> bytes:
    """Mean of the darks over exposure, with the slope of the dark current."""
    levels = Levels(sheet)
    with drawing(*_SIZE) as (figure, axes):
        axes.plot(levels.exposure_s, levels.dark, "o", ms=4, color=BLUE, label="mean of the darks")
        if sheet.dark_current_e_s is not None and levels.dark.size:
            slope = gain_dn_per_e * sheet.dark_current_e_s
            start = float(np.mean(levels.dark - slope * levels.exposure_s))
            ends = np.array([0.0, levels.exposure_s.max()])
            axes.plot(ends, start + slope * ends, color=ORANGE, label="dark current")
        axes.set(xlabel="exposure / s", ylabel="mean dark / DN", xlim=(0, None))
        axes.locator_params(axis="x", nbins=5)
        axes.legend(loc="best")
        return png(figure)


def spectrogram(
    frequency: NDArray[Any],
    rows: NDArray[Any],
    columns: NDArray[Any],
    non_uniformity: NonUniformity | None,
    unit: str,
) -> bytes:
    """Root power spectra along rows and along columns; white nonuniformity is a level line."""
    known = np.concatenate([rows, columns])
    known = known[np.isfinite(known) & (known > 0)]
    with drawing(*_SIZE) as (figure, axes):
        for values, colour, name in ((rows, BLUE, "along rows"), (columns, ORANGE, "along columns")):
            shown = np.isfinite(values) & (values > 0) & (frequency > 0)
            axes.semilogy(frequency[shown], values[shown], lw=0.9, color=colour, label=name)
        if non_uniformity is not None and non_uniformity.pixel > 0:
            axes.axhline(non_uniformity.pixel, color=INK, lw=0.8, ls="--", label="pixel part")
        axes.set(xlabel="frequency / (cycles/pixel)", ylabel=f"root power / {unit}", xlim=(0, 0.5))
        if known.size:
            axes.set_ylim(0.6 * known.min(), 3 * known.max())
        axes.legend(loc="upper right", ncols=2)
        return png(figure)


def profiles(rows: NDArray[Any], columns: NDArray[Any]) -> bytes:
    """Mean, least and greatest of the bright image over its columns and rows, and the dark means below."""
    with drawing(8.4, 3.4, 2) as (figure, both):
        for axes, table, name in ((both[0], columns, "column"), (both[1], rows, "row")):
            mean, low, high, dark = np.asarray(table, np.float64).T
            place = np.arange(len(mean))
            axes.fill_between(place, low, high, color=BLUE, alpha=0.18, lw=0, label="least to greatest")
            axes.plot(place, mean, lw=0.9, color=BLUE, label="mean")
            spread = np.nanpercentile(np.concatenate([low, high]), [1, 99])
            pad = max(0.25 * (spread[1] - spread[0]), 0.5)
            axes.set(
                xlabel=f"{name} / px", ylabel="bright / % of the mean",
                xlim=(0, max(len(mean) - 1, 1)), ylim=(spread[0] - 2 * pad, spread[1] + pad),
            )  # fmt: skip
            beside = axes.twinx()
            beside.plot(place, dark, lw=0.8, color=ORANGE, label="dark mean (right)")
            middle, reach = np.nanmedian(dark), max(float(np.nanmax(dark) - np.nanmin(dark)), 1e-3)
            # The dark profile takes the lowest quarter of the frame.
            beside.set_ylim(middle - reach, middle + 6 * reach)
            beside.grid(False)
            beside.set_ylabel("dark / DN")
            beside.spines["right"].set_visible(True)
            lines = [*axes.get_legend_handles_labels()[0], *beside.get_legend_handles_labels()[0]]
        figure.legend(lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=3)
        return png(figure)


def histogram(deviation: NDArray[Any], count: NDArray[Any], unit: str) -> bytes:
    """Logarithmic histogram of the pixels' deviations, with the normal distribution of their spread."""
    deviation, count = np.asarray(deviation, float), np.asarray(count, float)
    known = np.isfinite(deviation) & np.isfinite(count)
    deviation, count = deviation[known], count[known]
    with drawing(*_SIZE) as (figure, axes):
        if count.sum() > 0:
            share = np.cumsum(count) / count.sum()
            # Of the middle, as defects would widen it: half of the distance from 16 % to 84 %.
            low, middle, high = (float(np.interp(q, share, deviation)) for q in (0.1587, 0.5, 0.8413))
            sigma = max((high - low) / 2, 1e-12)
            step = float(np.median(np.diff(deviation))) if len(deviation) > 1 else 1.0
            x = np.linspace(deviation.min(), deviation.max(), 400)
            model = (
                count.sum()
                * step
                / (sigma * np.sqrt(2 * np.pi))
                * np.exp(-((x - middle) ** 2) / 2 / sigma**2)
            )
            # The step is drawn to its left neighbour's place: the bin's centre is the deviation.
            axes.step(deviation, np.maximum(count, 0.5), where="mid", color=BLUE, label="pixels")
            axes.plot(x, np.maximum(model, 0.3), "--", color=ORANGE, label=f"normal, σ {sigma:.3g} {unit}")
        axes.set(xlabel=f"deviation / {unit}", ylabel="pixels", yscale="log", ylim=(0.5, None))
        # The tails may lie anywhere within.
        figure.legend(loc="outside upper center", ncols=2)
        return png(figure)


def _marks(axes: "Axes", x: Float, y: Float, used: NDArray[np.bool_]) -> None:
    axes.plot(x[used], y[used], "o", ms=4, color=BLUE, label="used in the fit of K")
    if not used.all():
        axes.plot(x[~used], y[~used], "o", ms=4, mfc="none", color=GRAY, label="beyond it")


def _saturation_signal(sheet: SensorSheet, gain_dn_per_e: float) -> float:
    return gain_dn_per_e * sheet.saturation_e


def _saturation(axes: "Axes", signal: float) -> None:
    axes.axvline(signal, color=GRAY, lw=0.8, ls=(0, (4, 3)))
    axes.annotate(
        "saturation", (signal, 0.03), xycoords=("data", "axes fraction"), rotation=90, fontsize=7,
        ha="right", va="bottom", color="#5b6673",
    )  # fmt: skip
