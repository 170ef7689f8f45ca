"""`gnomon undistort` and `gnomon export`: files in, files out; camera files of all formats as --lens."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml

from calibration import files
from calibration.cameras import CameraSet, RigCamera
from calibration.geometry import normalize
from calibration.lens import BrownConrady, KannalaBrandt, LensModel, pinhole_view, undistorter
from capture.frame import Frame
from capture.plan import CapturePlan
from capture.session import Session
from rigs.cli.app import _explain, app
from rigs.config import ConfigError
from rigs.interchange import read_cameras, read_lens
from rigs.workflows import paired_pictures

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WIDTH, HEIGHT = 96, 72
LENS = BrownConrady(
    width=WIDTH, height=HEIGHT, fx=80.0, fy=80.5, cx=47.0, cy=36.2, k1=-0.2, k2=0.05, p1=1e-3, p2=-5e-4,
    covariance=np.eye(12),
)  # fmt: skip
FISHEYE = KannalaBrandt(width=WIDTH, height=HEIGHT, fx=40.0, fy=40.0, cx=47.0, cy=36.2, k1=0.01)
CFA = [(33421, 3, 2, (2, 2)), (33422, 1, 4, (0, 1, 1, 2))]  # tags that such a TIFF must have
RNG = np.random.default_rng(2)


def picture(kind, *channels):
    smooth = cv2.GaussianBlur(RNG.random((HEIGHT, WIDTH, *channels)), (0, 0), 2)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (smooth * {"uint8": 255, "uint16": 65535, "float32": 10}[kind]).astype(kind)


@pytest.fixture
def lens(tmp_path):
    files.save_model(tmp_path / "lens.json", LENS)
    return tmp_path / "lens.json"


def run(*words):
    """Run the command line; a fault's line."""
    try:
        app([str(word) for word in words], standalone_mode=False)
    except Exception as error:
        if _explain(error) in (2, 4):
            return str(error)
        raise
    return ""


def test_pictures_keep_their_type(tmp_path, lens):
    gray16, rgb8, rgbf = picture("uint16"), picture("uint8", 3), picture("float32", 3)
    cv2.imwrite(str(tmp_path / "gray.png"), gray16)
    cv2.imwrite(str(tmp_path / "photo.jpg"), gray16 >> 8)
    tifffile.imwrite(tmp_path / "colour.tiff", rgb8, photometric="rgb")
    tifffile.imwrite(tmp_path / "floats.tif", rgbf, photometric="rgb")
    names = ("gray.png", "photo.jpg", "colour.tiff", "floats.tif")
    out = tmp_path / "out"
    assert not run(
        "undistort", *(tmp_path / n for n in names), "--lens", lens, "--out", out, "--view", "same"
    )
    by = undistorter(LENS, "same")
    written = sorted(path.name for path in out.iterdir())
    assert written == sorted(
        ["gray.png", "photo.png", "colour.tif", "floats.tif", "view.json", "view-valid.png"]
    )
    found = cv2.imread(str(out / "gray.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, by.image(gray16))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(tifffile.imread(out / "colour.tif"), by.image(rgb8))
    np.testing.assert_array_equal(tifffile.imread(out / "floats.tif"), by.image(rgbf))
    valid = cv2.imread(str(out / "view-valid.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(valid, by.valid * np.uint8(255))
    view = files.load_model(out / "view.json", LensModel)
    assert np.array_equal(view.parameters, by.view.parameters)
    assert view.covariance is None
    assert "lens.json" in view.provenance.note


def test_the_new_lens_serves_the_new_pictures(tmp_path, lens):
    cv2.imwrite(str(tmp_path / "a.png"), picture("uint8"))
    assert not run(
        "undistort", tmp_path / "a.png", "--lens", lens, "--out", tmp_path / "out", "--size", "50x40"
    )
    view = read_lens(tmp_path / "out" / "view.json")
    assert (view.width, view.height) == (50, 40)
    expected = pinhole_view(LENS, "crop", size=(50, 40))
    assert np.array_equal(view.parameters, expected.parameters)
    again = tmp_path / "again"
    new = tmp_path / "out"
    assert not run("undistort", new / "a.png", "--lens", new / "view.json", "--view", "same", "--out", again)
    before, after = (cv2.imread(str(folder / "a.png"), cv2.IMREAD_UNCHANGED) for folder in (new, again))
    np.testing.assert_array_equal(before, after)


def test_the_pinned_lens_serves(tmp_path, lens):
    raw = yaml.safe_load((CONFIGS / "rigs" / "dome.yaml").read_text())
    digest = hashlib.sha256(lens.read_bytes()).hexdigest()
    raw["calibrations"] = {"top": {"lens": {"path": "lens.json", "digest": digest}}}
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(raw))
    cv2.imwrite(str(tmp_path / "a.png"), gray := picture("uint16"))
    words = ("undistort", tmp_path / "a.png", "--rig", tmp_path / "rig.yaml", "--camera", "top")
    assert not run(*words, "--out", tmp_path / "out")
    found = cv2.imread(str(tmp_path / "out" / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, undistorter(LENS, "crop").image(gray))


def test_a_mask_stays_a_mask(tmp_path, lens):
    mask = np.where(picture("uint8") > 90, 255, 0).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    assert not run("undistort", tmp_path / "mask.png", "--lens", lens, "--out", tmp_path / "out")
    found = cv2.imread(str(tmp_path / "out" / "mask.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, undistorter(LENS, "crop").mask(mask) * np.uint8(255))


def test_radiance_keeps_channels_and_header(tmp_path, lens):
    value, sigma = picture("float32", 3), picture("float32", 3) + 0.1
    value[20:24, 30:34] = np.nan
    channels = {letter: value[..., n] for n, letter in enumerate("RGB")}
    channels |= {f"sigma.{letter}": sigma[..., n] for n, letter in enumerate("RGB")}
    channels["motion"] = np.where(value[..., 0] > 5, 2, 0)
    primaries = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
    about = {"units": "e-/s", "expTime": 0.5, "moved": [0.0, 0.25], "chromaticities": primaries}
    files.write_exr(tmp_path / "a.exr", channels, about)
    out = tmp_path / "out"
    assert not run("undistort", tmp_path / "a.exr", "--lens", lens, "--out", out)
    found, by = files.read_exr(out / "a.exr"), undistorter(LENS, "crop")
    assert set(found) == set(channels)
    np.testing.assert_array_equal(found["G"], by.image(value)[..., 1])
    np.testing.assert_allclose(found["sigma.B"], np.sqrt(by.variance(sigma**2))[..., 2], rtol=1e-6)
    assert set(np.unique(found["motion"])) == {0, 2}
    header = files.read_exr_attributes(out / "a.exr")
    assert (header["units"], header["expTime"], header["moved"]) == ("e-/s", 0.5, [0.0, 0.25])
    assert header["chromaticities"] == pytest.approx(primaries)
    assert "lens.json" in header["undistorted"]
    assert header["intrinsics"] == pytest.approx([by.view.fx, by.view.fy, by.view.cx, by.view.cy])


def test_normals_and_depth_of_a_reconstruction(tmp_path, lens):
    normal = normalize(np.array([0.3, -0.2, -1.0]))
    u, v = np.meshgrid(np.arange(float(WIDTH)), np.arange(float(HEIGHT)))
    rays = LENS.unproject(np.stack([u, v], axis=-1))
    depth = -400 / (rays @ normal) * rays[..., 2]
    channels = {f"N.{axis}": np.full((HEIGHT, WIDTH), normal[i]) for i, axis in enumerate("XYZ")}
    channels |= {"sigma": np.full((HEIGHT, WIDTH), 0.5), "lights": np.full((HEIGHT, WIDTH), 7.0)}
    files.write_exr(tmp_path / "normals.exr", channels)
    files.write_exr(tmp_path / "depth.exr", {"Z": depth}, {"units": "mm"})
    out = tmp_path / "out"
    assert not run(
        "undistort", tmp_path / "normals.exr", tmp_path / "depth.exr", "--lens", lens, "--out", out
    )
    found = files.read_exr(out / "normals.exr")
    for i, axis in enumerate("XYZ"):
        np.testing.assert_allclose(found[f"N.{axis}"], normal[i], atol=1e-6)
    assert set(np.unique(found["lights"])) == {7}
    assert 0.24 < found["sigma"].min() < found["sigma"].max() < 0.5001
    view = read_lens(out / "view.json")
    new = view.unproject(np.stack([u, v], axis=-1))
    expected = -400 / (new @ normal) * new[..., 2]
    assert (
        np.abs(files.read_exr(out / "depth.exr")["Z"] / expected - 1).max() < 2e-5
    )  # values themselves: 3e-5
    files.write_exr(tmp_path / "depth.exr", {"Z": depth}, {"units": "px"})
    assert "depth in px" in run(
        "undistort", tmp_path / "depth.exr", "--lens", lens, "--out", tmp_path / "two"
    )
    files.write_exr(tmp_path / "half.exr", {"N.X": depth})
    assert "want all or none" in run(
        "undistort", tmp_path / "half.exr", "--lens", lens, "--out", tmp_path / "two"
    )


# ---------------------------------------------------------------- sessions, pairs


def session_of(path, shots, pixel_format="Mono16"):
    """A session of one frame for each camera, of these pictures."""
    plan = CapturePlan.model_validate(
        {
            "name": "pictures",
            "blocks": [
                {"kinds": "object", "pose": "x", "cameras": list(shots), "bracket": {"exposures_s": 0.1}}
            ],
        }
    )
    new = Session.create(path, plan, {})
    with new.writer() as writer:
        for shot in new.pending():
            frame = Frame(
                dn=shots[shot.camera], pixel_format=pixel_format, exposure_s=0.1, gain_db=0.0,
                frame_id=shot.index, timestamp_ns=shot.index,
            )  # fmt: skip
            writer.put(shot, frame)
    new.finish()
    return path


def test_frames_of_a_session(tmp_path, lens):
    gray = picture("uint16")
    session = session_of(tmp_path / "session", {"top": gray})
    assert not run("undistort", session, "--lens", lens, "--out", tmp_path / "out")
    found = tifffile.imread(tmp_path / "out" / "000000.tif")
    np.testing.assert_array_equal(found, undistorter(LENS, "crop").image(gray))
    raw = session_of(tmp_path / "raw", {"top": gray}, "BayerRG16")
    said = run("undistort", raw, "--lens", lens, "--out", tmp_path / "two")
    assert "raw mosaics (BayerRG16)" in said
    assert "gnomon merge" in said


def stereo():
    """Two cameras side by side, somewhat turned, of different lenses."""
    return CameraSet(
        cameras={
            "left": RigCamera(lens=LENS),
            "right": RigCamera(
                lens=LENS.replace(fx=82.0, fy=82.0, k1=-0.15, covariance=None),
                rotvec_rad=(0.02, -0.05, 0.03), t_mm=(-60.0, 2.0, 1.0),
            ),
        },
        reference="left",
    )  # fmt: skip


def scene(camera, normal, offset):
    """Picture of a plane with a smooth pattern on it."""
    u, v = np.meshgrid(np.arange(float(WIDTH)), np.arange(float(HEIGHT)))
    rays = camera.lens.unproject(np.stack([u, v], axis=-1)) @ camera.rotation
    centre = camera.centre_mm
    points = centre + rays * ((offset - centre @ normal) / (rays @ normal))[..., None]
    waves = np.sin(points[..., 0] / 25) + np.cos(points[..., 1] / 30 + points[..., 0] / 60)
    return ((waves + 2) / 4 * 60000).astype(np.uint16)


def test_a_rectified_pair_has_common_rows(tmp_path, capsys):
    cameras = stereo()
    files.save_model(tmp_path / "cameras.json", cameras)
    # A plane that both views see at one depth: the pictures then differ by a shift along the rows.
    from calibration.cameras import rectify

    pair = rectify(cameras, "left", "right", view="same")
    normal = pair.left.rotation[2]
    depth = 500.0
    shots = {name: scene(camera, normal, depth) for name, camera in cameras.cameras.items()}
    session = session_of(tmp_path / "session", shots)
    out = tmp_path / "out"
    words = ("--cameras", tmp_path / "cameras.json", "--pair", "left,right", "--view", "same", "--out", out)
    assert not run("undistort", session, *words)
    assert "baseline 60.0417 mm; a scene point lies in one row of both pictures" in capsys.readouterr().out
    left, right = (tifffile.imread(next(out.glob(f"{n}-*.tif"))).astype(float) for n in ("left", "right"))
    one, other = (files.load_model(out / f"{n}-view.json", LensModel) for n in ("left", "right"))
    disparity = one.fx * pair.baseline_mm / depth + one.cx - other.cx
    u = np.arange(20, 76) - disparity
    valid = [
        cv2.imread(str(out / f"{n}-view-valid.png"), cv2.IMREAD_UNCHANGED) > 0 for n in ("left", "right")
    ]
    both = valid[0][:, 20:76] & valid[1][:, np.floor(u).astype(int)] & valid[1][:, np.ceil(u).astype(int)]
    shifted = np.stack([np.interp(u, np.arange(WIDTH), row) for row in right])
    assert both.mean() > 0.7
    # Twice bilinear on waves of some 4 px / rad: 2 / 8 / 4^2 of 60000 / 2 at most, on average far less.
    assert np.abs(shifted - left[:, 20:76])[both].max() < 500
    # A row off is a difference of thousands.
    assert np.abs(shifted[1:] - left[:-1, 20:76])[both[1:] & both[:-1]].max() > 2000
    single = tmp_path / "one.png"
    cv2.imwrite(str(single), shots["right"])
    assert "which camera took" in run("undistort", single, *words)
    assert not run("undistort", single, *words[:-1], tmp_path / "three", "--camera", "right")
    found = cv2.imread(str(tmp_path / "three" / "right-one.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, right.astype(np.uint16))
    normals = {
        f"N.{axis}": np.full((HEIGHT, WIDTH), value) for axis, value in zip("XYZ", -normal, strict=True)
    }
    files.write_exr(tmp_path / "n.exr", normals, {"frame": "camera: x right"})
    assert not run("undistort", tmp_path / "n.exr", *words[:-1], tmp_path / "four", "--camera", "left")
    turned = files.read_exr(tmp_path / "four" / "left-n.exr")
    # The plane faces the rectified view.
    assert np.nanmax(np.abs(turned["N.Z"] + 1)) < 1e-6
    assert files.read_exr_attributes(tmp_path / "four" / "left-n.exr")["frame"].startswith("view: ")
    assert "not of the pair" in run("undistort", single, *words, "--camera", "top")
    assert "want two of left, right" in run("undistort", single, *words[:3], "left,top", *words[4:])
    assert "right, left cannot" in (
        said := run("undistort", single, *words[:3], "right,left", *words[4:])
    ) or ("name them in turn" in said)


def test_pictures_of_a_pair_keep_their_camera_in_their_names(tmp_path):
    """Both cameras' pictures have the same names, and come into one folder."""
    files.save_model(tmp_path / "cameras.json", stereo())
    words = ("--cameras", tmp_path / "cameras.json", "--pair", "left,right", "--out", tmp_path / "out")
    for camera in ("left", "right"):
        (tmp_path / camera).mkdir()
        cv2.imwrite(str(tmp_path / camera / "v00.png"), picture("uint8"))
        assert not run("undistort", tmp_path / camera / "v00.png", *words, "--camera", camera)
    want = [f"{c}-{name}" for c in ("left", "right") for name in ("v00.png", "view-valid.png", "view.json")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == want


def test_frames_of_a_pair_are_numbered_by_what_was_taken_at_once(tmp_path):
    """The cameras' frames lie one after the other in the session; the right one's second was not had."""
    cameras = {"left": ("a0", "a1", "a2"), "top": ("t0",), "right": ("b0", "b1", "b2")}
    blocks = [
        {"kinds": "object", "pose": list(poses), "cameras": camera, "bracket": {"exposures_s": [0.1, 0.2]}}
        for camera, poses in cameras.items()
    ]
    new = Session.create(
        tmp_path / "session", CapturePlan.model_validate({"name": "two", "blocks": blocks}), {}
    )
    with new.writer() as writer:
        for shot in new.pending():
            if (shot.pose, shot.exposure_s) == ("b1", 0.1):
                writer.skip(shot, "lost")
                continue
            dn = np.full((HEIGHT, WIDTH), 100 * int(shot.pose[1]) + round(10 * shot.exposure_s), np.uint16)
            frame = Frame(
                dn=dn, pixel_format="Mono16", exposure_s=shot.exposure_s, gain_db=0.0,
                frame_id=shot.index, timestamp_ns=shot.index,
            )  # fmt: skip
            writer.put(shot, frame)
    new.finish()
    for camera, numbers in (("left", range(6)), ("right", (0, 1, 3, 4, 5))):
        found = list(paired_pictures(Session.open(new.path), ("left", "right"), camera))
        assert [one.name for one in found] == [f"{number:02}" for number in numbers]
        for one, number in zip(found, numbers, strict=True):
            assert np.all(one.image == 100 * (number // 2) + 1 + number % 2)


# ---------------------------------------------------------------- faults


def test_faults_name_the_file_and_leave_nothing_half(tmp_path, lens):
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), picture("uint8")[:50])
    good = tmp_path / "good.png"
    cv2.imwrite(str(good), picture("uint8"))
    out = tmp_path / "out"
    said = run("undistort", good, small, "--lens", lens, "--out", out)
    assert "small.png: is 96 x 50 px, the lens model is of 96 x 72" in said
    assert not out.exists()
    other = tmp_path / "elsewhere"
    other.mkdir()
    cv2.imwrite(str(other / "good.png"), picture("uint8"))
    assert "is that of" in run("undistort", good, other / "good.png", "--lens", lens, "--out", out)
    assert "would be written over" in run("undistort", good, "--lens", lens, "--out", tmp_path)
    (tmp_path / "text.png").write_text("text")
    assert "text.png" in run("undistort", tmp_path / "text.png", "--lens", lens, "--out", out)
    tifffile.imwrite(tmp_path / "raw.tif", picture("uint16"), photometric=32803, extratags=CFA)
    assert "raw.tif: is a raw mosaic" in run("undistort", tmp_path / "raw.tif", "--lens", lens, "--out", out)
    assert "is a folder without a session" in run("undistort", other, "--lens", lens, "--out", out)
    empty = tmp_path / "empty"
    assert "small.png: is 96" in run("undistort", small, "--lens", lens, "--out", empty)
    assert not empty.exists()
    assert "none.png: no such file" in run("undistort", tmp_path / "none.png", "--lens", lens, "--out", out)
    assert "none.exr: no such file" in run("undistort", tmp_path / "none.exr", "--lens", lens, "--out", out)
    assert "no lens model" in run("undistort", good, "--out", out)
    for size in ("big", "nanx5", "-9x9", "0x9", "9" * 400 + "x40"):
        assert "want WIDTHxHEIGHT" in run("undistort", good, "--lens", lens, "--out", out, f"--size={size}")
    assert "no cameras: give" in run("undistort", good, "--out", out, "--pair", "a,b")
    assert "is for --pair" in run("undistort", good, "--out", out, "--cameras", lens)
    files.save_model(tmp_path / "fish.json", FISHEYE.replace(fx=20.0, fy=20.0))
    said = run("undistort", good, "--lens", tmp_path / "fish.json", "--view", "keep-all", "--out", out)
    assert "150 degrees" in said


def test_the_lens_in_use_is_not_written_over(tmp_path):
    lens = tmp_path / "view.json"
    files.save_model(lens, LENS)
    before = lens.read_bytes()
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), picture("uint8"))
    said = run("undistort", tmp_path / "in" / "a.png", "--lens", lens, "--out", tmp_path)
    assert "view.json: would be written over" in said
    assert lens.read_bytes() == before


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("opencv", "a.yml"),
        ("opencv", "a.xml.yaml"),
        ("ros", "a.yaml"),
        ("kalibr", "a.yaml"),
        ("mrcal", "a.cameramodel"),
        ("colmap", "cameras.txt"),
        ("gnomon", "a.json"),
    ],
)
def test_every_format_serves_as_lens(tmp_path, lens, capsys, form, name):
    out = tmp_path / "to" / name
    assert not run("export", "lens", lens, "--format", form, "--out", out)
    said = capsys.readouterr()
    assert str(out) in said.out
    assert ("covariance" in said.err) == (form != "gnomon")
    np.testing.assert_allclose(read_lens(out).parameters, LENS.parameters, rtol=1e-14)
    cv2.imwrite(str(tmp_path / "a.png"), picture("uint8"))
    assert not run("undistort", tmp_path / "a.png", "--lens", out, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("form", "name", "ends"),
    [
        ("opencv", "q.txt", ".yml or .yaml"),
        ("opencv", "q", ".yml or .yaml"),
        ("ros", "q.json", ".yaml or .yml"),
        ("kalibr", "q.xml", ".yaml or .yml"),
        ("mrcal", "q.yaml", ".cameramodel"),
        ("colmap", "q.cameramodel", ".txt"),
        ("gnomon", "q.yaml", ".json"),
    ],
)
def test_a_file_that_would_not_be_read_again_is_not_written(tmp_path, lens, form, name, ends):
    out = tmp_path / "to" / name
    said = run("export", "lens", lens, "--format", form, "--out", out)
    assert said == f"{out}: {form}: want a file that ends in {ends}"
    assert not out.parent.exists()


def test_a_model_without_its_sidecar_says_so(tmp_path, lens):
    copy = tmp_path / "b.json"
    copy.write_bytes(lens.read_bytes())
    sidecar = lens.with_suffix(".npz").name
    (tmp_path / sidecar).unlink()
    said = run("export", "lens", copy, "--format", "opencv", "--out", tmp_path / "q.yml")
    assert said == f"{tmp_path / sidecar}: missing; it holds the arrays of b.json"


def test_a_fisheye_goes_through_the_formats_that_have_it(tmp_path):
    files.save_model(tmp_path / "fish.json", FISHEYE)
    for form, name in (("opencv", "a.yml"), ("ros", "b.yaml"), ("kalibr", "c.yaml"), ("colmap", "d.txt")):
        assert not run("export", "lens", tmp_path / "fish.json", "--format", form, "--out", tmp_path / name)
        back = read_lens(tmp_path / name)
        assert isinstance(back, KannalaBrandt)
        np.testing.assert_allclose(back.parameters, FISHEYE.parameters, rtol=1e-14)
    out = tmp_path / "e.cameramodel"
    said = run("export", "lens", tmp_path / "fish.json", "--format", "mrcal", "--out", out)
    assert said == f"{out}: mrcal has no kannala-brandt lens: fit another model, or choose another format"
    assert not out.exists()


def test_several_cameras(tmp_path, capsys):
    cameras = stereo()
    files.save_model(tmp_path / "cameras.json", cameras)
    chain = tmp_path / "chain.yaml"
    assert not run("export", "cameras", tmp_path / "cameras.json", "--format", "kalibr", "--out", chain)
    back = read_cameras(chain)
    np.testing.assert_allclose(back.cameras["cam1"].t_mm, (-60.0, 2.0, 1.0), atol=1e-9)
    assert np.array_equal(
        read_lens(tmp_path / "chain.yaml#cam1").parameters, cameras.cameras["right"].lens.parameters
    )
    assert read_lens(tmp_path / "cameras.json#right").fx == 82
    for name, message in (
        ("chain.yaml", "holds cameras cam0, cam1: name one, as chain.yaml#cam0"),
        ("chain.yaml#cam7", "no camera 'cam7'; it has cam0, cam1"),
        ("none.yaml#cam0", "no such file"),
        ("cameras.doc", "want a file that ends in"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_lens(tmp_path / name)
    folder = tmp_path / "mrcal"
    assert not run("export", "cameras", chain, "--format", "mrcal", "--out", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["cam0.cameramodel", "cam1.cameramodel"]
    np.testing.assert_allclose(
        files.read_mrcal(folder / "cam1.cameramodel").t_mm, (-60.0, 2.0, 1.0), atol=1e-9
    )
    assert not run("export", "cameras", chain, "--format", "colmap", "--out", tmp_path / "cameras.txt")
    assert "poses" in capsys.readouterr().err
    assert read_lens(tmp_path / "cameras.txt#2").fx == 82


def test_ros_is_told_from_opencv(tmp_path):
    matrix = "camera_matrix:\n  data: [80., 0., 47., 0., 80., 36., 0., 0., 1.]\n"
    text = f"image_width: 96\nimage_height: 72\n{matrix}"
    (tmp_path / "a.yaml").write_text(text + "dist_coeffs: [0.1, 0., 0., 0.]\n")
    assert read_lens(tmp_path / "a.yaml").k1 == 0.1
    ros = "distortion_model: equidistant\ndistortion_coefficients:\n  data: [1e-05, 0., 0., 0.]\n"
    (tmp_path / "b.yaml").write_text(text + ros)
    assert read_lens(tmp_path / "b.yaml").k1 == 1e-5
    assert isinstance(read_lens(tmp_path / "b.yaml"), KannalaBrandt)
