"""A report from what lies in a folder: maps, models and numbers as `reconstruct` and `demo` write them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from calibration.cameras import CameraSet
from calibration.colour import ColourModel
from calibration.files import load_model, read_exr, read_exr_attributes
from calibration.focus import FocusModel
from calibration.geometry import angle_deg
from calibration.lens import LensModel
from calibration.lights.model import LightSet
from calibration.photometric import NormalMap
from calibration.provenance import Model, Provenance, Quality
from calibration.radiometric import RadiometricModel
from calibration.radiometric.checks import SessionChecks
from calibration.timing import TimingModel
from rigs.config import ConfigError
from rigs.report.content import Metric, Report, Surface
from rigs.report.merged import kind_of, read_merged
from rigs.report.page import write_report
from rigs.workflows.models import file_faults

_MODELS: dict[str, tuple[str, type[Model]]] = {
    "radiometric": ("sensor", RadiometricModel),
    "checks": ("checks", SessionChecks),
    "colour": ("colour", ColourModel),
    "lens": ("lens", LensModel),
    "kannala-brandt": ("lens", LensModel),
    "splined": ("lens", LensModel),
    "cameras": ("cameras", CameraSet),
    "focus": ("focus", FocusModel),
    "timing": ("timing", TimingModel),
    "lights": ("lights", LightSet),
}


def report_directory(directory: Path, out: Path, truth: Path | None = None) -> Path:
    """Write the report of a folder.

    Parameters
    ----------
    directory : Path
        Holds, itself or one level down, ``normals.exr`` with ``albedo.exr`` and ``depth.exr`` beside it;
        merged radiance as ``gnomon merge`` writes it; model files (``*.json``), there or in ``models``; and
        ``metrics.json``. Any may be missing. Of two models of one kind the first by name is shown.
    out : Path
        HTML file to write; its folder is made.
    truth : Path, optional
        True normals (``N.X N.Y N.Z``, camera frame), as an import leaves them in ``given/normals.exr``: the
        surfaces of that size are held against them, and the errors are among the numbers.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ConfigError
        The folder holds none of them, a file in it is damaged, or no surface has the size of the truth.
    """
    if not directory.is_dir():
        why = "is a file, want a folder" if directory.exists() else "no such folder"
        raise ConfigError(f"{directory}: {why}")
    with file_faults():
        report = _read(directory)
        if truth is not None:
            surfaces = _against(report.surfaces, truth)
            errors = tuple(_errors(surfaces, truth))
            told = {(metric.section, metric.quantity) for metric in errors}
            others = tuple(m for m in report.metrics if (m.section, m.quantity) not in told)
            report = report.replace(surfaces=surfaces, metrics=(*others, *errors))
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_report(out, report)


def _against(surfaces: tuple[Surface, ...], truth: Path) -> tuple[Surface, ...]:
    maps = read_exr(truth)
    if not {"N.X", "N.Y", "N.Z"} <= set(maps):
        raise ConfigError(f"{truth}: has no channels N.X N.Y N.Z, it has {', '.join(sorted(maps))}")
    normals = np.stack([maps[f"N.{axis}"] for axis in "XYZ"], axis=-1)
    alike = [surface.normals.normals.shape == normals.shape for surface in surfaces]
    if not any(alike):
        raise ConfigError(
            f"{truth}: is {normals.shape[1]} x {normals.shape[0]} px, as no surface in the folder"
        )
    return tuple(
        surface.replace(true_normals=normals) if fits else surface
        for surface, fits in zip(surfaces, alike, strict=True)
    )


def _errors(surfaces: Iterable[Surface], truth: Path) -> Iterator[Metric]:
    """Errors of the normals that have a truth, over the pixels where both are known."""
    for surface in surfaces:
        if surface.true_normals is None:
            continue
        error = angle_deg(surface.normals.normals, surface.true_normals)
        error = error[surface.normals.valid & np.isfinite(error)]
        note = f"{error.size} px against {truth.name}"
        for what, value in (("mean", np.mean), ("median", np.median)):
            yield Metric(
                quantity=f"normals of {surface.name}, {what} error",
                value=float(value(error)) if error.size else np.nan,
                unit="°",
                section="truth",
                note=note,
            )


def _read(directory: Path) -> Report:
    folders = [directory, *sorted(path for path in directory.iterdir() if path.is_dir())]
    models: dict[str, Any] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")) + sorted((folder / "models").glob("*.json")):
            name, kind = _MODELS.get(kind_of(path), ("", None))
            if kind is not None and name not in models:
                models[name] = load_model(path, kind)
    surfaces = tuple(_surface(folder) for folder in folders if (folder / "normals.exr").is_file())
    metrics = _metrics(directory / "metrics.json")
    merged = tuple(picture for folder in folders for picture in read_merged(folder))
    if not surfaces and not models and not metrics and not merged:
        raise ConfigError(f"{directory}: holds no normals.exr, merged radiance, models or metrics.json")
    return Report(title=directory.resolve().name, surfaces=surfaces, merged=merged, metrics=metrics, **models)


def _metrics(path: Path) -> tuple[Metric, ...]:
    if not path.is_file():
        return ()
    try:
        return tuple(Metric.model_validate(row) for row in json.loads(path.read_bytes())["metrics"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _surface(folder: Path) -> Surface:
    maps, about = read_exr(folder / "normals.exr"), read_exr_attributes(folder / "normals.exr")
    normals = np.stack([maps[f"N.{axis}"] for axis in "XYZ"], axis=-1)
    quality, provenance = about.get("quality"), about.get("provenance")
    valid = np.isfinite(normals).all(axis=-1)
    blank = np.full(valid.shape, np.nan, np.float32)
    depth = folder / "depth.exr"
    there = depth.is_file()
    return Surface(
        name=folder.resolve().name,
        normals=NormalMap(
            normals=normals,
            albedo=_albedo(folder / "albedo.exr", blank),
            valid=valid,
            sigma_deg=maps.get("sigma", blank),
            sigma_lights_deg=maps.get("sigma.lights"),
            lights_used=np.nan_to_num(maps.get("lights", blank)).astype(np.uint8),
            method=about.get("method") or None,
            reason=about.get("reason") or None,
            quality=Quality.model_validate(json.loads(quality)) if quality else None,
            provenance=Provenance.model_validate_json(provenance) if provenance else Provenance(),
        ),
        depth_unit=read_exr_attributes(depth).get("units", "mm") if there else "mm",
        depth_mm=read_exr(depth)["Z"] if there else None,
    )


def _albedo(path: Path, blank: Any) -> Any:
    if not path.is_file():
        return blank
    planes = read_exr(path)
    names = [f"albedo.{letter}" for letter in "RGB"]
    if all(name in planes for name in names):
        return np.stack([planes[name] for name in names], axis=-1)
    return planes.get("albedo.Y", blank)
