"""The chain on the mini rig: models within their bounds, and unmoved by what must not move them."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from itertools import islice

import conftest
import cv2
import numpy as np
import pytest
from scipy import stats

from calibration import files
from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.targets.boards import Charuco, Checkerboard
from capture.runner import run
from capture.session import Session, SessionError
from rigs import verify, workflows
from rigs.config import Calibrations, ConfigError, Pin, SphereTarget, load_plan, load_rig
from rigs.interchange import import_folder
from rigs.rig import open_rig

CAMERA = "top"


def missed(metrics):
    return [f"{m.quantity}: {m.value:.4g} {m.unit} (bound {m.bound})" for m in metrics if m.passed is False]


def judged(metrics):
    return sum(metric.bound is not None for metric in metrics)


# --- accuracy ----------------------------------------------------------------------------------------------


def test_sensor_within_bounds(mini, models, captured, twin):
    metrics = verify.sensor(models.sensor, mini.known, CAMERA)
    held_out = captured("sensor").stack(CAMERA).select(kind="object")
    metrics.append(verify.radiance(models.sensor, held_out, twin, CAMERA))
    assert judged(metrics) == 8
    assert not missed(metrics)


def test_lens_within_bounds_and_claimed_sigma(models, twin):
    metrics = verify.lens(models.lens, twin, CAMERA)
    assert judged(metrics) == 2
    assert not missed(metrics)
    true = twin.lens(CAMERA)
    names = ("fx", "fy", "cx", "cy")
    off = np.array([getattr(models.lens, name) - getattr(true, name) for name in names])
    distance = off @ np.linalg.solve(models.lens.covariance[:4, :4], off)
    assert distance < stats.chi2(4).ppf(0.9999)


def test_lights_within_bounds_and_claimed_sigma(models, twin):
    metrics = verify.lights(models.lights.lights, twin, CAMERA)
    assert tuple(models.lights.lights.lights) == conftest.LIGHTS
    assert judged(metrics) == 3
    assert not missed(metrics)
    (claimed,) = (metric.value for metric in metrics if "claimed sigma" in metric.quantity)
    # all lights share the four spheres' centres: 12 numbers, where the offsets have 36
    assert claimed**2 < stats.chi2(12).ppf(0.9999) / 12


def test_relief_within_bounds(mini, relief, twin):
    true = twin.maps("relief", CAMERA)
    where = (true.thing == 0) & (twin.lit_count("relief", CAMERA, relief.images.names) >= 4)
    bounds = mini.known.bounds
    error = verify.normal_errors(relief.reconstruction.normals, true.normals, where)
    metrics = verify.normals(error, where, "relief", bounds["normals_lambertian_deg"])
    off = verify.aligned_depth_error(relief.reconstruction.depth_mm, true.depth_mm, where)
    metrics += verify.depth(off, relief.reconstruction.depth_mm, true.depth_mm, "relief", bounds["depth_mm"])
    assert judged(metrics) == 2
    assert not missed(metrics)
    assert np.isfinite(error[where]).mean() > 0.99


# --- what must not matter ----------------------------------------------------------------------------------


def offsets_in_sigma(one: LightSet, other: LightSet, *, independent: bool) -> np.ndarray:
    """Mahalanobis distance squared of each light's position between two fits."""
    out = []
    for name, light in one.lights.items():
        twin_light = other.lights[name]
        assert isinstance(light, NearLight)
        assert isinstance(twin_light, NearLight)
        covariance = light.covariance + (twin_light.covariance if independent else 0)
        off = np.subtract(light.position_mm, twin_light.position_mm)
        out.append(off @ np.linalg.solve(covariance, off))
    return np.array(out)


def test_another_seed_gives_the_same_lights_within_noise(mini, models, tmp_path):
    session = mini.capture("lights", tmp_path / "lights", mini.known.replace(seed=99))
    again = conftest.calibrate_lights(mini, session, models.sensor, models.lens)
    assert session.digest != models.lights.lights.provenance.session
    squares = offsets_in_sigma(models.lights.lights, again.lights, independent=True)
    assert squares.max() > 0
    # all lights share the four spheres' centres: 12 numbers, where the offsets have 36
    assert squares.sum() / 36 < stats.chi2(12).ppf(0.9999) / 12


def test_order_of_the_lights_does_not_matter(mini, models, relief, captured, tmp_path):
    """The frames are the same, since noise belongs to the request; sums change in their last digits only."""
    order = np.random.default_rng(3).permutation(conftest.LIGHTS).tolist()

    def shuffled(name):
        data = conftest.plan_data(name)
        for block in data["blocks"]:
            if "lights" in block:
                block["lights"]["names"] = order
        plan = load_plan(conftest.dump(tmp_path / f"{name}.yaml", data))
        return workflows.capture_session(mini.config, plan, tmp_path / name, simulate=mini.known)

    session = shuffled("lights")
    hashes = [sorted(record.sha256 for record in each.frames) for each in (session, captured("lights"))]
    assert hashes[0] == hashes[1]
    lights = conftest.calibrate_lights(mini, session, models.sensor, models.lens).lights
    assert list(lights.lights) == order
    # a thousandth of a sigma: the fit stops where a step no longer lowers the cost, not at a number
    assert offsets_in_sigma(models.lights.lights, lights, independent=False).max() < 1e-3**2
    again = workflows.reconstruct(
        shuffled("relief"), models.lights.lights, sensor=models.sensor, lens=models.lens
    )
    one, other = relief.reconstruction.normals, again.reconstruction.normals
    both = one.valid & other.valid
    assert (one.valid == other.valid).mean() > 0.9999
    assert np.median(angle_deg(one.normals[both], other.normals[both]) / one.sigma_deg[both]) < 1e-2


_AGAIN = """
import sys
from pathlib import Path
import conftest
from rigs import workflows
from calibration import files

mini, out = conftest.MiniRig(Path(sys.argv[1])), Path(sys.argv[2])
sessions = {name: mini.capture(name, out / name) for name in ("sensor", "lens", "lights", "relief")}
print(*(sessions[name].digest for name in sorted(sessions)))
sensor, lens, lights = conftest.calibrate(mini, sessions.__getitem__)
result = workflows.reconstruct(sessions["relief"], lights.lights, sensor=sensor, lens=lens)
workflows.write_reconstruction(out / "result", result, sensor=sensor, lens=lens, lights=lights.lights)
"""


@pytest.mark.slow
def test_same_truth_gives_the_same_bytes_on_one_thread(mini, models, relief, captured, tmp_path):
    """Every session and every file made of it, in another process with another number of threads."""
    # `make test` gives each worker one thread of OpenBLAS: then the other process has two.
    blas = "2" if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else "1"
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": blas}
    environment["PYTHONPATH"] = os.path.dirname(conftest.__file__)
    done = subprocess.run(
        [sys.executable, "-c", _AGAIN, str(mini.folder), str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [captured(name).digest for name in ("lens", "lights", "relief", "sensor")]
    here = tmp_path / "here"
    workflows.write_reconstruction(
        here, relief, sensor=models.sensor, lens=models.lens, lights=models.lights.lights
    )
    made = sorted(path.relative_to(here) for path in here.rglob("*") if path.is_file())
    assert len(made) >= 5 + 3
    differing = [
        str(path) for path in made if (here / path).read_bytes() != (tmp_path / "result" / path).read_bytes()
    ]
    assert not differing


# --- small parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "board"),
    [
        ("checkerboard 9x6 25", Checkerboard(columns=9, rows=6, square_mm=25)),
        ("checkerboard 9X6 12.5", Checkerboard(columns=9, rows=6, square_mm=12.5)),
        ("charuco 11x8 10 7.5", Charuco(columns=11, rows=8, square_mm=10, marker_mm=7.5)),
        (
            "charuco 5x4 23 11.5 DICT_4X4_50 legacy",
            Charuco(columns=5, rows=4, square_mm=23, marker_mm=11.5, dictionary="DICT_4X4_50", legacy=True),
        ),
        ("charuco 5x4 23 11.5 legacy", Charuco(columns=5, rows=4, square_mm=23, marker_mm=11.5, legacy=True)),
    ],
)
def test_board_from_text(text, board):
    assert workflows.parse_board(text) == board


def test_board_and_spheres_of_the_option_win_over_the_rig_file(mini):
    config = mini.config
    assert workflows.choose_board("checkerboard 9x6 25", config) == Checkerboard(
        columns=9, rows=6, square_mm=25
    )
    assert workflows.choose_board(None, config) == config.targets.board
    assert workflows.choose_board(None, None, needed=False) is None
    assert workflows.sphere_target(config, None, None) == SphereTarget(count=4, diameter_mm=32)
    assert workflows.sphere_target(config, 20.0, None) == SphereTarget(count=4, diameter_mm=20)
    assert workflows.sphere_target(None, None, 2) == SphereTarget(count=2)
    assert workflows.sphere_target(None, 20.0, None) == SphereTarget(diameter_mm=20)
    assert workflows.sphere_target(None, None, None) is None


def test_ambient_light_is_taken_off(mini, captured, models, twin):
    """Where a light does not reach, nothing is left; there was ambient light before."""
    images = workflows.light_images(captured("glossy"), "object", sensor=models.sensor)
    assert images.names == conftest.LIGHTS
    ambient = twin.clean_radiance("glossy", {}, CAMERA)
    value, variance, before = [], [], []
    for number, name in enumerate(images.names):
        dark = twin.clean_radiance("glossy", {name: 1.0}, CAMERA) - ambient < 1
        part = dark & (twin.maps("glossy", CAMERA).thing == 0) & np.isfinite(images.value[number])
        value.append(images.value[number][part])
        variance.append(images.variance[number][part])
        before.append(ambient[part])
    value, variance, before = (np.concatenate(each).astype(float) for each in (value, variance, before))
    assert len(value) > 1000
    # the pixels share one background of four frames: its noise does not average out over the lights
    sigma = np.sqrt(variance.mean() / (len(value) / len(images.names)))
    assert abs(value.mean()) < 4 * sigma < before.mean() / 2


def test_pinned_models_are_checked(mini, models, tmp_path):
    digest = files.save_model(tmp_path / "lens.json", models.lens)

    def rig(**pins):
        return mini.config.replace(calibrations={CAMERA: Calibrations(**pins)})

    good = rig(lens=Pin(path="lens.json", digest=digest))
    assert workflows.check_pins(good, tmp_path) == []
    found = workflows.pinned(good, tmp_path, CAMERA, "lens", type(models.lens))
    assert found == models.lens
    assert workflows.pinned(good, tmp_path, CAMERA, "sensor", RadiometricModel) is None
    for pins, words in (
        ({"lens": Pin(path="lens.json", digest="0" * 64)}, "calibrations.top.lens"),
        ({"lens": Pin(path="none.json")}, "none.json: no such model"),
        ({"sensor": Pin(path="lens.json")}, "calibrations.top.sensor"),
    ):
        (problem,) = workflows.check_pins(rig(**pins), tmp_path)
        assert words in problem
        assert "\n" not in problem
    stranger = mini.config.replace(calibrations={"side": Calibrations()})
    assert workflows.check_pins(stranger, tmp_path) == ["calibrations.side: no camera of that name"]


def test_results_on_disk_say_what_they_are(mini, relief, models, tmp_path):
    written = workflows.write_reconstruction(tmp_path, relief, lens=models.lens)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == [
        "albedo.exr", "depth.exr", "mesh.ply", "models/lens.json", "normals.exr", "normals.png",
    ]  # fmt: skip
    channels = files.read_exr(tmp_path / "normals.exr")
    normals = np.stack([channels[f"N.{axis}"] for axis in "XYZ"], axis=-1)
    assert np.array_equal(normals, relief.reconstruction.normals.normals, equal_nan=True)
    by_lights = relief.reconstruction.normals.sigma_lights_deg
    assert np.array_equal(channels["sigma.lights"], by_lights, equal_nan=True)
    assert 0 < np.nanmedian(by_lights) < 1
    assert np.array_equal(
        files.read_exr(tmp_path / "depth.exr")["Z"], relief.reconstruction.depth_mm, equal_nan=True
    )
    assert relief.provenance.session == relief.reconstruction.normals.provenance.session
    assert json.loads((tmp_path / "models/lens.json").read_text())["kind"] == "lens"


def test_merged_radiance_on_disk(mini, captured, models, tmp_path):
    # with the samples that light_images takes
    merged = workflows.merge_session(
        captured("relief"), tmp_path, sensor=models.sensor, exposures="told", margin_px=0, motion=False
    )
    paths = [path for path, _ in merged]
    assert [path.name for path in paths] == [
        "relief.exr",
        *(f"relief-{name}.exr" for name in conftest.LIGHTS),
    ]
    images = workflows.light_images(captured("relief"), "object", sensor=models.sensor)
    read = files.read_exr(paths[1])
    ambient = files.read_exr(paths[0])["Y"]
    # one has the ambient light taken off before the weights, the other after: equal within the noise
    off = (read["Y"] - ambient - images.value[0]) / np.sqrt(images.variance[0])
    assert np.nanmax(np.abs(off)) < 1
    assert set(read) == {"Y", "sigma.Y"}


def test_a_dead_light_is_named(mini, models, twin, tmp_path):
    """Nobody noticed while capturing; the calibration does."""
    truth = mini.known
    fault = {"kind": "dead_light", "light": "led07"}
    session = mini.capture("lights", tmp_path / "lights", truth.replace(faults=(fault,)))
    assert session.done
    with pytest.raises(FitError, match="led07"):
        conftest.calibrate_lights(mini, session, models.sensor, models.lens)


def test_lights_that_the_model_lacks_are_named(captured, models):
    lights = models.lights.lights
    some = lights.replace(lights={name: lights.lights[name] for name in conftest.LIGHTS[2:]})
    with pytest.raises(FitError, match="has no led01, led02"):
        workflows.reconstruct(captured("relief"), some, sensor=models.sensor, lens=models.lens)


def test_plan_that_the_truth_cannot_play(mini, tmp_path):
    truth = mini.known
    lights = {name: light for name, light in truth.lights.items() if name != "led02"}
    poses = {name: things for name, things in truth.poses.items() if name != "relief"}
    plan = load_plan(mini.plan("relief"))
    report = workflows.check_plan(mini.config, plan, tmp_path, truth.replace(lights=lights, poses=poses))
    assert [problem.split(" is not")[0] for problem in report.problems] == ["light 'led02'", "pose 'relief'"]
    with pytest.raises(ConfigError, match="led02"):
        workflows.capture_session(mini.config, plan, tmp_path / "new", simulate=truth.replace(lights=lights))
    assert not (tmp_path / "new").exists()


# --- what must not pass in silence -------------------------------------------------------------------------


def cut_short(mini, path):
    """A session of which half the shots are not taken."""
    plan = load_plan(mini.plan("relief"))
    with open_rig(mini.config, mini.known) as rig:
        session = Session.create(path, plan, mini.config.model_dump(mode="json", exclude={"calibrations"}))
        with closing(run(plan, rig, session)) as events:
            for _ in islice(events, len(plan.shots()) // 2):
                pass
    return Session.open(path)


def test_unfinished_session_is_refused(mini, models, tmp_path):
    with pytest.raises(FitError, match=r"\d+ of \d+ shots have no frame yet"):
        workflows.reconstruct(cut_short(mini, tmp_path / "s"), models.lights.lights, lens=models.lens)


def test_another_truth_does_not_go_on_with_a_session(mini, captured):
    path = captured("lens").path
    other = mini.known.replace(seed=mini.known.seed + 1)
    with pytest.raises(ConfigError, match="another truth"):
        workflows.capture_session(
            mini.config, load_plan(mini.plan("lens")), path, simulate=other, resume=True
        )


def test_a_session_of_an_earlier_version_is_resumed(mini, captured, tmp_path):
    """Its rig has fewer fields; what they are without being told is what they were then."""
    path = tmp_path / "s"
    shutil.copytree(captured("lens").path, path)
    rig = json.loads((path / "rig.json").read_text())
    rig["geometry"] = None
    del rig["operator"]
    (path / "rig.json").write_text(json.dumps(rig))
    plan = load_plan(mini.plan("lens"))
    assert workflows.capture_session(mini.config, plan, path, simulate=mini.known, resume=True).done
    other = mini.config.replace(targets=mini.config.targets.replace(board_reflectance=0.5))
    with pytest.raises(SessionError, match="another plan or rig"):
        workflows.capture_session(other, plan, path, simulate=mini.known, resume=True)


def test_models_of_an_earlier_result_do_not_stay(relief, models, tmp_path):
    workflows.write_reconstruction(tmp_path, relief, lens=models.lens, sensor=models.sensor)
    (tmp_path / "report.html").write_text("of the earlier result")
    workflows.write_reconstruction(tmp_path, relief, lens=models.lens)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["lens.json", "lens.npz"]
    assert not (tmp_path / "report.html").exists()


def test_lights_that_are_behind_the_object_are_noticed(captured, models):
    turned = {
        name: DistantLight(direction=(0.3 * np.cos(i), 0.3 * np.sin(i), 0.9))
        for i, name in enumerate(models.lights.lights.lights)
    }
    with pytest.raises(FitError, match=r"shine from behind the object"):
        workflows.reconstruct(captured("relief"), LightSet(lights=turned), sensor=models.sensor)


def test_mask_of_a_cut_out_is_its_opacity(tmp_path):
    picture = np.full((4, 6, 4), 255, np.uint8)
    picture[:, :3, 3] = 0
    cv2.imwrite(str(tmp_path / "cut.png"), picture)
    assert workflows.read_mask(tmp_path / "cut.png", (4, 6)).sum() == 12


def test_unknown_pixel_format_is_told_with_its_key(mini, tmp_path):
    path = tmp_path / "rig.yaml"
    path.write_text(mini.rig.read_text().replace("Mono12", "Mono13"))
    with pytest.raises(ConfigError, match=r"cameras\.top\.pixel_format: pixel format 'Mono13'"):
        load_rig(path)


def imported(folder, clip):
    """Numbers in 16-bit files that clip far below full scale, above a pedestal that a dark frame shows."""
    rng = np.random.default_rng(5)
    rows = ["file,kind,light,exposure_s"]
    dark = np.full((32, 48), 200, np.uint16)
    cv2.imwrite(str(folder / "dark.png"), dark)
    rows.append("dark.png,dark,,0.1")
    for index in range(4):
        image = np.minimum(rng.integers(300, 2 * clip, dark.shape), clip).astype(np.uint16)
        cv2.imwrite(str(folder / f"{index}.png"), image)
        rows.append(f"{index}.png,object,l{index},0.1")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return import_folder(folder, folder / "session")


def test_clipped_frames_of_a_nominal_camera_are_left_out(tmp_path):
    clip = 4095
    session = imported(tmp_path, clip)
    images = workflows.light_images(session, "object")
    frames = np.stack(list(session.stack().select(kind="object")))
    assert np.array_equal(np.isnan(images.value), frames >= clip)
    # The pedestal is off: radiance is proportional to what is above it.
    good = np.isfinite(images.value)
    ratio = images.value[good] / (frames[good] - 200.0)
    assert np.ptp(ratio) < 1e-3 * ratio.mean()


def test_near_lights_without_a_distance_are_refused(captured, models):
    lights = models.lights.lights.replace(scene_depth_mm=None)
    with pytest.raises(FitError, match="--depth"):
        workflows.reconstruct(captured("relief"), lights, sensor=models.sensor, lens=models.lens)
