"""SDKs asked what they find, each in a process of its own: those that crash or hang take nobody with them."""

import time

import pytest

from capture.drivers import surveys


@pytest.fixture
def sdk(tmp_path, monkeypatch):
    """Makes an SDK that does something when it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name, does: (tmp_path / f"{name}.py").write_text(does)


def test_an_sdk_that_crashes_is_told_in_its_line(sdk, monkeypatch):
    monkeypatch.setattr(surveys, "SURVEY_S", 60.0)
    sdk("gphoto2", "import os; print('last words'); os.abort()")
    sdk("pypylon", "raise RuntimeError('no licence,\\nno camera')")
    found = surveys.ask(("gphoto2", "pylon"))
    assert found["gphoto2"].startswith("its SDK crashed while it looked for cameras")
    assert found["pylon"] == "its SDK cannot be used: no licence, no camera"


def test_an_sdk_that_hangs_is_given_up(sdk, monkeypatch):
    monkeypatch.setattr(surveys, "SURVEY_S", 0.5)
    sdk("pymmcore", "import time; time.sleep(60)")
    start = time.monotonic()
    assert surveys.ask(("micromanager",)) == {"micromanager": "its SDK does not answer within 0.5 s"}
    assert time.monotonic() - start < 20


def test_what_an_sdk_prints_is_not_taken_for_its_answer(sdk, monkeypatch):
    monkeypatch.setattr(surveys, "SURVEY_S", 60.0)
    sdk("pypylon", "print('welcome to pylon', end=''); raise ImportError('no runtime')")
    assert "pip install 'gnomon[pylon]'" in surveys.ask(("pylon",))["pylon"]
