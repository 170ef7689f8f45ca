"""rig.yaml and plan.yaml: what is refused, and how the refusal reads."""

import re
import textwrap
from pathlib import Path

import pytest

from capture.plan import CapturePlan
from rigs.config import ConfigError, RigConfig, load_plan, load_rig, read_yaml

ROOT = Path(__file__).parents[2]
CAMERA = """
cameras:
  main: {driver: simulated, width: 8, height: 4, exposure_min_s: 0.001, exposure_max_s: 1}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "rig.yaml"
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs/rigs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_rigs_load(path):
    assert load_rig(path).cameras


@pytest.mark.parametrize("path", sorted((ROOT / "configs/plans").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_plans_load_and_expand(path):
    plan = load_plan(path)
    shots = plan.shots()
    assert [shot.index for shot in shots] == list(range(len(shots)))
    assert load_plan(path).digest == plan.digest


def test_ranges_of_lights_expand(tmp_path):
    rig = load_rig(write(tmp_path, "name: r" + CAMERA + "lights: {led08..led11: {driver: simulated}}"))
    assert list(rig.lights) == ["led08", "led09", "led10", "led11"]


def test_values_that_are_ranges_are_dealt_out(tmp_path):
    text = "lights: {led08..led10: {driver: manual, instruction: lamp 1..lamp 3, settle_s: 0.5}}"
    rig = load_rig(write(tmp_path, "name: r" + CAMERA + text))
    assert [light.instruction for light in rig.lights.values()] == ["lamp 1", "lamp 2", "lamp 3"]
    assert {light.settle_s for light in rig.lights.values()} == {0.5}


def test_several_values_are_dealt_out_to_each_light(tmp_path):
    dmx = "driver: artnet, host: node, channels"
    text = f"lights: {{a1..a4: {{{dmx}: 1..12}}, b: {{{dmx}: 13..14}}}}"
    rig = load_rig(write(tmp_path, "name: r" + CAMERA + text))
    channels = [light.channels for light in rig.lights.values()]
    assert channels == [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: r" + CAMERA + "lights: {a: {driver: simulated, chanel: 3}}", "lights.a.chanel: unknown key"),
        (
            "name: r" + CAMERA + "lights: {a1..a3: {driver: simulated, chanel: 3}}",
            "lights.a1..a3.chanel: unknown key",
        ),
        ("name: r" + CAMERA + "ligths: {}", "ligths: unknown key"),
        (
            "name: r" + CAMERA + "lights: {a1..a3: {driver: simulated}, a2: {driver: simulated}}",
            "a2 is named twice",
        ),
        (
            "name: r" + CAMERA + "lights: {a1..a3: {driver: manual, instruction: lamp 1..lamp 4}}",
            "lights: a1..a3.instruction: lamp 1..lamp 4 is 4 values for 3 lights",
        ),
        (
            "name: r" + CAMERA + "lights: {a1..a2: {driver: dome, port: COM3, channel: 0}}",
            "lights a1 and a2 are both channel 0 of COM3",
        ),
        (
            "name: r" + CAMERA + "lights: {a1..a2: {driver: sacn, channels: [7, 9]}}",
            "lights a1 and a2 are both channel 7 of sACN universe 1",
        ),
        (
            "name: r\ncameras:\n"
            "  a: &a {driver: genicam, width: 8, height: 8, pixel_format: Mono8, serial: '1',"
            " exposure_min_s: 0.001, exposure_max_s: 1}\n"
            "  b: {<<: *a, height: 4}",
            "cameras a and b are both genicam:1",
        ),
        (
            "name: r"
            + CAMERA
            + "lights: {a: {driver: wled, host: h, strip: 10, leds: 0..9, colour: [1, 1]}}",
            "lights.a.colour.2: Field required",
        ),
        (
            "name: r" + CAMERA + "lights: {a: {driver: artnet, host: h, channels: 1..600}}",
            "lights.a.channels.512 and 87 more: Input should be less than or equal to 512",
        ),
        (
            "name: r" + CAMERA + "lights: {a: {driver: artnet, host: h, channels: 1.5}}",
            "lights.a.channels: Input should be a list, in [ ]",
        ),
        ("name: 42" + CAMERA, "name: Input should be a valid string: put the number in quotes"),
        ("name: r", "cameras: Field required"),
        ("name: r\nname: s", "line 2: key 'name' is given twice"),
        ("name: [r", "not YAML"),
        ("", "is empty"),
    ],
)
def test_faults_are_named_with_their_path(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        load_rig(write(tmp_path, text))
    assert message in str(caught.value)
    assert "rig.yaml" in str(caught.value)


def test_one_fault_of_a_plan_is_one_line(tmp_path):
    """Not that the lists it is in are too short without it."""
    text = (ROOT / "configs/plans/dome-relief.yaml").read_text()
    path = tmp_path / "plan.yaml"
    path.write_text(re.sub(r"exposures_s: .*\]", "exposures_s: [0]", text, count=1))
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    assert re.fullmatch(r".*plan\.yaml: blocks\.0\..*exposures_s\.0: .* greater than 0", str(caught.value))
    path.write_text("name: p\nblocks: []\n")
    with pytest.raises(ConfigError, match=r"blocks: .* at least 1"):
        load_plan(path)


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_rig(tmp_path / "none.yaml")


def test_a_tag_that_builds_objects_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not YAML"):
        load_rig(write(tmp_path, "name: !!python/object/apply:os.getcwd []"))


def test_plan_round_trip(tmp_path):
    plan = load_plan(ROOT / "configs/plans/dome-relief.yaml")
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    assert read_yaml(path, CapturePlan) == plan


def test_rig_round_trip():
    rig = load_rig(ROOT / "configs/rigs/dome.yaml")
    assert RigConfig.model_validate(rig.model_dump(mode="json")) == rig
