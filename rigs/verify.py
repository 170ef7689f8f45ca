"""Compare calibrations and reconstructions of a simulated rig with the truth it was rendered from.

Each function gives metrics: the measured number, the truth beside it, and the bound of the truth file.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, angle_deg, normalize
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.photometric import NormalMap, solve
from calibration.radiometric import RadiometricModel, merge
from capture.session import Stack
from rigs.report import Metric
from rigs.simulated import Truth, Twin

BOUNDS = (
    "gain_percent",
    "read_noise_percent",
    "dark_current_percent",
    "saturation_percent",
    "dsnu_percent",
    "prnu_percent",
    "linearity_percent",
    "radiance_percent",
    "merge_variance_percent",
    "focal_percent",
    "principal_point_px",
    "light_position_median_mm",
    "light_position_max_mm",
    "light_intensity_percent",
    "light_direction_deg",
    "normals_lambertian_deg",
    "normals_glossy_deg",
    "robust_gain",
    "depth_mm",
    "normal_sigma_percent",
)
"""The bounds that a truth file may set."""

Image = NDArray[np.float32]
Window = tuple[slice, slice]


def _percent(value: float, truth: float) -> float:
    return 100 * abs(value / truth - 1)


def sensor(model: RadiometricModel, truth: Truth, camera: str) -> list[Metric]:
    """The numbers of the data sheet beside what the twin's sensor was made of."""
    true, bounds = truth.cameras[camera].sensor, truth.bounds
    sheet = model.sheet
    dsnu, prnu = (None, None) if sheet is None else (sheet.dsnu_e, sheet.prnu_percent)
    ceiling = min(2.0**true.bits - 1, true.black_dn + true.gain_dn_per_e * true.full_well_e)
    rows = [
        ("gain K", "gain", model.gain_dn_per_e, model.gain_sigma_dn_per_e, true.gain_dn_per_e, "DN/e-"),
        ("read noise", "read_noise", model.read_noise_e, model.read_noise_sigma_e, true.read_noise_e, "e-"),
        (
            "dark current",
            "dark_current",
            model.dark_current_e_s,
            model.dark_current_sigma_e_s,
            true.dark_rate_e_s,
            "e-/s",
        ),
        ("saturation", "saturation", model.saturation_dn, 0.0, ceiling, "DN"),
    ]
    for name, part, expected, unit in (
        ("DSNU", dsnu, true.dsnu_e, "e-"),
        ("PRNU", prnu, 100 * true.prnu, "%"),
    ):
        if part is not None:
            rows.append((name, name.lower(), part.total, part.sigma, expected, unit))
        elif f"{name.lower()}_percent" in bounds:
            rows.append((name, name.lower(), float("nan"), 0.0, expected, unit))
    metrics = []
    for name, bound, value, sigma, expected, unit in rows:
        metrics.append(
            Metric(
                section="sensor", quantity=name, value=value, unit=unit, truth=expected, sigma=sigma or None
            )
        )
        if expected > 0:
            metrics.append(
                Metric(
                    section="sensor",
                    quantity=f"{name}: error",
                    value=_percent(value, expected),
                    unit="%",
                    bound=bounds.get(f"{bound}_percent"),
                )
            )
    if sheet is not None and sheet.linearity_error_percent is not None and true.response is None:
        metrics.append(
            Metric(
                section="sensor",
                quantity="linearity error, of a sensor without any",
                value=sheet.linearity_error_percent,
                unit="%",
                bound=bounds.get("linearity_percent"),
            )
        )
    return metrics


def radiance(model: RadiometricModel, held_out: Stack, twin: Twin, camera: str) -> Metric:
    """Linearised mean of repeated frames, none of which the fit saw, against the twin's radiance.

    The flat map has mean 1 over the central half, so the truth is scaled by the mean of its own there.
    """
    errors = []
    flat = twin.flat_map(camera)
    h, w = flat.shape
    scale = float(flat[h // 4 : h - h // 4, w // 4 : w - w // 4].mean())
    for exposure in dict.fromkeys(held_out.exposure_s):
        frames = held_out.select(exposure_s=float(exposure))
        total = np.zeros(frames.shape[1:], np.float64)
        for frame in frames:
            total += np.asarray(frame, np.float64)
        shot = frames.records[0].shot
        mean = model.linearize(total / len(frames), float(exposure)).value
        true = twin.clean_radiance(shot.pose, shot.lights, camera) * scale
        errors.append(np.abs(mean / true - 1)[np.isfinite(mean)])
    return Metric(
        section="sensor",
        quantity="linearised radiance: mean absolute relative error",
        value=100 * float(np.mean(np.concatenate(errors))),
        unit="%",
        bound=twin.truth.bounds.get("radiance_percent"),
        note=f"means of {len(held_out) // len(errors)} held-out frames at {len(errors)} exposures",
    )


class MonteCarlo(NamedTuple):
    """Merged radiance (seeds, n lights, h, w) of a window under other noise, and its variance."""

    value: Image
    variance: Image


def resample(
    model: RadiometricModel,
    twin: Twin,
    camera: str,
    pose: str,
    lights: Sequence[str],
    exposures_s: Sequence[float],
    seeds: int,
    window: Window,
) -> MonteCarlo:
    """Capture and merge a window of a pose ``seeds`` times, the ambient light left in.

    The uncertainty of the sensor's maps is common to all captures and no scatter, so it is left out.
    """
    part = crop(model, window).replace(flat_sigma=0.0, dark_covariance=None)
    frames = {
        (light, exposure): twin.resample(pose, {light: 1.0}, camera, exposure, range(seeds), window)
        for light in lights
        for exposure in exposures_s
    }
    merged = [
        [merge([frames[light, e][seed] for e in exposures_s], exposures_s, part) for light in lights]
        for seed in range(seeds)
    ]
    return MonteCarlo(
        np.array([[image.value for image in row] for row in merged]),
        np.array([[image.variance for image in row] for row in merged]),
    )


def crop(model: RadiometricModel, window: Window) -> RadiometricModel:
    """Model of a window of the frame."""
    rows, columns = window
    maps = {
        name: np.ascontiguousarray(values[window])
        for name in ("dark_map", "dark_rate_map", "flat_map", "defects")
        if (values := getattr(model, name)) is not None
    }
    return model.replace(height=rows.stop - rows.start, width=columns.stop - columns.start, **maps)


def merge_variance(sampled: MonteCarlo, truth: Truth) -> Metric:
    """Claimed variance of the merged radiance against its scatter over seeds, mean over the window."""
    with np.errstate(invalid="ignore"):
        ratio = sampled.variance.mean(axis=0) / sampled.value.var(axis=0, ddof=1)
    # The mean of 1 / s^2 over n samples is (n - 1) / (n - 3) of the true one.
    n = len(sampled.value)
    value = float(np.nanmean(ratio)) * (n - 3) / (n - 1)
    return Metric(
        section="sensor",
        quantity="merged radiance: claimed over observed variance, off by",
        value=100 * abs(value - 1),
        unit="%",
        bound=truth.bounds.get("merge_variance_percent"),
        note=f"{n} captures of {ratio.size} samples",
    )


def lens(model: LensModel, twin: Twin, camera: str) -> list[Metric]:
    """Focal length and principal point."""
    true, bounds = twin.lens(camera), twin.truth.bounds
    sigma = [None] * 4 if model.covariance is None else list(np.sqrt(np.diag(model.covariance)[:4]))
    metrics = [
        Metric(
            section="lens",
            quantity=name,
            value=getattr(model, name),
            unit="px",
            truth=getattr(true, name),
            sigma=s,
        )
        for name, s in zip(("fx", "fy", "cx", "cy"), sigma, strict=True)
    ]
    focal = max(_percent(model.fx, true.fx), _percent(model.fy, true.fy))
    point = float(np.hypot(model.cx - true.cx, model.cy - true.cy))
    return [
        *metrics,
        Metric(
            section="lens",
            quantity="focal length: error",
            value=focal,
            unit="%",
            bound=bounds.get("focal_percent"),
        ),
        Metric(
            section="lens",
            quantity="principal point: error",
            value=point,
            unit="px",
            bound=bounds.get("principal_point_px"),
        ),
    ]


def lights(found: LightSet, twin: Twin, camera: str) -> list[Metric]:
    """Positions, and intensities relative to each other, of near lights; directions of distant ones.

    A bound on what there is none of is missed: its number is NaN.
    """
    true, bounds = twin.lights(camera), twin.truth.bounds
    off_mm, off_deg, claimed, ratio = [], [], [], []
    for name, light in found.lights.items():
        known = true[name]
        ratio.append(light.intensity[0] / known.intensity[0])
        if isinstance(light, NearLight) and isinstance(known, NearLight):
            off = np.subtract(light.position_mm, known.position_mm)
            off_mm.append(float(np.linalg.norm(off)))
            if light.covariance is not None:
                claimed.append(float(off @ np.linalg.solve(light.covariance, off)) / 3)
        else:
            middle = np.array([0.0, 0.0, found.scene_depth_mm or 1.0])
            off_deg.append(float(angle_deg(light.at(middle)[0], known.at(middle)[0])))
    metrics = []
    for which, statistic in (("median", np.median), ("max", np.max)):
        bound = bounds.get(f"light_position_{which}_mm")
        if off_mm or bound is not None:
            metrics.append(
                Metric(
                    section="lights",
                    quantity=f"light positions: {which} error",
                    value=float(statistic(off_mm)) if off_mm else float("nan"),
                    unit="mm",
                    bound=bound,
                    note=f"{len(off_mm)} near lights",
                )
            )
    if claimed:
        metrics.append(
            Metric(
                section="lights",
                quantity="light positions: error over claimed sigma, rms",
                value=float(np.sqrt(np.mean(claimed))),
                truth=1.0,
            )
        )
    if off_deg or "light_direction_deg" in bounds:
        metrics.append(
            Metric(
                section="lights",
                quantity="light directions: mean error",
                value=float(np.mean(off_deg)) if off_deg else float("nan"),
                unit="deg",
                bound=bounds.get("light_direction_deg"),
                note=f"{len(off_deg)} lights",
            )
        )
    ratios = np.array(ratio)
    metrics.append(
        Metric(
            section="lights",
            quantity="light intensity ratios: max error",
            value=100 * float(np.max(np.abs(ratios / np.median(ratios) - 1))),
            unit="%",
            bound=bounds.get("light_intensity_percent"),
        )
    )
    return metrics


def normal_errors(found: NormalMap, true: Image, where: NDArray[np.bool_]) -> Float:
    """Angle between found and true normals in degrees, (h, w); NaN where there is none."""
    error = angle_deg(found.normals, true)
    return np.where(where & found.valid, error, np.nan)


def normals(error: Float, where: NDArray[np.bool_], name: str, bound: float | None) -> list[Metric]:
    """Mean and spread of the normals' errors over ``where``, and how much of it has a normal."""
    seen = error[np.isfinite(error)]
    return [
        Metric(
            section=name,
            quantity=f"{name}: normals, mean error",
            value=float(seen.mean()) if seen.size else float("nan"),
            unit="deg",
            bound=bound,
            note="object pixels lit by at least 4 lights",
        ),
        Metric(
            section=name,
            quantity=f"{name}: normals, 95th percentile",
            value=float(np.percentile(seen, 95)) if seen.size else float("nan"),
            unit="deg",
        ),
        Metric(
            section=name,
            quantity=f"{name}: share of the lit object that has a normal",
            value=100 * seen.size / max(int(where.sum()), 1),
            unit="%",
        ),
    ]


def aligned_depth_error(found: Image, true: Image, where: NDArray[np.bool_]) -> Image:
    """Depth minus truth after the one factor that integration leaves free, mm; NaN elsewhere."""
    both = where & np.isfinite(found) & np.isfinite(true)
    factor = np.median(true[both] / found[both])
    return np.where(both, found * factor - true, np.nan).astype(np.float32)


def depth(error: Image, found: Image, true: Image, name: str, bound: float | None) -> list[Metric]:
    """Mean absolute depth error after alignment, and the error of the scale before it."""
    both = np.isfinite(error)
    return [
        Metric(
            section=name,
            quantity=f"{name}: depth after alignment, mean error",
            value=float(np.abs(error[both]).mean()),
            unit="mm",
            bound=bound,
        ),
        Metric(
            section=name,
            quantity=f"{name}: scale, error before alignment",
            value=100 * abs(float(np.median(found[both] / true[both])) - 1),
            unit="%",
        ),
    ]


def normal_sigma(
    sampled: MonteCarlo,
    ambient: Image,
    lights: Sequence[DistantLight | NearLight],
    lens: LensModel,
    depth_mm: Image,
    window: Window,
    where: NDArray[np.bool_],
    name: str,
    truth: Truth,
) -> Metric:
    """Claimed sigma of the normals against their scatter over seeds, root mean square over a window.

    The depth is held: the scatter is that of the noise alone, which is what the sigma claims.
    """
    rows, columns = window
    part = lens.replace(
        width=columns.stop - columns.start,
        height=rows.stop - rows.start,
        cx=lens.cx - columns.start,
        cy=lens.cy - rows.start,
    )
    solved = [
        solve(
            value - ambient[window],
            variance,
            lights,
            lens=part,
            depth_mm=depth_mm[window],
            mask=where[window],
            method="robust",
        )
        for value, variance in zip(sampled.value, sampled.variance, strict=True)
    ]
    found = [normal_map.normals for normal_map in solved]
    claimed = [normal_map.sigma_deg for normal_map in solved]
    directions = np.array(found, np.float64)
    good = np.isfinite(directions).all(axis=(0, 3)) & where[window]
    mean = normalize(directions.mean(axis=0))
    scatter = angle_deg(directions, mean)[:, good]
    n = len(found)
    observed = np.sqrt((scatter**2).sum(axis=0).mean() / (n - 1))
    expected = np.sqrt(np.mean(np.array(claimed, np.float64)[:, good] ** 2))
    return Metric(
        section=name,
        quantity=f"{name}: normals, claimed sigma over scatter, off by",
        value=100 * abs(float(expected / observed) - 1),
        unit="%",
        bound=truth.bounds.get("normal_sigma_percent"),
        note=f"{n} captures, {int(good.sum())} pixels, scatter {observed:.3f} deg",
    )
