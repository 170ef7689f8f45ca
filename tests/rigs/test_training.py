"""Training sets: the truth stays the truth, the noise is the sensor's, the same seed gives the same bytes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import OpenEXR
import pytest
import simulated_small as small
from conftest import Answer
from numpy.typing import NDArray

from calibration.files import load_model, read_exr, save_model
from calibration.geometry import angle_deg, normalize
from calibration.lights.model import DistantLight, LightSet
from calibration.radiometric import Radiance, RadiometricModel
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.session import Session
from rigs import interchange, workflows
from rigs.config import ConfigError
from rigs.interchange.augment import directions, generator, relight, retake
from rigs.interchange.manifest import ManifestError
from rigs.simulated import Truth, Twin

SHOT_S = 0.02


class Capture(NamedTuple):
    """A simulated session of a matte relief, its truth and its reconstruction."""

    session: Session
    truth: Truth
    result: Path


def scene(colour: str) -> Truth:
    """A matte hill on a plane, a camera without blur, eight lamps a metre away."""
    turns = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    lamps = {
        f"led{number}": small.near(500 * np.cos(turn), 500 * np.sin(turn), -300, 4e11)
        for number, turn in enumerate(turns, 1)
    }
    hill = {"kind": "bump", "at_mm": [0, 0], "height_mm": 12, "radius_mm": [22, 22]}
    relief = {
        "kind": "heightfield", "width_mm": 130, "height_mm": 80, "features": [hill], "cell_mm": 1.0,
        "albedo": 0.6, "translation_mm": [0, 0, 400],
    }  # fmt: skip
    eye = small.camera(96, 60, 320.0, sensor={"colour": colour})
    return small.truth([relief], lights=lamps, eye=eye)


def capture(folder: Path, colour: str = "mono") -> Capture:
    truth = scene(colour)
    twin = Twin(truth)
    names = tuple(truth.lights)
    plan = CapturePlan(
        name="relief",
        blocks=(
            Block(
                kinds=("dark",), pose="cap", cameras=("cam",), bracket=ExposureBracket(exposures_s=(SHOT_S,))
            ),
            Block(
                kinds=("object",),
                pose="scene",
                cameras=("cam",),
                lights=LightSequence(names=names),
                bracket=ExposureBracket(exposures_s=(SHOT_S,)),
            ),
        ),
    )
    session = Session.create(folder / "session", plan, {}, {"truth": workflows.truth_digest(truth)})
    with session.writer() as writer:
        for shot in plan.shots():
            twin.show(shot.pose)
            for name in names:
                twin.set_light(name, shot.lights.get(name, 0.0))
            writer.put(shot, twin.expose("cam", shot.exposure_s, shot.gain_db))
    session.finish()
    session = Session.open(session.path)
    known = truth.cameras["cam"].sensor
    sensor = RadiometricModel(
        width=96,
        height=60,
        pixel_format=known.pixel_format,
        black_dn=known.black_dn,
        gain_dn_per_e=known.gain_dn_per_e,
        read_noise_e=known.read_noise_e,
        saturation_dn=2.0**known.bits - 1,
    )
    found = {name: light.replace(covariance=np.eye(3)) for name, light in twin.lights("cam").items()}
    lights = LightSet(lights=found, scene_depth_mm=395.0)
    result = workflows.reconstruct(
        session, lights, sensor=sensor, lens=twin.lens("cam"), method="least-squares"
    )
    workflows.write_reconstruction(
        folder / "result", result, sensor=sensor, lens=twin.lens("cam"), lights=lights
    )
    return Capture(session, truth, folder / "result")


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return capture(tmp_path_factory.mktemp("training"))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def plane(path: Path, channel: str = "Y") -> NDArray[np.float32]:
    return read_exr(path)[channel]


def test_a_set_holds_what_it_says_and_nothing_else(taken: Capture, tmp_path: Path) -> None:
    out = tmp_path / "set"
    told = interchange.write_training(
        out, taken.session, taken.result, relit=3, noisy=2, truth=taken.truth, seed=5
    )
    assert json.loads((out / "training.json").read_text()) == told
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]

    def named(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(named, value.values()))
        if isinstance(value, list):
            return set().union(*map(named, value))
        return {value} if isinstance(value, str) and value.endswith((".exr", ".png", ".json")) else set()

    there = set(digests(out)) - {"training.json"}
    sidecars = {name for name in there if name.endswith(".npz")}
    assert named(told) == there - sidecars
    # 8 pictures, 2 noisy each; 3 relit, 2 noisy each; 8 clean; 3 + 4 maps, things
    assert len([name for name in there if name.endswith(".exr")]) == 8 * 3 + 3 * 3 + 8 + 3 + 3
    assert told["channels"] == ["Y"]
    assert told["lights"]["led1"]["covariance"] == np.eye(3).tolist()
    assert told["sensor"]["calibrated"]
    assert told["sensor"]["read_noise_e"] == taken.truth.cameras["cam"].sensor.read_noise_e
    model = load_model(out / "sensor.json", RadiometricModel)
    assert model.gain_dn_per_e == told["sensor"]["gain_dn_per_e"]
    # Another reader of EXR sees the same numbers.
    with OpenEXR.File(str(out / told["images"][0]["file"]), separate_channels=True) as file:
        pixels = file.parts[0].channels["Y"].pixels
    np.testing.assert_array_equal(pixels, plane(out / told["images"][0]["file"]))


def test_the_same_seed_gives_the_same_bytes(taken: Capture, tmp_path: Path) -> None:
    options: dict[str, Any] = {"relit": 2, "noisy": 1}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        interchange.write_training(tmp_path / name, taken.session, taken.result, seed=seed, **options)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {name for name in first if "noisy" in name or "relit" in name} | {"training.json"}


def test_the_truth_is_the_twins(taken: Capture, tmp_path: Path) -> None:
    told = interchange.write_training(tmp_path / "set", taken.session, taken.result, truth=taken.truth)
    twin, truth = Twin(taken.truth), tmp_path / "set" / "truth"
    known = twin.maps("scene", "cam")
    np.testing.assert_array_equal(plane(truth / "depth.exr", "Z"), known.depth_mm)
    np.testing.assert_array_equal(plane(truth / "normals.exr", "N.Z"), known.normals[..., 2])
    assert told["truth"]["lights"]["led1"]["position_mm"] == pytest.approx([500, 0, -300])
    things = cv2.imread(str(truth / "things.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(things, known.thing + 1)
    # The captured picture is the clean one and its noise: their distance, in sigmas, is 1.
    sigma = plane(tmp_path / "set" / told["images"][0]["file"], "sigma.Y")
    taken_one = plane(tmp_path / "set" / told["images"][0]["file"])
    clean = plane(tmp_path / "set" / told["truth"]["clean"][0]["file"])
    at = np.isfinite(clean) & np.isfinite(taken_one) & (clean > 0.2 * np.nanmax(clean))
    off = ((taken_one - clean) / sigma)[at]
    # PRNU of the twin's sensor, which its model here does not hold, adds to the noise.
    assert 0.85 < 1.4826 * np.median(np.abs(off - np.median(off))) < 1.5
    assert abs(np.mean(off)) < 0.5


def test_relit_under_the_sessions_own_lights_is_what_was_taken(taken: Capture) -> None:
    """A matte hill without cast shadows: the maps say what the camera saw, to the noise and to PRNU."""
    maps = interchange.read_maps(taken.result)
    assert maps.albedo is not None
    assert maps.depth is not None
    images = workflows.light_images(
        taken.session, "object", sensor=load_model(taken.result / "models" / "sensor.json", RadiometricModel)
    )
    lights = load_model(taken.result / "models" / "lights.json", LightSet)
    row, column = 30, 48
    point = [0.0, 0.0, float(maps.depth[row, column])]
    for name, value in zip(images.names, images.value, strict=True):
        direction, irradiance = lights.lights[name].at(point)
        again = relight(maps.normals, maps.albedo, direction, irradiance)
        near = slice(row - 2, row + 3), slice(column - 2, column + 3)
        assert np.mean(again[near]) == pytest.approx(float(np.mean(value[near])), rel=0.02)


def test_relighting_follows_its_formula() -> None:
    normals = normalize([[[0, 0, -1], [0.6, 0, -0.8], [-1, 0, 0.0]]]).astype(np.float32)
    normals = np.concatenate([normals, np.full((1, 1, 3), np.nan, np.float32)], axis=1)
    albedo = np.array([[0.5, 0.5, 0.5, np.nan]], np.float32)
    found = relight(normals, albedo, [0.6, 0, -0.8], [10.0])
    np.testing.assert_allclose(found[0], [4.0, 5.0, 0.0, np.nan], rtol=1e-6)
    coloured = relight(normals, np.stack([albedo, 2 * albedo, albedo], axis=-1), [0, 0, -1], [1.0, 2.0, 4.0])
    np.testing.assert_allclose(coloured[0, 0], [0.5, 2.0, 2.0], rtol=1e-6)


def test_new_lights_lie_evenly_in_the_cap() -> None:
    found = np.array(list(directions(4000, 60.0, generator(0, "x"))))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1)
    assert angle_deg(found, [0, 0, -1]).max() <= 60 + 1e-9
    # Even over the cap: z is even between -1 and -cos 60; sigma of the mean is 0.5 / sqrt(12 * 4000).
    assert abs(found[:, 2].mean() + 0.75) < 4 * 0.5 / np.sqrt(12 * 4000)
    assert np.abs(found[:, :2].mean(axis=0)).max() < 4 * 0.6 / np.sqrt(4000)


SENSOR = RadiometricModel(
    width=300,
    height=200,
    pixel_format="Mono12",
    black_dn=64.0,
    gain_dn_per_e=0.4,
    read_noise_e=5.0,
    dark_current_e_s=20.0,
    saturation_dn=4095.0,
)


@pytest.mark.parametrize("radiance", [0.0, 30.0, 4e4])
def test_the_noise_of_a_clean_picture_is_the_sensors(radiance: float) -> None:
    clean = np.full((200, 300), radiance, np.float32)
    found = retake(Radiance(clean, np.zeros_like(clean)), 0.1, SENSOR, generator(3, "n")).value
    electrons = (radiance + 20.0) * 0.1
    variance = (electrons + 5.0**2 + 1 / 12 / 0.4**2) / 0.1**2
    # 60 000 samples: the standard deviation of a variance is sqrt(2 / n) of it, of a mean sigma / sqrt(n).
    assert found.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / found.size))
    assert abs(found.mean() - radiance) < 4 * np.sqrt(variance / found.size)
    # Whole numbers of the camera.
    dn = 64 + 0.4 * (found + 20.0) * 0.1
    assert np.abs(dn - np.rint(dn)).max() < 1e-2


def test_noise_that_is_in_a_picture_is_not_added_again() -> None:
    """Taken at 0.1 s, again at 0.03 s: the sum has the sensor's noise at 0.03 s."""
    truth = np.full((200, 300), 2e4, np.float32)
    once = retake(Radiance(truth, np.zeros_like(truth)), 0.1, SENSOR, generator(1, "a"))
    twice = retake(once, 0.03, SENSOR, generator(1, "b")).value
    variance = ((2e4 + 20) * 0.03 + 25 + 1 / 12 / 0.16) / 0.03**2
    # The variance that a picture claims is taken at its own noisy samples: right on average.
    assert twice.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / twice.size))
    assert abs(twice.mean() - 2e4) < 4 * np.sqrt(variance / twice.size)


def test_what_is_saturated_or_unknown_is_nan() -> None:
    value = np.full((200, 300), 100.0, np.float32)
    value[:, :100], value[:, 100:200] = np.nan, 5e6
    found = retake(Radiance(value, np.zeros_like(value)), 0.1, SENSOR, generator(0, "s")).value
    assert np.isnan(found[:, :200]).all()
    assert np.isfinite(found[:, 200:]).all()
    floats = RadiometricModel.nominal("Mono32f", (200, 300))
    with pytest.raises(ValueError, match="Mono32f: a float format has no noise model"):
        retake(Radiance(value, np.zeros_like(value)), 0.1, floats, generator(0, "s"))


def test_a_mosaic_sees_its_own_colours() -> None:
    bayer = SENSOR.replace(pixel_format="BayerRG12", dark_current_e_s=0.0)
    colour = np.broadcast_to(np.array([4e4, 2e4, 1e4], np.float32), (200, 300, 3)).copy()
    found = retake(Radiance(colour, np.zeros_like(colour)), 0.1, bayer, generator(0, "m")).value
    assert found.shape == (200, 300, 3)
    # Each colour's mean rests on 15 000 samples or more of relative noise 1 / sqrt(1000).
    np.testing.assert_allclose(found.mean(axis=(0, 1)), [4e4, 2e4, 1e4], rtol=4 / np.sqrt(1000 * 15_000))


def test_png_pictures_come_back_to_half_a_step(taken: Capture, tmp_path: Path) -> None:
    for form in ("exr", "png"):
        interchange.write_training(tmp_path / form, taken.session, taken.result, form=form, relit=1, noisy=1)
    told = json.loads((tmp_path / "png" / "training.json").read_text())
    assert told["pictures"]["form"] == "png16"
    entries = [*told["images"], *told["relit"]["images"], *told["noisy"]]
    for entry in entries[::5]:
        raw = cv2.imread(str(tmp_path / "png" / entry["file"]), cv2.IMREAD_UNCHANGED)
        assert raw.dtype == np.uint16
        value = plane(tmp_path / "exr" / entry["file"].replace(".png", ".exr"))
        found = (raw.astype(np.float64) - told["pictures"]["pedestal"]) * entry["step"]
        np.testing.assert_array_equal(raw == 0, np.isnan(value))
        at = np.isfinite(value)
        assert np.abs(found - value)[at].max() <= 0.51 * entry["step"]


def test_what_does_not_fit_is_refused_in_one_line(taken: Capture, tmp_path: Path) -> None:
    def refused(message: str, error: type[Exception] = ConfigError, **changes: Any) -> None:
        given = {"out": tmp_path / "no", "session": taken.session, "result": taken.result} | changes
        with pytest.raises(error, match=message) as caught:
            interchange.write_training(given.pop("out"), given.pop("session"), given.pop("result"), **given)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "no").exists()
        assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]

    other = small.truth([{"kind": "plane", "translation_mm": [0, 0, 400]}])
    refused("was not simulated by this truth", truth=other)
    refused("no such file: want a folder of `gnomon reconstruct`", result=tmp_path)
    refused("want the folder", result=taken.result / "normals.exr")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ManifestError, match="choose another folder for the training set"):
        interchange.write_training(tmp_path / "used", taken.session, taken.result)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    again = capture(stranger, "RGGB")
    refused("was reconstructed of another session", session=again.session)
    lights = load_model(again.result / "models" / "lights.json", LightSet)
    few = dict(list(lights.lights.items())[1:])
    save_model(again.result / "models" / "lights.json", lights.replace(lights=few))
    refused("has no light 'led1' of the session", session=again.session, result=again.result)


def test_the_command_writes_the_same_set(
    taken: Capture, tmp_path: Path, gnomon: Callable[..., Answer]
) -> None:
    words = ("--relit", 2, "--noisy", 1, "--seed", 3)
    answer = gnomon(
        "export", "training", taken.session.path, "--result", taken.result, *words, "--out", tmp_path / "a"
    )
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"{tmp_path / 'a'}: 8 pictures, 2 relit\n"
    interchange.write_training(tmp_path / "b", taken.session, taken.result, relit=2, noisy=1, seed=3)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


# ---------------------------------------------------------------- results for other programs


def test_exports_of_a_result(taken: Capture, tmp_path: Path, gnomon: Callable[..., Answer]) -> None:
    maps = interchange.read_maps(taken.result)
    for words in (
        ("normals", "--axes", "directx", "--out", tmp_path / "dx.png"),
        ("normals", "--out", tmp_path / "gl.exr"),
        ("normals", "--axes", "directx", "--out", tmp_path / "dx.exr"),
        ("normals", "--axes", "camera", "--out", tmp_path / "own.exr"),
        ("depth", "--out", tmp_path / "d.png"),
        ("depth", "--out", tmp_path / "d.exr"),
        ("mask", "--out", tmp_path / "new" / "m.png"),
        ("mesh", "--out", tmp_path / "m.obj"),
        ("mesh", "--out", tmp_path / "m.glb"),
        ("mesh", "--out", tmp_path / "m.ply"),
    ):
        answer = gnomon("export", words[0], taken.result, *words[1:])
        assert (answer.code, answer.out.strip(), answer.err) == (0, str(words[-1]), "")
    raw = cv2.imread(str(tmp_path / "dx.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    turned = maps.normals * [1, 1, -1]
    at = maps.mask
    assert np.abs(raw[at] / 65535 * 2 - 1 - turned[at]).max() < 1.01 / 65535
    np.testing.assert_array_equal(raw.any(axis=-1), at)
    exr = read_exr(tmp_path / "gl.exr")
    np.testing.assert_allclose(exr["G"][at], -maps.normals[at, 1], rtol=1e-6)
    np.testing.assert_array_equal(read_exr(tmp_path / "dx.exr")["G"], -exr["G"])
    own = interchange.read_maps(tmp_path / "own.exr")
    np.testing.assert_array_equal(own.normals, maps.normals)
    np.testing.assert_array_equal(own.sigma_lights_deg, maps.sigma_lights_deg)
    assert maps.sigma_lights_deg is not None
    np.testing.assert_array_equal(plane(tmp_path / "d.exr", "Z"), maps.depth)
    assert (tmp_path / "m.ply").read_bytes() == (taken.result / "mesh.ply").read_bytes()
    depths = [
        float(line.split()[3]) for line in (tmp_path / "m.obj").read_text().splitlines() if line[:2] == "v "
    ]
    np.testing.assert_allclose(np.sort(depths), np.sort(maps.depth[np.isfinite(maps.depth)]), rtol=1e-5)
    glb = (tmp_path / "m.glb").read_bytes()
    assert (glb[:4], int.from_bytes(glb[8:12], "little")) == (b"glTF", len(glb))
    mask = cv2.imread(str(tmp_path / "new" / "m.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask == 255, at)


def test_near_lights_leave_as_seen_from_a_point(
    taken: Capture, tmp_path: Path, gnomon: Callable[..., Answer]
) -> None:
    file = taken.result / "models" / "lights.json"
    answer = gnomon("export", "lights", file, "--format", "lp", "--out", tmp_path / "a.lp")
    assert answer.code == 2
    assert "light 'led1' is near, not for lp: say by --at X,Y,Z" in answer.err
    assert not (tmp_path / "a.lp").exists()
    answer = gnomon("export", "lights", file, "--format", "lp", "--at", "0,0,nan", "--out", tmp_path / "a.lp")
    assert (answer.code, "--at '0,0,nan': want X,Y,Z" in answer.err) == (2, True)
    answer = gnomon("export", "lights", file, "--format", "lp", "--at", "0,0,400", "--out", tmp_path / "a.lp")
    assert (answer.code, "left out: the intensities" in answer.err) == (0, True)
    light = interchange.read_light_set(tmp_path / "a.lp").lights["led1"]
    assert isinstance(light, DistantLight)
    assert angle_deg(light.direction, [500, 0, -700]) < 1e-9
    for form, out in (("alicevision", "a.json"), ("diligent", "folder")):
        assert not gnomon(
            "export", "lights", file, "--format", form, "--at", "0,0,400", "--out", tmp_path / out
        ).code
    theirs = interchange.read_light_set(tmp_path / "a.json").lights["led1"]
    assert theirs.intensity[0] == pytest.approx(4e11 / (500**2 + 700**2), rel=0.2)
    assert len((tmp_path / "folder" / "light_intensities.txt").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("normals", "{result}", "--axes", "camera", "--out", "{new}/n.png"),
            "a PNG has opengl or directx axes",
        ),
        (("normals", "{result}", "--out", "{new}/n.jpg"), "want a file that ends in .png or .exr"),
        (("normals", "{new}", "--out", "{new}/n.png"), "normals.exr: no such file"),
        (("normals", "{result}/depth.exr", "--out", "{new}/n.png"), "has no channels N.X N.Y N.Z"),
        (("depth", "{result}/normals.exr", "--out", "{new}/n.png"), "the result holds no depth"),
        (("mesh", "{result}", "--out", "{new}/m.stl"), "want a file that ends in .ply or .obj or .glb"),
        (("mask", "{result}", "--out", "{new}"), "want a file that ends in .png"),
    ],
)
def test_exports_that_cannot_be(
    taken: Capture, tmp_path: Path, gnomon: Callable[..., Answer], words: tuple[str, ...], message: str
) -> None:
    answer = gnomon("export", *(word.format(result=taken.result, new=tmp_path) for word in words))
    assert answer.code == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
