"""The chapters of the page: each model or surface as rows, pictures and what is missing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.radiometric.checks import SessionChecks
from rigs.report import maps, plots
from rigs.report.cameras import cameras_section
from rigs.report.colour import colour_section
from rigs.report.content import Report, Surface
from rigs.report.flat import flat_sections
from rigs.report.focus import focus_section
from rigs.report.layout import (
    MAP_PX,
    Section,
    data_url,
    figure,
    image,
    number,
    quality_rows,
    scalar,
)
from rigs.report.lens import lens_section
from rigs.report.merged import merged_sections
from rigs.report.sheet import sensor_section
from rigs.report.timing import timing_section

_COLOURS_END = "Colours end at the 1st and 99th percentile."
_DEPTH_MEANS = {
    "mm": f"Distance along the camera axis. {_COLOURS_END}",
    "px": f"Along the camera axis, without a lens model from anywhere. {_COLOURS_END}",
    "relative": f"Distance along the camera axis, but for a factor that nothing tells. {_COLOURS_END}",
}


def sections(report: Report) -> Iterator[Section]:
    """Chapters in reading order: what came out first, then what it rests on.

    A sensor, a lens, a focus or a timing model alone is a data sheet, and merged radiance stands for itself:
    that they come without surface and lights needs no word.
    """
    yield from merged_sections(report.merged)
    if report.checks is not None:
        yield _checks(report.checks)
    whole = report.surfaces or report.lights or report.spheres or report.colour
    if not whole:
        if report.sensor is not None:
            yield sensor_section(report.sensor)
            yield from flat_sections(report.sensor)
        if report.lens is not None:
            yield lens_section(report.lens)
        if report.cameras is not None:
            yield cameras_section(report.cameras)
        if report.focus is not None:
            yield focus_section(report.focus)
        if report.timing is not None:
            yield timing_section(report.timing)
        parts = (report.sensor, report.lens, report.cameras, report.focus, report.timing, report.checks)
        if report.merged or any(part is not None for part in parts):
            return
    for surface in report.surfaces:
        yield _surface(surface)
    if not report.surfaces:
        yield Section("Surface", missing=("No object was reconstructed: no normals, albedo or depth.",))
    yield sensor_section(report.sensor)
    yield from flat_sections(report.sensor)
    if report.colour is not None:
        yield colour_section(report.colour)
    yield lens_section(report.lens)
    if report.cameras is not None:
        yield cameras_section(report.cameras)
    if report.focus is not None:
        yield focus_section(report.focus)
    yield _lights(report)
    if report.timing is not None:
        yield timing_section(report.timing)


def _checks(checks: SessionChecks) -> Section:
    rows = ((check.name, f"{check.verdict}: {check.text}") for check in checks.results)
    return Section("Session checks", rows=(*rows, ("session", checks.provenance.session[:12] or "–")))


def _surface(surface: Surface) -> Section:
    normals = surface.normals
    # One cut for all maps of an object, so that they can be compared place by place.
    cut = maps.window(np.asarray(normals.valid))
    missing = []
    figures = []
    share = float(np.mean(normals.valid))

    def small(values: NDArray[Any]) -> NDArray[np.float32]:
        return maps.shrink(np.asarray(values)[cut], MAP_PX)

    if surface.picture is not None:
        figures.append(
            image(
                maps.photograph(small(surface.picture)),
                "One of the pictures",
                f"{surface.name}, lit by one light",
            )
        )
    direction = small(normals.normals)
    figures.append(
        image(
            maps.normal_colours(direction),
            "Normals",
            f"Normal map of {surface.name}; {share:.0%} of the picture is valid",
            "Red leans to the right, green up, blue to the camera, as on the ball.",
            legend=data_url(maps.png(maps.normal_ball())),
        )
    )
    albedo = small(normals.albedo)
    figures.append(
        image(
            maps.photograph(albedo),
            "Albedo",
            f"Albedo of {surface.name}",
            "Without shading; white at the 99.5th percentile.",
        )
    )
    figures.append(
        image(
            maps.relief(direction),
            "Relief",
            f"{surface.name} shaded from the upper left",
            "The normals under one light, without albedo.",
        )
    )
    if surface.depth_mm is not None:
        figures.append(
            scalar(
                small(surface.depth_mm),
                "Depth",
                f"Depth of {surface.name}",
                surface.depth_unit,
                _DEPTH_MEANS.get(surface.depth_unit, _DEPTH_MEANS["mm"]),
            )
        )
    else:
        missing.append("Depth: not integrated.")
    if surface.depth_error_mm is not None:
        figures.append(
            scalar(
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
        scalar(
            small(sigma),
            "Sigma of the normals",
            f"Predicted standard deviation of the normals of {surface.name}",
            "°",
            "Predicted from the noise and from what the surface's model leaves; lights are taken as true.",
            limits=(0, top),
        )
    )
    if normals.sigma_lights_deg is not None:
        by_lights = np.where(normals.valid, normals.sigma_lights_deg, np.nan)
        figures.append(
            scalar(
                small(by_lights),
                "Sigma by the lights",
                f"Predicted turn of the normals of {surface.name} by errors of the lights",
                "°",
                "Predicted from the covariance of the lights: alike over the surface, beside sigma.",
                limits=(0, maps.limits(by_lights, 0, 98)[1]),
            )
        )
    if error is not None:
        figures.append(
            scalar(
                small(error),
                "Error of the normals",
                f"Angle between found and true normals of {surface.name}",
                "°",
                f"Against the truth: mean {np.nanmean(error):.3f}°, median {np.nanmedian(error):.3f}°.",
                limits=(0, top),
            )
        )
        figures.append(
            figure(
                plots.histogram(error, "error / °", sigma, "sigma / °"),
                "Error and sigma",
                f"Histograms of error and predicted sigma over the pixels of {surface.name}",
                "How often each value occurs, in degrees.",
            )
        )
    used = np.where(normals.valid, normals.lights_used, np.nan)
    if np.nanmax(used, initial=0) > 0:
        figures.append(
            scalar(
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
            scalar(
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
    solved = () if normals.reason is None else (("Solver", f"{normals.method}: {normals.reason}"),)
    rows = (*solved, *quality_rows(normals.quality))
    return Section(f"Object: {surface.name}", tuple(figures), rows, tuple(missing))


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
                figure(
                    plots.near_lights(lights, report.true_lights),
                    "Positions",
                    f"Positions of {near} near lights from the front and from the side",
                    "To scale, with shaded ellipses that hold 95 % of a position's uncertainty.",
                    wide=True,
                )
            )
        if near < len(lights.lights):
            figures.append(
                figure(
                    plots.distant_lights(lights, report.true_lights),
                    "Directions",
                    f"Directions of {len(lights.lights) - near} distant lights around the camera axis",
                    "Seen as the camera looks: right is right, down is down.",
                    wide=True,
                )
            )
    if report.spheres is not None:
        figures.append(
            figure(
                plots.sphere_sight(report.spheres),
                "Spheres",
                f"{len(report.spheres.circles)} mirror spheres with fitted outline and highlights",
                "Outline as fitted, and every highlight found. Brightness is compressed.",
                wide=True,
            )
        )
    else:
        missing.append("Spheres: no picture given.")
    rows = () if lights is None else (*_light_rows(lights), *quality_rows(lights.quality))
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
