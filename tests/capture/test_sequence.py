"""Hardware-timed sequences: what is taken in one go, and which frame is of which light."""

from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import pytest
from capture_fakes import CAMERA, LIGHT, NAMES, RIG, FakeRig, FakeScene, small_plan
from hypothesis import assume, given
from hypothesis import strategies as st

from capture.devices import DeviceError, DeviceLost, FrameLost, NotReady, SequencedLight, TriggeredCamera
from capture.drivers.simulated import (
    SimulatedLight,
    SimulatedOperator,
    SimulatedSequencedLight,
    SimulatedSequencer,
    SimulatedTriggeredCamera,
)
from capture.frame import Frame
from capture.plan import Block, CapturePlan, ExposureBracket, Shot
from capture.runner import RunControl, RunSettings, run
from capture.runner.watch import Watch
from capture.session import Session

CAMERA = CAMERA.replace(sequence=True)
STEPPED = LIGHT.replace(sequence=True)


class Counting(SimulatedSequencer):
    """Remembers what it was armed with; ``glitch`` changes what it counts, once."""

    glitch = 0

    def __init__(self, scene, max_steps=128):
        super().__init__(scene, max_steps)
        self.armed = []

    def arm(self, steps):
        self.armed.append([(tuple(levels), count) for levels, count in steps])
        super().arm(steps)

    def stop(self):
        glitch, self.glitch = self.glitch, 0
        return super().stop() + glitch


@dataclass
class Bench:
    """An open rig whose lights one controller steps."""

    scene: FakeScene
    rig: FakeRig
    sequencer: Counting


@pytest.fixture
def bench():
    with ExitStack() as stack:
        yield open_bench(stack, FakeScene())


def open_bench(stack, scene, limits=CAMERA, light=STEPPED, max_steps=128, camera=SimulatedTriggeredCamera):
    sequencer = Counting(scene, max_steps)
    cameras = {"main": stack.enter_context(camera("main", limits, scene, sequencer))}
    lights = {
        name: stack.enter_context(SimulatedSequencedLight(name, light, scene, sequencer)) for name in NAMES
    }
    return Bench(scene, FakeRig(cameras, lights, SimulatedOperator(scene)), sequencer)


@pytest.fixture
def session(tmp_path):
    return Session.create(tmp_path / "session", small_plan(), RIG)


def take(bench, session, control=None, **settings):
    settings = RunSettings(**settings)
    with closing(run(session.plan, bench.rig, session, control=control, settings=settings)) as events:
        return list(events)


def assert_right(session):
    """Every frame shows the light and exposure of its shot: the scene writes them into the pixels."""
    for record, image in zip(session.frames, session.stack("main"), strict=True):
        lit = sum(2 ** (int(name[3:]) - 1) for name in record.shot.lights)
        assert image[0, 0] == lit
        assert image[1, 1] == round(record.shot.exposure_s * 1e4)


def test_the_devices_keep_the_protocols(bench):
    assert isinstance(bench.rig.cameras["main"], TriggeredCamera)
    assert isinstance(bench.rig.lights["led1"], SequencedLight)


def test_a_sequence_steps_through_the_lights(bench, session):
    take(bench, session)
    assert session.done
    assert_right(session)
    assert bench.sequencer.armed == [[((name,), 3) for _ in range(2) for name in NAMES]]
    assert [record.attempts for record in session.frames] == [1] * 26
    assert not any(bench.scene.levels.values())


def test_it_gives_what_timing_by_the_computer_gives(bench, session, tmp_path):
    take(bench, session)
    other = Session.create(tmp_path / "other", small_plan(), RIG)
    with ExitStack() as stack:
        take(open_bench(stack, FakeScene(), limits=CAMERA.replace(sequence=False)), other)
    for ours, theirs in zip(session.stack("main"), other.stack("main"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_dark_shots_are_steps_too(tmp_path):
    dark = Block(
        kinds="ambient", pose="relief", cameras="main", bracket=ExposureBracket(exposures_s=(0.01, 0.02))
    )
    plan = CapturePlan(name="with ambient", blocks=(dark, small_plan().blocks[0]))
    session = Session.create(tmp_path / "session", plan, RIG)
    with ExitStack() as stack:
        bench = open_bench(stack, FakeScene())
        take(bench, session)
        assert bench.sequencer.armed[0][:2] == [((), 2), (("led1",), 3)]
    assert_right(session)


def test_long_sequences_are_taken_in_parts(session):
    with ExitStack() as stack:
        bench = open_bench(stack, FakeScene(), max_steps=3)
        take(bench, session)
        assert [len(steps) for steps in bench.sequencer.armed] == [3, 3, 2]
    assert_right(session)


def test_what_is_held_is_bounded(session, bench):
    take(bench, session, held_bytes=5 * (2 * 6 * 8 + 2048))
    assert [sum(count for _, count in steps) for steps in bench.sequencer.armed] == [5] * 4 + [4]
    assert_right(session)


def test_frames_too_large_to_hold_are_timed_by_the_computer(session, bench):
    take(bench, session, held_bytes=0)
    assert not bench.sequencer.armed
    assert_right(session)


@pytest.mark.parametrize(
    ("limits", "light"),
    [
        (CAMERA.replace(sequence=False), STEPPED),
        (CAMERA, LIGHT),
        (CAMERA, STEPPED.replace(settle_s=CAMERA.readout_s + 0.001)),
    ],
    ids=["camera not wired", "lights not wired", "lights slower than the readout"],
)
def test_what_cannot_be_sequenced_is_timed_by_the_computer(session, limits, light):
    with ExitStack() as stack:
        bench = open_bench(stack, FakeScene(), limits=limits, light=light)
        take(bench, session)
        assert not bench.sequencer.armed
    assert_right(session)


def test_lights_of_another_controller_are_dark_meanwhile(session):
    with ExitStack() as stack:
        bench = open_bench(stack, FakeScene())
        lamp = stack.enter_context(SimulatedLight("led4", LIGHT, bench.scene))
        bench.rig.lights["led4"] = lamp
        take(bench, session)
        assert [names for names, _ in bench.sequencer.armed[0]] == [("led1",), ("led2",), ("led3",)]
    assert_right(session)


# ---------------------------------------------------------------- frames that do not come


class Losing(FakeScene):
    """Loses the frames of some exposures, with or without a gap in the numbers."""

    def __init__(self, lost, counted=True):
        super().__init__()
        self.lost, self.counted, self.exposures, self.clock_ns = set(lost), counted, 0, 0

    def expose(self, camera, exposure_s, gain_db):
        number, start_ns = self.exposures, self.clock_ns
        self.exposures += 1
        self.clock_ns += round(1e9 * (exposure_s + CAMERA.readout_s))
        if number in self.lost:
            self.frames += self.counted
            raise FrameLost(camera, "lost on the way")
        frame = super().expose(camera, exposure_s, gain_db)
        return Frame(frame.dn.copy(), "Mono12", exposure_s, gain_db, frame.frame_id, start_ns)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("lost", [{5}, {3, 4}, {4, 11}, {23}])
def test_only_the_shot_of_a_lost_frame_is_taken_again(session, lost, counted):
    with ExitStack() as stack:
        bench = open_bench(stack, Losing(lost, counted))
        take(bench, session)
        assert bench.scene.exposures == 26 + len(lost)
    assert_right(session)
    assert {record.shot.index for record in session.frames if record.attempts == 2} == lost


def test_a_loss_that_nothing_places_has_everything_taken_again(tmp_path):
    """Equal exposures: whether the first or the last frame is missing, nothing says."""
    block = small_plan().blocks[0].replace(bracket=ExposureBracket(exposures_s=(0.01,)), repeats=1)
    session = Session.create(tmp_path / "session", CapturePlan(name="equal", blocks=(block,)), RIG)
    with ExitStack() as stack:
        bench = open_bench(stack, Losing({0}, counted=False))
        take(bench, session)
        assert len(bench.sequencer.armed) == 2
    assert_right(session)
    assert [record.attempts for record in session.frames] == [2] * 4


@pytest.mark.parametrize("glitch", [1, -1, 3])
def test_a_count_that_does_not_fit_has_everything_taken_again(bench, session, glitch):
    bench.sequencer.glitch = glitch
    take(bench, session)
    assert len(bench.sequencer.armed) == 2
    assert_right(session)
    assert [record.attempts for record in session.frames] == [2] * 24 + [1] * 2


def test_a_shot_that_never_comes_is_skipped_with_the_reason(session):
    with ExitStack() as stack:
        scene = Losing(())
        bench = open_bench(stack, scene)
        scene.fault = lambda camera, exposure_s: fail_when(scene.levels.get("led2") and exposure_s == 0.02)
        take(bench, session)
    assert [record.shot.index for record in session.skipped] == [4, 16]
    assert {record.reason for record in session.skipped} == {"main: no frame came of its exposure"}
    assert {record.attempts for record in session.skipped} == {3}
    assert_right(session)


def fail_when(wanted):
    if wanted:
        raise FrameLost("main", "lost on the way")


class GivesUp(SimulatedTriggeredCamera):
    """Takes no more of a burst after a frame that was lost."""

    def burst(self, settings, deadline_s):
        for exposure_s, gain_db in settings:
            try:
                frame = self.expose(exposure_s, gain_db, deadline_s)
            finally:
                self._sequencer.exposed()
            yield frame


def test_a_shot_whose_turn_did_not_come_loses_no_attempt(session):
    """The camera gives up at each loss, more often than a shot is tried."""
    with ExitStack() as stack:
        bench = open_bench(stack, Losing({2, 6, 11, 15, 20}), camera=GivesUp)
        take(bench, session)
    assert_right(session)
    assert session.skipped == ()
    assert sorted(record.attempts for record in session.frames) == [1] * 21 + [2] * 5


def test_a_wrong_exposure_costs_its_shot_only(session):
    with ExitStack() as stack:
        scene = FakeScene()
        bench = open_bench(stack, scene)
        scene.report = lambda exposure_s: exposure_s * (2 if scene.frames == 8 else 1)
        take(bench, session)
    again = [record.shot.index for record in session.frames if record.attempts == 2]
    assert again == [7]


def test_a_controller_that_refuses_is_asked_again_and_told(bench, session):
    def refuse(steps):
        raise DeviceError("dome", "NAK")

    bench.sequencer.arm = refuse
    take(bench, session)
    assert {record.reason for record in session.skipped} == {"dome: NAK"}
    assert {record.attempts for record in session.skipped} == {3}


def test_a_controller_that_is_not_ready_is_waited_for(bench, session, monkeypatch):
    monkeypatch.setattr("capture.runner.take._POLL_S", 0.001)
    arm, tries = bench.sequencer.arm, iter(range(5))

    def refuse(steps):
        if next(tries, None) is not None:
            raise NotReady("dome", "too hot: let it cool")
        arm(steps)

    bench.sequencer.arm = refuse
    take(bench, session)
    assert {record.attempts for record in session.frames} == {1}
    assert not session.skipped


def test_a_camera_that_is_gone_ends_the_run_dark_and_resumable(bench, session):
    bench.scene.fault = lambda *_: vanish(bench.scene.frames == 7)
    with pytest.raises(DeviceLost, match="unplugged; the frames taken are safe"):
        take(bench, session)
    assert not any(bench.scene.levels.values())
    bench.scene.fault = None
    again = Session.resume(session.path, session.plan, RIG)
    take(bench, again)
    assert again.done
    assert_right(again)


def vanish(now):
    if now:
        raise DeviceLost("main", "unplugged")


def test_cancelling_gives_the_part_up_and_leaves_it_pending(bench, session):
    control = RunControl()
    bench.scene.fault = lambda *_: control.cancel() if bench.scene.frames == 7 else None
    take(bench, session, control=control)
    assert not session.frames
    assert not any(bench.scene.levels.values())
    assert bench.scene.frames == 8


# ---------------------------------------------------------------- which frame is which


def frames_of(places, ids, exposures_s):
    starts = np.concatenate([[0.0], np.cumsum(np.array(exposures_s) + 0.012)])
    dn = np.zeros((6, 8), np.uint16)
    return [
        Frame(dn.copy(), "Mono12", exposures_s[place], 0.0, number, round(1e9 * starts[place]))
        for place, number in zip(places, ids, strict=True)
    ]


@given(
    exposures_s=st.lists(st.sampled_from([0.01, 0.02, 0.04]), min_size=3, max_size=24),
    lost=st.sets(st.integers(0, 23), max_size=4),
    counted=st.booleans(),
    first=st.integers(0, 1000),
    data=st.data(),
)
def test_a_frame_is_never_given_to_another_shot(exposures_s, lost, counted, first, data):
    """Cameras that count what they lose and cameras that do not; a clock that runs 1 % off."""
    count = len(exposures_s)
    places = [place for place in range(count) if place not in lost]
    assume(places)
    ids = [first + (place if counted else number) for number, place in enumerate(places)]
    shots = [
        Shot(index=place, kinds="object", pose="p", camera="main", exposure_s=exposure_s)
        for place, exposure_s in enumerate(exposures_s)
    ]
    watch = Watch(SimulatedTriggeredCamera("main", CAMERA, FakeScene()), 0.01)
    frames = frames_of(places, ids, exposures_s)
    try:
        answers, reasons = watch.accept_sequence(frames, shots, count)
    except FrameLost:
        assert len(places) < count
        return
    assert list(answers) == places
    assert [frame.frame_id for frame in answers.values()] == ids
    assert set(answers) | set(reasons) == set(range(count))


def test_a_frame_that_comes_twice_moves_no_other_to_the_next_light():
    """With numbers of its own, and the last one not waited for, the counts agree: the times do not."""
    exposures_s = [0.01, 0.02, 0.01, 0.01, 0.01]
    shots = [
        Shot(index=place, kinds="object", pose="p", camera="main", exposure_s=exposure_s)
        for place, exposure_s in enumerate(exposures_s)
    ]
    watch = Watch(SimulatedTriggeredCamera("main", CAMERA, FakeScene()), 0.01)
    frames = frames_of(range(5), range(7, 12), exposures_s)
    assert len(watch.accept_sequence(frames, shots, 5)[0]) == 5
    doubled = frames_of([0, 1, 2, 2, 3], range(7, 12), exposures_s)
    with pytest.raises(FrameLost, match="one came twice"):
        watch.accept_sequence(doubled, shots, 5)
