"""Timing from a session of pulses, the plan of such a session, and what is done with the times."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.timing import TimingModel, fit_timing, reduce_rows
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence, Strobe, expand_ranges
from capture.runner import check
from capture.session import Session, Stack
from rigs.config import ConfigError, RigConfig, save_plan
from rigs.workflows.encoding import Doubt, doubted, doubts_of, refuse_encoded
from rigs.workflows.frames import of_kind, provenance_of, sensor_for
from rigs.workflows.models import pinned

SETTLED = 0.001
"""A light has settled when it is this near to its level."""

_STILL = 3
_LEAST_STEPS, _MOST_STEPS = 24, 400
# More delays than this are a slip of the finger: their frames would fill a disk.
_MOST_TOLD = 10000
# Pulse controllers count in steps of about this.
_TICK_DECIMALS = 7
# Length of a pulse as a part of the exposure.
_PULSE = 0.7


def calibrate_timing(
    session: Session,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    pose: str | None = None,
    light_delay_s: float = 0.0,
) -> TimingModel:
    """Line time, latency and exposure of a camera, delay, rise and fall of its lights.

    From the session's ``timing`` frames: those with a strobe, the steady and the dark ones.

    Parameters
    ----------
    light_delay_s : float
        Known delay of the first light's controller, which the camera's latency is told apart from.

    Raises
    ------
    ConfigError
        ``light_delay_s`` is no delay, or one after which the session's pulses were over.
    FitError
        Gamma-encoded frames, several poses or gains, or as `fit_timing` and `reduce_rows` say.
    """
    if not 0 <= light_delay_s < np.inf:
        raise ConfigError(f"--light-delay {light_delay_s:g}: want seconds, 0 or more")
    stack = of_kind(session, camera, "timing", pose)
    name = stack.records[0].shot.camera
    for what, values in (("poses", set(stack.poses)), ("gains", set(stack.gain_db.tolist()))):
        if len(values) > 1:
            told = ", ".join(map(str, sorted(values)))
            raise FitError(f"{session.path}: 'timing' frames of {what} {told}: timing wants one")
    model = sensor_for(session, stack, sensor)
    refuse_encoded(session, name, sensor, "timing")
    strobes = np.array(
        [
            (np.nan, np.nan) if strobe is None else (strobe.delay_s, strobe.duration_s)
            for strobe in (record.shot.strobe for record in stack.records)
        ]
    )
    reach = np.nansum(strobes, axis=1).max()
    if light_delay_s > reach > 0:
        raise ConfigError(
            f"--light-delay {light_delay_s:g}: want seconds; the session's pulses end {reach:.3g} s after "
            "their trigger, and no controller is later than that"
        )
    frames, ceiling = _linear(stack, model)
    rows = reduce_rows(
        frames,
        stack.exposure_s,
        stack.lights,
        np.isfinite(strobes[:, 0]).tolist(),
        saturation=ceiling,
        defects=model.defects,
    )
    found = fit_timing(
        rows.mean,
        stack.exposure_s,
        stack.lights,
        strobes,
        variance=rows.variance,
        light_delay_s=light_delay_s,
        provenance=provenance_of(session, camera=name, light_delay_s=light_delay_s),
    )
    return doubted(found, (*doubts_of(session, name, sensor), *_hurried(session, found)))


def _hurried(session: Session, model: TimingModel) -> Iterator[Doubt]:
    """Lights that the session gave less time than they turned out to need: it shows in its own frames."""
    rig = session.rig.get("lights") or {}
    for name, light in model.lights.items():
        given = (rig.get(name) or {}).get("settle_s")
        if isinstance(given, float) and given < light.settle_s(SETTLED):
            yield Doubt(
                f"{name} settles in {1e3 * light.settle_s(SETTLED):.3g} ms and had {1e3 * given:.3g} ms: set "
                f"settle_s: {light.settle_s(SETTLED):.2g} and take the session again",
                wrong=True,
            )


def _linear(stack: Stack, model: RadiometricModel) -> tuple[Sequence[NDArray[np.generic]], float]:
    """Frames linear in the light, and where they saturate; those of a linear camera as they are."""
    if model.response is None:
        return stack, model.saturation_dn
    frames = [
        np.asarray(model.linearize(np.asarray(frame), float(seconds)).value * np.float32(seconds))
        for frame, seconds in zip(stack, stack.exposure_s, strict=True)
    ]
    return frames, np.inf


def describe_timing(model: TimingModel) -> list[str]:
    """Lines that say what was measured."""
    line = f"line time {_us(model.line_time_s, model.line_time_sigma_s)}"
    if model.shutter == "global":
        lines = [f"global shutter: {line}"]
    else:
        lines = [f"rolling shutter, {model.direction}: {line}, {1e3 * model.frame_span_s:.4g} ms a frame"]
    late = "" if model.light_delay_s else " (camera and light together: only their difference shows)"
    lines.append(f"start after the trigger {_us(model.latency_s, model.latency_sigma_s)}{late}")
    lines.append(
        f"true less reported exposure {_us(model.exposure_offset_s, model.exposure_offset_sigma_s)}"
        + (f"; jitter {1e6 * model.jitter_s:.3g} µs" if model.jitter_s else "")
        + (f"; pulses flicker by {model.flicker:.2%}" if model.flicker else "")
    )
    for name, light in model.lights.items():
        rise, fall = _us(light.rise_s, light.rise_sigma_s), _us(light.fall_s, light.fall_sigma_s)
        settle = [1e3 * light.settle_s(share) for share in (0.01, 0.001)]
        later = f", {_us(light.delay_s, light.delay_sigma_s)} after the first" if light.delay_sigma_s else ""
        lines.append(
            f"{name}: rise {rise}, fall {fall}{later}; settles to 1 % in {settle[0]:.3g} ms and to 0.1 % in "
            f"{settle[1]:.3g} ms"
        )
    return lines


def _us(seconds: float, sigma: float) -> str:
    decimals = int(np.clip(1 - np.floor(np.log10(max(1e6 * sigma, 1e-9))), 0, 6))
    return f"{1e6 * seconds:.{decimals}f} ± {1e6 * sigma:.{decimals}f} µs"


# ------------------------------------------------------------------------------------------------ the plan


def plan_timing(
    config: RigConfig,
    exposure_s: float,
    *,
    camera: str | None = None,
    lights: Sequence[str] = (),
    duration_s: float | None = None,
    first_s: float = 0.0,
    last_s: float | None = None,
    steps: int | None = None,
    level: float = 1.0,
    gain_db: float = 0.0,
    pose: str = "timing",
) -> CapturePlan:
    """Plan whose pulses walk over the exposures of all rows.

    Parameters
    ----------
    exposure_s : float
        One at which the lights, burning steadily, expose the view well.
    camera : str, optional
        The rig's first without.
    lights : sequence of str
        All of the rig that can strobe without.
    duration_s : float, optional
        Of a pulse; without it a part of the exposure: were they equal, beginnings and ends would fall
        together, and what each of them tells could not be told apart.
    first_s, last_s : float
        First and last delay; without ``last_s`` the camera's ``readout_s`` and exposure, and a tenth.
    steps : int, optional
        How many delays; without it as many as leave no gap.

    Raises
    ------
    ConfigError
        No such camera or light, none that can strobe, or what the rig cannot do.
    """
    camera = camera or next(iter(config.cameras))
    if camera not in config.cameras:
        raise ConfigError(f"no camera {camera!r}: the rig has {', '.join(config.cameras)}")
    limits = config.limits
    _refuse_unfit(exposure_s, duration_s, first_s, last_s, steps, level, gain_db)
    try:
        named: tuple[str, ...] = expand_ranges(tuple(lights))
    except ValueError as error:
        raise ConfigError(f"--light {error}") from None
    if twice := [name for place, name in enumerate(named) if name in named[:place]]:
        raise ConfigError(f"--light {twice[0]}: is named twice")
    chosen = named or tuple(name for name, limit in limits.lights.items() if limit.strobe)
    if not chosen:
        raise ConfigError(
            "no light of the rig can strobe: set strobe: true on those whose controller takes the camera's "
            "trigger"
        )
    if last_s is None:
        last_s = first_s + 1.1 * (limits.cameras[camera].readout_s + exposure_s)
    if first_s >= last_s:
        raise ConfigError(f"delays from {first_s:g} to {last_s:g} s: want the last after the first")
    duration_s = duration_s or max(round(_PULSE * exposure_s, _TICK_DECIMALS), 10.0**-_TICK_DECIMALS)
    narrow = 0.8 * min(exposure_s, duration_s)
    count = steps or int(np.clip(np.ceil((last_s - first_s) / narrow) + 1, _LEAST_STEPS, _MOST_STEPS))
    step = (last_s - first_s) / max(count - 1, 1)
    if count < 2 or step > min(exposure_s, duration_s):
        raise ConfigError(
            f"{count} delays from {first_s:g} to {last_s:g} s leave gaps wider than exposure or pulse: give "
            "--last nearer to what the camera takes, or more --steps"
        )
    delays = np.round(np.linspace(first_s, last_s, count), _TICK_DECIMALS)
    told = {
        "kinds": "timing",
        "pose": pose,
        "prompt": "put something bright and still in view, and leave it",
        "cameras": camera,
        "bracket": ExposureBracket(exposures_s=(exposure_s,), gain_db=gain_db),
    }
    # frames of one light in a row: the first may come before it has settled
    steady = {
        "lights": LightSequence(names=chosen, level=level),
        "repeats": _STILL,
        "order": ("light", "repeat", "exposure", "camera"),
    }
    pulses = LightSequence(
        names=chosen,
        level=level,
        strobes=tuple(Strobe(delay_s=delay, duration_s=duration_s) for delay in delays.tolist()),
    )
    plan = CapturePlan(
        name=f"{config.name}-timing",
        blocks=tuple(
            Block.model_validate(told | own)
            for own in (
                {"repeats": _STILL + 1},
                steady,
                {"lights": pulses},
                steady | {"first_repeat": _STILL},
            )
        ),
    )
    if problems := check(plan, limits).problems:
        raise ConfigError("\n".join(problems))
    return plan


def _refuse_unfit(
    exposure_s: float,
    duration_s: float | None,
    first_s: float,
    last_s: float | None,
    steps: int | None,
    level: float,
    gain_db: float,
) -> None:
    """One line for the first number that no plan can have; NaN passes no comparison."""
    checks = (
        ("exposure", exposure_s, 0 < exposure_s < np.inf, "seconds above 0"),
        ("duration", duration_s, duration_s is None or 0 < duration_s < np.inf, "seconds above 0"),
        ("first", first_s, 0 <= first_s < np.inf, "seconds, 0 or more"),
        ("last", last_s, last_s is None or 0 < last_s < np.inf, "seconds above 0"),
        ("steps", steps, steps is None or 2 <= steps <= _MOST_TOLD, f"2 to {_MOST_TOLD}"),
        ("level", level, 0 < level <= 1, "above 0, and 1 at most"),
        ("gain", gain_db, np.isfinite(gain_db), "a number of dB"),
    )
    for name, value, fits, want in checks:
        if not fits:
            raise ConfigError(f"--{name} {value:g}: want {want}")


def write_timing_plan(path: Path, plan: CapturePlan) -> None:
    """Write the plan as YAML."""
    save_plan(path, plan, ["# Pulses that walk over the exposures of all rows: for gnomon calibrate timing."])


# ----------------------------------------------------------------------------------------- what it is for


def settle_times(model: TimingModel) -> dict[str, float]:
    """Time from the order to a light until it is settled to `SETTLED`, s.

    Delays count from the first light's order where its own delay was told, else from its first light.
    """
    return {
        name: model.light_delay_s + max(light.delay_s, 0.0) + light.settle_s(SETTLED)
        for name, light in model.lights.items()
    }


def hurried_lights(config: RigConfig, model: TimingModel) -> dict[str, float]:
    """Measured settle time of each light that the rig file gives less, s."""
    return {
        name: seconds
        for name, seconds in settle_times(model).items()
        if name in config.lights and seconds > config.lights[name].settle_s
    }


def settled(config: RigConfig, root: Path) -> RigConfig:
    """The rig with every light's ``settle_s`` at least what the pinned timing measured."""
    slow = _slow(config, root)
    if not slow:
        return config
    lights = {
        name: light.replace(settle_s=round(slow[name], 6)) if name in slow else light
        for name, light in config.lights.items()
    }
    return config.replace(lights=lights)


def check_settling(config: RigConfig, root: Path) -> list[str]:
    """One line for each light that the rig file gives less time than the pinned timing measured."""
    return [
        f"light {name!r} settles in {1e3 * seconds:.3g} ms as measured, the rig file waits "
        f"{1e3 * config.lights[name].settle_s:.3g} ms: captures wait the longer; set settle_s: {seconds:.2g}"
        for name, seconds in _slow(config, root).items()
    ]


def _slow(config: RigConfig, root: Path) -> dict[str, float]:
    """Longest settle times that the pinned models give hurried lights, s."""
    out: dict[str, float] = {}
    for camera in config.calibrations:
        model = pinned(config, root, camera, "timing", TimingModel)
        for name, seconds in ({} if model is None else hurried_lights(config, model)).items():
            out[name] = max(out.get(name, 0.0), seconds)
    return out
