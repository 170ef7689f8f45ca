"""What a rig is made of: protocols, the limits known before anything moves, the few ways devices fail."""

from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Literal, NamedTuple, Protocol, Self, runtime_checkable

from pydantic import AfterValidator, Field

from capture.frame import Frame, format_bits
from capture.plan import Record


class DeviceError(Exception):
    """A device did not do what was asked. ``device`` is its name in the rig file."""

    def __init__(self, device: str, message: str) -> None:
        super().__init__(f"{device}: {message}")
        self.device = device


class FrameLost(DeviceError):
    """The frame did not come, came late, or came incomplete; the next one may be well."""


class SettingRefused(DeviceError):
    """The device did not apply the setting asked for."""


class NotReady(DeviceError):
    """The device, and what belongs to it, cannot work for now: an open door, heat. Waiting may help."""


class DeviceLost(DeviceError):
    """The device is gone; only opening it anew can help."""


def _known_format(name: str) -> str:
    format_bits(name)
    return name


class Encoding(NamedTuple):
    """Why a camera's numbers are not, or may not be, proportional to light.

    ``kind``: ``gamma``, they are not; ``suspected``, they may well not be; ``unknown``, nobody says.
    """

    kind: Literal["gamma", "suspected", "unknown"]
    why: str


class CameraLimits(Record):
    """What a camera can do, as far as its configuration tells without opening it.

    ``sequence``: it takes hardware-timed sequences (`TriggeredCamera`), its exposure signal wired to the
    controller of those lights that say the same.
    """

    LATER = frozenset({"sequence"})

    exposure_min_s: float = Field(gt=0)
    exposure_max_s: float = Field(gt=0)
    gain_min_db: float = 0.0
    gain_max_db: float = 0.0
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    pixel_format: Annotated[str, AfterValidator(_known_format)] = "Mono12"
    readout_s: float = Field(default=0.05, ge=0)
    sequence: bool = False

    @property
    def limits(self) -> "CameraLimits":
        """What the camera can do, without what its configuration adds to find it."""
        return CameraLimits.model_validate(self.model_dump(include=set(CameraLimits.model_fields)))

    @property
    def encoding(self) -> Encoding | None:
        """Why its numbers may not be proportional to light; None where they are the sensor's own."""
        return None

    @property
    def address(self) -> str | None:
        """What only one run may hold at a time, such as a camera's serial number; None where several may."""
        return None


class LightLimits(Record):
    """What a light can do: settle time, the duty it survives at full level.

    ``strobe``: it gives a pulse on a trigger (`StrobedLight`). ``sequence``: its controller is stepped by the
    camera's exposure signal (`SequencedLight`).
    """

    LATER = frozenset({"strobe", "sequence"})

    settle_s: float = Field(default=0.005, ge=0)
    max_duty: float = Field(default=1.0, gt=0, le=1)
    max_on_s: float | None = Field(default=None, gt=0)
    strobe: bool = False
    sequence: bool = False

    @property
    def limits(self) -> "LightLimits":
        """What the light can do, without what its configuration adds to find it."""
        return LightLimits.model_validate(self.model_dump(include=set(LightLimits.model_fields)))

    @property
    def address(self) -> str | None:
        """What only one run may hold at a time, such as a port; None where several may."""
        return None

    @property
    def places(self) -> tuple[str, ...]:
        """What only one light can be, such as channels of a port; empty where that is told on opening."""
        return ()


@runtime_checkable
class Camera(Protocol):
    """One camera. Opened by its configuration; closed by leaving its context."""

    name: str
    limits: CameraLimits

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Take one frame with these settings; raise FrameLost when it has not come after ``deadline_s``."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class TriggeredCamera(Camera, Protocol):
    """A camera that takes a hardware-timed sequence."""

    def burst(self, settings: Sequence[tuple[float, float]], deadline_s: float) -> Generator[Frame]:
        """Yield one frame for each ``(exposure_s, gain_db)``; ``deadline_s`` holds for each frame.

        A frame that is lost or incomplete is left out, and its number with it: the next one shows the gap.
        The camera keeps its own pace, and starts no exposure before the readout of the one before has ended.

        Raises
        ------
        FrameLost
            No frame came within ``deadline_s``.
        """
        ...


@runtime_checkable
class Light(Protocol):
    """One light source; dark on leaving its context, however that comes about."""

    name: str
    limits: LightLimits

    def set(self, level: float) -> None:
        """Burn at ``level`` (0 dark, 1 full); return once settled."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class StrobedLight(Light, Protocol):
    """A light whose controller can give one pulse when the camera is triggered."""

    def strobe(self, level: float, delay_s: float, duration_s: float) -> None:
        """Go dark, and arm one pulse at ``level`` for the camera's next trigger.

        It begins ``delay_s`` after the trigger and is commanded to end ``duration_s`` later, whatever the
        camera does. Returns once armed and dark. Each call arms one pulse; ``set`` disarms.
        """
        ...


@runtime_checkable
class WatchedLight(Light, Protocol):
    """A light that knows when it has gone dark by itself."""

    def confirm(self) -> None:
        """Raise DeviceError where the light has gone dark, or may have, since it was set; at once."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A device that can say which one it is."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What tells it from others of its kind, such as model, serial number and firmware; while open."""
        ...


class Sequencer(Protocol):
    """The lights of one controller, stepped by the camera's own exposure signal."""

    max_steps: int

    def arm(self, steps: Sequence[tuple[Mapping[str, float], int]]) -> None:
        """Store a sequence and light its first step; return once that has settled.

        Each step is the levels of the lights that burn in it, by the light's name, none for a dark one, and
        for how many exposures. The end of an exposure ends its turn: the next step settles while the camera
        reads out. After the last step the lights are dark.

        Raises
        ------
        DeviceError
            The controller does not take the sequence; its lights are dark.
        """
        ...

    def stop(self) -> int:
        """Go dark, disarm, and return how many exposures the camera has signalled since ``arm``."""
        ...


@runtime_checkable
class SequencedLight(Light, Protocol):
    """A light whose controller can step through a sequence by the camera's exposure signal."""

    @property
    def sequencer(self) -> Sequencer:
        """The controller: the same object for all of its lights."""
        ...


@runtime_checkable
class Operator(Protocol):
    """Whoever changes what is in view: a person, or the twin."""

    def show(self, pose: str, message: str) -> None:
        """Bring ``pose`` about and return when it is so."""
        ...

    def tell(self, message: str) -> None:
        """Pass on one line of what the run is waiting for; at once."""
        ...


class Devices(Protocol):
    """The open devices of a rig, by name."""

    @property
    def cameras(self) -> Mapping[str, Camera]:
        """Cameras by the name the rig file gives them."""
        ...

    @property
    def lights(self) -> Mapping[str, Light]:
        """Lights by the name the rig file gives them."""
        ...

    @property
    def operator(self) -> Operator:
        """Whoever changes what is in view."""
        ...


class RigLimits(Record):
    """The limits of every device of a rig: what ``check`` needs, with nothing opened."""

    cameras: dict[str, CameraLimits]
    lights: dict[str, LightLimits]
