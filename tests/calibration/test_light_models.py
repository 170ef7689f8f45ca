"""What is no light is refused where it enters: in the model, so in every file that holds one."""

import json

import pytest

from calibration.files import load_model, save_model
from calibration.lights.model import DistantLight, LightSet, NearLight


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"direction": (0.0, 0.0, 0.0)}, "the direction is zero"),
        ({"direction": (float("nan"), 0.0, -1.0)}, "want three finite numbers"),
        ({"direction": (0.0, 0.0, float("-inf"))}, "want three finite numbers"),
        ({"intensity": ()}, "want one number above 0, or three"),
        ({"intensity": (1.0, 1.0)}, "want one number above 0, or three"),
        ({"intensity": (0.0,)}, "want one number above 0, or three"),
        ({"intensity": (1.0, float("nan"), 1.0)}, "want one number above 0, or three"),
    ],
)
def test_what_is_no_light_is_refused(changes, said):
    light = DistantLight(direction=(0.0, 0.0, -1.0))
    with pytest.raises(ValueError, match=said):
        light.replace(**changes)
    assert light.replace(intensity=(1.0, 2.0, 3.0)).intensity == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"position_mm": (float("inf"), 0.0, 0.0)}, "want three finite numbers"),
        ({"axis": (0.0, 0.0, 0.0)}, "the direction is zero"),
        ({"intensity": (-1.0,)}, "want one number above 0, or three"),
    ],
)
def test_what_is_no_near_light_is_refused(changes, said):
    light = NearLight(position_mm=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=said):
        light.replace(**changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("direction", [0.0, 0.0, 0.0]), ("direction", [{"$float": "nan"}, 0.0, 1.0]), ("intensity", [])],
)
def test_a_damaged_light_file_is_one_line_that_names_the_light(tmp_path, field, value):
    path = tmp_path / "lights.json"
    save_model(path, LightSet(lights={"led07": DistantLight(direction=(0.0, 0.0, -1.0))}))
    document = json.loads(path.read_text())
    document["model"]["lights"]["led07"][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"lights\.json: lights\.led07\.distant\.{field}") as said:
        load_model(path, LightSet)
    assert "\n" not in str(said.value)
