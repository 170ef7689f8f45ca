"""The disk's own time is not tested here: only what is asked of it, and in which order."""

import os
import signal
from contextlib import ExitStack

import pytest
from capture_fakes import RIG, FakeScene, capture, small_plan
from dome_counterparts import COUNTERPARTS, WATCHDOG_S, Emulated
from firmware_client import Domes

from capture.drivers.dome import controller as controller_module
from capture.drivers.dome import exchange as exchange_module
from capture.session import Session

# Behind a shell's `&`, where it is ignored, what the tests start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """SIGKILL loses nothing that was written; only a power cut would, and no test can cut it."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda handle: None)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def domes():
    """The dome's firmware on the emulated chip, by board and settings."""
    with Domes() as domes:
        yield domes


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a session of the small plan, all taken."""
    path = tmp_path_factory.mktemp("finished") / "session"
    capture(path, FakeScene())
    return path


@pytest.fixture
def done(finished, tmp_path):
    """A copy that may be damaged."""
    path = tmp_path / "session"
    (path / "frames").mkdir(parents=True)
    for file in finished.rglob("*.*"):
        (path / file.relative_to(finished)).write_bytes(file.read_bytes())
    return path


@pytest.fixture
def session(tmp_path):
    """A session of the small plan, nothing taken."""
    return Session.create(tmp_path / "session", small_plan(), RIG)


@pytest.fixture
def short_times(monkeypatch):
    """Tests of what two seconds do to a dome's driver would take two seconds."""
    monkeypatch.setattr(controller_module, "WATCHDOG_S", WATCHDOG_S)
    monkeypatch.setattr(controller_module, "REPLY_S", 0.01)
    monkeypatch.setattr(controller_module, "REQUEST_S", 0.3)
    monkeypatch.setattr(exchange_module, "REQUEST_S", 0.3)


@pytest.fixture(params=COUNTERPARTS)
def dome(request):
    """A dome's controller, emulated in Python or by its firmware on the emulated chip."""
    with ExitStack() as stack:
        yield COUNTERPARTS[request.param](stack)


@pytest.fixture
def make_emulated():
    with ExitStack() as stack:
        yield lambda **board: Emulated(stack, **board)


@pytest.fixture
def emulated(make_emulated):
    return make_emulated()
