"""What opening is for every driver of an SDK: in which process, with which package, within which ranges."""

from collections.abc import Callable, Iterable
from typing import Protocol, Self

from pydantic import Field, model_validator

from capture.devices import Camera, CameraLimits, Encoding, SettingRefused
from capture.drivers.isolated import Isolated, IsolatedTriggered
from capture.drivers.isolated.process import CameraConfiguration
from capture.plan import Record

Span = tuple[float, float]

_STRAIGHT = ("false", "off", "0", "0.0", "1", "1.0", "none")
"""What a gamma or a table is set to by whom it is switched off."""


class Isolating(CameraConfiguration, Protocol):
    """A configuration that may ask for a process of its own."""

    @property
    def isolate(self) -> bool:
        """Whether the driver runs in a process of its own."""
        ...


class Region(Record):
    """Where the picture lies on the sensor.

    Attributes
    ----------
    offset_x, offset_y : int
        Where the region of ``width`` x ``height`` begins, px; even for a Bayer sensor, whose first pixel has
        another colour otherwise.
    """

    offset_x: int = Field(default=0, ge=0)
    offset_y: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_colours(self) -> Self:
        if getattr(self, "pixel_format", "").startswith("Bayer") and (self.offset_x % 2 or self.offset_y % 2):
            raise ValueError("offset_x and offset_y: an odd one moves the colours of a Bayer sensor")
        return self


def open_camera(
    name: str, config: Isolating, make: Callable[[], Camera], missing: str, *, triggered: bool = False
) -> Camera:
    """Return the camera that ``make`` makes with the SDK it imports, or one in a process of its own.

    Parameters
    ----------
    missing : str
        What to say where ``make`` raises ImportError.
    triggered : bool
        It has `burst`.

    Raises
    ------
    ValueError
        The SDK cannot be imported.
    """
    if config.isolate:
        return IsolatedTriggered(name, config) if triggered else Isolated(name, config)
    try:
        return make()
    except ImportError as error:
        raise ValueError(f"camera {name}: {missing} ({error})") from None


def encoding_by(settings: Iterable[tuple[str, object]]) -> Encoding | None:
    """What settings of the rig file make of linear numbers, by a gamma or a table that they switch on."""
    for name, value in settings:
        low = name.lower()
        if ("gamma" in low or low == "lutenable") and str(value).lower() not in _STRAIGHT:
            return Encoding("suspected", f"{name}: {value} in the rig file")
    return None


def at_one_exposure(limits: CameraLimits, fixed_exposure_s: float | None) -> CameraLimits:
    """Limits of a camera that always has the same exposure: plans with others are refused unopened."""
    if fixed_exposure_s is None:
        return limits
    return limits.replace(exposure_min_s=fixed_exposure_s, exposure_max_s=fixed_exposure_s)


def check_ranges(
    device: str, limits: CameraLimits, *, exposures_s: Span | None = None, gains_db: Span | None = None
) -> None:
    """Hold the rig file's ranges against the camera's own; None where it does not tell them.

    Better now than amid a capture.

    Raises
    ------
    SettingRefused
        The rig file allows an exposure or a gain that the camera does not take, by more than 1 % or 0.05 dB.
    """
    if exposures_s is not None:
        asked = (limits.exposure_min_s, limits.exposure_max_s)
        slack = (0.01 * exposures_s[0], 0.01 * exposures_s[1])
        _check_range(device, "exposure_{}_s", "s", asked, exposures_s, slack)
    if gains_db is not None:
        asked = (limits.gain_min_db, limits.gain_max_db)
        _check_range(device, "gain_{}_db", "dB", asked, gains_db, (0.05, 0.05))


def _check_range(device: str, key: str, unit: str, asked: Span, there: Span, slack: Span) -> None:
    low, high = asked[0] < there[0] - slack[0], asked[1] > there[1] + slack[1]
    if low or high:
        keys = [f"{key.format('min')} {asked[0]:g}"] * low + [f"{key.format('max')} {asked[1]:g}"] * high
        takes = f"{there[0]:.6g} to {there[1]:.6g} {unit}" if there[0] < there[1] else f"{there[0]:g} {unit}"
        raise SettingRefused(device, f"takes {takes} only, the rig file says {' and '.join(keys)}: mend it")
