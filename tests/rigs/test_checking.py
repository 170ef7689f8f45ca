"""What a session tells about itself, and what is refused: closed loop on twins with known faults."""

import json
import shutil
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import conftest
import cv2
import numpy as np
import pytest
import tifffile

from calibration import files
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.radiometric.checks import SessionChecks
from capture.frame import Frame
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.session import Session
from rigs import workflows
from rigs.interchange import import_folder, read_image
from rigs.interchange.encoding import of_icc
from rigs.workflows import check_session

SHAPE = (60, 80)
LIGHTS = ("a", "b", "c")
BLACK, GAIN, READ, TOP = 64.0, 0.5, 5.0, 4095


def block(kinds, exposures, *, pose=None, lights=None, repeats=1, first_repeat=0):
    return Block(
        kinds=(kinds,),
        pose=(pose or kinds,),
        cameras=("cam",),
        lights=None if lights is None else LightSequence(names=lights),
        bracket=ExposureBracket(exposures_s=exposures),
        repeats=repeats,
        first_repeat=first_repeat,
        order=("repeat", "light", "exposure", "camera"),
    )


PLAN = CapturePlan(
    name="checks",
    blocks=(
        block("dark", (0.01,)),
        block("object", (0.005, 0.01, 0.02), lights=LIGHTS),
        block("object", (0.01,), lights=LIGHTS[:1], first_repeat=1),
        block("dark", (0.01,), first_repeat=1),
    ),
)


def scene(rng):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (2e4 + 1.5e5 * (1 + np.sin(x / 9) * np.cos(y / 7)) / 2).astype(np.float64) * rng.uniform(
        0.98, 1.02
    )


def take(path, *, seed=0, plan=PLAN, curve=None, alter=None, bits="Mono12", black=BLACK):
    """A session of an EMVA camera; ``alter(shot, electrons, dn)`` may spoil a frame."""
    rng = np.random.default_rng(seed)
    session = Session.create(path, plan, {})
    with session.writer() as writer:
        for shot in plan.shots():
            lit = scene(np.random.default_rng(1)) * shot.exposure_s if shot.lights else np.zeros(SHAPE)
            electrons = rng.poisson(lit) + rng.normal(0, READ, SHAPE)
            dn = np.clip(np.round(black + GAIN * electrons), 0, TOP)
            if curve is not None:
                dn = np.round(black + (TOP - black) * np.clip((dn - black) / (TOP - black), 0, 1) ** curve)
            if alter is not None:
                dn = alter(shot, dn)
            frame = Frame(
                dn=dn.astype(np.uint16), pixel_format=bits, exposure_s=shot.exposure_s, gain_db=shot.gain_db,
                frame_id=shot.index, timestamp_ns=1 + 60 * 10**9 * shot.index,
            )  # fmt: skip
            writer.put(shot, frame)
    session.finish()
    return session


@pytest.fixture(scope="module")
def sensor():
    return RadiometricModel(
        width=SHAPE[1], height=SHAPE[0], pixel_format="Mono12", black_dn=BLACK, gain_dn_per_e=GAIN,
        read_noise_e=READ, saturation_dn=TOP, black_sigma_dn=0.02,
    )  # fmt: skip


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return take(tmp_path_factory.mktemp("clean") / "session")


def verdicts(checks: SessionChecks) -> dict[str, str]:
    """The worst verdict of each name."""
    out: dict[str, str] = {}
    for check in checks.results:
        worst = ("ok", "warning", "fail")
        out[check.name] = max(out.get(check.name, "ok"), check.verdict, key=worst.index)
    return out


def text_of(checks: SessionChecks, name: str) -> str:
    return "\n".join(check.text for check in checks.results if check.name == name)


# --- a session without fault --------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True])
def test_a_good_session_passes_every_check(clean, sensor, known):
    checks = check_session(clean, sensor=sensor if known else None)
    assert set(verdicts(checks).values()) == {"ok"}
    assert not checks.failed
    assert "(14 min)" not in text_of(checks, "lamp drift")
    assert "between shots 2 and 10 (8 min)" in text_of(checks, "lamp drift")


def test_false_alarms_over_many_sessions(tmp_path, sensor):
    """Of 15 good sessions none may warn; at three sigma and 1 or 2 % chance alone gives fewer."""
    for seed in range(15):
        checks = check_session(take(tmp_path / str(seed), seed=seed), sensor=sensor)
        assert set(verdicts(checks).values()) == {"ok"}, (seed, checks)


def test_a_patch_is_judged_alone_and_across_poses(tmp_path, sensor):
    plan = CapturePlan(
        name="poses",
        blocks=tuple(block("object", (0.01,), pose=f"p{i}", lights=LIGHTS[:1]) for i in range(4)),
    )

    def fade(shot, dn):
        out = np.round(BLACK + (dn - BLACK) * (1 - 0.02 * shot.index))
        out[30:] = BLACK + 100 * shot.index  # the object changes, the patch does not
        return out

    session = take(tmp_path / "s", plan=plan, alter=fade)
    found = check_session(session, sensor=sensor, patch=(4, 4, 20, 20))
    assert verdicts(found)["lamp drift"] == "warning"
    told, sigma = (float(word) for word in text_of(found, "lamp drift").split()[2:5:2])
    assert told == pytest.approx(-6, abs=4 * sigma)
    assert "nothing to check with" in text_of(check_session(session, sensor=sensor), "lamp drift")
    with pytest.raises(FitError, match="not inside the frames of 80 x 60"):
        check_session(session, patch=(70, 0, 20, 20))


# --- faults that must be named ------------------------------------------------------------------------------


def fade(shot, dn):
    return np.round(BLACK + (dn - BLACK) * (1 - 0.004 * shot.index))


def lift(shot, dn):
    return dn + round(0.6 * shot.index)


def kill(shot, dn):
    if shot.light == "b":
        return np.round(np.random.default_rng(shot.index).normal(BLACK, GAIN * READ, SHAPE))
    return dn


def kill_all(shot, dn):
    return np.round(np.random.default_rng(shot.index).normal(BLACK, GAIN * READ, SHAPE))


def overexpose(shot, dn):
    out = dn.copy()
    if shot.light == "c":
        out[:10, :10] = TOP
    return out


def overexpose_long(shot, dn):
    return np.full(SHAPE, TOP) if shot.exposure_s > 0.015 else dn


def wrong_time(shot, dn):
    return np.round(BLACK + (dn - BLACK) * 1.15) if shot.exposure_s == 0.01 and shot.lights else dn


def automatic(shot, dn):
    return np.round(BLACK + (dn - BLACK) * 0.01 / shot.exposure_s)


def copy(shot, dn):
    if shot.light == "b" and shot.exposure_s == 0.02:
        return np.round(BLACK + scene(np.random.default_rng(1)) * 0.004)
    if shot.light == "c" and shot.exposure_s == 0.005:
        return np.round(BLACK + scene(np.random.default_rng(1)) * 0.004)
    return dn


@pytest.mark.parametrize(
    ("alter", "check", "verdict", "words"),
    [
        (fade, "lamp drift", "warning", "lamp 'a' -3."),
        (lift, "black drift", "warning", "+7.0"),
        (kill, "lamps", "fail", "dark in their own frames: object/b (shot 4)"),
        (kill_all, "lamps", "fail", "object: no more than noise in any of the 3 lit views"),
        (overexpose, "clipping", "warning", "saturated in every exposure: object/c: Y 2.1 %"),
        (overexpose_long, "clipping", "ok", "at most 0 %"),
        (wrong_time, "linearity", "fail", "at 0.01 s"),
        (automatic, "linearity", "fail", "does not follow the exposure"),
        (copy, "copies", "fail", "shots 6 and 7 are the same picture, taken as b 0.02 s and c 0.005 s"),
    ],
)
def test_a_fault_is_named(tmp_path, sensor, alter, check, verdict, words):
    found = check_session(take(tmp_path / "s", alter=alter), sensor=sensor)
    assert verdicts(found)[check] == verdict
    assert words in text_of(found, check)
    assert found.failed == ("fail" in verdicts(found).values())


@pytest.mark.parametrize("known", [False, True])
def test_a_tone_curve_fails_with_and_without_a_sensor_model(tmp_path, sensor, known):
    session = take(tmp_path / "s", curve=1 / 2.2)
    found = check_session(session, sensor=sensor if known else None)
    assert verdicts(found)["linearity"] == "fail"
    assert "a tone curve" in text_of(found, "linearity")


def test_black_cut_off_at_zero_is_told(tmp_path):
    found = check_session(take(tmp_path / "s", black=1.0))
    assert "of a dark frame is at 0 DN" in text_of(found, "clipped black")


def test_what_cannot_be_checked_says_what_to_take(tmp_path):
    plan = CapturePlan(name="bare", blocks=(block("object", (0.01,), lights=LIGHTS),))
    found = check_session(take(tmp_path / "s", plan=plan))
    for name in ("linearity", "lamp drift", "black drift"):
        assert verdicts(found)[name] == "warning"
        assert "nothing to check with" in text_of(found, name)
    assert not found.failed


def test_repeats_that_stand_close_together_do_not_pass_for_a_drift_check(tmp_path):
    poses = (block("object", (0.01,), pose=f"p{i}", lights=LIGHTS) for i in range(3))
    repeated = block("object", (0.01,), lights=LIGHTS[:1], repeats=2)
    plan = CapturePlan(name="close", blocks=(repeated, *poses))
    found = check_session(take(tmp_path / "s", plan=plan))
    assert "stand close together" in text_of(found, "lamp drift")


def test_drift_of_the_twin_is_found(mini, tmp_path):
    """The simulated rig with lamps that fade by 0.05 % and a black level that climbs 0.02 DN an exposure."""
    from rigs.simulated.truth import DriftFault

    data = conftest.plan_data("relief")
    lit = next(each for each in data["blocks"] if each.get("lights"))
    again = {**lit, "first_repeat": 1}
    plan = CapturePlan.model_validate({**data, "blocks": [*data["blocks"], again]})
    drift = DriftFault(kind="drift", lights=-5e-4, black_dn=0.0)
    truth = mini.known.replace(faults=(drift,))
    session = workflows.capture_session(mini.config, plan, tmp_path / "s", simulate=truth)
    shots = [r.shot for r in session.frames]
    first = next(s for s in shots if s.lights)
    last = next(s for s in shots if s.lights == first.lights and s.repeat == 1)
    found = check_session(session)
    assert verdicts(found)["lamp drift"] == "warning"
    want = -0.05 * (last.index - first.index) / (1 - 0.0005 * first.index)
    told = float(text_of(found, "lamp drift").split("' ")[1].split()[0])
    assert told == pytest.approx(want, abs=0.35)  # lamps differ by their place in the run


# --- gamma is refused where linear data are wanted ----------------------------------------------------------


def lights_of(names: Iterable[str]):
    from calibration.lights.model import DistantLight, LightSet

    directions = [(0.5, 0, -0.9), (-0.5, 0.2, -0.9), (0, -0.5, -0.9), (0, 0.6, -0.8)]
    return LightSet(
        lights={
            name: DistantLight(direction=tuple(np.array(d) / np.linalg.norm(d)), intensity=(1.0,))
            for name, d in zip(names, directions, strict=False)
        }
    )


def test_merge_and_reconstruct_refuse_a_tone_curve_seen_in_the_bracket(tmp_path):
    session = take(tmp_path / "s", curve=1 / 2.2)
    with pytest.raises(FitError, match=r"merge wants linear data: .* a tone curve"):
        list(workflows.merge_session(session, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(FitError, match=r"photometric stereo wants linear data: .* a tone curve"):
        workflows.reconstruct(session, lights_of(LIGHTS))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tagged_png(path: Path, image, *chunks: bytes) -> Path:
    data = cv2.imencode(".png", image)[1].tobytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def icc(curve: bytes, name: bytes = b"gTRC") -> bytes:
    return bytes(128) + struct.pack(">I4sII", 1, name, 144, len(curve)) + curve


STRAIGHT = icc(b"curv" + bytes(4) + struct.pack(">I", 0))
CURVED = icc(b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)))
SRGB_PARA = icc(
    b"para" + bytes(4) + struct.pack(">HH", 3, 0)
    + struct.pack(">5i", *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
)  # fmt: skip
TABLE = icc(b"curv" + bytes(4) + struct.pack(">I", 3) + struct.pack(">3H", 0, 14000, 65535))


@pytest.mark.parametrize(
    ("profile", "kind", "words"),
    [
        (STRAIGHT, "linear", "straight"),
        (CURVED, "gamma", "gamma 2.2"),
        (SRGB_PARA, "gamma", "gamma 2.2"),
        (TABLE, "gamma", "gamma 2.2"),
        (icc(b"mft2" + bytes(20)), "unknown", ""),
        (icc(CURVED[144:], b"A2B0"), "unknown", ""),
        (b"cut", "unknown", ""),
    ],
)
def test_the_curves_of_an_icc_profile_are_read(profile, kind, words):
    found = of_icc(profile)
    assert found.kind == kind
    assert words in found.why


@pytest.mark.parametrize(
    ("chunks", "kind", "why"),
    [
        ((), "unknown", ""),
        ((chunk(b"sRGB", b"\0"),), "gamma", "PNG sRGB chunk"),
        ((chunk(b"gAMA", struct.pack(">I", 45455)),), "suspected", "PNG gAMA chunk, 0.4546"),
        ((chunk(b"gAMA", struct.pack(">I", 100000)),), "linear", "PNG gAMA chunk, 1"),
        ((chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 45455))), "gamma", "PNG sRGB chunk"),
        ((chunk(b"cICP", bytes([1, 8, 0, 1])), chunk(b"sRGB", b"\0")), "linear", "PNG cICP chunk, linear"),
        ((chunk(b"cICP", bytes([9, 16, 0, 1])),), "gamma", "PNG cICP chunk, PQ"),
        ((chunk(b"iCCP", b"x\0\0" + zlib.compress(CURVED)),), "gamma", "ICC profile"),
        ((chunk(b"iCCP", b"x\0\0" + zlib.compress(STRAIGHT)), chunk(b"sRGB", b"\0")), "linear", "ICC"),
    ],
)
def test_what_png_chunks_say_of_a_tone_curve(tmp_path, chunks, kind, why):
    image = np.arange(48, dtype=np.uint16).reshape(6, 8) * 999
    found = read_image(tagged_png(tmp_path / "a.png", image, *chunks))
    np.testing.assert_array_equal(found.dn, image)
    assert found.encoding.kind == kind
    assert why in found.encoding.why


def test_what_tiff_tags_say_of_a_tone_curve(tmp_path):
    image = np.arange(48, dtype=np.uint16).reshape(6, 8)

    def told(**tags):
        tifffile.imwrite(tmp_path / "a.tif", image, **tags)
        picture = read_image(tmp_path / "a.tif")
        return picture.encoding.kind, picture.notes

    assert told() == ("unknown", ())
    assert told(iccprofile=CURVED)[0] == "gamma"
    assert told(iccprofile=STRAIGHT)[0] == "linear"
    kind, notes = told(software="darktable 4.6")
    assert kind == "unknown"
    assert notes == ("written by darktable 4.6: is its tone curve off?",)


@pytest.fixture
def tagged(tmp_path):
    """A folder of three lit 16-bit pictures whose PNGs carry an sRGB chunk."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,kind,light,exposure_s"]
    for light in (*LIGHTS, "dark", "dark2"):
        lit = scene(rng) * 0.01 if light in LIGHTS else np.zeros(SHAPE)
        dn = np.round(BLACK + GAIN * (rng.poisson(lit) + rng.normal(0, READ, SHAPE))).astype(np.uint16)
        tagged_png(folder / f"{light}.png", np.stack([dn] * 3, axis=-1), chunk(b"sRGB", b"\0"))
        lines.append(
            f"{light}.png,{'object' if light in LIGHTS else 'dark'},{light if light in LIGHTS else ''},0.01"
        )
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_tagged_pictures_are_refused_in_one_line_unless_told_linear(gnomon, tagged, tmp_path):
    answer = gnomon("import", "folder", tagged, tmp_path / "s")
    assert "warning: camera main: gamma-encoded, as its files say (5 files: PNG sRGB chunk)" in answer.err
    answer = gnomon("merge", tmp_path / "s", "--out", tmp_path / "out")
    assert answer.code == 4
    assert answer.err.count("\n") == 1
    for words in ("merge wants linear data", "PNG sRGB chunk", "calibrate response", "--assume-linear"):
        assert words in answer.err
    assert not (tmp_path / "out").exists()
    assert gnomon("session", "check", tmp_path / "s").code == 1

    assert gnomon("import", "folder", tagged, tmp_path / "t", "--assume-linear").code == 0
    told = Session.open(tmp_path / "t").facts["encoding"]["main"]
    assert told == {"kind": "linear", "why": "told so at the import, against 5 files: PNG sRGB chunk"}
    answer = gnomon("merge", tmp_path / "t", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert gnomon("session", "check", tmp_path / "t").code == 0


def test_a_response_model_lets_encoded_pictures_through(tagged, tmp_path):
    session = import_folder(tagged, tmp_path / "s")
    codes = np.arange(2**16, dtype=np.float64)
    response = RadiometricModel(
        width=SHAPE[1], height=SHAPE[0], pixel_format="RGB16", gain_dn_per_e=1.0, read_noise_e=5.0,
        saturation_dn=65535, response=((codes + 1) ** 2.2)[:, None],
    )  # fmt: skip
    assert list(workflows.merge_session(session, tmp_path / "out", sensor=response))


def test_calibration_of_lights_only_warns(mini, twin, captured, tmp_path):
    """Places of highlights and corners survive a tone curve; intensities do not, and say so."""
    source = captured("lights")
    shutil.copytree(source.path, tmp_path / "s")
    facts = {"encoding": {"top": {"kind": "gamma", "why": "24 files: JPEG"}},
             "warnings": ["24 files: JPEG is gamma-encoded and lossy"]}  # fmt: skip
    (tmp_path / "s" / "facts.json").write_text(json.dumps(facts))
    found = conftest.calibrate_lights(mini, Session.open(tmp_path / "s"), None, twin.lens("top"))
    warnings = found.lights.quality.warnings
    assert "import: 24 files: JPEG is gamma-encoded and lossy" in warnings
    assert any("intensities are wrong" in warning for warning in warnings)
    assert found.lights.quality.verdict == "doubtful"


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_prints_a_line_a_check_and_writes_what_the_report_shows(gnomon, clean, sensor, tmp_path):
    files.save_model(tmp_path / "sensor.json", sensor)
    out = tmp_path / "checks.json"
    answer = gnomon("session", "check", clean.path, "--sensor", tmp_path / "sensor.json", "--out", out)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert [line.split(":")[0].split()[0] for line in lines] == ["ok"] * len(lines)
    saved = files.load_model(out, SessionChecks)
    assert [f"{c.verdict:<8} {c.name}: {c.text}" for c in saved.results] == lines
    assert saved.provenance.session == clean.digest
    assert gnomon("report", tmp_path).code == 0
    page = (tmp_path / "report.html").read_text()
    assert "Session checks" in page
    assert "exponent" in page


def test_a_failed_check_exits_with_1(gnomon, tmp_path):
    take(tmp_path / "s", curve=1 / 2.2)
    answer = gnomon("session", "check", tmp_path / "s")
    assert answer.code == 1
    assert "fail     linearity" in answer.out


@pytest.mark.parametrize("patch", ["1,2,3", "a,b,c,d", "-1,0,5,5", "0,0,1,1"])
def test_a_bad_patch_is_one_line(gnomon, clean, patch):
    answer = gnomon("session", "check", clean.path, f"--patch={patch}")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "x,y" in answer.err or "x, y" in answer.err
