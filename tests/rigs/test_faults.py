"""The command under faults, on the firmware and emulated cameras: a few of tests/benchmarks/faults.py."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("termios", reason="POSIX terminals and signals")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import faults
from faults_bench import COMMAND, build, cameras


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if not Path("/usr/include/simavr").is_dir():
        pytest.skip("not installed: libsimavr-dev")
    if not COMMAND.exists():
        pytest.skip(f"{COMMAND} is not installed")
    try:
        return build(tmp_path_factory.mktemp("firmware"))
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("kind", "camera"), [("unplugged", "pylon"), ("SIGKILL", "sequence")])
def test_a_fault_leaves_a_session_that_resumes_and_no_light_on(kind, camera, built, tmp_path):
    found = cameras(tmp_path)
    if not found:
        pytest.skip("neither pypylon nor harvesters is installed")
    if camera in found:
        found = {camera: found[camera]}
    outcome = faults.run_one(0, 7, [kind], tmp_path / "run", built, found)
    assert outcome.broken == [], outcome.text
    assert outcome.valid
    assert outcome.timed >= 20
