"""Bad input to every radiometric command: one line that names the frame, and nothing written.

Not tested here: hardware that fails during a capture (tests/capture), and manifests (test_interchange.py).
"""

import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile

from calibration import files
from calibration.lens import BrownConrady
from calibration.radiometric import RadiometricModel
from capture.frame import Frame
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.session import Session
from rigs import workflows

SHAPE = (48, 64)
BLACK, GAIN, READ, TOP = 16.0, 0.05, 8.0, 255
FLATS = tuple(round(0.002 * k, 6) for k in range(1, 10))
BRACKET = (0.002, 0.004, 0.008, 0.016)


def block(kind, exposures, *, lights=("lamp",), repeats=1):
    return Block(
        kinds=(kind,), pose=(kind,), cameras=("cam",),
        lights=LightSequence(names=lights) if kind != "dark" else None,
        bracket=ExposureBracket(exposures_s=exposures), repeats=repeats,
    )  # fmt: skip


def sensor_plan(flats=FLATS, repeats=2):
    return CapturePlan(
        name="s", blocks=(block("flat", flats, repeats=repeats), block("dark", flats, repeats=2))
    )


def scene_plan(exposures=BRACKET, repeats=1):
    return CapturePlan(name="o", blocks=(block("object", exposures, repeats=repeats),))


def take(path: Path, plan: CapturePlan, alter=None) -> Path:
    """Frames of an 8-bit linear camera; ``alter(shot, values of Frame)`` spoils some of them."""
    rng = np.random.default_rng(5)
    x = np.linspace(0, 1, SHAPE[1]) * np.ones((SHAPE[0], 1))
    session = Session.create(path, plan, {})
    with session.writer() as writer:
        for shot in plan.shots():
            rate = {"flat": 2.5e5 * np.ones(SHAPE), "object": 5e3 + 2.5e5 * x**2}.get(
                shot.kinds[0], np.zeros(SHAPE)
            )
            electrons = rng.poisson(rate * shot.exposure_s) + rng.normal(0, READ, SHAPE)
            values = {
                "dn": np.clip(np.round(BLACK + GAIN * electrons), 0, TOP).astype(np.uint8),
                "pixel_format": "Mono8", "exposure_s": shot.exposure_s, "gain_db": 0.0,
                "frame_id": shot.index, "timestamp_ns": shot.index + 1,
            }  # fmt: skip
            writer.put(shot, Frame(**(values if alter is None else {**values, **alter(shot, values)})))
    session.finish()
    return path


def every(**changes):
    """Change values of all frames; a callable is given the frame's own."""
    return lambda shot, values: {k: v(values) if callable(v) else v for k, v in changes.items()}


def only(index, **changes):
    return lambda shot, values: every(**changes)(shot, values) if shot.index == index else {}


# --- what a command wants, and what it must say -------------------------------------------------------------


COMMANDS = {
    "sensor": ("calibrate sensor {session} --out {out}.json", sensor_plan()),
    "response": ("calibrate response {session} --out {out}.json", scene_plan()),
    "flat": ("calibrate flat {session} --sensor {sensor} --out {out}.json", sensor_plan()),
    "merge": ("merge {session} --sensor {sensor} --out {out}", scene_plan()),
    "bare merge": ("merge {session} --out {out}", scene_plan()),
    "bracket": (
        "plan bracket {session} --sensor {sensor} --snr 20 --min-exposure 1e-4 --max-exposure 1 "
        "--out {out}.yaml",
        scene_plan(),
    ),
    "check": ("session check {session} --sensor {sensor} --out {out}.json", scene_plan()),
}
LINEAR = [name for name in COMMANDS if name != "response"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A sensor model and the sessions of each plan, without fault."""
    folder = tmp_path_factory.mktemp("good")
    take(folder / "s", sensor_plan())
    take(folder / "o", scene_plan())
    return folder


@pytest.fixture(scope="module")
def sensor(good):
    model = workflows.calibrate_sensor(Session.open(good / "s"))
    files.save_model(good / "sensor.json", model)
    return good / "sensor.json"


@pytest.fixture
def refused(gnomon, tmp_path, sensor):
    """``refused(command, session, *words)``: it fails with one line with the words; nothing is written."""

    def run(name, session, *words, sensor=sensor, out="out", code=None):
        before = {path for path in tmp_path.rglob("*")}
        template = COMMANDS[name][0]
        filled = [
            part.format(session=session, sensor=sensor, out=tmp_path / out) for part in template.split()
        ]
        answer = gnomon(*filled)
        assert answer.code in ((2, 4) if code is None else (code,)), (answer.out, answer.err)
        assert answer.err.count("\n") == 1, answer.err
        assert answer.err.startswith("gnomon: ")
        for word in words:
            assert word in answer.err
        assert {path for path in tmp_path.rglob("*")} == before
        return answer

    return run


def session_of(name, tmp_path, alter):
    return take(tmp_path / "session", COMMANDS[name][1], alter)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (only(3, dn=lambda v: v["dn"][:-2]), ("3",)),
        (only(3, dn=lambda v: v["dn"].astype(np.uint16), pixel_format="Mono12"), ("3",)),
        (only(3, exposure_s=0.0), ("000003.tif", "exposure 0 s: want a positive number")),
        (only(3, exposure_s=-0.01), ("000003.tif", "exposure -0.01 s: want a positive number")),
    ],
    ids=["size", "depth", "zero", "negative"],
)
def test_one_frame_that_differs_is_named(refused, tmp_path, name, alter, words):
    refused(name, session_of(name, tmp_path, alter), *words)


@pytest.mark.parametrize("name", ["sensor", "response", "merge", "bare merge"])
def test_equal_exposures_are_refused_where_they_must_differ(refused, tmp_path, name):
    refused(name, session_of(name, tmp_path, every(exposure_s=0.004)), "expos")


@pytest.mark.parametrize("name", ["sensor", "response", "flat", "merge", "bare merge", "bracket"])
@pytest.mark.parametrize("level", [TOP, 0], ids=["saturated", "black"])
def test_frames_without_a_picture_are_refused(refused, tmp_path, name, level):
    answer = refused(name, session_of(name, tmp_path, every(dn=np.full(SHAPE, level, np.uint8))))
    assert "saturated" in answer.err if level else "black" in answer.err or "shows light" in answer.err


@pytest.mark.parametrize(("level", "check"), [(TOP, "clipping"), (0, "clipped black")])
def test_the_check_fails_frames_without_a_picture(gnomon, tmp_path, sensor, level, check):
    session = session_of("check", tmp_path, every(dn=np.full(SHAPE, level, np.uint8)))
    answer = gnomon("session", "check", session, "--sensor", sensor)
    assert answer.code == 1
    assert f"fail     {check}" in answer.out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_cut_frame_is_named(refused, good, tmp_path, name):
    source = good / ("s" if COMMANDS[name][1] == sensor_plan() else "o")
    session = shutil.copytree(source, tmp_path / "session")
    frame = session / "frames" / "000002.tif"
    frame.write_bytes(frame.read_bytes()[:500])
    refused(name, session, "frames/000002.tif is damaged")


@pytest.mark.parametrize("name", COMMANDS)
def test_sessions_without_frames_are_refused(refused, tmp_path, name):
    (tmp_path / "folder").mkdir()
    refused(name, tmp_path / "folder", "is not a session")
    session = Session.create(tmp_path / "session", scene_plan(), {})
    with session.writer() as writer:
        for shot in session.plan.shots():
            writer.skip(shot, "no camera")
    session.finish()
    refused(name, session.path, "has no frames")


@pytest.mark.parametrize(
    "words",
    [
        "session check {no}", "session verify {no}", "merge {no} --out {new}", "reconstruct {no} --out {new}",
        "calibrate sensor {no} --out {new}.json", "calibrate response {no} --out {new}.json",
        "calibrate lens {no} --board 'circles 5x4 20' --out {new}.json", "report {no}",
        "calibrate lights {no} --out {new}.json", "rig lights-moved {no} --lights a.lp",
        "export training {no} --result {no} --out {new}", "import folder {no} {new}",
        "import folder {no} {new} --kind board", "import diligent {no} {new}",
        "import two-spheres {no} {new}",
    ],
)  # fmt: skip
def test_a_folder_that_is_not_there_is_one_line(gnomon, tmp_path, words):
    (tmp_path / "file").write_text("")
    for name, said in (("no", "no such folder"), ("file", "is a file, want ")):
        places = {"no": tmp_path / name, "new": tmp_path / "new"}
        answer = gnomon(*(word.format(**places) for word in shlex.split(words)))
        assert answer.code == 2
        assert answer.err.startswith(f"gnomon: {tmp_path / name}: {said}"), answer.err
        assert answer.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def nominal(pixel_format="Mono8", shape=SHAPE, **values):
    return RadiometricModel.nominal(pixel_format, shape, **values)


@pytest.mark.parametrize("name", ["flat", "merge", "bracket", "check"])
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (BrownConrady(width=64, height=48, fx=50, fy=50, cx=32, cy=24), ("holds a 'lens' model",)),
        (nominal(shape=(24, 32)), ("(24, 32)", "(48, 64)")),
        (nominal("Mono12"), ("Mono12", "Mono8")),
        (None, ("no such model",)),
        ("{}", ("damaged, or no gnomon model",)),
    ],
    ids=["lens", "size", "depth", "missing", "junk"],
)
def test_a_wrong_sensor_model_is_refused(refused, good, tmp_path, name, model, words):
    path = tmp_path / "model.json"
    if isinstance(model, str):
        path.write_text(model)
    elif model is not None:
        files.save_model(path, model)
    session = good / ("s" if COMMANDS[name][1] == sensor_plan() else "o")
    refused(name, session, *words, sensor=path)


@pytest.mark.parametrize("name", COMMANDS)
def test_where_nothing_can_be_written_nothing_is_left(refused, good, tmp_path, name):
    session = good / ("s" if COMMANDS[name][1] == sensor_plan() else "o")
    (tmp_path / "file").write_text("")
    refused(name, session, "file", out="file/below/out")


@pytest.mark.parametrize("name", ["sensor", "response", "flat", "check"])
def test_a_folder_in_the_place_of_the_model_is_named(refused, good, tmp_path, name):
    session = good / ("s" if COMMANDS[name][1] == sensor_plan() else "o")
    (tmp_path / "out.json").mkdir()
    refused(name, session, "out.json: is a folder")


def test_samples_shifted_to_the_left_are_told_from_the_models_saturation(refused, tmp_path):
    def shifted(shot, values):
        return {"dn": values["dn"].astype(np.uint16) << 8, "pixel_format": "Mono16"}

    session = take(tmp_path / "session", scene_plan(), shifted)
    files.save_model(tmp_path / "m.json", nominal("Mono16", black_dn=16, saturation_dn=4095))
    refused("merge", session, "frames/000003.tif", "shifted to the left", sensor=tmp_path / "m.json")


@pytest.mark.parametrize("name", ["response", "merge", "bracket"])
def test_the_order_of_the_exposures_does_not_matter(gnomon, good, sensor, tmp_path, name):
    session = take(tmp_path / "session", scene_plan((0.008, 0.002, 0.016, 0.004)))
    words = COMMANDS[name][0].format(session=session, sensor=sensor, out=tmp_path / "out").split()
    answer = gnomon(*words)
    assert answer.code == 0, answer.err


# --- pictures that an import must refuse --------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


def write(path, image):
    if path.suffix == ".exr":
        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Y": image.astype(np.float32)}).write(str(path))
    elif path.suffix == ".tif":
        tifffile.imwrite(path, image)
    else:
        assert cv2.imwrite(str(path), image)


def with_value(value):
    def spoil(path):
        image = np.ones(SHAPE, np.float32)
        image[5, 6] = value
        write(path, image)

    return spoil


@pytest.mark.parametrize(
    ("suffix", "spoil", "words"),
    [
        (".png", cut, "damaged"),
        (".tif", cut, "damaged"),
        (".exr", cut, "damaged"),
        (".jpg", cut, "damaged"),
        (".exr", with_value(np.nan), "1 samples are NaN or infinite, the first at x 6, y 5"),
        (".exr", with_value(np.inf), "1 samples are NaN or infinite, the first at x 6, y 5"),
        (
            ".png",
            lambda path: write(path, np.zeros((10, 10), np.uint8)),
            "10 x 10 Mono8, but camera 'main' gave",
        ),
        (".png", lambda path: write(path, np.zeros(SHAPE, np.uint16)), "Mono16, but camera 'main' gave"),
        (".png", lambda path: path.write_text("no"), "not a picture"),
    ],
    ids=["png", "tiff", "exr", "jpeg", "nan", "inf", "size", "depth", "text"],
)
def test_a_picture_that_cannot_be_used_is_named_by_row(gnomon, tmp_path, suffix, spoil, words):
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["file,kind,light,exposure_s"]
    rng = np.random.default_rng(0)
    for index, exposure in enumerate(BRACKET):
        write(folder / f"f{index}{suffix}", rng.integers(1, 200, SHAPE).astype(np.uint8))
        lines.append(f"f{index}{suffix},object,lamp,{exposure}")
    spoil(folder / f"f2{suffix}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    answer = gnomon("import", "folder", folder, tmp_path / "session")
    assert answer.code == 2
    line = answer.err.splitlines()[-1]
    for word in ("row 4", f"f2{suffix}", words):
        assert word in line
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}
