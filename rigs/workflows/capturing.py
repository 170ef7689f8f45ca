"""Plans checked and run on a rig, or on its twin."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibration.progress import Counted, Track, silent
from capture.drivers.manual import TerminalOperator
from capture.plan import CapturePlan, Shot
from capture.runner import PlanCheck, RunSettings, check, run
from capture.session import Session
from rigs.config import ConfigError, RigConfig
from rigs.rig import open_rig
from rigs.simulated import Truth


def check_plan(
    config: RigConfig, plan: CapturePlan, session: Path, simulate: Truth | None = None
) -> PlanCheck:
    """Find what would go wrong, with no hardware touched; the disk is the one that holds ``session``.

    With ``simulate`` also what the plan asks for and the truth does not know.
    """
    folder = session.absolute()
    while not folder.exists():
        folder = folder.parent
    report = check(plan, config.limits, free_bytes=shutil.disk_usage(folder).free)
    shots = plan.shots()
    lights = dict.fromkeys(name for shot in shots for name in shot.lights if name in config.lights)
    if simulate is not None or all(config.lights[name].driver == "simulated" for name in lights):
        report = report.replace(warnings=())  # nobody sees them flash
    if simulate is None:
        return report
    poses = dict.fromkeys(shot.pose for shot in shots)
    strange = _strangers("light", lights, simulate.lights) + _strangers("pose", poses, simulate.poses)
    return report.replace(problems=report.problems + strange)


def _strangers(what: str, names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    known = tuple(known)
    return tuple(
        f"{what} {name!r} is not in the truth, which has {', '.join(known)}"
        for name in names
        if name not in known
    )


def describe(report: PlanCheck) -> str:
    """One line: shots, expected duration, size."""
    minutes, seconds = divmod(round(report.duration_s), 60)
    return f"{report.shots} shots, about {minutes} min {seconds} s and {report.bytes / 1e9:.2f} GB"


def capture_session(
    config: RigConfig,
    plan: CapturePlan,
    path: Path,
    *,
    simulate: Truth | None = None,
    resume: bool = False,
    compress: bool = False,
    track: Track = silent,
) -> Session:
    """Run ``plan`` on the rig, or on its twin, into a session at ``path``.

    Parameters
    ----------
    resume : bool
        Complete the session at ``path``; the plan and the rig must be those it began with.
    compress : bool
        Write frames compressed, without loss.

    Raises
    ------
    ConfigError
        The plan does not fit the rig; one line a fault, nothing was touched.
    capture.session.SessionError
        The folder is taken, or is not a session of this plan and rig.
    capture.devices.DeviceError
        A device was lost; the session stays resumable.
    """
    report = check_plan(config, plan, path, simulate)
    if report.problems:
        raise ConfigError("\n".join(f"plan {plan.name}: {problem}" for problem in report.problems))
    snapshot = _snapshot(config)
    facts: dict[str, Any] = {"simulated": simulate is not None}
    if simulate is not None:
        facts["truth"] = truth_digest(simulate)
    elif encodings := {name: told for name, camera in config.cameras.items() if (told := camera.encoding)}:
        facts["encoding"] = {name: told._asdict() for name, told in encodings.items()}
    begun: Session | None = None
    if resume and (path / "plan.json").exists():
        stored = Session.open(path)
        if stored.facts.get("truth") != facts.get("truth"):
            raise ConfigError(
                f"{path}: was begun with another truth, with none, or by another version of the twin: resume "
                "it with the same"
            )
        # Mended first: a frame that is taken again is none that was taken.
        begun = Session.resume(path, plan, _as_stored(snapshot, stored.rig), facts)
    taken = [] if begun is None else [record.shot for record in begun.frames]
    if simulate is None:
        _expect_a_person(config, plan, plan.shots() if begun is None else begun.pending())
    # A rig that does not open leaves no empty session behind.
    with open_rig(config, simulate, taken=taken) as rig:
        session = begun or Session.create(path, plan, snapshot, facts)
        settings = RunSettings(compress=compress)
        with closing(run(plan, rig, session, settings=settings, facts=_of_this_run(config))) as events:
            for _ in track(Counted(events, len(session.pending())), f"capturing {plan.name}"):
                pass
    return Session.open(path)


def _snapshot(config: RigConfig) -> dict[str, Any]:
    """The rig as a session records it; pinned models may differ between the runs of one session."""
    return config.model_dump(mode="json", exclude={"calibrations", "geometry"})


def _expect_a_person(config: RigConfig, plan: CapturePlan, shots: Iterable[Shot]) -> None:
    """Raise DeviceError where somebody is to be asked and nobody can be, before anything is opened."""
    if any(device.driver == "simulated" for device in (*config.cameras.values(), *config.lights.values())):
        return  # it is not to be opened, and opening says so
    person = TerminalOperator()
    for shot in shots:
        person.expect(plan.prompt(shot.pose))
        for name in shot.lights:
            if config.lights[name].driver == "manual":
                person.expect(f"switch on {name}")


def _of_this_run(config: RigConfig) -> dict[str, Any]:
    """What may differ between the runs of one session, as the journal tells it."""
    pins = config.model_dump(mode="json", include={"calibrations", "geometry"}, exclude_none=True)
    return {"python": platform.python_version(), "system": platform.platform(terse=True)} | pins


def _as_stored(snapshot: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """The stored snapshot where it says the same: an earlier version had fewer fields."""
    try:
        same = _snapshot(RigConfig.model_validate(stored)) == snapshot
    except ValidationError:
        same = False
    return stored if same else snapshot


def truth_digest(truth: Truth) -> str:
    """SHA-256 of what is simulated; faults and bounds may differ between the runs of one session."""
    text = json.dumps(truth.model_dump(mode="json", exclude={"faults", "bounds"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def list_devices() -> list[str]:
    """Return one line for each driver: what it finds here, or why it finds nothing."""
    from capture import drivers

    return drivers.survey()
