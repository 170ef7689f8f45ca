"""From pictures of a ColorChecker to pictures in linear Rec.709, on the twin of the shipped copy stand."""

import re
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import simulated_small
import yaml

from calibration import files
from calibration.colour import CLASSIC_2014, ColourModel, delta_e_2000
from calibration.colour.spaces import ILLUMINANTS, adaptation, rgb_to_xyz, xyz_to_lab
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.targets.chart import find_charts
from capture.plan import CapturePlan
from capture.session import Session
from rigs import workflows
from rigs.config import ConfigError, load_plan, load_rig
from rigs.report.directory import report_directory
from rigs.simulated import load_truth
from rigs.simulated.chart import patch_colours
from rigs.simulated.emission import Drive
from rigs.simulated.renderer import Renderer
from rigs.simulated.truth import Truth

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WHITE = CLASSIC_2014.illuminant


@pytest.fixture(scope="module")
def truth() -> Truth:
    return load_truth(CONFIGS / "truths/copy-stand.yaml")


@pytest.fixture(scope="module")
def camera(truth) -> np.ndarray:
    return np.array(truth.cameras["top"].sensor.colour_matrix)


@pytest.fixture(scope="module")
def session(tmp_path_factory, truth) -> Session:
    """The shipped plan on the twin of the shipped stand."""
    rig = load_rig(CONFIGS / "rigs/copy-stand.yaml")
    plan = load_plan(CONFIGS / "plans/copy-stand-chart.yaml")
    return workflows.capture_session(rig, plan, tmp_path_factory.mktemp("stand") / "s", simulate=truth)


@pytest.fixture(scope="module")
def model(session) -> ColourModel:
    return workflows.calibrate_colour(session, white="white")


def taken(tmp_path: Path, truth: Truth, blocks: list[dict], **camera) -> Session:
    """A session of the stand with other blocks; ``camera`` changes its pixel format."""
    raw = yaml.safe_load((CONFIGS / "rigs/copy-stand.yaml").read_text())
    raw["cameras"]["top"] |= camera
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(raw))
    plan = CapturePlan.model_validate({"name": "t", "blocks": blocks})
    return workflows.capture_session(load_rig(tmp_path / "rig.yaml"), plan, tmp_path / "s", simulate=truth)


def block(kind: str, pose: str, exposure_s: float = 0.02, **more) -> dict:
    lights = {} if kind in ("dark", "ambient") else {"lights": {"names": ["lamps"]}}
    bracket = {"exposures_s": [exposure_s]}
    return {"kinds": kind, "pose": pose, "cameras": ["top"], "bracket": bracket, **lights, **more}


def test_twin_shows_the_published_chart_through_the_camera():
    matrix = ((0.55, 0.3, 0.05), (0.2, 0.75, 0.15), (0.05, 0.2, 0.45))
    eye = simulated_small.camera(300, 200, 480, sensor={"colour": "rgb", "colour_matrix": matrix})
    things = [
        {"kind": "chart", "pitch_mm": 25, "translation_mm": [-75, -50, 420], "rotvec_deg": [8, -12, 15]},
        {"kind": "plane", "translation_mm": [0, 0, 520], "albedo": 0.3},
    ]
    lights = {"sun": {"kind": "distant", "direction": [0.2, -0.3, -1], "intensity": 1e5}}
    image = Renderer(simulated_small.truth(things, eye=eye, lights=lights)).rate(
        "scene", {"sun": Drive(1.0)}, "cam", 0.01, "key"
    )
    (view,) = find_charts(image)
    # one flat chart under one far light: the same shading everywhere
    seen = view.mean @ np.linalg.inv(matrix).T
    shading = seen[18, 1] / patch_colours()[18, 1]
    np.testing.assert_allclose(seen / shading, patch_colours(), atol=1e-4)


def test_matrix_of_the_twin_is_found(model, camera):
    assert model.mean_delta_e < 0.1
    assert model.max_delta_e < 0.3
    assert model.cross_validated_delta_e < 0.15
    # what comes out of camera colours is the scene again, but for the level of the light
    whole = np.asarray(model.matrix)[:, :3] * model.white_balance @ camera
    assert model.covariance is not None
    sigma = np.sqrt(np.diag(model.covariance)).reshape(3, -1)[:, :3] @ np.abs(camera)
    off = whole / np.trace(whole) * 3 - np.eye(3)
    assert np.all(np.abs(off) < 5 * sigma + 1e-3)
    # a neutral surface under the lamps: R, G, B as the rows of the camera's matrix add up
    rows = camera.sum(axis=1)
    np.testing.assert_allclose(model.white_balance, rows[1] / rows, rtol=0.003)
    assert model.quality is not None
    assert (model.quality.verdict, model.quality.warnings) == ("good", ())


def test_uneven_light_is_told_and_mended_by_a_white_board(session, model):
    plain = workflows.calibrate_colour(session)
    assert plain.quality is not None
    (warning,) = plain.quality.warnings
    assert re.match(r"the light varies by \d+% over the chart.*--white", warning)
    assert plain.quality.verdict == "doubtful"
    # vignetting and cos^4 of the lens: the chart's corners against its middle, about a tenth
    assert plain.unevenness == pytest.approx(0.10, abs=0.03)
    assert model.unevenness is not None
    assert model.unevenness < 0.02
    assert model.mean_delta_e < 0.2 * plain.mean_delta_e


def test_report_shows_the_chart(session, model, tmp_path):
    left_out = model.patches[3].__class__(
        name="foliage", reference=model.patches[3].reference, fault="clipped"
    )
    patches = (*model.patches[:3], left_out, *model.patches[4:])
    files.save_model(tmp_path / "colour.json", model.replace(patches=patches))
    page = report_directory(tmp_path, tmp_path / "report.html").read_text("utf-8")
    assert "<h2" in page
    for words in ("Colour", "ΔE2000 left out", "linear Rec.709", "bluish green", "clipped", "White balance"):
        assert words in page
    assert page.count("data:image/png") == 3


def gnomon(monkeypatch, capfd, *words):
    from rigs import cli

    monkeypatch.setattr("sys.argv", ["gnomon", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capfd.readouterr()


def test_commands_give_pictures_in_rec709(session, truth, tmp_path, monkeypatch, capfd):
    colour = tmp_path / "colour.json"
    code, said = gnomon(
        monkeypatch, capfd, "calibrate", "colour", session.path, "--white", "white", "--out", colour
    )
    assert (code, said.err) == (0, "")
    assert re.search(r"CIEDE2000 of the chart: mean 0\.0\d, greatest 0\.\d\d", said.out)
    merge = ("merge", session.path, "--no-motion", "--out")
    code, said = gnomon(monkeypatch, capfd, *merge, tmp_path / "out", "--colour", colour)
    assert code == 0, said.err
    picture = tmp_path / "out" / "chart-lamps.exr"
    with OpenEXR.File(str(picture)) as file:
        header = dict(file.header())
    assert np.array(header["chromaticities"]) == pytest.approx(
        [0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290], abs=1e-6
    )
    assert header["colourSpace"].startswith("linear Rec.709")
    # without a sensor model the unit of the picture is its own
    assert "whiteLevel" not in header
    # the picture itself shows the chart's colours; vignetting is still in it
    planes = files.read_exr(picture)
    image = np.stack([planes[c] for c in "RGB"], axis=-1)
    inside = [
        image[slice(*np.sort(q[:, 1])[[1, 2]].astype(int)), slice(*np.sort(q[:, 0])[[1, 2]].astype(int))]
        for q in find_charts(image)[0].quads
    ]
    mean = np.array([np.nanmedian(part.reshape(-1, 3), axis=0) for part in inside])
    mean *= patch_colours()[18, 1] / mean[18, 1]
    to_xyz = adaptation(ILLUMINANTS["D65"], WHITE) @ rgb_to_xyz()
    assert delta_e_2000(CLASSIC_2014.lab, xyz_to_lab(mean @ to_xyz.T, WHITE)).mean() < 2.5
    # without a colour model nothing is claimed
    code, said = gnomon(monkeypatch, capfd, *merge, tmp_path / "raw")
    with OpenEXR.File(str(tmp_path / "raw" / "chart-lamps.exr")) as file:
        header = dict(file.header())
    assert header["colourSpace"].startswith("camera RGB")
    assert "chromaticities" not in header
    # the sigma went through balance and matrix, whose parts against cross-talk make it larger
    raw = files.read_exr(tmp_path / "raw" / "chart-lamps.exr")
    model = files.load_model(colour, ColourModel)
    linear = model.matrix * np.array(model.white_balance)
    sigma = np.sqrt(sum((linear[0, k] * raw[f"sigma.{c}"]) ** 2 for k, c in enumerate("RGB")))
    assert np.nanmedian(planes["sigma.R"] / sigma) == pytest.approx(1, abs=1e-3)
    assert np.nanmedian(planes["sigma.R"] / raw["sigma.R"]) > 1


def test_luminance_of_a_patch_is_that_of_rec709(session, truth, tmp_path):
    known = truth.cameras["top"].sensor
    sensor = RadiometricModel(
        width=720, height=480, pixel_format=known.pixel_format, black_dn=known.black_dn,
        gain_dn_per_e=known.gain_dn_per_e, read_noise_e=known.read_noise_e,
        dark_current_e_s=known.dark_current_e_s, saturation_dn=4095,
    )  # fmt: skip
    model = workflows.calibrate_colour(session, sensor=sensor, white="white")
    # 1e6 e-/s on a surface turned away from the light, of which the camera's green sees 0.96
    slant = np.array([-0.35, -0.45, -1]) / np.linalg.norm([-0.35, -0.45, -1])
    assert model.white_level == pytest.approx(1e6 * -slant[2] * 0.96, rel=0.05)
    told = workflows.parse_luminance("white-lamps:360,240,20,20=118")
    merged = workflows.merge_session(
        session, tmp_path, sensor=sensor, luminance=told, colour=model, motion=False
    )
    picture, record = next(one for one in merged if one.record.picture == "white-lamps")
    planes = files.read_exr(picture)
    rgb = np.stack([planes[c][240:260, 360:380] for c in "RGB"], axis=-1)
    assert (rgb @ rgb_to_xyz()[1]).mean() == pytest.approx(118, rel=1e-5)
    with OpenEXR.File(str(picture)) as file:
        header = dict(file.header())
    assert header["scaleOf"] == "luminance"
    assert header["whiteLevel"] == pytest.approx(model.white_level * record.scale, rel=1e-6)


# --- what cannot be


def test_no_chart_and_how_to_go_on(tmp_path, truth):
    empty = taken(tmp_path, truth, [block("dark", "cap", 0.01), block("chart", "white")])
    with pytest.raises(FitError, match=r"no ColorChecker found.*--corners"):
        workflows.calibrate_colour(empty)
    (tmp_path / "none").mkdir()
    without = taken(tmp_path / "none", truth, [block("object", "white")])
    with pytest.raises(FitError, match="has no 'chart' frames"):
        workflows.calibrate_colour(without)


def test_corners_by_hand(session, model):
    assert model.corners is not None
    rough = np.add(model.corners, [[6, -5], [-5, 6], [4, 5], [-6, -4]])
    text = " ".join(f"{x:.0f},{y:.0f}" for x, y in rough)
    by_hand = workflows.calibrate_colour(session, white="white", corners=workflows.parse_corners(text))
    np.testing.assert_allclose(by_hand.corners, model.corners, atol=1)
    assert by_hand.mean_delta_e < 0.1
    with pytest.raises(FitError, match="no row of six greys"):
        workflows.calibrate_colour(session, corners=workflows.parse_corners("5,5 60,5 60,50 5,50"))
    for wrong in ("1,2 3,4", "a,b c,d e,f g,h", "1,2,3 4,5 6,7 8,9", "nan,1 2,3 4,5 6,7", ""):
        with pytest.raises(ConfigError, match="want four points"):
            workflows.parse_corners(wrong)


def test_overexposed_patches_are_named_then_refused(tmp_path, truth):
    darks = block("dark", "cap", 0.01)
    (tmp_path / "a").mkdir()
    over = taken(tmp_path / "a", truth, [darks, block("chart", "chart", 0.06)])
    model = workflows.calibrate_colour(over)
    assert model.quality is not None
    assert re.match(r"patches left out: .*white \(clipped or missing\)", model.quality.warnings[0])
    (tmp_path / "b").mkdir()
    burnt = taken(tmp_path / "b", truth, [darks, block("chart", "chart", 1.0)])
    with pytest.raises(FitError, match=r"no ColorChecker found|patches can be used|greys can be used"):
        workflows.calibrate_colour(burnt)


def test_black_level_that_nobody_told_is_noticed(tmp_path, truth):
    dim = taken(tmp_path, truth, [block("chart", "chart", 0.02)])
    model = workflows.calibrate_colour(dim)
    assert model.quality is not None
    assert any("wrong black level" in warning for warning in model.quality.warnings)
    assert model.quality.verdict == "doubtful"


def test_mono_camera_is_refused(tmp_path, truth):
    sensor = truth.cameras["top"].sensor.replace(colour="mono", colour_matrix=None)
    cameras = {"top": truth.cameras["top"].replace(sensor=sensor)}
    grey = taken(tmp_path, truth.replace(cameras=cameras), [block("chart", "chart")], pixel_format="Mono12")
    with pytest.raises(FitError, match="one channel: a colour model wants RGB or Bayer"):
        workflows.calibrate_colour(grey)
    model = ColourModel(
        white_balance=(1, 1, 1), matrix=np.eye(3), white_level=1.0, illuminant=WHITE, reference="none",
        mean_delta_e=0, max_delta_e=0, cross_validated_delta_e=0,
    )  # fmt: skip
    with pytest.raises(FitError, match="no colour model fits"):
        list(workflows.merge_session(grey, tmp_path / "out", colour=model))


def test_gamma_encoded_frames_are_refused(tmp_path, truth):
    sensor = truth.cameras["top"].sensor.replace(response={"gamma": 2.2}, black_dn=0.0)
    cameras = {"top": truth.cameras["top"].replace(sensor=sensor)}
    encoded = taken(tmp_path, truth.replace(cameras=cameras), [block("chart", "chart")])
    with pytest.raises(FitError, match="not linear"):
        workflows.calibrate_colour(encoded)


def test_several_poses_want_a_choice(tmp_path, truth):
    both = taken(tmp_path, truth, [block("chart", "chart"), block("chart", "white")])
    with pytest.raises(FitError, match="poses chart, white: say which with --pose"):
        workflows.calibrate_colour(both)
    with pytest.raises(FitError, match="no frame under 'sun'"):
        workflows.calibrate_colour(both, pose="chart", light="sun")


def test_reference_of_the_options(tmp_path):
    assert workflows.chart_reference(None, "2014", None) is CLASSIC_2014
    with pytest.raises(ConfigError, match="published ones are for D50"):
        workflows.chart_reference(None, "2014", "D65")
    with pytest.raises(ConfigError, match="no such table"):
        workflows.chart_reference(tmp_path / "none.csv", "2014", None)
    (tmp_path / "own.csv").write_text("patch,L,a,b\n")
    with pytest.raises(ConfigError, match="illuminant 'D49'"):
        workflows.chart_reference(tmp_path / "own.csv", "2014", "D49")
