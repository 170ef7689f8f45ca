"""Reconstruct where the light file tells no intensities, or wrong ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from calibration.files import load_model, read_exr, read_lights
from calibration.geometry import angle_deg, normalize
from calibration.lens import BrownConrady
from calibration.lights.agreement import join_lights
from calibration.lights.intensity import EQUAL_INTENSITIES
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.provenance import Provenance, Quality
from rigs import workflows
from rigs.interchange import import_lp, read_light_set
from rigs.workflows.intensities import settle_intensities

SIZE, COUNT = 41, 12
TURN = 2 * np.pi * np.arange(COUNT) / COUNT
SLANT = np.radians([25, 42, 34] * 4)
TOWARDS = np.stack(
    [np.sin(SLANT) * np.cos(TURN), np.sin(SLANT) * np.sin(TURN), np.cos(SLANT)], axis=1
)  # y up, z to the camera
STRENGTH = np.random.default_rng(3).uniform(0.6, 1.4, COUNT)

Gnomon = Callable[..., Any]


def _ball(reach: float = 0.8) -> Any:
    x, y = reach * np.array(np.meshgrid(np.linspace(-0.7, 0.7, SIZE), np.linspace(0.7, -0.7, SIZE)))
    return np.stack([x, y, np.sqrt(1 - x**2 - y**2)], axis=-1)


def _lp(folder: Path, strength: Any, reach: float = 0.8) -> Path:
    folder.mkdir()
    for index, (light, level) in enumerate(zip(TOWARDS, strength, strict=True)):
        shade = level * np.clip(_ball(reach) @ light, 0, None)
        cv2.imwrite(str(folder / f"p{index:02d}.png"), np.rint(30_000 * shade).astype(np.uint16))
    rows = [f"p{index:02d}.png {x} {y} {z}" for index, (x, y, z) in enumerate(TOWARDS)]
    (folder / "dome.lp").write_text("\n".join([str(COUNT), *rows, ""]))
    return folder / "dome.lp"


def _error(out: Path) -> float:
    maps = read_exr(out / "normals.exr")
    normals = np.stack([maps[f"N.{axis}"] for axis in "XYZ"], axis=-1)
    return float(np.nanmax(angle_deg(normals, normalize(_ball() * [1, -1, -1]))))


def test_a_list_without_intensities(gnomon: Gnomon, tmp_path: Path) -> None:
    session = import_lp(_lp(tmp_path / "dome", STRENGTH), tmp_path / "s", assume_linear=True)
    lights = session.path / "given" / "lights.json"
    assert read_light_set(lights).provenance.options == {"intensity": "equal"}
    words = ("reconstruct", session.path, "--lights", lights, "--method", "robust", "--out")
    done = gnomon(*words, tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    spread = f"{100 * np.std(np.log(STRENGTH)):.1f} % rms"
    assert f"estimated from the object; they vary by {spread} (sigma 0.0 %)" in done.out
    assert _error(tmp_path / "out") < 0.05
    kept = load_model(tmp_path / "out" / "models" / "lights.json", LightSet)
    found = np.array([light.intensity[0] for light in kept.lights.values()])
    assert found == pytest.approx(STRENGTH / STRENGTH.mean(), rel=1e-3)
    assert kept.provenance.options["intensity"] == "object"
    assert all(light.intensity_sigma is not None for light in kept.lights.values())
    assert gnomon(*words, tmp_path / "given", "--intensities", "given").code == 0
    assert _error(tmp_path / "given") > 5


def test_equal_lights_stay_equal(tmp_path: Path) -> None:
    session = import_lp(_lp(tmp_path / "dome", np.ones(COUNT)), tmp_path / "s", assume_linear=True)
    result = workflows.reconstruct(session, read_lights(tmp_path / "dome" / "dome.lp"), method="robust")
    assert len(result.remarks) == 1
    assert result.remarks[0].startswith(
        "intensities: all lights equal; others would leave 100 % of the residuals"
    )
    assert all(light.intensity == (1.0,) for light in result.lights.lights.values())


def test_wrong_directions_do_not_make_intensities(tmp_path: Path) -> None:
    lp = _lp(tmp_path / "dome", np.ones(COUNT))
    rng = np.random.default_rng(1)
    off = normalize(TOWARDS + 0.06 * rng.normal(size=TOWARDS.shape))  # by some 5 degrees
    rows = [f"p{index:02d}.png {x} {y} {z}" for index, (x, y, z) in enumerate(off)]
    lp.write_text("\n".join([str(COUNT), *rows, ""]))
    session = import_lp(lp, tmp_path / "s", assume_linear=True)
    result = workflows.reconstruct(session, read_lights(lp), method="robust")
    assert result.remarks[0].startswith("intensities: all lights equal")
    found = workflows.reconstruct(session, read_lights(lp), method="robust", intensities="estimated")
    truth = normalize(_ball() * [1, -1, -1])
    worse, as_equal = (
        np.nanmean(angle_deg(r.reconstruction.normals.normals, truth)) for r in (found, result)
    )
    assert as_equal < worse
    assert not [w for w in found.lights.quality.warnings if "rest on directions" in w]
    lights = read_lights(lp)
    told = {
        name: light.replace(covariance=np.eye(2) * np.radians(5) ** 2)
        for name, light in lights.lights.items()
    }
    doubted = workflows.reconstruct(
        session, lights.replace(lights=told), method="robust", intensities="estimated"
    )
    assert [w for w in doubted.lights.quality.warnings if "rest on directions of sigma 5.0 deg" in w]


def test_a_flat_thing_does_not_tell(gnomon: Gnomon, tmp_path: Path) -> None:
    session = import_lp(_lp(tmp_path / "flat", STRENGTH, 1e-4), tmp_path / "s", assume_linear=True)
    lights = session.path / "given" / "lights.json"
    mask = tmp_path / "all.png"
    cv2.imwrite(str(mask), np.full((SIZE, SIZE), 255, np.uint8))
    words: Any = ("reconstruct", session.path, "--lights", lights, "--mask", mask, "--method", "robust")
    words = (*words, "--out", tmp_path / "out")
    done = gnomon(*words, "--intensities", "estimated")
    assert done.code == 4
    assert "does not tell the lights' intensities" in done.err
    assert done.err.count("\n") == 1
    done = gnomon(*words)
    assert done.code == 0
    assert "warning: all lights are taken as equal: the object does not tell" in done.err


def test_a_lamp_that_is_not_as_the_file_says_is_named(gnomon: Gnomon, tmp_path: Path) -> None:
    dimmed = np.where(np.arange(COUNT) == 7, 0.88, 1.0)
    session = import_lp(_lp(tmp_path / "dome", STRENGTH * dimmed), tmp_path / "s", assume_linear=True)
    rows = [
        f"p{i:02d},{x},{y},{z},{level},yup"
        for i, ((x, y, z), level) in enumerate(zip(TOWARDS, STRENGTH, strict=True))
    ]
    lights = tmp_path / "lights.csv"
    lights.write_text("\n".join(["light,dx,dy,dz,intensity,frame", *rows, ""]))
    words = ("reconstruct", session.path, "--lights", lights, "--method", "robust", "--out")
    done = gnomon(*words, tmp_path / "found", "--intensities", "estimated")
    assert done.code == 0
    assert done.err.splitlines() == ["warning: p07 is 12 % dimmer than the light file says (sigma 0.0 %)"]
    # A file that tells intensities is believed unless one asks.
    done = gnomon(*words, tmp_path / "given")
    assert "intensities" not in done.out
    assert _error(tmp_path / "found") < 0.05 < _error(tmp_path / "given")


@pytest.mark.parametrize(
    ("name", "text", "known"),
    [
        ("a.csv", "light,dx,dy,dz\na,0,0,-1\n", False),
        ("a.csv", "light,dx,dy,dz,intensity\na,0,0,-1,2\n", True),
        ("a.json", '{"lights": [{"lightId": 1, "direction": [0, 0, -1]}]}', False),
        ("a.json", '{"lights": [{"lightId": 1, "direction": [0, 0, -1], "intensity": [1.0]}]}', True),
    ],
)
def test_lists_say_whether_they_tell_intensities(tmp_path: Path, name: str, text: str, known: bool) -> None:
    (tmp_path / name).write_text(text)
    assert ("intensity" in read_lights(tmp_path / name).provenance.options) is not known


def test_matte_balls_answer_what_mirrors_could_not_tell() -> None:
    doubt = Quality(
        residual_rms=0.1, unit="px", observations=9, verdict="doubtful",
        warnings=(f"{EQUAL_INTENSITIES}; saturated in every sphere: a", "light a: another thing"),
    )  # fmt: skip
    light = DistantLight(direction=(0.0, 0.0, -1.0), covariance=1e-6 * np.eye(2))
    mirror = LightSet(
        lights={"a": light}, quality=doubt, provenance=Provenance(options={"intensity": "equal"})
    )
    matte = LightSet(lights={"a": light.replace(intensity=(2.0,))})
    joined = join_lights(mirror, matte)
    assert joined.quality is not None
    assert joined.quality.warnings == ("light a: another thing",)


def test_near_lights_and_a_rough_distance() -> None:
    turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    lens = BrownConrady(width=60, height=50, fx=220.0, fy=220.0, cx=29.5, cy=24.5)
    y, x = np.mgrid[:50, :60]
    rays = np.stack([(x - 29.5) / 220, (y - 24.5) / 220, np.ones(x.shape)], axis=-1)
    # A ball of 60 mm around a point 460 mm away, seen within 50 mm of its middle.
    middle = np.array([0.0, 0.0, 460.0])
    along, square = rays @ middle, np.sum(rays**2, axis=-1)
    root = along**2 - square * (middle @ middle - 60.0**2)
    mask = root > 0.35 * root.max()
    points = rays * ((along - np.sqrt(np.maximum(root, 0))) / square)[..., None]
    normals = (points - middle) / 60
    places = np.stack([190 * np.cos(turn), 190 * np.sin(turn), 120 + 60 * np.cos(2 * turn)], axis=1)
    lamps: dict[str, Any] = {f"led{i}": NearLight(position_mm=tuple(p)) for i, p in enumerate(places)}
    strength = 1e9 * np.random.default_rng(2).uniform(0.6, 1.4, 10)
    clean = []
    for lamp, level in zip(lamps.values(), strength, strict=True):
        direction, irradiance = lamp.at(points)
        shade = np.clip(np.sum(direction * normals, axis=-1), 0, None)
        clean.append(0.6 * level * irradiance[..., 0] * shade)
    variance = (0.003 * np.max(clean)) ** 2 * np.ones((10, 50, 60), np.float32)
    noise = np.random.default_rng(3).normal(size=variance.shape)
    value = (np.array(clean) + np.sqrt(variance) * noise).astype(np.float32)
    settled = settle_intensities(
        LightSet(lights=lamps),
        workflows.LightImages(tuple(lamps), value, variance.astype(np.float32)),
        "estimated",
        lens=lens,
        depth_mm=385.0,  # of 403
        mask=mask,
        method="robust",
    )
    found = np.array([light.intensity[0] for light in settled.lights.lights.values()])
    assert found / found.mean() == pytest.approx(strength / strength.mean(), rel=0.01)
