"""Cameras, lights and an operator whose world is an injected scene."""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NoReturn, Protocol, Self

from capture.devices import CameraLimits, DeviceError, FrameLost, LightLimits
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

    def open(self, name: str) -> NoReturn:
        """Raise ValueError: only a rig opened with a scene has this camera."""
        raise ValueError(f"camera {name} has driver simulated: open the rig with --simulate TRUTH")


class SimulatedLightConfig(LightLimits):
    """A light that exists only in a scene: the rig must be opened with one."""

    driver: Literal["simulated"] = "simulated"

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


class SimulatedSequencer:
    """The controller of a scene's lights: it steps them when a camera tells it of an exposure.

    Parameters
    ----------
    scene : Scene
        Where the lights are.
    max_steps : int
        Most steps of one sequence.
    """

    def __init__(self, scene: Scene, max_steps: int = 128) -> None:
        self.max_steps = max_steps
        self._scene = scene
        self._steps: deque[Mapping[str, float]] = deque()
        self._lit: Mapping[str, float] = {}
        self._exposures = 0

    def arm(self, steps: Sequence[tuple[Mapping[str, float], int]]) -> None:
        """Light the first step; ValueError for more than ``max_steps``."""
        if len(steps) > self.max_steps:
            raise ValueError(f"{len(steps)} steps, the controller has room for {self.max_steps}")
        self._steps = deque(levels for levels, count in steps for _ in range(count))
        self._exposures = 0
        self._step()

    def exposed(self) -> None:
        """Take a camera's word that an exposure has ended: go on to the next step."""
        if self._steps:
            self._exposures += 1
            self._steps.popleft()
            self._step()

    def stop(self) -> int:
        """Go dark, disarm, and return how many exposures there were since ``arm``."""
        self._steps.clear()
        self._step()
        return self._exposures

    def _step(self) -> None:
        wanted = self._steps[0] if self._steps else {}
        changed = [name for name in {**self._lit, **wanted} if self._lit.get(name) != wanted.get(name)]
        self._lit = wanted
        for name in sorted(changed, key=lambda name: wanted.get(name, 0.0) > 0):
            self._scene.set_light(name, wanted.get(name, 0.0))


class SimulatedTriggeredCamera(SimulatedCamera):
    """A camera of a scene that takes sequences, its exposure signal wired to a controller of lights."""

    def __init__(
        self, name: str, limits: CameraLimits, scene: Scene, sequencer: SimulatedSequencer | None = None
    ) -> None:
        super().__init__(name, limits, scene)
        self._sequencer = sequencer

    def burst(self, settings: Sequence[tuple[float, float]], deadline_s: float) -> Generator[Frame]:
        """Yield a frame for each setting but those that the scene loses."""
        for number, (exposure_s, gain_db) in enumerate(settings, start=1):
            frame = None
            last = number == len(settings)
            with suppress(FrameLost):
                frame = self.expose(exposure_s, gain_db, deadline_s)
            if self._sequencer is not None:
                self._sequencer.exposed()
            if frame is not None:
                yield frame
            elif last:
                raise FrameLost(self.name, f"no frame within {deadline_s:g} s")


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


class SimulatedSequencedLight(SimulatedLight):
    """A light of a scene that its controller can step through a sequence."""

    def __init__(self, name: str, limits: LightLimits, scene: Scene, sequencer: SimulatedSequencer) -> None:
        super().__init__(name, limits, scene)
        self.sequencer = sequencer


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

    def tell(self, message: str) -> None:
        """Announce the message, where anybody is told."""
        if self._announce is not None:
            self._announce(message)
