"""Which shots are taken in one go: a burst under steady lights, or a hardware-timed sequence of lights."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from capture.devices import Camera, Devices, Light, SequencedLight, Sequencer, TriggeredCamera
from capture.plan import Shot


@dataclass(frozen=True)
class Group:
    """Shots in a row of one camera, one pose and one state of the lights, or of lights that are sequenced."""

    shots: tuple[Shot, ...]
    sequencer: Sequencer | None = None


def groups(shots: Iterable[Shot], devices: Devices) -> Iterator[Group]:
    """Group shots as the devices allow, in their order.

    A sequence wants a camera and lights that say ``sequence`` in their limits, lights of one controller, and
    lights that settle while the camera reads out: others are timed by the computer.
    """
    for _, row in groupby(shots, key=lambda shot: (shot.camera, shot.pose, _sequencing(shot, devices))):
        members = tuple(row)
        found = next(filter(None, (sequencer_of(shot, devices) for shot in members)), None)
        if found is not None and any(shot.lights != members[0].lights for shot in members):
            yield Group(members, found)
            continue
        for _, steady in groupby(members, key=lambda shot: (shot.lights, shot.strobe)):
            yield Group(tuple(steady))


def sequencer_of(shot: Shot, devices: Devices) -> Sequencer | None:
    """The controller that can take ``shot`` within a sequence; None where none can, and for a dark shot."""
    found = {id(own): own for own in (_stepped(devices.lights[name], shot, devices) for name in shot.lights)}
    return next(iter(found.values())) if len(found) == 1 else None


def steps(shots: Sequence[Shot]) -> list[tuple[dict[str, float], int]]:
    """The states of the lights in turn, and for how many shots each."""
    return [(dict(row[0].lights), len(row)) for row in _rows(shots)]


def part(shots: Sequence[Shot], max_steps: int, max_shots: int) -> tuple[Shot, ...]:
    """Return as many of the first shots as one sequence can hold."""
    held: list[Shot] = []
    for row in _rows(shots)[:max_steps]:
        held.extend(row)
    return tuple(held[: max(max_shots, 1)])


def _rows(shots: Sequence[Shot]) -> list[list[Shot]]:
    return [list(row) for _, row in groupby(shots, key=lambda shot: shot.lights)]


def _sequencing(shot: Shot, devices: Devices) -> int | None:
    """Number that tells the controllers apart; that of a dark shot is the rig's only one."""
    own = sequencer_of(shot, devices)
    if own is None and not shot.lights and _burst_of(devices.cameras[shot.camera]):
        stepped = {
            id(light.sequencer): light.sequencer
            for light in devices.lights.values()
            if light.limits.sequence and isinstance(light, SequencedLight)
        }
        own = next(iter(stepped.values())) if len(stepped) == 1 else None
    return None if own is None else id(own)


def _stepped(light: Light, shot: Shot, devices: Devices) -> Sequencer | None:
    camera = devices.cameras[shot.camera]
    if shot.strobe is not None or not _burst_of(camera) or not light.limits.sequence:
        return None
    if light.limits.settle_s > camera.limits.readout_s or not isinstance(light, SequencedLight):
        return None
    return light.sequencer


def _burst_of(camera: Camera) -> bool:
    return camera.limits.sequence and isinstance(camera, TriggeredCamera)
