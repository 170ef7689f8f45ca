"""What is wrong with a plan on a rig, known before any hardware moves."""

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import groupby

from capture.devices import CameraLimits, LightLimits, RigLimits
from capture.frame import format_bits
from capture.plan import CapturePlan, Record, Shot

FLASHING_HZ = (3.0, 30.0)
"""Rates of flashing that can bring on seizures in people with photosensitive epilepsy (ITU-R BT.1702)."""

_FLASHES = 3
"""Fewer in a row are no flashing."""

_FILE_OVERHEAD_BYTES = 2048
"""TIFF header, journal line and the slack of the last disk block."""


class PlanCheck(Record):
    """What a plan asks of a rig.

    Attributes
    ----------
    problems : tuple of str
        One line each, with what to do; empty when the plan can run.
    warnings : tuple of str
        What does not stop the plan, and people should know.
    duration_s : float
        Expected time: exposures, readout and settling; the time a person takes for the prompts is not in it.
    bytes : int
        Space the frames take on disk.
    shots : int
        Number of frames.
    prompts : int
        How often the operator is asked to change what is in view.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    duration_s: float
    bytes: int
    shots: int
    prompts: int


def check(plan: CapturePlan, limits: RigLimits, *, free_bytes: int | None = None) -> PlanCheck:
    """Find what would stop a plan on a rig; opens nothing.

    Parameters
    ----------
    plan : CapturePlan
        What to take.
    limits : RigLimits
        What the rig can do.
    free_bytes : int, optional
        Space on the disk of the session; not checked without.

    Notes
    -----
    A light is taken to burn from its settling to the end of the last exposure that needs it in a row, retries
    not counted; one that is strobed, for its pulses only. Its duty is its share of the time between two
    prompts, times its level: with one light alone between two prompts that is its level, whatever a person's
    pace would give it in rests.
    """
    shots = plan.shots()
    problems = [
        *_unknown("camera", (shot.camera for shot in shots), limits.cameras),
        *_unknown("light", (name for shot in shots for name in shot.lights), limits.lights),
    ]
    for name, camera in limits.cameras.items():
        problems += _camera_problems(name, camera, [shot for shot in shots if shot.camera == name])
    problems += _light_problems(shots, limits)
    size = sum(frame_bytes(limits.cameras[shot.camera]) for shot in shots if shot.camera in limits.cameras)
    if free_bytes is not None and size > free_bytes:
        problems.append(
            f"the frames take {size / 1e9:.2f} GB and the disk has {free_bytes / 1e9:.2f} GB free: make room"
        )
    return PlanCheck(
        problems=tuple(problems),
        warnings=_flashing(shots, limits),
        duration_s=math.fsum(shot_seconds(shots, limits.cameras, limits.lights)),
        bytes=size,
        shots=len(shots),
        prompts=sum(1 for _ in groupby(shots, key=lambda shot: shot.pose)),
    )


def shot_seconds(
    shots: Iterable[Shot], cameras: Mapping[str, CameraLimits], lights: Mapping[str, LightLimits]
) -> list[float]:
    """Return the expected time of each shot when taken in this order; an unknown device takes none."""
    seconds: list[float] = []
    burning: dict[str, float] = {}
    for shot in shots:
        changed = {name for name in {*burning, *shot.lights} if burning.get(name) != shot.lights.get(name)}
        settle = [lights[name].settle_s for name in changed if name in lights]
        readout = cameras[shot.camera].readout_s if shot.camera in cameras else 0.0
        taking = shot.exposure_s + readout
        if shot.strobe is not None:
            taking = max(taking, shot.strobe.delay_s + shot.strobe.duration_s)
        seconds.append(sum(settle) + taking)
        burning = shot.lights if shot.strobe is None else {}
    return seconds


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """One line saying that the rig has no such device, with the likely spelling."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3)
    if close:
        return f"{what} {name!r} is not in the rig: did you mean {' or '.join(map(repr, close))}?"
    return f"{what} {name!r} is not in the rig, which has {', '.join(known) or 'none'}"


def _unknown(what: str, names: Iterable[str], known: Mapping[str, object]) -> list[str]:
    return [unknown_name(what, name, known) for name in dict.fromkeys(names) if name not in known]


def _camera_problems(name: str, camera: CameraLimits, shots: list[Shot]) -> list[str]:
    problems = []
    for exposure in dict.fromkeys(shot.exposure_s for shot in shots):
        if not camera.exposure_min_s <= exposure <= camera.exposure_max_s:
            problems.append(
                f"exposure {exposure:g} s is outside what camera {name!r} can do: "
                f"{camera.exposure_min_s:g} to {camera.exposure_max_s:g} s"
            )
    for gain in dict.fromkeys(shot.gain_db for shot in shots):
        if not camera.gain_min_db <= gain <= camera.gain_max_db:
            problems.append(
                f"gain {gain:g} dB is outside what camera {name!r} can do: "
                f"{camera.gain_min_db:g} to {camera.gain_max_db:g} dB"
            )
    return problems


def _light_problems(shots: tuple[Shot, ...], limits: RigLimits) -> list[str]:
    longest: dict[str, float] = {}
    duty: dict[str, float] = {}
    for _, group in groupby(shots, key=lambda shot: shot.pose):
        segment = tuple(group)
        seconds = shot_seconds(segment, limits.cameras, limits.lights)
        total = math.fsum(seconds)
        on_s: dict[str, float] = {}
        energy: dict[str, float] = {}
        for shot, duration in zip(segment, seconds, strict=True):
            if shot.strobe is not None:
                duration, on_s = shot.strobe.duration_s, {}
            on_s = {name: on_s.get(name, 0.0) + duration for name in shot.lights}
            for name, level in shot.lights.items():
                longest[name] = max(longest.get(name, 0.0), on_s[name])
                energy[name] = energy.get(name, 0.0) + duration * level
        for name, value in energy.items():
            duty[name] = max(duty.get(name, 0.0), value / total)
    problems = []
    for name, light in limits.lights.items():
        if light.max_on_s is not None and longest.get(name, 0.0) > light.max_on_s:
            problems.append(
                f"light {name!r} would burn {longest[name]:.3g} s in a row and may {light.max_on_s:g} s: "
                "shorten the exposures, or let the light vary faster than exposure and repeat in `order`"
            )
        # rounding alone must not refuse a plan that meets its duty exactly
        if duty.get(name, 0.0) > light.max_duty * (1 + 1e-9):
            problems.append(
                f"light {name!r} would burn with a duty of {duty[name]:.0%} and may {light.max_duty:.0%}: "
                "lower its level, or let it take turns with others"
            )
    strobed = dict.fromkeys(name for shot in shots if shot.strobe is not None for name in shot.lights)
    problems += [
        f"light {name!r} cannot strobe: choose another, or set strobe: true where its controller takes the "
        "camera's trigger"
        for name in strobed
        if name in limits.lights and not limits.lights[name].strobe
    ]
    return problems


def _flashing(shots: tuple[Shot, ...], limits: RigLimits) -> tuple[str, ...]:
    """Warn where lights take turns so fast, and yet so slowly, that it is harmful to watch."""
    slowest, fastest = FLASHING_HZ
    found: list[tuple[float, int]] = []
    for _, group in groupby(shots, key=lambda shot: shot.pose):
        segment = tuple(group)
        seconds = shot_seconds(segment, limits.cameras, limits.lights)
        lit_s: list[float] = []
        # each strobed shot is a flash of its own
        for (lights, _), row in groupby(
            zip(segment, seconds, strict=True),
            key=lambda item: (item[0].lights, None if item[0].strobe is None else item[0].index),
        ):
            total = math.fsum(duration for _, duration in row)
            if lights:
                lit_s.append(total)
            elif lit_s:
                lit_s[-1] += total
        for flashing, times in groupby(lit_s, key=lambda time: 1 / fastest <= time <= 1 / slowest):
            periods = tuple(times)
            if flashing and len(periods) >= _FLASHES:
                found.append((len(periods) / math.fsum(periods), len(periods)))
    if not found:
        return ()
    rate, count = max(found, key=lambda item: item[1])
    return (
        f"the lights flash {count} times at about {rate:.2g} Hz: between {slowest:g} and {fastest:g} Hz that "
        "can bring on seizures in people with photosensitive epilepsy: keep the rig covered or people away",
    )


def frame_bytes(camera: CameraLimits) -> int:
    """Space that a frame takes on disk."""
    bits = format_bits(camera.pixel_format)
    sample = 4 if bits is None else 1 if bits == 8 else 2
    channels = 3 if camera.pixel_format.startswith("RGB") else 1
    return camera.width * camera.height * channels * sample + _FILE_OVERHEAD_BYTES
