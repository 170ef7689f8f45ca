"""Bad lights, masks and disks given to photometric commands: one line that says what to do, nothing written.

The object is a matt landscape without symmetry, so that what is turned over shows.
"""

import errno
import json
import os
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.files import read_exr, read_exr_attributes, save_model, write_bytes, write_exr
from calibration.geometry import angle_deg, normalize
from calibration.lens import BrownConrady
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.photometric import NormalMap
from calibration.photometric import solve as solve_normals
from calibration.provenance import FitError
from rigs.interchange import import_lp
from rigs.report import report_directory
from rigs.report.drawing import drawing
from rigs.report.plots import _names
from rigs.workflows import reconstructing
from rigs.workflows.contradictions import other_axes, refuse_lights_behind, too_near

HEIGHT, WIDTH = 60, 72
TOWARDS = normalize(
    [[0.5, 0.1, 1], [-0.5, 0.2, 1], [0.1, 0.6, 1], [0.2, -0.5, 1], [-0.3, -0.4, 1], [0, 0.1, 1]]
)  # y up, z to the camera
NAMES = [f"lamp{number}" for number in range(len(TOWARDS))]
Y_UP = np.array([1.0, -1.0, -1.0])


def landscape() -> np.ndarray:
    """Normals, camera frame: hills that lean all ways."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    z = 4 * np.sin(0.11 * x + 0.07 * y) * np.cos(0.13 * y - 0.05 * x) + 0.0015 * (x - 30) * (y - 20)
    by_y, by_x = np.gradient(z)
    return normalize(np.stack([by_x, by_y, -np.ones_like(z)], axis=-1))


def listed(path: Path, towards: np.ndarray, names: list[str] = NAMES) -> Path:
    rows = [f"{name}.png {' '.join(map(str, light))}" for name, light in zip(names, towards, strict=True)]
    path.write_text("\n".join([str(len(rows)), *rows, ""]))
    return path


@pytest.fixture(scope="module")
def coin(tmp_path_factory) -> Path:
    """Folder with the list ``coin.lp``, its pictures, and the session ``s`` made of them."""
    folder = tmp_path_factory.mktemp("coin")
    for name, light in zip(NAMES, TOWARDS, strict=True):
        shade = np.clip(landscape() @ (light * Y_UP), 0, None)
        assert cv2.imwrite(str(folder / f"{name}.png"), np.rint(50_000 * shade).astype(np.uint16))
    import_lp(listed(folder / "coin.lp", TOWARDS), folder / "s", assume_linear=True)
    return folder


@pytest.fixture
def solve(gnomon, coin, tmp_path):
    def run(*options, lights=coin / "coin.lp", out=tmp_path / "out"):
        return gnomon(
            "reconstruct", coin / "s", "--lights", lights, "--method", "robust", "--out", out, *options
        )

    return run


def refused(answer, *words, code):
    assert answer.code == code, (answer.out, answer.err)
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith("gnomon: ")
    for word in words:
        assert word in answer.err
    assert not answer.out


def test_right_lights_give_the_landscape_in_silence(solve, tmp_path):
    answer = solve()
    assert (answer.code, answer.err) == (0, "")
    maps = read_exr(tmp_path / "out" / "normals.exr")
    found = np.stack([maps[f"N.{axis}"] for axis in "XYZ"], axis=-1)
    assert np.nanmax(angle_deg(found, landscape())) < 0.1  # 16 bits: 0.001 deg
    assert [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_y_turned_over_is_told(solve, coin, tmp_path):
    answer = solve(lights=listed(tmp_path / "over.lp", TOWARDS * [1, -1, 1]))
    assert answer.code == 0
    assert "only with y or x turned over" in answer.err
    assert answer.err.count("\n") == 1


def _map(normals: np.ndarray) -> NormalMap:
    n = np.asarray(normals, np.float32)
    there = np.isfinite(n[..., 0])
    return NormalMap(
        normals=n, albedo=n[..., 2], valid=there, sigma_deg=n[..., 2], lights_used=there.astype(np.uint8)
    )


def dome_of_normals() -> np.ndarray:
    """Normals of an egg that is seen up to its rim, camera frame; NaN around it."""
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, WIDTH), np.linspace(-1.2, 1.2, HEIGHT))
    x, y = x + 0.2 * y, 0.8 * y
    with np.errstate(invalid="ignore"):
        z = -np.sqrt(1 - x**2 - y**2)
    return np.stack([x + 0 * z, 0.2 * x + 0.8 * y + 0 * z, z], axis=-1) / np.linalg.norm(
        np.stack([x, 0.2 * x + 0.8 * y, z], axis=-1), axis=-1, keepdims=True
    )


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        ((1, 0), (0, 1), ""),
        ((-1, 0), (0, 1), "only with y or x turned over"),
        ((1, 0), (0, -1), "only with y or x turned over"),
        ((0, 1), (1, 0), "only with x and y exchanged"),
        ((0, -1), (-1, 0), "only with x and y exchanged"),
        ((0, 1), (-1, 0), "only with x and y turned by 90 degrees"),
        ((0, -1), (1, 0), "only with x and y turned by 90 degrees"),
    ],
)
def test_how_the_axes_of_the_lights_lie_is_told_by_the_normals(x, y, told):
    for shape in (landscape(), dome_of_normals()):
        turned = shape @ np.array([[x[0], y[0], 0], [x[1], y[1], 0], [0, 0, 1]])
        said = other_axes(_map(turned))
        assert (told in said[0]) if told else said == ()


def test_a_hill_that_came_out_hollow_is_told_where_its_rim_is_in_view():
    over = np.array([-1, -1, 1])
    assert "lean inwards all round the object" in other_axes(_map(dome_of_normals() * over))[0]
    # Cut by the picture's border, and not steep there: a relief has no rim.
    assert other_axes(_map(landscape() * over)) == ()


@pytest.mark.parametrize("signs", [(1, 1, -1), (-1, -1, -1), (1, -1, -1)])
def test_lights_behind_the_object_are_refused(solve, tmp_path, signs):
    answer = solve(lights=listed(tmp_path / "behind.lp", TOWARDS * signs))
    refused(answer, "lamp0", "6 of 6 lights shine from behind", "yup", code=4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("unit", "depth_mm"), [(1e-3, 450.0), (1 / 25.4, 450.0), (1.0, 4500.0)])
def test_lengths_in_another_unit_are_named_where_all_lights_come_to_stand_at_one_place(unit, depth_mm):
    places = 300 * unit * TOWARDS * [1, -1, 0]
    lights = [NearLight(position_mm=tuple(place), intensity=(1.0,)) for place in places]
    lens = BrownConrady(width=8, height=6, fx=100.0, fy=100.0, cx=3.5, cy=2.5)
    value = np.ones((len(lights), 6, 8), np.float32)
    with pytest.raises(FitError, match=r"from one side.*positions and distance in mm"):
        solve_normals(value, 0.01 * value, lights, lens=lens, depth_mm=depth_mm, mask=value[0] > 0)


def test_a_distance_in_metres_is_told():
    near = LightSet(
        lights={
            name: NearLight(position_mm=tuple(300 * place), intensity=(1.0,))
            for name, place in zip(NAMES, TOWARDS, strict=True)
        }
    )
    refuse_lights_behind(NAMES, near, 450.0)
    with pytest.raises(
        FitError, match=r"6 of 6 lights shine from behind .* its distance \(0.45 mm\) .* in mm"
    ):
        refuse_lights_behind(NAMES, near, 0.45)
    assert too_near(450.0) == too_near(None) == ()
    assert "0.45 mm away: is that in mm?" in too_near(0.45)[0]


def test_names_that_differ_are_told_with_those_there_are(solve, tmp_path):
    answer = solve(lights=listed(tmp_path / "l.lp", TOWARDS, [name.upper() for name in NAMES]))
    refused(answer, "no lamp0, lamp1", "it has LAMP0, LAMP1", code=4)


def test_a_lamp_that_did_not_burn_is_left_out_and_named(gnomon, coin, tmp_path):
    dark = np.zeros((HEIGHT, WIDTH), np.uint16)
    for failed in (1, 4):
        photos = tmp_path / f"photos{failed}"
        photos.mkdir()
        for number, name in enumerate(NAMES):
            picture = cv2.imread(str(coin / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(photos / f"{name}.png"), dark if number < failed else picture)
        gnomon("import", "lp", coin / "coin.lp", photos / "s", "--images", photos, "--assume-linear")
    out = (
        "--lights",
        coin / "coin.lp",
        "--intensities",
        "given",
        "--method",
        "robust",
        "--out",
        tmp_path / "o",
    )
    mask = tmp_path / "all.png"
    cv2.imwrite(str(mask), np.full((HEIGHT, WIDTH), 255, np.uint8))
    answer = gnomon("reconstruct", tmp_path / "photos4" / "s", *out, "--mask", mask)
    refused(answer, "black under lamp0, lamp1, lamp2, lamp3", "did the lights burn", code=4)
    answer = gnomon("reconstruct", tmp_path / "photos1" / "s", *out, "--mask", mask)
    assert answer.code == 0
    assert answer.err == "warning: light lamp0: the object is black under it: left out; did it burn?\n"
    maps = read_exr(tmp_path / "o" / "normals.exr")
    found = np.stack([maps[f"N.{axis}"] for axis in "XYZ"], axis=-1)
    assert np.nanmax(angle_deg(found, landscape())) < 0.1


def test_a_soft_mask_is_cut_in_its_middle(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    assert cv2.imwrite(str(tmp_path / "m.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert np.count_nonzero(cv2.imread(str(tmp_path / "m.jpg"), 0)) > 400  # it rings
    assert reconstructing.read_mask(tmp_path / "m.jpg", mask.shape).sum() == 400
    for value in (1, 7, 255):  # whatever white is
        assert cv2.imwrite(str(tmp_path / "m.png"), (mask > 0) * np.uint8(value))
        assert reconstructing.read_mask(tmp_path / "m.png", mask.shape).sum() == 400


def test_a_folder_is_no_mask(solve, tmp_path):
    refused(solve("--mask", tmp_path), "is a folder, want a mask image", code=2)


def test_a_mask_too_narrow_for_a_mesh_leaves_nothing(solve, tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30, 5:60] = 255
    cv2.imwrite(str(tmp_path / "line.png"), mask)
    refused(solve("--mask", tmp_path / "line.png"), "no triangle", code=4)
    assert not (tmp_path / "out").exists()


def test_a_mask_inside_out_is_told(gnomon, tmp_path):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = np.hypot(y - HEIGHT / 2, x - WIDTH / 2) < 0.35 * HEIGHT
    for name, light in zip(NAMES, TOWARDS, strict=True):
        shade = np.clip(landscape() @ (light * Y_UP), 0, None) * np.where(disc, 1.0, 0.1)
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.rint(50_000 * shade).astype(np.uint16))
    session = tmp_path / "s"
    import_lp(listed(tmp_path / "l.lp", TOWARDS), session, assume_linear=True)
    for name, mask in (("right", disc), ("over", ~disc), ("whole", disc | True)):
        cv2.imwrite(str(tmp_path / "mask.png"), np.uint8(mask) * 255)
        options = ("--lights", tmp_path / "l.lp", "--method", "robust", "--mask", tmp_path / "mask.png")
        answer = gnomon("reconstruct", session, *options, "--out", tmp_path / name)
        assert answer.code == 0
        assert ("turned inside out?" in answer.err) == (name == "over")


def test_results_do_not_go_among_the_frames_of_a_session(solve, coin):
    before = sorted((coin / "s").rglob("*"))
    refused(solve(out=coin / "s"), "is a session", "another folder", code=2)
    assert sorted((coin / "s").rglob("*")) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_no_half_result(solve, tmp_path, monkeypatch, earlier):
    if earlier:
        assert solve().code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(reconstructing.files, "write_ply", full)
    refused(solve(), str(tmp_path / "out"), "No space left on device", code=2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "out").exists() == earlier


def test_a_full_disk_names_the_file_and_not_the_temporary_one(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as said:
        write_bytes(tmp_path / "a.json", b"{}")
    assert said.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_is_told_before_the_work(solve, tmp_path):
    (tmp_path / "file").write_text("")
    refused(solve(out=tmp_path / "file" / "out"), f"{tmp_path / 'file'}: is a file, want a folder", code=2)


def test_the_result_keeps_its_session_and_its_doubts(solve, tmp_path, coin):
    assert solve(lights=listed(tmp_path / "over.lp", TOWARDS * [1, -1, 1])).code == 0
    about = read_exr_attributes(tmp_path / "out" / "normals.exr")
    assert about["session"] in about["provenance"]
    page = report_directory(tmp_path / "out", tmp_path / "new" / "r.html").read_text()
    assert f"session {about['session']}" in page
    assert "only with y or x turned over" in page


def test_a_report_holds_the_normals_against_given_ones(solve, gnomon, tmp_path):
    assert solve().code == 0
    true = landscape().astype(np.float32)
    for name, size in (("given.exr", true), ("other.exr", true[1:])):
        write_exr(tmp_path / name, {f"N.{axis}": size[..., i] for i, axis in enumerate("XYZ")})
    assert "Error of the normals" not in report_directory(tmp_path / "out", tmp_path / "a.html").read_text()
    answer = gnomon(
        "report", tmp_path / "out", "--truth", tmp_path / "given.exr", "--out", tmp_path / "b.html"
    )
    assert (answer.code, answer.err) == (0, "")
    page = (tmp_path / "b.html").read_text()
    assert "Against the truth: mean 0.0" in page
    assert "No numbers were measured" not in page
    numbers = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert [row["quantity"] for row in numbers] == [
        f"normals of out, {what} error" for what in ("mean", "median")
    ]
    assert all(0 < row["value"] < 0.1 for row in numbers)  # degrees; 16 bits: 0.001
    for wrong, said in (("other.exr", "72 x 59 px, as no surface"), ("no.exr", "no.exr")):
        answer = gnomon("report", tmp_path / "out", "--truth", tmp_path / wrong, "--out", tmp_path / "c.html")
        refused(answer, said, code=2)
        assert not (tmp_path / "c.html").exists()


def test_names_of_lights_that_stand_close_cover_neither_each_other_nor_a_light():
    places = np.array([[0.0, 0.0], [3.0, 1.0], [-2.0, 2.0], [0.5, -40.0], [80.0, 80.0]])
    with drawing(4, 4, 1) as (figure, axes):
        axes.set(xlim=(-90, 90), ylim=(90, -90))
        _names(axes, ["led01", "led02", "led03", "led04", "led05"], places, 6)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 5
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert not any(box.contains(*axes.transData.transform(at)) for box in boxes for at in places)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("export lights {lp} --format lp --suffix png --out {new}/a.lp", "--suffix 'png'"),
        ("export lights {none} --format lp --out {new}/a.lp", "none.json: holds no light"),
        ("export lights {near} --format lp --at 1,2,3 --out {new}/a.lp", "'led' stands at"),
        ("import lp {lp} {new}/s --images {new}/no", "no such folder of pictures"),
        ("reconstruct {s} --lights {none} --out {new}/o", "none.json: holds no light"),
    ],
)
def test_what_cannot_come_in_or_go_out(gnomon, coin, tmp_path, words, said):
    save_model(tmp_path / "none.json", LightSet(lights={}))
    near = {"led": NearLight(position_mm=(1.0, 2.0, 3.0))}
    save_model(tmp_path / "near.json", LightSet(lights=near))
    there = {path.stem: path for path in tmp_path.glob("*.json")}
    before = sorted(tmp_path.rglob("*"))
    places = {"lp": coin / "coin.lp", "s": coin / "s", "new": tmp_path} | there
    answer = gnomon(*(word.format(**places) for word in words.split()))
    refused(answer, said, code=2)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_an_export_leaves_out_or_does_not_use_is_told(gnomon, tmp_path):
    light = DistantLight(direction=(0.0, 0.0, -1.0), covariance=np.eye(2))
    save_model(tmp_path / "a.json", LightSet(lights={"led": light}))
    answer = gnomon(
        "export", "lights", tmp_path / "a.json", "--format", "lp", "--at", "0,0,9", "--out", tmp_path / "a.lp"
    )
    assert answer.code == 0
    assert answer.err.splitlines() == [
        "--at was not used: all lights are distant, alike from everywhere",
        "left out: the covariances, which lp has no place for",
    ]
