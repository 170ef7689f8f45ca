"""Plots of the report as PNG."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight, LightSet, NearLight
from rigs.report import maps
from rigs.report.content import SphereSight
from rigs.report.drawing import BLUE, GRAY, GREEN, INK, ORANGE, drawing, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NAMES = 40
_SPREAD_95 = 2.4477  # radius that holds 95 % of a two-dimensional normal distribution: sqrt(-2 ln 0.05)


def photon_transfer(
    signal_dn: NDArray[Any],
    variance_dn2: NDArray[Any],
    gain_dn_per_e: float,
    read_noise_e: float,
    used: NDArray[np.bool_] | None = None,
) -> bytes:
    """Temporal variance over signal above black, with the straight line of the fit, log-log."""
    signal, variance = np.asarray(signal_dn, float), np.asarray(variance_dn2, float)
    used = np.ones(signal.shape, bool) if used is None else np.asarray(used, bool)
    shown = (signal > 0) & (variance > 0)
    with drawing(3.7, 2.9) as (figure, axes):
        axes.loglog(signal[shown & used], variance[shown & used], "o", ms=4.5, color=BLUE, label="measured")
        left_out = shown & ~used
        if left_out.any():
            axes.loglog(
                signal[left_out], variance[left_out], "o", ms=4.5, mfc="none", color=GRAY, label="not used"
            )
        if shown.any():
            line = np.geomspace(max(signal[shown].min() / 2, 1e-2), signal[shown].max(), 200)
            floor = (gain_dn_per_e * read_noise_e) ** 2
            axes.loglog(line, gain_dn_per_e * line + floor, color=ORANGE, label="fit: K · signal + read²")
            axes.loglog(line, np.full_like(line, floor), ":", color=GRAY, label="read noise²")
        axes.set(xlabel="signal above black / DN", ylabel="temporal variance / DN²")
        axes.legend(loc="upper left")
        return png(figure)


def linearity(exposure_s: NDArray[Any], signal_dn: NDArray[Any], used: NDArray[np.bool_]) -> bytes:
    """Deviation of the mean signal from a straight line over the exposures, in percent of the line.

    Several rows of one exposure are classes of pixels; an exposure counts where all its classes were used.
    """
    exposure, group = np.unique(np.asarray(exposure_s, float), return_inverse=True)
    rows = np.bincount(group)
    signal = np.bincount(group, np.asarray(signal_dn, float)) / rows
    whole = (
        (np.bincount(group, np.asarray(used, float)) == rows) & (rows == rows.max(initial=0)) & (signal > 0)
    )
    exposure, signal = exposure[whole], signal[whole]
    with drawing(3.7, 2.9) as (figure, axes):
        axes.axhline(0, color=INK, lw=0.8)
        if len(signal) >= 3:
            # Weighted by 1 / signal, as the line is judged in percent.
            slope, offset = np.polyfit(exposure, signal, 1, w=1 / signal)
            off = 100 * (signal / (slope * exposure + offset) - 1)
            axes.plot(signal, off, "o-", ms=4, color=BLUE)
            reach = 1.2 * max(float(np.abs(off).max()), 0.05)
            axes.set_ylim(-reach, reach)
        axes.set(xlabel="mean signal above black / DN", ylabel="off a straight line / %")
        return png(figure)


def response(table: NDArray[Any], sigma: NDArray[Any] | None = None) -> bytes:
    """Relative exposure that each digital number stands for, one curve a channel; (2**bits, 1 or 3).

    With its relative sigma a band of two sigma is drawn, and what the scene did not constrain is dotted.
    """
    curves = np.asarray(table, float)
    spread = np.zeros(curves.shape) if sigma is None else np.asarray(sigma, float)
    with drawing(3.7, 2.9) as (figure, axes):
        colours = (INK,) if curves.shape[1] == 1 else ("#b3261e", GREEN, BLUE)
        for curve, off, colour in zip(curves.T, spread.T, colours, strict=True):
            shown = np.flatnonzero(curve > 0)
            # Deep samples have more codes than the picture has pixels.
            shown = shown[:: max(len(shown) // 2048, 1)]
            value, known = curve[shown], np.isfinite(off[shown])
            axes.semilogy(shown, np.where(known, value, np.nan), color=colour)
            axes.semilogy(shown, np.where(known, np.nan, value), ":", color=colour)
            wide = np.where(known, off[shown], 0)
            axes.fill_between(
                shown, value * np.exp(-2 * wide), value * np.exp(2 * wide), color=colour, alpha=0.25, lw=0
            )
        if (curves > 0).any():
            axes.set_ylim(max(float(curves[curves > 0].min()), 1e-6 * curves.max()), 2 * curves.max())
        axes.set(xlabel="digital number", ylabel="relative exposure")
        return png(figure)


def near_lights(lights: LightSet, truth: LightSet | None) -> bytes:
    """Positions from the front and from the side, and the distance from the truth, or the sigma, of each."""
    names = [name for name, light in lights.lights.items() if isinstance(light, NearLight)]
    found = {name: light for name, light in lights.lights.items() if isinstance(light, NearLight)}
    known = {} if truth is None else {n: x for n, x in truth.lights.items() if isinstance(x, NearLight)}
    position = np.array([found[name].position_mm for name in names])
    true = np.array([known[name].position_mm for name in names if name in known]).reshape(-1, 3)
    spheres = np.zeros((0, 3)) if lights.sphere_centres_mm is None else np.asarray(lights.sphere_centres_mm)
    everything = np.concatenate([position, true, spheres, np.zeros((1, 3))])
    low, high = everything.min(axis=0), everything.max(axis=0)
    pad = 0.08 * float((high - low).max())
    span = high - low + 2 * pad
    ratios = np.clip([span[0] / span[1], span[2] / span[1], 0.9], 0.3, 3)
    with drawing(8.4, 3.8, 3, width_ratios=ratios) as (figure, (front, side, bars)):
        for axes, (a, b) in ((front, (0, 1)), (side, (2, 1))):
            _discs(axes, spheres[:, [a, b]], lights.sphere_radius_mm or 0.0)
            axes.plot(0, 0, marker="s", ms=6, color=INK, ls="none", label="camera")
            if len(true):
                axes.plot(true[:, a], true[:, b], "o", ms=7, mfc="none", mew=1.1, color=ORANGE, label="truth")
            for name, at in zip(names, position, strict=True):
                covariance = found[name].covariance
                if covariance is not None:
                    _ellipse(axes, at[[a, b]], np.asarray(covariance)[np.ix_([a, b], [a, b])])
            axes.plot(position[:, a], position[:, b], "o", ms=3, color=BLUE, label="found")
            axes.set(
                aspect="equal",
                xlim=(low[a] - pad, high[a] + pad),
                ylim=(high[b] + pad, low[b] - pad),
            )
        front.set(title="as the camera looks", xlabel="x / mm", ylabel="y / mm (down)")
        side.set(title="from the side", xlabel="z / mm (from the camera)", yticklabels=[])
        figure.legend(*side.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        _light_bars(bars, names, found, known)
        _names(front, names, position[:, :2], 5.5)
        return png(figure)


def distant_lights(lights: LightSet, truth: LightSet | None) -> bytes:
    """Directions on the hemisphere around the camera, and the angle to the truth, or the sigma, of each."""
    found = {name: light for name, light in lights.lights.items() if isinstance(light, DistantLight)}
    known = {} if truth is None else {n: x for n, x in truth.lights.items() if isinstance(x, DistantLight)}
    names = list(found)
    direction = np.array([found[name].direction for name in names])
    with drawing(8.4, 3.8, 2, width_ratios=[1, 1.2]) as (figure, (sky, bars)):
        widest = float(angle_deg(direction, [0.0, 0.0, -1.0]).max())
        reach = next((step for step in (30, 60) if 1.05 * widest < step), 90)
        for zenith in range(reach // 3, reach + 1, reach // 3):
            turn = np.linspace(0, 2 * np.pi, 181)
            sky.plot(zenith * np.cos(turn), zenith * np.sin(turn), color="#d5dbe1", lw=0.8, zorder=0)
            sky.annotate(f"{zenith}°", (0, -zenith), fontsize=6.5, color="#5b6673", ha="center", va="bottom")
        if known:
            x, y = _sky(np.array([known[name].direction for name in names if name in known])).T
            sky.plot(x, y, "o", ms=8, mfc="none", mew=1.2, color=ORANGE, label="truth")
        x, y = _sky(direction).T
        sky.plot(x, y, "o", ms=3.6, color=BLUE, label="found")
        sky.set(
            aspect="equal",
            xlim=(-1.08 * reach, 1.08 * reach),
            ylim=(1.08 * reach, -1.08 * reach),
            title="angle from the camera axis, as it looks",
        )
        sky.axis("off")
        sky.legend(loc="lower right")
        _light_bars(bars, names, found, known)
        _names(sky, names, _sky(direction), 6)
        return png(figure)


def sphere_sight(sight: SphereSight) -> bytes:
    """Each sphere enlarged, with its outline and all highlights found on it."""
    from matplotlib.patches import Circle

    circles = np.asarray(sight.circles, float).reshape(-1, 3)
    count = min(len(circles), 6)
    with drawing(8.4, 8.4 / max(count, 3) + 0.25, max(count, 1), squeeze=False) as (figure, grid):
        for number, (axes, (x, y, radius)) in enumerate(zip(grid[0], circles, strict=False), start=1):
            reach = 1.25 * radius
            left, top = max(int(x - reach), 0), max(int(y - reach), 0)
            crop = np.asarray(sight.picture)[top : int(y + reach) + 1, left : int(x + reach) + 1]
            if 0 in crop.shape:
                axes.axis("off")
                continue
            # The cube root shows the rim beside a highlight a thousand times brighter.
            crop = maps.shrink(crop, 500)
            picture = np.cbrt(np.clip(np.nan_to_num(crop), 0, None))
            extent = (left - 0.5, int(min(x + reach, sight.picture.shape[1] - 1)) + 0.5)
            rows = (int(min(y + reach, sight.picture.shape[0] - 1)) + 0.5, top - 0.5)
            axes.imshow(picture, cmap="gray", extent=(*extent, *rows), vmax=np.percentile(picture, 99.8))
            axes.add_patch(Circle((x, y), radius, fill=False, ec="#ff8c3b", lw=1.2))
            if sight.highlights is not None:
                spots = np.asarray(sight.highlights)
                near = spots[np.hypot(spots[:, 0] - x, spots[:, 1] - y) < radius]
                axes.plot(near[:, 0], near[:, 1], "+", ms=6, mew=1, color="#4fc3f7")
            axes.set(title=f"sphere {number}: r {radius:.1f} px", xticks=[], yticks=[])
            axes.grid(False)
            axes.set(xlim=extent, ylim=rows)
        return png(figure)


def histogram(
    values: NDArray[Any], label: str, truth: NDArray[Any] | None = None, truth_label: str = ""
) -> bytes:
    """Distribution of the finite values up to the 99.5th percentile, beside that of another."""
    finite = np.asarray(values)[np.isfinite(values)]
    other = None if truth is None else np.asarray(truth)[np.isfinite(truth)]
    top = max(float(np.percentile(part, 99.5)) for part in (finite, other) if part is not None and part.size)
    with drawing(3.7, 2.9) as (figure, axes):
        bins = np.linspace(0, top, 80)
        for part, colour, name in ((finite, BLUE, label), (other, ORANGE, truth_label)):
            if part is not None and part.size:
                share = np.histogram(part, bins)[0] / part.size * 100
                axes.stairs(share, bins, color=colour, label=f"{name}: mean {part.mean():.2f}")
        axes.set(ylabel="share of the pixels / %", xlim=(0, top))
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
        axes.legend(loc="upper right")
        return png(figure)


def _names(axes: "Axes", names: list[str], places: NDArray[Any], size_pt: float) -> None:
    """Each name beside its place, where it covers neither a place nor another name; where it must, left out.

    The axes are laid out already, but for this.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    at = axes.transData.transform(places) * 72 / figure.dpi
    taken = [(x - 2.0, y - 2.0, x + 2.0, y + 2.0) for x, y in at]
    for name, place, (x, y) in zip(names, places, at, strict=True):
        wide, high = 0.6 * size_pt * len(name), size_pt
        for left, low in ((3, 2), (3, -high - 2), (-wide - 3, 2), (-wide - 3, -high - 2), (4, -0.4 * high),
                          (-wide - 4, -0.4 * high), (-wide / 2, 4), (-wide / 2, -high - 4)):  # fmt: skip
            box = (x + left, y + low, x + left + wide, y + low + high)
            free = all(
                box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1]
                for other in taken
            )
            if free:
                taken.append(box)
                axes.annotate(
                    name,
                    place,
                    xytext=(left, low),
                    textcoords="offset points",
                    fontsize=size_pt,
                    color="#5b6673",
                )
                break


def _light_bars(
    axes: "Axes",
    names: list[str],
    found: dict[str, Any],
    known: dict[str, Any],
) -> None:
    near = bool(names) and isinstance(found[names[0]], NearLight)
    unit = "mm" if near else "°"
    sigma = np.array([_light_sigma(found[name]) for name in names])
    error = np.array([_light_error(found[n], known[n]) if n in known else np.nan for n in names])
    rows = np.arange(len(names))
    if np.isfinite(error).any():
        axes.barh(rows, np.nan_to_num(error), height=0.6, color=BLUE)
        axes.set_title(f"off the truth by / {unit}" + "; | sigma" * bool(np.isfinite(sigma).any()))
        axes.plot(sigma, rows, "|", ms=7, mew=1.6, color=ORANGE)
    else:
        axes.barh(rows, np.nan_to_num(sigma), height=0.6, color=BLUE)
        known_sigma = bool(np.isfinite(sigma).any())
        axes.set_title(f"sigma of the fit / {unit}" if known_sigma else "no sigma is known")
        if not known_sigma:
            axes.set_xticks([])
    if len(names) > _MOST_NAMES:
        shown = -(-len(names) // _MOST_NAMES)
        names = [name if i % shown == 0 else "" for i, name in enumerate(names)]
    axes.set(yticks=rows, ylim=(len(names) - 0.4, -0.6))
    axes.set_yticklabels(names, fontsize=6 if len(names) > 14 else 8)
    axes.grid(axis="y", visible=False)


def _light_sigma(light: NearLight | DistantLight) -> float:
    """Root of the covariance's trace: mm of a position, degrees of a direction."""
    if light.covariance is None:
        return float("nan")
    sigma = float(np.sqrt(np.trace(light.covariance)))
    return sigma if isinstance(light, NearLight) else float(np.degrees(sigma))


def _light_error(found: NearLight | DistantLight, known: NearLight | DistantLight) -> float:
    if isinstance(found, NearLight) and isinstance(known, NearLight):
        return float(np.linalg.norm(np.subtract(found.position_mm, known.position_mm)))
    if isinstance(found, DistantLight) and isinstance(known, DistantLight):
        return float(angle_deg(found.direction, known.direction))
    return float("nan")


def _sky(direction: NDArray[Any]) -> NDArray[np.float64]:
    """Equidistant map of directions (n, 3): degrees from the camera axis, (n, 2)."""
    zenith = angle_deg(direction, [0.0, 0.0, -1.0])
    azimuth = np.arctan2(direction[:, 1], direction[:, 0])
    return np.stack([zenith * np.cos(azimuth), zenith * np.sin(azimuth)], axis=1)


def _ellipse(axes: "Axes", centre: NDArray[Any], covariance: NDArray[Any]) -> None:
    from matplotlib.patches import Ellipse

    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * _SPREAD_95 * np.sqrt(np.clip(values, 0, None))
    angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
    axes.add_patch(Ellipse((centre[0], centre[1]), width, height, angle=angle, fc=BLUE, alpha=0.25, lw=0))


def _discs(axes: "Axes", centres: NDArray[Any], radius: float) -> None:
    from matplotlib.patches import Circle

    for x, y in centres:
        axes.add_patch(Circle((x, y), radius, fc="#dfe4e9", ec=GRAY, lw=0.7))
