"""Light lists of other programs: what is written comes back, and a fault names its file and row."""

import json

import numpy as np
import pytest

from calibration.files import (
    read_alicevision,
    read_diligent_lights,
    read_light_matrix,
    read_lights,
    read_lp,
    write_alicevision,
    write_diligent_lights,
    write_lp,
)
from calibration.geometry import angle_deg, normalize
from calibration.lights.model import DistantLight


def some_lights(count=7, channels=3):
    rng = np.random.default_rng(4)
    directions = normalize(rng.normal(size=(count, 3)) - [0, 0, 3])
    return {
        f"led.{number:02d}": DistantLight(
            direction=tuple(direction.tolist()), intensity=tuple(rng.uniform(0.5, 2, channels).tolist())
        )
        for number, direction in enumerate(directions)
    }


def same(found, lights, intensities=True):
    """Names and order, directions to rounding, intensities to the last bit."""
    assert list(found) == list(lights)
    for name, light in lights.items():
        assert angle_deg(found[name].direction, light.direction) < 1e-12
        if intensities:
            assert found[name].intensity == light.intensity


def test_an_lp_list_comes_back(tmp_path):
    lights = some_lights()
    write_lp(tmp_path / "a.lp", lights, ".tif")
    found = read_lp(tmp_path / "a.lp")
    same(found.models(), lights, intensities=False)
    assert found.remarks == ()
    assert found.lights[1].image == "led.01.tif"
    # What stands in the file: y up, z to the camera.
    numbers = [float(word) for word in (tmp_path / "a.lp").read_text().splitlines()[1].split()[1:]]
    x, y, z = lights["led.00"].direction
    assert numbers == pytest.approx([x, -y, -z])
    assert numbers[2] > 0


def test_diligent_files_come_back(tmp_path):
    lights = some_lights()
    write_diligent_lights(tmp_path, lights)
    same(read_diligent_lights(tmp_path).models(), lights)
    table = np.loadtxt(tmp_path / "light_directions.txt")
    np.testing.assert_allclose(table * [1, -1, -1], [light.direction for light in lights.values()])


@pytest.mark.parametrize("channels", [1, 3])
def test_alicevision_lights_come_back(tmp_path, channels):
    lights = some_lights(channels=channels)
    write_alicevision(tmp_path / "a.json", lights)
    found = read_lights(tmp_path / "a.json").lights
    same(found, lights)
    document = json.loads((tmp_path / "a.json").read_text())
    assert [light["lightId"] for light in document["lights"]] == list(range(7))
    # AliceVision's axes are the camera frame's: a light on the camera's side has z < 0.
    assert document["lights"][0]["direction"] == pytest.approx(lights["led.00"].direction)


def test_alicevision_writes_its_numbers_in_quotes(tmp_path):
    text = """{"lights": [{"viewId": "1846", "type": "directional",
      "direction": ["0.6", "0", "-0.8"], "intensity": ["2", "2.5", "3"]}]}"""
    (tmp_path / "a.json").write_text(text)
    light = read_lights(tmp_path / "a.json").lights["1846"]
    assert light.direction == pytest.approx((0.6, 0, -0.8))
    assert light.intensity == (2, 2.5, 3)
    (tmp_path / "b.json").write_text(
        '{"lights": {"img_01": {"direction": [0, 0, -1], "intensity": [1, 1, 1]}}}'
    )
    assert list(read_lights(tmp_path / "b.json").lights) == ["img_01"]


def test_a_matrix_of_directions_times_strength(tmp_path):
    (tmp_path / "m.txt").write_text(" 0, 1.2\n 0.5, 0\n 0, 1.6\n")
    found = read_light_matrix(tmp_path / "m.txt", ["a.png", "b.png"]).models()
    assert found["a"].direction == pytest.approx((0, -1, 0))
    assert found["a"].intensity == (0.5,)
    assert found["b"].direction == pytest.approx((0.6, 0, -0.8))
    assert found["b"].intensity == pytest.approx((2.0,))


def test_vectors_of_another_length_are_remarked_once(tmp_path):
    # 0.995 is rounding; 2 and 0.5 are not.
    (tmp_path / "a.lp").write_text("3\na.png 0 0 2\nb.png 0 0 0.995\nc.png 0 0.5 0\n")
    found = read_lp(tmp_path / "a.lp")
    assert found.remarks == (
        "a.lp: directions are not of length 1, and were made so: row 2 has 2, row 4 has 0.5",
    )
    assert all(np.linalg.norm(entry.light.direction) == pytest.approx(1) for entry in found.lights)
    (tmp_path / "a.csv").write_text("light,dx,dy,dz\na,0,0,-2\nb,0,0,-0.995\nc,0,-0.5,0\n")
    for name, remarks in (("a.lp", found.remarks), ("a.csv", ("a.csv" + found.remarks[0][4:],))):
        lights = read_lights(tmp_path / name)
        assert lights.provenance.note == "; ".join((f"read from {name}", *remarks))
        assert np.linalg.norm(lights.lights["c"].direction) == pytest.approx(1)


DILIGENT = {
    "filenames.txt": "a.png\nb.png\n",
    "light_directions.txt": "0 0 1\n0.6 0 0.8\n",
    "light_intensities.txt": "1 1 1\n2 2 2\n",
}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("filenames.txt", "", "filenames.txt: names no picture"),
        ("filenames.txt", "a.png\n", "light_directions.txt: 2 rows, filenames.txt names 1 pictures"),
        ("light_directions.txt", "0 0 1\n0 0 0\n", "light_directions.txt: row 2: the direction is zero"),
        ("light_directions.txt", "0 0 1\n0 nan 1\n", "light_directions.txt: row 2: 'nan' is no number"),
        ("light_directions.txt", "0 0 1\n0 1\n", "light_directions.txt: row 2: 2 numbers, want 3"),
        ("light_intensities.txt", "1 1 1\n", "light_intensities.txt: 1 rows, filenames.txt names 2"),
        (
            "light_intensities.txt",
            "1 1 1\n1 -1 1\n",
            "light_intensities.txt: row 2: -1: an intensity is above",
        ),
    ],
)
def test_faults_of_a_diligent_folder(tmp_path, file, text, message):
    for name, whole in DILIGENT.items():
        (tmp_path / name).write_text(text if name == file else whole)
    with pytest.raises(ValueError, match=message) as caught:
        read_diligent_lights(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}: missing"):
        read_diligent_lights(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, or no AliceVision lights"),
        ('{"spheres": []}', "damaged, or no AliceVision lights"),
        ('{"lights": [3]}', "damaged, or no AliceVision lights"),
        ('{"lights": []}', "holds no light"),
        ('{"lights": [{"lightId": 4}]}', "light 4: direction: want 3 numbers"),
        ('{"lights": [{"viewId": 4, "direction": [0, 0, 0]}]}', "light 4: the direction is zero"),
        ('{"lights": [{"viewId": 4, "direction": [0, 0, "nan"]}]}', "light 4: direction: 'nan' is no number"),
        (
            '{"lights": [{"lightId": 4, "type": "SH", "direction": [0]}]}',
            "light 4: type 'SH': want directional",
        ),
        ('{"lights": [{"lightId": 4, "type": "punctual"}]}', "light 4: punctual: in the world's axes"),
        (
            '{"lights": [{"lightId": 4, "direction": [0, 0, -1], "intensity": [1, 0, 1]}]}',
            "light 4: intensity: 0: is above 0",
        ),
        (
            '{"lights": [{"lightId": 4, "direction": [0, 0, -1]}, {"lightId": 4, "direction": [0, 0, -1]}]}',
            "twice",
        ),
    ],
)
def test_faults_of_alicevision_lights(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_lights(tmp_path / "a.json")
    assert str(caught.value).startswith(str(tmp_path / "a.json"))
    assert "\n" not in str(caught.value)


def test_a_matrix_that_does_not_match_its_pictures(tmp_path):
    (tmp_path / "m.txt").write_text("0 1\n0 0\n1 0\n")
    with pytest.raises(ValueError, match=r"m.txt: 2 columns, but there are 3 pictures"):
        read_light_matrix(tmp_path / "m.txt", ["a", "b", "c"])
    (tmp_path / "m.txt").write_text("0 1\n0 0\n")
    with pytest.raises(ValueError, match=r"m.txt: 2 rows, want three"):
        read_light_matrix(tmp_path / "m.txt", ["a", "b"])
    (tmp_path / "m.txt").write_text("0 1\n0 0\n0 0\n")
    with pytest.raises(ValueError, match=r"m.txt: column 1: the direction is zero"):
        read_light_matrix(tmp_path / "m.txt", ["a", "b"])


def test_a_light_named_by_alicevision_keeps_its_dots(tmp_path):
    write_alicevision(tmp_path / "a.json", {"a.b": DistantLight(direction=(0, 0, -1))})
    assert [entry.name for entry in read_alicevision(tmp_path / "a.json").lights] == ["a.b"]
