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

SIZE, BALL, WHITE = (240, 320), (150.0, 110.0, 70.0), (265.0, 185.0, 40.0)
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


def test_a_board_that_is_not_beside_matte_balls_is_no_doubt_but_metres_are(gnomon, matte, tmp_path):
    gnomon("import", "folder", matte, tmp_path / "s")
    ball = ("--finish", "matte", "--mask", matte / "mask.png", "--focal-35mm", 2000)
    board = ("--board", "checkerboard 9x6 25")
    for millimetres, doubt in ((140, False), (0.14, True)):
        size = ("--sphere-diameter", millimetres)
        out = ("--out", tmp_path / "lights.json")
        told = gnomon("calibrate", "lights", tmp_path / "s", *ball, *board, *size, *out)
        assert told.code == 0, told.err
        lines = told.out.splitlines()
        assert any(line.startswith("intensities come from the matte balls: the board is") for line in lines)
        assert ("warning: spheres of 0.14 mm: is their diameter in mm?" in told.out) is doubt


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


def _mirrored(folder: Path, directions, dark=()) -> Path:
    """A mirror ball seen from far away: a spot where it reflects the lamp; none of those that do not burn.

    Beside it a small matte one.
    """
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    rng = np.random.default_rng(4)
    on = np.hypot(x - BALL[0], y - BALL[1]) < BALL[2]
    u, v = (x - WHITE[0]) / WHITE[2], (y - WHITE[1]) / WHITE[2]
    white = u**2 + v**2 < 1
    normals = np.stack([u, v, -np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))], axis=-1)
    folder.mkdir()
    rows = ["file,kind,light"]
    for i, d in enumerate(directions):
        spot = np.array(BALL[:2]) + BALL[2] * normalize(d + np.array([0, 0, -1]))[:2]
        image = np.where(on, 300.0, 900.0)
        image[white] = 20000 * np.clip(normals[white] @ d, 0, None) * (i not in dark)
        if i not in dark:
            image += 30000 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 1.5**2))
        image = image + rng.normal(size=SIZE) * 20
        cv2.imwrite(str(folder / f"{i}.png"), np.clip(image, 0, 65535).astype(np.uint16))
        rows.append(f"{i}.png,sphere,lamp{i}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    cv2.imwrite(str(folder / "mask.png"), 255 * on.astype(np.uint8))
    cv2.imwrite(str(folder / "white.png"), 255 * white.astype(np.uint8))
    return folder


@pytest.mark.parametrize("finish", ["mirror", "matte"])
def test_a_lamp_that_failed_is_named_and_the_others_are_checked(gnomon, matte, tmp_path, finish):
    if finish == "mirror":
        before, after = (_mirrored(tmp_path / n, _directions(), d) for n, d in (("a", ()), ("b", (4,))))
    else:
        strength = np.where(np.arange(COUNT) == 4, 1e-4, 1.0)
        before, after = matte, _pictures(tmp_path / "b", _directions(), strength)
    for photos, session in ((before, "first"), (after, "later")):
        gnomon("import", "folder", photos, tmp_path / session, "--assume-linear")
    ball = ("--finish", finish, "--mask", before / "mask.png")
    pinned = tmp_path / "lights.json"
    assert not gnomon("calibrate", "lights", tmp_path / "first", *ball, "--out", pinned).code
    found = gnomon("rig", "lights-moved", tmp_path / "later", "--lights", pinned, *ball)
    assert (found.code, found.err) == (1, "")
    warned = [line for line in found.out.splitlines() if line.startswith("warning")]
    assert warned == ["warning  lamp4: no sphere shows its light: does it burn?"]
    assert len(found.out.splitlines()) == COUNT


def test_one_mirror_ball_has_no_residual_and_both_finishes_are_checked(gnomon, tmp_path):
    photos = _mirrored(tmp_path / "photos", _directions())
    gnomon("import", "folder", photos, tmp_path / "s", "--assume-linear")
    ball = ("--mask", photos / "mask.png")
    told = gnomon("calibrate", "lights", tmp_path / "s", *ball, "--out", tmp_path / "lights.json")
    assert "no residual, 12 observations are no more than the unknowns" in told.out
    refused = gnomon("calibrate", "lights", tmp_path / "s", *ball, *ball, "--out", tmp_path / "twice.json")
    assert (refused.code, "two masks of one sphere" in refused.err) == (2, True)
    refused = gnomon(
        "calibrate", "lights", tmp_path / "s", *ball, "--model", "near", "--out", tmp_path / "near.json"
    )
    assert "near lights want a lens model (--lens) and the spheres' diameter" in refused.err
    pinned = ("--lights", tmp_path / "lights.json")
    white = (
        "--finish",
        "both",
        "--matte-mask",
        photos / "white.png",
        "--matte-diameter",
        30,
        "--albedo",
        0.8,
    )
    both = gnomon("rig", "lights-moved", tmp_path / "s", *pinned, *ball, *white)
    assert (both.code, both.err) == (0, "")
    assert both.out.count("ok ") == COUNT


def test_what_cannot_be_is_said_in_a_line(gnomon, matte, tmp_path):
    gnomon("import", "folder", matte, tmp_path / "s")
    out = ("--out", tmp_path / "lights.json")
    bad = gnomon("calibrate", "lights", tmp_path / "s", *out)
    assert bad.code != 0
    assert "mirror sphere" in bad.err
    bad = gnomon("calibrate", "lights", tmp_path / "s", "--focal-35mm", 0, *out)
    assert "focal length of 0 mm" in bad.err
