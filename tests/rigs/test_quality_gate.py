"""The gate of a plan on the twin: lights that stay dark, knocks, saturation, blur, and no false alarm."""

from contextlib import closing

import cv2
import numpy as np
import pytest
from conftest import WIDTH, MiniRig

from capture.devices import DeviceError
from capture.drivers.simulated import SimulatedCamera
from capture.frame import Frame
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence, QualityGate, Shot
from capture.runner import run
from capture.runner.quality import QualityCheck
from capture.session import Session, SkipRecord
from rigs import workflows
from rigs.rig import open_rig
from rigs.simulated import Truth, Twin

LIT = ("led01", "led05", "led09")


def plan_of(quality: QualityGate | None, exposures_s: tuple[float, ...] = (0.02,)) -> CapturePlan:
    """Ambient, three lights, ambient again."""

    def ambient(repeat: int) -> Block:
        return Block(
            kinds="ambient",
            pose="relief",
            cameras="top",
            bracket=ExposureBracket(exposures_s=exposures_s),
            first_repeat=repeat,
        )

    lit = Block(
        kinds="object",
        pose="relief",
        cameras="top",
        lights=LightSequence(names=LIT),
        bracket=ExposureBracket(exposures_s=exposures_s),
    )
    return CapturePlan(name="gated", blocks=(ambient(0), lit, ambient(1)), quality=quality)


def capture(mini: MiniRig, tmp_path, quality, faults=(), **changes):
    truth = mini.known.replace(faults=tuple(faults))
    assert isinstance(truth, Truth)
    return workflows.capture_session(
        mini.config, plan_of(quality, **changes), tmp_path / "session", simulate=truth
    )


STRICT = QualityGate(max_saturated=0.001, max_shift_px=0.5, min_sharpness=0.9)


def test_a_good_run_raises_no_alarm(mini, tmp_path):
    session = capture(mini, tmp_path, STRICT, exposures_s=(0.002, 0.02))
    assert not session.skipped
    assert {record.attempts for record in session.frames} == {1}


def dead(light, **changes):
    return {"kind": "dead_light", "light": light} | changes


def faulty(mini, *faults):
    return Truth.model_validate(mini.known.model_dump() | {"faults": faults}).faults


def test_a_light_that_stays_dark_once_is_lit_again(mini, tmp_path):
    session = capture(mini, tmp_path, QualityGate(), faulty(mini, dead("led05", count=1)))
    assert not session.skipped
    (again,) = [record for record in session.frames if record.attempts > 1]
    assert again.shot.light == "led05"
    assert len(again.reasons) == again.attempts - 1
    assert again.reasons[0].startswith("led05: did not light: ")
    image = session.stack("top")[session.frames.index(again)]
    assert image.mean() > 1.05 * session.stack("top")[0].mean()


def test_a_light_that_is_dead_is_skipped_by_name(mini, tmp_path):
    session = capture(mini, tmp_path, QualityGate(), faulty(mini, dead("led09")))
    assert {record.shot.light for record in session.skipped} == {"led09"}
    assert all("led09: did not light" in record.reason for record in session.skipped)


def test_without_a_gate_nobody_looks(mini, tmp_path):
    session = capture(mini, tmp_path, None, faulty(mini, dead("led09")))
    assert not session.skipped


def frame_of(twin, lights, exposure_s=0.02, shift=0.0):
    camera = SimulatedCamera("top", twin._limits["top"], twin)
    with camera:
        for name, level in lights.items():
            twin.set_light(name, level)
        frame = camera.expose(exposure_s, 0.0, 1.0)
        for name in lights:
            twin.set_light(name, 0.0)
    if not shift:
        return frame
    move = np.array([[1, 0, shift], [0, 1, 0]], dtype=np.float64)
    moved = cv2.warpAffine(frame.dn, move, frame.dn.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    return Frame(moved, "Mono12", exposure_s, 0.0, 1, 1, frame.black_level_dn)


@pytest.fixture
def twin(mini):
    made = Twin(mini.known, mini.config.limits.cameras)
    made.show("relief")
    return made


def shot_of(kind="ambient", lights=None):
    return Shot(index=0, kinds=kind, pose="relief", camera="top", lights=lights or {}, exposure_s=0.02)


def test_a_move_between_ambient_frames_is_measured(twin):
    """Any lit picture serves: what counts is that both are alike but for the move."""
    gate = QualityCheck(QualityGate(lit=False, max_shift_px=1.0), [shot_of()] * 2)
    lights = {"led01": 1.0}
    gate.accept(frame_of(twin, lights), shot_of())
    gate.accept(frame_of(twin, lights, shift=0.5), shot_of())
    with pytest.raises(DeviceError, match=r"top: the picture has moved by 2\.[3-7] px .* may by 1:"):
        gate.accept(frame_of(twin, lights, shift=2.5), shot_of())


def test_pictures_of_a_pose_that_is_over_are_let_go(twin):
    """A plan may have many: of a forgotten one, what comes is the first again."""
    near, far = shot_of(), shot_of().replace(pose="far")
    gate = QualityCheck(QualityGate(lit=False, max_shift_px=1.0), [near, far] * 2)
    still, moved = (frame_of(twin, {"led01": 1.0}, shift=shift) for shift in (0.0, 2.5))
    for shot in (near, far):
        gate.accept(still, shot)
    gate.forget("far")
    assert gate.accept(moved, far) == {}
    with pytest.raises(DeviceError, match="has moved"):
        gate.accept(moved, near)


def test_a_run_lets_go_of_a_pose_with_its_last_shot(mini, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(QualityCheck, "accept", lambda gate, frame, shot: told.append(shot.pose) or {})
    monkeypatch.setattr(QualityCheck, "forget", lambda gate, pose: told.append(f"{pose} is over"))
    one = plan_of(STRICT)
    there, back = one.blocks[0].replace(pose="glossy"), one.blocks[2]
    plan = one.replace(blocks=(one.blocks[0], there, back))
    workflows.capture_session(mini.config, plan, tmp_path / "session", simulate=mini.known)
    assert told == ["relief", "glossy", "glossy is over", "relief", "relief is over"]


def test_a_hand_in_one_corner_is_no_knock(twin):
    gate = QualityCheck(QualityGate(lit=False, max_shift_px=1.0), [shot_of()] * 2)
    picture = frame_of(twin, {"led01": 1.0}).dn
    gate.accept(Frame(picture.copy(), "Mono12", 0.02, 0.0, 1, 1, 64.0), shot_of())
    hand = picture.copy()
    hand[:150, :240] = np.roll(hand[:150, :240], 9, axis=1)
    gate.accept(Frame(hand, "Mono12", 0.02, 0.0, 2, 2, 64.0), shot_of())


def test_pictures_of_nothing_have_not_moved():
    rng = np.random.default_rng(1)
    gate = QualityCheck(QualityGate(lit=False, max_shift_px=0.1), [shot_of()] * 2)
    for _ in range(20):
        noise = (64 + rng.normal(0, 3, (300, WIDTH))).astype(np.uint16)
        gate.accept(Frame(noise, "Mono12", 0.02, 0.0, 1, 1, 64.0), shot_of())


def test_blur_is_measured_against_the_first_frame(twin):
    lights = {"led01": 1.0}
    shot = shot_of("object", lights)
    gate = QualityCheck(QualityGate(lit=False, min_sharpness=0.8), [shot, shot])
    sharp = frame_of(twin, lights)
    gate.accept(sharp, shot)
    gate.accept(frame_of(twin, lights), shot)
    blurred = Frame(cv2.GaussianBlur(sharp.dn, (0, 0), 2.0), "Mono12", 0.02, 0.0, 1, 1, 64.0)
    with pytest.raises(DeviceError, match="of the first one's sharpness and must have 80%"):
        gate.accept(blurred, shot)


def test_saturation_beyond_the_allowance(twin):
    shot = shot_of("object", {"led01": 1.0})
    picture = np.full((10, 20), 100, np.uint16)
    picture[0, :3] = 4095
    frame = Frame(picture, "Mono12", 0.02, 0.0, 1, 1, 64.0)
    QualityCheck(QualityGate(lit=False, max_saturated=0.015), [shot]).accept(frame, shot)
    with pytest.raises(DeviceError, match=r"1\.50% of the pixels are saturated at 0\.02 s and 1\.00% may be"):
        QualityCheck(QualityGate(lit=False, max_saturated=0.01), [shot]).accept(frame, shot)


def test_the_first_light_is_judged_by_black(twin):
    shot = shot_of("object", {"led01": 1.0})
    black = Frame(np.full((10, 20), 64, np.uint16), "Mono12", 0.02, 0.0, 1, 1, 64.0)
    with pytest.raises(DeviceError, match=r"led01: did not light: 0 DN in 0\.02 s above black"):
        QualityCheck(QualityGate(), [shot]).accept(black, shot)
    unknown = Frame(np.full((10, 20), 64, np.uint16), "Mono12", 0.02, 0.0, 1, 1)
    QualityCheck(QualityGate(), [shot]).accept(unknown, shot)


def noisy(signal, rng, sigma=3.0):
    dn = np.clip(np.rint(64 + signal + rng.normal(0, sigma, signal.shape)), 0, 4095)
    return Frame(dn.astype(np.uint16), "Mono12", 0.02, 0.0, 1, 1, 64.0)


@pytest.fixture(scope="module")
def detail():
    """A scene whose detail is weaker than the noise of a pixel: sigma 2 DN, some px in size."""
    rough = cv2.GaussianBlur(
        np.random.default_rng(99).normal(size=(320, WIDTH)).astype(np.float32), (0, 0), 1.5
    )
    return 2 * rough / rough.std()


@pytest.mark.parametrize("seed", range(5))
def test_moves_are_told_below_the_noise_and_their_absence_too(detail, seed):
    rng = np.random.default_rng(seed)
    lit = shot_of("object", {"led01": 1.0})  # in a dark room a lit frame that is repeated tells
    gate = QualityCheck(QualityGate(lit=False, max_shift_px=1.0), [lit, lit])
    gate.accept(noisy(detail, rng), lit)
    assert gate.accept(noisy(detail, rng), lit)["shift_px"] < 0.5
    with pytest.raises(DeviceError, match=r"moved by [23]\.\d px since the first frame taken alike"):
        gate.accept(noisy(np.roll(detail, 3, axis=1), rng), lit)


def test_specks_of_noise_below_the_last_digit_have_not_moved():
    rng = np.random.default_rng(1)
    gate = QualityCheck(QualityGate(lit=False, max_shift_px=0.1), [shot_of()] * 2)
    for _ in range(20):
        gate.accept(noisy(np.full((300, WIDTH), 0.1), rng, 0.25), shot_of())


def test_a_small_thing_in_an_empty_picture_has_moved_too(detail):
    alone = np.where(np.arange(WIDTH) < 200, 8 * detail, 0)
    alone[160:] = 0
    lit, rng = shot_of("object", {"led01": 1.0}), np.random.default_rng(1)
    gate = QualityCheck(QualityGate(lit=False, max_shift_px=1.0), [lit, lit])
    gate.accept(noisy(alone, rng), lit)
    with pytest.raises(DeviceError, match="has moved by 3"):
        gate.accept(noisy(np.roll(alone, 3, axis=1), rng), lit)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_detail(detail, seed):
    """Blur takes the detail and leaves the noise, which has more energy; noise alone is never blurred."""
    rng = np.random.default_rng(seed)
    gate = QualityCheck(QualityGate(lit=False, min_sharpness=0.8), [shot_of()] * 2)
    gate.accept(noisy(8 * detail, rng, 8.0), shot_of())
    assert gate.accept(noisy(8 * detail, rng, 8.0), shot_of())["sharpness"] == pytest.approx(1, abs=0.05)
    with pytest.raises(DeviceError, match="of the first one's sharpness"):
        gate.accept(noisy(cv2.blur(8 * detail, (7, 1)), rng, 8.0), shot_of())
    nothing = QualityCheck(QualityGate(lit=False, min_sharpness=0.99), [shot_of()] * 2)
    for _ in range(4):
        assert nothing.accept(noisy(0 * detail, rng), shot_of()) == {}


def test_a_resumed_run_holds_frames_against_those_of_the_first(mini, tmp_path):
    """The last light is dead in the second run, which sees no other: only the first knows what they give."""
    plan = plan_of(QualityGate(max_saturated=0.5))
    path = tmp_path / "session"
    snapshot = mini.config.model_dump(mode="json", exclude={"calibrations", "geometry"})
    session = Session.create(path, plan, snapshot)
    with open_rig(mini.config, mini.known) as rig, closing(run(plan, rig, session)) as events:
        list(events)
    first = next(record.shot.index for record in session.frames if record.shot.light == LIT[-1])
    dark = mini.known.replace(ambient=0.0, faults=faulty(mini, dead(LIT[-1])))
    for record in session.frames[first:]:
        (path / record.file).unlink()
    again = Session.resume(path, plan, snapshot)
    with open_rig(mini.config, dark) as rig, closing(run(plan, rig, again)) as events:
        skipped = [event.shot.light for event in events if isinstance(event.record, SkipRecord)]
    assert set(skipped) == {LIT[-1]}
    assert all(record.checks["saturated"] < 0.5 for record in again.frames)
