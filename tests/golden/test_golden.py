"""Files of an earlier day are read as they were meant: a session, models, the expansion of a plan."""

import csv
import hashlib
import json
import shutil

import golden_files as golden
import numpy as np
import pytest

from calibration import files
from calibration.lens import LensModel
from capture.session import Session
from rigs.config import load_plan

DIGEST = "743dcaa83d109cbe6f9ae3ab4fc40ee0535cd3e2b8ea4cff5dd1390a74666294"


def test_session():
    session = Session.open(golden.HERE / "session")
    assert session.verify() == ()
    assert session.done
    assert session.plan == golden.small_plan()
    assert session.digest == DIGEST
    assert [record.shot.index for record in session.frames] == [0, 1, 3]
    assert [(record.shot.index, record.attempts) for record in session.skipped] == [(2, 3)]
    stack = session.stack()
    for image, record in zip(stack, session.frames, strict=True):
        assert np.array_equal(image, golden.pixels(record.shot))
    assert stack.lights == ("led1", "led1", "led2")
    assert record.black_level_dn == 64.0
    assert record.temperature_c == 27.5


def test_reading_changes_nothing(tmp_path):
    """Not even a lock file: an archive may be read-only."""
    copy = tmp_path / "session"
    shutil.copytree(golden.HERE / "session", copy)

    def state():
        return {
            path.relative_to(copy): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in copy.rglob("*")
            if path.is_file()
        }

    before = state()
    session = Session.open(copy)
    session.verify()
    session.stack()[0]
    assert state() == before


@pytest.mark.parametrize("name", sorted(golden.models()))
def test_model(name, tmp_path):
    expected = golden.models()[name]
    path = golden.HERE / f"{name}.json"
    assert files.load_model(path, type(expected)) == expected
    files.save_model(tmp_path / path.name, expected)
    written, kept = (json.loads(p.read_text()) for p in (tmp_path / path.name, path))
    # the packed arrays' bytes are their library's affair
    for document in (written, kept):
        if document["arrays"] is not None:
            document["arrays"].pop("sha256")
    assert written == kept


def test_a_lens_of_an_earlier_version_is_read_as_it_was_meant():
    lens = files.load_model(golden.HERE / "lens-earlier.json", LensModel)
    assert lens == golden.earlier_lens()
    assert lens.covariance.shape == (12, 12)
    assert lens.board is None


def test_plan_expands_as_the_table_says():
    with open(golden.HERE / "shots.csv", newline="") as file:
        expected = list(csv.reader(file))
    plan = load_plan(golden.HERE / "plan.yaml")
    assert golden.shots_table(plan) == expected
    assert plan.prompt("cat-09") == "put cat-09 on the stage"
