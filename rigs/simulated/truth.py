"""What the simulation knows and calibration must find: a frozen value read from YAML."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, ValidationError, model_validator

from calibration.lens import Lens
from calibration.lights.model import DistantLight, LightModel, NearLight
from capture.plan import Record
from rigs.config import read_plain
from rigs.simulated.generate import expand
from rigs.simulated.things import WHITE, NonNegative, Positive, Share, Thing, Tint, Vector

Tilt = Annotated[float, Field(gt=-90, lt=90)]


def _shining(share: tuple[float, float, float]) -> tuple[float, float, float]:
    if not all(0 < value < math.inf for value in share):
        raise ValueError(f"{share}: a lamp shines in R, G and B, if little: want numbers above 0")
    return share


LampTint = Annotated[Tint, AfterValidator(_shining)]


class Response(Record):
    """Non-linear camera: relative DN over relative exposure, both 0..1.

    Either ``gamma`` (DN = exposure ** (1 / gamma)) or ``table``: DN at equally spaced exposures.
    """

    gamma: Positive | None = None
    table: tuple[Share, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.gamma is None) == (self.table is None):
            raise ValueError("want either gamma or table")
        if self.table is not None and (len(self.table) < 2 or any(np.diff(self.table) < 0)):
            raise ValueError("table wants two or more values that never fall")
        return self


class Sensor(Record):
    """EMVA 1288 (release 4.0) parameters of the sensor at 0 dB.

    Attributes
    ----------
    dark_current_e_s : float
        At ``dark_reference_c``; doubles every ``dark_doubling_c``.
    prnu, dsnu_e : float
        Standard deviation over the pixels of the relative response and of the dark offset, both white.
    hot_pixels : float
        Share of pixels with extra dark current, exponentially distributed with mean ``hot_pixel_e_s``.
    colour : str
        ``mono``, a Bayer order of the top-left 2 x 2 block, or ``rgb`` (three samples a pixel).
    quantum_scale : 1 or 3 floats
        Scales the scene's radiance to e-/s, of the one or of the three channels.
    colour_matrix : 3 x 3
        Rows: what the R, G, B of the sensor see of linear Rec.709 light, cross-talk included; not for mono.
    line_time_s : float
        0 is a global shutter; else row r starts its exposure r * line_time_s after the first; with
        ``bottom_up`` the last row is the first.
    start_latency_s, start_jitter_s : float
        From the trigger to the first row's start, and its standard deviation from frame to frame.
    exposure_offset_s : float
        By how much every exposure is longer than the camera reports.
    """

    LATER = frozenset({"bottom_up", "start_latency_s", "start_jitter_s", "exposure_offset_s"})

    full_well_e: Positive = 32500.0
    read_noise_e: NonNegative = 7.0
    gain_dn_per_e: Positive = 0.125
    bits: int = Field(default=12, ge=8, le=16)
    black_dn: NonNegative = 64.0
    dark_current_e_s: NonNegative = 5.0
    temperature_c: float = 25.0
    dark_reference_c: float = 25.0
    dark_doubling_c: Positive = 8.0
    prnu: NonNegative = 0.01
    dsnu_e: NonNegative = 3.0
    hot_pixels: Share = 0.0
    hot_pixel_e_s: NonNegative = 3000.0
    colour: Literal["mono", "RGGB", "GRBG", "GBRG", "BGGR", "rgb"] = "mono"
    quantum_scale: Tint = WHITE
    colour_matrix: tuple[Vector, Vector, Vector] | None = None
    response: Response | None = None
    line_time_s: NonNegative = 0.0
    bottom_up: bool = False
    start_latency_s: NonNegative = 0.0
    start_jitter_s: NonNegative = 0.0
    exposure_offset_s: float = 0.0

    @property
    def pixel_format(self) -> str:
        """PFNC name of what the sensor delivers."""
        family = {"mono": "Mono", "rgb": "RGB"}.get(self.colour, f"Bayer{self.colour[:2]}")
        if self.colour not in ("mono", "rgb"):
            family = {"RGGB": "BayerRG", "GRBG": "BayerGR", "GBRG": "BayerGB", "BGGR": "BayerBG"}[self.colour]
        return f"{family}{self.bits}"

    @property
    def dark_rate_e_s(self) -> float:
        """Dark current at the sensor's temperature."""
        warmer = (self.temperature_c - self.dark_reference_c) / self.dark_doubling_c
        return float(self.dark_current_e_s * 2.0**warmer)


class Optics(Record):
    """What lies between the scene's radiance and the sensor's plane.

    Vignetting is cos(angle to the axis)^4 (if ``cos4``) times 1 - ``vignetting`` * (r / r_corner)^2.
    The point spread is a Gaussian of ``psf_sigma_px`` on top of the pixel's own square aperture. It is laid
    over the sampled picture: an edge along the rows that lies between two pixels is a mixture of two, softer
    than one on a pixel, which draws finders by gradients up to 0.05 px (at 0.7 px) towards the pixel.

    With ``pupil_mm``, the diameter of the entrance pupil, the lens is sharp at the distance ``focus_mm`` (z)
    only. The plane of focus comes nearer to the right and below by ``focus_tilt_deg`` (the angles of its
    intersections with y = 0 and x = 0 against x and y); the sharp surface is bent by
    ``focus_curvature_per_mm``, one over its radius, positive where it bends towards the camera. 0: sharp
    everywhere.
    """

    LATER = frozenset({"focus_mm", "pupil_mm", "focus_tilt_deg", "focus_curvature_per_mm"})

    cos4: bool = True
    vignetting: Share = 0.0
    psf_sigma_px: NonNegative = 0.7
    focus_mm: Positive | None = None
    pupil_mm: NonNegative = 0.0
    focus_tilt_deg: tuple[Tilt, Tilt] = (0.0, 0.0)
    focus_curvature_per_mm: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pupil_mm > 0 and self.focus_mm is None:
            raise ValueError("pupil_mm wants focus_mm, the distance that is sharp")
        return self


class CameraTruth(Record):
    """One camera. ``rotvec_deg`` and ``translation_mm`` are camera_from_rig; scenes are in the rig's frame.

    ``seed`` fixes the sensor's pattern; None derives it from the truth's seed and the camera's name.
    """

    lens: Lens
    sensor: Sensor = Sensor()
    optics: Optics = Optics()
    rotvec_deg: Vector = (0.0, 0.0, 0.0)
    translation_mm: Vector = (0.0, 0.0, 0.0)
    seed: int | None = None


class Flicker(Record):
    """Relative ripple of a light: 1 + depth * cos(2 pi frequency t + phase); the phase differs by frame."""

    frequency_hz: Positive
    depth: Share


class Switched(Record):
    """How a light follows a change of its level: ``delay_s`` later, nearing it exponentially.

    ``rise_s`` and ``fall_s`` are the time constants of a change to more and to less light; 0 is at once.
    """

    LATER = frozenset({"delay_s", "rise_s", "fall_s"})

    delay_s: NonNegative = 0.0
    rise_s: NonNegative = 0.0
    fall_s: NonNegative = 0.0


class NearTruth(Switched):
    """A small source; see ``calibration.lights.model.NearLight`` for position, intensity, axis, order.

    ``velocity_mm_s`` moves it and ``drift_per_s`` changes its intensity during an exposure (both from the
    camera's trigger); ``colour`` scales the intensity in R, G, B.
    """

    kind: Literal["near"]
    position_mm: Vector
    intensity: Positive
    axis: Vector = (0.0, 0.0, 1.0)
    order: NonNegative = 0.0
    colour: LampTint = WHITE
    flicker: Flicker | None = None
    velocity_mm_s: Vector = (0.0, 0.0, 0.0)
    drift_per_s: float = 0.0


class DistantTruth(Switched):
    """A light far away; ``direction`` points from the surface to it."""

    kind: Literal["distant"]
    direction: Vector
    intensity: Positive
    colour: LampTint = WHITE
    flicker: Flicker | None = None
    drift_per_s: float = 0.0


class PanelTruth(Switched):
    """A uniform luminous surface of radiance ``intensity`` e-/s; seen in poses that show a panel only."""

    kind: Literal["panel"]
    intensity: NonNegative
    colour: Tint = WHITE
    flicker: Flicker | None = None
    drift_per_s: float = 0.0


LightTruth = Annotated[NearTruth | DistantTruth | PanelTruth, Field(discriminator="kind")]


class FrameFault(Record):
    """A fault of single exposures; ``shots`` numbers the camera's exposures in this run of the twin from 0.

    ``lost``: no frame comes. ``late``: it comes ``delay_s`` too late. ``exposure``: ``factor`` times the
    asked exposure is applied, and reported. ``refused``: the camera refuses the setting.
    """

    kind: Literal["lost", "late", "exposure", "refused"]
    camera: str
    shots: tuple[int, ...]
    delay_s: NonNegative = 1.0
    factor: Positive = 2.0


class LightFault(Record):
    """A light that stays dark from its ``first``-th lighting (counted from 0) for ``count`` times.

    ``noticed`` raises DeviceError, else nobody knows.
    """

    kind: Literal["dead_light"]
    light: str
    first: int = Field(default=0, ge=0)
    count: int | None = Field(default=None, ge=1)
    noticed: bool = False

    def holds(self, number: int) -> bool:
        """Whether the ``number``-th lighting fails."""
        return number >= self.first and (self.count is None or number < self.first + self.count)


class VanishFault(Record):
    """A camera that is gone from its exposure ``first`` on."""

    kind: Literal["vanish"]
    camera: str
    first: int = Field(ge=0)


class BumpFault(Record):
    """The rig is knocked before exposure ``first`` of all cameras: the scene and the lights move by this."""

    kind: Literal["bump"]
    first: int = Field(ge=0)
    rotvec_deg: Vector = (0.0, 0.0, 0.0)
    translation_mm: Vector = (0.0, 0.0, 0.0)


class DriftFault(Record):
    """Lights and black levels that change with every exposure of this run, counted over all cameras.

    ``lights`` is the relative change of all lights an exposure, ``black_dn`` that of the black level.
    """

    kind: Literal["drift"]
    lights: float = 0.0
    black_dn: float = 0.0


Fault = Annotated[FrameFault | LightFault | VanishFault | BumpFault | DriftFault, Field(discriminator="kind")]


class Truth(Record):
    """Everything the twin renders and measures with.

    Attributes
    ----------
    ambient : float
        Radiance of the surroundings, e-/s: a surface of albedo a shows a * ambient under no light.
    poses : dict of name -> things in view
    bounds : dict of quantity -> number
        What a run on this truth must reach; read by whoever checks.
    """

    seed: int = Field(default=0, ge=0)
    cameras: dict[str, CameraTruth] = Field(min_length=1)
    lights: dict[str, LightTruth] = Field(default_factory=dict)
    ambient: NonNegative = 0.0
    poses: dict[str, tuple[Thing, ...]] = Field(min_length=1)
    faults: tuple[Fault, ...] = ()
    bounds: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for number, fault in enumerate(self.faults):
            if isinstance(fault, FrameFault | VanishFault) and fault.camera not in self.cameras:
                raise ValueError(f"faults.{number}.camera: no camera {fault.camera!r}")
            if isinstance(fault, LightFault) and fault.light not in self.lights:
                raise ValueError(f"faults.{number}.light: no light {fault.light!r}")
        return self

    def light_models(self) -> dict[str, LightModel]:
        """Near and distant lights at full level in the rig's frame, as calibration describes them."""
        out: dict[str, LightModel] = {}
        for name, light in self.lights.items():
            white = len(set(light.colour)) == 1
            colour = light.colour[:1] if white else light.colour
            intensity = tuple(light.intensity * share for share in colour)
            if isinstance(light, NearTruth):
                out[name] = NearLight(
                    position_mm=light.position_mm, intensity=intensity, axis=light.axis, order=light.order
                )
            elif isinstance(light, DistantTruth):
                out[name] = DistantLight(direction=light.direction, intensity=intensity)
        return out


def load_truth(path: str | Path) -> Truth:
    """Read a truth file.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or gives a key twice.
    ValueError
        One line for each mistake, with its path in the file (``lights.led03.order: ...``).
    """
    path = Path(path)
    data = read_plain(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: want a mapping with seed, cameras, lights, poses, ...")
    return parse_truth(data, source=str(path), folder=path.parent)


def parse_truth(data: Mapping[str, Any], *, source: str = "truth", folder: Path | None = None) -> Truth:
    """Make a truth of a file's plain data; ``generate`` is expanded, mesh paths start at ``folder``.

    Raises
    ------
    ValueError
        As for ``load_truth``.
    """
    try:
        plain = expand(data)
        for things in plain.get("poses", {}).values():
            for thing in things if isinstance(things, list) else ():
                if folder is not None and isinstance(thing, dict) and isinstance(thing.get("path"), str):
                    thing["path"] = str(folder / thing["path"])
        return Truth.model_validate(plain)
    except ValidationError as error:
        root = data if error.title == "Truth" else data.get("generate")
        prefix = "" if error.title == "Truth" else "generate."
        lines = [f"{source}: {prefix}{_where(e['loc'], root)}: {e['msg']}" for e in error.errors()]
        raise ValueError("\n".join(lines)) from None


def _where(loc: tuple[int | str, ...], node: Any) -> str:
    # pydantic puts the union's tag into the path; the file has no such level
    parts: list[str] = []
    for place, key in enumerate(loc, start=1):
        if isinstance(node, dict) and key not in node and (place < len(loc) or key == node.get("kind")):
            continue
        parts.append(str(key))
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and isinstance(key, int) and key < len(node):
            node = node[key]
        else:
            node = None
    return ".".join(parts) or "truth"
