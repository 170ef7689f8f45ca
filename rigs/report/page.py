"""Compose the page: figures with their captions, the table of numbers, provenance, warnings."""

import json
import math
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from calibration.cameras import CameraSet
from calibration.colour import ColourModel
from calibration.files import write_bytes
from calibration.focus import FocusModel
from calibration.lens import LensModel
from calibration.lights.model import LightSet
from calibration.photometric import NormalMap
from calibration.provenance import Provenance
from calibration.radiometric import RadiometricModel
from calibration.timing import TimingModel
from rigs.report.content import Metric, Report
from rigs.report.layout import number
from rigs.report.sections import sections
from rigs.workflows import MergeRecord


def write_report(path: Path, report: Report) -> Path:
    """Write ``report`` as one HTML file that needs nothing else, and its numbers beside it.

    Parameters
    ----------
    path : Path
        Of the HTML file; its folder must exist. ``metrics.json`` goes there too where there are numbers. Both
        appear whole or not at all.
    report : Report
        What to show.

    Returns
    -------
    Path
        ``path``.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    template = environment.from_string((files("rigs") / "templates" / "report.html.j2").read_text("utf-8"))
    html = template.render(
        report=report,
        bounded=sum(metric.passed is not None for metric in report.metrics),
        groups=_groups(report.metrics),
        warnings=tuple(_warnings(report)),
        sections=tuple(sections(report)),
        provenance=tuple(_provenance(report)),
    )
    write_bytes(path, html.encode())
    if report.metrics:
        write_metrics(path.parent / "metrics.json", report.metrics)
    return path


def write_metrics(path: Path, metrics: tuple[Metric, ...]) -> None:
    """Write the numbers as JSON, whole or not at all; a number that could not be had is null."""
    rows = [metric.model_dump(mode="json") for metric in metrics]
    for row in rows:
        row.update(
            {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        )
    write_bytes(path, (json.dumps({"metrics": rows}, indent=2, allow_nan=False) + "\n").encode())


def _groups(metrics: tuple[Metric, ...]) -> list[tuple[str, list[Metric]]]:
    groups: dict[str, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(metric.section, []).append(metric)
    return list(groups.items())


_Fitted = RadiometricModel | ColourModel | LensModel | CameraSet | FocusModel | LightSet | TimingModel
_Shown = _Fitted | NormalMap | MergeRecord


def _models(report: Report) -> Iterator[tuple[str, _Shown]]:
    for name, model in (
        ("Sensor", report.sensor),
        ("Colour", report.colour),
        ("Lens", report.lens),
        ("Cameras", report.cameras),
        ("Focus", report.focus),
        ("Lights", report.lights),
        ("Timing", report.timing),
    ):
        if model is not None:
            yield name, model
    yield from ((surface.name, surface.normals) for surface in report.surfaces)
    yield from ((picture.record.picture, picture.record) for picture in report.merged)


def _warnings(report: Report) -> Iterator[str]:
    yield from report.warnings
    if report.checks is not None:
        told = (check for check in report.checks.results if check.verdict != "ok")
        yield from (f"Session, {check.name}: {check.text}" for check in told)
    for name, model in _models(report):
        if model.quality is not None:
            yield from (f"{name}: {warning}" for warning in model.quality.warnings)


def _provenance(report: Report) -> Iterator[tuple[str, str]]:
    yield from report.provenance.items()
    for name, model in _models(report):
        text = _origin(model.provenance)
        if text:
            yield name, text


def _origin(provenance: Provenance) -> str:
    parts = []
    if provenance.session:
        parts.append(f"session {provenance.session}")
    if provenance.code_version:
        parts.append(f"gnomon {provenance.code_version}")
    parts += [f"{key} {value}" for key, value in provenance.options.items()]
    if provenance.note:
        parts.append(provenance.note)
    return "; ".join(parts)
