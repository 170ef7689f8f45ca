"""A metering session becomes the plan of the exposures that reach a wanted signal-to-noise ratio."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.radiometric import merge as merge_frames
from calibration.radiometric.bracket import Bracket, Limits, plan_bracket, spend_time
from calibration.radiometric.metering import Distribution
from capture.devices import CameraLimits
from capture.plan import Block, CapturePlan, ExposureBracket
from capture.runner import check
from capture.session import Session, Stack
from rigs.config import ConfigError, RigConfig, save_plan, validate
from rigs.workflows.encoding import refuse_encoded
from rigs.workflows.frames import sensor_for, stack_of

_SAME_GAIN_DB = 0.05


class Bracketed(NamedTuple):
    """A plan to run, and what each block of the metering plan that has light was given."""

    plan: CapturePlan
    brackets: tuple[tuple[str, Bracket], ...]
    warnings: tuple[str, ...]


def plan_brackets(
    session: Session,
    sensor: RadiometricModel,
    snr: float,
    *,
    camera: str | None = None,
    config: RigConfig | None = None,
    shortest_s: float | None = None,
    longest_s: float | None = None,
    allowed_s: tuple[float, ...] = (),
    max_time_s: float | None = None,
    spend: bool = False,
    quantile: float = 0.0,
    headroom_stops: float = 2.0,
    track: Track = silent,
) -> Bracketed:
    """Plan of the same poses and lights as the session's, with the exposures that ``snr`` takes.

    Every block of the metering plan with light is planned apart: all its poses and lights share one bracket.
    ``dark`` blocks stay as they are; ``ambient`` blocks get the exposures of the lit block of their pose.

    Parameters
    ----------
    sensor : RadiometricModel
        Of the camera at the session's gain.
    config : RigConfig, optional
        Tells the camera's limits; else the rig that the session was taken with.
    shortest_s, longest_s : float, optional
        In place of the camera's limits.
    allowed_s : tuple of float
        Exposures of a camera with steps.
    max_time_s : float, optional
        Of one pose under one light, readout included.
    spend : bool
        Use all of ``max_time_s`` for the ratio of the whole scene.
    quantile, headroom_stops : float
        As in ``plan_bracket``.

    Raises
    ------
    FitError
        As ``plan_bracket`` says; frames without light, of another gain or not linear.
    ConfigError
        The camera's limits are not known; ``spend`` without a time.
    """
    if spend and max_time_s is None:
        raise ConfigError("to spend the time, say how much there is: --max-time")
    stack = stack_of(session, camera)
    name = stack.records[0].shot.camera
    refuse_encoded(session, name, sensor, "the noise model")
    model = sensor_for(session, stack, sensor)
    for gain in sorted({float(g) for g in stack.gain_db}):
        if abs(gain - model.gain_db) > _SAME_GAIN_DB:
            raise FitError(
                f"the session was taken at {gain:g} dB, the sensor model is for {model.gain_db:g} dB"
            )
    known = _camera_limits(session, config, name)
    limits = _limits(known, shortest_s, longest_s, allowed_s, max_time_s)
    brackets: list[tuple[str, Bracket]] = []
    of_pose: dict[str, Bracket] = {}
    chosen: dict[int, Bracket] = {}
    for number, (block, part) in enumerate(track(tuple(_blocks(session, stack)), "metering")):
        if not _lit(block) or not len(part):
            continue
        scene = Distribution()
        for pose, light in dict.fromkeys(zip(part.poses, part.lights, strict=True)):
            frames = part.select(pose=pose, light=light)
            merged = merge_frames(frames, frames.exposure_s, model)
            scene.add(merged, model, float(frames.exposure_s.min()))
        best = plan_bracket(scene, model, snr, limits, quantile=quantile, headroom_stops=headroom_stops)
        best = spend_time(best, model, limits) if spend else best
        label = f"block {number + 1} ({', '.join(block.kinds)} of {', '.join(block.pose[:3])}"
        brackets.append((f"{label}{', ...' if len(block.pose) > 3 else ''})", best))
        chosen[number] = best
        of_pose |= {pose: best for pose in block.pose if pose not in of_pose}
    if not brackets:
        raise FitError(f"{session.path}: no frame with light to meter by: only dark or ambient frames")
    blocks: list[Block] = []
    for number, block in enumerate(session.plan.blocks):
        if name not in block.cameras:
            continue
        own = block.replace(cameras=(name,))
        if number in chosen:
            blocks += _taken(own, chosen[number])
        elif "ambient" in block.kinds and block.pose[0] in of_pose:
            times = of_pose[block.pose[0]].exposures_s
            blocks.append(own.replace(bracket=own.bracket.replace(exposures_s=times)))
        else:
            blocks.append(own)
    plan = CapturePlan(name=f"{session.plan.name}-bracket", blocks=tuple(blocks))
    warnings = [f"{label}: {text}" for label, bracket in brackets for text in bracket.warnings]
    if known is not None and (rig := _rig(session, config)) is not None:
        warnings += check(plan, rig.limits).problems
    others = sorted({c for block in session.plan.blocks for c in block.cameras} - {name})
    if others:
        warnings.append(f"the plan is for {name} alone; metering was of {', '.join(others)} too")
    return Bracketed(plan, tuple(brackets), tuple(warnings))


def write_plan(path: Path, made: Bracketed, session: Session, snr: float) -> None:
    """Write the plan as YAML, with what it promises in its head."""
    lines = [f"# Exposures for an SNR of {snr:g}, from session {session.digest[:12]}."]
    lines += [f"# {describe_bracket(label, bracket)}" for label, bracket in made.brackets]
    lines += [f"# warning: {text}" for text in made.warnings]
    save_plan(path, made.plan, lines)


def describe_bracket(label: str, bracket: Bracket) -> str:
    """One line: exposures, time, predicted ratios."""
    times = ", ".join(
        f"{t:.4g}" if n == 1 else f"{n} x {t:.4g}"
        for t, n in zip(bracket.exposures_s, bracket.repeats, strict=True)
    )
    return (
        f"{label}: {bracket.frames} frames of {times} s, {bracket.total_s:.3g} s in all; SNR at least "
        f"{bracket.snr.min():.3g}, median {bracket.snr_at(0.5):.3g}"
    )


def _lit(block: Block) -> bool:
    return not {"dark", "ambient"} & set(block.kinds)


def _blocks(session: Session, stack: Stack) -> Iterator[tuple[Block, Stack]]:
    """Each block of the plan with its frames."""
    first = 0
    for block in session.plan.blocks:
        last = first + sum(1 for _ in block.shots(first))
        places = [i for i, record in enumerate(stack.records) if first <= record.shot.index < last]
        yield block, stack[places[0] : places[-1] + 1] if places else stack[:0]
        first = last


def _taken(block: Block, bracket: Bracket) -> Iterator[Block]:
    """The block with its new exposures: one block for each number of repeats, pose by pose."""
    groups: dict[int, list[float]] = {}
    for t, n in zip(bracket.exposures_s, bracket.repeats, strict=True):
        groups.setdefault(n, []).append(t)
    # The operator changes the pose once, whatever the repeats.
    poses = [block.pose] if len(groups) == 1 else [(pose,) for pose in block.pose]
    for pose in poses:
        for repeats, times in sorted(groups.items()):
            exposures = ExposureBracket(exposures_s=tuple(times), gain_db=block.bracket.gain_db)
            yield block.replace(pose=pose, bracket=exposures, repeats=repeats, first_repeat=0)


def _rig(session: Session, config: RigConfig | None) -> RigConfig | None:
    if config is not None:
        return config
    try:
        return validate(session.rig, RigConfig, "rig")
    except ConfigError:
        return None  # pictures from elsewhere have no rig


def _camera_limits(session: Session, config: RigConfig | None, camera: str) -> CameraLimits | None:
    rig = _rig(session, config)
    if rig is None:
        return None
    found = rig.limits.cameras.get(camera)
    if found is None:
        raise ConfigError(f"{rig.name}: has no camera {camera!r}: it has {', '.join(rig.cameras)}")
    return found


def _limits(
    known: CameraLimits | None,
    shortest_s: float | None,
    longest_s: float | None,
    allowed_s: tuple[float, ...],
    max_time_s: float | None,
) -> Limits:
    told: dict[str, Any] = {}
    for key, given, own in (
        ("shortest_s", shortest_s, None if known is None else known.exposure_min_s),
        ("longest_s", longest_s, None if known is None else known.exposure_max_s),
    ):
        listed = (min(allowed_s) if key == "shortest_s" else max(allowed_s)) if allowed_s else None
        value = given if given is not None else own if own is not None else listed
        if value is None:
            raise ConfigError(
                "nothing tells what exposures the camera can do: give --rig, or --min-exposure and "
                "--max-exposure"
            )
        told[key] = value
    return Limits(
        **told,
        readout_s=0.0 if known is None else known.readout_s,
        total_s=float("inf") if max_time_s is None else max_time_s,
        allowed_s=tuple(sorted(allowed_s)),
    )
