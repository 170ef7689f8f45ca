"""Plans and frames: pure values."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from capture.frame import Frame, format_bits, format_cfa
from capture.plan import CapturePlan

BLOCK = {"kinds": "object", "pose": "relief", "cameras": "main", "bracket": {"exposures_s": 0.01}}


def plan(**changes):
    return CapturePlan.model_validate({"name": "p", "blocks": [BLOCK | changes]})


def expanded(**changes):
    return [
        (shot.pose, shot.light, shot.exposure_s, shot.camera, shot.repeat) for shot in plan(**changes).shots()
    ]


LIT = {"lights": {"names": "a1..a2"}}
TWO = {"bracket": {"exposures_s": [1, 2]}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("relief", "", 0.01, "main", 0)]),
        (LIT, [("relief", "a1", 0.01, "main", 0), ("relief", "a2", 0.01, "main", 0)]),
        ({"lights": {"names": ["a9..a10"]}}, [("relief", name, 0.01, "main", 0) for name in ("a9", "a10")]),
        ({"pose": ["x", "y"]}, [("x", "", 0.01, "main", 0), ("y", "", 0.01, "main", 0)]),
        ({"cameras": ["l", "r"]}, [("relief", "", 0.01, "l", 0), ("relief", "", 0.01, "r", 0)]),
        ({"repeats": 2}, [("relief", "", 0.01, "main", 0), ("relief", "", 0.01, "main", 1)]),
        ({"first_repeat": 5}, [("relief", "", 0.01, "main", 5)]),
        (LIT | TWO, [("relief", light, s, "main", 0) for light in ("a1", "a2") for s in (1, 2)]),
        (
            LIT | TWO | {"order": ["exposure", "light", "repeat", "camera"]},
            [("relief", light, s, "main", 0) for s in (1, 2) for light in ("a1", "a2")],
        ),
    ],
)  # fmt: skip
def test_a_plan_expands(changes, expected):
    assert expanded(**changes) == expected


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chanels": ["a"]}, "Extra inputs"),
        ({"bracket": {"exposures_s": []}}, "at least 1"),
        ({"bracket": {"exposures_s": [0]}}, "greater than 0"),
        ({"bracket": {"exposures_s": [float("inf")]}}, "finite"),
        ({"kinds": "objekt"}, "Input should be"),
        ({"kinds": ["object", "object"]}, "repeats an entry"),
        ({"kinds": "dark", "lights": {"names": "a"}}, "a dark block has no lights"),
        ({"lights": {"names": []}}, "at least 1"),
        ({"lights": {"names": "a3..a1"}}, "runs backwards"),
        ({"lights": {"names": ["a", "a"]}}, "repeats an entry"),
        ({"lights": {"names": "a", "level": 0}}, "greater than 0"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"order": ["light", "light", "camera", "repeat"]}, "order must name each"),
        ({"cameras": []}, "at least 1"),
    ],
)
def test_a_wrong_plan_is_refused(changes, problem):
    with pytest.raises(ValidationError, match=problem):
        plan(**changes)
    with pytest.raises(ValidationError, match="at least 1"):
        CapturePlan(name="empty", blocks=())


@given(
    lights=st.integers(0, 3), exposures=st.integers(1, 3), repeats=st.integers(1, 3), order=st.permutations(
        ["repeat", "exposure", "light", "camera"]
    )
)  # fmt: skip
def test_every_combination_comes_once_and_survives_text(lights, exposures, repeats, order):
    value = plan(
        lights={"names": [f"n{i}" for i in range(lights)]} if lights else None,
        bracket={"exposures_s": [float(i) for i in range(1, exposures + 1)]},
        repeats=repeats,
        order=order,
    )
    shots = value.shots()
    assert [shot.index for shot in shots] == list(range(max(lights, 1) * exposures * repeats))
    assert len({(shot.light, shot.exposure_s, shot.repeat) for shot in shots}) == len(shots)
    for text in (json.dumps(value.model_dump(mode="json")), yaml.safe_dump(value.model_dump(mode="json"))):
        again = CapturePlan.model_validate(yaml.safe_load(text))
        assert again == value
        assert again.digest == value.digest


def test_replace_validates():
    with pytest.raises(ValidationError):
        plan().replace(blocks=())


def test_prompts_name_the_pose():
    assert plan(pose=["b1", "b2"], prompt="turn the board to {pose}").prompt("b2") == "turn the board to b2"
    assert plan().prompt("relief") == "put 'relief' in view"


@pytest.mark.parametrize(
    ("pixel_format", "bits", "cfa"),
    [("Mono8", 8, None), ("Mono12", 12, None), ("BayerGR10", 10, "GRBG"), ("Mono32f", None, None)],
)  # fmt: skip
def test_pixel_formats(pixel_format, bits, cfa):
    assert (format_bits(pixel_format), format_cfa(pixel_format)) == (bits, cfa)


@pytest.mark.parametrize(
    ("shape", "dtype", "pixel_format", "reported", "problem"),
    [
        ((2, 2), np.uint8, "Mono12", {}, "dtype uint8, want uint16"),
        ((2, 2), np.uint16, "RGB16", {}, "shape"),
        ((2, 2, 3), np.uint16, "Mono16", {}, "shape"),
        ((2, 2, 4), np.uint8, "RGB8", {}, "shape"),
        ((2, 2), np.uint8, "Mono8p", {}, "pixel format 'Mono8p'"),
        ((2, 2), np.uint8, "Mono8", {"exposure_s": float("nan")}, "exposure_s = nan"),
        ((2, 2), np.uint8, "Mono8", {"temperature_c": float("inf")}, "temperature_c = inf"),
    ],
)
def test_a_wrong_frame_is_refused(shape, dtype, pixel_format, reported, problem):
    values = {"exposure_s": 1.0, "gain_db": 0.0, "frame_id": 1, "timestamp_ns": 1} | reported
    with pytest.raises(ValueError, match=problem):
        Frame(np.zeros(shape, dtype), pixel_format, **values)


def test_a_frame_is_locked():
    frame = Frame(np.zeros((2, 2), np.uint8), "Mono8", 1.0, 0.0, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        frame.dn[0, 0] = 1
    assert frame != Frame(frame.dn, "Mono8", 1.0, 0.0, 1, 1), "frames are compared by identity"
