"""Cameras, lights and an operator whose world is an injected scene."""

from collections.abc import Callable
from typing import Literal, NoReturn, Protocol, Self

from capture.devices import CameraLimits, DeviceError, LightLimits
from capture.frame import Frame


class Scene(Protocol):
    """The world a simulated rig looks at. It may fail as devices do: that is how faults are rehearsed."""

    def show(self, pose: str) -> None:
        """Bring ``pose`` in view; DeviceError where the scene has none of that name."""
        ...

    def set_light(self, name: str, level: float) -> None:
        """Burn light ``name`` at ``level`` (0 dark, 1 full); DeviceError where it does not."""
        ...

    def strobe_light(self, name: str, level: float, delay_s: float, duration_s: float) -> None:
        """Go dark and arm one pulse for the next exposure's trigger; DeviceError where it does not."""
        ...

    def expose(self, camera: str, exposure_s: float, gain_db: float) -> Frame:
        """Return what ``camera`` sees now; FrameLost, SettingRefused or DeviceLost where it does not."""
        ...


class SimulatedCameraConfig(CameraLimits):
    """A camera that exists only in a scene: the rig must be opened with one."""

    driver: Literal["simulated"] = "simulated"

    @property
    def limits(self) -> CameraLimits:
        """What the camera can do."""
        return CameraLimits.model_validate(self.model_dump(include=set(CameraLimits.model_fields)))

    def open(self, name: str) -> NoReturn:
        """Raise ValueError: only a rig opened with a scene has this camera."""
        raise ValueError(f"camera {name} has driver simulated: open the rig with --simulate TRUTH")


class SimulatedLightConfig(LightLimits):
    """A light that exists only in a scene: the rig must be opened with one."""

    driver: Literal["simulated"] = "simulated"

    @property
    def limits(self) -> LightLimits:
        """What the light can do."""
        return LightLimits.model_validate(self.model_dump(include=set(LightLimits.model_fields)))

    def open(self, name: str) -> NoReturn:
        """Raise ValueError: only a rig opened with a scene has this light."""
        raise ValueError(f"light {name} has driver simulated: open the rig with --simulate TRUTH")


class SimulatedCamera:
    """A camera of a scene. Time in the scene is not wall time: a late frame is the scene's to declare."""

    def __init__(self, name: str, limits: CameraLimits, scene: Scene) -> None:
        self.name = name
        self.limits = limits
        self._scene = scene
        self._open = False

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Take one frame of the scene; raises what the scene raises."""
        if not self._open:
            raise DeviceError(self.name, "is not open")
        return self._scene.expose(self.name, exposure_s, gain_db)

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False


class SimulatedLight:
    """A light of a scene."""

    def __init__(self, name: str, limits: LightLimits, scene: Scene) -> None:
        self.name = name
        self.limits = limits
        self._scene = scene
        self._open = False

    def set(self, level: float) -> None:
        """Burn at ``level`` (0 dark, 1 full); ValueError outside 0 to 1; raises what the scene raises."""
        self._check(level)
        self._scene.set_light(self.name, level)

    def strobe(self, level: float, delay_s: float, duration_s: float) -> None:
        """Arm one pulse for the next exposure; DeviceError where the rig file gives the light no strobe."""
        self._check(level)
        if not self.limits.strobe:
            raise DeviceError(self.name, "cannot strobe: strobe is not set in its limits")
        self._scene.strobe_light(self.name, level, delay_s, duration_s)

    def _check(self, level: float) -> None:
        if not self._open:
            raise DeviceError(self.name, "is not open")
        if not 0 <= level <= 1:
            raise ValueError(f"{self.name}: level {level} is outside 0 to 1")

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._open = False
            self._scene.set_light(self.name, 0.0)


class SimulatedOperator:
    """Whoever moves things about in the scene; needs no message.

    Parameters
    ----------
    scene : Scene
        Where the poses are.
    announce : callable, optional
        Told the message of each pose.
    """

    def __init__(self, scene: Scene, announce: Callable[[str], None] | None = None) -> None:
        self._scene = scene
        self._announce = announce

    def show(self, pose: str, message: str) -> None:
        """Bring ``pose`` about; raises what the scene raises."""
        if self._announce is not None:
            self._announce(message)
        self._scene.show(pose)
