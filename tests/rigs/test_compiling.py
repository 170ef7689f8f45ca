"""The first run says why it waits, by the events that numba sends of real compilations."""

import time

import pytest
from numba import njit
from numba.core import event

from rigs.cli import compiling, options


@pytest.fixture
def told(monkeypatch):
    """Lines said so far; the listener is taken away after the test."""
    lines, listeners = [], []
    register = event.register

    def kept(kind, listener):
        if kind == "numba:compile":  # numba registers timers of its own
            listeners.append((kind, listener))
        register(kind, listener)

    monkeypatch.setattr(event, "register", kept)
    compiling.tell_of_compiling.cache_clear()
    compiling.tell_of_compiling(lines.append)
    yield lines
    for kind, listener in listeners:
        event.unregister(kind, listener)
    compiling.tell_of_compiling.cache_clear()


def compile_for(seconds, within=0):
    with event.trigger_event("numba:compile"):
        time.sleep(seconds)
        for _ in range(within):
            compile_for(seconds)


def test_a_real_compilation_is_seen(told, monkeypatch):
    monkeypatch.setattr(compiling, "_PATIENCE_S", 0.0)
    njit(lambda x: x + 1)(1)
    time.sleep(0.05)
    assert told == ["the first run compiles its kernels: a minute or so, once"]


def test_many_short_compilations_add_up_and_are_told_once(told, monkeypatch):
    monkeypatch.setattr(compiling, "_PATIENCE_S", 3600.0)
    compile_for(0.03)
    assert told == []
    monkeypatch.setattr(compiling, "_PATIENCE_S", 0.1)
    for _ in range(5):
        compile_for(0.03, within=1)
    time.sleep(0.05)
    assert len(told) == 1


def test_off_a_terminal_nobody_listens(monkeypatch):
    monkeypatch.setattr(compiling, "tell_of_compiling", lambda say: pytest.fail("it listens"))
    assert list(options.track([1, 2], "counting")) == [1, 2]
