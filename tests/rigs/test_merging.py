"""gnomon merge on pictures that no rig took: exposures, motion, scale, attributes, mistakes."""

from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import tifffile

from calibration import files
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from capture.session import Session
from rigs import interchange, workflows
from rigs.config import ConfigError

SHAPE = (96, 128)
TOLD = np.array([0.004, 0.001, 0.016])  # unsorted
GAIN, BLACK, READ = 0.25, 50.0, 5.0


def light(seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    grain = np.random.default_rng(seed).uniform(0.8, 1.2, SHAPE)
    return 3e5 * 30.0 ** (0.5 * np.sin(x / 19) * np.cos(y / 13)) * grain


def shoot(radiance: np.ndarray, exposure_s: float, rng: np.random.Generator) -> np.ndarray:
    electrons = rng.poisson(radiance * exposure_s) + READ * rng.standard_normal(radiance.shape)
    return np.clip(np.rint(BLACK + GAIN * electrons), 0, 4095).astype(np.uint16)


def session_of(
    folder: Path, rows: list[tuple[np.ndarray, str, float]], header: str = "", bayer: str | None = None
) -> Session:
    """Import of frames as (pixels, kind, exposure)."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    lines = [header or "file,kind,exposure_s"]
    for number, (dn, kind, exposure_s) in enumerate(rows):
        tifffile.imwrite(photos / f"p{number}.tif", dn)
        lines.append(f"p{number}.tif,{kind},{exposure_s}")
    (photos / "manifest.csv").write_text("\n".join(lines) + "\n")
    return interchange.import_folder(photos, folder / "session", bayer=bayer)


def sensor(shape: tuple[int, ...] = SHAPE) -> RadiometricModel:
    return RadiometricModel.nominal("Mono16", shape).replace(
        black_dn=BLACK, gain_dn_per_e=GAIN, read_noise_e=READ, saturation_dn=4095.0, quality=None
    )


def stack(folder: Path, times: np.ndarray = TOLD, seed: int = 1) -> Session:
    rng = np.random.default_rng(seed)
    return session_of(
        folder, [(shoot(light(), true, rng), "object", told) for true, told in zip(times, TOLD, strict=True)]
    )


def merged(session: Session, out: Path, **options: object) -> workflows.Merged:
    (result,) = workflows.merge_session(session, out, **options)  # type: ignore[arg-type]
    return result


def test_radiance_is_right_within_its_sigma_and_says_how_it_was_made(tmp_path):
    session = stack(tmp_path)
    path, record = merged(session, tmp_path / "out", sensor=sensor(), sensor_digest="abc")
    channels = files.read_exr(path)
    assert set(channels) == {"Y", "sigma.Y", "motion"}
    z = (channels["Y"] - light()) / channels["sigma.Y"]
    assert np.nanstd(z) == pytest.approx(1, abs=0.05)
    assert channels["motion"].max() == 0
    assert not record.refined
    assert record.chi2 == pytest.approx(1, abs=0.06)
    assert record == files.load_model(path.with_suffix(".json"), workflows.MergeRecord)
    # what another reader of the format finds
    with OpenEXR.File(str(path), separate_channels=True) as file:
        header = file.header()
        assert {channel.pixels.dtype for channel in file.channels().values()} == {np.dtype(np.float32)}
        assert header["expTime"] == pytest.approx(TOLD[record.reference])
        assert header["exposuresUsed"] == pytest.approx(TOLD)
        assert header["session"] == session.digest
        assert header["sensorModel"] == "abc"
        assert header["colourSpace"] == "monochrome"
        assert "whiteLuminance" not in header
    assert b"expTime\0float\0" in path.read_bytes()


def test_jittered_exposures_are_refined_and_the_frames_agree_again(tmp_path):
    jitter = np.array([0.04, -0.03, -0.01])
    session = stack(tmp_path, TOLD * np.exp(jitter))
    _, record = merged(session, tmp_path / "auto", sensor=sensor())
    assert record.refined
    off = np.log(np.array(record.used_s) / TOLD) - jitter
    assert np.all(np.abs(off) < 5 * np.array(record.sigma) + 1e-9)
    assert record.chi2 == pytest.approx(1, abs=0.06)
    _, told = merged(session, tmp_path / "told", sensor=sensor(), exposures="told")
    assert told.used_s == tuple(TOLD)
    assert told.chi2 > 1.5
    assert any("reduced chi^2" in warning for warning in told.quality.warnings)


def test_without_a_sensor_model_the_noise_comes_from_the_stack(tmp_path):
    rng = np.random.default_rng(2)
    rows = [(shoot(light(), t, rng), "object", t) for t in TOLD]
    rows += [(shoot(0 * light(), 0.004, rng), "dark", 0.004) for _ in range(2)]
    _, record = merged(session_of(tmp_path, rows), tmp_path / "out")
    assert "stood in" in record.sensor
    gain = float(record.sensor.split("gain ")[1].split()[0])
    assert gain == pytest.approx(GAIN, rel=0.15)
    assert record.chi2 == pytest.approx(1, abs=0.15)
    assert record.quality.verdict == "doubtful"
    assert any("estimated from the stack" in warning for warning in record.quality.warnings)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] in (
        ["object.exr", "object.json"], ["object.json", "object.exr"],
    )  # fmt: skip


def test_what_moved_is_left_out_and_said(tmp_path):
    rng = np.random.default_rng(3)
    other = light()
    other[20:50, 30:60] *= 2
    frames = [(shoot(other if t == 0.001 else light(), t, rng), "object", t) for t in TOLD]
    session = session_of(tmp_path, frames)
    path, record = merged(session, tmp_path / "out", sensor=sensor())
    motion = files.read_exr(path)["motion"]
    assert motion[22:48, 32:58].mean() > 0.9
    assert motion[60:].max() == 0
    assert np.argmax(record.moved) == 1
    assert any("p1.tif" in warning and "moved" in warning for warning in record.quality.warnings)
    assert record.chi2 == pytest.approx(1, abs=0.08)
    _, blind = merged(session, tmp_path / "blind", sensor=sensor(), motion=False)
    assert blind.chi2 > 1.5


def test_a_shifted_frame_is_said(tmp_path):
    rng = np.random.default_rng(4)
    wide = light().repeat(4, axis=1)
    views = [
        wide[:, 2 + shift : 2 + shift + 4 * 120].reshape(SHAPE[0], 120, 4).mean(-1) for shift in (0, 0, 2)
    ]
    rows = [(shoot(v, t, rng), "object", t) for v, t in zip(views, np.sort(TOLD), strict=True)]
    _, record = merged(session_of(tmp_path, rows), tmp_path / "out", sensor=sensor((SHAPE[0], 120)))
    (warning,) = (w for w in record.quality.warnings if "shifted" in w)
    assert "p2.tif" in warning
    assert record.shift_px[2][0] == pytest.approx(-0.5, abs=0.08)


def test_a_patch_of_known_luminance_puts_the_picture_on_a_scale(tmp_path):
    session = stack(tmp_path)
    plain = files.read_exr(merged(session, tmp_path / "plain", sensor=sensor()).path)["Y"]
    patch = workflows.parse_luminance("40,30,10,8=118.5+-2.37")
    path, record = merged(session, tmp_path / "scaled", sensor=sensor(), luminance=patch)
    channels = files.read_exr(path)
    assert channels["Y"][30:38, 40:50].mean() == pytest.approx(118.5, rel=1e-5)
    assert record.units == "cd/m^2"
    assert record.scale == pytest.approx(118.5 / plain[30:38, 40:50].mean(), rel=1e-5)
    # of the meter 2 %, of the picture about 0.3 %
    assert 0.02 < record.scale_sigma < 0.0215
    header = files.read_exr_attributes(path)
    assert header["whiteLuminance"] == 1.0
    assert header["scale"] == pytest.approx(record.scale)
    assert "cd/m^2" in header["units"]


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("120,30,10,8=118", "not within the picture of 128 x 96 px"),
        ("40,30,0,8=118", "want a size"),
        ("cat:40,30,9,8=118", "no picture 'cat'.* there are object"),
    ],
)
def test_a_patch_that_cannot_be_measured_is_refused(tmp_path, patch, says):
    session = stack(tmp_path)
    with pytest.raises(FitError, match=says):
        merged(session, tmp_path / "out", sensor=sensor(), luminance=workflows.parse_luminance(patch))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_saturated_patch_is_refused(tmp_path):
    rng = np.random.default_rng(5)
    bright = light()
    bright[30:34, 40:44] = 1e9
    session = session_of(tmp_path, [(shoot(bright, t, rng), "object", t) for t in TOLD])
    with pytest.raises(FitError, match="of 80 pixels are saturated or invalid"):
        merged(session, tmp_path / "out", sensor=sensor(), luminance=workflows.Patch(40, 30, 10, 8, 100.0))


@pytest.mark.parametrize("text", ["", "1,2,3=4", "1,2,3,4", "1,2,3,4=x", "1.5,2,3,4=5", "-1,2,3,4=5"])
def test_a_patch_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match="want X,Y,W,H=CD_M2"):
        workflows.parse_luminance(text)


def test_bad_stacks_are_one_line_that_names_the_frame_and_write_nothing(tmp_path):
    rng = np.random.default_rng(6)
    good = shoot(light(), 0.004, rng)
    full, black = np.full(SHAPE, 4095, np.uint16), shoot(0 * light(), 0.004, rng)
    cases = [
        ([(full, "object", 0.004), (full, "object", 0.001)], r"frame p1\.tif \(0\.001 s\): saturated"),
        ([(black, "object", 0.004), (black, "object", 0.001)], r"frame p0\.tif \(0\.004 s\): black all over"),
        ([(black, "dark", 0.004)], "dark frames only"),
        (
            [(good, "object", 1.0), (shoot(light(), 0.001, rng), "object", 1.0)],
            r"frame p.\.tif \(1 s\): exposed .* same exposure: is it missing in the manifest",
        ),
    ]
    for number, (rows, says) in enumerate(cases):
        session = session_of(tmp_path / str(number), rows)
        out = tmp_path / str(number) / "out"
        with pytest.raises(FitError, match=says) as error:
            merged(session, out, sensor=sensor())
        assert "\n" not in str(error.value)
        assert not out.exists() or not list(out.iterdir())


def test_frames_that_add_nothing_are_named(tmp_path):
    rng = np.random.default_rng(7)
    rows = [(shoot(light(), t, rng), "object", t) for t in TOLD]
    rows.append((np.full(SHAPE, 4095, np.uint16), "object", 1.0))
    _, record = merged(session_of(tmp_path, rows), tmp_path / "out", sensor=sensor())
    assert any("p3.tif (1 s): saturated" in warning for warning in record.quality.warnings)
    assert np.isnan(record.sigma[3])
    assert record.used_s[3] == 1.0


def test_a_frame_of_grossly_wrong_time_is_named_and_the_others_hold_the_scale(tmp_path):
    session = stack(tmp_path, TOLD * np.array([1, 2.0, 1]))
    path, record = merged(session, tmp_path / "out", sensor=sensor())
    assert record.refined
    assert record.chi2 == pytest.approx(1, abs=0.06)
    (warning,) = record.quality.warnings
    assert "p1.tif" in warning
    ratio = float(warning.split("exposed ")[1].split()[0])
    assert ratio == pytest.approx(2, abs=2 * 5 * record.sigma[1] + 1e-3)
    channels = files.read_exr(path)
    # Scale as sure as the two told times that hold it; they are right but for the noise.
    assert np.nanmedian(channels["Y"] / light()) == pytest.approx(1, abs=2e-3)
    assert channels["motion"].max() == 0
    # Who insists is told which frame, and that nothing moved.
    _, told = merged(session, tmp_path / "told", sensor=sensor(), exposures="told")
    assert told.used_s == tuple(TOLD)
    assert "p1.tif" in told.quality.warnings[0]
    assert "told time is used" in told.quality.warnings[0]
    assert not any("moved" in w or "bends" in w for w in told.quality.warnings)


def test_frames_of_which_no_majority_agrees_are_refused(tmp_path):
    rng = np.random.default_rng(1)
    times = 0.001 * 2.0 ** np.arange(4)
    rows = [(shoot(light(), f * t, rng), "object", t) for f, t in zip((1, 1.9, 1.3, 0.7), times, strict=True)]
    session = session_of(tmp_path, rows)
    with pytest.raises(FitError, match=r"p\d.tif.*--exposures refined or told"):
        merged(session, tmp_path / "out", sensor=sensor())
    assert not (tmp_path / "out").exists()
    _, record = merged(session, tmp_path / "refined", sensor=sensor(), exposures="refined")
    assert record.chi2 == pytest.approx(1, abs=0.06)


def test_frames_of_one_exposure_and_ambient_light_are_merged_quietly(tmp_path):
    rng = np.random.default_rng(1)
    rows = [(shoot(light(), 0.004, rng), "object", 0.004) for _ in range(2)]
    rows.append((shoot(0.1 * light(), 0.004, rng), "ambient", 0.004))
    _, record = merged(session_of(tmp_path, rows), tmp_path / "out", sensor=sensor())
    line = workflows.describe_merge(record)
    assert line.startswith("2 frames of 0.004 s;")
    assert "pictures say" not in line


def test_two_gains_are_refused(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "ab":
        tifffile.imwrite(photos / f"{name}.tif", np.full(SHAPE, 900, np.uint16))
    (photos / "manifest.csv").write_text(
        "file,kind,exposure_s,gain_db\na.tif,object,0.1,0\nb.tif,object,0.2,6\n"
    )
    session = interchange.import_folder(photos, tmp_path / "session")
    with pytest.raises(FitError, match="gains 0, 6 dB"):
        merged(session, tmp_path / "out")


def test_float_frames_merge_but_their_noise_is_not_judged(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    image = light().astype(np.float32) / 1e5
    for name, t in (("a", 1.0), ("b", 2.0)):
        files.write_exr(photos / f"{name}.exr", {"Y": image * t})
    (photos / "manifest.csv").write_text("file,kind,exposure_s\na.exr,object,1\nb.exr,object,2\n")
    path, record = merged(interchange.import_folder(photos, tmp_path / "session"), tmp_path / "out")
    np.testing.assert_allclose(files.read_exr(path)["Y"], image, rtol=1e-6)
    assert np.isnan(record.chi2)
    assert record.moved == (0.0, 0.0)
    assert not record.refined


@pytest.mark.parametrize("same", [True, False])
def test_ambient_light_and_an_unknown_black_level_cancel_exposure_by_exposure(tmp_path, same):
    """No sensor model, no darks: merged apart, the pedestal would be divided by other times."""
    rng = np.random.default_rng(8)
    room, lamps = 0.3 * light(1), {"a": light(2), "b": 0.5 * light(3)}
    times = (0.002, 0.008)
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = ["file,kind,light,exposure_s,pose"]
    for t in times:
        for name, lamp in lamps.items():
            tifffile.imwrite(photos / f"{name}{t}.tif", shoot(room + lamp, t, rng))
            rows.append(f"{name}{t}.tif,object,{name},{t},cat")
    for t in times if same else (0.016,):
        tifffile.imwrite(photos / f"room{t}.tif", shoot(room, t, rng))
        rows.append(f"room{t}.tif,ambient,,{t},cat")
    (photos / "manifest.csv").write_text("\n".join(rows) + "\n")
    images = workflows.light_images(interchange.import_folder(photos, tmp_path / "session"), "object")
    truth = np.stack([lamps[name] for name in images.names])
    ratio = np.nanmedian(images.value / truth)
    off = images.value / ratio - truth
    dim = truth < np.nanpercentile(truth, 20)
    # a pedestal of 50 DN at 2 ms is 1e5 e-/s, as much as the dim fifth of the scene has
    assert (abs(np.nanmedian(off[dim])) < 0.05 * np.median(truth[dim])) == same
    assert any("black level stays in" in doubt.text for doubt in images.doubts) != same


def test_a_defect_of_a_mosaic_is_filled_and_saturation_is_not(tmp_path):
    rng = np.random.default_rng(3)
    even = np.full(SHAPE, 4e5)  # e-/s: far from saturation in the longest
    even[60:64, 60:64] = 4e9  # saturates even the shortest
    rows = [(shoot(even, told, rng), "object", told) for told in TOLD]
    dead = np.zeros(SHAPE, bool)
    dead[20, 30] = True
    for dn, _, _ in rows:
        dn[dead] = 0
    session = session_of(tmp_path, rows, bayer="RGGB")
    known = sensor().replace(pixel_format="BayerRG16", defects=dead)
    path, _ = merged(session, tmp_path / "out", sensor=known, margin_px=0, motion=False)
    channels = files.read_exr(path)
    around = (slice(18, 23), slice(28, 33))
    for letter in "RGB":
        # The pixel itself lacks the colour it was to measure; its neighbours have the others of theirs.
        missing = np.isnan(channels[letter][around])
        assert missing.sum() == (letter == "R"), letter
        assert np.isnan(channels[letter][60:64, 60:64]).all()


def test_more_frames_than_can_be_judged_one_by_one_say_what_to_do(tmp_path):
    rng = np.random.default_rng(4)
    session = session_of(tmp_path, [(shoot(light(), 0.001, rng), "object", 0.001) for _ in range(65)])
    with pytest.raises(FitError, match=r"65 frames of one view.*give --no-motion --margin 0"):
        merged(session, tmp_path / "out", sensor=sensor())
    path, _ = merged(session, tmp_path / "out", sensor=sensor(), motion=False, margin_px=0)
    channels = files.read_exr(path)
    z = (channels["Y"] - light()) / channels["sigma.Y"]
    assert np.nanstd(z) == pytest.approx(1, abs=5 / np.sqrt(2 * z.size))
