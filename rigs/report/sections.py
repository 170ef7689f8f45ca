"""The chapters of the page: each model or surface as rows, pictures and what is missing."""

import base64
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import angle_deg
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.provenance import Quality
from calibration.radiometric import RadiometricModel
from rigs.report import maps, plots
from rigs.report.content import Report, Surface

_MAP_PX = 600
_LENS_PARAMETERS = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")


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


class Section(NamedTuple):
    """A chapter of the page."""

    title: str
    figures: tuple[Figure, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def number(value: float | None, sigma: float | None = None) -> str:
    """Four significant digits, or as many decimals as give the sigma two."""
    if value is None or not math.isfinite(value):
        return "–"
    if sigma is not None and sigma > 0 and math.isfinite(sigma):
        decimals = min(max(1 - math.floor(math.log10(sigma)), 0), 9)
        text = f"{value:.{decimals}f}"
    else:
        text = f"{value:.4g}"
        if "e" in text and 1 <= abs(value) < 1e7:
            text = f"{value:.0f}"
    return text.replace("-", "−")


def sections(report: Report) -> Iterator[Section]:
    """Chapters in reading order: what came out first, then what it rests on."""
    for surface in report.surfaces:
        yield _surface(surface)
    if not report.surfaces:
        yield Section("Surface", missing=("No object was reconstructed: no normals, albedo or depth.",))
    yield _sensor(report.sensor)
    yield _lens(report)
    yield _lights(report)


def _surface(surface: Surface) -> Section:
    normals = surface.normals
    # One cut for all maps of an object, so that they can be compared place by place.
    cut = maps.window(np.asarray(normals.valid))
    missing = []
    figures = []
    share = float(np.mean(normals.valid))

    def small(values: NDArray[Any]) -> NDArray[np.float32]:
        return maps.shrink(np.asarray(values)[cut], _MAP_PX)

    if surface.picture is not None:
        figures.append(
            _map(
                maps.photograph(small(surface.picture)),
                "One of the pictures",
                f"{surface.name}, lit by one light",
            )
        )
    direction = small(normals.normals)
    figures.append(
        _map(
            maps.normal_colours(direction),
            "Normals",
            f"Normal map of {surface.name}; {share:.0%} of the picture is valid",
            "Red leans to the right, green up, blue to the camera, as on the ball.",
            legend=_data(maps.png(maps.normal_ball())),
        )
    )
    albedo = small(normals.albedo)
    figures.append(
        _map(
            maps.photograph(albedo),
            "Albedo",
            f"Albedo of {surface.name}",
            "Without shading; white at the 99.5th percentile.",
        )
    )
    figures.append(
        _map(
            maps.relief(direction),
            "Relief",
            f"{surface.name} shaded from the upper left",
            "The normals under one light, without albedo.",
        )
    )
    if surface.depth_mm is not None:
        figures.append(
            _scalar(
                small(surface.depth_mm),
                "Depth",
                f"Depth of {surface.name}",
                surface.depth_unit,
                "Distance along the camera axis.",
            )
        )
    else:
        missing.append("Depth: not integrated.")
    if surface.depth_error_mm is not None:
        figures.append(
            _scalar(
                small(surface.depth_error_mm),
                "Depth error",
                f"Depth of {surface.name} minus truth",
                "mm",
                "Found minus truth, after alignment.",
                diverging=True,
            )
        )
    sigma = np.where(normals.valid, normals.sigma_deg, np.nan)
    top = maps.limits(sigma, 0, 98)[1]
    error = None
    if surface.true_normals is not None and bool(np.any(normals.valid)):
        error = np.where(normals.valid, angle_deg(normals.normals, surface.true_normals), np.nan)
        top = max(top, maps.limits(error, 0, 98)[1])
    figures.append(
        _scalar(
            small(sigma),
            "Sigma of the normals",
            f"Predicted standard deviation of the normals of {surface.name}",
            "°",
            "Predicted from the noise of the pixels and the lights.",
            limits=(0, top),
        )
    )
    if error is not None:
        figures.append(
            _scalar(
                small(error),
                "Error of the normals",
                f"Angle between found and true normals of {surface.name}",
                "°",
                f"Against the truth: mean {np.nanmean(error):.3f}°, median {np.nanmedian(error):.3f}°.",
                limits=(0, top),
            )
        )
        figures.append(
            _figure(
                plots.histogram(error, "error / °", sigma, "sigma / °"),
                "Error and sigma",
                f"Histograms of error and predicted sigma over the pixels of {surface.name}",
                "How often each value occurs, in degrees.",
            )
        )
    used = np.where(normals.valid, normals.lights_used, np.nan)
    if np.nanmax(used, initial=0) > 0:
        figures.append(
            _scalar(
                small(used),
                "Lights used",
                f"How many lights each pixel of {surface.name} rests on",
                "",
                "Lights that a pixel rests on: without shadow, highlight and overexposure.",
                limits=(float(np.nanmin(used)), float(np.nanmax(used))),
            )
        )
    if surface.snr is not None:
        snr = small(np.where(surface.snr > 0, surface.snr, np.nan))
        low, high = maps.limits(snr)
        low = max(low, high / 1e4)
        figures.append(
            _scalar(
                snr,
                "Signal to noise",
                f"Signal-to-noise ratio of {surface.name}",
                "",
                "Merged radiance over its sigma, under one light; logarithmic.",
                limits=(low, high),
                logarithmic=True,
            )
        )
    else:
        missing.append("Signal to noise: not given.")
    return Section(f"Object: {surface.name}", tuple(figures), _quality_rows(normals.quality), tuple(missing))


def _scalar(
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
    low, high = maps.limits(values) if limits is None else limits
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    picture = maps.coloured(values, low, high, diverging=diverging, logarithmic=logarithmic)
    space = "" if unit == "°" else " "
    ends = [f"{number(float(f'{end:.3g}'))}{space}{unit}".strip() for end in (low, high)]
    if abs(high - low) < 0.1 * abs(high):
        ends = [f"{end:.2f}{space}{unit}".strip() for end in (low, high)]
    return _figure(
        picture,
        title,
        f"{alt}, from {ends[0]} to {ends[1]}",
        caption,
        bar=Bar(_data(maps.bar(diverging=diverging)), *ends),
        pixels=True,
    )


def _quality_rows(quality: Quality | None) -> tuple[tuple[str, str], ...]:
    if quality is None:
        return ()
    count = f"{_count(quality.observations)} observations"
    if quality.rejected:
        count += f", {_count(quality.rejected)} rejected"
    return (
        (
            "Residual",
            f"{number(quality.residual_rms)} {quality.unit} rms over {count}",
        ),
        ("Verdict", quality.verdict),
    )


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _with_sigma(value: float, sigma: float, unit: str) -> str:
    spread = f" ± {number(sigma, sigma)}" if sigma > 0 else ""
    return f"{number(value, sigma)}{spread} {unit}".strip()


def _sensor(model: RadiometricModel | None) -> Section:
    if model is None:
        return Section("Sensor", missing=("No sensor calibration.",))
    rows = [
        ("Format", f"{model.pixel_format}, {model.width} × {model.height}, gain {number(model.gain_db)} dB")
    ]
    if model.response is None:
        rows += [
            ("Black", _with_sigma(model.black_dn, model.black_sigma_dn, "DN")),
            ("Gain K", _with_sigma(model.gain_dn_per_e, model.gain_sigma_dn_per_e, "DN/e⁻")),
            ("Read noise", _with_sigma(model.read_noise_e, model.read_noise_sigma_e, "e⁻")),
            ("Dark current", _with_sigma(model.dark_current_e_s, model.dark_current_sigma_e_s, "e⁻/s")),
            ("Saturation", f"{number(model.saturation_dn)} DN"),
        ]
    for name, value, unit in (
        ("DSNU", model.dsnu_e, "e⁻"),
        ("PRNU", model.prnu_percent, "%"),
        ("Linearity error", model.linearity_error_percent, "%"),
    ):
        if value is not None:
            rows.append((name, f"{number(value)} {unit}"))
    if model.defects is not None:
        rows.append(("Defect pixels", f"{int(model.defects.sum())}"))
    figures = []
    missing = []
    if model.photon_transfer is not None:
        exposure, mean, variance, used = np.asarray(model.photon_transfer, float).T
        figures.append(
            _figure(
                plots.photon_transfer(
                    mean - model.black_dn, variance, model.gain_dn_per_e, model.read_noise_e, used > 0
                ),
                "Photon transfer",
                "Temporal variance over signal, with the fitted line of slope "
                f"{number(model.gain_dn_per_e)} DN per electron",
                "The slope is the gain; the floor is the read noise.",
            )
        )
        figures.append(
            _figure(
                plots.linearity(exposure, mean - model.black_dn, used > 0),
                "Linearity",
                "Deviation of the signal from a straight line over the exposures, in percent",
                "Signal against exposure time, as deviation from a straight line.",
            )
        )
    elif model.response is None:
        missing.append("Photon transfer: the model carries no measurement.")
    if model.response is not None:
        figures.append(
            _figure(
                plots.response(model.response),
                "Response",
                "Relative exposure over digital number for each channel",
                "The exposure that a digital number stands for.",
            )
        )
    if model.flat_map is not None:
        flat = np.asarray(model.flat_map, float)
        figures.append(
            _scalar(
                maps.shrink(flat if flat.ndim == 2 else flat.mean(axis=-1), _MAP_PX),
                "Flat field",
                "Relative response over the picture",
                "",
                "Relative response: vignetting and pixel gains.",
            )
        )
    return Section("Sensor", tuple(figures), (*rows, *_quality_rows(model.quality)), tuple(missing))


def _lens(report: Report) -> Section:
    lens = report.lens
    if lens is None:
        return Section("Lens", missing=("No lens model: rays are taken as parallel.",))
    figures: tuple[Figure, ...] = ()
    missing: tuple[str, ...] = ("Residuals of the corners: not given.",)
    if lens.observations is not None:
        figures = (
            _figure(
                plots.lens_residuals(lens),
                "Corners and residuals",
                f"Residuals of {(lens.observations[:, 0] >= 0).sum()} board corners, in place and as a cloud",
                "Left: where corners were seen and how far the model misses them. "
                "Right: the same as a cloud, which should be round and centred.",
                wide=True,
            ),
        )
        missing = ()
    return Section("Lens", figures, (*_lens_rows(lens), *_quality_rows(lens.quality)), missing)


def _lens_rows(lens: LensModel) -> Iterator[tuple[str, str]]:
    sigma = np.zeros(9) if lens.covariance is None else np.sqrt(np.diag(lens.covariance))
    yield "Picture", f"{lens.width} × {lens.height} px"
    for index, name in enumerate(_LENS_PARAMETERS):
        value = float(getattr(lens, name))
        if value != 0 or sigma[index] > 0:
            yield name, _with_sigma(value, float(sigma[index]), "px" if index < 4 else "")


def _lights(report: Report) -> Section:
    lights = report.lights
    figures = []
    missing = []
    if lights is None:
        missing.append("No light model.")
    else:
        near = sum(isinstance(light, NearLight) for light in lights.lights.values())
        if near:
            figures.append(
                _figure(
                    plots.near_lights(lights, report.true_lights),
                    "Positions",
                    f"Positions of {near} near lights from the front and from the side",
                    "To scale, with shaded ellipses that hold 95 % of a position's uncertainty.",
                    wide=True,
                )
            )
        if near < len(lights.lights):
            figures.append(
                _figure(
                    plots.distant_lights(lights, report.true_lights),
                    "Directions",
                    f"Directions of {len(lights.lights) - near} distant lights around the camera axis",
                    "Seen as the camera looks: right is right, down is down.",
                    wide=True,
                )
            )
    if report.spheres is not None:
        figures.append(
            _figure(
                plots.sphere_sight(report.spheres),
                "Spheres",
                f"{len(report.spheres.circles)} mirror spheres with fitted outline and highlights",
                "Outline as fitted, and every highlight found. Brightness is compressed.",
                wide=True,
            )
        )
    else:
        missing.append("Spheres: no picture given.")
    rows = () if lights is None else (*_light_rows(lights), *_quality_rows(lights.quality))
    return Section("Lights", tuple(figures), rows, tuple(missing))


def _light_rows(lights: LightSet) -> Iterator[tuple[str, str]]:
    values = list(lights.lights.values())
    distant = sum(isinstance(light, DistantLight) for light in values)
    yield "Lights", f"{len(values) - distant} near, {distant} distant"
    level = np.array([np.mean(light.intensity) for light in values])
    if len(level) and np.all(level > 0):
        yield "Intensity", f"weakest to strongest 1 : {number(float(level.max() / level.min()))}"
    if lights.sphere_centres_mm is not None:
        yield "Spheres", f"{len(lights.sphere_centres_mm)}, radius {number(lights.sphere_radius_mm)} mm"
    if lights.scene_depth_mm is not None:
        yield "Scene depth", f"{number(lights.scene_depth_mm)} mm"


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _figure(png: bytes, title: str, alt: str, caption: str = "", **more: Any) -> Figure:
    # Width and height stand at bytes 16..24 of every PNG.
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    return Figure(_data(png), width, height, title, alt, caption, **more)


def _map(rgb: maps.Image, title: str, alt: str, caption: str = "", legend: str = "") -> Figure:
    return _figure(maps.png(rgb), title, alt, caption, pixels=True, legend=legend)
