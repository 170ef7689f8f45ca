"""Pulses on the camera's trigger: in plans, in checks, in the runner; files from before they existed."""

import hashlib
import json
from contextlib import closing

import pytest
from capture_fakes import CAMERA, LIGHT, LIMITS, NAMES, RIG, BurstCamera, FakeScene, open_fake_rig
from pydantic import ValidationError

from capture.devices import DeviceError, FrameLost, LightLimits, RigLimits, StrobedLight
from capture.drivers.manual import ManualLight
from capture.drivers.simulated import SimulatedCamera, SimulatedLight
from capture.plan import CapturePlan, LightSequence, Shot, Strobe
from capture.runner import RunControl, check, run
from capture.session import Session

STROBES = [{"delay_s": 0.001, "duration_s": 0.002}, {"delay_s": 0.003, "duration_s": 0.002}]
PULSED = {"led1": 1.0}


def plan_of(*, names="led1..led2", strobes=STROBES, exposures=(0.01,), **changes):
    block = {
        "kinds": "timing",
        "pose": "panel",
        "cameras": "main",
        "lights": {"names": names, "strobes": strobes},
        "bracket": {"exposures_s": list(exposures)},
    }
    steady = block | {"lights": {"names": names}}
    dark = {name: value for name, value in block.items() if name != "lights"}
    return CapturePlan.model_validate({"name": "t", "blocks": [block | changes, steady, dark]})


@pytest.fixture
def strobing(monkeypatch):
    monkeypatch.setattr("capture_fakes.LIGHT", LIGHT.replace(strobe=True))


def take(session, scene, camera=SimulatedCamera, **options):
    with open_fake_rig(scene, camera) as rig, closing(run(session.plan, rig, session, **options)) as events:
        return list(events)


# ---------------------------------------------------------------- plans


def test_each_light_gets_each_strobe_in_turn():
    shots = plan_of().shots()
    told = [(shot.light, shot.strobe and shot.strobe.delay_s) for shot in shots]
    assert told == [
        ("led1", 0.001), ("led1", 0.003), ("led2", 0.001), ("led2", 0.003), ("led1", None), ("led2", None),
        ("", None),
    ]  # fmt: skip


def test_plans_without_strobes_keep_their_text_and_their_digest():
    """The digest of this plan as it was before plans knew strobes; the golden session holds a whole one."""
    block = plan_of().blocks[1]
    dumped = block.model_dump(mode="json")
    assert dumped["lights"] == {"names": ["led1", "led2"], "level": 1.0}
    assert "strobe" not in next(block.shots(0)).model_dump_json()
    assert "strobe" not in LIGHT.model_dump()
    assert LIGHT.replace(strobe=True).model_dump()["strobe"]
    plan = CapturePlan(name="t", blocks=(block.replace(kinds="object"),))
    text = (
        '{"blocks":[{"bracket":{"exposures_s":[0.01],"gain_db":0.0},"cameras":["main"],"first_repeat":0,'
        '"kinds":["object"],"lights":{"level":1.0,"names":["led1","led2"]},'
        '"order":["repeat","light","exposure","camera"],"pose":["panel"],"prompt":null,"repeats":1}],"name":"t"}'
    )
    assert plan.digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_strobed_plan_survives_text():
    plan = plan_of()
    again = CapturePlan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json"))))
    assert again == plan
    assert again.digest == plan.digest != plan_of(strobes=STROBES[:1]).digest
    shot = plan.shots()[0]
    assert Shot.model_validate_json(shot.model_dump_json()) == shot


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"strobes": [{"delay_s": -1e-3, "duration_s": 1e-3}]}, "greater than or equal to 0"),
        ({"strobes": [{"delay_s": 0.0, "duration_s": 0.0}]}, "greater than 0"),
        ({"kinds": "object"}, "kind timing and of no other"),
        ({"kinds": ["timing", "flat"]}, "kind timing and of no other"),
    ],
)
def test_a_wrong_strobe_is_refused(changes, problem):
    with pytest.raises(ValidationError, match=problem):
        plan_of(**changes)


def test_a_strobe_wants_a_light():
    with pytest.raises(ValidationError, match="a strobe wants a light"):
        Shot(
            index=0, kinds="timing", pose="panel", camera="main", exposure_s=1,
            strobe=Strobe(delay_s=0, duration_s=1),
        )  # fmt: skip
    assert LightSequence(names="led1").strobes == ()


# ---------------------------------------------------------------- check


def limits_of(**light):
    return RigLimits(cameras={"main": CAMERA}, lights=dict.fromkeys(NAMES, LightLimits(**light)))


def test_check_refuses_a_light_that_cannot():
    (first, second) = check(plan_of(), LIMITS).problems
    assert first.startswith("light 'led1' cannot strobe")
    assert second.startswith("light 'led2' cannot strobe")
    assert check(plan_of(), limits_of(strobe=True)).problems == ()


def test_a_pulse_burdens_a_light_for_its_own_time_only():
    plan = CapturePlan(name="t", blocks=plan_of(names="led1", exposures=(1.0,)).blocks[:1])
    assert check(plan, limits_of(strobe=True, max_on_s=0.0021, max_duty=0.01)).problems == ()
    (problem,) = check(plan, limits_of(strobe=True, max_on_s=0.0019)).problems
    assert "would burn 0.002 s" in problem
    # a pulse that ends after the frame is waited for
    late = CapturePlan(
        name="t", blocks=plan_of(names="led1", strobes=[{"delay_s": 3, "duration_s": 1}]).blocks[:1]
    )
    assert check(late, limits_of(strobe=True)).duration_s == pytest.approx(4.0 + LightLimits().settle_s)


# ---------------------------------------------------------------- the runner


@pytest.mark.parametrize("camera", [SimulatedCamera, BurstCamera])
def test_each_exposure_has_its_pulse_armed_before_and_others_dark(strobing, tmp_path, camera):
    scene = FakeScene()
    session = Session.create(tmp_path / "s", plan_of(exposures=(0.01, 0.02)), RIG)
    take(session, scene, camera)
    calls = scene.calls[scene.calls.index(("show", "panel")) :]
    strobes = [i for i, call in enumerate(calls) if call[0] == "strobe"]
    assert len(strobes) == 8
    assert all(calls[i + 1][0] == "expose" for i in strobes)
    assert [calls[i][1:] for i in strobes[::2]] == [
        (name, 1.0, s["delay_s"], s["duration_s"]) for name in ("led1", "led2") for s in STROBES
    ]
    # once led2 is to pulse, led1 is disarmed; and it burns steadily afterwards
    second = next(i for i in strobes if calls[i][1] == "led2")
    assert ("light", "led1", 0.0) in calls[strobes[3] : second]
    assert calls[strobes[-1] + 2 : strobes[-1] + 5] == [
        ("light", "led2", 0.0), ("light", "led1", 1.0), ("expose", "main", 0.01),
    ]  # fmt: skip
    assert scene.levels == dict.fromkeys(NAMES, 0.0)
    assert all(call[0] == "light" and call[2] == 0 for call in scene.calls[-4:])
    again = Session.open(session.path)
    assert again.frames[0].shot.strobe == Strobe(**STROBES[0])
    assert again.frames[-1].shot.strobe is None
    assert again.verify() == ()


def test_a_lost_frame_has_its_pulse_armed_anew(strobing, tmp_path):
    scene, left = FakeScene(), [2]

    def fault(camera, exposure_s):
        if left[0]:
            left[0] -= 1
            raise FrameLost(camera, "no frame")

    scene.fault = fault
    session = Session.create(tmp_path / "s", plan_of(names="led1"), RIG)
    take(session, scene)
    assert session.frames[0].attempts == 3
    assert sum(call[0] == "strobe" for call in scene.calls) == 2 + 2


def test_lights_are_disarmed_when_a_run_is_left_or_paused(strobing, tmp_path):
    scene = FakeScene()
    session = Session.create(tmp_path / "s", plan_of(names="led1"), RIG)
    with open_fake_rig(scene) as rig:
        with closing(run(session.plan, rig, session)) as events:
            next(events)
        last = max(i for i, call in enumerate(scene.calls) if call[0] == "strobe")
        assert ("light", "led1", 0.0) in scene.calls[last:]
    control = RunControl()
    control.cancel()
    assert take(Session.open(session.path), scene, control=control) == []
    take(Session.open(session.path), scene)
    again = Session.open(session.path)
    assert again.done
    assert again.verify() == ()


def test_a_light_whose_driver_cannot_strobe_is_refused_before_the_first_frame(tmp_path):
    session = Session.create(tmp_path / "s", plan_of(names="led1"), RIG)
    scene = FakeScene()
    with open_fake_rig(scene) as rig:
        rig.lights["led1"] = ManualLight("led1", LIGHT)
        with pytest.raises(DeviceError, match="led1: the plan strobes it"):
            list(run(session.plan, rig, session))
    assert not any(call[0] == "expose" for call in scene.calls)


def test_a_simulated_light_strobes_only_where_its_limits_say_so():
    scene = FakeScene()
    with SimulatedLight("led1", LIGHT, scene) as light:
        assert isinstance(light, StrobedLight)
        with pytest.raises(DeviceError, match="led1: cannot strobe"):
            light.strobe(1.0, 0.0, 1e-3)
    with SimulatedLight("led1", LIGHT.replace(strobe=True), scene) as light:
        light.strobe(0.5, 1e-3, 2e-3)
        with pytest.raises(ValueError, match="outside 0 to 1"):
            light.strobe(1.5, 1e-3, 2e-3)
    assert ("strobe", "led1", 0.5, 1e-3, 2e-3) in scene.calls
