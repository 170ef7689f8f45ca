"""Lights from sessions of matte and mirror balls, and pinned lights on another day, by the command line."""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration import files
from calibration.geometry import angle_deg, normalize
from calibration.lights.model import LightSet

sys.path.insert(0, str(Path(__file__).parents[1] / "calibration"))
from mirror_scene import dome

SIZE, BALL = (240, 320), (150.0, 110.0, 70.0)
COUNT = 6


def _directions(seed=2):
    return normalize(dome(seed, COUNT) - [0, 0, 450])


def _pictures(folder: Path, directions, strength=None, relief=False) -> Path:
    """A matte ball, or a relief, seen from far away: 16-bit PNG and their manifest."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    if relief:
        height = sum(
            14 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2))
            for a, b, s in rng.uniform([20, 20, 12], [300, 220, 26], (16, 3))
        )
        gy, gx = np.gradient(height)
        normals, on = normalize(np.stack([gx, gy, -np.ones_like(gx)], axis=-1)), np.ones(SIZE, bool)
    else:
        u, v = (x - BALL[0]) / BALL[2], (y - BALL[1]) / BALL[2]
        on = u**2 + v**2 < 1
        normals = np.stack([u, v, -np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))], axis=-1)
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "kind", "light", "exposure_s"])
        for i, d in enumerate(directions):
            level = 1.0 if strength is None else strength[i]
            image = 40000 * level * np.where(on, np.clip(normals @ d, 0, None), 0.01)
            image = np.clip(image + rng.normal(size=SIZE) * 60, 0, 65535).astype(np.uint16)
            cv2.imwrite(str(folder / f"{i}.png"), image)
            writer.writerow([f"{i}.png", "object" if relief else "sphere", f"lamp{i}", "0.1"])
    cv2.imwrite(str(folder / "mask.png"), 255 * on.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def matte(tmp_path_factory):
    return _pictures(tmp_path_factory.mktemp("matte") / "photos", _directions())


def test_a_matte_ball_gives_the_lights(gnomon, matte, tmp_path):
    gnomon("import", "folder", matte, tmp_path / "s")
    out = tmp_path / "lights.json"
    done = gnomon(
        "calibrate", "lights", tmp_path / "s", "--finish", "matte", "--mask", matte / "mask.png", "--out", out
    )
    assert done.code == 0, done.err
    lights = files.load_model(out, LightSet)
    off = [angle_deg(v.direction, t) for v, t in zip(lights.lights.values(), _directions(), strict=True)]
    assert np.max(off) < 0.6
    assert lights.provenance.options["intensity"] == "matte spheres"
    assert "lamp0: towards" in done.out


def test_a_later_session_names_the_light_that_changed(gnomon, matte, tmp_path):
    gnomon("import", "folder", matte, tmp_path / "s")
    pinned = tmp_path / "lights.json"
    ball = ("--finish", "matte", "--mask", matte / "mask.png")
    gnomon("calibrate", "lights", tmp_path / "s", *ball, "--focal-35mm", 2000, "--out", pinned)
    same = gnomon("rig", "lights-moved", tmp_path / "s", "--lights", pinned, *ball)
    assert same.code == 0, same.err
    strength = np.ones(COUNT)
    strength[3] = 0.7
    for relief in (False, True):
        name = "relief" if relief else "ball"
        later = _pictures(tmp_path / f"{name}-photos", _directions(), strength, relief=relief)
        gnomon("import", "folder", later, tmp_path / name)
        options = () if relief else ball
        found = gnomon("rig", "lights-moved", tmp_path / name, "--lights", pinned, *options)
        assert found.code == 1
        warned = [line for line in found.out.splitlines() if line.startswith("warning")]
        assert len(warned) == 1, found.out
        assert "lamp3: has 7" in warned[0] or "lamp3: has 69" in warned[0]


def test_what_cannot_be_is_said_in_a_line(gnomon, matte, tmp_path):
    gnomon("import", "folder", matte, tmp_path / "s")
    out = ("--out", tmp_path / "lights.json")
    bad = gnomon("calibrate", "lights", tmp_path / "s", *out)
    assert bad.code != 0
    assert "mirror sphere" in bad.err
    bad = gnomon("calibrate", "lights", tmp_path / "s", "--focal-35mm", 0, *out)
    assert "focal length of 0 mm" in bad.err
