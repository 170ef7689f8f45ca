from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from simulated_small import camera, near, truth

from calibration.targets.boards import corners_mm
from capture.devices import CameraLimits, DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.drivers.simulated import Scene
from capture.plan import Shot
from rigs.config import ConfigError
from rigs.simulated import Truth, Twin, load_truth
from rigs.simulated.truth import parse_truth

DOME = Path(__file__).parents[2] / "configs" / "truths" / "dome.yaml"
PLANE = {"kind": "plane", "translation_mm": [0, 0, 450], "albedo": 0.6}
QUIET = {"read_noise_e": 0, "dark_current_e_s": 0, "prnu": 0, "dsnu_e": 0}


def take(twin: Twin, light: str = "led", exposure_s: float = 0.02, pose: str = "scene"):
    twin.show(pose)
    twin.set_light(light, 1.0)
    frame = twin.expose("cam", exposure_s, 0.0)
    twin.set_light(light, 0.0)
    return frame


# --- truth files -----------------------------------------------------------------------------------------


def test_the_demo_truth_is_what_the_demo_is_designed_for():
    dome = load_truth(DOME)
    models = dome.light_models()
    assert list(models) == [f"led{k:02d}" for k in range(1, 25)]
    away = [np.linalg.norm(np.array(m.position_mm) - [0, 0, 450]) for m in models.values()]
    assert min(away) >= 300
    assert max(away) <= 600
    intensity = np.array([m.intensity[0] for m in models.values()])
    assert np.abs(intensity / 2.4e11 - 1).max() <= 0.25
    assert {f"board-{k:02d}" for k in range(1, 21)} | {"panel", "cap", "spheres", "relief", "glossy"} == set(
        dome.poses
    )
    # a white surface facing the camera at the object, under the median light, in 30 ms
    white = [0.85 * 0.03 * float(m.at([0, 0, 450])[1][0] * -m.at([0, 0, 450])[0][2]) for m in models.values()]
    assert 0.5 < np.median(white) / dome.cameras["top"].sensor.full_well_e < 0.9


@pytest.mark.parametrize(
    ("dark", "told"),
    [
        ({"intensity": 0}, "lights.led.intensity: Input should be greater than 0"),
        ({"intensity": 1e9, "colour": [1, 0, 0]}, "lights.led.colour: .*shines in R, G and B"),
    ],
)
@pytest.mark.parametrize(
    "place", [{"kind": "near", "position_mm": [0, 0, 0]}, {"kind": "distant", "direction": [0, 0, -1]}]
)
def test_a_lamp_that_gives_no_light_is_refused_in_one_line(place, dark, told):
    with pytest.raises(ValueError, match=told) as error:
        truth([PLANE], lights={"led": {**place, **dark}})
    assert len(str(error.value).splitlines()) == 1


def test_the_demo_boards_cover_the_image():
    dome = load_truth(DOME)
    lens = dome.cameras["top"].lens
    seen, tilts = [], []
    for name, things in dome.poses.items():
        if name.startswith("board-"):
            turn = Rotation.from_rotvec(things[0].rotvec_deg, degrees=True)
            tilts.append(np.degrees(np.arccos(turn.as_matrix()[2, 2])))
            points = turn.apply(corners_mm(things[0].board)) + things[0].translation_mm
            pixels = lens.project(points)
            inside = np.all((pixels > 5) & (pixels < [lens.width - 6, lens.height - 6]), axis=-1)
            assert inside.mean() > 0.6
            seen.append(pixels[inside])
    pixels = np.concatenate(seen)
    cells = np.histogram2d(*pixels.T, bins=(8, 5), range=((0, lens.width), (0, lens.height)))[0]
    assert cells.min() >= 5
    # The truth writes turns to 1e-5 degrees.
    assert 35 < max(tilts) <= 40 + 2e-5


def test_mistakes_in_a_truth_file_are_named_by_their_path(tmp_path):
    text = DOME.read_text()
    path = tmp_path / "truth.yaml"
    for wrong, where in [
        (text.replace("ambient: 400", "ambiant: 400"), "ambiant"),
        (text.replace("intensity: 760000}", "intensity: 760000, order: 1}"), "lights.panel.order"),
        (text.replace("albedo: 0.25}", "albedos: 0.25}"), "poses.spheres.5.albedos"),
        (text.replace("spread: 0.25", "spred: 0.25"), "generate.dome.spred"),
        (text.replace("k1: -0.082", "k7: -0.082"), "cameras.top.lens.k7"),
    ]:
        path.write_text(wrong)
        with pytest.raises(ValueError, match=f"truth.yaml: {where}: ") as error:
            load_truth(path)
        assert len(str(error.value).splitlines()) == 1
    path.write_text(text + "ambient: 300\n")
    with pytest.raises(ConfigError, match=r"truth.yaml: line \d+: key 'ambient' is given twice"):
        load_truth(path)


def test_faults_must_name_what_exists():
    with pytest.raises(ValueError, match=r"faults.0.camera: no camera 'tap'"):
        truth([PLANE], faults=[{"kind": "lost", "camera": "tap", "shots": [1]}])


def test_what_a_file_says_wins_over_what_it_generates_and_the_result_reads_back():
    ring = {"count": 3, "elevation_deg": 50, "distance_mm": [400, 500]}
    data = {
        "cameras": {"cam": camera()},
        "poses": {"scene": [PLANE]},
        "lights": {"led2": near(1, 2, 3)},
        "generate": {"dome": {"rings": [ring], "centre_mm": [0, 0, 450], "intensity": 1e11}},
    }
    made = parse_truth(data)
    assert set(made.lights) == {"led1", "led2", "led3"}
    assert made.lights["led2"].position_mm == (1, 2, 3)
    assert Truth.model_validate(made.model_dump()) == made


# --- frames ----------------------------------------------------------------------------------------------


def test_frames_are_a_function_of_the_request_and_its_repeats():
    lights = {"led": near(0, 0, 0), "lamp": near(50, 0, 0)}
    world = truth([PLANE], lights=lights)
    first = Twin(world)
    frames = [take(first, light) for light in ("led", "lamp", "led")]
    again = Twin(world)
    assert np.array_equal(take(again, "lamp").dn, frames[1].dn)
    assert np.array_equal(take(again, "led").dn, frames[0].dn)
    assert not np.array_equal(frames[0].dn, frames[2].dn)

    resumed = Twin(world)
    shot = Shot(index=0, kinds=("object",), pose="scene", camera="cam", lights={"led": 1.0}, exposure_s=0.02)
    resumed.note_taken(shot)
    assert np.array_equal(take(resumed, "led").dn, frames[2].dn)
    assert not np.array_equal(take(Twin(world.replace(seed=1)), "led").dn, frames[0].dn)


def test_a_frame_says_what_was_done():
    limits = CameraLimits(exposure_min_s=1e-5, exposure_max_s=1, width=240, height=150, gain_max_db=12)
    scene: Scene = Twin(truth([PLANE]), {"cam": limits})
    scene.show("scene")
    frames = [scene.expose("cam", 0.02, 6.0) for _ in range(2)]
    assert [frame.frame_id for frame in frames] == [0, 1]
    assert [frame.timestamp_ns for frame in frames] == [0, 70_000_000]
    assert (frames[0].exposure_s, frames[0].gain_db, frames[0].pixel_format) == (0.02, 6.0, "Mono12")
    assert (frames[0].dn.shape, frames[0].dn.dtype) == ((150, 240), np.uint16)


def test_a_frame_measures_the_clean_radiance():
    eye = camera(optics={"cos4": True, "vignetting": 0.1})
    twin = Twin(truth([PLANE], lights={"led": near(0, 0, 0, 1.5e11)}, eye=eye))
    frames = [take(twin).dn.astype(np.float64) for _ in range(4)]
    of = twin.truth.cameras["cam"].sensor
    electrons = (np.mean(frames, axis=0) - of.black_dn) / of.gain_dn_per_e
    expected = twin.clean_radiance("scene", {"led": 1.0}, "cam") * twin.flat_map("cam") * 0.02
    pattern = twin.fixed_pattern("cam")
    expected = expected + pattern.offset_e + pattern.dark_e_s * 0.02
    sigma = np.sqrt((expected + of.read_noise_e**2 + 1 / 12 / of.gain_dn_per_e**2) / 4)
    score = (electrons - expected) / sigma
    assert abs(score.mean()) < 5 / np.sqrt(score.size)
    assert abs(score.var() - 1) < 5 * np.sqrt(2 / score.size)
    vignetted = twin.clean_radiance("scene", {"led": 1.0}, "cam", vignetting=True)
    np.testing.assert_allclose(
        vignetted * pattern.response,
        expected[...] / 0.02 - pattern.offset_e / 0.02 - pattern.dark_e_s,
        rtol=1e-4,
    )


def test_resampling_scatters_as_frames_do():
    twin = Twin(truth([PLANE], lights={"led": near(0, 0, 0, 1.5e11)}))
    roi = (slice(20, 40), slice(30, 60))
    stack = twin.resample("scene", {"led": 1.0}, "cam", 0.02, range(400), roi).astype(np.float64)
    of, pattern = twin.truth.cameras["cam"].sensor, twin.fixed_pattern("cam")
    rate = twin.clean_radiance("scene", {"led": 1.0}, "cam") * pattern.response + pattern.dark_e_s
    expected = of.gain_dn_per_e**2 * (rate[roi] * 0.02 + of.read_noise_e**2) + 1 / 12
    ratio = stack.var(axis=0, ddof=1) / expected
    assert abs(ratio.mean() - 1) < 5 * np.sqrt(2 / stack.size)
    assert np.array_equal(twin.resample("scene", {"led": 1.0}, "cam", 0.02, [7], roi)[0], stack[7])


def test_panel_and_cap():
    lights = {"led": near(0, 0, 0), "panel": {"kind": "panel", "intensity": 5e5}}
    twin = Twin(truth([PLANE], lights=lights))
    assert set(np.unique(twin.clean_radiance("panel", {"panel": 0.5, "led": 1.0}, "cam"))) == {2.5e5}
    assert set(np.unique(twin.clean_radiance("cap", {"panel": 1.0, "led": 1.0}, "cam"))) == {0.0}
    assert set(np.unique(twin.clean_radiance("scene", {"panel": 1.0}, "cam"))) == {0.0}


def test_colour_cameras_see_tints_and_coloured_lights():
    plane = PLANE | {"tint": [1.0, 0.5, 0.25]}
    lights = {"sun": {"kind": "distant", "direction": [0, 0, -1], "intensity": 5e5, "colour": [1, 1, 2]}}
    eye = camera(sensor=QUIET | {"colour": "RGGB", "quantum_scale": [0.5, 1.0, 0.8]})
    twin = Twin(truth([plane], lights=lights, eye=eye))
    clean = twin.clean_radiance("scene", {"sun": 1.0}, "cam")
    np.testing.assert_allclose(clean[0, 0], 0.6 * 5e5 * np.array([0.5, 0.5, 0.4]), rtol=1e-5)
    frame = take(twin, "sun")
    assert frame.pixel_format == "BayerRG12"
    blue = frame.dn[1::2, 1::2]
    assert blue.mean() == pytest.approx(
        64 + 0.125 * 0.02 * clean[0, 0, 2], abs=5 * 0.125 * 50 / np.sqrt(blue.size)
    )
    rgb = Twin(truth([plane], lights=lights, eye=camera(sensor={"colour": "rgb", "bits": 8})))
    assert take(rgb, "sun").dn.shape == (150, 240, 3)
    assert take(rgb, "sun").dn.dtype == np.uint8


# --- time ------------------------------------------------------------------------------------------------


def test_a_rolling_shutter_bands_a_flickering_light():
    flicker = {"frequency_hz": 100.0, "depth": 0.5}
    sun = {"kind": "distant", "direction": [0, 0, -1], "intensity": 5e5, "flicker": flicker}
    # a long line time and a deep well show the ripple over the noise
    eye = camera(sensor=QUIET | {"line_time_s": 1e-4, "bits": 16, "full_well_e": 1e6, "gain_dn_per_e": 1})
    twin = Twin(truth([PLANE], lights={"sun": sun}, eye=eye))
    rows = (take(twin, "sun", exposure_s=0.002).dn.astype(np.float64) - 64).mean(axis=1)
    mean = 0.6 * 5e5 * 0.002
    turn = 2 * np.pi * 100 * (1e-4 * np.arange(150) + 0.001)
    design = np.stack([np.ones(150), np.cos(turn), np.sin(turn)], axis=1)
    fitted = np.linalg.lstsq(design, rows, rcond=None)[0]
    # the exposure averages the ripple by the sinc of its share of the period
    depth = 0.5 * np.sin(np.pi * 0.2) / (np.pi * 0.2)
    noise = 5 * np.sqrt(2 * mean / (240 * 150)) / mean
    assert np.hypot(*fitted[1:]) / mean == pytest.approx(depth, abs=noise)
    assert fitted[0] / mean == pytest.approx(1, abs=noise)
    # a global shutter averages whole periods to nothing
    steady = Twin(truth([PLANE], lights={"sun": sun}, eye=camera(sensor=QUIET)))
    value = (take(steady, "sun", exposure_s=0.05).dn.astype(np.float64) - 64).mean() / 0.125
    assert value == pytest.approx(0.6 * 5e5 * 0.05, rel=5 / np.sqrt(0.6 * 5e5 * 0.05 * 36000))


def test_a_light_that_moves_or_fades_is_averaged_over_the_exposure():
    moving = near(-50, 0, 100, 4e10, velocity_mm_s=[1000, 0, 0])
    fading = near(0, 0, 0, drift_per_s=-2.0)
    twin = Twin(truth([PLANE], lights={"moving": moving, "fading": fading}))
    still = Twin(truth([PLANE], lights={f"at{k}": near(-50 + 5 * k, 0, 100, 4e10) for k in range(21)}))
    shades = [still.clean_radiance("scene", {f"at{k}": 1.0}, "cam") for k in range(21)]
    expected = np.trapezoid(shades, dx=1 / 20, axis=0)
    big = slice(0, 150), slice(0, 240)
    got = twin.resample("scene", {"moving": 1.0}, "cam", 0.1, range(1), big)[0]
    assert got.max() < 4095
    pattern = twin.fixed_pattern("cam")
    miss = (got - 64) / 0.125 - (
        expected * 0.1 * pattern.response + pattern.dark_e_s * 0.1 + pattern.offset_e
    )
    assert abs(miss.mean()) < 5 * np.sqrt(30000 / miss.size) + 1e-4 * 30000
    clean = twin.clean_radiance("scene", {"fading": 1.0}, "cam").mean()
    frame = take(twin, "fading", exposure_s=0.02)
    level = (frame.dn.astype(np.float64).mean() - 64) / 0.125
    assert level == pytest.approx(clean * 0.02 * (1 - 0.02) + 0.1, rel=2e-3)


# --- faults ----------------------------------------------------------------------------------------------


def test_faults_strike_where_they_are_asked_for():
    faults = [
        {"kind": "lost", "camera": "cam", "shots": [1]},
        {"kind": "late", "camera": "cam", "shots": [2], "delay_s": 3.0},
        {"kind": "refused", "camera": "cam", "shots": [3]},
        {"kind": "exposure", "camera": "cam", "shots": [4], "factor": 0.5},
        {"kind": "vanish", "camera": "cam", "first": 6},
    ]
    twin = Twin(truth([PLANE], faults=faults))
    first = take(twin)
    for error, text in ((FrameLost, "no frame"), (FrameLost, "3 s late"), (SettingRefused, "not applied")):
        with pytest.raises(error, match=text):
            take(twin)
    halved = take(twin)
    assert halved.exposure_s == 0.01
    assert halved.dn.mean() - 64 == pytest.approx(0.5 * (first.dn.mean() - 64), rel=0.01)
    well = take(twin)
    assert (well.exposure_s, well.frame_id) == (0.02, 5)
    for _ in range(2):
        with pytest.raises(DeviceLost):
            take(twin)


def test_a_lost_frame_does_not_change_the_next_one():
    sound, faulty = (
        Twin(truth([PLANE], faults=faults))
        for faults in ([], [{"kind": "lost", "camera": "cam", "shots": [0]}])
    )
    with pytest.raises(FrameLost):
        take(faulty)
    assert np.array_equal(take(faulty).dn, take(sound).dn)


def test_a_dead_light_stays_dark_and_may_be_noticed():
    fault = {"kind": "dead_light", "light": "led", "first": 1, "count": 1}
    twin = Twin(truth([PLANE], faults=[fault]))
    means = [take(twin).dn.mean() for _ in range(3)]
    assert means[1] < 70 < means[0]
    assert means[2] == pytest.approx(means[0], rel=0.01)
    noticed = Twin(truth([PLANE], faults=[fault | {"noticed": True, "first": 0}]))
    noticed.show("scene")
    with pytest.raises(DeviceError, match="led: does not light"):
        noticed.set_light("led", 1.0)


def test_a_bump_moves_scene_and_lights_from_its_shot_on():
    bump = {"kind": "bump", "first": 1, "translation_mm": [5.0, 0, 0]}
    ball = {
        "kind": "sphere",
        "finish": "matte",
        "centre_mm": [0, 0, 400],
        "radius_mm": 15,
        "reflectance": 0.5,
    }
    moved = ball | {"centre_mm": [5, 0, 400]}
    eye = camera(sensor=QUIET)
    knocked = Twin(truth([ball], faults=[bump], eye=eye))
    before, after = take(knocked), take(knocked)
    other = Twin(truth([moved], lights={"led": near(5, 0, 0)}, eye=eye))
    still = Twin(truth([ball], eye=eye))
    assert np.array_equal(before.dn, take(still).dn)
    take(other)
    assert np.array_equal(after.dn, take(other).dn)
    assert knocked.spheres("scene", "cam")[0].centre_mm.tolist() == [5, 0, 400]


def test_unknown_names_and_unfit_rigs_are_told():
    twin = Twin(truth([PLANE]))
    with pytest.raises(DeviceError, match="no pose 'sphere'"):
        twin.show("sphere")
    with pytest.raises(DeviceError, match="no such light"):
        twin.set_light("led99", 1.0)
    with pytest.raises(DeviceError, match="nothing is in view"):
        twin.expose("cam", 0.01, 0.0)
    with pytest.raises(ValueError, match="no light 'led99'"):
        twin.clean_radiance("scene", {"led99": 1.0}, "cam")
    limits = CameraLimits(exposure_min_s=1e-5, exposure_max_s=1, width=240, height=150)
    with pytest.raises(ValueError, match=r"cameras\.cam: the rig says 240 x 160, the truth's lens 240 x 150"):
        Twin(truth([PLANE]), {"cam": limits.replace(height=160)})
    with pytest.raises(ValueError, match="Mono8"):
        Twin(truth([PLANE]), {"cam": limits.replace(pixel_format="Mono8")})
    slow = Twin(truth([PLANE]), {"cam": limits})
    with pytest.raises(SettingRefused, match="outside"):
        take(slow, exposure_s=2.0)
