"""The disk's own time is not tested here: only what is asked of it, and in which order."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """SIGKILL loses nothing that was written; only a power cut would, and no test can cut it."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda handle: None)
    yield
    patch.undo()
