"""Sessions on disk: creation, reading, resuming, import. Killed processes: `test_killed`."""

import hashlib
import json

import numpy as np
import pytest
from capture_fakes import RIG, FakeScene, capture, frame, shot_lines, small_plan

from capture.plan import Block, CapturePlan, ExposureBracket
from capture.session import Session, SessionError, Stack


def test_a_session_comes_back_as_it_was(finished):
    session = Session.open(finished)
    assert session.plan == small_plan()
    assert session.rig == json.loads(json.dumps(RIG))
    assert session.facts == {}
    assert session.done
    assert session.pending() == ()
    assert session.skipped == ()
    assert session.verify() == ()
    assert [record.shot for record in session.frames] == list(small_plan().shots())
    for record in session.frames:
        assert hashlib.sha256((finished / record.file).read_bytes()).hexdigest() == record.sha256
        assert (record.black_level_dn, record.temperature_c, record.attempts) == (64.0, 31.5, 1)
        assert record.taken_at.endswith("+00:00")
    order = [json.loads(line)["shot"]["index"] for line in shot_lines(finished)]
    assert order == sorted(order)


def test_stack_reads_what_was_taken(finished):
    stack = Session.open(finished).stack()
    assert isinstance(stack, Stack)
    assert stack.shape == (26, 6, 8)
    assert stack.pixel_format == "Mono12"
    np.testing.assert_array_equal(stack.exposure_s, [record.exposure_s for record in stack.records])
    np.testing.assert_array_equal(stack.gain_db, np.zeros(26))
    for image, light, exposure_s, pose in zip(
        stack, stack.lights, stack.exposure_s, stack.poses, strict=True
    ):
        assert image.dtype == np.uint16
        assert not image.flags.writeable
        assert image[0, 0] == (2 ** (int(light[3:]) - 1) if light else 0)
        assert image[0, 1] == len(pose)
        assert image[1, 1] == round(exposure_s * 1e4)
    with pytest.raises(ValueError, match="read-only"):
        stack[0][0, 0] = 1
    with pytest.raises(IndexError):
        stack[26]
    np.testing.assert_array_equal(stack[-1], stack[25])
    assert len(stack[3:7]) == 4


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ({}, 26),
        ({"kind": "object"}, 24),
        ({"kind": ("object", "dark")}, 26),
        ({"kind": "sphere"}, 0),
        ({"pose": "cap"}, 2),
        ({"light": "led2"}, 6),
        ({"light": ("led2", "")}, 8),
        ({"exposure_s": 0.02}, 8),
        ({"exposure_s": (0.02, 0.04)}, 16),
        ({"repeat": 1}, 13),
        ({"light": "led3", "repeat": 0, "exposure_s": 0.01}, 1),
    ],
)
def test_select(finished, condition, count):
    stack = Session.open(finished).stack("main").select(**condition)
    assert len(stack) == count
    assert [record.shot.index for record in stack.records] == sorted(
        record.shot.index for record in stack.records
    )


def test_an_empty_selection_says_so_where_it_matters(finished):
    with pytest.raises(SessionError, match="no frame selected, so no size"):
        _ = Session.open(finished).stack().select(light="led9").shape


def test_cameras_are_named(finished, tmp_path):
    with pytest.raises(SessionError, match="no camera 'mian': it has main"):
        Session.open(finished).stack("mian")
    block = small_plan().blocks[0].replace(cameras=("left", "right"))
    session = Session.create(tmp_path / "two", CapturePlan(name="two", blocks=(block,)), {})
    with pytest.raises(SessionError, match="cameras left, right: name one"):
        session.stack()
    assert len(session.stack("left")) == 0


def test_digest_is_of_what_was_taken_not_of_when(finished, tmp_path):
    first = Session.open(finished)
    assert capture(tmp_path / "again", FakeScene()).digest == first.digest
    other = capture(tmp_path / "other", FakeScene(report=lambda exposure_s: exposure_s * 1.001))
    assert other.digest != first.digest


def test_create_refuses_a_folder_in_use(finished, tmp_path):
    with pytest.raises(SessionError, match="holds a session already"):
        Session.create(finished, small_plan(), RIG)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(SessionError, match="is not empty"):
        Session.create(tmp_path, small_plan(), RIG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(SessionError, match="is a file"):
        Session.create(tmp_path / "note.txt", small_plan(), RIG)
    with pytest.raises(SessionError, match="cannot be made here"):
        Session.create(tmp_path / "note.txt" / "session", small_plan(), RIG)


def test_create_takes_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert not Session.create(tmp_path / "empty", small_plan(), RIG).done


def test_rig_must_be_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Session.create(tmp_path / "s", small_plan(), {"exposure_s": float("nan")})
    assert not (tmp_path / "s").exists()


def test_what_is_no_session_is_named(tmp_path):
    with pytest.raises(SessionError, match="nowhere: no such folder"):
        Session.open(tmp_path / "nowhere")


def test_resume_refuses_another_plan_or_rig_and_says_what_differs(done):
    plan = small_plan()
    longer = plan.replace(
        blocks=(
            plan.blocks[0].replace(bracket=ExposureBracket(exposures_s=(0.01, 0.02, 0.08))),
            plan.blocks[1],
        )
    )
    with pytest.raises(
        SessionError, match=r"plan\.blocks\.0\.bracket\.exposures_s\.2 was 0\.04, is now 0\.08"
    ):
        Session.resume(done, longer, RIG)
    rig = json.loads(json.dumps(RIG))
    rig["cameras"]["main"]["readout_s"] = 0.5
    rig["cameras"]["side"] = {}
    message = (
        r"rig\.cameras\.main\.readout_s was 0\.01, is now 0\.5; rig\.cameras\.side is not in the session"
    )
    with pytest.raises(SessionError, match=message):
        Session.resume(done, plan, rig)
    assert Session.resume(done, plan, RIG).done


def test_import_of_foreign_images(tmp_path):
    """One block per picture: the way images that no rig took become a session."""
    pictures = [
        frame(200, (4, 5, 3), np.uint8, "RGB8", exposure_s=0.125),
        frame(0.5, (4, 5), np.float32, "Mono32f", exposure_s=1.0),
        frame(4000, (4, 5), np.uint16, "BayerRG12"),
    ]
    blocks = tuple(
        Block(
            kinds=("object", "sphere"),
            pose=f"picture-{number}",
            cameras=("imported",),
            bracket=ExposureBracket(exposures_s=(picture.exposure_s,)),
        )
        for number, picture in enumerate(pictures)
    )
    session = Session.create(
        tmp_path / "s", CapturePlan(name="import", blocks=blocks), {}, {"from": "folder"}
    )
    with session.writer() as writer:
        for shot, picture in zip(session.plan.shots(), pictures, strict=True):
            writer.put(shot, picture)
    session.finish()
    again = Session.open(session.path)
    assert again.verify() == ()
    stack = again.stack("imported")
    for image, picture in zip(stack, pictures, strict=True):
        np.testing.assert_array_equal(image, picture.dn)
        assert image.dtype == picture.dn.dtype
    says = r"differ in pixel format: frames/000001.tif has Mono32f, frames/000000.tif RGB8: select some"
    with pytest.raises(SessionError, match=says):
        _ = stack.pixel_format
    with pytest.raises(SessionError, match="differ in size"):
        _ = stack.shape
