"""What a report may hold: numbers with their truth and bound, models, surfaces. Any part may be missing."""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from calibration.cameras import CameraSet
from calibration.colour import ColourModel
from calibration.focus import FocusModel
from calibration.lens import Lens
from calibration.lights.model import LightSet
from calibration.photometric import NormalMap
from calibration.provenance import Array, Model
from calibration.radiometric import RadiometricModel
from calibration.radiometric.checks import SessionChecks
from calibration.timing import TimingModel
from rigs.report.merged import MergedPicture

# JSON has no NaN: a number that could not be had is null there and NaN here.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


class Metric(Model):
    """One measured number beside what is known about it.

    Attributes
    ----------
    quantity : str
        What was measured, in words.
    value, unit : float, str
        NaN is a number that could not be had; it misses its bound.
    bound : float or None
        Greatest value that passes, or the least where ``at_least`` is set; in the unit of ``value``.
    truth, sigma : float or None
        What the simulation or a publication says, and the standard deviation the fit claims; same unit.
    passed : bool or None
        Taken from the bound when it is not given.
    section : str
        Heading of the table rows it belongs to, such as ``sensor`` or ``lens``.
    note : str
        How it was measured, in a few words.
    """

    quantity: str
    value: Number
    unit: str = ""
    bound: float | None = None
    at_least: bool = False
    truth: float | None = None
    sigma: float | None = None
    passed: bool | None = None
    section: str = ""
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _judge(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("bound") is not None and data.get("passed") is None:
            value, bound = data.get("value"), data["bound"]
            value = math.nan if value is None else value
            # Written so that NaN misses.
            data = {**data, "passed": bool(value >= bound if data.get("at_least") else value <= bound)}
        return data

    @property
    def line(self) -> str:
        """The number beside its bound, for a terminal."""
        said = f"{self.quantity}: {self.value:.4g}" + (f" {self.unit}" if self.unit else "")
        if self.bound is None:
            return f"       {said}"
        sign = "≥" if self.at_least else "≤"
        return f"{'ok    ' if self.passed else 'MISSED'} {said} ({sign} {self.bound:g})"


class Surface(Model):
    """One reconstructed object.

    Attributes
    ----------
    name : str
        As the reader knows it, such as the pose.
    normals : NormalMap
        With albedo, validity and sigma.
    depth_mm : ndarray (h, w) or None
        Camera z, NaN outside; in ``depth_unit`` (``px`` where no lens model gave a scale).
    picture : ndarray (h, w) or (h, w, 3) or None
        The object under one light, linear.
    true_normals : ndarray (h, w, 3) or None
        NaN where the truth is not known.
    depth_error_mm : ndarray (h, w) or None
        Depth minus truth after alignment.
    snr : ndarray (h, w) or None
        Radiance over its sigma, of the merged picture under one typical light.
    """

    name: str
    normals: NormalMap
    depth_mm: Array | None = None
    depth_unit: str = "mm"
    picture: Array | None = None
    true_normals: Array | None = None
    depth_error_mm: Array | None = None
    snr: Array | None = None


class SphereSight(Model):
    """What the light fit saw of the mirror spheres.

    Attributes
    ----------
    picture : ndarray (h, w)
        Linear picture that shows them, such as the mean over the lights.
    circles : ndarray (s, 3)
        Column, row and radius of each outline, px.
    highlights : ndarray (k, 2)
        All highlights found, px.
    """

    picture: Array
    circles: Array
    highlights: Array | None = None


class Report(Model):
    """Everything the page shows. What is missing is named on the page and left out.

    Attributes
    ----------
    title, summary : str
        Summary is one or two sentences under the title.
    metrics : tuple of Metric
        In the order of the table.
    provenance : dict of str to str
        Rows of the provenance table before those of the models: sessions, code version, options.
    warnings : tuple of str
        Shown before those of the models' own quality.
    checks : SessionChecks or None
        What a session told about itself.
    true_lights : LightSet or None
        What the simulation knows, by the same names.
    """

    title: str
    summary: str = ""
    metrics: tuple[Metric, ...] = ()
    surfaces: tuple[Surface, ...] = ()
    merged: tuple[MergedPicture, ...] = ()
    checks: SessionChecks | None = None
    sensor: RadiometricModel | None = None
    colour: ColourModel | None = None
    lens: Lens | None = None
    cameras: CameraSet | None = None
    focus: FocusModel | None = None
    timing: TimingModel | None = None
    lights: LightSet | None = None
    true_lights: LightSet | None = None
    spheres: SphereSight | None = None
    provenance: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def missed(self) -> tuple[Metric, ...]:
        """Metrics that miss their bound."""
        return tuple(metric for metric in self.metrics if metric.passed is False)
