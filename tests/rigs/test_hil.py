"""Hardware in the loop: the firmware's own lamps over the twin's scene, by the driver that ships."""

import shutil
from pathlib import Path

import pytest

from capture.devices import FrameLost
from capture.drivers.simulated import SimulatedCamera
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from rigs import hil, workflows
from rigs.simulated.controller import EmulatedController

NAMES = ("led02", "led05", "led11")
PLAN = CapturePlan(
    name="loop",
    blocks=(
        Block(kinds="ambient", pose="relief", cameras="top", bracket=ExposureBracket(exposures_s=(0.01,))),
        Block(
            kinds="object",
            pose="relief",
            cameras="top",
            lights=LightSequence(names=NAMES),
            bracket=ExposureBracket(exposures_s=(0.005, 0.02)),
        ),
    ),
)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory):
    missing = [tool for tool in ("make", "cc", "avr-gcc") if shutil.which(tool) is None]
    if missing or not Path("/usr/include/simavr").is_dir():
        pytest.skip(f"not installed: {', '.join(missing) or 'libsimavr-dev'}")
    with EmulatedController(tmp_path_factory.mktemp("hil"), "hc595", "atmega328p") as board:
        yield board


@pytest.fixture
def bench(mini, controller):
    return hil.Bench(PLAN, mini.config, mini.known, controller, workflows.silent)


@pytest.mark.parametrize("sequence", [False, True])
def test_frames_are_the_twins_to_the_bit(bench, mini, tmp_path, sequence):
    whole = workflows.capture_session(mini.config, PLAN, tmp_path / "twin", simulate=mini.known)
    metrics = bench.captured(tmp_path / "loop", sequence, whole)
    assert all(metric.passed for metric in metrics if metric.bound is not None), metrics
    assert not bench.controller.levels


def test_the_firmware_times_light_and_camera(bench):
    metrics = bench.fired()
    assert all(metric.passed for metric in metrics), metrics


def test_a_light_that_the_rig_has_not_is_told(bench):
    scene = bench.scene()
    scene.show("relief")
    with bench.light("led02", False) as light, SimulatedCamera("top", bench.limits(False), scene) as camera:
        camera.expose(0.005, 0.0, 1.0)
        light.sequencer.controller.light(7, 255)
        with pytest.raises(FrameLost, match="channel 7 burns, which no light of the rig is on"):
            camera.expose(0.005, 0.0, 1.0)
    assert not bench.controller.levels


def test_without_the_tools_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("rigs.simulated.controller.shutil.which", lambda tool: None)
    with (
        pytest.raises(ValueError, match="the program make is missing: apt-get install make"),
        EmulatedController(tmp_path, "uno", "atmega328p"),
    ):
        pass
