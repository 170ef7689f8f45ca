"""What is wrong with a plan on a rig, told before anything moves."""

import pytest
from capture_fakes import CAMERA, LIGHT, LIMITS, NAMES, small_plan

from capture.devices import RigLimits
from capture.plan import CapturePlan
from capture.runner import check

LIGHT_SLOW = ["light", "repeat", "exposure", "camera"]


def plan_of(**changes):
    block = {
        "kinds": "object",
        "pose": "relief",
        "cameras": "main",
        "lights": {"names": "led1..led4"},
        "bracket": {"exposures_s": [0.01]},
    } | changes
    return CapturePlan.model_validate({"name": "p", "blocks": [block]})


@pytest.mark.parametrize(
    ("changes", "limits", "problem"),
    [
        ({}, {}, None),
        ({"cameras": "mian"}, {}, "camera 'mian' is not in the rig: did you mean 'main'?"),
        ({"cameras": "webcam"}, {}, "camera 'webcam' is not in the rig, which has main"),
        ({"lights": {"names": "led7"}}, {}, "light 'led7' is not in the rig: did you mean 'led"),
        ({"bracket": {"exposures_s": [20]}}, {}, "outside what camera 'main' can do: 1e-05 to 10 s"),
        ({"bracket": {"exposures_s": [1e-6]}}, {}, "exposure 1e-06 s is outside"),
        ({"bracket": {"exposures_s": [1], "gain_db": 48}}, {}, "gain 48 dB is outside what camera"),
        ({"repeats": 2, "order": LIGHT_SLOW}, {"max_on_s": 0.0405}, "'led1' would burn 0.041 s"),
        ({"repeats": 2}, {"max_on_s": 0.0405}, None),
        ({"lights": {"names": "led1"}}, {"max_duty": 0.99}, "light 'led1' would burn with a duty of 100%"),
        ({"lights": {"names": "led1", "level": 0.5}}, {"max_duty": 0.5}, None),
        ({}, {"max_duty": 0.26}, None),
        ({}, {"max_duty": 0.23}, "'led2' would burn with a duty of 25%"),
    ],
)  # fmt: skip
def test_check(changes, limits, problem):
    rig = LIMITS.replace(lights=dict.fromkeys(NAMES, LIGHT.replace(**limits)))
    problems = check(plan_of(**changes), rig).problems
    if problem is None:
        assert problems == ()
    else:
        assert any(problem in line for line in problems), problems


def test_check_tells_every_problem_once():
    plan = plan_of(cameras=["mian"], lights={"names": ["led8", "led9"]}, bracket={"exposures_s": [20, 30]})
    assert len(check(plan, LIMITS).problems) == 3


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({"repeats": 2, "bracket": {"exposures_s": [0.1]}}, "the lights flash 8 times at about 8.9 Hz"),
        ({"repeats": 2, "bracket": {"exposures_s": [1.0]}}, None),
        ({"repeats": 2, "bracket": {"exposures_s": [1e-4]}}, None),
        ({"lights": {"names": "led1"}}, None),
        ({"lights": {"names": ["led1", "led2"]}}, None),
        ({"repeats": 2, "lights": {"names": ["led1", "led2"], "together": True}}, None),
    ],
    ids=["ten a second", "slower", "faster", "steady", "twice", "together"],
)
def test_check_warns_of_flashing(changes, warns):
    found = check(plan_of(**changes), LIMITS)
    assert not found.problems
    assert len(found.warnings) == (warns is not None)
    assert warns is None or warns in found.warnings[0]


def test_check_expects_time_and_space():
    found = check(small_plan(), LIMITS, free_bytes=10)
    lit = 2 * 4 * (0.01 + 0.02 + 0.04 + 3 * 0.01)
    # each change of light settles the old and the new; the first has no old; the last goes dark
    settling = (1 + 2 * 7 + 1) * 0.001
    assert found.duration_s == pytest.approx(lit + 2 * (0.01 + 0.01) + settling)
    assert (found.shots, found.prompts) == (26, 2)
    assert found.bytes >= 26 * 6 * 8 * 2
    assert "make room" in found.problems[0]
    assert check(small_plan(), LIMITS, free_bytes=found.bytes).problems == ()


@pytest.mark.parametrize(
    ("pixel_format", "sample_bytes"), [("Mono8", 1), ("BayerRG12", 2), ("RGB8", 3), ("Mono32f", 4)]
)
def test_check_knows_the_pixel_format(pixel_format, sample_bytes):
    rig = RigLimits(
        cameras={"main": CAMERA.replace(pixel_format=pixel_format, width=1000, height=1000)}, lights={}
    )
    found = check(plan_of(lights=None), rig)
    assert 1e6 * sample_bytes <= found.bytes < 1e6 * sample_bytes + 1e4
